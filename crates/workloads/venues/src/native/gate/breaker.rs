//! The circuit breaker: whether it makes sense to ask an exchange at all. A pure state machine.
//!
//! ```text
//! CLOSED -> OPEN       the failures among the last `window` requests reach `ratio`,
//!                      or `consecutive` of them in a row
//! OPEN -> HALF_OPEN    the probe interval is over: one request at a time may try
//! HALF_OPEN -> CLOSED  3 tries in a row succeed
//! HALF_OPEN -> OPEN    one fails; the interval doubles, up to 5 minutes
//! ```

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use watchbell_core::{Millis, Time};

/// Successful tries that close it again.
const SUCCESSES: u32 = 3;
/// The longest interval between two tries.
const LONGEST_PROBE: Millis = Millis::from_secs(300);

/// What makes it open, and when it tries again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limits {
    /// Share of failures, 0 to 1.
    pub(crate) ratio: f64,
    /// Requests that the share is taken over; before there are as many, it is not.
    pub(crate) window: usize,
    /// Failures in a row.
    pub(crate) consecutive: u32,
    /// First interval between opening and a try.
    pub(crate) probe: Millis,
}

/// Its state, as artifacts print it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BreakerState {
    /// Requests go.
    Closed,
    /// One request at a time tries whether the exchange answers again.
    HalfOpen,
    /// No request goes.
    Open,
}

impl BreakerState {
    /// `CLOSED`, `HALF_OPEN` or `OPEN`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::HalfOpen => "HALF_OPEN",
            Self::Open => "OPEN",
        }
    }
}

impl std::fmt::Display for BreakerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Debug)]
enum State {
    /// The newest outcomes, at most `window`, and how many of the last were failures in a row.
    Closed {
        failed: VecDeque<bool>,
        in_a_row: u32,
    },
    Open {
        until: Time,
    },
    HalfOpen {
        successes: u32,
        probing: bool,
    },
}

/// The right to send one request. What comes of it counts only as long as the breaker has not
/// changed its state in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    epoch: u64,
}

/// Why no request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Barred {
    /// From when on one may try; `None` while somebody tries.
    pub(crate) until: Option<Time>,
}

/// The breaker of one exchange.
#[derive(Debug)]
pub(crate) struct Breaker {
    limits: Limits,
    state: State,
    /// The interval that the next opening waits for.
    probe: Millis,
    epoch: u64,
}

impl Breaker {
    pub(crate) fn new(limits: Limits) -> Self {
        let state = State::Closed { failed: VecDeque::new(), in_a_row: 0 };
        Self { limits, state, probe: limits.probe, epoch: 0 }
    }

    /// The state at `now`.
    pub(crate) fn state(&self, now: Time) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open,
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether a request would be let through at `now`, without letting it.
    pub(crate) fn check(&self, now: Time) -> Result<(), Barred> {
        match self.state {
            State::Open { until } if now < until => Err(Barred { until: Some(until) }),
            State::HalfOpen { probing: true, .. } => Err(Barred { until: None }),
            State::Closed { .. } | State::Open { .. } | State::HalfOpen { .. } => Ok(()),
        }
    }

    /// Lets a request through, or not.
    pub(crate) fn admit(&mut self, now: Time) -> Result<Ticket, Barred> {
        self.check(now)?;
        match &mut self.state {
            State::Closed { .. } => {}
            State::Open { .. } => self.enter(State::HalfOpen { successes: 0, probing: true }),
            State::HalfOpen { probing, .. } => *probing = true,
        }
        Ok(Ticket { epoch: self.epoch })
    }

