//! Matrices and allotments, from candles and from the ticker, on both engines.

use watchbell_core::{Frac, Millis, Statement, Time, Value, values};
use watchbell_db::Engine;
use watchbell_market::matrices::cells::MatrixType;
use watchbell_market::matrices::tiers::{Tier, direction};
use watchbell_market::matrices::{self, MATRICES};
use watchbell_market::{Config, MARKET_HEALTH, mea};
use watchbell_testkit::{NOW, postgres_is_wanted};
use watchbell_venues::sim::Market;

use crate::world::{Computed, MINUTE, SYMBOLS, World, engines};

const HOUR: Millis = Millis::from_hours(1);
const CYCLE: Millis = watchbell_market::BASE_CYCLE;
/// USDT and the three coins of the world.
const N: i64 = 4;

/// Everything that is published of slices and cycles.
const TABLES: [&str; 7] = [
    "select * from matrices.slices order by series, ts_ms, version",
    "select * from matrices.rows order by series, ts_ms, version, matrix_type, base",
    "select * from matrices.flags order by series, ts_ms, version, base",
    "select * from matrices.openings order by series, opening_ts, symbol",
    "select * from mea_dynamics.cycles order by cycle_id",
    "select * from mea_dynamics.mea_symbol order by cycle_id, coin",
    "select * from mea_dynamics.dynamics_snapshot order by cycle_id",
];

fn hourly() -> Config {
    Config { windows: vec![HOUR], ..Config::default() }
}

async fn computed(engine: Engine, history: Millis) -> (World, Vec<Computed>) {
    let w = World::on(engine, &hourly(), history, "").await;
    w.settle().await;
    let all = w.chain(NOW).await.into_iter().map(|(c, _)| c).collect();
    (w, all)
}

fn number(value: &Value) -> f64 {
    let Value::Float(v) = value else { panic!("{value} is not a number") };
    *v
}

#[tokio::test]
async fn both_engines_compute_the_same_slices_and_cycles() {
    let history = HOUR * 27;
    let (lite, want) = computed(Engine::Sqlite, history).await;
    // 27 windows, their slices, their cycles, their moods.
    assert_eq!(want.len(), 27 * 4);
    // A replay of an early and of a late one gives what was published.
    for series in ["matrices-1h", "mea-1h"] {
        for start in [NOW - history, NOW - HOUR] {
            let first = want.iter().find(|(s, at, _)| s == series && *at == start).unwrap();
            let again = lite.version(series, start, 2).await.unwrap().window.unwrap();
            assert_eq!(again.result, first.2.result, "{series} {start}");
        }
    }
    if !postgres_is_wanted() {
        return;
    }
    let (server, have) = computed(Engine::Postgres, history).await;
    assert_eq!(want, have);
    for series in ["matrices-1h", "mea-1h"] {
        for start in [NOW - history, NOW - HOUR] {
            server.version(series, start, 2).await.unwrap();
        }
    }
    for sql in TABLES {
        let (want, have) = (lite.rows(sql).await, server.rows(sql).await);
        assert!(!want.is_empty(), "{sql}");
        assert!(want == have, "{sql}: the rows differ");
    }
}

