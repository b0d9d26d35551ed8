//! `window-sampler-30m` and its sisters: compute one aligned window over the universe, all of it or none.
//!
//! A window is computed from five-second points when every symbol has enough of them (some filled
//! with trades, if need be), and from 1-minute candles otherwise; the row says which. Either way the
//! steps are those of the spec's section 4.11: inputs, completeness, statistics symbol by symbol in
//! universe order, hashes, and one commit. A symbol with a hole in the window makes it incomplete, and
//! it is abandoned with the reason; a symbol that was not listed at the time is left out, and the
//! summary says so. A window whose points were removed for their age in part is computed from candles,
//! and cannot be verified any more if it was computed from points.

mod input;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use watchbell_clock::Stopwatch;
use watchbell_core::{
    BoxError, BoxFuture, Cause, Commit, Cycle, CycleInput, Definition, Done, Fault, Millis,
    Statement, Time, Trigger, WindowHashes, WindowInput as Input, WindowSpec, Worker, values,
};
use watchbell_db::{Database, DbError};

use self::input::{Reader, Series, Source};
use crate::analytics::hash::{InputsHasher, ResultHasher};
use crate::analytics::point::{self, CYCLE, Rollup};
use crate::analytics::shift::{Metrics, Reading, ShiftConfig, ShiftMachine};
use crate::analytics::trailing::Trail;
use crate::analytics::{
    DEFAULT_BINS, InputError, Scratch, Signals, WindowInput, WindowStats, compute_window,
    disruption_systemic,
};
use crate::keeping::{self, InputsRemoved};
use crate::samples::rollup_values;
use crate::sync::{KLINES, VENUE};
use crate::universe::Listings;

/// All windows of the market share one lane: shorter ones first, one at a time.
pub(crate) const LANE: &str = "market-windows";
pub(crate) const MAX_ATTEMPTS: u32 = 5;

/// The worker of one label.
pub(crate) struct WindowWorker {
    db: Database,
    length: Millis,
    settle: Millis,
}

/// What the names of the series begin with; the label follows.
pub(crate) const SERIES: &str = "window-sampler-";

/// The name of the worker and of the series of a label, such as `window-sampler-30m`.
#[must_use]
pub fn series_name(length: Millis) -> String {
    format!("{SERIES}{}", length.exact())
}

/// What a window was computed from and what came out, in numbers.
#[derive(Debug, Serialize)]
struct Report {
    window: String,
    start: Time,
    source: &'static str,
    symbols: usize,
    samples: usize,
    /// Prices that come from trades of empty buckets.
    trade_fill: u32,
    /// Symbols of the universe that were not listed during the window.
    unlisted: Vec<String>,
    /// How long it took to read the inputs, and to compute and hash.
    read_ms: Millis,
    compute_ms: Millis,
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
    trade_fill: u32,
}

/// All symbols' results and their fingerprints.
struct Whole {
    computed: Vec<Computed>,
    systemic: f64,
    inputs: String,
    result: String,
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

impl WindowWorker {
    pub(crate) fn new(db: Database, length: Millis, settle: Millis) -> Self {
        Self { db, length, settle }
    }

    async fn compute(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let Cause::Window { start, version, .. } = cycle.cause else {
            return Err(Fault::permanent("a window worker runs only for a window"));
        };
        let CycleInput::Scope(scope) = &cycle.input else {
            return Err(Fault::permanent("the window has no scope"));
        };
        let symbols: Vec<Arc<str>> = scope.iter().map(|s| Arc::from(s.as_str())).collect();
        let label: Arc<str> = Arc::from(self.length.exact());
        let (db, length, now) = (&self.db, self.length, cycle.now());
        let reader = Reader { db, symbols: &symbols, start, length, now };
        let working = Stopwatch::start();
        let bins = self.bins(&label).await?;
        let begin = |source| Computing::new(&label, start, length, bins, source);
        let removed = keeping::points_removed_until(db, &symbols).await?;
        // A cycle's floating mode looks back over the window's length.
        let removed = removed.filter(|until| *until > start - length);
        let points = match (self.published(&symbols, &label, start, version).await?, removed) {
            // It is being verified: what came later must not change what it is computed from.
            (Some(source), _) if source == Source::Klines.as_str() => None,
            (Some(_), Some(until)) => {
                return Err(Fault::Permanent(Box::new(InputsRemoved { until })));
            }
            // What is left of the points is not what was seen; the candles are.
            (None, Some(_)) => None,
            (_, None) => reader.points(begin(Source::Points)).await?,
        };
        let computing = match points {
            Some(computing) => computing,
            None => {
                let (mut computing, all) = (begin(Source::Klines), reader.klines().await?);
                // Milliseconds of arithmetic do not belong on a thread that serves sockets.
                tokio::task::spawn_blocking(move || {
                    all.iter().for_each(|series| computing.add(series));
                    computing
                })
                .await?
            }
        };
        let (source, took) = (computing.source, computing.took);
        let whole = computing.finish().map_err(|e| Fault::Permanent(Box::new(e)))?;
        let ms = |took: Duration| Millis(took.as_millis() as i64);
        let (read_ms, compute_ms) = (ms(working.elapsed().saturating_sub(took)), ms(took));
        let commit = rows(&label, start, version, source, &whole)?;
        let listings = Listings::load(&self.db).await?;
        let unlisted = listings.unlisted(start, start + length).map(ToString::to_string).collect();
        let report = Report {
            window: label.to_string(),
            start,
            source: source.as_str(),
            symbols: whole.computed.len(),
            samples: whole.computed.iter().map(|c| c.stats.samples).sum(),
            trade_fill: whole.computed.iter().map(|c| c.trade_fill).sum(),
            unlisted,
            read_ms,
            compute_ms,
        };
        let mut done = Done::new(report, commit);
        let Whole { inputs, result, .. } = whole;
        done.window = Some(WindowHashes { inputs, result, source: source.as_str().into() });
        Ok(done)
    }

