//! What the engine and an operator ask of the durable queue.
//!
//! A job's row is in the hot table while it is queued or running, and moves to the history when it
//! ends: `succeeded`, `failed` (the dead letter) or `cancelled`. Each grant of a job has its own
//! token, one higher than the last; whatever ends the grant (a completion, a reclaim, a burn) makes
//! a later word under that token worthless. A job's cycle is recorded in the job's own row and in
//! its attempts, so it has no row among the cycles and its [`CycleId`](crate::CycleId) is 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FollowUp, Grant, Outcome, Result};
use crate::commit::NewJob;
use crate::job::{self, Kind};
use crate::units::{Millis, SessionId, Time, Token, WorkerName};
use crate::worker::BoxFuture;

/// What became of one job of an [`Queue::enqueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enqueued {
    /// It was added, under this number.
    Added(i64),
    /// A job with the same unique key is in a state that its mask names: this one, where known.
    Duplicate(Option<i64>),
}

impl Enqueued {
    /// The number of a job that was added.
    #[must_use]
    pub const fn id(self) -> Option<i64> {
        match self {
            Self::Added(id) => Some(id),
            Self::Duplicate(_) => None,
        }
    }
}

/// A wish for jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobClaim {
    /// The worker that consumes them.
    pub worker: WorkerName,
    /// On behalf of this boot.
    pub session: SessionId,
    /// Kinds it consumes.
    pub kinds: Vec<String>,
    /// At most this many.
    pub most: u32,
    /// Now, by the node's clock.
    pub now: Time,
    /// How long the leases hold unless renewed.
    pub ttl: Millis,
}

/// What a claim of jobs found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JobBatch {
    /// The jobs: highest priority first, then by due time, then by number. Their cause is
    /// [`Cause::Job`](crate::Cause::Job), their input [`CycleInput::Job`](crate::CycleInput::Job).
    pub grants: Vec<Grant>,
    /// When to look again, where fewer than asked for were found and a time is known: the next
    /// due time, the end of another holder's lease, or the next instant that a rate limit allows.
    pub next: Option<Time>,
    /// Jobs of dead holders that this claim put back into the queue.
    pub reclaimed: u32,
    /// Jobs of dead holders that this claim gave up: their holders died too often.
    pub buried: u32,
}

/// How the cycle of a job ended that has nothing else to publish.
#[derive(Debug, Clone, PartialEq)]
pub struct JobEnd {
    /// The job.
    pub id: i64,
    /// The right to end it.
    pub token: Token,
    /// How.
    pub outcome: Outcome,
    /// What follows.
    pub follow_up: FollowUp,
    /// Its result: the cycle's summary.
    pub result: serde_json::Value,
    /// The error of a failure.
    pub error: Option<String>,
    /// When the cycle began.
    pub started_at: Time,
}

/// A running job that a session holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldJob {
    /// The job.
    pub id: i64,
    /// Under this token.
    pub token: Token,
    /// An operator wants it to end.
    pub cancel: bool,
}

/// How far a running job is.
#[derive(Debug, Clone, PartialEq)]
pub struct JobProgress {
    /// The job.
    pub id: i64,
    /// Under this token; progress of a lost grant is dropped.
    pub token: Token,
    /// 0 to 100.
    pub percent: f64,
    /// A few words.
    pub message: String,
}

