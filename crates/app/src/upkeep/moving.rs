//! `db move`: everything in the store, to a store of the other engine.

use serde_json::json;
use watchbell_api::ControlError;
use watchbell_cli::print::style::{Style, Tone};
use watchbell_cli::print::table::{Cell, Table};
use watchbell_cli::{Exit, Out, Progress};
use watchbell_clock::Clock;
use watchbell_core::{chain, values};
use watchbell_db::transfer::{self, Transferred};
use watchbell_db::{Database, DbError};

use super::{Mark, artifacts, fill, mark, refuse_while_nodes_run};
use crate::config::{Config, Store};
use crate::installation::{self, Opened, Opener, trouble};

/// Moves the store of the configuration to `url`, and leaves the old one as it is, but for a mark
/// that says where everything went.
pub(super) async fn run(config: &Config, url: &str, out: &mut Out) -> Result<Exit, ControlError> {
    let store = config.store_at(url).map_err(|(message, allowed)| {
        ControlError::invalid(format!("--to: {message}")).help(format!("it takes {allowed}"))
    })?;
    let mut target = config.clone();
    target.store = store;
    let (here, there) = (config.store.location(), target.store.location());
    // Whoever wants to work on the source holds this, so that nothing is added behind our back.
    let _held = installation::hold(&config.data_dir)?;
    let now = Clock::system().now();
    let from = installation::open_existing(config, now).await?;
    if let Some(Mark::Unfinished { .. }) = Mark::read(&*from.store).await? {
        return Err(ControlError::conflict(format!("the store {here} is half a copy itself")));
    }
    if from.shared() {
        refuse_while_nodes_run(&*from.store, &here, now).await?;
    }
    refuse_itself(config, &target, &from.db).await?;
    let into = installation::open(&target, Opener::Command, now).await?;
    if into.shared() {
        refuse_while_nodes_run(&*into.store, &there, now).await?;
    }
    let progress = Progress::fitting(out.quiet || out.json);
    match Mark::read(&*into.store).await? {
        Some(Mark::Unfinished { since, .. }) => {
            progress.say(&format!("{there} has half a copy of {since}: beginning anew"));
        }
        _ => {
            let rows = transfer::occupied(&into.db, &mark::OWN).await.map_err(|e| trouble(&e))?;
            if let Some(table) = rows {
                return Err(ControlError::conflict(format!(
                    "{there} is not empty: {table} has rows"
                ))
                .help("name an empty database: a move adds to nothing and replaces nothing"));
            }
        }
    }
    let copied = fill(&into, &from.db, &here, &progress).await?;
    let at = Clock::system().now();
    Mark::Moved { to: there.clone(), at }.set(&*from.store, at).await?;
    let files = files(config, &from).await?;
    report(&here, &there, &copied, &files, out)?;
    into.db.close().await.map_err(|e| trouble(&e))?;
    from.db.close().await.map_err(|e| trouble(&e))?;
    let sound = files.absent.is_empty() && files.damaged.is_empty();
    Ok(if sound { Exit::Ok } else { Exit::Failed })
}

/// Refuses a target that is the source under another name.
async fn refuse_itself(
    config: &Config,
    target: &Config,
    from: &Database,
) -> Result<(), ControlError> {
    let same = match (&config.store, &target.store) {
        (Store::File(a), Store::File(b)) => {
            // A path that does not exist has no other name.
            let real = |path: &std::path::Path| path.canonicalize().unwrap_or(path.to_owned());
            real(&a.path) == real(&b.path)
        }
        (Store::Server(_), Store::Server(_)) => {
            let to = installation::database(&target.store, false).await?;
            let (a, b) = (identity(from).await, identity(&to).await);
            to.close().await.map_err(|e| trouble(&e))?;
            a.map_err(|e| trouble(&e))? == b.map_err(|e| trouble(&e))?
        }
        _ => false,
    };
    if !same {
        return Ok(());
    }
    Err(ControlError::conflict(format!(
        "{} is the store that is to be moved",
        target.store.location()
    ))
    .help("name another database with --to"))
}

/// What no two databases of PostgreSQL have in common: their cluster's number and their own.
async fn identity(db: &Database) -> Result<(String, i64), DbError> {
    let sql = "select (select system_identifier::text from pg_control_system()),
        (select oid::bigint from pg_database where datname = current_database())";
    let row = db.query_one(sql, values![]).await?;
    Ok((row.text(0)?.to_owned(), row.i64(1)?))
}

async fn files(config: &Config, from: &Opened) -> Result<artifacts::Found, ControlError> {
    let records = from.store.artifacts(u32::MAX).await;
    let records = records.map_err(|e| ControlError::unavailable(chain(&e)))?;
    let root = config.data_dir.join("artifacts");
    artifacts::verify(&root, &records).map_err(|e| {
        ControlError::unavailable(format!("cannot read {}", root.display())).because(&e)
    })
}

fn report(
    here: &str,
    there: &str,
    copied: &[Transferred],
    files: &artifacts::Found,
    out: &mut Out,
) -> Result<(), ControlError> {
    let rows: u64 = copied.iter().map(|t| t.rows).sum();
    let tables: Vec<_> = copied
        .iter()
        .map(|t| json!({ "table": t.table, "rows": t.rows, "sha256": t.sha256 }))
        .collect();
    let answer = json!({
        "from": here, "to": there, "rows": rows, "tables": tables,
        "artifacts": {
            "whole": files.whole, "absent": files.absent, "damaged": files.damaged,
        },
    });
    out.data(&answer, |_, style| text(here, there, copied, files, style))
}

fn text(
    here: &str,
    there: &str,
    copied: &[Transferred],
    files: &artifacts::Found,
    style: Style,
) -> String {
    let mut table = Table::new(&["TABLE", ">ROWS", "SHA-256"]);
    for t in copied {
        table.row(vec![
            Cell::from(t.table.as_str()),
            Cell::number(i64::try_from(t.rows).unwrap_or(i64::MAX), Tone::Plain),
            Cell::from(&t.sha256[..16.min(t.sha256.len())]),
        ]);
    }
    let mut text = table.print(style);
    let rows: u64 = copied.iter().map(|t| t.rows).sum();
    text.push_str(&format!(
        "\nmoved {rows} rows of {} tables from {here} to {there}; each table was read again there, \
         and is the same\n",
        copied.len()
    ));
    text.push_str(&format!(
        "{here} is unchanged, and marked as left behind; set store.url or DATABASE_URL to the new \
         store\n"
    ));
    text.push_str(&format!(
        "artifacts stay where they are, in the data directory: {} whole\n",
        files.whole
    ));
    for path in &files.absent {
        text.push_str(&format!("{} artifact {path} has no files\n", style.bad("PROBLEM")));
    }
    for what in &files.damaged {
        text.push_str(&format!("{} artifact {what}\n", style.bad("PROBLEM")));
    }
    text
}
