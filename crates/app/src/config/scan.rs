//! Scans: the `scan` section, and the file of their jobs, which has the shape that scans have had since
//! before Watchbell.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};
use watchbell_core::Millis;
use watchbell_core::schedule::Cron;
use watchbell_scan::config::{Job, Kind, Ranks};
use watchbell_venues::native::{NativeConfig, Venue};

use super::check::{self, Report, unknown};
use super::problem::{ConfigError, Origin, Source};
use super::raw::{Length, LogLevel};
use super::resolve::Resolver;
use super::tree::Node;

/// The jobs that are known where there is no file of them.
const BUILT_IN: &str = include_str!("../../../../config/scheduler.yaml");

/// Where artifacts are: the first part of every `artifacts_dir`.
const ARTIFACTS: &str = "artifacts";

/// Signal scans.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawScan {
    /// The file of their jobs. Relative to the working directory. Where it exists, its jobs run in the
    /// profile `default`; without it scan.hot, scan.warm and regime.refresh are known all the same, and
    /// run in the profiles `scan` and `all`.
    pub(crate) scheduler: String,
    /// Symbols that no scan considers, such as DOGE/USD.
    pub(crate) do_not_trade: Vec<String>,
    /// Whether stale bars, a move that is over and late books exclude a symbol; otherwise they are only
    /// reported.
    pub(crate) enforce_guards: bool,
    /// Whether only books quoted in USD count; otherwise books in USDT stand in for them at OKX and
    /// Binance, and say so.
    pub(crate) strict_usd: bool,
    /// How long artifacts and verdicts are kept; the newest artifact always is.
    #[schemars(extend("x-minimum" = "1h"))]
    pub(crate) keep: Length,
    /// Changes to how an exchange is asked: kraken, okx, coinbase or binance.
    pub(crate) venues: BTreeMap<String, RawExchange>,
}

impl Default for RawScan {
    fn default() -> Self {
        Self {
            scheduler: "config/scheduler.yaml".to_owned(),
            do_not_trade: Vec::new(),
            enforce_guards: true,
            strict_usd: false,
            keep: Length(Millis::from_days(14)),
            venues: BTreeMap::new(),
        }
    }
}

/// How an exchange is asked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RawExchange {
    /// Its REST address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) base_url: Option<String>,
    /// How long one request may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_timeout: Option<Length>,
    /// Requests a second.
    #[schemars(range(min = 0.01, max = 1000.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<f64>,
    /// Requests at once after a pause.
    #[schemars(range(min = 1, max = 10000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) burst: Option<u32>,
    /// Requests a day, by UTC.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) daily_budget: Option<u32>,
}

/// The jobs of scans.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct RawScheduler {
    global: RawGlobal,
    jobs: Vec<RawJob>,
}

/// What all jobs share.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct RawGlobal {
    artifacts_dir: String,
    log_level: Option<LogLevel>,
    timezone: String,
}

impl Default for RawGlobal {
    fn default() -> Self {
        Self {
            artifacts_dir: format!("{ARTIFACTS}/signals"),
            log_level: None,
            timezone: "UTC".to_owned(),
        }
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawJob {
    name: String,
    schedule: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    config: RawJobConfig,
}

const fn yes() -> bool {
    true
}

/// What a job does; each key has a default by the job's type.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct RawJobConfig {
    universe: Option<String>,
    venues: Option<Vec<String>>,
    #[schemars(range(min = 1, max = 1000))]
    max_sample: Option<u32>,
    #[schemars(range(min = 1, max = 86400))]
    ttl: Option<u32>,
    #[schemars(range(min = 1, max = 1000))]
    top_n: Option<u32>,
    premove: Option<bool>,
    regime_aware: Option<bool>,
    output_dir: Option<String>,
}

/// The scans of a configuration.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    /// Everything that the workers are told.
    pub(crate) config: watchbell_scan::Config,
    /// Whether their jobs were read from a file, and so are wanted in the default profile.
    pub(crate) from_file: bool,
    /// The log level that the file of jobs asks for.
    pub(crate) log_level: Option<LogLevel>,
}