#[tokio::test]
async fn the_views_show_every_cell_of_one_instant() {
    for engine in engines() {
        let (w, _) = computed(engine, HOUR * 26).await;
        let cells = 7 * N * (N - 1);
        assert_eq!(w.count("select count(*) from matrices.dyn_values").await, 26 * cells);
        assert_eq!(w.count("select count(*) from matrices.v_latest").await, cells);
        let once = "select count(distinct ts_ms) from matrices.v_latest";
        assert_eq!(w.count(once).await, 1);
        // An empty cell has a reason, a full one has none.
        let odd =
            "select count(*) from matrices.dyn_values where (value is null) = (reason is null)";
        assert_eq!(w.count(odd).await, 0);
        let reasons = w
            .rows(
                "select distinct matrix_type, reason from matrices.dyn_values
                 where reason is not null order by matrix_type, reason",
            )
            .await;
        let words =
            [["id_pct", "NO_PREVIOUS"], ["pct24h", "NO_CHANGE_24H"], ["pct_drv", "NO_PREVIOUS"]];
        assert_eq!(reasons, words.map(|row| row.map(Value::from).to_vec()));
        // After a day, everything has a number.
        assert_eq!(
            w.count("select count(*) from matrices.v_latest where reason is not null").await,
            0
        );
        // The movement of a window is that of its last prices.
        let prices = w
            .rows(
                "select last_price from str_aux.window_stats where symbol = 'ETHUSDT'
                 order by window_start desc limit 2",
            )
            .await;
        let (now, before) = (number(&prices[0][0]), number(&prices[1][0]));
        let grid = matrices::latest_grid(&w.db, "1h", MatrixType::IdPct).await.unwrap().unwrap();
        assert_eq!(grid.head.coins, ["USDT", "BTC", "ETH", "SOL"]);
        assert_eq!(grid.head.ts, NOW);
        assert_eq!(grid.cells[2][0], Some((now - before) / before));
        assert_eq!(grid.cells[2][2], None);
        // Tiers by the view are tiers by the code.
        let tiers = w.rows("select id_pct, tier, weight, direction from matrices.tiers").await;
        for row in &tiers {
            if row[0] == Value::Null {
                assert_eq!(
                    (&row[1], number(&row[2]), &row[3]),
                    (&Value::Null, 0.0, &Value::Int(0))
                );
                continue;
            }
            let id = Frac(number(&row[0]));
            let tier = Tier::of(id);
            assert_eq!(row[1], Value::from(tier.as_str()), "{id:?}");
            assert_eq!(number(&row[2]), tier.weight());
            assert_eq!(row[3], Value::Int(direction(id).into()));
        }
        assert_eq!(tiers.len() as i64, 26 * N * (N - 1));
        assert_eq!(
            w.count("select count(*) from matrices.v_flags where streak <> 0").await,
            0,
            "a walk always moves"
        );
        assert_eq!(w.count("select count(*) from matrices.latest").await, 3);
        assert_eq!(w.count("select count(*) from matrices.v_pair_universe").await, 3);
        assert_eq!(w.count("select count(*) from mea_dynamics.v_latest_cycles").await, 1);
        assert_eq!(w.count("select count(*) from mea_dynamics.v_latest_mea").await, N);
        assert_eq!(w.count("select count(*) from mea_dynamics.v_latest_snapshots").await, 1);
        let history = matrices::pair_history(&w.db, "1h", "BTC", "ETH", 5).await.unwrap();
        assert_eq!(history.len(), 5);
        assert_eq!((history[0].ts, history[4].ts), (NOW, NOW - HOUR * 4));
        let (newer, older) = (&history[0].values, &history[1].values);
        let drv = newer["id_pct"].unwrap() - older["id_pct"].unwrap();
        assert_eq!(newer["pct_drv"], Some(drv));
        assert_eq!(newer.len(), 7);
    }
}

#[tokio::test]
async fn the_opening_of_a_day_is_stored_once() {
    // NOW is 03:00: the windows before midnight look back on the day before.
    let (w, _) = computed(Engine::Sqlite, HOUR * 6).await;
    let midnight = NOW - HOUR * 3;
    let openings = w.rows("select opening_ts, symbol, at from matrices.openings").await;
    assert_eq!(openings.len(), 6);
    let slices = w.rows("select ts_ms, opening_ts from matrices.slices order by ts_ms").await;
    for row in slices {
        let Value::Int(ts) = row[0] else { panic!("an instant") };
        // A window that ends at midnight belongs to the day that it is of.
        let day = if Time(ts) <= midnight { midnight - HOUR * 24 } else { midnight };
        assert_eq!(row[1], Value::from(day), "{}", Time(ts));
    }
    // Candles begin within the first day: its opening is the first one of them.
    let first = "select count(*) from matrices.openings where at > opening_ts and at = ";
    let first = format!("{first}{}", (NOW - HOUR * 6).0);
    assert_eq!(w.db.query_one(first, vec![]).await.unwrap().i64(0).unwrap(), 3);
    // A candle that is corrected later does not reach an opening.
    let before = w.rows("select * from matrices.openings order by opening_ts, symbol").await;
    w.apply("update ingest.kline_raw set close = close * 2", vec![]).await;
    w.version("matrices-1h", NOW - HOUR, 2).await.unwrap();
    assert_eq!(w.rows("select * from matrices.openings order by opening_ts, symbol").await, before);
}

