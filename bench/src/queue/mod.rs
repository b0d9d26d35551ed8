//! The queue's speed: floors written by hand ([`floor_pg`], [`floor_lite`]), Watchbell through its
//! real engine ([`ours`]), peers through their own programs ([`peers`]), on one server
//! ([`server`]); and the size of the tables while jobs pass through ([`size`]).
//!
//! All of them do the same: jobs of about 32 bytes that do nothing, in a fresh database each time.

pub mod floor_lite;
pub mod floor_pg;
pub mod ours;
pub mod peers;
pub mod server;
pub mod size;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::{Millis, Time};

use crate::{grouped, median, percentile};

/// Jobs of one bulk call.
pub const PER_CALL: usize = 1_000;
/// Jobs of one batch of a floor.
pub const FLOOR_BATCH: usize = 500;
/// Callers that enqueue at the same time.
pub const CALLERS: usize = 64;
/// Jobs that are picked up before the measured ones.
pub const WARM_UP: usize = 5;
/// How long a measurement may take before it is given up.
pub const PATIENCE: Millis = Millis::from_mins(10);
/// How long a node is left alone before it counts as idle: a server's idle sessions report what they
/// did within ten seconds.
pub const SETTLE: Millis = Millis::from_secs(12);
/// How far ahead jobs are enqueued that come due at once.
pub const AHEAD: Millis = Millis::from_secs(4);

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Jobs of a bulk enqueue, of a drain, and of all concurrent callers together.
    pub jobs: usize,
    /// Jobs enqueued one after another.
    pub one: usize,
    /// Jobs of the long backlog; 0 leaves it out.
    pub backlog: usize,
    /// Jobs picked up one by one.
    pub pick_up: usize,
    /// Jobs due at one instant.
    pub due: usize,
    /// How long an idle node is watched; 0 leaves it out.
    pub idle: Millis,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Jobs a second, enqueued [`PER_CALL`] a call.
    Bulk,
    /// Jobs a second, enqueued by one caller, one a call.
    One,
    /// The same by [`CALLERS`] callers at once.
    Callers,
    /// Jobs a second from the start of the worker until the database shows none left.
    Drain,
    /// The same with a long backlog.
    Backlog,
    /// Milliseconds from the call that enqueues to the first line of the handler.
    PickUp,
    /// Milliseconds from the due instant to the first line of the handler.
    Due,
    /// Transactions a second of an idle node.
    Idle,
}

impl Measure {
    /// All, in the order of the table.
    pub const ALL: [Self; 8] = [
        Self::Bulk,
        Self::One,
        Self::Callers,
        Self::Drain,
        Self::Backlog,
        Self::PickUp,
        Self::Due,
        Self::Idle,
    ];

    /// Whether it is a time of which the table shows the middle and the 99th percentile.
    #[must_use]
    pub const fn is_time(self) -> bool {
        matches!(self, Self::PickUp | Self::Due)
    }
}

/// One reading: a rate, or the middle and the 99th percentile of times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// The rate, or the middle.
    pub first: f64,
    /// The 99th percentile.
    pub p99: f64,
}

impl Reading {
    /// A rate.
    #[must_use]
    pub const fn rate(per_second: f64) -> Self {
        Self { first: per_second, p99: 0.0 }
    }

    /// Of times in microseconds.
    #[must_use]
    pub fn times(micros: &[i64]) -> Self {
        let mut sorted: Vec<f64> = micros.iter().map(|&us| us as f64 / 1e3).collect();
        sorted.sort_by(f64::total_cmp);
        Self { first: percentile(&sorted, 0.5), p99: percentile(&sorted, 0.99) }
    }
}

/// What was measured of one subject.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Its name in the table.
    pub name: String,
    readings: BTreeMap<Measure, Vec<Reading>>,
}

impl Figures {
    /// None yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), readings: BTreeMap::new() }
    }

    /// Adds one.
    pub fn add(&mut self, measure: Measure, reading: Reading) {
        self.readings.entry(measure).or_default().push(reading);
    }

    /// Takes over what `other` has of a measure.
    pub fn copy(&mut self, measure: Measure, other: &Self) {
        if let Some(readings) = other.readings.get(&measure) {
            self.readings.insert(measure, readings.clone());
        }
    }

    /// The middle of what was read.
    #[must_use]
    pub fn median(&self, measure: Measure) -> Option<Reading> {
        let readings = self.readings.get(&measure)?;
        let of = |f: fn(&Reading) -> f64| median(&readings.iter().map(f).collect::<Vec<_>>());
        Some(Reading { first: of(|r| r.first), p99: of(|r| r.p99) })
    }

    /// As the table shows it; empty where it was not measured.
    #[must_use]
    pub fn cell(&self, measure: Measure) -> String {
        match self.median(measure) {
            None => String::new(),
            Some(r) if measure.is_time() => format!("{:.2} / {:.2}", r.first, r.p99),
            Some(r) if measure == Measure::Idle => format!("{:.2}", r.first),
            Some(r) => grouped(r.first),
        }
    }

    /// How many times better than `other`: more of a rate, less of a time.
    #[must_use]
    pub fn ratio(&self, other: &Self, measure: Measure) -> String {
        let (Some(ours), Some(theirs)) = (self.median(measure), other.median(measure)) else {
            return String::new();
        };
        if measure.is_time() {
            format!("{:.2} / {:.2}", theirs.first / ours.first, theirs.p99 / ours.p99)
        } else {
            format!("{:.2}", ours.first / theirs.first)
        }
    }
}

