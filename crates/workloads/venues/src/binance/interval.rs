//! The candle intervals of Binance.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use watchbell_core::{Millis, Time};

/// A candle interval, by the venue's own name. `1m` is a minute and `1M` a month: case counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Interval {
    /// `1s`
    S1,
    /// `1m`
    M1,
    /// `3m`
    M3,
    /// `5m`
    M5,
    /// `15m`
    M15,
    /// `30m`
    M30,
    /// `1h`
    H1,
    /// `2h`
    H2,
    /// `4h`
    H4,
    /// `6h`
    H6,
    /// `8h`
    H8,
    /// `12h`
    H12,
    /// `1d`
    D1,
    /// `3d`: counted from the first trading day of each symbol, so the grid differs by symbol.
    D3,
    /// `1w`: opens on Monday, 00:00 UTC.
    W1,
    /// `1M`: opens on the first of the month, 00:00 UTC.
    Month,
}

const DAY: i64 = 86_400_000;
/// The first Monday of the epoch is 1970-01-05.
const MONDAY: i64 = 4 * DAY;

impl Interval {
    /// All of them, shortest first.
    pub const ALL: [Self; 16] = [
        Self::S1,
        Self::M1,
        Self::M3,
        Self::M5,
        Self::M15,
        Self::M30,
        Self::H1,
        Self::H2,
        Self::H4,
        Self::H6,
        Self::H8,
        Self::H12,
        Self::D1,
        Self::D3,
        Self::W1,
        Self::Month,
    ];

    /// The venue's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::S1 => "1s",
            Self::M1 => "1m",
            Self::M3 => "3m",
            Self::M5 => "5m",
            Self::M15 => "15m",
            Self::M30 => "30m",
            Self::H1 => "1h",
            Self::H2 => "2h",
            Self::H4 => "4h",
            Self::H6 => "6h",
            Self::H8 => "8h",
            Self::H12 => "12h",
            Self::D1 => "1d",
            Self::D3 => "3d",
            Self::W1 => "1w",
            Self::Month => "1M",
        }
    }

    /// The length; `None` for months, whose length varies.
    #[must_use]
    pub const fn millis(self) -> Option<Millis> {
        Some(match self {
            Self::S1 => Millis::from_secs(1),
            Self::M1 => Millis::from_mins(1),
            Self::M3 => Millis::from_mins(3),
            Self::M5 => Millis::from_mins(5),
            Self::M15 => Millis::from_mins(15),
            Self::M30 => Millis::from_mins(30),
            Self::H1 => Millis::from_hours(1),
            Self::H2 => Millis::from_hours(2),
            Self::H4 => Millis::from_hours(4),
            Self::H6 => Millis::from_hours(6),
            Self::H8 => Millis::from_hours(8),
            Self::H12 => Millis::from_hours(12),
            Self::D1 => Millis::from_days(1),
            Self::D3 => Millis::from_days(3),
            Self::W1 => Millis::from_days(7),
            Self::Month => return None,
        })
    }

    /// The interval of this length, if there is one.
    #[must_use]
    pub fn from_millis(length: Millis) -> Option<Self> {
        Self::ALL.into_iter().find(|i| i.millis() == Some(length))
    }

    /// The open time of the candle after the one that opens at `open`.
    #[must_use]
    pub fn next_open(self, open: Time) -> Time {
        match self.millis() {
            Some(length) => open + length,
            None => month_start(open, 1),
        }
    }

    /// The last millisecond of the candle that opens at `open`.
    #[must_use]
    pub fn close_of(self, open: Time) -> Time {
        self.next_open(open) - Millis(1)
    }

    /// Whether a candle may open at `t`: on the epoch's grid, weeks on Monday, months on the first.
    /// `3d` candles may open on any day, for their phase is the symbol's own.
    #[must_use]
    pub fn is_open_time(self, t: Time) -> bool {
        match self {
            Self::D3 => t.0.rem_euclid(DAY) == 0,
            _ => self.floor(t) == Some(t),
        }
    }

    /// The open time of the candle that holds `t`; `None` for `3d`, whose phase is the symbol's own.
    #[must_use]
    pub fn floor(self, t: Time) -> Option<Time> {
        match self {
            Self::D3 => None,
            Self::W1 => Some(Time((t.0 - MONDAY).div_euclid(7 * DAY) * 7 * DAY + MONDAY)),
            Self::Month => Some(month_start(t, 0)),
            _ => self.millis().map(|length| t.floor(length)),
        }
    }
}

/// The first instant of the month that holds `t`, `ahead` months later. Instants outside the range
/// of the calendar stay as they are, so they are never a month's start by accident of rounding.
fn month_start(t: Time, ahead: i64) -> Time {
    let start = || {
        let day = jiff::Timestamp::from_millisecond(t.0).ok()?;
        let first = day.to_zoned(jiff::tz::TimeZone::UTC).date().first_of_month();
        let first = first.checked_add(jiff::Span::new().try_months(ahead).ok()?).ok()?;
        Some(Time(first.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond()))
    };
    start().unwrap_or(t)
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is no interval of the venue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a Binance interval: use one of 1s 1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d 1w 1M \
     (1m is a minute, 1M a month)"
)]
pub struct UnknownInterval(pub String);

impl FromStr for Interval {
    type Err = UnknownInterval;
    fn from_str(s: &str) -> Result<Self, UnknownInterval> {
        Self::ALL.into_iter().find(|i| i.as_str() == s).ok_or_else(|| UnknownInterval(s.into()))
    }
}

impl TryFrom<String> for Interval {
    type Error = UnknownInterval;
    fn try_from(s: String) -> Result<Self, UnknownInterval> {
        s.parse()
    }
}

impl From<Interval> for String {
    fn from(i: Interval) -> Self {
        i.as_str().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_case_counts() {
        for i in Interval::ALL {
            assert_eq!(i.to_string().parse(), Ok(i));
            if let Some(length) = i.millis() {
                assert_eq!(Interval::from_millis(length), Some(i));
            }
        }
        assert_eq!("1m".parse(), Ok(Interval::M1));
        assert_eq!("1M".parse(), Ok(Interval::Month));
        for bad in ["", "1D", "60", "1 m", "2d"] {
            assert!(bad.parse::<Interval>().unwrap_err().to_string().contains("is a minute"));
        }
    }

    #[test]
    fn months_weeks_and_three_days() {
        let at = |s: &str| Time::parse(s).unwrap();
        for (open, next) in [
            ("2024-02-01", "2024-03-01"),
            ("2023-12-01", "2024-01-01"),
            ("2017-08-01", "2017-09-01"),
        ] {
            assert_eq!(Interval::Month.next_open(at(open)), at(next));
            assert_eq!(Interval::Month.close_of(at(open)), at(next) - Millis(1));
            assert_eq!(Interval::Month.floor(at(next) - Millis(1)), Some(at(open)));
            assert!(Interval::Month.is_open_time(at(open)));
        }
        assert!(!Interval::Month.is_open_time(at("2024-02-02")));
        assert_eq!(Interval::W1.floor(at("2017-08-17")), Some(at("2017-08-14")));
        assert!(Interval::W1.is_open_time(at("2017-08-14")));
        assert!(!Interval::W1.is_open_time(at("2017-08-17")));
        assert!(Interval::D3.is_open_time(at("2017-08-17")));
        assert!(Interval::D3.is_open_time(at("2017-07-14")));
        assert!(!Interval::D3.is_open_time(at("2017-07-14") + Millis(1)));
        assert!(!Interval::M1.is_open_time(Time(1_588_740_120)));
    }
}
