//! The seven matrices of one instant (section 5.2): pure arithmetic over dense grids.
//!
//! A grid is `n x n` over the coins of a slice, row by row: the row is the base `b`, the column the
//! quote `q`, the diagonal is empty. A cell is a number, or empty with a [`Reason`]: what is not
//! known is never written as 0, which would say "did not move".
//!
//! Nothing here uses more than the four basic operations, so equal inputs give equal bits on every
//! machine.

use watchbell_core::Frac;

pub use super::grid::{Grid, MatrixType, Reason};
use super::grid::{divide, finite};
pub use super::rates::{Derivation, Market, Pair, Rates, USDT};

/// What the slice before said, laid out over the coins of this one.
#[derive(Debug, Clone, PartialEq)]
pub struct Previous {
    /// Its prices; an empty cell where the pair was not in it.
    pub benchmark: Grid,
    /// Its `id_pct`.
    pub id_pct: Grid,
}

/// Everything that a slice is computed from. Prices and changes are those of the market's pairs, in
/// their order.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Symbols and coins.
    pub market: &'a Market,
    /// The price of each symbol.
    pub prices: &'a [Option<f64>],
    /// Its change over 24 hours.
    pub changes: &'a [Option<Frac>],
    /// Its price at the opening.
    pub openings: &'a [Option<f64>],
    /// The slice before, of the same series.
    pub previous: Option<&'a Previous>,
}

/// The seven matrices of one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    grids: [Grid; 7],
    /// The benchmark's derivations.
    pub rates: Rates,
}

impl Slice {
    /// Computes all seven.
    ///
    /// # Panics
    /// When there is not one price, change and opening for each pair of the market.
    #[must_use]
    pub fn compute(inputs: &Inputs<'_>) -> Self {
        let market = inputs.market;
        let n = market.coins().len();
        let rates = Rates::derive(market, inputs.prices);
        let open = Rates::derive(market, inputs.openings).grid;
        let benchmark = rates.grid.clone();
        let changes = coin_changes(market, inputs.changes);
        let pct24h = Grid::fill(n, |b, q| {
            let (Some(up), Some(down)) = (changes[b], changes[q]) else {
                return Err(Reason::NoChange24h);
            };
            divide(1.0 + up.0, 1.0 + down.0).and_then(|ratio| finite(ratio - 1.0))
        });
        let id_pct = Grid::fill(n, |b, q| {
            let now = benchmark.cell(b, q)?;
            let previous = inputs.previous.and_then(|p| p.benchmark.get(b, q));
            let previous = previous.ok_or(Reason::NoPrevious)?;
            divide(now - previous, previous)
        });
        let pct_drv = Grid::fill(n, |b, q| {
            let now = id_pct.cell(b, q)?;
            let previous = inputs.previous.and_then(|p| p.id_pct.get(b, q));
            finite(now - previous.ok_or(Reason::NoPrevious)?)
        });
        let pct_ref = Grid::fill(n, |b, q| {
            let now = benchmark.cell(b, q)?;
            let opening = open.get(b, q).ok_or(Reason::NoOpening)?;
            divide(now - opening, opening)
        });
        let reference = Grid::fill(n, |b, q| {
            let since_opening = pct_ref.cell(b, q)?;
            finite((1.0 + id_pct.get(b, q).unwrap_or(0.0)) * since_opening)
        });
        let delta = Grid::fill(n, |b, q| {
            let since_opening = pct_ref.cell(b, q)?;
            reference.cell(b, q)?;
            let opening = open.get(b, q).ok_or(Reason::NoOpening)?;
            // The product is what the difference is, without its cancellation.
            finite(-opening * id_pct.get(b, q).unwrap_or(0.0) * since_opening)
        });
        let grids = [benchmark, pct24h, id_pct, pct_drv, pct_ref, reference, delta];
        Self { grids, rates }
    }

    /// One of the seven.
    #[must_use]
    pub fn grid(&self, of: MatrixType) -> &Grid {
        &self.grids[of.index()]
    }

    /// A cell of one of the matrices of fractions; `None` for those of prices.
    ///
    /// # Panics
    /// When there is no such coin.
    #[must_use]
    pub fn frac(&self, of: MatrixType, b: usize, q: usize) -> Option<Frac> {
        match of {
            MatrixType::Benchmark | MatrixType::Delta => None,
            MatrixType::Pct24h
            | MatrixType::IdPct
            | MatrixType::PctDrv
            | MatrixType::PctRef
            | MatrixType::Ref => self.grid(of).get(b, q).map(Frac),
        }
    }

    /// Cells of each matrix that are not on its diagonal.
    #[must_use]
    pub const fn expected(&self) -> usize {
        let n = self.grids[0].size();
        n * n.saturating_sub(1)
    }
}

