//! What `explain.json` holds: every symbol that was scanned, each gate with value, threshold and
//! verdict (section 9.5). The fields are in the order in which they are written.

use std::collections::BTreeMap;

use serde::Serialize;
use watchbell_core::Time;
use watchbell_venues::native::Venue;

use crate::decimal;
use crate::gates::Gate;
use crate::regime::{Blend, RegimeName, RegimeSource};
use crate::settings::{Job, Settings};

/// Whether a symbol is among the signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It is.
    Included,
    /// It is not.
    Excluded,
}

/// A value of each factor; none where it could not be computed.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct FactorValues {
    /// Momentum core, never altered.
    pub momentum: Option<f64>,
    /// Technical.
    pub technical: Option<f64>,
    /// Volume.
    pub volume: Option<f64>,
    /// Quality.
    pub quality: Option<f64>,
}

/// The factors of a symbol on their way to the score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Factors {
    /// As measured, 0 to 100.
    pub raw: FactorValues,
    /// Without what the factors before explain, 0 to 100.
    pub residual: FactorValues,
    /// How they are weighed.
    pub weights: Blend,
    /// Residual times weight.
    pub contribution: FactorValues,
    /// Whether there were enough symbols to take the residuals; the raw values otherwise.
    pub orthogonalised: bool,
    /// What is odd about them: `illiquid`.
    pub flags: Vec<&'static str>,
}

/// The activity of the last bar beside the usual.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VadrShown {
    /// The ratio; the last good one where it is frozen.
    pub value: Option<f64>,
    /// The 80th percentile of the usual.
    pub p80: Option<f64>,
    /// The tier's least.
    pub tier_min: f64,
    /// What was required.
    pub required: Option<f64>,
    /// Which term of the requirement was the greatest.
    pub binding: Option<&'static str>,
    /// Valid bars in the window.
    pub bars: usize,
    /// Whether it is not of now and cannot pass.
    pub frozen: bool,
}

/// Whether the book of an exchange could be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VenueChecked {
    /// Whose.
    pub venue: Venue,
    /// Whether it passed every check.
    pub ok: bool,
    /// Why not, the first reason; `ok` otherwise.
    pub reason: String,
}

/// What the book of the chosen exchange says.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Microstructure {
    /// The exchange; none when none answered.
    pub venue: Option<Venue>,
    /// What its book is quoted in.
    pub quote: Option<&'static str>,
    /// Spread in hundredths of a percent of the middle.
    pub spread_bps: Option<f64>,
    /// Value within 2 % of the middle, both sides, in units of quote.
    pub depth_usd: Option<f64>,
    /// That of who buys.
    pub bid_depth: Option<f64>,
    /// That of who sells.
    pub ask_depth: Option<f64>,
    /// Whether the book ends before 2 %, so that the depth is a lower bound.
    pub truncated: bool,
    /// Age of the book at the decision.
    pub age_ms: Option<i64>,
    /// Every configured exchange, in order.
    pub venues_checked: Vec<VenueChecked>,
}

/// Signs of a move to come.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PremoveShown {
    /// 0 to 100, of what could be measured.
    pub score: f64,
    /// How much it weighs.
    pub status: crate::premove::Status,
    /// The three confirmations.
    pub gates: Vec<Gate>,
    /// What could not be measured: it gave no points.
    pub unavailable: Vec<&'static str>,
}

/// The strongest reasons for and against, three each at most.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Attribution {
    /// For.
    pub top_inclusion: Vec<&'static str>,
    /// Against.
    pub top_exclusion: Vec<&'static str>,
}

/// Points for what people say of a symbol, added last and at most 10 (section 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(into = "serde_json::Value")]
pub enum Social {
    /// Nobody measured it; 0 points.
    Unavailable,
    /// Points, 0 to 10.
    Points(f64),
}

impl Social {
    /// The most that it can add.
    pub const CAP: f64 = 10.0;

    /// Points out of a measurement, within 0 and 10; what is no number is none.
    #[must_use]
    pub fn of(measured: Option<f64>) -> Self {
        match measured.filter(|v| !v.is_nan()) {
            Some(v) => Self::Points(v.clamp(0.0, Self::CAP)),
            None => Self::Unavailable,
        }
    }

    /// What it adds.
    #[must_use]
    pub const fn points(self) -> f64 {
        match self {
            Self::Unavailable => 0.0,
            Self::Points(p) => p,
        }
    }
}

impl From<Social> for serde_json::Value {
    fn from(social: Social) -> Self {
        match social {
            Social::Unavailable => "unavailable".into(),
            Social::Points(p) => p.into(),
        }
    }
}

