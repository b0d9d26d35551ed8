//! The demonstration, and what it shows: complete windows, the same results on every run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::Value;
use watchbell_clock::Stopwatch;
use watchbell_core::{Millis, Time};

use crate::harness::{CONFIG, Home, finish, server};

const MINUTE: Millis = Millis::from_mins(1);

/// Every window, a series at a time: one list has at most ten thousand.
fn every_window(home: &Home) -> Vec<Value> {
    let status = home.run(["status", "--json"]).ok().json();
    let series = status["series"].as_object().expect("series by name");
    let of = |name: &String| {
        let list = ["window", "list", "--series", name, "--limit", "10000", "--json"];
        home.run(list).ok().json().as_array().expect("a list").clone()
    };
    series.keys().flat_map(of).collect()
}

/// Results of complete windows that come from candles, and of those that follow from them.
fn hashes(home: &Home) -> BTreeMap<String, String> {
    let windows = every_window(home);
    let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
    let label = |w: &Value| text(&w["series"]).rsplit('-').next().unwrap_or_default().to_owned();
    // Points depend on the instants of the polls; candles are the venue's, and the same for all. What
    // follows from the windows looks back, but only the newest windows are of points.
    let of_candles: BTreeSet<_> = windows
        .iter()
        .filter(|w| w["hashes"]["source"] == "klines")
        .map(|w| (label(w), text(&w["start"])))
        .collect();
    windows
        .iter()
        .filter(|w| w["state"] == "complete")
        .filter(|w| of_candles.contains(&(label(w), text(&w["start"]))))
        .map(|w| {
            let key = format!("{} {}", text(&w["series"]), text(&w["start"]));
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
fn a_demonstration_obeys_the_environment_only_over_a_file_that_is_named() {
    // Who served the API here would be refused: the port is in use.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = taken.local_addr().expect("an address");
    let file =
        format!("market: {{ windows: [30m] }}\nhttp: {{ enabled: false, bind: \"{at}\" }}\n");
    let series = |arguments: &[&str], dotenv: &str, env: &[(&str, &str)]| -> Vec<String> {
        let home = Home::configured(&file);
        std::fs::write(home.path().join(".env"), dotenv).expect("a file in our directory");
        let demo = ["demo", "--once", "--days", "1"];
        let mut command = home.command(demo.iter().chain(arguments));
        command.envs(env.iter().copied());
        finish(command).ok();
        let status = home.run(["status", "--json"]).ok().json();
        let all = status["series"].as_object().expect("series by name").keys();
        all.filter(|name| name.starts_with("window-sampler-")).cloned().collect()
    };
    let windows = "WATCHBELL_MARKET__WINDOWS";
    let dotenv = format!("{windows}=[1h]\n");
    assert_eq!(series(&[CONFIG], "", &[]), ["window-sampler-30m"]);
    assert_eq!(series(&[CONFIG], &dotenv, &[]), ["window-sampler-1h"]);
    assert_eq!(series(&[CONFIG], &dotenv, &[(windows, "[3h]")]), ["window-sampler-3h"]);
    let named = [(windows, "[3h]"), ("WATCHBELL_CONFIG", "watchbell.yaml")];
    assert_eq!(series(&[], &dotenv, &named), ["window-sampler-3h"]);
    // What is meant for real work does not reach a demonstration that was told of no file.
    let nobodys = [(windows, "[3h]"), ("WATCHBELL_STORE__URL", "postgres://127.0.0.1:9/real")];
    let all = ["window-sampler-1h", "window-sampler-30m", "window-sampler-3h"];
    assert_eq!(series(&["--no-http"], &dotenv, &nobodys), all);
}

/// Section 11.5 (a), with the binary: once more, and through faults.
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
    let again = Home::new();
    again.run(["demo", "--once", "--days", "1", "--no-http"]).ok();
    let clean = hashes(&clean);
    for other in [hashes(&again), hashes(&faulty)] {
        let common: Vec<_> = clean.iter().filter(|(k, _)| other.contains_key(*k)).collect();
        // Windows of three lengths, their matrices, allocations and moods.
        assert!(common.len() >= 60 * 4, "only {} windows in common", common.len());
        for (window, hash) in common {
            assert_eq!(other[window], *hash, "{window}");
        }
    }
}

/// Tells a simulated venue how to misbehave from now on.
fn misbehave(venue: &str, faults: &str) {
    let address = venue.strip_prefix("http://").expect("an address on loopback");
    let mut stream = TcpStream::connect(address).expect("the venue listens");
    write!(
        stream,
        "POST /sim/faults HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{faults}",
        faults.len()
    )
    .expect("it reads");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("it answers");
    assert!(said.starts_with("HTTP/1.1 2"), "{said}");
}

/// Section 11.5 (c), with the binary: the venue answers nobody for twenty minutes.
#[test]
fn a_venue_that_is_away_for_twenty_minutes_is_waited_for_and_made_up_for() {
    let home = Home::new();
    // Two minutes of the market in a second of ours.
    let mut node = home.spawn(["demo", "--days", "1", "--speed", "120", "--http-port", "0"]);
    node.wait_for("the API answers at");
    let watch = Stopwatch::start();
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        while !holds() {
            assert!(watch.millis() < Millis::from_mins(4), "waited in vain until {what}");
        }
    };
    let market = |home: &Home| home.run(["market", "status", "--json"]).ok().json();
    let now = |home: &Home| {
        Time::parse(market(home)["now"].as_str().expect("an instant")).expect("an instant")
    };
    let (series, half) = ("window-sampler-30m", MINUTE * 30);
    let explained = || home.run(["explain", series]).ok().out;
    let status = home.run(["status", "--json"]).ok().json();
    let venue = status["venue"]["base_url"].as_str().expect("an address").to_owned();
    let gone = now(&home);
    // Every connection is dropped; `down` would close the way to tell it otherwise, too.
    misbehave(&venue, "*:reset");

    // Paused, and it says why; what is shown is marked as partial.
    until("windows wait for the venue", &|| {
        explained().contains("venue:binance is not well: down since")
    });
    let stuck = explained();
    assert!(stuck.contains("clears when venue:binance recovers"), "{stuck}");
    let shown = market(&home);
    assert_eq!((&shown["partial_data"], &shown["node_runs"]), (&true.into(), &true.into()));
    // Points go on, empty and flagged; the health scan raises its flag.
    until("points are empty", &|| {
        home.run(["market", "samples"]).ok().out.contains("empty_bucket")
    });
    until("the pack says so", &|| {
        let pack = home.run(["market", "packs", "health", "--json"]).ok().json();
        let items = pack["items"].as_array().cloned().unwrap_or_default();
        items.iter().any(|i| i["key"] == "ingest:partial_data" && i["value"] == true)
    });
    until("twenty minutes are over", &|| now(&home) >= gone + MINUTE * 20);
    misbehave(&venue, "");

    // Resumed, made up for, and every window that ended meanwhile is there.
    let back = now(&home);
    let (first, last) = (gone.floor(half), back.floor(half));
    let listed = |from: Time, to: Time| {
        let (from, to) = (from.to_string(), (to + Millis(1)).to_string());
        let list = ["window", "list", "--series", series, "--from", &from, "--to", &to, "--json"];
        home.run(list).ok().json().as_array().cloned().expect("a list")
    };
    until("the windows of the outage are complete", &|| {
        let windows = listed(first, last);
        windows.len() as i64 == (last - first) / half + 1
            && windows.iter().all(|w| w["state"] == "complete")
    });
    assert_eq!(market(&home)["partial_data"], false);
    let end = now(&home);
    assert!(node.terminate().success());
    let windows = home.run(["window", "list", "--limit", "10000", "--json"]).ok().json();
    for w in windows.as_array().expect("a list") {
        let wanted = ["complete", "open", "ready"].map(Value::from);
        assert!(wanted.contains(&w["state"]), "none was lost: {w}");
    }
    home.run(["window", "verify"]).ok();
    home.run(["db", "check"]).ok();
    // What comes from candles is as if nothing had happened.
    let calm = Home::new();
    let mut node = calm.spawn(["demo", "--days", "1", "--speed", "3000", "--http-port", "0"]);
    node.wait_for("the API answers at");
    until("the calm market is as far", &|| now(&calm) > end);
    assert!(node.terminate().success());
    let (faulty, calm) = (hashes(&home), hashes(&calm));
    let of_the_outage = format!("{series} {first}");
    assert!(faulty.contains_key(&of_the_outage), "{of_the_outage}: {:?}", faulty.keys().last());
    // What follows looks back at windows that one of the two has watched.
    let own = |k: &String| k.starts_with("window-sampler-") && calm.contains_key(k);
    let common: Vec<_> = faulty.iter().filter(|(k, _)| own(k)).collect();
    assert!(common.len() >= 70, "only {} windows in common", common.len());
    for (window, hash) in common {
        assert_eq!(calm[window], *hash, "{window}");
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

/// The recordings, where a checkout lies beside them.
fn recordings() -> Option<&'static str> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/klines");
    std::path::Path::new(folder).is_dir().then_some(folder)
}

#[test]
fn the_recorded_market_data_is_complete_where_it_is_at_hand() {
    let Some(recorded) = recordings() else { return };
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

/// All minutes that are recorded, more than ninety days of them: twice from scratch, and once more on
/// the other engine. `cargo test --release -p watchbell --test it -- --ignored recorded_day`
#[test]
#[ignore = "takes a quarter of an hour with the release binary"]
fn every_recorded_day_gives_the_same_hashes_twice_and_on_both_engines() {
    let Some(recorded) = recordings() else { return };
    let mut homes = vec![Home::configured("{}\n"), Home::configured("{}\n")];
    homes.extend(server().map(|server| {
        let url = server.url(&server.create_database());
        Home::configured(&format!("store: {{ url: \"{url}\" }}\n"))
    }));
    let mut first: Option<BTreeMap<String, String>> = None;
    for home in &homes {
        let replay = [CONFIG, "demo", "--once", "--no-http", "--klines", recorded];
        home.run(replay).ok();
        let status = home.run(["status", "--json"]).ok().json();
        for (series, summary) in status["series"].as_object().expect("series") {
            for state in ["failed", "abandoned", "running", "ready"] {
                let count = summary["counts"].get(state).and_then(Value::as_i64).unwrap_or(0);
                assert_eq!(count, 0, "{series}: {count} {state}");
            }
        }
        let complete = status["series"]["window-sampler-30m"]["counts"]["complete"].as_i64();
        assert!(complete >= Some(90 * 48), "only {complete:?} half hours");
        let hashes = hashes(home);
        match &first {
            None => first = Some(hashes),
            Some(first) => assert!(*first == hashes, "the hashes differ"),
        }
    }
    let first = first.expect("at least one replay");
    assert!(first.len() > 90 * (48 + 24 + 8) * 3, "only {} windows", first.len());
}
