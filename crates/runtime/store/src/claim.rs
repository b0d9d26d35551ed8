//! Claims: one list that takes the lease under the next token and writes everything that goes with
//! it. The first statement that finds something changed says what the answer is.

use watchbell_core::port::{Claim, ClaimRequest, Grant, Result, StoreError, Target};
use watchbell_core::schedule::Passed;
use watchbell_core::{
    Cause, CycleId, CycleInput, EventRecord, Expect, Millis, SessionId, Statement, Time, Token,
    Value, WorkerName, values,
};
use watchbell_db::{Applied, Database, DbError};

use crate::event;
use crate::record::{failed, json, one, session};
use crate::sql::{apply, is_shared};
use crate::worker::missing;

/// How often a claim looks again when what it found had changed before it could write.
const LOOKS: usize = 16;

/// What a statement of a claim is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Clears away what an expired lease left.
    Clear,
    /// Takes the lease, or the next token.
    Lease,
    /// Writes the cycle.
    Cycle,
    /// Writes the due instant into the ledger.
    Occurrence,
    /// Writes the due instants that were passed over.
    Passed,
    /// Takes the window.
    Window,
    /// Counts the attempt at the event.
    Subscriber,
}

/// A claim before it is tried.
struct Attempt {
    parts: Vec<(Part, Statement)>,
    cause: Cause,
    input: CycleInput,
}

impl Attempt {
    fn add(&mut self, part: Part, sql: &'static str, params: Vec<Value>) -> &mut Statement {
        self.parts.push((part, Statement::new(sql, params).expect(Expect::Exactly(1))));
        let last = self.parts.len() - 1;
        &mut self.parts[last].1
    }

    fn place(&self, part: Part) -> Option<usize> {
        self.parts.iter().position(|(p, _)| *p == part)
    }
}

/// The statement that starts a cycle, with the expression of its attempt number.
macro_rules! start_cycle {
    ($attempt:literal) => {
        concat!(
            "insert into ops.cycles
                (worker, cause, detail, token, session, attempt, started_at, outcome)
             select name, $2, $3, lease_token, $4, ",
            $attempt,
            ", $5, 'running' from ops.workers where name = $1 returning id"
        )
    };
}

/// The statement that takes a worker's lease, with the condition on the present one.
macro_rules! take_lease {
    ($free:literal) => {
        concat!(
            "update ops.workers set lease_owner = $2, lease_token = lease_token + 1,
                lease_expires_at = {now:$3} + $4, last_started_at = coalesce($5, last_started_at),
                last_due = case when last_due is null or last_due < $6 then $6 else last_due end
             where name = $1 and ",
            $free,
            " and $4 > 0 returning lease_token"
        )
    };
}

pub(crate) async fn claim(db: &Database, request: ClaimRequest) -> Result<Claim> {
    let mut expired = false;
    for _ in 0..LOOKS {
        let event = match &request.target {
            Target::Event => match event::next(db, &request.worker, request.now).await? {
                event::Next::Due { event, cursor } => Some((event, cursor)),
                event::Next::Wait(next) => return Ok(Claim::Nothing { next }),
            },
            _ => None,
        };
        let attempt = prepare(&request, event, expired);
        let list = attempt.parts.iter().map(|(_, s)| s.clone()).collect();
        let applied =
            if may_be_lost(db) { db.apply_unsynced(list).await } else { db.apply(list).await };
        let index = match applied {
            Ok(applied) => return granted(&request, attempt, &applied),
            Err(DbError::Unmet { index, .. } | DbError::Constraint { index, .. }) => index,
            Err(other) => return Err(failed(other)),
        };
        match attempt.parts[index].0 {
            Part::Lease => match holder(db, &request).await? {
                Some(held) => return Ok(held),
                None => expired = true,
            },
            Part::Occurrence | Part::Window => return Ok(Claim::Taken),
            Part::Passed => return Err(overlap(&request.worker)),
            // Another node dealt with the event meanwhile: look for the next.
            Part::Subscriber => {}
            Part::Clear | Part::Cycle => return Err(unsettled(&request.worker)),
        }
    }
    Err(unsettled(&request.worker))
}

