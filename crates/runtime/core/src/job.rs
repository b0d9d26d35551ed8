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

/// Longest payload, in bytes of JSON.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// Longest result that is kept, in bytes of JSON; a longer one is replaced by a note of its length.
pub const MAX_RESULT: usize = 64 << 10;

/// Attempts that did not succeed and are kept of each job.
pub const ATTEMPTS_KEPT: u32 = 20;

/// A job cannot be asked for before that instant (2000-01-01): it is a mistake, such as seconds
/// where milliseconds are meant. Any later one that has passed means at once.
pub const OLDEST_RUN_AT: Time = Time(946_684_800_000);

/// A kind of job: who may enqueue what, and how it is run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kind {
    /// Its name, such as `fetch_klines`.
    pub name: String,
    /// One sentence.
    pub description: String,
    /// JSON schema of the payload; `None` takes any JSON.
    pub schema: Option<serde_json::Value>,
    /// Priority of a job that names none; 0 or more, higher runs first.
    pub priority: i32,
    /// Attempts of a job that names none.
    pub max_attempts: u32,
    /// Pause after a failed attempt.
    pub backoff: Backoff,
    /// An attempt is asked to stop after this long, and aborted after twice this long. `None` is
    /// the worker's.
    pub timeout: Option<Millis>,
    /// At most this many leased at once, over all nodes.
    pub concurrency: Option<u32>,
    /// At most this many leased at once of each limit key, over all nodes.
    pub per_key: Option<u32>,
    /// At most so many begun in a time, over all nodes.
    pub rate: Option<Rate>,
}

impl Kind {
    /// A kind with the default policy: any payload, priority 0, five attempts, no limits.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            schema: None,
            priority: 0,
            max_attempts: 5,
            backoff: crate::retry::JOB,
            timeout: None,
            concurrency: None,
            per_key: None,
            rate: None,
        }
    }

    /// Sets the description.
    #[must_use]
    pub fn describe(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// Sets the schema of the payload.
    #[must_use]
    pub fn schema(mut self, schema: serde_json::Value) -> Self {
        self.schema = Some(schema);
        self
    }

    /// Sets the time limit of an attempt.
    #[must_use]
    pub const fn timeout(mut self, timeout: Millis) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Whether the claim must count what runs before it grants.
    #[must_use]
    pub const fn is_limited(&self) -> bool {
        self.concurrency.is_some() || self.per_key.is_some() || self.rate.is_some()
    }
}

/// A rate limit: on average `count` in each `per`, at most `count` at once (the generic cell rate
/// algorithm, ITU-T I.371).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// How many, 1 or more.
    pub count: u32,
    /// In what time.
    pub per: Millis,
}

/// A set of job states: those in which a unique key keeps others away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mask(u8);

impl Mask {
    /// Only while it waits: another may be added as soon as it runs.
    pub const QUEUED: Self = Self(0b1);
    /// Queued or running.
    pub const LIVE: Self = Self(0b11);
    /// For as long as the store remembers the job, also when it has ended.
    pub const EVER: Self = Self(0b1_1111);

    /// The mask of these states; always with `queued`, without which a key would mean nothing.
    #[must_use]
    pub fn of(states: &[State]) -> Self {
        Self(states.iter().fold(Self::QUEUED.0, |bits, s| bits | 1 << *s as u8))
    }

    /// Whether it names that state.
    #[must_use]
    pub const fn has(self, state: State) -> bool {
        self.0 >> state as u8 & 1 == 1
    }

    /// As the store holds it: one bit for each state, in their order, from the lowest.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The mask of stored bits.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::EVER.0 | Self::QUEUED.0)
    }

    /// Its states.
    pub fn states(self) -> impl Iterator<Item = State> {
        State::ALL.into_iter().filter(move |s| self.has(*s))
    }
}

impl Default for Mask {
    fn default() -> Self {
        Self::LIVE
    }
}

impl Serialize for Mask {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.states())
    }
}

impl<'de> Deserialize<'de> for Mask {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::of(&Vec::<State>::deserialize(deserializer)?))
    }
}

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
    fn a_mask_always_counts_what_waits() {
        for (states, bits) in [
            (&[][..], 1),
            (&[State::Running], 3),
            (&[State::Queued, State::Succeeded], 5),
            (&State::ALL[..], 31),
        ] {
            let mask = Mask::of(states);
            assert_eq!((mask.bits(), Mask::from_bits(bits)), (bits, mask));
            assert!(mask.has(State::Queued));
            let json = serde_json::to_string(&mask).unwrap();
            assert_eq!(serde_json::from_str::<Mask>(&json).unwrap(), mask, "{json}");
        }
        assert_eq!(serde_json::to_string(&Mask::LIVE).unwrap(), r#"["queued","running"]"#);
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
                    FollowUp::Finish | FollowUp::Cancel { .. } => {
                        prop_assert!(false, "a failure does not finish a job");
                    }
                }
            }
            prop_assert!(spent <= max_attempts.max(1) + MAX_RECLAIMS);
        }
    }
}
