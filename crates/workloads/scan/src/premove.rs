//! Signs of a move to come, as far as data allow that need no key (section 5). What was not measured
//! gives no points, confirms nothing, and is told.

use serde::{Deserialize, Serialize};
use watchbell_core::{Millis, Time};

use crate::explain::PremoveShown;
use crate::gates::{self, Gate};
use crate::regime::RegimeName;

/// How much the signs weigh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// The market itself stands against an entry.
    Blocked,
    /// Nothing confirms them.
    Weak,
    /// Confirmed, or very many.
    Moderate,
    /// Confirmed, very many, and with the flow of orders.
    Strong,
}

/// What to do about a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Direction {
    /// Buy.
    Long,
    /// Nothing.
    Neutral,
}

/// How an order would fare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Risk {
    /// A narrow spread.
    Low,
    /// A wide one.
    Medium,
    /// A book that does not suffice.
    High,
}

impl Direction {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Long => "LONG",
            Self::Neutral => "NEUTRAL",
        }
    }
}

impl Risk {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High => "HIGH",
        }
    }
}

/// What was measured of a symbol beyond its bars and books. Nothing of it is ever assumed: what is
/// missing gives no points and is told (section 5.1).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// Points for what people say, as measured (section 7.3).
    pub social: Option<f64>,
    /// Funding rates of perpetual futures, over at least two exchanges.
    pub funding: Option<Funding>,
    /// Change of open interest that the price does not explain, in USD an hour.
    pub oi_residual_usd: Option<f64>,
    /// Flow into listed funds, 0 to 1.
    pub etf_tint: Option<f64>,
    /// Change of the reserves at exchanges over 7 days, in percent.
    pub reserves_pct: Option<f64>,
    /// Whales' composite, 0 to 1.
    pub whale: Option<f64>,
    /// Strength of a squeeze of supply, 0 to 1.
    pub supply: Option<f64>,
    /// Smart money, 0 to 1.
    pub smart_money: Option<f64>,
    /// Buying less selling beyond what the price explains.
    pub cvd: Option<Cvd>,
    /// Nearness of an event, 0 to 1.
    pub catalyst: Option<f64>,
    /// When the oldest of these was measured.
    pub oldest: Option<Time>,
}

/// Funding rates of a symbol across exchanges (section 5.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Funding {
    /// Deviations of the median rate now from its mean over 7 days.
    pub z: f64,
    /// The greatest distance of an exchange's rate from the median.
    pub deviation: f64,
    /// Whose rates: `okx-swap funding`.
    pub sources: Vec<String>,
}

/// Cumulative volume delta, without what the price explains (section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cvd {
    /// -1 to 1.
    pub residual: f64,
    /// Whether it is beyond chance.
    pub significant: bool,
}

/// What the scan itself knows of a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Seen {
    /// Quality as measured, 0 to 100.
    pub(crate) quality: Option<f64>,
    /// How narrow the bands are, 0 to 1.
    pub(crate) compression: Option<f64>,
    /// The last hour's value traded, times the usual.
    pub(crate) volume_ratio: Option<f64>,
    /// The last close, and the mean price of 24 hours.
    pub(crate) close: Option<f64>,
    pub(crate) vwap_24h: Option<f64>,
    /// When the oldest of the data was true.
    pub(crate) oldest: Option<Time>,
    /// Whether a gate other than score and VADR stands against an entry.
    pub(crate) blocked: bool,
}

/// The least of each confirmation (section 5.3).
const WHALE: f64 = 0.70;
const SUPPLY: f64 = 0.60;
/// A surge of volume that makes one confirmation enough in a volatile market.
const SURGE: f64 = 2.5;