#[tokio::test]
async fn published_slices_and_cooled_cycles_are_immutable() {
    for engine in engines() {
        let (w, _) = computed(engine, HOUR * 2).await;
        w.tick(MATRICES).await.unwrap();
        let slice = "a published slice is immutable: correct it with a new version";
        let cycle = "a cooled cycle is immutable: correct its window with a new version";
        for (sql, says) in [
            ("update matrices.slices set opening_ts = 0", slice),
            ("update matrices.rows set base = 'X' where series = 'cycle'", slice),
            ("update matrices.flags set flips = '[]'", slice),
            ("delete from matrices.slices", slice),
            ("delete from matrices.rows where series = '1h'", slice),
            ("delete from matrices.flags", slice),
            ("update matrices.openings set price = 1", "an opening is immutable"),
            ("delete from matrices.openings", "an opening is immutable"),
            ("update mea_dynamics.cycles set k = 9", cycle),
            ("delete from mea_dynamics.cycles", cycle),
            ("update mea_dynamics.mea_symbol set mea_value = 9", cycle),
            ("delete from mea_dynamics.dynamics_snapshot", cycle),
            (
                "insert into mea_dynamics.dynamics_snapshot
                   select 'hot', window_label, ts, engine_cycle, base, quote, coins, candidates,
                     asset_identity, arbitrage_rows, str_available, str_measures, histogram,
                     mea_value, mea_tier, mood_id, mood_name, stamps
                   from mea_dynamics.dynamics_snapshot",
                "a snapshot is taken of a cooled cycle",
            ),
        ] {
            let refused = w.db.apply(vec![Statement::new(sql, vec![])]).await.unwrap_err();
            assert!(refused.to_string().contains(says), "{sql}: {refused}");
        }
    }
}

#[tokio::test]
async fn a_window_that_was_given_up_gives_up_its_matrices_and_cycle() {
    let w = World::with(&hourly(), HOUR * 2, "").await;
    w.settle().await;
    let start = NOW - HOUR;
    for (series, input) in [("matrices-1h", "window-sampler-1h"), ("mea-1h", "matrices-1h")] {
        let fault = w.version(series, start, 1).await.unwrap_err();
        assert_eq!(fault.kind(), "permanent");
        let text = fault.to_string();
        let says = format!("INPUT_ABANDONED: {input} {start} was given up");
        assert!(text.starts_with(&says), "{text}");
    }
}

#[tokio::test]
async fn the_present_has_a_slice_of_its_own() {
    for engine in engines() {
        let mut config = hourly();
        config.matrices.keep = Millis::from_mins(5);
        let w = World::on(engine, &config, HOUR * 4, "").await;
        w.settle().await;
        w.tick(MATRICES).await.unwrap();
        let stamp = w.clock.now().floor(CYCLE);
        let head = matrices::latest_slice(&w.db, "cycle").await.unwrap().unwrap();
        assert_eq!((head.ts, head.version, head.coins.len()), (stamp, 1, N as usize));
        assert_eq!(head.summary["previous"], serde_json::Value::Null);
        // Within the same forty seconds there is nothing to do.
        let again = w.tick(MATRICES).await.unwrap();
        assert!(again.commit.is_empty());
        // The ticker says what the price is and how it changed over a day.
        let ticker =
            w.rows("select price, change_24h from market.ticker_latest order by symbol").await;
        let grid = |of| {
            let db = w.db.clone();
            async move { matrices::latest_grid(&db, "cycle", of).await.unwrap().unwrap().cells }
        };
        let (bm, day) = (grid(MatrixType::Benchmark).await, grid(MatrixType::Pct24h).await);
        for (coin, row) in ticker.iter().enumerate() {
            assert_eq!(bm[coin + 1][0], Some(number(&row[0])));
            let change = number(&row[1]);
            assert!((day[coin + 1][0].unwrap() - change).abs() < 1e-12);
        }
        for n in 1..12 {
            w.pass(CYCLE);
            w.tick(MATRICES).await.unwrap();
            let kept = w.count("select count(*) from matrices.slices where series = 'cycle'").await;
            assert_eq!(kept, (n + 1).min(8), "those of the last five minutes");
            let rows = w.count("select count(*) from matrices.rows where series = 'cycle'").await;
            assert_eq!(rows, kept * 7 * N);
        }
        let head = matrices::latest_slice(&w.db, "cycle").await.unwrap().unwrap();
        assert_eq!(head.ts, stamp + CYCLE * 11);
        assert_eq!(head.summary["previous"], (head.ts - CYCLE).rfc3339());
        assert_eq!(head.summary["nulls"], 0);
    }
}

