//! A session as rows: what is read before a change, and the statements that a change is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rust_decimal::Decimal;
use watchbell_core::{Expect, Statement, Time, Value, values};
use watchbell_db::{Database, DbError, Row};

use super::fifo::{Balance, Book, Fee, Lot, Move, MoveError, Order, Origin};
use super::money::{self, Overflow, div};
use super::rollup::{Measures, Mode};

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Open,
    Closed,
    Error,
}

impl Status {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Closed => "CLOSED",
            Self::Error => "ERROR",
        }
    }
}

/// The row of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) id: i64,
    pub(crate) owner: String,
    pub(crate) window_label: String,
    pub(crate) status: Status,
    pub(crate) mode: Mode,
    pub(crate) started_at: Time,
    pub(crate) ended_at: Option<Time>,
    pub(crate) account: Option<String>,
    pub(crate) revision: i64,
}

/// Why a session cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error(transparent)]
    Database(#[from] DbError),
    #[error(transparent)]
    Overflow(#[from] Overflow),
    #[error("session {session} has a trade that cannot be done: {why}")]
    Refused { session: i64, why: String },
    #[error(
        "{table} holds an amount of {key} of session {session} that is none: {why}; correct it there"
    )]
    Damaged { session: i64, table: &'static str, key: String, why: Overflow },
}

impl SessionError {
    /// A move of that session that was not done.
    pub(crate) fn of_move(session: i64, e: MoveError) -> Self {
        match e {
            MoveError::Overflow(e) => Self::Overflow(e),
            other => Self::Refused { session, why: other.to_string() },
        }
    }

    /// An amount that was read from that row.
    fn stored_in(self, session: i64, table: &'static str, key: impl fmt::Display) -> Self {
        match self {
            Self::Overflow(why) => Self::Damaged { session, table, key: key.to_string(), why },
            other => other,
        }
    }
}

const COLUMNS: &str = "select session_id, owner, window_label, status, mode, started_at, ended_at,
        account, revision from cin_aux.rt_session";

/// The session of that number.
pub(crate) async fn load(db: &Database, id: i64) -> Result<Option<Session>, DbError> {
    let sql = format!("{COLUMNS} where session_id = $1");
    let rows = db.query(sql, values![id]).await?;
    rows.first().map(of_row).transpose()
}

/// All open sessions, in the order of their numbers.
pub(crate) async fn open(db: &Database) -> Result<Vec<Session>, DbError> {
    let sql = format!("{COLUMNS} where status = 'OPEN' order by session_id");
    db.query(sql, Vec::new()).await?.iter().map(of_row).collect()
}

fn of_row(row: &Row) -> Result<Session, DbError> {
    Ok(Session {
        id: row.i64(0)?,
        owner: row.text(1)?.to_owned(),
        window_label: row.text(2)?.to_owned(),
        status: match row.text(3)? {
            "OPEN" => Status::Open,
            "CLOSED" => Status::Closed,
            _ => Status::Error,
        },
        mode: if row.text(4)? == "parity" { Mode::Parity } else { Mode::Ledger },
        started_at: row.time(5)?,
        ended_at: row.opt_time(6)?,
        account: row.opt_text(7)?.map(str::to_owned),
        revision: row.i64(8)?,
    })
}

impl Session {
    /// The first statement of each change: it refuses the commit if the session has changed since it
    /// was read.
    pub(crate) fn guard(&self) -> Statement {
        Statement::new(
            "update cin_aux.rt_session set revision = revision + 1
             where session_id = $1 and revision = $2 and status = $3",
            values![self.id, self.revision, self.status.as_str()],
        )
        .expect(Expect::Exactly(1))
    }
}

/// An amount as it is stored.
pub(crate) fn text(amount: Decimal) -> String {
    amount.normalize().to_string()
}

pub(crate) fn amount(row: &Row, index: usize) -> Result<Decimal, SessionError> {
    Ok(money::parse(row.text(index)?)?)
}

pub(crate) fn opt_amount(row: &Row, index: usize) -> Result<Option<Decimal>, SessionError> {
    Ok(row.opt_text(index)?.map(money::parse).transpose()?)
}

/// What a session's book is made of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stored {
    /// As it stands, with the open lots.
    pub(crate) book: Book,
    /// The place of its last move.
    pub(crate) last: Option<(Time, String, i64)>,
}

