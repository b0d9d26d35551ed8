//! Smokes about the ledger of trading sessions: its account, its rows, its sums, its workers.

use rust_decimal::Decimal;
use serde_json::{Value, json};
use watchbell_core::{Time, values};
use watchbell_db::DbError;

use super::super::{Item, Level};
use super::Ground;
use crate::view::BalanceLine;

/// Sessions that are looked at, the newest first.
const SESSIONS: u32 = 100;
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
        ("moves", "select count(*), max(ts) from cin_aux.rt_move"),
        ("trades", "select count(*), max(trade_time) from market.account_trades"),
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

/// The balances of each session are whole, and the luggage of a closed one is their sum.
pub(super) async fn core(g: &Ground<'_>) -> Result<Vec<Item>, DbError> {
    let sessions = crate::view::sessions(g.db, None, SESSIONS).await?;
    if sessions.is_empty() {
        return Ok(vec![g.none("cin-core:balances", "balances")]);
    }
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for session in &sessions {
        let balances = crate::view::balances(g.db, session.id).await?;
        checked += balances.len();
        let luggage =
            g.db.query_opt(
                "select luggage_principal, luggage_profit from cin_aux.rt_imprint_luggage
                 where session_id = $1",
                values![session.id],
            )
            .await?;
        let luggage = match &luggage {
            Some(row) => Some((row.text(0)?.to_owned(), row.text(1)?.to_owned())),
            None => None,
        };
        let closed = session.status == "CLOSED";
        if let Some(why) = unbalanced(&balances, luggage.as_ref(), closed) {
            wrong.push(format!("session {}: {why}", session.id));
        }
    }
    let said = match wrong.first() {
        None => format!("{checked} balances of {} sessions agree", sessions.len()),
        Some(first) => format!("{} of {} sessions: {first}", wrong.len(), sessions.len()),
    };
    Ok(vec![
        g.item("cin-core:balances", "balances", Level::Err.unless(wrong.is_empty()), checked, said)
            .meta(json!({ "wrong": wrong })),
    ])
}

/// What does not agree in one session, if anything.
fn unbalanced(
    balances: &[BalanceLine],
    luggage: Option<&(String, String)>,
    closed: bool,
) -> Option<String> {
    let (mut principal, mut profit) = (Decimal::ZERO, Decimal::ZERO);
    for b in balances {
        if [&b.units, &b.principal, &b.profit].iter().any(|n| n.parse::<Decimal>().is_err()) {
            return Some(format!("{} has a balance that is no number", b.asset));
        }
        if !closed {
            continue;
        }
        let closing = |of: &Option<String>| of.as_ref()?.parse::<Decimal>().ok();
        let both = closing(&b.closing_principal).zip(closing(&b.closing_profit));
        let Some((of_principal, of_profit)) = both else {
            return Some(format!("it is closed without a closing of {}", b.asset));
        };
        (principal, profit) = (principal + of_principal, profit + of_profit);
    }
    if !closed {
        return None;
    }
    let Some((of_principal, of_profit)) = luggage else {
        return Some("it is closed without its luggage".to_owned());
    };
    let same = |text: &str, sum: Decimal| text.parse::<Decimal>() == Ok(sum);
    let agrees = same(of_principal, principal) && same(of_profit, profit);
    (!agrees).then(|| {
        format!(
            "its balances sum to {principal} and {profit}, its luggage says {of_principal} and \
             {of_profit}"
        )
    })
}

/// One tick of the watcher, rehearsed.
pub(super) async fn job(g: &Ground<'_>) -> Vec<Item> {
    let (key, name) = ("cin-job:tick", "trade watcher");
    if !g.outside.has_venue() {
        let said = "there is no venue to ask: the demonstration does not run";
        return vec![g.item(key, name, Level::Warn, Value::Null, said)];
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn line(closing: Option<(&str, &str)>) -> BalanceLine {
        BalanceLine {
            overdrawn: false,
            asset: "BTC".into(),
            units: "0.5".into(),
            opening_principal: "100".into(),
            opening_profit: "0".into(),
            principal: "100".into(),
            profit: "2.5".into(),
            closing_principal: closing.map(|c| c.0.into()),
            closing_profit: closing.map(|c| c.1.into()),
        }
    }

    #[test]
    fn the_luggage_of_a_closed_session_is_the_sum_of_its_balances() {
        let closed = [line(Some(("100", "2.50"))), line(Some(("1", "-0.5")))];
        let luggage = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(unbalanced(&closed, Some(&luggage("101", "2")), true), None);
        let wrong = unbalanced(&closed, Some(&luggage("101", "3")), true).unwrap();
        assert!(wrong.contains("101 and 2.00") && wrong.contains("101 and 3"), "{wrong}");
        let none = unbalanced(&closed, None, true).unwrap();
        assert_eq!(none, "it is closed without its luggage");
        let open = [line(None)];
        assert_eq!(unbalanced(&open, None, false), None);
        assert_eq!(unbalanced(&open, None, true).unwrap(), "it is closed without a closing of BTC");
        let odd = [BalanceLine { units: "many".into(), ..line(None) }];
        assert_eq!(unbalanced(&odd, None, false).unwrap(), "BTC has a balance that is no number");
    }
}
