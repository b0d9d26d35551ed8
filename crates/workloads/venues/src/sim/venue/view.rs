//! The market as one venue shows it: what it lists, at its own prices, in its own share of the volume.

use std::collections::HashMap;

use watchbell_core::Time;

use super::super::dice::{hash_text, mix};
use super::super::fault::FaultKind;
use super::super::market::{Candle, DAY, E8, MINUTE, Market, Trade, TradesFrom, lock};
use super::{Answer, Ask, depth, kraken};
use crate::native::Venue;

/// How the prices and sizes of the simulated market look at a venue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lens {
    seed: u64,
    /// Quoted in dollars, not in a coin that stands for them and costs a little more.
    dollars: bool,
    price: Priced,
    /// How many times the volume of the simulated market is traded here.
    pub(super) share: i64,
    /// Price step in units of 1e-8.
    pub(super) tick: i64,
}

/// Where the price of a market comes from.
#[derive(Debug, Clone, Copy)]
enum Priced {
    /// The asset's own, times so many millionths.
    Scaled(i64),
    /// Hardly moving: a coin or currency that is pegged to what it is quoted in.
    Pegged(i64),
}

const MILLION: i64 = 1_000_000;
/// What the symbols of the simulated market may be quoted in.
const DOLLARS: [&str; 6] = ["USDT", "USD", "USDC", "FDUSD", "BUSD", "TUSD"];
/// What a dollar coin costs over a dollar on some day, in millionths.
const PREMIUM: (u64, u64) = (100, 300);
/// How far a venue's price of an asset is off on some day, in millionths both ways.
const OFF: u64 = 250;

impl Lens {
    /// Price here over price in the simulated market, in millionths: it holds for a day, so that what
    /// is true of a day's minutes is true of its hours.
    fn ratio(&self, day: i64) -> i64 {
        let scale = match self.price {
            Priced::Scaled(scale) => scale,
            Priced::Pegged(_) => MILLION,
        };
        let off = (mix(self.seed, day as u64) % (2 * OFF + 1)) as i64 - OFF as i64;
        let premium = mix(hash_text("premium"), day as u64) % (PREMIUM.1 - PREMIUM.0 + 1);
        let under = if self.dollars { (PREMIUM.0 + premium) as i64 } else { 0 };
        scale + scale * (off - under) / MILLION
    }

    /// What is drawn for this market at this venue follows from it.
    pub(super) const fn seed(&self) -> u64 {
        self.seed
    }

    fn price(&self, ratio: i64, price: i64) -> i64 {
        let exact = match self.price {
            Priced::Pegged(at) => return at,
            Priced::Scaled(_) => i128::from(price) * i128::from(ratio) / i128::from(MILLION),
        };
        let tick = i128::from(self.tick);
        (((exact + tick / 2) / tick * tick) as i64).max(self.tick)
    }

    fn candle(&self, c: Candle) -> Candle {
        let ratio = self.ratio(c.open_time.div_euclid(DAY));
        let share = i128::from(self.share);
        let paid = |quote: i128, base: i128| match self.price {
            Priced::Pegged(at) => base * share * i128::from(at) / i128::from(E8),
            Priced::Scaled(_) => quote * share * i128::from(ratio) / i128::from(MILLION),
        };
        Candle {
            open: self.price(ratio, c.open),
            high: self.price(ratio, c.high),
            low: self.price(ratio, c.low),
            close: self.price(ratio, c.close),
            volume: c.volume * share,
            quote: paid(c.quote, c.volume),
            taker_base: c.taker_base * share,
            taker_quote: paid(c.taker_quote, c.taker_base),
            ..c
        }
    }

    fn trade(&self, t: &Trade) -> Trade {
        let ratio = self.ratio(t.time.div_euclid(DAY));
        Trade { price: self.price(ratio, t.price), size: t.size.saturating_mul(self.share), ..*t }
    }
}

/// A market that a venue lists.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    /// Its number in the simulated market.
    pub(super) symbol: usize,
    /// What answers call it: `XXBTZUSD`, `BTC-USDT`, `BTC-USD`.
    pub(super) key: String,
    /// A short name that requests use too: `XBTUSD`. Faults know the market by it.
    pub(super) name: String,
    pub(super) base: String,
    pub(super) quote: String,
    /// Size step in units of 1e-8.
    pub(super) step: i64,
    pub(super) standing: Standing,
    pub(super) lens: Lens,
}

