//! A connection with its prepared statements, and how one is opened.
#![expect(clippy::ptr_arg, reason = "a constant text is known by its address, a made one is not")]

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{ErrorCode, OpenFlags, ffi};
use watchbell_core::{Statement, Value};

use crate::database::{Durability, Options, Synchronous};
use crate::dialect;
use crate::error::{ConstraintKind, DbError};
use crate::row::{Columns, Row, RowRef};

/// `WBEL`: marks a file as ours.
pub(crate) const APPLICATION_ID: i32 = 0x5742_454c;
/// Prepared statements kept for texts that are made at run time; constant texts are all kept.
const MADE_TEXTS: usize = 256;
/// Pages in the log before the writer folds them into the file: 16 MiB.
const CHECKPOINT_PAGES: u32 = 4_000;
/// The log is cut to this many bytes after it was folded in.
const LOG_LIMIT: u32 = 64 << 20;

/// How to open the file, again and again.
#[derive(Debug)]
pub(crate) struct Opener {
    pub(crate) path: PathBuf,
    options: Options,
}

impl Opener {
    pub(crate) fn new(options: &Options) -> Self {
        Self { path: options.path.clone(), options: options.clone() }
    }

    /// The first connection: makes the file if asked to, and sees that it is ours.
    pub(crate) fn first(&self) -> Result<rusqlite::Connection, DbError> {
        if !self.path.exists() {
            if !self.options.create || self.options.read_only {
                return Err(DbError::Missing { path: self.path.clone() });
            }
            if let Some(parent) = self.path.parent() {
                std::fs::create_dir_all(parent).map_err(|e| self.cannot_open(e.to_string()))?;
            }
        }
        let raw = self.connect(self.options.read_only)?;
        let failed = |e| self.engine(&e);
        let id: i32 = raw.query_row("pragma application_id", [], |r| r.get(0)).map_err(failed)?;
        if id != APPLICATION_ID {
            self.adopt(&raw, id)?;
        }
        if !self.options.read_only {
            let mode = self.use_log(&raw).map_err(failed)?;
            if mode != "wal" {
                let detail = format!("journal mode is {mode}: is it on a network file system?");
                return Err(self.cannot_open(detail));
            }
            raw.execute_batch(&format!(
                "pragma synchronous = {}; pragma wal_autocheckpoint = {CHECKPOINT_PAGES};
                 pragma journal_size_limit = {LOG_LIMIT};",
                self.options.synchronous.as_str()
            ))
            .map_err(failed)?;
        }
        Ok(raw)
    }

