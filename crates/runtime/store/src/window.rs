//! Windows, the covers that they wait for, and backfills.

use std::collections::BTreeMap;

use watchbell_core::port::{
    BackfillRecord, CycleEnd, FollowUp, Frontier, Publication, Result, SeriesSummary, StoreError,
    WindowChange, WindowQuery, WindowRecord,
};
use watchbell_core::window::{Change, InputWindow, State};
use watchbell_core::{
    Cover, CycleId, Expect, SeriesName, Statement, Time, Value, WindowHashes, values,
};
use watchbell_db::{Database, DbError};

use crate::event;
use crate::record::{ReadError, Reader, all, failed, one};
use crate::sql::apply;

const COLUMNS: &str = "select series, start_at, end_at, version, state, attempts,
    coalesce(error, correction), next_attempt_at, scope, inputs_hash, result_hash, source, cycle,
    started_at, finished_at from ops.windows w";

/// The kind of the event that a window is to be computed again.
pub(crate) const CORRECTED: &str = "window.corrected";

/// The kind of the event that a person gave a window up; of a cycle that did, too.
pub(crate) const ABANDONED: &str = "window.abandoned";

/// The kind of the event that a person had a window tried again.
pub(crate) const RETRIED: &str = "window.retried";

/// Whether no later version exists. Later versions are few, and have an index of their own.
const NEWEST: &str = "not exists (select 1 from ops.windows n where n.series = w.series
    and n.start_at = w.start_at and n.version > w.version and n.version > 1)";

fn read(r: Reader<'_>) -> std::result::Result<WindowRecord, ReadError> {
    let row = r.row;
    let hashes = match (row.opt_text(9)?, row.opt_text(10)?, row.opt_text(11)?) {
        (Some(inputs), Some(result), Some(source)) => Some(WindowHashes {
            inputs: inputs.to_owned(),
            result: result.to_owned(),
            source: source.to_owned(),
        }),
        _ => None,
    };
    Ok(WindowRecord {
        series: SeriesName::from(row.text(0)?),
        start: row.time(1)?,
        end: row.time(2)?,
        version: row.i64(3)?,
        state: r.word(4, "window state", State::parse)?,
        attempts: r.count(5)?,
        reason: r.opt_string(6)?,
        next_attempt_at: row.opt_time(7)?,
        scope: r.opt_doc(8, "list of keys")?.unwrap_or_default(),
        hashes,
        cycle: row.opt_i64(12)?.map(CycleId),
        started_at: row.opt_time(13)?,
        finished_at: row.opt_time(14)?,
    })
}

/// How a cycle's end changes its window.
pub(crate) fn end(
    series: &SeriesName,
    start: Time,
    version: i64,
    p: &Publication,
    end: &CycleEnd,
) -> Result<Statement> {
    let window = values![series, start, version, p.cycle.0];
    let (sql, more) = match (&end.follow_up, &end.window) {
        (FollowUp::Finish, Some(hashes)) => (
            "update ops.windows set state = 'complete', inputs_hash = $5, result_hash = $6,
                source = $7, finished_at = $8, error = null, next_attempt_at = null
             where series = $1 and start_at = $2 and version = $3 and cycle = $4
                and state = 'running'",
            values![hashes.inputs.as_str(), hashes.result.as_str(), hashes.source.as_str(), p.now],
        ),
        (FollowUp::Finish, None) => {
            return Err(StoreError::Conflict(format!(
                "window {series} {start} cannot complete without its hashes"
            )));
        }
        (FollowUp::Retry { at }, _) => (
            "update ops.windows set state = 'failed', error = $5, next_attempt_at = $6
             where series = $1 and start_at = $2 and version = $3 and cycle = $4
                and state = 'running'",
            values![end.error.clone(), *at],
        ),
        (FollowUp::Again { at }, _) => (
            "update ops.windows set state = 'ready', attempts = attempts - 1, error = $5,
                next_attempt_at = $6
             where series = $1 and start_at = $2 and version = $3 and cycle = $4
                and state = 'running'",
            values![end.error.clone(), *at],
        ),
        (FollowUp::GiveUp { reason } | FollowUp::Cancel { reason }, _) => (
            "update ops.windows set state = 'abandoned', error = $5, finished_at = $6
             where series = $1 and start_at = $2 and version = $3 and cycle = $4
                and state = 'running'",
            values![reason.as_str(), p.now],
        ),
    };
    Ok(Statement::new(sql, [window, more].concat()))
}

