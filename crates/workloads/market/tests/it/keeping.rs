//! What housekeeping removes, and what it must never remove.

use serde_json::json;
use watchbell_core::{Fault, Millis, Statement, Time, Value, values};
use watchbell_db::Engine;
use watchbell_market::{
    Config, InputsRemoved, MARKET_HOUSEKEEPING, Retention, STR_AUX_RUNNER, TRADE_SYNC,
    TradesConfig, UNIVERSE_DESK, series_name,
};
use watchbell_testkit::NOW;

use crate::world::{MINUTE, SYMBOLS, World, engines};

const WINDOW: Millis = Millis::from_mins(10);
const DAY: Millis = Millis::from_days(1);
const HOUR: Millis = Millis::from_hours(1);

fn config() -> Config {
    let trades = TradesConfig { enabled: true, lookback: MINUTE * 5, ..TradesConfig::default() };
    Config { windows: vec![WINDOW], trades, ..Config::default() }
}

/// Stores points of `symbol` at the ends of the buckets of `(from, to]`.
async fn points(w: &World, symbol: &str, from: Time, to: Time) {
    let mut rows: Vec<Value> = Vec::new();
    let mut at = from + Millis(5_000);
    while at <= to {
        let mid = 100.0 + ((at.0 / 5_000) % 97) as f64 / 10.0;
        rows.extend(values![symbol, at, mid, 2.0, 3.0, 5, "{}"]);
        at += Millis(5_000);
    }
    let insert = Statement::bulk(
        "insert into str_aux.samples_5s
           (symbol, ts, mid, bid_volume, ask_volume, bucket_count, quality_flags)
         values ($1, $2, $3, $4, $5, $6, $7)",
        7,
        rows,
    );
    w.db.apply(vec![insert]).await.unwrap();
}

/// The runtime knows the worker, and somebody wants it to run.
async fn wanted(w: &World, worker: &str) {
    w.apply(
        "insert into ops.workers (name, description, trigger_text, state, registered_at)
         values ($1, '', '', 'RUNNING', 0)",
        values![worker],
    )
    .await;
}

async fn removed(w: &World) -> serde_json::Value {
    w.tick(MARKET_HOUSEKEEPING).await.unwrap().summary
}

async fn oldest_point(w: &World) -> Time {
    Time(w.count("select coalesce(min(ts), 0) from str_aux.samples_5s").await)
}

#[tokio::test]
async fn old_points_go_but_not_those_that_a_window_has_still_to_read() {
    for engine in engines() {
        let w = World::on(engine, &config(), HOUR * 2, "").await;
        w.sync().await.unwrap();
        let series = series_name(WINDOW);
        let first = NOW - HOUR;
        let (second, third) = (first + WINDOW, first + WINDOW * 2);
        for symbol in SYMBOLS {
            points(&w, symbol, first - WINDOW * 2, third + WINDOW).await;
        }
        let done = w.window(WINDOW, first).await.unwrap();
        assert_eq!(done.window.unwrap().source, "points");
        let expected = w.rehearse(&series, WINDOW, second).await.window.unwrap();

        // The second window waits, for whatever reason, far beyond the age of its points.
        wanted(&w, &series).await;
        w.apply(
            "insert into ops.windows (series, start_at, version, end_at, state)
             values ($1, $2, 1, $3, 'failed')",
            values![series.as_str(), second, third],
        )
        .await;
        assert_eq!(removed(&w).await["removed"], json!({}), "nothing is old");
        w.pass(DAY * 15);
        let summary = removed(&w).await;
        let per_window = WINDOW.0 / 5_000 * 3;
        assert_eq!(summary["removed"]["points"], per_window * 2, "{summary}");
        assert_eq!(summary["held_back"]["points"]["by"], series.as_str());
        assert_eq!(oldest_point(&w).await, first + Millis(5_000), "it looks back on the first");
        assert_eq!(removed(&w).await["removed"], json!({}), "a second time: nothing");
        let again = w.rehearse(&series, WINDOW, second).await.window.unwrap();
        assert_eq!(again, expected, "the window is what it would have been");

        // What was computed from points that are gone stays, and says that it cannot be verified.
        let fault = w.version(&series, first, 1).await.unwrap_err();
        let Fault::Permanent(e) = &fault else { panic!("{fault}") };
        assert!(e.is::<InputsRemoved>() && fault.to_string().contains("removed up to"), "{fault}");
        // A correction of it, or a window that was never computed, comes from candles.
        let corrected = w.version(&series, first, 2).await.unwrap();
        assert_eq!(corrected.window.unwrap().source, "klines");

        // It is computed; now the one after it is waited for.
        w.window(WINDOW, second).await.unwrap();
        w.apply(
            "update ops.windows set state = 'complete', inputs_hash = 'a', result_hash = 'b',
               source = 'points', finished_at = 1",
            vec![],
        )
        .await;
        assert_eq!(removed(&w).await["removed"]["points"], per_window);
        assert_eq!(oldest_point(&w).await, second + Millis(5_000));
        // Somebody asks for an older one.
        w.apply(
            "insert into ops.backfills (series, from_at, to_at, cursor_at, requested_by, requested_at)
             values ($1, $2, $3, $2, 'ada', 0)",
            values![series.as_str(), first, second],
        )
        .await;
        assert_eq!(removed(&w).await["removed"], json!({}));
        // Nobody waits any more.
        w.apply("update ops.workers set desired = 'STOPPED'", vec![]).await;
        let summary = removed(&w).await;
        assert_eq!(summary["removed"]["points"], per_window * 2, "{summary}");
        assert_eq!(summary["held_back"], json!({}));
        assert_eq!(w.count("select count(*) from str_aux.samples_5s").await, 0);
        let specs =
            w.rows("select label, base_step_seconds, cycle_seconds from str_aux.sampling_specs");
        assert_eq!(specs.await, [values!["default", 5, 40]]);
        let pollers = "select poller_id, last_status, last_run_utc from settings.poller_state";
        assert_eq!(w.rows(pollers).await, [values![series.as_str(), "never", None::<Time>]]);
        // Candles, windows, cursors and gaps are as they were.
        w.assert_nothing_skipped().await;
        assert_eq!(w.count("select count(*) from str_aux.windows").await, 3 * 3);
    }
}

