//! One task that decides for all workers of a node: who starts, pauses, stops, restarts, and when a
//! tick becomes a cycle. It does no I/O: cycles run as tasks of their own and report back, records
//! go to the [recorder](crate::recorder), and every choice is a call of a pure function of `core`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use watchbell_clock::Clock;
use watchbell_core::gate::Gate;
use watchbell_core::lifecycle::{self, Desired, Event, State};
use watchbell_core::port::{CycleEnd, Outcome, Publication, StoreError, Transition};
use watchbell_core::restart::{self, Breaker, Restart, Storm};
use watchbell_core::{
    Condition, CycleId, Fault, Ledger, Millis, Time, Trigger, WorkerName, chain, retry, schedule,
};

use crate::cycle::{Intent, Report, Runner, verdict};
use crate::effects::Effects;
use crate::host::Signals;
use crate::node::{Action, Options, RunningView, WorkerView};
use crate::recorder::{Record, Recorder};
use crate::slot::{Running, Slot};

/// What the supervisor is told.
pub(crate) enum Message {
    /// A cycle ended, or none came of it. `ledger` is the newest due instant in the ledger, for a
    /// tick that could not be claimed.
    Finished {
        slot: usize,
        run: u64,
        report: Report,
        ledger: Option<Time>,
    },
    Effects(Effects),
    Act {
        worker: WorkerName,
        action: Action,
        by: String,
        reply: oneshot::Sender<Result<(), String>>,
    },
    Run {
        worker: WorkerName,
        intent: Intent,
        force: bool,
        reply: oneshot::Sender<Report>,
    },
    Renewed {
        asked: Time,
        result: Result<Vec<WorkerName>, StoreError>,
    },
    View(oneshot::Sender<Vec<WorkerView>>),
    Shutdown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Due(usize),
    Wake(usize),
    Retry(usize),
    Limit(usize),
    StopDeadline(usize),
    Renew,
    Flush,
    Reap,
}

pub(crate) struct Supervisor {
    pub(crate) runner: Runner,
    pub(crate) clock: Clock,
    pub(crate) options: Options,
    pub(crate) recorder: Recorder,
    pub(crate) inbox: mpsc::UnboundedReceiver<Message>,
    pub(crate) outbox: mpsc::UnboundedSender<Message>,
    pub(crate) effects: mpsc::UnboundedReceiver<Effects>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) by_name: BTreeMap<WorkerName, usize>,
    /// Start order: a stable topological sort.
    pub(crate) order: Vec<usize>,
    /// Who needs each worker, in start order.
    dependents: Vec<Vec<usize>>,
    pub(crate) conditions: BTreeMap<String, Condition>,
    timers: BinaryHeap<Reverse<(Time, Timer)>>,
    /// Tasks that were aborted, and when each must be gone.
    zombies: Vec<(Time, WorkerName, AbortHandle)>,
    lanes: BTreeMap<String, usize>,
    storm: Storm,
    next_run: u64,
    renew_armed: bool,
    flush_armed: bool,
    renewed_at: Time,
    leaving: bool,
    /// A pass over all workers is under way, or asked for while one is.
    reconciling: bool,
    reconcile_due: bool,
}

impl Supervisor {
    #[expect(clippy::too_many_arguments, reason = "called once, by the node that owns the parts")]
    pub(crate) fn new(
        runner: Runner,
        options: Options,
        recorder: Recorder,
        inbox: mpsc::UnboundedReceiver<Message>,
        outbox: mpsc::UnboundedSender<Message>,
        effects: mpsc::UnboundedReceiver<Effects>,
        slots: Vec<Slot>,
        order: Vec<usize>,
        conditions: BTreeMap<String, Condition>,
    ) -> Self {
        let by_name = slots.iter().enumerate().map(|(i, s)| (s.unit.def.name.clone(), i)).collect();
        let mut dependents = vec![Vec::new(); slots.len()];
        for &i in &order {
            for &(need, _) in &slots[i].needs {
                dependents[need].push(i);
            }
        }
        let clock = runner.clock.clone();
        let renewed_at = clock.now();
        Self {
            runner,
            clock,
            options,
            recorder,
            inbox,
            outbox,
            effects,
            slots,
            by_name,
            order,
            dependents,
            conditions,
            timers: BinaryHeap::new(),
            zombies: Vec::new(),
            lanes: BTreeMap::new(),
            storm: Storm::default(),
            next_run: 0,
            renew_armed: false,
            flush_armed: false,
            renewed_at,
            leaving: false,
            reconciling: false,
            reconcile_due: false,
        }
    }

