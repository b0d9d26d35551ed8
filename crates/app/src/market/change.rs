//! Changes: each is a job, and the command waits for its end.

use serde_json::{Value, json};
use watchbell_api::{ControlError, RunOptions, RunRequest};
use watchbell_cli::Out;
use watchbell_core::job::State;
use watchbell_core::port::{Enqueued, JobRecord};
use watchbell_core::{Millis, NewJob, Refusal, WorkerName};

use super::args::{CloseArgs, LedgerCommand, OpenArgs, SymbolsArgs, SyncArgs};
use super::place::Place;
use super::{Result, print};

/// How often a job that a node works on is looked at.
const LOOK: Millis = Millis(200);
/// How long its end is waited for.
const PATIENCE: Millis = Millis::from_mins(5);
/// Jobs that may stand before ours in the queue of its worker, without a node.
const BEFORE_OURS: u32 = 100;

pub(super) async fn universe(
    enable: bool,
    args: &SymbolsArgs,
    place: &Place,
    out: &mut Out,
) -> Result<()> {
    let kind = if enable { "universe.enable" } else { "universe.disable" };
    let payload = json!({ "symbols": args.symbols });
    carry_out(kind, payload, place, out).await
}

pub(super) async fn sync(args: &SyncArgs, place: &Place, out: &mut Out) -> Result<()> {
    let payload = json!({
        "coins": args.coins,
        "quote": args.quote,
        "disable_missing": !args.keep,
    });
    let kind = if args.preview { "universe.preview" } else { "universe.sync" };
    carry_out(kind, payload, place, out).await
}

pub(super) async fn open_session(args: &OpenArgs, place: &Place, out: &mut Out) -> Result<()> {
    let balances: Vec<Value> = args
        .balance
        .iter()
        .map(|(asset, units)| json!({ "asset": asset, "units": units }))
        .collect();
    let mut payload = json!({
        "owner": args.owner.clone().unwrap_or_else(|| out.user.clone()),
        "window_label": args.label.exact(),
        "mode": args.mode,
        "from_wallet": balances.is_empty(),
        "balances": balances,
    });
    if let Some(note) = &args.note {
        payload["note"] = note.as_str().into();
    }
    carry_out("session.open", payload, place, out).await
}

pub(super) async fn close_session(args: &CloseArgs, place: &Place, out: &mut Out) -> Result<()> {
    let payload = json!({ "session_id": args.id, "accept_unbooked": args.accept_unbooked });
    let kind = if args.retry { "session.retry" } else { "session.close" };
    carry_out(kind, payload, place, out).await
}

pub(super) async fn ledger(command: &LedgerCommand, place: &Place, out: &mut Out) -> Result<()> {
    let LedgerCommand::Import { file } = command;
    let csv = std::fs::read_to_string(file).map_err(|e| {
        ControlError::invalid(format!("cannot read {}", file.display())).because(&e)
    })?;
    let name = file.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    carry_out("ledger.import", json!({ "file": name, "csv": csv }), place, out).await
}

pub(super) async fn rebuild(place: &Place, out: &mut Out) -> Result<()> {
    carry_out("market.rebuild", json!({}), place, out).await
}

/// Enqueues a job, has it carried out, and prints what came of it.
async fn carry_out(kind: &str, payload: Value, place: &Place, out: &mut Out) -> Result<()> {
    let job = ended(kind, payload, place, out).await?;
    out.data(&job, print::changed)
}

/// The job, once it has succeeded.
pub(super) async fn ended(
    kind: &str,
    payload: Value,
    place: &Place,
    out: &mut Out,
) -> Result<JobRecord> {
    let control = place.control();
    let answer = control.enqueue(vec![NewJob::new(kind, payload)]).await?;
    let id = match answer.first() {
        Some(Enqueued::Added(id) | Enqueued::Duplicate(Some(id))) => *id,
        _ => return Err(ControlError::internal("the queue gave the job no number")),
    };
    let job = if place.node_runs().await? {
        watched(id, place, out).await?
    } else {
        alone(kind, id, place).await?
    };
    match job.state {
        State::Succeeded => Ok(job),
        State::Cancelled => Err(ControlError::conflict(format!("job {id} was cancelled"))),
        State::Failed => Err(failed(&job)),
        State::Queued => Err(ControlError::internal(format!(
            "an attempt at job {id} failed, and it will be tried again: {}",
            error_of(&job)
        ))
        .help(format!("see `watchbell job show {id}`"))),
        State::Running => {
            Err(ControlError::unavailable(format!("job {id} has not ended within {PATIENCE}"))
                .help(format!("it goes on: see `watchbell job show {id}`")))
        }
    }
}

/// A job that was refused ends the command as any other request that is.
fn failed(job: &JobRecord) -> ControlError {
    let error = error_of(job).to_owned();
    let refusal = job.result.clone().and_then(|result| serde_json::from_value(result).ok());
    match refusal {
        Some(Refusal::Invalid) => ControlError::invalid(error),
        Some(Refusal::Conflict) => ControlError::conflict(error),
        Some(Refusal::NotFound { what, name }) => {
            ControlError::NotFound { what, name, suggestion: None }
        }
        None => ControlError::internal(format!("job {} failed: {error}", job.id)),
    }
}

fn error_of(job: &JobRecord) -> &str {
    job.error.as_deref().unwrap_or("it gave no reason")
}

/// Waits for the node that works on it.
async fn watched(id: i64, place: &Place, out: &Out) -> Result<JobRecord> {
    let until = out.clock.now() + PATIENCE;
    loop {
        let job = place.control().job(id).await?.record;
        // A failed attempt is told at once; the node goes on trying.
        let tried = job.state == State::Queued && job.attempts > 0 && job.error.is_some();
        if job.state.is_final() || tried || out.clock.now() >= until {
            return Ok(job);
        }
        out.clock.sleep(LOOK).await;
    }
}

/// Runs the worker of its kind here, once for each job that stands before it, and once for it.
async fn alone(kind: &str, id: i64, place: &Place) -> Result<JobRecord> {
    let control = place.control();
    let line = control.queue().await?.into_iter().find(|line| line.kind == kind);
    let worker: WorkerName = line.and_then(|line| line.worker).ok_or_else(|| {
        ControlError::conflict(format!("no worker of this configuration consumes `{kind}`"))
    })?;
    let mut job = control.job(id).await?.record;
    for _ in 0..BEFORE_OURS {
        if job.state.is_final() || (job.attempts > 0 && job.error.is_some()) {
            break;
        }
        let options = RunOptions { dry_run: false, force: false, window: None };
        control.run(RunRequest { worker: worker.clone(), options }).await?;
        job = control.job(id).await?.record;
    }
    Ok(job)
}
