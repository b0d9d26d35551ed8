//! Windows: lists, versions, verifications, backfills.

use watchbell_api::{BackfillReport, Verdict, VerifyReport, WindowChanged};
use watchbell_core::Time;
use watchbell_core::port::{BackfillRecord, WindowRecord};
use watchbell_core::window::{Change, State};

use crate::print::style::{Style, Tone};
use crate::print::table::{Cell, Table, facts};
use crate::print::time::{relative, short, span};
use crate::print::{add, count, cut, hash, thousands};

/// Windows, as given.
#[must_use]
pub fn list(windows: &[WindowRecord], now: Time, style: Style) -> String {
    if windows.is_empty() {
        return "no windows match\n".to_owned();
    }
    let mut table = Table::new(&[
        "SERIES",
        "START",
        ">LENGTH",
        ">V",
        "STATE",
        ">ATTEMPTS",
        "FINISHED",
        "SOURCE",
        "RESULT",
        "WHY",
    ]);
    for w in windows {
        table.row(vec![
            w.series.as_str().into(),
            short(w.start).into(),
            span(w.end.since(w.start)).into(),
            w.version.to_string().into(),
            Cell::new(w.state.as_str(), tone(w.state)),
            Cell::number(w.attempts.into(), Tone::Plain),
            Cell::or_none(w.finished_at.map(|t| relative(t, now))),
            Cell::or_none(w.hashes.as_ref().map(|h| h.source.as_str())),
            Cell::or_none(w.hashes.as_ref().map(|h| hash(&h.result))),
            cut(w.reason.as_deref().unwrap_or_default(), 80).into(),
        ]);
    }
    table.print(style)
}

/// Every version of one window.
#[must_use]
pub fn versions(versions: &[WindowRecord], now: Time, style: Style) -> String {
    let mut text = String::new();
    let when = |t: Option<Time>| t.map(|t| format!("{} ({})", relative(t, now), short(t)));
    for (i, w) in versions.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        let title = style.strong(&format!("{} {}", w.series, short(w.start)));
        add(&mut text, format_args!("{title} to {}  version {}\n", short(w.end), w.version));
        let hashes = w.hashes.as_ref();
        text.push_str(&facts(
            style,
            &[
                ("state", Some(style.paint(w.state.as_str(), tone(w.state)))),
                ("why", w.reason.as_ref().map(|r| cut(r, 200))),
                ("attempts", Some(w.attempts.to_string())),
                ("next attempt", when(w.next_attempt_at)),
                ("started", when(w.started_at)),
                ("finished", when(w.finished_at)),
                ("cycle", w.cycle.map(|c| c.to_string())),
                ("source", hashes.map(|h| h.source.clone())),
                ("inputs", hashes.map(|h| h.inputs.clone())),
                ("result", hashes.map(|h| h.result.clone())),
                ("scope", Some(w.scope.join(" "))),
            ],
        ));
    }
    text
}

/// What computing windows again showed: what is not the same by name, the rest by number.
#[must_use]
pub fn verified(reports: &[VerifyReport], style: Style) -> String {
    let mut table = Table::new(&["SERIES", "START", ">V", "VERDICT", "STORED", "AGAIN", "WHY"]);
    let single = reports.len() == 1;
    for r in reports.iter().filter(|r| single || !r.verdict.is_good()) {
        let tone = match r.verdict {
            Verdict::Same => Tone::Good,
            Verdict::InputsRemoved => Tone::Faint,
            Verdict::InputsChanged | Verdict::Missing => Tone::Warn,
            Verdict::Different | Verdict::Failed => Tone::Bad,
        };
        table.row(vec![
            r.series.as_str().into(),
            short(r.start).into(),
            Cell::or_none(r.version.map(|v| v.to_string())),
            Cell::new(r.verdict.as_str(), tone),
            Cell::or_none(r.stored.as_deref().map(hash)),
            Cell::or_none(r.recomputed.as_deref().map(hash)),
            cut(r.detail.as_deref().unwrap_or_default(), 100).into(),
        ]);
    }
    let mut text = if table.is_empty() { String::new() } else { table.print(style) + "\n" };
    let removed = reports.iter().filter(|r| r.verdict == Verdict::InputsRemoved).count();
    let bad = reports.iter().filter(|r| !r.verdict.is_good()).count();
    let all = count((reports.len() - removed) as i64, "window", "windows");
    let end = if bad == 0 {
        style.good(&format!("{all} verified: every result is the same"))
    } else {
        style.bad(&format!("{all} verified: {} not the same", thousands(bad as i64)))
    };
    add(&mut text, format_args!("{end}\n"));
    let changed = reports.iter().filter(|r| r.verdict == Verdict::InputsChanged).count();
    if changed > 0 {
        let more = format!(
            "{} of them by inputs that changed since, as when history is filled in: `watchbell window \
             backfill SERIES --from TIME --to TIME --recompute REASON` makes new versions",
            thousands(changed as i64)
        );
        add(&mut text, format_args!("{}\n", style.faint(&more)));
    }
    if removed > 0 {
        let which = count(removed as i64, "window", "windows");
        let more =
            format!("{which} cannot be verified any more: the inputs were removed for their age");
        add(&mut text, format_args!("{}\n", style.faint(&more)));
    }
    text
}

