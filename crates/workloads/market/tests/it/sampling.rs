//! Points, cycles, and windows that are computed from them.

use watchbell_core::Millis;
use watchbell_market::Config;
use watchbell_testkit::NOW;

use crate::world::{MINUTE, SYMBOLS, World};

const WINDOW: Millis = Millis::from_mins(10);

async fn world() -> World {
    let config = Config { windows: vec![WINDOW], ..Config::default() };
    let w = World::with(&config, Millis::from_hours(1), "").await;
    w.sync().await.unwrap();
    w
}

/// Polls until the window that begins at `NOW` is over and settled, but not within `pause`.
async fn watch(w: &World, pause: Millis) {
    w.sample_for(MINUTE).await;
    w.pass(pause);
    w.sample_for(WINDOW - MINUTE - pause + Millis::from_secs(5)).await;
    w.sync().await.unwrap();
}

#[tokio::test]
async fn a_watched_window_is_computed_from_points() {
    let w = world().await;
    watch(&w, Millis::ZERO).await;
    // The bucket in which sampling began is left out, and one row stands for each later one.
    let buckets = (WINDOW.0 / 5_000 - 1) * SYMBOLS.len() as i64;
    let within = "select count(*) from str_aux.samples_5s where ts <= 1795317000000";
    assert_eq!(w.count(within).await, buckets);
    let poor = "select count(*) from str_aux.samples_5s
        where ts <= 1795317000000 and (bucket_count <> 5 or mid is null or bid_volume <= 0)";
    assert_eq!(w.count(poor).await, 0);
    // Signals need three points to look back on.
    let silent = "select count(*) from str_aux.samples_5s where v_inner is null";
    assert_eq!(w.count(silent).await, 2 * SYMBOLS.len() as i64);
    let cycles = "select count(*) from str_aux.cycles_40s where points = 8";
    assert_eq!(w.count(cycles).await, 14 * SYMBOLS.len() as i64);

    let done = w.window(WINDOW, NOW).await.unwrap();
    let hashes = done.window.unwrap();
    assert_eq!(hashes.source, "points");
    assert_eq!(done.summary["samples"], buckets);
    let rolled = "select count(*) from str_aux.windows
        where source = 'points' and cycles_count = 15 and v_inner_avg is not null";
    assert_eq!(w.count(rolled).await, SYMBOLS.len() as i64);
    let moments = "select count(*) from str_aux.window_stats
        where var_inner >= 0 and spread_p95 >= 0 and gfm between price_min and price_max";
    assert_eq!(w.count(moments).await, SYMBOLS.len() as i64);
    // The same points give the same window, and the database refuses to take it twice.
    let again = w.window(WINDOW, NOW).await;
    assert!(again.unwrap_err().to_string().contains("str_aux.windows"));
}

#[tokio::test]
async fn a_window_that_was_watched_in_part_is_computed_from_candles() {
    let w = world().await;
    watch(&w, MINUTE * 3).await;
    let done = w.window(WINDOW, NOW).await.unwrap();
    assert_eq!(done.window.unwrap().source, "klines");
    assert_eq!(done.summary["samples"], 10 * SYMBOLS.len() as i64);
    let rolled = "select count(*) from str_aux.windows where v_inner_avg is null";
    assert_eq!(w.count(rolled).await, SYMBOLS.len() as i64, "nothing is invented");
}

#[tokio::test]
async fn a_bucket_in_which_the_venue_is_silent_is_a_flagged_row() {
    let w = world().await;
    w.sample_for(Millis::from_secs(20)).await;
    w.set_faults("depth:503");
    for _ in 0..20 {
        w.sample().await.unwrap_err();
        w.pass(Millis::from_secs(1));
    }
    w.set_faults("");
    w.sample_for(Millis::from_secs(20)).await;
    let empty = "select count(*) from str_aux.samples_5s
        where mid is null and quality_flags like '%\"empty_bucket\":true%'";
    let empty = w.count(empty).await;
    assert!(empty >= 3 * SYMBOLS.len() as i64, "{empty}");
    let gaps = "select count(*) from (
          select ts - lag(ts) over (partition by symbol order by ts) as step
          from str_aux.samples_5s
        ) s where step <> 5000";
    assert_eq!(w.count(gaps).await, 0, "every bucket has a row");
}
