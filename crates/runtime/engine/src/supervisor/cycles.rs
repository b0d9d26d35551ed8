//! From what is due to what came of it: the gates that the node knows, the start of a cycle, its
//! report, the lanes, and whoever is woken by what it changed.

use std::sync::Arc;

use tokio::sync::oneshot;
use watchbell_core::gate::Gate;
use watchbell_core::lifecycle::{Desired, State};
use watchbell_core::port::{Outcome, StoreError};
use watchbell_core::restart::Breaker;
use watchbell_core::{Cause, CycleId, Effects, Millis, Time, Trigger, WorkerName, chain, retry};

use super::{Message, Supervisor, Timer};
use crate::cycle::{Intent, Ran, Report, catch_panic};
use crate::host::Signals;
use crate::queue::{self, Span};
use crate::recorder::Record;
use crate::slot::Running;

impl Supervisor {
    pub(super) fn poke(&mut self, i: usize, now: Time) {
        self.slots[i].poked |= !matches!(
            self.slots[i].unit.def.trigger,
            Trigger::Every { .. } | Trigger::Cron(_) | Trigger::Manual
        );
        self.start(i, now);
    }

    /// The gates that the node itself knows: everything but the store's.
    pub(super) fn gate(&self, i: usize) -> Option<Gate> {
        let slot = &self.slots[i];
        let def = &slot.unit.def;
        if slot.state != State::Running {
            return Some(match (slot.state, slot.desired) {
                (State::Unavailable, _) => {
                    Gate::Unavailable { reason: def.unavailable.clone().unwrap_or_default() }
                }
                (State::Paused, desired) | (State::Stopped, desired @ Desired::Stopped) => {
                    Gate::Desired {
                        desired,
                        by: slot.desired_by.clone(),
                        since: Some(slot.state_since),
                    }
                }
                (State::Failed, _) => {
                    Gate::GaveUp { since: slot.restarts.failures.front().copied(), error: None }
                }
                (State::Restarting, _) => {
                    let until = slot.retry_at.unwrap_or(slot.state_since);
                    match self.storm.breaker(self.clock.now()) {
                        Breaker::Open { until: calm } | Breaker::HalfOpen { until: calm }
                            if until <= calm =>
                        {
                            Gate::Storm { until: calm }
                        }
                        _ => Gate::RestartBackoff { until },
                    }
                }
                (state, _) => self.missing_dependency(i).unwrap_or(Gate::NotRunning { state }),
            });
        }
        for name in &def.requires {
            match self.conditions.get(name) {
                Some(c) if c.met => {}
                Some(c) => {
                    return Some(Gate::Condition {
                        name: name.clone(),
                        detail: c.detail.clone(),
                        until: c.until,
                    });
                }
                None => {
                    return Some(Gate::Condition {
                        name: name.clone(),
                        detail: "nobody has reported it yet".into(),
                        until: None,
                    });
                }
            }
        }
        let holder = slot.lane.and_then(|lane| self.turns.holder(lane)).filter(|h| *h != i);
        Some(Gate::Lane {
            lane: def.lane.clone()?,
            worker: self.slots[holder?].unit.def.name.clone(),
        })
    }

    /// The first gate of a worker, for people: what the node knows, and what the store's side found.
    pub(super) fn gate_of_view(&self, i: usize, now: Time) -> Option<Gate> {
        self.gate(i)
            .or_else(|| self.way(i, now))
            .or_else(|| self.slots[i].gate.clone())
            .or_else(|| self.throttled(i))
    }

    /// Records the first gate of a worker when it differs in kind or detail from the known one. A
    /// gate that the store's side has found stays until the store's side looks again.
    pub(super) fn note_gate(&mut self, i: usize, now: Time) {
        let gate = self.gate(i);
        let ours = matches!(
            self.slots[i].gate,
            Some(
                Gate::Unavailable { .. }
                    | Gate::Desired { .. }
                    | Gate::GaveUp { .. }
                    | Gate::RestartBackoff { .. }
                    | Gate::Storm { .. }
                    | Gate::Dependency { .. }
                    | Gate::NotRunning { .. }
                    | Gate::Condition { .. }
            )
        );
        if gate.is_some() || ours {
            self.set_gate(i, gate, now);
        }
    }

