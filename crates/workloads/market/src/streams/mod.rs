//! `str-aux-runner`: watches the floating mode of each symbol from cycle to cycle, in one session
//! (section 4.9).
//!
//! A tick takes every cycle that has closed since the last one, symbol by symbol, and advances the
//! symbol's [machine](crate::analytics::shift) by it; all states, stamps, events and stream rows are
//! one commit. A tick that was missed is not made up for, but its cycles are: a machine has seen each
//! stored cycle once, in order, so its state is a function of what is stored, whenever it ran.

mod read;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::Serialize;
use watchbell_core::{
    BoxFuture, Commit, Cycle, Definition, Done, Fault, Millis, Missed, Pct, Statement, Time,
    Trigger, Value, Worker, values,
};
use watchbell_db::{Database, DbError};

use crate::analytics::Scratch;
use crate::analytics::point::{CYCLE, Rollup, Span};
use crate::analytics::shift::{
    Event, FRESH_FOR, Metrics, Reading, ShiftConfig, ShiftMachine, Snapshot, State,
};
use crate::analytics::trailing::Trail;
use crate::universe::{self, BASE, MINUTE};

pub use self::read::{StreamRow, SymbolStreams, streams};

/// Name of the worker.
pub const STR_AUX_RUNNER: &str = "str-aux-runner";

/// How often it runs where nothing else is said: once a cycle.
const INTERVAL: Millis = CYCLE;
/// It never runs more often.
const SHORTEST: Millis = Millis::from_secs(5);
/// Cycles of one symbol that one tick takes at most; the next tick goes on.
const CYCLES_PER_TICK: i64 = 270;
const DAY: Millis = Millis::from_days(1);

/// Which session is watched, how often, and by which thresholds.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamsConfig {
    /// How often (40 s), see [`runner_interval`].
    pub interval: Millis,
    /// The session's name (`str-aux-runner`).
    pub session: String,
    /// How far the floating mode of a cycle looks back (30 min); fixed when the session begins.
    pub window: Millis,
    /// What makes a shift and a swap; fixed when the session begins.
    pub thresholds: ShiftConfig,
}

impl Default for StreamsConfig {
    fn default() -> Self {
        Self {
            interval: INTERVAL,
            session: STR_AUX_RUNNER.to_owned(),
            window: Millis::from_mins(30),
            thresholds: ShiftConfig::default(),
        }
    }
}

/// The interval of `STR_AUX_RUNNER_INTERVAL_MS`: milliseconds, 5000 or more; 40000 for what is unset
/// or no number.
///
/// ```
/// use watchbell_core::Millis;
/// use watchbell_market::runner_interval;
/// assert_eq!(runner_interval(Some("60000")), Millis(60_000));
/// assert_eq!(runner_interval(Some("100")), Millis(5_000));
/// assert_eq!(runner_interval(Some("often")), Millis(40_000));
/// assert_eq!(runner_interval(None), Millis(40_000));
/// ```
#[must_use]
pub fn runner_interval(env: Option<&str>) -> Millis {
    let number = env.and_then(|text| text.trim().parse::<f64>().ok()).filter(|n| n.is_finite());
    number.map_or(INTERVAL, |ms| Millis(ms as i64)).max(SHORTEST)
}

/// The worker.
pub(crate) struct StrAuxRunner {
    db: Database,
    config: StreamsConfig,
}

/// A session as it is stored.
#[derive(Debug, Clone)]
struct Session {
    id: Arc<str>,
    /// How far a cycle's floating mode looks back.
    window: Millis,
    started_at: Time,
    thresholds: ShiftConfig,
}

/// One symbol, as far as its machine has come.
struct Watched {
    symbol: Arc<str>,
    /// The last cycle that the machine has seen.
    cycle_end: Time,
    machine: ShiftMachine,
}

/// A closed cycle.
struct Closed {
    end: Time,
    signals: Rollup,
}

/// What happened to one symbol in a tick.
struct Advanced {
    watched: Watched,
    events: Vec<Event>,
}

/// What a tick did.
#[derive(Debug, Default, Serialize)]
struct Report {
    session: String,
    symbols: usize,
    cycles: usize,
    openings: usize,
    swaps: usize,
    shifts: usize,
    /// Symbols with more cycles than one tick takes.
    behind: Vec<String>,
}

impl StrAuxRunner {
    pub(crate) fn new(db: Database, config: StreamsConfig) -> Self {
        Self { db, config }
    }

