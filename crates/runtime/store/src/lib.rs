//! The runtime's own tables, and [`SqlStore`]: what the engine asks of a store, on a
//! [`Database`].
//!
//! Every write is one list of statements, applied whole or not at all; what a claim or a
//! publication must find unchanged is the expectation of a statement in its list. So nothing here
//! holds a transaction open, and the same lists run on both database engines.

mod claim;
mod event;
mod history;
mod node;
mod publish;
mod queue;
mod record;
mod session;
mod sql;
mod window;
mod word;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;

use watchbell_clock::Clock;
use watchbell_core::commit::Condition;
use watchbell_core::gate::Gate;
use watchbell_core::lifecycle::Desired;
use watchbell_core::port::{
    ArtifactRecord, BackfillRecord, Beat, Claim, ClaimRequest, CycleRecord, DeadLetter, EventQuery,
    Frontier, Hearing, NodeAnswer, NodeBeat, NodeRecord, OccurrenceRecord, Pruned, Publication,
    Recovered, Registration, Result, Retention, SeriesSummary, SessionRecord, Store, StoreError,
    SubscriberRecord, Transition, WindowChange, WindowQuery, WindowRecord, WorkerRecord,
};
use watchbell_core::schedule::Passed;
use watchbell_core::window::InputWindow;
use watchbell_core::{
    BoxFuture, Cover, Effects, EventRecord, Millis, NewEvent, SeriesName, SessionId, Time, Token,
    WorkerName,
};
use watchbell_db::{Database, DbError, Line, Migration};

use crate::node::Remembered;
use crate::queue::{Known, Together};
use crate::word::Words;

/// The migrations of the runtime's tables.
pub const LINE: Line = Line {
    name: "runtime",
    migrations: &[
        Migration {
            number: 1,
            name: "runtime",
            sql: include_str!("../migrations/0001_runtime.sql"),
        },
        Migration { number: 2, name: "queue", sql: include_str!("../migrations/0002_queue.sql") },
        Migration { number: 3, name: "nodes", sql: include_str!("../migrations/0003_nodes.sql") },
        Migration {
            number: 4,
            name: "reasons",
            sql: include_str!("../migrations/0004_reasons.sql"),
        },
        Migration { number: 5, name: "names", sql: include_str!("../migrations/0005_names.sql") },
        Migration { number: 6, name: "expiry", sql: include_str!("../migrations/0006_expiry.sql") },
    ],
};

/// The runtime's store on a database whose [`LINE`] is applied. Clones share it.
#[derive(Debug, Clone)]
pub struct SqlStore {
    db: Database,
    words: Arc<Words>,
    beat: Arc<Remembered>,
    known: Arc<Known>,
    together: Arc<Together>,
}

impl SqlStore {
    /// The store on `db`, for a process that waits for nothing: it tells other nodes what it
    /// changed, and hears nothing of them. Apply [`LINE`] first.
    #[must_use]
    pub fn new(db: Database) -> Self {
        Self::speaking(Words::deaf(&db), db)
    }

