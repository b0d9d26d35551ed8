//! Which symbols a window is of: those that were in the universe at its start and were listed all
//! through it.
//!
//! The universe has a history ([`Membership`]), so the scope of a window is the same whenever it is
//! asked for. A symbol that is disabled while a window is open stays in that window, and is
//! synchronised until it is over ([`tracked`]); one that is enabled joins the windows that start
//! after.

use std::collections::BTreeMap;
use std::sync::Arc;

use watchbell_core::{Millis, Time, values};
use watchbell_db::{Database, DbError};

use super::{BASE, UNLISTED_AFTER};

/// A stretch of time, `[from, to)`.
type Span = (Time, Time);

/// One change: from `at` on the symbol is in the universe at that place, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Membership {
    at: Time,
    enabled: bool,
    order: Option<i64>,
}

/// One symbol that ever was in the universe.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    symbol: Arc<str>,
    /// Oldest first.
    history: Vec<Membership>,
    /// When it was listed, ascending; the last span is open-ended (`Time::FAR_FUTURE`) while the
    /// symbol trades.
    spans: Vec<Span>,
}

impl Listed {
    /// The newest change at or before `at`.
    fn at(&self, at: Time) -> Option<&Membership> {
        let until = self.history.partition_point(|m| m.at <= at);
        self.history[..until].last().filter(|m| m.enabled)
    }

    /// The stretches in which a window may start: those of the universe.
    fn terms(&self) -> impl Iterator<Item = Span> {
        let ends = self.history.iter().skip(1).map(|m| m.at).chain([Time::FAR_FUTURE]);
        self.history.iter().zip(ends).filter(|(m, _)| m.enabled).map(|(m, end)| (m.at, end))
    }

    fn covers(&self, start: Time, end: Time) -> bool {
        self.spans.iter().any(|&(from, to)| from <= start && end <= to)
    }

    /// First and last start, the latter exclusive, of the windows of `length` that each stretch of
    /// both allows, and that end by `until`.
    fn starts(&self, length: Millis, until: Time) -> impl Iterator<Item = Span> {
        self.terms().flat_map(move |(enabled, disabled)| {
            self.spans.iter().filter_map(move |&(from, to)| {
                let first = enabled.max(from).ceil(length);
                let last = disabled.ceil(length).min(to.min(until).floor(length));
                (first < last).then_some((first, last))
            })
        })
    }
}

/// The universe through time, as far as candles tell when its symbols were listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Listings(Vec<Listed>);

impl Listings {
    pub(crate) async fn load(db: &Database) -> Result<Self, DbError> {
        // One statement, so that all of it is of one moment.
        let rows = db
            .query(
                "select 1 as part, symbol, at, enabled, sort_order, id
                 from settings.universe_changes
                 union all
                 select 2, symbol, wanted_from, covered_from, covered_until, 0
                 from ingest.klines_cursor where window_label = $1
                 union all
                 select 3, symbol, from_at, to_at, 0, 0
                 from ingest.kline_gaps where interval_label = $1 and state = 'hole'
                 order by 1, 2, 3, 6",
                values![BASE],
            )
            .await?;
        let mut histories: BTreeMap<Arc<str>, Vec<Membership>> = BTreeMap::new();
        let mut known = BTreeMap::new();
        let mut holes: BTreeMap<Arc<str>, Vec<Span>> = BTreeMap::new();
        for row in &rows {
            let (symbol, at) = (row.shared_text(1)?, row.time(2)?);
            match row.i64(0)? {
                1 => {
                    let (enabled, order) = (row.bool(3)?, row.opt_i64(4)?);
                    histories.entry(symbol).or_default().push(Membership { at, enabled, order });
                }
                2 => {
                    known.insert(symbol, (at, row.opt_time(3)?, row.opt_time(4)?));
                }
                _ => holes.entry(symbol).or_default().push((at, row.time(3)?)),
            }
        }
        let all = histories.into_iter().filter_map(|(symbol, history)| {
            let (wanted, known_from, until) = *known.get(&symbol)?;
            let absent = holes.get(&symbol).map_or_else(Vec::new, |h| absences(known_from, h));
            let from = known_from.map_or(wanted, |from| wanted.min(from));
            Some(Listed { symbol, history, spans: listed(from, until, &absent) })
        });
        Ok(Self(all.collect()))
    }

