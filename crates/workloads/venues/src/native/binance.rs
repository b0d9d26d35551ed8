//! Binance spot on the wire, as far as a scan needs it: what is asked, and how its answers are read.
//! Candles are read by the reader that the market's own client has.

use watchbell_core::{Millis, Time};

use super::error::{Reason, Refusal};
use super::json::{Node, PayloadError, Read};
use super::table::{Order, RawBar, Side, closed, levels};
use super::venue::Binance;
use super::wire::{Markets, Request, Tickers, Walk, Wire};
use super::{Bar, Interval, Level, Listing, NativeBook, OrderBook, Ticker};
use crate::binance::wire::{ErrorBody, Interval as Length, cut};
use crate::binance::{Asked, Class, Verdict, judge, parse_klines};

/// Most bars of a page.
const PAGE: usize = 1_000;

pub(super) const WIRE: Wire = Wire {
    refusal,
    listings: || Request::new("/api/v3/exchangeInfo").weighing(20),
    read_listings: |body| listings(body).map(Markets::from),
    tickers: Some(Tickers {
        request: || Request::new("/api/v3/ticker/24hr").weighing(80),
        read: tickers,
    }),
    bars: |symbol, interval, page| {
        let request = Request::new("/api/v3/klines")
            .with("symbol", symbol)
            .with("interval", &length(interval))
            .with("limit", &page.rows_with_open(PAGE))
            .weighing(2);
        match page.before {
            Some(before) => request.with("endTime", &(before.0 - 1)),
            None => request,
        }
    },
    read_bars: |body, _, interval, venue_now| bars(body, interval, venue_now),
    book: |symbol| {
        let request = Request::new("/api/v3/depth").with("symbol", symbol);
        request.with("limit", &1_000).weighing(50)
    },
    read_book: |body, symbol, asked_at| book(body, symbol, asked_at).map(NativeBook::Binance),
    walk: Walk::ByRows,
    page: PAGE,
    rate_pause: Millis::from_secs(60),
};

const fn length(interval: Interval) -> Length {
    match interval {
        Interval::Hour => Length::H1,
        Interval::Day => Length::D1,
    }
}

/// Reads `exchangeInfo`.
///
/// # Errors
/// What is wrong, and where.
pub fn listings(body: &[u8]) -> Result<Vec<Listing>, PayloadError> {
    Node::parse(body)?.object()?.get("symbols", |n| {
        n.each(|_, n| {
            let market = n.object()?;
            let symbol = market.get("symbol", Node::string)?;
            let status = market.get("status", Node::string)?;
            let spot = market.get_if("isSpotTradingAllowed", Node::flag)?.unwrap_or(false);
            Ok(Listing {
                name: symbol.clone(),
                symbol,
                base: market.get("baseAsset", Node::string)?,
                quote: market.get("quoteAsset", Node::string)?,
                online: status == "TRADING" && spot,
                status,
                class: "currency".into(),
            })
        })
    })
}

/// Reads `ticker/24hr` of all markets.
///
/// # Errors
/// What is wrong, and where.
pub fn tickers(body: &[u8]) -> Result<Vec<Ticker>, PayloadError> {
    Node::parse(body)?.each(|_, n| {
        let ticker = n.object()?;
        let vwap = ticker.get("weightedAvgPrice", Node::amount)?;
        Ok(Ticker {
            symbol: ticker.get("symbol", Node::string)?,
            last: ticker.get("lastPrice", Node::amount)?,
            vwap_24h: (vwap > 0.0).then_some(vwap),
            volume_24h: ticker.get("volume", Node::amount)?,
        })
    })
}

/// Reads `klines`: the closed bars, oldest first. The newest may still be open, which only `venue_now`
/// tells.
///
/// # Errors
/// What is wrong, and where.
pub fn bars(body: &[u8], interval: Interval, venue_now: Time) -> Result<Vec<Bar>, PayloadError> {
    Node::parse(body)?;
    let asked = Asked { interval: length(interval), start: None, end: None, limit: PAGE };
    let rows = parse_klines(body, &asked).map_err(PayloadError::new)?.into_iter().map(|k| RawBar {
        bar: Bar {
            open_time: k.open_time,
            open: k.open,
            high: k.high,
            low: k.low,
            close: k.close,
            volume: k.volume,
            quote_volume: k.quote_volume,
        },
        confirmed: true,
    });
    closed(rows.collect(), Order::OldestFirst, interval, venue_now)
}

/// Reads `depth`. It tells no time of its own, so the book was taken when it was asked.
///
/// # Errors
/// What is wrong, and where.
pub fn book(body: &[u8], symbol: &str, asked_at: Time) -> Result<OrderBook<Binance>, PayloadError> {
    let book = Node::parse(body)?.object()?;
    book.get("lastUpdateId", Node::integer)?;
    let bids = book.get("bids", |n| side(n, Side::Bids))?;
    let asks = book.get("asks", |n| side(n, Side::Asks))?;
    Ok(OrderBook::new(symbol.to_owned(), bids, asks, asked_at))
}

/// Levels are `[price, size]`.
fn side(node: Node<'_>, side: Side) -> Read<Vec<Level>> {
    levels(node, side, 2, f64::INFINITY)
}

fn refusal(status: u16, body: &[u8]) -> Option<Refusal> {
    let said: Option<ErrorBody> = serde_json::from_slice(body).ok();
    if status == 200 && said.is_none() {
        return None;
    }
    let reason = match judge(status, said.as_ref()) {
        Verdict::Banned => Reason::Banned,
        Verdict::TooMany => Reason::Rate { until: None },
        Verdict::Other(_) if said.as_ref().is_some_and(|s| s.code == -1121) => Reason::NotListed,
        Verdict::Other(Class::Transient | Class::Rate { .. }) => Reason::Transient,
        Verdict::Other(Class::Permanent) => Reason::Permanent,
        Verdict::Other(Class::Blocked) => Reason::Blocked,
    };
    Some(match said {
        Some(said) => Refusal { reason, message: cut(&format!("{} {}", said.code, said.msg), 200) },
        None => Refusal::of_body(reason, body),
    })
}
