//! What a cron expression matches on the wall clock, and how it is read.

use croner::CronPattern;
use croner::parser::CronParser;
use jiff::Timestamp;
use jiff::tz::Offset;

use super::CronError;

/// Seconds of a day on the wall clock.
pub(super) const DAY: i64 = 86_400;

/// What an expression matches on the wall clock. A wall time is written as the number of seconds
/// that would have passed since the epoch if the clock had always shown it in UTC.
pub(super) struct Wall {
    seconds: u64,
    minutes: u64,
    hours: u64,
    /// Months and days, with the calendar rules for `L`, `W` and `#`.
    days: CronPattern,
    /// Whether months and days are unrestricted.
    pub(super) daily: bool,
    /// Whether it names fixed times.
    pub(super) fixed: bool,
}

impl Wall {
    fn day_matches(&self, day: i64) -> bool {
        if self.daily {
            return true;
        }
        let Ok(noon) = Timestamp::from_second(day * DAY + DAY / 2) else { return false };
        let date = Offset::UTC.to_datetime(noon).date();
        // jiff's calendar gives valid parts, for which croner has no error.
        let month = date.month().unsigned_abs().into();
        let weekday = croner::Weekday::from_days_from_sunday(
            date.weekday().to_sunday_zero_offset().unsigned_abs().into(),
        );
        self.days.month_match(month).unwrap_or(false)
            && self
                .days
                .day_match(date.year().into(), month, date.day().unsigned_abs().into(), weekday)
                .unwrap_or(false)
    }

    pub(super) fn matches(&self, wall: i64) -> bool {
        self.next(wall, wall + 1).is_some()
    }

    /// The first match in `[from, until)`.
    pub(super) fn next(&self, from: i64, until: i64) -> Option<i64> {
        let (mut day, mut tod) = (from.div_euclid(DAY), from.rem_euclid(DAY));
        while day * DAY < until {
            if self.day_matches(day)
                && let Some(t) = self.time_from(tod)
            {
                return Some(day * DAY + t).filter(|w| *w < until);
            }
            (day, tod) = (day + 1, 0);
        }
        None
    }

    /// The last match in `[from, to]`.
    pub(super) fn last(&self, to: i64, from: i64) -> Option<i64> {
        let (mut day, mut tod) = (to.div_euclid(DAY), to.rem_euclid(DAY));
        while (day + 1) * DAY > from {
            if self.day_matches(day)
                && let Some(t) = self.time_until(tod)
            {
                return Some(day * DAY + t).filter(|w| *w >= from);
            }
            (day, tod) = (day - 1, DAY - 1);
        }
        None
    }

    /// How many matches lie in `[from, to]`.
    pub(super) fn count(&self, from: i64, to: i64) -> u64 {
        let (first_day, last_day) = (from.div_euclid(DAY), to.div_euclid(DAY));
        let whole = self.times_before(DAY);
        let head = self.times_before(from.rem_euclid(DAY));
        let tail = whole - self.times_before(to.rem_euclid(DAY) + 1);
        let days = if self.daily {
            (last_day - first_day + 1).unsigned_abs()
        } else {
            (first_day..=last_day).filter(|d| self.day_matches(*d)).count() as u64
        };
        days * whole
            - if self.day_matches(first_day) { head } else { 0 }
            - if self.day_matches(last_day) { tail } else { 0 }
    }

    /// The first matching time of day (in seconds) at or after `tod`.
    fn time_from(&self, tod: i64) -> Option<i64> {
        let (h, m, s) = parts(tod);
        if bit(self.hours, h) {
            if bit(self.minutes, m)
                && let Some(s) = bit_from(self.seconds, s)
            {
                return Some(time(h, m, s));
            }
            if let Some(m) = bit_from(self.minutes, m + 1) {
                return Some(time(h, m, bit_from(self.seconds, 0)?));
            }
        }
        let h = bit_from(self.hours, h + 1)?;
        Some(time(h, bit_from(self.minutes, 0)?, bit_from(self.seconds, 0)?))
    }

    /// The last matching time of day at or before `tod`.
    fn time_until(&self, tod: i64) -> Option<i64> {
        let (h, m, s) = parts(tod);
        if bit(self.hours, h) {
            if bit(self.minutes, m)
                && let Some(s) = bit_below(self.seconds, s + 1)
            {
                return Some(time(h, m, s));
            }
            if let Some(m) = bit_below(self.minutes, m) {
                return Some(time(h, m, bit_below(self.seconds, 60)?));
            }
        }
        let h = bit_below(self.hours, h)?;
        Some(time(h, bit_below(self.minutes, 60)?, bit_below(self.seconds, 60)?))
    }

