//! Allocation (section 6): how much of each coin the matrices suggest to move into each other one.
//!
//! For each window, after its matrices: `cell(b, q) = balance_b / k * weight(id_pct(b, q)) * mood`, in
//! units of `b`, null on the diagonal and where there is no route between the two coins. The weight is
//! that of the movement's tier, without sign; what is frozen weighs nothing. `k` is the number of
//! other coins, unless configured. Balances are those that the ledger's session that was open at the
//! window's end held then, else the wallet's of then, else equal amounts worth 1,000 USDT each: the
//! cycle says which. The mood is that of the window *before* this one, or the newest one before that,
//! 0.8 while there is none. A window waits until the mood of the one before is settled, so that it
//! allots the same whether it is computed at its end or in a backlog.
//!
//! A cycle is started, cooled once its allotments are stored, and then a snapshot of one pair is
//! taken: all in one commit, and immutable from then on.

mod balances;
mod grid;
mod snapshot;
mod view;
mod window;

use watchbell_core::Millis;

pub use grid::{Allotment, Rank, allot, cell};
pub use view::{CycleView, MeaView, SymbolView, latest};
pub(crate) use window::{MeaWorker, definition};

/// How balances are allotted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// What a balance is divided by before weights are applied; the number of other coins if none.
    pub k: Option<u32>,
    /// Base and quote of the snapshot. Where the slice lacks one of them, or none is configured: the
    /// first two coins after USDT.
    pub pair: Option<(String, String)>,
}

/// The name of the worker and of the series of a label, such as `mea-30m`.
#[must_use]
pub fn series_name(length: Millis) -> String {
    format!("mea-{}", length.exact())
}
