//! Whole runs of the scans through the engine, against three simulated exchanges on the loopback:
//! without their limits, which shows what the machine takes, and with them, beside what they allow.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Parser;
use serde_json::Value;
use watchbell_bench::{Table, machine, median, progress, say};
use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::port::{SessionRecord, Store};
use watchbell_core::schedule::Cron;
use watchbell_core::{Definition, Millis, SessionId, Worker};
use watchbell_db::{Database, Options as DbOptions};
use watchbell_engine::{Options, Report, Unit, run_once};
use watchbell_scan::Config;
use watchbell_scan::config::{Job, Kind};
use watchbell_store::SqlStore;
use watchbell_venues::native::{NativeConfig, Venue};
use watchbell_venues::sim::{FaultScript, Market, VenueLimits, VenueSim, VenueSimConfig};

/// Measures whole runs of the scans.
#[derive(Debug, Parser)]
struct Args {
    /// Assets of the simulated market
    #[arg(long, default_value_t = 350)]
    assets: usize,
    /// How often the hot scan is repeated without limits; the middle is shown
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// Leaves the runs with the exchanges' limits out, which take minutes
    #[arg(long)]
    quick: bool,
}

/// An installation of the scans on a clock of its own.
struct Bench {
    store: Arc<dyn Store>,
    units: BTreeMap<&'static str, Arc<Unit>>,
    options: Options,
    clock: Clock,
    sims: BTreeMap<Venue, VenueSim>,
    config: Config,
    runs: u32,
    _dir: tempfile::TempDir,
}

fn jobs() -> anyhow::Result<Vec<Job>> {
    let never = Cron::parse("0 0 1 1 *", "UTC")?;
    let job = |kind: Kind| Job::new(kind.as_str(), kind, never.clone());
    Ok(Kind::ALL.map(job).into())
}

impl Bench {
    async fn new(assets: usize, limited: bool) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let dir = tempfile::tempdir()?;
        let market = Arc::new(Market::synthetic_universe(11, assets));
        let mut config = Config::new(jobs()?);
        let mut sims = BTreeMap::new();
        for venue in [Venue::Kraken, Venue::Okx, Venue::Coinbase] {
            let limits = if limited { VenueLimits::OfVenue } else { VenueLimits::none() };
            let sim = VenueSim::start(VenueSimConfig {
                venue,
                bind: ([127, 0, 0, 1], 0).into(),
                market: Arc::clone(&market),
                clock: clock.clone(),
                faults: FaultScript::default(),
                limits,
            })
            .await?;
            let own = NativeConfig { base_url: sim.base_url(), ..NativeConfig::of(venue) };
            let own = if limited {
                own
            } else {
                NativeConfig { rate_per_second: 100_000.0, burst: 100_000, ..own }
            };
            config.venues.insert(venue, own);
            sims.insert(venue, sim);
        }
        let db = Database::open(&DbOptions::new(dir.path().join("watchbell.db")))?;
        db.migrate(&[watchbell_store::LINE, watchbell_scan::LINE], clock.now()).await?;
        let store: Arc<dyn Store> = Arc::new(SqlStore::new(db.clone()));
        let workers = watchbell_scan::workers(&config, &db, &clock)?;
        let unit = |worker: &Arc<dyn Worker>| -> anyhow::Result<(&'static str, Arc<Unit>)> {
            let definition: Definition = worker.define();
            let kind = Kind::ALL.into_iter().find(|k| k.as_str() == definition.name.as_str());
            let kind = kind.context("a job of ours")?;
            Ok((kind.as_str(), Arc::new(Unit::new(definition, Arc::clone(worker)))))
        };
        let units = workers.iter().map(unit).collect::<anyhow::Result<_>>()?;
        let options = Options::new(dir.path());
        Ok(Self { store, units, options, clock, sims, config, runs: 0, _dir: dir })
    }

    /// One run through claim, computation, files and commit: how long it took, and its summary.
    async fn run(&mut self, job: &str) -> anyhow::Result<(Millis, Value)> {
        self.runs += 1;
        let session = SessionRecord {
            id: SessionId::from(format!("bench-{}", self.runs)),
            app_name: "bench".into(),
            app_version: String::new(),
            host: "localhost".into(),
            pid: i64::from(std::process::id()),
            opened_at: self.clock.now(),
            closed_at: None,
            note: String::new(),
        };
        let unit = self.units.get(job).context("a job")?;
        let (store, clock) = (Arc::clone(&self.store), self.clock.clone());
        let watch = Stopwatch::start();
        let report =
            run_once(store, clock, session, unit, None, Arc::default(), &self.options).await?;
        let took = watch.millis();
        match report {
            Report::Ran(ran) if ran.error.is_none() => Ok((took, ran.summary)),
            Report::Ran(ran) => bail!("{job} failed: {}", ran.error.unwrap_or_default()),
            other => bail!("{job} did not run: {other:?}"),
        }
    }

    /// Requests that each exchange has seen.
    fn asked(&self) -> BTreeMap<Venue, u64> {
        self.sims.iter().map(|(venue, sim)| (*venue, sim.journal().last())).collect()
    }

    /// The least time that the limits leave for so many more requests, of a bucket that is full.
    fn allowed(&self, before: &BTreeMap<Venue, u64>, share: f64, burst: Option<u32>) -> Millis {
        let seconds = self.asked().into_iter().map(|(venue, now)| {
            let config = self.config.venue(venue);
            let asked = (now - before.get(&venue).copied().unwrap_or(0)) as f64;
            let burst = f64::from(burst.unwrap_or(config.burst));
            ((asked - burst) / (config.rate_per_second * share)).max(0.0)
        });
        Millis((seconds.fold(0.0, f64::max) * 1_000.0) as i64)
    }
}

