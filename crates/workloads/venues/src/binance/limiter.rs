//! The request budget: how much of the venue's weight per minute we may still use, and whether the
//! venue has told us to stop.
//!
//! The venue counts weight per address in fixed clock minutes of its own time and says in a header
//! how much it has counted. That header is the truth; between two answers the weights of the requests
//! under way are added to it. The budget is a share of the venue's limit (80 %), and backfill may use
//! a smaller one (60 %), so that live work always finds room.
//!
//! A full budget makes callers wait for the next minute. A refusal of the venue (429, 418) makes them
//! fail at once, with the instant at which to come back: such a wait may be long, and belongs to the
//! job's schedule, where an operator sees it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use watchbell_clock::Clock;
use watchbell_core::{Millis, Time};

const WINDOW: Millis = Millis::from_mins(1);

/// Whose request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// Work that someone waits for: the newest candle, the present book.
    #[default]
    Live,
    /// History: as much as live work leaves.
    Backfill,
}

/// Why the venue gets no request now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It answered 429.
    RateLimited {
        /// When to go on, by our clock.
        until: Time,
    },
    /// It answered 418.
    Banned {
        /// When the ban ends, by our clock.
        until: Time,
    },
}

/// Shares of the venue's limit, between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    /// What all requests together may use.
    pub live: f64,
    /// What may have been used when a backfill request is sent.
    pub backfill: f64,
}

/// What to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Go,
    /// Until the start of the venue's next minute, in the venue's time.
    Wait(Time),
}

/// The state, without clock or lock: all instants are parameters. `now` is the venue's time.
#[derive(Debug)]
struct Budget {
    limit: i64,
    shares: Shares,
    /// Start of the minute that `counted` belongs to.
    window: Time,
    /// What the venue has counted in this minute, as far as we know.
    counted: i64,
    /// Weights of the requests under way.
    in_flight: i64,
}

impl Budget {
    fn roll(&mut self, now: Time) {
        let window = now.floor(WINDOW);
        // A clock that is corrected backwards must not empty the budget a second time.
        if window > self.window {
            self.window = window;
            self.counted = 0;
        }
    }

    fn allowance(&self, priority: Priority) -> i64 {
        let share = match priority {
            Priority::Live => self.shares.live,
            Priority::Backfill => self.shares.backfill.min(self.shares.live),
        };
        (self.limit as f64 * share) as i64
    }

    fn reserve(&mut self, now: Time, weight: i64, priority: Priority) -> Decision {
        self.roll(now);
        let forecast = self.counted + self.in_flight;
        // A request heavier than the whole budget goes out alone rather than never.
        if forecast + weight <= self.allowance(priority) || forecast == 0 {
            self.in_flight += weight;
            Decision::Go
        } else {
            Decision::Wait(self.window.max(now.floor(WINDOW)) + WINDOW)
        }
    }

    /// An answer came, or will never come (`header` is `None`): the request of `weight` that was
    /// sent in the minute `sent_in` is counted.
    fn settle(&mut self, now: Time, sent_in: Time, weight: i64, header: Option<i64>) {
        self.roll(now);
        self.in_flight -= weight;
        match header {
            // Answers overtake each other, and the count only grows within a minute.
            Some(used) if sent_in == self.window => self.counted = self.counted.max(used),
            // Sent in one minute and answered in the next: the number may be of either, so only our
            // own weight is added. The next answer brings the truth.
            _ => self.counted += weight,
        }
    }
}

#[derive(Debug)]
struct State {
    budget: Budget,
    stop: Option<Stop>,
    /// Venue time minus our time.
    skew: Millis,
}