/// The best of several subjects in each measure.
#[must_use]
pub fn best<'a>(subjects: impl Iterator<Item = &'a Figures>, name: &str) -> Figures {
    let mut best = Figures::new(name);
    for subject in subjects {
        for measure in Measure::ALL {
            let Some(reading) = subject.median(measure) else { continue };
            let better = best.median(measure).is_none_or(|held| {
                if measure.is_time() { reading.p99 < held.p99 } else { reading.first > held.first }
            });
            if better {
                best.readings.insert(measure, vec![reading]);
            }
        }
    }
    best
}

/// Microseconds since the epoch, finer than a clock of milliseconds tells them: the stopwatch was
/// started when the clock moved on.
#[derive(Debug, Clone, Copy)]
pub struct Stamps {
    watch: Stopwatch,
    origin: Time,
}

impl Stamps {
    /// Waits for the clock's next millisecond.
    #[must_use]
    pub fn start(clock: &Clock) -> Self {
        let before = clock.now();
        loop {
            let origin = clock.now();
            if origin != before {
                return Self { watch: Stopwatch::start(), origin };
            }
        }
    }

    /// Now.
    #[must_use]
    pub fn micros(&self) -> i64 {
        self.origin.0 * 1_000 + self.watch.elapsed().as_micros() as i64
    }
}

/// The payload of job `i`, stamped with `micros`: about 32 bytes.
#[must_use]
pub fn payload(i: usize, micros: i64) -> String {
    format!(r#"{{"i":{i},"t":{micros}}}"#)
}

/// Pauses of 10 to 40 ms, the same in each run.
#[must_use]
pub fn pause(i: usize) -> Millis {
    let mixed = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    Millis(10 + (mixed % 31) as i64)
}

/// What handlers tell.
#[derive(Debug)]
pub struct Starts {
    count: AtomicU64,
    target: AtomicU64,
    /// Microseconds from a job's stamp to its start; only where they are wanted.
    late: Option<Mutex<Vec<i64>>>,
    reached: Notify,
}

impl Starts {
    /// Counts `target` starts.
    #[must_use]
    pub fn counting(target: usize) -> Arc<Self> {
        Arc::new(Self {
            count: AtomicU64::new(0),
            target: AtomicU64::new(target as u64),
            late: None,
            reached: Notify::new(),
        })
    }

    /// Keeps how late each start was.
    #[must_use]
    pub fn timing(target: usize) -> Arc<Self> {
        Arc::new(Self {
            count: AtomicU64::new(0),
            target: AtomicU64::new(target as u64),
            late: Some(Mutex::new(Vec::with_capacity(target))),
            reached: Notify::new(),
        })
    }

    /// A job began: the first line of a handler.
    pub fn started(&self, stamp: i64, stamps: &Stamps) {
        if let Some(late) = &self.late {
            let micros = stamps.micros() - stamp;
            late.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(micros);
        }
        let count = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        if count >= self.target.load(Ordering::Acquire) {
            self.reached.notify_one();
        }
    }

    /// Jobs begun.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until `target` jobs have begun.
    ///
    /// # Errors
    /// When they have not after [`PATIENCE`].
    pub async fn reach(&self, target: usize, clock: &Clock) -> anyhow::Result<()> {
        self.target.store(target as u64, Ordering::Release);
        let wait = async {
            while self.count() < target as u64 {
                self.reached.notified().await;
            }
        };
        match clock.timeout(PATIENCE, wait).await {
            Ok(()) => Ok(()),
            Err(_) => anyhow::bail!("only {} of {target} jobs began", self.count()),
        }
    }

    /// How late they were, without the first `skip`.
    #[must_use]
    pub fn late(&self, skip: usize) -> Vec<i64> {
        let late = self.late.as_ref().map(|late| {
            let late = late.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            late.iter().skip(skip).copied().collect()
        });
        late.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_as_long_as_the_peers() {
        assert_eq!(payload(12_345, 1_795_316_400_000_000).len(), 32);
    }

    #[test]
    fn pauses_lie_between_10_and_40_ms() {
        assert!((0..1_000).map(pause).all(|p| (10..=40).contains(&p.0)));
    }

    #[test]
    fn the_best_has_the_highest_rate_and_the_shortest_time() {
        let (mut a, mut b) = (Figures::new("a"), Figures::new("b"));
        a.add(Measure::Drain, Reading::rate(100.0));
        b.add(Measure::Drain, Reading::rate(300.0));
        a.add(Measure::Due, Reading::times(&[1_000, 2_000]));
        b.add(Measure::Due, Reading::times(&[3_000, 4_000]));
        let best = best([&a, &b].into_iter(), "best");
        assert_eq!(best.median(Measure::Drain), Some(Reading::rate(300.0)));
        assert_eq!(best.cell(Measure::Due), "1.00 / 2.00");
        assert_eq!(a.ratio(&best, Measure::Drain), "0.33");
        assert_eq!(b.ratio(&best, Measure::Due), "0.33 / 0.50");
    }
}