#[test]
fn the_present_is_computed_after_each_cycle() {
    let all = watchbell_market::definitions(&Config::default());
    let live = all.iter().find(|d| d.name.as_ref() == MATRICES).unwrap();
    assert_eq!(live.trigger.to_string(), "every 40s at +7s");
}

/// A world that is sampled, at the end of a cycle: its last point is stored, and it is not closed.
async fn at_the_end_of_a_cycle(engine: Engine) -> (World, Time) {
    let w = World::on(engine, &hourly(), HOUR, "").await;
    w.settle().await;
    let end = w.clock.now().ceil(CYCLE) + CYCLE;
    w.pass(end - CYCLE * 2 - w.clock.now());
    w.sample_for(end + Millis::from_secs(4) - w.clock.now()).await;
    (w, end)
}

const CYCLES: &str = "select count(*) from str_aux.cycles_40s where cycle_start = ";
const SLICES: &str = "select count(*) from matrices.slices where series = 'cycle'";

#[tokio::test]
async fn a_slice_of_the_present_waits_for_the_close_of_its_cycle() {
    for engine in engines() {
        let (w, end) = at_the_end_of_a_cycle(engine).await;
        let closed = format!("{CYCLES}{}", (end - CYCLE).0);
        let closed = async || {
            let row = w.db.query_one(closed.clone(), vec![]).await.unwrap();
            row.i64(0).unwrap()
        };
        let mut slice = std::pin::pin!(w.tick_by_the_clock(MATRICES));
        let second = Millis::from_secs(1);
        tokio::select! {
            biased;
            _ = &mut slice => panic!("it did not wait"),
            at = w.clock.next_timer(w.clock.now() + Millis(1)) => {
                assert_eq!(at, w.clock.now() + second, "it will look again");
            }
        }
        assert_eq!((closed().await, w.count(SLICES).await), (0, 0));
        w.pass(second);
        w.sample().await.unwrap();
        assert_eq!((closed().await, w.count(SLICES).await), (SYMBOLS.len() as i64, 0));
        let done = slice.await.unwrap();
        assert_eq!(done.summary["ts"], end.rfc3339());
        assert_eq!(done.summary["unclosed"], 0);
        assert_eq!(w.clock.now(), end + second * 5);
    }
}

#[tokio::test]
async fn a_slice_of_the_present_does_not_wait_for_a_sampler_that_has_stopped() {
    let (w, end) = at_the_end_of_a_cycle(Engine::Sqlite).await;
    let done = w.tick(MATRICES).await.unwrap();
    assert_eq!(done.summary["ts"], end.rfc3339());
    assert_eq!(done.summary["unclosed"], SYMBOLS.len());
    assert_eq!(w.clock.now(), end + Millis::from_secs(15), "no longer than that");
    // The next cycle has no point at all: nothing is waited for.
    w.pass(CYCLE);
    let before = w.clock.now();
    let done = w.tick(MATRICES).await.unwrap();
    assert_eq!((&done.summary["unclosed"], w.clock.now()), (&0.into(), before));
}

