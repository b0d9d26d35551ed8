//! One slice from its inputs to its rows: what all seven matrices of one series at one instant are
//! computed from, what comes out, and how both are hashed and stored.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;
use watchbell_core::{Frac, Statement, Time, Value, values};

use super::cells::{Derivation, Inputs, Market, MatrixType, Previous, Reason, Slice};
use super::tiers::{Before, Flags, Frozen, Tier};
use crate::analytics::hash::{InputsHasher, ResultHasher};

/// Which slice it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its series: the label of a window such as `30m`, or `cycle`.
    pub series: Arc<str>,
    /// Its instant: the end of the window, or the cycle's stamp.
    pub ts: Time,
    /// 1, or higher for the correction of a window.
    pub version: i64,
}

/// The slice before, as far as the next one needs it, laid out over the next one's coins.
#[derive(Debug, Clone, PartialEq)]
pub struct Earlier {
    /// Which one it is.
    pub key: Key,
    /// The opening that it was compared with.
    pub opening: Time,
    /// Hash of its result.
    pub hash: String,
    /// Its prices and movements.
    pub grids: Previous,
    /// Its streaks and flips.
    pub flags: Flags,
}

/// Everything that a slice is computed from. Prices, changes and openings are those of the market's
/// pairs, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Which slice it will be.
    pub key: Key,
    /// Symbols and coins.
    pub market: Market,
    /// The price of each symbol.
    pub prices: Vec<Option<f64>>,
    /// Its change over 24 hours.
    pub changes: Vec<Option<Frac>>,
    /// Since when `pct_ref`, `ref` and `delta` look back.
    pub opening: Time,
    /// The price of each symbol then.
    pub openings: Vec<Option<f64>>,
    /// The slice before, of the same series.
    pub previous: Option<Earlier>,
}

impl Source {
    /// The hash of everything in it. The slice before counts by the hash of its own result.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hash = InputsHasher::new(&format!("matrices {}", self.key.series), self.key.ts);
        let or_null = |x: Option<f64>| x.unwrap_or(f64::NAN);
        let prices = self.prices.iter().zip(&self.changes).zip(&self.openings);
        for (pair, ((price, change), opening)) in self.market.pairs().iter().zip(prices) {
            hash.symbol(&pair.symbol);
            let more = [or_null(change.map(|c| c.0)), or_null(*opening)];
            hash.point(self.key.ts, or_null(*price), &more);
        }
        hash.symbol(&format!("opening {}", self.opening.0));
        if let Some(earlier) = &self.previous {
            let Key { ts, version, .. } = &earlier.key;
            hash.symbol(&format!("previous {} {version} {}", ts.0, earlier.hash));
        }
        hash.finish()
    }

    /// Computes the slice.
    ///
    /// # Panics
    /// When there is not one price, change and opening for each pair of the market.
    #[must_use]
    pub fn compute(self) -> Computed {
        let slice = Slice::compute(&Inputs {
            market: &self.market,
            prices: &self.prices,
            changes: &self.changes,
            openings: &self.openings,
            previous: self.previous.as_ref().map(|e| &e.grids),
        });
        let before = self.previous.as_ref().map(|e| Before {
            id_pct: &e.grids.id_pct,
            flags: &e.flags,
            same_opening: e.opening == self.opening,
        });
        let flags = Flags::advance(&self.market, slice.grid(MatrixType::IdPct), before.as_ref());
        let previous_ts = self.previous.map(|e| e.key.ts);
        Computed {
            key: self.key,
            market: self.market,
            opening: self.opening,
            previous_ts,
            slice,
            flags,
        }
    }
}

/// A slice that is ready to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Computed {
    /// Which one it is.
    pub key: Key,
    /// Symbols and coins.
    pub market: Market,
    /// The opening that it was compared with.
    pub opening: Time,
    /// The instant of the slice before.
    pub previous_ts: Option<Time>,
    /// Its matrices.
    pub slice: Slice,
    /// Streaks and flips.
    pub flags: Flags,
}

/// A slice in numbers: stored with it, and the worker's summary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Its series.
    pub series: Arc<str>,
    /// Its instant.
    pub ts: Time,
    /// Number of coins.
    pub coins: usize,
    /// Cells of all seven matrices together, diagonals aside.
    pub cells: usize,
    /// Empty ones among them.
    pub nulls: usize,
    /// Empty ones of each matrix that has some.
    pub nulls_by_type: std::collections::BTreeMap<&'static str, usize>,
    /// Prices that are those of a symbol itself.
    pub direct: usize,
    /// Prices that are the inverse of a symbol's.
    pub inverse: usize,
    /// Prices that were crossed through USDT.
    pub bridged: usize,
    /// Movements that are large enough to act on.
    pub moving: usize,
    /// Cells that have not moved for more than six slices.
    pub frozen: usize,
    /// Cells that changed their direction.
    pub flipped: usize,
    /// Since when `pct_ref`, `ref` and `delta` look back.
    pub opening: Time,
    /// The slice before.
    pub previous: Option<Time>,
}

