//! A store that counts what is asked of it, knows when nothing is under way, and fails on request.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, mpsc};
use watchbell_core::commit::Condition;
use watchbell_core::gate::Gate;
use watchbell_core::lifecycle::Desired;
use watchbell_core::port::{
    ArtifactRecord, AttemptRecord, BackfillRecord, Beat, Claim, ClaimRequest, CycleRecord,
    DeadLetter, Enqueued, EventQuery, Frontier, Grant, Hearing, HeldJob, JobBatch, JobChange,
    JobChanged, JobClaim, JobEnd, JobProgress, JobQuery, JobRecord, KindRecord, KindStats,
    NodeAnswer, NodeBeat, NodeRecord, OccurrenceRecord, Pruned, Publication, Queue, Recovered,
    Registration, Result, Retention, SeriesSummary, SessionRecord, Store, StoreError,
    SubscriberRecord, Transition, WindowChange, WindowQuery, WindowRecord, WorkerRecord,
};
use watchbell_core::schedule::Passed;
use watchbell_core::window::InputWindow;
use watchbell_core::{
    BoxFuture, Cause, Cover, CycleId, CycleInput, Effects, EventRecord, Millis, NewEvent, NewJob,
    SeriesName, SessionId, Time, Token, WorkerName,
};
use watchbell_store::SqlStore;

/// What a call says that found no connection.
pub(crate) const EXHAUSTED: &str = "no connection was free";

/// Where a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// Nothing was written.
    Before,
    /// It was written, and the answer got lost.
    After,
    /// Nothing was written, for no connection was free.
    Exhausted,
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

/// How nodes hear each other: what one tells, the others are told.
#[derive(Debug, Default)]
pub(crate) struct Wire(Mutex<Vec<mpsc::UnboundedSender<Effects>>>);

/// The store under watch, as one node has it.
pub(crate) struct Watched {
    pub(crate) inner: SqlStore,
    pub(crate) flight: Arc<Flight>,
    hearing: Hearing,
    wire: Arc<Wire>,
    /// Its end of the wire.
    own: mpsc::UnboundedSender<Effects>,
    told: tokio::sync::Mutex<mpsc::UnboundedReceiver<Effects>>,
    severed: AtomicBool,
    healed: Notify,
    /// Jobs that cost the store nothing: so many are still to be claimed.
    free: AtomicI64,
}

impl Watched {
    pub(crate) fn new(inner: SqlStore, flight: Arc<Flight>) -> Self {
        Self::on(Arc::default(), Hearing::Alone, inner, flight)
    }

    fn on(wire: Arc<Wire>, hearing: Hearing, inner: SqlStore, flight: Arc<Flight>) -> Self {
        let (own, told) = mpsc::unbounded_channel();
        if hearing == Hearing::Listening {
            wire.0.lock().unwrap_or_else(PoisonError::into_inner).push(own.clone());
        }
        let (told, severed) = (tokio::sync::Mutex::new(told), AtomicBool::new(false));
        let (healed, free) = (Notify::new(), AtomicI64::new(0));
        Self { inner, flight, hearing, wire, own, told, severed, healed, free }
    }

    /// The same store as another node has it.
    pub(crate) fn node(&self, hearing: Hearing) -> Self {
        Self::on(Arc::clone(&self.wire), hearing, self.inner.clone(), Arc::clone(&self.flight))
    }

    /// From now on no call is answered, nor arrives: the node is frozen, or its network is.
    pub(crate) fn sever(&self) {
        self.severed.store(true, Ordering::Release);
    }

    /// Calls arrive again, also those that waited.
    pub(crate) fn heal(&self) {
        self.severed.store(false, Ordering::Release);
        self.healed.notify_waiters();
    }

