//! The consumer of a queue's worker: one task per worker and node that leases jobs in batches, runs
//! as many at once as the worker allows, and ends them in batches.
//!
//! Claim, computation and end overlap: while one batch is being ended, the next is computed, and
//! the one after it is being claimed. A job that completes at its first poll costs no task of its
//! own; a longer one, or one of a kind whose first polls have been seen to take long, runs as a
//! task beside the others. A job that writes is published by itself, in its own transaction (see
//! [`job`]); all other ends go to the store together.
//!
//! Nothing is dropped: whatever the store does not answer is asked again, with jitter. The end of
//! each job that was begun is offered to the store, and the store alone decides whether it counts:
//! a lost lease is refused there. So a job that the consumer takes for lost is only asked to stop.
//!
//! Here is what the consumer decides; what it asks of the store and does with the answers is told
//! in [`calls`], what ends a job from outside in [`limits`], and what others are shown in [`shown`].

mod calls;
mod control;
mod job;
mod limits;
mod shown;

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use watchbell_clock::Stopwatch;
use watchbell_core::job::Kind;
use watchbell_core::port::{Beat, Grant, Hearing, JobEnd, StoreError};
use watchbell_core::{CycleInput, Effects, Millis, QueueSpec, Time, schedule};

use self::calls::Told;
pub(crate) use self::control::{Control, cancels};
use self::job::{Assignment, Ended, Held};
use crate::cycle::{Ran, Report, Runner, Unit, catch_panic};
use crate::host::Signals;

/// Jobs begun before the consumer looks at what it was told, and lends its thread to others.
const BURST: usize = 128;
/// Most jobs of one claim.
const CLAIM: usize = 1_000;
/// Most jobs of a claim when there is nothing else to do: they begin while the next, twice as many,
/// are claimed.
const FIRST: usize = 200;
/// Most ends of one transaction; so many are sent at once, fewer wait for [`GATHER`].
const BATCH: usize = 1_000;
/// Ends that follow one another more closely go together.
const GATHER: Millis = Millis(3);
/// A kind whose first poll takes longer than this (on average) runs in tasks of its own, on any
/// core, so that one such job does not hold up the others.
const HEAVY: Duration = Duration::from_micros(50);
/// Progress of a running job is stored at most once in this time.
const PROGRESS: Millis = Millis::from_secs(1);
/// Without words from other nodes: the first and the longest pause between two looks.
const POLL: (Millis, Millis) = (Millis(50), Millis::from_secs(1));
/// With them: the floor.
const FLOOR: Millis = Millis::from_secs(5);

/// A job that is leased and not begun.
struct Waiting {
    grant: Grant,
    leased_at: Time,
    /// Renewals that were begun before the consumer knew of it say nothing about it.
    known: u64,
}

/// A job that has not completed at its first poll.
struct Running {
    assignment: Assignment,
    since: Time,
    leased_at: Time,
    known: u64,
    task: AbortHandle,
}

/// How much a consumer does before it ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    /// Until it is stopped or drained.
    Endless,
    /// One claim of at most so many jobs.
    Round(u32),
}

struct Consumer {
    runner: Arc<Runner>,
    unit: Arc<Unit>,
    control: Arc<Control>,
    stop: Arc<Signals>,
    span: Span,
    kinds: Vec<(Arc<Kind>, Duration)>,
    names: Vec<String>,
    /// Some kind has a limit: what it kept away may be there to claim after each end.
    is_limited: bool,
    concurrency: usize,
    prefetch: usize,

    waiting: VecDeque<Waiting>,
    running: BTreeMap<Held, Running>,
    ends: VecDeque<JobEnd>,
    give_back: Vec<Held>,
    tasks: JoinSet<Told>,
    /// Counts what is heard: tells which renewal can know of which job.
    turn: u64,

    /// There may be more to claim.
    hungry: bool,
    claiming: bool,
    /// Most jobs of the last claim.
    stride: usize,
    renewing: bool,
    releasing: bool,
    /// Ends that a transaction is under way for.
    finishing: usize,
    /// Most ends of the next one: less while the store refuses whole batches.
    batch: usize,
    /// Of a round: its claim was answered.
    claimed: bool,
    /// Of a round: its claim failed.
    broken: Option<StoreError>,

    claim_at: Option<Time>,
    finish_at: Option<Time>,
    release_at: Option<Time>,
    renew_at: Option<Time>,
    check_at: Option<Time>,
    progress_at: Option<Time>,
    wake_at: Option<Time>,
    poll: Millis,
    /// Calls of each sort that the store did not answer in a row.
    troubles: [u32; 4],

