//! The shapes that cross the wire, for the client and for the simulator.
//!
//! Prices and sizes come as decimal text and are kept as `f64`. For a price that is exact: a text with
//! more than 15 significant digits is refused, since it might not survive the way through a double.
//! Amounts (volumes, sizes) may be longer and are rounded to the nearest double.

use serde::{Deserialize, Deserializer, Serialize};
use watchbell_core::Time;

pub use super::interval::{Interval, UnknownInterval};

/// The most significant digits that every decimal text keeps through a double.
pub const LOSSLESS_DIGITS: usize = 15;

/// One candle.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Kline {
    /// First instant of the interval.
    pub open_time: Time,
    /// Price of the first trade.
    pub open: f64,
    /// Highest price.
    pub high: f64,
    /// Lowest price.
    pub low: f64,
    /// Price of the last trade.
    pub close: f64,
    /// Traded amount in the base asset.
    pub volume: f64,
    /// Last millisecond, as the venue sent it: the interval's end, or earlier where the venue
    /// itself stopped in the middle of the candle.
    pub close_time: Time,
    /// Traded amount in the quote asset.
    pub quote_volume: f64,
    /// Number of trades.
    pub trades: i64,
    /// Amount in the base asset that takers bought.
    pub taker_buy_base: f64,
    /// The same in the quote asset.
    pub taker_buy_quote: f64,
}

impl Kline {
    /// What is wrong with this candle of the `interval`, if anything.
    ///
    /// A close time before the interval's end is accepted: the venue ended candles early in its
    /// outages (2018-02-08, 2023-03-24) and still serves them so.
    ///
    /// # Errors
    /// A phrase that names the field and the value.
    pub fn check(&self, interval: Interval) -> Result<(), String> {
        for (name, price) in
            [("open", self.open), ("high", self.high), ("low", self.low), ("close", self.close)]
        {
            if !(price.is_finite() && price > 0.0) {
                return Err(format!("{name} {price} is not a positive price"));
            }
        }
        for (name, amount) in [
            ("volume", self.volume),
            ("quote volume", self.quote_volume),
            ("taker buy volume", self.taker_buy_base),
            ("taker buy quote volume", self.taker_buy_quote),
        ] {
            if !(amount.is_finite() && amount >= 0.0) {
                return Err(format!("{name} {amount} is not an amount"));
            }
        }
        if self.trades < 0 {
            return Err(format!("{} trades", self.trades));
        }
        let (low, high) = (self.low, self.high);
        for (name, price) in [("open", self.open), ("close", self.close)] {
            if !(low <= price && price <= high) {
                return Err(format!("{name} {price} is outside low {low} .. high {high}"));
            }
        }
        if !interval.is_open_time(self.open_time) {
            return Err(format!("open time {} is not on the {interval} grid", self.open_time.0));
        }
        if self.open_time.0 < FIRST_PLAUSIBLE_MS {
            return Err(format!("open time {} is not in milliseconds", self.open_time.0));
        }
        let end = interval.close_of(self.open_time);
        if self.close_time < self.open_time || self.close_time > end {
            return Err(format!(
                "close time {} does not fit open time {} and {interval} (expected {})",
                self.close_time.0, self.open_time.0, end.0
            ));
        }
        Ok(())
    }

    /// Whether the candle can no longer change at venue time `now`: its interval is over.
    #[must_use]
    pub fn is_final(&self, interval: Interval, now: Time) -> bool {
        interval.close_of(self.open_time) < now
    }
}

/// 2009-01-01: no candle of a coin is older, so a smaller number is not in milliseconds.
const FIRST_PLAUSIBLE_MS: i64 = 1_230_768_000_000;

/// An order book at one instant, best prices first. The venue gives no time with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Depth {
    /// Number of the last change that is contained.
    pub last_update_id: i64,
    /// Price and size, falling.
    #[serde(deserialize_with = "levels")]
    pub bids: Vec<(f64, f64)>,
    /// Price and size, rising.
    #[serde(deserialize_with = "levels")]
    pub asks: Vec<(f64, f64)>,
}

