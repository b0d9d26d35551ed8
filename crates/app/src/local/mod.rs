//! [`Control`] where the installation is: over the store, and over the running node when this
//! process is one. What is stored comes from the store in both cases; a node adds what only it
//! knows, such as the gates of this moment and the progress of a cycle.

mod events;
mod explain;
mod metrics;
mod notices;
mod queue;
mod run;
mod status;
mod steer;
#[cfg(test)]
mod tests;
mod windows;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};

use watchbell_api::{
    ActRequest, Action, BackfillReport, BackfillRequest, Control, ControlError, EmitRequest,
    Emitted, JobDetail, NodeInfo, QueueLine, Readiness, ReadyCheck, Result, RunReport, RunRequest,
    ScheduleLine, Status, VerifyReport, VerifyRequest, WindowChanged, WindowRequest, WorkerDetail,
    WorkerHealth, WorkerLine, WorkersHealth,
};
use watchbell_clock::Clock;
use watchbell_core::gate::{Explanation, Gate};
use watchbell_core::graph::nearest;
use watchbell_core::lifecycle::{Desired, State};
use watchbell_core::port::{
    BackfillRecord, DeadLetter, Enqueued, EventQuery, Hearing, JobChange, JobChanged, JobQuery,
    JobRecord, KindRecord, NodeRecord, SessionRecord, Store, WindowQuery, WindowRecord,
    WorkerRecord,
};
use watchbell_core::{
    BoxFuture, Condition, Definition, EventRecord, Millis, NewJob, SeriesName, SessionId, Time,
    Token, Trigger, WindowSpec, Worker, WorkerName, freshness,
};
use watchbell_db::Database;
use watchbell_engine::{Handle, Options, Signals, Unit, WorkerView, registration};
use watchbell_venues::binance::BinanceClient;

use crate::installation::trouble;

/// Newest rows of each kind in the detail of a worker.
const HISTORY: u32 = 20;

/// What a [`LocalControl`] is made of.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) db: Database,
    pub(crate) clock: Clock,
    /// Every worker with its definition, the configuration's overrides applied.
    pub(crate) workers: Vec<(Definition, Arc<dyn Worker>)>,
    /// The node of this process.
    pub(crate) engine: Option<Handle>,
    /// Dependencies that the profile leaves out: who needs whom.
    pub(crate) softened: Vec<(WorkerName, WorkerName)>,
    /// Another process holds the data directory: a node without an API.
    pub(crate) elsewhere: bool,
    /// The boot of the node.
    pub(crate) session: Option<SessionRecord>,
    pub(crate) data_dir: PathBuf,
    pub(crate) profile: Option<String>,
    pub(crate) host: String,
    /// The venue and its address.
    pub(crate) venue: Option<(BinanceClient, String)>,
    pub(crate) options: Options,
}

/// Answers from the store, and from the node of this process when there is one.
pub(crate) struct LocalControl {
    store: Arc<dyn Store>,
    db: Database,
    clock: Clock,
    units: BTreeMap<WorkerName, Arc<Unit>>,
    engine: Option<Handle>,
    softened: Vec<(WorkerName, WorkerName)>,
    elsewhere: bool,
    session: Option<SessionRecord>,
    url: OnceLock<String>,
    data_dir: PathBuf,
    profile: Option<String>,
    host: String,
    venue: Option<(BinanceClient, String)>,
    options: Options,
    /// Cycles run without a node: each is a boot of its own.
    runs: AtomicU64,
    /// The newest of them, while it runs and after.
    alone: Mutex<Option<(WorkerName, Arc<Signals>)>>,
}

/// All workers at one moment: what is stored, with what the node knows laid over it.
struct Picture {
    now: Time,
    records: BTreeMap<WorkerName, WorkerRecord>,
    views: BTreeMap<WorkerName, WorkerView>,
    conditions: Vec<Condition>,
    nodes: Vec<NodeRecord>,
    /// Whether any node runs, here or elsewhere.
    any_node: bool,
}

