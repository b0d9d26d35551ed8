//! The inner-density histogram of returns (section 4.5): where the log-returns of a window, seen
//! from its opening, are dense.
//!
//! 256 bins stand in 16 groups of 16, the *primaries*. The sixteen densest bins select the
//! primaries that count; bins elsewhere are masked to zero. The masked histogram gives the floating
//! mode ([`FloatingMode`]), its *nuclei* (smoothed peaks), and which points the vectors may see.

use serde::Serialize;

use super::Parity;

/// Bins of the histogram.
pub const IDHR_BINS: usize = 256;
/// Bins in one primary.
pub const BINS_PER_PRIMARY: usize = 16;
/// How many of the densest bins select primaries.
const SELECTED: usize = 16;
/// Bins are passed over while enough of them hold more points than this at most.
const HIGHEST_BAR: u32 = 8;
/// Half-width of a degenerate histogram, in standard deviations.
const ALPHA: f64 = 2.5;
/// Smallest standard deviation of a log-return.
const MIN_STD: f64 = 1e-6;
/// Peaks that are kept.
const NUCLEI: usize = 3;

/// What the histogram says of one window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Idhr {
    /// Least log-return; lower edge of bin 0.
    pub lo: f64,
    /// Greatest log-return; upper edge of the last bin.
    pub hi: f64,
    /// Width of one bin, as a log-return.
    pub width: f64,
    /// Number of bins.
    pub bins: usize,
    /// Primaries in order of their densest bin.
    pub selected_primaries: Vec<u16>,
    /// The densest bins: by count descending, then index ascending.
    pub selected_bins: Vec<u16>,
    /// Mean log-return of the points in selected primaries.
    pub mu_r: f64,
    /// Their sample standard deviation, at least 1e-6.
    pub std_r: f64,
    /// The highest smoothed peaks, highest first.
    pub nuclei: Vec<Nucleus>,
}

/// A peak of the masked histogram after a moving average of five bins.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Nucleus {
    /// Bin of the peak.
    pub bin: u16,
    /// Smoothed height as a share of all masked counts.
    pub density: f64,
    /// Central difference of the smoothed heights.
    pub first: f64,
    /// Second difference of the smoothed heights.
    pub second: f64,
}

/// The floating mode: the fullest bin and how the mass lies around it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FloatingMode {
    /// Index of the fullest bin, the first on ties.
    pub bin: u16,
    /// Centre of that bin, a log-return from the opening.
    pub gfm_log: f64,
    /// The same as a price: `opening * exp(gfm_log)`.
    pub gfm_price: f64,
    /// Mean of `|r - mu_r| / std_r` over all points.
    pub z_abs: f64,
    /// `1 / (1 + z_abs)`.
    pub confidence: f64,
    /// Mean of `(r - mu_r)^2` over all points.
    pub inertia: f64,
    /// Mean absolute step of the counts after a moving average of three bins.
    pub disruption: f64,
    /// The lesser of the masses left and right of the mode, as a share of all masked counts.
    pub v_inner: f64,
    /// The greater of the two.
    pub v_outer: f64,
}

/// The grid: an index for a log-return and a centre for an index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    pub lo: f64,
    pub hi: f64,
    pub width: f64,
    pub bins: usize,
}

impl Grid {
    /// `bins` equal bins over `lo..hi`.
    pub(crate) fn over(lo: f64, hi: f64, bins: usize) -> Self {
        Self { lo, hi, width: (hi - lo) / bins as f64, bins }
    }

    /// The bin of `r`; values at or beyond an edge belong to the bin at that edge.
    pub(crate) fn index(&self, r: f64) -> usize {
        if r <= self.lo {
            0
        } else if r >= self.hi {
            self.bins - 1
        } else {
            (((r - self.lo) / self.width) as usize).min(self.bins - 1)
        }
    }

    /// The centre of bin `j`.
    pub(crate) fn centre(&self, j: usize) -> f64 {
        self.lo + (j as f64 + 0.5) * self.width
    }
}

/// Buffers of the histogram; after [`build`] they describe the window that was built last.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// Bin of each point.
    pub bin_of: Vec<u16>,
    /// Counts with the bins outside selected primaries set to zero.
    pub masked: Vec<u32>,
    /// Densest bins first, as `(u32::MAX - count) << 32 | index`.
    ranking: Vec<u64>,
    /// Whether a primary is selected.
    primaries: Vec<bool>,
    smoothed: Vec<f64>,
}

impl Buffers {
    /// Whether the point with this bin lies in a selected primary.
    pub(crate) fn is_inlier(&self, bin: u16) -> bool {
        self.primaries[usize::from(bin) / BINS_PER_PRIMARY]
    }
    /// The selected bins, densest first.
    pub(crate) fn ranked(&self) -> impl Iterator<Item = usize> + '_ {
        self.ranking.iter().map(|&key| (key & u64::from(u32::MAX)) as usize)
    }
}

