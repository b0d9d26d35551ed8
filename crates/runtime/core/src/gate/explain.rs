//! What `explain` answers: facts about a thing turned into its gates, a verdict, and a tree.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Clears, Gate};
use crate::commit::Condition;
use crate::lifecycle::{self, Desired};
use crate::trigger::{Trigger, WindowSpec};
use crate::units::{CycleId, SessionId, Time, WorkerName};
use crate::window::{InputFacts, readiness};
use crate::worker::Definition;
use crate::{job, window};

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing stands in its way.
    Runnable,
    /// A cycle of it is running.
    Running,
    /// A gate is closed.
    Waiting,
    /// It is finished.
    Done,
    /// It ended without success, and goes on only by an operator's hand.
    Failed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Runnable => "may run now",
            Self::Running => "is running",
            Self::Waiting => "is waiting",
            Self::Done => "is done",
            Self::Failed => "has failed",
        })
    }
}

/// The answer of `explain`: how a thing stands, and why. Prints as an indented tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The thing, such as `worker market-sync` or `window window-sampler-30m 2026-11-22T03:00:00Z`.
    pub subject: String,
    /// How it stands.
    pub verdict: Verdict,
    /// Since when, if known.
    pub since: Option<Time>,
    /// Closed gates; the first is the reason.
    pub gates: Vec<Gate>,
    /// What stands behind the first gate.
    pub chain: Vec<Explanation>,
    /// The worker that commands against its gates must name, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerName>,
}

impl Explanation {
    /// How a worker stands.
    #[must_use]
    pub fn of_worker(facts: &WorkerFacts<'_>, since: Option<Time>, now: Time) -> Self {
        let gates = worker_gates(facts, now);
        let verdict = match gates.first() {
            None => Verdict::Runnable,
            Some(Gate::StillRunning { .. }) => Verdict::Running,
            Some(Gate::GaveUp { .. }) => Verdict::Failed,
            Some(_) => Verdict::Waiting,
        };
        let name = &facts.definition.name;
        let subject = format!("worker {name}");
        Self { subject, verdict, since, gates, chain: Vec::new(), worker: Some(name.clone()) }
    }

    /// How a window stands.
    #[must_use]
    pub fn of_window(facts: &WindowFacts<'_>, since: Option<Time>, now: Time) -> Self {
        let gates = window_gates(facts, now);
        let verdict = match facts.state {
            window::State::Complete => Verdict::Done,
            window::State::Abandoned => Verdict::Failed,
            window::State::Running => Verdict::Running,
            window::State::Open | window::State::Ready | window::State::Failed => waits(&gates),
        };
        let subject = format!("window {} {}", facts.spec.series, facts.start);
        Self { subject, verdict, since, gates, chain: Vec::new(), worker: None }
    }

    /// How a job stands.
    #[must_use]
    pub fn of_job(facts: &JobFacts, since: Option<Time>, now: Time) -> Self {
        let gates = job_gates(facts, now);
        let verdict = match facts.state {
            job::State::Succeeded => Verdict::Done,
            job::State::Failed | job::State::Cancelled => Verdict::Failed,
            job::State::Running => Verdict::Running,
            job::State::Queued => waits(&gates),
        };
        let subject = format!("job {} ({})", facts.id, facts.kind);
        Self { subject, verdict, since, gates, chain: Vec::new(), worker: None }
    }

    /// What makes a gate go away, with commands that can be typed as they stand.
    #[must_use]
    pub fn clears(&self, gate: &Gate) -> Clears {
        match (gate.clears(), &self.worker) {
            (Clears::Operator { action }, Some(worker)) => {
                Clears::Operator { action: action.replace("NAME", worker.as_str()) }
            }
            (clears, _) => clears,
        }
    }

    /// Adds what stands behind the first gate.
    #[must_use]
    pub fn because(mut self, behind: Self) -> Self {
        self.chain.push(behind);
        self
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let indent = "  ".repeat(depth);
        write!(f, "{indent}{} {}", self.subject, self.verdict)?;
        if let Some(since) = self.since {
            write!(f, " since {since}")?;
        }
        for (i, gate) in self.gates.iter().enumerate() {
            let word = if i == 0 { "because" } else { "and" };
            write!(f, "\n{indent}  {word} {gate}\n{indent}    {}", self.clears(gate))?;
        }
        for behind in &self.chain {
            f.write_str("\n")?;
            behind.write(f, depth + 1)?;
        }
        Ok(())
    }
}

