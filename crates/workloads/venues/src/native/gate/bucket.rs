//! The token bucket: how fast requests may follow each other.

use watchbell_core::{Millis, Time};

/// A bucket of `burst` tokens that fills at a steady rate. It hands out instants instead of tokens:
/// who asks gets the instant from which on it may send, and is never passed by a later caller.
///
/// Kept as the instant at which the bucket will be full again, in microseconds, so that a rate of
/// three in a second does not drift.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    /// Microseconds per token.
    token: i64,
    burst: i64,
    full_at: i64,
    /// The newest instant that a caller brought.
    seen: Time,
}

impl Bucket {
    /// A full bucket. `rate` is in tokens a second and positive, `burst` at least 1.
    pub(crate) fn new(rate: f64, burst: u32) -> Self {
        let token = (1e6 / rate) as i64;
        Self { token, burst: i64::from(burst.max(1)), full_at: i64::MIN / 2, seen: Time(i64::MIN) }
    }

    /// Takes a token: the instant from which on the request may go, `now` or later.
    pub(crate) fn take(&mut self, now: Time) -> Time {
        // A clock that is set back must not make callers wait for the time that it lost.
        if now < self.seen {
            self.full_at -= self.seen.since(now).0.saturating_mul(1_000);
        }
        self.seen = now;
        let now_us = now.0.saturating_mul(1_000);
        let slot = now_us.max(self.full_at - (self.burst - 1) * self.token);
        self.full_at = self.full_at.max(now_us) + self.token;
        Time(slot.div_euclid(1_000)) + Millis(i64::from(slot.rem_euclid(1_000) > 0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slots(rate: f64, burst: u32, asks: &[i64]) -> Vec<i64> {
        let mut bucket = Bucket::new(rate, burst);
        asks.iter().map(|at| bucket.take(Time(*at)).0).collect()
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        for (rate, burst, asks, want) in [
            (1.0, 3, vec![0, 0, 0, 0, 0], vec![0, 0, 0, 1_000, 2_000]),
            (0.5, 2, vec![0, 0, 0, 0], vec![0, 0, 2_000, 4_000]),
            // An idle second earns a token, an idle hour no more than the burst.
            (1.0, 2, vec![0, 0, 1_000, 1_000], vec![0, 0, 1_000, 2_000]),
            (
                1.0,
                2,
                vec![0, 0, 3_600_000, 3_600_000, 3_600_000],
                vec![0, 0, 3_600_000, 3_600_000, 3_601_000],
            ),
            // Thirds of a second do not add up to a drift, and never round down.
            (3.0, 1, vec![0, 0, 0, 0], vec![0, 334, 667, 1_000]),
            // A clock that is set back by an hour.
            (1.0, 1, vec![3_600_000, 0, 0], vec![3_600_000, 1_000, 2_000]),
        ] {
            assert_eq!(slots(rate, burst, &asks), want, "{rate} {burst}");
        }
    }

    proptest! {
        #[test]
        fn no_span_holds_more_than_burst_and_rate_allow(
            rate in 0.2_f64..20.0, burst in 1_u32..20,
            pauses in proptest::collection::vec(0_i64..3_000, 1..80),
        ) {
            let mut bucket = Bucket::new(rate, burst);
            let mut now = 0;
            let mut sent = Vec::new();
            for pause in pauses {
                now += pause;
                let slot = bucket.take(Time(now));
                prop_assert!(slot.0 >= now);
                sent.push(slot.0);
            }
            prop_assert!(sent.is_sorted());
            for (i, from) in sent.iter().enumerate() {
                for (j, to) in sent.iter().enumerate().skip(i) {
                    let allowed = f64::from(burst) + rate * ((to - from + 1) as f64 / 1e3);
                    prop_assert!((j - i + 1) as f64 <= allowed + 0.01);
                }
            }
        }

        #[test]
        fn who_waits_waits_no_longer_than_its_turn(rate in 0.2_f64..20.0, burst in 1_u32..20, n in 1_usize..60) {
            let mut bucket = Bucket::new(rate, burst);
            let last = (0..n).map(|_| bucket.take(Time(0))).last().unwrap();
            let beyond = n.saturating_sub(burst as usize) as f64;
            prop_assert!((last.0 as f64) <= beyond / rate * 1e3 + 1.0);
        }
    }
}
