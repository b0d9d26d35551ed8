//! The universe through time: who is in which window, what the validation does, what operators ask.

use serde_json::json;
use watchbell_core::{Millis, Statement, Time, values};
use watchbell_market::{
    Config, UNIVERSE_CHANGED, UNIVERSE_DESK, UNIVERSE_VALIDATION, drift, universe, view,
};
use watchbell_testkit::NOW;

use crate::world::{MINUTE, SYMBOLS, World, engines};

const HALF: Millis = Millis::from_mins(30);
const SAMPLER: &str = "window-sampler-30m";

fn config() -> Config {
    Config { windows: vec![HALF], sampling: false, ..Config::default() }
}

async fn to(w: &World, at: Time) {
    w.pass(at - w.clock.now());
    w.sync().await.unwrap();
}

async fn validate(w: &World) -> serde_json::Value {
    w.tick(UNIVERSE_VALIDATION).await.unwrap().summary
}

/// `symbol` as it is, in a few words.
async fn state(w: &World, symbol: &str) -> String {
    let all = universe(&w.db, w.clock.now()).await.unwrap();
    let row = all.into_iter().find(|r| &*r.symbol == symbol).unwrap();
    let by = row.disabled_by.map_or_else(String::new, |by| format!(" by {by}"));
    let reason = row.reason.map_or_else(String::new, |r| format!(": {r}"));
    format!("{}{by}{reason}", if row.enabled { "enabled" } else { "disabled" })
}

/// Section 11.5 (d).
#[tokio::test]
async fn a_symbol_that_is_disabled_within_a_window_stays_in_it_and_is_not_in_the_next() {
    for engine in engines() {
        let w = World::on(engine, &config(), Millis::from_hours(6), "").await;
        w.sync().await.unwrap();
        assert_eq!(w.windows(NOW).await.len(), 12);

        to(&w, NOW + MINUTE * 10).await;
        let eth = json!({"symbols": ["ETHUSDT"]});
        let done = w.job(UNIVERSE_DESK, "universe.disable", eth.clone()).await.unwrap();
        assert_eq!(done.summary["disabled"], json!(["ETHUSDT"]));
        assert_eq!(state(&w, "ETHUSDT").await, "disabled by user");
        let changed = w.seen().events.pop().unwrap();
        assert_eq!(changed.kind, UNIVERSE_CHANGED);
        assert_eq!(changed.payload["disabled"], json!(["ETHUSDT"]));
        assert_eq!(
            (&changed.payload["by"], &changed.payload["enabled"]),
            (&json!("user"), &json!([]))
        );

        // Long after, for the scope does not depend on when it is asked for.
        to(&w, NOW + MINUTE * 95).await;
        assert!(w.seen().covered("ETHUSDT", NOW, NOW + HALF), "its last window has its candles");
        assert!(!w.seen().covered("ETHUSDT", NOW, NOW + HALF + MINUTE), "and no more");
        assert_eq!(w.scope(SAMPLER, NOW - HALF).await, SYMBOLS);
        assert_eq!(w.scope(SAMPLER, NOW).await, SYMBOLS);
        let without = ["BTCUSDT", "SOLUSDT"];
        assert_eq!(w.scope(SAMPLER, NOW + HALF).await, without);
        let with = w.window(HALF, NOW).await.unwrap();
        assert_eq!((&with.summary["symbols"], &with.summary["unlisted"]), (&json!(3), &json!([])));
        let next = w.window(HALF, NOW + HALF).await.unwrap();
        assert_eq!(next.summary["symbols"], 2);

        // Enabled within the window that begins at +90: it joins the one after.
        let done = w.job(UNIVERSE_DESK, "universe.enable", eth).await.unwrap();
        assert_eq!(done.summary["enabled"], json!(["ETHUSDT"]));
        to(&w, NOW + MINUTE * 151).await;
        assert_eq!(w.scope(SAMPLER, NOW + HALF * 3).await, without);
        assert_eq!(w.scope(SAMPLER, NOW + HALF * 4).await, SYMBOLS);
        w.window(HALF, NOW + HALF * 4).await.unwrap();
        // What it missed meanwhile has been fetched as well.
        w.assert_whole(NOW - Millis::from_hours(6), NOW + MINUTE * 150).await;
        let history = "select count(*) from settings.universe_changes where symbol = 'ETHUSDT'";
        assert_eq!(w.count(history).await, 3);
        for change in
            ["update settings.universe_changes set at = 0", "delete from settings.universe_changes"]
        {
            let refused = w.db.apply(vec![Statement::new(change, vec![])]).await.unwrap_err();
            assert!(refused.to_string().contains("only ever added to"), "{refused}");
        }
    }
}

