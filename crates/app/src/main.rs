//! The `watchbell` binary: configuration, composition, and nothing else.

mod compose;
mod config;
mod demo;
mod installation;
mod local;
mod logging;
mod market;
mod own;
mod scan;
mod signals;
mod upkeep;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;
use watchbell_api::{Control, ControlError, discovery};
use watchbell_cli::args::{ConfigCommand, Global, HttpArgs, UpArgs, UpMode, VenueSimArgs};
use watchbell_cli::{Ask, CliWith, Exit, Out, TaskWith as Task, completions, execute};
use watchbell_clock::Clock;
use watchbell_core::{Millis, chain};
use watchbell_venues::native::Venue;
use watchbell_venues::sim::{FaultScript, Market, VenueLimits, VenueSim, VenueSimConfig};

use crate::compose::{Run, invalid};
use crate::config::{Config, Env, Gate, Overrides, Sources, run_jobs_gate};
use crate::signals::Signals;

/// Every command: those that know no workload, and those of the workloads.
type Cli = CliWith<own::Own>;

/// How long a command waits for a node to say who it is.
pub(crate) const PROBE: Millis = Millis(500);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = Out::process(&cli.global);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            out.error(&ControlError::internal("cannot start the runtime").because(&e));
            return Exit::Failed.into();
        }
    };
    let ended = runtime.block_on(dispatch(cli, &mut out));
    // What is still running after an orderly end has nothing to finish.
    runtime.shutdown_background();
    match ended {
        Ok(exit) => exit.into(),
        Err(e) => {
            out.error(&e);
            Exit::from(&e).into()
        }
    }
}

async fn dispatch(cli: Cli, out: &mut Out) -> Result<Exit, ControlError> {
    let Cli { global, command } = cli;
    match Task::from(command) {
        Task::Completions(shell) => {
            let mut text = Vec::new();
            completions::<own::Own>(shell, &mut text);
            out.text(&String::from_utf8_lossy(&text));
            Ok(Exit::Ok)
        }
        Task::Demo(args) => {
            // A demonstration needs no configuration, and obeys one only when told to; then it is read as
            // everywhere else. Otherwise a variable that is meant for real work would reach it.
            let env = match &global.config {
                Some(_) => environment()?,
                None => Env::default(),
            };
            let data_dir = global.data_dir.clone().unwrap_or_else(|| demo::DATA_DIR.into());
            let data_dir = working_dir()?.join(data_dir);
            let named = Global { data_dir: Some(data_dir), ..global.clone() };
            let config = load(&named, &env, None, None, global.config.is_none())?;
            logging::start(&config.log, global.verbose, global.quiet);
            warn(&config);
            let signals = Signals::listen()?;
            demo::run(&args, config, out, &signals).await
        }
        Task::Up(args, mode) => up(&global, &args, mode, out).await,
        Task::Db(command) => {
            let config = configured(&global)?;
            upkeep::run(&command, &config, out).await
        }
        Task::Config(command) => configuration(&command, &global, out),
        Task::VenueSim(args) => venue_sim(&args, &global, out).await,
        Task::Ask(ask) => Box::pin(asked(&ask, &global, out)).await,
        Task::More(own::Own::Market(own)) => {
            market::run(&own, configured(&global)?, &global, out).await
        }
        Task::More(own::Own::Scan(command)) => {
            Box::pin(scan::run(&command, configured(&global)?, out)).await
        }
    }
}

/// The environment of this process, with `.env` behind it.
fn environment() -> Result<Env, ControlError> {
    Env::load(&working_dir()?).map_err(|e| invalid(&e))
}

fn working_dir() -> Result<PathBuf, ControlError> {
    std::env::current_dir()
        .map_err(|e| ControlError::internal("there is no working directory").because(&e))
}

/// Reads the configuration.
fn load(
    global: &Global,
    env: &Env,
    profile: Option<String>,
    http: Option<&HttpArgs>,
    defaults_only: bool,
) -> Result<Config, ControlError> {
    // Where no file is wanted, none is looked for: a data directory has none.
    let elsewhere = global.data_dir.clone().filter(|_| defaults_only);
    let sources = Sources {
        dir: elsewhere.map_or_else(working_dir, Ok)?,
        file: global.config.clone(),
        env,
        overrides: Overrides {
            data_dir: global.data_dir.clone(),
            http_port: http.and_then(|h| h.http_port),
            profile,
        },
        catalog: &compose::catalog,
    };
    let mut config = Config::load(&sources).map_err(|e| invalid(&e))?;
    if http.is_some_and(|h| h.no_http) {
        config.http.enabled = false;
    }
    Ok(config)
}

