//! The handle that everything above uses, over either engine.

use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use watchbell_core::{Statement, Time, Value};

use crate::error::DbError;
use crate::migrate::{Line, Step};
use crate::postgres::{self, Notifications, Postgres, ServerOptions};
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

/// Which engine is below, for the few who must print it or write SQL for one only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A file.
    Sqlite,
    /// A server.
    Postgres,
}

impl Engine {
    /// `sqlite` or `postgres`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// What and where the database is, for `db check` and support requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// `sqlite` or `postgres`.
    pub engine: &'static str,
    /// The engine's version.
    pub version: String,
    /// The file, or `host:port/database`.
    pub location: String,
    /// `wal`.
    pub journal_mode: String,
    /// Durability of a commit, in the engine's words.
    pub synchronous: String,
    /// Bytes of a page.
    pub page_size: u64,
    /// Pages in use or free.
    pub pages: u64,
    /// Pages that are free for reuse; 0 on a server.
    pub free_pages: u64,
    /// Bytes of the file, or of the server's database.
    pub bytes: u64,
    /// Bytes of the write-ahead log beside a file; 0 on a server, whose databases share one.
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

/// When a commit is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Once it is as durable as the database was opened for.
    Synced,
    /// Before the disk has it.
    Soon,
}

impl Durability {
    /// What several lists need that share one transaction.
    pub(crate) fn of_all(lists: impl IntoIterator<Item = Self>) -> Self {
        let soon = lists.into_iter().all(|durability| durability == Self::Soon);
        if soon { Self::Soon } else { Self::Synced }
    }
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
pub struct Database(Inner);

#[derive(Clone)]
enum Inner {
    Sqlite(Arc<Sqlite>),
    Postgres(Arc<Postgres>),
}

impl Database {
    /// Opens a SQLite file, and makes it when asked to. Takes a few milliseconds on this thread.
    ///
    /// # Errors
    /// The file is missing, cannot be opened, or is not a Watchbell database.
    pub fn open(options: &Options) -> Result<Self, DbError> {
        Ok(Self(Inner::Sqlite(Arc::new(Sqlite::open(options)?))))
    }

    /// Connects to a PostgreSQL server, once, to see that it is one we can work with; further
    /// connections are made when they are needed, and again after they were lost.
    ///
    /// # Errors
    /// The URL is wrong, or the server cannot be reached, refuses us, or is too old.
    pub async fn connect(options: &ServerOptions) -> Result<Self, DbError> {
        Ok(Self(Inner::Postgres(Arc::new(Postgres::connect(options).await?))))
    }

    /// Which engine is below.
    #[must_use]
    pub const fn engine(&self) -> Engine {
        match &self.0 {
            Inner::Sqlite(_) => Engine::Sqlite,
            Inner::Postgres(_) => Engine::Postgres,
        }
    }

    /// Runs the statements in order, in one transaction, and answers when they are durable. Either
    /// all of them happen or none. A call that is dropped before its turn does nothing; one that
    /// is dropped later may still happen.
    ///
    /// # Errors
    /// [`DbError::Unmet`] for an expectation that failed, [`DbError::Constraint`] for a broken rule,
    /// and the errors of the engine. Nothing was stored, unless it is [`DbError::AnswerLost`].
    pub async fn apply(&self, statements: Vec<Statement>) -> Result<Applied, DbError> {
        match &self.0 {
            Inner::Sqlite(file) => file.apply(statements, Durability::Synced).await,
            Inner::Postgres(server) => server.apply(statements, Durability::Synced).await,
        }
    }

