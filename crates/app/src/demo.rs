//! `demo`: the main job on a simulated market. The venue simulator serves on loopback, the node is
//! the one that `up` runs, and only the clock is faster.
//!
//! A data directory that a demonstration made is marked, so that simulated and real candles never
//! meet in one store.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use watchbell_api::{Control, ControlError, Reason};
use watchbell_cli::args::{DemoArgs, HttpArgs};
use watchbell_cli::{Exit, Out, Progress, print};
use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::port::{self, EventQuery};
use watchbell_core::{EventRecord, Millis, Time, chain, window};
use watchbell_venues::binance::Credentials;
use watchbell_venues::sim::{
    Account, FaultScript, Limits, Market, SimConfig, Simulator, TEST_KEY, TEST_SECRET,
};

use crate::compose::{self, Run, Running};
use crate::config::{Config, Store, Venue};
use crate::installation::{self, Opener};
use crate::signals::Signals;

/// Where a demonstration lives unless told otherwise.
pub(crate) const DATA_DIR: &str = "watchbell-demo";
const MARKER: &str = "demo.json";
/// Days that are caught up unless told otherwise.
const DAYS: u32 = 7;
/// Of a recording, this much is played live.
const PLAYED_LIVE: Millis = Millis::from_hours(6);
/// A stopped demonstration's market goes on, but not for longer than this.
const LONGEST_PAUSE: Millis = Millis::from_hours(6);
/// How often progress and completed windows are looked at, in real time.
const LOOK: Millis = Millis(200);

/// What a data directory of a demonstration says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Marker {
    /// Seed of the synthetic market; none for recorded klines.
    seed: Option<u64>,
    /// Where the recorded klines are.
    klines: Option<PathBuf>,
    /// Real time at the newest start.
    wall: Time,
    /// The market's time at the newest start.
    market: Time,
    /// How fast the market runs.
    speed: f64,
    /// The market's time from which on the simulated account trades: that of the first start. A copy of
    /// a store does not say it; there the account begins with the copy.
    #[serde(default)]
    account: Option<Time>,
}

impl Marker {
    /// The marker of a data directory, if a demonstration made it.
    pub(crate) fn read(data_dir: &Path) -> Result<Option<Self>, ControlError> {
        let path = data_dir.join(MARKER);
        match fs::read(&path) {
            // What stands in the way of the directory itself is said where it is made.
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                Ok(None)
            }
            Err(e) => Err(unreadable(&path).because(&e)),
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|e| unreadable(&path).because(&e))
            }
        }
    }

    fn write(&self, data_dir: &Path) -> Result<(), ControlError> {
        let path = data_dir.join(MARKER);
        let staged = data_dir.join(".demo.json");
        let write = || {
            fs::create_dir_all(data_dir)?;
            fs::write(&staged, serde_json::to_vec_pretty(self)?)?;
            fs::rename(&staged, &path)
        };
        write().map_err(|e: io::Error| {
            ControlError::unavailable(format!("cannot write {}", path.display()))
                .because(&e)
                .help("choose a directory that you may write with --data-dir DIR")
        })
    }

    /// The newest instant of the market that the store has seen.
    pub(crate) async fn last_known(&self, store: &dyn port::Store) -> Result<Time, ControlError> {
        let failed = |e| ControlError::unavailable(chain(&e));
        let workers = store.workers().await.map_err(failed)?;
        let seen =
            workers.iter().flat_map(|w| [w.last_started_at, w.last_completed_at, w.state_since]);
        Ok(seen.flatten().max().map_or(self.market, |t| t.max(self.market)))
    }

    /// What one market's setting in a store says.
    fn setting(&self) -> serde_json::Value {
        serde_json::json!({ "seed": self.seed, "klines": self.klines })
    }

    /// For a store without a marker beside it: a restored copy of this market's, which goes on where
    /// it was. Any other store is left alone.
    async fn restored(self, config: &Config) -> Result<Self, ControlError> {
        let opened = installation::open(config, Opener::Command, self.wall).await?;
        let known = opened.store.setting(compose::SIMULATED).await;
        let known = known.map_err(|e| ControlError::unavailable(chain(&e)))?;
        let market = self.last_known(&*opened.store).await?;
        opened.db.close().await.map_err(|e| installation::trouble(&e))?;
        if known != Some(self.setting()) {
            return Err(ControlError::conflict(format!(
                "the store {} is not this demonstration's",
                config.store.location()
            ))
            .help("choose another data directory with --data-dir DIR, or another store.url"));
        }
        Ok(Self { market, ..self })
    }

    /// Where the market goes on at a new start: it ran on while the demonstration was stopped, but
    /// not for long.
    fn resume(&self, last_known: Time, wall: Time) -> Time {
        let away = (wall - self.wall).0.max(0) as f64 * self.speed;
        let now = self.market + Millis(away as i64);
        now.clamp(last_known, last_known + LONGEST_PAUSE)
    }
}

