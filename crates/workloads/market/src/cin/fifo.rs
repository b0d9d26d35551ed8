//! The move engine: what a move does to balances and lots, first in, first out. Spec: section 8.5.
//!
//! A [`Book`] holds a session's balances and lots. Each asset has a *principal* and a *profit* in
//! USDT, the units that it holds, and (stablecoins apart) the lots that these units came in, each
//! with what it cost. A move takes units out of the oldest lots of what it gives and makes a new lot
//! of what it gets.
//!
//! * The realised result of a move, its *trace*, is what it brought less what its units had cost. It
//!   is booked to the source's profit before anything is taken, so that principal and profit of an
//!   asset are together what its lots have cost.
//! * A fee is a disposal of the asset that paid it: its units leave that asset's lots, what they
//!   gained is booked as [`Move::fee_trace`], and their worth is taken from that asset, first from
//!   its profit, then from its principal. An asset that the session does not hold cannot pay: then
//!   the worth is taken from the source.
//! * The cost of a part of a lot is rounded once and taken from the lot's own remaining cost. So units
//!   and cost that went in are exactly those that came out and those that lie in open lots.
//!
//! Pure: no I/O, no clock.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use watchbell_core::Time;

use super::money::{self, Overflow, add, div, share, sub};

/// Coins that are worth one USDT each, and have no lots.
pub(crate) const STABLES: [&str; 6] = ["USDT", "USDC", "FDUSD", "BUSD", "TUSD", "DAI"];

/// Whether an asset is worth one USDT.
#[must_use]
pub(crate) fn is_stable(asset: &str) -> bool {
    STABLES.contains(&asset)
}

/// Units that came in together, and what they cost in USDT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lot {
    /// Counts from 1 within the session.
    pub(crate) id: i64,
    /// When it came in.
    pub(crate) at: Time,
    /// The move that it came with; none for one of the opening.
    pub(crate) origin: Option<i64>,
    pub(crate) units: Decimal,
    pub(crate) cost: Decimal,
    pub(crate) units_free: Decimal,
    pub(crate) cost_free: Decimal,
}

impl Lot {
    /// A lot of which nothing was used yet.
    pub(crate) const fn whole(
        id: i64,
        at: Time,
        origin: Option<i64>,
        units: Decimal,
        cost: Decimal,
    ) -> Self {
        Self { id, at, origin, units, cost, units_free: units, cost_free: cost }
    }

    /// What a unit cost.
    pub(crate) fn p_in(&self) -> Result<Decimal, Overflow> {
        div(self.cost, self.units)
    }
}

/// What a session holds of one asset. USDT, but for `units`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Balance {
    pub(crate) opening_principal: Decimal,
    pub(crate) opening_profit: Decimal,
    pub(crate) opening_units: Decimal,
    pub(crate) principal: Decimal,
    pub(crate) profit: Decimal,
    pub(crate) units: Decimal,
}

impl Balance {
    /// A balance that nothing has moved yet.
    pub(crate) const fn opening(principal: Decimal, profit: Decimal, units: Decimal) -> Self {
        Self {
            opening_principal: principal,
            opening_profit: profit,
            opening_units: units,
            principal,
            profit,
            units,
        }
    }

    /// Principal and profit together.
    pub(crate) fn value(&self) -> Result<Decimal, Overflow> {
        add(self.principal, self.profit)
    }
}

/// Where a move comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An operator planned it.
    Planned,
    /// The account traded.
    Trade { symbol: String, id: i64, buy: bool },
}

/// What a move costs beside what it gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fee {
    /// Who pays.
    pub(crate) asset: String,
    /// How many units.
    pub(crate) units: Decimal,
    /// What they were worth, in USDT.
    pub(crate) value: Decimal,
}

/// A move before it is done: everything that the ledger needs to do it, or to do it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) at: Time,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) from_units: Decimal,
    pub(crate) to_units: Decimal,
    /// What changed hands, in USDT.
    pub(crate) executed: Decimal,
    pub(crate) fee: Option<Fee>,
    pub(crate) slippage: Decimal,
    /// The reference that the move aims at.
    pub(crate) target: Option<Decimal>,
    /// What the source had to give when the move was planned.
    pub(crate) available: Option<Decimal>,
    pub(crate) origin: Origin,
    pub(crate) notes: String,
}

