//! The floating mode over a span that moves: what the shift machine needs of each cycle.
//!
//! Forty-five cycles of a window look back over 360 points each, and almost all of those points are
//! the same. Their logarithms are taken once; a log-return from another opening is then a difference
//! of two of them. While the span's least and greatest price stay, so does its grid, and only what
//! leaves and enters is counted. Such a difference may miss the true log-return by its last bits, so a
//! point that comes near the border of its bin is computed the long way each time. The counts, and so
//! the mode, are the same to the bit as those of
//! [`general_floating_mode`](super::general_floating_mode).

use std::ops::Range;

use super::idhr::{self, Grid, IDHR_BINS};
use super::{Gfm, Parity, Scratch, are_prices, floating_gfm, fm, math};

/// No difference of two logarithms is further from the true log-return than this: three roundings
/// of numbers below 40, and the few last places that our logarithm may miss.
const SLACK: f64 = 1e-13;
/// A span that is no wider has all of its points near a border.
const NARROW: f64 = 1.1e4 * SLACK;
/// In the place of a bin: too near to its border.
const UNCLEAR: u16 = u16::MAX;

/// Prices in time order, of which stretches are asked.
#[derive(Debug)]
pub(crate) struct Trail<'a> {
    prices: &'a [f64],
    logs: Vec<f64>,
    /// The stretch that was asked last: what follows is of it.
    range: Range<usize>,
    /// Least and greatest logarithm.
    low: f64,
    high: f64,
    /// The bin of each point, or [`UNCLEAR`]; points outside of the stretch have any.
    bins: Vec<u16>,
    /// Points in each bin, without the unclear ones.
    counts: Vec<u32>,
    /// The unclear points, ascending.
    unclear: Vec<usize>,
}

impl<'a> Trail<'a> {
    /// None when a price is not a positive number.
    pub(crate) fn new(prices: &'a [f64]) -> Option<Self> {
        are_prices(prices, 0).then(|| Self {
            prices,
            logs: prices.iter().map(|p| math::ln(*p)).collect(),
            range: 0..0,
            low: f64::INFINITY,
            high: f64::NEG_INFINITY,
            bins: vec![UNCLEAR; prices.len()],
            counts: vec![0; IDHR_BINS],
            unclear: Vec::new(),
        })
    }

    /// The floating mode of the prices in `range`; none where that is empty.
    pub(crate) fn mode(&mut self, range: Range<usize>, scratch: &mut Scratch) -> Option<Gfm> {
        let prices = self.prices;
        let &opening = prices[range.clone()].first()?;
        if !self.slide(&range) {
            self.count(&range);
        }
        if self.high - self.low <= NARROW {
            return Some(floating_gfm(&prices[range], scratch).1);
        }
        let exact = |i: usize| math::ln(prices[i] / opening);
        // The points at both ends are unclear, for they lie on the border of a bin.
        let (mut lo, mut hi) = (f64::INFINITY, f64::NEG_INFINITY);
        for &i in &self.unclear {
            if self.logs[i] <= self.low + SLACK {
                lo = lo.min(exact(i));
            }
            if self.logs[i] >= self.high - SLACK {
                hi = hi.max(exact(i));
            }
        }
        let grid = Grid::over(lo, hi, IDHR_BINS);
        let b = &mut scratch.idhr;
        b.masked.clone_from(&self.counts);
        for &i in &self.unclear {
            b.masked[grid.index(exact(i))] += 1;
        }
        idhr::select(Parity::Product, b);
        Some(fm::gfm(opening, &grid, b, Parity::Product))
    }

