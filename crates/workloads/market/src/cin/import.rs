//! `cin-import-moves`: books the account's trades into every open session. Spec: sections 8.3, 8.4.
//!
//! A session is booked in one commit: moves, lots, balances, what could not be booked, and marks. A
//! trade is booked once; a second run adds nothing. Trades are booked in the order of (time, symbol,
//! number). One that arrives after later ones were booked has the session's moves done again from
//! the opening, so that the rows do not depend on the order of arrival.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Serialize;
use watchbell_core::port::StoreError;
use watchbell_core::{
    BoxFuture, Commit, Cycle, Definition, Done, Fault, Millis, Missed, Statement, Time, Trigger,
    Worker, values,
};
use watchbell_db::{Database, DbError, Row};

use super::fifo::{self, Balance, Book, Fee, Move, Order, Origin};
use super::marks::{self, Marks};
use super::money;
use super::prices::{Price, Prices};
use super::rollup::Mode;
use super::session::{self, Session, SessionError};
use crate::account::log_cycle;

/// Name of the worker.
pub const CIN_IMPORT_MOVES: &str = "cin-import-moves";

const EVERY: Millis = Millis::from_secs(300);
/// Trades that one run books into one session; the next run goes on from there.
const MAX_TRADES_PER_RUN: i64 = 20_000;
/// Times that a session is read again, because it changed while it was being booked.
const TRIES: u32 = 3;
/// A trade waits this long for the candle that values it; then it cannot be booked.
pub(crate) const PATIENCE: Millis = Millis::from_mins(10);

/// The worker.
pub(crate) struct ImportMoves {
    db: Database,
}

/// What one run did to one session.
#[derive(Debug, Clone, Serialize)]
struct SessionReport {
    session_id: i64,
    imported: u64,
    /// Trades whose candle is not there yet.
    waiting: u64,
    /// Trades that cannot be booked.
    unbooked: u64,
    /// Whether earlier moves were done again, for a trade arrived late.
    replayed: bool,
    /// Whether more trades are left for the next run.
    more: bool,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    sessions: Vec<SessionReport>,
    imported: u64,
}

/// Sessions that could not be booked.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} of {sessions} sessions could not be booked, the others were: {}", .failed.len(),
    .failed.iter().map(|(id, why)| format!("session {id}: {why}")).collect::<Vec<_>>().join("; ")
)]
struct Failed {
    sessions: usize,
    failed: Vec<(i64, String)>,
}

pub(crate) fn definition() -> Definition {
    Definition::new(CIN_IMPORT_MOVES, Trigger::Every { period: EVERY, offset: Millis::ZERO })
        .describe(
            "Books the account's trades into every open session: each trade once, first in, first \
             out, with fees converted; and marks what each session holds.",
        )
        .missed(Missed::Latest)
        .timeouts(Millis::from_mins(5), Millis::from_mins(10))
        .after(crate::account::TRADE_FEED)
}

impl ImportMoves {
    pub(crate) const fn new(db: Database) -> Self {
        Self { db }
    }

    /// Books into every open session, or into the one that is asked for.
    pub(crate) async fn import(&self, cycle: &Cycle, only: Option<i64>) -> Result<Done, Fault> {
        let mut sessions = session::open(&self.db).await?;
        if let Some(only) = only {
            sessions.retain(|s| s.id == only);
            if sessions.is_empty() {
                return Err(Fault::not_found("open session", only));
            }
        }
        let mut report = Report::default();
        let mut failed = Vec::new();
        let count = sessions.len();
        for (i, session) in sessions.into_iter().enumerate() {
            if cycle.cancelled() {
                return Err(Fault::Cancelled);
            }
            let (id, owner) = (session.id, session.owner.clone());
            match self.one(cycle, session).await {
                Ok(Some(one)) => {
                    if one.imported > 0 {
                        tracing::info!(session = id, imported = one.imported, "moves imported");
                    }
                    report.imported += one.imported;
                    report.sessions.push(one);
                }
                // It was closed in the meantime.
                Ok(None) => {}
                Err(Fault::Store(lost @ StoreError::Fenced { .. })) => return Err(lost.into()),
                Err(Fault::Cancelled) => return Err(Fault::Cancelled),
                Err(fault) => {
                    let why = fault.to_string();
                    tracing::error!(session = id, %why, "moves not imported");
                    let payload = serde_json::json!({ "session_id": id });
                    let line = log_cycle(&owner, cycle.now(), Some(id), "error", &why, &payload);
                    cycle.step(Commit::new().with(line)).await?;
                    failed.push((id, why));
                }
            }
            cycle.progress(100.0 * (i + 1) as f64 / count as f64, &format!("session {id}"));
        }
        if failed.is_empty() {
            return Ok(Done::new(report, Commit::new()));
        }
        Err(Fault::transient(Failed { sessions: count, failed }))
    }

