//! Ends jobs, gives them back, extends their leases and stores their progress.
//!
//! On PostgreSQL everything that happens to some jobs is one statement, however many there are: so
//! what is recorded and what is decided cannot differ. On SQLite, where nothing else happens
//! meanwhile, it is a few small statements for each.

use std::collections::HashSet;
use std::sync::LazyLock;

use watchbell_core::job::{ATTEMPTS_KEPT, MAX_RESULT, State};
use watchbell_core::port::{FollowUp, HeldJob, JobEnd, JobProgress, Outcome, Result};
use watchbell_core::{
    Expect, Millis, SessionId, Statement, Time, Token, Value, WorkerName, values,
};
use watchbell_db::Database;

use super::among;
use super::enqueue::lead;
use crate::event;
use crate::record::{failed, json, json_or_null, session};
use crate::sql::{apply, is_shared, places};

/// Columns of the history.
macro_rules! history {
    () => {
        "ops.job_history (id, kind, priority, run_at, attempts, max_attempts, reclaims, token,
            created_at, created_by, unique_in, worker, unique_key, limit_key, payload,
            session, state, by_holder, started_at, finished_at, error, result)"
    };
}
/// What of a live row goes into the first fifteen of them unchanged.
macro_rules! kept {
    () => {
        "id, kind, priority, run_at, attempts, max_attempts, reclaims, token,
            created_at, created_by, unique_in, worker, unique_key, limit_key, payload"
    };
}
pub(super) use {history, kept};

/// That the session `$3` holds job `$1` under token `$2` at `$4`, which is asked for where `$5` is 0.
/// Only a running job has an owner; to ask for its state would have PostgreSQL look at all that run.
macro_rules! held {
    () => {
        "id = $1 and token = $2 and lease_owner = $3
            and ($5 = 1 or lease_expires_at > {now:$4})"
    };
}

/// The rows of a bulk statement on PostgreSQL, and the present, once for all of them.
macro_rules! rows {
    ($types:literal) => {
        concat!(
            "with r as materialized (select * from {rows:",
            $types,
            "}), clock as materialized (select {now:$4} as now from r limit 1), "
        )
    };
}
/// The same as `held!` for a row `j` beside those rows.
macro_rules! held_row {
    () => {
        "j.id = $1 and j.token = $2 and j.lease_owner = $3
            and ($5 = 1 or j.lease_expires_at > clock.now)"
    };
}
macro_rules! note {
    () => {
        "insert into ops.job_attempts (job, attempt, outcome, token, by_holder, started_at,
            finished_at, session, error) "
    };
}
/// When a job that goes back to `$7` is looked at by the claim.
macro_rules! ready {
    ($now:literal) => {
        concat!("case when $7 <= ", $now, " + ", lead!(), " then 1 else 0 end")
    };
}

/// Successes: `$6` start, `$7` result.
const DONE: &str = concat!(
    "/*pg*/ ",
    rows!("i64,i64,text,i64,i64,i64,json"),
    "gone as (delete from ops.jobs j using r, clock where ",
    held_row!(),
    " returning j.*, $6 as began, $7 as result, clock.now as now)
    insert into ",
    history!(),
    " select ",
    kept!(),
    ", lease_owner, 'succeeded', 1, began, now, error, result from gone
    returning id, token /*end*/"
);

/// Ends without success: `$6` start, `$7` state, `$8` result, `$9` reason, `$10` outcome, `$11`
/// error of the attempt.
const ENDED: &str = concat!(
    "/*pg*/ ",
    rows!("i64,i64,text,i64,i64,i64,text,json,text,text,text"),
    "gone as (delete from ops.jobs j using r, clock where ",
    held_row!(),
    " returning j.*, 1 - $5 as by_holder, $6 as began, $7 as ended, $8 as result, $9 as reason,
        $10 as outcome, $11 as problem, clock.now as now),
    noted as (",
    note!(),
    "select id, attempts, outcome, token, by_holder, began, now, lease_owner, problem from gone)
    insert into ",
    history!(),
    " select ",
    kept!(),
    ", lease_owner, ended, by_holder, began, now, coalesce(reason, error), result from gone
    returning id, token /*end*/"
);

