//! The contract, on a store in a temporary directory, with and without a node.

use std::sync::Mutex;

use watchbell_api::{RunOptions, Verdict as Compared, WindowOptions, WindowRef};
use watchbell_core::gate::Verdict;
use watchbell_core::job::{self, Kind, Rate};
use watchbell_core::port::Outcome;
use watchbell_core::port::{
    Claim, ClaimRequest, Enqueued, JobAction, JobChange, JobClaim, JobFilter, Registration, Target,
};
use watchbell_core::schedule::Cron;
use watchbell_core::window::{Change, State as WindowState, Wish};
use watchbell_core::{
    BoxError, Commit, Cover, Cycle, Done, Fault, Millis, NewJob, QueueSpec, WindowHashes,
    WindowInput, values,
};
use watchbell_engine::Node;
use watchbell_store::SqlStore;
use watchbell_testkit::{NOW, TempDb, session, until};

use super::*;

const HOUR: Millis = Millis::from_hours(1);
const SERIES: &str = "hours";
const SYNC: &str = watchbell_market::MARKET_SYNC;

/// Finishes at once.
struct Simple(Definition);

impl Worker for Simple {
    fn define(&self) -> Definition {
        self.0.clone()
    }
    fn run<'a>(&'a self, _cycle: &'a Cycle) -> BoxFuture<'a, std::result::Result<Done, Fault>> {
        Box::pin(async { Ok(Done::new("done", Commit::new())) })
    }
}

/// Hours from `first` on, whose hashes a test may change.
struct Hours {
    first: Time,
    hashes: Arc<Mutex<(&'static str, &'static str)>>,
}

impl Worker for Hours {
    fn define(&self) -> Definition {
        let source = watchbell_market::KLINES.to_owned();
        let spec = WindowSpec {
            series: SERIES.into(),
            length: HOUR,
            settle: Millis::from_secs(2),
            inputs: vec![WindowInput::Cover { source, lookback: Millis::ZERO }],
            max_attempts: 2,
        };
        Definition::new("hourly", Trigger::Window(spec)).describe("Computes hours.")
    }
    fn run<'a>(&'a self, _cycle: &'a Cycle) -> BoxFuture<'a, std::result::Result<Done, Fault>> {
        Box::pin(async {
            let (inputs, result) = *self.hashes.lock().unwrap();
            if inputs == "removed" {
                let removed = watchbell_market::InputsRemoved { until: NOW };
                return Err(Fault::Permanent(Box::new(removed)));
            }
            if inputs == "fail" {
                return Err(Fault::permanent(result));
            }
            let window = WindowHashes {
                inputs: inputs.to_owned(),
                result: result.to_owned(),
                source: "klines".to_owned(),
            };
            Ok(Done { window: Some(window), ..Done::new("an hour", Commit::new()) })
        })
    }
    fn scope<'a>(&'a self, _: Time) -> BoxFuture<'a, std::result::Result<Vec<String>, BoxError>> {
        Box::pin(async { Ok(vec!["BTCUSDT".to_owned()]) })
    }
    fn first_window<'a>(
        &'a self,
        from: Time,
    ) -> BoxFuture<'a, std::result::Result<Option<Time>, BoxError>> {
        Box::pin(async move { Ok(Some(self.first.max(from).ceil(HOUR))) })
    }
}

struct Bed {
    temp: TempDb,
    clock: Clock,
    store: Arc<dyn Store>,
    hashes: Arc<Mutex<(&'static str, &'static str)>>,
    control: LocalControl,
    node: Option<Node>,
}

impl Bed {
    async fn new(with_node: bool) -> Self {
        let temp = TempDb::sqlite(&[watchbell_store::LINE, watchbell_market::LINE]).await;
        let clock = Clock::manual(NOW + Millis::from_secs(10));
        let store: Arc<dyn Store> = Arc::new(SqlStore::new(temp.db.clone()));
        let hashes = Arc::new(Mutex::new(("in", "out")));
        let every = |period| Trigger::Every { period, offset: Millis::ZERO };
        let chore = Kind::new("chore").schema(serde_json::json!({
            "type": "object",
            "properties": { "room": { "type": "string" } },
        }));
        let chores = QueueSpec { kinds: vec![chore], concurrency: 2, prefetch: 0 };
        let mut all: Vec<Arc<dyn Worker>> = [
            Definition::new(SYNC, every(Millis::from_secs(30))),
            Definition::new("nightly", Trigger::Cron(Cron::parse("30 2 * * *", "UTC").unwrap())),
            Definition::new("by-hand", Trigger::Manual),
            Definition::new("chores", Trigger::Queue(chores)).needs(SYNC),
        ]
        .into_iter()
        .map(|d| Arc::new(Simple(d)) as Arc<dyn Worker>)
        .collect();
        let first = NOW - HOUR * 3;
        all.push(Arc::new(Hours { first, hashes: Arc::clone(&hashes) }));
        let workers: Vec<_> = all.into_iter().map(|w| (w.define(), w)).collect();
        let options = Options::new(temp.dir());
        let boot = session("boot", clock.now());
        let (mut engine, mut node) = (None, None);
        if with_node {
            let started = Node::start(
                Arc::clone(&store),
                clock.clone(),
                boot.clone(),
                workers.clone(),
                options.clone(),
            )
            .await
            .unwrap();
            engine = Some(started.handle());
            node = Some(started);
        }
        let control = LocalControl::new(Parts {
            store: Arc::clone(&store),
            db: temp.db.clone(),
            clock: clock.clone(),
            workers,
            engine,
            softened: Vec::new(),
            elsewhere: false,
            session: with_node.then_some(boot),
            data_dir: temp.dir().to_owned(),
            profile: None,
            host: "testhost".to_owned(),
            venue: None,
            options,
        });
        Self { temp, clock, store, hashes, control, node }
    }

    /// Candles of the hours that are over, as the synchronisation would say.
    async fn cover(&self, until: Time) {
        let from = NOW - HOUR * 5;
        let source = watchbell_market::KLINES;
        let add = watchbell_core::Statement::new(
            "insert into ops.covers (source, key, from_at, to_at) values ($1, $2, $3, $4)
             on conflict (source, key, from_at) do update set to_at = excluded.to_at",
            values![source, "BTCUSDT", from, until],
        );
        self.temp.db.apply(vec![add]).await.unwrap();
        let covers = self.store.covers(source).await.unwrap();
        let expected = Cover { source: source.into(), key: "BTCUSDT".into(), from, to: until };
        assert_eq!(covers["BTCUSDT"], [expected]);
    }

