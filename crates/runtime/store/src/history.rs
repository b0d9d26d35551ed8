//! What happened and what is set: cycles, the ledger, conditions, artifacts, settings; and how old
//! history goes.

use watchbell_core::commit::Condition;
use watchbell_core::port::{
    ArtifactRecord, CycleRecord, OccurrenceRecord, Outcome, Pruned, Result, Retention,
};
use watchbell_core::{CycleId, Millis, SessionId, Statement, Time, Token, WorkerName, values};
use watchbell_db::Database;

use crate::queue;
use crate::record::{all, failed};
use crate::sql::{apply, is_shared};

pub(crate) async fn cycles(
    db: &Database,
    worker: Option<&WorkerName>,
    limit: u32,
) -> Result<Vec<CycleRecord>> {
    const COLUMNS: &str = "select id, worker, detail, token, session, attempt, started_at,
        finished_at, outcome, error, summary from ops.cycles";
    let found = match worker {
        Some(name) => {
            let sql = format!("{COLUMNS} where worker = $1 order by id desc limit $2");
            db.query(sql, values![name, limit]).await
        }
        None => db.query(format!("{COLUMNS} order by id desc limit $1"), values![limit]).await,
    };
    all("ops.cycles", &found.map_err(failed)?, |r| {
        Ok(CycleRecord {
            id: CycleId(r.row.i64(0)?),
            worker: WorkerName::from(r.row.text(1)?),
            cause: r.doc(2, "cause")?,
            token: Token(r.row.i64(3)?),
            session: SessionId::from(r.row.text(4)?),
            attempt: r.count(5)?,
            started_at: r.row.time(6)?,
            finished_at: r.row.opt_time(7)?,
            outcome: r.word(8, "outcome", Outcome::parse)?,
            error: r.opt_string(9)?,
            summary: r.json_or_null(10)?,
        })
    })
}

pub(crate) async fn occurrences(
    db: &Database,
    worker: &WorkerName,
    limit: u32,
) -> Result<Vec<OccurrenceRecord>> {
    let sql = "select worker, due, through, count, fate, cycle, recorded_at, reason
        from ops.occurrences
        where worker = $1 order by due desc limit $2";
    let rows = db.query(sql, values![worker, limit]).await.map_err(failed)?;
    all("ops.occurrences", &rows, |r| {
        Ok(OccurrenceRecord {
            worker: WorkerName::from(r.row.text(0)?),
            due: r.row.time(1)?,
            through: r.row.time(2)?,
            count: r.row.i64(3)?,
            fate: r.string(4)?,
            cycle: r.row.opt_i64(5)?.map(CycleId),
            recorded_at: r.row.time(6)?,
            reason: r.opt_string(7)?,
        })
    })
}

pub(crate) async fn conditions(db: &Database) -> Result<Vec<(Condition, Time)>> {
    let sql = "select name, met, detail, until_at, changed_at from ops.conditions order by name";
    let rows = db.query(sql, vec![]).await.map_err(failed)?;
    all("ops.conditions", &rows, |r| {
        let condition = Condition {
            name: r.string(0)?,
            met: r.row.bool(1)?,
            detail: r.string(2)?,
            until: r.row.opt_time(3)?,
        };
        Ok((condition, r.row.time(4)?))
    })
}

pub(crate) async fn artifacts(db: &Database, limit: u32) -> Result<Vec<ArtifactRecord>> {
    let sql = "select name, path, manifest_sha256, bytes, files, published_at, expires_at
        from ops.artifacts order by id desc limit $1";
    let rows = db.query(sql, values![limit]).await.map_err(failed)?;
    all("ops.artifacts", &rows, |r| {
        Ok(ArtifactRecord {
            name: r.string(0)?,
            path: r.string(1)?,
            manifest_sha256: r.string(2)?,
            bytes: r.row.i64(3)?,
            files: r.row.i64(4)?,
            published_at: r.row.time(5)?,
            expires_at: r.row.opt_time(6)?,
        })
    })
}

pub(crate) async fn setting(db: &Database, key: &str) -> Result<Option<serde_json::Value>> {
    let sql = "select value from ops.settings where key = $1";
    let row = db.query_opt(sql, values![key]).await.map_err(failed)?;
    row.map(|r| r.json(0)).transpose().map_err(failed)
}

pub(crate) async fn set_setting(
    db: &Database,
    key: &str,
    value: serde_json::Value,
    now: Time,
) -> Result<()> {
    let set = Statement::new(
        "insert into ops.settings (key, value, updated_at) values ($1, $2, $3)
         on conflict (key) do update set value = excluded.value, updated_at = excluded.updated_at",
        values![key, value.to_string(), now],
    );
    apply(db, vec![set]).await.map(drop)
}

pub(crate) async fn prune(
    db: &Database,
    keep: Retention,
    max_rows: u32,
    now: Time,
) -> Result<Pruned> {
    let before = |kept: Millis| values![now - kept, max_rows];
    let mut list = vec![
        Statement::new(
            "delete from ops.cycles where id in (select id from ops.cycles
                where finished_at < $1 order by id limit $2)",
            before(keep.cycles),
        ),
        Statement::new(
            "delete from ops.transitions where id in (select id from ops.transitions
                where at < $1 order by id limit $2)",
            before(keep.cycles),
        ),
        Statement::new(
            "delete from ops.occurrences where (worker, due) in (
                select worker, due from ops.occurrences o where through < $1
                    and due < (select max(due) from ops.occurrences n where n.worker = o.worker)
                order by due limit $2)",
            before(keep.occurrences),
        ),
        Statement::new(
            "delete from ops.events where id in (select id from ops.events
                where at < $1
                    and id <= (select coalesce(min(cursor), 9223372036854775807)
                        from ops.subscribers)
                order by id limit $2)",
            before(keep.events),
        ),
    ];
    let expired = expired(db, max_rows, now).await?;
    list.extend(expired.iter().map(|path| {
        Statement::new("delete from ops.artifacts where path = $1", values![path.as_str()])
    }));
    list.extend(queue::prune(now - keep.jobs, max_rows, is_shared(db)));
    let changed = apply(db, list).await?.changed;
    Ok(Pruned {
        artifacts: expired,
        cycles: changed[0],
        occurrences: changed[2],
        events: changed[3],
        jobs: changed[changed.len() - 1],
    })
}

/// Artifacts whose time is over and that a newer one of their name has followed.
async fn expired(db: &Database, max_rows: u32, now: Time) -> Result<Vec<String>> {
    let sql = "select path from ops.artifacts a where expires_at <= $1
            and id < (select max(id) from ops.artifacts n where n.name = a.name)
        order by id limit $2";
    let rows = db.query(sql, values![now, max_rows]).await.map_err(failed)?;
    all("ops.artifacts", &rows, |r| r.string(0))
}
