//! What pages and commands show of the ledger: plain reads. Amounts are exact.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Serialize;
use watchbell_core::{Time, values};
use watchbell_db::{Database, DbError, Row};

use super::money::{self, add};
use super::rollup::{Alignment, Reconciliation, align, reconcile};
use super::session::{SessionError, amount, opt_amount};
use crate::account::ReadError;

impl From<SessionError> for ReadError {
    fn from(e: SessionError) -> Self {
        match e {
            SessionError::Database(e) => Self::Database(e),
            SessionError::Overflow(e) => Self::Amount(e),
            // Reading does no moves.
            SessionError::Refused { why, .. } => Self::Row(why),
            damaged @ SessionError::Damaged { .. } => Self::Row(damaged.to_string()),
        }
    }
}

/// Which sessions to list.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// Only this owner's.
    pub owner: Option<String>,
    /// Only those that are `OPEN`, `CLOSED` or `ERROR`.
    pub status: Option<String>,
    /// At most so many, the newest; 0 is all.
    pub limit: u32,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionView {
    /// Its number.
    pub session_id: i64,
    /// Whose it is.
    pub owner: String,
    /// Its window.
    pub window_label: String,
    /// `OPEN`, `CLOSED` or `ERROR`.
    pub status: String,
    /// `ledger` or `parity`.
    pub mode: String,
    /// Whose trades it books; every account's if none.
    pub account: Option<String>,
    /// When it began.
    pub started_at: Time,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Why its close failed.
    pub error: Option<String>,
    /// What was noted at its opening.
    pub note: Option<String>,
    /// Its moves.
    pub moves: i64,
    /// Trades that could not be booked.
    pub unbooked: i64,
}

/// What a session holds of one asset. USDT, but for the units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BalanceView {
    /// The asset.
    pub asset: String,
    /// Units held.
    pub units: Decimal,
    /// Principal now.
    pub principal: Decimal,
    /// Profit now.
    pub profit: Decimal,
    /// Principal at the opening.
    pub opening_principal: Decimal,
    /// Profit at the opening.
    pub opening_profit: Decimal,
    /// Units at the opening.
    pub opening_units: Decimal,
    /// Principal at the close.
    pub closing_principal: Option<Decimal>,
    /// Profit at the close.
    pub closing_profit: Option<Decimal>,
    /// What was meant to be held.
    pub reference: Option<Decimal>,
    /// The newest price.
    pub mark: Option<Decimal>,
    /// When that was.
    pub marked_at: Option<Time>,
    /// What it is worth: its units at the newest price, or principal and profit.
    pub worth: Decimal,
}

/// What came in together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LotView {
    /// Its number in the session.
    pub lot_id: i64,
    /// The asset.
    pub asset: String,
    /// When it came in.
    pub created_at: Time,
    /// The move that made it; none for the opening.
    pub origin_move_id: Option<i64>,
    /// What a unit cost.
    pub p_in: Decimal,
    /// Units that came in.
    pub units_total: Decimal,
    /// Units that are left.
    pub units_free: Decimal,
    /// What those that are left have cost.
    pub cost_free: Decimal,
}

/// A move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MoveView {
    /// Its number in the session.
    pub move_id: i64,
    /// When.
    pub at: Time,
    /// What was given.
    pub from: String,
    /// How much of it.
    pub from_units: Decimal,
    /// What was got.
    pub to: String,
    /// How much of it.
    pub to_units: Decimal,
    /// What changed hands, in USDT.
    pub executed: Decimal,
    /// The fee, in USDT.
    pub fee: Decimal,
    /// The realised result of what was given.
    pub trace: Decimal,
    /// Trace, less fee and slippage, and with what the fee's units had gained.
    pub realized: Decimal,
    /// Imprint, luggage and the difference.
    pub imprint: Decimal,
    /// See there.
    pub luggage: Decimal,
    /// See there.
    pub tau: Decimal,
    /// More was given than was held.
    pub overdrawn: bool,
    /// The trade's market and number; none for a planned move.
    pub source: Option<(String, i64)>,
    /// In words.
    pub notes: String,
}

