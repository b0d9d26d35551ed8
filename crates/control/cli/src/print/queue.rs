//! The queue as a whole: kinds, and how many jobs of each are where.

use watchbell_api::QueueLine;
use watchbell_core::Time;
use watchbell_core::job::{Kind, State};
use watchbell_core::port::KindRecord;
use watchbell_core::retry::Backoff;

use crate::print::style::{Style, Tone};
use crate::print::table::{Cell, Table, facts};
use crate::print::time::{relative, short, span};
use crate::print::{add, count, cut};

/// What is live of each kind, and who consumes it: the queue in the status. Kinds without a live or a
/// failed job are only counted, for a market alone has dozens.
#[must_use]
pub fn live(lines: &[QueueLine], now: Time, style: Style) -> String {
    let busy = |l: &&QueueLine| {
        [State::Queued, State::Running, State::Failed].iter().any(|s| l.count(*s) > 0)
    };
    let quiet = lines.iter().filter(|l| !busy(l)).count() as i64;
    let kinds = count(quiet, "kind", "kinds");
    let rest = match (quiet, lines.len() as i64 - quiet) {
        (0, _) => None,
        (_, 0) => Some(format!("no job of {kinds} is queued, running or failed")),
        (_, _) => Some(format!("and {kinds} more without such a job: `watchbell job stats`")),
    };
    let rest = rest.map_or_else(String::new, |text| style.faint(&text) + "\n");
    if quiet == lines.len() as i64 {
        return rest;
    }
    let mut table = Table::new(&[
        "KIND",
        ">QUEUED",
        ">DUE",
        ">RUNNING",
        ">FAILED",
        ">OLDEST DUE",
        ">NEXT DUE",
        "WORKER",
    ]);
    for l in lines.iter().filter(busy) {
        table.row(vec![
            l.kind.as_str().into(),
            Cell::number(l.count(State::Queued), Tone::Plain),
            Cell::number(l.stats.due, Tone::Plain),
            Cell::number(l.count(State::Running), Tone::Plain),
            Cell::number(l.count(State::Failed), Tone::Bad),
            Cell::or_none(l.oldest_age(now).map(span)),
            Cell::or_none(l.stats.next_due.map(|t| relative(t, now))),
            consumer(l),
        ]);
    }
    table.print(style) + &rest
}

/// Everything that is counted of each kind.
#[must_use]
pub fn stats(lines: &[QueueLine], now: Time, style: Style) -> String {
    if lines.is_empty() {
        return "no kinds of jobs\n".to_owned();
    }
    let mut table = Table::new(&[
        "KIND",
        ">QUEUED",
        ">DUE",
        ">RUNNING",
        ">SUCCEEDED",
        ">FAILED",
        ">CANCELLED",
        ">OLDEST DUE",
        "NEXT DUE",
        "WORKER",
    ]);
    for l in lines {
        table.row(vec![
            l.kind.as_str().into(),
            Cell::number(l.count(State::Queued), Tone::Plain),
            Cell::number(l.stats.due, Tone::Plain),
            Cell::number(l.count(State::Running), Tone::Plain),
            Cell::number(l.count(State::Succeeded), Tone::Good),
            Cell::number(l.count(State::Failed), Tone::Bad),
            Cell::number(l.count(State::Cancelled), Tone::Warn),
            Cell::or_none(l.oldest_age(now).map(span)),
            Cell::or_none(l.stats.next_due.map(|t| relative(t, now))),
            consumer(l),
        ]);
    }
    table.print(style)
}

fn consumer(line: &QueueLine) -> Cell {
    match (&line.unconsumed, &line.worker) {
        (Some(_), _) | (None, None) => {
            // With jobs in it, this is what an operator looks for.
            let waiting = line.count(State::Queued) > 0;
            Cell::new("nobody consumes it", if waiting { Tone::Bad } else { Tone::Warn })
        }
        (None, Some(worker)) => worker.as_str().into(),
    }
}

/// Kinds, as given.
#[must_use]
pub fn kinds(kinds: &[KindRecord], style: Style) -> String {
    if kinds.is_empty() {
        return "no kinds of jobs\n".to_owned();
    }
    let mut table = Table::new(&[
        "KIND",
        "WORKER",
        ">PRIORITY",
        ">ATTEMPTS",
        ">TIMEOUT",
        "LIMITS",
        "PAYLOAD",
        "DESCRIPTION",
    ]);
    for record in kinds {
        let k = &record.kind;
        table.row(vec![
            k.name.as_str().into(),
            record.worker.as_str().into(),
            k.priority.to_string().into(),
            k.max_attempts.to_string().into(),
            Cell::or_none(k.timeout.map(span)),
            Cell::or_none(limits(k)),
            if k.schema.is_some() { "schema" } else { "any" }.into(),
            cut(&k.description, 100).into(),
        ]);
    }
    table.print(style)
}

/// One kind.
#[must_use]
pub fn kind(record: &KindRecord, now: Time, style: Style) -> String {
    let k = &record.kind;
    let name = style.strong(&k.name);
    let mut text = facts(
        style,
        &[
            ("kind", Some(name)),
            ("description", Some(k.description.clone())),
            ("worker", Some(record.worker.to_string())),
            (
                "registered",
                Some(format!(
                    "{} ({})",
                    relative(record.registered_at, now),
                    short(record.registered_at)
                )),
            ),
            ("priority", Some(k.priority.to_string())),
            ("attempts", Some(format!("{}, {}", k.max_attempts, backoff(&k.backoff)))),
            ("timeout", k.timeout.map(span)),
            ("limits", limits(k)),
        ],
    );
    match &k.schema {
        Some(schema) => add(&mut text, format_args!("\nSchema of the payload\n{schema:#}\n")),
        None => text.push_str("\nIt has no schema: any JSON is a payload.\n"),
    }
    text
}

/// `4 at once, 1 per key, 100 per 1m`.
fn limits(kind: &Kind) -> Option<String> {
    let all = [
        kind.concurrency.map(|n| format!("{n} at once")),
        kind.per_key.map(|n| format!("{n} per key")),
        kind.rate.map(|r| format!("{} per {}", r.count, r.per)),
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn backoff(b: &Backoff) -> String {
    format!("with pauses from {} to {} between them", b.base, b.cap)
}
