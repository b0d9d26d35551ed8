//! `cin-desk`: what an operator asks of the ledger, as jobs. Spec: sections 8.2, 8.5, 8.6 and 10.
//!
//! | kind | does |
//! |---|---|
//! | `session.open` | opens a session with its balances and lots |
//! | `session.move` | does a planned move |
//! | `session.mark` | values what one or all open sessions hold |
//! | `wallet.refresh` | sets a session that has no move yet to what the account holds |
//! | `session.close` | books what is left, values everything, and closes: one commit |
//! | `session.retry` | closes a session whose close had failed |
//! | `ledger.import` | stores the account's trades of a CSV file |
//!
//! A job that succeeds carries the number of its session in its result. A request that cannot be met
//! fails at once and for good, with the reason; a close that cannot be done leaves the session in
//! `ERROR` with the reason, and `session.retry` tries it again.

mod closing;
mod opening;
mod planned;
mod request;

use std::collections::BTreeMap;

use serde_json::json;
use watchbell_core::{
    BoxFuture, Commit, Cycle, CycleInput, Definition, Done, Fault, QueueSpec, Trigger, Worker,
};
use watchbell_db::Database;

use self::request::{Closing, File, One, OneOrAll, Planned, read, unreadable};
use super::marks;
use super::prices::Prices;
use super::session::{self, Session, Status};
use crate::account;

/// Name of the worker.
pub const CIN_DESK: &str = "cin-desk";
/// Opens a session.
pub const SESSION_OPEN: &str = "session.open";
/// Closes a session.
pub const SESSION_CLOSE: &str = "session.close";
/// Closes a session whose close had failed.
pub const SESSION_RETRY: &str = "session.retry";
/// Does a planned move.
pub const SESSION_MOVE: &str = "session.move";
/// Values what sessions hold.
pub const SESSION_MARK: &str = "session.mark";
/// Sets a session to what the account holds.
pub const WALLET_REFRESH: &str = "wallet.refresh";
/// Stores the account's trades of a CSV file.
pub const LEDGER_IMPORT: &str = "ledger.import";

/// The worker.
pub(crate) struct Desk {
    db: Database,
}

pub(crate) fn definition() -> Definition {
    let spec = QueueSpec { kinds: request::kinds(), concurrency: 1, prefetch: 0 };
    Definition::new(CIN_DESK, Trigger::Queue(spec)).describe(
        "Opens, moves, marks and closes the sessions of the ledger, as an operator asks for.",
    )
}

impl Desk {
    pub(crate) const fn new(db: Database) -> Self {
        Self { db }
    }

    async fn serve(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let CycleInput::Job { kind, payload } = &cycle.input else {
            return Err(Fault::permanent("the desk of the ledger serves jobs only"));
        };
        let db = &self.db;
        match kind.as_str() {
            SESSION_OPEN => opening::open(db, cycle, read(payload)?).await,
            SESSION_CLOSE | SESSION_RETRY => {
                let wanted: Closing = read(payload)?;
                let must = if kind == SESSION_CLOSE { Status::Open } else { Status::Error };
                let session = self.find(wanted.session_id, must).await?;
                closing::close(db, cycle, &session, wanted.accept_unbooked).await
            }
            SESSION_MOVE => {
                let wanted: Planned = read(payload)?;
                let session = self.find(wanted.session_id, Status::Open).await?;
                planned::execute(db, cycle, &session, wanted).await
            }
            SESSION_MARK => self.mark(cycle, read(payload)?).await,
            WALLET_REFRESH => {
                let One { session_id } = read(payload)?;
                opening::refresh(db, cycle, &self.find(session_id, Status::Open).await?).await
            }
            LEDGER_IMPORT => self.import(cycle, read(payload)?).await,
            other => Err(Fault::permanent(format!("the desk of the ledger knows no `{other}`"))),
        }
    }

    /// The session of that number, if it stands as it must.
    async fn find(&self, id: i64, must: Status) -> Result<Session, Fault> {
        let Some(session) = session::load(&self.db, id).await? else {
            return Err(Fault::not_found("session", id));
        };
        if session.status == must {
            return Ok(session);
        }
        let todo = match session.status {
            Status::Open => "close it with session.close",
            Status::Error => "its close failed: see its error, then use session.retry",
            Status::Closed => "a closed session stays as it is",
        };
        Err(Fault::conflict(format!("session {id} is {}: {todo}", session.status.as_str())))
    }

    async fn import(&self, cycle: &Cycle, wanted: File) -> Result<Done, Fault> {
        let File { file, csv, account } = wanted;
        let read =
            account::read_csv(&self.db, csv.as_bytes(), account.as_deref(), cycle.now()).await;
        let (imported, statements) = match read {
            Ok(read) => read,
            Err(account::CsvError::Database(e)) => return Err(e.into()),
            Err(e) => {
                let differ = matches!(e, account::CsvError::Differ(_));
                let of = if file.is_empty() { String::new() } else { format!("{file}: ") };
                let said = format!("{of}{e}");
                return Err(if differ { Fault::conflict(said) } else { Fault::invalid(said) });
            }
        };
        let mut commit = Commit::new();
        commit.statements = statements;
        let summary = json!({ "file": file, "rows": imported.rows, "added": imported.added });
        Ok(Done::new(summary, commit))
    }

    async fn mark(&self, cycle: &Cycle, wanted: OneOrAll) -> Result<Done, Fault> {
        let sessions = match wanted.session_id {
            Some(id) => vec![self.find(id, Status::Open).await?],
            None => session::open(&self.db).await?,
        };
        let mut prices = Prices::new(&self.db);
        let mut commit = Commit::new();
        let mut marked = BTreeMap::new();
        for session in sessions {
            let balances = session::balances(&self.db, session.id).await.map_err(unreadable)?;
            let marks = marks::take(session.id, &balances, &mut prices, cycle.now()).await;
            let marks = marks.map_err(unreadable)?;
            commit.push(session.guard());
            commit.statements.extend(marks.statement);
            marked.insert(session.id, marks.bulk.len());
        }
        Ok(Done::new(json!({ "marked": marked }), commit))
    }
}

impl Worker for Desk {
    fn define(&self) -> Definition {
        definition()
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.serve(cycle))
    }
}
