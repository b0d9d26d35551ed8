//! The answers to "how is it going?".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use watchbell_core::freshness::{Freshness, Health};
use watchbell_core::gate::Explanation;
use watchbell_core::lifecycle::{Desired, State};
use watchbell_core::port::{
    AttemptRecord, CycleRecord, JobRecord, KindStats, NodeRecord, OccurrenceRecord, SeriesSummary,
    Transition, WorkerRecord,
};
use watchbell_core::pressure::Pressure;
use watchbell_core::trigger::{Missed, Trigger, WindowInput};
use watchbell_core::worker::Dependency;
use watchbell_core::{Definition, Ledger, Millis, SeriesName, SessionId, Time, WorkerName, job};

/// The whole picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The present instant, by the clock of whoever answers.
    pub now: Time,
    /// The node.
    pub node: NodeInfo,
    /// The store.
    pub store: StoreInfo,
    /// Window series by name.
    pub series: BTreeMap<SeriesName, SeriesSummary>,
    /// Workers, by name.
    pub workers: Vec<WorkerLine>,
    /// Nodes on the store, oldest first; this one is among them while it runs.
    pub nodes: Vec<NodeRecord>,
    /// Job kinds, by name.
    pub queue: Vec<QueueLine>,
    /// The venue that data comes from, where there is one.
    pub venue: Option<VenueLine>,
    /// What an operator should know, most severe first: upstream holes by name, clock skew, ...
    pub notices: Vec<Notice>,
}

/// A node: the process that runs the workers. When none runs, `running` is false and what is known
/// without one is filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Whether a node serves this data directory.
    pub running: bool,
    /// Its boot.
    pub session: Option<SessionId>,
    /// Its process.
    pub pid: Option<u32>,
    /// Where it answers.
    pub url: Option<String>,
    /// Version of whoever answers.
    pub version: String,
    /// When it started.
    pub started_at: Option<Time>,
    /// For how long it has run.
    pub uptime: Option<Millis>,
    /// Host name.
    pub host: String,
    /// The present instant, by the clock of whoever answers.
    pub now: Time,
    /// How many times faster than the wall its clock runs; 1 but for a demonstration.
    pub clock_speed: f64,
    /// The data directory.
    pub data_dir: String,
    /// The profile that it runs.
    pub profile: Option<String>,
}

/// The store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreInfo {
    /// `SQLite` or `PostgreSQL`.
    pub engine: String,
    /// The file, or the address without its password.
    pub path: String,
    /// When a commit counts as durable: `full`, `normal`, ...
    pub synchronous: String,
    /// The newest migration that is applied, as `line/number` or a plain number.
    pub schema: String,
    /// Bytes on disk, with the write-ahead log.
    pub size_bytes: i64,
    /// How it answers the node that says this; none where no node does.
    pub answers: Option<StoreAnswers>,
}

/// How a store answers a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreAnswers {
    /// By how much the node slows down for it, and why.
    pub pressure: Pressure,
    /// How long 95 of 100 of the newest calls took at most, in microseconds.
    pub p95_us: Option<u64>,
}

/// One worker in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerLine {
    /// Everything stored about it.
    pub record: WorkerRecord,
    /// How it is doing, in one word.
    pub health: Health,
    /// How fresh its newest success is.
    pub freshness: Freshness,
    /// The first gate that it waits for, in one sentence.
    pub waiting: Option<String>,
    /// How far its running cycle is, where it says so.
    #[serde(default)]
    pub progress: Option<CycleProgress>,
}

/// How far a running cycle is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CycleProgress {
    /// From 0 to 100.
    pub percent: f64,
    /// What it does, in a few words.
    pub message: String,
}

impl WorkerLine {
    /// Whether somebody should look: it is meant to run on this node, and does not get its work
    /// done. A worker that stands still was stopped, or is not in the node's profile.
    #[must_use]
    pub fn needs_attention(&self) -> bool {
        self.health >= Health::Failing
            && self.record.desired != Desired::Stopped
            && !matches!(self.record.state, State::Stopped | State::Unavailable)
    }

    /// Whether it has been without a success for too long.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self.freshness, Freshness::Stale { .. })
    }
}

/// One kind of the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueLine {
    /// The kind.
    pub kind: String,
    /// How many of its jobs are where.
    pub stats: KindStats,
    /// The worker that consumes it, as last registered.
    pub worker: Option<WorkerName>,
    /// Why nobody consumes it at present, where nobody does.
    pub unconsumed: Option<String>,
}

impl QueueLine {
    /// How many of its jobs are in a state.
    #[must_use]
    pub fn count(&self, state: job::State) -> i64 {
        self.stats.counts.get(&state).copied().unwrap_or(0)
    }

    /// For how long the oldest job that is due has waited.
    #[must_use]
    pub fn oldest_age(&self, now: Time) -> Option<Millis> {
        self.stats.oldest_due.map(|t| now.since(t).max(Millis::ZERO))
    }
}