fn unreadable(path: &Path) -> ControlError {
    ControlError::unavailable(format!("cannot read {}", path.display()))
        .help("it says which market this demonstration has: remove the directory to begin anew")
}

/// Refuses to do real work in the data directory of a demonstration.
pub(crate) fn refuse_simulated(data_dir: &Path) -> Result<(), ControlError> {
    match Marker::read(data_dir)? {
        None => Ok(()),
        Some(_) => Err(simulated(&format!("the data directory {}", data_dir.display()))),
    }
}

/// Why real work does not go on here.
pub(crate) fn simulated(what: &str) -> ControlError {
    ControlError::conflict(format!("{what} belongs to a demonstration: its market is simulated"))
        .help("use `watchbell demo`, another directory with --data-dir DIR, or another store.url")
}

/// No venue: for commands on a demonstration that does not run.
pub(crate) fn no_venue(venue: &Venue) -> Venue {
    Venue {
        base_url: "http://127.0.0.1:9".into(),
        alternates: Vec::new(),
        ws_url: "ws://127.0.0.1:9".into(),
        credentials: test_account().ok(),
        ..venue.clone()
    }
}

/// The key of the simulated account.
fn test_account() -> Result<Credentials, ControlError> {
    Credentials::new(TEST_KEY, TEST_SECRET).map_err(|e| ControlError::internal(chain(&e)))
}

/// Runs the demonstration.
pub(crate) async fn run(
    args: &DemoArgs,
    mut config: Config,
    out: &mut Out,
    signals: &Signals,
) -> Result<Exit, ControlError> {
    let faults: FaultScript = args
        .fault
        .join(" ; ")
        .parse()
        .map_err(|e| ControlError::invalid(Reason::from(format!("--fault: {e}"))))?;
    if let Store::Server(options) = &mut config.store {
        // The market's clock runs faster than the server's: it decides what is due, also there. Of
        // its seconds a lease must last for some more, since renewing takes real time.
        options.caller_clock = true;
        let longer = |span: Millis| Millis((span.0 as f64 * args.speed.clamp(1.0, 10.0)) as i64);
        let node = &mut config.node;
        (node.lease_ttl, node.lease_renew) = (longer(node.lease_ttl), longer(node.lease_renew));
    }
    let market = Arc::new(open_market(args)?);
    let span = span(&market);
    let wall = Clock::system().now();
    let (marker, history_from) = place(args, &config, &market, span, wall).await?;
    marker.write(&config.data_dir)?;
    let target = marker.market;
    let clock = Clock::scaled(target, args.speed);
    let venue = Simulator::start(SimConfig {
        bind: SocketAddr::from(([127, 0, 0, 1], 0)),
        market: Arc::clone(&market),
        clock: clock.clone(),
        faults,
        limits: Limits::default(),
    })
    .await
    .map_err(|e| ControlError::unavailable(chain(&e)))?;
    if let Some(since) = marker.account {
        venue.set_account(Account::standard(since));
    }
    config.venue.base_url = venue.base_url();
    config.venue.ws_url = venue.ws_url();
    config.venue.alternates = Vec::new();
    config.venue.credentials = Some(test_account()?);
    config.market.symbols = market.symbols().iter().map(|s| s.name.clone()).collect();
    apply_http(&args.http, &mut config);
    let progress = Progress::fitting(out.quiet || out.json);
    progress.say(&format!(
        "watchbell demo: {} market of {} symbols at {} times the pace of the wall; data in {}",
        market.kind(),
        market.symbols().len(),
        args.speed,
        config.data_dir.display()
    ));
    let simulated = Some(marker.setting());
    let clock_of_market = clock.clone();
    let run =
        Run { clock: clock_of_market, only_timed: false, history_from, simulated, force: false };
    let lengths = config.market.windows.clone();
    let running = compose::open(&config, run).await?.start().await?;
    let ended = show(args, &running, &clock, &lengths, target, span, &progress, out, signals).await;
    running.stop("demonstration stopped").await?;
    venue.shutdown().await;
    ended
}

