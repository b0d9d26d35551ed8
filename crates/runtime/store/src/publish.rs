//! Publications: one list whose first statements prove the claim, and which then writes everything
//! that a cycle has to say.

use serde_json::json;
use watchbell_core::port::{CycleEnd, FollowUp, JobEnd, Outcome, Publication, Result, StoreError};
use watchbell_core::{Cause, Commit, CycleId, Expect, Statement, Value, values};
use watchbell_db::{Database, DbError};

use crate::queue::{self, Admitted, Known};
use crate::record::{failed, json as doc, json_or_null, session};
use crate::sql::is_shared;
use crate::{event, window};

/// The heartbeat of a cycle that ended: `$1` worker, `$2` now, `$3` start, `$4` duration, `$5` next
/// due, `$6` whether it succeeded, `$7` whether it failed, `$8` error, `$9` summary.
macro_rules! heartbeat {
    ($rest:literal) => {
        concat!(
            "update ops.workers set last_completed_at = $2, latency = $4, next_due = $5,
                last_started_at = case when last_started_at is null or last_started_at < $3
                    then $3 else last_started_at end,
                last_success_at = case when $6 = 1 then $2 else last_success_at end,
                summary = case when $6 = 1 then $9 else summary end,
                last_error_at = case when $7 = 1 then $2 else last_error_at end,
                last_error = case when $7 = 1 then $8 else last_error end,
                consecutive_errors =
                    case when $6 = 1 then 0 else consecutive_errors + $7 end,
                total_runs = total_runs + 1, total_errors = total_errors + $7",
            $rest
        )
    };
}

/// An insertion that names the cycle it comes from: by number, or as the newest of the worker when
/// the list itself has just written it.
macro_rules! of_cycle {
    ($known:expr, $before:literal, $place:literal, $after:literal) => {
        if $known {
            concat!($before, $place, $after)
        } else {
            concat!($before, "(select max(id) from ops.cycles where worker = ", $place, ")", $after)
        }
    };
}

pub(crate) async fn publish(
    db: &Database,
    known: &Known,
    mut publication: Publication,
) -> Result<()> {
    let jobs = std::mem::take(&mut publication.commit.jobs);
    let jobs = known.admit(db, jobs, publication.now).await?;
    write(db, publication, &jobs, false).await?;
    known.added(&jobs);
    Ok(())
}

pub(crate) async fn burn(db: &Database, publication: Publication) -> Result<()> {
    write(db, publication, &[], true).await
}

async fn write(db: &Database, mut p: Publication, jobs: &[Admitted], burn: bool) -> Result<()> {
    let commit = std::mem::take(&mut p.commit);
    let mut list = Vec::with_capacity(8);
    if !commit.events.is_empty() {
        list.push(event::in_order());
    }
    list.extend(proof(db, &p, burn));
    let domain = list.len()..list.len() + commit.statements.len();
    consequences(&mut list, &p, commit, jobs);
    follow_up(&mut list, &p)?;
    match db.apply(list).await {
        Ok(_) => Ok(()),
        Err(DbError::Unmet { index, target, expected, got }) if domain.contains(&index) => {
            Err(StoreError::Unmet {
                index: index - domain.start,
                target,
                expected: match expected {
                    Expect::Any => "any number".to_owned(),
                    Expect::Exactly(n) => format!("exactly {n}"),
                    Expect::AtLeast(n) => format!("at least {n}"),
                },
                got,
            })
        }
        Err(DbError::Unmet { .. }) => {
            if !burn {
                if is_recorded(db, &p).await? {
                    return Ok(());
                }
                record_refusal(db, &p).await?;
            }
            Err(StoreError::Fenced { worker: p.worker, token: p.token })
        }
        // A rule of the schema, or SQL that is wrong: the same commit will be refused again.
        Err(refused @ (DbError::Constraint { .. } | DbError::Statement { .. })) => {
            Err(StoreError::Conflict(format!("the commit was refused: {refused}")))
        }
        Err(other) => Err(failed(other)),
    }
}

/// The statements that fail when the claim is lost; with them go the ends of the lease and the
/// cycle, or of the job, which is its own cycle.
fn proof(db: &Database, p: &Publication, burn: bool) -> Vec<Statement> {
    if let Cause::Job { id } = &p.cause {
        let Some(end) = job_end(p) else {
            return vec![queue::prove(*id, p.token, &p.session, p.now, burn)];
        };
        let mut ending = queue::ending(is_shared(db), &p.session, &[end], p.now, burn);
        for at in ending.tell {
            ending.list[at].expect = Expect::Exactly(1);
        }
        return ending.list;
    }
    let holder = values![&p.worker, p.token.0, session(&p.session), p.now, burn];
    let mut list = Vec::with_capacity(4);
    let Some(end) = &p.end else {
        list.push(Statement::new(
            "update ops.workers set lease_expires_at = lease_expires_at
             where name = $1 and lease_token = $2 and lease_owner = $3
                and ($5 = 1 or lease_expires_at > {now:$4})",
            holder,
        ));
        if p.cycle != CycleId(0) {
            list.push(Statement::new(
                "update ops.cycles set outcome = 'running'
                 where id = $1 and worker = $2 and token = $3 and outcome = 'running'",
                values![p.cycle.0, &p.worker, p.token.0],
            ));
        }
        return list.into_iter().map(|s| s.expect(Expect::Exactly(1))).collect();
    };
    let keep = end.keep_lease && !burn;
    let guard = values![p.token.0, session(&p.session), burn, keep];
    list.push(Statement::new(
        heartbeat!(
            ", lease_owner = case when $13 = 1 then lease_owner end,
            lease_expires_at = case when $13 = 1 then lease_expires_at end
            where name = $1 and lease_token = $10 and lease_owner = $11
                and ($12 = 1 or lease_expires_at > {now:$2})"
        ),
        [beat(p, end), guard].concat(),
    ));
    list.push(end_cycle(p, end));
    list.into_iter().map(|s| s.expect(Expect::Exactly(1))).collect()
}

