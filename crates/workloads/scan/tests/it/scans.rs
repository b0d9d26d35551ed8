//! Whole runs: what is published, what an exchange in trouble does to it, and what is asked of whom.

use std::collections::BTreeSet;

use watchbell_core::Millis;
use watchbell_db::Engine;
use watchbell_scan::view;
use watchbell_testkit::postgres_is_wanted;
use watchbell_venues::native::Venue::{Coinbase, Kraken, Okx};

use crate::world::{Ran, World};

const SIGNALS: &str =
    "timestamp,symbol,score,momentum_core,vadr,spread_bps,depth_usd,regime,fresh,venue,sources\n";
const PREMOVE: &str =
    "timestamp,symbol,score,premove_signal,execution_risk,venue_health,latency_ms\n";
const WARM: &str = "timestamp,symbol,score,momentum_core,cached,regime,venue,ttl_remaining\n";

fn symbols(ran: &Ran) -> BTreeSet<String> {
    let name = |e: serde_json::Value| e["symbol"].as_str().unwrap().to_owned();
    ran.explanations().into_iter().map(name).collect()
}

/// The gate of that name, in every explanation.
fn gates(ran: &Ran, name: &str) -> Vec<serde_json::Value> {
    let gate = |e: serde_json::Value| {
        let gates = e["gates"].as_array().unwrap().clone();
        gates.into_iter().find(|g| g["name"] == name).unwrap()
    };
    ran.explanations().into_iter().map(gate).collect()
}

#[tokio::test]
async fn a_hot_scan_publishes_its_files_and_explains_every_symbol() {
    let w = World::new(11).await;
    let ran = w.run("scan.hot").await;
    let names: Vec<&str> = ran.files.keys().map(String::as_str).collect();
    assert_eq!(names, ["explain.json", "premove.csv", "signals.csv"]);
    assert!(ran.files["signals.csv"].starts_with(SIGNALS), "{}", ran.files["signals.csv"]);
    assert!(ran.files["premove.csv"].starts_with(PREMOVE));
    for file in ran.files.values() {
        assert!(file.ends_with('\n') && !file.contains('\r') && !file.starts_with('\u{feff}'));
    }
    let explain = ran.json("explain.json");
    assert_eq!(explain["timestamp"], "2026-11-22T03:00:13Z");
    assert_eq!(explain["candidates"], 30);
    assert_eq!(explain["meta"]["regime_source"], "default_stale");
    assert_eq!(symbols(&ran).len(), 30);
    for e in ran.explanations() {
        let gates: Vec<&str> =
            e["gates"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
        assert_eq!(
            gates,
            [
                "data",
                "score",
                "vadr",
                "spread",
                "depth",
                "freshness",
                "fatigue",
                "late_fill",
                "funding_divergence"
            ]
        );
        assert!(e["score"].is_number(), "{e}");
    }
    // Every row of the signals passed, and no one else did.
    let rows: Vec<String> = ran.rows("signals.csv").into_iter().map(|r| r[1].clone()).collect();
    let passed = ran.explanations().into_iter().filter(|e| e["all_gates_pass"] == true);
    let passed: Vec<String> = passed.map(|e| e["symbol"].as_str().unwrap().to_owned()).collect();
    assert_eq!(rows, passed[..rows.len().min(passed.len())]);
    // What was told meanwhile, and what is kept.
    let told = w.told();
    for stage in ["init", "universe", "fetch", "analyze", "orthogonalize", "filter", "write"] {
        assert!(told.iter().any(|t| t.starts_with(stage)), "{stage} in {told:?}");
    }
    assert_eq!(w.count("verdicts").await, 30);
    assert_eq!(w.count("runs").await, 1);
}

#[tokio::test]
async fn the_same_market_gives_the_same_bytes() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let w = World::new(5).await;
        let regime = w.run("regime.refresh").await;
        let hot = w.run("scan.hot").await;
        let warm = w.run("scan.warm").await;
        // It waits for its turns, and how long its answers took depends on this machine.
        let mut explain = warm.json("explain.json");
        explain["health"].take();
        runs.push((regime.files, hot.files, warm.rows("warm_signals.csv"), explain));
    }
    assert!(runs[0] == runs[1]);
    let other = World::new(6).await.run("scan.hot").await;
    assert_ne!(other.files["explain.json"], runs[0].1["explain.json"]);
}