impl Order {
    /// The place of this order in its session: orders are done in this sequence, whenever they
    /// arrive. Planned moves of one instant go before its trades, in the sequence of their making.
    pub(crate) fn place(&self) -> (Time, &str, i64) {
        match &self.origin {
            Origin::Planned => (self.at, "", 0),
            Origin::Trade { symbol, id, .. } => (self.at, symbol, *id),
        }
    }
}

/// A part of a lot that a move used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) lot: i64,
    pub(crate) units: Decimal,
    pub(crate) cost: Decimal,
    /// Whether it paid the fee.
    pub(crate) fee: bool,
}

/// A move that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) id: i64,
    pub(crate) order: Order,
    pub(crate) planned: Option<Decimal>,
    pub(crate) dev_ref: Decimal,
    pub(crate) comp_principal: Decimal,
    pub(crate) comp_profit: Decimal,
    /// Prices of what was given and of what was got.
    pub(crate) p_bridge_in: Decimal,
    pub(crate) p_bridge_out: Decimal,
    pub(crate) lot_units_used: Decimal,
    /// What a used unit had cost on average; none where no lot was used.
    pub(crate) p_in: Option<Decimal>,
    pub(crate) trace: Decimal,
    pub(crate) fee_trace: Decimal,
    pub(crate) profit_consumed: Decimal,
    pub(crate) principal_hit: Decimal,
    pub(crate) residual_from_after: Decimal,
    /// More was given than the session held: it lacks an opening balance or an earlier trade.
    pub(crate) overdrawn: bool,
    pub(crate) links: Vec<Link>,
}

/// Why a move was not done. Only an overflow leaves the book in a state of its own: drop it then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MoveError {
    /// The source has too little.
    #[error(
        "INSUFFICIENT_BALANCE: {asset} has {available} USDT, and the move needs {needed}: {executed} \
         and a fee of {fee}"
    )]
    Insufficient {
        asset: String,
        available: Decimal,
        needed: Decimal,
        executed: Decimal,
        fee: Decimal,
    },
    /// The source's lots have too few units.
    #[error("LOT_SHORTAGE: the lots of {asset} hold {free} units, and the move needs {needed}")]
    Shortage { asset: String, free: Decimal, needed: Decimal },
    /// The order means nothing.
    #[error("INVALID: {0}")]
    Invalid(String),
    /// An amount without a place in the ledger.
    #[error(transparent)]
    Overflow(#[from] Overflow),
}

/// A trade as a row and no more: without lots, balances or results. Spec: section 8.3.
pub(crate) fn mirror(id: i64, order: Order) -> Result<Move, MoveError> {
    check(&order)?;
    let zero = Decimal::ZERO;
    Ok(Move {
        id,
        planned: None,
        dev_ref: zero,
        comp_principal: order.executed,
        comp_profit: zero,
        p_bridge_in: div(order.executed, order.from_units)?,
        p_bridge_out: div(order.executed, order.to_units)?,
        lot_units_used: zero,
        p_in: None,
        trace: zero,
        fee_trace: zero,
        profit_consumed: zero,
        principal_hit: zero,
        residual_from_after: zero,
        overdrawn: false,
        links: Vec::new(),
        order,
    })
}

/// Units to take out of lots.
struct Used {
    links: Vec<Link>,
    /// Units that no lot had.
    short: Decimal,
    units: Decimal,
    cost: Decimal,
}

/// Balances and lots of a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Book {
    pub(crate) balances: BTreeMap<String, Balance>,
    /// By asset, in the order of their numbers, which is that of their instants. Lots that are used
    /// up may be left out.
    pub(crate) lots: BTreeMap<String, Vec<Lot>>,
    /// The numbers of the last move and the last lot.
    pub(crate) last_move: i64,
    pub(crate) last_lot: i64,
}