/// The change of each coin against USDT. That of USDT itself is nil.
fn coin_changes(market: &Market, changes: &[Option<Frac>]) -> Vec<Option<Frac>> {
    assert_eq!(changes.len(), market.pairs().len(), "one change for each pair");
    let mut coins = vec![None; market.coins().len()];
    let Some(usdt) = market.usdt() else { return coins };
    for (pair, change) in market.pairs().iter().zip(changes) {
        let Some(change) = change.filter(|c| c.0.is_finite()) else { continue };
        if pair.quote == usdt {
            coins[pair.base].get_or_insert(change);
        } else if pair.base == usdt
            && let Ok(inverse) = divide(1.0, 1.0 + change.0)
        {
            coins[pair.quote].get_or_insert(Frac(inverse - 1.0));
        }
    }
    coins[usdt] = Some(Frac(0.0));
    coins
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    /// A market of these symbols, all but the last three or four letters being the base.
    pub(crate) fn market(symbols: &[&str]) -> Market {
        Market::new(symbols.iter().map(|s| {
            let (base, quote) = crate::split(s).unwrap();
            (Arc::from(*s), Arc::from(base), Arc::from(quote))
        }))
    }

    fn close(have: Option<f64>, want: f64) {
        let have = have.expect("a number");
        assert!((have - want).abs() <= 1e-12 * want.abs(), "{have} is not {want}");
    }

    fn previous(market: &Market, prices: &[Option<f64>]) -> Previous {
        let n = market.coins().len();
        let benchmark = Rates::derive(market, prices).grid;
        Previous { benchmark, id_pct: Grid::empty(n, Some(Reason::NoPrevious)) }
    }

    /// Section 12, "Matrices".
    #[test]
    fn the_golden_cells() {
        let market = market(&["BTCUSDT", "ETHUSDT"]);
        assert_eq!(market.coins().iter().map(|c| &**c).collect::<Vec<_>>(), ["USDT", "BTC", "ETH"]);
        let before = previous(&market, &[Some(49_900.0), Some(2_505.0)]);
        let slice = Slice::compute(&Inputs {
            market: &market,
            prices: &[Some(50_000.0), Some(2_500.0)],
            changes: &[Some(Frac(0.02)), Some(Frac(-0.03))],
            openings: &[Some(49_000.0), Some(2_600.0)],
            previous: Some(&before),
        });
        let (usdt, btc, eth) = (0, 1, 2);
        let cell = |of, b, q| slice.grid(of).get(b, q);
        for (of, want) in [
            (MatrixType::Benchmark, 20.0),
            (MatrixType::IdPct, 0.004_008_016_032_064_145),
            (MatrixType::PctRef, 0.061_224_489_795_918_34),
            (MatrixType::Ref, 0.061_469_878_532_575_32),
            (MatrixType::Delta, -0.004_624_633_883_150),
            (MatrixType::Pct24h, 0.051_546_391_752_577_36),
        ] {
            // Twelve digits of the delta are given; cancellation reaches the others.
            let have = cell(of, btc, eth).unwrap();
            assert!((have - want).abs() <= 1e-11 * want.abs(), "{of:?}: {have} is not {want}");
        }
        close(cell(MatrixType::IdPct, eth, usdt), -0.001_996_007_984_031_936);
        close(cell(MatrixType::PctRef, eth, usdt), -0.038_461_538_461_538_464);
        close(cell(MatrixType::Ref, eth, usdt), -0.038_384_768_923_691_08);
        close(cell(MatrixType::Delta, eth, usdt), -0.199_600_798_403_2);
        assert_eq!(slice.rates.derivation(btc, usdt), Some(Derivation::Direct));
        assert_eq!(slice.rates.derivation(usdt, btc), Some(Derivation::Inverse));
        assert_eq!(slice.rates.derivation(btc, eth), Some(Derivation::Bridged));
        assert_eq!(slice.grid(MatrixType::PctDrv).reason(btc, eth), Some(Reason::NoPrevious));
        assert_eq!(slice.frac(MatrixType::Benchmark, btc, eth), None);
        assert_eq!(slice.expected(), 6);
    }

    #[test]
    fn an_empty_cell_says_why() {
        let market = market(&["BTCUSDT", "ETHBTC", "BNBEUR"]);
        let names: Vec<_> = market.coins().iter().map(|c| &**c).collect();
        assert_eq!(names, ["USDT", "BTC", "ETH", "BNB", "EUR"]);
        let slice = Slice::compute(&Inputs {
            market: &market,
            prices: &[Some(50_000.0), Some(0.05), Some(0.0)],
            changes: &[Some(Frac(-1.0)), None, None],
            openings: &[None, Some(0.0), None],
            previous: None,
        });
        let why = |of, b: &str, q: &str| {
            let (b, q) = (market.find(b).unwrap(), market.find(q).unwrap());
            slice.grid(of).reason(b, q)
        };
        // ETH trades against BTC alone, which does not reach USDT in one step.
        assert_eq!(why(MatrixType::Benchmark, "ETH", "USDT"), Some(Reason::NoRoute));
        assert_eq!(why(MatrixType::Benchmark, "EUR", "BNB"), Some(Reason::ZeroDivisor));
        assert_eq!(why(MatrixType::Benchmark, "BNB", "EUR"), None);
        assert_eq!(why(MatrixType::Pct24h, "USDT", "BTC"), Some(Reason::ZeroDivisor));
        assert_eq!(why(MatrixType::Pct24h, "BTC", "ETH"), Some(Reason::NoChange24h));
        assert_eq!(why(MatrixType::IdPct, "ETH", "BTC"), Some(Reason::NoPrevious));
        assert_eq!(why(MatrixType::IdPct, "ETH", "USDT"), Some(Reason::NoRoute));
        assert_eq!(why(MatrixType::PctRef, "BTC", "USDT"), Some(Reason::NoOpening));
        assert_eq!(why(MatrixType::PctRef, "ETH", "BTC"), Some(Reason::ZeroDivisor));
        assert_eq!(why(MatrixType::Delta, "ETH", "BTC"), Some(Reason::ZeroDivisor));
        for of in MatrixType::ALL {
            assert!((0..5).all(|i| slice.grid(of).reason(i, i).is_none()));
            assert!((0..5).all(|i| slice.grid(of).get(i, i).is_none()));
            assert_eq!(MatrixType::parse(of.as_str()), Some(of));
        }
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        }
    }

    #[test]
    fn a_cross_pair_of_the_universe_counts_before_the_bridge() {
        let market = market(&["BTCUSDT", "ETHUSDT", "ETHBTC"]);
        let rates = Rates::derive(&market, &[Some(50_000.0), Some(2_500.0), Some(0.051)]);
        let (btc, eth) = (1, 2);
        assert_eq!(rates.grid.get(eth, btc), Some(0.051));
        assert_eq!(rates.derivation(eth, btc), Some(Derivation::Direct));
        assert_eq!(rates.grid.get(btc, eth), Some(1.0 / 0.051));
        assert_eq!(rates.count(Derivation::Bridged), 0);
        // Without its price the bridge is taken.
        let rates = Rates::derive(&market, &[Some(50_000.0), Some(2_500.0), None]);
        assert_eq!(rates.grid.get(btc, eth), Some(20.0));
        assert_eq!(rates.count(Derivation::Bridged), 2);
    }

    fn price() -> impl Strategy<Value = Option<f64>> {
        prop_oneof![4 => (1e-6..1e6_f64).prop_map(Some), 1 => Just(None)]
    }

    proptest! {
        /// Whatever the prices: a matrix and its transpose multiply to 1, the delta is what its
        /// definition says, and a cell is a finite number or has a reason.
        #[test]
        fn the_matrices_agree_with_each_other(
            now in prop::collection::vec(price(), 6),
            before in prop::collection::vec(price(), 6),
            open in prop::collection::vec(price(), 6),
            changes in prop::collection::vec(prop::option::of(-0.5..0.5_f64), 6),
        ) {
            let market =
                market(&["BTCUSDT", "ETHUSDT", "SOLUSDT", "ETHBTC", "SOLETH", "BNBEUR"]);
            let before = previous(&market, &before);
            let changes: Vec<_> = changes.into_iter().map(|c| c.map(Frac)).collect();
            let slice = Slice::compute(&Inputs {
                market: &market,
                prices: &now,
                changes: &changes,
                openings: &open,
                previous: Some(&before),
            });
            let opening = Rates::derive(&market, &open).grid;
            let n = market.coins().len();
            for b in 0..n {
                for q in (0..n).filter(|q| *q != b) {
                    for of in MatrixType::ALL {
                        let grid = slice.grid(of);
                        let value = grid.get(b, q);
                        prop_assert!(value.is_none_or(f64::is_finite));
                        prop_assert_eq!(value.is_none(), grid.reason(b, q).is_some());
                    }
                    let of = |t| slice.grid(t).get(b, q);
                    if let Some(bm) = of(MatrixType::Benchmark) {
                        let inverse = slice.grid(MatrixType::Benchmark).get(q, b).unwrap();
                        prop_assert!((bm * inverse - 1.0).abs() < 1e-12);
                    }
                    if let (Some(delta), Some(reference)) =
                        (of(MatrixType::Delta), of(MatrixType::Ref))
                    {
                        let (bm, open) =
                            (of(MatrixType::Benchmark).unwrap(), opening.get(b, q).unwrap());
                        let defined = bm - open * (1.0 + reference);
                        let size = bm.abs().max(open).max((open * reference).abs());
                        prop_assert!((delta - defined).abs() <= 1e-12 * size);
                    }
                }
            }
        }
    }
}
