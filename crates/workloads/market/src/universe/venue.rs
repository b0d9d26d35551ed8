//! What the venue lists: the pairs of chosen coins, and the status of each symbol of the universe
//! (section 1.1).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use watchbell_core::{Statement, Time, values};
use watchbell_db::{Database, DbError};
use watchbell_venues::binance::wire::{ExchangeInfo, SymbolInfo};

use super::change::{Entry, Pair};
use super::symbol::{is_coin, is_leveraged};

/// The status of a symbol that the venue does not list.
const NOT_LISTED: &str = "NOT_LISTED";

/// Which pairs are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selection {
    /// Coins, with or without the quote.
    pub(super) coins: Vec<String>,
    /// A coin that is chosen too.
    pub(super) quote: String,
    /// Only pairs that trade spot.
    pub(super) spot_only: bool,
}

/// Why a selection is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SelectionError {
    /// A coin's code is none.
    #[error("`{0}` is not a coin: write 2 to 10 upper-case letters and digits, such as BTC")]
    Coin(String),
    /// The venue lists no pair of them.
    #[error("the venue lists no pair of the coins {0}: check their codes and the quote")]
    NoPair(String),
}

/// The pairs of a selection, and what was left out of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(super) struct Selected {
    /// Every ordered pair of the chosen coins that the venue lists and trades: by base, then quote, in
    /// the order of the coins.
    pub(super) pairs: Vec<Pair>,
    /// Leveraged tokens.
    pub(super) leveraged: Vec<String>,
    /// Pairs that the venue lists but does not trade now, or not spot.
    pub(super) resting: Vec<String>,
}

/// The pairs of the chosen coins, by what the venue lists. Pure.
pub(super) fn select(info: &ExchangeInfo, wanted: &Selection) -> Result<Selected, SelectionError> {
    let mut coins: Vec<&str> = Vec::new();
    for coin in wanted.coins.iter().chain([&wanted.quote]) {
        if !is_coin(coin) {
            return Err(SelectionError::Coin(coin.clone()));
        }
        if !coins.contains(&coin.as_str()) {
            coins.push(coin);
        }
    }
    let assets: BTreeSet<&str> = info.symbols.iter().map(|s| s.base_asset.as_str()).collect();
    let is_token = |coin: &&str| is_leveraged(coin, |base| assets.contains(base));
    let (tokens, coins): (Vec<&str>, Vec<&str>) = coins.into_iter().partition(is_token);
    let place: BTreeMap<&str, usize> = coins.iter().enumerate().map(|(i, c)| (*c, i)).collect();
    let mut listed: Vec<((usize, usize), &SymbolInfo)> = info
        .symbols
        .iter()
        .filter_map(|s| {
            let base = place.get(s.base_asset.as_str())?;
            let quote = place.get(s.quote_asset.as_str())?;
            Some(((*base, *quote), s))
        })
        .collect();
    listed.sort_by(|(a, s), (b, t)| a.cmp(b).then_with(|| s.symbol.cmp(&t.symbol)));
    let mut selected = Selected {
        leveraged: tokens.into_iter().map(str::to_owned).collect(),
        ..Selected::default()
    };
    for (_, s) in listed {
        let trades = s.status == "TRADING" && (s.is_spot_trading_allowed || !wanted.spot_only);
        if trades {
            selected.pairs.push(Pair {
                symbol: s.symbol.clone(),
                base: s.base_asset.clone(),
                quote: s.quote_asset.clone(),
            });
        } else {
            selected.resting.push(s.symbol.clone());
        }
    }
    if selected.pairs.is_empty() {
        return Err(SelectionError::NoPair(coins.join(", ")));
    }
    Ok(selected)
}

/// The staging table with this selection, in place of the one before.
pub(super) fn stage(
    info: &ExchangeInfo,
    selected: &Selected,
    fetched_at: Time,
) -> Result<[Statement; 2], serde_json::Error> {
    let shown: BTreeSet<&str> = selected
        .pairs
        .iter()
        .map(|p| p.symbol.as_str())
        .chain(selected.resting.iter().map(String::as_str))
        .collect();
    let mut rows = Vec::new();
    for s in info.symbols.iter().filter(|s| shown.contains(s.symbol.as_str())) {
        rows.extend(values![
            s.symbol.as_str(),
            s.base_asset.as_str(),
            s.quote_asset.as_str(),
            s.status.as_str(),
            s.is_spot_trading_allowed,
            serde_json::to_string(s)?,
            fetched_at,
        ]);
    }
    Ok([
        Statement::new("delete from ext.binance_symbols_preview", Vec::new()),
        Statement::bulk(
            "insert into ext.binance_symbols_preview
               (symbol, base_asset, quote_asset, status, is_spot, raw, fetched_at)
             values ($1, $2, $3, $4, $5, $6, $7)",
            7,
            rows,
        ),
    ])
}

/// What the venue says of a symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listing {
    /// Its own word, or that it does not list the symbol.
    pub(super) status: String,
    pub(super) is_spot: bool,
    pub(super) fetched_at: Time,
}

impl Listing {
    pub(super) fn is_listed(&self) -> bool {
        self.status != NOT_LISTED
    }

    pub(super) fn trades(&self) -> bool {
        self.status == "TRADING" && self.is_spot
    }

