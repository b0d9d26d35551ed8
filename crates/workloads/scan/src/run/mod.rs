//! The workers of the scans: what they read, in which order, and what they publish.

mod feed;
mod refresh;
mod scan;
mod stages;
pub mod tables;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use watchbell_clock::Clock;
use watchbell_core::{
    BoxFuture, Cycle, Definition, Done, Fault, Millis, NewArtifact, Time, Worker, values,
};
use watchbell_db::{Database, DbError};
use watchbell_venues::native::{NativeClient, NativeConfigError, Venue};

use crate::config::{Config, Job, Kind};
use crate::regime::{CachedRegime, Regime, RegimeInUse};

/// The schema files' artifact, and its version: another one is published beside it.
const SCHEMAS: (&str, &str) = ("schemas", "v1");
/// What describes each file of an artifact.
const SCHEMA_FILES: [(&str, &str); 5] = [
    ("signals.csv.json", include_str!("../schemas/signals.csv.json")),
    ("premove.csv.json", include_str!("../schemas/premove.csv.json")),
    ("warm_signals.csv.json", include_str!("../schemas/warm_signals.csv.json")),
    ("explain.schema.json", include_str!("../schemas/explain.schema.json")),
    ("regime.schema.json", include_str!("../schemas/regime.schema.json")),
];

/// What all jobs share.
struct Shared {
    config: Config,
    db: Database,
    clock: Clock,
    clients: BTreeMap<Venue, NativeClient>,
}

impl Shared {
    /// Takes over what an earlier process, or another node, has spent and was told.
    async fn restore(&self) -> Result<(), DbError> {
        for (venue, spent) in tables::spending(&self.db).await? {
            if let Some(client) = self.clients.get(&venue) {
                client.restore(spent);
            }
        }
        Ok(())
    }

    /// The regime that a run weighs by.
    async fn regime(&self, job: &Job, now: Time) -> Result<RegimeInUse, DbError> {
        let newest = if job.regime_aware { tables::newest_regime(&self.db).await? } else { None };
        Ok(in_use(newest.as_ref(), now))
    }

    /// Whether the files that describe the artifacts have to be published.
    async fn wants_schemas(&self) -> Result<bool, DbError> {
        let path = format!("{}/{}", SCHEMAS.0, SCHEMAS.1);
        let sql = "select 1 from ops.artifacts where path = $1";
        Ok(self.db.query_opt(sql, values![path]).await?.is_none())
    }
}

/// The regime that a stored one leads to at an instant.
#[must_use]
pub fn in_use(stored: Option<&tables::StoredRegime>, now: Time) -> RegimeInUse {
    let cached = stored.and_then(|stored| {
        // One of another version is as good as none: the next refresh replaces it.
        let regime: Regime = serde_json::from_value(stored.document.clone()).ok()?;
        Some(CachedRegime { valid_until: stored.valid_until, ..CachedRegime::from(&regime) })
    });
    RegimeInUse::at(cached.as_ref(), now)
}

/// The workers of a configuration, in the order of their jobs.
///
/// # Errors
/// When an exchange cannot be asked as configured.
pub fn workers(
    config: &Config,
    db: &Database,
    clock: &Clock,
) -> Result<Vec<Arc<dyn Worker>>, NativeConfigError> {
    let mut clients = BTreeMap::new();
    for venue in config.venues_in_use() {
        clients.insert(venue, NativeClient::new(venue, config.venue(venue), clock.clone())?);
    }
    let shared =
        Arc::new(Shared { config: config.clone(), db: db.clone(), clock: clock.clone(), clients });
    let worker = |job: &Job| -> Arc<dyn Worker> {
        let definition = job.definition(&config.jobs);
        Arc::new(ScanWorker { job: job.clone(), definition, shared: Arc::clone(&shared) })
    };
    Ok(config.jobs.iter().map(worker).collect())
}

/// The definitions of a configuration's workers, in the order of their jobs.
#[must_use]
pub fn definitions(config: &Config) -> Vec<Definition> {
    config.jobs.iter().map(|job| job.definition(&config.jobs)).collect()
}

/// A job as a worker.
struct ScanWorker {
    job: Job,
    definition: Definition,
    shared: Arc<Shared>,
}

impl Worker for ScanWorker {
    fn define(&self) -> Definition {
        self.definition.clone()
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(async {
            if cycle.host.rehearsal() {
                return self.rehearse(cycle).await;
            }
            self.shared.restore().await?;
            match self.job.kind {
                Kind::Hot | Kind::Warm => self.scan(cycle).await,
                Kind::Regime => self.refresh(cycle).await,
            }
        })
    }
}