    stopping: Option<Time>,
    leave_at: Option<Time>,
    gone_by: Vec<(Time, i64, AbortHandle)>,
    failures: u32,
    beat: Option<Beat>,
    effects: Effects,
    /// Of a round of one: its report.
    last: Option<Box<Ran>>,
}

/// Consumes until it is stopped or drained, or for one round.
pub(crate) async fn consume(
    runner: Arc<Runner>,
    unit: Arc<Unit>,
    spec: &QueueSpec,
    control: Arc<Control>,
    stop: Arc<Signals>,
    span: Span,
) -> Report {
    Consumer::new(runner, unit, spec, control, stop, span).run().await
}

/// Runs the next job, and reports it: the path of `run NAME --once`.
pub(crate) async fn run_one(
    runner: &Arc<Runner>,
    unit: &Arc<Unit>,
    spec: &QueueSpec,
    signals: Arc<Signals>,
) -> Report {
    let control = Arc::new(Control::default());
    let (runner, unit) = (Arc::clone(runner), Arc::clone(unit));
    let beats = (Arc::clone(&control), Arc::clone(&runner));
    let report = consume(runner, unit, spec, control, signals, Span::Round(1)).await;
    let (control, runner) = beats;
    if let Some(beat) = control.take_beat()
        && let Err(e) = runner.store.beat(vec![beat]).await
    {
        tracing::warn!("cannot record a heartbeat: {}", watchbell_core::chain(&e));
    }
    report
}

impl Consumer {
    fn new(
        runner: Arc<Runner>,
        unit: Arc<Unit>,
        spec: &QueueSpec,
        control: Arc<Control>,
        stop: Arc<Signals>,
        span: Span,
    ) -> Self {
        let concurrency = spec.concurrency.max(1) as usize;
        let (concurrency, prefetch) = match span {
            Span::Endless => (concurrency, spec.prefetch as usize),
            Span::Round(most) => (most.max(1) as usize, 0),
        };
        Self {
            // Until it is known otherwise, a kind may block its thread at its first poll.
            kinds: spec.kinds.iter().map(|k| (Arc::new(k.clone()), HEAVY * 2)).collect(),
            names: spec.names(),
            is_limited: spec.kinds.iter().any(Kind::is_limited),
            concurrency,
            prefetch,
            runner,
            unit,
            control,
            stop,
            span,
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            ends: VecDeque::new(),
            give_back: Vec::new(),
            tasks: JoinSet::new(),
            turn: 0,
            hungry: true,
            claiming: false,
            stride: FIRST,
            renewing: false,
            releasing: false,
            finishing: 0,
            batch: BATCH,
            claimed: false,
            broken: None,
            claim_at: None,
            finish_at: None,
            release_at: None,
            renew_at: None,
            check_at: None,
            progress_at: None,
            wake_at: None,
            poll: POLL.0,
            troubles: [0; 4],
            stopping: None,
            leave_at: None,
            gone_by: Vec::new(),
            failures: 0,
            beat: None,
            effects: Effects::default(),
            last: None,
        }
    }

    async fn run(mut self) -> Report {
        loop {
            while let Some(told) = self.tasks.try_join_next() {
                self.hear(told);
            }
            let now = self.runner.clock.now();
            self.fire(now);
            let begun = self.start(now);
            self.report();
            self.claim(now);
            self.finish(now);
            self.release(now);
            self.renew(now);
            if self.is_over(now) {
                return self.leave();
            }
            if begun > 0 {
                // Its thread belongs to the jobs too.
                tokio::task::yield_now().await;
                continue;
            }
            let (clock, control) = (self.runner.clock.clone(), Arc::clone(&self.control));
            let (stop, stopping) = (Arc::clone(&self.stop), self.stopping.is_some());
            let timer = self.next_timer(now);
            tokio::select! {
                biased;
                Some(told) = self.tasks.join_next() => self.hear(told),
                () = control.notified() => {}
                () = stop.cancelled(), if !stopping => self.stop(),
                () = clock.sleep_until(timer) => {}
            }
        }
    }

    /// Whether no more jobs may start.
    fn is_draining(&self) -> bool {
        self.stopping.is_some() || (self.span == Span::Endless && self.control.is_draining())
    }

    fn is_over(&self, now: Time) -> bool {
        let done = match self.span {
            Span::Endless => self.is_draining(),
            Span::Round(_) => self.is_draining() || self.claimed,
        };
        let empty = self.waiting.is_empty()
            && self.running.is_empty()
            && self.ends.is_empty()
            && self.give_back.is_empty()
            && self.finishing == 0
            && !self.releasing
            && !self.claiming;
        (done && empty) || self.leave_at.is_some_and(|at| at <= now)
    }

