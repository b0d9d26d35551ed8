//! What the engine asks of a store. One implementation serves both database engines, and one
//! conformance suite holds it to these words.
//!
//! Three rules run through the trait:
//!
//! - **A claim is one transaction.** It grants the lease with the next fencing token, writes the
//!   occurrence, the cycle row and the state of the window, event or job: all or nothing.
//! - **A publication is one transaction** whose first statement checks that `(worker, token,
//!   session)` still holds an unexpired lease. Zero rows matched refuses everything with
//!   [`StoreError::Fenced`], and the store records the refusal in a transaction of its own
//!   (cycle outcome `fenced`, and an event `commit.refused`).
//! - **The caller says what time it is**, and the store says whether a lease has expired. Every
//!   method that compares with or records the present takes `now`. Where several nodes share a
//!   store, leases begin and end by the clock of the database instead, so that no node's clock can
//!   take a lease from another; [`Store::beat_node`] tells how far the two are apart.

mod queue;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::queue::{
    AttemptRecord, Enqueued, HeldJob, JobAction, JobBatch, JobChange, JobChanged, JobClaim, JobEnd,
    JobFilter, JobProgress, JobQuery, JobRecord, KindRecord, KindStats, Queue,
};
use crate::commit::{Commit, Condition, Cover, NewEvent};
use crate::effects::Effects;
use crate::gate::Gate;
use crate::lifecycle::{Desired, State};
use crate::schedule::Passed;
use crate::trigger::Cause;
use crate::units::{CycleId, Millis, SeriesName, SessionId, Time, Token, WorkerName};
use crate::worker::{BoxFuture, CycleInput, EventRecord, WindowHashes};
use crate::{job, window};

/// A store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The caller no longer holds the claim: its token is not the newest, or its lease expired.
    #[error("the commit of `{worker}` under token {token} was refused: the claim is lost")]
    Fenced {
        /// The worker.
        worker: WorkerName,
        /// The token it tried to commit under.
        token: Token,
    },
    /// A statement of the commit changed another number of rows than it must. Nothing was written.
    #[error("statement {index} ({target}) changed {got} rows, expected {expected}")]
    Unmet {
        /// Position in the domain commit.
        index: usize,
        /// Table.
        target: String,
        /// What it must change, in words.
        expected: String,
        /// What it changed.
        got: u64,
    },
    /// No such worker, window, job or event.
    #[error("there is no {what} `{name}`")]
    NotFound {
        /// `worker`, `window`, ...
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The request contradicts the stored state; the text says how.
    #[error("{0}")]
    Conflict(String),
    /// The request itself is wrong: nothing was done.
    #[error("{place}: {problem}")]
    Invalid {
        /// Which part of it, such as `jobs[3].payload.symbol`.
        place: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The database failed: busy, full, gone. The cause says what to do.
    #[error("the store failed")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Result of a store call.
pub type Result<T> = std::result::Result<T, StoreError>;

/// One boot of a node, as it introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Identity.
    pub id: SessionId,
    /// `watchbell`.
    pub app_name: String,
    /// Version.
    pub app_version: String,
    /// Host name.
    pub host: String,
    /// Process id.
    pub pid: i64,
    /// When it started.
    pub opened_at: Time,
    /// When it stopped, if it did so in order.
    pub closed_at: Option<Time>,
    /// What there is to say, such as `clean stop` or `recovered after a crash`.
    pub note: String,
}

/// Without a word for this long, a node counts as lost and its session is closed.
pub const NODE_LOST_AFTER: Millis = Millis::from_secs(60);

/// A node's sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeBeat {
    /// Its boot.
    pub session: SessionId,
    /// How long until the next one is overdue.
    pub ttl: Millis,
    /// By how much the store's clock was ahead of the node's, at the last answer; `None` before
    /// the first.
    pub skew: Option<Millis>,
    /// How long that answer took.
    pub round_trip: Option<Millis>,
    /// Where its API is, if it serves one.
    pub api: Option<String>,
    /// Its profile.
    pub profile: String,
}

/// The store's answer to a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeAnswer {
    /// What the store's clock said; the caller's own `now` where the two are one.
    pub store_now: Time,
    /// Sessions that were closed on behalf of lost nodes.
    pub lost: u64,
}