    /// Switches the file to its write-ahead log, and returns the mode that it is in. Two processes
    /// that both want to switch wait for each other's shared lock, so neither waits long before it
    /// lets go and asks again.
    fn use_log(&self, raw: &rusqlite::Connection) -> rusqlite::Result<String> {
        const PATIENCE: Duration = Duration::from_millis(50);
        let whole = Duration::from_millis(self.options.busy_timeout_ms);
        raw.busy_timeout(PATIENCE.min(whole))?;
        let mut tries = whole.as_millis() / PATIENCE.as_millis();
        loop {
            match raw.query_row("pragma journal_mode = wal", [], |r| r.get(0)) {
                Err(e) if tries > 0 && e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                    tries -= 1;
                }
                outcome => {
                    raw.busy_timeout(whole)?;
                    return outcome;
                }
            }
        }
    }

    /// Marks an empty file as ours; refuses any other. Under the write lock, so that of two
    /// processes that start together one finds the mark of the other.
    fn adopt(&self, raw: &rusqlite::Connection, found: i32) -> Result<(), DbError> {
        let failed = |e| self.engine(&e);
        let not_ours = |id| DbError::NotOurs { path: self.path.clone(), application_id: id };
        if found != 0 || self.options.read_only {
            return Err(not_ours(found));
        }
        raw.execute_batch("begin immediate").map_err(failed)?;
        let id: i32 = raw.query_row("pragma application_id", [], |r| r.get(0)).map_err(failed)?;
        let tables: i64 = raw
            .query_row("select count(*) from sqlite_schema", [], |r| r.get(0))
            .map_err(failed)?;
        if id != APPLICATION_ID && (id != 0 || tables > 0) {
            return Err(not_ours(id));
        }
        raw.execute_batch(&format!("pragma application_id = {APPLICATION_ID}; commit"))
            .map_err(failed)
    }

    /// A further connection, for reading.
    pub(crate) fn reader(&self) -> Result<rusqlite::Connection, DbError> {
        self.connect(true)
    }

    fn connect(&self, read_only: bool) -> Result<rusqlite::Connection, DbError> {
        let access = if read_only {
            OpenFlags::SQLITE_OPEN_READ_ONLY
        } else {
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
        };
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let raw = rusqlite::Connection::open_with_flags(&self.path, flags)
            .map_err(|e| self.engine(&e))?;
        raw.busy_timeout(Duration::from_millis(self.options.busy_timeout_ms))
            .map_err(|e| self.engine(&e))?;
        raw.execute_batch(&format!(
            "pragma foreign_keys = on; pragma temp_store = memory; pragma cache_size = -{};",
            self.options.cache_kib
        ))
        .map_err(|e| self.engine(&e))?;
        Ok(raw)
    }

    fn cannot_open(&self, detail: String) -> DbError {
        DbError::CannotOpen { path: self.path.clone(), detail }
    }

    /// An error that concerns the file, not a statement.
    pub(crate) fn engine(&self, error: &rusqlite::Error) -> DbError {
        self.file_error(error).unwrap_or_else(|| self.cannot_open(error.to_string()))
    }

    fn file_error(&self, error: &rusqlite::Error) -> Option<DbError> {
        let rusqlite::Error::SqliteFailure(failure, detail) = error else { return None };
        let path = self.path.clone();
        let detail = || detail.clone().unwrap_or_else(|| failure.to_string());
        Some(match failure.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                DbError::Busy { path, waited_ms: self.options.busy_timeout_ms }
            }
            ErrorCode::DiskFull => DbError::DiskFull { path },
            ErrorCode::SystemIoFailure => DbError::Disk { path, detail: detail() },
            ErrorCode::NotADatabase => DbError::NotADatabase { path },
            ErrorCode::DatabaseCorrupt => DbError::Damaged { path, detail: detail() },
            ErrorCode::ReadOnly => DbError::ReadOnly { location: path.display().to_string() },
            ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
                DbError::CannotOpen { path, detail: detail() }
            }
            _ => return None,
        })
    }
}

/// A connection and the statements prepared on it. Lives on its thread.
pub(crate) struct Connection<'c> {
    pub(crate) raw: &'c rusqlite::Connection,
    pub(crate) opener: &'c Opener,
    /// By address and length: a constant text is found without being read.
    constant: HashMap<(usize, usize), Prepared<'c>>,
    made: HashMap<String, Prepared<'c>>,
}

struct Prepared<'c> {
    statement: rusqlite::Statement<'c>,
    columns: Arc<Columns>,
    parameters: usize,
    /// Whether it changes rows: of other statements SQLite repeats the last count.
    changes: bool,
    /// Nothing is left of it on this engine.
    empty: bool,
}

/// A value as rusqlite wants it.
struct Bound<'a>(&'a Value);

impl ToSql for Bound<'_> {
    #[inline]
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Int(v) => ValueRef::Integer(*v),
            Value::Float(v) => ValueRef::Real(*v),
            Value::Text(v) => ValueRef::Text(v.as_bytes()),
            Value::Bytes(v) => ValueRef::Blob(v),
        }))
    }
}

impl Prepared<'_> {
    fn bind(&mut self, params: &[Value]) -> rusqlite::Result<()> {
        if self.empty {
            return Ok(());
        }
        if params.len() != self.parameters {
            return Err(rusqlite::Error::InvalidParameterCount(params.len(), self.parameters));
        }
        for (number, value) in (1..).zip(params) {
            self.statement.raw_bind_parameter(number, Bound(value))?;
        }
        Ok(())
    }

    fn rows(&mut self, into: &mut Vec<Row>, limit: usize) -> Result<(), Failure> {
        let width = self.statement.column_count();
        let mut rows = self.statement.raw_query();
        while into.len() < limit {
            let Some(row) = rows.next()? else { break };
            into.push(Row::read(row, width, &self.columns)?);
        }
        Ok(())
    }
}

/// An error before it knows its statement.
enum Failure {
    Engine(rusqlite::Error),
    Told(DbError),
}

impl From<rusqlite::Error> for Failure {
    fn from(e: rusqlite::Error) -> Self {
        Self::Engine(e)
    }
}
impl From<DbError> for Failure {
    fn from(e: DbError) -> Self {
        Self::Told(e)
    }
}

impl<'c> Connection<'c> {
    pub(crate) fn new(raw: &'c rusqlite::Connection, opener: &'c Opener) -> Self {
        Self { raw, opener, constant: HashMap::new(), made: HashMap::new() }
    }

