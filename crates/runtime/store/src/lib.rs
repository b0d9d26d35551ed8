//! The runtime's own tables, and [`SqlStore`]: what the engine asks of a store, on a
//! [`Database`].
//!
//! Every write is one list of statements, applied whole or not at all; what a claim or a
//! publication must find unchanged is the expectation of a statement in its list. So nothing here
//! holds a transaction open, and the same lists run on both database engines.

mod claim;
mod event;
mod history;
mod job;
mod publish;
mod record;
mod session;
mod sql;
mod window;
mod worker;

use std::collections::BTreeMap;

use watchbell_core::commit::Condition;
use watchbell_core::gate::Gate;
use watchbell_core::lifecycle::Desired;
use watchbell_core::port::{
    ArtifactRecord, BackfillRecord, Beat, Claim, ClaimRequest, CycleRecord, DeadLetter, EventQuery,
    Frontier, JobQuery, JobRecord, OccurrenceRecord, Pruned, Publication, Recovered, Registration,
    Result, Retention, SeriesSummary, SessionRecord, Store, SubscriberRecord, Transition,
    WindowQuery, WindowRecord, WorkerRecord,
};
use watchbell_core::schedule::Passed;
use watchbell_core::{
    BoxFuture, Cover, EventRecord, Millis, NewEvent, NewJob, SeriesName, SessionId, Time,
    WorkerName,
};
use watchbell_db::{Database, Line, Migration};

/// The migrations of the runtime's tables.
pub const LINE: Line = Line {
    name: "runtime",
    migrations: &[Migration {
        number: 1,
        name: "runtime",
        sql: include_str!("../migrations/0001_runtime.sql"),
    }],
};

/// The runtime's store on a database whose [`LINE`] is applied.
#[derive(Debug, Clone)]
pub struct SqlStore {
    db: Database,
}

impl SqlStore {
    /// The store on `db`. Apply [`LINE`] first.
    #[must_use]
    pub const fn new(db: Database) -> Self {
        Self { db }
    }

    /// The database, for a workload's own tables.
    #[must_use]
    pub const fn database(&self) -> &Database {
        &self.db
    }
}

/// Each method of the trait, carried out by the inherent one of the module that owns its tables.
macro_rules! deliver {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty = $call:path;)+) => {
        $(fn $name<'a>(&'a self, $($arg: $type),*) -> BoxFuture<'a, Result<$out>> {
            Box::pin($call(&self.db, $($arg),*))
        })+
    };
}

