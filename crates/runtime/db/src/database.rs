//! The handle that everything above uses. Nothing in it tells which engine is below.

use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use watchbell_core::{Statement, Time, Value};

use crate::error::DbError;
use crate::migrate::{Line, Step};
use crate::row::{Row, RowRef};
use crate::sqlite::{self, Sqlite};

/// How hard a commit tries to survive a power failure. None can corrupt the file when only the
/// process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Synchronous {
    /// Never waits for the disk: an operating system crash may damage the file.
    Off,
    /// Waits at checkpoints: the last commits may be lost in a power failure, none is torn.
    Normal,
    /// Waits at each commit; with group commit this costs about a quarter.
    #[default]
    Full,
    /// Also waits for the directory.
    Extra,
}

impl Synchronous {
    /// As in `pragma synchronous`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Normal => "normal",
            Self::Full => "full",
            Self::Extra => "extra",
        }
    }
}

/// How to open a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The file.
    pub path: PathBuf,
    /// Durability of a commit.
    pub synchronous: Synchronous,
    /// Reading connections for queries; scans and snapshots have as many again, twice.
    pub readers: usize,
    /// How long to wait for another process's write lock, in milliseconds.
    pub busy_timeout_ms: u64,
    /// Page cache of each connection, in KiB.
    pub cache_kib: u32,
    /// Makes the file, and its directory, when they are missing.
    pub create: bool,
    /// Refuses every write.
    pub read_only: bool,
}

impl Options {
    /// The defaults for a file: `synchronous` full, four readers, made when missing.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            synchronous: Synchronous::default(),
            readers: 4,
            busy_timeout_ms: 30_000,
            cache_kib: 8 * 1024,
            create: true,
            read_only: false,
        }
    }
}

/// What a list of statements did, by statement.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// Rows changed, or returned where the statement has a `returning` clause; of a bulk
    /// statement: in all.
    pub changed: Vec<u64>,
    /// Rows returned; empty where there is no `returning` clause.
    pub rows: Vec<Vec<Row>>,
}

/// What and where the database is, for `db check` and support requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// `sqlite`.
    pub engine: &'static str,
    /// The engine's version.
    pub version: String,
    /// The file.
    pub path: PathBuf,
    /// `wal`.
    pub journal_mode: String,
    /// Durability of a commit.
    pub synchronous: &'static str,
    /// Bytes of a page.
    pub page_size: u64,
    /// Pages in use or free.
    pub pages: u64,
    /// Pages that are free for reuse.
    pub free_pages: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the write-ahead log beside it.
    pub log_bytes: u64,
}

/// Result of a check: no problems means that the file is sound.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Check {
    /// One sentence each.
    pub problems: Vec<String>,
}

/// A finished backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// The copy.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// What the writer has done since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriterMetrics {
    /// Lists of statements answered, also with a refusal.
    pub jobs: u64,
    /// Lists of statements refused.
    pub refused: u64,
    /// Transactions committed.
    pub commits: u64,
    /// Most lists in one commit.
    pub max_batch: u64,
    /// Times that another process held the lock for too long.
    pub busy: u64,
    /// Lists waiting now.
    pub queued: u64,
}

/// One open database. Clones share it.
#[derive(Clone)]
pub struct Database(Arc<Sqlite>);

impl Database {
    /// Opens the database, and makes it when asked to. Takes a few milliseconds on this thread.
    ///
    /// # Errors
    /// The file is missing, cannot be opened, or is not a Watchbell database.
    pub fn open(options: &Options) -> Result<Self, DbError> {
        Ok(Self(Arc::new(Sqlite::open(options)?)))
    }

    /// Runs the statements in order, in one transaction, and answers when they are durable. Either
    /// all of them happen or none. A call that is dropped before its turn does nothing; one that
    /// is dropped later may still happen.
    ///
    /// # Errors
    /// [`DbError::Unmet`] for an expectation that failed, [`DbError::Constraint`] for a broken rule,
    /// and the errors of the engine. Nothing was stored.
    pub async fn apply(&self, statements: Vec<Statement>) -> Result<Applied, DbError> {
        self.0.apply(statements).await
    }

    /// All rows of a query.
    ///
    /// # Errors
    /// The statement is wrong, or the engine fails.
    pub async fn query(
        &self,
        sql: impl Into<Cow<'static, str>>,
        params: Vec<Value>,
    ) -> Result<Vec<Row>, DbError> {
        let sql = sql.into();
        self.0.queries.run(move |c, _| c.query(&sql, &params)).await
    }

    /// The row of a query that has at most one.
    ///
    /// # Errors
    /// [`DbError::NotOneRow`] when there are more, and as [`query`](Self::query).
    pub async fn query_opt(
        &self,
        sql: impl Into<Cow<'static, str>>,
        params: Vec<Value>,
    ) -> Result<Option<Row>, DbError> {
        let sql = sql.into();
        self.0.queries.run(move |c, _| c.query_opt(&sql, &params)).await
    }

    /// The row of a query that has exactly one.
    ///
    /// # Errors
    /// [`DbError::NotOneRow`] when there is another number, and as [`query`](Self::query).
    pub async fn query_one(
        &self,
        sql: impl Into<Cow<'static, str>>,
        params: Vec<Value>,
    ) -> Result<Row, DbError> {
        let sql = sql.into();
        self.0.queries.run(move |c, _| c.query_one(&sql, &params)).await
    }

