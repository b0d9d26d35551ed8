//! An installation: a data directory, held by one process at a time, and the store that its
//! configuration names: a SQLite file of its own, or a PostgreSQL server that it may share.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use watchbell_api::discovery::NodeFile;
use watchbell_api::{ControlError, Reason};
use watchbell_clock::Clock;
use watchbell_core::port::Store;
use watchbell_core::{Millis, Time, chain};
use watchbell_db::{Database, DbError, Engine, Line, Options, Step, Synchronous, transfer};
use watchbell_store::SqlStore;

use crate::config::{self, Config};

/// The lines of migrations, in the order in which they are applied.
pub(crate) const LINES: [Line; 3] =
    [watchbell_store::LINE, watchbell_market::LINE, watchbell_scan::LINE];

/// Seconds between tries to reach a server, the last number again and again.
const PAUSES: [i64; 6] = [1, 2, 4, 8, 15, 30];

/// A store that is open, with its schema up to date.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) db: Database,
    pub(crate) store: Arc<dyn Store>,
    /// Migrations that were applied just now.
    pub(crate) migrated: Vec<Step>,
}

impl Opened {
    /// Whether other nodes may be working on the same store.
    pub(crate) fn shared(&self) -> bool {
        self.db.engine() == Engine::Postgres
    }
}

/// Who opens a store.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Opener<'a> {
    /// A command: it does its work and goes.
    Command,
    /// A node, which listens to others, and whose clock this is.
    Node(&'a Clock),
}

/// The right to write an installation. Given back when it is dropped, or by the end of the process
/// however it comes.
#[derive(Debug)]
pub(crate) struct Held {
    _lock: File,
}