/// A node, as the others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its boot.
    pub session: SessionRecord,
    /// Its newest sign of life, by the store's clock; `None` where there can be one node only.
    pub seen_at: Option<Time>,
    /// Whether that is longer ago than it promised.
    pub overdue: bool,
    /// By how much the store's clock is ahead of the node's, as it measured.
    pub skew: Option<Millis>,
    /// How long its newest answer from the store took.
    pub round_trip: Option<Millis>,
    /// Where its API is.
    pub api: Option<String>,
    /// Its profile.
    pub profile: String,
    /// Workers whose lease it holds, with the lease's token.
    pub holds: Vec<(WorkerName, Token)>,
    /// Jobs that it holds.
    pub jobs: i64,
}

/// Whether a node hears what others tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    /// There is no other node.
    Alone,
    /// Words arrive; polling is only the floor.
    Listening,
    /// Words do not arrive at present, or cannot (a transaction pooler): poll.
    Deaf,
}

/// What [`Store::recover`] cleaned up after sessions that ended without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Recovered {
    /// Sessions closed on their behalf.
    pub sessions: u64,
    /// Cycles that were running: now `lost`.
    pub cycles: u64,
    /// Windows that were running: ready again.
    pub windows: u64,
    /// Jobs that were running: queued again, counted as reclaims.
    pub jobs: u64,
}

/// A worker at registration.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// Name.
    pub name: WorkerName,
    /// Description.
    pub description: String,
    /// Trigger in words.
    pub trigger: String,
    /// Staleness limit.
    pub stale_after: Option<Millis>,
    /// Event kinds, for an `on` worker: its subscription. A new subscriber starts at the newest
    /// event of that moment.
    pub subscribes: Vec<String>,
    /// Job kinds, for a `queue` worker.
    pub kinds: Vec<job::Kind>,
    /// Why it cannot run on this node.
    pub unavailable: Option<String>,
}

/// Everything stored about one worker: the heartbeat row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// Name.
    pub name: WorkerName,
    /// Description.
    pub description: String,
    /// Trigger in words.
    pub trigger: String,
    /// Observed state.
    pub state: State,
    /// What an operator asked for.
    pub desired: Desired,
    /// Who asked, and when.
    pub desired_by: Option<String>,
    /// When the desired state was set.
    pub desired_at: Option<Time>,
    /// Since when the observed state holds.
    pub state_since: Option<Time>,
    /// Why the worker is in this state.
    pub state_reason: Option<String>,
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
    /// Without a success for this long, stale.
    pub stale_after: Option<Millis>,
    /// Next due instant.
    pub next_due: Option<Time>,
    /// Newest due instant in the ledger, fired or not.
    pub last_due: Option<Time>,
    /// Session that holds the lease.
    pub lease_owner: Option<SessionId>,
    /// Newest token granted.
    pub lease_token: Token,
    /// When the lease ends.
    pub lease_expires_at: Option<Time>,
    /// First gate, as of the last time that the engine looked.
    pub blocked: Option<Gate>,
    /// Since when it is blocked by that gate.
    pub blocked_since: Option<Time>,
    /// Failures that the restart policy remembers.
    pub restarts: serde_json::Value,
    /// When it was registered for the first time: from then on, no due instant is lost. `None`
    /// while no node has run it.
    pub registered_at: Option<Time>,
}

/// A change of a worker's observed state: a row, an event `worker.state`, and the heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// The worker.
    pub worker: WorkerName,
    /// From.
    pub from: State,
    /// To.
    pub to: State,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Time,
    /// On which node.
    pub session: SessionId,
}

/// A heartbeat of a quiet worker or of a queue's worker, flushed with others: counts are added to
/// the row's.
#[derive(Debug, Clone, PartialEq)]
pub struct Beat {
    /// The worker.
    pub worker: WorkerName,
    /// Cycles finished since the last flush.
    pub runs: i64,
    /// Those of them that failed.
    pub errors: i64,
    /// Failures since the newest success; since the last flush, where none succeeded.
    pub failing: i64,
    /// End of the newest that succeeded; `None` where none did.
    pub last_success_at: Option<Time>,
    /// End of the newest that failed, and its error.
    pub last_error: Option<(Time, String)>,
    /// Start of the newest.
    pub last_started_at: Time,
    /// End of the newest.
    pub last_completed_at: Time,
    /// Its duration.
    pub latency: Millis,
    /// Summary of the newest that succeeded.
    pub summary: serde_json::Value,
    /// Next due instant.
    pub next_due: Option<Time>,
}

