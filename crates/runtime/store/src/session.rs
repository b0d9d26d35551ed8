//! Boots of nodes, and what is taken back when one ends.

use watchbell_core::port::{Recovered, Result, SessionRecord, StoreError};
use watchbell_core::{Expect, SessionId, Statement, Time, job, values};
use watchbell_db::{Database, DbError, SCHEMAS};

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
    apply(db, vec![log, flags]).await.map(drop)
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
            "update ops.session_flags set is_open = 0, updated_at = $2
             where opened_by = $1 and is_open = 1",
            ours.clone(),
        ),
        Statement::new(
            "update ops.workers set lease_expires_at = $2 where lease_owner = $1",
            ours.clone(),
        ),
        Statement::new(
            "update ops.jobs set lease_expires_at = $2
             where lease_owner = $1 and state = 'running'",
            ours,
        ),
    ];
    list.extend(take_back(now, "its node stopped"));
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
                "update ops.session_flags set is_open = 0, updated_at = $2
                 where is_open = 1 and opened_by <> $1",
                others.clone(),
            ),
            Statement::new(
                "update ops.workers set lease_expires_at = $2 where lease_owner <> $1",
                others.clone(),
            ),
            Statement::new(
                "update ops.jobs set lease_expires_at = $2
                 where state = 'running' and lease_owner <> $1",
                others,
            ),
            Statement::new(
                "update ops.workers set state = 'STOPPED', state_since = $1,
                    state_reason = 'its node died'
                 where state in ('INITIALIZING', 'RUNNING', 'PAUSED', 'SHUTTING_DOWN')
                    and (lease_owner is null or lease_expires_at <= $1)",
                values![now],
            ),
        ]);
    }
    let first = list.len();
    list.extend(take_back(now, "its node died"));
    let changed = apply(db, list).await?.changed;
    Ok(Recovered {
        sessions: if exclusive { changed[0] } else { 0 },
        cycles: changed[first],
        windows: changed[first + 1],
        jobs: changed[first + 2],
    })
}

/// Takes back what expired leases hold: cycles, windows, jobs, and the leases themselves.
pub(crate) fn take_back(now: Time, why: &str) -> [Statement; 4] {
    [
        Statement::new(
            "update ops.cycles as c set outcome = 'lost', finished_at = $1, error = $2
             where outcome = 'running'
                and not exists (select 1 from ops.workers w where w.name = c.worker
                    and w.lease_token = c.token and w.lease_owner = c.session
                    and w.lease_expires_at > $1)
                and c.id not in (select j.cycle from ops.jobs j where j.state = 'running'
                    and j.cycle is not null and j.lease_expires_at > $1)",
            values![now, why],
        ),
        Statement::new(
            "update ops.windows as w set state = 'ready'
             where state = 'running' and not exists
                (select 1 from ops.cycles c where c.id = w.cycle and c.outcome = 'running')",
            values![],
        ),
        Statement::new(
            "update ops.jobs set attempts = attempts - 1, reclaims = reclaims + 1, run_at = $1,
                state = case when reclaims + 1 < $2 then 'queued' else 'failed' end,
                finished_at = case when reclaims + 1 < $2 then null else $1 end,
                error = case when reclaims + 1 < $2 then error
                    else (reclaims + 1) || ' holders died while they worked on it' end,
                lease_owner = null, lease_token = null, lease_expires_at = null
             where state = 'running' and lease_expires_at <= $1",
            values![now, job::MAX_RECLAIMS],
        ),
        Statement::new(
            "update ops.workers set lease_owner = null, lease_expires_at = null
             where lease_expires_at <= $1",
            values![now],
        ),
    ]
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
