//! What pages and commands show of the allotments: plain reads.

use serde::Serialize;
use watchbell_core::{Time, values};
use watchbell_db::{Database, DbError};

/// A cooled cycle.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CycleView {
    /// `LABEL:NUMBER:VERSION`.
    pub cycle_id: String,
    /// Label of the window.
    pub window_label: String,
    /// Start of the window.
    pub window_start: Time,
    /// Its end.
    pub cooled_at: Time,
    /// Coins, in the order of the cells.
    pub coins: serde_json::Value,
    /// `session`, `wallet` or `equal`.
    pub balance_source: String,
    /// What balances were divided by.
    pub k: f64,
    /// The mood that was applied.
    pub mood_coeff: f64,
    /// Its identity.
    pub mood_id: String,
}

/// What one coin is allotted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SymbolView {
    /// Its market against USDT, or the coin.
    pub symbol: String,
    /// The coin.
    pub coin: String,
    /// Its balance in USDT; none where it has no price.
    pub wallet_value: Option<f64>,
    /// Sum of its cells, in units of the coin.
    pub mea_value: f64,
    /// Rank, S to E.
    pub tier: String,
    /// k, mood, balance and where it is from, mean weight, counts by tier.
    pub components: serde_json::Value,
    /// Its cells against each coin of the cycle.
    pub cells: serde_json::Value,
}

/// The newest allotments of a label.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeaView {
    /// The cycle.
    pub cycle: CycleView,
    /// Its coins, by name of their market.
    pub symbols: Vec<SymbolView>,
    /// Candidates, trades, measures and histogram of the selected pair; none for a slice of one coin.
    pub snapshot: Option<serde_json::Value>,
}

/// The newest cooled cycle of a label such as `30m`, with its allotments and its snapshot; none while
/// there is none.
///
/// # Errors
/// When the database fails.
pub async fn latest(db: &Database, label: &str) -> Result<Option<MeaView>, DbError> {
    let row = db
        .query_opt(
            "select cycle_id, window_label, window_start, ts_cooled, coins, balance_source, k,
                    mood_coeff, mood_id
             from mea_dynamics.cycles where window_label = $1 and cooled = 1
             order by engine_cycle desc, version desc limit 1",
            values![label],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let cycle = CycleView {
        cycle_id: row.text(0)?.to_owned(),
        window_label: row.text(1)?.to_owned(),
        window_start: row.time(2)?,
        cooled_at: row.time(3)?,
        coins: row.json(4)?,
        balance_source: row.text(5)?.to_owned(),
        k: row.f64(6)?,
        mood_coeff: row.f64(7)?,
        mood_id: row.text(8)?.to_owned(),
    };
    let rows = db
        .query(
            "select symbol, coin, wallet_value, mea_value, tier, components, cells
             from mea_dynamics.mea_symbol where cycle_id = $1
             order by symbol /*pg*/ collate \"C\" /*end*/",
            values![cycle.cycle_id.as_str()],
        )
        .await?;
    let symbols = rows.iter().map(|row| {
        Ok(SymbolView {
            symbol: row.text(0)?.to_owned(),
            coin: row.text(1)?.to_owned(),
            wallet_value: row.opt_f64(2)?,
            mea_value: row.f64(3)?,
            tier: row.text(4)?.to_owned(),
            components: row.json(5)?,
            cells: row.json(6)?,
        })
    });
    let symbols: Vec<SymbolView> = symbols.collect::<Result<_, DbError>>()?;
    let snapshot = db
        .query_opt(
            "select base, quote, candidates, asset_identity, arbitrage_rows, str_available,
                    str_measures, histogram, mea_value, mea_tier
             from mea_dynamics.dynamics_snapshot where cycle_id = $1",
            values![cycle.cycle_id.as_str()],
        )
        .await?;
    let snapshot = match snapshot {
        None => None,
        Some(row) => Some(serde_json::json!({
            "base": row.text(0)?,
            "quote": row.text(1)?,
            "candidates": row.json(2)?,
            "asset_identity": row.json(3)?,
            "arbitrage_rows": row.json(4)?,
            "str_available": row.bool(5)?,
            "str_measures": row.json(6)?,
            "histogram": row.json(7)?,
            "mea_value": row.opt_f64(8)?,
            "mea_tier": row.text(9)?,
        })),
    };
    Ok(Some(MeaView { cycle, symbols, snapshot }))
}
