//! Reads what a scan needs from the exchanges, and from what was read before.
//!
//! An answer is kept with the instant at which it was asked for. Closed bars stay exact until the next
//! one closes, whatever the job's `ttl`; everything else may be used again until it is `ttl` old. Books
//! are never used again.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use futures_util::future::{Either, select};
use futures_util::stream::{self, StreamExt};
use watchbell_clock::Clock;
use watchbell_core::{Commit, Cycle, Fault, Millis, Time};
use watchbell_db::Database;
use watchbell_venues::native::{
    Bar, Interval, Listing, NativeBook, NativeClient, NativeError, Venue,
};

use super::tables::{self, Dated};
use crate::input::{Bars, BookAnswer, Member, Universe};
use crate::universe;

/// A just-closed bar may still change for this long (venues' specification, section 3.4).
const SETTLE: Millis = Millis::from_secs(2);
/// How long what an exchange lists is used again.
const LISTINGS_TTL: Millis = Millis::from_hours(24);
/// Requests to one exchange under way at once; its bucket decides how fast they go.
const ABREAST: usize = 8;

/// Bars of which length, of which market of which exchange.
type Market = (Venue, Interval, String);

/// What one run reads, and what it has read.
pub(crate) struct Feed<'a> {
    db: &'a Database,
    clock: &'a Clock,
    clients: BTreeMap<Venue, NativeClient>,
    ttl: Millis,
    /// What was fetched in this run, for a second look at it.
    bars: BTreeMap<Market, Dated<Vec<Bar>>>,
    listings: BTreeMap<Venue, Result<Vec<Listing>, String>>,
    latencies: BTreeMap<Venue, Vec<Millis>>,
    /// What goes into the run's commit, beside what the run itself publishes.
    fetched: Commit,
    counts: Counts,
}

/// How much was fetched, and how much was known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Counts {
    pub(crate) fetched: usize,
    pub(crate) cached: usize,
    pub(crate) failed: usize,
}

/// Which book is wanted of a symbol.
pub(crate) struct Wanted {
    /// As artifacts name the symbol.
    pub(crate) symbol: String,
    pub(crate) venue: Venue,
    /// What the exchange calls it; without a name it does not list it.
    pub(crate) venue_symbol: Option<String>,
}

impl<'a> Feed<'a> {
    pub(crate) fn new(
        db: &'a Database,
        clock: &'a Clock,
        clients: BTreeMap<Venue, NativeClient>,
        ttl: Millis,
    ) -> Self {
        Self {
            db,
            clock,
            clients,
            ttl,
            bars: BTreeMap::new(),
            listings: BTreeMap::new(),
            latencies: BTreeMap::new(),
            fetched: Commit::new(),
            counts: Counts::default(),
        }
    }

    fn client(&self, venue: Venue) -> Result<&NativeClient, Fault> {
        self.clients
            .get(&venue)
            .ok_or_else(|| Fault::permanent(format!("no client asks {venue}: name it in `venues`")))
    }

    /// Waits until bars that have just closed are final.
    pub(crate) async fn settle(&self, cycle: &Cycle) -> Result<(), Fault> {
        let closed = self.clock.now().floor(Interval::Hour.length());
        unless_stopped(cycle, pin!(self.clock.sleep_until(closed + SETTLE))).await
    }

    /// The universe by an exchange's listings and tickers; from an earlier run where it does not answer.
    pub(crate) async fn universe(
        &mut self,
        venue: Venue,
        do_not_trade: &BTreeSet<String>,
    ) -> Result<Universe, Fault> {
        let known = tables::universe(self.db, venue).await?;
        if let Some(known) = known.as_ref().filter(|k| k.is_fresh(self.ttl, self.clock.now())) {
            self.counts.cached += 1;
            return Ok(known.value.clone());
        }
        let listings = self.listed(venue).await?;
        let trouble = match listings {
            Ok(listings) => {
                let asked = self.client(venue)?.tickers().await;
                match self.count(venue, asked) {
                    Ok((tickers, asked_at)) => {
                        let value = universe::select(&listings, &tickers, do_not_trade);
                        let universe = Dated { value, fetched_at: asked_at };
                        let sha256 = universe::hash(&universe.value.members);
                        tables::put_universe(&mut self.fetched, venue, &universe, &sha256);
                        return Ok(universe.value);
                    }
                    Err(e) => e.to_string(),
                }
            }
            Err(why) => why,
        };
        match known {
            Some(mut known) => {
                tracing::warn!(
                    "{venue} does not say what is traded, the universe of {} is used: {trouble}",
                    known.fetched_at
                );
                known.value.stale = true;
                Ok(known.value)
            }
            None => Err(Fault::transient(format!(
                "{venue} does not say what is traded, and no earlier universe is known: {trouble}"
            ))),
        }
    }