/// A symbol that falls silent keeps nobody waiting: it is disabled after three bad looks, its open
/// window is given up with the reason, the next one goes on without it, and it returns by itself.
#[tokio::test]
async fn a_symbol_that_the_venue_no_longer_carries_leaves_and_returns() {
    for engine in engines() {
        let w = World::on(engine, &config(), Millis::from_hours(2), "").await;
        w.sync().await.unwrap();
        assert_eq!(validate(&w).await["capable"], 3);
        let silent = format!("klines:missing:symbol=ETHUSDT,from={NOW},to={}", NOW + HALF * 3);
        w.set_faults(&silent);
        let mut looks = Vec::new();
        for minute in 1..=7 {
            to(&w, NOW + MINUTE * minute).await;
            let summary = validate(&w).await;
            assert!(summary["outage"].is_null(), "{summary}");
            looks.push(state(&w, "ETHUSDT").await);
        }
        // Its newest candle closed at NOW; the clock stands on full minutes.
        let off = "disabled by auto: STALE_KLINES";
        assert_eq!(looks, ["enabled", "enabled", "enabled", "enabled", off, off, off]);
        assert_eq!(w.seen().count(UNIVERSE_CHANGED, "universe"), 1);

        to(&w, NOW + MINUTE * 31).await;
        to(&w, NOW + MINUTE * 32).await;
        to(&w, NOW + MINUTE * 61).await;
        let given_up = w.window(HALF, NOW).await.unwrap_err().to_string();
        assert_eq!(given_up, "INCOMPLETE: ETHUSDT has 0 of 30 candles");
        assert!(
            w.seen().covered("ETHUSDT", NOW, NOW + HALF),
            "so that it is given up, not waited for"
        );
        assert_eq!(w.window(HALF, NOW + HALF).await.unwrap().summary["symbols"], 2);

        // The venue has it again.
        to(&w, NOW + MINUTE * 95).await;
        let mut looks = Vec::new();
        for minute in 96..=98 {
            to(&w, NOW + MINUTE * minute).await;
            validate(&w).await;
            looks.push(state(&w, "ETHUSDT").await);
        }
        assert_eq!(looks, [off, off, "enabled"]);
        assert_eq!(w.scope(SAMPLER, NOW + HALF * 3).await, ["BTCUSDT", "SOLUSDT"]);
        assert_eq!(w.scope(SAMPLER, NOW + HALF * 4).await, SYMBOLS);
        let log: Vec<_> = drift(&w.db, 100).await.unwrap();
        let of = |action: &str| log.iter().filter(|d| d.action == action).count();
        assert_eq!((of("disabled"), of("noticed")), (1, 1), "{log:?}");
    }
}

/// How often the venue refused to give candles of a symbol.
async fn refusals(w: &World, symbol: &str) -> i64 {
    let sql = format!(
        "select count(*) from ops.market_sync_log where symbol = '{symbol}' and status = 'error'"
    );
    w.db.query_one(sql, vec![]).await.unwrap().i64(0).unwrap()
}