fn waits(gates: &[Gate]) -> Verdict {
    if gates.is_empty() { Verdict::Runnable } else { Verdict::Waiting }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

/// What a worker's gates depend on.
#[derive(Debug, Clone)]
pub struct WorkerFacts<'a> {
    /// Its definition.
    pub definition: &'a Definition,
    /// Whether a node runs. Without one, states are as the last node left them.
    pub node: bool,
    /// What it is doing.
    pub state: lifecycle::State,
    /// What an operator asked for.
    pub desired: Desired,
    /// Who asked.
    pub desired_by: Option<String>,
    /// When.
    pub desired_at: Option<Time>,
    /// Since when it is in its state.
    pub state_since: Option<Time>,
    /// Its newest error.
    pub error: Option<String>,
    /// When it starts again after a failure.
    pub restart_at: Option<Time>,
    /// Until when the storm breaker is open.
    pub storm_until: Option<Time>,
    /// The workers that it needs, but not softly, and their states.
    pub needs: Vec<(WorkerName, lifecycle::State)>,
    /// The conditions that anyone has set.
    pub conditions: &'a [Condition],
    /// Its running cycle and when that started.
    pub running: Option<(CycleId, Time)>,
    /// A lease on it that is held by another session, and until when.
    pub lease: Option<(SessionId, Time)>,
    /// The other worker that runs a cycle in its lane.
    pub lane_holder: Option<WorkerName>,
    /// What else the node holds it back for: others that go first, or a slow store.
    pub held_back: Option<Gate>,
    /// Gates of what it would do next: from [`trigger_gates`] or [`window_gates`].
    pub next: Vec<Gate>,
}

/// Why a worker does not start a cycle at `now`; empty when it may.
#[must_use]
pub fn worker_gates(facts: &WorkerFacts<'_>, now: Time) -> Vec<Gate> {
    let mut gates = Vec::new();
    if let Some(reason) = &facts.definition.unavailable {
        gates.push(Gate::Unavailable { reason: reason.clone() });
    } else if facts.state == lifecycle::State::Unavailable {
        gates.push(Gate::Unavailable { reason: "something that it requires is missing".into() });
    }
    if facts.desired != Desired::Running {
        gates.push(Gate::Desired {
            desired: facts.desired,
            by: facts.desired_by.clone(),
            since: facts.desired_at,
        });
    } else {
        gates.extend(start_gates(facts, now));
    }
    for name in &facts.definition.requires {
        let condition = facts.conditions.iter().find(|c| c.name == *name);
        match condition {
            Some(c) if c.met => {}
            Some(c) => gates.push(Gate::Condition {
                name: name.clone(),
                detail: c.detail.clone(),
                until: c.until.filter(|t| *t > now),
            }),
            None => gates.push(Gate::Condition {
                name: name.clone(),
                detail: "nothing has reported on it yet".to_owned(),
                until: None,
            }),
        }
    }
    if let Some((cycle, since)) = facts.running {
        gates.push(Gate::StillRunning { cycle, since });
    }
    if let Some((owner, until)) = facts.lease.as_ref().filter(|(_, until)| *until > now) {
        gates.push(Gate::LeaseHeld { owner: owner.clone(), until: *until });
    }
    if let Some((lane, worker)) = facts.definition.lane.as_ref().zip(facts.lane_holder.as_ref()) {
        gates.push(Gate::Lane { lane: lane.clone(), worker: worker.clone() });
    }
    gates.extend(facts.held_back.clone());
    gates.extend(facts.next.iter().cloned());
    gates
}

/// Why a worker that should run does not.
fn start_gates(facts: &WorkerFacts<'_>, now: Time) -> Vec<Gate> {
    use lifecycle::State as S;
    let mut gates = Vec::new();
    match facts.state {
        S::Unavailable => {}
        S::Failed if facts.restart_at.is_none() => {
            gates.push(Gate::GaveUp { since: facts.state_since, error: facts.error.clone() });
        }
        _ if !facts.node => gates.push(Gate::NoNode),
        S::Running => {}
        S::Failed | S::Restarting => {
            gates.extend(
                facts.restart_at.filter(|t| *t > now).map(|until| Gate::RestartBackoff { until }),
            );
            gates.extend(facts.storm_until.filter(|t| *t > now).map(|until| Gate::Storm { until }));
        }
        S::Stopped | S::Initializing => {
            let missing = facts.needs.iter().filter(|(_, s)| *s != S::Running);
            gates.extend(missing.map(|(w, s)| Gate::Dependency { worker: w.clone(), state: *s }));
        }
        S::Paused | S::ShuttingDown => {}
    }
    if gates.is_empty() && !matches!(facts.state, S::Running | S::Unavailable) {
        gates.push(Gate::NotRunning { state: facts.state });
    }
    gates
}

