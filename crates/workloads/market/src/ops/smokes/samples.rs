//! Smokes about what windows are made of: rows of stats and vectors, points, the histogram.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use watchbell_core::{Millis, Time, values};
use watchbell_db::DbError;

use super::super::{Item, Level};
use super::Ground;
use crate::analytics::idhr::{BINS_PER_PRIMARY, IDHR_BINS};
use crate::analytics::{Scratch, WindowInput, compute_window};
use crate::universe::{self, BASE};
use crate::window::series_name;

/// Points of each symbol that are looked at.
const POINTS: i64 = 20;
/// Prices that the histogram is made of.
const PRICES: i64 = 512;
/// Fewer say nothing.
const FEWEST_PRICES: usize = 32;
/// Primaries and bins that a histogram selects at most.
const SELECTED: usize = 16;

/// The newest complete window of a series, and its scope.
pub(super) async fn newest_complete(
    g: &Ground<'_>,
    length: Millis,
) -> Result<Option<Complete>, DbError> {
    let row =
        g.db.query_opt(
            "select start_at, version, scope, result_hash, inputs_hash from ops.windows
             where series = $1 and state = 'complete' order by start_at desc, version desc limit 1",
            values![series_name(length)],
        )
        .await?;
    row.map(|row| {
        let scope = row.opt_json(2)?.unwrap_or_default();
        let words = scope.as_array().into_iter().flatten();
        Ok(Complete {
            start: row.time(0)?,
            version: row.i64(1)?,
            scope: words.filter_map(|w| w.as_str().map(str::to_owned)).collect(),
            result: row.text(3)?.to_owned(),
            inputs: row.text(4)?.to_owned(),
        })
    })
    .transpose()
}

/// A complete window.
pub(super) struct Complete {
    pub(super) start: Time,
    pub(super) version: i64,
    pub(super) scope: Vec<String>,
    pub(super) result: String,
    pub(super) inputs: String,
}

/// What one symbol has in one window (the codes of section 9.5).
fn code(klines: bool, books: bool, stats: bool, vectors: bool) -> &'static str {
    match (klines || books, stats, vectors) {
        (true, false, _) => "MISSING_STATS",
        (_, true, false) => "MISSING_VECTORS",
        _ if !klines => "NO_KLINES_FOR_WINDOW",
        _ if !books => "NO_ORDERBOOK_SNAPSHOTS",
        _ => "OK_OR_EMPTY",
    }
}

/// Every symbol in the scope of the newest complete window of each label has its rows.
pub(super) async fn gaps(g: &Ground<'_>) -> Result<Vec<Item>, DbError> {
    let mut items = Vec::new();
    for length in g.config.ascending() {
        let label = length.exact();
        let (key, name) = (format!("straux-gaps:{label}"), format!("{label} rows"));
        let Some(newest) = newest_complete(g, length).await? else {
            items.push(g.item(key, name, Level::Warn, Value::Null, "no complete window yet"));
            continue;
        };
        let (from, to) = (newest.start, newest.start + length);
        let mut codes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for symbol in &newest.scope {
            let row =
                g.db.query_one(
                    "select
                       (select count(*) from (select 1 from ingest.kline_raw where symbol = $1
                         and interval_label = $2 and open_time >= $3 and open_time < $4 limit 1) k),
                       (select count(*) from (select 1 from str_aux.samples_5s where symbol = $1
                         and ts > $3 and ts <= $4 limit 1) p),
                       (select count(*) from str_aux.window_stats where symbol = $1
                         and window_label = $5 and window_start = $3 and version = $6),
                       (select count(*) from str_aux.window_vectors where symbol = $1
                         and window_label = $5 and window_start = $3 and version = $6)",
                    values![symbol.as_str(), BASE, from, to, label.as_str(), newest.version],
                )
                .await?;
            let has = |i| Ok::<bool, DbError>(row.i64(i)? > 0);
            codes.entry(code(has(0)?, has(1)?, has(2)?, has(3)?)).or_default().push(symbol);
        }
        let bad = ["MISSING_STATS", "MISSING_VECTORS"];
        let failing: Vec<&str> =
            bad.iter().filter_map(|c| codes.get(c)).flatten().copied().collect();
        let level = if !failing.is_empty() {
            Level::Err
        } else {
            Level::Warn.unless(!codes.contains_key("NO_KLINES_FOR_WINDOW"))
        };
        let counts: BTreeMap<&str, usize> = codes.iter().map(|(c, s)| (*c, s.len())).collect();
        let said = if failing.is_empty() {
            format!("the window of {from} has all rows of its {} symbols", newest.scope.len())
        } else {
            format!("the window of {from} lacks rows of {}", failing.join(", "))
        };
        items.push(
            g.item(key, name, level, json!(counts), said)
                .meta(json!({ "start": from, "version": newest.version, "codes": codes })),
        );
    }
    Ok(items)
}

