//! How long ago a worker last succeeded, and whether it is healthy.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::lifecycle::State;
use crate::schedule::next_due;
use crate::trigger::Trigger;
use crate::units::{Millis, Time};
use crate::worker::Definition;

/// How fresh a worker's newest success is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "freshness")]
pub enum Freshness {
    /// As its trigger promises.
    Fresh,
    /// A cycle should have succeeded by now.
    Late {
        /// How long ago it should have.
        by: Millis,
    },
    /// The staleness limit has passed.
    Stale {
        /// When it passed.
        since: Time,
    },
    /// It has no limit, or has not had the time to succeed for the first time.
    Unknown,
}

/// How a worker is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// As it should be.
    Ok,
    /// It works, but late, after an error, or it is held.
    Degraded,
    /// It does not get its work done.
    Failing,
    /// It does not run.
    Down,
}

impl Health {
    /// As pages show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh => f.pad("fresh"),
            Self::Late { by } => write!(f, "late by {by}"),
            Self::Stale { since } => write!(f, "stale since {since}"),
            Self::Unknown => f.pad("unknown"),
        }
    }
}

/// Failures in a row from which a worker is [`Health::Failing`].
pub const FAILING_AFTER: i64 = 3;

/// Without a success for this long, a worker is stale: what its definition says, or else
///
/// * `every`: three periods and the longest that a cycle may take;
/// * `cron`: the longest time between two of its due instants, and the longest that a cycle may take;
/// * `window`: two windows, the settle time, and the longest that a cycle may take;
/// * otherwise there is no limit: what comes from outside may stay away.
///
/// One that gives way may do so for its [patience](Definition::patience) besides.
#[must_use]
pub fn stale_after(definition: &Definition) -> Option<Millis> {
    definition.stale_after.or_else(|| {
        let rhythm = match &definition.trigger {
            Trigger::Every { period, .. } => *period * 3,
            Trigger::Cron(cron) => cron.longest_pause()?,
            Trigger::Window(spec) => spec.length * 2 + spec.settle,
            Trigger::On { .. } | Trigger::Queue { .. } | Trigger::Stream | Trigger::Manual => {
                return None;
            }
        };
        let patience = definition.patience().unwrap_or_default();
        Some(rhythm + patience + definition.jitter + definition.hard_timeout)
    })
}

/// How fresh a worker is at `now`. `started_at` is since when it has had the chance to succeed.
#[must_use]
pub fn freshness(
    definition: &Definition,
    last_success: Option<Time>,
    started_at: Option<Time>,
    now: Time,
) -> Freshness {
    let Some(limit) = stale_after(definition) else { return Freshness::Unknown };
    // A worker that has just started again has had no chance to succeed since.
    let Some(reference) = last_success.max(started_at) else { return Freshness::Unknown };
    let since = reference + limit;
    if now > since {
        return Freshness::Stale { since };
    }
    let Some(success) = last_success else { return Freshness::Unknown };
    let begun = Some(success).max(started_at).unwrap_or(success);
    let due = match &definition.trigger {
        Trigger::Window(spec) => Some(begun.ceil(spec.length) + spec.length + spec.settle),
        trigger => next_due(trigger, begun),
    };
    let expected = due.map(|d| d + definition.jitter + definition.hard_timeout);
    match expected.filter(|e| now > *e) {
        Some(expected) => Freshness::Late { by: now.since(expected) },
        None => Freshness::Fresh,
    }
}

