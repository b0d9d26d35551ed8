//! The node's own workers: a scan that says how the others are, and the pruning of old history.
//! They are ordinary workers and go through the same path.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use watchbell_core::freshness::{self, Health};
use watchbell_core::lifecycle::Desired;
use watchbell_core::port::{Retention, Store};
use watchbell_core::schedule::{Cron, CronError};
use watchbell_core::{
    BoxFuture, Commit, Cycle, Definition, Done, Fault, Millis, NewEvent, Trigger, Worker,
    WorkerName,
};

use crate::artifacts::Artifacts;

/// Name of the scan.
pub const HEALTH_SCAN: &str = "health-scan";
/// Name of the pruning worker.
pub const HOUSEKEEPING: &str = "housekeeping";

/// Reads every heartbeat, and says which worker is late, stale, failing or down. Emits
/// `worker.unhealthy` once for each spell of ill health.
pub struct HealthScan {
    store: Arc<dyn Store>,
    every: Millis,
    definitions: BTreeMap<WorkerName, Definition>,
}

impl std::fmt::Debug for HealthScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HealthScan").field("every", &self.every).finish_non_exhaustive()
    }
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Scan {
    workers: usize,
    ok: usize,
    degraded: Vec<String>,
    failing: Vec<String>,
    down: Vec<String>,
}

impl HealthScan {
    /// Scans the workers of `definitions` each `every`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, every: Millis, definitions: &[Definition]) -> Self {
        let definitions = definitions.iter().map(|d| (d.name.clone(), d.clone())).collect();
        Self { store, every, definitions }
    }

    /// What it is, run each `period`.
    #[must_use]
    pub fn definition(period: Millis) -> Definition {
        Definition::new(HEALTH_SCAN, Trigger::Every { period, offset: Millis::ZERO })
            .describe(
                "Reads every worker's heartbeat and says which one is late, stale, failing or \
                 down; emits worker.unhealthy once for each spell.",
            )
            .opportunistic()
            .timeouts(Millis::from_secs(10), Millis::from_secs(30))
    }

    async fn scan(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let now = cycle.now();
        let mut scan = Scan::default();
        let mut commit = Commit::new();
        for record in self.store.workers().await? {
            let Some(def) = self.definitions.get(&record.name) else { continue };
            if record.desired != Desired::Running {
                continue;
            }
            scan.workers += 1;
            let fresh = freshness::freshness(def, record.last_success_at, record.state_since, now);
            let health = freshness::health(record.state, record.consecutive_errors, fresh);
            let name = record.name.to_string();
            match health {
                Health::Ok => {
                    scan.ok += 1;
                    continue;
                }
                Health::Degraded => {
                    scan.degraded.push(name);
                    continue;
                }
                Health::Failing => scan.failing.push(name),
                Health::Down => scan.down.push(name),
            }
            // One event a spell: it ends with the next success, or with a change of state.
            let spell = record.last_success_at.max(record.state_since).map_or(0, |t| t.0);
            commit.events.push(NewEvent {
                kind: "worker.unhealthy".into(),
                key: record.name.to_string(),
                dedupe: Some(format!("worker.unhealthy/{}/{health}/{spell}", record.name)),
                payload: serde_json::json!({
                    "worker": record.name, "health": health, "freshness": fresh.to_string(),
                    "consecutive_errors": record.consecutive_errors,
                    "last_error": record.last_error,
                }),
            });
        }
        Ok(Done::new(scan, commit))
    }
}

impl Worker for HealthScan {
    fn define(&self) -> Definition {
        Self::definition(self.every)
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.scan(cycle))
    }
}

/// Deletes finished history that is older than its retention, in batches.
pub struct Housekeeping {
    store: Arc<dyn Store>,
    artifacts: Artifacts,
    keep: Retention,
    definition: Definition,
}

impl std::fmt::Debug for Housekeeping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Housekeeping").field("keep", &self.keep).finish_non_exhaustive()
    }
}

/// Rows of one table deleted by one transaction.
const PRUNE_BATCH: u32 = 5_000;

impl Housekeeping {
    /// Prunes once a day, at 03:17 UTC, unless its definition is overridden.
    ///
    /// # Errors
    /// Never for the built-in expression.
    pub fn new(
        store: Arc<dyn Store>,
        artifacts: Artifacts,
        keep: Retention,
    ) -> Result<Self, CronError> {
        Ok(Self { store, artifacts, keep, definition: Self::definition()? })
    }

    /// What it is.
    ///
    /// # Errors
    /// Never for the built-in expression.
    pub fn definition() -> Result<Definition, CronError> {
        let cron = Cron::parse("17 3 * * *", "UTC")?;
        Ok(Definition::new(HOUSEKEEPING, Trigger::Cron(cron)).describe(
            "Deletes finished cycles, ledger rows, events and jobs that are older than their \
             retention, and artifacts that were to be kept for a while only. Windows and covers \
             are never touched.",
        ))
    }

    async fn prune(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let mut total = watchbell_core::port::Pruned::default();
        loop {
            let batch = self.store.prune(self.keep, PRUNE_BATCH, cycle.now()).await?;
            total.cycles += batch.cycles;
            total.occurrences += batch.occurrences;
            total.events += batch.events;
            total.jobs += batch.jobs;
            let most = batch.cycles.max(batch.occurrences).max(batch.events).max(batch.jobs);
            let most = most.max(batch.artifacts.len() as u64);
            // Their records are gone: should this fail, the next start finds files without one.
            self.artifacts.remove(&batch.artifacts)?;
            total.artifacts.extend(batch.artifacts);
            if most < u64::from(PRUNE_BATCH) {
                return Ok(Done::new(total, Commit::new()));
            }
            if cycle.cancelled() {
                return Err(Fault::Cancelled);
            }
        }
    }
}

impl Worker for Housekeeping {
    fn define(&self) -> Definition {
        self.definition.clone()
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.prune(cycle))
    }
}
