//! The contract itself.

use watchbell_core::gate::Explanation;
use watchbell_core::port::{
    BackfillRecord, DeadLetter, Enqueued, EventQuery, JobChange, JobChanged, JobQuery, JobRecord,
    KindRecord, NodeRecord, WindowQuery, WindowRecord, WorkerRecord,
};
use watchbell_core::{BoxFuture, EventRecord, Millis, NewJob, SeriesName, Time, WorkerName};

use crate::error::ControlError;
use crate::request::{
    ActRequest, BackfillReport, BackfillRequest, EmitRequest, Emitted, RunReport, RunRequest,
    VerifyReport, VerifyRequest, WindowChanged, WindowRequest,
};
use crate::status::{
    JobDetail, NodeInfo, QueueLine, Readiness, ScheduleLine, Status, WorkerDetail, WorkerHealth,
    WorkerLine, WorkersHealth,
};

/// Result of a control call.
pub type Result<T> = std::result::Result<T, ControlError>;

/// Everything that one can ask of Watchbell, and have it do.
///
/// Object-safe, so that a command, a route or a page holds `&dyn Control` and does not know whether
/// a node answers or the store. All lists are bounded: by the limit of the query, or by the number
/// of registered workers and series.
///
/// # Errors
/// Every method answers [`ControlError::NotFound`] for a name that does not exist,
/// [`ControlError::Invalid`] for a request that makes no sense, [`ControlError::BadInput`] where one
/// part of what was sent is wrong, [`ControlError::Conflict`] for what the present state forbids,
/// and [`ControlError::Unavailable`] when the store, or the node that the method needs, cannot be
/// reached.
pub trait Control: Send + Sync {
    /// Who answers: cheap, used to check that a node is the one that was looked for.
    fn node(&self) -> BoxFuture<'_, Result<NodeInfo>>;
    /// Whether the node can do its work: the store answers and the supervisor has started.
    fn ready(&self) -> BoxFuture<'_, Result<Readiness>>;
    /// The whole picture.
    fn status(&self) -> BoxFuture<'_, Result<Status>>;
    /// All workers, by name.
    fn workers(&self) -> BoxFuture<'_, Result<Vec<WorkerLine>>>;
    /// One worker with its definition and recent history.
    fn worker(&self, name: WorkerName) -> BoxFuture<'_, Result<WorkerDetail>>;
    /// Stores what an operator wants of a worker, and returns its record afterwards. The change
    /// itself happens when the supervisor next looks, at once on a running node.
    fn act(&self, request: ActRequest) -> BoxFuture<'_, Result<WorkerRecord>>;
    /// Runs one cycle of a worker now and waits for its end.
    fn run(&self, request: RunRequest) -> BoxFuture<'_, Result<RunReport>>;
    /// Workers that a clock starts (`every`, `cron`, `window`), with their due instants.
    fn schedules(&self) -> BoxFuture<'_, Result<Vec<ScheduleLine>>>;
    /// Windows that match, newest first.
    fn windows(&self, query: WindowQuery) -> BoxFuture<'_, Result<Vec<WindowRecord>>>;
    /// Every version of one window, oldest first; never empty.
    fn window(&self, series: SeriesName, start: Time) -> BoxFuture<'_, Result<Vec<WindowRecord>>>;
    /// Computes windows again without writing, and compares the result hashes. In order of series
    /// and start.
    fn verify(&self, request: VerifyRequest) -> BoxFuture<'_, Result<Vec<VerifyReport>>>;
    /// Asks for windows of the past, or tells what such a request would compute.
    fn backfill(&self, request: BackfillRequest) -> BoxFuture<'_, Result<BackfillReport>>;
    /// Has one window tried again or given up, or tells what that would do.
    fn change_window(&self, request: WindowRequest) -> BoxFuture<'_, Result<WindowChanged>>;
    /// Backfills, newest first.
    fn backfills(&self) -> BoxFuture<'_, Result<Vec<BackfillRecord>>>;
    /// Events that match, oldest first.
    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<Vec<EventRecord>>>;
    /// Events after a number that match, oldest first: as soon as there is one, and none when
    /// `wait` of real time has passed without. The answer may be empty sooner.
    fn next_events(
        &self,
        query: EventQuery,
        wait: Millis,
    ) -> BoxFuture<'_, Result<Vec<EventRecord>>>;
    /// Emits an event as an operator.
    fn emit(&self, request: EmitRequest) -> BoxFuture<'_, Result<Emitted>>;
    /// Events that a subscriber gave up, newest first, at most `limit`.
    fn dead_letters(&self, limit: u32) -> BoxFuture<'_, Result<Vec<DeadLetter>>>;
    /// Adds jobs, all or none, and answers for each in the same order. A job that cannot be taken
    /// is [`ControlError::BadInput`] with its place, such as `jobs[3].payload.symbol`.
    fn enqueue(&self, jobs: Vec<NewJob>) -> BoxFuture<'_, Result<Vec<Enqueued>>>;
    /// Jobs that match, newest first.
    fn jobs(&self, query: JobQuery) -> BoxFuture<'_, Result<Vec<JobRecord>>>;
    /// One job.
    fn job(&self, id: i64) -> BoxFuture<'_, Result<JobDetail>>;
    /// Changes many jobs, or tells what it would change.
    fn change_jobs(&self, change: JobChange) -> BoxFuture<'_, Result<JobChanged>>;
    /// Kinds of jobs, by name: those that any node ever registered.
    fn kinds(&self) -> BoxFuture<'_, Result<Vec<KindRecord>>>;
    /// How many jobs of each kind are where, and who consumes it, by kind.
    fn queue(&self) -> BoxFuture<'_, Result<Vec<QueueLine>>>;
    /// Nodes on the store, oldest first.
    fn nodes(&self) -> BoxFuture<'_, Result<Vec<NodeRecord>>>;
    /// Why a thing does or does not run: a worker's name, `series/start` of a window, a series,
    /// `job/7`, or `kind/export`.
    fn explain(&self, thing: String) -> BoxFuture<'_, Result<Explanation>>;
    /// The metrics in Prometheus' text format.
    fn metrics(&self) -> BoxFuture<'_, Result<String>>;
    /// The health of one worker.
    fn health(&self, name: WorkerName) -> BoxFuture<'_, Result<WorkerHealth>>;
    /// The health of all workers.
    fn workers_health(&self) -> BoxFuture<'_, Result<WorkersHealth>>;
}
