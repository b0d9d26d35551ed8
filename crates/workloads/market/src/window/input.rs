//! What a window is computed from: points of order books, repaired from trades where they lack a
//! price and trades are known, or candles.
//!
//! All symbols are read together. Points count when every cycle of every symbol has at least six
//! of its eight; a cycle that has fewer may be filled with the last trade of each empty bucket
//! (section 4.3). Nothing is interpolated.

use std::ops::ControlFlow;
use std::sync::Arc;

use watchbell_core::{Fault, Millis, Time, values};
use watchbell_db::{Database, DbError};

use super::Computing;
use crate::analytics::Signals;
use crate::analytics::point::{BUCKET, CYCLE, MIN_POINTS_PER_CYCLE};
use crate::samples;
use crate::sync::MARKET_SYNC;
use crate::trades::{self, LastPrices};
use crate::universe::{BASE, MINUTE};

/// Points are stored this long after a window's end at the latest; then they are missing.
const POINTS_COME_WITHIN: Millis = Millis::from_secs(15);
/// Trades that are followed are stored this long after a window's end at the latest.
const TRADES_COME_WITHIN: Millis = Millis::from_mins(2);

/// Where a window's prices come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Points,
    Klines,
}

impl Source {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Points => "points",
            Self::Klines => "klines",
        }
    }
}

/// What stands beside a price in the hash of the inputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Volumes {
    /// Bid and ask volume of a book.
    Book([f64; 2]),
    /// Volume of a candle.
    Candle([f64; 1]),
    /// Nothing: the price is that of the last trade of an empty bucket.
    Trade,
}

impl Volumes {
    pub(super) fn as_slice(&self) -> &[f64] {
        match self {
            Self::Book(v) => v,
            Self::Candle(v) => v,
            Self::Trade => &[],
        }
    }
}

/// One symbol's input, whatever its source.
#[derive(Debug, Default)]
pub(super) struct Series {
    pub(super) symbol: Arc<str>,
    /// Times and prices, those before the window first: a cycle's floating mode looks back on them.
    pub(super) times: Vec<Time>,
    pub(super) prices: Vec<f64>,
    /// Where the window begins in them. What follows has one entry for each price from there on.
    pub(super) inside: usize,
    pub(super) weights: Vec<f64>,
    pub(super) volumes: Vec<Volumes>,
    /// Signals of each stored point, empty ones included; nothing for candles.
    pub(super) signals: Vec<(Time, Option<Signals>)>,
    /// Prices that come from trades.
    pub(super) filled: u32,
}

impl Series {
    /// With room for as many points.
    fn new(symbol: &Arc<str>, points: usize) -> Self {
        Self {
            symbol: Arc::clone(symbol),
            times: Vec::with_capacity(points),
            prices: Vec::with_capacity(points),
            weights: Vec::with_capacity(points),
            volumes: Vec::with_capacity(points),
            ..Self::default()
        }
    }

    /// Makes it the series of another symbol, of which nothing is known but what was `before`. The
    /// buffers stay: those of a hundred symbols would be new memory in each window.
    fn begin(&mut self, symbol: &Arc<str>, before: &[(Time, f64)]) {
        self.symbol = Arc::clone(symbol);
        self.times.clear();
        self.times.extend(before.iter().map(|(at, _)| *at));
        self.prices.clear();
        self.prices.extend(before.iter().map(|(_, price)| *price));
        self.inside = before.len();
        self.weights.clear();
        self.volumes.clear();
        self.signals.clear();
        self.filled = 0;
    }

    fn push(&mut self, at: Time, price: f64, weight: f64, volumes: Volumes) {
        self.times.push(at);
        self.prices.push(price);
        self.weights.push(weight);
        self.volumes.push(volumes);
    }

    /// Times within the window.
    pub(super) fn own_times(&self) -> &[Time] {
        &self.times[self.inside..]
    }

    /// Prices within the window.
    pub(super) fn own_prices(&self) -> &[f64] {
        &self.prices[self.inside..]
    }

    /// Puts prices of trades into their places.
    fn fill(&mut self, trades: &[(Time, f64)]) {
        for &(at, price) in trades {
            let own = self.own_times().partition_point(|t| *t < at);
            self.times.insert(self.inside + own, at);
            self.prices.insert(self.inside + own, price);
            self.weights.insert(own, 1.0);
            self.volumes.insert(own, Volumes::Trade);
            self.filled += 1;
        }
    }
}

