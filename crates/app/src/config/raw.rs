//! The keys of the configuration file, as they are written. The comments here are the documentation:
//! they become the JSON Schema, which checks the file, and the comments of the generated default.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use watchbell_core::{Millis, Missed};

use super::exec::{RawLog, RawOnOrphan, RawTrigger, RawType};
use super::scan::RawScan;

/// Watchbell's configuration. A duration is a number and a unit: 250ms, 5s, 30m, 1h30m, 7d.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Raw {
    /// Where everything that Watchbell writes is kept. Relative to the working directory.
    pub(crate) data_dir: String,
    /// The profile that `up` runs: `default`, `all`, or one from `profiles`.
    pub(crate) profile: String,
    /// Named sets of workers, such as `night: [market-sync, window-sampler-3h]`.
    pub(crate) profiles: BTreeMap<String, Vec<String>>,
    /// The database.
    pub(crate) store: RawStore,
    /// The HTTP interface.
    pub(crate) http: RawHttp,
    /// What is logged, to standard error.
    pub(crate) log: Log,
    /// Leases, shutdown and health of this node.
    pub(crate) node: RawNode,
    /// How long finished things stay in the store.
    pub(crate) retention: RawRetention,
    /// The exchange that market data comes from.
    pub(crate) venue: RawVenue,
    /// Market data and its windows.
    pub(crate) market: RawMarket,
    /// Signal scans over several exchanges.
    pub(crate) scan: RawScan,
    /// Changes to single workers, by name, and workers of your own with `type: exec`. What is not named
    /// keeps the worker's own value.
    pub(crate) workers: BTreeMap<String, RawWorker>,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            data_dir: "watchbell-data".to_owned(),
            profile: "default".to_owned(),
            profiles: BTreeMap::new(),
            store: RawStore::default(),
            http: RawHttp::default(),
            log: Log::default(),
            node: RawNode::default(),
            retention: RawRetention::default(),
            venue: RawVenue::default(),
            market: RawMarket::default(),
            scan: RawScan::default(),
            workers: BTreeMap::new(),
        }
    }
}

/// The database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawStore {
    /// A SQLite file: a path relative to `data_dir`, or sqlite:PATH. Or a PostgreSQL server:
    /// postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=MODE, which many nodes may share.
    pub(crate) url: String,
    /// How far SQLite goes before it says that a commit is done.
    pub(crate) synchronous: Synchronous,
    /// Connections that read a SQLite file at the same time.
    #[schemars(range(min = 1, max = 64))]
    pub(crate) readers: u32,
    /// Connections to PostgreSQL that answer queries at the same time. A busy node opens up to half
    /// as many more for long reads, and seven to write and to listen.
    #[schemars(range(min = 1, max = 200))]
    pub(crate) pool: u32,
    /// What stands between this node and PostgreSQL.
    pub(crate) pooler: Pooler,
}

impl Default for RawStore {
    fn default() -> Self {
        Self {
            url: "sqlite:watchbell.db".to_owned(),
            synchronous: Synchronous::default(),
            readers: 4,
            pool: 8,
            pooler: Pooler::default(),
        }
    }
}

/// What stands between this node and PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Pooler {
    /// Nothing, or a pooler that gives each session a connection of its own.
    #[default]
    None,
    /// A pooler that shares connections between transactions, such as PgBouncer in its mode
    /// transaction: nodes then look for each other's work by polling.
    Transaction,
}

/// How far SQLite goes before it says that a commit is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Synchronous {
    /// Leaves writing to the system: a power cut may damage the file.
    Off,
    /// A power cut may undo the newest commits, and damages nothing.
    Normal,
    /// A commit is on the disk when it is done.
    #[default]
    Full,
    /// As full, and the directory entry too.
    Extra,
}

/// The HTTP interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawHttp {
    /// Whether it is served. Without it, commands read the store themselves.
    pub(crate) enabled: bool,
    /// Address and port; only addresses of this machine's loopback are accepted.
    pub(crate) bind: String,
}

impl Default for RawHttp {
    fn default() -> Self {
        Self { enabled: true, bind: "127.0.0.1:8770".to_owned() }
    }
}

/// What is logged, to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// The least severe level that is written.
    pub(crate) level: LogLevel,
    /// How a line looks.
    pub(crate) format: LogFormat,
}