impl Book {
    /// Gives an asset its opening, and a lot of it unless it is a stablecoin or `lots` is false.
    ///
    /// # Errors
    /// When the amounts have no place in the ledger.
    pub(crate) fn open(
        &mut self,
        asset: &str,
        balance: Balance,
        at: Time,
        lots: bool,
    ) -> Result<(), Overflow> {
        if lots && !is_stable(asset) && balance.units > Decimal::ZERO {
            self.last_lot += 1;
            let cost = balance.value()?;
            let lot = Lot::whole(self.last_lot, at, None, balance.units, cost);
            self.lots.entry(asset.to_owned()).or_default().push(lot);
        }
        self.balances.insert(asset.to_owned(), balance);
        Ok(())
    }

    /// Does one move. Planned moves must have what they give; trades have happened, so they are done
    /// in any case and flagged. Units that no lot has are taken at the move's own price: they realise
    /// nothing.
    ///
    /// # Errors
    /// See [`MoveError`].
    pub(crate) fn execute(&mut self, order: Order) -> Result<Move, MoveError> {
        let strict = order.origin == Origin::Planned;
        self.perform(order, strict)
    }

    /// Does a move again that was done before, perhaps with other moves before it: it has happened,
    /// so a plan that now lacks something is flagged like a trade.
    ///
    /// # Errors
    /// See [`MoveError`].
    pub(crate) fn repeat(&mut self, order: Order) -> Result<Move, MoveError> {
        self.perform(order, false)
    }

    fn perform(&mut self, order: Order, planned_move: bool) -> Result<Move, MoveError> {
        check(&order)?;
        let (executed, zero) = (order.executed, Decimal::ZERO);
        let used = self.using(&order.from, order.from_units, executed, false)?;
        if planned_move && used.short > zero {
            return Err(MoveError::Shortage {
                asset: order.from,
                free: used.units,
                needed: order.from_units,
            });
        }
        let trace = sub(executed, used.cost)?;
        let source = self.balances.get(&order.from).copied().unwrap_or_default();
        let fee = order.fee.clone().filter(|f| f.value > zero || f.units > zero);
        // Who does not take part in the session cannot pay.
        let payer = fee.as_ref().map(|f| {
            let known = f.asset == order.to || self.balances.contains_key(&f.asset);
            if known { f.asset.clone() } else { order.from.clone() }
        });
        if planned_move {
            let available = add(source.value()?, trace)?;
            let own = fee.as_ref().filter(|_| payer.as_deref() == Some(&order.from));
            let fee = own.map_or(zero, |f| f.value);
            let needed = add(executed, fee)?;
            if needed > available {
                let asset = order.from;
                return Err(MoveError::Insufficient { asset, available, needed, executed, fee });
            }
        }

        self.last_move += 1;
        let id = self.last_move;
        self.take(&order.from, &used)?;
        let from = self.balances.entry(order.from.clone()).or_default();
        from.profit = add(from.profit, trace)?;
        let take_p = executed.min(from.principal).max(zero);
        let take_r = sub(executed, take_p)?;
        from.principal = sub(from.principal, take_p)?;
        from.profit = sub(from.profit, take_r)?;
        from.units = sub(from.units, order.from_units)?;
        let to = self.balances.entry(order.to.clone()).or_default();
        to.principal = add(to.principal, take_p)?;
        to.profit = add(to.profit, take_r)?;
        to.units = add(to.units, order.to_units)?;
        if !is_stable(&order.to) {
            self.last_lot += 1;
            let lot = Lot::whole(self.last_lot, order.at, Some(id), order.to_units, executed);
            self.lots.entry(order.to.clone()).or_default().push(lot);
        }
        let mut links = used.links;
        let lot_units_used = used.units;
        let lot_cost = money::sum(links.iter().map(|l| l.cost))?;
        let fee_trace = match (&fee, &payer) {
            (Some(fee), Some(payer)) => self.pay(fee, payer, &mut links)?,
            _ => zero,
        };
        let mut overdrawn = used.short > zero;
        for asset in [Some(&order.from), payer.as_ref()].into_iter().flatten() {
            if let Some(b) = self.balances.get(asset) {
                overdrawn |= b.units < zero || b.value()? < zero;
            }
        }
        let residual = self.balances[&order.from].value()?;
        let least = |t: Option<Decimal>, a: Option<Decimal>| match (t, a) {
            (Some(t), Some(a)) => Some(t.min(a)),
            (one, other) => one.or(other),
        };
        let planned = least(order.target, order.available);
        let reference = order.target.unwrap_or(executed).min(order.available.unwrap_or(executed));
        Ok(Move {
            id,
            planned,
            dev_ref: sub(executed, reference)?,
            comp_principal: take_p,
            comp_profit: take_r,
            p_bridge_in: div(executed, order.from_units)?,
            p_bridge_out: div(executed, order.to_units)?,
            lot_units_used,
            p_in: if lot_units_used > zero { Some(div(lot_cost, lot_units_used)?) } else { None },
            trace,
            fee_trace,
            profit_consumed: trace.max(zero),
            principal_hit: (-trace).max(zero),
            residual_from_after: residual,
            overdrawn,
            links,
            order,
        })
    }

