//! What is published of a window: a new stable mood, the last stable one again, or the neutral one
//! (section 7.4). Pure.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use watchbell_core::{Millis, Time};

use super::formula::{Mood, MoodId, NEUTRAL, Params, Share, Signals, aggregate};

/// So many stable moods, with the new one, tell how steady the mood is.
pub const TIER_SPAN: usize = 5;
/// So many windows in a row without a mood of their own make the published one stale.
pub const STALE_AFTER: u32 = 3;
/// Tiers of two labels may be so far apart before it is said.
pub const TIER_SPREAD: u8 = 2;

/// How steady the mood of a label is, from steadiest to least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Tier {
    /// The coefficients deviate by at most 0.02.
    S,
    /// At most 0.05.
    A,
    /// At most 0.10.
    B,
    /// At most 0.20.
    C,
    /// At most 0.35.
    D,
    /// More, or not known.
    E,
}

impl Tier {
    /// All tiers, steadiest first.
    pub const ALL: [Self; 6] = [Self::S, Self::A, Self::B, Self::C, Self::D, Self::E];
    const LIMITS: [f64; 5] = [0.02, 0.05, 0.10, 0.20, 0.35];

    /// The tier of a standard deviation.
    #[must_use]
    pub fn of(deviation: f64) -> Self {
        let within = Self::LIMITS.iter().position(|limit| deviation <= *limit);
        within.map_or(Self::E, |i| Self::ALL[i])
    }

    /// One letter, as it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::S => "S",
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::D => "D",
            Self::E => "E",
        }
    }

    /// The tier of a stored letter.
    #[must_use]
    pub fn parse(letter: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.as_str() == letter)
    }

    /// One step from here towards `goal`: a tier changes by one a window.
    #[must_use]
    fn towards(self, goal: Self) -> Self {
        let (here, there) = (self as usize, goal as usize);
        match here.cmp(&there) {
            std::cmp::Ordering::Less => Self::ALL[here + 1],
            std::cmp::Ordering::Equal => self,
            std::cmp::Ordering::Greater => Self::ALL[here - 1],
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A mood that was stable when it was published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stable {
    /// End of its window.
    pub ts: Time,
    /// Coefficient.
    pub coeff: f64,
    /// Class.
    pub id: MoodId,
    /// Tier.
    pub tier: Tier,
}

/// What a label published before a window.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Past {
    /// The newest stable moods, newest first, at most [`TIER_SPAN`].
    pub stable: Vec<Stable>,
    /// Windows without a mood of their own since the newest of them.
    pub fallbacks: u32,
}

/// Why a window has no mood of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The window was given up: none of its symbols has vectors.
    WindowAbandoned,
    /// No symbol is in the effective universe.
    NoSymbols,
    /// Fewer than half of the effective symbols have vectors.
    TooFew {
        /// Symbols that do.
        have: usize,
        /// Effective symbols.
        of: usize,
    },
    /// A signal is not a number.
    NotFinite {
        /// Whose.
        symbol: Arc<str>,
        /// `g`, `t` or `v`.
        signal: &'static str,
    },
    /// The signals are numbers, but no sum of them is.
    Overflow,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WindowAbandoned => f.write_str("WINDOW_ABANDONED: the window has no vectors"),
            Self::NoSymbols => f.write_str("NO_SYMBOLS: the effective universe is empty"),
            Self::TooFew { have, of } => {
                write!(f, "TOO_FEW_SYMBOLS: {have} of {of} symbols have vectors")
            }
            Self::NotFinite { symbol, signal } => {
                write!(f, "NOT_FINITE: the signal {signal} of {symbol} is not a number")
            }
            Self::Overflow => f.write_str("NOT_FINITE: the signals are too large to be summed"),
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The mood of the symbols of a window: `shares` has one entry for each effective symbol, `None`
/// where the window has nothing of it.
///
/// # Errors
/// Why they have none together: it is all of them that can be read, at least half of them, or the
/// last stable mood stands.
pub fn judge(
    shares: &[(Arc<str>, Option<Share>)],
    params: &Params,
) -> Result<(Signals, Mood), Reason> {
    if shares.is_empty() {
        return Err(Reason::NoSymbols);
    }
    let known: Vec<Share> = shares.iter().filter_map(|(_, share)| *share).collect();
    let (have, of) = (known.len(), shares.len());
    if have == 0 {
        return Err(Reason::WindowAbandoned);
    }
    for (symbol, share) in shares {
        let Some(share) = share else { continue };
        for (signal, x) in [("g", share.g), ("t", share.t), ("v", share.v)] {
            if x.is_some_and(|x| !x.is_finite()) {
                return Err(Reason::NotFinite { symbol: Arc::clone(symbol), signal });
            }
        }
    }
    if have * 2 < of {
        return Err(Reason::TooFew { have, of });
    }
    let signals = aggregate(&known);
    if !signals.are_finite() {
        // Finite numbers can still sum to infinity.
        return Err(Reason::Overflow);
    }
    Ok((signals, Mood::of(&signals, params)))
}

/// What is published of a window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Published {
    /// Coefficient.
    pub coeff: f64,
    /// Class.
    pub id: MoodId,
    /// Tier.
    pub tier: Tier,
    /// Whether it is an earlier mood again, or the neutral one.
    pub is_fallback: bool,
    /// Whether it has been so for [`STALE_AFTER`] windows.
    pub is_stale: bool,
    /// End of the window that the mood is of; `None` where there never was a stable one.
    pub stable_ts: Option<Time>,
    /// How old it is.
    pub age: Millis,
}

