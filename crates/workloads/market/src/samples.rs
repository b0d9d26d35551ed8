//! Five-second points and forty-second cycles as rows: written by the sampler, read by it after a
//! start and by the windows.

use std::ops::ControlFlow;
use std::sync::Arc;

use watchbell_core::{Statement, Time, Value, values};
use watchbell_db::{Database, DbError};

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
}

/// The points of `symbol` in `(after, until]`, oldest first.
pub(crate) async fn stored(
    db: &Database,
    symbol: &Arc<str>,
    after: Time,
    until: Time,
) -> Result<Vec<Stored>, DbError> {
    db.scan(
        "select ts, mid, bid_volume, ask_volume, v_inner, v_outer, v_swap, v_tendency,
                disruption, amp, volt, inertia, mode_general, mode_b
         from str_aux.samples_5s where symbol = $1 and ts > $2 and ts <= $3 order by ts",
        values![Arc::clone(symbol), after, until],
        Vec::new(),
        |points, row| {
            let signals = match row.opt_f64(4)? {
                None => None,
                Some(v_inner) => Some(Signals {
                    v_inner,
                    v_outer: row.f64(5)?,
                    v_swap: row.f64(6)?,
                    v_tendency: row.f64(7)?,
                    disruption: row.f64(8)?,
                    amp: row.f64(9)?,
                    volt: row.f64(10)?,
                    inertia: row.f64(11)?,
                    mode_general: row.i64(12)? as u16,
                    mode_b: row.i64(13)? as i32,
                }),
            };
            points.push(Stored {
                at: Time(row.i64(0)?),
                mid: row.opt_f64(1)?,
                bid_volume: row.f64(2)?,
                ask_volume: row.f64(3)?,
                signals,
            });
            Ok(ControlFlow::Continue(()))
        },
    )
    .await
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
