//! From three numbers to a mood (section 7.2 and 7.3): pure, total, and the same to the bit on every
//! machine.

use std::fmt;

use serde::Serialize;

use crate::analytics::math;

/// The coefficient where nothing is known: that of three signals that are nil.
pub const NEUTRAL: f64 = 0.8;
/// The coefficient's bounds.
pub const COEFF: (f64, f64) = (0.2, 2.0);

/// Bounds of the tendency's term, of the swap's term, and of GFM about 1.
const V_T_LIMIT: f64 = 1.2;
const V_S_LIMIT: f64 = 0.5;
const GFM: (f64, f64) = (0.8, 1.2);
/// Cuts of GFM's distance from 1.
const GFM_CUTS: [f64; 3] = [0.05, 0.10, 0.15];

/// Centre and spread by which tendency and swap are normalised.
///
/// With the defaults both terms saturate for nearly every market: they are those of the formula's
/// first implementation. A spread of 0.5 for the tendency and 0.35 for the swap uses the whole range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Params {
    /// Centre of the tendency.
    #[serde(rename = "muT")]
    pub mu_t: f64,
    /// Spread of the tendency; more than zero.
    #[serde(rename = "sigmaT")]
    pub sigma_t: f64,
    /// Centre of the swap.
    #[serde(rename = "muS")]
    pub mu_s: f64,
    /// Spread of the swap; more than zero.
    #[serde(rename = "sigmaS")]
    pub sigma_s: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { mu_t: 0.0, sigma_t: 0.02, mu_s: 0.0, sigma_s: 0.05 }
    }
}

/// Parameters that make no mood.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum ParamsError {
    /// A centre that is no number.
    #[error("the mood's {name} is {value}: it must be a finite number")]
    Centre {
        /// `mu_t` or `mu_s`.
        name: &'static str,
        /// Value.
        value: f64,
    },
    /// A spread by which nothing can be divided.
    #[error("the mood's {name} is {value}: it must be a finite number above zero")]
    Spread {
        /// `sigma_t` or `sigma_s`.
        name: &'static str,
        /// Value.
        value: f64,
    },
}

impl Params {
    /// Checks that every input has a mood by these parameters.
    ///
    /// # Errors
    /// The first number that does not serve.
    pub fn check(&self) -> Result<(), ParamsError> {
        for (name, value) in [("mu_t", self.mu_t), ("mu_s", self.mu_s)] {
            if !value.is_finite() {
                return Err(ParamsError::Centre { name, value });
            }
        }
        for (name, value) in [("sigma_t", self.sigma_t), ("sigma_s", self.sigma_s)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(ParamsError::Spread { name, value });
            }
        }
        Ok(())
    }
}

/// What a mood is made of, as fractions: the change of the floating mode, the tendency and the swap.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Signals {
    /// Change of the floating mode against the window's opening: 0.01 is one per cent.
    pub g: f64,
    /// Tendency, in -1..=1.
    pub t: f64,
    /// Swap, in -1..=1.
    pub v: f64,
}

impl Signals {
    /// Nothing moves.
    pub const NIL: Self = Self { g: 0.0, t: 0.0, v: 0.0 };

    /// Whether all three are numbers.
    #[must_use]
    pub fn are_finite(&self) -> bool {
        [self.g, self.t, self.v].iter().all(|x| x.is_finite())
    }
}

/// A mood: one coefficient, what it was combined of, and its class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Mood {
    /// The tendency's term, in 0.4..=1.2.
    #[serde(rename = "vT")]
    pub v_t: f64,
    /// The floating mode's divisor, in 0.8..=1.2.
    #[serde(rename = "GFM")]
    pub gfm: f64,
    /// The swap's term, in -0.5..=0.5.
    #[serde(rename = "vS")]
    pub v_s: f64,
    /// `vT / GFM + vS`, in 0.2..=2.
    pub coeff: f64,
    /// Its class.
    pub id: MoodId,
}