/// Scores and confirms (sections 5.2 and 5.3).
pub(crate) fn judge(
    evidence: &Evidence,
    seen: &Seen,
    regime: RegimeName,
    now: Time,
) -> PremoveShown {
    let mut unavailable = Vec::new();
    let points = points(evidence, seen, &mut unavailable);
    let oldest = seen.oldest.into_iter().chain(evidence.oldest).min();
    let score = (points * (1.0 - penalty(oldest, now))).clamp(0.0, 100.0);

    let gates = confirmations(evidence, seen);
    let passed = gates.iter().filter(|g| g.passed == Some(true)).count();
    let surge = regime == RegimeName::Volatile && seen.volume_ratio.is_some_and(|r| r >= SURGE);
    let confirmed = passed >= if surge { 1 } else { 2 };
    let flow = evidence.cvd.is_some_and(|c| c.significant);
    let status = if seen.blocked {
        Status::Blocked
    } else if score >= 85.0 && confirmed && flow {
        Status::Strong
    } else if (score >= 75.0 && confirmed) || score >= 90.0 {
        Status::Moderate
    } else {
        Status::Weak
    };
    PremoveShown { score, status, gates, unavailable }
}

/// 40 for structure, 35 for behaviour, 25 for what is near: of what was measured.
fn points(evidence: &Evidence, seen: &Seen, unavailable: &mut Vec<&'static str>) -> f64 {
    let mut part = |name, value: Option<f64>, points: &dyn Fn(f64) -> f64| match value {
        Some(v) if v.is_finite() => points(v),
        _ => {
            unavailable.push(name);
            0.0
        }
    };
    let up_to = |max: f64, v: f64| v.clamp(0.0, max);
    let funding = evidence.funding.as_ref().map(|f| f.z);
    let cvd = evidence.cvd.map(|c| c.residual);
    let micro = seen.quality.map(|q| q / 100.0);
    part("funding", funding, &|z| up_to(7.0, 1.5 * z))
        + part("oi_residual", evidence.oi_residual_usd, &|v| up_to(4.0, v / 250_000.0))
        + part("etf_tint", evidence.etf_tint, &|v| up_to(4.0, 4.0 * v))
        + part("reserves", evidence.reserves_pct, &|v| up_to(8.0, -0.4 * v))
        + part("whale", evidence.whale, &|v| up_to(7.0, 7.0 * v))
        + part("microstructure", micro, &|m| up_to(10.0, 10.0 * m))
        + part("smart_money", evidence.smart_money, &|x| up_to(20.0, 20.0 * x))
        + part("cvd", cvd, &|x| up_to(15.0, 15.0 * x.abs()))
        + part("catalyst", evidence.catalyst, &|x| up_to(15.0, 15.0 * x))
        + part("compression", seen.compression, &|x| up_to(10.0, 10.0 * x))
}

/// Nothing up to two hours, a fifth from four on, linear between; the oldest data decide.
fn penalty(oldest: Option<Time>, now: Time) -> f64 {
    let (free, full) = (Millis::from_hours(2), Millis::from_hours(4));
    let age = oldest.map_or(Millis::ZERO, |t| now.since(t));
    let share = (age - free).as_secs_f64() / (full - free).as_secs_f64();
    0.2 * share.clamp(0.0, 1.0)
}

/// Funding, whales and supply. A negative deviation of funding, which squeezes who sold short, counts
/// where the price is not below its mean of the day.
fn confirmations(evidence: &Evidence, seen: &Seen) -> Vec<Gate> {
    let funding = evidence.funding.as_ref();
    let squeeze = seen.close.zip(seen.vwap_24h).is_some_and(|(close, vwap)| close >= vwap);
    let against = funding.and_then(|f| match f {
        f if f.deviation >= gates::FUNDING_DEVIATION => {
            (f.z < 0.0 && !squeeze).then_some("price below vwap")
        }
        _ => Some("exchanges agree"),
    });
    vec![
        gates::confirmation(
            "funding_divergence",
            funding.map(|f| f.z.abs()),
            gates::FUNDING_Z,
            against,
        ),
        gates::confirmation("whale_composite", evidence.whale, WHALE, None),
        gates::confirmation("supply_squeeze", evidence.supply, SUPPLY, None),
    ]
}

