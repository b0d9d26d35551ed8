//! The universe of the configuration, brought into the store at a start.

use watchbell_core::{Commit, Millis, Statement, Time, values};
use watchbell_db::{Database, DbError};

use super::UnknownSymbol;
use super::change::{By, Universe, Wish, WishError, cursor};

/// How often a start looks again, when another one is faster.
const ATTEMPTS: u32 = 5;

/// Brings the universe to what the configuration lists: its symbols are enabled in its order,
/// symbols that an earlier configuration listed and this one does not are disabled. What a person
/// disabled, or enabled by command, stays so.
///
/// # Errors
/// When a symbol cannot be split or the database fails; nothing is changed then.
pub async fn seed(
    db: &Database,
    symbols: &[String],
    windows: &[Millis],
    history_from: Time,
    now: Time,
) -> Result<(), SeedError> {
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        match attempt(db, symbols, windows, history_from, now).await {
            // Another node starts at the same time: what it wrote is read, and there may be nothing
            // left to do.
            Err(SeedError::Database(DbError::Unmet { .. })) if left > 0 => {}
            done => return done,
        }
    }
}

async fn attempt(
    db: &Database,
    symbols: &[String],
    windows: &[Millis],
    history_from: Time,
    now: Time,
) -> Result<(), SeedError> {
    let universe = Universe::load(db).await?;
    let plan = universe.plan(&Wish::Configure(symbols.to_vec())).map_err(|e| match e {
        WishError::Symbol(unknown) => SeedError::Symbol(unknown),
        WishError::Absent(symbol) => SeedError::Symbol(UnknownSymbol(symbol)),
    })?;
    let mut commit = Commit::new();
    for symbol in symbols {
        commit.push(cursor(&symbol.as_str().into(), history_from, now));
    }
    plan.write(&universe, By::Config, now, &mut commit).map_err(SeedError::Metadata)?;
    let labels = CANDLES.into_iter().chain(windows.iter().map(|length| (*length, 128)));
    for ((length, bins), place) in labels.zip(1_i64..) {
        commit.push(Statement::new(
            "insert into settings.windows (window_label, duration_ms, bins_default, display_order)
             values ($1, $2, $3, $4) on conflict do nothing",
            values![length.exact(), length, bins, place],
        ));
    }
    commit.push(Statement::new(
        "insert into settings.params values (1, 40000, 45, 90, 270, '{}', $1) on conflict do nothing",
        values![now],
    ));
    db.apply(commit.statements).await?;
    Ok(())
}

/// Labels of which only candles are fetched, with the bins of their histograms: no whole number of
/// cycles, or too short for a window. Those of windows come with the configuration.
const CANDLES: [(Millis, i64); 3] =
    [(Millis::from_mins(1), 256), (Millis::from_mins(5), 256), (Millis::from_mins(15), 128)];

/// Why the universe could not be seeded.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// A symbol cannot be split.
    #[error(transparent)]
    Symbol(#[from] UnknownSymbol),
    /// A row's metadata has no JSON.
    #[error("cannot write the metadata of a symbol")]
    Metadata(#[source] serde_json::Error),
    /// The database failed.
    #[error("cannot store the universe")]
    Database(#[from] DbError),
}
