//! One window that a person has tried again or gives up: facts from the store, judged by `core`, done
//! by the store if nothing has changed meanwhile.

use std::sync::Arc;

use watchbell_api::{ControlError, Result, WindowChanged, WindowOptions, WindowRequest};
use watchbell_core::gate::Gate;
use watchbell_core::port::{WindowChange, WindowRecord};
use watchbell_core::window::{self, Refused, Standing, State, Wish};
use watchbell_core::{Time, WindowSpec};
use watchbell_engine::{Effects, Unit};

use super::run::stopped;
use super::windows::aligned;
use super::{LocalControl, Picture};

/// The window that a wish is about.
struct Subject<'a> {
    unit: &'a Arc<Unit>,
    spec: &'a WindowSpec,
    start: Time,
    known: Option<WindowRecord>,
}

impl Subject<'_> {
    fn end(&self) -> Time {
        self.start + self.spec.length
    }

    fn state(&self) -> State {
        self.known.as_ref().map_or(State::Open, |w| w.state)
    }

    /// As in commands.
    fn name(&self) -> String {
        format!("{} {}", self.spec.series, self.start)
    }
}

impl LocalControl {
    pub(super) async fn steer_window(&self, request: WindowRequest) -> Result<WindowChanged> {
        let WindowRequest { series, start, wish, options } = request;
        let WindowOptions { reason, preview, by } = options;
        let reason = reason.map(|r| r.trim().to_owned()).filter(|r| !r.is_empty());
        if wish == Wish::Abandon && reason.is_none() {
            return Err(ControlError::invalid("giving a window up needs a reason")
                .help("say in a few words why the series has to go on without it"));
        }
        if !preview {
            self.can_be_told()?;
        }
        let (unit, spec) = self.series_unit(&series)?;
        let start = aligned(spec, start)?;
        let known = self.store.window(&series, start).await?.pop();
        let subject = Subject { unit, spec, start, known };
        let picture = self.picture().await?;
        let again = wish == Wish::Retry && subject.state() == State::Abandoned;
        let lacks = if again { self.lacks(&subject, picture.now).await? } else { None };
        let standing = Standing {
            state: subject.state(),
            over: picture.now >= subject.end() + spec.settle,
            waits: subject
                .known
                .as_ref()
                .and_then(|w| w.next_attempt_at)
                .is_some_and(|t| t > picture.now),
            reached: subject.known.is_some() || self.reached(&subject).await?,
            computable: lacks.is_none(),
        };
        let change = match window::steer(wish, &standing) {
            Ok(change) => change,
            Err(refused) => return Err(self.refusal(&picture, &subject, refused, lacks).await?),
        };
        let mut done = WindowChanged {
            preview,
            series: series.clone(),
            start,
            change,
            before: subject.known.clone(),
            after: None,
        };
        if preview {
            return Ok(done);
        }
        let (end, seen) = (subject.end(), subject.known);
        let order = WindowChange { series: series.clone(), start, end, seen, change, by, reason };
        done.after = Some(self.store.change_window(order, picture.now).await?);
        if let Some(engine) = &self.engine {
            engine.wake(Effects { series: [series].into(), ..Effects::default() });
        }
        Ok(done)
    }

    /// Whether the series has come to a window of which nothing is stored.
    async fn reached(&self, subject: &Subject<'_>) -> Result<bool> {
        let next = self.next_window(subject.unit, subject.spec).await?;
        Ok(next.is_some_and(|next| subject.start <= next)
            && super::explain::first_window(subject.unit, subject.start).await?
                == Some(subject.start))
    }

