//! A node on a throw-away store under a clock that the test moves, and workers that do what a
//! script says. All instants in tests are seconds since [`T0`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;
use tokio::sync::Semaphore;
use watchbell_clock::Clock;
use watchbell_core::job::Kind;
use watchbell_core::lifecycle::Desired;
use watchbell_core::port::{
    EventQuery, Hearing, JobRecord, Queue as _, SessionRecord, Store, WindowQuery, WorkerRecord,
};
use watchbell_core::{
    BoxError, BoxFuture, Cause, Commit, Cover, Cycle, CycleInput, Definition, Done, Fault, Millis,
    NewArtifact, NewEvent, NewJob, QueueSpec, SessionId, Statement, Time, Trigger, WindowHashes,
    WindowInput, WindowSpec, Worker, WorkerName, values,
};
use watchbell_db::{Database, Line, Migration, Options as DbOptions, Synchronous};
use watchbell_engine::{Action, Effects, Handle, Node, Options, WorkerView};
use watchbell_store::SqlStore;

use crate::watched::{Flight, Watched};

/// Midnight: 2026-01-01T00:00:00Z.
pub(crate) const T0: Time = Time(1_767_225_600_000);
/// Real time within which everything settles; only a defect reaches it.
const PATIENCE: Millis = Millis::from_secs(30);

const NOTES: Line = Line {
    name: "notes",
    migrations: &[Migration {
        number: 1,
        name: "notes",
        sql: "create table scan.notes (id {id}, worker {text} not null, cause {text} not null)
              /*sqlite*/ strict /*end*/;",
    }],
};

pub(crate) fn at(secs: i64) -> Time {
    T0 + Millis::from_secs(secs)
}

pub(crate) fn secs(time: Time) -> i64 {
    (time - T0).0 / 1_000
}

pub(crate) fn every(secs: i64) -> Trigger {
    Trigger::Every { period: Millis::from_secs(secs), offset: Millis::ZERO }
}

/// Windows of a minute over the covers of `klines`.
pub(crate) fn series(name: &str) -> WindowSpec {
    WindowSpec {
        series: name.into(),
        length: Millis::from_secs(60),
        settle: Millis::from_secs(5),
        inputs: vec![WindowInput::Cover { source: "klines".into(), lookback: Millis::ZERO }],
        max_attempts: 3,
    }
}

/// Jobs of kind `k`.
pub(crate) fn queue(concurrency: u32, prefetch: u32) -> Trigger {
    Trigger::Queue(QueueSpec { kinds: vec![Kind::new("k")], concurrency, prefetch })
}

/// A job of kind `k` with a number as its payload.
pub(crate) fn job(n: i64) -> NewJob {
    NewJob::new("k", serde_json::json!(n))
}

/// What a cycle does.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Publishes a note.
    Write,
    /// Publishes nothing.
    Nothing,
    /// A fault that another attempt may cure.
    Fail,
    /// A fault that none can.
    Forbid,
    Panic,
    Snooze(i64),
    /// Goes on until it is asked to stop, and obeys.
    UntilCancelled,
    /// Goes on until it is asked to stop, and returns as if it had finished.
    UntilCancelledThenOk,
    /// Goes on until it is aborted.
    Deaf,
    /// Waits for [`Scripted::release`], whatever it is asked, and then acts.
    Held(Box<Act>),
    /// Publishes this, and a note.
    Publish(Commit),
    /// Publishes so many notes in steps, then acts.
    Steps(usize, Box<Act>),
    /// Publishes an artifact of this name, and a note.
    Artifact(&'static str),
    /// Says how far it is, then acts.
    Progress(f64, Box<Act>),
}

impl Act {
    pub(crate) fn held() -> Self {
        Self::Held(Box::new(Self::Write))
    }
}

/// A worker that follows a script, and then does the same thing for ever.
pub(crate) struct Scripted {
    def: Definition,
    script: Mutex<VecDeque<Act>>,
    otherwise: Mutex<Act>,
    origin: Mutex<Option<Time>>,
    /// What it answers when asked for a scope, one after another; the last one stays.
    scopes: Mutex<VecDeque<Vec<String>>>,
    releases: Semaphore,
    journal: Arc<Journal>,
}

/// Who began and ended a cycle, in order: `a+`, `a-`.
#[derive(Debug)]
pub(crate) struct Journal {
    lines: Mutex<Vec<String>>,
    flight: Arc<Flight>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    fn note(&self, line: String) {
        lock(&self.lines).push(line);
        self.flight.mark();
    }
}