    /// What an exchange lists, asked at most once a day.
    async fn listed(&mut self, venue: Venue) -> Result<Result<Vec<Listing>, String>, Fault> {
        if let Some(known) = self.listings.get(&venue) {
            return Ok(known.clone());
        }
        let known = tables::listings(self.db, venue).await?;
        let fresh = known.as_ref().filter(|k| k.is_fresh(LISTINGS_TTL, self.clock.now()));
        let listings = if let Some(known) = fresh {
            self.counts.cached += 1;
            Ok(known.value.clone())
        } else {
            let asked = self.client(venue)?.listings().await;
            match (self.count(venue, asked), known) {
                (Ok((value, fetched_at)), _) => {
                    let listings = Dated { value, fetched_at };
                    tables::put_listings(&mut self.fetched, venue, &listings);
                    Ok(listings.value)
                }
                // What was listed yesterday is listed today, with very few exceptions, and those say so.
                (Err(_), Some(known)) => Ok(known.value),
                (Err(e), None) => Err(e.kind().to_owned()),
            }
        };
        self.listings.insert(venue, listings.clone());
        Ok(listings)
    }

    /// What an exchange calls the market of an asset; or in a word why it has none.
    pub(crate) async fn name_at(
        &mut self,
        venue: Venue,
        quote: &str,
        base: &str,
    ) -> Result<Result<String, String>, Fault> {
        let listings = self.listed(venue).await?;
        Ok(listings.and_then(|all| {
            let mut of_it = all.iter().filter(|l| l.base == base && l.quote == quote && l.online);
            of_it.next().map(|l| l.symbol.clone()).ok_or_else(|| "not_listed".to_owned())
        }))
    }

    /// The newest closed bars of some markets of an exchange, by the exchange's names; or in a word
    /// why there are none.
    pub(crate) async fn bars(
        &mut self,
        cycle: &Cycle,
        venue: Venue,
        length: Interval,
        count: usize,
        symbols: &[String],
        mut told: impl FnMut(usize),
    ) -> Result<BTreeMap<String, Result<Bars, String>>, Fault> {
        let now = self.clock.now();
        let mut all = BTreeMap::new();
        let mut wanted = Vec::new();
        for symbol in symbols {
            let key = (venue, length, symbol.clone());
            let known = match self.bars.get(&key) {
                Some(known) => Some(known.clone()),
                None => tables::bars(self.db, venue, length, symbol).await?,
            };
            match known.filter(|k| is_exact(k, length, self.ttl, now)) {
                Some(Dated { value: bars, fetched_at }) => {
                    all.insert(symbol.clone(), Ok(Bars { venue, bars, fetched_at, cached: true }));
                }
                None => wanted.push(symbol.clone()),
            }
        }
        self.counts.cached += all.len();
        let client = self.client(venue)?.clone();
        let answers = stream::iter(wanted)
            .map(|symbol| {
                let client = client.clone();
                async move {
                    let answer = client.bars(&symbol, length, count).await;
                    (symbol, answer)
                }
            })
            .buffer_unordered(ABREAST);
        let mut answers = pin!(answers);
        while let Some((symbol, answer)) = unless_stopped(cycle, answers.next()).await? {
            let bars = match self.count(venue, answer) {
                Ok((value, fetched_at)) => {
                    let dated = Dated { value, fetched_at };
                    tables::put_bars(&mut self.fetched, venue, &symbol, length, &dated);
                    let bars = Bars { venue, bars: dated.value.clone(), fetched_at, cached: false };
                    self.bars.insert((venue, length, symbol.clone()), dated);
                    Ok(bars)
                }
                Err(e) => Err(e.kind().to_owned()),
            };
            all.insert(symbol, bars);
            told(all.len());
        }
        Ok(all)
    }

