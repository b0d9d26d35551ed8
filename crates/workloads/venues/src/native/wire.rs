//! What the modules of the exchanges have in common: the shape of a request and of what reads its
//! answer.

use std::collections::BTreeMap;

use watchbell_core::{Millis, Time};

use super::coinbase;
use super::error::{Reason, Refusal};
use super::json::Read;
use super::venue::Venue;
use super::{Bar, Interval, Listing, NativeBook, Ticker, binance, kraken, okx};
use crate::binance::wire::cut;

/// One request: a GET of a path with parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, String)>,
    /// What it costs where requests are weighed.
    pub(super) weight: i64,
}

impl Request {
    pub(super) fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), query: Vec::new(), weight: 1 }
    }
    pub(super) fn with(mut self, key: &'static str, value: &(impl ToString + ?Sized)) -> Self {
        self.query.push((key, value.to_string()));
        self
    }
    pub(super) const fn weighing(mut self, weight: i64) -> Self {
        self.weight = weight;
        self
    }
}

/// How bars older than a page are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    /// Not at all.
    Once,
    /// The next page ends before the oldest bar of this one; an empty page is the end.
    ByRows,
    /// The next page is the span before this one; an empty one is only a span without trades.
    BySpans,
}

/// Which bars a page is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BarPage {
    /// Bars that start before; `None` for the newest there are.
    pub(super) before: Option<Time>,
    /// How many, the one in the making not counted.
    pub(super) rows: usize,
    /// When it is asked, by our clock.
    pub(super) now: Time,
}

impl BarPage {
    /// The end of the span, exclusive: the start of the bar in the making for the newest page.
    pub(super) fn end(&self, interval: Interval) -> Time {
        self.before.unwrap_or_else(|| self.now.floor(interval.length()))
    }
    /// The start of the span, inclusive.
    pub(super) fn start(&self, interval: Interval) -> Time {
        self.end(interval) - Millis(interval.length().0 * self.rows as i64)
    }
    /// Rows to ask for where the newest page also has the bar in the making.
    pub(super) fn rows_with_open(&self, most: usize) -> usize {
        most.min(self.rows + usize::from(self.before.is_none()))
    }
}

/// What an exchange lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Markets {
    pub(super) listings: Vec<Listing>,
    /// Symbols by the names that tickers use, where those are others.
    pub(super) aliases: BTreeMap<String, String>,
}

impl From<Vec<Listing>> for Markets {
    fn from(listings: Vec<Listing>) -> Self {
        Self { listings, aliases: BTreeMap::new() }
    }
}

/// How tickers are asked and read.
#[derive(Clone, Copy)]
pub(super) struct Tickers {
    pub(super) request: fn() -> Request,
    pub(super) read: fn(&[u8]) -> Read<Vec<Ticker>>,
}

type ReadBars = fn(&[u8], &str, Interval, Time) -> Read<Vec<Bar>>;

/// An exchange on the wire.
pub(super) struct Wire {
    /// The error that an answer is, if it is one.
    pub(super) refusal: fn(u16, &[u8]) -> Option<Refusal>,
    pub(super) listings: fn() -> Request,
    pub(super) read_listings: fn(&[u8]) -> Read<Markets>,
    /// `None` where there is no call for all markets.
    pub(super) tickers: Option<Tickers>,
    pub(super) bars: fn(&str, Interval, &BarPage) -> Request,
    /// Body, symbol, interval, and the exchange's time when it was asked.
    pub(super) read_bars: ReadBars,
    pub(super) book: fn(&str) -> Request,
    pub(super) read_book: fn(&[u8], &str, Time) -> Read<NativeBook>,
    pub(super) walk: Walk,
    /// Most bars that one page is asked for.
    pub(super) page: usize,
    /// How long to wait after too many requests, where the exchange does not say.
    pub(super) rate_pause: Millis,
}

impl Wire {
    pub(super) const fn of(venue: Venue) -> &'static Self {
        match venue {
            Venue::Kraken => &kraken::WIRE,
            Venue::Okx => &okx::WIRE,
            Venue::Coinbase => &coinbase::WIRE,
            Venue::Binance => &binance::WIRE,
        }
    }
}

impl Refusal {
    /// A refusal without words that we understand: the beginning of the answer stands for them.
    pub(super) fn of_body(reason: Reason, body: &[u8]) -> Self {
        let body = body.trim_ascii();
        let message = if body.is_empty() { "empty body".into() } else { head(body) };
        Self { reason, message }
    }
}

/// The first characters of an answer, for errors.
pub(super) fn head(body: &[u8]) -> String {
    cut(&String::from_utf8_lossy(&body[..body.len().min(480)]), 120)
}
