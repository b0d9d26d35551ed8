//! `market-sampler`: polls the order books each second, and makes five-second points and
//! forty-second cycles of them.
//!
//! The buckets in the making live in memory. A crash loses at most the open bucket and what was
//! polled within its settle time: those points are then missing, and a window that needs them says
//! so (or is repaired from trades, or computed from candles). A bucket without a snapshot is a row
//! too, flagged. So the sampler goes on while the venue is down: its points are empty then, and it
//! asks for one book every five seconds to see when that ends.
//!
//! Books cost weight. With many symbols they are polled in turns, so that all polls together stay
//! within the budget ([`Cadence`]), and after a refusal (429) half as often, until three cycles have
//! passed without one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use watchbell_core::{
    BoxFuture, Commit, Cycle, Definition, Done, Fault, Ledger, Millis, Missed, Time, Trigger,
    Worker, chain, values,
};
use watchbell_db::{Database, DbError};
use watchbell_venues::binance::wire::Depth;
use watchbell_venues::binance::{BinanceClient, Class, Priority, State as VenueState, VenueError};

use crate::analytics::point::{self, BUCKET, BookSnapshot, CYCLE, Level, Point};
use crate::analytics::{Scratch, Signals, signals};
use crate::samples;
use crate::universe;

/// Name of the worker.
pub const MARKET_SAMPLER: &str = "market-sampler";
/// Levels of a poll: the venue's price for them is the same as for fewer.
const DEPTH: usize = 50;
/// The venue's weight of a poll.
const WEIGHT: i64 = 5;
/// Signals look back over this much time.
const LOOKBACK: Millis = Millis::from_mins(30);
/// Without a refusal for this long (three cycles), polls are twice as frequent again.
const CALM: Millis = Millis(3 * CYCLE.0);
/// Polls are never slowed down by more.
const SLOWEST: i64 = 8;

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
    /// The cycle in which the universe was read last.
    reloaded_in: Option<Time>,
    polled_at: Option<Time>,
    books: Vec<Book>,
    cadence: Cadence,
    scratch: Scratch,
}

/// How often each book is polled, as far as the venue's refusals decide it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cadence {
    /// Each refusal doubles it, each calm time halves it: 1 to 8.
    slower: i64,
    /// When it changed last.
    since: Time,
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
    /// The end of its last cycle, once the universe has left it out.
    until: Option<Time>,
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
    /// How often each book is polled now.
    every_ms: i64,
    /// Polls that the budget of this minute had no room for.
    held_back: usize,
    venue: Option<VenueState>,
    problems: BTreeMap<String, String>,
}

impl Default for Cadence {
    fn default() -> Self {
        Self { slower: 1, since: Time(i64::MIN / 4) }
    }
}

impl Cadence {
    /// The venue refused a poll for its rate. Polls that are held back for the same refusal come
    /// within the same calm time, and count once.
    fn refused(&mut self, now: Time, until: Time) {
        if now > self.since {
            *self = Self { slower: (self.slower * 2).min(SLOWEST), since: until };
        }
    }

    fn recover(&mut self, now: Time) {
        if self.slower > 1 && now - self.since >= CALM {
            *self = Self { slower: self.slower / 2, since: now };
        }
    }

    /// Of how many ticks of `poll` each book takes one: `max(poll, 300 s * n / budget)` between two
    /// polls, for `n` books of weight 5 and a budget of weight a minute.
    fn turns(self, books: usize, poll: Millis, budget: i64) -> i64 {
        let full = Millis::from_mins(1).0 * WEIGHT * books as i64;
        let least = (full + budget.max(1) - 1) / budget.max(1);
        (poll.0.max(least) * self.slower + poll.0 - 1) / poll.0
    }
}

impl SamplerWorker {
    pub(crate) fn new(db: Database, client: BinanceClient, poll: Millis) -> Self {
        Self { db, client, poll, state: Mutex::default() }
    }

