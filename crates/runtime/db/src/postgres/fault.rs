//! What the server refused, in our words.

use std::error::Error as _;

use deadpool_postgres::{PoolError, TimeoutType};
use tokio_postgres::error::{DbError as Reported, SqlState};

use crate::error::{ConstraintKind, DbError};

/// Our own triggers raise with this state.
const TRIGGER: &str = "WB001";

/// What the messages name.
#[derive(Debug)]
pub(super) struct Server {
    /// `host:port/database`.
    pub(super) location: String,
    pub(super) pool_timeout_ms: u64,
    pub(super) statement_timeout_ms: u64,
    pub(super) lock_timeout_ms: u64,
}

/// An error before it knows its statement.
#[derive(Debug)]
pub(super) enum Failure {
    Engine(tokio_postgres::Error),
    Told(DbError),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(e: tokio_postgres::Error) -> Self {
        Self::Engine(e)
    }
}
impl From<DbError> for Failure {
    fn from(e: DbError) -> Self {
        Self::Told(e)
    }
}

impl Failure {
    pub(super) fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Engine(e) => e.code(),
            Self::Told(_) => None,
        }
    }

    /// A prepared statement that the schema, or the server, has outlived: prepare it again.
    pub(super) fn is_stale(&self) -> bool {
        let Self::Engine(e) = self else { return false };
        e.as_db_error().is_some_and(|e| {
            *e.code() == SqlState::INVALID_SQL_STATEMENT_NAME
                || *e.code() == SqlState::FEATURE_NOT_SUPPORTED
                    && e.routine() == Some("RevalidateCachedQuery")
        })
    }

    /// The statement speaks of something that is not there (yet).
    pub(super) fn is_undefined(&self) -> bool {
        self.code().is_some_and(|code| {
            [
                SqlState::UNDEFINED_TABLE,
                SqlState::UNDEFINED_COLUMN,
                SqlState::UNDEFINED_FUNCTION,
                SqlState::UNDEFINED_OBJECT,
                SqlState::INVALID_SCHEMA_NAME,
            ]
            .contains(code)
        })
    }

    /// One statement would change one row twice, as only a list of rows does.
    pub(super) fn is_second_change(&self) -> bool {
        self.code() == Some(&SqlState::CARDINALITY_VIOLATION)
    }

    /// The connection ended without a word about this request.
    pub(super) fn is_silence(&self) -> bool {
        match self {
            Self::Engine(e) => {
                e.as_db_error().is_none() && (e.is_closed() || caused_by_io(e)) || {
                    e.code().is_some_and(is_gone)
                }
            }
            Self::Told(_) => false,
        }
    }
}

/// The statement that failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) index: usize,
    pub(super) target: &'a str,
    pub(super) sql: &'a str,
}

impl Server {
    pub(super) fn unreachable(&self, detail: impl Into<String>) -> DbError {
        DbError::Unreachable { server: self.location.clone(), detail: detail.into() }
    }

    /// No connection could be had.
    pub(super) fn no_connection(&self, error: PoolError) -> DbError {
        match error {
            PoolError::Timeout(TimeoutType::Wait) => DbError::NoConnection {
                server: self.location.clone(),
                waited_ms: self.pool_timeout_ms,
            },
            PoolError::Timeout(TimeoutType::Create | TimeoutType::Recycle) => {
                self.unreachable("no answer in time")
            }
            PoolError::Backend(error) => self.engine(&error),
            PoolError::Closed => DbError::Closed,
            other => self.unreachable(other.to_string()),
        }
    }

    /// An error that no statement caused.
    pub(super) fn engine(&self, error: &tokio_postgres::Error) -> DbError {
        match error.as_db_error() {
            Some(reported) => self.of_server(reported).unwrap_or_else(|| DbError::Denied {
                server: self.location.clone(),
                detail: reported.message().to_owned(),
            }),
            None => self.unreachable(words(error)),
        }
    }

    /// The error of a statement.
    pub(super) fn refusal(&self, place: Place<'_>, failure: Failure) -> DbError {
        let error = match failure {
            Failure::Told(told) => return told,
            Failure::Engine(error) => error,
        };
        let target = place.target.to_owned();
        let Some(reported) = error.as_db_error() else {
            if error.is_closed() || caused_by_io(&error) {
                return self.unreachable(words(&error));
            }
            return DbError::Statement { target, detail: words(&error), sql: one_line(place.sql) };
        };
        if let Some(told) = self.of_server(reported) {
            return told;
        }
        let mut detail = reported.message().to_owned();
        if let Some(more) = reported.detail() {
            detail.push_str(": ");
            detail.push_str(more);
        }
        match constraint(reported.code()) {
            Some(kind) => DbError::Constraint { index: place.index, target, kind, detail },
            None => DbError::Statement { target, detail, sql: one_line(place.sql) },
        }
    }

    /// An error that concerns the server or the session, not the statement.
    fn of_server(&self, reported: &Reported) -> Option<DbError> {
        let code = reported.code();
        let server = self.location.clone();
        let detail = reported.message().to_owned();
        Some(if is_gone(code) {
            DbError::Unreachable { server, detail }
        } else if *code == SqlState::T_R_SERIALIZATION_FAILURE
            || *code == SqlState::T_R_DEADLOCK_DETECTED
        {
            DbError::Contended { server, detail }
        } else if *code == SqlState::LOCK_NOT_AVAILABLE {
            DbError::Locked { server, waited_ms: self.lock_timeout_ms }
        } else if *code == SqlState::QUERY_CANCELED {
            DbError::TimedOut { server, limit_ms: self.statement_timeout_ms }
        } else if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
            DbError::ReadOnly { location: server }
        } else if *code == SqlState::DISK_FULL || *code == SqlState::OUT_OF_MEMORY {
            DbError::ServerFull { server, detail }
        } else if code.code().starts_with("28") || *code == SqlState::UNDEFINED_DATABASE {
            DbError::Denied { server, detail }
        } else {
            return None;
        })
    }
}

/// The session is over, or none can be had now.
fn is_gone(code: &SqlState) -> bool {
    code.code().starts_with("08")
        || [
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
        ]
        .contains(code)
}

fn caused_by_io(error: &tokio_postgres::Error) -> bool {
    error.source().is_some_and(|cause| cause.is::<std::io::Error>())
}

/// The error and its causes on one line.
fn words(error: &tokio_postgres::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

fn one_line(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn constraint(code: &SqlState) -> Option<ConstraintKind> {
    Some(match code.code() {
        "23505" => ConstraintKind::Unique,
        "23502" => ConstraintKind::NotNull,
        // Also what cannot be read as the column's type, such as text that is no JSON.
        "23514" | "22P02" | "22P05" | "22003" | "22021" => ConstraintKind::Check,
        "23503" => ConstraintKind::ForeignKey,
        TRIGGER => ConstraintKind::Trigger,
        other if other.starts_with("23") => ConstraintKind::Other,
        _ => return None,
    })
}
