//! When a failed worker starts again: a backoff per worker with a budget, and a breaker over all of
//! them. Failures are kept in the store, so that a node that crashes with its worker does not forget.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::retry::{self, Backoff};
use crate::units::{Millis, Time};

/// How failures of one worker are answered.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Delay after the n-th failure in a row.
    pub backoff: Backoff,
    /// How many failures in `period` are answered by a restart; one more gives up.
    pub budget: u32,
    /// The trailing period of the budget.
    pub period: Millis,
    /// After running this long, a failure counts as the first one again.
    pub stable: Millis,
}

impl Default for Policy {
    /// 5 s, doubling to 300 s, spread by 10 %; 5 restarts in an hour; stable after 10 minutes.
    fn default() -> Self {
        Self {
            backoff: retry::RESTART,
            budget: 5,
            period: Millis::from_hours(1),
            stable: Millis::from_mins(10),
        }
    }
}

/// Failures of one worker, oldest first. Stored as a JSON object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// Instants of failures within the trailing period.
    pub failures: VecDeque<Time>,
    /// Failures in a row without a stable run between them.
    pub streak: u32,
}

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Start again after this long.
    After(Millis),
    /// Stay failed until an operator resets the worker.
    GiveUp {
        /// The oldest failure that counts.
        since: Time,
        /// How many failures count.
        failures: u32,
    },
}

impl History {
    /// Forgets everything, as an operator's reset does.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Records a failure at `now` and decides. `started` is when the worker last began to run, `None` if
/// it failed before. `seed` is the worker's name: it fixes the jitter.
pub fn decide(
    policy: &Policy,
    history: &mut History,
    started: Option<Time>,
    now: Time,
    seed: &str,
) -> Restart {
    if started.is_some_and(|s| now.since(s) >= policy.stable) {
        history.streak = 0;
    }
    history.streak = history.streak.saturating_add(1);
    history.failures.push_back(now);
    history.failures.retain(|t| now.since(*t) < policy.period);
    let failures = u32::try_from(history.failures.len()).unwrap_or(u32::MAX);
    if failures > policy.budget {
        return Restart::GiveUp {
            since: history.failures.front().copied().unwrap_or(now),
            failures,
        };
    }
    Restart::After(policy.backoff.delay(history.streak, seed))
}

/// Many workers that fail together have one cause, and restarting them all makes it worse: the
/// breaker opens when more than `limit` restarts fall into `period`, and holds all of them back until
/// it has been calm for as long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storm {
    limit: usize,
    period: Millis,
    restarts: VecDeque<Time>,
    breaker: Breaker,
}

/// The state of the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Breaker {
    /// Restarts go ahead.
    Closed,
    /// All restarts wait.
    Open {
        /// Until this instant, unless another failure moves it.
        until: Time,
    },
    /// One restart is tried; a failure before `until` opens the breaker again.
    HalfOpen {
        /// When it closes if nothing fails.
        until: Time,
    },
}

impl Default for Storm {
    /// More than 20 restarts in a minute.
    fn default() -> Self {
        Self::new(20, Millis::from_mins(1))
    }
}

impl Storm {
    /// Opens at more than `limit` restarts in a trailing `period`.
    #[must_use]
    pub const fn new(limit: usize, period: Millis) -> Self {
        Self { limit, period, restarts: VecDeque::new(), breaker: Breaker::Closed }
    }

    /// The breaker at `now`.
    #[must_use]
    pub fn breaker(&self, now: Time) -> Breaker {
        match self.breaker {
            Breaker::HalfOpen { until } if until <= now => Breaker::Closed,
            state => state,
        }
    }

    /// Asks to restart one worker at `now`. `Ok` counts as a restart that goes ahead; otherwise ask
    /// again at the returned instant.
    ///
    /// # Errors
    /// The instant until which restarts wait.
    pub fn admit(&mut self, now: Time) -> Result<(), Time> {
        self.breaker = self.breaker(now);
        match self.breaker {
            Breaker::Open { until } if now < until => Err(until),
            Breaker::Open { .. } => {
                self.breaker = Breaker::HalfOpen { until: now + self.period };
                self.restarts.clear();
                self.restarts.push_back(now);
                Ok(())
            }
            Breaker::HalfOpen { until } => Err(until),
            Breaker::Closed => {
                self.restarts.retain(|t| now.since(*t) < self.period);
                if self.restarts.len() >= self.limit {
                    let until = now + self.period;
                    self.breaker = Breaker::Open { until };
                    return Err(until);
                }
                self.restarts.push_back(now);
                Ok(())
            }
        }
    }

