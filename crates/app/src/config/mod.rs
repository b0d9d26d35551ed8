//! Configuration: one YAML file and the environment, read once, before anything is opened.
//!
//! ```text
//! flags > environment > .env > file > defaults
//!                 |
//!        tree (each value knows its place)  --check-->  Raw (as written)  --resolve-->  Config
//! ```
//!
//! [`Config::load`] finds everything that is wrong in one go. What it returns is fully checked:
//! nothing after it validates again, and an `Option` in it has a meaning of its own. There is no
//! global configuration; the parts are passed on as values.
//!
//! The keys and their documentation are in [`raw`]. To add one: a field there with its comment and
//! default, a field in [`resolve`], and a line in `examples/watchbell.yaml`.

mod apply;
mod check;
mod env;
mod exec;
mod print;
mod problem;
mod raw;
mod resolve;
mod scan;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use watchbell_core::WorkerName;
use watchbell_core::worker::Profiles;
use watchbell_venues::binance::{Credentials, CredentialsError};

pub(crate) use env::{Env, Gate, run_jobs_gate};
pub(crate) use exec::Program;
pub(crate) use print::{default_yaml, schema};
pub(crate) use problem::ConfigError;
pub(crate) use raw::{Log, LogFormat, Synchronous};
pub(crate) use resolve::{Market, Store, StoreFile, Venue};
pub(crate) use scan::Scan;

use check::Report;
use problem::{Origin, Problem, Source};
use raw::Raw;
use resolve::{Http, NodeTimes, Profile, Retention, WorkerOverride};
use tree::Node;

/// The file that is read when none is named and it exists.
const DEFAULT_FILE: &str = "watchbell.yaml";

/// Everything that a configuration is made from.
pub(crate) struct Sources<'a> {
    /// The working directory: relative paths begin here, and `watchbell.yaml` is looked for here.
    pub(crate) dir: PathBuf,
    /// `--config FILE`.
    pub(crate) file: Option<PathBuf>,
    /// The environment.
    pub(crate) env: &'a Env,
    /// The flags.
    pub(crate) overrides: Overrides,
    /// The workers and built-in profiles that exist for a market of that shape, whose window workers
    /// are named after its windows, and for those jobs of scans.
    pub(crate) catalog: &'a dyn Fn(&Market, &Scan) -> Catalog,
}

impl fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("dir", &self.dir)
            .field("file", &self.file)
            .field("overrides", &self.overrides)
            .finish_non_exhaustive()
    }
}

/// What flags say; they win over everything else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Overrides {
    /// `--data-dir DIR`.
    pub(crate) data_dir: Option<PathBuf>,
    /// `--http-port PORT`.
    pub(crate) http_port: Option<u16>,
    /// `--profile NAME`.
    pub(crate) profile: Option<String>,
}

/// The workers that exist, and the built-in profiles over them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Catalog {
    /// Every worker.
    pub(crate) workers: Vec<WorkerName>,
    /// Profiles by name; `default` and `all` at least.
    pub(crate) profiles: Profiles,
}

/// The configuration, checked.
#[derive(Clone)]
pub(crate) struct Config {
    /// Where everything is kept; absolute when the working directory is.
    pub(crate) data_dir: PathBuf,
    /// The database.
    pub(crate) store: Store,
    /// The HTTP interface.
    pub(crate) http: Http,
    /// Logging.
    pub(crate) log: Log,
    /// Leases, shutdown, health.
    pub(crate) node: NodeTimes,
    /// How long finished things stay.
    pub(crate) retention: Retention,
    /// The exchange.
    pub(crate) venue: Venue,
    /// Market data and windows.
    pub(crate) market: Market,
    /// Signal scans.
    pub(crate) scan: Scan,
    /// What `up` runs.
    pub(crate) profile: Profile,
    /// Workers of the team's own.
    pub(crate) programs: Vec<Program>,
    /// Changes to workers.
    pub(crate) workers: Vec<WorkerOverride>,
    /// What was accepted and may still be a mistake; for the log and `config check`.
    pub(crate) warnings: Vec<String>,
    raw: Raw,
    tree: Node,
    source: Option<Source>,
}