/// The book as it stands.
pub(crate) async fn book(db: &Database, session: i64) -> Result<Stored, SessionError> {
    let mut book = Book::default();
    for (asset, balance) in balances(db, session).await? {
        book.balances.insert(asset, balance);
    }
    for (asset, lot) in stored_lots(db, session, "units_free <> '0'").await? {
        book.lots.entry(asset).or_default().push(lot);
    }
    let rows = db
        .query(
            "select coalesce((select max(lot_id) from cin_aux.rt_lot where session_id = $1), 0),
                    coalesce((select max(move_id) from cin_aux.rt_move where session_id = $1), 0)",
            values![session],
        )
        .await?;
    if let Some(row) = rows.first() {
        (book.last_lot, book.last_move) = (row.i64(0)?, row.i64(1)?);
    }
    let last = db
        .query(
            "select ts, coalesce(src_symbol, ''), coalesce(src_trade_id, 0) from cin_aux.rt_move
             where session_id = $1 order by move_id desc limit 1",
            values![session],
        )
        .await?;
    let last = last
        .first()
        .map(|row| Ok::<_, DbError>((row.time(0)?, row.text(1)?.to_owned(), row.i64(2)?)));
    Ok(Stored { book, last: last.transpose()? })
}

/// What a session held of each asset at an instant, in units: what it began with and every move before
/// then, as far as they are booked. Later moves do not change it.
pub(crate) async fn units_at(
    db: &Database,
    session: i64,
    at: Time,
) -> Result<BTreeMap<String, Decimal>, SessionError> {
    let rows = db
        .query(
            "select s.mode, (select m.ts from cin_aux.rt_move m where m.session_id = s.session_id
                             order by m.move_id desc limit 1)
             from cin_aux.rt_session s where s.session_id = $1",
            values![session],
        )
        .await?;
    let Some(row) = rows.first() else { return Ok(BTreeMap::new()) };
    // The moves of a parity session leave its balances alone.
    let moved_since = row.text(0)? != Mode::Parity.as_str() && row.opt_time(1)? >= Some(at);
    let balances = if moved_since {
        let (mut book, orders) = history(db, session).await?;
        for order in orders.into_iter().take_while(|order| order.at < at) {
            book.repeat(order).map_err(|e| SessionError::of_move(session, e))?;
        }
        book.balances
    } else {
        balances(db, session).await?
    };
    Ok(balances.into_iter().map(|(asset, balance)| (asset, balance.units)).collect())
}

/// The book as it was opened, and the orders of all moves since, in the order of their making.
pub(crate) async fn history(
    db: &Database,
    session: i64,
) -> Result<(Book, Vec<Order>), SessionError> {
    let mut book = Book::default();
    let rows = db
        .query("select asset from cin_aux.rt_reference where session_id = $1", values![session])
        .await?;
    let mut opened = BTreeSet::new();
    for row in &rows {
        opened.insert(row.text(0)?.to_owned());
    }
    for (asset, b) in balances(db, session).await? {
        // Each asset of the opening has a reference; the others were brought by moves.
        if opened.contains(&asset) {
            let began = Balance::opening(b.opening_principal, b.opening_profit, b.opening_units);
            book.balances.insert(asset, began);
        }
    }
    for (asset, lot) in stored_lots(db, session, "origin_move_id is null").await? {
        book.last_lot = book.last_lot.max(lot.id);
        let whole = Lot::whole(lot.id, lot.at, None, lot.units, lot.cost);
        book.lots.entry(asset).or_default().push(whole);
    }
    let rows = db
        .query(
            "select ts, from_asset, to_asset, from_units, to_units_received, executed_usdt,
                    fee_asset, fee_units, fee_usdt, slippage_usdt, ref_usdt_target, available_usdt,
                    src_symbol, src_trade_id, src_side, notes, move_id
             from cin_aux.rt_move where session_id = $1 order by move_id",
            values![session],
        )
        .await?;
    let mut orders = Vec::with_capacity(rows.len());
    for row in &rows {
        let order = order(row);
        let id = row.i64(16)?;
        orders.push(
            order
                .map_err(|e| e.stored_in(session, "cin_aux.rt_move", format_args!("move {id}")))?,
        );
    }
    Ok((book, orders))
}

/// A stored move as it was ordered.
fn order(row: &Row) -> Result<Order, SessionError> {
    let fee = match row.opt_text(6)? {
        None => None,
        Some(asset) => Some(Fee {
            asset: asset.to_owned(),
            units: opt_amount(row, 7)?.unwrap_or_default(),
            value: amount(row, 8)?,
        }),
    };
    let origin = match (row.opt_text(12)?, row.opt_i64(13)?) {
        (Some(symbol), Some(id)) => {
            Origin::Trade { symbol: symbol.to_owned(), id, buy: row.opt_text(14)? == Some("BUY") }
        }
        _ => Origin::Planned,
    };
    Ok(Order {
        at: row.time(0)?,
        from: row.text(1)?.to_owned(),
        to: row.text(2)?.to_owned(),
        from_units: amount(row, 3)?,
        to_units: amount(row, 4)?,
        executed: amount(row, 5)?,
        fee,
        slippage: amount(row, 9)?,
        target: opt_amount(row, 10)?,
        available: opt_amount(row, 11)?,
        origin,
        notes: row.text(15)?.to_owned(),
    })
}

