//! The commands of the market: `smoke` and `market`. They print with the tables, colours and exit
//! codes of all commands.
//!
//! What they show is read from the store, which a node that runs does not mind. What they change is
//! a job, so that one path, one ledger and one fence serve the command line, the API and other
//! nodes: a running node carries it out, and without one this process runs the worker of that kind
//! once, as `run NAME --once` does.

mod args;
mod backfill;
mod change;
mod place;
mod print;
mod smoke;
#[cfg(test)]
mod tests;

use watchbell_api::ControlError;
use watchbell_cli::args::Global;
use watchbell_cli::{Exit, Out};
use watchbell_core::graph::nearest;
use watchbell_core::{Millis, Time};
use watchbell_db::Database;
use watchbell_market::{ops, view};

use self::args::{
    FlagsCommand, MarketCommand, SessionsCommand, SmokeCommand, UniverseCommand, WindowsArgs,
};
use crate::config::Config;
use crate::installation::trouble;

pub(crate) use self::args::Own;
pub(crate) use self::place::Place;

type Result<T> = std::result::Result<T, ControlError>;

/// Failed jobs that are shown.
const FAILED_SHOWN: u32 = 20;

impl Own {
    /// Whether it writes, so that without a node this process must have the directory to itself.
    const fn writes(&self) -> bool {
        match self {
            Self::Smoke(SmokeCommand::List) => false,
            Self::Smoke(SmokeCommand::Run(args)) => !args.dry_run,
            Self::Market(command) => match command {
                MarketCommand::Universe { command } => command.is_some(),
                MarketCommand::Flags(command) => !matches!(command, FlagsCommand::List),
                MarketCommand::Sessions(command) => {
                    matches!(command, SessionsCommand::Open(_) | SessionsCommand::Close(_))
                }
                MarketCommand::Ledger(_) | MarketCommand::Rebuild => true,
                MarketCommand::Backfill(args) => !args.preview,
                _ => false,
            },
        }
    }
}

/// Carries out a command of the market.
pub(crate) async fn run(own: &Own, config: Config, global: &Global, out: &mut Out) -> Result<Exit> {
    if matches!(own, Own::Smoke(SmokeCommand::List)) {
        out.data(&ops::SMOKES, |smokes, style| print::smokes(smokes, style))?;
        return Ok(Exit::Ok);
    }
    let place = Place::find(config, own.writes()).await?;
    let ended = carry_out(own, &place, global, out).await;
    place.leave().await?;
    ended
}

async fn carry_out(own: &Own, place: &Place, global: &Global, out: &mut Out) -> Result<Exit> {
    match own {
        Own::Smoke(SmokeCommand::List) => Ok(Exit::Ok),
        Own::Smoke(SmokeCommand::Run(args)) => smoke::run(args, place, out).await,
        Own::Market(command) => market(command, place, global, out).await,
    }
}

async fn market(
    command: &MarketCommand,
    place: &Place,
    global: &Global,
    out: &mut Out,
) -> Result<Exit> {
    match command {
        MarketCommand::Backfill(args) => return backfill::run(args, place, global, out).await,
        MarketCommand::Ledger(command) => change::ledger(command, place, out).await?,
        MarketCommand::Rebuild => change::rebuild(place, out).await?,
        MarketCommand::Universe { command: Some(command) } => match command {
            UniverseCommand::Enable(args) => change::universe(true, args, place, out).await?,
            UniverseCommand::Disable(args) => change::universe(false, args, place, out).await?,
            UniverseCommand::Sync(args) => change::sync(args, place, out).await?,
        },
        MarketCommand::Sessions(SessionsCommand::Open(args)) => {
            change::open_session(args, place, out).await?;
        }
        MarketCommand::Sessions(SessionsCommand::Close(args)) => {
            change::close_session(args, place, out).await?;
        }
        MarketCommand::Flags(FlagsCommand::Open { schema }) => {
            flag(schema, true, place, out).await?;
        }
        MarketCommand::Flags(FlagsCommand::Close { schema }) => {
            flag(schema, false, place, out).await?;
        }
        MarketCommand::Status => {
            let mut status = view::status(place.db(), place.lengths(), place.now())
                .await
                .map_err(|e| trouble(&e))?;
            place.ask_about_the_venue(&mut status.feed).await?;
            status.node_runs = Some(place.node_runs().await?);
            out.data(&status, print::status)?;
        }
        asked => show(asked, place.db(), place.now(), place.lengths(), out).await?,
    }
    Ok(Exit::Ok)
}

