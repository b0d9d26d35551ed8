//! `trade-sync`: follows the aggregate trades of each symbol, by their numbers.
//!
//! A symbol's trades are known over one stretch of time, `[known_from, known_until)`: everything that
//! was traded then is stored, except what the venue passed over. Numbers are consecutive, so a number
//! that a page lacks is a *gap*: it is asked for again, once a run, and is a *hole* when the venue has
//! answered often enough that it has none. Each page is one fenced step of rows, gaps and cursor.
//!
//! Trades are many and not needed for windows that were watched well, so the worker is off by default.
//! Where they are stored, they repair points ([`last_prices`]).

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::Serialize;
use watchbell_core::{
    BoxFuture, Commit, Cycle, Definition, Done, Fault, Millis, Missed, Statement, Time, Trigger,
    Worker, values,
};
use watchbell_db::{Database, DbError};
use watchbell_venues::binance::wire::AggTrade;
use watchbell_venues::binance::{AggFrom, BinanceClient, Class};

use crate::analytics::point::BUCKET;
use crate::sync::{Stop, VENUE, database};
use crate::universe;

/// Name of the worker.
pub const TRADE_SYNC: &str = "trade-sync";

/// Most trades of a page.
const PAGE: usize = 1_000;
/// The venue shows a trade at most this long after it happened.
const LATENESS: Millis = Millis::from_secs(2);
/// Gaps of one symbol that one run asks for again at most.
const GAPS_PER_RUN: i64 = 20;

/// Whether and how trades are followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TradesConfig {
    /// Whether they are (no).
    pub enabled: bool,
    /// How often new ones are asked for (10 s).
    pub interval: Millis,
    /// How far back a symbol begins (1 h).
    pub lookback: Millis,
    /// Pages of one symbol in one run at most (20); the next run goes on.
    pub max_pages_per_run: u32,
}

impl Default for TradesConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            interval: Millis::from_secs(10),
            lookback: Millis::from_hours(1),
            max_pages_per_run: 20,
        }
    }
}

/// What a run did: the worker's summary.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Report {
    pub(crate) symbols: usize,
    pub(crate) pages: u32,
    pub(crate) rows: u64,
    pub(crate) gaps: u64,
    pub(crate) repaired: u64,
    pub(crate) holes: u64,
    /// Symbols that have more than one run could take.
    pub(crate) behind: Vec<String>,
    pub(crate) problems: Vec<String>,
}

/// The stretch that is known of one symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    from: Time,
    until: Time,
    last_id: Option<i64>,
}

/// Numbers that a page passed over, `[from, to)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gap {
    from: i64,
    to: i64,
    from_at: Time,
    to_at: Time,
}

/// Fetches trades: for the worker and for jobs.
#[derive(Debug, Clone)]
pub(crate) struct Trades {
    db: Database,
    client: BinanceClient,
    hole_after: i64,
}

impl Trades {
    pub(crate) fn new(db: Database, client: &BinanceClient, hole_after: u32) -> Self {
        Self { db, client: client.backfill(), hole_after: i64::from(hole_after) }
    }

    async fn known(&self, symbol: &Arc<str>) -> Result<Option<Known>, Stop> {
        known(&self.db, symbol).await.map_err(database)
    }

    /// Asks again for gaps, then goes on from where the symbol is known to the present, or to `to`.
    /// A symbol that is not known begins at `begin`. Returns whether the end was reached.
    pub(crate) async fn follow(
        &self,
        cycle: &Cycle,
        symbol: &Arc<str>,
        (begin, to): (Time, Time),
        max_pages: u32,
        report: &mut Report,
    ) -> Result<bool, Stop> {
        self.repair(cycle, symbol, report).await?;
        let mut known = match self.known(symbol).await? {
            Some(known) => known,
            None => Known { from: begin, until: begin, last_id: None },
        };
        for _ in 0..max_pages {
            if known.until >= to || cycle.cancelled() {
                break;
            }
            let from = match known.last_id {
                Some(id) => AggFrom::Id(id + 1),
                None => AggFrom::Time { start: known.from, end: None },
            };
            let asked = self.client.venue_now();
            let page = self.client.agg_trades(symbol, from, PAGE).await?;
            let full = page.len() == PAGE;
            report.pages += 1;
            report.rows += page.len() as u64;
            let gaps = gaps(known, &page);
            let reached = match page.last().filter(|_| full) {
                // More trades of that millisecond may follow.
                Some(last) => last.time,
                None => asked - LATENESS,
            };
            known.until = known.until.max(reached);
            known.last_id = page.last().map(|t| t.id).or(known.last_id);
            let mut commit = Commit::new().with(insert(symbol, &page));
            for gap in &gaps {
                report.gaps += 1;
                commit.push(gap_row(symbol, *gap, (false, 1), cycle.now()));
            }
            commit.push(cursor(symbol, known, cycle.now()));
            step(cycle, commit).await?;
            if !full {
                return Ok(true);
            }
        }
        Ok(known.until >= to)
    }