pub(crate) async fn frontier(
    db: &Database,
    series: &SeriesName,
    from: Time,
    to: Time,
) -> Result<Frontier> {
    // An earlier version is final before a later one is opened, so an unfinished row is the newest.
    // Both in one statement: the answer is of one moment, and costs one round trip. SQLite has to be
    // told which index holds the few unfinished ones: the range of instants looks better to it, and
    // would lead through every window of the series.
    let sql = format!(
        "select w.*, newest.start_at from (select max(start_at) as start_at from ops.windows
            where series = $1 and start_at >= $2 and start_at < $3) newest
         left join ({COLUMNS} /*sqlite*/ indexed by windows_unfinished /*end*/
            where series = $1 and start_at >= $2 and start_at < $3
                and state in ('open', 'ready', 'running', 'failed')
            order by start_at, version desc limit 1) w on 1 = 1"
    );
    let row = db.query_one(sql, values![series, from, to]).await.map_err(failed)?;
    let unfinished = match row.opt_text(0).map_err(failed)? {
        Some(_) => Some(one("ops.windows", &row, read)?),
        None => None,
    };
    Ok(Frontier { unfinished, last: row.opt_time(15).map_err(failed)? })
}

pub(crate) async fn list(db: &Database, query: WindowQuery) -> Result<Vec<WindowRecord>> {
    let mut params = values![query.limit];
    let mut sql = format!("{COLUMNS} where {}", if query.all_versions { "1 = 1" } else { NEWEST });
    let state = query.state.map(|s| Value::from(s.as_str()));
    for (condition, wanted) in [
        ("series =", query.series.as_ref().map(Value::from)),
        ("state =", state),
        ("start_at >=", query.from.map(Value::from)),
        ("start_at <", query.to.map(Value::from)),
    ] {
        if let Some(wanted) = wanted {
            params.push(wanted);
            sql.push_str(&format!(" and {condition} ${}", params.len()));
        }
    }
    sql.push_str(" order by start_at desc, series, version desc limit $1");
    let rows = db.query(sql, params).await.map_err(failed)?;
    all("ops.windows", &rows, read)
}

/// Windows of one series follow each other: of those that begin before `from`, only the last can
/// reach beyond it, so nothing older is looked at.
pub(crate) async fn over(
    db: &Database,
    series: &SeriesName,
    from: Time,
    to: Time,
) -> Result<Vec<InputWindow>> {
    let sql = format!(
        "select start_at, end_at, state from ops.windows w
         where series = $1 and start_at < $3 and end_at > $2 and {NEWEST}
            and start_at >= coalesce((select max(start_at) from ops.windows
                where series = $1 and start_at <= $2), $2)
         order by start_at"
    );
    let rows = db.query(sql, values![series, from, to]).await.map_err(failed)?;
    all("ops.windows", &rows, |r| {
        let state = r.word(2, "window state", State::parse)?;
        Ok(InputWindow { start: r.row.time(0)?, end: r.row.time(1)?, state })
    })
}

pub(crate) async fn versions(
    db: &Database,
    series: &SeriesName,
    start: Time,
) -> Result<Vec<WindowRecord>> {
    let sql = format!("{COLUMNS} where series = $1 and start_at = $2 order by version");
    let rows = db.query(sql, values![series, start]).await.map_err(failed)?;
    all("ops.windows", &rows, read)
}

pub(crate) async fn series(db: &Database) -> Result<BTreeMap<SeriesName, SeriesSummary>> {
    let sql = format!(
        "select series, state, count(*), min(start_at), max(start_at) from ops.windows w
         where {NEWEST} group by series, state"
    );
    let rows = db.query(sql, vec![]).await.map_err(failed)?;
    let groups = all("ops.windows", &rows, |r| {
        let state = r.word(1, "window state", State::parse)?;
        let name = SeriesName::from(r.row.text(0)?);
        Ok((name, state, r.row.i64(2)?, r.row.time(3)?, r.row.time(4)?))
    })?;
    let mut summaries = BTreeMap::<SeriesName, SeriesSummary>::new();
    for (name, state, count, first, last) in groups {
        let summary = summaries.entry(name).or_default();
        summary.counts.insert(state, count);
        summary.first = Some(summary.first.map_or(first, |known| known.min(first)));
        if state == State::Complete {
            summary.newest_complete = Some(last);
        }
    }
    Ok(summaries)
}