    /// As a node does at its start.
    async fn register(&self) {
        let defs: Vec<_> = self.control.units.values().map(|u| registration(&u.def)).collect();
        self.store.register(&defs, NOW).await.unwrap();
    }

    /// A worker that this configuration does not have, with its kind.
    async fn register_elsewhere(&self, worker: &str, kind: Kind, at: Time) {
        let registration =
            Registration { kinds: vec![kind], ..watchbell_testkit::registration(worker) };
        self.store.register(&[registration], at).await.unwrap();
    }

    async fn enqueue(&self, job: NewJob) -> i64 {
        self.control.enqueue(vec![job]).await.unwrap()[0].id().unwrap()
    }

    /// Leases jobs, as the worker of another process.
    async fn lease(&self, kind: &str, most: u32) -> usize {
        let boot = session("other", NOW);
        if self.store.sessions(10).await.unwrap().iter().all(|s| s.id != boot.id) {
            self.store.open_session(boot.clone()).await.unwrap();
        }
        let claim = JobClaim {
            worker: "other".into(),
            session: boot.id,
            kinds: vec![kind.to_owned()],
            most,
            now: self.clock.now(),
            ttl: Millis::from_secs(30),
        };
        self.store.claim_jobs(claim).await.unwrap().grants.len()
    }

    async fn gates(&self, thing: &str) -> Vec<String> {
        let e = self.control.explain(thing.to_owned()).await.unwrap();
        e.gates.iter().map(ToString::to_string).collect()
    }

    async fn run(&self, worker: &str, options: RunOptions) -> Result<RunReport> {
        self.control.run(RunRequest { worker: worker.into(), options }).await
    }

    async fn compute(&self) -> RunReport {
        self.run("hourly", RunOptions::default()).await.unwrap()
    }
}

fn backfill(preview: bool, recompute: Option<&str>) -> BackfillRequest {
    BackfillRequest {
        series: Some(SERIES.into()),
        from: NOW - HOUR * 2 - Millis(1),
        to: NOW + HOUR * 9,
        preview,
        recompute: recompute.map(str::to_owned),
        by: "ada".to_owned(),
    }
}

#[tokio::test]
async fn a_status_without_a_node_is_complete() {
    let bed = Bed::new(false).await;
    bed.cover(NOW).await;
    assert_eq!(bed.compute().await.outcome, Outcome::Succeeded);
    let status = bed.control.status().await.unwrap();
    let names: Vec<&str> = status.workers.iter().map(|w| w.record.name.as_str()).collect();
    assert_eq!(names, ["by-hand", "chores", "hourly", SYNC, "nightly"]);
    assert_eq!(status.series[&SeriesName::from(SERIES)].counts[&WindowState::Complete], 1);
    assert_eq!(status.store.engine, "SQLite");
    let newest = |line: &watchbell_db::Line| format!("{}/{}", line.name, line.migrations.len());
    let schema = [newest(&watchbell_market::LINE), newest(&watchbell_store::LINE)].join(" ");
    assert_eq!(status.store.schema, schema);
    assert!(status.store.size_bytes > 0);
    assert!(!status.node.running);
    assert_eq!(status.venue, None);
    let texts: Vec<&str> = status.notices.iter().map(|n| n.text.as_str()).collect();
    assert_eq!(texts, ["no node runs here: what is shown is as the last one left it"]);
    assert!(!bed.control.ready().await.unwrap().ready);
    let detail = bed.control.worker("hourly".into()).await.unwrap();
    assert_eq!(detail.cycles.len(), 1);
    assert!(detail.definition.is_some());
    let health = bed.control.health("hourly".into()).await.unwrap();
    assert_eq!((health.status.as_str(), health.total_runs), ("succeeded", 1));
}

#[tokio::test]
async fn a_node_adds_what_it_knows() {
    let bed = Bed::new(true).await;
    bed.control.serving_at("http://127.0.0.1:1".to_owned());
    let running = |s: &Status| s.workers.iter().all(|w| w.record.state == State::Running);
    let status =
        until("all workers run", || async { bed.control.status().await.unwrap() }, running).await;
    assert_eq!(status.node.url.as_deref(), Some("http://127.0.0.1:1"));
    assert_eq!(status.notices, []);
    assert!(bed.control.ready().await.unwrap().ready);
    let act = |action| ActRequest { worker: "nightly".into(), action, by: "ada".to_owned() };
    let record = bed.control.act(act(Action::Pause)).await.unwrap();
    assert_eq!((record.desired, record.desired_by.as_deref()), (Desired::Paused, Some("ada")));
    let paused = bed.control.explain("nightly".to_owned()).await.unwrap();
    assert!(matches!(paused.gates[0], Gate::Desired { .. }), "{paused}");
    // The node refuses what it was told not to run.
    let refused = bed.run("nightly", RunOptions::default()).await.unwrap_err();
    assert_eq!(refused.exit_code(), 4);
    assert!(refused.reason().help.unwrap().contains("--force"));
    let forced = RunOptions { force: true, ..RunOptions::default() };
    let report = bed.run("nightly", forced).await.unwrap();
    assert_eq!(report.cycle.unwrap().outcome, Outcome::Succeeded);
    bed.node.unwrap().shutdown("test").await.unwrap();
}

#[tokio::test]
async fn a_wish_is_kept_without_a_node() {
    let bed = Bed::new(false).await;
    let act =
        |worker: &str, action| ActRequest { worker: worker.into(), action, by: "ada".to_owned() };
    let record = bed.control.act(act("by-hand", Action::Stop)).await.unwrap();
    assert_eq!(record.desired, Desired::Stopped);
    let refused = bed.run("by-hand", RunOptions::default()).await.unwrap_err();
    assert!(refused.to_string().contains("stopped by ada"), "{refused}");
    let record = bed.control.act(act("by-hand", Action::Restart)).await.unwrap();
    assert_eq!(record.desired, Desired::Running);
    bed.run("by-hand", RunOptions::default()).await.unwrap();
    let unknown = bed.control.act(act("by-hadn", Action::Stop)).await.unwrap_err();
    let ControlError::NotFound { suggestion, .. } = unknown else { panic!("{unknown}") };
    assert_eq!(suggestion.as_deref(), Some("by-hand"));
}

