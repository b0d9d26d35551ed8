//! Market analytics: sync, sampling, windows and the structural statistics over them.
//!
//! Workers over one set of tables ([`LINE`]): [`MARKET_SYNC`] fetches candles and knows what is
//! missing, [`TRADE_SYNC`] follows trades, [`MARKET_SAMPLER`] makes points and cycles of order books,
//! one window worker for each label computes what [`analytics`] defines, [`STR_AUX_RUNNER`] watches
//! the floating mode from cycle to cycle, and [`INGEST_JOBS`] does what is asked for once.
//! [`analytics`] itself is pure: no I/O, no clock.
//!
//! What follows from a window has a module each and a series of its own of the same length
//! ([`chain`]): [`matrices`] compares all coins with each other at its end, [`mea`] allots balances by
//! that. A window that was given up gives up those that follow it. [`account`] reads what the account
//! trades, and [`cin`] keeps the ledger of it.

pub mod account;
pub mod analytics;
pub mod cin;
mod due;
mod jobs;
mod keeping;
pub mod matrices;
pub mod mea;
pub mod mood;
pub mod ops;
mod rebuild;
mod sampler;
mod samples;
mod schema;
mod settings;
mod streams;
mod sync;
mod trades;
mod universe;
pub mod view;
mod window;

use std::sync::Arc;

use watchbell_core::{Definition, Millis, Worker};
use watchbell_db::Database;
use watchbell_venues::binance::BinanceClient;

pub use jobs::{INGEST_JOBS, JOB_SEED};
pub use keeping::{InputsRemoved, MARKET_HOUSEKEEPING, Retention};
pub use ops::MARKET_HEALTH;
pub use sampler::MARKET_SAMPLER;
pub use samples::{NeededSample, needed_samples};
pub use schema::LINE;
pub use settings::{Constants, Poll, Settings, Stats, Timing, settings};
pub use streams::{
    STR_AUX_RUNNER, StreamRow, StreamsConfig, SymbolStreams, runner_interval, streams,
};
pub use sync::{CallLog, KLINES, MARKET_SYNC, VENUE, insert as insert_klines};
pub use trades::{TRADE_SYNC, TradesConfig};
pub use universe::{
    Code, DriftRow, SeedError, Severity, UNIVERSE_CHANGED, UNIVERSE_DESK, UNIVERSE_VALIDATION,
    UNLISTED_AFTER, UniverseRow, UnknownSymbol, drift, expected_windows, seed, split, universe,
    want_history,
};
pub use view::{Coverage, Hole, coverage, holes};
pub use window::series_name;

/// The seven symbols of the default universe, in processing order.
pub const DEFAULT_SYMBOLS: [&str; 7] =
    ["BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "ADAUSDT", "XRPUSDT", "DOGEUSDT"];

/// A window must be a whole number of these.
pub const BASE_CYCLE: Millis = analytics::point::CYCLE;

/// How the market is observed.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Lengths of the windows, ascending.
    pub windows: Vec<Millis>,
    /// Time after a window's end for late points.
    pub settle: Millis,
    /// How often candles are fetched.
    pub sync_interval: Millis,
    /// Whether order books are sampled at all.
    pub sampling: bool,
    /// How often they are polled.
    pub poll: Millis,
    /// Answers without a candle after which its gap is a hole of the venue; at least 1.
    pub hole_after: u32,
    /// Gaps of one symbol that one run asks for again at most; at least 1.
    pub max_gaps_per_run: u32,
    /// The seven matrices.
    pub matrices: matrices::Config,
    /// Allocation.
    pub mea: mea::Config,
    /// How often the universe is validated.
    pub validation_interval: Millis,
    /// How moods are made.
    pub mood: mood::MoodConfig,
    /// How the account behind the ledger is read.
    pub account: account::Settings,
    /// Whether and how trades are followed.
    pub trades: TradesConfig,
    /// The session that watches the floating mode.
    pub streams: StreamsConfig,
    /// How long observations are kept.
    pub retention: Retention,
}

impl Config {
    fn ascending(&self) -> impl Iterator<Item = Millis> + use<> {
        let mut lengths = self.windows.clone();
        lengths.sort_unstable();
        lengths.into_iter()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            windows: vec![Millis::from_mins(30), Millis::from_hours(1), Millis::from_hours(3)],
            settle: Millis(1_500),
            sync_interval: Millis::from_secs(30),
            sampling: true,
            poll: Millis::from_secs(1),
            hole_after: 2,
            max_gaps_per_run: 50,
            matrices: matrices::Config::default(),
            mea: mea::Config::default(),
            validation_interval: Millis::from_secs(60),
            mood: mood::MoodConfig::default(),
            account: account::Settings::default(),
            trades: TradesConfig::default(),
            streams: StreamsConfig::default(),
            retention: Retention::default(),
        }
    }
}

/// The series of windows of one length, each after the one that it follows.
#[must_use]
pub fn chain(length: Millis) -> Vec<String> {
    [series_name, matrices::series_name, mea::series_name, mood::series_name]
        .map(|name| name(length))
        .into()
}

/// The kinds of jobs that [`INGEST_JOBS`] takes: those that [`workers`] has a runner for, in the same
/// order.
const JOB_KINDS: [&str; 14] = [
    "fetch_klines",
    "backfill_klines",
    "fetch_ticker",
    "fetch_orderbook",
    "fetch_trades",
    "backfill_trades",
    "compute_str_vectors",
    "compute_window",
    "compute_matrices",
    "compute_mea",
    "compute_mood",
    "validate_universe",
    "health_scan",
    "import_moves",
];

