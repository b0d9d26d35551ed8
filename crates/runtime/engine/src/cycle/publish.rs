//! How a cycle ends: what its result or its fault publishes, in one transaction under its token, and
//! what follows for the window or event behind it. How a job's cycle ends is told in
//! [`queue::job`](crate::queue).

use watchbell_core::port::{Beat, CycleEnd, FollowUp, Grant, Outcome, Publication, StoreError};
use watchbell_core::retry::{self, Backoff};
use watchbell_core::{
    Cause, Commit, Done, Effects, Fault, Millis, NewEvent, Time, Trigger, chain, schedule,
};

use super::{EVENT_ATTEMPTS, Ran, Runner, Unit};
use crate::host::Signals;

/// Between two tries at a store that fails.
pub(crate) const STORE: Backoff =
    Backoff { base: Millis(500), factor: 2, cap: Millis::from_secs(5), jitter: 0.25 };

/// How often a publication is tried while its lease is renewed: a store that renews leases and does
/// not take a commit so many times does not like the commit.
const PUBLISH_TRIES: u32 = 8;

/// Whether the store refused what a cycle wants to write, and would refuse it again.
pub(crate) const fn is_refusal(error: &StoreError) -> bool {
    match error {
        StoreError::Unmet { .. }
        | StoreError::Conflict(_)
        | StoreError::Invalid { .. }
        | StoreError::NotFound { .. } => true,
        StoreError::Fenced { .. } | StoreError::Database(_) => false,
    }
}

impl Runner {
    /// Publishes what the cycle came to, and completes the report of it.
    pub(super) async fn conclude(
        &self,
        unit: &Unit,
        grant: &Grant,
        signals: &Signals,
        result: Result<Done, Fault>,
        quiet: bool,
        ran: &mut Ran,
    ) {
        let settled = match result {
            Ok(done) => self.settle(unit, grant, done, ran.finished_at),
            Err(fault) => Err(fault),
        };
        let fault = match settled {
            Ok((commit, end)) => {
                ran.summary = end.summary.clone();
                ran.window.clone_from(&end.window);
                let end = CycleEnd { started_at: ran.started_at, keep_lease: quiet, ..end };
                match self.offer(unit, grant, signals, commit, end, ran).await {
                    Ok(()) => return,
                    // The worker asked for something that does not hold: publish its failure.
                    Err(error) if is_refusal(&error) => Fault::Transient(Box::new(error)),
                    Err(error) => return lost(unit, &error, quiet, ran),
                }
            }
            Err(fault) => fault,
        };
        ran.window = None;
        let (commit, end) = self.fail(unit, grant, &fault, self.clock.now(), ran);
        let end = CycleEnd { started_at: ran.started_at, keep_lease: quiet, ..end };
        if let Err(error) = self.offer(unit, grant, signals, commit, end, ran).await {
            lost(unit, &error, quiet, ran);
        }
    }

    /// Turns a worker's result into a commit and an end.
    pub(crate) fn settle(
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
            match self.artifacts.publish(artifact, grant, now) {
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
            next_due: schedule::next_due(&unit.def.trigger, now),
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
            next_due: schedule::next_due(&unit.def.trigger, now),
            keep_lease: false,
        };
        (commit, end)
    }

    /// Publishes an end; while the database fails and the lease can be trusted, tries some times. Files
    /// that it publishes become visible with it, or are taken back.
    pub(crate) async fn offer(
        &self,
        unit: &Unit,
        grant: &Grant,
        signals: &Signals,
        commit: Commit,
        end: CycleEnd,
        ran: &mut Ran,
    ) -> Result<(), StoreError> {
        let effects = effects_of(grant, &commit, &end);
        let artifacts = end.artifacts.clone();
        let published = self.publish(unit, grant, signals, commit, end).await;
        for record in &artifacts {
            if published.is_ok() {
                if let Err(e) = self.artifacts.point_latest(record) {
                    tracing::warn!(artifact = record.path, "{}", chain(&e));
                }
            } else if let Err(e) = self.artifacts.withdraw(record) {
                tracing::warn!(artifact = record.path, "cannot withdraw: {e}");
            }
        }
        if published.is_ok() {
            ran.effects = effects;
        }
        published
    }

    async fn publish(
        &self,
        unit: &Unit,
        grant: &Grant,
        signals: &Signals,
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
            publication.now = self.clock.now();
            let offered = self.gauge.time(self.store.publish(publication.clone()));
            let error = match offered.await {
                Ok(()) => return Ok(()),
                Err(error @ StoreError::Database(_)) => error,
                Err(error) => return Err(error),
            };
            tries += 1;
            if tries == PUBLISH_TRIES {
                return Err(StoreError::Conflict(format!(
                    "the store did not take its commit in {tries} tries: {}",
                    chain(&error)
                )));
            }
            let pause = STORE.delay(tries, &format!("{}/{}", unit.def.name, grant.token.0));
            let until = signals.trusted_until().unwrap_or(grant.expires_at);
            if self.clock.now() + pause >= until {
                return Err(error);
            }
            if tries.is_power_of_two() {
                tracing::warn!(
                    worker.name = %unit.def.name,
                    "publication of {} failed, again in {pause}: {}", unit.def.name, chain(&error)
                );
            }
            self.clock.sleep(pause).await;
        }
    }
}

/// What else a published end touches.
fn effects_of(grant: &Grant, commit: &Commit, end: &CycleEnd) -> Effects {
    let mut effects = Effects::of(commit);
    if let Cause::Window { series, .. } = &grant.cause
        && matches!(end.follow_up, FollowUp::Finish | FollowUp::GiveUp { .. })
    {
        effects.series.insert(series.clone());
    }
    effects
}

/// The end could not be published: the report says so.
fn lost(unit: &Unit, error: &StoreError, quiet: bool, ran: &mut Ran) {
    let fenced = matches!(error, StoreError::Fenced { .. });
    if quiet && fenced {
        unit.forget_standing();
    }
    ran.outcome = if fenced { Outcome::Fenced } else { Outcome::Failed };
    ran.error = Some(chain(error));
}

/// What follows for the window or event behind a cycle that failed, and the event that says
/// so when nothing more will be tried. Pure.
pub(crate) fn verdict(unit: &Unit, grant: &Grant, fault: &Fault, now: Time) -> (Commit, FollowUp) {
    let follow_up = follow_up(unit, grant, fault, now);
    let mut commit = Commit::new();
    if let FollowUp::GiveUp { reason } = &follow_up {
        let (kind, key) = match &grant.cause {
            Cause::Window { series, start, .. } => {
                ("window.abandoned", format!("{series}/{start}"))
            }
            Cause::Event { id } => ("event.dead", id.to_string()),
            Cause::Job { .. } | Cause::Tick { .. } | Cause::Stream | Cause::Manual => {
                ("cycle.failed", unit.def.name.to_string())
            }
        };
        commit.emit(kind, key, serde_json::json!({ "worker": unit.def.name, "reason": reason }));
    }
    (commit, follow_up)
}

/// What follows for the window or event behind a cycle that failed. Pure.
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

/// The heartbeat of a quiet cycle that published nothing.
pub(super) fn beat(unit: &Unit, ran: &Ran) -> Beat {
    Beat {
        worker: unit.def.name.clone(),
        runs: 1,
        errors: 0,
        failing: 0,
        last_success_at: Some(ran.finished_at),
        last_error: None,
        last_started_at: ran.started_at,
        last_completed_at: ran.finished_at,
        latency: ran.latency,
        summary: ran.summary.clone(),
        next_due: schedule::next_due(&unit.def.trigger, ran.finished_at),
    }
}