/// The grid of a window of log-returns. Where all are equal it spans a little around them.
fn grid(offsets: &[f64], bins: usize) -> Grid {
    let (lo, hi) = offsets
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), &r| (lo.min(r), hi.max(r)));
    if hi > lo {
        return Grid::over(lo, hi, bins);
    }
    // All equal: their deviation is nil, so the floor of the deviation decides the span.
    let half = ALPHA * MIN_STD;
    Grid::over(lo - half, lo + half, bins)
}

/// Counts, ranks and masks `offsets` (log-returns from the opening, at least one).
///
/// `bins` is a multiple of [`BINS_PER_PRIMARY`] and at most 65,536.
pub(crate) fn bin(offsets: &[f64], bins: usize, parity: Parity, b: &mut Buffers) -> Grid {
    let grid = grid(offsets, bins);
    b.masked.clear();
    b.masked.resize(bins, 0);
    b.bin_of.clear();
    for &r in offsets {
        let j = grid.index(r);
        b.masked[j] += 1;
        b.bin_of.push(j as u16);
    }

    select(parity, b);
    grid
}

/// Ranks the counts in `masked`, and masks those outside of the primaries that the densest select.
pub(crate) fn select(parity: Parity, b: &mut Buffers) {
    // The origin lets empty bins fill the selection, which drags in the lowest primaries.
    let mut bar = u32::from(parity == Parity::Product);
    // Most bins hold a point or two. As long as enough hold more, those below need no ranking.
    let above = |bar: u32| b.masked.iter().map(|count| u32::from(*count > bar)).sum::<u32>();
    while bar < HIGHEST_BAR && above(bar) >= SELECTED as u32 {
        bar += 1;
    }
    // Without a branch, which no processor could foresee.
    b.ranking.resize(b.masked.len(), 0);
    let mut found = 0;
    for (j, &count) in b.masked.iter().enumerate() {
        b.ranking[found] = u64::from(u32::MAX - count) << 32 | j as u64;
        found += usize::from(count >= bar);
    }
    b.ranking.truncate(found);
    if b.ranking.len() > SELECTED {
        b.ranking.select_nth_unstable(SELECTED - 1);
        b.ranking.truncate(SELECTED);
    }
    b.ranking.sort_unstable();

    b.primaries.clear();
    b.primaries.resize(b.masked.len().div_ceil(BINS_PER_PRIMARY), false);
    for &key in &b.ranking {
        b.primaries[(key & u64::from(u32::MAX)) as usize / BINS_PER_PRIMARY] = true;
    }
    for (primary, counts) in b.masked.chunks_mut(BINS_PER_PRIMARY).enumerate() {
        if !b.primaries[primary] {
            counts.fill(0);
        }
    }
}

/// The summary of what [`bin`] has just counted.
pub(crate) fn summarise(offsets: &[f64], grid: &Grid, b: &mut Buffers) -> Idhr {
    let (mut n, mut sum) = (0_u32, 0.0);
    for (&r, &j) in offsets.iter().zip(&b.bin_of) {
        if b.is_inlier(j) {
            n += 1;
            sum += r;
        }
    }
    let mu_r = sum / f64::from(n.max(1));
    let mut squares = 0.0;
    for (&r, &j) in offsets.iter().zip(&b.bin_of) {
        if b.is_inlier(j) {
            squares += (r - mu_r) * (r - mu_r);
        }
    }
    let std_r = if n > 1 { (squares / f64::from(n - 1)).sqrt() } else { 0.0 };

    let selected_bins: Vec<u16> = b.ranked().map(|j| j as u16).collect();
    let mut selected_primaries: Vec<u16> = Vec::with_capacity(SELECTED);
    for &j in &selected_bins {
        let primary = j / BINS_PER_PRIMARY as u16;
        if !selected_primaries.contains(&primary) {
            selected_primaries.push(primary);
        }
    }
    Idhr {
        lo: grid.lo,
        hi: grid.hi,
        width: grid.width,
        bins: grid.bins,
        selected_primaries,
        selected_bins,
        mu_r,
        std_r: std_r.max(MIN_STD),
        nuclei: nuclei(b),
    }
}

/// Moving average of `SPAN` bins, an odd number; near an edge, of those that exist.
fn smooth<const SPAN: usize>(counts: &[u32], into: &mut Vec<f64>) {
    let mean = |bins: &[u32]| f64::from(bins.iter().sum::<u32>()) / bins.len() as f64;
    let (n, reach) = (counts.len(), SPAN / 2);
    into.clear();
    into.extend((0..reach.min(n)).map(|j| mean(&counts[..(j + reach + 1).min(n)])));
    // The bins inside are nearly all; a fixed length lets the compiler take several at a time.
    into.extend(
        counts.array_windows::<SPAN>().map(|w| f64::from(w.iter().sum::<u32>()) / SPAN as f64),
    );
    into.extend((into.len()..n).map(|j| mean(&counts[j.saturating_sub(reach)..])));
}