    /// Books, each exchange at its own pace; by symbol, in the order of `venues`.
    pub(crate) async fn books(
        &mut self,
        cycle: &Cycle,
        venues: &[Venue],
        wanted: Vec<Wanted>,
        mut told: impl FnMut(usize),
    ) -> Result<BTreeMap<String, Vec<BookAnswer>>, Fault> {
        let mut by_venue: BTreeMap<Venue, Vec<Wanted>> = BTreeMap::new();
        for w in wanted {
            by_venue.entry(w.venue).or_default().push(w);
        }
        let mut lanes = Vec::new();
        for (venue, wanted) in by_venue {
            let client = self.client(venue)?.clone();
            let lane = stream::iter(wanted)
                .map(move |w| {
                    let client = client.clone();
                    async move {
                        let answer = match &w.venue_symbol {
                            Some(name) => Some(client.book(name).await),
                            None => None,
                        };
                        (w, answer)
                    }
                })
                .buffer_unordered(ABREAST);
            lanes.push(lane.boxed());
        }
        let mut answers = stream::select_all(lanes);
        let mut all: BTreeMap<String, Vec<BookAnswer>> = BTreeMap::new();
        let mut done = 0;
        while let Some((wanted, answer)) = unless_stopped(cycle, answers.next()).await? {
            let venue = wanted.venue;
            let book = match answer {
                None => BookAnswer {
                    venue,
                    book: Err("not_listed".to_owned()),
                    latency: None,
                    cached: false,
                },
                Some(answer) => self.book(venue, answer),
            };
            all.entry(wanted.symbol).or_default().push(book);
            done += 1;
            told(done);
        }
        let place = |venue: Venue| venues.iter().position(|v| *v == venue);
        for books in all.values_mut() {
            books.sort_by_key(|b| place(b.venue));
        }
        Ok(all)
    }

    fn book(&mut self, venue: Venue, answer: Answer<NativeBook>) -> BookAnswer {
        let latency = answer.as_ref().ok().map(|a| a.latency);
        let book = self.count(venue, answer).map(|(book, _)| book);
        BookAnswer { venue, book: book.map_err(|e| e.kind().to_owned()), latency, cached: false }
    }

    /// Notes how an exchange answered.
    fn count<T>(&mut self, venue: Venue, answer: Answer<T>) -> Result<(T, Time), NativeError> {
        match answer {
            Ok(answered) => {
                self.counts.fetched += 1;
                self.latencies.entry(venue).or_default().push(answered.latency);
                Ok((answered.value, answered.asked_at))
            }
            Err(error) => {
                self.counts.failed += 1;
                tracing::debug!(%venue, "{}", watchbell_core::chain(&error));
                Err(error)
            }
        }
    }

    /// Latencies of this run by exchange, ascending.
    pub(crate) fn latencies(&self) -> BTreeMap<Venue, Vec<Millis>> {
        let mut all = self.latencies.clone();
        for latencies in all.values_mut() {
            latencies.sort_unstable();
        }
        all
    }

    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Publishes what was fetched and what was spent, so that a run that fails or is killed after this
    /// need not ask for it again.
    pub(crate) async fn save(&mut self, cycle: &Cycle) -> Result<(), Fault> {
        let commit = self.commit();
        Ok(cycle.step(commit).await?)
    }

    /// What was fetched since it was saved, and what was spent, for the run's commit.
    pub(crate) fn commit(&mut self) -> Commit {
        let now = self.clock.now();
        let mut commit = std::mem::take(&mut self.fetched);
        for (venue, client) in &self.clients {
            tables::put_spending(&mut commit, *venue, &client.spent(), now);
        }
        commit
    }
}

/// Waits for something that may take long, such as a turn at an exchange that wants a pause; a cycle
/// that is asked to stop does not wait.
async fn unless_stopped<F: Future + Unpin>(cycle: &Cycle, work: F) -> Result<F::Output, Fault> {
    match select(cycle.host.until_cancelled(), work).await {
        Either::Left(_) => Err(Fault::Cancelled),
        Either::Right((done, _)) => Ok(done),
    }
}

type Answer<T> = Result<watchbell_venues::native::Answered<T>, NativeError>;

/// Whether known bars can be used: nothing has closed since, or they were asked for since the last
/// bar closed and are young enough.
fn is_exact(known: &Dated<Vec<Bar>>, length: Interval, ttl: Millis, now: Time) -> bool {
    now < usable_until(&known.value, known.fetched_at, length, ttl)
}

/// Until when bars can be used: those that end with the last bar that had closed, until the next one
/// closes; others, of a market without trades for a while, no longer than `ttl`.
pub(crate) fn usable_until(bars: &[Bar], fetched_at: Time, length: Interval, ttl: Millis) -> Time {
    let length = length.length();
    let closed = fetched_at.floor(length);
    let exact = bars.last().is_some_and(|b| b.open_time + length == closed);
    let next = closed + length;
    if exact { next } else { next.min(fetched_at + ttl) }
}

/// A member's name for its primary exchange.
pub(crate) fn primary_names(members: &[Member]) -> Vec<String> {
    members.iter().map(|m| m.venue_symbol.clone()).collect()
}