/// To buy where the composite is high, the last four hours rose and nothing blocks (section 5.5).
pub(crate) fn direction(composite: f64, r4h: Option<f64>, status: Option<Status>) -> Direction {
    let blocked = status.is_none_or(|s| s == Status::Blocked);
    if composite >= 70.0 && r4h.is_some_and(|r| r > 0.0) && !blocked {
        Direction::Long
    } else {
        Direction::Neutral
    }
}

/// How an order would fare: by the spread, and by what the gates of the book say.
pub(crate) fn risk(spread_bps: Option<f64>, micro_passed: bool) -> Risk {
    match spread_bps {
        Some(bps) if micro_passed && bps <= 25.0 => Risk::Low,
        Some(_) if micro_passed => Risk::Medium,
        _ => Risk::High,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Evidence {
        Evidence {
            social: None,
            funding: Some(Funding { z: 4.0, deviation: 0.001, sources: vec!["okx-swap".into()] }),
            oi_residual_usd: Some(500_000.0),
            etf_tint: Some(0.5),
            reserves_pct: Some(-10.0),
            whale: Some(0.8),
            supply: Some(0.7),
            smart_money: Some(0.5),
            cvd: Some(Cvd { residual: -0.6, significant: true }),
            catalyst: Some(0.4),
            oldest: None,
        }
    }

    fn seen() -> Seen {
        Seen { quality: Some(80.0), compression: Some(0.5), ..Seen::default() }
    }

    const NOW: Time = Time(1_000_000_000);

    /// Section 5.2.
    #[test]
    fn points_add_up_part_by_part() {
        let full = judge(&all(), &seen(), RegimeName::Normal, NOW);
        let parts = [6.0, 2.0, 2.0, 4.0, 5.6, 8.0, 10.0, 9.0, 6.0, 5.0];
        assert!((full.score - parts.iter().sum::<f64>()).abs() < 1e-12, "{}", full.score);
        assert!(full.unavailable.is_empty());

        let most = Evidence {
            funding: Some(Funding { z: 99.0, deviation: 1.0, sources: vec![] }),
            oi_residual_usd: Some(1e12),
            etf_tint: Some(9.0),
            reserves_pct: Some(-99.0),
            whale: Some(9.0),
            smart_money: Some(9.0),
            cvd: Some(Cvd { residual: 9.0, significant: true }),
            catalyst: Some(9.0),
            ..all()
        };
        let best = Seen { quality: Some(100.0), compression: Some(1.0), ..seen() };
        assert_eq!(judge(&most, &best, RegimeName::Normal, NOW).score, 100.0);
    }

    /// Section 5.1: what was not measured is told and gives nothing.
    #[test]
    fn what_is_missing_is_told_and_gives_nothing() {
        let shown = judge(&Evidence::default(), &seen(), RegimeName::Normal, NOW);
        assert!((shown.score - 13.0).abs() < 1e-12);
        assert_eq!(
            shown.unavailable,
            [
                "funding",
                "oi_residual",
                "etf_tint",
                "reserves",
                "whale",
                "smart_money",
                "cvd",
                "catalyst"
            ]
        );
        assert_eq!(shown.status, Status::Weak);
        for gate in &shown.gates {
            assert_eq!((gate.passed, gate.reason.as_str()), (Some(false), "unavailable"));
        }
        let nothing = judge(&Evidence::default(), &Seen::default(), RegimeName::Normal, NOW);
        assert_eq!((nothing.score, nothing.unavailable.len()), (0.0, 10));
        let nan = Evidence { whale: Some(f64::NAN), ..Evidence::default() };
        let shown = judge(&nan, &seen(), RegimeName::Normal, NOW);
        assert!((shown.score - 13.0).abs() < 1e-12);
        assert!(shown.gates.iter().all(|g| g.passed == Some(false)));
    }

    /// Section 5.2: a fifth at most for age.
    #[test]
    fn age_takes_a_fifth_at_most() {
        for (minutes, share) in [(0, 0.0), (120, 0.0), (180, 0.1), (240, 0.2), (6_000, 0.2)] {
            let oldest = Some(NOW - Millis::from_mins(minutes));
            assert!((penalty(oldest, NOW) - share).abs() < 1e-12, "{minutes}");
        }
        let old = Evidence { oldest: Some(NOW - Millis::from_hours(5)), ..Evidence::default() };
        let shown = judge(&old, &seen(), RegimeName::Normal, NOW);
        assert!((shown.score - 13.0 * 0.8).abs() < 1e-12);
    }

    /// Section 5.3.
    #[test]
    fn two_of_three_confirm_and_one_in_a_volatile_surge() {
        let funding = |z: f64| Some(Funding { z, deviation: 0.001, sources: vec![] });
        let passed = |evidence: &Evidence, seen: &Seen| {
            judge(evidence, seen, RegimeName::Normal, NOW)
                .gates
                .iter()
                .map(|g| g.passed == Some(true))
                .collect::<Vec<_>>()
        };
        let at = |close: f64| Seen { close: Some(close), vwap_24h: Some(100.0), ..seen() };
        for (z, close, confirmed) in
            [(2.0, 90.0, true), (1.999, 110.0, false), (-2.0, 100.0, true), (-2.0, 99.9, false)]
        {
            let evidence = Evidence { funding: funding(z), ..Evidence::default() };
            assert_eq!(passed(&evidence, &at(close)), [confirmed, false, false], "{z} {close}");
        }
        let edges = Evidence { whale: Some(0.70), supply: Some(0.60), ..Evidence::default() };
        assert_eq!(passed(&edges, &seen()), [false, true, true]);
        let agree = Some(Funding { z: 3.0, deviation: 0.00001, sources: vec![] });
        assert_eq!(passed(&Evidence { funding: agree, ..edges }, &seen()), [false, true, true]);

        // 92.4 points: confirmed they are strong, with the flow; unconfirmed moderate by themselves.
        let strong = Evidence {
            smart_money: Some(1.0),
            cvd: Some(Cvd { residual: 1.0, significant: true }),
            catalyst: Some(1.0),
            etf_tint: Some(1.0),
            ..all()
        };
        let best = Seen { quality: Some(100.0), compression: Some(1.0), ..seen() };
        let status =
            |evidence: &Evidence, seen: &Seen, regime| judge(evidence, seen, regime, NOW).status;
        assert_eq!(status(&strong, &best, RegimeName::Normal), Status::Strong);
        let no_flow =
            Evidence { cvd: Some(Cvd { residual: 1.0, significant: false }), ..strong.clone() };
        assert_eq!(status(&no_flow, &best, RegimeName::Normal), Status::Moderate);
        let one = Evidence { whale: Some(0.1), supply: None, ..strong.clone() };
        let surge = Seen { volume_ratio: Some(2.5), ..best };
        assert_eq!(status(&one, &surge, RegimeName::Normal), Status::Weak);
        assert_eq!(status(&one, &surge, RegimeName::Volatile), Status::Strong);
        let calm = Seen { volume_ratio: Some(2.499), ..best };
        assert_eq!(status(&one, &calm, RegimeName::Volatile), Status::Weak);
        let blocked = Seen { blocked: true, ..best };
        assert_eq!(status(&strong, &blocked, RegimeName::Normal), Status::Blocked);
    }

    /// Section 5.5.
    #[test]
    fn direction_and_risk() {
        for (composite, r4h, status, long) in [
            (70.0, Some(0.001), Some(Status::Weak), true),
            (69.999, Some(0.001), Some(Status::Strong), false),
            (99.0, Some(0.0), Some(Status::Strong), false),
            (99.0, None, Some(Status::Strong), false),
            (99.0, Some(0.1), Some(Status::Blocked), false),
            (99.0, Some(0.1), None, false),
        ] {
            assert_eq!(direction(composite, r4h, status) == Direction::Long, long, "{composite}");
        }
        for (bps, passed, expected) in [
            (Some(25.0), true, Risk::Low),
            (Some(25.001), true, Risk::Medium),
            (Some(1.0), false, Risk::High),
            (None, true, Risk::High),
        ] {
            assert_eq!(risk(bps, passed), expected, "{bps:?}");
        }
    }
}