/// Why a window cannot be computed from what is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
struct Incomplete {
    lacks: Vec<Lack>,
    /// For so long of the window nothing ran here.
    down: Millis,
}

impl std::fmt::Display for Incomplete {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.down > Millis::ZERO {
            let down = self.down;
            write!(f, "MISSED_WHILE_DOWN: nothing ran here for {down} of it, and later ")?;
            f.write_str("the venue did not have what was missed; ")?;
        }
        let lacks: Vec<String> = self.lacks.iter().map(ToString::to_string).collect();
        write!(f, "INCOMPLETE: {}", lacks.join(", "))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Lack {
    symbol: Arc<str>,
    have: usize,
    need: usize,
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} has {} of {} candles", self.symbol, self.have, self.need)
    }
}

/// Reads the inputs of one window.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) db: &'a Database,
    pub(super) symbols: &'a [Arc<str>],
    pub(super) start: Time,
    pub(super) length: Millis,
    pub(super) now: Time,
}

impl Reader<'_> {
    fn end(&self) -> Time {
        self.start + self.length
    }

    /// Computes from the points of every symbol, if each has enough of them.
    ///
    /// # Errors
    /// A snooze while points or trades of the window are still on their way.
    pub(super) async fn points(&self, into: Computing) -> Result<Option<Computing>, Fault> {
        // Most windows of the past have no points at all: one look tells.
        let Some(first) = self.symbols.first() else { return Ok(None) };
        let any = self
            .db
            .query_opt(
                "select ts from str_aux.samples_5s where symbol = $1 and ts > $2 and ts <= $3
                 order by ts limit 1",
                values![Arc::clone(first), self.start, self.end()],
            )
            .await?;
        if any.is_none() {
            return Ok(None);
        }
        let Line { late, kept, mut computing, .. } = self.read_points(into).await?;
        if let Some(symbol) = late.filter(|_| self.now < self.end() + POINTS_COME_WITHIN) {
            return Err(Fault::Snooze {
                after: Millis::from_secs(1),
                why: format!("the last points of {symbol} are not stored yet"),
            });
        }
        for mut series in kept {
            let lacking = lacking(series.own_times(), self.start, self.length);
            if !lacking.is_empty() {
                self.repair(&mut series, &lacking).await?;
                if !enough_points(series.own_times(), self.start, self.length) {
                    return Ok(None);
                }
            }
            computing.add(&series);
        }
        Ok(Some(computing))
    }

    async fn read_points(&self, computing: Computing) -> Result<Line, DbError> {
        let buckets = usize::try_from(self.length / BUCKET).unwrap_or(0);
        let room = || Vec::with_capacity(buckets);
        let before: Vec<Vec<(Time, f64)>> = self.symbols.iter().map(|_| room()).collect();
        let span = (self.start - self.length, self.start);
        let before =
            samples::scan_prices(self.db, self.symbols, span, before, |all, place, at, mid| {
                all[place].push((at, mid));
            });
        let line = Line {
            symbols: self.symbols.to_vec(),
            before: before.await?,
            start: self.start,
            length: self.length,
            next: 0,
            current: Series::default(),
            computing,
            late: None,
            kept: Vec::new(),
        };
        let within = (self.start, self.end());
        let line = samples::scan_points(self.db, self.symbols, within, line, |line, place, p| {
            line.turn_to(place);
            line.current.signals.push((p.at, p.signals));
            if let Some(mid) = p.mid {
                let volumes = Volumes::Book([p.bid_volume, p.ask_volume]);
                line.current.push(p.at, mid, p.weight(), volumes);
            }
        });
        let mut line = line.await?;
        line.turn_to(self.symbols.len());
        Ok(line)
    }

    /// Fills empty buckets with the price of their last trade, where all trades are known.
    async fn repair(&self, series: &mut Series, lacking: &[Time]) -> Result<(), Fault> {
        let symbol = &series.symbol;
        match trades::last_prices(self.db, symbol, self.start, self.end()).await? {
            LastPrices::Known(prices) => {
                let found: Vec<(Time, f64)> =
                    lacking.iter().filter_map(|at| Some((*at, *prices.get(at)?))).collect();
                series.fill(&found);
                Ok(())
            }
            LastPrices::Behind if self.now < self.end() + TRADES_COME_WITHIN => {
                Err(Fault::Snooze {
                    after: Millis::from_secs(5),
                    why: format!(
                        "{symbol} lacks points, and the trades that may stand for them are not \
                         stored yet"
                    ),
                })
            }
            LastPrices::Behind | LastPrices::Unknown => Ok(()),
        }
    }

    /// Candles of every symbol, if none is missing. A candle stands at its close.
    ///
    /// # Errors
    /// Permanent when any is missing: the cover says that nothing more will come.
    pub(super) async fn klines(&self) -> Result<Vec<Series>, Fault> {
        let need = (self.length / MINUTE) as usize;
        let all: Vec<Series> = self.symbols.iter().map(|s| Series::new(s, need)).collect();
        let all = self
            .db
            .scan(
                "select /*sqlite*/ s.key /*end*/ /*pg*/ s.key - 1 /*end*/,
                   k.open_time, k.close, k.volume
                 from /*sqlite*/ json_each($1) s cross join ingest.kline_raw k
                 where k.symbol = s.value and /*end*/
                 /*pg*/ json_array_elements_text(cast($1 as json)) with ordinality as s(value, key)
                 join ingest.kline_raw k on k.symbol = s.value where /*end*/
                 k.interval_label = $2 and k.open_time >= $3 and k.open_time < $4
                 /*pg*/ order by s.key, k.open_time /*end*/",
                values![samples::names(self.symbols), BASE, self.start, self.end()],
                all,
                |all, row| {
                    let volume = row.f64(3)?;
                    all[row.i64(0)? as usize].push(
                        Time(row.i64(1)?) + MINUTE,
                        row.f64(2)?,
                        if volume > 0.0 { volume } else { 1.0 },
                        Volumes::Candle([volume]),
                    );
                    Ok(ControlFlow::Continue(()))
                },
            )
            .await?;
        let lack = |s: &Series| Lack { symbol: Arc::clone(&s.symbol), have: s.times.len(), need };
        let lacks: Vec<Lack> = all.iter().filter(|s| s.times.len() != need).map(lack).collect();
        if lacks.is_empty() {
            return Ok(all);
        }
        let down = self.down().await?;
        Err(Fault::Permanent(Box::new(Incomplete { lacks, down })))
    }

    /// For how long of the window nothing ran here, by the ledger: the due instants of the
    /// synchronisation that passed over it. A past that no node was ever to see is not in it.
    async fn down(&self) -> Result<Millis, DbError> {
        let rows = self
            .db
            .query(
                "select due, through from ops.occurrences where worker = $1 and due < $3
                 and through > $2 and fate in ('skipped', 'merged') and reason is null",
                values![MARKET_SYNC, self.start, self.end()],
            )
            .await?;
        rows.iter().try_fold(Millis::ZERO, |sum, row| {
            Ok(sum + row.time(1)?.min(self.end()).since(row.time(0)?.max(self.start)))
        })
    }
}