/// The balances of a session, by asset.
pub(crate) async fn balances(
    db: &Database,
    session: i64,
) -> Result<BTreeMap<String, Balance>, SessionError> {
    let rows = db
        .query(
            "select asset, opening_principal, opening_profit, opening_units, principal_usdt,
                    profit_usdt, units
             from cin_aux.rt_balance where session_id = $1",
            values![session],
        )
        .await?;
    let read = |row: &Row| {
        Ok(Balance {
            opening_principal: amount(row, 1)?,
            opening_profit: amount(row, 2)?,
            opening_units: amount(row, 3)?,
            principal: amount(row, 4)?,
            profit: amount(row, 5)?,
            units: amount(row, 6)?,
        })
    };
    let mut all = BTreeMap::new();
    for row in &rows {
        let asset = row.text(0)?;
        let balance = read(row)
            .map_err(|e: SessionError| e.stored_in(session, "cin_aux.rt_balance", asset))?;
        all.insert(asset.to_owned(), balance);
    }
    Ok(all)
}

async fn stored_lots(
    db: &Database,
    session: i64,
    which: &str,
) -> Result<Vec<(String, Lot)>, SessionError> {
    let sql = format!(
        "select asset, lot_id, created_at, origin_move_id, units_total, cost_total, units_free,
                cost_free
         from cin_aux.rt_lot where session_id = $1 and {which} order by lot_id"
    );
    let rows = db.query(sql, values![session]).await?;
    let read = |row: &Row, id| {
        Ok(Lot {
            id,
            at: row.time(2)?,
            origin: row.opt_i64(3)?,
            units: amount(row, 4)?,
            cost: amount(row, 5)?,
            units_free: amount(row, 6)?,
            cost_free: amount(row, 7)?,
        })
    };
    let mut all = Vec::with_capacity(rows.len());
    for row in &rows {
        let id = row.i64(1)?;
        let lot = read(row, id).map_err(|e: SessionError| {
            e.stored_in(session, "cin_aux.rt_lot", format_args!("lot {id}"))
        })?;
        all.push((row.text(0)?.to_owned(), lot));
    }
    Ok(all)
}

/// Takes a session's moves and the lots that they made away, so that they can be written anew.
pub(crate) fn unwind(session: i64) -> Vec<Statement> {
    let all = [
        "delete from cin_aux.rt_move_lotlink where session_id = $1",
        "delete from cin_aux.rt_lot where session_id = $1 and origin_move_id is not null",
        "delete from cin_aux.rt_move where session_id = $1",
        // What only moves had brought; what remains of it is written again.
        "delete from cin_aux.rt_balance where session_id = $1 and not exists (
           select 1 from cin_aux.rt_reference r
           where r.session_id = $1 and r.asset = cin_aux.rt_balance.asset)",
    ];
    all.map(|sql| Statement::new(sql, values![session])).into()
}

/// Writes moves with the parts of lots that they used.
pub(crate) fn write_moves(session: i64, moves: &[Move]) -> Result<Vec<Statement>, Overflow> {
    const WIDTH: usize = 36;
    let (mut rows, mut links) = (Vec::with_capacity(moves.len() * WIDTH), Vec::new());
    for m in moves {
        let (o, measures) = (&m.order, Measures::of(m)?);
        let fee = o.fee.as_ref();
        let opt = |d: Option<Decimal>| d.map(text);
        let (symbol, id, side) = match &o.origin {
            Origin::Planned => (None, None, None),
            Origin::Trade { symbol, id, buy } => {
                (Some(symbol.as_str()), Some(*id), Some(if *buy { "BUY" } else { "SELL" }))
            }
        };
        rows.extend(values![
            session,
            m.id,
            o.at,
            o.from.as_str(),
            o.to.as_str(),
            text(o.executed),
            text(fee.map_or(Decimal::ZERO, |f| f.value)),
            fee.map(|f| f.asset.as_str()),
            fee.map(|f| text(f.units)),
            text(o.slippage),
            opt(o.target),
            opt(o.available),
            opt(m.planned),
            text(m.dev_ref),
            text(m.comp_principal),
            text(m.comp_profit),
            text(m.p_bridge_in),
            text(m.p_bridge_out),
            opt(m.p_in),
            text(o.from_units),
            text(m.lot_units_used),
            text(m.trace),
            text(m.fee_trace),
            text(m.profit_consumed),
            text(m.principal_hit),
            text(o.to_units),
            text(m.residual_from_after),
            text(measures.imprint),
            text(measures.luggage),
            text(measures.tau),
            text(measures.realized),
            m.overdrawn,
            o.notes.as_str(),
            symbol,
            id,
            side,
        ]);
        for link in &m.links {
            links.extend(values![
                session,
                m.id,
                if link.fee { "fee" } else { "move" },
                link.lot,
                text(link.units),
                text(link.cost),
                text(div(link.cost, link.units)?),
            ]);
        }
    }
    let mut all = Vec::new();
    if !rows.is_empty() {
        let insert = Statement::bulk(
            "insert into cin_aux.rt_move
               (session_id, move_id, ts, from_asset, to_asset, executed_usdt, fee_usdt, fee_asset,
                fee_units, slippage_usdt, ref_usdt_target, available_usdt, planned_usdt,
                dev_ref_usdt, comp_principal_usdt, comp_profit_usdt, p_bridge_in_usdt,
                p_bridge_out_usdt, p_in_usdt, from_units, lot_units_used, trace_usdt,
                fee_trace_usdt, profit_consumed_usdt, principal_hit_usdt, to_units_received,
                residual_from_after, imprint_usdt, luggage_usdt, tau_usdt, realized_usdt,
                overdrawn, notes, src_symbol, src_trade_id, src_side)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                     $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32,
                     $33, $34, $35, $36)",
            WIDTH,
            rows,
        );
        all.push(insert.expect(Expect::Exactly(moves.len() as u64)));
    }
    if !links.is_empty() {
        all.push(Statement::bulk(
            "insert into cin_aux.rt_move_lotlink
               (session_id, move_id, use, lot_id, units_used, cost_usdt, p_in_usdt)
             values ($1, $2, $3, $4, $5, $6, $7)",
            7,
            links,
        ));
    }
    Ok(all)
}

