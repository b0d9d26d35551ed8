//! The heartbeat rows: registration, desired and observed state, gates.

use std::collections::BTreeMap;

use serde_json::json;
use watchbell_core::gate::Gate;
use watchbell_core::lifecycle::{Desired, State};
use watchbell_core::port::{Beat, Registration, Result, StoreError, Transition, WorkerRecord};
use watchbell_core::{Expect, SessionId, Statement, Time, Token, Value, WorkerName, values};
use watchbell_db::{Database, DbError};

use crate::record::{ReadError, Reader, all, failed, json as doc, json_or_null, session};
use crate::sql::{apply, is_shared};
use crate::{event, queue};

pub(crate) async fn register(
    db: &Database,
    workers: &[Registration],
    now: Time,
) -> Result<Vec<WorkerRecord>> {
    // In one order everywhere, so that nodes that start together cannot block each other.
    let mut sorted: Vec<&Registration> = workers.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let rows = sorted.iter().flat_map(|w| {
        let unavailable = w.unavailable.clone();
        let (description, trigger) = (w.description.as_str(), w.trigger.as_str());
        values![&w.name, description, trigger, w.stale_after, unavailable, now]
    });
    let mut list = vec![Statement::bulk(
        "insert into ops.workers (name, description, trigger_text, stale_after, state,
            state_reason, state_since, registered_at)
         values ($1, $2, $3, $4,
            case when cast($5 as {text}) is null then 'STOPPED' else 'UNAVAILABLE' end, $5, $6, $6)
         on conflict (name) do update set description = excluded.description,
            trigger_text = excluded.trigger_text, stale_after = excluded.stale_after",
        6,
        rows.collect(),
    )];
    // What another node runs at this moment is available, whatever this one lacks.
    let states = sorted.iter().flat_map(|w| values![&w.name, w.unavailable.clone(), now]);
    list.push(Statement::bulk(
        "update ops.workers set state_reason = cast($2 as {text}),
            state = case when cast($2 as {text}) is null then 'STOPPED' else 'UNAVAILABLE' end
         where name = $1 and (lease_owner is null or lease_expires_at <= {now:$3})
            and (cast($2 as {text}) is not null or state = 'UNAVAILABLE')",
        3,
        states.collect(),
    ));
    for worker in &sorted {
        list.extend(queue::register_kinds(&worker.kinds, &worker.name, now)?);
    }
    let (on, off): (Vec<&Registration>, Vec<&Registration>) =
        sorted.into_iter().partition(|w| !w.subscribes.is_empty());
    list.push(Statement::bulk(
        "insert into ops.subscribers (worker, kinds, cursor)
         values ($1, $2, (select coalesce(max(id), 0) from ops.events))
         on conflict (worker) do update set kinds = excluded.kinds",
        2,
        on.iter().flat_map(|w| values![&w.name, doc(&w.subscribes)]).collect(),
    ));
    list.push(Statement::bulk(
        "delete from ops.subscribers where worker = $1",
        1,
        off.iter().flat_map(|w| values![&w.name]).collect(),
    ));
    apply(db, list).await?;
    let stored = self::list(db).await?.into_iter().map(|record| (record.name.clone(), record));
    let mut stored: BTreeMap<WorkerName, WorkerRecord> = stored.collect();
    workers.iter().map(|w| stored.remove(&w.name).ok_or_else(|| missing(&w.name))).collect()
}

pub(crate) fn missing(worker: &WorkerName) -> StoreError {
    StoreError::NotFound { what: "worker", name: worker.to_string() }
}

/// Runs a statement on one worker's row; no row means that there is no such worker.
async fn update(db: &Database, worker: &WorkerName, statement: Statement) -> Result<()> {
    match db.apply(vec![statement.expect(Expect::Exactly(1))]).await {
        Ok(_) => Ok(()),
        Err(DbError::Unmet { .. }) => Err(missing(worker)),
        Err(other) => Err(failed(other)),
    }
}