/// The least severe level that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    /// Someone must act.
    Error,
    /// Recovered; watch the trend.
    Warn,
    /// What happened.
    #[default]
    Info,
    /// Why it happened.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// As it is written, which is also what a log filter takes.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Leases, shutdown and health of this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawNode {
    /// How long the right to run a worker, window or job lasts without renewal.
    #[schemars(extend("x-minimum" = "1s"))]
    pub(crate) lease_ttl: Length,
    /// How often it is renewed; at most half of lease_ttl.
    #[schemars(extend("x-minimum" = "100ms"))]
    pub(crate) lease_renew: Length,
    /// How long a stopping worker may finish its cycle.
    pub(crate) stop_grace: Length,
    /// How long an aborted worker may take to end, before it is reported and left.
    pub(crate) abort_grace: Length,
    /// How often the health of all workers is looked at.
    #[schemars(extend("x-minimum" = "1s"))]
    pub(crate) health_scan: Length,
}

impl Default for RawNode {
    fn default() -> Self {
        Self {
            lease_ttl: Length(Millis::from_secs(30)),
            lease_renew: Length(Millis::from_secs(10)),
            stop_grace: Length(Millis::from_secs(10)),
            abort_grace: Length(Millis::from_secs(5)),
            health_scan: Length(Millis::from_secs(60)),
        }
    }
}

/// How long finished things stay in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawRetention {
    /// Records of cycles.
    #[schemars(extend("x-minimum" = "1h"))]
    pub(crate) cycles: Length,
    /// Due instants that have passed.
    #[schemars(extend("x-minimum" = "1h"))]
    pub(crate) occurrences: Length,
    /// Events that every subscriber has seen.
    #[schemars(extend("x-minimum" = "1h"))]
    pub(crate) events: Length,
    /// Jobs that are done or cancelled.
    #[schemars(extend("x-minimum" = "1h"))]
    pub(crate) jobs: Length,
}

impl Default for RawRetention {
    fn default() -> Self {
        Self {
            cycles: Length(Millis::from_days(30)),
            occurrences: Length(Millis::from_days(30)),
            events: Length(Millis::from_days(30)),
            jobs: Length(Millis::from_days(14)),
        }
    }
}

/// The exchange that market data comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawVenue {
    /// REST address.
    pub(crate) base_url: String,
    /// Addresses to try when the first does not answer, in order.
    pub(crate) alternates: Vec<String>,
    /// WebSocket address.
    pub(crate) ws_url: String,
    /// How long one request may take.
    #[schemars(extend("x-minimum" = "100ms"))]
    pub(crate) request_timeout: Length,
    /// The part of the venue's request budget that is used; the rest is left to other programs.
    #[schemars(range(min = 0.05, max = 1.0))]
    pub(crate) weight_fraction: f64,
    /// A file with `api_key = ...` and `api_secret = ...` of a key that may read the account: yours
    /// alone, mode 0600 or 0400. Without it the variables WATCHBELL_BINANCE_KEY and
    /// WATCHBELL_BINANCE_SECRET are used, and without those no account is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) credentials: Option<String>,
    /// Whose account it is, such as an e-mail address: stored beside each of its trades.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) account: Option<String>,
}

impl Default for RawVenue {
    fn default() -> Self {
        Self {
            base_url: "https://api.binance.com".to_owned(),
            alternates: (1..=4).map(|n| format!("https://api{n}.binance.com")).collect(),
            ws_url: "wss://stream.binance.com:9443".to_owned(),
            request_timeout: Length(Millis::from_secs(10)),
            weight_fraction: 0.8,
            credentials: None,
            account: None,
        }
    }
}

