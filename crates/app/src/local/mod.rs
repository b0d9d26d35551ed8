//! [`Control`] where the installation is: over the store, and over the running node when this
//! process is one. What is stored comes from the store in both cases; a node adds what only it
//! knows, such as the gates of this moment and the progress of a cycle.

mod explain;
mod metrics;
mod notices;
mod run;
mod status;
#[cfg(test)]
mod tests;
mod windows;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use watchbell_api::{
    ActRequest, Action, BackfillReport, BackfillRequest, Control, ControlError, EmitRequest,
    Emitted, NodeInfo, Readiness, ReadyCheck, Result, RunReport, RunRequest, ScheduleLine, Status,
    VerifyReport, VerifyRequest, WorkerDetail, WorkerHealth, WorkerLine, WorkersHealth,
};
use watchbell_clock::Clock;
use watchbell_core::gate::{Explanation, Gate};
use watchbell_core::graph::nearest;
use watchbell_core::lifecycle::{Desired, State};
use watchbell_core::port::{
    BackfillRecord, DeadLetter, EventQuery, JobQuery, JobRecord, SessionRecord, Store, WindowQuery,
    WindowRecord, WorkerRecord,
};
use watchbell_core::{
    BoxFuture, Condition, Definition, EventRecord, NewEvent, SeriesName, SessionId, Time, Token,
    Trigger, WindowSpec, Worker, WorkerName, freshness,
};
use watchbell_db::Database;
use watchbell_engine::{Effects, Handle, Options, Unit, WorkerView, registration};
use watchbell_venues::binance::BinanceClient;

use crate::installation::trouble;

/// Newest rows of each kind in the detail of a worker.
const HISTORY: u32 = 20;
/// Longest kind of an event, in bytes.
const KIND_BYTES: usize = 128;

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
}

/// All workers at one moment: what is stored, with what the node knows laid over it.
struct Picture {
    now: Time,
    records: BTreeMap<WorkerName, WorkerRecord>,
    views: BTreeMap<WorkerName, WorkerView>,
    conditions: Vec<Condition>,
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
        }
    }

    /// Says where the API answers, once that is known. The first address stays.
    pub(crate) fn serving_at(&self, url: String) {
        if self.url.set(url).is_err() {
            tracing::debug!("the address of the API was known already");
        }
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
        let (records, conditions, views) =
            tokio::join!(self.store.workers(), self.store.conditions(), view);
        let now = self.clock.now();
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
        })
    }

    fn is_own(&self, session: &SessionId) -> bool {
        self.session.as_ref().is_some_and(|own| own.id == *session)
    }

    /// Whether a node runs, as far as one can tell by a worker: this process is one, or another
    /// session holds the worker's lease.
    fn node_runs(&self, record: &WorkerRecord, now: Time) -> bool {
        let held = record.lease_expires_at.is_some_and(|until| until > now);
        self.engine.is_some() || self.elsewhere || (held && record.lease_owner.is_some())
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
            if self.elsewhere {
                // It would be stored, and the node would not know before its next start.
                return Err(ControlError::conflict(
                    "a node runs here without its API, so it cannot be told",
                )
                .help("stop that node first, or start it without --no-http"));
            }
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

    async fn emit_event(&self, request: EmitRequest) -> Result<Emitted> {
        let EmitRequest { kind, key, payload } = request;
        if !is_kind(&kind) {
            return Err(ControlError::invalid(format!("`{kind}` is not the kind of an event"))
                .help("use lower-case words with dots between them, such as `deploy.finished`"));
        }
        let event = NewEvent { kind: kind.clone(), key, dedupe: None, payload };
        let ids = self.store.emit(vec![event], self.clock.now()).await?;
        if let Some(engine) = &self.engine {
            engine.wake(Effects { events: [kind].into(), ..Effects::default() });
        }
        let id = ids.first().copied();
        id.map(|id| Emitted { id })
            .ok_or_else(|| ControlError::internal("the store gave the event no number"))
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

fn is_kind(text: &str) -> bool {
    let word = |w: &str| {
        w.starts_with(|c: char| c.is_ascii_lowercase())
            && w.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c))
    };
    text.len() <= KIND_BYTES && text.split('.').all(word)
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

    fn jobs(&self, query: JobQuery) -> BoxFuture<'_, Result<Vec<JobRecord>>> {
        Box::pin(async { Ok(self.store.jobs(query).await?) })
    }

    fn job(&self, id: i64) -> BoxFuture<'_, Result<JobRecord>> {
        Box::pin(async move {
            let job = self.store.job(id).await?;
            job.ok_or_else(|| ControlError::not_found("job", id.to_string(), []))
        })
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
