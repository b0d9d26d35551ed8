//! The one code path: gate, claim, compute, commit. A daemon's tick, a cron run, a window, a job,
//! an event, a stream, `run --once` and a dry run all go through [`Runner::attempt`]; a dry run
//! ([`Runner::rehearse`]) shares everything but the claim and the commit.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use tokio::sync::mpsc;
use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::gate::Gate;
use watchbell_core::port::{
    Beat, Claim, ClaimRequest, CycleEnd, EventQuery, FollowUp, Grant, JobQuery, Outcome,
    Publication, Store, StoreError, Target,
};
use watchbell_core::schedule::Passed;
use watchbell_core::{
    BoxFuture, Cause, Commit, Cycle, CycleId, CycleInput, Definition, Done, Fault, Host, Ledger,
    Millis, NewEvent, SessionId, Time, Token, Trigger, Worker, job, retry,
};

use crate::artifacts::Artifacts;
use crate::effects::Effects;
use crate::host::{CycleHost, DryHost, Signals};
use crate::windows::{self, Choice};

/// Attempts at one event before it becomes a dead letter.
pub const EVENT_ATTEMPTS: u32 = 8;
/// How often a publication is tried again while the store fails and the lease still holds.
const PUBLISH_TRIES: u32 = 5;

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
    Ran(Ran),
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

/// Runs cycles. Cheap to clone.
#[derive(Clone)]
pub struct Runner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) session: SessionId,
    pub(crate) lease_ttl: Millis,
    pub(crate) artifacts: Artifacts,
    pub(crate) effects: mpsc::UnboundedSender<Effects>,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("session", &self.session).finish_non_exhaustive()
    }
}

