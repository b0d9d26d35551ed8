//! Writes what the supervisor decided: transitions, desired states, gates, heartbeats. The
//! supervisor never waits for the store; a store that fails delays these records and loses none
//! while the node lives. Of what is overtaken while it waits only the newest is kept, so that a
//! store that is away for long does not fill the memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use watchbell_core::gate::Gate;
use watchbell_core::lifecycle::Desired;
use watchbell_core::port::{Beat, Publication, StoreError, Transition};
use watchbell_core::schedule::Passed;
use watchbell_core::{Effects, NewEvent, SessionId, Time, Token, WorkerName, chain};

use crate::cycle::{Runner, STORE};

/// One record to write.
#[derive(Debug)]
pub(crate) enum Record {
    Transition(Transition),
    Desired {
        worker: WorkerName,
        desired: Desired,
        by: String,
        at: Time,
    },
    Blocked {
        worker: WorkerName,
        gate: Option<Gate>,
        at: Time,
    },
    Restarts {
        worker: WorkerName,
        restarts: serde_json::Value,
    },
    Passed {
        worker: WorkerName,
        passed: Vec<Passed>,
        at: Time,
    },
    Beats(Vec<Beat>),
    /// The end of an aborted cycle.
    Burn(Box<Publication>),
    /// A standing lease that is not needed any more.
    Release {
        worker: WorkerName,
        session: SessionId,
        token: Token,
        at: Time,
    },
    /// Something for subscribers to hear.
    Event(NewEvent, Time),
    /// Something for other nodes to hear once everything before it is written.
    Tell(Effects),
    /// Answers when everything before it is written.
    Flush(oneshot::Sender<()>),
}

/// The sending side.
#[derive(Debug, Clone)]
pub(crate) struct Recorder(mpsc::UnboundedSender<Record>);

impl Recorder {
    /// Starts the writer; it ends when the last sender is dropped.
    pub(crate) fn start(runner: Arc<Runner>) -> Self {
        let (tx, inbox) = mpsc::unbounded_channel();
        let writer = Writer { runner, inbox, pending: Pending::default() };
        tokio::spawn(writer.run());
        Self(tx)
    }

    pub(crate) fn put(&self, record: Record) {
        // The writer outlives every sender, unless the runtime itself is going down.
        drop(self.0.send(record));
    }

    /// Waits until everything that was put before is written.
    pub(crate) async fn flush(&self) {
        let (tx, rx) = oneshot::channel();
        self.put(Record::Flush(tx));
        // An error means that the writer is gone, and with it whatever could be waited for.
        drop(rx.await);
    }
}

/// What is still to be written. The sorts touch different columns and tables, so that each has an
/// order of its own.
#[derive(Debug, Default)]
struct Pending {
    burns: Vec<Publication>,
    transitions: Vec<Transition>,
    desired: BTreeMap<WorkerName, (Desired, String, Time)>,
    blocked: BTreeMap<WorkerName, (Option<Gate>, Time)>,
    restarts: BTreeMap<WorkerName, serde_json::Value>,
    passed: BTreeMap<WorkerName, (Vec<Passed>, Time)>,
    beats: BTreeMap<WorkerName, Beat>,
    releases: Vec<(WorkerName, SessionId, Token, Time)>,
    events: Vec<(NewEvent, Time)>,
    tell: Effects,
    flushes: Vec<oneshot::Sender<()>>,
}

impl Pending {
    fn put(&mut self, record: Record) {
        match record {
            Record::Transition(t) => self.transitions.push(t),
            Record::Desired { worker, desired, by, at } => {
                self.desired.insert(worker, (desired, by, at));
            }
            Record::Blocked { worker, gate, at } => {
                self.blocked.insert(worker, (gate, at));
            }
            Record::Restarts { worker, restarts } => {
                self.restarts.insert(worker, restarts);
            }
            Record::Passed { worker, passed, at } => {
                let known = self.passed.entry(worker).or_insert_with(|| (Vec::new(), at));
                known.1 = at;
                passed.into_iter().for_each(|p| join(&mut known.0, p));
            }
            Record::Beats(beats) => {
                for beat in beats {
                    match self.beats.get_mut(&beat.worker) {
                        Some(known) => known.add(beat),
                        None => drop(self.beats.insert(beat.worker.clone(), beat)),
                    }
                }
            }
            Record::Burn(end) => self.burns.push(*end),
            Record::Release { worker, session, token, at } => {
                self.releases.push((worker, session, token, at));
            }
            Record::Event(event, at) => self.events.push((event, at)),
            Record::Tell(effects) => self.tell.merge(effects),
            Record::Flush(done) => self.flushes.push(done),
        }
    }
}

/// Adds a range of passed instants, joined with the one before where they share one fate.
fn join(known: &mut Vec<Passed>, next: Passed) {
    match known.last_mut() {
        Some(last) if last.fate == next.fate && last.last < next.first => {
            last.last = next.last;
            last.count += next.count;
        }
        _ => known.push(next),
    }
}

struct Writer {
    runner: Arc<Runner>,
    inbox: mpsc::UnboundedReceiver<Record>,
    pending: Pending,
}

/// Records taken in at a time.
const BATCH: usize = 1_024;