impl fmt::Debug for Config {
    /// What it was made from may hold passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("data_dir", &self.data_dir)
            .field("store", &self.store)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Reads, checks and resolves the configuration. Opens nothing but the file.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem found: a file that is not YAML has one, any other file
    /// all of them.
    pub(crate) fn load(sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let source = read_file(sources)?;
        let schema = schema();
        let mut tree = match &source {
            Some(source) => Node::parse(source)?,
            None => Node::empty(),
        };
        let mut report = Report { source: source.as_ref(), problems: Vec::new() };
        let mut warnings = Vec::new();
        overlay_env(&mut tree, sources.env, &schema, &mut report, &mut warnings);
        overlay_flags(&mut tree, &sources.overrides);
        let right = check::check(&tree, &schema, "", &mut report)
            .unwrap_or_else(|| serde_json::Value::Object(serde_json::Map::new()));
        let raw = serde_json::from_value::<Raw>(right).unwrap_or_else(|error| {
            // The schema is generated from `Raw`, so what it lets through can be read; should the
            // two ever differ, this is a refusal and no panic.
            report.at(&Origin::Default, "", error.to_string(), None);
            Raw::default()
        });
        let config = resolve::resolve(raw, tree, &sources.dir, sources.catalog, &mut report);
        let credentials = credentials(&config.venue, sources.env).unwrap_or_else(|(path, error)| {
            let origin = config.tree.origin_of(path);
            let allowed = "a file of mode 0600 with `api_key = ...` and `api_secret = ...`, or both \
                           variables";
            report.at(&origin, path, watchbell_core::chain(&error), Some(allowed.to_owned()));
            None
        });
        let problems = report.problems;
        ConfigError::check(problems)?;
        warnings.extend(config.warnings.iter().cloned());
        let venue = Venue { credentials, ..config.venue };
        Ok(Self { warnings, source, venue, ..config })
    }

    /// The store that another URL names, with this configuration's keys for the rest.
    ///
    /// # Errors
    /// What is wrong with the URL, and what would be right.
    pub(crate) fn store_at(&self, url: &str) -> Result<Store, (String, String)> {
        Store::at(url, &self.data_dir, &self.raw.store)
    }

    /// Workers that `enabled: false` keeps from running.
    pub(crate) fn disabled(&self) -> Vec<WorkerName> {
        self.workers.iter().filter(|w| !w.enabled).map(|w| w.name.clone()).collect()
    }

    /// The file that was read, as it was named.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.source.as_ref().map(|s| Path::new(&s.name))
    }
}

/// The variables with the account's key and its secret.
const CREDENTIALS: (&str, &str) = ("WATCHBELL_BINANCE_KEY", "WATCHBELL_BINANCE_SECRET");

/// The account's key: from the file that is named, else from the environment, else none.
fn credentials(
    venue: &Venue,
    env: &Env,
) -> Result<Option<Credentials>, (&'static str, CredentialsError)> {
    if let Some(file) = &venue.credentials_file {
        return Credentials::from_file(file).map(Some).map_err(|e| ("venue.credentials", e));
    }
    Credentials::from_variables(
        |name| env.get(name).filter(|text| !text.is_empty()),
        CREDENTIALS.0,
        CREDENTIALS.1,
    )
    .map_err(|e| ("venue.credentials", e))
}

/// `--config`, else `WATCHBELL_CONFIG`, else `./watchbell.yaml` where it exists, else none.
fn read_file(sources: &Sources<'_>) -> Result<Option<Source>, ConfigError> {
    let from_env = sources.env.set_one("WATCHBELL_CONFIG");
    let (name, named_by) = match (&sources.file, from_env) {
        (Some(file), _) => (file.clone(), Some(Origin::Flag { name: "--config" })),
        (None, Some((file, origin))) => (PathBuf::from(file), Some(origin)),
        (None, None) => (PathBuf::from(DEFAULT_FILE), None),
    };
    match std::fs::read(sources.dir.join(&name)) {
        Ok(bytes) => {
            let name = name.display().to_string();
            let text = String::from_utf8(bytes).map_err(|e| {
                let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()]
                    .iter()
                    .filter(|b| **b == b'\n')
                    .count();
                unreadable(&Origin::Default, format!("{name}:{line}: not UTF-8 text"))
            })?;
            Ok(Some(Source { name, text }))
        }
        Err(e) if e.kind() == ErrorKind::NotFound && named_by.is_none() => Ok(None),
        Err(e) => {
            let origin = named_by.unwrap_or(Origin::Default);
            Err(unreadable(&origin, format!("cannot read {}: {e}", name.display())))
        }
    }
}

