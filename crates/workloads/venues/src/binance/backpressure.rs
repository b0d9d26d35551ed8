//! How the venue is doing, from what its answers were: a pure state machine.
//!
//! ```text
//! ok -> throttled   429, or more than 80 % of the weight used
//! *  -> banned      418
//! ok, throttled -> degraded   3 failures in a row
//! degraded -> down  failures for 60 s without a success
//! *  -> down        the venue blocks us (403, 451)
//! *  -> ok          2 successes in a row
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};
use watchbell_core::{Millis, Time};

/// Failures in a row that make a venue degraded.
pub const FAILURES: u32 = 3;
/// Successes in a row that make it ok again.
pub const SUCCESSES: u32 = 2;
/// Time from the first of the failures, without a success, after which a degraded venue is down.
pub const DOWN_AFTER: Millis = Millis::from_secs(60);
/// Share of the weight above which a success still counts as throttled.
pub const HIGH_USE: f64 = 0.8;

/// How the venue is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should.
    Ok,
    /// It answers, and wants fewer requests.
    Throttled,
    /// It has banned this address.
    Banned,
    /// It fails, and has not for long.
    Degraded,
    /// It has not answered well for a minute, or blocks us.
    Down,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Throttled => "throttled",
            Self::Banned => "banned",
            Self::Degraded => "degraded",
            Self::Down => "down",
        })
    }
}