/// What only reads, and needs no more than the store and the present.
pub(crate) async fn show(
    command: &MarketCommand,
    db: &Database,
    now: Time,
    lengths: &[Millis],
    out: &mut Out,
) -> Result<()> {
    match command {
        MarketCommand::Window { symbol, label, start } => {
            let symbol = symbol.to_ascii_uppercase();
            let (label, start) = (label.exact(), *start);
            let found = view::window(db, &symbol, &label, start).await.map_err(|e| trouble(&e))?;
            let window = found.map_err(|other| unknown_window(&symbol, &label, start, &other))?;
            out.data(&window, print::window)
        }
        MarketCommand::Universe { command: None } => {
            let lines = view::universe(db).await.map_err(|e| trouble(&e))?;
            out.data(&lines, |l, style| print::universe(l, now, style))
        }
        MarketCommand::Samples => {
            let lines = view::samples(db).await.map_err(|e| trouble(&e))?;
            out.data(&lines, |l, style| print::samples(l, now, style))
        }
        MarketCommand::Vectors => {
            let lines = view::vectors(db).await.map_err(|e| trouble(&e))?;
            out.data(&lines, |l, style| print::vectors(l, style))
        }
        MarketCommand::Jobs => {
            let jobs = view::jobs(db, FAILED_SHOWN).await.map_err(|e| trouble(&e))?;
            out.data(&jobs, |j, style| print::jobs(j, now, style))
        }
        MarketCommand::Windows(WindowsArgs { incomplete, within, limit }) => {
            let since = now - *within;
            let lines = view::runs(db, lengths, (since, now), *incomplete, *limit)
                .await
                .map_err(|e| trouble(&e))?;
            out.data(&lines, |l, style| print::runs(l, *incomplete, style))
        }
        MarketCommand::Packs { scope } => packs(scope.as_deref(), db, now, out).await,
        MarketCommand::Flags(_) => {
            let lines = view::flags(db).await.map_err(|e| trouble(&e))?;
            out.data(&lines, |l, style| print::flags(l, now, style))
        }
        MarketCommand::Sessions(SessionsCommand::List { limit }) => {
            let lines = view::sessions(db, None, *limit).await.map_err(|e| trouble(&e))?;
            out.data(&lines, |l, style| print::sessions(l, now, style))
        }
        MarketCommand::Sessions(SessionsCommand::Show { id }) => {
            let mut found = view::sessions(db, Some(*id), 1).await.map_err(|e| trouble(&e))?;
            let Some(session) = found.pop() else {
                return Err(ControlError::not_found("session", id.to_string(), []));
            };
            let balances = view::balances(db, *id).await.map_err(|e| trouble(&e))?;
            let closing = view::closing(db, *id).await.map_err(|e| trouble(&e))?;
            let all = serde_json::json!({
                "session": session, "balances": balances, "closing": closing,
            });
            out.data(&all, |_, style| {
                print::session(&session, &balances, closing.as_ref(), now, style)
            })
        }
        MarketCommand::Matrix { series, matrix_type } => {
            let grid =
                view::matrix(db, series.as_deref(), matrix_type).await.map_err(|e| trouble(&e))?;
            if let (None, Some(series)) = (&grid, series) {
                let known = std::iter::once("cycle".to_owned());
                let known: Vec<String> = known.chain(lengths.iter().map(|l| l.exact())).collect();
                if !known.contains(series) {
                    let known = known.iter().map(String::as_str);
                    return Err(ControlError::not_found("series", series.clone(), known));
                }
            }
            out.data(&grid, |grid, style| match grid {
                Some(grid) => print::matrix(grid, style),
                None => "no slice yet\n".to_owned(),
            })
        }
        MarketCommand::Mood { label, limit } => {
            let known: Vec<String> = lengths.iter().map(|l| l.exact()).collect();
            let labels = match label.map(Millis::exact) {
                Some(label) if known.contains(&label) => vec![label],
                Some(label) => {
                    let known = known.iter().map(String::as_str);
                    return Err(ControlError::not_found("label", label, known));
                }
                None => known,
            };
            let lines = view::moods(db, &labels, *limit).await.map_err(|e| trouble(&e))?;
            out.data(&lines, |l, style| print::moods(l, style))
        }
        other => Err(ControlError::internal(format!("{other:?} does not only read"))),
    }
}