    /// Books one session in a commit of its own; reads it again where it changed in between.
    async fn one(
        &self,
        cycle: &Cycle,
        mut session: Session,
    ) -> Result<Option<SessionReport>, Fault> {
        let mut attempt = 1;
        loop {
            let now = cycle.now();
            let mut prices = Prices::new(&self.db);
            let booked = book(&self.db, &session, now, now, &mut prices).await?;
            let marks = marks::take(session.id, &booked.balances, &mut prices, now).await?;
            let report = SessionReport {
                session_id: session.id,
                imported: booked.imported,
                waiting: booked.waiting,
                unbooked: booked.unbooked,
                replayed: booked.replayed,
                more: booked.more,
            };
            let commit = commit(&session, booked, marks, &report, now)?;
            match cycle.step(commit).await {
                Ok(()) => return Ok(Some(report)),
                Err(lost @ StoreError::Fenced { .. }) => return Err(lost.into()),
                Err(e) => {
                    let Some(again) = session::load(&self.db, session.id).await? else {
                        return Ok(None);
                    };
                    if again.status != session::Status::Open {
                        return Ok(None);
                    }
                    if again.revision == session.revision || attempt >= TRIES {
                        return Err(e.into());
                    }
                    session = again;
                    attempt += 1;
                }
            }
        }
    }
}

fn commit(
    session: &Session,
    booked: Booked,
    marks: Marks,
    report: &SessionReport,
    now: Time,
) -> Result<Commit, Fault> {
    let mut commit = Commit::new().with(session.guard());
    commit.statements.extend(booked.statements);
    commit.statements.extend(marks.statement);
    if booked.imported > 0 {
        commit.emit("session.moved", session.id.to_string(), serde_json::to_value(report)?);
    }
    let status = match (booked.imported, booked.news_of_errors) {
        (_, true) => "warn",
        (1.., false) => "ok",
        (0, false) => return Ok(commit),
    };
    let summary = format!("session {}: imported {}", session.id, booked.imported);
    let payload = serde_json::to_value(report)?;
    commit.push(log_cycle(&session.owner, now, Some(session.id), status, &summary, &payload));
    Ok(commit)
}

/// What booking a session's trades comes to.
#[derive(Debug, Default)]
pub(crate) struct Booked {
    /// Everything to write, but for the guard.
    pub(crate) statements: Vec<Statement>,
    /// The moves that are written: the new ones, or all where they are done again.
    pub(crate) moves: Vec<Move>,
    /// As they are afterwards.
    pub(crate) balances: BTreeMap<String, Balance>,
    pub(crate) imported: u64,
    pub(crate) waiting: u64,
    pub(crate) unbooked: u64,
    pub(crate) replayed: bool,
    pub(crate) more: bool,
    /// Whether other trades than before cannot be booked.
    pub(crate) news_of_errors: bool,
    /// The first reason why a trade cannot be booked.
    pub(crate) first_error: Option<String>,
}

/// A trade of the account that a session has not booked.
struct Pending {
    symbol: String,
    id: i64,
    base: String,
    quote: String,
    qty: Decimal,
    quote_qty: Decimal,
    commission: Decimal,
    commission_asset: String,
    time: Time,
    buy: bool,
    raw: serde_json::Value,
}

/// What becomes of a trade.
enum Fate {
    Booked(Box<Order>),
    Waiting,
    Never(String),
}