#[tokio::test]
async fn without_a_node_that_is_what_workers_wait_for() {
    let bed = Bed::new(false).await;
    let defs: Vec<_> = bed.control.units.values().map(|u| registration(&u.def)).collect();
    bed.store.register(&defs, NOW).await.unwrap();
    // As a node leaves them behind: stopped, or killed while it ran.
    let stopped = Gate::NotRunning { state: State::Stopped };
    bed.store.set_blocked(&"nightly".into(), Some(stopped), NOW).await.unwrap();
    let gave_up = Gate::GaveUp { since: None, error: Some("disk full".to_owned()) };
    bed.store.set_blocked(&"chores".into(), Some(gave_up), NOW).await.unwrap();
    let pause =
        ActRequest { worker: "by-hand".into(), action: Action::Pause, by: "ada".to_owned() };
    bed.control.act(pause).await.unwrap();
    let killed = watchbell_core::Statement::new(
        "update ops.workers set state = 'RUNNING', lease_owner = 'gone', lease_expires_at = $2
         where name = $1",
        values![SYNC, NOW],
    );
    bed.temp.db.apply(vec![killed]).await.unwrap();
    let waiting = async || -> BTreeMap<String, String> {
        let lines = bed.control.workers().await.unwrap().into_iter();
        lines.map(|l| (l.record.name.to_string(), l.waiting.unwrap_or_default())).collect()
    };
    let told = waiting().await;
    assert_eq!(told["nightly"], "no node runs");
    assert_eq!(told["hourly"], "no node runs");
    assert_eq!(told[SYNC], "no node runs");
    assert_eq!(told["chores"], "it failed too often to be restarted: disk full");
    assert!(told["by-hand"].starts_with("it was paused by ada"), "{told:?}");
    for worker in ["nightly", SYNC] {
        let e = bed.control.explain(worker.to_owned()).await.unwrap();
        assert_eq!((e.verdict, &e.gates[0]), (Verdict::Waiting, &Gate::NoNode), "{e}");
        assert!(e.to_string().contains("to clear it: start one with `watchbell up`"), "{e}");
    }
    // A lease that holds is the sign of a node elsewhere.
    let alive = watchbell_core::Statement::new(
        "update ops.workers set lease_expires_at = $2 where name = $1",
        values![SYNC, NOW + HOUR],
    );
    bed.temp.db.apply(vec![alive]).await.unwrap();
    assert_eq!(waiting().await[SYNC], "");
    let e = bed.control.explain(SYNC.to_owned()).await.unwrap();
    assert!(matches!(e.gates[0], Gate::LeaseHeld { .. }), "{e}");
}

#[tokio::test]
async fn a_missing_cover_leads_to_the_venue() {
    let bed = Bed::new(false).await;
    bed.cover(NOW - HOUR * 2).await;
    let defs: Vec<_> = bed.control.units.values().map(|u| registration(&u.def)).collect();
    bed.store.register(&defs, NOW).await.unwrap();
    let set = watchbell_core::Statement::new(
        "insert into ops.conditions (name, met, detail, until_at, changed_at)
         values ($1, 0, 'banned for too many requests', null, $2)",
        values![watchbell_market::VENUE, NOW],
    );
    bed.temp.db.apply(vec![set]).await.unwrap();
    bed.compute().await;
    let second = NOW - HOUR * 2;
    for thing in [SERIES.to_owned(), format!("{SERIES}/{second}"), format!("{SERIES}/{}", second.0)]
    {
        let e = bed.control.explain(thing).await.unwrap();
        assert_eq!(e.subject, format!("window {SERIES} {second}"));
        assert_eq!(e.verdict, Verdict::Waiting);
        assert!(matches!(e.gates[0], Gate::CoverMissing { .. }), "{e}");
        let behind = &e.chain[0];
        assert_eq!(behind.subject, format!("worker {SYNC}"));
        assert_eq!(behind.gates[0], Gate::NoNode);
        assert!(matches!(behind.gates[1], Gate::Condition { .. }), "{e}");
    }
    let third = bed.control.explain(format!("{SERIES}/{}", NOW - HOUR)).await.unwrap();
    assert!(matches!(third.gates[0], Gate::EarlierWindow { .. }), "{third}");
    assert!(matches!(third.chain[0].gates[0], Gate::CoverMissing { .. }), "{third}");
    assert_eq!(third.chain[0].chain[0].subject, format!("worker {SYNC}"));
    let done = bed.control.explain(format!("{SERIES}/{}", NOW - HOUR * 3)).await.unwrap();
    assert_eq!(done.verdict, Verdict::Done);
    let open = bed.control.explain(format!("{SERIES}/{NOW}")).await.unwrap();
    assert!(matches!(open.gates[0], Gate::WindowOpen { .. }), "{open}");
}

/// A series of hours that is made of others.
struct Made(Definition);

impl Worker for Made {
    fn define(&self) -> Definition {
        self.0.clone()
    }
    fn run<'a>(&'a self, _cycle: &'a Cycle) -> BoxFuture<'a, std::result::Result<Done, Fault>> {
        Box::pin(async { Ok(Done::new("done", Commit::new())) })
    }
    fn first_window<'a>(
        &'a self,
        from: Time,
    ) -> BoxFuture<'a, std::result::Result<Option<Time>, BoxError>> {
        Box::pin(async move { Ok(Some(from.max(NOW - HOUR * 3))) })
    }
}

#[tokio::test]
async fn a_window_that_looks_back_names_the_window_before_and_what_stands_behind_it() {
    let temp = TempDb::sqlite(&[watchbell_store::LINE, watchbell_market::LINE]).await;
    let store: Arc<dyn Store> = Arc::new(SqlStore::new(temp.db.clone()));
    let made = |series: &str, inputs: Vec<WindowInput>| {
        let spec = WindowSpec {
            series: series.into(),
            length: HOUR,
            settle: Millis::from_secs(2),
            inputs,
            max_attempts: 2,
        };
        let worker: Arc<dyn Worker> =
            Arc::new(Made(Definition::new(series, Trigger::Window(spec))));
        (worker.define(), worker)
    };
    let control = LocalControl::new(Parts {
        store,
        db: temp.db.clone(),
        clock: Clock::manual(NOW + Millis::from_secs(10)),
        workers: vec![
            made("voice", vec![WindowInput::Previous { series: "echo".into() }]),
            made("echo", vec![WindowInput::Settled { series: "voice".into() }]),
        ],
        engine: None,
        softened: Vec::new(),
        elsewhere: false,
        session: None,
        data_dir: temp.dir().to_owned(),
        profile: None,
        host: "testhost".to_owned(),
        venue: None,
        options: Options::new(temp.dir()),
    });
    let explain = async |thing: String| control.explain(thing).await.unwrap();
    let (first, second) = (NOW - HOUR * 3, NOW - HOUR * 2);
    // The first window waits for no other.
    let e = explain(format!("voice/{first}")).await;
    assert!(!e.gates.iter().any(|g| matches!(g, Gate::InputWindow { .. })), "{e}");
    let done = watchbell_core::Statement::new(
        "insert into ops.windows (series, start_at, version, end_at, state, inputs_hash, result_hash,
           source, finished_at) values ('voice', $1, 1, $2, 'complete', 'in', 'out', 'x', $2)",
        values![first, second],
    );
    temp.db.apply(vec![done]).await.unwrap();
    let e = explain(format!("voice/{second}")).await;
    assert_eq!(e.subject, format!("window voice {second}"));
    let missing = format!("it needs window echo {first}, which does not exist yet");
    assert_eq!(e.gates[0].to_string(), missing);
    assert_eq!(e.chain[0].subject, format!("window echo {first}"));
    assert_eq!(e.chain[0].gates[0], Gate::NoNode, "{e}");
    // The worker leads to its next window.
    let e = explain("voice".to_owned()).await;
    assert!(e.to_string().contains(&missing), "{e}");
}

