//! Why a thing does or does not run: facts from the store and the node, judged by `core`, and what
//! stands behind the first gate, as far as it goes.

use watchbell_api::{ControlError, Result};
use watchbell_core::gate::{
    Behind, Explanation, Gate, Verdict, WindowFacts, WorkerFacts, trigger_gates, worker_gates,
};
use watchbell_core::port::{CycleRecord, EventQuery, Outcome, WindowRecord};
use watchbell_core::window::State;
use watchbell_core::{
    BoxFuture, Definition, SeriesName, Time, Trigger, WindowSpec, WorkerName, chain, schedule,
};
use watchbell_engine::{Unit, WindowInputs};

use super::status::holds;
use super::{LocalControl, Picture, not_found};

/// How far a chain is followed.
const DEPTH: usize = 6;

/// What an explanation is about.
#[derive(Clone, PartialEq)]
enum Thing {
    Worker(WorkerName),
    Window(SeriesName, Time),
    Job(i64),
    Kind(String),
    Cover(String, String),
}

impl From<Behind> for Thing {
    fn from(behind: Behind) -> Self {
        match behind {
            Behind::Worker(worker) => Self::Worker(worker),
            Behind::Window(series, start) => Self::Window(series, start),
            Behind::Cover(source, key) => Self::Cover(source, key),
        }
    }
}

impl LocalControl {
    pub(super) async fn explain_thing(&self, text: String) -> Result<Explanation> {
        let picture = self.picture().await?;
        let thing = self.thing(&picture, &text).await?;
        match self.follow(&picture, thing, Vec::new()).await? {
            Some(explanation) => Ok(explanation),
            None => Err(self.unknown(&picture, &text)),
        }
    }

    /// A job, with what stands behind its first gate.
    pub(super) async fn explain_job(&self, picture: &Picture, id: i64) -> Result<Explanation> {
        let explanation = self.follow(picture, Thing::Job(id), Vec::new()).await?;
        explanation.ok_or_else(|| ControlError::not_found("job", id.to_string(), []))
    }

    /// What the text names.
    async fn thing(&self, picture: &Picture, text: &str) -> Result<Thing> {
        let text = text.trim();
        if let Some(id) = text.strip_prefix("job/") {
            let id: i64 = id.parse().map_err(|_| {
                ControlError::invalid(format!("`{id}` is not the number of a job"))
                    .help("use a form like `job/7`")
            })?;
            return Ok(Thing::Job(id));
        }
        if let Some(kind) = text.strip_prefix("kind/") {
            return Ok(Thing::Kind(self.known_kind(kind).await?));
        }
        if let Some((series, start)) = text.split_once('/') {
            let series = SeriesName::from(series);
            let (_, spec) = self.series_unit(&series)?;
            let start = Time::parse(start).map_err(ControlError::invalid)?;
            return Ok(Thing::Window(series, start.floor(spec.length)));
        }
        // The worker of a series often has its name; it knows more than its next window does.
        let worker = WorkerName::from(text);
        if picture.records.contains_key(&worker) {
            return Ok(Thing::Worker(worker));
        }
        let Ok((unit, spec)) = self.series_unit(&SeriesName::from(text)) else {
            let kind = self.known_kind(text).await;
            return kind.map(Thing::Kind).map_err(|_| self.unknown(picture, text));
        };
        Ok(match self.next_window(unit, spec).await? {
            Some(start) => Thing::Window(spec.series.clone(), start),
            None => Thing::Worker(unit.def.name.clone()),
        })
    }

    fn unknown(&self, picture: &Picture, text: &str) -> ControlError {
        let series = self.window_units().map(|(_, spec)| spec.series.as_str());
        let known = picture.records.keys().map(WorkerName::as_str).chain(series);
        not_found("worker, series, window, job or kind", text, known)
    }