#[tokio::test]
async fn a_slice_of_the_present_and_its_tickers_may_be_two_refreshes_old() {
    let w = World::with(&hourly(), HOUR, "").await;
    w.settle().await;
    w.pass(w.clock.now().ceil(CYCLE) - w.clock.now());
    w.tick(MATRICES).await.unwrap();
    let slice = w.clock.now();
    // One of the symbols is asked for again by somebody else.
    let later = "update market.ticker_latest set ts = ts + 300000 where symbol = 'BTCUSDT'";
    w.apply(later, vec![]).await;
    for (age, lag, tickers) in
        [(80, "ok", "ok"), (81, "warn", "warn"), (200, "warn", "warn"), (201, "err", "warn")]
    {
        w.pass(slice + Millis::from_secs(age) - w.clock.now());
        w.tick(MARKET_HEALTH).await.unwrap();
        let pack = w
            .rows(
                "select items from ops.smoke_pack where scope = 'health' order by ts desc limit 1",
            )
            .await;
        let Value::Text(items) = &pack[0][0] else { panic!("a document") };
        let items: Vec<serde_json::Value> = serde_json::from_str(items).unwrap();
        let level = |key: &str| items.iter().find(|i| i["key"] == key).unwrap()["level"].clone();
        assert_eq!(level("matrices:lag"), lag, "{age}s");
        assert_eq!(level("tickset:size"), tickers, "{age}s: {items:?}");
    }
}

#[tokio::test]
async fn one_unknown_symbol_does_not_starve_the_others() {
    let w = World::with(&hourly(), HOUR * 4, "").await;
    w.settle().await;
    w.apply(
        "insert into settings.coin_universe
           (symbol, enabled, sort_order, base_asset, quote_asset, updated_at)
         values ('NOPEUSDT', 1, 99, 'NOPE', 'USDT', 0)",
        vec![],
    )
    .await;
    let done = w.tick(MATRICES).await.unwrap();
    assert_eq!(done.summary["missing"], serde_json::json!(["NOPEUSDT"]));
    let grid = matrices::latest_grid(&w.db, "cycle", MatrixType::Benchmark).await.unwrap().unwrap();
    assert!(grid.cells[1][0].is_some());
    assert_eq!(grid.reasons[4][0].as_deref(), Some("NO_ROUTE"));
}

/// What the newest slice has of the prices in USDT, by symbol; `None` where it has a reason instead.
async fn in_usdt(w: &World) -> Vec<Option<f64>> {
    let grid = matrices::latest_grid(&w.db, "cycle", MatrixType::Benchmark).await.unwrap().unwrap();
    (1..grid.cells.len()).map(|coin| grid.cells[coin][0]).collect()
}

/// Each answer takes a second; this goes wrong with every request after the first `asked`.
fn after(w: &World, asked: i64, fault: &str) -> String {
    let from = w.clock.now() + Millis(asked * 1_000 - 500);
    format!("ticker:latency:ms=1000 ; {fault},from={from}")
}