fn chore(payload: serde_json::Value) -> NewJob {
    NewJob::new("chore", payload)
}

fn change(action: JobAction, filter: JobFilter) -> JobChange {
    JobChange { filter, action, limit: 100, preview: false, by: "ada".to_owned() }
}

#[tokio::test]
async fn a_job_waits_for_its_worker() {
    let bed = Bed::new(false).await;
    bed.register().await;
    bed.register_elsewhere("mailer", Kind::new("mail"), NOW - HOUR).await;
    let id = bed.enqueue(chore(serde_json::json!({}))).await;
    let e = bed.control.explain(format!("job/{id}")).await.unwrap();
    assert!(matches!(e.gates[0], Gate::Dependency { .. }), "{e}");
    assert_eq!(e.chain[0].subject, "worker chores");
    // What it needs in turn does not matter while no node runs.
    assert_eq!(e.chain[0].gates[0], Gate::NoNode);
    assert_eq!(e.chain[0].chain, []);
    // A kind whose worker has gone.
    let id = bed.enqueue(NewJob::new("mail", serde_json::Value::Null)).await;
    let gone = format!(
        "no worker on any node takes mail jobs: the last to do so was mailer, registered at {}",
        NOW - HOUR
    );
    assert_eq!(bed.gates(&format!("job/{id}")).await, [gone.as_str()]);
    assert_eq!(bed.gates("kind/mail").await, [gone.as_str()]);
    assert_eq!(bed.gates("mail").await, [gone.as_str()]);
    let detail = bed.control.job(id).await.unwrap();
    assert_eq!((detail.record.kind.as_str(), detail.attempts.len()), ("mail", 0));
    assert_eq!(detail.explanation.gates.len(), 1);
    let later = NewJob { run_at: Some(NOW + HOUR), ..chore(serde_json::json!({})) };
    let id = bed.enqueue(later).await;
    let e = bed.control.explain(format!("job/{id}")).await.unwrap();
    assert_eq!(e.gates[0], Gate::NotDue { until: NOW + HOUR });
}