    /// As [`apply`](Self::apply), but answers before the disk has it. All see it at once, and
    /// whatever is applied after it makes it durable too; but if the machine (of a file) or the
    /// server crashes within the next moment, it never happened. For what may be done again then,
    /// such as a claim.
    ///
    /// # Errors
    /// As those of `apply`.
    pub async fn apply_unsynced(&self, statements: Vec<Statement>) -> Result<Applied, DbError> {
        match &self.0 {
            Inner::Sqlite(file) => file.apply(statements, Durability::Soon).await,
            Inner::Postgres(server) => server.apply(statements, Durability::Soon).await,
        }
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
        match &self.0 {
            Inner::Sqlite(file) => file.queries.run(move |c, _| c.query(&sql, &params)).await,
            Inner::Postgres(server) => server.query(&sql, &params).await,
        }
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
        match &self.0 {
            Inner::Sqlite(file) => file.queries.run(move |c, _| c.query_opt(&sql, &params)).await,
            Inner::Postgres(server) => at_most_one(&sql, server.query(&sql, &params).await?),
        }
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
        match &self.0 {
            Inner::Sqlite(file) => file.queries.run(move |c, _| c.query_one(&sql, &params)).await,
            Inner::Postgres(server) => exactly_one(&sql, server.query(&sql, &params).await?),
        }
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
        match &self.0 {
            Inner::Sqlite(file) => {
                file.sessions.run(move |c, gone| c.scan(&sql, &params, state, each, gone)).await
            }
            Inner::Postgres(server) => server.scan(sql, params, state, each).await,
        }
    }

    /// Several reads that see the database at one instant, whatever is committed meanwhile. Hold it
    /// briefly: SQLite's log cannot be folded into the file past a snapshot, and PostgreSQL cannot
    /// clean up behind it, and ends one that stands idle for a minute.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn snapshot(&self) -> Result<Snapshot, DbError> {
        Ok(Snapshot(match &self.0 {
            Inner::Sqlite(file) => {
                let session = file.sessions.lease().await?;
                session.call(|c, _| c.begin_read()).await?;
                Seat::Sqlite(Some(session))
            }
            Inner::Postgres(server) => Seat::Postgres(Box::new(server.snapshot().await?)),
        }))
    }

    /// Applies what is missing of `lines`, each migration in one transaction. Safe to run from
    /// several processes at once. Returns what was applied.
    ///
    /// # Errors
    /// The schema is newer than this program, a migration was changed or is missing, or one fails.
    pub async fn migrate(&self, lines: &[Line], now: Time) -> Result<Vec<Step>, DbError> {
        match &self.0 {
            Inner::Sqlite(file) => {
                let lines = lines.to_vec();
                file.on_writer(move |c| sqlite::upkeep::migrate(c, &lines, now)).await
            }
            Inner::Postgres(server) => server.migrate(lines, now).await,
        }
    }

    /// What [`migrate`](Self::migrate) would apply; changes nothing.
    ///
    /// # Errors
    /// The refusals of `migrate`.
    pub async fn pending(&self, lines: &[Line]) -> Result<Vec<Step>, DbError> {
        match &self.0 {
            Inner::Sqlite(file) => {
                let lines = lines.to_vec();
                file.queries.run(move |c, _| sqlite::upkeep::pending(c, &lines)).await
            }
            Inner::Postgres(server) => server.pending(lines).await,
        }
    }

    /// What and where the database is.
    ///
    /// # Errors
    /// The engine fails.
    pub async fn describe(&self) -> Result<Description, DbError> {
        match &self.0 {
            Inner::Sqlite(file) => {
                let synchronous = file.synchronous.as_str();
                file.queries.run(move |c, _| sqlite::upkeep::describe(c, synchronous)).await
            }
            Inner::Postgres(server) => server.describe().await,
        }
    }

    /// Looks for damage and for broken rules: reads a whole file; on a server asks the catalogue,
    /// and checks the indexes where the extension `amcheck` is installed.
    ///
    /// # Errors
    /// The engine fails. Problems that it finds are in the result.
    pub async fn check(&self) -> Result<Check, DbError> {
        match &self.0 {
            Inner::Sqlite(file) => file.sessions.run(|c, _| sqlite::upkeep::check(c)).await,
            Inner::Postgres(server) => server.check().await,
        }
    }

