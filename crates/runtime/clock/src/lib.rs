//! The one clock: wall time, accelerated time, or virtual time that a test moves by hand.
//!
//! Nothing else in Watchbell reads the system clock or sleeps. A component takes a [`Clock`] and
//! cannot tell which kind it has, so a day of schedules is tested in milliseconds and a
//! demonstration may run sixty times faster than the wall.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use watchbell_core::{Millis, Time};

/// A shared source of the present.
#[derive(Clone)]
pub struct Clock(Arc<Kind>);

enum Kind {
    System,
    /// `origin + (elapsed since start) * speed`.
    Scaled {
        origin: Time,
        started: Instant,
        speed: f64,
    },
    Virtual(Mutex<Timeline>, Notify),
}

struct Timeline {
    now: Time,
    next_id: u64,
    sleepers: BTreeMap<(Time, u64), oneshot::Sender<std::convert::Infallible>>,
}

/// The time limit of [`Clock::timeout`] passed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed(
    /// The limit.
    pub Millis,
);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {}", self.0)
    }
}
impl std::error::Error for Elapsed {}

impl Clock {
    /// The wall clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(Kind::System))
    }

    /// A clock that stands at `origin` now and runs `speed` times as fast as the wall.
    ///
    /// # Panics
    /// When `speed` is not a positive number.
    #[must_use]
    pub fn scaled(origin: Time, speed: f64) -> Self {
        assert!(speed.is_finite() && speed > 0.0, "the speed {speed} of a clock must be positive");
        Self(Arc::new(Kind::Scaled { origin, started: instant_now(), speed }))
    }

    /// A clock that stands still until [`advance`](Self::advance) moves it.
    #[must_use]
    pub fn manual(start: Time) -> Self {
        Self(Arc::new(Kind::Virtual(
            Mutex::new(Timeline { now: start, next_id: 0, sleepers: BTreeMap::new() }),
            Notify::new(),
        )))
    }

    /// The present instant.
    #[must_use]
    pub fn now(&self) -> Time {
        match &*self.0 {
            Kind::System => system_now(),
            Kind::Scaled { origin, started, speed } => {
                *origin + Millis((started.elapsed().as_secs_f64() * speed * 1e3) as i64)
            }
            Kind::Virtual(line, _) => lock(line).now,
        }
    }

    /// How many times faster than the wall this clock runs; 1 for a virtual clock.
    #[must_use]
    pub fn speed(&self) -> f64 {
        match &*self.0 {
            Kind::Scaled { speed, .. } => *speed,
            Kind::System | Kind::Virtual(..) => 1.0,
        }
    }

    /// Waits until the clock shows `at` or later.
    pub async fn sleep_until(&self, at: Time) {
        match &*self.0 {
            Kind::System | Kind::Scaled { .. } => {
                // The timer's grid is a millisecond, so it may wake just short of the instant.
                loop {
                    let left = at - self.now();
                    if left.0 <= 0 {
                        return;
                    }
                    let real = Duration::from_secs_f64(left.as_secs_f64() / self.speed());
                    real_sleep(real.min(Duration::from_secs(86_400))).await;
                }
            }
            Kind::Virtual(line, armed) => {
                let wake = {
                    let mut line = lock(line);
                    if line.now >= at {
                        return;
                    }
                    let (tx, rx) = oneshot::channel();
                    let id = line.next_id;
                    line.next_id += 1;
                    line.sleepers.insert((at, id), tx);
                    rx
                };
                armed.notify_waiters();
                // The other half is dropped when its instant comes. The clock cannot go away before
                // that, for this future borrows it.
                drop(wake.await);
            }
        }
    }

    /// Waits for `span`.
    pub async fn sleep(&self, span: Millis) {
        self.sleep_until(self.now() + span).await;
    }

    /// Runs `work`, but not longer than `limit`.
    ///
    /// # Errors
    /// [`Elapsed`] when the limit passed first; `work` is dropped.
    pub async fn timeout<T>(
        &self,
        limit: Millis,
        work: impl Future<Output = T>,
    ) -> Result<T, Elapsed> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.sleep(limit) => Err(Elapsed(limit)),
        }
    }

    /// Moves a virtual clock to `to` and wakes the sleepers on the way, in the order of their
    /// instants. Does nothing when the clock is already later.
    ///
    /// # Panics
    /// When the clock is not virtual: only the wall moves the others.
    pub fn advance(&self, to: Time) {
        let Kind::Virtual(line, _) = &*self.0 else {
            panic!("only a virtual clock is moved by hand")
        };
        let mut line = lock(line);
        line.now = line.now.max(to);
        let now = line.now;
        while let Some(first) = line.sleepers.first_entry() {
            if first.key().0 > now {
                break;
            }
            // Dropping the sender wakes the sleeper; one that was itself dropped hears nothing.
            drop(first.remove());
        }
    }

    /// The instant of the earliest sleeper of a virtual clock, once there is one at `after` or
    /// later: lets a test wait until the code under test has armed its timer.
    pub async fn next_timer(&self, after: Time) -> Time {
        let Kind::Virtual(line, armed) = &*self.0 else {
            panic!("only a virtual clock knows its sleepers")
        };
        loop {
            let arm = armed.notified();
            tokio::pin!(arm);
            arm.as_mut().enable();
            {
                let mut line = lock(line);
                line.sleepers.retain(|_, tx| !tx.is_closed());
                if let Some(at) = line.sleepers.keys().map(|k| k.0).find(|at| *at >= after) {
                    return at;
                }
            }
            arm.await;
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &*self.0 {
            Kind::System => "system",
            Kind::Scaled { .. } => "scaled",
            Kind::Virtual(..) => "virtual",
        };
        write!(f, "Clock({kind}, {})", self.now())
    }
}

