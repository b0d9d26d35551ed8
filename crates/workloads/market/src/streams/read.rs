//! The stream table, for pages and commands.

use std::collections::BTreeMap;

use serde::Serialize;
use watchbell_core::{Time, values};
use watchbell_db::{Database, DbError};

/// Where one symbol stands in a session.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SymbolStreams {
    /// Symbol.
    pub symbol: String,
    /// End of the last cycle that was seen.
    pub cycle_end: Time,
    /// Floating mode that changes are measured from; none before the opening.
    pub ref_gfm: Option<f64>,
    /// Change from it, in percent points.
    pub delta_pct: Option<f64>,
    /// Cycles in a row beyond the threshold, negative below the reference.
    pub streak: Option<i64>,
    /// Shifts so far.
    pub shifts: i64,
    /// Swaps so far.
    pub swaps: i64,
    /// Grows with each shift.
    pub ui_epoch: i64,
    /// Whether the last shift is at most three minutes old.
    pub fresh: bool,
    /// Prices, changes, vectors and metrics, by name.
    pub rows: Vec<StreamRow>,
}

/// One row of the stream table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StreamRow {
    /// What: `benchmark`, `pct24h`, `pct_drv`, `v_inner`, ...
    pub stream: String,
    /// At the shift before the last.
    pub prev: Option<f64>,
    /// At the last shift, or the opening.
    pub cur: Option<f64>,
    /// At its greatest.
    pub greatest: Option<f64>,
}

/// The stream table of a session at `now`, by symbol.
///
/// # Errors
/// When the database fails.
pub async fn streams(
    db: &Database,
    session: &str,
    now: Time,
) -> Result<Vec<SymbolStreams>, DbError> {
    let snapshot = db.snapshot().await?;
    let states = snapshot
        .query(
            "select symbol, cycle_end, ref_gfm, delta_pct, streak, shifts, swaps, ui_epoch,
               fresh_until
             from str_aux.stream_state where session_id = $1
             order by symbol /*pg*/ collate \"C\" /*end*/",
            values![session],
        )
        .await?;
    let rows = snapshot
        .query(
            "select symbol, stream, prev, cur, greatest from str_aux.streams
             where session_id = $1
             order by symbol /*pg*/ collate \"C\" /*end*/, stream /*pg*/ collate \"C\" /*end*/",
            values![session],
        )
        .await?;
    let mut by_symbol: BTreeMap<&str, Vec<StreamRow>> = BTreeMap::new();
    for row in &rows {
        by_symbol.entry(row.text(0)?).or_default().push(StreamRow {
            stream: row.text(1)?.to_owned(),
            prev: row.opt_f64(2)?,
            cur: row.opt_f64(3)?,
            greatest: row.opt_f64(4)?,
        });
    }
    let mut all = Vec::with_capacity(states.len());
    for state in &states {
        let symbol = state.text(0)?;
        all.push(SymbolStreams {
            symbol: symbol.to_owned(),
            cycle_end: Time(state.i64(1)?),
            ref_gfm: state.opt_f64(2)?,
            delta_pct: state.opt_f64(3)?,
            streak: state.opt_i64(4)?,
            shifts: state.i64(5)?,
            swaps: state.i64(6)?,
            ui_epoch: state.i64(7)?,
            fresh: state.opt_i64(8)?.is_some_and(|until| now <= Time(until)),
            rows: by_symbol.remove(symbol).unwrap_or_default(),
        });
    }
    Ok(all)
}