impl Runner {
    /// Tries to run what `intent` asks of `unit`: gate, claim, compute, commit.
    pub async fn attempt(&self, unit: &Unit, intent: Intent, signals: Arc<Signals>) -> Report {
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
        let grant = match self.claim_or_release(unit, target, passed).await {
            Ok(Claim::Granted(grant)) => grant,
            Ok(Claim::Held { owner, until }) => return Report::Held { until, owner },
            Ok(Claim::Taken) => return Report::Taken,
            Ok(Claim::Nothing { next }) => return Report::Idle { next },
            Err(e) => return Report::Broken(e),
        };
        signals.granted(grant.clone());
        if let Trigger::Queue { kinds, concurrency } = &unit.def.trigger
            && *concurrency > 1
        {
            // There may be another job for a cycle beside this one.
            let jobs = kinds.iter().cloned().collect();
            // A closed channel means that the supervisor is gone: nobody is left to wake.
            drop(self.effects.send(Effects { jobs, ..Effects::default() }));
        }
        self.compute_and_commit(unit, grant, signals).await
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
            (Intent::Window { start }, Trigger::Window(spec)) => self.window_aim(
                windows::exactly(&*self.store, unit, spec, start, self.clock.now()).await?,
            ),
            (Intent::Next | Intent::Manual, Trigger::Window(spec)) => {
                self.window_aim(windows::choose(&*self.store, unit, spec, self.clock.now(), true).await?)
            }
            (Intent::Next | Intent::Manual, Trigger::On { .. }) => next(Target::Event),
            (Intent::Next | Intent::Manual, Trigger::Queue { kinds, .. }) => {
                next(Target::Job { kinds: kinds.clone() })
            }
            (Intent::Next, Trigger::Stream) => next(Target::Stream),
            (Intent::Next | Intent::Manual | Intent::Window { .. }, _) => next(Target::Manual),
        })
    }

    fn window_aim(&self, choice: Choice) -> Aim {
        match choice {
            Choice::Run(target) => Aim::Run { target, passed: Vec::new() },
            Choice::Blocked { gates, next } => Aim::Not(Report::Blocked { gates, next }),
            Choice::Idle { next } => Aim::Not(Report::Idle { next }),
        }
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
        let now = self.clock.now();
        let request = |target, passed| ClaimRequest {
            worker: unit.def.name.clone(),
            session: self.session.clone(),
            now,
            ttl: self.lease_ttl,
            target,
            passed,
        };
        let quiet_cause = match (&unit.def.ledger, &target) {
            (Ledger::Quiet, Target::Tick { due }) => Some(Cause::Tick { due: *due }),
            (Ledger::Quiet, Target::Manual) => Some(Cause::Manual),
            _ => None,
        };
        let Some(cause) = quiet_cause else {
            return self.store.claim(request(target, passed)).await;
        };
        let standing = match unit.standing() {
            Some(grant) => grant,
            None => match self.store.claim(request(Target::Standing, Vec::new())).await? {
                Claim::Granted(grant) => {
                    unit.set_standing(Some(grant.clone()));
                    grant
                }
                refused => return Ok(refused),
            },
        };
        Ok(Claim::Granted(Grant { cause, ..standing }))
    }

    async fn compute_and_commit(&self, unit: &Unit, grant: Grant, signals: Arc<Signals>) -> Report {
        let started_at = self.clock.now();
        let watch = Stopwatch::start();
        let cycle = Cycle {
            id: grant.cycle,
            worker: unit.def.name.clone(),
            cause: grant.cause.clone(),
            token: grant.token,
            attempt: grant.attempt,
            started_at,
            input: grant.input.clone(),
            host: Arc::new(CycleHost {
                store: Arc::clone(&self.store),
                clock: self.clock.clone(),
                artifacts: self.artifacts.clone(),
                signals: Arc::clone(&signals),
                session: self.session.clone(),
                worker: unit.def.name.clone(),
                grant: grant.clone(),
                effects: self.effects.clone(),
            }),
        };
        let (result, panicked) = match catch_panic(unit.worker.run(&cycle)).await {
            Ok(result) => (result, false),
            Err(panic) => (Err(Fault::transient(format!("panicked: {panic}"))), true),
        };
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
        let mut ran = Ran {
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
        };
        let quiet = unit.def.ledger == Ledger::Quiet && unit.standing().is_some();
        let (commit, end) = match result {
            Ok(done) => match self.settle(unit, &grant, done, now) {
                Ok((commit, end)) => {
                    ran.summary = end.summary.clone();
                    ran.window.clone_from(&end.window);
                    if quiet && commit.is_empty() && end.artifacts.is_empty() {
                        ran.beat = Some(beat(unit, &ran));
                        return Report::Ran(ran);
                    }
                    (commit, end)
                }
                Err(fault) => self.fail(unit, &grant, &fault, now, &mut ran),
            },
            Err(fault) => self.fail(unit, &grant, &fault, now, &mut ran),
        };
        let end = CycleEnd { started_at, keep_lease: quiet, ..end };
        let effects = self.effects_of(unit, &grant, &commit, &end);
        let artifacts = end.artifacts.clone();
        match self.publish(unit, &grant, commit, end).await {
            Ok(()) => {
                ran.effects = effects;
                for record in &artifacts {
                    if let Err(e) = self.artifacts.point_latest(record) {
                        tracing::warn!(artifact = record.path, "{}", watchbell_core::chain(&e));
                    }
                }
            }
            Err(error) => {
                for record in &artifacts {
                    if let Err(e) = self.artifacts.withdraw(record) {
                        tracing::warn!(artifact = record.path, "cannot withdraw: {e}");
                    }
                }
                let fenced = matches!(error, StoreError::Fenced { .. });
                if quiet && fenced {
                    unit.set_standing(None);
                }
                ran.outcome = if fenced { Outcome::Fenced } else { Outcome::Failed };
                ran.error = Some(watchbell_core::chain(&error));
            }
        }
        Report::Ran(ran)
    }

    /// Turns a worker's result into a commit and an end.
    fn settle(
        &self,
        unit: &Unit,
        grant: &Grant,
        done: Done,
        now: Time,
    ) -> Result<(Commit, CycleEnd), Fault> {
        let Done { summary, mut commit, window, artifacts } = done;
        if let Cause::Window { series, start, end, version } = &grant.cause {
            let Some(hashes) = &window else {
                return Err(Fault::permanent(format!(
                    "the worker `{}` computed a window without hashes: this is a defect of the \
                     worker",
                    unit.def.name
                )));
            };
            commit.events.push(NewEvent {
                kind: "window.completed".into(),
                key: format!("{series}/{start}"),
                dedupe: Some(format!("window.completed/{series}/{}/{version}", start.0)),
                payload: serde_json::json!({
                    "series": series, "start": start, "end": end, "version": version,
                    "source": hashes.source, "result_hash": hashes.result,
                }),
            });
        }
        let mut records = Vec::new();
        for artifact in &artifacts {
            match self.artifacts.publish(artifact, grant.cycle, now) {
                Ok(record) => {
                    commit.events.push(NewEvent {
                        kind: "artifact.published".into(),
                        key: record.name.clone(),
                        dedupe: None,
                        payload: serde_json::json!(record),
                    });
                    records.push(record);
                }
                Err(e) => {
                    for record in &records {
                        if let Err(e) = self.artifacts.withdraw(record) {
                            tracing::warn!(artifact = record.path, "cannot withdraw: {e}");
                        }
                    }
                    return Err(e.into());
                }
            }
        }
        let end = CycleEnd {
            outcome: Outcome::Succeeded,
            summary,
            error: None,
            started_at: now,
            follow_up: FollowUp::Finish,
            window,
            artifacts: records,
            next_due: watchbell_core::schedule::next_due(&unit.def.trigger, now),
            keep_lease: false,
        };
        Ok((commit, end))
    }

    /// What a fault publishes: no domain rows, only the record of it.
    fn fail(
        &self,
        unit: &Unit,
        grant: &Grant,
        fault: &Fault,
        now: Time,
        ran: &mut Ran,
    ) -> (Commit, CycleEnd) {
        let (commit, follow_up) = verdict(unit, grant, fault, now);
        ran.outcome = match fault {
            Fault::Snooze { .. } => Outcome::Snoozed,
            Fault::Cancelled => Outcome::Cancelled,
            Fault::Store(StoreError::Fenced { .. }) => Outcome::Fenced,
            Fault::Transient(_) | Fault::Permanent(_) | Fault::Store(_) => Outcome::Failed,
        };
        ran.error = Some(fault.to_string());
        if let FollowUp::Retry { at } | FollowUp::Again { at } = &follow_up {
            ran.retry_at = Some(*at);
        }
        let end = CycleEnd {
            outcome: ran.outcome,
            summary: serde_json::Value::Null,
            error: ran.error.clone(),
            started_at: now,
            follow_up,
            window: None,
            artifacts: Vec::new(),
            next_due: watchbell_core::schedule::next_due(&unit.def.trigger, now),
            keep_lease: false,
        };
        (commit, end)
    }

    /// Publishes; while the database fails and the lease still holds, tries again.
    async fn publish(
        &self,
        unit: &Unit,
        grant: &Grant,
        commit: Commit,
        end: CycleEnd,
    ) -> Result<(), StoreError> {
        let mut publication = Publication {
            worker: unit.def.name.clone(),
            session: self.session.clone(),
            token: grant.token,
            cycle: grant.cycle,
            cause: grant.cause.clone(),
            now: self.clock.now(),
            commit,
            end: Some(end),
        };
        let mut tries = 0;
        loop {
            tries += 1;
            publication.now = self.clock.now();
            let error = match self.store.publish(publication.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match error {
                // The worker asked for something that does not hold: publish its failure instead.
                StoreError::Unmet { .. } | StoreError::Conflict(_)
                    if publication
                        .end
                        .as_ref()
                        .is_some_and(|e| e.outcome == Outcome::Succeeded) =>
                {
                    let fault = Fault::Transient(Box::new(error));
                    let (commit, follow_up) = verdict(unit, grant, &fault, publication.now);
                    let text = fault.to_string();
                    let mut failed = publication.clone();
                    failed.commit = commit;
                    if let Some(end) = &mut failed.end {
                        end.outcome = Outcome::Failed;
                        end.error = Some(text.clone());
                        end.follow_up = follow_up;
                        end.window = None;
                        end.artifacts = Vec::new();
                    }
                    self.store.publish(failed).await?;
                    return Err(StoreError::Conflict(text));
                }
                StoreError::Database(_) if tries < PUBLISH_TRIES => {
                    let pause = retry::EVENT.delay(tries, unit.def.name.as_str());
                    if publication.now + pause >= grant.expires_at {
                        return Err(error);
                    }
                    tracing::warn!(
                        worker.name = %unit.def.name,
                        "publication failed, again in {pause}: {}",
                        watchbell_core::chain(&error)
                    );
                    self.clock.sleep(pause).await;
                }
                error => return Err(error),
            }
        }
    }

    fn effects_of(&self, unit: &Unit, grant: &Grant, commit: &Commit, end: &CycleEnd) -> Effects {
        let mut effects = Effects::of(commit);
        if let Cause::Window { series, .. } = &grant.cause
            && matches!(end.follow_up, FollowUp::Finish | FollowUp::GiveUp { .. })
        {
            effects.series.insert(series.clone());
        }
        if let (Trigger::Queue { kinds, .. }, FollowUp::Retry { .. }) =
            (&unit.def.trigger, &end.follow_up)
        {
            effects.jobs.extend(kinds.iter().cloned());
        }
        effects
    }

    /// The same path with the commit replaced by a printed summary: writes nothing and claims
    /// nothing. For a window worker, `start` names the window; without it the next one is taken.
    ///
    /// # Errors
    /// The fault that the cycle would have recorded.
    pub async fn rehearse(
        &self,
        unit: &Unit,
        start: Option<Time>,
    ) -> Result<Result<Rehearsal, Report>, Fault> {
        let now = self.clock.now();
        let (cause, input) = match &unit.def.trigger {
            Trigger::Window(spec) => {
                let choice = match start {
                    Some(start) => Choice::Run(Target::Window {
                        series: spec.series.clone(),
                        start,
                        end: start + spec.length,
                        version: 1,
                        scope: windows::scope(&*self.store, unit, spec, start).await?,
                    }),
                    None => windows::choose(&*self.store, unit, spec, now, false).await?,
                };
                match choice {
                    Choice::Run(Target::Window { series, start, end, version, scope }) => {
                        (Cause::Window { series, start, end, version }, CycleInput::Scope(scope))
                    }
                    Choice::Run(_) => (Cause::Manual, CycleInput::None),
                    Choice::Blocked { gates, next } => {
                        return Ok(Err(Report::Blocked { gates, next }));
                    }
                    Choice::Idle { next } => return Ok(Err(Report::Idle { next })),
                }
            }
            Trigger::On { kinds } => {
                let cursor = self.store.subscribers().await?;
                let cursor = cursor.iter().find(|s| s.worker == unit.def.name);
                let query = EventQuery {
                    after: Some(cursor.map_or(0, |s| s.cursor)),
                    kinds: kinds.clone(),
                    limit: 1,
                };
                match self.store.events(query).await?.pop() {
                    Some(event) => (Cause::Event { id: event.id }, CycleInput::Event(event)),
                    None => return Ok(Err(Report::Idle { next: None })),
                }
            }
            Trigger::Queue { kinds, .. } => {
                let mut found = None;
                for kind in kinds {
                    let query = JobQuery {
                        kind: Some(kind.clone()),
                        state: Some(job::State::Queued),
                        limit: 1,
                    };
                    found = found.or(self.store.jobs(query).await?.pop());
                }
                match found {
                    Some(j) => (
                        Cause::Job { id: j.id },
                        CycleInput::Job { kind: j.kind, payload: j.payload },
                    ),
                    None => return Ok(Err(Report::Idle { next: None })),
                }
            }
            Trigger::Every { .. } | Trigger::Cron(_) | Trigger::Stream | Trigger::Manual => {
                (Cause::Manual, CycleInput::None)
            }
        };
        let steps = Arc::new(Mutex::new(Vec::new()));
        let host: Arc<dyn Host> = Arc::new(DryHost {
            clock: self.clock.clone(),
            signals: Arc::new(Signals::default()),
            steps: Arc::clone(&steps),
            scratch: tempfile::tempdir()?,
        });
        let cycle = Cycle {
            id: CycleId(0),
            worker: unit.def.name.clone(),
            cause: cause.clone(),
            token: Token(0),
            attempt: 1,
            started_at: now,
            input,
            host,
        };
        let done = catch_panic(unit.worker.run(&cycle))
            .await
            .map_err(|panic| Fault::transient(format!("panicked: {panic}")))??;
        let mut lines = std::mem::take(&mut *steps.lock().unwrap_or_else(PoisonError::into_inner));
        lines.extend(done.commit.describe());
        lines.extend(done.artifacts.iter().map(|a| format!("artifact {}", a.name)));
        Ok(Ok(Rehearsal { cause, lines, summary: done.summary, window: done.window }))
    }
}

