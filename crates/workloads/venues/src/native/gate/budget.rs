//! The budget: how many requests an exchange gets in a day and in a month, by UTC.

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use watchbell_core::{Millis, Time};

/// Share of a limit from which on it is nearly used up.
const WARNING: f64 = 0.8;

/// What has been used, to be kept over a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Spent {
    /// Start of the day that `today` counts.
    pub day: Time,
    /// Requests of that day.
    pub today: u64,
    /// Start of the month that `this_month` counts.
    pub month: Time,
    /// Requests of that month.
    pub this_month: u64,
    /// Until when the exchange has banned this address, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub banned_until: Option<Time>,
}

/// How much of the budget is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BudgetStatus {
    /// Enough.
    Active,
    /// Four fifths of a limit are used.
    Warning,
    /// A limit is reached: no request goes before its window ends.
    LimitReached,
}

/// The budget and its use, for status pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetUse {
    /// Requests of this UTC day.
    pub used_today: u64,
    /// How many it may have.
    pub daily_limit: u64,
    /// Requests of this UTC month.
    pub used_this_month: u64,
    /// How many it may have.
    pub monthly_limit: u64,
    /// How much is left.
    pub status: BudgetStatus,
}

/// Nothing is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exhausted {
    /// `daily` or `monthly`.
    pub(crate) window: &'static str,
    pub(crate) limit: u64,
    /// When the next window begins.
    pub(crate) until: Time,
}

/// The budget of one exchange.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    daily: u64,
    monthly: u64,
    spent: Spent,
}

impl Budget {
    pub(crate) fn new(daily: u64, monthly: u64) -> Self {
        Self { daily, monthly, spent: Spent { day: FIRST, month: FIRST, ..Spent::default() } }
    }

    /// Whether a request may go at `now`.
    pub(crate) fn check(&mut self, now: Time) -> Result<(), Exhausted> {
        self.roll(now);
        let s = &self.spent;
        if s.today >= self.daily {
            let until = s.day + DAY;
            return Err(Exhausted { window: "daily", limit: self.daily, until });
        }
        if s.this_month >= self.monthly {
            let until = next_month(s.month);
            return Err(Exhausted { window: "monthly", limit: self.monthly, until });
        }
        Ok(())
    }

    /// Counts a request. Returns the status that it has just led to, if that is another.
    pub(crate) fn spend(&mut self, now: Time) -> Option<BudgetStatus> {
        self.roll(now);
        let before = self.status();
        self.spent.today += 1;
        self.spent.this_month += 1;
        let after = self.status();
        (after != before).then_some(after)
    }

    /// What has been used until `now`.
    pub(crate) fn spent(&mut self, now: Time) -> Spent {
        self.roll(now);
        self.spent
    }

    /// Takes a stored count over. The larger one counts: to restore twice changes nothing.
    pub(crate) fn restore(&mut self, now: Time, stored: Spent) {
        self.roll(now);
        let s = &mut self.spent;
        if stored.day == s.day {
            s.today = s.today.max(stored.today);
        }
        if stored.month == s.month {
            s.this_month = s.this_month.max(stored.this_month);
        }
    }

    pub(crate) fn usage(&mut self, now: Time) -> BudgetUse {
        self.roll(now);
        BudgetUse {
            used_today: self.spent.today,
            daily_limit: self.daily,
            used_this_month: self.spent.this_month,
            monthly_limit: self.monthly,
            status: self.status(),
        }
    }

    fn status(&self) -> BudgetStatus {
        let share = |used: u64, limit: u64| match limit {
            0 => 1.0,
            limit => used as f64 / limit as f64,
        };
        let s = &self.spent;
        let most = share(s.today, self.daily).max(share(s.this_month, self.monthly));
        match most {
            m if m >= 1.0 => BudgetStatus::LimitReached,
            m if m >= WARNING => BudgetStatus::Warning,
            _ => BudgetStatus::Active,
        }
    }

    /// A clock that is set back does not give a budget twice: windows only move on.
    fn roll(&mut self, now: Time) {
        let (day, month) = (now.floor(DAY), month_of(now));
        if day > self.spent.day {
            self.spent.day = day;
            self.spent.today = 0;
        }
        if month > self.spent.month {
            self.spent.month = month;
            self.spent.this_month = 0;
        }
    }
}