/// The sums over a session's moves, in USDT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PnlView {
    /// Moves.
    pub moves: i64,
    /// Moves that gave more than was held.
    pub overdrawn: i64,
    /// What changed hands.
    pub executed: Decimal,
    /// Fees.
    pub fee: Decimal,
    /// Slippage.
    pub slippage: Decimal,
    /// Results of what was given.
    pub trace: Decimal,
    /// The real result.
    pub realized: Decimal,
    /// What is held at its worth, less principal and profit: not realised yet.
    pub unrealized: Decimal,
    /// Sum of imprints.
    pub imprint: Decimal,
    /// Sum of luggage.
    pub luggage: Decimal,
    /// Sum of differences.
    pub tau: Decimal,
}

/// A trade that could not be booked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unbooked {
    /// The market.
    pub symbol: String,
    /// The trade's number.
    pub trade_id: i64,
    /// When it was traded.
    pub at: Time,
    /// Why not.
    pub reason: String,
    /// Since when this is known.
    pub seen_at: Time,
}

/// What a closed session came to, in USDT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RollupView {
    /// Principal that moved.
    pub principal_churn: Decimal,
    /// Profit that moved.
    pub profit_churn: Decimal,
    /// Profit at the close, less that at the opening.
    pub generated_profit: Decimal,
    /// Sum of traces.
    pub trace_sum: Decimal,
    /// Sum of deviations from the references.
    pub devref_sum: Decimal,
    /// Principal at the close.
    pub luggage_principal: Decimal,
    /// Profit at the close.
    pub luggage_profit: Decimal,
    /// The real result.
    pub realized_pnl: Decimal,
    /// Moves.
    pub moves: i64,
    /// Trades that were left out.
    pub unbooked: i64,
    /// When.
    pub closed_at: Time,
}

/// One session with everything that a page shows of it, but for its moves and lots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionDetail {
    /// The session.
    pub session: SessionView,
    /// What it holds, by asset.
    pub balances: Vec<BalanceView>,
    /// What its moves came to.
    pub pnl: PnlView,
    /// What is held against what was meant.
    pub reconciliation: Reconciliation,
    /// What is held against what the allocation suggests, by asset.
    pub alignment: Vec<Alignment>,
    /// Trades that could not be booked, oldest first.
    pub unbooked: Vec<Unbooked>,
    /// What it came to, once closed.
    pub rollup: Option<RollupView>,
}

/// Sessions, the newest first.
///
/// # Errors
/// When the database fails.
pub async fn sessions(
    db: &Database,
    filter: &SessionFilter,
) -> Result<Vec<SessionView>, ReadError> {
    let limit = if filter.limit == 0 { i64::MAX } else { i64::from(filter.limit) };
    let sql = format!(
        "{SESSION} where ($1 = '' or s.owner = $1) and ($2 = '' or s.status = $2)
         order by s.session_id desc limit $3"
    );
    let params = values![
        filter.owner.as_deref().unwrap_or(""),
        filter.status.as_deref().unwrap_or(""),
        limit
    ];
    let rows = db.query(sql, params).await?;
    rows.iter().map(|row| Ok(session_view(row)?)).collect()
}

const SESSION: &str = "select s.session_id, s.owner, s.window_label, s.status, s.mode, s.account,
        s.started_at, s.ended_at, s.error, s.note,
        (select count(*) from cin_aux.rt_move m where m.session_id = s.session_id),
        (select count(*) from cin_aux.rt_move_error e where e.session_id = s.session_id)
     from cin_aux.rt_session s";

fn session_view(row: &Row) -> Result<SessionView, DbError> {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Ok(SessionView {
        session_id: row.i64(0)?,
        owner: row.text(1)?.to_owned(),
        window_label: row.text(2)?.to_owned(),
        status: row.text(3)?.to_owned(),
        mode: row.text(4)?.to_owned(),
        account: owned(row.opt_text(5)?),
        started_at: row.time(6)?,
        ended_at: row.opt_time(7)?,
        error: owned(row.opt_text(8)?),
        note: owned(row.opt_text(9)?),
        moves: row.i64(10)?,
        unbooked: row.i64(11)?,
    })
}