    /// A request ended. Returns the state that the breaker has just entered, if it has.
    pub(crate) fn settle(&mut self, now: Time, ticket: Ticket, ok: bool) -> Option<BreakerState> {
        if ticket.epoch != self.epoch {
            return None;
        }
        match &mut self.state {
            State::Closed { failed, in_a_row } => {
                *in_a_row = if ok { 0 } else { *in_a_row + 1 };
                failed.push_back(!ok);
                while failed.len() > self.limits.window {
                    failed.pop_front();
                }
                let failures = failed.iter().filter(|f| **f).count();
                let full = failed.len() >= self.limits.window;
                let ratio = failures as f64 / failed.len().max(1) as f64;
                let enough =
                    *in_a_row >= self.limits.consecutive || (full && ratio >= self.limits.ratio);
                // What succeeds opens nothing, however much failed before it.
                if ok || !enough { None } else { Some(self.open(now)) }
            }
            State::HalfOpen { .. } if !ok => Some(self.open(now)),
            State::HalfOpen { successes, probing } => {
                *successes += 1;
                *probing = false;
                if *successes < SUCCESSES {
                    return None;
                }
                self.probe = self.limits.probe;
                self.enter(State::Closed { failed: VecDeque::new(), in_a_row: 0 });
                Some(BreakerState::Closed)
            }
            State::Open { .. } => None,
        }
    }

    /// A request that was let through will not be sent, or was given up: it says nothing.
    pub(crate) fn abandon(&mut self, ticket: Ticket) {
        if ticket.epoch == self.epoch
            && let State::HalfOpen { probing, .. } = &mut self.state
        {
            *probing = false;
        }
    }

