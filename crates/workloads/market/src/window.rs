//! `window-sampler-30m` and its sisters: compute one aligned window over the universe, all of it or none.
//!
//! A window is computed from five-second points when every symbol has enough of them, and from
//! 1-minute candles otherwise; the row says which. Either way the steps are those of the spec's
//! section 4.11: inputs, completeness, statistics symbol by symbol in universe order, hashes, and
//! one commit. A symbol with a hole in the window makes it incomplete, and it is abandoned with the
//! reason; a symbol that was not listed at the time is left out, and the summary says so.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::Serialize;
use watchbell_core::{
    BoxError, BoxFuture, Cause, Commit, Cycle, CycleInput, Definition, Done, Fault, Millis,
    Statement, Time, Trigger, WindowHashes, WindowInput as Input, WindowSpec, Worker, values,
};
use watchbell_db::{Database, DbError};

use crate::analytics::hash::{InputsHasher, ResultHasher};
use crate::analytics::point::{self, CYCLE, MIN_POINTS_PER_CYCLE, Rollup};
use crate::analytics::shift::{Metrics, Reading, ShiftConfig, ShiftMachine};
use crate::analytics::{
    Scratch, Signals, WindowInput, WindowStats, compute_window, disruption_systemic,
    general_floating_mode,
};
use crate::samples::{self, rollup_values};
use crate::sync::KLINES;
use crate::universe::{BASE, Listings, MINUTE};

/// All windows of the market share one lane: shorter ones first, one at a time.
pub(crate) const LANE: &str = "market-windows";
pub(crate) const MAX_ATTEMPTS: u32 = 5;

/// The worker of one label.
pub(crate) struct WindowWorker {
    db: Database,
    length: Millis,
    settle: Millis,
    bins: usize,
}

/// The name of the worker and of the series of a label, such as `window-sampler-30m`.
#[must_use]
pub fn series_name(length: Millis) -> String {
    format!("window-sampler-{}", length.exact())
}

/// What a window was computed from and what came out, in numbers.
#[derive(Debug, Serialize)]
struct Report {
    window: String,
    start: Time,
    source: &'static str,
    symbols: usize,
    samples: usize,
    /// Symbols of the universe that were not listed during the window.
    unlisted: Vec<String>,
}

/// One symbol's input, whatever its source.
#[derive(Debug, Default)]
struct Series {
    symbol: Arc<str>,
    times: Vec<Time>,
    prices: Vec<f64>,
    weights: Vec<f64>,
    /// Bid and ask volume, or the candle's volume alone.
    volumes: Vec<[f64; 2]>,
    /// Signals of each stored point, empty ones included; nothing for candles.
    signals: Vec<(Time, Option<Signals>)>,
    /// Points before the window that a cycle's floating mode looks back on.
    before: Vec<(Time, f64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Points,
    Klines,
}

impl Source {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Points => "points",
            Self::Klines => "klines",
        }
    }
}

/// One symbol's result.
#[derive(Debug)]
struct Computed {
    symbol: Arc<str>,
    stats: WindowStats,
    rollup: Rollup,
    cycles: u32,
    moments: Option<point::SignalMoments>,
    shifts: Option<Shifts>,
}

/// What the shift machine saw over the window's cycles.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Shifts {
    shifts: u64,
    swaps: u64,
    opening_gfm: f64,
    ref_gfm: f64,
    delta_pct: f64,
    streak: i64,
}

/// Why a window cannot be computed from what is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("INCOMPLETE: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
struct Incomplete(Vec<Lack>);

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

impl WindowWorker {
    pub(crate) fn new(db: Database, length: Millis, settle: Millis, bins: usize) -> Self {
        Self { db, length, settle, bins }
    }