/// Back into the queue: `$6` start, `$7` not before, `$8` whether the attempt counts, `$9` error,
/// `$10` outcome.
const BACK: &str = concat!(
    "/*pg*/ ",
    rows!("i64,i64,text,i64,i64,i64,i64,i64,text,text"),
    "back as (update ops.jobs j set state = 'queued', run_at = $7, attempts = attempts - 1 + $8,
            ready = ",
    ready!("clock.now"),
    ", error = coalesce($9, error), lease_owner = null, lease_expires_at = null
        from r, clock where ",
    held_row!(),
    " returning j.id, j.token, j.attempts + 1 - $8 as attempt, $10 as outcome, 1 - $5 as by_holder,
        $6 as began, clock.now as now, $3 as session, $9 as problem)
    ",
    note!(),
    "select id, attempt, outcome, token, by_holder, began, now, session, problem from back
    returning job, token /*end*/"
);

/// On SQLite, the same in steps: the attempt (`$6` start, `$7` error, `$8` outcome), ...
const ONE_NOTED: &str = concat!(
    note!(),
    "select id, attempts, $8, token, 1 - $5, $6, {now:$4}, lease_owner, $7 from ops.jobs where ",
    held!()
);
/// ... the copy (`$6` start, `$7` state, `$8` result, `$9` reason), ...
const ONE_COPIED: &str = concat!(
    "insert into ",
    history!(),
    " select ",
    kept!(),
    ", lease_owner, $7, 1 - $5, $6, {now:$4}, coalesce($9, error), $8 from ops.jobs where ",
    held!()
);
/// ... the end of the live row, ...
const ONE_GONE: &str = concat!("delete from ops.jobs where ", held!(), " returning id, token");
/// On SQLite, many successes in a few statements: texts for so many jobs at a time.
const AT_A_TIME: [usize; 3] = [128, 16, 1];
/// The copies: `$1` session, `$2` now, then of each job number, token, start and result.
static MANY_COPIED: LazyLock<[String; 3]> = LazyLock::new(|| {
    AT_A_TIME.map(|count| {
        let row = |n: usize| format!("({})", places(3 + 4 * n, 4));
        let rows = (0..count).map(row).collect::<Vec<_>>().join(", ");
        format!(
            "with r (job, claim, began, outcome) as (values {rows})
            insert into {} select {}, lease_owner, 'succeeded', 1, began, {{now:$2}}, error, outcome
            from r cross join ops.jobs j where id = job and token = claim and lease_owner = $1
                and state = 'running' and lease_expires_at > {{now:$2}}
            returning id, token",
            history!(),
            kept!()
        )
    })
});
/// The ends of the live rows that were copied.
static MANY_GONE: LazyLock<[String; 3]> = LazyLock::new(|| {
    AT_A_TIME.map(|count| {
        format!(
            "delete from ops.jobs where id in ({})
                and exists (select 1 from ops.job_history h where h.id = ops.jobs.id)",
            places(1, count)
        )
    })
});

/// The statements that end successes on SQLite; those that copy come first, and tell.
fn many_done(by: &Value, now: Time, ends: &[&JobEnd]) -> (Vec<Statement>, Vec<Statement>) {
    let (mut copies, mut drops) = (Vec::new(), Vec::new());
    let mut left = ends;
    while !left.is_empty() {
        let size = AT_A_TIME.iter().position(|size| *size <= left.len()).unwrap_or(2);
        let (some, rest) = left.split_at(AT_A_TIME[size]);
        left = rest;
        let mut params = Vec::with_capacity(2 + 4 * some.len());
        params.extend(values![by.clone(), now]);
        for end in some {
            params.extend(values![end.id, end.token.0, end.started_at, bounded(&end.result)]);
        }
        copies.push(Statement::new(MANY_COPIED[size].as_str(), params));
        let ids = some.iter().map(|end| Value::Int(end.id)).collect();
        drops.push(Statement::new(MANY_GONE[size].as_str(), ids));
    }
    (copies, drops)
}

/// ... or its way back (`$6` start, `$7` not before, `$8` whether the attempt counts, `$9` error).
const ONE_BACK: &str = concat!(
    "update ops.jobs set state = 'queued', run_at = $7, attempts = attempts - 1 + $8, ready = ",
    ready!("{now:$4}"),
    ", error = coalesce($9, error), started_at = $6, lease_owner = null, lease_expires_at = null
    where ",
    held!(),
    " returning id, token"
);

