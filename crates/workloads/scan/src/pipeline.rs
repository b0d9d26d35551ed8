//! A scan from what was read to what it tells: score every symbol against the others, ask for the
//! books anew of those that may enter, and judge.
//!
//! ```text
//! wants_bars ──▶ score ──▶ Scored::wants_final_book ──▶ Scored::wants_bars ──▶ judge ──▶ Outcome
//! ```
//!
//! Nothing here reads a clock or a network: the same input gives the same bytes.

use std::collections::BTreeMap;

use watchbell_core::{Millis, Time};
use watchbell_venues::native::{Bar, Venue};

use crate::bars;
use crate::explain::{
    Decision, ExplainFile, Explanation, Meta, Social, Summary, Thresholds, Weights,
};
use crate::factors::{self, RESIDUAL_MIN, Row, Volume};
use crate::gates;
use crate::indicators;
use crate::input::{Bars, BookAnswer, Member, SymbolData};
use crate::micro::{self, Books};
use crate::momentum::{self, Inputs};
use crate::premove::{Direction, Risk};
use crate::regime::{RegimeInUse, RegimeName};
use crate::settings::{Job, Settings};
use crate::vadr;
use crate::verdict::verdict;

/// The symbols after the first pass.
#[derive(Debug, Clone)]
pub struct Scored {
    pub(crate) settings: Settings,
    pub(crate) regime: RegimeInUse,
    /// Ascending by symbol.
    symbols: Vec<Candidate>,
    now: Time,
}

/// A symbol after the first pass.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) data: SymbolData,
    pub(crate) measured: Measured,
    /// Momentum, technical, volume, quality; none where it could not be computed.
    pub(crate) raw: [Option<f64>; 4],
    /// None when a factor is missing.
    pub(crate) residual: Option<Row>,
    pub(crate) orthogonalised: bool,
    pub(crate) base: Option<f64>,
    /// Why a factor is missing: what the data gate says.
    pub(crate) missing: Option<String>,
}

/// What the primary exchange's bars say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    pub(crate) end: Option<Time>,
    pub(crate) close: Option<f64>,
    pub(crate) atr_1h: Option<f64>,
    pub(crate) rsi_4h: Option<f64>,
    pub(crate) r4h: Option<f64>,
    pub(crate) acceleration: Option<f64>,
    pub(crate) return_24h_pct: Option<f64>,
    pub(crate) momentum: Option<f64>,
    pub(crate) technical: Option<f64>,
    pub(crate) volume: Option<Volume>,
    pub(crate) vwap_24h: Option<f64>,
    pub(crate) compression: Option<f64>,
}

impl Measured {
    fn of(hours: &[Bar], settings: &Settings, regime: RegimeName, now: Time) -> Self {
        let Some(last) = hours.last() else { return Self::default() };
        let fours = bars::group(hours, 4);
        let fresh = bars::age(hours, now).is_some_and(|age| age <= gates::AGE_MAX);
        let inputs = Inputs::of(hours, &fours, fresh);
        let day = bars::close_before(hours, 24);
        Self {
            end: bars::end(hours),
            close: Some(last.close),
            atr_1h: indicators::atr(hours),
            rsi_4h: indicators::rsi(&fours),
            r4h: inputs.returns[1],
            acceleration: momentum::acceleration(hours),
            return_24h_pct: day.map(|then| 100.0 * (last.close / then - 1.0)),
            momentum: inputs.core(momentum::weights(regime)),
            technical: factors::technical(&fours),
            volume: factors::volume(hours),
            vwap_24h: factors::vwap_24h(hours),
            compression: settings.premove.then(|| indicators::compression(hours)).flatten(),
        }
    }
}

/// Whose hourly bars are still to be read, by symbol: of the exchange whose book is chosen where it is
/// not one whose bars are there.
#[must_use]
pub fn wants_bars(symbols: &[SymbolData], settings: &Settings, now: Time) -> Vec<(Member, Venue)> {
    let wanted = symbols.iter().filter_map(|s| {
        let tier = settings.tier(s.member.adv_usd);
        lacks_bars(s, &micro::choose(&s.books, settings, tier, at(settings, now)), settings)
    });
    by_rank(wanted.collect())
}

