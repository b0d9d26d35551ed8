//! `ln`, `exp` and `tanh` out of IEEE 754 additions, multiplications and divisions alone.
//!
//! A platform's own functions are not required to round correctly, and common ones choose a fused
//! variant by processor, so the last bit of a logarithm can differ between two machines. A window
//! carries the hash of its result, a scan publishes the same bytes for the same inputs, and "the same
//! on any machine" would then hold almost always, which is another word for not. The basic operations *are* fixed to the bit by IEEE 754
//! (and Rust never fuses them on its own), hence so is everything built here. Errors stay within a
//! few units in the last place; a test compares with the standard library.

/// ln 2 in two parts: the first has 21 trailing zero bits, so `k * LN2_HIGH` is exact.
const LN2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
/// What `LN2_HIGH` lacks.
const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
const MANTISSA: u64 = (1 << 52) - 1;
const ONE: u64 = 1023 << 52;

/// The natural logarithm; exactly 0 at 1.
#[must_use]
pub fn ln(x: f64) -> f64 {
    if !(x.is_finite() && x > 0.0) {
        return if x == 0.0 {
            f64::NEG_INFINITY
        } else if x == f64::INFINITY {
            x
        } else {
            f64::NAN
        };
    }
    // Subnormal numbers have no hidden bit; 2^54 lifts them into the normal range.
    let (x, lifted) =
        if x < f64::MIN_POSITIVE { (x * 18_014_398_509_481_984.0, 54) } else { (x, 0) };
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i64 - 1023 - lifted;
    let mut m = f64::from_bits((bits & MANTISSA) | ONE);
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1;
    }
    // ln(1+f) = 2 atanh(s) with s = f/(2+f), written so that the leading term is f itself.
    let f = m - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let tail = z
        * (2.0 / 3.0
            + z * (2.0 / 5.0
                + z * (2.0 / 7.0
                    + z * (2.0 / 9.0
                        + z * (2.0 / 11.0
                            + z * (2.0 / 13.0
                                + z * (2.0 / 15.0
                                    + z * (2.0 / 17.0 + z * (2.0 / 19.0 + z * (2.0 / 21.0))))))))));
    let half = 0.5 * f * f;
    let k = exponent as f64;
    k * LN2_HIGH - ((half - (s * (half + tail) + k * LN2_LOW)) - f)
}

/// The decimal logarithm; as [`ln`] where there is none.
#[must_use]
pub fn log10(x: f64) -> f64 {
    ln(x) / std::f64::consts::LN_10
}

/// e to the power `x`; 0 and infinity beyond the range of a normal number.
#[must_use]
pub fn exp(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x > 709.0 {
        return f64::INFINITY;
    }
    if x < -708.0 {
        return 0.0;
    }
    let k = (x * std::f64::consts::LOG2_E).round();
    let r = (x - k * LN2_HIGH) - k * LN2_LOW;
    let two_to_k = f64::from_bits(((k as i64 + 1023) as u64) << 52);
    (1.0 + exp_m1_small(r)) * two_to_k
}

/// The hyperbolic tangent: odd, and never beyond 1 in magnitude.
#[must_use]
pub fn tanh(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let y = 2.0 * x.abs();
    let magnitude = if y > 44.0 {
        1.0
    } else {
        let t = if y < 0.35 { exp_m1_small(y) } else { exp(y) - 1.0 };
        t / (t + 2.0)
    };
    if x < 0.0 { -magnitude } else { magnitude }
}

/// e^r - 1 by its series, for |r| below 0.36: the first term left out is under 2^-57 of the sum.
fn exp_m1_small(r: f64) -> f64 {
    const INVERSE_FACTORIAL: [f64; 12] = [
        1.0 / 6_227_020_800.0,
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        1.0 / 2.0,
    ];
    let series = INVERSE_FACTORIAL.iter().fold(0.0, |sum, c| sum * r + c);
    r + r * r * series
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(ours: f64, theirs: f64) -> bool {
        ours == theirs || (ours - theirs).abs() <= 1e-15 * theirs.abs()
    }

    #[test]
    fn powers_of_ten_have_whole_logarithms() {
        for power in -12..=12_i32 {
            assert!(close(log10(10_f64.powi(power)), f64::from(power)), "{power}");
        }
    }

    #[test]
    fn special_values_are_exact() {
        assert_eq!((ln(1.0), exp(0.0), tanh(0.0)), (0.0, 1.0, 0.0));
        assert_eq!((ln(0.0), ln(f64::INFINITY)), (f64::NEG_INFINITY, f64::INFINITY));
        assert_eq!((exp(-1e9), exp(1e9)), (0.0, f64::INFINITY));
        assert_eq!((tanh(1e300), tanh(f64::NEG_INFINITY)), (1.0, -1.0));
        assert!(ln(-1.0).is_nan() && exp(f64::NAN).is_nan() && tanh(f64::NAN).is_nan());
        assert!(close(ln(5e-324), 5e-324_f64.ln()));
    }

    /// Pinned bits: a machine or a compiler that computes another last bit fails here first.
    #[test]
    fn bits_are_pinned() {
        let mut mix = 0_u64;
        for i in 1..2_000_u32 {
            let x = f64::from(i) / 512.0;
            for y in [ln(x), exp(x), tanh(x)] {
                mix = mix.rotate_left(7) ^ y.to_bits();
            }
        }
        assert_eq!(mix, PINNED, "{mix:#x}");
    }
    const PINNED: u64 = 0x0519_283c_9cab_60e9;

    proptest! {
        #[test]
        fn agree_with_the_standard_library(x in -300.0_f64..300.0, s in 1e-300_f64..1e300) {
            prop_assert!(close(exp(x), x.exp()), "exp {x}: {} {}", exp(x), x.exp());
            for t in [x, x / 100.0, x / 1e6] {
                prop_assert!(close(tanh(t), t.tanh()), "tanh {t}: {} {}", tanh(t), t.tanh());
            }
            for p in [s, 1.0 + x / 301.0, 1.0 + x / 1e6, 1.0 + x * 1e-14] {
                prop_assert!(close(ln(p), p.ln()), "ln {p}: {} {}", ln(p), p.ln());
            }
        }
    }
}