/// Why a trigger gives nothing to do at `now`. `next` is the earliest instant at which it has
/// something: its due instant, or the time of its first job or event.
///
/// A window trigger's gates are those of its window: [`window_gates`].
#[must_use]
pub fn trigger_gates(trigger: &Trigger, next: Option<Time>, now: Time) -> Vec<Gate> {
    let gate = match (trigger, next) {
        (Trigger::Manual, _) => Some(Gate::OnCommand),
        (Trigger::Stream | Trigger::Window(_), _) => None,
        (_, Some(until)) => (until > now).then_some(Gate::NotDue { until }),
        (Trigger::On { kinds }, None) => Some(Gate::NoEvent { kinds: kinds.clone() }),
        (Trigger::Queue(spec), None) => Some(Gate::NothingQueued { kinds: spec.names() }),
        (Trigger::Every { .. } | Trigger::Cron(_), None) => None,
    };
    gate.into_iter().collect()
}

/// What a window's gates depend on.
#[derive(Debug, Clone)]
pub struct WindowFacts<'a> {
    /// Its series.
    pub spec: &'a WindowSpec,
    /// Its start.
    pub start: Time,
    /// Its state; `Open` when it is not stored yet.
    pub state: window::State,
    /// Attempts made.
    pub attempts: u32,
    /// Why the newest attempt failed.
    pub error: Option<String>,
    /// Not before this instant.
    pub next_attempt_at: Option<Time>,
    /// Its running cycle and when that started.
    pub running: Option<(CycleId, Time)>,
    /// Its inputs.
    pub inputs: InputFacts<'a>,
}

/// Why a window is not computed at `now`; empty when it may be, or is complete.
#[must_use]
pub fn window_gates(facts: &WindowFacts<'_>, now: Time) -> Vec<Gate> {
    let mut gates = Vec::new();
    match facts.state {
        window::State::Complete => return gates,
        window::State::Abandoned => {
            let command = format!("watchbell window retry {} {}", facts.spec.series, facts.start);
            let (attempts, error) = (facts.attempts, facts.error.clone());
            return vec![Gate::Exhausted { attempts, error, command }];
        }
        window::State::Running => {
            gates.extend(facts.running.map(|(cycle, since)| Gate::StillRunning { cycle, since }));
            return gates;
        }
        window::State::Open | window::State::Ready | window::State::Failed => {}
    }
    if let Some(until) = facts.next_attempt_at.filter(|t| *t > now) {
        gates.push(Gate::Backoff { until, attempts: facts.attempts, error: facts.error.clone() });
    }
    gates.extend(readiness(facts.spec, facts.start, &facts.inputs, now).err().unwrap_or_default());
    gates
}

/// What a job's gates depend on.
#[derive(Debug, Clone)]
pub struct JobFacts {
    /// Its number.
    pub id: i64,
    /// Its kind.
    pub kind: String,
    /// Its state.
    pub state: job::State,
    /// Attempts that counted.
    pub attempts: u32,
    /// The newest error.
    pub error: Option<String>,
    /// Not before this instant.
    pub run_at: Time,
    /// Its running cycle and when that started.
    pub running: Option<(CycleId, Time)>,
    /// The state of the worker that takes its kind; `None` when no worker does.
    pub worker: Option<(WorkerName, lifecycle::State)>,
    /// Who took its kind last, and when that worker was registered.
    pub last_worker: Option<(WorkerName, Time)>,
}

