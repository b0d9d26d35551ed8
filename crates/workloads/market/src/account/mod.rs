//! What the account traded and holds: read from the venue by [`TRADE_FEED`], or from a file by
//! [`import_csv`]. Spec: sections 2.3, 8.4 and 10.
//!
//! A trade is known by its symbol and number and is stored once, whoever brings it; nothing changes
//! it afterwards. Amounts are decimal text.

mod feed;
mod file;

use rust_decimal::Decimal;
use serde::Serialize;
use watchbell_core::{Millis, Statement, Time, Value, values};
use watchbell_db::{Database, DbError};
use watchbell_venues::binance::{AccountBalance, AccountTrade, ConvertTrade};

pub use feed::TRADE_FEED;
pub(crate) use feed::{TradeFeed, definition};
pub(crate) use file::read_csv;
pub use file::{BadRow, COLUMNS, CsvError, Imported, import_csv};

use crate::cin::fifo::is_stable;
use crate::cin::money::{self, Overflow};

/// How the account is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Why the account cannot be read; none where the client has credentials.
    pub unavailable: Option<String>,
    /// Whose account it is, such as its e-mail address: stored beside each of its trades.
    pub scope: String,
    /// How often two symbols' trades are read.
    pub poll: Millis,
    /// How far back trades are read where none is known yet.
    pub lookback: Millis,
    /// Symbols read in one cycle.
    pub symbols_per_tick: usize,
    /// Trades asked for at once; at most 1000.
    pub page: usize,
    /// Whether conversions are read too.
    pub convert: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            unavailable: Some(
                "there are no credentials of the venue: set WATCHBELL_BINANCE_KEY and \
                 WATCHBELL_BINANCE_SECRET, or name a file of mode 0600 that holds them"
                    .to_owned(),
            ),
            scope: "__env__".to_owned(),
            poll: Millis::from_secs(5),
            lookback: Millis::from_days(7),
            symbols_per_tick: 2,
            page: 200,
            convert: true,
        }
    }
}

/// Who brought a trade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Venue,
    Convert,
    File,
}

impl Source {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Venue => "venue",
            Self::Convert => "convert",
            Self::File => "file",
        }
    }
}

/// One trade of the account, as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trade {
    pub(crate) symbol: String,
    pub(crate) id: i64,
    pub(crate) order_id: Option<i64>,
    pub(crate) base: String,
    pub(crate) quote: String,
    pub(crate) price: Decimal,
    pub(crate) qty: Decimal,
    pub(crate) quote_qty: Decimal,
    pub(crate) commission: Decimal,
    pub(crate) commission_asset: String,
    pub(crate) time: Time,
    pub(crate) is_buyer: bool,
    pub(crate) is_maker: bool,
    pub(crate) is_best_match: bool,
    pub(crate) account: Option<String>,
    pub(crate) source: Source,
    pub(crate) raw: serde_json::Value,
}

impl Trade {
    fn of_venue(t: AccountTrade, base: &str, quote: &str, scope: &str) -> Self {
        Self {
            symbol: t.symbol,
            id: t.id,
            order_id: Some(t.order_id),
            base: base.to_owned(),
            quote: quote.to_owned(),
            price: t.price,
            qty: t.qty,
            quote_qty: t.quote_qty,
            commission: t.commission,
            commission_asset: t.commission_asset,
            time: t.time,
            is_buyer: t.is_buyer,
            is_maker: t.is_maker,
            is_best_match: t.is_best_match,
            account: Some(scope.to_owned()),
            source: Source::Venue,
            raw: serde_json::json!({}),
        }
    }

    /// A conversion as a purchase of what was received: its price is units given for one received.
    fn of_convert(c: ConvertTrade, scope: &str) -> Result<Self, Overflow> {
        let notional = if is_stable(&c.from_asset) {
            Some(c.from_amount)
        } else {
            Some(c.to_amount).filter(|_| is_stable(&c.to_asset))
        };
        Ok(Self {
            symbol: format!("{}{}", c.to_asset, c.from_asset),
            id: c.order_id,
            order_id: Some(c.order_id),
            price: money::div(c.from_amount, c.to_amount)?,
            qty: c.to_amount,
            quote_qty: c.from_amount,
            commission: Decimal::ZERO,
            commission_asset: c.from_asset.clone(),
            time: c.create_time,
            is_buyer: true,
            is_maker: false,
            is_best_match: true,
            account: Some(scope.to_owned()),
            source: Source::Convert,
            raw: serde_json::json!({ "convert": true, "notionalUsdt": notional }),
            base: c.to_asset,
            quote: c.from_asset,
        })
    }

    fn row(&self, now: Time) -> Vec<Value> {
        values![
            self.symbol.as_str(),
            self.id,
            self.order_id,
            self.price.to_string(),
            self.qty.to_string(),
            self.quote_qty.to_string(),
            self.commission.to_string(),
            self.commission_asset.as_str(),
            self.time,
            self.is_buyer,
            self.is_maker,
            self.is_best_match,
            self.account.as_deref(),
            self.source.as_str(),
            self.base.as_str(),
            self.quote.as_str(),
            self.raw.to_string(),
            now,
        ]
    }
}