impl Computed {
    /// The hash of its result: every cell, and the flags.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hash = ResultHasher::new(&format!("matrices {}", self.key.series), self.key.ts);
        hash.part("coins", self.market.coins());
        for of in MatrixType::ALL {
            let grid = self.slice.grid(of);
            for b in 0..self.market.coins().len() {
                // What is no number is written as null.
                hash.part(of.as_str(), grid.row(b));
                if let Some(reasons) = reasons_json(grid.reasons(b)) {
                    hash.part("reasons", &reasons);
                }
            }
        }
        hash.part("streaks", &self.flags.streaks);
        hash.part("flips", &self.flags.flips);
        hash.finish()
    }

    /// The slice in numbers.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let n = self.market.coins().len();
        let id_pct = self.slice.grid(MatrixType::IdPct);
        let moving = (0..n)
            .flat_map(|b| id_pct.row(b))
            .filter(|id| !id.is_nan() && Tier::of(Frac(**id)) != Tier::None)
            .count();
        let by_type = MatrixType::ALL.map(|of| (of.as_str(), self.slice.grid(of).nulls()));
        Summary {
            series: Arc::clone(&self.key.series),
            ts: self.key.ts,
            coins: n,
            cells: self.slice.expected() * MatrixType::ALL.len(),
            nulls: by_type.iter().map(|(_, nulls)| nulls).sum(),
            nulls_by_type: by_type.into_iter().filter(|(_, nulls)| *nulls > 0).collect(),
            direct: self.slice.rates.count(Derivation::Direct),
            inverse: self.slice.rates.count(Derivation::Inverse),
            bridged: self.slice.rates.count(Derivation::Bridged),
            moving,
            frozen: self.flags.frozen.iter().filter(|f| **f == Frozen::Long).count(),
            flipped: self.flags.flipped.iter().filter(|f| **f).count(),
            opening: self.opening,
            previous: self.previous_ts,
        }
    }

    /// The rows of the slice, each table sorted by its key.
    ///
    /// # Errors
    /// When the summary does not serialise, which plain numbers always do.
    pub fn statements(&self, hash: &str) -> Result<Vec<Statement>, serde_json::Error> {
        let coins = self.market.coins();
        let Key { series, ts, version } = &self.key;
        let mut by_name: Vec<usize> = (0..coins.len()).collect();
        by_name.sort_by(|a, b| coins[*a].cmp(&coins[*b]));
        let mut types = MatrixType::ALL;
        types.sort_by_key(|of| of.as_str());
        let mut rows = Vec::with_capacity(types.len() * coins.len() * 7);
        for of in types {
            let (grid, of) = (self.slice.grid(of), Arc::<str>::from(of.as_str()));
            for &b in &by_name {
                rows.extend(values![
                    Arc::clone(series),
                    *ts,
                    *version,
                    Arc::clone(&of),
                    Arc::clone(&coins[b]),
                    numbers_json(grid.row(b)),
                    reasons_json(grid.reasons(b)),
                ]);
            }
        }
        let n = coins.len();
        let mut flags = Vec::with_capacity(n * 8);
        for &b in &by_name {
            let row = b * n..(b + 1) * n;
            flags.extend(values![
                Arc::clone(series),
                *ts,
                *version,
                Arc::clone(&coins[b]),
                integers_json(self.flags.streaks[row.clone()].iter().copied()),
                integers_json(self.flags.frozen[row.clone()].iter().map(|f| f.level().into())),
                integers_json(self.flags.flips[row.clone()].iter().copied()),
                integers_json(self.flags.flipped[row].iter().copied().map(u32::from)),
            ]);
        }
        let slice = values![
            Arc::clone(series),
            *ts,
            *version,
            serde_json::to_string(coins)?,
            self.opening,
            serde_json::to_string(&self.summary())?,
            self.previous_ts,
            hash,
        ];
        Ok(vec![
            Statement::new(
                "insert into matrices.slices
                   (series, ts_ms, version, coins, opening_ts, summary, previous_ts, result_hash)
                 values ($1, $2, $3, $4, $5, $6, $7, $8)",
                slice,
            ),
            Statement::bulk(
                "insert into matrices.rows
                   (series, ts_ms, version, matrix_type, base, cells, reasons)
                 values ($1, $2, $3, $4, $5, $6, $7)",
                7,
                rows,
            ),
            Statement::bulk(
                "insert into matrices.flags
                   (series, ts_ms, version, base, streaks, frozen, flips, flipped)
                 values ($1, $2, $3, $4, $5, $6, $7, $8)",
                8,
                flags,
            ),
        ])
    }
}

