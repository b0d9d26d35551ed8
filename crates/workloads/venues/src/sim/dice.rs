//! Seeded randomness from plain integer arithmetic, so that a seed gives the same market on every
//! machine: no library function, whose last bit could differ, takes part.

/// One step of the splitmix64 finaliser over `a` and `b`.
pub(super) const fn mix(a: u64, b: u64) -> u64 {
    let mut z = a ^ b.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Hash of a text, for symbols and rules.
pub(super) fn hash_text(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |h, b| mix(h, u64::from(b) + 1))
}

/// A counter whose every step is hashed.
#[derive(Debug, Clone)]
pub(super) struct Dice {
    seed: u64,
    rolled: u64,
}

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self { seed, rolled: 0 }
    }

    /// 64 fresh bits.
    pub(super) const fn roll(&mut self) -> u64 {
        self.rolled += 1;
        mix(self.seed, self.rolled)
    }

    /// Uniform in `0..n`.
    pub(super) const fn below(&mut self, n: u64) -> u64 {
        ((self.roll() as u128 * n as u128) >> 64) as u64
    }

    /// Uniform in `[0, 1)`.
    pub(super) fn unit(&mut self) -> f64 {
        unit(self.roll())
    }

    /// Nearly normal with mean 0 and deviation 1: the sum of four uniforms, so never beyond 3.5.
    pub(super) fn normal(&mut self) -> f64 {
        let bits = self.roll();
        let sum: u64 = (0..4).map(|i| (bits >> (16 * i)) & 0xFFFF).sum();
        // Four uniforms on 0..65536 have the mean 131070 and the deviation 65536 / sqrt(3).
        (sum as f64 - 131_070.0) / 37_837.227
    }
}

/// The bits as a number in `[0, 1)`.
pub(super) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / 9_007_199_254_740_992.0
}

/// e^x by range reduction and a Taylor series: within 2e-16 relative for the |x| < 40 of log prices.
pub(super) fn exp(x: f64) -> f64 {
    let halvings = (x * std::f64::consts::LOG2_E).round();
    let r = x - halvings * std::f64::consts::LN_2;
    let (mut sum, mut term) = (1.0, 1.0);
    for k in 1..16 {
        term *= r / f64::from(k);
        sum += term;
    }
    let mut power = 1.0;
    let base = if halvings < 0.0 { 0.5 } else { 2.0 };
    for _ in 0..halvings.abs() as u32 {
        power *= base;
    }
    sum * power
}

/// ln x for x > 0, by Newton's iteration on [`exp`].
pub(super) fn ln(x: f64) -> f64 {
    let mut y = 0.0;
    let mut scaled = x;
    while scaled > 1.5 {
        scaled *= 0.5;
        y += std::f64::consts::LN_2;
    }
    while scaled < 0.75 {
        scaled *= 2.0;
        y -= std::f64::consts::LN_2;
    }
    for _ in 0..6 {
        y += x * exp(-y) - 1.0;
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_ln_agree_with_the_library() {
        for i in -300..300 {
            let x = f64::from(i) / 20.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-13, "{x}");
            assert!((ln(exp(x)) - x).abs() < 1e-12, "{x}");
        }
    }

    #[test]
    fn normals_have_unit_deviation() {
        let mut dice = Dice::new(7);
        let n = 20_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..n {
            let z = dice.normal();
            sum += z;
            squares += z * z;
        }
        assert!((sum / f64::from(n)).abs() < 0.03);
        assert!((squares / f64::from(n) - 1.0).abs() < 0.03);
    }
}
