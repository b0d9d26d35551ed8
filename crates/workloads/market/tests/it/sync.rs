//! `market-sync`: whatever the venue does, what is stored is what the venue has, nothing is passed
//! over in silence, and windows come out the same.

use watchbell_core::{Fault, Millis, Time};
use watchbell_market::{Config, holes, want_history};
use watchbell_testkit::NOW;

use crate::world::{MINUTE, SYMBOLS, World, engines};

const HOUR: Millis = Millis::from_hours(1);
const DAY: Millis = Millis::from_days(1);

/// A fault rule over the candles of `[from, to)`.
fn missing(symbol: &str, from: Time, to: Time, more: &str) -> String {
    format!("klines:missing:symbol={symbol},from={from},to={to}{more}")
}

#[tokio::test]
async fn a_backfill_is_what_the_venue_has_row_for_row() {
    let w = World::new(DAY * 2, "").await;
    let done = w.sync().await.unwrap();
    assert_eq!(done.summary["rows"], 3 * 2 * 1440);
    assert_eq!(done.summary["behind_ms"], 0);
    assert_eq!(done.summary["problems"], serde_json::json!([]));
    w.assert_whole(NOW - DAY * 2, NOW).await;
    w.assert_nothing_skipped().await;
    for c in watchbell_market::coverage(&w.db).await.unwrap() {
        assert_eq!((c.from, c.until), (Some(NOW - DAY * 2), Some(NOW)), "{}", c.symbol);
        assert_eq!(c.last_open, Some(NOW - MINUTE));
    }
    assert!(w.venue().met);
    assert_eq!(w.count("select count(*) from market.symbols where status = 'TRADING'").await, 3);
}

#[tokio::test]
async fn a_second_run_at_the_same_instant_adds_nothing() {
    let w = World::new(HOUR * 6, "").await;
    w.sync().await.unwrap();
    let before = w.seen();
    let done = w.sync().await.unwrap();
    assert_eq!((&done.summary["rows"], &done.summary["pages"]), (&0.into(), &0.into()));
    assert_eq!(w.seen().covers, before.covers);
    w.assert_whole(NOW - HOUR * 6, NOW).await;
}

#[tokio::test]
async fn a_candle_is_stored_two_seconds_after_its_close_and_not_before() {
    let w = World::new(HOUR, "").await;
    w.sync().await.unwrap();
    // The clock stands two seconds after a full minute.
    for (pass, closed) in [(30_000, 0), (29_999, 0), (1, 1), (60_000, 2), (180_000, 5)] {
        w.pass(Millis(pass));
        w.sync().await.unwrap();
        w.assert_whole(NOW - HOUR, NOW + MINUTE * closed).await;
    }
}

#[tokio::test]
async fn what_the_venue_never_has_is_pending_and_then_a_hole() {
    for engine in engines() {
        let (from, to) = (NOW - HOUR * 2, NOW - HOUR * 2 + MINUTE * 7);
        let w = World::on(engine, &Config::default(), HOUR * 6, &missing("ETHUSDT", from, to, ""))
            .await;
        w.sync().await.unwrap();
        w.assert_nothing_skipped().await;
        let found = holes(&w.db).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].from, found[0].to, found[0].state.as_str()), (from, to, "pending"));
        assert!(!w.seen().covered("ETHUSDT", NOW - HOUR * 6, NOW), "a gap is not covered");
        assert_eq!(w.seen().count("klines.gap", "ETHUSDT"), 1);

        w.pass(Millis::from_secs(30));
        assert_eq!(w.sync().await.unwrap().summary["holes"], 1);
        w.assert_nothing_skipped().await;
        let found = holes(&w.db).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].symbol.as_str(), found[0].state.as_str()), ("ETHUSDT", "hole"));
        assert!(w.seen().covered("ETHUSDT", NOW - HOUR * 6, NOW), "the cover passes over a hole");
        assert_eq!(w.seen().count("klines.hole", "ETHUSDT"), 1);
        assert_eq!(w.stored("ETHUSDT").await.len(), 360 - 7);
        assert_eq!(w.stored("BTCUSDT").await.len(), 360);

        // It is not asked for again and again.
        w.pass(Millis::from_secs(10));
        assert_eq!(w.sync().await.unwrap().summary["pages"], 0);
        // A window over it will never be complete, and says which candles are lacking.
        let fault = w.window(Millis::from_mins(30), from).await.unwrap_err();
        assert!(matches!(fault, Fault::Permanent(_)));
        assert_eq!(fault.to_string(), "INCOMPLETE: ETHUSDT has 23 of 30 candles");
    }
}

#[tokio::test]
async fn the_configuration_says_after_how_many_answers_a_gap_is_a_hole() {
    let faults = missing("SOLUSDT", NOW - HOUR, NOW - HOUR + MINUTE, "");
    for hole_after in 1..=4 {
        let config = Config { hole_after, ..Config::default() };
        let w = World::with(&config, HOUR * 2, &faults).await;
        for answer in 1..=4 {
            w.sync().await.unwrap();
            w.assert_nothing_skipped().await;
            let holes = usize::from(answer >= hole_after);
            assert_eq!(w.gaps("hole").await, holes, "{answer} of {hole_after}");
            assert_eq!(w.gaps("pending").await, 1 - holes, "{answer} of {hole_after}");
        }
        assert_eq!(w.seen().count("klines.hole", "SOLUSDT"), 1);
    }
}