fn configured(global: &Global) -> Result<Config, ControlError> {
    let config = load(global, &environment()?, None, None, false)?;
    logging::start(&config.log, global.verbose, global.quiet);
    warn(&config);
    Ok(config)
}

fn warn(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
}

async fn up(
    global: &Global,
    args: &UpArgs,
    mode: UpMode,
    out: &mut Out,
) -> Result<Exit, ControlError> {
    let env = environment()?;
    if let Gate::Exit(message) = run_jobs_gate(&env, mode == UpMode::RunAll) {
        out.line(message);
        return Ok(Exit::Ok);
    }
    if args.watch
        && let Some(control) = find_node(global, &env).await?
    {
        // A node runs already: to watch is all that is left to do.
        return execute(&Ask::Status(watching()), &control, out).await;
    }
    let config = load(global, &env, args.profile.clone(), Some(&args.http), false)?;
    logging::start(&config.log, global.verbose, global.quiet);
    warn(&config);
    compose::definitions(&config)?;
    demo::refuse_simulated(&config.data_dir)?;
    let signals = Signals::listen()?;
    let clock = Clock::system();
    let history_from = (clock.now() - config.market.history).floor(Millis::from_hours(3));
    let run = Run {
        clock,
        only_timed: mode == UpMode::Schedules,
        history_from,
        simulated: None,
        force: args.force,
    };
    let ready = tokio::select! {
        ready = compose::open(&config, run) => ready?,
        () = signals.stop() => return Ok(Exit::Ok),
    };
    let running = ready.start().await?;
    if mode == UpMode::RunAll {
        let universe = watchbell_market::view::universe(&running.opened.db).await;
        match universe.map(|all| all.iter().filter(|u| u.enabled).count()) {
            Ok(symbols) => out.line(&format!("universe: {symbols} symbols")),
            Err(e) => tracing::warn!("cannot count the universe: {}", chain(&e)),
        }
    }
    let at = running.url().map_or_else(String::new, |url| format!(", API at {url}"));
    let store = match &config.store {
        config::Store::File(_) => String::new(),
        config::Store::Server(_) => format!(", store {}", config.store.location()),
    };
    out.remark(&format!(
        "watchbell is up: profile {}, {} workers, data in {}{store}{at}",
        config.profile.name,
        config.profile.workers.len(),
        config.data_dir.display()
    ));
    if args.watch {
        let (control, ask) = (std::sync::Arc::clone(&running.control), Ask::Status(watching()));
        tokio::select! {
            watched = execute(&ask, &*control, out) => { watched?; }
            () = signals.stop() => {}
        }
    } else {
        signals.stop().await;
    }
    running.stop("clean stop").await?;
    Ok(Exit::Ok)
}

fn watching() -> watchbell_cli::args::StatusArgs {
    watchbell_cli::args::StatusArgs { watch: true }
}

/// The node that serves the data directory, if one does.
async fn find_node(
    global: &Global,
    env: &Env,
) -> Result<Option<watchbell_api::HttpControl>, ControlError> {
    let config = load(global, env, None, None, false)?;
    Ok(discovery::connect(&config.data_dir, PROBE).await)
}

/// A question or an order: to the node that runs, or over the store when none does.
async fn asked(ask: &Ask, global: &Global, out: &mut Out) -> Result<Exit, ControlError> {
    let config = configured(global)?;
    if let Ask::Schedule(ask) = ask
        && scan::schedule::is_ours(ask, &config)
    {
        return Box::pin(scan::schedule::run(ask, config, out)).await;
    }
    if let Some(node) = discovery::connect(&config.data_dir, PROBE).await {
        return carry_out(ask, &node, out).await;
    }
    // What writes needs the directory to itself; what only reads does not.
    let writes = match ask {
        Ask::Run(args) | Ask::Schedule(watchbell_cli::args::ScheduleAsk::Run(args)) => {
            !args.dry_run
        }
        _ => false,
    };
    let held = if writes && config.data_dir.exists() {
        Some(installation::hold(&config.data_dir)?)
    } else {
        None
    };
    // A node that serves no API is known by the directory that it holds.
    let elsewhere = held.is_none() && installation::in_use(&config.data_dir);
    let control = compose::offline(config, elsewhere).await?;
    let ended = carry_out(ask, &control, out).await;
    control.close().await?;
    drop(held);
    ended
}

