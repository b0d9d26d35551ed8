//! What ends a cycle from outside: its time limits, a lease that is lost, an abort. Every end burns
//! the cycle's token, so that whatever still runs of it can publish nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use watchbell_core::lifecycle::State;
use watchbell_core::port::{CycleEnd, Grant, Outcome, Publication, StoreError};
use watchbell_core::{Fault, Ledger, Time, WorkerName, chain, schedule};

use super::{Message, Supervisor, Timer};
use crate::cycle::{Report, verdict};
use crate::recorder::Record;
use crate::slot::{Running, Slot};

impl Supervisor {
    pub(super) fn check_limits(&mut self, i: usize, now: Time) {
        self.slots[i].limit_timer = false;
        let def = &self.slots[i].unit.def;
        let (soft, hard) = (def.soft_timeout, def.hard_timeout.max(def.soft_timeout));
        let name = def.name.clone();
        let mut overdue = Vec::new();
        let mut next = None;
        for (at, running) in self.slots[i].running.iter().enumerate() {
            let age = now - running.since;
            if age >= hard {
                overdue.push(at);
                continue;
            }
            if age >= soft && !running.signals.is_cancelled() {
                tracing::warn!(
                    worker.name = %name,
                    "{name} has run for {age}, past its soft timeout of {soft}: asked to stop"
                );
                running.signals.cancel();
            }
            let limit = running.since + if age >= soft { hard } else { soft };
            next = Some(next.map_or(limit, |n: Time| n.min(limit)));
        }
        if let Some(at) = next {
            self.slots[i].limit_timer = true;
            self.arm(at, Timer::Limit(i));
        }
        let crashed = !overdue.is_empty();
        for at in overdue.into_iter().rev() {
            let running = self.slots[i].running.swap_remove(at);
            let why = format!("ran longer than its hard timeout of {hard}");
            self.abort(i, running, Outcome::TimedOut, &why, now);
        }
        if crashed {
            if self.slots[i].state == State::ShuttingDown {
                if self.slots[i].running.is_empty() {
                    self.stopped(i);
                }
            } else if self.slots[i].state.is_alive() {
                self.crash(i, &format!("ran longer than its hard timeout of {hard}"), now);
            }
            self.turns.leave(i, &self.slots[i]);
        }
    }

    /// Looks whether aborted tasks are gone. One that blocks its thread cannot be ended from here;
    /// its token is burnt, so it can do no harm, but it holds a thread.
    pub(super) fn reap(&mut self, now: Time) {
        for (_, name, task) in self.zombies.extract_if(.., |(at, ..)| *at <= now) {
            if !task.is_finished() {
                tracing::error!(
                    worker.name = %name,
                    "a cycle of {name} is still there {} after it was aborted: it blocks its \
                     thread, and only a restart of the node frees it",
                    self.options.abort_grace
                );
            }
        }
    }

    /// Ends a cycle from outside, and burns its token so that a late commit is refused.
    pub(super) fn abort(
        &mut self,
        i: usize,
        running: Running,
        outcome: Outcome,
        why: &str,
        now: Time,
    ) {
        running.signals.cancel();
        running.task.abort();
        let gone_by = now + self.options.abort_grace;
        self.zombies.push((gone_by, self.slots[i].unit.def.name.clone(), running.task.clone()));
        self.arm(gone_by, Timer::Reap);
        let Some(grant) = running.signals.grant() else {
            // Its claim is under way, and may come true or not: the next one finds out.
            self.slots[i].put_back(running.intent);
            return;
        };
        let slot = &self.slots[i];
        slot.unit.forget_standing();
        let fault = match outcome {
            Outcome::Cancelled => Fault::Cancelled,
            _ => Fault::transient(why),
        };
        let (commit, follow_up) = verdict(&slot.unit, grant, &fault, now);
        let publication = Publication {
            worker: slot.unit.def.name.clone(),
            session: self.runner.session.clone(),
            token: grant.token,
            cycle: grant.cycle,
            cause: grant.cause.clone(),
            now,
            commit,
            end: Some(CycleEnd {
                outcome,
                summary: serde_json::Value::Null,
                error: Some(why.to_owned()),
                started_at: running.since,
                follow_up,
                window: None,
                artifacts: Vec::new(),
                next_due: schedule::next_due(&slot.unit.def.trigger, now),
                keep_lease: false,
            }),
        };
        // Through the recorder: the node waits for it before it closes the session.
        self.recorder.put(Record::Burn(Box::new(publication)));
        if let Some(reply) = running.reply {
            // Whoever asked may have stopped waiting.
            drop(reply.send(Report::Broken(StoreError::Conflict(why.to_owned()))));
        }
    }

    pub(super) fn renew(&mut self, now: Time) {
        self.renew_armed = false;
        let runs = |s: &Slot| !s.is_queue() && !s.running.is_empty();
        let held = self.slots.iter().any(|s| runs(s) || s.unit.has_standing());
        if !held {
            return; // nothing to keep: an idle node writes nothing
        }
        self.renew_armed = true;
        self.arm_look(now);
        self.arm(now + self.options.lease_renew, Timer::Renew);
        let (runner, outbox) = (Arc::clone(&self.runner), self.outbox.clone());
        let (session, ttl) = (self.runner.session.clone(), self.options.lease_ttl);
        tokio::spawn(async move {
            let result = runner.gauge.time(runner.store.renew(&session, ttl, now)).await;
            // An error means that the supervisor is gone, and the node with it.
            drop(outbox.send(Message::Renewed { asked: now, result }));
        });
    }

    /// A holder stops trusting its lease before the store does: measured from when it asked.
    pub(super) fn renewed(
        &mut self,
        asked: Time,
        result: Result<Vec<WorkerName>, StoreError>,
        now: Time,
    ) {
        let kept = match result {
            Ok(kept) => {
                self.renewed_at = asked;
                kept
            }
            Err(error) => {
                tracing::warn!("cannot renew leases: {}", chain(&error));
                if now < self.runner.trust(self.renewed_at) {
                    return;
                }
                Vec::new()
            }
        };
        let kept: BTreeSet<_> = kept.into_iter().collect();
        for slot in &self.slots {
            let name = &slot.unit.def.name;
            if kept.contains(name) {
                for running in &slot.running {
                    running.signals.trust(self.runner.trust(asked));
                }
                continue;
            }
            if slot.unit.def.ledger == Ledger::Quiet && slot.unit.has_standing() {
                slot.unit.forget_standing();
            }
            for running in slot.running.iter().filter(|r| {
                let older = |g: &Grant| g.expires_at - self.options.lease_ttl < asked;
                r.signals.grant().is_some_and(older) && !r.signals.is_ending()
            }) {
                tracing::warn!(worker.name = %name, "{name} lost its lease: asked to stop");
                running.signals.cancel();
            }
        }
    }
}
