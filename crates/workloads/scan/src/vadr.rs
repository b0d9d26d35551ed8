//! The volume-adjusted daily range: the activity of the last bar beside the usual of the symbol at the
//! same exchange (section 3).
//!
//! With fewer than 20 valid bars there is nothing to compare with. That is another type, and the
//! gate does not take it:
//!
//! ```compile_fail
//! use watchbell_scan::vadr::{Frozen, Required, passes};
//! fn frozen_cannot_pass(frozen: &Frozen, required: Required) -> bool {
//!     passes(frozen, required)
//! }
//! ```
//!
//! ```
//! use watchbell_scan::vadr::{Live, Required, passes};
//! fn only_live_may(live: &Live, required: Required) -> bool {
//!     passes(live, required)
//! }
//! ```

use watchbell_core::{Millis, Time};
use watchbell_venues::native::Bar;

use crate::bars::is_valid;

/// Hourly slots of the window, the current one included.
pub const WINDOW: usize = 24;
/// Valid bars of the window without which it is frozen.
pub const BARS_MIN: usize = 20;
/// Whole bars that may have passed since the current one ended.
pub const AGE_MAX: i64 = 2;
/// How many hours back a last good value is looked for.
const LAST_GOOD: i64 = 168;

const HOUR: Millis = Millis::from_hours(1);

/// The activity of the last bar beside the usual.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Vadr {
    /// Measured now.
    Live(Live),
    /// Not to be measured; never passes.
    Frozen(Frozen),
}

/// A ratio that was measured now. Only [`measure`] makes one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Live {
    value: f64,
    p80: f64,
    bars: usize,
}

impl Live {
    /// The last bar's activity over the mean of those before.
    #[must_use]
    pub const fn value(&self) -> f64 {
        self.value
    }
    /// The 80th percentile of those before, in the same measure.
    #[must_use]
    pub const fn p80(&self) -> f64 {
        self.p80
    }
    /// Valid bars in the window.
    #[must_use]
    pub const fn bars(&self) -> usize {
        self.bars
    }
}

/// Why there is no ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Fewer than 20 valid bars.
    Few,
    /// The current bar is missing, too old, or no bar.
    NoCurrent,
    /// Nothing was traded before, so nothing compares.
    Still,
}

/// A ratio that cannot be measured now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frozen {
    /// Valid bars in the window.
    pub bars: usize,
    /// The ratio of the last hour that had one, for show.
    pub last_good: Option<f64>,
    /// Why.
    pub cause: Cause,
}

/// Measures closed, ascending hourly bars of one exchange.
#[must_use]
pub fn measure(bars: &[Bar], now: Time) -> Vadr {
    let Some(last) = bars.last() else {
        return Vadr::Frozen(Frozen { bars: 0, last_good: None, cause: Cause::NoCurrent });
    };
    let at = last.open_time;
    let current = now.since(at + HOUR) / HOUR <= AGE_MAX;
    let of_now = window(bars, at)
        .and_then(|live| if current { Ok(live) } else { Err((live.bars, Cause::NoCurrent)) });
    match of_now {
        Ok(live) => Vadr::Live(live),
        Err((valid, cause)) => {
            let last_good = (0..=LAST_GOOD).find_map(|h| window(bars, at - HOUR * h).ok());
            Vadr::Frozen(Frozen { bars: valid, last_good: last_good.map(|l| l.value), cause })
        }
    }
}

fn slots(bars: &[Bar], at: Time) -> &[Bar] {
    let first = at - HOUR * (WINDOW as i64 - 1);
    let from = bars.partition_point(|b| b.open_time < first);
    let to = bars.partition_point(|b| b.open_time <= at);
    &bars[from..to]
}

/// The ratio of the bar at this slot within its window.
fn window(bars: &[Bar], at: Time) -> Result<Live, (usize, Cause)> {
    let slots = slots(bars, at);
    let valid = slots.iter().filter(|b| is_valid(b)).count();
    if valid < BARS_MIN {
        return Err((valid, Cause::Few));
    }
    let current = slots.last().filter(|b| b.open_time == at && is_valid(b));
    let current = current.ok_or((valid, Cause::NoCurrent))?;
    let before = slots.iter().filter(|b| b.open_time < at && is_valid(b));
    let mut usual: Vec<f64> = before.map(activity).collect();
    let mean = usual.iter().sum::<f64>() / usual.len() as f64;
    let value = activity(current) / mean;
    if !(mean > 0.0 && value.is_finite()) {
        return Err((valid, Cause::Still));
    }
    usual.iter_mut().for_each(|a| *a /= mean);
    Ok(Live { value, p80: percentile(&mut usual, 0.8), bars: valid })
}

