//! Jobs: lists, one of them, and what became of orders.

use watchbell_api::JobDetail;
use watchbell_core::job::State;
use watchbell_core::port::{AttemptRecord, Enqueued, JobAction, JobChanged, JobRecord};
use watchbell_core::{NewJob, SessionId, Time, job};

use crate::print::history::outcome_tone;
use crate::print::style::{Style, Tone};
use crate::print::table::{Cell, Table, facts};
use crate::print::time::{relative, short, span};
use crate::print::{add, count, cut, explain, thousands};

/// Jobs, as given.
#[must_use]
pub fn list(jobs: &[JobRecord], now: Time, style: Style) -> String {
    if jobs.is_empty() {
        return "no jobs\n".to_owned();
    }
    let mut table = Table::new(&[
        ">ID",
        "KIND",
        "STATE",
        ">ATTEMPTS",
        ">PRIORITY",
        "DUE",
        "ENQUEUED",
        "KEY",
        "ERROR",
    ]);
    for j in jobs {
        table.row(vec![
            j.id.to_string().into(),
            j.kind.as_str().into(),
            Cell::new(state(j), tone(j.state)),
            format!("{}/{}", j.attempts, j.max_attempts).into(),
            j.priority.to_string().into(),
            if j.state == State::Queued { relative(j.run_at, now).into() } else { Cell::none() },
            relative(j.created_at, now).into(),
            Cell::or_none(j.unique_key.as_deref().map(|k| cut(k, 40))),
            cut(j.error.as_deref().unwrap_or_default(), 80).into(),
        ]);
    }
    table.print(style)
}

/// One job, what happened to it, and why it does or does not run.
#[must_use]
pub fn detail(detail: &JobDetail, now: Time, style: Style) -> String {
    let j = &detail.record;
    let when = |t: Option<Time>| t.map(|t| format!("{} ({})", relative(t, now), short(t)));
    let mut attempts = format!("{} of {}", j.attempts, j.max_attempts);
    if j.reclaims > 0 {
        attempts.push_str(&format!(", and {} taken over from a dead holder", j.reclaims));
    }
    let unique = j.unique_key.as_ref().map(|key| format!("{key} (while {})", states(j.unique_in)));
    let cancel = "an operator asked for its end".to_owned();
    let mut text = facts(
        style,
        &[
            ("job", Some(format!("{} ({})", style.strong(&j.id.to_string()), j.kind))),
            ("state", Some(style.paint(&state(j), tone(j.state)))),
            ("attempts", Some(attempts)),
            ("priority", (j.priority != 0).then(|| j.priority.to_string())),
            ("unique key", unique),
            ("limit key", j.limit_key.clone()),
            ("due", when(Some(j.run_at).filter(|_| j.state == State::Queued))),
            ("enqueued", when(Some(j.created_at))),
            ("started", when(j.started_at)),
            ("finished", when(j.finished_at)),
            ("worker", j.worker.as_ref().map(ToString::to_string)),
            ("holder", holder(detail, now)),
            ("progress", j.progress.as_ref().map(progress)),
            ("cancel", j.cancel_requested.then_some(cancel)),
            ("error", j.error.as_ref().map(|e| cut(e, 400))),
            ("result", j.result.as_ref().filter(|r| !r.is_null()).map(ToString::to_string)),
            ("payload", Some(j.payload.to_string())),
        ],
    );
    if !detail.attempts.is_empty() {
        text.push_str("\nAttempts that did not succeed\n");
        text.push_str(&history(&detail.attempts, now, style));
    }
    text.push('\n');
    text.push_str(&explain::explanation(&detail.explanation, now, style));
    text
}

fn history(attempts: &[AttemptRecord], now: Time, style: Style) -> String {
    let mut table = Table::new(&[">ATTEMPT", "OUTCOME", "ENDED", ">TOOK", "SESSION", "ERROR"]);
    for a in attempts {
        table.row(vec![
            a.attempt.to_string().into(),
            Cell::new(a.outcome.as_str().replace('_', " "), outcome_tone(a.outcome)),
            relative(a.finished_at, now).into(),
            Cell::or_none(a.started_at.map(|t| span(a.finished_at.since(t)))),
            Cell::or_none(a.session.as_ref().map(SessionId::as_str)),
            cut(a.error.as_deref().unwrap_or_default(), 200).into(),
        ]);
    }
    table.print(style)
}

/// Who works on it: the node, where it is known, and until when the lease holds.
fn holder(detail: &JobDetail, now: Time) -> Option<String> {
    let session = detail.record.holder.as_ref()?;
    let mut text = match &detail.holder {
        Some(node) => format!("{}, pid {} ({session})", node.session.host, node.session.pid),
        None => session.to_string(),
    };
    if let Some(end) = detail.record.lease_expires_at {
        text.push_str(&format!(", lease ends {}", relative(end, now)));
    }
    Some(text)
}

fn state(j: &JobRecord) -> String {
    match &j.progress {
        Some((percent, _)) if j.state == State::Running => format!("running {percent:.0}%"),
        _ => j.state.to_string(),
    }
}

fn progress((percent, words): &(f64, String)) -> String {
    let words = if words.is_empty() { String::new() } else { format!(", {}", cut(words, 200)) };
    format!("{percent:.0}%{words}")
}

fn states(mask: job::Mask) -> String {
    mask.states().map(State::as_str).collect::<Vec<_>>().join(", ")
}

fn tone(state: State) -> Tone {
    match state {
        State::Succeeded => Tone::Good,
        State::Failed => Tone::Bad,
        State::Cancelled => Tone::Warn,
        State::Queued | State::Running => Tone::Plain,
    }
}

