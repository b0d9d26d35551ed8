//! The frames of the combined streams.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;
use watchbell_core::{Millis, Time};

use super::wire::{AggTrade, BookTicker, ErrorBody, Interval, Kline, amount, cut, price};

/// One subscription.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// The candle in the making, every second or two, and once more when it closes.
    Kline(String, Interval),
    /// Best bid and ask at each change.
    BookTicker(String),
    /// Every single trade.
    Trade(String),
    /// Trades of one taker order at one price as one.
    AggTrade(String),
}

impl fmt::Display for Stream {
    /// The venue's name, with the symbol in lower case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kline(s, interval) => write!(f, "{}@kline_{interval}", s.to_lowercase()),
            Self::BookTicker(s) => write!(f, "{}@bookTicker", s.to_lowercase()),
            Self::Trade(s) => write!(f, "{}@trade", s.to_lowercase()),
            Self::AggTrade(s) => write!(f, "{}@aggTrade", s.to_lowercase()),
        }
    }
}

/// A candle from a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamKline {
    /// The market, in upper case.
    pub symbol: String,
    /// The candle's length.
    pub interval: Interval,
    /// When the venue sent it, by its clock.
    pub event_time: Time,
    /// The candle so far.
    pub kline: Kline,
    /// Whether this is its last state.
    pub closed: bool,
}

/// A trade from a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamTrade {
    /// The market, in upper case.
    pub symbol: String,
    /// When the venue sent it, by its clock.
    pub event_time: Time,
    /// Number of the trade.
    pub id: i64,
    /// Price.
    pub price: f64,
    /// Amount in the base asset.
    pub qty: f64,
    /// When it was traded.
    pub time: Time,
    /// Whether the seller was the taker.
    pub buyer_is_maker: bool,
}

/// What a stream yields.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamEvent {
    /// A candle.
    Kline(StreamKline),
    /// Best bid and ask, with the number of the book's change.
    BookTicker(i64, BookTicker),
    /// A trade.
    Trade(StreamTrade),
    /// An aggregate trade of the market.
    AggTrade(String, AggTrade),
    /// The connection is new. Whatever happened in `silent_for` was not seen: fetch it by REST. A
    /// candle that closed in that time is never announced as closed again.
    Reconnected {
        /// Why the old connection ended.
        reason: String,
        /// Attempts until this one worked.
        attempts: u32,
        /// From the last frame of the old connection to the new one.
        silent_for: Millis,
    },
    /// A frame that cannot be used was skipped.
    Skipped {
        /// What is wrong with it.
        reason: String,
        /// How many were skipped since the start.
        total: u64,
    },
}

/// A frame of the venue, understood.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// Market data.
    Event(StreamEvent),
    /// A control message was accepted.
    Accepted,
    /// A control message was refused.
    Refused(ErrorBody),
    /// The venue is about to close the connection.
    Shutdown,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    stream: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    e: Option<Cow<'a, str>>,
    error: Option<ErrorBody>,
    code: Option<i64>,
    msg: Option<String>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct KlineData<'a> {
    #[serde(rename = "E")]
    event_time: Time,
    #[serde(rename = "s", borrow)]
    symbol: Cow<'a, str>,
    #[serde(borrow)]
    k: K<'a>,
}

#[derive(Deserialize)]
struct K<'a> {
    t: i64,
    #[serde(rename = "T")]
    close_time: i64,
    #[serde(borrow)]
    i: Cow<'a, str>,
    #[serde(deserialize_with = "price")]
    o: f64,
    #[serde(deserialize_with = "price")]
    c: f64,
    #[serde(deserialize_with = "price")]
    h: f64,
    #[serde(deserialize_with = "price")]
    l: f64,
    #[serde(deserialize_with = "amount")]
    v: f64,
    n: i64,
    x: bool,
    #[serde(deserialize_with = "amount")]
    q: f64,
    #[serde(rename = "V", deserialize_with = "amount")]
    taker_buy_base: f64,
    #[serde(rename = "Q", deserialize_with = "amount")]
    taker_buy_quote: f64,
}

#[derive(Deserialize)]
struct BookData {
    u: i64,
    s: String,
    #[serde(deserialize_with = "price")]
    b: f64,
    #[serde(rename = "B", deserialize_with = "amount")]
    bid_qty: f64,
    #[serde(deserialize_with = "price")]
    a: f64,
    #[serde(rename = "A", deserialize_with = "amount")]
    ask_qty: f64,
}

