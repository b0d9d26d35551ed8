//! `db check`: the engine, the schema, and what the rows promise each other.

use serde_json::json;
use watchbell_api::ControlError;
use watchbell_cli::{Exit, Out};
use watchbell_core::port::Store as _;
use watchbell_core::{chain, values};
use watchbell_db::{Database, transfer};
use watchbell_store::SqlStore;

use super::{Mark, artifacts};
use crate::config::{Config, Store};
use crate::installation::{self, LINES, trouble};

/// A promise that the rows of a store must keep, as a query for the rows that break it.
const PROMISES: [(&str, &str); 13] = [
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
           where o.series = 'window-sampler-' || w.window_label and o.start_at = w.window_start
             and o.version = w.version and o.state = 'complete'
         )",
    ),
    (
        "every complete window has a row for each symbol of its scope",
        "select o.series || ' ' || o.start_at from ops.windows o
         where o.state = 'complete' and o.series like 'window-sampler-%'
           and json_array_length(o.scope) <> (
             select count(*) from str_aux.windows w
             join str_aux.window_stats s using (symbol, window_label, window_start, version)
             join str_aux.window_vectors v using (symbol, window_label, window_start, version)
             where w.window_label = substr(o.series, 16) and w.window_start = o.start_at
               and w.version = o.version
           )",
    ),
    (
        "no candle is missing outside of the known gaps",
        "select symbol || ' ' || interval_label || ' ' || open_time from (
           select symbol, interval_label, open_time, close_time + 1 as due,
                  lead(open_time) over (partition by symbol, interval_label order by open_time)
                    as next_open
           from ingest.kline_raw
         ) k
         where next_open > due and not exists (
           select 1 from ingest.kline_gaps g
           where g.symbol = k.symbol and g.interval_label = k.interval_label
             and g.from_at <= k.due and g.to_at >= k.next_open
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
    (
        "every running cycle is the one that its worker's lease was granted for",
        "select c.worker || ' cycle ' || c.id from ops.cycles c
         where c.outcome = 'running' and not exists (
           select 1 from ops.workers w
           where w.name = c.worker and w.lease_owner = c.session and w.lease_token = c.token
         )",
    ),
    (
        "no cycle has a token that its worker was never granted",
        "select c.worker || ' cycle ' || c.id from ops.cycles c
         join ops.workers w on w.name = c.worker where c.token > w.lease_token",
    ),
    (
        "every running window has a running cycle",
        "select o.series || ' ' || o.start_at from ops.windows o
         where o.state = 'running' and not exists (
           select 1 from ops.cycles c where c.id = o.cycle and c.outcome = 'running'
         )",
    ),
    (
        "every running job is held, until an instant, by a session that there was",
        "select 'job ' || j.id from ops.jobs j
         where j.state = 'running' and (j.lease_expires_at is null or not exists (
           select 1 from ops.session_log s where s.session_id = j.lease_owner
         ))",
    ),
    (
        "no job is both live and ended",
        "select 'job ' || j.id from ops.jobs j join ops.job_history h on h.id = j.id",
    ),
    (
        "every unique key is a job's that has it",
        "select k.kind || ' ' || k.key from ops.job_keys k
         where not exists (select 1 from ops.jobs j
             where j.id = k.job and j.kind = k.kind and j.unique_key = k.key)
           and not exists (select 1 from ops.job_history h
             where h.id = k.job and h.kind = k.kind and h.unique_key = k.key)",
    ),
    (
        "no subscriber is ahead of the events",
        "select s.worker || ' at ' || s.cursor from ops.subscribers s
         where s.cursor > coalesce(
           /*sqlite*/ (select q.seq from sqlite_sequence q where q.name = 'ops_events') /*end*/
           /*pg*/ pg_sequence_last_value(pg_get_serial_sequence('ops.events', 'id')::regclass)
           /*end*/, 0)",
    ),
];

/// What was found out about a store.
#[derive(Default)]
struct Findings {
    kept: Vec<&'static str>,
    problems: Vec<String>,
    /// What is as it should be, and worth knowing.
    remarks: Vec<String>,
}

pub(super) async fn run(config: &Config, out: &mut Out) -> Result<Exit, ControlError> {
    let location = config.store.location();
    let missing = || ControlError::unavailable(format!("there is no store at {location}"));
    if matches!(&config.store, Store::File(file) if !file.path.exists()) {
        return Err(missing());
    }
    let db = installation::database(&config.store, false).await?;
    if matches!(config.store, Store::Server(_))
        && transfer::is_blank(&db).await.map_err(|e| trouble(&e))?
    {
        return Err(missing());
    }
    let description = db.describe().await.map_err(|e| trouble(&e))?;
    let pending = db.pending(&LINES).await.map_err(|e| trouble(&e))?;
    let pending: Vec<String> = pending.iter().map(ToString::to_string).collect();
    let engine = db.check().await.map_err(|e| trouble(&e))?;
    let mut found = Findings { problems: engine.problems, ..Findings::default() };
    // The promises speak of tables that only a migrated store has.
    if pending.is_empty() {
        promises(&db, &mut found).await?;
        around(config, &db, &mut found).await?;
    }
    let Findings { kept, problems, remarks } = &found;
    let answer = json!({
        "engine": description.engine, "version": description.version, "path": location,
        "journal_mode": description.journal_mode, "synchronous": description.synchronous,
        "bytes": description.bytes, "log_bytes": description.log_bytes,
        "pending_migrations": pending, "promises_kept": kept, "problems": problems,
        "remarks": remarks,
    });
    let sound = problems.is_empty() && pending.is_empty();
    out.data(&answer, |_, style| {
        let mut text = format!(
            "{} {} at {location} ({}, synchronous {}, {:.1} MB",
            description.engine,
            description.version,
            description.journal_mode,
            description.synchronous,
            description.bytes as f64 / 1e6,
        );
        if description.log_bytes > 0 {
            text.push_str(&format!(" + {:.1} MB log", description.log_bytes as f64 / 1e6));
        }
        text.push_str(")\n");
        for promise in kept {
            text.push_str(&format!("{} {promise}\n", style.good("ok      ")));
        }
        for remark in remarks {
            text.push_str(&format!("{} {remark}\n", style.faint("note    ")));
        }
        for step in &pending {
            text.push_str(&format!("{} migration {step}\n", style.bad("pending ")));
        }
        for problem in problems {
            text.push_str(&format!("{} {problem}\n", style.bad("PROBLEM ")));
        }
        text
    })?;
    db.close().await.map_err(|e| trouble(&e))?;
    Ok(if sound { Exit::Ok } else { Exit::Failed })
}