impl Depth {
    /// What is wrong with this book, if anything: order, sign, or bids above asks.
    ///
    /// # Errors
    /// A phrase that names the side and the level.
    pub fn check(&self) -> Result<(), String> {
        for (side, levels, falling) in [("bid", &self.bids, true), ("ask", &self.asks, false)] {
            for (i, (price, size)) in levels.iter().enumerate() {
                if !(*price > 0.0 && *size >= 0.0) {
                    return Err(format!("{side} {i}: {size} at {price} is not a level"));
                }
            }
            let sorted =
                levels.windows(2).position(|w| (w[0].0 > w[1].0) != falling || w[0].0 == w[1].0);
            if let Some(i) = sorted {
                return Err(format!("{side} {}: {} is out of order", i + 1, levels[i + 1].0));
            }
        }
        if let (Some(bid), Some(ask)) = (self.bids.first(), self.asks.first())
            && bid.0 >= ask.0
        {
            return Err(format!("best bid {} is not below best ask {}", bid.0, ask.0));
        }
        Ok(())
    }
}

/// Best bid and ask. The venue gives no time with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BookTicker {
    /// The market, in upper case.
    pub symbol: String,
    /// Best bid; 0 when the side is empty.
    #[serde(deserialize_with = "price")]
    pub bid_price: f64,
    /// Size at the best bid.
    #[serde(deserialize_with = "amount")]
    pub bid_qty: f64,
    /// Best ask; 0 when the side is empty.
    #[serde(deserialize_with = "price")]
    pub ask_price: f64,
    /// Size at the best ask.
    #[serde(deserialize_with = "amount")]
    pub ask_qty: f64,
}

impl BookTicker {
    /// The middle of bid and ask; `None` while a side is empty.
    #[must_use]
    pub fn mid(&self) -> Option<f64> {
        (self.bid_price > 0.0 && self.ask_price > 0.0)
            .then(|| f64::midpoint(self.bid_price, self.ask_price))
    }
}

/// Statistics of the trailing 24 hours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ticker24h {
    /// The market, in upper case.
    pub symbol: String,
    /// Last minus open price.
    #[serde(deserialize_with = "price")]
    pub price_change: f64,
    /// The same in **percent points** of the open price.
    #[serde(deserialize_with = "price")]
    pub price_change_percent: f64,
    /// Mean price by volume; rounded by the venue.
    #[serde(deserialize_with = "amount")]
    pub weighted_avg_price: f64,
    /// Last price of the day before.
    #[serde(deserialize_with = "price")]
    pub prev_close_price: f64,
    /// Newest price.
    #[serde(deserialize_with = "price")]
    pub last_price: f64,
    /// First price of the 24 hours.
    #[serde(deserialize_with = "price")]
    pub open_price: f64,
    /// Highest price.
    #[serde(deserialize_with = "price")]
    pub high_price: f64,
    /// Lowest price.
    #[serde(deserialize_with = "price")]
    pub low_price: f64,
    /// Traded amount in the base asset.
    #[serde(deserialize_with = "amount")]
    pub volume: f64,
    /// Traded amount in the quote asset.
    #[serde(deserialize_with = "amount")]
    pub quote_volume: f64,
    /// First instant of the 24 hours.
    pub open_time: Time,
    /// Last instant.
    pub close_time: Time,
    /// Number of trades.
    pub count: i64,
}

impl Ticker24h {
    /// Whether anything was traded in the 24 hours. Of a market without a trade, as one that was taken
    /// off the venue's list, the prices are zeros and mean nothing.
    #[must_use]
    pub fn was_traded(&self) -> bool {
        self.count > 0 && self.last_price > 0.0
    }
}

