//! A broad market from a seed: hundreds of assets from the largest to the hardly traded, each with
//! swings of its own.
//!
//! An hour is drawn first, from a closed form; its minutes are drawn to fit. So a month of hours or a
//! year of days costs no minute, and all of them agree: minutes make up their hour exactly, in price,
//! size and number of trades, as hours make up their day. Midnights are a table as in the
//! [synthetic market](super::synthetic), pulled back to their mean; between two of them an asset has
//! *swings*, moves of hours to two days that gain speed and draw volume as they go.

use std::sync::OnceLock;

use super::dice::{Dice, exp, hash_text, ln, mix};
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

/// The largest assets, by turnover, with a usual price.
const KNOWN: [(&str, f64); 60] = [
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
    ("SHIB", 0.000_022),
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
    ("BONK", 0.000_03),
    ("FLOKI", 0.000_17),
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
        let size = strength * self.noise * root(days);
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
        let (assets, specs) = names(seed, count)
            .into_iter()
            .enumerate()
            .map(|(rank, (name, price))| asset(seed, rank, count, &name, price))
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
        let deviation = root((asset.beta * mood.sigma).powi(2) + asset.noise.powi(2)) / 4.9;
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
        let (weights, counts) = spread(&mut dice, hour.trades);
        let active: Vec<usize> = (0..60).filter(|k| counts[*k] > 0).collect();
        let price = |p: i64| p / asset.tick;
        let whole = [hour.open, hour.high, hour.low, hour.close].map(price);
        let closes = walk(&mut dice, whole, active.len(), counts[active[0]]);
        let [open, high, low, _] = whole;
        let mut rows = [[open; 4]; 60];
        let (mut before, mut at) = (open, 0);
        for (row, n) in rows.iter_mut().zip(counts) {
            if n == 0 {
                *row = [before; 4];
                continue;
            }
            let close = closes[at];
            at += 1;
            let open = if n == 1 { close } else { before };
            let reach = (high - low) as f64 / 9.0;
            let mut wick = || (reach * dice.unit() * dice.unit()) as i64;
            let up = (open.max(close) + wick()).min(high);
            let down = (open.min(close) - wick()).max(low);
            *row = match n {
                1 | 2 => [open, open.max(close), open.min(close), close],
                3 => [open, up, open.min(close), close],
                _ => [open, up, down, close],
            };
            before = close;
        }
        let sizes = sizes(&rows, &weights, &counts, whole.iter().sum());
        fill(asset, hour, &rows, &counts, &sizes)
    }
}

/// Shares an hour's sums among its minutes, so that they add up exactly.
fn fill(
    asset: &Asset,
    hour: &Candle,
    rows: &[[i64; 4]; 60],
    counts: &[i64; 60],
    sizes: &[f64; 60],
) -> Vec<Minute> {
    let step = i128::from(asset.step);
    let spare = (hour.volume / step) as i64 - hour.trades;
    let total: f64 = sizes.iter().sum();
    let last = counts.iter().rposition(|n| *n > 0).unwrap_or(59);
    let mut steps = [0_i64; 60];
    let (mut running, mut given) = (0.0, 0_i64);
    for k in 0..=last {
        running += sizes[k];
        let upto = if k == last { spare } else { (running / total * spare as f64) as i64 };
        steps[k] = counts[k] + upto - given;
        given = upto;
    }
    let worth = |k: usize| i128::from(steps[k]) * i128::from(rows[k].iter().sum::<i64>());
    let all: i128 = (0..60).map(worth).sum();
    let (mut paid, mut size) = (0_i128, 0_i128);
    let mut seen = [0_i128; 3];
    let mut id = hour.first_trade;
    let mut minutes = Vec::with_capacity(60);
    for k in 0..60 {
        paid += worth(k);
        size += i128::from(steps[k]) * step;
        // Rounding the running totals instead of each part makes the parts sum exactly.
        let upto = [
            hour.quote * paid / all.max(1),
            hour.taker_base / step * (size / step) / (hour.volume / step) * step,
            hour.taker_quote * paid / all.max(1),
        ];
        let [quote, taker_base, taker_quote] = std::array::from_fn(|i| (upto[i] - seen[i]) as i64);
        seen = upto;
        let [open, high, low, close] = rows[k].map(|p| p * asset.tick);
        minutes.push(Minute {
            time: hour.open_time + k as i64 * MINUTE,
            open,
            high,
            low,
            close,
            volume: steps[k] * asset.step,
            quote,
            taker_base,
            taker_quote,
            first_trade: id,
            trades: counts[k] as u32,
        });
        id += counts[k];
    }
    minutes
}

