//! The session ledger: what an owner's session began with, what the account has traded since, and
//! what it came to. Spec: section 8.
//!
//! A session's ledger is a function of its opening and its moves in the order of their instants
//! (`fifo`): whenever a trade arrives, in whatever order, the same rows come out. Each change of a
//! session is one commit that is refused if the session has changed since it was read.
//!
//! * [`CIN_IMPORT_MOVES`] books the account's trades into all open sessions.
//! * [`CIN_DESK`] does what an operator asks for: open, close, retry, move, mark, refresh.

mod desk;
pub(crate) mod fifo;
mod import;
mod marks;
pub(crate) mod money;
mod prices;
mod rollup;
mod session;
mod view;

pub use desk::{
    CIN_DESK, LEDGER_IMPORT, SESSION_CLOSE, SESSION_MARK, SESSION_MOVE, SESSION_OPEN,
    SESSION_RETRY, WALLET_REFRESH,
};
pub(crate) use desk::{Desk, definition as desk_definition};
pub use import::CIN_IMPORT_MOVES;
pub(crate) use import::{ImportMoves, definition as import_definition};
pub use rollup::{Alignment, Band, Light, Mode, Reconciliation};
pub(crate) use session::{SessionError, units_at};
pub use view::{
    BalanceView, LotView, MoveView, PnlView, RollupView, SessionDetail, SessionFilter, SessionView,
    Unbooked, lots, moves, session, sessions,
};
