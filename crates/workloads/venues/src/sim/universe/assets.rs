//! Which assets there are in a universe, and what is typical of each.

use std::sync::OnceLock;

use super::super::dice::{Dice, exp, hash_text, ln, mix};
use super::super::market::{E8, SymbolSpec};
use super::Asset;

/// The largest assets, by turnover, with a usual price.
const KNOWN: [(&str, f64); 57] = [
    ("BTC", 96_000.0),
    ("ETH", 3_400.0),
    ("SOL", 190.0),
    ("XRP", 2.3),
    ("DOGE", 0.33),
    ("ADA", 0.85),
    ("LINK", 19.0),
    ("LTC", 105.0),
    ("AVAX", 36.0),
    ("SUI", 3.9),
    ("XLM", 0.38),
    ("DOT", 6.4),
    ("BCH", 440.0),
    ("UNI", 11.0),
    ("AAVE", 290.0),
    ("NEAR", 5.1),
    ("TRX", 0.24),
    ("HBAR", 0.28),
    ("ATOM", 6.5),
    ("FIL", 5.2),
    ("APT", 8.7),
    ("ARB", 0.72),
    ("OP", 1.8),
    ("INJ", 21.0),
    ("XMR", 205.0),
    ("ETC", 26.0),
    ("ALGO", 0.33),
    ("TAO", 450.0),
    ("RENDER", 7.2),
    ("FET", 1.25),
    ("ICP", 10.0),
    ("GRT", 0.19),
    ("SEI", 0.4),
    ("TIA", 4.9),
    ("LDO", 1.9),
    ("MKR", 1_450.0),
    ("CRV", 0.85),
    ("JUP", 0.83),
    ("ONDO", 1.3),
    ("WIF", 1.7),
    ("ZEC", 52.0),
    ("XTZ", 1.2),
    ("EOS", 0.77),
    ("SAND", 0.55),
    ("MANA", 0.47),
    ("AXS", 6.0),
    ("SNX", 1.9),
    ("COMP", 75.0),
    ("YFI", 7_800.0),
    ("DASH", 36.0),
    ("KSM", 32.0),
    ("BAT", 0.23),
    ("ENJ", 0.21),
    ("ZRX", 0.45),
    ("STORJ", 0.48),
    ("QTUM", 3.0),
    ("WAVES", 1.4),
];

/// Assets of which a dollar buys thousands, the dearest first. Each comes where so little is traded that
/// its sizes still fit (see [`MOST_A_DAY`]).
const CHEAP: [(&str, f64); 4] =
    [("FLOKI", 0.000_17), ("BONK", 0.000_03), ("SHIB", 0.000_022), ("PEPE", 0.000_011)];

/// Base units that may be traded on a usual day: sizes are whole numbers of 1e-8 with 63 bits, and a
/// minute may have many times its part of the day.
const MOST_A_DAY: f64 = 9.6e9;

/// The names of the universe with their usual prices: the known ones, then drawn and cheap ones.
pub(super) fn names(seed: u64, count: usize) -> Vec<(String, f64)> {
    const FIRST: &[u8] = b"BDFGKLMNPRSTVZ";
    const VOWELS: &[u8] = b"AEIOU";
    const LAST: &[u8] = b"BDKLMNRSTXZ";
    let mut names: Vec<(String, f64)> =
        KNOWN.iter().take(count).map(|(n, p)| ((*n).to_owned(), *p)).collect();
    let mut dice = Dice::new(mix(seed, 8));
    let pick =
        |from: &[u8], dice: &mut Dice| char::from(from[dice.below(from.len() as u64) as usize]);
    let mut cheap = CHEAP.iter().peekable();
    while names.len() < count {
        let least = turnover(names.len(), count) / MOST_A_DAY;
        if let Some((name, price)) = cheap.next_if(|(_, price)| *price >= least) {
            names.push(((*name).to_owned(), *price));
            continue;
        }
        let mut name = String::with_capacity(6);
        for _ in 0..1 + dice.below(2) {
            name.push(pick(FIRST, &mut dice));
            name.push(pick(VOWELS, &mut dice));
        }
        name.push(pick(LAST, &mut dice));
        if dice.below(3) == 0 {
            name.push(pick(VOWELS, &mut dice));
        }
        // From a hundredth of a cent to a hundred, in even ratios.
        let price = exp(ln(0.000_1) + dice.unit() * (ln(100.0) - ln(0.000_1)));
        // Words that mark markets of another kind are no names of assets.
        let marked = ["TEST", "DARK", "PERP", "FUT", "USD", "DAI"].iter().any(|w| name.contains(w));
        let fresh = names.iter().map(|(n, _)| n.as_str()).chain(CHEAP.map(|(n, _)| n));
        if !marked && fresh.into_iter().all(|n| n != name) {
            names.push((name, price.max(least)));
        }
    }
    names
}

/// An asset by its place among so many, and as a symbol of the market.
pub(super) fn asset(
    seed: u64,
    rank: usize,
    count: usize,
    name: &str,
    price: f64,
) -> (Asset, SymbolSpec) {
    let own = mix(seed, hash_text(name));
    let mut dice = Dice::new(mix(own, 9));
    let turnover = turnover(rank, count);
    // Five digits and more of a price, eight decimals at most.
    let mut tick = 1_000_000;
    while tick > 1 && tick as f64 > price * E8 as f64 / 50_000.0 {
        tick /= 10;
    }
    // A usual hour has a hundred million steps.
    let mut step = E8;
    while step > 1 && step as f64 > turnover / 24.0 / price * E8 as f64 / 100_000_000.0 {
        step /= 10;
    }
    let major = rank < 2;
    let asset = Asset {
        seed: own,
        tick,
        step,
        start: ln(price * E8 as f64 / tick as f64),
        beta: if major { 1.0 + 0.15 * rank as f64 } else { 0.8 + 0.7 * dice.unit() },
        noise: if major { 0.006 } else { 0.012 + 0.022 * dice.unit() },
        turnover,
        trades: 200 + (turnover.sqrt() * 1.5) as i64,
        midnights: OnceLock::new(),
    };
    let spec = SymbolSpec {
        name: format!("{name}USDT"),
        base: name.to_owned(),
        quote: "USDT".to_owned(),
        tick,
        step,
    };
    (asset, spec)
}

/// What a usual day turns over: half a billion at the top, by a power of the rank at first, and faster
/// towards the end, which has fifty thousand.
fn turnover(rank: usize, count: usize) -> f64 {
    const TOP: f64 = 5.0e8;
    const END: f64 = 5.0e4;
    const POWER: f64 = 1.2;
    let power = |r: f64| ln(TOP) - POWER * ln(r);
    let (r, n) = ((rank + 1) as f64, count as f64);
    let drop = (power(n) - ln(END)).max(0.0);
    let along = if count > 1 { (r - 1.0) / (n - 1.0) } else { 0.0 };
    exp(power(r) - drop * along * along)
}