    /// How many matching times of day lie before `tod`, which may be a whole [`DAY`].
    fn times_before(&self, tod: i64) -> u64 {
        let (h, m, s) = parts(tod);
        let below = |set: u64, n: u32| u64::from((set & ((1 << n) - 1)).count_ones());
        let (per_minute, minutes) = (below(self.seconds, 60), below(self.minutes, 60));
        let mut count = below(self.hours, h) * minutes * per_minute;
        if bit(self.hours, h) {
            count += below(self.minutes, m) * per_minute;
            if bit(self.minutes, m) {
                count += below(self.seconds, s);
            }
        }
        count
    }
}

fn parts(tod: i64) -> (u32, u32, u32) {
    let tod = u32::try_from(tod).unwrap_or(0);
    (tod / 3_600, tod / 60 % 60, tod % 60)
}

fn time(h: u32, m: u32, s: u32) -> i64 {
    (h * 3_600 + m * 60 + s).into()
}

fn bit(set: u64, n: u32) -> bool {
    set >> n & 1 == 1
}

/// The lowest member at or above `n`.
fn bit_from(set: u64, n: u32) -> Option<u32> {
    let rest = set >> n;
    (rest != 0).then(|| n + rest.trailing_zeros())
}

/// The highest member below `n`.
fn bit_below(set: u64, n: u32) -> Option<u32> {
    let rest = set & ((1 << n) - 1);
    (rest != 0).then(|| 63 - rest.leading_zeros())
}

/// One field of an expression.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
    allowed: &'static str,
}

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const FIELDS: [Field; 6] = [
    Field { name: "second", min: 0, max: 59, names: &[], allowed: "0-59, *, a-b, */n, lists" },
    Field { name: "minute", min: 0, max: 59, names: &[], allowed: "0-59, *, a-b, */n, lists" },
    Field { name: "hour", min: 0, max: 23, names: &[], allowed: "0-23, *, a-b, */n, lists" },
    Field {
        name: "day of month",
        min: 1,
        max: 31,
        names: &[],
        allowed: "1-31, *, a-b, */n, L, LW, nW, lists",
    },
    Field {
        name: "month",
        min: 1,
        max: 12,
        names: &MONTHS,
        allowed: "1-12, JAN-DEC, *, a-b, */n, lists",
    },
    Field {
        name: "day of week",
        min: 0,
        max: 7,
        names: &WEEKDAYS,
        allowed: "0-7 (0 and 7 are Sunday), SUN-SAT, *, a-b, */n, nL, n#k, lists",
    },
];

impl Wall {
    /// Checks the expression part by part, so that a mistake has a column, then has it compiled.
    pub(super) fn parse(expression: &str) -> Result<Self, CronError> {
        let written = match expression.trim().to_ascii_lowercase().as_str() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            _ => expression,
        };
        let words = words(written);
        let skipped = match words.len() {
            5 => 1,
            6 => 0,
            count => {
                return Err(CronError::Count { expression: expression.trim().to_owned(), count });
            }
        };
        let mut numeric = vec!["0".to_owned(); skipped];
        for (field, (column, word)) in FIELDS.iter().skip(skipped).zip(&words) {
            numeric.push(field.numeric(word).map_err(|(at, part, problem)| CronError::Field {
                expression: expression.to_owned(),
                column: column + at,
                field: field.name,
                part,
                problem,
                allowed: field.allowed,
            })?);
        }
        let cron = CronParser::new().parse(&numeric.join(" ")).map_err(|e| CronError::Field {
            expression: expression.to_owned(),
            column: 1,
            field: "whole expression",
            part: written.trim().to_owned(),
            problem: format!("is not understood ({e})"),
            allowed: "5 or 6 cron fields",
        })?;
        let set = |c: &croner::CronComponent| c.values().iter().fold(0, |set, v| set | 1 << *v);
        let days = cron.pattern;
        Ok(Self {
            seconds: set(&days.seconds),
            minutes: set(&days.minutes),
            hours: set(&days.hours),
            daily: numeric[3..].iter().all(|f| f == "*"),
            fixed: !numeric[..3].iter().any(|f| f.contains(['*', '/'])),
            days,
        })
    }
}