/// A job's row, live or finished.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Number.
    pub id: i64,
    /// Kind.
    pub kind: String,
    /// Payload.
    pub payload: serde_json::Value,
    /// State.
    pub state: job::State,
    /// Priority: higher runs first.
    pub priority: i32,
    /// Unique key.
    pub unique_key: Option<String>,
    /// The states in which it keeps others with that key away.
    pub unique_in: job::Mask,
    /// What the limit per key counts by.
    pub limit_key: Option<String>,
    /// Attempts that counted.
    pub attempts: u32,
    /// Attempts allowed.
    pub max_attempts: u32,
    /// Times that a dead holder's lease was taken over.
    pub reclaims: u32,
    /// Not before.
    pub run_at: Time,
    /// Enqueued at.
    pub created_at: Time,
    /// Newest attempt began.
    pub started_at: Option<Time>,
    /// Finished at.
    pub finished_at: Option<Time>,
    /// Newest error, or why it ended without success.
    pub error: Option<String>,
    /// Result of a success; of a failure, what kind of [`Refusal`](crate::Refusal) it was, if one.
    pub result: Option<serde_json::Value>,
    /// The worker of the newest attempt.
    pub worker: Option<WorkerName>,
    /// Who holds it while it runs.
    pub holder: Option<SessionId>,
    /// End of that lease.
    pub lease_expires_at: Option<Time>,
    /// Percent and words of the running attempt.
    pub progress: Option<(f64, String)>,
    /// An operator asked for its end while it runs.
    pub cancel_requested: bool,
}

/// An attempt that did not succeed, or a lease that was taken back. The newest
/// [`job::ATTEMPTS_KEPT`] of each job are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Which attempt, from 1.
    pub attempt: u32,
    /// How it ended: `failed`, `timed_out`, `snoozed`, `lost`, `cancelled`.
    pub outcome: Outcome,
    /// Began.
    pub started_at: Option<Time>,
    /// Ended.
    pub finished_at: Time,
    /// On which boot.
    pub session: Option<SessionId>,
    /// Why.
    pub error: Option<String>,
}

/// Which jobs. Everything that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobFilter {
    /// These numbers; empty: any.
    pub ids: Vec<i64>,
    /// This kind.
    pub kind: Option<String>,
    /// This state.
    pub state: Option<job::State>,
    /// This unique key.
    pub unique_key: Option<String>,
    /// This limit key.
    pub limit_key: Option<String>,
    /// Whose newest error contains this text.
    pub error: Option<String>,
    /// Enqueued before.
    pub created_before: Option<Time>,
    /// Finished before.
    pub finished_before: Option<Time>,
}

impl JobFilter {
    /// Whether it names nothing, and so every job.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

/// Which jobs to show.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct JobQuery {
    /// Which.
    pub filter: JobFilter,
    /// Numbers below this one only: the next page.
    pub before: Option<i64>,
    /// Newest first, at most this many.
    pub limit: u32,
}

/// What an operator does to jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobAction {
    /// Ends what is queued at once, and asks the holder of what runs.
    Cancel,
    /// Runs what is queued for later now.
    RunNow,
    /// Gives what failed or was cancelled a fresh set of attempts, now. One whose unique key is
    /// taken is left where it is.
    Redrive,
    /// Deletes what has ended.
    Purge,
}

impl JobAction {
    /// States that it applies to.
    #[must_use]
    pub const fn applies_to(self) -> &'static [job::State] {
        match self {
            Self::Cancel => &[job::State::Queued, job::State::Running],
            Self::RunNow => &[job::State::Queued],
            Self::Redrive => &[job::State::Failed, job::State::Cancelled],
            Self::Purge => &[job::State::Succeeded, job::State::Failed, job::State::Cancelled],
        }
    }
}

/// An operator's change of many jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobChange {
    /// Which; those to which the action does not apply are left alone.
    pub filter: JobFilter,
    /// What.
    pub action: JobAction,
    /// At most this many, oldest first.
    pub limit: u32,
    /// Only says what it would do.
    pub preview: bool,
    /// Who asked.
    pub by: String,
}

/// What a change did, or would do.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct JobChanged {
    /// Jobs that match and to which the action applies, before the limit.
    pub matched: u64,
    /// Jobs changed; 0 in a preview.
    pub changed: u64,
    /// Running ones among them, which their holders were asked to end.
    pub asked: u64,
    /// Some of them, as they were before, oldest first.
    pub sample: Vec<JobRecord>,
}

/// A kind as it is stored: known to every node, also to one that does not consume it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KindRecord {
    /// Its definition.
    pub kind: Kind,
    /// The worker that consumes it, as last registered.
    pub worker: WorkerName,
    /// When that was.
    pub registered_at: Time,
}