    pub(super) fn set_gate(&mut self, i: usize, gate: Option<Gate>, now: Time) {
        // A lane passes within moments; recording it would write at each window.
        if matches!(gate, Some(Gate::Lane { .. })) || self.slots[i].gate == gate {
            return;
        }
        self.slots[i].gate.clone_from(&gate);
        let worker = self.slots[i].unit.def.name.clone();
        self.recorder.put(Record::Blocked { worker, gate, at: now });
    }

    /// Starts what a worker wants and may have. One that shares a lane gets its turn when everything
    /// of this moment is known.
    pub(super) fn start(&mut self, i: usize, now: Time) {
        if self.slots[i].held_until.is_some_and(|at| at > now) {
            return;
        }
        self.slots[i].held_until = None;
        while self.slots[i].wants() {
            if let Some(gate) = self.gate(i) {
                self.slots[i].drain();
                self.set_gate(i, Some(gate), now);
                return;
            }
            if !self.slots[i].is_free() {
                self.slots[i].wake();
                break;
            }
            if self.turns.ask(i, &self.slots[i]) {
                break;
            }
            let Some(intent) = self.slots[i].next_intent() else { return };
            self.launch(i, intent, None, now);
        }
        self.record_passed_alone(i, now);
    }

    pub(super) fn record_passed_alone(&mut self, i: usize, now: Time) {
        let passed = self.slots[i].passed_alone();
        if !passed.is_empty() {
            let worker = self.slots[i].unit.def.name.clone();
            self.recorder.put(Record::Passed { worker, passed, at: now });
        }
    }

    pub(super) fn launch(
        &mut self,
        i: usize,
        intent: Intent,
        reply: Option<oneshot::Sender<Report>>,
        now: Time,
    ) {
        let slot = &mut self.slots[i];
        let run = self.next_run;
        self.next_run += 1;
        self.turns.enter(i, slot);
        let signals = Arc::new(Signals::default());
        let (runner, unit, outbox) =
            (Arc::clone(&self.runner), Arc::clone(&slot.unit), self.outbox.clone());
        let (wanted, flags) = (intent.clone(), Arc::clone(&signals));
        let timed = matches!(intent, Intent::Tick { .. });
        let by_hand = reply.is_some();
        let consumer = if by_hand {
            slot.consumer.as_ref().map(|control| Arc::new(control.beside()))
        } else {
            slot.consumer.clone()
        };
        let task = tokio::spawn(async move {
            let work = async {
                let (Some(control), Trigger::Queue(spec)) = (consumer, &unit.def.trigger) else {
                    return runner.attempt(&unit, wanted, flags).await;
                };
                // Whoever shares a lane lets the others in between.
                let span = match &unit.def.lane {
                    _ if by_hand => Span::Round(1),
                    Some(_) => Span::Round(spec.concurrency),
                    None => Span::Endless,
                };
                let (runner, unit) = (Arc::clone(&runner), Arc::clone(&unit));
                queue::consume(runner, unit, spec, control, flags, span).await
            };
            // The worker's own panic is caught inside; this one is for its `scope` and
            // `first_window`, and for us. Boxed here, on the thread that runs it: the supervisor
            // makes only a small task.
            let report = catch_panic(Box::pin(work)).await.unwrap_or_else(|panic| {
                let text = format!("the cycle panicked outside its run: {panic}");
                Report::Broken(StoreError::Conflict(text))
            });
            let ledger = match report {
                Report::Taken | Report::Broken(_) if timed => runner.newest_due(&unit).await,
                _ => None,
            };
            // An error means that the supervisor is gone, and the node with it.
            drop(outbox.send(Message::Finished { slot: i, run, report, ledger }));
        });
        let task = task.abort_handle();
        let limit = now + slot.unit.def.soft_timeout;
        slot.running.push(Running { run, intent, signals, task, since: now, reply });
        if slot.is_queue() {
            return; // its consumer sees to the limits and the leases of its jobs
        }
        let endless = matches!(slot.unit.def.trigger, Trigger::Stream);
        self.arm_look(now);
        let slot = &mut self.slots[i];
        if !slot.limit_timer && !endless {
            slot.limit_timer = true;
            self.arm(limit, Timer::Limit(i));
        }
        if !self.renew_armed {
            self.renew_armed = true;
            self.renewed_at = now;
            self.arm(now + self.options.lease_renew, Timer::Renew);
        }
    }

