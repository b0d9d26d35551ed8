//! Events and who handles them, artifacts, and how long what is over is kept.

use serde::{Deserialize, Serialize};

use crate::units::{Millis, Time, WorkerName};
use crate::worker::EventRecord;

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

/// Rows deleted by [`Store::prune`](super::Store::prune).
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