    /// Fetches `[from, known_from)`, so that the known stretch begins at `from`.
    pub(crate) async fn reach_back(
        &self,
        cycle: &Cycle,
        symbol: &Arc<str>,
        from: Time,
        report: &mut Report,
    ) -> Result<(), Stop> {
        let Some(mut known) = self.known(symbol).await?.filter(|k| from < k.from) else {
            return Ok(());
        };
        let goal = known.from;
        let mut passed = Known { from, until: from, last_id: None };
        loop {
            let next = match passed.last_id {
                Some(id) => AggFrom::Id(id + 1),
                None => AggFrom::Time { start: from, end: None },
            };
            let page = self.client.agg_trades(symbol, next, PAGE).await?;
            let full = page.len() == PAGE;
            report.pages += 1;
            report.rows += page.len() as u64;
            let mut commit = Commit::new().with(insert(symbol, &page));
            for gap in gaps(passed, &page) {
                report.gaps += 1;
                commit.push(gap_row(symbol, gap, (false, 1), cycle.now()));
            }
            passed.last_id = page.last().map(|t| t.id).or(passed.last_id);
            let done = !full || page.last().is_some_and(|t| t.time >= goal);
            if done {
                known.from = from;
                commit.push(cursor(symbol, known, cycle.now()));
            }
            step(cycle, commit).await?;
            if done {
                return Ok(());
            }
            if cycle.cancelled() {
                return Err(Stop::Fault(Fault::Cancelled));
            }
        }
    }

    async fn repair(
        &self,
        cycle: &Cycle,
        symbol: &Arc<str>,
        report: &mut Report,
    ) -> Result<(), Stop> {
        let rows = self
            .db
            .query(
                "select from_id, to_id, from_at, to_at, answers from ingest.trade_gaps
                 where symbol = $1 and state = 'pending' order by from_id limit $2",
                values![Arc::clone(symbol), GAPS_PER_RUN],
            )
            .await
            .map_err(database)?;
        for row in rows {
            let read = || -> Result<(Gap, i64), DbError> {
                let gap = Gap {
                    from: row.i64(0)?,
                    to: row.i64(1)?,
                    from_at: Time(row.i64(2)?),
                    to_at: Time(row.i64(3)?),
                };
                Ok((gap, row.i64(4)? + 1))
            };
            let (gap, answers) = read().map_err(database)?;
            let limit = usize::try_from(gap.to - gap.from).unwrap_or(PAGE).min(PAGE);
            let page = self.client.agg_trades(symbol, AggFrom::Id(gap.from), limit).await?;
            report.pages += 1;
            let found: Vec<AggTrade> = page.into_iter().filter(|t| t.id < gap.to).collect();
            report.rows += found.len() as u64;
            let still = missing(gap, &found);
            let now = cycle.now();
            let mut commit = Commit::new().with(insert(symbol, &found)).with(Statement::new(
                "delete from ingest.trade_gaps where symbol = $1 and from_id = $2",
                values![Arc::clone(symbol), gap.from],
            ));
            // A page is the answer for its own numbers only.
            let answered = gap.from + limit as i64;
            for gap in &still {
                let hole = gap.from < answered && answers >= self.hole_after;
                let answers = if gap.from < answered { answers } else { answers - 1 };
                report.holes += u64::from(hole);
                commit.push(gap_row(symbol, *gap, (hole, answers), now));
            }
            report.repaired += u64::from(still.is_empty());
            step(cycle, commit).await?;
            if cycle.cancelled() {
                break;
            }
        }
        Ok(())
    }
}

/// The worker.
pub(crate) struct TradeSync {
    config: TradesConfig,
    trades: Trades,
}

impl TradeSync {
    pub(crate) fn new(config: TradesConfig, trades: Trades) -> Self {
        Self { config, trades }
    }