    /// Copies a file as of now while work goes on. The copy is written beside `to`, checked,
    /// synced, and then renamed: `to` is whole or absent.
    ///
    /// # Errors
    /// `to` exists and `overwrite` is false, the copy cannot be written, or it is damaged; the
    /// database is on a server.
    pub async fn backup(&self, to: &Path, overwrite: bool) -> Result<Backup, DbError> {
        match &self.0 {
            Inner::Sqlite(file) => {
                let to = to.to_owned();
                file.sessions.run(move |c, _| sqlite::upkeep::backup(c, &to, overwrite)).await
            }
            Inner::Postgres(server) => Err(DbError::Unsupported {
                what: "a copy of the database's file",
                location: server.location().to_owned(),
                instead: "use pg_dump, or the server's own continuous archive",
            }),
        }
    }

    /// What is notified on a channel from now on, over a connection of its own that comes back by
    /// itself. `None` where the engine has no notifications between processes: on a file, behind a
    /// transaction pooler, and once the database is closed.
    #[must_use]
    pub fn listen(&self, channel: &str) -> Option<Notifications> {
        match &self.0 {
            Inner::Sqlite(_) => None,
            Inner::Postgres(server) => server.listen(channel),
        }
    }

    /// Notifies who listens to a channel, at once and outside any transaction. Does nothing on a
    /// file.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn notify(&self, channel: &str, payload: &str) -> Result<(), DbError> {
        match &self.0 {
            Inner::Sqlite(_) => Ok(()),
            Inner::Postgres(server) => server.notify(channel, payload).await,
        }
    }

    /// What the writer has done.
    #[must_use]
    pub fn metrics(&self) -> WriterMetrics {
        match &self.0 {
            Inner::Sqlite(file) => file.metrics(),
            Inner::Postgres(server) => server.metrics(),
        }
    }

    /// The file, or `host:port/database`.
    #[must_use]
    pub fn location(&self) -> String {
        match &self.0 {
            Inner::Sqlite(file) => file.path().display().to_string(),
            Inner::Postgres(server) => server.location().to_owned(),
        }
    }

    /// The file; `None` when the database is on a server.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Inner::Sqlite(file) => Some(file.path()),
            Inner::Postgres(_) => None,
        }
    }

    /// Finishes the writes that wait, folds a file's log into it and closes. Later calls on any
    /// clone fail with [`DbError::Closed`]; closing again does nothing.
    ///
    /// # Errors
    /// The log could not be folded in. Nothing is lost: the next start does it.
    pub async fn close(&self) -> Result<(), DbError> {
        match &self.0 {
            Inner::Sqlite(file) => file.close().await,
            Inner::Postgres(server) => {
                server.close().await;
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({})", self.location())
    }
}

fn not_one(sql: &str, got: usize) -> DbError {
    let target = Statement::new(sql.to_owned(), Vec::new()).target().to_owned();
    DbError::NotOneRow { target, got }
}

fn at_most_one(sql: &str, mut rows: Vec<Row>) -> Result<Option<Row>, DbError> {
    match rows.len() {
        0 | 1 => Ok(rows.pop()),
        _ => Err(not_one(sql, 2)),
    }
}

fn exactly_one(sql: &str, rows: Vec<Row>) -> Result<Row, DbError> {
    at_most_one(sql, rows)?.ok_or_else(|| not_one(sql, 0))
}

/// Several reads of one instant; see [`Database::snapshot`].
pub struct Snapshot(Seat);

enum Seat {
    /// `None` only while it is dropped.
    Sqlite(Option<sqlite::Session>),
    Postgres(Box<postgres::Snapshot>),
}

impl Snapshot {
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
        match &self.0 {
            Seat::Sqlite(session) => {
                let session = session.as_ref().ok_or(DbError::Closed)?;
                session.call(move |c, _| c.query(&sql, &params)).await
            }
            Seat::Postgres(snapshot) => snapshot.query(&sql, &params).await,
        }
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
        at_most_one(&sql.clone(), self.query(sql, params).await?)
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
        exactly_one(&sql.clone(), self.query(sql, params).await?)
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
        match &self.0 {
            Seat::Sqlite(session) => {
                let session = session.as_ref().ok_or(DbError::Closed)?;
                session.call(move |c, gone| c.scan(&sql, &params, state, each, gone)).await
            }
            Seat::Postgres(snapshot) => snapshot.scan(sql, params, state, each).await,
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Seat::Sqlite(session) = &mut self.0
            && let Some(session) = session.take()
        {
            session.finish();
        }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}
