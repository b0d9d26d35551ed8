//! Publications: one list whose first statements prove the claim, and which then writes everything
//! that a cycle has to say.

use serde_json::json;
use watchbell_core::port::{CycleEnd, FollowUp, Outcome, Publication, Result, StoreError};
use watchbell_core::{Cause, Commit, CycleId, Expect, Statement, Value, values};
use watchbell_db::{Database, DbError};

use crate::record::{failed, json as doc, json_or_null, session};
use crate::window;

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

pub(crate) async fn publish(db: &Database, publication: Publication) -> Result<()> {
    write(db, publication, false).await
}

pub(crate) async fn burn(db: &Database, publication: Publication) -> Result<()> {
    write(db, publication, true).await
}

async fn write(db: &Database, mut p: Publication, burn: bool) -> Result<()> {
    let commit = std::mem::take(&mut p.commit);
    let mut list = proof(&p, burn);
    let domain = list.len()..list.len() + commit.statements.len();
    consequences(&mut list, &p, commit);
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
                record_refusal(db, &p).await?;
            }
            Err(StoreError::Fenced { worker: p.worker, token: p.token })
        }
        Err(other) => Err(failed(other)),
    }
}

/// The statements that fail when the claim is lost; with them go the ends of the lease, the cycle
/// and the job behind it.
fn proof(p: &Publication, burn: bool) -> Vec<Statement> {
    let holder = values![&p.worker, p.token.0, session(&p.session), p.now, burn];
    let mut list = Vec::with_capacity(4);
    let Some(end) = &p.end else {
        let sql = match &p.cause {
            Cause::Job { .. } => {
                "update ops.jobs set lease_expires_at = lease_expires_at
                 where worker = $1 and lease_token = $2 and lease_owner = $3
                    and ($5 = 1 or lease_expires_at > $4) and state = 'running'"
            }
            _ => {
                "update ops.workers set lease_expires_at = lease_expires_at
                 where name = $1 and lease_token = $2 and lease_owner = $3
                    and ($5 = 1 or lease_expires_at > $4)"
            }
        };
        list.push(Statement::new(sql, holder));
        if p.cycle != CycleId(0) {
            list.push(Statement::new(
                "update ops.cycles set outcome = 'running'
                 where id = $1 and worker = $2 and token = $3 and outcome = 'running'",
                values![p.cycle.0, &p.worker, p.token.0],
            ));
        }
        return list.into_iter().map(|s| s.expect(Expect::Exactly(1))).collect();
    };
    if let Cause::Job { id } = &p.cause {
        list.push(end_job(*id, p, end, burn));
        list.push(Statement::new(heartbeat!(" where name = $1"), beat(p, end)));
    } else {
        let keep = end.keep_lease && !burn;
        let guard = values![p.token.0, session(&p.session), burn, keep];
        list.push(Statement::new(
            heartbeat!(
                ", lease_owner = case when $13 = 1 then lease_owner end,
                lease_expires_at = case when $13 = 1 then lease_expires_at end
                where name = $1 and lease_token = $10 and lease_owner = $11
                    and ($12 = 1 or lease_expires_at > $2)"
            ),
            [beat(p, end), guard].concat(),
        ));
    }
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

/// The end of the cycle's row; of a quiet worker's cycle it is also the beginning.
fn end_cycle(p: &Publication, end: &CycleEnd) -> Statement {
    let (outcome, error) = (end.outcome.as_str(), end.error.clone());
    let summary = json_or_null(&end.summary);
    if p.cycle == CycleId(0) {
        return Statement::new(
            "insert into ops.cycles (worker, cause, detail, token, session, attempt, started_at,
                finished_at, outcome, error, summary)
             values ($1, $2, $3, $4, $5, 1, $6, $7, $8, $9, $10)",
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

fn end_job(id: i64, p: &Publication, end: &CycleEnd, burn: bool) -> Statement {
    // State, not before, whether the attempt counts, error.
    let (state, run_at, counts, error) = match &end.follow_up {
        FollowUp::Finish => ("succeeded", None, true, None),
        FollowUp::Retry { at } => ("queued", Some(*at), true, end.error.clone()),
        FollowUp::Again { at } => ("queued", Some(*at), false, end.error.clone()),
        FollowUp::GiveUp { reason } => ("failed", None, true, Some(reason.clone())),
    };
    let finished = run_at.is_none().then_some(p.now);
    Statement::new(
        "update ops.jobs set state = $6, run_at = coalesce($7, run_at),
            attempts = case when $8 = 1 then attempts else attempts - 1 end,
            error = coalesce($9, error), finished_at = $10,
            lease_owner = null, lease_token = null, lease_expires_at = null
         where id = $1 and state = 'running' and worker = $2 and lease_token = $3
            and lease_owner = $4 and ($11 = 1 or lease_expires_at > $5)",
        values![
            id,
            &p.worker,
            p.token.0,
            session(&p.session),
            p.now,
            state,
            run_at,
            counts,
            error,
            finished,
            burn
        ],
    )
}

fn end_event(id: i64, p: &Publication, end: &CycleEnd) -> Statement {
    match &end.follow_up {
        FollowUp::Finish | FollowUp::GiveUp { .. } => Statement::new(
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
fn consequences(list: &mut Vec<Statement>, p: &Publication, commit: Commit) {
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
    // A quiet worker's step has no cycle to name; its end has just written one.
    let known = p.cycle != CycleId(0) || p.end.is_none();
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
    let jobs = commit.jobs.into_iter().flat_map(|j| {
        let run_at = j.run_at.unwrap_or(p.now);
        let (payload, most) = (doc(&j.payload), j.max_attempts.max(1));
        values![j.kind, payload, j.priority, j.unique_key, most, run_at, p.now, cycle.clone()]
    });
    push_bulk(
        list,
        of_cycle!(
            known,
            "insert into ops.jobs (state, kind, payload, priority, unique_key, max_attempts,
                run_at, created_at, created_by)
             values ('queued', $1, $2, $3, $4, $5, $6, $7, ",
            "$8",
            ") on conflict do nothing"
        ),
        8,
        jobs.collect(),
    );
    let Some(end) = &p.end else { return };
    let artifacts = end.artifacts.iter().flat_map(|a| {
        let (name, path) = (a.name.as_str(), a.path.as_str());
        let sha = a.manifest_sha256.as_str();
        values![name, path, sha, a.bytes, a.files, a.published_at, cycle.clone()]
    });
    push_bulk(
        list,
        of_cycle!(
            known,
            "insert into ops.artifacts
                (name, path, manifest_sha256, bytes, files, published_at, cycle)
             values ($1, $2, $3, $4, $5, $6, ",
            "$7",
            ")"
        ),
        7,
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
            if let FollowUp::GiveUp { reason } = &end.follow_up {
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

/// Says in a list of its own that a commit was refused.
async fn record_refusal(db: &Database, p: &Publication) -> Result<()> {
    let payload = json!({
        "worker": p.worker, "token": p.token, "cycle": p.cycle, "session": p.session,
        "cause": p.cause,
    });
    let list = vec![
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