    pub(super) fn finished(
        &mut self,
        i: usize,
        run: u64,
        mut report: Report,
        ledger: Option<Time>,
        now: Time,
    ) {
        let Some(at) = self.slots[i].running.iter().position(|r| r.run == run) else {
            return; // aborted before: its report is stale
        };
        let running = self.slots[i].running.swap_remove(at);
        self.slots[i].idle_until = None;
        if self.slots[i].is_queue() && running.reply.is_none() {
            // A consumer that drained and was then wanted again may not have heard of it.
            let slot = &mut self.slots[i];
            slot.poked |= slot.unit.def.lane.is_none() && slot.state == State::Running;
        }
        let next_end = next_end(&self.slots[i].unit.def.trigger, &running.signals, &report);
        let timed = matches!(running.intent, Intent::Tick { .. });
        let written = ledger.filter(|through| running.intent.first_due() <= Some(*through));
        let mut crashed = None;
        match &mut report {
            Report::Ran(ran) => {
                if let Some(beat) = ran.beat.take() {
                    self.slots[i].add_beat(beat);
                    self.arm_flush(now);
                }
                if !self.slots[i].is_queue() {
                    self.log_end(i, ran);
                }
                if ran.crashed {
                    crashed = ran.error.clone();
                }
                if let Some(at) = ran.retry_at {
                    self.wake_at(i, at);
                }
                if !timed && !ran.crashed {
                    // There may be more: the next window, event or job. A stream that lost its
                    // lease begins again.
                    self.slots[i].poked |= self.goes_on(i);
                }
                self.pass_gate(i, now);
                self.found_something(i, now);
                if matches!(self.slots[i].unit.def.trigger, Trigger::Stream)
                    && ran.outcome == Outcome::Failed
                    && !ran.crashed
                {
                    // The store let it down, and may do so again.
                    let (n, name) = (self.slots[i].failures, &self.slots[i].unit.def.name);
                    let pause = retry::EVENT.delay(n, name.as_str());
                    self.hold(i, now + pause);
                }
            }
            Report::Held { until, owner } => {
                self.slots[i].put_back(running.intent.clone());
                let until_known = (*until).max(now + Millis(100));
                self.set_gate(
                    i,
                    Some(Gate::LeaseHeld { owner: owner.clone(), until: *until }),
                    now,
                );
                self.hold(i, until_known);
            }
            Report::Taken | Report::Broken(_) if written.is_some() => {
                if let Some(through) = written {
                    self.slots[i].catch_up(through, now);
                }
            }
            Report::Taken if timed => {
                self.slots[i].put_back(running.intent.clone());
                self.hold(i, now + retry::EVENT.delay(1, self.slots[i].unit.def.name.as_str()));
            }
            Report::Taken => {}
            Report::Idle { next } => {
                self.slots[i].idle_until = *next;
                if let Some(at) = next {
                    self.wake_at(i, *at);
                }
                self.pass_gate(i, now);
            }
            Report::Blocked { gates, next } => {
                self.set_gate(i, gates.first().cloned(), now);
                if let Some(at) = next {
                    self.wake_at(i, *at);
                }
            }
            Report::Broken(error) => {
                if let Some(control) = &self.slots[i].consumer {
                    control.suspect();
                }
                let slot = &mut self.slots[i];
                slot.failures = slot.failures.saturating_add(1);
                if slot.failures.is_power_of_two() {
                    let name = &slot.unit.def.name;
                    tracing::error!(
                        worker.name = %name,
                        "cannot claim for {name}: {}", chain(error)
                    );
                }
                self.slots[i].put_back(running.intent.clone());
                let pause = retry::EVENT.delay(3, self.slots[i].unit.def.name.as_str());
                self.hold(i, now + pause);
            }
        }
        let effects = match &report {
            Report::Ran(ran) => ran.effects.clone(),
            _ => Effects::default(),
        };
        if let Some(reply) = running.reply {
            // Whoever asked may have stopped waiting.
            drop(reply.send(report));
        }
        if let Some(error) = crashed
            && self.slots[i].state.is_alive()
            && self.slots[i].state != State::ShuttingDown
        {
            self.crash(i, &error, now);
        }
        if self.slots[i].state == State::ShuttingDown {
            if self.slots[i].running.is_empty() {
                self.stopped(i);
            }
        } else {
            self.start(i, now);
        }
        if self.slots[i].running.is_empty() {
            self.turns.leave(i, &self.slots[i]);
            if self.slots[i].state == State::Paused {
                self.leave_standing(i, now);
            }
        }
        self.changed(&effects);
        self.slots[i].next_end = next_end.or(self.slots[i].next_end);
    }

