//! The structural statistics of a window of prices: pure functions of their inputs.
//!
//! [`compute_window`] takes one symbol's window ([`WindowInput`]) and gives [`WindowStats`];
//! [`signals`] gives the few values that a 5-second point carries. [`shift`] is the state machine
//! that watches the floating mode from cycle to cycle, [`point`] makes points, cycles and windows
//! out of order-book snapshots, and [`hash`] gives the canonical text and the hashes that let a
//! window be recomputed and compared.
//!
//! Determinism: sums run left to right in time order (inside a price bin: by price, then time),
//! every sort has a total order, and logarithms and hyperbolic tangents are our own, built from
//! IEEE 754's basic operations. So a result is the same to the bit on every machine.
//!
//! Speed: all intermediate series live in a [`Scratch`] that is reused from window to window; a
//! computation allocates only what its result owns.

pub mod flow;
pub mod fm;
pub mod hash;
pub mod idhr;
pub mod intrinsic;
mod order;
pub mod point;
pub mod shift;
pub(crate) mod trailing;
pub mod vectors;

#[cfg(test)]
mod golden;

use serde::Serialize;
use watchbell_core::Time;
pub(crate) use watchbell_core::math;

pub use flow::{OrderFlow, artificiality, divergence, inflation};
pub use fm::{Anchor, Gfm, PriceStats};
pub use idhr::{FloatingMode, Idhr, Nucleus};
pub use intrinsic::{Face, Inertia, Intrinsic, disruption_systemic};
pub use vectors::{Swap, Tendency, Vectors};

/// Bins of the display histogram and of the vectors, where nothing else is asked for.
pub const DEFAULT_BINS: usize = 128;
/// A point with fewer trailing points than this carries no signals.
const MIN_SIGNAL_POINTS: usize = 3;

/// Which form of a formula to use. The product has one; the other exists to be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parity {
    /// Watchbell's definitions.
    #[default]
    Product,
    /// The definitions as first implemented elsewhere, quirks included: for golden tests.
    Origin,
}

/// Why a window cannot be computed.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum InputError {
    /// No price at all.
    #[error("the window has no prices")]
    Empty,
    /// The three series do not belong together.
    #[error("the window has {prices} prices, {times} times and {weights} weights")]
    Lengths {
        /// Number of prices.
        prices: usize,
        /// Number of times.
        times: usize,
        /// Number of weights.
        weights: usize,
    },
    /// A price has no logarithm.
    #[error("price {price} at {at} is not a positive number")]
    Price {
        /// The price.
        price: f64,
        /// When it was seen.
        at: Time,
    },
    /// The points are not in time order.
    #[error("the point at {at} follows one at {before}: points must be in time order")]
    Order {
        /// The earlier of the two in the series.
        before: Time,
        /// The point that is out of order.
        at: Time,
    },
    /// A number of bins that no histogram can have.
    #[error("a histogram cannot have {0} bins: use 1 to 65536")]
    Bins(usize),
}

/// The points of one symbol in one window, checked: non-empty, in time order, positive prices.
#[derive(Debug, Clone, Copy)]
pub struct WindowInput<'a> {
    prices: &'a [f64],
    times: &'a [Time],
    weights: &'a [f64],
    bins: usize,
    anchor: Option<Anchor>,
}

impl<'a> WindowInput<'a> {
    /// `weights` are mean bid and ask volumes of a snapshot, or a candle's volume; one that is not
    /// positive counts as 1. The opening is the first price.
    ///
    /// # Errors
    /// When the series are empty, differ in length, are not in time order, or hold a price that is
    /// not a positive number.
    pub fn new(
        prices: &'a [f64],
        times: &'a [Time],
        weights: &'a [f64],
    ) -> Result<Self, InputError> {
        if prices.len() != times.len() || prices.len() != weights.len() {
            return Err(InputError::Lengths {
                prices: prices.len(),
                times: times.len(),
                weights: weights.len(),
            });
        }
        if prices.is_empty() {
            return Err(InputError::Empty);
        }
        if let Some(i) = prices.iter().position(|&p| !(p.is_finite() && p > 0.0)) {
            return Err(InputError::Price { price: prices[i], at: times[i] });
        }
        if let Some(w) = times.windows(2).find(|w| w[1] < w[0]) {
            return Err(InputError::Order { before: w[0], at: w[1] });
        }
        Ok(Self { prices, times, weights, bins: DEFAULT_BINS, anchor: None })
    }

