//! Intrinsic metrics (section 4.8): inertia, disruption, amplitude, volatility and efficiency of
//! the last 30 simple log-returns.

use serde::Serialize;

use super::order::{mad_about, median, roughness};
use super::vectors::Tendency;
use super::{Parity, math};

/// Returns that the metrics look at.
pub const METRICS_WINDOW: usize = 30;
/// Fewer returns than this give zeros.
const MIN_RETURNS: usize = 3;
/// An instant disruption that counts towards the systemic one.
const SYSTEMIC_THRESHOLD: f64 = 60.0;

/// Metrics of one symbol's last returns, each on a scale of plus or minus 100.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Intrinsic {
    /// Resistance to change.
    pub inertia: Inertia,
    /// How far the last return stands out: `100 * tanh(|r - median| / D)`.
    pub disruption: f64,
    /// Amplitude: spread of the returns times how often they change sign.
    pub amp: f64,
    /// Spread of the changes of return.
    pub volt: f64,
    /// Tendency less the cost of volatility.
    pub efficiency: f64,
    /// Share of neighbouring non-zero returns that differ in sign, in 0..=1.
    pub flip_rate: f64,
}

/// Inertia in its two faces.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Inertia {
    /// Of a price that stands: high while median return and roughness are small.
    #[serde(rename = "static")]
    pub still: f64,
    /// Of a price that moves steadily: high while the median return exceeds the roughness.
    pub growth: f64,
    /// The greater of the two.
    pub total: f64,
    /// Which of the two it is.
    pub face: Face,
}

/// The face of inertia that prevails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Face {
    /// The price stands.
    #[default]
    Static,
    /// The price moves steadily.
    Growth,
}

/// Buffers of the metrics.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// The last log-returns, which the caller fills.
    pub returns: Vec<f64>,
    work: [Vec<f64>; 2],
}

/// The metrics of the returns in the buffer.
///
/// The product form feeds amplitude and volatility with percent returns; the origin fed fractions,
/// a hundredth of that, to a formula that divides by 100 once more.
pub(crate) fn intrinsic(tendency: &Tendency, parity: Parity, b: &mut Buffers) -> Intrinsic {
    let returns = &b.returns;
    if returns.len() < MIN_RETURNS {
        return Intrinsic::default();
    }
    let rough = roughness(returns, &mut b.work);
    let centre = median(returns, &mut b.work[0]);
    let spread = mad_about(returns, centre, &mut b.work[0]);
    let unit = match parity {
        Parity::Product => 100.0,
        Parity::Origin => 1.0,
    };

    let still = 100.0 * math::tanh(1.0 / (1.0 + rough)) * math::tanh(0.01 / (centre.abs() + 1e-9));
    let growth = 100.0 * math::tanh(centre.abs() / (rough + 1e-9));
    let face = if growth > still { Face::Growth } else { Face::Static };
    let now = returns[returns.len() - 1];
    let flip_rate = flip_rate(returns);
    let volt = 100.0 * math::tanh(unit * rough / 100.0);
    Intrinsic {
        inertia: Inertia { still, growth, total: still.max(growth), face },
        disruption: 100.0 * math::tanh((now - centre).abs() / (rough + 1e-9)),
        amp: 100.0 * math::tanh(unit * spread / 100.0) * math::tanh(flip_rate),
        volt,
        efficiency: efficiency(tendency, volt, 0.0),
        flip_rate,
    }
}

/// `100 * tanh(1.2 * (0.6 direction * strength - 0.2 volt - 0.2 artificiality))`, the last two as
/// scores out of 100. Market windows know no orders, so their [artificiality](super::artificiality) is 0.
pub(crate) fn efficiency(tendency: &Tendency, volt: f64, artificiality: f64) -> f64 {
    let gain = 0.6 * tendency.direction * tendency.strength
        - 0.2 * volt / 100.0
        - 0.2 * artificiality / 100.0;
    (100.0 * math::tanh(1.2 * gain)).clamp(-100.0, 100.0)
}

/// Changes of sign over comparisons, zeros skipped.
fn flip_rate(returns: &[f64]) -> f64 {
    let (mut flips, mut comparisons, mut before) = (0_u32, 0_u32, 0.0_f64);
    for &r in returns.iter().filter(|r| **r != 0.0) {
        if before != 0.0 {
            comparisons += 1;
            flips += u32::from((r > 0.0) != (before > 0.0));
        }
        before = r;
    }
    if comparisons == 0 { 0.0 } else { f64::from(flips) / f64::from(comparisons) }
}

/// Percentage of symbols whose instant disruption is at least 60; 0 when there are none.
///
/// ```
/// use watchbell_market::analytics::disruption_systemic;
/// assert_eq!(disruption_systemic([10.0, 60.0, 99.0, 59.9]), 50.0);
/// ```
#[must_use]
pub fn disruption_systemic(instants: impl IntoIterator<Item = f64>) -> f64 {
    let (mut high, mut all) = (0_u32, 0_u32);
    for instant in instants {
        all += 1;
        high += u32::from(instant >= SYSTEMIC_THRESHOLD);
    }
    if all == 0 { 0.0 } else { 100.0 * f64::from(high) / f64::from(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flips_skip_zeros() {
        assert_eq!(flip_rate(&[1.0, 0.0, -1.0, -2.0, 0.0, 3.0]), 2.0 / 3.0);
        assert_eq!(flip_rate(&[0.0, 0.0, 5.0]), 0.0);
    }

    #[test]
    fn two_returns_are_too_few() {
        let mut b = Buffers { returns: vec![0.1, -0.1], ..Buffers::default() };
        let none = intrinsic(&Tendency::default(), Parity::Product, &mut b);
        assert_eq!(none, Intrinsic::default());
    }
}
