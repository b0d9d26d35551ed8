//! What a running cycle can ask of the engine, and what the engine can ask of a running cycle.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;
use watchbell_clock::Clock;
use watchbell_core::port::{Grant, Publication, StoreError};
use watchbell_core::{BoxFuture, Cause, Commit, CycleId, Effects, Host, Time, Token, WorkerName};

use crate::cycle::Runner;

/// Why a running cycle was asked to stop. Of several reasons the highest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Asked {
    /// Its worker or its node stops.
    ToStop = 1,
    /// It is past its soft time limit.
    TimeUp = 2,
    /// An operator cancelled the job.
    Cancelled = 3,
    /// Its lease is lost, or too old to be trusted.
    Lost = 4,
}

/// The engine's side of a running cycle: ask it to stop, see how far it is, know its claim.
#[derive(Debug, Default)]
pub struct Signals {
    asked: AtomicU8,
    wake: Notify,
    progress: Mutex<Progress>,
    grant: OnceLock<Grant>,
    /// Until when the lease may be trusted, as it was last extended; 0 is not known.
    trusted_until: AtomicI64,
    ending: AtomicBool,
    /// The end of a window that was found to have gates; 0 is none.
    gated_end: AtomicI64,
}

#[derive(Debug, Default)]
struct Progress {
    at: Option<(f64, String)>,
    /// Changed since [`Signals::new_progress`] was asked.
    fresh: bool,
}

impl Signals {
    /// Asks the cycle to stop.
    pub fn cancel(&self) {
        self.ask(Asked::ToStop);
    }

    /// Asks the cycle to stop, for that reason.
    pub(crate) fn ask(&self, why: Asked) {
        self.asked.fetch_max(why as u8, Ordering::AcqRel);
        self.wake.notify_waiters();
    }

    /// Why it was asked, if it was.
    #[must_use]
    pub fn asked(&self) -> Option<Asked> {
        Some(match self.asked.load(Ordering::Acquire) {
            0 => return None,
            1 => Asked::ToStop,
            2 => Asked::TimeUp,
            3 => Asked::Cancelled,
            _ => Asked::Lost,
        })
    }

    /// Whether it was asked.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.asked.load(Ordering::Acquire) > 0
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
        lock(&self.progress).at.clone()
    }

    /// The same, if it has changed since this was asked last.
    pub(crate) fn new_progress(&self) -> Option<(f64, String)> {
        let mut progress = lock(&self.progress);
        std::mem::take(&mut progress.fresh).then(|| progress.at.clone()).flatten()
    }

    fn note_progress(&self, percent: f64, message: &str) {
        *lock(&self.progress) = Progress { at: Some((percent, message.to_owned())), fresh: true };
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

    /// Notes until when the lease may be trusted.
    pub(crate) fn trust(&self, until: Time) {
        self.trusted_until.store(until.0, Ordering::Release);
    }

    /// Until when the lease may be trusted.
    pub(crate) fn trusted_until(&self) -> Option<Time> {
        Some(Time(self.trusted_until.load(Ordering::Acquire))).filter(|at| at.0 > 0)
    }

    /// Notes the end of the window that is next and has gates.
    pub(crate) fn gated(&self, end: Time) {
        self.gated_end.store(end.0, Ordering::Release);
    }

    /// The end of the window that is next, if it was found to have gates.
    pub(crate) fn gated_end(&self) -> Option<Time> {
        Some(Time(self.gated_end.load(Ordering::Acquire))).filter(|at| at.0 > 0)
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
        self.signals.note_progress(percent, message);
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
        self.signals.note_progress(percent, message);
    }

    fn step(&self, commit: Commit) -> BoxFuture<'_, Result<(), StoreError>> {
        lock(&self.steps).extend(commit.describe());
        Box::pin(async { Ok(()) })
    }

    fn stage(&self) -> io::Result<PathBuf> {
        Ok(tempfile::tempdir_in(self.scratch.path())?.keep())
    }

    fn rehearsal(&self) -> bool {
        true
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