/// The range as a share of the close, times the root of the value traded.
fn activity(bar: &Bar) -> f64 {
    (bar.high - bar.low) / bar.close * bar.quote_volume.sqrt()
}

/// The percentile by linear interpolation between the nearest ranks.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = share * (values.len() as f64 - 1.0);
    let low = values[index.floor() as usize];
    let high = values[index.ceil() as usize];
    low + (high - low) * (index - index.floor())
}

/// What is required of a ratio, and by which rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Required {
    /// The least that passes.
    pub value: f64,
    /// The greatest of the terms: `entry_floor`, `tier_min` or `p80`, in this order on a tie.
    pub binding: &'static str,
}

/// The greatest of percentile, tier and floor (section 3.4).
#[must_use]
pub fn required(p80: f64, tier_min: f64, floor: Option<f64>) -> Required {
    let terms =
        [(floor.unwrap_or(f64::NEG_INFINITY), "entry_floor"), (tier_min, "tier_min"), (p80, "p80")];
    // A percentile that is no number becomes the requirement, and nothing meets that.
    let greater = |best: (f64, _), term: (f64, _)| if term.0 <= best.0 { best } else { term };
    let (value, binding) = terms.into_iter().fold((f64::NEG_INFINITY, "entry_floor"), greater);
    Required { value, binding }
}