    /// The symbols of the universe at `start` that were listed during all of `[start, end)`, in the
    /// universe's order.
    pub(crate) fn during(&self, start: Time, end: Time) -> impl Iterator<Item = &Arc<str>> {
        self.members(start).filter(move |l| l.covers(start, end)).map(|l| &l.symbol)
    }

    /// The symbols of the universe at `start` that were not.
    pub(crate) fn unlisted(&self, start: Time, end: Time) -> impl Iterator<Item = &Arc<str>> {
        self.members(start).filter(move |l| !l.covers(start, end)).map(|l| &l.symbol)
    }

    /// The universe at an instant, in its order.
    fn members(&self, at: Time) -> impl Iterator<Item = &Listed> {
        let mut members: Vec<_> =
            self.0.iter().filter_map(|l| l.at(at).map(|m| (m.order, l))).collect();
        members.sort_by_key(|(order, l)| (order.is_none(), *order, Arc::clone(&l.symbol)));
        members.into_iter().map(|(_, l)| l)
    }

    /// How many windows of `length` end at or before `until`.
    fn count(&self, length: Millis, until: Time) -> u64 {
        let starts = self.0.iter().flat_map(|l| l.starts(length, until));
        let mut ranges: Vec<(i64, i64)> =
            starts.map(|(first, last)| (first.0 / length.0, last.0 / length.0)).collect();
        ranges.sort_unstable();
        let (mut count, mut reached) = (0, i64::MIN);
        for (from, to) in ranges {
            count += (to - from.max(reached)).max(0);
            reached = reached.max(to);
        }
        count.unsigned_abs()
    }

    /// The first window of `length` at or after `from` that has a symbol.
    pub(crate) fn first_window(&self, from: Time, length: Millis) -> Option<Time> {
        let starts = self.0.iter().flat_map(|l| l.starts(length, Time::FAR_FUTURE));
        starts
            .filter_map(|(first, last)| {
                let start = first.max(from.ceil(length));
                (start < last).then_some(start)
            })
            .min()
    }
}

/// How many windows of `length` there are before `until`, as far as listings are known.
///
/// # Errors
/// When the database fails.
pub async fn expected_windows(db: &Database, length: Millis, until: Time) -> Result<u64, DbError> {
    Ok(Listings::load(db).await?.count(length, until))
}

/// A symbol that is synchronised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tracked {
    pub(crate) symbol: Arc<str>,
    /// For a symbol that was disabled: the end of the last window that it is in.
    pub(crate) until: Option<Time>,
}

/// The symbols to synchronise, in the universe's order: the enabled ones, then those whose last
/// windows of `lengths` still need candles.
pub(crate) async fn tracked(db: &Database, lengths: &[Millis]) -> Result<Vec<Tracked>, DbError> {
    let snapshot = db.snapshot().await?;
    let rows = snapshot.query(super::ENABLED, Vec::new()).await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in &rows {
        all.push(Tracked { symbol: row.shared_text(0)?, until: None });
    }
    let ended = snapshot
        .query(
            "select c.symbol, max(c.at) from settings.universe_changes c
             join settings.coin_universe u on u.symbol = c.symbol
             where u.enabled = 0 group by c.symbol order by c.symbol /*pg*/ collate \"C\" /*end*/",
            Vec::new(),
        )
        .await?;
    for row in &ended {
        let disabled = Time(row.i64(1)?);
        // The window that starts at that very instant is already without it.
        let until = lengths.iter().map(|length| disabled.ceil(*length)).max();
        all.push(Tracked { symbol: row.shared_text(0)?, until: Some(until.unwrap_or(disabled)) });
    }
    Ok(all)
}

/// Of ascending holes those in which the symbol was not listed: the long ones, and what is missing
/// before its first candle. Holes that touch are one: each was only found at another time, and what
/// they say of a window must not depend on that.
fn absences(known_from: Option<Time>, holes: &[Span]) -> Vec<Span> {
    let mut joined: Vec<Span> = Vec::new();
    for &(from, to) in holes {
        match joined.last_mut() {
            Some((_, end)) if *end >= from => *end = to.max(*end),
            _ => joined.push((from, to)),
        }
    }
    joined.retain(|&(from, to)| to - from >= UNLISTED_AFTER || known_from == Some(from));
    joined
}

