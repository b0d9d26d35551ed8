//! The selected pair of a cycle, and what else its two coins could be traded for (section 6.3).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use watchbell_core::Frac;

use crate::matrices::cells::MatrixType;
use crate::matrices::stored::Stored;
use crate::matrices::tiers::direction;

/// Slices without movement after which a trade is called frozen.
const FROZEN_AFTER: u32 = 5;
/// Bins of the histogram of `pct_drv`.
const BINS: usize = 16;

/// What the window's vectors say of a coin's market against USDT, on a scale of plus or minus 100.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Measures {
    pub(crate) inner: f64,
    pub(crate) outer: f64,
    pub(crate) tendency: f64,
    pub(crate) swap: f64,
}

/// How a trade has been turning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct SwapTag {
    /// Changes of direction since the opening.
    flips: u32,
    /// 1 for what fell, -1 for what rose.
    direction: i8,
    /// It has not moved for five slices.
    frozen: bool,
}

/// One trade.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Edge {
    from: Arc<str>,
    to: Arc<str>,
    benchmark: Option<f64>,
    id_pct: Option<Frac>,
    /// That of the coin that is given away; none where it has no market against USDT.
    v_tendency: Option<f64>,
    swap_tag: SwapTag,
}

/// What one other coin offers to the pair.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    candidate: Arc<str>,
    /// Quote to candidate, candidate to base, base to candidate.
    edges: [Edge; 3],
    /// What quote to candidate to base to quote leaves, as a fraction.
    round_trip: Option<Frac>,
}

/// Counts of the last values of the pair's `pct_drv`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(crate) struct Histogram {
    lo: f64,
    hi: f64,
    counts: Vec<u32>,
}

/// A coin of the pair.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Identity {
    coin: Arc<str>,
    symbol: Arc<str>,
    /// In USDT.
    price: Option<f64>,
}

/// The snapshot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Snapshot {
    pub(crate) base: usize,
    pub(crate) quote: usize,
    pub(crate) candidates: Vec<Arc<str>>,
    pub(crate) identity: [Identity; 2],
    pub(crate) rows: Vec<Row>,
    /// Whether both coins of the pair have measures, USDT aside.
    pub(crate) str_available: bool,
    pub(crate) measures: BTreeMap<Arc<str>, Measures>,
    pub(crate) histogram: Histogram,
}

/// What a snapshot is taken from, beside the slice.
#[derive(Debug)]
pub(crate) struct Known<'a> {
    /// Measures by coin.
    pub(crate) measures: &'a BTreeMap<Arc<str>, Measures>,
    /// Names by coin.
    pub(crate) names: &'a BTreeMap<Arc<str>, Arc<str>>,
    /// Prices in USDT, in the order of the coins.
    pub(crate) prices: &'a [Option<f64>],
}

/// The pair of a snapshot: the wanted one if the slice has both of its coins, else the first two coins
/// after USDT, else the only coin against USDT. None for a slice of fewer coins.
pub(crate) fn select(slice: &Stored, wanted: Option<&(String, String)>) -> Option<(usize, usize)> {
    let wanted = wanted.and_then(|(b, q)| Some((slice.find(b)?, slice.find(q)?)));
    if let Some((b, q)) = wanted.filter(|(b, q)| b != q) {
        return Some((b, q));
    }
    let usdt = slice.find(crate::matrices::cells::USDT);
    let mut coins = (0..slice.coins.len()).filter(|c| Some(*c) != usdt);
    let base = coins.next()?;
    Some((base, coins.next().or(usdt)?))
}

/// Takes it. `drv` are the last values of the pair's `pct_drv`.
pub(crate) fn take(
    slice: &Stored,
    (base, quote): (usize, usize),
    known: &Known<'_>,
    drv: &[f64],
) -> Snapshot {
    let (prices, moves) = (slice.grid(MatrixType::Benchmark), slice.grid(MatrixType::IdPct));
    let edge = |from: usize, to: usize| {
        let id_pct = moves.get(from, to).map(Frac);
        Edge {
            from: Arc::clone(&slice.coins[from]),
            to: Arc::clone(&slice.coins[to]),
            benchmark: prices.get(from, to),
            id_pct,
            v_tendency: known.measures.get(&slice.coins[from]).map(|m| m.tendency),
            swap_tag: SwapTag {
                flips: slice.flags.flips(from, to),
                direction: id_pct.map_or(0, direction),
                frozen: slice.flags.streak(from, to) >= FROZEN_AFTER,
            },
        }
    };
    let others = (0..slice.coins.len()).filter(|c| *c != base && *c != quote);
    let rows: Vec<Row> = others
        .map(|i| Row {
            candidate: Arc::clone(&slice.coins[i]),
            edges: [edge(quote, i), edge(i, base), edge(base, i)],
            round_trip: (|| {
                let way = prices.get(quote, i)? * prices.get(i, base)? * prices.get(base, quote)?;
                Some(Frac(way - 1.0)).filter(|f| f.0.is_finite())
            })(),
        })
        .collect();
    let pair = [base, quote].map(|c| Arc::clone(&slice.coins[c]));
    let measures: BTreeMap<_, _> =
        pair.iter().filter_map(|c| Some((Arc::clone(c), *known.measures.get(c)?))).collect();
    let has = |c: &Arc<str>| &**c == crate::matrices::cells::USDT || measures.contains_key(c);
    Snapshot {
        base,
        quote,
        candidates: rows.iter().map(|r| Arc::clone(&r.candidate)).collect(),
        identity: [base, quote].map(|c| Identity {
            coin: Arc::clone(&slice.coins[c]),
            symbol: Arc::clone(known.names.get(&slice.coins[c]).unwrap_or(&slice.coins[c])),
            price: known.prices[c],
        }),
        str_available: pair.iter().all(has),
        rows,
        measures,
        histogram: histogram(drv),
    }
}

/// Equal-width counts between the least and the greatest value; all in the first bin where they are
/// the same.
fn histogram(values: &[f64]) -> Histogram {
    let lo = values.iter().copied().fold(f64::INFINITY, f64::min);
    let hi = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if values.is_empty() {
        return Histogram::default();
    }
    let width = (hi - lo) / BINS as f64;
    let mut counts = vec![0; BINS];
    for v in values {
        let bin = if width > 0.0 { ((v - lo) / width) as usize } else { 0 };
        counts[bin.min(BINS - 1)] += 1;
    }
    Histogram { lo, hi, counts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_holds_every_value() {
        let h = histogram(&[0.0, 0.1, 0.5, 1.0, 1.0]);
        assert_eq!((h.lo, h.hi, h.counts.iter().sum::<u32>()), (0.0, 1.0, 5));
        assert_eq!((h.counts[0], h.counts[1], h.counts[8], h.counts[15]), (1, 1, 1, 2));
        assert_eq!(histogram(&[0.25; 3]).counts[0], 3);
        assert_eq!(histogram(&[]), Histogram::default());
    }
}
