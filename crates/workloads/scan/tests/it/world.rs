//! A small installation: a database, simulated exchanges on the loopback, and the workers of the scans,
//! run one cycle at a time on virtual time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use watchbell_clock::Clock;
use watchbell_core::port::StoreError;
use watchbell_core::schedule::Cron;
use watchbell_core::{
    BoxFuture, Cause, Commit, Cycle, CycleId, CycleInput, Done, Fault, Host, Millis, Time, Token,
    Worker, values,
};
use watchbell_db::{Database, Engine};
use watchbell_scan::Config;
use watchbell_scan::config::{Job, Kind};
use watchbell_testkit::{NOW, TempDb};
use watchbell_venues::native::{NativeConfig, Venue};
use watchbell_venues::sim::{FaultScript, Market, VenueLimits, VenueSim, VenueSimConfig};

/// Assets of the simulated market.
const ASSETS: usize = 80;

/// The three jobs of the shipped file, over the exchanges that a test has.
fn jobs() -> Vec<Job> {
    Kind::ALL
        .map(|kind| {
            let schedule = match kind {
                Kind::Hot => "*/15 * * * *",
                Kind::Warm => "0 */2 * * *",
                Kind::Regime => "0 */4 * * *",
            };
            Job::new(kind.as_str(), kind, Cron::parse(schedule, "UTC").unwrap())
        })
        .into()
}

pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) sims: BTreeMap<Venue, VenueSim>,
    pub(crate) db: Database,
    pub(crate) config: Config,
    host: Arc<TestHost>,
    workers: Vec<Arc<dyn Worker>>,
    _files: TempDb,
}

/// What a run published: its summary, and its files by name.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) summary: serde_json::Value,
    pub(crate) files: BTreeMap<String, String>,
}

impl Ran {
    pub(crate) fn json(&self, file: &str) -> serde_json::Value {
        serde_json::from_str(&self.files[file]).unwrap()
    }

    /// The rows of a table, without its header.
    pub(crate) fn rows(&self, file: &str) -> Vec<Vec<String>> {
        let mut reader = csv::Reader::from_reader(self.files[file].as_bytes());
        reader.records().map(|r| r.unwrap().iter().map(str::to_owned).collect()).collect()
    }

    pub(crate) fn explanations(&self) -> Vec<serde_json::Value> {
        self.json("explain.json")["explanations"].as_array().unwrap().clone()
    }
}

impl World {
    /// Thirteen seconds past a whole hour, so that the last bars are final.
    pub(crate) async fn new(seed: u64) -> Self {
        Self::with(seed, |_| {}).await
    }

    pub(crate) async fn with(seed: u64, change: impl FnOnce(&mut Config)) -> Self {
        Self::on(Engine::Sqlite, seed, change).await
    }

    pub(crate) async fn on(engine: Engine, seed: u64, change: impl FnOnce(&mut Config)) -> Self {
        let clock = Clock::manual(NOW + Millis::from_secs(13));
        let market = Arc::new(Market::synthetic_universe(seed, ASSETS));
        let mut sims = BTreeMap::new();
        let mut config = Config::new(jobs());
        for venue in [Venue::Kraken, Venue::Okx, Venue::Coinbase] {
            let sim = VenueSim::start(VenueSimConfig {
                venue,
                bind: ([127, 0, 0, 1], 0).into(),
                market: Arc::clone(&market),
                clock: clock.clone(),
                faults: FaultScript::default(),
                limits: VenueLimits::none(),
            })
            .await
            .unwrap();
            // No request waits for its turn: virtual time stands still.
            let own = NativeConfig::of(venue);
            config.venues.insert(
                venue,
                NativeConfig {
                    base_url: sim.base_url(),
                    rate_per_second: 1_000.0,
                    burst: 5_000,
                    retries: 0,
                    daily_budget: 1_000_000,
                    monthly_budget: 10_000_000,
                    ..own
                },
            );
            sims.insert(venue, sim);
        }
        change(&mut config);
        let lines = [watchbell_store::LINE, watchbell_scan::LINE];
        let files = match engine {
            Engine::Sqlite => TempDb::sqlite(&lines).await,
            Engine::Postgres => TempDb::postgres(&lines).await,
        };
        let db = files.db.clone();
        let host = Arc::new(TestHost {
            db: db.clone(),
            clock: clock.clone(),
            stage: tempfile::tempdir().unwrap(),
            rehearsal: Mutex::new(false),
            stopped: watch::Sender::new(false),
            told: Mutex::default(),
        });
        let workers = watchbell_scan::workers(&config, &db, &clock).unwrap();
        Self { clock, sims, db, config, host, workers, _files: files }
    }

