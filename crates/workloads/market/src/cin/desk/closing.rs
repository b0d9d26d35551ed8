//! How a session ends: what is left is booked, everything is valued, and it closes, in one commit; or
//! it stays in `ERROR` with the reason.

use serde_json::json;
use watchbell_core::{Commit, Cycle, Done, Expect, Fault, Millis, Statement, Time, values};
use watchbell_db::Database;

use super::request::{arithmetic, unreadable};
use crate::account;
use crate::cin::import::{CIN_IMPORT_MOVES, book};
use crate::cin::marks;
use crate::cin::money::add;
use crate::cin::prices::Prices;
use crate::cin::rollup::{self, Sums};
use crate::cin::session::{self, Session, text};

/// How soon a close that waits for candles is tried again.
const WAIT: Millis = Millis::from_secs(15);

/// Closes a session. What no other try can cure leaves it in `ERROR`.
pub(super) async fn close(
    db: &Database,
    cycle: &Cycle,
    session: &Session,
    accept_unbooked: bool,
) -> Result<Done, Fault> {
    let now = cycle.now();
    // A retry ends where the first try would have ended: what came later is not its own.
    let until = session.ended_at.unwrap_or(now);
    match closing(db, session, accept_unbooked, until, now).await {
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
    db: &Database,
    session: &Session,
    accept_unbooked: bool,
    until: Time,
    now: Time,
) -> Result<Done, Fault> {
    let id = session.id;
    let mut prices = Prices::new(db);
    let booked = book(db, session, until, now, &mut prices).await.map_err(unreadable)?;
    if booked.more {
        return Err(Fault::Snooze {
            after: WAIT,
            why: format!(
                "session {id} has more trades to book than one run takes: run \
                 {CIN_IMPORT_MOVES} until it says that nothing is left"
            ),
        });
    }
    if booked.waiting > 0 {
        let why = format!("{} trades wait for the candles that value them", booked.waiting);
        return Err(Fault::Snooze { after: WAIT, why });
    }
    if let Some(first) = booked.first_error.as_ref().filter(|_| !accept_unbooked) {
        return Err(Fault::conflict(format!(
            "{} trades are not booked, the first is {first}; see cin_aux.rt_move_error, mend \
             it, or close with accept_unbooked",
            booked.unbooked
        )));
    }
    let mut marks = marks::newest(db, id, &booked.balances).await.map_err(unreadable)?;
    let fresh = marks::take(id, &booked.balances, &mut prices, until).await;
    let fresh = fresh.map_err(unreadable)?;
    marks.extend(fresh.bulk);
    let earlier = if booked.replayed { None } else { Some(id) };
    let mut sums = Sums::default();
    if let Some(id) = earlier {
        sums = stored_sums(db, id).await?;
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

/// The sums over the moves that are stored.
async fn stored_sums(db: &Database, session: i64) -> Result<Sums, Fault> {
    let rows = db
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
