//! `market-sampler`: polls the order books each second, and makes five-second points and
//! forty-second cycles of them.
//!
//! The buckets in the making live in memory. A crash loses at most the open bucket and what was
//! polled within its settle time: those points are then missing, and a window that needs them says
//! so (or is computed from candles). A bucket without a snapshot is a row too, flagged.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use watchbell_core::{
    BoxFuture, Commit, Cycle, Definition, Done, Fault, Ledger, Millis, Missed, Time, Trigger,
    Worker, chain,
};
use watchbell_db::{Database, DbError};
use watchbell_venues::binance::wire::Depth;
use watchbell_venues::binance::{BinanceClient, Class, VenueError};

use crate::analytics::point::{self, BUCKET, BookSnapshot, CYCLE, Level, Point};
use crate::analytics::{Scratch, Signals, signals};
use crate::samples;
use crate::sync::VENUE;
use crate::universe;

/// Name of the worker.
pub const MARKET_SAMPLER: &str = "market-sampler";
/// Levels of a poll: the venue's price for them is the same as for fewer.
const DEPTH: usize = 50;
/// Signals look back over this much time.
const LOOKBACK: Millis = Millis::from_mins(30);
/// How often the universe is read again.
const RELOAD: Millis = Millis::from_secs(60);

/// The worker.
pub(crate) struct SamplerWorker {
    db: Database,
    client: BinanceClient,
    poll: Millis,
    state: Mutex<Sampling>,
}

/// Everything that is in the making.
#[derive(Debug, Default)]
struct Sampling {
    reloaded_at: Option<Time>,
    polled_at: Option<Time>,
    books: Vec<Book>,
    scratch: Scratch,
}

/// One symbol.
#[derive(Debug)]
struct Book {
    symbol: Arc<str>,
    sampler: point::Sampler,
    /// Points of the last 30 minutes with their signals, oldest first.
    recent: VecDeque<(Time, Option<f64>, f64, Option<Signals>)>,
    /// Start of the cycle in the making.
    cycle: Option<Time>,
    /// For a symbol that has left the universe: the end of its last cycle.
    ends: Option<Time>,
}

/// What a poll did.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
struct Report {
    symbols: usize,
    snapshots: usize,
    points: usize,
    empty_points: usize,
    cycles: usize,
    late: usize,
    problems: BTreeMap<String, String>,
}

impl SamplerWorker {
    pub(crate) fn new(db: Database, client: BinanceClient, poll: Millis) -> Self {
        Self { db, client, poll, state: Mutex::default() }
    }

    async fn poll(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let mut state = self.state.lock().await;
        let Sampling { reloaded_at, polled_at, books, scratch } = &mut *state;
        let now = cycle.now();
        // After a long pause every book begins anew: a day of empty points says no more than the
        // absence of rows, and no window can use either.
        if polled_at.replace(now).is_some_and(|at| now - at >= LOOKBACK) {
            books.clear();
            *reloaded_at = None;
        }
        if reloaded_at.is_none_or(|at| now - at >= RELOAD) {
            self.reload(books, now).await?;
            *reloaded_at = Some(now);
        }
        let mut report = Report { symbols: books.len(), ..Report::default() };
        let mut polls = JoinSet::new();
        for (i, book) in books.iter().enumerate() {
            let (client, symbol) = (self.client.clone(), Arc::clone(&book.symbol));
            polls.spawn(async move { (i, client.depth(&symbol, DEPTH).await, client.venue_now()) });
        }
        let mut closed: Vec<Vec<_>> = books.iter().map(|_| Vec::new()).collect();
        let mut stopped: Option<VenueError> = None;
        while let Some(answer) = polls.join_next().await {
            let (i, answer, at) = answer?;
            match answer {
                Ok(depth) => match books[i].sampler.offer(snapshot(at, depth), &mut closed[i]) {
                    Ok(()) => report.snapshots += 1,
                    Err(_late) => report.late += 1,
                },
                Err(e) => {
                    report.problems.insert(books[i].symbol.to_string(), chain(&e));
                    if !matches!(e.class(), Class::Permanent) {
                        stopped = Some(e);
                    }
                }
            }
        }
        let venue_now = self.client.venue_now();
        let mut points = Vec::new();
        let mut cycles = Vec::new();
        for (book, mut closed) in books.iter_mut().zip(closed) {
            book.sampler.advance(venue_now, &mut closed);
            for (point, _) in closed {
                if let Some(done) = book.close_cycle(point.at) {
                    report.cycles += 1;
                    cycles.extend(samples::cycle_row(&book.symbol, &done));
                }
                if book.is_over(point.at) {
                    continue;
                }
                report.points += 1;
                report.empty_points += usize::from(point.is_empty());
                let signals = book.take(&point, scratch);
                points.extend(samples::point_row(&book.symbol, &point, signals.as_ref())?);
            }
        }
        // Its first point after the end has closed its last cycle.
        books.retain(|b| b.ends.is_none_or(|ends| b.cycle.is_none_or(|c| c < ends)));
        drop(state);
        let mut commit = Commit::new();
        if !points.is_empty() {
            commit.push(samples::insert_points(points));
        }
        if !cycles.is_empty() {
            commit.push(samples::insert_cycles(cycles));
        }
        match stopped {
            // Nothing was seen at all: that is a failed poll, and its empty points are stored.
            Some(e) if report.snapshots == 0 => {
                if !commit.is_empty() {
                    cycle.step(commit).await?;
                }
                Err(e.into())
            }
            _ => Ok(Done::new(report, commit)),
        }
    }