#[tokio::test]
async fn a_job_says_which_limit_is_reached_and_who_holds_it() {
    let bed = Bed::new(false).await;
    let kind = Kind {
        concurrency: Some(2),
        per_key: Some(1),
        rate: Some(Rate { count: 2, per: Millis::from_mins(1) }),
        ..Kind::new("export")
    };
    // The worker of this configuration stands for it, so that only the limits are told.
    bed.register_elsewhere("exporter", kind, NOW).await;
    let job = |key: &str| NewJob {
        limit_key: Some(key.to_owned()),
        ..NewJob::new("export", serde_json::Value::Null)
    };
    let first = bed.enqueue(job("a")).await;
    let second = bed.enqueue(job("a")).await;
    let limits = async |id| {
        let all = bed.gates(&format!("job/{id}")).await;
        all.into_iter().filter(|g| g.contains("no more may")).collect::<Vec<_>>()
    };
    let picture = bed.control.picture().await.unwrap();
    let known = bed.store.kinds().await.unwrap();
    let reached = async |key| {
        let now = picture.now;
        let gates = bed.control.limits(&known[0].kind, key, now).await.unwrap();
        gates.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(reached(Some("a")).await, Vec::<String>::new());
    assert_eq!(bed.lease("export", 10).await, 1);
    assert_eq!(
        reached(Some("a")).await,
        ["1 export job of the key `a` is leased, and no more may be at once"]
    );
    assert_eq!(reached(Some("b")).await, Vec::<String>::new());
    bed.enqueue(job("b")).await;
    assert_eq!(bed.lease("export", 10).await, 1);
    let all = reached(Some("c")).await;
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(all[0], "2 export jobs are leased, and no more may be at once");
    assert_eq!(all[1], "2 export jobs began within 1m, and no more may");
    // The kind has no worker here: that is the whole reason.
    assert_eq!(limits(second).await, Vec::<String>::new());
    let e = bed.control.explain(format!("job/{first}")).await.unwrap();
    assert_eq!(e.verdict, Verdict::Running);
    assert!(matches!(&e.gates[..], [Gate::LeaseHeld { owner, .. }] if owner.as_str() == "other"));
    let detail = bed.control.job(first).await.unwrap();
    assert_eq!(detail.record.holder.unwrap().as_str(), "other");
}

#[tokio::test]
async fn a_node_is_woken_by_what_is_enqueued() {
    let bed = Bed::new(true).await;
    let done = async |id: i64, state: job::State| {
        let probe = || async { bed.control.job(id).await.unwrap().record.state };
        until("the job ends", probe, |s| *s == state).await;
    };
    let id = bed.enqueue(chore(serde_json::json!({ "room": "attic" }))).await;
    done(id, job::State::Succeeded).await;
    let wrong = bed
        .control
        .enqueue(vec![chore(serde_json::json!({})), chore(serde_json::json!({ "room": 7 }))])
        .await
        .unwrap_err();
    assert_eq!((wrong.http_status(), wrong.exit_code()), (422, 2));
    assert!(wrong.to_string().starts_with("jobs[1].payload.room: "), "{wrong}");
    // What is due later is run by an order.
    let later = NewJob { run_at: Some(NOW + HOUR), ..chore(serde_json::json!({})) };
    let id = bed.enqueue(later).await;
    let waits = bed.control.explain("kind/chore".to_owned()).await.unwrap();
    assert_eq!(waits.gates, [Gate::NotDue { until: NOW + HOUR }]);
    let filter = JobFilter { ids: vec![id], ..JobFilter::default() };
    let changed = bed.control.change_jobs(change(JobAction::RunNow, filter)).await.unwrap();
    assert_eq!((changed.matched, changed.changed), (1, 1));
    done(id, job::State::Succeeded).await;
    let status = bed.control.status().await.unwrap();
    let line = &status.queue[0];
    assert_eq!((line.kind.as_str(), line.count(job::State::Succeeded)), ("chore", 2));
    assert_eq!(line.worker.as_ref().map(WorkerName::as_str), Some("chores"));
    assert_eq!(line.unconsumed, None);
    let nodes: Vec<_> = status.nodes.iter().map(|n| n.session.id.as_str()).collect();
    assert_eq!(nodes, ["boot"]);
    let idle = bed.control.explain("kind/chore".to_owned()).await.unwrap();
    assert_eq!(idle.gates, [Gate::NothingQueued { kinds: vec!["chore".to_owned()] }]);
    bed.node.unwrap().shutdown("test").await.unwrap();
}

#[tokio::test]
async fn who_consumes_nothing_is_named() {
    let mut bed = Bed::new(false).await;
    bed.register().await;
    bed.register_elsewhere("mailer", Kind::new("mail"), NOW).await;
    bed.enqueue(NewJob::new("mail", serde_json::Value::Null)).await;
    bed.enqueue(chore(serde_json::json!({}))).await;
    // A session that was killed is no node.
    bed.store.open_session(session("killed", NOW)).await.unwrap();
    let status = bed.control.status().await.unwrap();
    assert_eq!(status.nodes, []);
    let lines: Vec<_> =
        status.queue.iter().map(|l| (l.kind.as_str(), l.unconsumed.as_deref())).collect();
    let gone = format!(
        "no worker on any node takes mail jobs: the last to do so was mailer, registered at {NOW}"
    );
    assert_eq!(lines, [("chore", Some("no node runs")), ("mail", Some(gone.as_str()))]);
    let texts: Vec<_> = status.notices.iter().map(|n| n.text.clone()).collect();
    assert_eq!(
        texts,
        [
            "no node runs here: what is shown is as the last one left it".to_owned(),
            format!("mail: 1 job queued, and nobody consumes them: {gone}"),
        ]
    );
    let pause = ActRequest { worker: "chores".into(), action: Action::Pause, by: "ada".to_owned() };
    bed.control.act(pause).await.unwrap();
    let queue = bed.control.queue().await.unwrap();
    assert_eq!(queue[0].unconsumed.as_deref(), Some("its worker chores was paused by ada"));
    // A node that cannot be told would not know of the job.
    bed.control.elsewhere = true;
    let nodes = bed.control.nodes().await.unwrap();
    assert_eq!(nodes.len(), 1);
    let refused = bed.control.enqueue(vec![chore(serde_json::json!({}))]).await.unwrap_err();
    assert_eq!(refused.exit_code(), 4);
    let all = change(JobAction::Cancel, JobFilter::default());
    let preview = JobChange { preview: true, ..all.clone() };
    assert_eq!(bed.control.change_jobs(preview).await.unwrap().matched, 2);
    assert_eq!(bed.control.change_jobs(all).await.unwrap_err().exit_code(), 4);
}

/// Of several nodes, one that started before the kind was last registered may be the one that did.
#[tokio::test]
async fn a_kind_may_be_consumed_by_another_node() {
    let bed = Bed::new(false).await;
    bed.register_elsewhere("mailer", Kind::new("mail"), NOW).await;
    let node = |opened_at, overdue| NodeRecord {
        session: session("helm", opened_at),
        seen_at: Some(NOW),
        overdue,
        skew: Some(Millis(-2_500)),
        round_trip: None,
        api: None,
        profile: "default".to_owned(),
        holds: Vec::new(),
        jobs: 0,
    };
    for (node, consumed) in [
        (node(NOW - HOUR, false), true),
        (node(NOW, false), true),
        (node(NOW + Millis(1), false), false),
        (node(NOW - HOUR, true), false),
    ] {
        let mut picture = bed.control.picture().await.unwrap();
        picture.any_node = true;
        // As that node says of it.
        picture.records.get_mut("mailer").unwrap().state = State::Running;
        picture.nodes.push(node.clone());
        let line = bed.control.queue_lines(&picture).await.unwrap().remove(0);
        assert_eq!(line.unconsumed.is_none(), consumed, "{node:?}");
        assert_eq!(line.worker.as_ref().map(WorkerName::as_str), Some("mailer"));
        let facts = notices::Facts {
            workers: &[],
            series: &BTreeMap::new(),
            queue: std::slice::from_ref(&line),
        };
        let told = bed.control.notices(&picture, facts, None).await.unwrap();
        let texts: Vec<&str> = told.iter().map(|n| n.text.as_str()).collect();
        assert!(texts[0].contains("node testhost (pid 1)"), "{texts:?}");
        let silent = texts.iter().any(|t| t.contains("has not been heard of"));
        assert_eq!(silent, node.overdue, "{texts:?}");
        let skewed = "the clock of node testhost (pid 1) is 2.5s ahead of the store's";
        assert!(texts.iter().any(|t| t.starts_with(skewed)), "{texts:?}");
    }
}

#[tokio::test]
async fn jobs_are_changed_by_filter_and_keys_keep_others_away() {
    let bed = Bed::new(false).await;
    bed.register().await;
    let keyed = || NewJob { unique_key: Some("k".to_owned()), ..chore(serde_json::json!({})) };
    let answers = bed.control.enqueue(vec![keyed(), keyed()]).await.unwrap();
    let id = answers[0].id().unwrap();
    assert_eq!(answers[1], Enqueued::Duplicate(Some(id)));
    let filter = JobFilter { unique_key: Some("k".to_owned()), ..JobFilter::default() };
    let done = bed.control.change_jobs(change(JobAction::Cancel, filter.clone())).await.unwrap();
    assert_eq!((done.matched, done.changed, done.asked), (1, 1, 0));
    let job = bed.control.job(id).await.unwrap();
    assert_eq!(job.record.state, job::State::Cancelled);
    assert_eq!(job.explanation.verdict, Verdict::Failed);
    let other = bed.enqueue(keyed()).await;
    let done = bed.control.change_jobs(change(JobAction::Redrive, filter.clone())).await.unwrap();
    assert_eq!((done.matched, done.changed), (1, 0));
    let ids = JobFilter { ids: vec![other], ..JobFilter::default() };
    bed.control.change_jobs(change(JobAction::Cancel, ids)).await.unwrap();
    let purged = bed.control.change_jobs(change(JobAction::Purge, filter)).await.unwrap();
    assert_eq!(purged.changed, 2);
    let all = JobQuery { limit: 10, ..JobQuery::default() };
    assert_eq!(bed.control.jobs(all).await.unwrap(), []);
}

#[tokio::test]
async fn whoever_waits_for_an_event_gets_it() {
    let bed = Bed::new(false).await;
    let query = || EventQuery { after: Some(0), kinds: vec!["a.*".to_owned()], limit: 10 };
    let minute = Millis::from_mins(1);
    assert_eq!(bed.control.next_events(query(), Millis::ZERO).await.unwrap(), []);
    let emit = |kind: &str| EmitRequest {
        kind: kind.to_owned(),
        key: String::new(),
        payload: serde_json::Value::Null,
    };
    let (events, ()) = tokio::join!(bed.control.next_events(query(), minute), async {
        bed.clock.next_timer(bed.clock.now()).await;
        bed.control.emit(emit("b.c")).await.unwrap();
        bed.control.emit(emit("a.b")).await.unwrap();
        bed.clock.advance(bed.clock.now() + Millis::from_secs(1));
    });
    let kinds: Vec<_> = events.unwrap().into_iter().map(|e| e.kind).collect();
    assert_eq!(kinds, ["a.b"]);
}

#[tokio::test]
async fn unknown_things_are_named() {
    let bed = Bed::new(false).await;
    bed.register().await;
    for (thing, near) in [
        ("nightyl", Some("nightly")),
        ("hours/x", None),
        ("huors/2026-11-22", Some(SERIES)),
        ("job/99", None),
        ("kind/chroe", Some("chore")),
        ("job/x", None),
    ] {
        let error = bed.control.explain(thing.to_owned()).await.unwrap_err();
        let found = match &error {
            ControlError::NotFound { suggestion, .. } => suggestion.as_deref(),
            _ => None,
        };
        assert_eq!(found, near, "{thing}: {error}");
        assert!([2, 3].contains(&error.exit_code()), "{thing}: {error}");
    }
}

#[tokio::test]
async fn a_backfill_is_aligned_previewed_and_stored() {
    let bed = Bed::new(false).await;
    bed.cover(NOW).await;
    bed.compute().await;
    let preview = bed.control.backfill(backfill(true, None)).await.unwrap();
    let line = &preview.series[0];
    // From the hour that holds the first instant to the end of the last one that is over.
    assert_eq!((line.from, line.to), (NOW - HOUR * 3, NOW));
    assert_eq!((line.windows, line.complete, line.to_compute), (3, 1, 2));
    assert_eq!((preview.records.len(), bed.control.backfills().await.unwrap().len()), (0, 0));
    let stored = bed.control.backfill(backfill(false, None)).await.unwrap();
    assert_eq!(stored.records, bed.control.backfills().await.unwrap());
    let again = bed.control.backfill(backfill(false, Some("new rules"))).await.unwrap();
    assert_eq!(again.series[0].to_compute, 3);
    let versions = bed.control.window(SERIES.into(), NOW - HOUR * 3).await.unwrap();
    assert_eq!(versions.iter().map(|w| w.version).collect::<Vec<_>>(), [1, 2]);
    let mut wrong = backfill(false, None);
    wrong.to = wrong.from;
    assert_eq!(bed.control.backfill(wrong).await.unwrap_err().exit_code(), 2);
    let notices = bed.control.status().await.unwrap().notices;
    assert!(notices.iter().any(|n| n.text.contains("backfill 1 from")), "{notices:?}");
}

#[tokio::test]
async fn windows_are_verified_by_both_hashes() {
    let bed = Bed::new(false).await;
    bed.cover(NOW).await;
    for _ in 0..3 {
        bed.compute().await;
    }
    let all = VerifyRequest::Range { series: None, from: None, to: None };
    for (hashes, verdict) in [
        (("in", "out"), Compared::Same),
        (("in", "other"), Compared::Different),
        (("changed", "out"), Compared::InputsChanged),
        (("removed", "out"), Compared::InputsRemoved),
    ] {
        *bed.hashes.lock().unwrap() = hashes;
        let reports = bed.control.verify(all.clone()).await.unwrap();
        assert!(reports.iter().all(|r| r.verdict == verdict), "{reports:?}");
        let good = matches!(verdict, Compared::Same | Compared::InputsRemoved);
        assert!(reports.iter().all(|r| r.verdict.is_good() == good), "{verdict:?}");
        let starts: Vec<Time> = reports.iter().map(|r| r.start).collect();
        assert_eq!(starts, [NOW - HOUR * 3, NOW - HOUR * 2, NOW - HOUR]);
    }
    // Nothing was written by any of it.
    let query = WindowQuery { all_versions: true, limit: 10, ..WindowQuery::default() };
    assert_eq!(bed.control.windows(query).await.unwrap().len(), 3);
    let one = |start| VerifyRequest::One { series: SERIES.into(), start };
    assert_eq!(bed.control.verify(one(NOW)).await.unwrap_err().exit_code(), 3);
    assert_eq!(bed.control.verify(one(NOW + Millis(1))).await.unwrap_err().exit_code(), 2);
}

fn steer(wish: Wish, start: Time, reason: Option<&str>) -> WindowRequest {
    let reason = reason.map(str::to_owned);
    let options = WindowOptions { reason, preview: false, by: "ada".to_owned() };
    WindowRequest { series: SERIES.into(), start, wish, options }
}

#[tokio::test]
async fn a_window_is_given_up_and_tried_again() {
    let bed = Bed::new(false).await;
    bed.cover(NOW - HOUR * 2).await;
    bed.register().await;
    bed.compute().await;
    let (done, stuck, later) = (NOW - HOUR * 3, NOW - HOUR * 2, NOW - HOUR);
    let change = async |request| bed.control.change_window(request).await;
    let refused = async |request| {
        let error = bed.control.change_window(request).await.unwrap_err();
        (error.exit_code(), error.to_string(), error.reason().help.unwrap_or_default())
    };
    let because = Some("the venue lost it");

    let (code, text, help) = refused(steer(Wish::Abandon, done, because)).await;
    assert_eq!(code, 4);
    assert!(text.contains("is complete, and a complete window never changes"), "{text}");
    assert!(help.contains("--recompute"), "{help}");
    let (code, text, _) = refused(steer(Wish::Abandon, stuck, Some("  "))).await;
    assert_eq!((code, text.as_str()), (2, "giving a window up needs a reason"));
    let (_, text, help) = refused(steer(Wish::Retry, stuck, None)).await;
    assert!(text.contains("has not failed: klines:1m of BTCUSDT"), "{text}");
    assert!(help.contains(&format!("watchbell explain {SERIES}/{stuck}")), "{help}");
    let (_, text, _) = refused(steer(Wish::Abandon, later, because)).await;
    assert!(
        text.contains(&format!("cannot be given up yet: {SERIES} {stuck} comes first")),
        "{text}"
    );
    let (_, text, _) = refused(steer(Wish::Abandon, NOW, because)).await;
    assert!(text.contains(&format!("is not over: it ends at {}", NOW + HOUR)), "{text}");
    let before_all = NOW - HOUR * 4;
    let (_, text, _) = refused(steer(Wish::Abandon, before_all, because)).await;
    assert!(text.contains("cannot be given up yet"), "{text}");

    let mut preview = steer(Wish::Abandon, stuck, because);
    preview.options.preview = true;
    let would = change(preview).await.unwrap();
    assert_eq!((would.change, would.before, would.after), (Change::GiveUp, None, None));
    assert_eq!(bed.store.window(&SERIES.into(), stuck).await.unwrap(), []);
    let gone = change(steer(Wish::Abandon, stuck, because)).await.unwrap();
    assert_eq!(gone.after.unwrap().reason.as_deref(), Some("abandoned by ada: the venue lost it"));
    let e = bed.control.explain(format!("{SERIES}/{stuck}")).await.unwrap();
    assert_eq!(e.verdict, Verdict::Failed);
    assert!(e.to_string().contains("abandoned by ada: the venue lost it"), "{e}");
    assert!(e.to_string().contains("watchbell window retry"), "{e}");
    // The series goes on.
    assert_eq!(bed.gates(SERIES).await.len(), 1);
    assert!(bed.gates(&format!("{SERIES}/{later}")).await[0].contains("klines:1m of BTCUSDT"));
    let (_, text, help) = refused(steer(Wish::Abandon, stuck, because)).await;
    assert!(text.contains("is abandoned already: abandoned by ada"), "{text}");
    assert!(help.contains("watchbell window retry"), "{help}");

    // Without its input it would hold up all that follow.
    let (_, text, help) = refused(steer(Wish::Retry, stuck, None)).await;
    assert!(text.contains("cannot be computed: klines:1m of BTCUSDT"), "{text}");
    assert!(help.contains("klines:1m of BTCUSDT is complete to"), "{help}");
    bed.cover(NOW).await;
    let again = change(steer(Wish::Retry, stuck, Some("it came"))).await.unwrap();
    assert_eq!((again.change, again.after.unwrap().version), (Change::Renew, 2));
    let (_, text, _) = refused(steer(Wish::Retry, stuck, None)).await;
    assert!(text.contains("has not failed"), "{text}");
    assert_eq!(bed.compute().await.outcome, Outcome::Succeeded);
    let versions = bed.control.window(SERIES.into(), stuck).await.unwrap();
    assert_eq!(
        versions.iter().map(|w| w.state).collect::<Vec<_>>(),
        [WindowState::Abandoned, WindowState::Complete]
    );
}

#[tokio::test]
async fn a_window_that_is_computed_says_by_whom() {
    let bed = Bed::new(false).await;
    bed.register().await;
    let start = NOW - HOUR * 3;
    let boot = session("other", bed.clock.now());
    bed.store.open_session(boot.clone()).await.unwrap();
    let claim = ClaimRequest {
        worker: "hourly".into(),
        session: boot.id.clone(),
        now: bed.clock.now(),
        ttl: Millis::from_secs(30),
        target: Target::Window {
            series: SERIES.into(),
            start,
            end: start + HOUR,
            version: 1,
            scope: vec!["BTCUSDT".to_owned()],
        },
        passed: Vec::new(),
    };
    let granted = bed.store.claim(claim).await.unwrap();
    assert!(matches!(granted, Claim::Granted(_)), "{granted:?}");
    for wish in Wish::ALL {
        let error = bed.control.change_window(steer(wish, start, Some("stuck"))).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("is being computed: cycle"), "{text}");
        assert!(text.contains("of hourly") && text.contains("other"), "{text}");
        assert!(error.reason().help.unwrap().contains("watchbell worker stop hourly"));
    }
    bed.clock.advance(bed.clock.now() + HOUR);
    let late = steer(Wish::Abandon, start, Some("stuck"));
    let text = bed.control.change_window(late).await.unwrap_err().to_string();
    assert!(text.contains("its lease has expired"), "{text}");
}

