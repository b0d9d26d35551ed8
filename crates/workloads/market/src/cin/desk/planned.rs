//! A planned move: what an operator means to do, at prices that are given or the newest.

use rust_decimal::Decimal;
use serde_json::json;
use watchbell_core::{Commit, Cycle, Done, Fault};
use watchbell_db::Database;

use super::request::{Planned, arithmetic, opt_amount, price, read_amount, unreadable};
use crate::cin::fifo::{Fee, Order, Origin};
use crate::cin::money::div;
use crate::cin::prices::Prices;
use crate::cin::rollup::Mode;
use crate::cin::session::{self, Session, text};

/// Does one, or refuses it where the session lacks what it gives.
pub(super) async fn execute(
    db: &Database,
    cycle: &Cycle,
    session: &Session,
    wanted: Planned,
) -> Result<Done, Fault> {
    let now = cycle.now();
    if session.mode == Mode::Parity {
        return Err(Fault::conflict(format!(
            "session {} is a parity session, which only mirrors the account's trades",
            session.id
        )));
    }
    let executed = read_amount(&wanted.executed_usdt)?;
    let mut prices = Prices::new(db);
    let mut unit = [Decimal::ONE; 2];
    let sides = [(&wanted.from, &wanted.price_from_usdt), (&wanted.to, &wanted.price_to_usdt)];
    for (slot, (asset, given)) in unit.iter_mut().zip(sides) {
        *slot = match given {
            Some(price) => read_amount(price)?,
            None => price(&mut prices, asset, now, now).await?,
        };
        if slot.is_zero() {
            return Err(Fault::invalid(format!("the price of {asset} is 0")));
        }
    }
    let [price_from, price_to] = unit;
    let stored = session::book(db, session.id).await.map_err(unreadable)?;
    if stored.last.as_ref().is_some_and(|(at, ..)| *at > now) {
        return Err(Fault::transient(format!(
            "session {} has a move later than {now}: the clocks differ",
            session.id
        )));
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
    let done = after.execute(order).map_err(Fault::conflict)?;
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
