//! The tables of the scans: what they keep between runs, and what they publish.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use watchbell_core::{Commit, Millis, Statement, Time, values};
use watchbell_db::{Database, DbError};
use watchbell_venues::native::{Bar, Interval, Listing, Spent, Venue};

use crate::input::Universe;

/// Something that was fetched, and when.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Dated<T> {
    pub(crate) value: T,
    pub(crate) fetched_at: Time,
}

impl<T> Dated<T> {
    /// Whether it is younger than `ttl`: at `ttl` it is too old.
    pub(crate) fn is_fresh(&self, ttl: Millis, now: Time) -> bool {
        now - self.fetched_at < ttl
    }
}

/// A bar as it is stored: start, open, high, low, close, volume, quote volume.
#[derive(Serialize, Deserialize)]
struct StoredBar(i64, f64, f64, f64, f64, f64, f64);

impl From<&Bar> for StoredBar {
    fn from(b: &Bar) -> Self {
        Self(b.open_time.0, b.open, b.high, b.low, b.close, b.volume, b.quote_volume)
    }
}

impl From<StoredBar> for Bar {
    fn from(b: StoredBar) -> Self {
        Self {
            open_time: Time(b.0),
            open: b.1,
            high: b.2,
            low: b.3,
            close: b.4,
            volume: b.5,
            quote_volume: b.6,
        }
    }
}

/// A stored document that this version cannot read is fetched again: it is a copy of what an exchange
/// says.
fn copy_of<T: serde::de::DeserializeOwned>(text: &str, what: &str) -> Option<T> {
    serde_json::from_str(text)
        .inspect_err(|e| tracing::warn!("the stored {what} cannot be read, and are fetched: {e}"))
        .ok()
}

pub(crate) async fn bars(
    db: &Database,
    venue: Venue,
    length: Interval,
    symbol: &str,
) -> Result<Option<Dated<Vec<Bar>>>, DbError> {
    let sql = "select fetched_at, bars from scan.bars
        where venue = $1 and symbol = $2 and length = $3";
    let key = values![venue.as_str(), symbol, length.as_str()];
    let Some(row) = db.query_opt(sql, key).await? else { return Ok(None) };
    let fetched_at = row.time(0)?;
    let stored = copy_of::<Vec<StoredBar>>(row.text(1)?, "bars");
    Ok(stored
        .map(|stored| Dated { value: stored.into_iter().map(Bar::from).collect(), fetched_at }))
}

pub(crate) fn put_bars(
    commit: &mut Commit,
    venue: Venue,
    symbol: &str,
    length: Interval,
    bars: &Dated<Vec<Bar>>,
) {
    let stored: Vec<StoredBar> = bars.value.iter().map(StoredBar::from).collect();
    commit.push(Statement::new(
        "insert into scan.bars (venue, symbol, length, fetched_at, bars)
         values ($1, $2, $3, $4, $5)
         on conflict (venue, symbol, length) do update
             set fetched_at = excluded.fetched_at, bars = excluded.bars",
        values![venue.as_str(), symbol, length.as_str(), bars.fetched_at, json(&stored)],
    ));
}

pub(crate) async fn listings(
    db: &Database,
    venue: Venue,
) -> Result<Option<Dated<Vec<Listing>>>, DbError> {
    let sql = "select fetched_at, listings from scan.listings where venue = $1";
    let Some(row) = db.query_opt(sql, values![venue.as_str()]).await? else { return Ok(None) };
    let fetched_at = row.time(0)?;
    Ok(copy_of(row.text(1)?, "listings").map(|value| Dated { value, fetched_at }))
}

pub(crate) fn put_listings(commit: &mut Commit, venue: Venue, listings: &Dated<Vec<Listing>>) {
    commit.push(Statement::new(
        "insert into scan.listings (venue, fetched_at, listings) values ($1, $2, $3)
         on conflict (venue) do update
             set fetched_at = excluded.fetched_at, listings = excluded.listings",
        values![venue.as_str(), listings.fetched_at, json(&listings.value)],
    ));
}

pub(crate) async fn universe(
    db: &Database,
    venue: Venue,
) -> Result<Option<Dated<Universe>>, DbError> {
    let sql = "select taken_at, universe from scan.universe where venue = $1";
    let Some(row) = db.query_opt(sql, values![venue.as_str()]).await? else { return Ok(None) };
    let fetched_at = row.time(0)?;
    Ok(copy_of(row.text(1)?, "symbols of the universe").map(|value| Dated { value, fetched_at }))
}

pub(crate) fn put_universe(
    commit: &mut Commit,
    venue: Venue,
    universe: &Dated<Universe>,
    sha256: &str,
) {
    commit.push(Statement::new(
        "insert into scan.universe (venue, taken_at, members_sha256, universe)
         values ($1, $2, $3, $4)
         on conflict (venue) do update set taken_at = excluded.taken_at,
             members_sha256 = excluded.members_sha256, universe = excluded.universe",
        values![venue.as_str(), universe.fetched_at, sha256, json(&universe.value)],
    ));
}