impl Mood {
    /// The mood of these signals. A signal that is not a number counts as one at its centre, so that
    /// there is always a mood; whether it may be published is decided before.
    ///
    /// ```
    /// use watchbell_market::mood::{Mood, Params, Signals};
    /// let mood = Mood::of(&Signals { g: 0.0025, t: 0.02, v: 0.05 }, &Params::default());
    /// assert_eq!(mood.id.to_string(), "Fd1");
    /// ```
    #[must_use]
    pub fn of(signals: &Signals, params: &Params) -> Self {
        let gfm = (1.0 + 20.0 * or_nil(signals.g)).clamp(GFM.0, GFM.1);
        let z_t = or_nil((signals.t - params.mu_t) / params.sigma_t).clamp(-1.0, 1.0);
        let v_t = (0.8_f64 + 0.4 * z_t).clamp(-V_T_LIMIT, V_T_LIMIT);
        let z_s = or_nil((signals.v - params.mu_s) / params.sigma_s);
        let v_s = (0.5 * math::tanh(0.75 * z_s)).clamp(-V_S_LIMIT, V_S_LIMIT);
        let coeff = (v_t / gfm + v_s).clamp(COEFF.0, COEFF.1);
        Self { v_t, gfm, v_s, coeff, id: MoodId::of(v_t, v_s, gfm) }
    }

    /// The mood where nothing is known: 0.8, `Ea0`.
    #[must_use]
    pub fn neutral() -> Self {
        Self::of(&Signals::NIL, &Params::default())
    }
}

fn or_nil(x: f64) -> f64 {
    if x.is_nan() { 0.0 } else { x }
}

/// The class of a mood in three characters: a letter for the tendency's term, one for the swap's, a
/// digit for the floating mode's. Of the 1152 classes those are reachable whose first letter is one of
/// C to F, for the tendency's term is never below 0.4.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MoodId([u8; 3]);

/// One part of a class: which bucket, and the values that fall into it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bucket {
    /// Its character.
    pub mark: char,
    /// How many cuts the magnitude exceeds.
    pub index: u8,
    /// Lower bound.
    pub from: f64,
    /// Upper bound.
    pub to: f64,
}

/// The three buckets of a class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Buckets {
    /// Of the tendency's term.
    #[serde(rename = "vT")]
    pub v_t: Bucket,
    /// Of the swap's term.
    #[serde(rename = "vS")]
    pub v_s: Bucket,
    /// Of the floating mode's.
    #[serde(rename = "GFM")]
    pub gfm: Bucket,
}

/// The `i`-th of six equal parts of `limit`: divided first and then multiplied, for the class of 0.8
/// hangs on the last bit (four fifths of 1.2 are 0.7999999999999999 this way, which 0.8 exceeds).
const fn cut(limit: f64, i: u8) -> f64 {
    limit / 6.0 * i as f64
}

/// How many of the five cuts of `limit` a magnitude exceeds.
fn sixth(magnitude: f64, limit: f64) -> u8 {
    (1..=5).map(|i| u8::from(magnitude > cut(limit, i))).sum()
}

impl MoodId {
    /// The class of a mood where nothing is known.
    pub const NEUTRAL: Self = Self(*b"Ea0");

    fn of(v_t: f64, v_s: f64, gfm: f64) -> Self {
        let letter = |x: f64, limit: f64, first: u8| {
            first + sixth(x.abs(), limit) + if x >= 0.0 { 0 } else { 6 }
        };
        let off: u8 = GFM_CUTS.iter().map(|cut| u8::from((gfm - 1.0).abs() > *cut)).sum();
        let digit = b'0' + off + if gfm >= 1.0 { 0 } else { 4 };
        Self([letter(v_t, V_T_LIMIT, b'A'), letter(v_s, V_S_LIMIT, b'a'), digit])
    }

