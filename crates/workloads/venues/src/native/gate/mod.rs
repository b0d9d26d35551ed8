//! What every request to an exchange passes: the budget, the circuit breaker, a pause that the
//! exchange asked for, and the token bucket. One gate per exchange, shared by all clones of a client,
//! for the exchange counts by address.
//!
//! All of it is decided by pure state machines to which the instant is a parameter; the gate adds the
//! clock, a lock, and the waiting. An order that matters: who is refused is refused before it waits in
//! the bucket, and again after it, for much may happen in between.

mod breaker;
mod bucket;
mod budget;
mod health;

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use watchbell_clock::Clock;
use watchbell_core::{Millis, Time};

pub use breaker::BreakerState;
use breaker::{Breaker, Limits, Ticket};
pub(super) use bucket::Bucket;
use budget::Budget;
pub use budget::{BudgetStatus, BudgetUse, Spent};
pub(super) use health::Outcome;
pub use health::Verdict;
use health::Window;

use super::config::NativeConfig;
use super::venue::Venue;
use crate::binance::{Config, Limiter, Priority, Shares, WeightPermit};

/// Nobody waits longer for a pause to end: it fails, and its caller decides.
pub(super) const LONGEST_WAIT: Millis = Millis::from_secs(30);

/// How an exchange is doing, and what it may still be asked: what `explain.json` and the header tell.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct VenueHealth {
    /// Which exchange.
    pub venue: Venue,
    /// Whether requests go.
    pub breaker: BreakerState,
    /// Requests of the last 15 minutes.
    pub requests: usize,
    /// Share of them, 0 to 1, that had no usable answer; `None` without requests.
    pub error_ratio: Option<f64>,
    /// Latency that half of them kept.
    pub p50_ms: Option<Millis>,
    /// Latency that 99 % of them kept.
    pub p99_ms: Option<Millis>,
    /// What to do about it.
    pub verdict: Verdict,
    /// Requests of this day and month.
    pub budget: BudgetUse,
}

/// Why a request was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// The breaker is open, until then; `None` while another request tries.
    CircuitOpen { until: Option<Time> },
    /// The budget is used up.
    BudgetSpent { window: &'static str, limit: u64, until: Time },
    /// The exchange wants no requests for a while.
    Paused(Pause),
}

/// A pause that the exchange asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pause {
    pub(super) until: Time,
    /// It has banned the address: nobody waits for that.
    pub(super) banned: bool,
}

/// Everything that is decided, without clock or lock.
#[derive(Debug)]
struct Core {
    bucket: Bucket,
    breaker: Breaker,
    budget: Budget,
    window: Window,
    pause: Option<Pause>,
}

impl Core {
    /// Whether a request could go at `now`, or from when on.
    fn check(&mut self, now: Time) -> Result<Time, Held> {
        self.budget.check(now).map_err(|e| Held::BudgetSpent {
            window: e.window,
            limit: e.limit,
            until: e.until,
        })?;
        self.breaker.check(now).map_err(|barred| Held::CircuitOpen { until: barred.until })?;
        match self.pause.filter(|p| p.until > now) {
            Some(pause) if pause.banned || pause.until - now > LONGEST_WAIT => {
                Err(Held::Paused(pause))
            }
            Some(pause) => Ok(pause.until),
            None => Ok(now),
        }
    }

    /// A longer pause counts, and a ban is not replaced by less.
    fn pause(&mut self, now: Time, pause: Pause) {
        let keep = self.pause.filter(|p| p.until > now).is_some_and(|old| {
            (old.banned && !pause.banned)
                || (old.banned == pause.banned && old.until >= pause.until)
        });
        if !keep {
            self.pause = Some(pause);
        }
    }
}

/// The gate of one exchange.
#[derive(Debug)]
pub(super) struct Gate {
    venue: Venue,
    clock: Clock,
    core: Mutex<Core>,
    /// Where the exchange counts weights instead of requests.
    weights: Option<Limiter>,
}

/// The right to send one request. Dropped without an outcome, it says nothing about the exchange.
#[must_use = "what comes of the request must be settled"]
pub(super) struct Permit<'a> {
    gate: &'a Gate,
    ticket: Option<Ticket>,
}

impl Permit<'_> {
    /// What came of the request.
    pub(super) fn settle(mut self, outcome: Outcome, latency: Option<Millis>) {
        let Some(ticket) = self.ticket.take() else { return };
        let venue = self.gate.venue;
        let now = self.gate.clock.now();
        let mut core = self.gate.lock();
        core.window.note(now, outcome, latency);
        let entered = match outcome {
            Outcome::Answered | Outcome::Refused => core.breaker.settle(now, ticket, true),
            Outcome::Failed => core.breaker.settle(now, ticket, false),
            Outcome::Limited => {
                core.breaker.abandon(ticket);
                None
            }
        };
        match entered {
            Some(BreakerState::Open) => {
                let until = core.breaker.check(now).err().and_then(|barred| barred.until);
                let until = until.unwrap_or(now);
                tracing::warn!(%venue, %until, "circuit breaker open, no requests");
            }
            Some(BreakerState::Closed) => {
                tracing::info!(%venue, "circuit breaker closed, requests go again");
            }
            Some(BreakerState::HalfOpen) | None => {}
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.gate.lock().breaker.abandon(ticket);
        }
    }
}

