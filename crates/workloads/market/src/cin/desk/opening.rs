//! What a session begins with: given balances, or what the account holds.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde_json::json;
use watchbell_core::{Commit, Cycle, Done, Expect, Fault, Statement, Time, values};
use watchbell_db::Database;

use super::request::{Opening, OpeningBalance, arithmetic, opt_amount, price, read_amount};
use crate::account;
use crate::cin::fifo::{Balance, Book, is_stable};
use crate::cin::money::{Overflow, add, mul};
use crate::cin::prices::Prices;
use crate::cin::rollup::Mode;
use crate::cin::session::{self, Session};

/// What a session begins with of one asset.
#[derive(Debug, Clone)]
struct Holding {
    balance: Balance,
    reference: Decimal,
}

/// Opens a session, unless its owner has one over that window.
pub(super) async fn open(db: &Database, cycle: &Cycle, wanted: Opening) -> Result<Done, Fault> {
    let now = cycle.now();
    let started_at = wanted.started_at.unwrap_or(now);
    if started_at > now {
        return Err(Fault::invalid(format!("started_at {started_at} has not come yet")));
    }
    let label = wanted.window_label.as_str();
    check_label(db, label).await?;
    let rows = db
        .query(
            "select session_id from cin_aux.rt_session
             where owner = $1 and window_label = $2 and status = 'OPEN'",
            values![wanted.owner.as_str(), label],
        )
        .await?;
    if let Some(row) = rows.first() {
        let id = row.i64(0)?;
        return Err(Fault::conflict(format!(
            "session {id} of {} over {label} is open: close it first",
            wanted.owner
        )));
    }
    let holdings = match (wanted.from_wallet, wanted.balances.is_empty()) {
        (true, false) => return Err(Fault::invalid("give balances or from_wallet, not both")),
        (true, true) => wallet_holdings(db, now).await?,
        (false, _) => given(db, &wanted.balances, started_at, now).await?,
    };
    let next = "select coalesce(max(session_id), 0) + 1 from cin_aux.rt_session";
    let id = db.query_one(next, Vec::new()).await?.i64(0)?;
    let mut commit = Commit::new().with(
        Statement::new(
            "insert into cin_aux.rt_session
               (session_id, owner, window_label, status, mode, started_at, opening_stamp, note,
                account)
             values ($1, $2, $3, 'OPEN', $4, $5, $5, $6, $7)",
            values![
                id,
                wanted.owner.as_str(),
                label,
                wanted.mode.as_str(),
                started_at,
                wanted.note.as_deref(),
                wanted.account.as_deref()
            ],
        )
        .expect(Expect::Exactly(1)),
    );
    let lots = wanted.lots && wanted.mode == Mode::Ledger;
    commit.statements.extend(
        begin(
            id,
            &holdings,
            started_at,
            lots,
            if wanted.from_wallet { "wallet" } else { "opening" },
        )
        .map_err(arithmetic)?,
    );
    commit.emit(
        "session.opened",
        id.to_string(),
        json!({ "session_id": id, "owner": wanted.owner, "window_label": label }),
    );
    let assets: Vec<_> = holdings.keys().collect();
    let summary = json!({ "session_id": id, "status": "OPEN", "started_at": started_at,
                          "assets": assets });
    Ok(Done::new(summary, commit))
}

async fn check_label(db: &Database, label: &str) -> Result<(), Fault> {
    let sql =
        "select window_label from settings.v_windows where is_window = 1 order by duration_ms";
    let rows = db.query(sql, Vec::new()).await?;
    let mut known = Vec::new();
    for row in &rows {
        known.push(row.text(0)?.to_owned());
    }
    if known.iter().any(|k| k == label) {
        return Ok(());
    }
    Err(Fault::invalid(format!("`{label}` is no window; there are {}", known.join(", "))))
}

/// The balances of a request, valued at the instant that the session begins.
async fn given(
    db: &Database,
    balances: &[OpeningBalance],
    at: Time,
    now: Time,
) -> Result<BTreeMap<String, Holding>, Fault> {
    let mut prices = Prices::new(db);
    let mut all = BTreeMap::new();
    for b in balances {
        let units = read_amount(&b.units)?;
        let price = match &b.price_usdt {
            Some(price) => read_amount(price)?,
            None => price(&mut prices, &b.asset, at, now).await?,
        };
        let principal = mul(units, price).map_err(arithmetic)?;
        let profit = opt_amount(b.profit_usdt.as_deref())?.unwrap_or_default();
        let reference = match opt_amount(b.ref_usdt.as_deref())? {
            Some(reference) => reference,
            None => add(principal, profit).map_err(arithmetic)?,
        };
        let balance = Balance::opening(principal, profit, units);
        if all.insert(b.asset.clone(), Holding { balance, reference }).is_some() {
            return Err(Fault::invalid(format!("{} is listed twice", b.asset)));
        }
    }
    Ok(all)
}

/// What the account holds, at the newest prices.
async fn wallet_holdings(db: &Database, now: Time) -> Result<BTreeMap<String, Holding>, Fault> {
    let wallet = account::wallet(db).await?;
    if wallet.is_empty() {
        return Err(Fault::conflict(
            "the wallet is not known: let trade-feed read it (it needs the venue's \
             credentials), or give balances",
        ));
    }
    let mut prices = Prices::new(db);
    let mut all = BTreeMap::new();
    for held in wallet.iter().filter(|h| !h.total.is_zero()) {
        let price = price(&mut prices, &held.asset, now, now).await?;
        let principal = mul(held.total, price).map_err(arithmetic)?;
        let balance = Balance::opening(principal, Decimal::ZERO, held.total);
        all.insert(held.asset.clone(), Holding { balance, reference: principal });
    }
    Ok(all)
}

/// Sets a session that no move has changed yet to what the account holds.
pub(super) async fn refresh(
    db: &Database,
    cycle: &Cycle,
    session: &Session,
) -> Result<Done, Fault> {
    let sql = "select count(*) from cin_aux.rt_move where session_id = $1";
    let moves = db.query_one(sql, values![session.id]).await?.i64(0)?;
    if moves > 0 {
        return Err(Fault::conflict(format!(
            "session {} has {moves} moves: its balances follow from them and are not reset",
            session.id
        )));
    }
    let holdings = wallet_holdings(db, cycle.now()).await?;
    let mut commit = Commit::new().with(session.guard());
    for table in ["rt_balance", "rt_lot", "rt_reference"] {
        commit.push(Statement::new(
            format!("delete from cin_aux.{table} where session_id = $1"),
            values![session.id],
        ));
    }
    let lots = session.mode == Mode::Ledger;
    let rows = begin(session.id, &holdings, session.started_at, lots, "wallet");
    commit.statements.extend(rows.map_err(arithmetic)?);
    let assets: Vec<_> = holdings.keys().collect();
    Ok(Done::new(json!({ "session_id": session.id, "assets": assets }), commit))
}

/// The rows of an opening.
fn begin(
    session: i64,
    holdings: &BTreeMap<String, Holding>,
    at: Time,
    lots: bool,
    source: &'static str,
) -> Result<Vec<Statement>, Overflow> {
    let mut book = Book::default();
    for (asset, held) in holdings {
        book.open(asset, held.balance, at, lots && !is_stable(asset))?;
    }
    let mut all = Vec::new();
    if !holdings.is_empty() {
        let references = holdings.iter().map(|(asset, held)| (asset, held.reference));
        all.push(session::put_references(session, source, references));
        all.extend(session::write_book(session, &Book::default(), &book)?);
    }
    Ok(all)
}