/// What a backfill will compute.
#[must_use]
pub fn backfill(report: &BackfillReport, style: Style) -> String {
    let mut table =
        Table::new(&["SERIES", "FROM", "TO", ">WINDOWS", ">COMPLETE", ">TO COMPUTE", "BACKFILL"]);
    for line in &report.series {
        let id = report.records.iter().find(|r| r.series == line.series).map(|r| r.id);
        table.row(vec![
            line.series.as_str().into(),
            short(line.from).into(),
            short(line.to).into(),
            Cell::number(line.windows, Tone::Plain),
            Cell::number(line.complete, Tone::Plain),
            Cell::number(line.to_compute, Tone::Strong),
            Cell::or_none(id.map(|id| id.to_string())),
        ]);
    }
    let mut text = table.print(style);
    if report.preview {
        text.push_str("\nnothing was stored: this is a preview\n");
    }
    text
}

/// Backfills and how far they are.
#[must_use]
pub fn backfills(records: &[BackfillRecord], now: Time, style: Style) -> String {
    if records.is_empty() {
        return "no backfills\n".to_owned();
    }
    let mut table =
        Table::new(&[">ID", "SERIES", "FROM", "TO", ">DONE", "BY", "REQUESTED", "FINISHED"]);
    for b in records {
        let (done, all) = (b.cursor.since(b.from).0, b.to.since(b.from).0);
        let percent = (done.max(0) * 100).checked_div(all).unwrap_or(100);
        table.row(vec![
            b.id.to_string().into(),
            b.series.as_str().into(),
            short(b.from).into(),
            short(b.to).into(),
            format!("{percent} %").into(),
            b.requested_by.as_str().into(),
            relative(b.requested_at, now).into(),
            Cell::or_none(b.finished_at.map(|t| relative(t, now))),
        ]);
    }
    table.print(style)
}

/// What was done to one window, or would be.
#[must_use]
pub fn changed(done: &WindowChanged) -> String {
    let name = format!("window {} {}", done.series, done.start);
    let before = done.before.as_ref();
    let is = if done.preview { "would be" } else { "is" };
    let mut text = match done.change {
        Change::Hasten => {
            let attempts = before.map_or(0, |w| w.attempts);
            let failed = count(attempts.into(), "attempt", "attempts");
            format!("{name} {is} tried again now, after {failed}\n")
        }
        Change::Renew => {
            let version = before.map_or(1, |w| w.version) + 1;
            format!("{name} {is} tried again, as version {version} with attempts of its own\n")
        }
        Change::GiveUp => format!("{name} {is} abandoned: its series goes on without it\n"),
    };
    if done.preview {
        text.push_str("nothing was stored: this is a preview\n");
    }
    text
}

/// What a window's state says.
#[must_use]
pub fn tone(state: State) -> Tone {
    match state {
        State::Complete => Tone::Good,
        State::Failed => Tone::Bad,
        State::Abandoned => Tone::Warn,
        State::Open | State::Ready | State::Running => Tone::Plain,
    }
}
