//! Settings that pages and the metronome read (section 1.5): one stored document, each value within its
//! bounds, what is not stored at its default.
//!
//! The cycle of 40 seconds is no setting. Everything is derived from it, and windows are whole numbers of
//! it by their length.

use serde::{Deserialize, Serialize};
use watchbell_core::{Commit, Expect, Millis, Statement, Time, values};
use watchbell_db::{Database, DbError};

/// All settings.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How numbers are shown.
    pub stats: Stats,
    /// How often pages ask.
    pub poll: Poll,
    /// The metronome.
    pub timing: Timing,
    /// Small constants of derived values.
    pub params: Constants,
}

/// How numbers are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stats {
    /// Bins of a shown histogram, 16 or more.
    pub histogram_len: u32,
    /// Decimals of a benchmark, 0 to 6.
    pub bm_decimals: u32,
    /// Decimals of a change, 0 to 8.
    pub id_pct_decimals: u32,
}

/// How often pages ask; both from 5 to 600 seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Poll {
    /// What changes with each cycle.
    pub short_ms: Millis,
    /// What changes rarely.
    pub long_ms: Millis,
}

/// The metronome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timing {
    /// Whether pages refresh by themselves.
    pub auto_refresh: bool,
    /// How often, half a second or more.
    pub auto_refresh_ms: Millis,
    /// Whether there is a second, slower rhythm.
    pub secondary_enabled: bool,
    /// Of so many cycles, 1 to 10.
    pub secondary_cycles: u32,
}

/// Small constants of derived values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Constants {
    /// Eta.
    pub eta: f64,
    /// Epsilon.
    pub epsilon: f64,
    /// Iota.
    pub iota: f64,
}

impl Default for Stats {
    fn default() -> Self {
        Self { histogram_len: 64, bm_decimals: 4, id_pct_decimals: 6 }
    }
}

impl Default for Poll {
    fn default() -> Self {
        Self { short_ms: Millis::from_secs(40), long_ms: Millis::from_secs(120) }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            auto_refresh: true,
            auto_refresh_ms: Millis::from_secs(40),
            secondary_enabled: true,
            secondary_cycles: 3,
        }
    }
}

impl Default for Constants {
    fn default() -> Self {
        Self { eta: 0.02, epsilon: 0.2, iota: 0.5 }
    }
}

impl Settings {
    /// Each value within its bounds.
    #[must_use]
    pub fn clamped(self) -> Self {
        let poll = |ms: Millis| ms.clamp(Millis::from_secs(5), Millis::from_secs(600));
        let or = |x: f64, default: f64| if x.is_finite() { x } else { default };
        let Constants { eta, epsilon, iota } = Constants::default();
        Self {
            stats: Stats {
                histogram_len: self.stats.histogram_len.max(16),
                bm_decimals: self.stats.bm_decimals.min(6),
                id_pct_decimals: self.stats.id_pct_decimals.min(8),
            },
            poll: Poll { short_ms: poll(self.poll.short_ms), long_ms: poll(self.poll.long_ms) },
            timing: Timing {
                auto_refresh_ms: self.timing.auto_refresh_ms.max(Millis(500)),
                secondary_cycles: self.timing.secondary_cycles.clamp(1, 10),
                ..self.timing
            },
            params: Constants {
                eta: or(self.params.eta, eta),
                epsilon: or(self.params.epsilon, epsilon),
                iota: or(self.params.iota, iota),
            },
        }
    }

    /// These settings with the values of `patch`, a document of the same form that leaves out what
    /// stays.
    ///
    /// # Errors
    /// When the patch has a key that there is none of, or a value of another kind.
    pub(crate) fn with(self, patch: &serde_json::Value) -> Result<Self, serde_json::Error> {
        let mut all = serde_json::to_value(self)?;
        merge(&mut all, patch);
        Ok(serde_json::from_value::<Self>(all)?.clamped())
    }

    /// Stores them.
    pub(crate) fn store(&self, now: Time) -> Result<Commit, serde_json::Error> {
        Ok(Commit::new().with(
            Statement::new(
                "update settings.params set app = $1, updated_at = $2 where id = 1",
                values![serde_json::to_string(self)?, now],
            )
            .expect(Expect::Exactly(1)),
        ))
    }
}

fn merge(into: &mut serde_json::Value, patch: &serde_json::Value) {
    match (into, patch) {
        (serde_json::Value::Object(into), serde_json::Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key.clone()).or_insert(serde_json::Value::Null), value);
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

/// The settings that hold.
///
/// # Errors
/// When the database fails.
pub async fn settings(db: &Database) -> Result<Settings, DbError> {
    let row = db.query_one("select app from settings.params where id = 1", Vec::new()).await?;
    // A document that a person broke by hand says nothing, and the defaults hold.
    let stored: Settings = serde_json::from_str(row.text(0)?).unwrap_or_default();
    Ok(stored.clamped())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_kept_within_their_bounds() {
        let patch = json!({
            "stats": {"histogram_len": 3, "bm_decimals": 9, "id_pct_decimals": 9},
            "poll": {"short_ms": 1, "long_ms": 86_400_000},
            "timing": {"auto_refresh_ms": 1, "secondary_cycles": 0},
        });
        let s = Settings::default().with(&patch).unwrap();
        assert_eq!(s.stats, Stats { histogram_len: 16, bm_decimals: 6, id_pct_decimals: 8 });
        assert_eq!(s.poll, Poll { short_ms: Millis(5_000), long_ms: Millis(600_000) });
        assert_eq!((s.timing.auto_refresh_ms, s.timing.secondary_cycles), (Millis(500), 1));
        assert_eq!(s.params, Constants::default(), "what is left out stays");
        assert_eq!(Settings::default().clamped(), Settings::default());
        for wrong in [json!({"stat": {}}), json!({"poll": {"short_ms": "often"}}), json!(7)] {
            assert!(Settings::default().with(&wrong).is_err(), "{wrong}");
        }
    }
}
