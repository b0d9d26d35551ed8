//! Workers: what is registered, how they stand, and their heartbeats.

use serde::{Deserialize, Serialize};

use crate::gate::Gate;
use crate::job;
use crate::lifecycle::{Desired, State};
use crate::units::{Millis, SessionId, Time, Token, WorkerName};

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