/// Says that a cycle ended, also when it is dropped.
struct Ended<'a>(&'a Scripted);
impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.journal.note(format!("{}-", self.0.def.name));
    }
}

impl Scripted {
    /// Answers these scopes in turn, and the last one from then on.
    pub(crate) fn scopes(&self, scopes: &[&[&str]]) {
        let owned = |keys: &&[&str]| keys.iter().map(|k| (*k).to_owned()).collect();
        *lock(&self.scopes) = scopes.iter().map(owned).collect();
    }

    pub(crate) fn name(&self) -> &WorkerName {
        &self.def.name
    }
    /// Appends to the script.
    pub(crate) fn script(&self, acts: impl IntoIterator<Item = Act>) -> &Self {
        lock(&self.script).extend(acts);
        self
    }
    /// What it does once the script is done.
    pub(crate) fn always(&self, act: Act) -> &Self {
        *lock(&self.otherwise) = act;
        self
    }
    /// Lets one held cycle go on.
    pub(crate) fn release(&self) {
        self.releases.add_permits(1);
    }
    pub(crate) fn begins_at(&self, origin: Time) {
        *lock(&self.origin) = Some(origin);
    }

    fn note(&self, cause: &Cause) -> Statement {
        Statement::new(
            "insert into scan.notes (worker, cause) values ($1, $2)",
            values![self.name(), cause_text(cause)],
        )
    }

    fn done(&self, cycle: &Cycle, mut commit: Commit) -> Done {
        commit.push(self.note(&cycle.cause));
        let mut done = Done::new(serde_json::json!({ "note": 1 }), commit);
        if let Cause::Window { series, start, .. } = &cycle.cause {
            done.window = Some(WindowHashes {
                inputs: format!("{series} {start}"),
                result: format!("result of {series} {start}"),
                source: "klines".into(),
            });
        }
        done
    }

    fn act<'a>(&'a self, act: Act, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(async move {
            match act {
                Act::Write => Ok(self.done(cycle, Commit::new())),
                Act::Nothing => Ok(Done::nothing()),
                Act::Fail => Err(Fault::transient("the venue answered 502")),
                Act::Forbid => Err(Fault::permanent("the symbol does not exist")),
                // Without the hook, which would print a trace for each.
                Act::Panic => std::panic::resume_unwind(Box::new("scripted")),
                Act::Snooze(s) => {
                    Err(Fault::Snooze { after: Millis::from_secs(s), why: "too early".into() })
                }
                Act::UntilCancelled => {
                    cycle.host.until_cancelled().await;
                    Err(Fault::Cancelled)
                }
                Act::UntilCancelledThenOk => {
                    cycle.host.until_cancelled().await;
                    Ok(Done::nothing())
                }
                Act::Deaf => std::future::pending().await,
                Act::Held(then) => {
                    self.releases.acquire().await.expect("never closed").forget();
                    self.act(*then, cycle).await
                }
                Act::Publish(commit) => Ok(self.done(cycle, commit)),
                Act::Steps(n, then) => {
                    for _ in 0..n {
                        cycle.step(Commit::new().with(self.note(&cycle.cause))).await?;
                    }
                    self.act(*then, cycle).await
                }
                Act::Progress(percent, then) => {
                    cycle.progress(percent, "so far");
                    self.act(*then, cycle).await
                }
                Act::Artifact(name) => {
                    let staged = cycle.host.stage()?;
                    std::fs::write(staged.join("model.bin"), "weights")?;
                    Ok(self.done(cycle, Commit::new()).artifact(NewArtifact::new(name, staged)))
                }
            }
        })
    }
}

impl Worker for Scripted {
    fn define(&self) -> Definition {
        self.def.clone()
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(async move {
            self.journal.note(match &cycle.input {
                CycleInput::Event(e) => format!("{}+{}", self.name(), e.kind),
                CycleInput::Job { payload, .. } => format!("{}+{payload}", self.name()),
                _ => format!("{}+", self.name()),
            });
            let _ended = Ended(self);
            let next = lock(&self.script).pop_front();
            let act = next.unwrap_or_else(|| lock(&self.otherwise).clone());
            self.act(act, cycle).await
        })
    }

