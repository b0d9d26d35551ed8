//! JSON as the venue prints it: its order of fields, and prices and sizes as text with eight
//! decimals. Written straight into a byte buffer; nothing is serialised on the hot paths.

use std::io::Write as _;

use super::book::{Book, Level};
use super::limiter::Limits;
use super::market::{Candle, DAY, E8, SymbolSpec, Trade};

pub(super) fn int(out: &mut Vec<u8>, v: i64) {
    if v < 0 {
        out.push(b'-');
    }
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = v.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A number of 1e-8 units, with eight decimals and no quotes.
pub(super) fn decimal(out: &mut Vec<u8>, v: i128) {
    if v < 0 {
        out.push(b'-');
    }
    let v = v.unsigned_abs();
    let (whole, part) = match u64::try_from(v) {
        Ok(v) => (v / E8 as u64, v % E8 as u64),
        Err(_) => ((v / E8 as u128) as u64, (v % E8 as u128) as u64),
    };
    int(out, whole as i64);
    let mut digits = *b".00000000";
    let mut rest = part as u32;
    for digit in digits[1..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits);
}

fn quoted(out: &mut Vec<u8>, v: i128) {
    out.push(b'"');
    decimal(out, v);
    out.push(b'"');
}

/// `"name":"1.00000000"` after a comma, as most fields are.
fn field(out: &mut Vec<u8>, name: &str, v: i128) {
    key(out, name);
    quoted(out, v);
}

fn count(out: &mut Vec<u8>, name: &str, v: i64) {
    key(out, name);
    int(out, v);
}

fn text(out: &mut Vec<u8>, name: &str, v: &str) {
    key(out, name);
    out.push(b'"');
    out.extend_from_slice(v.as_bytes());
    out.push(b'"');
}

fn key(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn truth(v: bool) -> &'static [u8] {
    if v { b"true" } else { b"false" }
}

/// A JSON array of what `each` writes.
pub(super) fn array<T>(items: &[T], room: usize, each: impl Fn(&mut Vec<u8>, &T)) -> Vec<u8> {
    let mut out = Vec::with_capacity(items.len() * room + 2);
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        each(&mut out, item);
    }
    out.push(b']');
    out
}

/// One row of `klines`: 12 values.
pub(super) fn kline(out: &mut Vec<u8>, c: &Candle) {
    out.push(b'[');
    int(out, c.open_time);
    for price in [c.open, c.high, c.low, c.close] {
        out.push(b',');
        quoted(out, i128::from(price));
    }
    out.push(b',');
    quoted(out, c.volume);
    out.push(b',');
    int(out, c.close_time);
    out.push(b',');
    quoted(out, c.quote);
    out.push(b',');
    int(out, c.trades);
    out.push(b',');
    quoted(out, c.taker_base);
    out.push(b',');
    quoted(out, c.taker_quote);
    out.extend_from_slice(b",\"0\"]");
}

pub(super) fn agg_trade(out: &mut Vec<u8>, t: &Trade) {
    out.push(b'{');
    agg_fields(out, t);
    out.push(b'}');
}

fn agg_fields(out: &mut Vec<u8>, t: &Trade) {
    count(out, "a", t.id);
    field(out, "p", i128::from(t.price));
    field(out, "q", i128::from(t.size));
    count(out, "f", t.id);
    count(out, "l", t.id);
    count(out, "T", t.time);
    key(out, "m");
    out.extend_from_slice(truth(t.buyer_maker));
    out.extend_from_slice(b",\"M\":true");
}

pub(super) fn trade(out: &mut Vec<u8>, t: &Trade) {
    out.push(b'{');
    count(out, "id", t.id);
    field(out, "price", i128::from(t.price));
    field(out, "qty", i128::from(t.size));
    field(out, "quoteQty", t.value());
    count(out, "time", t.time);
    key(out, "isBuyerMaker");
    out.extend_from_slice(truth(t.buyer_maker));
    out.extend_from_slice(b",\"isBestMatch\":true}");
}

pub(super) fn depth(book: &Book) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + 40 * (book.bids.len() + book.asks.len()));
    out.push(b'{');
    count(&mut out, "lastUpdateId", book.update);
    for (name, side) in [("bids", &book.bids), ("asks", &book.asks)] {
        key(&mut out, name);
        levels(&mut out, side);
    }
    out.push(b'}');
    out
}

fn levels(out: &mut Vec<u8>, side: &[Level]) {
    out.push(b'[');
    for (i, (price, size)) in side.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.push(b'[');
        quoted(out, i128::from(*price));
        out.push(b',');
        quoted(out, i128::from(*size));
        out.push(b']');
    }
    out.push(b']');
}