impl Resolver<'_, '_> {
    /// Reads the file of jobs. What is wrong in it is added to `elsewhere`, with its places there.
    pub(super) fn scan(
        &mut self,
        raw: &RawScan,
        dir: &Path,
        elsewhere: &mut Vec<super::problem::Problem>,
    ) -> Scan {
        let source = self.jobs_file(raw, dir);
        let from_file = source.is_some();
        let source = source
            .unwrap_or_else(|| Source { name: "built-in jobs".into(), text: BUILT_IN.to_owned() });
        let jobs = jobs(&source).unwrap_or_else(|error| {
            elsewhere.extend(error.problems);
            Jobs::default()
        });
        let mut config = watchbell_scan::Config::new(jobs.jobs);
        config.keep = raw.keep.0;
        config.enforce_guards = raw.enforce_guards;
        config.strict_usd = raw.strict_usd;
        config.do_not_trade = self.symbols(&raw.do_not_trade);
        for (name, exchange) in &raw.venues {
            match name.parse::<Venue>() {
                Ok(venue) => {
                    config.venues.insert(venue, self.exchange(venue, exchange));
                }
                Err(e) => self.wrong(&format!("scan.venues.{name}"), e.to_string(), venues()),
            }
        }
        Scan { config, from_file, log_level: jobs.log_level }
    }

    /// The file of jobs, where it exists. One of another name than the usual must.
    fn jobs_file(&mut self, raw: &RawScan, dir: &Path) -> Option<Source> {
        let path = PathBuf::from(&raw.scheduler);
        let named = raw.scheduler != RawScan::default().scheduler;
        match std::fs::read_to_string(dir.join(&path)) {
            Ok(text) => Some(Source { name: raw.scheduler.clone(), text }),
            Err(e) if e.kind() == ErrorKind::NotFound && !named => None,
            Err(e) => {
                let message = format!("cannot read {}: {e}", raw.scheduler);
                self.wrong("scan.scheduler", message, "a file of jobs, or no such key");
                None
            }
        }
    }

    fn symbols(&mut self, symbols: &[String]) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for (i, symbol) in symbols.iter().enumerate() {
            let base = symbol.strip_suffix("/USD").unwrap_or_default();
            if base.is_empty()
                || !base.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
            {
                let message = format!("`{symbol}` is not a symbol of the scans");
                self.wrong(&format!("scan.do_not_trade[{i}]"), message, "such as DOGE/USD");
            }
            all.insert(symbol.clone());
        }
        all
    }

    fn exchange(&mut self, venue: Venue, raw: &RawExchange) -> NativeConfig {
        let before = self.report.problems.len();
        let mut config = NativeConfig::of(venue);
        if let Some(url) = &raw.base_url {
            let path = format!("scan.venues.{venue}.base_url");
            config.base_url = self.url(&path, url, ["https://", "http://"]);
        }
        if let Some(timeout) = &raw.request_timeout {
            config.timeout = timeout.0;
        }
        config.rate_per_second = raw.rate.unwrap_or(config.rate_per_second);
        config.burst = raw.burst.unwrap_or(config.burst);
        if let Some(budget) = raw.daily_budget {
            config.daily_budget = budget.into();
        }
        if self.report.problems.len() == before
            && let Err(e) = config.check(venue)
        {
            let path = format!("scan.venues.{venue}.base_url");
            self.wrong(&path, e.to_string(), "an address of the exchange, or of this machine");
        }
        config
    }
}

#[derive(Default)]
struct Jobs {
    jobs: Vec<Job>,
    log_level: Option<LogLevel>,
}

fn venues() -> String {
    Venue::ALL.map(Venue::as_str).join(", ")
}

/// Reads a file of jobs.
fn jobs(source: &Source) -> Result<Jobs, ConfigError> {
    let tree = Node::parse(source)?;
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<RawScheduler>().to_value();
    let mut report = Report { source: Some(source), problems: Vec::new() };
    let right = check::check(&tree, &schema, "", &mut report).unwrap_or_default();
    let raw = serde_json::from_value::<RawScheduler>(right).unwrap_or_else(|error| {
        if report.problems.is_empty() {
            report.at(&Origin::Default, "", error.to_string(), None);
        }
        RawScheduler::default()
    });
    let mut reader = Resolver { tree: &tree, report: &mut report };
    let shared = reader.directory("global.artifacts_dir", &raw.global.artifacts_dir);
    reader.zone("global.timezone", &raw.global.timezone);
    let mut jobs: Vec<Job> = Vec::new();
    for (i, job) in raw.jobs.iter().enumerate() {
        if jobs.iter().any(|other| other.name.as_str() == job.name) {
            let message = format!("there are two jobs `{}`", job.name);
            reader.wrong(&format!("jobs[{i}].name"), message, "each name once");
        } else if let Some(job) = reader.job(i, job, &raw.global, &shared) {
            jobs.push(job);
        }
    }
    ConfigError::check(report.problems)?;
    Ok(Jobs { jobs, log_level: raw.global.log_level })
}