    fn prepared(&mut self, sql: &Cow<'static, str>) -> Result<&mut Prepared<'c>, Failure> {
        use std::collections::hash_map::Entry;
        match sql {
            Cow::Borrowed(text) => {
                match self.constant.entry((text.as_ptr() as usize, text.len())) {
                    Entry::Occupied(found) => Ok(found.into_mut()),
                    Entry::Vacant(free) => Ok(free.insert(prepare(self.raw, sql)?)),
                }
            }
            Cow::Owned(text) => {
                if self.made.len() >= MADE_TEXTS && !self.made.contains_key(text) {
                    self.made.clear();
                }
                match self.made.entry(text.clone()) {
                    Entry::Occupied(found) => Ok(found.into_mut()),
                    Entry::Vacant(free) => Ok(free.insert(prepare(self.raw, sql)?)),
                }
            }
        }
    }

    /// The error of a statement, in words.
    fn refusal(&self, index: usize, sql: &Cow<'static, str>, failure: Failure) -> DbError {
        let error = match failure {
            Failure::Told(told) => return told,
            Failure::Engine(error) => error,
        };
        if let Some(told) = self.opener.file_error(&error) {
            return told;
        }
        let target = target(sql);
        match error {
            rusqlite::Error::SqliteFailure(e, detail)
                if e.code == ErrorCode::ConstraintViolation =>
            {
                DbError::Constraint {
                    index,
                    target,
                    kind: constraint(e.extended_code),
                    detail: detail.unwrap_or_else(|| e.to_string()),
                }
            }
            other => DbError::Statement {
                target,
                detail: match other {
                    rusqlite::Error::SqliteFailure(_, Some(detail)) => detail,
                    rusqlite::Error::SqlInputError { msg, .. } => msg,
                    rusqlite::Error::InvalidParameterCount(given, wanted) => {
                        format!("it has {wanted} parameters, and {given} were given")
                    }
                    other => other.to_string(),
                },
                sql: sql.split_whitespace().collect::<Vec<_>>().join(" "),
            },
        }
    }

    fn with<T>(
        &mut self,
        sql: &Cow<'static, str>,
        work: impl FnOnce(&mut Prepared<'c>) -> Result<T, Failure>,
    ) -> Result<T, DbError> {
        let done = self.prepared(sql).and_then(work);
        done.map_err(|failure| self.refusal(0, sql, failure))
    }

    /// Runs one statement of a list; the rows changed, and those returned. `None`: nothing is left
    /// of the statement on this engine.
    pub(crate) fn execute(
        &mut self,
        index: usize,
        statement: &Statement,
    ) -> Result<Option<(u64, Vec<Row>)>, DbError> {
        let mut returned = Vec::new();
        let run = |prepared: &mut Prepared<'c>| {
            if prepared.empty {
                return Ok(None);
            }
            let mut changed = 0;
            let mut once = |params: &[Value]| {
                prepared.bind(params)?;
                if prepared.columns.names.is_empty() {
                    let rows = prepared.statement.raw_execute()?;
                    changed += if prepared.changes { rows as u64 } else { 0 };
                    Ok::<_, Failure>(())
                } else {
                    prepared.rows(&mut returned, usize::MAX)
                }
            };
            match statement.width {
                0 => once(&statement.params)?,
                width => statement.params.chunks_exact(width).try_for_each(once)?,
            }
            Ok(Some(changed))
        };
        let changed = self.prepared(&statement.sql).and_then(run);
        match changed {
            Ok(changed) => Ok(changed.map(|n| (n + returned.len() as u64, returned))),
            Err(failure) => Err(self.refusal(index, &statement.sql, failure)),
        }
    }

    /// Whether commits wait for the disk: as long as the file was opened for, or not at all. A log
    /// that is not waited for is never torn, and the next commit that waits makes it durable too.
    pub(crate) fn synchronise(&self, durability: Durability) -> Result<(), DbError> {
        let opened = self.opener.options.synchronous;
        let mode = match (durability, opened) {
            (Durability::Synced, _) | (_, Synchronous::Off) => opened,
            (Durability::Soon, _) => Synchronous::Normal,
        };
        // Not one of the statements that are kept: it takes effect when it is prepared.
        let change = self.raw.execute_batch(&format!("pragma synchronous = {}", mode.as_str()));
        change.map_err(|e| self.opener.engine(&e))
    }

    /// Runs a constant statement that has no parameters.
    pub(crate) fn control(&mut self, sql: &'static str) -> Result<(), DbError> {
        self.with(&Cow::Borrowed(sql), |prepared| {
            prepared.statement.raw_execute()?;
            Ok(())
        })
    }

    pub(crate) fn query(
        &mut self,
        sql: &Cow<'static, str>,
        params: &[Value],
    ) -> Result<Vec<Row>, DbError> {
        self.limited(sql, params, usize::MAX)
    }

    fn limited(
        &mut self,
        sql: &Cow<'static, str>,
        params: &[Value],
        limit: usize,
    ) -> Result<Vec<Row>, DbError> {
        self.with(sql, |prepared| {
            prepared.bind(params)?;
            let mut rows = Vec::new();
            prepared.rows(&mut rows, limit)?;
            Ok(rows)
        })
    }

    pub(crate) fn query_opt(
        &mut self,
        sql: &Cow<'static, str>,
        params: &[Value],
    ) -> Result<Option<Row>, DbError> {
        let mut rows = self.limited(sql, params, 2)?;
        if rows.len() > 1 {
            return Err(DbError::NotOneRow { target: target(sql), got: rows.len() });
        }
        Ok(rows.pop())
    }

    pub(crate) fn query_one(
        &mut self,
        sql: &Cow<'static, str>,
        params: &[Value],
    ) -> Result<Row, DbError> {
        self.query_opt(sql, params)?
            .ok_or_else(|| DbError::NotOneRow { target: target(sql), got: 0 })
    }

    pub(crate) fn scan<T>(
        &mut self,
        sql: &Cow<'static, str>,
        params: &[Value],
        mut state: T,
        mut each: impl FnMut(&mut T, &RowRef<'_>) -> Result<ControlFlow<()>, DbError>,
        gone: &dyn Fn() -> bool,
    ) -> Result<T, DbError> {
        self.with(sql, |prepared| {
            prepared.bind(params)?;
            let columns = Arc::clone(&prepared.columns);
            let mut rows = prepared.statement.raw_query();
            let mut count = 0_u32;
            while let Some(row) = rows.next()? {
                if each(&mut state, &RowRef::new(row, &columns))?.is_break() {
                    break;
                }
                count = count.wrapping_add(1);
                if count.is_multiple_of(4_096) && gone() {
                    break;
                }
            }
            drop(rows);
            Ok(state)
        })
    }

    /// Starts to read at one instant. The first read is what fixes it.
    pub(crate) fn begin_read(&mut self) -> Result<(), DbError> {
        self.control("begin")?;
        self.query(&Cow::Borrowed("select 1 from sqlite_schema limit 1"), &[]).map(drop)
    }

    /// Ends what is open, if anything is.
    pub(crate) fn rollback(&mut self) -> Result<(), DbError> {
        if self.raw.is_autocommit() { Ok(()) } else { self.control("rollback") }
    }
}

fn prepare<'c>(
    raw: &'c rusqlite::Connection,
    sql: &Cow<'static, str>,
) -> Result<Prepared<'c>, Failure> {
    let translated = dialect::to_sqlite(sql);
    let empty = dialect::is_empty(&translated);
    let statement = raw.prepare(&translated)?;
    let names = statement.column_names().map(str::to_owned).collect();
    let parameters = statement.parameter_count();
    let changes = !statement.readonly() && {
        let verb = sql.split_whitespace().next().unwrap_or("").to_ascii_lowercase();
        matches!(verb.as_str(), "insert" | "update" | "delete" | "replace" | "with")
    };
    let columns = Arc::new(Columns { target: target(sql), names });
    Ok(Prepared { statement, columns, parameters, changes, empty })
}

/// The table that a text is about.
fn target(sql: &Cow<'static, str>) -> String {
    Statement::new(sql.clone(), Vec::new()).target().to_owned()
}

const fn constraint(extended: i32) -> ConstraintKind {
    match extended {
        ffi::SQLITE_CONSTRAINT_UNIQUE
        | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
        | ffi::SQLITE_CONSTRAINT_ROWID => ConstraintKind::Unique,
        ffi::SQLITE_CONSTRAINT_NOTNULL => ConstraintKind::NotNull,
        ffi::SQLITE_CONSTRAINT_CHECK | ffi::SQLITE_CONSTRAINT_DATATYPE => ConstraintKind::Check,
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => ConstraintKind::ForeignKey,
        ffi::SQLITE_CONSTRAINT_TRIGGER => ConstraintKind::Trigger,
        _ => ConstraintKind::Other,
    }
}