/// Strict local maxima of the smoothed counts, the highest first, ties by index.
fn nuclei(b: &mut Buffers) -> Vec<Nucleus> {
    smooth::<5>(&b.masked, &mut b.smoothed);
    let total = f64::from(b.masked.iter().sum::<u32>().max(1));
    let mut top: Vec<(f64, Nucleus)> = Vec::with_capacity(NUCLEI + 1);
    for (i, w) in b.smoothed.windows(3).enumerate() {
        let &[left, height, right] = w else { continue };
        if height > left && height > right {
            let at = top.partition_point(|(other, _)| *other >= height);
            if at < NUCLEI {
                top.insert(
                    at,
                    (
                        height,
                        Nucleus {
                            bin: (i + 1) as u16,
                            density: height / total,
                            first: (right - left) / 2.0,
                            second: right - 2.0 * height + left,
                        },
                    ),
                );
                top.truncate(NUCLEI);
            }
        }
    }
    top.into_iter().map(|(_, nucleus)| nucleus).collect()
}

/// The fullest bin, the first on ties.
pub(crate) fn mode(b: &Buffers) -> usize {
    // Selected bins are ranked by count and then index, and every one survives its own mask.
    b.ranked().next().unwrap_or(0)
}

/// The floating mode of what [`bin`] has counted.
pub(crate) fn floating_mode(
    offsets: &[f64],
    opening: f64,
    idhr: &Idhr,
    grid: &Grid,
    b: &mut Buffers,
) -> FloatingMode {
    let mode = mode(b);
    let n = offsets.len().max(1) as f64;
    let (mut z, mut squares) = (0.0, 0.0);
    for &r in offsets {
        let d = r - idhr.mu_r;
        z += (d / idhr.std_r).abs();
        squares += d * d;
    }
    let z_abs = z / n;

    smooth::<3>(&b.masked, &mut b.smoothed);
    let steps = b.smoothed.windows(2).fold(0.0, |sum, w| sum + (w[1] - w[0]).abs());
    let total = f64::from(b.masked.iter().sum::<u32>().max(1));
    let left = f64::from(b.masked[..mode].iter().sum::<u32>()) / total;
    let right = f64::from(b.masked[mode + 1..].iter().sum::<u32>()) / total;
    let gfm_log = grid.centre(mode);
    FloatingMode {
        bin: mode as u16,
        gfm_log,
        gfm_price: opening * super::math::exp(gfm_log),
        z_abs,
        confidence: 1.0 / (1.0 + z_abs),
        inertia: squares / n,
        disruption: steps / (grid.bins.max(2) - 1) as f64,
        v_inner: left.min(right),
        v_outer: left.max(right),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_averages_the_bins_that_exist() {
        let mut out = Vec::new();
        smooth::<3>(&[3, 0, 0, 6], &mut out);
        assert_eq!(out, [1.5, 1.0, 2.0, 3.0]);
        smooth::<5>(&[5, 0, 0, 0, 0, 10], &mut out);
        assert_eq!(out, [5.0 / 3.0, 1.25, 1.0, 2.0, 2.5, 10.0 / 3.0]);
    }

    #[test]
    fn only_bins_with_points_are_selected_and_the_rest_is_masked() {
        // 17 lone bins in 16 primaries beside one bin with two points.
        let mut offsets: Vec<f64> = (0..16).map(|p| (f64::from(p) * 16.0 + 0.5) / 256.0).collect();
        offsets.push(0.0);
        offsets.push(1.0);
        offsets.push(1.0);
        let mut b = Buffers::default();
        let grid = bin(&offsets, IDHR_BINS, Parity::Product, &mut b);
        let idhr = summarise(&offsets, &grid, &mut b);
        assert_eq!(idhr.selected_bins[..2], [0, 255], "two counts each, the lower bin first");
        assert_eq!(idhr.selected_bins.len(), 16);
        assert_eq!(mode(&b), 0);
        // The sixteenth place goes to the lowest lone bins; the last of them stays outside.
        assert!(!b.is_inlier(240 - 16) || idhr.selected_primaries.contains(&14));
        let inliers = b.bin_of.iter().filter(|&&j| b.is_inlier(j)).count() as u32;
        assert_eq!(b.masked.iter().sum::<u32>(), inliers);
    }

    #[test]
    fn a_cluster_is_a_nucleus() {
        let mut b = Buffers { masked: vec![0; IDHR_BINS], ..Buffers::default() };
        for (bin, count) in [(99, 3), (100, 9), (101, 3), (200, 2), (201, 4), (202, 2)] {
            b.masked[bin] = count;
        }
        let peaks = nuclei(&mut b);
        assert!(peaks.is_empty(), "a plateau of five equal sums has no strict maximum: {peaks:?}");
        for (bin, count) in [(98, 1), (102, 1)] {
            b.masked[bin] = count;
        }
        let peaks = nuclei(&mut b);
        assert_eq!(peaks[0].bin, 100);
        assert!((peaks[0].density - 17.0 / 5.0 / 25.0).abs() < 1e-15);
        assert_eq!(peaks[0].first, 0.0);
        assert!(peaks[0].second < 0.0);
    }
}
