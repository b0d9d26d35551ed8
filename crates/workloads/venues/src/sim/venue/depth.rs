//! Order books by how much an asset is traded: a tight and deep one for the largest, a wide and thin
//! one for the smallest. A book follows from venue, asset and second.

use super::super::dice::{Dice, exp, ln, mix};
use super::super::market::{E8, Trade};
use super::view::Lens;

/// One level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Level {
    /// Price and size in units of 1e-8.
    pub(super) price: i64,
    pub(super) size: i64,
    pub(super) orders: u32,
    /// When it last changed, in epoch seconds.
    pub(super) since: i64,
}

/// A book, best levels first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Depth {
    pub(super) bids: Vec<Level>,
    pub(super) asks: Vec<Level>,
}

impl Depth {
    /// Puts a bid above the best ask, as a book that lost an update shows it.
    pub(super) fn cross(&mut self) {
        if let (Some(bid), Some(ask)) = (self.bids.first(), self.asks.first()) {
            let price = ask.price + (ask.price - bid.price).max(1);
            self.bids.insert(0, Level { price, ..*bid });
        }
    }
}

/// An asset that turns over this much a day has [`USUAL_SPREAD`] and [`USUAL_DEPTH`].
const USUAL: f64 = 5.0e6;
/// Share of the price between best bid and best ask.
const USUAL_SPREAD: f64 = 5.0e-4;
/// Within two per cent of the middle, both sides together, in the quote asset.
const USUAL_DEPTH: f64 = 230_000.0;
/// Depth is measured within this share of the price.
const NEAR: f64 = 0.02;

/// The book around a trade of a market that turned over so much yesterday, with up to so many levels a
/// side and sizes in whole steps.
pub(super) fn around(
    lens: &Lens,
    last: Trade,
    turnover: f64,
    second: i64,
    (levels, step): (usize, i64),
) -> Depth {
    // A dead market and the largest one are a million times apart.
    let scale = ln((turnover / USUAL).clamp(1e-4, 1e3));
    let mut dice = Dice::new(mix(lens.seed(), second as u64));
    let spread = USUAL_SPREAD * exp(-0.55 * scale) * (0.7 + 0.7 * dice.unit());
    let depth = USUAL_DEPTH * exp(0.6 * scale) * (0.85 + 0.3 * dice.unit());
    let tick = lens.tick;
    let gap = ((last.price as f64 * spread / tick as f64) as i64).max(1) * tick;
    // A sale into the bid leaves it the best bid, a purchase the best ask.
    let (bid, ask) = if last.buyer_maker || last.price <= gap {
        (last.price, last.price + gap)
    } else {
        (last.price - gap, last.price)
    };
    // A large asset has more levels, and closer together.
    let near = (45.0 + 14.0 * scale).clamp(12.0, 90.0);
    let lean = 0.8 + 0.4 * dice.unit();
    let mut side = |best: i64, sign: i64, depth: f64| {
        let shape = Shape { best, sign, near, tick, step, second: second / 1_000 };
        shape.levels(&mut dice, depth, levels)
    };
    let bids = side(bid, -1, depth / 2.0 * lean);
    let asks = side(ask, 1, depth / 2.0 * (2.0 - lean));
    Depth { bids, asks }
}

struct Shape {
    best: i64,
    sign: i64,
    /// Levels within [`NEAR`].
    near: f64,
    tick: i64,
    step: i64,
    second: i64,
}

impl Shape {
    fn levels(&self, dice: &mut Dice, depth: f64, most: usize) -> Vec<Level> {
        // Three times as many levels as are near: they reach about six times as far.
        let count = (3.0 * self.near) as usize;
        let mut prices = Vec::with_capacity(count);
        let mut weights = Vec::with_capacity(count);
        let (mut price, mut near) = (self.best, 0.0);
        for i in 0..count {
            if price < self.tick {
                break;
            }
            prices.push(price);
            let weight = (0.15 + dice.unit() * dice.unit()) * (0.5 + i as f64 / self.near);
            weights.push(weight);
            let away = (price - self.best).abs() as f64 / self.best as f64;
            if away < NEAR {
                near += weight;
            }
            // The distance grows with the power 1.5 of the level's number.
            let share = (i + 1) as f64 / self.near;
            let next = NEAR * share * share.sqrt() * (0.97 + 0.06 * dice.unit());
            let ticks = (self.best as f64 * next / self.tick as f64) as i64;
            let beyond = self.best + self.sign * ticks * self.tick;
            let closest = price + self.sign * self.tick;
            price = if self.sign < 0 { beyond.min(closest) } else { beyond.max(closest) };
        }
        let worth = depth / near;
        let at = |(price, weight): (&i64, &f64)| {
            let base = worth * weight / *price as f64 * E8 as f64 * E8 as f64;
            let steps = (base / self.step as f64) as i64;
            let bits = mix(self.second as u64, *price as u64);
            Level {
                price: *price,
                size: steps.max(1).saturating_mul(self.step),
                orders: 1 + (bits % 6) as u32,
                since: self.second - ((bits >> 8) % 90) as i64,
            }
        };
        prices.iter().zip(&weights).take(most).map(at).collect()
    }
}
