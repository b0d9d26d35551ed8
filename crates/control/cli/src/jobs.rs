//! `job ...`: enqueueing, showing and changing jobs.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use watchbell_api::{Control, ControlError, Reason, job_action_word};
use watchbell_core::port::{JobAction, JobChange, JobFilter, JobQuery, JobRecord};
use watchbell_core::{NewJob, job};

use crate::args::{ChangeArgs, EnqueueArgs, FilterArgs, JobCommand};
use crate::execute::now;
use crate::exit::Exit;
use crate::out::Out;
use crate::print::{job as print, queue};

type Result<T> = std::result::Result<T, ControlError>;

/// Lines of a bulk file that are named when more are wrong.
const NAMED: usize = 5;
/// Numbers that are looked up in one question.
const LOOKED_UP: usize = 200;

pub(crate) async fn execute(
    command: &JobCommand,
    control: &dyn Control,
    out: &mut Out,
) -> Result<Exit> {
    match command {
        JobCommand::Enqueue(args) => match &args.bulk {
            Some(file) => bulk(file, control, out).await,
            None => enqueue(args, control, out).await,
        },
        JobCommand::List { filter, before, limit } => {
            let now = now(control, out).await?;
            let query = JobQuery { filter: which(&[], filter), before: *before, limit: *limit };
            let answer = control.jobs(query).await?;
            out.data(&answer, |a, style| print::list(a, now, style))?;
            let full = answer.len() as u64 == u64::from(*limit);
            if let Some(last) = answer.last().filter(|_| full) {
                out.remark(&format!("there may be older ones: --before {}", last.id));
            }
            Ok(Exit::Ok)
        }
        JobCommand::Show { id } => {
            let now = now(control, out).await?;
            let answer = control.job(*id).await?;
            out.data(&answer, |a, style| print::detail(a, now, style))?;
            Ok(Exit::Ok)
        }
        JobCommand::Cancel(args) => change(JobAction::Cancel, args, control, out).await,
        JobCommand::Retry(args) => change(JobAction::RunNow, args, control, out).await,
        JobCommand::Redrive(args) => change(JobAction::Redrive, args, control, out).await,
        JobCommand::Purge(args) => change(JobAction::Purge, args, control, out).await,
        JobCommand::Kinds { kind: None } => {
            let answer = control.kinds().await?;
            out.data(&answer, |a, style| queue::kinds(a, style))?;
            Ok(Exit::Ok)
        }
        JobCommand::Kinds { kind: Some(name) } => {
            let now = now(control, out).await?;
            let all = control.kinds().await?;
            let one = all.iter().find(|k| k.kind.name == *name).ok_or_else(|| {
                ControlError::not_found("kind", name, all.iter().map(|k| k.kind.name.as_str()))
            })?;
            out.data(one, |k, style| queue::kind(k, now, style))?;
            Ok(Exit::Ok)
        }
        JobCommand::Stats => {
            let now = now(control, out).await?;
            let answer = control.queue().await?;
            out.data(&answer, |a, style| queue::stats(a, now, style))?;
            Ok(Exit::Ok)
        }
    }
}

/// Adds one job.
async fn enqueue(args: &EnqueueArgs, control: &dyn Control, out: &mut Out) -> Result<Exit> {
    let payload = match (&args.payload, &args.file) {
        (Some(text), _) if text == "-" => parse("the input stream", &input(out)?)?,
        (Some(text), _) => parse("the payload", text)?,
        (None, Some(file)) => parse(&file.display().to_string(), &read(file)?)?,
        (None, None) => serde_json::json!({}),
    };
    let run_at = match args.delay {
        // A node may run on a faster clock than the wall, and jobs are due by its clock.
        Some(delay) => Some(control.node().await?.now + delay),
        None => args.at,
    };
    let job = NewJob {
        unique_key: args.key.clone(),
        unique_in: match args.unique_in.as_slice() {
            [] => job::Mask::default(),
            states => job::Mask::of(states),
        },
        limit_key: args.limit_key.clone(),
        run_at,
        priority: args.priority,
        max_attempts: args.max_attempts,
        ..NewJob::new(args.kind.clone().unwrap_or_default(), payload)
    };
    let answers = control.enqueue(vec![job.clone()]).await.map_err(|e| {
        at_place(e, |_, rest| if rest.is_empty() { "job".to_owned() } else { rest.to_owned() })
    })?;
    out.data(&answers, |answers, _| {
        answers.iter().map(|answer| print::enqueued(&job, *answer)).collect()
    })?;
    Ok(Exit::Ok)
}

