//! Nodes: their sessions, that they are alive, and what dead ones held.

use serde::{Deserialize, Serialize};

use crate::units::{Millis, SessionId, Time, Token, WorkerName};

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

/// What [`Store::recover`](super::Store::recover) cleaned up after sessions that ended without a word.
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