/// Sections 1.3 and 4.3: a symbol that fails for good is left out with a reason, and the windows go on.
#[tokio::test]
async fn a_symbol_that_the_venue_does_not_know_keeps_no_window_waiting() {
    for engine in engines() {
        let mut w = World::on(engine, &config(), Millis::from_hours(2), "").await;
        w.sync().await.unwrap();
        to(&w, NOW + MINUTE * 28).await;
        let link = json!({"symbols": ["LINKUSDT"]});
        w.job(UNIVERSE_DESK, "universe.enable", link.clone()).await.unwrap();
        let mut looks = Vec::new();
        for minute in 29..=37 {
            to(&w, NOW + MINUTE * minute).await;
            w.assert_nothing_skipped().await;
            validate(&w).await;
            looks.push(state(&w, "LINKUSDT").await);
        }
        assert_eq!(looks[6], "disabled by auto: NOT_LISTED", "{looks:?}");
        assert_eq!(looks[5], "enabled");
        let unlisted = w.sync().await.unwrap().summary["unlisted"]["LINKUSDT"].to_string();
        assert!(unlisted.contains("code -1121: Invalid symbol"), "{unlisted}");
        assert_eq!(w.sync().await.unwrap().summary["problems"], json!([]));
        assert_eq!(refusals(&w, "LINKUSDT").await, 2, "two answers make a hole, and it rests");
        assert_eq!(w.gaps("pending").await, 0);

        to(&w, NOW + MINUTE * 61).await;
        // It was in the universe when this one began.
        assert_eq!(w.scope(SAMPLER, NOW + HALF).await, SYMBOLS);
        for minute in 62..=122 {
            to(&w, NOW + MINUTE * minute).await;
        }
        let windows = w.windows(NOW + HALF * 4).await;
        assert_eq!(windows.len(), 8, "nobody waits");
        assert_eq!(windows[4].0.1, NOW);
        let unlisted = |i: usize| windows[i].1.summary["unlisted"].clone();
        let link_alone = json!(["LINKUSDT"]);
        assert_eq!([4, 5, 6].map(unlisted), [json!([]), link_alone, json!([])]);
        assert!(refusals(&w, "LINKUSDT").await <= 4, "once it is disabled it is not asked for");

        // A person insists: it is asked for now and then, and in no window.
        w.job(UNIVERSE_DESK, "universe.enable", link).await.unwrap();
        let before = refusals(&w, "LINKUSDT").await;
        for minute in 123..=183 {
            to(&w, NOW + MINUTE * minute).await;
        }
        let asked = refusals(&w, "LINKUSDT").await - before;
        assert!((5..=7).contains(&asked), "each ten minutes, not {asked} times an hour");
        assert_eq!(w.scope(SAMPLER, NOW + HALF * 5).await, SYMBOLS);
        assert_eq!(w.gaps("hole").await, 1, "one hole that grows");

        // The venue lists it, with a little delay.
        let four = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "LINKUSDT"];
        w.restart_with_venue_of(&config(), &four).await;
        let listed = NOW + MINUTE * 200;
        w.set_faults(&format!("klines:missing:symbol=LINKUSDT,from=0,to={}", listed.0));
        for minute in [201, 202, 203, 250] {
            to(&w, NOW + MINUTE * minute).await;
        }
        assert_eq!(w.sync().await.unwrap().summary["unlisted"], json!({}));
        assert_eq!(w.scope(SAMPLER, NOW + HALF * 7).await, four, "followed from then on");
        let done = w.window(HALF, NOW + HALF * 7).await.unwrap();
        assert_eq!((&done.summary["symbols"], &done.summary["unlisted"]), (&json!(4), &json!([])));
        for start in [NOW + HALF, NOW + HALF * 5, NOW + HALF * 6] {
            assert_eq!(w.scope(SAMPLER, start).await, SYMBOLS, "as it was before the listing");
        }
    }
}

#[tokio::test]
async fn a_symbol_that_the_venue_forgets_is_as_one_that_falls_silent() {
    for engine in engines() {
        let mut w = World::on(engine, &config(), Millis::from_hours(2), "").await;
        to(&w, NOW + MINUTE * 10).await;
        validate(&w).await;
        w.restart_with_venue_of(&config(), &["BTCUSDT", "SOLUSDT"]).await;
        for minute in 11..=32 {
            to(&w, NOW + MINUTE * minute).await;
            w.assert_nothing_skipped().await;
            validate(&w).await;
        }
        assert_eq!(state(&w, "ETHUSDT").await, "disabled by auto: NOT_LISTED");
        for minute in 33..=62 {
            to(&w, NOW + MINUTE * minute).await;
        }
        let given_up = w.window(HALF, NOW).await.unwrap_err().to_string();
        assert_eq!(given_up, "INCOMPLETE: ETHUSDT has 9 of 30 candles");
        assert!(w.seen().covered("ETHUSDT", NOW, NOW + HALF), "so nobody waits for it");
        assert_eq!(w.window(HALF, NOW + HALF).await.unwrap().summary["symbols"], 2);
        assert_eq!(w.window(HALF, NOW - HALF).await.unwrap().summary["symbols"], 3);
    }
}

