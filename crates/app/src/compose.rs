//! Where everything meets: from a configuration to a running node.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::sync::oneshot;
use watchbell_api::discovery::NodeFile;
use watchbell_api::{Control, ControlError, Reason};
use watchbell_cli::print::count;
use watchbell_clock::Clock;
use watchbell_core::port::{self, SessionRecord, Store};
use watchbell_core::{Definition, SessionId, Time, Trigger, Worker, WorkerName};
use watchbell_db::Database;
use watchbell_engine::health::{HealthScan, Housekeeping};
use watchbell_engine::{Artifacts, Node, Options};
use watchbell_exec::{ExecWorker, Programs, Reaper};
use watchbell_market::CallLog;
use watchbell_market::ops::{self, Boot};
use watchbell_server::Bound;
use watchbell_venues::binance::{self, BinanceClient};

use crate::config::{self, Catalog, Config, ConfigError, Market, Scan};
use crate::demo::{self, Marker};
use crate::installation::{self, Held, Opened};
use crate::local::{LocalControl, Parts};
use crate::upkeep::Mark;

/// Workers and their definitions, with the configuration's overrides applied.
pub(crate) type Workers = Vec<(Definition, Arc<dyn Worker>)>;

/// A node that runs, with everything that must outlive it.
pub(crate) struct Running {
    pub(crate) node: Node,
    pub(crate) control: Arc<LocalControl>,
    pub(crate) opened: Opened,
    pub(crate) session: SessionRecord,
    http: Option<(Bound, oneshot::Sender<()>)>,
    held: Held,
    data_dir: std::path::PathBuf,
    clock: Clock,
}

/// The name of every worker that a market of that shape and those jobs of scans lead to, and the
/// built-in profiles. Scans are wanted by default where somebody has written their jobs down.
pub(crate) fn catalog(market: &Market, scan: &Scan) -> Catalog {
    let of_market = watchbell_market::definitions(&self::market(market));
    let own = [watchbell_engine::health::HEALTH_SCAN, watchbell_engine::health::HOUSEKEEPING];
    let market: Vec<WorkerName> = of_market.into_iter().map(|d| d.name).collect();
    let scans: Vec<WorkerName> = scan.config.jobs.iter().map(|j| j.name.clone()).collect();
    let own: Vec<WorkerName> = own.into_iter().map(WorkerName::from).collect();
    let together = |parts: &[&[WorkerName]]| parts.concat();
    let all = together(&[&market, &scans, &own]);
    let default = if scan.from_file { all.clone() } else { together(&[&market, &own]) };
    let profiles = [
        ("default".to_owned(), default),
        ("all".to_owned(), all.clone()),
        ("scan".to_owned(), together(&[&scans, &own])),
        ("market".to_owned(), market),
    ];
    Catalog { workers: all, profiles: profiles.into() }
}

/// The venue client of a configuration.
pub(crate) fn client(
    config: &Config,
    clock: &Clock,
    log: &CallLog,
) -> Result<BinanceClient, ControlError> {
    let log = log.clone();
    let settings = binance::Config {
        base_url: config.venue.base_url.clone(),
        alternates: config.venue.alternates.clone(),
        ws_base_url: config.venue.ws_url.clone(),
        request_timeout: config.venue.request_timeout,
        weight_limit_fraction: config.venue.weight_fraction,
        backfill_limit_fraction: config.venue.weight_fraction * 0.75,
        ..binance::Config::default()
    };
    let client = BinanceClient::new(settings, clock.clone(), Some(Arc::new(move |r| log.note(r))))
        .map_err(|e| ControlError::invalid(Reason::from(e.to_string())))?;
    Ok(match &config.venue.credentials {
        Some(credentials) => client.with_credentials(credentials.clone()),
        None => client,
    })
}

/// The market of a configuration, and the account that is read beside it.
pub(crate) fn market_and_account(config: &Config) -> watchbell_market::Config {
    let mut whole = market(&config.market);
    if config.venue.credentials.is_some() {
        whole.account.unavailable = None;
    }
    if let Some(scope) = &config.venue.account {
        whole.account.scope.clone_from(scope);
    }
    whole
}