/// Catches up, then shows what is completed until it is told to stop.
#[expect(clippy::too_many_arguments, reason = "called once, by the function that owns the parts")]
async fn show(
    args: &DemoArgs,
    running: &Running,
    clock: &Clock,
    lengths: &[Millis],
    target: Time,
    span: (Time, Time),
    progress: &Progress,
    out: &mut Out,
    signals: &Signals,
) -> Result<Exit, ControlError> {
    let watch = Stopwatch::start();
    // A recording that was played to its end before has nothing newer to wait for.
    let known_until = target.min(span.1 + Millis::from_mins(1));
    tokio::select! {
        done = catch_up(running, lengths, known_until, progress) => done?,
        () = signals.stop() => return Ok(Exit::Ok),
    }
    progress.say(&format!("caught up with {target} in {}", watch.millis()));
    if args.once {
        let status = running.control.status().await?;
        out.data(&status, print::status::status)?;
        return Ok(Exit::Ok);
    }
    let dir = running.control.node().await?.data_dir;
    progress.say(&format!("live. In another terminal: watchbell status --data-dir {dir}"));
    if let Some(url) = running.url() {
        progress.say(&format!("the API answers at {url}; Ctrl-C stops"));
    }
    let store = &running.opened.store;
    let mut after = newest_event(&**store).await?;
    let wall = Clock::system();
    loop {
        tokio::select! {
            () = signals.stop() => return Ok(Exit::Ok),
            () = wall.sleep(LOOK) => {}
        }
        for event in events_after(&**store, after).await? {
            after = event.id;
            out.data_line(&event, |e, _| line(e))?;
        }
        if args.klines.is_some() && clock.now() > span.1 + Millis::from_mins(5) {
            progress.say("the recording is over; everything that it has is computed");
            return Ok(Exit::Ok);
        }
    }
}

fn open_market(args: &DemoArgs) -> Result<Market, ControlError> {
    match &args.klines {
        None => Ok(Market::synthetic(args.seed, &watchbell_market::DEFAULT_SYMBOLS)),
        Some(dir) => {
            Market::recorded(dir).map_err(|e| ControlError::invalid(Reason::from(chain(&e))))
        }
    }
}

/// First and last instant of the market, over all symbols.
fn span(market: &Market) -> (Time, Time) {
    let spans = (0..market.symbols().len()).map(|i| market.span(i));
    spans
        .fold((Time::FAR_FUTURE, Time(i64::MIN / 4)), |(a, b), (from, to)| (a.min(from), b.max(to)))
}

/// Decides when the market is, and from where its history is wanted.
async fn place(
    args: &DemoArgs,
    config: &Config,
    market: &Market,
    span: (Time, Time),
    wall: Time,
) -> Result<(Marker, Time), ControlError> {
    let seed = args.klines.is_none().then_some(args.seed);
    let klines = args.klines.as_ref().map(|dir| dir.canonicalize().unwrap_or_else(|_| dir.clone()));
    let mut known = Marker::read(&config.data_dir)?;
    let exists = installation::exists(config).await?;
    if known.is_none() && exists {
        let fresh = Marker {
            seed,
            klines: klines.clone(),
            wall,
            market: span.0,
            speed: args.speed,
            account: None,
        };
        known = Some(fresh.restored(config).await?);
    }
    let now = match &known {
        Some(m) if (m.seed, &m.klines) != (seed, &klines) => {
            return Err(ControlError::conflict(format!(
                "the data directory {} holds the demonstration of another market",
                config.data_dir.display()
            ))
            .help("remove it to begin anew, or choose another one with --data-dir DIR"));
        }
        Some(m) if exists => {
            let opened = installation::open(config, Opener::Command, wall).await?;
            let last = m.last_known(&*opened.store).await?;
            opened.db.close().await.map_err(|e| installation::trouble(&e))?;
            m.resume(last, wall)
        }
        _ => match (&klines, args.once) {
            (None, _) => wall.floor(Millis::from_mins(1)),
            (Some(_), true) => span.1 + Millis::from_mins(1),
            (Some(_), false) => (span.1 - PLAYED_LIVE).max(span.0),
        },
    };
    let longest = Millis::from_hours(3);
    let from = match (args.days, &klines) {
        (None, Some(_)) => span.0,
        (days, _) => (now - Millis::from_days(days.unwrap_or(DAYS).into())).max(span.0),
    };
    if from > now {
        return Err(ControlError::invalid(format!(
            "the {} market begins only at {from}",
            market.kind()
        )));
    }
    let account = known.and_then(|m| m.account).or(Some(now.floor(Millis::from_mins(1))));
    let marker = Marker { seed, klines, wall, market: now, speed: args.speed, account };
    Ok((marker, from.floor(longest)))
}