/// What else is to be said of a market.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Trades,
    /// Listed, but closed.
    Offline,
    /// A dark pool.
    Dark,
}

/// A market beside the assets of the simulated one, such as a scan has to leave out.
struct Extra<'a> {
    base: &'a str,
    quote: &'static str,
    /// Whose path and volume it borrows.
    like: &'static str,
    price: Priced,
    standing: Standing,
}

const fn extra(
    base: &'static str,
    quote: &'static str,
    like: &'static str,
    price: Priced,
    standing: Standing,
) -> Extra<'static> {
    Extra { base, quote, like, price, standing }
}

const SAME: Priced = Priced::Scaled(MILLION);
const EURO: Priced = Priced::Scaled(882_000);
const TETHER: Priced = Priced::Pegged(99_970_000);
const ONE: Priced = Priced::Pegged(99_990_000);
const EURUSD: Priced = Priced::Pegged(113_380_000);

const AT_KRAKEN: [Extra<'static>; 8] = [
    extra("USDT", "USD", "XRP", TETHER, Standing::Trades),
    extra("USDC", "USD", "XRP", ONE, Standing::Trades),
    extra("EUR", "USD", "ADA", EURUSD, Standing::Trades),
    extra("BTC", "EUR", "BTC", EURO, Standing::Trades),
    extra("ETH", "EUR", "ETH", EURO, Standing::Trades),
    extra("BTC", "USD", "BTC", SAME, Standing::Dark),
    extra("ETH", "USD", "ETH", SAME, Standing::Dark),
    extra("REP", "USD", "LTC", Priced::Scaled(150_000), Standing::Offline),
];
const AT_OKX: [Extra<'static>; 3] = [
    extra("USDC", "USDT", "XRP", ONE, Standing::Trades),
    extra("BTC", "USDC", "BTC", SAME, Standing::Trades),
    extra("OMG", "USDT", "LTC", Priced::Scaled(7_000), Standing::Offline),
];
const AT_COINBASE: [Extra<'static>; 4] = [
    extra("USDT", "USD", "XRP", TETHER, Standing::Trades),
    extra("BTC", "EUR", "BTC", EURO, Standing::Trades),
    extra("ETH", "EUR", "ETH", EURO, Standing::Trades),
    extra("OMG", "USD", "LTC", Priced::Scaled(7_000), Standing::Offline),
];

/// Everything that a venue lists.
#[derive(Debug)]
pub(super) struct Listings {
    pub(super) all: Vec<Listed>,
    by_name: HashMap<String, usize>,
}

impl Listings {
    pub(super) fn of(venue: Venue, market: &Market) -> Self {
        let mut all: Vec<Listed> = Vec::new();
        for (symbol, spec) in market.symbols().iter().enumerate() {
            // Markets against anything but dollars are not what these venues are asked for.
            let dollars = DOLLARS.contains(&spec.quote.as_str());
            let known = all.iter().any(|l| l.base == spec.base);
            if dollars && !known && lists(venue, symbol, &spec.base) {
                let own = Extra {
                    base: &spec.base,
                    ..extra("", venue.quote(), "", SAME, Standing::Trades)
                };
                all.push(listed(venue, market, symbol, &own));
            }
        }
        let extras: &[Extra<'_>] = match venue {
            Venue::Kraken => &AT_KRAKEN,
            Venue::Okx => &AT_OKX,
            Venue::Coinbase => &AT_COINBASE,
            Venue::Binance => &[],
        };
        for extra in extras {
            let like = market.symbols().iter().position(|s| s.base == extra.like);
            all.extend(like.map(|symbol| listed(venue, market, symbol, extra)));
        }
        let mut by_name = HashMap::new();
        for (i, listed) in all.iter().enumerate() {
            for name in [&listed.key, &listed.name] {
                by_name.entry(name.clone()).or_insert(i);
            }
            if venue == Venue::Kraken && listed.standing != Standing::Dark {
                by_name.entry(kraken::slashed(listed)).or_insert(i);
                by_name.entry(format!("{}/{}", listed.base, listed.quote)).or_insert(i);
            }
        }
        Self { all, by_name }
    }

    pub(super) fn find(&self, name: &str) -> Option<&Listed> {
        self.by_name.get(name).and_then(|i| self.all.get(*i))
    }
}

/// Whether a venue has an asset: Kraken all of them, the others the large ones and a part of the rest.
fn lists(venue: Venue, rank: usize, base: &str) -> bool {
    let part = match venue {
        Venue::Kraken | Venue::Binance => 100,
        Venue::Okx => 70,
        Venue::Coinbase => 60,
    };
    rank < 8 || mix(hash_text(venue.as_str()), hash_text(base)) % 100 < part
}