impl Published {
    /// One word: `stable`, `fallback`, `stale` or `neutral`.
    #[must_use]
    pub const fn state(&self) -> &'static str {
        match (self.is_fallback, self.is_stale, self.stable_ts) {
            (false, ..) => "stable",
            (true, _, None) => "neutral",
            (true, true, Some(_)) => "stale",
            (true, false, Some(_)) => "fallback",
        }
    }
}

/// What to publish of the window that ends at `ts`, given its own mood, if it has one, and the past.
#[must_use]
pub fn publish(own: Option<&Mood>, past: &Past, ts: Time) -> Published {
    let last = past.stable.first();
    if let Some(mood) = own {
        let coeffs: Vec<f64> = std::iter::once(mood.coeff)
            .chain(past.stable.iter().map(|s| s.coeff))
            .take(TIER_SPAN)
            .collect();
        let tier = last.map_or(Tier::E, |s| s.tier).towards(Tier::of(deviation(&coeffs)));
        return Published {
            coeff: mood.coeff,
            id: mood.id,
            tier,
            is_fallback: false,
            is_stale: false,
            stable_ts: Some(ts),
            age: Millis::ZERO,
        };
    }
    Published {
        coeff: last.map_or(NEUTRAL, |s| s.coeff),
        id: last.map_or(MoodId::NEUTRAL, |s| s.id),
        tier: last.map_or(Tier::E, |s| s.tier),
        is_fallback: true,
        is_stale: past.fallbacks.saturating_add(1) >= STALE_AFTER,
        stable_ts: last.map(|s| s.ts),
        age: last.map_or(Millis::ZERO, |s| ts - s.ts),
    }
}

/// Standard deviation of the whole: what is not known does not make it larger.
fn deviation(xs: &[f64]) -> f64 {
    let n = xs.len() as f64;
    let mean = xs.iter().sum::<f64>() / n;
    (xs.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n).sqrt()
}

/// Two labels whose tiers are too far apart to tell one story: `TIER_INCOHERENT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Incoherent {
    /// The steadier label.
    pub steady: String,
    /// The other.
    pub unsteady: String,
}

impl Incoherent {
    /// What the flag is called.
    pub const CODE: &str = "TIER_INCOHERENT";
}

