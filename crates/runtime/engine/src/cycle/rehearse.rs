//! A dry run: the one code path with the claim left out and the commit described instead of made.

use std::sync::{Arc, Mutex, PoisonError};

use watchbell_core::port::{EventQuery, JobFilter, JobQuery, JobRecord, Store, StoreError, Target};
use watchbell_core::{
    Cause, Cycle, CycleId, CycleInput, Fault, Host, QueueSpec, Time, Token, Trigger, job,
};

use super::{Report, Runner, Unit, catch_panic};
use crate::host::{DryHost, Signals};
use crate::windows::{self, Choice};

/// What a dry run would have published.
#[derive(Debug, Clone, PartialEq)]
pub struct Rehearsal {
    /// Why it would run.
    pub cause: Cause,
    /// One line per table, cover, event, job and artifact.
    pub lines: Vec<String>,
    /// The cycle's summary.
    pub summary: serde_json::Value,
    /// A window's hashes: `window verify` compares them.
    pub window: Option<watchbell_core::WindowHashes>,
}

impl Runner {
    /// The same path with the commit replaced by a printed summary: writes nothing and claims
    /// nothing. For a window worker, `start` names the window; without it the next one is taken.
    ///
    /// # Errors
    /// The fault that the cycle would have recorded.
    pub async fn rehearse(
        &self,
        unit: &Unit,
        start: Option<Time>,
    ) -> Result<Result<Rehearsal, Report>, Fault> {
        let now = self.clock.now();
        let (cause, input) = match &unit.def.trigger {
            Trigger::Window(spec) => {
                let choice = match start {
                    Some(start) => Choice::Run(Target::Window {
                        series: spec.series.clone(),
                        start,
                        end: start + spec.length,
                        version: 1,
                        scope: windows::scope(&*self.store, unit, spec, start).await?,
                    }),
                    None => windows::choose(&*self.store, unit, spec, now, false).await?,
                };
                match choice {
                    Choice::Run(Target::Window { series, start, end, version, scope }) => {
                        (Cause::Window { series, start, end, version }, CycleInput::Scope(scope))
                    }
                    Choice::Run(_) => (Cause::Manual, CycleInput::None),
                    Choice::Blocked { gates, next, .. } => {
                        return Ok(Err(Report::Blocked { gates, next }));
                    }
                    Choice::Idle { next } => return Ok(Err(Report::Idle { next })),
                }
            }
            Trigger::On { kinds } => {
                let cursor = self.store.subscribers().await?;
                let cursor = cursor.iter().find(|s| s.worker == unit.def.name);
                let query = EventQuery {
                    after: Some(cursor.map_or(0, |s| s.cursor)),
                    kinds: kinds.clone(),
                    limit: 1,
                };
                match self.store.events(query).await?.pop() {
                    Some(event) => (Cause::Event { id: event.id }, CycleInput::Event(event)),
                    None => return Ok(Err(Report::Idle { next: None })),
                }
            }
            Trigger::Queue(spec) => match next_job(&*self.store, spec, now).await? {
                Some(j) => {
                    (Cause::Job { id: j.id }, CycleInput::Job { kind: j.kind, payload: j.payload })
                }
                None => return Ok(Err(Report::Idle { next: None })),
            },
            Trigger::Every { .. } | Trigger::Cron(_) | Trigger::Stream | Trigger::Manual => {
                (Cause::Manual, CycleInput::None)
            }
        };
        let steps = Arc::new(Mutex::new(Vec::new()));
        let host: Arc<dyn Host> = Arc::new(DryHost {
            clock: self.clock.clone(),
            signals: Arc::new(Signals::default()),
            steps: Arc::clone(&steps),
            scratch: tempfile::tempdir()?,
        });
        let cycle = Cycle {
            id: CycleId(0),
            worker: unit.def.name.clone(),
            cause: cause.clone(),
            token: Token(0),
            attempt: 1,
            started_at: now,
            input,
            host,
        };
        let done = catch_panic(unit.worker.run(&cycle))
            .await
            .map_err(|panic| Fault::transient(format!("panicked: {panic}")))??;
        let mut lines = std::mem::take(&mut *steps.lock().unwrap_or_else(PoisonError::into_inner));
        lines.extend(done.commit.describe());
        lines.extend(done.artifacts.iter().map(|a| format!("artifact {}", a.name)));
        Ok(Ok(Rehearsal { cause, lines, summary: done.summary, window: done.window }))
    }
}

/// Queued jobs of a kind that a dry run looks at, to find the one that is next.
const LOOK_AT: u32 = 1_000;

/// The job that a claim would begin with, as far as a look without a claim can tell: limits are
/// not asked, and of a longer queue only the newest [`LOOK_AT`] of each kind are seen.
async fn next_job(
    store: &dyn Store,
    spec: &QueueSpec,
    now: Time,
) -> Result<Option<JobRecord>, StoreError> {
    let mut found = Vec::new();
    for kind in &spec.kinds {
        let filter = JobFilter {
            kind: Some(kind.name.clone()),
            state: Some(job::State::Queued),
            ..JobFilter::default()
        };
        found.extend(store.jobs(JobQuery { filter, before: None, limit: LOOK_AT }).await?);
    }
    found.sort_by_key(|j| (j.run_at > now, std::cmp::Reverse(j.priority), j.run_at, j.id));
    Ok(found.into_iter().next())
}