/// Whether a claim need not wait for the disk: in a file. Whatever is published under it makes it
/// durable too, so a machine that loses its power loses it only together with everything that came of
/// it, and the next boot finds the window, the event or the due instant as it was before.
///
/// A server may crash while the node lives on. The next claim would then get the numbers of the lost
/// one, of cycle and token, and the refusal of the first holder would be taken for its successor's.
const fn may_be_lost(db: &Database) -> bool {
    !is_shared(db)
}

fn unsettled(worker: &WorkerName) -> StoreError {
    StoreError::Conflict(format!("the claim of `{worker}` met other claims {LOOKS} times: retry"))
}

fn overlap(worker: &WorkerName) -> StoreError {
    StoreError::Conflict(format!(
        "some of the due instants of `{worker}` that were passed over are in the ledger already"
    ))
}

fn prepare(r: &ClaimRequest, event: Option<(EventRecord, i64)>, expired: bool) -> Attempt {
    let (cause, input) = match (&r.target, event) {
        (Target::Tick { due }, _) => (Cause::Tick { due: *due }, CycleInput::None),
        (Target::Window { series, start, end, version, .. }, _) => {
            let (series, version) = (series.clone(), *version);
            (Cause::Window { series, start: *start, end: *end, version }, CycleInput::None)
        }
        (_, Some((event, cursor))) => {
            let mut attempt = Attempt {
                parts: Vec::new(),
                cause: Cause::Event { id: event.id },
                input: CycleInput::Event(event),
            };
            lease(&mut attempt, r, expired);
            attempt.add(
                Part::Subscriber,
                "update ops.subscribers set attempts = attempts + 1
                 where worker = $1 and cursor = $2
                    and (next_attempt_at is null or next_attempt_at <= $3) returning attempts",
                values![&r.worker, cursor, r.now],
            );
            let sql = start_cycle!("(select attempts from ops.subscribers where worker = $1)");
            let params = cycle(r, &attempt.cause);
            attempt.add(Part::Cycle, sql, params);
            passed(&mut attempt, r);
            return attempt;
        }
        (Target::Stream, _) => (Cause::Stream, CycleInput::None),
        _ => (Cause::Manual, CycleInput::None),
    };
    let mut attempt = Attempt { parts: Vec::new(), cause, input };
    lease(&mut attempt, r, expired);
    let params = cycle(r, &attempt.cause);
    match &r.target {
        Target::Standing => {}
        Target::Window { series, start, end, version, scope } => {
            let sql = start_cycle!(
                "1 + coalesce((select attempts from ops.windows
                    where series = $6 and start_at = $7 and version = $8), 0)"
            );
            let window = values![series, *start, *version];
            attempt.add(Part::Cycle, sql, [params, window].concat());
            attempt.add(
                Part::Window,
                "insert into ops.windows
                    (series, start_at, version, end_at, state, attempts, scope, cycle, started_at)
                 values ($1, $2, $3, $4, 'running', 1, $5,
                    (select max(id) from ops.cycles where worker = $6), $7)
                 on conflict (series, start_at, version) do update set state = 'running',
                    attempts = ops.windows.attempts + 1, cycle = excluded.cycle,
                    scope = coalesce(ops.windows.scope, excluded.scope),
                    started_at = excluded.started_at, next_attempt_at = null
                 where ops.windows.state in ('open', 'ready', 'failed')
                    or (ops.windows.state = 'running' and not exists (
                        select 1 from ops.cycles c join ops.workers w on w.name = c.worker
                        where c.id = ops.windows.cycle and c.outcome = 'running'
                            and w.lease_token = c.token and w.lease_expires_at > {now:$7}))
                 returning attempts, scope",
                values![series, *start, *version, *end, json(scope), &r.worker, r.now],
            );
        }
        _ => {
            attempt.add(Part::Cycle, start_cycle!("1"), params);
        }
    }
    if let Target::Tick { due } = &r.target {
        attempt.add(
            Part::Occurrence,
            "insert into ops.occurrences (worker, due, through, count, fate, cycle, recorded_at)
             select $1, $2, $2, 1, 'fired', (select max(id) from ops.cycles where worker = $1), $3
             where not exists (select 1 from (select through from ops.occurrences
                where worker = $1 and due <= $2 order by due desc limit 1) newest
                where newest.through >= $2)",
            values![&r.worker, *due, r.now],
        );
    }
    passed(&mut attempt, r);
    attempt
}