    async fn call<T>(&self, method: &'static str, work: BoxFuture<'_, Result<T>>) -> Result<T> {
        while self.severed.load(Ordering::Acquire) {
            self.healed.notified().await;
        }
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
        if fault == Some(At::Exhausted) {
            return Err(StoreError::Database(EXHAUSTED.into()));
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
        beat_node(beat: NodeBeat, now: Time) -> NodeAnswer;
        nodes(now: Time) -> Vec<NodeRecord>;
        release(worker: &'a WorkerName, session: &'a SessionId, token: Token, now: Time) -> ();
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
        windows_over(series: &'a SeriesName, from: Time, to: Time) -> Vec<InputWindow>;
        window(series: &'a SeriesName, start: Time) -> Vec<WindowRecord>;
        series() -> BTreeMap<SeriesName, SeriesSummary>;
        correct_window(series: &'a SeriesName, start: Time, reason: &'a str, now: Time)
            -> WindowRecord;
        change_window(change: WindowChange, now: Time) -> WindowRecord;
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
        conditions() -> Vec<(Condition, Time)>;
        prune(keep: Retention, max_rows: u32, now: Time) -> Pruned;
        artifacts(limit: u32) -> Vec<ArtifactRecord>;
        setting(key: &'a str) -> Option<serde_json::Value>;
        set_setting(key: &'a str, value: serde_json::Value, now: Time) -> ();
    }

    fn tell(&self, effects: &Effects) {
        let others = self.wire.0.lock().unwrap_or_else(PoisonError::into_inner);
        for other in others.iter().filter(|other| !other.same_channel(&self.own)) {
            self.flight.mark();
            // A node that has ended hears nothing any more.
            drop(other.send(effects.clone()));
        }
    }

    fn told(&self) -> BoxFuture<'_, Effects> {
        Box::pin(async {
            match self.told.lock().await.recv().await {
                Some(effects) => effects,
                None => std::future::pending().await,
            }
        })
    }

    fn hears(&self) -> Hearing {
        self.hearing
    }

    fn is_exhausted(&self, error: &StoreError) -> bool {
        matches!(error, StoreError::Database(cause) if cause.to_string() == EXHAUSTED)
    }
}

impl Queue for Watched {
    watch! {
        enqueue(jobs: Vec<NewJob>, now: Time) -> Vec<Enqueued>;
        release_jobs(session: &'a SessionId, jobs: Vec<(i64, Token)>, now: Time) -> ();
        renew_jobs(session: &'a SessionId, ttl: Millis, now: Time) -> Vec<HeldJob>;
        progress_jobs(progress: Vec<JobProgress>, now: Time) -> ();
        jobs(query: JobQuery) -> Vec<JobRecord>;
        job(id: i64) -> Option<JobRecord>;
        attempts(id: i64) -> Vec<AttemptRecord>;
        change_jobs(change: JobChange, now: Time) -> JobChanged;
        kinds() -> Vec<KindRecord>;
        queue_stats(now: Time) -> BTreeMap<String, KindStats>;
    }

    fn claim_jobs(&self, claim: JobClaim) -> BoxFuture<'_, Result<JobBatch>> {
        if self.free.load(Ordering::Relaxed) > 0 {
            let most = i64::from(claim.most);
            let left = self.free.fetch_sub(most, Ordering::Relaxed);
            let grants = (0..most.min(left)).map(|n| free_grant(left - n, claim.now)).collect();
            return Box::pin(async { Ok(JobBatch { grants, ..JobBatch::default() }) });
        }
        Box::pin(self.call("claim_jobs", self.inner.claim_jobs(claim)))
    }

    fn finish_jobs<'a>(
        &'a self,
        worker: &'a WorkerName,
        session: &'a SessionId,
        ends: Vec<JobEnd>,
        now: Time,
    ) -> BoxFuture<'a, Result<Vec<bool>>> {
        if ends.first().is_some_and(|end| end.token == FREE) {
            return Box::pin(async move { Ok(vec![true; ends.len()]) });
        }
        let work = self.inner.finish_jobs(worker, session, ends, now);
        Box::pin(self.call("finish_jobs", work))
    }
}

/// The token of jobs that no store knows.
const FREE: Token = Token(-1);

fn free_grant(id: i64, now: Time) -> Grant {
    Grant {
        token: FREE,
        cycle: CycleId(0),
        cause: Cause::Job { id },
        attempt: 1,
        max_attempts: 5,
        input: CycleInput::Job { kind: "k".into(), payload: serde_json::json!({ "n": id }) },
        expires_at: now + Millis::from_secs(30),
    }
}

impl Watched {
    pub(crate) fn free_left(&self) -> i64 {
        self.free.load(Ordering::Relaxed)
    }

    /// The next `n` jobs come from nowhere and go there.
    pub(crate) fn give_free(&self, n: i64) {
        self.free.store(n, Ordering::Relaxed);
    }
}