/// The market of a configuration.
fn market(market: &Market) -> watchbell_market::Config {
    watchbell_market::Config {
        windows: market.windows.clone(),
        settle: market.sampling.settle,
        sync_interval: market.sync_interval,
        poll: market.sampling.poll,
        sampling: market.sampling.enabled,
        max_gaps_per_run: market.repair.max_gaps_per_run,
        hole_after: market.repair.hole_after,
        trades: watchbell_market::TradesConfig {
            enabled: market.trades,
            ..watchbell_market::TradesConfig::default()
        },
        matrices: watchbell_market::matrices::Config {
            refresh: market.matrices.0,
            keep: market.matrices.1,
        },
        mood: watchbell_market::mood::MoodConfig {
            window: market.mood.window,
            symbol_limit: market.mood.symbols as usize,
            params: market.mood.params,
        },
        retention: market.retention,
        mea: watchbell_market::mea::Config { k: market.mea.k, pair: market.mea.pair.clone() },
        validation_interval: market.validation_interval,
        streams: watchbell_market::StreamsConfig {
            interval: market.runner.interval,
            session: market.runner.session.clone(),
            thresholds: market.runner.thresholds,
            ..watchbell_market::StreamsConfig::default()
        },
        ..watchbell_market::Config::default()
    }
}

/// The definition of every worker, with the configuration's overrides applied. Opens nothing, so
/// that a configuration is checked before anything is touched.
pub(crate) fn definitions(config: &Config) -> Result<Vec<Definition>, ControlError> {
    let mut all = watchbell_market::definitions(&market_and_account(config));
    all.extend(watchbell_scan::definitions(&config.scan.config));
    all.push(Housekeeping::definition().map_err(|e| ControlError::internal(e.to_string()))?);
    all.push(HealthScan::definition(config.node.health_scan));
    all.extend(config.programs.iter().map(|p| p.definition.clone()));
    if !config.programs.is_empty() {
        all.push(Reaper::definition());
    }
    config.apply_overrides(all).map_err(|e| invalid(&e))
}

/// Every worker of the installation, in the order of [`definitions`].
pub(crate) fn workers(
    config: &Config,
    store: &Arc<dyn Store>,
    db: &Database,
    client: &BinanceClient,
    clock: &Clock,
    log: CallLog,
) -> Result<Workers, ControlError> {
    let definitions = definitions(config)?;
    let mut all = watchbell_market::workers(&market_and_account(config), db, client, log);
    let scans = watchbell_scan::workers(&config.scan.config, db, clock);
    all.extend(scans.map_err(|e| ControlError::invalid(watchbell_core::chain(&e)))?);
    let keep = port::Retention {
        cycles: config.retention.cycles,
        occurrences: config.retention.occurrences,
        events: config.retention.events,
        jobs: config.retention.jobs,
    };
    let artifacts = Artifacts::new(options(config).artifacts);
    let housekeeping = Housekeeping::new(Arc::clone(store), artifacts, keep)
        .map_err(|e| ControlError::internal(e.to_string()))?;
    all.push(Arc::new(housekeeping));
    let every = config.node.health_scan;
    all.push(Arc::new(HealthScan::new(Arc::clone(store), every, &definitions)));
    let programs = Programs::new(&config.data_dir, clock.clone());
    for own in &config.programs {
        let changed = definitions.iter().find(|d| d.name == own.definition.name);
        let definition = changed.unwrap_or(&own.definition).clone();
        all.push(Arc::new(ExecWorker::new(definition, own.spec.clone(), Arc::clone(&programs))));
    }
    if !config.programs.is_empty() {
        all.push(Arc::new(Reaper::new(programs)));
    }
    Ok(definitions.into_iter().zip(all).collect())
}

/// A configuration error, for the operator.
pub(crate) fn invalid(error: &ConfigError) -> ControlError {
    ControlError::invalid(Reason::from(error.to_string()))
}

/// The engine's options of a configuration.
pub(crate) fn options(config: &Config) -> Options {
    let mut options = Options::new(&config.data_dir);
    options.exclusive = matches!(config.store, config::Store::File(_));
    options.profile_name.clone_from(&config.profile.name);
    options.lease_ttl = config.node.lease_ttl;
    options.lease_renew = config.node.lease_renew;
    options.stop_grace = config.node.stop_grace;
    options.abort_grace = config.node.abort_grace;
    options
}

