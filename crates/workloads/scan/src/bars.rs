//! Closed hourly bars: checked, grouped into longer ones, looked up by time.

use watchbell_core::{Millis, Time};
use watchbell_venues::native::Bar;

const HOUR: Millis = Millis::from_hours(1);

/// A bar that cannot be: nothing is computed out of a series that holds one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bar at {at}: {what}")]
pub struct BadBar {
    /// Its start.
    pub at: Time,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Whether the series can be reckoned with: on the grid, strictly ascending, prices that are
/// positive and in order, volumes that are not negative.
///
/// # Errors
/// The first bar that cannot be.
pub fn check(bars: &[Bar]) -> Result<(), BadBar> {
    let mut before = None;
    for bar in bars {
        let bad = |what| Err(BadBar { at: bar.open_time, what });
        if bar.open_time.floor(HOUR) != bar.open_time {
            return bad("not on the hour");
        }
        if before.is_some_and(|b| b >= bar.open_time) {
            return bad("not after the one before");
        }
        if !is_valid(bar) {
            return bad("not a price or volume");
        }
        if !(bar.low <= bar.open.min(bar.close) && bar.open.max(bar.close) <= bar.high) {
            return bad("open or close beyond low or high");
        }
        before = Some(bar.open_time);
    }
    Ok(())
}

/// Section 3.2: finite, high at least low, prices positive, volume not negative.
pub(crate) fn is_valid(bar: &Bar) -> bool {
    let finite = [bar.open, bar.high, bar.low, bar.close, bar.volume, bar.quote_volume];
    finite.into_iter().all(f64::is_finite)
        && bar.high >= bar.low
        && bar.low > 0.0
        && bar.close > 0.0
        && bar.open > 0.0
        && bar.volume >= 0.0
        && bar.quote_volume >= 0.0
}

/// Those that were closed at this instant: an exchange may send the one that still forms.
pub(crate) fn closed(bars: &[Bar], at: Time) -> &[Bar] {
    &bars[..bars.partition_point(|b| b.open_time + HOUR <= at)]
}

/// When the last bar ended.
pub(crate) fn end(bars: &[Bar]) -> Option<Time> {
    bars.last().map(|b| b.open_time + HOUR)
}

/// Whole bars that have passed since the last one ended (section 2.7).
pub(crate) fn age(bars: &[Bar], now: Time) -> Option<i64> {
    end(bars).map(|end| now.since(end) / HOUR)
}

/// The close that stood `hours` before the end of the last bar; none where that bar is missing.
pub(crate) fn close_before(bars: &[Bar], hours: i64) -> Option<f64> {
    let wanted = bars.last()?.open_time - HOUR * hours;
    bars.binary_search_by_key(&wanted, |b| b.open_time).ok().map(|i| bars[i].close)
}

/// Bars of `hours` each, on the grid of UTC: open first, high greatest, low least, close last, volumes
/// added. A group that lacks an hour is left out (section 2.1).
pub(crate) fn group(bars: &[Bar], hours: usize) -> Vec<Bar> {
    let length = HOUR * hours as i64;
    bars.chunk_by(|a, b| a.open_time.floor(length) == b.open_time.floor(length))
        .filter(|group| group.len() == hours)
        .map(|group| Bar {
            open_time: group[0].open_time,
            open: group[0].open,
            high: group.iter().fold(group[0].high, |m, b| m.max(b.high)),
            low: group.iter().fold(group[0].low, |m, b| m.min(b.low)),
            close: group[hours - 1].close,
            volume: group.iter().map(|b| b.volume).sum(),
            quote_volume: group.iter().map(|b| b.quote_volume).sum(),
        })
        .collect()
}
