//! A node: workers under supervision on one store, and the handle by which it is steered.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use watchbell_clock::Clock;
use watchbell_core::gate::Gate;
use watchbell_core::graph::{self, GraphError};
use watchbell_core::lifecycle::State;
use watchbell_core::port::{Recovered, Registration, SessionRecord, Store, StoreError};
use watchbell_core::restart::Policy;
use watchbell_core::{
    CycleId, Definition, Effects, Fault, Millis, QueueSpec, SessionId, Time, Trigger, Worker,
    WorkerName, freshness, job,
};

use crate::artifacts::Reconciled;
use crate::cycle::{Intent, Rehearsal, Report, Runner, Unit};
use crate::gauge::StoreView;
use crate::host::Signals;
use crate::pulse::{NodeView, Pulse};
use crate::recorder::Recorder;
use crate::slot::Slot;
use crate::supervisor::{Message, Supervisor};

/// How a node runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a lease holds unless renewed.
    pub lease_ttl: Millis,
    /// How often leases are renewed while something runs.
    pub lease_renew: Millis,
    /// How long a stopping cycle may take before it is aborted.
    pub stop_grace: Millis,
    /// How long an aborted one may take before it is reported.
    pub abort_grace: Millis,
    /// How often heartbeats of quiet workers are written.
    pub beat_flush: Millis,
    /// How often the node looks at how the store answers it, while it calls it.
    pub look_every: Millis,
    /// How failures of a worker are answered.
    pub restart: Policy,
    /// Where artifacts are published.
    pub artifacts: PathBuf,
    /// Whether this is the only node on the store, as it always is on SQLite.
    pub exclusive: bool,
    /// Workers to run; `None` runs all.
    pub profile: Option<BTreeSet<WorkerName>>,
    /// The name of that profile: other nodes see it.
    pub profile_name: String,
    /// Where the node's API is, if it serves one: other nodes see it.
    pub api: Option<String>,
}

impl Options {
    /// Defaults, with artifacts below `data_dir`.
    #[must_use]
    pub fn new(data_dir: &std::path::Path) -> Self {
        Self {
            lease_ttl: Millis::from_secs(30),
            lease_renew: Millis::from_secs(10),
            stop_grace: Millis::from_secs(10),
            abort_grace: Millis::from_secs(5),
            beat_flush: Millis::from_secs(5),
            look_every: Millis::from_secs(10),
            restart: Policy::default(),
            artifacts: data_dir.join("artifacts"),
            exclusive: true,
            profile: None,
            profile_name: "default".into(),
            api: None,
        }
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The workers' dependencies make no order.
    #[error("the workers cannot be ordered")]
    Graph(#[from] GraphError),
    /// The store refused.
    #[error("the store is not usable")]
    Store(#[from] StoreError),
    /// The artifact directory cannot be read.
    #[error("cannot reconcile artifacts in {}", path.display())]
    Artifacts {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A definition is impossible.
    #[error("worker `{worker}`: {reason}")]
    Definition {
        /// The worker.
        worker: WorkerName,
        /// What is wrong.
        reason: String,
    },
}

/// What an operator can do to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Run it, with a fresh restart budget.
    Start,
    /// End its cycle and run none.
    Stop,
    /// Let its cycle finish and start none.
    Pause,
    /// Go on; missed ticks become one.
    Resume,
    /// Stop, then start.
    Restart,
}

/// What the supervisor knows of a worker at this moment.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerView {
    /// The worker.
    pub worker: WorkerName,
    /// Its state.
    pub state: State,
    /// Part of the profile, or started by an operator.
    pub active: bool,
    /// Next due instant.
    pub next_due: Option<Time>,
    /// When it looks again for something to do.
    pub wake_at: Option<Time>,
    /// Its first gate.
    pub gate: Option<Gate>,
    /// Cycles in flight.
    pub running: Vec<RunningView>,
}

/// A cycle in flight.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningView {
    /// Its number, once it has one; 0 for a job.
    pub cycle: CycleId,
    /// The job that it works on.
    pub job: Option<i64>,
    /// Since when.
    pub since: Time,
    /// Percent and words.
    pub progress: Option<(f64, String)>,
}

/// A running node.
pub struct Node {
    outbox: mpsc::UnboundedSender<Message>,
    supervisor: JoinHandle<()>,
    runner: Arc<Runner>,
    units: Arc<BTreeMap<WorkerName, Arc<Unit>>>,
    pulse: Pulse,
    /// What dead sessions had left.
    pub recovered: Recovered,
    /// What was found on the artifact file system.
    pub reconciled: Reconciled,
    /// Dependencies that the profile leaves out, and that became soft.
    pub softened: Vec<(WorkerName, WorkerName)>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("session", &self.runner.session).finish_non_exhaustive()
    }
}

