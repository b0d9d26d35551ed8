//! Boots of nodes, and what is taken back when one ends.

use watchbell_core::port::{NODE_LOST_AFTER, Recovered, Result, SessionRecord, StoreError};
use watchbell_core::{Expect, SessionId, Statement, Time, values};
use watchbell_db::{Database, DbError, SCHEMAS};

use crate::queue;
use crate::record::{all, failed, session};
use crate::sql::apply;

pub(crate) async fn open(db: &Database, record: SessionRecord) -> Result<()> {
    let id = session(&record.id);
    let log = Statement::new(
        "insert into ops.session_log
            (session_id, app_name, app_version, host, pid, opened_at, closed_at, note)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        values![
            id.clone(),
            record.app_name,
            record.app_version,
            record.host,
            record.pid,
            record.opened_at,
            record.closed_at,
            record.note
        ],
    );
    let flags = SCHEMAS.iter().flat_map(|name| values![*name, record.opened_at, id.clone()]);
    let flags = Statement::bulk(
        "insert into ops.session_flags (schema_name, is_open, opened_at, opened_by, updated_at)
         values ($1, 1, $2, $3, $2)
         on conflict (schema_name) do update set is_open = 1, opened_at = excluded.opened_at,
            opened_by = excluded.opened_by, updated_at = excluded.updated_at",
        3,
        flags.collect(),
    );
    let node = Statement::new(
        "insert into ops.nodes (session, seen_at, ttl, profile) values ($1, {now:$2}, $3, '')",
        values![id, record.opened_at, NODE_LOST_AFTER],
    );
    apply(db, vec![log, flags, node]).await.map(drop)
}

/// What goes with sessions that were closed: their nodes, and the schemas that no open one uses. A
/// schema stays in use while any session is open, and is then said to be opened by the newest.
pub(crate) fn after_closing(now: Time) -> [Statement; 2] {
    [
        Statement::new(
            "delete from ops.nodes where session in
                (select session_id from ops.session_log where closed_at is not null)",
            values![],
        ),
        Statement::new(
            "update ops.session_flags set updated_at = $1,
                is_open = (select count(*) from (select 1 from ops.session_log
                    where closed_at is null limit 1) o),
                opened_by = coalesce((select session_id from ops.session_log
                    where closed_at is null order by opened_at desc, session_id limit 1), opened_by)
             where is_open = 1 and opened_by in
                (select session_id from ops.session_log where closed_at is not null)",
            values![now],
        ),
    ]
}

pub(crate) async fn close(db: &Database, id: &SessionId, note: &str, now: Time) -> Result<()> {
    let ours = values![session(id), now];
    let mut list = vec![
        Statement::new(
            "update ops.session_log set closed_at = $2, note = $3 where session_id = $1",
            values![session(id), now, note],
        )
        .expect(Expect::Exactly(1)),
        Statement::new(
            "update ops.workers set lease_expires_at = {now:$2}
             where name in (select name from ops.workers where lease_owner = $1
                order by name /*pg*/ for update /*end*/)",
            ours.clone(),
        ),
        Statement::new(
            "update ops.jobs set lease_expires_at = {now:$2}
             where state = 'running' and id in (select id from ops.jobs
                where state = 'running' and lease_owner = $1 order by id /*pg*/ for update /*end*/)",
            ours,
        ),
    ];
    list.extend(take_back(now, "its node stopped"));
    list.extend(after_closing(now));
    match db.apply(list).await {
        Ok(_) => Ok(()),
        Err(DbError::Unmet { index: 0, .. }) => {
            Err(StoreError::NotFound { what: "session", name: id.to_string() })
        }
        Err(other) => Err(failed(other)),
    }
}

pub(crate) async fn recover(
    db: &Database,
    id: &SessionId,
    exclusive: bool,
    now: Time,
) -> Result<Recovered> {
    let others = values![session(id), now];
    let mut list = Vec::new();
    if exclusive {
        list.extend([
            Statement::new(
                "update ops.session_log set closed_at = $2, note = 'ended without a word'
                 where closed_at is null and session_id <> $1",
                others.clone(),
            ),
            Statement::new(
                "update ops.workers set lease_expires_at = {now:$2} where lease_owner <> $1",
                others.clone(),
            ),
            Statement::new(
                "update ops.jobs set lease_expires_at = {now:$2}
                 where state = 'running' and lease_owner <> $1",
                others,
            ),
            Statement::new(
                "update ops.workers set state = 'STOPPED', state_since = $1,
                    state_reason = 'its node died'
                 where state in ('INITIALIZING', 'RUNNING', 'PAUSED', 'SHUTTING_DOWN')
                    and (lease_owner is null or lease_expires_at <= {now:$1})",
                values![now],
            ),
        ]);
        list.extend(after_closing(now));
    }
    let first = list.len();
    list.extend(take_back(now, "its node died"));
    let changed = apply(db, list).await?.changed;
    Ok(Recovered {
        sessions: if exclusive { changed[0] } else { 0 },
        cycles: changed[first + 1],
        windows: changed[first + 2],
        jobs: changed[first + 3 + queue::MARKED],
    })
}

/// Takes back what expired leases hold: first the leases themselves, so that no holder can renew
/// meanwhile, then the cycles, windows and jobs that nobody holds any more.
pub(crate) fn take_back(now: Time, why: &str) -> Vec<Statement> {
    let mut list = vec![
        Statement::new(
            "update ops.workers set lease_owner = null, lease_expires_at = null
             where name in (select name from ops.workers where lease_expires_at <= {now:$1}
                order by name /*pg*/ for update skip locked /*end*/)",
            values![now],
        ),
        Statement::new(
            "update ops.cycles as c set outcome = 'lost', finished_at = $1, error = $2
             where outcome = 'running'
                and not exists (select 1 from ops.workers w where w.name = c.worker
                    and w.lease_token = c.token and w.lease_owner = c.session)",
            values![now, why],
        ),
        Statement::new(
            "update ops.windows as w set state = 'ready'
             where state = 'running' and not exists
                (select 1 from ops.cycles c where c.id = w.cycle and c.outcome = 'running')",
            values![],
        ),
    ];
    list.extend(queue::take_back(None, now, why));
    list
}

pub(crate) async fn list(db: &Database, limit: u32) -> Result<Vec<SessionRecord>> {
    let rows = db
        .query(
            "select session_id, app_name, app_version, host, pid, opened_at, closed_at, note
             from ops.session_log order by opened_at desc, session_id desc limit $1",
            values![limit],
        )
        .await
        .map_err(failed)?;
    all("ops.session_log", &rows, |r| {
        Ok(SessionRecord {
            id: SessionId::from(r.row.text(0)?),
            app_name: r.string(1)?,
            app_version: r.string(2)?,
            host: r.string(3)?,
            pid: r.row.i64(4)?,
            opened_at: r.row.time(5)?,
            closed_at: r.row.opt_time(6)?,
            note: r.string(7)?,
        })
    })
}
