//! The vectors of a window (section 4.7): inner, outer, spread, tendency and swap, all on a scale
//! of plus or minus 100.
//!
//! *Inner* asks of every price bin whether its points lean to one side of their weighted median.
//! *Outer* is inner once more through tanh, so it carries no information of its own. *Tendency* is
//! the slope of percent returns against their roughness: an acceleration, for a steady trend scores
//! 0. *Swap* compares where prices stood when returns were in their top and bottom quartiles.
//!
//! Two floors of the original formulas are left out, for they break scale invariance with coins
//! that cost a fraction of a cent: the range of prices and their variance are floored there at 1e-9
//! in price units. Here a range of exactly nil gives 0, and so does a deviation that is nil but for
//! rounding, as a part of the range: equal prices that are means of several differ in their last digits,
//! and what these say is no leaning.

use serde::Serialize;

use super::fm::{extent, mean_and_deviation};
use super::order::{Weighted, quantile_of_sorted, roughness, weighted_median};
use super::{Parity, math};

/// Scale of all scores.
pub const SCALE: f64 = 100.0;
/// Returns that tendency and swap look at.
pub const TENDENCY_WINDOW: usize = 30;
/// Positions in the range that are closer than this are one: prices have fifteen digits, and a range is
/// seldom less than a hundred-thousandth of the price.
const SAME: f64 = 1e-9;
/// Gain of the swap score.
const SWAP_ALPHA: f64 = 1.2;
/// Version of the vector JSON.
pub const VECTOR_SCHEMA_VERSION: u32 = 1;

/// The vectors of one window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Vectors {
    /// Weighted mean of the bins' leanings.
    pub inner: f64,
    /// `100 * tanh(inner / 100)`.
    pub outer: f64,
    /// `outer - inner`.
    pub spread: f64,
    /// Slope of the percent returns.
    pub tendency: Tendency,
    /// Position against return, between the quartiles of return.
    pub swap: Swap,
    /// Points that the vectors were computed from.
    pub samples: usize,
    /// Price bins.
    pub bins: usize,
    /// Scale of the scores: 100.
    pub scale: f64,
}

/// Slope of the last 30 percent log-returns.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Tendency {
    /// `tanh(1.1 * slope / D)`, with D the roughness of the returns.
    pub direction: f64,
    /// Magnitude of the correlation.
    pub strength: f64,
    /// Least-squares slope in percent points a step.
    pub slope: f64,
    /// Correlation of return and step.
    pub r: f64,
    /// `100 * direction`.
    pub score: f64,
}

/// Quartile swap.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Swap {
    /// Half the distance between the mean positions of the top and the bottom quartile, in -1..=1.
    #[serde(rename = "Q")]
    pub q: f64,
    /// `100 * tanh(1.2 * q)`.
    pub score: f64,
    /// First quartile of the returns, as fractions.
    pub q1: f64,
    /// Third quartile of the returns, as fractions.
    pub q3: f64,
}

impl Vectors {
    /// The JSON that is stored with a window: the fields of this type behind `schema_version`.
    ///
    /// ```
    /// # use watchbell_core::Time;
    /// # use watchbell_market::analytics::{Scratch, WindowInput, compute_window};
    /// let times = [Time(1), Time(2), Time(3)];
    /// let input = WindowInput::new(&[1.0; 3], &times, &[1.0; 3])?;
    /// let json = compute_window(&input, &mut Scratch::default()).vectors.to_json();
    /// assert!(json.starts_with(r#"{"schema_version":1,"inner":0.0,"outer":0.0,"spread":"#));
    /// # Ok::<(), watchbell_market::analytics::InputError>(())
    /// ```
    #[must_use]
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Document {
            schema_version: u32,
            #[serde(flatten)]
            vectors: Vectors,
        }
        serde_json::to_string(&Document { schema_version: VECTOR_SCHEMA_VERSION, vectors: *self })
            .expect("numbers and fixed keys always serialise")
    }
}

/// Buffers of the vectors.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// Points by normalised price, then time.
    points: Vec<Weighted>,
    deviations: Vec<Weighted>,
    /// Percent log-returns, the last 30.
    returns: Vec<f64>,
    sorted: Vec<f64>,
    work: [Vec<f64>; 2],
}

