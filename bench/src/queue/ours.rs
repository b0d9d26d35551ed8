//! Watchbell itself: a node with one queue worker on a fresh store, fed by callers that share
//! nothing with it but the store (PostgreSQL) or the process (SQLite).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::job::{Kind, State};
use watchbell_core::port::{Enqueued, Queue as _};
use watchbell_core::trigger::QueueSpec;
use watchbell_core::{
    BoxFuture, Commit, Cycle, CycleInput, Definition, Done, Effects, Fault, Millis, NewJob,
    Statement, Trigger, Worker, WorkerName, values,
};
use watchbell_db::{Database, Line, Migration, Options as FileOptions, ServerOptions, Synchronous};
use watchbell_engine::{Action, Node, Options};
use watchbell_store::SqlStore;

use super::{AHEAD, CALLERS, PATIENCE, PER_CALL, Reading, SETTLE, Stamps, Starts, WARM_UP, pause};
use crate::candles::session;

/// The kind of every job.
const KIND: &str = "noop";
/// The worker that consumes it.
const WORKER: &str = "consumer";

/// The table that jobs with an effect write to.
const LINE: Line = Line {
    name: "bench",
    migrations: &[Migration {
        number: 1,
        name: "effects",
        sql: "create table ops.bench_effects (job {i64} primary key)",
    }],
};

/// Which store.
#[derive(Debug, Clone)]
pub enum Engine {
    /// The PostgreSQL database at this address.
    Server(String),
    /// A new SQLite file.
    File(Synchronous),
}

/// How the worker consumes.
#[derive(Debug, Clone, Copy)]
pub struct Consumer {
    /// Jobs that run at once.
    pub concurrency: u32,
    /// Jobs leased beyond those.
    pub prefetch: u32,
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Nothing.
    Nothing,
    /// Writes one row in its commit.
    OneRow,
}

/// A store of our own: as the node has it, and as callers have it.
#[derive(Debug)]
pub struct Site {
    db: Database,
    store: Arc<SqlStore>,
    callers: Arc<SqlStore>,
    alone: bool,
    stamps: Stamps,
    clock: Clock,
    dir: TempDir,
}

/// The worker under measurement.
struct Consume {
    work: Work,
    consumer: Consumer,
    starts: Arc<Starts>,
    stamps: Stamps,
}

impl Worker for Consume {
    fn define(&self) -> Definition {
        let schema = json!({
            "type": "object",
            "properties": { "i": { "type": "integer" }, "t": { "type": "integer" } },
            "required": ["i", "t"],
            "additionalProperties": false,
        });
        let spec = QueueSpec {
            kinds: vec![Kind::new(KIND).schema(schema)],
            concurrency: self.consumer.concurrency,
            prefetch: self.consumer.prefetch,
        };
        Definition::new(WORKER, Trigger::Queue(spec))
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(async move {
            let CycleInput::Job { payload, .. } = &cycle.input else {
                return Err(Fault::permanent("a cycle without a job"));
            };
            let number = |name: &str| payload.get(name).and_then(Json::as_i64).unwrap_or(0);
            self.starts.started(number("t"), &self.stamps);
            Ok(match self.work {
                Work::Nothing => Done::nothing(),
                Work::OneRow => {
                    let insert = "insert into ops.bench_effects (job) values ($1)";
                    let write = Statement::new(insert, values![number("i")]);
                    Done::new(Json::Null, Commit::new().with(write))
                }
            })
        })
    }
}

/// A node, and what its handlers tell.
struct Running {
    node: Node,
    starts: Arc<Starts>,
}