fn apply_http(args: &HttpArgs, config: &mut Config) {
    config.http.enabled &= !args.no_http;
    if let Some(port) = args.http_port {
        config.http.bind.set_port(port);
    }
}

/// Waits until every candle before `target` is stored or known to be missing, and every window
/// before it is complete or abandoned.
async fn catch_up(
    running: &Running,
    lengths: &[Millis],
    target: Time,
    progress: &Progress,
) -> Result<(), ControlError> {
    let db = &running.opened.db;
    let store = &running.opened.store;
    let failed = |e: watchbell_db::DbError| installation::trouble(&e);
    let until = target.floor(Millis::from_mins(1)) - Millis::from_mins(1);
    let candles = progress.step("candles", 1, "minutes");
    let windows = progress.step("windows", 1, "windows");
    let wall = Clock::system();
    loop {
        let coverage = watchbell_market::coverage(db).await.map_err(failed)?;
        let gaps = watchbell_market::holes(db).await.map_err(failed)?;
        let minutes = |from: Time, to: Time| ((to - from).0.max(0) / 60_000) as u64;
        let wanted: u64 = coverage.iter().map(|c| minutes(c.wanted_from, until)).sum();
        let known: u64 = coverage
            .iter()
            .map(|c| c.until.map_or(0, |u| minutes(c.wanted_from, u.min(until))))
            .sum();
        candles.total(wanted);
        candles.set(known);
        let pending = gaps.iter().any(|g| g.state == "pending" && g.from < until);
        let known_all = known >= wanted && !pending;

        let series = store.series().await.map_err(|e| ControlError::unavailable(chain(&e)))?;
        let (mut expected, mut done) = (0, 0);
        for length in lengths {
            let wanted =
                watchbell_market::expected_windows(db, *length, until).await.map_err(failed)?;
            for name in watchbell_market::chain(*length) {
                let counts = series.get(name.as_str()).map(|s| &s.counts);
                let count = |state| counts.and_then(|c| c.get(&state)).copied().unwrap_or(0) as u64;
                done += count(window::State::Complete) + count(window::State::Abandoned);
                expected += wanted;
            }
        }
        // Windows that end meanwhile are computed as well.
        windows.total(expected.max(done).max(1));
        windows.set(done);
        if known_all && done >= expected {
            candles.finish(&format!("{known} symbol minutes known"));
            windows.finish(&format!("{done} finished"));
            return Ok(());
        }
        wall.sleep(LOOK).await;
    }
}

async fn newest_event(store: &dyn port::Store) -> Result<i64, ControlError> {
    let query = EventQuery { after: None, kinds: Vec::new(), limit: 1 };
    let newest = store.events(query).await.map_err(|e| ControlError::unavailable(chain(&e)))?;
    Ok(newest.last().map_or(0, |e| e.id))
}

async fn events_after(
    store: &dyn port::Store,
    after: i64,
) -> Result<Vec<EventRecord>, ControlError> {
    let query = EventQuery {
        after: Some(after),
        kinds: ["window.*", "klines.gap", "klines.hole", "klines.repaired", "worker.state"]
            .map(str::to_owned)
            .into(),
        limit: 1_000,
    };
    store.events(query).await.map_err(|e| ControlError::unavailable(chain(&e)))
}

/// One event for a person.
fn line(event: &EventRecord) -> String {
    let text = |key: &str| event.payload.get(key).and_then(|v| v.as_str()).unwrap_or("");
    let at = event.at;
    match event.kind.as_str() {
        "window.completed" => {
            let hash = text("result_hash");
            format!(
                "{at}  {} complete, from {}, result {}",
                event.key,
                text("source"),
                &hash[..hash.len().min(12)]
            )
        }
        "window.abandoned" => format!("{at}  {} abandoned: {}", event.key, text("reason")),
        kind => format!("{at}  {kind} {} {}", event.key, event.payload),
    }
}