    async fn sync(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let mut report = Report::default();
        let symbols = universe::enabled(&self.trades.db).await?;
        report.symbols = symbols.len();
        for symbol in symbols {
            let begin = self.trades.client.venue_now() - self.config.lookback;
            let span = (begin, Time::FAR_FUTURE);
            let pages = self.config.max_pages_per_run;
            match self.trades.follow(cycle, &symbol, span, pages, &mut report).await {
                Ok(true) => {}
                Ok(false) => report.behind.push(symbol.to_string()),
                // One symbol that the venue does not know must not starve the others.
                Err(Stop::Venue(e)) if e.class() == Class::Permanent => {
                    report.problems.push(format!("{symbol}: {e}"));
                }
                Err(stop) => return Err(stop.into()),
            }
            if cycle.cancelled() {
                return Err(Fault::Cancelled);
            }
        }
        Ok(Done::new(report, Commit::new()))
    }
}

/// The worker, run each `period`.
pub(crate) fn definition(config: &TradesConfig) -> Definition {
    let trigger = Trigger::Every { period: config.interval, offset: Millis::ZERO };
    Definition::new(TRADE_SYNC, trigger)
        .describe(
            "Follows the aggregate trades of the universe by their numbers, and asks again for \
             numbers that are missing. Points that order books lack are repaired from them.",
        )
        .missed(Missed::Skip)
        .after(crate::sync::MARKET_SYNC)
        .requires(VENUE)
        .timeouts(Millis::from_mins(10), Millis::from_mins(12))
}

impl Worker for TradeSync {
    fn define(&self) -> Definition {
        definition(&self.config)
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.sync(cycle))
    }
}

/// The price of the last trade of each five-second bucket over a window.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LastPrices {
    /// All trades of the window are stored: prices by the end of their bucket.
    Known(BTreeMap<Time, f64>),
    /// The symbol is followed, and not all of the window's trades are stored yet.
    Behind,
    /// The window's trades were never asked for.
    Unknown,
}

/// The last price of each bucket of `[start, end)` in which `symbol` was traded.
pub(crate) async fn last_prices(
    db: &Database,
    symbol: &Arc<str>,
    start: Time,
    end: Time,
) -> Result<LastPrices, DbError> {
    let Some(known) = known(db, symbol).await?.filter(|k| k.from <= start) else {
        return Ok(LastPrices::Unknown);
    };
    let pending = db
        .query_opt(
            "select from_id from ingest.trade_gaps
             where symbol = $1 and state = 'pending' and from_at < $3 and to_at >= $2
             order by from_id limit 1",
            values![Arc::clone(symbol), start, end],
        )
        .await?;
    if known.until < end || pending.is_some() {
        return Ok(LastPrices::Behind);
    }
    let prices = db
        .scan(
            "select ts_ms, price from ingest.agg_trade_raw
             where symbol = $1 and ts_ms >= $2 and ts_ms < $3 order by agg_id",
            values![Arc::clone(symbol), start, end],
            BTreeMap::new(),
            |prices, row| {
                prices.insert(Time(row.i64(0)?).floor(BUCKET) + BUCKET, row.f64(1)?);
                Ok(ControlFlow::Continue(()))
            },
        )
        .await?;
    Ok(LastPrices::Known(prices))
}

async fn known(db: &Database, symbol: &Arc<str>) -> Result<Option<Known>, DbError> {
    let row = db
        .query_opt(
            "select known_from, known_until, last_agg_id from ingest.trades_cursor
             where symbol = $1",
            values![Arc::clone(symbol)],
        )
        .await?;
    let read = |row: watchbell_db::Row| {
        Ok(Known { from: Time(row.i64(0)?), until: Time(row.i64(1)?), last_id: row.opt_i64(2)? })
    };
    row.map(read).transpose()
}

/// What a page lacks between its first trade and its last, and before its first.
fn gaps(known: Known, page: &[AggTrade]) -> Vec<Gap> {
    let mut found = Vec::new();
    let mut next = known.last_id.map(|id| (id + 1, known.until));
    for trade in page {
        if let Some((from, from_at)) = next.filter(|(from, _)| *from < trade.id) {
            // What is known may reach beyond the next trade: clocks differ.
            found.push(Gap {
                from,
                to: trade.id,
                from_at: from_at.min(trade.time),
                to_at: trade.time,
            });
        }
        next = Some((trade.id + 1, trade.time));
    }
    found
}