    async fn tick(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let mut commit = Commit::new();
        let session = match self.session().await? {
            Some(session) => session,
            None => self.open(cycle.now(), &mut commit),
        };
        let mut stored = self.stored(&session).await?;
        let symbols = universe::enabled(&self.db).await?;
        let mut report =
            Report { session: session.id.to_string(), symbols: symbols.len(), ..Report::default() };
        let mut advanced = Vec::new();
        let mut scratch = Scratch::default();
        for symbol in symbols {
            let watched = stored.remove(&symbol).unwrap_or_else(|| Watched {
                symbol: Arc::clone(&symbol),
                cycle_end: session.started_at,
                machine: ShiftMachine::new(session.thresholds),
            });
            let closed = self.closed(&watched).await?;
            if closed.is_empty() {
                continue;
            }
            if closed.len() as i64 == CYCLES_PER_TICK {
                report.behind.push(symbol.to_string());
            }
            report.cycles += closed.len();
            let one = self.advance(&session, watched, &closed, &mut scratch).await?;
            for event in &one.events {
                match event {
                    Event::Opening { .. } => report.openings += 1,
                    Event::Swap { .. } => report.swaps += 1,
                    Event::Shift(_) => report.shifts += 1,
                }
            }
            advanced.push(one);
            if cycle.cancelled() {
                return Err(Fault::Cancelled);
            }
        }
        if !advanced.is_empty() {
            publish(&session, &advanced, cycle.now(), &mut commit)?;
        }
        Ok(Done::new(report, commit))
    }

    async fn session(&self) -> Result<Option<Session>, DbError> {
        let row = self
            .db
            .query_opt(
                "select session_id, window_ms, started_at, epsilon_pct, streak, both_ways,
                   swap_eta_pct
                 from str_aux.sessions where session_id = $1",
                values![self.config.session.as_str()],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Session {
            id: row.shared_text(0)?,
            window: Millis(row.i64(1)?),
            started_at: Time(row.i64(2)?),
            thresholds: ShiftConfig {
                epsilon_pct: row.f64(3)?,
                streak: u32::try_from(row.i64(4)?).unwrap_or(u32::MAX),
                both_ways: row.i64(5)? != 0,
                swap_eta_pct: row.f64(6)?,
            },
        }))
    }

    /// A session begins with the cycle in which it is opened.
    fn open(&self, now: Time, commit: &mut Commit) -> Session {
        let session = Session {
            id: Arc::from(self.config.session.as_str()),
            window: self.config.window,
            started_at: now.floor(CYCLE),
            thresholds: self.config.thresholds,
        };
        let t = &session.thresholds;
        commit.push(Statement::new(
            "insert into str_aux.sessions
               (session_id, window_label, window_ms, started_at, epsilon_pct, streak, both_ways,
                swap_eta_pct)
             values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (session_id) do nothing",
            values![
                Arc::clone(&session.id),
                session.window.exact(),
                session.window,
                session.started_at,
                t.epsilon_pct,
                t.streak,
                t.both_ways,
                t.swap_eta_pct
            ],
        ));
        session
    }

    async fn stored(&self, session: &Session) -> Result<BTreeMap<Arc<str>, Watched>, Fault> {
        let rows = self
            .db
            .query(
                "select symbol, cycle_end, machine from str_aux.stream_state where session_id = $1",
                values![Arc::clone(&session.id)],
            )
            .await?;
        let mut all = BTreeMap::new();
        for row in &rows {
            let symbol = row.shared_text(0)?;
            let machine = serde_json::from_str(row.text(2)?).map_err(|e| {
                Fault::permanent(format!(
                    "the state of {symbol} in session `{}` cannot be read, delete its row in \
                     str_aux.stream_state to begin anew: {e}",
                    session.id
                ))
            })?;
            let cycle_end = Time(row.i64(1)?);
            all.insert(Arc::clone(&symbol), Watched { symbol, cycle_end, machine });
        }
        Ok(all)
    }

    /// The cycles after the last that the machine has seen, oldest first.
    async fn closed(&self, watched: &Watched) -> Result<Vec<Closed>, DbError> {
        self.db
            .scan(
                "select cycle_start, v_inner_close, v_outer_close, v_swap_close, v_tend_close,
                   disruption_avg, amp_avg, volt_avg, inertia_avg
                 from str_aux.cycles_40s where symbol = $1 and cycle_start >= $2
                 order by cycle_start limit $3",
                values![Arc::clone(&watched.symbol), watched.cycle_end, CYCLES_PER_TICK],
                Vec::new(),
                |closed, row| {
                    let close = |i| -> Result<Span, DbError> {
                        Ok(Span { close: row.opt_f64(i)?, ..Span::default() })
                    };
                    let signals = Rollup {
                        v_inner: close(1)?,
                        v_outer: close(2)?,
                        v_swap_close: row.opt_f64(3)?,
                        v_tend_close: row.opt_f64(4)?,
                        disruption_avg: row.opt_f64(5)?,
                        amp_avg: row.opt_f64(6)?,
                        volt_avg: row.opt_f64(7)?,
                        inertia_avg: row.opt_f64(8)?,
                        ..Rollup::default()
                    };
                    closed.push(Closed { end: Time(row.i64(0)?) + CYCLE, signals });
                    Ok(ControlFlow::Continue(()))
                },
            )
            .await
    }

    async fn advance(
        &self,
        session: &Session,
        mut watched: Watched,
        closed: &[Closed],
        scratch: &mut Scratch,
    ) -> Result<Advanced, Fault> {
        let (Some(first), Some(last)) = (closed.first(), closed.last()) else {
            return Ok(Advanced { watched, events: Vec::new() });
        };
        let (times, prices) =
            self.prices(&watched.symbol, first.end - session.window, last.end).await?;
        let day_before = self.day_before(&watched.symbol, first.end, last.end).await?;
        let mut trail = Trail::new(&prices).ok_or_else(|| {
            let symbol = &watched.symbol;
            Fault::permanent(format!("a stored point of {symbol} has a price that is no number"))
        })?;
        let mut events = Vec::new();
        for Closed { end, signals } in closed {
            watched.cycle_end = *end;
            let at = |t: Time| times.partition_point(|p| *p <= t);
            // A cycle without a price says nothing, and moves nothing.
            let (before, to) = (at(*end - CYCLE), at(*end));
            let Some(&price) = prices[before..to].last() else { continue };
            let then = day_before.get(&((*end - DAY).floor(MINUTE) - MINUTE));
            events.extend(watched.machine.step(&Reading {
                at: *end,
                price,
                gfm: trail.mode(at(*end - session.window)..to, scratch).map(|g| g.gfm),
                pct24h: then.map(|then| Pct(100.0 * (price / then - 1.0))),
                metrics: Metrics::from(signals),
            }));
        }
        Ok(Advanced { watched, events })
    }

    /// The points with a price in `(after, until]`.
    async fn prices(
        &self,
        symbol: &Arc<str>,
        after: Time,
        until: Time,
    ) -> Result<(Vec<Time>, Vec<f64>), DbError> {
        self.db
            .scan(
                "select ts, mid from str_aux.samples_5s
                 where symbol = $1 and ts > $2 and ts <= $3 and mid is not null order by ts",
                values![Arc::clone(symbol), after, until],
                (Vec::new(), Vec::new()),
                |(times, prices), row| {
                    times.push(Time(row.i64(0)?));
                    prices.push(row.f64(1)?);
                    Ok(ControlFlow::Continue(()))
                },
            )
            .await
    }

    /// Closes of the candles that ended 24 hours before each cycle, by their open time.
    async fn day_before(
        &self,
        symbol: &Arc<str>,
        first: Time,
        last: Time,
    ) -> Result<BTreeMap<Time, f64>, DbError> {
        self.db
            .scan(
                "select open_time, close from ingest.kline_raw
                 where symbol = $1 and interval_label = $2 and open_time >= $3 and open_time < $4",
                values![Arc::clone(symbol), BASE, first - DAY - MINUTE * 2, last - DAY],
                BTreeMap::new(),
                |closes, row| {
                    closes.insert(Time(row.i64(0)?), row.f64(1)?);
                    Ok(ControlFlow::Continue(()))
                },
            )
            .await
    }
}