/// Keeps the newest attempts of a job.
const TRIM: &str = "delete from ops.job_attempts /*pg*/ t using {rows:i64,i64} /*end*/
    where job = $1 and id <= (select a.id from ops.job_attempts a where a.job = $1
        order by a.id desc limit 1 offset $2)";

/// Jobs that an operator cancelled while they ran, and that came back to the queue in this list.
/// No other list can see one: none ends with a job in that state.
macro_rules! swept {
    () => {
        "from ops.jobs where cancelled_by is not null and state = 'queued'"
    };
}
const SWEPT: &str = concat!(
    "insert into ",
    history!(),
    " select ",
    kept!(),
    ", null, 'cancelled', 0, started_at, {now:$1}, 'cancelled by ' || cancelled_by, null ",
    swept!()
);

/// Ends those jobs among the ones that a list has put back into the queue which an operator wants
/// to end.
pub(super) fn sweep(now: Time) -> [Statement; 2] {
    [Statement::new(SWEPT, values![now]), Statement::new(concat!("delete ", swept!()), values![])]
}

/// The statement that keeps of each of these jobs only the newest attempts.
pub(super) fn trim(jobs: impl Iterator<Item = i64>) -> Statement {
    let rows = jobs.flat_map(|id| values![id, ATTEMPTS_KEPT]).collect();
    Statement::bulk(TRIM, 2, rows)
}

/// How the attempt is called in the history of attempts.
const fn word(outcome: Outcome, follow_up: &FollowUp) -> &'static str {
    match (outcome, follow_up) {
        (_, FollowUp::Cancel { .. }) | (Outcome::Cancelled, _) => "cancelled",
        (Outcome::TimedOut, _) => "timed_out",
        (Outcome::Snoozed, _) => "snoozed",
        (Outcome::Lost, _) => "lost",
        _ => "failed",
    }
}

/// The state in which a job ends, if it does.
const fn final_state(follow_up: &FollowUp) -> Option<State> {
    match follow_up {
        FollowUp::Finish => Some(State::Succeeded),
        FollowUp::GiveUp { .. } => Some(State::Failed),
        FollowUp::Cancel { .. } => Some(State::Cancelled),
        FollowUp::Retry { .. } | FollowUp::Again { .. } => None,
    }
}

/// A result as it is kept.
fn bounded(result: &serde_json::Value) -> Value {
    match json_or_null(result) {
        Value::Text(text) if text.len() > MAX_RESULT => json(&serde_json::json!({
            "left_out": format!(
                "the result has {} bytes of JSON, and at most {MAX_RESULT} are kept", text.len()
            ),
        })),
        kept => kept,
    }
}

/// Statements that end grants of jobs, and those of them that tell which: each returns number and
/// token of every job whose holder was right.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    pub(crate) list: Vec<Statement>,
    pub(crate) tell: Vec<usize>,
}

