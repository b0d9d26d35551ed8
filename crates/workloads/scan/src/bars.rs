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
        // All of these hold together of a bar that can be; which does not is asked only then.
        let within = |price: f64| bar.low <= price && price <= bar.high;
        let priced = bar.low > 0.0 && bar.high < f64::INFINITY;
        let traded = |volume: f64| (0.0..f64::INFINITY).contains(&volume);
        let sound = priced && within(bar.open) && within(bar.close);
        if !(sound && traded(bar.volume) && traded(bar.quote_volume)) {
            return bad(if is_valid(bar) {
                "open or close beyond low or high"
            } else {
                "not a price or volume"
            });
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

/// The hourly bars of each whole group of `hours`, on the grid of UTC; a group that lacks an hour is
/// left out.
pub(crate) fn whole(bars: &[Bar], hours: usize) -> impl Iterator<Item = &[Bar]> {
    let length = HOUR * hours as i64;
    let mut rest = bars;
    std::iter::from_fn(move || {
        loop {
            let end = rest.first()?.open_time.floor(length) + length;
            let count = rest.iter().take_while(|b| b.open_time < end).count();
            let (group, after) = rest.split_at(count);
            rest = after;
            if count == hours {
                return Some(group);
            }
        }
    })
}

/// Bars of `hours` each: open first, high greatest, low least, close last, volumes added
/// (section 2.1).
pub(crate) fn group(bars: &[Bar], hours: usize) -> Vec<Bar> {
    whole(bars, hours)
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Hourly bars from the given hour on, one for each close; a percent of range, 1,000 of value.
    pub(crate) fn hourly(first_hour: i64, closes: &[f64]) -> Vec<Bar> {
        let bar = |(i, close): (usize, &f64)| Bar {
            open_time: Time(0) + HOUR * (first_hour + i as i64),
            open: *close,
            high: close * 1.005,
            low: close * 0.995,
            close: *close,
            volume: 1_000.0 / close,
            quote_volume: 1_000.0,
        };
        closes.iter().enumerate().map(bar).collect()
    }

    /// Section 2.1.
    #[test]
    fn groups_stand_on_the_grid_of_utc_and_want_every_hour() {
        let closes: Vec<f64> = (1..=14).map(f64::from).collect();
        // From 02:00 to 16:00: the first group lacks two hours.
        let mut hours = hourly(2, &closes);
        let fours = group(&hours, 4);
        let starts: Vec<i64> = fours.iter().map(|b| b.open_time.since(Time(0)) / HOUR).collect();
        assert_eq!(starts, [4, 8, 12]);
        let first = fours[0];
        assert_eq!((first.open, first.close, first.quote_volume), (3.0, 6.0, 4_000.0));
        assert_eq!((first.high, first.low), (6.0 * 1.005, 3.0 * 0.995));
        hours.remove(7);
        assert_eq!(group(&hours, 4).len(), 2, "an hour is missing in the middle of a group");
        assert!(group(&[], 4).is_empty());
    }

    #[test]
    fn what_still_forms_is_no_closed_bar() {
        let bars = hourly(0, &[1.0, 2.0, 3.0]);
        for (at, count) in [(0, 0), (59, 0), (60, 1), (179, 2), (180, 3), (10_000, 3)] {
            assert_eq!(closed(&bars, Time(0) + Millis::from_mins(at)).len(), count, "{at}");
        }
    }

    #[test]
    fn closes_are_found_by_time_and_ages_are_whole_bars() {
        let mut bars = hourly(0, &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!((close_before(&bars, 0), close_before(&bars, 3)), (Some(4.0), Some(1.0)));
        assert_eq!(close_before(&bars, 4), None);
        bars.remove(1);
        assert_eq!((close_before(&bars, 2), close_before(&bars, 1)), (None, Some(3.0)));
        for (minutes, bars_age) in [(240, 0), (299, 0), (300, 1), (419, 2), (420, 3)] {
            let now = Time(0) + Millis::from_mins(minutes);
            assert_eq!(age(&bars, now), Some(bars_age), "{minutes}");
        }
    }

    #[test]
    fn a_series_with_a_bar_that_cannot_be_is_refused_by_name() {
        let good = hourly(0, &[1.0, 2.0, 3.0]);
        assert_eq!(check(&good), Ok(()));
        type Harm = fn(&mut Vec<Bar>);
        let harms: [(Harm, &str); 8] = [
            (|b| b[1] = b[0], "not after the one before"),
            (|b| b.swap(0, 1), "not after the one before"),
            (|b| b[1].open_time = Time(1), "not on the hour"),
            (|b| b[1].close = f64::NAN, "not a price or volume"),
            (|b| b[1].low = 0.0, "not a price or volume"),
            (|b| b[1].quote_volume = -1.0, "not a price or volume"),
            (|b| b[1].high = f64::INFINITY, "not a price or volume"),
            (|b| b[1].close = 9.0, "open or close beyond low or high"),
        ];
        for (harm, what) in harms {
            let mut bars = good.clone();
            harm(&mut bars);
            assert_eq!(check(&bars).unwrap_err().what, what);
        }
    }
}