impl Gate {
    pub(super) fn new(venue: Venue, config: &NativeConfig, clock: Clock) -> Self {
        let limits = Limits {
            ratio: config.failure_ratio,
            window: config.window,
            consecutive: config.consecutive,
            probe: config.probe,
        };
        let core = Core {
            bucket: Bucket::new(config.rate_per_second, config.burst),
            breaker: Breaker::new(limits),
            budget: Budget::new(config.daily_budget, config.monthly_budget),
            window: Window::default(),
            pause: None,
        };
        let weights = (venue == Venue::Binance).then(|| {
            let binance = Config::default();
            let (live, backfill) = (binance.weight_limit_fraction, binance.backfill_limit_fraction);
            Limiter::new(clock.clone(), binance.weight_limit, Shares { live, backfill })
        });
        Self { venue, clock, core: Mutex::new(core), weights }
    }

    /// Waits until a request may go. `slow` is a bucket in front of the exchange's own, `weight` what
    /// the request costs where that is counted.
    pub(super) async fn admit(
        &self,
        slow: Option<&Mutex<Bucket>>,
        weight: i64,
    ) -> Result<(Permit<'_>, Weight), Held> {
        self.lock().check(self.clock.now())?;
        if let Some(slow) = slow {
            let slot = lock(slow).take(self.clock.now());
            self.clock.sleep_until(slot).await;
        }
        let slot = self.lock().bucket.take(self.clock.now());
        self.clock.sleep_until(slot).await;
        let weight = match &self.weights {
            // Nobody stops this limiter: bans and pauses are kept here.
            Some(limiter) => Weight(limiter.acquire(weight, Priority::Live).await.ok()),
            None => Weight(None),
        };
        loop {
            let ready = {
                let mut core = self.lock();
                let now = self.clock.now();
                let ready = core.check(now)?;
                if ready <= now {
                    let ticket = core
                        .breaker
                        .admit(now)
                        .map_err(|barred| Held::CircuitOpen { until: barred.until })?;
                    if let Some(status) = core.budget.spend(now) {
                        let used = core.budget.usage(now);
                        tracing::warn!(
                            venue = %self.venue, ?status, today = used.used_today,
                            of = used.daily_limit, this_month = used.used_this_month,
                            of_the_month = used.monthly_limit, "request budget nearly or all used",
                        );
                    }
                    return Ok((Permit { gate: self, ticket: Some(ticket) }, weight));
                }
                ready
            };
            self.clock.sleep_until(ready).await;
        }
    }

    /// The exchange wants no requests before `until`.
    pub(super) fn pause(&self, pause: Pause) {
        let now = self.clock.now();
        self.lock().pause(now, pause);
        if pause.banned {
            tracing::error!(venue = %self.venue, until = %pause.until, "this address is banned");
        } else {
            tracing::warn!(venue = %self.venue, until = %pause.until, "too many requests, pausing");
        }
    }

    pub(super) fn health(&self) -> VenueHealth {
        let now = self.clock.now();
        let mut core = self.lock();
        let s = core.window.summary(now);
        let breaker = core.breaker.state(now);
        let stopped = breaker == BreakerState::Open
            || core.pause.is_some_and(|p| p.banned && p.until > now)
            || core.budget.check(now).is_err();
        VenueHealth {
            venue: self.venue,
            breaker,
            requests: s.requests,
            error_ratio: s.error_ratio,
            p50_ms: s.p50,
            p99_ms: s.p99,
            verdict: if stopped { Verdict::Unhealthy } else { s.verdict },
            budget: core.budget.usage(now),
        }
    }

    pub(super) fn spent(&self) -> Spent {
        let now = self.clock.now();
        let mut core = self.lock();
        let banned_until = core.pause.filter(|p| p.banned && p.until > now).map(|p| p.until);
        Spent { banned_until, ..core.budget.spent(now) }
    }

    pub(super) fn restore(&self, spent: Spent) {
        let now = self.clock.now();
        self.lock().budget.restore(now, spent);
        if let Some(until) = spent.banned_until.filter(|until| *until > now) {
            self.pause(Pause { until, banned: true });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }
}

/// The weight that a request holds until the exchange has told what it counted.
#[must_use = "the weight stays reserved until the answer is settled"]
pub(super) struct Weight(Option<WeightPermit>);

impl Weight {
    /// The exchange's own count, if its answer carries one.
    pub(super) fn settle(self, header: Option<i64>) {
        if let Some(permit) = self.0 {
            permit.settle(header);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
