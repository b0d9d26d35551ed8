//! Kraken spot on the wire: what is asked, and how its answers are read.
//!
//! Every answer has status 200 and the envelope `{"error": [], "result": …}`. Within `result` a market
//! goes by its canonical name (`XXBTZUSD`), whatever it was called in the request (`XBTUSD`).

use std::collections::BTreeMap;

use watchbell_core::{Millis, Time};

use super::error::{Reason, Refusal, by_status};
use super::json::{Node, PayloadError, Read};
use super::table::{Order, RawBar, Side, closed, levels, seconds};
use super::venue::Kraken;
use super::wire::{Markets, Request, Tickers, Walk, Wire};
use super::{Bar, Interval, Level, Listing, NativeBook, OrderBook, Ticker};
use crate::binance::wire::cut;

pub(super) const WIRE: Wire = Wire {
    refusal,
    listings: || Request::new("/0/public/AssetPairs"),
    read_listings: markets,
    tickers: Some(Tickers { request: || Request::new("/0/public/Ticker"), read: tickers }),
    bars: |symbol, interval, _| {
        let minutes = interval.length().0 / Millis::from_mins(1).0;
        Request::new("/0/public/OHLC").with("pair", symbol).with("interval", &minutes)
    },
    read_bars: bars,
    book: |symbol| Request::new("/0/public/Depth").with("pair", symbol).with("count", &500),
    read_book: |body, symbol, asked_at| book(body, symbol, asked_at).map(NativeBook::Kraken),
    // The newest 720 and no others, whatever is asked.
    walk: Walk::Once,
    page: 720,
    // It tells neither how long to wait nor how much is left (venues, section 6.3).
    rate_pause: Millis::from_secs(5),
};

/// Reads `AssetPairs`.
///
/// # Errors
/// What is wrong, and where.
pub fn listings(body: &[u8]) -> Result<Vec<Listing>, PayloadError> {
    markets(body).map(|markets| markets.listings)
}

fn markets(body: &[u8]) -> Read<Markets> {
    let mut aliases = BTreeMap::new();
    let listings = result(body, |pairs| {
        pairs.object()?.each(|key, pair| {
            let pair = pair.object()?;
            let name = pair.get("altname", Node::string)?;
            let (base, quote) = match pair.get_if("wsname", Node::text)? {
                Some(ws) => match ws.split_once('/') {
                    Some((base, quote)) => (usual(base), usual(quote)),
                    None => {
                        let problem = format!("`{}` is not BASE/QUOTE", cut(&ws, 40));
                        return Err(PayloadError::new(problem).within("wsname"));
                    }
                },
                // Dark pools have none.
                None => (
                    usual(without_prefix(&pair.get("base", Node::text)?)),
                    usual(without_prefix(&pair.get("quote", Node::text)?)),
                ),
            };
            // Recordings of 2021 have no status yet: what is not said to trade does not.
            let status = pair.get_if("status", Node::string)?.unwrap_or_else(|| "unknown".into());
            aliases.insert(key.to_owned(), name.clone());
            Ok(Listing {
                symbol: name.clone(),
                name,
                base,
                quote,
                online: status == "online",
                status,
                class: pair.get("aclass_base", Node::string)?,
            })
        })
    })?;
    Ok(Markets { listings, aliases })
}

/// Reads `Ticker`, of one market or of all. The symbols are the canonical names of the answer.
///
/// # Errors
/// What is wrong, and where.
pub fn tickers(body: &[u8]) -> Result<Vec<Ticker>, PayloadError> {
    result(body, |pairs| {
        pairs.object()?.each(|key, ticker| {
            let ticker = ticker.object()?;
            let last = ticker.get("c", |n| n.row(2)?.get(0, "price", Node::amount))?;
            let volume_24h = ticker.get("v", |n| n.row(2)?.get(1, "24h", Node::amount))?;
            let vwap = ticker.get("p", |n| n.row(2)?.get(1, "24h", Node::amount))?;
            // Without a trade there is no mean.
            let vwap_24h = (vwap > 0.0).then_some(vwap);
            Ok(Ticker { symbol: key.to_owned(), last, vwap_24h, volume_24h })
        })
    })
}

/// Reads `OHLC`: the closed bars, oldest first. The last row is always the bar in the making; `last` is
/// the start of the newest closed one.
///
/// # Errors
/// What is wrong, and where.
pub fn bars(
    body: &[u8],
    symbol: &str,
    interval: Interval,
    venue_now: Time,
) -> Result<Vec<Bar>, PayloadError> {
    result(body, |result| {
        let result = result.object()?;
        let last = result.get("last", |n| seconds(n.integer()?))?;
        let key = only_market(result.names().filter(|name| *name != "last"), symbol)?;
        result.get(&key, |rows| {
            let mut rows = rows.each(|_, row| {
                let row = row.row(8)?;
                let open_time = row.get(0, "time", |n| seconds(n.integer()?))?;
                let close = row.get(4, "close", Node::price)?;
                let vwap = row.get(5, "vwap", Node::amount)?;
                let volume = row.get(6, "volume", Node::amount)?;
                row.get(7, "count", Node::integer)?;
                let bar = Bar {
                    open_time,
                    open: row.get(1, "open", Node::price)?,
                    high: row.get(2, "high", Node::price)?,
                    low: row.get(3, "low", Node::price)?,
                    close,
                    volume,
                    quote_volume: volume * if vwap > 0.0 { vwap } else { close },
                };
                Ok(RawBar { bar, confirmed: open_time <= last })
            })?;
            if let Some(row) = rows.last_mut() {
                row.confirmed = false;
            }
            closed(rows, Order::OldestFirst, interval, venue_now)
        })
    })
}

