//! Events, the cursors of their subscribers, and dead letters.

use watchbell_core::port::{DeadLetter, EventQuery, Result, StoreError, SubscriberRecord};
use watchbell_core::{CycleId, EventRecord, Expect, NewEvent, Statement, Time, WorkerName, values};
use watchbell_db::{Database, DbError};

use crate::record::{ReadError, Reader, all, failed, json, one};
use crate::sql::{apply, kinds};

/// A subscriber whose cursor lies this many events behind, none of them for it, is moved on: so
/// that it neither reads them again and again nor keeps them from being pruned.
const IDLE_GAP: i64 = 256;

/// The first statement of every list that inserts events. Readers follow events by their numbers,
/// so a number must not become visible after a higher one: where transactions run side by side,
/// those that emit take turns from here to their commit. And since each takes this turn before any
/// row, no two of them can wait for each other.
pub(crate) fn in_order() -> Statement {
    Statement::new(
        "/*pg*/ select 1 from pg_advisory_xact_lock(8386658473162859876) /*end*/",
        vec![],
    )
}

pub(crate) async fn emit(db: &Database, events: Vec<NewEvent>, now: Time) -> Result<Vec<i64>> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let events = events.into_iter().map(|e| {
        // A duplicate changes nothing, but tells the number of the first.
        let sql = "insert into ops.events (at, kind, key, dedupe, payload)
            values ($1, $2, $3, $4, $5)
            on conflict (dedupe) where dedupe is not null
                do update set dedupe = excluded.dedupe returning id";
        Statement::new(sql, values![now, e.kind, e.key, e.dedupe, json(&e.payload)])
            .expect(Expect::Exactly(1))
    });
    let applied = apply(db, [in_order()].into_iter().chain(events).collect()).await?;
    applied.rows[1..].iter().map(|rows| rows[0].i64(0).map_err(failed)).collect()
}

fn read(r: Reader<'_>) -> std::result::Result<EventRecord, ReadError> {
    Ok(EventRecord {
        id: r.row.i64(0)?,
        at: r.row.time(1)?,
        kind: r.string(2)?,
        key: r.string(3)?,
        payload: r.row.json(4)?,
        cycle: r.row.opt_i64(5)?.map(CycleId),
    })
}

pub(crate) async fn list(db: &Database, query: EventQuery) -> Result<Vec<EventRecord>> {
    let mut params = values![query.after.unwrap_or(0), query.limit];
    let wanted = kinds(&query.kinds, &mut params);
    let order = if query.after.is_some() { "asc" } else { "desc" };
    let sql = format!(
        "select id, at, kind, key, payload, cycle from ops.events
         where id > $1 and {wanted} order by id {order} limit $2"
    );
    let rows = db.query(sql, params).await.map_err(failed)?;
    let mut events = all("ops.events", &rows, read)?;
    if query.after.is_none() {
        events.reverse();
    }
    Ok(events)
}

pub(crate) async fn subscribers(db: &Database) -> Result<Vec<SubscriberRecord>> {
    let sql = "select worker, kinds, cursor, attempts, next_attempt_at from ops.subscribers
        order by worker";
    let rows = db.query(sql, vec![]).await.map_err(failed)?;
    all("ops.subscribers", &rows, subscriber)
}

fn subscriber(r: Reader<'_>) -> std::result::Result<SubscriberRecord, ReadError> {
    Ok(SubscriberRecord {
        worker: WorkerName::from(r.row.text(0)?),
        kinds: r.doc(1, "list of event kinds")?,
        cursor: r.row.i64(2)?,
        attempts: r.count(3)?,
        next_attempt_at: r.row.opt_time(4)?,
    })
}

/// What a subscriber should do now.
pub(crate) enum Next {
    /// Deal with this event; its cursor stands there.
    Due { event: EventRecord, cursor: i64 },
    /// Wait, until then if that is known.
    Wait(Option<Time>),
}

/// The next event of a subscriber.
pub(crate) async fn next(db: &Database, worker: &WorkerName, now: Time) -> Result<Next> {
    let sql = "select worker, kinds, cursor, attempts, next_attempt_at,
            (select coalesce(max(id), 0) from ops.events)
        from ops.subscribers where worker = $1";
    let row = db.query_opt(sql, values![worker]).await.map_err(failed)?;
    let row = row.ok_or_else(|| StoreError::NotFound {
        what: "subscription of worker",
        name: worker.to_string(),
    })?;
    let place = one("ops.subscribers", &row, subscriber)?;
    let newest = row.i64(5).map_err(failed)?;
    if place.next_attempt_at.is_some_and(|at| at > now) {
        return Ok(Next::Wait(place.next_attempt_at));
    }
    if newest <= place.cursor {
        return Ok(Next::Wait(None));
    }
    let mut params = values![place.cursor, worker];
    let wanted = kinds(&place.kinds, &mut params);
    let sql = format!(
        "select id, at, kind, key, payload, cycle from ops.events
         where id > $1 and (only_for is null or only_for = $2) and {wanted} order by id limit 1"
    );
    if let Some(row) = db.query_opt(sql, params).await.map_err(failed)? {
        return Ok(Next::Due { event: one("ops.events", &row, read)?, cursor: place.cursor });
    }
    // `newest` was read before the search, so whatever it numbers was searched.
    if newest - place.cursor >= IDLE_GAP {
        let skip = "update ops.subscribers set cursor = $3 where worker = $1 and cursor = $2";
        apply(db, vec![Statement::new(skip, values![worker, place.cursor, newest])]).await?;
    }
    Ok(Next::Wait(None))
}

pub(crate) async fn dead_letters(db: &Database, limit: u32) -> Result<Vec<DeadLetter>> {
    let sql = "select event_id, event_at, kind, key, payload, cycle, id, worker, reason, at,
            redriven_at
        from ops.dead_letters order by id desc limit $1";
    let rows = db.query(sql, values![limit]).await.map_err(failed)?;
    all("ops.dead_letters", &rows, |r| {
        Ok(DeadLetter {
            id: r.row.i64(6)?,
            worker: WorkerName::from(r.row.text(7)?),
            event: read(r)?,
            reason: r.string(8)?,
            at: r.row.time(9)?,
            redriven_at: r.row.opt_time(10)?,
        })
    })
}

/// Gives a dead letter back, and says of which kind its event is.
pub(crate) async fn redrive(db: &Database, id: i64, now: Time) -> Result<String> {
    let list = vec![
        in_order(),
        Statement::new(
            "update ops.dead_letters set redriven_at = $2 where id = $1 and redriven_at is null",
            values![id, now],
        )
        .expect(Expect::Exactly(1)),
        Statement::new(
            "insert into ops.events (at, kind, key, payload, cycle, only_for)
             select $2, kind, key, payload, cycle, worker from ops.dead_letters where id = $1
             returning kind",
            values![id, now],
        )
        .expect(Expect::Exactly(1)),
    ];
    match db.apply(list).await {
        Ok(applied) => Ok(applied.rows[2][0].text(0).map_err(failed)?.to_owned()),
        Err(DbError::Unmet { .. }) => {
            let sql = "select redriven_at from ops.dead_letters where id = $1";
            let row = db.query_opt(sql, values![id]).await.map_err(failed)?;
            let at = row.map(|r| r.time(0)).transpose().map_err(failed)?;
            Err(at.map_or_else(
                || StoreError::NotFound { what: "dead letter", name: id.to_string() },
                |at| StoreError::Conflict(format!("dead letter {id} was given back at {at}")),
            ))
        }
        Err(other) => Err(failed(other)),
    }
}
