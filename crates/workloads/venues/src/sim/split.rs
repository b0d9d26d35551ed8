//! Splits a minute into trades: from the open through both extremes to the close, with sizes whose
//! sum is the volume. Everything is in whole ticks and whole steps, so that adding the trades up
//! gives the minute back exactly.

use super::dice::Dice;
use super::market::MINUTE;

/// What a minute's trades must add up to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Prices in ticks.
    pub(super) open: i64,
    pub(super) high: i64,
    pub(super) low: i64,
    pub(super) close: i64,
    /// Size in steps.
    pub(super) volume: i64,
    /// Number of trades, at least [`needed`](Self::needed) unless the volume is zero.
    pub(super) trades: u32,
    pub(super) seed: u64,
}

/// One trade of a [`Shape`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Milliseconds since the start of the minute.
    pub(super) offset: i64,
    pub(super) ticks: i64,
    pub(super) steps: i64,
    /// The buyer's order was resting: the trade was a sale into the bid.
    pub(super) buyer_maker: bool,
}

impl Shape {
    /// The fewest trades that can draw these prices.
    pub(super) fn needed(&self) -> u32 {
        let inner =
            [self.low, self.high].iter().filter(|p| **p != self.open && **p != self.close).count()
                as u32;
        if inner == 0 && self.open == self.close { 1 } else { 2 + inner }
    }

    /// Calls `take` for each trade, in order of time.
    pub(super) fn each(&self, mut take: impl FnMut(Piece)) {
        let n = i64::from(self.trades);
        if n == 0 {
            return;
        }
        let mut dice = Dice::new(self.seed);
        let (at, price, knots) = self.knots(&mut dice);
        // The sizes are shares of the volume, so their total is needed before the first trade.
        let total: i64 = {
            let mut again = dice.clone();
            (0..n).map(|_| share(again.roll())).sum()
        };
        let least = i64::from(self.volume >= n);
        let spare = self.volume - least * n;
        let lean = if self.close > self.open { 96 } else { 160 };
        let (mut knot, mut given, mut weight) = (0, 0, 0);
        for i in 0..n {
            let bits = dice.roll();
            while knot + 1 < knots && i >= at[knot + 1] {
                knot += 1;
            }
            let ticks = if i == at[knot] {
                price[knot]
            } else {
                let (i0, p0, i1, p1) = (at[knot], price[knot], at[knot + 1], price[knot + 1]);
                let straight = p0 + (p1 - p0) * (i - i0) / (i1 - i0);
                let noise = (((bits & 0xFFFF) as i64 - 32_768) * (self.high - self.low)) >> 18;
                (straight + noise).clamp(self.low, self.high)
            };
            weight += share(bits);
            // Rounding the running total instead of each part makes the parts sum exactly.
            let upto = portion(spare, weight, total);
            let steps = least + upto - given;
            given = upto;
            let jitter = ((bits >> 32) & 0xFFFF) as i64;
            let offset = ((i << 16) + jitter) * MINUTE / (n << 16);
            take(Piece { offset, ticks, steps, buyer_maker: ((bits >> 48) & 0xFF) < lean });
        }
    }

    /// The trades that must have a given price: their index, the price, and how many there are.
    fn knots(&self, dice: &mut Dice) -> ([i64; 4], [i64; 4], usize) {
        let n = i64::from(self.trades);
        let bits = dice.roll();
        let low_first = self.close > self.open || (self.close == self.open && bits & 1 == 0);
        let ends = if low_first { [self.low, self.high] } else { [self.high, self.low] };
        if n == 1 {
            return ([0; 4], [self.close; 4], 1);
        }
        if n >= 4 {
            let a = 1 + dice.below(n as u64 - 3) as i64;
            let b = a + 1 + dice.below((n - 2 - a) as u64) as i64;
            return ([0, a, b, n - 1], [self.open, ends[0], ends[1], self.close], 4);
        }
        let inner = ends.into_iter().find(|p| *p != self.open && *p != self.close);
        match inner {
            Some(p) if n == 3 => ([0, 1, 2, 2], [self.open, p, self.close, self.close], 3),
            _ => ([0, n - 1, 0, 0], [self.open, self.close, 0, 0], 2),
        }
    }
}

/// The weight of a trade's size: many small ones, few large ones.
const fn share(bits: u64) -> i64 {
    let u = ((bits >> 16) & 0xFFFF) as i64;
    1 + ((u * u) >> 20)
}

/// `whole * part / total` without overflow.
fn portion(whole: i64, part: i64, total: i64) -> i64 {
    match whole.checked_mul(part) {
        Some(product) => product / total,
        None => (i128::from(whole) * i128::from(part) / i128::from(total)) as i64,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn trades_add_up_to_their_minute(
            seed: u64, low in 1_i64..1_000_000, range in 0_i64..5_000, o in 0.0..1.0_f64,
            c in 0.0..1.0_f64, volume in 1_i64..2_000_000_000, extra in 0_u32..300,
        ) {
            let part = |f: f64| low + (f * range as f64).round() as i64;
            let mut shape = Shape {
                open: part(o), high: low + range, low, close: part(c), volume, trades: 0, seed,
            };
            shape.trades = shape.needed() + extra;
            let mut all = Vec::new();
            shape.each(|p| all.push(p));
            prop_assert_eq!(all.len(), shape.trades as usize);
            prop_assert_eq!(all[0].ticks, shape.open);
            prop_assert_eq!(all[all.len() - 1].ticks, shape.close);
            prop_assert_eq!(all.iter().map(|p| p.ticks).max(), Some(shape.high));
            prop_assert_eq!(all.iter().map(|p| p.ticks).min(), Some(shape.low));
            prop_assert_eq!(all.iter().map(|p| p.steps).sum::<i64>(), volume);
            prop_assert!(all.windows(2).all(|w| w[0].offset <= w[1].offset));
            prop_assert!(all.iter().all(|p| (0..MINUTE).contains(&p.offset)));
            if volume >= all.len() as i64 {
                prop_assert!(all.iter().all(|p| p.steps >= 1));
            }
        }
    }
}
