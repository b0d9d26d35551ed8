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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use watchbell_core::Millis;

    use super::*;
    use crate::explain::{Summary, Thresholds};
    use crate::premove::{Direction, Risk};
    use crate::regime::RegimeInUse;
    use crate::settings::{Job, Settings};

    fn signal(symbol: &str, score: f64) -> Signal {
        Signal {
            symbol: symbol.into(),
            score,
            momentum_core: 65.25,
            vadr: Some(2.05),
            spread_bps: Some(14.5),
            depth_usd: Some(149_999.5),
            fresh: true,
            venue: Some(Venue::Kraken),
            sources: 3,
            cached: true,
            ttl_remaining: Millis(1_499_999),
            premove_signal: Direction::Long,
            execution_risk: Risk::Low,
            latency: Some(Millis(142)),
        }
    }

    fn outcome(passers: Vec<Signal>) -> Outcome {
        let at = Time::parse("2025-09-07T11:15:13Z").unwrap();
        Outcome {
            timestamp: at,
            decided_at: at,
            job: Job::Hot,
            regime: RegimeInUse::at(None, at),
            thresholds: Thresholds::from(&Settings::hot()),
            explanations: vec![],
            passers,
            summary: Summary::default(),
        }
    }

    /// Section 9.5, and the founding document's sample.
    #[test]
    fn rows_are_as_the_specification_writes_them() {
        let stale = Signal { fresh: false, venue: Some(Venue::Okx), ..signal("ETH/USD", 82.1) };
        let outcome = outcome(vec![signal("BTC/USD", 78.45), stale]);
        assert_eq!(
            signals(&outcome),
            "timestamp,symbol,score,momentum_core,vadr,spread_bps,depth_usd,regime,fresh,venue,sources\n\
             2025-09-07T11:15:13Z,BTC/USD,78.5,65.3,2.1,15,150000,normal,●,kraken,3\n\
             2025-09-07T11:15:13Z,ETH/USD,82.1,65.3,2.1,15,150000,normal,○,okx,3\n"
        );
        assert_eq!(
            warm_signals(&outcome).lines().nth(1),
            Some("2025-09-07T11:15:13Z,BTC/USD,78.5,65.3,true,normal,kraken,1499")
        );
        let health = BTreeMap::from([(Venue::Kraken, Health::Healthy)]);
        assert_eq!(
            premove(&outcome, &health),
            "timestamp,symbol,score,premove_signal,execution_risk,venue_health,latency_ms\n\
             2025-09-07T11:15:13Z,BTC/USD,78.5,LONG,LOW,HEALTHY,142\n\
             2025-09-07T11:15:13Z,ETH/USD,82.1,LONG,LOW,-,142\n"
        );
    }

    #[test]
    fn no_rows_still_have_a_header() {
        let none = outcome(vec![]);
        for (text, header) in [
            (signals(&none), SIGNALS.join(",")),
            (warm_signals(&none), WARM_SIGNALS.join(",")),
            (premove(&none, &BTreeMap::new()), PREMOVE.join(",")),
        ] {
            assert_eq!(text, header + "\n");
        }
    }

    proptest! {
        /// What is written reads back, whatever a symbol is called.
        #[test]
        fn a_table_parses_back_to_the_same_values(
            rows in prop::collection::vec(("[A-Z\",\n é/]{1,8}", 0.0_f64..110.0, 0.0_f64..1e9), 0..8),
        ) {
            let passers: Vec<Signal> = rows
                .iter()
                .map(|(name, score, depth)| Signal { depth_usd: Some(*depth), ..signal(name, *score) })
                .collect();
            let outcome = outcome(passers);
            let text = signals(&outcome);
            let mut reader = ::csv::Reader::from_reader(text.as_bytes());
            prop_assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>(), SIGNALS.to_vec());
            let read: Vec<::csv::StringRecord> = reader.records().map(Result::unwrap).collect();
            prop_assert_eq!(read.len(), rows.len());
            for (record, (name, score, depth)) in read.iter().zip(&rows) {
                prop_assert_eq!(&record[1], name.as_str());
                prop_assert!((record[2].parse::<f64>().unwrap() - score).abs() <= 0.050_001);
                prop_assert!((record[6].parse::<f64>().unwrap() - depth).abs() <= 0.500_001);
                prop_assert_eq!(record.len(), SIGNALS.len());
            }
        }
    }
}