/// Parameters of a heartbeat.
fn beat(p: &Publication, end: &CycleEnd) -> Vec<Value> {
    let succeeded = end.outcome == Outcome::Succeeded;
    let wrong = matches!(end.outcome, Outcome::Failed | Outcome::TimedOut | Outcome::Lost);
    values![
        &p.worker,
        p.now,
        end.started_at,
        p.now - end.started_at,
        end.next_due,
        succeeded,
        wrong,
        end.error.clone(),
        json_or_null(&end.summary)
    ]
}

/// The end of the cycle's row; of a quiet worker's cycle it is also the beginning, unless it is the
/// newest that is written already: the answer to it was lost then.
fn end_cycle(p: &Publication, end: &CycleEnd) -> Statement {
    let (outcome, error) = (end.outcome.as_str(), end.error.clone());
    let summary = json_or_null(&end.summary);
    if p.cycle == CycleId(0) {
        return Statement::new(
            "insert into ops.cycles (worker, cause, detail, token, session, attempt, started_at,
                finished_at, outcome, error, summary)
             select $1, $2, cast(cast($3 as {text}) as {json}), $4, $5, 1, $6, $7, $8, $9, $10
             where not exists (select 1 from ops.cycles n
                where n.id = (select max(id) from ops.cycles where worker = $1)
                    and n.token = $4 and n.session = $5 and n.started_at = $6
                    and n.finished_at = $7 and cast(n.detail as {text}) = cast($3 as {text}))",
            values![
                &p.worker,
                p.cause.kind(),
                doc(&p.cause),
                p.token.0,
                session(&p.session),
                end.started_at,
                p.now,
                outcome,
                error,
                summary
            ],
        );
    }
    Statement::new(
        "update ops.cycles set outcome = $4, finished_at = $5, error = $6, summary = $7
         where id = $1 and worker = $2 and token = $3 and outcome = 'running'",
        values![p.cycle.0, &p.worker, p.token.0, outcome, p.now, error, summary],
    )
}

/// The end of the job behind a publication that ends one.
pub(crate) fn job_end(p: &Publication) -> Option<JobEnd> {
    let (Cause::Job { id }, Some(end)) = (&p.cause, &p.end) else { return None };
    Some(JobEnd {
        id: *id,
        token: p.token,
        outcome: end.outcome,
        follow_up: end.follow_up.clone(),
        result: end.summary.clone(),
        error: end.error.clone(),
        started_at: end.started_at,
    })
}

fn end_event(id: i64, p: &Publication, end: &CycleEnd) -> Statement {
    match &end.follow_up {
        FollowUp::Finish | FollowUp::GiveUp { .. } | FollowUp::Cancel { .. } => Statement::new(
            "update ops.subscribers set cursor = $2, attempts = 0, next_attempt_at = null
             where worker = $1 and cursor < $2",
            values![&p.worker, id],
        ),
        FollowUp::Retry { at } => Statement::new(
            "update ops.subscribers set next_attempt_at = $3 where worker = $1 and cursor < $2",
            values![&p.worker, id, *at],
        ),
        FollowUp::Again { at } => Statement::new(
            "update ops.subscribers set next_attempt_at = $3, attempts = attempts - 1
             where worker = $1 and cursor < $2",
            values![&p.worker, id, *at],
        ),
    }
}

