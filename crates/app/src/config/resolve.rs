//! From the keys as written to values that need no further check.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use watchbell_core::graph::nearest;
use watchbell_core::schedule::{Cron, CronError};
use watchbell_core::{Millis, Missed, Trigger, WorkerName};
use watchbell_db::{DbError, ServerOptions};
use watchbell_market::analytics::shift::ShiftConfig;
use watchbell_venues::binance::Credentials;

use super::check::{Report, unknown};
use super::exec::own_keys;
use super::problem::{Origin, redact};
use super::raw::{
    KEEP, Keep, Length, Log, Pooler, Raw, RawMarket, RawMarketRetention, RawNode, RawRunner,
    RawStore, RawVenue, RawWorker, Synchronous,
};
use super::scan::Scan;
use super::tree::Node;
use super::{Catalog, Config};

/// The database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Store {
    /// A SQLite file.
    File(StoreFile),
    /// A PostgreSQL server. Its `Debug` form has no password.
    Server(ServerOptions),
}

/// A SQLite file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// How far a commit goes.
    pub(crate) synchronous: Synchronous,
    /// Connections that read.
    pub(crate) readers: u32,
}

impl Store {
    /// The store of another URL, as `store.url` would name it below `data_dir`; what else there is
    /// to say about it stays.
    ///
    /// # Errors
    /// What is wrong with the URL, and what would be right. Never a password.
    pub(crate) fn at(url: &str, data_dir: &Path, raw: &RawStore) -> Result<Self, (String, String)> {
        let allowed = || {
            "a path, sqlite:PATH such as sqlite:watchbell.db, or \
             postgres://USER:PASSWORD@HOST:PORT/DATABASE"
                .to_owned()
        };
        let url = url.trim();
        let shown = redact(url);
        if let Some((scheme, _)) = url.split_once("://").filter(|(scheme, _)| *scheme != "sqlite") {
            if !matches!(scheme, "postgres" | "postgresql") {
                let hint = nearest(scheme, ["postgres", "postgresql", "sqlite"])
                    .map_or_else(String::new, |s| format!(", did you mean `{s}://`?"));
                let message = format!("`{shown}` is no database that Watchbell knows{hint}");
                return Err((message, allowed()));
            }
            let mut options = ServerOptions::new(url);
            options.pool_size = raw.pool as usize;
            options.pooler = raw.pooler == Pooler::Transaction;
            return match options.location() {
                Ok(_) => Ok(Self::Server(options)),
                Err(DbError::BadUrl { detail }) => Err((format!("`{shown}`: {detail}"), allowed())),
                Err(other) => Err((format!("`{shown}`: {other}"), allowed())),
            };
        }
        let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"));
        let path = path.unwrap_or(url).trim();
        if path == ":memory:" {
            return Err(("a database in memory keeps nothing".to_owned(), allowed()));
        }
        if path.is_empty() || path.ends_with('/') {
            return Err((format!("`{url}` names no file"), allowed()));
        }
        Ok(Self::File(StoreFile {
            path: data_dir.join(path),
            synchronous: raw.synchronous,
            readers: raw.readers,
        }))
    }

    /// Lets the instants of the caller decide on a server, too: for a clock that is not the wall's.
    pub(crate) fn obey_caller(&mut self) {
        if let Self::Server(options) = self {
            options.caller_clock = true;
        }
    }

    /// Where it is, for people: a path, or `host:port/database`. Never a password.
    pub(crate) fn location(&self) -> String {
        match self {
            Self::File(file) => file.path.display().to_string(),
            // It was read once before: that is what made it.
            Self::Server(options) => options.location().unwrap_or_else(|e| e.to_string()),
        }
    }
}

/// The HTTP interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Http {
    /// Whether it is served.
    pub(crate) enabled: bool,
    /// Always a loopback address. Port 0 takes a free one.
    pub(crate) bind: SocketAddr,
}

