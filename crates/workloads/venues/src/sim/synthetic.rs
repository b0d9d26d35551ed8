//! A market from a seed: correlated symbols, changing regimes, and any minute of any day computed
//! without the days before it.
//!
//! The log price of a symbol at midnight is a table, drawn once: a common market factor and the
//! symbol's own noise, both pulled back to their mean so that no price leaves its usual order of
//! magnitude or reaches zero. Inside a day a bridge joins two midnights. All arithmetic is exact or
//! IEEE-basic, so a seed means the same market everywhere.

use super::dice::{Dice, exp, hash_text, ln, mix};
use super::market::{DAY, E8, MINUTE, Minute, SymbolSpec};
use super::split::Shape;

/// The symbols of the default universe.
pub const DEFAULT_UNIVERSE: [&str; 7] =
    ["BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "ADAUSDT", "XRPUSDT", "DOGEUSDT"];

/// 2024-01-01: the day every synthetic symbol was listed, counted from the epoch.
pub(super) const FIRST_DAY: i64 = 19_723;
/// Twenty years: the market ends on 2043-12-28.
pub(super) const DAYS: usize = 7_300;
/// Every day has this many trades, so a trade's number tells its day.
const TRADES_PER_DAY: i64 = 36_000;
const MINUTES: usize = 1_440;
/// Enough trades in each minute to visit its open, high, low and close.
const FEWEST: i64 = 4;

/// What is typical for one asset.
struct Asset {
    name: &'static str,
    /// Mean price in the quote asset.
    price: f64,
    tick: i64,
    step: i64,
    /// Share of the market factor's return.
    beta: f64,
    /// Own daily deviation.
    noise: f64,
    /// Turnover of a normal day in the quote asset.
    turnover: f64,
}

const ASSETS: [Asset; 7] = [
    asset("BTC", 96_000.0, 1_000_000, 1_000, 1.0, 0.008, 1.8e9),
    asset("ETH", 3_400.0, 1_000_000, 10_000, 1.2, 0.012, 1.1e9),
    asset("BNB", 680.0, 1_000_000, 100_000, 0.85, 0.012, 2.0e8),
    asset("SOL", 190.0, 1_000_000, 100_000, 1.4, 0.020, 5.0e8),
    asset("ADA", 0.85, 10_000, 10_000_000, 1.3, 0.020, 1.0e8),
    asset("XRP", 2.3, 10_000, 10_000_000, 1.1, 0.022, 4.0e8),
    asset("DOGE", 0.33, 1_000, E8, 1.5, 0.022, 2.5e8),
];

const fn asset(
    name: &'static str,
    price: f64,
    tick: i64,
    step: i64,
    beta: f64,
    noise: f64,
    turnover: f64,
) -> Asset {
    Asset { name, price, tick, step, beta, noise, turnover }
}

/// The mood of a day: its market deviation and drift, and how much more is traded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Regime {
    pub(super) sigma: f64,
    pub(super) drift: f64,
    pub(super) activity: f64,
}

const CALM: Regime = Regime { sigma: 0.012, drift: 0.0, activity: 0.7 };
const NORMAL: Regime = Regime { sigma: 0.024, drift: 0.0, activity: 1.0 };
const STORM: Regime = Regime { sigma: 0.060, drift: -0.004, activity: 2.4 };
const RALLY: Regime = Regime { sigma: 0.028, drift: 0.012, activity: 1.4 };
const SLIDE: Regime = Regime { sigma: 0.030, drift: -0.012, activity: 1.3 };

/// Trading by hour of day (UTC): quiet before dawn in Europe, busiest while New York is open.
pub(super) const HOURS: [f64; 24] = [
    1.1, 1.0, 0.9, 0.8, 0.7, 0.7, 0.75, 0.9, 1.0, 1.0, 0.95, 0.9, 1.0, 1.3, 1.6, 1.6, 1.4, 1.2,
    1.1, 1.0, 1.0, 0.95, 0.9, 1.0,
];

/// The mean of a day's deviation is pulled back by this share per day.
pub(super) const PULL: f64 = 0.006;

#[derive(Debug)]
pub(super) struct Synthetic {
    seed: u64,
    regimes: Vec<Regime>,
    symbols: Vec<Path>,
}