impl ScanWorker {
    /// The clients of the job's exchanges: warm scans ask more slowly.
    fn clients(&self) -> BTreeMap<Venue, NativeClient> {
        let asked = |venue: &Venue| {
            let client = self.shared.clients.get(venue)?;
            let slowly = self.job.kind == Kind::Warm;
            Some((*venue, if slowly { client.slowly() } else { client.clone() }))
        };
        self.job.venues.iter().filter_map(asked).collect()
    }

    /// The exchange whose universe and bars count.
    fn primary(&self) -> Result<Venue, Fault> {
        let none = || Fault::permanent(format!("the job {} names no venue", self.job.name));
        self.job.venues.first().copied().ok_or_else(none)
    }

    /// The names of the files that a run publishes.
    fn files(&self) -> Vec<&'static str> {
        files(&self.job)
    }

    /// What a run would do: nothing is asked of anybody.
    async fn rehearse(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let regime = tables::newest_regime(&self.shared.db).await?;
        let universe = tables::universe(&self.shared.db, self.primary()?).await?;
        let known = universe.map(|u| (u.fetched_at, u.value.members.len()));
        let plan = plan(&self.job, regime.as_ref(), known, cycle.now());
        Ok(Done::new(plan, watchbell_core::Commit::new()))
    }

    /// Publishes files beside a commit, in a directory named after the run.
    async fn publish(
        &self,
        cycle: &Cycle,
        done: Done,
        files: &[(&str, String)],
    ) -> Result<Done, Fault> {
        let write = |files: &mut dyn Iterator<Item = (&str, &str)>| {
            let staged = cycle.host.stage()?;
            for (name, text) in files {
                std::fs::write(staged.join(name), text)
                    .map_err(|e| named(&staged.join(name), &e))?;
            }
            Ok::<_, io::Error>(staged)
        };
        let staged = write(&mut files.iter().map(|(name, text)| (*name, text.as_str())))?;
        let artifact = NewArtifact::new(&self.job.artifacts, staged)
            .directory(stamp(cycle.started_at))
            .keep(self.shared.config.keep);
        let mut done = done.artifact(artifact);
        if self.shared.wants_schemas().await? {
            let staged = write(&mut SCHEMA_FILES.into_iter())?;
            done = done.artifact(NewArtifact::new(SCHEMAS.0, staged).directory(SCHEMAS.1));
        }
        Ok(done)
    }
}

/// The names of the files that a run of a job publishes.
fn files(job: &Job) -> Vec<&'static str> {
    match job.kind {
        Kind::Hot if job.premove => vec!["signals.csv", "premove.csv", "explain.json"],
        Kind::Hot => vec!["signals.csv", "explain.json"],
        Kind::Warm => vec!["warm_signals.csv", "explain.json"],
        Kind::Regime => vec!["regime.json"],
    }
}

/// What a run of a job at `now` would do, by what is known: the newest regime, and when the universe
/// was taken and how many symbols it has.
#[must_use]
pub fn plan(
    job: &Job,
    regime: Option<&tables::StoredRegime>,
    universe: Option<(Time, usize)>,
    now: Time,
) -> serde_json::Value {
    let directory = format!("artifacts/{}/{}", job.artifacts, stamp(now));
    let would: Vec<String> =
        files(job).into_iter().map(|file| format!("{directory}/{file}")).collect();
    json!({
        "job": job.name,
        "kind": job.kind.as_str(),
        "regime": in_use(regime.filter(|_| job.regime_aware), now).headline(now),
        "universe": {
            "spec": job.universe.to_string(),
            "max_sample": job.max_sample,
            "known_since": universe.map(|(taken_at, _)| taken_at),
            "known_symbols": universe.map(|(_, symbols)| symbols),
        },
        "venues": job.venues,
        "would_write": would,
    })
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()))
}

/// A directory's name: `20250907_111513`, by UTC.
#[must_use]
pub fn stamp(at: Time) -> String {
    let text = at.floor(Millis::from_secs(1)).rfc3339();
    let digits: String = text.chars().filter(char::is_ascii_digit).take(14).collect();
    let (date, time) = digits.split_at(8);
    format!("{date}_{time}")
}

/// JSON as it is published: indented, with a line end.
fn pretty<T: Serialize>(value: &T) -> Result<String, Fault> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(text)
}

/// SHA-256 in hexadecimal.
fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_named_after_the_second() {
        let at = Time::parse("2025-09-07T11:15:13.987Z").unwrap();
        assert_eq!(stamp(at), "20250907_111513");
    }
}