/// Trades of one taker order at one price, as one row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AggTrade {
    /// Number of the row, consecutive per symbol.
    #[serde(rename = "a")]
    pub id: i64,
    /// Price.
    #[serde(rename = "p", deserialize_with = "price")]
    pub price: f64,
    /// Amount in the base asset.
    #[serde(rename = "q", deserialize_with = "amount")]
    pub qty: f64,
    /// Number of the first single trade.
    #[serde(rename = "f")]
    pub first_trade_id: i64,
    /// Number of the last single trade.
    #[serde(rename = "l")]
    pub last_trade_id: i64,
    /// When it was traded.
    #[serde(rename = "T")]
    pub time: Time,
    /// Whether the seller was the taker.
    #[serde(rename = "m")]
    pub buyer_is_maker: bool,
}

/// What the venue trades, and its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExchangeInfo {
    /// The venue's time of the answer.
    pub server_time: Time,
    /// Limits of weight, orders and raw requests.
    #[serde(default)]
    pub rate_limits: Vec<RateLimit>,
    /// The markets.
    pub symbols: Vec<SymbolInfo>,
}

impl ExchangeInfo {
    /// The request weight that one address may use in a minute, as the venue states it.
    #[must_use]
    pub fn weight_per_minute(&self) -> Option<i64> {
        let minute = |l: &&RateLimit| {
            l.rate_limit_type == "REQUEST_WEIGHT" && l.interval == "MINUTE" && l.interval_num == 1
        };
        self.rate_limits.iter().find(minute).map(|l| l.limit)
    }
}

/// One limit of the venue: at most `limit` in `interval_num` intervals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// `REQUEST_WEIGHT`, `ORDERS`, `RAW_REQUESTS`.
    pub rate_limit_type: String,
    /// `SECOND`, `MINUTE`, `DAY`.
    pub interval: String,
    /// How many of them.
    pub interval_num: i64,
    /// The limit.
    pub limit: i64,
}

/// One market.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SymbolInfo {
    /// Its name, in upper case.
    pub symbol: String,
    /// `TRADING`, `HALT`, `BREAK`, `CANCEL_ONLY`, or a word that the venue has added since.
    pub status: String,
    /// What is traded.
    pub base_asset: String,
    /// What it is paid in.
    pub quote_asset: String,
    /// Whether spot orders are accepted at all.
    #[serde(default)]
    pub is_spot_trading_allowed: bool,
    /// Rules for prices and sizes.
    #[serde(default)]
    pub filters: Vec<Filter>,
}

impl SymbolInfo {
    /// Whether it trades now.
    #[must_use]
    pub fn is_trading(&self) -> bool {
        self.status == "TRADING" && self.is_spot_trading_allowed
    }
    /// The price step, as the venue writes it.
    #[must_use]
    pub fn tick_size(&self) -> Option<&str> {
        self.filter(&["PRICE_FILTER"]).and_then(|f| f.tick_size.as_deref())
    }
    /// The size step, as the venue writes it.
    #[must_use]
    pub fn step_size(&self) -> Option<&str> {
        self.filter(&["LOT_SIZE"]).and_then(|f| f.step_size.as_deref())
    }
    /// The smallest order in the quote asset, as the venue writes it.
    #[must_use]
    pub fn min_notional(&self) -> Option<&str> {
        self.filter(&["NOTIONAL", "MIN_NOTIONAL"]).and_then(|f| f.min_notional.as_deref())
    }
    fn filter(&self, kinds: &[&str]) -> Option<&Filter> {
        self.filters.iter().find(|f| kinds.contains(&f.filter_type.as_str()))
    }
}

/// One rule of a market. Only the fields that Watchbell uses; kinds it does not know stay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// `PRICE_FILTER`, `LOT_SIZE`, `NOTIONAL` and others.
    pub filter_type: String,
    /// Price step, decimal text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tick_size: Option<String>,
    /// Size step, decimal text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_size: Option<String>,
    /// Smallest value of an order, decimal text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_notional: Option<String>,
}

/// The venue's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerTime {
    /// Now, at the venue.
    pub server_time: Time,
}

/// The venue's refusal: a code of its documentation and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Negative for REST, small and positive for stream control messages.
    pub code: i64,
    /// The sentence.
    #[serde(default)]
    pub msg: String,
}