    async fn compute(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let Cause::Window { start, end, version, .. } = cycle.cause else {
            return Err(Fault::permanent("a window worker runs only for a window"));
        };
        let CycleInput::Scope(scope) = &cycle.input else {
            return Err(Fault::permanent("the window has no scope"));
        };
        let symbols: Vec<Arc<str>> = scope.iter().map(|s| Arc::from(s.as_str())).collect();
        let (source, series) = match self.points(&symbols, start, end).await? {
            Some(series) => (Source::Points, series),
            None => (Source::Klines, self.klines(&symbols, start, end).await?),
        };
        let label = self.length.exact();
        let mut inputs = InputsHasher::new(&label, start);
        for s in &series {
            inputs.symbol(&s.symbol);
            for ((at, price), volumes) in s.times.iter().zip(&s.prices).zip(&s.volumes) {
                let volumes = if source == Source::Points { &volumes[..] } else { &volumes[..1] };
                inputs.point(*at, *price, volumes);
            }
        }
        let inputs = inputs.finish();
        let (length, bins) = (self.length, self.bins);
        // Milliseconds of arithmetic do not belong on a thread that serves sockets.
        let computed = tokio::task::spawn_blocking(move || {
            let mut scratch = Scratch::default();
            series
                .iter()
                .map(|s| compute_symbol(s, start, length, bins, source, &mut scratch))
                .collect::<Result<Vec<_>, _>>()
        })
        .await?
        .map_err(|e| Fault::Permanent(Box::new(e)))?;
        let systemic = disruption_systemic(computed.iter().map(|c| c.stats.intrinsic.disruption));
        let mut result = ResultHasher::new(&label, start);
        let mut samples = 0;
        for c in &computed {
            samples += c.stats.samples;
            result.part(&c.symbol, &c.stats);
            result.part("rollup", &c.rollup);
            result.part("moments", &c.moments);
            result.part("shifts", &c.shifts);
        }
        result.part("disruption_systemic", &systemic);
        let commit = self.commit(&label, start, version, source, systemic, &computed)?;
        let listings = Listings::load(&self.db).await?;
        let unlisted = listings.unlisted(start, end).map(ToString::to_string).collect();
        let report = Report {
            window: label,
            start,
            source: source.as_str(),
            symbols: computed.len(),
            samples,
            unlisted,
        };
        let mut done = Done::new(report, commit);
        done.window =
            Some(WindowHashes { inputs, result: result.finish(), source: source.as_str().into() });
        Ok(done)
    }

    /// Points of every symbol, if each has enough of them: every cycle of the window is there, with
    /// at least 6 of 8 points that saw a price.
    async fn points(
        &self,
        symbols: &[Arc<str>],
        start: Time,
        end: Time,
    ) -> Result<Option<Vec<Series>>, DbError> {
        // Most windows of the past have no points at all: one look tells.
        let Some(first) = symbols.first() else { return Ok(None) };
        let any = self
            .db
            .query_opt(
                "select ts from str_aux.samples_5s where symbol = $1 and ts > $2 and ts <= $3 limit 1",
                values![Arc::clone(first), start, end],
            )
            .await?;
        if any.is_none() {
            return Ok(None);
        }
        let mut all = Vec::with_capacity(symbols.len());
        for symbol in symbols {
            let mut series = Series { symbol: Arc::clone(symbol), ..Series::default() };
            for p in samples::stored(&self.db, symbol, start - self.length, end).await? {
                if p.at <= start {
                    series.before.extend(p.mid.map(|mid| (p.at, mid)));
                    continue;
                }
                series.signals.push((p.at, p.signals));
                if let Some(mid) = p.mid {
                    series.times.push(p.at);
                    series.prices.push(mid);
                    series.weights.push(p.weight());
                    series.volumes.push([p.bid_volume, p.ask_volume]);
                }
            }
            if !enough_points(&series.times, start, self.length) {
                return Ok(None);
            }
            all.push(series);
        }
        Ok(Some(all))
    }

    /// Candles of every symbol, if none is missing. A candle stands at its close.
    async fn klines(
        &self,
        symbols: &[Arc<str>],
        start: Time,
        end: Time,
    ) -> Result<Vec<Series>, Fault> {
        let need = (self.length / MINUTE) as usize;
        let mut all = Vec::with_capacity(symbols.len());
        let mut lacks = Vec::new();
        for symbol in symbols {
            let series = Series { symbol: Arc::clone(symbol), ..Series::default() };
            let series = self
                .db
                .scan(
                    "select open_time, close, volume from ingest.kline_raw
                     where symbol = $1 and interval_label = $2 and open_time >= $3 and open_time < $4
                     order by open_time",
                    values![Arc::clone(symbol), BASE, start, end],
                    series,
                    |s, row| {
                        let volume = row.f64(2)?;
                        s.times.push(Time(row.i64(0)?) + MINUTE);
                        s.prices.push(row.f64(1)?);
                        s.weights.push(if volume > 0.0 { volume } else { 1.0 });
                        s.volumes.push([volume, 0.0]);
                        Ok(ControlFlow::Continue(()))
                    },
                )
                .await?;
            if series.times.len() != need {
                let (symbol, have) = (Arc::clone(symbol), series.times.len());
                lacks.push(Lack { symbol, have, need });
            }
            all.push(series);
        }
        // The cover says that nothing more will come: another attempt cannot help.
        if lacks.is_empty() { Ok(all) } else { Err(Fault::Permanent(Box::new(Incomplete(lacks)))) }
    }

