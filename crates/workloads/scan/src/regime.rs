//! The regime of the market: three indicators, a vote of each, and the blend of weights that the
//! majority chooses (section 8).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use watchbell_core::{Millis, Time, math};
use watchbell_venues::native::{Bar, Interval};

use crate::decimal;

/// How long a detected regime is in force.
pub const VALIDITY: Millis = Millis::from_hours(4);
/// How much longer a scan still takes it, for one that starts in the minute of the refresh.
pub const GRACE: Millis = Millis::from_mins(15);
/// Hourly returns of the benchmark that volatility looks at.
const RETURNS: usize = 168;
/// How many of these there must be.
const RETURNS_MIN: usize = 120;
/// Closes of the moving average, and the least of them that makes a symbol usable.
const AVERAGE: usize = 20;
/// Usable symbols, and days of breadth, without which breadth says nothing.
const BREADTH_MIN: usize = 20;
/// Length of the exponential average of breadth.
const THRUST: usize = 10;

/// The kinds of market.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum RegimeName {
    /// Little movement, most symbols rising.
    Calm,
    /// Neither of the others.
    #[default]
    Normal,
    /// Much movement, most symbols falling.
    Volatile,
}

impl RegimeName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Calm, Self::Normal, Self::Volatile];

    /// Its name, as artifacts write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Normal => "normal",
            Self::Volatile => "volatile",
        }
    }

    /// How the factors are weighed in it (section 7.1).
    #[must_use]
    pub const fn blend(self) -> Blend {
        let [momentum, technical, volume, quality] = match self {
            Self::Calm => [0.40, 0.30, 0.20, 0.10],
            Self::Normal => [0.35, 0.25, 0.25, 0.15],
            Self::Volatile => [0.30, 0.20, 0.30, 0.20],
        };
        Blend { momentum, technical, volume, quality }
    }
}

impl fmt::Display for RegimeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Weights of the factors; they add up to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Blend {
    /// Of the momentum core.
    pub momentum: f64,
    /// Of the technical residual.
    pub technical: f64,
    /// Of the volume residual.
    pub volume: f64,
    /// Of the quality residual.
    pub quality: f64,
}

impl Blend {
    /// Whether the weights are none below zero and add up to 1 (section 7.1).
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let weights = self.weights();
        weights.iter().all(|w| *w >= 0.0) && (weights.iter().sum::<f64>() - 1.0).abs() <= 1e-9
    }

    /// In the order of the factors.
    #[must_use]
    pub const fn weights(&self) -> [f64; 4] {
        [self.momentum, self.technical, self.volume, self.quality]
    }
}

/// What the detector measures; none where the data do not suffice.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Indicators {
    /// Volatility of the benchmark's hourly returns over 7 days, a fraction a year.
    pub realized_vol_7d: Option<f64>,
    /// Percent of the symbols that closed above their mean of 20 days, 0 to 100.
    pub pct_above_20ma: Option<f64>,
    /// Smoothed share of rising among rising and falling symbols, 0 to 1.
    pub breadth_thrust: Option<f64>,
}

/// What an indicator speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Vote {
    /// A calm market.
    Calm,
    /// Neither.
    Normal,
    /// A volatile market.
    Volatile,
    /// It could not be measured.
    Unavailable,
}

impl Vote {
    const fn of(regime: RegimeName) -> Self {
        match regime {
            RegimeName::Calm => Self::Calm,
            RegimeName::Normal => Self::Normal,
            RegimeName::Volatile => Self::Volatile,
        }
    }
}

/// The vote of each indicator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Votes {
    /// Of the realised volatility.
    pub vol_vote: Vote,
    /// Of the moving averages.
    pub ma_vote: Vote,
    /// Of the breadth thrust.
    pub breadth_vote: Vote,
}

impl Votes {
    const fn all(self) -> [Vote; 3] {
        [self.vol_vote, self.ma_vote, self.breadth_vote]
    }
}