    /// Why a window that was given up cannot be computed now, with what would help. One that is tried
    /// again comes before all that follow it, so it has to be certain that it can be.
    async fn lacks(&self, subject: &Subject<'_>, now: Time) -> Result<Option<(String, String)>> {
        let Subject { unit, spec, start, known } = subject;
        let inputs = self.inputs(unit, spec, *start, known.as_ref()).await?;
        // Those before it are no reason: it goes first.
        let facts = window::InputFacts { earlier: None, ..inputs.facts() };
        if let Err(gates) = window::readiness(spec, *start, &facts, now)
            && let Some(gate) = gates.first()
        {
            return Ok(Some((gate.to_string(), gate.clears().to_string())));
        }
        let help = "try again when what is missing has come: holes of the venue are asked for once \
                    a day, and now by a `backfill_klines` job";
        Ok(match self.bench().rehearse(unit, Some(*start)).await {
            Ok(Ok(_)) => None,
            Ok(Err(report)) => Some((stopped(&report), help.to_owned())),
            Err(fault) => Some((fault.to_string(), help.to_owned())),
        })
    }

    /// Says no, and what can be done.
    async fn refusal(
        &self,
        picture: &Picture,
        subject: &Subject<'_>,
        refused: Refused,
        lacks: Option<(String, String)>,
    ) -> Result<ControlError> {
        let (name, series, start) = (subject.name(), &subject.spec.series, subject.start);
        let say = |text: String, help: String| {
            ControlError::conflict(format!("window {name} {text}")).help(help)
        };
        Ok(match refused {
            Refused::Complete => say(
                "is complete, and a complete window never changes".to_owned(),
                format!(
                    "`watchbell window backfill {series} --from {start} --to {} --recompute REASON` \
                     computes it again, as a new version beside the old one",
                    subject.end()
                ),
            ),
            Refused::Running => say(
                format!("is being computed{}", self.holder(picture, subject)),
                format!(
                    "wait for its end; `watchbell worker stop {}` stops it",
                    subject.unit.def.name
                ),
            ),
            Refused::NotOver => say(
                format!("is not over: it ends at {}", subject.end()),
                "a window can be given up or tried again only after its end".to_owned(),
            ),
            Refused::NotFailed => {
                let gates =
                    self.window_alone(picture, subject.unit, subject.spec, start).await?.gates;
                let waits = gates
                    .first()
                    .map_or_else(|| "nothing stands in its way".to_owned(), ToString::to_string);
                say(
                    format!("has not failed: {waits}"),
                    format!(
                        "`watchbell explain {series}/{start}` says more; `watchbell window abandon` \
                         gives it up"
                    ),
                )
            }
            Refused::AlreadyAbandoned => {
                let why = subject.known.as_ref().and_then(|w| w.reason.as_deref());
                say(
                    format!("is abandoned already: {}", why.unwrap_or("no reason was recorded")),
                    format!("`watchbell window retry {name}` tries it again"),
                )
            }
            Refused::NotReached => {
                let next = self.next_window(subject.unit, subject.spec).await?;
                let first =
                    next.map_or_else(String::new, |t| format!(": {series} {t} comes first"));
                say(
                    format!("cannot be given up yet{first}"),
                    "windows are computed in order, and a leap would leave out those between"
                        .to_owned(),
                )
            }
            Refused::NotComputable => {
                let (why, help) = lacks.unwrap_or_default();
                say(format!("cannot be computed: {why}"), help)
            }
        })
    }

    /// Who computes a window, as the end of a sentence.
    fn holder(&self, picture: &Picture, subject: &Subject<'_>) -> String {
        let worker = &subject.unit.def.name;
        let Some((cycle, since)) = subject.known.as_ref().and_then(|w| w.cycle.zip(w.started_at))
        else {
            return String::new();
        };
        let gate = Gate::StillRunning { cycle, since };
        let lease = picture.records.get(worker).and_then(|r| {
            r.lease_owner.clone().zip(r.lease_expires_at.filter(|t| *t > picture.now))
        });
        let Some((owner, _)) = lease else {
            return format!(
                ": {gate} of {worker}, but its lease has expired: the next node to start takes it back"
            );
        };
        let node = picture.nodes.iter().find(|n| n.session.id == owner).map(|n| &n.session);
        let own = self.session.as_ref().filter(|s| s.id == owner);
        match own.or(node) {
            Some(s) => format!(
                ": cycle {cycle} of {worker} on {} (process {}) since {since}",
                s.host, s.pid
            ),
            None => format!(": cycle {cycle} of {worker} for {owner} since {since}"),
        }
    }
}