    /// What this version of the window was computed from, if it is published already.
    async fn published(
        &self,
        symbols: &[Arc<str>],
        label: &Arc<str>,
        start: Time,
        version: i64,
    ) -> Result<Option<String>, DbError> {
        let Some(first) = symbols.first() else { return Ok(None) };
        let row = self
            .db
            .query_opt(
                "select source from str_aux.windows
                 where symbol = $1 and window_label = $2 and window_start = $3 and version = $4",
                values![Arc::clone(first), Arc::clone(label), start, version],
            )
            .await?;
        row.map(|r| Ok(r.text(0)?.to_owned())).transpose()
    }

    /// The bins of the display histogram and of the vectors.
    async fn bins(&self, label: &Arc<str>) -> Result<usize, DbError> {
        let sql = "select bins_default from settings.windows where window_label = $1";
        let row = self.db.query_opt(sql, values![Arc::clone(label)]).await?;
        row.map_or(Ok(DEFAULT_BINS), |r| Ok(usize::try_from(r.i64(0)?).unwrap_or(DEFAULT_BINS)))
    }
}

/// Computes symbol by symbol, in universe order.
struct Computing {
    start: Time,
    length: Millis,
    bins: usize,
    source: Source,
    scratch: Scratch,
    inputs: InputsHasher,
    result: ResultHasher,
    computed: Vec<Computed>,
    /// What no window can be computed from.
    refused: Option<InputError>,
    /// Spent on it so far.
    took: Duration,
}

impl Computing {
    fn new(label: &str, start: Time, length: Millis, bins: usize, source: Source) -> Self {
        Self {
            start,
            length,
            bins,
            source,
            scratch: Scratch::default(),
            inputs: InputsHasher::new(label, start),
            result: ResultHasher::new(label, start),
            computed: Vec::new(),
            refused: None,
            took: Duration::ZERO,
        }
    }

    /// The next symbol.
    fn add(&mut self, s: &Series) {
        let watch = Stopwatch::start();
        self.inputs.symbol(&s.symbol);
        for ((at, price), volumes) in s.own_times().iter().zip(s.own_prices()).zip(&s.volumes) {
            self.inputs.point(*at, *price, volumes.as_slice());
        }
        let Self { start, length, bins, source, .. } = *self;
        match compute_symbol(s, start, length, bins, source, &mut self.scratch) {
            Ok(c) => {
                let result = &mut self.result;
                result.part(&c.symbol, &c.stats);
                result.part("rollup", &c.rollup);
                result.part("moments", &c.moments);
                result.part("shifts", &c.shifts);
                if c.trade_fill > 0 {
                    result.part("trade_fill", &c.trade_fill);
                }
                self.computed.push(c);
            }
            Err(refused) => {
                self.refused.get_or_insert(refused);
            }
        }
        self.took += watch.elapsed();
    }

    /// All of them, and the hashes over them.
    ///
    /// # Errors
    /// When a price is not a positive number.
    fn finish(mut self) -> Result<Whole, InputError> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        let disruptions = self.computed.iter().map(|c| c.stats.intrinsic.disruption);
        let systemic = disruption_systemic(disruptions);
        self.result.part("disruption_systemic", &systemic);
        let (inputs, result) = (self.inputs.finish(), self.result.finish());
        Ok(Whole { computed: self.computed, systemic, inputs, result })
    }
}

