//! OKX spot on the wire: what is asked, and how its answers are read.
//!
//! Answers come in the envelope `{"code": "0", "msg": "", "data": [...]}`; another code is an error
//! whatever the status. All values are text, times in milliseconds.

use watchbell_core::{Millis, Time};

use super::error::{Reason, Refusal, by_status};
use super::json::{Node, PayloadError, Read};
use super::table::{Order, RawBar, Side, closed, levels, milliseconds};
use super::venue::Okx;
use super::wire::{Markets, Request, Tickers, Walk, Wire};
use super::{Bar, Interval, Level, Listing, NativeBook, OrderBook, Ticker};
use crate::binance::wire::cut;

/// Most bars of a page.
const PAGE: usize = 300;

pub(super) const WIRE: Wire = Wire {
    refusal,
    listings: || Request::new("/api/v5/public/instruments").with("instType", "SPOT"),
    read_listings: |body| listings(body).map(Markets::from),
    tickers: Some(Tickers {
        request: || Request::new("/api/v5/market/tickers").with("instType", "SPOT"),
        read: tickers,
    }),
    bars: |symbol, interval, page| {
        // `1D` would open at midnight of UTC+8.
        let bar = match interval {
            Interval::Hour => "1H",
            Interval::Day => "1Dutc",
        };
        let request = Request::new("/api/v5/market/candles")
            .with("instId", symbol)
            .with("bar", bar)
            .with("limit", &page.rows_with_open(PAGE));
        match page.before {
            Some(before) => request.with("after", &before.0),
            None => request,
        }
    },
    read_bars: |body, _, interval, venue_now| bars(body, interval, venue_now),
    book: |symbol| Request::new("/api/v5/market/books").with("instId", symbol).with("sz", &400),
    read_book: |body, symbol, asked_at| book(body, symbol, asked_at).map(NativeBook::Okx),
    walk: Walk::ByRows,
    page: PAGE,
    // Limits are by windows of two seconds, and it does not tell how much is left of one.
    rate_pause: Millis::from_secs(2),
};

/// Reads `public/instruments` of type SPOT.
///
/// # Errors
/// What is wrong, and where.
pub fn listings(body: &[u8]) -> Result<Vec<Listing>, PayloadError> {
    data(body, |_, n| {
        let instrument = n.object()?;
        instrument.get("instType", spot)?;
        let symbol = instrument.get("instId", Node::string)?;
        let status = instrument.get("state", Node::string)?;
        Ok(Listing {
            name: symbol.clone(),
            symbol,
            base: instrument.get("baseCcy", Node::string)?,
            quote: instrument.get("quoteCcy", Node::string)?,
            online: status == "live",
            status,
            class: "currency".into(),
        })
    })
}

/// Reads `market/tickers` of type SPOT. Markets that have never traded have no prices, and are left
/// out.
///
/// # Errors
/// What is wrong, and where.
pub fn tickers(body: &[u8]) -> Result<Vec<Ticker>, PayloadError> {
    let rows = data(body, |_, n| {
        let ticker = n.object()?;
        let amount = |name: &str| {
            ticker.get(name, |n| if n.text()?.is_empty() { Ok(None) } else { n.amount().map(Some) })
        };
        ticker.get("instType", spot)?;
        let symbol = ticker.get("instId", Node::string)?;
        let (last, base, quote) = (amount("last")?, amount("vol24h")?, amount("volCcy24h")?);
        let (Some(last), Some(base), Some(quote)) = (last, base, quote) else { return Ok(None) };
        // Of a spot market it tells the volume in both currencies.
        let vwap_24h = (base > 0.0 && quote > 0.0).then_some(quote / base);
        Ok(Some(Ticker { symbol, last, vwap_24h, volume_24h: base }))
    })?;
    Ok(rows.into_iter().flatten().collect())
}

