//! `cin-desk`: what an operator asks of the ledger, as jobs. Spec: sections 8.2, 8.5, 8.6 and 10.
//!
//! | kind | does |
//! |---|---|
//! | `session.open` | opens a session with its balances and lots |
//! | `session.move` | does a planned move |
//! | `session.mark` | values what one or all open sessions hold |
//! | `wallet.refresh` | sets a session that has no move yet to what the account holds |
//! | `session.close` | books what is left, values everything, and closes: one commit |
//! | `session.retry` | closes a session whose close had failed |
//! | `ledger.import` | stores the account's trades of a CSV file |
//!
//! A job that succeeds carries the number of its session in its result. A request that cannot be met
//! fails at once and for good, with the reason; a close that cannot be done leaves the session in
//! `ERROR` with the reason, and `session.retry` tries it again.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use watchbell_core::job::Kind;
use watchbell_core::{
    BoxFuture, Commit, Cycle, CycleInput, Definition, Done, Expect, Fault, Millis, QueueSpec,
    Statement, Time, Trigger, Worker, values,
};
use watchbell_db::Database;

use super::fifo::{Balance, Book, Fee, MoveError, Order, Origin, is_stable};
use super::import::book;
use super::money::{self, Overflow, add, div, mul};
use super::prices::{Price, Prices};
use super::rollup::{self, Mode, Sums};
use super::session::{self, Session, SessionError, Status, text};
use crate::account;

/// Name of the worker.
pub const CIN_DESK: &str = "cin-desk";
/// Opens a session.
pub const SESSION_OPEN: &str = "session.open";
/// Closes a session.
pub const SESSION_CLOSE: &str = "session.close";
/// Closes a session whose close had failed.
pub const SESSION_RETRY: &str = "session.retry";
/// Does a planned move.
pub const SESSION_MOVE: &str = "session.move";
/// Values what sessions hold.
pub const SESSION_MARK: &str = "session.mark";
/// Sets a session to what the account holds.
pub const WALLET_REFRESH: &str = "wallet.refresh";

/// Stores the account's trades of a CSV file.
pub const LEDGER_IMPORT: &str = "ledger.import";

/// How soon a close that waits for candles is tried again.
const WAIT: Millis = Millis::from_secs(15);
/// A close older than this is no present price.
const STALE_PRICE: Millis = Millis::from_mins(10);

