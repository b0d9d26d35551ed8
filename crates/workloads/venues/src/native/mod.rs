//! What a scan reads from an exchange itself: listings, tickers, closed bars and order books.
//!
//! Prices that decide about an entry come from the book of one exchange, never from an average over
//! several. The types say so: [`Venue`] is closed, a book belongs to a [`VenueNative`], which nothing
//! outside this crate can be, and the only way to an [`OrderBook`] is an answer of that exchange.
//!
//! ```compile_fail
//! // Whoever blends the books of several exchanges is none of them.
//! struct Aggregator;
//! impl watchbell_venues::native::VenueNative for Aggregator {
//!     const VENUE: watchbell_venues::native::Venue = watchbell_venues::native::Venue::Kraken;
//! }
//! ```
//!
//! ```compile_fail
//! // Nor can anybody write a book down without an answer of the exchange.
//! use watchbell_venues::native::{Kraken, OrderBook};
//! let book: OrderBook<Kraken> = OrderBook {
//!     symbol: "XBTUSD".into(), bids: vec![], asks: vec![], taken_at: watchbell_core::Time(0),
//!     venue: std::marker::PhantomData,
//! };
//! ```
//!
//! ```compile_fail
//! use watchbell_venues::native::{Kraken, OrderBook};
//! let book = OrderBook::<Kraken>::new("XBTUSD".into(), vec![], vec![], watchbell_core::Time(0));
//! ```
//!
//! * [`NativeClient`]: the requests. All clones of a client share one gate: token bucket, circuit breaker,
//!   budget, health and the pauses that the exchange asks for.
//! * [`kraken`], [`okx`], [`coinbase`], [`binance`]: the exchanges on the wire, and the readers of their
//!   answers. A page or book with anything wrong in it is refused whole, by a [`PayloadError`] that names
//!   the place.
//!
//! ```
//! // The way to a book: what the exchange sent.
//! use watchbell_venues::native::{NativeBook, kraken};
//! let answer = br#"{"error":[],"result":{"XXBTZUSD":{
//!     "bids":[["30297.0","1.115",1688671636]],"asks":[["30384.1","2.059",1688671659]]}}}"#;
//! let book = kraken::book(answer, "XBTUSD", watchbell_core::Time(1_688_671_700_000))?;
//! assert_eq!(NativeBook::Kraken(book).bids()[0].price, 30_297.0);
//! # Ok::<(), watchbell_venues::native::PayloadError>(())
//! ```

pub mod binance;
mod book;
mod client;
pub mod coinbase;
mod config;
mod error;
mod gate;
mod json;
pub mod kraken;
pub mod okx;
mod table;
mod venue;
mod wire;

pub use book::{Level, NativeBook, OrderBook};
pub use client::{Answered, NativeClient};
pub use config::{NativeConfig, NativeConfigError};
pub use error::{Lasting, NativeCall, NativeError};
pub use gate::{BreakerState, BudgetStatus, BudgetUse, Spent, VenueHealth, Verdict};
pub use json::PayloadError;
pub use venue::{Binance, Coinbase, Kraken, Okx, UnknownVenue, Venue, VenueNative};

use serde::{Deserialize, Serialize};
use watchbell_core::{Millis, Time};

/// A market as an exchange lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// What requests call it: `XBTUSD`, `BTC-USDT`, `BTC-USD`, `BTCUSDT`.
    pub symbol: String,
    /// The exchange's own short name, by which markets are left out (`altname` at Kraken).
    pub name: String,
    /// The asset that is bought, under its usual name: `BTC` for `XXBT`, `DOGE` for `XXDG`.
    pub base: String,
    /// The asset that pays, under its usual name: `USD` for `ZUSD`.
    pub quote: String,
    /// Whether it trades now.
    pub online: bool,
    /// The exchange's word for that: `online`, `live`, `cancel_only`.
    pub status: String,
    /// The kind of asset: `currency` for coins, `tokenized_asset` for shares and the like.
    pub class: String,
}

/// The last 24 hours of a market. Prices and volumes as the exchange gives them, in units of quote and
/// base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ticker {
    /// As in [`Listing::symbol`].
    pub symbol: String,
    /// The last price.
    pub last: f64,
    /// The mean price of 24 hours, weighted by volume, where the exchange tells.
    pub vwap_24h: Option<f64>,
    /// Base volume of 24 hours.
    pub volume_24h: f64,
}

/// A closed bar.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// Its start, on the grid of its interval.
    pub open_time: Time,
    /// First price.
    pub open: f64,
    /// Highest price.
    pub high: f64,
    /// Lowest price.
    pub low: f64,
    /// Last price.
    pub close: f64,
    /// Base volume.
    pub volume: f64,
    /// Quote volume: the exchange's own, or base volume times its mean price or, where it gives
    /// neither, times the close.
    pub quote_volume: f64,
}

/// The length of a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Interval {
    /// An hour.
    #[serde(rename = "1h")]
    Hour,
    /// A day, by UTC.
    #[serde(rename = "1d")]
    Day,
}

impl Interval {
    /// Its length.
    #[must_use]
    pub const fn length(self) -> Millis {
        match self {
            Self::Hour => Millis::from_hours(1),
            Self::Day => Millis::from_days(1),
        }
    }

    /// As tables and messages name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "1h",
            Self::Day => "1d",
        }
    }
}