/// How much data stood behind the indicators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Samples {
    /// Hourly returns of the benchmark, of 168.
    pub returns: usize,
    /// Symbols with 20 daily closes.
    pub symbols: usize,
    /// Days of breadth.
    pub days: usize,
}

/// A detected regime. Serialises as `regime.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Regime {
    /// When it was detected, to the second.
    pub timestamp: Time,
    /// Which it is.
    pub regime: RegimeName,
    /// What was measured.
    pub indicators: Indicators,
    /// 0.25 and 0.2 for each vote that agrees.
    pub confidence: f64,
    /// Who voted for what.
    pub votes: Votes,
    /// The weights until the next refresh.
    pub weight_blend: Blend,
    /// When it is to be detected again.
    pub next_refresh: Time,
    /// What the indicators were measured on.
    pub samples: Samples,
    /// Which indicators could not be measured, and why.
    pub unavailable: Vec<String>,
}

/// Nothing could be measured, so there is no regime to speak of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no indicator of the regime could be measured: {}", .unavailable.join("; "))]
pub struct NoRegime {
    /// Which indicators, and why.
    pub unavailable: Vec<String>,
}

/// Detects the regime out of the benchmark's closed hourly bars and the closed daily bars of the
/// universe, by symbol, all ascending. `next_refresh` is four hours from `now`; whoever knows the
/// schedule puts its next fire there.
///
/// # Errors
/// When none of the three indicators can be measured.
pub fn detect(
    benchmark_hours: Option<&[Bar]>,
    days: &[(String, Vec<Bar>)],
    now: Time,
) -> Result<Regime, NoRegime> {
    let mut samples = Samples::default();
    let mut unavailable = Vec::new();
    let mut note = |name: &str, result: Result<f64, String>| {
        result.map_err(|why| unavailable.push(format!("{name}: {why}"))).ok()
    };

    let returns = benchmark_hours.map(|bars| hourly_returns(bars, now));
    samples.returns = returns.as_ref().map_or(0, Vec::len);
    let realized_vol_7d = note(
        "realized_vol_7d",
        match returns {
            None => Err("no bars of the benchmark".into()),
            Some(r) if r.len() < RETURNS_MIN => {
                Err(format!("{} of {RETURNS} hourly returns, {RETURNS_MIN} needed", r.len()))
            }
            Some(r) => Ok(realized_volatility(&r)),
        },
    );

    let usable = usable(days, now);
    samples.symbols = usable.len();
    let few = (usable.len() < BREADTH_MIN).then(|| {
        format!("{} symbols with {AVERAGE} daily closes, {BREADTH_MIN} needed", usable.len())
    });
    let pct_above_20ma =
        note("pct_above_20ma", few.clone().map_or_else(|| Ok(above_average(&usable)), Err));
    let breadth = daily_breadth(&usable);
    samples.days = breadth.len();
    let breadth_thrust = note(
        "breadth_thrust",
        match few {
            Some(why) => Err(why),
            None if breadth.len() < BREADTH_MIN => {
                Err(format!("{} days of breadth, {BREADTH_MIN} needed", breadth.len()))
            }
            None => thrust(&breadth).ok_or_else(|| "too few days".into()),
        },
    );

    let indicators = Indicators { realized_vol_7d, pct_above_20ma, breadth_thrust };
    let votes = vote(&indicators);
    let Some((regime, confidence)) = decide(votes) else { return Err(NoRegime { unavailable }) };
    let timestamp = now.floor(Millis::from_secs(1));
    Ok(Regime {
        timestamp,
        regime,
        indicators,
        confidence,
        votes,
        weight_blend: regime.blend(),
        next_refresh: timestamp + VALIDITY,
        samples,
        unavailable,
    })
}

