//! A broad market from a seed: hundreds of assets from the largest to the hardly traded, each with
//! swings of its own.
//!
//! An hour is drawn first, from a closed form; its minutes are drawn to fit. So a month of hours or a
//! year of days costs no minute, and all of them agree: minutes make up their hour exactly, in price,
//! size and number of trades, as hours make up their day. Midnights are a table as in the
//! [synthetic market](super::synthetic), pulled back to their mean; between two of them an asset has
//! *swings*, moves of hours to two days that gain speed and draw volume as they go.

mod assets;
mod minutes;

use std::sync::OnceLock;

use super::dice::{Dice, mix};
use super::market::{Candle, DAY, E8, MINUTE, Minute, SymbolSpec};
use super::split::Shape;
use super::synthetic::{DAYS, FIRST_DAY, HOURS, PULL, Regime, regimes, ticks};

/// The most assets that there are.
pub(super) const MOST: usize = 400;
pub(super) const HOUR: i64 = 60 * MINUTE;
/// Every asset is traded at least so often in an hour: once in each quarter.
const FEWEST: i64 = 4;
/// A swing lies within a stretch of so many hours.
const STRETCH: i64 = 60;
/// The market as a whole moves this much of what a regime says, which was made for seven assets.
const MARKET: f64 = 0.7;

#[derive(Debug)]
pub(super) struct Universe {
    seed: u64,
    moods: Vec<Regime>,
    /// The log of the whole market at each midnight.
    factor: Vec<f64>,
    assets: Vec<Asset>,
}

#[derive(Debug)]
struct Asset {
    seed: u64,
    tick: i64,
    step: i64,
    /// Log of the usual price in ticks.
    start: f64,
    /// Share of the market's return.
    beta: f64,
    /// Own daily deviation.
    noise: f64,
    /// Turnover of a usual day in the quote asset.
    turnover: f64,
    /// Trades of every day, so that a trade's number tells its day.
    trades: i64,
    /// Log price in ticks at the start of each day; drawn when first asked for.
    midnights: OnceLock<Vec<f64>>,
}

/// A move of one asset that gains speed as it goes.
#[derive(Debug, Clone, Copy)]
struct Swing {
    /// First hour, counted from the epoch.
    from: i64,
    hours: i64,
    /// The whole move of the log price.
    size: f64,
    /// How much more is traded in its last hour.
    crowd: f64,
}

/// What a swing does to one hour.
#[derive(Debug, Clone, Copy)]
struct Push {
    /// Added to the log price.
    drift: f64,
    /// Trading, 1 being usual.
    crowd: f64,
    /// Noise and range, 1 being usual.
    heat: f64,
}

const NO_PUSH: Push = Push { drift: 0.0, crowd: 1.0, heat: 1.0 };

impl Swing {
    /// The part of the move that is done at the start of an hour: slow first, fast at last.
    fn part(&self, hour: i64) -> f64 {
        let x = (hour - self.from).clamp(0, self.hours) as f64 / self.hours as f64;
        0.3 * x + 0.7 * x * x * x
    }

    fn push(&self, hour: i64) -> Push {
        if !(self.from..self.from + self.hours).contains(&hour) {
            return NO_PUSH;
        }
        let x = (hour - self.from + 1) as f64 / self.hours as f64;
        Push {
            drift: self.size * (self.part(hour + 1) - self.part(hour)),
            crowd: 1.0 + self.crowd * x * x,
            heat: 1.0 + 0.9 * x * x,
        }
    }
}

impl Asset {
    /// The swing of a stretch, where there is one.
    fn swing(&self, stretch: i64) -> Option<Swing> {
        let mut dice = Dice::new(mix(self.seed, mix(5, stretch as u64)));
        if dice.below(5) > 1 {
            return None;
        }
        let hours = 8 + dice.below(41) as i64;
        let from = stretch * STRETCH + dice.below((STRETCH - hours + 1) as u64) as i64;
        let days = hours as f64 / 24.0;
        let strength = 1.0 + 3.0 * dice.unit() * dice.unit();
        // Long swings move further, by the square root of their length like any path.
        let size = strength * self.noise * days.sqrt();
        let up = dice.below(2) == 0;
        let crowd = 2.0 + 11.0 * dice.unit();
        Some(Swing { from, hours, size: if up { size } else { -size }, crowd })
    }