#[tokio::test]
async fn one_symbol_that_cannot_be_had_leaves_the_slice_to_the_others() {
    let w = World::with(&hourly(), HOUR * 4, "ticker:missing:symbol=ETHUSDT").await;
    w.settle().await;
    // Left out of the list, but answered alone.
    let done = w.tick(MATRICES).await.unwrap();
    assert_eq!(done.summary["missing"], serde_json::json!([]));
    assert!(in_usdt(&w).await.iter().all(Option::is_some));
    // Not to be had at all: the list is asked, the others again, and then it alone.
    w.pass(Millis::from_mins(2));
    let alone = after(&w, 2, "ticker:500:symbol=ETHUSDT");
    w.set_faults(&format!("ticker:missing:symbol=ETHUSDT ; {alone}"));
    let done = w.tick(MATRICES).await.unwrap();
    assert_eq!(done.summary["missing"], serde_json::json!(["ETHUSDT"]));
    let problem = done.summary["problems"][0].as_str().unwrap();
    assert!(
        problem.starts_with("ETHUSDT: binance 24hr ETHUSDT: refused with status 500"),
        "{problem}"
    );
    let prices = in_usdt(&w).await;
    assert_eq!(prices.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
    // And well again.
    w.set_faults("");
    w.pass(Millis::from_mins(2));
    let done = w.tick(MATRICES).await.unwrap();
    assert_eq!(done.summary["problems"], serde_json::json!([]));
    assert!(in_usdt(&w).await.iter().all(Option::is_some));
}

#[tokio::test]
async fn an_answer_that_is_cut_short_is_never_taken_for_a_whole_one() {
    let w = World::with(&hourly(), HOUR * 4, "").await;
    w.settle().await;
    let slices = "select count(*) from matrices.slices where series = 'cycle'";
    let fails = async |faults: &str| {
        w.set_faults(faults);
        assert_eq!(w.tick(MATRICES).await.unwrap_err().kind(), "transient", "{faults}");
        assert_eq!(w.count(slices).await, 0, "{faults}");
    };
    fails("ticker:truncated").await;
    fails("ticker:malformed").await;
    // One is left out of the list, and the others, asked again, are cut short.
    let others = after(&w, 1, "ticker:malformed:seed=1");
    fails(&format!("ticker:missing:symbol=ETHUSDT ; {others}")).await;
    // Where nobody is in the list, it is no symbol's own trouble.
    let alone = after(&w, 1, "ticker:500:seed=1");
    fails(&format!("ticker:missing ; {alone}")).await;
    // A page is refused for one unknown symbol; another one of it has only a bad moment.
    w.apply(
        "insert into settings.coin_universe
           (symbol, enabled, sort_order, base_asset, quote_asset, updated_at)
         values ('NOPEUSDT', 1, 99, 'NOPE', 'USDT', 0)",
        vec![],
    )
    .await;
    fails(&after(&w, 2, "ticker:500:symbol=ETHUSDT")).await;
    w.set_faults("");
    w.tick(MATRICES).await.unwrap();
    assert_eq!(w.count(slices).await, 1);
}

/// A recording in which SOLUSDT stops two days before the others.
fn delisting() -> Market {
    let folder = tempfile::tempdir().unwrap();
    for (symbol, price, end) in [
        ("BTCUSDT", 90_000, NOW + HOUR),
        ("ETHUSDT", 3_000, NOW + HOUR),
        ("SOLUSDT", 150, NOW - HOUR * 48),
    ] {
        let mut csv = String::from("open_time_ms,open,high,low,close,volume\n");
        let begin = NOW - HOUR * 54;
        for i in 0..(end - begin) / MINUTE {
            let (at, price) = (begin + MINUTE * i, price + i % 7);
            csv += &format!("{},{price},{price}.5,{price},{price},{}.25\n", at.0, 3 + i % 5);
        }
        std::fs::write(folder.path().join(format!("{symbol}-1m.csv")), csv).unwrap();
    }
    Market::recorded(folder.path()).unwrap()
}

#[tokio::test]
async fn a_symbol_that_stopped_trading_has_no_price_and_the_others_have() {
    let w = World::of(delisting(), Engine::Sqlite, &hourly(), HOUR * 4, "").await;
    let done = w.tick(MATRICES).await.unwrap();
    assert_eq!(done.summary["missing"], serde_json::json!(["SOLUSDT"]));
    let want = serde_json::json!(["SOLUSDT: not traded for 24 hours"]);
    assert_eq!(done.summary["problems"], want);
    let prices = in_usdt(&w).await;
    assert_eq!(prices.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false]);
    // Its zeros are no price: neither here nor by the job.
    w.pass(MINUTE);
    let done = w.ingest_job("fetch_ticker", serde_json::json!({})).await.unwrap();
    assert_eq!(done.summary["missing"], serde_json::json!(["SOLUSDT"]));
    let stored = w.rows("select symbol from market.ticker_latest order by symbol").await;
    assert_eq!(stored, [["BTCUSDT".into()], ["ETHUSDT".into()]]);
}