    /// The class of three stored characters; `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let id: [u8; 3] = text.as_bytes().try_into().ok()?;
        let known = (b'A'..=b'L').contains(&id[0])
            && (b'a'..=b'l').contains(&id[1])
            && (b'0'..=b'7').contains(&id[2]);
        known.then_some(Self(id))
    }

    /// Which values the three characters stand for.
    #[must_use]
    pub fn buckets(self) -> Buckets {
        let lettered = |mark: u8, first: u8, limit: f64| {
            let (index, below) = ((mark - first) % 6, mark - first >= 6);
            let outer = if index == 5 { limit } else { cut(limit, index + 1) };
            bucket(mark, index, cut(limit, index), outer, below, 0.0)
        };
        let (digit, below) = ((self.0[2] - b'0') % 4, self.0[2] >= b'4');
        let inner = if digit == 0 { 0.0 } else { GFM_CUTS[usize::from(digit) - 1] };
        let outer = GFM_CUTS.get(usize::from(digit)).copied().unwrap_or(GFM.1 - 1.0);
        Buckets {
            v_t: lettered(self.0[0], b'A', V_T_LIMIT),
            v_s: lettered(self.0[1], b'a', V_S_LIMIT),
            gfm: bucket(self.0[2], digit, inner, outer, below, 1.0),
        }
    }
}

fn bucket(mark: u8, index: u8, inner: f64, outer: f64, below: bool, centre: f64) -> Bucket {
    let (from, to) =
        if below { (centre - outer, centre - inner) } else { (centre + inner, centre + outer) };
    Bucket { mark: char::from(mark), index, from, to }
}

impl fmt::Display for MoodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.0).expect("three ASCII characters"))
    }
}

impl fmt::Debug for MoodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MoodId({self})")
    }
}

impl Serialize for MoodId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One symbol's part in a mood. A signal that it does not have is `None`; one that came out as no
/// number is kept as it is, for it must not pass in silence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Share {
    /// Change of the floating mode.
    pub g: Option<f64>,
    /// Tendency.
    pub t: Option<f64>,
    /// Swap.
    pub v: Option<f64>,
    /// Weight, 1 or more.
    pub weight: f64,
}

impl Share {
    /// All three signals, if it has them.
    #[must_use]
    pub fn signals(&self) -> Option<Signals> {
        Some(Signals { g: self.g?, t: self.t?, v: self.v? })
    }
}

