//! What the market is made of: symbols, minutes, candles and trades.

use watchbell_core::Time;

use super::market::{E8, MINUTE};

/// What is known of a symbol before its first trade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymbolSpec {
    /// The venue's name, such as `BTCUSDT`.
    pub name: String,
    /// The asset that is bought.
    pub base: String,
    /// The asset that pays.
    pub quote: String,
    /// Price step in units of 1e-8.
    pub tick: i64,
    /// Size step in units of 1e-8.
    pub step: i64,
}

impl SymbolSpec {
    /// Base and quote asset of a symbol, by the quote assets in use.
    pub(super) fn split(name: &str) -> (&str, &str) {
        ["USDT", "FDUSD", "USDC", "BUSD", "TUSD", "BTC", "ETH", "BNB", "EUR", "USD"]
            .iter()
            .find_map(|q| name.strip_suffix(q).filter(|b| !b.is_empty()).map(|b| (b, *q)))
            .map_or((name, "USDT"), |(base, quote)| (base.trim_end_matches(['-', '_']), quote))
    }
}

/// One minute. Prices and sizes in units of 1e-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Minute {
    pub(super) time: i64,
    pub(super) open: i64,
    pub(super) high: i64,
    pub(super) low: i64,
    pub(super) close: i64,
    pub(super) volume: i64,
    pub(super) quote: i64,
    pub(super) taker_base: i64,
    pub(super) taker_quote: i64,
    /// The number of the first trade; the next minute's when there is none.
    pub(super) first_trade: i64,
    pub(super) trades: u32,
}

/// A candle of any interval. Prices and sizes in units of 1e-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candle {
    /// Start, in epoch milliseconds.
    pub open_time: i64,
    /// Last millisecond.
    pub close_time: i64,
    /// First price.
    pub open: i64,
    /// Highest price.
    pub high: i64,
    /// Lowest price.
    pub low: i64,
    /// Last price.
    pub close: i64,
    /// Base volume.
    pub volume: i128,
    /// Quote volume.
    pub quote: i128,
    /// Base volume of trades that took from the asks.
    pub taker_base: i128,
    /// Quote volume of trades that took from the asks.
    pub taker_quote: i128,
    /// Number of trades.
    pub trades: i64,
    /// Number of the first trade, −1 without one.
    pub first_trade: i64,
    /// Number of the last trade, −1 without one.
    pub last_trade: i64,
}

impl Candle {
    pub(super) fn of(m: &Minute) -> Self {
        let n = i64::from(m.trades);
        let (first_trade, last_trade) =
            if n == 0 { (-1, -1) } else { (m.first_trade, m.first_trade + n - 1) };
        Self {
            open_time: m.time,
            close_time: m.time + MINUTE - 1,
            open: m.open,
            high: m.high,
            low: m.low,
            close: m.close,
            volume: i128::from(m.volume),
            quote: i128::from(m.quote),
            taker_base: i128::from(m.taker_base),
            taker_quote: i128::from(m.taker_quote),
            trades: n,
            first_trade,
            last_trade,
        }
    }

    /// Appends what followed.
    pub(super) fn join(&mut self, later: &Self) {
        self.high = self.high.max(later.high);
        self.low = self.low.min(later.low);
        self.close = later.close;
        self.volume += later.volume;
        self.quote += later.quote;
        self.taker_base += later.taker_base;
        self.taker_quote += later.taker_quote;
        self.trades += later.trades;
        if self.first_trade < 0 {
            self.first_trade = later.first_trade;
        }
        if later.last_trade >= 0 {
            self.last_trade = later.last_trade;
        }
    }
}

/// One trade. Price and size in units of 1e-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trade {
    /// Consecutive per symbol.
    pub id: i64,
    /// Epoch milliseconds.
    pub time: i64,
    /// Price.
    pub price: i64,
    /// Base size.
    pub size: i64,
    /// The buyer's order was resting.
    pub buyer_maker: bool,
}

impl Trade {
    /// Price times size in the quote asset.
    pub(super) fn value(&self) -> i128 {
        i128::from(self.price) * i128::from(self.size) / i128::from(E8)
    }
}

/// A stretch of minutes that a recorded market does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// First missing minute.
    pub from: Time,
    /// First minute that exists again.
    pub to: Time,
}