    /// A cycle got past the gates that the store knows; what the node knows holds.
    fn pass_gate(&mut self, i: usize, now: Time) {
        if self.slots[i].gate.is_some() && self.slots[i].state == State::Running {
            self.set_gate(i, None, now);
        }
    }

    /// Puts off what a slot wants until `at`.
    fn hold(&mut self, i: usize, at: Time) {
        self.slots[i].held_until = Some(at);
        self.slots[i].wake_at = Some(at);
        self.arm(at, Timer::Wake(i));
    }

    fn goes_on(&self, i: usize) -> bool {
        matches!(
            self.slots[i].unit.def.trigger,
            Trigger::Window(_) | Trigger::On { .. } | Trigger::Queue(_) | Trigger::Stream
        )
    }

    /// One line for each end. Of a spell of failures the first is told, then the second, the fourth
    /// and so on, and its end: a venue that is down for an hour must not bury the log.
    fn log_end(&mut self, i: usize, ran: &Ran) {
        let slot = &mut self.slots[i];
        let name = &slot.unit.def.name;
        let (id, elapsed_ms, outcome) = (ran.cycle.0, ran.latency.0, ran.outcome);
        let why = ran.error.as_deref().unwrap_or("no reason given");
        // A window is told with its start, in the line and beside it.
        let (mut kind, mut window, mut job) = (ran.cause.kind().to_owned(), None, None);
        match &ran.cause {
            Cause::Window { start, .. } => {
                window = Some(tracing::field::display(*start));
                kind = format!("{kind} {start}");
            }
            Cause::Job { id } => job = Some(*id),
            _ => {}
        }
        match outcome {
            Outcome::Succeeded => {
                let failed = std::mem::take(&mut slot.failures);
                if failed > 1 {
                    tracing::info!(
                        worker.name = %name, cycle.id = id, window, job, %outcome,
                        "{name} {kind} succeeded again after {failed} failures"
                    );
                }
                tracing::debug!(
                    worker.name = %name, cycle.id = id, window, job, %outcome, elapsed_ms,
                    "{name} {kind} finished in {}", ran.latency
                );
            }
            Outcome::Snoozed | Outcome::Cancelled => tracing::debug!(
                worker.name = %name, cycle.id = id, window, job, %outcome,
                "{name} {kind} {outcome}: {why}"
            ),
            _ => {
                slot.failures = slot.failures.saturating_add(1);
                let n = slot.failures;
                if n.is_power_of_two() {
                    tracing::warn!(
                        worker.name = %name, cycle.id = id, window, job, %outcome, elapsed_ms,
                        "{name} {kind} {outcome}{}: {why}",
                        if n > 1 { format!(" ({n} in a row)") } else { String::new() }
                    );
                } else {
                    tracing::debug!(
                        worker.name = %name, cycle.id = id, window, job, %outcome, elapsed_ms,
                        "{name} {kind} {outcome} ({n} in a row): {why}"
                    );
                }
            }
        }
    }

