//! SQLite: one writing thread, reading threads as they are needed.

mod connection;
mod readers;
pub(crate) mod upkeep;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;
use watchbell_core::Statement;

use crate::database::{Applied, Durability, Options, Synchronous, WriterMetrics};
use crate::error::DbError;
use connection::{Connection, Opener};
use readers::Readers;
pub(crate) use readers::Session;
use writer::{Order, Writer};

/// An open file.
pub(crate) struct Sqlite {
    opener: Arc<Opener>,
    writer: Option<Writer>,
    closed: AtomicBool,
    /// For queries with short answers.
    pub(crate) queries: Readers,
    /// For scans and snapshots, which may be long: they do not hold up the queries.
    pub(crate) sessions: Readers,
    pub(crate) synchronous: Synchronous,
}

impl Sqlite {
    pub(crate) fn open(options: &Options) -> Result<Self, DbError> {
        let opener = Arc::new(Opener::new(options));
        let raw = opener.first()?;
        let writer = if options.read_only { None } else { Some(Writer::start(raw, &opener)?) };
        let readers = options.readers.max(1);
        Ok(Self {
            queries: Readers::new(&opener, readers),
            sessions: Readers::new(&opener, readers * 2),
            opener,
            writer,
            closed: AtomicBool::new(false),
            synchronous: options.synchronous,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.opener.path
    }

    fn writer(&self) -> Result<&Writer, DbError> {
        match &self.writer {
            Some(_) if self.closed.load(Ordering::Acquire) => Err(DbError::Closed),
            Some(writer) => Ok(writer),
            None => Err(DbError::ReadOnly { location: self.opener.path.display().to_string() }),
        }
    }

    pub(crate) async fn apply(
        &self,
        statements: Vec<Statement>,
        durability: Durability,
    ) -> Result<Applied, DbError> {
        let (answer, answered) = oneshot::channel();
        self.writer()?.send(Order::Apply(writer::Job { statements, durability, answer }))?;
        answered.await.map_err(|_| DbError::Closed)?
    }

    /// Runs something on the writing connection, outside any transaction.
    pub(crate) async fn on_writer<T: Send + 'static>(
        &self,
        work: impl for<'c> FnOnce(&mut Connection<'c>) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        let (answer, answered) = oneshot::channel();
        // A caller that went away wants no answer.
        self.writer()?.send(Order::Run(Box::new(move |c| drop(answer.send(work(c))))))?;
        answered.await.map_err(|_| DbError::Closed)?
    }

    pub(crate) fn metrics(&self) -> WriterMetrics {
        self.writer.as_ref().map(Writer::metrics).unwrap_or_default()
    }

    pub(crate) async fn close(&self) -> Result<(), DbError> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.queries.close();
        self.sessions.close();
        let Some(writer) = &self.writer else { return Ok(()) };
        let (answer, answered) = oneshot::channel();
        writer.send(Order::Close(answer))?;
        answered.await.map_err(|_| DbError::Closed)?
    }
}
