//! The acceptance scenarios of section 11.5 that have no other home, on virtual time and on both
//! engines, and the queries that the founding documents give to operators.
//!
//! (c) is `outage.rs`; (d) is in `universe.rs`, (e) in `mood.rs`, (h) in `cin.rs`. (f) and (g) need
//! nodes: they are with the binary.

use std::collections::BTreeMap;

use watchbell_core::{Millis, Time, Value, values};
use watchbell_market::{Config, DEFAULT_SYMBOLS, MARKET_SYNC, series_name};
use watchbell_testkit::NOW;

use crate::mortal::Dice;
use crate::world::{MINUTE, SYMBOLS, World, engines};

const HOUR: Millis = Millis::from_hours(1);
const HALF: Millis = Millis::from_mins(30);

/// What came out of each window of each series.
type Hashes = BTreeMap<(String, Time), (String, String)>;

async fn replay(w: &World) -> Hashes {
    let all = w.chain(NOW).await.into_iter();
    all.map(|((series, start, h), _)| ((series, start), (h.inputs, h.result))).collect()
}

/// (a) Six hours, three times: at once on a good day; once more; and with a venue that fails, answers
/// twice, out of order and too little.
#[tokio::test]
async fn six_hours_replayed_have_the_same_hashes() {
    let bad_day = "klines:503:p=0.3,seed=5;klines:reset-body:p=0.2,seed=6;klines:duplicate:p=0.3;\
                   klines:unordered:p=0.3;klines:missing:p=0.05,heal=1,seed=9";
    let mut first: Option<Hashes> = None;
    for engine in engines() {
        for faults in ["", "", bad_day] {
            let w = World::on(engine, &Config::default(), HOUR * 6, faults).await;
            w.settle().await;
            let hashes = replay(&w).await;
            // Twelve half hours, six hours, two of three, and what follows from each.
            assert_eq!(hashes.len(), (12 + 6 + 2) * 4, "{:?}", hashes.keys());
            match &first {
                None => first = Some(hashes),
                Some(first) => assert_eq!(&hashes, first, "{engine:?}, {faults}"),
            }
        }
    }
    // Hashes that do not depend on the market would be the same as well.
    let first = first.unwrap();
    let other = World::new(HOUR * 7, "").await;
    other.settle().await;
    let other = replay(&other).await;
    let results: std::collections::BTreeSet<_> = first.values().map(|(_, r)| r).collect();
    assert!(results.len() > first.len() * 9 / 10, "windows differ from each other");
    for (window, hash) in first.iter().filter(|((s, _), _)| s.starts_with("window-sampler-")) {
        assert_eq!(other[window], *hash, "a longer history changes no window");
    }
}

/// How many rows of one window are stored: of windows, statistics and vectors.
async fn rows_of(w: &World, label: &str, start: Time) -> [i64; 3] {
    let mut counts = [0; 3];
    for (count, table) in counts.iter_mut().zip(["windows", "window_stats", "window_vectors"]) {
        let sql = format!(
            "select count(*) from str_aux.{table} where window_label = $1 and window_start = $2"
        );
        *count = w.db.query_one(sql, values![label, start]).await.unwrap().i64(0).unwrap();
    }
    counts
}

/// (b) The process is killed at any instant, again and again: no candle is lost, no window is there in
/// part, and in the end everything is as if nothing had happened.
#[tokio::test]
async fn kills_at_any_instant_leave_nothing_half_done() {
    let config = Config { windows: vec![HALF, HOUR], ..Config::default() };
    let calm = World::with(&config, HOUR * 4, "").await;
    calm.settle().await;
    let want: BTreeMap<_, _> =
        calm.windows(NOW).await.into_iter().map(|((s, at, h), _)| ((s, at), h.result)).collect();
    for (engine, mut dice) in engines().zip([Dice(3), Dice(88)]) {
        let mut w = World::on(engine, &config, HOUR * 4, "klines:503:p=0.2,seed=2").await;
        let (mut killed, mut ended) = (0, 0);
        let mut killed_there = [0; 2];
        // Until nothing is left to do, and every one that is not done is killed some time.
        let mut rounds = 0;
        loop {
            rounds += 1;
            assert!(rounds < 400, "it never ends");
            w.pass(Millis::from_secs(30));
            // The first ones come so early that no machine is through by then.
            let within = if rounds <= 6 { 12 } else { 60 };
            let done = w.tick_until_killed(MARKET_SYNC, dice.below(within)).await;
            killed_there[0] += u32::from(!done);
            w.restart(&config);
            w.assert_nothing_skipped().await;
            let mut missing = 0;
            for length in [HALF, HOUR] {
                let (series, label) = (series_name(length), length.exact());
                for n in 0..(HOUR * 4) / length {
                    let start = NOW - HOUR * 4 + length * n;
                    let rows = rows_of(&w, &label, start).await;
                    let (none, all) = ([0; 3], [SYMBOLS.len() as i64; 3]);
                    assert!(rows == none || rows == all, "{series} {start}: {rows:?}");
                    if rows == all {
                        continue;
                    }
                    missing += 1;
                    let seen = w.seen();
                    if !SYMBOLS.iter().all(|s| seen.covered(s, start, start + length)) {
                        continue;
                    }
                    match w.window_until_killed(&series, start, dice.below(12)).await {
                        true => ended += 1,
                        false => killed += 1,
                    }
                    w.restart(&config);
                }
            }
            killed_there[1] = killed;
            if missing == 0 && done {
                break;
            }
        }
        assert!(
            killed_there.iter().all(|n| *n >= 3),
            "{engine:?}: {killed_there:?}, {ended} ended"
        );
        w.settle().await;
        // A candle is final two seconds after its end.
        let until = (w.clock.now() - Millis::from_secs(2)).floor(MINUTE);
        w.assert_whole(NOW - HOUR * 4, until).await;
        // The rows are those of the calm day, to the hash.
        w.forget_windows().await;
        for ((series, start, hashes), _) in w.windows(NOW).await {
            assert_eq!(
                hashes.result,
                want[&(series.clone(), start)],
                "{engine:?}: {series} {start}"
            );
        }
    }
}