/// The symbols as their points come, one after the other. Each is computed as soon as it is complete,
/// so that only one is in memory; from the first one that is not, all are kept.
struct Line {
    symbols: Vec<Arc<str>>,
    /// Times and prices of the stretch before the window, by symbol.
    before: Vec<Vec<(Time, f64)>>,
    start: Time,
    length: Millis,
    /// How many symbols have begun.
    next: usize,
    current: Series,
    computing: Computing,
    /// The first symbol whose last points are not stored yet.
    late: Option<Arc<str>>,
    kept: Vec<Series>,
}

impl Line {
    /// Ends every symbol before the one at `place`, and begins that one, if there is one.
    fn turn_to(&mut self, place: usize) {
        while self.next <= place {
            if self.next > 0 {
                self.end_current();
            }
            if let Some(symbol) = self.symbols.get(self.next) {
                self.current.begin(symbol, &self.before[self.next]);
            }
            self.next += 1;
        }
    }

    fn end_current(&mut self) {
        let series = &mut self.current;
        if series.signals.last().is_some_and(|(at, _)| *at < self.start + self.length) {
            // The last bucket of a window closes a little after its end, and is stored later still.
            self.late.get_or_insert_with(|| Arc::clone(&series.symbol));
        }
        let whole = enough_points(series.own_times(), self.start, self.length);
        if whole && self.late.is_none() && self.kept.is_empty() {
            self.computing.add(series);
        } else {
            self.kept.push(std::mem::take(series));
        }
    }
}