async fn promises(db: &Database, found: &mut Findings) -> Result<(), ControlError> {
    for (promise, broken) in PROMISES {
        let rows = db.query(broken, values![]).await.map_err(|e| trouble(&e))?;
        match rows.first() {
            None => found.kept.push(promise),
            Some(first) => found.problems.push(format!(
                "broken promise: {promise}: {} rows, the first {}",
                rows.len(),
                first.text(0).map_err(|e| trouble(&e))?
            )),
        }
    }
    Ok(())
}

/// What is beside the rows: the files of artifacts, and where the store came from or went.
async fn around(config: &Config, db: &Database, found: &mut Findings) -> Result<(), ControlError> {
    let store = SqlStore::new(db.clone());
    if let Some(mark) = Mark::read(&store).await? {
        match &mark {
            Mark::Arrived { from, at } => {
                found.remarks.push(format!("its rows came from {from} at {at}"));
            }
            Mark::Moved { to, at } => {
                found.remarks.push(format!("it was left behind: its rows went to {to} at {at}"));
            }
            Mark::Unfinished { from, since } => found.problems.push(format!(
                "it is half a copy of {from}: what began at {since} was not finished"
            )),
        }
    }
    let records = store.artifacts(u32::MAX).await;
    let records = records.map_err(|e| ControlError::unavailable(chain(&e)))?;
    let root = config.data_dir.join("artifacts");
    let files = artifacts::verify(&root, &records).map_err(|e| {
        ControlError::unavailable(format!("cannot read {}", root.display())).because(&e)
    })?;
    let shared = matches!(config.store, Store::Server(_));
    for path in files.absent {
        let what = format!("artifact {path} has no files in {}", root.display());
        // Of nodes that share a store, each has the files that it published itself.
        if shared { found.remarks.push(what) } else { found.problems.push(what) }
    }
    found.problems.extend(files.damaged.into_iter().map(|what| format!("artifact {what}")));
    // A node at work has files whose commit is on its way.
    if !installation::in_use(&config.data_dir) {
        let unknown = files.unknown.into_iter();
        found.problems.extend(unknown.map(|path| {
            format!("files of an artifact {path} that no record names: the next start removes them")
        }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use watchbell_core::{Statement, Time};
    use watchbell_db::Engine;
    use watchbell_testkit::{NOW, TempDb, postgres_is_wanted};

    use super::*;

    async fn broken(db: &Database) -> Vec<String> {
        let mut found = Findings::default();
        promises(db, &mut found).await.unwrap();
        found.problems
    }

    /// Candles that follow each other are whole, however long each is.
    #[tokio::test]
    async fn a_candle_is_missing_by_the_length_of_its_own_interval() {
        for engine in [Engine::Sqlite, Engine::Postgres] {
            let temp = match engine {
                Engine::Sqlite => TempDb::sqlite(&LINES).await,
                Engine::Postgres if postgres_is_wanted() => TempDb::postgres(&LINES).await,
                Engine::Postgres => continue,
            };
            let candle = |label: &str, open: Time, minutes: i64| {
                let close = Time(open.0 + minutes * 60_000 - 1);
                Statement::new(
                    "insert into ingest.kline_raw values
                       ('BTCUSDT', $1, $2, $3, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1, 0.5, 0.5)",
                    values![label, open, close],
                )
            };
            let at = |minutes: i64| Time(NOW.0 + minutes * 60_000);
            let whole = [("1m", 1), ("5m", 5), ("1h", 60)]
                .map(|(label, minutes)| [0, 1, 2].map(|n| candle(label, at(n * minutes), minutes)));
            temp.db.apply(whole.concat()).await.unwrap();
            assert_eq!(broken(&temp.db).await, [] as [String; 0]);
            temp.db.apply(vec![candle("5m", at(20), 5)]).await.unwrap();
            let problems = broken(&temp.db).await;
            assert!(problems[0].contains("no candle is missing outside"), "{problems:?}");
            assert!(problems[0].ends_with(&format!("BTCUSDT 5m {}", at(10).0)), "{problems:?}");
            let known = Statement::new(
                "insert into ingest.kline_gaps
                 values ('BTCUSDT', '5m', $1, $2, 'hole', 2, 0, 0)",
                values![at(15), at(20)],
            );
            temp.db.apply(vec![known]).await.unwrap();
            assert_eq!(broken(&temp.db).await, [] as [String; 0]);
        }
    }
}
