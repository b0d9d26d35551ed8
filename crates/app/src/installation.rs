//! An installation: a data directory with its store, held by one process at a time.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use watchbell_api::discovery::NodeFile;
use watchbell_api::{ControlError, Reason};
use watchbell_core::port::Store;
use watchbell_core::{Time, chain};
use watchbell_db::{Database, DbError, Line, Options, Step, Synchronous};
use watchbell_store::SqlStore;

use crate::config::{self, Config};

/// The lines of migrations, in the order in which they are applied.
pub(crate) const LINES: [Line; 2] = [watchbell_store::LINE, watchbell_market::LINE];

/// A store that is open, with its schema up to date.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) db: Database,
    pub(crate) store: Arc<dyn Store>,
    /// Migrations that were applied just now.
    pub(crate) migrated: Vec<Step>,
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
pub(crate) async fn open(config: &Config, now: Time) -> Result<Opened, ControlError> {
    let db = database(config, true)?;
    let migrated = db.migrate(&LINES, now).await.map_err(|e| trouble(&e))?;
    let store = Arc::new(SqlStore::new(db.clone()));
    Ok(Opened { db, store, migrated })
}

/// Opens a store that must exist, for a command that only asks. A schema that is older than this
/// binary is brought up to date, as by any other start.
pub(crate) async fn open_existing(config: &Config, now: Time) -> Result<Opened, ControlError> {
    if !config.store.path.exists() {
        return Err(ControlError::unavailable(format!(
            "there is no store at {}",
            config.store.path.display()
        ))
        .help(
            "start one with `watchbell up` or `watchbell demo`, or name it with --data-dir DIR",
        ));
    }
    open(config, now).await
}

/// Opens the database file.
pub(crate) fn database(config: &Config, create: bool) -> Result<Database, ControlError> {
    let mut options = Options::new(&config.store.path);
    options.synchronous = match config.store.synchronous {
        config::Synchronous::Off => Synchronous::Off,
        config::Synchronous::Normal => Synchronous::Normal,
        config::Synchronous::Full => Synchronous::Full,
        config::Synchronous::Extra => Synchronous::Extra,
    };
    options.readers = config.store.readers as usize;
    options.create = create;
    Database::open(&options).map_err(|e| trouble(&e))
}

/// A database error, for the operator. Its own text says what to do.
pub(crate) fn trouble(error: &DbError) -> ControlError {
    ControlError::unavailable(chain(error))
}

/// Where the copy of a replaced store goes.
pub(crate) fn set_aside(path: &Path, now: Time) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".replaced-{}", now.0));
    PathBuf::from(name)
}