impl Beat {
    /// Adds what came after it.
    pub fn add(&mut self, later: Self) {
        self.runs += later.runs;
        self.errors += later.errors;
        if later.last_success_at.is_some() {
            self.failing = later.failing;
            self.last_success_at = later.last_success_at;
            self.summary = later.summary;
        } else {
            self.failing += later.failing;
        }
        if later.last_error.is_some() {
            self.last_error = later.last_error;
        }
        self.last_started_at = later.last_started_at;
        self.last_completed_at = later.last_completed_at;
        self.latency = later.latency;
        self.next_due = later.next_due;
    }
}

/// A wish to run something.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimRequest {
    /// The worker.
    pub worker: WorkerName,
    /// On behalf of this boot.
    pub session: SessionId,
    /// Now.
    pub now: Time,
    /// How long the lease holds unless renewed.
    pub ttl: Millis,
    /// What to run.
    pub target: Target,
    /// Due instants that this claim passes over: recorded with it.
    pub passed: Vec<Passed>,
}

/// What to run.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// A due instant: refused as [`Claim::Taken`] when its occurrence is already in the ledger.
    Tick {
        /// The instant.
        due: Time,
    },
    /// A window, by number of its version. The row is created when it does not exist; it must not
    /// be complete, abandoned or running under a live lease.
    Window {
        /// Series.
        series: SeriesName,
        /// Start.
        start: Time,
        /// End.
        end: Time,
        /// Version.
        version: i64,
        /// The keys it covers; stored at the first claim, and the stored ones win afterwards.
        scope: Vec<String>,
    },
    /// The next event after the worker's cursor that its subscription matches and whose retry time
    /// has come. Events are delivered one at a time, in order.
    Event,
    /// The continuous run of a stream.
    Stream,
    /// An operator's command.
    Manual,
    /// The standing lease of a quiet worker: no cycle row yet.
    Standing,
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// Go.
    Granted(Grant),
    /// Another holder has the lease until then. The passed due instants were not recorded.
    Held {
        /// Holder.
        owner: SessionId,
        /// Until.
        until: Time,
    },
    /// That occurrence, or that window, is already done.
    Taken,
    /// No event is due; the next one that has a time is due then.
    Nothing {
        /// When to look again, if known.
        next: Option<Time>,
    },
}

/// The right to run one cycle.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// Fencing token.
    pub token: Token,
    /// Cycle row; 0 for a standing lease and for a job.
    pub cycle: CycleId,
    /// Why it runs.
    pub cause: Cause,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// A job's attempts allowed; 0 where the store knows no limit.
    pub max_attempts: u32,
    /// Payload or scope.
    pub input: CycleInput,
    /// End of the lease.
    pub expires_at: Time,
}

/// What a cycle publishes.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    /// The worker.
    pub worker: WorkerName,
    /// On behalf of this boot.
    pub session: SessionId,
    /// The right to do so.
    pub token: Token,
    /// The cycle; 0 for a job, which has none, and for a quiet worker, whose cycle row is then
    /// written by this publication.
    pub cycle: CycleId,
    /// Why it ran.
    pub cause: Cause,
    /// Now.
    pub now: Time,
    /// Domain statements, covers, events, jobs.
    pub commit: Commit,
    /// How the cycle ended; `None` for a step of a cycle that goes on.
    pub end: Option<CycleEnd>,
}

/// How a cycle ended.
#[derive(Debug, Clone, PartialEq)]
pub struct CycleEnd {
    /// Outcome.
    pub outcome: Outcome,
    /// Summary (success) or details.
    pub summary: serde_json::Value,
    /// Error text of a failure.
    pub error: Option<String>,
    /// When the cycle started.
    pub started_at: Time,
    /// What follows for the window, event or job behind it.
    pub follow_up: FollowUp,
    /// A window's hashes; set exactly when a window completes.
    pub window: Option<WindowHashes>,
    /// Published artifacts.
    pub artifacts: Vec<ArtifactRecord>,
    /// Next due instant of the worker.
    pub next_due: Option<Time>,
    /// Keep the lease (a standing one) instead of releasing it.
    pub keep_lease: bool,
}

