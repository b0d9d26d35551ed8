//! How it is going: the lines of the workers, their schedules, and the whole picture.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use watchbell_api::{
    CycleProgress, DefinitionText, Result, ScheduleLine, Status, StoreAnswers, StoreInfo,
    VenueLine, WorkerDetail, WorkerLine,
};
use watchbell_core::freshness::{self, Freshness};
use watchbell_core::gate::Gate;
use watchbell_core::lifecycle::{Desired, State};
use watchbell_core::port::{SeriesSummary, WindowQuery, WorkerRecord};
use watchbell_core::{Condition, Definition, SeriesName, Time, Trigger, WorkerName, schedule};
use watchbell_engine::{RunningView, StoreView};
use watchbell_venues::binance::State as VenueState;

use super::{HISTORY, LocalControl, Picture, not_found, notices};
use crate::installation::trouble;

/// Due instants that a schedule shows ahead.
const AHEAD: usize = 3;

impl LocalControl {
    pub(super) async fn full_status(&self) -> Result<Status> {
        let (picture, series, store) =
            tokio::join!(self.picture(), self.store.series(), self.store_info());
        let picture = picture?;
        let queue = self.queue_lines(&picture).await?;
        let series: BTreeMap<SeriesName, SeriesSummary> = series?;
        let workers = self.lines(&picture);
        let venue = self.venue_line(&picture);
        let facts = notices::Facts { workers: &workers, series: &series, queue: &queue };
        let notices = self.notices(&picture, facts, venue.as_ref()).await?;
        Ok(Status {
            now: picture.now,
            node: self.node_info(),
            store: store?,
            series,
            workers,
            nodes: picture.nodes,
            queue,
            venue,
            notices,
        })
    }

    async fn store_info(&self) -> Result<StoreInfo> {
        let about = self.db.describe().await.map_err(|e| trouble(&e))?;
        let lines = self
            .db
            .query(
                "select line, max(number) from ops.migrations group by line order by line",
                Vec::new(),
            )
            .await
            .map_err(|e| trouble(&e))?;
        let mut schema = Vec::with_capacity(lines.len());
        for row in &lines {
            let line = row.text(0).map_err(|e| trouble(&e))?;
            schema.push(format!("{line}/{}", row.i64(1).map_err(|e| trouble(&e))?));
        }
        let bytes = about.bytes.saturating_add(about.log_bytes);
        Ok(StoreInfo {
            engine: match about.engine {
                "sqlite" => "SQLite".to_owned(),
                "postgres" => "PostgreSQL".to_owned(),
                other => other.to_owned(),
            },
            path: about.location,
            synchronous: about.synchronous,
            schema: schema.join(" "),
            size_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            answers: self.engine.as_ref().map(|engine| {
                let StoreView { pressure, p95, under_way: _ } = engine.store();
                let p95_us = p95.map(|p| u64::try_from(p.as_micros()).unwrap_or(u64::MAX));
                StoreAnswers { pressure, p95_us }
            }),
        })
    }

    /// The node has its own impression of the venue; without one, the stored condition tells.
    fn venue_line(&self, picture: &Picture) -> Option<VenueLine> {
        let (client, base_url) = self.venue.as_ref()?;
        let name = watchbell_market::VENUE.rsplit(':').next().unwrap_or_default().to_owned();
        let base_url = base_url.clone();
        if self.engine.is_some() {
            let health = client.health(picture.now);
            let (used, limit) = client.limiter().used();
            return Some(VenueLine {
                name,
                base_url,
                state: health.state.to_string(),
                since: Some(health.since),
                // While all is well there is no reason to give one.
                reason: Some(health.reason).filter(|_| health.state != VenueState::Ok),
                used_weight: Some(used),
                limit: Some(limit),
            });
        }
        let stored = picture.conditions.iter().find(|c| c.name == watchbell_market::VENUE);
        let bad = stored.filter(|c| !holds(c, picture.now));
        Some(VenueLine {
            name,
            base_url,
            state: if bad.is_some() { "down" } else { "ok" }.to_owned(),
            since: None,
            reason: bad.map(|c| c.detail.clone()),
            used_weight: None,
            limit: None,
        })
    }

    pub(super) fn lines(&self, picture: &Picture) -> Vec<WorkerLine> {
        picture.records.values().map(|r| self.line(picture, r)).collect()
    }

    pub(super) fn line_of(&self, picture: &Picture, name: &WorkerName) -> Result<WorkerLine> {
        let record = picture.records.get(name).ok_or_else(|| {
            not_found("worker", name.as_str(), picture.records.keys().map(WorkerName::as_str))
        })?;
        Ok(self.line(picture, record))
    }

    fn line(&self, picture: &Picture, record: &WorkerRecord) -> WorkerLine {
        let freshness = match self.definition(&record.name) {
            Some(definition) => freshness::freshness(
                definition,
                record.last_success_at,
                record.state_since,
                picture.now,
            ),
            // Not of this configuration: its stored limit still holds.
            None => stored_freshness(record, picture.now),
        };
        let running = picture.views.get(&record.name).and_then(|v| v.running.first());
        let said = running.and_then(in_progress);
        let progress = running.and_then(|r| r.progress.clone());
        let progress = progress.or_else(|| self.alone(&record.name));
        WorkerLine {
            health: freshness::health(record.state, record.consecutive_errors, freshness),
            freshness,
            waiting: said.or_else(|| self.gate(picture, record).map(|gate| gate.to_string())),
            record: record.clone(),
            progress: progress.map(|(percent, message)| CycleProgress { percent, message }),
        }
    }