    pub(super) fn run_now(
        &mut self,
        worker: &WorkerName,
        intent: Intent,
        force: bool,
        reply: oneshot::Sender<Report>,
        now: Time,
    ) {
        let refuse = |reply: oneshot::Sender<Report>, gates| {
            // Whoever asked may have stopped waiting.
            drop(reply.send(Report::Blocked { gates, next: None }));
        };
        let Some(&i) = self.by_name.get(worker) else {
            let gate = Gate::Unavailable { reason: format!("there is no worker `{worker}`") };
            return refuse(reply, vec![gate]);
        };
        if self.leaving {
            return refuse(reply, vec![Gate::NotRunning { state: State::ShuttingDown }]);
        }
        let busy = |r: &&Running| !self.slots[i].is_queue() || r.reply.is_some();
        if let Some(running) = self.slots[i].running.iter().find(busy) {
            let cycle = running.signals.grant().map_or(CycleId(0), |g| g.cycle);
            return refuse(reply, vec![Gate::StillRunning { cycle, since: running.since }]);
        }
        let gate = self.gate(i);
        let never = matches!(gate, Some(Gate::Unavailable { .. } | Gate::Lane { .. }));
        if let Some(gate) = gate
            && (!force || never)
        {
            return refuse(reply, vec![gate]);
        }
        self.launch(i, intent, Some(reply), now);
    }

    /// This node changed something: wakes whoever waits for it, here and elsewhere.
    pub(super) fn changed(&mut self, effects: &Effects) {
        if !effects.is_empty() {
            self.spread(effects);
            self.runner.store.tell(effects);
        }
    }

    /// Wakes whoever waits on this node for what a commit changed.
    pub(super) fn spread(&mut self, effects: &Effects) {
        let now = self.clock.now();
        let mut cleared = Vec::new();
        for condition in &effects.conditions {
            let known = self.conditions.insert(condition.name.clone(), condition.clone());
            if known.as_ref() != Some(condition) {
                cleared.push(condition.name.clone());
            }
        }
        if effects.desired || effects.everything {
            self.look_at_desired();
        }
        if effects.everything {
            self.look_at_conditions();
        }
        for i in self.order.clone() {
            if self.slots[i].state != State::Running {
                continue;
            }
            if (effects.leases || effects.everything)
                && matches!(self.slots[i].gate, Some(Gate::LeaseHeld { .. }))
                && self.slots[i].held_until.take().is_some()
            {
                // Whose lease it waited for may have given it back.
                self.slots[i].wake_at = None;
                self.start(i, now);
            }
            let unit = Arc::clone(&self.slots[i].unit);
            if let Trigger::Window(spec) = &unit.def.trigger
                && (effects.series.contains(&spec.series) || effects.everything)
            {
                self.slots[i].next_end = None; // an older one may have come
            }
            let changed = cleared.iter().any(|name| unit.def.requires.contains(name));
            if changed {
                self.note_gate(i, now);
            }
            if let (Some(control), Trigger::Queue(spec)) =
                (&self.slots[i].consumer, &unit.def.trigger)
            {
                if changed || effects.leases || effects.wakes(&unit.def.trigger) {
                    let control = Arc::clone(control);
                    self.poke(i, now);
                    if queue::cancels(effects, &spec.kinds) {
                        control.look_at_leases();
                    }
                }
            } else if effects.wakes(&unit.def.trigger) && !self.is_idle(i, effects, now) {
                self.poke(i, now);
            } else if changed {
                self.start(i, now);
            }
        }
    }

    /// Whether a series has nothing to compute before a known instant. Inputs arrive each minute;
    /// only a change of its own windows (a correction, a backfill) can give it work before that.
    fn is_idle(&self, i: usize, effects: &Effects, now: Time) -> bool {
        match &self.slots[i].unit.def.trigger {
            Trigger::Window(spec) => {
                self.slots[i].idle_until.is_some_and(|at| at > now)
                    && !effects.series.contains(&spec.series)
                    && !effects.everything
            }
            _ => false,
        }
    }
}

/// The end of the window that a series computes after this report, where the report tells.
fn next_end(trigger: &Trigger, signals: &Signals, report: &Report) -> Option<Time> {
    let Trigger::Window(spec) = trigger else { return None };
    match report {
        Report::Ran(ran) => match &ran.cause {
            Cause::Window { end, .. } if ran.effects.series.contains(&spec.series) => {
                Some(*end + spec.length)
            }
            Cause::Window { end, .. } => Some(*end),
            _ => None,
        },
        Report::Idle { next } => Some((*next)? - spec.settle),
        Report::Blocked { .. } => signals.gated_end(),
        Report::Held { .. } | Report::Taken | Report::Broken(_) => None,
    }
}
