//! What pages and commands show of the scans: plain reads.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use watchbell_core::{Millis, Time, values};
use watchbell_db::{Database, DbError};
use watchbell_venues::native::Venue;

use crate::input::Universe;
pub use crate::run::tables::{StoredRegime, newest_regime};

/// One run of a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// The job.
    pub job: String,
    /// Its cycle.
    pub cycle: i64,
    /// When it started.
    pub started_at: Time,
    /// From its start to its verdict.
    pub took: Millis,
    /// The regime that it weighed by, or that it found.
    pub regime: String,
    /// Symbols that it looked at.
    pub scanned: i64,
    /// Those that passed.
    pub passed: i64,
    /// The directory of its artifacts, relative to the artifact root.
    pub artifact: Option<String>,
    /// The exchanges as they were.
    pub header: Value,
}

/// The newest runs, newest first.
///
/// # Errors
/// When the database fails.
pub async fn runs(db: &Database, job: Option<&str>, limit: u32) -> Result<Vec<Run>, DbError> {
    let sql = "select r.job, r.started_at, r.finished_at, r.regime, r.scanned, r.passed, a.path,
            r.header, r.cycle
        from scan.runs r
        left join ops.artifacts a on a.cycle = r.cycle and a.name <> 'schemas'
        where $1 = '' or r.job = $1
        order by r.started_at desc, r.id desc limit $2";
    let rows = db.query(sql, values![job.unwrap_or_default(), limit]).await?;
    rows.iter()
        .map(|row| {
            let started_at = row.time(1)?;
            Ok(Run {
                job: row.text(0)?.to_owned(),
                started_at,
                took: row.time(2)? - started_at,
                regime: row.text(3)?.to_owned(),
                scanned: row.i64(4)?,
                passed: row.i64(5)?,
                artifact: row.opt_text(6)?.map(str::to_owned),
                header: row.json(7)?,
                cycle: row.i64(8)?,
            })
        })
        .collect()
}

/// The newest run of each job, by job.
///
/// # Errors
/// When the database fails.
pub async fn newest_runs(db: &Database, jobs: &[&str]) -> Result<BTreeMap<String, Run>, DbError> {
    let mut newest = BTreeMap::new();
    for job in jobs {
        if let Some(run) = runs(db, Some(job), 1).await?.pop() {
            newest.insert((*job).to_owned(), run);
        }
    }
    Ok(newest)
}

/// What the newest run that looked at a symbol says of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explained {
    /// The job.
    pub job: String,
    /// When the run started.
    pub started_at: Time,
    /// The words of its `explain.json`.
    pub explanation: Value,
}

/// What the newest run says of a symbol; of a job, if one is named.
///
/// # Errors
/// When the database fails.
pub async fn explain(
    db: &Database,
    symbol: &str,
    job: Option<&str>,
) -> Result<Option<Explained>, DbError> {
    let sql = "select job, started_at, explanation from scan.verdicts
        where symbol = $1 and ($2 = '' or job = $2) order by started_at desc limit 1";
    let row = db.query_opt(sql, values![symbol, job.unwrap_or_default()]).await?;
    row.map(|row| {
        Ok(Explained {
            job: row.text(0)?.to_owned(),
            started_at: row.time(1)?,
            explanation: row.json(2)?,
        })
    })
    .transpose()
}

/// The symbols that the newest runs looked at.
///
/// # Errors
/// When the database fails.
pub async fn symbols(db: &Database) -> Result<Vec<String>, DbError> {
    let sql = "select distinct v.symbol from scan.verdicts v
        where v.started_at = (select max(n.started_at) from scan.verdicts n where n.job = v.job)
        order by v.symbol";
    let rows = db.query(sql, Vec::new()).await?;
    rows.iter().map(|row| Ok(row.text(0)?.to_owned())).collect()
}

/// The newest universe of an exchange, and when it was taken.
///
/// # Errors
/// When the database fails.
pub async fn universe(db: &Database, venue: Venue) -> Result<Option<(Time, Universe)>, DbError> {
    let universe = crate::run::tables::universe(db, venue).await?;
    Ok(universe.map(|u| (u.fetched_at, u.value)))
}