/// Reads `market/candles`: the closed bars, oldest first. It sends the newest first, and says of each
/// whether it is closed.
///
/// # Errors
/// What is wrong, and where.
pub fn bars(body: &[u8], interval: Interval, venue_now: Time) -> Result<Vec<Bar>, PayloadError> {
    let rows = data(body, |_, n| {
        let row = n.row(9)?;
        let bar = Bar {
            open_time: row.get(0, "time", |n| n.integer_text().map(Time))?,
            open: row.get(1, "open", Node::price)?,
            high: row.get(2, "high", Node::price)?,
            low: row.get(3, "low", Node::price)?,
            close: row.get(4, "close", Node::price)?,
            volume: row.get(5, "volume", Node::amount)?,
            quote_volume: row.get(7, "quote volume", Node::amount)?,
        };
        let confirmed = row.get(8, "confirm", |n| match n.text()?.as_ref() {
            "1" => Ok(true),
            "0" => Ok(false),
            other => Err(PayloadError::new(format!("`{}` is neither 0 nor 1", cut(other, 20)))),
        })?;
        Ok(RawBar { bar, confirmed })
    })?;
    closed(rows, Order::NewestFirst, interval, venue_now).map_err(|e| e.within("data"))
}

/// Reads `market/books`. It tells when the book was taken; `asked_at` is not needed for it.
///
/// # Errors
/// What is wrong, and where.
pub fn book(body: &[u8], symbol: &str, _asked_at: Time) -> Result<OrderBook<Okx>, PayloadError> {
    let mut books = data(body, |_, n| {
        let book = n.object()?;
        let bids = book.get("bids", |n| side(n, Side::Bids))?;
        let asks = book.get("asks", |n| side(n, Side::Asks))?;
        let taken_at = book.get("ts", |n| milliseconds(n.integer_text()?))?;
        Ok(OrderBook::new(symbol.to_owned(), bids, asks, taken_at))
    })?;
    match (books.pop(), books.is_empty()) {
        (Some(book), true) => Ok(book),
        (None, _) => Err(PayloadError::new("there is no book in it").within("data")),
        (Some(_), false) => {
            Err(PayloadError::new("there is more than one book in it").within("data"))
        }
    }
}

/// Of other kinds of markets, volumes count contracts.
fn spot(node: Node<'_>) -> Read<()> {
    match node.text()?.as_ref() {
        "SPOT" => Ok(()),
        other => Err(PayloadError::new(format!("`{}` where SPOT was asked", cut(other, 20)))),
    }
}

/// Levels are `[price, size, "0", number of orders]`.
fn side(node: Node<'_>, side: Side) -> Read<Vec<Level>> {
    levels(node, side, 4, f64::INFINITY)
}

/// Opens the envelope and reads its rows. An error in it is one here too.
fn data<T>(body: &[u8], read: impl FnMut(usize, Node<'_>) -> Read<T>) -> Read<Vec<T>> {
    let envelope = Node::parse(body)?.object()?;
    envelope.get("code", |n| match n.text()?.as_ref() {
        "0" => Ok(()),
        code => {
            let message = envelope.get_if("msg", Node::text)?.unwrap_or_default();
            Err(PayloadError::new(format!("error {}: {}", cut(code, 20), cut(&message, 120))))
        }
    })?;
    envelope.get("data", |n| n.each(read))
}

fn refusal(status: u16, body: &[u8]) -> Option<Refusal> {
    let said = Node::parse(body).and_then(Node::object).and_then(|envelope| {
        let code = envelope.get("code", Node::string)?;
        let message = envelope.get_if("msg", Node::string)?.unwrap_or_default();
        Ok((code, message))
    });
    let of_status = by_status(status);
    let Ok((code, message)) = said else {
        return of_status.map(|reason| Refusal::of_body(reason, body));
    };
    // The text of a code varies, and its status too (venues, section 7.3).
    let reason = match code.as_str() {
        "0" => of_status?,
        "50011" => Reason::Rate { until: None },
        "50001" | "50004" | "50013" | "50026" => Reason::Transient,
        "51001" => Reason::NotListed,
        _ => of_status.unwrap_or(Reason::Permanent),
    };
    Some(Refusal { reason, message: cut(&format!("{code} {message}"), 200) })
}
