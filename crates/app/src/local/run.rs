//! One cycle on an operator's command, and the same without writing.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use watchbell_api::{ControlError, Result, RunReport, RunRequest, WindowRef};
use watchbell_clock::Clock;
use watchbell_core::gate::Gate;
use watchbell_core::lifecycle::Desired;
use watchbell_core::port::{CycleRecord, Outcome, Store};
use watchbell_core::{Definition, Fault, SessionId, Time, Trigger, WorkerName, chain};
use watchbell_engine::{
    Artifacts, Handle, Options, Ran, Rehearsal, Report, Signals, Unit, rehearse_once, run_once,
};

use super::LocalControl;
use crate::compose;

/// Newest cycles among which the one that just ended is looked for.
const RECENT: u32 = 50;

/// What a rehearsal needs, on its own so that several can run at once.
#[derive(Clone)]
pub(super) struct Bench {
    store: Arc<dyn Store>,
    clock: Clock,
    engine: Option<Handle>,
    options: Options,
}

impl Bench {
    /// Runs a cycle with its commit replaced by a description.
    pub(super) async fn rehearse(
        &self,
        unit: &Unit,
        window: Option<Time>,
    ) -> std::result::Result<std::result::Result<Rehearsal, Report>, Fault> {
        match &self.engine {
            Some(engine) => engine.rehearse(&unit.def.name, window).await,
            None => {
                let (store, clock) = (Arc::clone(&self.store), self.clock.clone());
                rehearse_once(store, clock, unit, window, &self.options).await
            }
        }
    }
}

impl LocalControl {
    pub(super) fn bench(&self) -> Bench {
        Bench {
            store: Arc::clone(&self.store),
            clock: self.clock.clone(),
            engine: self.engine.clone(),
            options: self.options.clone(),
        }
    }

    pub(super) async fn run_cycle(&self, request: RunRequest) -> Result<RunReport> {
        let RunRequest { worker, options } = request;
        let unit = self.unit(&worker)?;
        let window = options.window.map(|w| start_of(&unit.def, &w)).transpose()?;
        if options.dry_run {
            return self.dry_run(unit, window).await;
        }
        let report = match &self.engine {
            Some(engine) => engine.run(&worker, window, options.force).await,
            None => self.run_alone(unit, window, options.force).await?,
        };
        match report {
            Report::Ran(ran) => {
                let cycle = self.recorded(&worker, &ran).await?;
                Ok(RunReport {
                    worker,
                    cycle,
                    dry_run: None,
                    summary: ran.summary,
                    outcome: ran.outcome,
                })
            }
            Report::Idle { .. } => Ok(idle(worker)),
            other => Err(refused(&worker, other)),
        }
    }

    async fn dry_run(&self, unit: &Unit, window: Option<Time>) -> Result<RunReport> {
        let worker = unit.def.name.clone();
        match self.bench().rehearse(unit, window).await {
            Ok(Ok(Rehearsal { lines, summary, .. })) => Ok(RunReport {
                worker,
                cycle: None,
                dry_run: Some(lines),
                summary,
                outcome: Outcome::Succeeded,
            }),
            Ok(Err(Report::Idle { .. })) => Ok(idle(worker)),
            Ok(Err(other)) => Err(refused(&worker, other)),
            Err(Fault::Store(e)) => Err(e.into()),
            Err(fault) => Err(ControlError::internal(format!("the dry run of {worker} failed"))
                .because(&std::io::Error::other(fault.to_string()))),
        }
    }