/// Parameters of a starting cycle.
fn cycle(r: &ClaimRequest, cause: &Cause) -> Vec<Value> {
    values![&r.worker, cause.kind(), json(cause), session(&r.session), r.now]
}

fn lease(attempt: &mut Attempt, r: &ClaimRequest, expired: bool) {
    let started = (!matches!(r.target, Target::Standing)).then_some(r.now);
    let due = match &r.target {
        Target::Tick { due } => Some(*due),
        _ => None,
    };
    let last = r.passed.iter().map(|p| p.last).chain(due).max();
    let params = values![&r.worker, session(&r.session), r.now, r.ttl, started, last];
    if !expired {
        attempt.add(Part::Lease, take_lease!("lease_owner is null"), params);
        return;
    }
    let free = take_lease!("(lease_owner is null or lease_expires_at <= {now:$3})");
    attempt.add(Part::Lease, free, params);
    // The lease is ours, so a cycle that still runs ran under the one that expired.
    let clear = "update ops.cycles set outcome = 'lost', finished_at = $2,
            error = 'its lease expired, and another claim took over'
         where worker = $1 and outcome = 'running' and cause <> 'job'";
    attempt.add(Part::Clear, clear, values![&r.worker, r.now]).expect = Expect::Any;
}

fn passed(attempt: &mut Attempt, r: &ClaimRequest) {
    if !r.passed.is_empty() {
        attempt.parts.push((Part::Passed, ledger(&r.worker, &r.passed, r.now)));
    }
}

/// Ranges of due instants for the ledger. Ranges there never overlap, so the newest one that
/// begins before the end of a new one is the only one that can touch it.
fn ledger(worker: &WorkerName, passed: &[Passed], now: Time) -> Statement {
    let rows = passed.iter().flat_map(|p| {
        let count = i64::try_from(p.count).unwrap_or(i64::MAX);
        values![worker, p.first, p.last, count, p.fate.as_str(), p.fate.reason(), now]
    });
    Statement::bulk(
        "insert into ops.occurrences (worker, due, through, count, fate, reason, recorded_at)
         select $1, $2, $3, $4, $5, $6, $7
         where not exists (select 1 from (select through from ops.occurrences
            where worker = $1 and due <= $3 order by due desc limit 1) newest
            where newest.through >= $2)",
        7,
        rows.collect(),
    )
    .expect(Expect::Exactly(passed.len() as u64))
}

pub(crate) async fn record_passed(
    db: &Database,
    worker: &WorkerName,
    passed: &[Passed],
    now: Time,
) -> Result<()> {
    let Some(last) = passed.iter().map(|p| p.last).max() else { return Ok(()) };
    let bump = Statement::new(
        "update ops.workers set last_due =
            case when last_due is null or last_due < $2 then $2 else last_due end
         where name = $1",
        values![worker, last],
    )
    .expect(Expect::Exactly(1));
    match db.apply(vec![bump, ledger(worker, passed, now)]).await {
        Ok(_) => Ok(()),
        Err(DbError::Unmet { index: 0, .. }) => Err(missing(worker)),
        Err(DbError::Unmet { .. } | DbError::Constraint { .. }) => {
            // The answer to the same request may have been lost.
            for p in passed {
                let row = db
                    .query_opt(
                        "select 1 from ops.occurrences where worker = $1 and due = $2
                            and through = $3 and fate = $4 and recorded_at = $5",
                        values![worker, p.first, p.last, p.fate.as_str(), now],
                    )
                    .await
                    .map_err(failed)?;
                row.ok_or_else(|| overlap(worker))?;
            }
            Ok(())
        }
        Err(other) => Err(failed(other)),
    }
}