impl Site {
    /// Makes the store's tables in a fresh database.
    ///
    /// # Errors
    /// When the database fails; so all below.
    pub async fn open(engine: &Engine, stamps: Stamps, clock: &Clock) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
        let lines = [watchbell_store::LINE, LINE];
        let (db, callers, alone) = match engine {
            Engine::Server(url) => {
                let db = Database::connect(&ServerOptions::new(url)).await?;
                (db, Some(Database::connect(&ServerOptions::new(url)).await?), false)
            }
            Engine::File(synchronous) => {
                let path = dir.path().join("watchbell.db");
                let options = FileOptions { synchronous: *synchronous, ..FileOptions::new(path) };
                (Database::open(&options)?, None, true)
            }
        };
        db.migrate(&lines, clock.now()).await?;
        let store = Arc::new(SqlStore::listening(db.clone(), clock));
        let callers = callers
            .map_or_else(|| Arc::clone(&store), |db| Arc::new(SqlStore::listening(db, clock)));
        Ok(Self { db, store, callers, alone, stamps, clock: clock.clone(), dir })
    }

    /// Closes the store.
    ///
    /// # Errors
    /// When it does not close in order.
    pub async fn close(self) -> anyhow::Result<()> {
        if !self.alone {
            self.callers.database().close().await?;
        }
        Ok(self.db.close().await?)
    }

    fn job(&self, i: usize) -> NewJob {
        NewJob::new(KIND, json!({ "i": i, "t": self.stamps.micros() }))
    }

    /// Starts a node whose worker waits for [`Site::go`].
    async fn node(
        &self,
        work: Work,
        consumer: Consumer,
        starts: Arc<Starts>,
    ) -> anyhow::Result<Running> {
        let worker =
            Arc::new(Consume { work, consumer, starts: Arc::clone(&starts), stamps: self.stamps });
        let options = Options {
            exclusive: self.alone,
            profile: Some(std::collections::BTreeSet::new()),
            ..Options::new(self.dir.path())
        };
        let workers: Vec<(Definition, Arc<dyn Worker>)> = vec![(worker.define(), worker)];
        let node = Node::start(
            Arc::clone(&self.store) as Arc<_>,
            self.clock.clone(),
            session(self.clock.now()),
            workers,
            options,
        )
        .await?;
        Ok(Running { node, starts })
    }

    /// Tells the worker to run.
    async fn go(&self, running: &Running) -> anyhow::Result<()> {
        let worker = WorkerName::from(WORKER);
        let started = running.node.handle().act(&worker, Action::Start, "bench").await;
        started.map_err(anyhow::Error::msg)
    }

    /// Makes the kind known, as the first start of a node does.
    ///
    /// # Errors
    /// When the node does not start.
    pub async fn know_kind(&self, work: Work, consumer: Consumer) -> anyhow::Result<()> {
        let running = self.node(work, consumer, Starts::counting(1)).await?;
        Ok(running.node.shutdown("the kind is known").await?)
    }

    async fn expect(&self, state: State, jobs: usize) -> anyhow::Result<()> {
        let stats = self.store.queue_stats(self.clock.now()).await?;
        let count = stats.get(KIND).and_then(|s| s.counts.get(&state).copied()).unwrap_or(0);
        anyhow::ensure!(count == jobs as i64, "{count} jobs are {state}, expected {jobs}");
        Ok(())
    }

    /// Enqueues `jobs`, [`PER_CALL`] a call, and returns how many a second.
    ///
    /// # Errors
    /// Also when a job was not added or is not there.
    pub async fn bulk(&self, jobs: usize) -> anyhow::Result<f64> {
        let rate = self.enqueue(0, jobs).await?;
        self.expect(State::Queued, jobs).await?;
        Ok(rate)
    }

    /// Enqueues the jobs from `first` on, without a look at the store afterwards.
    pub(super) async fn enqueue(&self, first: usize, jobs: usize) -> anyhow::Result<f64> {
        let watch = Stopwatch::start();
        for from in (first..first + jobs).step_by(PER_CALL) {
            let call: Vec<NewJob> =
                (from..(from + PER_CALL).min(first + jobs)).map(|i| self.job(i)).collect();
            let asked = call.len();
            let added = self.callers.enqueue(call, self.clock.now()).await?;
            let added = added.iter().filter(|e| matches!(e, Enqueued::Added(_))).count();
            anyhow::ensure!(added == asked, "{added} of {asked} jobs were added");
        }
        Ok(jobs as f64 / watch.elapsed().as_secs_f64())
    }

    /// Enqueues `jobs`, one a call, by `callers` at once.
    ///
    /// # Errors
    /// Also when a job is not there.
    pub async fn one_by_one(&self, jobs: usize, callers: usize) -> anyhow::Result<f64> {
        let next = Arc::new(AtomicUsize::new(0));
        let watch = Stopwatch::start();
        let mut tasks = JoinSet::new();
        for _ in 0..callers {
            let (next, store) = (Arc::clone(&next), Arc::clone(&self.callers));
            let (stamps, clock) = (self.stamps, self.clock.clone());
            tasks.spawn(async move {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= jobs {
                        return Ok::<_, anyhow::Error>(());
                    }
                    let job = NewJob::new(KIND, json!({ "i": i, "t": stamps.micros() }));
                    store.enqueue(vec![job], clock.now()).await?;
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.context("a caller ended badly")??;
        }
        let rate = jobs as f64 / watch.elapsed().as_secs_f64();
        self.expect(State::Queued, jobs).await?;
        Ok(rate)
    }

    /// As [`one_by_one`](Self::one_by_one) with [`CALLERS`] callers.
    ///
    /// # Errors
    /// The same.
    pub async fn callers(&self, jobs: usize) -> anyhow::Result<f64> {
        self.one_by_one(jobs, CALLERS).await
    }

    /// Whether no job is queued or running.
    async fn is_empty(&self) -> anyhow::Result<bool> {
        let sql = "select count(*) from ops.jobs where state in ('queued', 'running')";
        let live = self.db.query_one(sql, vec![]).await?.i64(0)?;
        Ok(live == 0)
    }

    async fn until_empty(&self) -> anyhow::Result<()> {
        let give_up = self.clock.now() + PATIENCE;
        while !self.is_empty().await? {
            anyhow::ensure!(self.clock.now() < give_up, "jobs are left that do not end");
            self.clock.sleep(Millis(1)).await;
        }
        Ok(())
    }

    /// Runs all that is queued: from the start of the worker until the database shows none left.
    ///
    /// # Errors
    /// Also when a job ran twice, or not, or left no effect.
    pub async fn drain(&self, jobs: usize, work: Work, consumer: Consumer) -> anyhow::Result<f64> {
        let running = self.node(work, consumer, Starts::counting(jobs)).await?;
        let watch = Stopwatch::start();
        self.go(&running).await?;
        running.starts.reach(jobs, &self.clock).await?;
        self.until_empty().await?;
        let rate = jobs as f64 / watch.elapsed().as_secs_f64();
        let ran = running.starts.count();
        anyhow::ensure!(ran == jobs as u64, "{ran} jobs ran, expected {jobs}");
        running.node.shutdown("drained").await?;
        self.expect(State::Succeeded, jobs).await?;
        if work == Work::OneRow {
            let rows = self.db.query_one("select count(*) from ops.bench_effects", vec![]).await?;
            let rows = rows.i64(0)?;
            anyhow::ensure!(rows == jobs as i64, "{rows} effects of {jobs} jobs");
        }
        Ok(rate)
    }

    /// Enqueues jobs some milliseconds apart and tells how soon an idle node began each.
    ///
    /// # Errors
    /// Also when a job did not begin or did not end.
    pub async fn pick_up(&self, jobs: usize, consumer: Consumer) -> anyhow::Result<Reading> {
        let starts = Starts::timing(jobs + WARM_UP);
        let running = self.node(Work::Nothing, consumer, starts).await?;
        self.go(&running).await?;
        self.clock.sleep(Millis(1_500)).await;
        for i in 0..jobs + WARM_UP {
            self.callers.enqueue(vec![self.job(i)], self.clock.now()).await?;
            self.tell(&running);
            running.starts.reach(i + 1, &self.clock).await?;
            self.clock.sleep(pause(i)).await;
        }
        self.until_empty().await?;
        let late = running.starts.late(WARM_UP);
        running.node.shutdown("picked up").await?;
        self.expect(State::Succeeded, jobs + WARM_UP).await?;
        Ok(Reading::times(&late))
    }

    /// In one process, whoever writes beside the node tells it so; another process is heard by
    /// what it tells the server.
    fn tell(&self, running: &Running) {
        if self.alone {
            let jobs = [KIND.to_owned()].into();
            running.node.handle().wake(Effects { jobs, ..Effects::default() });
        }
    }

    /// Tells how late jobs begin that are due at one instant.
    ///
    /// # Errors
    /// Also when a job did not begin or did not end.
    pub async fn due_at_once(&self, jobs: usize, consumer: Consumer) -> anyhow::Result<Reading> {
        let running = self.node(Work::Nothing, consumer, Starts::timing(jobs)).await?;
        self.go(&running).await?;
        self.clock.sleep(Millis(500)).await;
        let due = self.clock.now() + AHEAD;
        let stamp = due.0 * 1_000;
        let call = (0..jobs).map(|i| NewJob::new(KIND, json!({ "i": i, "t": stamp })).at(due));
        self.callers.enqueue(call.collect(), self.clock.now()).await?;
        self.tell(&running);
        running.starts.reach(jobs, &self.clock).await?;
        self.until_empty().await?;
        let late = running.starts.late(0);
        running.node.shutdown("came due").await?;
        self.expect(State::Succeeded, jobs).await?;
        Ok(Reading::times(&late))
    }

    /// Runs `watch` beside an idle node that has settled.
    ///
    /// # Errors
    /// What `watch` returns.
    pub async fn beside_idle<T>(
        &self,
        consumer: Consumer,
        watch: impl AsyncFnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let running = self.node(Work::Nothing, consumer, Starts::counting(1)).await?;
        self.go(&running).await?;
        self.clock.sleep(if self.alone { Millis::from_secs(3) } else { SETTLE }).await;
        let seen = watch().await?;
        running.node.shutdown("idle").await?;
        Ok(seen)
    }

    /// Runs `jobs` that are enqueued as the node finishes them: at most `ahead` wait. After each
    /// share of `marks`, when all enqueued so far are done, `at` is called with the number done
    /// and the rate since the last mark.
    ///
    /// # Errors
    /// What `at` returns; also when a job ran twice or not.
    pub async fn flow(
        &self,
        jobs: usize,
        ahead: usize,
        consumer: Consumer,
        marks: &[f64],
        mut at: impl AsyncFnMut(usize, f64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let running = self.node(Work::Nothing, consumer, Starts::counting(jobs)).await?;
        self.go(&running).await?;
        let mut done = 0;
        for share in marks {
            let target = (jobs as f64 * share).round() as usize;
            let (watch, from) = (Stopwatch::start(), done);
            while done < target {
                let more = PER_CALL.min(target - done);
                self.enqueue(done, more).await?;
                done += more;
                running.starts.reach(done.saturating_sub(ahead), &self.clock).await?;
            }
            running.starts.reach(done, &self.clock).await?;
            self.until_empty().await?;
            let rate = (done - from) as f64 / watch.elapsed().as_secs_f64();
            at(done, rate).await?;
        }
        anyhow::ensure!(
            running.starts.count() == done as u64,
            "{} jobs ran, expected {done}",
            running.starts.count()
        );
        running.node.shutdown("flowed").await?;
        self.expect(State::Succeeded, done).await
    }

    /// The database, to count commits of.
    #[must_use]
    pub const fn database(&self) -> &Database {
        &self.db
    }

    /// Where its files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}