#[tokio::test]
async fn a_gap_that_heals_is_repaired() {
    for engine in engines() {
        let (from, to) = (NOW - HOUR * 5, NOW - HOUR * 5 + MINUTE * 3);
        let w = World::on(
            engine,
            &Config::default(),
            HOUR * 6,
            &missing("BTCUSDT", from, to, ",heal=1"),
        )
        .await;
        w.sync().await.unwrap();
        assert_eq!(w.gaps("pending").await, 1);
        w.assert_nothing_skipped().await;
        let done = w.sync().await.unwrap();
        assert_eq!((&done.summary["repaired"], &done.summary["rows"]), (&1.into(), &3.into()));
        assert_eq!(w.seen().count("klines.repaired", "BTCUSDT"), 1);
        assert_eq!(holes(&w.db).await.unwrap(), []);
        w.assert_nothing_skipped().await;
        w.assert_whole(NOW - HOUR * 6, NOW).await;
    }
}

#[tokio::test]
async fn a_hole_that_the_venue_fills_late_is_asked_for_once_a_day() {
    let (from, to) = (NOW - HOUR, NOW - HOUR + MINUTE * 2);
    let w = World::new(HOUR * 2, &missing("BTCUSDT", from, to, ",heal=2")).await;
    w.sync().await.unwrap();
    w.sync().await.unwrap();
    assert_eq!(w.gaps("hole").await, 1);
    w.pass(DAY + MINUTE);
    w.sync().await.unwrap();
    assert_eq!(holes(&w.db).await.unwrap(), []);
    assert_eq!(w.seen().count("klines.late", "BTCUSDT"), 1);
    w.assert_whole(NOW - HOUR * 2, NOW + DAY + MINUTE).await;
}

#[tokio::test]
async fn a_run_repairs_so_many_gaps_and_the_next_goes_on() {
    let gap = |n: i64| missing("BTCUSDT", NOW - MINUTE * n, NOW - MINUTE * (n - 1), ",heal=1");
    let faults = [50, 40, 30].map(gap).join(";");
    let config = Config { max_gaps_per_run: 2, ..Config::default() };
    let w = World::with(&config, HOUR, &faults).await;
    for (repaired, left) in [(0, 3), (2, 1), (1, 0), (0, 0)] {
        let done = w.sync().await.unwrap();
        assert_eq!(done.summary["repaired"], repaired);
        assert_eq!(w.gaps("pending").await, left);
    }
    w.assert_whole(NOW - HOUR, NOW).await;
}

#[tokio::test]
async fn no_fault_makes_the_cursor_pass_an_unfetched_candle() {
    for faults in [
        "klines:429:n=2,retry=5",
        "klines:418:n=1,retry=60",
        "klines:ban:n=1,secs=90",
        "klines:503:p=0.6,n=12,seed=3",
        "klines:500:n=4 ; time:502:n=1",
        "klines:reset:p=0.5,n=9,seed=1",
        "klines:reset-body:p=0.5,n=9,seed=2",
        "klines:truncated:n=4",
        "klines:malformed:p=0.7,n=9",
        "klines:html:n=4,status=200",
        "klines:empty:n=4 ; klines:null:n=2",
        "klines:error-object:n=4",
        "klines:duplicate:n=4 ; klines:unordered:n=2",
        "klines:wrong-width:n=4 ; klines:outside:n=4",
        "exchangeInfo:503:n=4",
        "klines:missing:p=0.02,heal=1,seed=5 ; klines:503:p=0.5,n=5,seed=6",
    ] {
        let w = World::new(HOUR * 30, faults).await;
        w.settle().await;
        w.set_faults("");
        w.settle().await;
        let minutes = (w.clock.now() - Millis::from_secs(2)).floor(MINUTE);
        let last = watchbell_market::coverage(&w.db).await.unwrap();
        assert!(last.iter().all(|c| c.until == Some(minutes)), "{faults}: {last:?}");
        w.assert_whole(NOW - HOUR * 30, minutes).await;
    }
}

#[tokio::test]
async fn a_ban_is_a_condition_with_its_end() {
    let w = World::new(HOUR, "klines:ban:secs=120,n=1").await;
    let fault = w.sync().await.unwrap_err();
    assert!(matches!(fault, Fault::Transient(_)), "{fault}");
    let venue = w.venue();
    assert!(!venue.met && venue.detail.starts_with("banned since"), "{}", venue.detail);
    let until = venue.until.expect("the end of the ban");
    assert!(until >= NOW + Millis::from_secs(120), "{until}");
    // During the ban nothing is sent.
    let sent = w.sim.journal().last();
    w.sync().await.unwrap_err();
    assert_eq!(w.sim.journal().last(), sent);
    assert!(!w.venue().met);
    w.clock.advance(until + Millis::from_secs(1));
    w.sync().await.unwrap();
    assert!(w.venue().met && w.venue().until.is_none(), "{:?}", w.venue());
}