/// The weighted means: each over the symbols that have that signal, left to right; nil where none has
/// it.
#[must_use]
pub fn aggregate(shares: &[Share]) -> Signals {
    let mean = |signal: fn(&Share) -> Option<f64>| {
        let (mut sum, mut weights) = (0.0, 0.0);
        for share in shares {
            if let Some(x) = signal(share) {
                sum += share.weight * x;
                weights += share.weight;
            }
        }
        if weights == 0.0 { 0.0 } else { sum / weights }
    };
    Signals { g: mean(|s| s.g), t: mean(|s| s.t), v: mean(|s| s.v) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Section 12: (g, t, v) to (vT, GFM, vS, coeff, id). Chains with a tanh to 1e-9, the rest to
    /// 1e-12.
    #[test]
    fn goldens() {
        #[rustfmt::skip]
        let table = [
            ((0.0, 0.0, 0.0), (0.8, 1.0, 0.0, 0.8), "Ea0"),
            ((0.01, 0.01, 0.02), (1.0, 1.2, 0.145_656_306_225_795_45, 0.978_989_639_559_128_9), "Fb3"),
            ((-0.005, -0.02, -0.05), (0.4, 0.9, -0.317_574_476_193_643_65, 0.2), "Cj5"),
            ((0.002, 0.005, -0.01), (0.9, 1.04, -0.074_442_516_811_658_99, 0.790_942_098_572_956_4), "Eg0"),
            ((0.0025, 0.02, 0.05), (1.2, 1.05, 0.317_574_476_193_643_65, 1.460_431_619_050_786_7), "Fd1"),
        ];
        for ((g, t, v), (v_t, gfm, v_s, coeff), id) in table {
            let mood = Mood::of(&Signals { g, t, v }, &Params::default());
            let close = |a: f64, b: f64, eps: f64| (a - b).abs() <= eps * b.abs();
            assert!(close(mood.v_t, v_t, 1e-12), "{id}: vT {}", mood.v_t);
            assert!(close(mood.gfm, gfm, 1e-12), "{id}: GFM {}", mood.gfm);
            assert!(close(mood.v_s, v_s, 1e-9), "{id}: vS {}", mood.v_s);
            assert!(close(mood.coeff, coeff, 1e-9), "{id}: coeff {}", mood.coeff);
            assert_eq!(mood.id.to_string(), id);
        }
        assert_eq!(Mood::neutral().coeff, NEUTRAL);
        assert_eq!(Mood::neutral().id, MoodId::NEUTRAL);
    }

    /// Section 7.3: these classes hang on the last bit of a cut.
    #[test]
    fn cuts_are_divided_and_then_multiplied() {
        assert_eq!(cut(V_T_LIMIT, 4), 0.799_999_999_999_999_9);
        assert_eq!(cut(V_T_LIMIT, 5), 0.999_999_999_999_999_9);
        for (v_t, letter) in [
            (0.2, 'B'),
            (0.4, 'C'),
            (0.8, 'E'),
            (1.0, 'F'),
            (cut(V_T_LIMIT, 4), 'D'),
            (cut(V_T_LIMIT, 5), 'E'),
            (1.2, 'F'),
            (0.0, 'A'),
            (-0.0, 'A'),
            (-0.1, 'G'),
            (-1.2, 'L'),
        ] {
            assert_eq!(MoodId::of(v_t, 0.0, 1.0).buckets().v_t.mark, letter, "{v_t}");
        }
        for (gfm, digit) in
            [(1.0, '0'), (1.05, '1'), (0.95, '5'), (0.96, '4'), (1.1, '2'), (0.8, '7'), (1.2, '3')]
        {
            assert_eq!(MoodId::of(0.8, 0.0, gfm).buckets().gfm.mark, digit, "{gfm}");
        }
        for (v_s, letter) in [(0.5, 'f'), (-0.5, 'l'), (0.09, 'b'), (-0.01, 'g')] {
            assert_eq!(MoodId::of(0.8, v_s, 1.0).buckets().v_s.mark, letter, "{v_s}");
        }
    }

    #[test]
    fn each_signal_has_its_own_denominator() {
        let share = |g, t, v, weight| Share { g, t, v, weight };
        let shares = [
            share(Some(0.01), Some(0.5), None, 1.0),
            share(None, Some(-0.5), None, 3.0),
            share(Some(0.03), None, None, 1.0),
        ];
        let all = aggregate(&shares);
        assert_eq!((all.g, all.t, all.v), (0.02, -0.25, 0.0));
        assert_eq!(aggregate(&[]), Signals::NIL);
    }

    #[test]
    fn parameters_that_divide_by_nothing_are_refused() {
        assert_eq!(Params::default().check(), Ok(()));
        for (params, says) in [
            (
                Params { sigma_t: 0.0, ..Params::default() },
                "the mood's sigma_t is 0: it must be a finite number above zero",
            ),
            (
                Params { mu_s: f64::NAN, ..Params::default() },
                "the mood's mu_s is NaN: it must be a finite number",
            ),
        ] {
            assert_eq!(params.check().unwrap_err().to_string(), says);
        }
    }

    fn any_number() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>(),
            -1.0..1.0_f64,
            Just(f64::NAN),
            Just(f64::INFINITY),
            Just(f64::NEG_INFINITY)
        ]
    }

    proptest! {
        #[test]
        fn any_input_has_a_mood_within_bounds_and_its_class_tells_where(
            g in any_number(), t in any_number(), v in any_number(),
            mu in any_number(), sigma in any_number(),
        ) {
            let odd = Params { mu_t: mu, sigma_t: sigma, mu_s: mu, sigma_s: sigma };
            for params in [Params::default(), odd] {
                let mood = Mood::of(&Signals { g, t, v }, &params);
                prop_assert!((COEFF.0..=COEFF.1).contains(&mood.coeff), "{mood:?}");
                let id = mood.id.to_string();
                prop_assert_eq!(MoodId::parse(&id), Some(mood.id));
                prop_assert!("CDEF".contains(&id[..1]), "{}", id);
                let buckets = mood.id.buckets();
                for (x, b) in [(mood.v_t, buckets.v_t), (mood.v_s, buckets.v_s), (mood.gfm, buckets.gfm)] {
                    // A cut itself belongs to the bucket nearer to the centre; GFM's are measured
                    // after a subtraction.
                    prop_assert!(b.from - 1e-15 <= x && x <= b.to + 1e-15, "{x} is not in {b:?}");
                }
            }
        }
    }
}