/// What the workers of this workload are, in the order of [`workers`]: for checks that open nothing.
#[must_use]
pub fn definitions(config: &Config) -> Vec<Definition> {
    let mut all = vec![sync::definition(config.sync_interval)];
    if config.trades.enabled {
        all.push(trades::definition(&config.trades));
    }
    if config.sampling {
        all.push(sampler::definition(config.poll));
        all.push(streams::definition(&config.streams));
    }
    let settle = config.settle;
    all.extend(config.ascending().map(|length| window::definition(length, settle)));
    all.push(matrices::live_definition(config.matrices.refresh));
    all.extend(config.ascending().map(|length| matrices::window_definition(length, settle)));
    all.extend(config.ascending().map(|length| mea::definition(length, settle)));
    let mood = |length| mood::definition(length, settle, &mea::series_name(length));
    all.extend(config.ascending().map(mood));
    all.push(mood::refresh_definition());
    all.push(universe::validation_definition(config.validation_interval));
    all.push(universe::desk_definition());
    all.push(account::definition(&config.account));
    all.push(cin::import_definition());
    all.push(cin::desk_definition());
    all.push(ops::definition());
    all.push(keeping::definition());
    all.push(jobs::definition(&JOB_KINDS));
    all.push(jobs::seed_definition());
    all
}

/// The workers of this workload, in the order in which they start.
#[must_use]
pub fn workers(
    config: &Config,
    db: &Database,
    client: &BinanceClient,
    log: CallLog,
) -> Vec<Arc<dyn Worker>> {
    let sync = Arc::new(sync::Sync::new(config, db.clone(), client.clone(), log));
    let trades = trades::Trades::new(db.clone(), client, config.hole_after);
    let streams = Arc::new(streams::StrAuxRunner::new(db.clone(), config.streams.clone()));
    let mut workers: Vec<Arc<dyn Worker>> = vec![Arc::clone(&sync) as Arc<dyn Worker>];
    if config.trades.enabled {
        workers.push(Arc::new(trades::TradeSync::new(config.trades.clone(), trades.clone())));
    }
    if config.sampling {
        let sampler = sampler::SamplerWorker::new(db.clone(), client.clone(), config.poll);
        workers.push(Arc::new(sampler));
        workers.push(Arc::clone(&streams) as Arc<dyn Worker>);
    }
    for length in config.ascending() {
        workers.push(Arc::new(window::WindowWorker::new(db.clone(), length, config.settle)));
    }
    let live = config.matrices.clone();
    let live = Arc::new(matrices::LiveWorker::new(db.clone(), client.clone(), live));
    workers.push(Arc::clone(&live) as Arc<dyn Worker>);
    for length in config.ascending() {
        let worker = matrices::MatricesWorker::new(db.clone(), length, config.settle);
        workers.push(Arc::new(worker));
    }
    for length in config.ascending() {
        let mea = config.mea.clone();
        workers.push(Arc::new(mea::MeaWorker::new(db.clone(), length, config.settle, mea)));
    }
    for length in config.ascending() {
        let (settle, input, mood) = (config.settle, mea::series_name(length), config.mood.clone());
        let worker = mood::MoodWorker::new(db.clone(), length, settle, input, mood);
        workers.push(Arc::new(worker));
    }
    let lengths = config.ascending().collect();
    workers.push(Arc::new(mood::Refresh::new(db.clone(), lengths, config.mood.clone())));
    let validation = Arc::new(universe::Validation::new(
        db.clone(),
        client.clone(),
        config.validation_interval,
        config.sampling,
    ));
    workers.push(Arc::clone(&validation) as Arc<dyn Worker>);
    workers.push(Arc::new(universe::Desk::new(db.clone(), client.clone())));
    let account = config.account.clone();
    workers.push(Arc::new(account::TradeFeed::new(db.clone(), client.clone(), account)));
    let import = Arc::new(cin::ImportMoves::new(db.clone()));
    workers.push(Arc::clone(&import) as Arc<dyn Worker>);
    workers.push(Arc::new(cin::Desk::new(db.clone())));
    let health = Arc::new(ops::HealthWorker::new(db.clone(), config.clone()));
    workers.push(Arc::clone(&health) as Arc<dyn Worker>);
    workers.push(Arc::new(keeping::Keeper::new(db.clone(), config.clone())));
    let fetch = jobs::Fetch {
        db: db.clone(),
        client: client.clone(),
        sync,
        trades,
        lookback: config.trades.lookback,
    };
    let shown = config.mood.window;
    let mut runners = fetch.runners();
    runners.extend([
        ("compute_str_vectors", jobs::as_job(streams)),
        ("compute_window", jobs::compute_window(config.windows.clone())),
        ("compute_matrices", jobs::as_job(live)),
        ("compute_mea", jobs::compute_newest(mea::series_name(shown), shown, config.settle)),
        ("compute_mood", jobs::compute_newest(mood::series_name(shown), shown, config.settle)),
        ("validate_universe", jobs::as_job(validation)),
        ("health_scan", jobs::as_job(health)),
        ("import_moves", jobs::import_moves(import)),
    ]);
    workers.push(Arc::new(jobs::IngestJobs::new(runners)));
    workers.push(Arc::new(jobs::JobSeed::new(db.clone(), JOB_KINDS.to_vec())));
    workers
}
