//! Five-second points and forty-second cycles as rows: written by the sampler, read by it after a
//! start and by the windows.

use std::ops::ControlFlow;
use std::sync::Arc;

use watchbell_core::{Millis, Statement, Time, Value, values};
use watchbell_db::{Database, DbError, RowRef};

use crate::analytics::Signals;
use crate::analytics::point::{self, Point};

/// A stored point, as far as later computations need it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    /// End of its bucket.
    pub(crate) at: Time,
    /// Its price; none for an empty bucket.
    pub(crate) mid: Option<f64>,
    pub(crate) bid_volume: f64,
    pub(crate) ask_volume: f64,
    pub(crate) signals: Option<Signals>,
}

impl Stored {
    /// Its weight in a window: its volume, or 1 where that is nothing.
    pub(crate) fn weight(&self) -> f64 {
        let volume = self.bid_volume + self.ask_volume;
        if volume > 0.0 { volume } else { 1.0 }
    }

    /// From a row of `point_columns`, the first of which stands at `first`.
    fn read(row: &RowRef<'_>, first: usize) -> Result<Self, DbError> {
        let signals = match row.opt_f64(first + 4)? {
            None => None,
            Some(v_inner) => Some(Signals {
                v_inner,
                v_outer: row.f64(first + 5)?,
                v_swap: row.f64(first + 6)?,
                v_tendency: row.f64(first + 7)?,
                disruption: row.f64(first + 8)?,
                amp: row.f64(first + 9)?,
                volt: row.f64(first + 10)?,
                inertia: row.f64(first + 11)?,
                mode_general: row.i64(first + 12)? as u16,
                mode_b: row.i64(first + 13)? as i32,
            }),
        };
        Ok(Self {
            at: Time(row.i64(first)?),
            mid: row.opt_f64(first + 1)?,
            bid_volume: row.f64(first + 2)?,
            ask_volume: row.f64(first + 3)?,
            signals,
        })
    }
}

/// How many enabled symbols have points of the cycle that ends at `end`, and none after it: with the
/// first point of the next cycle it is closed, in one commit. A symbol that is not sampled has no
/// cycle to wait for.
pub(crate) async fn open_cycles(db: &Database, end: Time) -> Result<i64, DbError> {
    db.query_one(
        "select count(*) from settings.coin_universe u where u.enabled = 1
           and exists (select 1 from str_aux.samples_5s s
                       where s.symbol = u.symbol and s.ts > $1 and s.ts <= $2)
           and not exists (select 1 from str_aux.samples_5s s
                           where s.symbol = u.symbol and s.ts > $2)",
        values![end - point::CYCLE, end],
    )
    .await?
    .i64(0)
}

/// The columns of a [`Stored`] point.
macro_rules! point_columns {
    () => {
        "p.ts, p.mid, p.bid_volume, p.ask_volume, p.v_inner, p.v_outer, p.v_swap, p.v_tendency, \
         p.disruption, p.amp, p.volt, p.inertia, p.mode_general, p.mode_b"
    };
}

/// The points of `symbol` in `(after, until]`, oldest first.
pub(crate) async fn stored(
    db: &Database,
    symbol: &Arc<str>,
    after: Time,
    until: Time,
) -> Result<Vec<Stored>, DbError> {
    db.scan(
        concat!(
            "select ",
            point_columns!(),
            " from str_aux.samples_5s p where p.symbol = $1 and p.ts > $2 and p.ts <= $3 \
             order by p.ts"
        ),
        values![Arc::clone(symbol), after, until],
        Vec::new(),
        |points, row| {
            points.push(Stored::read(row, 0)?);
            Ok(ControlFlow::Continue(()))
        },
    )
    .await
}

/// Where the rows of some symbols come from: their list, and then their points in time order.
macro_rules! of_symbols {
    () => {
        " from /*sqlite*/ json_each($1) s cross join str_aux.samples_5s p \
                 where p.symbol = s.value and p.ts > $2 and p.ts <= $3 /*end*/ \
                 /*pg*/ json_array_elements_text(cast($1 as json)) with ordinality as s(value, key) \
                 join str_aux.samples_5s p on p.symbol = s.value \
                 where p.ts > $2 and p.ts <= $3 order by s.key, p.ts /*end*/"
    };
}

/// Gives the points of all `symbols` in `(after, until]` to `each`, with the symbol's place in the
/// list: one query for all of them. The points of one symbol come oldest first.
pub(crate) async fn scan_points<T, F>(
    db: &Database,
    symbols: &[Arc<str>],
    (after, until): (Time, Time),
    state: T,
    mut each: F,
) -> Result<T, DbError>
where
    T: Send + 'static,
    F: FnMut(&mut T, usize, Stored) + Send + 'static,
{
    db.scan(
        concat!(
            "select /*sqlite*/ s.key /*end*/ /*pg*/ s.key - 1 /*end*/, ",
            point_columns!(),
            of_symbols!()
        ),
        values![names(symbols), after, until],
        state,
        move |state, row| {
            each(state, row.i64(0)? as usize, Stored::read(row, 1)?);
            Ok(ControlFlow::Continue(()))
        },
    )
    .await
}