/// Everything from `from` on, less the silences that the venue has confirmed. What is not known yet
/// counts as listed: a window must wait for it.
fn listed(mut from: Time, covered_until: Option<Time>, absent: &[Span]) -> Vec<Span> {
    let mut spans = Vec::new();
    for &(hole_from, hole_to) in absent {
        if from < hole_from {
            spans.push((from, hole_from));
        }
        from = from.max(hole_to);
    }
    let gone = absent.last().is_some_and(|&(_, to)| covered_until.is_some_and(|until| to >= until));
    if !gone {
        spans.push((from, Time::FAR_FUTURE));
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h(n: i64) -> Time {
        Time(n * 3_600_000)
    }

    fn listed_as(symbol: &str, history: &[(i64, bool, i64)], spans: &[Span]) -> Listed {
        let history = history
            .iter()
            .map(|&(at, enabled, order)| Membership { at: h(at), enabled, order: Some(order) })
            .collect();
        Listed { symbol: symbol.into(), history, spans: spans.to_vec() }
    }

    fn names<'a>(of: impl Iterator<Item = &'a Arc<str>>) -> String {
        of.map(AsRef::as_ref).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_long_silence_ends_a_listing_and_a_short_one_does_not_appear() {
        let known = |absent: &[Span]| listed(h(0), Some(h(100)), absent);
        assert_eq!(known(&[]), [(h(0), Time::FAR_FUTURE)]);
        assert_eq!(known(&[(h(10), h(50))]), [(h(0), h(10)), (h(50), Time::FAR_FUTURE)]);
        // Before the listing, and after the end.
        assert_eq!(known(&[(h(0), h(30)), (h(60), h(100))]), [(h(30), h(60))]);
        // Nothing is known yet: windows must wait, not go ahead without the symbol.
        assert_eq!(listed(h(5), None, &[]), [(h(5), Time::FAR_FUTURE)]);
    }

    #[test]
    fn holes_that_touch_are_one() {
        let of = |holes: &[Span]| absences(Some(h(0)), holes);
        assert_eq!(of(&[(h(0), h(2)), (h(2), h(3)), (h(5), h(6))]), [(h(0), h(3))]);
        assert_eq!(of(&[(h(5), h(28)), (h(28), h(29)), (h(40), h(63))]), [(h(5), h(29))]);
        assert_eq!(of(&[(h(1), h(2))]), []);
    }

    #[test]
    fn the_first_window_skips_what_nobody_covers() {
        let always = [(0, true, 1)];
        let listings = Listings(vec![
            listed_as("A", &always, &[(h(1), h(10))]),
            listed_as("B", &always, &[(h(5), h(8)), (h(40), Time::FAR_FUTURE)]),
        ]);
        let three = Millis::from_hours(3);
        assert_eq!(listings.first_window(h(0), three), Some(h(3)));
        assert_eq!(listings.first_window(h(7), three), Some(h(42)));
        assert_eq!(names(listings.during(h(6), h(8))), "A B");
        assert_eq!(listings.during(h(9), h(12)).count(), 0);
        assert_eq!(names(listings.unlisted(h(9), h(12))), "A B");
        // 3 to 6 and 6 to 9 of A; B's stretch of three hours holds no aligned window; 42 to 48.
        assert_eq!(listings.count(three, h(50)), 4);
    }

    #[test]
    fn a_window_is_of_the_universe_at_its_start() {
        let forever = [(h(0), Time::FAR_FUTURE)];
        let listings = Listings(vec![
            listed_as("A", &[(0, true, 10)], &forever),
            // Disabled within the window 6..9, and enabled again at the start of 12..15.
            listed_as("B", &[(0, true, 20), (7, false, 20), (12, true, 5)], &forever),
            // Enabled within it.
            listed_as("C", &[(8, true, 1)], &forever),
        ]);
        let three = Millis::from_hours(3);
        for (start, scope) in [(3, "A B"), (6, "A B"), (9, "C A"), (12, "C B A"), (15, "C B A")] {
            assert_eq!(names(listings.during(h(start), h(start) + three)), scope, "{start}");
        }
        // Each window is counted once, whoever is in it.
        assert_eq!(listings.count(three, h(15)), 5);

        let alone = Listings(vec![listings.0[1].clone()]);
        assert_eq!(alone.count(three, h(18)), 3 + 2, "9..12 has nobody");
        assert_eq!(alone.first_window(h(7), three), Some(h(12)));
    }
}
