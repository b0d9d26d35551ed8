//! What a slice is made from, as it is stored: the slice before, candles, the opening.

use std::collections::BTreeMap;
use std::sync::Arc;

use watchbell_core::{Frac, Millis, Statement, Time, Value, values};
use watchbell_db::{Database, DbError, Row};

use super::cells::{Grid, Market, MatrixType, Previous};
use super::slice::{Earlier, Key, insert_openings};
use super::tiers::{Flags, Frozen};
use super::view::PairPoint;
use crate::universe::{self, BASE, MINUTE};

/// What a change over 24 hours looks back on.
const DAY: Millis = Millis::from_days(1);

/// A stored document that is not what was written there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
    /// Text that is not the list that belongs there.
    #[error(
        "{table} of {series} at {ts} holds a {column} that is not what was stored: `watchbell db check` says whether the database is damaged"
    )]
    Document {
        /// Table.
        table: &'static str,
        /// Column.
        column: &'static str,
        /// Which slice.
        series: String,
        /// Its instant.
        ts: Time,
    },
}

/// Parses a JSON column of a slice's row.
pub(crate) fn document<T: serde::de::DeserializeOwned>(
    row: &Row,
    index: usize,
    table: &'static str,
    column: &'static str,
    key: (&str, Time),
) -> Result<T, ReadError> {
    serde_json::from_str(row.text(index)?).map_err(|_| ReadError::Document {
        table,
        column,
        series: key.0.to_owned(),
        ts: key.1,
    })
}

/// Symbols with their coins, in the order of `symbols`; from the universe where it knows them.
pub(crate) async fn market(db: &Database, symbols: &[Arc<str>]) -> Result<Market, DbError> {
    let rows = db
        .query("select symbol, base_asset, quote_asset from settings.coin_universe", Vec::new())
        .await?;
    let mut known = BTreeMap::new();
    for row in &rows {
        known.insert(row.shared_text(0)?, (row.shared_text(1)?, row.shared_text(2)?));
    }
    Ok(Market::new(symbols.iter().filter_map(|symbol| {
        let (base, quote) = known
            .get(symbol)
            .cloned()
            .or_else(|| universe::split(symbol).ok().map(|(b, q)| (Arc::from(b), Arc::from(q))))?;
        Some((Arc::clone(symbol), base, quote))
    })))
}

/// A slice as it is stored, with some of its matrices.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    /// Which one it is.
    pub(crate) key: Key,
    /// Its coins, in the order of rows and columns.
    pub(crate) coins: Vec<Arc<str>>,
    /// The opening that it was compared with.
    pub(crate) opening: Time,
    /// Hash of its result.
    pub(crate) hash: String,
    /// The matrices that were asked for.
    grids: BTreeMap<MatrixType, Grid>,
    /// Streaks and flips.
    pub(crate) flags: Flags,
}

