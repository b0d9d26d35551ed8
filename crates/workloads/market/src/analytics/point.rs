//! From order-book snapshots to 5-second points, and from points to cycles and windows
//! (sections 4.2 and 4.3).
//!
//! Snapshots fall into epoch-aligned buckets of five seconds; a [`Sampler`] closes a bucket when a
//! later snapshot arrives or the settle time after its end has passed, and gives one [`Point`] for
//! *every* bucket, the empty ones included, so that a gap is a row and not an absence. A point is
//! named by the **end** of its bucket. Hence a span holds the points with `start < at <= end`: eight
//! to a cycle, none of them in two.

use serde::Serialize;
use watchbell_core::{Millis, Time};

use super::Signals;
use super::order::quantile_of_sorted;

/// Length of a bucket.
pub const BUCKET: Millis = Millis::from_secs(5);
/// Length of a cycle: eight buckets.
pub const CYCLE: Millis = Millis::from_secs(40);
/// How long after its end a bucket may still receive snapshots.
pub const SETTLE: Millis = Millis(1_500);
/// Points of a cycle that must not be empty for its window to be complete.
pub const MIN_POINTS_PER_CYCLE: usize = 6;
/// Levels of a side that the imbalance looks at.
const TOP_LEVELS: usize = 5;

/// One price level of an order book.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Level {
    /// Price.
    pub price: f64,
    /// Quantity in units of the base asset.
    pub qty: f64,
}

/// An order book at an instant.
#[derive(Debug, Clone, PartialEq)]
pub struct BookSnapshot {
    /// When it was taken.
    pub at: Time,
    /// Bids, best (highest) first.
    pub bids: Vec<Level>,
    /// Asks, best (lowest) first.
    pub asks: Vec<Level>,
}

/// Quantities summed by price level over the snapshots of a bucket.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct BucketBook {
    /// Bids, highest price first.
    pub bids: Vec<Level>,
    /// Asks, lowest price first.
    pub asks: Vec<Level>,
}

/// What a bucket lacks. Stored by the names of those that are raised alone: nearly all buckets lack
/// nothing, and there are millions of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct QualityFlags {
    /// No snapshot.
    #[serde(skip_serializing_if = "is_false")]
    pub empty_bucket: bool,
    /// Fewer than two snapshots.
    #[serde(skip_serializing_if = "is_false")]
    pub low_samples: bool,
    /// No level on one side.
    #[serde(skip_serializing_if = "is_false")]
    pub empty_book: bool,
    /// A gap between snapshots of more than two polls.
    #[serde(skip_serializing_if = "is_false")]
    pub irregular_spacing: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Least, greatest and mean value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Range<T> {
    /// Least.
    pub min: T,
    /// Greatest.
    pub max: T,
    /// Mean.
    pub avg: T,
}

/// Five seconds of one symbol's order book.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// End of the bucket.
    pub at: Time,
    /// Mean of the snapshots' mid prices; none where no snapshot has both sides.
    pub mid: Option<f64>,
    /// Least mid price.
    pub mid_min: Option<f64>,
    /// Greatest mid price.
    pub mid_max: Option<f64>,
    /// Best bid of the last snapshot.
    pub best_bid: Option<f64>,
    /// Best ask of the last snapshot.
    pub best_ask: Option<f64>,
    /// Distance of the two.
    pub spread: Option<f64>,
    /// `max(0, ask - bid)` over the snapshots.
    pub spreads: Option<Range<f64>>,
    /// Quantity on the bid side, mean of the snapshots.
    pub bid_volume: f64,
    /// Quantity on the ask side, mean of the snapshots.
    pub ask_volume: f64,
    /// Number of snapshots.
    pub bucket_count: u32,
    /// Gaps between consecutive snapshots in milliseconds, rounded; none under two snapshots.
    pub tick_ms: Option<Range<i64>>,
    /// `(B - A) / (B + A)` of the top five levels; none where they are empty.
    pub liquidity_imbalance: Option<f64>,
    /// What the bucket lacks.
    pub quality: QualityFlags,
}