impl Node {
    /// Registers the workers, takes back what dead sessions held, and starts supervision.
    ///
    /// `workers` pairs each worker with its definition, which may differ from the worker's own by
    /// the configuration's overrides.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then.
    pub async fn start(
        store: Arc<dyn Store>,
        clock: Clock,
        session: SessionRecord,
        workers: Vec<(Definition, Arc<dyn Worker>)>,
        options: Options,
    ) -> Result<Self, StartError> {
        let defs: Vec<Definition> = workers.iter().map(|(d, _)| d.clone()).collect();
        for def in &defs {
            check(def)?;
        }
        let all: BTreeSet<WorkerName> = defs.iter().map(|d| d.name.clone()).collect();
        let included = options.profile.clone().unwrap_or_else(|| all.clone());
        let order = graph::order(&defs, &included)?;
        // Workers outside the profile are known too: an operator may start them.
        let full_order = graph::order(&defs, &all)?;

        let now = clock.now();
        let id = session.id.clone();
        let recovered = store.recover(&id, options.exclusive, now).await?;
        store.open_session(session).await?;
        let (outbox, inbox) = mpsc::unbounded_channel();
        let (effects_tx, effects) = mpsc::unbounded_channel();
        let runner = Arc::new(Runner::new(
            Arc::clone(&store),
            clock.clone(),
            id,
            options.clone(),
            effects_tx,
        ));
        let reconciled = runner
            .artifacts
            .reconcile(&store.artifacts(u32::MAX).await?)
            .map_err(|source| StartError::Artifacts { path: options.artifacts.clone(), source })?;
        let registrations: Vec<Registration> = defs.iter().map(registration).collect();
        let records = store.register(&registrations, now).await?;
        drop(registrations);
        let conditions = store
            .conditions()
            .await?
            .into_iter()
            .map(|(c, _)| (c.name.clone(), c))
            .collect::<BTreeMap<_, _>>();

        let index: BTreeMap<WorkerName, usize> =
            defs.iter().enumerate().map(|(i, d)| (d.name.clone(), i)).collect();
        let mut slots = Vec::with_capacity(workers.len());
        let mut units = BTreeMap::new();
        for ((def, worker), record) in workers.into_iter().zip(&records) {
            let active = included.contains(&def.name);
            let name = def.name.clone();
            let unit = Arc::new(Unit::new(def, worker));
            units.insert(name, Arc::clone(&unit));
            slots.push(Slot::new(unit, record, active, now));
        }
        for slot in &mut slots {
            let needs = slot.unit.def.needs.clone();
            slot.needs = needs
                .iter()
                .filter_map(|d| {
                    let left_out = !included.contains(&d.worker);
                    index.get(&d.worker).map(|&i| (i, d.soft || left_out))
                })
                .collect();
        }
        let order_indices =
            full_order.start.iter().filter_map(|name| index.get(name).copied()).collect();
        let pulse = Pulse::start(Arc::clone(&runner)).await;
        let supervisor = Supervisor::new(
            Arc::clone(&runner),
            options,
            Recorder::start(Arc::clone(&runner)),
            inbox,
            outbox.clone(),
            effects,
            slots,
            order_indices,
            conditions,
        );
        Ok(Self {
            outbox,
            supervisor: tokio::spawn(supervisor.run()),
            runner,
            units: Arc::new(units),
            pulse,
            recovered,
            reconciled,
            softened: order.softened,
        })
    }

    /// A handle for steering, cheap to clone.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            outbox: self.outbox.clone(),
            runner: Arc::clone(&self.runner),
            units: Arc::clone(&self.units),
            pulse: self.pulse.clone(),
        }
    }

    /// Stops every worker in reverse order and closes the session with `note`.
    ///
    /// # Errors
    /// When the store cannot record the end; the workers have stopped all the same.
    pub async fn shutdown(self, note: &str) -> Result<(), StoreError> {
        // An error means that the supervisor is gone already.
        drop(self.outbox.send(Message::Shutdown));
        if let Err(e) = self.supervisor.await {
            tracing::error!("the supervisor ended badly: {e}");
        }
        let (store, now) = (&self.runner.store, self.runner.clock.now());
        self.pulse.end();
        store.close_session(&self.runner.session, note, now).await?;
        store.tell(&Effects { leases: true, ..Effects::default() });
        Ok(())
    }
}

