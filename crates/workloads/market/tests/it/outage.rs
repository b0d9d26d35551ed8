//! Scenario (c): the venue is away for twenty minutes. Windows wait and say why, points are stored
//! empty, candles are fetched when it is back, and then the windows come in order.

use watchbell_core::gate::Gate;
use watchbell_core::{Millis, Time};
use watchbell_market::{Config, MARKET_SAMPLER, needed_samples, series_name};
use watchbell_testkit::NOW;

use crate::world::{MINUTE, SYMBOLS, World};

const SECOND: Millis = Millis::from_secs(1);
const WINDOW: Millis = Millis::from_mins(10);

/// A second of the node: the sampler each second, the synchronisation each half minute.
async fn second(w: &World) {
    let now = w.clock.now();
    // A cycle that fails is not the end of its worker.
    drop(w.sample().await);
    if now.floor(SECOND * 30) == now.floor(SECOND) {
        drop(w.sync().await);
    }
    if w.clock.now() < now + SECOND {
        w.clock.advance(now + SECOND);
    }
}

async fn live_until(w: &World, until: Time) {
    while w.clock.now() < until {
        second(w).await;
    }
}

#[tokio::test]
async fn a_venue_that_is_away_for_twenty_minutes() {
    let config = Config { windows: vec![WINDOW], ..Config::default() };
    let w = World::with(&config, MINUTE * 10, "").await;
    w.sync().await.unwrap();
    let worker = series_name(WINDOW);
    let (gone, back) = (NOW + MINUTE * 5, NOW + MINUTE * 25);
    live_until(&w, gone).await;
    assert_eq!(w.gate(&worker), None);

    // Paused: within two minutes the venue counts as down, and windows do not start.
    w.set_faults("*:down");
    live_until(&w, gone + MINUTE * 2).await;
    let Some(Gate::Condition { name, detail, .. }) = w.gate(&worker) else {
        panic!("{:?}", w.gate(&worker))
    };
    assert_eq!(name, "venue:binance");
    assert!(detail.starts_with("down since") && detail.contains("no success since"), "{detail}");
    assert_eq!(w.gate(MARKET_SAMPLER), None, "points go on");

    // Flags: every bucket of the outage is a row, empty and flagged.
    live_until(&w, gone + MINUTE * 4).await;
    let sent = w.sim.journal().last();
    live_until(&w, gone + MINUTE * 5).await;
    let probes = w.sim.journal().last() - sent;
    assert!(probes < 60, "{probes} requests in a minute: one book each five seconds, three tries");
    live_until(&w, back).await;
    let away = "select count(*) from str_aux.samples_5s
        where ts > 1795316720000 and ts <= 1795317880000
          and mid is null and bid_volume = 0 and quality_flags like '%\"empty_bucket\":true%'";
    assert_eq!(w.count(away).await, (20 * 60 - 40) / 5 * SYMBOLS.len() as i64);
    let needed = needed_samples(&w.db, w.clock.now(), SECOND * 20).await.unwrap();
    assert_eq!(needed.len(), SYMBOLS.len());
    assert!(needed.iter().all(|n| n.newest <= Some(gone + SECOND * 5)), "{needed:?}");
    let codes = "select count(*) from str_aux.v_health where code = 'no_prices'";
    assert_eq!(w.count(codes).await, SYMBOLS.len() as i64);
    // The window that ended meanwhile waits for its candles as well.
    let gate = w.window_gate(WINDOW, NOW).await;
    assert!(matches!(gate, Some(Gate::CoverMissing { .. })), "{gate:?}");

    // Resume: two good answers, and it is fetched what was missed.
    w.set_faults("");
    live_until(&w, back + MINUTE).await;
    assert!(w.venue().met, "{:?}", w.venue());
    assert_eq!(w.gate(&worker), None);
    w.assert_whole(NOW - MINUTE * 10, back).await;
    w.assert_nothing_skipped().await;
    assert_eq!(w.window_gate(WINDOW, NOW).await, None);

    // Pending windows in order; those that were not watched are computed from candles.
    live_until(&w, NOW + MINUTE * 41).await;
    let mut sources = Vec::new();
    for (computed, _) in w.windows(NOW + MINUTE * 40).await {
        sources.push(((computed.1 - NOW) / MINUTE, computed.2.source));
    }
    let have: Vec<_> = sources.iter().map(|(at, s)| (*at, s.as_str())).collect();
    assert_eq!(
        have,
        [(-10, "klines"), (0, "klines"), (10, "klines"), (20, "klines"), (30, "points")]
    );
    let gaps = "select count(*) from str_aux.v_flow_gaps where missing >= 200";
    assert_eq!(w.count(gaps).await, SYMBOLS.len() as i64, "one long gap each");
    assert_eq!(needed_samples(&w.db, w.clock.now(), SECOND * 20).await.unwrap(), []);
}