/// All vectors of `prices` with `weights` of equal length, over `bins` price bins.
pub(crate) fn vectors(
    prices: &[f64],
    weights: &[f64],
    bins: usize,
    parity: Parity,
    b: &mut Buffers,
) -> Vectors {
    let (min, max) = extent(prices);
    let bin_sums = inner(prices, weights, (min, max), bins, parity, b);
    let outer = SCALE * math::tanh(bin_sums.mean);
    let inner = SCALE * bin_sums.mean;
    last_returns(prices, TENDENCY_WINDOW, 100.0, &mut b.returns);
    let tendency = tendency(&b.returns, &mut b.work);
    let swap = if b.returns.len() < 2 {
        // Too few returns for quartiles: the balance of weight about the middle bin stands in.
        let sum = bin_sums.left + bin_sums.right;
        let q = if sum > 0.0 { (bin_sums.right - bin_sums.left) / sum } else { 0.0 };
        Swap { q, score: SCALE * math::tanh(SWAP_ALPHA * q), q1: 0.0, q3: 0.0 }
    } else {
        swap(prices, (min, max), b)
    };
    Vectors {
        inner,
        outer,
        spread: outer - inner,
        tendency,
        swap,
        samples: prices.len(),
        bins,
        scale: SCALE,
    }
}

/// Weights about the middle bin, and the weighted mean leaning of the bins in -1..=1.
struct BinSums {
    mean: f64,
    left: f64,
    right: f64,
}

fn inner(
    prices: &[f64],
    weights: &[f64],
    (min, max): (f64, f64),
    bins: usize,
    parity: Parity,
    b: &mut Buffers,
) -> BinSums {
    let mut sums = BinSums { mean: 0.0, left: 0.0, right: 0.0 };
    if max <= min {
        return sums;
    }
    let range = max - min;
    b.points.clear();
    for (place, (&p, &weight)) in prices.iter().zip(weights).enumerate() {
        let value = ((p - min) / range).clamp(0.0, 1.0);
        b.points.push(Weighted { value, weight, place: place as u32 });
    }
    // Bins grow with the value, so sorting once brings each bin's points together *and* in the
    // order that its medians need.
    Weighted::sort(&mut b.points);
    let scale = (bins - 1) as f64;
    // What lies on the border of two bins but for rounding is in the upper one.
    let bin = |item: &Weighted| ((item.value + SAME) * scale + 0.5).floor() as usize;

    let (mut leanings, mut total) = (0.0, 0.0);
    for run in b.points.chunk_by(|x, y| bin(x) == bin(y)) {
        let weight = run.iter().fold(0.0, |sum, item| sum + item.weight);
        if run.len() > 1 {
            leanings += weight * leaning(run, weight, parity, &mut b.deviations);
        }
        total += weight;
        match bin(&run[0]).cmp(&(bins / 2)) {
            std::cmp::Ordering::Less => sums.left += weight,
            std::cmp::Ordering::Greater => sums.right += weight,
            std::cmp::Ordering::Equal => {}
        }
    }
    sums.mean = if total > 0.0 { leanings / total } else { 0.0 };
    sums
}

/// To which side of their weighted median the points of one bin lean, in -1..=1.
fn leaning(run: &[Weighted], total: f64, parity: Parity, deviations: &mut Vec<Weighted>) -> f64 {
    let centre = weighted_median(run, parity);
    deviations.clear();
    deviations
        .extend(run.iter().map(|item| Weighted { value: (item.value - centre).abs(), ..*item }));
    Weighted::sort(deviations);
    let mut sigma = weighted_median(deviations, parity);
    if sigma == 0.0 || (sigma <= SAME && parity == Parity::Product) {
        sigma = match parity {
            // Every bin of two points then scores +100.
            Parity::Origin => 1e-9,
            Parity::Product if run[0].value == run[run.len() - 1].value => return 0.0,
            Parity::Product => {
                let mean = run.iter().fold(0.0, |s, i| s + i.weight * i.value) / total;
                let squares =
                    run.iter().fold(0.0, |s, i| s + i.weight * (i.value - mean) * (i.value - mean));
                (squares / total).sqrt()
            }
        };
        if sigma <= SAME && parity == Parity::Product {
            return 0.0;
        }
    }
    math::tanh(run.iter().fold(0.0, |s, i| s + i.weight * (i.value - centre) / sigma) / total)
}

/// The last `keep` log-returns of `prices`, times `factor`, in time order.
pub(crate) fn last_returns(prices: &[f64], keep: usize, factor: f64, into: &mut Vec<f64>) {
    into.clear();
    let from = prices.len().saturating_sub(keep + 1);
    into.extend(prices[from..].windows(2).map(|w| factor * math::ln(w[1] / w[0])));
}

/// Slope, correlation and direction of a series of percent returns; zeros for fewer than two.
///
/// A roughness of no more than rounding noise (a steady trend has no other) counts as none, and
/// gives direction 0.
pub(crate) fn tendency(series: &[f64], work: &mut [Vec<f64>; 2]) -> Tendency {
    let n = series.len();
    if n < 2 {
        return Tendency::default();
    }
    let mean_x = (n - 1) as f64 / 2.0;
    let mean_y = series.iter().fold(0.0, |sum, y| sum + y) / n as f64;
    let (mut xy, mut xx, mut yy, mut largest) = (0.0, 0.0, 0.0, 0.0_f64);
    for (i, &y) in series.iter().enumerate() {
        let (dx, dy) = (i as f64 - mean_x, y - mean_y);
        xy += dx * dy;
        xx += dx * dx;
        yy += dy * dy;
        largest = largest.max(y.abs());
    }
    let slope = xy / xx;
    let r = if yy > 0.0 { (xy / (xx * yy).sqrt()).clamp(-1.0, 1.0) } else { 0.0 };
    let noise = roughness(series, work);
    let z = if noise <= 1e-9 * largest.max(1e-6) { 0.0 } else { slope / noise };
    let direction = math::tanh(1.1 * z);
    Tendency { direction, strength: r.abs(), slope, r, score: SCALE * direction }
}

