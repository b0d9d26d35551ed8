//! What there is to allot at a window's end: what the ledger's sessions held, else the wallet, else
//! equal parts.
//!
//! All of it is read as it was at that instant and not as it is now, so that a window allots the same
//! whether it is computed at once, after a downtime, or again.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use watchbell_core::{Fault, Time, chain, values};
use watchbell_db::{Database, Row};

use crate::cin::{SessionError, units_at};
use crate::matrices::stored;

/// What each coin is worth in USDT when no balance is known.
const EQUAL_NOTIONAL: f64 = 1_000.0;

/// Where balances come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Origin {
    Session,
    Wallet,
    Equal,
}

impl Origin {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Wallet => "wallet",
            Self::Equal => "equal",
        }
    }
}

/// What there is of each coin of a slice, in its order and in the coin's own units.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Balances {
    pub(super) origin: Origin,
    /// The session that they are of.
    pub(super) session: Option<i64>,
    pub(super) units: Vec<f64>,
}

/// A stored amount that is none.
#[derive(Debug, thiserror::Error)]
#[error(
    "the {what} of {asset} is stored as `{text}`, which is not an amount: correct it in {table}"
)]
struct NotAnAmount {
    what: &'static str,
    asset: Arc<str>,
    text: String,
    table: &'static str,
}

/// The balances that the window of `label` that ends at `end` allots, and those of the other sessions
/// of that label that were open then. `prices` are in USDT.
pub(super) async fn at(
    db: &Database,
    label: &str,
    end: Time,
    coins: &[Arc<str>],
    prices: &[Option<f64>],
) -> Result<(Balances, Vec<Balances>), Fault> {
    let mut sessions = Vec::new();
    for session in stored::sessions_at(db, Some(label), end).await? {
        let held = match units_at(db, session.id, end).await {
            Ok(held) => held,
            Err(SessionError::Database(e)) => return Err(e.into()),
            // The first one is what the window is of; what another lacks is its own loss.
            Err(e) if sessions.is_empty() => return Err(Fault::permanent(e)),
            Err(e) => {
                let (session, why) = (session.id, chain(&e));
                tracing::warn!(session, %why, "no allocation is suggested to a session");
                continue;
            }
        };
        let units = |coin: &Arc<str>| {
            // A decimal has the shortest text of its number, and so the nearest double.
            held.get(&**coin).map_or(0.0, |units| {
                units.to_string().parse().expect("a decimal's text is a number")
            })
        };
        sessions.push(Balances {
            origin: Origin::Session,
            session: Some(session.id),
            units: coins.iter().map(units).collect(),
        });
    }
    if !sessions.is_empty() {
        let own = sessions.remove(0);
        return Ok((own, sessions));
    }
    let other = |origin, units| (Balances { origin, session: None, units }, Vec::new());
    let known = wallet(db, end).await?;
    if !known.is_empty() {
        let units = coins.iter().map(|c| known.get(c).copied().unwrap_or(0.0)).collect();
        return Ok(other(Origin::Wallet, units));
    }
    let equal = prices
        .iter()
        .map(|p| p.map_or(0.0, |p| EQUAL_NOTIONAL / p))
        .map(|units| if units.is_finite() { units } else { 0.0 })
        .collect();
    Ok(other(Origin::Equal, equal))
}

/// What the account held, free and locked.
async fn wallet(db: &Database, at: Time) -> Result<BTreeMap<Arc<str>, f64>, Fault> {
    let sql = "select w.asset, w.free_amt, w.locked_amt from market.wallet_balances w
         where w.ts = (select max(n.ts) from market.wallet_balances n
                       where n.asset = w.asset and n.ts <= $1)";
    let mut known = BTreeMap::new();
    for row in db.query(sql, values![at]).await? {
        let asset = row.shared_text(0)?;
        let (free, locked) =
            (amount(&row, 1, "free amount", &asset)?, amount(&row, 2, "locked amount", &asset)?);
        known.insert(asset, free + locked);
    }
    Ok(known)
}

fn amount(row: &Row, index: usize, what: &'static str, asset: &Arc<str>) -> Result<f64, Fault> {
    let text = row.text(index)?;
    let parsed = text.parse().ok().filter(|v: &f64| v.is_finite());
    parsed.ok_or_else(|| {
        let (asset, text) = (Arc::clone(asset), text.to_owned());
        Fault::permanent(NotAnAmount { what, asset, text, table: "market.wallet_balances" })
    })
}