/// Market data and its windows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawMarket {
    /// The symbols to follow at first start, as the venue writes them.
    pub(crate) symbols: Vec<String>,
    /// Lengths of the windows: multiples of 40s, 10m or longer.
    pub(crate) windows: Vec<Length>,
    /// How far back history is fetched; at least the longest window.
    pub(crate) history: Length,
    /// How often new candles are fetched.
    #[schemars(extend("x-minimum" = "1s"))]
    pub(crate) sync_interval: Length,
    /// Live sampling of the book.
    pub(crate) sampling: RawSampling,
    /// Candles that the venue left out of an answer.
    pub(crate) repair: RawRepair,
    /// The live refresh of points, cycles and streams.
    pub(crate) runner: RawRunner,
    /// Trades of the public market: they fill points whose books were not seen.
    pub(crate) trades: RawTrades,
    /// The seven matrices.
    pub(crate) matrices: RawMatrices,
    /// How the allocation spreads balances.
    pub(crate) mea: RawMea,
    /// What the mood looks at, and how it weighs that.
    pub(crate) mood: RawMood,
    /// How long observations stay in the store, or `keep`: for ever. What a window has still to read
    /// stays in any case, and candles and windows always do.
    pub(crate) retention: RawMarketRetention,
    /// How often the universe is validated against the venue.
    #[schemars(extend("x-minimum" = "10s"))]
    pub(crate) validation_interval: Length,
}

impl Default for RawMarket {
    fn default() -> Self {
        Self {
            symbols: ["BTC", "ETH", "BNB", "SOL", "ADA", "XRP", "DOGE"]
                .map(|base| format!("{base}USDT"))
                .to_vec(),
            windows: [30, 60, 180].map(|m| Length(Millis::from_mins(m))).to_vec(),
            history: Length(Millis::from_days(7)),
            sync_interval: Length(Millis::from_secs(30)),
            sampling: RawSampling::default(),
            repair: RawRepair::default(),
            runner: RawRunner::default(),
            trades: RawTrades::default(),
            matrices: RawMatrices::default(),
            mea: RawMea::default(),
            mood: RawMood::default(),
            validation_interval: Length(Millis::from_secs(60)),
            retention: RawMarketRetention::default(),
        }
    }
}

/// How long observations stay in the store: the worker market-housekeeping.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawMarketRetention {
    /// Five-second points; at least twice the longest window.
    #[schemars(extend("x-minimum" = "1d"))]
    pub(crate) points: Keep,
    /// Forty-second cycles.
    #[schemars(extend("x-minimum" = "1d"))]
    pub(crate) cycles: Keep,
    /// Trades of the public market; at least twice the longest window.
    #[schemars(extend("x-minimum" = "1d"))]
    pub(crate) trades: Keep,
    /// Tickers, but the newest of each symbol.
    #[schemars(extend("x-minimum" = "1h"))]
    pub(crate) tickers: Keep,
    /// Order books that jobs stored, but the newest of each symbol.
    #[schemars(extend("x-minimum" = "1h"))]
    pub(crate) books: Keep,
    /// Openings, shifts and swaps of the streams.
    #[schemars(extend("x-minimum" = "1d"))]
    pub(crate) stream_events: Keep,
    /// Requests to the venue.
    #[schemars(extend("x-minimum" = "1h"))]
    pub(crate) sync_log: Keep,
    /// What the runs of the ledger and of the account's feed did.
    #[schemars(extend("x-minimum" = "1h"))]
    pub(crate) account_log: Keep,
    /// The account's balances as the venue gave them, but the newest.
    #[schemars(extend("x-minimum" = "1h"))]
    pub(crate) balances: Keep,
}

impl Default for RawMarketRetention {
    fn default() -> Self {
        let usual = watchbell_market::Retention::default();
        Self {
            points: Keep(usual.points),
            cycles: Keep(usual.cycles),
            trades: Keep(usual.trades),
            tickers: Keep(usual.tickers),
            books: Keep(usual.books),
            stream_events: Keep(usual.stream_events),
            sync_log: Keep(usual.sync_log),
            account_log: Keep(usual.account_log),
            balances: Keep(usual.balances),
        }
    }
}

/// Live sampling of the book.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawSampling {
    /// Whether points are sampled. Without them, windows are derived from candles.
    pub(crate) enabled: bool,
    /// How often the book is read.
    #[schemars(extend("x-minimum" = "100ms"))]
    pub(crate) poll: Length,
    /// How long a point or window waits for late input after its end.
    pub(crate) settle: Length,
}

impl Default for RawSampling {
    fn default() -> Self {
        Self { enabled: true, poll: Length(Millis::from_secs(1)), settle: Length(Millis(1_500)) }
    }
}

/// Candles that the venue left out of an answer: they are asked for again with each fetch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawRepair {
    /// Gaps of one symbol that one fetch asks for again at most; the next one goes on.
    #[schemars(range(min = 1))]
    pub(crate) max_gaps_per_run: u32,
    /// After so many answers without the candles a gap counts as a hole of the venue.
    #[schemars(range(min = 1))]
    pub(crate) hole_after: u32,
}

