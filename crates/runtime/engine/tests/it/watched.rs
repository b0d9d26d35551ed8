//! A store that counts what is asked of it, knows when nothing is under way, and fails on request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use watchbell_core::commit::Condition;
use watchbell_core::gate::Gate;
use watchbell_core::lifecycle::Desired;
use watchbell_core::port::{
    ArtifactRecord, BackfillRecord, Beat, Claim, ClaimRequest, CycleRecord, DeadLetter, EventQuery,
    Frontier, JobQuery, JobRecord, OccurrenceRecord, Pruned, Publication, Recovered, Registration,
    Result, Retention, SeriesSummary, SessionRecord, Store, StoreError, SubscriberRecord,
    Transition, WindowQuery, WindowRecord, WorkerRecord,
};
use watchbell_core::schedule::Passed;
use watchbell_core::{
    BoxFuture, Cover, EventRecord, Millis, NewEvent, NewJob, SeriesName, SessionId, Time,
    WorkerName,
};
use watchbell_store::SqlStore;

/// Where a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// Nothing was written.
    Before,
    /// It was written, and the answer got lost.
    After,
}

/// What the test and the store share.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    state: Mutex<State>,
    landed: Notify,
}

#[derive(Debug, Default)]
struct State {
    in_flight: usize,
    activity: u64,
    counts: BTreeMap<&'static str, u64>,
    faults: Vec<(&'static str, u32, At)>,
}

impl Flight {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something moved.
    pub(crate) fn mark(&self) {
        self.state().activity += 1;
    }

    /// Lets the next `n` calls of `method` fail.
    pub(crate) fn fail(&self, method: &'static str, n: u32, at: At) {
        self.state().faults.push((method, n, at));
    }

    /// Calls so far, by method.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.state().counts.clone()
    }

    /// Waits until no call is under way and the tasks of this thread have nothing left to do but
    /// to wait for the clock.
    pub(crate) async fn quiet(&self) {
        loop {
            let before = self.state().activity;
            for _ in 0..24 {
                tokio::task::yield_now().await;
            }
            let landed = self.landed.notified();
            tokio::pin!(landed);
            landed.as_mut().enable();
            let (busy, moved) = {
                let state = self.state();
                (state.in_flight > 0, state.activity != before)
            };
            if busy {
                landed.await;
            } else if !moved {
                return;
            }
        }
    }
}

/// Counts a call while it lives, also one that is dropped half way.
struct Call<'a>(&'a Flight);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.in_flight -= 1;
        state.activity += 1;
        drop(state);
        self.0.landed.notify_waiters();
    }
}

/// The store under watch.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) inner: SqlStore,
    pub(crate) flight: Arc<Flight>,
}

impl Watched {
    async fn call<T>(&self, method: &'static str, work: BoxFuture<'_, Result<T>>) -> Result<T> {
        let fault = {
            let mut state = self.flight.state();
            state.in_flight += 1;
            state.activity += 1;
            *state.counts.entry(method).or_default() += 1;
            let due = state.faults.iter_mut().find(|(m, n, _)| *m == method && *n > 0);
            due.map(|fault| {
                fault.1 -= 1;
                fault.2
            })
        };
        let _call = Call(&self.flight);
        if fault == Some(At::Before) {
            return Err(StoreError::Database("the disk is full".into()));
        }
        let answer = work.await?;
        match fault {
            Some(At::After) => Err(StoreError::Database("the answer got lost".into())),
            _ => Ok(answer),
        }
    }
}

macro_rules! watch {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)+) => {
        $(fn $name<'a>(&'a self, $($arg: $type),*) -> BoxFuture<'a, Result<$out>> {
            Box::pin(self.call(stringify!($name), self.inner.$name($($arg),*)))
        })+
    };
}

impl Store for Watched {
    watch! {
        open_session(session: SessionRecord) -> ();
        close_session(session: &'a SessionId, note: &'a str, now: Time) -> ();
        recover(session: &'a SessionId, exclusive: bool, now: Time) -> Recovered;
        sessions(limit: u32) -> Vec<SessionRecord>;
        register(workers: &'a [Registration], now: Time) -> Vec<WorkerRecord>;
        workers() -> Vec<WorkerRecord>;
        set_desired(worker: &'a WorkerName, desired: Desired, by: &'a str, now: Time) -> ();
        transition(transitions: Vec<Transition>) -> ();
        transitions(worker: &'a WorkerName, limit: u32) -> Vec<Transition>;
        set_blocked(worker: &'a WorkerName, gate: Option<Gate>, now: Time) -> ();
        save_restarts(worker: &'a WorkerName, restarts: serde_json::Value) -> ();
        beat(beats: Vec<Beat>) -> ();
        claim(request: ClaimRequest) -> Claim;
        record_passed(worker: &'a WorkerName, passed: &'a [Passed], now: Time) -> ();
        renew(session: &'a SessionId, ttl: Millis, now: Time) -> Vec<WorkerName>;
        burn(publication: Publication) -> ();
        publish(publication: Publication) -> ();
        cycles(worker: Option<&'a WorkerName>, limit: u32) -> Vec<CycleRecord>;
        occurrences(worker: &'a WorkerName, limit: u32) -> Vec<OccurrenceRecord>;
        frontier(series: &'a SeriesName, from: Time, to: Time) -> Frontier;
        windows(query: WindowQuery) -> Vec<WindowRecord>;
        window(series: &'a SeriesName, start: Time) -> Vec<WindowRecord>;
        series() -> BTreeMap<SeriesName, SeriesSummary>;
        correct_window(series: &'a SeriesName, start: Time, reason: &'a str, now: Time)
            -> WindowRecord;
        covers(source: &'a str) -> BTreeMap<String, Vec<Cover>>;
        request_backfill(series: &'a SeriesName, from: Time, to: Time, by: &'a str, now: Time)
            -> BackfillRecord;
        advance_backfill(id: i64, cursor: Time, now: Time) -> ();
        backfills(unfinished: bool) -> Vec<BackfillRecord>;
        emit(events: Vec<NewEvent>, now: Time) -> Vec<i64>;
        events(query: EventQuery) -> Vec<EventRecord>;
        subscribers() -> Vec<SubscriberRecord>;
        dead_letters(limit: u32) -> Vec<DeadLetter>;
        redrive(id: i64, now: Time) -> ();
        enqueue(jobs: Vec<NewJob>, now: Time) -> Vec<Option<i64>>;
        jobs(query: JobQuery) -> Vec<JobRecord>;
        job(id: i64) -> Option<JobRecord>;
        conditions() -> Vec<(Condition, Time)>;
        prune(keep: Retention, max_rows: u32, now: Time) -> Pruned;
        artifacts(limit: u32) -> Vec<ArtifactRecord>;
        setting(key: &'a str) -> Option<serde_json::Value>;
        set_setting(key: &'a str, value: serde_json::Value, now: Time) -> ();
    }
}
