//! Leases due jobs.
//!
//! The common claim is one statement: it takes the first ready rows of an index and returns them.
//! Twice a second it makes those ready before which come due next; since that is done well ahead of
//! their time, the first of the ready is the first of all. Then, and whenever it finds fewer than
//! it was asked for, it also looks around: are leases over, when will there be more?

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use watchbell_core::job::Kind;
use watchbell_core::port::{Grant, JobBatch, JobClaim, Result};
use watchbell_core::{Cause, CycleId, CycleInput, Millis, Statement, Time, Token, Value, values};
use watchbell_db::{Applied, Database, Row};

use super::enqueue::{LEAD, lead};
use super::{Known, limits, reclaim};
use crate::record::{failed, one, session};
use crate::sql::{apply, is_shared};

/// How often a busy claim looks around.
const UPKEEP: Millis = Millis(500);

/// Jobs made ready in one statement.
const STAGED: i64 = 2_000;

/// How often one claim looks again, each time after it found something to do.
const LOOKS: usize = 16;

/// A job that is due later is heard of so long before, in time to be made ready.
const AHEAD: Millis = Millis(1_000);

/// What other claimers have locked is theirs in a moment, or free again.
const MOMENT: Millis = Millis(5);

/// When this process last looked around, by kind.
#[derive(Debug, Default)]
pub(super) struct Upkeep(Mutex<HashMap<String, Time>>);

impl Upkeep {
    fn is_due(&self, kinds: &[String], now: Time) -> bool {
        let done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.iter().any(|kind| done.get(kind).is_none_or(|at| now < *at || now - *at >= UPKEEP))
    }

    fn done(&self, kinds: &[String], now: Time) {
        let mut done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for kind in kinds {
            match done.get_mut(kind) {
                Some(at) => *at = now,
                None => drop(done.insert(kind.clone(), now)),
            }
        }
    }
}

/// How long a claim may begin behind what is done instead of at the first job.
const TRUSTED: Millis = Millis(250);

/// Jobs that must have been taken one after the other before that is worth anything.
const MANY: usize = 5_000;

/// Where the jobs begin that are still to be done, by kind, while very many are done at a stretch.
///
/// PostgreSQL keeps the index entries of what is done until the table is vacuumed, and until no
/// transaction is left that could see them. A claim that began at the first entry would pass over
/// all of them: the longer the stretch, the longer each claim. So within a long stretch only four
/// claims a second begin there, and find what came to stand before the others meanwhile.
#[derive(Debug, Default)]
pub(super) struct Done(Mutex<HashMap<String, Stretch>>);

/// Negative priority, time and number of a job.
type Place = (i64, i64, i64);

#[derive(Debug)]
struct Stretch {
    /// Jobs taken by claims that got as many as they wanted.
    full: usize,
    last: Place,
    /// When a claim began at the first job.
    since: Time,
}

impl Done {
    fn book(&self) -> MutexGuard<'_, HashMap<String, Stretch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Behind which job a claim may begin.
    fn place(&self, kind: &str, now: Time) -> Option<Place> {
        let mut book = self.book();
        let stretch = book.get_mut(kind).filter(|stretch| stretch.full >= MANY)?;
        if now >= stretch.since && now - stretch.since < TRUSTED {
            return Some(stretch.last);
        }
        // This claim begins at the first job, and those beside it need not.
        stretch.since = now;
        None
    }

    /// A claim took so many jobs up to that one; `None` where there were not as many as it wanted.
    fn taken(&self, kind: &str, last: Option<(usize, Place)>, now: Time) {
        let mut book = self.book();
        let Some((count, last)) = last else {
            book.remove(kind);
            return;
        };
        match book.get_mut(kind) {
            Some(stretch) => {
                stretch.full += count;
                stretch.last = stretch.last.max(last);
            }
            None => drop(book.insert(kind.to_owned(), Stretch { full: count, last, since: now })),
        }
    }

    /// Jobs came to stand before others, or may have.
    pub(super) fn forget(&self) {
        self.book().clear();
    }
}

