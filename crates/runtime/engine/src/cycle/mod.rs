//! The one code path: gate, claim, compute, commit. A daemon's tick, a cron run, a window, a job,
//! an event, a stream, `run --once` and a dry run all go through [`Runner::attempt`]; a dry run
//! ([`Runner::rehearse`]) shares everything but the claim and the commit.
//!
//! Here are the gate, the claim and the computation; [`publish`] tells how a cycle ends.
//!
//! Thousands of cycles may be under way at once, and most of them wait or have nothing to say. So
//! the steps that such a cycle never takes are boxed where they begin, and cost it nothing.

mod publish;
mod rehearse;

use std::ops::DerefMut;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::sync::{Semaphore, mpsc};
use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::gate::Gate;
use watchbell_core::port::{
    Beat, Claim, ClaimRequest, CycleEnd, FollowUp, Grant, Outcome, Publication, Store, StoreError,
    Target,
};
use watchbell_core::schedule::Passed;
use watchbell_core::{
    Cause, Commit, Cycle, CycleId, CycleInput, Definition, Done, Effects, Fault, Ledger, Millis,
    SessionId, Time, Token, Trigger, Worker,
};

use crate::artifacts::Artifacts;
use crate::gauge::Gauge;
use crate::host::{CycleHost, Signals};
use crate::node::Options;
use crate::queue;
use crate::windows::{self, Choice};

pub(crate) use publish::{STORE, is_refusal, verdict};
pub use rehearse::Rehearsal;

/// Attempts at one event before it becomes a dead letter.
pub const EVENT_ATTEMPTS: u32 = 8;

/// Standing leases that are asked for at a time. Thousands of quiet workers that start together would
/// otherwise fill the memory with claims that wait for their turn in the store.
pub(crate) const STANDING_CLAIMS: usize = 512;

/// A worker and what the engine knows of it for good.
pub struct Unit {
    /// Its definition, with the configuration's overrides applied.
    pub def: Definition,
    /// The worker.
    pub worker: Arc<dyn Worker>,
    /// The standing lease of a quiet worker.
    standing: Mutex<Standing>,
}

#[derive(Debug, Default)]
enum Standing {
    #[default]
    None,
    Held(Grant),
    /// Not needed any more; the store may not have heard of it yet.
    Leaving(Token),
}

impl Unit {
    /// Wraps a worker under this definition.
    #[must_use]
    pub fn new(def: Definition, worker: Arc<dyn Worker>) -> Self {
        Self { def, worker, standing: Mutex::default() }
    }

    fn lease(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The standing lease of a quiet worker, while it has one.
    pub(crate) fn standing(&self) -> Option<Grant> {
        match &*self.lease() {
            Standing::Held(grant) => Some(grant.clone()),
            Standing::None | Standing::Leaving(_) => None,
        }
    }

    pub(crate) fn has_standing(&self) -> bool {
        matches!(*self.lease(), Standing::Held(_))
    }

    fn hold(&self, grant: Grant) {
        *self.lease() = Standing::Held(grant);
    }

    /// It is lost, or was ended from outside.
    pub(crate) fn forget_standing(&self) {
        *self.lease() = Standing::None;
    }

    /// It is not needed any more: the token to give back, if there is one.
    pub(crate) fn leave_standing(&self) -> Option<Token> {
        let mut lease = self.lease();
        let Standing::Held(grant) = &*lease else { return None };
        let token = grant.token;
        *lease = Standing::Leaving(token);
        Some(token)
    }

    fn leaving(&self) -> Option<Token> {
        match *self.lease() {
            Standing::Leaving(token) => Some(token),
            Standing::None | Standing::Held(_) => None,
        }
    }
}

impl std::fmt::Debug for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Unit").field(&self.def.name).finish()
    }
}