/// Adds the jobs of a file, all or none.
async fn bulk(file: &Path, control: &dyn Control, out: &mut Out) -> Result<Exit> {
    let stdin = file.as_os_str() == "-";
    let text = if stdin { input(out)? } else { read(file)? };
    let name = if stdin { "-".to_owned() } else { file.display().to_string() };
    let (mut jobs, mut lines, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match serde_json::from_str::<NewJob>(line) {
            Ok(job) => {
                jobs.push(job);
                lines.push(i + 1);
            }
            Err(e) => wrong.push(format!("{name}:{}: {}", i + 1, within_line(&e))),
        }
    }
    if !wrong.is_empty() {
        let all = wrong.len();
        let mut reason = Reason::from(format!(
            "{all} of {} lines of {name} cannot be read as a job; nothing was added",
            all + jobs.len()
        ));
        wrong.truncate(NAMED);
        reason.causes = wrong;
        reason.help = Some("a line is like {\"kind\": \"export\", \"payload\": {}}".to_owned());
        return Err(ControlError::Invalid(reason));
    }
    let answers = control.enqueue(jobs).await.map_err(|e| {
        at_place(e, |index, rest| {
            let line = lines.get(index).copied().unwrap_or(index + 1);
            let rest = if rest.is_empty() { String::new() } else { format!(": {rest}") };
            format!("{name}:{line}{rest}")
        })
    })?;
    out.data(&answers, |answers, _| print::enqueued_all(answers))?;
    Ok(Exit::Ok)
}

/// What is wrong with a line; its number is known already.
fn within_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(said) => format!("{said} (column {})", error.column()),
        None => text,
    }
}

/// The error with its place told in the words of the command: `jobs[3].payload.x` is the number 3
/// and `payload.x`.
fn at_place(error: ControlError, tell: impl FnOnce(usize, &str) -> String) -> ControlError {
    let ControlError::BadInput { place, problem } = error else { return error };
    let parts = place.strip_prefix("jobs[").and_then(|rest| rest.split_once(']'));
    let index = parts.and_then(|(index, rest)| Some((index.parse().ok()?, rest)));
    match index {
        Some((index, rest)) => {
            let place = tell(index, rest.strip_prefix('.').unwrap_or(rest));
            ControlError::BadInput { place, problem }
        }
        None => ControlError::BadInput { place, problem },
    }
}

fn parse(what: &str, text: &str) -> Result<serde_json::Value> {
    serde_json::from_str(text)
        .map_err(|e| ControlError::invalid(format!("{what} is not JSON: {e}")))
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file)
        .map_err(|e| ControlError::invalid(format!("cannot read {}", file.display())).because(&e))
}

fn input(out: &mut Out) -> Result<String> {
    let mut text = String::new();
    let read = out.input.read_to_string(&mut text);
    read.map_err(|e| ControlError::invalid("cannot read the input stream").because(&e))?;
    Ok(text)
}

fn which(ids: &[i64], args: &FilterArgs) -> JobFilter {
    JobFilter {
        ids: ids.to_vec(),
        kind: args.kind.clone(),
        state: args.state,
        unique_key: args.key.clone(),
        limit_key: args.limit_key.clone(),
        error: args.error.clone(),
        created_before: args.created_before,
        finished_before: args.finished_before,
    }
}