/// How long the computation took, of the summary's stages.
fn computed(summary: &Value) -> i64 {
    let stages = summary["stages"].as_array().into_iter().flatten();
    let pure = stages.filter(|s| s["stage"] == "analyze" || s["stage"] == "orthogonalize");
    pure.filter_map(|s| s["took_ms"].as_i64()).sum()
}

/// One line of the table.
fn row(table: &mut Table, name: &str, took: Millis, summary: &Value, allowed: Option<Millis>) {
    let least = allowed.map_or_else(|| "-".to_owned(), |a| a.0.to_string());
    let ratio = allowed.filter(|a| a.0 > 0);
    let ratio =
        ratio.map_or_else(|| "-".to_owned(), |a| format!("{:.2}", took.0 as f64 / a.0 as f64));
    let counts = &summary["counts"];
    table.row([
        &name,
        &summary["scanned"],
        &counts["fetched"],
        &counts["cached"],
        &took.0,
        &computed(summary),
        &least,
        &ratio,
    ]);
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    say(&machine())?;
    let mut table = Table::new(
        "whole runs of the scans, three simulated exchanges on the loopback",
        &[
            "run",
            "symbols",
            "fetched",
            "cached",
            "wall ms",
            "compute ms",
            "limits allow ms",
            "ratio",
        ],
    );
    let mut free = Bench::new(args.assets, false).await?;
    progress("without limits");
    let (took, summary) = free.run("scan.hot").await?;
    row(&mut table, "hot, nothing cached", took, &summary, None);
    let mut all = Vec::new();
    let mut last = Value::Null;
    for _ in 0..args.repeat.max(1) {
        let (took, summary) = free.run("scan.hot").await?;
        all.push(took.0 as f64);
        last = summary;
    }
    row(&mut table, "hot, bars known", Millis(median(&all) as i64), &last, None);
    let (took, summary) = free.run("regime.refresh").await?;
    row(&mut table, "regime", took, &summary, None);
    if !args.quick {
        let mut bound = Bench::new(args.assets, true).await?;
        for (name, job) in
            [("hot, limits, nothing cached", "scan.hot"), ("hot, limits, bars known", "scan.hot")]
        {
            progress(name);
            let before = bound.asked();
            let (took, summary) = bound.run(job).await?;
            let burst = if before.values().all(|n| *n == 0) { None } else { Some(0) };
            let allowed = bound.allowed(&before, 1.0, burst);
            row(&mut table, name, took, &summary, Some(allowed));
        }
    }
    table.print()?;
    Ok(())
}