impl Writer {
    async fn run(mut self) {
        let mut batch = Vec::new();
        while self.inbox.recv_many(&mut batch, BATCH).await > 0 {
            batch.drain(..).for_each(|record| self.pending.put(record));
            let mut tries = 0;
            while let Err((what, error)) = self.write().await {
                tries += 1;
                let pause = STORE.delay(tries, what);
                if tries.is_power_of_two() {
                    tracing::warn!("cannot record {what}, again in {pause}: {}", chain(&error));
                }
                // What comes meanwhile joins what waits.
                let wake = self.runner.clock.now() + pause;
                let mut open = true;
                while self.runner.clock.now() < wake {
                    tokio::select! {
                        biased;
                        () = self.runner.clock.sleep_until(wake) => {}
                        n = self.inbox.recv_many(&mut batch, BATCH), if open => {
                            open = n > 0;
                            batch.drain(..).for_each(|record| self.pending.put(record));
                        }
                    }
                }
            }
            for done in self.pending.flushes.drain(..) {
                if done.send(()).is_err() {
                    tracing::debug!("nobody waits for the flush any more");
                }
            }
        }
    }

    /// Writes everything that is pending. What the store does not take keeps its place, and does not
    /// keep the other sorts from being written.
    async fn write(&mut self) -> Result<(), Trouble> {
        let (to, pending) = (&*self.runner, &mut self.pending);
        let all = [
            burns(to, &mut pending.burns).await,
            transitions(to, &mut pending.transitions).await,
            desired(to, &mut pending.desired).await,
            gates(to, &mut pending.blocked).await,
            restarts(to, &mut pending.restarts).await,
            passed(to, &mut pending.passed).await,
            beats(to, &mut pending.beats).await,
            releases(to, &mut pending.releases).await,
            events(to, &mut pending.events).await,
        ];
        all.into_iter().collect::<Result<(), Trouble>>()?;
        let tell = std::mem::take(&mut pending.tell);
        if !tell.is_empty() {
            to.store.tell(&tell);
        }
        Ok(())
    }
}

/// What could not be written, and why.
type Trouble = (&'static str, StoreError);

async fn burns(to: &Runner, all: &mut Vec<Publication>) -> Result<(), Trouble> {
    while let Some(end) = all.first() {
        heed("an abort", to.gauge.time(to.store.burn(end.clone())).await)?;
        all.remove(0);
    }
    Ok(())
}

async fn transitions(to: &Runner, all: &mut Vec<Transition>) -> Result<(), Trouble> {
    if !all.is_empty() {
        heed("transitions", to.gauge.time(to.store.transition(all.clone())).await)?;
        all.clear();
    }
    Ok(())
}

async fn desired(
    to: &Runner,
    all: &mut BTreeMap<WorkerName, (Desired, String, Time)>,
) -> Result<(), Trouble> {
    let mut written = false;
    while let Some((worker, (wanted, by, at))) = all.first_key_value() {
        heed(
            "a desired state",
            to.gauge.time(to.store.set_desired(worker, *wanted, by, *at)).await,
        )?;
        all.pop_first();
        written = true;
    }
    if written {
        // Other nodes can read it now.
        to.store.tell(&Effects { desired: true, ..Effects::default() });
    }
    Ok(())
}

async fn gates(
    to: &Runner,
    all: &mut BTreeMap<WorkerName, (Option<Gate>, Time)>,
) -> Result<(), Trouble> {
    while let Some((worker, (gate, at))) = all.first_key_value() {
        heed("a gate", to.gauge.time(to.store.set_blocked(worker, gate.clone(), *at)).await)?;
        all.pop_first();
    }
    Ok(())
}

async fn restarts(
    to: &Runner,
    all: &mut BTreeMap<WorkerName, serde_json::Value>,
) -> Result<(), Trouble> {
    while let Some((worker, restarts)) = all.first_key_value() {
        heed("restarts", to.gauge.time(to.store.save_restarts(worker, restarts.clone())).await)?;
        all.pop_first();
    }
    Ok(())
}

async fn passed(
    to: &Runner,
    all: &mut BTreeMap<WorkerName, (Vec<Passed>, Time)>,
) -> Result<(), Trouble> {
    while let Some((worker, (passed, at))) = all.first_key_value() {
        heed("passed ticks", to.gauge.time(to.store.record_passed(worker, passed, *at)).await)?;
        all.pop_first();
    }
    Ok(())
}

async fn beats(to: &Runner, all: &mut BTreeMap<WorkerName, Beat>) -> Result<(), Trouble> {
    if !all.is_empty() {
        heed("heartbeats", to.gauge.time(to.store.beat(all.values().cloned().collect())).await)?;
        all.clear();
    }
    Ok(())
}

async fn releases(
    to: &Runner,
    all: &mut Vec<(WorkerName, SessionId, Token, Time)>,
) -> Result<(), Trouble> {
    while let Some((worker, session, token, at)) = all.first() {
        heed("a release", to.gauge.time(to.store.release(worker, session, *token, *at)).await)?;
        all.remove(0);
    }
    Ok(())
}

/// Each has a dedupe key, so that one whose answer got lost is not told twice.
async fn events(to: &Runner, all: &mut Vec<(NewEvent, Time)>) -> Result<(), Trouble> {
    while let Some((event, at)) = all.first() {
        heed("an event", to.gauge.time(to.store.emit(vec![event.clone()], *at)).await.map(drop))?;
        let kind = event.kind.clone();
        all.remove(0);
        to.tell(Effects { events: [kind].into(), ..Effects::default() });
    }
    Ok(())
}

/// Whether a record must be tried again: where the store did not answer. A refusal is a defect, and
/// is logged as one.
fn heed(
    what: &'static str,
    result: Result<(), StoreError>,
) -> Result<(), (&'static str, StoreError)> {
    match result {
        Ok(()) => Ok(()),
        Err(e @ StoreError::Database(_)) => Err((what, e)),
        // The cycle had just ended by itself.
        Err(e @ StoreError::Fenced { .. }) => {
            tracing::debug!("no need to record {what}: {}", chain(&e));
            Ok(())
        }
        Err(e) => {
            tracing::error!("cannot record {what}: {}", chain(&e));
            Ok(())
        }
    }
}
