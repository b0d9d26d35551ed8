//! The momentum core: returns over five spans, each measured in the symbol's own usual movement
//! (sections 2.1 to 2.3). What it gives is protected: nothing after it alters it.

use watchbell_core::math;
use watchbell_venues::native::Bar;

use crate::bars::{close_before, whole};
use crate::indicators;
use crate::regime::RegimeName;

/// The spans in hours, and how many hourly bars and bars of their own length they need.
const SPANS: [i64; 5] = [1, 4, 12, 24, 168];
const HOURS_MIN: [usize; 5] = [24, 0, 0, 0, 169];
const GROUPS_MIN: [usize; 5] = [0, 20, 3, 3, 0];

/// No range is taken for less than this fraction of the price.
const ATR_FLOOR: f64 = 1e-6;
/// What a percentage point of acceleration adds, and the most points that count.
const ACCELERATION: f64 = 0.10;
const ACCELERATION_CAP: f64 = 5.0;

/// Weights of 1h, 4h, 12h, 24h and 7d (section 2.2).
#[must_use]
pub const fn weights(regime: RegimeName) -> [f64; 5] {
    match regime {
        RegimeName::Calm => [0.15, 0.30, 0.35, 0.15, 0.05],
        RegimeName::Normal => [0.20, 0.35, 0.30, 0.15, 0.0],
        RegimeName::Volatile => [0.25, 0.35, 0.25, 0.15, 0.0],
    }
}

/// What momentum is made of.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Inputs {
    /// Log returns over 1h, 4h, 12h, 24h and 7d.
    pub returns: [Option<f64>; 5],
    /// Average true range of the hourly bars, a fraction of the price.
    pub atr_1h: Option<f64>,
    /// That of the 4-hour bars.
    pub atr_4h: Option<f64>,
    /// The return over 4 hours less that over the 4 hours before, in percentage points; none when
    /// the bars are stale.
    pub acceleration: Option<f64>,
}

impl Inputs {
    /// Measures checked, closed hourly bars, and their groups of four.
    #[must_use]
    pub fn of(hours: &[Bar], fours: &[Bar], fresh: bool) -> Self {
        let close = hours.last().map(|b| b.close);
        let back = |h| close_before(hours, h);
        let log = |now: Option<f64>, then: Option<f64>| Some(math::ln(now? / then?));
        let enough = |i: usize| {
            let (span, least) = (SPANS[i] as usize, GROUPS_MIN[i]);
            hours.len() >= HOURS_MIN[i]
                && (least == 0
                    || if span == 4 {
                        fours.len() >= least
                    } else {
                        has_groups(hours, span, least)
                    })
        };
        let has = |i: usize, r: f64| r.is_finite() && enough(i);
        let returns = std::array::from_fn(|i| log(close, back(SPANS[i])).filter(|r| has(i, *r)));
        let fraction = |atr: Option<f64>| Some(atr? / close?);
        Self {
            returns,
            atr_1h: fraction(indicators::atr(hours)),
            atr_4h: fraction(indicators::atr(fours)),
            acceleration: acceleration(hours).filter(|_| fresh),
        }
    }

    /// The sum that is squeezed into the core; none when neither 4h nor 12h can be told.
    #[must_use]
    pub fn x(&self, weights: [f64; 5]) -> Option<f64> {
        let (mut sum, mut known) = (0.0, 0.0);
        let mut middle = false;
        for (i, weight) in weights.into_iter().enumerate() {
            let atr = if i == 0 { self.atr_1h } else { self.atr_4h };
            let (Some(r), Some(atr)) = (self.returns[i], atr) else { continue };
            sum += weight * r / atr.max(ATR_FLOOR);
            known += weight;
            middle |= i == 1 || i == 2;
        }
        if !middle {
            return None;
        }
        let complete = (known - 1.0).abs() <= 1e-9;
        let mut x = if complete { sum } else { sum / known };
        if let (Some(r4h), Some(accel)) = (self.returns[1], self.acceleration)
            && ((r4h > 0.0 && accel > 0.0) || (r4h < 0.0 && accel < 0.0))
        {
            x += r4h.signum() * ACCELERATION * accel.abs().min(ACCELERATION_CAP);
        }
        x.is_finite().then_some(x)
    }

    /// The core, 0 to 100; 50 is flat.
    #[must_use]
    pub fn core(&self, weights: [f64; 5]) -> Option<f64> {
        self.x(weights).map(|x| 50.0 * (1.0 + math::tanh(x / 2.0)))
    }
}

/// Whether there are at least so many whole groups of this many hours.
fn has_groups(hours: &[Bar], each: usize, least: usize) -> bool {
    whole(hours, each).take(least).count() == least
}