#[tokio::test]
async fn a_coin_that_comes_back_has_no_previous_price() {
    let w = World::with(&hourly(), HOUR * 4, "").await;
    w.settle().await;
    let id_pct = async |enabled: i64| {
        w.apply(
            "update settings.coin_universe set enabled = $1 where symbol = 'ETHUSDT'",
            values![enabled],
        )
        .await;
        w.pass(Millis::from_mins(2));
        w.tick(MATRICES).await.unwrap();
        matrices::latest_grid(&w.db, "cycle", MatrixType::IdPct).await.unwrap().unwrap()
    };
    id_pct(1).await;
    let without = id_pct(0).await;
    assert_eq!(without.head.coins, ["USDT", "BTC", "SOL"]);
    assert!(without.cells[2][1].is_some(), "SOL is found in its old place");
    let again = id_pct(1).await;
    assert_eq!(again.head.coins, ["USDT", "BTC", "ETH", "SOL"]);
    assert_eq!(again.reasons[2][0].as_deref(), Some("NO_PREVIOUS"));
    assert!(again.cells[3][1].is_some());
    let prices = matrices::latest_grid(&w.db, "cycle", MatrixType::Benchmark).await.unwrap();
    assert!(prices.unwrap().cells[2][0].is_some());
}

#[tokio::test]
async fn a_new_series_begins_with_the_first_window_that_it_can_follow() {
    let w = World::with(&hourly(), HOUR * 6, "").await;
    w.settle().await;
    // Nothing to follow yet: it will begin where the windows do.
    assert_eq!(w.first_window("matrices-1h", Time::EPOCH).await, Some(NOW - HOUR * 6));
    // Windows of the time before were never computed.
    w.window(HOUR, NOW - HOUR * 2).await.unwrap();
    for series in ["matrices-1h", "mea-1h"] {
        assert_eq!(w.first_window(series, Time::EPOCH).await, Some(NOW - HOUR * 2));
        // A backfill asks for them by their time.
        let asked = w.first_window(series, NOW - HOUR * 5).await;
        assert_eq!(asked, Some(NOW - HOUR * 5));
    }
    // Where the one that it follows has begun, even with windows that were given up, it begins there:
    // both wait for each other.
    let begun = "insert into ops.windows (series, start_at, version, end_at, state)
        values ('mea-1h', $1, 1, $2, 'abandoned')";
    w.apply(begun, values![NOW - HOUR * 4, NOW - HOUR * 3]).await;
    assert_eq!(w.first_window("mood-1h", Time::EPOCH).await, Some(NOW - HOUR * 4));
    assert_eq!(w.first_window("mea-1h", Time::EPOCH).await, Some(NOW - HOUR * 2));
}

