//! What an operator asks for, and the reports on it.

use serde::{Deserialize, Serialize};
use watchbell_core::port::{
    BackfillRecord, CycleRecord, JobAction, JobChange, JobFilter, Outcome, WindowRecord,
};
use watchbell_core::window::{Change, Wish};
use watchbell_core::{SeriesName, Time, WorkerName};

/// What to do with a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Let it run.
    Start,
    /// Finish or cancel its cycle, then stand still until started, across restarts of the node.
    Stop,
    /// Finish its cycle, then start none; heartbeats go on.
    Pause,
    /// Go on after a pause; missed due instants follow the worker's policy.
    Resume,
    /// Stop it and start it again; clears its failure count.
    Restart,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 5] = [Self::Start, Self::Stop, Self::Pause, Self::Resume, Self::Restart];

    /// The word in commands and routes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Restart => "restart",
        }
    }

    /// The action of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.as_str() == word)
    }
}

/// An operator's wish about a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActRequest {
    /// The worker.
    pub worker: WorkerName,
    /// What to do.
    pub action: Action,
    /// Who asks, for the record: `ada@host`.
    pub by: String,
}

/// The body of `POST workers/{name}/{action}`; the path says the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActBody {
    /// Who asks.
    #[serde(default = "somebody")]
    pub by: String,
}

fn somebody() -> String {
    "http".to_owned()
}

/// Names one window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowRef {
    /// Series.
    pub series: SeriesName,
    /// Start.
    pub start: Time,
}

/// A wish to run one cycle now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRequest {
    /// The worker.
    pub worker: WorkerName,
    /// How.
    pub options: RunOptions,
}

/// How to run a cycle: the body of `POST workers/{name}/run`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunOptions {
    /// Compute, print what would be written, write nothing.
    pub dry_run: bool,
    /// Run although a gate that an operator may override says no.
    pub force: bool,
    /// For a window worker: which window. `None` is the next one that is ready.
    pub window: Option<WindowRef>,
}

/// How a run went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// The worker.
    pub worker: WorkerName,
    /// The cycle's row; none in a dry run, and none when there was nothing to do.
    pub cycle: Option<CycleRecord>,
    /// In a dry run: what would be written, one line per table and kind.
    pub dry_run: Option<Vec<String>>,
    /// The cycle's summary.
    pub summary: serde_json::Value,
    /// How it ended.
    pub outcome: Outcome,
}

/// Which windows to compute again and compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum VerifyRequest {
    /// One window; it must exist.
    One {
        /// Series.
        series: SeriesName,
        /// Start.
        start: Time,
    },
    /// Every complete window that starts in `[from, to)`.
    Range {
        /// Only this series.
        series: Option<SeriesName>,
        /// From.
        from: Option<Time>,
        /// To, exclusive.
        to: Option<Time>,
    },
}

/// What computing a window again showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Series.
    pub series: SeriesName,
    /// Start.
    pub start: Time,
    /// Version that was checked; none when there is no complete one.
    pub version: Option<i64>,
    /// The result hash in the store.
    pub stored: Option<String>,
    /// The result hash of the new computation.
    pub recomputed: Option<String>,
    /// The comparison.
    pub verdict: Verdict,
    /// What there is to say, such as why it could not be computed again.
    pub detail: Option<String>,
}

/// The comparison of a stored result with a new computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The hashes are equal.
    Same,
    /// The inputs are the same and the result is not.
    Different,
    /// The inputs changed since (their hash differs), so the results cannot be compared.
    InputsChanged,
    /// The inputs were removed for their age since, so it cannot be computed again as it was.
    InputsRemoved,
    /// The window is not complete: there is nothing to compare.
    Missing,
    /// The new computation failed.
    Failed,
}

impl Verdict {
    /// Whether nothing speaks against the stored result.
    #[must_use]
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Same | Self::InputsRemoved)
    }

    /// The word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Different => "different",
            Self::InputsChanged => "inputs changed",
            Self::InputsRemoved => "inputs removed",
            Self::Missing => "missing",
            Self::Failed => "failed",
        }
    }
}