    async fn poll(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let mut state = self.state.lock().await;
        let Sampling { reloaded_in, polled_at, books, cadence, scratch } = &mut *state;
        let now = cycle.now();
        // After a long pause every book begins anew: a day of empty points says no more than the
        // absence of rows, and no window can use either.
        if polled_at.replace(now).is_some_and(|at| now - at >= LOOKBACK) {
            books.clear();
            *reloaded_in = None;
        }
        // The universe changes at the boundary of a cycle, never within one.
        let venue_now = self.client.venue_now();
        let this_cycle = venue_now.floor(CYCLE);
        if *reloaded_in != Some(this_cycle) {
            self.reload(books, now).await?;
            *reloaded_in = Some(this_cycle);
        }
        let mut report = Report { symbols: books.len(), ..Report::default() };
        let health = self.client.health(now).state;
        let away = matches!(health, VenueState::Down | VenueState::Banned);
        report.venue = Some(health);
        cadence.recover(now);
        let chosen = self.choose(books, *cadence, now, away, &mut report);
        let mut polls = JoinSet::new();
        for i in chosen {
            let (client, symbol) = (self.client.clone(), Arc::clone(&books[i].symbol));
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
                    if let VenueError::RateLimited { until, .. } = &e {
                        cadence.refused(now, *until);
                    }
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
                if book.until.is_some_and(|until| point.at > until) {
                    continue;
                }
                report.points += 1;
                report.empty_points += usize::from(point.is_empty());
                if let Some(done) = book.close_cycle(point.at) {
                    report.cycles += 1;
                    cycles.extend(samples::cycle_row(&book.symbol, &done));
                }
                let signals = book.take(&point, scratch);
                points.extend(samples::point_row(&book.symbol, &point, signals.as_ref())?);
            }
            if let Some(done) = book.leave() {
                report.cycles += 1;
                cycles.extend(samples::cycle_row(&book.symbol, &done));
            }
        }
        books.retain(|book| !book.has_left());
        drop(state);
        let mut commit = Commit::new();
        if !points.is_empty() {
            commit.push(samples::insert_points(points));
        }
        if !cycles.is_empty() {
            commit.push(samples::insert_cycles(cycles));
        }
        match stopped {
            // Nothing was seen at all: that is a failed poll, and its empty points are stored. While
            // the venue is known to be away, nothing else is expected.
            Some(e) if report.snapshots == 0 && !away => {
                if !commit.is_empty() {
                    cycle.step(commit).await?;
                }
                Err(e.into())
            }
            _ => Ok(Done::new(report, commit)),
        }
    }

    /// The books whose turn it is. While the venue is away, one of them every five seconds.
    fn choose(
        &self,
        books: &mut [Book],
        cadence: Cadence,
        now: Time,
        away: bool,
        report: &mut Report,
    ) -> Vec<usize> {
        let live: Vec<usize> = (0..books.len()).filter(|i| books[*i].until.is_none()).collect();
        let budget = self.client.limiter().allowance(Priority::Live);
        let turns = cadence.turns(live.len(), self.poll, budget);
        let tick = now.0.div_euclid(self.poll.0);
        report.every_ms = turns * self.poll.0;
        for book in books {
            book.sampler.set_poll(self.poll * turns);
        }
        if away {
            let probe = (BUCKET / self.poll).max(1);
            return live.into_iter().take(usize::from(tick % probe == 0)).collect();
        }
        let mut chosen: Vec<usize> = (0_i64..)
            .zip(live)
            .filter(|(turn, _)| turn % turns == tick.rem_euclid(turns))
            .map(|(_, i)| i)
            .collect();
        // A poll that waits for the next minute comes too late, and holds the others up.
        let room = (budget - self.client.limiter().used().0).max(0) / WEIGHT;
        let room = usize::try_from(room).unwrap_or(0);
        report.held_back = chosen.len().saturating_sub(room);
        chosen.truncate(room);
        chosen
    }

    /// Follows the universe: new symbols begin with the present bucket and what is stored of the
    /// last half hour, removed ones end with the cycle that has just passed.
    async fn reload(&self, books: &mut Vec<Book>, now: Time) -> Result<(), DbError> {
        let symbols = universe::enabled(&self.db).await?;
        let boundary = self.client.venue_now().floor(CYCLE);
        let mut kept: BTreeMap<Arc<str>, Book> =
            books.drain(..).map(|b| (Arc::clone(&b.symbol), b)).collect();
        for symbol in symbols {
            let book = match kept.remove(&symbol) {
                Some(book) => Book { until: None, ..book },
                None => self.begin(symbol, now).await?,
            };
            books.push(book);
        }
        books.extend(
            kept.into_values().map(|book| Book { until: book.until.or(Some(boundary)), ..book }),
        );
        Ok(())
    }

    async fn begin(&self, symbol: Arc<str>, now: Time) -> Result<Book, DbError> {
        let venue_now = self.client.venue_now().max(now - LOOKBACK);
        // The bucket that is open now has been missed in part: sampling begins with the next one.
        let start = venue_now.floor(BUCKET) + BUCKET;
        // The cycle of the newest stored point may never have been closed.
        let newest = self
            .db
            .query_one(
                "select max(ts) from str_aux.samples_5s where symbol = $1",
                values![Arc::clone(&symbol)],
            )
            .await?
            .opt_i64(0)?
            .map(|at| (Time(at) - Millis(1)).floor(CYCLE));
        let cycle = newest.unwrap_or_else(|| (start - Millis(1)).floor(CYCLE));
        let from = cycle.min(start - LOOKBACK);
        let stored = samples::stored(&self.db, &symbol, from, Time::FAR_FUTURE).await?;
        let recent = stored.into_iter().map(|p| (p.at, p.mid, p.weight(), p.signals)).collect();
        let sampler = point::Sampler::new(start, self.poll);
        Ok(Book { symbol, sampler, recent, cycle: Some(cycle), until: None })
    }
}

