//! `universe-validation`: brings the facts of section 1.3 together once a minute, lets
//! [`judge`](super::validation::judge) decide, and writes what follows in one commit.
//!
//! It asks the venue for little: what is listed once an hour (or a quarter of one, while a symbol is
//! amiss), and one candle of each symbol of which nothing new is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Serialize;
use watchbell_core::{
    BoxFuture, Commit, Cycle, Definition, Done, Fault, Millis, Missed, Statement, Time, Trigger,
    Worker, chain, values,
};
use watchbell_db::{Database, DbError};
use watchbell_venues::binance::wire::Interval;
use watchbell_venues::binance::{BinanceClient, Class};

use super::change::{By, Requests, Universe, Wish, cursor, mirror};
use super::validation::{Context, Facts, Probe, Streak, Verdict, judge};
use super::venue::{Listing, listings, listings_of, store_listings};
use super::{BASE, MINUTE, desk};

/// Name of the worker.
pub const UNIVERSE_VALIDATION: &str = "universe-validation";

/// How old the venue's list may be while all is well, and while a symbol is not.
const LISTING_AGE: Millis = Millis::from_hours(1);
const LISTING_AGE_AMISS: Millis = Millis::from_mins(15);
/// Candles that one run asks for at most; the symbols that were asked longest ago come first.
const MAX_PROBES_PER_RUN: usize = 20;
/// How long the drift log is kept.
const DRIFT_KEPT: Millis = Millis::from_days(30);
/// A point that is older than this is none, for the validation.
const SAMPLES_SINCE: Millis = Millis::from_mins(1);

/// The worker.
pub(crate) struct Validation {
    db: Database,
    client: BinanceClient,
    every: Millis,
    sampling: bool,
    /// Runs in a row that met an outage.
    outages: AtomicU32,
}

/// What a run found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Report {
    symbols: usize,
    enabled: usize,
    /// Enabled symbols that can be carried.
    capable: usize,
    probes: usize,
    /// Codes of the present drift, by symbol.
    drift: BTreeMap<Arc<str>, BTreeSet<super::Code>>,
    /// Missing candles that may still come.
    gaps: i64,
    auto_enabled: Vec<Arc<str>>,
    auto_disabled: Vec<Arc<str>>,
    /// Changes of many symbols that were carried out.
    batches: usize,
    /// Set when no enabled symbol can be carried: nothing was changed then.
    outage: Option<&'static str>,
    problems: Vec<String>,
}

const OUTAGE: &str = "no enabled symbol has fresh data: the ingest is down, not the symbols; \
     nothing was changed";

impl Validation {
    pub(crate) const fn new(
        db: Database,
        client: BinanceClient,
        every: Millis,
        sampling: bool,
    ) -> Self {
        Self { db, client, every, sampling, outages: AtomicU32::new(0) }
    }

    /// Of an outage the first run is told, then the second, the fourth and so on, and its end.
    fn tell_outage(&self, outage: bool) {
        if !outage {
            let met = self.outages.swap(0, Ordering::Relaxed);
            if met > 0 {
                tracing::info!("symbols have fresh data again, after {met} validations without");
            }
            return;
        }
        let met = self.outages.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if met.is_power_of_two() {
            let times = if met > 1 { format!(" ({met} in a row)") } else { String::new() };
            tracing::warn!("{OUTAGE}{times}");
        }
    }

