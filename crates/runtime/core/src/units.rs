//! Quantities that carry their unit: instants and durations in milliseconds, identifiers, and the
//! three scales of the analytics.

use std::fmt;
use std::ops::{Add, AddAssign, Div, Mul, Rem, Sub};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// An instant: UTC milliseconds since the Unix epoch. Stored as an integer, printed as RFC 3339.
///
/// In JSON it is RFC 3339 text; epoch milliseconds are read as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub i64);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.rfc3339())
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Time;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an instant in RFC 3339 or epoch milliseconds")
            }
            fn visit_i64<E: serde::de::Error>(self, ms: i64) -> Result<Time, E> {
                Ok(Time(ms))
            }
            fn visit_u64<E: serde::de::Error>(self, ms: u64) -> Result<Time, E> {
                i64::try_from(ms).map(Time).map_err(E::custom)
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Time, E> {
                Time::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A duration in milliseconds. May be negative as the difference of two instants.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Time {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);
    /// Later than every instant that the runtime meets.
    pub const FAR_FUTURE: Self = Self(i64::MAX / 4);

    /// The start of the epoch-aligned interval of length `step` that holds this instant.
    ///
    /// ```
    /// # use watchbell_core::{Millis, Time};
    /// assert_eq!(Time(95_000).floor(Millis::from_secs(40)), Time(80_000));
    /// assert_eq!(Time(-1).floor(Millis(10)), Time(-10));
    /// ```
    #[must_use]
    pub const fn floor(self, step: Millis) -> Self {
        Self(self.0 - self.0.rem_euclid(step.0))
    }

    /// The first aligned instant at or after this one.
    #[must_use]
    pub const fn ceil(self, step: Millis) -> Self {
        let rest = self.0.rem_euclid(step.0);
        if rest == 0 { self } else { Self(self.0 - rest + step.0) }
    }

    /// Time from `earlier` to this instant; negative when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.0 - earlier.0)
    }

    /// RFC 3339 in UTC, with milliseconds only where they are not zero.
    #[must_use]
    pub fn rfc3339(self) -> String {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => t.to_string(),
            Err(_) => format!("{}ms", self.0),
        }
    }

    /// Parses RFC 3339, a plain date (`2026-11-22`, midnight UTC), or epoch milliseconds.
    ///
    /// # Errors
    /// A sentence that names the text and the accepted forms.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(t) = text.parse::<jiff::Timestamp>() {
            return Ok(Self(t.as_millisecond()));
        }
        if let Ok(d) = text.parse::<jiff::civil::Date>()
            && let Ok(z) = d.to_zoned(jiff::tz::TimeZone::UTC)
        {
            return Ok(Self(z.timestamp().as_millisecond()));
        }
        if let Ok(ms) = text.strip_suffix("ms").unwrap_or(text).parse::<i64>() {
            return Ok(Self(ms));
        }
        Err(format!(
            "`{text}` is not an instant: use RFC 3339 (2026-11-22T03:30:00Z), a date (2026-11-22) \
             or epoch milliseconds"
        ))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.rfc3339())
    }
}

impl Millis {
    /// No time.
    pub const ZERO: Self = Self(0);

    /// Whole seconds.
    #[must_use]
    pub const fn from_secs(s: i64) -> Self {
        Self(s * 1_000)
    }
    /// Whole minutes.
    #[must_use]
    pub const fn from_mins(m: i64) -> Self {
        Self(m * 60_000)
    }
    /// Whole hours.
    #[must_use]
    pub const fn from_hours(h: i64) -> Self {
        Self(h * 3_600_000)
    }
    /// Whole days of 24 hours.
    #[must_use]
    pub const fn from_days(d: i64) -> Self {
        Self(d * 86_400_000)
    }
    /// As a standard duration; a negative one is zero.
    #[must_use]
    pub const fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(if self.0 < 0 { 0 } else { self.0.unsigned_abs() })
    }
    /// In seconds.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e3
    }

    /// All of it, in the form that [`parse`](Self::parse) reads: `1h30m`, `1h0m40s` as `1h40s`.
    ///
    /// ```
    /// # use watchbell_core::Millis;
    /// assert_eq!(Millis(3_640_250).exact(), "1h40s250ms");
    /// assert_eq!(Millis::parse("1h40s250ms"), Ok(Millis(3_640_250)));
    /// ```
    #[must_use]
    pub fn exact(self) -> String {
        let mut rest = self.0.abs();
        let mut text = String::from(if self.0 < 0 { "-" } else { "" });
        for (unit, ms) in
            [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)]
        {
            if rest >= ms {
                text.push_str(&format!("{}{unit}", rest / ms));
                rest %= ms;
            }
        }
        if self.0 == 0 { "0s".into() } else { text }
    }

    /// Parses `250ms`, `5s`, `30m`, `1h30m`, `2d`; a bare number is refused, for it has no unit.
    ///
    /// # Errors
    /// A sentence that names the text and the accepted forms.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{text}` is not a duration: use a number and a unit (ms, s, m, h, d), such as \
                 250ms, 5s, 30m, 1h30m"
            )
        };
        let s = text.trim();
        let (mut total, mut rest) = (0_i64, s);
        if rest.is_empty() {
            return Err(bad());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let n: i64 = rest[..digits].parse().map_err(|_| bad())?;
            rest = &rest[digits..];
            let unit_len = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let unit = match &rest[..unit_len] {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(bad()),
            };
            total = n.checked_mul(unit).and_then(|v| total.checked_add(v)).ok_or_else(bad)?;
            rest = &rest[unit_len..];
        }
        Ok(Self(total))
    }
}

