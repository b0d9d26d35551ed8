//! The momentum core: returns over five spans, each measured in the symbol's own usual movement
//! (sections 2.1 to 2.3). What it gives is protected: nothing after it alters it.

use watchbell_core::math;
use watchbell_venues::native::Bar;

use crate::bars::{close_before, group};
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
        let groups = |hours_each: usize| match hours_each {
            4 => fours.len(),
            n => group(hours, n).len(),
        };
        let mut returns = [None; 5];
        for (i, span) in SPANS.into_iter().enumerate() {
            let enough = hours.len() >= HOURS_MIN[i]
                && (GROUPS_MIN[i] == 0 || groups(span as usize) >= GROUPS_MIN[i]);
            returns[i] = log(close, back(span)).filter(|r| enough && r.is_finite());
        }
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

/// By how many percentage points the last 4 hours returned more than the 4 before.
pub(crate) fn acceleration(hours: &[Bar]) -> Option<f64> {
    let (now, then, before) =
        (hours.last()?.close, close_before(hours, 4)?, close_before(hours, 8)?);
    Some(100.0 * (math::ln(now / then) - math::ln(then / before)))
}
