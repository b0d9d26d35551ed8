//! Cron expressions in a time zone: the wall clock's matches, carried to real instants.
//!
//! The time line of a zone is cut into pieces of constant offset. Within a piece the wall clock is
//! plain arithmetic; at the cuts the two rules of the [parent module](super) apply.

use std::fmt;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::wall::{DAY, Wall};
use crate::graph::nearest;
use crate::units::{Millis, Time};

/// A cron expression in a time zone. See the [module](super) for the rules.
///
/// Five fields (minute, hour, day of month, month, day of week) or six (second first). A field is
/// `*`, a value, a range `a-b`, a step `*/n` or `a-b/n`, or a comma-separated list of those; months
/// and weekdays may be named (`JAN`, `MON`; 0 and 7 are Sunday). Day of month also takes `L` (the
/// last), `LW` (the last working day) and `15W` (the working day nearest to the 15th); day of week
/// takes `5L` (the last Friday) and `5#2` (the second Friday). When both day fields are restricted,
/// either one matches. `@hourly`, `@daily`, `@weekly`, `@monthly` and `@yearly` stand for the usual
/// expressions.
///
/// ```
/// # use watchbell_core::{Time, schedule::Cron};
/// let cron = Cron::parse("30 2 * * *", "Europe/Berlin").unwrap();
/// // On 2026-03-29 the clock goes from 02:00 to 03:00: the run is at 03:00, not skipped.
/// let before = Time::parse("2026-03-28T12:00:00Z").unwrap();
/// assert_eq!(cron.next_after(before).unwrap().to_string(), "2026-03-29T01:00:00Z");
/// assert_eq!(cron.to_string(), "30 2 * * * Europe/Berlin");
/// ```
#[derive(Clone)]
pub struct Cron {
    expression: Arc<str>,
    zone: TimeZone,
    zone_name: Arc<str>,
    wall: Arc<Wall>,
    /// Its [`Cron::longest_pause`], once somebody has asked.
    pause: Arc<OnceLock<Option<Millis>>>,
}

impl Cron {
    /// Reads an expression and the IANA name of a zone.
    ///
    /// # Errors
    /// [`CronError`], which names the field, the column and what is allowed there.
    pub fn parse(expression: &str, zone: &str) -> Result<Self, CronError> {
        let name = zone.trim();
        let zones = TimeZoneDatabase::bundled();
        let zone = zones.get(name).map_err(|_| {
            let known: Vec<_> = zones.available().map(|z| z.to_string()).collect();
            CronError::Zone { zone: name.to_owned(), hint: zone_hint(name, &known) }
        })?;
        let zone_name = Arc::from(zone.iana_name().unwrap_or(name));
        let wall = Arc::new(Wall::parse(expression)?);
        let expression = Arc::from(expression.trim());
        let cron = Self { expression, zone, zone_name, wall, pause: Arc::default() };
        // 2000-01-01: any expression that fires at all does so within a leap cycle of it.
        if cron.next_after(Time(946_684_800_000)).is_none() {
            return Err(CronError::Never { expression: cron.expression.to_string() });
        }
        Ok(cron)
    }

    /// The expression, as it was written.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The zone's name.
    #[must_use]
    pub fn zone(&self) -> &str {
        &self.zone_name
    }

    /// Whether it names fixed times (see the [module](super)).
    #[must_use]
    pub fn is_fixed_time(&self) -> bool {
        self.wall.fixed
    }

    /// The first due instant strictly after `after`.
    #[must_use]
    pub fn next_after(&self, after: Time) -> Option<Time> {
        let mut second = after.0.div_euclid(1_000).checked_add(1)?;
        let limit = second.checked_add(HORIZON)?;
        loop {
            let piece = self.piece(second)?;
            if second == piece.start && self.stands_for_gap(&piece) {
                return Some(Time(second * 1_000));
            }
            let from = second.max(self.first_unrepeated(&piece));
            let until = piece.end.min(limit);
            if let Some(w) = self.wall.next(from + piece.offset, until + piece.offset) {
                return Some(Time((w - piece.offset) * 1_000));
            }
            if piece.end >= limit {
                return None;
            }
            second = piece.end;
        }
    }

    /// The newest due instant at or before `t`.
    #[must_use]
    pub fn last_until(&self, t: Time) -> Option<Time> {
        let mut second = t.0.div_euclid(1_000);
        let limit = second.checked_sub(HORIZON)?;
        loop {
            let piece = self.piece(second)?;
            let from = self.first_unrepeated(&piece).max(limit);
            if let Some(w) = self.wall.last(second + piece.offset, from + piece.offset) {
                return Some(Time((w - piece.offset) * 1_000));
            }
            if piece.start <= limit {
                return None;
            }
            if self.stands_for_gap(&piece) {
                return Some(Time(piece.start * 1_000));
            }
            second = piece.start - 1;
        }
    }

    /// How many due instants lie in `[from, to]`.
    #[must_use]
    pub fn count(&self, from: Time, to: Time) -> u64 {
        // Whole seconds inside the interval.
        let (mut second, last) = (-(-from.0).div_euclid(1_000), to.0.div_euclid(1_000));
        let mut count = 0;
        while second <= last {
            let Some(piece) = self.piece(second) else { break };
            let lo = second.max(self.first_unrepeated(&piece));
            let hi = last.min(piece.end - 1);
            if lo <= hi {
                count += self.wall.count(lo + piece.offset, hi + piece.offset);
            }
            // Unless the wall clock after the gap matches in its own right, and is counted above.
            if second == piece.start
                && self.stands_for_gap(&piece)
                && !self.wall.matches(second + piece.offset)
            {
                count += 1;
            }
            second = piece.end;
        }
        count
    }