/// Leases, shutdown and health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeTimes {
    /// How long a lease lasts.
    pub(crate) lease_ttl: Millis,
    /// How often it is renewed; at most half of `lease_ttl`.
    pub(crate) lease_renew: Millis,
    /// How long a stopping worker may finish.
    pub(crate) stop_grace: Millis,
    /// How long an aborted worker may take to end.
    pub(crate) abort_grace: Millis,
    /// Time between health scans.
    pub(crate) health_scan: Millis,
}

/// How long finished things stay in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention {
    /// Records of cycles.
    pub(crate) cycles: Millis,
    /// Passed due instants.
    pub(crate) occurrences: Millis,
    /// Delivered events.
    pub(crate) events: Millis,
    /// Finished jobs.
    pub(crate) jobs: Millis,
}

/// The exchange. Addresses have no slash at the end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Venue {
    /// REST address.
    pub(crate) base_url: String,
    /// Further REST addresses.
    pub(crate) alternates: Vec<String>,
    /// WebSocket address.
    pub(crate) ws_url: String,
    /// Limit of one request.
    pub(crate) request_timeout: Millis,
    /// The part of the request budget that is used, in (0, 1].
    pub(crate) weight_fraction: f64,
    /// The file with the account's key, if one is named.
    pub(crate) credentials_file: Option<PathBuf>,
    /// The account's key, if there is one.
    pub(crate) credentials: Option<Credentials>,
    /// Whose account it is.
    pub(crate) account: Option<String>,
}

/// Market data and windows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Market {
    /// Symbols, in the order given, each once.
    pub(crate) symbols: Vec<String>,
    /// Lengths of windows, ascending, each once; multiples of 40 s, 10 min or longer.
    pub(crate) windows: Vec<Millis>,
    /// How far back history is fetched; at least the longest window.
    pub(crate) history: Millis,
    /// Time between fetches of new candles.
    pub(crate) sync_interval: Millis,
    /// Live sampling.
    pub(crate) sampling: Sampling,
    /// Candles that the venue left out of an answer.
    pub(crate) repair: Repair,
    /// The live refresh.
    pub(crate) runner: Runner,
    /// Whether trades are followed.
    pub(crate) trades: bool,
    /// How often the matrices of the present are computed, and how long they are kept.
    pub(crate) matrices: (Millis, Millis),
    /// How the allocation spreads balances.
    pub(crate) mea: Mea,
    /// What the mood looks at, and how it weighs that.
    pub(crate) mood: Mood,
    /// How long observations are kept.
    pub(crate) retention: watchbell_market::Retention,
    /// Time between validations of the universe.
    pub(crate) validation_interval: Millis,
}

/// The live refresh of points, cycles and streams.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Runner {
    /// How often; 5 s or more.
    pub(crate) interval: Millis,
    /// Under which name its streams are kept; not empty.
    pub(crate) session: String,
    /// What makes a shift and a swap.
    pub(crate) thresholds: ShiftConfig,
}

/// How the allocation spreads balances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mea {
    /// What a balance is divided by; the number of other coins if none.
    pub(crate) k: Option<u32>,
    /// Base and quote of the snapshots: two different coins.
    pub(crate) pair: Option<(String, String)>,
}

/// What the mood looks at, and how it weighs that.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mood {
    /// One of the windows.
    pub(crate) window: Millis,
    /// At most so many symbols; 1 or more.
    pub(crate) symbols: u32,
    /// Centre and spread of the signals; the spreads are above zero.
    pub(crate) params: watchbell_market::mood::Params,
}

/// Live sampling of the book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sampling {
    /// Whether points are sampled.
    pub(crate) enabled: bool,
    /// Time between reads of the book.
    pub(crate) poll: Millis,
    /// Time for late input.
    pub(crate) settle: Millis,
}

