//! Coinbase Exchange on the wire: what is asked, and how its answers are read.
//!
//! Answers have no envelope, and errors are `{"message": …}` with a status of their own. Bars are rows
//! of JSON numbers in an order of columns that no other exchange has, without rows for spans in which
//! nothing was traded.

use watchbell_core::{Millis, Time};

use super::error::{Reason, Refusal, by_status};
use super::json::{Node, PayloadError, Read};
use super::table::{Order, RawBar, Side, closed, levels, seconds};
use super::venue::Coinbase;
use super::wire::{Markets, Request, Walk, Wire};
use super::{Bar, Interval, Level, Listing, NativeBook, OrderBook};
use crate::binance::wire::cut;

/// Most bars of a page; it refuses a span of more.
const PAGE: usize = 300;
/// Levels further from the best price than this share of it are left out: the whole book is sent, and
/// nobody asks for its far ends.
const REACH: f64 = 0.1;

pub(super) const WIRE: Wire = Wire {
    refusal,
    listings: || Request::new("/products"),
    read_listings: |body| listings(body).map(Markets::from),
    tickers: None,
    bars: |symbol, interval, page| {
        // Both ends are inclusive, and neither counts without the other.
        let end = page.end(interval) - interval.length();
        Request::new(format!("/products/{symbol}/candles"))
            .with("granularity", &(interval.length().0 / 1_000))
            .with("start", &page.start(interval))
            .with("end", &end)
    },
    read_bars: |body, _, interval, venue_now| bars(body, interval, venue_now),
    book: |symbol| Request::new(format!("/products/{symbol}/book")).with("level", &2),
    read_book: |body, symbol, asked_at| book(body, symbol, asked_at).map(NativeBook::Coinbase),
    walk: Walk::BySpans,
    page: PAGE,
    rate_pause: Millis::from_secs(1),
};

/// Reads `products`.
///
/// # Errors
/// What is wrong, and where.
pub fn listings(body: &[u8]) -> Result<Vec<Listing>, PayloadError> {
    Node::parse(body)?.each(|_, n| {
        let product = n.object()?;
        let flag = |name: &str| product.get_if(name, Node::flag).map(Option::unwrap_or_default);
        let symbol = product.get("id", Node::string)?;
        let status = product.get("status", Node::string)?;
        let restricted = [
            ("trading_disabled", flag("trading_disabled")?),
            ("cancel_only", flag("cancel_only")?),
            ("post_only", flag("post_only")?),
        ];
        // A product that is online may still be closed to trades; the narrowest word counts.
        let restriction = restricted.into_iter().find(|(_, set)| *set).map(|(name, _)| name);
        let status = match restriction {
            Some(word) if status == "online" => word.to_owned(),
            _ => status,
        };
        Ok(Listing {
            name: symbol.clone(),
            symbol,
            base: product.get("base_currency", Node::string)?,
            quote: product.get("quote_currency", Node::string)?,
            online: status == "online",
            status,
            class: "currency".into(),
        })
    })
}

/// Reads `candles`: the closed bars, oldest first. It sends the newest first, and of a bar it does not
/// tell whether it is closed, so its end must not be after `venue_now`.
///
/// # Errors
/// What is wrong, and where.
pub fn bars(body: &[u8], interval: Interval, venue_now: Time) -> Result<Vec<Bar>, PayloadError> {
    let rows = Node::parse(body)?.each(|_, n| {
        let row = n.row(6)?;
        let close = row.get(4, "close", Node::price_number)?;
        let volume = row.get(5, "volume", Node::amount_number)?;
        let bar = Bar {
            open_time: row.get(0, "time", |n| seconds(n.integer()?))?,
            low: row.get(1, "low", Node::price_number)?,
            high: row.get(2, "high", Node::price_number)?,
            open: row.get(3, "open", Node::price_number)?,
            close,
            volume,
            quote_volume: volume * close,
        };
        Ok(RawBar { bar, confirmed: true })
    })?;
    closed(rows, Order::NewestFirst, interval, venue_now)
}

/// Reads `book` of level 2, up to a tenth of the best price away from it. Where the answer has no time
/// of its own, the book was taken when it was asked.
///
/// # Errors
/// What is wrong, and where.
pub fn book(
    body: &[u8],
    symbol: &str,
    asked_at: Time,
) -> Result<OrderBook<Coinbase>, PayloadError> {
    let book = Node::parse(body)?.object()?;
    let bids = book.get("bids", |n| side(n, Side::Bids))?;
    let asks = book.get("asks", |n| side(n, Side::Asks))?;
    let taken_at = book.get_if("time", |n| {
        let text = n.text()?;
        let time = text.parse::<jiff::Timestamp>().map(|t| Time(t.as_millisecond()));
        time.map_err(|_| PayloadError::new(format!("`{}` is not a time", cut(&text, 40))))
    })?;
    Ok(OrderBook::new(symbol.to_owned(), bids, asks, taken_at.unwrap_or(asked_at)))
}

/// Levels are `[price, size, number of orders]`.
fn side(node: Node<'_>, side: Side) -> Read<Vec<Level>> {
    levels(node, side, 3, REACH)
}

fn refusal(status: u16, body: &[u8]) -> Option<Refusal> {
    let node = Node::parse(body);
    let said = node.and_then(Node::object).and_then(|o| {
        // An answer to what was asked may have a message too, but never nothing else.
        if status == 200 && (o.find("bids").is_some() || o.find("id").is_some()) {
            return Ok(None);
        }
        o.get_if("message", Node::string)
    });
    let message = said.ok().flatten();
    let reason = match (status, &message) {
        (200, None) => return None,
        // An error in a good answer's clothes: nothing says that it stays.
        (200, Some(_)) => Reason::Transient,
        (404, _) => Reason::NotListed,
        // It answers so to requests without a key when there are too many of them.
        (401, _) => Reason::Transient,
        (status, _) => by_status(status)?,
    };
    Some(match message {
        Some(message) => Refusal { reason, message: cut(&message, 200) },
        None => Refusal::of_body(reason, body),
    })
}
