//! Signs of a move to come, as far as data allow that need no key (section 5).

use serde::{Deserialize, Serialize};
use watchbell_core::Time;

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
