//! `db restore`: a backup becomes the store.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use watchbell_api::{ControlError, Reason};
use watchbell_cli::{Exit, Out, Progress};
use watchbell_clock::Clock;
use watchbell_core::Time;
use watchbell_db::{Database, Options, transfer};

use super::{Mark, Staged, copy_to_file, fill, mark, refuse_while_nodes_run};
use crate::config::{Config, Store, StoreFile};
use crate::installation::{self, LINES, Opener, beside, trouble};

pub(super) async fn run(
    config: &Config,
    file: &Path,
    force: bool,
    out: &mut Out,
) -> Result<Exit, ControlError> {
    let _held = installation::hold(&config.data_dir)?;
    // The backup is examined before anything is touched.
    let mut options = Options::new(file);
    options.create = false;
    options.read_only = true;
    let source = Database::open(&options).map_err(|e| trouble(&e))?;
    let problems = source.check().await.map_err(|e| trouble(&e))?.problems;
    if let Some(first) = problems.first() {
        return Err(ControlError::conflict(format!(
            "the backup {} is damaged: {first}",
            file.display()
        )));
    }
    source.pending(&LINES).await.map_err(|e| trouble(&e))?;
    let now = Clock::system().now();
    let kept = match &config.store {
        Store::File(target) => into_file(config, target, source, force, now).await?,
        Store::Server(_) => {
            let progress = Progress::fitting(out.quiet || out.json);
            into_server(config, file, source, force, &progress, now).await?
        }
    };
    let location = config.store.location();
    let answer = json!({ "path": location, "from": file, "kept": kept });
    out.data(&answer, |_, _| {
        let mut text = format!("restored {location} from {}\n", file.display());
        if let Some(kept) = &kept {
            text.push_str(&format!("the store that was there is now {}\n", kept.display()));
        }
        text
    })?;
    Ok(Exit::Ok)
}

fn occupied(location: &str) -> ControlError {
    ControlError::conflict(format!("there is a store at {location} already"))
        .help("add --force to replace it; it is kept as a file of its own")
}

/// The backup takes the place of the file, which is kept under another name.
async fn into_file(
    config: &Config,
    target: &StoreFile,
    source: Database,
    force: bool,
    now: Time,
) -> Result<Option<PathBuf>, ControlError> {
    let target = &target.path;
    let mut aside = None;
    if target.exists() {
        if !force {
            return Err(occupied(&target.display().to_string()));
        }
        aside = Some(beside(target, &format!(".replaced-{}", now.0)));
    }
    // The copy is made beside the target, so that putting it in place is one rename.
    let staged = beside(target, ".incoming");
    let failed = |e: std::io::Error| {
        ControlError::internal(Reason::from(format!("cannot replace {}", target.display())))
            .because(&e)
    };
    source.backup(&staged, true).await.map_err(|e| trouble(&e))?;
    source.close().await.map_err(|e| trouble(&e))?;
    if let Some(aside) = &aside {
        // Folding the log into the file first keeps the old store whole under its new name.
        let old = installation::database(&config.store, false).await?;
        old.close().await.map_err(|e| trouble(&e))?;
        drop(old);
        fs::rename(target, aside).map_err(failed)?;
        for suffix in ["-wal", "-shm"] {
            let left = beside(target, suffix);
            if left.exists() {
                fs::rename(&left, beside(aside, suffix)).map_err(failed)?;
            }
        }
    }
    fs::rename(&staged, target).map_err(failed)?;
    Ok(aside)
}

/// The rows of the backup take the place of the server's, which are kept in a file.
async fn into_server(
    config: &Config,
    file: &Path,
    source: Database,
    force: bool,
    progress: &Progress,
    now: Time,
) -> Result<Option<PathBuf>, ControlError> {
    let location = config.store.location();
    let into = installation::open(config, Opener::Command, now).await?;
    refuse_while_nodes_run(&*into.store, &location, now).await?;
    let half = matches!(Mark::read(&*into.store).await?, Some(Mark::Unfinished { .. }));
    let mut kept = None;
    // Half a copy is worth nothing: it is replaced without a word.
    let rows = transfer::occupied(&into.db, &mark::OWN).await.map_err(|e| trouble(&e))?;
    if rows.is_some() && !half {
        if !force {
            return Err(occupied(&location));
        }
        let aside = config.data_dir.join(format!("watchbell.db.replaced-{}", now.0));
        progress.say(&format!("keeping what is there in {}", aside.display()));
        copy_to_file(&into, &aside, progress, now).await?;
        kept = Some(aside);
    }
    // An older backup is brought up to date first, in a copy of its own.
    let staged = Staged::new(&config.data_dir.join("restore.db"))?;
    source.backup(staged.path(), true).await.map_err(|e| trouble(&e))?;
    source.close().await.map_err(|e| trouble(&e))?;
    let copy = staged.open().await?;
    copy.migrate(&LINES, now).await.map_err(|e| trouble(&e))?;
    fill(&into, &copy, &file.display().to_string(), progress).await?;
    copy.close().await.map_err(|e| trouble(&e))?;
    into.db.close().await.map_err(|e| trouble(&e))?;
    Ok(kept)
}