/// What happened to one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome<'a> {
    /// A usable answer; `used` is the share of the venue's weight, if it said so.
    Success {
        /// Used weight through the limit, 0 to 1 and beyond.
        used: Option<f64>,
    },
    /// No answer, an unusable one, or an error of the venue itself.
    Failure(&'a str),
    /// 429.
    RateLimited(&'a str),
    /// 418.
    Banned(&'a str),
    /// 403 or 451.
    Blocked(&'a str),
}

/// The state with its beginning and its reason, for status pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// How the venue is doing.
    pub state: State,
    /// Since when.
    pub since: Time,
    /// Why.
    pub reason: String,
}

/// The machine. Feed it each outcome; ask it for the state at an instant.
#[derive(Debug, Clone)]
pub struct Backpressure {
    state: State,
    since: Time,
    reason: String,
    failures: u32,
    successes: u32,
    /// First failure after the last success.
    failing_since: Option<Time>,
}

impl Backpressure {
    /// Ok, from `now` on.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Self {
            state: State::Ok,
            since: now,
            reason: "no request yet".into(),
            failures: 0,
            successes: 0,
            failing_since: None,
        }
    }

    /// Takes one outcome into account.
    pub fn on(&mut self, now: Time, outcome: Outcome<'_>) {
        self.expire(now);
        match outcome {
            Outcome::Success { used } => {
                self.failures = 0;
                self.failing_since = None;
                if let Some(used) = used.filter(|u| *u > HIGH_USE) {
                    self.successes = 0;
                    if self.state != State::Banned {
                        let percent = (used * 100.0).round();
                        self.enter(
                            now,
                            State::Throttled,
                            &format!("{percent} % of the weight used"),
                        );
                    }
                } else {
                    self.successes = self.successes.saturating_add(1);
                    if self.successes >= SUCCESSES {
                        self.enter(now, State::Ok, "answers");
                    }
                }
            }
            Outcome::Failure(why) => {
                self.fail(now);
                if self.failures >= FAILURES && matches!(self.state, State::Ok | State::Throttled) {
                    let since = self.failures;
                    self.enter(now, State::Degraded, &format!("{since} failures in a row: {why}"));
                }
                self.expire(now);
            }
            Outcome::RateLimited(why) => {
                self.fail(now);
                if self.state != State::Banned {
                    self.enter(now, State::Throttled, why);
                }
            }
            Outcome::Banned(why) => {
                self.fail(now);
                self.enter(now, State::Banned, why);
            }
            Outcome::Blocked(why) => {
                self.fail(now);
                self.enter(now, State::Down, why);
            }
        }
    }

    /// The state at `now`.
    #[must_use]
    pub fn health(&self, now: Time) -> Health {
        let mut at = self.clone();
        at.expire(now);
        Health { state: at.state, since: at.since, reason: at.reason }
    }

    fn fail(&mut self, now: Time) {
        self.failing_since.get_or_insert(now);
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
    }

    /// Degraded becomes down by time alone.
    fn expire(&mut self, now: Time) {
        if self.state == State::Degraded
            && let Some(first) = self.failing_since
            && now - first >= DOWN_AFTER
        {
            let at = self.since.max(first + DOWN_AFTER);
            let reason = format!("no success since {first}; {}", self.reason);
            self.enter(at, State::Down, &reason);
        }
    }

    fn enter(&mut self, now: Time, state: State, reason: &str) {
        if self.state != state {
            self.state = state;
            self.since = now;
            self.reason = reason.to_owned();
        } else if state != State::Ok {
            reason.clone_into(&mut self.reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Outcome<'static> = Outcome::Success { used: Some(0.1) };
    const FULL: Outcome<'static> = Outcome::Success { used: Some(0.81) };
    const FAIL: Outcome<'static> = Outcome::Failure("status 502");
    const RATE: Outcome<'static> = Outcome::RateLimited("429");
    const BAN: Outcome<'static> = Outcome::Banned("418");
    const BLOCK: Outcome<'static> = Outcome::Blocked("403");

    #[test]
    fn the_table() {
        use State::{Banned, Degraded, Down, Ok, Throttled};
        type Steps = &'static [(i64, Outcome<'static>)];
        let cases: [(&str, Steps, State); 17] = [
            ("fresh", &[], Ok),
            ("two failures", &[(0, FAIL), (1, FAIL)], Ok),
            ("three failures", &[(0, FAIL), (1, FAIL), (2, FAIL)], Degraded),
            ("a success between", &[(0, FAIL), (1, FAIL), (2, GOOD), (3, FAIL)], Ok),
            ("still one success", &[(0, FAIL), (1, FAIL), (2, FAIL), (3, GOOD)], Degraded),
            ("recovered", &[(0, FAIL), (1, FAIL), (2, FAIL), (3, GOOD), (4, GOOD)], Ok),
            (
                "not in a row",
                &[(0, FAIL), (1, FAIL), (2, FAIL), (3, GOOD), (4, FAIL), (5, GOOD)],
                Degraded,
            ),
            ("a minute of failures", &[(0, FAIL), (1, FAIL), (2, FAIL), (61, FAIL)], Down),
            ("idle before is no failure", &[(100, FAIL), (101, FAIL), (102, FAIL)], Degraded),
            ("down recovers", &[(0, FAIL), (1, FAIL), (90, FAIL), (91, GOOD), (92, GOOD)], Ok),
            ("429", &[(0, RATE)], Throttled),
            ("high use", &[(0, GOOD), (1, GOOD), (2, FULL)], Throttled),
            ("high use twice is no recovery", &[(0, RATE), (1, FULL), (2, GOOD)], Throttled),
            ("418 over 429", &[(0, BAN), (1, RATE), (2, FULL)], Banned),
            ("failures do not hide a ban", &[(0, BAN), (1, FAIL), (2, FAIL), (3, FAIL)], Banned),
            ("ban over", &[(0, BAN), (130, GOOD), (131, GOOD)], Ok),
            ("blocked", &[(0, GOOD), (1, BLOCK)], Down),
        ];
        for (name, steps, want) in cases {
            let mut b = Backpressure::new(Time(0));
            let mut now = Time(0);
            for (at, outcome) in steps {
                now = Time(at * 1_000);
                b.on(now, *outcome);
            }
            assert_eq!(b.health(now).state, want, "{name}");
        }
    }

    #[test]
    fn down_begins_a_minute_after_the_first_failure() {
        let mut b = Backpressure::new(Time(0));
        b.on(Time(5_000), GOOD);
        for at in [6_000, 7_000, 8_000] {
            b.on(Time(at), FAIL);
        }
        let h = b.health(Time(65_999));
        assert_eq!((h.state, h.since), (State::Degraded, Time(8_000)));
        assert_eq!(h.reason, "3 failures in a row: status 502");
        let h = b.health(Time(80_000));
        assert_eq!((h.state, h.since), (State::Down, Time(66_000)));
        assert!(h.reason.contains("no success since 1970-01-01T00:00:06Z"));
    }

    proptest::proptest! {
        #[test]
        fn two_good_answers_always_heal(steps in proptest::collection::vec((0_i64..90, 0_usize..6), 0..60)) {
            let mut b = Backpressure::new(Time(0));
            let mut now = Time(0);
            for (pause, which) in steps {
                now += Millis::from_secs(pause);
                b.on(now, [GOOD, FULL, FAIL, RATE, BAN, BLOCK][which]);
                proptest::prop_assert!(b.health(now).since <= now);
            }
            b.on(now, GOOD);
            b.on(now, GOOD);
            proptest::prop_assert_eq!(b.health(now).state, State::Ok);
        }
    }
}
