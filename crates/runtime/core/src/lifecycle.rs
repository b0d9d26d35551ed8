//! The life of a worker, as a transition table.
//!
//! What an operator asked for ([`Desired`]) and what is ([`State`]) are stored apart. The supervisor
//! asks [`reconcile`] for the next event, carries it out, and moves by [`next`]: one step at a time,
//! each step recorded.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Not running, and asked not to, or not yet.
    Stopped,
    /// Waits for what it needs, or takes its lease.
    Initializing,
    /// Starts cycles when its trigger says so.
    Running,
    /// Finished its cycle, holds its place, starts no new one; heartbeats go on.
    Paused,
    /// Was asked to stop; its cycle is being ended.
    ShuttingDown,
    /// Ended by a failure. Stays so when its restart budget is spent, until an operator acts.
    Failed,
    /// Failed, and waits for its backoff before it starts again.
    Restarting,
    /// Known, but something that it requires is missing on this node.
    Unavailable,
}

/// What an operator asked for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Desired {
    /// It should run.
    #[default]
    Running,
    /// It should hold after the present cycle.
    Paused,
    /// It should not run.
    Stopped,
}

/// What happens to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// It is to start.
    Start,
    /// It is ready to run cycles.
    Started,
    /// It is to hold after its cycle.
    Pause,
    /// It is to go on.
    Resume,
    /// It is to stop.
    Stop,
    /// It has stopped as asked.
    Stopped,
    /// It ended by an error, a panic, a hard timeout, or without having been asked to.
    Fail,
    /// It will start again after a backoff.
    Retry,
    /// An operator gives a failed worker a fresh budget; it returns to where it can start.
    Reset,
    /// Something that it requires is missing.
    Withdraw,
    /// What was missing is there.
    Restore,
}

impl State {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::Stopped,
        Self::Initializing,
        Self::Running,
        Self::Paused,
        Self::ShuttingDown,
        Self::Failed,
        Self::Restarting,
        Self::Unavailable,
    ];

    /// As the store holds it and the operator reads it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "STOPPED",
            Self::Initializing => "INITIALIZING",
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::Failed => "FAILED",
            Self::Restarting => "RESTARTING",
            Self::Unavailable => "UNAVAILABLE",
        }
    }

    /// The state of a stored text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// Whether there is a task behind it that must be ended before the node can leave.
    #[must_use]
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Initializing | Self::Running | Self::Paused | Self::ShuttingDown)
    }
}

impl Desired {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Running, Self::Paused, Self::Stopped];

    /// As the store holds it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::Stopped => "STOPPED",
        }
    }

    /// The desired state of a stored text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