/// The rows of a window, and nothing else.
fn rows(
    label: &Arc<str>,
    start: Time,
    version: i64,
    source: Source,
    whole: &Whole,
) -> Result<Commit, serde_json::Error> {
    #[derive(Serialize)]
    struct Stored<'a> {
        idhr: &'a crate::analytics::Idhr,
        mode: &'a crate::analytics::FloatingMode,
        stats: &'a crate::analytics::PriceStats,
        intrinsic: &'a crate::analytics::Intrinsic,
        histogram: &'a crate::analytics::Histogram,
        shifts: &'a Option<Shifts>,
    }
    let source: Arc<str> = Arc::from(source.as_str());
    let (mut windows, mut stats, mut vectors) = (Vec::new(), Vec::new(), Vec::new());
    let mut order: Vec<&Computed> = whole.computed.iter().collect();
    // Rows in the order of their keys are stored faster.
    order.sort_unstable_by(|a, b| a.symbol.cmp(&b.symbol));
    for c in order {
        let key = || values![Arc::clone(&c.symbol), Arc::clone(label), start, version];
        windows.extend(key());
        windows.extend(values![Arc::clone(&source), c.stats.samples as i64, c.cycles]);
        windows.extend(rollup_values(&c.rollup));
        let m = c.moments.as_ref();
        let p = &c.stats.stats;
        let WindowStats { idhr, mode, intrinsic, histogram, .. } = &c.stats;
        let json = Stored { idhr, mode, stats: p, intrinsic, histogram, shifts: &c.shifts };
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
            whole.systemic,
            serde_json::to_string(&json)?,
            c.trade_fill,
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
                $19, $20, $21, $22)",
            22,
            stats,
        ))
        .with(Statement::bulk(
            "insert into str_aux.window_vectors values ($1, $2, $3, $4, $5)",
            5,
            vectors,
        )))
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
         intrinsic metrics of every symbol, complete or not at all. Waits while the venue is down: \
         what is missing then is fetched first."
    ))
    .after(crate::sync::MARKET_SYNC)
    .requires(VENUE)
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

fn compute_symbol(
    s: &Series,
    start: Time,
    length: Millis,
    bins: usize,
    source: Source,
    scratch: &mut Scratch,
) -> Result<Computed, InputError> {
    let input = WindowInput::new(s.own_prices(), s.own_times(), &s.weights)?.bins(bins)?;
    let stats = compute_window(&input, scratch);
    let (mut rollup, mut cycle_count, mut moments, mut shifts) = (Rollup::default(), 0, None, None);
    if source == Source::Points {
        let cycles = cycles(s, start, length);
        if let Some(window) = point::roll_window(start, length, &cycles) {
            rollup = window.signals;
            cycle_count = window.cycles_count;
        }
        let known: Vec<Signals> = s.signals.iter().filter_map(|(_, s)| *s).collect();
        moments = point::signal_moments(&known);
        shifts = watch_shifts(s, length, &cycles, scratch);
    }
    Ok(Computed {
        symbol: Arc::clone(&s.symbol),
        stats,
        rollup,
        cycles: cycle_count,
        moments,
        shifts,
        trade_fill: s.filled,
    })
}

/// The cycles of the window, from its points in time order.
fn cycles(s: &Series, start: Time, length: Millis) -> Vec<point::Cycle> {
    let mut rest = &s.signals[..];
    (0..length / CYCLE)
        .filter_map(|k| {
            let at = start + CYCLE * k;
            let (own, later) = rest.split_at(rest.partition_point(|(t, _)| *t <= at + CYCLE));
            rest = later;
            point::roll_cycle(at, own.iter().map(|(at, s)| (*at, s.as_ref())))
        })
        .collect()
}

/// Advances the shift machine once for each cycle of the window. A cycle's floating mode is that of
/// the trailing window that ends with it.
fn watch_shifts(
    s: &Series,
    length: Millis,
    cycles: &[point::Cycle],
    scratch: &mut Scratch,
) -> Option<Shifts> {
    let mut trail = Trail::new(&s.prices)?;
    let mut machine = ShiftMachine::new(ShiftConfig::default());
    for cycle in cycles {
        let end = cycle.start + CYCLE;
        let from = s.times.partition_point(|at| *at <= end - length);
        let to = s.times.partition_point(|at| *at <= end);
        let Some(&price) = s.prices[from..to].last() else { continue };
        machine.step(&Reading {
            at: end,
            price,
            gfm: trail.mode(from..to, scratch).map(|g| g.gfm),
            pct24h: None,
            metrics: Metrics::from(&cycle.signals),
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
