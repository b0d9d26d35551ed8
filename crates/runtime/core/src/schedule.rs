//! When a trigger is due.
//!
//! A *due instant* is the identity of a tick: the ledger has one row per (worker, due instant).
//! Whatever happened while a node was down, [`plan`] divides the due instants between the newest one
//! in the ledger and the present, exactly: each is in `fire` or in one range of `passed`, so none is
//! lost and none is named twice.
//!
//! # Daylight saving time
//!
//! A cron expression is matched against the wall clock of its zone.
//!
//! * An expression is *interval-like* when its second, minute or hour field contains `*` or a step
//!   (`*/30 * * * *`, `0 * * * *`). It is due at each real instant whose wall clock matches: nothing
//!   in an hour that does not exist, and twice in an hour that happens twice.
//! * Any other expression names *fixed times* (`30 2 * * *`, `0,30 9-17 * * 1-5`). Those that fall
//!   into a gap are due once, together, at the first instant after the gap; those in a repeated hour
//!   are due the first time only.
//!
//! The rules of the zones are those built into the binary, not the machine's: two nodes of the same
//! version agree.

mod cron;
mod wall;

use std::fmt;

pub use self::cron::{Cron, CronError};
use crate::trigger::{Missed, Trigger};
use crate::units::{Millis, Time};

/// A due instant that is at most this old is *on time*: it is no missed one, and [`Missed::Skip`]
/// runs it.
pub const ON_TIME: Millis = Millis::from_secs(5);

/// Due instants of one trigger in `(last, now]`, divided, and the next one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// To run, oldest first.
    pub fire: Vec<Time>,
    /// Not to run, oldest range first. No instant of it lies between two of `fire`.
    pub passed: Vec<Passed>,
    /// The first due instant after `now`.
    pub next: Option<Time>,
}

/// A range of due instants that do not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// The oldest.
    pub first: Time,
    /// The newest.
    pub last: Time,
    /// How many due instants there are from `first` to `last`, both included.
    pub count: u64,
    /// What became of them.
    pub fate: Fate,
}

/// Why a due instant did not run.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It passed while nothing could run, and the policy does not run it later.
    Skipped,
    /// A newer due instant ran in its place.
    Merged,
    /// Skipped by an opportunistic worker, for the next one came while it gave way.
    GaveWay,
    /// Skipped to spare a store that is slow.
    Throttled,
}

impl Fate {
    /// As the ledger stores it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skipped | Self::GaveWay | Self::Throttled => "skipped",
            Self::Merged => "merged",
        }
    }

    /// Why it was skipped, as the ledger stores it beside the fate; `None` where the missed-run
    /// policy is the reason.
    #[must_use]
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Skipped | Self::Merged => None,
            Self::GaveWay => Some("gave way"),
            Self::Throttled => Some("the store was slow"),
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The first due instant strictly after `after`; `None` for a trigger that has none, or none within
/// the calendar (year 9999). Windows are in [`window`](crate::window).
#[must_use]
pub fn next_due(trigger: &Trigger, after: Time) -> Option<Time> {
    Due::of(trigger)?.next_after(after)
}

/// The due instants strictly after `after`, oldest first, without end.
pub fn upcoming(trigger: &Trigger, after: Time) -> impl Iterator<Item = Time> + '_ {
    std::iter::successors(next_due(trigger, after), |t| next_due(trigger, *t))
}

/// When the tick of `due` starts: `due <= result < due + spread`, or `due` itself without a spread.
/// The same worker and due instant always give the same result.
#[must_use]
pub fn jittered(worker: &str, due: Time, spread: Millis) -> Time {
    if spread.0 <= 0 {
        return due;
    }
    let hash = crate::retry::hash(worker.as_bytes(), due.0.unsigned_abs());
    due + Millis((hash % spread.0.unsigned_abs()).cast_signed())
}