/// The statements that end `ends` on behalf of `session`. With `burn`, also where the lease is over,
/// and in such a way that its holder has no say any more.
pub(crate) fn ending(
    shared: bool,
    by: &SessionId,
    ends: &[JobEnd],
    now: Time,
    burn: bool,
) -> Ending {
    let mut sorted: Vec<&JobEnd> = ends.iter().collect();
    sorted.sort_by_key(|end| (end.id, end.token));
    sorted.dedup_by_key(|end| (end.id, end.token));
    let is_batch = sorted.len() > 1;
    let by = session(by);
    let (mut done, mut ended, mut back) = (Vec::new(), Vec::new(), Vec::new());
    let (mut noted, mut copied, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    let (mut tried, mut many) = (Vec::new(), Vec::new());
    for end in sorted {
        let row = |rest: Vec<Value>| {
            let mut row = values![end.id, end.token.0, by.clone(), now, burn];
            row.extend(rest);
            row
        };
        let began = end.started_at;
        let outcome = word(end.outcome, &end.follow_up);
        let problem = end.error.clone();
        if let Some(state) = final_state(&end.follow_up) {
            let reason = match &end.follow_up {
                FollowUp::GiveUp { reason } | FollowUp::Cancel { reason } => Some(reason.clone()),
                _ => None,
            };
            let result = bounded(&end.result);
            if state != State::Succeeded {
                tried.push(end.id);
            }
            if !shared && state == State::Succeeded && !burn {
                many.push(end);
            } else if !shared {
                if state != State::Succeeded {
                    noted.extend(row(values![began, problem, outcome]));
                }
                copied.extend(row(values![began, state.as_str(), result, reason]));
                gone.extend(row(vec![]));
            } else if state == State::Succeeded {
                done.extend(row(values![began, result]));
            } else {
                let state = state.as_str();
                ended.extend(row(values![began, state, result, reason, outcome, problem]));
            }
        } else if let FollowUp::Retry { at } | FollowUp::Again { at } = &end.follow_up {
            let counts = matches!(end.follow_up, FollowUp::Retry { .. });
            tried.push(end.id);
            if shared {
                back.extend(row(values![began, *at, counts, problem, outcome]));
            } else {
                noted.extend(row(values![began, problem.clone(), outcome]));
                back.extend(row(values![began, *at, counts, problem]));
            }
        }
    }
    let mut ending = Ending::default();
    let (copies, drops) = many_done(&by, now, &many);
    ending.tell.extend(0..copies.len());
    ending.list.extend(copies.into_iter().chain(drops));
    if shared && is_batch {
        // The live table is empty at one moment and long at the next: a plan that was made for good
        // while it was empty would go through all of it for each of these.
        let plan_anew = "/*pg*/ set local plan_cache_mode = force_custom_plan /*end*/";
        ending.list.push(Statement::new(plan_anew, vec![]));
    }
    let back_sql = if shared { BACK } else { ONE_BACK };
    let returned = !back.is_empty();
    for (sql, width, rows, tells) in [
        (ONE_NOTED, 8, noted, false),
        (ONE_COPIED, 9, copied, false),
        (ONE_GONE, 5, gone, true),
        (DONE, 7, done, true),
        (ENDED, 11, ended, true),
        (back_sql, if shared { 10 } else { 9 }, back, true),
    ] {
        if !rows.is_empty() {
            if tells {
                ending.tell.push(ending.list.len());
            }
            ending.list.push(Statement::bulk(sql, width, rows));
        }
    }
    if !tried.is_empty() {
        ending.list.push(trim(tried.into_iter()));
    }
    if returned {
        ending.list.extend(sweep(now));
    }
    ending
}

/// The statement that finds a row exactly while `by` holds job `id` under `token`, and keeps it so
/// until its list is done.
pub(crate) fn prove(id: i64, token: Token, by: &SessionId, now: Time, burn: bool) -> Statement {
    const SQL: &str =
        concat!("select 1 from ops.jobs where ", held!(), " /*pg*/ for update /*end*/");
    Statement::new(SQL, values![id, token.0, session(by), now, burn]).expect(Expect::Exactly(1))
}

/// Which of `ends` have been recorded before, by the holder, under their tokens.
pub(crate) async fn already(db: &Database, ends: &[&JobEnd]) -> Result<HashSet<(i64, i64)>> {
    const ENDS: &str = concat!(
        "select id, token, state from ops.job_history where by_holder = 1 and ",
        among!("id", 1)
    );
    const TRIES: &str = concat!(
        "select job, token, outcome from ops.job_attempts where by_holder = 1 and ",
        among!("job", 1)
    );
    if ends.is_empty() {
        return Ok(HashSet::new());
    }
    let ids = json(&ends.iter().map(|end| end.id).collect::<Vec<_>>());
    let mut recorded = HashSet::new();
    for sql in [ENDS, TRIES] {
        for row in db.query(sql, vec![ids.clone()]).await.map_err(failed)? {
            let word = row.shared_text(2).map_err(failed)?;
            let key = (row.i64(0).map_err(failed)?, row.i64(1).map_err(failed)?);
            recorded.insert((sql == ENDS, key, word));
        }
    }
    let found = ends.iter().filter(|end| {
        let key = (end.id, end.token.0);
        let (ended, word) = match final_state(&end.follow_up) {
            Some(state) => (true, state.as_str()),
            None => (false, word(end.outcome, &end.follow_up)),
        };
        recorded.contains(&(ended, key, word.into()))
    });
    Ok(found.map(|end| (end.id, end.token.0)).collect())
}

pub(super) async fn finish(
    db: &Database,
    worker: &WorkerName,
    by: &SessionId,
    ends: Vec<JobEnd>,
    now: Time,
) -> Result<Vec<bool>> {
    if ends.is_empty() {
        return Ok(Vec::new());
    }
    let Ending { list, tell } = ending(is_shared(db), by, &ends, now, false);
    let applied = apply(db, list).await?;
    let mut held = HashSet::with_capacity(ends.len());
    for row in tell.iter().flat_map(|at| &applied.rows[*at]) {
        held.insert((row.i64(0).map_err(failed)?, row.i64(1).map_err(failed)?));
    }
    let is_held = |held: &HashSet<_>, end: &JobEnd| held.contains(&(end.id, end.token.0));
    let others: Vec<&JobEnd> = ends.iter().filter(|end| !is_held(&held, end)).collect();
    held.extend(already(db, &others).await?);
    let refused: Vec<&JobEnd> = others.into_iter().filter(|end| !is_held(&held, end)).collect();
    if !refused.is_empty() {
        record_refusals(db, worker, by, &refused, now).await?;
    }
    Ok(ends.iter().map(|end| is_held(&held, end)).collect())
}

async fn record_refusals(
    db: &Database,
    worker: &WorkerName,
    by: &SessionId,
    refused: &[&JobEnd],
    now: Time,
) -> Result<()> {
    let rows = refused.iter().flat_map(|end| {
        let payload = serde_json::json!({
            "worker": worker, "token": end.token, "cycle": 0, "session": by,
            "cause": watchbell_core::Cause::Job { id: end.id },
        });
        values![now, worker, json(&payload)]
    });
    let events = Statement::bulk(
        "insert into ops.events (at, kind, key, payload) values ($1, 'commit.refused', $2, $3)",
        3,
        rows.collect(),
    );
    apply(db, vec![event::in_order(), events]).await.map(drop)
}

pub(super) async fn release(
    db: &Database,
    by: &SessionId,
    mut jobs: Vec<(i64, Token)>,
    now: Time,
) -> Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    jobs.sort_unstable();
    let rows = jobs.iter().flat_map(|(id, token)| values![*id, token.0, session(by)]);
    let back = Statement::bulk(
        "update ops.jobs set state = 'queued', ready = 1, attempts = attempts - 1,
            lease_owner = null, lease_expires_at = null
         /*pg*/ from {rows:i64,i64,text} /*end*/
         where id = $1 and token = $2 and lease_owner = $3 and state = 'running'",
        3,
        rows.collect(),
    );
    apply(db, [back].into_iter().chain(sweep(now)).collect()).await.map(drop)
}