/// One session; none where there is no such number.
///
/// # Errors
/// When the database fails, or holds an amount that is none.
pub async fn session(db: &Database, id: i64) -> Result<Option<SessionDetail>, ReadError> {
    let sql = format!("{SESSION} where s.session_id = $1");
    let rows = db.query(sql, values![id]).await?;
    let Some(session) = rows.first().map(session_view).transpose()? else { return Ok(None) };
    let balances = balances(db, id).await?;
    let mtm = money::sum(balances.iter().map(|b| b.worth))?;
    let reference = money::sum(balances.iter().filter_map(|b| b.reference))?;
    let mut pnl = pnl(db, id).await?;
    for b in &balances {
        let booked = add(b.principal, b.profit)?;
        pnl.unrealized = add(pnl.unrealized, money::sub(b.worth, booked)?)?;
    }
    let held = balances.iter().map(|b| (b.asset.clone(), b.worth)).collect();
    Ok(Some(SessionDetail {
        session,
        pnl,
        reconciliation: reconcile(mtm, reference)?,
        alignment: align(&suggested(db, id).await?, &held)?,
        unbooked: unbooked(db, id).await?,
        rollup: rollup(db, id).await?,
        balances,
    }))
}

async fn balances(db: &Database, id: i64) -> Result<Vec<BalanceView>, ReadError> {
    let rows = db
        .query(
            "select b.asset, b.units, b.principal_usdt, b.profit_usdt, b.opening_principal,
                    b.opening_profit, b.opening_units, b.closing_principal, b.closing_profit,
                    r.ref_usdt, k.price_usdt, k.ts
             from cin_aux.rt_balance b
             left join cin_aux.rt_reference r
               on r.session_id = b.session_id and r.asset = b.asset
             left join cin_aux.v_latest_marks k
               on k.session_id = b.session_id and k.asset = b.asset
             where b.session_id = $1 order by b.asset /*pg*/ collate \"C\" /*end*/",
            values![id],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let (units, mark) = (amount(row, 1)?, opt_amount(row, 10)?);
            let (principal, profit) = (amount(row, 2)?, amount(row, 3)?);
            let worth = match mark {
                Some(price) => money::mul(units, price)?,
                None => add(principal, profit)?,
            };
            Ok(BalanceView {
                asset: row.text(0)?.to_owned(),
                units,
                principal,
                profit,
                opening_principal: amount(row, 4)?,
                opening_profit: amount(row, 5)?,
                opening_units: amount(row, 6)?,
                closing_principal: opt_amount(row, 7)?,
                closing_profit: opt_amount(row, 8)?,
                reference: opt_amount(row, 9)?,
                mark,
                marked_at: row.opt_time(11)?,
                worth,
            })
        })
        .collect()
}

async fn pnl(db: &Database, id: i64) -> Result<PnlView, ReadError> {
    let rows = db
        .query(
            "select executed_usdt, fee_usdt, slippage_usdt, trace_usdt, realized_usdt, imprint_usdt,
                    luggage_usdt, tau_usdt, overdrawn
             from cin_aux.rt_move where session_id = $1",
            values![id],
        )
        .await?;
    let mut all = PnlView { moves: rows.len() as i64, ..PnlView::default() };
    for row in &rows {
        let slots = [
            &mut all.executed,
            &mut all.fee,
            &mut all.slippage,
            &mut all.trace,
            &mut all.realized,
            &mut all.imprint,
            &mut all.luggage,
            &mut all.tau,
        ];
        for (i, slot) in slots.into_iter().enumerate() {
            *slot = add(*slot, amount(row, i)?)?;
        }
        all.overdrawn += row.i64(8)?;
    }
    Ok(all)
}

/// What the allocation suggests, by asset: its rows name markets in USDT, or the asset itself.
async fn suggested(db: &Database, id: i64) -> Result<BTreeMap<String, Decimal>, ReadError> {
    let rows = db
        .query("select symbol, value from cin_aux.mea_result where session_id = $1", values![id])
        .await?;
    let mut all = BTreeMap::new();
    for row in &rows {
        let symbol = row.text(0)?;
        let asset = symbol.strip_suffix("USDT").filter(|a| !a.is_empty()).unwrap_or(symbol);
        // Suggestions are analytics, in doubles; more decimals than an amount has mean nothing.
        let value = Decimal::from_f64_retain(row.f64(1)?).unwrap_or_default().round_dp(12);
        all.insert(asset.to_owned(), value.max(Decimal::ZERO));
    }
    Ok(all)
}