/// A window that nobody has begun has no row, and is missing all the same.
#[tokio::test]
async fn windows_that_nobody_has_begun_are_listed_and_on_the_screen() {
    for engine in engines() {
        let w = World::on(engine, &config(), Millis::from_hours(3), "").await;
        w.sync().await.unwrap();
        let now = NOW + MINUTE * 4;
        let listed = |incomplete| view::runs(&w.db, &[HALF], (NOW - HALF * 3, now), incomplete, 50);
        let starts: Vec<Time> = listed(true).await.unwrap().iter().map(|r| r.start).collect();
        assert_eq!(starts, [NOW - HALF * 2, NOW - HALF * 3], "the newest is not late yet");
        let line = listed(true).await.unwrap().remove(0);
        assert_eq!((line.label.as_str(), line.state.as_str()), ("30m", "missing"));
        let why = "not begun; why: watchbell explain window-sampler-30m";
        assert_eq!(line.reason.as_deref(), Some(why));
        assert_eq!(listed(false).await.unwrap(), []);
        let missing = view::status(&w.db, &[HALF], now).await.unwrap().missing;
        assert_eq!((missing.len(), missing[0].count), (1, 5));
        assert_eq!(missing[0].oldest, NOW - Millis::from_hours(3));

        for (n, state) in [(2, "complete"), (3, "open"), (4, "abandoned")] {
            let sql = "insert into ops.windows (series, start_at, version, end_at, state, attempts,
                  scope, inputs_hash, result_hash, source, finished_at)
                values ('window-sampler-30m', $1, 1, $2, $3, 0, '[]', 'in', 'out', 'klines', $2)";
            let start = NOW - HALF * n;
            w.apply(sql, values![start, start + HALF, state]).await;
        }
        let left = listed(true).await.unwrap();
        assert_eq!(left.len(), 1, "the row, and no second line: {left:?}");
        assert_eq!((left[0].start, left[0].state.as_str()), (NOW - HALF * 3, "pending"));
        let missing = view::status(&w.db, &[HALF], now).await.unwrap().missing;
        assert_eq!(missing[0].count, 3, "neither complete nor given up");
    }
}

/// A refusal alone, or while the venue is not well, says nothing about a symbol.
#[tokio::test]
async fn a_refusal_counts_only_if_the_venues_list_bears_it_out() {
    let mut w = World::with(&config(), Millis::from_hours(2), "").await;
    w.sync().await.unwrap();
    w.restart_with_venue_of(&config(), &["BTCUSDT", "SOLUSDT"]).await;
    w.set_faults("klines:503");
    w.pass(MINUTE);
    w.sync().await.unwrap_err();
    w.set_faults("exchangeInfo:503");
    for _ in 0..5 {
        w.pass(MINUTE);
        let summary = w.sync().await.unwrap().summary;
        assert_eq!(summary["unlisted"], json!({}));
        assert!(summary["problems"].to_string().contains("Invalid symbol"), "{summary}");
    }
    assert_eq!(refusals(&w, "ETHUSDT").await, 5);
    assert_eq!((w.gaps("pending").await, w.gaps("hole").await), (0, 0));
    let until = NOW + MINUTE * 6;
    assert!(w.seen().covered("SOLUSDT", NOW, until), "the others are synchronised all the same");
    for faults in ["*:down", "*:429:n=1,retry=5", "klines:ban:secs=120,n=1"] {
        w.set_faults(faults);
        w.pass(MINUTE);
        w.sync().await.unwrap_err();
        assert_eq!((w.gaps("pending").await, w.gaps("hole").await), (0, 0), "{faults}");
        w.set_faults("");
        w.pass(MINUTE * 3);
    }
}

