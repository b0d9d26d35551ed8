//! Takes back the jobs of holders whose leases are over.
//!
//! The first statement marks the jobs, by a lease that ended in 1970. It holds their rows, so that
//! no holder can end or extend them any more, and says what the following statements are about:
//! they mean the same jobs, however the clock moves on. No list ends with such a job.

use watchbell_core::job::{ATTEMPTS_KEPT, MAX_RECLAIMS};
use watchbell_core::port::Result;
use watchbell_core::{Statement, Time, Value, values};
use watchbell_db::Database;

use super::finish::sweep;
use crate::sql::{apply, places};

/// Where in [`take_back`] jobs are marked: its changed rows are the jobs taken back.
pub(crate) const MARKED: usize = 0;
/// Where jobs are given up for having lost too many holders.
const BURIED: usize = 2;

macro_rules! marked {
    () => {
        "state = 'running' and lease_expires_at = 0"
    };
}

/// Takes back all jobs whose leases are over, or those of some kinds.
pub(crate) fn take_back(kinds: Option<&[String]>, now: Time, why: &str) -> Vec<Statement> {
    let mut params = values![now];
    let among = match kinds {
        None => String::new(),
        Some(kinds) => {
            params.extend(kinds.iter().map(|k| Value::from(k.as_str())));
            format!(" and kind in ({})", places(2, kinds.len()))
        }
    };
    let mark = format!(
        "update ops.jobs set lease_expires_at = 0 where id in (select id from ops.jobs
            where state = 'running' and lease_expires_at <= {{now:$1}}{among}
            order by id /*pg*/ for update /*end*/)"
    );
    let mut list = vec![
        Statement::new(mark, params),
        Statement::new(
            concat!(
                "insert into ops.job_attempts (job, attempt, outcome, token, by_holder, started_at,
                    finished_at, session, error)
                 select id, attempts, 'lost', token, 0, started_at, {now:$1}, lease_owner, $2
                 from ops.jobs where ",
                marked!()
            ),
            values![now, why],
        ),
        Statement::new(
            concat!(
                "insert into ops.job_history (id, kind, priority, run_at, attempts, max_attempts,
                    reclaims, token, created_at, created_by, unique_in, worker, unique_key,
                    limit_key, payload, session, state, by_holder, started_at, finished_at, error)
                 select id, kind, priority, run_at, attempts - 1, max_attempts,
                    reclaims + 1, token, created_at, created_by, unique_in, worker, unique_key,
                    limit_key, payload, lease_owner, 'failed', 0, started_at, {now:$1},
                    (reclaims + 1) || ' holders died while they worked on it'
                 from ops.jobs where reclaims + 1 >= $2 and cancelled_by is null and ",
                marked!()
            ),
            values![now, MAX_RECLAIMS],
        ),
        Statement::new(
            concat!(
                "delete from ops.jobs where reclaims + 1 >= $1 and cancelled_by is null and ",
                marked!()
            ),
            values![MAX_RECLAIMS],
        ),
        Statement::new(
            concat!(
                "delete from ops.job_attempts where job in (select id from ops.jobs where ",
                marked!(),
                ") and id <= (select a.id from ops.job_attempts a
                    where a.job = ops.job_attempts.job order by a.id desc limit 1 offset $1)"
            ),
            values![ATTEMPTS_KEPT],
        ),
        Statement::new(
            concat!(
                "update ops.jobs set state = 'queued', ready = 1, attempts = attempts - 1,
                    reclaims = reclaims + 1, lease_owner = null, lease_expires_at = null where ",
                marked!()
            ),
            values![],
        ),
    ];
    list.extend(sweep(now));
    list
}

/// What became of jobs whose holders died.
pub(super) struct Back {
    /// Put back into the queue, or ended where an operator wanted them to.
    pub(super) queued: u32,
    /// Given up: too many holders died.
    pub(super) buried: u32,
}

pub(super) async fn of_kinds(db: &Database, kinds: &[String], now: Time) -> Result<Back> {
    let changed = apply(db, take_back(Some(kinds), now, "its lease expired")).await?.changed;
    let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let buried = changed[BURIED];
    Ok(Back { queued: count(changed[MARKED] - buried), buried: count(buried) })
}