/// Quartile swap over the percent returns in the buffer (at least two).
fn swap(prices: &[f64], (min, max): (f64, f64), b: &mut Buffers) -> Swap {
    let (mean, sd) = mean_and_deviation(prices, min, max);
    b.sorted.clear();
    b.sorted.extend(b.returns.iter().map(|y| y.clamp(-SCALE, SCALE) / SCALE));
    b.sorted.sort_unstable_by(f64::total_cmp);
    let (q1, q3) = (quantile_of_sorted(&b.sorted, 0.25), quantile_of_sorted(&b.sorted, 0.75));

    let (mut bottom, mut top) = ((0.0, 0_u32), (0.0, 0_u32));
    let aligned = &prices[prices.len() - b.returns.len()..];
    for (&p, &y) in aligned.iter().zip(&b.returns) {
        let position = if sd == 0.0 { 0.0 } else { (100.0 * (p - mean) / sd).clamp(-100.0, 100.0) };
        let t = y.clamp(-SCALE, SCALE) / SCALE;
        let side = if t <= q1 {
            &mut bottom
        } else if t >= q3 {
            &mut top
        } else {
            continue;
        };
        side.0 += position / 100.0;
        side.1 += 1;
    }
    let mean_of = |(sum, n): (f64, u32)| if n == 0 { 0.0 } else { sum / f64::from(n) };
    let q = ((mean_of(top) - mean_of(bottom)) / 2.0).clamp(-1.0, 1.0);
    Swap { q, score: SCALE * math::tanh(SWAP_ALPHA * q), q1, q3 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_trend_has_no_tendency() {
        let prices: Vec<f64> = (0..40).map(|i| 100.0 * 1.001_f64.powi(i)).collect();
        let v = vectors(&prices, &[1.0; 40], 128, Parity::Product, &mut Buffers::default());
        assert_eq!(v.tendency.direction, 0.0, "rounding noise is no roughness");
        assert_eq!(v.samples, 40);
    }

    /// Prices on few ticks, each the mean of five equal quotes: alike but for rounding.
    #[test]
    fn the_last_digits_of_equal_prices_are_no_leaning() {
        let mut seed = 7_u64;
        let mut dice = |sides: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % sides
        };
        for bins in [4, 8, 64, 128, 256] {
            let ticks: Vec<u64> = (0..360).map(|_| dice(11)).collect();
            let weights: Vec<f64> = (0..360).map(|_| 1.0 + dice(9) as f64).collect();
            let of = |scale: f64, quotes: u32| {
                let price = |tick: &u64| {
                    let quote = scale * (0.4012 + 0.0001 * *tick as f64);
                    (0..quotes).map(|_| quote).sum::<f64>() / f64::from(quotes)
                };
                let prices: Vec<f64> = ticks.iter().map(price).collect();
                vectors(&prices, &weights, bins, Parity::Product, &mut Buffers::default())
            };
            let exact = of(1.0, 1);
            for (scale, quotes) in [(1.0, 5), (3.0, 5), (1.1, 7), (0.7, 3), (1e-6, 5)] {
                let other = of(scale, quotes);
                let gap = (exact.inner - other.inner).abs();
                assert!(gap < 1e-6, "{bins} bins, {scale} x {quotes}: {exact:?} {other:?}");
            }
        }
    }

    #[test]
    fn two_prices_fall_back_on_the_balance_of_bins() {
        let swap = |weights: [f64; 2]| {
            vectors(&[1.0, 2.0], &weights, 8, Parity::Product, &mut Buffers::default()).swap
        };
        assert_eq!(swap([1.0, 1.0]).q, 0.0);
        assert_eq!(swap([1.0, 3.0]).q, 0.5);
        assert!((swap([1.0, 3.0]).score - 100.0 * 0.6_f64.tanh()).abs() < 1e-12);
    }

    #[test]
    fn weights_move_the_median_of_a_bin() {
        let prices = [1.0, 1.1, 1.2, 9.0];
        let lean =
            |w: [f64; 4]| vectors(&prices, &w, 2, Parity::Product, &mut Buffers::default()).inner;
        assert!(lean([1.0; 4]).abs() < 1e-12, "symmetric about the middle point");
        assert!(lean([1.0, 1.0, 1.5, 1.0]) > 0.0);
    }
}
