//! Which exchanges there are, and who is none.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An exchange whose own book may be judged. There are no others: who blends the books of several is
/// refused by name wherever a name is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Venue {
    /// Kraken spot, quoted in USD.
    Kraken,
    /// OKX spot, quoted in USDT.
    Okx,
    /// Coinbase Exchange, quoted in USD.
    Coinbase,
    /// Binance spot, quoted in USDT.
    Binance,
}

impl Venue {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Kraken, Self::Okx, Self::Coinbase, Self::Binance];

    /// Its name, as configurations and artifacts write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kraken => "kraken",
            Self::Okx => "okx",
            Self::Coinbase => "coinbase",
            Self::Binance => "binance",
        }
    }

    /// The asset that its books of a USD market are quoted in.
    #[must_use]
    pub const fn quote(self) -> &'static str {
        match self {
            Self::Kraken | Self::Coinbase => "USD",
            Self::Okx | Self::Binance => "USDT",
        }
    }
}

impl fmt::Display for Venue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A name that is no exchange.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownVenue {
    /// It blends the prices of several exchanges.
    #[error(
        "aggregator_forbidden: {0}: only the books of an exchange itself are judged: kraken, okx, \
         coinbase or binance"
    )]
    Aggregator(String),
    /// Nobody knows it.
    #[error("there is no venue `{0}`: choose among kraken, okx, coinbase and binance")]
    Unknown(String),
}

/// Aggregators by name, and words that give one away (scan specification, section 4.4).
const AGGREGATORS: [&str; 12] = [
    "dexscreener",
    "coingecko",
    "coinmarketcap",
    "cmc",
    "coinpaprika",
    "defillama",
    "nomics",
    "messari",
    "cryptocompare",
    "coinapi",
    "coinlayer",
    "fixer",
];
const BLENDED: [&str; 6] =
    ["aggregate", "composite", "blended", "averaged", "merged", "multi_exchange"];

impl FromStr for Venue {
    type Err = UnknownVenue;

    fn from_str(name: &str) -> Result<Self, UnknownVenue> {
        if let Some(venue) = Self::ALL.into_iter().find(|v| v.as_str() == name) {
            return Ok(venue);
        }
        let lower = name.to_ascii_lowercase();
        if AGGREGATORS.contains(&lower.as_str()) || BLENDED.iter().any(|w| lower.contains(w)) {
            return Err(UnknownVenue::Aggregator(name.to_owned()));
        }
        Err(UnknownVenue::Unknown(name.to_owned()))
    }
}

mod sealed {
    pub trait Sealed {}
}

/// An exchange as a type. Sealed: only the four here are.
pub trait VenueNative: sealed::Sealed + fmt::Debug + Clone + Copy + 'static {
    /// Which one.
    const VENUE: Venue;
}

macro_rules! native {
    ($($(#[$doc:meta])* $name:ident),+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name;
        impl sealed::Sealed for $name {}
        impl VenueNative for $name {
            const VENUE: Venue = Venue::$name;
        }
    )+};
}

native!(
    /// Kraken spot.
    Kraken,
    /// OKX spot.
    Okx,
    /// Coinbase Exchange.
    Coinbase,
    /// Binance spot.
    Binance
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_blends_is_refused_by_name() {
        for name in AGGREGATORS.into_iter().chain(["my_composite_feed", "Blended-Index"]) {
            assert_eq!(name.parse::<Venue>(), Err(UnknownVenue::Aggregator(name.to_owned())));
        }
        assert_eq!("bitmex".parse::<Venue>(), Err(UnknownVenue::Unknown("bitmex".into())));
        for venue in Venue::ALL {
            assert_eq!(venue.as_str().parse(), Ok(venue));
        }
    }
}
