//! What the supervisor knows of one worker, and how its due instants become cycles.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use watchbell_core::gate::Gate;
use watchbell_core::lane::Turn;
use watchbell_core::lifecycle::{Desired, State};
use watchbell_core::port::{Beat, WorkerRecord};
use watchbell_core::pressure::keeps;
use watchbell_core::restart::History;
use watchbell_core::schedule::{self, Fate, Passed};
use watchbell_core::{Ledger, Millis, Missed, Time, Trigger};

use crate::cycle::{Intent, Report, Unit};
use crate::host::Signals;
use crate::queue::Control;

/// A cycle in flight.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) run: u64,
    pub(crate) intent: Intent,
    pub(crate) signals: Arc<Signals>,
    pub(crate) task: AbortHandle,
    pub(crate) since: Time,
    pub(crate) reply: Option<oneshot::Sender<Report>>,
}

/// One worker under supervision.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) unit: Arc<Unit>,
    /// Part of the profile, or started by an operator.
    pub(crate) active: bool,
    /// Indices of the workers it needs, and whether softly.
    pub(crate) needs: Vec<(usize, bool)>,
    pub(crate) desired: Desired,
    pub(crate) desired_by: Option<String>,
    pub(crate) state: State,
    pub(crate) state_since: Time,
    /// The instant on record of its newest step.
    pub(crate) stepped_at: Time,
    pub(crate) running: Vec<Running>,
    /// The next due instant and when its tick starts (later by the jitter).
    pub(crate) upcoming: Option<(Time, Time)>,
    /// The due instant after it: lets a tick start before the calendar is asked again.
    following: Option<Time>,
    /// Newest due instant that was taken up.
    pub(crate) last_due: Option<Time>,
    /// When the worker became known: its first due instant lies after that.
    registered_at: Time,
    /// Due instants to run, oldest first.
    backlog: VecDeque<Time>,
    /// Due instants to record as passed with the next claim.
    passed: Vec<Passed>,
    /// Something may be there to run: an event, a job, a window, a stream's start.
    pub(crate) poked: bool,
    /// When to look again.
    pub(crate) wake_at: Option<Time>,
    /// The store refused or failed: nothing starts before this instant.
    pub(crate) held_until: Option<Time>,
    pub(crate) gate: Option<Gate>,
    /// Cycles that failed since one succeeded, or claims since one was answered.
    pub(crate) failures: u32,
    pub(crate) restarts: History,
    pub(crate) retry_at: Option<Time>,
    /// Until then there is nothing to compute, whatever inputs come: its next window is not over.
    pub(crate) idle_until: Option<Time>,
    /// When the cycles of a stopping worker are aborted.
    pub(crate) stop_deadline: Option<Time>,
    /// A timer for the time limits is in the heap.
    pub(crate) limit_timer: bool,
    pub(crate) beat: Option<Beat>,
    /// Of a queue's worker: what it shares with its consumer.
    pub(crate) consumer: Option<Arc<Control>>,
    /// When the desired state was set, as far as this node knows.
    pub(crate) desired_at: Option<Time>,
    /// Of a worker that shares one: its lane.
    pub(crate) lane: Option<usize>,
    /// How deep its series lies, for one that computes windows.
    pub(crate) depth: u32,
    /// The end of the next window of its series, as far as it is known.
    pub(crate) next_end: Option<Time>,
    /// Of an opportunistic worker that waits: since when, and what becomes of the ticks that it has
    /// no time for.
    pub(crate) gives_way: Option<(Time, Fate)>,
    /// Of so many due instants of an interval one runs: more than one while the store is slow.
    pub(crate) stretch: u32,
}

impl Slot {
    pub(crate) fn new(unit: Arc<Unit>, record: &WorkerRecord, active: bool, now: Time) -> Self {
        Self {
            unit,
            active,
            needs: Vec::new(),
            desired: record.desired,
            desired_by: record.desired_by.clone(),
            // A worker that gave up stays so until an operator acts, over any number of boots.
            state: match record.state {
                State::Failed => State::Failed,
                _ => State::Stopped,
            },
            state_since: now,
            stepped_at: now - Millis(1),
            running: Vec::new(),
            upcoming: None,
            following: None,
            last_due: record.last_due,
            registered_at: record.registered_at.unwrap_or(now),
            backlog: VecDeque::new(),
            passed: Vec::new(),
            poked: false,
            wake_at: None,
            held_until: None,
            gate: record.blocked.clone(),
            failures: 0,
            restarts: serde_json::from_value(record.restarts.clone()).unwrap_or_default(),
            retry_at: None,
            idle_until: None,
            stop_deadline: None,
            limit_timer: false,
            beat: None,
            consumer: None,
            desired_at: record.desired_at,
            lane: None,
            depth: 0,
            next_end: None,
            gives_way: None,
            stretch: 1,
        }
    }

