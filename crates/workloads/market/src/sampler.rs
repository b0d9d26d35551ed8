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
    BoxFuture, Commit, Cycle, Definition, Done, Fault, Ledger, Millis, Missed, Statement, Time,
    Trigger, Value, Worker, chain, values,
};
use watchbell_db::{Database, DbError};
use watchbell_venues::binance::wire::Depth;
use watchbell_venues::binance::{BinanceClient, Class, VenueError};

use crate::analytics::point::{self, BUCKET, BookSnapshot, CYCLE, Level, Point};
use crate::analytics::{Scratch, Signals, signals};
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
        let mut samples = Vec::new();
        let mut cycles = Vec::new();
        for (book, mut closed) in books.iter_mut().zip(closed) {
            book.sampler.advance(venue_now, &mut closed);
            for (point, _) in closed {
                report.points += 1;
                report.empty_points += usize::from(point.is_empty());
                if let Some(done) = book.close_cycle(point.at) {
                    report.cycles += 1;
                    cycles.extend(cycle_row(&book.symbol, &done));
                }
                let signals = book.take(&point, scratch);
                samples.extend(sample_row(&book.symbol, &point, signals.as_ref())?);
            }
        }
        drop(state);
        let mut commit = Commit::new();
        if !samples.is_empty() {
            commit.push(Statement::bulk(SAMPLES, 29, samples));
        }
        if !cycles.is_empty() {
            commit.push(Statement::bulk(CYCLES, 21, cycles));
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
    /// last half hour, removed ones end.
    async fn reload(&self, books: &mut Vec<Book>, now: Time) -> Result<(), DbError> {
        let symbols = universe::enabled(&self.db).await?;
        let mut kept: BTreeMap<Arc<str>, Book> =
            books.drain(..).map(|b| (Arc::clone(&b.symbol), b)).collect();
        for symbol in symbols {
            let book = match kept.remove(&symbol) {
                Some(book) => book,
                None => self.begin(symbol, now).await?,
            };
            books.push(book);
        }
        Ok(())
    }

    async fn begin(&self, symbol: Arc<str>, now: Time) -> Result<Book, DbError> {
        let venue_now = self.client.venue_now().max(now - LOOKBACK);
        // The bucket that is open now has been missed in part: sampling begins with the next one.
        let start = venue_now.floor(BUCKET) + BUCKET;
        let rows = self
            .db
            .query(
                "select ts, mid, bid_volume + ask_volume, v_inner, v_outer, v_swap, v_tendency,
                        disruption, amp, volt, inertia, mode_general, mode_b
                 from str_aux.samples_5s where symbol = $1 and ts > $2 order by ts",
                values![Arc::clone(&symbol), start - LOOKBACK],
            )
            .await?;
        let mut recent = VecDeque::with_capacity(rows.len());
        for row in &rows {
            let signals = match row.opt_f64(3)? {
                None => None,
                Some(v_inner) => Some(Signals {
                    v_inner,
                    v_outer: row.f64(4)?,
                    v_swap: row.f64(5)?,
                    v_tendency: row.f64(6)?,
                    disruption: row.f64(7)?,
                    amp: row.f64(8)?,
                    volt: row.f64(9)?,
                    inertia: row.f64(10)?,
                    mode_general: row.i64(11)? as u16,
                    mode_b: row.i64(12)? as i32,
                }),
            };
            recent.push_back((Time(row.i64(0)?), row.opt_f64(1)?, row.f64(2)?, signals));
        }
        let cycle = Some((start - Millis(1)).floor(CYCLE));
        Ok(Book { symbol, sampler: point::Sampler::new(start, self.poll), recent, cycle })
    }
}

impl Book {
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

/// The columns of `samples_5s`, in the order of the table. A point that is stored already stays.
const SAMPLES: &str = "insert into str_aux.samples_5s values
  ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
   $22, $23, $24, $25, $26, $27, $28, $29)
  on conflict (symbol, ts) do nothing";

/// The columns of `cycles_40s`, in the order of the table.
const CYCLES: &str = "insert into str_aux.cycles_40s values
  ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
  on conflict (symbol, cycle_start) do nothing";

fn sample_row(
    symbol: &Arc<str>,
    p: &Point,
    s: Option<&Signals>,
) -> Result<Vec<Value>, serde_json::Error> {
    Ok(values![
        Arc::clone(symbol),
        p.at,
        p.mid,
        p.mid_min,
        p.mid_max,
        p.best_bid,
        p.best_ask,
        p.spread,
        p.spreads.map(|r| r.min),
        p.spreads.map(|r| r.max),
        p.spreads.map(|r| r.avg),
        p.bid_volume,
        p.ask_volume,
        p.bucket_count,
        p.tick_ms.map(|r| r.min),
        p.tick_ms.map(|r| r.max),
        p.tick_ms.map(|r| r.avg),
        p.liquidity_imbalance,
        serde_json::to_string(&p.quality)?,
        s.map(|s| s.v_inner),
        s.map(|s| s.v_outer),
        s.map(|s| s.v_swap),
        s.map(|s| s.v_tendency),
        s.map(|s| s.disruption),
        s.map(|s| s.amp),
        s.map(|s| s.volt),
        s.map(|s| s.inertia),
        s.map(|s| i64::from(s.mode_general)),
        s.map(|s| s.mode_b),
    ])
}

fn cycle_row(symbol: &Arc<str>, c: &point::Cycle) -> Vec<Value> {
    let mut row = values![Arc::clone(symbol), c.start, c.points];
    row.extend(rollup_values(&c.signals));
    row
}

/// The 18 signal columns that cycles and windows share.
pub(crate) fn rollup_values(r: &point::Rollup) -> Vec<Value> {
    values![
        r.v_inner.min,
        r.v_inner.max,
        r.v_inner.avg,
        r.v_inner.close,
        r.v_outer.min,
        r.v_outer.max,
        r.v_outer.avg,
        r.v_outer.close,
        r.v_swap_avg,
        r.v_swap_close,
        r.v_tend_avg,
        r.v_tend_close,
        r.disruption_avg,
        r.amp_avg,
        r.volt_avg,
        r.inertia_avg,
        r.mode_general_close.map(i64::from),
        r.mode_b_close,
    ]
}
