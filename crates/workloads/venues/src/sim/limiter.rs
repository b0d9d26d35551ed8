//! The venue's request budget: a fixed minute per address, then 429, then a ban. Spec: venues,
//! section 12.4.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::Serialize;
use watchbell_core::{Millis, Time};

use super::market::MINUTE;

/// What one address may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Request weight per minute of the simulated clock.
    pub weight_per_minute: u32,
    /// Refused requests within one minute that lead to a ban.
    pub refused_before_ban: u32,
    /// Length of the first ban; each further one is twice as long.
    pub first_ban: Millis,
    /// The longest ban.
    pub longest_ban: Millis,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            weight_per_minute: 6_000,
            refused_before_ban: 10,
            first_ban: Millis::from_secs(120),
            longest_ban: Millis::from_secs(259_200),
        }
    }
}

/// How a request was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Within the budget; the weight used this minute.
    Pass(u32),
    /// Over it: 429 until the next minute.
    Refused { used: u32, retry_after: i64 },
    /// 418 until an instant.
    Banned { used: u32, until: Time, retry_after: i64 },
}

/// The state of one address, as the journal and tests see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LimiterState {
    /// Weight used in the current minute, refused requests included.
    pub used: u32,
    /// Requests refused in the current minute.
    pub refused: u32,
    /// Bans so far.
    pub bans: u32,
    /// End of the ban, when there is one.
    pub banned_until: Option<Time>,
    #[serde(skip)]
    minute: i64,
}

#[derive(Debug)]
pub(super) struct Limiter {
    limits: Limits,
    addresses: HashMap<IpAddr, LimiterState>,
}

impl Limiter {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, addresses: HashMap::new() }
    }

    /// Counts a request, refused or not, and judges it.
    pub(super) fn charge(&mut self, from: IpAddr, weight: u32, now: Time) -> Verdict {
        let limits = self.limits;
        let state = self.state(from, now);
        state.used = state.used.saturating_add(weight);
        if state.banned_until.is_none() && state.used > limits.weight_per_minute {
            state.refused += 1;
            if state.refused <= limits.refused_before_ban {
                let next = (state.minute + 1) * MINUTE;
                return Verdict::Refused {
                    used: state.used,
                    retry_after: seconds(Millis(next - now.0)),
                };
            }
            state.bans += 1;
            let doubled = limits.first_ban.0.saturating_mul(1 << (state.bans - 1).min(20));
            state.banned_until = Some(now + Millis(doubled.min(limits.longest_ban.0)));
        }
        match state.banned_until {
            Some(until) => {
                Verdict::Banned { used: state.used, until, retry_after: seconds(until - now) }
            }
            None => Verdict::Pass(state.used),
        }
    }

    /// Bans an address at once, as a fault script may ask.
    pub(super) fn ban(&mut self, from: IpAddr, span: Millis, now: Time) -> Time {
        let state = self.state(from, now);
        state.bans += 1;
        let until = now + span;
        state.banned_until = Some(until);
        until
    }

    /// The state of an address now.
    pub(super) fn state(&mut self, from: IpAddr, now: Time) -> &mut LimiterState {
        let minute = now.0.div_euclid(MINUTE);
        let state = self.addresses.entry(from).or_insert(LimiterState {
            used: 0,
            refused: 0,
            bans: 0,
            banned_until: None,
            minute,
        });
        if state.minute != minute {
            (state.minute, state.used, state.refused) = (minute, 0, 0);
        }
        if state.banned_until.is_some_and(|until| until <= now) {
            state.banned_until = None;
        }
        state
    }
}

/// Whole seconds, rounded up: a client that waits so long is never early.
pub(super) const fn seconds(span: Millis) -> i64 {
    (span.0 + 999).div_euclid(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_then_a_refusal_then_a_ban_that_doubles() {
        let limits = Limits { weight_per_minute: 10, refused_before_ban: 2, ..Limits::default() };
        let mut limiter = Limiter::new(limits);
        let me = IpAddr::from([127, 0, 0, 1]);
        let t = Time(1_800_000_000_000 + 37_500);
        assert_eq!(limiter.charge(me, 10, t), Verdict::Pass(10));
        for used in [11, 12] {
            assert_eq!(limiter.charge(me, 1, t), Verdict::Refused { used, retry_after: 23 });
        }
        let until = t + Millis::from_secs(120);
        let banned = Verdict::Banned { used: 13, until, retry_after: 120 };
        assert_eq!(limiter.charge(me, 1, t), banned);
        // A new minute does not end a ban.
        assert!(matches!(
            limiter.charge(me, 1, t + Millis::from_secs(119)),
            Verdict::Banned { retry_after: 1, .. }
        ));
        assert_eq!(limiter.charge(me, 1, until + Millis::from_mins(1)), Verdict::Pass(1));
        let later = until + Millis::from_mins(2);
        for _ in 0..2 {
            assert!(matches!(limiter.charge(me, 11, later), Verdict::Refused { .. }));
        }
        assert!(matches!(limiter.charge(me, 11, later), Verdict::Banned { retry_after: 240, .. }));
    }
}