/// Books the trades of `session` that were made before `until` and are not booked yet.
pub(crate) async fn book(
    db: &Database,
    session: &Session,
    until: Time,
    now: Time,
    prices: &mut Prices<'_>,
) -> Result<Booked, SessionError> {
    let mut booked = Booked::default();
    let pending = pending(db, session, until).await?;
    booked.more = pending.len() as i64 == MAX_TRADES_PER_RUN;
    let mut orders = Vec::new();
    let mut errors = Vec::new();
    for trade in pending {
        let fate = match session.mode {
            _ if !trade.is_sound() => Fate::Never(format!(
                "INVALID: {} {} for {} {} is not a trade",
                trade.qty, trade.base, trade.quote_qty, trade.quote
            )),
            Mode::Ledger => convert(&trade, prices).await?,
            Mode::Parity => mirror(&trade),
        };
        match fate {
            Fate::Booked(order) => orders.push(*order),
            Fate::Waiting if now - trade.time < PATIENCE => booked.waiting += 1,
            Fate::Waiting => errors.push((
                trade.symbol,
                trade.id,
                trade.time,
                format!("NO_PRICE: the candle before {} has not been fetched", trade.time),
            )),
            Fate::Never(why) => errors.push((trade.symbol, trade.id, trade.time, why)),
        }
    }
    let stored = session::book(db, session.id).await?;
    let before = stored.book;
    let first = orders.first().map(|o| o.place());
    let late = stored.last.as_ref().is_some_and(|(at, symbol, id)| {
        first.is_some_and(|first| first < (*at, symbol.as_str(), *id))
    });
    booked.imported = orders.len() as u64;
    booked.replayed = late && session.mode == Mode::Ledger;
    let mut after = before.clone();
    if session.mode == Mode::Parity {
        let numbered = (after.last_move + 1..).zip(orders);
        let rows =
            numbered.map(|(id, order)| fifo::mirror(id, order)).collect::<Result<Vec<_>, _>>();
        let moves = rows.map_err(|e| SessionError::of_move(session.id, e))?;
        booked.statements.extend(session::write_moves(session.id, &moves)?);
        booked.moves = moves;
    } else if booked.replayed {
        let (opening, mut all) = session::history(db, session.id).await?;
        all.extend(orders);
        // Stable: planned moves of one instant stay in the order of their making.
        all.sort_by(|a, b| a.place().cmp(&b.place()));
        after = opening;
        let moves = done(session.id, &mut after, all, true)?;
        booked.statements.extend(session::unwind(session.id));
        booked.statements.extend(session::write_moves(session.id, &moves)?);
        let nothing = Book::default();
        booked.statements.extend(session::write_book(session.id, &nothing, &after)?);
        booked.moves = moves;
    } else {
        let moves = done(session.id, &mut after, orders, false)?;
        booked.statements.extend(session::write_moves(session.id, &moves)?);
        booked.statements.extend(session::write_book(session.id, &before, &after)?);
        booked.moves = moves;
    }
    booked.balances = after.balances;
    note_errors(db, session.id, errors, now, &mut booked).await?;
    Ok(booked)
}

/// Does the orders one after the other. What was done before is done again whatever it finds, for it
/// has happened: a plan that now lacks something is booked like a trade.
fn done(
    session: i64,
    book: &mut Book,
    orders: Vec<Order>,
    again: bool,
) -> Result<Vec<Move>, SessionError> {
    let mut moves = Vec::with_capacity(orders.len());
    for order in orders {
        let one = if again { book.repeat(order) } else { book.execute(order) };
        moves.push(one.map_err(|e| SessionError::of_move(session, e))?);
    }
    Ok(moves)
}

/// Brings the list of trades that cannot be booked up to date.
async fn note_errors(
    db: &Database,
    session: i64,
    errors: Vec<(String, i64, Time, String)>,
    now: Time,
    booked: &mut Booked,
) -> Result<(), SessionError> {
    let rows = db
        .query(
            "select src_symbol, src_trade_id, reason, seen_at from cin_aux.rt_move_error
             where session_id = $1",
            values![session],
        )
        .await?;
    let mut known = BTreeMap::new();
    for row in &rows {
        let key = (row.text(0)?.to_owned(), row.i64(1)?);
        known.insert(key, (row.text(2)?.to_owned(), row.time(3)?));
    }
    booked.unbooked = errors.len() as u64;
    booked.first_error =
        errors.first().map(|(symbol, id, _, why)| format!("trade {id} of {symbol}: {why}"));
    let same = known.len() == errors.len()
        && errors.iter().all(|(symbol, id, _, why)| {
            known.get(&(symbol.clone(), *id)).is_some_and(|(before, _)| before == why)
        });
    if same {
        return Ok(());
    }
    booked.news_of_errors = !errors.is_empty();
    booked.statements.push(Statement::new(
        "delete from cin_aux.rt_move_error where session_id = $1",
        values![session],
    ));
    let mut params = Vec::new();
    for (symbol, id, at, why) in errors {
        let seen = known.get(&(symbol.clone(), id)).map_or(now, |(_, seen)| *seen);
        params.extend(values![session, symbol, id, at, why, seen]);
    }
    if !params.is_empty() {
        booked.statements.push(Statement::bulk(
            "insert into cin_aux.rt_move_error
               (session_id, src_symbol, src_trade_id, ts, reason, seen_at)
             values ($1, $2, $3, $4, $5, $6)",
            6,
            params,
        ));
    }
    Ok(())
}

