//! `market-sync`: fetches 1-minute candles, finds and repairs what is missing, and says how far
//! each symbol is known. Jobs fetch candles of other intervals by the same steps, and a series that a
//! job has begun is followed from then on, a candle at a time.
//!
//! Each page is one fenced step: rows, cursor, gaps and cover together, so the cursor never moves
//! over a candle that was neither stored nor asked for. A missing candle is a *gap* until the venue
//! has answered often enough ([`Config::hole_after`]), once a run, that it has none; then it is a
//! *hole*, and the cover passes over it. A symbol that the venue refuses and does not list has no
//! candles either ([`refused`]). Only closed candles count, and only two seconds after their
//! close.

mod gaps;
mod refused;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use watchbell_core::{
    BoxFuture, Commit, Condition, Cycle, Definition, Done, Fault, Millis, Statement, Time, Trigger,
    Worker, chain, values,
};
use watchbell_db::{Database, DbError, Row};
use watchbell_venues::binance::wire::{Interval, Kline};
use watchbell_venues::binance::{
    BinanceClient, CallRecord, CallStatus, Class, State as VenueState, VenueError,
};

use self::gaps::{between, cover, missing, state_word};
use self::refused::Resting;
use crate::Config;
use crate::universe::{self, BASE, Tracked, UNLISTED_AFTER};

/// Name of the worker.
pub const MARKET_SYNC: &str = "market-sync";
/// The condition that says whether the venue answers.
pub const VENUE: &str = "venue:binance";
/// Cover source of 1-minute candles; its keys are symbols.
pub const KLINES: &str = "klines:1m";

/// The venue changes a candle for up to this long after its close.
const FINALITY: Millis = Millis::from_secs(2);
/// Most candles of a page.
const PAGE: usize = 1000;
/// How far back a series begins that a job is the first to ask for.
const FIRST_REACH: Millis = Millis::from_hours(6);
/// How often the venue is asked what it lists.
const LISTING_EVERY: Millis = Millis::from_days(1);

/// Collects the client's requests for `ops.market_sync_log`. Depth polls are left out: they come
/// each second, and their points say how they went.
#[derive(Debug, Clone, Default)]
pub struct CallLog(Arc<Mutex<VecDeque<CallRecord>>>);

impl CallLog {
    /// Keeps at most this many requests between two writes.
    const MOST: usize = 10_000;

    /// Takes note of one request: give this to the client as its observer.
    pub fn note(&self, record: &CallRecord) {
        if record.call.endpoint.ends_with("/depth") {
            return;
        }
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() < Self::MOST {
            log.push_back(record.clone());
        }
    }

    /// What stores the requests since the last time, if there were any.
    fn statement(&self) -> Option<Statement> {
        let records = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut params = Vec::with_capacity(records.len() * 12);
        for r in records {
            params.extend(values![
                r.at,
                r.call.symbol.clone(),
                r.call.endpoint.to_string(),
                r.interval,
                r.from,
                r.to,
                r.rows as i64,
                r.used_weight,
                outcome(r.status, r.rows),
                r.http_status.map(i64::from),
                r.latency,
                r.error,
            ]);
        }
        (!params.is_empty()).then(|| {
            Statement::bulk(
                "insert into ops.market_sync_log
                   (ts, symbol, endpoint, window_label, from_ms, to_ms, rows, weight_used, status,
                    http_code, latency_ms, message)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
                12,
                params,
            )
        })
    }
}

/// The log's word for how a request ended (section 9.4).
const fn outcome(status: CallStatus, rows: usize) -> &'static str {
    match status {
        CallStatus::Ok if rows == 0 => "empty",
        CallStatus::Ok => "ok",
        CallStatus::RateLimited => "throttled",
        CallStatus::Banned => "banned",
        CallStatus::Transient => "retry",
        CallStatus::Permanent | CallStatus::Blocked => "error",
    }
}

/// The worker, and what jobs fetch candles with.
pub(crate) struct Sync {
    db: Database,
    client: BinanceClient,
    log: CallLog,
    every: Millis,
    /// Lengths of the windows: a symbol that was disabled is fetched until its last ones are over.
    windows: Vec<Millis>,
    hole_after: i64,
    max_gaps_per_run: i64,
    listed_at: AtomicI64,
    resting: Resting,
}