/// In a scan that keeps cached books their age is judged at once; else only of the final ones.
pub(crate) fn at(settings: &Settings, now: Time) -> Option<Time> {
    settings.late_fill_max.is_none().then_some(now)
}

fn lacks_bars(data: &SymbolData, books: &Books, settings: &Settings) -> Option<(Member, Venue)> {
    let venue = books.chosen.as_ref()?.venue;
    let there = |venue: Venue| data.hours.iter().any(|h| h.venue == venue);
    // Without those of the primary there is no momentum, and nothing else will help.
    let scored = settings.venues.first().is_some_and(|primary| there(*primary));
    (scored && !there(venue)).then(|| (data.member.clone(), venue))
}

fn by_rank(mut wanted: Vec<(Member, Venue)>) -> Vec<(Member, Venue)> {
    wanted.sort_by(|(a, _), (b, _)| (a.rank, &a.symbol).cmp(&(b.rank, &b.symbol)));
    wanted
}

/// The first pass: momentum, factors, residuals across the symbols, and the base score.
#[must_use]
pub fn score(
    mut symbols: Vec<SymbolData>,
    settings: &Settings,
    regime: &RegimeInUse,
    now: Time,
) -> Scored {
    symbols.sort_by(|a, b| a.member.symbol.cmp(&b.member.symbol));
    let mut symbols: Vec<Candidate> =
        symbols.into_iter().map(|data| candidate(data, settings, regime.name, now)).collect();

    let complete: Vec<(usize, Row)> =
        symbols.iter().enumerate().filter_map(|(i, c)| Some((i, complete(c.raw)?))).collect();
    let rows: Vec<Row> = complete.iter().map(|(_, row)| *row).collect();
    let enough = rows.len() >= RESIDUAL_MIN;
    let residuals =
        if enough { factors::residuals(&rows, settings.restore_dispersion) } else { rows };
    let weights = regime.blend.weights();
    for ((i, _), residual) in complete.iter().zip(residuals) {
        let c = &mut symbols[*i];
        c.residual = Some(residual);
        c.orthogonalised = enough;
        c.base = Some(composite(residual, weights));
    }
    Scored { settings: settings.clone(), regime: regime.clone(), symbols, now }
}

/// The weighted sum of the factors, 0 to 100 (section 7.2).
fn composite(row: Row, weights: [f64; 4]) -> f64 {
    row.iter().zip(weights).map(|(v, w)| v * w).sum::<f64>().clamp(0.0, 100.0)
}

fn complete(raw: [Option<f64>; 4]) -> Option<Row> {
    let [Some(m), Some(t), Some(v), Some(q)] = raw else { return None };
    Some([m, t, v, q])
}

/// Bars of a symbol at an exchange; what a candidate holds of them is checked and closed.
pub(crate) fn hours(data: &SymbolData, venue: Venue) -> Option<&Bars> {
    data.hours.iter().find(|h| h.venue == venue)
}

/// Keeps what was closed when it was fetched, or says why nothing is computed out of it.
fn checked(mut bars: Bars) -> Result<Bars, String> {
    let closed = bars::closed(&bars.bars, bars.fetched_at).len();
    bars.bars.truncate(closed);
    match bars::check(&bars.bars) {
        Err(bad) => Err(format!("candles: {bad}")),
        Ok(()) if bars.bars.is_empty() => Err("candles: none".into()),
        Ok(()) => Ok(bars),
    }
}

pub(crate) fn primary<'a>(data: &'a SymbolData, settings: &Settings) -> Option<&'a Bars> {
    settings.venues.first().and_then(|venue| hours(data, *venue))
}