/// The vote of each indicator; an edge is normal, and so is what is no number (section 8.2).
#[must_use]
pub fn vote(indicators: &Indicators) -> Votes {
    let vote = |value: Option<f64>, calm: &dyn Fn(f64) -> bool, volatile: &dyn Fn(f64) -> bool| {
        match value.filter(|v| v.is_finite()) {
            None => Vote::Unavailable,
            Some(v) if calm(v) => Vote::Calm,
            Some(v) if volatile(v) => Vote::Volatile,
            Some(_) => Vote::Normal,
        }
    };
    Votes {
        vol_vote: vote(indicators.realized_vol_7d, &|v| v < 0.25, &|v| v > 0.45),
        ma_vote: vote(indicators.pct_above_20ma, &|v| v > 70.0, &|v| v < 45.0),
        breadth_vote: vote(indicators.breadth_thrust, &|v| v > 0.60, &|v| v < 0.30),
    }
}

/// What two of three agree on, else normal; and how sure that is: 0.25 and 0.2 for each vote that is
/// the outcome. What is unavailable counts as normal for the outcome and as nothing for confidence.
/// Nothing when nothing is available (sections 8.3 and 8.4).
#[must_use]
pub fn decide(votes: Votes) -> Option<(RegimeName, f64)> {
    let votes = votes.all();
    if votes.iter().all(|v| *v == Vote::Unavailable) {
        return None;
    }
    let count = |regime| votes.iter().filter(|v| **v == Vote::of(regime)).count();
    let regime = RegimeName::ALL.into_iter().find(|r| count(*r) >= 2).unwrap_or_default();
    Some((regime, [0.25, 0.45, 0.65, 0.85][count(regime)]))
}

/// The log returns among the last 168 hourly slots before `now` whose both ends were traded in.
fn hourly_returns(bars: &[Bar], now: Time) -> Vec<f64> {
    let hour = Interval::Hour.length();
    let end = now.floor(hour);
    let first = end - hour * (RETURNS as i64 + 1);
    let bars = bars.iter().filter(|b| b.open_time >= first && b.open_time < end && sound(b.close));
    let bars: Vec<&Bar> = bars.collect();
    bars.windows(2)
        .filter(|w| w[1].open_time.since(w[0].open_time) == hour)
        .map(|w| math::ln(w[1].close / w[0].close))
        .collect()
}

/// The sample deviation of hourly log returns as a fraction a year (section 8.1).
#[must_use]
pub fn realized_volatility(returns: &[f64]) -> f64 {
    let n = returns.len() as f64;
    let mean = returns.iter().sum::<f64>() / n;
    let squares: f64 = returns.iter().map(|r| (r - mean) * (r - mean)).sum();
    (squares / (n - 1.0)).sqrt() * 8_760_f64.sqrt()
}

fn sound(close: f64) -> bool {
    close.is_finite() && close > 0.0
}

/// Closes by day of the symbols that have 20 and were still traded yesterday or the day before.
fn usable(days: &[(String, Vec<Bar>)], now: Time) -> Vec<BTreeMap<Time, f64>> {
    let day = Interval::Day.length();
    let today = now.floor(day);
    let mut by_symbol: Vec<&(String, Vec<Bar>)> = days.iter().collect();
    by_symbol.sort_by(|a, b| a.0.cmp(&b.0));
    by_symbol.dedup_by(|a, b| a.0 == b.0);
    let closes = |(_, bars): &&(String, Vec<Bar>)| -> BTreeMap<Time, f64> {
        let closed = bars.iter().filter(|b| b.open_time + day <= today && sound(b.close));
        closed.map(|b| (b.open_time.floor(day), b.close)).collect()
    };
    let current = |closes: &BTreeMap<Time, f64>| {
        closes.len() >= AVERAGE
            && closes.last_key_value().is_some_and(|(last, _)| *last >= today - day * 2)
    };
    by_symbol.iter().map(closes).filter(current).collect()
}

/// Percent of the symbols whose last close is above the mean of their last 20, that one included.
fn above_average(symbols: &[BTreeMap<Time, f64>]) -> f64 {
    let above = symbols.iter().filter(|closes| {
        let last: Vec<f64> = closes.values().rev().take(AVERAGE).copied().collect();
        last[0] > last.iter().sum::<f64>() / AVERAGE as f64
    });
    100.0 * above.count() as f64 / symbols.len() as f64
}

