//! GFM, BFM and the descriptive statistics of a window's prices (section 4.6).

use serde::Serialize;
use watchbell_core::Pct;

use super::idhr::{Buffers, Grid};
use super::{Parity, math};

/// Densest bins that make the centre.
const TOP_BINS: usize = 8;
/// A change of GFM from its reference, in percent points, that counts as shifted.
pub const EPS_GFM_PCT: f64 = 0.35;
/// The same for BFM.
pub const EPS_BFM_PCT: f64 = 0.35;

/// References that deltas are measured from, where a session has stored them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Anchor {
    /// Reference GFM, a price.
    pub gfm: f64,
    /// Reference BFM in 0..=1.
    pub bfm01: f64,
}

/// Prices of a window and their floating mode.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PriceStats {
    /// First price.
    pub opening: f64,
    /// Last price.
    pub last: f64,
    /// The price before the last; none in a window of one.
    pub prev: Option<f64>,
    /// Least price.
    pub price_min: f64,
    /// Greatest price.
    pub price_max: f64,
    /// Least of `100 * (price / opening - 1)`.
    pub bench_pct_min: Pct,
    /// Greatest of `100 * (price / opening - 1)`.
    pub bench_pct_max: Pct,
    /// Population standard deviation of the prices; 0 when all are equal.
    pub sigma: f64,
    /// Mean of `|price - mean| / sigma`; 0 when sigma is.
    pub z_abs: f64,
    /// Centre of the densest bins, a log-return from the opening.
    pub r_center: f64,
    /// General floating mode, a price: `opening * exp(r_center)`.
    pub gfm: f64,
    /// What GFM is compared with: the stored anchor, or the opening.
    pub ref_gfm: f64,
    /// `gfm - ref_gfm`.
    pub delta_gfm_abs: f64,
    /// `100 * (gfm / ref_gfm - 1)`.
    pub delta_gfm_pct: Pct,
    /// Whether the change of GFM is at least 0.35 percent points.
    pub gfm_shifted: bool,
    /// Where the centre lies between the first and the last bin, in 0..=1.
    pub bfm01: f64,
    /// What BFM is compared with: the stored anchor, or itself.
    pub ref_bfm01: f64,
    /// `100 * (bfm01 - ref_bfm01)`.
    pub delta_bfm_pct: Pct,
    /// Whether the change of BFM is at least 0.35 percent points.
    pub bfm_shifted: bool,
}

/// The general floating mode of some prices, without the rest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Gfm {
    /// Centre of the densest bins, a log-return from the first price.
    pub r_center: f64,
    /// `first price * exp(r_center)`.
    pub gfm: f64,
    /// Where the centre lies between the first and the last bin, in 0..=1.
    pub bfm01: f64,
}

/// GFM and BFM of what the histogram has counted.
///
/// The product form takes every bin that is as dense as the eighth. With few points many bins
/// hold one each, and stopping at eight would pull the centre to the low side.
pub(crate) fn gfm(opening: f64, grid: &Grid, b: &Buffers, parity: Parity) -> Gfm {
    let (mut weighted, mut total) = (0.0, 0.0);
    let mut add = |j: usize| {
        let count = f64::from(b.masked[j]);
        weighted += grid.centre(j) * count;
        total += count;
    };
    match parity {
        Parity::Product => {
            // The selected bins are the densest of all, so the eighth of them sets the bar.
            let bar = b.ranked().take(TOP_BINS).last().map_or(1, |j| b.masked[j].max(1));
            (0..grid.bins).filter(|&j| b.masked[j] >= bar).for_each(&mut add);
        }
        Parity::Origin => b.ranked().take(TOP_BINS).for_each(&mut add),
    }
    let r_center = if total > 0.0 { weighted / total } else { 0.0 };
    let (first, last) = (grid.centre(0), grid.centre(grid.bins - 1));
    Gfm {
        r_center,
        gfm: opening * math::exp(r_center),
        bfm01: (r_center - first) / (last - first).max(1e-9),
    }
}

/// All statistics of `prices` (at least one), given their floating mode.
pub(crate) fn price_stats(prices: &[f64], mode: Gfm, anchor: Option<Anchor>) -> PriceStats {
    let opening = prices[0];
    let last = prices[prices.len() - 1];
    let (price_min, price_max) = extent(prices);
    let (mean, sigma) = mean_and_deviation(prices, price_min, price_max);
    let z_abs = if sigma == 0.0 {
        0.0
    } else {
        prices.iter().fold(0.0, |sum, p| sum + ((p - mean) / sigma).abs()) / prices.len() as f64
    };
    let ref_gfm = anchor.map_or(opening, |a| a.gfm);
    let ref_bfm01 = anchor.map_or(mode.bfm01, |a| a.bfm01);
    let delta_gfm_pct = 100.0 * (mode.gfm / ref_gfm - 1.0);
    let delta_bfm_pct = 100.0 * (mode.bfm01 - ref_bfm01);
    PriceStats {
        opening,
        last,
        prev: prices.len().checked_sub(2).map(|i| prices[i]),
        price_min,
        price_max,
        // The benchmark grows with the price, so its extremes are at the extreme prices.
        bench_pct_min: Pct(100.0 * (price_min / opening - 1.0)),
        bench_pct_max: Pct(100.0 * (price_max / opening - 1.0)),
        sigma,
        z_abs,
        r_center: mode.r_center,
        gfm: mode.gfm,
        ref_gfm,
        delta_gfm_abs: mode.gfm - ref_gfm,
        delta_gfm_pct: Pct(delta_gfm_pct),
        gfm_shifted: delta_gfm_pct.abs() >= EPS_GFM_PCT,
        bfm01: mode.bfm01,
        ref_bfm01,
        delta_bfm_pct: Pct(delta_bfm_pct),
        bfm_shifted: delta_bfm_pct.abs() >= EPS_BFM_PCT,
    }
}

/// Least and greatest value.
pub(crate) fn extent(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), &v| (lo.min(v), hi.max(v)))
}

/// Mean and population standard deviation. Equal values deviate by exactly 0: their rounded mean
/// may miss them by a bit, and that bit must not become a deviation of one sigma.
pub(crate) fn mean_and_deviation(values: &[f64], min: f64, max: f64) -> (f64, f64) {
    if min >= max {
        return (min, 0.0);
    }
    let n = values.len() as f64;
    let mean = values.iter().fold(0.0, |sum, v| sum + v) / n;
    let squares = values.iter().fold(0.0, |sum, v| sum + (v - mean) * (v - mean));
    (mean, (squares / n).sqrt())
}
