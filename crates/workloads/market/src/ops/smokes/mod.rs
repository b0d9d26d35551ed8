//! Smokes: named checks that an operator runs and that give evidence (section 9.5).
//!
//! Each reads the store; `heartbeat` also writes one row, and three of the ledger's ask something
//! outside of it ([`Outside`]). None computes with a formula of its own: where a smoke recomputes,
//! it calls what the workers call.

mod ledger;
mod persist;
mod samples;
mod tables;

use watchbell_core::{BoxFuture, Millis, Time};
use watchbell_db::{Database, DbError};

use super::{Item, Level};
use crate::Config;

/// A check with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Smoke {
    /// Name.
    pub name: &'static str,
    /// What it looks at, in one sentence.
    pub about: &'static str,
}

/// All smokes, in the order in which they run.
pub const SMOKES: [Smoke; 17] = [
    of("db-generic", "the store answers, and every table and view is there"),
    of("universe", "symbols are enabled, have both halves, and agree with the market's mirror"),
    of("straux-gaps", "every symbol of the newest windows has stats and vectors"),
    of("sampling", "the newest points have order books"),
    of("idhr", "the histogram of the newest prices is well formed"),
    of("persist", "the newest windows give the same result when computed again"),
    of("matrices", "the newest slices have every cell, at one instant"),
    of("cin-entrypoint", "the account answers"),
    of("cin-db", "the newest rows of the ledger"),
    of("cin-core", "balances and luggage agree"),
    of("cin-job", "one tick of the trade watcher succeeds"),
    of("cin-pipeline", "importing twice imports nothing the second time"),
    of("cin-client", "the API answers"),
    of("heartbeat", "a note is written and read back as the newest"),
    of("jobs", "the queue is not stuck"),
    of("mood", "coefficients are in range and letters match"),
    of("window", "the last window that is due is complete"),
];

const fn of(name: &'static str, about: &'static str) -> Smoke {
    Smoke { name, about }
}

/// What smokes ask of the world outside the store. Answers are sentences.
pub trait Outside: Send + Sync {
    /// Whether a node serves its API: what it said, or why there is none.
    fn api(&self) -> BoxFuture<'_, Result<String, String>>;
    /// Whether the venue can be asked from here; a demonstration that does not run has none.
    fn has_venue(&self) -> bool;
    /// Rehearses one cycle of a worker, and writes nothing: its summary. `None` when no such worker
    /// is configured, or it cannot run here.
    fn rehearse<'a>(
        &'a self,
        worker: &'a str,
    ) -> BoxFuture<'a, Option<Result<serde_json::Value, String>>>;
}

/// What a smoke stands on.
pub(crate) struct Ground<'a> {
    pub(crate) db: &'a Database,
    pub(crate) config: &'a Config,
    pub(crate) outside: &'a dyn Outside,
    pub(crate) now: Time,
    /// Nothing is written.
    pub(crate) dry: bool,
}

impl Ground<'_> {
    fn item(
        &self,
        key: impl Into<String>,
        label: impl Into<String>,
        level: Level,
        value: impl Into<serde_json::Value>,
        message: impl Into<String>,
    ) -> Item {
        Item::new(self.now, key, label, level, value, message)
    }

    /// Nothing is there yet, and nothing is wrong with that.
    fn none(&self, key: impl Into<String>, label: impl Into<String>) -> Item {
        self.item(key, label, Level::Ok, serde_json::Value::Null, "no rows yet")
    }
}

/// Runs a smoke. `None` when there is none of that name.
///
/// # Errors
/// When the database fails; `db-generic` answers with an item instead.
pub async fn smoke(
    name: &str,
    db: &Database,
    config: &Config,
    outside: &dyn Outside,
    now: Time,
    dry: bool,
) -> Result<Option<Vec<Item>>, DbError> {
    let g = Ground { db, config, outside, now, dry };
    let items = match name {
        "db-generic" => tables::generic(&g).await,
        "universe" => tables::universe(&g).await?,
        "straux-gaps" => samples::gaps(&g).await?,
        "sampling" => samples::sampling(&g).await?,
        "idhr" => samples::idhr(&g).await?,
        "persist" => persist::persist(&g).await?,
        "matrices" => tables::matrices(&g).await?,
        "cin-entrypoint" => ledger::entrypoint(&g).await?,
        "cin-db" => ledger::rows(&g).await?,
        "cin-core" => ledger::core(&g).await?,
        "cin-job" => ledger::job(&g).await,
        "cin-pipeline" => ledger::pipeline(&g).await?,
        "cin-client" => ledger::client(&g).await,
        "heartbeat" => tables::heartbeat(&g).await?,
        "jobs" => super::scan::queue(db, now).await?,
        "mood" => tables::mood(&g).await?,
        "window" => windows(&g).await?,
        _ => return Ok(None),
    };
    Ok(Some(items))
}

/// Whether the newest window of each label that is due is complete.
async fn windows(g: &Ground<'_>) -> Result<Vec<Item>, DbError> {
    let mut items = Vec::new();
    for length in g.config.ascending() {
        let item = super::scan::windows(g.db, length, g.now).await?;
        items.push(last_window(g, length, item).await?);
    }
    Ok(items)
}

async fn last_window(g: &Ground<'_>, length: Millis, day: Item) -> Result<Item, DbError> {
    let label = length.exact();
    let due = (g.now - g.config.settle - Millis::from_mins(5)).floor(length) - length;
    let row =
        g.db.query_opt(
            "select state, error from ops.windows where series = $1 and start_at = $2
             order by case state when 'complete' then 0 else 1 end, version desc limit 1",
            watchbell_core::values![crate::window::series_name(length), due],
        )
        .await?;
    let (level, state, said) = match &row {
        None if day.meta["expected"] == 0 => {
            return Ok(g.none(format!("window:{label}"), format!("{label} window")));
        }
        None => (Level::Err, "missing", format!("the window of {due} was not computed")),
        Some(row) => match row.text(0)? {
            "complete" => (Level::Ok, "complete", format!("the window of {due} is complete")),
            "abandoned" => {
                let why = row.opt_text(1)?.unwrap_or_default();
                (Level::Warn, "abandoned", format!("the window of {due} was abandoned: {why}"))
            }
            _ => (Level::Err, "late", format!("the window of {due} is not complete")),
        },
    };
    Ok(g.item(format!("window:{label}"), format!("{label} window"), level, state, said)
        .meta(serde_json::json!({ "start": due, "day": day.meta })))
}
