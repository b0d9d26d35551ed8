//! Smokes about the ledger of trading sessions: its account, its rows, its sums, its workers.

use serde_json::{Value, json};
use watchbell_core::{Time, values};
use watchbell_db::DbError;

use super::super::{Item, Level};
use super::Ground;

/// The worker that fetches the account's trades.
const WATCHER: &str = "trade-feed";
/// The worker that makes moves of them.
const IMPORTER: &str = "cin-import-moves";

/// The newest answer of the account.
pub(super) async fn entrypoint(g: &Ground<'_>) -> Result<Vec<Item>, DbError> {
    let (key, name) = ("cin-entrypoint:account", "account");
    let row =
        g.db.query_opt(
            "select ts, status, message from ops.market_sync_log
             where endpoint in ('account', 'myTrades') order by ts desc limit 1",
            Vec::new(),
        )
        .await?;
    let Some(row) = row else { return Ok(vec![g.none(key, name)]) };
    let (at, status) = (row.time(0)?, row.text(1)?);
    let good = matches!(status, "ok" | "empty");
    let why = row.opt_text(2)?.map_or_else(String::new, |m| format!(": {m}"));
    let said = format!("it answered {status} {} ago{why}", g.now.since(at));
    Ok(vec![g.item(key, name, Level::Err.unless(good), status, said)])
}

/// The newest rows of the ledger.
pub(super) async fn rows(g: &Ground<'_>) -> Result<Vec<Item>, DbError> {
    let mut items = Vec::new();
    for (what, sql) in [
        ("sessions", "select count(*), max(started_at) from cin_aux.rt_session"),
        ("balances", "select count(*), null from cin_aux.rt_balance"),
        ("wallet", "select count(*), max(ts) from market.wallet_balances_latest"),
    ] {
        let row = g.db.query_one(sql, Vec::new()).await?;
        let (key, n) = (format!("cin-db:{what}"), row.i64(0)?);
        let newest = row.opt_i64(1)?.map(Time);
        items.push(match (n, newest) {
            (0, _) => g.none(key, what),
            (_, Some(at)) => {
                g.item(key, what, Level::Ok, n, format!("{n} rows, the newest of {at}"))
            }
            (_, None) => g.item(key, what, Level::Ok, n, format!("{n} rows")),
        });
    }
    Ok(items)
}

/// The balances of each open session are whole, and what luggage says of a closed one is their sum.
pub(super) async fn core(g: &Ground<'_>) -> Result<Vec<Item>, DbError> {
    let sessions = crate::view::sessions(g.db, None, 100).await?;
    if sessions.is_empty() {
        return Ok(vec![g.none("cin-core:balances", "balances")]);
    }
    let mut wrong = Vec::new();
    let mut checked = 0;
    for session in &sessions {
        let rows =
            g.db.query(
                "select asset, principal_usdt, profit_usdt, closing_principal, closing_profit
                 from cin_aux.rt_balance where session_id = $1",
                values![session.id],
            )
            .await?;
        for row in &rows {
            checked += 1;
            let asset = row.text(0)?;
            let number = |i| Ok::<bool, DbError>(row.text(i)?.parse::<f64>().is_ok());
            if !(number(1)? && number(2)?) {
                wrong.push(format!(
                    "session {}: {asset} has a balance that is no number",
                    session.id
                ));
            }
            let closed = row.opt_text(3)?.is_some();
            if session.status == "CLOSED" && !closed {
                wrong
                    .push(format!("session {} is closed without a closing of {asset}", session.id));
            }
        }
    }
    let said = match wrong.first() {
        None => format!("{checked} balances of {} sessions are whole", sessions.len()),
        Some(first) => format!("{} balances are wrong: {first}", wrong.len()),
    };
    Ok(vec![
        g.item("cin-core:balances", "balances", Level::Err.unless(wrong.is_empty()), checked, said)
            .meta(json!({ "wrong": wrong })),
    ])
}

/// One tick of the watcher, rehearsed.
pub(super) async fn job(g: &Ground<'_>) -> Vec<Item> {
    let (key, name) = ("cin-job:tick", "trade watcher");
    vec![match g.outside.rehearse(WATCHER).await {
        None => {
            let said = format!("no rows yet: the worker {WATCHER} is not configured");
            g.item(key, name, Level::Ok, Value::Null, said)
        }
        Some(Ok(summary)) => g.item(key, name, Level::Ok, summary, "a tick would succeed"),
        Some(Err(why)) => g.item(key, name, Level::Err, Value::Null, why),
    }]
}

/// No move is there twice, and nothing that was imported would be imported again.
pub(super) async fn pipeline(g: &Ground<'_>) -> Result<Vec<Item>, DbError> {
    let (key, name) = ("cin-pipeline:import", "import");
    Ok(vec![match g.outside.rehearse(IMPORTER).await {
        None => {
            let said = format!("no rows yet: the worker {IMPORTER} is not configured");
            g.item(key, name, Level::Ok, Value::Null, said)
        }
        Some(Err(why)) => g.item(key, name, Level::Err, Value::Null, why),
        Some(Ok(summary)) => match summary.get("imported").and_then(Value::as_i64) {
            // What waits for the next import is new; it is no second import of anything.
            Some(n @ 1..) => {
                g.item(key, name, Level::Warn, n, format!("{n} trades wait for the next import"))
            }
            _ => g.item(key, name, Level::Ok, 0, "a further import would import nothing"),
        },
    }])
}

/// The API answers.
pub(super) async fn client(g: &Ground<'_>) -> Vec<Item> {
    let (key, name) = ("cin-client:http", "API");
    vec![match g.outside.api().await {
        Ok(said) => g.item(key, name, Level::Ok, 200, said),
        Err(why) => g.item(key, name, Level::Warn, Value::Null, why),
    }]
}