    /// Tells of a failure of any worker: while the breaker is not closed, calm begins anew.
    pub fn failed(&mut self, now: Time) {
        self.breaker = self.breaker(now);
        if !matches!(self.breaker, Breaker::Closed) {
            self.breaker = Breaker::Open { until: now + self.period };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn second(s: i64) -> Time {
        Time(s * 1_000)
    }

    #[test]
    fn five_failures_restart_and_the_sixth_gives_up() {
        let (policy, mut history) = (Policy::default(), History::default());
        for n in 1..=5 {
            let now = second(n * 60);
            let Restart::After(wait) = decide(&policy, &mut history, None, now, "w") else {
                panic!("gave up at failure {n}");
            };
            let steady = 5_000 << (n - 1);
            assert!((wait.0 - steady).abs() * 10 <= steady, "{wait} after failure {n}");
        }
        // Kept across a restart of the process.
        let text = serde_json::to_string(&history).unwrap();
        let mut history: History = serde_json::from_str(&text).unwrap();
        assert_eq!(
            decide(&policy, &mut history, None, second(360), "w"),
            Restart::GiveUp { since: second(60), failures: 6 }
        );
        history.clear();
        assert!(matches!(
            decide(&policy, &mut history, None, second(400), "w"),
            Restart::After(Millis(4_500..=5_500))
        ));
    }

    #[test]
    fn a_stable_run_starts_the_backoff_anew() {
        let (policy, mut history) = (Policy::default(), History::default());
        decide(&policy, &mut history, None, second(0), "w");
        decide(&policy, &mut history, None, second(10), "w");
        let after = decide(&policy, &mut history, Some(second(30)), second(630), "w");
        assert!(matches!(after, Restart::After(Millis(4_500..=5_500))), "{after:?}");
        assert_eq!(history.failures.len(), 3, "the budget still counts all of the hour");
    }

    #[test]
    fn old_failures_leave_the_budget() {
        let (policy, mut history) = (Policy::default(), History::default());
        for n in 0..100 {
            let now = second(n * 900);
            assert!(matches!(decide(&policy, &mut history, None, now, "w"), Restart::After(_)));
        }
        assert_eq!(history.failures.len(), 4);
    }

    #[test]
    fn a_storm_holds_all_restarts_until_it_is_calm() {
        let mut storm = Storm::default();
        for _ in 0..20 {
            assert_eq!(storm.admit(second(0)), Ok(()));
        }
        assert_eq!(storm.admit(second(1)), Err(second(61)));
        assert_eq!(storm.breaker(second(1)), Breaker::Open { until: second(61) });
        // Another failure begins the calm anew.
        storm.failed(second(30));
        assert_eq!(storm.admit(second(61)), Err(second(90)));
        // Then one is tried; the others wait for it.
        assert_eq!(storm.admit(second(90)), Ok(()));
        assert_eq!(storm.admit(second(91)), Err(second(150)));
        storm.failed(second(100));
        assert_eq!(storm.admit(second(150)), Err(second(160)));
        assert_eq!(storm.admit(second(160)), Ok(()));
        assert_eq!(storm.breaker(second(219)), Breaker::HalfOpen { until: second(220) });
        assert_eq!(storm.breaker(second(220)), Breaker::Closed);
        assert_eq!(storm.admit(second(220)), Ok(()));
    }

    proptest! {
        #[test]
        fn restarts_are_bounded(gaps in prop::collection::vec(0_i64..4_000, 1..300)) {
            let (mut storm, mut now) = (Storm::new(5, Millis(10_000)), Time(0));
            let mut admitted = VecDeque::new();
            for gap in gaps {
                now += Millis(gap);
                if storm.admit(now).is_ok() {
                    admitted.push_back(now);
                    admitted.retain(|t| now.since(*t) < Millis(10_000));
                    prop_assert!(admitted.len() <= 5);
                }
            }
        }
    }
}
