//! What pages and commands show of the matrices: plain reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use watchbell_core::{Time, values};
use watchbell_db::{Database, DbError, Row};

use super::cells::{Market, MatrixType};
use super::slice::Earlier;
use super::stored::{self, ReadError, document};

/// Most points of a history.
const MOST: usize = 1_000;

/// Why the matrices cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The database failed.
    #[error("cannot read the matrices")]
    Database(#[from] DbError),
    /// What is stored cannot be read.
    #[error("{0}")]
    Damaged(String),
}

impl From<ReadError> for ViewError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Database(e) => Self::Database(e),
            damaged @ ReadError::Document { .. } => Self::Damaged(damaged.to_string()),
        }
    }
}

/// A slice without its cells.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SliceHead {
    /// Series: the label of a window, or `cycle`.
    pub series: String,
    /// Its instant.
    pub ts: Time,
    /// 1, or higher for a corrected window.
    pub version: i64,
    /// Coins, in the order of rows and columns.
    pub coins: Vec<String>,
    /// Since when `pct_ref`, `ref` and `delta` look back.
    pub opening: Time,
    /// Counts of its cells.
    pub summary: serde_json::Value,
}

/// One matrix of a slice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GridView {
    /// The slice.
    #[serde(flatten)]
    pub head: SliceHead,
    /// Which of the seven.
    pub matrix_type: &'static str,
    /// Row by row: the base's cells against each coin; null on the diagonal, and where `reasons`
    /// says why.
    pub cells: Vec<Vec<Option<f64>>>,
    /// For each cell why it is empty.
    pub reasons: Vec<Vec<Option<String>>>,
    /// For each cell for how long it has not moved: 0 to 3.
    pub frozen: Vec<Vec<u8>>,
    /// For each cell whether its movement changed direction: 0 or 1.
    pub flipped: Vec<Vec<u8>>,
}

/// One pair at one instant: what all seven matrices say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairPoint {
    /// The slice's instant.
    pub ts: Time,
    /// By matrix; null where the cell is empty.
    pub values: BTreeMap<&'static str, Option<f64>>,
}

fn head(row: &Row) -> Result<SliceHead, ReadError> {
    let (series, ts) = (row.text(0)?.to_owned(), row.time(1)?);
    let key = (series.as_str(), ts);
    let coins = document(row, 3, "matrices.slices", "coins", key)?;
    let summary = document(row, 5, "matrices.slices", "summary", key)?;
    Ok(SliceHead { ts, version: row.i64(2)?, coins, opening: row.time(4)?, summary, series })
}

/// The newest slice of a series, without its cells; none while there is no slice.
///
/// # Errors
/// When the database fails, or what it holds cannot be read.
pub async fn latest_slice(db: &Database, series: &str) -> Result<Option<SliceHead>, ViewError> {
    let row = db
        .query_opt(
            "select series, ts_ms, version, coins, opening_ts, summary from matrices.slices
             where series = $1 order by ts_ms desc, version desc limit 1",
            values![series],
        )
        .await?;
    Ok(row.map(|row| head(&row)).transpose()?)
}

/// One matrix of the newest slice of a series; none while there is no slice.
///
/// # Errors
/// When the database fails, or what it holds cannot be read.
pub async fn latest_grid(
    db: &Database,
    series: &str,
    of: MatrixType,
) -> Result<Option<GridView>, ViewError> {
    let Some(head) = latest_slice(db, series).await? else { return Ok(None) };
    let key = (head.series.as_str(), head.ts);
    let (ts, version) = (head.ts, head.version);
    let n = head.coins.len();
    let place = |coin: &str| head.coins.iter().position(|c| c == coin);
    let (mut cells, mut reasons) = (vec![vec![None; n]; n], vec![vec![None; n]; n]);
    let rows = db
        .query(
            "select base, cells, reasons from matrices.rows
             where series = $1 and ts_ms = $2 and version = $3 and matrix_type = $4",
            values![series, ts, version, of.as_str()],
        )
        .await?;
    for row in &rows {
        let Some(b) = place(row.text(0)?) else { continue };
        cells[b] = document(row, 1, "matrices.rows", "cells", key)?;
        if row.opt_text(2)?.is_some() {
            reasons[b] = document(row, 2, "matrices.rows", "reasons", key)?;
        }
    }
    let (mut frozen, mut flipped) = (vec![vec![0; n]; n], vec![vec![0; n]; n]);
    let rows = db
        .query(
            "select base, frozen, flipped from matrices.flags
             where series = $1 and ts_ms = $2 and version = $3",
            values![series, ts, version],
        )
        .await?;
    for row in &rows {
        let Some(b) = place(row.text(0)?) else { continue };
        frozen[b] = document(row, 1, "matrices.flags", "frozen", key)?;
        flipped[b] = document(row, 2, "matrices.flags", "flipped", key)?;
    }
    Ok(Some(GridView { head, matrix_type: of.as_str(), cells, reasons, frozen, flipped }))
}

/// What all matrices of a series said of one pair, in its newest `limit` slices (at most 1,000), the
/// newest first. Slices that do not have both coins are left out.
///
/// # Errors
/// When the database fails, or what it holds cannot be read.
pub async fn pair_history(
    db: &Database,
    series: &str,
    base: &str,
    quote: &str,
    limit: usize,
) -> Result<Vec<PairPoint>, ViewError> {
    let limit = limit.min(MOST) as i64;
    Ok(stored::history(db, series, base, quote, Time::FAR_FUTURE, limit, None).await?)
}

/// The newest slice of `series` before `ts`, laid out over the coins of `market`: what the next slice
/// is computed from.
///
/// # Errors
/// When the database fails, or what it holds cannot be read.
pub async fn previous(
    db: &Database,
    series: &Arc<str>,
    ts: Time,
    market: &Market,
) -> Result<Option<Earlier>, ViewError> {
    Ok(stored::earlier(db, series, ts, market).await?)
}