    /// The longest time between neighbouring due instants in a year. It is found once, and clones
    /// share it.
    #[must_use]
    pub fn longest_pause(&self) -> Option<Millis> {
        *self.pause.get_or_init(|| self.find_longest_pause())
    }

    fn find_longest_pause(&self) -> Option<Millis> {
        let mut longest = Millis::ZERO;
        // A pause that is longer than `step` and than the longest so far holds the instant which lies
        // that far behind the end of the pause before it, or a later one that is looked at: no such
        // pause in the span is passed over.
        let mut look = |from: Time, span: Millis, step: Millis| {
            let mut at = from;
            while at < from + span {
                let (start, end) = (self.last_until(at)?, self.next_after(at)?);
                longest = longest.max(end.since(start));
                at = end + step.max(longest);
            }
            Some(())
        };
        let (minute, hour, day) =
            (Millis::from_mins(1), Millis::from_hours(1), Millis::from_days(1));
        // All days that match have the same times, so two of them show the pauses within a day.
        look(YEAR, minute * 2, Millis::from_secs(1))?;
        look(YEAR, hour * 2, minute)?;
        look(YEAR, day * 2, hour)?;
        // Days on which clocks change have other pauses.
        let end = YEAR + day * 366;
        let mut change = self.piece(YEAR.0 / 1_000)?.end;
        while change < end.0 / 1_000 {
            look(Time(change * 1_000) - day, day * 2, hour)?;
            change = self.piece(change)?.end;
        }
        if !self.wall.daily {
            look(YEAR, day * 366, day)?;
        }
        Some(longest)
    }

    /// The stretch of constant offset that holds `second` (since the epoch).
    fn piece(&self, second: i64) -> Option<Piece> {
        let at = Timestamp::from_second(second).ok()?;
        let start = at
            .checked_add(jiff::SignedDuration::from_nanos(1))
            .ok()
            .and_then(|after| self.zone.preceding(after).next())
            .map(|t| t.timestamp().as_second());
        let end = self.zone.following(at).next().map(|t| t.timestamp().as_second());
        let offset = i64::from(self.zone.to_offset(at).seconds());
        let before = start
            .and_then(|s| Timestamp::from_second(s - 1).ok())
            .map_or(offset, |t| i64::from(self.zone.to_offset(t).seconds()));
        Some(Piece {
            start: start.unwrap_or(FIRST_SECOND),
            end: end.unwrap_or(LAST_SECOND),
            offset,
            before,
        })
    }

    /// Whether the start of `piece` is due on behalf of fixed times in the gap before it.
    fn stands_for_gap(&self, piece: &Piece) -> bool {
        self.wall.fixed
            && piece.before < piece.offset
            && self.wall.next(piece.start + piece.before, piece.start + piece.offset).is_some()
    }

    /// Where the wall clock of `piece` first shows a time that counts: for fixed times, after the
    /// part that repeats what the piece before has shown.
    fn first_unrepeated(&self, piece: &Piece) -> i64 {
        if self.wall.fixed {
            piece.start + (piece.before - piece.offset).max(0)
        } else {
            piece.start
        }
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.expression == other.expression && self.zone_name == other.zone_name
    }
}

impl Eq for Cron {}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.expression, self.zone_name)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({self})")
    }
}

/// Why an expression or its zone is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// A part of a field is wrong.
    #[error(
        "cron expression `{expression}`, column {column} ({field}): `{part}` {problem}; allowed: \
         {allowed}"
    )]
    Field {
        /// The whole expression.
        expression: String,
        /// Where `part` begins, counted in characters from 1.
        column: usize,
        /// The field's name.
        field: &'static str,
        /// The part.
        part: String,
        /// What is wrong with it.
        problem: String,
        /// What the field takes.
        allowed: &'static str,
    },
    /// The number of fields is wrong.
    #[error(
        "cron expression `{expression}` has {count} fields: write 5 (minute hour day-of-month month \
         day-of-week) or 6 (with the second first)"
    )]
    Count {
        /// The whole expression.
        expression: String,
        /// How many fields it has.
        count: usize,
    },
    /// It is well-formed but names no day of the calendar.
    #[error(
        "cron expression `{expression}` never fires: no month that it names has the day that it names"
    )]
    Never {
        /// The whole expression.
        expression: String,
    },
    /// There is no such zone.
    #[error("time zone `{zone}` is unknown: use an IANA name such as Europe/Berlin or UTC{hint}")]
    Zone {
        /// The name.
        zone: String,
        /// `; did you mean X?`, or nothing.
        hint: String,
    },
}

fn zone_hint(name: &str, known: &[String]) -> String {
    let city = |z: &str| z.rsplit('/').next().unwrap_or(z).to_ascii_lowercase();
    let same_city = known
        .iter()
        .filter(|z| city(z) == name.to_ascii_lowercase().replace(' ', "_"))
        .max_by_key(|z| z.contains('/'));
    same_city
        .map(String::as_str)
        .or_else(|| nearest(name, known.iter().map(String::as_str)))
        .map_or_else(String::new, |z| format!("; did you mean {z}?"))
}

/// 2026-01-01: where the year begins whose pauses are looked at.
const YEAR: Time = Time(1_767_225_600_000);
/// How far a search goes: more than the eight years between two leap days around 2100.
const HORIZON: i64 = 12 * 366 * DAY;
/// The bounds of the calendar, with room for an offset.
const FIRST_SECOND: i64 = -377_705_000_000;
const LAST_SECOND: i64 = 253_402_200_000;

/// A stretch of time in which a zone's offset from UTC is constant. All in seconds.
struct Piece {
    start: i64,
    /// Exclusive.
    end: i64,
    offset: i64,
    /// The offset before `start`.
    before: i64,
}