    /// What `info` says of `symbol`.
    pub(super) fn of(info: &ExchangeInfo, symbol: &str, fetched_at: Time) -> Self {
        let found = info.symbols.iter().find(|s| s.symbol == symbol);
        Self {
            status: found.map_or_else(|| NOT_LISTED.to_owned(), |s| s.status.clone()),
            is_spot: found.is_some_and(|s| s.is_spot_trading_allowed),
            fetched_at,
        }
    }
}

/// The listings that are stored.
pub(super) async fn listings(db: &Database) -> Result<BTreeMap<Arc<str>, Listing>, DbError> {
    let rows = db
        .query("select symbol, status, is_spot, fetched_at from ingest.listings", Vec::new())
        .await?;
    rows.iter()
        .map(|row| {
            let listing = Listing {
                status: row.text(1)?.to_owned(),
                is_spot: row.bool(2)?,
                fetched_at: row.time(3)?,
            };
            Ok((row.shared_text(0)?, listing))
        })
        .collect()
}

/// Stores what the venue says of these symbols.
pub(super) fn store_listings<'a>(
    all: impl Iterator<Item = (&'a Arc<str>, &'a Listing)>,
) -> Statement {
    let mut rows = Vec::new();
    for (symbol, listing) in all {
        rows.extend(values![
            Arc::clone(symbol),
            listing.status.as_str(),
            listing.is_spot,
            listing.fetched_at,
        ]);
    }
    Statement::bulk(
        "insert into ingest.listings (symbol, status, is_spot, fetched_at)
         values ($1, $2, $3, $4)
         on conflict (symbol) do update set
           status = excluded.status, is_spot = excluded.is_spot, fetched_at = excluded.fetched_at",
        4,
        rows,
    )
}

/// Notes what the venue says of every symbol of the universe, from an answer that was fetched for
/// something else.
pub(crate) async fn note_listing(
    db: &Database,
    info: &ExchangeInfo,
    now: Time,
) -> Result<Statement, DbError> {
    let rows = db.query("select symbol from settings.coin_universe", Vec::new()).await?;
    // In one order, whoever stores them: two writers then wait for each other in turn.
    let mut all = BTreeMap::new();
    for row in &rows {
        let symbol = row.shared_text(0)?;
        let listing = Listing::of(info, &symbol, now);
        all.insert(symbol, listing);
    }
    Ok(store_listings(all.iter()))
}

/// The listings of these entries by an answer of the venue.
pub(super) fn listings_of(
    info: &ExchangeInfo,
    entries: &[Entry],
    now: Time,
) -> BTreeMap<Arc<str>, Listing> {
    let of = |e: &Entry| (Arc::clone(&e.symbol), Listing::of(info, &e.symbol, now));
    entries.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(symbols: &[(&str, &str, &str, bool)]) -> ExchangeInfo {
        let symbols = symbols
            .iter()
            .map(|&(base, quote, status, spot)| SymbolInfo {
                symbol: format!("{base}{quote}"),
                status: status.into(),
                base_asset: base.into(),
                quote_asset: quote.into(),
                is_spot_trading_allowed: spot,
                filters: Vec::new(),
            })
            .collect();
        ExchangeInfo { server_time: Time(0), rate_limits: Vec::new(), symbols }
    }

    fn selection(coins: &[&str], spot_only: bool) -> Selection {
        let coins = coins.iter().map(ToString::to_string).collect();
        Selection { coins, quote: "USDT".into(), spot_only }
    }

    #[test]
    fn every_ordered_pair_that_the_venue_lists_is_taken() {
        let info = info(&[
            ("ETH", "USDT", "TRADING", true),
            ("BTC", "USDT", "TRADING", true),
            ("ETH", "BTC", "TRADING", true),
            ("BTC", "EUR", "TRADING", true),
            ("SOL", "USDT", "HALT", true),
            ("SOL", "ETH", "TRADING", false),
            ("BTCUP", "USDT", "TRADING", true),
            ("JUP", "USDT", "TRADING", true),
        ]);
        let symbols = |s: &Selected| s.pairs.iter().map(|p| p.symbol.clone()).collect::<Vec<_>>();
        let chosen = selection(&["BTC", "ETH", "SOL", "BTCUP", "JUP"], true);
        let selected = select(&info, &chosen).unwrap();
        assert_eq!(symbols(&selected), ["BTCUSDT", "ETHBTC", "ETHUSDT", "JUPUSDT"]);
        assert_eq!(selected.leveraged, ["BTCUP"]);
        assert_eq!(selected.resting, ["SOLETH", "SOLUSDT"]);
        let chosen = selection(&["SOL", "ETH"], false);
        assert_eq!(symbols(&select(&info, &chosen).unwrap()), ["SOLETH", "ETHUSDT"]);
        for (coins, says) in [
            (["btc"], "`btc` is not a coin"),
            (["DOGE"], "the venue lists no pair of the coins DOGE, USDT"),
        ] {
            let refused = select(&info, &selection(&coins, true)).unwrap_err().to_string();
            assert!(refused.starts_with(says), "{refused}");
        }
    }

    #[test]
    fn a_symbol_that_is_not_in_the_answer_is_not_listed() {
        let info = info(&[("SOL", "USDT", "BREAK", true)]);
        let sol = Listing::of(&info, "SOLUSDT", Time(5));
        assert!(sol.is_listed() && !sol.trades());
        assert!(!Listing::of(&info, "BTCUSDT", Time(5)).is_listed());
    }
}