    /// Runs until every worker has stopped after [`Message::Shutdown`].
    pub(crate) async fn run(mut self) {
        for i in self.order.clone() {
            if let Some(reason) = self.slots[i].unit.def.unavailable.clone() {
                self.step(i, Event::Withdraw, &reason);
            }
        }
        self.reconcile_all();
        let mut batch = Vec::new();
        let gone = |s: &Slot| !s.state.is_alive() && s.running.is_empty();
        while !(self.leaving && self.slots.iter().all(gone)) {
            let next = self.timers.peek().map_or(Time::FAR_FUTURE, |Reverse((at, _))| *at);
            let clock = self.clock.clone();
            tokio::select! {
                biased;
                n = self.inbox.recv_many(&mut batch, 4096) => {
                    if n == 0 {
                        break;
                    }
                    for message in batch.drain(..) {
                        self.receive(message);
                    }
                }
                Some(effects) = self.effects.recv() => self.spread(&effects),
                () = clock.sleep_until(next) => {}
            }
            self.fire_timers();
        }
        self.flush_beats();
        self.recorder.flush().await;
    }

    fn fire_timers(&mut self) {
        let now = self.clock.now();
        let mut ticked = Vec::new();
        while let Some(Reverse((at, timer))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            match timer {
                // A timer counts only while its slot still names that instant.
                Timer::Due(i) if self.slots[i].upcoming.is_some_and(|(_, start)| start == at) => {
                    if self.slots[i].due(now) {
                        self.start(i, now);
                    }
                    ticked.push(i);
                }
                Timer::Wake(i) if self.slots[i].wake_at == Some(at) => {
                    self.slots[i].wake_at = None;
                    self.poke(i, now);
                }
                Timer::Retry(i) if self.slots[i].retry_at == Some(at) => self.retry(i, now),
                Timer::Limit(i) => self.check_limits(i, now),
                Timer::StopDeadline(i) if self.slots[i].stop_deadline == Some(at) => {
                    self.stop_deadline(i, now);
                }
                Timer::Reap => self.reap(at),
                Timer::Renew => self.renew(now),
                Timer::Flush => {
                    self.flush_armed = false;
                    self.flush_beats();
                }
                Timer::Due(_) | Timer::Wake(_) | Timer::Retry(_) | Timer::StopDeadline(_) => {}
            }
        }
        // The calendar is asked only after every tick of this moment has started.
        for i in ticked {
            self.slots[i].rearm();
            self.arm_due(i);
        }
    }

    fn arm(&mut self, at: Time, timer: Timer) {
        self.timers.push(Reverse((at, timer)));
    }

    fn arm_due(&mut self, i: usize) {
        if let Some((_, start)) = self.slots[i].upcoming {
            self.arm(start, Timer::Due(i));
        }
    }

    fn wake_at(&mut self, i: usize, at: Time) {
        if self.slots[i].wake_at.is_none_or(|known| at < known) {
            self.slots[i].wake_at = Some(at);
            self.arm(at, Timer::Wake(i));
        }
    }

    fn receive(&mut self, message: Message) {
        let now = self.clock.now();
        match message {
            Message::Finished { slot, run, report, ledger } => {
                self.finished(slot, run, report, ledger, now);
            }
            Message::Effects(effects) => self.spread(&effects),
            Message::Act { worker, action, by, reply } => {
                let result = self.act(&worker, action, &by, now);
                // Whoever asked may have stopped waiting.
                drop(reply.send(result));
            }
            Message::Run { worker, intent, force, reply } => {
                self.run_now(&worker, intent, force, reply, now);
            }
            Message::Renewed { asked, result } => self.renewed(asked, result, now),
            Message::View(reply) => drop(reply.send(self.view(now))),
            Message::Shutdown => {
                self.leaving = true;
                self.reconcile_all();
                // Cycles that an operator forced of workers that do not run.
                for i in 0..self.slots.len() {
                    if !self.slots[i].state.is_alive() {
                        self.end_cycles(i, now);
                    }
                }
            }
        }
    }

    // ---- lifecycle ------------------------------------------------------------------------