pub(crate) async fn spending(db: &Database) -> Result<BTreeMap<Venue, Spent>, DbError> {
    let mut all = BTreeMap::new();
    for row in db.query("select venue, spent from scan.spending", Vec::new()).await? {
        let venue = row.text(0)?.parse::<Venue>();
        if let (Ok(venue), Some(spent)) = (venue, copy_of(row.text(1)?, "budgets")) {
            all.insert(venue, spent);
        }
    }
    Ok(all)
}

pub(crate) fn put_spending(commit: &mut Commit, venue: Venue, spent: &Spent, now: Time) {
    commit.push(Statement::new(
        "insert into scan.spending (venue, noted_at, spent) values ($1, $2, $3)
         on conflict (venue) do update
             set noted_at = excluded.noted_at, spent = excluded.spent",
        values![venue.as_str(), now, json(spent)],
    ));
}

/// The newest regime, whatever its age.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoredRegime {
    /// When it was computed.
    pub computed_at: Time,
    /// Until when it is the present one, without the grace that scans give it.
    pub valid_until: Time,
    /// The document of its artifact.
    pub document: serde_json::Value,
}

/// The newest regime.
///
/// # Errors
/// When the database fails.
pub async fn newest_regime(db: &Database) -> Result<Option<StoredRegime>, DbError> {
    let sql = "select computed_at, valid_until, document from scan.regimes
        order by computed_at desc limit 1";
    let Some(row) = db.query_opt(sql, Vec::new()).await? else { return Ok(None) };
    Ok(Some(StoredRegime {
        computed_at: row.time(0)?,
        valid_until: row.time(1)?,
        document: row.json(2)?,
    }))
}

pub(crate) fn put_regime(
    commit: &mut Commit,
    computed_at: Time,
    valid_until: Time,
    regime: &str,
    confidence: f64,
    document: &str,
) {
    commit.push(Statement::new(
        "insert into scan.regimes (computed_at, valid_until, regime, confidence, document)
         values ($1, $2, $3, $4, $5)
         on conflict (computed_at) do update set valid_until = excluded.valid_until,
             regime = excluded.regime, confidence = excluded.confidence,
             document = excluded.document",
        values![computed_at, valid_until, regime, confidence, document],
    ));
}

/// A run, for the table of runs.
pub(crate) struct RunRow<'a> {
    pub(crate) job: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) started_at: Time,
    pub(crate) finished_at: Time,
    pub(crate) regime: &'a str,
    pub(crate) regime_source: &'a str,
    pub(crate) scanned: usize,
    pub(crate) passed: usize,
    pub(crate) cycle: i64,
    pub(crate) header: &'a serde_json::Value,
}

pub(crate) fn put_run(commit: &mut Commit, run: &RunRow<'_>) {
    commit.push(Statement::new(
        "insert into scan.runs (job, kind, started_at, finished_at, regime, regime_source, scanned,
             passed, cycle, header)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        values![
            run.job,
            run.kind,
            run.started_at,
            run.finished_at,
            run.regime,
            run.regime_source,
            run.scanned as i64,
            run.passed as i64,
            run.cycle,
            run.header.to_string(),
        ],
    ));
}

/// A verdict, for the table of verdicts.
pub(crate) struct VerdictRow {
    pub(crate) symbol: String,
    pub(crate) rank: u32,
    pub(crate) decision: &'static str,
    pub(crate) score: Option<f64>,
    pub(crate) primary_reason: String,
    pub(crate) explanation: String,
}

pub(crate) fn put_verdicts(
    commit: &mut Commit,
    job: &str,
    started_at: Time,
    verdicts: &[VerdictRow],
) {
    if verdicts.is_empty() {
        return;
    }
    let rows = verdicts.iter().flat_map(|v| {
        values![
            job,
            started_at,
            v.symbol.as_str(),
            v.rank,
            v.decision,
            v.score,
            v.primary_reason.as_str(),
            v.explanation.as_str(),
        ]
    });
    commit.push(Statement::bulk(
        "insert into scan.verdicts (job, started_at, symbol, rank, decision, score, primary_reason,
             explanation)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (job, started_at, symbol) do update set rank = excluded.rank,
             decision = excluded.decision, score = excluded.score,
             primary_reason = excluded.primary_reason, explanation = excluded.explanation",
        8,
        rows.collect(),
    ));
}

/// Lets runs and verdicts go that are older than `before`, some at a time.
pub(crate) fn forget(commit: &mut Commit, before: Time) {
    for sql in [
        "delete from scan.verdicts where started_at < $1",
        "delete from scan.runs where started_at < $1",
        "delete from scan.regimes where computed_at < $1
            and computed_at < (select max(computed_at) from scan.regimes)",
    ] {
        commit.push(Statement::new(sql, values![before]));
    }
}

/// JSON of our own plain structures, which always has a form.
pub(crate) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|e| format!("\"unprintable: {e}\""))
}
