//! Nodes: the processes that share the store.

use watchbell_core::port::NodeRecord;
use watchbell_core::{Millis, Time};

use crate::print::cut;
use crate::print::style::{Style, Tone};
use crate::print::table::{Cell, Table};
use crate::print::time::{relative, span};

/// Nodes, as given.
#[must_use]
pub fn list(nodes: &[NodeRecord], now: Time, style: Style) -> String {
    if nodes.is_empty() {
        return "no nodes\n".to_owned();
    }
    let mut table = Table::new(&[
        "NODE",
        ">PID",
        ">UP",
        "SEEN",
        ">SKEW",
        ">ROUND TRIP",
        ">JOBS",
        "PROFILE",
        "SESSION",
        "API",
        "HOLDS",
    ]);
    for n in nodes {
        let seen = match (n.seen_at, n.overdue) {
            (Some(t), false) => relative(t, now).into(),
            (Some(t), true) => Cell::new(format!("{}, overdue", relative(t, now)), Tone::Bad),
            // There can be one node only, so nobody keeps watch over it.
            (None, _) => Cell::none(),
        };
        let holds: Vec<String> =
            n.holds.iter().map(|(worker, token)| format!("{worker} {token}")).collect();
        table.row(vec![
            n.session.host.as_str().into(),
            n.session.pid.to_string().into(),
            span(now.since(n.session.opened_at)).into(),
            seen,
            n.skew.map_or_else(Cell::none, skew),
            Cell::or_none(n.round_trip.map(span)),
            Cell::number(n.jobs, Tone::Plain),
            n.profile.as_str().into(),
            n.session.id.as_str().into(),
            Cell::or_none(n.api.as_deref()),
            cut(&holds.join(", "), 200).into(),
        ]);
    }
    table.print(style)
}

/// A skew that somebody should mend: leases do not depend on it, but due instants and logs do.
const MUCH: Millis = Millis::from_secs(1);

/// By how much the store's clock is ahead.
fn skew(skew: Millis) -> Cell {
    let sign = if skew.0 > 0 { "+" } else { "" };
    let tone = if skew.0.abs() >= MUCH.0 { Tone::Warn } else { Tone::Plain };
    Cell::new(format!("{sign}{skew}"), tone)
}