    /// Takes a fee out of the balance and lots of who pays it; says what its units had gained.
    fn pay(&mut self, fee: &Fee, payer: &str, links: &mut Vec<Link>) -> Result<Decimal, Overflow> {
        let zero = Decimal::ZERO;
        let own = fee.asset == payer;
        let units = if own { fee.units } else { zero };
        let used = self.using(payer, units, fee.value, true)?;
        let gained = sub(fee.value, used.cost)?;
        self.take(payer, &used)?;
        links.extend(used.links);
        let balance = self.balances.entry(payer.to_owned()).or_default();
        balance.units = sub(balance.units, units)?;
        balance.profit = add(balance.profit, gained)?;
        let of_profit = fee.value.min(balance.profit.max(zero));
        balance.profit = sub(balance.profit, of_profit)?;
        balance.principal = sub(balance.principal, sub(fee.value, of_profit)?)?;
        Ok(gained)
    }

    /// The parts of lots that `units` of an asset, worth `value`, would use. An asset without an open
    /// lot uses none, at the cost of their worth.
    fn using(
        &self,
        asset: &str,
        units: Decimal,
        value: Decimal,
        fee: bool,
    ) -> Result<Used, Overflow> {
        let zero = Decimal::ZERO;
        let lots = self.lots.get(asset).map_or(&[][..], Vec::as_slice);
        // What is used up lies before what is open.
        let open = &lots[lots.partition_point(|lot| lot.units_free.is_zero())..];
        if open.is_empty() || units.is_zero() {
            return Ok(Used { links: Vec::new(), short: zero, units: zero, cost: value });
        }
        let (mut links, mut left, mut cost) = (Vec::new(), units, zero);
        for lot in open {
            if left.is_zero() {
                break;
            }
            let take = left.min(lot.units_free);
            let part = share(lot.cost_free, take, lot.units_free)?;
            links.push(Link { lot: lot.id, units: take, cost: part, fee });
            left = sub(left, take)?;
            cost = add(cost, part)?;
        }
        if left > zero {
            cost = add(cost, share(value, left, units)?)?;
        }
        Ok(Used { links, short: left, units: sub(units, left)?, cost })
    }

    fn take(&mut self, asset: &str, used: &Used) -> Result<(), Overflow> {
        let Some(lots) = self.lots.get_mut(asset) else { return Ok(()) };
        for link in &used.links {
            if let Ok(at) = lots.binary_search_by_key(&link.lot, |lot| lot.id) {
                let lot = &mut lots[at];
                lot.units_free = sub(lot.units_free, link.units)?;
                lot.cost_free = sub(lot.cost_free, link.cost)?;
            }
        }
        Ok(())
    }
}

fn check(order: &Order) -> Result<(), MoveError> {
    let zero = Decimal::ZERO;
    let fail = |problem: String| Err(MoveError::Invalid(problem));
    if order.from == order.to {
        return fail(format!("{} would move to itself", order.from));
    }
    for (what, amount) in [
        ("the executed amount", order.executed),
        ("the units given", order.from_units),
        ("the units got", order.to_units),
    ] {
        if amount <= zero {
            return fail(format!("{what} is {amount}, and must be above 0"));
        }
    }
    let fee = order.fee.as_ref();
    for (what, amount) in [
        ("the fee", fee.map_or(zero, |f| f.value)),
        ("the fee's amount", fee.map_or(zero, |f| f.units)),
        ("the slippage", order.slippage),
    ] {
        if amount < zero {
            return fail(format!("{what} is {amount}, and must not be below 0"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