/// `ticker/bookTicker` of one symbol.
pub(super) fn book_ticker(out: &mut Vec<u8>, symbol: &str, book: &Book) {
    let (bid, bid_size) = book.bids.first().copied().unwrap_or_default();
    let (ask, ask_size) = book.asks.first().copied().unwrap_or_default();
    out.push(b'{');
    text(out, "symbol", symbol);
    field(out, "bidPrice", i128::from(bid));
    field(out, "bidQty", i128::from(bid_size));
    field(out, "askPrice", i128::from(ask));
    field(out, "askQty", i128::from(ask_size));
    out.push(b'}');
}

pub(super) fn price_ticker(out: &mut Vec<u8>, symbol: &str, price: i64) {
    out.push(b'{');
    text(out, "symbol", symbol);
    field(out, "price", i128::from(price));
    out.push(b'}');
}

/// What a 24-hour ticker is made of.
#[derive(Debug)]
pub(super) struct Day<'a> {
    pub(super) symbol: &'a str,
    pub(super) candle: Candle,
    pub(super) before: i64,
    pub(super) last: Trade,
    pub(super) book: Book,
}

impl<'a> Day<'a> {
    /// A day without a trade: all zeros but the price before it, as the venue has it of symbols that
    /// were taken off the market.
    pub(super) fn quiet(symbol: &'a str, now: i64, before: i64, book: Option<Book>) -> Self {
        let candle = Candle {
            open_time: now - DAY,
            close_time: now,
            open: 0,
            high: 0,
            low: 0,
            close: 0,
            volume: 0,
            quote: 0,
            taker_base: 0,
            taker_quote: 0,
            trades: 0,
            first_trade: -1,
            last_trade: -1,
        };
        let last = Trade { id: -1, time: now, price: 0, size: 0, buyer_maker: false };
        Self { symbol, candle, before, last, book: book.unwrap_or_default() }
    }

    fn mean(&self) -> i128 {
        if self.candle.volume == 0 {
            0
        } else {
            self.candle.quote * i128::from(E8) / self.candle.volume
        }
    }

    /// The change in percent with three decimals.
    fn percent(&self, out: &mut Vec<u8>) {
        let change = i128::from(self.candle.close - self.candle.open);
        let milli = change * 100_000 / i128::from(self.candle.open.max(1));
        let sign = if milli < 0 { "-" } else { "" };
        let milli = milli.unsigned_abs();
        print(out, format_args!("\"{sign}{}.{:03}\"", milli / 1_000, milli % 1_000));
    }

    /// `ticker/24hr` with `type=FULL`.
    pub(super) fn full(&self, out: &mut Vec<u8>) {
        let c = &self.candle;
        let (bid, bid_size) = self.book.bids.first().copied().unwrap_or_default();
        let (ask, ask_size) = self.book.asks.first().copied().unwrap_or_default();
        out.push(b'{');
        text(out, "symbol", self.symbol);
        field(out, "priceChange", i128::from(c.close - c.open));
        key(out, "priceChangePercent");
        self.percent(out);
        field(out, "weightedAvgPrice", self.mean());
        field(out, "prevClosePrice", i128::from(self.before));
        field(out, "lastPrice", i128::from(c.close));
        field(out, "lastQty", i128::from(self.last.size));
        field(out, "bidPrice", i128::from(bid));
        field(out, "bidQty", i128::from(bid_size));
        field(out, "askPrice", i128::from(ask));
        field(out, "askQty", i128::from(ask_size));
        self.extremes(out);
        self.sums(out);
    }

    /// `ticker/24hr` with `type=MINI`.
    pub(super) fn mini(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        text(out, "symbol", self.symbol);
        self.extremes(out);
        field(out, "lastPrice", i128::from(self.candle.close));
        self.sums(out);
    }

    fn extremes(&self, out: &mut Vec<u8>) {
        let c = &self.candle;
        field(out, "openPrice", i128::from(c.open));
        field(out, "highPrice", i128::from(c.high));
        field(out, "lowPrice", i128::from(c.low));
    }

    fn sums(&self, out: &mut Vec<u8>) {
        let c = &self.candle;
        field(out, "volume", c.volume);
        field(out, "quoteVolume", c.quote);
        count(out, "openTime", c.open_time);
        count(out, "closeTime", c.close_time);
        count(out, "firstId", c.first_trade);
        count(out, "lastId", c.last_trade);
        count(out, "count", c.trades);
        out.push(b'}');
    }

