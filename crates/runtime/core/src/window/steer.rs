//! What a person may do with one window: have it tried again, or give it up.
//!
//! [`steer`] decides, from what is known of the window; whoever carries the decision out makes sure
//! that nothing of it has changed meanwhile.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::State;

/// What a person wants of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Try again what failed, or what was given up.
    Retry,
    /// Give it up, so that its series goes on without it.
    Abandon,
}

impl Wish {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Retry, Self::Abandon];

    /// The word in commands and routes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Abandon => "abandon",
        }
    }

    /// The wish of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|w| w.as_str() == word)
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a wish depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The state of the newest version; [`State::Open`] where none is stored.
    pub state: State,
    /// Whether its end and its settle time have passed.
    pub over: bool,
    /// Whether its next attempt waits for a time.
    pub waits: bool,
    /// Whether its series has come to it. One that is further on would leave the windows between out
    /// for good.
    pub reached: bool,
    /// Whether it can be computed from what is stored. Asked only where a window that was given up
    /// is to be tried again, which would hold up its series for ever if it cannot.
    pub computable: bool,
}

/// What becomes of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The next attempt comes at once; those made count.
    Hasten,
    /// A new version, with attempts of its own.
    Renew,
    /// It is abandoned.
    GiveUp,
}

/// Why a window does not take a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// Published windows stay.
    #[error("it is complete, and a complete window never changes")]
    Complete,
    /// A cycle holds it.
    #[error("it is being computed")]
    Running,
    /// Its time goes on.
    #[error("it is not over yet")]
    NotOver,
    /// No attempt failed.
    #[error("nothing of it has failed: it only waits")]
    NotFailed,
    /// Somebody was faster.
    #[error("it is abandoned already")]
    AlreadyAbandoned,
    /// Windows before it are not done.
    #[error("its series has not come to it yet")]
    NotReached,
    /// Nothing would come of it.
    #[error("it cannot be computed from what is stored")]
    NotComputable,
}

/// What a person's wish does to a window.
///
/// # Errors
/// Why it does nothing.
pub const fn steer(wish: Wish, window: &Standing) -> Result<Change, Refused> {
    use State as S;
    Ok(match (wish, window.state) {
        (_, S::Complete) => return Err(Refused::Complete),
        (_, S::Running) => return Err(Refused::Running),
        (_, S::Open | S::Ready | S::Failed) if !window.over => return Err(Refused::NotOver),
        (Wish::Retry, S::Failed) => Change::Hasten,
        (Wish::Retry, S::Ready) if window.waits => Change::Hasten,
        (Wish::Retry, S::Open | S::Ready) => return Err(Refused::NotFailed),
        (Wish::Retry, S::Abandoned) if !window.computable => return Err(Refused::NotComputable),
        (Wish::Retry, S::Abandoned) => Change::Renew,
        (Wish::Abandon, S::Abandoned) => return Err(Refused::AlreadyAbandoned),
        (Wish::Abandon, S::Open) if !window.reached => return Err(Refused::NotReached),
        (Wish::Abandon, S::Open | S::Ready | S::Failed) => Change::GiveUp,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{Event, next};

    #[test]
    fn the_whole_table() {
        // A window that is over, waits for nothing, was reached and can be computed; then each of
        // these the other way.
        let expected = "
            open      retry    not_failed     not_over      not_failed     not_failed        not_failed
            open      abandon  give_up        not_over      give_up        not_reached       give_up
            ready     retry    not_failed     not_over      hasten         not_failed        not_failed
            ready     abandon  give_up        not_over      give_up        give_up           give_up
            running   retry    running        running       running        running           running
            running   abandon  running        running       running        running           running
            complete  retry    complete       complete      complete       complete          complete
            complete  abandon  complete       complete      complete       complete          complete
            failed    retry    hasten         not_over      hasten         hasten            hasten
            failed    abandon  give_up        not_over      give_up        give_up           give_up
            abandoned retry    renew          renew         renew          renew             not_computable
            abandoned abandon  already_abandoned already_abandoned already_abandoned already_abandoned already_abandoned";
        let mut lines = expected.trim().lines();
        for state in State::ALL {
            let usual =
                Standing { state, over: true, waits: false, reached: true, computable: true };
            let all = [
                usual,
                Standing { over: false, ..usual },
                Standing { waits: true, ..usual },
                Standing { reached: false, ..usual },
                Standing { computable: false, ..usual },
            ];
            for wish in Wish::ALL {
                let word = |window: &Standing| {
                    let answer = match steer(wish, window) {
                        Ok(change) => serde_json::to_value(change),
                        Err(refused) => serde_json::to_value(refused),
                    };
                    answer.unwrap().as_str().unwrap().to_owned()
                };
                let actual: Vec<_> = [state.to_string(), wish.to_string()]
                    .into_iter()
                    .chain(all.iter().map(word))
                    .collect();
                let line = lines.next().unwrap();
                assert_eq!(actual, line.split_whitespace().collect::<Vec<_>>());
                assert_eq!(Wish::parse(wish.as_str()), Some(wish));
            }
        }
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn nothing_that_the_life_of_a_window_forbids() {
        for state in State::ALL {
            for (over, waits, reached, computable) in
                (0..16).map(|n| (n & 1 > 0, n & 2 > 0, n & 4 > 0, n & 8 > 0))
            {
                let window = Standing { state, over, waits, reached, computable };
                for wish in Wish::ALL {
                    match steer(wish, &window) {
                        Ok(Change::GiveUp) => {
                            assert_eq!(next(state, Event::Abandon), Ok(State::Abandoned));
                        }
                        Ok(Change::Hasten) => assert!(!state.is_final()),
                        // Another version: this one stays as it is.
                        Ok(Change::Renew) => assert_eq!(state, State::Abandoned),
                        Err(_) => {}
                    }
                }
            }
        }
    }
}