/// Who holds the lease; `None` when it is free or expired. Its end is told in the caller's time.
async fn holder(db: &Database, r: &ClaimRequest) -> Result<Option<Claim>> {
    let sql = "select lease_owner, lease_expires_at - {now:$2} from ops.workers where name = $1";
    let row = db.query_opt(sql, values![&r.worker, r.now]).await.map_err(failed)?;
    let row = row.ok_or_else(|| missing(&r.worker))?;
    one("ops.workers", &row, |w| {
        Ok(match (w.row.opt_text(0)?, w.opt_millis(1)?) {
            (Some(owner), Some(left)) if left > Millis::ZERO => {
                Some(Claim::Held { owner: SessionId::from(owner), until: r.now + left })
            }
            _ => None,
        })
    })
}

fn granted(r: &ClaimRequest, attempt: Attempt, applied: &Applied) -> Result<Claim> {
    let cell = |part: Part, column: usize| {
        let at = attempt.place(part);
        at.and_then(|at| applied.rows[at].first()).map(|row| row.i64(column)).transpose()
    };
    let token = cell(Part::Lease, 0).map_err(failed)?.unwrap_or_default();
    let cycle = cell(Part::Cycle, 0).map_err(failed)?.unwrap_or_default();
    let attempts = match cell(Part::Window, 0).map_err(failed)? {
        Some(n) => n,
        None => cell(Part::Subscriber, 0).map_err(failed)?.unwrap_or(1),
    };
    let scope = attempt.place(Part::Window).and_then(|at| applied.rows[at].first());
    let input = match scope {
        Some(row) => CycleInput::Scope(one("ops.windows", row, |w| w.doc(1, "scope"))?),
        None => attempt.input,
    };
    Ok(Claim::Granted(Grant {
        token: Token(token),
        cycle: CycleId(cycle),
        cause: attempt.cause,
        attempt: u32::try_from(attempts).unwrap_or(u32::MAX),
        max_attempts: 0,
        input,
        expires_at: r.now + r.ttl,
    }))
}

pub(crate) async fn renew(
    db: &Database,
    id: &SessionId,
    ttl: Millis,
    now: Time,
) -> Result<Vec<WorkerName>> {
    let extend = Statement::new(
        "update ops.workers set lease_expires_at = {now:$2} + $3
         where name in (select name from ops.workers
            where lease_owner = $1 and lease_expires_at > {now:$2}
            order by name /*pg*/ for update /*end*/) returning name",
        values![session(id), now, ttl],
    );
    let applied = apply(db, vec![extend]).await?;
    let names = applied.rows.iter().flatten().map(|row| Ok(WorkerName::from(row.text(0)?)));
    let mut names = names.collect::<std::result::Result<Vec<_>, DbError>>().map_err(failed)?;
    names.sort_unstable();
    Ok(names)
}

pub(crate) async fn release(
    db: &Database,
    worker: &WorkerName,
    id: &SessionId,
    token: Token,
    now: Time,
) -> Result<()> {
    // A cycle that runs under the lease keeps it: only its end may release it.
    let give_back = Statement::new(
        "update ops.workers set lease_owner = null, lease_expires_at = null
         where name = $1 and lease_owner = $2 and lease_token = $3
            and lease_expires_at > {now:$4}
            and not exists (select 1 from ops.cycles c
                where c.worker = $1 and c.outcome = 'running' and c.token = $3)",
        values![worker, session(id), token.0, now],
    );
    apply(db, vec![give_back]).await.map(drop)
}
