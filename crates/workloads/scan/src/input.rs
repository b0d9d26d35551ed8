//! What a scan has read, before anything is computed.

use serde::{Deserialize, Serialize};
use watchbell_core::Time;
use watchbell_venues::native::{Bar, NativeBook, Venue};

use crate::premove::Evidence;

/// A symbol of the universe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// `BTC/USD`, as artifacts write it.
    pub symbol: String,
    /// The asset that is bought: `BTC`.
    pub base: String,
    /// What the primary exchange calls it in requests: `XBTUSD`.
    pub venue_symbol: String,
    /// Value traded in 24 hours, in whole USD.
    pub adv_usd: u64,
    /// 1 for the most traded.
    pub rank: u32,
}

/// The universe of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Universe {
    /// Ascending by rank.
    pub members: Vec<Member>,
    /// What the exchange lists in USD and is left out, by name, and why.
    pub excluded: Vec<(String, String)>,
    /// From an earlier run, for the exchange did not answer.
    pub stale: bool,
}

/// Closed bars of a symbol at an exchange, ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct Bars {
    /// Whose.
    pub venue: Venue,
    /// Ascending, without the open one. Hours without a trade may be absent.
    pub bars: Vec<Bar>,
    /// When they were fetched.
    pub fetched_at: Time,
    /// Not fetched in this run.
    pub cached: bool,
}

/// What an exchange answered for the book of a symbol.
#[derive(Debug, Clone, PartialEq)]
pub struct BookAnswer {
    /// Who was asked.
    pub venue: Venue,
    /// The book; or in a few words why there is none: `not_listed`, `circuit_open`, an error's text.
    pub book: Result<NativeBook, String>,
    /// How long the answer took, by the clock; none without one.
    pub latency: Option<watchbell_core::Millis>,
    /// Not fetched in this run.
    pub cached: bool,
}

/// Everything that was read of a symbol.
#[derive(Debug, Clone, PartialEq)]
pub struct SymbolData {
    /// Which one.
    pub member: Member,
    /// Hourly bars: those of the primary exchange first, then those of others that were read; in a
    /// failure of the primary's none of it, and why in `trouble`.
    pub hours: Vec<Bars>,
    /// Books, in the configured order of the exchanges.
    pub books: Vec<BookAnswer>,
    /// What could not be read of it, in a few words each: `candles: circuit_open`.
    pub trouble: Vec<String>,
    /// What was measured of it beyond bars and books; by default nothing.
    pub evidence: Evidence,
}