impl Stored {
    /// The newest version of the slice of `series` at `ts`, or before it where `at` says so.
    async fn load(
        db: &Database,
        series: &Arc<str>,
        ts: Time,
        at: At,
        types: &[MatrixType],
    ) -> Result<Option<Self>, ReadError> {
        const HEAD: [&str; 2] = [
            "select ts_ms, version, coins, opening_ts, result_hash from matrices.slices
             where series = $1 and ts_ms = $2 order by version desc limit 1",
            "select ts_ms, version, coins, opening_ts, result_hash from matrices.slices
             where series = $1 and ts_ms < $2 order by ts_ms desc, version desc limit 1",
        ];
        let head = db.query_opt(HEAD[at as usize], values![Arc::clone(series), ts]).await?;
        let Some(head) = head else { return Ok(None) };
        let key = Key { series: Arc::clone(series), ts: head.time(0)?, version: head.i64(1)? };
        let coins: Vec<Arc<str>> =
            document(&head, 2, "matrices.slices", "coins", (series, key.ts))?;
        let n = coins.len();
        let places: BTreeMap<&str, usize> = coins.iter().map(|c| &**c).zip(0..).collect();
        let mut grids: BTreeMap<_, _> =
            types.iter().map(|of| (*of, Grid::empty(n, None))).collect();
        for (of, grid) in &mut grids {
            let rows = db
                .query(
                    "select base, cells from matrices.rows
                     where series = $1 and ts_ms = $2 and version = $3 and matrix_type = $4",
                    values![Arc::clone(series), key.ts, key.version, of.as_str()],
                )
                .await?;
            for row in &rows {
                let Some(&b) = places.get(row.text(0)?) else { continue };
                let cells: Vec<Option<f64>> =
                    document(row, 1, "matrices.rows", "cells", (series, key.ts))?;
                for (q, value) in cells.into_iter().enumerate().take(n) {
                    if let Some(value) = value {
                        grid.set(b, q, value);
                    }
                }
            }
        }
        let rows = db
            .query(
                "select base, streaks, frozen, flips from matrices.flags
                 where series = $1 and ts_ms = $2 and version = $3",
                values![Arc::clone(series), key.ts, key.version],
            )
            .await?;
        let mut flags = Flags::none(n);
        for row in &rows {
            let Some(&b) = places.get(row.text(0)?) else { continue };
            let counts = |index, column| -> Result<Vec<u32>, ReadError> {
                document(row, index, "matrices.flags", column, (series, key.ts))
            };
            let (streaks, frozen, flips) =
                (counts(1, "streaks")?, counts(2, "frozen")?, counts(3, "flips")?);
            for (q, ((streak, frozen), flips)) in
                streaks.into_iter().zip(frozen).zip(flips).enumerate().take(n)
            {
                let at = b * n + q;
                flags.streaks[at] = streak;
                flags.frozen[at] = Frozen::stored(frozen);
                flags.flips[at] = flips;
            }
        }
        let (opening, hash) = (head.time(3)?, head.text(4)?.to_owned());
        Ok(Some(Self { key, coins, opening, hash, grids, flags }))
    }

    /// The newest version of the slice of `series` at `ts`.
    pub(crate) async fn exactly(
        db: &Database,
        series: &Arc<str>,
        ts: Time,
        types: &[MatrixType],
    ) -> Result<Option<Self>, ReadError> {
        Self::load(db, series, ts, At::Exactly, types).await
    }

    /// One of the matrices that were asked for.
    pub(crate) fn grid(&self, of: MatrixType) -> &Grid {
        self.grids.get(&of).expect("asked for when it was loaded")
    }

    /// The place of a coin.
    pub(crate) fn find(&self, coin: &str) -> Option<usize> {
        self.coins.iter().position(|c| &**c == coin)
    }

    /// Laid out over the coins of another slice.
    fn over(&self, market: &Market) -> Earlier {
        let n = market.coins().len();
        // Where each coin of the other slice is in this one.
        let places: Vec<Option<usize>> = market.coins().iter().map(|c| self.find(c)).collect();
        let mut grids = Previous { benchmark: Grid::empty(n, None), id_pct: Grid::empty(n, None) };
        let mut flags = Flags::none(n);
        for b in 0..n {
            for q in 0..n {
                let (Some(from_b), Some(from_q)) = (places[b], places[q]) else { continue };
                for (of, into) in [
                    (MatrixType::Benchmark, &mut grids.benchmark),
                    (MatrixType::IdPct, &mut grids.id_pct),
                ] {
                    if let Some(value) = self.grid(of).get(from_b, from_q) {
                        into.set(b, q, value);
                    }
                }
                let (at, from) = (b * n + q, from_b * self.coins.len() + from_q);
                flags.streaks[at] = self.flags.streaks[from];
                flags.frozen[at] = self.flags.frozen[from];
                flags.flips[at] = self.flags.flips[from];
            }
        }
        let (key, opening, hash) = (self.key.clone(), self.opening, self.hash.clone());
        Earlier { key, opening, hash, grids, flags }
    }
}

/// Which slice of a series is meant by an instant.
#[derive(Debug, Clone, Copy)]
enum At {
    Exactly,
    Before,
}

/// The newest slice of `series` before `ts`, laid out over the coins of `market`.
pub(crate) async fn earlier(
    db: &Database,
    series: &Arc<str>,
    ts: Time,
    market: &Market,
) -> Result<Option<Earlier>, ReadError> {
    let types = [MatrixType::Benchmark, MatrixType::IdPct];
    let stored = Stored::load(db, series, ts, At::Before, &types).await?;
    Ok(stored.map(|s| s.over(market)))
}