/// A new boot.
pub(crate) fn session(now: Time) -> SessionRecord {
    let host = host();
    let pid = std::process::id();
    SessionRecord {
        id: SessionId::from(format!("{host}-{pid}-{:x}", now.0)),
        app_name: "watchbell".into(),
        app_version: env!("CARGO_PKG_VERSION").into(),
        host,
        pid: pid.into(),
        opened_at: now,
        closed_at: None,
        note: "started".into(),
    }
}

/// The name of this machine.
pub(crate) fn host() -> String {
    // Only a label: where the kernel does not tell, the environment may, and else none is needed.
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let named = kernel.or_else(|| std::env::var("HOSTNAME").ok());
    named
        .map(|n| n.trim().to_owned())
        .filter(|n| !n.is_empty())
        .unwrap_or_else(|| "localhost".into())
}

/// What to run beside the configuration.
pub(crate) struct Run {
    pub(crate) clock: Clock,
    /// Only the workers that a clock starts.
    pub(crate) only_timed: bool,
    /// Where the market's history begins.
    pub(crate) history_from: Time,
    /// Which simulated market the store is for; none for the real one.
    pub(crate) simulated: Option<serde_json::Value>,
    /// Goes on with a store that was moved away.
    pub(crate) force: bool,
}

/// The setting that says so in the store itself, so that a copy of the file knows it too.
pub(crate) const SIMULATED: &str = "simulated-market";

/// An installation that is open and has no node yet. Dropped, it leaves nothing behind.
pub(crate) struct Ready<'a> {
    config: &'a Config,
    run: Run,
    held: Held,
    opened: Opened,
    now: Time,
}

/// Opens the installation, and waits for its store as long as it takes.
pub(crate) async fn open(config: &Config, run: Run) -> Result<Ready<'_>, ControlError> {
    let now = run.clock.now();
    let held = installation::hold(&config.data_dir)?;
    let opened = installation::open_patiently(config, &run.clock).await?;
    let now = run.clock.now().max(now);
    refuse_half(config, &opened, run.force).await?;
    Ok(Ready { config, run, held, opened, now })
}

impl Ready<'_> {
    /// Starts the node. Once begun this goes on to its end, for a node that has started has to be
    /// stopped in order. On an error nothing is left running.
    pub(crate) async fn start(self) -> Result<Running, ControlError> {
        let Ready { config, run, held, opened, now } = self;
        let Run { clock, only_timed, history_from, simulated, force: _ } = run;
        same_market(&*opened.store, simulated, config, now).await?;
        let market = &config.market;
        watchbell_market::seed(&opened.db, &market.symbols, &market.windows, history_from, now)
            .await
            .map_err(|e| ControlError::invalid(watchbell_core::chain(&e)))?;
        let log = CallLog::default();
        let client = client(config, &clock, &log)?;
        restore_ban(&*opened.store, &client, now).await?;
        let workers = workers(config, &opened.store, &opened.db, &client, &clock, log)?;
        end_forgotten(config, &clock).await?;
        // A job that is switched off is started by no clock, but by hand.
        let is_job = |name: &WorkerName| config.scan.config.jobs.iter().any(|j| j.name == *name);
        let timed = |name: &WorkerName| {
            let def = workers.iter().find(|(d, _)| d.name == *name);
            is_job(name)
                || def.is_some_and(|(d, _)| {
                    matches!(
                        d.trigger,
                        Trigger::Every { .. } | Trigger::Cron(_) | Trigger::Window(_)
                    )
                })
        };
        let profile: BTreeSet<WorkerName> =
            config.profile.workers.iter().filter(|n| !only_timed || timed(n)).cloned().collect();
        let mut options = options(config);
        options.profile = Some(profile);
        let bind = http_address(config)?;
        options.api = bind.map(|bind| format!("http://{bind}"));
        let session = session(now);
        let node = Node::start(
            Arc::clone(&opened.store),
            clock.clone(),
            session.clone(),
            workers.clone(),
            options.clone(),
        )
        .await
        .map_err(|e| ControlError::unavailable(watchbell_core::chain(&e)))?;
        if let Some(what) = taken_back(&node.recovered) {
            tracing::warn!("the last run ended without a stop: {what} were taken back");
        }
        for (worker, need) in &node.softened {
            tracing::warn!(
                "{worker} needs {need}, which the profile leaves out: it starts without"
            );
        }
        for path in &node.reconciled.missing {
            if options.exclusive {
                tracing::error!("the files of artifact {path} are gone: publish it again");
            } else {
                tracing::debug!("the files of artifact {path} are not on this node");
            }
        }
        let boot = Boot {
            session: &session.id,
            version: &session.app_version,
            recovered: taken_back(&node.recovered),
            profile: &config.profile.name,
        };
        if let Err(e) = ops::booted(&opened.db, &boot, now).await {
            node.shutdown("could not note its boot")
                .await
                .map_err(|e| ControlError::unavailable(watchbell_core::chain(&e)))?;
            return Err(installation::trouble(&e));
        }
        let parts = Parts {
            store: Arc::clone(&opened.store),
            db: opened.db.clone(),
            clock: clock.clone(),
            workers,
            engine: Some(node.handle()),
            softened: node.softened.clone(),
            elsewhere: false,
            session: Some(session.clone()),
            data_dir: config.data_dir.clone(),
            profile: Some(config.profile.name.clone()),
            host: session.host.clone(),
            venue: Some((client, config.venue.base_url.clone())),
            options,
        };
        let mut running = Running {
            node,
            control: Arc::new(LocalControl::new(parts)),
            opened,
            session,
            http: None,
            held,
            data_dir: config.data_dir.clone(),
            clock,
        };
        if let Some(bind) = bind
            && let Err(e) = running.serve(bind, config).await
        {
            running.stop("could not serve its API").await?;
            return Err(e);
        }
        Ok(running)
    }
}