/// Writes what of a book differs from `before`.
pub(crate) fn write_book(
    session: i64,
    before: &Book,
    after: &Book,
) -> Result<Vec<Statement>, Overflow> {
    let mut all = Vec::new();
    let changed: Vec<_> =
        after.balances.iter().filter(|(a, b)| before.balances.get(*a) != Some(*b)).collect();
    if !changed.is_empty() {
        all.push(put_balances(session, changed));
    }
    let mut lots = Vec::new();
    for (asset, held) in &after.lots {
        let known = before.lots.get(asset).map_or(&[][..], Vec::as_slice);
        for lot in held {
            let same = known.binary_search_by_key(&lot.id, |l| l.id).map(|i| &known[i] == lot);
            if same != Ok(true) {
                lots.extend(lot_row(session, asset, lot)?);
            }
        }
    }
    if !lots.is_empty() {
        all.push(put_lots(lots));
    }
    Ok(all)
}

pub(crate) fn put_balances<'a>(
    session: i64,
    balances: impl IntoIterator<Item = (&'a String, &'a Balance)>,
) -> Statement {
    let rows = balances.into_iter().flat_map(|(asset, b)| {
        values![
            session,
            asset.as_str(),
            text(b.opening_principal),
            text(b.opening_profit),
            text(b.opening_units),
            text(b.principal),
            text(b.profit),
            text(b.units),
        ]
    });
    Statement::bulk(
        "insert into cin_aux.rt_balance
           (session_id, asset, opening_principal, opening_profit, opening_units, principal_usdt,
            profit_usdt, units)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (session_id, asset) do update set
           opening_principal = excluded.opening_principal,
           opening_profit = excluded.opening_profit, opening_units = excluded.opening_units,
           principal_usdt = excluded.principal_usdt, profit_usdt = excluded.profit_usdt,
           units = excluded.units",
        8,
        rows.collect(),
    )
}

pub(crate) fn lot_row(session: i64, asset: &str, lot: &Lot) -> Result<Vec<Value>, Overflow> {
    Ok(values![
        session,
        lot.id,
        asset,
        lot.at,
        lot.origin,
        text(lot.p_in()?),
        text(lot.units),
        text(lot.units_free),
        text(lot.cost),
        text(lot.cost_free),
    ])
}

pub(crate) fn put_lots(rows: Vec<Value>) -> Statement {
    Statement::bulk(
        "insert into cin_aux.rt_lot
           (session_id, lot_id, asset, created_at, origin_move_id, p_in_usdt, units_total,
            units_free, cost_total, cost_free)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         on conflict (session_id, lot_id) do update set
           units_free = excluded.units_free, cost_free = excluded.cost_free",
        10,
        rows,
    )
}

pub(crate) fn put_references<'a>(
    session: i64,
    source: &'static str,
    references: impl IntoIterator<Item = (&'a String, Decimal)>,
) -> Statement {
    let rows = references
        .into_iter()
        .flat_map(|(asset, usdt)| values![session, asset.as_str(), text(usdt), source]);
    Statement::bulk(
        "insert into cin_aux.rt_reference (session_id, asset, ref_usdt, source_tag)
         values ($1, $2, $3, $4)
         on conflict (session_id, asset) do update set
           ref_usdt = excluded.ref_usdt, source_tag = excluded.source_tag",
        4,
        rows.collect(),
    )
}
