//! What a unit of an asset is worth in USDT, by the one-minute candles of its USDT market.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use watchbell_core::{Millis, Time, values};
use watchbell_db::{Database, DbError};

use super::fifo::is_stable;
use super::money;
use crate::universe::{BASE, MINUTE};

/// A candle this much older still gives the price where the venue has none in between.
const REACH: Millis = Millis::from_hours(1);

/// The worth of a unit at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Price {
    /// The close of the last minute that was over by then.
    Known(Decimal),
    /// That minute has not been fetched yet.
    NotYet,
    /// There is none, for this reason.
    Never(String),
}

/// Prices, each read once.
pub(crate) struct Prices<'a> {
    db: &'a Database,
    at: BTreeMap<(String, Time), Price>,
    latest: BTreeMap<String, Option<(Time, Decimal)>>,
}

impl<'a> Prices<'a> {
    pub(crate) const fn new(db: &'a Database) -> Self {
        Self { db, at: BTreeMap::new(), latest: BTreeMap::new() }
    }

    /// The worth of a unit of `asset` at `at`: the close of the last minute that was over by then.
    /// It never changes afterwards, so a trade has the same worth whenever it is booked.
    pub(crate) async fn at(&mut self, asset: &str, at: Time) -> Result<Price, DbError> {
        if is_stable(asset) {
            return Ok(Price::Known(Decimal::ONE));
        }
        let minute = at.floor(MINUTE) - MINUTE;
        let key = (asset.to_owned(), minute);
        if let Some(known) = self.at.get(&key) {
            return Ok(known.clone());
        }
        let price = self.read(asset, minute).await?;
        self.at.insert(key, price.clone());
        Ok(price)
    }

    async fn read(&self, asset: &str, minute: Time) -> Result<Price, DbError> {
        let symbol = format!("{asset}USDT");
        let rows = self
            .db
            .query(
                "select c.covered_from, c.covered_until,
                        (select k.close from ingest.kline_raw k
                         where k.symbol = $1 and k.interval_label = $2
                           and k.open_time <= $3 and k.open_time > $4
                         order by k.open_time desc limit 1),
                        (select count(*) from ingest.kline_gaps g
                         where g.symbol = $1 and g.interval_label = $2 and g.state = 'pending'
                           and g.from_at <= $3 and g.to_at > $4)
                 from ingest.klines_cursor c where c.symbol = $1 and c.window_label = $2",
                values![symbol.as_str(), BASE, minute, minute - REACH],
            )
            .await?;
        let Some(row) = rows.first() else {
            return Ok(Price::Never(format!("NO_PRICE: no candles of {symbol} are followed")));
        };
        let (Some(from), Some(until)) = (row.opt_time(0)?, row.opt_time(1)?) else {
            return Ok(Price::NotYet);
        };
        if until < minute + MINUTE {
            return Ok(Price::NotYet);
        }
        Ok(match (row.opt_f64(2)?, row.i64(3)?) {
            (_, 1..) => Price::NotYet,
            (Some(close), _) => match money::price(close) {
                Ok(price) if price > Decimal::ZERO => Price::Known(price),
                _ => {
                    Price::Never(format!("NO_PRICE: the close of {symbol} at {minute} is {close}"))
                }
            },
            (None, _) if minute < from => Price::Never(format!(
                "NO_PRICE: the candles of {symbol} are known from {from} on, and {minute} is needed"
            )),
            (None, _) => Price::Never(format!(
                "NO_PRICE: the venue has no candle of {symbol} in the hour up to {minute}"
            )),
        })
    }

    /// The newest close of `asset` of a minute that was over at `now`, and when that was; none where
    /// nothing is known. For a stablecoin there is no instant of its own: `now`.
    pub(crate) async fn latest(
        &mut self,
        asset: &str,
        now: Time,
    ) -> Result<Option<(Time, Decimal)>, DbError> {
        if is_stable(asset) {
            return Ok(Some((now.floor(MINUTE), Decimal::ONE)));
        }
        if let Some(known) = self.latest.get(asset) {
            return Ok(*known);
        }
        let rows = self
            .db
            .query(
                "select open_time, close from ingest.kline_raw
                 where symbol = $1 and interval_label = $2 and open_time <= $3
                 order by open_time desc limit 1",
                values![format!("{asset}USDT"), BASE, now - MINUTE],
            )
            .await?;
        let found = match rows.first() {
            Some(row) => {
                let price = money::price(row.f64(1)?).ok().filter(|p| *p > Decimal::ZERO);
                price.map(|price| Ok::<_, DbError>((row.time(0)? + MINUTE, price))).transpose()?
            }
            None => None,
        };
        self.latest.insert(asset.to_owned(), found);
        Ok(found)
    }
}