/// Candles that the venue left out of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Repair {
    /// Gaps of one symbol that one run asks for again at most; 1 or more.
    pub(crate) max_gaps_per_run: u32,
    /// Answers without the candles after which a gap is a hole of the venue; 1 or more.
    pub(crate) hole_after: u32,
}

/// A named set of workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Profile {
    /// Name.
    pub(crate) name: String,
    /// Workers, each once.
    pub(crate) workers: Vec<WorkerName>,
}

/// Changes to one worker; `None` keeps the worker's own value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WorkerOverride {
    /// Which worker.
    pub(crate) name: WorkerName,
    /// Whether it runs on this node.
    pub(crate) enabled: bool,
    /// When it runs.
    pub(crate) trigger: Option<Trigger>,
    /// What becomes of missed due instants.
    pub(crate) missed: Option<Missed>,
    /// Spread of starts.
    pub(crate) jitter: Option<Millis>,
    /// Hard dependencies.
    pub(crate) needs: Option<Vec<WorkerName>>,
    /// Soft dependencies.
    pub(crate) after: Option<Vec<WorkerName>>,
    /// Limit after which a cycle is asked to stop.
    pub(crate) soft_timeout: Option<Millis>,
    /// Limit after which it is aborted.
    pub(crate) hard_timeout: Option<Millis>,
    /// Lane.
    pub(crate) lane: Option<String>,
    /// Age at which it is stale.
    pub(crate) stale_after: Option<Millis>,
}

/// The 40-second cycle of the market's sampling, of which a window is made.
const CYCLE: Millis = Millis::from_secs(40);
/// The shortest window.
const SHORTEST_WINDOW: Millis = Millis::from_mins(10);

/// The window that the mood is made of, where there is one.
const MOOD_WINDOW: Millis = Millis::from_mins(30);

/// What [`resolve`] works with: a path leads to its place.
pub(super) struct Resolver<'a, 'r> {
    pub(super) tree: &'a Node,
    pub(super) report: &'a mut Report<'r>,
}

impl Resolver<'_, '_> {
    pub(super) fn wrong(
        &mut self,
        path: &str,
        message: impl Into<String>,
        allowed: impl Into<String>,
    ) {
        let origin = self.tree.origin_of(path);
        self.report.at(&origin, path, message, Some(allowed.into()));
    }
}

/// Resolves `raw`, read from `tree`. Problems go to `report`; with any, the result is not used.
pub(super) fn resolve(
    raw: Raw,
    tree: Node,
    dir: &Path,
    catalog: &dyn Fn(&Market, &Scan) -> Catalog,
    report: &mut Report<'_>,
) -> Config {
    let mut r = Resolver { tree: &tree, report };
    if raw.data_dir.trim().is_empty() {
        r.wrong("data_dir", "the path is empty", "a directory");
    }
    let data_dir = dir.join(&raw.data_dir);
    let store = r.store(&raw.store, &data_dir);
    let warnings = without_effect(&store, &raw.store);
    let bind = match loopback(&raw.http.bind) {
        Ok(address) => address,
        Err((message, allowed)) => {
            r.wrong("http.bind", message, allowed);
            SocketAddr::from(([127, 0, 0, 1], 0))
        }
    };
    let retention = Retention {
        cycles: raw.retention.cycles.0,
        occurrences: raw.retention.occurrences.0,
        events: raw.retention.events.0,
        jobs: raw.retention.jobs.0,
    };
    let node = r.node(&raw.node);
    let venue = r.venue(&raw.venue, dir);
    let market = r.market(&raw.market);
    let mut elsewhere = Vec::new();
    let scan = r.scan(&raw.scan, dir, &mut elsewhere);
    r.report.problems.extend(elsewhere);
    let mut catalog = catalog(&market, &scan);
    let programs = r.programs(&raw, dir, &mut catalog);
    let profile = r.profile(&raw, &catalog);
    let workers =
        raw.workers.iter().filter_map(|(name, w)| r.worker(name, w, &catalog.workers)).collect();
    Config {
        data_dir,
        store,
        http: Http { enabled: raw.http.enabled, bind },
        log: log(&raw.log, &scan, &tree),
        node,
        retention,
        venue,
        market,
        scan,
        profile,
        programs,
        workers,
        warnings,
        raw,
        tree,
        source: None,
    }
}

