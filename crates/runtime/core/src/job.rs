//! The life of a queued job.
//!
//! A job that fails with attempts left goes back to `queued` with its error kept, to run after a
//! backoff; `failed` is final, and is the dead letter: an operator can redrive it. Three endings of
//! an attempt are counted apart:
//!
//! * a *failure* spends one of the job's attempts, which are always finite;
//! * a *reclaim* (the holder died, its lease expired) spends none, but [`MAX_RECLAIMS`] of them end
//!   the job too, for it may be what kills its holders;
//! * a *snooze* spends nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::port::FollowUp;
use crate::retry::Backoff;
use crate::units::{Millis, Time};

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for its time and a holder.
    Queued,
    /// A holder works on it under a lease.
    Running,
    /// Done.
    Succeeded,
    /// Ended for good without success: the dead letter.
    Failed,
    /// Ended by an operator.
    Cancelled,
}

/// What happens to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A holder takes it.
    Claim,
    /// Its cycle published its result.
    Succeed,
    /// An attempt failed, and another is left.
    Retry,
    /// The cycle asked to run later.
    Snooze,
    /// The holder died.
    Reclaim,
    /// No attempt is left, or none can help.
    GiveUp,
    /// An operator ends it.
    Cancel,
    /// An operator gives it a fresh set of attempts.
    Redrive,
}

impl State {
    /// All states.
    pub const ALL: [Self; 5] =
        [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// As the store holds it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of a stored word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == word)
    }

    /// Whether nothing happens to it any more unless an operator acts.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl Event {
    /// All events.
    pub const ALL: [Self; 8] = [
        Self::Claim,
        Self::Succeed,
        Self::Retry,
        Self::Snooze,
        Self::Reclaim,
        Self::GiveUp,
        Self::Cancel,
        Self::Redrive,
    ];

    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Succeed => "succeed",
            Self::Retry => "retry",
            Self::Snooze => "snooze",
            Self::Reclaim => "reclaim",
            Self::GiveUp => "give up",
            Self::Cancel => "cancel",
            Self::Redrive => "redrive",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An event that a state does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {state} does not take `{event}`")]
pub struct Forbidden {
    /// The state.
    pub state: State,
    /// The event.
    pub event: Event,
}

/// The state after `event`: the whole life of a job.
///
/// # Errors
/// [`Forbidden`] when the event has no meaning in the state; nothing changes then.
pub const fn next(state: State, event: Event) -> Result<State, Forbidden> {
    use {Event as E, State as S};
    Ok(match (state, event) {
        (S::Queued, E::Claim) => S::Running,
        (S::Running, E::Succeed) => S::Succeeded,
        (S::Running, E::Retry | E::Snooze | E::Reclaim) => S::Queued,
        (S::Running, E::GiveUp) => S::Failed,
        (S::Queued | S::Running, E::Cancel) => S::Cancelled,
        (S::Failed | S::Cancelled, E::Redrive) => S::Queued,
        _ => return Err(Forbidden { state, event }),
    })
}

/// How often a job's holder may die before the job is given up.
pub const MAX_RECLAIMS: u32 = 5;

/// A snooze lasts at least this long, so that a job that asks for none does not spin.
pub const SHORTEST_SNOOZE: Millis = Millis::from_secs(1);

/// What is known about a job when an attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// The job's number: it fixes the jitter.
    pub id: i64,
    /// Attempts that count, with the one that ended if it does.
    pub attempts: u32,
    /// Attempts allowed; 0 counts as 1.
    pub max_attempts: u32,
    /// Times that a holder died, with this one if it did.
    pub reclaims: u32,
}

/// After an attempt failed with `error`.
#[must_use]
pub fn after_failure(job: &Attempts, error: &str, now: Time, backoff: &Backoff) -> FollowUp {
    if job.attempts >= job.max_attempts.max(1) {
        return FollowUp::GiveUp {
            reason: format!(
                "failed {} of {} attempts, the last with: {error}",
                job.attempts,
                job.max_attempts.max(1)
            ),
        };
    }
    FollowUp::Retry { at: now + backoff.delay(job.attempts, &format!("job {}", job.id)) }
}

/// After the holder's lease expired.
#[must_use]
pub fn after_reclaim(job: &Attempts, now: Time) -> FollowUp {
    if job.reclaims >= MAX_RECLAIMS {
        return FollowUp::GiveUp {
            reason: format!("{} holders died while they worked on it", job.reclaims),
        };
    }
    FollowUp::Again { at: now }
}

/// After the cycle asked to run again `after` that long.
#[must_use]
pub fn after_snooze(now: Time, after: Millis) -> FollowUp {
    FollowUp::Again { at: now + after.max(SHORTEST_SNOOZE) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::retry;

    #[test]
    fn the_whole_table() {
        let expected = "
            queued    running .         .      .      .      .      cancelled .
            running   .       succeeded queued queued queued failed cancelled .
            succeeded .       .         .      .      .      .      .         .
            failed    .       .         .      .      .      .      .         queued
            cancelled .       .         .      .      .      .      .         queued";
        for (state, row) in State::ALL.into_iter().zip(expected.trim().lines()) {
            let actual: Vec<_> = [state.as_str()]
                .into_iter()
                .chain(Event::ALL.into_iter().map(|e| next(state, e).map_or(".", State::as_str)))
                .collect();
            assert_eq!(actual, row.split_whitespace().collect::<Vec<_>>());
            assert_eq!(State::parse(state.as_str()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }

    #[test]
    fn the_last_attempt_says_what_happened() {
        let job = Attempts { id: 7, attempts: 3, max_attempts: 3, reclaims: 1 };
        assert_eq!(
            after_failure(&job, "no answer within 10s", Time(0), &retry::JOB),
            FollowUp::GiveUp {
                reason: "failed 3 of 3 attempts, the last with: no answer within 10s".into()
            }
        );
        assert_eq!(after_reclaim(&job, Time(5)), FollowUp::Again { at: Time(5) });
        assert_eq!(
            after_reclaim(&Attempts { reclaims: 5, ..job }, Time(5)),
            FollowUp::GiveUp { reason: "5 holders died while they worked on it".into() }
        );
        assert_eq!(after_snooze(Time(0), Millis(-4)), FollowUp::Again { at: Time(1_000) });
    }

    proptest! {
        /// Whatever a job and its holders do, it ends unless it only ever snoozes.
        #[test]
        fn attempts_are_finite(
            max_attempts: u32, endings in prop::collection::vec(0_u8..3, 0..64),
        ) {
            let max_attempts = max_attempts % 12;
            let mut job = Attempts { id: 1, attempts: 0, max_attempts, reclaims: 0 };
            let (mut now, mut spent) = (Time(0), 0);
            for ending in endings {
                let follow_up = match ending {
                    0 => {
                        job.attempts += 1;
                        spent += 1;
                        after_failure(&job, "x", now, &retry::JOB)
                    }
                    1 => {
                        job.reclaims += 1;
                        spent += 1;
                        after_reclaim(&job, now)
                    }
                    _ => after_snooze(now, Millis(0)),
                };
                match follow_up {
                    FollowUp::GiveUp { .. } => break,
                    FollowUp::Retry { at } => {
                        prop_assert!(at > now && at <= now + retry::JOB.longest());
                        now = at;
                    }
                    FollowUp::Again { at } => {
                        prop_assert!(at >= now);
                        now = at;
                    }
                    FollowUp::Finish => prop_assert!(false, "a failure does not finish a job"),
                }
            }
            prop_assert!(spent <= max_attempts.max(1) + MAX_RECLAIMS);
        }
    }
}