    /// Moves on to `range`, if its extremes are those of the stretch before.
    fn slide(&mut self, range: &Range<usize>) -> bool {
        let old = self.range.clone();
        if !(old.start..old.end).contains(&range.start) || range.end < old.end {
            return false;
        }
        let (leaving, entering) = (old.start..range.start, old.end..range.end);
        let inner = |log: &f64| self.low < *log && *log < self.high;
        let within = |log: &f64| self.low <= *log && *log <= self.high;
        if !self.logs[leaving.clone()].iter().all(inner)
            || !self.logs[entering.clone()].iter().all(within)
        {
            return false;
        }
        for i in leaving {
            if self.bins[i] != UNCLEAR {
                self.counts[usize::from(self.bins[i])] -= 1;
            }
        }
        let gone = self.unclear.partition_point(|i| *i < range.start);
        self.unclear.drain(..gone);
        self.enter(entering);
        self.range = range.clone();
        true
    }

    /// Counts `range` anew.
    fn count(&mut self, range: &Range<usize>) {
        (self.low, self.high) = extent(&self.logs[range.clone()]);
        self.counts.fill(0);
        self.unclear.clear();
        self.enter(range.clone());
        self.range = range.clone();
    }

    /// Counts points on the grid of the present extremes.
    fn enter(&mut self, points: Range<usize>) {
        if self.high - self.low <= NARROW {
            self.bins[points].fill(UNCLEAR);
            return;
        }
        let per_bin = IDHR_BINS as f64 / (self.high - self.low);
        // Both the place of a point and the grid may be off by twice the slack.
        let near = 4.0 * SLACK * per_bin + 1e-9;
        for i in points {
            let place = (self.logs[i] - self.low) * per_bin;
            let bin = place as usize;
            let inside = place - bin as f64;
            if inside > near && inside < 1.0 - near && bin < IDHR_BINS {
                self.bins[i] = bin as u16;
                self.counts[bin] += 1;
            } else {
                self.bins[i] = UNCLEAR;
                self.unclear.push(i);
            }
        }
    }
}

/// Least and greatest value, some at a time: none of them is NaN.
fn extent(values: &[f64]) -> (f64, f64) {
    const LANES: usize = 8;
    let (mut least, mut greatest) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let v = chunk[lane];
            least[lane] = if v < least[lane] { v } else { least[lane] };
            greatest[lane] = if v > greatest[lane] { v } else { greatest[lane] };
        }
    }
    let of = |values: &[f64]| fm::extent(values);
    let (low, high) = of(rest);
    (low.min(of(&least).0), high.max(of(&greatest).1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::general_floating_mode;
    use super::*;

    proptest! {
        #[test]
        fn modes_are_those_of_the_stretch_alone(
            steps in prop::collection::vec(-6_i32..=6, 1..200),
            start in prop_oneof![Just(1e-7), Just(0.37), Just(102.5), Just(97_000.0)],
            step in prop_oneof![Just(0.0), Just(1e-15), Just(1e-11), Just(1e-6), Just(3e-4)],
            length in 1_usize..80,
        ) {
            let mut price: f64 = start;
            let prices: Vec<f64> = steps
                .iter()
                .map(|n| {
                    price *= 1.0 + f64::from(*n) * step;
                    price
                })
                .collect();
            let mut trail = Trail::new(&prices).unwrap();
            let (mut ours, mut theirs) = (Scratch::default(), Scratch::default());
            for end in 1..=prices.len() {
                let range = end.saturating_sub(length)..end;
                let expected = general_floating_mode(&prices[range.clone()], &mut theirs).unwrap();
                let found = trail.mode(range, &mut ours).unwrap();
                prop_assert_eq!(found.gfm.to_bits(), expected.gfm.to_bits());
                prop_assert_eq!(found.bfm01.to_bits(), expected.bfm01.to_bits());
            }
        }
    }

    #[test]
    fn what_is_no_price_has_no_mode() {
        assert!(Trail::new(&[1.0, f64::NAN]).is_none());
        assert!(Trail::new(&[1.0, 0.0]).is_none());
        let mut trail = Trail::new(&[1.0]).unwrap();
        assert!(trail.mode(0..0, &mut Scratch::default()).is_none());
    }
}
