//! An order book of one exchange.

use std::marker::PhantomData;

use watchbell_core::Time;

use super::venue::{Binance, Coinbase, Kraken, Okx, Venue, VenueNative};

/// Price, and base size that is offered at it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Price.
    pub price: f64,
    /// Base size.
    pub size: f64,
}

/// The book of a market at one exchange at an instant, as that exchange answered: best levels first,
/// prices strictly falling among the bids and strictly rising among the asks, every price and size
/// positive and finite. It may be empty on a side or crossed: to judge that is the reader's part.
#[derive(Debug, Clone, PartialEq)]
pub struct OrderBook<V: VenueNative> {
    symbol: String,
    bids: Vec<Level>,
    asks: Vec<Level>,
    taken_at: Time,
    venue: PhantomData<V>,
}

impl<V: VenueNative> OrderBook<V> {
    /// For the clients in this crate, once they have read and checked an answer.
    pub(crate) const fn new(
        symbol: String,
        bids: Vec<Level>,
        asks: Vec<Level>,
        taken_at: Time,
    ) -> Self {
        Self { symbol, bids, asks, taken_at, venue: PhantomData }
    }
}

/// A book of whichever exchange.
#[derive(Debug, Clone, PartialEq)]
pub enum NativeBook {
    /// Kraken's.
    Kraken(OrderBook<Kraken>),
    /// OKX's.
    Okx(OrderBook<Okx>),
    /// Coinbase's.
    Coinbase(OrderBook<Coinbase>),
    /// Binance's.
    Binance(OrderBook<Binance>),
}

macro_rules! of_each {
    ($self:ident, $book:ident => $value:expr) => {
        match $self {
            NativeBook::Kraken($book) => $value,
            NativeBook::Okx($book) => $value,
            NativeBook::Coinbase($book) => $value,
            NativeBook::Binance($book) => $value,
        }
    };
}

impl NativeBook {
    /// Whose it is.
    #[must_use]
    pub const fn venue(&self) -> Venue {
        match self {
            Self::Kraken(_) => Venue::Kraken,
            Self::Okx(_) => Venue::Okx,
            Self::Coinbase(_) => Venue::Coinbase,
            Self::Binance(_) => Venue::Binance,
        }
    }
    /// The exchange's name of the market.
    #[must_use]
    pub fn symbol(&self) -> &str {
        of_each!(self, b => &b.symbol)
    }
    /// Who buys, best first.
    #[must_use]
    pub fn bids(&self) -> &[Level] {
        of_each!(self, b => &b.bids)
    }
    /// Who sells, best first.
    #[must_use]
    pub fn asks(&self) -> &[Level] {
        of_each!(self, b => &b.asks)
    }
    /// When it was taken: the exchange's own time of it where it tells, else when we asked.
    #[must_use]
    pub const fn taken_at(&self) -> Time {
        of_each!(self, b => b.taken_at)
    }
}
