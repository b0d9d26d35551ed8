//! Scans with the real binary: what their founding document promises, against simulated exchanges.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tokio::runtime::Runtime;
use watchbell_clock::{Clock, Stopwatch};
use watchbell_venues::native::Venue;
use watchbell_venues::sim::{FaultScript, Market, VenueLimits, VenueSim, VenueSimConfig};

use crate::harness::Home;
use crate::killed::{Dice, seed};

/// The file of jobs as the founding document has it.
const FOUNDING: &str = r#"
global:
  artifacts_dir: "artifacts/signals"
  log_level: "info"
  timezone: "UTC"

jobs:
  - name: "scan.hot"
    schedule: "*/15 * * * *"
    type: "scan.hot" 
    enabled: true
    config:
      universe: "top30"
      venues: ["kraken", "okx", "coinbase"]
      max_sample: 30
      premove: true
      
  - name: "scan.warm"
    schedule: "0 */2 * * *"
    type: "scan.warm"
    enabled: true
    config:
      universe: "remaining"
      venues: ["kraken"]
      max_sample: 100
      premove: false
      
  - name: "regime.refresh"
    schedule: "0 */4 * * *"
    type: "regime.refresh"
    enabled: true
"#;

const LISTED: &str = "\
📋 Scheduled Jobs (3)
JOB NAME             SCHEDULE        STATUS   DESCRIPTION
--------             --------        ------   -----------
scan.hot             */15 * * * *    enabled  Hot momentum + premove scan for top-30 ADV universe
scan.warm            0 */2 * * *     enabled  Warm scan for remaining universe with cached sources
regime.refresh       0 */4 * * *     enabled  Refresh market regime detection
";

/// Exchanges on the loopback, on the wall's time, without limits; and a home that asks them.
struct Bench {
    home: Home,
    sims: Vec<VenueSim>,
    _runtime: Runtime,
}

impl Bench {
    fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let market = Arc::new(Market::synthetic_universe(11, 60));
        let mut sims = Vec::new();
        let mut yaml = "scan:\n  venues:\n".to_owned();
        for venue in [Venue::Kraken, Venue::Okx, Venue::Coinbase] {
            let config = VenueSimConfig {
                venue,
                bind: ([127, 0, 0, 1], 0).into(),
                market: Arc::clone(&market),
                clock: Clock::system(),
                faults: FaultScript::default(),
                limits: VenueLimits::none(),
            };
            let sim = runtime.block_on(VenueSim::start(config)).expect("a free port");
            yaml.push_str(&format!(
                "    {venue}: {{base_url: \"{}\", rate: 1000, burst: 1000}}\n",
                sim.base_url()
            ));
            sims.push(sim);
        }
        let home = Home::new();
        fs::write(home.path().join("watchbell.yaml"), yaml).expect("a configuration");
        fs::create_dir(home.path().join("config")).expect("a directory");
        fs::write(home.path().join("config/scheduler.yaml"), FOUNDING).expect("jobs");
        Self { home, sims, _runtime: runtime }
    }

    fn signals(&self) -> PathBuf {
        self.home.data().join("artifacts/signals")
    }

    fn faults(&self, script: &str) {
        for sim in &self.sims {
            sim.set_faults(script.parse().expect("a script"));
        }
    }
}

/// The directories of runs that a reader can see.
fn published(signals: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(signals) else { return Vec::new() };
    let mut all: Vec<PathBuf> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.is_dir() && !p.is_symlink())
        .collect();
    all.sort();
    all
}

/// What is wrong with a directory that a reader has found. One that went away while it was looked at
/// is none: its place tells.
fn partial(dir: &Path) -> Option<String> {
    let place = || fs::metadata(dir).ok().map(|m| (m.ino(), m.ctime(), m.ctime_nsec()));
    let before = place()?;
    fault(dir).filter(|_| place() == Some(before))
}

