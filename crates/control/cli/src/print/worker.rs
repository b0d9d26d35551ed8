//! Workers.

use watchbell_api::{DefinitionText, WorkerDetail, WorkerLine};
use watchbell_core::freshness::{Freshness, Health};
use watchbell_core::lifecycle::{Desired, State};
use watchbell_core::port::WorkerRecord;
use watchbell_core::trigger::{Missed, WindowInput};
use watchbell_core::{Ledger, Time};

use crate::print::style::{Style, Tone};
use crate::print::table::{Cell, Table, facts};
use crate::print::time::{relative, short, span};
use crate::print::{add, cut, history, inline, thousands};

/// One line per worker.
#[must_use]
pub fn list(workers: &[WorkerLine], now: Time, style: Style) -> String {
    if workers.is_empty() {
        return "no workers yet: `watchbell up` registers them\n".to_owned();
    }
    let mut table = Table::new(&[
        "WORKER",
        "STATE",
        "HEALTH",
        "LAST SUCCESS",
        "NEXT DUE",
        ">TOOK",
        ">RUNS",
        ">ERRORS",
        "WAITING FOR",
    ]);
    for line in workers {
        let r = &line.record;
        let success = match (r.last_success_at, line.is_stale()) {
            (Some(t), true) => Cell::new(relative(t, now), Tone::Bad),
            (t, _) => Cell::or_none(t.map(|t| relative(t, now))),
        };
        let why = line.waiting.as_deref().or(r.last_error.as_deref().filter(|_| {
            // An error that a success has followed is history.
            r.consecutive_errors > 0
        }));
        table.row(vec![
            r.name.as_str().into(),
            Cell::new(state(r.state), state_tone(r.state)),
            // One that the profile leaves out is not ill.
            match (r.state, r.desired) {
                (State::Stopped, Desired::Running) => Cell::none(),
                _ => Cell::new(line.health.as_str(), health_tone(line.health)),
            },
            success,
            Cell::or_none(r.next_due.map(|t| relative(t, now))),
            Cell::or_none(r.latency.map(span)),
            Cell::number(r.total_runs, Tone::Plain),
            Cell::number(
                r.total_errors,
                if r.consecutive_errors > 0 { Tone::Bad } else { Tone::Warn },
            ),
            cut(why.unwrap_or_default(), 100).into(),
        ]);
    }
    table.print(style)
}

/// Everything about one worker.
#[must_use]
pub fn detail(detail: &WorkerDetail, now: Time, style: Style) -> String {
    let line = &detail.line;
    let r = &line.record;
    let mut text = format!("{}  {}\n\n", style.strong(r.name.as_str()), r.description);
    text.push_str(&heartbeat(line, now, style));
    if let Some(definition) = &detail.definition {
        text.push('\n');
        text.push_str(&policy(definition, style));
    } else {
        text.push_str(
            "\nThis configuration does not have the worker: what is stored is history.\n",
        );
    }
    let parts = [
        ("Cycles", history::cycles(&detail.cycles, now, style), detail.cycles.is_empty()),
        (
            "Due instants",
            history::occurrences(&detail.occurrences, now, style),
            detail.occurrences.is_empty(),
        ),
        (
            "Changes of state",
            history::transitions(&detail.transitions, now, style),
            detail.transitions.is_empty(),
        ),
    ];
    for (title, part, empty) in parts {
        if !empty {
            add(&mut text, format_args!("\n{}\n{part}", style.strong(title)));
        }
    }
    text
}

fn heartbeat(line: &WorkerLine, now: Time, style: Style) -> String {
    let r = &line.record;
    let when = |t: Option<Time>| t.map(|t| format!("{} ({})", relative(t, now), short(t)));
    let mut observed = style.paint(&state(r.state), state_tone(r.state));
    if let Some(since) = r.state_since {
        observed.push_str(&format!(" for {}", span(now.since(since))));
    }
    if let Some(reason) = &r.state_reason {
        observed.push_str(&format!(": {}", cut(reason, 100)));
    }
    let mut health = style.paint(line.health.as_str(), health_tone(line.health));
    match line.freshness {
        Freshness::Unknown => {}
        Freshness::Fresh => health.push_str(", fresh"),
        Freshness::Late { by } => health.push_str(&format!(", late by {}", span(by))),
        Freshness::Stale { since } => {
            health.push_str(&format!(", stale for {}", span(now.since(since))));
        }
    }
    let waiting = line.waiting.as_ref().map(|why| match r.blocked_since {
        Some(since) => format!("{} (for {})", cut(why, 160), span(now.since(since))),
        None => cut(why, 160),
    });
    let error = r.last_error.as_ref().map(|e| cut(e, 200));
    facts(
        style,
        &[
            ("state", Some(observed)),
            ("wanted", Some(wanted(r, now))),
            ("health", Some(health)),
            ("waiting for", waiting),
            ("next due", when(r.next_due)),
            ("last start", when(r.last_started_at)),
            ("last completion", when(r.last_completed_at)),
            ("last success", when(r.last_success_at)),
            ("last error", when(r.last_error_at)),
            ("", error),
            ("took", r.latency.map(span)),
            (
                "runs",
                Some(format!(
                    "{}, of which {} failed, {} in a row now",
                    thousands(r.total_runs),
                    thousands(r.total_errors),
                    thousands(r.consecutive_errors)
                )),
            ),
            ("summary", Some(cut(&inline(&r.summary), 200))),
            (
                "lease",
                r.lease_owner.as_ref().map(|owner| {
                    let until = r.lease_expires_at.map(|t| relative(t, now));
                    let until = until.unwrap_or_else(|| "at no set time".to_owned());
                    format!("{owner}, token {}, ends {until}", r.lease_token)
                }),
            ),
        ],
    )
}