    /// The store on `db`, for a node: where other nodes can share the database, it listens to them,
    /// and gathers its own words for a moment before it sends them, by `clock`. Apply [`LINE`]
    /// first.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn listening(db: Database, clock: &Clock) -> Self {
        Self::speaking(Words::listening(&db, clock), db)
    }

    fn speaking(words: Words, db: Database) -> Self {
        Self {
            db,
            words: Arc::new(words),
            beat: Arc::default(),
            known: Arc::default(),
            together: Arc::default(),
        }
    }

    /// The database, for a workload's own tables.
    #[must_use]
    pub const fn database(&self) -> &Database {
        &self.db
    }

    /// Carries out what nobody's cycle does, and tells other nodes of it.
    async fn telling<T>(
        &self,
        effects: Effects,
        done: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let answer = done.await?;
        self.words.announce(effects).await;
        Ok(answer)
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
        register(workers: &'a [Registration], now: Time) -> Vec<WorkerRecord> = worker::register;
        transitions(worker: &'a WorkerName, limit: u32) -> Vec<Transition> = worker::transitions;
        set_blocked(worker: &'a WorkerName, gate: Option<Gate>, now: Time) -> ()
            = worker::set_blocked;
        save_restarts(worker: &'a WorkerName, restarts: serde_json::Value) -> ()
            = worker::save_restarts;
        record_passed(worker: &'a WorkerName, passed: &'a [Passed], now: Time) -> ()
            = claim::record_passed;
        renew(session: &'a SessionId, ttl: Millis, now: Time) -> Vec<WorkerName> = claim::renew;
        release(worker: &'a WorkerName, session: &'a SessionId, token: Token, now: Time) -> ()
            = claim::release;
        burn(publication: Publication) -> () = publish::burn;
        cycles(worker: Option<&'a WorkerName>, limit: u32) -> Vec<CycleRecord> = history::cycles;
        occurrences(worker: &'a WorkerName, limit: u32) -> Vec<OccurrenceRecord>
            = history::occurrences;
        frontier(series: &'a SeriesName, from: Time, to: Time) -> Frontier = window::frontier;
        window(series: &'a SeriesName, start: Time) -> Vec<WindowRecord> = window::versions;
        covers(source: &'a str) -> BTreeMap<String, Vec<Cover>> = window::covers;
        setting(key: &'a str) -> Option<serde_json::Value> = history::setting;
        set_setting(key: &'a str, value: serde_json::Value, now: Time) -> ()
            = history::set_setting;
    }

    fn open_session(&self, session: SessionRecord) -> BoxFuture<'_, Result<()>> {
        Box::pin(session::open(&self.db, session))
    }
    fn close_session<'a>(
        &'a self,
        session: &'a SessionId,
        note: &'a str,
        now: Time,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            session::close(&self.db, session, note, now).await?;
            // The process ends next: what it has not said yet is said before.
            self.words.finish(Effects { leases: true, ..Effects::default() }).await;
            Ok(())
        })
    }
    fn recover<'a>(
        &'a self,
        session: &'a SessionId,
        exclusive: bool,
        now: Time,
    ) -> BoxFuture<'a, Result<Recovered>> {
        Box::pin(session::recover(&self.db, session, exclusive, now))
    }
    fn beat_node(&self, beat: NodeBeat, now: Time) -> BoxFuture<'_, Result<NodeAnswer>> {
        Box::pin(async move {
            let answer = node::beat(&self.db, &self.beat, beat, now).await?;
            if answer.lost > 0 {
                self.words.tell(&Effects { leases: true, ..Effects::default() });
            }
            Ok(answer)
        })
    }
    fn nodes(&self, now: Time) -> BoxFuture<'_, Result<Vec<NodeRecord>>> {
        Box::pin(node::list(&self.db, now))
    }
    fn tell(&self, effects: &Effects) {
        self.words.tell(effects);
    }
    fn told(&self) -> BoxFuture<'_, Effects> {
        Box::pin(self.words.told())
    }
    fn hears(&self) -> Hearing {
        self.words.hears()
    }
    fn is_exhausted(&self, error: &StoreError) -> bool {
        let StoreError::Database(cause) = error else { return false };
        matches!(
            cause.downcast_ref(),
            Some(DbError::Busy { .. } | DbError::NoConnection { .. } | DbError::Locked { .. })
        )
    }
    fn sessions(&self, limit: u32) -> BoxFuture<'_, Result<Vec<SessionRecord>>> {
        Box::pin(session::list(&self.db, limit))
    }
    fn workers(&self) -> BoxFuture<'_, Result<Vec<WorkerRecord>>> {
        Box::pin(worker::list(&self.db))
    }
    fn set_desired<'a>(
        &'a self,
        worker: &'a WorkerName,
        desired: Desired,
        by: &'a str,
        now: Time,
    ) -> BoxFuture<'a, Result<()>> {
        let effects = Effects { desired: true, ..Effects::default() };
        Box::pin(self.telling(effects, worker::set_desired(&self.db, worker, desired, by, now)))
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
        Box::pin(self.together.publish(&self.db, &self.known, publication))
    }
    fn windows(&self, query: WindowQuery) -> BoxFuture<'_, Result<Vec<WindowRecord>>> {
        Box::pin(window::list(&self.db, query))
    }
    fn windows_over<'a>(
        &'a self,
        series: &'a SeriesName,
        from: Time,
        to: Time,
    ) -> BoxFuture<'a, Result<Vec<InputWindow>>> {
        Box::pin(window::over(&self.db, series, from, to))
    }
    fn series(&self) -> BoxFuture<'_, Result<BTreeMap<SeriesName, SeriesSummary>>> {
        Box::pin(window::series(&self.db))
    }
    fn correct_window<'a>(
        &'a self,
        series: &'a SeriesName,
        start: Time,
        reason: &'a str,
        now: Time,
    ) -> BoxFuture<'a, Result<WindowRecord>> {
        let mut effects = Effects { series: [series.clone()].into(), ..Effects::default() };
        effects.events.insert(window::CORRECTED.to_owned());
        Box::pin(self.telling(effects, window::correct(&self.db, series, start, reason, now)))
    }
    fn change_window(
        &self,
        change: WindowChange,
        now: Time,
    ) -> BoxFuture<'_, Result<WindowRecord>> {
        let mut effects = Effects { series: [change.series.clone()].into(), ..Effects::default() };
        effects.events.extend([window::ABANDONED, window::RETRIED].map(str::to_owned));
        Box::pin(self.telling(effects, window::change(&self.db, change, now)))
    }
    fn request_backfill<'a>(
        &'a self,
        series: &'a SeriesName,
        from: Time,
        to: Time,
        by: &'a str,
        now: Time,
    ) -> BoxFuture<'a, Result<BackfillRecord>> {
        let effects = Effects { series: [series.clone()].into(), ..Effects::default() };
        Box::pin(
            self.telling(effects, window::request_backfill(&self.db, series, from, to, by, now)),
        )
    }
    fn advance_backfill(&self, id: i64, cursor: Time, now: Time) -> BoxFuture<'_, Result<()>> {
        Box::pin(window::advance_backfill(&self.db, id, cursor, now))
    }
    fn backfills(&self, unfinished: bool) -> BoxFuture<'_, Result<Vec<BackfillRecord>>> {
        Box::pin(window::backfills(&self.db, unfinished))
    }
    fn emit<'a>(&'a self, events: Vec<NewEvent>, now: Time) -> BoxFuture<'a, Result<Vec<i64>>> {
        let kinds = events.iter().map(|e| e.kind.clone()).collect();
        let effects = Effects { events: kinds, ..Effects::default() };
        Box::pin(self.telling(effects, event::emit(&self.db, events, now)))
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
        Box::pin(async move {
            let kind = event::redrive(&self.db, id, now).await?;
            self.words.announce(Effects { events: [kind].into(), ..Effects::default() }).await;
            Ok(())
        })
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