/// What a dry run would have published.
#[derive(Debug, Clone, PartialEq)]
pub struct Rehearsal {
    /// Why it would run.
    pub cause: Cause,
    /// One line per table, cover, event, job and artifact.
    pub lines: Vec<String>,
    /// The cycle's summary.
    pub summary: serde_json::Value,
    /// A window's hashes: `window verify` compares them.
    pub window: Option<watchbell_core::WindowHashes>,
}

enum Aim {
    Run { target: Target, passed: Vec<Passed> },
    Not(Report),
}

/// What follows for the window, event or job behind a cycle that failed, and the event that says
/// so when nothing more will be tried. Pure.
pub(crate) fn verdict(unit: &Unit, grant: &Grant, fault: &Fault, now: Time) -> (Commit, FollowUp) {
    let follow_up = follow_up(unit, grant, fault, now);
    let mut commit = Commit::new();
    if let FollowUp::GiveUp { reason } = &follow_up {
        let (kind, key) = match &grant.cause {
            Cause::Window { series, start, .. } => {
                ("window.abandoned", format!("{series}/{start}"))
            }
            Cause::Job { id } => ("job.dead", id.to_string()),
            Cause::Event { id } => ("event.dead", id.to_string()),
            Cause::Tick { .. } | Cause::Stream | Cause::Manual => {
                ("cycle.failed", unit.def.name.to_string())
            }
        };
        commit.emit(kind, key, serde_json::json!({ "worker": unit.def.name, "reason": reason }));
    }
    (commit, follow_up)
}