fn policy(d: &DefinitionText, style: Style) -> String {
    let needs: Vec<String> = d
        .needs
        .iter()
        .map(|n| if n.soft { format!("{} (if it runs)", n.worker) } else { n.worker.to_string() })
        .collect();
    let inputs = d.window.as_ref().map(|w| {
        let inputs = w.inputs.iter().map(|i| match i {
            WindowInput::Cover { source, lookback } if lookback.0 > 0 => {
                format!("{source} from {} before it", span(*lookback))
            }
            WindowInput::Cover { source, .. } => source.clone(),
            WindowInput::Window { series } => format!("windows of {series}"),
            WindowInput::Settled { series } => format!("windows of {series}, or their absence"),
            WindowInput::Previous { series } => {
                format!("the window of {series} before it, or its absence")
            }
        });
        inputs.collect::<Vec<_>>().join(", ")
    });
    facts(
        style,
        &[
            ("trigger", Some(d.trigger.clone())),
            (
                "series",
                d.window.as_ref().map(|w| {
                    format!(
                        "{}, {} long, settled {} after its end, at most {} attempts",
                        w.series,
                        span(w.length),
                        // Whole seconds would not say when it may run.
                        w.settle.exact(),
                        w.max_attempts
                    )
                }),
            ),
            ("inputs", inputs),
            ("missed runs", Some(missed(d.missed))),
            ("jitter", (d.jitter.0 > 0).then(|| span(d.jitter))),
            ("needs", Some(needs.join(", "))),
            (
                "timeouts",
                Some(format!(
                    "asked to stop after {}, aborted after {}",
                    span(d.soft_timeout),
                    span(d.hard_timeout)
                )),
            ),
            ("stale after", d.stale_after.map(span)),
            (
                "ledger",
                Some(
                    match d.ledger {
                        Ledger::Full => "every due instant and cycle",
                        Ledger::Quiet => "cycles that publish or fail",
                    }
                    .to_owned(),
                ),
            ),
            ("lane", d.lane.clone()),
            (
                "gives way",
                d.gives_way.map(|p| format!("to windows and lanes, for at most {}", span(p))),
            ),
            ("unavailable", d.unavailable.clone()),
        ],
    )
}

/// What an operator asked for.
#[must_use]
pub fn wanted(r: &WorkerRecord, now: Time) -> String {
    let mut text = r.desired.as_str().to_lowercase();
    if let Some(by) = &r.desired_by {
        text.push_str(&format!(", by {by}"));
    }
    if let Some(at) = r.desired_at {
        text.push_str(&format!(" {}", relative(at, now)));
    }
    text
}

/// The answer to `worker start` and the like.
#[must_use]
pub fn acted(r: &WorkerRecord, style: Style) -> String {
    format!(
        "{}: wanted {}, now {}\n",
        style.strong(r.name.as_str()),
        r.desired.as_str().to_lowercase(),
        style.paint(&state(r.state), state_tone(r.state))
    )
}

/// A missed-run policy in words.
#[must_use]
pub fn missed(policy: Missed) -> String {
    match policy {
        Missed::Skip => "skipped".to_owned(),
        Missed::Latest => "the latest once".to_owned(),
        Missed::All { cap } => format!("all, at most {cap}"),
    }
}

/// A state in words.
#[must_use]
pub fn state(s: State) -> String {
    s.as_str().to_lowercase().replace('_', " ")
}

/// What a state says.
#[must_use]
pub fn state_tone(s: State) -> Tone {
    match s {
        State::Running => Tone::Good,
        State::Failed => Tone::Bad,
        State::Paused | State::Restarting => Tone::Warn,
        State::Initializing | State::ShuttingDown => Tone::Plain,
        State::Stopped | State::Unavailable => Tone::Faint,
    }
}

fn health_tone(h: Health) -> Tone {
    match h {
        Health::Ok => Tone::Good,
        Health::Degraded => Tone::Warn,
        Health::Failing => Tone::Bad,
        Health::Down => Tone::Faint,
    }
}
