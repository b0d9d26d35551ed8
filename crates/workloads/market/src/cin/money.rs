//! Arithmetic of the ledger: decimals, exact where that is possible, and never in silence otherwise.
//!
//! An amount has at most 18 decimals and 20 digits before the point, as `numeric(38,18)` has, and at
//! most 28 digits in all. Sums and differences are exact. Products and quotients are formed to 28
//! digits and then rounded, half to even, to 18 decimals. What does not fit is an [`Overflow`], never
//! a panic and never a rounded sum.

use rust_decimal::{Decimal, RoundingStrategy};

/// Decimals of an amount.
pub(crate) const DECIMALS: u32 = 18;

/// An amount that has no place in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "OVERFLOW: {what} is not an amount of at most 28 digits, 18 of them after the point and 20 \
     before it"
)]
pub struct Overflow {
    what: String,
}

fn overflow(what: impl Into<String>) -> Overflow {
    Overflow { what: what.into() }
}

/// An amount as it is stored: without trailing zeros.
fn fit(value: Decimal, what: impl FnOnce() -> String) -> Result<Decimal, Overflow> {
    let value = value.normalize();
    let whole = value.trunc().mantissa().unsigned_abs();
    if value.scale() > DECIMALS || whole >= 100_000_000_000_000_000_000 {
        return Err(overflow(what()));
    }
    Ok(value)
}

/// Reads an amount, exactly as it is written.
///
/// # Errors
/// When the text is no decimal number, or one with more digits than an amount has.
pub(crate) fn parse(text: &str) -> Result<Decimal, Overflow> {
    let plain = |b: u8| b.is_ascii_digit() || b == b'.' || b == b'-';
    let what = || format!("`{}`", text.chars().take(60).collect::<String>());
    let digits = text.bytes().any(|b| b.is_ascii_digit());
    match Decimal::from_str_exact(text) {
        Ok(value) if digits && text.bytes().all(plain) => fit(value, what),
        _ => Err(overflow(what())),
    }
}

/// A price as the market holds it: the shortest decimal text of the double, which is the venue's.
pub(crate) fn price(value: f64) -> Result<Decimal, Overflow> {
    parse(&value.to_string())
}

/// `a + b`, exactly.
pub(crate) fn add(a: Decimal, b: Decimal) -> Result<Decimal, Overflow> {
    let what = || format!("{a} + {b}");
    let (a, b) = (a.normalize(), b.normalize());
    let mut scale = a.scale().max(b.scale());
    let at = |x: Decimal| x.mantissa().checked_mul(10_i128.pow(scale - x.scale()));
    let sum = at(a).zip(at(b)).and_then(|(a, b)| a.checked_add(b));
    let mut sum = sum.ok_or_else(|| overflow(what()))?;
    // The digits that cancel out need no place.
    while scale > 0 && sum % 10 == 0 {
        (sum, scale) = (sum / 10, scale - 1);
    }
    let sum = Decimal::try_from_i128_with_scale(sum, scale).ok();
    fit(sum.ok_or_else(|| overflow(what()))?, what)
}

/// `a - b`, exactly.
pub(crate) fn sub(a: Decimal, b: Decimal) -> Result<Decimal, Overflow> {
    add(a, -b)
}

/// `a * b`, rounded.
pub(crate) fn mul(a: Decimal, b: Decimal) -> Result<Decimal, Overflow> {
    let what = || format!("{a} * {b}");
    fit(round(a.checked_mul(b).ok_or_else(|| overflow(what()))?), what)
}

/// `a / b`, rounded.
pub(crate) fn div(a: Decimal, b: Decimal) -> Result<Decimal, Overflow> {
    let what = || format!("{a} / {b}");
    fit(round(a.checked_div(b).ok_or_else(|| overflow(what()))?), what)
}

