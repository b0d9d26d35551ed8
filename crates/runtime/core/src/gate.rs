//! Why something may not run now.
//!
//! A gate is one reason. The engine asks for gates before it claims; `explain` asks the same
//! functions and prints the first gate, since when, what clears it, and the chain behind it.

mod explain;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::explain::{
    Explanation, JobFacts, Verdict, WindowFacts, WorkerFacts, job_gates, trigger_gates,
    window_gates, worker_gates,
};
use crate::lifecycle::{self, Desired};
use crate::units::{CycleId, Millis, SeriesName, SessionId, Time, WorkerName};
use crate::window;

/// One reason why something may not run now. Prints as one sentence for an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Gate {
    /// What it requires is missing on this node.
    Unavailable {
        /// What, and how to get it.
        reason: String,
    },
    /// An operator wants it paused or stopped.
    Desired {
        /// What the operator asked for.
        desired: Desired,
        /// Who asked.
        by: Option<String>,
        /// When.
        since: Option<Time>,
    },
    /// It failed more often than its budget allows.
    GaveUp {
        /// The oldest failure that counts.
        since: Option<Time>,
        /// The newest error.
        error: Option<String>,
    },
    /// It failed and waits before it starts again.
    RestartBackoff {
        /// Until then.
        until: Time,
    },
    /// Too many workers failed at once; all restarts wait.
    Storm {
        /// Until then, if it stays calm.
        until: Time,
    },
    /// Something that it needs does not run.
    Dependency {
        /// The needed worker.
        worker: WorkerName,
        /// Its state.
        state: lifecycle::State,
    },
    /// No node runs, so nothing does.
    NoNode,
    /// It is on its way to running or stopping.
    NotRunning {
        /// Its state.
        state: lifecycle::State,
    },
    /// A condition that it requires does not hold.
    Condition {
        /// The condition, such as `venue:binance`.
        name: String,
        /// Why it does not hold.
        detail: String,
        /// When it is expected to hold again.
        until: Option<Time>,
    },
    /// Its previous cycle goes on; cycles of one worker never overlap.
    StillRunning {
        /// The cycle.
        cycle: CycleId,
        /// When it started.
        since: Time,
    },
    /// Another boot of a node has the right to run it.
    LeaseHeld {
        /// Which.
        owner: SessionId,
        /// Until then, unless renewed.
        until: Time,
    },
    /// Another worker of its lane runs a cycle.
    Lane {
        /// The lane.
        lane: String,
        /// Who is in it.
        worker: WorkerName,
    },
    /// It is opportunistic, and windows or lanes go first.
    GivesWay {
        /// Who is running or ready.
        to: WorkerName,
        /// Since when it gives way.
        since: Time,
        /// Then it runs all the same.
        until: Time,
    },
    /// The store is slow, so it runs less often than it is due.
    Throttled {
        /// By how much the node slows down: 2, 4 or 8.
        factor: u32,
        /// How long 95 of 100 calls of the store took at most.
        p95: Millis,
        /// Whether one of them found no connection free.
        #[serde(default)]
        exhausted: bool,
        /// When it runs next, as things stand.
        until: Time,
    },
    /// Its time has not come.
    NotDue {
        /// The next due instant.
        until: Time,
    },
    /// The window is not over.
    WindowOpen {
        /// Its end.
        until: Time,
        /// When its settle time will have passed.
        settled: Time,
    },
    /// The window is over; late input may still come.
    Settling {
        /// Until then.
        until: Time,
    },
    /// Windows are computed in order.
    EarlierWindow {
        /// The series.
        series: SeriesName,
        /// The window that comes first.
        start: Time,
        /// Its state.
        state: window::State,
    },
    /// An input is not complete over the window.
    CoverMissing {
        /// The source.
        source: String,
        /// The key.
        key: String,
        /// Where the need begins.
        from: Time,
        /// How far it is complete from there; `None` is not at all.
        covered_until: Option<Time>,
        /// How far it must be.
        needed_until: Time,
    },
    /// The window's scope names no key, so there is nothing to compute it from.
    ScopeEmpty {
        /// The source that would be read.
        source: String,
    },
    /// A window of an input series is not complete.
    InputWindow {
        /// The series.
        series: SeriesName,
        /// Its start.
        start: Time,
        /// Its state; `None` when it has not begun to exist.
        state: Option<window::State>,
    },
    /// The worker cannot say yet where its series begins.
    NoOrigin {
        /// The series.
        series: SeriesName,
    },
    /// An attempt failed or was put off, and the next one waits.
    Backoff {
        /// Until then.
        until: Time,
        /// Attempts made.
        attempts: u32,
        /// What went wrong.
        error: Option<String>,
    },
    /// No attempt is left.
    Exhausted {
        /// Attempts made.
        attempts: u32,
        /// What went wrong.
        error: Option<String>,
        /// The command that tries it anew.
        #[serde(default)]
        command: String,
    },
    /// No job of its kinds is due.
    NothingQueued {
        /// The kinds.
        kinds: Vec<String>,
    },
    /// No event of its kinds is new.
    NoEvent {
        /// The kinds.
        kinds: Vec<String>,
    },
    /// A limit of a kind of jobs is reached.
    Limit {
        /// The kind.
        job_kind: String,
        /// The key within it, where the limit is one of each key.
        key: Option<String>,
        /// How many jobs it allows.
        most: u32,
        /// Within which time they may begin; `None` where it allows so many at once.
        per: Option<Millis>,
        /// When the next one may begin, if time alone decides that.
        until: Option<Time>,
    },
    /// No worker on any node takes jobs of this kind.
    NoConsumer {
        /// The kind.
        job_kind: String,
        /// Who took it last, if anyone ever did, and when that worker was registered.
        last: Option<(WorkerName, Time)>,
    },
    /// It runs only on an operator's command.
    OnCommand,
}