/// The outcome of a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Still running.
    Running,
    /// Finished and published.
    Succeeded,
    /// Failed; its error is recorded.
    Failed,
    /// Asked to run again later; counts neither as success nor as failure.
    Snoozed,
    /// Stopped on request.
    Cancelled,
    /// Past its hard timeout: aborted and its token burnt.
    TimedOut,
    /// Its commit was refused.
    Fenced,
    /// Its node died.
    Lost,
}

impl Outcome {
    /// The word in the store and on pages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Snoozed => "snoozed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Fenced => "fenced",
            Self::Lost => "lost",
        }
    }

    /// The outcome of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [
            Self::Running,
            Self::Succeeded,
            Self::Failed,
            Self::Snoozed,
            Self::Cancelled,
            Self::TimedOut,
            Self::Fenced,
            Self::Lost,
        ]
        .into_iter()
        .find(|o| o.as_str() == word)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What follows for the window, event or job of a cycle that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FollowUp {
    /// It is done: window complete, job succeeded, cursor moved. For other causes: nothing.
    Finish,
    /// Another attempt not before then; this one counts.
    Retry {
        /// Not before.
        at: Time,
    },
    /// Again not before then; this attempt does not count.
    Again {
        /// Not before.
        at: Time,
    },
    /// No further attempt: window abandoned, job failed for good, event to the dead letters (and
    /// the cursor moved).
    GiveUp {
        /// Why, in an operator's words.
        reason: String,
    },
    /// An operator ended the job.
    Cancel {
        /// Who, and why.
        reason: String,
    },
}

/// A cycle's row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CycleRecord {
    /// Number.
    pub id: CycleId,
    /// Worker.
    pub worker: WorkerName,
    /// Why it ran.
    pub cause: Cause,
    /// Token.
    pub token: Token,
    /// Session.
    pub session: SessionId,
    /// Attempt.
    pub attempt: u32,
    /// Start.
    pub started_at: Time,
    /// End.
    pub finished_at: Option<Time>,
    /// Outcome.
    pub outcome: Outcome,
    /// Error.
    pub error: Option<String>,
    /// Summary.
    pub summary: serde_json::Value,
}

/// A ledger row: one due instant, or a range of them that shared one fate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OccurrenceRecord {
    /// Worker.
    pub worker: WorkerName,
    /// First (or only) due instant.
    pub due: Time,
    /// Last due instant of the range; equals `due` for one.
    pub through: Time,
    /// How many due instants the row stands for.
    pub count: i64,
    /// `fired`, `skipped` or `merged`.
    pub fate: String,
    /// Why it was skipped, where that was not the missed-run policy.
    pub reason: Option<String>,
    /// The cycle, where it fired.
    pub cycle: Option<CycleId>,
    /// When the row was written.
    pub recorded_at: Time,
}

/// A version of a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowRecord {
    /// Series.
    pub series: SeriesName,
    /// Start.
    pub start: Time,
    /// End, exclusive.
    pub end: Time,
    /// Version; readers see the newest complete one.
    pub version: i64,
    /// State.
    pub state: window::State,
    /// Attempts begun.
    pub attempts: u32,
    /// Why it failed, was abandoned, or is corrected.
    pub reason: Option<String>,
    /// Not before this instant.
    pub next_attempt_at: Option<Time>,
    /// Keys it covers.
    pub scope: Vec<String>,
    /// Hashes, once complete.
    pub hashes: Option<WindowHashes>,
    /// The cycle of the newest attempt.
    pub cycle: Option<CycleId>,
    /// Start of the newest attempt.
    pub started_at: Option<Time>,
    /// When it became complete or abandoned.
    pub finished_at: Option<Time>,
}

/// Which windows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WindowQuery {
    /// Only this series.
    pub series: Option<SeriesName>,
    /// Only this state.
    pub state: Option<window::State>,
    /// Starting at or after.
    pub from: Option<Time>,
    /// Starting before.
    pub to: Option<Time>,
    /// All versions instead of the newest of each.
    pub all_versions: bool,
    /// Newest first, at most this many.
    pub limit: u32,
}

/// What a person does to a window, as [`window::steer`] allowed it.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowChange {
    /// Series.
    pub series: SeriesName,
    /// Start.
    pub start: Time,
    /// End, exclusive.
    pub end: Time,
    /// Its newest version when it was decided; `None` when none was stored.
    pub seen: Option<WindowRecord>,
    /// What to do.
    pub change: window::Change,
    /// Who asks.
    pub by: String,
    /// Why, if it was said.
    pub reason: Option<String>,
}