    fn midnights(&self, factor: &[f64]) -> &[f64] {
        self.midnights.get_or_init(|| {
            let mut dice = Dice::new(mix(self.seed, 1));
            let mut level = 0.0;
            let mut swing: Option<(i64, Option<Swing>)> = None;
            factor
                .iter()
                .zip(FIRST_DAY..)
                .map(|(market, day)| {
                    let log = self.start + self.beta * market + level;
                    let mut moved = self.noise * dice.normal();
                    // A day touches two stretches at most.
                    let (first, last) = (day * 24 / STRETCH, (day * 24 + 23) / STRETCH);
                    for stretch in first..=last {
                        let known = swing.filter(|(s, _)| *s == stretch);
                        let (_, found) = known.unwrap_or_else(|| (stretch, self.swing(stretch)));
                        swing = Some((stretch, found));
                        if let Some(s) = found {
                            moved += s.size * (s.part(day * 24 + 24) - s.part(day * 24));
                        }
                    }
                    level = level * (1.0 - PULL) + moved;
                    log
                })
                .collect()
        })
    }
}

impl Universe {
    /// The universe of `seed` with the `count` largest assets, 1 to [`MOST`].
    pub(super) fn new(seed: u64, count: usize) -> (Self, Vec<SymbolSpec>) {
        let count = count.clamp(1, MOST);
        let mut moods = regimes(seed);
        for mood in &mut moods {
            mood.sigma *= MARKET;
            mood.drift *= MARKET;
        }
        let mut factor = Vec::with_capacity(DAYS + 1);
        let mut dice = Dice::new(mix(seed, 1));
        let mut level = 0.0;
        for mood in &moods {
            factor.push(level);
            level = level * (1.0 - PULL) + mood.drift + mood.sigma * dice.normal();
        }
        factor.push(level);
        let (assets, specs) = assets::names(seed, count)
            .into_iter()
            .enumerate()
            .map(|(rank, (name, price))| assets::asset(seed, rank, count, &name, price))
            .unzip();
        (Self { seed, moods, factor, assets }, specs)
    }

    /// The day that holds the trade of that number.
    pub(super) fn day_of_trade(&self, symbol: usize, id: i64) -> i64 {
        FIRST_DAY + id.div_euclid(self.assets[symbol].trades)
    }

    /// The shape of a minute, from which its trades follow.
    pub(super) fn shape(&self, symbol: usize, m: &Minute) -> Shape {
        let asset = &self.assets[symbol];
        Shape {
            open: m.open / asset.tick,
            high: m.high / asset.tick,
            low: m.low / asset.tick,
            close: m.close / asset.tick,
            volume: m.volume / asset.step,
            trades: m.trades,
            seed: mix(asset.seed, m.time as u64),
        }
    }

