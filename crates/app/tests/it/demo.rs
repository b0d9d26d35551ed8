//! The demonstration, and what it shows: complete windows, the same results on every run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;

use crate::harness::Home;

fn hashes(home: &Home) -> BTreeMap<String, String> {
    let windows = home.run(["window", "list", "--limit", "10000", "--json"]).ok().json();
    let windows = windows.as_array().expect("a list");
    let label =
        |w: &Value| w["series"].as_str().and_then(|s| s.rsplit('-').next()).map(str::to_owned);
    // Points depend on the instants of the polls; candles are the venue's, and the same for all. What
    // follows from the windows looks back, but only the newest windows are of points.
    let of_candles: BTreeSet<_> = windows
        .iter()
        .filter(|w| w["hashes"]["source"] == "klines")
        .map(|w| (label(w), w["start"].to_string()))
        .collect();
    windows
        .iter()
        .filter(|w| w["state"] == "complete")
        .filter(|w| of_candles.contains(&(label(w), w["start"].to_string())))
        .map(|w| {
            let key = format!("{} {}", w["series"], w["start"]);
            (key, w["hashes"]["result"].as_str().expect("a hash").to_owned())
        })
        .collect()
}

#[test]
fn the_demonstration_catches_up_and_prints_its_status() {
    let home = Home::new();
    let ended = home.run(["demo", "--once", "--days", "1", "--no-http"]).ok();
    for word in
        ["window-sampler-30m", "window-sampler-1h", "window-sampler-3h", "market-sync", "COMPLETE"]
    {
        assert!(ended.out.contains(word), "{word} is missing in {}", ended.out);
    }
    assert!(ended.err.contains("caught up"), "{}", ended.err);
    let status = home.run(["status", "--json"]).ok().json();
    assert_eq!(status["node"]["running"], false);
    let counts = &status["series"]["window-sampler-30m"]["counts"];
    assert!(counts["complete"].as_i64().unwrap() >= 48, "{counts}");
    assert_eq!(counts.get("abandoned"), None, "{counts}");
}

#[test]
fn the_same_span_gives_the_same_hashes_also_after_repaired_faults() {
    let clean = Home::new();
    clean.run(["demo", "--once", "--days", "1", "--no-http"]).ok();
    let faulty = Home::new();
    faulty
        .run([
            "demo",
            "--once",
            "--days",
            "1",
            "--no-http",
            "--fault",
            "klines:500:p=0.1",
            "--fault",
            "klines:reset:p=0.1",
            "--fault",
            "klines:truncated:p=0.1",
            "--fault",
            "klines:missing:p=0.01,heal=1",
        ])
        .ok();
    let (clean, faulty) = (hashes(&clean), hashes(&faulty));
    let common: Vec<_> = clean.iter().filter(|(k, _)| faulty.contains_key(*k)).collect();
    // Windows of three lengths, their matrices, allocations and moods.
    assert!(common.len() >= 60 * 4, "only {} windows in common", common.len());
    for (window, hash) in common {
        assert_eq!(faulty[window], *hash, "{window}");
    }
}

#[test]
fn recorded_klines_are_complete_but_where_the_recording_has_a_hole() {
    let home = Home::new();
    let dir = home.path().join("klines");
    std::fs::create_dir(&dir).unwrap();
    // Ten hours of two symbols from 2025-03-01; one of them lacks five minutes of its fourth hour.
    let begin = 1_740_787_200_000_i64;
    for (symbol, base) in [("BTCUSDT", 85_000.0), ("ETHUSDT", 2_250.0)] {
        let mut csv = String::from("open_time_ms,open,high,low,close,volume\n");
        for i in 0..600_i64 {
            if symbol == "ETHUSDT" && (200..205).contains(&i) {
                continue;
            }
            let price = base * (1.0 + 0.001 * ((i * 37 % 101) as f64 - 50.0) / 50.0);
            let (low, high) = (price * 0.9995, price * 1.0005);
            let at = begin + i * 60_000;
            writeln!(csv, "{at},{price:.2},{high:.2},{low:.2},{price:.2},{}.5", 10 + i % 7)
                .unwrap();
        }
        std::fs::write(dir.join(format!("{symbol}-1m-20250301-20250301.csv")), csv).unwrap();
    }
    let klines = dir.to_str().unwrap();
    let ended = home.run(["demo", "--once", "--no-http", "--klines", klines]).ok();
    assert!(ended.out.contains("ETHUSDT"), "the hole is named: {}", ended.out);
    let windows = home.run(["window", "list", "--limit", "1000", "--json"]).ok().json();
    let mut abandoned = Vec::new();
    for w in windows.as_array().unwrap() {
        match w["state"].as_str().unwrap() {
            "complete" => {}
            "abandoned" => {
                let (reason, series) =
                    (w["reason"].as_str().unwrap(), w["series"].as_str().unwrap().to_owned());
                let own = series.starts_with("window-sampler-");
                let says = if own { "ETHUSDT has" } else { "INPUT_ABANDONED" };
                assert!(reason.contains(says), "{series}: {reason}");
                abandoned.push(series);
            }
            other => panic!("{other}: {w}"),
        }
    }
    abandoned.sort();
    let chains = ["matrices", "mea", "window-sampler"];
    let labels = ["1h", "30m", "3h"];
    let want: Vec<_> =
        chains.iter().flat_map(|c| labels.iter().map(move |l| format!("{c}-{l}"))).collect();
    assert_eq!(abandoned, want, "what follows a window is given up with it");
}

#[test]
fn the_recorded_market_data_is_complete_where_it_is_at_hand() {
    let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/klines");
    if !std::path::Path::new(recorded).is_dir() {
        return; // only a checkout beside the recordings has them
    }
    let home = Home::new();
    home.run(["demo", "--once", "--no-http", "--days", "10", "--klines", recorded]).ok();
    let status = home.run(["status", "--json"]).ok().json();
    for (series, least) in
        [("window-sampler-30m", 450), ("window-sampler-1h", 220), ("window-sampler-3h", 70)]
    {
        let counts = &status["series"][series]["counts"];
        assert!(counts["complete"].as_i64().unwrap() >= least, "{series}: {counts}");
        assert_eq!(counts.get("abandoned").unwrap_or(&Value::from(0)), 0, "{series}: {counts}");
    }
}
