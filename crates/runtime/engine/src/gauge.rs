//! How the store answers this node: how long its calls take, for the [pressure] that the supervisor
//! derives from it.
//!
//! [pressure]: watchbell_core::pressure

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::port::{Result, Store};
use watchbell_core::pressure::{ENOUGH, Pressure, SLOW, Sample};
use watchbell_core::{BoxFuture, Millis, Time};

/// Newest calls that are kept.
const RING: usize = 512;

/// What a node knows of its store's speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreView {
    /// By how much the node slows down for it.
    pub pressure: Pressure,
    /// How long 95 of 100 of its newest calls took at most.
    pub p95: Option<Duration>,
    /// Calls that are not answered yet: claims, publications, renewals, records.
    pub under_way: usize,
}

/// Measures calls.
pub(crate) struct Gauge {
    store: Arc<dyn Store>,
    clock: Clock,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// When each call that has not been answered began.
    under_way: BTreeMap<u64, Time>,
    next: u64,
    /// By the node's clock, which decides: calls that no look has judged yet.
    fresh: VecDeque<Millis>,
    /// Calls since the last look.
    new: usize,
    exhausted: bool,
    /// By the wall: for people.
    newest: VecDeque<Duration>,
    pressure: Pressure,
}

impl Gauge {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self { store, clock, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a call, and measures it; also one that is given up.
    pub(crate) async fn time<T>(&self, call: BoxFuture<'_, Result<T>>) -> Result<T> {
        let mut measured = self.begin();
        let answer = call.await;
        if let Err(error) = &answer {
            measured.exhausted = self.store.is_exhausted(error);
        }
        answer
    }

    fn begin(&self) -> Call<'_> {
        let mut inner = self.inner();
        let id = inner.next;
        inner.next += 1;
        inner.under_way.insert(id, self.clock.now());
        Call { gauge: self, id, watch: Stopwatch::start(), exhausted: false }
    }

    /// Time that passed on the wall between two instants of the node's clock.
    fn real(&self, from: Time, to: Time) -> Millis {
        let span = to.since(from).max(Millis::ZERO);
        Millis((span.0 as f64 / self.clock.speed()) as i64)
    }

    /// Whether a look would find anything.
    pub(crate) fn is_still(&self) -> bool {
        let inner = self.inner();
        inner.fresh.is_empty() && inner.under_way.is_empty() && !inner.exhausted
    }

    /// A look: the calls since the last one that had enough of them. A call that has waited too
    /// long already counts like one that took as long.
    pub(crate) fn look(&self) -> Sample {
        let now = self.clock.now();
        let mut inner = self.inner();
        let new = std::mem::take(&mut inner.new);
        let exhausted = std::mem::take(&mut inner.exhausted);
        let waiting = inner.under_way.values().map(|began| self.real(*began, now));
        let waiting: Vec<Millis> = waiting.filter(|age| *age > SLOW).collect();
        if new == 0 && waiting.is_empty() {
            inner.fresh.clear(); // too old to be judged together with what may come
        }
        let mut all: Vec<Millis> = inner.fresh.iter().copied().chain(waiting).collect();
        let calls = u32::try_from(all.len()).unwrap_or(u32::MAX);
        if calls >= ENOUGH {
            inner.fresh.clear();
        }
        Sample { calls, p95: p95(&mut all).unwrap_or_default(), exhausted }
    }

    /// Notes what came of a look.
    pub(crate) fn set(&self, pressure: Pressure) {
        self.inner().pressure = pressure;
    }

    pub(crate) fn view(&self) -> StoreView {
        let inner = self.inner();
        let mut newest: Vec<Duration> = inner.newest.iter().copied().collect();
        let under_way = inner.under_way.len();
        StoreView { pressure: inner.pressure, p95: p95(&mut newest), under_way }
    }
}

/// The smallest value that 95 of 100 do not exceed.
fn p95<T: Ord + Copy>(values: &mut [T]) -> Option<T> {
    let place = (values.len() * 95).div_ceil(100).checked_sub(1)?;
    Some(*values.select_nth_unstable(place).1)
}

/// A call under way.
struct Call<'a> {
    gauge: &'a Gauge,
    id: u64,
    watch: Stopwatch,
    exhausted: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let now = self.gauge.clock.now();
        let mut inner = self.gauge.inner();
        let began = inner.under_way.remove(&self.id).unwrap_or(now);
        let took = self.gauge.real(began, now);
        push(&mut inner.fresh, took);
        push(&mut inner.newest, self.watch.elapsed());
        inner.new += 1;
        inner.exhausted |= self.exhausted;
    }
}

fn push<T>(ring: &mut VecDeque<T>, value: T) {
    if ring.len() == RING {
        ring.pop_front();
    }
    ring.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_is_the_nearest_rank() {
        assert_eq!(p95::<i64>(&mut []), None);
        assert_eq!(p95(&mut [7]), Some(7));
        assert_eq!(p95(&mut [3, 1, 2]), Some(3));
        let mut hundred: Vec<i64> = (1..=100).rev().collect();
        assert_eq!(p95(&mut hundred), Some(95));
        let mut twenty: Vec<i64> = (1..=20).collect();
        assert_eq!(p95(&mut twenty), Some(19));
    }
}
