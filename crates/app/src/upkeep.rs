//! `db migrate | check | backup | restore`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use watchbell_api::{ControlError, Reason};
use watchbell_cli::args::DbCommand;
use watchbell_cli::{Exit, Out};
use watchbell_clock::Clock;
use watchbell_core::values;
use watchbell_db::{Database, Options};

use crate::config::Config;
use crate::installation::{self, LINES, trouble};

/// Carries out a `db` command.
pub(crate) async fn run(
    command: &DbCommand,
    config: &Config,
    out: &mut Out,
) -> Result<Exit, ControlError> {
    match command {
        DbCommand::Migrate => migrate(config, out).await,
        DbCommand::Check => check(config, out).await,
        DbCommand::Backup { file } => backup(config, file, out).await,
        DbCommand::Restore { file, force } => restore(config, file, *force, out).await,
    }
}

async fn migrate(config: &Config, out: &mut Out) -> Result<Exit, ControlError> {
    let _held = installation::hold(&config.data_dir)?;
    let opened = installation::open(config, Clock::system().now()).await?;
    let steps: Vec<String> =
        opened.migrated.iter().map(|s| format!("{}/{} {}", s.line, s.number, s.name)).collect();
    let answer = json!({ "path": opened.db.path(), "applied": steps });
    out.data(&answer, |_, _| {
        if steps.is_empty() {
            return format!("{} is up to date\n", opened.db.path().display());
        }
        steps.iter().map(|s| format!("applied {s}\n")).collect()
    })?;
    opened.db.close().await.map_err(|e| trouble(&e))?;
    Ok(Exit::Ok)
}

/// A promise that the rows of a store must keep, as a query for the rows that break it.
const PROMISES: [(&str, &str); 6] = [
    (
        "every complete window has both of its hashes",
        "select series || ' ' || start_at from ops.windows
         where state = 'complete' and (result_hash is null or inputs_hash is null)",
    ),
    (
        "only complete windows have rows",
        "select w.window_label || ' ' || w.window_start from str_aux.windows w
         where not exists (
           select 1 from ops.windows o
           where o.series = 'market-' || w.window_label and o.start_at = w.window_start
             and o.version = w.version and o.state = 'complete'
         )",
    ),
    (
        "every complete window has a row for each symbol of its scope",
        "select o.series || ' ' || o.start_at from ops.windows o
         where o.state = 'complete' and o.series like 'market-%'
           and /*sqlite*/ json_array_length(o.scope) /*end*/
             /*pg*/ jsonb_array_length(o.scope) /*end*/ <> (
             select count(*) from str_aux.windows w
             join str_aux.window_stats s using (symbol, window_label, window_start, version)
             join str_aux.window_vectors v using (symbol, window_label, window_start, version)
             where w.window_label = substr(o.series, 8) and w.window_start = o.start_at
               and w.version = o.version
           )",
    ),
    (
        "no candle is missing outside of the known gaps",
        "select symbol || ' ' || open_time from (
           select symbol, interval_label, open_time,
                  lead(open_time) over (partition by symbol, interval_label order by open_time)
                    as next_open
           from ingest.kline_raw
         ) k
         where next_open - open_time > 60000 and not exists (
           select 1 from ingest.kline_gaps g
           where g.symbol = k.symbol and g.interval_label = k.interval_label
             and g.from_at <= k.open_time + 60000 and g.to_at >= k.next_open
         )",
    ),
    (
        "no due instant is in the ledger twice",
        "select a.worker || ' ' || a.due from ops.occurrences a
         join ops.occurrences b
           on b.worker = a.worker and b.due > a.due and b.due <= a.through",
    ),
    (
        "no two intervals of a cover overlap or touch",
        "select a.source || ' ' || a.key from ops.covers a
         join ops.covers b
           on b.source = a.source and b.key = a.key and b.from_at > a.from_at
          and b.from_at <= a.to_at",
    ),
];