/// What is published, kept and shown is the same on both engines.
#[tokio::test]
async fn both_engines_keep_and_show_the_same() {
    let mut seen = Vec::new();
    for engine in [Engine::Sqlite, Engine::Postgres] {
        if engine == Engine::Postgres && !postgres_is_wanted() {
            continue;
        }
        let mut w = World::on(engine, 11, |_| {}).await;
        let regime = w.run("regime.refresh").await;
        let hot = w.run("scan.hot").await;
        // Another process knows what this one has read.
        w.restart();
        let asked = w.requests(Kraken).iter().filter(|r| r.contains("OHLC")).count();
        w.pass(Millis::from_mins(1));
        let again = w.run("scan.hot").await;
        assert_eq!(w.requests(Kraken).iter().filter(|r| r.contains("OHLC")).count(), asked);

        let stored = view::newest_regime(&w.db).await.unwrap().unwrap();
        assert_eq!(stored.document, regime.json("regime.json"));
        let first = &again.explanations()[0];
        let symbol = first["symbol"].as_str().unwrap();
        let explained = view::explain(&w.db, symbol, Some("scan.hot")).await.unwrap().unwrap();
        assert_eq!(&explained.explanation, first);
        assert_eq!(view::explain(&w.db, symbol, Some("scan.warm")).await.unwrap(), None);
        let symbols: BTreeSet<String> = view::symbols(&w.db).await.unwrap().into_iter().collect();
        assert_eq!(symbols, self::symbols(&again));
        let (_, universe) = view::universe(&w.db, Kraken).await.unwrap().unwrap();
        let runs = view::runs(&w.db, None, 9).await.unwrap();
        let jobs: Vec<&str> = runs.iter().map(|r| r.job.as_str()).collect();
        assert_eq!(jobs, ["scan.hot", "scan.hot", "regime.refresh"]);
        let newest = view::newest_runs(&w.db, &["scan.hot", "scan.warm"]).await.unwrap();
        assert_eq!(newest.len(), 1);
        let mut counts = Vec::new();
        for table in ["verdicts", "bars", "v_runs", "v_signals", "v_rejections"] {
            counts.push(w.count(table).await);
        }
        assert_eq!(counts[3] + counts[4], counts[0]);
        w.pass(w.config.keep + Millis::from_mins(1));
        w.run("scan.hot").await;
        counts.push(w.count("verdicts").await);
        let headers: Vec<_> = runs.into_iter().map(|r| (r.took, r.passed, r.header)).collect();
        seen.push((regime.files, hot.files, again.files, universe, headers, counts));
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test]
async fn hot_and_warm_share_no_symbol_and_the_warm_one_uses_what_is_cached() {
    let w = World::new(11).await;
    let hot = w.run("scan.hot").await;
    let warm = w.run("scan.warm").await;
    assert!(warm.files["warm_signals.csv"].starts_with(WARM));
    assert!(warm.files.contains_key("explain.json"));
    assert!(symbols(&hot).is_disjoint(&symbols(&warm)));
    assert!(!symbols(&warm).is_empty());
    let bars = |w: &World| w.requests(Kraken).iter().filter(|r| r.contains("OHLC")).count();
    let before = bars(&w);
    w.pass(Millis::from_mins(5));
    let again = w.run("scan.warm").await;
    assert_eq!(bars(&w), before, "no bar has closed since");
    assert_eq!(again.summary["counts"]["failed"], 0);
    // The next hour closes one bar of each symbol, and the scan asks for it.
    w.pass(Millis::from_mins(55));
    w.run("scan.warm").await;
    assert!(bars(&w) > before);
}

#[tokio::test]
async fn scans_weigh_by_the_newest_regime_until_it_is_too_old() {
    let w = World::new(11).await;
    let regime = w.run("regime.refresh").await;
    let keys: Vec<String> =
        regime.json("regime.json").as_object().unwrap().keys().cloned().collect();
    for key in
        ["timestamp", "regime", "indicators", "confidence", "votes", "weight_blend", "next_refresh"]
    {
        assert!(keys.iter().any(|k| k == key), "{key}");
    }
    let found = regime.json("regime.json");
    let hot = w.run("scan.hot").await.json("explain.json");
    assert_eq!(hot["meta"]["regime_source"], "cached");
    assert_eq!(hot["regime"], found["regime"]);
    assert_eq!(hot["weights"]["momentum"], found["weight_blend"]["momentum"]);
    // Four hours and the grace of a quarter of an hour.
    w.pass(Millis::from_mins(255));
    let stale = w.run("scan.hot").await.json("explain.json");
    assert_eq!(stale["meta"]["regime_source"], "default_stale");
    assert_eq!(stale["regime"], "normal");
}

#[tokio::test]
async fn without_its_primary_exchange_nothing_is_known_and_nothing_published() {
    let w = World::new(11).await;
    w.faults(Kraken, "*:down");
    let why = w.fails("scan.hot").await;
    assert!(why.contains("kraken does not say what is traded"), "{why}");
    let why = w.fails("regime.refresh").await;
    assert!(why.contains("kraken"), "{why}");
    assert_eq!(w.count("runs").await, 0);
    assert_eq!(w.count("regimes").await, 0);
}

#[tokio::test]
async fn an_earlier_universe_stands_in_and_says_so() {
    let w = World::new(11).await;
    w.run("scan.hot").await;
    w.pass(Millis::from_mins(15));
    w.faults(Kraken, "*:down");
    let ran = w.run("scan.hot").await;
    let explain = ran.json("explain.json");
    assert_eq!(explain["meta"]["stale_universe"], true);
    // Its bars are exact until the hour is over; its books are not there, but those of others are.
    let venues: BTreeSet<String> = ran
        .explanations()
        .iter()
        .filter_map(|e| Some(e["microstructure"]["venue"].as_str()?.to_owned()))
        .collect();
    assert!(!venues.contains("kraken") && !venues.is_empty(), "{venues:?}");
    let header = &ran.summary["header"];
    let kraken = &header["venues"][0];
    assert_eq!((&kraken["venue"], &kraken["health"]), (&"kraken".into(), &"UNHEALTHY".into()));
}

#[tokio::test]
async fn an_exchange_that_is_down_is_left_out_and_asked_no_more() {
    let w = World::new(11).await;
    w.run("scan.hot").await;
    w.faults(Okx, "*:down");
    w.pass(Millis::from_mins(15));
    let ran = w.run("scan.hot").await;
    for e in ran.explanations() {
        let checked = e["microstructure"]["venues_checked"].as_array().unwrap().clone();
        let okx = checked.iter().find(|v| v["venue"] == "okx").unwrap();
        assert_eq!(okx["ok"], false, "{okx}");
        assert_ne!(e["microstructure"]["venue"], "okx");
    }
    // Its breaker is open: the rest of its books are not asked for.
    let reasons: BTreeSet<String> = ran
        .explanations()
        .iter()
        .flat_map(|e| e["microstructure"]["venues_checked"].as_array().unwrap().clone())
        .filter(|v| v["venue"] == "okx")
        .map(|v| v["reason"].as_str().unwrap().to_owned())
        .collect();
    assert!(reasons.contains("circuit_open"), "{reasons:?}");
}

#[tokio::test]
async fn a_slow_exchange_and_one_that_wants_no_more_are_left_out_by_name() {
    let w = World::new(11).await;
    w.faults(Kraken, "depth:latency:ms=3000");
    w.faults(Okx, "depth:429:retry=3600");
    let ran = w.run("scan.hot").await;
    let mut seen = BTreeSet::new();
    for e in ran.explanations() {
        for v in e["microstructure"]["venues_checked"].as_array().unwrap() {
            let reason = v["reason"].as_str().unwrap();
            let word = reason.split([':', ' ']).next().unwrap();
            if v["venue"] != "coinbase" {
                assert_eq!(v["ok"], false, "{v}");
                seen.insert(format!("{} {word}", v["venue"].as_str().unwrap()));
            }
        }
        assert_ne!(e["microstructure"]["venue"], "okx");
    }
    assert!(seen.contains("kraken slow_answer"), "{seen:?}");
    assert!(seen.contains("okx rate_limited"), "{seen:?}");
    let header = ran.summary["header"]["venues"].as_array().unwrap().clone();
    let health = |name: &str| header.iter().find(|v| v["venue"] == name).unwrap()["health"].clone();
    assert_ne!(health("kraken"), "HEALTHY");
    // The pause that it asked for is kept.
    let asked = w.requests(Okx).len();
    w.run("scan.hot").await;
    assert_eq!(w.requests(Okx).len(), asked);
}

#[tokio::test]
async fn a_lying_exchange_passes_nobody() {
    let w = World::new(11).await;
    for venue in [Kraken, Okx, Coinbase] {
        w.faults(venue, "depth:crossed");
    }
    let ran = w.run("scan.hot").await;
    assert!(ran.rows("signals.csv").is_empty());
    assert!(ran.explanations().iter().all(|e| e["decision"] == "excluded"));
    for gate in gates(&ran, "spread") {
        assert_ne!(gate["passed"], true, "{gate}");
    }
    // Candles that stopped hours ago are stale, however good they look.
    let w = World::new(11).await;
    w.faults(Kraken, "klines:stale:ms=14400000");
    let ran = w.run("scan.hot").await;
    assert!(ran.rows("signals.csv").is_empty());
    for gate in gates(&ran, "freshness") {
        assert_eq!(gate["passed"], false, "{gate}");
        assert!(gate["reason"].as_str().unwrap().starts_with("stale_bars"), "{gate}");
    }
    // Rows that are there twice are no page at all.
    let w = World::new(11).await;
    w.faults(Kraken, "klines:duplicate");
    let ran = w.run("scan.hot").await;
    assert!(ran.rows("signals.csv").is_empty());
    for gate in gates(&ran, "data") {
        assert_eq!(gate["passed"], false);
        assert!(gate["reason"].as_str().unwrap().starts_with("data_missing:candles"), "{gate}");
    }
}

#[tokio::test]
async fn a_run_that_is_asked_to_stop_waits_for_no_exchange() {
    let w = World::new(11).await;
    w.faults(Kraken, "klines:timeout");
    let stop = async {
        // Until it waits for an answer that does not come.
        while !w.requests(Kraken).iter().any(|r| r.contains("OHLC")) {
            tokio::task::yield_now().await;
        }
        w.stop();
    };
    let (why, ()) = tokio::join!(w.fails("scan.hot"), stop);
    assert_eq!(why, "stopped on request");
    assert_eq!(w.count("runs").await, 0);
}

#[tokio::test]
async fn a_dry_run_asks_nobody_and_writes_nothing() {
    let w = World::new(11).await;
    for (job, files) in [("scan.hot", 3), ("scan.warm", 2), ("regime.refresh", 1)] {
        let done = w.rehearse(job).await;
        assert!(done.commit.is_empty() && done.artifacts.is_empty());
        let would = done.summary["would_write"].as_array().unwrap();
        assert_eq!(would.len(), files);
        for path in would {
            let path = path.as_str().unwrap();
            assert!(path.starts_with("artifacts/signals/20261122_030013/"), "{path}");
        }
    }
    for venue in [Kraken, Okx, Coinbase] {
        assert!(w.requests(venue).is_empty());
    }
}

#[tokio::test]
async fn a_budget_outlives_the_process() {
    let mut w = World::with(11, |config| {
        let kraken = config.venues.get_mut(&Kraken).unwrap();
        // A universe takes two, bars and books of thirty symbols sixty.
        kraken.daily_budget = 63;
    })
    .await;
    w.run("scan.hot").await;
    let asked = w.requests(Kraken).len();
    w.restart();
    w.pass(Millis::from_mins(15));
    w.run("scan.hot").await;
    assert!(w.requests(Kraken).len() <= 63, "{} after {asked}", w.requests(Kraken).len());
}

#[tokio::test]
async fn old_verdicts_are_forgotten() {
    let w = World::new(11).await;
    w.run("scan.hot").await;
    w.pass(w.config.keep + Millis::from_mins(15));
    w.run("scan.hot").await;
    assert_eq!(w.count("runs").await, 1);
    assert_eq!(w.count("verdicts").await, 30);
}