    fn commit(
        &self,
        label: &str,
        start: Time,
        version: i64,
        source: Source,
        systemic: f64,
        computed: &[Computed],
    ) -> Result<Commit, serde_json::Error> {
        let label: Arc<str> = Arc::from(label);
        let (mut windows, mut stats, mut vectors) = (Vec::new(), Vec::new(), Vec::new());
        for c in computed {
            let key = || values![Arc::clone(&c.symbol), Arc::clone(&label), start, version];
            windows.extend(key());
            windows.extend(values![source.as_str(), c.stats.samples as i64, c.cycles]);
            windows.extend(rollup_values(&c.rollup));
            let m = c.moments.as_ref();
            let p = &c.stats.stats;
            stats.extend(key());
            stats.extend(values![
                m.map(|m| m.mean_inner),
                m.map(|m| m.var_inner),
                m.map(|m| m.skew_inner),
                m.map(|m| m.mean_outer),
                m.map(|m| m.var_outer),
                m.map(|m| m.skew_outer),
                m.map(|m| m.spread_avg),
                m.map(|m| m.spread_p95),
                p.opening,
                p.last,
                p.price_min,
                p.price_max,
                p.gfm,
                p.delta_gfm_pct.0,
                p.bfm01,
                systemic,
                serde_json::json!({
                    "idhr": c.stats.idhr, "mode": c.stats.mode, "stats": c.stats.stats,
                    "intrinsic": c.stats.intrinsic, "histogram": c.stats.histogram,
                    "shifts": c.shifts,
                })
                .to_string(),
            ]);
            vectors.extend(key());
            vectors.extend(values![c.stats.vectors.to_json()]);
        }
        Ok(Commit::new()
            .with(Statement::bulk(
                "insert into str_aux.windows values
                   ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                    $19, $20, $21, $22, $23, $24, $25)",
                25,
                windows,
            ))
            .with(Statement::bulk(
                "insert into str_aux.window_stats values
                   ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                    $19, $20, $21)",
                21,
                stats,
            ))
            .with(Statement::bulk(
                "insert into str_aux.window_vectors values ($1, $2, $3, $4, $5)",
                5,
                vectors,
            )))
    }
}

/// The worker of the windows of `length`.
pub(crate) fn definition(length: Millis, settle: Millis) -> Definition {
    let name = series_name(length);
    Definition::new(
        name.as_str(),
        Trigger::Window(WindowSpec {
            series: name.as_str().into(),
            length,
            settle,
            inputs: vec![Input::Cover { source: KLINES.into(), lookback: Millis::ZERO }],
            max_attempts: MAX_ATTEMPTS,
        }),
    )
    .describe(format!(
        "Computes the {length} windows of the universe: histogram, floating mode, vectors and \
         intrinsic metrics of every symbol, complete or not at all."
    ))
    .after(crate::sync::MARKET_SYNC)
    .lane(LANE)
    .timeouts(Millis::from_mins(5), Millis::from_mins(10))
}

impl Worker for WindowWorker {
    fn define(&self) -> Definition {
        definition(self.length, self.settle)
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.compute(cycle))
    }

    fn scope<'a>(&'a self, start: Time) -> BoxFuture<'a, Result<Vec<String>, BoxError>> {
        Box::pin(async move {
            let listings = Listings::load(&self.db).await?;
            Ok(listings.during(start, start + self.length).map(ToString::to_string).collect())
        })
    }

    fn first_window<'a>(&'a self, from: Time) -> BoxFuture<'a, Result<Option<Time>, BoxError>> {
        Box::pin(async move { Ok(Listings::load(&self.db).await?.first_window(from, self.length)) })
    }
}

/// Whether each 40-second cycle of the window has at least 6 points.
fn enough_points(times: &[Time], start: Time, length: Millis) -> bool {
    let mut counts = BTreeMap::<i64, usize>::new();
    for at in times {
        // A point stands at the end of its bucket, so the cycle's own end belongs to it.
        *counts.entry((*at - start - Millis(1)) / CYCLE).or_default() += 1;
    }
    counts.len() as i64 == length / CYCLE && counts.values().all(|n| *n >= MIN_POINTS_PER_CYCLE)
}

