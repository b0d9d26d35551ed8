//! The floating mode over a span that moves: what the shift machine needs of each cycle.
//!
//! Forty-five cycles of a window look back over 360 points each, and almost all of those points are
//! the same. Their logarithms are taken once; a log-return from another opening is then a difference
//! of two of them. That difference may miss the true log-return by its last bits, so a point that
//! comes near the border of its bin is computed the long way. The counts, and so the mode, are the
//! same to the bit as those of [`general_floating_mode`](super::general_floating_mode).

use std::ops::Range;

use super::idhr::{self, Grid, IDHR_BINS};
use super::{Gfm, Parity, Scratch, are_prices, floating_gfm, fm, math};

/// No difference of two logarithms is further from the true log-return than this: three roundings
/// of numbers below 40, and the few last places that our logarithm may miss.
const SLACK: f64 = 1e-13;

/// Prices in time order, of which stretches are asked.
#[derive(Debug)]
pub(crate) struct Trail<'a> {
    prices: &'a [f64],
    logs: Vec<f64>,
}

impl<'a> Trail<'a> {
    /// None when a price is not a positive number.
    pub(crate) fn new(prices: &'a [f64]) -> Option<Self> {
        let logs = || prices.iter().map(|p| math::ln(*p)).collect();
        are_prices(prices, 0).then(|| Self { prices, logs: logs() })
    }

    /// The floating mode of the prices in `range`; none where that is empty.
    pub(crate) fn mode(&self, range: Range<usize>, scratch: &mut Scratch) -> Option<Gfm> {
        let (prices, logs) = (&self.prices[range.clone()], &self.logs[range]);
        let (&opening, &first) = prices.first().zip(logs.first())?;
        let exact = |i: usize| math::ln(prices[i] / opening);
        let (low, high) = fm::extent(logs);
        let (mut lo, mut hi) = (f64::INFINITY, f64::NEG_INFINITY);
        for (i, &log) in logs.iter().enumerate() {
            if log <= low + SLACK {
                lo = lo.min(exact(i));
            }
            if log >= high - SLACK {
                hi = hi.max(exact(i));
            }
        }
        // In a span of no width every point is near a border.
        if hi - lo <= 1e4 * SLACK {
            return Some(floating_gfm(prices, scratch).1);
        }
        let grid = Grid::over(lo, hi, IDHR_BINS);
        let per_bin = 1.0 / grid.width;
        let near = SLACK * per_bin + 1e-9;
        let b = &mut scratch.idhr;
        b.masked.clear();
        b.masked.resize(IDHR_BINS, 0);
        let origin = first + lo;
        for (i, &log) in logs.iter().enumerate() {
            let place = (log - origin) * per_bin;
            let bin = place as usize;
            let inside = place - bin as f64;
            let clear = inside > near && inside < 1.0 - near && place > 0.0;
            let bin = if clear && bin < IDHR_BINS { bin } else { grid.index(exact(i)) };
            b.masked[bin] += 1;
        }
        idhr::select(Parity::Product, b);
        Some(fm::gfm(opening, &grid, b, Parity::Product))
    }
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
            let trail = Trail::new(&prices).unwrap();
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
        let trail = Trail::new(&[1.0]).unwrap();
        assert!(trail.mode(0..0, &mut Scratch::default()).is_none());
    }
}