impl Point {
    /// Whether the point has no price.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mid.is_none()
    }
    /// Weight of the point in a window: its bid and ask volume, or 1 where that is nothing.
    #[must_use]
    pub fn weight(&self) -> f64 {
        let volume = self.bid_volume + self.ask_volume;
        if volume > 0.0 { volume } else { 1.0 }
    }
}

/// Aggregates the snapshots of the bucket that ends at `end`, in time order; `poll` is the distance
/// at which they are taken.
#[must_use]
pub fn aggregate(end: Time, snapshots: &[BookSnapshot], poll: Millis) -> (Point, BucketBook) {
    let both_sides = |s: &BookSnapshot| Some((s.bids.first()?.price, s.asks.first()?.price));
    let tops: Vec<(f64, f64)> = snapshots.iter().filter_map(both_sides).collect();
    let mids = range(tops.iter().map(|(bid, ask)| (bid + ask) / 2.0));
    let spreads = range(tops.iter().map(|(bid, ask)| (ask - bid).max(0.0)));
    let ticks = range(snapshots.windows(2).map(|w| w[1].at.since(w[0].at).0 as f64));

    let mut book = BucketBook {
        bids: merge_levels(snapshots.iter().flat_map(|s| &s.bids)),
        asks: merge_levels(snapshots.iter().flat_map(|s| &s.asks)),
    };
    book.bids.reverse();
    let total = |side: &[Level]| side.iter().fold(0.0, |sum, level| sum + level.qty);
    let top = |side: &[Level]| total(&side[..side.len().min(TOP_LEVELS)]);
    let (bid_top, ask_top) = (top(&book.bids), top(&book.asks));
    let count = snapshots.len().max(1) as f64;

    let last = snapshots.last();
    let best_bid = last.and_then(|s| s.bids.first()).map(|level| level.price);
    let best_ask = last.and_then(|s| s.asks.first()).map(|level| level.price);
    let point = Point {
        at: end,
        mid: mids.map(|r| r.avg),
        mid_min: mids.map(|r| r.min),
        mid_max: mids.map(|r| r.max),
        best_bid,
        best_ask,
        spread: best_bid.zip(best_ask).map(|(bid, ask)| (ask - bid).abs()),
        spreads,
        // Divided by the snapshots: a bucket that was polled more often is not a deeper market.
        bid_volume: total(&book.bids) / count,
        ask_volume: total(&book.asks) / count,
        bucket_count: snapshots.len() as u32,
        tick_ms: ticks.map(|r| Range {
            min: r.min.round() as i64,
            max: r.max.round() as i64,
            avg: r.avg.round() as i64,
        }),
        liquidity_imbalance: (bid_top + ask_top > 0.0)
            .then(|| (bid_top - ask_top) / (bid_top + ask_top)),
        quality: QualityFlags {
            empty_bucket: snapshots.is_empty(),
            low_samples: snapshots.len() < 2,
            empty_book: book.bids.is_empty() || book.asks.is_empty(),
            irregular_spacing: ticks.is_some_and(|r| r.max > 2.0 * poll.0 as f64),
        },
    };
    (point, book)
}

/// Levels by ascending price, quantities of one price added in time order.
fn merge_levels<'a>(levels: impl Iterator<Item = &'a Level>) -> Vec<Level> {
    let mut merged: Vec<Level> = levels.copied().collect();
    merged.sort_by(|a, b| a.price.total_cmp(&b.price));
    merged.dedup_by(|next, kept| {
        let same = next.price == kept.price;
        if same {
            kept.qty += next.qty;
        }
        same
    });
    merged
}

fn range(values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    let (mut n, mut sum, mut min, mut max) = (0_u32, 0.0, f64::INFINITY, f64::NEG_INFINITY);
    for v in values {
        n += 1;
        sum += v;
        min = min.min(v);
        max = max.max(v);
    }
    (n > 0).then(|| Range { min, max, avg: sum / f64::from(n) })
}

/// A snapshot came after its bucket was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot of {at} is late: points up to {closed} are closed")]
pub struct LateSnapshot {
    /// When the snapshot was taken.
    pub at: Time,
    /// End of the last closed bucket.
    pub closed: Time,
}

/// Collects the snapshots of one symbol into points.
#[derive(Debug, Clone)]
pub struct Sampler {
    poll: Millis,
    /// Start of the open bucket.
    start: Time,
    snapshots: Vec<BookSnapshot>,
}