/// How busy each minute is, and how many of the hour's trades it has: one in each quarter at least.
fn spread(dice: &mut Dice, trades: i64) -> ([f64; 60], [i64; 60]) {
    let mut weights = [0.0; 60];
    for w in &mut weights {
        let z = dice.normal();
        *w = 0.2 + 0.8 * z * z;
    }
    let mut counts = [0_i64; 60];
    for quarter in 0..FEWEST as usize {
        counts[15 * quarter + dice.below(15) as usize] += 1;
    }
    let (spare, total) = (trades - FEWEST, weights.iter().sum::<f64>());
    let (mut running, mut given) = (0.0, 0);
    for (k, (count, weight)) in counts.iter_mut().zip(weights).enumerate() {
        running += weight;
        let upto = if k == 59 { spare } else { (running / total * spare as f64) as i64 };
        *count += upto - given;
        given = upto;
    }
    (weights, counts)
}

/// The closes of the minutes with trades, in ticks: from the open through both extremes to the close.
/// `first` trades are in the first of them; a single one stands at the open.
fn walk(dice: &mut Dice, [open, high, low, close]: [i64; 4], n: usize, first: i64) -> Vec<i64> {
    // Four quarters have a trade each, so both extremes find a minute between the ends.
    let a = 1 + dice.below(n as u64 - 3) as usize;
    let b = a + 1 + dice.below((n - 2 - a) as u64) as usize;
    let low_first = close > open || (close == open && dice.below(2) == 0);
    let (one, other) = if low_first { (low, high) } else { (high, low) };
    let knots = [(0, open), (a, one), (b, other), (n - 1, close)];
    let noise = (high - low) as f64 / 10.0;
    let mut knot = 0;
    (0..n)
        .map(|i| {
            while i > knots[knot + 1].0 {
                knot += 1;
            }
            let ((i0, p0), (i1, p1)) = (knots[knot], knots[knot + 1]);
            let pinned = i == i1 || (i == 0 && first == 1);
            let straight = p0 + (p1 - p0) * (i - i0) as i64 / (i1 - i0) as i64;
            let z = dice.normal();
            if pinned { straight } else { (straight + (z * noise) as i64).clamp(low, high) }
        })
        .collect()
}

/// How the hour's volume is shared among its minutes, such that their mean price, weighted by it, is
/// the hour's: dear and cheap minutes balance around it. Four times the prices, as sums of rows.
fn sizes(rows: &[[i64; 4]; 60], weights: &[f64; 60], counts: &[i64; 60], mean: i64) -> [f64; 60] {
    let mut sizes: [f64; 60] = std::array::from_fn(|k| {
        if counts[k] == 0 { 0.0 } else { weights[k] * (1.0 + counts[k] as f64) }
    });
    let off = |k: usize| (rows[k].iter().sum::<i64>() - mean) as f64;
    let (mut dear, mut cheap) = (0.0, 0.0);
    for (k, size) in sizes.iter().enumerate() {
        if off(k) > 0.0 {
            dear += size * off(k);
        } else {
            cheap -= size * off(k);
        }
    }
    if dear > 0.0 && cheap > 0.0 {
        for (k, size) in sizes.iter_mut().enumerate() {
            *size *= if off(k) > 0.0 { cheap } else { dear };
        }
    }
    sizes
}

/// The square root of a number above zero, by Newton's iteration.
fn root(x: f64) -> f64 {
    let mut y = if x > 1.0 { x } else { 1.0 };
    for _ in 0..24 {
        y = 0.5 * (y + x / y);
    }
    y
}

/// The names of the universe with their usual prices: the known ones, then drawn ones.
fn names(seed: u64, count: usize) -> Vec<(String, f64)> {
    const FIRST: &[u8] = b"BDFGKLMNPRSTVZ";
    const VOWELS: &[u8] = b"AEIOU";
    const LAST: &[u8] = b"BDKLMNRSTXZ";
    let mut names: Vec<(String, f64)> =
        KNOWN.iter().take(count).map(|(n, p)| ((*n).to_owned(), *p)).collect();
    let mut dice = Dice::new(mix(seed, 8));
    let pick =
        |from: &[u8], dice: &mut Dice| char::from(from[dice.below(from.len() as u64) as usize]);
    while names.len() < count {
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
        if !marked && names.iter().all(|(n, _)| *n != name) {
            names.push((name, price));
        }
    }
    names
}

fn asset(seed: u64, rank: usize, count: usize, name: &str, price: f64) -> (Asset, SymbolSpec) {
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
        trades: 200 + (root(turnover) * 1.5) as i64,
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