/// Logging: the level of the file of jobs holds where nothing else names one.
fn log(raw: &Log, scan: &Scan, tree: &Node) -> Log {
    let own = tree.find("log.level").is_some();
    let level = scan.log_level.filter(|_| scan.from_file && !own).unwrap_or(raw.level);
    Log { level, ..raw.clone() }
}

/// What was written and holds for the other engine only.
fn without_effect(store: &Store, raw: &RawStore) -> Vec<String> {
    let usual = RawStore::default();
    let (keys, engine) = match store {
        Store::File(_) => {
            let keys = [("pool", raw.pool != usual.pool), ("pooler", raw.pooler != usual.pooler)];
            (keys, "SQLite")
        }
        Store::Server(_) => {
            let keys = [
                ("synchronous", raw.synchronous != usual.synchronous),
                ("readers", raw.readers != usual.readers),
            ];
            (keys, "PostgreSQL")
        }
    };
    let changed = keys.iter().filter(|(_, changed)| *changed);
    changed.map(|(key, _)| format!("store.{key} has no effect on {engine}")).collect()
}

/// An address of this machine's loopback.
pub(super) fn loopback(text: &str) -> Result<SocketAddr, (String, String)> {
    let allowed = || "a loopback address and port, such as 127.0.0.1:8770 or [::1]:8770".to_owned();
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let Ok(address) = numeric.as_deref().unwrap_or(text).parse::<SocketAddr>() else {
        return Err((format!("`{text}` is not an address with a port"), allowed()));
    };
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        let message = format!(
            "`{text}` can be reached from other machines, and this version does not ask who calls"
        );
        Err((message, allowed()))
    }
}

impl Resolver<'_, '_> {
    fn store(&mut self, raw: &RawStore, data_dir: &Path) -> Store {
        Store::at(&raw.url, data_dir, raw).unwrap_or_else(|(message, allowed)| {
            self.wrong("store.url", message, allowed);
            let path = data_dir.to_owned();
            Store::File(StoreFile { path, synchronous: raw.synchronous, readers: raw.readers })
        })
    }

    fn node(&mut self, raw: &RawNode) -> NodeTimes {
        if raw.lease_renew.0 * 2 > raw.lease_ttl.0 {
            let message = format!(
                "`{}` is too long: a lease of {} must survive one lost renewal",
                raw.lease_renew.exact(),
                raw.lease_ttl.exact()
            );
            let most = Length(Millis(raw.lease_ttl.0.0 / 2)).exact();
            self.wrong("node.lease_renew", message, format!("{most} or shorter"));
        }
        NodeTimes {
            lease_ttl: raw.lease_ttl.0,
            lease_renew: raw.lease_renew.0,
            stop_grace: raw.stop_grace.0,
            abort_grace: raw.abort_grace.0,
            health_scan: raw.health_scan.0,
        }
    }

    fn venue(&mut self, raw: &RawVenue, dir: &Path) -> Venue {
        let rest = ["https://", "http://"];
        Venue {
            base_url: self.url("venue.base_url", &raw.base_url, rest),
            alternates: raw
                .alternates
                .iter()
                .enumerate()
                .map(|(i, url)| self.url(&format!("venue.alternates[{i}]"), url, rest))
                .collect(),
            ws_url: self.url("venue.ws_url", &raw.ws_url, ["wss://", "ws://"]),
            request_timeout: raw.request_timeout.0,
            weight_fraction: raw.weight_fraction,
            credentials_file: raw.credentials.as_ref().map(|file| dir.join(file)),
            credentials: None,
            account: raw.account.clone(),
        }
    }

