//! One job: computed on the path of every cycle, judged by its kind's policy, and published at once
//! where it has something to publish. Every other end is handed to the [consumer](super), which
//! ends many in one transaction.

use std::sync::Arc;
use std::time::Duration;

use watchbell_core::job::{self, Attempts, Kind};
use watchbell_core::port::{CycleEnd, FollowUp, Grant, JobEnd, Outcome, StoreError};
use watchbell_core::{
    Cause, Commit, CycleInput, Done, Fault, Millis, NewEvent, Time, Token, chain,
};

use crate::cycle::{Ran, Runner, Unit, is_refusal};
use crate::host::{Asked, Signals};

/// A job's grant: what it is known by while it is held.
pub(super) type Held = (i64, Token);

/// What came of a job.
pub(super) struct Ended {
    pub(super) held: Held,
    pub(super) ran: Box<Ran>,
    /// What the store has still to be told; `None` when it knows, or refused to.
    pub(super) end: Option<JobEnd>,
    /// What the first poll of its computation cost.
    pub(super) cost: Option<Duration>,
}

/// What a job's cycle needs, for as long as it runs.
#[derive(Clone)]
pub(super) struct Assignment {
    pub(super) runner: Arc<Runner>,
    pub(super) unit: Arc<Unit>,
    pub(super) kind: Arc<Kind>,
    pub(super) signals: Arc<Signals>,
    pub(super) held: Held,
}

impl Assignment {
    /// Computes the job and ends it.
    pub(super) async fn run(self, grant: Grant, input: CycleInput) -> Ended {
        let grant = self.signals.granted(grant);
        let (result, mut ran) = self.runner.execute(&self.unit, grant, input, &self.signals).await;
        // A cancelled job publishes nothing, also when it comes to a result all the same.
        let cancelled = self.signals.asked() == Some(Asked::Cancelled);
        match result {
            Ok(done) if !cancelled && done.commit.is_empty() && done.artifacts.is_empty() => {
                ran.summary = done.summary;
                self.quietly(grant, ran, FollowUp::Finish)
            }
            result => Box::pin(self.conclude(grant, result, ran)).await,
        }
    }

    /// Ends a job that was aborted.
    pub(super) async fn aborted(self, since: Time, why: String) -> Option<Ended> {
        let grant = self.signals.grant()?;
        let ran = Ran::begun(grant, since, self.runner.clock.now());
        Some(Box::pin(self.conclude(grant, Err(Fault::transient(why)), ran)).await)
    }