/// A row as JSON: each number in its shortest form that reads back to the same bits, NaN as null.
fn numbers_json(row: &[f64]) -> String {
    let mut text = Vec::with_capacity(row.len() * 22 + 2);
    text.push(b'[');
    for (i, value) in row.iter().enumerate() {
        if i > 0 {
            text.push(b',');
        }
        serde_json::to_writer(&mut text, value).expect("a vector takes any number");
    }
    text.push(b']');
    String::from_utf8(text).expect("JSON is UTF-8")
}

/// The reasons of a row as JSON, or none where every cell has a number.
fn reasons_json(row: &[Option<Reason>]) -> Option<String> {
    row.iter().any(Option::is_some).then(|| {
        let words: Vec<String> = row
            .iter()
            .map(|r| r.map_or_else(|| "null".to_owned(), |r| format!("\"{}\"", r.as_str())))
            .collect();
        format!("[{}]", words.join(","))
    })
}

fn integers_json(row: impl ExactSizeIterator<Item = u32>) -> String {
    let mut text = String::with_capacity(row.len() * 2 + 2);
    text.push('[');
    for (i, n) in row.enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(text, "{comma}{n}").expect("writing to a string does not fail");
    }
    text.push(']');
    text
}

/// Stores the opening prices that a slice met first, given as [`opening_row`]s.
pub(crate) fn insert_openings(rows: Vec<Value>) -> Statement {
    Statement::bulk(
        "insert into matrices.openings (series, opening_ts, symbol, at, price)
         values ($1, $2, $3, $4, $5)",
        5,
        rows,
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::cells::tests::market;
    use super::*;

    fn source(prices: [f64; 2], previous: Option<Earlier>) -> Source {
        Source {
            key: Key { series: "30m".into(), ts: Time(1_800_000), version: 1 },
            market: market(&["BTCUSDT", "ETHUSDT"]),
            prices: prices.map(Some).to_vec(),
            changes: vec![Some(Frac(0.02)), None],
            opening: Time(0),
            openings: vec![Some(49_000.0), None],
            previous,
        }
    }

    #[test]
    fn hashes_change_with_what_they_are_of() {
        let (a, b) = (source([50_000.0, 2_500.0], None), source([50_000.0, 2_500.25], None));
        assert_ne!(a.hash(), b.hash());
        assert_eq!(a.hash(), source([50_000.0, 2_500.0], None).hash());
        let (x, y) = (a.clone().compute(), b.compute());
        assert_ne!(x.hash(), y.hash());
        let mut later = a;
        later.opening = Time(1);
        assert_ne!(later.hash(), source([50_000.0, 2_500.0], None).hash());
        // The opening's prices are in the cells, its stamp is not.
        assert_eq!(later.compute().hash(), x.hash());
    }

    #[test]
    fn a_slice_counts_its_cells() {
        let computed = source([50_000.0, 2_500.0], None).compute();
        let s = computed.summary();
        assert_eq!((s.coins, s.cells), (3, 42));
        assert_eq!((s.direct, s.inverse, s.bridged), (2, 2, 2));
        // No movement without a slice before; ETH has no change and no opening.
        let nulls = [
            ("delta", 4),
            ("id_pct", 6),
            ("pct24h", 4),
            ("pct_drv", 6),
            ("pct_ref", 4),
            ("ref", 4),
        ];
        assert_eq!(s.nulls_by_type, nulls.into());
        assert_eq!(s.nulls, 28);
        let statements = computed.statements("hash").unwrap();
        let runs: Vec<_> = statements.iter().map(|s| (s.target(), s.runs())).collect();
        assert_eq!(runs, [("matrices.slices", 1), ("matrices.rows", 21), ("matrices.flags", 3)]);
        // BTC of the benchmark comes first, against USDT, itself and ETH.
        let Value::Text(cells) = &statements[1].params[5] else { panic!("text") };
        assert_eq!(&**cells, "[50000.0,null,20.0]");
    }

    proptest! {
        #[test]
        fn numbers_read_back_to_the_same_bits(row in prop::collection::vec(any::<f64>(), 0..20)) {
            let row: Vec<f64> =
                row.into_iter().map(|v| if v.is_finite() { v } else { f64::NAN }).collect();
            let back: Vec<Option<f64>> = serde_json::from_str(&numbers_json(&row)).unwrap();
            for (have, want) in back.iter().zip(&row) {
                prop_assert_eq!(have.unwrap_or(f64::NAN).to_bits(), want.to_bits());
            }
        }
    }
}