pub(crate) async fn correct(
    db: &Database,
    series: &SeriesName,
    start: Time,
    reason: &str,
    now: Time,
) -> Result<WindowRecord> {
    let Some(newest) = versions(db, series, start).await?.pop() else {
        let name = format!("{series} {start}");
        return Err(StoreError::NotFound { what: "window", name });
    };
    let open = Statement::new(
        "insert into ops.windows (series, start_at, version, end_at, state, correction)
         select series, start_at, version + 1, end_at, 'open', $4 from ops.windows
         where series = $1 and start_at = $2 and version = $3
            and state in ('complete', 'abandoned')",
        values![series, start, newest.version, reason],
    )
    .expect(Expect::Exactly(1));
    // Whoever follows the windows should hear that one of them will change its answer.
    let payload = serde_json::json!({
        "series": series, "start": start, "version": newest.version + 1, "reason": reason,
    });
    let event = Statement::new(
        "insert into ops.events (at, kind, key, payload) values ($1, $2, $3, $4)",
        values![now, CORRECTED, series, payload.to_string()],
    );
    match db.apply(vec![event::in_order(), open, event]).await {
        Ok(_) => {}
        Err(DbError::Unmet { .. }) => {
            return Err(StoreError::Conflict(format!(
                "window {series} {start} is {}: only a complete or abandoned one is corrected",
                newest.state
            )));
        }
        Err(error) if error.is_unique_violation() => {
            return Err(StoreError::Conflict(format!(
                "another correction of window {series} {start} was opened just now"
            )));
        }
        Err(other) => return Err(failed(other)),
    }
    let opened = versions(db, series, start).await?.pop();
    opened.ok_or_else(|| StoreError::NotFound { what: "window", name: series.to_string() })
}

/// A person's change. Nobody holds a lease for it: what fences it is that the row must be as it was
/// when the change was decided.
pub(crate) async fn change(db: &Database, change: WindowChange, now: Time) -> Result<WindowRecord> {
    let WindowChange { series, start, end, seen, change, by, reason } = change;
    let said = |done: &str| match &reason {
        Some(reason) => format!("{done} by {by}: {reason}"),
        None => format!("{done} by {by}"),
    };
    let (retried, abandoned) = (said("retried"), said("abandoned"));
    let (version, state, attempts) =
        seen.as_ref().map_or((1, State::Open, 0), |w| (w.version, w.state, w.attempts));
    let window = values![&series, start, version];
    let as_seen = values![state.as_str(), attempts];
    let (kind, sql, params) = match (change, &seen) {
        (Change::Hasten, _) => (
            RETRIED,
            "update ops.windows set state = 'ready', next_attempt_at = null
             where series = $1 and start_at = $2 and version = $3 and state = $4 and attempts = $5
                and state in ('ready', 'failed')",
            [window, as_seen].concat(),
        ),
        (Change::Renew, _) => (
            RETRIED,
            "insert into ops.windows (series, start_at, version, end_at, state, correction)
             select series, start_at, version + 1, end_at, 'open', $6 from ops.windows w
             where series = $1 and start_at = $2 and version = $3 and state = $4 and attempts = $5
                and state = 'abandoned' and not exists (select 1 from ops.windows n
                    where n.series = $1 and n.start_at = $2 and n.version > $3)",
            [window, as_seen, values![retried.as_str()]].concat(),
        ),
        (Change::GiveUp, Some(_)) => (
            ABANDONED,
            "update ops.windows set state = 'abandoned', error = $6, next_attempt_at = null,
                finished_at = $7
             where series = $1 and start_at = $2 and version = $3 and state = $4 and attempts = $5
                and state in ('open', 'ready', 'failed')",
            [window, as_seen, values![abandoned.as_str(), now]].concat(),
        ),
        (Change::GiveUp, None) => (
            ABANDONED,
            "insert into ops.windows
                (series, start_at, version, end_at, state, error, finished_at)
             values ($1, $2, $3, $4, 'abandoned', $5, $6)
             on conflict (series, start_at, version) do nothing",
            [window, values![end, abandoned.as_str(), now]].concat(),
        ),
    };
    let version = version + i64::from(change == Change::Renew);
    let payload = serde_json::json!({
        "series": series, "start": start, "version": version, "was": state, "by": by,
        "reason": if kind == RETRIED { &retried } else { &abandoned },
    });
    let event = Statement::new(
        "insert into ops.events (at, kind, key, payload) values ($1, $2, $3, $4)",
        values![now, kind, format!("{series}/{start}"), payload.to_string()],
    );
    let act = Statement::new(sql, params).expect(Expect::Exactly(1));
    let changed = || {
        StoreError::Conflict(format!("window {series} {start} has changed meanwhile: look again"))
    };
    match db.apply(vec![event::in_order(), act, event]).await {
        Ok(_) => {}
        Err(DbError::Unmet { .. }) => return Err(changed()),
        Err(error) if error.is_unique_violation() => return Err(changed()),
        Err(other) => return Err(failed(other)),
    }
    let newest = versions(db, &series, start).await?.pop();
    newest.ok_or_else(|| StoreError::NotFound { what: "window", name: series.to_string() })
}