    /// The same installation after a restart of its process.
    pub(crate) fn restart(&mut self) {
        self.workers = watchbell_scan::workers(&self.config, &self.db, &self.clock).unwrap();
    }

    pub(crate) fn pass(&self, span: Millis) {
        self.clock.advance(self.clock.now() + span);
    }

    /// Asks whatever runs to stop.
    pub(crate) fn stop(&self) {
        self.host.stopped.send_replace(true);
    }

    pub(crate) fn faults(&self, venue: Venue, script: &str) {
        self.sims[&venue].set_faults(script.parse().unwrap());
    }

    /// Requests that an exchange has seen, by the part of their path before any query.
    pub(crate) fn requests(&self, venue: Venue) -> Vec<String> {
        let all = self.sims[&venue].journal().after(0);
        all.into_iter().map(|e| e.target).collect()
    }

    async fn cycle(&self, name: &str) -> Result<Done, Fault> {
        let worker = self.workers.iter().find(|w| w.define().name.as_str() == name).unwrap();
        let cycle = Cycle {
            id: CycleId(1),
            worker: name.into(),
            cause: Cause::Manual,
            token: Token(1),
            attempt: 1,
            started_at: self.clock.now(),
            input: CycleInput::None,
            host: Arc::clone(&self.host) as Arc<dyn Host>,
        };
        let run = worker.run(&cycle);
        tokio::pin!(run);
        loop {
            // Who asks slowly waits for its turn, and a slow answer takes its time: that passes. The
            // time limits of requests, which are longer, do not.
            tokio::select! {
                biased;
                ended = &mut run => return ended,
                at = self.clock.next_timer(self.clock.now()) => {
                    if at - self.clock.now() < Millis::from_secs(5) {
                        self.clock.advance(at);
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// One run of a job, published.
    pub(crate) async fn run(&self, name: &str) -> Ran {
        let done = self.cycle(name).await.unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let staged = &done.artifacts[0].staged;
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(staged).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            files.insert(file, std::fs::read_to_string(&path).unwrap());
        }
        self.db.apply(done.commit.statements).await.unwrap();
        Ran { summary: done.summary, files }
    }

    /// One run that fails, and why.
    pub(crate) async fn fails(&self, name: &str) -> String {
        match self.cycle(name).await {
            Ok(done) => panic!("{name} ran: {}", done.summary),
            Err(fault) => fault.to_string(),
        }
    }

    /// What a dry run says.
    pub(crate) async fn rehearse(&self, name: &str) -> Done {
        *self.host.rehearsal.lock().unwrap() = true;
        let done = self.cycle(name).await.unwrap();
        *self.host.rehearsal.lock().unwrap() = false;
        done
    }

    /// What progress said, in order.
    pub(crate) fn told(&self) -> Vec<String> {
        self.host.told.lock().unwrap().clone()
    }

    /// Rows of a table of the scans.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        let sql = match table {
            "runs" => "select count(*) from scan.runs",
            "verdicts" => "select count(*) from scan.verdicts",
            "regimes" => "select count(*) from scan.regimes",
            "bars" => "select count(*) from scan.bars",
            "v_runs" => "select count(*) from scan.v_runs",
            "v_signals" => "select count(*) from scan.v_signals",
            "v_rejections" => "select count(*) from scan.v_rejections",
            other => panic!("no query counts {other}"),
        };
        self.db.query_one(sql, values![]).await.unwrap().i64(0).unwrap()
    }
}

struct TestHost {
    db: Database,
    clock: Clock,
    stage: tempfile::TempDir,
    rehearsal: Mutex<bool>,
    stopped: watch::Sender<bool>,
    told: Mutex<Vec<String>>,
}

impl Host for TestHost {
    fn now(&self) -> Time {
        self.clock.now()
    }
    fn cancelled(&self) -> bool {
        *self.stopped.borrow()
    }
    fn until_cancelled(&self) -> BoxFuture<'_, ()> {
        let mut stopped = self.stopped.subscribe();
        // The sender lives as long as the host.
        Box::pin(async move { drop(stopped.wait_for(|stopped| *stopped).await) })
    }
    fn progress(&self, percent: f64, message: &str) {
        assert!((0.0..=100.0).contains(&percent), "{percent} %: {message}");
        self.told.lock().unwrap().push(message.to_owned());
    }
    fn step(&self, commit: Commit) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let applied = self.db.apply(commit.statements).await;
            applied.map(drop).map_err(|e| StoreError::Database(Box::new(e)))
        })
    }
    fn stage(&self) -> Result<PathBuf, std::io::Error> {
        Ok(tempfile::tempdir_in(self.stage.path())?.keep())
    }
    fn rehearsal(&self) -> bool {
        *self.rehearsal.lock().unwrap()
    }
}