#[tokio::test]
async fn what_a_person_disabled_stays_disabled() {
    let w = World::with(&config(), Millis::from_hours(1), "").await;
    w.sync().await.unwrap();
    let sol = json!({"symbols": ["SOLUSDT"]});
    w.job(UNIVERSE_DESK, "universe.disable", sol).await.unwrap();
    for minute in 1..=6 {
        to(&w, NOW + MINUTE * minute).await;
        assert_eq!(validate(&w).await["enabled"], 2);
    }
    // Nor does a start with a configuration that lists it.
    let all = SYMBOLS.map(str::to_owned);
    watchbell_market::seed(&w.db, &all, &[HALF], NOW, w.clock.now()).await.unwrap();
    assert_eq!(state(&w, "SOLUSDT").await, "disabled by user");
}

#[tokio::test]
async fn an_outage_changes_nothing() {
    let w = World::with(&config(), Millis::from_hours(1), "").await;
    w.sync().await.unwrap();
    validate(&w).await;
    w.set_faults("*:503");
    for _ in 0..30 {
        w.pass(MINUTE);
        w.sync().await.unwrap_err();
        validate(&w).await;
    }
    let summary = validate(&w).await;
    assert!(summary["outage"].as_str().unwrap().starts_with("no enabled symbol has fresh data"));
    assert_eq!((&summary["enabled"], &summary["capable"]), (&json!(3), &json!(0)));
    let off = "select count(*) from settings.coin_universe where enabled = 0";
    assert_eq!(w.count(off).await, 0);
    let stepped = "select count(*) from settings.universe_validation where bad_streak > 0";
    assert_eq!(w.count(stepped).await, 0);
    w.set_faults("");
    w.pass(Millis::from_mins(3));
    w.settle().await;
    assert!(validate(&w).await["outage"].is_null());
}

#[tokio::test]
async fn a_late_synchronisation_is_not_the_symbols_fault() {
    let w = World::with(&config(), Millis::from_hours(1), "").await;
    w.sync().await.unwrap();
    validate(&w).await;
    // One symbol's cursor is far behind; the venue has all of it.
    let behind = "update ingest.klines_cursor set last_open_time = $1 where symbol = 'BTCUSDT'";
    for minute in 1..=9 {
        to(&w, NOW + MINUTE * minute).await;
        let old = Statement::new(behind, values![NOW - Millis::from_mins(20)]);
        w.db.apply(vec![old]).await.unwrap();
        let summary = validate(&w).await;
        assert_eq!((&summary["capable"], &summary["probes"]), (&json!(3), &json!(1)));
        assert_eq!(summary["drift"]["BTCUSDT"], json!(["STALE_KLINES"]));
    }
    assert_eq!(state(&w, "BTCUSDT").await, "enabled");
}

#[tokio::test]
async fn drift_between_tables_is_mended() {
    for engine in engines() {
        let w = World::on(engine, &config(), Millis::from_hours(1), "").await;
        w.sync().await.unwrap();
        w.db.apply(vec![
            Statement::new(
                "update market.symbols set status = 'OFF' where symbol = 'BTCUSDT'",
                vec![],
            ),
            Statement::new("delete from ingest.klines_cursor where symbol = 'ETHUSDT'", vec![]),
            Statement::new(
                "insert into market.symbols (symbol, base_asset, quote_asset, status, updated_at)
                 values ('LTCUSDT', 'LTC', 'USDT', 'TRADING', 0)",
                vec![],
            ),
        ])
        .await
        .unwrap();
        let summary = validate(&w).await;
        assert_eq!(summary["drift"]["BTCUSDT"], json!(["MARKET_MIRROR_MISMATCH"]));
        let eth = summary["drift"]["ETHUSDT"].to_string();
        assert!(eth.contains("CURSOR_MISSING"), "{eth}");
        w.sync().await.unwrap();
        assert_eq!(validate(&w).await["drift"], json!({}));
        let trading = "select count(*) from market.symbols where status = 'TRADING'";
        assert_eq!(w.count(trading).await, 3);
    }
}

