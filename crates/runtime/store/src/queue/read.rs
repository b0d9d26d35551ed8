//! Queries: jobs live and ended as one, their attempts, and counts.

use std::collections::BTreeMap;

use watchbell_core::job::{Mask, State};
use watchbell_core::port::{
    AttemptRecord, JobFilter, JobQuery, JobRecord, KindStats, Outcome, Result,
};
use watchbell_core::{SessionId, Time, Value, WorkerName, values};
use watchbell_db::Database;

use crate::record::{ReadError, Reader, all, failed, json, one};

/// One of the two tables that hold jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Live,
    Ended,
}

impl Table {
    pub(super) const fn of(state: State) -> Self {
        if state.is_final() { Self::Ended } else { Self::Live }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Live => "ops.jobs",
            Self::Ended => "ops.job_history",
        }
    }

    /// The same columns of both.
    pub(super) const fn select(self) -> &'static str {
        match self {
            Self::Live => {
                "select id, kind, payload, state, priority, unique_key, unique_in, limit_key,
                    attempts, max_attempts, reclaims, run_at, created_at, started_at,
                    cast(null as {i64}) as finished_at, error, cast(null as {json}) as result, worker,
                    lease_owner,
                    lease_expires_at, percent, message,
                    case when cancelled_by is null then 0 else 1 end as cancel from ops.jobs"
            }
            Self::Ended => {
                "select id, kind, payload, state, priority, unique_key, unique_in, limit_key,
                    attempts, max_attempts, reclaims, run_at, created_at, started_at,
                    finished_at, error, result, worker, cast(null as {text}) as lease_owner,
                    cast(null as {i64}) as lease_expires_at, cast(null as {f64}) as percent,
                    cast(null as {text}) as message, 0 as cancel
                    from ops.job_history"
            }
        }
    }
}

pub(super) fn read(r: Reader<'_>) -> std::result::Result<JobRecord, ReadError> {
    let row = r.row;
    let mask = row.opt_i64(6)?.and_then(|bits| u8::try_from(bits).ok());
    let percent = row.opt_f64(20)?;
    Ok(JobRecord {
        id: row.i64(0)?,
        kind: r.string(1)?,
        payload: row.json(2)?,
        state: r.word(3, "job state", State::parse)?,
        priority: i32::try_from(row.i64(4)?).unwrap_or(i32::MAX),
        unique_key: r.opt_string(5)?,
        unique_in: mask.map_or_else(Mask::default, Mask::from_bits),
        limit_key: r.opt_string(7)?,
        attempts: r.count(8)?,
        max_attempts: r.count(9)?,
        reclaims: r.count(10)?,
        run_at: row.time(11)?,
        created_at: row.time(12)?,
        started_at: row.opt_time(13)?,
        finished_at: row.opt_time(14)?,
        error: r.opt_string(15)?,
        result: row.opt_json(16)?,
        worker: row.opt_text(17)?.map(WorkerName::from),
        holder: row.opt_text(18)?.map(SessionId::from),
        lease_expires_at: row.opt_time(19)?,
        progress: percent.zip(r.opt_string(21)?),
        cancel_requested: row.bool(22)?,
    })
}

/// What holds for the jobs of a filter in one of the tables; adds its parameters.
pub(super) fn condition(filter: &JobFilter, table: Table, params: &mut Vec<Value>) -> String {
    let mut all = vec!["1 = 1".to_owned()];
    let mut add = |condition: &str, value: Value| {
        params.push(value);
        all.push(condition.replace('?', &format!("${}", params.len())));
    };
    if !filter.ids.is_empty() {
        add(
            "id in (/*sqlite*/ select value from json_each(?) /*end*/
                /*pg*/ select cast(json_array_elements_text(cast(? as json)) as bigint) /*end*/)",
            json(&filter.ids),
        );
    }
    for (column, wanted) in [
        ("kind = ?", filter.kind.clone()),
        ("state = ?", filter.state.map(|s| s.to_string())),
        ("unique_key = ?", filter.unique_key.clone()),
        ("limit_key = ?", filter.limit_key.clone()),
        (
            "/*sqlite*/ instr( /*end*/ /*pg*/ strpos( /*end*/ coalesce(error, ''), ?) > 0",
            filter.error.clone(),
        ),
    ] {
        if let Some(wanted) = wanted {
            add(column, Value::from(wanted));
        }
    }
    if let Some(before) = filter.created_before {
        add("created_at < ?", Value::from(before));
    }
    if let Some(before) = filter.finished_before {
        match table {
            Table::Live => all.push("1 = 0".to_owned()),
            Table::Ended => add("finished_at < ?", Value::from(before)),
        }
    }
    all.join(" and ")
}