/// Why a symbol is in or out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// `BTC/USD`.
    pub symbol: String,
    /// Its place by score, then symbol.
    pub rank: u32,
    /// In or out.
    pub decision: Decision,
    /// Base score and social points, 0 to 110; none when a factor is missing.
    pub score: Option<f64>,
    /// What the gate judges, 0 to 100.
    pub base_score: Option<f64>,
    /// What people say.
    pub social: Social,
    /// 0 to 100; 50 is flat.
    pub momentum_core: Option<f64>,
    /// What the score is made of.
    pub factors: Factors,
    /// The activity of the last bar.
    pub vadr: VadrShown,
    /// Liquidity tier by the value traded.
    pub tier: &'static str,
    /// The book.
    pub microstructure: Microstructure,
    /// All gates, in order.
    pub gates: Vec<Gate>,
    /// Whether the score gate passed.
    pub gate_passed: bool,
    /// Whether every enforced gate passed.
    pub all_gates_pass: bool,
    /// The first failure's kind, or `all_gates_passed`: what rejections are counted by.
    pub primary_reason: String,
    /// One line out of the gates' results.
    pub reason: String,
    /// Whether the data were fresh.
    pub fresh: bool,
    /// The distinct sources of data that went into it.
    pub sources: Vec<String>,
    /// Signs of a move to come; none where they were not looked at.
    pub premove: Option<PremoveShown>,
    /// For and against.
    pub attribution: Attribution,
}

impl Explanation {
    /// One of its gates.
    #[must_use]
    pub fn gate(&self, name: &str) -> Option<&Gate> {
        self.gates.iter().find(|g| g.name == name)
    }

    /// Whether the book is deep enough: the `[Depth]` column of a console.
    #[must_use]
    pub fn deep(&self) -> bool {
        self.gate("depth").is_some_and(|g| g.passed == Some(true))
    }

    /// `ENTRY CLEARED` or `ENTRY BLOCKED` and why, in a line (section 6.2).
    #[must_use]
    pub fn verdict(&self) -> String {
        let enforced = self.gates.iter().filter(|g| g.enforced).count();
        let failed: Vec<&Gate> = self.gates.iter().filter(|g| g.blocks()).collect();
        let symbol = &self.symbol;
        match failed.first() {
            None => format!(
                "✅ ENTRY CLEARED — {symbol} (score {}, {enforced}/{enforced} gates passed)",
                decimal::shown(self.score, 1),
            ),
            Some(first) => {
                let (n, s) = (failed.len(), if failed.len() == 1 { "" } else { "s" });
                format!("❌ ENTRY BLOCKED — {symbol} ({n} failure{s}: {})", first.reason)
            }
        }
    }
}

/// The thresholds of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Thresholds {
    /// Least score.
    pub entry_threshold: f64,
    /// Least VADR of any tier.
    pub vadr_minimum: f64,
    /// Widest spread of any tier, in hundredths of a percent.
    pub spread_maximum: f64,
    /// Least depth of any tier, in USD.
    pub depth_minimum: f64,
}

impl From<&Settings> for Thresholds {
    fn from(settings: &Settings) -> Self {
        let of = |f: fn(&crate::settings::Tier) -> f64| settings.tiers.iter().map(f);
        Self {
            entry_threshold: settings.score_min,
            vadr_minimum: settings
                .vadr_floor
                .unwrap_or_else(|| of(|t| t.vadr_min).fold(f64::INFINITY, f64::min)),
            spread_maximum: settings
                .spread_cap
                .map_or_else(|| of(|t| t.spread_max.0).fold(0.0, f64::max), |cap| cap.0),
            depth_minimum: settings
                .depth_floor
                .unwrap_or_else(|| of(|t| t.depth_min).fold(f64::INFINITY, f64::min)),
        }
    }
}

/// The weights of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Weights {
    /// Of the factors.
    #[serde(flatten)]
    pub blend: Blend,
    /// The most that social points add.
    pub social_cap: f64,
}

/// What a run was made by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Meta {
    /// Hash of the configuration.
    pub config_hash: String,
    /// Hash of the symbols that were scanned.
    pub universe_hash: String,
    /// Watchbell's version.
    pub version: String,
    /// Where the regime comes from.
    pub regime_source: RegimeSource,
    /// Whether the universe is that of an earlier run, for the exchange did not answer.
    pub stale_universe: bool,
}

/// Counts over the symbols.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Summary {
    /// Symbols scanned.
    pub scanned: usize,
    /// Symbols that passed every enforced gate.
    pub passed: usize,
    /// The others, by primary reason.
    pub rejections: BTreeMap<String, usize>,
}

/// `explain.json`. `H` is the health of the exchanges, as its keeper serialises it.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainFile<'a, H> {
    /// The run's.
    pub timestamp: Time,
    /// Which scan.
    pub job_type: Job,
    /// The regime that weighed the factors.
    pub regime: RegimeName,
    /// Symbols that were scanned.
    pub candidates: usize,
    /// Each of them.
    pub explanations: &'a [Explanation],
    /// What the run asked.
    pub gates: Thresholds,
    /// How it weighed.
    pub weights: Weights,
    /// What it was made by.
    pub meta: Meta,
    /// How the exchanges did.
    pub health: H,
    /// Counts.
    pub summary: &'a Summary,
}