#[derive(Deserialize)]
struct TradeData {
    #[serde(rename = "E")]
    event_time: Time,
    s: String,
    t: i64,
    #[serde(deserialize_with = "price")]
    p: f64,
    #[serde(deserialize_with = "amount")]
    q: f64,
    #[serde(rename = "T")]
    time: Time,
    m: bool,
}

#[derive(Deserialize)]
struct AggData {
    s: String,
    #[serde(flatten)]
    trade: AggTrade,
}

/// Reads one text frame of a combined stream.
///
/// # Errors
/// A phrase that says what is wrong and how the frame begins.
pub fn parse_frame(text: &str) -> Result<Frame, String> {
    let wrong = |what: String| format!("{}; the frame begins `{}`", cut(&what, 160), cut(text, 80));
    let frame: Envelope<'_> = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
    if let (Some(stream), Some(data)) = (&frame.stream, frame.data) {
        return parse_data(stream, data.get()).map_err(wrong);
    }
    if frame.e.as_deref() == Some("serverShutdown") {
        return Ok(Frame::Shutdown);
    }
    if let Some(error) = frame.error {
        return Ok(Frame::Refused(error));
    }
    if let Some(code) = frame.code {
        return Ok(Frame::Refused(ErrorBody { code, msg: frame.msg.unwrap_or_default() }));
    }
    // A result of `null` is an acceptance; so the id alone marks it.
    if frame.id.is_some() || frame.result.is_some() {
        return Ok(Frame::Accepted);
    }
    Err(wrong("neither data nor an answer".into()))
}

fn parse_data(stream: &str, data: &str) -> Result<Frame, String> {
    fn read<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, String> {
        serde_json::from_str(data).map_err(|e| e.to_string())
    }
    let (market, kind) = stream.split_once('@').unwrap_or(("", stream));
    let same = |symbol: &str| {
        // The venue's names are ASCII but for a few; lower case is how the stream is named.
        if symbol.to_lowercase() == market {
            Ok(())
        } else {
            Err(format!("data of {symbol} on the stream {stream}"))
        }
    };
    let event = match kind {
        "!serverShutdown" | "serverShutdown" => return Ok(Frame::Shutdown),
        "bookTicker" => {
            let d: BookData = read(data)?;
            same(&d.s)?;
            let ticker = BookTicker {
                symbol: d.s,
                bid_price: d.b,
                bid_qty: d.bid_qty,
                ask_price: d.a,
                ask_qty: d.ask_qty,
            };
            StreamEvent::BookTicker(d.u, ticker)
        }
        "trade" => {
            let d: TradeData = read(data)?;
            same(&d.s)?;
            if !(d.p > 0.0 && d.q > 0.0) {
                return Err(format!("{} at {} is not a trade", d.q, d.p));
            }
            StreamEvent::Trade(StreamTrade {
                symbol: d.s,
                event_time: d.event_time,
                id: d.t,
                price: d.p,
                qty: d.q,
                time: d.time,
                buyer_is_maker: d.m,
            })
        }
        "aggTrade" => {
            let d: AggData = read(data)?;
            same(&d.s)?;
            if !(d.trade.price > 0.0 && d.trade.qty > 0.0) {
                return Err(format!("{} at {} is not a trade", d.trade.qty, d.trade.price));
            }
            StreamEvent::AggTrade(d.s, d.trade)
        }
        _ if kind.starts_with("kline_") => {
            let d: KlineData<'_> = read(data)?;
            same(&d.symbol)?;
            let interval: Interval = d.k.i.parse().map_err(|e| format!("{e}"))?;
            if kind["kline_".len()..] != *interval.as_str() {
                return Err(format!("a candle of {interval} on the stream {stream}"));
            }
            let kline = Kline {
                open_time: Time(d.k.t),
                open: d.k.o,
                high: d.k.h,
                low: d.k.l,
                close: d.k.c,
                volume: d.k.v,
                close_time: Time(d.k.close_time),
                quote_volume: d.k.q,
                trades: d.k.n,
                taker_buy_base: d.k.taker_buy_base,
                taker_buy_quote: d.k.taker_buy_quote,
            };
            kline.check(interval)?;
            StreamEvent::Kline(StreamKline {
                symbol: d.symbol.into_owned(),
                interval,
                event_time: d.event_time,
                kline,
                closed: d.k.x,
            })
        }
        _ => return Err(format!("nothing here reads the stream {stream}")),
    };
    Ok(Frame::Event(event))
}