/// Whether a ratio that was measured now is enough; exactly enough is.
#[must_use]
pub fn passes(live: &Live, required: Required) -> bool {
    live.value.is_finite() && live.value >= required.value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bars::tests::hourly;
    use crate::settings::TIERS;

    /// A bar with this activity: a range of 1 % and the value that goes with it.
    fn bar(hour: i64, activity: f64) -> Bar {
        let value = (activity / 0.01).powi(2);
        let open_time = Time(0) + HOUR * hour;
        Bar {
            open_time,
            open: 100.0,
            high: 100.5,
            low: 99.5,
            close: 100.0,
            volume: value / 100.0,
            quote_volume: value,
        }
    }

    fn at_end(bars: &[Bar]) -> Vadr {
        measure(bars, bars.last().unwrap().open_time + HOUR)
    }

    fn live(bars: &[Bar]) -> Live {
        match at_end(bars) {
            Vadr::Live(live) => live,
            Vadr::Frozen(frozen) => panic!("frozen: {frozen:?}"),
        }
    }

    fn frozen(vadr: Vadr) -> Frozen {
        match vadr {
            Vadr::Frozen(frozen) => frozen,
            Vadr::Live(live) => panic!("live: {live:?}"),
        }
    }

    /// Section 3.2, the vector and the percentiles.
    #[test]
    fn the_vector_holds() {
        let cycle = [5.0, 10.0, 15.0, 7.5, 12.5];
        let usual = (0..23).map(|i| bar(i, cycle[i as usize % 5]));
        let bars: Vec<Bar> = usual.chain([bar(23, 20.0)]).collect();
        let live = live(&bars);
        assert!((live.value() - 2.0).abs() < 1e-9, "{}", live.value());
        assert!((live.p80() - 1.4).abs() < 1e-9, "{}", live.p80());
        assert_eq!(live.bars(), 24);
        for (n, p80) in [(5, 4.2), (23, 18.6)] {
            let mut values: Vec<f64> = (1..=n).rev().map(f64::from).collect();
            assert!((percentile(&mut values, 0.8) - p80).abs() < 1e-12);
        }
    }

    /// Section 3.3: 19 bars freeze, 20 do not.
    #[test]
    fn fewer_than_twenty_bars_freeze() {
        for valid in [0_i64, 1, 18, 19, 20, 21, 24] {
            let bars: Vec<Bar> = (0..valid).map(|i| bar(i, 10.0)).collect();
            match measure(&bars, Time(0) + HOUR * valid) {
                Vadr::Live(live) => assert!(valid >= 20 && live.bars() == valid as usize),
                Vadr::Frozen(f) => assert!(valid < 20 && f.bars == valid as usize, "{valid}"),
            }
        }
        // 24 slots of which some are missing, or hold no bar.
        for (missing, is_live) in [(4, true), (5, false)] {
            let mut gaps: Vec<Bar> = (0..24).map(|i| bar(i, 10.0)).collect();
            let mut broken = gaps.clone();
            gaps.drain(3..3 + missing);
            broken[3..3 + missing].iter_mut().for_each(|b| b.high = f64::NAN);
            assert_eq!(matches!(at_end(&gaps), Vadr::Live(_)), is_live);
            assert_eq!(matches!(at_end(&broken), Vadr::Live(_)), is_live);
        }
    }

    #[test]
    fn the_current_bar_must_be_there_and_the_usual_must_move() {
        let bars: Vec<Bar> = (0..24).map(|i| bar(i, 10.0)).collect();
        let mut broken = bars.clone();
        broken[23].close = f64::NAN;
        let f = frozen(at_end(&broken));
        assert_eq!((f.bars, f.cause, f.last_good), (23, Cause::NoCurrent, Some(1.0)));
        let end = Time(0) + HOUR * 24;
        for (late, is_live) in [(0, true), (2, true), (3, false)] {
            let vadr = measure(&bars, end + HOUR * late);
            assert_eq!(matches!(vadr, Vadr::Live(_)), is_live, "{late}");
        }
        assert_eq!(frozen(measure(&bars, end + HOUR * 3)).last_good, Some(1.0));
        let still: Vec<Bar> = (0..23).map(|i| bar(i, 0.0)).chain([bar(23, 10.0)]).collect();
        assert_eq!(frozen(at_end(&still)).cause, Cause::Still);
        assert_eq!(frozen(measure(&[], end)).bars, 0);
    }

    /// Section 3.4: the greatest term is required; on a tie the floor is named before the tier.
    #[test]
    fn the_greatest_term_binds() {
        for (p80, tier, floor, value, binding) in [
            (1.4, 1.85, Some(1.8), 1.85, "tier_min"),
            (1.4, 1.75, Some(1.8), 1.8, "entry_floor"),
            (1.9, 1.85, Some(1.8), 1.9, "p80"),
            (1.8, 1.8, Some(1.8), 1.8, "entry_floor"),
            (1.85, 1.85, Some(1.8), 1.85, "tier_min"),
            (1.8, 1.75, Some(1.8), 1.8, "entry_floor"),
            (1.4, 1.75, None, 1.75, "tier_min"),
            (f64::NEG_INFINITY, 1.75, None, 1.75, "tier_min"),
        ] {
            assert_eq!(required(p80, tier, floor), Required { value, binding }, "{p80} {tier}");
        }
        assert!(required(f64::NAN, 1.8, Some(1.8)).value.is_nan());
        let live = |value| Live { value, p80: 1.0, bars: 24 };
        let limit = required(1.0, 1.85, Some(1.8));
        for (value, passed) in [(1.85, true), (1.849_999, false), (f64::NAN, false), (9.0, true)] {
            assert_eq!(passes(&live(value), limit), passed, "{value}");
        }
        assert!(!passes(&live(9.0), required(f64::NAN, 1.8, None)));
        assert!(!passes(&live(f64::INFINITY), limit));
    }

    proptest! {
        /// No series makes a ratio that is no number, and none with fewer than 20 bars makes one.
        #[test]
        fn a_live_ratio_is_a_number(
            activities in prop::collection::vec(0.0_f64..50.0, 0..40),
            harmed in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut bars: Vec<Bar> = (0..).zip(&activities).map(|(i, a)| bar(i, *a)).collect();
            for at in harmed {
                if !bars.is_empty() {
                    let i = at.index(bars.len());
                    bars[i].quote_volume = f64::NAN;
                }
            }
            let now = Time(0) + HOUR * bars.len() as i64;
            if let Vadr::Live(live) = measure(&bars, now) {
                prop_assert!(live.value().is_finite() && live.p80().is_finite());
                prop_assert!(live.bars() >= BARS_MIN);
                for tier in &TIERS {
                    let r = required(live.p80(), tier.vadr_min, Some(1.8));
                    prop_assert!(r.value >= live.p80().max(tier.vadr_min).max(1.8));
                }
            }
        }
    }

    #[test]
    fn plain_bars_have_a_ratio_of_one() {
        assert!((live(&hourly(5, &[7.0; 30])).value() - 1.0).abs() < 1e-12);
    }
}
