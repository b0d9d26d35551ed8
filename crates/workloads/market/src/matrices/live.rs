//! `matrices`: the slice of the present, from the venue's ticker, beside those of the windows.
//!
//! It follows the cycle of its instant: the points of it are stored and it is closed before its slice
//! is taken. Workers that are due at one instant run beside each other (`after` orders their starts
//! only), so the slice looks for what the sampler stores, and waits for it where it is late.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use watchbell_core::{
    BoxFuture, Commit, Cycle, Definition, Done, Fault, Millis, Missed, Pct, Statement, Time,
    Trigger, Worker, chain, values,
};
use watchbell_db::{Database, DbError};
use watchbell_venues::binance::wire::Ticker24h;
use watchbell_venues::binance::{BinanceClient, Class, VenueError};

use super::slice::{Key, Source, Summary};
use super::{CYCLE_SERIES, Config, stored};
use crate::analytics::point::{BUCKET, CYCLE, SETTLE};
use crate::jobs::ticker_rows;
use crate::samples;
use crate::sync::VENUE;
use crate::universe;

/// Name of the worker.
pub const MATRICES: &str = "matrices";
/// Symbols of one request: the venue's price for more is twice as high.
const PAGE: usize = 100;
/// A slice is begun so long after its instant: by then the first point of the next cycle, which closes
/// the one that ends there, is usually stored.
const BEGINS_AFTER: Millis = Millis::from_secs(7);
const _: () = assert!(BEGINS_AFTER.0 >= BUCKET.0 + SETTLE.0, "a bucket and its settle time");
/// How often it looks whether a late cycle is closed, ...
const LOOK: Millis = Millis::from_secs(1);
/// ... until so long after its instant. Then the sampler has stopped, and the slice is taken without.
const CLOSES_WITHIN: Millis = Millis::from_secs(15);
/// Old slices that one run removes at most.
const MAX_REMOVED_PER_RUN: i64 = 60;

/// The worker.
pub(crate) struct LiveWorker {
    db: Database,
    client: BinanceClient,
    config: Config,
}

/// What a run did.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    slice: Summary,
    /// Symbols of the universe that have no price in it.
    missing: Vec<String>,
    /// Why, of each of them.
    problems: Vec<String>,
    /// Sampled symbols whose cycle was not closed in time.
    unclosed: i64,
    /// Slices that were too old to keep.
    removed: usize,
}

/// What the venue said of the symbols that were asked.
#[derive(Default)]
struct Tickers {
    /// By symbol.
    had: BTreeMap<String, Ticker24h>,
    /// What is wrong with those that have no price, by symbol.
    problems: BTreeMap<String, String>,
}

impl Tickers {
    fn take(&mut self, tickers: Vec<Ticker24h>) {
        for ticker in tickers {
            let symbol = ticker.symbol.clone();
            if ticker.was_traded() {
                self.had.insert(symbol, ticker);
            } else {
                self.problems.insert(symbol, "not traded for 24 hours".to_owned());
            }
        }
    }
}

impl LiveWorker {
    pub(crate) const fn new(db: Database, client: BinanceClient, config: Config) -> Self {
        Self { db, client, config }
    }

    async fn refresh(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let ts = cycle.now().floor(CYCLE);
        let series: Arc<str> = CYCLE_SERIES.into();
        let there = "select 1 from matrices.slices where series = $1 and ts_ms = $2";
        if self.db.query_opt(there, values![Arc::clone(&series), ts]).await?.is_some() {
            return Ok(Done::nothing());
        }
        let symbols = universe::enabled(&self.db).await?;
        if symbols.is_empty() {
            return Ok(Done::nothing());
        }
        let unclosed = self.until_closed(cycle, ts).await?;
        let Tickers { had: tickers, problems } = self.tickers(&symbols).await?;
        let missing: Vec<String> =
            symbols.iter().map(ToString::to_string).filter(|s| !tickers.contains_key(s)).collect();
        let problems =
            problems.iter().map(|(symbol, problem)| format!("{symbol}: {problem}")).collect();
        let market = stored::market(&self.db, &symbols).await?;
        let opening = stored::opening(&self.db, &market, &series, None, ts, ts).await?;
        let source = Source {
            key: Key { series: Arc::clone(&series), ts, version: 1 },
            prices: stored::of_pairs(&market, |s| tickers.get(&**s).map(|t| t.last_price)),
            changes: stored::of_pairs(&market, |s| {
                tickers.get(&**s).map(|t| Pct(t.price_change_percent).to_frac())
            }),
            opening: opening.ts,
            openings: opening.prices.clone(),
            previous: stored::earlier(&self.db, &series, ts, &market).await?,
            market,
        };
        let (slice, statements) = tokio::task::spawn_blocking(move || {
            let computed = source.compute();
            let hash = computed.hash();
            computed.statements(&hash).map(|s| (computed.summary(), s))
        })
        .await??;
        let mut commit = Commit::new();
        commit.statements.extend(ticker_rows(tickers.values()));
        commit.statements.extend(opening.statement());
        commit.statements.extend(statements);
        let old = self.old(&series, ts).await?;
        let removed = old.len();
        if removed > 0 {
            commit.statements.extend(remove(&series, &old));
        }
        Ok(Done::new(Report { slice, missing, problems, unclosed, removed }, commit))
    }