/// The rows of a tick.
fn publish(
    session: &Session,
    advanced: &[Advanced],
    now: Time,
    commit: &mut Commit,
) -> Result<(), serde_json::Error> {
    let (mut states, mut stamps, mut events, mut rows) = (vec![], vec![], vec![], vec![]);
    for Advanced { watched, events: happened } in advanced {
        let key = || values![Arc::clone(&session.id), Arc::clone(&watched.symbol)];
        let state = watched.machine.state();
        states.extend(key());
        states.extend(values![
            watched.cycle_end,
            state.map(|s| s.opening_gfm),
            state.map(|s| s.ref_gfm),
            state.map(|s| s.delta_pct.0),
            state.map(|s| s.streak),
            state.map_or(0, |s| s.shifts as i64),
            state.map_or(0, |s| s.swaps as i64),
            state.map_or(0, |s| s.ui_epoch as i64),
            state.and_then(|s| s.stamps.back()).map(|stamp| stamp.at + FRESH_FOR),
            serde_json::to_string(&watched.machine)?,
            now,
        ]);
        for event in happened {
            let payload = serde_json::to_value(event)?;
            let (kind, at) = match event {
                Event::Opening { at, .. } => ("opening", *at),
                Event::Swap { at, .. } => ("swap", *at),
                Event::Shift(stamp) => {
                    stamps.extend(key());
                    stamps.extend(values![stamp.at, stamp.price, stamp.gfm, stamp.delta_pct.0]);
                    ("shift", stamp.at)
                }
            };
            events.extend(key());
            events.extend(values![at, kind, payload.to_string()]);
            commit.emit(format!("stream.{kind}"), &*watched.symbol, payload);
        }
        if let Some(state) = state {
            stream_rows(session, watched, state, &mut rows);
            if let Some(oldest) = state.stamps.front() {
                let mut old = key();
                old.push(oldest.at.into());
                commit.push(Statement::new(
                    "delete from str_aux.stamps
                     where session_id = $1 and symbol = $2 and ts < $3",
                    old,
                ));
            }
        }
    }
    // Where two ticks meet, that which has seen less changes nothing.
    commit
        .push(Statement::bulk(
            "insert into str_aux.stream_state
               (session_id, symbol, cycle_end, opening_gfm, ref_gfm, delta_pct, streak, shifts,
                swaps, ui_epoch, fresh_until, machine, updated_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
             on conflict (session_id, symbol) do update set
               cycle_end = excluded.cycle_end, opening_gfm = excluded.opening_gfm,
               ref_gfm = excluded.ref_gfm, delta_pct = excluded.delta_pct,
               streak = excluded.streak, shifts = excluded.shifts, swaps = excluded.swaps,
               ui_epoch = excluded.ui_epoch, fresh_until = excluded.fresh_until,
               machine = excluded.machine, updated_at = excluded.updated_at
             where excluded.cycle_end >= str_aux.stream_state.cycle_end",
            13,
            states,
        ))
        .push(Statement::bulk(
            "insert into str_aux.stamps (session_id, symbol, ts, price, gfm, delta_pct)
             values ($1, $2, $3, $4, $5, $6) on conflict (session_id, symbol, ts) do nothing",
            6,
            stamps,
        ))
        .push(Statement::bulk(
            "insert into str_aux.stream_events (session_id, symbol, ts, kind, payload)
             values ($1, $2, $3, $4, $5) on conflict (session_id, symbol, ts, kind) do nothing",
            5,
            events,
        ))
        .push(Statement::bulk(
            "insert into str_aux.streams
               (session_id, symbol, stream, prev, cur, greatest, cycle_end)
             values ($1, $2, $3, $4, $5, $6, $7)
             on conflict (session_id, symbol, stream) do update set
               prev = excluded.prev, cur = excluded.cur, greatest = excluded.greatest,
               cycle_end = excluded.cycle_end
             where excluded.cycle_end >= str_aux.streams.cycle_end",
            7,
            rows,
        ));
    Ok(())
}

/// The stream table of one symbol: prices, changes, vectors and metrics.
fn stream_rows(session: &Session, watched: &Watched, state: &State, rows: &mut Vec<Value>) {
    type Column = (&'static str, fn(&Snapshot) -> Option<f64>);
    const COLUMNS: [Column; 11] = [
        ("benchmark", |s| Some(s.price)),
        ("pct24h", |s| s.pct24h.map(|p| p.0)),
        ("pct_drv", |s| s.pct_drv.map(|p| p.0)),
        ("v_inner", |s| Some(s.metrics.v_inner)),
        ("v_outer", |s| Some(s.metrics.v_outer)),
        ("v_swap", |s| Some(s.metrics.v_swap)),
        ("v_tendency", |s| Some(s.metrics.v_tendency)),
        ("disruption", |s| Some(s.metrics.disruption)),
        ("amp", |s| Some(s.metrics.amp)),
        ("volt", |s| Some(s.metrics.volt)),
        ("inertia", |s| Some(s.metrics.inertia)),
    ];
    for (stream, of) in COLUMNS {
        rows.extend(values![
            Arc::clone(&session.id),
            Arc::clone(&watched.symbol),
            stream,
            state.prev.as_ref().and_then(of),
            of(&state.cur),
            of(&state.greatest),
            watched.cycle_end,
        ]);
    }
}

/// The worker.
pub(crate) fn definition(config: &StreamsConfig) -> Definition {
    let period = config.interval.max(SHORTEST);
    Definition::new(STR_AUX_RUNNER, Trigger::Every { period, offset: Millis::ZERO })
        .describe(format!(
            "Watches the floating mode of each symbol from cycle to cycle in the session `{}`: \
             openings, shifts of the reference, swaps of the benchmark, and the stream table.",
            config.session
        ))
        .missed(Missed::Skip)
        .after(crate::sampler::MARKET_SAMPLER)
        .timeouts(Millis::from_mins(2), Millis::from_mins(4))
}

impl Worker for StrAuxRunner {
    fn define(&self) -> Definition {
        definition(&self.config)
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.tick(cycle))
    }
}
