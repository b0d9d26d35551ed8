//! Queued jobs.

use watchbell_core::job::State;
use watchbell_core::port::{JobQuery, JobRecord, Result};
use watchbell_core::{CycleId, NewJob, Statement, Time, Value, values};
use watchbell_db::Database;

use crate::record::{ReadError, Reader, all, failed, json, one};
use crate::sql::{apply, places};

pub(crate) async fn enqueue(
    db: &Database,
    jobs: Vec<NewJob>,
    now: Time,
) -> Result<Vec<Option<i64>>> {
    let list = jobs.into_iter().map(|j| {
        let sql = "insert into ops.jobs (state, kind, payload, priority, unique_key, max_attempts,
                run_at, created_at)
            values ('queued', $1, $2, $3, $4, $5, $6, $7) on conflict do nothing returning id";
        let (run_at, most) = (j.run_at.unwrap_or(now), j.max_attempts.max(1));
        let payload = json(&j.payload);
        Statement::new(sql, values![j.kind, payload, j.priority, j.unique_key, most, run_at, now])
    });
    let applied = apply(db, list.collect()).await?;
    let id = |rows: &Vec<watchbell_db::Row>| rows.first().map(|r| r.i64(0)).transpose();
    applied.rows.iter().map(|rows| id(rows).map_err(failed)).collect()
}

const COLUMNS: &str = "select id, kind, payload, state, priority, unique_key, attempts,
    max_attempts, reclaims, run_at, created_at, started_at, finished_at, error, cycle from ops.jobs";

fn read(r: Reader<'_>) -> std::result::Result<JobRecord, ReadError> {
    let row = r.row;
    Ok(JobRecord {
        id: row.i64(0)?,
        kind: r.string(1)?,
        payload: row.json(2)?,
        state: r.word(3, "job state", State::parse)?,
        priority: i32::try_from(row.i64(4)?).unwrap_or(i32::MAX),
        unique_key: r.opt_string(5)?,
        attempts: r.count(6)?,
        max_attempts: r.count(7)?,
        reclaims: r.count(8)?,
        run_at: row.time(9)?,
        created_at: row.time(10)?,
        started_at: row.opt_time(11)?,
        finished_at: row.opt_time(12)?,
        error: r.opt_string(13)?,
        cycle: row.opt_i64(14)?.map(CycleId),
    })
}

pub(crate) async fn list(db: &Database, query: JobQuery) -> Result<Vec<JobRecord>> {
    let mut params = values![query.limit];
    let mut sql = format!("{COLUMNS} where 1 = 1");
    for (column, wanted) in [("kind", query.kind), ("state", query.state.map(|s| s.to_string()))] {
        if let Some(wanted) = wanted {
            params.push(Value::from(wanted));
            sql.push_str(&format!(" and {column} = ${}", params.len()));
        }
    }
    sql.push_str(" order by id desc limit $1");
    let rows = db.query(sql, params).await.map_err(failed)?;
    all("ops.jobs", &rows, read)
}

pub(crate) async fn get(db: &Database, id: i64) -> Result<Option<JobRecord>> {
    let row = db.query_opt(format!("{COLUMNS} where id = $1"), values![id]).await;
    row.map_err(failed)?.map(|row| one("ops.jobs", &row, read)).transpose()
}

/// What a consumer of some kinds finds.
pub(crate) enum Next {
    /// A job is due.
    Due,
    /// None is due, but the lease of a running one has expired.
    Expired,
    /// Wait, until then if that is known.
    Wait(Option<Time>),
}

pub(crate) async fn next(db: &Database, wanted: &[String], now: Time) -> Result<Next> {
    let params = || -> Vec<Value> {
        let kinds = wanted.iter().map(|k| Value::from(k.as_str()));
        values![now].into_iter().chain(kinds).collect()
    };
    let kinds = places(2, wanted.len());
    let sql = format!(
        "select case when exists (select 1 from ops.jobs
                where state = 'running' and lease_expires_at <= $1 and kind in ({kinds}))
            then 2 when exists (select 1 from ops.jobs
                where state = 'queued' and run_at <= $1 and kind in ({kinds}))
            then 1 else 0 end"
    );
    let row = db.query_one(sql, params()).await.map_err(failed)?;
    match row.i64(0).map_err(failed)? {
        2 => return Ok(Next::Expired),
        1 => return Ok(Next::Due),
        _ => {}
    }
    let sql = format!(
        "select min(at) from (
            select min(run_at) as at from ops.jobs
                where state = 'queued' and run_at > $1 and kind in ({kinds})
            union all
            select min(lease_expires_at) from ops.jobs
                where state = 'running' and kind in ({kinds})) t"
    );
    let row = db.query_one(sql, params()).await.map_err(failed)?;
    Ok(Next::Wait(row.opt_time(0).map_err(failed)?))
}