/// Steers a running node.
#[derive(Clone)]
pub struct Handle {
    outbox: mpsc::UnboundedSender<Message>,
    runner: Arc<Runner>,
    units: Arc<BTreeMap<WorkerName, Arc<Unit>>>,
    pulse: Pulse,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("session", &self.runner.session).finish_non_exhaustive()
    }
}

impl Handle {
    /// Changes what is wanted of a worker, on behalf of `by`.
    ///
    /// # Errors
    /// A sentence: no such worker, or it is unavailable.
    pub async fn act(&self, worker: &WorkerName, action: Action, by: &str) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let (worker, by) = (worker.clone(), by.to_owned());
        drop(self.outbox.send(Message::Act { worker, action, by, reply }));
        answer.await.unwrap_or_else(|_| Err("the node has stopped".into()))
    }

    /// Runs one cycle now and waits for it. Without `force`, the node's gates hold.
    pub async fn run(&self, worker: &WorkerName, window: Option<Time>, force: bool) -> Report {
        let (reply, answer) = oneshot::channel();
        let intent = window.map_or(Intent::Manual, |start| Intent::Window { start });
        drop(self.outbox.send(Message::Run { worker: worker.clone(), intent, force, reply }));
        answer
            .await
            .unwrap_or_else(|_| Report::Broken(StoreError::Conflict("the node has stopped".into())))
    }

    /// Runs one cycle with its commit replaced by a description.
    ///
    /// # Errors
    /// The fault that the cycle would have recorded.
    pub async fn rehearse(
        &self,
        worker: &WorkerName,
        window: Option<Time>,
    ) -> Result<Result<Rehearsal, Report>, Fault> {
        match self.units.get(worker) {
            Some(unit) => self.runner.rehearse(unit, window).await,
            None => Err(Fault::permanent(format!("there is no worker `{worker}`"))),
        }
    }

    /// Wakes whoever waits for these effects, on this node and on others: after a write from outside
    /// a cycle.
    pub fn wake(&self, effects: Effects) {
        // An error means that the node has stopped: nobody waits.
        drop(self.outbox.send(Message::Effects(effects)));
    }

    /// What the supervisor knows at this moment; empty when the node has stopped.
    pub async fn view(&self) -> Vec<WorkerView> {
        let (reply, answer) = oneshot::channel();
        drop(self.outbox.send(Message::View(reply)));
        answer.await.unwrap_or_default()
    }

    /// What this node knows of itself and of its store.
    #[must_use]
    pub fn node(&self) -> NodeView {
        self.pulse.view()
    }

    /// How the store answers this node, and by how much it slows down for it.
    #[must_use]
    pub fn store(&self) -> StoreView {
        self.runner.gauge.view()
    }

    /// The definition of a worker, with overrides applied.
    #[must_use]
    pub fn definition(&self, worker: &WorkerName) -> Option<&Definition> {
        self.units.get(worker).map(|u| &u.def)
    }
}

/// Runs one cycle without a supervisor: `run NAME --once` when no node runs. The path is the same.
///
/// # Errors
/// When the worker cannot be registered.
pub async fn run_once(
    store: Arc<dyn Store>,
    clock: Clock,
    session: SessionRecord,
    unit: &Arc<Unit>,
    window: Option<Time>,
    signals: Arc<Signals>,
    options: &Options,
) -> Result<Report, StoreError> {
    store.open_session(session.clone()).await?;
    store.register(&[registration(&unit.def)], clock.now()).await?;
    let (effects, mut heard) = mpsc::unbounded_channel();
    let options = options.clone();
    let id = session.id.clone();
    let runner = Arc::new(Runner::new(Arc::clone(&store), clock.clone(), id, options, effects));
    let intent = window.map_or(Intent::Manual, |start| Intent::Window { start });
    let report = tokio::select! {
        report = runner.attempt(unit, intent, Arc::clone(&signals)) => report,
        never = keep_lease(&runner, unit, &signals) => match never {},
    };
    store.close_session(&session.id, "run once", clock.now()).await?;
    // Nodes that run elsewhere may wait for what it changed.
    let mut changed = Effects { leases: true, ..Effects::default() };
    while let Ok(effects) = heard.try_recv() {
        changed.merge(effects);
    }
    if let Report::Ran(ran) = &report {
        changed.merge(ran.effects.clone());
    }
    store.tell(&changed);
    Ok(report)
}