    fn leave(mut self) -> Report {
        let left = self.held();
        if left > 0 {
            tracing::error!(
                worker.name = %self.unit.def.name,
                "{} leaves with {left} jobs that the store could not be told about: they are \
                 reclaimed when their leases end",
                self.unit.def.name
            );
        }
        match (self.last.take(), self.broken.take(), self.span) {
            (Some(ran), _, Span::Round(1)) => Report::Ran(ran),
            (None, Some(error), _) => Report::Broken(error),
            // There may be more at once.
            _ if self.hungry => Report::Idle { next: Some(self.runner.clock.now()) },
            _ => Report::Idle { next: self.wake_at },
        }
    }

    /// Jobs for which the store has not heard the last word.
    fn held(&self) -> usize {
        self.waiting.len()
            + self.running.len()
            + self.ends.len()
            + self.finishing
            + self.give_back.len()
    }

    fn next_timer(&self, now: Time) -> Time {
        let gather = self.finish_at.filter(|_| !self.ends.is_empty() && self.finishing == 0);
        let claim = self.claim_at.filter(|_| self.hungry);
        let release = self.release_at.filter(|_| !self.give_back.is_empty());
        let gone = self.gone_by.iter().map(|(at, ..)| *at).min();
        [
            gather,
            claim,
            release,
            self.renew_at,
            self.check_at,
            self.progress_at,
            self.wake_at,
            self.stopping,
            self.leave_at,
            gone,
        ]
        .into_iter()
        .flatten()
        .filter(|at| *at > now)
        .min()
        .unwrap_or(Time::FAR_FUTURE)
    }

    /// Does what is due.
    fn fire(&mut self, now: Time) {
        if self.control.take_wake() {
            self.hungry = true;
        }
        if self.wake_at.is_some_and(|at| at <= now) {
            self.wake_at = None;
            self.hungry = true;
        }
        if self.control.take_renew() {
            self.renew_at = Some(now);
        }
        if self.check_at.is_some_and(|at| at <= now) {
            self.check(now);
        }
        if self.progress_at.is_some_and(|at| at <= now) {
            self.store_progress(now);
        }
        if self.stopping.is_some_and(|at| at <= now) && self.leave_at.is_none() {
            self.abandon(now);
        }
        if self.is_draining() {
            self.give_back.extend(self.waiting.drain(..).filter_map(|w| held(&w.grant)));
        }
        let grace = self.runner.options.abort_grace;
        let name = &self.unit.def.name;
        self.gone_by.retain(|(at, id, task)| {
            if *at <= now && !task.is_finished() {
                tracing::error!(
                    worker.name = %name,
                    "job {id} of {name} is still there {grace} after it was aborted: it blocks its \
                     thread, and only a restart of the node frees it"
                );
            }
            *at > now
        });
    }

    /// Begins waiting jobs, in their order. Returns how many.
    fn start(&mut self, now: Time) -> usize {
        let mut begun = 0;
        while begun < BURST && self.running.len() < self.concurrency {
            let Some(next) = self.waiting.pop_front() else { break };
            if now >= self.runner.trust(next.leased_at) {
                self.give_back.extend(held(&next.grant));
                continue;
            }
            begun += 1;
            self.begin(next, now);
        }
        begun
    }

