//! Numbers as each venue prints them. A number is a whole count of 1e-8.

use std::fmt;

/// With exactly so many decimals, rounded half up: `105944.30000`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fixed(pub(super) i128, pub(super) usize);

/// Without trailing zeros: `105944.3`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plain(pub(super) i128);

impl fmt::Display for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value, decimals) = *self;
        let sign = if value < 0 { "-" } else { "" };
        let dropped = 10_u128.pow(8_usize.saturating_sub(decimals) as u32);
        let kept = (value.unsigned_abs() + dropped / 2) / dropped;
        let unit = 10_u128.pow(decimals.min(8) as u32);
        write!(f, "{sign}{}", kept / unit)?;
        if decimals > 0 {
            write!(f, ".{:0width$}", kept % unit, width = decimals.min(8))?;
            write!(f, "{:0<width$}", "", width = decimals.saturating_sub(8))?;
        }
        Ok(())
    }
}

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Fixed(self.0, 8).to_string();
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// The decimals of a step: 1 for 0.1, 0 for 1 and above.
pub(super) const fn decimals(step: i64) -> usize {
    let (mut left, mut n) = (100_000_000 / step, 0);
    while left >= 10 {
        left /= 10;
        n += 1;
    }
    n
}

/// Joins what `each` makes of the items by commas.
pub(super) fn list<T>(items: &[T], each: impl Fn(&T) -> String) -> String {
    let mut out = String::with_capacity(items.len() * 64);
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(&each(item));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_venues() {
        for (value, decimals, text) in [
            (10_594_430_000_000, 5, "105944.30000"),
            (10_594_430_000_000, 1, "105944.3"),
            (16_328_908_096, 8, "163.28908096"),
            (13_600_000, 3, "0.136"),
            (149_999, 3, "0.001"),
            (5, 9, "0.000000050"),
            (-250_000_000, 0, "-3"),
        ] {
            assert_eq!(Fixed(value, decimals).to_string(), text);
        }
        for (value, text) in [
            (6_542_600_000_000, "65426"),
            (6_473_303_000_000, "64733.03"),
            (1_000, "0.00001"),
            (0, "0"),
        ] {
            assert_eq!(Plain(value).to_string(), text);
        }
        assert_eq!([10_000_000, 1, 100_000_000].map(decimals), [1, 8, 0]);
    }
}