/// A [`Resolver`] of a file of jobs.
impl Resolver<'_, '_> {
    fn job(&mut self, i: usize, raw: &RawJob, global: &RawGlobal, shared: &str) -> Option<Job> {
        let at = |key: &str| format!("jobs[{i}].{key}");
        let name = raw.name.trim();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        if name.is_empty() || !name.chars().all(plain) {
            let message = format!("`{}` is not a name", raw.name);
            self.wrong(&at("name"), message, "small letters, digits, `.`, `-` and `_`");
        }
        let Ok(kind) = raw.kind.parse::<Kind>() else {
            let (message, allowed) = unknown("type", &raw.kind, &Kind::ALL.map(Kind::as_str));
            self.wrong(&at("type"), message, allowed);
            return None;
        };
        let schedule = self.schedule(i, &raw.schedule, &global.timezone);
        let config = &raw.config;
        let universe = config.universe.as_deref().and_then(|written| {
            let ranks = written.parse::<Ranks>().ok();
            if ranks.is_none() {
                let message = format!("`{written}` is not a universe");
                self.wrong(&at("config.universe"), message, "top30 (any number), remaining, all");
            }
            ranks
        });
        let venues = config.venues.as_ref().map(|names| self.job_venues(i, names));
        let artifacts = match &config.output_dir {
            None => shared.to_owned(),
            Some(dir) => self.directory(&at("config.output_dir"), dir),
        };
        let usual = Job::new(name, kind, schedule?);
        Some(Job {
            enabled: raw.enabled,
            description: raw.description.clone().unwrap_or(usual.description),
            universe: universe.unwrap_or(usual.universe),
            venues: venues.unwrap_or(usual.venues),
            max_sample: config.max_sample.map_or(usual.max_sample, |n| n as usize),
            ttl: config.ttl.map_or(usual.ttl, |s| Millis::from_secs(s.into())),
            top_n: config.top_n.map_or(usual.top_n, |n| n as usize),
            premove: config.premove.unwrap_or(usual.premove),
            regime_aware: config.regime_aware.unwrap_or(usual.regime_aware),
            artifacts,
            ..usual
        })
    }

    /// The zone is checked by itself, so that a bad zone does not hide a bad expression.
    fn schedule(&mut self, i: usize, expression: &str, zone: &str) -> Option<Cron> {
        let path = format!("jobs[{i}].schedule");
        match Cron::parse(expression, "UTC") {
            Ok(utc) => Some(Cron::parse(expression, zone).unwrap_or(utc)),
            Err(error) => {
                self.bad_cron(&path, expression, &error);
                None
            }
        }
    }

    fn job_venues(&mut self, i: usize, names: &[String]) -> Vec<Venue> {
        let mut all = Vec::new();
        for (n, name) in names.iter().enumerate() {
            let path = format!("jobs[{i}].config.venues[{n}]");
            match name.parse::<Venue>() {
                Ok(venue) if all.contains(&venue) => {
                    self.wrong(&path, format!("`{venue}` is here twice"), "each venue once");
                }
                Ok(venue) => all.push(venue),
                Err(e) => self.wrong(&path, e.to_string(), venues()),
            }
        }
        if names.is_empty() {
            let path = format!("jobs[{i}].config.venues");
            self.wrong(&path, "the list is empty", "one venue or more, the primary one first");
        }
        if let Some(first @ Venue::Coinbase) = all.first() {
            let path = format!("jobs[{i}].config.venues[0]");
            let message = format!("`{first}` does not tell what all its markets trade");
            self.wrong(&path, message, "kraken, okx or binance as the first");
        }
        all
    }

    /// The name of artifacts that a directory stands for: `artifacts/signals` is `signals` below the
    /// data directory's `artifacts`.
    fn directory(&mut self, path: &str, written: &str) -> String {
        let trimmed = written.trim_end_matches('/');
        let name = trimmed.strip_prefix(ARTIFACTS).and_then(|rest| rest.strip_prefix('/'));
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        match name {
            Some(name) if !name.is_empty() && name.chars().all(plain) => name.to_owned(),
            _ => {
                let message = format!("`{written}` is not a directory of artifacts");
                let allowed = format!("{ARTIFACTS}/NAME, which is below the data directory");
                self.wrong(path, message, allowed);
                String::new()
            }
        }
    }
}