fn candidate(
    mut data: SymbolData,
    settings: &Settings,
    regime: RegimeName,
    now: Time,
) -> Candidate {
    let mut bad = None;
    for bars in std::mem::take(&mut data.hours) {
        let venue = bars.venue;
        match checked(bars) {
            Ok(bars) => data.hours.push(bars),
            Err(why) if settings.venues.first() == Some(&venue) => bad = Some(why),
            // Whoever chooses that exchange finds no bars of it, and says so.
            Err(_) => {}
        }
    }
    let tier = settings.tier(data.member.adv_usd);
    let books = micro::choose(&data.books, settings, tier, at(settings, now));
    let bars = primary(&data, settings);
    let measured =
        bars.map_or_else(Measured::default, |b| Measured::of(&b.bars, settings, regime, now));
    let chosen = books.chosen.as_ref();
    let quality = chosen.and_then(|chosen| {
        let m = chosen.measures.ok()?;
        let vadr = hours(&data, chosen.venue).map(|b| vadr::measure(&b.bars, now));
        Some(factors::quality(m.depth(), m.spread.0, vadr.as_ref(), tier))
    });
    let raw = [measured.momentum, measured.technical, measured.volume.map(|v| v.score), quality];
    let missing = if books.empty {
        Some("empty_book".into())
    } else if bars.is_none() {
        let told = || data.trouble.iter().find(|t| t.starts_with("candles:")).cloned();
        Some(bad.or_else(told).unwrap_or_else(|| "candles".into()))
    } else if measured.momentum.is_none() {
        Some("momentum_unavailable".into())
    } else if chosen.is_none() {
        Some("no_native_book".into())
    } else if chosen.is_some_and(|c| c.measures.is_err()) {
        Some("book: invalid_book".into())
    } else {
        let names = ["momentum", "technical", "volume", "quality"];
        let absent = names.into_iter().zip(raw).find(|(_, v)| v.is_none());
        absent.map(|(name, _)| format!("factor_missing:{name}"))
    };
    // What is excluded from the run has no part in the others' scores either.
    let raw = if books.empty { [None; 4] } else { raw };
    Candidate { data, measured, raw, residual: None, orthogonalised: false, base: None, missing }
}

impl Scored {
    /// The symbols whose books are to be read again, right before the decision: those that reach the
    /// threshold, by rank. None in a scan that enters nothing at once (section 4.3).
    #[must_use]
    pub fn wants_final_book(&self) -> Vec<Member> {
        let mut members: Vec<Member> =
            self.symbols.iter().filter(|c| self.near(c)).map(|c| c.data.member.clone()).collect();
        members.sort_by(|a, b| (a.rank, &a.symbol).cmp(&(b.rank, &b.symbol)));
        members
    }

    /// Whether a symbol may enter, so that its book must be of now.
    pub(crate) fn near(&self, c: &Candidate) -> bool {
        self.settings.late_fill_max.is_some()
            && c.base.is_some_and(|base| base >= self.settings.score_min)
    }

    /// As [`wants_bars`], by the final books.
    #[must_use]
    pub fn wants_bars(
        &self,
        finals: &BTreeMap<String, Vec<BookAnswer>>,
        at: Time,
    ) -> Vec<(Member, Venue)> {
        let wanted = self.symbols.iter().filter_map(|c| {
            let books = finals.get(&c.data.member.symbol)?;
            let tier = self.settings.tier(c.data.member.adv_usd);
            lacks_bars(
                &c.data,
                &micro::choose(books, &self.settings, tier, Some(at)),
                &self.settings,
            )
        });
        by_rank(wanted.collect())
    }

    /// Adds hourly bars that were read after the first pass, if they can be reckoned with. No score
    /// changes by it.
    pub fn add_bars(&mut self, symbol: &str, bars: Bars) {
        let at = self.symbols.binary_search_by(|c| c.data.member.symbol.as_str().cmp(symbol));
        if let (Ok(i), Ok(bars)) = (at, checked(bars)) {
            self.symbols[i].data.hours.push(bars);
        }
    }
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
    pub premove_signal: Direction,
    /// How an order would fare.
    pub execution_risk: Risk,
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
    /// Which scan.
    pub job: Job,
    /// The regime that weighed the factors.
    pub regime: RegimeInUse,
    /// What was asked.
    pub thresholds: Thresholds,
    /// Every symbol, by score, then symbol; those without a score last.
    pub explanations: Vec<Explanation>,
    /// Those that passed, by score, then symbol; as many as the table has rows.
    pub passers: Vec<Signal>,
    /// Counts.
    pub summary: Summary,
}

