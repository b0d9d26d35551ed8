//! One handle over the database, a SQLite file or a PostgreSQL server: the only crate that knows
//! how they differ.
//!
//! * SQL is written once: parameters `$1`, `$2`, ...; tables `schema.table`. The `dialect` module
//!   lists the few tokens that stand for what the engines spell differently.
//! * A write is a value: a list of [`Statement`](watchbell_core::Statement)s with what each must
//!   change. [`Database::apply`] runs it whole or not at all. On SQLite one thread owns the writing
//!   connection and commits many such lists at once (group commit), so that durability costs one
//!   disk sync for all callers who wait for it. On PostgreSQL a few connections do the same.
//! * Reads run in parallel on their own connections: [`Database::query`] for rows in memory,
//!   [`Database::scan`] for rows that stream by, [`Database::snapshot`] for several reads of one
//!   instant.
//! * The schema is a set of named [`Line`]s of migrations with recorded checksums.

mod database;
mod dialect;
mod error;
mod migrate;
mod postgres;
mod row;
mod sqlite;
pub mod transfer;

pub use database::{
    Applied, Backup, Check, Database, Description, Engine, Options, Snapshot, Synchronous,
    WriterMetrics,
};
pub use dialect::SCHEMAS;
pub use error::{ConstraintKind, DbError};
pub use migrate::{Line, Migration, Step};
pub use postgres::{Notification, Notifications, ServerOptions};
pub use row::{Cell, Row, RowRef};