    pub(super) fn url(&mut self, path: &str, url: &str, schemes: [&str; 2]) -> String {
        let host = schemes.iter().find_map(|s| url.strip_prefix(s));
        let named = host.is_some_and(|h| h.starts_with(|c: char| c.is_alphanumeric() || c == '['));
        if !named || url.contains(char::is_whitespace) {
            let allowed = schemes.map(|s| format!("{s}HOST")).join(" or ");
            self.wrong(path, format!("`{}` is not an address of that kind", redact(url)), allowed);
        }
        url.trim_end_matches('/').to_owned()
    }

    fn market(&mut self, raw: &RawMarket) -> Market {
        let mut symbols: Vec<String> = Vec::new();
        for (i, symbol) in raw.symbols.iter().enumerate() {
            let path = format!("market.symbols[{i}]");
            let plain: String = symbol
                .chars()
                .filter(char::is_ascii_alphanumeric)
                .collect::<String>()
                .to_uppercase();
            if plain != *symbol || !(3..=20).contains(&plain.len()) {
                let hint = if (3..=20).contains(&plain.len()) {
                    format!(", did you mean `{plain}`?")
                } else {
                    String::new()
                };
                let message = format!("`{symbol}` is not a symbol{hint}");
                self.wrong(&path, message, "3 to 20 capital letters and digits, such as BTCUSDT");
            } else if let Err(e) = watchbell_market::split(symbol) {
                self.wrong(
                    &path,
                    e.to_string(),
                    "a coin and what it is quoted in, such as BTCUSDT",
                );
            } else if symbols.contains(symbol) {
                self.wrong(&path, format!("`{symbol}` is here twice"), "each symbol once");
            } else {
                symbols.push(symbol.clone());
            }
        }
        if raw.symbols.is_empty() {
            self.wrong("market.symbols", "the list is empty", "one symbol or more");
        }
        let mut windows = BTreeSet::new();
        for (i, length) in raw.windows.iter().enumerate() {
            let path = format!("market.windows[{i}]");
            if let Some((message, allowed)) = window_problem(length.0) {
                self.wrong(&path, message, allowed);
            } else if !windows.insert(length.0) {
                let message = format!("a window of {} is here twice", length.exact());
                self.wrong(&path, message, "each length once");
            }
        }
        if raw.windows.is_empty() {
            self.wrong("market.windows", "the list is empty", "one length or more");
        }
        if let Some(longest) = windows.last().filter(|w| **w > raw.history.0) {
            let longest = Length(*longest).exact();
            let message = format!(
                "`{}` does not reach over the longest window, {longest}",
                raw.history.exact()
            );
            self.wrong("market.history", message, format!("{longest} or longer"));
        }
        Market {
            symbols,
            history: raw.history.0,
            sync_interval: raw.sync_interval.0,
            sampling: Sampling {
                enabled: raw.sampling.enabled,
                poll: raw.sampling.poll.0,
                settle: raw.sampling.settle.0,
            },
            repair: Repair {
                max_gaps_per_run: raw.repair.max_gaps_per_run,
                hole_after: raw.repair.hole_after,
            },
            runner: self.runner(&raw.runner),
            trades: raw.trades.enabled,
            matrices: (raw.matrices.refresh.0, raw.matrices.keep.0),
            mea: Mea {
                k: raw.mea.k,
                pair: raw.mea.pair.as_deref().and_then(|pair| self.pair("market.mea.pair", pair)),
            },
            mood: Mood {
                window: self.mood_window(raw, &windows),
                symbols: raw.mood.symbols,
                params: watchbell_market::mood::Params {
                    mu_t: raw.mood.mu_t,
                    sigma_t: raw.mood.sigma_t,
                    mu_s: raw.mood.mu_s,
                    sigma_s: raw.mood.sigma_s,
                },
            },
            validation_interval: raw.validation_interval.0,
            retention: self.observations(&raw.retention, &windows),
            windows: windows.into_iter().collect(),
        }
    }