fn unreadable(origin: &Origin, message: String) -> ConfigError {
    ConfigError { problems: vec![Problem::new(origin, None, "", message, None)] }
}

/// Variables without `__` that are no keys: ours for other purposes, and what a program that is a
/// worker is told, for it may call `watchbell` itself.
const OTHER_VARIABLES: [&str; 17] = [
    CREDENTIALS.0,
    CREDENTIALS.1,
    "WATCHBELL_CONFIG",
    "WATCHBELL_LOG",
    "WATCHBELL_WORKER",
    "WATCHBELL_CYCLE_",
    "WATCHBELL_TOKEN",
    "WATCHBELL_ATTEMPT",
    "WATCHBELL_CAUSE",
    "WATCHBELL_DUE",
    "WATCHBELL_WINDOW_",
    "WATCHBELL_EVENT_",
    "WATCHBELL_JOB_",
    "WATCHBELL_INPUT",
    "WATCHBELL_STAGE",
    "WATCHBELL_RUN",
    "WATCHBELL_DRY_RUN",
];

/// Lays the environment over the file. `WATCHBELL_*` wins over the older names.
fn overlay_env(
    tree: &mut Node,
    env: &Env,
    schema: &serde_json::Value,
    report: &mut Report<'_>,
    warnings: &mut Vec<String>,
) {
    let path = |keys: [&str; 2]| keys.map(str::to_owned);
    if let Some((url, origin)) = env.set_one("DATABASE_URL") {
        tree.put(&path(["store", "url"]), Node::outside(url, &origin));
    }
    for name in env::OLDER {
        let Some((value, origin)) = env.set_one(name) else { continue };
        match env::older(name, value) {
            Some(env::Older::Key(path, value)) => {
                let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
                tree.put(&path, Node::outside(&value, &origin));
            }
            Some(env::Older::Nothing(why)) => {
                warnings.push(format!("environment variable {name}: {why}: the default holds"));
            }
            None => {}
        }
    }
    for (name, value, origin) in env.set().filter(|(name, ..)| name.starts_with("WATCHBELL_")) {
        if OTHER_VARIABLES.iter().any(|o| name == *o || (o.ends_with('_') && name.starts_with(o))) {
            continue;
        }
        match check::target(name, schema) {
            check::Target::Key(path) => tree.put(&path, Node::outside(value, &origin)),
            check::Target::Section(key) => {
                let allowed = format!("a key of it, such as {key}");
                report.at(&origin, "", "names a section, not a key", Some(allowed));
            }
            check::Target::Unknown(message, known) if name.contains("__") => {
                report.at(&origin, "", message, Some(known));
            }
            // Without `__` it may be another program's variable.
            check::Target::Unknown(message, _) => {
                warnings.push(format!("environment variable {name}: {message}: ignored"));
            }
        }
    }
}

fn overlay_flags(tree: &mut Node, flags: &Overrides) {
    let flag = |text: &str, name| {
        let origin = Origin::Flag { name };
        Node { origin, data: tree::Data::Scalar(text.to_owned()) }
    };
    if let Some(dir) = &flags.data_dir {
        tree.put(&["data_dir".to_owned()], flag(&dir.to_string_lossy(), "--data-dir"));
    }
    if let Some(profile) = &flags.profile {
        tree.put(&["profile".to_owned()], flag(profile, "--profile"));
    }
    if let Some(port) = flags.http_port {
        let default = Raw::default().http.bind;
        let bind = tree.text("http.bind").unwrap_or(&default);
        // An address that is wrong is reported where it is written, not as the flag's fault.
        if let Ok(address) = resolve::loopback(bind) {
            let text = SocketAddr::new(address.ip(), port).to_string();
            tree.put(&["http".to_owned(), "bind".to_owned()], flag(&text, "--http-port"));
        }
    }
}