fn fault(dir: &Path) -> Option<String> {
    let names: BTreeSet<String> = fs::read_dir(dir)
        .ok()?
        .filter_map(|e| Some(e.ok()?.file_name().to_str()?.to_owned()))
        .collect();
    let wanted = ["explain.json", "manifest.json", "premove.csv", "signals.csv"];
    if !names.iter().map(String::as_str).eq(wanted) {
        return Some(format!("{} has {names:?}", dir.display()));
    }
    let manifest = fs::read_to_string(dir.join("manifest.json")).ok()?;
    let Ok(manifest) = serde_json::from_str::<Value>(&manifest) else {
        return Some(format!("{} has half a manifest", dir.display()));
    };
    for file in manifest["files"].as_array().expect("files") {
        let path = dir.join(file["path"].as_str().expect("a path"));
        let size = fs::metadata(&path).ok()?.len();
        if Some(size) != file["bytes"].as_u64() {
            return Some(format!("{} has {size} bytes", path.display()));
        }
    }
    None
}

#[test]
fn three_jobs_are_enabled_from_the_founding_file_and_without_any() {
    let bench = Bench::new();
    assert_eq!(bench.home.run(["schedule", "list"]).ok().out, LISTED);
    assert!(!bench.home.data().exists(), "nothing was touched");
    let bare = Home::new();
    assert_eq!(bare.run(["schedule", "list"]).ok().out, LISTED);
    let shipped = include_str!("../../../../config/scheduler.yaml");
    fs::create_dir(bare.path().join("config")).expect("a directory");
    fs::write(bare.path().join("config/scheduler.yaml"), shipped).expect("jobs");
    assert_eq!(bare.run(["schedule", "list"]).ok().out, LISTED);
    let status = bare.run(["schedule", "status"]).ok().out;
    for line in ["🕐 Scheduler Status", "Running:        false", "Jobs Enabled:   3"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    assert!(status.contains("Last Run:       never"), "{status}");
}

#[test]
fn a_hot_run_prints_its_columns_and_leaves_its_artifacts() {
    let bench = Bench::new();
    let home = &bench.home;
    let regime = home.run(["schedule", "run", "regime.refresh"]).ok();
    assert!(regime.out.contains("✅ Job 'regime.refresh' completed successfully"), "{regime:?}");
    assert!(regime.out.contains("Artifacts: 1 files"), "{regime:?}");
    let ran = home.run(["schedule", "run", "scan.hot"]).ok();
    for words in [
        "Regime: ",
        "/3 Healthy",
        "| Lat ",
        "[Fresh ",
        "[Depth ",
        "[Sources ",
        "✅ Job 'scan.hot' completed successfully",
        "Duration: ",
        "Artifacts: 3 files",
    ] {
        assert!(ran.out.contains(words), "`{words}` in {}", ran.out);
    }
    // What it says it wrote is there, and `latest` leads to it.
    let paths: Vec<&str> =
        ran.out.lines().filter_map(|l| l.trim().strip_prefix("artifacts/signals/")).collect();
    assert_eq!(paths.len(), 3, "{}", ran.out);
    for path in &paths {
        assert!(bench.signals().join(path).is_file(), "{path}");
    }
    let latest = fs::read_link(bench.signals().join("latest")).expect("a link");
    assert_eq!(Some(latest.to_str().expect("text")), paths[0].split('/').next());
    let runs = published(&bench.signals());
    assert_eq!(runs.len(), 2);
    assert!(runs[1].join("signals.csv").is_file() && runs[0].join("regime.json").is_file());
    for file in ["signals.csv.json", "explain.schema.json", "regime.schema.json"] {
        assert!(home.data().join("artifacts/schemas/v1").join(file).is_file(), "{file}");
    }
    // Every symbol of the universe has its gates, and its reason.
    let explain = fs::read_to_string(runs[1].join("explain.json")).expect("a file");
    let explain: Value = serde_json::from_str(&explain).expect("JSON");
    let all = explain["explanations"].as_array().expect("a list");
    assert_eq!(all.len(), 30);
    for e in all {
        let symbol = e["symbol"].as_str().expect("a name");
        let told = home.run(["scan", "explain", symbol]).ok().out;
        assert!(told.starts_with(symbol), "{told}");
        assert!(told.contains(e["reason"].as_str().expect("a reason")), "{told}");
    }
    let status = home.run(["schedule", "status", "--json"]).ok().json();
    assert_eq!(status["jobs"][0]["runs"], 1);
    assert!(status["regime"].as_str().expect("a regime").contains("old)"), "{status}");
    home.run(["db", "check"]).ok();
}

#[test]
fn a_node_runs_jobs_on_command_also_those_that_no_clock_starts() {
    let bench = Bench::new();
    let off = FOUNDING.replacen("enabled: true", "enabled: false", 1);
    fs::write(bench.home.path().join("config/scheduler.yaml"), off).expect("jobs");
    let mut node = bench.home.spawn(["schedule", "start", "--http-port", "0"]);
    node.wait_for("watchbell is up");
    let listed = bench.home.run(["schedule", "list"]).ok().out;
    assert!(listed.contains("scan.hot             */15 * * * *    disabled"), "{listed}");
    let status = bench.home.run(["schedule", "status"]).ok().out;
    for line in ["Running:        true (http", "Jobs Enabled:   2", "Jobs Disabled:  1"] {
        assert!(status.contains(line), "{line} in {status}");
    }
    let args = ["schedule", "run", "scan.hot", "--progress", "json"];
    let ran = bench.home.run(args).ok();
    assert!(ran.out.contains("Artifacts: 3 files"), "{}", ran.out);
    let events: Vec<Value> =
        ran.err.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |event: Option<&Value>| event.map(|e| e["status"].clone());
    assert_eq!(of(events.first()), Some("start".into()), "{}", ran.err);
    assert_eq!(of(events.last()), Some("success".into()), "{}", ran.err);
    assert_eq!(published(&bench.signals()).len(), 1);
    assert!(node.terminate().success());
}

#[test]
fn a_dry_run_of_each_job_touches_nothing() {
    let bench = Bench::new();
    for job in ["scan.hot", "scan.warm", "regime.refresh"] {
        let dry = bench.home.run(["schedule", "run", job, "--dry-run"]).ok().out;
        assert!(dry.contains("(dry-run)"), "{dry}");
        assert!(!bench.home.data().exists(), "nothing was made by {job}");
    }
    bench.home.run(["schedule", "run", "scan.hot"]).ok();
    let before = published(&bench.signals());
    let asked: u64 = bench.sims.iter().map(|s| s.journal().last()).sum();
    for job in ["scan.hot", "scan.warm", "regime.refresh"] {
        bench.home.run(["schedule", "run", job, "--dry-run"]).ok();
    }
    assert_eq!(published(&bench.signals()), before);
    assert_eq!(bench.sims.iter().map(|s| s.journal().last()).sum::<u64>(), asked);
}

#[test]
fn a_failed_run_says_so_exits_with_1_and_leaves_no_directory() {
    let bench = Bench::new();
    bench.faults("*:down");
    let failed = bench.home.run(["schedule", "run", "scan.hot"]);
    assert_eq!(failed.code(), 1, "{failed:?}");
    assert!(failed.err.contains("❌ Job 'scan.hot' failed: "), "{failed:?}");
    assert!(failed.err.contains("kraken"), "{failed:?}");
    assert!(published(&bench.signals()).is_empty());
    let unknown = bench.home.run(["schedule", "run", "scan.hott"]);
    assert_eq!(unknown.code(), 2);
    assert!(unknown.err.contains("job not found: scan.hott"), "{unknown:?}");
    assert!(unknown.err.contains("did you mean `scan.hot`?"), "{unknown:?}");
}

#[test]
fn a_file_of_jobs_that_is_wrong_is_refused_with_the_place() {
    for (from, to, words) in [
        ("\"okx\"", "\"coingecko\"", "aggregator_forbidden: coingecko"),
        ("\"okx\"", "\"bitmex\"", "there is no venue `bitmex`"),
        ("*/15", "*/75", "75"),
        ("\"top30\"", "\"best\"", "`best` is not a universe"),
        ("\"scan.warm\"\n    schedule", "\"scan.hot\"\n    schedule", "two jobs `scan.hot`"),
        ("max_sample: 30", "max_sampel: 30", "did you mean `max_sample`?"),
        ("\"UTC\"", "\"Mars/Olympus\"", "Mars/Olympus"),
        ("type: \"regime.refresh\"", "type: \"regime\"", "unknown type `regime`"),
        ("artifacts/signals", "/tmp/signals", "`/tmp/signals` is not a directory of artifacts"),
    ] {
        let home = Home::new();
        let text = FOUNDING.replacen(from, to, 1);
        assert_ne!(text, FOUNDING);
        fs::create_dir(home.path().join("config")).expect("a directory");
        fs::write(home.path().join("config/scheduler.yaml"), text).expect("jobs");
        let refused = home.run(["schedule", "list"]);
        assert_eq!(refused.code(), 2, "{refused:?}");
        assert!(refused.err.contains("config/scheduler.yaml:"), "{}", refused.err);
        assert!(refused.err.contains(words), "`{words}` in {}", refused.err);
    }
}

#[test]
fn a_host_that_is_not_the_exchanges_own_is_refused_with_the_place() {
    let home = Home::new();
    let yaml = "scan:\n  venues:\n    kraken:\n      base_url: https://books.example.com\n";
    fs::write(home.path().join("watchbell.yaml"), yaml).expect("a configuration");
    let refused = home.run(["config", "check"]);
    assert_eq!(refused.code(), 2, "{refused:?}");
    for words in ["watchbell.yaml:4", "scan.venues.kraken.base_url", "is not a host of kraken"] {
        assert!(refused.err.contains(words), "`{words}` in {}", refused.err);
    }
}

#[test]
fn killed_at_any_moment_a_run_is_there_as_a_whole_or_not_at_all() {
    let seed = seed();
    eprintln!("WATCHBELL_KILL_SEED={seed}");
    let mut dice = Dice::new(seed);
    let bench = Bench::new();
    // The first run takes longest, and says how long that is.
    let watch = Stopwatch::start();
    bench.home.run(["schedule", "run", "scan.hot"]).ok();
    let whole = u64::try_from(watch.millis().0).expect("a duration");
    let over = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (over, signals) = (Arc::clone(&over), bench.signals());
        move || {
            let mut seen = 0_u64;
            while !over.load(Ordering::Acquire) {
                for dir in published(&signals) {
                    if let Some(wrong) = partial(&dir) {
                        return Err(wrong);
                    }
                    seen += 1;
                }
                std::thread::yield_now();
            }
            Ok(seen)
        }
    });
    for _ in 0..30 {
        let child = bench.home.spawn(["schedule", "run", "scan.hot"]);
        let (until, watch) = (dice.below(whole) as i64, Stopwatch::start());
        while watch.millis().0 < until {
            std::thread::yield_now();
        }
        child.kill();
    }
    over.store(true, Ordering::Release);
    let seen = reader.join().expect("no panic");
    assert!(seen.as_ref().is_ok_and(|n| *n > 0), "seed {seed}: {seen:?}");
    // What a kill has left between the move and the commit is cleared away, and all is in order.
    bench.home.run(["schedule", "run", "scan.hot"]).ok();
    let checked = bench.home.run(["db", "check", "--json"]);
    assert_eq!(checked.json()["problems"], Value::Array(Vec::new()), "seed {seed}: {checked:?}");
}