async fn unbooked(db: &Database, id: i64) -> Result<Vec<Unbooked>, ReadError> {
    let rows = db
        .query(
            "select src_symbol, src_trade_id, ts, reason, seen_at from cin_aux.rt_move_error
             where session_id = $1 order by ts, src_symbol /*pg*/ collate \"C\" /*end*/,
                   src_trade_id",
            values![id],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Unbooked {
                symbol: row.text(0)?.to_owned(),
                trade_id: row.i64(1)?,
                at: row.time(2)?,
                reason: row.text(3)?.to_owned(),
                seen_at: row.time(4)?,
            })
        })
        .collect()
}

async fn rollup(db: &Database, id: i64) -> Result<Option<RollupView>, ReadError> {
    let rows = db
        .query(
            "select principal_churn, profit_churn, generated_profit, trace_sum, devref_sum,
                    luggage_principal, luggage_profit, realized_pnl, moves, unbooked, closed_at
             from cin_aux.rt_imprint_luggage where session_id = $1",
            values![id],
        )
        .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(RollupView {
        principal_churn: amount(row, 0)?,
        profit_churn: amount(row, 1)?,
        generated_profit: amount(row, 2)?,
        trace_sum: amount(row, 3)?,
        devref_sum: amount(row, 4)?,
        luggage_principal: amount(row, 5)?,
        luggage_profit: amount(row, 6)?,
        realized_pnl: amount(row, 7)?,
        moves: row.i64(8)?,
        unbooked: row.i64(9)?,
        closed_at: row.time(10)?,
    }))
}

/// Lots of a session in the order of their use; with `open_only` those of which something is left.
///
/// # Errors
/// When the database fails, or holds an amount that is none.
pub async fn lots(db: &Database, id: i64, open_only: bool) -> Result<Vec<LotView>, ReadError> {
    let rows = db
        .query(
            "select lot_id, asset, created_at, origin_move_id, p_in_usdt, units_total, units_free,
                    cost_free
             from cin_aux.rt_lot where session_id = $1 and ($2 = 0 or units_free <> '0')
             order by asset /*pg*/ collate \"C\" /*end*/, lot_id",
            values![id, open_only],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(LotView {
                lot_id: row.i64(0)?,
                asset: row.text(1)?.to_owned(),
                created_at: row.time(2)?,
                origin_move_id: row.opt_i64(3)?,
                p_in: amount(row, 4)?,
                units_total: amount(row, 5)?,
                units_free: amount(row, 6)?,
                cost_free: amount(row, 7)?,
            })
        })
        .collect()
}

/// Moves of a session, the newest first: at most `limit`, and those before `before` if it is given.
///
/// # Errors
/// When the database fails, or holds an amount that is none.
pub async fn moves(
    db: &Database,
    id: i64,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<MoveView>, ReadError> {
    let rows = db
        .query(
            "select move_id, ts, from_asset, from_units, to_asset, to_units_received, executed_usdt,
                    fee_usdt, trace_usdt, realized_usdt, imprint_usdt, luggage_usdt, tau_usdt,
                    overdrawn, src_symbol, src_trade_id, notes
             from cin_aux.rt_move where session_id = $1 and move_id < $2
             order by move_id desc limit $3",
            values![id, before.unwrap_or(i64::MAX), i64::from(limit)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(MoveView {
                move_id: row.i64(0)?,
                at: row.time(1)?,
                from: row.text(2)?.to_owned(),
                from_units: amount(row, 3)?,
                to: row.text(4)?.to_owned(),
                to_units: amount(row, 5)?,
                executed: amount(row, 6)?,
                fee: amount(row, 7)?,
                trace: amount(row, 8)?,
                realized: amount(row, 9)?,
                imprint: amount(row, 10)?,
                luggage: amount(row, 11)?,
                tau: amount(row, 12)?,
                overdrawn: row.bool(13)?,
                source: row.opt_text(14)?.map(str::to_owned).zip(row.opt_i64(15)?),
                notes: row.text(16)?.to_owned(),
            })
        })
        .collect()
}
