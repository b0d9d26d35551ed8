//! What happened: cycles, due instants, changes of state, events, dead letters.

use watchbell_core::port::{CycleRecord, DeadLetter, OccurrenceRecord, Outcome, Transition};
use watchbell_core::{Cause, EventRecord, Time};

use crate::print::style::{Style, Tone};
use crate::print::table::{Cell, Table};
use crate::print::time::{relative, short, span};
use crate::print::{cut, inline, worker};

/// Cycles, as given.
#[must_use]
pub fn cycles(cycles: &[CycleRecord], now: Time, style: Style) -> String {
    let mut table = Table::new(&["CYCLE", "OUTCOME", "STARTED", ">TOOK", "CAUSE", "SUMMARY"]);
    for c in cycles {
        let said = c.error.clone().unwrap_or_else(|| inline(&c.summary));
        table.row(vec![
            c.id.to_string().into(),
            Cell::new(c.outcome.as_str().replace('_', " "), outcome_tone(c.outcome)),
            relative(c.started_at, now).into(),
            Cell::or_none(c.finished_at.map(|t| span(t.since(c.started_at)))),
            cause(&c.cause).into(),
            cut(&said, 100).into(),
        ]);
    }
    table.print(style)
}

/// A cause in words.
#[must_use]
pub fn cause(cause: &Cause) -> String {
    match cause {
        Cause::Tick { due } => format!("due {}", short(*due)),
        Cause::Window { series, start, version, .. } => {
            let version = if *version == 1 { String::new() } else { format!(" v{version}") };
            format!("{series} {}{version}", short(*start))
        }
        Cause::Event { id } => format!("event {id}"),
        Cause::Job { id } => format!("job {id}"),
        Cause::Stream => "stream".to_owned(),
        Cause::Manual => "by hand".to_owned(),
    }
}

/// What an outcome says.
#[must_use]
pub fn outcome_tone(outcome: Outcome) -> Tone {
    match outcome {
        Outcome::Succeeded => Tone::Good,
        Outcome::Running | Outcome::Snoozed => Tone::Plain,
        Outcome::Cancelled | Outcome::Lost => Tone::Warn,
        Outcome::Failed | Outcome::TimedOut | Outcome::Fenced => Tone::Bad,
    }
}

/// Ledger rows, as given.
#[must_use]
pub fn occurrences(rows: &[OccurrenceRecord], now: Time, style: Style) -> String {
    let mut table = Table::new(&["DUE", "UNTIL", ">COUNT", "FATE", "CYCLE", "RECORDED"]);
    for o in rows {
        let one = o.through == o.due;
        table.row(vec![
            short(o.due).into(),
            if one { Cell::none() } else { short(o.through).into() },
            Cell::number(o.count, Tone::Plain),
            Cell::new(fate(o), if o.fate == "fired" { Tone::Good } else { Tone::Warn }),
            Cell::or_none(o.cycle.map(|c| c.to_string())),
            relative(o.recorded_at, now).into(),
        ]);
    }
    table.print(style)
}

/// `fired`, or `skipped: gave way`.
fn fate(o: &OccurrenceRecord) -> String {
    match &o.reason {
        Some(reason) => format!("{}: {reason}", o.fate),
        None => o.fate.clone(),
    }
}

/// Changes of state, as given.
#[must_use]
pub fn transitions(rows: &[Transition], now: Time, style: Style) -> String {
    let mut table = Table::new(&["WHEN", "FROM", "TO", "WHY"]);
    for t in rows {
        table.row(vec![
            relative(t.at, now).into(),
            worker::state(t.from).into(),
            Cell::new(worker::state(t.to), worker::state_tone(t.to)),
            cut(&t.reason, 100).into(),
        ]);
    }
    table.print(style)
}

/// Events, as given.
#[must_use]
pub fn events(events: &[EventRecord], style: Style) -> String {
    if events.is_empty() {
        return "no events\n".to_owned();
    }
    let mut table = Table::new(&[">ID", "AT", "KIND", "KEY", "PAYLOAD"]);
    for e in events {
        table.row(vec![
            e.id.to_string().into(),
            short(e.at).into(),
            e.kind.as_str().into(),
            cut(&e.key, 60).into(),
            cut(&inline(&e.payload), 100).into(),
        ]);
    }
    table.print(style)
}

/// One event on one line, for following them.
#[must_use]
pub fn event_line(e: &EventRecord, style: Style) -> String {
    let head = style.faint(&format!("{} {:>6}", short(e.at), e.id));
    let tail =
        format!("{head}  {}  {}  {}", e.kind, cut(&e.key, 60), cut(&inline(&e.payload), 120));
    tail.trim_end().to_owned()
}

/// Dead letters, as given.
#[must_use]
pub fn dead_letters(letters: &[DeadLetter], now: Time, style: Style) -> String {
    if letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let mut table = Table::new(&[">ID", "WHEN", "SUBSCRIBER", ">EVENT", "KIND", "REDRIVEN", "WHY"]);
    for d in letters {
        table.row(vec![
            d.id.to_string().into(),
            relative(d.at, now).into(),
            d.worker.as_str().into(),
            d.event.id.to_string().into(),
            d.event.kind.as_str().into(),
            Cell::or_none(d.redriven_at.map(|t| relative(t, now))),
            cut(&d.reason, 100).into(),
        ]);
    }
    table.print(style)
}