/// By how many percentage points the last 4 hours returned more than the 4 before.
pub(crate) fn acceleration(hours: &[Bar]) -> Option<f64> {
    let (now, then, before) =
        (hours.last()?.close, close_before(hours, 4)?, close_before(hours, 8)?);
    Some(100.0 * (math::ln(now / then) - math::ln(then / before)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bars::group;
    use crate::bars::tests::hourly;

    const NORMAL: [f64; 5] = weights(RegimeName::Normal);

    fn vector() -> Inputs {
        Inputs {
            returns: [Some(0.01), Some(0.02), Some(0.03), Some(0.05), None],
            atr_1h: Some(0.008),
            atr_4h: Some(0.016),
            acceleration: None,
        }
    }

    /// Section 2.3, the vector.
    #[test]
    fn the_vector_holds() {
        let plain = vector();
        let rising = Inputs { acceleration: Some(1.0), ..plain };
        for (inputs, x, core) in [(plain, 1.71875, 84.7968), (rising, 1.81875, 86.0416)] {
            assert!((inputs.x(NORMAL).unwrap() - x).abs() < 1e-12);
            assert!((inputs.core(NORMAL).unwrap() - core).abs() < 5e-5);
        }
        let of_x = |x: f64| {
            let returns = [Some(0.0), Some(x / 0.35), Some(0.0), Some(0.0), None];
            let unit = Inputs { returns, atr_1h: Some(1.0), atr_4h: Some(1.0), acceleration: None };
            unit.core(NORMAL).unwrap()
        };
        assert_eq!(of_x(0.0), 50.0);
        assert!((of_x(1.0986) - 75.0).abs() < 1e-3);
        assert!((of_x(-1.0986) - 25.0).abs() < 1e-3);
    }

    /// Section 2.2: weights add up to 1; what is missing is left out and the rest weighs more.
    #[test]
    fn a_missing_span_is_left_out() {
        for regime in RegimeName::ALL {
            assert!((weights(regime).iter().sum::<f64>() - 1.0).abs() <= 1e-9);
        }
        let mut inputs = vector();
        inputs.returns[3] = None;
        let x = (0.20 * 0.01 / 0.008 + (0.35 * 0.02 + 0.30 * 0.03) / 0.016) / 0.85;
        assert!((inputs.x(NORMAL).unwrap() - x).abs() < 1e-12);
        inputs.returns[1] = None;
        assert!(inputs.x(NORMAL).is_some(), "12h alone is enough");
        inputs.returns[2] = None;
        assert_eq!(inputs.core(NORMAL), None, "neither 4h nor 12h");
        assert_eq!(Inputs { atr_4h: None, ..vector() }.core(NORMAL), None);
        assert!(Inputs { atr_1h: None, ..vector() }.core(NORMAL).is_some());
    }

    /// Section 2.3: acceleration counts only along the return of 4 hours, and five points at most.
    #[test]
    fn acceleration_counts_only_along_the_move() {
        let at = |r4h: f64, accel: f64| {
            let mut inputs = vector();
            inputs.returns[1] = Some(r4h);
            let without = inputs.x(NORMAL).unwrap();
            inputs.acceleration = Some(accel);
            inputs.x(NORMAL).unwrap() - without
        };
        for (r4h, accel, adds) in [
            (0.02, 1.0, 0.1),
            (0.02, 5.0, 0.5),
            (0.02, 50.0, 0.5),
            (0.02, -1.0, 0.0),
            (-0.02, -1.0, -0.1),
            (-0.02, 1.0, 0.0),
            (0.0, 1.0, 0.0),
            (0.02, 0.0, 0.0),
        ] {
            assert!((at(r4h, accel) - adds).abs() < 1e-12, "{r4h} {accel}");
        }
    }

    /// Section 2.1: spans end at the last closed hour; each has a least number of bars.
    #[test]
    fn spans_roll_with_the_hour_and_want_enough_bars() {
        let closes: Vec<f64> = (0..200).map(|i| 100.0 * 1.001_f64.powi(i)).collect();
        let known = |n: usize| {
            let hours = hourly(3, &closes[..n]);
            let inputs = Inputs::of(&hours, &group(&hours, 4), true);
            inputs.returns.map(|r| r.is_some())
        };
        assert_eq!(known(23), [false, false, false, false, false]);
        assert_eq!(known(24), [true, false, false, false, false]);
        // Hours 3 to 80: 19 whole groups of four from 04:00 on, then 20.
        assert_eq!(known(80), [true, false, true, false, false]);
        assert_eq!(known(81), [true, true, true, false, false]);
        // 24:00 to 96:00 are three whole days.
        assert_eq!(known(92), [true, true, true, false, false]);
        assert_eq!(known(93), [true, true, true, true, false]);
        assert_eq!(known(168), [true, true, true, true, false]);
        assert_eq!(known(169), [true, true, true, true, true]);

        let hours = hourly(3, &closes);
        let inputs = Inputs::of(&hours, &group(&hours, 4), true);
        for (r, span) in inputs.returns.into_iter().zip(SPANS) {
            assert!((r.unwrap() - span as f64 * 1.001_f64.ln()).abs() < 1e-12, "{span}");
        }
        assert!(inputs.acceleration.unwrap().abs() < 1e-10);
        assert_eq!(Inputs::of(&hours, &group(&hours, 4), false).acceleration, None, "stale");
        let mut gap = hours;
        gap.remove(200 - 1 - 4);
        assert_eq!(Inputs::of(&gap, &group(&gap, 4), true).returns[1], None, "no bar 4 hours ago");
    }

    proptest! {
        /// Section 2.3: never less for a greater return, and within 0 and 100.
        #[test]
        fn monotone_in_each_return_and_bounded(
            returns in prop::array::uniform5(-0.5_f64..0.5),
            step in 0.0_f64..0.2,
            which in 0_usize..5,
            atr_1h in 0.0_f64..0.1,
            atr_4h in 0.0_f64..0.1,
            acceleration in proptest::option::of(-20.0_f64..20.0),
        ) {
            for regime in RegimeName::ALL {
                let mut inputs = Inputs {
                    returns: returns.map(Some),
                    atr_1h: Some(atr_1h),
                    atr_4h: Some(atr_4h),
                    acceleration,
                };
                let before = inputs.core(weights(regime)).unwrap();
                inputs.returns[which] = Some(returns[which] + step);
                let after = inputs.core(weights(regime)).unwrap();
                prop_assert!((0.0..=100.0).contains(&before) && (0.0..=100.0).contains(&after));
                prop_assert!(after >= before, "{before} {after}");
            }
        }
    }
}