    async fn conclude(
        &self,
        grant: &Grant,
        result: Result<Done, Fault>,
        mut ran: Box<Ran>,
    ) -> Ended {
        // From here on its lease may be gone at any moment, and rightly so.
        self.signals.end();
        let settled = match result {
            Ok(_) if self.signals.asked() == Some(Asked::Cancelled) => Err(Fault::Cancelled),
            Ok(done) => self.runner.settle(&self.unit, grant, done, ran.finished_at),
            Err(fault) => Err(fault),
        };
        let fault = match settled {
            Ok((commit, end)) => {
                ran.summary = end.summary.clone();
                let end = CycleEnd { started_at: ran.started_at, next_due: None, ..end };
                match self.offer(grant, commit, end, &mut ran).await {
                    Ok(()) => return self.told(ran),
                    Err(error) if is_refusal(&error) => Fault::Transient(Box::new(error)),
                    Err(error) => return self.unpublished(grant, &error, ran),
                }
            }
            // The step that was refused has been recorded as such.
            Err(Fault::Store(error @ StoreError::Fenced { .. })) => {
                return self.unpublished(grant, &error, ran);
            }
            Err(fault) => fault,
        };
        let now = self.runner.clock.now();
        let attempts = Attempts {
            id: self.held.0,
            attempts: grant.attempt,
            max_attempts: grant.max_attempts,
            reclaims: 0,
        };
        let asked = self.signals.asked().filter(|_| !ran.crashed);
        let (outcome, follow_up) = verdict(&self.kind, &attempts, &fault, asked, now);
        ran.outcome = outcome;
        ran.error = Some(fault.to_string());
        ran.summary = serde_json::Value::Null;
        let FollowUp::GiveUp { reason } = &follow_up else {
            return self.quietly(grant, ran, follow_up);
        };
        let mut commit = Commit::new();
        commit.events.push(NewEvent {
            kind: "job.dead".into(),
            key: self.held.0.to_string(),
            dedupe: None,
            payload: serde_json::json!({
                "worker": self.unit.def.name, "kind": self.kind.name, "reason": reason,
            }),
        });
        // Null without a refusal.
        ran.summary = serde_json::json!(fault.refusal());
        let end = CycleEnd {
            outcome,
            summary: ran.summary.clone(),
            error: ran.error.clone(),
            started_at: ran.started_at,
            follow_up,
            window: None,
            artifacts: Vec::new(),
            next_due: None,
            keep_lease: false,
        };
        match self.offer(grant, commit, end.clone(), &mut ran).await {
            Ok(()) => self.told(ran),
            Err(error @ StoreError::Fenced { .. }) => self.unpublished(grant, &error, ran),
            Err(error) => {
                // That it is dead counts more than the event that says so.
                tracing::error!(
                    worker.name = %self.unit.def.name, job.id = self.held.0,
                    "job {} is given up without an event: {}", self.held.0, chain(&error)
                );
                self.quietly(grant, ran, end.follow_up)
            }
        }
    }

    async fn offer(
        &self,
        grant: &Grant,
        commit: Commit,
        end: CycleEnd,
        ran: &mut Ran,
    ) -> Result<(), StoreError> {
        self.runner.offer(&self.unit, grant, &self.signals, commit, end, ran).await
    }

    /// The store knows how it ended.
    fn told(&self, ran: Box<Ran>) -> Ended {
        Ended { held: self.held, ran, end: None, cost: None }
    }

    /// Its end goes to the store together with others.
    fn quietly(&self, grant: &Grant, mut ran: Box<Ran>, follow_up: FollowUp) -> Ended {
        if let FollowUp::Retry { at } | FollowUp::Again { at } = &follow_up {
            ran.retry_at = Some(*at);
        }
        let end = JobEnd {
            id: self.held.0,
            token: grant.token,
            outcome: ran.outcome,
            follow_up,
            result: ran.summary.clone(),
            error: ran.error.clone(),
            started_at: ran.started_at,
        };
        Ended { held: self.held, ran, end: Some(end), cost: None }
    }

    /// The store did not take its end. Where it refused it, somebody else has the job; where it did
    /// not answer, the job is given back, which the store passes over if it has taken the end.
    fn unpublished(&self, grant: &Grant, error: &StoreError, mut ran: Box<Ran>) -> Ended {
        ran.summary = serde_json::Value::Null;
        ran.error = Some(chain(error));
        if matches!(error, StoreError::Fenced { .. }) {
            ran.outcome = Outcome::Fenced;
            return self.told(ran);
        }
        ran.outcome = Outcome::Failed;
        let again = FollowUp::Again { at: self.runner.clock.now() };
        self.quietly(grant, ran, again)
    }
}

