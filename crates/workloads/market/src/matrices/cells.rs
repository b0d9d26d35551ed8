//! The seven matrices of one instant (section 5.2): pure arithmetic over dense grids.
//!
//! A grid is `n x n` over the coins of a slice, row by row: the row is the base `b`, the column the
//! quote `q`, the diagonal is empty. A cell is a number, or empty with a [`Reason`]: what is not
//! known is never written as 0, which would say "did not move".
//!
//! Nothing here uses more than the four basic operations, so equal inputs give equal bits on every
//! machine.

use std::sync::Arc;

use watchbell_core::Frac;

/// The coin that prices are compared in.
pub const USDT: &str = "USDT";
/// A previous price below this cannot be divided by.
const LEAST_DIVISOR: f64 = 1e-300;

/// One of the seven matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MatrixType {
    /// Price of the base in the quote.
    Benchmark,
    /// Change of the price over 24 hours, as a fraction.
    Pct24h,
    /// Change of the price since the previous slice, as a fraction.
    IdPct,
    /// Change of `id_pct` since the previous slice, as a difference of fractions.
    PctDrv,
    /// Change of the price since the opening, as a fraction.
    PctRef,
    /// `(1 + id_pct) * pct_ref`, as a fraction.
    Ref,
    /// `bm - open * (1 + ref)`, in the quote.
    Delta,
}

impl MatrixType {
    /// All types, in the order in which they are computed.
    pub const ALL: [Self; 7] = [
        Self::Benchmark,
        Self::Pct24h,
        Self::IdPct,
        Self::PctDrv,
        Self::PctRef,
        Self::Ref,
        Self::Delta,
    ];

    /// As the store and the pages write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Benchmark => "benchmark",
            Self::Pct24h => "pct24h",
            Self::IdPct => "id_pct",
            Self::PctDrv => "pct_drv",
            Self::PctRef => "pct_ref",
            Self::Ref => "ref",
            Self::Delta => "delta",
        }
    }

    /// The type of a stored word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.as_str() == word)
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// Why a cell is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Neither the pair, nor its inverse, nor both coins against USDT have a price.
    NoRoute,
    /// The formula divides by zero.
    ZeroDivisor,
    /// A coin's change over 24 hours is not known.
    NoChange24h,
    /// There is no previous slice, or the pair was not in it.
    NoPrevious,
    /// The pair has no price at the opening.
    NoOpening,
    /// The result is beyond what a double holds.
    NotFinite,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 6] = [
        Self::NoRoute,
        Self::ZeroDivisor,
        Self::NoChange24h,
        Self::NoPrevious,
        Self::NoOpening,
        Self::NotFinite,
    ];

    /// As the store and the pages write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoRoute => "NO_ROUTE",
            Self::ZeroDivisor => "ZERO_DIVISOR",
            Self::NoChange24h => "NO_CHANGE_24H",
            Self::NoPrevious => "NO_PREVIOUS",
            Self::NoOpening => "NO_OPENING",
            Self::NotFinite => "NOT_FINITE",
        }
    }

    /// The reason of a stored word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == word)
    }
}

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

/// A cell on its way: a number, or why there is none.
type Cell = Result<f64, Reason>;

fn finite(value: f64) -> Cell {
    // Adding zero takes the sign from a minus zero, which would print as `-0.0`.
    if value.is_finite() { Ok(value + 0.0) } else { Err(Reason::NotFinite) }
}

fn divide(value: f64, by: f64) -> Cell {
    if by.abs() < LEAST_DIVISOR { Err(Reason::ZeroDivisor) } else { finite(value / by) }
}

/// A dense square of cells.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    n: usize,
    /// NaN where there is no number.
    values: Vec<f64>,
    reasons: Vec<Option<Reason>>,
}

impl Grid {
    /// `n x n` empty cells, for one reason off the diagonal.
    #[must_use]
    pub fn empty(n: usize, why: Option<Reason>) -> Self {
        let mut grid = Self { n, values: vec![f64::NAN; n * n], reasons: vec![why; n * n] };
        for i in 0..n {
            grid.reasons[i * n + i] = None;
        }
        grid
    }

    /// Fills every cell off the diagonal.
    fn fill(n: usize, mut cell: impl FnMut(usize, usize) -> Cell) -> Self {
        let mut grid = Self::empty(n, None);
        for b in 0..n {
            for q in (0..n).filter(|q| *q != b) {
                grid.put(b, q, cell(b, q));
            }
        }
        grid
    }

    fn put(&mut self, b: usize, q: usize, cell: Cell) {
        let at = b * self.n + q;
        (self.values[at], self.reasons[at]) = match cell {
            Ok(value) => (value, None),
            Err(reason) => (f64::NAN, Some(reason)),
        };
    }

    /// Number of coins.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.n
    }

    /// The number of base `b` against quote `q`.
    ///
    /// # Panics
    /// When there is no such coin.
    #[must_use]
    pub fn get(&self, b: usize, q: usize) -> Option<f64> {
        Some(self.values[b * self.n + q]).filter(|v| !v.is_nan())
    }

    /// Why there is none. `None` on the diagonal, and where there is a number.
    ///
    /// # Panics
    /// When there is no such coin.
    #[must_use]
    pub fn reason(&self, b: usize, q: usize) -> Option<Reason> {
        self.reasons[b * self.n + q]
    }

    /// One row: NaN where there is no number.
    ///
    /// # Panics
    /// When there is no such coin.
    #[must_use]
    pub fn row(&self, b: usize) -> &[f64] {
        &self.values[b * self.n..][..self.n]
    }

    /// The reasons of one row.
    ///
    /// # Panics
    /// When there is no such coin.
    #[must_use]
    pub fn reasons(&self, b: usize) -> &[Option<Reason>] {
        &self.reasons[b * self.n..][..self.n]
    }

    /// Sets a stored number.
    pub(crate) fn set(&mut self, b: usize, q: usize, value: f64) {
        self.put(b, q, Ok(value));
    }

    /// Empty cells off the diagonal.
    #[must_use]
    pub fn nulls(&self) -> usize {
        self.reasons.iter().flatten().count()
    }

    fn cell(&self, b: usize, q: usize) -> Cell {
        let at = b * self.n + q;
        self.reasons[at].map_or_else(|| Ok(self.values[at]), Err)
    }
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
        self.derivations[b * self.grid.n + q]
    }

    /// How many prices come from there.
    #[must_use]
    pub fn count(&self, derivation: Derivation) -> usize {
        self.derivations.iter().filter(|d| **d == Some(derivation)).count()
    }
}

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
        let n = market.coins.len();
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
        let n = self.grids[0].n;
        n * n.saturating_sub(1)
    }
}

/// The change of each coin against USDT. That of USDT itself is nil.
fn coin_changes(market: &Market, changes: &[Option<Frac>]) -> Vec<Option<Frac>> {
    assert_eq!(changes.len(), market.pairs.len(), "one change for each pair");
    let mut coins = vec![None; market.coins.len()];
    let Some(usdt) = market.usdt() else { return coins };
    for (pair, change) in market.pairs.iter().zip(changes) {
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
