//! What an operator does to many jobs at once, and how old ones go.
//!
//! A change works through its jobs in lists of some hundreds, oldest first, so that it never holds
//! many rows for long. Each list begins with a lock on its rows where other transactions could
//! touch them, and judges their states again after that.

use std::collections::BTreeSet;

use watchbell_core::port::{JobAction, JobChange, JobChanged, Result};
use watchbell_core::{Statement, Time, Value, values};
use watchbell_db::Database;

use super::among;
use super::finish::{history, kept};
use super::read::{self, Table};
use crate::record::{all, failed, json};
use crate::sql::apply;

/// Jobs changed in one list.
const BATCH: u32 = 500;

/// Jobs shown of those that match.
const SAMPLE: u32 = 10;

pub(super) async fn change(
    db: &Database,
    change: JobChange,
    now: Time,
) -> Result<(JobChanged, BTreeSet<String>)> {
    let mut changed = JobChanged::default();
    let mut kinds = BTreeSet::new();
    let states = change.action.applies_to();
    let table = Table::of(states[0]);
    let mut params = Vec::new();
    let wanted = format!(
        "{} and {}",
        read::condition(&change.filter, table, &mut params),
        applies(change.action, &mut params, now)
    );
    let (name, select) = (table.name(), table.select());
    let count = db.query_one(format!("select count(*) from {name} where {wanted}"), params.clone());
    let matched = count.await.and_then(|row| row.i64(0)).map_err(failed)?;
    changed.matched = matched.unsigned_abs();
    let sample = format!("{select} where {wanted} order by id limit {SAMPLE}");
    let rows = db.query(sample, params.clone()).await.map_err(failed)?;
    changed.sample = all(name, &rows, read::read)?;
    if change.preview {
        return Ok((changed, kinds));
    }
    let place = params.len() + 1;
    let next = format!(
        "select id, kind from {name} where {wanted} and id > ${place} order by id limit ${}",
        place + 1
    );
    let (mut after, mut left) = (0, change.limit);
    while left > 0 {
        let params = params.iter().cloned().chain(values![after, left.min(BATCH)]).collect();
        let rows = db.query(next.clone(), params).await.map_err(failed)?;
        let found = all(name, &rows, |r| Ok((r.row.i64(0)?, r.string(1)?)))?;
        let Some((last, _)) = found.last() else { break };
        after = *last;
        left -= u32::try_from(found.len()).unwrap_or(left);
        let ids = json(&found.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        kinds.extend(found.into_iter().map(|(_, kind)| kind));
        let (list, counted) = act(change.action, &ids, &change.by, now);
        let done = apply(db, list).await?.changed;
        changed.changed += counted.iter().map(|at| done[*at]).sum::<u64>();
        if change.action == JobAction::Cancel {
            changed.asked += done[counted[1]];
        }
    }
    Ok((changed, kinds))
}

/// To which jobs an action applies.
fn applies(action: JobAction, params: &mut Vec<Value>, now: Time) -> String {
    let states: Vec<_> = action.applies_to().iter().map(|s| format!("'{s}'")).collect();
    let mut condition = format!("state in ({})", states.join(", "));
    match action {
        JobAction::Cancel => condition.push_str(" and cancelled_by is null"),
        JobAction::RunNow => {
            params.push(Value::from(now));
            condition.push_str(&format!(" and run_at > {{now:${}}}", params.len()));
        }
        JobAction::Redrive | JobAction::Purge => {}
    }
    condition
}

/// The list that changes the jobs `ids`, and those of its statements whose rows are changed jobs.
fn act(action: JobAction, ids: &Value, by: &str, now: Time) -> (Vec<Statement>, &'static [usize]) {
    const LOCK: &str = "/*pg*/ select id from ops.jobs where id in (select
            cast(json_array_elements_text(cast($1 as json)) as bigint)) order by id for update
        /*end*/";
    const LOCK_ENDED: &str = "/*pg*/ select id from ops.job_history where id in (select
            cast(json_array_elements_text(cast($1 as json)) as bigint)) order by id for update
        /*end*/";
    const CANCEL_QUEUED: &str = concat!(
        "insert into ",
        history!(),
        " select ",
        kept!(),
        ", null, 'cancelled', 0, started_at, {now:$2}, 'cancelled by ' || cast($3 as {text}), null
        from ops.jobs where state = 'queued' and ",
        among!("id", 1)
    );
    const DROP_QUEUED: &str =
        concat!("delete from ops.jobs where state = 'queued' and ", among!("id", 1));
    const ASK_RUNNING: &str = concat!(
        "update ops.jobs set cancelled_by = $2
         where state = 'running' and cancelled_by is null and ",
        among!("id", 1)
    );
    const RUN_NOW: &str = concat!(
        "update ops.jobs set run_at = {now:$2}, ready = 1
         where state = 'queued' and run_at > {now:$2} and ",
        among!("id", 1)
    );
    const TAKE_KEYS: &str = concat!(
        "insert into ops.job_keys (kind, key, job)
         select kind, unique_key, id from ops.job_history
         where unique_key is not null and state in ('failed', 'cancelled') and ",
        among!("id", 1),
        " order by kind, unique_key, id on conflict do nothing"
    );
    const REVIVE: &str = concat!(
        "insert into ops.jobs (id, kind, state, ready, priority, run_at, max_attempts, token,
            created_at, created_by, unique_in, unique_key, limit_key, error, payload)
         select id, kind, 'queued', 1, priority, {now:$2}, max_attempts, token,
            created_at, created_by, unique_in, unique_key, limit_key, error, payload
         from ops.job_history h where state in ('failed', 'cancelled')
            and (unique_key is null or exists (select 1 from ops.job_keys k
                where k.kind = h.kind and k.key = h.unique_key and k.job = h.id))
            and ",
        among!("id", 1)
    );
    const DROP_REVIVED: &str = concat!(
        "delete from ops.job_history
         where exists (select 1 from ops.jobs j where j.id = ops.job_history.id) and ",
        among!("id", 1)
    );
    const DROP_ATTEMPTS: &str = concat!(
        "delete from ops.job_attempts where job in (select id from ops.job_history where ",
        among!("id", 1),
        ")"
    );
    const DROP_ENDED: &str = concat!("delete from ops.job_history where ", among!("id", 1));

    let only = || vec![ids.clone()];
    let at = || vec![ids.clone(), Value::from(now)];
    let (list, counted): (Vec<_>, &'static [usize]) = match action {
        JobAction::Cancel => (
            vec![
                (LOCK, only()),
                (CANCEL_QUEUED, vec![ids.clone(), Value::from(now), Value::from(by)]),
                (DROP_QUEUED, only()),
                (ASK_RUNNING, vec![ids.clone(), Value::from(by)]),
            ],
            &[2, 3],
        ),
        JobAction::RunNow => (vec![(RUN_NOW, at())], &[0]),
        JobAction::Redrive => (
            vec![(LOCK_ENDED, only()), (TAKE_KEYS, only()), (REVIVE, at()), (DROP_REVIVED, only())],
            &[3],
        ),
        JobAction::Purge => {
            (vec![(LOCK_ENDED, only()), (DROP_ATTEMPTS, only()), (DROP_ENDED, only())], &[2])
        }
    };
    (list.into_iter().map(|(sql, params)| Statement::new(sql, params)).collect(), counted)
}

/// Deletes jobs that ended before `before`, the oldest first, and what was kept of their attempts.
/// The rows that the last statement changes are the jobs.
pub(crate) fn prune(before: Time, max_rows: u32, shared: bool) -> Vec<Statement> {
    macro_rules! old {
        ($order:literal) => {
            concat!("select id from ops.job_history where finished_at < $1 ", $order, " limit $2")
        };
    }
    // On PostgreSQL the oldest stand first in the table, and no other index is kept for the order.
    const BOTH: &str = concat!(
        "with old as materialized (",
        old!(""),
        "), notes as (delete from ops.job_attempts a using old where a.job = old.id)
        delete from ops.job_history h using old where h.id = old.id"
    );
    const NOTES: &str = concat!(
        "delete from ops.job_attempts where job in (",
        old!("order by finished_at, id"),
        ")"
    );
    const JOBS: &str =
        concat!("delete from ops.job_history where id in (", old!("order by finished_at, id"), ")");
    let list: &[&'static str] = if shared { &[BOTH] } else { &[NOTES, JOBS] };
    list.iter().map(|sql| Statement::new(*sql, values![before, max_rows])).collect()
}