/// Counts of one series by state, over the newest versions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SeriesSummary {
    /// Windows by state.
    pub counts: BTreeMap<window::State, i64>,
    /// First start.
    pub first: Option<Time>,
    /// Newest complete start.
    pub newest_complete: Option<Time>,
}

/// Where a series stands: what the window claimer decides from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Frontier {
    /// The lowest window of the range that is neither complete nor abandoned.
    pub unfinished: Option<WindowRecord>,
    /// Highest start stored in the range.
    pub last: Option<Time>,
}

/// A request to compute windows of the past, kept until it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillRecord {
    /// Number.
    pub id: i64,
    /// Series.
    pub series: SeriesName,
    /// First start.
    pub from: Time,
    /// End, exclusive.
    pub to: Time,
    /// Everything before this start is finished.
    pub cursor: Time,
    /// Who asked.
    pub requested_by: String,
    /// When.
    pub requested_at: Time,
    /// When the last window of it finished.
    pub finished_at: Option<Time>,
}

/// Which events.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EventQuery {
    /// Numbers greater than this, oldest first. `None`: the newest, oldest of them first.
    pub after: Option<i64>,
    /// Only kinds that match; a pattern may end in `*`. Empty: all.
    pub kinds: Vec<String>,
    /// At most this many.
    pub limit: u32,
}

/// A subscriber's place in the event stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriberRecord {
    /// The worker.
    pub worker: WorkerName,
    /// Kinds it wants.
    pub kinds: Vec<String>,
    /// Newest event that it has dealt with.
    pub cursor: i64,
    /// Attempts at the event after the cursor.
    pub attempts: u32,
    /// Not before.
    pub next_attempt_at: Option<Time>,
}

/// An event that a subscriber gave up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Number.
    pub id: i64,
    /// Subscriber.
    pub worker: WorkerName,
    /// The event.
    pub event: EventRecord,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Time,
    /// When it was given back to the subscriber, if it was.
    pub redriven_at: Option<Time>,
}

/// A published set of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRecord {
    /// Name.
    pub name: String,
    /// Directory, relative to the artifact root.
    pub path: String,
    /// SHA-256 (hex) of the manifest.
    pub manifest_sha256: String,
    /// Bytes of all files.
    pub bytes: i64,
    /// Number of files.
    pub files: i64,
    /// When.
    pub published_at: Time,
    /// Until when it is kept, unless it is the newest of its name.
    pub expires_at: Option<Time>,
}

/// How long finished history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Finished cycles, and the transitions of workers.
    pub cycles: Millis,
    /// Ledger rows; the newest of each worker always stays.
    pub occurrences: Millis,
    /// Events that every subscriber is past.
    pub events: Millis,
    /// Finished jobs.
    pub jobs: Millis,
}

/// Rows deleted by [`Store::prune`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pruned {
    /// Cycles.
    pub cycles: u64,
    /// Ledger rows.
    pub occurrences: u64,
    /// Events.
    pub events: u64,
    /// Jobs.
    pub jobs: u64,
    /// Directories of artifacts, relative to the artifact root, whose records are gone.
    pub artifacts: Vec<String>,
}

