//! The universe: which symbols are observed, in which order, and since when.
//!
//! `settings.coin_universe` says what holds now, and `settings.universe_changes` what held when. All
//! who change it (the configuration at a start, a person's job, the validation) go through one plan
//! ([`change`]), which writes both in one commit.

mod change;
mod desk;
mod listings;
mod seed;
mod symbol;
mod validate;
mod validation;
mod venue;
mod view;

use std::sync::Arc;

use watchbell_core::{Millis, Statement, Time, values};
use watchbell_db::{Database, DbError};

pub(crate) use change::{Requests, mirror, unmirrored};
pub use desk::UNIVERSE_DESK;
pub(crate) use desk::{Desk, definition as desk_definition};
pub use listings::expected_windows;
pub(crate) use listings::{Listings, Tracked, tracked};
pub use seed::{SeedError, seed};
pub use symbol::{UnknownSymbol, split};
pub use validate::UNIVERSE_VALIDATION;
pub(crate) use validate::{Validation, definition as validation_definition};
pub use validation::{Code, Severity};
pub(crate) use venue::note_listing;
pub use view::{DriftRow, UniverseRow, drift, universe};

/// The one interval of candles that everything else is derived from.
pub(crate) const BASE: &str = "1m";
/// Its length.
pub(crate) const MINUTE: Millis = Millis::from_mins(1);
/// Missing candles for this long mean that the symbol was not traded then: windows leave it out.
/// A shorter silence is an outage, and its windows are incomplete.
pub const UNLISTED_AFTER: Millis = Millis::from_hours(24);

/// The enabled symbols, in processing order.
const ENABLED: &str = "select symbol from settings.coin_universe where enabled = 1
     order by sort_order is null, sort_order, symbol /*pg*/ collate \"C\" /*end*/";

/// The event of a change, with the exact sets.
pub const UNIVERSE_CHANGED: &str = "universe.changed";

/// The enabled symbols, in processing order.
pub(crate) async fn enabled(db: &Database) -> Result<Vec<Arc<str>>, DbError> {
    let rows = db.query(ENABLED, Vec::new()).await?;
    rows.iter().map(|row| row.shared_text(0)).collect()
}

/// Asks the synchronisation to reach back to `from`: before a backfill of windows.
///
/// # Errors
/// When the database fails.
pub async fn want_history(db: &Database, from: Time, now: Time) -> Result<(), DbError> {
    db.apply(vec![Statement::new(
        "update ingest.klines_cursor set wanted_from = $1, updated_at = $2
         where wanted_from > $1 and window_label = $3",
        values![from.floor(Millis::from_hours(3)), now, BASE],
    )])
    .await?;
    Ok(())
}