/// The same for times and prices alone, of points that have one: less than half the work.
pub(crate) async fn scan_prices<T, F>(
    db: &Database,
    symbols: &[Arc<str>],
    (after, until): (Time, Time),
    state: T,
    mut each: F,
) -> Result<T, DbError>
where
    T: Send + 'static,
    F: FnMut(&mut T, usize, Time, f64) + Send + 'static,
{
    db.scan(
        concat!(
            "select /*sqlite*/ s.key /*end*/ /*pg*/ s.key - 1 /*end*/, p.ts, p.mid",
            of_symbols!()
        ),
        values![names(symbols), after, until],
        state,
        move |state, row| {
            if let Some(mid) = row.opt_f64(2)? {
                each(state, row.i64(0)? as usize, Time(row.i64(1)?), mid);
            }
            Ok(ControlFlow::Continue(()))
        },
    )
    .await
}

/// Symbols as the JSON array that a query takes as one parameter.
pub(crate) fn names(symbols: &[Arc<str>]) -> Value {
    let list: Vec<&str> = symbols.iter().map(AsRef::as_ref).collect();
    serde_json::json!(list).to_string().into()
}

/// Stores points, given as [`point_row`]s; one that is stored already stays.
pub(crate) fn insert_points(rows: Vec<Value>) -> Statement {
    Statement::bulk(
        "insert into str_aux.samples_5s values
           ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
            $20, $21, $22, $23, $24, $25, $26, $27, $28, $29)
         on conflict (symbol, ts) do nothing",
        29,
        rows,
    )
}

/// Stores cycles, given as [`cycle_row`]s; one that is stored already stays.
pub(crate) fn insert_cycles(rows: Vec<Value>) -> Statement {
    Statement::bulk(
        "insert into str_aux.cycles_40s values
           ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
            $20, $21)
         on conflict (symbol, cycle_start) do nothing",
        21,
        rows,
    )
}

/// The columns of `samples_5s`, in the order of the table.
pub(crate) fn point_row(
    symbol: &Arc<str>,
    p: &Point,
    s: Option<&Signals>,
) -> Result<Vec<Value>, serde_json::Error> {
    Ok(values![
        Arc::clone(symbol),
        p.at,
        p.mid,
        p.mid_min,
        p.mid_max,
        p.best_bid,
        p.best_ask,
        p.spread,
        p.spreads.map(|r| r.min),
        p.spreads.map(|r| r.max),
        p.spreads.map(|r| r.avg),
        p.bid_volume,
        p.ask_volume,
        p.bucket_count,
        p.tick_ms.map(|r| r.min),
        p.tick_ms.map(|r| r.max),
        p.tick_ms.map(|r| r.avg),
        p.liquidity_imbalance,
        serde_json::to_string(&p.quality)?,
        s.map(|s| s.v_inner),
        s.map(|s| s.v_outer),
        s.map(|s| s.v_swap),
        s.map(|s| s.v_tendency),
        s.map(|s| s.disruption),
        s.map(|s| s.amp),
        s.map(|s| s.volt),
        s.map(|s| s.inertia),
        s.map(|s| i64::from(s.mode_general)),
        s.map(|s| s.mode_b),
    ])
}

/// The columns of `cycles_40s`, in the order of the table.
pub(crate) fn cycle_row(symbol: &Arc<str>, c: &point::Cycle) -> Vec<Value> {
    let mut row = values![Arc::clone(symbol), c.start, c.points];
    row.extend(rollup_values(&c.signals));
    row
}

/// The 18 signal columns that cycles and windows share.
pub(crate) fn rollup_values(r: &point::Rollup) -> Vec<Value> {
    values![
        r.v_inner.min,
        r.v_inner.max,
        r.v_inner.avg,
        r.v_inner.close,
        r.v_outer.min,
        r.v_outer.max,
        r.v_outer.avg,
        r.v_outer.close,
        r.v_swap_avg,
        r.v_swap_close,
        r.v_tend_avg,
        r.v_tend_close,
        r.disruption_avg,
        r.amp_avg,
        r.volt_avg,
        r.inertia_avg,
        r.mode_general_close.map(i64::from),
        r.mode_b_close,
    ]
}

/// A symbol whose newest point is too old.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct NeededSample {
    /// Symbol.
    pub symbol: String,
    /// End of its newest bucket that saw a price; none before the first.
    pub newest: Option<Time>,
}

/// The enabled symbols whose newest point with a price is older than `stale` (20 s), in processing
/// order: `v_needed_samples` of section 4.4, and the stale targets of section 2.2.
///
/// # Errors
/// When the database fails.
pub async fn needed_samples(
    db: &Database,
    now: Time,
    stale: Millis,
) -> Result<Vec<NeededSample>, DbError> {
    let rows = db
        .query(
            "select n.symbol, n.newest from (
               select u.symbol, u.sort_order,
                 (select s.ts from str_aux.samples_5s s
                  where s.symbol = u.symbol and s.mid is not null order by s.ts desc limit 1)
                   as newest
               from settings.coin_universe u where u.enabled = 1
             ) n
             where n.newest is null or n.newest < $1
             order by n.sort_order is null, n.sort_order, n.symbol /*pg*/ collate \"C\" /*end*/",
            values![now - stale],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let newest = row.opt_i64(1)?.map(Time);
            Ok(NeededSample { symbol: row.text(0)?.to_owned(), newest })
        })
        .collect()
}