#[tokio::test]
async fn a_window_is_not_tried_again_in_vain() {
    let bed = Bed::new(false).await;
    bed.cover(NOW).await;
    bed.register().await;
    let start = NOW - HOUR * 3;
    let gone = bed.control.change_window(steer(Wish::Abandon, start, Some("x"))).await.unwrap();
    *bed.hashes.lock().unwrap() = ("fail", "28 of 30 candles");
    // Its covers are there, and it still cannot be computed.
    let error = bed.control.change_window(steer(Wish::Retry, start, None)).await.unwrap_err();
    assert!(error.to_string().contains("cannot be computed: 28 of 30 candles"), "{error}");
    let versions = bed.store.window(&SERIES.into(), start).await.unwrap();
    assert_eq!(versions, [gone.after.unwrap()]);
}

#[tokio::test]
async fn a_run_names_a_window_of_its_own_series() {
    let bed = Bed::new(false).await;
    bed.cover(NOW).await;
    let window = |series: &str, start| RunOptions {
        window: Some(WindowRef { series: series.into(), start }),
        ..RunOptions::default()
    };
    let report = bed.run("hourly", window(SERIES, NOW - HOUR * 3)).await.unwrap();
    assert_eq!(report.cycle.unwrap().outcome, Outcome::Succeeded);
    for (worker, options, code) in [
        ("hourly", window("days", NOW), 2),
        ("hourly", window(SERIES, NOW + Millis(1)), 2),
        ("hourly", window(SERIES, NOW), 4),
        ("hourly", window(SERIES, NOW - HOUR), 4),
        ("by-hand", window(SERIES, NOW), 2),
        ("nobody", RunOptions::default(), 3),
    ] {
        let error = bed.run(worker, options.clone()).await.unwrap_err();
        assert_eq!(error.exit_code(), code, "{worker} {options:?}: {error}");
    }
    let dry = RunOptions { dry_run: true, ..RunOptions::default() };
    let report = bed.run("hourly", dry).await.unwrap();
    assert!(report.dry_run.is_some() && report.cycle.is_none());
    assert_eq!(bed.run("chores", RunOptions::default()).await.unwrap().cycle, None);
}