/// Reads `Depth`. It tells no time of its own, so the book was taken when it was asked.
///
/// # Errors
/// What is wrong, and where.
pub fn book(body: &[u8], symbol: &str, asked_at: Time) -> Result<OrderBook<Kraken>, PayloadError> {
    result(body, |result| {
        let result = result.object()?;
        let key = only_market(result.names(), symbol)?;
        result.get(&key, |book| {
            let book = book.object()?;
            let bids = book.get("bids", |n| side(n, Side::Bids))?;
            let asks = book.get("asks", |n| side(n, Side::Asks))?;
            Ok(OrderBook::new(symbol.to_owned(), bids, asks, asked_at))
        })
    })
}

/// Levels are `[price, size, time of its last change]`.
fn side(node: Node<'_>, side: Side) -> Read<Vec<Level>> {
    levels(node, side, 3, f64::INFINITY)
}

/// Opens the envelope. An error in it is one here too.
fn result<T>(body: &[u8], read: impl FnOnce(Node<'_>) -> Read<T>) -> Read<T> {
    let envelope = Node::parse(body)?.object()?;
    if let Some(error) = envelope.get("error", first_error)? {
        return Err(PayloadError::new(cut(&error, 120)).within("error"));
    }
    envelope.get("result", read)
}

/// The first entry that is an error; one that begins with `W` is a warning beside a valid result.
fn first_error(node: Node<'_>) -> Read<Option<String>> {
    let entries = node.each(|_, n| n.string())?;
    Ok(entries.into_iter().find(|entry| !entry.starts_with('W')))
}

/// The only market in an answer about `symbol`.
fn only_market<'a>(mut names: impl Iterator<Item = &'a str>, symbol: &str) -> Read<String> {
    match (names.next(), names.next()) {
        (Some(key), None) if is_called(key, symbol) => Ok(key.to_owned()),
        (Some(key), None) => {
            Err(PayloadError::new(format!("{} was asked", cut(symbol, 40))).within(key))
        }
        (None, _) => Err(PayloadError::new("there is no market in it")),
        (Some(_), Some(_)) => Err(PayloadError::new("there is more than one market in it")),
    }
}

/// Whether `key` is the canonical name of `symbol`: the same, but for an X or a Z before an old asset.
fn is_called(key: &str, symbol: &str) -> bool {
    let mut wanted = symbol.chars().filter(|c| *c != '/').peekable();
    for c in key.chars() {
        if wanted.peek() == Some(&c) {
            wanted.next();
        } else if !matches!(c, 'X' | 'Z') {
            return false;
        }
    }
    wanted.next().is_none()
}

/// An old asset without its class: `XXBT` is `XBT`, `ZUSD` is `USD`.
fn without_prefix(asset: &str) -> &str {
    match asset.strip_prefix(['X', 'Z']) {
        Some(rest) if rest.len() == 3 => rest,
        _ => asset,
    }
}

/// The name by which the rest of the world knows an asset.
fn usual(asset: &str) -> String {
    match asset {
        "XBT" => "BTC".into(),
        "XDG" => "DOGE".into(),
        other => other.to_owned(),
    }
}

fn refusal(status: u16, body: &[u8]) -> Option<Refusal> {
    let said = Node::parse(body)
        .and_then(Node::object)
        .and_then(|envelope| envelope.get("error", first_error))
        .ok()
        .flatten();
    let Some(error) = said else {
        return by_status(status).map(|reason| Refusal::of_body(reason, body));
    };
    let reason = match by_status(status) {
        Some(reason @ (Reason::Banned | Reason::Rate { .. } | Reason::Blocked)) => reason,
        _ => reason(&error),
    };
    Some(Refusal { reason, message: cut(&error, 200) })
}

/// What its words mean (venues, section 6.3): `<severity><category>:<text>[:detail]`.
fn reason(error: &str) -> Reason {
    const UNKNOWN: [&str; 2] = ["EQuery:Unknown asset pair", "EQuery:Unknown asset"];
    const RATE: [&str; 2] = ["EGeneral:Too many requests", "EAPI:Rate limit exceeded"];
    let begins = |with: &[&str]| with.iter().any(|w| error.starts_with(w));
    if let Some(until) = error.strip_prefix("EService:Throttled:") {
        let until = until.trim().parse().ok().and_then(|s| seconds(s).ok());
        return Reason::Rate { until };
    }
    if begins(&RATE) {
        Reason::Rate { until: None }
    } else if begins(&UNKNOWN) {
        Reason::NotListed
    } else if begins(&["EService:", "EGeneral:Internal error"]) {
        Reason::Transient
    } else {
        Reason::Permanent
    }
}
