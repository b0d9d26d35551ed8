//! A worker's life: what is wanted of it, the steps from what it is to that, and what a failure of
//! the whole worker leads to.

use std::sync::Arc;

use watchbell_core::gate::Gate;
use watchbell_core::lifecycle::{self, Desired, Event, State};
use watchbell_core::port::{Outcome, Transition, WorkerRecord};
use watchbell_core::restart::{self, Restart};
use watchbell_core::{Effects, Millis, Time, WorkerName};

use super::{Message, Supervisor, Timer};
use crate::node::Action;
use crate::recorder::Record;

impl Supervisor {
    /// Brings every worker nearer to what is wanted, in start order (in stop order when leaving).
    /// A step on the way may ask for another pass: passes follow one another and do not nest, or
    /// thousands of workers that stop at once would overflow the stack.
    pub(super) fn reconcile_all(&mut self) {
        self.reconcile_due = true;
        if self.reconciling {
            return;
        }
        self.reconciling = true;
        while std::mem::take(&mut self.reconcile_due) {
            let order: Vec<usize> = if self.leaving {
                self.order.iter().rev().copied().collect()
            } else {
                self.order.clone()
            };
            for i in order {
                self.reconcile(i);
            }
        }
        self.reconciling = false;
    }

    fn reconcile(&mut self, i: usize) {
        loop {
            let now = self.clock.now();
            let desired = self.wanted(i);
            let slot = &self.slots[i];
            if slot.state == State::Initializing && desired != Desired::Stopped {
                if self.missing_dependency(i).is_none() {
                    self.step(i, Event::Started, "its dependencies run");
                    continue;
                }
                self.note_gate(i, now);
                return;
            }
            let Some(event) = lifecycle::reconcile(desired, slot.state) else { return };
            // While the node leaves, a worker stops after everything that needs it.
            if self.leaving && event == Event::Stop && self.is_needed(i) {
                return;
            }
            // A worker that gave up stays so: leaving the node is no reason to forget that.
            if self.leaving && slot.state == State::Failed {
                return;
            }
            let reason = match (&slot.desired_by, self.leaving) {
                (_, true) => "the node is stopping".to_owned(),
                (Some(by), false) => format!("asked by {by}"),
                (None, false) => "in the profile".to_owned(),
            };
            self.step(i, event, &reason);
        }
    }

    fn wanted(&self, i: usize) -> Desired {
        let slot = &self.slots[i];
        if self.leaving || !slot.active { Desired::Stopped } else { slot.desired }
    }

    pub(super) fn missing_dependency(&self, i: usize) -> Option<Gate> {
        self.slots[i].needs.iter().find_map(|&(need, soft)| {
            let other = &self.slots[need];
            let there = matches!(other.state, State::Running | State::Paused);
            (!soft && !there).then(|| Gate::Dependency {
                worker: other.unit.def.name.clone(),
                state: other.state,
            })
        })
    }

    fn is_needed(&self, i: usize) -> bool {
        self.dependents[i].iter().any(|&other| self.slots[other].state.is_alive())
    }

    /// One step of a worker's life: the state, its record, and what the new state asks for.
    pub(super) fn step(&mut self, i: usize, event: Event, reason: &str) {
        let now = self.clock.now();
        let slot = &mut self.slots[i];
        let from = slot.state;
        let to = match lifecycle::next(from, event) {
            Ok(to) => to,
            Err(forbidden) => {
                tracing::error!(worker.name = %slot.unit.def.name, "{forbidden}");
                return;
            }
        };
        slot.state = to;
        slot.state_since = now;
        // No two steps of a worker are on record for one instant: so the store knows a step that it
        // is told twice, and their order is in their times.
        slot.stepped_at = now.max(slot.stepped_at + Millis(1));
        let at = slot.stepped_at;
        let name = slot.unit.def.name.clone();
        if matches!(to, State::Failed) {
            tracing::error!(worker.name = %name, "{name}: {from} -> {to}: {reason}");
        } else {
            tracing::debug!(worker.name = %name, "{name}: {from} -> {to}: {reason}");
        }
        self.recorder.put(Record::Transition(Transition {
            worker: name,
            from,
            to,
            reason: reason.to_owned(),
            at,
            session: self.runner.session.clone(),
        }));
        match to {
            State::Running => {
                // On its way to a pause it holds its place and starts nothing.
                if self.wanted(i) == Desired::Running {
                    self.slots[i].take_up(now);
                    self.record_passed_alone(i, now);
                    self.arm_due(i);
                    self.start(i, now);
                    self.note_gate(i, now);
                }
                for at in 0..self.dependents[i].len() {
                    let other = self.dependents[i][at];
                    if self.slots[other].state == State::Initializing {
                        self.reconcile(other);
                    }
                }
            }
            State::Paused => {
                self.slots[i].disarm();
                self.slots[i].drain();
                if self.slots[i].running.is_empty() {
                    self.leave_standing(i, now);
                }
            }
            State::ShuttingDown => {
                self.slots[i].disarm();
                self.end_cycles(i, now);
                if self.slots[i].running.is_empty() {
                    self.stopped(i);
                }
            }
            State::Failed => {
                self.slots[i].disarm();
                self.leave_standing(i, now);
            }
            State::Stopped | State::Initializing | State::Restarting | State::Unavailable => {}
        }
    }