/// The change of each symbol over the 24 hours to `end`, from its candles: the close at the end by
/// the close a day before. None where either candle is missing.
pub(crate) async fn changes_24h(
    db: &Database,
    market: &Market,
    end: Time,
) -> Result<Vec<Option<Frac>>, DbError> {
    let (last, first) = (end - MINUTE, end - MINUTE - DAY);
    // `cross join`: symbol by symbol, never through all candles, whatever the planner knows of sizes.
    let rows = db
        .query(
            "select u.symbol, k.open_time, k.close
             from settings.coin_universe u cross join ingest.kline_raw k
             where k.symbol = u.symbol and k.interval_label = $1 and k.open_time in ($2, $3)",
            values![BASE, last, first],
        )
        .await?;
    let mut closes = BTreeMap::new();
    for row in &rows {
        closes.insert((row.shared_text(0)?, row.time(1)?), row.f64(2)?);
    }
    Ok(of_pairs(market, |symbol| {
        let close = |at| closes.get(&(Arc::clone(symbol), at)).copied();
        let (last, first) = (close(last)?, close(first).filter(|c| *c > 0.0)?);
        Some(Frac(last / first - 1.0))
    }))
}

/// The prices of an opening: those that are stored already, and those that candles now have.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Opening {
    /// Its instant.
    pub(crate) ts: Time,
    /// The price of each pair of the market.
    pub(crate) prices: Vec<Option<f64>>,
    /// Rows to store with the slice.
    new: Vec<Value>,
}

impl Opening {
    /// Stores what was not stored yet.
    pub(crate) fn statement(self) -> Option<Statement> {
        (!self.new.is_empty()).then(|| insert_openings(self.new))
    }
}

/// The opening of a slice at `ts`: that of the session that is open then (of `label`, or of any),
/// else the midnight in UTC before `day_of`.
pub(crate) async fn opening(
    db: &Database,
    market: &Market,
    series: &Arc<str>,
    label: Option<&str>,
    ts: Time,
    day_of: Time,
) -> Result<Opening, DbError> {
    let session = sessions_at(db, label, ts).await?.into_iter().next();
    let at = session.map_or_else(|| day_of.floor(DAY), |s| s.opening);
    let mut known: BTreeMap<Arc<str>, f64> = BTreeMap::new();
    let rows = db
        .query(
            "select symbol, price from matrices.openings where series = $1 and opening_ts = $2",
            values![Arc::clone(series), at],
        )
        .await?;
    for row in &rows {
        known.insert(row.shared_text(0)?, row.f64(1)?);
    }
    let mut new = Vec::new();
    if market.pairs().iter().any(|pair| !known.contains_key(&pair.symbol)) {
        // The earliest candle at or after the opening that was closed by `ts`.
        let rows = db
            .query(
                "select u.symbol, k.open_time, k.close
                 from settings.coin_universe u cross join ingest.kline_raw k
                 where k.symbol = u.symbol and k.interval_label = $1
                   and k.open_time = (
                     select min(m.open_time) from ingest.kline_raw m
                     where m.symbol = u.symbol and m.interval_label = $1
                       and m.open_time >= $2 and m.open_time < $3)",
                values![BASE, at, ts - MINUTE + Millis(1)],
            )
            .await?;
        let mut candles = BTreeMap::new();
        for row in &rows {
            candles.insert(row.shared_text(0)?, (row.time(1)?, row.f64(2)?));
        }
        for pair in market.pairs() {
            if let Some((open_time, close)) = candles.get(&pair.symbol)
                && !known.contains_key(&pair.symbol)
            {
                let symbol = Arc::clone(&pair.symbol);
                new.extend(values![
                    Arc::clone(series),
                    at,
                    Arc::clone(&symbol),
                    *open_time,
                    *close
                ]);
                known.insert(symbol, *close);
            }
        }
    }
    let prices = of_pairs(market, |symbol| known.get(symbol).copied());
    Ok(Opening { ts: at, prices, new })
}

/// A session of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    /// Its number.
    pub(crate) id: i64,
    /// Its opening stamp.
    pub(crate) opening: Time,
}

