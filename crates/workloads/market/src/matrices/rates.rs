//! The symbols of a slice, its coins, and the prices between all of them.

use std::sync::Arc;

use super::grid::{Grid, Reason, divide};

/// The coin that prices are compared in.
pub const USDT: &str = "USDT";

/// Where a price of the benchmark comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Derivation {
    /// The pair itself.
    Direct,
    /// The pair the other way round.
    Inverse,
    /// Both coins against USDT.
    Bridged,
}

/// A symbol of a slice: which coins it trades, by their place in the slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The symbol, such as `ETHBTC`.
    pub symbol: Arc<str>,
    /// Place of the base coin.
    pub base: usize,
    /// Place of the quote coin.
    pub quote: usize,
}

/// The symbols of a slice in universe order, and the coins that follow from them: USDT first where
/// it is one, then base and quote of each symbol as they appear.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Market {
    coins: Vec<Arc<str>>,
    pairs: Vec<Pair>,
}

impl Market {
    /// From symbols with their base and quote coin, in universe order. A symbol that trades a coin
    /// against itself is left out.
    pub fn new(symbols: impl IntoIterator<Item = (Arc<str>, Arc<str>, Arc<str>)>) -> Self {
        let symbols: Vec<_> = symbols.into_iter().filter(|(_, b, q)| b != q).collect();
        let mut market = Self::default();
        let usdt = symbols.iter().flat_map(|(_, b, q)| [b, q]).find(|c| &***c == USDT);
        market.coins.extend(usdt.map(Arc::clone));
        for (symbol, base, quote) in symbols {
            let (base, quote) = (market.place(base), market.place(quote));
            market.pairs.push(Pair { symbol, base, quote });
        }
        market
    }

    fn place(&mut self, coin: Arc<str>) -> usize {
        self.find(&coin).unwrap_or_else(|| {
            self.coins.push(coin);
            self.coins.len() - 1
        })
    }

    /// The coins, in the order of rows and columns.
    #[must_use]
    pub fn coins(&self) -> &[Arc<str>] {
        &self.coins
    }

    /// The symbols, in universe order.
    #[must_use]
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// The place of a coin.
    #[must_use]
    pub fn find(&self, coin: &str) -> Option<usize> {
        self.coins.iter().position(|c| &**c == coin)
    }

    /// The place of USDT.
    #[must_use]
    pub fn usdt(&self) -> Option<usize> {
        self.coins.first().filter(|c| &***c == USDT).map(|_| 0)
    }

    /// The symbol that trades each coin against USDT, either way round; none for USDT itself.
    pub(crate) fn legs(&self) -> Vec<Option<&Pair>> {
        let mut legs = vec![None; self.coins.len()];
        if let Some(usdt) = self.usdt() {
            for pair in &self.pairs {
                let coin = match (pair.base, pair.quote) {
                    (base, quote) if quote == usdt => base,
                    (base, quote) if base == usdt => quote,
                    _ => continue,
                };
                legs[coin].get_or_insert(pair);
            }
        }
        legs
    }
}

/// Prices between all coins, with where each comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Rates {
    /// The price of each base in each quote.
    pub grid: Grid,
    /// In the same order as the cells of the grid.
    derivations: Vec<Option<Derivation>>,
}

impl Rates {
    /// Derives every price from those of the symbols (one for each pair of the market, `None` where
    /// it is not known): the pair itself, or its inverse, or both coins against USDT.
    ///
    /// # Panics
    /// When there is not one price for each pair.
    #[must_use]
    pub fn derive(market: &Market, prices: &[Option<f64>]) -> Self {
        assert_eq!(prices.len(), market.pairs.len(), "one price for each pair");
        let n = market.coins.len();
        let mut direct = vec![f64::NAN; n * n];
        for (pair, price) in market.pairs.iter().zip(prices) {
            let at = &mut direct[pair.base * n + pair.quote];
            // Of two symbols of one pair the first in universe order counts.
            if let Some(price) = price.filter(|p| p.is_finite() && *p >= 0.0 && at.is_nan()) {
                *at = price;
            }
        }
        let known = |b: usize, q: usize| Some(direct[b * n + q]).filter(|p| !p.is_nan());
        let mut derivations = vec![None; n * n];
        // In USDT, with USDT itself at 1.
        let in_usdt: Vec<Option<f64>> = (0..n)
            .map(|coin| {
                let usdt = market.usdt()?;
                if coin == usdt {
                    return Some(1.0);
                }
                known(coin, usdt).or_else(|| divide(1.0, known(usdt, coin)?).ok())
            })
            .collect();
        let grid = Grid::fill(n, |b, q| {
            let (cell, by) = if let Some(price) = known(b, q) {
                (Ok(price), Derivation::Direct)
            } else if let Some(price) = known(q, b) {
                (divide(1.0, price), Derivation::Inverse)
            } else {
                let (Some(p), Some(by)) = (in_usdt[b], in_usdt[q]) else {
                    return Err(Reason::NoRoute);
                };
                (divide(p, by), Derivation::Bridged)
            };
            derivations[b * n + q] = cell.is_ok().then_some(by);
            cell
        });
        Self { grid, derivations }
    }

    /// Where the price of base `b` in quote `q` comes from; `None` where there is none.
    ///
    /// # Panics
    /// When there is no such coin.
    #[must_use]
    pub fn derivation(&self, b: usize, q: usize) -> Option<Derivation> {
        self.derivations[b * self.grid.size() + q]
    }

    /// How many prices come from there.
    #[must_use]
    pub fn count(&self, derivation: Derivation) -> usize {
        self.derivations.iter().filter(|d| **d == Some(derivation)).count()
    }
}