    fn open(&mut self, now: Time) -> BreakerState {
        self.enter(State::Open { until: now + self.probe });
        self.probe = Millis((self.probe.0.saturating_mul(2)).min(LONGEST_PROBE.0));
        BreakerState::Open
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.epoch += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits =
        Limits { ratio: 0.5, window: 6, consecutive: 4, probe: Millis::from_secs(40) };

    fn breaker() -> Breaker {
        Breaker::new(LIMITS)
    }

    /// One request at second `at`: whether it went, and the state after it.
    fn ask(b: &mut Breaker, at: i64, ok: bool) -> (bool, BreakerState) {
        let now = Time(at * 1_000);
        let went = b.admit(now).map(|ticket| b.settle(now, ticket, ok)).is_ok();
        (went, b.state(now))
    }

    #[test]
    fn the_table() {
        use BreakerState::{Closed, HalfOpen, Open};
        // Each request by its second and its success; then whether it went and the state after it.
        type Steps = &'static [(i64, bool, bool, BreakerState)];
        let cases: [(&str, Steps); 7] = [
            (
                "three in a row are not enough",
                &[(0, false, true, Closed), (1, false, true, Closed), (2, false, true, Closed)],
            ),
            (
                "four in a row",
                &[
                    (0, false, true, Closed),
                    (1, false, true, Closed),
                    (2, false, true, Closed),
                    (3, false, true, Open),
                    (4, true, false, Open),
                    (42, true, false, Open),
                ],
            ),
            (
                "half of the last six",
                &[
                    (0, false, true, Closed),
                    (1, true, true, Closed),
                    (2, false, true, Closed),
                    (3, true, true, Closed),
                    (4, true, true, Closed),
                    (5, false, true, Open),
                ],
            ),
            (
                "less than half of the last six",
                &[
                    (0, false, true, Closed),
                    (1, true, true, Closed),
                    (2, true, true, Closed),
                    (3, true, true, Closed),
                    (4, false, true, Closed),
                    (5, true, true, Closed),
                    (6, false, true, Closed),
                    (7, true, true, Closed),
                ],
            ),
            (
                "three good tries close it",
                &[
                    (0, false, true, Closed),
                    (0, false, true, Closed),
                    (0, false, true, Closed),
                    (0, false, true, Open),
                    (40, true, true, HalfOpen),
                    (41, true, true, HalfOpen),
                    (42, true, true, Closed),
                    // What failed before it opened is forgotten.
                    (43, false, true, Closed),
                ],
            ),
            (
                "a bad try opens it for twice as long",
                &[
                    (0, false, true, Closed),
                    (0, false, true, Closed),
                    (0, false, true, Closed),
                    (0, false, true, Open),
                    (40, true, true, HalfOpen),
                    (41, false, true, Open),
                    (120, true, false, Open),
                    (121, false, true, Open),
                    (280, true, false, Open),
                    // 160 s, then 300 s, then 300 s again.
                    (281, false, true, Open),
                    (580, true, false, Open),
                    (581, false, true, Open),
                    (880, true, false, Open),
                    (881, true, true, HalfOpen),
                ],
            ),
            (
                "closed again, it starts with the first interval",
                &[
                    (0, false, true, Closed),
                    (0, false, true, Closed),
                    (0, false, true, Closed),
                    (0, false, true, Open),
                    (40, false, true, Open),
                    (120, true, true, HalfOpen),
                    (120, true, true, HalfOpen),
                    (120, true, true, Closed),
                    (130, false, true, Closed),
                    (130, false, true, Closed),
                    (130, false, true, Closed),
                    (130, false, true, Open),
                    (169, true, false, Open),
                    (170, true, true, HalfOpen),
                ],
            ),
        ];
        for (name, steps) in cases {
            let mut b = breaker();
            for (i, (at, ok, went, state)) in steps.iter().enumerate() {
                assert_eq!(ask(&mut b, *at, *ok), (*went, *state), "{name}, step {i}");
            }
        }
    }

    #[test]
    fn one_tries_at_a_time_and_may_give_up() {
        let mut b = breaker();
        for _ in 0..4 {
            ask(&mut b, 0, false);
        }
        assert_eq!(b.check(Time(39_999)), Err(Barred { until: Some(Time(40_000)) }));
        assert_eq!(b.state(Time(40_000)), BreakerState::HalfOpen);
        let probe = b.admit(Time(40_000)).unwrap();
        assert_eq!(b.admit(Time(40_001)), Err(Barred { until: None }));
        b.abandon(probe);
        assert!(b.admit(Time(40_002)).is_ok());
    }

    #[test]
    fn late_answers_change_nothing() {
        let mut b = breaker();
        let late = b.admit(Time(0)).unwrap();
        for _ in 0..4 {
            ask(&mut b, 0, false);
        }
        assert_eq!(b.settle(Time(1), late, true), None);
        assert_eq!(b.state(Time(1)), BreakerState::Open);
        let probe = b.admit(Time(40_000)).unwrap();
        assert_eq!(b.settle(Time(40_001), late, false), None);
        b.abandon(late);
        assert_eq!(
            b.admit(Time(40_002)),
            Err(Barred { until: None }),
            "the try is still under way"
        );
        assert_eq!(b.settle(Time(40_003), probe, true), None);
        assert_eq!(b.state(Time(40_003)), BreakerState::HalfOpen);
    }

    proptest! {
        #[test]
        fn an_open_breaker_lets_nothing_through_and_always_heals(
            steps in proptest::collection::vec((0_i64..100, any::<bool>()), 0..120),
        ) {
            let mut b = breaker();
            let mut now = 0;
            let mut open_until = None;
            for (pause, ok) in steps {
                now += pause;
                let at = Time(now * 1_000);
                match b.admit(at) {
                    Err(barred) => {
                        prop_assert_eq!(b.state(at), BreakerState::Open);
                        prop_assert_eq!(barred.until, open_until);
                        prop_assert!(barred.until.is_some_and(|u| u > at && u - at <= LONGEST_PROBE));
                    }
                    Ok(ticket) => {
                        prop_assert!(open_until.is_none_or(|u| at >= u));
                        b.settle(at, ticket, ok);
                        open_until = b.check(at).err().and_then(|barred| barred.until);
                    }
                }
            }
            for _ in 0..SUCCESSES {
                now += 300;
                ask(&mut b, now, true);
            }
            prop_assert_eq!(b.state(Time(now * 1_000)), BreakerState::Closed);
        }
    }
}