/// What somebody wants to run.
#[derive(Debug, Clone, PartialEq)]
pub enum Intent {
    /// A due instant, and the ones that it passes over.
    Tick {
        /// The instant.
        due: Time,
        /// Passed over.
        passed: Vec<Passed>,
    },
    /// Whatever the worker's trigger has next: a window, an event, a job, a stream's run.
    Next,
    /// One window by name, of a window worker.
    Window {
        /// Its start.
        start: Time,
    },
    /// An operator's command: the next window, event or job if there is one, else a plain cycle.
    Manual,
}

impl Intent {
    /// The oldest due instant that it brings to the ledger.
    pub(crate) fn first_due(&self) -> Option<Time> {
        match self {
            Self::Tick { due, passed } => passed.iter().map(|p| p.first).chain([*due]).min(),
            Self::Next | Self::Window { .. } | Self::Manual => None,
        }
    }
}

/// What came of an attempt.
#[derive(Debug)]
pub enum Report {
    /// A cycle ran.
    Ran(Box<Ran>),
    /// Another holder has the lease until then.
    Held {
        /// Until.
        until: Time,
        /// Who.
        owner: SessionId,
    },
    /// That occurrence was already in the ledger.
    Taken,
    /// There is nothing to run; look again then, if known.
    Idle {
        /// When.
        next: Option<Time>,
    },
    /// Something must happen first.
    Blocked {
        /// The gates, first one first.
        gates: Vec<Gate>,
        /// When to look again, if a time can tell.
        next: Option<Time>,
    },
    /// The store failed before or during the claim: nothing ran.
    Broken(StoreError),
}

/// A cycle that ran.
#[derive(Debug)]
pub struct Ran {
    /// Its number; 0 for a quiet worker.
    pub cycle: CycleId,
    /// Why it ran.
    pub cause: Cause,
    /// How it ended.
    pub outcome: Outcome,
    /// Its summary.
    pub summary: serde_json::Value,
    /// Its error.
    pub error: Option<String>,
    /// Whether the worker panicked, or a stream returned unasked: the supervisor restarts it.
    pub crashed: bool,
    /// Start.
    pub started_at: Time,
    /// End.
    pub finished_at: Time,
    /// Wall time that it took.
    pub latency: Millis,
    /// What it changed.
    pub effects: Effects,
    /// Not before this instant again, for what it worked on.
    pub retry_at: Option<Time>,
    /// Heartbeat to flush, for a quiet worker whose cycle published nothing.
    pub beat: Option<Beat>,
    /// Hashes of the window it computed.
    pub window: Option<watchbell_core::WindowHashes>,
}

/// Runs cycles.
pub struct Runner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) session: SessionId,
    pub(crate) options: Options,
    pub(crate) artifacts: Artifacts,
    pub(crate) effects: mpsc::UnboundedSender<Effects>,
    /// Measures what it asks of the store.
    pub(crate) gauge: Gauge,
    /// Turns at claiming a standing lease.
    turns: Semaphore,
    /// By how many milliseconds the store's clock is ahead, as last measured.
    skew: AtomicI64,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("session", &self.session).finish_non_exhaustive()
    }
}

