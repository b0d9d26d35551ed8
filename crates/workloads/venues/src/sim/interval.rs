//! The grid of a symbol's klines: the venue's intervals, with the phase and the zone that a request
//! adds. Spec: venues, section 3.2.

use watchbell_core::Time;

use super::market::{DAY, MINUTE};
use crate::binance::wire::Interval;

/// A kline interval of the spot API from one minute up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Grid {
    interval: Interval,
    /// The day from which three-day candles count.
    phase: i64,
    /// Shift of the grid by the `timeZone` parameter, in milliseconds east of UTC.
    zone: i64,
}

impl Grid {
    /// The minute grid.
    pub(super) const MINUTE: Self = Self { interval: Interval::M1, phase: 0, zone: 0 };

    /// The interval of that name; seconds are not served.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let interval = name.parse().ok().filter(|i| *i != Interval::S1)?;
        Some(Self { interval, phase: 0, zone: 0 })
    }

    /// The venue's name of the interval.
    pub(super) const fn name(&self) -> &'static str {
        self.interval.as_str()
    }

    /// The same interval on the grid of a symbol whose first trading day is `listed`: three-day
    /// candles count from that day.
    pub(super) const fn for_listing(mut self, listed: i64) -> Self {
        self.phase = listed.div_euclid(DAY) * DAY;
        self
    }

    /// The same interval shifted to a zone, in milliseconds east of UTC.
    pub(super) const fn in_zone(mut self, zone: i64) -> Self {
        self.zone = zone;
        self
    }

    /// The plain one-minute grid: the base of everything.
    pub(super) fn is_minute(&self) -> bool {
        self.interval == Interval::M1 && self.zone % MINUTE == 0
    }

    /// The open time of the candle that holds `t`.
    pub(super) fn floor(&self, t: i64) -> i64 {
        let local = t + self.zone;
        let open = self
            .interval
            .floor(Time(local))
            .map_or_else(|| local - (local - self.phase).rem_euclid(3 * DAY), |open| open.0);
        open - self.zone
    }

    /// The open time of the candle after the one that opens at `open`.
    pub(super) fn next(&self, open: i64) -> i64 {
        self.interval.next_open(Time(open + self.zone)).0 - self.zone
    }

    /// The first open time at or after `t`.
    pub(super) fn ceil(&self, t: i64) -> i64 {
        let open = self.floor(t);
        if open == t { t } else { self.next(open) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_open_where_the_venue_opens_them() {
        // 2024-02-29T13:37:21Z, a Thursday.
        let t = 1_709_213_841_000;
        for (name, open, next) in [
            ("1m", 1_709_213_820_000, 1_709_213_880_000),
            ("1h", 1_709_211_600_000, 1_709_215_200_000),
            ("1d", 1_709_164_800_000, 1_709_251_200_000),
            ("1w", 1_708_905_600_000, 1_709_510_400_000),
            ("1M", 1_706_745_600_000, 1_709_251_200_000),
        ] {
            let grid = Grid::parse(name).unwrap();
            assert_eq!((grid.floor(t), grid.next(grid.floor(t))), (open, next), "{name}");
            assert_eq!((grid.ceil(open), grid.ceil(open + 1)), (open, next), "{name}");
        }
        // Recorded: three-day candles of a symbol listed on 2017-08-17.
        let three = Grid::parse("3d").unwrap().for_listing(1_502_928_000_000);
        assert_eq!(three.floor(1_767_052_800_000 + 5), 1_767_052_800_000);
        let east = Grid::parse("1d").unwrap().in_zone(8 * 60 * MINUTE);
        assert_eq!(east.floor(t), 1_709_136_000_000);
        assert!(Grid::parse("1H").is_none() && Grid::parse("1s").is_none());
    }

    #[test]
    fn months_follow_the_calendar() {
        let grid = Grid::parse("1M").unwrap();
        let mut t = grid.floor(0);
        for _ in 0..1_200 {
            let next = grid.next(t);
            assert!((28..=31).contains(&((next - t) / DAY)));
            assert_eq!(grid.floor(next - 1), t);
            t = next;
        }
        assert_eq!(t, 3_155_760_000_000); // 2070-01-01
    }
}
