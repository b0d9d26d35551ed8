//! Migrations and checks on a PostgreSQL server.

use std::borrow::Cow;

use tokio_postgres::SimpleQueryMessage;
use watchbell_core::{Time, values};

use super::Postgres;
use super::fault::Failure;
use super::session::Open;
use crate::database::{Check, Description};
use crate::dialect::{self, SCHEMAS};
use crate::error::DbError;
use crate::migrate::{History, Line, Migration, Step, plan};
use crate::row::Row;

/// Whoever migrates holds this lock: of several processes one applies, the others then find that
/// nothing is left. The number spells `WBEL` and `migr`.
const LOCK: &str = "select pg_advisory_xact_lock(6287206148394182002)";

/// What every line of migrations may rely on, beside the schemas of [`SCHEMAS`]. The function is what `{now:..}` calls: the instant of
/// the statement, in milliseconds, unless the session goes by its caller's clock.
const GROUND: &str = "create table if not exists ops.migrations (
    line text not null, number bigint not null, name text not null, checksum text not null,
    applied_at bigint not null, primary key (line, number));
create or replace function ops.now_ms(caller bigint) returns bigint
language sql stable parallel safe as $$
    select case when current_setting('watchbell.clock', true) = 'caller' then caller
        else floor(extract(epoch from statement_timestamp()) * 1000)::bigint end
$$;";

const HISTORY: &str = "select line, number, checksum from ops.migrations";

impl Postgres {
    pub(crate) async fn migrate(&self, lines: &[Line], now: Time) -> Result<Vec<Step>, DbError> {
        let mut applied = Vec::new();
        while let Some(step) = self.next(lines, now).await? {
            applied.push(step);
        }
        Ok(applied)
    }

    /// Applies the first migration that is missing, if any is.
    async fn next(&self, lines: &[Line], now: Time) -> Result<Option<Step>, DbError> {
        let client = self.client(&self.writes).await?;
        let session = self.session(&client);
        let engine = |e: tokio_postgres::Error| self.shared.server.engine(&e);
        let mut open = Open::new(&client);
        // Others may migrate for long before it is our turn, and so may we.
        client
            .batch_execute("begin; set local lock_timeout = 0; set local statement_timeout = 0")
            .await
            .map_err(engine)?;
        client.batch_execute(LOCK).await.map_err(engine)?;
        let schemas = SCHEMAS.map(|name| format!("create schema if not exists {name};")).concat();
        client.batch_execute(&schemas).await.map_err(|e| self.ground_failed(e))?;
        client.batch_execute(GROUND).await.map_err(|e| self.ground_failed(e))?;
        let text = self.shared.texts.get(&Cow::Borrowed(HISTORY));
        let rows = session.within().query(&text, &[]).await;
        let history = history(&rows.map_err(|failure| self.refusal(&text, failure))?)?;
        let step = match plan(lines, &history)?.first() {
            None => None,
            Some((line, migration)) => {
                let sql = dialect::to_postgres(migration.sql).sql;
                if let Err(error) = client.batch_execute(&sql).await {
                    return Err(self.migration_failed(line, migration, error));
                }
                let record = "insert into ops.migrations(line, number, name, checksum, applied_at)
                    values ($1, $2, $3, $4, $5)";
                let text = self.shared.texts.get(&Cow::Borrowed(record));
                let checksum = migration.checksum();
                let params = values![line.name, migration.number, migration.name, checksum, now];
                let recorded = session.within().query(&text, &params).await;
                recorded.map_err(|failure| self.refusal(&text, failure))?;
                Some(Step { line: line.name, number: migration.number, name: migration.name })
            }
        };
        open.end();
        client.batch_execute("commit").await.map_err(engine)?;
        Ok(step)
    }

    fn ground_failed(&self, error: tokio_postgres::Error) -> DbError {
        let place = super::fault::Place { index: 0, target: "ops.migrations", sql: GROUND };
        self.shared.server.refusal(place, Failure::Engine(error))
    }

    fn migration_failed(
        &self,
        line: &Line,
        migration: &Migration,
        error: tokio_postgres::Error,
    ) -> DbError {
        let place = super::fault::Place { index: 0, target: line.name, sql: "" };
        let detail = match self.shared.server.refusal(place, Failure::Engine(error)) {
            DbError::Statement { detail, .. } | DbError::Constraint { detail, .. } => detail,
            of_the_server => return of_the_server,
        };
        DbError::MigrationFailed {
            line: line.name.to_owned(),
            number: migration.number,
            name: migration.name.to_owned(),
            detail,
        }
    }