impl Outcome {
    /// `explain.json`, with what the runner alone knows.
    #[must_use]
    pub fn explain<H>(&self, meta: Meta, health: H) -> ExplainFile<'_, H> {
        ExplainFile {
            timestamp: self.timestamp,
            job_type: self.job,
            regime: self.regime.name,
            candidates: self.explanations.len(),
            explanations: &self.explanations,
            gates: self.thresholds,
            weights: Weights { blend: self.regime.blend, social_cap: Social::CAP },
            meta,
            health,
            summary: &self.summary,
        }
    }

    /// The best of those that did not pass, for a console to fill its table with.
    pub fn near_misses(&self) -> impl Iterator<Item = &Explanation> {
        self.explanations.iter().filter(|e| e.decision == Decision::Excluded)
    }
}

/// The verdicts. `finals` are the books that were read again, by symbol; who wanted one and has none
/// is judged by the book of the first pass, whose age then counts.
#[must_use]
pub fn judge(
    scored: Scored,
    mut finals: BTreeMap<String, Vec<BookAnswer>>,
    decided_at: Time,
) -> Outcome {
    let mut latencies: BTreeMap<Venue, Vec<Millis>> = BTreeMap::new();
    let first = scored.symbols.iter().flat_map(|c| &c.data.books);
    for answer in first.chain(finals.values().flatten()).filter(|a| !a.cached) {
        latencies.entry(answer.venue).or_default().extend(answer.latency);
    }
    let latencies: BTreeMap<Venue, Millis> =
        latencies.into_iter().filter_map(|(venue, l)| Some((venue, middle(l)?))).collect();

    let mut judged: Vec<(Explanation, Option<Signal>)> = scored
        .symbols
        .iter()
        .map(|c| {
            let books = finals.remove(&c.data.member.symbol);
            verdict(c, books.as_deref(), &scored, &latencies, decided_at)
        })
        .collect();
    judged.sort_by(|(a, _), (b, _)| by_score(a, b));

    let mut summary = Summary { scanned: judged.len(), ..Summary::default() };
    let (mut explanations, mut passers) = (Vec::new(), Vec::new());
    for (rank, (mut explanation, signal)) in (1..).zip(judged) {
        explanation.rank = rank;
        summary.passed += usize::from(explanation.all_gates_pass);
        if let Some(signal) = signal {
            let top_n = scored.settings.top_n;
            if passers.len() < top_n {
                explanation.decision = Decision::Included;
                passers.push(signal);
            } else {
                explanation.primary_reason = "beyond_top_n".into();
                explanation.reason = format!("beyond_top_n: {} > {top_n}", summary.passed);
            }
        }
        if explanation.decision == Decision::Excluded {
            *summary.rejections.entry(explanation.primary_reason.clone()).or_default() += 1;
        }
        explanations.push(explanation);
    }
    Outcome {
        timestamp: scored.now.floor(Millis::from_secs(1)),
        decided_at,
        job: scored.settings.job,
        thresholds: Thresholds::from(&scored.settings),
        regime: scored.regime,
        explanations,
        passers,
        summary,
    }
}

/// By score, the highest first, then by symbol; what has no score comes last.
fn by_score(a: &Explanation, b: &Explanation) -> std::cmp::Ordering {
    let value = |e: &Explanation| e.score.unwrap_or(f64::NEG_INFINITY);
    value(b).total_cmp(&value(a)).then_with(|| a.symbol.cmp(&b.symbol))
}

fn middle(mut latencies: Vec<Millis>) -> Option<Millis> {
    latencies.sort_unstable();
    latencies.get(latencies.len().checked_sub(1)? / 2).copied()
}