#[tokio::test]
async fn balances_come_from_the_session_then_the_wallet_then_equal_parts() {
    let w = World::with(&hourly(), HOUR * 6, "").await;
    w.settle().await;
    w.windows(NOW).await;
    let hour = |n: i64| NOW - HOUR * n;
    for n in [6, 5, 4, 3, 2, 1] {
        w.version("matrices-1h", hour(n), 1).await.unwrap();
    }
    let run = |n: i64| w.version("mea-1h", hour(n), 1);

    let equal = run(5).await.unwrap();
    assert_eq!(equal.summary["balances"], "equal");
    assert_eq!(equal.summary["mood"]["coeff"], 0.8);
    let worth = w.rows("select wallet_value from mea_dynamics.mea_symbol").await;
    assert!(worth.iter().all(|row| (number(&row[0]) - 1000.0).abs() < 1e-9));

    w.apply(
        "insert into market.wallet_balances (asset, ts, free_amt, locked_amt)
         values ('BTC', 0, '1.5', '0.5')",
        vec![],
    )
    .await;
    // A mood of this window or a later one does not count, nor does one of another label.
    for (label, n, coeff) in [("1h", 5, 1.1), ("1h", 4, 1.9), ("30m", 6, 1.7)] {
        w.apply(
            "insert into mea_dynamics.moods (window_label, window_start, version, ts_ms, coeff,
               mood_id, tier, is_fallback, is_stale, payload)
             values ($1, $2, 1, $2, $3, 'Fb3', 'A', 0, 0, '{}')",
            values![label, hour(n), coeff],
        )
        .await;
    }
    let wallet = run(4).await.unwrap();
    assert_eq!(wallet.summary["balances"], "wallet");
    assert_eq!(wallet.summary["mood"]["coeff"], 1.1);

    // A session that was open from half past five to half past two hours ago.
    let opening = hour(4) + Millis::from_mins(30);
    w.apply(
        "insert into cin_aux.rt_session
           (owner, window_label, status, mode, started_at, ended_at, opening_stamp)
         values ('me', '1h', 'OPEN', 'ledger', $1, null, $1)",
        values![opening],
    )
    .await;
    w.apply(
        "insert into cin_aux.rt_balance (session_id, asset, opening_principal, opening_profit,
           principal_usdt, profit_usdt, units)
         values (1, 'ETH', '0', '0', '0', '0', '2.25')",
        vec![],
    )
    .await;
    let session = run(3).await.unwrap();
    assert_eq!(session.summary["balances"], "session");
    let suggested = "select symbol, ts_ms, value > 0 from cin_aux.mea_result order by symbol";
    let rows = w.rows(suggested).await;
    assert_eq!(rows.len(), 4, "{rows:?}");
    assert_eq!(rows[1], values!["ETHUSDT", hour(2), 1]);
    w.apply(
        "update cin_aux.rt_session set status = 'CLOSED', ended_at = $1",
        values![hour(2) + Millis::from_mins(30)],
    )
    .await;
    assert_eq!(run(2).await.unwrap().summary["balances"], "wallet", "it was over by then");

    let view = mea::latest(&w.db, "1h").await.unwrap().unwrap();
    assert_eq!((view.cycle.window_start, &*view.cycle.balance_source), (hour(2), "wallet"));
    let names: Vec<_> = view.symbols.iter().map(|s| &*s.symbol).collect();
    assert_eq!(names, ["BTCUSDT", "ETHUSDT", "SOLUSDT", "USDT"]);
    let btc = &view.symbols[0];
    assert_eq!(btc.components["balance"], 2.0);
    assert_eq!(btc.components["k"], 3.0);
    let cells: f64 =
        btc.cells.as_array().unwrap().iter().filter_map(serde_json::Value::as_f64).sum();
    assert!((btc.mea_value - cells).abs() <= 1e-12 * cells);
    let snapshot = view.snapshot.unwrap();
    assert_eq!((&snapshot["base"], &snapshot["quote"]), (&"BTC".into(), &"ETH".into()));
    assert_eq!(snapshot["candidates"], serde_json::json!(["USDT", "SOL"]));
    assert_eq!(snapshot["arbitrage_rows"][1]["edges"].as_array().unwrap().len(), 3);
    assert!(snapshot["arbitrage_rows"][1]["edges"][0]["v_tendency"].is_f64());
    assert_eq!(snapshot["str_available"], true);

    // The slice of the time when the session was open looks back on its opening, also now that it
    // is closed.
    let again = w.version("matrices-1h", hour(3), 2).await.unwrap();
    assert_eq!(again.summary["opening"], opening.rfc3339());
    // A broken amount names itself.
    w.apply("update market.wallet_balances set free_amt = 'much'", vec![]).await;
    let fault = w.version("mea-1h", hour(2), 2).await.unwrap_err();
    assert!(fault.to_string().contains("the free amount of BTC is stored as `much`"), "{fault}");
}

#[tokio::test]
async fn the_configured_pair_and_divisor_count() {
    let config = Config {
        mea: mea::Config { k: Some(2), pair: Some(("SOL".into(), "USDT".into())) },
        ..hourly()
    };
    let w = World::with(&config, HOUR * 3, "").await;
    w.settle().await;
    let mut done = w.chain(NOW).await;
    let done = done.extract_if(.., |((series, ..), _)| series == "mea-1h").last().unwrap().1;
    assert_eq!(done.summary["k"], 2.0);
    assert_eq!(done.summary["pair"], serde_json::json!(["SOL", "USDT"]));
}