impl Book {
    /// A point at `at` closes the cycle before its own.
    fn close_cycle(&mut self, at: Time) -> Option<point::Cycle> {
        let own = (at - Millis(1)).floor(CYCLE);
        let before = self.cycle.replace(own).filter(|start| *start < own)?;
        point::roll_cycle(before, self.recent.iter().map(|(at, .., s)| (*at, s.as_ref())))
    }

    /// Closes the last cycle of a symbol that leaves, once all of its buckets are closed.
    fn leave(&mut self) -> Option<point::Cycle> {
        let before = self.has_left().then(|| self.cycle.take()).flatten()?;
        point::roll_cycle(before, self.recent.iter().map(|(at, .., s)| (*at, s.as_ref())))
    }

    fn has_left(&self) -> bool {
        self.until.is_some_and(|until| self.sampler.open_since() >= until)
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
             cycles of it. While the venue is down its points are empty, and say so.",
        )
        .missed(Missed::Skip)
        .after(crate::sync::MARKET_SYNC)
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Millis = Millis::from_secs(1);

    #[test]
    fn polls_share_the_budget() {
        // Between two polls: max(1000, ceil(300000 n / 4800)) ms, in whole ticks.
        for (books, every) in
            [(0, 1), (1, 1), (7, 1), (16, 1), (17, 2), (32, 2), (33, 3), (500, 32)]
        {
            assert_eq!(Cadence::default().turns(books, SECOND, 4_800), every, "{books}");
        }
        assert_eq!(Cadence::default().turns(7, SECOND * 2, 4_800), 1);
        assert_eq!(Cadence { slower: 2, ..Cadence::default() }.turns(7, SECOND, 4_800), 2);
    }

    #[test]
    fn a_refusal_halves_the_polls_and_calm_doubles_them() {
        let at = |secs: i64| Time(secs * 1_000);
        let mut cadence = Cadence::default();
        cadence.refused(at(10), at(70));
        cadence.refused(at(11), at(70));
        assert_eq!(cadence.slower, 2, "one refusal, however many polls it held back");
        cadence.recover(at(70 + 119));
        assert_eq!(cadence.slower, 2);
        for (now, slower) in [(200, 4), (300, 8), (400, 8)] {
            cadence.refused(at(now), at(now + 60));
            assert_eq!(cadence.slower, slower);
        }
        for (now, slower) in [(579, 8), (580, 4), (699, 4), (700, 2), (820, 1), (940, 1)] {
            cadence.recover(at(now));
            assert_eq!(cadence.slower, slower, "{now}");
        }
    }
}