const COLUMNS: &str = "select name, description, trigger_text, state, desired, desired_by,
    desired_at, state_since, state_reason, last_started_at, last_completed_at, last_success_at,
    last_error_at, last_error, latency, consecutive_errors, total_runs, total_errors, summary,
    stale_after, next_due, last_due, lease_owner, lease_token, lease_expires_at, blocked,
    blocked_since, restarts, registered_at
    from ops.workers order by name";

pub(crate) async fn list(db: &Database) -> Result<Vec<WorkerRecord>> {
    let rows = db.query(COLUMNS, vec![]).await.map_err(failed)?;
    all("ops.workers", &rows, read)
}

fn read(r: Reader<'_>) -> std::result::Result<WorkerRecord, ReadError> {
    let row = r.row;
    Ok(WorkerRecord {
        name: WorkerName::from(row.text(0)?),
        description: r.string(1)?,
        trigger: r.string(2)?,
        state: r.word(3, "worker state", State::parse)?,
        desired: r.word(4, "desired state", Desired::parse)?,
        desired_by: r.opt_string(5)?,
        desired_at: row.opt_time(6)?,
        state_since: row.opt_time(7)?,
        state_reason: r.opt_string(8)?,
        last_started_at: row.opt_time(9)?,
        last_completed_at: row.opt_time(10)?,
        last_success_at: row.opt_time(11)?,
        last_error_at: row.opt_time(12)?,
        last_error: r.opt_string(13)?,
        latency: r.opt_millis(14)?,
        consecutive_errors: row.i64(15)?,
        total_runs: row.i64(16)?,
        total_errors: row.i64(17)?,
        summary: r.json_or_null(18)?,
        stale_after: r.opt_millis(19)?,
        next_due: row.opt_time(20)?,
        last_due: row.opt_time(21)?,
        lease_owner: row.opt_text(22)?.map(SessionId::from),
        lease_token: Token(row.i64(23)?),
        lease_expires_at: row.opt_time(24)?,
        blocked: r.opt_doc(25, "gate")?,
        blocked_since: row.opt_time(26)?,
        restarts: r.json_or_null(27)?,
        registered_at: Some(row.time(28)?),
    })
}

pub(crate) async fn set_desired(
    db: &Database,
    worker: &WorkerName,
    desired: Desired,
    by: &str,
    now: Time,
) -> Result<()> {
    let sql = "update ops.workers set desired = $2, desired_by = $3, desired_at = $4
        where name = $1";
    update(db, worker, Statement::new(sql, values![worker, desired.as_str(), by, now])).await
}

/// Whether the transition `$1` to `$6` (worker, from, to, reason, at, session) is not written yet:
/// one whose answer was lost is told again.
macro_rules! if_new {
    ($statement:literal) => {
        concat!(
            $statement,
            " not exists (select 1 from ops.transitions t where t.worker = $1 and t.at = $5
                and t.from_state = $2 and t.to_state = $3 and t.reason = $4 and t.session = $6)"
        )
    };
}

pub(crate) async fn transition(db: &Database, transitions: Vec<Transition>) -> Result<()> {
    let (mut rows, mut states, mut events) = (Vec::new(), Vec::new(), Vec::new());
    let shared = is_shared(db);
    for t in transitions {
        let payload = json!({
            "from": t.from, "to": t.to, "reason": t.reason, "session": t.session,
        });
        let (from, to) = (t.from.as_str(), t.to.as_str());
        let row = values![&t.worker, from, to, t.reason, t.at, session(&t.session)];
        events.extend(row.iter().cloned().chain([doc(&payload)]));
        states.extend(row.iter().cloned().chain([Value::from(shared)]));
        rows.extend(row);
    }
    let list = vec![
        event::in_order(),
        Statement::bulk(
            if_new!(
                "insert into ops.events (kind, key, at, payload)
                 select 'worker.state', cast($1 as {text}), cast($5 as {i64}),
                    cast($7 as {json}) where"
            ),
            7,
            events,
        ),
        // A node that leaves says nothing of a worker that others go on with.
        Statement::bulk(
            if_new!(
                "update ops.workers set state = $3, state_reason = $4, state_since = $5
                 where name = $1
                    and ($7 = 0 or desired <> 'RUNNING' or $3 not in ('SHUTTING_DOWN', 'STOPPED')
                        or not exists (select 1 from ops.nodes n
                            where n.session <> $6 and {now:$5} - n.seen_at < n.ttl)) and"
            ),
            7,
            states,
        ),
        Statement::bulk(
            if_new!(
                "insert into ops.transitions (worker, from_state, to_state, reason, at, session)
                 select $1, $2, $3, $4, $5, $6 where"
            ),
            6,
            rows,
        ),
    ];
    apply(db, list).await.map(drop)
}