impl Default for RawRepair {
    fn default() -> Self {
        Self { max_gaps_per_run: 50, hole_after: 2 }
    }
}

/// The live refresh of points, cycles and streams: the worker str-aux-runner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawRunner {
    /// How often it runs, at multiples of this time since the epoch.
    #[schemars(extend("x-minimum" = "5s"))]
    pub(crate) interval: Length,
    /// Under which name its streams are kept. The thresholds below are those of a session from its
    /// beginning: name another one to change them.
    pub(crate) session: String,
    /// How far the floating mode must be from its reference to count towards a shift, in per cent.
    #[schemars(range(min = 0.001, max = 100.0))]
    pub(crate) shift_pct: f64,
    /// So many cycles in a row make a shift.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) shift_cycles: u32,
    /// Whether falls count as well as rises.
    pub(crate) both_ways: bool,
    /// How far the price must be on the other side of its opening to make a swap, in per cent.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub(crate) swap_pct: f64,
}

impl Default for RawRunner {
    fn default() -> Self {
        Self {
            interval: Length(Millis::from_secs(40)),
            session: "str-aux-runner".to_owned(),
            shift_pct: 0.35,
            shift_cycles: 5,
            both_ways: true,
            swap_pct: 0.05,
        }
    }
}

/// Trades of the public market: they fill points whose books were not seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawTrades {
    /// Whether they are followed: the worker trade-sync.
    pub(crate) enabled: bool,
}

/// The seven matrices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawMatrices {
    /// How often those of the present are computed.
    #[schemars(extend("x-minimum" = "40s"))]
    pub(crate) refresh: Length,
    /// How long those of the present are kept; those of windows stay.
    #[schemars(extend("x-minimum" = "1h"))]
    pub(crate) keep: Length,
}

impl Default for RawMatrices {
    fn default() -> Self {
        let usual = watchbell_market::matrices::Config::default();
        Self { refresh: Length(usual.refresh), keep: Length(usual.keep) }
    }
}

/// How the allocation spreads balances.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawMea {
    /// What a balance is divided by before it is weighed; the number of other coins when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) k: Option<u32>,
    /// The pair of the snapshots, as BASE/QUOTE such as ETH/BTC; the first two coins of the universe
    /// after USDT when absent, or where one of the two is not in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pair: Option<String>,
}

/// What the mood looks at, and how it weighs that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawMood {
    /// The window whose vectors it is made of: one of `windows`; 30m where there is one, else the
    /// shortest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) window: Option<Length>,
    /// How many symbols at most, those against USDT first.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) symbols: u32,
    /// The tendency that counts as none, as a fraction of its scale.
    #[schemars(range(min = -1.0, max = 1.0))]
    pub(crate) mu_t: f64,
    /// How far from there the tendency is at the end of its range; 0.5 uses all of it.
    #[schemars(range(min = 0.0001, max = 100.0))]
    pub(crate) sigma_t: f64,
    /// The swap that counts as none, as a fraction of its scale.
    #[schemars(range(min = -1.0, max = 1.0))]
    pub(crate) mu_s: f64,
    /// How far from there the swap counts as much; 0.35 uses all of its range.
    #[schemars(range(min = 0.0001, max = 100.0))]
    pub(crate) sigma_s: f64,
}

impl Default for RawMood {
    fn default() -> Self {
        let params = watchbell_market::mood::Params::default();
        Self {
            window: None,
            symbols: 12,
            mu_t: params.mu_t,
            sigma_t: params.sigma_t,
            mu_s: params.mu_s,
            sigma_s: params.sigma_s,
        }
    }
}