/// The share of rising among rising and falling symbols, day by day from the second on; a half on a
/// day when nothing moved.
fn daily_breadth(symbols: &[BTreeMap<Time, f64>]) -> Vec<f64> {
    let day = Interval::Day.length();
    let first = symbols.iter().filter_map(|s| s.keys().next()).min();
    let last = symbols.iter().filter_map(|s| s.keys().next_back()).max();
    let (Some(first), Some(last)) = (first, last) else { return Vec::new() };
    let count = last.since(*first) / day;
    let share = |i: i64| {
        let today = *first + day * i;
        let moves = symbols.iter().filter_map(|s| Some((s.get(&(today - day))?, s.get(&today)?)));
        let (mut up, mut down) = (0_u32, 0_u32);
        for (before, after) in moves {
            up += u32::from(after > before);
            down += u32::from(after < before);
        }
        if up + down == 0 { 0.5 } else { f64::from(up) / f64::from(up + down) }
    };
    (1..=count).map(share).collect()
}

/// Zweig's thrust: the exponential average over ten days of the daily breadth, begun with the mean of
/// the first ten; none for fewer (section 8.1).
#[must_use]
pub fn thrust(breadth: &[f64]) -> Option<f64> {
    let (first, rest) = breadth.split_at_checked(THRUST)?;
    let start = first.iter().sum::<f64>() / THRUST as f64;
    let alpha = 2.0 / (THRUST as f64 + 1.0);
    Some(rest.iter().fold(start, |ema, s| ema + alpha * (s - ema)))
}

/// Where the weights of a scan come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegimeSource {
    /// The last refresh, still in force.
    Cached,
    /// There is none in force, so the normal weights.
    DefaultStale,
}

impl RegimeSource {
    /// As artifacts write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::DefaultStale => "default_stale",
        }
    }
}

/// A detected regime as it is kept for the scans (section 8.6).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CachedRegime {
    /// Which it is.
    pub regime: RegimeName,
    /// The weights.
    pub weight_blend: Blend,
    /// How sure it is.
    pub confidence: f64,
    /// When it was detected.
    pub computed_at: Time,
    /// Until when it is in force, the grace aside.
    pub valid_until: Time,
}

impl From<&Regime> for CachedRegime {
    fn from(regime: &Regime) -> Self {
        Self {
            regime: regime.regime,
            weight_blend: regime.weight_blend,
            confidence: regime.confidence,
            computed_at: regime.timestamp,
            valid_until: regime.timestamp + VALIDITY,
        }
    }
}

/// The regime that a scan reckons with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegimeInUse {
    /// Which it is.
    pub name: RegimeName,
    /// The weights.
    pub blend: Blend,
    /// Where they come from.
    pub source: RegimeSource,
    /// How sure it is; none for a default.
    pub confidence: Option<f64>,
    /// When it was detected; none for a default.
    pub computed_at: Option<Time>,
}

impl RegimeInUse {
    /// The kept one while it is in force or within the grace after, else the normal weights; those
    /// too where the kept weights do not add up (sections 7.4 and 8.6).
    #[must_use]
    pub fn at(cached: Option<&CachedRegime>, now: Time) -> Self {
        match cached.filter(|c| now < c.valid_until + GRACE && c.weight_blend.is_whole()) {
            Some(c) => Self {
                name: c.regime,
                blend: c.weight_blend,
                source: RegimeSource::Cached,
                confidence: Some(c.confidence),
                computed_at: Some(c.computed_at),
            },
            None => Self {
                name: RegimeName::Normal,
                blend: RegimeName::Normal.blend(),
                source: RegimeSource::DefaultStale,
                confidence: None,
                computed_at: None,
            },
        }
    }

