//! One window of one symbol, whole.

use serde::Serialize;
use watchbell_core::{Time, values};
use watchbell_db::{Database, DbError};

use crate::window::SERIES;

/// One symbol's window: what was published of its newest version.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WindowView {
    /// Symbol.
    pub symbol: String,
    /// Label.
    pub label: String,
    /// Start.
    pub start: Time,
    /// Version.
    pub version: i64,
    /// What it was computed from: `points` or `klines`.
    pub source: String,
    /// Points or candles.
    pub samples: i64,
    /// Cycles of 40 s; 0 of candles.
    pub cycles: i64,
    /// The first price.
    pub opening: f64,
    /// The last price.
    pub last: f64,
    /// The lowest price.
    pub price_min: f64,
    /// The highest price.
    pub price_max: f64,
    /// General floating mode, a price.
    pub gfm: f64,
    /// Its change against its reference, in percent points.
    pub delta_gfm_pct: f64,
    /// The same as a place in the histogram, 0 to 1.
    pub bfm: f64,
    /// Percent of the symbols that were disrupted.
    pub disruption_systemic: f64,
    /// The vector JSON, as it is stored.
    pub vectors: serde_json::Value,
    /// Histograms, extrema, intrinsic metrics and shifts, as they are stored.
    pub stats: serde_json::Value,
}

/// No such window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownWindow {
    /// Symbols that have windows of that label.
    pub symbols: Vec<String>,
    /// The window of that symbol and label that begins nearest to what was asked for, or the newest.
    pub nearest: Option<Time>,
    /// What became of the window that was asked for, where it exists and is not complete.
    pub run: Option<UnfinishedRun>,
}

/// A window that has no result, or none yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedRun {
    /// The series of its label.
    pub series: String,
    /// Its start.
    pub start: Time,
    /// `open`, `ready`, `running`, `failed` or `abandoned`.
    pub state: String,
    /// Why it failed or was abandoned.
    pub reason: Option<String>,
}

/// The window of `symbol` and `label` that starts at `start`, or the newest.
///
/// # Errors
/// When the database fails.
pub async fn window(
    db: &Database,
    symbol: &str,
    label: &str,
    start: Option<Time>,
) -> Result<Result<WindowView, UnknownWindow>, DbError> {
    let newest = db
        .query_one(
            "select max(window_start) from str_aux.windows where symbol = $1 and window_label = $2",
            values![symbol, label],
        )
        .await?
        .opt_time(0)?;
    let row = match start.or(newest) {
        None => None,
        Some(start) => {
            db.query_opt(
                "select w.version, w.source, w.samples, w.cycles_count, s.opening, s.last_price,
                        s.price_min, s.price_max, s.gfm, s.delta_gfm_pct, s.bfm,
                        s.disruption_systemic, s.stats, v.vec, w.window_start
                 from str_aux.windows w
                 join str_aux.window_stats s on s.symbol = w.symbol
                  and s.window_label = w.window_label and s.window_start = w.window_start
                  and s.version = w.version
                 join str_aux.window_vectors v on v.symbol = w.symbol
                  and v.window_label = w.window_label and v.window_start = w.window_start
                  and v.version = w.version
                 where w.symbol = $1 and w.window_label = $2 and w.window_start = $3
                 order by w.version desc limit 1",
                values![symbol, label, start],
            )
            .await?
        }
    };
    let Some(row) = row else {
        let rows = db
            .query(
                "select u.symbol from settings.coin_universe u
                 where exists (select 1 from str_aux.windows w
                   where w.symbol = u.symbol and w.window_label = $1)
                 order by u.symbol /*pg*/ collate \"C\" /*end*/",
                values![label],
            )
            .await?;
        let symbols =
            rows.iter().map(|r| Ok(r.text(0)?.to_owned())).collect::<Result<_, DbError>>()?;
        let (mut run, mut near) = (None, newest);
        if let (Some(start), Some(_)) = (start, newest) {
            let series = format!("{SERIES}{label}");
            run = unfinished(db, &series, start).await?;
            near = nearest(db, symbol, label, &series, start).await?;
        }
        return Ok(Err(UnknownWindow { symbols, nearest: near, run }));
    };
    Ok(Ok(WindowView {
        symbol: symbol.to_owned(),
        label: label.to_owned(),
        start: row.time(14)?,
        version: row.i64(0)?,
        source: row.text(1)?.to_owned(),
        samples: row.i64(2)?,
        cycles: row.i64(3)?,
        opening: row.f64(4)?,
        last: row.f64(5)?,
        price_min: row.f64(6)?,
        price_max: row.f64(7)?,
        gfm: row.f64(8)?,
        delta_gfm_pct: row.f64(9)?,
        bfm: row.f64(10)?,
        disruption_systemic: row.f64(11)?,
        stats: row.json(12)?,
        vectors: row.json(13)?,
    }))
}

/// The window of that start, if its newest version is not complete.
async fn unfinished(
    db: &Database,
    series: &str,
    start: Time,
) -> Result<Option<UnfinishedRun>, DbError> {
    let row = db
        .query_opt(
            "select state, error from ops.windows where series = $1 and start_at = $2
             order by version desc limit 1",
            values![series, start],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    if row.text(0)? == "complete" {
        return Ok(None);
    }
    Ok(Some(UnfinishedRun {
        series: series.to_owned(),
        start,
        state: row.text(0)?.to_owned(),
        reason: row.opt_text(1)?.map(str::to_owned),
    }))
}

/// The start nearest to `start` among the windows of the symbol and those of its label that have no
/// result: whoever mistypes the start of an abandoned window means that one.
async fn nearest(
    db: &Database,
    symbol: &str,
    label: &str,
    series: &str,
    start: Time,
) -> Result<Option<Time>, DbError> {
    let row = db
        .query_opt(
            "select at from (
               select window_start as at from str_aux.windows
               where symbol = $1 and window_label = $2
               union select start_at from ops.windows
               where series = $3 and state in ('failed', 'abandoned')) known
             order by abs(at - $4), at limit 1",
            values![symbol, label, series, start],
        )
        .await?;
    row.map(|row| row.time(0)).transpose()
}