async fn check(config: &Config, out: &mut Out) -> Result<Exit, ControlError> {
    if !config.store.path.exists() {
        return Err(ControlError::unavailable(format!(
            "there is no store at {}",
            config.store.path.display()
        )));
    }
    let db = installation::database(config, false)?;
    let description = db.describe().await.map_err(|e| trouble(&e))?;
    let mut problems = db.check().await.map_err(|e| trouble(&e))?.problems;
    let pending = db.pending(&LINES).await.map_err(|e| trouble(&e))?;
    let pending: Vec<String> =
        pending.iter().map(|s| format!("{}/{} {}", s.line, s.number, s.name)).collect();
    let mut kept = Vec::new();
    // The promises speak of tables that only a migrated store has.
    if pending.is_empty() {
        for (promise, broken) in PROMISES {
            let rows = db.query(broken, values![]).await.map_err(|e| trouble(&e))?;
            match rows.first() {
                None => kept.push(promise),
                Some(first) => problems.push(format!(
                    "broken promise: {promise}: {} rows, the first {}",
                    rows.len(),
                    first.text(0).map_err(|e| trouble(&e))?
                )),
            }
        }
    }
    let answer = json!({
        "engine": description.engine, "version": description.version,
        "path": description.path, "journal_mode": description.journal_mode,
        "synchronous": description.synchronous, "bytes": description.bytes,
        "log_bytes": description.log_bytes, "pending_migrations": pending,
        "promises_kept": kept, "problems": problems,
    });
    let sound = problems.is_empty() && pending.is_empty();
    out.data(&answer, |_, style| {
        let mut text = format!(
            "{} {} at {} ({}, synchronous {}, {:.1} MB + {:.1} MB log)\n",
            description.engine,
            description.version,
            description.path.display(),
            description.journal_mode,
            description.synchronous,
            description.bytes as f64 / 1e6,
            description.log_bytes as f64 / 1e6,
        );
        for promise in &kept {
            text.push_str(&format!("{} {promise}\n", style.good("ok      ")));
        }
        for step in &pending {
            text.push_str(&format!("{} migration {step}\n", style.bad("pending ")));
        }
        for problem in &problems {
            text.push_str(&format!("{} {problem}\n", style.bad("PROBLEM ")));
        }
        text
    })?;
    Ok(if sound { Exit::Ok } else { Exit::Failed })
}

async fn backup(config: &Config, file: &Path, out: &mut Out) -> Result<Exit, ControlError> {
    let opened = installation::open_existing(config, Clock::system().now()).await?;
    let copy = opened.db.backup(file, false).await.map_err(|e| trouble(&e))?;
    let answer = json!({ "path": copy.path, "bytes": copy.bytes });
    out.data(&answer, |_, _| format!("{} ({} bytes)\n", copy.path.display(), copy.bytes))?;
    Ok(Exit::Ok)
}

async fn restore(
    config: &Config,
    file: &Path,
    force: bool,
    out: &mut Out,
) -> Result<Exit, ControlError> {
    let _held = installation::hold(&config.data_dir)?;
    let target = &config.store.path;
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
    let mut aside = None;
    if target.exists() {
        if !force {
            return Err(ControlError::conflict(format!(
                "there is a store at {} already",
                target.display()
            ))
            .help("add --force to replace it; it is kept beside the new one"));
        }
        aside = Some(installation::set_aside(target, now));
    }
    // The copy is made beside the target, so that putting it in place is one rename.
    let staged = installation::set_aside(target, now).with_extension("incoming");
    let failed = |e: std::io::Error| {
        ControlError::internal(Reason::from(format!("cannot replace {}", target.display())))
            .because(&e)
    };
    source.backup(&staged, true).await.map_err(|e| trouble(&e))?;
    source.close().await.map_err(|e| trouble(&e))?;
    if let Some(aside) = &aside {
        // Folding the log into the file first keeps the old store whole under its new name.
        let old = installation::database(config, false)?;
        old.close().await.map_err(|e| trouble(&e))?;
        drop(old);
        fs::rename(target, aside).map_err(failed)?;
        for suffix in ["-wal", "-shm"] {
            let left = PathBuf::from(format!("{}{suffix}", target.display()));
            if left.exists() {
                fs::rename(&left, format!("{}{suffix}", aside.display())).map_err(failed)?;
            }
        }
    }
    fs::rename(&staged, target).map_err(failed)?;
    let answer = json!({ "path": target, "from": file, "kept": aside });
    out.data(&answer, |_, _| {
        let mut text = format!("restored {} from {}\n", target.display(), file.display());
        if let Some(aside) = &aside {
            text.push_str(&format!("the store that was there is now {}\n", aside.display()));
        }
        text
    })?;
    Ok(Exit::Ok)
}
