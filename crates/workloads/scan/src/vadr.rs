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
