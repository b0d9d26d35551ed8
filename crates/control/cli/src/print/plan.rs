//! What is due, and how a run went.

use watchbell_api::{RunReport, ScheduleLine};
use watchbell_core::Time;

use crate::print::history::{cause, outcome_tone};
use crate::print::style::{Style, Tone};
use crate::print::table::{Cell, Table, facts};
use crate::print::time::{relative, short, span};
use crate::print::{add, cut, inline, worker};

/// Schedules with their next due instants.
#[must_use]
pub fn schedules(lines: &[ScheduleLine], now: Time, style: Style) -> String {
    if lines.is_empty() {
        return "no schedules\n".to_owned();
    }
    let mut table =
        Table::new(&["WORKER", "TRIGGER", "MISSED RUNS", "ENABLED", "NEXT DUE", "THEN"]);
    for l in lines {
        let then: Vec<String> = l.next_due.iter().skip(1).take(2).map(|t| short(*t)).collect();
        let next = l.next_due.first().map(|t| format!("{} ({})", short(*t), relative(*t, now)));
        table.row(vec![
            l.worker.as_str().into(),
            l.trigger.as_str().into(),
            worker::missed(l.missed).into(),
            enabled(l),
            Cell::or_none(next),
            then.join(", ").into(),
        ]);
    }
    table.print(style)
}

/// What became of the newest due instants.
#[must_use]
pub fn schedule_status(lines: &[ScheduleLine], now: Time, style: Style) -> String {
    if lines.is_empty() {
        return "no schedules\n".to_owned();
    }
    let mut table = Table::new(&["WORKER", "ENABLED", "LAST DUE", "FATE", "NEXT DUE", "WHY NOT"]);
    for l in lines {
        table.row(vec![
            l.worker.as_str().into(),
            enabled(l),
            Cell::or_none(l.last_due.map(|t| relative(t, now))),
            Cell::or_none(l.last_fate.as_deref()),
            Cell::or_none(l.next_due.first().map(|t| relative(*t, now))),
            cut(l.reason.as_deref().unwrap_or_default(), 100).into(),
        ]);
    }
    table.print(style)
}

fn enabled(line: &ScheduleLine) -> Cell {
    if line.enabled { Cell::new("yes", Tone::Good) } else { Cell::new("no", Tone::Warn) }
}

/// How a run went, or what it would write.
#[must_use]
pub fn run(report: &RunReport, style: Style) -> String {
    let outcome = report.outcome.as_str().replace('_', " ");
    let outcome = style.paint(&outcome, outcome_tone(report.outcome));
    let mut text = format!("{}: ", style.strong(report.worker.as_str()));
    match (&report.dry_run, &report.cycle) {
        (Some(lines), _) => {
            add(&mut text, format_args!("dry run {outcome}; nothing was written, but would be:\n"));
            if lines.is_empty() {
                text.push_str("  nothing but its own record\n");
            }
            for line in lines {
                add(&mut text, format_args!("  {line}\n"));
            }
        }
        (None, None) => add(&mut text, format_args!("{outcome}: there was nothing to do\n")),
        (None, Some(cycle)) => {
            add(&mut text, format_args!("cycle {} {outcome}", cycle.id));
            if let Some(end) = cycle.finished_at {
                add(&mut text, format_args!(" in {}", span(end.since(cycle.started_at))));
            }
            text.push('\n');
            let error = cycle.error.as_ref().map(|e| cut(e, 400));
            text.push_str(&facts(
                style,
                &[("  cause", Some(cause(&cycle.cause))), ("  error", error)],
            ));
        }
    }
    let summary = inline(&report.summary);
    if !summary.is_empty() {
        add(&mut text, format_args!("  {summary}\n"));
    }
    text
}