    pub(crate) fn is_queue(&self) -> bool {
        matches!(self.unit.def.trigger, Trigger::Queue(_))
    }

    /// Whether a cycle (of a queue's worker: its consumer) may be launched. An operator may run a
    /// job beside the consumer, for many jobs may run at once; other cycles never overlap.
    pub(crate) fn is_free(&self) -> bool {
        match &self.unit.def.trigger {
            Trigger::Queue(_) => self.running.iter().all(|r| r.reply.is_some()),
            _ => self.running.is_empty(),
        }
    }

    /// Tells the consumer that is already there to look for jobs. One that shares a lane looks only
    /// once: the wish stays until it is launched again.
    pub(crate) fn wake(&mut self) {
        if let Some(control) = &self.consumer
            && self.unit.def.lane.is_none()
        {
            control.wake();
            self.poked = false;
        }
    }

    /// Lets the consumer start no more jobs.
    pub(crate) fn drain(&self) {
        if let Some(control) = &self.consumer {
            control.drain();
        }
    }

    fn timed(&self) -> bool {
        matches!(self.unit.def.trigger, Trigger::Every { .. } | Trigger::Cron(_))
    }

    /// Takes up the schedule when the worker begins to run or is resumed: what was missed is
    /// divided by the policy, the rest is in the future.
    pub(crate) fn take_up(&mut self, now: Time) {
        if !self.timed() {
            self.poked = !matches!(self.unit.def.trigger, Trigger::Manual);
            return;
        }
        let def = &self.unit.def;
        // The first start of an interval runs at once, as the newest instant of its grid: nobody
        // wants to wait an hour to see an hourly worker work. A quiet worker has no ledger to
        // catch up with, so each start is its first.
        let first = match (&def.trigger, self.last_due) {
            (Trigger::Every { period, .. }, None) => Some(now - *period),
            (Trigger::Every { period, .. }, Some(_)) if def.ledger == Ledger::Quiet => {
                Some(now - *period)
            }
            // Nothing in the ledger yet: a node that was down over the first due instant owes it.
            (_, None) if def.ledger == Ledger::Full => Some(self.registered_at),
            (_, last) => last,
        };
        let plan = schedule::plan(&def.trigger, def.missed, first, now);
        self.adopt(plan.fire, plan.passed);
        self.plan_ahead(plan.next);
    }

    /// A tick came due. Returns whether there is something to start.
    pub(crate) fn due(&mut self, now: Time) -> bool {
        let Some((due, _)) = self.upcoming.take() else { return false };
        if self.following.is_none_or(|f| f > now) {
            self.adopt(vec![due], Vec::new());
        } else {
            // The node slept over several: the policy divides them.
            let def = &self.unit.def;
            let plan = schedule::plan(&def.trigger, def.missed, Some(due - Millis(1)), now);
            self.adopt(plan.fire, plan.passed);
            self.following = plan.next;
        }
        true
    }

    /// Asks the calendar for the next due instant: after the ticks of this moment were started.
    pub(crate) fn rearm(&mut self) {
        if self.upcoming.is_none() && self.timed() && self.state == State::Running {
            let next = self.following.take();
            self.plan_ahead(next);
        }
    }

    fn plan_ahead(&mut self, next: Option<Time>) {
        let def = &self.unit.def;
        self.upcoming =
            next.map(|due| (due, schedule::jittered(def.name.as_str(), due, def.jitter)));
        self.following = next.and_then(|due| schedule::next_due(&def.trigger, due));
    }

    /// Forgets the timer: the worker is paused or stopped. The ledger knows where it was.
    pub(crate) fn disarm(&mut self) {
        self.upcoming = None;
        self.following = None;
        self.wake_at = None;
        self.held_until = None;
        self.idle_until = None;
        // What was due and never started is taken up again from the ledger at the next start.
        // Ranges are in the order in which they were passed over, which is not that of time.
        let passed = self.passed.iter().map(|p| p.first);
        if let Some(first) = self.backlog.front().copied().into_iter().chain(passed).min() {
            self.last_due = Some(first - Millis(1));
        }
        self.backlog.clear();
        self.passed.clear();
        self.poked = false;
        self.next_end = None;
        self.gives_way = None;
    }