    pub(crate) async fn pending(&self, lines: &[Line]) -> Result<Vec<Step>, DbError> {
        let there = "select 1 where to_regclass('ops.migrations') is not null";
        let there = self.query(&Cow::Borrowed(there), &[]).await?;
        let rows = match there.is_empty() {
            true => Vec::new(),
            false => self.query(&Cow::Borrowed(HISTORY), &[]).await?,
        };
        let history = history(&rows)?;
        let todo = plan(lines, &history)?.into_iter();
        Ok(todo.map(|(line, m)| Step { line: line.name, number: m.number, name: m.name }).collect())
    }

    pub(crate) async fn describe(&self) -> Result<Description, DbError> {
        let sql = "select current_setting('server_version'), current_setting('synchronous_commit'),
            current_setting('fsync'), current_setting('block_size')::bigint,
            pg_database_size(current_database())";
        let rows = self.query(&Cow::Borrowed(sql), &[]).await?;
        let row = rows.first().ok_or(DbError::Closed)?;
        let synchronous = match row.text(2)? {
            "on" => row.text(1)?.to_owned(),
            _ => "off (fsync is off)".to_owned(),
        };
        let page_size = row.i64(3)?.unsigned_abs();
        let bytes = row.i64(4)?.unsigned_abs();
        Ok(Description {
            engine: "postgres",
            version: row.text(0)?.to_owned(),
            location: self.location().to_owned(),
            journal_mode: "wal".to_owned(),
            synchronous,
            page_size,
            pages: bytes / page_size.max(1),
            free_pages: 0,
            bytes,
            log_bytes: 0,
        })
    }

    pub(crate) async fn check(&self) -> Result<Check, DbError> {
        let schemas = SCHEMAS.map(|name| format!("'{name}'")).join(", ");
        let ours =
            format!("join pg_namespace n on n.oid = c.relnamespace and n.nspname in ({schemas})");
        let mut problems = Vec::new();
        let found = [
            (
                "index {} is not valid: drop it, and create it again",
                format!(
                    "select n.nspname || '.' || c.relname from pg_index i
                     join pg_class c on c.oid = i.indexrelid {ours}
                     where not i.indisvalid or not i.indisready order by 1"
                ),
            ),
            (
                "constraint {} was never checked: run `alter table .. validate constraint ..`",
                format!(
                    "select n.nspname || '.' || c.relname || ' ' || k.conname from pg_constraint k
                     join pg_class c on c.oid = k.conrelid {ours}
                     where not k.convalidated order by 1"
                ),
            ),
        ];
        for (problem, sql) in found {
            for row in self.query(&Cow::Owned(sql), &[]).await? {
                problems.push(problem.replace("{}", row.text(0)?));
            }
        }
        let amcheck = "select 1 from pg_extension where extname = 'amcheck'";
        if !self.query(&Cow::Borrowed(amcheck), &[]).await?.is_empty() {
            let indexes = format!(
                "select c.oid::bigint, n.nspname || '.' || c.relname from pg_index i
                 join pg_class c on c.oid = i.indexrelid {ours}
                 join pg_am a on a.oid = c.relam and a.amname = 'btree'
                 where i.indisvalid order by 2"
            );
            self.check_indexes(&indexes, &mut problems).await?;
        }
        Ok(Check { problems })
    }

    /// Reads each index with `amcheck`; what it finds it raises as an error.
    async fn check_indexes(
        &self,
        indexes: &str,
        problems: &mut Vec<String>,
    ) -> Result<(), DbError> {
        let client = self.client(&self.reads).await?;
        for row in self.query(&Cow::Owned(indexes.to_owned()), &[]).await? {
            let (oid, name) = (row.i64(0)?, row.text(1)?);
            let checked: Result<Vec<SimpleQueryMessage>, _> =
                client.simple_query(&format!("select bt_index_check({oid}::oid::regclass)")).await;
            match checked {
                Ok(_) => {}
                Err(error) => match error.as_db_error() {
                    Some(found) => problems.push(format!("index {name}: {}", found.message())),
                    None => return Err(self.shared.server.engine(&error)),
                },
            }
        }
        Ok(())
    }
}

fn history(rows: &[Row]) -> Result<History, DbError> {
    rows.iter()
        .map(|row| {
            // A number that is no u32 was not written by us; the largest makes it "newer".
            let number = u32::try_from(row.i64(1)?).unwrap_or(u32::MAX);
            Ok(((row.text(0)?.to_owned(), number), row.text(2)?.to_owned()))
        })
        .collect()
}