impl Picture {
    fn state(&self, worker: &WorkerName) -> Option<State> {
        self.records.get(worker).map(|r| r.state)
    }
}

impl LocalControl {
    pub(crate) fn new(parts: Parts) -> Self {
        let units = parts.workers.into_iter().map(|(definition, worker)| {
            (definition.name.clone(), Arc::new(Unit::new(definition, worker)))
        });
        Self {
            units: units.collect(),
            store: parts.store,
            db: parts.db,
            clock: parts.clock,
            engine: parts.engine,
            softened: parts.softened,
            elsewhere: parts.elsewhere,
            session: parts.session,
            url: OnceLock::new(),
            data_dir: parts.data_dir,
            profile: parts.profile,
            host: parts.host,
            venue: parts.venue,
            options: parts.options,
            runs: AtomicU64::new(0),
            alone: Mutex::new(None),
        }
    }

    /// Says where the API answers, once that is known. The first address stays.
    pub(crate) fn serving_at(&self, url: String) {
        if self.url.set(url).is_err() {
            tracing::debug!("the address of the API was known already");
        }
    }

    /// The database below, for what reads the tables of a workload.
    pub(crate) fn db(&self) -> &Database {
        &self.db
    }

    /// Closes the store.
    ///
    /// # Errors
    /// The log could not be folded into the file; nothing is lost.
    pub(crate) async fn close(&self) -> Result<()> {
        self.db.close().await.map_err(|e| trouble(&e))
    }

    async fn picture(&self) -> Result<Picture> {
        let view = async {
            match &self.engine {
                Some(engine) => engine.view().await,
                None => Vec::new(),
            }
        };
        let now = self.clock.now();
        let (records, conditions, nodes, views) = tokio::join!(
            self.store.workers(),
            self.store.conditions(),
            self.running_nodes(now),
            view
        );
        let nodes = nodes?;
        let mut records: BTreeMap<_, _> =
            records?.into_iter().map(|r| (r.name.clone(), r)).collect();
        for (name, unit) in &self.units {
            if !records.contains_key(name) {
                records.insert(name.clone(), unregistered(&unit.def));
            }
        }
        for view in &views {
            if let Some(record) = records.get_mut(&view.worker) {
                lay_over(record, view);
            }
        }
        Ok(Picture {
            now,
            records,
            views: views.into_iter().map(|v| (v.worker.clone(), v)).collect(),
            conditions: conditions?.into_iter().map(|(c, _)| c).collect(),
            any_node: self.engine.is_some() || self.elsewhere || nodes.iter().any(|n| !n.overdue),
            nodes,
        })
    }

    /// Nodes on the store. Where there can be only one, nobody keeps watch over it: then a session
    /// that is open is a node only if it is this process's, or the directory is held.
    async fn running_nodes(&self, now: Time) -> Result<Vec<NodeRecord>> {
        let mut nodes = self.store.nodes(now).await?;
        if !self.is_shared() {
            nodes.retain(|n| self.elsewhere || self.is_own(&n.session.id));
            // The newest: those before it were killed.
            nodes.drain(..nodes.len().saturating_sub(1));
        }
        // It may not have told the store yet what it knows of itself.
        for own in nodes.iter_mut().filter(|n| self.is_own(&n.session.id)) {
            if own.profile.is_empty() {
                own.profile = self.profile.clone().unwrap_or_default();
            }
            own.api = own.api.take().or_else(|| self.url.get().cloned());
        }
        Ok(nodes)
    }

    /// Whether other nodes may be on the store.
    fn is_shared(&self) -> bool {
        self.store.hears() != Hearing::Alone
    }

    /// Refuses what a node that cannot be told would not know of before its next start.
    fn can_be_told(&self) -> Result<()> {
        if self.elsewhere && self.engine.is_none() && !self.is_shared() {
            return Err(ControlError::conflict(
                "a node runs here without its API, so it cannot be told",
            )
            .help("stop that node first, or start it without --no-http"));
        }
        Ok(())
    }