#[tokio::test]
async fn clients_may_ask_for_less_and_not_for_more() {
    let w = World::with(&config(), Millis::from_hours(1), "").await;
    w.sync().await.unwrap();
    let asked = json!({"symbols": ["BTCUSDT", "ETHUSDT", "LTCUSDT"]});
    let done = w.job(UNIVERSE_DESK, "universe.request", asked).await.unwrap();
    assert_eq!(done.summary["effective"], json!(["BTCUSDT", "ETHUSDT"]));
    assert_eq!(done.summary["mismatched"], json!(["LTCUSDT"]));
    let event = w.seen().events.pop().unwrap();
    assert_eq!(event.payload["unrequested"], json!(["SOLUSDT"]));
    assert_eq!(validate(&w).await["drift"]["LTCUSDT"], json!(["CSR_SSR_MISMATCH"]));
    let rows = universe(&w.db, w.clock.now()).await.unwrap();
    let effective = |s: &str| rows.iter().any(|r| &*r.symbol == s && r.effective);
    assert!(effective("BTCUSDT") && !effective("SOLUSDT") && !effective("LTCUSDT"));
    // It narrows what is shown and the mood, not what is kept of the market.
    assert_eq!(w.scope(SAMPLER, NOW).await, SYMBOLS);
    let done = w.job(UNIVERSE_DESK, "universe.request", json!({"symbols": null})).await.unwrap();
    assert_eq!(done.summary["effective"], json!(SYMBOLS));
    assert_eq!(validate(&w).await["drift"], json!({}));
}

#[tokio::test]
async fn a_synchronisation_with_the_venue_takes_its_pairs() {
    for engine in engines() {
        let w = World::on(engine, &config(), Millis::from_hours(1), "").await;
        w.sync().await.unwrap();
        let asked = json!({"coins": ["SOL", "BTC", "BTCUP"]});
        let preview = w.job(UNIVERSE_DESK, "universe.preview", asked.clone()).await.unwrap();
        assert_eq!(preview.summary["preview"], true);
        assert_eq!(preview.summary["disabled"], json!(["ETHUSDT"]));
        assert_eq!(w.count("select count(*) from ext.binance_symbols_preview").await, 2);
        assert_eq!(state(&w, "ETHUSDT").await, "enabled", "a preview changes nothing");
        assert_eq!(w.seen().count(UNIVERSE_CHANGED, "universe"), 0);

        let done = w.job(UNIVERSE_DESK, "universe.sync", asked).await.unwrap();
        for what in ["disabled", "updated", "inserted", "pairs", "leveraged"] {
            assert_eq!(done.summary[what], preview.summary[what], "{what}");
        }
        let symbols: Vec<_> =
            done.summary["pairs"].as_array().unwrap().iter().map(|p| &p["symbol"]).collect();
        assert_eq!(symbols, ["SOLUSDT", "BTCUSDT"]);
        let ousted = "disabled by user: not among the synchronised pairs";
        assert_eq!(state(&w, "ETHUSDT").await, ousted);
        let noted = "select count(*) from settings.universe_batch_ops where state = 'done'";
        assert_eq!(w.count(noted).await, 1);

        for (kind, payload, says) in [
            ("universe.sync", json!({"coins": ["btc"]}), "`btc` is not a coin"),
            ("universe.sync", json!({"coins": ["DOGE"]}), "the venue lists no pair"),
            ("universe.enable", json!({"symbols": ["ABCXYZ"]}), "cannot split the symbol"),
            ("universe.disable", json!({"symbols": ["LTCUSDT"]}), "the universe has no symbol"),
            ("universe.disable", json!({"symbol": "X"}), "the job's payload does not fit"),
            ("universe.burn", json!({}), "the universe's desk knows no job"),
        ] {
            let refused = w.job(UNIVERSE_DESK, kind, payload).await.unwrap_err();
            assert!(matches!(refused, watchbell_core::Fault::Permanent(_)));
            assert!(refused.to_string().starts_with(says), "{refused}");
        }
    }
}