    /// The 24 hours of a day; `None` outside the market's life.
    pub(super) fn hours(&self, symbol: usize, day: i64) -> Option<[Candle; 24]> {
        let index = usize::try_from(day - FIRST_DAY).ok().filter(|d| *d < DAYS)?;
        let asset = &self.assets[symbol];
        let midnights = asset.midnights(&self.factor);
        let mood = self.moods[index];
        let (from, to) = (midnights[index], midnights[index + 1]);
        let mut market = Dice::new(mix(self.seed, mix(6, day as u64)));
        let mut own = Dice::new(mix(asset.seed, mix(6, day as u64)));
        let (first, last) = (day * 24 / STRETCH, (day * 24 + 23) / STRETCH);
        let swings = [asset.swing(first), if last > first { asset.swing(last) } else { None }];
        let mut x = 0.0;
        let (mut logs, mut lively, mut activity) = ([0.0; 24], [0.0; 24], [0.0; 24]);
        let mut pushes = [0.0; 24];
        for h in 0..24 {
            let hour = day * 24 + h as i64;
            let mut push = NO_PUSH;
            for swing in swings.iter().flatten() {
                let p = swing.push(hour);
                push.drift += p.drift;
                push.crowd *= p.crowd;
                push.heat *= p.heat;
            }
            let (zm, zs, burst) = (market.normal(), own.normal(), own.normal());
            let heat = (0.4 + 0.6 * HOURS[h]) * (0.75 + 0.25 * burst * burst) * push.heat;
            let step = (asset.beta * mood.sigma * zm + asset.noise * zs) / 4.9 * heat;
            x += step;
            logs[h] = x;
            pushes[h] = push.drift + if h > 0 { pushes[h - 1] } else { 0.0 };
            lively[h] = heat;
            activity[h] = HOURS[h]
                * (0.35 + 0.25 * (zm.abs() + zs.abs()) + 0.25 * burst * burst)
                * (0.5 + 0.5 * mood.activity)
                * push.crowd;
        }
        // The noise leads to the next midnight; what the swings add is in both midnights already.
        let gap = (to - from - x - pushes[23]) / 24.0;
        let (shared, alone) = (asset.beta * mood.sigma, asset.noise);
        let deviation = (shared * shared + alone * alone).sqrt() / 4.9;
        let total: f64 = activity.iter().sum();
        let spare = (asset.trades - 24 * FEWEST) as f64;
        let mut before = ticks(from);
        let (mut running, mut given) = (0.0, 0_i64);
        let mut id = index as i64 * asset.trades;
        Some(std::array::from_fn(|h| {
            let log = from + logs[h] + pushes[h] + gap * (h + 1) as f64;
            let close = if h == 23 { ticks(to) } else { ticks(log) };
            let open = before;
            before = close;
            let reach = deviation * lively[h] * open as f64;
            let mut wick = || {
                let u = own.unit();
                (reach * (0.08 + 0.9 * u * u)) as i64
            };
            let (high, low) = (open.max(close) + wick(), (open.min(close) - wick()).max(1));
            running += activity[h];
            let upto = if h == 23 { spare as i64 } else { (running / total * spare) as i64 };
            let trades = FEWEST + upto - given;
            given = upto;
            let price = open as f64 * asset.tick as f64 / E8 as f64;
            let worth = asset.turnover / 24.0 * activity[h] * (0.5 + 0.5 * own.unit());
            let steps = (worth / price * E8 as f64 / asset.step as f64) as i64;
            let volume = i128::from(steps.max(trades)) * i128::from(asset.step);
            let typical = i128::from(open + high + low + close) * i128::from(asset.tick);
            let quote = volume * typical / (4 * i128::from(E8));
            // Who takes leans with the move.
            let lean = if close > open { 140 } else { 104 } + i128::from(own.below(13));
            let first = id;
            id += trades;
            Candle {
                open_time: day * DAY + h as i64 * HOUR,
                close_time: day * DAY + (h as i64 + 1) * HOUR - 1,
                open: open * asset.tick,
                high: high * asset.tick,
                low: low * asset.tick,
                close: close * asset.tick,
                volume,
                quote,
                taker_base: i128::from(steps.max(trades)) * lean / 256 * i128::from(asset.step),
                taker_quote: quote * lean / 256,
                trades,
                first_trade: first,
                last_trade: id - 1,
            }
        }))
    }

    /// The 60 minutes that make up an hour.
    pub(super) fn minutes(&self, symbol: usize, hour: &Candle) -> Vec<Minute> {
        let asset = &self.assets[symbol];
        let mut dice = Dice::new(mix(asset.seed, mix(7, hour.open_time as u64)));
        minutes::of(hour, asset.tick, asset.step, &mut dice)
    }
}
