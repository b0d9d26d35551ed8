//! Writes what the supervisor decided, in the order in which it decided: transitions, desired
//! states, gates, heartbeats. The supervisor never waits for the store; a store that fails delays
//! these records and loses none while the node lives.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use watchbell_clock::Clock;
use watchbell_core::gate::Gate;
use watchbell_core::lifecycle::Desired;
use watchbell_core::port::{Beat, Publication, Store, StoreError, Transition};
use watchbell_core::schedule::Passed;
use watchbell_core::{Time, WorkerName, chain, retry};

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
    /// Answers when everything before it is written.
    Flush(oneshot::Sender<()>),
}

/// The sending side.
#[derive(Debug, Clone)]
pub(crate) struct Recorder(mpsc::UnboundedSender<Record>);

impl Recorder {
    /// Starts the writer; it ends when the last sender is dropped.
    pub(crate) fn start(store: Arc<dyn Store>, clock: Clock) -> Self {
        let (tx, rx) = mpsc::unbounded_channel();
        tokio::spawn(write_all(store, clock, rx));
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

async fn write_all(
    store: Arc<dyn Store>,
    clock: Clock,
    mut queue: mpsc::UnboundedReceiver<Record>,
) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, 1024).await > 0 {
        let mut transitions = Vec::new();
        for record in batch.drain(..) {
            // Transitions come in bursts (a start, a stop): one transaction for each burst.
            if let Record::Transition(t) = record {
                transitions.push(t);
                continue;
            }
            write_transitions(&*store, &clock, &mut transitions).await;
            write(&*store, &clock, record).await;
        }
        write_transitions(&*store, &clock, &mut transitions).await;
    }
}

async fn write_transitions(store: &dyn Store, clock: &Clock, transitions: &mut Vec<Transition>) {
    if !transitions.is_empty() {
        let burst = std::mem::take(transitions);
        insist(clock, "transitions", || store.transition(burst.clone())).await;
    }
}

async fn write(store: &dyn Store, clock: &Clock, record: Record) {
    match record {
        Record::Transition(t) => {
            insist(clock, "a transition", || store.transition(vec![t.clone()])).await;
        }
        Record::Desired { worker, desired, by, at } => {
            insist(clock, "a desired state", || store.set_desired(&worker, desired, &by, at)).await;
        }
        Record::Blocked { worker, gate, at } => {
            insist(clock, "a gate", || store.set_blocked(&worker, gate.clone(), at)).await;
        }
        Record::Restarts { worker, restarts } => {
            insist(clock, "restarts", || store.save_restarts(&worker, restarts.clone())).await;
        }
        Record::Passed { worker, passed, at } => {
            insist(clock, "passed ticks", || store.record_passed(&worker, &passed, at)).await;
        }
        Record::Beats(beats) => insist(clock, "heartbeats", || store.beat(beats.clone())).await,
        Record::Burn(end) => insist(clock, "an abort", || store.burn((*end).clone())).await,
        Record::Flush(done) => {
            if done.send(()).is_err() {
                tracing::debug!("nobody waits for the flush any more");
            }
        }
    }
}

/// Tries until the store accepts or refuses; a refusal is a defect, and is logged as one.
async fn insist<'a>(
    clock: &Clock,
    what: &str,
    mut work: impl FnMut() -> watchbell_core::BoxFuture<'a, Result<(), StoreError>>,
) {
    let mut attempt = 0;
    loop {
        match work().await {
            Ok(()) => return,
            Err(e @ StoreError::Database(_)) if attempt < 10 => {
                attempt += 1;
                let pause = retry::EVENT.delay(attempt, what);
                tracing::warn!("cannot record {what}, again in {pause}: {}", chain(&e));
                clock.sleep(pause).await;
            }
            // The cycle had just ended by itself.
            Err(e @ StoreError::Fenced { .. }) => {
                tracing::debug!("no need to record {what}: {}", chain(&e));
                return;
            }
            Err(e) => {
                tracing::error!("cannot record {what}: {}", chain(&e));
                return;
            }
        }
    }
}