/// Adds covers, joined with those that they touch: first the joined interval, then without what it
/// swallowed.
pub(crate) fn cover(covers: &[Cover]) -> Vec<Statement> {
    let rows: Vec<Value> = covers
        .iter()
        .filter(|c| c.from < c.to)
        .flat_map(|c| values![c.source.as_str(), c.key.as_str(), c.from, c.to])
        .collect();
    if rows.is_empty() {
        return Vec::new();
    }
    vec![
        Statement::bulk(
            "insert into ops.covers (source, key, from_at, to_at)
             select $1, $2,
                coalesce(min(case when from_at < $3 then from_at else $3 end), $3),
                coalesce(max(case when to_at > $4 then to_at else $4 end), $4)
             from ops.covers
             where source = $1 and key = $2 and from_at <= $4 and to_at >= $3
             on conflict (source, key, from_at) do update set to_at = excluded.to_at",
            4,
            rows.clone(),
        ),
        Statement::bulk(
            "delete from ops.covers as c
             where source = $1 and key = $2 and from_at <= $4 and to_at >= $3
                and exists (select 1 from ops.covers m where m.source = c.source
                    and m.key = c.key and m.from_at < c.from_at and m.to_at >= c.to_at)",
            4,
            rows,
        ),
    ]
}

pub(crate) async fn covers(db: &Database, source: &str) -> Result<BTreeMap<String, Vec<Cover>>> {
    let sql = "select key, from_at, to_at from ops.covers where source = $1
        order by key, from_at";
    let rows = db.query(sql, values![source]).await.map_err(failed)?;
    let covers = all("ops.covers", &rows, |r| {
        let (source, key) = (source.to_owned(), r.string(0)?);
        Ok(Cover { source, key, from: r.row.time(1)?, to: r.row.time(2)? })
    })?;
    let mut by_key = BTreeMap::<String, Vec<Cover>>::new();
    for cover in covers {
        by_key.entry(cover.key.clone()).or_default().push(cover);
    }
    Ok(by_key)
}

const BACKFILL: &str =
    "id, series, from_at, to_at, cursor_at, requested_by, requested_at, finished_at";

fn backfill(r: Reader<'_>) -> std::result::Result<BackfillRecord, ReadError> {
    Ok(BackfillRecord {
        id: r.row.i64(0)?,
        series: SeriesName::from(r.row.text(1)?),
        from: r.row.time(2)?,
        to: r.row.time(3)?,
        cursor: r.row.time(4)?,
        requested_by: r.string(5)?,
        requested_at: r.row.time(6)?,
        finished_at: r.row.opt_time(7)?,
    })
}

pub(crate) async fn request_backfill(
    db: &Database,
    series: &SeriesName,
    from: Time,
    to: Time,
    by: &str,
    now: Time,
) -> Result<BackfillRecord> {
    if from >= to {
        return Err(StoreError::Conflict(format!(
            "a backfill of {series} from {from} to {to} is empty"
        )));
    }
    // What lies left of the old cursor is finished, so only a new beginning moves it back.
    let widen = Statement::new(
        format!(
            "update ops.backfills set to_at = case when to_at < $3 then $3 else to_at end,
                cursor_at = case when $2 < from_at then $2 else cursor_at end,
                from_at = case when $2 < from_at then $2 else from_at end
             where id = (select id from ops.backfills where series = $1 and finished_at is null
                and from_at <= $3 and to_at >= $2 order by id limit 1)
             returning {BACKFILL}"
        ),
        values![series, from, to],
    );
    let add = Statement::new(
        format!(
            "insert into ops.backfills
                (series, from_at, to_at, cursor_at, requested_by, requested_at)
             select $1, $2, $3, $2, $4, $5
             where not exists (select 1 from ops.backfills where series = $1
                and finished_at is null and from_at <= $3 and to_at >= $2)
             returning {BACKFILL}"
        ),
        values![series, from, to, by, now],
    );
    let applied = apply(db, vec![widen, add]).await?;
    let row = applied.rows.iter().flatten().next();
    let row = row.ok_or_else(|| {
        StoreError::Conflict(format!("the backfills of {series} changed meanwhile: ask again"))
    })?;
    one("ops.backfills", row, backfill)
}

pub(crate) async fn advance_backfill(
    db: &Database,
    id: i64,
    cursor: Time,
    now: Time,
) -> Result<()> {
    let advance = Statement::new(
        "update ops.backfills set cursor_at = $2,
            finished_at = case when $2 >= to_at then coalesce(finished_at, $3) end
         where id = $1",
        values![id, cursor, now],
    );
    match db.apply(vec![advance.expect(Expect::Exactly(1))]).await {
        Ok(_) => Ok(()),
        Err(DbError::Unmet { .. }) => {
            Err(StoreError::NotFound { what: "backfill", name: id.to_string() })
        }
        Err(other) => Err(failed(other)),
    }
}

pub(crate) async fn backfills(db: &Database, unfinished: bool) -> Result<Vec<BackfillRecord>> {
    let only = if unfinished { "where finished_at is null" } else { "" };
    let sql = format!("select {BACKFILL} from ops.backfills {only} order by id desc");
    let rows = db.query(sql, vec![]).await.map_err(failed)?;
    all("ops.backfills", &rows, backfill)
}
