//! How a cycle ends: what its result or its fault publishes, in one transaction under its token, and
//! what follows for the window, event or job behind it.

use watchbell_core::port::{Beat, CycleEnd, FollowUp, Grant, Outcome, Publication, StoreError};
use watchbell_core::{Cause, Commit, Done, Fault, NewEvent, Time, Trigger, chain, retry, schedule};

use super::{EVENT_ATTEMPTS, Ran, Runner, Unit};
use crate::effects::Effects;

/// How often a publication is tried again while the store fails and the lease still holds.
const PUBLISH_TRIES: u32 = 5;

impl Runner {
    /// Publishes what the cycle came to, and completes the report of it.
    pub(super) async fn conclude(
        &self,
        unit: &Unit,
        grant: &Grant,
        result: Result<Done, Fault>,
        quiet: bool,
        ran: &mut Ran,
    ) {
        let now = ran.finished_at;
        let settled = match result {
            Ok(done) => self.settle(unit, grant, done, now),
            Err(fault) => Err(fault),
        };
        let (commit, end) = match settled {
            Ok((commit, end)) => {
                ran.summary = end.summary.clone();
                ran.window.clone_from(&end.window);
                (commit, end)
            }
            Err(fault) => self.fail(unit, grant, &fault, now, ran),
        };
        let end = CycleEnd { started_at: ran.started_at, keep_lease: quiet, ..end };
        let effects = self.effects_of(unit, grant, &commit, &end);
        let artifacts = end.artifacts.clone();
        match self.publish(unit, grant, commit, end).await {
            Ok(()) => {
                ran.effects = effects;
                for record in &artifacts {
                    if let Err(e) = self.artifacts.point_latest(record) {
                        tracing::warn!(artifact = record.path, "{}", chain(&e));
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
                ran.error = Some(chain(&error));
            }
        }
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
                        chain(&error)
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

/// The heartbeat of a quiet cycle that published nothing.
pub(super) fn beat(unit: &Unit, ran: &Ran) -> Beat {
    Beat {
        worker: unit.def.name.clone(),
        runs: 1,
        last_started_at: ran.started_at,
        last_completed_at: ran.finished_at,
        latency: ran.latency,
        summary: ran.summary.clone(),
        next_due: schedule::next_due(&unit.def.trigger, ran.finished_at),
    }
}