#[tokio::test]
async fn a_crash_between_two_batches_leaves_fewer_rows_and_nothing_else() {
    for engine in engines() {
        let w = World::on(engine, &config(), HOUR, "").await;
        let from = NOW - DAY * 20;
        points(&w, "BTCUSDT", from, from + Millis(5_000) * 12_000).await;
        points(&w, "ETHUSDT", NOW - DAY, NOW - DAY + HOUR).await;
        w.dies_after(Some(1));
        w.tick(MARKET_HOUSEKEEPING).await.unwrap_err();
        let left = |n: i64| from + Millis(5_000) * n;
        assert_eq!(oldest_point(&w).await, left(5_001));
        let known = "select until_at from str_aux.removed_points where symbol = 'BTCUSDT'";
        assert_eq!(w.count(known).await, left(5_000).0, "what is gone is known to be");
        w.dies_after(None);
        let summary = removed(&w).await;
        assert_eq!(summary["removed"], json!({ "points": 7_000 }));
        assert_eq!(summary["more"], false);
        assert_eq!(w.count(known).await, left(12_000).0);
        assert_eq!(w.count("select count(*) from str_aux.samples_5s").await, 720, "young ones");
        assert_eq!(w.count("select count(*) from str_aux.removed_points").await, 1);
        assert_eq!(removed(&w).await["removed"], json!({}));
    }
}

#[tokio::test]
async fn trades_go_with_the_knowledge_of_them() {
    for engine in engines() {
        let w = World::on(engine, &config(), HOUR, "").await;
        w.tick(TRADE_SYNC).await.unwrap();
        let all = w.count("select count(*) from ingest.agg_trade_raw").await;
        let middle = NOW - MINUTE * 2;
        for (from, at) in [(1, middle - MINUTE), (9, NOW + DAY)] {
            w.apply(
                "insert into ingest.trade_gaps
                 values ('BTCUSDT', $1, $1 + 1, $2, $2, 'hole', 2, 0, 0)",
                values![from, at],
            )
            .await;
        }
        // Three days after the middle: the older half is old.
        w.pass(middle + DAY * 3 - w.clock.now());
        let summary = removed(&w).await;
        let gone = summary["removed"]["trades"].as_i64().unwrap();
        let left = w.rows("select min(ts_ms), count(*) from ingest.agg_trade_raw").await;
        let [Value::Int(first), Value::Int(left)] = left[0][..] else { panic!("{left:?}") };
        assert!(first >= middle.0 && gone > 0 && left > 0, "{summary}");
        assert_eq!(gone + left, all);
        // What is known begins after the last that is gone, so that no window takes a part for all.
        let known = "select count(*) from ingest.trades_cursor c where c.known_from > (
              select min(r.ts_ms) - 60000 from ingest.agg_trade_raw r where r.symbol = c.symbol)
            and c.known_from <= (
              select min(r.ts_ms) from ingest.agg_trade_raw r where r.symbol = c.symbol)";
        assert_eq!(w.count(known).await, 3);
        assert_eq!(w.count("select count(*) from ingest.trade_gaps").await, 1, "the young one");
        w.pass(DAY * 4);
        removed(&w).await;
        assert_eq!(w.count("select count(*) from ingest.agg_trade_raw").await, 0);
        let ended = "select count(*) from ingest.trades_cursor where known_from <= known_until";
        assert_eq!(w.count(ended).await, 3);
        // Following goes on where it was.
        w.tick(TRADE_SYNC).await.unwrap();
    }
}

