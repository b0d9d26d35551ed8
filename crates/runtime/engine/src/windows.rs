//! Which window of a series comes next, and whether it may run: facts from the store, decided by
//! `core`.
//!
//! Live windows come first, in order. When none of them can run, requests for windows of the past
//! ([backfills](watchbell_core::port::BackfillRecord)) are worked off, oldest window first.

use std::collections::BTreeMap;

use watchbell_core::gate::Gate;
use watchbell_core::port::{Result as StoreResult, Store, Target, WindowRecord};
use watchbell_core::window::{self, InputFacts, InputWindow, State};
use watchbell_core::{Cover, Fault, SeriesName, Time, WindowInput, WindowSpec};

use crate::cycle::Unit;

/// What to do about a series now.
#[derive(Debug)]
pub(crate) enum Choice {
    /// Claim this window.
    Run(Target),
    /// The next window, which ends then if it is known, has gates; look again at `next`, or when an
    /// input changes.
    Blocked { end: Option<Time>, gates: Vec<Gate>, next: Option<Time> },
    /// Every window that is over is done; the next one is over at `next`.
    Idle { next: Option<Time> },
}

/// Chooses the next window of the series. With `note`, what was found of a backfill's progress is
/// stored; a dry run only looks.
pub(crate) async fn choose(
    store: &dyn Store,
    unit: &Unit,
    spec: &WindowSpec,
    now: Time,
    note: bool,
) -> Result<Choice, Fault> {
    let mut live = match upcoming(store, unit, spec).await? {
        None => {
            let gate = Gate::NoOrigin { series: spec.series.clone() };
            Choice::Blocked { end: None, gates: vec![gate], next: None }
        }
        Some(next) => judge(store, unit, spec, next, now).await?,
    };
    if matches!(live, Choice::Run(_)) {
        return Ok(live);
    }
    for backfill in store.backfills(true).await?.into_iter().rev() {
        if backfill.series != spec.series {
            continue;
        }
        let to = backfill.to.min(window::last_closed(spec, now) + spec.length);
        let mut next = None;
        let mut from = backfill.cursor.ceil(spec.length);
        while from < to {
            from = first(unit, from).await?.unwrap_or(to).min(to);
            let known = store.window(&spec.series, from).await?.pop();
            match known {
                Some(w) if w.state.is_final() => from += spec.length,
                Some(w) => {
                    next = Some(Next::Known(Box::new(w)));
                    break;
                }
                None if from < to => {
                    next = Some(Next::New(from));
                    break;
                }
                None => {}
            }
        }
        if note && from > backfill.cursor {
            store.advance_backfill(backfill.id, from, now).await?;
        }
        let Some(next) = next else { continue };
        match judge(store, unit, spec, next, now).await? {
            run @ Choice::Run(_) => return Ok(run),
            // A window of the past that waits for its input does not hold up the live ones, but
            // the series must look again when that input comes.
            Choice::Blocked { end, gates, next } => {
                if let Choice::Idle { next: over } = live {
                    let next = [next, over].into_iter().flatten().min();
                    live = Choice::Blocked { end, gates, next };
                }
            }
            Choice::Idle { .. } => {}
        }
    }
    Ok(live)
}

/// The next live window: the oldest unfinished one, or else the one after the newest.
async fn upcoming(
    store: &dyn Store,
    unit: &Unit,
    spec: &WindowSpec,
) -> Result<Option<Next>, Fault> {
    let frontier = store.frontier(&spec.series, Time::EPOCH, Time::FAR_FUTURE).await?;
    if let Some(known) = frontier.unfinished {
        return Ok(Some(Next::Known(Box::new(known))));
    }
    Ok(match frontier.last.map(|last| last + spec.length) {
        Some(after) => Some(Next::New(first(unit, after).await?.unwrap_or(after))),
        None => first(unit, Time::EPOCH).await?.map(Next::New),
    })
}

/// One window by name. A new one must be the next of its series or older: the series goes on after
/// its newest window, so whatever a leap passed over would never be computed.
pub(crate) async fn exactly(
    store: &dyn Store,
    unit: &Unit,
    spec: &WindowSpec,
    start: Time,
    now: Time,
) -> Result<Choice, Fault> {
    let start = start.floor(spec.length);
    if let Some(known) = store.window(&spec.series, start).await?.pop() {
        return judge(store, unit, spec, Next::Known(Box::new(known)), now).await;
    }
    let (earlier, state) = match upcoming(store, unit, spec).await? {
        Some(Next::New(next)) => (next, State::Open),
        Some(Next::Known(next)) => (next.start, next.state),
        None => (start, State::Open),
    };
    if earlier < start {
        let gate = Gate::EarlierWindow { series: spec.series.clone(), start: earlier, state };
        return Ok(Choice::Blocked { end: None, gates: vec![gate], next: None });
    }
    judge(store, unit, spec, Next::New(start), now).await
}