fn listed(venue: Venue, market: &Market, symbol: usize, extra: &Extra<'_>) -> Listed {
    let spec = &market.symbols()[symbol];
    let seed = mix(hash_text(venue.as_str()), hash_text(extra.base));
    // Coarser prices where the venue has them.
    let tick = match (venue, extra.base, extra.price) {
        (_, _, Priced::Pegged(_)) => 10_000,
        (Venue::Kraken | Venue::Okx, "BTC", _) => spec.tick.max(10_000_000),
        _ => spec.tick,
    };
    let share = match venue {
        Venue::Okx => 2 + (seed % 3) as i64,
        Venue::Coinbase => 1 + (seed % 3) as i64,
        Venue::Kraken | Venue::Binance => 1,
    };
    let (key, name) = match venue {
        Venue::Kraken => kraken::names(extra.base, extra.quote, extra.standing == Standing::Dark),
        Venue::Okx | Venue::Coinbase | Venue::Binance => {
            let id = format!("{}-{}", extra.base, extra.quote);
            (id.clone(), id)
        }
    };
    let dollars = extra.quote == "USD";
    Listed {
        symbol,
        key,
        name,
        base: extra.base.to_owned(),
        quote: extra.quote.to_owned(),
        step: spec.step,
        standing: extra.standing,
        lens: Lens { seed, dollars, price: extra.price, share, tick },
    }
}

/// The grid of a request for candles.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bars {
    pub(super) length: i64,
    /// Where the grid starts, in milliseconds after the epoch.
    pub(super) phase: i64,
    /// As fault scripts and other venues call it.
    pub(super) name: &'static str,
}

impl Bars {
    /// Every interval that one of the venues has, on the grid of the epoch.
    pub(super) fn of_minutes(minutes: i64) -> Option<Self> {
        let name = match minutes {
            1 => "1m",
            3 => "3m",
            5 => "5m",
            15 => "15m",
            30 => "30m",
            60 => "1h",
            120 => "2h",
            240 => "4h",
            360 => "6h",
            720 => "12h",
            1_440 => "1d",
            10_080 => "1w",
            21_600 => "15d",
            _ => return None,
        };
        Some(Self { length: minutes * MINUTE, phase: 0, name })
    }

    pub(super) const fn floor(&self, t: i64) -> i64 {
        t - (t - self.phase).rem_euclid(self.length)
    }

    pub(super) const fn ceil(&self, t: i64) -> i64 {
        self.floor(t + self.length - 1)
    }
}