/// The runtime's store.
pub trait Store: Queue {
    /// Records the boot of a node.
    fn open_session(&self, session: SessionRecord) -> BoxFuture<'_, Result<()>>;
    /// Records its orderly end and releases every lease that it holds.
    fn close_session<'a>(
        &'a self,
        session: &'a SessionId,
        note: &'a str,
        now: Time,
    ) -> BoxFuture<'a, Result<()>>;
    /// Takes back what dead sessions held. With `exclusive` (this process is the only node, as on
    /// SQLite) every other session is dead; otherwise only expired leases are taken back.
    fn recover<'a>(
        &'a self,
        session: &'a SessionId,
        exclusive: bool,
        now: Time,
    ) -> BoxFuture<'a, Result<Recovered>>;
    /// Says that a node is alive, and asks what the store's clock says. Sessions that have not been
    /// heard of for [`NODE_LOST_AFTER`] are closed on their behalf.
    fn beat_node(&self, beat: NodeBeat, now: Time) -> BoxFuture<'_, Result<NodeAnswer>>;
    /// Nodes whose session is open, oldest first.
    fn nodes(&self, now: Time) -> BoxFuture<'_, Result<Vec<NodeRecord>>>;
    /// Tells other nodes what a commit changed, after it was made: best effort, debounced, in the
    /// background. Does nothing where there can be no other node.
    fn tell(&self, effects: &Effects);
    /// The next thing that other nodes told; pending where there can be no other node. Whatever may
    /// have been missed is told as [`Effects::everything`].
    fn told(&self) -> BoxFuture<'_, Effects>;
    /// Whether other nodes' words arrive at the moment: where they do not, look by polling.
    fn hears(&self) -> Hearing;
    /// Whether a call failed because no connection was free, or all were locked out, for too long.
    fn is_exhausted(&self, _error: &StoreError) -> bool {
        false
    }
    /// Newest sessions first.
    fn sessions(&self, limit: u32) -> BoxFuture<'_, Result<Vec<SessionRecord>>>;

    /// Adds or refreshes workers (and their subscriptions), and returns what is stored of each, in
    /// the same order. Counters, desired state and history are kept.
    fn register<'a>(
        &'a self,
        workers: &'a [Registration],
        now: Time,
    ) -> BoxFuture<'a, Result<Vec<WorkerRecord>>>;
    /// All workers, by name.
    fn workers(&self) -> BoxFuture<'_, Result<Vec<WorkerRecord>>>;
    /// Stores what an operator wants.
    fn set_desired<'a>(
        &'a self,
        worker: &'a WorkerName,
        desired: Desired,
        by: &'a str,
        now: Time,
    ) -> BoxFuture<'a, Result<()>>;
    /// Records changes of observed state.
    fn transition(&self, transitions: Vec<Transition>) -> BoxFuture<'_, Result<()>>;
    /// Newest transitions of a worker first.
    fn transitions<'a>(
        &'a self,
        worker: &'a WorkerName,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<Transition>>>;
    /// Stores the first gate of a worker (or that it has none); `blocked_since` is kept while the
    /// gate's kind stays the same.
    fn set_blocked<'a>(
        &'a self,
        worker: &'a WorkerName,
        gate: Option<Gate>,
        now: Time,
    ) -> BoxFuture<'a, Result<()>>;
    /// Stores what the restart policy must remember.
    fn save_restarts<'a>(
        &'a self,
        worker: &'a WorkerName,
        restarts: serde_json::Value,
    ) -> BoxFuture<'a, Result<()>>;
    /// Adds the heartbeats of quiet workers, in one transaction.
    fn beat(&self, beats: Vec<Beat>) -> BoxFuture<'_, Result<()>>;

    /// Tries to get the right to run something. A lease that expired is taken over: the cycle that
    /// held it becomes `lost`.
    fn claim(&self, request: ClaimRequest) -> BoxFuture<'_, Result<Claim>>;
    /// Records due instants that are passed over without a claim. A range that overlaps the
    /// ledger is refused as a conflict.
    fn record_passed<'a>(
        &'a self,
        worker: &'a WorkerName,
        passed: &'a [Passed],
        now: Time,
    ) -> BoxFuture<'a, Result<()>>;
    /// Extends every unexpired worker lease of a session; returns the workers that still hold one.
    fn renew<'a>(
        &'a self,
        session: &'a SessionId,
        ttl: Millis,
        now: Time,
    ) -> BoxFuture<'a, Result<Vec<WorkerName>>>;
    /// Gives a standing lease back that is not needed any more. One that is lost is passed over.
    fn release<'a>(
        &'a self,
        worker: &'a WorkerName,
        session: &'a SessionId,
        token: Token,
        now: Time,
    ) -> BoxFuture<'a, Result<()>>;
    /// Ends a claim from outside: no later commit under `token` is accepted. The cycle gets
    /// `outcome`, its window, event or job the follow-up.
    fn burn<'a>(&'a self, publication: Publication) -> BoxFuture<'a, Result<()>>;
    /// Publishes a step or the end of a cycle. Publishing an end again that is already recorded
    /// under its token is answered as done: an answer that was lost may be asked for again.
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<()>>;

    /// Newest cycles first; of one worker, or of all.
    fn cycles<'a>(
        &'a self,
        worker: Option<&'a WorkerName>,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<CycleRecord>>>;
    /// Newest ledger rows first.
    fn occurrences<'a>(
        &'a self,
        worker: &'a WorkerName,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<OccurrenceRecord>>>;

    /// Where a series stands within `[from, to)`.
    fn frontier<'a>(
        &'a self,
        series: &'a SeriesName,
        from: Time,
        to: Time,
    ) -> BoxFuture<'a, Result<Frontier>>;
    /// Windows that match, newest first.
    fn windows(&self, query: WindowQuery) -> BoxFuture<'_, Result<Vec<WindowRecord>>>;
    /// The windows of a series that share time with `[from, to)`, however long they are: the newest
    /// version of each, oldest first.
    fn windows_over<'a>(
        &'a self,
        series: &'a SeriesName,
        from: Time,
        to: Time,
    ) -> BoxFuture<'a, Result<Vec<window::InputWindow>>>;
    /// Every version of one window, oldest first.
    fn window<'a>(
        &'a self,
        series: &'a SeriesName,
        start: Time,
    ) -> BoxFuture<'a, Result<Vec<WindowRecord>>>;
    /// Counts by series.
    fn series(&self) -> BoxFuture<'_, Result<BTreeMap<SeriesName, SeriesSummary>>>;
    /// Opens a new version of a complete or abandoned window, to be computed again.
    fn correct_window<'a>(
        &'a self,
        series: &'a SeriesName,
        start: Time,
        reason: &'a str,
        now: Time,
    ) -> BoxFuture<'a, Result<WindowRecord>>;
    /// Does what a person decided about a window, and records who and why in its row and in an event
    /// (`window.retried` or `window.abandoned`). Refused as a conflict when the window is not as it
    /// was seen, such as when a cycle has begun with it meanwhile. Returns its newest version.
    fn change_window(&self, change: WindowChange, now: Time)
    -> BoxFuture<'_, Result<WindowRecord>>;
    /// Covers of a source, by key; each key's intervals ascending and not touching.
    fn covers<'a>(&'a self, source: &'a str)
    -> BoxFuture<'a, Result<BTreeMap<String, Vec<Cover>>>>;
    /// Stores a backfill request; an unfinished one of the same series that overlaps is widened.
    fn request_backfill<'a>(
        &'a self,
        series: &'a SeriesName,
        from: Time,
        to: Time,
        by: &'a str,
        now: Time,
    ) -> BoxFuture<'a, Result<BackfillRecord>>;
    /// Moves the cursor of a backfill; at its end the backfill is finished.
    fn advance_backfill(&self, id: i64, cursor: Time, now: Time) -> BoxFuture<'_, Result<()>>;
    /// Backfills, newest first; only unfinished ones on request.
    fn backfills(&self, unfinished: bool) -> BoxFuture<'_, Result<Vec<BackfillRecord>>>;

    /// Emits events outside a cycle (an operator's). Returns their numbers.
    fn emit<'a>(&'a self, events: Vec<NewEvent>, now: Time) -> BoxFuture<'a, Result<Vec<i64>>>;
    /// Events that match.
    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<Vec<EventRecord>>>;
    /// Subscribers and their cursors.
    fn subscribers(&self) -> BoxFuture<'_, Result<Vec<SubscriberRecord>>>;
    /// Dead letters, newest first.
    fn dead_letters(&self, limit: u32) -> BoxFuture<'_, Result<Vec<DeadLetter>>>;
    /// Gives a dead letter back to its subscriber, as a new event of the same kind for it alone.
    fn redrive(&self, id: i64, now: Time) -> BoxFuture<'_, Result<()>>;

    /// Conditions that workers have set, by name, each with the instant of its newest change.
    fn conditions(&self) -> BoxFuture<'_, Result<Vec<(Condition, Time)>>>;

    /// Deletes history older than its retention, at most `max_rows` rows of each table, oldest
    /// first. Never touches windows, covers, or anything that is not finished.
    fn prune(&self, keep: Retention, max_rows: u32, now: Time) -> BoxFuture<'_, Result<Pruned>>;

    /// Published artifacts, newest first.
    fn artifacts(&self, limit: u32) -> BoxFuture<'_, Result<Vec<ArtifactRecord>>>;

    /// A setting.
    fn setting<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<serde_json::Value>>>;
    /// Stores a setting.
    fn set_setting<'a>(
        &'a self,
        key: &'a str,
        value: serde_json::Value,
        now: Time,
    ) -> BoxFuture<'a, Result<()>>;
}
