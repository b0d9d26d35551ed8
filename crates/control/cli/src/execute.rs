//! What each command asks of a control, and how its answer is printed.

use watchbell_api::{
    ActRequest, Action, BackfillRequest, Control, ControlError, EmitRequest, VerifyRequest,
    WindowOptions, WindowRequest,
};
use watchbell_core::port::{EventQuery, WindowQuery, WindowRecord};
use watchbell_core::window::{State, Wish};
use watchbell_core::{EventRecord, Millis, Time};

use crate::args::{
    ActArgs, Ask, BackfillArgs, EventCommand, NodeCommand, RunArgs, ScheduleAsk, SteerArgs,
    TailArgs, WindowCommand, WorkerCommand,
};
use crate::cycle::{exit_of, run_worker};
use crate::exit::Exit;
use crate::jobs;
use crate::out::Out;
use crate::print::{explain, history, node, plan, status, window, worker};

type Result<T> = std::result::Result<T, ControlError>;

/// How long one question for events waits for them.
const FOLLOW_WAIT: Millis = Millis::from_secs(10);
/// Between two of them of which the first had no answer.
const FOLLOW: Millis = Millis(250);
/// How often the status is printed again.
const WATCH: Millis = Millis(2_000);
/// Clears a terminal from its first line on.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Carries out a command and prints its answer.
///
/// # Errors
/// What the control answered; the caller prints it with [`Out::error`] and exits with
/// [`Exit::from`] it.
pub async fn execute(ask: &Ask, control: &dyn Control, out: &mut Out) -> Result<Exit> {
    match ask {
        Ask::Status(args) if args.watch => watch(control, out).await,
        Ask::Status(_) => {
            let answer = control.status().await?;
            out.data(&answer, status::status)?;
            Ok(Exit::Ok)
        }
        Ask::Worker(command) => workers(command, control, out).await,
        Ask::Run(args) => run(args, control, out).await,
        Ask::Schedule(command) => schedules(command, control, out).await,
        Ask::Window(command) => windows(command, control, out).await,
        Ask::Event(command) => events(command, control, out).await,
        Ask::Job(command) => jobs::execute(command, control, out).await,
        Ask::Node(NodeCommand::List) => {
            let now = now(control, out).await?;
            let answer = control.nodes().await?;
            out.data(&answer, |a, style| node::list(a, now, style))?;
            Ok(Exit::Ok)
        }
        Ask::Explain { thing } => {
            let now = now(control, out).await?;
            let answer = control.explain(thing.clone()).await?;
            out.data(&answer, |a, style| explain::explanation(a, now, style))?;
            Ok(Exit::Ok)
        }
    }
}

/// The present, for what is printed as an age. With JSON nothing is, and nobody is asked.
pub(crate) async fn now(control: &dyn Control, out: &mut Out) -> Result<Time> {
    if out.json {
        return Ok(out.clock.now());
    }
    // A node may run on a faster clock than the wall; ages are by its clock.
    Ok(control.node().await?.now)
}

async fn watch(control: &dyn Control, out: &mut Out) -> Result<Exit> {
    while !out.closed() {
        let answer = control.status().await?;
        if out.json {
            out.data_line(&answer, |_, _| String::new())?;
        } else {
            let text = status::status(&answer, out.style);
            out.text(&format!("{CLEAR}{text}"));
        }
        out.clock.sleep(WATCH).await;
    }
    Ok(Exit::Ok)
}

async fn workers(command: &WorkerCommand, control: &dyn Control, out: &mut Out) -> Result<Exit> {
    match command {
        WorkerCommand::List => {
            let now = now(control, out).await?;
            let answer = control.workers().await?;
            out.data(&answer, |a, style| worker::list(a, now, style))?;
            Ok(Exit::Ok)
        }
        WorkerCommand::Show { name } => {
            let now = now(control, out).await?;
            let answer = control.worker(name.clone()).await?;
            out.data(&answer, |a, style| worker::detail(a, now, style))?;
            Ok(Exit::Ok)
        }
        WorkerCommand::Start(args) => act(Action::Start, args, control, out).await,
        WorkerCommand::Stop(args) => act(Action::Stop, args, control, out).await,
        WorkerCommand::Pause(args) => act(Action::Pause, args, control, out).await,
        WorkerCommand::Resume(args) => act(Action::Resume, args, control, out).await,
        WorkerCommand::Restart(args) => act(Action::Restart, args, control, out).await,
    }
}