/// Looks after a cycle that no supervisor looks after, until it is dropped: extends its lease, and asks
/// it to stop when that is lost or its soft timeout has passed. Past its hard timeout nothing is
/// extended any more, so that nothing of it can be published.
async fn keep_lease(runner: &Runner, unit: &Unit, signals: &Signals) -> Infallible {
    let worker = &unit.def.name;
    // What a queue's consumer holds are jobs, and it looks after those itself.
    let of_jobs = matches!(unit.def.trigger, Trigger::Queue(_));
    let holds = || !of_jobs && signals.grant().is_some() && !signals.is_ending();
    let (soft, began) = (unit.def.soft_timeout, runner.clock.now());
    let hard = unit.def.hard_timeout.max(soft);
    let limited = !matches!(unit.def.trigger, Trigger::Stream);
    loop {
        runner.clock.sleep(runner.options.lease_renew).await;
        let asked = runner.clock.now();
        if !holds() || limited && asked - began >= hard {
            continue;
        }
        if limited && asked - began >= soft && !signals.is_cancelled() {
            tracing::warn!(
                worker.name = %worker,
                "{worker} has run past its soft timeout of {soft}: asked to stop"
            );
            signals.cancel();
        }
        match runner.store.renew(&runner.session, runner.options.lease_ttl, asked).await {
            Ok(kept) if kept.contains(worker) => signals.trust(runner.trust(asked)),
            Ok(_) if holds() => {
                tracing::warn!(worker.name = %worker, "{worker} lost its lease: asked to stop");
                signals.cancel();
            }
            Ok(_) => {}
            Err(e) => tracing::warn!("cannot renew leases: {}", watchbell_core::chain(&e)),
        }
    }
}

/// Runs one cycle without a supervisor and without writing.
///
/// # Errors
/// The fault that the cycle would have recorded.
pub async fn rehearse_once(
    store: Arc<dyn Store>,
    clock: Clock,
    unit: &Unit,
    window: Option<Time>,
    options: &Options,
) -> Result<Result<Rehearsal, Report>, Fault> {
    let (effects, _unheard) = mpsc::unbounded_channel();
    let runner = Runner::new(store, clock, SessionId::from("dry-run"), options.clone(), effects);
    runner.rehearse(unit, window).await
}

/// What the store keeps of a definition.
#[must_use]
pub fn registration(def: &Definition) -> Registration {
    Registration {
        name: def.name.clone(),
        description: def.description.clone(),
        trigger: def.trigger.to_string(),
        stale_after: freshness::stale_after(def),
        subscribes: match &def.trigger {
            Trigger::On { kinds } => kinds.clone(),
            _ => Vec::new(),
        },
        kinds: match &def.trigger {
            Trigger::Queue(spec) => spec.kinds.clone(),
            _ => Vec::new(),
        },
        unavailable: def.unavailable.clone(),
    }
}

fn check(def: &Definition) -> Result<(), StartError> {
    let refuse = |reason: String| StartError::Definition { worker: def.name.clone(), reason };
    if def.opportunistic && def.trigger.longest_pause().is_none() {
        return Err(refuse(format!(
            "it cannot give way: it runs by `{}`, and only what runs by time knows for how long it \
             may wait",
            def.trigger.kind()
        )));
    }
    match &def.trigger {
        Trigger::Every { period, offset } => {
            if period.0 <= 0 {
                return Err(refuse(format!("its period of {period} must be longer than zero")));
            }
            if offset.0 < 0 || offset >= period {
                return Err(refuse(format!(
                    "its offset of {offset} must lie between zero and its period of {period}"
                )));
            }
        }
        Trigger::Window(spec) => {
            watchbell_core::window::validate(spec, None).map_err(|e| refuse(e.to_string()))?;
        }
        Trigger::Queue(spec) => check_queue(spec).map_err(refuse)?,
        Trigger::Cron(_) | Trigger::On { .. } | Trigger::Stream | Trigger::Manual => {}
    }
    Ok(())
}

fn check_queue(spec: &QueueSpec) -> Result<(), String> {
    if spec.kinds.is_empty() {
        return Err("it consumes no kind of job: name one".into());
    }
    if spec.concurrency == 0 {
        return Err("its concurrency must be 1 or more".into());
    }
    let mut names = BTreeSet::new();
    for job::Kind { name, max_attempts, timeout, .. } in &spec.kinds {
        if !names.insert(name) {
            return Err(format!("it names the kind `{name}` twice"));
        }
        if *max_attempts == 0 {
            return Err(format!("the kind `{name}` must have 1 attempt or more"));
        }
        if let Some(timeout) = timeout
            && timeout.0 <= 0
        {
            return Err(format!(
                "the time limit of {timeout} of the kind `{name}` must be longer than zero"
            ));
        }
    }
    Ok(())
}
