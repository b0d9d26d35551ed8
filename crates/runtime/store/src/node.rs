//! Nodes: their signs of life, and what is closed on behalf of those that give none.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use watchbell_core::port::{
    NODE_LOST_AFTER, NodeAnswer, NodeBeat, NodeRecord, Result, SessionRecord, StoreError,
};
use watchbell_core::{Expect, SessionId, Statement, Time, Token, WorkerName, values};
use watchbell_db::{Database, DbError};

use crate::record::{all, failed, session};
use crate::session::{after_closing, take_back};
use crate::sql::{apply, is_shared};

/// The newest sign of life of this process. Where it is the only node, there is nobody to whom the
/// next one would say anything new, and it is not written.
#[derive(Debug, Default)]
pub(crate) struct Remembered(Mutex<Option<NodeBeat>>);

impl Remembered {
    fn is(&self, beat: &NodeBeat) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref() == Some(beat)
    }

    fn set(&self, beat: NodeBeat) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(beat);
    }
}

pub(crate) async fn beat(
    db: &Database,
    last: &Remembered,
    beat: NodeBeat,
    now: Time,
) -> Result<NodeAnswer> {
    if !is_shared(db) && last.is(&beat) {
        return Ok(NodeAnswer { store_now: now, lost: 0 });
    }
    let id = session(&beat.session);
    let own = Statement::new(
        "insert into ops.nodes (session, seen_at, ttl, skew, round_trip, api, profile)
         select session_id, {now:$2}, $3, $4, $5, $6, $7
         from ops.session_log where session_id = $1
         on conflict (session) do update set seen_at = excluded.seen_at, ttl = excluded.ttl,
            skew = excluded.skew, round_trip = excluded.round_trip, api = excluded.api,
            profile = excluded.profile
         returning seen_at",
        values![
            id.clone(),
            now,
            beat.ttl,
            beat.skew,
            beat.round_trip,
            beat.api.clone(),
            beat.profile.as_str()
        ],
    )
    .expect(Expect::Exactly(1));
    // A node that slept long enough to be given up is there again; what it held then is not.
    let back = Statement::new(
        "update ops.session_log set closed_at = null, note = 'heard of again after ' || note
         where session_id = $1 and closed_at is not null and note like 'lost:%'",
        values![id],
    );
    let silent = Statement::new(
        "update ops.session_log as s set closed_at = $1,
            note = 'lost: not heard of since ' || (select {utc:n.seen_at} from ops.nodes n
                where n.session = s.session_id)
         where closed_at is null and session_id in
            (select n.session from ops.nodes n where n.seen_at < {now:$1} - $2)",
        values![now, NODE_LOST_AFTER],
    );
    let applied = match db.apply(vec![own, back, silent]).await {
        Ok(applied) => applied,
        Err(DbError::Unmet { index: 0, .. }) => {
            let name = beat.session.to_string();
            return Err(StoreError::NotFound { what: "session", name });
        }
        Err(other) => return Err(failed(other)),
    };
    let store_now = applied.rows[0][0].time(0).map_err(failed)?;
    let lost = applied.changed[2];
    if lost > 0 {
        let mut list = take_back(now, "its node was lost");
        list.extend(after_closing(now));
        apply(db, list).await?;
    }
    last.set(beat);
    Ok(NodeAnswer { store_now, lost })
}

pub(crate) async fn list(db: &Database, now: Time) -> Result<Vec<NodeRecord>> {
    let snapshot = db.snapshot().await.map_err(failed)?;
    let leases = "select lease_owner, name, lease_token from ops.workers
        where lease_owner is not null and lease_expires_at > {now:$1} order by name";
    let leases = snapshot.query(leases, values![now]).await.map_err(failed)?;
    let mut holds = BTreeMap::<SessionId, Vec<(WorkerName, Token)>>::new();
    for (owner, lease) in all("ops.workers", &leases, |r| {
        let lease = (WorkerName::from(r.row.text(1)?), Token(r.row.i64(2)?));
        Ok((SessionId::from(r.row.text(0)?), lease))
    })? {
        holds.entry(owner).or_default().push(lease);
    }
    let jobs = "select lease_owner, count(*) from ops.jobs where lease_owner is not null
        group by lease_owner";
    let jobs = snapshot.query(jobs, vec![]).await.map_err(failed)?;
    let jobs: BTreeMap<SessionId, i64> =
        all("ops.jobs", &jobs, |r| Ok((SessionId::from(r.row.text(0)?), r.row.i64(1)?)))?
            .into_iter()
            .collect();
    let sql = "select s.session_id, s.app_name, s.app_version, s.host, s.pid, s.opened_at,
            s.closed_at, s.note, n.seen_at, n.skew, n.round_trip, n.api, coalesce(n.profile, ''),
            case when n.seen_at + n.ttl < {now:$1} then 1 else 0 end
        from ops.session_log s left join ops.nodes n on n.session = s.session_id
        where s.closed_at is null order by s.opened_at, s.session_id";
    let rows = snapshot.query(sql, values![now]).await.map_err(failed)?;
    let shared = is_shared(db);
    all("ops.session_log", &rows, |r| {
        let id = SessionId::from(r.row.text(0)?);
        Ok(NodeRecord {
            seen_at: r.row.opt_time(8)?.filter(|_| shared),
            overdue: shared && r.row.bool(13)?,
            skew: r.opt_millis(9)?,
            round_trip: r.opt_millis(10)?,
            api: r.opt_string(11)?,
            profile: r.string(12)?,
            holds: holds.get(&id).cloned().unwrap_or_default(),
            jobs: jobs.get(&id).copied().unwrap_or_default(),
            session: SessionRecord {
                id,
                app_name: r.string(1)?,
                app_version: r.string(2)?,
                host: r.string(3)?,
                pid: r.row.i64(4)?,
                opened_at: r.row.time(5)?,
                closed_at: r.row.opt_time(6)?,
                note: r.string(7)?,
            },
        })
    })
}