impl fmt::Display for Millis {
    /// Two units at most: `1h30m`, `2d4h`, `12s`, `850ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, ms) = if self.0 < 0 { ("-", -self.0) } else { ("", self.0) };
        let two = |a: i64, ua: &str, b: i64, ub: &str| {
            if b == 0 { format!("{sign}{a}{ua}") } else { format!("{sign}{a}{ua}{b}{ub}") }
        };
        let text = match ms {
            0..1_000 => format!("{sign}{ms}ms"),
            1_000..60_000 if ms % 1_000 == 0 => format!("{sign}{}s", ms / 1_000),
            1_000..60_000 => format!("{sign}{:.1}s", ms as f64 / 1e3),
            60_000..3_600_000 => two(ms / 60_000, "m", ms % 60_000 / 1_000, "s"),
            3_600_000..86_400_000 => two(ms / 3_600_000, "h", ms % 3_600_000 / 60_000, "m"),
            _ => two(ms / 86_400_000, "d", ms % 86_400_000 / 3_600_000, "h"),
        };
        f.pad(&text)
    }
}

impl Add<Millis> for Time {
    type Output = Self;
    fn add(self, d: Millis) -> Self {
        Self(self.0 + d.0)
    }
}
impl AddAssign<Millis> for Time {
    fn add_assign(&mut self, d: Millis) {
        self.0 += d.0;
    }
}
impl Sub<Millis> for Time {
    type Output = Self;
    fn sub(self, d: Millis) -> Self {
        Self(self.0 - d.0)
    }
}
impl Sub for Time {
    type Output = Millis;
    fn sub(self, other: Self) -> Millis {
        self.since(other)
    }
}
impl Add for Millis {
    type Output = Self;
    fn add(self, d: Self) -> Self {
        Self(self.0 + d.0)
    }
}
impl Sub for Millis {
    type Output = Self;
    fn sub(self, d: Self) -> Self {
        Self(self.0 - d.0)
    }
}
impl Mul<i64> for Millis {
    type Output = Self;
    fn mul(self, n: i64) -> Self {
        Self(self.0 * n)
    }
}
impl Div<Self> for Millis {
    type Output = i64;
    /// How many whole times `other` fits.
    fn div(self, other: Self) -> i64 {
        self.0.div_euclid(other.0)
    }
}
impl Rem for Millis {
    type Output = Self;
    fn rem(self, other: Self) -> Self {
        Self(self.0.rem_euclid(other.0))
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(Arc<str>);
        impl $type {
            /// The name itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
            /// The shared text, for a [`Value`](crate::Value) without a copy.
            #[must_use]
            pub fn shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }
        }
        impl From<&str> for $type {
            fn from(s: &str) -> Self {
                Self(Arc::from(s))
            }
        }
        impl From<String> for $type {
            fn from(s: String) -> Self {
                Self(Arc::from(s))
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// The name of a worker, such as `market-sync`: lower case, digits and hyphens.
    WorkerName
);
name!(
    /// The name of a window series, such as `window-sampler-30m`.
    SeriesName
);
name!(
    /// One boot of a node. A new one is made at every start, so a lease says which boot holds it.
    SessionId
);

/// A fencing token: grows by one with each grant of the same lease.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Token(pub i64);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The number of a cycle in the store.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct CycleId(pub i64);

impl fmt::Display for CycleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A decimal fraction: 0.01 is one percent. Matrices use this scale.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Frac(pub f64);

/// Percent points: 1.0 is one percent. Structural statistics use this scale.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pct(pub f64);

/// Hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bps(pub f64);

impl Frac {
    /// The same quantity in percent points.
    #[must_use]
    pub fn to_pct(self) -> Pct {
        Pct(self.0 * 100.0)
    }
}
impl Pct {
    /// The same quantity as a fraction.
    #[must_use]
    pub fn to_frac(self) -> Frac {
        Frac(self.0 / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_and_print() {
        for (text, ms, shown) in [
            ("250ms", 250, "250ms"),
            ("5s", 5_000, "5s"),
            ("90s", 90_000, "1m30s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("2d", 172_800_000, "2d"),
        ] {
            let d = Millis::parse(text).unwrap();
            assert_eq!((d.0, d.to_string().as_str()), (ms, shown));
        }
        for bad in ["", "5", "s", "5x", "-5s", "1h5", "99999999999999999999s"] {
            assert!(Millis::parse(bad).unwrap_err().contains("is not a duration"), "{bad}");
        }
    }

    #[test]
    fn instants_parse_in_three_forms() {
        let t = Time(1_795_316_400_000);
        assert_eq!(Time::parse(&t.rfc3339()).unwrap(), t);
        assert_eq!(Time::parse("1795316400000").unwrap(), t);
        assert_eq!(Time::parse("1970-01-02").unwrap(), Time(86_400_000));
        assert!(Time::parse("yesterday").is_err());
        for t in [t, Time(1), Time(-5), Time::FAR_FUTURE] {
            let json = serde_json::to_string(&t).unwrap();
            assert_eq!(serde_json::from_str::<Time>(&json).unwrap(), t, "{json}");
        }
        assert_eq!(serde_json::from_str::<Time>("17").unwrap(), Time(17));
    }

    #[test]
    fn alignment_holds_before_the_epoch() {
        assert_eq!(Time(-1).floor(Millis(40)), Time(-40));
        assert_eq!(Time(-39).ceil(Millis(40)), Time(0));
        assert_eq!(Time(80).ceil(Millis(40)), Time(80));
    }
}