impl Sampler {
    /// Starts with the bucket that holds `from`; `poll` is the distance between snapshots.
    #[must_use]
    pub fn new(from: Time, poll: Millis) -> Self {
        Self { poll, start: from.floor(BUCKET), snapshots: Vec::new() }
    }

    /// Start of the open bucket: everything before is closed.
    #[must_use]
    pub fn open_since(&self) -> Time {
        self.start
    }

    /// Changes the distance at which snapshots are taken.
    pub fn set_poll(&mut self, poll: Millis) {
        self.poll = poll;
    }

    /// Takes a snapshot, and closes every bucket before its own.
    ///
    /// # Errors
    /// When its bucket is closed already; nothing changes then.
    pub fn offer(
        &mut self,
        snapshot: BookSnapshot,
        closed: &mut Vec<(Point, BucketBook)>,
    ) -> Result<(), LateSnapshot> {
        if snapshot.at < self.start {
            return Err(LateSnapshot { at: snapshot.at, closed: self.start });
        }
        self.close_until(snapshot.at.floor(BUCKET), closed);
        // Answers may overtake each other inside a bucket; its formulas need time order.
        let place = self.snapshots.partition_point(|s| s.at <= snapshot.at);
        self.snapshots.insert(place, snapshot);
        Ok(())
    }

    /// Closes every bucket whose end and settle time have passed.
    pub fn advance(&mut self, now: Time, closed: &mut Vec<(Point, BucketBook)>) {
        self.close_until((now - SETTLE).floor(BUCKET), closed);
    }

    fn close_until(&mut self, start: Time, closed: &mut Vec<(Point, BucketBook)>) {
        while self.start < start {
            let end = self.start + BUCKET;
            closed.push(aggregate(end, &self.snapshots, self.poll));
            self.snapshots.clear();
            self.start = end;
        }
    }
}

/// Least, greatest, mean and last value of a signal; all none where no point carries it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Span {
    /// Least.
    pub min: Option<f64>,
    /// Greatest.
    pub max: Option<f64>,
    /// Mean.
    pub avg: Option<f64>,
    /// Last.
    pub close: Option<f64>,
}

/// Signals of a cycle or of a window. Missing values are left out of every aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Rollup {
    /// Inner vector.
    pub v_inner: Span,
    /// Outer vector.
    pub v_outer: Span,
    /// Mean swap score.
    pub v_swap_avg: Option<f64>,
    /// Last swap score.
    pub v_swap_close: Option<f64>,
    /// Mean tendency score.
    pub v_tend_avg: Option<f64>,
    /// Last tendency score.
    pub v_tend_close: Option<f64>,
    /// Mean instant disruption.
    pub disruption_avg: Option<f64>,
    /// Mean amplitude.
    pub amp_avg: Option<f64>,
    /// Mean volatility.
    pub volt_avg: Option<f64>,
    /// Mean inertia.
    pub inertia_avg: Option<f64>,
    /// Last index of the densest bin.
    pub mode_general_close: Option<u16>,
    /// Last `round(100 * bfm01)`.
    pub mode_b_close: Option<i32>,
}

/// Signals of one cycle.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cycle {
    /// Start of the cycle.
    pub start: Time,
    /// Points of the cycle, 8 when none is missing.
    pub points: u32,
    /// Their signals.
    pub signals: Rollup,
}

/// Signals of one window, rolled up from its cycles.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WindowRollup {
    /// Start of the window.
    pub start: Time,
    /// Cycles with a row.
    pub cycles_count: u32,
    /// Their signals.
    pub signals: Rollup,
}