    /// The `24hrTicker` event.
    pub(super) fn ticker_event(&self, at: i64) -> Vec<u8> {
        let c = &self.candle;
        let (bid, bid_size) = self.book.bids.first().copied().unwrap_or_default();
        let (ask, ask_size) = self.book.asks.first().copied().unwrap_or_default();
        let mut out = event("24hrTicker", at, self.symbol);
        field(&mut out, "p", i128::from(c.close - c.open));
        key(&mut out, "P");
        self.percent(&mut out);
        field(&mut out, "w", self.mean());
        field(&mut out, "x", i128::from(self.before));
        field(&mut out, "c", i128::from(c.close));
        field(&mut out, "Q", i128::from(self.last.size));
        field(&mut out, "b", i128::from(bid));
        field(&mut out, "B", i128::from(bid_size));
        field(&mut out, "a", i128::from(ask));
        field(&mut out, "A", i128::from(ask_size));
        for (name, v) in [("o", c.open), ("h", c.high), ("l", c.low)] {
            field(&mut out, name, i128::from(v));
        }
        field(&mut out, "v", c.volume);
        field(&mut out, "q", c.quote);
        for (name, v) in [
            ("O", c.open_time),
            ("C", c.close_time),
            ("F", c.first_trade),
            ("L", c.last_trade),
            ("n", c.trades),
        ] {
            count(&mut out, name, v);
        }
        out.push(b'}');
        out
    }

    /// The `24hrMiniTicker` event.
    pub(super) fn mini_event(&self, at: i64) -> Vec<u8> {
        let c = &self.candle;
        let mut out = event("24hrMiniTicker", at, self.symbol);
        for (name, v) in [("c", c.close), ("o", c.open), ("h", c.high), ("l", c.low)] {
            field(&mut out, name, i128::from(v));
        }
        field(&mut out, "v", c.volume);
        field(&mut out, "q", c.quote);
        out.push(b'}');
        out
    }
}

/// The start of a stream event.
fn event(kind: &str, at: i64, symbol: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(400);
    out.push(b'{');
    text(&mut out, "e", kind);
    count(&mut out, "E", at);
    text(&mut out, "s", symbol);
    out
}

/// The `kline` event.
pub(super) fn kline_event(
    at: i64,
    symbol: &str,
    interval: &str,
    c: &Candle,
    closed: bool,
) -> Vec<u8> {
    let mut out = event("kline", at, symbol);
    out.extend_from_slice(b",\"k\":{");
    count(&mut out, "t", c.open_time);
    count(&mut out, "T", c.close_time);
    text(&mut out, "s", symbol);
    text(&mut out, "i", interval);
    count(&mut out, "f", c.first_trade);
    count(&mut out, "L", c.last_trade);
    for (name, v) in [("o", c.open), ("c", c.close), ("h", c.high), ("l", c.low)] {
        field(&mut out, name, i128::from(v));
    }
    field(&mut out, "v", c.volume);
    count(&mut out, "n", c.trades);
    key(&mut out, "x");
    out.extend_from_slice(truth(closed));
    field(&mut out, "q", c.quote);
    field(&mut out, "V", c.taker_base);
    field(&mut out, "Q", c.taker_quote);
    out.extend_from_slice(b",\"B\":\"0\"}}");
    out
}

/// The `aggTrade` event.
pub(super) fn agg_trade_event(symbol: &str, t: &Trade) -> Vec<u8> {
    let mut out = event("aggTrade", t.time, symbol);
    agg_fields(&mut out, t);
    out.push(b'}');
    out
}

/// The `trade` event.
pub(super) fn trade_event(symbol: &str, t: &Trade) -> Vec<u8> {
    let mut out = event("trade", t.time, symbol);
    count(&mut out, "t", t.id);
    field(&mut out, "p", i128::from(t.price));
    field(&mut out, "q", i128::from(t.size));
    count(&mut out, "T", t.time);
    key(&mut out, "m");
    out.extend_from_slice(truth(t.buyer_maker));
    out.extend_from_slice(b",\"M\":true}");
    out
}

/// The `bookTicker` message: no event name and no time.
pub(super) fn book_ticker_event(symbol: &str, book: &Book) -> Vec<u8> {
    let (bid, bid_size) = book.bids.first().copied().unwrap_or_default();
    let (ask, ask_size) = book.asks.first().copied().unwrap_or_default();
    let mut out = Vec::with_capacity(180);
    out.push(b'{');
    count(&mut out, "u", book.update);
    text(&mut out, "s", symbol);
    field(&mut out, "b", i128::from(bid));
    field(&mut out, "B", i128::from(bid_size));
    field(&mut out, "a", i128::from(ask));
    field(&mut out, "A", i128::from(ask_size));
    out.push(b'}');
    out
}