    async fn validate(&self, cycle: &Cycle) -> Result<Done, Fault> {
        // Before anything is judged, what a person wrote into the inbox.
        let batches = desk::carry_out_batches(&self.db, cycle).await?;
        let mut report = Report { batches, ..Report::default() };
        let universe = Universe::load(&self.db).await?;
        let before = streaks(&self.db).await?;
        let now = self.client.venue_now();
        let mut facts = self.facts(&universe, now).await?;
        let mut commit = Commit::new();
        self.refresh_listings(&universe, &mut facts, now, &mut commit, &mut report).await;
        self.probe(&mut facts, &before, now, &mut report).await;

        let requests = Requests::load(&self.db).await?;
        let has: BTreeSet<&str> = universe.enabled().map(|e| &*e.symbol).collect();
        let asked = requests.at(now).into_iter().flatten();
        let mismatched = asked.filter(|s| !has.contains(s.as_str()));
        let context = Context {
            now,
            sampling: self.sampling,
            mismatched: mismatched.map(|s| Arc::from(s.as_str())).collect(),
        };
        let known: BTreeMap<Arc<str>, Streak> =
            before.iter().map(|(symbol, (s, _))| (Arc::clone(symbol), s.clone())).collect();
        let verdict = judge(&facts, &known, &context);
        let gaps = "select count(*) from ingest.kline_gaps where state = 'pending'";
        report.gaps = self.db.query_one(gaps, Vec::new()).await?.i64(0)?;
        report.symbols = facts.len();
        report.enabled = facts.iter().filter(|f| f.enabled).count();
        let capable = |f: &&Facts| f.enabled && verdict.streaks[&f.symbol].capable == Some(true);
        report.capable = facts.iter().filter(capable).count();
        report.drift = verdict
            .streaks
            .iter()
            .filter(|(_, s)| !s.codes.is_empty())
            .map(|(symbol, s)| (Arc::clone(symbol), s.codes.clone()))
            .collect();
        if verdict.outage {
            report.outage = Some(OUTAGE);
        }
        self.tell_outage(verdict.outage);
        let wish = Wish::Validated {
            enable: verdict.enable.clone(),
            disable: verdict.disable.iter().map(|(s, c)| (Arc::clone(s), c.to_string())).collect(),
        };
        let plan = universe.plan(&wish).map_err(|e| Fault::Permanent(Box::new(e)))?;
        plan.write(&universe, By::Auto, cycle.now(), &mut commit)?;
        record(&verdict, &before, cycle.now(), &mut commit)?;
        report.auto_enabled = plan.enabled;
        report.auto_disabled = plan.disabled;
        for (symbol, code) in &verdict.disable {
            tracing::warn!(
                "{symbol} is disabled ({code}): it leaves the windows that start from now on, and \
                 returns by itself once the venue carries it again"
            );
        }
        Ok(Done::new(report, commit))
    }

    async fn facts(&self, universe: &Universe, now: Time) -> Result<Vec<Facts>, DbError> {
        let snapshot = self.db.snapshot().await?;
        let mut since = BTreeMap::new();
        let changes = snapshot
            .query("select symbol, max(at) from settings.universe_changes group by symbol", vec![])
            .await?;
        for row in &changes {
            since.insert(row.shared_text(0)?, row.time(1)?);
        }
        let mut cursors = BTreeMap::new();
        let rows = snapshot
            .query(
                "select symbol, last_open_time from ingest.klines_cursor where window_label = $1",
                values![BASE],
            )
            .await?;
        for row in &rows {
            cursors.insert(row.shared_text(0)?, row.opt_time(1)?);
        }
        let mut mirror = BTreeMap::new();
        for row in &snapshot.query("select symbol, status from market.symbols", vec![]).await? {
            mirror.insert(row.shared_text(0)?, row.text(1)? == "TRADING");
        }
        let listings = listings(&self.db).await?;
        let mut facts = Vec::with_capacity(universe.entries.len());
        for entry in &universe.entries {
            let symbol = &entry.symbol;
            let sample = match entry.enabled && self.sampling {
                true => {
                    let newest = "select max(ts) from str_aux.samples_5s
                        where symbol = $1 and ts > $2 and mid is not null";
                    let params = values![Arc::clone(symbol), now - SAMPLES_SINCE];
                    snapshot.query_one(newest, params).await?.opt_time(0)?
                }
                false => None,
            };
            let last_open = cursors.get(symbol).copied().flatten();
            facts.push(Facts {
                symbol: Arc::clone(symbol),
                enabled: entry.enabled,
                auto_disabled: entry.is_auto_disabled(),
                since: since.get(symbol).copied().unwrap_or(Time::EPOCH),
                listing: listings.get(symbol).cloned(),
                kline: last_open.map(|open| open + MINUTE),
                sample,
                probe: Probe::Unknown,
                has_cursor: cursors.contains_key(symbol),
                mirrored: mirror.get(symbol).copied() == Some(entry.enabled),
            });
        }
        Ok(facts)
    }

    /// Asks what the venue lists, where what is known of it is too old.
    async fn refresh_listings(
        &self,
        universe: &Universe,
        facts: &mut [Facts],
        now: Time,
        commit: &mut Commit,
        report: &mut Report,
    ) {
        let amiss = facts.iter().any(|f| f.auto_disabled || (f.enabled && !f.is_fresh(now)));
        let limit = if amiss { LISTING_AGE_AMISS } else { LISTING_AGE };
        let old = |f: &Facts| f.listing.as_ref().is_none_or(|l| now - l.fetched_at >= limit);
        if !facts.iter().any(old) {
            return;
        }
        match self.client.exchange_info().await {
            Ok(info) => {
                let fresh: BTreeMap<Arc<str>, Listing> = listings_of(&info, &universe.entries, now);
                commit.push(store_listings(fresh.iter()));
                for f in facts {
                    f.listing = fresh.get(&f.symbol).cloned();
                }
            }
            // What is known will do for this run; without it, nothing is judged.
            Err(e) => report.problems.push(chain(&e)),
        }
    }