    fn begin(&mut self, next: Waiting, now: Time) {
        let Waiting { mut grant, leased_at, known } = next;
        let input = std::mem::take(&mut grant.input);
        let kind = match &input {
            CycleInput::Job { kind, .. } => self.names.iter().position(|name| name == kind),
            _ => None,
        };
        let (Some(held), Some(kind)) = (held(&grant), kind) else {
            let name = &self.unit.def.name;
            tracing::error!(
                worker.name = %name,
                "{name} was given something else than a job of its kinds: this is a defect of the \
                 store ({:?})", grant.cause
            );
            self.give_back.extend(self::held(&grant));
            return;
        };
        let signals = Arc::new(Signals::default());
        signals.trust(self.runner.trust(leased_at));
        let assignment = Assignment {
            runner: Arc::clone(&self.runner),
            unit: Arc::clone(&self.unit),
            kind: Arc::clone(&self.kinds[kind].0),
            signals,
            held,
        };
        let mut work = Box::pin(assignment.clone().run(grant, input));
        let heavy = self.kinds[kind].1 > HEAVY;
        if !heavy {
            let watch = Stopwatch::start();
            // Whatever it waits for is polled again at once, by its own task.
            let mut cx = Context::from_waker(Waker::noop());
            let polled = std::panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut cx)));
            match polled {
                Ok(Poll::Pending) => self.weigh(kind, watch.elapsed()),
                Ok(Poll::Ready(ended)) => {
                    self.weigh(kind, watch.elapsed());
                    return self.ended(ended);
                }
                Err(panic) => {
                    return self.broke(held, &crate::cycle::panic_text(&*panic), now);
                }
            }
        }
        self.control.shows(held, now, &assignment.signals);
        let task = self.tasks.spawn(async move {
            let mut cost = None;
            let work = async {
                if heavy {
                    let watch = Stopwatch::start();
                    let polled = std::future::poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx)));
                    let polled = polled.await;
                    cost = Some(watch.elapsed());
                    if let Poll::Ready(ended) = polled {
                        return ended;
                    }
                }
                work.await
            };
            match catch_panic(Box::pin(work)).await {
                Ok(ended) => Told::Ended(Ended { cost, ..ended }),
                Err(panic) => Told::Broke(held, panic),
            }
        });
        self.running.insert(held, Running { assignment, since: now, leased_at, known, task });
        let def = &self.unit.def;
        let (soft, _) = limits::of(&self.kinds[kind].0, def.soft_timeout, def.hard_timeout);
        soonest(&mut self.check_at, (now + soft).min(self.runner.trust(leased_at)));
        soonest(&mut self.progress_at, now + PROGRESS);
    }

    /// Notes what a first poll of this kind costs.
    fn weigh(&mut self, kind: usize, cost: Duration) {
        // One job that lost its thread for a moment does not make its kind a heavy one for long.
        let known = &mut self.kinds[kind].1;
        *known = (*known * 7 + cost.min(HEAVY * 8)) / 8;
    }

    /// A job ended: counts it, and puts its end to those that the store is told next.
    fn ended(&mut self, ended: Ended) {
        let Ended { held, mut ran, end, cost } = ended;
        if let Some(running) = self.running.remove(&held) {
            self.control.hides(held);
            let kind = &running.assignment.kind;
            if let (Some(cost), Some(at)) =
                (cost, self.kinds.iter().position(|(k, _)| Arc::ptr_eq(k, kind)))
            {
                self.weigh(at, cost);
            }
        }
        if let Some(at) = ran.retry_at {
            soonest(&mut self.wake_at, at);
        }
        if end.is_none() {
            self.hungry |= self.is_limited;
        }
        self.ends.extend(end);
        if !ran.effects.is_empty() {
            self.effects.merge(std::mem::take(&mut ran.effects));
        }
        self.log_end(held.0, &ran);
        let beat = self.beat_of(&ran);
        match &mut self.beat {
            Some(known) => known.add(beat),
            None => self.beat = Some(beat),
        }
        if self.span == Span::Round(1) {
            // A panic is the job's failure, and no reason to restart its worker.
            ran.crashed = false;
            self.last = Some(ran);
        }
    }

    /// The engine itself failed at a job: it is given back, and the node goes on.
    fn broke(&mut self, held: Held, panic: &str, now: Time) {
        let name = &self.unit.def.name;
        tracing::error!(
            worker.name = %name,
            "job {} of {name} panicked outside its run, and is given back: {panic}", held.0
        );
        self.running.remove(&held);
        self.control.hides(held);
        self.give_back.push(held);
        // Not at once: it would do the same again.
        self.claim_at = Some(now + POLL.1);
    }

    /// When to look again for jobs that nobody tells of.
    fn floor(&mut self, found: bool, now: Time) -> Option<Time> {
        if found {
            self.poll = POLL.0;
        }
        let pause = match self.runner.store.hears() {
            Hearing::Alone => return None,
            Hearing::Listening => FLOOR,
            Hearing::Deaf => {
                let pause = self.poll;
                self.poll = (self.poll * 2).min(POLL.1);
                pause
            }
        };
        // Up to a quarter longer: nodes that started together drift apart.
        let seed = format!("{}/{}", self.runner.session, self.unit.def.name);
        Some(schedule::jittered(&seed, now + pause, Millis(pause.0 / 4)))
    }
}

fn held(grant: &Grant) -> Option<Held> {
    job::number(&grant.cause).map(|id| (id, grant.token))
}

fn soonest(known: &mut Option<Time>, at: Time) {
    if known.is_none_or(|known| at < known) {
        *known = Some(at);
    }
}