    fn adopt(&mut self, fire: Vec<Time>, passed: Vec<Passed>) {
        for p in &passed {
            self.last_due = self.last_due.max(Some(p.last));
        }
        self.last_due = self.last_due.max(fire.last().copied());
        if self.unit.def.ledger == Ledger::Full {
            self.pass(passed);
        }
        let (kept, throttled): (Vec<Time>, Vec<Time>) =
            fire.into_iter().partition(|due| keeps(&self.unit.def.trigger, *due, self.stretch));
        let throttled = throttled.into_iter();
        self.pass(throttled.map(|t| Passed { first: t, last: t, count: 1, fate: Fate::Throttled }));
        self.backlog.extend(kept);
        if let Some((_, fate)) = self.gives_way {
            self.collapse(fate);
        } else if !matches!(self.unit.def.missed, Missed::All { .. }) {
            self.collapse(Fate::Merged);
        }
    }

    /// Overlap: of the ticks that wait, the newest stays.
    fn collapse(&mut self, fate: Fate) {
        if self.backlog.len() > 1 {
            let mut waiting = self.backlog.drain(..).collect();
            if let Some(older) = schedule::collapse(&mut waiting)
                && self.unit.def.ledger == Ledger::Full
            {
                self.pass(vec![Passed { fate, ..older }]);
            }
            self.backlog.extend(waiting);
        }
    }

    /// Remembers passed instants, joining ranges of one fate that follow each other.
    fn pass(&mut self, passed: impl IntoIterator<Item = Passed>) {
        let trigger = &self.unit.def.trigger;
        for p in passed {
            match self.passed.last_mut() {
                Some(last)
                    if last.fate == p.fate
                        && schedule::next_due(trigger, last.last) == Some(p.first) =>
                {
                    last.last = p.last;
                    last.count += p.count;
                }
                _ => self.passed.push(p),
            }
        }
    }

    /// Whether there is something to run next.
    pub(crate) fn wants(&self) -> bool {
        !self.backlog.is_empty() || self.poked
    }

    /// What it would do next in its lane.
    pub(crate) fn turn(&self) -> Turn {
        match Turn::of(&self.unit.def.trigger) {
            Turn::Window { length, .. } => {
                Turn::Window { end: self.next_end, depth: self.depth, length }
            }
            other => other,
        }
    }

    /// Takes the next intent.
    pub(crate) fn next_intent(&mut self) -> Option<Intent> {
        self.gives_way = None;
        if let Some(due) = self.backlog.pop_front() {
            return Some(Intent::Tick { due, passed: std::mem::take(&mut self.passed) });
        }
        std::mem::take(&mut self.poked).then_some(Intent::Next)
    }

    /// Passed instants that no claim will carry: with the policy `skip`, say. Those that spare a slow
    /// store wait for the next claim all the same.
    pub(crate) fn passed_alone(&mut self) -> Vec<Passed> {
        let spares = self.passed.iter().all(|p| p.fate == Fate::Throttled);
        if self.backlog.is_empty() && !spares {
            std::mem::take(&mut self.passed)
        } else {
            Vec::new()
        }
    }

    /// Puts a tick back that could not be claimed.
    pub(crate) fn put_back(&mut self, intent: Intent) {
        match intent {
            Intent::Tick { due, passed } => {
                let later = std::mem::replace(&mut self.passed, passed);
                self.backlog.push_front(due);
                if matches!(self.unit.def.missed, Missed::All { .. }) {
                    self.pass(later);
                } else {
                    // The instants passed over since then lie between this tick and the newest.
                    self.merge_back(later);
                }
            }
            Intent::Next => self.poked = true,
            Intent::Window { .. } | Intent::Manual => {}
        }
    }

    /// The ledger is further than this slot believed: an answer got lost, or another node was
    /// there. Everything after `through` is divided anew.
    pub(crate) fn catch_up(&mut self, through: Time, now: Time) {
        self.backlog.clear();
        self.passed.clear();
        self.last_due = Some(through);
        // What the timer will bring is not due yet.
        let until = self.upcoming.map_or(now, |(due, _)| now.min(due - Millis(1)));
        let def = &self.unit.def;
        let plan = schedule::plan(&def.trigger, def.missed, Some(through), until);
        self.adopt(plan.fire, plan.passed);
    }

    fn merge_back(&mut self, later: Vec<Passed>) {
        if self.backlog.len() > 1
            && let Some(oldest) = self.backlog.pop_front()
        {
            self.pass(vec![Passed { first: oldest, last: oldest, count: 1, fate: Fate::Merged }]);
        }
        self.pass(later);
    }