/// What a run did: the worker's summary.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Report {
    symbols: usize,
    pages: u64,
    rows: u64,
    gaps: u64,
    holes: u64,
    repaired: u64,
    revised: u64,
    /// How far the slowest symbol is behind the venue.
    behind_ms: i64,
    venue: Option<VenueState>,
    /// Symbols that the venue does not know, and why that is held.
    unlisted: BTreeMap<Arc<str>, String>,
    problems: Vec<String>,
}

/// Where the candles of one symbol and interval stand.
#[derive(Debug, Clone)]
struct Track {
    symbol: Arc<str>,
    interval: Interval,
    /// The interval's name.
    label: Arc<str>,
    /// The interval's length.
    step: Millis,
    wanted_from: Time,
    covered_from: Option<Time>,
    covered_until: Option<Time>,
    last_open: Option<Time>,
    /// For a symbol that was disabled: nothing later is wanted.
    ends: Option<Time>,
}

impl Track {
    /// From a row of cursors; none for an interval that is on no fixed grid.
    fn read(row: &Row) -> Result<Option<Self>, DbError> {
        let label = row.shared_text(1)?;
        let interval = Interval::ALL.into_iter().find(|i| i.as_str() == &*label);
        let Some((interval, step)) = interval.and_then(|i| Some((i, i.millis()?))) else {
            return Ok(None);
        };
        Ok(Some(Self {
            symbol: row.shared_text(0)?,
            interval,
            label,
            step,
            wanted_from: row.time(2)?,
            covered_from: row.opt_time(3)?,
            covered_until: row.opt_time(4)?,
            last_open: row.opt_time(5)?,
            ends: None,
        }))
    }

    /// The open time of the first candle that is not fetched, where `edge` is that of the first one
    /// that may still change.
    fn limit(&self, edge: Time) -> Time {
        self.ends.map_or(edge, |ends| ends.min(edge))
    }
}

impl Sync {
    pub(crate) fn new(config: &Config, db: Database, client: BinanceClient, log: CallLog) -> Self {
        Self {
            db,
            client,
            log,
            every: config.sync_interval,
            windows: config.windows.clone(),
            hole_after: i64::from(config.hole_after),
            max_gaps_per_run: i64::from(config.max_gaps_per_run),
            listed_at: AtomicI64::new(i64::MIN / 2),
            resting: Resting::default(),
        }
    }

    async fn sync(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let mut report = Report::default();
        let mut failed = None;
        match self.sync_all(cycle, &mut report).await {
            Ok(()) => {}
            Err(Stop::Fault(fault)) => return Err(fault),
            Err(Stop::Venue(e)) => failed = Some(e),
        }
        let now = cycle.now();
        let health = self.client.health(now);
        report.venue = Some(health.state);
        let mut commit = Commit::new();
        commit.statements.extend(self.log.statement());
        commit.conditions.push(Condition {
            name: VENUE.into(),
            met: !matches!(health.state, VenueState::Down | VenueState::Banned),
            detail: format!("{} since {}: {}", health.state, health.since, health.reason),
            until: self.client.ban_state(),
        });
        match failed {
            None => Ok(Done::new(report, commit)),
            Some(e) => {
                // The failure is the cycle's outcome; what is known of the venue is published all
                // the same, for others wait on it.
                cycle.step(commit).await?;
                Err(Fault::Transient(Box::new(e)))
            }
        }
    }

    async fn sync_all(&self, cycle: &Cycle, report: &mut Report) -> Result<(), Stop> {
        self.client.server_time().await?;
        if cycle.now() - Time(self.listed_at.load(Ordering::Relaxed)) >= LISTING_EVERY {
            self.listing(cycle).await?;
            self.listed_at.store(cycle.now().0, Ordering::Relaxed);
        }
        let tracks = self.tracks().await?;
        report.symbols = tracks.iter().filter(|t| t.interval == Interval::M1).count();
        let symbols = tracks.len().max(1);
        let mut list = None;
        for (i, track) in tracks.into_iter().enumerate() {
            let symbol = Arc::clone(&track.symbol);
            if let Some(why) = self.resting.why(&track, cycle.now()) {
                report.unlisted.insert(symbol, why);
                continue;
            }
            let share = (i as f64, symbols as f64);
            match self.symbol(cycle, track.clone(), None, share, report).await {
                Ok(()) => {}
                // One symbol that the venue does not know must not starve the others.
                Err(Stop::Venue(e)) if e.class() == Class::Permanent => {
                    if !self.refused(cycle, &track, &e, &mut list, report).await? {
                        report.problems.push(format!("{symbol}: {e}"));
                    }
                }
                Err(stop) => return Err(stop),
            }
            if cycle.cancelled() {
                return Err(Stop::Fault(Fault::Cancelled));
            }
        }
        Ok(())
    }