    /// What a window reads must outlive it: its own length, and as much before that.
    fn observations(
        &mut self,
        raw: &RawMarketRetention,
        windows: &BTreeSet<Millis>,
    ) -> watchbell_market::Retention {
        let least = windows.last().map_or(Millis::ZERO, |longest| *longest * 2);
        let usual = RawMarketRetention::default();
        let mut enough = |key: &str, Keep(age): Keep, usual: Keep| {
            let short = age.filter(|age| *age < least)?;
            if usual == Keep(age) {
                return Some(least);
            }
            let message = format!(
                "`{}` is less than twice the longest window, which needs them",
                Length(short).exact()
            );
            let allowed = format!("{} or longer, or {KEEP}", Length(least).exact());
            self.wrong(&format!("market.retention.{key}"), message, allowed);
            None
        };
        let points = enough("points", raw.points, usual.points).or(raw.points.0);
        let trades = enough("trades", raw.trades, usual.trades).or(raw.trades.0);
        watchbell_market::Retention {
            points,
            cycles: raw.cycles.0,
            trades,
            tickers: raw.tickers.0,
            books: raw.books.0,
            stream_events: raw.stream_events.0,
            sync_log: raw.sync_log.0,
            account_log: raw.account_log.0,
            balances: raw.balances.0,
        }
    }

    fn runner(&mut self, raw: &RawRunner) -> Runner {
        if raw.session.trim().is_empty() {
            self.wrong("market.runner.session", "the name is empty", "a word, such as night");
        }
        Runner {
            interval: raw.interval.0,
            session: raw.session.trim().to_owned(),
            thresholds: ShiftConfig {
                epsilon_pct: raw.shift_pct,
                streak: raw.shift_cycles,
                both_ways: raw.both_ways,
                swap_eta_pct: raw.swap_pct,
            },
        }
    }

    /// Two coins, written BASE/QUOTE.
    fn pair(&mut self, path: &str, text: &str) -> Option<(String, String)> {
        let coin = |word: &str| {
            let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
            ((1..=20).contains(&word.len()) && word.chars().all(plain)).then(|| word.to_owned())
        };
        let pair = text.split_once('/').and_then(|(base, quote)| Some((coin(base)?, coin(quote)?)));
        let pair = pair.filter(|(base, quote)| base != quote);
        if pair.is_none() {
            let allowed = "two coins in capital letters and digits, such as ETH/BTC";
            self.wrong(path, format!("`{text}` is not a pair of coins"), allowed);
        }
        pair
    }

    /// The window that is asked for, else the usual one, else the shortest.
    fn mood_window(&mut self, raw: &RawMarket, windows: &BTreeSet<Millis>) -> Millis {
        let Some(wanted) = raw.mood.window else {
            let usual = windows.get(&MOOD_WINDOW).or_else(|| windows.first());
            return usual.copied().unwrap_or(MOOD_WINDOW);
        };
        if !windows.contains(&wanted.0) {
            let known: Vec<String> = windows.iter().map(|w| w.exact()).collect();
            let message = format!("there are no windows of {}", wanted.exact());
            self.wrong("market.mood.window", message, known.join(", "));
        }
        wanted.0
    }

    fn profile(&mut self, raw: &Raw, catalog: &Catalog) -> Profile {
        let mut profiles = catalog.profiles.clone();
        for (name, listed) in &raw.profiles {
            let path = format!("profiles.{name}");
            let mut workers = Vec::new();
            for (i, worker) in listed.iter().enumerate() {
                if let Some(worker) = self.known(&format!("{path}[{i}]"), worker, &catalog.workers)
                    && !workers.contains(&worker)
                {
                    workers.push(worker);
                }
            }
            if listed.is_empty() {
                self.wrong(&path, "the profile is empty", "one worker or more");
            }
            profiles.insert(name.clone(), workers);
        }
        let name = raw.profile.clone();
        let workers = profiles.get(&name).cloned().unwrap_or_else(|| {
            let names: Vec<_> = profiles.keys().map(String::as_str).collect();
            let (message, allowed) = unknown("profile", &name, &names);
            self.wrong("profile", message, allowed);
            Vec::new()
        });
        Profile { name, workers }
    }