/// What became of one job that was to be enqueued.
#[must_use]
pub fn enqueued(job: &NewJob, answer: Enqueued) -> String {
    let id = match answer {
        Enqueued::Added(id) => return format!("job {id} added\n"),
        Enqueued::Duplicate(id) => id,
    };
    let which = id.map_or_else(|| "another job".to_owned(), |id| format!("job {id}"));
    let key = job.unique_key.as_deref().unwrap_or_default();
    format!("not added: {which} has the key `{key}`, and is {}\n", or(job.unique_in))
}

/// `queued or running`.
fn or(mask: job::Mask) -> String {
    let all: Vec<&str> = mask.states().map(State::as_str).collect();
    match all.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// What became of many.
#[must_use]
pub fn enqueued_all(answers: &[Enqueued]) -> String {
    let added: Vec<i64> = answers.iter().filter_map(|a| a.id()).collect();
    let mut text = format!("{} added", count(added.len() as i64, "job", "jobs"));
    match (added.iter().min(), added.iter().max()) {
        (Some(first), Some(last)) if first == last => add(&mut text, format_args!(": {first}")),
        (Some(first), Some(last)) => add(&mut text, format_args!(": {first} to {last}")),
        _ => {}
    }
    let taken = answers.len() - added.len();
    if taken > 0 {
        let taken = count(taken as i64, "was not: its key is", "were not: their keys are");
        add(&mut text, format_args!("; {taken} taken"));
    }
    text.push('\n');
    text
}

/// What an action does, as an order and as a fact.
const fn words(action: JobAction) -> (&'static str, &'static str) {
    match action {
        JobAction::Cancel => ("cancel", "cancelled"),
        JobAction::RunNow => ("run now", "due now"),
        JobAction::Redrive => ("redrive", "redriven"),
        JobAction::Purge => ("delete", "deleted"),
    }
}

/// The question before a change.
#[must_use]
pub fn question(action: JobAction, changed: &JobChanged, limit: u32) -> String {
    let (order, _) = words(action);
    let n = changed.matched.min(limit.into());
    format!("{order} {}?", jobs(n))
}

fn jobs(n: u64) -> String {
    count(i64::try_from(n).unwrap_or(i64::MAX), "job", "jobs")
}

/// What a change would do.
#[must_use]
pub fn preview(
    action: JobAction,
    changed: &JobChanged,
    limit: u32,
    now: Time,
    style: Style,
) -> String {
    let (order, _) = words(action);
    let n = changed.matched.min(limit.into());
    let mut text = format!("would {order} {}", jobs(n));
    if changed.matched > n {
        let all = i64::try_from(changed.matched).unwrap_or(i64::MAX);
        add(&mut text, format_args!(", the oldest of {} that match", thousands(all)));
    }
    text.push('\n');
    if !changed.sample.is_empty() {
        text.push_str(&list(&changed.sample, now, style));
        if n > changed.sample.len() as u64 {
            add(&mut text, format_args!("and {} more\n", n - changed.sample.len() as u64));
        }
    }
    text
}

/// What a change did; to `named` jobs, where they were named.
#[must_use]
pub fn changed(action: JobAction, changed: &JobChanged, limit: u32, named: Option<u64>) -> String {
    let (_, fact) = words(action);
    let mut text = format!("{} {fact}", jobs(changed.changed));
    if changed.asked > 0 {
        let asked = i64::try_from(changed.asked).unwrap_or(i64::MAX);
        let asked = count(asked, "was running and was", "were running and were");
        add(&mut text, format_args!(", of which {asked} asked to end"));
    }
    text.push('\n');
    let within = changed.matched.min(limit.into());
    let left = changed.matched - within;
    if left > 0 {
        add(&mut text, format_args!("{} more match: run it again\n", jobs(left)));
    }
    let spared = named.map_or(0, |n| n.saturating_sub(changed.matched));
    if spared > 0 {
        let why = match action {
            JobAction::RunNow => "due already",
            JobAction::Cancel => "asked to end already",
            JobAction::Redrive | JobAction::Purge => "changed by somebody else meanwhile",
        };
        add(&mut text, format_args!("{} left: {why}\n", jobs(spared)));
    }
    let kept = within.saturating_sub(changed.changed);
    if kept > 0 && action == JobAction::Redrive {
        add(&mut text, format_args!("{} left: a live job has the unique key\n", jobs(kept)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_many_is_one_line() {
        use Enqueued::{Added, Duplicate};
        for (answers, text) in [
            (&[][..], "0 jobs added\n"),
            (&[Added(7)], "1 job added: 7\n"),
            (&[Added(7), Added(8)], "2 jobs added: 7 to 8\n"),
            (&[Duplicate(None)], "0 jobs added; 1 was not: its key is taken\n"),
            (
                &[Duplicate(None), Added(9), Duplicate(Some(7))],
                "1 job added: 9; 2 were not: their keys are taken\n",
            ),
        ] {
            assert_eq!(enqueued_all(answers), text);
        }
    }

    #[test]
    fn a_change_says_what_it_left() {
        let all = JobChanged { matched: 12, changed: 12, asked: 2, sample: Vec::new() };
        assert_eq!(
            changed(JobAction::Cancel, &all, 100, None),
            "12 jobs cancelled, of which 2 were running and were asked to end\n"
        );
        let some = JobChanged { matched: 12, changed: 9, ..JobChanged::default() };
        assert_eq!(
            changed(JobAction::Redrive, &some, 10, None),
            "9 jobs redriven\n2 jobs more match: run it again\n\
             1 job left: a live job has the unique key\n"
        );
        let none = JobChanged::default();
        assert_eq!(
            changed(JobAction::RunNow, &none, 10, Some(2)),
            "0 jobs due now\n2 jobs left: due already\n"
        );
        assert_eq!(question(JobAction::Purge, &all, 10), "delete 10 jobs?");
    }
}