/// Kinds of jobs that a sentence names; more are counted.
const NAMED: usize = 3;

/// What makes a gate go away. `NAME` in an operator's commands is the worker that the gate is closed
/// for: [`Explanation::clears`] puts it in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Clears {
    /// Time alone.
    At {
        /// When.
        time: Time,
    },
    /// Something else that is on its way.
    When {
        /// What, as the end of "clears when ...".
        what: String,
    },
    /// An operator.
    Operator {
        /// What to do, as an order.
        action: String,
    },
}

/// What stands behind a gate, and can be explained in turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behind {
    /// A worker.
    Worker(WorkerName),
    /// A window.
    Window(SeriesName, Time),
    /// A cover of this source, for this key.
    Cover(String, String),
}

impl Gate {
    /// One word, the same as in its stored form.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Desired { .. } => "desired",
            Self::GaveUp { .. } => "gave_up",
            Self::RestartBackoff { .. } => "restart_backoff",
            Self::Storm { .. } => "storm",
            Self::Dependency { .. } => "dependency",
            Self::NoNode => "no_node",
            Self::NotRunning { .. } => "not_running",
            Self::Condition { .. } => "condition",
            Self::StillRunning { .. } => "still_running",
            Self::LeaseHeld { .. } => "lease_held",
            Self::Lane { .. } => "lane",
            Self::GivesWay { .. } => "gives_way",
            Self::Throttled { .. } => "throttled",
            Self::NotDue { .. } => "not_due",
            Self::WindowOpen { .. } => "window_open",
            Self::Settling { .. } => "settling",
            Self::EarlierWindow { .. } => "earlier_window",
            Self::CoverMissing { .. } => "cover_missing",
            Self::ScopeEmpty { .. } => "scope_empty",
            Self::InputWindow { .. } => "input_window",
            Self::NoOrigin { .. } => "no_origin",
            Self::Backoff { .. } => "backoff",
            Self::Exhausted { .. } => "exhausted",
            Self::NothingQueued { .. } => "nothing_queued",
            Self::NoEvent { .. } => "no_event",
            Self::Limit { .. } => "limit",
            Self::NoConsumer { .. } => "no_consumer",
            Self::OnCommand => "on_command",
        }
    }

    /// What makes it go away.
    #[must_use]
    pub fn clears(&self) -> Clears {
        let at = |time: Time| Clears::At { time };
        let when = |what: String| Clears::When { what };
        let operator = |action: String| Clears::Operator { action };
        match self {
            Self::RestartBackoff { until }
            | Self::Storm { until }
            | Self::NotDue { until }
            | Self::Settling { until }
            | Self::Limit { until: Some(until), .. }
            | Self::Backoff { until, .. } => at(*until),
            Self::WindowOpen { settled, .. } => at(*settled),
            Self::Condition { until: Some(until), .. } => at(*until),
            Self::Condition { name, until: None, .. } => when(format!("{name} recovers")),
            Self::Dependency { worker, .. } => when(format!("{worker} runs")),
            Self::NotRunning { state: lifecycle::State::Stopped } => {
                operator("start it with `watchbell worker start NAME`".to_owned())
            }
            Self::NotRunning { state } => when(format!("it is no longer {state}")),
            Self::StillRunning { cycle: CycleId(0), .. } => when("it ends".to_owned()),
            Self::StillRunning { cycle, .. } => when(format!("cycle {cycle} ends")),
            Self::LeaseHeld { owner, until } => {
                when(format!("{owner} gives the lease back, or lets it expire at {until}"))
            }
            Self::Lane { worker, .. } => when(format!("the cycle of {worker} ends")),
            Self::GivesWay { until, .. } => {
                when(format!("no window and no lane has work, at the latest at {until}"))
            }
            Self::Throttled { until, .. } => {
                when(format!("the store is fast again, at the latest at {until}"))
            }
            Self::Limit { per: None, .. } => when("one of them ends".to_owned()),
            Self::Limit { per: Some(_), .. } => when("the newest of them is old enough".to_owned()),
            Self::NoConsumer { job_kind, .. } => operator(format!(
                "run a node that has a worker for `{job_kind}`, or purge its jobs"
            )),
            Self::EarlierWindow { series, start, .. } => {
                when(format!("{series} {start} is complete or abandoned"))
            }
            Self::CoverMissing { source, key, needed_until, .. } => {
                when(format!("{source} of {key} is complete to {needed_until}"))
            }
            Self::InputWindow { series, start, state: Some(window::State::Abandoned) } => {
                operator(format!("try it again with `watchbell window retry {series} {start}`"))
            }
            Self::InputWindow { series, start, .. } => {
                when(format!("{series} {start} is complete"))
            }
            Self::NoOrigin { .. } => when("its first input is stored".to_owned()),
            Self::NothingQueued { .. } => when("a job is enqueued".to_owned()),
            Self::NoEvent { .. } => when("such an event is emitted".to_owned()),
            Self::Unavailable { .. } => operator("provide what is missing".to_owned()),
            Self::Desired { desired: Desired::Paused, .. } => {
                operator("resume it with `watchbell worker resume NAME`".to_owned())
            }
            Self::Desired { .. } => {
                operator("start it with `watchbell worker start NAME`".to_owned())
            }
            Self::GaveUp { .. } => {
                operator("fix the cause, then `watchbell worker restart NAME`".to_owned())
            }
            Self::ScopeEmpty { .. } => operator("enable what it should cover".to_owned()),
            Self::Exhausted { command, .. } => {
                operator(format!("fix the cause, then try it again with `{command}`"))
            }
            Self::NoNode => {
                operator("start one with `watchbell up` or `watchbell demo`".to_owned())
            }
            Self::OnCommand => operator("run it with `watchbell run NAME`".to_owned()),
        }
    }

    /// What stands behind it, if that can be explained in turn.
    #[must_use]
    pub fn behind(&self) -> Option<Behind> {
        match self {
            Self::Dependency { worker, .. }
            | Self::Lane { worker, .. }
            | Self::GivesWay { to: worker, .. } => Some(Behind::Worker(worker.clone())),
            Self::EarlierWindow { series, start, .. } | Self::InputWindow { series, start, .. } => {
                Some(Behind::Window(series.clone(), *start))
            }
            Self::CoverMissing { source, key, .. } => {
                Some(Behind::Cover(source.clone(), key.clone()))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable { reason } => write!(f, "it cannot run on this node: {reason}"),
            Self::Desired { desired, by, since } => {
                f.write_str(match desired {
                    Desired::Paused => "it was paused",
                    Desired::Stopped => "it was stopped",
                    Desired::Running => "it was started",
                })?;
                if let Some(by) = by {
                    write!(f, " by {by}")?;
                }
                since.map_or(Ok(()), |t| write!(f, " at {t}"))
            }
            Self::GaveUp { since, error } => {
                f.write_str("it failed too often to be restarted")?;
                if let Some(t) = since {
                    write!(f, " (first at {t})")?;
                }
                suffix(f, error.as_deref())
            }
            Self::RestartBackoff { until } => write!(f, "it failed, and starts again at {until}"),
            Self::Storm { until } => {
                write!(f, "many workers failed at once, so restarts wait until {until}")
            }
            Self::Dependency { worker, state } => {
                write!(f, "it needs {worker}, which is {state}")
            }
            Self::NoNode => f.write_str("no node runs"),
            // Only the profile keeps a worker stopped that nobody has stopped.
            Self::NotRunning { state: lifecycle::State::Stopped } => {
                f.write_str("the profile of this node leaves it out")
            }
            Self::NotRunning { state } => write!(f, "it is {state}"),
            Self::Condition { name, detail, until } => {
                write!(f, "{name} is not well: {detail}")?;
                until.map_or(Ok(()), |t| write!(f, " (until {t})"))
            }
            // A quiet worker's cycle has no number.
            Self::StillRunning { cycle: CycleId(0), since } => {
                write!(f, "its cycle has been running since {since}")
            }
            Self::StillRunning { cycle, since } => {
                write!(f, "its cycle {cycle} has been running since {since}")
            }
            Self::LeaseHeld { owner, until } => {
                write!(f, "session {owner} holds its lease until {until}")
            }
            Self::Lane { lane, worker } => {
                write!(f, "{worker} is running in its lane `{lane}`")
            }
            Self::GivesWay { to, since, .. } => {
                write!(f, "it has given way to windows and lanes since {since}, now to {to}")
            }
            Self::Throttled { factor, p95, exhausted, .. } => {
                match exhausted {
                    true => f.write_str("no connection of the store was free")?,
                    false => write!(f, "the store is slow (95 of 100 calls took up to {p95})")?,
                }
                write!(f, ", so the node does what can wait {factor} times less often")
            }
            Self::NotDue { until } => write!(f, "it is not due before {until}"),
            Self::WindowOpen { until, .. } => write!(f, "the window is open until {until}"),
            Self::Settling { until } => {
                write!(f, "the window is over, and late input may come until {until}")
            }
            Self::EarlierWindow { series, start, state } => {
                write!(f, "windows are computed in order, and {series} {start} is {state}")
            }
            Self::CoverMissing { source, key, from, covered_until, needed_until } => {
                match covered_until {
                    Some(t) => write!(f, "{source} of {key} is complete to {t}")?,
                    None => write!(f, "{source} of {key} is missing from {from}")?,
                }
                write!(f, ", and is needed to {needed_until}")
            }
            Self::ScopeEmpty { source } => {
                write!(f, "its scope names no key of {source}, so it would be empty")
            }
            Self::InputWindow { series, start, state: Some(state) } => {
                write!(f, "it needs window {series} {start}, which is {state}")
            }
            Self::InputWindow { series, start, state: None } => {
                write!(f, "it needs window {series} {start}, which does not exist yet")
            }
            Self::NoOrigin { series } => {
                write!(f, "{series} has no input yet, so its first window is not known")
            }
            Self::Backoff { until, attempts, error } => {
                write!(f, "attempt {attempts} did not finish, and the next is at {until}")?;
                suffix(f, error.as_deref())
            }
            Self::Exhausted { attempts, error, .. } => {
                f.write_str("it was given up")?;
                match attempts {
                    0 => {}
                    1 => f.write_str(" after 1 attempt")?,
                    more => write!(f, " after {more} attempts")?,
                }
                suffix(f, error.as_deref())
            }
            Self::NothingQueued { kinds } if kinds.len() > NAMED => {
                write!(f, "no job of its {} kinds is queued", kinds.len())
            }
            Self::NothingQueued { kinds } => write!(f, "no {} job is queued", kinds.join(" or ")),
            Self::NoEvent { kinds } => write!(f, "no {} event is new", kinds.join(" or ")),
            Self::Limit { job_kind, key, most, per, .. } => {
                let of_key = key.as_ref().map(|k| format!(" of the key `{k}`")).unwrap_or_default();
                let jobs = if *most == 1 { "job" } else { "jobs" };
                let many = if *most == 1 { "is" } else { "are" };
                match per {
                    None => write!(
                        f,
                        "{most} {job_kind} {jobs}{of_key} {many} leased, and no more may be at once"
                    ),
                    Some(per) => write!(
                        f,
                        "{most} {job_kind} {jobs}{of_key} began within {per}, and no more may"
                    ),
                }
            }
            Self::NoConsumer { job_kind, last: Some((worker, at)) } => write!(
                f,
                "no worker on any node takes {job_kind} jobs: the last to do so was {worker}, \
                 registered at {at}"
            ),
            Self::NoConsumer { job_kind, last: None } => {
                write!(f, "no worker ever took {job_kind} jobs")
            }
            Self::OnCommand => f.write_str("it runs only when an operator says so"),
        }
    }
}

