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
use std::sync::{Arc, Mutex, PoisonError};
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
    Cause, Commit, Cycle, CycleId, CycleInput, Definition, Fault, Ledger, Millis, SessionId, Time,
    Trigger, Worker,
};

use crate::artifacts::Artifacts;
use crate::effects::Effects;
use crate::host::{CycleHost, Signals};
use crate::windows::{self, Choice};

pub(crate) use publish::verdict;
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
    standing: Mutex<Option<Grant>>,
}

impl Unit {
    /// Wraps a worker under this definition.
    #[must_use]
    pub fn new(def: Definition, worker: Arc<dyn Worker>) -> Self {
        Self { def, worker, standing: Mutex::new(None) }
    }

    /// The standing lease of a quiet worker, while it has one.
    pub(crate) fn standing(&self) -> Option<Grant> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn has_standing(&self) -> bool {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(crate) fn set_standing(&self, grant: Option<Grant>) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = grant;
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
    pub(crate) lease_ttl: Millis,
    pub(crate) artifacts: Artifacts,
    pub(crate) effects: mpsc::UnboundedSender<Effects>,
    /// Turns at claiming a standing lease.
    pub(crate) turns: Semaphore,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("session", &self.session).finish_non_exhaustive()
    }
}

impl Runner {
    /// Tries to run what `intent` asks of `unit`: gate, claim, compute, commit.
    pub async fn attempt(
        self: &Arc<Self>,
        unit: &Unit,
        intent: Intent,
        signals: Arc<Signals>,
    ) -> Report {
        let (target, passed) = match self.aim(unit, intent).await {
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
        let mut grant = match self.standing_grant(unit, &target) {
            Some(grant) => grant,
            None => match Box::pin(self.claim_or_release(unit, target, passed)).await {
                Ok(Claim::Granted(grant)) => grant,
                Ok(Claim::Held { owner, until }) => return Report::Held { until, owner },
                Ok(Claim::Taken) => return Report::Taken,
                Ok(Claim::Nothing { next }) => return Report::Idle { next },
                Err(e) => return Report::Broken(e),
            },
        };
        let input = std::mem::replace(&mut grant.input, CycleInput::None);
        let grant = signals.granted(grant);
        if let Trigger::Queue { kinds, concurrency } = &unit.def.trigger
            && *concurrency > 1
        {
            // There may be another job for a cycle beside this one.
            let jobs = kinds.iter().cloned().collect();
            // A closed channel means that the supervisor is gone: nobody is left to wake.
            drop(self.effects.send(Effects { jobs, ..Effects::default() }));
        }
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
    async fn aim(&self, unit: &Unit, intent: Intent) -> Result<Aim, Fault> {
        let next = |target| Aim::Run { target, passed: Vec::new() };
        Ok(match (intent, &unit.def.trigger) {
            (Intent::Tick { due, passed }, _) => Aim::Run { target: Target::Tick { due }, passed },
            (Intent::Window { start }, Trigger::Window(spec)) => {
                let now = self.clock.now();
                let choice = windows::exactly(&*self.store, unit, spec, start, now);
                window_aim(Box::pin(choice).await?)
            }
            (Intent::Next | Intent::Manual, Trigger::Window(spec)) => {
                let now = self.clock.now();
                let choice = windows::choose(&*self.store, unit, spec, now, true);
                window_aim(Box::pin(choice).await?)
            }
            (Intent::Next | Intent::Manual, Trigger::On { .. }) => next(Target::Event),
            (Intent::Next | Intent::Manual, Trigger::Queue { kinds, .. }) => {
                next(Target::Job { kinds: kinds.clone() })
            }
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
            ttl: self.lease_ttl,
            target,
            passed,
        };
        let Some(cause) = quiet_cause(unit, &target) else {
            return self.store.claim(request(target, passed)).await;
        };
        let turn = self.turns.acquire().await;
        let claim = self.store.claim(request(Target::Standing, Vec::new())).await?;
        drop(turn);
        match claim {
            Claim::Granted(standing) => {
                unit.set_standing(Some(standing.clone()));
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
        let crashed = panicked
            || (matches!(grant.cause, Cause::Stream)
                && !signals.is_cancelled()
                && !matches!(result, Err(Fault::Cancelled)));
        let result = match result {
            Ok(done) if crashed => Err(Fault::transient(format!(
                "the stream returned without being asked: {}",
                done.summary
            ))),
            other => other,
        };
        let now = self.clock.now();
        let mut ran = Box::new(Ran {
            cycle: grant.cycle,
            cause: grant.cause.clone(),
            outcome: Outcome::Succeeded,
            summary: serde_json::Value::Null,
            error: None,
            crashed,
            started_at,
            finished_at: now,
            latency: watch.millis(),
            effects: Effects::default(),
            retry_at: None,
            beat: None,
            window: None,
        });
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
                Box::pin(self.conclude(unit, grant, result, quiet, &mut ran)).await;
            }
        }
        Report::Ran(ran)
    }
}

enum Aim {
    Run { target: Target, passed: Vec<Passed> },
    Not(Report),
}

fn window_aim(choice: Choice) -> Aim {
    match choice {
        Choice::Run(target) => Aim::Run { target, passed: Vec::new() },
        Choice::Blocked { gates, next } => Aim::Not(Report::Blocked { gates, next }),
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

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "with a value that is not text".to_owned())
}