impl Store for SqlStore {
    deliver! {
        close_session(session: &'a SessionId, note: &'a str, now: Time) -> () = session::close;
        recover(session: &'a SessionId, exclusive: bool, now: Time) -> Recovered = session::recover;
        register(workers: &'a [Registration], now: Time) -> Vec<WorkerRecord> = worker::register;
        set_desired(worker: &'a WorkerName, desired: Desired, by: &'a str, now: Time) -> ()
            = worker::set_desired;
        transitions(worker: &'a WorkerName, limit: u32) -> Vec<Transition> = worker::transitions;
        set_blocked(worker: &'a WorkerName, gate: Option<Gate>, now: Time) -> ()
            = worker::set_blocked;
        save_restarts(worker: &'a WorkerName, restarts: serde_json::Value) -> ()
            = worker::save_restarts;
        record_passed(worker: &'a WorkerName, passed: &'a [Passed], now: Time) -> ()
            = claim::record_passed;
        renew(session: &'a SessionId, ttl: Millis, now: Time) -> Vec<WorkerName> = claim::renew;
        burn(publication: Publication) -> () = publish::burn;
        cycles(worker: Option<&'a WorkerName>, limit: u32) -> Vec<CycleRecord> = history::cycles;
        occurrences(worker: &'a WorkerName, limit: u32) -> Vec<OccurrenceRecord>
            = history::occurrences;
        frontier(series: &'a SeriesName, from: Time, to: Time) -> Frontier = window::frontier;
        window(series: &'a SeriesName, start: Time) -> Vec<WindowRecord> = window::versions;
        correct_window(series: &'a SeriesName, start: Time, reason: &'a str, now: Time)
            -> WindowRecord = window::correct;
        covers(source: &'a str) -> BTreeMap<String, Vec<Cover>> = window::covers;
        request_backfill(series: &'a SeriesName, from: Time, to: Time, by: &'a str, now: Time)
            -> BackfillRecord = window::request_backfill;
        emit(events: Vec<NewEvent>, now: Time) -> Vec<i64> = event::emit;
        setting(key: &'a str) -> Option<serde_json::Value> = history::setting;
        set_setting(key: &'a str, value: serde_json::Value, now: Time) -> ()
            = history::set_setting;
    }

    fn open_session(&self, session: SessionRecord) -> BoxFuture<'_, Result<()>> {
        Box::pin(session::open(&self.db, session))
    }
    fn sessions(&self, limit: u32) -> BoxFuture<'_, Result<Vec<SessionRecord>>> {
        Box::pin(session::list(&self.db, limit))
    }
    fn workers(&self) -> BoxFuture<'_, Result<Vec<WorkerRecord>>> {
        Box::pin(worker::list(&self.db))
    }
    fn transition(&self, transitions: Vec<Transition>) -> BoxFuture<'_, Result<()>> {
        Box::pin(worker::transition(&self.db, transitions))
    }
    fn beat(&self, beats: Vec<Beat>) -> BoxFuture<'_, Result<()>> {
        Box::pin(worker::beat(&self.db, beats))
    }
    fn claim(&self, request: ClaimRequest) -> BoxFuture<'_, Result<Claim>> {
        Box::pin(claim::claim(&self.db, request))
    }
    fn publish(&self, publication: Publication) -> BoxFuture<'_, Result<()>> {
        Box::pin(publish::publish(&self.db, publication))
    }
    fn windows(&self, query: WindowQuery) -> BoxFuture<'_, Result<Vec<WindowRecord>>> {
        Box::pin(window::list(&self.db, query))
    }
    fn series(&self) -> BoxFuture<'_, Result<BTreeMap<SeriesName, SeriesSummary>>> {
        Box::pin(window::series(&self.db))
    }
    fn advance_backfill(&self, id: i64, cursor: Time, now: Time) -> BoxFuture<'_, Result<()>> {
        Box::pin(window::advance_backfill(&self.db, id, cursor, now))
    }
    fn backfills(&self, unfinished: bool) -> BoxFuture<'_, Result<Vec<BackfillRecord>>> {
        Box::pin(window::backfills(&self.db, unfinished))
    }
    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<Vec<EventRecord>>> {
        Box::pin(event::list(&self.db, query))
    }
    fn subscribers(&self) -> BoxFuture<'_, Result<Vec<SubscriberRecord>>> {
        Box::pin(event::subscribers(&self.db))
    }
    fn dead_letters(&self, limit: u32) -> BoxFuture<'_, Result<Vec<DeadLetter>>> {
        Box::pin(event::dead_letters(&self.db, limit))
    }
    fn redrive(&self, id: i64, now: Time) -> BoxFuture<'_, Result<()>> {
        Box::pin(event::redrive(&self.db, id, now))
    }
    fn enqueue(&self, jobs: Vec<NewJob>, now: Time) -> BoxFuture<'_, Result<Vec<Option<i64>>>> {
        Box::pin(job::enqueue(&self.db, jobs, now))
    }
    fn jobs(&self, query: JobQuery) -> BoxFuture<'_, Result<Vec<JobRecord>>> {
        Box::pin(job::list(&self.db, query))
    }
    fn job(&self, id: i64) -> BoxFuture<'_, Result<Option<JobRecord>>> {
        Box::pin(job::get(&self.db, id))
    }
    fn conditions(&self) -> BoxFuture<'_, Result<Vec<(Condition, Time)>>> {
        Box::pin(history::conditions(&self.db))
    }
    fn prune(&self, keep: Retention, max_rows: u32, now: Time) -> BoxFuture<'_, Result<Pruned>> {
        Box::pin(history::prune(&self.db, keep, max_rows, now))
    }
    fn artifacts(&self, limit: u32) -> BoxFuture<'_, Result<Vec<ArtifactRecord>>> {
        Box::pin(history::artifacts(&self.db, limit))
    }
}