/// What a boot that ended without a stop left behind, if one did.
fn taken_back(r: &port::Recovered) -> Option<String> {
    (*r != port::Recovered::default()).then(|| {
        let n = |n: u64, one, many| count(i64::try_from(n).unwrap_or(i64::MAX), one, many);
        let (cycles, windows) = (n(r.cycles, "cycle", "cycles"), n(r.windows, "window", "windows"));
        format!("{cycles}, {windows} and {}", n(r.jobs, "job", "jobs"))
    })
}

/// Refuses half a copy, and a store that was left behind unless forced.
async fn refuse_half(config: &Config, opened: &Opened, force: bool) -> Result<(), ControlError> {
    let mark = Mark::read(&*opened.store).await?;
    let refusal = mark.and_then(|mark| mark.refusal(&config.store.location(), force));
    refusal.map_or(Ok(()), Err)
}

/// Where the API will answer, if it is served: other nodes are told before it does, so a port that
/// the system may choose is chosen now.
fn http_address(config: &Config) -> Result<Option<SocketAddr>, ControlError> {
    let bind = config.http.bind;
    if !config.http.enabled || bind.port() != 0 {
        return Ok(config.http.enabled.then_some(bind));
    }
    let free = TcpListener::bind(bind).and_then(|listener| listener.local_addr());
    free.map(Some)
        .map_err(|e| ControlError::unavailable(format!("cannot serve on {bind}")).because(&e))
}

/// Programs whose workers are no longer configured, so that no worker of theirs ends them.
async fn end_forgotten(config: &Config, clock: &Clock) -> Result<(), ControlError> {
    if config.programs.is_empty() {
        let programs = Programs::new(&config.data_dir, clock.clone());
        programs.sweep(clock.now()).await.map_err(|e| {
            ControlError::unavailable("cannot look for programs of an earlier run").because(&e)
        })?;
    }
    Ok(())
}

/// Simulated and real candles never meet in one store.
async fn same_market(
    store: &dyn Store,
    simulated: Option<serde_json::Value>,
    config: &Config,
    now: Time,
) -> Result<(), ControlError> {
    let failed = |e| ControlError::unavailable(watchbell_core::chain(&e));
    match (store.setting(SIMULATED).await.map_err(failed)?, simulated) {
        (Some(known), Some(market)) if known == market => Ok(()),
        (Some(_), _) => Err(demo::simulated(&format!("the store {}", config.store.location()))),
        (None, Some(market)) => store.set_setting(SIMULATED, market, now).await.map_err(failed),
        (None, None) => Ok(()),
    }
}