    /// As a header tells it: `normal (0.85, 1h12m old)` or `normal (default_stale)`.
    #[must_use]
    pub fn headline(&self, now: Time) -> String {
        match (self.confidence, self.computed_at) {
            (Some(confidence), Some(at)) => {
                format!("{} ({}, {} old)", self.name, decimal::fixed(confidence, 2), now.since(at))
            }
            _ => format!("{} ({})", self.name, self.source.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bars::tests::hourly;

    /// Section 8.1, the vectors.
    #[test]
    fn the_vectors_hold() {
        for (step, vol) in [(0.005, 0.469_373), (0.003, 0.281_624)] {
            let returns: Vec<f64> =
                (0..168).map(|i| if i % 2 == 0 { step } else { -step }).collect();
            assert!((realized_volatility(&returns) - vol).abs() < 5e-7);
        }
        let series = |first: f64, then: f64, days: usize| {
            thrust(&[vec![first; 10], vec![then; days]].concat()).unwrap()
        };
        assert!((series(0.4, 0.7, 5) - 0.590_005_7).abs() < 5e-8);
        assert!((series(0.5, 0.2, 4) - 0.334_437_5).abs() < 5e-8);
        assert_eq!(thrust(&[0.5; 9]), None);
    }

    fn of(vol: f64, above: f64, breadth: f64) -> Indicators {
        Indicators {
            realized_vol_7d: Some(vol),
            pct_above_20ma: Some(above),
            breadth_thrust: Some(breadth),
        }
    }

    /// Section 8.2: every comparison is strict, so every edge is normal.
    #[test]
    fn votes_at_every_edge() {
        use Vote::{Calm, Normal, Unavailable, Volatile};
        let below = |v: f64| v.next_down();
        let above = |v: f64| v.next_up();
        for (value, vote_) in [
            (0.0, Calm),
            (below(0.25), Calm),
            (0.25, Normal),
            (0.45, Normal),
            (above(0.45), Volatile),
            (f64::NAN, Unavailable),
        ] {
            assert_eq!(vote(&of(value, 50.0, 0.5)).vol_vote, vote_, "vol {value}");
        }
        for (value, vote_) in [
            (above(70.0), Calm),
            (70.0, Normal),
            (45.0, Normal),
            (below(45.0), Volatile),
            (f64::INFINITY, Unavailable),
        ] {
            assert_eq!(vote(&of(0.3, value, 0.5)).ma_vote, vote_, "above {value}");
        }
        for (value, vote_) in [
            (above(0.60), Calm),
            (0.60, Normal),
            (0.30, Normal),
            (below(0.30), Volatile),
            (f64::NAN, Unavailable),
        ] {
            assert_eq!(vote(&of(0.3, 50.0, value)).breadth_vote, vote_, "breadth {value}");
        }
        assert_eq!(vote(&Indicators::default()).all(), [Unavailable; 3]);
    }

    /// Sections 8.3 and 8.4.
    #[test]
    fn two_of_three_win_and_confidence_counts_those_who_agree() {
        for (indicators, regime, confidence) in [
            (of(0.20, 75.0, 0.65), RegimeName::Calm, 0.85),
            (of(0.50, 40.0, 0.25), RegimeName::Volatile, 0.85),
            (of(0.35, 60.0, 0.25), RegimeName::Normal, 0.65),
            (of(0.22, 72.0, 0.25), RegimeName::Calm, 0.65),
            (of(0.35, 65.0, 0.42), RegimeName::Normal, 0.85),
            // One each: normal.
            (of(0.20, 60.0, 0.25), RegimeName::Normal, 0.45),
            // Calm, unavailable, volatile: normal rests on nobody.
            (Indicators { pct_above_20ma: None, ..of(0.20, 0.0, 0.25) }, RegimeName::Normal, 0.25),
            (
                Indicators { realized_vol_7d: Some(0.5), ..Indicators::default() },
                RegimeName::Normal,
                0.25,
            ),
            (
                Indicators { realized_vol_7d: Some(0.3), ..Indicators::default() },
                RegimeName::Normal,
                0.45,
            ),
            (Indicators { breadth_thrust: None, ..of(0.5, 40.0, 0.0) }, RegimeName::Volatile, 0.65),
        ] {
            assert_eq!(decide(vote(&indicators)), Some((regime, confidence)), "{indicators:?}");
        }
        assert_eq!(decide(vote(&Indicators::default())), None);
    }

    /// Section 7.1.
    #[test]
    fn blends_add_up() {
        for regime in RegimeName::ALL {
            assert!(regime.blend().is_whole());
        }
        let normal = RegimeName::Normal.blend();
        for (momentum, whole) in [(0.35, true), (0.350_000_1, false), (f64::NAN, false)] {
            assert_eq!(Blend { momentum, ..normal }.is_whole(), whole);
        }
        assert!(!Blend { momentum: -0.15, technical: 0.75, ..normal }.is_whole());
    }

    fn daily(first_day: i64, closes: &[f64]) -> Vec<Bar> {
        let mut bars = hourly(0, closes);
        for (i, bar) in (first_day..).zip(&mut bars) {
            bar.open_time = Time(0) + Millis::from_days(i);
        }
        bars
    }

    fn market(symbols: usize, days: usize) -> Vec<(String, Vec<Bar>)> {
        let close =
            |s: usize, d: usize| 100.0 + (d as f64) * if s.is_multiple_of(4) { -1.0 } else { 1.0 };
        (0..symbols)
            .map(|s| {
                let closes: Vec<f64> = (0..days).map(|d| close(s, d)).collect();
                (format!("S{s:03}/USD"), daily(100, &closes))
            })
            .collect()
    }

    fn benchmark(now: Time, hours: i64, step: f64) -> Vec<Bar> {
        let closes: Vec<f64> =
            (0..hours).map(|i| 100.0 * if i % 2 == 0 { 1.0 } else { 1.0 + step }).collect();
        hourly(now.since(Time(0)) / Millis::from_hours(1) - hours, &closes)
    }

    /// The founding document's sample: exactly these keys, in this order.
    #[test]
    fn the_file_has_the_keys_in_order() {
        let now = Time(0) + Millis::from_days(140) + Millis(15_123);
        let regime = detect(Some(&benchmark(now, 200, 0.003)), &market(40, 40), now).unwrap();
        assert_eq!(regime.regime, RegimeName::Calm, "{regime:?}");
        assert_eq!(regime.indicators.pct_above_20ma, Some(75.0));
        assert!((regime.indicators.breadth_thrust.unwrap() - 0.75).abs() < 1e-12);
        assert!((regime.indicators.realized_vol_7d.unwrap() - 0.2816).abs() < 1e-3);
        assert_eq!(regime.samples, Samples { returns: 168, symbols: 40, days: 39 });
        assert_eq!(regime.next_refresh.since(regime.timestamp), VALIDITY);

        let text = serde_json::to_string(&regime).unwrap();
        let mut at = 0;
        for key in [
            "timestamp",
            "regime",
            "indicators",
            "realized_vol_7d",
            "pct_above_20ma",
            "breadth_thrust",
            "confidence",
            "votes",
            "vol_vote",
            "ma_vote",
            "breadth_vote",
            "weight_blend",
            "momentum",
            "technical",
            "volume",
            "quality",
            "next_refresh",
        ] {
            let quoted = format!("\"{key}\":");
            at += text[at..].find(&quoted).unwrap_or_else(|| panic!("{key} in {text}"));
        }
        assert!(
            text.starts_with(r#"{"timestamp":"1970-05-21T00:00:15Z","regime":"calm","#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Regime>(&text).unwrap(), regime);
    }

    /// Section 8.1: what the data do not suffice for is unavailable, and says so.
    #[test]
    fn too_little_data_are_unavailable() {
        let now = Time(0) + Millis::from_days(140);
        let good = benchmark(now, 200, 0.003);
        let why = |hours: Option<&[Bar]>, days: &[(String, Vec<Bar>)]| {
            detect(hours, days, now).map(|r| r.unavailable)
        };
        assert_eq!(why(Some(&good), &market(20, 40)), Ok(vec![]));
        assert_eq!(why(Some(&benchmark(now, 121, 0.003)), &market(20, 40)), Ok(vec![]));
        let few = why(Some(&benchmark(now, 120, 0.003)), &market(20, 40)).unwrap();
        assert_eq!(few, ["realized_vol_7d: 119 of 168 hourly returns, 120 needed"]);
        let few = why(Some(&good), &market(19, 40)).unwrap();
        assert_eq!(few[0], "pct_above_20ma: 19 symbols with 20 daily closes, 20 needed");
        assert!(few[1].starts_with("breadth_thrust: 19 symbols"));
        // 20 closes are 19 days of breadth.
        let mut market_20 = market(20, 20);
        market_20.iter_mut().for_each(|(_, bars)| {
            bars.iter_mut().for_each(|b| b.open_time += Millis::from_days(20));
        });
        let short = why(Some(&good), &market_20).unwrap();
        assert_eq!(short, ["breadth_thrust: 19 days of breadth, 20 needed"]);
        let none = why(None, &[]).unwrap_err();
        assert_eq!(none.unavailable.len(), 3);
        assert!(none.to_string().starts_with("no indicator of the regime could be measured: real"));
        // A benchmark that ended long ago has no last week.
        let stale = benchmark(now - Millis::from_days(3), 200, 0.003);
        assert!(why(Some(&stale), &market(20, 40)).unwrap()[0].starts_with("realized_vol_7d: 96"));
    }

    #[test]
    fn a_day_without_a_move_is_half() {
        let flat: BTreeMap<Time, f64> =
            daily(0, &[5.0; 30]).iter().map(|b| (b.open_time, b.close)).collect();
        assert_eq!(daily_breadth(std::slice::from_ref(&flat)), vec![0.5; 29]);
        assert_eq!(above_average(&[flat]), 0.0, "exactly the mean is not above it");
    }

    /// Section 8.6.
    #[test]
    fn a_kept_regime_holds_until_the_grace_is_over() {
        let kept = CachedRegime {
            regime: RegimeName::Volatile,
            weight_blend: RegimeName::Volatile.blend(),
            confidence: 0.65,
            computed_at: Time(0),
            valid_until: Time(0) + VALIDITY,
        };
        for (minutes, name, source, header) in [
            (72, RegimeName::Volatile, RegimeSource::Cached, "volatile (0.65, 1h12m old)"),
            (254, RegimeName::Volatile, RegimeSource::Cached, "volatile (0.65, 4h14m old)"),
            (255, RegimeName::Normal, RegimeSource::DefaultStale, "normal (default_stale)"),
        ] {
            let now = Time(0) + Millis::from_mins(minutes);
            let in_use = RegimeInUse::at(Some(&kept), now);
            assert_eq!((in_use.name, in_use.source), (name, source), "{minutes}");
            assert_eq!(in_use.blend, name.blend());
            assert_eq!(in_use.headline(now), header);
        }
        assert_eq!(RegimeInUse::at(None, Time(0)).source, RegimeSource::DefaultStale);
        let mut broken = kept;
        broken.weight_blend.momentum = 9.0;
        assert_eq!(RegimeInUse::at(Some(&broken), Time(0)).source, RegimeSource::DefaultStale);
    }

    proptest! {
        /// The order of the symbols does not matter, and the outcome is the median of the votes.
        #[test]
        fn the_majority_is_the_median(vol in 0.0_f64..1.0, above in 0.0_f64..100.0, breadth in 0.0_f64..1.0) {
            let votes = vote(&of(vol, above, breadth));
            let mut order: Vec<u8> = votes.all().iter().map(|v| match v {
                Vote::Calm => 0,
                Vote::Normal | Vote::Unavailable => 1,
                Vote::Volatile => 2,
            }).collect();
            order.sort_unstable();
            let (regime, confidence) = decide(votes).unwrap();
            prop_assert_eq!(regime, RegimeName::ALL[usize::from(order[1])]);
            prop_assert!((0.45..=0.85).contains(&confidence));
        }
    }
}