    /// How far a cycle is that this process runs without a node.
    fn alone(&self, worker: &WorkerName) -> Option<(f64, String)> {
        let alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        alone.as_ref().filter(|(name, _)| name == worker)?.1.progress()
    }

    /// The first gate that a worker waits for. Of those that the last node left behind, only what
    /// outlasts it is told; all others come down to that none runs.
    fn gate(&self, picture: &Picture, record: &WorkerRecord) -> Option<Gate> {
        let stored = record.blocked.as_ref();
        if Self::node_runs(picture, record) {
            return stored.cloned();
        }
        if record.desired != Desired::Running {
            return Some(Gate::Desired {
                desired: record.desired,
                by: record.desired_by.clone(),
                since: record.desired_at,
            });
        }
        let outlasts = |g: &&Gate| matches!(g, Gate::Unavailable { .. } | Gate::GaveUp { .. });
        Some(stored.filter(outlasts).cloned().unwrap_or(Gate::NoNode))
    }

    pub(super) async fn detail(&self, name: WorkerName) -> Result<WorkerDetail> {
        let picture = self.picture().await?;
        let line = self.line_of(&picture, &name)?;
        let (cycles, occurrences, transitions) = tokio::join!(
            self.store.cycles(Some(&name), HISTORY),
            self.store.occurrences(&name, HISTORY),
            self.store.transitions(&name, HISTORY),
        );
        Ok(WorkerDetail {
            line,
            definition: self.definition(&name).map(DefinitionText::from),
            cycles: cycles?,
            occurrences: occurrences?,
            transitions: transitions?,
        })
    }

    /// Workers that a clock starts.
    pub(super) async fn timed(&self) -> Result<Vec<ScheduleLine>> {
        let picture = self.picture().await?;
        let mut lines = Vec::new();
        for unit in self.units.values() {
            let definition = &unit.def;
            let next_due = next_due(&definition.trigger, picture.now);
            let (last_due, last_fate) = match &definition.trigger {
                Trigger::Every { .. } | Trigger::Cron(_) => {
                    let newest = self.store.occurrences(&definition.name, 1).await?.pop();
                    newest.map(|o| (o.through, o.fate)).unzip()
                }
                Trigger::Window(spec) => {
                    let query = WindowQuery {
                        series: Some(spec.series.clone()),
                        limit: 1,
                        ..WindowQuery::default()
                    };
                    let newest = self.store.windows(query).await?.pop();
                    newest.map(|w| (w.end, w.state.to_string())).unzip()
                }
                Trigger::On { .. } | Trigger::Queue(_) | Trigger::Stream | Trigger::Manual => {
                    continue;
                }
            };
            let reason = self.disabled(&picture, definition);
            // Quiet workers keep no ledger; their record knows the newest instant all the same.
            let record = picture.records.get(&definition.name);
            lines.push(ScheduleLine {
                worker: definition.name.clone(),
                trigger: definition.trigger.to_string(),
                missed: definition.missed,
                enabled: reason.is_none(),
                reason,
                last_due: last_due.or_else(|| record.and_then(|r| r.last_due)),
                last_fate,
                next_due,
            });
        }
        Ok(lines)
    }

    /// Why due instants of a worker lead to no cycle, if they do not.
    fn disabled(&self, picture: &Picture, definition: &Definition) -> Option<String> {
        let record = picture.records.get(&definition.name)?;
        if let Some(why) = &definition.unavailable {
            return Some(format!("unavailable: {why}"));
        }
        let word = match record.desired {
            Desired::Paused => Some("paused"),
            Desired::Stopped => Some("stopped"),
            Desired::Running => None,
        };
        if let Some(word) = word {
            let by = record.desired_by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
            return Some(format!("{word}{by}"));
        }
        if picture.views.get(&definition.name).is_some_and(|v| !v.active) {
            return Some("not part of the profile that runs".to_owned());
        }
        (record.state == State::Failed).then(|| "it failed too often to be restarted".to_owned())
    }
}

/// Whether a condition counts as met: a limit in time that has passed is no longer one.
pub(super) fn holds(condition: &Condition, now: Time) -> bool {
    condition.met || condition.until.is_some_and(|until| until <= now)
}

fn next_due(trigger: &Trigger, now: Time) -> Vec<Time> {
    match trigger {
        Trigger::Window(spec) => {
            (1..).map(|n| now.floor(spec.length) + spec.length * n).take(AHEAD).collect()
        }
        trigger => schedule::upcoming(trigger, now).take(AHEAD).collect(),
    }
}

fn stored_freshness(record: &WorkerRecord, now: Time) -> Freshness {
    let reference = record.last_success_at.or(record.state_since);
    match record.stale_after.zip(reference).map(|(limit, t)| t + limit) {
        Some(since) if now > since => Freshness::Stale { since },
        Some(_) if record.last_success_at.is_some() => Freshness::Fresh,
        _ => Freshness::Unknown,
    }
}

/// A cycle that says how far it is.
fn in_progress(running: &RunningView) -> Option<String> {
    let (percent, words) = running.progress.as_ref()?;
    let cycle = if running.cycle.0 == 0 {
        "its cycle".to_owned()
    } else {
        format!("its cycle {}", running.cycle)
    };
    let words = if words.is_empty() { String::new() } else { format!(", {words}") };
    Some(format!("{cycle} has been running since {}: {percent:.0}%{words}", running.since))
}