/// What follows for the window, event or job behind a cycle that failed. Pure.
fn follow_up(unit: &Unit, grant: &Grant, fault: &Fault, now: Time) -> FollowUp {
    match fault {
        Fault::Snooze { after, .. } => return FollowUp::Again { at: now + *after },
        Fault::Cancelled => return FollowUp::Again { at: now },
        Fault::Permanent(_) => return FollowUp::GiveUp { reason: fault.to_string() },
        Fault::Transient(_) | Fault::Store(_) => {}
    }
    let (allowed, backoff, seed) = match (&grant.cause, &unit.def.trigger) {
        (Cause::Window { series, start, .. }, Trigger::Window(spec)) => {
            (spec.max_attempts, retry::WINDOW, format!("{series}/{}", start.0))
        }
        (Cause::Job { id }, _) => (grant.max_attempts, retry::JOB, format!("job/{id}")),
        (Cause::Event { id }, _) => {
            (EVENT_ATTEMPTS, retry::EVENT, format!("{}/{id}", unit.def.name))
        }
        _ => return FollowUp::Finish,
    };
    if grant.attempt >= allowed {
        return FollowUp::GiveUp {
            reason: format!("{fault} (attempt {} of {allowed})", grant.attempt),
        };
    }
    FollowUp::Retry { at: now + backoff.delay(grant.attempt, &seed) }
}

fn beat(unit: &Unit, ran: &Ran) -> Beat {
    Beat {
        worker: unit.def.name.clone(),
        runs: 1,
        last_started_at: ran.started_at,
        last_completed_at: ran.finished_at,
        latency: ran.latency,
        summary: ran.summary.clone(),
        next_due: watchbell_core::schedule::next_due(&unit.def.trigger, ran.finished_at),
    }
}

/// Polls a cycle so that its panic becomes a value.
async fn catch_panic<T>(mut work: BoxFuture<'_, T>) -> Result<T, String> {
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