    /// Runs a cycle without a node. No other process runs one: the caller holds the installation.
    async fn run_alone(
        &self,
        unit: &Arc<Unit>,
        window: Option<Time>,
        force: bool,
    ) -> Result<Report> {
        let now = self.clock.now();
        let worker = &unit.def.name;
        if let Some(reason) = &unit.def.unavailable {
            let gates = vec![Gate::Unavailable { reason: reason.clone() }];
            return Ok(Report::Blocked { gates, next: None });
        }
        let picture = self.picture().await?;
        let wish = picture.records.get(worker).filter(|r| r.desired != Desired::Running);
        if let Some(record) = wish.filter(|_| !force) {
            let gate = Gate::Desired {
                desired: record.desired,
                by: record.desired_by.clone(),
                since: record.desired_at,
            };
            return Ok(Report::Blocked { gates: vec![gate], next: None });
        }
        for condition in &picture.conditions {
            let Some(until) = condition.until.filter(|t| !condition.met && *t > now) else {
                continue;
            };
            // A ban outlives the process that earned it.
            if let Some((client, _)) =
                self.venue.as_ref().filter(|_| condition.name == watchbell_market::VENUE)
            {
                client.restore_ban(until);
            }
            if unit.def.requires.contains(&condition.name) && !force {
                let gate = Gate::Condition {
                    name: condition.name.clone(),
                    detail: condition.detail.clone(),
                    until: Some(until),
                };
                return Ok(Report::Blocked { gates: vec![gate], next: Some(until) });
            }
        }
        let mut session = compose::session(now);
        // Two within one millisecond must differ.
        let number = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        session.id = SessionId::from(format!("{}-run{number}", session.id));
        if self.options.exclusive {
            // A node that was killed leaves leases; nobody else can hold one now.
            self.store.recover(&session.id, true, now).await?;
            // And files that no record names, where it died between their move and its commit.
            let known = self.store.artifacts(u32::MAX).await?;
            let found = Artifacts::new(&self.options.artifacts).reconcile(&known);
            found.map_err(|e| {
                ControlError::unavailable(format!(
                    "cannot look through the artifacts in {}",
                    self.options.artifacts.display()
                ))
                .because(&e)
            })?;
        }
        let (store, clock) = (Arc::clone(&self.store), self.clock.clone());
        let signals = Arc::<Signals>::default();
        *self.alone.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((worker.clone(), Arc::clone(&signals)));
        Ok(run_once(store, clock, session, unit, window, signals, &self.options).await?)
    }

    /// The row of a cycle that ended; a quiet one that published nothing has none.
    async fn recorded(&self, worker: &WorkerName, ran: &Ran) -> Result<Option<CycleRecord>> {
        let recent = self.store.cycles(Some(worker), RECENT).await?;
        Ok(recent.into_iter().find(|c| {
            if ran.cycle.0 == 0 { c.started_at == ran.started_at } else { c.id == ran.cycle }
        }))
    }
}

/// The start of the window that a request names, of the worker's own series.
fn start_of(definition: &Definition, window: &WindowRef) -> Result<Time> {
    let Trigger::Window(spec) = &definition.trigger else {
        return Err(ControlError::invalid(format!(
            "{} computes no windows: it runs {}",
            definition.name, definition.trigger
        ))
        .help("leave the window out"));
    };
    if spec.series != window.series {
        return Err(ControlError::invalid(format!(
            "{} computes windows of {}, not of {}",
            definition.name, spec.series, window.series
        )));
    }
    super::windows::aligned(spec, window.start)
}

fn idle(worker: WorkerName) -> RunReport {
    RunReport {
        worker,
        cycle: None,
        dry_run: None,
        summary: serde_json::Value::Null,
        outcome: Outcome::Succeeded,
    }
}

/// Why nothing ran, with what to do about it.
fn refused(worker: &WorkerName, report: Report) -> ControlError {
    match report {
        Report::Blocked { gates, .. } => match gates.first() {
            Some(gate) => {
                let text = format!("{worker} does not run now: {gate}");
                let clears = gate.clears();
                ControlError::conflict(text).help(if may_be_forced(gate) {
                    format!("{clears}; `--force` runs it all the same")
                } else {
                    clears.to_string()
                })
            }
            None => ControlError::conflict(format!("{worker} does not run now")),
        },
        Report::Held { until, owner } => {
            let gate = Gate::LeaseHeld { owner, until };
            ControlError::conflict(format!("{worker} does not run now: {gate}"))
                .help(gate.clears().to_string())
        }
        Report::Taken => ControlError::conflict(format!(
            "{worker} has already run for this due instant or window"
        ))
        .help(
            "a complete window is computed again by `watchbell window backfill --recompute`, and one \
             that was given up by `watchbell window retry`",
        ),
        Report::Broken(error) => error.into(),
        Report::Idle { .. } | Report::Ran(_) => {
            ControlError::internal(format!("{worker} was not refused"))
        }
    }
}

/// Gates that stand for an operator's or the supervisor's caution, and not for missing input.
const fn may_be_forced(gate: &Gate) -> bool {
    matches!(
        gate,
        Gate::Desired { .. }
            | Gate::GaveUp { .. }
            | Gate::RestartBackoff { .. }
            | Gate::Storm { .. }
            | Gate::Dependency { .. }
            | Gate::NotRunning { .. }
            | Gate::Condition { .. }
    )
}

/// What stopped a rehearsal, in one sentence.
pub(super) fn stopped(report: &Report) -> String {
    match report {
        Report::Blocked { gates, .. } => {
            gates.first().map_or_else(|| "it is blocked".to_owned(), ToString::to_string)
        }
        Report::Broken(error) => chain(error),
        Report::Held { .. } | Report::Taken | Report::Idle { .. } | Report::Ran(_) => {
            "there was nothing to compute".to_owned()
        }
    }
}