impl Runner {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: Clock,
        session: SessionId,
        options: Options,
        effects: mpsc::UnboundedSender<Effects>,
    ) -> Self {
        let artifacts = Artifacts::new(&options.artifacts);
        let turns = Semaphore::new(STANDING_CLAIMS);
        let gauge = Gauge::new(Arc::clone(&store), clock.clone());
        let skew = AtomicI64::new(0);
        Self { store, clock, session, options, artifacts, effects, gauge, turns, skew }
    }

    /// Until when a lease may be trusted that was asked for, or extended, at `asked`: its holder
    /// stops trusting it before the store does.
    pub(crate) fn trust(&self, asked: Time) -> Time {
        asked + self.options.lease_ttl - self.options.lease_renew
    }

    /// By how much the store's clock is ahead of the node's.
    pub(crate) fn skew(&self) -> Millis {
        Millis(self.skew.load(Ordering::Relaxed))
    }

    pub(crate) fn measured(&self, skew: Millis) {
        self.skew.store(skew.0, Ordering::Relaxed);
    }

    /// Says what a commit changed.
    pub(crate) fn tell(&self, effects: Effects) {
        if !effects.is_empty() {
            // A closed channel means that the supervisor is gone: nobody is left to wake.
            drop(self.effects.send(effects));
        }
    }

    /// Tries to run what `intent` asks of `unit`: gate, claim, compute, commit.
    pub async fn attempt(
        self: &Arc<Self>,
        unit: &Arc<Unit>,
        intent: Intent,
        signals: Arc<Signals>,
    ) -> Report {
        if let Trigger::Queue(spec) = &unit.def.trigger {
            return Box::pin(queue::run_one(self, unit, spec, signals)).await;
        }
        let (target, passed) = match self.aim(unit, intent, &signals).await {
            Ok(Aim::Run { target, passed }) => (target, passed),
            Ok(Aim::Not(report)) => return report,
            Err(Fault::Store(e)) => return Report::Broken(e),
            Err(fault) => {
                return Report::Blocked {
                    gates: vec![Gate::Condition {
                        name: unit.def.name.to_string(),
                        detail: format!("cannot tell what is next: {fault}"),
                        until: None,
                    }],
                    next: Some(self.clock.now() + Millis::from_secs(5)),
                };
            }
        };
        let asked = self.clock.now();
        let mut grant = match self.standing_grant(unit, &target) {
            Some(grant) => grant,
            None => match Box::pin(self.claim_or_release(unit, target, passed)).await {
                Ok(Claim::Granted(grant)) => {
                    signals.trust(self.trust(asked));
                    grant
                }
                Ok(Claim::Held { owner, until }) => return Report::Held { until, owner },
                Ok(Claim::Taken) => return Report::Taken,
                Ok(Claim::Nothing { next }) => return Report::Idle { next },
                Err(e) => return Report::Broken(e),
            },
        };
        let input = std::mem::replace(&mut grant.input, CycleInput::None);
        let grant = signals.granted(grant);
        self.compute(unit, grant, input, &signals).await
    }

    /// The newest due instant of the ledger, for a tick whose claim was refused or went wrong.
    pub(crate) async fn newest_due(&self, unit: &Unit) -> Option<Time> {
        match self.store.occurrences(&unit.def.name, 1).await {
            Ok(rows) => rows.first().map(|newest| newest.through),
            Err(e) => {
                let name = &unit.def.name;
                let e = watchbell_core::chain(&e);
                tracing::warn!(worker.name = %name, "cannot read the ledger of {name}: {e}");
                None
            }
        }
    }

    /// The store side of the gates, and what exactly to claim.
    async fn aim(&self, unit: &Unit, intent: Intent, signals: &Signals) -> Result<Aim, Fault> {
        let next = |target| Aim::Run { target, passed: Vec::new() };
        Ok(match (intent, &unit.def.trigger) {
            (Intent::Tick { due, passed }, _) => Aim::Run { target: Target::Tick { due }, passed },
            (Intent::Window { start }, Trigger::Window(spec)) => {
                let now = self.clock.now();
                let choice = windows::exactly(&*self.store, unit, spec, start, now);
                window_aim(Box::pin(choice).await?, signals)
            }
            (Intent::Next | Intent::Manual, Trigger::Window(spec)) => {
                let now = self.clock.now();
                let choice = windows::choose(&*self.store, unit, spec, now, true);
                window_aim(Box::pin(choice).await?, signals)
            }
            (Intent::Next | Intent::Manual, Trigger::On { .. }) => next(Target::Event),
            (Intent::Next, Trigger::Stream) => next(Target::Stream),
            (Intent::Next | Intent::Manual | Intent::Window { .. }, _) => next(Target::Manual),
        })
    }

    /// Claims. A worker's cycles never overlap on a node, so a lease that this very session holds
    /// belongs to nobody any more: the answer to its claim, or its publication, got lost. It would
    /// be renewed with the others for as long as the node lives, so it is ended here.
    async fn claim_or_release(
        &self,
        unit: &Unit,
        target: Target,
        passed: Vec<Passed>,
    ) -> Result<Claim, StoreError> {
        match self.claim(unit, target.clone(), passed.clone()).await? {
            Claim::Held { owner, .. } if owner == self.session => {
                self.release_orphan(unit).await?;
                self.claim(unit, target, passed).await
            }
            claim => Ok(claim),
        }
    }

    async fn release_orphan(&self, unit: &Unit) -> Result<(), StoreError> {
        let worker = &unit.def.name;
        let cycles = self.store.cycles(Some(worker), 1).await?;
        let Some(lost) = cycles.into_iter().find(|c| c.outcome == Outcome::Running) else {
            return Ok(()); // being ended at this moment
        };
        tracing::warn!(
            worker.name = %worker, cycle.id = lost.id.0,
            "{worker} finds cycle {} of its own that nobody runs: taken back", lost.id
        );
        let now = self.clock.now();
        let ended = self.store.burn(Publication {
            worker: worker.clone(),
            session: self.session.clone(),
            token: lost.token,
            cycle: lost.id,
            cause: lost.cause,
            now,
            commit: Commit::new(),
            end: Some(CycleEnd {
                outcome: Outcome::Lost,
                summary: serde_json::Value::Null,
                error: Some("the store failed while it was claimed or published".into()),
                started_at: lost.started_at,
                follow_up: FollowUp::Again { at: now },
                window: None,
                artifacts: Vec::new(),
                next_due: watchbell_core::schedule::next_due(&unit.def.trigger, now),
                keep_lease: false,
            }),
        });
        match ended.await {
            // Somebody else ended it meanwhile.
            Ok(()) | Err(StoreError::Fenced { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    async fn claim(
        &self,
        unit: &Unit,
        target: Target,
        passed: Vec<Passed>,
    ) -> Result<Claim, StoreError> {
        let request = |target, passed| ClaimRequest {
            worker: unit.def.name.clone(),
            session: self.session.clone(),
            now: self.clock.now(),
            ttl: self.options.lease_ttl,
            target,
            passed,
        };
        let Some(cause) = quiet_cause(unit, &target) else {
            return self.gauge.time(self.store.claim(request(target, passed))).await;
        };
        let turn = self.turns.acquire().await;
        if let Some(token) = unit.leaving() {
            // The word that gives the old one back may still be on its way.
            let (worker, now) = (&unit.def.name, self.clock.now());
            self.store.release(worker, &self.session, token, now).await?;
        }
        let request = request(Target::Standing, Vec::new());
        let claim = self.gauge.time(self.store.claim(request)).await?;
        drop(turn);
        match claim {
            Claim::Granted(standing) => {
                unit.hold(standing.clone());
                Ok(Claim::Granted(Grant { cause, ..standing }))
            }
            refused => Ok(refused),
        }
    }

    /// The right to run that a quiet worker has already.
    fn standing_grant(&self, unit: &Unit, target: &Target) -> Option<Grant> {
        let cause = quiet_cause(unit, target)?;
        Some(Grant { cause, ..unit.standing()? })
    }

    /// Runs the worker under its claim, and publishes what it came to.
    async fn compute(
        self: &Arc<Self>,
        unit: &Unit,
        grant: &Grant,
        input: CycleInput,
        signals: &Arc<Signals>,
    ) -> Report {
        let (result, mut ran) = self.execute(unit, grant, input, signals).await;
        let quiet = grant.cycle == CycleId(0) && unit.has_standing();
        match result {
            Ok(done) if quiet && done.commit.is_empty() && done.artifacts.is_empty() => {
                ran.summary = done.summary;
                ran.window = done.window;
                ran.beat = Some(publish::beat(unit, &ran));
            }
            result => {
                // From here on its lease may be gone at any moment, and rightly so.
                signals.end();
                Box::pin(self.conclude(unit, grant, signals, result, quiet, &mut ran)).await;
            }
        }
        Report::Ran(ran)
    }

    /// Runs the worker: what it came to, and the beginning of the report. Nothing is published yet.
    pub(crate) async fn execute(
        self: &Arc<Self>,
        unit: &Unit,
        grant: &Grant,
        input: CycleInput,
        signals: &Arc<Signals>,
    ) -> (Result<Done, Fault>, Box<Ran>) {
        let started_at = self.clock.now();
        let watch = Stopwatch::start();
        let cycle = Cycle {
            id: grant.cycle,
            worker: unit.def.name.clone(),
            cause: grant.cause.clone(),
            token: grant.token,
            attempt: grant.attempt,
            started_at,
            input,
            host: Arc::new(CycleHost {
                runner: Arc::clone(self),
                signals: Arc::clone(signals),
                worker: unit.def.name.clone(),
                token: grant.token,
                cycle: grant.cycle,
                cause: grant.cause.clone(),
            }),
        };
        let (result, panicked) = match catch_panic(unit.worker.run(&cycle)).await {
            Ok(result) => (result, false),
            Err(panic) => (Err(Fault::transient(format!("panicked: {panic}"))), true),
        };
        drop(cycle);
        // A stream that the store let down did not fail itself.
        let excused = signals.is_cancelled()
            || matches!(
                result,
                Err(Fault::Cancelled
                    | Fault::Store(StoreError::Database(_) | StoreError::Fenced { .. }))
            );
        let crashed = panicked || (matches!(grant.cause, Cause::Stream) && !excused);
        let result = match result {
            Ok(done) if crashed => Err(Fault::transient(format!(
                "the stream returned without being asked: {}",
                done.summary
            ))),
            other => other,
        };
        let mut ran = Ran::begun(grant, started_at, self.clock.now());
        (ran.crashed, ran.latency) = (crashed, watch.millis());
        (result, ran)
    }
}

impl Ran {
    /// A cycle that has ended somehow: what came of it is filled in.
    pub(crate) fn begun(grant: &Grant, started_at: Time, finished_at: Time) -> Box<Self> {
        Box::new(Self {
            cycle: grant.cycle,
            cause: grant.cause.clone(),
            outcome: Outcome::Succeeded,
            summary: serde_json::Value::Null,
            error: None,
            crashed: false,
            started_at,
            finished_at,
            latency: finished_at - started_at,
            effects: Effects::default(),
            retry_at: None,
            beat: None,
            window: None,
        })
    }
}

enum Aim {
    Run { target: Target, passed: Vec<Passed> },
    Not(Report),
}

fn window_aim(choice: Choice, signals: &Signals) -> Aim {
    match choice {
        Choice::Run(target) => Aim::Run { target, passed: Vec::new() },
        Choice::Blocked { end, gates, next } => {
            if let Some(end) = end {
                signals.gated(end);
            }
            Aim::Not(Report::Blocked { gates, next })
        }
        Choice::Idle { next } => Aim::Not(Report::Idle { next }),
    }
}

/// The cause of a quiet worker's cycle, which runs under its standing lease.
fn quiet_cause(unit: &Unit, target: &Target) -> Option<Cause> {
    match (unit.def.ledger, target) {
        (Ledger::Quiet, Target::Tick { due }) => Some(Cause::Tick { due: *due }),
        (Ledger::Quiet, Target::Manual) => Some(Cause::Manual),
        _ => None,
    }
}

/// Polls a cycle so that its panic becomes a value: what it said.
pub(crate) async fn catch_panic<P>(
    mut work: Pin<P>,
) -> Result<<P::Target as Future>::Output, String>
where
    P: DerefMut<Target: Future>,
{
    std::future::poll_fn(move |cx| {
        match std::panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(panic) => Poll::Ready(Err(panic_text(&*panic))),
        }
    })
    .await
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "with a value that is not text".to_owned())
}