    fn scope<'a>(&'a self, _start: Time) -> BoxFuture<'a, Result<Vec<String>, BoxError>> {
        let mut scopes = lock(&self.scopes);
        let scope = if scopes.len() > 1 { scopes.pop_front() } else { scopes.front().cloned() };
        Box::pin(async move { Ok(scope.unwrap_or_default()) })
    }

    fn first_window<'a>(&'a self, from: Time) -> BoxFuture<'a, Result<Option<Time>, BoxError>> {
        let origin = *lock(&self.origin);
        Box::pin(async move { Ok(origin.map(|o| o.max(from))) })
    }
}

/// A booted node.
pub(crate) struct Boot {
    pub(crate) node: Node,
    pub(crate) handle: Handle,
    pub(crate) store: Arc<Watched>,
}

/// A store, a clock, and the workers of a test.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) db: Database,
    pub(crate) store: Arc<Watched>,
    pub(crate) flight: Arc<Flight>,
    pub(crate) clock: Clock,
    pub(crate) options: RefCell<Options>,
    journal: Arc<Journal>,
    boots: Cell<u32>,
    /// How nodes that share the store hear each other.
    pub(crate) hearing: Cell<Hearing>,
}

impl World {
    /// An empty store at [`T0`].
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut options = DbOptions::new(dir.path().join("watchbell.db"));
        options.synchronous = Synchronous::Off;
        options.readers = 1;
        let db = Database::open(&options).expect("a new database");
        db.migrate(&[watchbell_store::LINE, NOTES], T0).await.expect("migrations apply");
        let flight = Arc::new(Flight::default());
        let store = Watched::new(SqlStore::new(db.clone()), Arc::clone(&flight));
        Self {
            db,
            store: Arc::new(store),
            clock: Clock::manual(T0),
            options: RefCell::new(Options::new(dir.path())),
            journal: Arc::new(Journal { lines: Mutex::default(), flight: Arc::clone(&flight) }),
            flight,
            dir,
            boots: Cell::new(0),
            hearing: Cell::new(Hearing::Listening),
        }
    }

    /// A worker that writes a note each time.
    pub(crate) fn worker(&self, name: &str, trigger: Trigger) -> Arc<Scripted> {
        self.define(Definition::new(name, trigger))
    }

    pub(crate) fn define(&self, def: Definition) -> Arc<Scripted> {
        Arc::new(Scripted {
            def,
            script: Mutex::default(),
            otherwise: Mutex::new(Act::Write),
            origin: Mutex::new(Some(T0)),
            scopes: Mutex::new([vec!["BTC".to_owned()]].into()),
            releases: Semaphore::new(0),
            journal: Arc::clone(&self.journal),
        })
    }

    /// Starts a node as session `node-1`, `node-2`, ...
    pub(crate) async fn boot(&self, workers: &[&Arc<Scripted>]) -> Boot {
        let n = self.boots.get() + 1;
        self.boots.set(n);
        let session = session(&format!("node-{n}"), self.clock.now());
        let workers =
            workers.iter().map(|w| (w.define(), Arc::clone(w) as Arc<dyn Worker>)).collect();
        let options = self.options.borrow().clone();
        let hearing = if options.exclusive { Hearing::Alone } else { self.hearing.get() };
        let store = Arc::new(self.store.node(hearing));
        let node =
            Node::start(Arc::clone(&store) as _, self.clock.clone(), session, workers, options)
                .await
                .expect("the node starts");
        let handle = node.handle();
        self.settle().await;
        Boot { node, handle, store }
    }

    /// Stops a node, moving the clock as far as its graces ask for.
    pub(crate) async fn down(&self, boot: Boot) {
        drop(boot.handle);
        let ending = tokio::spawn(boot.node.shutdown("test over"));
        self.settle().await;
        while !ending.is_finished() {
            let next = self.next_timer().await.expect("a stopping node has a deadline");
            self.clock.advance(next);
            self.settle().await;
        }
        ending.await.expect("no panic").expect("the session closes");
    }

    /// Waits until only the clock can make something happen.
    pub(crate) async fn settle(&self) {
        let quiet = Clock::system().timeout(PATIENCE, self.flight.quiet()).await;
        quiet.expect("the engine settles");
    }

    async fn next_timer(&self) -> Option<Time> {
        let after = self.clock.now() + Millis(1);
        let next = tokio::select! {
            biased;
            next = self.clock.next_timer(after) => next,
            () = std::future::ready(()) => return None,
        };
        (next < Time::FAR_FUTURE).then_some(next)
    }

    /// Moves the clock to `secs` after [`T0`], stopping at each timer on the way.
    pub(crate) async fn run_to(&self, secs: i64) {
        let to = at(secs);
        while let Some(next) = self.next_timer().await.filter(|next| *next < to) {
            self.clock.advance(next);
            self.settle().await;
        }
        self.clock.advance(to);
        self.settle().await;
    }

    /// Moves the clock on by `secs`, stopping at each timer on the way.
    pub(crate) async fn run_for(&self, secs_on: i64) {
        let now = (self.clock.now() - T0).0;
        let to = now / 1_000 + secs_on;
        self.run_to(to).await;
    }

    /// Moves the clock at once, as for a machine that slept.
    pub(crate) async fn jump_to(&self, secs: i64) {
        self.clock.advance(at(secs));
        self.settle().await;
    }

    /// Stores that an operator wants it stopped, while no node runs.
    pub(crate) async fn want_stopped(&self, worker: &Scripted) {
        let stored = self.store.set_desired(worker.name(), Desired::Stopped, "ann", T0).await;
        stored.expect("a known worker");
    }

    pub(crate) async fn act(&self, boot: &Boot, worker: &Scripted, action: Action) {
        boot.handle.act(worker.name(), action, "ann").await.expect("the action is possible");
        self.settle().await;
    }

    /// Covers `klines` of BTC, as a sync would have done.
    pub(crate) async fn cover(&self, boot: &Boot, from: i64, to: i64) {
        self.cover_key(boot, "BTC", from, to).await;
    }

    pub(crate) async fn cover_key(&self, boot: &Boot, key: &str, from: i64, to: i64) {
        let statement = Statement::new(
            "insert into ops.covers (source, key, from_at, to_at) values ('klines', $1, $2, $3)
             on conflict (source, key, from_at) do update set to_at = excluded.to_at",
            values![key, at(from), at(to)],
        );
        self.db.apply(vec![statement]).await.expect("a cover");
        let effects = Effects { covers: ["klines".to_owned()].into(), ..Effects::default() };
        boot.handle.wake(effects);
        self.settle().await;
    }

    pub(crate) async fn emit(&self, boot: &Boot, kind: &str) -> i64 {
        let event = NewEvent {
            kind: kind.into(),
            key: "k".into(),
            dedupe: None,
            payload: serde_json::Value::Null,
        };
        let ids = self.store.emit(vec![event], self.clock.now()).await.expect("emitted");
        boot.handle.wake(Effects { events: [kind.to_owned()].into(), ..Effects::default() });
        self.settle().await;
        ids[0]
    }

    pub(crate) async fn enqueue(&self, boot: &Boot, job: NewJob) -> i64 {
        let kind = job.kind.clone();
        let ids = self.store.enqueue(vec![job], self.clock.now()).await.expect("enqueued");
        boot.handle.wake(Effects { jobs: [kind].into(), ..Effects::default() });
        self.settle().await;
        ids[0].id().expect("no unique key")
    }

    /// Adds jobs of kind `k` with these numbers, all at once.
    pub(crate) async fn enqueue_all(&self, boot: &Boot, numbers: std::ops::Range<i64>) -> Vec<i64> {
        let jobs = numbers.map(job).collect();
        let ids = self.store.enqueue(jobs, self.clock.now()).await.expect("enqueued");
        boot.handle.wake(Effects { jobs: ["k".to_owned()].into(), ..Effects::default() });
        self.settle().await;
        ids.into_iter().filter_map(|e| e.id()).collect()
    }

    // ---- facts ----------------------------------------------------------------------------

    /// Takes the journal: `a+ a- b+`.
    pub(crate) fn journal(&self) -> String {
        std::mem::take(&mut *lock(&self.journal.lines)).join(" ")
    }

    pub(crate) async fn view(&self, boot: &Boot, worker: &Scripted) -> WorkerView {
        let views = boot.handle.view().await;
        views.into_iter().find(|v| v.worker == *worker.name()).expect("a known worker")
    }

    pub(crate) async fn record(&self, worker: &Scripted) -> WorkerRecord {
        let all = self.store.workers().await.expect("workers");
        all.into_iter().find(|w| w.name == *worker.name()).expect("a registered worker")
    }

    /// States as stored, oldest first: `INITIALIZING RUNNING`.
    pub(crate) async fn life(&self, worker: &Scripted) -> String {
        let mut all = self.store.transitions(worker.name(), 1_000).await.expect("transitions");
        all.reverse();
        all.iter().map(|t| t.to.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// The ledger, oldest first: `60 fired`, `120..180 merged 2`, `240 skipped: gave way`.
    pub(crate) async fn ledger(&self, worker: &Scripted) -> Vec<String> {
        let mut all = self.store.occurrences(worker.name(), 10_000).await.expect("ledger");
        all.reverse();
        all.iter()
            .map(|o| {
                let why = o.reason.as_ref().map_or_else(String::new, |r| format!(": {r}"));
                match o.count {
                    1 => format!("{} {}{why}", secs(o.due), o.fate),
                    n => format!("{}..{} {} {n}{why}", secs(o.due), secs(o.through), o.fate),
                }
            })
            .collect()
    }

    /// Cycles, oldest first: `tick@60 succeeded`.
    pub(crate) async fn cycles(&self, worker: &Scripted) -> Vec<String> {
        let mut all = self.store.cycles(Some(worker.name()), 10_000).await.expect("cycles");
        all.reverse();
        all.iter().map(|c| format!("{} {}", cause_text(&c.cause), c.outcome)).collect()
    }

    /// Windows of a series in order of start and version: `0v1 complete`.
    pub(crate) async fn windows(&self, series: &str) -> Vec<String> {
        let query = WindowQuery {
            series: Some(series.into()),
            all_versions: true,
            limit: 10_000,
            ..WindowQuery::default()
        };
        let mut all = self.store.windows(query).await.expect("windows");
        all.sort_by_key(|w| (w.start, w.version));
        all.iter().map(|w| format!("{}v{} {}", secs(w.start), w.version, w.state)).collect()
    }

    /// Causes of the notes that are visible, in the order of their publication.
    pub(crate) async fn notes(&self) -> Vec<String> {
        let sql = "select worker || ' ' || cause from scan.notes order by id";
        let rows = self.db.query(sql, vec![]).await.expect("notes");
        rows.iter().map(|r| r.text(0).expect("text").to_owned()).collect()
    }

    pub(crate) async fn events(&self, kind: &str) -> Vec<String> {
        let query = EventQuery { after: Some(0), kinds: vec![kind.into()], limit: 10_000 };
        let all = self.store.events(query).await.expect("events");
        all.into_iter().map(|e| e.key).collect()
    }

    pub(crate) async fn job(&self, id: i64) -> JobRecord {
        self.store.job(id).await.expect("jobs").expect("a known job")
    }

    /// What is stored of a job: `queued 1` is its state and the attempts that counted.
    pub(crate) async fn state(&self, id: i64) -> String {
        let job = self.job(id).await;
        format!("{} {}", job.state, job.attempts)
    }

    /// Attempts of a job that did not succeed, oldest first: `failed cancelled`.
    pub(crate) async fn attempts(&self, id: i64) -> String {
        let all = self.store.attempts(id).await.expect("attempts");
        all.iter().map(|a| a.outcome.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// Every row of every table.
    pub(crate) async fn dump(&self) -> Vec<String> {
        let tables = "select name from sqlite_master where type = 'table' order by name";
        let mut lines = Vec::new();
        for table in self.db.query(tables, vec![]).await.expect("tables") {
            let table = table.text(0).expect("a name").to_owned();
            let sql = format!("select * from {table}");
            for row in self.db.query(sql, vec![]).await.expect("rows") {
                lines.push(format!("{table} {:?}", row.values()));
            }
        }
        lines
    }
}

/// One boot as it introduces itself.
pub(crate) fn session(id: &str, now: Time) -> SessionRecord {
    SessionRecord { id: SessionId::from(id), ..watchbell_testkit::session(id, now) }
}

pub(crate) fn cause_text(cause: &Cause) -> String {
    match cause {
        Cause::Tick { due } => format!("tick@{}", secs(*due)),
        Cause::Window { start, version, .. } => format!("window@{}v{version}", secs(*start)),
        Cause::Event { .. } | Cause::Job { .. } | Cause::Stream | Cause::Manual => {
            cause.kind().to_owned()
        }
    }
}

/// A cover of `klines` of BTC, for a commit.
pub(crate) fn klines(from: i64, to: i64) -> Cover {
    Cover { source: "klines".into(), key: "BTC".into(), from: at(from), to: at(to) }
}

impl World {
    /// States of all workers as the supervisor sees them, in the order of registration.
    pub(crate) async fn view_states(&self, handle: &Handle) -> Vec<String> {
        handle.view().await.iter().map(|v| v.state.to_string()).collect()
    }

    /// Note and end of the newest session.
    pub(crate) async fn last_session(&self) -> (String, Option<Time>) {
        let newest = self.store.sessions(1).await.expect("sessions").remove(0);
        (newest.note, newest.closed_at)
    }
}