/// The words of a text with their columns, counted in characters from 1.
fn words(text: &str) -> Vec<(usize, String)> {
    let mut words: Vec<(usize, String)> = Vec::new();
    let mut inside = false;
    for (i, c) in text.chars().enumerate() {
        if c.is_whitespace() {
            inside = false;
        } else if let Some((_, word)) = words.last_mut().filter(|_| inside) {
            word.push(c);
        } else {
            words.push((i + 1, c.to_string()));
            inside = true;
        }
    }
    words
}

/// Where in the field a mistake is (in characters), the bad part, and what is wrong with it.
type Mistake = (usize, String, String);

impl Field {
    /// The field with names replaced by numbers, or its first mistake.
    fn numeric(&self, word: &str) -> Result<String, Mistake> {
        let mut out = Vec::new();
        let mut at = 0;
        for item in word.split(',') {
            out.push(
                self.item(item).map_err(|(inner, part, problem)| (at + inner, part, problem))?,
            );
            at += item.chars().count() + 1;
        }
        Ok(out.join(","))
    }

    fn item(&self, item: &str) -> Result<String, Mistake> {
        let bad = |at: usize, part: &str, problem: &str| (at, part.to_owned(), problem.to_owned());
        let Some((range, step)) = item.split_once('/') else {
            return match item {
                "" => Err(bad(0, "", "is empty: a list has a value on each side of a comma")),
                "?" if self.is_day() => Ok("*".to_owned()),
                "*" => Ok(item.to_owned()),
                _ => self.special(item).unwrap_or_else(|| self.range(item)),
            };
        };
        let at = range.chars().count() + 1;
        let n: u32 = step.parse().map_err(|_| bad(at, step, "is not a step: write a number"))?;
        if n == 0 || n > self.max {
            return Err((at, step.to_owned(), format!("is not a step from 1 to {}", self.max)));
        }
        if range == "*" {
            Ok(format!("*/{n}"))
        } else if range.contains('-') {
            Ok(format!("{}/{n}", self.range(range)?))
        } else {
            let from = self.value(range, 0)?;
            let max = if self.max == 7 { 6 } else { self.max };
            Err((0, item.to_owned(), format!("has a step but no range: write {from}-{max}/{n}")))
        }
    }

    fn is_day(&self) -> bool {
        matches!(self.name, "day of month" | "day of week")
    }

    /// `L`, `LW`, `15W` of the day of month; `5L`, `5#2` of the day of week.
    fn special(&self, item: &str) -> Option<Result<String, Mistake>> {
        let upper = item.to_ascii_uppercase();
        match self.name {
            "day of month" if upper == "L" || upper == "LW" => Some(Ok(upper)),
            "day of month" => {
                let day = upper.strip_suffix('W')?;
                Some(self.value(day, 0).map(|n| format!("{n}W")))
            }
            "day of week" if upper.contains('#') => {
                let (day, nth) = upper.split_once('#')?;
                let at = day.chars().count() + 1;
                Some(self.value(day, 0).and_then(|n| match nth {
                    "1" | "2" | "3" | "4" | "5" => Ok(format!("{n}#{nth}")),
                    _ => Err((at, nth.to_owned(), "is not a week of the month from 1 to 5".into())),
                }))
            }
            "day of week" => {
                let day = upper.strip_suffix('L').filter(|d| !d.is_empty())?;
                Some(self.value(day, 0).map(|n| format!("{n}L")))
            }
            _ => None,
        }
    }

    /// `a` or `a-b`.
    fn range(&self, text: &str) -> Result<String, Mistake> {
        let Some((low, high)) = text.split_once('-') else {
            return self.value(text, 0).map(|n| n.to_string());
        };
        let from = self.value(low, 0)?;
        let mut to = self.value(high, low.chars().count() + 1)?;
        // FRI-SUN ends the week.
        if self.name == "day of week" && to == 0 && from > 0 {
            to = 7;
        }
        if from > to {
            let problem = "is a range that ends before it begins: write two parts with a comma";
            return Err((0, text.to_owned(), problem.to_owned()));
        }
        Ok(format!("{from}-{to}"))
    }

    fn value(&self, text: &str, at: usize) -> Result<u32, Mistake> {
        let named = self.names.iter().position(|n| n.eq_ignore_ascii_case(text));
        if let Some(i) = named {
            return Ok(u32::try_from(i).unwrap_or(0) + self.min);
        }
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err((at, text.to_owned(), format!("is not a {}", self.name)));
        }
        text.parse().ok().filter(|n| (self.min..=self.max).contains(n)).ok_or_else(|| {
            (at, text.to_owned(), format!("is out of range {}-{}", self.min, self.max))
        })
    }
}
