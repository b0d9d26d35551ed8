//! The order book around the last trade: seeded, the same for all who look in the same second.

use watchbell_core::Time;

use super::dice::{hash_text, mix};
use super::market::{Market, SymbolSpec};

/// Price and size in units of 1e-8.
pub(super) type Level = (i64, i64);

/// A book at an instant; by default an empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Book {
    /// Grows whenever the book may have changed.
    pub(super) update: i64,
    /// Best first.
    pub(super) bids: Vec<Level>,
    /// Best first.
    pub(super) asks: Vec<Level>,
}

/// 2017-01-01: update ids count quarters of a millisecond from here.
const UPDATES_SINCE: i64 = 1_483_228_800_000;

/// The book of a symbol with up to `depth` levels a side; `None` while it does not trade: every order
/// is taken back then.
///
/// The last trade stands at the touch: a sale into the bid leaves it the best bid, a purchase the
/// best ask. The spread is one to four ticks.
pub(super) fn book(market: &Market, symbol: usize, now: i64, depth: usize) -> Option<Book> {
    let last = market.last_trade(symbol, Time(now)).filter(|_| !market.is_stopped(symbol, now))?;
    let spec = market.symbols().get(symbol)?;
    let second = now.div_euclid(1_000);
    let changed = last.time.max(second * 1_000);
    let seed = mix(hash_text(&spec.name), second as u64);
    let spread = spec.tick * [1, 1, 1, 1, 1, 1, 2, 4][(mix(seed, 1) & 7) as usize];
    let (bid, ask) = if last.buyer_maker {
        (last.price, last.price + spread)
    } else if last.price > spread {
        (last.price - spread, last.price)
    } else {
        (last.price, last.price + spread)
    };
    Some(Book {
        update: (changed - UPDATES_SINCE) * 4,
        bids: side(spec, bid, -1, mix(seed, 2), depth),
        asks: side(spec, ask, 1, mix(seed, 3), depth),
    })
}

/// Puts a bid above the best ask, as a book that lost an update shows it.
pub(super) fn cross(bids: &mut Vec<Level>, asks: &[Level]) {
    if let (Some((bid, size)), Some((ask, _))) = (bids.first().copied(), asks.first()) {
        bids.insert(0, (ask + (ask - bid).max(1), size));
    }
}

/// Levels from the touch outwards: gaps and sizes grow with the distance, and the bids end at zero.
fn side(spec: &SymbolSpec, best: i64, sign: i64, seed: u64, depth: usize) -> Vec<Level> {
    // A usual level holds about two thousand quote units.
    let unit = (200_000_000_000_i128 * 100_000_000 / i128::from(best) / i128::from(spec.step))
        .clamp(1, 1_000_000_000) as i64;
    let mut levels = Vec::with_capacity(depth);
    let mut price = best;
    for i in 0..depth as u64 {
        if price <= 0 {
            break;
        }
        let bits = mix(seed, i);
        let u = (bits & 0xFFFF) as i64;
        let far = 16 + (i as i64).min(400);
        let steps = 1 + (unit * u / 65_536) * u / 65_536 * far / 32;
        levels.push((price, steps * spec.step));
        let gap = 1
            + ((bits >> 16) & 7) as i64 * i64::from((bits >> 24) & 3 == 0)
            + (i as i64 / 64) * ((bits >> 32) & 3) as i64;
        price += sign * gap * spec.tick;
    }
    levels
}
