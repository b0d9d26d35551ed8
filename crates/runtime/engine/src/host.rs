//! What a running cycle can ask of the engine, and what the engine can ask of a running cycle.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;
use watchbell_clock::Clock;
use watchbell_core::port::{Grant, Publication, StoreError};
use watchbell_core::{BoxFuture, Cause, Commit, CycleId, Host, Time, Token, WorkerName};

use crate::cycle::Runner;
use crate::effects::Effects;

/// The engine's side of a running cycle: ask it to stop, see how far it is, know its claim.
#[derive(Debug, Default)]
pub struct Signals {
    cancelled: AtomicBool,
    wake: Notify,
    progress: Mutex<Option<(f64, String)>>,
    grant: OnceLock<Grant>,
    ending: AtomicBool,
}

impl Signals {
    /// Asks the cycle to stop.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.wake.notify_waiters();
    }

    /// Whether it was asked.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Waits until it is asked.
    pub async fn cancelled(&self) {
        loop {
            // Armed before the look, or a signal between the two would be lost.
            let wake = self.wake.notified();
            tokio::pin!(wake);
            wake.as_mut().enable();
            if self.is_cancelled() {
                return;
            }
            wake.await;
        }
    }

    /// Percent done and a few words, if the cycle has said so.
    #[must_use]
    pub fn progress(&self) -> Option<(f64, String)> {
        lock(&self.progress).clone()
    }

    /// The claim under which the cycle runs, once it has one.
    #[must_use]
    pub fn grant(&self) -> Option<&Grant> {
        self.grant.get()
    }

    /// Notes the claim, without its input: that belongs to the cycle.
    pub(crate) fn granted(&self, grant: Grant) -> &Grant {
        self.grant.get_or_init(|| grant)
    }

    /// Says that the cycle is about to publish its end, which gives its lease back.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// Whether its end is being published: it may have no lease any more, and need none.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The host of a claimed cycle.
pub(crate) struct CycleHost {
    pub(crate) runner: Arc<Runner>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) worker: WorkerName,
    pub(crate) token: Token,
    pub(crate) cycle: CycleId,
    pub(crate) cause: Cause,
}

impl Host for CycleHost {
    fn now(&self) -> Time {
        self.runner.clock.now()
    }

    fn cancelled(&self) -> bool {
        self.signals.is_cancelled()
    }

    fn until_cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.signals.cancelled())
    }

    fn progress(&self, percent: f64, message: &str) {
        *lock(&self.signals.progress) = Some((percent, message.to_owned()));
    }

    fn step(&self, commit: Commit) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let effects = Effects::of(&commit);
            self.runner
                .store
                .publish(Publication {
                    worker: self.worker.clone(),
                    session: self.runner.session.clone(),
                    token: self.token,
                    cycle: self.cycle,
                    cause: self.cause.clone(),
                    now: self.runner.clock.now(),
                    commit,
                    end: None,
                })
                .await?;
            if !effects.is_empty() {
                // A closed channel means that the supervisor is gone: nobody is left to wake.
                drop(self.runner.effects.send(effects));
            }
            Ok(())
        })
    }

    fn stage(&self) -> io::Result<PathBuf> {
        self.runner.artifacts.stage()
    }
}

/// The host of a dry run: steps are described instead of published, files go to a directory that
/// is removed afterwards.
pub(crate) struct DryHost {
    pub(crate) clock: Clock,
    pub(crate) signals: Arc<Signals>,
    pub(crate) steps: Arc<Mutex<Vec<String>>>,
    pub(crate) scratch: tempfile::TempDir,
}

impl Host for DryHost {
    fn now(&self) -> Time {
        self.clock.now()
    }

    fn cancelled(&self) -> bool {
        self.signals.is_cancelled()
    }

    fn until_cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.signals.cancelled())
    }

    fn progress(&self, percent: f64, message: &str) {
        *lock(&self.signals.progress) = Some((percent, message.to_owned()));
    }

    fn step(&self, commit: Commit) -> BoxFuture<'_, Result<(), StoreError>> {
        lock(&self.steps).extend(commit.describe());
        Box::pin(async { Ok(()) })
    }

    fn stage(&self) -> io::Result<PathBuf> {
        Ok(tempfile::tempdir_in(self.scratch.path())?.keep())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cancel_before_the_wait_is_not_lost() {
        let signals = Signals::default();
        signals.cancel();
        signals.cancelled().await;
        assert!(signals.is_cancelled());
    }
}