/// The sessions that were open at `ts`: opened by then and not ended by then, the newest opening
/// first. Asked by instant and not by state, so that a replay after a session's end finds the same.
pub(crate) async fn sessions_at(
    db: &Database,
    label: Option<&str>,
    ts: Time,
) -> Result<Vec<Session>, DbError> {
    let rows = db
        .query(
            "select session_id, opening_stamp from cin_aux.rt_session
             where ($1 = '' or window_label = $1) and opening_stamp <= $2
               and (ended_at is null or ended_at > $2)
             order by opening_stamp desc, session_id desc",
            values![label.unwrap_or_default(), ts],
        )
        .await?;
    rows.iter().map(|row| Ok(Session { id: row.i64(0)?, opening: row.time(1)? })).collect()
}

/// What the matrices of a series, or only one of them, say of one pair in its newest `limit` slices up
/// to `until`, the newest first.
pub(crate) async fn history(
    db: &Database,
    series: &str,
    base: &str,
    quote: &str,
    until: Time,
    limit: i64,
    only: Option<MatrixType>,
) -> Result<Vec<PairPoint>, ReadError> {
    // What is given is the condition on the type: an index is of no use to one that may be absent.
    macro_rules! rows {
        ($of:literal) => {
            concat!(
                "select s.ts_ms, s.coins, r.matrix_type, r.cells
                 from (select series, ts_ms, version, coins from matrices.v_slices
                       where series = $1 and ts_ms <= $2 order by ts_ms desc limit $3) s
                 join matrices.rows r on r.series = s.series and r.ts_ms = s.ts_ms
                   and r.version = s.version and r.base = $4 ",
                $of,
                " order by s.ts_ms desc, r.matrix_type"
            )
        };
    }
    let mut params = values![series, until, limit, base];
    let rows = match only {
        Some(of) => {
            params.push(Value::from(of.as_str()));
            db.query(rows!("and r.matrix_type = $5"), params).await?
        }
        None => db.query(rows!(""), params).await?,
    };
    let mut points: Vec<PairPoint> = Vec::new();
    // The coins hardly ever change: the list that was read last, and the quote's place in it.
    let mut place: Option<(Arc<str>, Option<usize>)> = None;
    for row in &rows {
        let ts = row.time(0)?;
        let Some(of) = MatrixType::parse(row.text(2)?) else { continue };
        let list = row.shared_text(1)?;
        let q = match &place {
            Some((known, q)) if *known == list => *q,
            _ => {
                let coins: Vec<String> =
                    document(row, 1, "matrices.slices", "coins", (series, ts))?;
                let q = coins.iter().position(|c| c == quote);
                place = Some((list, q));
                q
            }
        };
        let Some(q) = q else { continue };
        let cells: Vec<Option<f64>> = document(row, 3, "matrices.rows", "cells", (series, ts))?;
        if points.last().is_none_or(|p| p.ts != ts) {
            points.push(PairPoint { ts, values: BTreeMap::new() });
        }
        let value = cells.get(q).copied().flatten();
        points.last_mut().and_then(|p| p.values.insert(of.as_str(), value));
    }
    Ok(points)
}

/// One value for each pair of the market.
pub(crate) fn of_pairs<T>(market: &Market, of: impl Fn(&Arc<str>) -> Option<T>) -> Vec<Option<T>> {
    market.pairs().iter().map(|pair| of(&pair.symbol)).collect()
}

/// The names under which coins are known: that of their market against USDT, or their own.
pub(crate) fn leg_names(market: &Market) -> BTreeMap<Arc<str>, Arc<str>> {
    let legs = market.legs().into_iter().zip(market.coins());
    legs.map(|(leg, coin)| {
        (Arc::clone(coin), leg.map_or_else(|| Arc::clone(coin), |p| Arc::clone(&p.symbol)))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::cells::tests::market;
    use super::*;

    #[test]
    fn a_coin_goes_by_its_market_against_usdt() {
        let names = leg_names(&market(&["BTCUSDT", "ETHBTC", "USDTBRL"]));
        let names: Vec<_> = names.iter().map(|(coin, name)| (&**coin, &**name)).collect();
        let want = [("BRL", "USDTBRL"), ("BTC", "BTCUSDT"), ("ETH", "ETH"), ("USDT", "USDT")];
        assert_eq!(names, want);
    }
}