    /// Refreshes what the venue says about the symbols of the universe.
    async fn listing(&self, cycle: &Cycle) -> Result<(), Stop> {
        let info = self.client.exchange_info().await?;
        let wanted = universe::enabled(&self.db).await.map_err(database)?;
        let now = cycle.now();
        let listed = universe::note_listing(&self.db, &info, now).await.map_err(database)?;
        let mut params = Vec::new();
        for s in info.symbols.iter().filter(|s| wanted.iter().any(|w| **w == *s.symbol)) {
            params.extend(values![
                s.symbol.as_str(),
                s.base_asset.as_str(),
                s.quote_asset.as_str(),
                // The market's word for what is in the universe; the venue's is in `listings`.
                "TRADING",
                s.tick_size(),
                s.step_size(),
                s.min_notional(),
                now,
            ]);
        }
        let commit = Commit::new().with(listed).with(Statement::bulk(
            "insert into market.symbols
               (symbol, base_asset, quote_asset, status, price_tick, qty_step, min_notional,
                updated_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8)
             on conflict (symbol) do update set
               base_asset = excluded.base_asset, quote_asset = excluded.quote_asset,
               price_tick = excluded.price_tick, qty_step = excluded.qty_step, min_notional = excluded.min_notional,
               updated_at = excluded.updated_at",
            8,
            params,
        ));
        cycle.step(commit).await.map_err(|e| Stop::Fault(Fault::Store(e)))
    }

    /// The minutes of each symbol in the universe's order, and then, where somebody has asked for
    /// them once, its candles of other intervals, as they become due.
    async fn tracks(&self) -> Result<Vec<Track>, Stop> {
        let rows = self
            .db
            .query(
                "select symbol, window_label, wanted_from, covered_from, covered_until,
                   last_open_time
                 from ingest.klines_cursor",
                Vec::new(),
            )
            .await
            .map_err(database)?;
        let mut minutes = BTreeMap::new();
        let mut others: BTreeMap<Arc<str>, Vec<Track>> = BTreeMap::new();
        for row in &rows {
            let Some(track) = Track::read(row).map_err(database)? else { continue };
            let symbol = Arc::clone(&track.symbol);
            if track.interval == Interval::M1 {
                minutes.insert(symbol, track);
            } else if self.is_due(&track) {
                others.entry(symbol).or_default().push(track);
            }
        }
        let tracked = universe::tracked(&self.db, &self.windows).await.map_err(database)?;
        let (mut tracks, mut later) = (Vec::new(), Vec::new());
        for Tracked { symbol, until } in tracked {
            if let Some(track) = minutes.remove(&symbol) {
                tracks.push(Track { ends: until, ..track });
            }
            // Of a symbol that was disabled, only what its last windows need is fetched.
            if until.is_none() {
                let mut own = others.remove(&symbol).unwrap_or_default();
                own.sort_by_key(|track| track.step);
                later.extend(own);
            }
        }
        tracks.extend(later);
        Ok(tracks)
    }

    /// Whether a candle has closed since a series was fetched, or more of its past is wanted.
    fn is_due(&self, track: &Track) -> bool {
        let known = track.covered_until.unwrap_or(track.wanted_from);
        known < self.edge(track.step) || track.covered_from.is_some_and(|c| track.wanted_from < c)
    }