    /// With another number of bins for the display histogram and the vectors (128).
    ///
    /// # Errors
    /// When `bins` is 0 or more than 65,536.
    pub fn bins(self, bins: usize) -> Result<Self, InputError> {
        if (1..=1 << 16).contains(&bins) {
            Ok(Self { bins, ..self })
        } else {
            Err(InputError::Bins(bins))
        }
    }

    /// With stored references for the changes of GFM and BFM (the opening and BFM itself).
    #[must_use]
    pub fn anchor(self, anchor: Anchor) -> Self {
        Self { anchor: Some(anchor), ..self }
    }

    /// The first price.
    #[must_use]
    pub fn opening(&self) -> f64 {
        self.prices[0]
    }

    /// Time of the first and of the last point.
    #[must_use]
    pub fn span(&self) -> (Time, Time) {
        (self.times[0], self.times[self.times.len() - 1])
    }
}

/// Reusable buffers of the analytics. One per thread; holds no state between windows.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Log-returns from the opening.
    offsets: Vec<f64>,
    idhr: idhr::Buffers,
    kept_prices: Vec<f64>,
    kept_weights: Vec<f64>,
    vectors: vectors::Buffers,
    intrinsic: intrinsic::Buffers,
}

/// Everything that is computed of one symbol's window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WindowStats {
    /// Number of points.
    pub samples: usize,
    /// The inner-density histogram.
    pub idhr: Idhr,
    /// Its floating mode and the masses around it.
    pub mode: FloatingMode,
    /// Prices, GFM and BFM.
    pub stats: PriceStats,
    /// Inner, outer, tendency and swap, over the points in selected primaries.
    pub vectors: Vectors,
    /// Inertia, disruption, amplitude, volatility and efficiency, over all points.
    pub intrinsic: Intrinsic,
    /// Counts of log-returns from the opening, for display.
    pub histogram: Histogram,
}

/// Equal-width counts of `ln(price / opening)`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Histogram {
    /// Lower edge of the first bin.
    pub lo: f64,
    /// Upper edge of the last bin.
    pub hi: f64,
    /// Points in each bin.
    pub counts: Vec<u32>,
}

/// What a 5-second point says of the 30 minutes before it (section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Signals {
    /// Inner vector.
    pub v_inner: f64,
    /// Outer vector.
    pub v_outer: f64,
    /// Swap score.
    pub v_swap: f64,
    /// Tendency score.
    pub v_tendency: f64,
    /// Instant disruption.
    pub disruption: f64,
    /// Amplitude.
    pub amp: f64,
    /// Volatility.
    pub volt: f64,
    /// Total inertia.
    pub inertia: f64,
    /// Index of the densest bin.
    pub mode_general: u16,
    /// `round(100 * bfm01)`.
    pub mode_b: i32,
}

/// Computes one symbol's window (section 4.11, step 4).
///
/// ```
/// use watchbell_core::Time;
/// use watchbell_market::analytics::{Scratch, WindowInput, compute_window};
///
/// let prices = [100.0, 101.0, 102.0, 101.5, 103.0];
/// let times: Vec<Time> = (1..=5).map(|i| Time(i * 5_000)).collect();
/// let input = WindowInput::new(&prices, &times, &[1.0; 5])?;
/// let stats = compute_window(&input, &mut Scratch::default());
/// assert_eq!((stats.samples, stats.stats.price_max), (5, 103.0));
/// assert!((stats.stats.bench_pct_max.0 - 3.0).abs() < 1e-12);
/// # Ok::<(), watchbell_market::analytics::InputError>(())
/// ```
#[must_use]
pub fn compute_window(input: &WindowInput<'_>, scratch: &mut Scratch) -> WindowStats {
    let (prices, opening) = (input.prices, input.opening());
    let (grid, gfm) = floating_gfm(prices, scratch);
    let idhr = idhr::summarise(&scratch.offsets, &grid, &mut scratch.idhr);
    let mode = idhr::floating_mode(&scratch.offsets, opening, &idhr, &grid, &mut scratch.idhr);
    let (vectors, intrinsic) = movement(prices, input.weights, input.bins, scratch);
    WindowStats {
        samples: prices.len(),
        mode,
        stats: fm::price_stats(prices, gfm, input.anchor),
        vectors,
        intrinsic,
        histogram: histogram(&scratch.offsets, &idhr, input.bins),
        idhr,
    }
}