#[tokio::test]
async fn the_inbox_is_carried_out_and_refuses_what_it_cannot() {
    for engine in engines() {
        let w = World::on(engine, &config(), Millis::from_hours(1), "").await;
        w.sync().await.unwrap();
        for symbols in [r#"["NONSENSE"]"#, r#"["BTCUSDT","ADAUSDT"]"#] {
            let sql = "insert into settings.universe_batch_ops (at, symbols) values ($1, $2)";
            w.db.apply(vec![Statement::new(sql, values![NOW, symbols])]).await.unwrap();
        }
        assert_eq!(validate(&w).await["batches"], 2);
        let rows = w
            .db
            .query("select state, enabled, disabled, error from settings.universe_batch_ops order by id", vec![])
            .await
            .unwrap();
        assert_eq!(rows[0].text(0).unwrap(), "refused");
        assert!(rows[0].text(3).unwrap().starts_with("cannot split the symbol `NONSENSE`"));
        assert_eq!(rows[1].text(0).unwrap(), "done");
        assert_eq!((rows[1].i64(1).unwrap(), rows[1].i64(2).unwrap()), (1, 2));
        assert_eq!(validate(&w).await["batches"], 0);
        let enabled = "select count(*) from settings.coin_universe where enabled = 1";
        assert_eq!(w.count(enabled).await, 2);
    }
}

#[tokio::test]
async fn a_start_with_another_configuration_moves_the_universe_from_then_on() {
    for engine in engines() {
        let w = World::on(engine, &config(), Millis::from_hours(1), "").await;
        let at = NOW + MINUTE * 5;
        let list = ["SOLUSDT", "BTCUSDT", "ADAUSDT"].map(str::to_owned);
        for _ in 0..2 {
            watchbell_market::seed(&w.db, &list, &[HALF], NOW, at).await.unwrap();
        }
        w.sync().await.unwrap();
        assert_eq!(w.scope(SAMPLER, NOW).await, SYMBOLS);
        assert_eq!(w.scope(SAMPLER, NOW + HALF).await, list);
        assert_eq!(state(&w, "ETHUSDT").await, "disabled");
        // The second start found nothing to do.
        assert_eq!(w.count("select count(*) from settings.universe_changes").await, 3 + 4);
        let mirrored = "select count(*) from market.symbols where status = 'OFF'";
        assert_eq!(w.count(mirrored).await, 1);
    }
}

#[tokio::test]
async fn settings_are_changed_by_a_job() {
    for engine in engines() {
        let w = World::on(engine, &config(), Millis::from_hours(1), "").await;
        let patch = json!({"stats": {"bm_decimals": 2}, "poll": {"long_ms": 1}});
        let done = w.job(UNIVERSE_DESK, "settings.update", patch).await.unwrap();
        let s = watchbell_market::settings(&w.db).await.unwrap();
        assert_eq!((s.stats.bm_decimals, s.poll.long_ms), (2, Millis::from_secs(5)));
        assert_eq!(done.summary, serde_json::to_value(s).unwrap());
        let wrong = w.job(UNIVERSE_DESK, "settings.update", json!({"stat": 1})).await;
        assert!(
            wrong.unwrap_err().to_string().starts_with("no such setting: unknown field `stat`")
        );
    }
}

/// Section 1.3: a symbol leaves the sampling at the end of a cycle.
#[tokio::test]
async fn a_symbol_that_leaves_is_sampled_until_its_cycle_is_over() {
    let config = Config { sampling: true, ..config() };
    let w = World::with(&config, Millis::from_hours(1), "").await;
    w.sync().await.unwrap();
    w.sample_for(MINUTE * 2).await;
    w.job(UNIVERSE_DESK, "universe.disable", json!({"symbols": ["ETHUSDT"]})).await.unwrap();
    w.sample_for(MINUTE * 4).await;
    let newest = |symbol: &str| {
        let sql = format!("select max(ts) from str_aux.samples_5s where symbol = '{symbol}'");
        let db = &w.db;
        async move { db.query_one(sql, vec![]).await.unwrap().time(0).unwrap() }
    };
    let last = newest("ETHUSDT").await;
    assert_eq!(last, last.floor(Millis::from_secs(40)), "at the end of a cycle");
    assert!(newest("BTCUSDT").await - last > MINUTE);
    let whole = "select count(*) from str_aux.cycles_40s
        where symbol = 'ETHUSDT' and points < 8 and cycle_start > (
          select min(cycle_start) from str_aux.cycles_40s)";
    assert_eq!(w.count(whole).await, 0, "no cycle of it is cut");
    let closed =
        w.db.query_one(
            "select max(cycle_start) from str_aux.cycles_40s where symbol = 'ETHUSDT'",
            vec![],
        )
        .await
        .unwrap();
    assert_eq!(closed.time(0).unwrap() + Millis::from_secs(40), last);
}
