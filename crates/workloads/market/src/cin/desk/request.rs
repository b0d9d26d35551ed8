//! What an operator may ask of the ledger: the payloads with their schemas, and the words of a refusal.

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use watchbell_core::job::Kind;
use watchbell_core::{Fault, Millis, Time};

use super::{
    LEDGER_IMPORT, SESSION_CLOSE, SESSION_MARK, SESSION_MOVE, SESSION_OPEN, SESSION_RETRY,
    WALLET_REFRESH,
};
use crate::cin::money::{self, Overflow};
use crate::cin::prices::{Price, Prices};
use crate::cin::rollup::Mode;
use crate::cin::session::SessionError;

/// A close older than this is no present price.
const STALE_PRICE: Millis = Millis::from_mins(10);

/// What a session begins with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Opening {
    pub(super) owner: String,
    #[serde(default = "one_hour")]
    pub(super) window_label: String,
    #[serde(default = "ledger")]
    pub(super) mode: Mode,
    pub(super) account: Option<String>,
    pub(super) note: Option<String>,
    pub(super) started_at: Option<Time>,
    #[serde(default)]
    pub(super) balances: Vec<OpeningBalance>,
    #[serde(default)]
    pub(super) from_wallet: bool,
    #[serde(default = "yes")]
    pub(super) lots: bool,
}

/// One asset of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OpeningBalance {
    pub(super) asset: String,
    pub(super) units: String,
    pub(super) price_usdt: Option<String>,
    pub(super) profit_usdt: Option<String>,
    pub(super) ref_usdt: Option<String>,
}

/// Which session is over.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Closing {
    pub(super) session_id: i64,
    #[serde(default)]
    pub(super) accept_unbooked: bool,
}

/// A move to be done.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Planned {
    pub(super) session_id: i64,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) executed_usdt: String,
    pub(super) fee_usdt: Option<String>,
    pub(super) slippage_usdt: Option<String>,
    pub(super) target_usdt: Option<String>,
    pub(super) price_from_usdt: Option<String>,
    pub(super) price_to_usdt: Option<String>,
    pub(super) note: Option<String>,
}

/// One open session, or each.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OneOrAll {
    pub(super) session_id: Option<i64>,
}

/// One session.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct One {
    pub(super) session_id: i64,
}

/// A file of trades.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// Its name, for people.
    #[serde(default)]
    pub(super) file: String,
    pub(super) csv: String,
    pub(super) account: Option<String>,
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
pub(super) fn kinds() -> Vec<Kind> {
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

pub(super) fn arithmetic(e: Overflow) -> Fault {
    Fault::invalid(e)
}

/// A session that cannot be read may be readable later; an amount without a place never is.
pub(super) fn unreadable(e: SessionError) -> Fault {
    match e {
        SessionError::Database(e) => e.into(),
        other => Fault::permanent(other),
    }
}

pub(super) fn read<T: for<'de> Deserialize<'de>>(payload: &Json) -> Result<T, Fault> {
    T::deserialize(payload).map_err(|e| Fault::invalid(format!("the payload cannot be read: {e}")))
}

pub(super) fn read_amount(text: &str) -> Result<Decimal, Fault> {
    let amount = money::parse(text).map_err(arithmetic)?;
    if amount >= Decimal::ZERO {
        return Ok(amount);
    }
    Err(Fault::invalid(format!("{amount} is below 0")))
}

pub(super) fn opt_amount(text: Option<&str>) -> Result<Option<Decimal>, Fault> {
    text.map(read_amount).transpose()
}

/// A price that the operator did not give, at `at`: of the present, the newest close.
pub(super) async fn price(
    prices: &mut Prices<'_>,
    asset: &str,
    at: Time,
    now: Time,
) -> Result<Decimal, Fault> {
    let told = "give its price_usdt";
    if now - at < STALE_PRICE {
        return match prices.latest(asset, now).await? {
            Some((of, price)) if now - of < STALE_PRICE => Ok(price),
            Some((of, _)) => Err(Fault::conflict(format!(
                "the newest price of {asset} is of {of}: wait for the synchronisation, or {told}"
            ))),
            None => Err(Fault::conflict(format!("there is no candle of {asset}USDT: {told}"))),
        };
    }
    match prices.at(asset, at).await? {
        Price::Known(price) => Ok(price),
        Price::NotYet => Err(Fault::conflict(format!(
            "the candles of {asset}USDT are not known at {at}: {told}"
        ))),
        Price::Never(why) => Err(Fault::conflict(format!("{why}: {told}"))),
    }
}
