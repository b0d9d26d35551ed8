//! One task that decides for all workers of a node: who starts, pauses, stops, restarts, and when a
//! tick becomes a cycle. It does no I/O: cycles run as tasks of their own and report back, records
//! go to the [recorder](crate::recorder), and every choice is a call of a pure function of `core`.
//!
//! Here are its loop, its timers and its messages. What they set off is told in [`lifecycle`] (what
//! is wanted of a worker, and what it is), [`cycles`] (from what is due to what came of it),
//! [`turns`] (who goes first), [`pressure`] (what a slow store changes) and [`limits`] (what ends a
//! cycle from outside).

mod cycles;
mod lifecycle;
mod limits;
mod listening;
mod pressure;
mod turns;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use watchbell_clock::Clock;
use watchbell_core::lifecycle::Event;
use watchbell_core::port::{StoreError, WorkerRecord};
use watchbell_core::pressure::Pressure;
use watchbell_core::restart::Storm;
use watchbell_core::{Condition, Effects, Millis, Time, WorkerName};

use crate::cycle::{Intent, Report, Runner};
use crate::node::{Action, Options, RunningView, WorkerView};
use crate::queue::Control;
use crate::recorder::{Record, Recorder};
use crate::slot::Slot;
use turns::Turns;

/// Ticks that start before the supervisor gives up its thread for a moment. Of ten thousand that come
/// due together, the first are done before the last begin, and use the same memory and caches.
const BURST: usize = 256;
/// Passes in a row without a look at the inbox: commands wait for no more than these.
const STREAK: usize = 64;

/// What the supervisor is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// A cycle ended, or none came of it. `ledger` is the newest due instant in the ledger, for a
    /// tick that could not be claimed.
    Finished {
        slot: usize,
        run: u64,
        report: Report,
        ledger: Option<Time>,
    },
    /// Something was changed on this node, outside its cycles.
    Effects(Effects),
    /// Something was changed on another node.
    Told(Effects),
    /// What is stored of the workers, for their desired states.
    Desired(Vec<WorkerRecord>),
    /// A consumer has a heartbeat to flush.
    Beating,
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
    Look,
    Reap,
    Poll,
}

pub(crate) struct Supervisor {
    pub(crate) runner: Arc<Runner>,
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
    turns: Turns,
    storm: Storm,
    next_run: u64,
    renew_armed: bool,
    flush_armed: bool,
    renewed_at: Time,
    look_armed: bool,
    /// How hard the store is pressed, as of the last look.
    pressure: Pressure,
    leaving: bool,
    /// The pause between two looks for what other nodes changed, while they are not heard.
    poll: Millis,
    /// When the next look is; a timer of another instant does not count.
    poll_at: Option<Time>,
    /// The slot that looks next.
    poll_next: usize,
    /// A pass over all workers is under way, or asked for while one is.
    reconciling: bool,
    reconcile_due: bool,
}

impl Supervisor {
    #[expect(clippy::too_many_arguments, reason = "called once, by the node that owns the parts")]
    pub(crate) fn new(
        runner: Arc<Runner>,
        options: Options,
        recorder: Recorder,
        inbox: mpsc::UnboundedReceiver<Message>,
        outbox: mpsc::UnboundedSender<Message>,
        effects: mpsc::UnboundedReceiver<Effects>,
        mut slots: Vec<Slot>,
        order: Vec<usize>,
        conditions: BTreeMap<String, Condition>,
    ) -> Self {
        let by_name = slots.iter().enumerate().map(|(i, s)| (s.unit.def.name.clone(), i)).collect();
        for slot in slots.iter_mut().filter(|s| s.is_queue()) {
            slot.consumer = Some(Arc::new(Control::of(outbox.clone())));
        }
        let turns = Turns::of(&mut slots, &order);
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
            turns,
            storm: Storm::default(),
            next_run: 0,
            renew_armed: false,
            flush_armed: false,
            renewed_at,
            look_armed: false,
            pressure: Pressure::default(),
            leaving: false,
            poll: listening::POLL.0,
            poll_at: None,
            poll_next: 0,
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
        let ears = listening::listen(Arc::clone(&self.runner.store), self.outbox.clone());
        self.arm_poll(self.clock.now());
        let mut batch = Vec::new();
        let gone = |s: &Slot| !s.state.is_alive() && s.running.is_empty();
        while !(self.leaving && self.slots.iter().all(gone)) {
            self.give_turns();
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
                Some(effects) = self.effects.recv() => self.changed(&effects),
                () = clock.sleep_until(next) => {}
            }
            // What is due at one moment starts before the reports of what has just started are
            // read, or the last of ten thousand would wait for the bookkeeping of the first.
            for _ in 0..STREAK {
                if !self.fire_timers() {
                    break;
                }
                self.give_turns();
                // Its thread belongs to the cycles too: some that it has just started go first.
                tokio::task::yield_now().await;
            }
        }
        drop(ears);
        self.flush_beats();
        let patience = self.options.stop_grace;
        if self.clock.timeout(patience, self.recorder.flush()).await.is_err() {
            tracing::error!(
                "the store did not take the last records of this node within {patience}: they are \
                 lost"
            );
        }
    }

    /// Does what is due, at most [`BURST`] ticks of it. Returns whether more is due.
    fn fire_timers(&mut self) -> bool {
        let now = self.clock.now();
        let mut ticked = Vec::new();
        while let Some(Reverse((at, timer))) = self.timers.peek().copied() {
            if at > now || ticked.len() == BURST {
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
                Timer::Poll if self.poll_at == Some(at) => self.poll(now),
                Timer::Renew => self.renew(now),
                Timer::Look => self.look(now),
                Timer::Flush => {
                    self.flush_armed = false;
                    self.flush_beats();
                }
                Timer::Due(_)
                | Timer::Wake(_)
                | Timer::Retry(_)
                | Timer::StopDeadline(_)
                | Timer::Poll => {}
            }
        }
        // The calendar is asked only after these ticks have started.
        let more = ticked.len() == BURST;
        for i in ticked {
            self.slots[i].rearm();
            self.arm_due(i);
        }
        more
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
            Message::Effects(effects) => self.changed(&effects),
            Message::Told(effects) => self.spread(&effects),
            Message::Desired(records) => self.adopt_desired(records),
            Message::Beating => self.arm_flush(now),
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

    fn arm_flush(&mut self, now: Time) {
        if !self.flush_armed {
            self.flush_armed = true;
            self.arm(now + self.options.beat_flush, Timer::Flush);
        }
    }

    fn flush_beats(&mut self) {
        let beats: Vec<_> = self.slots.iter_mut().filter_map(Slot::take_beat).collect();
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
                next_due: self.next_kept(i),
                wake_at: slot.wake_at.filter(|at| *at > now),
                gate: self.gate_of_view(i, now),
                running: running(slot),
            })
            .collect()
    }
}

/// The cycles and jobs of a worker in flight. Without a grant, one only looks whether there is
/// something to run.
fn running(slot: &Slot) -> Vec<RunningView> {
    let cycles = slot.running.iter().filter_map(|r| {
        let cycle = r.signals.grant()?.cycle;
        Some(RunningView { cycle, job: None, since: r.since, progress: r.signals.progress() })
    });
    let jobs = slot.consumer.iter().flat_map(|control| control.running());
    cycles.chain(jobs).collect()
}