    fn is_own(&self, session: &SessionId) -> bool {
        self.session.as_ref().is_some_and(|own| own.id == *session)
    }

    /// Whether a node runs, as far as one can tell by a worker: this process is one, another
    /// session holds the worker's lease, or a node is heard of.
    fn node_runs(picture: &Picture, record: &WorkerRecord) -> bool {
        let held = record.lease_expires_at.is_some_and(|until| until > picture.now);
        picture.any_node || (held && record.lease_owner.is_some())
    }

    fn definition(&self, worker: &WorkerName) -> Option<&Definition> {
        self.units.get(worker).map(|u| &u.def)
    }

    fn unit(&self, worker: &WorkerName) -> Result<&Arc<Unit>> {
        self.units.get(worker).ok_or_else(|| {
            not_found("worker", worker.as_str(), self.units.keys().map(WorkerName::as_str))
        })
    }

    /// The window workers with their series.
    fn window_units(&self) -> impl Iterator<Item = (&Arc<Unit>, &WindowSpec)> {
        self.units.values().filter_map(|unit| match &unit.def.trigger {
            Trigger::Window(spec) => Some((unit, spec)),
            _ => None,
        })
    }

    fn series_unit(&self, series: &SeriesName) -> Result<(&Arc<Unit>, &WindowSpec)> {
        self.window_units().find(|(_, spec)| spec.series == *series).ok_or_else(|| {
            let known = self.window_units().map(|(_, spec)| spec.series.as_str());
            not_found("series", series.as_str(), known)
        })
    }

    fn node_info(&self) -> NodeInfo {
        let started_at = self.session.as_ref().map(|s| s.opened_at);
        NodeInfo {
            running: self.engine.is_some() || self.elsewhere,
            session: self.session.as_ref().map(|s| s.id.clone()),
            pid: self.session.as_ref().and_then(|s| u32::try_from(s.pid).ok()),
            url: self.url.get().cloned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at,
            uptime: started_at.map(|t| self.clock.now().since(t)),
            host: self.host.clone(),
            now: self.clock.now(),
            clock_speed: self.clock.speed(),
            data_dir: self.data_dir.display().to_string(),
            profile: self.profile.clone(),
        }
    }

    async fn readiness(&self) -> Readiness {
        let store = match self.db.query("select 1", Vec::new()).await {
            Ok(_) => (true, "it answers".to_owned()),
            Err(e) => (false, watchbell_core::chain(&e)),
        };
        let supervisor = match &self.engine {
            None => (false, "no node runs here".to_owned()),
            Some(engine) => match engine.view().await.len() {
                0 => (false, "it does not answer".to_owned()),
                n => (true, format!("it supervises {n} workers")),
            },
        };
        let check = |name: &str, (ok, detail)| ReadyCheck { name: name.to_owned(), ok, detail };
        Readiness::of(vec![check("store", store), check("supervisor", supervisor)])
    }

    async fn act_on(&self, request: ActRequest) -> Result<WorkerRecord> {
        let ActRequest { worker, action, by } = request;
        let unit = self.unit(&worker)?;
        let desired = match action {
            Action::Start | Action::Resume | Action::Restart => Desired::Running,
            Action::Pause => Desired::Paused,
            Action::Stop => Desired::Stopped,
        };
        let now = self.clock.now();
        if let Some(engine) = &self.engine {
            let action = match action {
                Action::Start => watchbell_engine::Action::Start,
                Action::Stop => watchbell_engine::Action::Stop,
                Action::Pause => watchbell_engine::Action::Pause,
                Action::Resume => watchbell_engine::Action::Resume,
                Action::Restart => watchbell_engine::Action::Restart,
            };
            engine.act(&worker, action, &by).await.map_err(ControlError::conflict)?;
        } else {
            self.can_be_told()?;
            if let Some(why) = unit.def.unavailable.as_ref().filter(|_| action != Action::Stop) {
                return Err(ControlError::conflict(format!("`{worker}` is unavailable: {why}")));
            }
            // An installation whose node never ran does not know its workers yet.
            self.store.register(&[registration(&unit.def)], now).await?;
            self.store.set_desired(&worker, desired, &by, now).await?;
            if matches!(action, Action::Start | Action::Restart) {
                self.store.save_restarts(&worker, serde_json::Value::Null).await?;
            }
        }
        let mut record = self.record(&worker).await?;
        if record.desired != desired {
            // The node has taken the wish and writes it behind its answer.
            record.desired = desired;
            record.desired_by = Some(by);
            record.desired_at = Some(now);
        }
        Ok(record)
    }