/// Changes to one worker, or one of your own. What is absent keeps the worker's own value.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawWorker {
    /// `false` keeps it from running on this node; its state says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) enabled: Option<bool>,
    /// Runs it at each multiple of this time since the epoch. Not together with cron.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-minimum" = "100ms"))]
    pub(crate) every: Option<Length>,
    /// Runs it by a cron expression of 5 fields, or 6 with the second first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cron: Option<String>,
    /// The time zone of cron, such as Europe/Berlin; UTC when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) time_zone: Option<String>,
    /// What becomes of due instants that passed while nothing could run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) missed: Option<RawMissed>,
    /// Spreads starts over this time, the same way each time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) jitter: Option<Length>,
    /// Workers that must run before this one starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) needs: Option<Vec<String>>,
    /// Workers that start before this one where they run at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<Vec<String>>,
    /// After this long a cycle is asked to stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-minimum" = "100ms"))]
    pub(crate) soft_timeout: Option<Length>,
    /// After this long a cycle is aborted and cannot publish.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-minimum" = "100ms"))]
    pub(crate) hard_timeout: Option<Length>,
    /// Workers with the same lane never run cycles at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lane: Option<String>,
    /// Without a success for this long the worker counts as stale.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-minimum" = "1s"))]
    pub(crate) stale_after: Option<Length>,
    /// `exec` makes it a worker of your own that runs a program. The keys below go with it.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<RawType>,
    /// What it does, in a paragraph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// The program and its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) command: Option<Vec<String>>,
    /// Instead of a command: a line for /bin/sh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shell: Option<String>,
    /// What starts it: stream, manual, or a section with one of every, cron, window, on, queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trigger: Option<RawTrigger>,
    /// Its working directory, relative to the node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dir: Option<String>,
    /// Variables to set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) env: Option<BTreeMap<String, String>>,
    /// Variables of the node's own environment to hand on, beside PATH, HOME, LANG and TZ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) env_allow: Option<Vec<String>>,
    /// Conditions that must be met before a cycle starts, such as venue:binance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requires: Option<Vec<String>>,
    /// Whether it gets a directory for files to publish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stage: Option<bool>,
    /// What becomes of the program of a stream whose node was killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) on_orphan: Option<RawOnOrphan>,
    /// Size and number of its log files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<RawLog>,
}

/// What becomes of due instants that passed while nothing could run: none of them runs, the latest
/// one, or all up to N.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum RawMissed {
    Word(MissedWord),
    All { all: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MissedWord {
    Skip,
    Latest,
}

impl From<RawMissed> for Missed {
    fn from(raw: RawMissed) -> Self {
        match raw {
            RawMissed::Word(MissedWord::Skip) => Self::Skip,
            RawMissed::Word(MissedWord::Latest) => Self::Latest,
            RawMissed::All { all } => Self::All { cap: all },
        }
    }
}

impl JsonSchema for RawMissed {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Missed".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-allowed": "skip, latest, {all: N}",
            "oneOf": [
                { "type": "string", "enum": ["skip", "latest"] },
                {
                    "type": "object",
                    "properties": { "all": { "type": "integer", "minimum": 1, "maximum": 100_000 } },
                    "required": ["all"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

/// How long something is kept: a duration, or none for ever, which is written `keep` or 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keep(pub(crate) Option<Millis>);

/// The word for no end.
pub(crate) const KEEP: &str = "keep";

impl Serialize for Keep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(length) => Length(length).serialize(serializer),
            None => serializer.serialize_str(KEEP),
        }
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if [KEEP, "0"].contains(&text.as_str()) {
            return Ok(Self(None));
        }
        let length = Millis::parse(&text).map_err(D::Error::custom)?;
        Ok(Self(Some(length).filter(|length| length.0 > 0)))
    }
}

impl JsonSchema for Keep {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Keep".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "x-type": "keep",
            "pattern": "^(keep|0|([0-9]+(ms|s|m|h|d))+)$",
        })
    }
}

/// A duration, written with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Length(pub(crate) Millis);

impl Length {
    /// The shortest text that reads back as this duration exactly.
    pub(crate) fn exact(self) -> String {
        let ms = self.0.0;
        if ms % 1_000 != 0 {
            return format!("{ms}ms");
        }
        let mut rest = ms;
        let mut text = String::new();
        for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
            if rest >= unit {
                text.push_str(&format!("{}{name}", rest / unit));
                rest %= unit;
            }
        }
        if text.is_empty() { "0s".to_owned() } else { text }
    }
}

impl Serialize for Length {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.exact())
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Millis::parse(&text).map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for Length {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // `format: duration` would promise ISO 8601 to editors.
        json_schema!({
            "type": "string",
            "x-type": "duration",
            "pattern": "^([0-9]+(ms|s|m|h|d))+$",
        })
    }
}
