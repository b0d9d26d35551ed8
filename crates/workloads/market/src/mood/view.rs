//! What pages and commands show of the mood.

use std::collections::BTreeMap;

use serde::Serialize;
use watchbell_core::{Time, values};
use watchbell_db::{Database, DbError};

use super::state::{Incoherent, Tier, incoherences};

/// The newest mood of one label.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelMood {
    /// Label, such as `30m`.
    pub label: String,
    /// Start of the window.
    pub window_start: Time,
    /// End of the window.
    pub ts: Time,
    /// Coefficient.
    pub coeff: f64,
    /// Class, such as `Ea0`.
    pub mood_id: String,
    /// Tier, `S` to `E`.
    pub tier: String,
    /// Whether it is an earlier mood again, or the neutral one.
    pub is_fallback: bool,
    /// Whether it has been so for three windows or more.
    pub is_stale: bool,
    /// End of the window that the mood is of.
    pub stable_ts: Option<Time>,
    /// Everything that it was made of.
    pub payload: serde_json::Value,
}

/// The newest moods of all labels, and where they contradict each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MoodState {
    /// By label.
    pub labels: Vec<LabelMood>,
    /// Pairs of labels whose tiers are more than two apart (`TIER_INCOHERENT`).
    pub incoherent: Vec<Incoherent>,
}

/// One symbol's own mood in a window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SymbolMood {
    /// Symbol.
    pub symbol: String,
    /// Change of the floating mode, a fraction.
    pub g: f64,
    /// Tendency, a fraction of its scale.
    pub t: f64,
    /// Swap, a fraction of its scale.
    pub v: f64,
    /// Weight in the market's mood.
    pub weight: f64,
    /// Coefficient.
    pub coeff: f64,
    /// Class.
    pub mood_id: String,
}

/// The newest mood of each label.
///
/// # Errors
/// When the database fails.
pub async fn moods(db: &Database) -> Result<MoodState, DbError> {
    let rows = db
        .query(
            "select window_label, window_start, ts_ms, coeff, mood_id, tier, is_fallback, is_stale,
                    stable_ts_ms, payload
             from mea_dynamics.v_latest_moods order by ts_ms - window_start, window_label",
            Vec::new(),
        )
        .await?;
    let labels = rows
        .iter()
        .map(|row| {
            Ok(LabelMood {
                label: row.text(0)?.to_owned(),
                window_start: row.time(1)?,
                ts: row.time(2)?,
                coeff: row.f64(3)?,
                mood_id: row.text(4)?.to_owned(),
                tier: row.text(5)?.to_owned(),
                is_fallback: row.bool(6)?,
                is_stale: row.bool(7)?,
                stable_ts: row.opt_time(8)?,
                payload: row.json(9)?,
            })
        })
        .collect::<Result<Vec<_>, DbError>>()?;
    let tiers: Vec<_> =
        labels.iter().filter_map(|l| Some((l.label.clone(), Tier::parse(&l.tier)?))).collect();
    Ok(MoodState { incoherent: incoherences(&tiers), labels })
}

/// The newest tier of each label.
pub(super) async fn tiers(db: &Database) -> Result<Vec<(String, Tier)>, DbError> {
    let rows = db
        .query(
            "select window_label, tier from mea_dynamics.v_latest_moods
             order by ts_ms - window_start, window_label",
            Vec::new(),
        )
        .await?;
    let mut tiers = Vec::with_capacity(rows.len());
    for row in &rows {
        tiers.push((row.text(0)?.to_owned(), Tier::parse(row.text(1)?).unwrap_or(Tier::E)));
    }
    Ok(tiers)
}

/// The symbols' own moods in the newest window of a label, by quote and base asset.
///
/// # Errors
/// When the database fails.
pub async fn symbol_moods(
    db: &Database,
    label: &str,
) -> Result<BTreeMap<String, BTreeMap<String, SymbolMood>>, DbError> {
    let rows = db
        .query(
            "select m.quote, m.base, m.symbol, m.g, m.t, m.v, m.weight, m.coeff, m.mood_id
             from mea_dynamics.v_latest_moods l
             join mea_dynamics.symbol_moods m
               on m.window_label = l.window_label and m.window_start = l.window_start
                  and m.version = l.version
             where l.window_label = $1",
            values![label],
        )
        .await?;
    let mut table: BTreeMap<String, BTreeMap<String, SymbolMood>> = BTreeMap::new();
    for row in &rows {
        let mood = SymbolMood {
            symbol: row.text(2)?.to_owned(),
            g: row.f64(3)?,
            t: row.f64(4)?,
            v: row.f64(5)?,
            weight: row.f64(6)?,
            coeff: row.f64(7)?,
            mood_id: row.text(8)?.to_owned(),
        };
        let of_quote = table.entry(row.text(0)?.to_owned()).or_default();
        of_quote.insert(row.text(1)?.to_owned(), mood);
    }
    Ok(table)
}