/// The change that leases a job: `$2` now, `$3` worker, `$4` session, `$5` for how long.
macro_rules! lease {
    () => {
        "update ops.jobs set state = 'running', attempts = attempts + 1, token = token + 1,
            worker = $3, lease_owner = $4, started_at = {now:$2},
            lease_expires_at = {now:$2} + $5, percent = null, message = null
         where /*pg*/ id = any(array( /*end*/ /*sqlite*/ id in ( /*end*/ "
    };
}
/// The end of that statement, after the numbers of the jobs.
macro_rules! leased {
    () => {
        " /*pg*/ ) /*end*/ )
         returning id, kind, payload, attempts, max_attempts, token, priority, run_at"
    };
}
/// The order of jobs, as the index has it.
macro_rules! in_order {
    () => {
        "order by /*sqlite*/ priority desc /*end*/ /*pg*/ - priority /*end*/, run_at, id"
    };
}
/// What a claim may take of kind `$n`, with `$2` now.
macro_rules! due {
    ($n:literal) => {
        concat!("kind = $", $n, " and state = 'queued' and ready = 1 and run_at <= {now:$2}")
    };
}
pub(super) use {due, in_order, lease, leased};

/// Of one kind, `$1`, at most `$6`.
const TAKE: &str = concat!(
    lease!(),
    "select id from ops.jobs where ",
    due!(1),
    " ",
    in_order!(),
    " limit $6 /*pg*/ for update skip locked /*end*/",
    leased!()
);

/// The same on PostgreSQL, behind the job of negative priority `$7`, time `$8` and number `$9`.
const TAKE_BEHIND: &str = concat!(
    lease!(),
    "select id from ops.jobs where ",
    due!(1),
    " and (- priority, run_at, id) > ($7, $8, $9) ",
    in_order!(),
    " limit $6 /*pg*/ for update skip locked /*end*/",
    leased!()
);

/// Of one kind, `$1`, at most `$6`, and no job after one of priority `$7` that is due at `$8`.
const TAKE_BEFORE: &str = concat!(
    lease!(),
    "select id from ops.jobs where ",
    due!(1),
    " and (priority > $7 or (priority = $7 and run_at <= $8)) ",
    in_order!(),
    " limit $6 /*pg*/ for update skip locked /*end*/",
    leased!()
);

/// Of several kinds as if they were one: the first of the first of each. `$1` is the first kind,
/// the others follow `$6`.
fn take_of_several(count: usize) -> String {
    let heads = (0..count).map(|n| {
        let place = if n == 0 { 1 } else { 6 + n };
        format!(
            "select * from (select id, priority, run_at from ops.jobs
                where kind = ${place} and state = 'queued' and ready = 1 and run_at <= {{now:$2}}
                {} limit $6 /*pg*/ for update skip locked /*end*/) k{n}",
            in_order!()
        )
    });
    let heads = heads.collect::<Vec<_>>().join(" union all ");
    format!(
        "{}select id from ({heads}) heads order by priority desc, run_at, id limit $6{}",
        lease!(),
        leased!()
    )
}

/// Parameters `$1` to `$6` of a take.
pub(super) fn params(claim: &JobClaim, kind: &str, most: u32) -> Vec<Value> {
    values![kind, claim.now, &claim.worker, session(&claim.session), claim.ttl, most]
}

/// What a claim must count before it leases a job of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limited {
    No,
    Whole,
    PerKey,
}

impl Limited {
    fn of(kind: &Kind) -> Self {
        match kind.per_key {
            Some(_) => Self::PerKey,
            None if kind.is_limited() => Self::Whole,
            None => Self::No,
        }
    }
}

/// The last job of a kind that may be taken before one of another kind: its priority and time.
type Bound = (i64, Time);
/// Lets everything pass.
const NO_BOUND: Bound = (-1, Time::FAR_FUTURE);

pub(super) async fn claim(db: &Database, known: &Known, claim: JobClaim) -> Result<JobBatch> {
    let mut batch = JobBatch::default();
    if claim.kinds.is_empty() || claim.most == 0 {
        return Ok(batch);
    }
    let mut limited = Vec::with_capacity(claim.kinds.len());
    for kind in &claim.kinds {
        let found = known.kinds.get(db, kind, claim.now).await?;
        limited.push(found.map_or(Limited::No, |known| Limited::of(&known.kind)));
    }
    let is_free = limited.iter().all(|limited| *limited == Limited::No);
    let mut rows = Vec::new();
    let mut upkeep = known.upkeep.is_due(&claim.kinds, claim.now);
    for _ in 0..LOOKS {
        // What came due since the last time may be the first of all.
        let before = if upkeep { make_ready(&claim) } else { Vec::new() };
        take(db, known, &claim, &limited, before, &mut rows).await?;
        let short = rows.len() < claim.most as usize;
        // What it has can begin at once; whether there is more is asked by the next claim. Where a
        // limit kept jobs away, only a look around tells until when.
        let at_once = !short || (is_free && !rows.is_empty());
        if !std::mem::take(&mut upkeep) && at_once {
            batch.next = Some(claim.now);
            break;
        }
        let seen = Look::around(db, &claim, &limited).await?;
        if !seen.unready {
            known.upkeep.done(&claim.kinds, claim.now);
        }
        batch.next = seen.next;
        if seen.expired {
            let back = reclaim::of_kinds(db, &claim.kinds, claim.now).await?;
            known.done.forget();
            batch.reclaimed += back.queued;
            batch.buried += back.buried;
        }
        upkeep = seen.unready;
        if !short || !(seen.expired || seen.unready) {
            break;
        }
        // Should there be more to do than one claim does.
        batch.next = Some(claim.now);
    }
    if rows.len() >= claim.most as usize {
        batch.next = None;
    }
    batch.grants = granted(&claim, &rows)?;
    Ok(batch)
}

/// Leases what is due and free, up to what `claim` still wants, after the statements `list`.
async fn take(
    db: &Database,
    known: &Known,
    claim: &JobClaim,
    limited: &[Limited],
    mut list: Vec<Statement>,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let open = |rows: &Vec<Row>| claim.most - u32::try_from(rows.len()).unwrap_or(claim.most);
    let [first, others @ ..] = claim.kinds.as_slice() else { return Ok(()) };
    if limited.iter().all(|limited| *limited == Limited::No) {
        let mut params = params(claim, first, open(rows));
        let behind = known.done.place(first, claim.now).filter(|_| list.is_empty());
        list.push(match behind {
            _ if !others.is_empty() => {
                params.extend(others.iter().map(|k| Value::from(k.as_str())));
                Statement::new(take_of_several(claim.kinds.len()), params)
            }
            Some((priority, run_at, id)) => {
                params.extend(values![priority, run_at, id]);
                Statement::new(TAKE_BEHIND, params)
            }
            None => Statement::new(TAKE, params),
        });
        let wanted = open(rows) as usize;
        let mut taken = lease_soon(db, list).await?.rows.pop().unwrap_or_default();
        if is_shared(db) && others.is_empty() {
            let places = taken
                .iter()
                .filter_map(|r| Some((-r.i64(6).ok()?, r.i64(7).ok()?, r.i64(0).ok()?)));
            let last = places.max().filter(|_| taken.len() == wanted);
            known.done.taken(first, last.map(|last| (wanted, last)), claim.now);
        }
        let again = behind.is_some() && taken.len() < wanted;
        rows.append(&mut taken);
        // What was passed over is asked for after all.
        return if again {
            Box::pin(self::take(db, known, claim, limited, Vec::new(), rows)).await
        } else {
            Ok(())
        };
    }
    if !list.is_empty() {
        apply(db, list).await?;
    }
    // Each kind takes its turn up to where another one's turn is, until nothing comes any more.
    let mut left: Vec<(&str, Limited)> =
        claim.kinds.iter().map(String::as_str).zip(limited.iter().copied()).collect();
    while open(rows) > 0 && !left.is_empty() {
        let (turn, bound) = match left.as_slice() {
            [_] => (0, NO_BOUND),
            _ => match turn(db, claim, &left).await? {
                Some(found) => found,
                None => return Ok(()),
            },
        };
        let (kind, limited) = left[turn];
        let mut taken = if limited == Limited::No {
            let mut params = params(claim, kind, open(rows));
            params.extend(values![bound.0, bound.1]);
            lease_soon(db, vec![Statement::new(TAKE_BEFORE, params)]).await?.rows.remove(0)
        } else {
            let per_key = limited == Limited::PerKey;
            limits::take(db, claim, kind, per_key, open(rows), bound).await?
        };
        if taken.is_empty() {
            left.remove(turn);
        }
        rows.append(&mut taken);
    }
    Ok(())
}

/// Runs a list that leases jobs, without waiting for the disk: a lease that a crash of the machine
/// or the server undoes leaves its job queued. Should it be leased again while its first holder
/// lives, then under the same token: to another session, which refuses the end of the first; or to
/// the same one, which knows that it holds it (see
/// [`Queue::claim_jobs`](watchbell_core::port::Queue::claim_jobs)).
async fn lease_soon(db: &Database, list: Vec<Statement>) -> Result<Applied> {
    db.apply_unsynced(list).await.map_err(failed)
}

/// Which of some kinds has the first due job, and up to where it may go on before another one.
async fn turn(
    db: &Database,
    claim: &JobClaim,
    left: &[(&str, Limited)],
) -> Result<Option<(usize, Bound)>> {
    const HEAD: &str = concat!(
        "select priority, run_at, id from ops.jobs where ",
        due!(1),
        " ",
        in_order!(),
        " limit 1"
    );
    let mut heads = Vec::with_capacity(left.len());
    for (n, (kind, _)) in left.iter().enumerate() {
        let row = db.query_opt(HEAD, values![*kind, claim.now]).await.map_err(failed)?;
        if let Some(row) = row {
            let head = one("ops.jobs", &row, |r| {
                Ok((Reverse(r.row.i64(0)?), r.row.time(1)?, r.row.i64(2)?))
            })?;
            heads.push((head, n));
        }
    }
    heads.sort_unstable();
    let bound = heads.get(1).map_or(NO_BOUND, |((priority, run_at, _), _)| (priority.0, *run_at));
    Ok(heads.first().map(|(_, n)| (*n, bound)))
}

fn granted(claim: &JobClaim, rows: &[Row]) -> Result<Vec<Grant>> {
    let mut grants = Vec::with_capacity(rows.len());
    for row in rows {
        grants.push(one("ops.jobs", row, |r| {
            let id = r.row.i64(0)?;
            let grant = Grant {
                token: Token(r.row.i64(5)?),
                cycle: CycleId(0),
                cause: Cause::Job { id },
                attempt: r.count(3)?,
                max_attempts: r.count(4)?,
                input: CycleInput::Job { kind: r.string(1)?, payload: r.row.json(2)? },
                expires_at: claim.now + claim.ttl,
            };
            Ok(((Reverse(r.row.i64(6)?), r.row.time(7)?, id), grant))
        })?);
    }
    grants.sort_unstable_by_key(|(order, _)| *order);
    Ok(grants.into_iter().map(|(_, grant)| grant).collect())
}

/// What a claim sees around it.
#[derive(Debug, Default)]
struct Look {
    /// Leases of its kinds are over.
    expired: bool,
    /// Jobs of its kinds come due soon, or are, and are not ready.
    unready: bool,
    /// When something may be there that is not now.
    next: Option<Time>,
}

impl Look {
    /// Of kind `$1`, for the session `$3`: now, the first time of those that are not ready, whether
    /// leases are over, when another's lease will be, the first time of those that are ready, and
    /// from when the rate allows another.
    const SQL: &str = "select {now:$2},
        (select min(run_at) from ops.jobs where kind = $1 and state = 'queued' and ready = 0),
        (select case when exists (select 1 from ops.jobs
            where kind = $1 and state = 'running' and lease_expires_at <= {now:$2})
            then 1 else 0 end),
        (select lease_expires_at from ops.jobs
            where kind = $1 and state = 'running' and lease_owner <> $3
            order by lease_expires_at limit 1),
        case when exists (select 1 from ops.jobs
                where kind = $1 and state = 'queued' and ready = 1 and run_at <= {now:$2})
            then {now:$2}
            else (select min(run_at) from ops.jobs
                where kind = $1 and state = 'queued' and ready = 1) end,
        (select (rate_used - (rate_count - 1) * rate_step + 999) / 1000
            from ops.job_kinds where kind = $1)";

    async fn around(db: &Database, claim: &JobClaim, limited: &[Limited]) -> Result<Self> {
        let mut look = Self::default();
        for (kind, limited) in claim.kinds.iter().zip(limited) {
            let params = values![kind.as_str(), claim.now, session(&claim.session)];
            let row = db.query_one(Self::SQL, params).await.map_err(failed)?;
            let at = |column: usize| row.opt_time(column).map_err(failed);
            let now = row.time(0).map_err(failed)?;
            let waiting = at(1)?;
            look.expired |= row.bool(2).map_err(failed)?;
            look.unready |= waiting.is_some_and(|at| at <= now + LEAD);
            look.hear(waiting.map(|at| at - AHEAD));
            look.hear(at(3)?);
            match at(4)? {
                // Due, and yet not taken: the rate, or who ends a job, says when.
                Some(ready) if ready <= now && *limited != Limited::No => {
                    look.hear(at(5)?.filter(|at| *at > now));
                }
                Some(ready) if ready <= now => look.hear(Some(now + MOMENT)),
                later => look.hear(later),
            }
        }
        Ok(look)
    }

    fn hear(&mut self, at: Option<Time>) {
        self.next = match (self.next, at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

/// Makes jobs ready whose time comes soon, the next ones first.
fn make_ready(claim: &JobClaim) -> Vec<Statement> {
    const SQL: &str = concat!(
        "update ops.jobs set ready = 1
         where /*pg*/ id = any(array( /*end*/ /*sqlite*/ id in ( /*end*/
            select id from ops.jobs where kind = $1 and state = 'queued' and ready = 0
                and run_at <= {now:$2} + ",
        lead!(),
        " order by run_at limit $3 /*pg*/ for update skip locked) /*end*/ )"
    );
    let kinds = claim.kinds.iter();
    kinds.map(|k| Statement::new(SQL, values![k.as_str(), claim.now, STAGED])).collect()
}
