//! What pages and commands show of the market: plain reads, each of which is bounded by the number
//! of symbols, by a limit, or by a span of time.

mod lists;
mod status;
mod window;

use serde::Serialize;
use watchbell_core::{Time, values};
use watchbell_db::{Database, DbError};

use crate::universe::BASE;

pub use lists::{
    BalanceLine, CloseLine, FlagLine, Grid, Jobs, JobsFailed, JobsOf, MoodLine, PackLine, RunLine,
    SampleLine, SessionLine, SliceLine, UniverseLine, VectorLine, balances, closing, flags, jobs,
    matrix, moods, packs, runs, samples, sessions, slices, universe, vectors,
};
pub use status::{Feed, MarketStatus, MissingWindows, SymbolLine, status};
pub(crate) use status::{Fresh, feed, freshness};
pub use window::{UnfinishedRun, UnknownWindow, WindowView, window};

/// Candles that the venue does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hole {
    /// Symbol.
    pub symbol: String,
    /// First missing open time.
    pub from: Time,
    /// End, exclusive.
    pub to: Time,
    /// `hole`, or `pending` while the venue may still answer otherwise.
    pub state: String,
}

/// How far one symbol's candles are known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Symbol.
    pub symbol: String,
    /// Where history is wanted from.
    pub wanted_from: Time,
    /// Where it is known from.
    pub from: Option<Time>,
    /// How far it is known.
    pub until: Option<Time>,
    /// The newest stored candle.
    pub last_open: Option<Time>,
}

/// Holes and gaps, by symbol and time.
///
/// # Errors
/// When the database fails.
pub async fn holes(db: &Database) -> Result<Vec<Hole>, DbError> {
    let rows = db
        .query(
            "select symbol, from_at, to_at, state from ingest.kline_gaps
             where interval_label = $1 and state <> 'repaired' order by symbol, from_at",
            values![BASE],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Hole {
                symbol: row.text(0)?.to_owned(),
                from: Time(row.i64(1)?),
                to: Time(row.i64(2)?),
                state: row.text(3)?.to_owned(),
            })
        })
        .collect()
}

/// Coverage of the enabled symbols, in processing order.
///
/// # Errors
/// When the database fails.
pub async fn coverage(db: &Database) -> Result<Vec<Coverage>, DbError> {
    let rows = db
        .query(
            "select c.symbol, c.wanted_from, c.covered_from, c.covered_until, c.last_open_time
             from ingest.klines_cursor c
             join settings.coin_universe u on u.symbol = c.symbol
             where u.enabled = 1 and c.window_label = $1
             order by u.sort_order is null, u.sort_order, u.symbol /*pg*/ collate \"C\" /*end*/",
            values![BASE],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Coverage {
                symbol: row.text(0)?.to_owned(),
                wanted_from: Time(row.i64(1)?),
                from: row.opt_i64(2)?.map(Time),
                until: row.opt_i64(3)?.map(Time),
                last_open: row.opt_i64(4)?.map(Time),
            })
        })
        .collect()
}
