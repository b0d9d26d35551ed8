//! The market behind the simulator: a pure function of symbol and time.
//!
//! Everything a client may see is derived from one-minute candles and the trades they split into,
//! cut at the present. So klines of every interval, trades, tickers and books agree with each other
//! and do not depend on what was asked before.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use watchbell_core::{Millis, Time};

pub(super) use super::candle::Minute;
pub use super::candle::{Candle, Hole, SymbolSpec, Trade};
use super::interval::Grid;
pub(super) use super::memory::lock;
use super::memory::{Key, Recent, recall};
use super::recorded::{Recorded, RecordedError};
use super::synthetic::Synthetic;
use super::universe::{HOUR, Universe};

pub(super) const MINUTE: i64 = 60_000;
pub(super) const DAY: i64 = 86_400_000;
/// Prices and sizes are integers of 1e-8, the digits that the venue prints.
pub(super) const E8: i64 = 100_000_000;

/// The part of a page that a klines request asks for. Bounds apply to open times, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) start: Option<i64>,
    pub(super) end: Option<i64>,
    pub(super) limit: usize,
}

/// Where aggregate trades are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TradesFrom {
    /// That number and up.
    Id(i64),
    /// The oldest within both inclusive bounds.
    Times(i64, i64),
    /// The newest up to an inclusive bound.
    Newest(i64),
}

/// A market that can be asked for any symbol at any time.
#[derive(Debug)]
pub struct Market {
    symbols: Vec<SymbolSpec>,
    by_name: HashMap<String, usize>,
    source: Source,
    days: Mutex<Recent<Arc<[Minute]>>>,
    summaries: Mutex<HashMap<Key, Option<Candle>>>,
    splits: Mutex<Recent<Arc<[Trade]>>>,
    /// The hours of a day and the minutes of an hour, of a universe.
    hours: Mutex<Recent<Arc<[Candle; 24]>>>,
    minutes: Mutex<Recent<Arc<[Minute]>>>,
}

#[derive(Debug)]
enum Source {
    Synthetic(Synthetic),
    Universe(Universe),
    Recorded(Recorded),
}

impl Market {
    /// The synthetic market of a seed. The same seed and symbols give the same market, on any
    /// machine; a symbol does not change when others are added.
    #[must_use]
    pub fn synthetic(seed: u64, symbols: &[&str]) -> Self {
        let (source, specs) = Synthetic::new(seed, symbols);
        Self::new(Source::Synthetic(source), specs)
    }

    /// A broad market of a seed: the `count` largest assets (1 to 400) of a universe that reaches from
    /// half a billion in turnover a day, and well-known names, down to fifty thousand. Its hours and
    /// days cost no minute; what [`synthetic`](Self::synthetic) says of seeds holds here for a given
    /// count.
    #[must_use]
    pub fn synthetic_universe(seed: u64, count: usize) -> Self {
        let (source, specs) = Universe::new(seed, count);
        Self::new(Source::Universe(source), specs)
    }

    /// The market recorded in the one-minute kline files of a folder.
    ///
    /// # Errors
    /// [`RecordedError`] when the folder has no such file, or one cannot be read.
    pub fn recorded(folder: &Path) -> Result<Self, RecordedError> {
        Self::recorded_shifted(folder, Millis::ZERO)
    }

    /// As [`recorded`](Self::recorded), with all times moved by `shift` (cut to whole minutes).
    ///
    /// # Errors
    /// As [`recorded`](Self::recorded).
    pub fn recorded_shifted(folder: &Path, shift: Millis) -> Result<Self, RecordedError> {
        let (source, specs) = Recorded::load(folder, shift.0.div_euclid(MINUTE) * MINUTE)?;
        Ok(Self::new(Source::Recorded(source), specs))
    }

    fn new(source: Source, symbols: Vec<SymbolSpec>) -> Self {
        let by_name = symbols.iter().enumerate().map(|(i, s)| (s.name.clone(), i)).collect();
        // Two days of every symbol are always in use by the rolling tickers.
        let room = (4 * symbols.len()).max(48);
        Self {
            symbols,
            by_name,
            source,
            days: Mutex::new(Recent::new(room)),
            summaries: Mutex::new(HashMap::new()),
            splits: Mutex::new(Recent::new(room)),
            hours: Mutex::new(Recent::new(2 * room)),
            minutes: Mutex::new(Recent::new(room)),
        }
    }

    /// All symbols, in the order in which they are listed.
    #[must_use]
    pub fn symbols(&self) -> &[SymbolSpec] {
        &self.symbols
    }

