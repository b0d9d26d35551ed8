//! Numbers as artifacts print them: rounded half up, on the decimal value.

/// The shortest decimal text that reads back as `value`, with `places` digits after the point; half a
/// unit rounds away from zero, as a person does it on paper (2.675 gives 2.68, though the nearest
/// double is below it). A dash where there is no number.
#[must_use]
pub fn fixed(value: f64, places: usize) -> String {
    if !value.is_finite() {
        return "-".into();
    }
    let text = format!("{}", value.abs());
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let mut digits: Vec<u8> =
        whole.bytes().chain(part.bytes().chain(std::iter::repeat(b'0')).take(places)).collect();
    if part.as_bytes().get(places).is_some_and(|d| *d >= b'5') {
        let nines = digits.iter().rev().take_while(|d| **d == b'9').count();
        let kept = digits.len() - nines;
        digits[kept..].fill(b'0');
        match kept.checked_sub(1) {
            Some(last) => digits[last] += 1,
            None => digits.insert(0, b'1'),
        }
    }
    let point = digits.len() - places;
    let zero = digits.iter().all(|d| *d == b'0');
    let mut out = String::from(if value < 0.0 && !zero { "-" } else { "" });
    out.extend(digits[..point].iter().map(|d| char::from(*d)));
    if places > 0 {
        out.push('.');
        out.extend(digits[point..].iter().map(|d| char::from(*d)));
    }
    out
}

/// As [`fixed`], for a number that may be missing.
#[must_use]
pub fn shown(value: Option<f64>, places: usize) -> String {
    value.map_or_else(|| "-".into(), |v| fixed(v, places))
}

/// A value beside the limit that it misses, both with as many digits as tell them apart:
/// `74.96 < 75.00` rather than `75.0 < 75.0`.
#[must_use]
pub(crate) fn apart(value: Option<f64>, limit: f64, places: usize) -> (String, String) {
    let Some(value) = value.filter(|v| v.is_finite()) else {
        return ("-".into(), fixed(limit, places));
    };
    let at = |places| (fixed(value, places), fixed(limit, places));
    let differing = (places..18).map(at).find(|(a, b)| value == limit || a != b);
    differing.unwrap_or_else(|| at(places))
}

/// The nearest whole number, half up; 0 for anything below and for no number.
#[must_use]
pub(crate) fn whole(value: f64) -> u64 {
    fixed(value, 0).parse().unwrap_or(if value > 1.0 { u64::MAX } else { 0 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn half_goes_up_on_the_decimal_value() {
        for (value, places, text) in [
            (0.0, 1, "0.0"),
            (-0.0, 1, "0.0"),
            (78.45, 1, "78.5"),
            (78.449_999, 1, "78.4"),
            (0.05, 1, "0.1"),
            (2.675, 2, "2.68"),
            (1.005, 2, "1.01"),
            (9.95, 1, "10.0"),
            (99.96, 1, "100.0"),
            (14.5, 0, "15"),
            (15.5, 0, "16"),
            (0.5, 0, "1"),
            (0.499_999, 0, "0"),
            (9.5, 0, "10"),
            (150_000.0, 0, "150000"),
            (1e21, 0, "1000000000000000000000"),
            (1e-9, 2, "0.00"),
            (-2.25, 1, "-2.3"),
            (-0.04, 1, "0.0"),
            (f64::NAN, 1, "-"),
            (f64::INFINITY, 0, "-"),
        ] {
            assert_eq!(fixed(value, places), text, "{value}");
        }
        assert_eq!((whole(0.5), whole(-3.0), whole(f64::NAN), whole(99_999.5)), (1, 0, 0, 100_000));
    }

    #[test]
    fn a_value_never_looks_like_the_limit_that_it_misses() {
        for (value, limit, text) in [
            (71.3, 75.0, ("71.3", "75.0")),
            (74.96, 75.0, ("74.96", "75.00")),
            (74.999_99, 75.0, ("74.99999", "75.00000")),
            (75.0, 75.0, ("75.0", "75.0")),
        ] {
            let (a, b) = apart(Some(value), limit, 1);
            assert_eq!((a.as_str(), b.as_str()), text);
        }
        assert_eq!(apart(None, 75.0, 1).0, "-");
        assert_eq!(apart(Some(f64::NAN), 75.0, 1).0, "-");
    }

    proptest! {
        #[test]
        fn rounding_is_near_and_reads_back(value in -1e12_f64..1e12, places in 0_usize..7) {
            let text = fixed(value, places);
            let read: f64 = text.parse().unwrap();
            let half = 0.5 / 10_f64.powi(places as i32);
            prop_assert!((read - value).abs() <= half * 1.000_001 + value.abs() * f64::EPSILON);
            prop_assert_eq!(fixed(read, places), text);
        }
    }
}