    /// Fetches what is missing of one symbol and interval up to the newest closed candle: for jobs.
    /// A series that nobody has asked for begins six hours ago. With `span`, it reaches back to the
    /// span's beginning, and holes of the venue within the span are asked for again.
    ///
    /// # Errors
    /// A snooze while the venue wants no requests.
    pub(crate) async fn fetch(
        &self,
        cycle: &Cycle,
        symbol: &str,
        (interval, step): (Interval, Millis),
        span: Option<(Time, Time)>,
    ) -> Result<Report, Fault> {
        let mut report = Report { symbols: 1, ..Report::default() };
        let now = cycle.now();
        let from = span.map_or(now - FIRST_REACH, |(from, _)| from).floor(step);
        let wish = Statement::new(
            "insert into ingest.klines_cursor (symbol, window_label, wanted_from, updated_at)
             values ($1, $2, $3, $4)
             on conflict (symbol, window_label) do nothing",
            values![symbol, interval.as_str(), from, now],
        );
        let mut commit = Commit::new().with(wish);
        if span.is_some() {
            commit.push(Statement::new(
                "update ingest.klines_cursor set wanted_from = $3, updated_at = $4
                 where symbol = $1 and window_label = $2 and wanted_from > $3",
                values![symbol, interval.as_str(), from, now],
            ));
        }
        cycle.step(commit).await?;
        let row = self
            .db
            .query_one(
                "select symbol, window_label, wanted_from, covered_from, covered_until,
                   last_open_time
                 from ingest.klines_cursor where symbol = $1 and window_label = $2",
                values![symbol, interval.as_str()],
            )
            .await?;
        let track = Track::read(&row)?.ok_or_else(|| {
            Fault::permanent(format!("the candles of `{interval}` are on no fixed grid"))
        })?;
        self.symbol(cycle, track, span, (0.0, 1.0), &mut report).await?;
        report.venue = Some(self.client.health(now).state);
        Ok(report)
    }

    async fn symbol(
        &self,
        cycle: &Cycle,
        mut track: Track,
        again: Option<(Time, Time)>,
        share: (f64, f64),
        report: &mut Report,
    ) -> Result<(), Stop> {
        self.repair(cycle, &track, again, report).await?;
        self.back(cycle, &mut track, share, report).await?;
        self.forward(cycle, &mut track, share, report).await?;
        let edge = track.limit(self.edge(track.step));
        let known = track.covered_until.unwrap_or(track.wanted_from);
        report.behind_ms = report.behind_ms.max((edge - known).0);
        Ok(())
    }

    /// The open time of the first candle that may still change.
    fn edge(&self, step: Millis) -> Time {
        (self.client.venue_now() - FINALITY).floor(step)
    }

    /// From where the symbol is known up to the newest closed candle.
    async fn forward(
        &self,
        cycle: &Cycle,
        track: &mut Track,
        share: (f64, f64),
        report: &mut Report,
    ) -> Result<(), Stop> {
        let step = track.step;
        let begin = track.covered_until.unwrap_or(track.wanted_from);
        let mut next = begin;
        while next < track.limit(self.edge(step)) && !cycle.cancelled() {
            let edge = track.limit(self.edge(step));
            let far = (edge - next).0 > PAGE as i64 * step.0;
            let client = if far { self.client.backfill() } else { self.client.clone() };
            // The newest candle that is stored is read once more: if the venue has changed it
            // after its close, that is a revision.
            let reread = track.last_open.filter(|last| !far && *last + step == next);
            let start = reread.unwrap_or(next);
            let page =
                client.klines(&track.symbol, track.interval, Some(start), None, PAGE).await?;
            report.pages += 1;
            let mut rows: Vec<Kline> =
                page.closed().iter().filter(|r| r.open_time < edge).cloned().collect();
            let mut commit = Commit::new();
            if reread.is_some() && rows.first().map(|r| r.open_time) == reread {
                let again = rows.remove(0);
                self.revise(track, &again, cycle.now(), &mut commit, report).await?;
            }
            let until = match rows.last() {
                Some(last) => last.open_time + step,
                // Silence. For a while it may be late news; for a day it is an answer, if more than
                // the newest candle is lacking.
                None if edge - next >= UNLISTED_AFTER.max(step * 2) && page.rows.len() < PAGE => {
                    edge
                }
                // Of a symbol that was disabled nothing more will come: its last windows must not
                // keep all others waiting for a day.
                None if track.ends == Some(edge) => edge,
                None => {
                    if !commit.is_empty() {
                        self.step(cycle, commit).await?;
                    }
                    return Ok(());
                }
            };
            self.store(track, next, until, &rows, cycle.now(), &mut commit, report);
            self.step(cycle, commit).await?;
            next = until;
            let done = (next - begin).0 as f64 / ((edge - begin).0 as f64).max(1.0);
            cycle.progress(
                100.0 * (share.0 + done.min(1.0)) / share.1,
                &format!("{} {next}", track.symbol),
            );
        }
        Ok(())
    }