/// What is still missing of a gap.
fn missing(gap: Gap, found: &[AggTrade]) -> Vec<Gap> {
    let start = Known { from: gap.from_at, until: gap.from_at, last_id: Some(gap.from - 1) };
    let mut still = gaps(start, found);
    let (from, from_at) = found.last().map_or((gap.from, gap.from_at), |t| (t.id + 1, t.time));
    if from < gap.to {
        still.push(Gap { from, from_at, ..gap });
    }
    still
}

fn insert(symbol: &Arc<str>, page: &[AggTrade]) -> Statement {
    let mut rows = Vec::with_capacity(page.len() * 8);
    for t in page {
        rows.extend(values![
            Arc::clone(symbol),
            t.id,
            t.price,
            t.qty,
            t.first_trade_id,
            t.last_trade_id,
            t.time,
            t.buyer_is_maker,
        ]);
    }
    Statement::bulk(
        "insert into ingest.agg_trade_raw
           (symbol, agg_id, price, qty, first_id, last_id, ts_ms, is_buyer_maker)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (symbol, agg_id) do nothing",
        8,
        rows,
    )
}

/// Widens what is known: a job and the worker may follow one symbol at a time, and neither undoes
/// what the other has found.
fn cursor(symbol: &Arc<str>, known: Known, now: Time) -> Statement {
    Statement::new(
        "insert into ingest.trades_cursor (symbol, known_from, known_until, last_agg_id, updated_at)
         values ($1, $2, $3, $4, $5)
         on conflict (symbol) do update set
           known_from = case when excluded.known_from < ingest.trades_cursor.known_from
             then excluded.known_from else ingest.trades_cursor.known_from end,
           known_until = case when excluded.known_until > ingest.trades_cursor.known_until
             then excluded.known_until else ingest.trades_cursor.known_until end,
           last_agg_id = case when coalesce(excluded.last_agg_id, -1)
               > coalesce(ingest.trades_cursor.last_agg_id, -1)
             then excluded.last_agg_id else ingest.trades_cursor.last_agg_id end,
           updated_at = excluded.updated_at",
        values![Arc::clone(symbol), known.from, known.until, known.last_id, now],
    )
}

fn gap_row(symbol: &Arc<str>, gap: Gap, (hole, answers): (bool, i64), now: Time) -> Statement {
    Statement::new(
        "insert into ingest.trade_gaps
           (symbol, from_id, to_id, from_at, to_at, state, answers, found_at, tried_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $8)
         on conflict (symbol, from_id) do update set
           to_id = excluded.to_id, to_at = excluded.to_at, tried_at = excluded.tried_at",
        values![
            Arc::clone(symbol),
            gap.from,
            gap.to,
            gap.from_at,
            gap.to_at,
            if hole { "hole" } else { "pending" },
            answers,
            now
        ],
    )
}

async fn step(cycle: &Cycle, commit: Commit) -> Result<(), Stop> {
    cycle.step(commit).await.map_err(|e| Stop::Fault(Fault::Store(e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trade(id: i64) -> AggTrade {
        AggTrade {
            id,
            price: 1.0,
            qty: 1.0,
            first_trade_id: id,
            last_trade_id: id,
            time: Time(id * 100),
            buyer_is_maker: false,
        }
    }

    fn gap(from: i64, to: i64, from_at: i64, to_at: i64) -> Gap {
        Gap { from, to, from_at: Time(from_at), to_at: Time(to_at) }
    }

    #[test]
    fn numbers_that_a_page_passes_over_are_gaps() {
        let known = Known { from: Time(0), until: Time(350), last_id: Some(3) };
        let page = [trade(5), trade(6), trade(9)];
        assert_eq!(gaps(known, &page), [gap(4, 5, 350, 500), gap(7, 9, 600, 900)]);
        let fresh = Known { last_id: None, ..known };
        assert_eq!(gaps(fresh, &page), [gap(7, 9, 600, 900)], "a beginning lacks nothing");
        assert_eq!(gaps(known, &[]), []);
    }

    #[test]
    fn what_is_left_of_a_gap() {
        let whole = gap(10, 20, 900, 2_000);
        assert_eq!(missing(whole, &[]), [whole]);
        let found = [trade(11), trade(12), trade(15)];
        assert_eq!(
            missing(whole, &found),
            [gap(10, 11, 900, 1_100), gap(13, 15, 1_200, 1_500), gap(16, 20, 1_500, 2_000)]
        );
        let all: Vec<AggTrade> = (10..20).map(trade).collect();
        assert_eq!(missing(whole, &all), []);
    }
}