    /// Explains a thing and, within it, what stands behind its first gate. `None` for a thing that
    /// does not exist.
    fn follow<'a>(
        &'a self,
        picture: &'a Picture,
        thing: Thing,
        mut seen: Vec<Thing>,
    ) -> BoxFuture<'a, Result<Option<Explanation>>> {
        Box::pin(async move {
            let explanation = match &thing {
                Thing::Worker(worker) => self.of_worker(picture, worker).await?,
                Thing::Window(series, start) => self.of_window(picture, series, *start).await?,
                Thing::Job(id) => Some(self.of_job(picture, *id).await?),
                Thing::Kind(kind) => self.of_kind(picture, kind).await?,
                Thing::Cover(source, _) => self.of_cover(picture, source).await?,
            };
            let Some(explanation) = explanation else { return Ok(None) };
            seen.push(thing);
            let behind = explanation.gates.first().and_then(Gate::behind).map(Thing::from);
            // Two workers of a lane may point at each other.
            let next = behind.filter(|next| seen.len() < DEPTH && !seen.contains(next));
            Ok(Some(match next {
                None => explanation,
                Some(next) => match self.follow(picture, next, seen).await? {
                    Some(behind) => explanation.because(behind),
                    None => explanation,
                },
            }))
        })
    }

    async fn of_worker(&self, picture: &Picture, name: &WorkerName) -> Result<Option<Explanation>> {
        let Some(record) = picture.records.get(name) else { return Ok(None) };
        let Some(unit) = self.units.get(name) else {
            // Known to the store alone.
            let mut gone = Definition::new(name.clone(), Trigger::Manual);
            gone.unavailable = Some("this configuration does not have it".to_owned());
            let facts = self.facts(picture, &gone, Vec::new()).await?;
            return Ok(facts.map(|f| Explanation::of_worker(&f, None, picture.now)));
        };
        let next = self.next_gates(picture, unit).await?;
        let Some(facts) = self.facts(picture, &unit.def, next).await? else { return Ok(None) };
        let mut explanation = Explanation::of_worker(&facts, None, picture.now);
        // Failures do not keep a worker from its next cycle, but whoever asks wants to know of them.
        if let Some(error) = record.last_error.as_ref().filter(|_| record.consecutive_errors > 0) {
            explanation.gates.push(Gate::Condition {
                name: "its newest cycle".to_owned(),
                detail: format!("failed, {} in a row: {error}", record.consecutive_errors),
                until: None,
            });
        }
        explanation.since = match explanation.gates.first() {
            None => record.state_since,
            Some(Gate::StillRunning { since, .. }) => Some(*since),
            Some(Gate::Desired { since, .. }) => *since,
            Some(Gate::GaveUp { .. } | Gate::NotRunning { .. }) => record.state_since,
            Some(gate) => {
                let same = record.blocked.as_ref().is_some_and(|b| b.kind() == gate.kind());
                record.blocked_since.filter(|_| same)
            }
        };
        Ok(Some(explanation))
    }

    /// What the gates of a worker depend on, with those of what it would do next.
    async fn facts<'a>(
        &self,
        picture: &'a Picture,
        definition: &'a Definition,
        next: Vec<Gate>,
    ) -> Result<Option<WorkerFacts<'a>>> {
        let name = &definition.name;
        let Some(record) = picture.records.get(name) else { return Ok(None) };
        let view = picture.views.get(name);
        let running = match view {
            Some(view) => view.running.first().map(|r| (r.cycle, r.since)),
            None => self.stored_run(picture, name).await?.map(|c| (c.id, c.started_at)),
        };
        let (mut restart_at, mut storm_until) = (None, None);
        match &record.blocked {
            Some(Gate::RestartBackoff { until }) => restart_at = Some(*until),
            Some(Gate::Storm { until }) => {
                restart_at = Some(*until);
                storm_until = Some(*until);
            }
            _ => {}
        }
        let left_out = |need: &WorkerName| {
            self.softened.iter().any(|(worker, softened)| worker == name && softened == need)
        };
        let needs = definition.needs.iter().filter(|d| !d.soft && !left_out(&d.worker));
        let needs = needs
            .filter_map(|d| picture.state(&d.worker).map(|state| (d.worker.clone(), state)))
            .collect();
        let lease = record.lease_owner.clone().zip(record.lease_expires_at);
        let lane = definition.lane.as_ref();
        let lane_holder = lane.and_then(|lane| {
            let shares = |other: &WorkerName| {
                other != name && self.definition(other).and_then(|d| d.lane.as_ref()) == Some(lane)
            };
            let runs = picture.views.values().filter(|v| !v.running.is_empty());
            runs.map(|v| &v.worker).find(|other| shares(other)).cloned()
        });
        Ok(Some(WorkerFacts {
            definition,
            node: Self::node_runs(picture, record),
            state: record.state,
            desired: record.desired,
            desired_by: record.desired_by.clone(),
            desired_at: record.desired_at,
            state_since: record.state_since,
            error: record.last_error.clone(),
            restart_at,
            storm_until,
            needs,
            conditions: &picture.conditions,
            running,
            lease: lease.filter(|(owner, _)| !self.is_own(owner)),
            lane_holder,
            held_back: view
                .and_then(|v| v.gate.clone())
                .filter(|gate| matches!(gate, Gate::GivesWay { .. } | Gate::Throttled { .. })),
            next,
        }))
    }

    /// A cycle that is running by the store, under a lease that still holds.
    async fn stored_run(
        &self,
        picture: &Picture,
        worker: &WorkerName,
    ) -> Result<Option<CycleRecord>> {
        let record = picture.records.get(worker);
        let live = record.and_then(|r| r.lease_expires_at).is_some_and(|t| t > picture.now);
        if !live {
            return Ok(None);
        }
        let newest = self.store.cycles(Some(worker), 1).await?.pop();
        Ok(newest.filter(|c| c.outcome == Outcome::Running))
    }

    /// Gates of what a worker would do next.
    async fn next_gates(&self, picture: &Picture, unit: &Unit) -> Result<Vec<Gate>> {
        let now = picture.now;
        let trigger = &unit.def.trigger;
        let next = match trigger {
            Trigger::Window(spec) => {
                let Some(start) = self.next_window(unit, spec).await? else {
                    return Ok(vec![Gate::NoOrigin { series: spec.series.clone() }]);
                };
                return Ok(self.window_alone(picture, unit, spec, start).await?.gates);
            }
            Trigger::Every { .. } | Trigger::Cron(_) => {
                let known = picture.records.get(&unit.def.name).and_then(|r| r.next_due);
                known.or_else(|| schedule::next_due(trigger, now))
            }
            Trigger::On { kinds } => self.next_event(&unit.def.name, kinds, now).await?,
            Trigger::Queue(spec) => {
                let stats = self.store.queue_stats(now).await?;
                let own = spec.kinds.iter().filter_map(|k| stats.get(&k.name));
                own.filter_map(|s| s.oldest_due.or(s.next_due)).min()
            }
            Trigger::Stream | Trigger::Manual => None,
        };
        Ok(trigger_gates(trigger, next, now))
    }

    /// When a subscriber has its next event; `None` when it is past all of them.
    async fn next_event(
        &self,
        worker: &WorkerName,
        kinds: &[String],
        now: Time,
    ) -> Result<Option<Time>> {
        let subscribers = self.store.subscribers().await?;
        let Some(place) = subscribers.into_iter().find(|s| s.worker == *worker) else {
            return Ok(None);
        };
        let query = EventQuery { after: Some(place.cursor), kinds: kinds.to_vec(), limit: 1 };
        let waiting = self.store.events(query).await?.pop();
        Ok(waiting.map(|_| place.next_attempt_at.unwrap_or(now)))
    }

    /// The next window of a series that is not final; `None` while it has no beginning.
    pub(super) async fn next_window(&self, unit: &Unit, spec: &WindowSpec) -> Result<Option<Time>> {
        let Some(origin) = first_window(unit, Time::EPOCH).await? else { return Ok(None) };
        let frontier = self.store.frontier(&spec.series, origin, Time::FAR_FUTURE).await?;
        Ok(Some(match (frontier.unfinished, frontier.last) {
            (Some(window), _) => window.start,
            (None, Some(last)) => {
                let after = last + spec.length;
                first_window(unit, after).await?.unwrap_or(after)
            }
            (None, None) => origin,
        }))
    }

    /// A window, and its worker where nothing of its own stands in its way.
    async fn of_window(
        &self,
        picture: &Picture,
        series: &SeriesName,
        start: Time,
    ) -> Result<Option<Explanation>> {
        let Ok((unit, spec)) = self.series_unit(series) else { return Ok(None) };
        let mut explanation = self.window_alone(picture, unit, spec, start).await?;
        if explanation.verdict == Verdict::Runnable
            && let Some(facts) = self.facts(picture, &unit.def, Vec::new()).await?
        {
            explanation.gates = worker_gates(&facts, picture.now);
            explanation.worker = Some(unit.def.name.clone());
            if !explanation.gates.is_empty() {
                explanation.verdict = Verdict::Waiting;
            }
        }
        Ok(Some(explanation))
    }

    pub(super) async fn window_alone(
        &self,
        picture: &Picture,
        unit: &Unit,
        spec: &WindowSpec,
        start: Time,
    ) -> Result<Explanation> {
        let known = self.store.window(&spec.series, start).await?.pop();
        let state = known.as_ref().map_or(State::Open, |w| w.state);
        let final_or_running = state.is_final() || state == State::Running;
        let over = picture.now >= start + spec.length + spec.settle;
        // Before its end, and once it runs, there is nothing to ask about its inputs.
        let inputs = if over && !final_or_running {
            self.inputs(unit, spec, start, known.as_ref()).await?
        } else {
            WindowInputs::default()
        };
        let (cycle, started) = known.as_ref().map_or((None, None), |w| (w.cycle, w.started_at));
        let facts = WindowFacts {
            spec,
            start,
            state,
            attempts: known.as_ref().map_or(0, |w| w.attempts),
            error: known.as_ref().and_then(|w| w.reason.clone()),
            next_attempt_at: known.as_ref().and_then(|w| w.next_attempt_at),
            running: cycle.zip(started),
            inputs: inputs.facts(),
        };
        let since = match state {
            State::Complete | State::Abandoned => known.as_ref().and_then(|w| w.finished_at),
            State::Running => started,
            State::Open | State::Ready | State::Failed => None,
        };
        Ok(Explanation::of_window(&facts, since, picture.now))
    }

    pub(super) async fn inputs(
        &self,
        unit: &Unit,
        spec: &WindowSpec,
        start: Time,
        known: Option<&WindowRecord>,
    ) -> Result<WindowInputs> {
        let mut inputs = WindowInputs::read(&*self.store, spec, start).await?;
        inputs.scope = match known.filter(|w| !w.scope.is_empty()) {
            Some(window) => window.scope.clone(),
            None => unit.worker.scope(start).await.map_err(|e| cannot_tell(unit, &*e))?,
        };
        inputs.earlier = self.earlier(unit, spec, start).await?;
        Ok(inputs)
    }

    /// The oldest window before `start` that must be finished first. One that a backfill fills in
    /// before the beginning of the series holds up nobody.
    async fn earlier(
        &self,
        unit: &Unit,
        spec: &WindowSpec,
        start: Time,
    ) -> Result<Option<(Time, State)>> {
        let Some(origin) = first_window(unit, Time::EPOCH).await?.filter(|o| *o < start) else {
            return Ok(None);
        };
        let frontier = self.store.frontier(&spec.series, origin, Time::FAR_FUTURE).await?;
        let oldest = match (frontier.unfinished, frontier.last) {
            (Some(window), _) => (window.start, window.state),
            (None, Some(last)) => {
                let after = last + spec.length;
                (first_window(unit, after).await?.unwrap_or(after), State::Open)
            }
            (None, None) => (origin, State::Open),
        };
        Ok((oldest.0 < start).then_some(oldest))
    }

    /// The worker that provides a cover, and the venue behind it.
    async fn of_cover(&self, picture: &Picture, source: &str) -> Result<Option<Explanation>> {
        let Some(provider) = provider(source) else { return Ok(None) };
        let Some(mut explanation) = self.of_worker(picture, &provider).await? else {
            return Ok(None);
        };
        // The worker keeps asking a venue that is not well: it is how one learns that it recovered.
        // So the venue is no gate of its own, but it is the reason why the cover does not grow.
        let venue = picture.conditions.iter().find(|c| c.name == watchbell_market::VENUE);
        let listed = explanation
            .gates
            .iter()
            .any(|g| matches!(g, Gate::Condition { name, .. } if name == watchbell_market::VENUE));
        if let Some(c) = venue.filter(|c| !listed && !holds(c, picture.now)) {
            let gate =
                Gate::Condition { name: c.name.clone(), detail: c.detail.clone(), until: c.until };
            // No venue helps a worker that is stopped, or has no node to run on.
            let before = |g: &&Gate| {
                matches!(g, Gate::Unavailable { .. } | Gate::Desired { .. } | Gate::NoNode)
            };
            let at = explanation.gates.iter().take_while(before).count();
            explanation.gates.insert(at, gate);
            if explanation.verdict == Verdict::Runnable {
                explanation.verdict = Verdict::Waiting;
            }
        }
        Ok(Some(explanation))
    }
}

/// The worker that extends the covers of a source.
fn provider(source: &str) -> Option<WorkerName> {
    (source == watchbell_market::KLINES).then(|| WorkerName::from(watchbell_market::MARKET_SYNC))
}

pub(super) async fn first_window(unit: &Unit, from: Time) -> Result<Option<Time>> {
    unit.worker.first_window(from).await.map_err(|e| cannot_tell(unit, &*e))
}

fn cannot_tell(unit: &Unit, error: &(dyn std::error::Error + 'static)) -> ControlError {
    ControlError::unavailable(format!(
        "{} cannot tell what is next: {}",
        unit.def.name,
        chain(error)
    ))
}