#[tokio::test]
async fn the_newest_ticker_and_book_of_a_symbol_stay() {
    for engine in engines() {
        let w = World::on(engine, &config(), HOUR, "").await;
        for _ in 0..3 {
            w.ingest_job("fetch_ticker", json!({})).await.unwrap();
            w.ingest_job("fetch_orderbook", json!({})).await.unwrap();
            w.pass(MINUTE);
        }
        for (seq, at) in [(1, NOW), (2, NOW + MINUTE)] {
            let row = values!["ada", seq, at, "idle", "", "{}"];
            let sql = "insert into audit.user_cycle_log
                 (owner_user_id, cycle_seq, ts, status, summary, payload)
               values ($1, $2, $3, $4, $5, $6)";
            w.apply(sql, row).await;
        }
        for at in [NOW, NOW + MINUTE] {
            let sql = "insert into ingest.account_balance_raw values ('me', $1, '[]')";
            w.apply(sql, values![at]).await;
        }
        let newest = w.rows("select * from market.ticker_latest order by symbol").await;
        w.sync().await.unwrap();
        assert!(w.count("select count(*) from ops.market_sync_log").await > 0);
        w.pass(DAY * 15);
        let summary = removed(&w).await;
        let removed = &summary["removed"];
        assert_eq!((&removed["tickers"], &removed["books"]), (&6.into(), &6.into()), "{summary}");
        assert_eq!(w.count("select count(*) from ops.market_sync_log").await, 0);
        assert_eq!(w.count("select count(*) from market.orderbook_latest").await, 3);
        let rebuilt = w.job(UNIVERSE_DESK, "market.rebuild", json!({})).await.unwrap();
        assert_eq!(rebuilt.summary["tickers"], 0);
        w.pass(DAY * 16);
        self::removed(&w).await;
        let log = w.rows("select cycle_seq from audit.user_cycle_log").await;
        assert_eq!(log, [values![2]], "the next one is the third");
        w.pass(DAY * 68);
        assert_eq!(self::removed(&w).await["removed"], json!({ "balances": 1 }));
        assert_eq!(w.rows("select * from market.ticker_latest order by symbol").await, newest);
    }
}

#[tokio::test]
async fn cycles_that_the_streams_have_not_seen_stay() {
    for engine in engines() {
        let w = World::on(engine, &config(), HOUR, "").await;
        w.tick(STR_AUX_RUNNER).await.unwrap();
        wanted(&w, STR_AUX_RUNNER).await;
        w.sample_for(MINUTE * 3).await;
        let cycles = w.count("select count(*) from str_aux.cycles_40s").await;
        assert!(cycles >= 3 * 3);
        w.pass(DAY * 40);
        let summary = removed(&w).await;
        assert_eq!(summary["held_back"]["cycles"]["by"], STR_AUX_RUNNER, "{summary}");
        assert_eq!(w.count("select count(*) from str_aux.cycles_40s").await, cycles);
        w.tick(STR_AUX_RUNNER).await.unwrap();
        let summary = removed(&w).await;
        assert_eq!(
            (&summary["removed"]["cycles"], &summary["held_back"]),
            (&cycles.into(), &json!({}))
        );
        assert_eq!(w.count("select count(*) from str_aux.samples_5s").await, 0);
        assert!(w.count("select count(*) from str_aux.stream_state").await == 3);
        w.pass(DAY * 60);
        removed(&w).await;
        assert_eq!(w.count("select count(*) from str_aux.stream_events").await, 0);
    }
}

#[tokio::test]
async fn what_is_kept_for_ever_is() {
    let retention = Retention {
        points: None,
        cycles: None,
        trades: None,
        tickers: None,
        books: None,
        stream_events: None,
        sync_log: None,
        account_log: None,
        balances: None,
    };
    let w = World::on(Engine::Sqlite, &Config { retention, ..config() }, HOUR, "").await;
    points(&w, "BTCUSDT", NOW - DAY * 900, NOW - DAY * 900 + MINUTE).await;
    w.ingest_job("fetch_ticker", json!({})).await.unwrap();
    w.pass(DAY * 99);
    let summary = removed(&w).await;
    assert_eq!(summary, json!({ "removed": {}, "held_back": {}, "more": false }));
    assert_eq!(w.count("select count(*) from str_aux.samples_5s").await, 12);
}

/// Day after day of a node that runs: what is stored stops growing.
#[tokio::test]
async fn a_month_of_points_does_not_pile_up() {
    let retention = Retention { points: Some(DAY * 2), ..Retention::default() };
    let w = World::on(Engine::Sqlite, &Config { retention, ..config() }, HOUR, "").await;
    let mut most = 0;
    for _ in 0..30 {
        let from = w.clock.now().floor(HOUR);
        points(&w, "BTCUSDT", from, from + HOUR * 2).await;
        w.pass(DAY);
        removed(&w).await;
        most = most.max(w.count("select count(*) from str_aux.samples_5s").await);
    }
    assert_eq!(most, 2 * 2 * 720, "two days of two hours");
}