/// What follows for a job whose attempt did not succeed. Pure.
///
/// An attempt that was asked to stop because its worker or its node stops, or because its lease is
/// lost, spends nothing; one that was asked because its time is up does.
fn verdict(
    kind: &Kind,
    attempts: &Attempts,
    fault: &Fault,
    asked: Option<Asked>,
    now: Time,
) -> (Outcome, FollowUp) {
    let failed = || job::after_failure(attempts, &fault.to_string(), now, &kind.backoff);
    let again = || (Outcome::Cancelled, FollowUp::Again { at: now });
    match (fault, asked) {
        (_, Some(Asked::Cancelled)) => {
            let reason = "an operator cancelled it while it ran".to_owned();
            (Outcome::Cancelled, FollowUp::Cancel { reason })
        }
        (Fault::Snooze { after, .. }, _) => (Outcome::Snoozed, job::after_snooze(now, *after)),
        (Fault::Permanent(_), _) => {
            (Outcome::Failed, FollowUp::GiveUp { reason: fault.to_string() })
        }
        (_, Some(Asked::ToStop | Asked::Lost)) => again(),
        (Fault::Cancelled, Some(Asked::TimeUp)) => {
            let error = "stopped when it was asked to, past its time limit";
            (Outcome::TimedOut, job::after_failure(attempts, error, now, &kind.backoff))
        }
        (_, Some(Asked::TimeUp)) => (Outcome::TimedOut, failed()),
        // Nobody asked: it does not want to run now, and shall not spin.
        (Fault::Cancelled, None) => (Outcome::Cancelled, job::after_snooze(now, Millis::ZERO)),
        (Fault::Transient(_) | Fault::Store(_), None) => (Outcome::Failed, failed()),
    }
}

/// The number of the job behind a cause.
pub(super) const fn number(cause: &Cause) -> Option<i64> {
    match cause {
        Cause::Job { id } => Some(*id),
        Cause::Tick { .. }
        | Cause::Window { .. }
        | Cause::Event { .. }
        | Cause::Stream
        | Cause::Manual => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_depends_on_who_asked() {
        let kind = Kind::new("k");
        let attempts = Attempts { id: 7, attempts: 1, max_attempts: 2, reclaims: 0 };
        let last = Attempts { attempts: 2, ..attempts };
        let now = Time(1_000_000);
        let retry = FollowUp::Retry { at: now + kind.backoff.delay(1, "job 7") };
        let again = FollowUp::Again { at: now };
        let broken = || Fault::transient("broken");
        let snooze = Fault::Snooze { after: Millis(5_000), why: "early".into() };
        let later = |ms| FollowUp::Again { at: now + Millis(ms) };
        let dead = |reason: &str| FollowUp::GiveUp { reason: reason.into() };
        let ended = FollowUp::Cancel { reason: "an operator cancelled it while it ran".into() };
        use Asked::{Cancelled, Lost, TimeUp, ToStop};
        use Outcome as O;
        for (fault, asked, job, outcome, follow_up) in [
            (broken(), None, attempts, O::Failed, retry.clone()),
            (
                broken(),
                None,
                last,
                O::Failed,
                dead("failed 2 of 2 attempts, the last with: broken"),
            ),
            (broken(), Some(TimeUp), attempts, O::TimedOut, retry.clone()),
            (broken(), Some(ToStop), last, O::Cancelled, again.clone()),
            (Fault::Cancelled, Some(ToStop), last, O::Cancelled, again.clone()),
            (Fault::Cancelled, Some(Lost), last, O::Cancelled, again),
            (Fault::Cancelled, Some(TimeUp), attempts, O::TimedOut, retry),
            (Fault::Cancelled, None, last, O::Cancelled, later(1_000)),
            (Fault::Cancelled, Some(Cancelled), attempts, O::Cancelled, ended.clone()),
            (broken(), Some(Cancelled), last, O::Cancelled, ended),
            (snooze, None, last, O::Snoozed, later(5_000)),
            (Fault::permanent("no such symbol"), None, attempts, O::Failed, dead("no such symbol")),
        ] {
            let text = format!("{fault} {asked:?}");
            assert_eq!(verdict(&kind, &job, &fault, asked, now), (outcome, follow_up), "{text}");
        }
        let (outcome, follow_up) = verdict(&kind, &last, &Fault::Cancelled, Some(TimeUp), now);
        let FollowUp::GiveUp { reason } = follow_up else { panic!("{follow_up:?}") };
        assert_eq!(outcome, Outcome::TimedOut);
        assert!(reason.contains("past its time limit"), "{reason}");
    }
}
