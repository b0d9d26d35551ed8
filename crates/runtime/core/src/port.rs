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

mod cycle;
mod history;
mod node;
mod queue;
mod window;
mod worker;

use std::collections::BTreeMap;

pub use self::cycle::{
    Claim, ClaimRequest, CycleEnd, CycleRecord, FollowUp, Grant, OccurrenceRecord, Outcome,
    Publication, Target,
};
pub use self::history::{
    ArtifactRecord, DeadLetter, EventQuery, Pruned, Retention, SubscriberRecord,
};
pub use self::node::{
    Hearing, NODE_LOST_AFTER, NodeAnswer, NodeBeat, NodeRecord, Recovered, SessionRecord,
};
pub use self::queue::{
    AttemptRecord, Enqueued, HeldJob, JobAction, JobBatch, JobChange, JobChanged, JobClaim, JobEnd,
    JobFilter, JobProgress, JobQuery, JobRecord, KindRecord, KindStats, Queue,
};
pub use self::window::{
    BackfillRecord, Frontier, SeriesSummary, WindowChange, WindowQuery, WindowRecord,
};
pub use self::worker::{Beat, Registration, Transition, WorkerRecord};
use crate::commit::{Condition, Cover, NewEvent};
use crate::effects::Effects;
use crate::gate::Gate;
use crate::lifecycle::Desired;
use crate::schedule::Passed;
use crate::units::{Millis, SeriesName, SessionId, Time, Token, WorkerName};
use crate::window::InputWindow;
use crate::worker::{BoxFuture, EventRecord};

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
    ) -> BoxFuture<'a, Result<Vec<InputWindow>>>;
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
