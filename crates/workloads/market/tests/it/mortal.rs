//! Cycles that end in the middle, as those of a process that is killed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// Work that is dropped after so many steps, wherever it is then; but a transaction that has begun
/// ends one way or the other, which is the promise of the database.
pub(crate) struct Mortal<F> {
    work: Pin<Box<F>>,
    left: u64,
    committing: Arc<AtomicBool>,
}

impl<F: Future> Mortal<F> {
    pub(crate) fn new(work: F, steps: u64, committing: &Arc<AtomicBool>) -> Self {
        Self { work: Box::pin(work), left: steps, committing: Arc::clone(committing) }
    }
}

impl<F: Future> Future for Mortal<F> {
    /// `None` when it died.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left == 0 && !self.committing.load(Ordering::Relaxed) {
            return Poll::Ready(None);
        }
        self.left = self.left.saturating_sub(1);
        self.work.as_mut().poll(context).map(Some)
    }
}

/// Small, seeded, and the same everywhere.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) const fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}
