//! The state of everything in one document (section 9.5, `vitals.status_snapshot`).

use serde_json::{Value, json};
use watchbell_core::{Millis, Time, values};
use watchbell_db::{Database, DbError};

/// How far back windows are counted.
const COUNTED: Millis = Millis::from_hours(24);

/// The newest runs, wallets, matrices, moods, and counts of what there is. Every count is of a table
/// that does not grow with time, or of the last day.
///
/// # Errors
/// When the database fails.
pub async fn vitals(db: &Database, now: Time) -> Result<Value, DbError> {
    Ok(json!({
        "ts": now,
        "runs": runs(db).await?,
        "wallet": wallet(db).await?,
        "matrices": matrices(db).await?,
        "dynamics": dynamics(db).await?,
        "objects": objects(db, now).await?,
    }))
}

async fn runs(db: &Database) -> Result<Value, DbError> {
    let rows = db
        .query(
            "select name, state, last_success_at, last_error_at, consecutive_errors
             from ops.workers order by name",
            Vec::new(),
        )
        .await?;
    let mut runs = serde_json::Map::new();
    for row in &rows {
        let run = json!({
            "state": row.text(1)?,
            "succeeded_at": row.opt_time(2)?,
            "failed_at": row.opt_time(3)?,
            "errors_in_a_row": row.i64(4)?,
        });
        runs.insert(row.text(0)?.to_owned(), run);
    }
    Ok(Value::Object(runs))
}

async fn wallet(db: &Database) -> Result<Value, DbError> {
    let row = db
        .query_one("select count(*), max(ts) from market.wallet_balances_latest", Vec::new())
        .await?;
    Ok(json!({ "assets": row.i64(0)?, "ts": row.opt_time(1)? }))
}

async fn matrices(db: &Database) -> Result<Value, DbError> {
    let labels = labels(db).await?;
    let slices = crate::view::slices(db, &labels).await?;
    let slices = slices.into_iter().map(|s| {
        let line = json!({ "ts": s.ts, "version": s.version, "coins": s.coins.len() });
        (s.series, line)
    });
    Ok(Value::Object(slices.collect()))
}

async fn dynamics(db: &Database) -> Result<Value, DbError> {
    let labels = labels(db).await?;
    let moods = crate::view::moods(db, &labels, 1).await?;
    let moods = moods.into_iter().map(|m| {
        let line = json!({
            "window_start": m.start, "coeff": m.coeff, "mood_id": m.mood, "tier": m.tier,
            "is_fallback": m.is_fallback, "is_stale": m.is_stale,
        });
        (m.label, line)
    });
    Ok(Value::Object(moods.collect()))
}

async fn objects(db: &Database, now: Time) -> Result<Value, DbError> {
    let mut objects = serde_json::Map::new();
    for (name, sql) in [
        ("symbols", "select count(*) from settings.coin_universe"),
        ("symbols_enabled", "select count(*) from settings.coin_universe where enabled = 1"),
        ("symbols_listed", "select count(*) from market.symbols where status = 'TRADING'"),
        ("gaps_pending", "select count(*) from ingest.kline_gaps where state = 'pending'"),
        ("holes", "select count(*) from ingest.kline_gaps where state = 'hole'"),
        ("jobs_live", "select count(*) from ops.jobs"),
        ("sessions_open", "select count(*) from cin_aux.rt_session where status = 'OPEN'"),
        ("risk_flags", "select count(*) from ops.risk_flags where cleared_at is null"),
    ] {
        objects.insert(name.to_owned(), db.query_one(sql, Vec::new()).await?.i64(0)?.into());
    }
    let rows = db
        .query(
            "select state, count(*) from ops.windows where start_at >= $1 group by state
             order by state",
            values![now - COUNTED],
        )
        .await?;
    let mut windows = serde_json::Map::new();
    for row in &rows {
        windows.insert(row.text(0)?.to_owned(), row.i64(1)?.into());
    }
    objects.insert("windows_24h".to_owned(), Value::Object(windows));
    Ok(Value::Object(objects))
}

/// The labels of the windows, shortest first.
pub(super) async fn labels(db: &Database) -> Result<Vec<String>, DbError> {
    let rows = db
        .query(
            "select window_label from settings.v_windows where is_window = 1 order by duration_ms",
            Vec::new(),
        )
        .await?;
    rows.iter().map(|r| Ok(r.text(0)?.to_owned())).collect()
}