/// The budget of one address at one venue. Clones share it.
#[derive(Debug, Clone)]
pub struct Limiter {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

/// The right to send one request. Dropped without an answer, it counts as sent.
#[must_use = "the weight stays reserved until the answer is settled"]
pub(crate) struct Permit {
    limiter: Limiter,
    weight: i64,
    sent_in: Time,
    header: Option<i64>,
}

impl Permit {
    /// The venue's count from the answer, if it carries one.
    pub(crate) fn settle(mut self, header: Option<i64>) {
        self.header = header;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut s = self.limiter.lock();
        let now = self.limiter.clock.now() + s.skew;
        s.budget.settle(now, self.sent_in, self.weight, self.header);
    }
}

impl Limiter {
    pub(crate) fn new(clock: Clock, limit: i64, shares: Shares) -> Self {
        let window = Time(i64::MIN / 4);
        let budget = Budget { limit, shares, window, counted: 0, in_flight: 0 };
        let state = State { budget, stop: None, skew: Millis::ZERO };
        Self { state: Arc::new(Mutex::new(state)), clock }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `weight` fits in the budget.
    ///
    /// # Errors
    /// [`Stop`] when the venue wants no request at all now.
    pub(crate) async fn acquire(&self, weight: i64, priority: Priority) -> Result<Permit, Stop> {
        loop {
            let wake = {
                let mut s = self.lock();
                let now = self.clock.now();
                if let Some(stop) = s.stop_at(now) {
                    return Err(stop);
                }
                let skew = s.skew;
                match s.budget.reserve(now + skew, weight, priority) {
                    Decision::Go => {
                        let (limiter, sent_in) = (self.clone(), s.budget.window);
                        return Ok(Permit { limiter, weight, sent_in, header: None });
                    }
                    Decision::Wait(until) => until - skew,
                }
            };
            tracing::debug!(weight, ?priority, until = %wake, "request budget used up, waiting");
            self.clock.sleep_until(wake).await;
        }
    }

    /// The venue's limit has become known.
    pub(crate) fn set_limit(&self, limit: i64) {
        self.lock().budget.limit = limit;
    }

    /// Venue time minus our time has become known.
    pub(crate) fn set_skew(&self, skew: Millis) {
        self.lock().skew = skew;
    }

    /// No request before `stop` ends. An earlier end never replaces a later one, and a ban is never
    /// replaced by a mere limit.
    pub(crate) fn stop(&self, stop: Stop) {
        let mut s = self.lock();
        let current = s.stop_at(self.clock.now());
        let keep = match (current, stop) {
            (Some(Stop::Banned { .. }), Stop::RateLimited { .. }) => true,
            (Some(Stop::RateLimited { .. }), Stop::Banned { .. }) | (None, _) => false,
            (Some(old), new) => old.until() >= new.until(),
        };
        if !keep {
            s.stop = Some(stop);
        }
    }

    /// The weight that requests of this priority may use in a minute.
    #[must_use]
    pub fn allowance(&self, priority: Priority) -> i64 {
        self.lock().budget.allowance(priority)
    }

    /// Why no request may be sent now, if so.
    pub(crate) fn stopped(&self) -> Option<Stop> {
        let now = self.clock.now();
        self.lock().stop_at(now)
    }

    /// The weight that the venue has counted in the present minute (as far as we know), with the
    /// requests under way, and the venue's limit.
    #[must_use]
    pub fn used(&self) -> (i64, i64) {
        let mut s = self.lock();
        let now = self.clock.now() + s.skew;
        s.budget.roll(now);
        (s.budget.counted + s.budget.in_flight, s.budget.limit)
    }
}

impl State {
    fn stop_at(&mut self, now: Time) -> Option<Stop> {
        if self.stop.is_some_and(|s| s.until() <= now) {
            self.stop = None;
        }
        self.stop
    }
}

impl Stop {
    /// When requests are allowed again, by our clock.
    #[must_use]
    pub const fn until(self) -> Time {
        match self {
            Self::RateLimited { until } | Self::Banned { until } => until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        Budget {
            limit: 100,
            shares: Shares { live: 0.8, backfill: 0.6 },
            window: Time(0),
            counted: 0,
            in_flight: 0,
        }
    }

    #[test]
    fn live_may_use_eighty_percent_and_backfill_sixty() {
        let mut b = budget();
        let next = Decision::Wait(Time(60_000));
        for _ in 0..12 {
            assert_eq!(b.reserve(Time(1), 5, Priority::Backfill), Decision::Go);
        }
        assert_eq!(b.reserve(Time(2), 5, Priority::Backfill), next);
        for _ in 0..4 {
            assert_eq!(b.reserve(Time(3), 5, Priority::Live), Decision::Go);
        }
        assert_eq!(b.reserve(Time(4), 1, Priority::Live), next);
        // All answered: the venue counted more than we sent, for others share the address.
        for i in 0..16 {
            b.settle(Time(5), Time(0), 5, Some(5 * (i + 1) + 7));
        }
        assert_eq!((b.counted, b.in_flight), (87, 0));
        assert_eq!(b.reserve(Time(59_999), 1, Priority::Live), next);
        assert_eq!(b.reserve(Time(60_000), 1, Priority::Backfill), Decision::Go);
    }

    #[test]
    fn the_header_is_the_truth_and_answers_may_overtake() {
        let mut b = budget();
        for _ in 0..3 {
            assert_eq!(b.reserve(Time(0), 2, Priority::Live), Decision::Go);
        }
        b.settle(Time(1), Time(0), 2, Some(6));
        b.settle(Time(2), Time(0), 2, Some(2));
        assert_eq!((b.counted, b.in_flight), (6, 2));
        b.settle(Time(3), Time(0), 2, None);
        assert_eq!(b.counted, 8);
    }

    #[test]
    fn an_answer_across_the_minute_counts_only_itself() {
        let mut b = budget();
        assert_eq!(b.reserve(Time(59_900), 2, Priority::Live), Decision::Go);
        b.settle(Time(60_100), Time(0), 2, Some(79));
        assert_eq!((b.counted, b.window), (2, Time(60_000)));
    }

    #[test]
    fn a_clock_set_back_does_not_renew_the_budget() {
        let mut b = budget();
        assert_eq!(b.reserve(Time(60_000), 80, Priority::Live), Decision::Go);
        assert_eq!(b.reserve(Time(59_000), 1, Priority::Live), Decision::Wait(Time(120_000)));
    }

    #[test]
    fn a_request_heavier_than_the_budget_goes_alone() {
        let mut b = budget();
        assert_eq!(b.reserve(Time(0), 250, Priority::Live), Decision::Go);
        assert_eq!(b.reserve(Time(0), 1, Priority::Live), Decision::Wait(Time(60_000)));
    }

    #[test]
    fn a_ban_outlasts_a_limit() {
        let clock = Clock::manual(Time(0));
        let l = Limiter::new(clock.clone(), 100, Shares { live: 0.8, backfill: 0.6 });
        let ban = Stop::Banned { until: Time(120_000) };
        l.stop(ban);
        l.stop(Stop::RateLimited { until: Time(500_000) });
        l.stop(Stop::Banned { until: Time(60_000) });
        assert_eq!(l.stopped(), Some(ban));
        clock.advance(Time(119_999));
        assert_eq!(l.stopped(), Some(ban));
        clock.advance(Time(120_000));
        assert_eq!(l.stopped(), None);
    }

    #[tokio::test]
    async fn a_full_budget_waits_for_the_venues_next_minute() {
        let clock = Clock::manual(Time(10_000));
        let l = Limiter::new(clock.clone(), 10, Shares { live: 0.8, backfill: 0.6 });
        l.set_skew(Millis(2_000));
        l.acquire(8, Priority::Live).await.unwrap().settle(Some(8));
        let waiting = {
            let l = l.clone();
            tokio::spawn(async move { l.acquire(2, Priority::Live).await.map(drop) })
        };
        // The venue's minute ends two seconds before ours.
        assert_eq!(clock.next_timer(Time(10_000)).await, Time(58_000));
        assert!(!waiting.is_finished());
        clock.advance(Time(58_000));
        waiting.await.unwrap().unwrap();
        assert_eq!(l.used(), (2, 10));
    }

    proptest::proptest! {
        #[test]
        fn our_own_weight_never_passes_the_share(
            steps in proptest::collection::vec((0_i64..3_000, 1_i64..20, proptest::bool::ANY), 1..300)
        ) {
            let mut b = budget();
            let (mut now, mut spent, mut window) = (Time(0), 0, Time(0));
            for (pause, weight, live) in steps {
                now += Millis(pause);
                if now.floor(WINDOW) > window {
                    (window, spent) = (now.floor(WINDOW), 0);
                }
                let priority = if live { Priority::Live } else { Priority::Backfill };
                if b.reserve(now, weight, priority) == Decision::Go {
                    spent += weight;
                    let share = if live { 80 } else { 60 };
                    proptest::prop_assert!(spent <= share);
                    b.settle(now, window, weight, Some(spent));
                }
            }
        }
    }
}