    /// Gives each row of a large query to `each`, on a reading thread, until it breaks. Rows are
    /// not kept: `state` carries what the caller wants out of them, and is returned.
    ///
    /// ```
    /// # use std::ops::ControlFlow;
    /// # async fn f(db: &watchbell_db::Database) -> Result<(), watchbell_db::DbError> {
    /// let sum = db
    ///     .scan("select close from market.klines", vec![], 0.0, |sum, row| {
    ///         *sum += row.f64(0)?;
    ///         Ok(ControlFlow::Continue(()))
    ///     })
    ///     .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`query`](Self::query), and what `each` returns.
    pub async fn scan<T, F>(
        &self,
        sql: impl Into<Cow<'static, str>>,
        params: Vec<Value>,
        state: T,
        each: F,
    ) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnMut(&mut T, &RowRef<'_>) -> Result<ControlFlow<()>, DbError> + Send + 'static,
    {
        let sql = sql.into();
        self.0.sessions.run(move |c, gone| c.scan(&sql, &params, state, each, gone)).await
    }

    /// Several reads that see the database at one instant, whatever is committed meanwhile. Hold it
    /// briefly: the log cannot be folded into the file past a snapshot.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn snapshot(&self) -> Result<Snapshot, DbError> {
        let session = self.0.sessions.lease().await?;
        session.call(|c, _| c.begin_read()).await?;
        Ok(Snapshot { session: Some(session) })
    }

    /// Applies what is missing of `lines`, each migration in one transaction. Safe to run from
    /// several processes at once. Returns what was applied.
    ///
    /// # Errors
    /// The schema is newer than this program, a migration was changed or is missing, or one fails.
    pub async fn migrate(&self, lines: &[Line], now: Time) -> Result<Vec<Step>, DbError> {
        let lines = lines.to_vec();
        self.0.on_writer(move |c| sqlite::upkeep::migrate(c, &lines, now)).await
    }

    /// What [`migrate`](Self::migrate) would apply; changes nothing.
    ///
    /// # Errors
    /// The refusals of `migrate`.
    pub async fn pending(&self, lines: &[Line]) -> Result<Vec<Step>, DbError> {
        let lines = lines.to_vec();
        self.0.queries.run(move |c, _| sqlite::upkeep::pending(c, &lines)).await
    }

    /// What and where the database is.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn describe(&self) -> Result<Description, DbError> {
        let synchronous = self.0.synchronous.as_str();
        self.0.queries.run(move |c, _| sqlite::upkeep::describe(c, synchronous)).await
    }

    /// Reads the whole file and looks for damage and for dangling references.
    ///
    /// # Errors
    /// The engine fails. Problems that it finds are in the result.
    pub async fn check(&self) -> Result<Check, DbError> {
        self.0.sessions.run(|c, _| sqlite::upkeep::check(c)).await
    }

    /// Copies the database as of now while work goes on. The copy is written beside `to`, checked,
    /// synced, and then renamed: `to` is whole or absent.
    ///
    /// # Errors
    /// `to` exists and `overwrite` is false, the copy cannot be written, or it is damaged.
    pub async fn backup(&self, to: &Path, overwrite: bool) -> Result<Backup, DbError> {
        let to = to.to_owned();
        self.0.sessions.run(move |c, _| sqlite::upkeep::backup(c, &to, overwrite)).await
    }

    /// What the writer has done.
    #[must_use]
    pub fn metrics(&self) -> WriterMetrics {
        self.0.metrics()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Finishes the writes that wait, folds the log into the file and closes. Later calls on any
    /// clone fail with [`DbError::Closed`]; closing again does nothing.
    ///
    /// # Errors
    /// The log could not be folded in. Nothing is lost: the next start does it.
    pub async fn close(&self) -> Result<(), DbError> {
        self.0.close().await
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({})", self.path().display())
    }
}

/// Several reads of one instant; see [`Database::snapshot`].
pub struct Snapshot {
    /// `None` only while it is dropped.
    session: Option<sqlite::Session>,
}

impl Snapshot {
    fn session(&self) -> Result<&sqlite::Session, DbError> {
        self.session.as_ref().ok_or(DbError::Closed)
    }

    /// As [`Database::query`].
    ///
    /// # Errors
    /// The same.
    pub async fn query(
        &self,
        sql: impl Into<Cow<'static, str>>,
        params: Vec<Value>,
    ) -> Result<Vec<Row>, DbError> {
        let sql = sql.into();
        self.session()?.call(move |c, _| c.query(&sql, &params)).await
    }

    /// As [`Database::query_opt`].
    ///
    /// # Errors
    /// The same.
    pub async fn query_opt(
        &self,
        sql: impl Into<Cow<'static, str>>,
        params: Vec<Value>,
    ) -> Result<Option<Row>, DbError> {
        let sql = sql.into();
        self.session()?.call(move |c, _| c.query_opt(&sql, &params)).await
    }

    /// As [`Database::query_one`].
    ///
    /// # Errors
    /// The same.
    pub async fn query_one(
        &self,
        sql: impl Into<Cow<'static, str>>,
        params: Vec<Value>,
    ) -> Result<Row, DbError> {
        let sql = sql.into();
        self.session()?.call(move |c, _| c.query_one(&sql, &params)).await
    }

    /// As [`Database::scan`].
    ///
    /// # Errors
    /// The same.
    pub async fn scan<T, F>(
        &self,
        sql: impl Into<Cow<'static, str>>,
        params: Vec<Value>,
        state: T,
        each: F,
    ) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnMut(&mut T, &RowRef<'_>) -> Result<ControlFlow<()>, DbError> + Send + 'static,
    {
        let sql = sql.into();
        self.session()?.call(move |c, gone| c.scan(&sql, &params, state, each, gone)).await
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.finish();
        }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}