fn lock(line: &Mutex<Timeline>) -> std::sync::MutexGuard<'_, Timeline> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn system_now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Time(since.map_or(0, |d| d.as_millis() as i64))
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn instant_now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
async fn real_sleep(span: Duration) {
    tokio::time::sleep(span).await;
}

/// Measures real elapsed time, for latencies and benchmarks: never for a decision.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Self(instant_now())
    }
    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
    /// Milliseconds since the start.
    #[must_use]
    pub fn millis(&self) -> Millis {
        Millis(self.elapsed().as_millis() as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn virtual_time_wakes_sleepers_in_order() {
        let clock = Clock::manual(Time(0));
        let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
        for at in [30, 10, 20] {
            let (clock, tx) = (clock.clone(), tx.clone());
            tokio::spawn(async move {
                clock.sleep_until(Time(at)).await;
                tx.send(at).unwrap();
            });
        }
        assert_eq!(clock.next_timer(Time(30)).await, Time(30));
        clock.advance(Time(15));
        assert_eq!(rx.recv().await, Some(10));
        clock.advance(Time(40));
        let mut rest = vec![rx.recv().await.unwrap(), rx.recv().await.unwrap()];
        rest.sort_unstable();
        assert_eq!(rest, [20, 30]);
        assert_eq!(clock.now(), Time(40));
    }

    #[tokio::test]
    async fn a_scaled_clock_runs_faster() {
        let clock = Clock::scaled(Time(1_000_000), 1_000.0);
        let watch = Stopwatch::start();
        clock.sleep(Millis::from_secs(10)).await;
        assert!(clock.now() >= Time(1_010_000));
        assert!(watch.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_timeout_on_virtual_time_needs_no_waiting() {
        let clock = Clock::manual(Time(0));
        let c = clock.clone();
        let task = tokio::spawn(async move {
            c.timeout(Millis::from_secs(60), std::future::pending::<()>()).await
        });
        clock.next_timer(Time(60_000)).await;
        clock.advance(Time(60_000));
        assert_eq!(task.await.unwrap(), Err(Elapsed(Millis::from_secs(60))));
    }
}