/// A wish for windows of the past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillRequest {
    /// Only this series; `None` is all.
    pub series: Option<SeriesName>,
    /// First start; rounded down to a window's start.
    pub from: Time,
    /// End, exclusive; rounded up to a window's end.
    pub to: Time,
    /// Only tell what would be computed.
    #[serde(default)]
    pub preview: bool,
    /// Also compute complete windows again, as new versions, for this reason.
    #[serde(default)]
    pub recompute: Option<String>,
    /// Who asks, for the record.
    pub by: String,
}

/// What a backfill will compute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillReport {
    /// Nothing was stored.
    pub preview: bool,
    /// Per series.
    pub series: Vec<BackfillLine>,
    /// The stored requests; empty in a preview, and for a series with nothing to compute.
    pub records: Vec<BackfillRecord>,
}

/// What a backfill will compute of one series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillLine {
    /// Series.
    pub series: SeriesName,
    /// First start, aligned.
    pub from: Time,
    /// End, exclusive, aligned.
    pub to: Time,
    /// Windows in the span.
    pub windows: i64,
    /// Of these, complete already.
    pub complete: i64,
    /// Of these, to compute.
    pub to_compute: i64,
}

/// A wish about one window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowRequest {
    /// Series.
    pub series: SeriesName,
    /// Start.
    pub start: Time,
    /// What to do.
    pub wish: Wish,
    /// How, why, and who asks.
    pub options: WindowOptions,
}

/// How a window is changed: the body of `POST windows/{series}/{start}/{wish}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WindowOptions {
    /// Why, for the record; must be said of a window that is abandoned.
    pub reason: Option<String>,
    /// Only tell what would be done.
    pub preview: bool,
    /// Who asks.
    pub by: String,
}

impl Default for WindowOptions {
    fn default() -> Self {
        Self { reason: None, preview: false, by: somebody() }
    }
}

/// What was done to a window, or would be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowChanged {
    /// Nothing was stored.
    pub preview: bool,
    /// Series.
    pub series: SeriesName,
    /// Start.
    pub start: Time,
    /// What was done.
    pub change: Change,
    /// Its newest version before; `None` when nothing of it was stored.
    pub before: Option<WindowRecord>,
    /// Its newest version after; `None` in a preview.
    pub after: Option<WindowRecord>,
}

/// An event that an operator emits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmitRequest {
    /// Dotted type.
    pub kind: String,
    /// What it is about.
    #[serde(default)]
    pub key: String,
    /// Details.
    #[serde(default)]
    pub payload: serde_json::Value,
}

/// The number of an event that was emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emitted {
    /// Its number.
    pub id: i64,
}

/// What can be done to jobs, under its word in commands and routes.
pub const JOB_ACTIONS: [(&str, JobAction); 4] = [
    ("cancel", JobAction::Cancel),
    ("retry", JobAction::RunNow),
    ("redrive", JobAction::Redrive),
    ("purge", JobAction::Purge),
];

/// The word of what is done to jobs.
#[must_use]
pub const fn job_action_word(action: JobAction) -> &'static str {
    match action {
        JobAction::Cancel => "cancel",
        JobAction::RunNow => "retry",
        JobAction::Redrive => "redrive",
        JobAction::Purge => "purge",
    }
}

/// Jobs that one change takes at most, unless it says otherwise.
pub const CHANGE_LIMIT: u32 = 10_000;

/// The body of `POST jobs/{action}`; the path says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobChangeBody {
    /// Which.
    pub filter: JobFilter,
    /// Really all of them: must be said where the filter names nothing.
    pub all: bool,
    /// At most this many, oldest first.
    pub limit: u32,
    /// Only say what it would do.
    pub preview: bool,
    /// Who asks.
    pub by: String,
}

impl Default for JobChangeBody {
    fn default() -> Self {
        Self {
            filter: JobFilter::default(),
            all: false,
            limit: CHANGE_LIMIT,
            preview: false,
            by: somebody(),
        }
    }
}

impl From<JobChange> for JobChangeBody {
    fn from(change: JobChange) -> Self {
        Self {
            all: change.filter.is_everything(),
            filter: change.filter,
            limit: change.limit,
            preview: change.preview,
            by: change.by,
        }
    }
}

/// Bytes that the jobs of one request may have.
pub const MAX_BULK: usize = 16 << 20;