/// Changes jobs: those that are named at once, those that a filter finds after they were shown.
async fn change(
    action: JobAction,
    args: &ChangeArgs,
    control: &dyn Control,
    out: &mut Out,
) -> Result<Exit> {
    let filter = which(&args.ids, &args.filter);
    let word = job_action_word(action);
    if filter.is_everything() && !args.all {
        return Err(ControlError::invalid("it is not said which jobs").help(format!(
            "name some, such as `watchbell job {word} 7`, or filter, or say --all"
        )));
    }
    let named = !args.ids.is_empty() && which(&[], &args.filter).is_everything();
    let limit = args.limit;
    let mut request = JobChange {
        filter,
        action,
        limit,
        preview: true,
        by: args.by.clone().unwrap_or_else(|| out.user.clone()),
    };
    if named {
        look_up(action, &args.ids, control).await?;
    }
    if args.preview || !(named || args.yes) {
        let now = now(control, out).await?;
        let found = control.change_jobs(request.clone()).await?;
        if args.preview {
            out.data(&found, |f, style| print::preview(action, f, limit, now, style))?;
            return Ok(Exit::Ok);
        }
        if !out.json {
            out.text(&print::preview(action, &found, limit, now, out.style));
        }
        if found.matched == 0 && !out.json {
            return Ok(Exit::Ok);
        }
        if out.json || !out.asks {
            return Err(ControlError::invalid(
                "nothing was changed: nobody is there to confirm it",
            )
            .help("say --yes, or --preview to see what would change"));
        }
        if !out.confirm(&print::question(action, &found, limit)) {
            out.remark("nothing was changed");
            return Ok(Exit::Refused);
        }
    }
    request.preview = false;
    let done = control.change_jobs(request).await?;
    let named = named.then_some(args.ids.len() as u64);
    out.data(&done, |d, _| print::changed(action, d, limit, named))?;
    Ok(Exit::Ok)
}

/// Looks every number up first, so that a mistyped one changes nothing.
async fn look_up(action: JobAction, ids: &[i64], control: &dyn Control) -> Result<()> {
    for some in ids.chunks(LOOKED_UP) {
        let filter = JobFilter { ids: some.to_vec(), ..JobFilter::default() };
        let limit = u32::try_from(some.len()).unwrap_or(u32::MAX);
        let found = control.jobs(JobQuery { filter, before: None, limit }).await?;
        for id in some {
            let job = found.iter().find(|j| j.id == *id);
            let job = job.ok_or_else(|| ControlError::not_found("job", id.to_string(), []))?;
            applies(action, job)?;
        }
    }
    Ok(())
}

fn applies(action: JobAction, job: &JobRecord) -> Result<()> {
    let takes = action.applies_to();
    if takes.contains(&job.state) {
        return Ok(());
    }
    let takes: Vec<&str> = takes.iter().map(|s| s.as_str()).collect();
    let error = ControlError::conflict(format!(
        "job {} is {}, and `{}` takes jobs that are {}",
        job.id,
        job.state,
        job_action_word(action),
        takes.join(" or ")
    ));
    Err(match (action, job.state) {
        (JobAction::RunNow, job::State::Failed | job::State::Cancelled) => {
            error.help(format!("`watchbell job redrive {}` gives it fresh attempts", job.id))
        }
        (JobAction::Purge, _) => {
            error.help(format!("`watchbell job cancel {}` ends it first", job.id))
        }
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_in_the_words_of_the_command() {
        for (place, told) in [
            ("jobs[3].payload.symbol", "4: payload.symbol"),
            ("jobs[12]", "13: "),
            ("jobs", "jobs"),
            ("jobs[x].kind", "jobs[x].kind"),
        ] {
            let error =
                ControlError::BadInput { place: place.into(), problem: "it is wrong".into() };
            let error = at_place(error, |index, rest| format!("{}: {rest}", index + 1));
            assert_eq!(error.to_string(), format!("{told}: it is wrong"));
        }
    }
}