pub(crate) async fn transitions(
    db: &Database,
    worker: &WorkerName,
    limit: u32,
) -> Result<Vec<Transition>> {
    let sql = "select worker, from_state, to_state, reason, at, session from ops.transitions
        where worker = $1 order by id desc limit $2";
    let rows = db.query(sql, values![worker, limit]).await.map_err(failed)?;
    all("ops.transitions", &rows, |r| {
        Ok(Transition {
            worker: WorkerName::from(r.row.text(0)?),
            from: r.word(1, "worker state", State::parse)?,
            to: r.word(2, "worker state", State::parse)?,
            reason: r.string(3)?,
            at: r.row.time(4)?,
            session: SessionId::from(r.row.text(5)?),
        })
    })
}

pub(crate) async fn set_blocked(
    db: &Database,
    worker: &WorkerName,
    gate: Option<Gate>,
    now: Time,
) -> Result<()> {
    // The tag of the gate's own JSON: the one name of its kind.
    let kind = gate.as_ref().and_then(|g| {
        let gate = serde_json::to_value(g).ok()?;
        Some(gate.get("kind")?.as_str()?.to_owned())
    });
    let gate = gate.as_ref().map_or(Value::Null, doc);
    let sql = "update ops.workers set blocked = $2, blocked_kind = $3,
        blocked_since = case when cast($3 as {text}) is null then null
            when blocked_kind = $3 then blocked_since else $4 end
        where name = $1";
    update(db, worker, Statement::new(sql, values![worker, gate, kind, now])).await
}

pub(crate) async fn save_restarts(
    db: &Database,
    worker: &WorkerName,
    restarts: serde_json::Value,
) -> Result<()> {
    let sql = "update ops.workers set restarts = $2 where name = $1";
    update(db, worker, Statement::new(sql, values![worker, json_or_null(&restarts)])).await
}

pub(crate) async fn beat(db: &Database, beats: Vec<Beat>) -> Result<()> {
    let rows = beats.iter().flat_map(|b| {
        let (started, completed) = (b.last_started_at, b.last_completed_at);
        let summary = b.last_success_at.map_or(Value::Null, |_| json_or_null(&b.summary));
        let (error_at, error) = match &b.last_error {
            Some((at, error)) => (Some(*at), Some(error.as_str())),
            None => (None, None),
        };
        values![
            &b.worker,
            b.runs,
            started,
            completed,
            b.latency,
            summary,
            b.next_due,
            b.errors,
            b.failing,
            b.last_success_at,
            error_at,
            error
        ]
    });
    let list = vec![Statement::bulk(
        "update ops.workers set total_runs = total_runs + $2, last_started_at = $3,
            last_completed_at = $4, latency = $5,
            summary = case when cast($10 as bigint) is null then summary else $6 end,
            next_due = $7, total_errors = total_errors + $8,
            consecutive_errors = $9
                + case when cast($10 as bigint) is null then consecutive_errors else 0 end,
            last_success_at = coalesce($10, last_success_at),
            last_error_at = coalesce($11, last_error_at), last_error = coalesce($12, last_error)
         where name = $1",
        12,
        rows.collect(),
    )];
    apply(db, list).await.map(drop)
}