fn compute_symbol(
    s: &Series,
    start: Time,
    length: Millis,
    bins: usize,
    source: Source,
    scratch: &mut Scratch,
) -> Result<Computed, crate::analytics::InputError> {
    let input = WindowInput::new(&s.prices, &s.times, &s.weights)?.bins(bins)?;
    let stats = compute_window(&input, scratch);
    let (mut rollup, mut cycle_count, mut moments, mut shifts) = (Rollup::default(), 0, None, None);
    if source == Source::Points {
        let cycles: Vec<point::Cycle> = (0..length / CYCLE)
            .filter_map(|k| {
                let at = start + CYCLE * k;
                point::roll_cycle(at, s.signals.iter().map(|(at, s)| (*at, s.as_ref())))
            })
            .collect();
        if let Some(window) = point::roll_window(start, length, &cycles) {
            rollup = window.signals;
            cycle_count = window.cycles_count;
        }
        let known: Vec<Signals> = s.signals.iter().filter_map(|(_, s)| *s).collect();
        moments = point::signal_moments(&known);
        shifts = watch_shifts(s, start, length, &cycles, scratch);
    }
    Ok(Computed {
        symbol: Arc::clone(&s.symbol),
        stats,
        rollup,
        cycles: cycle_count,
        moments,
        shifts,
    })
}

/// Advances the shift machine once for each cycle of the window. A cycle's floating mode is that of
/// the trailing window that ends with it.
fn watch_shifts(
    s: &Series,
    start: Time,
    length: Millis,
    cycles: &[point::Cycle],
    scratch: &mut Scratch,
) -> Option<Shifts> {
    let trail: Vec<(Time, f64)> = s
        .before
        .iter()
        .copied()
        .chain(s.times.iter().copied().zip(s.prices.iter().copied()))
        .collect();
    let mut machine = ShiftMachine::new(ShiftConfig::default());
    let mut prices = Vec::new();
    for cycle in cycles {
        let end = cycle.start + CYCLE;
        debug_assert!(end <= start + length, "cycles lie inside the window");
        prices.clear();
        let from = trail.partition_point(|(at, _)| *at <= end - length);
        let to = trail.partition_point(|(at, _)| *at <= end);
        prices.extend(trail[from..to].iter().map(|(_, p)| *p));
        let Some(&price) = prices.last() else { continue };
        let r = &cycle.signals;
        machine.step(&Reading {
            at: end,
            price,
            gfm: general_floating_mode(&prices, scratch).map(|g| g.gfm),
            pct24h: None,
            metrics: Metrics {
                v_inner: r.v_inner.close.unwrap_or_default(),
                v_outer: r.v_outer.close.unwrap_or_default(),
                v_swap: r.v_swap_close.unwrap_or_default(),
                v_tendency: r.v_tend_close.unwrap_or_default(),
                disruption: r.disruption_avg.unwrap_or_default(),
                amp: r.amp_avg.unwrap_or_default(),
                volt: r.volt_avg.unwrap_or_default(),
                inertia: r.inertia_avg.unwrap_or_default(),
            },
        });
    }
    machine.state().map(|state| Shifts {
        shifts: state.shifts,
        swaps: state.swaps,
        opening_gfm: state.opening_gfm,
        ref_gfm: state.ref_gfm,
        delta_pct: state.delta_pct.0,
        streak: state.streak,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_with_five_points_is_not_enough() {
        let length = Millis::from_mins(10);
        let start = Time(1_200_000);
        let mut times: Vec<Time> = (1..=120).map(|i| start + Millis(5_000 * i)).collect();
        assert!(enough_points(&times, start, length));
        times.retain(|t| (*t - start).0 > 10_000);
        assert!(enough_points(&times, start, length), "6 of 8");
        times.remove(0);
        assert!(!enough_points(&times, start, length), "5 of 8");
    }

    #[test]
    fn the_reason_names_every_symbol_that_lacks_candles() {
        let lack = |s: &str, have| Lack { symbol: s.into(), have, need: 30 };
        assert_eq!(
            Incomplete(vec![lack("BTCUSDT", 28), lack("ETHUSDT", 0)]).to_string(),
            "INCOMPLETE: BTCUSDT has 28 of 30 candles, ETHUSDT has 0 of 30 candles"
        );
    }
}