    /// Waits until the cycles that end at `ts` are closed, but not for long. How many are not.
    async fn until_closed(&self, cycle: &Cycle, ts: Time) -> Result<i64, Fault> {
        let clock = self.client.clock();
        loop {
            let open = samples::open_cycles(&self.db, ts).await?;
            if open == 0 || clock.now() >= ts + CLOSES_WITHIN {
                return Ok(open);
            }
            tokio::select! {
                biased;
                () = cycle.host.until_cancelled() => return Err(Fault::Cancelled),
                () = clock.sleep(LOOK) => {}
            }
        }
    }

    /// The ticker of each symbol, or what is wrong with it. A symbol that cannot be had does not take
    /// the others with it; where it is the venue that has a bad moment, or an answer is cut short, it
    /// fails for all, and there is no slice with holes that the next cycle would fill.
    async fn tickers(&self, symbols: &[Arc<str>]) -> Result<Tickers, VenueError> {
        let mut tickers = Tickers::default();
        for page in symbols.chunks(PAGE) {
            let page: Vec<&str> = page.iter().map(|s| &**s).collect();
            let (suspects, named) = match self.client.ticker_24h(&page).await {
                Ok(answered) => {
                    tickers.take(answered);
                    continue;
                }
                // The others are asked again without these, and must be answered then.
                Err(VenueError::Incomplete { missing, .. }) => {
                    let others: Vec<&str> = page
                        .iter()
                        .copied()
                        .filter(|symbol| !missing.iter().any(|m| m == symbol))
                        .collect();
                    if !others.is_empty() {
                        tickers.take(self.client.ticker_24h(&others).await?);
                    }
                    (missing, !others.is_empty())
                }
                // One symbol that the venue does not know refuses the whole page, unnamed.
                Err(e) if e.class() == Class::Permanent => {
                    (page.into_iter().map(str::to_owned).collect(), false)
                }
                Err(e) => return Err(e),
            };
            for symbol in suspects {
                match self.client.ticker_24h(&[&symbol]).await {
                    Ok(answered) => tickers.take(answered),
                    Err(e) if e.class() == Class::Permanent => {
                        tickers.problems.insert(symbol, chain(&e));
                    }
                    // It was left out before, while all others were answered: that is its own trouble.
                    Err(e) if named && e.class() == Class::Transient => {
                        tickers.problems.insert(symbol, chain(&e));
                    }
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(tickers)
    }

    /// Slices that are too old to keep, the oldest first.
    async fn old(&self, series: &Arc<str>, now: Time) -> Result<Vec<Time>, DbError> {
        let rows = self
            .db
            .query(
                "select ts_ms from matrices.slices where series = $1 and ts_ms < $2
                 order by ts_ms limit $3",
                values![Arc::clone(series), now - self.config.keep, MAX_REMOVED_PER_RUN],
            )
            .await?;
        rows.iter().map(|row| row.time(0)).collect()
    }
}

/// Removes slices of a live series. The triggers refuse this for those of windows.
fn remove(series: &Arc<str>, old: &[Time]) -> Vec<Statement> {
    let keys = || old.iter().flat_map(|ts| values![Arc::clone(series), *ts]).collect();
    [
        "delete from matrices.rows where series = $1 and ts_ms = $2",
        "delete from matrices.flags where series = $1 and ts_ms = $2",
        "delete from matrices.slices where series = $1 and ts_ms = $2",
    ]
    .into_iter()
    .map(|sql| Statement::bulk(sql, 2, keys()))
    .collect()
}

/// The worker, refreshing each `period`.
pub(crate) fn definition(period: Millis) -> Definition {
    Definition::new(MATRICES, Trigger::Every { period, offset: BEGINS_AFTER })
        .describe(
            "Asks the venue's 24-hour ticker of the universe, and computes the seven matrices over \
             all coins as they stand now, after each forty-second cycle. Pauses while the venue is \
             down or has banned us.",
        )
        .missed(Missed::Latest)
        .after(crate::sync::MARKET_SYNC)
        .requires(VENUE)
        .timeouts(Millis::from_mins(1), Millis::from_mins(2))
}

impl Worker for LiveWorker {
    fn define(&self) -> Definition {
        definition(self.config.refresh)
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.refresh(cycle))
    }
}
