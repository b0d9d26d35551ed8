//! `mood-refresh`: after a change of the universe that touches a symbol of the mood, looks at the
//! newest window again with the symbols that are effective now (section 7.4).
//!
//! That is an observation. The window's own mood does not change: it is of the symbols that were in
//! the universe at its start.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use watchbell_core::{
    BoxFuture, Commit, Cycle, CycleInput, Definition, Done, EventRecord, Fault, Millis, Time,
    Trigger, Worker, values,
};
use watchbell_db::{Database, DbError};

use super::worker::{make, observe, register};
use super::{MoodConfig, Published, inputs};
use crate::universe::{Listings, UNIVERSE_CHANGED};

/// Name of the worker.
pub const MOOD_REFRESH: &str = "mood-refresh";

/// The worker.
pub(crate) struct Refresh {
    db: Database,
    lengths: Vec<Millis>,
    config: MoodConfig,
}

/// The sets of a change, as the event carries them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Change {
    enabled: Vec<String>,
    disabled: Vec<String>,
    requested: Vec<String>,
    unrequested: Vec<String>,
}

impl Change {
    fn symbols(&self) -> impl Iterator<Item = &str> {
        let all = self.enabled.iter().chain(&self.disabled);
        all.chain(&self.requested).chain(&self.unrequested).map(String::as_str)
    }
}

/// What was done about one label.
#[derive(Debug, Serialize)]
struct Looked {
    label: String,
    window_start: Time,
    /// The observed mood; none where no symbol of the mood is touched.
    mood: Option<Published>,
}

impl Refresh {
    pub(crate) const fn new(db: Database, lengths: Vec<Millis>, config: MoodConfig) -> Self {
        Self { db, lengths, config }
    }

    async fn refresh(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let CycleInput::Event(event) = &cycle.input else {
            return Err(Fault::permanent("a mood is looked at again only after an event"));
        };
        let change = Change::deserialize(&event.payload).map_err(|e| {
            Fault::permanent(format!("event {} has no sets of symbols: {e}", event.id))
        })?;
        let (mut commit, mut looked) = (Commit::new(), Vec::new());
        for &length in &self.lengths {
            looked.extend(self.look(event, &change, length, &mut commit).await?);
        }
        Ok(Done::new(looked, commit))
    }

    async fn look(
        &self,
        event: &EventRecord,
        change: &Change,
        length: Millis,
        commit: &mut Commit,
    ) -> Result<Option<Looked>, Fault> {
        let label = length.exact();
        let Some((start, before)) = newest(&self.db, &label, event.at).await? else {
            return Ok(None);
        };
        // Who is in the universe at the event, of those that were listed during the window.
        let listings = Listings::load(&self.db).await?;
        let now = listings.during(event.at, event.at).map(Arc::clone);
        let limit = self.config.symbol_limit;
        let members = inputs::select(&self.db, now, event.at, limit).await?;
        let of_mood: BTreeSet<&str> =
            before.iter().map(String::as_str).chain(members.iter().map(|m| &*m.symbol)).collect();
        if !change.symbols().any(|symbol| of_mood.contains(symbol)) {
            return Ok(Some(Looked { label, window_start: start, mood: None }));
        }
        let params = &self.config.params;
        let made = make(&self.db, &label, (start, start + length), members, params).await?;
        commit.push(register(&made, params)?);
        commit.push(observe(&format!("{MOOD_REFRESH}-{label}"), event.at, event.id, &made)?);
        Ok(Some(Looked { label, window_start: start, mood: Some(made.published) }))
    }
}

/// The newest mood of a label at an instant: its window, and the symbols that it is made of.
async fn newest(
    db: &Database,
    label: &str,
    at: Time,
) -> Result<Option<(Time, Vec<String>)>, DbError> {
    let row = db
        .query_opt(
            "select window_start, payload from mea_dynamics.v_moods
             where window_label = $1 and ts_ms <= $2 order by window_start desc limit 1",
            values![label, at],
        )
        .await?;
    row.map(|row| {
        let payload = row.json(1)?;
        let symbols = serde_json::from_value(payload["symbols"].clone()).unwrap_or_default();
        Ok((row.time(0)?, symbols))
    })
    .transpose()
}

/// The worker.
pub(crate) fn definition() -> Definition {
    Definition::new(MOOD_REFRESH, Trigger::On { kinds: vec![UNIVERSE_CHANGED.to_owned()] })
        .describe(
            "After a change of the universe that touches the mood's symbols, observes the mood of the \
             newest windows with the symbols that are effective now.",
        )
        .timeouts(Millis::from_mins(1), Millis::from_mins(2))
}

impl Worker for Refresh {
    fn define(&self) -> Definition {
        definition()
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.refresh(cycle))
    }
}
