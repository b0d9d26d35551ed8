//! One cycle, from the claim to its end.

use serde::{Deserialize, Serialize};

use super::history::ArtifactRecord;
use crate::commit::Commit;
use crate::schedule::Passed;
use crate::trigger::Cause;
use crate::units::{CycleId, Millis, SeriesName, SessionId, Time, Token, WorkerName};
use crate::worker::{CycleInput, WindowHashes};

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