/// The share `part / whole` of `amount`, for `0 <= part <= whole`; all of it for the whole.
pub(crate) fn share(amount: Decimal, part: Decimal, whole: Decimal) -> Result<Decimal, Overflow> {
    if part == whole {
        return Ok(amount);
    }
    let what = || format!("{amount} * {part} / {whole}");
    let product = amount.checked_mul(part).ok_or_else(|| overflow(what()))?;
    let value = round(product.checked_div(whole).ok_or_else(|| overflow(what()))?);
    // Never more than there is, whatever the rounding.
    let value = if amount >= Decimal::ZERO { value.min(amount) } else { value.max(amount) };
    fit(value, what)
}

/// The sum, exactly.
pub(crate) fn sum(amounts: impl IntoIterator<Item = Decimal>) -> Result<Decimal, Overflow> {
    amounts.into_iter().try_fold(Decimal::ZERO, add)
}

fn round(value: Decimal) -> Decimal {
    value.round_dp_with_strategy(DECIMALS, RoundingStrategy::MidpointNearestEven)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn d(text: &str) -> Decimal {
        parse(text).unwrap()
    }

    #[test]
    fn texts_are_read_exactly_or_refused() {
        for (text, stored) in [
            ("1", "1"),
            ("-0.50", "-0.5"),
            ("0.000000000000000001", "0.000000000000000001"),
            ("99999999999999999999", "99999999999999999999"),
            ("1.000000000000000000000", "1"),
            ("0", "0"),
        ] {
            assert_eq!(d(text).to_string(), stored, "{text}");
        }
        for bad in [
            "",
            "-",
            ".",
            "1e5",
            "1_000",
            "+1",
            "nan",
            "0.0000000000000000001",
            "100000000000000000000",
            "79228162514.264337593543950336",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(price(0.000_023_69).unwrap(), d("0.00002369"));
        assert!(price(f64::NAN).is_err() && price(1e300).is_err());
    }

    #[test]
    fn results_are_rounded_half_to_even_and_sums_never() {
        assert_eq!(div(d("1"), d("3")).unwrap(), d("0.333333333333333333"));
        assert_eq!(div(d("2"), d("3")).unwrap(), d("0.666666666666666667"));
        let (tiny, half) = (d("0.000000000000000001"), d("0.5"));
        assert_eq!(mul(tiny, half).unwrap(), d("0"), "a half goes to the even neighbour");
        assert_eq!(mul(d("0.000000000000000003"), half).unwrap(), d("0.000000000000000002"));
        let big = d("70000000000");
        assert_eq!(add(big, tiny).unwrap().to_string(), "70000000000.000000000000000001");
        let refused = add(d("80000000000"), tiny).unwrap_err();
        assert!(refused.to_string().starts_with("OVERFLOW: 80000000000 + 0.0000"), "{refused}");
        assert!(mul(d("99999999999999999999"), d("10")).is_err());
        assert!(mul(d("99999999999999999999"), d("99999999999999999999")).is_err());
        assert!(div(d("1"), d("0")).is_err());
        assert!(div(d("99999999999999999999"), tiny).is_err());
    }

    proptest! {
        /// Adding and taking away again changes nothing; what cannot be added is refused.
        #[test]
        fn sums_are_exact(a: i128, b: i128, sa in 0_u32..=18, sb in 0_u32..=18) {
            let make = |m: i128, s| {
                Decimal::try_from_i128_with_scale(m % 10_i128.pow(28), s).ok()
                    .and_then(|v| parse(&v.to_string()).ok())
            };
            if let (Some(a), Some(b)) = (make(a, sa), make(b, sb))
                && let Ok(sum) = add(a, b)
            {
                prop_assert_eq!(sub(sum, b), Ok(a));
                prop_assert_eq!(add(b, a), Ok(sum));
            }
        }

        /// A share and its rest are the whole.
        #[test]
        fn shares_are_shares(amount in 0_i64..1 << 50, part in 1_i64..1 << 40, rest in 0_i64..1 << 40) {
            let e8 = |n: i64| Decimal::new(n, 8);
            let cut = share(e8(amount), e8(part), e8(part + rest)).unwrap();
            prop_assert!(cut >= Decimal::ZERO && cut <= e8(amount));
            prop_assert_eq!(add(sub(e8(amount), cut).unwrap(), cut).unwrap(), e8(amount).normalize());
        }
    }
}