/// Acts on each worker in turn. Every name is looked up first, so a misspelt one changes nothing.
async fn act(action: Action, args: &ActArgs, control: &dyn Control, out: &mut Out) -> Result<Exit> {
    for name in args.names.iter().filter(|_| args.names.len() > 1) {
        control.health(name.clone()).await?;
    }
    let by = args.by.clone().unwrap_or_else(|| out.user.clone());
    let mut records = Vec::new();
    for worker in &args.names {
        let request = ActRequest { worker: worker.clone(), action, by: by.clone() };
        records.push(control.act(request).await?);
    }
    out.data(&records, |records, style| records.iter().map(|r| worker::acted(r, style)).collect())?;
    Ok(Exit::Ok)
}

async fn run(args: &RunArgs, control: &dyn Control, out: &mut Out) -> Result<Exit> {
    let report = run_worker(args, control, out).await?;
    out.data(&report, plan::run)?;
    Ok(exit_of(&report))
}

async fn schedules(command: &ScheduleAsk, control: &dyn Control, out: &mut Out) -> Result<Exit> {
    let form = match command {
        ScheduleAsk::Run(args) => return run(args, control, out).await,
        ScheduleAsk::List { .. } => plan::schedules,
        ScheduleAsk::Status { .. } => plan::schedule_status,
    };
    let now = now(control, out).await?;
    let answer = control.schedules().await?;
    out.data(&answer, |a, style| form(a, now, style))?;
    Ok(Exit::Ok)
}

async fn windows(command: &WindowCommand, control: &dyn Control, out: &mut Out) -> Result<Exit> {
    match command {
        WindowCommand::List { series, state, failed, from, to, all_versions, limit } => {
            let query = WindowQuery {
                series: series.clone(),
                state: *state,
                from: *from,
                to: *to,
                all_versions: *all_versions,
                limit: *limit,
            };
            let now = now(control, out).await?;
            let answer = if *failed {
                without_success(query, control).await?
            } else {
                control.windows(query).await?
            };
            out.data(&answer, |a, style| window::list(a, now, style))?;
            Ok(Exit::Ok)
        }
        WindowCommand::Show { series, start } => {
            let now = now(control, out).await?;
            let answer = control.window(series.clone(), *start).await?;
            out.data(&answer, |a, style| window::versions(a, now, style))?;
            Ok(Exit::Ok)
        }
        WindowCommand::Verify { series, start, from, to } => {
            let request = match (series, start) {
                (Some(series), Some(start)) => {
                    VerifyRequest::One { series: series.clone(), start: *start }
                }
                _ => VerifyRequest::Range { series: series.clone(), from: *from, to: *to },
            };
            let reports = control.verify(request).await?;
            out.data(&reports, |r, style| window::verified(r, style))?;
            let good = reports.iter().all(|r| r.verdict.is_good());
            Ok(if good { Exit::Ok } else { Exit::Failed })
        }
        WindowCommand::Backfill(args) => backfill(args, control, out).await,
        WindowCommand::Retry { which, reason } => {
            steer(Wish::Retry, which, reason.clone(), control, out).await
        }
        WindowCommand::Abandon { which, reason } => {
            steer(Wish::Abandon, which, Some(reason.clone()), control, out).await
        }
    }
}

/// Windows of both states that are neither done nor on their way, newest first.
async fn without_success(query: WindowQuery, control: &dyn Control) -> Result<Vec<WindowRecord>> {
    let mut found = Vec::new();
    for state in [State::Failed, State::Abandoned] {
        found.extend(control.windows(WindowQuery { state: Some(state), ..query.clone() }).await?);
    }
    found.sort_by(|a, b| {
        b.start.cmp(&a.start).then_with(|| a.series.cmp(&b.series)).then(b.version.cmp(&a.version))
    });
    found.truncate(usize::try_from(query.limit).unwrap_or(usize::MAX));
    Ok(found)
}

