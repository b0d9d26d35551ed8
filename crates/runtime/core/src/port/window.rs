//! Windows of a series, what a person does to them, and backfills.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::units::{CycleId, SeriesName, Time};
use crate::window;
use crate::worker::WindowHashes;

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