fn suffix(f: &mut fmt::Formatter<'_>, error: Option<&str>) -> fmt::Result {
    error.map_or(Ok(()), |e| write!(f, ": {e}"))
}

impl fmt::Display for Clears {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { time } => write!(f, "clears at {time}"),
            Self::When { what } => write!(f, "clears when {what}"),
            Self::Operator { action } => write!(f, "to clear it: {action}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Gate> {
        let (t, worker, series) = (Time(60_000), "market-sync".into(), SeriesName::from("m30"));
        let abandoned = Some(window::State::Abandoned);
        vec![
            Gate::Unavailable { reason: "no GPU".into() },
            Gate::Desired { desired: Desired::Paused, by: Some("ada".into()), since: Some(t) },
            Gate::Desired { desired: Desired::Stopped, by: None, since: None },
            Gate::GaveUp { since: Some(t), error: Some("disk full".into()) },
            Gate::RestartBackoff { until: t },
            Gate::Storm { until: t },
            Gate::Dependency { worker, state: lifecycle::State::Failed },
            Gate::NoNode,
            Gate::NotRunning { state: lifecycle::State::Initializing },
            Gate::Condition { name: "venue:x".into(), detail: "banned".into(), until: Some(t) },
            Gate::StillRunning { cycle: CycleId(4), since: t },
            Gate::StillRunning { cycle: CycleId(0), since: t },
            Gate::LeaseHeld { owner: "n1".into(), until: t },
            Gate::Lane { lane: "gpu".into(), worker: "train".into() },
            Gate::GivesWay { to: "train".into(), since: t, until: t },
            Gate::Throttled { factor: 4, p95: Millis(812), exhausted: false, until: t },
            Gate::Throttled { factor: 2, p95: Millis(3), exhausted: true, until: t },
            Gate::NotDue { until: t },
            Gate::WindowOpen { until: t, settled: Time(65_000) },
            Gate::Settling { until: t },
            Gate::EarlierWindow { series: series.clone(), start: t, state: window::State::Failed },
            Gate::CoverMissing {
                source: "klines:1m".into(),
                key: "BTCUSDT".into(),
                from: Time(0),
                covered_until: Some(t),
                needed_until: Time(120_000),
            },
            Gate::ScopeEmpty { source: "klines:1m".into() },
            Gate::InputWindow { series: series.clone(), start: t, state: abandoned },
            Gate::InputWindow { series: series.clone(), start: t, state: None },
            Gate::NoOrigin { series },
            Gate::Backoff { until: t, attempts: 2, error: Some("no answer".into()) },
            Gate::Exhausted { attempts: 5, error: None, command: "watchbell job redrive 7".into() },
            Gate::NothingQueued { kinds: vec!["a".into(), "b".into()] },
            Gate::NoEvent { kinds: vec!["window.*".into()] },
            Gate::Limit {
                job_kind: "k".into(),
                key: Some("x".into()),
                most: 1,
                per: None,
                until: None,
            },
            Gate::Limit {
                job_kind: "k".into(),
                key: None,
                most: 2,
                per: Some(Millis::from_secs(60)),
                until: Some(t),
            },
            Gate::NoConsumer { job_kind: "k".into(), last: Some(("w".into(), t)) },
            Gate::NoConsumer { job_kind: "k".into(), last: None },
            Gate::OnCommand,
        ]
    }