    /// From an earlier wish up to where the symbol is known.
    async fn back(
        &self,
        cycle: &Cycle,
        track: &mut Track,
        share: (f64, f64),
        report: &mut Report,
    ) -> Result<(), Stop> {
        let Some(known) = track.covered_from.filter(|from| track.wanted_from < *from) else {
            return Ok(());
        };
        let (step, client) = (track.step, self.client.backfill());
        let mut next = track.wanted_from;
        while next < known && !cycle.cancelled() {
            let end = Some(known - step);
            let page = client.klines(&track.symbol, track.interval, Some(next), end, PAGE).await?;
            report.pages += 1;
            let until = if page.rows.len() < PAGE {
                known
            } else {
                page.rows.last().map_or(known, |r| r.open_time + step)
            };
            let mut commit = Commit::new();
            let mut passing = track.clone();
            self.store(&mut passing, next, until, &page.rows, cycle.now(), &mut commit, report);
            if until == known {
                track.covered_from = Some(track.wanted_from);
                commit.push(Statement::new(
                    "update ingest.klines_cursor set covered_from = wanted_from, updated_at = $3
                     where symbol = $1 and window_label = $2",
                    values![Arc::clone(&track.symbol), Arc::clone(&track.label), cycle.now()],
                ));
            }
            self.step(cycle, commit).await?;
            next = until;
            cycle.progress(100.0 * share.0 / share.1, &format!("{} back to {next}", track.symbol));
        }
        Ok(())
    }

    /// Puts a page into a commit: rows, the gaps among them, the cover of the rest, the cursor.
    #[expect(clippy::too_many_arguments, reason = "the parts of one page, used in two places")]
    fn store(
        &self,
        track: &mut Track,
        from: Time,
        until: Time,
        rows: &[Kline],
        now: Time,
        commit: &mut Commit,
        report: &mut Report,
    ) {
        let (symbol, label, step) = (&track.symbol, &track.label, track.step);
        commit.push(insert_as(symbol, label, rows));
        report.rows += rows.len() as u64;
        let gaps = missing((from, until), step, rows.iter().map(|r| r.open_time));
        let hole = self.hole_after <= 1;
        for &(gap_from, gap_to) in &gaps {
            report.gaps += 1;
            report.holes += u64::from(hole);
            commit.push(Statement::new(
                "insert into ingest.kline_gaps
                   (symbol, interval_label, from_at, to_at, state, answers, found_at, tried_at)
                 values ($1, $2, $3, $4, $5, 1, $6, $6)
                 on conflict (symbol, interval_label, from_at) do update set
                   to_at = excluded.to_at",
                values![
                    Arc::clone(symbol),
                    Arc::clone(label),
                    gap_from,
                    gap_to,
                    state_word(hole),
                    now
                ],
            ));
            commit.emit(
                if hole { "klines.hole" } else { "klines.gap" },
                &**symbol,
                serde_json::json!({
                    "symbol": &**symbol, "interval": &**label, "from": gap_from, "to": gap_to,
                }),
            );
        }
        let waits = if hole { &[][..] } else { &gaps[..] };
        for (a, b) in between(from, until, waits) {
            commit.covers.push(cover(symbol, label, a, b));
        }
        track.covered_from = Some(track.covered_from.unwrap_or(from));
        track.covered_until = Some(track.covered_until.map_or(until, |u| u.max(until)));
        if let Some(last) = rows.last() {
            track.last_open =
                Some(track.last_open.map_or(last.open_time, |l| l.max(last.open_time)));
        }
        commit.push(Statement::new(
            "update ingest.klines_cursor set
               covered_from = coalesce(covered_from, $3),
               covered_until = case when $4 > coalesce(covered_until, $4)
                 then $4 else coalesce(covered_until, $4) end,
               last_open_time = case when coalesce(last_open_time, $5) > $5
                 then last_open_time else coalesce($5, last_open_time) end,
               updated_at = $6
             where symbol = $1 and window_label = $2",
            values![
                Arc::clone(symbol),
                Arc::clone(label),
                track.covered_from,
                track.covered_until,
                track.last_open,
                now
            ],
        ));
    }

