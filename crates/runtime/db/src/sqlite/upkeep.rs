//! Migrations, checks and backups on a SQLite file.

use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::OpenFlags;
use rusqlite::backup::StepResult;
use watchbell_core::{Statement, Time, values};

use super::connection::{APPLICATION_ID, Connection};
use crate::database::{Backup, Check, Description};
use crate::dialect;
use crate::error::DbError;
use crate::migrate::{History, Line, Step, plan};

const HISTORY: &str = "create table if not exists ops.migrations (
    line {text} not null, number {i64} not null, name {text} not null, checksum {text} not null,
    applied_at {i64} not null, primary key (line, number)) /*sqlite*/ strict /*end*/";

fn history(c: &mut Connection<'_>) -> Result<History, DbError> {
    let there =
        c.query(&Cow::Borrowed("select 1 from sqlite_schema where name = 'ops_migrations'"), &[])?;
    if there.is_empty() {
        return Ok(History::new());
    }
    c.query(&Cow::Borrowed("select line, number, checksum from ops.migrations"), &[])?
        .iter()
        .map(|row| {
            // A number that is no u32 was not written by us; the largest makes it "newer".
            let number = u32::try_from(row.i64(1)?).unwrap_or(u32::MAX);
            Ok(((row.text(0)?.to_owned(), number), row.text(2)?.to_owned()))
        })
        .collect()
}

pub(crate) fn pending(c: &mut Connection<'_>, lines: &[Line]) -> Result<Vec<Step>, DbError> {
    let todo = plan(lines, &history(c)?)?;
    Ok(todo
        .into_iter()
        .map(|(l, m)| Step { line: l.name, number: m.number, name: m.name })
        .collect())
}

/// Applies one migration after another. The history is read again under the write lock each time:
/// of two processes, one does the work and the other finds it done.
pub(crate) fn migrate(
    c: &mut Connection<'_>,
    lines: &[Line],
    now: Time,
) -> Result<Vec<Step>, DbError> {
    let mut done = Vec::new();
    loop {
        if pending(c, lines)?.is_empty() {
            return Ok(done);
        }
        c.control("begin immediate")?;
        let step = next(c, lines, now).and_then(|step| c.control("commit").map(|()| step));
        match step {
            Ok(step) => done.extend(step),
            Err(error) => {
                c.rollback()?;
                return Err(error);
            }
        }
    }
}

fn next(c: &mut Connection<'_>, lines: &[Line], now: Time) -> Result<Option<Step>, DbError> {
    c.execute(0, &Statement::new(HISTORY, Vec::new()))?;
    let history = history(c)?;
    let todo = plan(lines, &history)?;
    let Some((line, migration)) = todo.first() else { return Ok(None) };
    c.raw.execute_batch(&dialect::to_sqlite(migration.sql)).map_err(|e| {
        match c.opener.engine(&e) {
            DbError::CannotOpen { detail, .. } => DbError::MigrationFailed {
                line: line.name.to_owned(),
                number: migration.number,
                name: migration.name.to_owned(),
                detail,
            },
            of_the_file => of_the_file,
        }
    })?;
    let record = "insert into ops.migrations(line, number, name, checksum, applied_at)
        values ($1, $2, $3, $4, $5)";
    let checksum = migration.checksum();
    let params = values![line.name, migration.number, migration.name, checksum, now];
    c.execute(0, &Statement::new(record, params))?;
    Ok(Some(Step { line: line.name, number: migration.number, name: migration.name }))
}

pub(crate) fn describe(
    c: &mut Connection<'_>,
    synchronous: &'static str,
) -> Result<Description, DbError> {
    let mut number = |sql: &'static str| {
        let row = c.query_one(&Cow::Borrowed(sql), &[])?;
        Ok::<_, DbError>(row.i64(0)?.unsigned_abs())
    };
    let (page_size, pages, free_pages) = (
        number("pragma page_size")?,
        number("pragma page_count")?,
        number("pragma freelist_count")?,
    );
    let mode = c.query_one(&Cow::Borrowed("pragma journal_mode"), &[])?;
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
    Ok(Description {
        engine: "sqlite",
        version: rusqlite::version().to_owned(),
        journal_mode: mode.text(0)?.to_owned(),
        synchronous: synchronous.to_owned(),
        page_size,
        pages,
        free_pages,
        bytes: size(&c.opener.path),
        log_bytes: size(&beside(&c.opener.path, "-wal")),
        location: c.opener.path.display().to_string(),
    })
}