    /// Asks the cycles of a worker to end, and sets a deadline.
    pub(super) fn end_cycles(&mut self, i: usize, now: Time) {
        let slot = &mut self.slots[i];
        if slot.running.is_empty() {
            return;
        }
        for running in &slot.running {
            running.signals.cancel();
        }
        // A consumer has a grace of its own for its jobs, and one for telling the store.
        let more = if slot.is_queue() { self.options.abort_grace * 2 } else { Millis::ZERO };
        let deadline = now + self.options.stop_grace + more;
        slot.stop_deadline = Some(deadline);
        self.arm(deadline, Timer::StopDeadline(i));
    }

    pub(super) fn stopped(&mut self, i: usize) {
        self.slots[i].stop_deadline = None;
        self.leave_standing(i, self.clock.now());
        // Another node may have waited for whatever lease its last cycle had.
        self.recorder.put(Record::Tell(Effects { leases: true, ..Effects::default() }));
        self.step(i, Event::Stopped, "stopped");
        self.reconcile_all();
    }

    /// Gives the standing lease of a quiet worker back that does not run here any more.
    pub(super) fn leave_standing(&mut self, i: usize, now: Time) {
        let Some(token) = self.slots[i].unit.leave_standing() else { return };
        let worker = self.slots[i].unit.def.name.clone();
        let session = self.runner.session.clone();
        self.recorder.put(Record::Release { worker, session, token, at: now });
    }

    /// Reads what operators of other nodes want, in the background.
    pub(super) fn look_at_desired(&mut self) {
        let (store, outbox) = (Arc::clone(&self.runner.store), self.outbox.clone());
        tokio::spawn(async move {
            match store.workers().await {
                // An error means that the supervisor is gone, and the node with it.
                Ok(records) => drop(outbox.send(Message::Desired(records))),
                Err(e) => tracing::warn!(
                    "cannot read what is wanted of the workers: {}",
                    watchbell_core::chain(&e)
                ),
            }
        });
    }

    /// Takes over what an operator of another node has asked for since this node heard of it.
    pub(super) fn adopt_desired(&mut self, records: Vec<WorkerRecord>) {
        let now = self.clock.now();
        for record in records {
            let Some(&i) = self.by_name.get(&record.name) else { continue };
            let slot = &mut self.slots[i];
            if record.desired_at <= slot.desired_at || self.leaving {
                continue;
            }
            slot.desired_at = record.desired_at;
            slot.desired_by = record.desired_by;
            if slot.desired != record.desired {
                slot.desired = record.desired;
                self.reconcile(i);
                self.note_gate(i, now);
            }
        }
    }

    /// Reads the conditions that other nodes have set, in the background.
    pub(super) fn look_at_conditions(&mut self) {
        let (store, outbox) = (Arc::clone(&self.runner.store), self.outbox.clone());
        tokio::spawn(async move {
            match store.conditions().await {
                Ok(all) => {
                    let conditions = all.into_iter().map(|(c, _)| c).collect();
                    let effects = Effects { conditions, ..Effects::default() };
                    // An error means that the supervisor is gone, and the node with it.
                    drop(outbox.send(Message::Told(effects)));
                }
                Err(e) => {
                    tracing::warn!("cannot read the conditions: {}", watchbell_core::chain(&e));
                }
            }
        });
    }

