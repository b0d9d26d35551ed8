//! What each boot notes: which schemas it has open (section 9.1), how the one before it ended, and
//! that it stops.
//!
//! The runtime keeps the log of boots and the flags of its own schemas. Here are those that the
//! founding documents name beside them, and the notes in `ops.app_ledger`, which outlive both.

use watchbell_core::{Expect, SessionId, Statement, Time, values};
use watchbell_db::{Database, DbError};

/// The schemas that a boot of the market opens. `wallet` has no tables of its own.
pub const SCHEMAS: [&str; 8] =
    ["settings", "ingest", "market", "wallet", "matrices", "str_aux", "cin_aux", "mea_dynamics"];

/// A boot, as its notes tell of it.
#[derive(Debug, Clone)]
pub struct Boot<'a> {
    /// Which.
    pub session: &'a SessionId,
    /// Version of the program.
    pub version: &'a str,
    /// What the boot before it left behind, if that ended without a stop.
    pub recovered: Option<String>,
    /// Which workers it runs.
    pub profile: &'a str,
}

/// Notes a boot that has begun, and opens its schemas; in one commit. Returns how many schemas are
/// open by it. A boot is noted once, however often it is told.
///
/// # Errors
/// When the database fails, or the session is not known to the runtime.
pub async fn booted(db: &Database, boot: &Boot<'_>, now: Time) -> Result<usize, DbError> {
    let id = boot.session.as_str();
    let mut list = vec![open_flags(id, now)];
    let payload = serde_json::json!({ "version": boot.version, "profile": boot.profile });
    list.push(note(id, "boot", &payload, now));
    if let Some(why) = &boot.recovered {
        let said = format!("started, crash-recovered: {why}");
        list.push(Statement::new(
            "update ops.session_log set note = $2 where session_id = $1 and closed_at is null",
            values![id, said],
        ));
        list.push(note(id, "crash-recovered", &serde_json::json!({ "taken_back": why }), now));
    }
    db.apply(list).await?;
    Ok(SCHEMAS.len())
}

/// Notes that a boot is about to end in order. Its flags are closed with its session.
///
/// # Errors
/// When the database fails.
pub async fn stopping(
    db: &Database,
    session: &SessionId,
    why: &str,
    now: Time,
) -> Result<(), DbError> {
    let payload = serde_json::json!({ "why": why });
    db.apply(vec![note(session.as_str(), "clean-stop", &payload, now)]).await?;
    Ok(())
}

/// Opens the flag of one schema, by the newest boot that is open or ended last.
///
/// # Errors
/// [`DbError::Unmet`] when there is no such flag.
pub async fn open_flag(db: &Database, schema: &str, now: Time) -> Result<(), DbError> {
    set_flag(db, schema, true, now).await
}

/// Clears the flag of one schema.
///
/// # Errors
/// [`DbError::Unmet`] when there is no such flag.
pub async fn close_flag(db: &Database, schema: &str, now: Time) -> Result<(), DbError> {
    set_flag(db, schema, false, now).await
}

async fn set_flag(db: &Database, schema: &str, open: bool, now: Time) -> Result<(), DbError> {
    let change = Statement::new(
        "update ops.session_flags set is_open = $2, updated_at = $3 where schema_name = $1",
        values![schema, open, now],
    );
    db.apply(vec![change.expect(Expect::Exactly(1))]).await?;
    Ok(())
}

fn open_flags(session: &str, now: Time) -> Statement {
    let rows = SCHEMAS.iter().flat_map(|name| values![*name, now, session]);
    Statement::bulk(
        "insert into ops.session_flags (schema_name, is_open, opened_at, opened_by, updated_at)
         values ($1, 1, $2, $3, $2)
         on conflict (schema_name) do update set is_open = 1, opened_at = excluded.opened_at,
           opened_by = excluded.opened_by, updated_at = excluded.updated_at",
        3,
        rows.collect(),
    )
}

fn note(session: &str, event: &str, payload: &serde_json::Value, now: Time) -> Statement {
    Statement::new(
        "insert into ops.app_ledger
           (topic, event, payload, session_id, idempotency_key, ts_epoch_ms)
         values ('session', $1, $2, $3, $4, $5) on conflict (idempotency_key) do nothing",
        values![event, payload.to_string(), session, format!("session:{session}:{event}"), now],
    )
}