    /// The index of a symbol by its exact name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// `synthetic` or `recorded`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.source {
            Source::Synthetic(_) | Source::Universe(_) => "synthetic",
            Source::Recorded(_) => "recorded",
        }
    }

    /// The first minute of a symbol and the end of its last.
    #[must_use]
    pub fn span(&self, symbol: usize) -> (Time, Time) {
        let (first, end) = match &self.source {
            Source::Synthetic(_) | Source::Universe(_) => {
                let (first, last) = Synthetic::days();
                (first * DAY, (last + 1) * DAY)
            }
            Source::Recorded(r) => r.span(symbol),
        };
        (Time(first), Time(end))
    }

    /// The gaps of a recorded symbol, oldest first; a synthetic one has none.
    #[must_use]
    pub fn holes(&self, symbol: usize) -> Vec<Hole> {
        match &self.source {
            Source::Synthetic(_) | Source::Universe(_) => Vec::new(),
            Source::Recorded(r) => r.holes(symbol),
        }
    }

    fn listed(&self, symbol: usize) -> i64 {
        self.span(symbol).0.0
    }

    /// The minutes of a day, in order; they may have gaps.
    fn day(&self, symbol: usize, day: i64) -> Option<Arc<[Minute]>> {
        match &self.source {
            Source::Recorded(r) => r.day(symbol, day),
            Source::Synthetic(s) => {
                recall(&self.days, (symbol, day), || Some(s.day(symbol, day)?.into()))
            }
            Source::Universe(u) => recall(&self.days, (symbol, day), || {
                let hours = self.hours(u, symbol, day)?;
                Some(hours.iter().flat_map(|hour| u.minutes(symbol, hour)).collect())
            }),
        }
    }

    /// The hours of a day of a universe.
    fn hours(&self, universe: &Universe, symbol: usize, day: i64) -> Option<Arc<[Candle; 24]>> {
        recall(&self.hours, (symbol, day), || universe.hours(symbol, day).map(Arc::new))
    }

    /// The minutes of the hour that holds `time`, or of its whole day: whichever costs less.
    fn around(&self, symbol: usize, time: i64) -> Option<Arc<[Minute]>> {
        let Source::Universe(u) = &self.source else {
            return self.day(symbol, time.div_euclid(DAY));
        };
        recall(&self.minutes, (symbol, time.div_euclid(HOUR)), || {
            let hours = self.hours(u, symbol, time.div_euclid(DAY))?;
            Some(u.minutes(symbol, &hours[(time.rem_euclid(DAY) / HOUR) as usize]).into())
        })
    }

    /// A whole day as one candle.
    fn day_candle(&self, symbol: usize, day: i64) -> Option<Candle> {
        let key = (symbol, day);
        if let Some(found) = lock(&self.summaries).get(&key) {
            return *found;
        }
        let candle = match &self.source {
            Source::Universe(u) => {
                self.hours(u, symbol, day).and_then(|hours| total(hours.iter().copied()))
            }
            Source::Synthetic(_) | Source::Recorded(_) => {
                self.day(symbol, day).and_then(|d| total(d.iter().map(Candle::of)))
            }
        };
        lock(&self.summaries).insert(key, candle);
        candle
    }

    /// The minute that opens at `time`.
    fn minute(&self, symbol: usize, time: i64) -> Option<Minute> {
        let minutes = self.around(symbol, time)?;
        let at = position(&minutes, time);
        minutes.get(at).filter(|m| m.time == time).copied()
    }

    /// The open time of the first minute that opens at `t` or later.
    fn minute_from(&self, symbol: usize, t: i64) -> Option<i64> {
        match &self.source {
            Source::Recorded(r) => r.minute_from(symbol, t),
            Source::Synthetic(_) | Source::Universe(_) => {
                let (first, end) = self.span(symbol);
                let t = Grid::MINUTE.ceil(t).max(first.0);
                (t < end.0).then_some(t)
            }
        }
    }

    /// The open time of the last minute that opens at `t` or earlier.
    fn minute_upto(&self, symbol: usize, t: i64) -> Option<i64> {
        match &self.source {
            Source::Recorded(r) => r.minute_upto(symbol, t),
            Source::Synthetic(_) | Source::Universe(_) => {
                let (first, end) = self.span(symbol);
                let t = Grid::MINUTE.floor(t).min(end.0 - MINUTE);
                (t >= first.0).then_some(t)
            }
        }
    }

    /// The trades of the minute that opens at `time`; empty when there is none.
    pub(super) fn split(&self, symbol: usize, time: i64) -> Arc<[Trade]> {
        let key = (symbol, time);
        if let Some(found) = lock(&self.splits).get(&key) {
            return found;
        }
        let trades: Arc<[Trade]> =
            self.minute(symbol, time).map_or_else(Vec::new, |m| self.trades_of(symbol, &m)).into();
        lock(&self.splits).put(key, Arc::clone(&trades));
        trades
    }

    fn trades_of(&self, symbol: usize, m: &Minute) -> Vec<Trade> {
        let (shape, tick, step) = match &self.source {
            Source::Synthetic(s) => {
                let spec = &self.symbols[symbol];
                (s.shape(symbol, m), spec.tick, spec.step)
            }
            Source::Universe(u) => {
                let spec = &self.symbols[symbol];
                (u.shape(symbol, m), spec.tick, spec.step)
            }
            Source::Recorded(r) => r.shape(symbol, m),
        };
        let mut trades = Vec::with_capacity(m.trades as usize);
        shape.each(|p| {
            trades.push(Trade {
                id: m.first_trade + trades.len() as i64,
                time: m.time + p.offset,
                price: p.ticks * tick,
                size: p.steps * step,
                buyer_maker: p.buyer_maker,
            });
        });
        trades
    }

    /// A minute as far as it had happened at `now`; before its first trade it is flat at the
    /// previous close.
    fn cut(&self, symbol: usize, m: &Minute, now: i64) -> Candle {
        if m.time + MINUTE <= now {
            return Candle::of(m);
        }
        let mut candle: Option<Candle> = None;
        for t in self.split(symbol, m.time).iter().take_while(|t| t.time <= now) {
            let taken = if t.buyer_maker { 0 } else { i128::from(t.size) };
            let paid = if t.buyer_maker { 0 } else { t.value() };
            let one = Candle {
                open_time: m.time,
                close_time: m.time + MINUTE - 1,
                open: t.price,
                high: t.price,
                low: t.price,
                close: t.price,
                volume: i128::from(t.size),
                quote: t.value(),
                taker_base: taken,
                taker_quote: paid,
                trades: 1,
                first_trade: t.id,
                last_trade: t.id,
            };
            match &mut candle {
                Some(c) => c.join(&one),
                None => candle = Some(one),
            }
        }
        candle.unwrap_or_else(|| {
            let before = self
                .minute_upto(symbol, m.time - 1)
                .and_then(|t| self.minute(symbol, t))
                .map_or(m.open, |p| p.close);
            let flat = Minute {
                open: before,
                high: before,
                low: before,
                close: before,
                volume: 0,
                quote: 0,
                taker_base: 0,
                taker_quote: 0,
                trades: 0,
                ..*m
            };
            Candle::of(&flat)
        })
    }

    /// The candle of `[from, to)` as far as it had happened at `now`; `None` when it has no minute.
    pub(super) fn candle(&self, symbol: usize, from: i64, to: i64, now: i64) -> Option<Candle> {
        self.candle_seen(symbol, (from, to), now, |part| part)
    }

    /// As [`candle`](Self::candle), where each part of it, within one day, is seen through `lens`.
    pub(super) fn candle_seen(
        &self,
        symbol: usize,
        (from, to): (i64, i64),
        now: i64,
        lens: impl Fn(Candle) -> Candle,
    ) -> Option<Candle> {
        let mut sum: Option<Candle> = None;
        let mut add = |c: Candle| match &mut sum {
            // The flat stand-in of a minute without trades says nothing beside real ones.
            Some(s) if c.trades > 0 || c.close_time < now => s.join(&lens(c)),
            Some(_) => {}
            None => sum = Some(lens(c)),
        };
        let mut day = from.div_euclid(DAY);
        while day * DAY < to && day * DAY <= now {
            let (a, b) = (from.max(day * DAY), to.min((day + 1) * DAY));
            if b - a == DAY && b <= now {
                if let Some(c) = self.day_candle(symbol, day) {
                    add(c);
                }
            } else if let Source::Universe(u) = &self.source {
                self.hours_between(u, symbol, (a, b), now, &mut add);
            } else if let Some(minutes) = self.day(symbol, day) {
                self.minutes_between(&minutes, symbol, (a, b), now, &mut add);
            }
            day += 1;
        }
        sum.map(|c| Candle { open_time: from, close_time: to - 1, ..c })
    }

    fn minutes_between(
        &self,
        minutes: &[Minute],
        symbol: usize,
        (from, to): (i64, i64),
        now: i64,
        add: &mut impl FnMut(Candle),
    ) {
        for m in &minutes[position(minutes, from)..] {
            if m.time >= to || m.time > now {
                break;
            }
            add(self.cut(symbol, m, now));
        }
    }

    /// Whole hours as they are, the rest by minutes; all within one day.
    fn hours_between(
        &self,
        universe: &Universe,
        symbol: usize,
        (from, to): (i64, i64),
        now: i64,
        add: &mut impl FnMut(Candle),
    ) {
        let Some(hours) = self.hours(universe, symbol, from.div_euclid(DAY)) else { return };
        for hour in hours.iter() {
            let (a, b) = (from.max(hour.open_time), to.min(hour.open_time + HOUR));
            if a >= b || a > now {
                continue;
            }
            if b - a == HOUR && b <= now {
                add(*hour);
            } else if let Some(minutes) = self.around(symbol, hour.open_time) {
                self.minutes_between(&minutes, symbol, (a, b), now, add);
            }
        }
    }

    /// A page of candles, oldest first (spec: venues, section 4.3). `keep` says which open times
    /// exist; the others are passed over, as a venue passes over its own outages.
    pub(super) fn klines(
        &self,
        symbol: usize,
        grid: Grid,
        page: Page,
        now: i64,
        mut keep: impl FnMut(i64) -> bool,
    ) -> Vec<Candle> {
        let grid = grid.for_listing(self.listed(symbol));
        let last = page.end.map_or(now, |e| e.min(now));
        let mut rows = Vec::with_capacity(page.limit);
        if let Some(start) = page.start {
            self.klines_forward(symbol, grid, (start, last), page.limit, now, &mut keep, &mut rows);
        } else {
            self.klines_backward(symbol, grid, last, page.limit, now, &mut keep, &mut rows);
            rows.reverse();
        }
        rows
    }

    #[expect(clippy::too_many_arguments, reason = "one half of `klines`, split for length only")]
    fn klines_forward(
        &self,
        symbol: usize,
        grid: Grid,
        (start, last): (i64, i64),
        limit: usize,
        now: i64,
        keep: &mut impl FnMut(i64) -> bool,
        rows: &mut Vec<Candle>,
    ) {
        let start = start.max(grid.floor(self.listed(symbol)));
        let mut open = grid.ceil(start);
        if grid.is_minute() {
            while let Some(first) = self.minute_from(symbol, open).filter(|t| *t <= last) {
                let Some(day) = self.day(symbol, first.div_euclid(DAY)) else { return };
                for m in &day[position(&day, first)..] {
                    if m.time > last || rows.len() == limit {
                        return;
                    }
                    if keep(m.time) {
                        rows.push(self.cut(symbol, m, now));
                    }
                }
                open = (first.div_euclid(DAY) + 1) * DAY;
            }
            return;
        }
        while rows.len() < limit {
            let Some(first) = self.minute_from(symbol, open).filter(|t| *t <= now) else { return };
            open = open.max(grid.floor(first));
            if open > last {
                return;
            }
            let next = grid.next(open);
            if keep(open)
                && let Some(candle) = self.candle(symbol, open, next, now)
            {
                rows.push(candle);
            }
            open = next;
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one half of `klines`, split for length only")]
    fn klines_backward(
        &self,
        symbol: usize,
        grid: Grid,
        last: i64,
        limit: usize,
        now: i64,
        keep: &mut impl FnMut(i64) -> bool,
        rows: &mut Vec<Candle>,
    ) {
        if grid.is_minute() {
            let mut upto = last;
            while let Some(newest) = self.minute_upto(symbol, upto) {
                let Some(day) = self.day(symbol, newest.div_euclid(DAY)) else { return };
                for m in day[..=position(&day, newest)].iter().rev() {
                    if rows.len() == limit {
                        return;
                    }
                    if keep(m.time) {
                        rows.push(self.cut(symbol, m, now));
                    }
                }
                upto = newest.div_euclid(DAY) * DAY - 1;
            }
            return;
        }
        // A candle that opened by `last` may have its only minutes after it.
        let mut upto = (grid.next(grid.floor(last)) - 1).min(now);
        while rows.len() < limit {
            let Some(newest) = self.minute_upto(symbol, upto) else { return };
            let open = grid.floor(newest);
            if keep(open)
                && let Some(candle) = self.candle(symbol, open, grid.next(open), now)
            {
                rows.push(candle);
            }
            upto = open - 1;
        }
    }

    /// The newest trade at or before `now`.
    #[must_use]
    pub fn last_trade(&self, symbol: usize, now: Time) -> Option<Trade> {
        let mut upto = now.0;
        loop {
            let minute = self.minute_upto(symbol, upto)?;
            let trades = self.split(symbol, minute);
            let happened = trades.partition_point(|t| t.time <= now.0);
            if let Some(last) = happened.checked_sub(1) {
                return trades.get(last).copied();
            }
            upto = minute - 1;
        }
    }

    /// Whether a symbol does not trade at `now`: of the day before it there is nothing, be it that it
    /// was taken off the market, or has yet to come to it. A shorter gap is an outage.
    pub(super) fn is_stopped(&self, symbol: usize, now: i64) -> bool {
        self.minute_upto(symbol, now).is_none_or(|newest| newest < rolling_from(now))
    }

    /// The first trade after `after`, looking at most an hour ahead.
    pub(super) fn next_trade(&self, symbol: usize, after: i64) -> Option<Trade> {
        let mut from = Grid::MINUTE.floor(after);
        while let Some(minute) =
            self.minute_from(symbol, from).filter(|m| *m <= after + 60 * MINUTE)
        {
            let trades = self.split(symbol, minute);
            if let Some(t) = trades.get(trades.partition_point(|t| t.time <= after)) {
                return Some(*t);
            }
            from = minute + MINUTE;
        }
        None
    }

    /// Up to `limit` trades that had happened at `now`, in order of their numbers.
    pub(super) fn trades(
        &self,
        symbol: usize,
        from: TradesFrom,
        limit: usize,
        now: i64,
    ) -> Vec<Trade> {
        let mut out = Vec::with_capacity(limit);
        let (mut minute, first_id, until) = match from {
            TradesFrom::Newest(upto) => {
                let mut upto = upto.min(now);
                let bound = upto;
                while let Some(minute) = self.minute_upto(symbol, upto) {
                    let trades = self.split(symbol, minute);
                    let newest = trades.iter().rev().filter(|t| t.time <= bound);
                    out.extend(newest.take(limit - out.len()));
                    if out.len() == limit {
                        break;
                    }
                    upto = minute - 1;
                }
                out.reverse();
                return out;
            }
            TradesFrom::Times(start, end) => (start, None, end.min(now)),
            TradesFrom::Id(id) => (self.time_of_trade(symbol, id), Some(id), now),
        };
        let start = minute;
        minute = Grid::MINUTE.floor(minute);
        while let Some(at) = self.minute_from(symbol, minute).filter(|m| *m <= until) {
            for t in self.split(symbol, at).iter() {
                if t.time > until || out.len() == limit {
                    return out;
                }
                if first_id.map_or(t.time >= start, |id| t.id >= id) {
                    out.push(*t);
                }
            }
            minute = at + MINUTE;
        }
        out
    }

    /// The minute that holds the trade of that number, or the next one after it.
    fn time_of_trade(&self, symbol: usize, id: i64) -> i64 {
        let day = match &self.source {
            Source::Synthetic(_) => Synthetic::day_of_trade(id.max(0)),
            Source::Universe(u) => u.day_of_trade(symbol, id.max(0)),
            Source::Recorded(r) => r.day_of_trade(symbol, id),
        };
        let Some(minutes) = self.day(symbol, day) else { return i64::MAX / 2 };
        let after = minutes.partition_point(|m| m.first_trade <= id);
        minutes.get(after.saturating_sub(1)).map_or(day * DAY, |m| m.time)
    }

    /// The rolling day up to `now`, and the close before it.
    pub(super) fn rolling_day(&self, symbol: usize, now: i64) -> Option<(Candle, i64)> {
        let from = rolling_from(now);
        let mut candle = self.candle(symbol, from, Grid::MINUTE.floor(now) + MINUTE, now)?;
        candle.open_time = now - DAY;
        candle.close_time = now;
        let before = self
            .minute_upto(symbol, from - 1)
            .and_then(|t| self.minute(symbol, t))
            .map_or(candle.open, |m| m.close);
        Some((candle, before))
    }
}

/// Where the rolling day begins: the venue's rolls by the second, but whole minutes are what candles
/// can tell.
fn rolling_from(now: i64) -> i64 {
    Grid::MINUTE.ceil(now - DAY)
}

fn total(candles: impl Iterator<Item = Candle>) -> Option<Candle> {
    candles.reduce(|mut sum, c| {
        sum.join(&c);
        sum
    })
}

/// The index of the first minute at or after `time`; direct when the day, or hour, has no gap.
fn position(day: &[Minute], time: i64) -> usize {
    if matches!(day.len(), 60 | 1_440)
        && let [first, .., last] = day
        && last.time - first.time == (day.len() as i64 - 1) * MINUTE
    {
        let after = (time - first.time + MINUTE - 1).div_euclid(MINUTE);
        return after.clamp(0, day.len() as i64) as usize;
    }
    day.partition_point(|m| m.time < time)
}
