//! Looking after the market: the health scan that runs each minute, the smokes that an operator
//! runs, and the notes that each boot leaves (section 9).
//!
//! A check is a function that reads and returns [`Item`]s: evidence, with a level. A [`Pack`] is the
//! items of one run, stored in one commit: complete or absent. All of it reads the runtime's own
//! tables (`ops.windows`, `ops.jobs`) as an operator would, and no query here takes a lock or grows
//! with the history.

mod health;
mod scan;
mod session;
mod smokes;
mod vitals;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use watchbell_core::{Statement, Time, values};
use watchbell_db::{Database, DbError};

pub use health::MARKET_HEALTH;
pub(crate) use health::{HealthWorker, definition};
pub use session::{Boot, SCHEMAS, booted, close_flag, open_flag, stopping};
pub use smokes::{Outside, SMOKES, Smoke, smoke};
pub use vitals::vitals;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Look at it some time.
    Warn,
    /// Look at it now.
    Err,
}

impl Level {
    /// `ok`, `warn` or `err`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Err => "err",
        }
    }

    /// `Ok` where it holds, else this level.
    #[must_use]
    pub const fn unless(self, holds: bool) -> Self {
        if holds { Self::Ok } else { self }
    }
}

/// One piece of evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// What was looked at: `area:name`.
    pub key: String,
    /// The same for people.
    pub label: String,
    /// How bad it is.
    pub level: Level,
    /// What was measured.
    pub value: Value,
    /// What to make of it, in an operator's words.
    pub message: String,
    /// Details.
    pub meta: Value,
    /// When it was looked at.
    pub ts: Time,
}

impl Item {
    /// Evidence of `now`, without details.
    pub fn new(
        now: Time,
        key: impl Into<String>,
        label: impl Into<String>,
        level: Level,
        value: impl Into<Value>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            key: key.into(),
            label: label.into(),
            level,
            value: value.into(),
            message: message.into(),
            meta: Value::Null,
            ts: now,
        }
    }

    /// With details.
    #[must_use]
    pub fn meta(mut self, meta: Value) -> Self {
        self.meta = meta;
        self
    }
}

/// The items of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pack {
    /// Whose: `health`, or the smokes that ran.
    pub scope: String,
    /// When.
    pub ts: Time,
    /// What was found, in the order of the checks.
    pub items: Vec<Item>,
    /// All of it in a few numbers.
    pub summary: Summary,
}

/// A pack in a few numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The worst.
    pub level: Level,
    /// Items of each level, and `total`.
    pub counts: BTreeMap<String, usize>,
}

impl Pack {
    /// The pack of `items`.
    pub fn new(scope: impl Into<String>, ts: Time, items: Vec<Item>) -> Self {
        let of = |level: Level| items.iter().filter(|i| i.level == level).count();
        let levels = [Level::Ok, Level::Warn, Level::Err];
        let mut counts: BTreeMap<String, usize> =
            levels.iter().map(|l| (l.as_str().to_owned(), of(*l))).collect();
        counts.insert("total".to_owned(), items.len());
        let level = items.iter().map(|i| i.level).max().unwrap_or(Level::Ok);
        Self { scope: scope.into(), ts, items, summary: Summary { level, counts } }
    }

    /// What stores it.
    ///
    /// # Errors
    /// Never for items that were read from JSON or made of numbers and texts.
    pub fn statement(&self) -> Result<Statement, serde_json::Error> {
        Ok(Statement::new(
            "insert into ops.smoke_pack (scope, ts, level, items, summary)
             values ($1, $2, $3, $4, $5)",
            values![
                self.scope.as_str(),
                self.ts,
                self.summary.level.as_str(),
                serde_json::to_string(&self.items)?,
                serde_json::to_string(&self.summary)?,
            ],
        ))
    }
}

/// Why a pack was not stored.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// An item has no JSON form.
    #[error("an item of the pack has no JSON form")]
    Json(#[from] serde_json::Error),
    /// The database failed.
    #[error("cannot store the pack")]
    Database(#[from] DbError),
}

/// Stores a pack: all of it or nothing.
///
/// # Errors
/// When the database fails.
pub async fn store_pack(db: &Database, pack: &Pack) -> Result<(), PackError> {
    db.apply(vec![pack.statement()?]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_as_bad_as_its_worst_item() {
        let item = |level| Item::new(Time(7), "a:b", "b", level, 1, "m");
        let pack = Pack::new("s", Time(7), vec![item(Level::Warn), item(Level::Ok)]);
        assert_eq!(pack.summary.level, Level::Warn);
        let counts: Vec<_> = pack.summary.counts.iter().map(|(k, n)| (k.as_str(), *n)).collect();
        assert_eq!(counts, [("err", 0), ("ok", 1), ("total", 2), ("warn", 1)]);
        assert_eq!(Pack::new("s", Time(7), vec![]).summary.level, Level::Ok);
        let json = serde_json::to_value(&pack).unwrap();
        assert_eq!(json["items"][0]["level"], "warn");
        assert_eq!(serde_json::from_value::<Pack>(json).unwrap(), pack);
    }
}