/// The floating mode of some prices alone, for the one value that a cycle of the [`shift`] machine
/// needs: a fraction of the cost of [`compute_window`]. None when a price is not a positive number
/// or there is none.
#[must_use]
pub fn general_floating_mode(prices: &[f64], scratch: &mut Scratch) -> Option<Gfm> {
    are_prices(prices, 1).then(|| floating_gfm(prices, scratch).1)
}

/// The signals of a point, from the prices and weights of the 30 minutes that end with it. None
/// under three points, or when a price is not a positive number.
#[must_use]
pub fn signals(prices: &[f64], weights: &[f64], scratch: &mut Scratch) -> Option<Signals> {
    if !are_prices(prices, MIN_SIGNAL_POINTS) || prices.len() != weights.len() {
        return None;
    }
    let (_, gfm) = floating_gfm(prices, scratch);
    let mode = idhr::mode(&scratch.idhr);
    let (vectors, intrinsic) = movement(prices, weights, DEFAULT_BINS, scratch);
    Some(Signals {
        v_inner: vectors.inner,
        v_outer: vectors.outer,
        v_swap: vectors.swap.score,
        v_tendency: vectors.tendency.score,
        disruption: intrinsic.disruption,
        amp: intrinsic.amp,
        volt: intrinsic.volt,
        inertia: intrinsic.inertia.total,
        mode_general: mode as u16,
        mode_b: (100.0 * gfm.bfm01).round() as i32,
    })
}

fn are_prices(prices: &[f64], at_least: usize) -> bool {
    prices.len() >= at_least && prices.iter().all(|p| p.is_finite() && *p > 0.0)
}

/// Fills the histogram of the scratch and gives its grid and floating mode.
fn floating_gfm(prices: &[f64], scratch: &mut Scratch) -> (idhr::Grid, Gfm) {
    let opening = prices[0];
    scratch.offsets.clear();
    scratch.offsets.extend(prices.iter().map(|p| math::ln(p / opening)));
    let grid = idhr::bin(&scratch.offsets, idhr::IDHR_BINS, Parity::Product, &mut scratch.idhr);
    let gfm = fm::gfm(opening, &grid, &scratch.idhr, Parity::Product);
    (grid, gfm)
}

/// Vectors over the points in selected primaries, metrics over all, once the histogram is filled.
fn movement(
    prices: &[f64],
    weights: &[f64],
    bins: usize,
    scratch: &mut Scratch,
) -> (Vectors, Intrinsic) {
    let Scratch { idhr, kept_prices, kept_weights, vectors: buffers, intrinsic, .. } = scratch;
    kept_prices.clear();
    kept_weights.clear();
    for ((&p, &w), &bin) in prices.iter().zip(weights).zip(&idhr.bin_of) {
        if idhr.is_inlier(bin) {
            kept_prices.push(p);
            kept_weights.push(weight(w));
        }
    }
    if kept_prices.len() < 2 {
        kept_prices.clear();
        kept_prices.extend_from_slice(prices);
        kept_weights.clear();
        kept_weights.extend(weights.iter().copied().map(weight));
    }
    let vectors = vectors::vectors(kept_prices, kept_weights, bins, Parity::Product, buffers);
    vectors::last_returns(prices, intrinsic::METRICS_WINDOW, 1.0, &mut intrinsic.returns);
    let metrics = intrinsic::intrinsic(&vectors.tendency, Parity::Product, intrinsic);
    (vectors, metrics)
}

/// A weight that is not a positive number counts as 1.
fn weight(w: f64) -> f64 {
    if w.is_finite() && w > 0.0 { w } else { 1.0 }
}

/// The display histogram: over the same range as the inner-density histogram, except that a flat
/// window spans one millionth to either side.
fn histogram(offsets: &[f64], idhr: &Idhr, bins: usize) -> Histogram {
    let (lo, hi) = fm::extent(offsets);
    let (lo, hi) = if hi > lo { (idhr.lo, idhr.hi) } else { (lo - 1e-6, hi + 1e-6) };
    let grid = idhr::Grid::over(lo, hi, bins);
    let mut counts = vec![0; bins];
    for &r in offsets {
        counts[grid.index(r)] += 1;
    }
    Histogram { lo, hi, counts }
}