/// Carries out a question or an order. What goes on until it is interrupted ends in order then.
async fn carry_out(ask: &Ask, control: &dyn Control, out: &mut Out) -> Result<Exit, ControlError> {
    if !ask.follows() {
        return execute(ask, control, out).await;
    }
    let signals = Signals::listen()?;
    tokio::select! {
        ended = execute(ask, control, out) => ended,
        () = signals.stop() => Ok(Exit::Ok),
    }
}

fn configuration(
    command: &ConfigCommand,
    global: &Global,
    out: &mut Out,
) -> Result<Exit, ControlError> {
    if matches!(command, ConfigCommand::Schema) {
        let schema = config::schema();
        out.line(&format!("{schema:#}"));
        return Ok(Exit::Ok);
    }
    if matches!(command, ConfigCommand::Show { default: true }) {
        out.text(&config::default_yaml());
        return Ok(Exit::Ok);
    }
    let config = load(global, &environment()?, None, None, false)?;
    match command {
        ConfigCommand::Show { .. } => {
            let text = config.render(true);
            out.data(&config.effective(true), |_, _| text)?;
        }
        ConfigCommand::Check | ConfigCommand::Schema => {
            // Definitions are made as `up` makes them, so that their order is checked too.
            compose::definitions(&config)?;
            let file = config.file().map(|f| f.display().to_string());
            let answer = json!({
                "ok": true, "file": file, "profile": config.profile.name,
                "workers": config.profile.workers, "warnings": config.warnings,
            });
            out.data(&answer, |_, style| {
                let what = file.unwrap_or_else(|| "the defaults (no file)".into());
                let mut text = format!(
                    "{} {what}: profile {}, {} workers\n",
                    style.good("ok"),
                    config.profile.name,
                    config.profile.workers.len()
                );
                for warning in &config.warnings {
                    text.push_str(&format!("warning: {warning}\n"));
                }
                text
            })?;
        }
    }
    Ok(Exit::Ok)
}

async fn venue_sim(
    args: &VenueSimArgs,
    global: &Global,
    out: &mut Out,
) -> Result<Exit, ControlError> {
    let config = load(global, &environment()?, None, None, false)?;
    logging::start(&config.log, global.verbose, global.quiet);
    let faults: FaultScript =
        args.fault.join(" ; ").parse().map_err(|e: watchbell_venues::sim::FaultParseError| {
            ControlError::invalid(format!("--fault: {e}"))
        })?;
    let venue: Venue = args.venue.parse().map_err(|e| ControlError::invalid(chain(&e)))?;
    // The demonstration's few symbols are Binance's default; a scan of the others needs many.
    let assets = args.assets.or((venue != Venue::Binance).then_some(300));
    let market = match (&args.klines, assets) {
        (Some(dir), _) => Market::recorded(dir).map_err(|e| ControlError::invalid(chain(&e)))?,
        (None, Some(count)) => Market::synthetic_universe(args.seed, count.into()),
        (None, None) => Market::synthetic(args.seed, &watchbell_market::DEFAULT_SYMBOLS),
    };
    let market = std::sync::Arc::new(market);
    let wall = Clock::system();
    // Recorded candles are served as of their end: nothing is newer than what was recorded.
    let recorded = args.klines.is_some();
    let end = (0..market.symbols().len()).map(|i| market.span(i).1).max();
    let clock = match end.filter(|_| recorded) {
        Some(end) => Clock::scaled(end, args.speed),
        None if args.speed == 1.0 => wall,
        None => Clock::scaled(wall.now(), args.speed),
    };
    let signals = Signals::listen()?;
    let symbols: Vec<String> = market.symbols().iter().map(|s| s.name.clone()).collect();
    let kind = market.kind();
    let simulator = VenueSim::start(VenueSimConfig {
        venue,
        bind: args.bind,
        market,
        clock,
        faults,
        limits: VenueLimits::OfVenue,
    })
    .await
    .map_err(|e| ControlError::unavailable(chain(&e)))?;
    let mut answer = json!({
        "venue": venue, "url": simulator.base_url(), "market": kind, "symbols": symbols,
    });
    if let Some(streams) = simulator.ws_url() {
        answer["streams"] = json!(streams);
    }
    out.data(&answer, |_, _| {
        let listed = match symbols.len() {
            0..=20 => symbols.join(", "),
            n => format!("{n} assets"),
        };
        let beside = match simulator.ws_url() {
            Some(url) => format!("streams at {url}"),
            None => format!("as {venue}"),
        };
        let url = simulator.base_url();
        format!("venue-sim: {kind} market of {listed} at {url} ({beside}); Ctrl-C stops\n")
    })?;
    signals.stop().await;
    simulator.shutdown().await;
    Ok(Exit::Ok)
}