/// The keys of a window: those stored at its first claim, or the worker's choice for a new one.
pub(crate) async fn scope(
    store: &dyn Store,
    unit: &Unit,
    spec: &WindowSpec,
    start: Time,
) -> Result<Vec<String>, Fault> {
    match store.window(&spec.series, start).await?.pop() {
        Some(known) if !known.scope.is_empty() => Ok(known.scope),
        _ => unit.worker.scope(start).await.map_err(Fault::Transient),
    }
}

enum Next {
    New(Time),
    Known(Box<WindowRecord>),
}

async fn first(unit: &Unit, from: Time) -> Result<Option<Time>, Fault> {
    unit.worker.first_window(from).await.map_err(Fault::Transient)
}

async fn judge(
    store: &dyn Store,
    unit: &Unit,
    spec: &WindowSpec,
    next: Next,
    now: Time,
) -> Result<Choice, Fault> {
    let (start, version, scope) = match next {
        Next::New(start) => {
            // Before the end there is nothing to ask anybody.
            if now < start + spec.length + spec.settle {
                return Ok(Choice::Idle { next: Some(start + spec.length + spec.settle) });
            }
            (start, 1, Vec::new())
        }
        Next::Known(w) => {
            if let Some(at) = w.next_attempt_at.filter(|at| *at > now) {
                let gate =
                    Gate::Backoff { until: at, attempts: w.attempts, error: w.reason.clone() };
                let (end, next) = (Some(w.end), Some(at));
                return Ok(Choice::Blocked { end, gates: vec![gate], next });
            }
            (w.start, w.version, w.scope)
        }
    };
    let end = start + spec.length;
    let mut inputs = WindowInputs::read(store, spec, start).await?;
    // The keys are read after what is known of them. A commit between the two may add knowledge, and
    // takes none away: a key that turns out not to exist leaves the scope together with the cover
    // that says so. So a scope that these facts allow holds at the moment when it was read.
    inputs.scope = match scope {
        // A new window has no scope, nor has a correction before its first claim.
        none if none.is_empty() => unit.worker.scope(start).await.map_err(Fault::Transient)?,
        fixed => fixed,
    };
    Ok(match window::readiness(spec, start, &inputs.facts(), now) {
        Ok(()) => {
            let (series, scope) = (spec.series.clone(), inputs.scope);
            Choice::Run(Target::Window { series, start, end, version, scope })
        }
        Err(gates) => {
            let next = gates.iter().find_map(|gate| match gate {
                Gate::WindowOpen { settled, .. } => Some(*settled),
                Gate::Settling { until } => Some(*until),
                _ => None,
            });
            Choice::Blocked { end: Some(end), gates, next }
        }
    })
}

/// What the readiness of one window depends on: as it is chosen, and as it is explained.
#[derive(Debug, Clone, Default)]
pub struct WindowInputs {
    /// The keys that the window must cover.
    pub scope: Vec<String>,
    /// The oldest window of its series before it that is not final, where that is asked.
    pub earlier: Option<(Time, State)>,
    covers: BTreeMap<String, BTreeMap<String, Vec<Cover>>>,
    windows: BTreeMap<SeriesName, Vec<InputWindow>>,
    previous: Option<Time>,
}

impl WindowInputs {
    /// What is stored of the inputs of the window that begins at `start`. Its keys and what is before
    /// it are for the caller to say.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn read(store: &dyn Store, spec: &WindowSpec, start: Time) -> StoreResult<Self> {
        let mut inputs = Self::default();
        if spec.looks_back() {
            inputs.previous = store.frontier(&spec.series, Time::EPOCH, start).await?.last;
        }
        for input in &spec.inputs {
            if let WindowInput::Cover { source, .. } = input {
                inputs.covers.insert(source.clone(), store.covers(source).await?);
            }
            if let Some((series, from, to)) = input.stretch(start, spec.length, inputs.previous) {
                let windows = store.windows_over(series, from, to).await?;
                inputs.windows.entry(series.clone()).or_default().extend(windows);
            }
        }
        Ok(inputs)
    }

    /// As they are judged.
    #[must_use]
    pub fn facts(&self) -> InputFacts<'_> {
        InputFacts {
            scope: &self.scope,
            covers: &self.covers,
            windows: &self.windows,
            earlier: self.earlier,
            previous: self.previous,
        }
    }
}
