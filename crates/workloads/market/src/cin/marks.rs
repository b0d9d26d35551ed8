//! Marks: what the assets of a session are worth at an instant. Spec: section 8.6.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use watchbell_core::{Statement, Time, values};
use watchbell_db::Database;

use super::fifo::Balance;
use super::money;
use super::prices::Prices;
use super::session::{SessionError, amount, text};

/// What assets are worth now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks {
    /// By asset: what all of its units are worth.
    pub(crate) bulk: BTreeMap<String, Decimal>,
    pub(crate) statement: Option<Statement>,
}

/// Values each balance at the newest close; assets without one have no mark.
pub(crate) async fn take(
    session: i64,
    balances: &BTreeMap<String, Balance>,
    prices: &mut Prices<'_>,
    now: Time,
) -> Result<Marks, SessionError> {
    let mut marks = Marks::default();
    let mut rows = Vec::new();
    for (asset, balance) in balances {
        let Some((at, price)) = prices.latest(asset, now).await? else { continue };
        let bulk = money::mul(balance.units, price)?;
        rows.extend(values![session, asset.as_str(), at, text(price), text(bulk)]);
        marks.bulk.insert(asset.clone(), bulk);
    }
    if !rows.is_empty() {
        marks.statement = Some(Statement::bulk(
            "insert into cin_aux.rt_mark (session_id, asset, ts, price_usdt, bulk_usdt)
             values ($1, $2, $3, $4, $5)
             on conflict (session_id, asset, ts) do update set
               price_usdt = excluded.price_usdt, bulk_usdt = excluded.bulk_usdt",
            5,
            rows,
        ));
    }
    Ok(marks)
}

/// What each asset was worth when it was last marked, at the units that it has now.
pub(crate) async fn newest(
    db: &Database,
    session: i64,
    balances: &BTreeMap<String, Balance>,
) -> Result<BTreeMap<String, Decimal>, SessionError> {
    let rows = db
        .query(
            "select asset, price_usdt from cin_aux.v_latest_marks where session_id = $1",
            values![session],
        )
        .await?;
    let mut all = BTreeMap::new();
    for row in &rows {
        let (asset, price) = (row.text(0)?, amount(row, 1)?);
        if let Some(balance) = balances.get(asset) {
            all.insert(asset.to_owned(), money::mul(balance.units, price)?);
        }
    }
    Ok(all)
}