const DAY: Millis = Millis::from_days(1);
/// Before every window.
const FIRST: Time = Time(i64::MIN / 4);

/// The first instant of the UTC month. Outside the calendar that is the day itself.
fn month_of(at: Time) -> Time {
    jiff::Timestamp::from_millisecond(at.0)
        .and_then(|t| t.to_zoned(TimeZone::UTC).date().first_of_month().to_zoned(TimeZone::UTC))
        .map_or(at.floor(DAY), |month| Time(month.timestamp().as_millisecond()))
}

fn next_month(month: Time) -> Time {
    // No month has more days, and the next one has more than four.
    month_of(month + Millis::from_days(32))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Time {
        Time::parse(text).unwrap()
    }

    #[test]
    fn months_are_by_utc() {
        for (now, month, next) in [
            ("2026-11-22T13:00:00Z", "2026-11-01", "2026-12-01"),
            ("2024-02-29T23:59:59.999Z", "2024-02-01", "2024-03-01"),
            ("2026-12-31T23:59:59Z", "2026-12-01", "2027-01-01"),
            ("2027-01-01T00:00:00Z", "2027-01-01", "2027-02-01"),
        ] {
            assert_eq!((month_of(at(now)), next_month(month_of(at(now)))), (at(month), at(next)));
        }
    }

    #[test]
    fn it_warns_at_four_fifths_and_stops_at_the_limit() {
        let noon = at("2026-11-22T12:00:00Z");
        let mut b = Budget::new(10, 1_000);
        let mut changes = Vec::new();
        for n in 1..=10 {
            assert_eq!(b.check(noon), Ok(()));
            changes.extend(b.spend(noon).map(|status| (n, status)));
        }
        assert_eq!(changes, [(8, BudgetStatus::Warning), (10, BudgetStatus::LimitReached)]);
        let until = at("2026-11-23");
        assert_eq!(b.check(noon), Err(Exhausted { window: "daily", limit: 10, until }));
        assert_eq!(b.usage(noon).status, BudgetStatus::LimitReached);
        assert_eq!(b.check(until), Ok(()), "a new day");
        assert_eq!((b.usage(until).used_today, b.usage(until).used_this_month), (0, 10));
    }

    #[test]
    fn a_month_ends_a_budget_too() {
        let mut b = Budget::new(5, 6);
        let last = at("2026-11-30T23:00:00Z");
        for day in [at("2026-11-29"), last] {
            for _ in 0..3 {
                assert_eq!(b.check(day), Ok(()));
                b.spend(day);
            }
        }
        let until = at("2026-12-01");
        assert_eq!(b.check(last), Err(Exhausted { window: "monthly", limit: 6, until }));
        assert_eq!(b.check(until), Ok(()));
    }

    #[test]
    fn a_clock_that_is_set_back_gives_nothing_twice() {
        let mut b = Budget::new(1, 100);
        b.spend(at("2026-11-22"));
        assert!(b.check(at("2026-11-21T23:00:00Z")).is_err());
        assert!(Budget::new(0, 100).check(at("2026-11-22")).is_err());
    }

    proptest! {
        #[test]
        fn a_restart_loses_nothing(
            days in proptest::collection::vec((0_i64..40, 0_u64..30), 1..20), cut in 0_usize..20,
        ) {
            let (mut whole, mut first) = (Budget::new(1_000, 10_000), Budget::new(1_000, 10_000));
            let mut now = at("2026-01-01");
            for (i, (pause, requests)) in days.into_iter().enumerate() {
                now += Millis::from_hours(pause);
                if i == cut {
                    let spent = first.spent(now);
                    first = Budget::new(1_000, 10_000);
                    for _ in 0..2 {
                        first.restore(now, spent);
                    }
                }
                for _ in 0..requests {
                    whole.spend(now);
                    first.spend(now);
                }
                prop_assert_eq!(whole.spent(now), first.spent(now));
                prop_assert!(first.spent(now).today <= first.spent(now).this_month);
            }
        }
    }
}