/// How many points each 40-second cycle of the window has.
fn counts(times: &[Time], start: Time, length: Millis) -> Vec<usize> {
    let mut counts = vec![0; usize::try_from(length / CYCLE).unwrap_or(0)];
    for at in times {
        // A point stands at the end of its bucket, so the cycle's own end belongs to it.
        let cycle = usize::try_from((*at - start - Millis(1)) / CYCLE).ok();
        if let Some(count) = cycle.and_then(|k| counts.get_mut(k)) {
            *count += 1;
        }
    }
    counts
}

/// Whether each cycle of the window has at least 6 points.
fn enough_points(times: &[Time], start: Time, length: Millis) -> bool {
    counts(times, start, length).iter().all(|n| *n >= MIN_POINTS_PER_CYCLE)
}

/// The buckets without a price in the cycles that have too few of them, ascending.
fn lacking(times: &[Time], start: Time, length: Millis) -> Vec<Time> {
    let counts = counts(times, start, length);
    (0_i64..)
        .zip(counts)
        .filter(|(_, n)| *n < MIN_POINTS_PER_CYCLE)
        .flat_map(|(k, _)| (1..=CYCLE / BUCKET).map(move |b| start + CYCLE * k + BUCKET * b))
        .filter(|at| times.binary_search(at).is_err())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Millis = Millis::from_mins(10);
    const START: Time = Time(1_200_000);

    fn full() -> Vec<Time> {
        (1..=120).map(|i| START + Millis(5_000 * i)).collect()
    }

    #[test]
    fn a_cycle_with_five_points_is_not_enough() {
        let mut times = full();
        assert!(enough_points(&times, START, LENGTH));
        times.retain(|t| (*t - START).0 > 10_000);
        assert!(enough_points(&times, START, LENGTH), "6 of 8");
        assert_eq!(lacking(&times, START, LENGTH), [], "a window that is complete needs nothing");
        times.remove(0);
        assert!(!enough_points(&times, START, LENGTH), "5 of 8");
        let empty = [5_000, 10_000, 15_000].map(|ms| START + Millis(ms));
        assert_eq!(lacking(&times, START, LENGTH), empty);
    }

    #[test]
    fn trades_take_the_places_of_missing_points() {
        let mut series = Series { inside: 1, ..Series::default() };
        series.times.push(START);
        series.prices.push(1.0);
        for at in full().into_iter().filter(|t| (*t - START).0 > 40_000) {
            series.push(at, 2.0, 5.0, Volumes::Book([2.0, 3.0]));
        }
        let lacks = lacking(series.own_times(), START, LENGTH);
        assert_eq!(lacks.len(), 8, "the whole first cycle");
        let found: Vec<_> = lacks[..6].iter().map(|at| (*at, 3.0)).collect();
        series.fill(&found);
        assert!(enough_points(series.own_times(), START, LENGTH));
        assert!(series.times.is_sorted());
        assert_eq!((series.filled, series.own_prices()[0], series.weights[0]), (6, 3.0, 1.0));
        assert_eq!(
            (series.volumes[5], series.volumes[6]),
            (Volumes::Trade, Volumes::Book([2.0, 3.0]))
        );
        assert_eq!((series.times[0], series.prices[0]), (START, 1.0), "what is before stays");
    }

    #[test]
    fn the_reason_names_every_symbol_that_lacks_candles() {
        let lack = |s: &str, have| Lack { symbol: s.into(), have, need: 30 };
        assert_eq!(
            Incomplete { lacks: vec![lack("BTCUSDT", 28), lack("ETHUSDT", 0)], down: Millis::ZERO }
                .to_string(),
            "INCOMPLETE: BTCUSDT has 28 of 30 candles, ETHUSDT has 0 of 30 candles"
        );
        assert_eq!(
            Incomplete { lacks: vec![lack("BTCUSDT", 28)], down: Millis::from_mins(2) }.to_string(),
            "MISSED_WHILE_DOWN: nothing ran here for 2m of it, and later the venue did not have \
             what was missed; INCOMPLETE: BTCUSDT has 28 of 30 candles"
        );
    }
}