    async fn record(&self, worker: &WorkerName) -> Result<WorkerRecord> {
        let mut picture = self.picture().await?;
        picture.records.remove(worker).ok_or_else(|| {
            not_found("worker", worker.as_str(), self.units.keys().map(WorkerName::as_str))
        })
    }
}

/// What is known of a worker that no node has run yet.
fn unregistered(definition: &Definition) -> WorkerRecord {
    let unavailable = definition.unavailable.is_some();
    WorkerRecord {
        name: definition.name.clone(),
        description: definition.description.clone(),
        trigger: definition.trigger.to_string(),
        state: if unavailable { State::Unavailable } else { State::Stopped },
        desired: Desired::default(),
        desired_by: None,
        desired_at: None,
        state_since: None,
        state_reason: definition.unavailable.clone(),
        last_started_at: None,
        last_completed_at: None,
        last_success_at: None,
        last_error_at: None,
        last_error: None,
        latency: None,
        consecutive_errors: 0,
        total_runs: 0,
        total_errors: 0,
        summary: serde_json::Value::Null,
        stale_after: freshness::stale_after(definition),
        next_due: None,
        last_due: None,
        lease_owner: None,
        lease_token: Token(0),
        lease_expires_at: None,
        blocked: None,
        blocked_since: None,
        restarts: serde_json::Value::Null,
        registered_at: None,
    }
}

/// The supervisor writes behind what it knows; what it knows wins.
fn lay_over(record: &mut WorkerRecord, view: &WorkerView) {
    record.state = view.state;
    record.next_due = view.next_due.or(view.wake_at);
    if let Some(Gate::Desired { desired, by, since }) = &view.gate
        && record.desired != *desired
    {
        record.desired = *desired;
        record.desired_by.clone_from(by);
        record.desired_at = *since;
    }
    let kind = |gate: &Option<Gate>| gate.as_ref().map(Gate::kind);
    if kind(&record.blocked) != kind(&view.gate) {
        record.blocked_since = None;
    }
    record.blocked.clone_from(&view.gate);
}

/// No such thing, with the nearest known name.
fn not_found<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> ControlError {
    let suggestion = nearest(name, known).map(str::to_owned);
    ControlError::NotFound { what: what.to_owned(), name: name.to_owned(), suggestion }
}