    /// Brings every worker nearer to what is wanted, in start order (in stop order when leaving).
    /// A step on the way may ask for another pass: passes follow one another and do not nest, or
    /// thousands of workers that stop at once would overflow the stack.
    fn reconcile_all(&mut self) {
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

    fn missing_dependency(&self, i: usize) -> Option<Gate> {
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
    fn step(&mut self, i: usize, event: Event, reason: &str) {
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
            at: now,
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
            State::Paused => self.slots[i].disarm(),
            State::ShuttingDown => {
                self.slots[i].disarm();
                self.end_cycles(i, now);
                if self.slots[i].running.is_empty() {
                    self.stopped(i);
                }
            }
            State::Failed => self.slots[i].disarm(),
            State::Stopped | State::Initializing | State::Restarting | State::Unavailable => {}
        }
    }

    /// Asks the cycles of a worker to end, and sets a deadline.
    fn end_cycles(&mut self, i: usize, now: Time) {
        let slot = &mut self.slots[i];
        if slot.running.is_empty() {
            return;
        }
        for running in &slot.running {
            running.signals.cancel();
        }
        let deadline = now + self.options.stop_grace;
        slot.stop_deadline = Some(deadline);
        self.arm(deadline, Timer::StopDeadline(i));
    }

    /// Its standing lease stays, if it is a quiet worker: that belongs to the node and not to one
    /// run of the worker. It is renewed with the others until the session ends, so forgetting it
    /// would only bar the worker's own next start.
    fn stopped(&mut self, i: usize) {
        self.slots[i].stop_deadline = None;
        self.step(i, Event::Stopped, "stopped");
        self.reconcile_all();
    }

    fn stop_deadline(&mut self, i: usize, now: Time) {
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
        self.leave_lane(i, now);
        if self.slots[i].state == State::ShuttingDown {
            self.stopped(i);
        }
    }

    /// A worker failed as a whole: a panic, a hard timeout, a stream that returned.
    fn crash(&mut self, i: usize, reason: &str, now: Time) {
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

    fn retry(&mut self, i: usize, now: Time) {
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

    fn act(
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

    // ---- cycles ---------------------------------------------------------------------------

    fn poke(&mut self, i: usize, now: Time) {
        self.slots[i].poked |= !matches!(
            self.slots[i].unit.def.trigger,
            Trigger::Every { .. } | Trigger::Cron(_) | Trigger::Manual
        );
        self.start(i, now);
    }

    /// The gates that the node itself knows: everything but the store's.
    fn gate(&self, i: usize) -> Option<Gate> {
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
        if let Some(lane) = &def.lane
            && let Some(&holder) = self.lanes.get(lane)
            && holder != i
        {
            return Some(Gate::Lane {
                lane: lane.clone(),
                worker: self.slots[holder].unit.def.name.clone(),
            });
        }
        None
    }

    /// Records the first gate of a worker when it differs in kind or detail from the known one. A
    /// gate that the store's side has found stays until the store's side looks again.
    fn note_gate(&mut self, i: usize, now: Time) {
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

    fn set_gate(&mut self, i: usize, gate: Option<Gate>, now: Time) {
        // A lane passes within moments; recording it would write at each window.
        if matches!(gate, Some(Gate::Lane { .. })) || self.slots[i].gate == gate {
            return;
        }
        self.slots[i].gate.clone_from(&gate);
        let worker = self.slots[i].unit.def.name.clone();
        self.recorder.put(Record::Blocked { worker, gate, at: now });
    }

    /// Starts as many cycles of a worker as it wants and may have.
    fn start(&mut self, i: usize, now: Time) {
        if self.slots[i].held_until.is_some_and(|at| at > now) {
            return;
        }
        self.slots[i].held_until = None;
        while self.slots[i].wants() && self.slots[i].running.len() < self.slots[i].concurrency() {
            if let Some(gate) = self.gate(i) {
                self.set_gate(i, Some(gate), now);
                return;
            }
            let Some(intent) = self.slots[i].next_intent() else { return };
            self.launch(i, intent, None, now);
        }
        self.record_passed_alone(i, now);
    }

    fn record_passed_alone(&mut self, i: usize, now: Time) {
        let passed = self.slots[i].passed_alone();
        if !passed.is_empty() {
            let worker = self.slots[i].unit.def.name.clone();
            self.recorder.put(Record::Passed { worker, passed, at: now });
        }
    }

    fn launch(
        &mut self,
        i: usize,
        intent: Intent,
        reply: Option<oneshot::Sender<Report>>,
        now: Time,
    ) {
        let slot = &mut self.slots[i];
        let run = self.next_run;
        self.next_run += 1;
        if let Some(lane) = &slot.unit.def.lane {
            self.lanes.insert(lane.clone(), i);
        }
        let signals = Arc::new(Signals::default());
        let (runner, unit, outbox) =
            (self.runner.clone(), Arc::clone(&slot.unit), self.outbox.clone());
        let (wanted, flags) = (intent.clone(), Arc::clone(&signals));
        let timed = matches!(intent, Intent::Tick { .. });
        let task = tokio::spawn(async move {
            let mut work = Box::pin(runner.attempt(&unit, wanted, flags));
            let report = std::future::poll_fn(|cx| {
                // The worker's own panic is caught inside; this one is for its `scope` and
                // `origin`, and for us.
                match std::panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
                    Ok(Poll::Pending) => Poll::Pending,
                    Ok(Poll::Ready(report)) => Poll::Ready(report),
                    Err(_) => Poll::Ready(Report::Broken(StoreError::Conflict(
                        "the cycle panicked outside its run".into(),
                    ))),
                }
            })
            .await;
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
        let endless = matches!(slot.unit.def.trigger, Trigger::Stream);
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

    fn finished(&mut self, i: usize, run: u64, report: Report, ledger: Option<Time>, now: Time) {
        let Some(at) = self.slots[i].running.iter().position(|r| r.run == run) else {
            return; // aborted before: its report is stale
        };
        let running = self.slots[i].running.swap_remove(at);
        self.slots[i].idle_until = None;
        if self.slots[i].running.is_empty() {
            self.leave_lane_quietly(i);
        }
        let timed = matches!(running.intent, Intent::Tick { .. });
        let written = ledger.filter(|through| running.intent.first_due() <= Some(*through));
        let mut crashed = None;
        match &report {
            Report::Ran(ran) => {
                if let Some(beat) = &ran.beat {
                    self.slots[i].add_beat(beat.clone());
                    if !self.flush_armed {
                        self.flush_armed = true;
                        self.arm(now + self.options.beat_flush, Timer::Flush);
                    }
                }
                self.log_end(i, ran);
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
                if self.slots[i].gate.is_some() {
                    self.set_gate(i, None, now);
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
                if self.slots[i].gate.is_some() {
                    self.set_gate(i, None, now);
                }
            }
            Report::Blocked { gates, next } => {
                self.set_gate(i, gates.first().cloned(), now);
                if let Some(at) = next {
                    self.wake_at(i, *at);
                }
            }
            Report::Broken(error) => {
                let name = &self.slots[i].unit.def.name;
                tracing::error!(worker.name = %name, "cannot claim for {name}: {}", chain(error));
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
        } else if self.slots[i].unit.def.lane.is_none() {
            self.start(i, now);
        }
        if self.slots[i].running.is_empty() {
            self.leave_lane(i, now);
        }
        if !effects.is_empty() {
            self.spread(&effects);
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
            Trigger::Window(_) | Trigger::On { .. } | Trigger::Queue { .. } | Trigger::Stream
        )
    }

    fn log_end(&self, i: usize, ran: &crate::cycle::Ran) {
        let name = &self.slots[i].unit.def.name;
        match ran.outcome {
            Outcome::Succeeded => tracing::debug!(
                worker.name = %name, cycle.id = ran.cycle.0, elapsed_ms = ran.latency.0,
                "{name} {} finished in {}", ran.cause.kind(), ran.latency
            ),
            Outcome::Snoozed | Outcome::Cancelled => tracing::debug!(
                worker.name = %name, cycle.id = ran.cycle.0,
                "{name} {}: {}", ran.outcome, ran.error.as_deref().unwrap_or("")
            ),
            _ => tracing::warn!(
                worker.name = %name, cycle.id = ran.cycle.0, elapsed_ms = ran.latency.0,
                error = ran.error.as_deref().unwrap_or(""),
                "{name} {} {}: {}",
                ran.cause.kind(), ran.outcome, ran.error.as_deref().unwrap_or("no reason given")
            ),
        }
    }

    fn leave_lane_quietly(&mut self, i: usize) {
        if let Some(lane) = &self.slots[i].unit.def.lane
            && self.lanes.get(lane) == Some(&i)
        {
            self.lanes.remove(lane);
        }
    }

    /// Gives the lane to the first worker, in start order, that wants it.
    fn leave_lane(&mut self, i: usize, now: Time) {
        self.leave_lane_quietly(i);
        let Some(lane) = self.slots[i].unit.def.lane.clone() else { return };
        for other in self.order.clone() {
            if self.lanes.contains_key(&lane) {
                return;
            }
            if self.slots[other].unit.def.lane.as_ref() == Some(&lane)
                && self.slots[other].state == State::Running
            {
                self.start(other, now);
            }
        }
    }

    fn run_now(
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
        if let Some(running) = self.slots[i].running.first() {
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

    /// Wakes whoever waits for what a commit changed.
    fn spread(&mut self, effects: &Effects) {
        let now = self.clock.now();
        let mut cleared = Vec::new();
        for condition in &effects.conditions {
            let known = self.conditions.insert(condition.name.clone(), condition.clone());
            if known.as_ref() != Some(condition) {
                cleared.push(condition.name.clone());
            }
        }
        for i in self.order.clone() {
            if self.slots[i].state != State::Running {
                continue;
            }
            let requires = &self.slots[i].unit.def.requires;
            let changed = cleared.iter().any(|name| requires.contains(name));
            if changed {
                self.note_gate(i, now);
            }
            if effects.wakes(&self.slots[i].unit.def.trigger) && !self.is_idle(i, effects, now) {
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
            }
            _ => false,
        }
    }

    // ---- time limits and leases -----------------------------------------------------------

    fn check_limits(&mut self, i: usize, now: Time) {
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
            self.leave_lane_quietly(i);
            if self.slots[i].state == State::ShuttingDown {
                if self.slots[i].running.is_empty() {
                    self.stopped(i);
                }
            } else if self.slots[i].state.is_alive() {
                self.crash(i, &format!("ran longer than its hard timeout of {hard}"), now);
            }
            self.leave_lane(i, now);
        }
    }

    /// Looks whether aborted tasks are gone. One that blocks its thread cannot be ended from here;
    /// its token is burnt, so it can do no harm, but it holds a thread.
    fn reap(&mut self, now: Time) {
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
    fn abort(&mut self, i: usize, running: Running, outcome: Outcome, why: &str, now: Time) {
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
        slot.unit.set_standing(None);
        let fault = match outcome {
            Outcome::Cancelled => Fault::Cancelled,
            _ => Fault::transient(why),
        };
        let (commit, follow_up) = verdict(&slot.unit, &grant, &fault, now);
        let publication = Publication {
            worker: slot.unit.def.name.clone(),
            session: self.runner.session.clone(),
            token: grant.token,
            cycle: grant.cycle,
            cause: grant.cause,
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

    fn renew(&mut self, now: Time) {
        self.renew_armed = false;
        let held = self.slots.iter().any(|s| !s.running.is_empty() || s.unit.standing().is_some());
        if !held {
            return; // nothing to keep: an idle node writes nothing
        }
        self.renew_armed = true;
        self.arm(now + self.options.lease_renew, Timer::Renew);
        let (store, outbox) = (Arc::clone(&self.runner.store), self.outbox.clone());
        let (session, ttl) = (self.runner.session.clone(), self.runner.lease_ttl);
        tokio::spawn(async move {
            let result = store.renew(&session, ttl, now).await;
            // An error means that the supervisor is gone, and the node with it.
            drop(outbox.send(Message::Renewed { asked: now, result }));
        });
    }

    /// A holder stops trusting its lease before the store does: measured from when it asked.
    fn renewed(&mut self, asked: Time, result: Result<Vec<WorkerName>, StoreError>, now: Time) {
        let kept = match result {
            Ok(kept) => {
                self.renewed_at = asked;
                kept
            }
            Err(error) => {
                tracing::warn!("cannot renew leases: {}", chain(&error));
                if now - self.renewed_at < self.runner.lease_ttl - self.options.lease_renew {
                    return;
                }
                Vec::new()
            }
        };
        let kept: std::collections::BTreeSet<_> = kept.into_iter().collect();
        for slot in &self.slots {
            let name = &slot.unit.def.name;
            if kept.contains(name) {
                continue;
            }
            if slot.unit.def.ledger == Ledger::Quiet && slot.unit.standing().is_some() {
                slot.unit.set_standing(None);
            }
            for running in slot.running.iter().filter(|r| {
                r.signals.grant().is_some_and(|g| g.expires_at - self.runner.lease_ttl < asked)
            }) {
                tracing::warn!(worker.name = %name, "{name} lost its lease: asked to stop");
                running.signals.cancel();
            }
        }
    }

    fn flush_beats(&mut self) {
        let beats: Vec<_> = self.slots.iter_mut().filter_map(|s| s.beat.take()).collect();
        if !beats.is_empty() {
            self.recorder.put(Record::Beats(beats));
        }
    }

    fn view(&self, now: Time) -> Vec<WorkerView> {
        self.slots
            .iter()
            .enumerate()
            .map(|(i, slot)| WorkerView {
                worker: slot.unit.def.name.clone(),
                state: slot.state,
                active: slot.active,
                next_due: slot.upcoming.map(|(due, _)| due),
                wake_at: slot.wake_at.filter(|at| *at > now),
                gate: self.gate(i).or_else(|| slot.gate.clone()),
                running: slot
                    .running
                    .iter()
                    // Without a grant it only looks whether there is something to run.
                    .filter_map(|r| {
                        let cycle = r.signals.grant()?.cycle;
                        Some(RunningView { cycle, since: r.since, progress: r.signals.progress() })
                    })
                    .collect(),
            })
            .collect()
    }
}
