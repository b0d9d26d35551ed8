//! How hard the store is pressed, and by how much a node slows down for it: section 11.4.
//!
//! The node looks at its own calls of the store from time to time. When 95 of 100 took longer than
//! [`SLOW`] at most, or one found no connection free, the factor doubles, up to [`MOST`]; after
//! [`CLEAN`] looks in a row that found nothing wrong it halves. The factor stretches the periods of
//! workers that run at an interval ([`keeps`]), and opportunistic workers wait until it is 1.
//! Windows, cron, events and jobs are never skipped for it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::trigger::Trigger;
use crate::units::{Millis, Time};

/// A 95th percentile above this is slow.
pub const SLOW: Millis = Millis(500);
/// The highest factor.
pub const MOST: u32 = 8;
/// Looks in a row that find nothing wrong before the factor halves.
pub const CLEAN: u32 = 3;
/// Calls that one look needs to be judged by: one slow call alone says nothing.
pub const ENOUGH: u32 = 5;

/// What one look found: calls since the last one that was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample {
    /// How many.
    pub calls: u32,
    /// How long 95 of 100 of them took at most.
    pub p95: Millis,
    /// Whether one of them failed, for no connection was free or all were locked out.
    pub exhausted: bool,
}

/// By how much the node slows down, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    /// 1 is not at all; else 2, 4 or 8.
    pub factor: u32,
    /// What the newest look that found something wrong measured.
    pub p95: Millis,
    /// Whether it found the connections exhausted.
    pub exhausted: bool,
    /// When the factor changed last.
    pub since: Option<Time>,
    /// Looks in a row that found nothing wrong.
    clean: u32,
}

impl Default for Pressure {
    fn default() -> Self {
        Self { factor: 1, p95: Millis::ZERO, exhausted: false, since: None, clean: 0 }
    }
}

impl Pressure {
    /// The state after a look.
    #[must_use]
    pub fn after(self, sample: Sample, now: Time) -> Self {
        let judged = sample.calls >= ENOUGH;
        if sample.exhausted || (judged && sample.p95 > SLOW) {
            let factor = (self.factor * 2).min(MOST);
            let since = if factor == self.factor { self.since } else { Some(now) };
            let Sample { p95, exhausted, .. } = sample;
            return Self { factor, p95, exhausted, since, clean: 0 };
        }
        if self.factor == 1 || (sample.calls > 0 && !judged) {
            return self;
        }
        match self.clean + 1 {
            CLEAN => Self { factor: self.factor / 2, since: Some(now), clean: 0, ..self },
            clean => Self { clean, ..self },
        }
    }

    /// Whether the node slows down.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.factor > 1
    }
}

impl fmt::Display for Pressure {
    /// Why it slows down, or did.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.exhausted {
            f.write_str("no connection of the store was free")
        } else {
            write!(f, "95 of 100 calls of the store took up to {}", self.p95)
        }
    }
}

/// Whether the due instant of an interval still runs at this factor: one of `factor` instants does,
/// and these lie on a grid of their own, the same on each node. What is no interval always runs.
#[must_use]
pub fn keeps(trigger: &Trigger, due: Time, factor: u32) -> bool {
    match trigger {
        Trigger::Every { period, offset } if period.0 > 0 => {
            (due.0 - offset.0).div_euclid(period.0).rem_euclid(i64::from(factor.max(1))) == 0
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slow(p95: i64) -> Sample {
        Sample { calls: ENOUGH, p95: Millis(p95), exhausted: false }
    }

    const IDLE: Sample = Sample { calls: 0, p95: Millis::ZERO, exhausted: false };
    const FAST: Sample = Sample { calls: 100, p95: Millis(3), exhausted: false };

    /// The factors after each look.
    fn factors(samples: &[Sample]) -> Vec<u32> {
        let mut state = Pressure::default();
        let mut now = Time(0);
        samples
            .iter()
            .map(|sample| {
                now += Millis::from_secs(10);
                state = state.after(*sample, now);
                state.factor
            })
            .collect()
    }

    #[test]
    fn it_doubles_at_each_slow_look_and_halves_after_three_clean_ones() {
        let looks = [slow(501), slow(812), slow(9_000), slow(9_000)];
        assert_eq!(factors(&looks), [2, 4, 8, 8]);
        let looks = [slow(501), slow(501), FAST, FAST, FAST, IDLE, IDLE, IDLE, FAST];
        assert_eq!(factors(&looks), [2, 4, 4, 4, 2, 2, 2, 1, 1]);
        // A slow look in between begins the count anew.
        let looks = [slow(501), FAST, FAST, slow(501), FAST, FAST, FAST];
        assert_eq!(factors(&looks), [2, 2, 2, 4, 4, 4, 2]);
    }

    #[test]
    fn few_calls_say_nothing_and_the_limit_itself_is_not_slow() {
        let few = Sample { calls: ENOUGH - 1, p95: Millis(9_000), exhausted: false };
        assert_eq!(factors(&[few, slow(500), few]), [1, 1, 1]);
        // Neither do they count as clean.
        assert_eq!(factors(&[slow(501), FAST, FAST, few, few, FAST]), [2, 2, 2, 2, 2, 1]);
    }

    #[test]
    fn exhausted_connections_count_however_few_the_calls() {
        let sample = Sample { calls: 1, p95: Millis(1), exhausted: true };
        assert_eq!(factors(&[sample, sample]), [2, 4]);
        let state = Pressure::default().after(sample, Time(5));
        assert_eq!(state.to_string(), "no connection of the store was free");
        let state = Pressure::default().after(slow(812), Time(5));
        assert_eq!(state.to_string(), "95 of 100 calls of the store took up to 812ms");
        assert_eq!((state.since, state.is_on()), (Some(Time(5)), true));
    }

    proptest! {
        #[test]
        fn the_factor_is_a_power_of_two_within_bounds(
            looks in proptest::collection::vec((0_u32..10, 0_i64..1_000, any::<bool>()), 0..60)
        ) {
            let samples: Vec<_> = looks
                .into_iter()
                .map(|(calls, p95, exhausted)| Sample { calls, p95: Millis(p95), exhausted })
                .collect();
            let mut before = 1;
            for factor in factors(&samples) {
                prop_assert!([1, 2, 4, 8].contains(&factor));
                prop_assert!([before / 2, before, before * 2].contains(&factor));
                before = factor;
            }
            // It always recovers once the store does.
            let all: Vec<_> = samples.into_iter().chain([FAST; 9]).collect();
            prop_assert_eq!(*factors(&all).last().unwrap(), 1);
        }

        #[test]
        fn one_of_so_many_instants_is_kept(
            period in 1_i64..100_000, at in 0_i64..1_000, first in -1_000_i64..1_000, n in 0_u32..4
        ) {
            let (offset, factor) = (Millis(at % period), 1_u32 << n);
            let trigger = Trigger::Every { period: Millis(period), offset };
            let kept: Vec<i64> = (first..first + 64)
                .filter(|i| keeps(&trigger, Time(i * period + offset.0), factor))
                .collect();
            prop_assert_eq!(kept.len() as u32, 64 / factor);
            prop_assert!(kept.windows(2).all(|w| w[1] - w[0] == i64::from(factor)));
        }
    }
}
