//! `db migrate | check | backup | restore | move`.

mod artifacts;
mod check;
mod mark;
mod moving;
mod restore;

use std::path::Path;

use serde_json::json;
use watchbell_api::{ControlError, Reason};
use watchbell_cli::args::DbCommand;
use watchbell_cli::{Exit, Out, Progress};
use watchbell_clock::Clock;
use watchbell_core::port::Store;
use watchbell_core::{Time, chain};
use watchbell_db::transfer::{self, TransferError, Transferred};
use watchbell_db::{Backup, Database, DbError, Options, Synchronous};

use crate::config::Config;
use crate::installation::{self, LINES, Opened, beside, trouble};

pub(crate) use mark::Mark;

/// Carries out a `db` command.
pub(crate) async fn run(
    command: &DbCommand,
    config: &Config,
    out: &mut Out,
) -> Result<Exit, ControlError> {
    match command {
        DbCommand::Migrate => migrate(config, out).await,
        DbCommand::Check => check::run(config, out).await,
        DbCommand::Backup { file } => backup(config, file, out).await,
        DbCommand::Restore { file, force } => restore::run(config, file, *force, out).await,
        DbCommand::Move { to } => moving::run(config, to, out).await,
    }
}

async fn migrate(config: &Config, out: &mut Out) -> Result<Exit, ControlError> {
    let _held = installation::hold(&config.data_dir)?;
    let opener = installation::Opener::Command;
    let opened = installation::open(config, opener, Clock::system().now()).await?;
    let location = config.store.location();
    let steps: Vec<String> = opened.migrated.iter().map(ToString::to_string).collect();
    let answer = json!({ "path": location, "applied": steps });
    out.data(&answer, |_, _| {
        if steps.is_empty() {
            return format!("{location} is up to date\n");
        }
        steps.iter().map(|s| format!("applied {s}\n")).collect()
    })?;
    opened.db.close().await.map_err(|e| trouble(&e))?;
    Ok(Exit::Ok)
}

async fn backup(config: &Config, file: &Path, out: &mut Out) -> Result<Exit, ControlError> {
    let now = Clock::system().now();
    let opened = installation::open_existing(config, now).await?;
    let copy = copy_to_file(&opened, file, &Progress::fitting(out.quiet || out.json), now).await?;
    let answer = json!({ "path": copy.path, "bytes": copy.bytes });
    out.data(&answer, |_, _| format!("{} ({} bytes)\n", copy.path.display(), copy.bytes))?;
    Ok(Exit::Ok)
}

/// Writes a store into one SQLite file, whole or not at all, while work goes on. A file is copied as
/// it is; of a server's store all rows of one instant are written into a new file.
async fn copy_to_file(
    opened: &Opened,
    file: &Path,
    progress: &Progress,
    now: Time,
) -> Result<Backup, ControlError> {
    if !opened.shared() {
        return opened.db.backup(file, false).await.map_err(|e| trouble(&e));
    }
    if file.exists() {
        return Err(trouble(&DbError::Exists { path: file.to_owned() }));
    }
    let staged = Staged::new(file)?;
    let copy = staged.open().await?;
    copy.migrate(&LINES, now).await.map_err(|e| trouble(&e))?;
    transferred(&opened.db, &copy, progress).await?;
    let backup = copy.backup(file, false).await.map_err(|e| trouble(&e))?;
    copy.close().await.map_err(|e| trouble(&e))?;
    Ok(backup)
}

/// A SQLite file that is being made, removed with what SQLite keeps beside it when it is dropped.
struct Staged(std::path::PathBuf);

impl Staged {
    /// Beside `target`. What an earlier attempt left there goes.
    fn new(target: &Path) -> Result<Self, ControlError> {
        let staged = Self(beside(target, ".filling"));
        staged.remove().map_err(|e| {
            let what = format!("cannot replace {}", staged.0.display());
            ControlError::unavailable(Reason::from(what)).because(&e)
        })?;
        Ok(staged)
    }

    async fn open(&self) -> Result<Database, ControlError> {
        let mut options = Options::new(&self.0);
        // What is not finished is thrown away: nothing is gained by waiting for the disk.
        options.synchronous = Synchronous::Off;
        Database::open(&options).map_err(|e| trouble(&e))
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn remove(&self) -> std::io::Result<()> {
        for ending in ["", "-wal", "-shm"] {
            match std::fs::remove_file(beside(&self.0, ending)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Err(e) = self.remove() {
            tracing::warn!("cannot remove {}: {e}", self.0.display());
        }
    }
}

/// Copies all rows and compares them, with a bar.
async fn transferred(
    from: &Database,
    to: &Database,
    progress: &Progress,
) -> Result<Vec<Transferred>, ControlError> {
    let step = progress.step("rows copied and compared", 1, "rows");
    let copied = transfer::transfer(from, to, &mark::OWN, |p| {
        step.total(p.of.max(1));
        step.set(p.done);
    })
    .await
    .map_err(|e| match e {
        TransferError::NotEmpty(_) | TransferError::Schemas(_) => ControlError::conflict(chain(&e)),
        _ => ControlError::unavailable(chain(&e)),
    })?;
    let rows: u64 = copied.iter().map(|t| t.rows).sum();
    step.finish(&format!("{rows} rows of {} tables", copied.len()));
    Ok(copied)
}

/// Fills a store with what `from` has, in a way that nobody takes half of it for the whole: while
/// rows are on their way, and ever after if they do not all arrive, the store says that it is half a
/// copy. What it had before is gone.
async fn fill(
    into: &Opened,
    from: &Database,
    from_location: &str,
    progress: &Progress,
) -> Result<Vec<Transferred>, ControlError> {
    let now = Clock::system().now();
    let from_location = from_location.to_owned();
    let half = Mark::Unfinished { from: from_location.clone(), since: now };
    half.set(&*into.store, now).await?;
    transfer::empty(&into.db, &mark::OWN).await.map_err(|e| trouble(&e))?;
    let copied = transferred(from, &into.db, progress).await?;
    let at = Clock::system().now();
    Mark::Arrived { from: from_location, at }.set(&*into.store, at).await?;
    Ok(copied)
}

/// Refuses while a node works on a store that nodes share.
async fn refuse_while_nodes_run(
    store: &dyn Store,
    location: &str,
    now: Time,
) -> Result<(), ControlError> {
    let nodes = store.nodes(now).await.map_err(|e| ControlError::unavailable(chain(&e)))?;
    let alive: Vec<String> = nodes
        .iter()
        .filter(|n| !n.overdue)
        .map(|n| format!("{} (process {})", n.session.host, n.session.pid))
        .collect();
    if alive.is_empty() {
        return Ok(());
    }
    Err(ControlError::conflict(format!(
        "nodes are working on the store {location}: {}",
        alive.join(", ")
    ))
    .help("stop them; one that died counts as alive until it is overdue"))
}