pub(crate) fn check(c: &mut Connection<'_>) -> Result<Check, DbError> {
    let mut problems = Vec::new();
    let id = c.query_one(&Cow::Borrowed("pragma application_id"), &[])?.i64(0)?;
    if id != i64::from(APPLICATION_ID) {
        problems.push(format!("application id is {id:#x}, not {APPLICATION_ID:#x}"));
    }
    match c.query(&Cow::Borrowed("pragma quick_check"), &[]) {
        Ok(rows) => {
            for row in rows {
                match row.text(0)? {
                    "ok" => {}
                    problem => problems.push(problem.to_owned()),
                }
            }
        }
        Err(DbError::Damaged { detail, .. }) => problems.push(detail),
        Err(other) => return Err(other),
    }
    for row in c.query(&Cow::Borrowed("pragma foreign_key_check"), &[])? {
        let id = row.opt_i64(1)?.map_or_else(String::new, |id| format!(" {id}"));
        problems.push(format!("row{id} of {} refers to no row of {}", row.text(0)?, row.text(2)?));
    }
    Ok(Check { problems })
}

pub(crate) fn backup(
    c: &mut Connection<'_>,
    to: &Path,
    overwrite: bool,
) -> Result<Backup, DbError> {
    if to.exists() && !overwrite {
        return Err(DbError::Exists { path: to.to_owned() });
    }
    let partial = beside(to, ".partial");
    let finished = copy(c, &partial).and_then(|()| publish(&partial, to));
    if finished.is_err() {
        remove(&partial)?;
    }
    finished
}

/// Writes the copy in one step, which reads one instant of the source, and checks it.
fn copy(c: &Connection<'_>, partial: &Path) -> Result<(), DbError> {
    remove(partial)?;
    let failed = |e: rusqlite::Error| match c.opener.engine(&e) {
        DbError::DiskFull { .. } => DbError::DiskFull { path: partial.to_owned() },
        DbError::CannotOpen { detail, .. } => {
            DbError::CannotOpen { path: partial.to_owned(), detail }
        }
        other => other,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut target = rusqlite::Connection::open_with_flags(partial, flags).map_err(failed)?;
    target.execute_batch("pragma synchronous = off; pragma journal_mode = off").map_err(failed)?;
    let stepped = rusqlite::backup::Backup::new(c.raw, &mut target)
        .and_then(|backup| backup.step(-1))
        .map_err(failed)?;
    if stepped != StepResult::Done {
        return Err(DbError::Busy { path: c.opener.path.clone(), waited_ms: 0 });
    }
    // A copy is one file: without a log beside it.
    target.execute_batch("pragma journal_mode = delete").map_err(failed)?;
    let verdict: String =
        target.query_row("pragma quick_check(1)", [], |r| r.get(0)).map_err(failed)?;
    if verdict != "ok" {
        return Err(DbError::BadCopy { path: partial.to_owned(), detail: verdict });
    }
    target.close().map_err(|(_, e)| failed(e))
}

fn publish(partial: &Path, to: &Path) -> Result<Backup, DbError> {
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| DbError::Io { action, path, source }
    };
    let file = File::open(partial).map_err(io("open", partial))?;
    file.sync_all().map_err(io("sync", partial))?;
    let bytes = file.metadata().map_err(io("read", partial))?.len();
    std::fs::rename(partial, to).map_err(io("write", to))?;
    let parent = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent).and_then(|d| d.sync_all()).map_err(io("sync", parent))?;
    Ok(Backup { path: to.to_owned(), bytes })
}

/// `watchbell.db` and `-wal` make `watchbell.db-wal`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn remove(path: &Path) -> Result<(), DbError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(DbError::Io { action: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}
