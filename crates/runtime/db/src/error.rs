//! What can go wrong with the database, in words that an operator can act on.

use std::path::PathBuf;

use watchbell_core::Expect;

/// Which rule of the schema a statement broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConstraintKind {
    /// A unique index or primary key.
    Unique,
    /// A column that must have a value.
    NotNull,
    /// A check on the value.
    Check,
    /// A reference to a row that does not exist, or is still referred to.
    ForeignKey,
    /// A trigger of ours refused it, such as the one that keeps complete windows.
    Trigger,
    /// Another rule.
    Other,
}

/// A refused or failed database operation.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// There is no file, and making one was not asked for.
    #[error("there is no database at {path}: start watchbell once, or run `watchbell db migrate`")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be opened or made.
    #[error(
        "cannot open the database {path} ({detail}): check that its directory exists and that this \
         user may write there"
    )]
    CannotOpen {
        /// The file.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// The file is no SQLite database.
    #[error("{path} is not a database: choose another data directory, or move that file away")]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The file is a database of another application.
    #[error(
        "{path} is not a Watchbell database (application id {application_id:#x}): choose another \
         data directory, or move that file away"
    )]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// Whose it is, if that is recorded.
        application_id: i32,
    },
    /// The database was opened for reading only.
    #[error("the database {location} is open for reading only")]
    ReadOnly {
        /// The file, or the server.
        location: String,
    },
    /// Another process held the write lock for too long.
    #[error(
        "the database {path} was locked by another process for more than {waited_ms} ms: stop the \
         other writer and try again"
    )]
    Busy {
        /// The file.
        path: PathBuf,
        /// How long we waited.
        waited_ms: u64,
    },
    /// No space left. Nothing of the commit was stored.
    #[error(
        "the disk that holds {path} is full, and nothing was written: free some space; watchbell \
         goes on by itself"
    )]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// The file system failed: a quota, a limit, a device. Nothing of the commit was stored.
    #[error(
        "the disk that holds {path} failed ({detail}), and nothing was written: look at its space, \
         its quota and its health; watchbell tries again by itself"
    )]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the engine said.
        detail: String,
    },
    /// The file is damaged.
    #[error(
        "the database {path} is damaged ({detail}): stop watchbell, keep a copy of the file, and \
         restore a backup with `watchbell db restore`"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the engine said.
        detail: String,
    },
    /// A statement did not change as many rows as it must. Nothing of its list was stored.
    #[error("statement {index} on {target} must change {} rows, but changed {got}", rows(.expected))]
    Unmet {
        /// Its place in the list, from 0.
        index: usize,
        /// The table.
        target: String,
        /// What it must change.
        expected: Expect,
        /// What it changed.
        got: u64,
    },
    /// A statement broke a rule of the schema. Nothing of its list was stored.
    #[error("{target} refused the change: {detail}")]
    Constraint {
        /// Its place in the list, from 0.
        index: usize,
        /// The table.
        target: String,
        /// Which kind of rule.
        kind: ConstraintKind,
        /// The rule, or the sentence of the trigger.
        detail: String,
    },
    /// A statement is wrong, or failed in a way that has no variant of its own.
    #[error("statement on {target} failed: {detail} in `{sql}`")]
    Statement {
        /// The table.
        target: String,
        /// What the engine said.
        detail: String,
        /// The text, in the common form.
        sql: String,
    },
    /// A cell does not have the type that the reader wants.
    #[error("{target}: column {column} is {found}, not {wanted}")]
    Column {
        /// The table.
        target: String,
        /// The column's name, or its number when it has none.
        column: String,
        /// The type that is wanted.
        wanted: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A query for one row found another number of them.
    #[error("query on {target} must return one row, but returned {got}")]
    NotOneRow {
        /// The table.
        target: String,
        /// How many (at most 2 are counted).
        got: usize,
    },
    /// A migration that was applied has another text now.
    #[error(
        "migration {line}/{number} ({name}) was changed after it was applied to this database: use \
         the watchbell that made it, or restore a backup"
    )]
    MigrationChanged {
        /// The line.
        line: String,
        /// The number.
        number: u32,
        /// The name.
        name: String,
    },
    /// The schema is newer than this program.
    #[error(
        "database is at {line}/{found}, this binary knows up to {line}/{known}: use a newer \
         watchbell"
    )]
    SchemaNewer {
        /// The line.
        line: String,
        /// The newest applied migration.
        found: u32,
        /// The newest that this program has.
        known: u32,
    },
    /// A migration is missing before one that was applied, or the program's own list has a hole.
    #[error(
        "migration {line}/{number} is missing although later ones are there: this database was \
         changed by hand; restore a backup"
    )]
    MigrationHole {
        /// The line.
        line: String,
        /// The missing number.
        number: u32,
    },
    /// A migration failed. It left nothing behind; earlier ones stay.
    #[error("migration {line}/{number} ({name}) failed: {detail}")]
    MigrationFailed {
        /// The line.
        line: String,
        /// The number.
        number: u32,
        /// The name.
        name: String,
        /// What the engine said.
        detail: String,
    },
    /// The URL of a server cannot be used.
    #[error(
        "the database URL cannot be used: {detail}; it looks like \
         postgres://user:password@host:5432/database"
    )]
    BadUrl {
        /// What is wrong. Nothing of the URL itself, which may hold a password.
        detail: String,
    },
    /// The server refuses us.
    #[error(
        "the PostgreSQL server {server} refused the connection ({detail}): check the user, the \
         password and the database's name"
    )]
    Denied {
        /// `host:port/database`.
        server: String,
        /// What it said.
        detail: String,
    },
    /// The server is older than we support.
    #[error("the PostgreSQL server {server} has version {version}: version 13 or newer is needed")]
    ServerTooOld {
        /// `host:port/database`.
        server: String,
        /// Its version.
        version: String,
    },
    /// The server cannot be reached, ended the session, or is starting or stopping. Nothing of the
    /// commit was stored.
    #[error(
        "the PostgreSQL server {server} cannot be reached ({detail}): see that it runs and accepts \
         connections"
    )]
    Unreachable {
        /// `host:port/database`.
        server: String,
        /// What happened.
        detail: String,
    },
    /// The connection ended while the server was committing: the list happened, or it did not.
    #[error(
        "the connection to the PostgreSQL server {server} ended during a commit: whether it was \
         stored is not known; watchbell looks, and tries again by itself"
    )]
    AnswerLost {
        /// `host:port/database`.
        server: String,
    },
    /// All connections were in use for too long.
    #[error(
        "no connection to the PostgreSQL server {server} was free within {waited_ms} ms: look for \
         slow queries, or give the store a larger pool"
    )]
    NoConnection {
        /// `host:port/database`.
        server: String,
        /// How long we waited.
        waited_ms: u64,
    },
    /// Another session held a row or a lock for too long. Nothing of the commit was stored.
    #[error(
        "another session of the PostgreSQL server {server} held a lock for more than {waited_ms} \
         ms: look for one that is `idle in transaction` in pg_stat_activity"
    )]
    Locked {
        /// `host:port/database`.
        server: String,
        /// How long we waited.
        waited_ms: u64,
    },
    /// Concurrent transactions got into each other's way again and again. Nothing of the commit
    /// was stored.
    #[error("transactions of the PostgreSQL server {server} met too often: {detail}")]
    Contended {
        /// `host:port/database`.
        server: String,
        /// What the server said.
        detail: String,
    },
    /// A statement ran for too long and was ended. Nothing of its commit was stored.
    #[error(
        "a statement on the PostgreSQL server {server} was ended, by the limit of {limit_ms} ms or \
         by an operator"
    )]
    TimedOut {
        /// `host:port/database`.
        server: String,
        /// The limit.
        limit_ms: u64,
    },
    /// The server has no space or memory left. Nothing of the commit was stored.
    #[error(
        "the PostgreSQL server {server} has no space or memory left ({detail}), and nothing was \
         written: free some; watchbell goes on by itself"
    )]
    ServerFull {
        /// `host:port/database`.
        server: String,
        /// What the server said.
        detail: String,
    },
    /// The engine has no such operation.
    #[error("{what} is not possible on {location}: {instead}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// Of which database.
        location: String,
        /// What to do instead.
        instead: &'static str,
    },
    /// The target of a backup exists.
    #[error("{path} exists: choose another name, or remove it first")]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A backup did not pass its check.
    #[error("the copy {path} is damaged and was removed: {detail}")]
    BadCopy {
        /// The copy.
        path: PathBuf,
        /// The first problem.
        detail: String,
    },
    /// A reading thread ended in the middle of a call: what was given to it panicked.
    #[error("a reader stopped in the middle of its work: the code that handled its rows panicked")]
    ReaderLost,
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
}

impl DbError {
    /// Whether the same call may succeed later, without a change of the program or its data.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Busy { .. }
                | Self::DiskFull { .. }
                | Self::Disk { .. }
                | Self::Unreachable { .. }
                | Self::AnswerLost { .. }
                | Self::NoConnection { .. }
                | Self::Locked { .. }
                | Self::Contended { .. }
                | Self::TimedOut { .. }
                | Self::ServerFull { .. }
        )
    }

    /// Whether a unique index or primary key refused the change.
    #[must_use]
    pub const fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Constraint { kind: ConstraintKind::Unique, .. })
    }
}

fn rows(expect: &Expect) -> String {
    match expect {
        Expect::Any => "any number of".to_owned(),
        Expect::Exactly(n) => format!("exactly {n}"),
        Expect::AtLeast(n) => format!("at least {n}"),
    }
}