/// One job, with what happened to it and why it does or does not run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobDetail {
    /// Its row.
    pub record: JobRecord,
    /// Attempts that did not succeed, oldest first.
    pub attempts: Vec<AttemptRecord>,
    /// The node that holds it, while it runs and that node is known.
    pub holder: Option<NodeRecord>,
    /// Why it does or does not run.
    pub explanation: Explanation,
}

/// A sentence that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// How much it matters.
    pub level: Level,
    /// The sentence.
    pub text: String,
}

/// How much a notice matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Good to know.
    Info,
    /// Will need attention.
    Warning,
    /// Needs attention.
    Error,
}

/// The venue that market data comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VenueLine {
    /// Name.
    pub name: String,
    /// Where it is asked.
    pub base_url: String,
    /// `ok`, `throttled`, `banned`, `degraded` or `down`.
    pub state: String,
    /// Since when.
    pub since: Option<Time>,
    /// Why.
    pub reason: Option<String>,
    /// Request weight spent in the current minute, as the venue counts.
    pub used_weight: Option<i64>,
    /// Request weight allowed per minute.
    pub limit: Option<i64>,
}

/// One worker with its definition and recent history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerDetail {
    /// Its line.
    pub line: WorkerLine,
    /// Its definition; none when this configuration does not have the worker.
    pub definition: Option<DefinitionText>,
    /// Newest cycles first.
    pub cycles: Vec<CycleRecord>,
    /// Newest ledger rows first.
    pub occurrences: Vec<OccurrenceRecord>,
    /// Newest changes of state first.
    pub transitions: Vec<Transition>,
}

/// A worker's definition, for reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefinitionText {
    /// Name.
    pub name: WorkerName,
    /// What it does.
    pub description: String,
    /// Its trigger in words.
    pub trigger: String,
    /// The trigger's kind: `every`, `cron`, `window`, ...
    pub trigger_kind: String,
    /// The rules of its windows, where it computes some.
    pub window: Option<WindowPolicy>,
    /// What happens to missed due instants.
    pub missed: Missed,
    /// Spread of due instants.
    pub jitter: Millis,
    /// Workers that it needs.
    pub needs: Vec<Dependency>,
    /// After this long a cycle is asked to stop.
    pub soft_timeout: Millis,
    /// After this long it is aborted.
    pub hard_timeout: Millis,
    /// Without a success for this long, it is stale; none is derived from the trigger.
    pub stale_after: Option<Millis>,
    /// How much of its life is recorded.
    pub ledger: Ledger,
    /// Workers of one lane never run at the same time.
    pub lane: Option<String>,
    /// How long it gives way to windows and lanes at most, where it gives way at all.
    pub gives_way: Option<Millis>,
    /// Why it cannot run on this node.
    pub unavailable: Option<String>,
}

/// The rules of a window series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowPolicy {
    /// Series.
    pub series: SeriesName,
    /// Length.
    pub length: Millis,
    /// Time after the end before a window may be ready.
    pub settle: Millis,
    /// What must be complete first.
    pub inputs: Vec<WindowInput>,
    /// Attempts before a failing window is abandoned.
    pub max_attempts: u32,
}

impl From<&Definition> for DefinitionText {
    fn from(d: &Definition) -> Self {
        let window = match &d.trigger {
            Trigger::Window(w) => Some(WindowPolicy {
                series: w.series.clone(),
                length: w.length,
                settle: w.settle,
                inputs: w.inputs.clone(),
                max_attempts: w.max_attempts,
            }),
            _ => None,
        };
        Self {
            name: d.name.clone(),
            description: d.description.clone(),
            trigger: d.trigger.to_string(),
            trigger_kind: d.trigger.kind().to_owned(),
            window,
            missed: d.missed,
            jitter: d.jitter,
            needs: d.needs.clone(),
            soft_timeout: d.soft_timeout,
            hard_timeout: d.hard_timeout,
            stale_after: d.stale_after,
            ledger: d.ledger,
            lane: d.lane.clone(),
            gives_way: d.patience(),
            unavailable: d.unavailable.clone(),
        }
    }
}

/// A worker that a clock starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleLine {
    /// The worker.
    pub worker: WorkerName,
    /// Its trigger in words.
    pub trigger: String,
    /// What happens to missed due instants.
    pub missed: Missed,
    /// Whether due instants lead to cycles.
    pub enabled: bool,
    /// Why not, when not.
    pub reason: Option<String>,
    /// The newest due instant in the ledger.
    pub last_due: Option<Time>,
    /// What became of it: `fired`, `skipped`, `merged`, or the state of a window.
    pub last_fate: Option<String>,
    /// The next due instants, ascending; empty when there is none.
    pub next_due: Vec<Time>,
}

/// Whether a node can do its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// All checks pass.
    pub ready: bool,
    /// The checks.
    pub checks: Vec<ReadyCheck>,
}

/// One check of readiness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyCheck {
    /// `store`, `supervisor`, ...
    pub name: String,
    /// Whether it passes.
    pub ok: bool,
    /// What was found.
    pub detail: String,
}

impl Readiness {
    /// Ready when every check passes.
    #[must_use]
    pub fn of(checks: Vec<ReadyCheck>) -> Self {
        Self { ready: checks.iter().all(|c| c.ok), checks }
    }
}