/// The worker.
pub(crate) struct Desk {
    db: Database,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Opening {
    owner: String,
    #[serde(default = "one_hour")]
    window_label: String,
    #[serde(default = "ledger")]
    mode: Mode,
    account: Option<String>,
    note: Option<String>,
    started_at: Option<Time>,
    #[serde(default)]
    balances: Vec<OpeningBalance>,
    #[serde(default)]
    from_wallet: bool,
    #[serde(default = "yes")]
    lots: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpeningBalance {
    asset: String,
    units: String,
    price_usdt: Option<String>,
    profit_usdt: Option<String>,
    ref_usdt: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Closing {
    session_id: i64,
    #[serde(default)]
    accept_unbooked: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Planned {
    session_id: i64,
    from: String,
    to: String,
    executed_usdt: String,
    fee_usdt: Option<String>,
    slippage_usdt: Option<String>,
    target_usdt: Option<String>,
    price_from_usdt: Option<String>,
    price_to_usdt: Option<String>,
    note: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OneOrAll {
    session_id: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    session_id: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Its name, for people.
    #[serde(default)]
    file: String,
    csv: String,
    account: Option<String>,
}

fn one_hour() -> String {
    "1h".to_owned()
}
const fn ledger() -> Mode {
    Mode::Ledger
}
const fn yes() -> bool {
    true
}

/// The kinds with the schemas of their payloads.
fn kinds() -> Vec<Kind> {
    let amount = json!({ "type": "string", "pattern": "^[0-9]{1,20}(\\.[0-9]{1,18})?$" });
    let asset = json!({ "type": "string", "pattern": "^[A-Z0-9]{1,20}$" });
    let words = json!({ "type": "string", "minLength": 1, "maxLength": 200 });
    let maybe = json!({ "type": ["string", "null"], "maxLength": 200 });
    let session = json!({ "type": "integer", "minimum": 1 });
    let object = |properties: Json, required: Json| {
        json!({ "type": "object", "properties": properties, "required": required,
                "additionalProperties": false })
    };
    let balance = object(
        json!({ "asset": asset, "units": amount, "price_usdt": amount, "profit_usdt": amount,
                "ref_usdt": amount }),
        json!(["asset", "units"]),
    );
    let close = || {
        object(
            json!({ "session_id": session, "accept_unbooked": { "type": "boolean" } }),
            json!(["session_id"]),
        )
    };
    let kind = |name, text: &str, schema| Kind::new(name).describe(text).schema(schema);
    vec![
        kind(
            SESSION_OPEN,
            "Opens a session of an owner and a window, with what it holds.",
            object(
                json!({
                    "owner": words, "window_label": words,
                    "mode": { "enum": ["ledger", "parity"] }, "account": maybe, "note": maybe,
                    "started_at": { "type": ["string", "integer"] },
                    "balances": { "type": "array", "items": balance, "maxItems": 1000 },
                    "from_wallet": { "type": "boolean" }, "lots": { "type": "boolean" },
                }),
                json!(["owner"]),
            ),
        ),
        kind(
            SESSION_CLOSE,
            "Books what is left, values everything and closes a session, in one commit.",
            close(),
        ),
        kind(SESSION_RETRY, "Closes a session whose close had failed.", close()),
        kind(
            SESSION_MOVE,
            "Does a planned move of a session, at the newest prices unless given.",
            object(
                json!({
                    "session_id": session, "from": asset, "to": asset, "executed_usdt": amount,
                    "fee_usdt": amount, "slippage_usdt": amount, "target_usdt": amount,
                    "price_from_usdt": amount, "price_to_usdt": amount, "note": maybe,
                }),
                json!(["session_id", "from", "to", "executed_usdt"]),
            ),
        ),
        kind(
            SESSION_MARK,
            "Values what one open session, or each, holds at the newest prices.",
            object(json!({ "session_id": session }), json!([])),
        ),
        kind(
            WALLET_REFRESH,
            "Sets a session that has no move yet to what the account holds.",
            object(json!({ "session_id": session }), json!(["session_id"])),
        ),
        kind(
            LEDGER_IMPORT,
            "Stores the account's trades of a CSV file: all rows, or none.",
            object(
                json!({ "file": { "type": "string" }, "csv": { "type": "string" },
                        "account": maybe }),
                json!(["csv"]),
            ),
        ),
    ]
}

pub(crate) fn definition() -> Definition {
    let spec = QueueSpec { kinds: kinds(), concurrency: 1, prefetch: 0 };
    Definition::new(CIN_DESK, Trigger::Queue(spec)).describe(
        "Opens, moves, marks and closes the sessions of the ledger, as an operator asks for.",
    )
}

/// A request that cannot be met, with what to do about it.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Said(String),
    #[error(transparent)]
    Amount(#[from] Overflow),
    #[error(transparent)]
    Move(#[from] MoveError),
}

fn refuse(why: impl Into<String>) -> Fault {
    Fault::permanent(Refusal::Said(why.into()))
}

fn arithmetic(e: Overflow) -> Fault {
    Fault::permanent(Refusal::Amount(e))
}

/// A session that cannot be read may be readable later; an amount without a place never is.
fn unreadable(e: SessionError) -> Fault {
    match e {
        SessionError::Database(e) => e.into(),
        other => Fault::permanent(other),
    }
}

impl Desk {
    pub(crate) const fn new(db: Database) -> Self {
        Self { db }
    }

    async fn serve(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let CycleInput::Job { kind, payload } = &cycle.input else {
            return Err(refuse("the desk of the ledger serves jobs only"));
        };
        match kind.as_str() {
            SESSION_OPEN => self.open(cycle, read(payload)?).await,
            SESSION_CLOSE => self.close(cycle, read(payload)?, Status::Open).await,
            SESSION_RETRY => self.close(cycle, read(payload)?, Status::Error).await,
            SESSION_MOVE => self.planned(cycle, read(payload)?).await,
            SESSION_MARK => self.mark(cycle, read(payload)?).await,
            WALLET_REFRESH => self.refresh(cycle, read(payload)?).await,
            LEDGER_IMPORT => self.import(cycle, read(payload)?).await,
            other => Err(refuse(format!("the desk of the ledger knows no `{other}`"))),
        }
    }

    /// The session of that number, if it stands as it must.
    async fn find(&self, id: i64, must: Status) -> Result<Session, Fault> {
        let Some(session) = session::load(&self.db, id).await? else {
            return Err(refuse(format!("there is no session {id}")));
        };
        if session.status == must {
            return Ok(session);
        }
        let todo = match session.status {
            Status::Open => "close it with session.close",
            Status::Error => "its close failed: see its error, then use session.retry",
            Status::Closed => "a closed session stays as it is",
        };
        Err(refuse(format!("session {id} is {}: {todo}", session.status.as_str())))
    }

    async fn open(&self, cycle: &Cycle, wanted: Opening) -> Result<Done, Fault> {
        let now = cycle.now();
        let started_at = wanted.started_at.unwrap_or(now);
        if started_at > now {
            return Err(refuse(format!("started_at {started_at} has not come yet")));
        }
        let label = wanted.window_label.as_str();
        self.check_label(label).await?;
        let rows = self
            .db
            .query(
                "select session_id from cin_aux.rt_session
                 where owner = $1 and window_label = $2 and status = 'OPEN'",
                values![wanted.owner.as_str(), label],
            )
            .await?;
        if let Some(row) = rows.first() {
            let id = row.i64(0)?;
            return Err(refuse(format!(
                "session {id} of {} over {label} is open: close it first",
                wanted.owner
            )));
        }
        let holdings = match (wanted.from_wallet, wanted.balances.is_empty()) {
            (true, false) => return Err(refuse("give balances or from_wallet, not both")),
            (true, true) => self.wallet_holdings(now).await?,
            (false, _) => self.given(&wanted.balances, started_at, now).await?,
        };
        let next = "select coalesce(max(session_id), 0) + 1 from cin_aux.rt_session";
        let id = self.db.query_one(next, Vec::new()).await?.i64(0)?;
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

    async fn check_label(&self, label: &str) -> Result<(), Fault> {
        let sql =
            "select window_label from settings.v_windows where is_window = 1 order by duration_ms";
        let rows = self.db.query(sql, Vec::new()).await?;
        let mut known = Vec::new();
        for row in &rows {
            known.push(row.text(0)?.to_owned());
        }
        if known.iter().any(|k| k == label) {
            return Ok(());
        }
        Err(refuse(format!("`{label}` is no window; there are {}", known.join(", "))))
    }

    /// The balances of a request, valued at the instant that the session begins.
    async fn given(
        &self,
        balances: &[OpeningBalance],
        at: Time,
        now: Time,
    ) -> Result<BTreeMap<String, Holding>, Fault> {
        let mut prices = Prices::new(&self.db);
        let mut all = BTreeMap::new();
        for b in balances {
            let units = read_amount(&b.units)?;
            let price = match &b.price_usdt {
                Some(price) => read_amount(price)?,
                None => self.price(&mut prices, &b.asset, at, now).await?,
            };
            let principal = mul(units, price).map_err(arithmetic)?;
            let profit = opt_amount(b.profit_usdt.as_deref())?.unwrap_or_default();
            let reference = match opt_amount(b.ref_usdt.as_deref())? {
                Some(reference) => reference,
                None => add(principal, profit).map_err(arithmetic)?,
            };
            let balance = Balance::opening(principal, profit, units);
            if all.insert(b.asset.clone(), Holding { balance, reference }).is_some() {
                return Err(refuse(format!("{} is listed twice", b.asset)));
            }
        }
        Ok(all)
    }

    /// A price at `at`: of the present, the newest close.
    async fn price(
        &self,
        prices: &mut Prices<'_>,
        asset: &str,
        at: Time,
        now: Time,
    ) -> Result<Decimal, Fault> {
        let told = "give its price_usdt";
        if now - at < STALE_PRICE {
            return match prices.latest(asset, now).await? {
                Some((of, price)) if now - of < STALE_PRICE => Ok(price),
                Some((of, _)) => Err(refuse(format!(
                    "the newest price of {asset} is of {of}: wait for the synchronisation, or {told}"
                ))),
                None => Err(refuse(format!("there is no candle of {asset}USDT: {told}"))),
            };
        }
        match prices.at(asset, at).await? {
            Price::Known(price) => Ok(price),
            Price::NotYet => {
                Err(refuse(format!("the candles of {asset}USDT are not known at {at}: {told}")))
            }
            Price::Never(why) => Err(refuse(format!("{why}: {told}"))),
        }
    }

    /// What the account holds, at the newest prices.
    async fn wallet_holdings(&self, now: Time) -> Result<BTreeMap<String, Holding>, Fault> {
        let wallet = account::wallet(&self.db).await?;
        if wallet.is_empty() {
            return Err(refuse(
                "the wallet is not known: let trade-feed read it (it needs the venue's \
                 credentials), or give balances",
            ));
        }
        let mut prices = Prices::new(&self.db);
        let mut all = BTreeMap::new();
        for held in wallet.iter().filter(|h| !h.total.is_zero()) {
            let price = self.price(&mut prices, &held.asset, now, now).await?;
            let principal = mul(held.total, price).map_err(arithmetic)?;
            let balance = Balance::opening(principal, Decimal::ZERO, held.total);
            all.insert(held.asset.clone(), Holding { balance, reference: principal });
        }
        Ok(all)
    }

    async fn refresh(&self, cycle: &Cycle, wanted: One) -> Result<Done, Fault> {
        let session = self.find(wanted.session_id, Status::Open).await?;
        let sql = "select count(*) from cin_aux.rt_move where session_id = $1";
        let moves = self.db.query_one(sql, values![session.id]).await?.i64(0)?;
        if moves > 0 {
            return Err(refuse(format!(
                "session {} has {moves} moves: its balances follow from them and are not reset",
                session.id
            )));
        }
        let holdings = self.wallet_holdings(cycle.now()).await?;
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

    async fn import(&self, cycle: &Cycle, wanted: File) -> Result<Done, Fault> {
        let File { file, csv, account } = wanted;
        let read =
            account::read_csv(&self.db, csv.as_bytes(), account.as_deref(), cycle.now()).await;
        let (imported, statements) = match read {
            Ok(read) => read,
            Err(account::CsvError::Database(e)) => return Err(e.into()),
            Err(e) if file.is_empty() => return Err(Fault::permanent(e)),
            Err(e) => return Err(refuse(format!("{file}: {e}"))),
        };
        let mut commit = Commit::new();
        commit.statements = statements;
        let summary = json!({ "file": file, "rows": imported.rows, "added": imported.added });
        Ok(Done::new(summary, commit))
    }

    async fn planned(&self, cycle: &Cycle, wanted: Planned) -> Result<Done, Fault> {
        let now = cycle.now();
        let session = self.find(wanted.session_id, Status::Open).await?;
        if session.mode == Mode::Parity {
            return Err(refuse(format!(
                "session {} is a parity session, which only mirrors the account's trades",
                session.id
            )));
        }
        let executed = read_amount(&wanted.executed_usdt)?;
        let mut prices = Prices::new(&self.db);
        let mut unit = [Decimal::ONE; 2];
        let sides = [(&wanted.from, &wanted.price_from_usdt), (&wanted.to, &wanted.price_to_usdt)];
        for (slot, (asset, given)) in unit.iter_mut().zip(sides) {
            *slot = match given {
                Some(price) => read_amount(price)?,
                None => self.price(&mut prices, asset, now, now).await?,
            };
            if slot.is_zero() {
                return Err(refuse(format!("the price of {asset} is 0")));
            }
        }
        let [price_from, price_to] = unit;
        let stored = session::book(&self.db, session.id).await.map_err(unreadable)?;
        if stored.last.as_ref().is_some_and(|(at, ..)| *at > now) {
            return Err(Fault::transient(Refusal::Said(format!(
                "session {} has a move later than {now}: the clocks differ",
                session.id
            ))));
        }
        let mut after = stored.book.clone();
        let source = after.balances.get(&wanted.from).copied().unwrap_or_default();
        let fee = opt_amount(wanted.fee_usdt.as_deref())?.unwrap_or_default();
        let order = Order {
            at: now,
            from_units: div(executed, price_from).map_err(arithmetic)?,
            to_units: div(executed, price_to).map_err(arithmetic)?,
            executed,
            fee: if fee.is_zero() {
                None
            } else {
                let units = div(fee, price_from).map_err(arithmetic)?;
                Some(Fee { asset: wanted.from.clone(), units, value: fee })
            },
            slippage: opt_amount(wanted.slippage_usdt.as_deref())?.unwrap_or_default(),
            target: opt_amount(wanted.target_usdt.as_deref())?,
            available: Some(source.value().map_err(arithmetic)?),
            origin: Origin::Planned,
            notes: wanted.note.unwrap_or_default(),
            from: wanted.from,
            to: wanted.to,
        };
        let done = after.execute(order).map_err(|e| Fault::permanent(Refusal::Move(e)))?;
        let summary = json!({
            "session_id": session.id, "move_id": done.id, "trace_usdt": text(done.trace),
            "dev_ref_usdt": text(done.dev_ref), "residual_from_after": text(done.residual_from_after),
        });
        let mut commit = Commit::new().with(session.guard());
        let moves = session::write_moves(session.id, &[done]).map_err(arithmetic)?;
        let rows = session::write_book(session.id, &stored.book, &after).map_err(arithmetic)?;
        commit.statements.extend(moves.into_iter().chain(rows));
        commit.emit("session.moved", session.id.to_string(), summary.clone());
        Ok(Done::new(summary, commit))
    }

    async fn mark(&self, cycle: &Cycle, wanted: OneOrAll) -> Result<Done, Fault> {
        let sessions = match wanted.session_id {
            Some(id) => vec![self.find(id, Status::Open).await?],
            None => session::open(&self.db).await?,
        };
        let mut prices = Prices::new(&self.db);
        let mut commit = Commit::new();
        let mut marked = BTreeMap::new();
        for session in sessions {
            let balances = session::balances(&self.db, session.id).await.map_err(unreadable)?;
            let marks = session::mark(session.id, &balances, &mut prices, cycle.now()).await;
            let marks = marks.map_err(unreadable)?;
            commit.push(session.guard());
            commit.statements.extend(marks.statement);
            marked.insert(session.id, marks.bulk.len());
        }
        Ok(Done::new(json!({ "marked": marked }), commit))
    }

    async fn close(&self, cycle: &Cycle, wanted: Closing, must: Status) -> Result<Done, Fault> {
        let session = self.find(wanted.session_id, must).await?;
        let now = cycle.now();
        // A retry ends where the first try would have ended: what came later is not its own.
        let until = session.ended_at.unwrap_or(now);
        match self.closing(&session, wanted.accept_unbooked, until, now).await {
            Ok(done) => Ok(done),
            Err(fault @ Fault::Permanent(_)) => {
                let why = fault.to_string();
                let failed = Statement::new(
                    "update cin_aux.rt_session
                     set status = 'ERROR', error = $3, ended_at = $4, revision = revision + 1
                     where session_id = $1 and revision = $2",
                    values![session.id, session.revision, why.as_str(), until],
                );
                let mut commit = Commit::new().with(failed.expect(Expect::Exactly(1)));
                let payload = json!({ "session_id": session.id, "error": why });
                commit.emit("session.failed", session.id.to_string(), payload.clone());
                commit.push(account::log_cycle(
                    &session.owner,
                    now,
                    Some(session.id),
                    "error",
                    &why,
                    &payload,
                ));
                cycle.step(commit).await?;
                Err(fault)
            }
            Err(other) => Err(other),
        }
    }

    /// Everything that closes a session, as one commit.
    async fn closing(
        &self,
        session: &Session,
        accept_unbooked: bool,
        until: Time,
        now: Time,
    ) -> Result<Done, Fault> {
        let id = session.id;
        let mut prices = Prices::new(&self.db);
        let booked = book(&self.db, session, until, now, &mut prices).await.map_err(unreadable)?;
        if booked.more {
            return Err(Fault::Snooze {
                after: WAIT,
                why: format!(
                    "session {id} has more trades to book than one run takes: run \
                     {} until it says that nothing is left",
                    super::CIN_IMPORT_MOVES
                ),
            });
        }
        if booked.waiting > 0 {
            let why = format!("{} trades wait for the candles that value them", booked.waiting);
            return Err(Fault::Snooze { after: WAIT, why });
        }
        if let Some(first) = booked.first_error.as_ref().filter(|_| !accept_unbooked) {
            return Err(refuse(format!(
                "{} trades are not booked, the first is {first}; see cin_aux.rt_move_error, mend \
                 it, or close with accept_unbooked",
                booked.unbooked
            )));
        }
        let mut marks = self.newest_marks(id, &booked.balances).await?;
        let fresh = session::mark(id, &booked.balances, &mut prices, until).await;
        let fresh = fresh.map_err(unreadable)?;
        marks.extend(fresh.bulk);
        let earlier = if booked.replayed { None } else { Some(id) };
        let mut sums = Sums::default();
        if let Some(id) = earlier {
            sums = self.sums(id).await?;
        }
        for m in &booked.moves {
            sums.add(m).map_err(arithmetic)?;
        }
        let moves = sums.moves;
        let rollup = rollup::close(session.mode, &booked.balances, &marks, &sums);
        let rollup = rollup.map_err(arithmetic)?;

        let mut commit = Commit::new().with(session.guard());
        commit.statements.extend(booked.statements);
        commit.statements.extend(fresh.statement);
        let rows: Vec<_> = rollup
            .closings
            .iter()
            .flat_map(|c| values![id, c.asset.as_str(), text(c.principal), text(c.profit)])
            .collect();
        if !rows.is_empty() {
            commit.push(
                Statement::bulk(
                    "update cin_aux.rt_balance set closing_principal = $3, closing_profit = $4
                     where session_id = $1 and asset = $2",
                    4,
                    rows,
                )
                .expect(Expect::Exactly(rollup.closings.len() as u64)),
            );
        }
        commit.push(Statement::new(
            "insert into cin_aux.rt_imprint_luggage
               (session_id, principal_churn, profit_churn, generated_profit, trace_sum, devref_sum,
                luggage_principal, luggage_profit, fee_sum, slippage_sum, imprint_sum, luggage_sum,
                tau_sum, realized_pnl, moves, unbooked, closed_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
            values![
                id,
                text(sums.comp_principal),
                text(sums.comp_profit),
                text(rollup.generated_profit),
                text(sums.trace),
                text(sums.dev_ref),
                text(rollup.luggage_principal),
                text(rollup.luggage_profit),
                text(sums.fee),
                text(sums.slippage),
                text(sums.imprint),
                text(sums.luggage),
                text(sums.tau),
                text(sums.realized),
                moves,
                booked.unbooked as i64,
                now,
            ],
        ));
        commit.push(
            Statement::new(
                "update cin_aux.rt_session set status = 'CLOSED', ended_at = $2, error = null
                 where session_id = $1 and status <> 'CLOSED'",
                values![id, until],
            )
            .expect(Expect::Exactly(1)),
        );
        let summary = json!({
            "session_id": id, "status": "CLOSED", "moves": moves, "imported": booked.imported,
            "unbooked": booked.unbooked, "generated_profit": text(rollup.generated_profit),
            "realized_pnl": text(sums.realized),
        });
        commit.emit("session.closed", id.to_string(), summary.clone());
        let line = format!("session {id}: closed");
        commit.push(account::log_cycle(&session.owner, now, Some(id), "ok", &line, &summary));
        Ok(Done::new(summary, commit))
    }

    /// What each asset was worth when it was last marked, at the units that it has now.
    async fn newest_marks(
        &self,
        session: i64,
        balances: &BTreeMap<String, Balance>,
    ) -> Result<BTreeMap<String, Decimal>, Fault> {
        let rows = self
            .db
            .query(
                "select asset, price_usdt from cin_aux.v_latest_marks where session_id = $1",
                values![session],
            )
            .await?;
        let mut all = BTreeMap::new();
        for row in &rows {
            let (asset, price) = (row.text(0)?, session::amount(row, 1).map_err(unreadable)?);
            if let Some(balance) = balances.get(asset) {
                all.insert(asset.to_owned(), mul(balance.units, price).map_err(arithmetic)?);
            }
        }
        Ok(all)
    }

    /// The sums over the moves that are stored.
    async fn sums(&self, session: i64) -> Result<Sums, Fault> {
        let rows = self
            .db
            .query(
                "select comp_principal_usdt, comp_profit_usdt, fee_usdt, slippage_usdt, trace_usdt,
                        dev_ref_usdt, imprint_usdt, luggage_usdt, tau_usdt, realized_usdt
                 from cin_aux.rt_move where session_id = $1",
                values![session],
            )
            .await?;
        let mut sums = Sums { moves: rows.len() as i64, ..Sums::default() };
        for row in &rows {
            for (i, slot) in sums.columns().into_iter().enumerate() {
                let amount = session::amount(row, i).map_err(unreadable)?;
                *slot = add(*slot, amount).map_err(arithmetic)?;
            }
        }
        Ok(sums)
    }
}

/// What a session begins with of one asset.
#[derive(Debug, Clone)]
struct Holding {
    balance: Balance,
    reference: Decimal,
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

fn read<T: for<'de> Deserialize<'de>>(payload: &Json) -> Result<T, Fault> {
    T::deserialize(payload).map_err(|e| refuse(format!("the payload cannot be read: {e}")))
}

fn read_amount(text: &str) -> Result<Decimal, Fault> {
    let amount = money::parse(text).map_err(arithmetic)?;
    if amount >= Decimal::ZERO {
        return Ok(amount);
    }
    Err(refuse(format!("{amount} is below 0")))
}

fn opt_amount(text: Option<&str>) -> Result<Option<Decimal>, Fault> {
    text.map(read_amount).transpose()
}

impl Worker for Desk {
    fn define(&self) -> Definition {
        definition()
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.serve(cycle))
    }
}
