//! `job-seed`: asks for the candles of each symbol and interval once, and for one of each other kind.

use serde::Serialize;
use serde_json::{Value, json};
use watchbell_core::{BoxFuture, Commit, Cycle, Definition, Done, Fault, NewJob, Trigger, Worker};
use watchbell_db::Database;
use watchbell_venues::binance::wire::Interval;

use super::spec;
use crate::universe;

/// Name of the worker.
pub const JOB_SEED: &str = "job-seed";

/// The worker.
pub(crate) struct JobSeed {
    db: Database,
    /// Kinds that are on offer.
    kinds: Vec<&'static str>,
}

/// What was asked for. A job that waits or runs already is not added again.
#[derive(Debug, Serialize)]
struct Report {
    symbols: usize,
    jobs: usize,
    /// Labels of windows of which the venue has no candles.
    skipped: Vec<String>,
}

impl JobSeed {
    pub(crate) fn new(db: Database, kinds: Vec<&'static str>) -> Self {
        Self { db, kinds }
    }

    async fn seed(&self) -> Result<Done, Fault> {
        let symbols = universe::enabled(&self.db).await?;
        let labels = self
            .db
            .query("select window_label from settings.windows order by duration_ms", Vec::new())
            .await?;
        let mut report = Report { symbols: symbols.len(), jobs: 0, skipped: Vec::new() };
        let mut intervals = Vec::new();
        for row in &labels {
            let label = row.text(0)?;
            if Interval::ALL.into_iter().any(|i| i.as_str() == label) {
                intervals.push(label.to_owned());
            } else {
                report.skipped.push(label.to_owned());
            }
        }
        let mut commit = Commit::new();
        for symbol in &symbols {
            for window in &intervals {
                let payload = json!({ "symbol": &**symbol, "window": window });
                let mut job = unique("fetch_klines", payload);
                job.limit_key = Some(symbol.to_string());
                commit.enqueue(job);
            }
        }
        for kind in self.kinds.iter().filter(|kind| spec(kind).seeded) {
            commit.enqueue(unique(kind, json!({})));
        }
        report.jobs = commit.jobs.len();
        Ok(Done::new(report, commit))
    }
}

/// A job of which one at most waits or runs. Keys of a JSON object are sorted, so equal payloads
/// have equal text.
fn unique(kind: &str, payload: Value) -> NewJob {
    let key = format!("{kind} {payload}");
    NewJob::new(kind, payload).unique(key)
}

/// The worker.
pub(crate) fn definition() -> Definition {
    Definition::new(JOB_SEED, Trigger::Manual)
        .describe(
            "Asks for the candles of each symbol and interval, and for one job of each other kind. \
             What is asked for already is not asked twice, so it may be run at any time.",
        )
        .after(super::INGEST_JOBS)
}

impl Worker for JobSeed {
    fn define(&self) -> Definition {
        definition()
    }

    fn run<'a>(&'a self, _: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.seed())
    }
}