pub(super) async fn jobs(db: &Database, query: JobQuery) -> Result<Vec<JobRecord>> {
    let mut params = values![query.limit, query.before.unwrap_or(i64::MAX)];
    let tables = match query.filter.state {
        Some(state) => vec![Table::of(state)],
        None => vec![Table::Live, Table::Ended],
    };
    let parts = tables.into_iter().map(|table| {
        let wanted = condition(&query.filter, table, &mut params);
        format!(
            "select * from ({} where id < $2 and {wanted} order by id desc limit $1) {}",
            table.select(),
            if table == Table::Live { "l" } else { "e" }
        )
    });
    let parts = parts.collect::<Vec<_>>().join(" union all ");
    let sql = format!("select * from ({parts}) j order by id desc limit $1");
    let rows = db.query(sql, params).await.map_err(failed)?;
    all("ops.jobs", &rows, read)
}

pub(super) async fn job(db: &Database, id: i64) -> Result<Option<JobRecord>> {
    let (live, ended) = (Table::Live.select(), Table::Ended.select());
    let sql = format!("{live} where id = $1 union all {ended} where id = $1");
    let row = db.query_opt(sql, values![id]).await.map_err(failed)?;
    row.map(|row| one("ops.jobs", &row, read)).transpose()
}

pub(super) async fn attempts(db: &Database, id: i64) -> Result<Vec<AttemptRecord>> {
    let sql = "select attempt, outcome, started_at, finished_at, session, error
        from ops.job_attempts where job = $1 order by id";
    let rows = db.query(sql, values![id]).await.map_err(failed)?;
    all("ops.job_attempts", &rows, |r| {
        Ok(AttemptRecord {
            attempt: r.count(0)?,
            outcome: r.word(1, "outcome", Outcome::parse)?,
            started_at: r.row.opt_time(2)?,
            finished_at: r.row.time(3)?,
            session: r.row.opt_text(4)?.map(SessionId::from),
            error: r.opt_string(5)?,
        })
    })
}

pub(super) async fn stats(db: &Database, now: Time) -> Result<BTreeMap<String, KindStats>> {
    const SQL: &str = "select kind, state, count(*) as jobs,
            count(case when state = 'queued' and run_at <= {now:$1} then 1 end) as due,
            min(case when state = 'queued' and run_at <= {now:$1} then run_at end) as oldest,
            min(case when state = 'queued' and run_at > {now:$1} then run_at end) as next
        from ops.jobs group by kind, state
        union all
        select kind, state, count(*), 0, cast(null as {i64}), cast(null as {i64})
            from ops.job_history group by kind, state
        union all
        select kind, 'queued', 0, 0, cast(null as {i64}), cast(null as {i64}) from ops.job_kinds";
    let rows = db.query(SQL, values![now]).await.map_err(failed)?;
    let mut stats: BTreeMap<String, KindStats> = BTreeMap::new();
    let read = all("ops.jobs", &rows, |r| {
        let state = r.word(1, "job state", State::parse)?;
        let times = (r.row.opt_time(4)?, r.row.opt_time(5)?);
        Ok((r.string(0)?, state, r.row.i64(2)?, r.row.i64(3)?, times))
    })?;
    for (kind, state, jobs, due, (oldest, next)) in read {
        let of_kind = stats.entry(kind).or_default();
        if jobs > 0 {
            of_kind.counts.insert(state, jobs);
        }
        of_kind.due += due;
        of_kind.oldest_due = of_kind.oldest_due.or(oldest);
        of_kind.next_due = of_kind.next_due.or(next);
    }
    Ok(stats)
}