async fn packs(scope: Option<&str>, db: &Database, now: Time, out: &mut Out) -> Result<()> {
    let mut lines = view::packs(db).await.map_err(|e| trouble(&e))?;
    let Some(scope) = scope else {
        return out.data(&lines, |l, style| print::packs(l, now, style));
    };
    let Some(at) = lines.iter().position(|p| p.scope == scope) else {
        let known = lines.iter().map(|p| p.scope.as_str());
        return Err(ControlError::not_found("scope", scope.to_owned(), known));
    };
    let pack = lines.swap_remove(at);
    out.data(&pack, |p, style| print::pack(p, now, style))
}

async fn flag(schema: &str, open: bool, place: &Place, out: &mut Out) -> Result<()> {
    let known = view::flags(place.db()).await.map_err(|e| trouble(&e))?;
    if !known.iter().any(|f| f.schema == schema) {
        let known = known.iter().map(|f| f.schema.as_str());
        return Err(ControlError::not_found("schema", schema.to_owned(), known));
    }
    let (db, now) = (place.db(), place.now());
    let set = if open {
        ops::open_flag(db, schema, now).await
    } else {
        ops::close_flag(db, schema, now).await
    };
    set.map_err(|e| trouble(&e))?;
    let answer = serde_json::json!({ "schema": schema, "open": open });
    out.data(&answer, |_, _| {
        format!("schema {schema} is marked {}\n", if open { "open" } else { "closed" })
    })
}

fn unknown_window(
    symbol: &str,
    label: &str,
    start: Option<Time>,
    other: &view::UnknownWindow,
) -> ControlError {
    if let Some(run) = &other.run {
        return unfinished(symbol, label, run);
    }
    let at = start.map_or_else(String::new, |start| format!(" {start}"));
    let suggestion = match other.nearest {
        Some(near) => Some(format!("{symbol} {label} {near}")),
        None => nearest(symbol, other.symbols.iter().map(String::as_str))
            .map(|symbol| format!("{symbol} {label}")),
    };
    let name = format!("{symbol} {label}{at}");
    ControlError::NotFound { what: "window".to_owned(), name, suggestion }
}

/// The window exists, and has no result that could be shown.
fn unfinished(symbol: &str, label: &str, run: &view::UnfinishedRun) -> ControlError {
    let view::UnfinishedRun { series, start, state, reason } = run;
    let window = format!("the window {symbol} {label} {start}");
    let why = reason.as_deref().map_or_else(String::new, |why| format!(": {why}"));
    let explain = format!("`watchbell explain {series}/{start}` says more");
    let retry = format!("`watchbell window retry {series} {start}` tries it again");
    match state.as_str() {
        "abandoned" => ControlError::conflict(format!("{window} was abandoned{why}"))
            .help(format!("{explain}; {retry}")),
        "failed" => ControlError::conflict(format!("{window} failed and is tried again{why}"))
            .help(format!("{explain}; {retry}, now")),
        _ => ControlError::conflict(format!("{window} is not computed yet")).help(explain),
    }
}