/// Everything that follows from a proven claim.
fn consequences(list: &mut Vec<Statement>, p: &Publication, commit: Commit, jobs: &[Admitted]) {
    list.extend(commit.statements);
    list.extend(window::cover(&commit.covers));
    let conditions = commit
        .conditions
        .into_iter()
        .flat_map(|c| values![c.name, c.met, c.detail, c.until, p.now]);
    push_bulk(
        list,
        "insert into ops.conditions (name, met, detail, until_at, changed_at)
         values ($1, $2, $3, $4, $5)
         on conflict (name) do update set met = excluded.met, detail = excluded.detail,
            until_at = excluded.until_at,
            changed_at = case when ops.conditions.met = excluded.met
                then ops.conditions.changed_at else excluded.changed_at end",
        5,
        conditions.collect(),
    );
    // A job, and a quiet worker's step, have no cycle to name; a quiet worker's end has just
    // written one.
    let is_job = matches!(p.cause, Cause::Job { .. });
    let known = p.cycle != CycleId(0) || p.end.is_none() || is_job;
    let cycle = match p.cycle {
        CycleId(0) if known => Value::Null,
        CycleId(0) => Value::from(&p.worker),
        CycleId(id) => Value::Int(id),
    };
    let events = commit
        .events
        .into_iter()
        .flat_map(|e| values![p.now, e.kind, e.key, e.dedupe, doc(&e.payload), cycle.clone()]);
    push_bulk(
        list,
        of_cycle!(
            known,
            "insert into ops.events (at, kind, key, dedupe, payload, cycle)
             values ($1, $2, $3, $4, $5, ",
            "$6",
            ") on conflict do nothing"
        ),
        6,
        events.collect(),
    );
    list.extend(queue::insert(jobs, p.now, Some(p.cycle.0).filter(|id| *id != 0)));
    let Some(end) = &p.end else { return };
    let artifacts = end.artifacts.iter().flat_map(|a| {
        let (name, path) = (a.name.as_str(), a.path.as_str());
        let sha = a.manifest_sha256.as_str();
        values![name, path, sha, a.bytes, a.files, a.published_at, a.expires_at, cycle.clone()]
    });
    push_bulk(
        list,
        of_cycle!(
            known,
            "insert into ops.artifacts
                (name, path, manifest_sha256, bytes, files, published_at, expires_at, cycle)
             values ($1, $2, $3, $4, $5, $6, $7, ",
            "$8",
            ")"
        ),
        8,
        artifacts.collect(),
    );
}

/// What becomes of the window or event behind the cycle. Last in the list: a window's rows are all
/// there before it says that it is complete.
fn follow_up(list: &mut Vec<Statement>, p: &Publication) -> Result<()> {
    let Some(end) = &p.end else { return Ok(()) };
    let next = match &p.cause {
        Cause::Window { series, start, version, .. } => {
            window::end(series, *start, *version, p, end)?
        }
        Cause::Event { id } => {
            if let FollowUp::GiveUp { reason } | FollowUp::Cancel { reason } = &end.follow_up {
                let letter = Statement::new(
                    "insert into ops.dead_letters
                        (worker, event_id, event_at, kind, key, payload, cycle, reason, at)
                     select $1, id, at, kind, key, payload, cycle, $3, $4
                     from ops.events where id = $2",
                    values![&p.worker, *id, reason.as_str(), p.now],
                );
                list.push(letter.expect(Expect::Exactly(1)));
            }
            end_event(*id, p, end)
        }
        Cause::Tick { .. } | Cause::Job { .. } | Cause::Stream | Cause::Manual => return Ok(()),
    };
    list.push(next.expect(Expect::Exactly(1)));
    Ok(())
}

fn push_bulk(list: &mut Vec<Statement>, sql: &'static str, width: usize, params: Vec<Value>) {
    if !params.is_empty() {
        list.push(Statement::bulk(sql, width, params));
    }
}

/// Whether the end that `p` publishes is written already, under its token.
async fn is_recorded(db: &Database, p: &Publication) -> Result<bool> {
    let Some(end) = &p.end else { return Ok(false) };
    if let Some(end) = job_end(p) {
        return Ok(!queue::already(db, &[&end]).await?.is_empty());
    }
    let (sql, params) = if p.cycle == CycleId(0) {
        (
            "select 1 from ops.cycles
             where id = (select max(id) from ops.cycles where worker = $1)
                and token = $2 and session = $3 and outcome = $4 and started_at = $5
                and finished_at = $6 and cast(detail as {text}) = $7",
            values![end.started_at, p.now, doc(&p.cause)],
        )
    } else {
        (
            "select 1 from ops.cycles
             where worker = $1 and token = $2 and session = $3 and outcome = $4 and id = $5",
            values![p.cycle.0],
        )
    };
    let claim = values![&p.worker, p.token.0, session(&p.session), end.outcome.as_str()];
    let row = db.query_opt(sql, [claim, params].concat()).await.map_err(failed)?;
    Ok(row.is_some())
}

/// Says in a list of its own that a commit was refused.
async fn record_refusal(db: &Database, p: &Publication) -> Result<()> {
    let payload = json!({
        "worker": p.worker, "token": p.token, "cycle": p.cycle, "session": p.session,
        "cause": p.cause,
    });
    let list = vec![
        event::in_order(),
        Statement::new(
            "update ops.cycles set outcome = 'fenced', finished_at = coalesce(finished_at, $4),
                error = 'its commit came after the claim was lost, and was refused'
             where id = $1 and worker = $2 and token = $3 and outcome in ('running', 'lost')",
            values![p.cycle.0, &p.worker, p.token.0, p.now],
        ),
        Statement::new(
            "insert into ops.events (at, kind, key, payload, cycle)
             values ($1, 'commit.refused', $2, $3, $4)",
            values![p.now, &p.worker, doc(&payload), Some(p.cycle.0).filter(|id| *id != 0)],
        ),
    ];
    db.apply(list).await.map(drop).map_err(failed)
}
