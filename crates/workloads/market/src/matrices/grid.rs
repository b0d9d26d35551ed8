//! A square of cells, and why a cell is empty.

/// A divisor below this cannot be divided by.
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

    pub(super) const fn index(self) -> usize {
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
/// A cell on its way: a number, or why there is none.
pub(super) type Cell = Result<f64, Reason>;

pub(super) fn finite(value: f64) -> Cell {
    // Adding zero takes the sign from a minus zero, which would print as `-0.0`.
    if value.is_finite() { Ok(value + 0.0) } else { Err(Reason::NotFinite) }
}

pub(super) fn divide(value: f64, by: f64) -> Cell {
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
    pub(super) fn fill(n: usize, mut cell: impl FnMut(usize, usize) -> Cell) -> Self {
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

    pub(super) fn cell(&self, b: usize, q: usize) -> Cell {
        let at = b * self.n + q;
        self.reasons[at].map_or_else(|| Ok(self.values[at]), Err)
    }
}