impl Event {
    /// All events.
    pub const ALL: [Self; 11] = [
        Self::Start,
        Self::Started,
        Self::Pause,
        Self::Resume,
        Self::Stop,
        Self::Stopped,
        Self::Fail,
        Self::Retry,
        Self::Reset,
        Self::Withdraw,
        Self::Restore,
    ];

    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Started => "started",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Stop => "stop",
            Self::Stopped => "stopped",
            Self::Fail => "fail",
            Self::Retry => "retry",
            Self::Reset => "reset",
            Self::Withdraw => "withdraw",
            Self::Restore => "restore",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
impl fmt::Display for Desired {
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
#[error("a worker that is {state} does not take `{event}`")]
pub struct Forbidden {
    /// The state.
    pub state: State,
    /// The event.
    pub event: Event,
}

/// The state after `event`: the whole life of a worker.
///
/// # Errors
/// [`Forbidden`] when the event has no meaning in the state; nothing changes then.
pub const fn next(state: State, event: Event) -> Result<State, Forbidden> {
    use {Event as E, State as S};
    Ok(match (state, event) {
        (S::Stopped | S::Restarting, E::Start) => S::Initializing,
        (S::Initializing, E::Started) => S::Running,
        (S::Running, E::Pause) => S::Paused,
        (S::Paused, E::Resume) => S::Running,
        (S::Initializing | S::Running | S::Paused, E::Stop) => S::ShuttingDown,
        (S::ShuttingDown, E::Stopped) => S::Stopped,
        // A worker that fails while it is being stopped is reported as failed, not as stopped.
        (S::Initializing | S::Running | S::Paused | S::ShuttingDown, E::Fail) => S::Failed,
        (S::Failed, E::Retry) => S::Restarting,
        // Nothing runs behind these, so there is nothing to shut down.
        (S::Restarting, E::Stop) | (S::Failed, E::Reset | E::Stop) => S::Stopped,
        (S::Stopped, E::Withdraw) => S::Unavailable,
        (S::Unavailable, E::Restore) => S::Stopped,
        _ => return Err(Forbidden { state, event }),
    })
}

/// What the supervisor should do next to bring `state` to `desired`; `None` when that is reached, or
/// when something else must happen first (a start, a stop or a backoff is under way, the budget is
/// spent, the worker is unavailable).
///
/// A worker that should be paused is started first, so that it holds its place.
#[must_use]
pub const fn reconcile(desired: Desired, state: State) -> Option<Event> {
    use {Desired as D, State as S};
    match (desired, state) {
        (D::Running | D::Paused, S::Stopped) => Some(Event::Start),
        (D::Running, S::Paused) => Some(Event::Resume),
        (D::Paused, S::Running) => Some(Event::Pause),
        (D::Stopped, S::Initializing | S::Running | S::Paused | S::Restarting | S::Failed) => {
            Some(Event::Stop)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The whole product: rows are states, columns events, a dot is forbidden.
    #[test]
    fn the_whole_table() {
        let short = |s: State| match s {
            State::Stopped => "stop",
            State::Initializing => "init",
            State::Running => "run",
            State::Paused => "pause",
            State::ShuttingDown => "down",
            State::Failed => "fail",
            State::Restarting => "again",
            State::Unavailable => "none",
        };
        let expected = "
            stop:  init .   .     .   .    .    .    .     .    none .
            init:  .    run .     .   down .    fail .     .    .    .
            run:   .    .   pause .   down .    fail .     .    .    .
            pause: .    .   .     run down .    fail .     .    .    .
            down:  .    .   .     .   .    stop fail .     .    .    .
            fail:  .    .   .     .   stop .    .    again stop .    .
            again: init .   .     .   stop .    .    .     .    .    .
            none:  .    .   .     .   .    .    .    .     .    .    stop";
        for (state, row) in State::ALL.into_iter().zip(expected.trim().lines()) {
            let actual: Vec<_> =
                Event::ALL.into_iter().map(|e| next(state, e).map_or(".", short)).collect();
            let (name, row) = row.split_once(':').unwrap();
            assert_eq!(name.trim(), short(state));
            assert_eq!(actual, row.split_whitespace().collect::<Vec<_>>(), "{state}");
        }
    }

    #[test]
    fn texts_and_serde_agree() {
        for s in State::ALL {
            assert_eq!(serde_json::to_value(s).unwrap(), s.as_str());
            assert_eq!(State::parse(s.as_str()), Some(s));
        }
        for d in Desired::ALL {
            assert_eq!(serde_json::to_value(d).unwrap(), d.as_str());
            assert_eq!(Desired::parse(d.as_str()), Some(d));
        }
        for e in Event::ALL {
            assert_eq!(serde_json::to_value(e).unwrap(), e.as_str());
        }
        assert_eq!(State::parse("running"), None);
    }

    #[test]
    fn what_reconcile_asks_for_is_allowed() {
        for desired in Desired::ALL {
            for state in State::ALL {
                if let Some(event) = reconcile(desired, state) {
                    assert!(next(state, event).is_ok(), "{desired} {state} {event}");
                }
            }
        }
    }

    proptest! {
        /// A supervisor that reconciles while an operator changes their mind and workers fail:
        /// each recorded step is one of the table, so no state is skipped, and when the disturbance
        /// ends the desired state is reached within a few steps.
        #[test]
        fn lifecycle_never_skips_a_state(
            wishes in prop::collection::vec((0_usize..3, 0_usize..11), 1..60),
        ) {
            let mut state = State::Stopped;
            let mut trail = vec![state];
            let mut desired = Desired::Running;
            for (wish, disturbance) in wishes {
                desired = Desired::ALL[wish];
                if let Ok(s) = next(state, Event::ALL[disturbance]) {
                    trail.push(s);
                    state = s;
                }
                if let Some(event) = reconcile(desired, state) {
                    state = next(state, event).unwrap();
                    trail.push(state);
                }
            }
            for pair in trail.windows(2) {
                prop_assert!(
                    Event::ALL.iter().any(|e| next(pair[0], *e) == Ok(pair[1])),
                    "{} to {} in one step", pair[0], pair[1],
                );
                prop_assert!(
                    pair[1] != State::Running
                        || matches!(pair[0], State::Initializing | State::Paused)
                );
            }
            for _ in 0..6 {
                let progress = match state {
                    State::Initializing => Some(Event::Started),
                    State::ShuttingDown => Some(Event::Stopped),
                    State::Failed => Some(Event::Retry),
                    State::Restarting => Some(Event::Start),
                    State::Unavailable => Some(Event::Restore),
                    State::Stopped | State::Running | State::Paused => None,
                };
                if let Some(event) = reconcile(desired, state).or(progress) {
                    state = next(state, event).unwrap();
                }
            }
            prop_assert_eq!(state.as_str(), desired.as_str());
        }
    }
}