/// The health of one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerHealth {
    /// The worker.
    pub name: WorkerName,
    /// How it is doing.
    pub health: Health,
    /// `never`, `running`, `succeeded` or `failed`: the newest cycle.
    pub status: String,
    /// Observed state.
    pub state: State,
    /// What an operator asked for.
    pub desired: Desired,
    /// Whether somebody should look.
    pub needs_attention: bool,
    /// Without a success for longer than its limit.
    pub stale: bool,
    /// The limit.
    pub stale_after: Option<Millis>,
    /// Start of the newest cycle.
    pub last_started_at: Option<Time>,
    /// End of the newest finished cycle.
    pub last_completed_at: Option<Time>,
    /// End of the newest successful cycle.
    pub last_success_at: Option<Time>,
    /// End of the newest failed cycle.
    pub last_error_at: Option<Time>,
    /// Its error.
    pub last_error: Option<String>,
    /// How long the newest finished cycle took.
    pub latency: Option<Millis>,
    /// Failures since the newest success.
    pub consecutive_errors: i64,
    /// Cycles finished, ever.
    pub total_runs: i64,
    /// Cycles failed, ever.
    pub total_errors: i64,
    /// Summary of the newest successful cycle.
    pub summary: serde_json::Value,
    /// Next due instant.
    pub next_due: Option<Time>,
    /// The first gate that it waits for, in one sentence.
    pub waiting: Option<String>,
}

impl From<&WorkerLine> for WorkerHealth {
    fn from(line: &WorkerLine) -> Self {
        let r = &line.record;
        // The newest of the instants tells how the newest cycle ended, or that it has not.
        let status = match (r.last_started_at, r.last_completed_at) {
            (None, None) => "never",
            (Some(started), Some(done)) if started > done => "running",
            (Some(_), None) => "running",
            _ if r.last_error_at > r.last_success_at => "failed",
            _ => "succeeded",
        };
        Self {
            name: r.name.clone(),
            health: line.health,
            status: status.to_owned(),
            state: r.state,
            desired: r.desired,
            needs_attention: line.needs_attention(),
            stale: line.is_stale(),
            stale_after: r.stale_after,
            last_started_at: r.last_started_at,
            last_completed_at: r.last_completed_at,
            last_success_at: r.last_success_at,
            last_error_at: r.last_error_at,
            last_error: r.last_error.clone(),
            latency: r.latency,
            consecutive_errors: r.consecutive_errors,
            total_runs: r.total_runs,
            total_errors: r.total_errors,
            summary: r.summary.clone(),
            next_due: r.next_due,
            waiting: line.waiting.clone(),
        }
    }
}

/// The health of all workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkersHealth {
    /// The present instant.
    pub now: Time,
    /// Whether no worker needs attention.
    pub ok: bool,
    /// The workers, by name.
    pub workers: Vec<WorkerHealth>,
}

impl WorkersHealth {
    /// The health of the workers of a list.
    #[must_use]
    pub fn of(now: Time, workers: &[WorkerLine]) -> Self {
        Self {
            now,
            ok: !workers.iter().any(WorkerLine::needs_attention),
            workers: workers.iter().map(WorkerHealth::from).collect(),
        }
    }
}

/// The body of `/daemon/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Whether a supervisor runs.
    pub running: bool,
    /// The workers by name.
    pub daemons: BTreeMap<WorkerName, DaemonLine>,
    /// Counts.
    pub summary: DaemonSummary,
}

/// One worker in [`DaemonStatus`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonLine {
    /// Observed state.
    pub state: State,
    /// For how long it has been running.
    pub uptime_seconds: Option<i64>,
    /// How it is doing.
    pub health: Health,
    /// Cycles failed, ever.
    pub error_count: i64,
    /// Newest error.
    pub last_error: Option<String>,
    /// Whether an operator paused it.
    pub paused: bool,
}

/// Counts of workers in [`DaemonStatus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DaemonSummary {
    /// All.
    pub total: u32,
    /// Running.
    pub running: u32,
    /// Paused.
    pub paused: u32,
    /// Given up by the restart policy.
    pub failed: u32,
    /// Stopped.
    pub stopped: u32,
}

impl From<&Status> for DaemonStatus {
    fn from(status: &Status) -> Self {
        let mut summary = DaemonSummary::default();
        let mut daemons = BTreeMap::new();
        for line in &status.workers {
            let r = &line.record;
            summary.total += 1;
            match r.state {
                State::Running => summary.running += 1,
                State::Paused => summary.paused += 1,
                State::Failed => summary.failed += 1,
                State::Stopped => summary.stopped += 1,
                _ => {}
            }
            let up_since = r.state_since.filter(|_| r.state == State::Running);
            daemons.insert(
                r.name.clone(),
                DaemonLine {
                    state: r.state,
                    uptime_seconds: up_since.map(|t| status.now.since(t).0 / 1_000),
                    health: line.health,
                    error_count: r.total_errors,
                    last_error: r.last_error.clone(),
                    paused: r.state == State::Paused,
                },
            );
        }
        Self { running: status.node.running, daemons, summary }
    }
}