/// Why a job does not run at `now`; empty when it may, or has succeeded.
#[must_use]
pub fn job_gates(facts: &JobFacts, now: Time) -> Vec<Gate> {
    let mut gates = Vec::new();
    match facts.state {
        job::State::Succeeded | job::State::Cancelled => {}
        job::State::Failed => {
            let command = format!("watchbell job redrive {}", facts.id);
            let (attempts, error) = (facts.attempts, facts.error.clone());
            gates.push(Gate::Exhausted { attempts, error, command });
        }
        job::State::Running => {
            gates.extend(facts.running.map(|(cycle, since)| Gate::StillRunning { cycle, since }));
        }
        job::State::Queued => {
            let until = facts.run_at;
            if until > now && facts.attempts > 0 {
                let error = facts.error.clone();
                gates.push(Gate::Backoff { until, attempts: facts.attempts, error });
            } else if until > now {
                gates.push(Gate::NotDue { until });
            }
            match &facts.worker {
                None => gates.push(Gate::NoConsumer {
                    job_kind: facts.kind.clone(),
                    last: facts.last_worker.clone(),
                }),
                Some((_, lifecycle::State::Running)) => {}
                Some((worker, state)) => {
                    gates.push(Gate::Dependency { worker: worker.clone(), state: *state });
                }
            }
        }
    }
    gates
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::gate::Behind;
    use crate::job::Kind;
    use crate::trigger::QueueSpec;
    use crate::units::Millis;

    fn facts(definition: &Definition) -> WorkerFacts<'_> {
        WorkerFacts {
            definition,
            node: true,
            state: lifecycle::State::Running,
            desired: Desired::Running,
            desired_by: None,
            desired_at: None,
            state_since: None,
            error: None,
            restart_at: None,
            storm_until: None,
            needs: Vec::new(),
            conditions: &[],
            running: None,
            lease: None,
            lane_holder: None,
            held_back: None,
            next: Vec::new(),
        }
    }

    #[test]
    fn a_worker_says_why_it_waits() {
        let mut definition = Definition::new("w", Trigger::Manual).lane("gpu");
        let now = Time(1_000);
        let kinds = |f: &WorkerFacts<'_>| {
            worker_gates(f, now).iter().map(Gate::kind).collect::<Vec<_>>().join(" ")
        };
        use lifecycle::State as S;
        assert_eq!(kinds(&facts(&definition)), "");
        for (state, restart, storm, expected) in [
            (S::Stopped, None, None, "dependency"),
            (S::Initializing, None, None, "dependency"),
            (S::Paused, None, None, "not_running"),
            (S::ShuttingDown, None, None, "not_running"),
            (S::Failed, None, None, "gave_up"),
            (S::Failed, Some(2_000), None, "restart_backoff"),
            (S::Restarting, Some(2_000), Some(3_000), "restart_backoff storm"),
            (S::Restarting, Some(500), Some(3_000), "storm"),
            (S::Restarting, Some(500), Some(500), "not_running"),
            (S::Unavailable, None, None, "unavailable"),
        ] {
            let f = WorkerFacts {
                state,
                restart_at: restart.map(Time),
                storm_until: storm.map(Time),
                needs: vec![("a".into(), S::Running), ("b".into(), S::Stopped)],
                ..facts(&definition)
            };
            assert_eq!(kinds(&f), expected, "{state}");
        }
        for (state, expected) in [
            (S::Stopped, "no_node"),
            (S::Running, "no_node"),
            (S::Restarting, "no_node"),
            (S::Failed, "gave_up"),
            (S::Unavailable, "unavailable"),
        ] {
            let needs = vec![("b".into(), S::Stopped)];
            let f = WorkerFacts { node: false, state, needs, ..facts(&definition) };
            assert_eq!(kinds(&f), expected, "{state}");
        }
        let wish = WorkerFacts { node: false, desired: Desired::Paused, ..facts(&definition) };
        assert_eq!(kinds(&wish), "desired");
        let busy = WorkerFacts {
            desired: Desired::Paused,
            running: Some((CycleId(1), Time(0))),
            lease: Some(("n2".into(), Time(5_000))),
            lane_holder: Some("train".into()),
            next: trigger_gates(&definition.trigger, None, now),
            ..facts(&definition)
        };
        assert_eq!(kinds(&busy), "desired still_running lease_held lane on_command");
        definition.requires = vec!["venue:x".into()];
        assert_eq!(kinds(&facts(&definition)), "condition", "unknown is not well");
        let mut condition =
            Condition { name: "venue:x".into(), met: true, detail: String::new(), until: None };
        let with = |c: &Condition| {
            kinds(&WorkerFacts { conditions: std::slice::from_ref(c), ..facts(&definition) })
        };
        assert_eq!(with(&condition), "");
        condition.met = false;
        assert_eq!(with(&condition), "condition");
    }

    #[test]
    fn triggers_say_when_they_have_nothing() {
        let kinds = vec!["k".to_owned()];
        let every = Trigger::Every { period: Millis(10), offset: Millis(0) };
        let kind = |name: &String| Kind::new(name.as_str());
        let queue = Trigger::Queue(QueueSpec {
            kinds: kinds.iter().map(kind).collect(),
            concurrency: 1,
            prefetch: 0,
        });
        let on = Trigger::On { kinds };
        for (trigger, next, expected) in [
            (&every, Some(11), "not_due"),
            (&every, Some(10), ""),
            (&queue, None, "nothing_queued"),
            (&queue, Some(11), "not_due"),
            (&queue, Some(9), ""),
            (&on, None, "no_event"),
            (&Trigger::Stream, None, ""),
            (&Trigger::Manual, None, "on_command"),
        ] {
            let gates = trigger_gates(trigger, next.map(Time), Time(10));
            assert_eq!(gates.first().map_or("", Gate::kind), expected, "{trigger}");
        }
    }

    #[test]
    fn an_explanation_is_a_tree() {
        let spec = WindowSpec {
            series: "window-sampler-30m".into(),
            length: Millis::from_mins(30),
            settle: Millis::ZERO,
            inputs: vec![crate::WindowInput::Cover {
                source: "klines:1m".into(),
                lookback: Millis::ZERO,
            }],
            max_attempts: 3,
        };
        let (covers, windows) = (BTreeMap::new(), BTreeMap::new());
        let scope = ["BTCUSDT".to_owned()];
        let facts_of = |state| WindowFacts {
            spec: &spec,
            start: Time(0),
            state,
            attempts: 1,
            error: Some("no answer".into()),
            next_attempt_at: Some(Time(1_860_000)),
            running: None,
            inputs: InputFacts {
                scope: &scope,
                covers: &covers,
                windows: &windows,
                earlier: None,
                previous: None,
            },
        };
        let definition = Definition::new("market-sync", Trigger::Stream);
        let paused = WorkerFacts {
            desired: Desired::Paused,
            desired_by: Some("ada".into()),
            ..facts(&definition)
        };
        let now = Time(1_800_000);
        let window = Explanation::of_window(&facts_of(window::State::Failed), Some(now), now);
        assert_eq!(
            window.gates[1].behind(),
            Some(Behind::Cover("klines:1m".into(), "BTCUSDT".into()))
        );
        let tree = window.because(Explanation::of_worker(&paused, None, now));
        assert_eq!(
            tree.to_string(),
            "window window-sampler-30m 1970-01-01T00:00:00Z is waiting since 1970-01-01T00:30:00Z\n  \
               because attempt 1 did not finish, and the next is at 1970-01-01T00:31:00Z: no answer\n    \
                 clears at 1970-01-01T00:31:00Z\n  \
               and klines:1m of BTCUSDT is missing from 1970-01-01T00:00:00Z, and is needed to 1970-01-01T00:30:00Z\n    \
                 clears when klines:1m of BTCUSDT is complete to 1970-01-01T00:30:00Z\n  \
               worker market-sync is waiting\n    \
                 because it was paused by ada\n      \
                   to clear it: resume it with `watchbell worker resume market-sync`"
        );
        let stored = serde_json::to_string(&tree).unwrap();
        assert_eq!(serde_json::from_str::<Explanation>(&stored).unwrap(), tree);
        for (state, verdict) in [
            (window::State::Complete, Verdict::Done),
            (window::State::Abandoned, Verdict::Failed),
            (window::State::Running, Verdict::Running),
            (window::State::Open, Verdict::Waiting),
        ] {
            assert_eq!(Explanation::of_window(&facts_of(state), None, now).verdict, verdict);
        }
    }

    #[test]
    fn a_job_says_why_it_waits() {
        let mut job = JobFacts {
            id: 7,
            kind: "mail".into(),
            state: job::State::Queued,
            attempts: 0,
            error: None,
            run_at: Time(20),
            running: None,
            worker: Some(("mailer".into(), lifecycle::State::Running)),
            last_worker: None,
        };
        let first = |j: &JobFacts, now| {
            let e = Explanation::of_job(j, None, Time(now));
            (e.verdict, e.gates.first().map(Gate::kind))
        };
        assert_eq!(first(&job, 10), (Verdict::Waiting, Some("not_due")));
        assert_eq!(first(&job, 20), (Verdict::Runnable, None));
        job.worker = Some(("mailer".into(), lifecycle::State::Paused));
        assert_eq!(first(&job, 20), (Verdict::Waiting, Some("dependency")));
        job.worker = None;
        assert_eq!(first(&job, 20), (Verdict::Waiting, Some("no_consumer")));
        job.attempts = 1;
        assert_eq!(first(&job, 10), (Verdict::Waiting, Some("backoff")));
        job.state = job::State::Failed;
        assert_eq!(first(&job, 10), (Verdict::Failed, Some("exhausted")));
        job.state = job::State::Succeeded;
        assert_eq!(first(&job, 10), (Verdict::Done, None));
    }
}