#[tokio::test]
async fn a_venue_that_fails_for_a_minute_is_down_until_it_answers() {
    let w = World::new(HOUR, "*:down").await;
    w.sync().await.unwrap_err();
    assert!(w.venue().met, "three failures are no outage: {}", w.venue().detail);
    w.pass(Millis::from_secs(30));
    w.sync().await.unwrap_err();
    assert!(w.venue().met, "{}", w.venue().detail);
    w.pass(Millis::from_secs(31));
    w.sync().await.unwrap_err();
    assert!(!w.venue().met);
    assert!(w.venue().detail.contains("no success since"), "{}", w.venue().detail);
    assert_eq!(w.count("select count(*) from ingest.kline_raw").await, 0);
    let failed = "select count(*) from ops.market_sync_log where status = 'retry'";
    assert_eq!(w.count(failed).await, 3 * 3, "three tries in each of three runs are on record");
    w.set_faults("");
    w.sync().await.unwrap();
    assert!(w.venue().met, "{}", w.venue().detail);
}

#[tokio::test]
async fn a_candle_that_the_venue_revises_is_replaced_and_the_old_one_kept() {
    for engine in engines() {
        // Another close is served until five seconds after the end: after we have fetched it.
        let minute = NOW - MINUTE;
        let w = World::on(
            engine,
            &Config::default(),
            HOUR,
            &format!("klines:revised:symbol=BTCUSDT,from={minute},to={NOW},ms=5000"),
        )
        .await;
        w.sync().await.unwrap();
        let first = w.stored("BTCUSDT").await;
        assert_ne!(first, w.truth("BTCUSDT", NOW - HOUR, NOW).await, "not final yet");
        w.pass(MINUTE);
        assert_eq!(w.sync().await.unwrap().summary["revised"], 1);
        w.assert_whole(NOW - HOUR, NOW + MINUTE).await;
        assert_eq!(w.seen().count("klines.revised", "BTCUSDT"), 1);
        let kept = w
            .db
            .query_one("select symbol, open_time, close from ingest.kline_revisions", Vec::new())
            .await
            .unwrap();
        assert_eq!((kept.text(0).unwrap(), kept.i64(1).unwrap()), ("BTCUSDT", minute.0));
        assert_eq!(&kept.values()[2], &first.last().unwrap()[5]);
        // Once is enough.
        w.pass(MINUTE);
        assert_eq!(w.sync().await.unwrap().summary["revised"], 0);
    }
}

#[tokio::test]
async fn an_earlier_wish_is_fetched_backwards() {
    for engine in engines() {
        let w = World::on(engine, &Config::default(), HOUR * 6, "").await;
        w.sync().await.unwrap();
        want_history(&w.db, NOW - DAY * 2, NOW).await.unwrap();
        // The first attempt breaks off on the way; the second begins again.
        w.set_faults("klines:503:n=3");
        w.sync().await.unwrap_err();
        w.assert_nothing_skipped().await;
        let done = w.sync().await.unwrap();
        assert_eq!(done.summary["problems"], serde_json::json!([]));
        w.assert_whole(NOW - DAY * 2, NOW).await;
        w.assert_nothing_skipped().await;
        for c in watchbell_market::coverage(&w.db).await.unwrap() {
            assert_eq!((c.from, c.until), (Some(NOW - DAY * 2), Some(NOW)), "{}", c.symbol);
        }
        for symbol in SYMBOLS {
            assert!(w.seen().covered(symbol, NOW - DAY * 2, NOW));
        }
    }
}

#[tokio::test]
async fn windows_after_faults_and_repairs_are_those_of_a_clean_run() {
    let clean = World::new(HOUR * 12, "").await;
    assert_eq!(clean.settle().await, 1);
    let (from, to) = (NOW - HOUR * 7, NOW - HOUR * 7 + MINUTE * 45);
    let faults = [
        missing("ETHUSDT", from, to, ",heal=1"),
        missing("SOLUSDT", from - HOUR, to - HOUR, ",p=0.4,heal=1"),
        "klines:503:p=0.4,n=5,seed=3".to_owned(),
        "klines:reset:p=0.3,n=4,seed=4".to_owned(),
        "klines:malformed:p=0.3,n=4,seed=5".to_owned(),
        "klines:429:n=1,retry=3".to_owned(),
    ];
    let faulty = World::new(HOUR * 12, &faults.join(";")).await;
    assert!(faulty.settle().await > 1);
    let (want, have) = (clean.windows(NOW).await, faulty.windows(NOW).await);
    // 24 half hours, 12 hours, 4 times three hours.
    assert_eq!(want.len(), 24 + 12 + 4);
    for ((want, done), (have, again)) in want.iter().zip(&have) {
        assert_eq!(want, have);
        assert_eq!(want.2.source, "klines");
        assert_eq!(done.commit, again.commit, "{} at {}", want.0, want.1);
    }
    assert_eq!(have.len(), want.len());
}