    fn known(&mut self, path: &str, name: &str, workers: &[WorkerName]) -> Option<WorkerName> {
        let found = workers.iter().find(|w| w.as_str() == name).cloned();
        if found.is_none() {
            let names: Vec<_> = workers.iter().map(WorkerName::as_str).collect();
            let (message, allowed) = unknown("worker", name, &names);
            self.wrong(path, message, allowed);
        }
        found
    }

    fn all_known(
        &mut self,
        path: &str,
        names: Option<&Vec<String>>,
        workers: &[WorkerName],
    ) -> Option<Vec<WorkerName>> {
        let names = names?.iter().enumerate();
        Some(names.filter_map(|(i, n)| self.known(&format!("{path}[{i}]"), n, workers)).collect())
    }

    fn worker(
        &mut self,
        name: &str,
        raw: &RawWorker,
        workers: &[WorkerName],
    ) -> Option<WorkerOverride> {
        let base = format!("workers.{name}");
        if !workers.iter().any(|w| w.as_str() == name) {
            if !own_keys(raw).is_empty() {
                return None; // that its type is missing is said already
            }
            let names: Vec<_> = workers.iter().map(WorkerName::as_str).collect();
            let (message, allowed) = unknown("worker", name, &names);
            let origin = self.tree.key_origin_of(&base);
            self.report.at(&origin, "workers", message, Some(allowed));
            return None;
        }
        let key = |key: &str| format!("{base}.{key}");
        if let (Some(soft), Some(hard)) = (raw.soft_timeout, raw.hard_timeout)
            && soft > hard
        {
            let message =
                format!("`{}` is longer than hard_timeout, {}", soft.exact(), hard.exact());
            self.wrong(&key("soft_timeout"), message, format!("{} or shorter", hard.exact()));
        }
        if raw.lane.as_ref().is_some_and(|l| l.trim().is_empty()) {
            self.wrong(&key("lane"), "the name is empty", "a name, or no such key");
        }
        let zone = raw.time_zone.as_deref();
        let trigger = self.trigger(&base, raw.every, raw.cron.as_deref(), zone);
        if let (Some(jitter), Some(Trigger::Every { period, .. })) = (raw.jitter, &trigger)
            && jitter.0 >= *period
        {
            let message = format!("`{}` is not shorter than `every`", jitter.exact());
            let allowed = format!("shorter than {}", Length(*period).exact());
            self.wrong(&key("jitter"), message, allowed);
        }
        Some(WorkerOverride {
            name: WorkerName::from(name),
            enabled: raw.enabled.unwrap_or(true),
            trigger,
            missed: raw.missed.map(Missed::from),
            jitter: raw.jitter.map(|l| l.0),
            needs: self.all_known(&key("needs"), raw.needs.as_ref(), workers),
            after: self.all_known(&key("after"), raw.after.as_ref(), workers),
            soft_timeout: raw.soft_timeout.map(|l| l.0),
            hard_timeout: raw.hard_timeout.map(|l| l.0),
            lane: raw.lane.clone(),
            stale_after: raw.stale_after.map(|l| l.0),
        })
    }