    #[test]
    fn each_gate_is_one_sentence_and_has_a_stored_form() {
        let lines: Vec<_> = samples().iter().map(|g| format!("{g}; {}", g.clears())).collect();
        let minute = "1970-01-01T00:01:00Z";
        let expected = [
            "it cannot run on this node: no GPU; to clear it: provide what is missing",
            "it was paused by ada at @; to clear it: resume it with `watchbell worker resume NAME`",
            "it was stopped; to clear it: start it with `watchbell worker start NAME`",
            "it failed too often to be restarted (first at @): disk full; to clear it: fix the \
             cause, then `watchbell worker restart NAME`",
            "it failed, and starts again at @; clears at @",
            "many workers failed at once, so restarts wait until @; clears at @",
            "it needs market-sync, which is FAILED; clears when market-sync runs",
            "no node runs; to clear it: start one with `watchbell up` or `watchbell demo`",
            "it is INITIALIZING; clears when it is no longer INITIALIZING",
            "venue:x is not well: banned (until @); clears at @",
            "its cycle 4 has been running since @; clears when cycle 4 ends",
            "its cycle has been running since @; clears when it ends",
            "session n1 holds its lease until @; clears when n1 gives the lease back, or lets it \
             expire at @",
            "train is running in its lane `gpu`; clears when the cycle of train ends",
            "it has given way to windows and lanes since @, now to train; clears when no window \
             and no lane has work, at the latest at @",
            "the store is slow (95 of 100 calls took up to 812ms), so the node does what can wait 4 \
             times less often; clears when the store is fast again, at the latest at @",
            "no connection of the store was free, so the node does what can wait 2 times less \
             often; clears when the store is fast again, at the latest at @",
            "it is not due before @; clears at @",
            "the window is open until @; clears at 1970-01-01T00:01:05Z",
            "the window is over, and late input may come until @; clears at @",
            "windows are computed in order, and m30 @ is failed; clears when m30 @ is complete or \
             abandoned",
            "klines:1m of BTCUSDT is complete to @, and is needed to 1970-01-01T00:02:00Z; clears \
             when klines:1m of BTCUSDT is complete to 1970-01-01T00:02:00Z",
            "its scope names no key of klines:1m, so it would be empty; to clear it: enable what \
             it should cover",
            "it needs window m30 @, which is abandoned; to clear it: try it again with `watchbell \
             window retry m30 @`",
            "it needs window m30 @, which does not exist yet; clears when m30 @ is complete",
            "m30 has no input yet, so its first window is not known; clears when its first input \
             is stored",
            "attempt 2 did not finish, and the next is at @: no answer; clears at @",
            "it was given up after 5 attempts; to clear it: fix the cause, then try it again with \
             `watchbell job redrive 7`",
            "no a or b job is queued; clears when a job is enqueued",
            "no window.* event is new; clears when such an event is emitted",
            "1 k job of the key `x` is leased, and no more may be at once; clears when one of them \
             ends",
            "2 k jobs began within 1m, and no more may; clears at @",
            "no worker on any node takes k jobs: the last to do so was w, registered at @; to \
             clear it: run a node that has a worker for `k`, or purge its jobs",
            "no worker ever took k jobs; to clear it: run a node that has a worker for `k`, or \
             purge its jobs",
            "it runs only when an operator says so; to clear it: run it with `watchbell run NAME`",
        ];
        assert_eq!(lines.len(), expected.len());
        for (line, expected) in lines.iter().zip(expected) {
            assert_eq!(*line, expected.replace('@', minute));
        }
        for gate in samples() {
            let stored = serde_json::to_value(&gate).unwrap();
            assert_eq!(stored["kind"], gate.kind());
            assert_eq!(serde_json::from_value::<Gate>(stored).unwrap(), gate);
        }
    }
}