/// The midnights of one symbol.
#[derive(Debug)]
struct Path {
    seed: u64,
    tick: i64,
    step: i64,
    beta: f64,
    noise: f64,
    turnover: f64,
    /// Log price in ticks at the start of each day.
    midnights: Vec<f64>,
}

impl Synthetic {
    /// The market of `seed` with these symbols.
    pub(super) fn new(seed: u64, symbols: &[&str]) -> (Self, Vec<SymbolSpec>) {
        let regimes = regimes(seed);
        let mut factor = Vec::with_capacity(DAYS + 1);
        let mut dice = Dice::new(mix(seed, 1));
        let mut level = 0.0;
        for regime in &regimes {
            factor.push(level);
            level = level * (1.0 - PULL) + regime.drift + regime.sigma * dice.normal();
        }
        factor.push(level);
        let (paths, specs) = symbols.iter().map(|name| path(seed, name, &factor)).unzip();
        (Self { seed, regimes, symbols: paths }, specs)
    }

    /// The first and the last day, counted from the epoch.
    pub(super) const fn days() -> (i64, i64) {
        (FIRST_DAY, FIRST_DAY + DAYS as i64 - 1)
    }

    /// The day that holds the trade of that number.
    pub(super) const fn day_of_trade(id: i64) -> i64 {
        FIRST_DAY + id.div_euclid(TRADES_PER_DAY)
    }

    /// The shape of a minute, from which its trades follow.
    pub(super) fn shape(&self, symbol: usize, m: &Minute) -> Shape {
        let path = &self.symbols[symbol];
        Shape {
            open: m.open / path.tick,
            high: m.high / path.tick,
            low: m.low / path.tick,
            close: m.close / path.tick,
            volume: m.volume / path.step,
            trades: m.trades,
            seed: mix(path.seed, m.time as u64),
        }
    }

    /// All minutes of a day; `None` outside the market's life.
    pub(super) fn day(&self, symbol: usize, day: i64) -> Option<Vec<Minute>> {
        let index = usize::try_from(day - FIRST_DAY).ok().filter(|d| *d < DAYS)?;
        let path = &self.symbols[symbol];
        let (closes, activity) = self.bridge(path, index, day);
        let mut dice = Dice::new(mix(path.seed, mix(3, day as u64)));
        let total: f64 = activity.iter().sum();
        let spare = (TRADES_PER_DAY - FEWEST * MINUTES as i64) as f64;
        let price = exp(path.midnights[index]) * path.tick as f64 / E8 as f64;
        let per_minute = path.turnover / price / MINUTES as f64 * E8 as f64 / path.step as f64;
        let mut minutes = Vec::with_capacity(MINUTES);
        let mut before = ticks(path.midnights[index]);
        let (mut running, mut given) = (0.0, 0_i64);
        let mut id = (index as i64) * TRADES_PER_DAY;
        for k in 0..MINUTES {
            let bits = dice.roll();
            let open = match bits & 15 {
                0 => before + 1,
                1 => (before - 1).max(1),
                _ => before,
            };
            let close = closes[k];
            running += activity[k];
            let upto =
                if k + 1 == MINUTES { spare as i64 } else { (running / total * spare) as i64 };
            let trades = FEWEST + upto - given;
            given = upto;
            // How far the extremes reach beyond the body: like the body, with a long tail.
            let reach = activity[k] * self.regimes[index].sigma / 38.0 * open as f64;
            let wick = |u: f64| (reach * u * u * 1.8) as i64;
            let (up, down) = (wick(dice.unit()), wick(dice.unit()));
            let size = per_minute * activity[k] * (0.35 + 1.3 * dice.unit() * dice.unit());
            let mut minute = Minute {
                time: day * DAY + k as i64 * MINUTE,
                open: open * path.tick,
                high: (open.max(close) + up) * path.tick,
                low: (open.min(close) - down).max(1) * path.tick,
                close: close * path.tick,
                volume: (size as i64).max(trades) * path.step,
                quote: 0,
                taker_base: 0,
                taker_quote: 0,
                first_trade: id,
                trades: trades as u32,
            };
            self.settle(symbol, &mut minute);
            id += trades;
            before = close;
            minutes.push(minute);
        }
        Some(minutes)
    }

