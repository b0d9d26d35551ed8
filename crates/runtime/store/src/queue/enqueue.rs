//! Adds jobs: in one statement, however many there are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use watchbell_core::port::{Enqueued, Result};
use watchbell_core::{Millis, Statement, Time, Value, values};
use watchbell_db::{Database, Row};

use super::Admitted;
use crate::record::failed;
use crate::sql::apply;

/// A job whose time comes so soon is `ready`; the claim makes others ready when that moment comes.
pub(super) const LEAD: Millis = Millis(2_000);
/// The same in a statement.
macro_rules! lead {
    () => {
        "2000"
    };
}
pub(super) use lead;

/// Columns of a new job: `$1` kind, `$2` payload, `$3` priority, `$4` attempts, `$5` not before,
/// `$6` unique key, `$7` its mask, `$8` limit key, `$9` now, `$10` the cycle that adds it.
const WIDTH: usize = 10;

macro_rules! columns {
    () => {
        "kind, payload, priority, max_attempts, run_at, unique_key, unique_in, limit_key,
            created_at, created_by, state, ready"
    };
}

/// The values of the columns above, where `now` is the present.
macro_rules! cells {
    ($now:literal) => {
        concat!(
            "$1, $2, $3, $4, coalesce($5, ",
            $now,
            "), $6, $7, $8, ",
            $now,
            ", $10, 'queued', case when coalesce($5, ",
            $now,
            ") <= ",
            $now,
            " + ",
            lead!(),
            " then 1 else 0 end"
        )
    };
}

macro_rules! rows {
    () => {
        "{rows:text,json,i64,i64,i64,text,i64,text,i64,i64}"
    };
}

/// The statement that adds jobs without unique keys, and returns their numbers, ascending in the
/// order of the jobs.
const PLAIN: &str = concat!(
    "/*pg*/ with r as materialized (select * from ",
    rows!(),
    "),
    clock as materialized (select {now:$9} as now from r limit 1)
    insert into ops.jobs (",
    columns!(),
    ") select ",
    cells!("clock.now"),
    " from r, clock order by r.n returning id /*end*/
    /*sqlite*/ insert into ops.jobs (",
    columns!(),
    ") values (",
    cells!("{now:$9}"),
    ") returning id /*end*/"
);

/// The statement that adds jobs some of which have unique keys, and returns number, kind and key of
/// those that were added. Keys are taken in one order everywhere, so that two callers cannot wait
/// for each other.
const KEYED: &str = concat!(
    "/*pg*/ with r as materialized (
        select nextval(pg_get_serial_sequence('ops.jobs', 'id')) as id, r.* from ",
    rows!(),
    "), clock as materialized (select {now:$9} as now from r limit 1),
    taken as (insert into ops.job_keys (kind, key, job)
        select $1, $6, r.id from r where $6 is not null order by $1, $6
        on conflict do nothing returning job)
    insert into ops.jobs (id, ",
    columns!(),
    ") select r.id, ",
    cells!("clock.now"),
    " from r, clock where $6 is null or r.id in (select job from taken)
    order by r.id returning id, kind, unique_key /*end*/
    /*sqlite*/ insert into ops.jobs (",
    columns!(),
    ") select ",
    cells!("{now:$9}"),
    " where $6 is null
        or not exists (select 1 from ops.job_keys where kind = $1 and key = $6)
    returning id, kind, unique_key /*end*/"
);

type Key = (Arc<str>, Arc<str>);

fn key(job: &Admitted) -> Option<Key> {
    job.unique_key.as_ref().map(|key| (Arc::clone(&job.kind), Arc::clone(key)))
}

/// The statement that adds `jobs`, for a list; of two with one key, the first.
pub(crate) fn insert(jobs: &[Admitted], now: Time, cycle: Option<i64>) -> Option<Statement> {
    let mut first: HashSet<Key> = HashSet::new();
    let mut params = Vec::with_capacity(jobs.len() * WIDTH);
    for job in jobs {
        if key(job).is_some_and(|key| !first.insert(key)) {
            continue;
        }
        params.extend(<[Value; 8]>::from(job));
        params.extend(values![now, cycle]);
    }
    let sql = if first.is_empty() { PLAIN } else { KEYED };
    (!params.is_empty()).then(|| Statement::bulk(sql, WIDTH, params))
}

pub(super) async fn enqueue(db: &Database, jobs: &[Admitted], now: Time) -> Result<Vec<Enqueued>> {
    let Some(statement) = insert(jobs, now, None) else { return Ok(Vec::new()) };
    let rows = apply(db, vec![statement]).await?.rows.remove(0);
    let mut ids = Vec::with_capacity(rows.len());
    for row in &rows {
        ids.push(row.i64(0).map_err(failed)?);
    }
    ids.sort_unstable();
    if jobs.iter().all(|job| job.unique_key.is_none()) {
        return Ok(ids.into_iter().map(Enqueued::Added).collect());
    }
    let mut added = keyed(&rows)?;
    let taken: HashSet<i64> = added.values().copied().collect();
    let mut plain = ids.into_iter().filter(|id| !taken.contains(id));
    let mut holders: HashMap<Key, i64> = HashMap::new();
    let mut answers = Vec::with_capacity(jobs.len());
    let mut late = Vec::new();
    for job in jobs {
        answers.push(match key(job) {
            None => plain.next().map_or(Enqueued::Duplicate(None), Enqueued::Added),
            Some(key) => match added.remove(&key) {
                Some(id) => {
                    holders.insert(key, id);
                    Enqueued::Added(id)
                }
                None => {
                    late.push((answers.len(), key));
                    Enqueued::Duplicate(None)
                }
            },
        });
    }
    look_up(db, &late, &mut holders).await?;
    for (n, key) in late {
        answers[n] = Enqueued::Duplicate(holders.get(&key).copied());
    }
    Ok(answers)
}

fn keyed(rows: &[Row]) -> Result<HashMap<Key, i64>> {
    let mut added = HashMap::new();
    for row in rows {
        if row.opt_text(2).map_err(failed)?.is_some() {
            let key = (row.shared_text(1).map_err(failed)?, row.shared_text(2).map_err(failed)?);
            added.insert(key, row.i64(0).map_err(failed)?);
        }
    }
    Ok(added)
}

/// Who has the keys that were taken.
async fn look_up(
    db: &Database,
    late: &[(usize, Key)],
    holders: &mut HashMap<Key, i64>,
) -> Result<()> {
    let unknown: Vec<&Key> =
        late.iter().map(|(_, key)| key).filter(|key| !holders.contains_key(*key)).collect();
    for some in unknown.chunks(100) {
        let mut params = Vec::with_capacity(some.len() * 2);
        let mut any = Vec::with_capacity(some.len());
        for (kind, key) in some {
            params.extend([Value::Text(Arc::clone(kind)), Value::Text(Arc::clone(key))]);
            any.push(format!("kind = ${} and key = ${}", params.len() - 1, params.len()));
        }
        let sql = format!("select job, kind, key from ops.job_keys where {}", any.join(" or "));
        let rows = db.query(sql, params).await.map_err(failed)?;
        holders.extend(keyed(&rows)?);
    }
    Ok(())
}
