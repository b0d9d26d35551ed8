//! The tables that a scan publishes: exact headers, LF at the end of each line, quotes only where
//! needed (section 9.5).

use std::collections::BTreeMap;

use watchbell_core::Time;
use watchbell_venues::native::Venue;

use crate::decimal::{fixed, shown};
use crate::pipeline::{Outcome, Signal};

/// Header of `signals.csv`.
pub const SIGNALS: [&str; 11] = [
    "timestamp",
    "symbol",
    "score",
    "momentum_core",
    "vadr",
    "spread_bps",
    "depth_usd",
    "regime",
    "fresh",
    "venue",
    "sources",
];
/// Header of `warm_signals.csv`.
pub const WARM_SIGNALS: [&str; 8] =
    ["timestamp", "symbol", "score", "momentum_core", "cached", "regime", "venue", "ttl_remaining"];
/// Header of `premove.csv`.
pub const PREMOVE: [&str; 7] = [
    "timestamp",
    "symbol",
    "score",
    "premove_signal",
    "execution_risk",
    "venue_health",
    "latency_ms",
];

/// How an exchange does, as tables print it (section 5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Within every limit.
    Healthy,
    /// Beyond one.
    Degraded,
    /// Beyond two, or its breaker is open.
    Unhealthy,
}

impl Health {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "HEALTHY",
            Self::Degraded => "DEGRADED",
            Self::Unhealthy => "UNHEALTHY",
        }
    }
}

/// `signals.csv`.
#[must_use]
pub fn signals(outcome: &Outcome) -> String {
    table(&SIGNALS, outcome, |s, stamp| {
        vec![
            stamp.rfc3339(),
            s.symbol.clone(),
            fixed(s.score, 1),
            fixed(s.momentum_core, 1),
            shown(s.vadr, 1),
            shown(s.spread_bps, 0),
            shown(s.depth_usd, 0),
            outcome.regime.name.to_string(),
            if s.fresh { "●" } else { "○" }.into(),
            venue(s),
            s.sources.to_string(),
        ]
    })
}

/// `warm_signals.csv`.
#[must_use]
pub fn warm_signals(outcome: &Outcome) -> String {
    table(&WARM_SIGNALS, outcome, |s, stamp| {
        vec![
            stamp.rfc3339(),
            s.symbol.clone(),
            fixed(s.score, 1),
            fixed(s.momentum_core, 1),
            s.cached.to_string(),
            outcome.regime.name.to_string(),
            venue(s),
            (s.ttl_remaining.0.max(0) / 1_000).to_string(),
        ]
    })
}

/// `premove.csv`. An exchange whose health nobody tells has a dash.
#[must_use]
pub fn premove(outcome: &Outcome, health: &BTreeMap<Venue, Health>) -> String {
    table(&PREMOVE, outcome, |s, stamp| {
        let health = s.venue.and_then(|v| health.get(&v));
        vec![
            stamp.rfc3339(),
            s.symbol.clone(),
            fixed(s.score, 1),
            s.premove_signal.as_str().into(),
            s.execution_risk.as_str().into(),
            health.map_or("-", |h| h.as_str()).into(),
            s.latency.map_or_else(|| "-".into(), |l| l.0.to_string()),
        ]
    })
}

fn venue(signal: &Signal) -> String {
    signal.venue.map_or_else(|| "-".into(), |v| v.to_string())
}

fn table<const N: usize>(
    header: &[&str; N],
    outcome: &Outcome,
    row: impl Fn(&Signal, Time) -> Vec<String>,
) -> String {
    let mut out = String::new();
    let mut line = |fields: &mut dyn Iterator<Item = &str>| {
        for (i, field) in fields.enumerate() {
            if i > 0 {
                out.push(',');
            }
            if field.contains(['"', ',', '\n', '\r']) {
                out.push('"');
                out.push_str(&field.replace('"', "\"\""));
                out.push('"');
            } else {
                out.push_str(field);
            }
        }
        out.push('\n');
    };
    line(&mut header.iter().copied());
    for signal in &outcome.passers {
        line(&mut row(signal, outcome.timestamp).iter().map(String::as_str));
    }
    out
}