/// How a worker is: the worst of what its state, its errors and its freshness say.
#[must_use]
pub fn health(state: State, consecutive_errors: i64, freshness: Freshness) -> Health {
    let of_state = match state {
        State::Running => Health::Ok,
        State::Initializing | State::Paused | State::ShuttingDown => Health::Degraded,
        State::Restarting => Health::Failing,
        State::Stopped | State::Failed | State::Unavailable => Health::Down,
    };
    let of_errors = match consecutive_errors {
        ..=0 => Health::Ok,
        1..FAILING_AFTER => Health::Degraded,
        FAILING_AFTER.. => Health::Failing,
    };
    let of_freshness = match freshness {
        Freshness::Fresh | Freshness::Unknown => Health::Ok,
        Freshness::Late { .. } => Health::Degraded,
        Freshness::Stale { .. } => Health::Failing,
    };
    of_state.max(of_errors).max(of_freshness)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Cron;

    fn cron(expression: &str, zone: &str) -> Definition {
        let trigger = Trigger::Cron(Cron::parse(expression, zone).unwrap());
        Definition::new("w", trigger).timeouts(Millis(0), Millis(0))
    }

    fn every_minute() -> Definition {
        let trigger = Trigger::Every { period: Millis::from_mins(1), offset: Millis::ZERO };
        Definition::new("w", trigger).timeouts(Millis::from_secs(10), Millis::from_secs(20))
    }

    #[test]
    fn the_limit_follows_the_rhythm() {
        let h = Millis::from_hours;
        for (expression, zone, limit) in [
            ("* * * * * *", "UTC", Millis(1_000)),
            ("*/20 * * * *", "UTC", Millis::from_mins(20)),
            ("30 2 * * *", "UTC", h(24)),
            // The night of the change to winter time is an hour longer, twice 12 hours apart.
            ("30 4 * * *", "Europe/Berlin", h(25)),
            ("* 9-16 * * 1-5", "UTC", h(64) + Millis::from_mins(1)),
            ("0 0 1 * *", "UTC", Millis::from_days(31)),
        ] {
            assert_eq!(stale_after(&cron(expression, zone)), Some(limit), "{expression}");
        }
        assert_eq!(stale_after(&every_minute()), Some(Millis::from_secs(200)));
        assert_eq!(stale_after(&Definition::new("w", Trigger::Stream)), None);
        let said = Definition { stale_after: Some(Millis(5)), ..every_minute() };
        assert_eq!(stale_after(&said), Some(Millis(5)));
    }

    #[test]
    fn a_success_ages() {
        let (d, s) = (every_minute(), |n: i64| Time(n * 1_000));
        let at = |success: Option<Time>, now| freshness(&d, success, Some(s(0)), now);
        assert_eq!(at(None, s(200)), Freshness::Unknown);
        assert_eq!(at(None, s(201)), Freshness::Stale { since: s(200) });
        assert_eq!(at(Some(s(61)), s(140)), Freshness::Fresh);
        assert_eq!(at(Some(s(61)), s(141)), Freshness::Late { by: Millis(1_000) });
        assert_eq!(at(Some(s(61)), s(261)), Freshness::Late { by: Millis(121_000) });
        assert_eq!(at(Some(s(61)), s(262)), Freshness::Stale { since: s(261) });
        assert_eq!(freshness(&d, None, None, s(999)), Freshness::Unknown);
        assert_eq!(
            freshness(&Definition::new("w", Trigger::Manual), Some(s(0)), None, s(999)),
            Freshness::Unknown
        );
    }

    #[test]
    fn health_is_the_worst_of_three() {
        let stale = Freshness::Stale { since: Time(0) };
        let late = Freshness::Late { by: Millis(1) };
        for (state, errors, freshness, expected) in [
            (State::Running, 0, Freshness::Fresh, Health::Ok),
            (State::Running, 0, Freshness::Unknown, Health::Ok),
            (State::Running, 0, late, Health::Degraded),
            (State::Running, 2, Freshness::Fresh, Health::Degraded),
            (State::Running, 3, Freshness::Fresh, Health::Failing),
            (State::Running, 0, stale, Health::Failing),
            (State::Paused, 0, Freshness::Fresh, Health::Degraded),
            (State::Restarting, 1, Freshness::Fresh, Health::Failing),
            (State::Failed, 9, stale, Health::Down),
            (State::Unavailable, 0, Freshness::Unknown, Health::Down),
        ] {
            assert_eq!(health(state, errors, freshness), expected, "{state} {errors} {freshness}");
        }
    }
}