    /// Asks for the newest candle of each symbol of which nothing new is stored.
    async fn probe(
        &self,
        facts: &mut [Facts],
        before: &BTreeMap<Arc<str>, (Streak, Time)>,
        now: Time,
        report: &mut Report,
    ) {
        let mut silent: Vec<&mut Facts> = facts
            .iter_mut()
            .filter(|f| f.auto_disabled || (f.enabled && !f.is_fresh(now)))
            .filter(|f| f.listing.as_ref().is_none_or(Listing::trades))
            .collect();
        let checked = |f: &Facts| before.get(&f.symbol).map_or(Time::EPOCH, |(_, at)| *at);
        silent.sort_by_key(|f| checked(f));
        for f in silent.into_iter().take(MAX_PROBES_PER_RUN) {
            report.probes += 1;
            match self.client.klines(&f.symbol, Interval::M1, None, None, 2).await {
                Ok(page) => {
                    let newest = page.closed().last().map(|k| k.open_time + MINUTE);
                    f.probe = Probe::Answered(newest);
                }
                Err(e) if e.class() == Class::Permanent => {
                    report.problems.push(chain(&e));
                    f.probe = Probe::Answered(None);
                }
                // The venue is not well: asking for the others would make it no better.
                Err(e) => {
                    report.problems.push(chain(&e));
                    break;
                }
            }
        }
    }
}

/// The streaks that are stored, and when each symbol was judged.
async fn streaks(db: &Database) -> Result<BTreeMap<Arc<str>, (Streak, Time)>, DbError> {
    let rows = db
        .query(
            "select symbol, ok_streak, bad_streak, capable, codes, checked_at
             from settings.universe_validation",
            Vec::new(),
        )
        .await?;
    rows.iter()
        .map(|row| {
            let streak = Streak {
                ok: u32::try_from(row.i64(1)?).unwrap_or(0),
                bad: u32::try_from(row.i64(2)?).unwrap_or(0),
                capable: row.opt_bool(3)?,
                codes: serde_json::from_str(row.text(4)?).unwrap_or_default(),
            };
            Ok((row.shared_text(0)?, (streak, row.time(5)?)))
        })
        .collect()
}

/// What a verdict leaves behind beside the universe's rows.
fn record(
    verdict: &Verdict,
    before: &BTreeMap<Arc<str>, (Streak, Time)>,
    now: Time,
    commit: &mut Commit,
) -> Result<(), serde_json::Error> {
    let mut rows = Vec::new();
    for (symbol, s) in &verdict.streaks {
        rows.extend(values![
            Arc::clone(symbol),
            s.ok,
            s.bad,
            s.capable,
            serde_json::to_string(&s.codes)?,
            now,
        ]);
    }
    commit.push(Statement::bulk(
        "insert into settings.universe_validation
           (symbol, ok_streak, bad_streak, capable, codes, checked_at)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (symbol) do update set
           ok_streak = excluded.ok_streak, bad_streak = excluded.bad_streak,
           capable = excluded.capable, codes = excluded.codes, checked_at = excluded.checked_at",
        6,
        rows,
    ));
    for symbol in before.keys().filter(|s| !verdict.streaks.contains_key(*s)) {
        commit.push(Statement::new(
            "delete from settings.universe_validation where symbol = $1",
            values![Arc::clone(symbol)],
        ));
    }
    for symbol in &verdict.cursors {
        commit.push(cursor(symbol, now - Millis::from_hours(24), now));
    }
    if verdict.mirror {
        commit.statements.extend(mirror(now));
    }
    let mut drift = Vec::new();
    for d in &verdict.drift {
        drift.extend(values![
            now,
            Arc::clone(&d.symbol),
            d.code.as_str(),
            d.severity.as_str(),
            d.action,
        ]);
    }
    if !drift.is_empty() {
        commit.push(Statement::bulk(
            "insert into ops.universe_drift (ts, symbol, code, severity, action)
             values ($1, $2, $3, $4, $5)",
            5,
            drift,
        ));
        commit.push(Statement::new(
            "delete from ops.universe_drift where ts < $1",
            values![now - DRIFT_KEPT],
        ));
    }
    Ok(())
}

/// The worker, run each `period`.
pub(crate) fn definition(period: Millis) -> Definition {
    Definition::new(UNIVERSE_VALIDATION, Trigger::Every { period, offset: Millis::ZERO })
        .describe(
            "Compares the universe with what the venue lists and carries: counts good and bad runs, \
             disables a symbol after three bad ones and enables it again after three good ones, \
             notes every drift. Never overrides a person, and changes nothing in an outage.",
        )
        .missed(Missed::Latest)
        .after(crate::sync::MARKET_SYNC)
        .opportunistic()
        .timeouts(Millis::from_mins(2), Millis::from_mins(3))
}

impl Worker for Validation {
    fn define(&self) -> Definition {
        definition(self.every)
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.validate(cycle))
    }
}