async fn steer(
    wish: Wish,
    which: &SteerArgs,
    reason: Option<String>,
    control: &dyn Control,
    out: &mut Out,
) -> Result<Exit> {
    let by = which.by.clone().unwrap_or_else(|| out.user.clone());
    let options = WindowOptions { reason, preview: which.preview, by };
    let (series, start) = (which.series.clone(), which.start);
    let done = control.change_window(WindowRequest { series, start, wish, options }).await?;
    out.data(&done, |d, _| window::changed(d))?;
    Ok(Exit::Ok)
}

async fn backfill(args: &BackfillArgs, control: &dyn Control, out: &mut Out) -> Result<Exit> {
    let (Some(from), Some(to)) = (args.from, args.to) else {
        let now = now(control, out).await?;
        let answer = control.backfills().await?;
        out.data(&answer, |a, style| window::backfills(a, now, style))?;
        return Ok(Exit::Ok);
    };
    let request = BackfillRequest {
        series: args.series.clone(),
        from,
        to,
        preview: args.preview,
        recompute: args.recompute.clone(),
        by: args.by.clone().unwrap_or_else(|| out.user.clone()),
    };
    let report = control.backfill(request).await?;
    out.data(&report, window::backfill)?;
    Ok(Exit::Ok)
}

async fn events(command: &EventCommand, control: &dyn Control, out: &mut Out) -> Result<Exit> {
    match command {
        EventCommand::List { dead: true, limit, .. } => {
            let now = now(control, out).await?;
            let answer = control.dead_letters(*limit).await?;
            out.data(&answer, |a, style| history::dead_letters(a, now, style))?;
        }
        EventCommand::List { kind, after, limit, dead: false } => {
            let query = EventQuery { after: *after, kinds: kind.clone(), limit: *limit };
            let answer = control.events(query).await?;
            out.data(&answer, |a, style| history::events(a, style))?;
        }
        EventCommand::Tail(args) => tail(args, control, out).await?,
        EventCommand::Emit { kind, key, payload } => {
            let request =
                EmitRequest { kind: kind.clone(), key: key.clone(), payload: payload.clone() };
            let answer = control.emit(request).await?;
            out.data(&answer, |e, _| format!("event {} emitted\n", e.id))?;
        }
    }
    Ok(Exit::Ok)
}

/// Prints the newest events or those after a number, and goes on as they come: by number, so none is
/// missed between two questions.
async fn tail(args: &TailArgs, control: &dyn Control, out: &mut Out) -> Result<()> {
    let kinds = &args.kind;
    let query = |after, limit| EventQuery { after, kinds: kinds.clone(), limit };
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut after = match args.since {
        Some(after) => after,
        None => {
            let newest = control.events(query(None, args.last.max(1))).await?;
            let shown = if args.last == 0 { &[][..] } else { &newest[..] };
            print_events(shown, &mut left, out)?;
            newest.last().map_or(0, |e| e.id)
        }
    };
    // Without --follow, the newest are all that was asked for.
    while (args.follow || args.since.is_some()) && left > 0 && !out.closed() {
        let events = if args.follow {
            control.next_events(query(Some(after), 1_000), FOLLOW_WAIT).await?
        } else {
            control.events(query(Some(after), 1_000)).await?
        };
        print_events(&events, &mut left, out)?;
        after = events.last().map_or(after, |e| e.id);
        match (events.is_empty(), args.follow) {
            (true, true) => out.clock.sleep(FOLLOW).await,
            (true, false) => break,
            (false, _) => {}
        }
    }
    Ok(())
}

fn print_events(events: &[EventRecord], left: &mut u64, out: &mut Out) -> Result<()> {
    for event in events {
        if *left == 0 {
            break;
        }
        *left -= 1;
        out.data_line(event, history::event_line)?;
    }
    Ok(())
}
