//! The contract, on a store in a temporary directory, with and without a node.

use std::sync::Mutex;

use watchbell_api::{RunOptions, Verdict as Compared, WindowRef};
use watchbell_core::gate::Verdict;
use watchbell_core::port::Outcome;
use watchbell_core::schedule::Cron;
use watchbell_core::window::State as WindowState;
use watchbell_core::{
    BoxError, Commit, Cover, Cycle, Done, Fault, Millis, NewJob, WindowHashes, WindowInput, values,
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
        let kinds = vec!["chore".to_owned()];
        let mut all: Vec<Arc<dyn Worker>> = [
            Definition::new(SYNC, every(Millis::from_secs(30))),
            Definition::new("nightly", Trigger::Cron(Cron::parse("30 2 * * *", "UTC").unwrap())),
            Definition::new("by-hand", Trigger::Manual),
            Definition::new("chores", Trigger::Queue { kinds, concurrency: 1 }).needs(SYNC),
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
    assert_eq!(status.store.schema, "market/1 runtime/1");
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

#[tokio::test]
async fn a_job_waits_for_its_worker_and_unknown_things_are_named() {
    let bed = Bed::new(false).await;
    let job = |kind| NewJob::new(kind, serde_json::Value::Null);
    let id = bed.store.enqueue(vec![job("chore"), job("nobody")], NOW).await.unwrap();
    let (chore, nobody) = (id[0].unwrap(), id[1].unwrap());
    let e = bed.control.explain(format!("job/{chore}")).await.unwrap();
    assert!(matches!(e.gates[0], Gate::Dependency { .. }), "{e}");
    assert_eq!(e.chain[0].subject, "worker chores");
    // What it needs in turn does not matter while no node runs.
    assert_eq!(e.chain[0].gates[0], Gate::NoNode);
    assert_eq!(e.chain[0].chain, []);
    let e = bed.control.explain(format!("job/{nobody}")).await.unwrap();
    assert!(matches!(e.gates[0], Gate::Unavailable { .. }), "{e}");
    assert_eq!(bed.control.job(chore).await.unwrap().kind, "chore");
    for (thing, near) in [
        ("nightyl", Some("nightly")),
        ("hours/x", None),
        ("huors/2026-11-22", Some(SERIES)),
        ("job/99", None),
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
    ] {
        *bed.hashes.lock().unwrap() = hashes;
        let reports = bed.control.verify(all.clone()).await.unwrap();
        assert!(reports.iter().all(|r| r.verdict == verdict), "{reports:?}");
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
