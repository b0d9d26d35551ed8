//! Intrinsic metrics that no window of prices has on its own (section 4.8): how artificial a market's
//! orders look, whether more is carried than is meant, and how far a coin strays from the system.
//!
//! A window knows neither orders nor allocations, so it stores none of these, and its efficiency counts
//! no artificiality. They are for whoever has that data.

use super::math;
use super::order::{mad_about, median};

/// What is known of the orders behind a movement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OrderFlow<'a> {
    /// The movement that the orders should have brought.
    pub expected: f64,
    /// The movement that was seen.
    pub observed: f64,
    /// Orders that were placed.
    pub placed: u64,
    /// Orders that were cancelled.
    pub cancelled: u64,
    /// Orders that were executed.
    pub executed: u64,
    /// The shares of the participants, which sum to 1.
    pub shares: &'a [f64],
}

/// `100 * clamp01(0.5 M + 0.3 E + 0.2 H)`: how much of a market looks staged, 0 to 100. M grows with
/// the movement that was missing, E with the orders that came to nothing (0 where none was executed),
/// H is the concentration of the participants.
///
/// ```
/// use watchbell_market::analytics::{OrderFlow, artificiality};
/// let alone = OrderFlow {
///     expected: 0.0, observed: 1.0, placed: 0, cancelled: 0, executed: 1, shares: &[1.0],
/// };
/// assert_eq!(artificiality(&alone), 20.0);
/// ```
#[must_use]
pub fn artificiality(flow: &OrderFlow<'_>) -> f64 {
    let missing = 1.0 + flow.expected.abs() / (flow.observed.abs() + 1e-9);
    let m = math::tanh(0.75 * math::ln(missing));
    let idle = flow.placed as f64 + flow.cancelled as f64;
    let e = match flow.executed {
        0 => 0.0,
        executed => math::tanh(0.5 * math::ln(1.0 + idle / executed as f64)),
    };
    let h = flow.shares.iter().fold(0.0, |sum, share| sum + share * share);
    100.0 * (0.5 * m + 0.3 * e + 0.2 * h).clamp(0.0, 1.0)
}

/// `100 * tanh(ln(carried / meant))`: above 0 where more is carried than is meant (inflation), below
/// where less is (deflation). None unless both are positive.
#[must_use]
pub fn inflation(carried: f64, meant: f64) -> Option<f64> {
    let ratio = carried / meant;
    (carried > 0.0 && meant > 0.0 && ratio.is_finite() && ratio > 0.0)
        .then(|| 100.0 * math::tanh(math::ln(ratio)))
}

/// `100 * tanh(mean(|d| / MAD(d)))` of the differences `d` of a coin's returns from the system's: how
/// far it strays, as a volatility. 0 for no differences.
#[must_use]
pub fn divergence(differences: &[f64]) -> f64 {
    if differences.is_empty() {
        return 0.0;
    }
    let mut work = Vec::with_capacity(differences.len());
    let centre = median(differences, &mut work);
    let spread = mad_about(differences, centre, &mut work).max(1e-9);
    let sum = differences.iter().fold(0.0, |sum, d| sum + d.abs() / spread);
    100.0 * math::tanh(sum / differences.len() as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn formulas_come_to_what_they_say() {
        let flow = OrderFlow {
            expected: 3.0,
            observed: 1.0,
            placed: 6,
            cancelled: 2,
            executed: 4,
            shares: &[0.5, 0.3, 0.2],
        };
        let want = 100.0
            * (0.5 * (0.75 * 4.0_f64.ln()).tanh() + 0.3 * (0.5 * 3.0_f64.ln()).tanh() + 0.2 * 0.38);
        assert!((artificiality(&flow) - want).abs() < 1e-6 * want);
        let none = OrderFlow { executed: 0, ..flow };
        assert!((want - artificiality(&none) - 30.0 * (0.5 * 3.0_f64.ln()).tanh()).abs() < 1e-6);
        assert_eq!(inflation(5.0, 5.0), Some(0.0));
        // tanh(ln x) is (x^2 - 1) / (x^2 + 1).
        assert!((inflation(3.0, 1.0).unwrap() - 80.0).abs() < 1e-9);
        assert!((inflation(1.0, 3.0).unwrap() + 80.0).abs() < 1e-9);
        assert_eq!([inflation(0.0, 1.0), inflation(1.0, 0.0), inflation(1.0, -1.0)], [None; 3]);
        // Median 2, so the deviations are 1, 0, 1 and their median is 1.
        assert!((divergence(&[1.0, 2.0, 3.0]) - 100.0 * 2.0_f64.tanh()).abs() < 1e-9);
        assert_eq!(divergence(&[]), 0.0);
    }

    proptest! {
        #[test]
        fn scores_stay_on_their_scale(
            expected in -1e6..1e6_f64, observed in -1e6..1e6_f64,
            orders in prop::array::uniform3(0..1_000_000_u64),
            shares in prop::collection::vec(0.0..1.0_f64, 0..9),
            amounts in prop::array::uniform2(1e-9..1e9_f64),
            differences in prop::collection::vec(-1.0..1.0_f64, 0..50),
        ) {
            let [placed, cancelled, executed] = orders;
            let flow = OrderFlow { expected, observed, placed, cancelled, executed, shares: &shares };
            prop_assert!((0.0..=100.0).contains(&artificiality(&flow)));
            let [carried, meant] = amounts;
            let (more, less) = (inflation(carried, meant).unwrap(), inflation(meant, carried).unwrap());
            prop_assert!(more.abs() <= 100.0 && (more + less).abs() < 1e-6);
            prop_assert!((0.0..=100.0).contains(&divergence(&differences)));
        }
    }
}