/// Divides the due instants in `(last, now]` by the missed-run policy.
///
/// `last` is the newest due instant in the ledger, or when the worker was first registered while the
/// ledger is empty; it need not be due itself. `None` is a first start: nothing was missed, and only
/// the future counts.
///
/// The newest due instant always runs while it is [on time](ON_TIME). Apart from that:
/// [`Missed::Skip`] runs none, [`Missed::Latest`] the newest (the older ones are merged into it),
/// [`Missed::All`] the newest `cap`.
///
/// Costs O(cap) for an interval, and one step per day of the span for cron.
#[must_use]
pub fn plan(trigger: &Trigger, missed: Missed, last: Option<Time>, now: Time) -> Plan {
    let Some(due) = Due::of(trigger) else { return Plan::default() };
    let next = due.next_after(now);
    let Some((last, newest)) = last.zip(due.last_until(now)).filter(|(last, newest)| newest > last)
    else {
        return Plan { next, ..Plan::default() };
    };
    let (keep, fate) = match missed {
        Missed::Latest => (1, Fate::Merged),
        Missed::All { cap } if cap > 0 => (cap, Fate::Skipped),
        Missed::Skip | Missed::All { .. } => {
            (u32::from(now.since(newest) <= ON_TIME), Fate::Skipped)
        }
    };
    let mut fire = Vec::new();
    let mut passed_until = Some(newest);
    for _ in 0..keep {
        let Some(t) = passed_until.filter(|t| *t > last) else { break };
        fire.push(t);
        passed_until = due.last_until(t - Millis(1));
    }
    fire.reverse();
    let passed = passed_until
        .filter(|t| *t > last)
        .zip(due.next_after(last))
        .map(|(to, from)| Passed { first: from, last: to, count: due.count(from, to), fate });
    Plan { fire, passed: passed.into_iter().collect(), next }
}

/// Overlap: ticks that came due while a cycle ran become one. Keeps the newest in `pending` (any
/// order) and returns the others as a merged range.
pub fn collapse(pending: &mut Vec<Time>) -> Option<Passed> {
    pending.sort_unstable();
    pending.dedup();
    let newest = pending.pop()?;
    let merged = pending.first().zip(pending.last()).map(|(first, last)| Passed {
        first: *first,
        last: *last,
        count: pending.len() as u64,
        fate: Fate::Merged,
    });
    pending.clear();
    pending.push(newest);
    merged
}

/// A set of due instants.
enum Due<'a> {
    Grid { period: i64, offset: i64 },
    Cron(&'a Cron),
}

impl<'a> Due<'a> {
    fn of(trigger: &'a Trigger) -> Option<Self> {
        match trigger {
            // A period of zero or less is refused where definitions are read; it is never due.
            Trigger::Every { period, offset } if period.0 > 0 => {
                Some(Self::Grid { period: period.0, offset: offset.0 })
            }
            Trigger::Cron(cron) => Some(Self::Cron(cron)),
            Trigger::Every { .. }
            | Trigger::Window(_)
            | Trigger::On { .. }
            | Trigger::Queue { .. }
            | Trigger::Stream
            | Trigger::Manual => None,
        }
    }

    fn next_after(&self, after: Time) -> Option<Time> {
        match self {
            Self::Grid { period, .. } => self.last_until(after)?.0.checked_add(*period).map(Time),
            Self::Cron(cron) => cron.next_after(after),
        }
    }

    /// The newest due instant at or before `t`.
    fn last_until(&self, t: Time) -> Option<Time> {
        match self {
            Self::Grid { period, offset } => {
                let shifted = t.0.checked_sub(*offset)?;
                t.0.checked_sub(shifted.rem_euclid(*period)).map(Time)
            }
            Self::Cron(cron) => cron.last_until(t),
        }
    }

    /// How many due instants lie in `[from, to]`, where `from` and `to` are due.
    fn count(&self, from: Time, to: Time) -> u64 {
        match self {
            Self::Grid { period, .. } => ((to.0 - from.0) / period).unsigned_abs() + 1,
            Self::Cron(cron) => cron.count(from, to),
        }
    }
}