/// The pairs of labels whose tiers differ by more than [`TIER_SPREAD`].
#[must_use]
pub fn incoherences(tiers: &[(String, Tier)]) -> Vec<Incoherent> {
    let mut found = Vec::new();
    for (steady, a) in tiers {
        for (unsteady, b) in tiers {
            if (*b as u8).saturating_sub(*a as u8) > TIER_SPREAD {
                found.push(Incoherent { steady: steady.clone(), unsteady: unsteady.clone() });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(x: f64) -> Share {
        Share { g: Some(x / 10.0), t: Some(x), v: Some(x), weight: 2.0 }
    }

    fn shares(of: &[Option<f64>]) -> Vec<(Arc<str>, Option<Share>)> {
        of.iter().enumerate().map(|(i, x)| (Arc::from(format!("S{i}")), x.map(share))).collect()
    }

    #[test]
    fn deviations_have_tiers() {
        for (deviation, tier) in [
            (0.0, Tier::S),
            (0.02, Tier::S),
            (0.021, Tier::A),
            (0.05, Tier::A),
            (0.10, Tier::B),
            (0.20, Tier::C),
            (0.35, Tier::D),
            (0.36, Tier::E),
            (f64::NAN, Tier::E),
        ] {
            assert_eq!(Tier::of(deviation), tier, "{deviation}");
            assert_eq!(Tier::parse(tier.as_str()), Some(tier));
        }
    }

    /// Of each window: its own coefficient or none, and what is published.
    fn run(own: &[Option<f64>]) -> Vec<Published> {
        let (mut past, mut all) = (Past::default(), Vec::new());
        for (i, coeff) in own.iter().enumerate() {
            let ts = Time(1_800_000 * (i as i64 + 1));
            let mood = coeff.map(|coeff| Mood { coeff, ..Mood::neutral() });
            let p = publish(mood.as_ref(), &past, ts);
            if p.is_fallback {
                past.fallbacks += 1;
            } else {
                past.stable.insert(0, Stable { ts, coeff: p.coeff, id: p.id, tier: p.tier });
                past.stable.truncate(TIER_SPAN);
                past.fallbacks = 0;
            }
            all.push(p);
        }
        all
    }

    #[test]
    fn a_tier_moves_one_step_a_window() {
        let letters =
            |own: &[Option<f64>]| -> String { run(own).iter().map(|p| p.tier.as_str()).collect() };
        // A new label knows nothing, and earns its way up.
        assert_eq!(letters(&[Some(1.0); 7]), "DCBASSS");
        // A leap of the coefficient costs one step a window, not all at once, and it is forgotten
        // when the five that count are calm again.
        let mut leap = vec![Some(1.0); 6];
        leap.push(Some(2.0));
        leap.extend([Some(1.0); 8]);
        assert_eq!(letters(&leap), "DCBASSABCDEDCBA");
        // A fallback keeps the tier.
        assert_eq!(letters(&[Some(1.0), None, None, Some(1.0)]), "DDDC");
    }

    #[test]
    fn without_a_mood_of_its_own_a_window_publishes_the_last_stable_one() {
        let all = run(&[None, Some(1.5), None, None, None, None, Some(1.1), None]);
        let states: Vec<_> = all.iter().map(Published::state).collect();
        let expected =
            ["neutral", "stable", "fallback", "fallback", "stale", "stale", "stable", "fallback"];
        assert_eq!(states, expected);
        let coeffs: Vec<_> = all.iter().map(|p| p.coeff).collect();
        assert_eq!(coeffs, [0.8, 1.5, 1.5, 1.5, 1.5, 1.5, 1.1, 1.1]);
        assert_eq!((all[0].id, all[0].tier, all[0].stable_ts), (MoodId::NEUTRAL, Tier::E, None));
        assert_eq!((all[4].age, all[4].stable_ts), (Millis::from_mins(90), Some(Time(3_600_000))));
        // Never stable, but for long: that is stale too.
        assert!(run(&[None; 3])[2].is_stale);
    }

    #[test]
    fn half_of_the_symbols_are_enough_and_one_bad_number_is_too_much() {
        let params = Params::default();
        let judge = |of: &[Option<f64>]| judge(&shares(of), &params).map(|(s, _)| s.t);
        assert_eq!(judge(&[Some(0.1), None]), Ok(0.1));
        assert_eq!(judge(&[Some(0.1), None, None]), Err(Reason::TooFew { have: 1, of: 3 }));
        assert_eq!(judge(&[None, None]), Err(Reason::WindowAbandoned));
        assert_eq!(judge(&[]), Err(Reason::NoSymbols));
        let bad = judge(&[Some(0.1), Some(f64::NAN), Some(0.2)]).unwrap_err();
        assert_eq!(bad.to_string(), "NOT_FINITE: the signal g of S1 is not a number");
        assert!(judge(&[Some(f64::MAX), Some(f64::MAX)]).is_err(), "the sum overflows");
    }

    #[test]
    fn labels_that_contradict_each_other_are_named() {
        let tier = |label: &str, tier| (label.to_owned(), tier);
        assert_eq!(incoherences(&[tier("30m", Tier::B), tier("1h", Tier::S)]), []);
        let found = incoherences(&[tier("30m", Tier::D), tier("1h", Tier::B), tier("3h", Tier::S)]);
        assert_eq!(found, [Incoherent { steady: "3h".into(), unsteady: "30m".into() }]);
    }

    proptest! {
        /// Whatever windows bring: the published coefficient is in bounds, a fallback repeats the last
        /// stable mood and never becomes one, and tiers move by one.
        #[test]
        fn a_fallback_never_overwrites_the_last_stable_mood(
            own in prop::collection::vec(prop::option::weighted(0.6, 0.2..=2.0_f64), 1..40),
        ) {
            let all = run(&own);
            let (mut last, mut tier) = (None, Tier::E);
            for (p, own) in all.iter().zip(&own) {
                prop_assert!((0.2..=2.0).contains(&p.coeff));
                prop_assert!((p.tier as i8 - tier as i8).abs() <= 1);
                tier = p.tier;
                prop_assert_eq!(p.is_fallback, own.is_none());
                if own.is_some() {
                    last = Some(*p);
                }
                match last {
                    Some(stable) => {
                        prop_assert_eq!((p.coeff, p.id, p.stable_ts), (stable.coeff, stable.id, stable.stable_ts));
                    }
                    None => prop_assert_eq!(p.state(), "neutral"),
                }
            }
        }
    }
}