impl Control for LocalControl {
    fn node(&self) -> BoxFuture<'_, Result<NodeInfo>> {
        Box::pin(async { Ok(self.node_info()) })
    }

    fn ready(&self) -> BoxFuture<'_, Result<Readiness>> {
        Box::pin(async { Ok(self.readiness().await) })
    }

    fn status(&self) -> BoxFuture<'_, Result<Status>> {
        Box::pin(self.full_status())
    }

    fn workers(&self) -> BoxFuture<'_, Result<Vec<WorkerLine>>> {
        Box::pin(async { Ok(self.lines(&self.picture().await?)) })
    }

    fn worker(&self, name: WorkerName) -> BoxFuture<'_, Result<WorkerDetail>> {
        Box::pin(self.detail(name))
    }

    fn act(&self, request: ActRequest) -> BoxFuture<'_, Result<WorkerRecord>> {
        Box::pin(self.act_on(request))
    }

    fn run(&self, request: RunRequest) -> BoxFuture<'_, Result<RunReport>> {
        Box::pin(self.run_cycle(request))
    }

    fn schedules(&self) -> BoxFuture<'_, Result<Vec<ScheduleLine>>> {
        Box::pin(self.timed())
    }

    fn windows(&self, query: WindowQuery) -> BoxFuture<'_, Result<Vec<WindowRecord>>> {
        Box::pin(self.list_windows(query))
    }

    fn window(&self, series: SeriesName, start: Time) -> BoxFuture<'_, Result<Vec<WindowRecord>>> {
        Box::pin(self.versions(series, start))
    }

    fn verify(&self, request: VerifyRequest) -> BoxFuture<'_, Result<Vec<VerifyReport>>> {
        Box::pin(self.verify_windows(request))
    }

    fn backfill(&self, request: BackfillRequest) -> BoxFuture<'_, Result<BackfillReport>> {
        Box::pin(self.fill(request))
    }

    fn change_window(&self, request: WindowRequest) -> BoxFuture<'_, Result<WindowChanged>> {
        Box::pin(self.steer_window(request))
    }

    fn backfills(&self) -> BoxFuture<'_, Result<Vec<BackfillRecord>>> {
        Box::pin(async { Ok(self.store.backfills(false).await?) })
    }

    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<Vec<EventRecord>>> {
        Box::pin(async { Ok(self.store.events(query).await?) })
    }

    fn emit(&self, request: EmitRequest) -> BoxFuture<'_, Result<Emitted>> {
        Box::pin(self.emit_event(request))
    }

    fn dead_letters(&self, limit: u32) -> BoxFuture<'_, Result<Vec<DeadLetter>>> {
        Box::pin(async move { Ok(self.store.dead_letters(limit).await?) })
    }

    fn next_events(
        &self,
        query: EventQuery,
        wait: Millis,
    ) -> BoxFuture<'_, Result<Vec<EventRecord>>> {
        Box::pin(self.await_events(query, wait))
    }

    fn enqueue(&self, jobs: Vec<NewJob>) -> BoxFuture<'_, Result<Vec<Enqueued>>> {
        Box::pin(self.add_jobs(jobs))
    }

    fn jobs(&self, query: JobQuery) -> BoxFuture<'_, Result<Vec<JobRecord>>> {
        Box::pin(async { Ok(self.store.jobs(query).await?) })
    }

    fn job(&self, id: i64) -> BoxFuture<'_, Result<JobDetail>> {
        Box::pin(self.job_detail(id))
    }

    fn change_jobs(&self, change: JobChange) -> BoxFuture<'_, Result<JobChanged>> {
        Box::pin(self.change(change))
    }

    fn kinds(&self) -> BoxFuture<'_, Result<Vec<KindRecord>>> {
        Box::pin(async { Ok(self.store.kinds().await?) })
    }

    fn queue(&self) -> BoxFuture<'_, Result<Vec<QueueLine>>> {
        Box::pin(async { self.queue_lines(&self.picture().await?).await })
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<NodeRecord>>> {
        Box::pin(async { self.running_nodes(self.clock.now()).await })
    }

    fn explain(&self, thing: String) -> BoxFuture<'_, Result<Explanation>> {
        Box::pin(self.explain_thing(thing))
    }

    fn metrics(&self) -> BoxFuture<'_, Result<String>> {
        Box::pin(self.metrics_text())
    }

    fn health(&self, name: WorkerName) -> BoxFuture<'_, Result<WorkerHealth>> {
        Box::pin(async move {
            let picture = self.picture().await?;
            Ok(WorkerHealth::from(&self.line_of(&picture, &name)?))
        })
    }

    fn workers_health(&self) -> BoxFuture<'_, Result<WorkersHealth>> {
        Box::pin(async {
            let picture = self.picture().await?;
            Ok(WorkersHealth::of(picture.now, &self.lines(&picture)))
        })
    }
}