    /// Adds a quiet cycle's heartbeat to the one that waits to be flushed.
    pub(crate) fn add_beat(&mut self, beat: Beat) {
        match &mut self.beat {
            Some(known) => known.add(beat),
            None => self.beat = Some(beat),
        }
    }

    /// The heartbeats that wait to be flushed, of its cycles and of its consumer.
    pub(crate) fn take_beat(&mut self) -> Option<Beat> {
        if let Some(beat) = self.consumer.as_ref().and_then(|c| c.take_beat()) {
            self.add_beat(beat);
        }
        self.beat.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use watchbell_core::{BoxFuture, Cycle, Definition, Done, Fault, Worker};

    struct Noop(Definition);
    impl Worker for Noop {
        fn define(&self) -> Definition {
            self.0.clone()
        }
        fn run<'a>(&'a self, _: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
            Box::pin(async { Ok(Done::nothing()) })
        }
    }

    fn slot(missed: Missed, last_due: Option<Time>) -> Slot {
        let trigger = Trigger::Every { period: Millis(10), offset: Millis::ZERO };
        let def = Definition::new("w", trigger).missed(missed);
        let record = WorkerRecord {
            name: "w".into(),
            description: String::new(),
            trigger: String::new(),
            state: State::Stopped,
            desired: Desired::Running,
            desired_by: None,
            desired_at: None,
            state_since: None,
            state_reason: None,
            last_started_at: None,
            last_completed_at: None,
            last_success_at: None,
            last_error_at: None,
            last_error: None,
            latency: None,
            consecutive_errors: 0,
            total_runs: 0,
            total_errors: 0,
            summary: serde_json::Value::Null,
            stale_after: None,
            next_due: None,
            last_due,
            lease_owner: None,
            lease_token: watchbell_core::Token(0),
            lease_expires_at: None,
            blocked: None,
            blocked_since: None,
            restarts: serde_json::Value::Null,
            registered_at: Some(Time(0)),
        };
        let unit = Arc::new(Unit::new(def.clone(), Arc::new(Noop(def))));
        let mut slot = Slot::new(unit, &record, true, Time(0));
        slot.state = State::Running;
        slot
    }

    fn tick(due: i64, passed: &[(i64, i64, u64, Fate)]) -> Option<Intent> {
        let passed = passed
            .iter()
            .map(|&(first, last, count, fate)| Passed {
                first: Time(first),
                last: Time(last),
                count,
                fate,
            })
            .collect();
        Some(Intent::Tick { due: Time(due), passed })
    }

    #[test]
    fn ticks_that_come_due_while_a_cycle_runs_become_one() {
        let mut s = slot(Missed::Latest, Some(Time(0)));
        s.take_up(Time(0));
        for now in [10, 20, 30] {
            assert!(s.due(Time(now)));
            s.rearm();
        }
        assert_eq!(s.next_intent(), tick(30, &[(10, 20, 2, Fate::Merged)]));
        assert_eq!(s.next_intent(), None);
    }

    #[test]
    fn a_tick_put_back_keeps_every_instant() {
        let mut s = slot(Missed::Latest, Some(Time(0)));
        s.take_up(Time(0));
        s.due(Time(10));
        s.rearm();
        s.due(Time(20));
        s.rearm();
        let refused = s.next_intent().unwrap();
        s.due(Time(30));
        s.rearm();
        s.due(Time(40));
        s.rearm();
        s.put_back(refused);
        assert_eq!(s.next_intent(), tick(40, &[(10, 30, 3, Fate::Merged)]));
    }

    #[test]
    fn a_stopped_worker_leaves_unstarted_ticks_to_the_next_start() {
        let mut s = slot(Missed::Latest, Some(Time(0)));
        s.take_up(Time(0));
        s.due(Time(10));
        s.rearm();
        s.due(Time(20));
        s.disarm();
        assert_eq!(s.last_due, Some(Time(9)));
        s.take_up(Time(35));
        assert_eq!(s.next_intent(), tick(30, &[(10, 20, 2, Fate::Merged)]));
    }

    #[test]
    fn all_missed_ticks_run_in_order() {
        let mut s = slot(Missed::All { cap: 2 }, Some(Time(0)));
        s.take_up(Time(45));
        assert_eq!(s.next_intent(), tick(30, &[(10, 20, 2, Fate::Skipped)]));
        assert_eq!(s.next_intent(), tick(40, &[]));
    }

    #[test]
    fn the_first_start_of_an_interval_runs_at_once() {
        let mut s = slot(Missed::Latest, None);
        s.take_up(Time(45));
        assert_eq!(s.next_intent(), tick(40, &[]));
        assert_eq!(s.upcoming, Some((Time(50), Time(50))));
    }
}