impl Ask<'_> {
    /// The simulated market.
    fn market(&self) -> &Market {
        &self.house.floor.market
    }

    /// The candles that open in `from..=to`, oldest first, as far as they have opened: the last one may
    /// be open still. `flat` puts one at the last close where nothing was traded, as venues do that
    /// leave none out. Candle faults are at work here.
    pub(super) fn bars(
        &self,
        listed: &Listed,
        bars: Bars,
        (from, to): (i64, i64),
        flat: bool,
    ) -> Vec<Candle> {
        let now = self.now();
        let (first, end) = self.market().span(listed.symbol);
        let last = to.min(now).min(end.0 - 1);
        let mut open = bars.ceil(from.max(bars.floor(first.0)));
        let mut rows: Vec<Candle> = Vec::new();
        while open <= last {
            let known = self.candle(listed, (open, open + bars.length), now);
            let close = rows.last().map(|c| c.close).filter(|_| flat);
            rows.extend(known.or_else(|| close.map(|price| still(price, open, bars))));
            open += bars.length;
        }
        self.candle_faults(listed, bars, &mut rows);
        self.faults.disorder(&mut rows);
        if self.faults.hit(FaultKind::Outside)
            && let Some(before) = rows.first().map(|r| r.open_time - bars.length)
        {
            let outside = self.candle(listed, (before, before + bars.length), now);
            rows.splice(0..0, outside);
        }
        rows
    }

    /// The faults that choose single candles.
    fn candle_faults(&self, listed: &Listed, bars: Bars, rows: &mut Vec<Candle>) {
        let now = self.now();
        let mut faults = lock(&self.house.floor.faults);
        if !faults.touches_candles() {
            return;
        }
        rows.retain_mut(|row| {
            let times = (row.open_time, row.close_time);
            if faults.revises("klines", &listed.name, bars.name, times, now) {
                // A provisional candle: its last trade is not in yet.
                row.close = row.open;
                row.volume = (row.volume - i128::from(listed.step)).max(0);
            }
            !faults.hides("klines", &listed.name, bars.name, row.open_time)
        });
    }

    pub(super) fn candle(&self, listed: &Listed, span: (i64, i64), now: i64) -> Option<Candle> {
        self.market().candle_seen(listed.symbol, span, now, |c| listed.lens.candle(c))
    }

    /// The last 24 hours, by whole minutes.
    pub(super) fn day(&self, listed: &Listed) -> Option<Candle> {
        let now = self.now();
        let from = (now - DAY + MINUTE - 1).div_euclid(MINUTE) * MINUTE;
        self.candle(listed, (from, now + 1), now)
    }

    pub(super) fn last_trade(&self, listed: &Listed) -> Option<Trade> {
        let last = self.market().last_trade(listed.symbol, Time(self.now()))?;
        Some(listed.lens.trade(&last))
    }

    /// Up to `limit` trades, in order of their numbers.
    pub(super) fn trades(&self, listed: &Listed, from: TradesFrom, limit: usize) -> Vec<Trade> {
        let found = self.market().trades(listed.symbol, from, limit, self.now());
        let mut trades = found.iter().map(|t| listed.lens.trade(t)).collect();
        self.faults.disorder(&mut trades);
        trades
    }

    /// The book with up to `levels` levels a side, sizes rounded to `step`. Book faults are at work
    /// here.
    pub(super) fn book(&self, listed: &Listed, levels: usize, step: i64) -> depth::Depth {
        let second = self.now().div_euclid(1_000) * 1_000;
        let last = self.market().last_trade(listed.symbol, Time(second));
        let (today, lens) = (second.div_euclid(DAY), &listed.lens);
        let yesterday = self.candle(listed, ((today - 1) * DAY, today * DAY), second);
        let turnover = yesterday.map_or(0, |c| c.quote) as f64 / E8 as f64;
        let mut book = last.map_or_else(depth::Depth::default, |t| {
            depth::around(lens, lens.trade(&t), turnover, second, (levels, step))
        });
        for side in [&mut book.bids, &mut book.asks] {
            self.faults.disorder(side);
        }
        if self.faults.hit(FaultKind::Crossed) {
            book.cross();
        }
        book
    }

    /// Whether a market is closed now, for good or by the script.
    pub(super) fn is_closed(&self, listed: &Listed) -> bool {
        let halted = || lock(&self.house.floor.faults).is_halted(&listed.name, Time(self.now()));
        listed.standing == Standing::Offline || halted()
    }

    /// Rows of a table, joined by commas, with the faults that work on what a row looks like.
    pub(super) fn rows<T>(&self, rows: &[T], row: impl Fn(&T) -> String) -> String {
        let last = rows.len().saturating_sub(1);
        let mut texts: Vec<String> = rows.iter().map(row).collect();
        if self.faults.hit(FaultKind::WrongWidth)
            && let Some(text) = texts.get_mut(last)
            && let Some(at) = text.rfind(',')
        {
            text.replace_range(at..text.len() - 1, "");
        }
        if self.faults.hit(FaultKind::Number)
            && let Some(text) = texts.first_mut()
        {
            other_kind(text);
        }
        texts.join(",")
    }
}

/// A number where text belongs, or text where a number does: of the second field.
fn other_kind(row: &mut String) {
    let fields: Vec<&str> = row.split(',').collect();
    if let [first, second, rest @ ..] = fields.as_slice() {
        let bare = second.trim_matches('"');
        let turned = if bare == *second { format!("\"{second}\"") } else { bare.to_owned() };
        *row = [&[*first, turned.as_str()], rest].concat().join(",");
    }
}

/// A candle in which nothing was traded.
const fn still(price: i64, open: i64, bars: Bars) -> Candle {
    Candle {
        open_time: open,
        close_time: open + bars.length - 1,
        open: price,
        high: price,
        low: price,
        close: price,
        volume: 0,
        quote: 0,
        taker_base: 0,
        taker_quote: 0,
        trades: 0,
        first_trade: -1,
        last_trade: -1,
    }
}

/// A whole JSON answer.
pub(super) fn json(body: String, rows: usize) -> Answer {
    Answer {
        status: 200,
        kind: "application/json",
        body: body.into_bytes(),
        rows,
        retry_after: None,
    }
}
