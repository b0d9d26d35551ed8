//! The shift machines of a session, tick by tick.

use watchbell_core::{Done, Millis, Statement, Value, values};
use watchbell_market::analytics::shift::ShiftConfig;
use watchbell_market::{Config, STR_AUX_RUNNER, StreamsConfig, streams};
use watchbell_testkit::NOW;

use crate::world::{MINUTE, SYMBOLS, World, engines};

const CYCLE: Millis = Millis::from_secs(40);

fn config() -> Config {
    let streams = StreamsConfig { window: MINUTE * 10, ..StreamsConfig::default() };
    Config { windows: vec![MINUTE * 10], streams, ..Config::default() }
}

/// Stores a cycle of eight points at a price, as the sampler would.
async fn cycle(w: &World, symbol: &str, k: i64, price: f64) {
    let start = NOW + CYCLE * k;
    let mut points = Vec::new();
    for i in 1..=8 {
        points.extend(values![symbol, start + Millis(5_000 * i), price]);
    }
    let point = "insert into str_aux.samples_5s
        (symbol, ts, mid, bid_volume, ask_volume, bucket_count, quality_flags)
        values ($1, $2, $3, 1, 1, 5, '{}')";
    let closed = "insert into str_aux.cycles_40s (symbol, cycle_start, points, v_inner_close)
        values ($1, $2, 8, $3)";
    let statements = vec![
        Statement::bulk(point, 3, points),
        Statement::new(closed, values![symbol, start, k as f64]),
    ];
    w.db.apply(statements).await.unwrap();
}

async fn tick(w: &World) -> Done {
    w.tick(STR_AUX_RUNNER).await.unwrap()
}

#[tokio::test]
async fn a_session_keeps_the_thresholds_of_its_beginning() {
    let fall = |k: i64| if k < 20 { 1_000.0 } else { 995.0 };
    let upward = ShiftConfig { both_ways: false, streak: 2, ..ShiftConfig::default() };
    for (thresholds, shifts) in [(ShiftConfig::default(), 1), (upward, 0)] {
        let streams = StreamsConfig { thresholds, ..config().streams };
        let w = World::with(&Config { streams, ..config() }, MINUTE * 60, "").await;
        tick(&w).await;
        for k in 0..60 {
            cycle(&w, "BTCUSDT", k, fall(k)).await;
        }
        w.pass(CYCLE * 61);
        assert_eq!(tick(&w).await.summary["shifts"], shifts, "{thresholds:?}");
        let kept = w.rows("select epsilon_pct, streak, both_ways from str_aux.sessions").await;
        let t = thresholds;
        assert_eq!(kept, [values![t.epsilon_pct, t.streak, i64::from(t.both_ways)]]);
    }
}

/// All that a session has stored.
async fn session(w: &World) -> Vec<Vec<Value>> {
    let mut all = Vec::new();
    for sql in [
        "select symbol, cycle_end, machine, shifts, fresh_until from str_aux.stream_state
         order by symbol",
        "select symbol, ts, price, gfm, delta_pct from str_aux.stamps order by symbol, ts",
        "select symbol, ts, kind, payload from str_aux.stream_events order by symbol, ts, kind",
        "select symbol, stream, prev, cur, greatest from str_aux.streams order by symbol, stream",
    ] {
        let rows = w.db.query(sql, vec![]).await.unwrap();
        all.extend(rows.iter().map(|r| r.values().to_vec()));
    }
    all
}

/// A price that rises by half a per cent and stays there: one shift, once the floating mode has
/// followed far enough for five cycles.
fn price(k: i64) -> f64 {
    if k < 20 { 1_000.0 } else { 1_005.0 }
}

#[tokio::test]
async fn a_shift_moves_the_reference_and_the_columns() {
    for engine in engines() {
        let w = World::on(engine, &config(), MINUTE * 10, "").await;
        assert_eq!(tick(&w).await.summary["cycles"], 0, "the session is open, nothing has closed");
        let mut shifted_at = None;
        for k in 0..40 {
            cycle(&w, "BTCUSDT", k, price(k)).await;
            w.pass(CYCLE);
            let done = tick(&w).await;
            assert_eq!(done.summary["cycles"], 1);
            assert_eq!(done.summary["openings"], i64::from(k == 0));
            if done.summary["shifts"] == 1 {
                shifted_at.get_or_insert(k);
            }
        }
        let k = shifted_at.expect("a shift");
        assert!((24..36).contains(&k), "five cycles or more after the rise: {k}");
        let seen = streams(&w.db, STR_AUX_RUNNER, w.clock.now()).await.unwrap();
        let btc = &seen[0];
        assert_eq!(
            (btc.symbol.as_str(), btc.shifts, btc.cycle_end),
            ("BTCUSDT", 1, NOW + CYCLE * 40)
        );
        assert!((btc.ref_gfm.unwrap() - 1_005.0).abs() < 0.1, "{btc:?}");
        assert_eq!((btc.ui_epoch, btc.rows.len()), (1, 11));
        let benchmark = btc.rows.iter().find(|r| r.stream == "benchmark").unwrap();
        assert_eq!((benchmark.prev, benchmark.cur), (Some(1_000.0), Some(1_005.0)));
        assert_eq!(benchmark.greatest, Some(1_005.0));
        let inner = btc.rows.iter().find(|r| r.stream == "v_inner").unwrap();
        assert_eq!(
            (inner.cur, inner.greatest),
            (Some(k as f64), Some(39.0)),
            "of the shift's cycle"
        );
        // Three minutes after the shift it is no longer fresh.
        let shift = NOW + CYCLE * (k + 1);
        for (now, fresh) in
            [(shift, true), (shift + MINUTE * 3, true), (shift + Millis(180_001), false)]
        {
            assert_eq!(streams(&w.db, STR_AUX_RUNNER, now).await.unwrap()[0].fresh, fresh);
        }
        let kinds = "select count(*) from str_aux.stream_events where kind = 'opening'";
        assert_eq!(w.count(kinds).await, 1);
        assert_eq!(w.count("select count(*) from str_aux.stamps").await, 1);
        assert_eq!(w.seen().count("stream.shift", "BTCUSDT"), 1);
    }
}

#[tokio::test]
async fn missed_ticks_and_restarts_change_nothing() {
    let each = World::with(&config(), MINUTE * 10, "").await;
    let some = World::with(&config(), MINUTE * 10, "").await;
    for w in [&each, &some] {
        tick(w).await;
    }
    for k in 0..60 {
        for w in [&each, &some] {
            for (i, symbol) in SYMBOLS.into_iter().enumerate() {
                // One of them has a cycle without any point.
                if (k, i) != (30, 1) {
                    cycle(w, symbol, k, price(k) + i as f64 * (k % 7) as f64).await;
                }
            }
            w.pass(CYCLE);
        }
        tick(&each).await;
        if k % 13 == 5 {
            tick(&some).await;
        }
    }
    // A tick that was missed is not made up for, its cycles are: by the next one, which may be a job.
    some.ingest_job("compute_str_vectors", serde_json::json!({})).await.unwrap();
    let (each_rows, some_rows) = (session(&each).await, session(&some).await);
    assert!(each_rows.len() > 3 * 12);
    assert_eq!(each_rows, some_rows);
    assert_eq!(tick(&some).await.summary["cycles"], 0);
    assert_eq!(session(&some).await, each_rows);
}