    /// Follows the universe: new symbols begin with the present bucket and what is stored of the
    /// last half hour, removed ones end with their cycle, never within it.
    async fn reload(&self, books: &mut Vec<Book>, now: Time) -> Result<(), DbError> {
        let symbols = universe::enabled(&self.db).await?;
        let mut kept: BTreeMap<Arc<str>, Book> =
            books.drain(..).map(|b| (Arc::clone(&b.symbol), b)).collect();
        for symbol in symbols {
            let book = match kept.remove(&symbol) {
                Some(book) => Book { ends: None, ..book },
                None => self.begin(symbol, now).await?,
            };
            books.push(book);
        }
        let end = self.client.venue_now().floor(CYCLE) + CYCLE;
        for book in kept.into_values() {
            books.push(Book { ends: book.ends.or(Some(end)), ..book });
        }
        Ok(())
    }

    async fn begin(&self, symbol: Arc<str>, now: Time) -> Result<Book, DbError> {
        let venue_now = self.client.venue_now().max(now - LOOKBACK);
        // The bucket that is open now has been missed in part: sampling begins with the next one.
        let start = venue_now.floor(BUCKET) + BUCKET;
        let stored = samples::stored(&self.db, &symbol, start - LOOKBACK, Time::FAR_FUTURE).await?;
        let recent = stored.into_iter().map(|p| (p.at, p.mid, p.weight(), p.signals)).collect();
        let cycle = Some((start - Millis(1)).floor(CYCLE));
        let sampler = point::Sampler::new(start, self.poll);
        Ok(Book { symbol, sampler, recent, cycle, ends: None })
    }
}

impl Book {
    /// Whether a point at `at` comes after the symbol's last cycle.
    fn is_over(&self, at: Time) -> bool {
        self.ends.is_some_and(|ends| at > ends)
    }

    /// A point at `at` closes the cycle before its own.
    fn close_cycle(&mut self, at: Time) -> Option<point::Cycle> {
        let own = (at - Millis(1)).floor(CYCLE);
        let before = self.cycle.replace(own).filter(|start| *start < own)?;
        point::roll_cycle(before, self.recent.iter().map(|(at, .., s)| (*at, s.as_ref())))
    }

    /// Adds a point and computes its signals over the last half hour.
    fn take(&mut self, point: &Point, scratch: &mut Scratch) -> Option<Signals> {
        while self.recent.front().is_some_and(|(at, ..)| *at <= point.at - LOOKBACK) {
            self.recent.pop_front();
        }
        self.recent.push_back((point.at, point.mid, point.weight(), None));
        let (prices, weights): (Vec<f64>, Vec<f64>) =
            self.recent.iter().filter_map(|(_, mid, weight, _)| mid.map(|m| (m, *weight))).unzip();
        let signals = point.mid.and_then(|_| signals(&prices, &weights, scratch));
        if let Some(last) = self.recent.back_mut() {
            last.3 = signals;
        }
        signals
    }
}

/// The worker, polling each `period`.
pub(crate) fn definition(period: Millis) -> Definition {
    Definition::new(MARKET_SAMPLER, Trigger::Every { period, offset: Millis::ZERO })
        .describe(
            "Polls the order book of each symbol, and makes five-second points and forty-second \
             cycles of it. Pauses while the venue is down or has banned us.",
        )
        .missed(Missed::Skip)
        .after(crate::sync::MARKET_SYNC)
        .requires(VENUE)
        .ledger(Ledger::Quiet)
        .timeouts(Millis::from_mins(2), Millis::from_mins(3))
}

impl Worker for SamplerWorker {
    fn define(&self) -> Definition {
        definition(self.poll)
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.poll(cycle))
    }
}

fn snapshot(at: Time, depth: Depth) -> BookSnapshot {
    let levels =
        |side: Vec<(f64, f64)>| side.into_iter().map(|(price, qty)| Level { price, qty }).collect();
    BookSnapshot { at, bids: levels(depth.bids), asks: levels(depth.asks) }
}
