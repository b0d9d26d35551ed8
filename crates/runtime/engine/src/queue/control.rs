//! What a supervisor and the consumer that it launched say to each other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};
use watchbell_core::job::Kind;
use watchbell_core::port::Beat;
use watchbell_core::{CycleId, Effects, Time};

use super::job::Held;
use crate::host::Signals;
use crate::node::RunningView;
use crate::supervisor::Message;

/// The jobs in flight, since when, and what they say.
type Board = BTreeMap<Held, (Time, Arc<Signals>)>;

/// Shared by the supervisor's slot of a queue's worker and its consumer.
#[derive(Debug, Default)]
pub(crate) struct Control {
    notify: Notify,
    woken: AtomicBool,
    renew: AtomicBool,
    draining: AtomicBool,
    suspicious: AtomicBool,
    board: Arc<Mutex<Board>>,
    beat: Arc<Mutex<Option<Beat>>>,
    /// Whom to tell that there is a heartbeat to flush.
    supervisor: Option<mpsc::UnboundedSender<Message>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Control {
    /// The control of a supervised consumer.
    pub(crate) fn of(outbox: mpsc::UnboundedSender<Message>) -> Self {
        Self { supervisor: Some(outbox), ..Self::default() }
    }

    /// The control of a run beside this consumer: it shows its jobs and counts them here.
    pub(crate) fn beside(&self) -> Self {
        Self {
            board: Arc::clone(&self.board),
            beat: Arc::clone(&self.beat),
            supervisor: self.supervisor.clone(),
            ..Self::default()
        }
    }

    /// There may be jobs. A burst of these costs one claim.
    pub(crate) fn wake(&self) {
        self.draining.store(false, Ordering::Release);
        self.woken.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    /// A job may have been cancelled.
    pub(crate) fn look_at_leases(&self) {
        self.renew.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    /// Start no more jobs, and end once those that run have ended, unless [`wake`](Self::wake)
    /// comes first.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(super) fn take_wake(&self) -> bool {
        self.woken.swap(false, Ordering::AcqRel)
    }

    pub(super) fn take_renew(&self) -> bool {
        self.renew.swap(false, Ordering::AcqRel)
    }

    /// The answer to a claim got lost: there may be leases that nobody knows of.
    pub(crate) fn suspect(&self) {
        self.suspicious.store(true, Ordering::Release);
    }

    pub(super) fn is_suspicious(&self) -> bool {
        self.suspicious.load(Ordering::Acquire)
    }

    pub(super) fn trust(&self) {
        self.suspicious.store(false, Ordering::Release);
    }

    pub(super) async fn notified(&self) {
        self.notify.notified().await;
    }

    pub(super) fn shows(&self, held: Held, since: Time, signals: &Arc<Signals>) {
        lock(&self.board).insert(held, (since, Arc::clone(signals)));
    }

    pub(super) fn hides(&self, held: Held) {
        lock(&self.board).remove(&held);
    }

    /// The jobs in flight.
    pub(crate) fn running(&self) -> Vec<RunningView> {
        let view = |(held, (since, signals)): (&Held, &(Time, Arc<Signals>))| RunningView {
            cycle: CycleId(0),
            job: Some(held.0),
            since: *since,
            progress: signals.progress(),
        };
        lock(&self.board).iter().map(view).collect()
    }

    pub(super) fn beats(&self, later: Beat) {
        let mut beat = lock(&self.beat);
        match &mut *beat {
            Some(beat) => beat.add(later),
            None => {
                *beat = Some(later);
                if let Some(outbox) = &self.supervisor {
                    // An error means that the supervisor is gone, and the node with it.
                    drop(outbox.send(Message::Beating));
                }
            }
        }
    }

    /// The heartbeat that waits to be flushed.
    pub(crate) fn take_beat(&self) -> Option<Beat> {
        lock(&self.beat).take()
    }
}

/// Whether a worker of these kinds should look again because a job of its own may be cancelled.
pub(crate) fn cancels(effects: &Effects, kinds: &[Kind]) -> bool {
    effects.everything || kinds.iter().any(|k| effects.cancelled.contains(&k.name))
}