/// A ban outlives the process that earned it.
async fn restore_ban(
    store: &dyn Store,
    client: &BinanceClient,
    now: Time,
) -> Result<(), ControlError> {
    let conditions = store
        .conditions()
        .await
        .map_err(|e| ControlError::unavailable(watchbell_core::chain(&e)))?;
    let until = conditions
        .into_iter()
        .find(|(c, _)| c.name == watchbell_market::VENUE && !c.met)
        .and_then(|(c, _)| c.until);
    if let Some(until) = until.filter(|t| *t > now) {
        client.restore_ban(until);
    }
    Ok(())
}

impl Running {
    async fn serve(&mut self, bind: SocketAddr, config: &Config) -> Result<(), ControlError> {
        let (stop, stopped) = oneshot::channel::<()>();
        let options = watchbell_server::Options {
            data_dir: Some(config.data_dir.clone()),
            ..watchbell_server::Options::default()
        };
        let bound = watchbell_server::serve(
            bind,
            Arc::clone(&self.control) as Arc<dyn Control>,
            options,
            async move {
                // Dropping the sender stops the server as well as sending does.
                drop(stopped.await);
            },
        )
        .await
        .map_err(|e| ControlError::unavailable(watchbell_core::chain(&e)))?;
        let url = bound.url();
        self.control.serving_at(url.clone());
        let file = NodeFile {
            pid: std::process::id(),
            url,
            session: self.session.id.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: self.session.opened_at,
        };
        self.http = Some((bound, stop));
        file.write(&config.data_dir)
            .map_err(|e| ControlError::unavailable(watchbell_core::chain(&e)))
    }

    /// Where the API answers, if it does.
    pub(crate) fn url(&self) -> Option<String> {
        self.http.as_ref().map(|(bound, _)| bound.url())
    }

    /// Stops in order: no new requests, workers in reverse order, the session, the store.
    pub(crate) async fn stop(self, note: &str) -> Result<(), ControlError> {
        NodeFile::remove(&self.data_dir, &self.session.id)
            .map_err(|e| ControlError::internal(watchbell_core::chain(&e)))?;
        if let Some((bound, stop)) = self.http {
            drop(stop);
            bound.stopped().await.map_err(|e| ControlError::internal(watchbell_core::chain(&e)))?;
        }
        let now = self.clock.now();
        if let Err(e) = ops::stopping(&self.opened.db, &self.session.id, note, now).await {
            // A store that is away is no reason to stop in disorder.
            tracing::warn!("cannot note the stop: {}", watchbell_core::chain(&e));
        }
        self.node
            .shutdown(note)
            .await
            .map_err(|e| ControlError::unavailable(watchbell_core::chain(&e)))?;
        self.opened.db.close().await.map_err(|e| installation::trouble(&e))?;
        tracing::debug!("stopped at {}", self.clock.now());
        drop(self.held);
        Ok(())
    }
}

/// The control of an installation that no node runs: over the store alone.
pub(crate) async fn offline(
    mut config: Config,
    elsewhere: bool,
) -> Result<LocalControl, ControlError> {
    let mut clock = Clock::system();
    let demo = Marker::read(&config.data_dir)?;
    if demo.is_some() {
        config.venue = demo::no_venue(&config.venue);
        config.store.obey_caller();
    }
    let opened = installation::open_existing(&config, clock.now()).await?;
    // What was left behind may still be looked at.
    refuse_half(&config, &opened, true).await?;
    if let Some(marker) = demo {
        clock = Clock::scaled(marker.last_known(&*opened.store).await?, 1.0);
    }
    let log = CallLog::default();
    let client = client(&config, &clock, &log)?;
    let workers = workers(&config, &opened.store, &opened.db, &client, &clock, log)?;
    Ok(LocalControl::new(Parts {
        store: opened.store,
        db: opened.db,
        clock,
        workers,
        engine: None,
        softened: Vec::new(),
        elsewhere,
        session: None,
        data_dir: config.data_dir.clone(),
        profile: None,
        host: host(),
        venue: Some((client, config.venue.base_url.clone())),
        options: options(&config),
    }))
}