/// The newest points of each symbol are not empty, and at most half of them are flagged.
pub(super) async fn sampling(g: &Ground<'_>) -> Result<Vec<Item>, DbError> {
    if !g.config.sampling {
        let said = "sampling is switched off";
        return Ok(vec![g.item("sampling:points", "points", Level::Ok, Value::Null, said)]);
    }
    let (mut items, mut any) = (Vec::new(), false);
    for symbol in universe::enabled(g.db).await? {
        let rows =
            g.db.query(
                "select bucket_count, quality_flags from str_aux.samples_5s where symbol = $1
                 order by ts desc limit $2",
                values![Arc::clone(&symbol), POINTS],
            )
            .await?;
        let (mut empty, mut flagged) = (0, 0);
        for row in &rows {
            let flags = row.json(1)?;
            let set = |name: &str| flags.get(name).and_then(Value::as_bool).unwrap_or(false);
            empty += usize::from(row.i64(0)? == 0);
            flagged += usize::from(set("empty_bucket") || set("empty_book"));
        }
        any |= !rows.is_empty();
        let n = rows.len();
        let (level, said) = if n == 0 {
            (Level::Err, "it has no points".to_owned())
        } else if empty == n {
            (Level::Err, format!("all of the newest {n} points are empty"))
        } else if flagged * 2 > n {
            (Level::Err, format!("{flagged} of the newest {n} points have no book"))
        } else {
            (Level::Ok, format!("{} of the newest {n} points are good", n - flagged))
        };
        items.push(
            g.item(format!("sampling:{symbol}"), format!("{symbol} points"), level, n, said)
                .meta(json!({ "origin": "order books", "empty": empty, "flagged": flagged })),
        );
    }
    if !any {
        let said = "no rows yet: the sampler has not run here";
        return Ok(vec![g.item("sampling:points", "points", Level::Warn, Value::Null, said)]);
    }
    Ok(items)
}

/// The histogram of the newest prices of the first symbol selects what it must.
pub(super) async fn idhr(g: &Ground<'_>) -> Result<Vec<Item>, DbError> {
    let (key, name) = ("idhr:histogram", "histogram");
    let Some(symbol) = universe::enabled(g.db).await?.into_iter().next() else {
        return Ok(vec![g.item(key, name, Level::Err, Value::Null, "no symbol is enabled")]);
    };
    let (origin, mut prices) = match mids(g, &symbol).await? {
        points if points.len() >= FEWEST_PRICES => ("points", points),
        _ => ("klines", closes(g, &symbol).await?),
    };
    prices.reverse();
    if prices.len() < FEWEST_PRICES {
        let said = format!("{} prices of {symbol}: {FEWEST_PRICES} are needed", prices.len());
        return Ok(vec![g.item(key, name, Level::Warn, prices.len(), said)]);
    }
    let (times, prices): (Vec<Time>, Vec<f64>) = prices.into_iter().unzip();
    let weights = vec![1.0; prices.len()];
    let input = match WindowInput::new(&prices, &times, &weights) {
        Ok(input) => input,
        Err(e) => {
            let said = format!("{symbol}: {e}");
            return Ok(vec![g.item(key, name, Level::Err, Value::Null, said)]);
        }
    };
    let stats = compute_window(&input, &mut Scratch::default());
    let (primaries, bins) = (&stats.idhr.selected_primaries, &stats.idhr.selected_bins);
    // What is selected bounds where the probabilities lie; each bin of a primary has its share.
    let wrong: Vec<&str> = [
        (stats.idhr.bins != IDHR_BINS, "the number of bins"),
        (!(1..=SELECTED).contains(&primaries.len()), "the number of primaries"),
        (!(1..=SELECTED).contains(&bins.len()), "the number of bins that select them"),
        (
            bins.iter().any(|b| !primaries.contains(&(b / BINS_PER_PRIMARY as u16))),
            "a bin outside the primaries",
        ),
        (
            !(0.0..=1.0 + 1e-9).contains(&(stats.mode.v_inner + stats.mode.v_outer)),
            "the sum of probabilities",
        ),
        (!(f64::MIN_POSITIVE..).contains(&stats.idhr.std_r), "the deviation"),
    ]
    .iter()
    .filter_map(|(bad, what)| bad.then_some(*what))
    .collect();
    let said = if wrong.is_empty() {
        format!(
            "{} prices of {symbol} from {origin}: {} primaries by {} bins",
            prices.len(),
            primaries.len(),
            bins.len()
        )
    } else {
        format!("{symbol}: wrong are {}", wrong.join(", "))
    };
    Ok(vec![
        g.item(key, name, Level::Err.unless(wrong.is_empty()), prices.len(), said)
            .meta(json!({ "symbol": &*symbol, "origin": origin, "primaries": primaries })),
    ])
}

/// Newest first.
async fn mids(g: &Ground<'_>, symbol: &Arc<str>) -> Result<Vec<(Time, f64)>, DbError> {
    let rows =
        g.db.query(
            "select ts, mid from str_aux.samples_5s where symbol = $1 and mid is not null
             order by ts desc limit $2",
            values![Arc::clone(symbol), PRICES],
        )
        .await?;
    rows.iter().map(|row| Ok((row.time(0)?, row.f64(1)?))).collect()
}

/// Newest first.
async fn closes(g: &Ground<'_>, symbol: &Arc<str>) -> Result<Vec<(Time, f64)>, DbError> {
    let rows = g
        .db
        .query(
            "select open_time, close from ingest.kline_raw where symbol = $1 and interval_label = $2
             order by open_time desc limit $3",
            values![Arc::clone(symbol), BASE, PRICES],
        )
        .await?;
    rows.iter().map(|row| Ok((row.time(0)?, row.f64(1)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_of_a_window_has_one_code() {
        for ((klines, books, stats, vectors), want) in [
            ((true, true, true, true), "OK_OR_EMPTY"),
            ((true, false, false, false), "MISSING_STATS"),
            ((false, true, false, false), "MISSING_STATS"),
            ((true, true, true, false), "MISSING_VECTORS"),
            ((false, false, true, false), "MISSING_VECTORS"),
            ((false, true, true, true), "NO_KLINES_FOR_WINDOW"),
            ((true, false, true, true), "NO_ORDERBOOK_SNAPSHOTS"),
            ((false, false, false, false), "NO_KLINES_FOR_WINDOW"),
        ] {
            assert_eq!(code(klines, books, stats, vectors), want);
        }
    }
}