/// Stores trades; one that is known stays as it is. The second statement makes symbols of those that
/// the market does not know.
fn store(mut trades: Vec<Trade>, now: Time) -> Vec<Statement> {
    trades.sort_unstable_by(|a, b| (&a.symbol, a.id).cmp(&(&b.symbol, b.id)));
    let rows = trades.iter().flat_map(|t| t.row(now)).collect();
    let mut symbols: Vec<_> = trades
        .iter()
        .filter(|t| t.source == Source::Convert)
        .map(|t| (&t.symbol, &t.base, &t.quote))
        .collect();
    symbols.dedup();
    let symbols: Vec<_> = symbols
        .into_iter()
        .flat_map(|(symbol, base, quote)| {
            values![symbol.as_str(), base.as_str(), quote.as_str(), now]
        })
        .collect();
    let mut all = vec![Statement::bulk(
        "insert into market.account_trades
           (symbol, trade_id, order_id, price, qty, quote_qty, commission, commission_asset,
            trade_time, is_buyer, is_maker, is_best_match, account_email, source, base_asset,
            quote_asset, raw, added_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
         on conflict (symbol, trade_id) do nothing",
        18,
        rows,
    )];
    if !symbols.is_empty() {
        all.push(Statement::bulk(
            "insert into market.symbols (symbol, base_asset, quote_asset, status, updated_at)
             values ($1, $2, $3, 'CONVERT', $4) on conflict (symbol) do nothing",
            4,
            symbols,
        ));
    }
    all
}

/// What the account holds of one asset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// The asset.
    pub asset: String,
    /// What may be used.
    pub free: Decimal,
    /// What orders hold.
    pub locked: Decimal,
    /// Both.
    pub total: Decimal,
    /// When it was so.
    pub at: Time,
}

/// What the account holds, as the venue said last, by asset.
///
/// # Errors
/// When the database fails, or holds an amount that is none.
pub async fn wallet(db: &Database) -> Result<Vec<Holding>, ReadError> {
    let rows = db
        .query(
            "select asset, ts, free_amt, locked_amt from market.wallet_balances_latest
             order by asset /*pg*/ collate \"C\" /*end*/",
            Vec::new(),
        )
        .await?;
    rows.iter()
        .map(|row| {
            let (free, locked) = (money::parse(row.text(2)?)?, money::parse(row.text(3)?)?);
            Ok(Holding {
                asset: row.text(0)?.to_owned(),
                free,
                locked,
                total: money::add(free, locked)?,
                at: row.time(1)?,
            })
        })
        .collect()
}

/// Why something stored cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
    /// A stored amount is none.
    #[error("the store holds an amount that is none")]
    Amount(#[from] Overflow),
    /// A stored row means nothing.
    #[error("the store holds a row that means nothing: {0}")]
    Row(String),
}

/// How often an unchanged wallet is written again, so that its age says that it was looked at.
const CONFIRM_EVERY: Millis = Millis::from_mins(5);

/// Writes what has changed of the wallet of `scope`, and the answer that says so. What the venue lists
/// no more is held no more.
fn store_wallet(
    scope: &str,
    known: &[Holding],
    said: &[AccountBalance],
    now: Time,
) -> Result<Vec<Statement>, serde_json::Error> {
    let mut latest = Vec::new();
    let mut history = Vec::new();
    for b in said {
        let before = known.iter().find(|h| h.asset == b.asset);
        let same = before.is_some_and(|h| (h.free, h.locked) == (b.free, b.locked));
        if same && before.is_some_and(|h| now - h.at < CONFIRM_EVERY) {
            continue;
        }
        let row = || {
            values![
                b.asset.as_str(),
                now,
                b.free.normalize().to_string(),
                b.locked.normalize().to_string()
            ]
        };
        latest.extend(row());
        if !same {
            history.extend(row());
        }
    }
    let zero = Decimal::ZERO;
    for h in known.iter().filter(|h| !h.total.is_zero()) {
        if !said.iter().any(|b| b.asset == h.asset) {
            let row = values![h.asset.as_str(), now, zero.to_string(), zero.to_string()];
            latest.extend(row.clone());
            history.extend(row);
        }
    }
    let mut all = Vec::new();
    if !latest.is_empty() {
        all.push(Statement::bulk(
            "insert into market.wallet_balances_latest (asset, ts, free_amt, locked_amt)
             values ($1, $2, $3, $4)
             on conflict (asset) do update set
               ts = excluded.ts, free_amt = excluded.free_amt, locked_amt = excluded.locked_amt",
            4,
            latest,
        ));
    }
    if !history.is_empty() {
        all.push(Statement::new(
            "insert into ingest.account_balance_raw (account_scope, ts, payload)
             values ($1, $2, $3) on conflict (account_scope, ts) do nothing",
            values![scope, now, serde_json::to_string(said)?],
        ));
        all.push(Statement::bulk(
            "insert into market.wallet_balances (asset, ts, free_amt, locked_amt)
             values ($1, $2, $3, $4) on conflict (asset, ts) do nothing",
            4,
            history,
        ));
    }
    Ok(all)
}

/// One line of an owner's log; the owner's lines are numbered without a gap.
pub(crate) fn log_cycle(
    owner: &str,
    now: Time,
    session: Option<i64>,
    status: &'static str,
    summary: &str,
    payload: &serde_json::Value,
) -> Statement {
    Statement::new(
        "insert into audit.user_cycle_log
           (owner_user_id, cycle_seq, ts, session_id, status, summary, payload)
         select $1, coalesce(max(cycle_seq), 0) + 1, $2, $3, $4, $5, $6
         from audit.user_cycle_log where owner_user_id = $1",
        values![owner, now, session, status, summary, payload.to_string()],
    )
}