/// Takes the data directory, and makes it when it is missing.
pub(crate) fn hold(data_dir: &Path) -> Result<Held, ControlError> {
    let refuse = |what: &str, source: &io::Error| {
        ControlError::unavailable(Reason::from(format!(
            "cannot {what} the data directory {}",
            data_dir.display()
        )))
        .because(source)
        .help("choose one that you may write with --data-dir DIR, or change its permissions")
    };
    fs::create_dir_all(data_dir).map_err(|e| refuse("create", &e))?;
    let path = data_dir.join("node.lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|e| refuse("write to", &e))?;
    match lock.try_lock() {
        Ok(()) => Ok(Held { _lock: lock }),
        Err(TryLockError::WouldBlock) => Err(taken(data_dir)),
        Err(TryLockError::Error(e)) => Err(refuse("lock", &e)),
    }
}

/// Whether another process holds the data directory.
pub(crate) fn in_use(data_dir: &Path) -> bool {
    let lock = File::options().write(true).open(data_dir.join("node.lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}

fn taken(data_dir: &Path) -> ControlError {
    let holder = NodeFile::read(data_dir).ok().flatten();
    let by = holder.map_or_else(
        || "another process".to_owned(),
        |n| format!("the node with process id {} ({})", n.pid, n.url),
    );
    ControlError::conflict(format!("the data directory {} is in use by {by}", data_dir.display()))
        .help("stop that process, or choose another directory with --data-dir DIR")
}

/// Opens the store of a configuration and brings its schema up to date.
pub(crate) async fn open(
    config: &Config,
    opener: Opener<'_>,
    now: Time,
) -> Result<Opened, ControlError> {
    try_open(config, opener, now).await.map_err(|e| trouble(&e))
}

/// As [`open`], for a node: a server that is away is waited for.
pub(crate) async fn open_patiently(config: &Config, clock: &Clock) -> Result<Opened, ControlError> {
    let wall = Clock::system();
    let mut pauses = PAUSES.into_iter().map(Millis::from_secs);
    let mut pause = Millis::ZERO;
    // Nodes that lost one server together do not come back in the same moment.
    let spread = Millis(i64::from(std::process::id() % 500));
    loop {
        match try_open(config, Opener::Node(clock), clock.now()).await {
            Err(e @ (DbError::Unreachable { .. } | DbError::NoConnection { .. })) => {
                pause = pauses.next().unwrap_or(pause);
                let next = pause + spread;
                tracing::warn!("{}; trying again in {next}", chain(&e));
                wall.sleep(next).await;
            }
            other => return other.map_err(|e| trouble(&e)),
        }
    }
}

async fn try_open(config: &Config, opener: Opener<'_>, now: Time) -> Result<Opened, DbError> {
    let db = connect(&config.store, true).await?;
    let migrated = db.migrate(&LINES, now).await?;
    for step in &migrated {
        tracing::debug!("applied migration {step}");
    }
    Ok(Opened { store: store(&db, opener), db, migrated })
}

fn store(db: &Database, opener: Opener<'_>) -> Arc<dyn Store> {
    match opener {
        Opener::Command => Arc::new(SqlStore::new(db.clone())),
        Opener::Node(clock) => Arc::new(SqlStore::listening(db.clone(), clock)),
    }
}

/// Opens a store that must exist, for a command. A file of an older schema is brought up to date, as
/// by any other start; a server's schema is left to `up` and `db migrate`, since other nodes may be
/// using it.
pub(crate) async fn open_existing(config: &Config, now: Time) -> Result<Opened, ControlError> {
    let location = config.store.location();
    let missing = || {
        ControlError::unavailable(format!("there is no store at {location}")).help(
            "start one with `watchbell up` or `watchbell demo`, or name it with --data-dir DIR",
        )
    };
    match &config.store {
        config::Store::File(file) if !file.path.exists() => Err(missing()),
        config::Store::File(_) => open(config, Opener::Command, now).await,
        config::Store::Server(_) => {
            let db = database(&config.store, false).await?;
            if transfer::is_blank(&db).await.map_err(|e| trouble(&e))? {
                return Err(missing());
            }
            up_to_date(&db, &location).await?;
            let store = store(&db, Opener::Command);
            Ok(Opened { db, store, migrated: Vec::new() })
        }
    }
}

/// Opens the store beside the node that works on it: nothing is brought up to date under its feet.
pub(crate) async fn open_beside(config: &Config) -> Result<Database, ControlError> {
    let db = database(&config.store, false).await?;
    up_to_date(&db, &config.store.location()).await?;
    Ok(db)
}

/// Refuses a store that lacks a migration.
async fn up_to_date(db: &Database, location: &str) -> Result<(), ControlError> {
    match db.pending(&LINES).await.map_err(|e| trouble(&e))?.first() {
        None => Ok(()),
        Some(step) => {
            Err(ControlError::conflict(format!("the store {location} lacks the migration {step}"))
                .help("`watchbell db migrate` brings it up to this version, and so does `up`"))
        }
    }
}

/// Whether there is a store at all where the configuration says.
pub(crate) async fn exists(config: &Config) -> Result<bool, ControlError> {
    match &config.store {
        config::Store::File(file) => Ok(file.path.exists()),
        config::Store::Server(_) => {
            let db = database(&config.store, false).await?;
            let blank = transfer::is_blank(&db).await.map_err(|e| trouble(&e))?;
            db.close().await.map_err(|e| trouble(&e))?;
            Ok(!blank)
        }
    }
}

/// Opens the database of a store as it is.
pub(crate) async fn database(
    store: &config::Store,
    create: bool,
) -> Result<Database, ControlError> {
    connect(store, create).await.map_err(|e| trouble(&e))
}

async fn connect(store: &config::Store, create: bool) -> Result<Database, DbError> {
    let file = match store {
        config::Store::Server(options) => return Database::connect(options).await,
        config::Store::File(file) => file,
    };
    let mut options = Options::new(&file.path);
    options.synchronous = match file.synchronous {
        config::Synchronous::Off => Synchronous::Off,
        config::Synchronous::Normal => Synchronous::Normal,
        config::Synchronous::Full => Synchronous::Full,
        config::Synchronous::Extra => Synchronous::Extra,
    };
    options.readers = file.readers as usize;
    options.create = create;
    Database::open(&options)
}

/// A database error, for the operator. Its own text says what to do.
pub(crate) fn trouble(error: &DbError) -> ControlError {
    match error {
        DbError::Exists { .. } => ControlError::conflict(chain(error)),
        _ => ControlError::unavailable(chain(error)),
    }
}

/// `watchbell.db` and `.replaced-1` make `watchbell.db.replaced-1`.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
