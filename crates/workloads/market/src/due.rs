//! Which windows of a stretch are due, and which of them are not there: also those that nobody has
//! begun, of which there is no row.

use std::collections::BTreeMap;

use watchbell_core::{Millis, Time, values};
use watchbell_db::{Database, DbError};

use crate::universe::Listings;
use crate::window::series_name;

/// How far back the windows of "the last day" begin.
pub(crate) const DAY: Millis = Millis::from_hours(24);
/// A window may take this long after its end before it counts as missing.
pub(crate) const PATIENCE: Millis = Millis::from_mins(5);

/// A window that is not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lacking {
    pub(crate) start: Time,
    /// Whether it was given up; all others are still to come.
    pub(crate) is_abandoned: bool,
    /// Whether somebody has begun it, so that `ops.windows` has a row.
    pub(crate) is_begun: bool,
}

/// The windows of one label that were due in a stretch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Due {
    /// How many there should be.
    pub(crate) expected: usize,
    /// Those that are not complete, oldest first.
    pub(crate) lacking: Vec<Lacking>,
}

impl Due {
    /// Starts of those that are still to come.
    pub(crate) fn missing(&self) -> Vec<Time> {
        self.lacking.iter().filter(|l| !l.is_abandoned).map(|l| l.start).collect()
    }

    /// Starts of those that were given up.
    pub(crate) fn abandoned(&self) -> Vec<Time> {
        self.lacking.iter().filter(|l| l.is_abandoned).map(|l| l.start).collect()
    }
}

/// The windows of `length` that begin at `from` or later and should be complete at `now`, and of which
/// some symbol was listed. Of several versions a complete one answers, else the newest.
pub(crate) async fn windows(
    db: &Database,
    length: Millis,
    from: Time,
    now: Time,
) -> Result<Due, DbError> {
    let (from, until) = (from.ceil(length), now - PATIENCE);
    let rows = db
        .query(
            "select start_at, state from ops.windows where series = $1 and start_at >= $2
             order by start_at, version",
            values![series_name(length), from],
        )
        .await?;
    let mut states = BTreeMap::new();
    for row in &rows {
        let state = row.text(1)?.to_owned();
        let known = states.entry(row.time(0)?).or_insert_with(|| state.clone());
        if known != "complete" {
            *known = state;
        }
    }
    let listings = Listings::load(db).await?;
    let mut due = Due::default();
    let mut start = from;
    while start + length <= until {
        if listings.during(start, start + length).next().is_some() {
            due.expected += 1;
            let state = states.get(&start).map(String::as_str);
            if state != Some("complete") {
                due.lacking.push(Lacking {
                    start,
                    is_abandoned: state == Some("abandoned"),
                    is_begun: state.is_some(),
                });
            }
        }
        start += length;
    }
    Ok(due)
}