pub(super) async fn renew(
    db: &Database,
    by: &SessionId,
    ttl: Millis,
    now: Time,
) -> Result<Vec<HeldJob>> {
    // In one order, as jobs are ended: so the two cannot wait for each other.
    const SQL: &str = "update ops.jobs set lease_expires_at = {now:$2} + $3
         where /*pg*/ id = any(array( /*end*/ /*sqlite*/ id in ( /*end*/
            select id from ops.jobs where state = 'running' and lease_owner = $1
                and lease_expires_at > {now:$2} order by id /*pg*/ for update) /*end*/ )
         returning id, token, case when cancelled_by is null then 0 else 1 end";
    let renewed = Statement::new(SQL, values![session(by), now, ttl]);
    let rows = apply(db, vec![renewed]).await?.rows.remove(0);
    let mut held = Vec::with_capacity(rows.len());
    for row in &rows {
        held.push(HeldJob {
            id: row.i64(0).map_err(failed)?,
            token: Token(row.i64(1).map_err(failed)?),
            cancel: row.bool(2).map_err(failed)?,
        });
    }
    held.sort_unstable_by_key(|job| job.id);
    Ok(held)
}

pub(super) async fn progress(
    db: &Database,
    mut progress: Vec<JobProgress>,
    _now: Time,
) -> Result<()> {
    progress.sort_by_key(|p| p.id);
    let rows = progress
        .into_iter()
        .flat_map(|p| values![p.id, p.token.0, p.percent.clamp(0.0, 100.0), p.message]);
    let rows: Vec<Value> = rows.collect();
    if rows.is_empty() {
        return Ok(());
    }
    let update = Statement::bulk(
        "update ops.jobs set percent = $3, message = $4
         /*pg*/ from {rows:i64,i64,f64,text} /*end*/
         where id = $1 and token = $2 and state = 'running'",
        4,
        rows,
    );
    apply(db, vec![update]).await.map(drop)
}
