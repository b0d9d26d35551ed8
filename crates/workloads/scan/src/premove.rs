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
        f if !(f.deviation >= gates::FUNDING_DEVIATION) => Some("exchanges agree"),
        f if f.z < 0.0 && !squeeze => Some("price below vwap"),
        _ => None,
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