    /// Fills in the sums that only the trades can tell.
    fn settle(&self, symbol: usize, minute: &mut Minute) {
        let path = &self.symbols[symbol];
        let (mut all, mut taker, mut taken) = (0_i64, 0_i64, 0_i64);
        self.shape(symbol, minute).each(|p| {
            let value = p.ticks * p.steps;
            all += value;
            if !p.buyer_maker {
                taker += value;
                taken += p.steps;
            }
        });
        // Every asset's tick times step is a whole number of 1e-8 quote units.
        let unit = path.tick * path.step / E8;
        minute.quote = all * unit;
        minute.taker_base = taken * path.step;
        minute.taker_quote = taker * unit;
    }

    /// The close of each minute in ticks, and how lively it is (1 is usual).
    fn bridge(&self, path: &Path, index: usize, day: i64) -> (Vec<i64>, Vec<f64>) {
        let regime = self.regimes[index];
        let mut market = Dice::new(mix(self.seed, mix(2, day as u64)));
        let mut own = Dice::new(mix(path.seed, mix(2, day as u64)));
        let mut walk = Vec::with_capacity(MINUTES);
        let mut activity = Vec::with_capacity(MINUTES);
        let (mut x, mut burst) = (0.0, 1.0);
        for k in 0..MINUTES {
            if k % 20 == 0 {
                let z = market.normal();
                burst = 0.6 + 0.4 * z * z;
            }
            let lively = HOURS[k / 60] * burst;
            let (zm, zs) = (market.normal(), own.normal());
            let step = (path.beta * regime.sigma * zm + path.noise * zs) / 38.0;
            x += lively * step;
            walk.push(x);
            activity.push((0.3 + lively * (0.4 + 0.3 * (zm.abs() + zs.abs()))) * regime.activity);
        }
        let (from, to) = (path.midnights[index], path.midnights[index + 1]);
        let gap = (to - from - x) / MINUTES as f64;
        let mut closes: Vec<i64> =
            walk.iter().enumerate().map(|(k, w)| ticks(from + w + gap * (k + 1) as f64)).collect();
        closes[MINUTES - 1] = ticks(to);
        (closes, activity)
    }
}

/// A log price in whole ticks, one at least.
pub(super) fn ticks(log: f64) -> i64 {
    (exp(log).round() as i64).max(1)
}

/// The chain of regimes: each lasts four days on average.
pub(super) fn regimes(seed: u64) -> Vec<Regime> {
    let mut dice = Dice::new(mix(seed, 4));
    let mut now = NORMAL;
    (0..DAYS)
        .map(|_| {
            if dice.below(4) == 0 {
                now = match dice.below(20) {
                    0..6 => CALM,
                    6..13 => NORMAL,
                    13..15 => STORM,
                    15..18 => RALLY,
                    _ => SLIDE,
                };
            }
            now
        })
        .collect()
}

fn path(seed: u64, name: &str, factor: &[f64]) -> (Path, SymbolSpec) {
    let (base, quote) = SymbolSpec::split(name);
    let own = mix(seed, hash_text(name));
    let known = ASSETS.iter().find(|a| a.name == base);
    let (price, tick, step, beta, noise, turnover) = known.map_or_else(
        || {
            // An asset without a typical price gets one between one cent and a few hundred.
            let magnitude = own % 5;
            let scale = 10_i64.pow(magnitude as u32);
            let price = 0.01 * scale as f64 * (1.0 + (own >> 8) as f64 / 2.0_f64.powi(54));
            (price, 100 * scale, E8 / scale.min(1_000), 1.2, 0.025, 5.0e7)
        },
        |a| (a.price, a.tick, a.step, a.beta, a.noise, a.turnover),
    );
    let start = ln(price * E8 as f64 / tick as f64);
    let mut dice = Dice::new(mix(own, 1));
    let mut noise_level = 0.0;
    let midnights = factor
        .iter()
        .map(|level| {
            let log = start + beta * level + noise_level;
            noise_level = noise_level * (1.0 - PULL) + noise * dice.normal();
            log
        })
        .collect();
    let spec = SymbolSpec {
        name: name.to_owned(),
        base: base.to_owned(),
        quote: quote.to_owned(),
        tick,
        step,
    };
    (Path { seed: own, tick, step, beta, noise, turnover, midnights }, spec)
}