/// Reads a price.
///
/// # Errors
/// A phrase that quotes the text: no decimal number, or more digits than a double keeps.
pub fn parse_price(text: &str) -> Result<f64, String> {
    let value = parse_amount(text)?;
    if text.len() > LOSSLESS_DIGITS && significant_digits(text) > LOSSLESS_DIGITS {
        return Err(format!(
            "`{}` has more than {LOSSLESS_DIGITS} significant digits and would be rounded",
            cut(text, 40)
        ));
    }
    Ok(value)
}

/// Reads an amount, rounded to the nearest double.
///
/// # Errors
/// A phrase that quotes the text when it is no decimal number.
pub fn parse_amount(text: &str) -> Result<f64, String> {
    // `nan`, `inf` and exponents parse as doubles, but no venue writes decimals so.
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-');
    match text.parse::<f64>() {
        Ok(value) if plain => Ok(value),
        _ => Err(format!("`{}` is not a decimal number", cut(text, 40))),
    }
}

fn significant_digits(text: &str) -> usize {
    let digits = || text.bytes().filter(u8::is_ascii_digit);
    let leading = digits().take_while(|b| *b == b'0').count();
    let trailing = text.bytes().rev().filter(u8::is_ascii_digit).take_while(|b| *b == b'0').count();
    digits().count().saturating_sub(leading + trailing)
}

/// At most `max` characters of `text`, on one line; an ellipsis says that more was there.
pub(crate) fn cut(text: &str, max: usize) -> String {
    let mut chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut out: String = chars.by_ref().take(max).collect();
    if chars.next().is_some() {
        out.push('…');
    }
    out
}

/// Reads decimal text in place, without a copy, by one of the two readers above.
struct Decimal(fn(&str) -> Result<f64, String>);

impl serde::de::Visitor<'_> for Decimal {
    type Value = f64;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a decimal number as text")
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<f64, E> {
        (self.0)(text).map_err(E::custom)
    }
}

pub(crate) fn price<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    d.deserialize_str(Decimal(parse_price))
}

pub(crate) fn amount<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    d.deserialize_str(Decimal(parse_amount))
}

fn levels<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<(f64, f64)>, D::Error> {
    #[derive(Deserialize)]
    struct Level(
        #[serde(deserialize_with = "price")] f64,
        #[serde(deserialize_with = "amount")] f64,
    );
    Ok(Vec::<Level>::deserialize(d)?.into_iter().map(|l| (l.0, l.1)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_exact_or_refused() {
        for (text, value) in [
            ("9033.34000000", 9_033.34),
            ("0.00002369", 0.000_023_69),
            ("96440.00000000", 96_440.0),
            ("1000000000000000000", 1e18),
            ("123456789012345", 123_456_789_012_345.0),
        ] {
            assert_eq!(parse_price(text), Ok(value));
        }
        for bad in ["1234567890123456", "0.1234567890123456", "1234567.890123456"] {
            assert!(parse_price(bad).unwrap_err().contains("significant digits"), "{bad}");
            assert!(parse_amount(bad).is_ok());
        }
        for bad in ["", "nan", "inf", "1e5", "1,5", "0x10", "abc", "-", "1.2.3"] {
            assert!(parse_price(bad).unwrap_err().contains("not a decimal number"), "{bad}");
        }
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(cut("short", 10), "short");
        assert_eq!(cut("a\nlong text", 6), "a long…");
    }

    proptest::proptest! {
        #[test]
        fn every_price_of_fifteen_digits_survives(n in 1_u64..1_000_000_000_000_000, scale in 0_usize..9) {
            let digits = format!("{n:0>width$}", width = scale + 1);
            let (whole, part) = digits.split_at(digits.len() - scale);
            let text = if scale == 0 { whole.to_owned() } else { format!("{whole}.{part}") };
            let value = parse_price(&text).unwrap();
            proptest::prop_assert_eq!(format!("{value:.scale$}"), text);
        }
    }
}