/// A window that nobody saw, and of which the venue has nothing later either, says so; one that has a
/// hole although somebody was there says only that.
#[tokio::test]
async fn a_window_that_was_missed_says_for_how_long() {
    let hole =
        format!("klines:missing:symbol=ETHUSDT,from={},to={}", NOW - HOUR, NOW - MINUTE * 50);
    for engine in engines() {
        let w = World::on(engine, &Config::default(), HOUR * 2, &hole).await;
        w.settle().await;
        let why = async || w.window(HALF, NOW - HOUR).await.unwrap_err().to_string();
        assert_eq!(why().await, "INCOMPLETE: ETHUSDT has 20 of 30 candles");
        // The ledger of due instants: nothing ran for twelve minutes, ten of them within the window.
        let missed = "insert into ops.occurrences
            (worker, due, through, count, fate, recorded_at) values ($1, $2, $3, 25, 'merged', $4)";
        let (from, to) = (NOW - MINUTE * 62, NOW - MINUTE * 50);
        w.apply(missed, values![MARKET_SYNC, from, to, NOW]).await;
        assert_eq!(
            why().await,
            "MISSED_WHILE_DOWN: nothing ran here for 10m of it, and later the venue did not have what \
             was missed; INCOMPLETE: ETHUSDT has 20 of 30 candles"
        );
        // What was skipped to spare a slow store was not missed by a process that was away.
        w.apply("update ops.occurrences set fate = 'skipped', reason = 'throttled'", vec![]).await;
        assert_eq!(why().await, "INCOMPLETE: ETHUSDT has 20 of 30 candles");
    }
}

/// What the documents tell an operator to ask, in their words.
#[tokio::test]
async fn the_queries_of_the_founding_documents_answer() {
    for engine in engines() {
        let w = World::on(engine, &Config::default(), HOUR * 4, "").await;
        w.settle().await;
        w.sample_for(Millis::from_secs(90)).await;
        w.chain(NOW).await;
        let recency = w.rows("select symbol, max(ts) from str_aux.sampling group by symbol").await;
        assert_eq!(recency.len(), SYMBOLS.len());
        let vectors =
            "select symbol, max(window_start) from str_aux.window_vectors group by symbol";
        assert_eq!(w.rows(vectors).await.len(), SYMBOLS.len());
        for sql in [
            "select kind, count(*) from ingest.jobs group by kind",
            "select kind, status, count(*) from ingest.jobs group by kind, status",
            "select * from ingest.jobs where status = 'failed' order by finished_at desc limit 20",
            "select session_id, status from cin_aux.rt_session where status = 'OPEN'",
            "select * from ops.session_log order by opened_at desc",
            "select f.schema_name, f.is_open, l.app_version from ops.session_flags f
                left join ops.session_log l on l.session_id = f.opened_by",
            "select * from ops.market_sync_log order by ts desc limit 20",
            "select job_name, status, started_at, error_message from ops.job_run",
            "select * from str_aux.window_runs where state <> 'complete'",
            "select * from ops.v_smoke_packs",
            "select * from ops.v_risk_flags",
            "select * from vitals.status_snapshot",
            "select * from matrices.latest",
            "select * from matrices.v_latest",
            "select * from mea_dynamics.v_latest_moods",
            "select * from settings.coin_universe where enabled = 1",
        ] {
            w.rows(sql).await;
        }
        let log = w.rows("select endpoint, status, http_code, rows from ops.market_sync_log").await;
        assert!(log.iter().any(|r| r[0] == Value::from("klines") && r[1] == Value::from("ok")));
        assert!(SYMBOLS.iter().all(|s| DEFAULT_SYMBOLS.contains(s)));
    }
}