/// Counts of one kind.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct KindStats {
    /// By state. Finished ones are those that retention has left.
    pub counts: BTreeMap<job::State, i64>,
    /// Queued and due.
    pub due: i64,
    /// Due time of the oldest that is due.
    pub oldest_due: Option<Time>,
    /// Due time of the next that is not.
    pub next_due: Option<Time>,
}

/// The durable queue.
pub trait Queue: Send + Sync + 'static {
    /// Adds jobs outside a cycle, in one transaction, and answers for each in the same order.
    ///
    /// Refused as [`StoreError::Invalid`](super::StoreError::Invalid), with nothing added: an
    /// unknown kind, a payload that its schema refuses or that is longer than
    /// [`job::MAX_PAYLOAD`], a negative priority, an empty key, a time before
    /// [`job::OLDEST_RUN_AT`]. The error names the job's place and the field.
    fn enqueue(&self, jobs: Vec<NewJob>, now: Time) -> BoxFuture<'_, Result<Vec<Enqueued>>>;

    /// Leases due jobs by priority, due time and number, within the limits of their kinds
    /// (concurrency, concurrency per key, rate). Jobs whose lease expired are reclaimed on the way:
    /// queued again, or `failed` after [`job::MAX_RECLAIMS`] of them.
    ///
    /// Of what is due when the claim looks, the first come first. Where several nodes share a
    /// store, a node in the middle of a long stretch of one kind may overlook for up to a quarter
    /// of a second that another node has added something more urgent.
    ///
    /// A lease need not survive a crash of the machine or of the server: the job is then queued as
    /// before, and may be leased again under the same token. Only one session can end it, and a
    /// session that is granted what it holds already goes on with it.
    fn claim_jobs(&self, claim: JobClaim) -> BoxFuture<'_, Result<JobBatch>>;
    /// Ends jobs that have nothing else to publish, many in one transaction. Answers for each
    /// whether its token held; a refused one is recorded with an event `commit.refused`. Ending a
    /// job again under the token that ended it is answered with `true`.
    fn finish_jobs<'a>(
        &'a self,
        worker: &'a WorkerName,
        session: &'a SessionId,
        ends: Vec<JobEnd>,
        now: Time,
    ) -> BoxFuture<'a, Result<Vec<bool>>>;
    /// Gives jobs back that were leased and not begun: queued again, no attempt spent. Tokens that
    /// are lost are passed over.
    fn release_jobs<'a>(
        &'a self,
        session: &'a SessionId,
        jobs: Vec<(i64, Token)>,
        now: Time,
    ) -> BoxFuture<'a, Result<()>>;
    /// Extends every unexpired job lease of a session, and returns what it holds.
    fn renew_jobs<'a>(
        &'a self,
        session: &'a SessionId,
        ttl: Millis,
        now: Time,
    ) -> BoxFuture<'a, Result<Vec<HeldJob>>>;
    /// Stores how far running jobs are.
    fn progress_jobs(&self, progress: Vec<JobProgress>, now: Time) -> BoxFuture<'_, Result<()>>;

    /// Jobs that match, live and finished, newest first.
    fn jobs(&self, query: JobQuery) -> BoxFuture<'_, Result<Vec<JobRecord>>>;
    /// One job.
    fn job(&self, id: i64) -> BoxFuture<'_, Result<Option<JobRecord>>>;
    /// Attempts of a job that did not succeed, oldest first.
    fn attempts(&self, id: i64) -> BoxFuture<'_, Result<Vec<AttemptRecord>>>;
    /// Changes many jobs, or says what it would change.
    fn change_jobs(&self, change: JobChange, now: Time) -> BoxFuture<'_, Result<JobChanged>>;
    /// Kinds that were ever registered, by name.
    fn kinds(&self) -> BoxFuture<'_, Result<Vec<KindRecord>>>;
    /// Counts by kind.
    fn queue_stats(&self, now: Time) -> BoxFuture<'_, Result<BTreeMap<String, KindStats>>>;
}