#[tokio::test]
async fn events_have_dotted_lower_case_kinds() {
    let bed = Bed::new(false).await;
    for (kind, good) in [
        ("deploy.finished", true),
        ("a", true),
        ("a-b.c_2", true),
        ("", false),
        ("Deploy.finished", false),
        ("deploy..finished", false),
        ("deploy.", false),
        ("2.a", false),
        ("deploy finished", false),
    ] {
        let request = EmitRequest {
            kind: kind.to_owned(),
            key: String::new(),
            payload: serde_json::json!({ "n": 1 }),
        };
        let emitted = bed.control.emit(request).await;
        assert_eq!(emitted.is_ok(), good, "{kind}: {emitted:?}");
    }
    let query = EventQuery { limit: 10, ..EventQuery::default() };
    let kinds: Vec<_> =
        bed.control.events(query).await.unwrap().into_iter().map(|e| e.kind).collect();
    assert_eq!(kinds, ["deploy.finished", "a", "a-b.c_2"]);
}

#[tokio::test]
async fn schedules_look_ahead_and_say_why_they_rest() {
    let bed = Bed::new(false).await;
    bed.cover(NOW).await;
    bed.compute().await;
    let pause =
        ActRequest { worker: "nightly".into(), action: Action::Pause, by: "ada".to_owned() };
    bed.control.act(pause).await.unwrap();
    let lines = bed.control.schedules().await.unwrap();
    let names: Vec<&str> = lines.iter().map(|l| l.worker.as_str()).collect();
    assert_eq!(names, ["hourly", SYNC, "nightly"]);
    let (hourly, sync, nightly) = (&lines[0], &lines[1], &lines[2]);
    assert_eq!(hourly.next_due, [NOW + HOUR, NOW + HOUR * 2, NOW + HOUR * 3]);
    assert_eq!(hourly.last_due, Some(NOW - HOUR * 2));
    assert_eq!(hourly.last_fate.as_deref(), Some("complete"));
    let half = Millis::from_secs(30);
    assert_eq!(sync.next_due, [NOW + half, NOW + half * 2, NOW + half * 3]);
    assert!(sync.enabled && !nightly.enabled);
    assert_eq!(nightly.reason.as_deref(), Some("paused by ada"));
    assert_eq!(nightly.next_due.len(), 3);
    assert!(nightly.next_due[0] > bed.clock.now());
}