async fn pending(
    db: &Database,
    session: &Session,
    until: Time,
) -> Result<Vec<Pending>, SessionError> {
    let from = match session.mode {
        Mode::Ledger => session.started_at,
        Mode::Parity => Time(i64::MIN),
    };
    let rows = db
        .query(
            "select t.symbol, t.trade_id, t.base_asset, t.quote_asset, t.qty, t.quote_qty,
                    t.commission, t.commission_asset, t.trade_time, t.is_buyer, t.raw
             from market.account_trades t
             where t.trade_time >= $2 and t.trade_time < $3
               and ($4 = '' or t.account_email is null or lower(t.account_email) = lower($4))
               and not exists (
                 select 1 from cin_aux.rt_move m
                 where m.session_id = $1 and m.src_symbol = t.symbol
                   and m.src_trade_id = t.trade_id)
             order by t.trade_time, t.symbol /*pg*/ collate \"C\" /*end*/, t.trade_id
             limit $5",
            values![
                session.id,
                from,
                until,
                session.account.as_deref().unwrap_or(""),
                MAX_TRADES_PER_RUN
            ],
        )
        .await?;
    rows.iter().map(of_row).collect()
}

fn of_row(row: &Row) -> Result<Pending, SessionError> {
    Ok(Pending {
        symbol: row.text(0)?.to_owned(),
        id: row.i64(1)?,
        base: row.text(2)?.to_owned(),
        quote: row.text(3)?.to_owned(),
        qty: session::amount(row, 4)?,
        quote_qty: session::amount(row, 5)?,
        commission: session::amount(row, 6)?,
        commission_asset: row.text(7)?.to_owned(),
        time: row.time(8)?,
        buy: row.bool(9)?,
        raw: row.json(10)?,
    })
}

impl Pending {
    /// Whether something changed hands.
    fn is_sound(&self) -> bool {
        let zero = Decimal::ZERO;
        self.base != self.quote
            && self.qty > zero
            && self.quote_qty > zero
            && self.commission >= zero
    }

    fn order(&self, executed: Decimal, fee: Option<Fee>) -> Order {
        let (quote, base) = ((&self.quote, self.quote_qty), (&self.base, self.qty));
        let (from, to) = if self.buy { (quote, base) } else { (base, quote) };
        Order {
            at: self.time,
            from: from.0.clone(),
            to: to.0.clone(),
            from_units: from.1,
            to_units: to.1,
            executed,
            fee,
            slippage: Decimal::ZERO,
            target: None,
            available: None,
            origin: Origin::Trade { symbol: self.symbol.clone(), id: self.id, buy: self.buy },
            notes: format!("binance:{}#{}", self.symbol, self.id),
        }
    }
}

/// A trade as an order of the ledger: what changed hands and the fee, in USDT at the trade's time.
async fn convert(trade: &Pending, prices: &mut Prices<'_>) -> Result<Fate, DbError> {
    let never = |e: &money::Overflow| Ok(Fate::Never(e.to_string()));
    let price = match prices.at(&trade.quote, trade.time).await? {
        Price::Known(price) => price,
        Price::NotYet => return Ok(Fate::Waiting),
        Price::Never(why) => return Ok(Fate::Never(why)),
    };
    let executed = match money::mul(trade.quote_qty, price) {
        Ok(executed) => executed,
        Err(e) => return never(&e),
    };
    if executed.is_zero() {
        return Ok(Fate::Never(format!(
            "INVALID: {} {} are worth nothing",
            trade.quote_qty, trade.quote
        )));
    }
    let fee = if trade.commission.is_zero() {
        None
    } else {
        let price = match prices.at(&trade.commission_asset, trade.time).await? {
            Price::Known(price) => price,
            Price::NotYet => return Ok(Fate::Waiting),
            Price::Never(why) => return Ok(Fate::Never(why)),
        };
        let value = match money::mul(trade.commission, price) {
            Ok(value) => value,
            Err(e) => return never(&e),
        };
        Some(Fee { asset: trade.commission_asset.clone(), units: trade.commission, value })
    };
    Ok(Fate::Booked(Box::new(trade.order(executed, fee))))
}

/// A trade as the row of a parity session: without fee, and valued by what it carries itself.
fn mirror(trade: &Pending) -> Fate {
    let raw = |name: &str| -> Option<Decimal> {
        match trade.raw.get(name)? {
            serde_json::Value::String(text) => money::parse(text).ok(),
            serde_json::Value::Number(number) => money::parse(&number.to_string()).ok(),
            _ => None,
        }
    };
    let times = |amount: Decimal, price: Option<Decimal>| {
        price.and_then(|price| money::mul(amount, price).ok())
    };
    let executed = if trade.quote == "USDT" {
        trade.quote_qty
    } else {
        raw("notionalUsdt")
            .or_else(|| times(trade.quote_qty, raw("fromPriceUsdt")))
            .or_else(|| times(trade.qty, raw("toPriceUsdt")))
            .unwrap_or(trade.quote_qty)
    };
    Fate::Booked(Box::new(trade.order(executed, None)))
}

impl Worker for ImportMoves {
    fn define(&self) -> Definition {
        definition()
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.import(cycle, None))
    }
}
