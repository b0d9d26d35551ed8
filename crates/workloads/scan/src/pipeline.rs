//! A scan from what was read to what it tells: score every symbol against the others, ask for the
//! books anew of those that may enter, and judge.

use std::collections::BTreeMap;

use watchbell_core::{Millis, Time};
use watchbell_venues::native::Venue;

use crate::explain::{Explanation, Summary};
use crate::input::{Bars, BookAnswer, Member, SymbolData};
use crate::premove;
use crate::regime::{RegimeInUse, RegimeName};
use crate::settings::Settings;

/// The symbols after the first pass.
#[derive(Debug, Clone)]
pub struct Scored {
    settings: Settings,
    regime: RegimeInUse,
    symbols: Vec<SymbolData>,
    now: Time,
}

/// A symbol that passed, as the tables of signals print it.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    /// `BTC/USD`.
    pub symbol: String,
    /// Base score and social points.
    pub score: f64,
    /// 0 to 100.
    pub momentum_core: f64,
    /// The ratio of the last bar's activity to the usual.
    pub vadr: Option<f64>,
    /// Hundredths of a percent.
    pub spread_bps: Option<f64>,
    /// USD, or USDT where the book is quoted in it.
    pub depth_usd: Option<f64>,
    /// Whether the data were fresh; a signal may not be when guards are not enforced.
    pub fresh: bool,
    /// The exchange that was chosen.
    pub venue: Option<Venue>,
    /// Distinct sources of data.
    pub sources: usize,
    /// Whether the primary's bars came out of the cache.
    pub cached: bool,
    /// What is left of the time to live of the oldest data.
    pub ttl_remaining: Millis,
    /// To buy, or not.
    pub premove_signal: premove::Direction,
    /// How an order would fare.
    pub execution_risk: premove::Risk,
    /// The middle of the latencies of the chosen exchange's books in this run.
    pub latency: Option<Millis>,
}

/// What a scan tells.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// When the first pass was, to the second. Whoever runs the scan puts the start of the run here.
    pub timestamp: Time,
    /// When it was decided.
    pub decided_at: Time,
    /// The regime that weighed the factors.
    pub regime: RegimeName,
    /// Every symbol, by score, then symbol; those without a score last.
    pub explanations: Vec<Explanation>,
    /// Those that passed, by score, then symbol; as many as the table has rows.
    pub passers: Vec<Signal>,
    /// Counts.
    pub summary: Summary,
}

/// Whose hourly bars are still to be read, by symbol: of the exchange whose book is chosen where it is
/// not the primary.
#[must_use]
pub fn wants_bars(symbols: &[SymbolData], settings: &Settings, now: Time) -> Vec<(Member, Venue)> {
    let _unused = (symbols, settings, now);
    Vec::new()
}

/// The first pass.
#[must_use]
pub fn score(
    symbols: Vec<SymbolData>,
    settings: &Settings,
    regime: &RegimeInUse,
    now: Time,
) -> Scored {
    Scored { settings: settings.clone(), regime: regime.clone(), symbols, now }
}

impl Scored {
    /// The symbols whose books are to be read again, right before the decision (section 4.3).
    #[must_use]
    pub fn wants_final_book(&self) -> Vec<Member> {
        Vec::new()
    }

    /// As [`wants_bars`], by the final books.
    #[must_use]
    pub fn wants_bars(
        &self,
        finals: &BTreeMap<String, Vec<BookAnswer>>,
        at: Time,
    ) -> Vec<(Member, Venue)> {
        let _unused = (&self.settings, &self.regime, &self.symbols, self.now, finals, at);
        Vec::new()
    }

    /// Adds hourly bars that were read after the first pass.
    pub fn add_bars(&mut self, symbol: &str, bars: Bars) {
        if let Some(s) = self.symbols.iter_mut().find(|s| s.member.symbol == symbol) {
            s.hours.push(bars);
        }
    }
}

/// The verdicts.
#[must_use]
pub fn judge(
    scored: Scored,
    finals: BTreeMap<String, Vec<BookAnswer>>,
    decided_at: Time,
) -> Outcome {
    let _unused = finals;
    Outcome {
        timestamp: scored.now.floor(Millis::from_secs(1)),
        decided_at,
        regime: scored.regime.name,
        explanations: Vec::new(),
        passers: Vec::new(),
        summary: Summary::default(),
    }
}