    /// Compares a candle that is stored with what the venue says now; the newer one wins, and the
    /// older one is kept.
    async fn revise(
        &self,
        Track { symbol, label, .. }: &Track,
        again: &Kline,
        now: Time,
        commit: &mut Commit,
        report: &mut Report,
    ) -> Result<(), Stop> {
        let stored = self
            .db
            .query_opt(
                "select open, high, low, close, volume from ingest.kline_raw
                 where symbol = $1 and interval_label = $2 and open_time = $3",
                values![Arc::clone(symbol), Arc::clone(label), again.open_time],
            )
            .await
            .map_err(database)?;
        let Some(stored) = stored else { return Ok(()) };
        let fresh = [again.open, again.high, again.low, again.close, again.volume];
        let mut same = true;
        for (i, value) in fresh.iter().enumerate() {
            same &= stored.f64(i).map_err(database)?.to_bits() == value.to_bits();
        }
        if same {
            return Ok(());
        }
        report.revised += 1;
        let key = values![Arc::clone(symbol), Arc::clone(label), again.open_time];
        let mut kept = key.clone();
        kept.extend(values![now]);
        commit.push(Statement::new(
            "insert into ingest.kline_revisions
               (symbol, interval_label, open_time, open, high, low, close, volume, replaced_at)
             select symbol, interval_label, open_time, open, high, low, close, volume, $4
             from ingest.kline_raw
             where symbol = $1 and interval_label = $2 and open_time = $3",
            kept,
        ));
        commit.push(Statement::new(
            "delete from ingest.kline_raw
             where symbol = $1 and interval_label = $2 and open_time = $3",
            key,
        ));
        commit.push(insert_as(symbol, label, std::slice::from_ref(again)));
        commit.emit(
            "klines.revised",
            &**symbol,
            serde_json::json!({
                "symbol": &**symbol, "interval": &**label, "open_time": again.open_time,
            }),
        );
        Ok(())
    }

    async fn step(&self, cycle: &Cycle, commit: Commit) -> Result<(), Stop> {
        cycle.step(commit).await.map_err(|e| Stop::Fault(Fault::Store(e)))
    }
}

/// The worker, run each `period`.
pub(crate) fn definition(period: Millis) -> Definition {
    Definition::new(MARKET_SYNC, Trigger::Every { period, offset: Millis::ZERO })
        .describe(
            "Fetches closed 1-minute candles of the universe from the venue, asks again for \
             missing ones, remembers holes of the venue, and says how far each symbol is known.",
        )
        .timeouts(Millis::from_mins(30), Millis::from_mins(35))
}

impl Worker for Sync {
    fn define(&self) -> Definition {
        definition(self.every)
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.sync(cycle))
    }
}

/// Why a run ended early.
pub(crate) enum Stop {
    Venue(VenueError),
    Fault(Fault),
}

impl From<VenueError> for Stop {
    fn from(e: VenueError) -> Self {
        Self::Venue(e)
    }
}

impl From<Stop> for Fault {
    /// The fault of a job, or of a worker with nothing else to publish: what the venue refuses for
    /// its rate is asked again later, and spends no attempt.
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Fault(fault) => fault,
            Stop::Venue(e) => match e.class() {
                Class::Rate { retry_after } => Self::Snooze { after: retry_after, why: chain(&e) },
                Class::Permanent => Self::Permanent(Box::new(e)),
                Class::Transient | Class::Blocked => Self::Transient(Box::new(e)),
            },
        }
    }
}

pub(crate) fn database(e: DbError) -> Stop {
    Stop::Fault(e.into())
}

/// The insert of a page of 1-minute candles: idempotent, for a closed candle does not change.
pub fn insert(symbol: &Arc<str>, rows: &[Kline]) -> Statement {
    insert_as(symbol, &Arc::from(BASE), rows)
}

/// The insert of a page of candles of any interval.
fn insert_as(symbol: &Arc<str>, interval: &Arc<str>, rows: &[Kline]) -> Statement {
    let mut params = Vec::with_capacity(rows.len() * 13);
    for r in rows {
        params.extend([
            Arc::clone(symbol).into(),
            Arc::clone(interval).into(),
            r.open_time.into(),
            r.close_time.into(),
            r.open.into(),
            r.high.into(),
            r.low.into(),
            r.close.into(),
            r.volume.into(),
            r.quote_volume.into(),
            r.trades.into(),
            r.taker_buy_base.into(),
            r.taker_buy_quote.into(),
        ]);
    }
    Statement::bulk(
        "insert into ingest.kline_raw
           (symbol, interval_label, open_time, close_time, open, high, low, close, volume,
            quote_volume, trades, taker_buy_base, taker_buy_quote)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         on conflict (symbol, interval_label, open_time) do nothing",
        13,
        params,
    )
}
