//! The seven matrices over all coins (section 5): what each coin is worth in each other one, and how
//! that changed over 24 hours, since the slice before, and since the opening.
//!
//! A *slice* is all seven matrices of one *series* at one instant, stored in one commit:
//!
//! | type | cell of base `b` and quote `q` | unit |
//! |---|---|---|
//! | `benchmark` | the price `bm`: of the pair itself, or 1 by that of its inverse, or `p_b / p_q` in USDT | quote |
//! | `pct24h` | `(1 + c_b) / (1 + c_q) - 1`, with `c` the change against USDT over 24 hours | fraction |
//! | `id_pct` | `(bm - bm_before) / bm_before` | fraction |
//! | `pct_drv` | `id_pct - id_pct_before` | fraction |
//! | `pct_ref` | `(bm - open) / open` | fraction |
//! | `ref` | `(1 + id_pct) * pct_ref` | fraction |
//! | `delta` | `bm - open * (1 + ref)`, which is `-open * id_pct * pct_ref` | quote |
//!
//! Series are the labels of windows (`30m`, stamped with the window's end, never changed, kept) and
//! [`CYCLE_SERIES`] (the present, after each forty-second cycle, kept for [`Config::keep`]). "Before" is the newest
//! slice of the same series. The opening is that of the ledger's session that was open then, else
//! midnight in UTC; its prices are stored when they are first met (`matrices.openings`), and later
//! corrections of candles do not reach them.
//!
//! [`cells`] and [`tiers`] are pure; [`mod@slice`] makes hashes and rows of them.

pub mod cells;
mod grid;
mod live;
mod rates;
pub mod slice;
pub(crate) mod stored;
pub mod tiers;
mod view;
pub(crate) mod window;

use watchbell_core::Millis;

use crate::analytics::point::CYCLE;

pub(crate) use live::LiveWorker;
pub use live::MATRICES;
pub use view::{
    GridView, PairPoint, SliceHead, ViewError, latest_grid, latest_slice, pair_history, previous,
};
pub(crate) use window::MatricesWorker;
pub use window::series_name;

/// The series of the live refresh.
pub const CYCLE_SERIES: &str = "cycle";

/// How the matrices are computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How often those of the present are: each cycle (40 s).
    pub refresh: Millis,
    /// How long slices of the present are kept (5 days: they are by far the largest rows, and grow
    /// with the square of the coins); those of windows are kept for good.
    pub keep: Millis,
}

impl Default for Config {
    fn default() -> Self {
        Self { refresh: CYCLE, keep: Millis::from_days(5) }
    }
}

pub(crate) use live::definition as live_definition;
pub(crate) use window::definition as window_definition;