#[tokio::test]
async fn metrics_are_one_valid_text() {
    let bed = Bed::new(false).await;
    bed.cover(NOW).await;
    bed.compute().await;
    let text = bed.control.metrics().await.unwrap();
    for line in [
        "watchbell_windows{series=\"hours\",state=\"complete\"} 1\n",
        "watchbell_node_running 0\n",
        "# TYPE watchbell_klines_lag_seconds gauge\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    // The writer's counters, and the process where the system tells.
    let mut families = vec![
        ("watchbell_db_jobs_total", "counter"),
        ("watchbell_db_refused_total", "counter"),
        ("watchbell_db_commits_total", "counter"),
        ("watchbell_db_busy_total", "counter"),
        ("watchbell_db_max_batch", "gauge"),
        ("watchbell_db_queued", "gauge"),
    ];
    if std::path::Path::new("/proc/self/stat").exists() {
        families.push(("process_resident_memory_bytes", "gauge"));
        families.push(("process_cpu_seconds_total", "counter"));
    }
    let value = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|v| v.parse::<f64>().ok())
    };
    for (name, kind) in families {
        let head = format!("# TYPE {name} {kind}\n{name} ");
        assert!(text.contains(&head), "{head} is not in\n{text}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help in\n{text}");
        assert!(value(name).is_some_and(|v| v >= 0.0), "{name} has no value in\n{text}");
    }
    for name in ["watchbell_db_jobs_total", "watchbell_db_commits_total", "watchbell_db_max_batch"]
    {
        assert!(value(name) > Some(0.0), "nothing is counted in {name}:\n{text}");
    }
}

#[tokio::test]
async fn notices_put_what_is_lost_first() {
    let bed = Bed::new(false).await;
    bed.cover(NOW).await;
    bed.control.backfill(backfill(false, None)).await.unwrap();
    let lost = watchbell_core::Statement::new(
        "insert into ops.windows (series, start_at, version, end_at, state, attempts, error)
         values ($1, $2, 1, $3, 'abandoned', 2, 'failed 2 of 2 attempts')",
        values![SERIES, NOW - HOUR * 3, NOW - HOUR * 2],
    );
    bed.temp.db.apply(vec![lost]).await.unwrap();
    let notices = bed.control.status().await.unwrap().notices;
    let texts: Vec<&str> = notices.iter().map(|n| n.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "hours: 1 abandoned window, the newest 2026-11-22T00:00:00Z: failed 2 of 2 attempts",
            "no node runs here: what is shown is as the last one left it",
            "hours: backfill 1 from 2026-11-22T00:00:00Z to 2026-11-22T03:00:00Z is 0% done",
        ]
    );
    let e = bed.control.explain(format!("{SERIES}/{}", NOW - HOUR * 3)).await.unwrap();
    assert_eq!(e.verdict, Verdict::Failed);
}

/// The picture of a large store comes from a few statements.
#[tokio::test]
async fn a_status_of_many_windows_reads_none_of_them() {
    let bed = Bed::new(false).await;
    let add = watchbell_core::Statement::new(
        "insert into ops.windows (series, start_at, version, end_at, state)
         with recursive n(i) as (select 0 union all select i + 1 from n where i < 19999)
         select 'hours', i * 3600000, 1, (i + 1) * 3600000, 'open' from n",
        Vec::new(),
    );
    bed.temp.db.apply(vec![add]).await.unwrap();
    let watch = watchbell_clock::Stopwatch::start();
    let status = bed.control.status().await.unwrap();
    let took = watch.millis();
    assert_eq!(status.series[&SeriesName::from(SERIES)].counts[&WindowState::Open], 20_000);
    // It takes some 10 ms alone; the limit leaves room for a busy machine.
    assert!(took < Millis::from_secs(1), "the status took {took}");
}
