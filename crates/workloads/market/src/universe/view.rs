//! What pages and commands show of the universe.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use watchbell_core::{Time, values};
use watchbell_db::{Database, DbError};

use super::change::{Requests, Universe};

/// A symbol of the universe with everything that is known of its state.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UniverseRow {
    /// Symbol.
    pub symbol: Arc<str>,
    /// What is traded.
    pub base: String,
    /// What it is paid in.
    pub quote: String,
    /// Whether it is in the universe now.
    pub enabled: bool,
    /// Whether a client asks for it: true where nobody asks for less than everything.
    pub requested: bool,
    /// Whether it is computed: enabled, requested, and not known to be beyond reach.
    pub effective: bool,
    /// Place in the universe.
    pub sort_order: Option<i64>,
    /// Who put it there.
    pub source: Option<String>,
    /// Who disabled it: `auto`, `user`, or nobody (the configuration).
    pub disabled_by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Since when it is as it is; none where it always was.
    pub since: Option<Time>,
    /// The venue's word for it, or `NOT_LISTED`.
    pub status: Option<String>,
    /// Whether it could be carried at the last look.
    pub capable: Option<bool>,
    /// Good runs in a row.
    pub ok_streak: i64,
    /// Bad runs in a row.
    pub bad_streak: i64,
    /// Codes of the present drift.
    pub drift: Vec<String>,
    /// When it was looked at.
    pub checked_at: Option<Time>,
    /// Its newest mood in the windows of each label.
    pub moods: BTreeMap<String, SymbolLabelMood>,
}

/// One symbol's mood in the newest window of a label.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SymbolLabelMood {
    /// Start of the window.
    pub window_start: Time,
    /// Coefficient.
    pub coeff: f64,
    /// Class.
    pub mood_id: String,
}

/// One line of the drift log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DriftRow {
    /// When.
    pub ts: Time,
    /// Symbol.
    pub symbol: Arc<str>,
    /// What, such as `STALE_KLINES`.
    pub code: String,
    /// How bad: `info`, `warn`, `err`.
    pub severity: String,
    /// What was done: `noticed`, `cleared`, `disabled`, ...
    pub action: String,
}

/// All symbols that the universe has or had, in processing order.
///
/// # Errors
/// When the database fails.
pub async fn universe(db: &Database, now: Time) -> Result<Vec<UniverseRow>, DbError> {
    let universe = Universe::load(db).await?;
    let requests = Requests::load(db).await?;
    let snapshot = db.snapshot().await?;
    let mut rows: Vec<UniverseRow> = universe
        .entries
        .into_iter()
        .map(|e| UniverseRow {
            requested: requests.include(&e.symbol, now),
            effective: e.enabled && requests.include(&e.symbol, now),
            symbol: e.symbol,
            base: e.base,
            quote: e.quote,
            enabled: e.enabled,
            sort_order: e.sort_order,
            source: e.metadata.source,
            disabled_by: e.metadata.disabled_by,
            reason: e.metadata.reason,
            since: None,
            status: None,
            capable: None,
            ok_streak: 0,
            bad_streak: 0,
            drift: Vec::new(),
            checked_at: None,
            moods: BTreeMap::new(),
        })
        .collect();
    let place: BTreeMap<Arc<str>, usize> =
        rows.iter().enumerate().map(|(i, r)| (Arc::clone(&r.symbol), i)).collect();
    let of = |symbol: Arc<str>| place.get(&symbol).copied();
    let facts = snapshot
        .query(
            "select u.symbol, l.status, v.capable, v.ok_streak, v.bad_streak, v.codes, v.checked_at,
                    (select max(c.at) from settings.universe_changes c where c.symbol = u.symbol)
             from settings.coin_universe u
             left join ingest.listings l on l.symbol = u.symbol
             left join settings.universe_validation v on v.symbol = u.symbol",
            Vec::new(),
        )
        .await?;
    for fact in &facts {
        let Some(i) = of(fact.shared_text(0)?) else { continue };
        let row = &mut rows[i];
        row.status = fact.opt_text(1)?.map(str::to_owned);
        row.capable = fact.opt_bool(2)?;
        row.effective &= row.capable != Some(false);
        row.ok_streak = fact.opt_i64(3)?.unwrap_or(0);
        row.bad_streak = fact.opt_i64(4)?.unwrap_or(0);
        let codes = fact.opt_text(5)?.map(serde_json::from_str);
        row.drift = codes.transpose().unwrap_or_default().unwrap_or_default();
        row.checked_at = fact.opt_time(6)?;
        row.since = fact.opt_time(7)?.filter(|at| *at > Time::EPOCH);
    }
    let moods = snapshot
        .query(
            "select m.symbol, m.window_label, m.window_start, m.coeff, m.mood_id
             from mea_dynamics.v_latest_moods l
             join mea_dynamics.symbol_moods m
               on m.window_label = l.window_label and m.window_start = l.window_start
                  and m.version = l.version",
            Vec::new(),
        )
        .await?;
    for mood in &moods {
        let Some(i) = of(mood.shared_text(0)?) else { continue };
        let value = SymbolLabelMood {
            window_start: mood.time(2)?,
            coeff: mood.f64(3)?,
            mood_id: mood.text(4)?.to_owned(),
        };
        rows[i].moods.insert(mood.text(1)?.to_owned(), value);
    }
    Ok(rows)
}

/// The newest lines of the drift log, newest first.
///
/// # Errors
/// When the database fails.
pub async fn drift(db: &Database, limit: u32) -> Result<Vec<DriftRow>, DbError> {
    let rows = db
        .query(
            "select ts, symbol, code, severity, action from ops.universe_drift
             order by ts desc, id desc limit $1",
            values![limit],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(DriftRow {
                ts: row.time(0)?,
                symbol: row.shared_text(1)?,
                code: row.text(2)?.to_owned(),
                severity: row.text(3)?.to_owned(),
                action: row.text(4)?.to_owned(),
            })
        })
        .collect()
}