    pub(super) fn stop_deadline(&mut self, i: usize, now: Time) {
        let name = self.slots[i].unit.def.name.clone();
        tracing::warn!(
            worker.name = %name,
            "{name} did not stop within {}: aborting its cycle", self.options.stop_grace
        );
        self.slots[i].stop_deadline = None;
        let running = std::mem::take(&mut self.slots[i].running);
        for r in running {
            self.abort(i, r, Outcome::Cancelled, "aborted: it did not stop when asked", now);
        }
        self.turns.leave(i, &self.slots[i]);
        if self.slots[i].state == State::ShuttingDown {
            self.stopped(i);
        }
    }

    /// A worker failed as a whole: a panic, a hard timeout, a stream that returned.
    pub(super) fn crash(&mut self, i: usize, reason: &str, now: Time) {
        let started = self.slots[i].state_since;
        self.storm.failed(now);
        self.step(i, Event::Fail, reason);
        for running in std::mem::take(&mut self.slots[i].running) {
            self.abort(i, running, Outcome::Cancelled, "aborted: its worker failed", now);
        }
        if self.leaving {
            self.reconcile_all();
            return;
        }
        let slot = &mut self.slots[i];
        let name = slot.unit.def.name.clone();
        let decision = restart::decide(
            &self.options.restart,
            &mut slot.restarts,
            Some(started),
            now,
            name.as_str(),
        );
        match serde_json::to_value(&slot.restarts) {
            Ok(restarts) => self.recorder.put(Record::Restarts { worker: name.clone(), restarts }),
            Err(e) => tracing::error!(worker.name = %name, "cannot keep restarts: {e}"),
        }
        match decision {
            Restart::After(pause) => {
                let at = now + pause;
                self.slots[i].retry_at = Some(at);
                self.step(i, Event::Retry, &format!("restarts in {pause} after: {reason}"));
                self.arm(at, Timer::Retry(i));
            }
            Restart::GiveUp { since, failures } => {
                tracing::error!(
                    worker.name = %name,
                    "{name} failed {failures} times since {since} and stays down: run `watchbell \
                     worker restart {name}` once the cause is gone"
                );
            }
        }
        self.note_gate(i, now);
    }

    pub(super) fn retry(&mut self, i: usize, now: Time) {
        match self.storm.admit(now) {
            Ok(()) => {
                self.slots[i].retry_at = None;
                if self.slots[i].state == State::Restarting {
                    self.step(i, Event::Start, "its backoff is over");
                    self.reconcile(i);
                }
            }
            Err(until) => {
                self.slots[i].retry_at = Some(until);
                self.arm(until, Timer::Retry(i));
                self.note_gate(i, now);
            }
        }
    }

    pub(super) fn act(
        &mut self,
        worker: &WorkerName,
        action: Action,
        by: &str,
        now: Time,
    ) -> Result<(), String> {
        let Some(&i) = self.by_name.get(worker) else {
            return Err(format!("there is no worker `{worker}`"));
        };
        if let Some(why) = self.slots[i].unit.def.unavailable.clone()
            && action != Action::Stop
        {
            return Err(format!("`{worker}` is unavailable: {why}"));
        }
        let desired = match action {
            Action::Start | Action::Resume | Action::Restart => Desired::Running,
            Action::Pause => Desired::Paused,
            Action::Stop => Desired::Stopped,
        };
        let slot = &mut self.slots[i];
        slot.active = true;
        slot.desired = desired;
        slot.desired_by = Some(by.to_owned());
        slot.desired_at = Some(now);
        self.recorder.put(Record::Desired {
            worker: worker.clone(),
            desired,
            by: by.to_owned(),
            at: now,
        });
        if matches!(action, Action::Start | Action::Restart) {
            let slot = &mut self.slots[i];
            slot.restarts.clear();
            slot.retry_at = None;
            let restarts = serde_json::json!(slot.restarts);
            self.recorder.put(Record::Restarts { worker: worker.clone(), restarts });
            match self.slots[i].state {
                State::Failed => self.step(i, Event::Reset, &format!("reset by {by}")),
                State::Restarting => self.step(i, Event::Stop, &format!("reset by {by}")),
                State::Initializing | State::Running | State::Paused
                    if action == Action::Restart =>
                {
                    // The stop comes back to `reconcile`, which starts it again.
                    self.step(i, Event::Stop, &format!("restart asked by {by}"));
                }
                _ => {}
            }
        }
        self.reconcile(i);
        self.note_gate(i, now);
        Ok(())
    }
}