/// The cycle that starts at `start`, from points in time order; those outside of
/// `start < at <= start + 40 s` are left out. None when none is inside.
#[must_use]
pub fn roll_cycle<'a>(
    start: Time,
    points: impl IntoIterator<Item = (Time, Option<&'a Signals>)>,
) -> Option<Cycle> {
    let inside: Vec<Option<&Signals>> = points
        .into_iter()
        .filter(|(at, _)| *at > start && *at <= start + CYCLE)
        .map(|(_, signals)| signals)
        .collect();
    if inside.is_empty() {
        return None;
    }
    let known: Vec<&Signals> = inside.iter().copied().flatten().collect();
    let avg = |of: fn(&Signals) -> f64| range(known.iter().map(|s| of(s))).map(|r| r.avg);
    let span = |of: fn(&Signals) -> f64| {
        let all = range(known.iter().map(|s| of(s)));
        Span {
            min: all.map(|r| r.min),
            max: all.map(|r| r.max),
            avg: all.map(|r| r.avg),
            close: known.last().map(|s| of(s)),
        }
    };
    let signals = Rollup {
        v_inner: span(|s| s.v_inner),
        v_outer: span(|s| s.v_outer),
        v_swap_avg: avg(|s| s.v_swap),
        v_swap_close: known.last().map(|s| s.v_swap),
        v_tend_avg: avg(|s| s.v_tendency),
        v_tend_close: known.last().map(|s| s.v_tendency),
        disruption_avg: avg(|s| s.disruption),
        amp_avg: avg(|s| s.amp),
        volt_avg: avg(|s| s.volt),
        inertia_avg: avg(|s| s.inertia),
        mode_general_close: known.last().map(|s| s.mode_general),
        mode_b_close: known.last().map(|s| s.mode_b),
    };
    Some(Cycle { start, points: inside.len() as u32, signals })
}

/// The window of length `length` that starts at `start`, from cycles in time order; those that
/// start outside of it are left out. None when none is inside.
#[must_use]
pub fn roll_window(start: Time, length: Millis, cycles: &[Cycle]) -> Option<WindowRollup> {
    let inside: Vec<&Rollup> = cycles
        .iter()
        .filter(|c| c.start >= start && c.start < start + length)
        .map(|c| &c.signals)
        .collect();
    if inside.is_empty() {
        return None;
    }
    let all = |of: fn(&Rollup) -> Option<f64>| range(inside.iter().filter_map(|c| of(c)));
    let avg = |of: fn(&Rollup) -> Option<f64>| all(of).map(|r| r.avg);
    let last = |of: fn(&Rollup) -> Option<f64>| inside.iter().rev().find_map(|c| of(c));
    let signals = Rollup {
        v_inner: Span {
            min: all(|c| c.v_inner.min).map(|r| r.min),
            max: all(|c| c.v_inner.max).map(|r| r.max),
            avg: avg(|c| c.v_inner.avg),
            close: last(|c| c.v_inner.close),
        },
        v_outer: Span {
            min: all(|c| c.v_outer.min).map(|r| r.min),
            max: all(|c| c.v_outer.max).map(|r| r.max),
            avg: avg(|c| c.v_outer.avg),
            close: last(|c| c.v_outer.close),
        },
        v_swap_avg: avg(|c| c.v_swap_avg),
        v_swap_close: last(|c| c.v_swap_close),
        v_tend_avg: avg(|c| c.v_tend_avg),
        v_tend_close: last(|c| c.v_tend_close),
        disruption_avg: avg(|c| c.disruption_avg),
        amp_avg: avg(|c| c.amp_avg),
        volt_avg: avg(|c| c.volt_avg),
        inertia_avg: avg(|c| c.inertia_avg),
        mode_general_close: inside.iter().rev().find_map(|c| c.mode_general_close),
        mode_b_close: inside.iter().rev().find_map(|c| c.mode_b_close),
    };
    Some(WindowRollup { start, cycles_count: inside.len() as u32, signals })
}

/// Moments of the points' inner and outer vectors over a window (`window_stats`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SignalMoments {
    /// Mean inner vector.
    pub mean_inner: f64,
    /// Its population variance.
    pub var_inner: f64,
    /// Its population skewness; 0 without variance.
    pub skew_inner: f64,
    /// Mean outer vector.
    pub mean_outer: f64,
    /// Its population variance.
    pub var_outer: f64,
    /// Its population skewness; 0 without variance.
    pub skew_outer: f64,
    /// `mean_outer - mean_inner`.
    pub spread_avg: f64,
    /// 95th percentile of `|v_outer - v_inner|`.
    pub spread_p95: f64,
}