    /// A trigger by time, of the keys `every`, `cron` and `time_zone` below `base`.
    pub(super) fn trigger(
        &mut self,
        base: &str,
        every: Option<Length>,
        cron: Option<&str>,
        time_zone: Option<&str>,
    ) -> Option<Trigger> {
        let (cron_path, zone_path) = (format!("{base}.cron"), format!("{base}.time_zone"));
        if time_zone.is_some() && cron.is_none() {
            self.wrong(&zone_path, "a time zone without `cron` has no effect", "`cron` beside it");
        }
        if every.is_some() && cron.is_some() {
            self.wrong(&cron_path, "`every` and `cron` exclude each other", "one of the two");
            return None;
        }
        if let Some(every) = every {
            return Some(Trigger::Every { period: every.0, offset: Millis::ZERO });
        }
        let text = cron?;
        // The zone is checked by itself, so that a bad zone does not hide a bad expression.
        let zone = time_zone.unwrap_or("UTC");
        self.zone(&zone_path, zone);
        match Cron::parse(text, "UTC") {
            Ok(utc) => Some(Trigger::Cron(Cron::parse(text, zone).unwrap_or(utc))),
            Err(error) => {
                self.bad_cron(&cron_path, text, &error);
                None
            }
        }
    }

    /// Reports a zone that does not exist.
    pub(super) fn zone(&mut self, path: &str, zone: &str) {
        if let Err(CronError::Zone { zone, hint }) = Cron::parse("* * * * *", zone) {
            let message = format!("time zone `{zone}` is unknown{}", hint.replace("; ", ", "));
            self.wrong(path, message, "an IANA name, such as Europe/Berlin or UTC");
        }
    }

    /// Reports a bad expression, with the caret under the bad part where it stands in one line.
    pub(super) fn bad_cron(&mut self, path: &str, text: &str, error: &CronError) {
        let (message, allowed) = match error {
            CronError::Field { field, part, problem, allowed, .. } => {
                (format!("{field}: `{part}` {problem}"), (*allowed).to_owned())
            }
            CronError::Count { count, .. } => (
                format!("`{text}` has {count} fields"),
                "5 fields (minute hour day-of-month month day-of-week), or 6 with the second first"
                    .to_owned(),
            ),
            CronError::Never { .. } => (
                format!("`{text}` never fires"),
                "a day that a month of the expression has".to_owned(),
            ),
            CronError::Zone { .. } => (error.to_string(), String::new()),
        };
        let mut origin = self.tree.origin_of(path);
        if let (
            CronError::Field { column: inner, part, .. },
            Origin::File { line, column, width },
        ) = (error, &origin)
        {
            // The value may be quoted: then it is two characters wider than its text. A value over
            // several lines, or with escapes, keeps the caret at its beginning.
            let quote = match width.checked_sub(text.chars().count()) {
                Some(0) => Some(0),
                Some(2) => Some(1),
                _ => None,
            };
            if let Some(quote) = quote {
                let lead = text.chars().take_while(|c| c.is_whitespace()).count();
                origin = Origin::File {
                    line: *line,
                    column: column + quote + lead + inner.saturating_sub(1),
                    width: part.chars().count().max(1),
                };
            }
        }
        self.report.at(&origin, path, message, Some(allowed));
    }
}

/// What is wrong with a window's length, and the nearest that are right.
fn window_problem(length: Millis) -> Option<(String, String)> {
    let rule = format!(
        "multiples of {}, {} or longer",
        Length(CYCLE).exact(),
        Length(SHORTEST_WINDOW).exact()
    );
    let text = Length(length).exact();
    if length < SHORTEST_WINDOW {
        let least = Length(SHORTEST_WINDOW).exact();
        return Some((
            format!("a window of {text} is too short"),
            format!("{rule}; the nearest is {least}"),
        ));
    }
    let over = length % CYCLE;
    (over != Millis::ZERO).then(|| {
        let below = Length(length - over);
        let above = Length(length - over + CYCLE);
        (
            format!("a window of {text} is not a whole number of 40s cycles"),
            format!("{rule}; the nearest are {} and {}", below.exact(), above.exact()),
        )
    })
}