/// `exchangeInfo`; `symbols` with the status that each has now.
pub(super) fn exchange_info(now: i64, limits: &Limits, symbols: &[(&SymbolSpec, &str)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + 1_400 * symbols.len());
    print(
        &mut out,
        format_args!(
            concat!(
                r#"{{"timezone":"UTC","serverTime":{},"rateLimits":["#,
                r#"{{"rateLimitType":"REQUEST_WEIGHT","interval":"MINUTE","intervalNum":1,"limit":{}}},"#,
                r#"{{"rateLimitType":"ORDERS","interval":"SECOND","intervalNum":10,"limit":100}},"#,
                r#"{{"rateLimitType":"ORDERS","interval":"DAY","intervalNum":1,"limit":200000}},"#,
                r#"{{"rateLimitType":"RAW_REQUESTS","interval":"MINUTE","intervalNum":5,"limit":61000}}],"#,
                r#""exchangeFilters":[],"symbols":["#
            ),
            now, limits.weight_per_minute
        ),
    );
    for (i, (spec, status)) in symbols.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        symbol_info(&mut out, spec, status);
    }
    out.extend_from_slice(b"]}");
    out
}

fn symbol_info(out: &mut Vec<u8>, spec: &SymbolSpec, status: &str) {
    out.push(b'{');
    text(out, "symbol", &spec.name);
    text(out, "status", status);
    text(out, "baseAsset", &spec.base);
    count(out, "baseAssetPrecision", 8);
    text(out, "quoteAsset", &spec.quote);
    out.extend_from_slice(
        concat!(
            r#","quotePrecision":8,"quoteAssetPrecision":8,"baseCommissionPrecision":8,"#,
            r#""quoteCommissionPrecision":8,"orderTypes":["LIMIT","LIMIT_MAKER","MARKET","#,
            r#""STOP_LOSS","STOP_LOSS_LIMIT","TAKE_PROFIT","TAKE_PROFIT_LIMIT"],"#,
            r#""icebergAllowed":true,"ocoAllowed":true,"otoAllowed":true,"#,
            r#""quoteOrderQtyMarketAllowed":true,"allowTrailingStop":true,"#,
            r#""cancelReplaceAllowed":true,"amendAllowed":true,"isSpotTradingAllowed":true,"#,
            r#""isMarginTradingAllowed":true,"filters":[{"filterType":"PRICE_FILTER""#
        )
        .as_bytes(),
    );
    let tick = i128::from(spec.tick);
    field(out, "minPrice", tick);
    field(out, "maxPrice", tick * 100_000_000);
    field(out, "tickSize", tick);
    out.extend_from_slice(br#"},{"filterType":"LOT_SIZE""#);
    let step = i128::from(spec.step);
    field(out, "minQty", step);
    field(out, "maxQty", 900_000_000_000_000);
    field(out, "stepSize", step);
    out.extend_from_slice(
        concat!(
            r#"},{"filterType":"ICEBERG_PARTS","limit":10},"#,
            r#"{"filterType":"NOTIONAL","minNotional":"5.00000000","applyMinToMarket":true,"#,
            r#""maxNotional":"9000000.00000000","applyMaxToMarket":false,"avgPriceMins":5},"#,
            r#"{"filterType":"MAX_NUM_ORDERS","maxNumOrders":200},"#,
            r#"{"filterType":"MAX_NUM_ALGO_ORDERS","maxNumAlgoOrders":5}],"permissions":[],"#,
            r#""permissionSets":[["SPOT","MARGIN"]],"#,
            r#""defaultSelfTradePreventionMode":"EXPIRE_MAKER","#,
            r#""allowedSelfTradePreventionModes":["EXPIRE_TAKER","EXPIRE_MAKER","EXPIRE_BOTH"]}"#
        )
        .as_bytes(),
    );
}

/// `{"code":…,"msg":…}`.
pub(super) fn error(code: i32, message: &str) -> Vec<u8> {
    let message = serde_json::Value::from(message);
    format!(r#"{{"code":{code},"msg":{message}}}"#).into_bytes()
}

/// Formats into a buffer that cannot fail.
pub(super) fn print(out: &mut Vec<u8>, args: std::fmt::Arguments<'_>) {
    out.write_fmt(args).expect("writing into memory does not fail");
}