/// The moments of some points' signals; none when there are none.
#[must_use]
pub fn signal_moments(signals: &[Signals]) -> Option<SignalMoments> {
    if signals.is_empty() {
        return None;
    }
    let (mean_inner, var_inner, skew_inner) = moments(signals, |s| s.v_inner);
    let (mean_outer, var_outer, skew_outer) = moments(signals, |s| s.v_outer);
    let mut spreads: Vec<f64> = signals.iter().map(|s| (s.v_outer - s.v_inner).abs()).collect();
    spreads.sort_unstable_by(f64::total_cmp);
    Some(SignalMoments {
        mean_inner,
        var_inner,
        skew_inner,
        mean_outer,
        var_outer,
        skew_outer,
        spread_avg: mean_outer - mean_inner,
        spread_p95: quantile_of_sorted(&spreads, 0.95),
    })
}

/// Mean, population variance and population skewness.
fn moments(signals: &[Signals], of: fn(&Signals) -> f64) -> (f64, f64, f64) {
    let n = signals.len() as f64;
    let mean = signals.iter().fold(0.0, |sum, s| sum + of(s)) / n;
    let power = |k: i32| signals.iter().fold(0.0, |sum, s| sum + (of(s) - mean).powi(k)) / n;
    let variance = power(2);
    let skew = if variance > 0.0 { power(3) / (variance * variance.sqrt()) } else { 0.0 };
    (mean, variance, skew)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: Millis = Millis::from_secs(1);

    fn book(at: i64, mid: f64) -> BookSnapshot {
        let side = |sign: f64| -> Vec<Level> {
            (1..=6)
                .map(|i| Level { price: mid + sign * 0.5 * f64::from(i), qty: f64::from(i) })
                .collect()
        };
        BookSnapshot { at: Time(at), bids: side(-1.0), asks: side(1.0) }
    }

    /// Section 12, "Sampler".
    #[test]
    fn a_bucket_becomes_a_point() {
        let snapshots = [book(1_000, 100.0), book(2_000, 100.1), book(4_000, 100.0)];
        let (point, book) = aggregate(Time(5_000), &snapshots, POLL);
        assert!((point.mid.unwrap() - 300.1 / 3.0).abs() < 1e-12);
        assert_eq!((point.mid_min, point.mid_max), (Some(100.0), Some(100.1)));
        assert_eq!(point.tick_ms, Some(Range { min: 1_000, max: 2_000, avg: 1_500 }));
        assert_eq!(point.quality, QualityFlags::default(), "2000 ms is not more than two polls");
        assert_eq!(
            (point.best_bid, point.best_ask, point.spread),
            (Some(99.5), Some(100.5), Some(1.0))
        );
        assert_eq!((point.bid_volume, point.ask_volume), (21.0, 21.0), "a mean over the snapshots");
        assert_eq!(book.bids[0], Level { price: 99.6, qty: 1.0 });
        assert_eq!(book.bids[1], Level { price: 99.5, qty: 2.0 }, "two books share the level");
        assert!(book.asks.windows(2).all(|w| w[0].price < w[1].price));
        assert_eq!((point.bucket_count, point.weight(), point.is_empty()), (3, 42.0, false));
    }

    #[test]
    fn what_a_bucket_lacks_is_flagged() {
        let (point, _) = aggregate(Time(5_000), &[], POLL);
        assert!(point.is_empty() && point.quality.empty_bucket && point.quality.empty_book);
        assert_eq!((point.tick_ms, point.liquidity_imbalance, point.weight()), (None, None, 1.0));
        let one_side = BookSnapshot { asks: Vec::new(), ..book(1_000, 100.0) };
        let (point, _) = aggregate(Time(5_000), &[one_side], POLL);
        assert!(point.quality.low_samples && point.quality.empty_book && point.is_empty());
        assert_eq!(point.liquidity_imbalance, Some(1.0));
        let (point, _) = aggregate(Time(5_000), &[book(0, 1.0), book(2_001, 1.0)], POLL);
        assert!(point.quality.irregular_spacing);
    }

    #[test]
    fn every_bucket_gives_one_point_in_order() {
        let mut sampler = Sampler::new(Time(7_000), POLL);
        let mut closed = Vec::new();
        sampler.offer(book(8_000, 2.0), &mut closed).unwrap();
        sampler.offer(book(7_000, 1.0), &mut closed).unwrap();
        sampler.advance(Time(11_499), &mut closed);
        assert!(closed.is_empty(), "the settle time has not passed");
        sampler.advance(Time(11_500), &mut closed);
        sampler.offer(book(21_000, 3.0), &mut closed).unwrap();
        let rows: Vec<(i64, Option<f64>)> = closed.iter().map(|(p, _)| (p.at.0, p.mid)).collect();
        assert_eq!(rows, [(10_000, Some(1.5)), (15_000, None), (20_000, None)]);
        assert_eq!(closed[0].0.best_bid, Some(1.5), "the last by time, not by arrival");
        let late = sampler.offer(book(19_999, 3.0), &mut closed).unwrap_err();
        assert_eq!(late, LateSnapshot { at: Time(19_999), closed: Time(20_000) });
    }

    fn signal(v: f64) -> Signals {
        Signals {
            v_inner: v,
            v_outer: 2.0 * v,
            v_swap: v,
            v_tendency: -v,
            disruption: v,
            amp: v,
            volt: v,
            inertia: v,
            mode_general: v as u16,
            mode_b: v as i32,
        }
    }

    #[test]
    fn a_cycle_holds_the_eight_points_after_its_start() {
        let points: Vec<(Time, Signals)> =
            (0..=9).map(|i| (Time(40_000 + i * 5_000), signal(i as f64))).collect();
        let cycle = roll_cycle(
            Time(40_000),
            points.iter().map(|(at, s)| (*at, (*at != Time(80_000)).then_some(s))),
        )
        .unwrap();
        assert_eq!(cycle.points, 8);
        let inner = cycle.signals.v_inner;
        assert_eq!((inner.min, inner.max, inner.avg), (Some(1.0), Some(7.0), Some(4.0)));
        assert_eq!(inner.close, Some(7.0), "the last point carries no signals");
        assert_eq!(cycle.signals.mode_general_close, Some(7));
        assert_eq!(roll_cycle(Time(0), []), None);
        let silent = roll_cycle(Time(0), [(Time(5_000), None)]).unwrap();
        assert_eq!((silent.points, silent.signals), (1, Rollup::default()));
    }

    #[test]
    fn a_window_rolls_up_its_cycles() {
        let cycle = |start: i64, values: &[f64]| {
            let signals: Vec<Signals> = values.iter().map(|v| signal(*v)).collect();
            roll_cycle(
                Time(start),
                signals
                    .iter()
                    .enumerate()
                    .map(|(i, s)| (Time(start + 5_000 * (i as i64 + 1)), Some(s))),
            )
            .unwrap()
        };
        let cycles = [cycle(0, &[1.0, 3.0]), cycle(40_000, &[5.0]), cycle(80_000, &[99.0])];
        let window = roll_window(Time(0), Millis(80_000), &cycles).unwrap();
        assert_eq!(window.cycles_count, 2);
        let outer = window.signals.v_outer;
        assert_eq!((outer.min, outer.max, outer.close), (Some(2.0), Some(10.0), Some(10.0)));
        assert_eq!(outer.avg, Some(7.0), "mean of the cycles' means, not of the points");
        assert_eq!(window.signals.v_tend_close, Some(-5.0));
        assert_eq!(roll_window(Time(400_000), Millis(80_000), &cycles), None);
    }

    #[test]
    fn moments_of_signals() {
        let m = signal_moments(&[signal(1.0), signal(2.0), signal(6.0)]).unwrap();
        assert_eq!((m.mean_inner, m.mean_outer, m.spread_avg), (3.0, 6.0, 3.0));
        assert!(
            (m.var_inner - 14.0 / 3.0).abs() < 1e-12 && (m.var_outer - 56.0 / 3.0).abs() < 1e-12
        );
        let skew = 6.0 / (14.0_f64 / 3.0).powf(1.5);
        assert!((m.skew_inner - skew).abs() < 1e-12 && (m.skew_outer - skew).abs() < 1e-12);
        assert!((m.spread_p95 - 5.6).abs() < 1e-12);
        assert_eq!(signal_moments(&[signal(5.0); 3]).unwrap().skew_inner, 0.0);
        assert_eq!(signal_moments(&[]), None);
    }
}
