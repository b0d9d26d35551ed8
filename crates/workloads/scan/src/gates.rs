//! The gates that a symbol has to pass, in their order, and the exact words of each verdict
//! (sections 2.7 and 6.2). All are evaluated; the first that fails names the rejection. Comparisons are
//! of values as measured; what is missing or no number fails.

use serde::Serialize;
use watchbell_core::{Bps, Millis};

use crate::decimal::apart;
use crate::micro;
use crate::premove::Funding;
use crate::settings::{Settings, Tier};
use crate::vadr::{self, BARS_MIN, Cause, Live, Required, Vadr};

/// Whole bars that may have passed since the last one ended.
pub const AGE_MAX: i64 = 2;
/// How far from the last close the middle of the book may be, in average true ranges.
pub const MOVE_MAX: f64 = 1.2;
/// A return of 24 hours, in percent, and a strength beyond which a rise is spent.
const FATIGUE_RETURN: f64 = 12.0;
const FATIGUE_RSI: f64 = 70.0;
/// Unless it accelerates by this many percentage points.
const FATIGUE_ACCELERATION: f64 = 2.0;
/// Deviations of the funding rate, and the distance between exchanges, that are a divergence.
pub(crate) const FUNDING_Z: f64 = 2.0;
pub(crate) const FUNDING_DEVIATION: f64 = 0.00005;

/// A gate's verdict.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// Whether it blocks an entry, or is told only.
    pub enforced: bool,
    /// The verdict; none where it was not evaluated.
    pub passed: Option<bool>,
    /// What was measured, not rounded.
    pub value: Option<f64>,
    /// What it was compared with.
    pub threshold: Option<f64>,
    /// How: the value is to be this of the threshold.
    pub op: &'static str,
    /// Why it failed, or a word for how it passed.
    pub reason: String,
}

impl Gate {
    /// Whether it blocks.
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.enforced && self.passed == Some(false)
    }

    fn judged(name: &'static str, op: &'static str, verdict: Result<&'static str, String>) -> Self {
        let passed = Some(verdict.is_ok());
        let reason = verdict.map_or_else(|why| why, Into::into);
        Self { name, enforced: true, passed, value: None, threshold: None, op, reason }
    }

    fn of(mut self, value: Option<f64>, threshold: f64) -> Self {
        self.value = value.filter(|v| v.is_finite());
        self.threshold = Some(threshold);
        self
    }

    fn enforced(mut self, enforced: bool) -> Self {
        self.enforced = enforced;
        self
    }

    fn skipped(name: &'static str, op: &'static str, why: &str) -> Self {
        let reason = why.into();
        Self { name, enforced: false, passed: None, value: None, threshold: None, op, reason }
    }
}

/// The kind of a reason, without its figures: `spread_wide` of `spread_wide: 61.0 > 50.0 bps`.
#[must_use]
pub fn kind(reason: &str) -> &str {
    reason.split_once(": ").map_or(reason, |(kind, _)| kind)
}

/// Gate 1: every factor and an exchange's own book.
pub(crate) fn data(missing: Option<&str>) -> Gate {
    let verdict = missing.map_or(Ok("complete"), |what| Err(format!("data_missing:{what}")));
    Gate::judged("data", "==", verdict)
}

/// Gate 2: the composite before social points.
pub(crate) fn score(base: Option<f64>, min: f64) -> Gate {
    let verdict = if base.is_some_and(|v| v.is_finite() && v >= min) {
        Ok("passed")
    } else {
        let (value, limit) = apart(base, min, 1);
        Err(format!("score_below_threshold: {value} < {limit}"))
    };
    Gate::judged("score", ">=", verdict).of(base, min)
}

/// What is required of a ratio that was measured now (section 3.4).
pub(crate) fn required(live: &Live, settings: &Settings, tier: &Tier) -> Required {
    let p80 = if settings.vadr_p80 { live.p80() } else { f64::NEG_INFINITY };
    vadr::required(p80, tier.vadr_min, settings.vadr_floor)
}

/// Gate 3: the activity of the last bar. Only what was measured now can pass.
pub(crate) fn vadr(vadr: &Vadr, settings: &Settings, tier: &Tier) -> Gate {
    let gate = |verdict| Gate::judged("vadr", ">=", verdict);
    match vadr {
        Vadr::Live(live) => {
            let required = required(live, settings, tier);
            let verdict = if vadr::passes(live, required) {
                Ok("passed")
            } else {
                let (value, limit) = apart(Some(live.value()), required.value, 2);
                Err(format!("vadr_low: {value} < {limit} ({})", required.binding))
            };
            gate(verdict).of(Some(live.value()), required.value)
        }
        Vadr::Frozen(frozen) => {
            let why = match frozen.cause {
                Cause::Few => "",
                Cause::NoCurrent => " (no current bar)",
                Cause::Still => " (nothing traded before)",
            };
            let reason = format!("vadr_frozen: {}/{BARS_MIN} bars{why}", frozen.bars);
            gate(Err(reason)).of(None, tier.vadr_min)
        }
    }
}

/// Gate 4. `invalid`: why the book has no spread.
pub(crate) fn spread(bps: Option<f64>, max: Bps, invalid: Option<&str>) -> Gate {
    let verdict = micro::spread(bps, max).map_err(|e| invalid.map_or(e, Into::into));
    Gate::judged("spread", "<=", verdict.map(|()| "passed")).of(bps, max.0)
}

/// Gate 5.
pub(crate) fn depth(usd: Option<f64>, min: f64, invalid: Option<&str>) -> Gate {
    let verdict = micro::depth(usd, min).map_err(|e| invalid.map_or(e, Into::into));
    Gate::judged("depth", ">=", verdict.map(|()| "passed")).of(usd, min)
}

/// How fresh the data are.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Freshness {
    /// Whole bars since the last one ended.
    pub(crate) bars: Option<i64>,
    /// From the last close to the middle of the book, in average true ranges.
    pub(crate) moved: Option<f64>,
    /// Age of cached bars and how old they may be, where a bar has closed since they were fetched.
    pub(crate) cache: Option<(Millis, Millis)>,
}

/// How many average true ranges the middle is away from the close; 0 where neither moved.
pub(crate) fn moved(mid: f64, close: f64, atr: f64) -> f64 {
    let distance = (mid - close).abs();
    if distance == 0.0 && atr == 0.0 { 0.0 } else { distance / atr }
}

/// Gate 6.
pub(crate) fn freshness(fresh: Freshness) -> Gate {
    let bars = fresh.bars.map(|b| b as f64);
    let gate = |verdict| Gate::judged("freshness", "<=", verdict);
    if fresh.bars.is_none_or(|b| !(0..=AGE_MAX).contains(&b)) {
        let why = match fresh.bars {
            Some(b) if b < 0 => format!("stale_bars: {b} < 0"),
            Some(b) => format!("stale_bars: {b} > {AGE_MAX}"),
            None => format!("stale_bars: - > {AGE_MAX}"),
        };
        return gate(Err(why)).of(bars, AGE_MAX as f64);
    }
    if let Some((age, limit)) = fresh.cache.filter(|(age, limit)| age > limit) {
        let (value, most) = (age.as_secs_f64(), limit.as_secs_f64());
        let (a, b) = apart(Some(value), most, 0);
        return gate(Err(format!("stale_cache: {a}s > {b}s"))).of(Some(value), most);
    }
    if fresh.moved.is_some_and(|m| m <= MOVE_MAX) {
        return gate(Ok("fresh")).of(bars, AGE_MAX as f64);
    }
    let (value, limit) = apart(fresh.moved, MOVE_MAX, 2);
    gate(Err(format!("excessive_move: {value} > {limit} atr"))).of(fresh.moved, MOVE_MAX)
}

/// Gate 7: a rise that is spent, unless it accelerates. Return in percent, acceleration in percentage
/// points. What is missing speaks against.
pub(crate) fn fatigue(
    return_24h: Option<f64>,
    rsi: Option<f64>,
    acceleration: Option<f64>,
) -> Gate {
    let rests = return_24h.is_some_and(|r| r <= FATIGUE_RETURN)
        || rsi.is_some_and(|r| r <= FATIGUE_RSI)
        || acceleration.is_some_and(|a| a >= FATIGUE_ACCELERATION);
    let verdict = if rests {
        Ok("fatigue_pass")
    } else {
        let (r, s) = (apart(return_24h, FATIGUE_RETURN, 1).0, apart(rsi, FATIGUE_RSI, 1).0);
        Err(format!("fatigue_block: 24h {r}% rsi {s}"))
    };
    Gate::judged("fatigue", "<=", verdict).of(return_24h, FATIGUE_RETURN)
}

/// Gate 8: from the newest book to the decision.
pub(crate) fn late_fill(delay: Option<Millis>, max: Millis) -> Gate {
    let (seconds, limit) = (delay.map(Millis::as_secs_f64), max.as_secs_f64());
    let verdict = match delay {
        Some(d) if d < Millis::ZERO => {
            let (value, zero) = apart(seconds, 0.0, 0);
            Err(format!("late_fill: {value}s < {zero}s"))
        }
        Some(d) if d <= max => Ok("timely_fill"),
        _ => {
            let (value, limit) = apart(seconds, limit, 0);
            Err(format!("late_fill: {value}s > {limit}s"))
        }
    };
    Gate::judged("late_fill", "<=", verdict).of(seconds, limit)
}

/// Gate 8 where nothing is entered at once, or the book was not read again.
pub(crate) fn no_late_fill(why: &str) -> Gate {
    Gate::skipped("late_fill", "<=", why)
}

/// Gate 9: whether funding rates diverge (section 5.1).
pub(crate) fn funding(funding: Option<&Funding>, enforced: bool) -> Gate {
    let z = funding.map(|f| f.z.abs());
    let verdict = match funding {
        None => Err("funding_absent".into()),
        Some(f) if !(f.z.is_finite() && f.z.abs() >= FUNDING_Z) => {
            let (value, limit) = apart(z, FUNDING_Z, 1);
            Err(format!("funding_flat: abs_z {value} < {limit}"))
        }
        Some(f) if f.deviation >= FUNDING_DEVIATION => Ok("diverging"),
        Some(f) => {
            let (value, limit) = apart(Some(f.deviation), FUNDING_DEVIATION, 5);
            Err(format!("funding_flat: deviation {value} < {limit}"))
        }
    };
    Gate::judged("funding_divergence", ">=", verdict).of(z, FUNDING_Z).enforced(enforced)
}

/// Gate 9 where no entry is looked for.
pub(crate) fn no_funding(why: &str) -> Gate {
    Gate::skipped("funding_divergence", ">=", why)
}

/// The guards among the gates, enforced or told only.
pub(crate) fn guard(gate: Gate, enforced: bool) -> Gate {
    let enforced = gate.enforced && enforced;
    gate.enforced(enforced)
}

/// A confirmation of a move to come: the value is at least the threshold, and nothing else speaks
/// against it (section 5.3).
pub(crate) fn confirmation(
    name: &'static str,
    value: Option<f64>,
    min: f64,
    against: Option<&str>,
) -> Gate {
    let enough = value.is_some_and(|v| v >= min);
    let verdict = match (value, against) {
        (None, _) => Err("unavailable".into()),
        (Some(_), None) if enough => Ok("passed"),
        (Some(_), Some(why)) if enough => Err(format!("{name}_unconfirmed: {why}")),
        (Some(_), _) => {
            let (value, limit) = apart(value, min, 2);
            Err(format!("{name}_low: {value} < {limit}"))
        }
    };
    Gate::judged(name, ">=", verdict).of(value, min).enforced(false)
}

/// The line of a verdict: every failure that blocks, in order.
pub(crate) fn line(gates: &[Gate]) -> (String, String) {
    let failed: Vec<&str> =
        gates.iter().filter(|g| g.blocks()).map(|g| g.reason.as_str()).collect();
    match failed.first() {
        None => ("all_gates_passed".into(), "all_gates_passed".into()),
        Some(first) => (kind(first).to_owned(), failed.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::TIERS;

    fn told(gate: &Gate) -> (Option<bool>, &str) {
        (gate.passed, &gate.reason)
    }
    const PASS: Option<bool> = Some(true);
    const FAIL: Option<bool> = Some(false);

    /// Section 6.2: the exact words, and edges that pass.
    #[test]
    fn score_says_by_how_much() {
        for (base, min, passed, reason) in [
            (Some(75.0), 75.0, PASS, "passed"),
            (Some(71.3), 75.0, FAIL, "score_below_threshold: 71.3 < 75.0"),
            (Some(74.999), 75.0, FAIL, "score_below_threshold: 74.999 < 75.000"),
            (Some(65.0), 65.0, PASS, "passed"),
            (Some(64.9), 65.0, FAIL, "score_below_threshold: 64.9 < 65.0"),
            (None, 75.0, FAIL, "score_below_threshold: - < 75.0"),
            (Some(f64::NAN), 75.0, FAIL, "score_below_threshold: - < 75.0"),
            (Some(f64::INFINITY), 75.0, FAIL, "score_below_threshold: - < 75.0"),
        ] {
            let gate = score(base, min);
            assert_eq!(told(&gate), (passed, reason), "{base:?}");
            assert!(gate.enforced);
        }
        assert_eq!(told(&data(None)), (PASS, "complete"));
        assert_eq!(
            told(&data(Some("factor_missing:volume"))),
            (FAIL, "data_missing:factor_missing:volume")
        );
    }

    /// Sections 3.3, 3.4 and 6.2.
    #[test]
    fn vadr_names_the_term_that_binds() {
        let hot = Settings::hot();
        let frozen = |bars, cause| Vadr::Frozen(vadr::Frozen { bars, last_good: Some(9.0), cause });
        for (cause, reason) in [
            (Cause::Few, "vadr_frozen: 17/20 bars"),
            (Cause::NoCurrent, "vadr_frozen: 17/20 bars (no current bar)"),
            (Cause::Still, "vadr_frozen: 17/20 bars (nothing traded before)"),
        ] {
            let gate = super::vadr(&frozen(17, cause), &hot, &TIERS[0]);
            assert_eq!(told(&gate), (FAIL, reason), "a last good value never passes");
        }
        // Hours of a percent of range each; the last trades 1.62 times the usual, by its root.
        let end = watchbell_core::Time(0) + Millis::from_hours(24);
        let measure = |ratio: f64| {
            let mut bars = crate::bars::tests::hourly(0, &[100.0; 24]);
            bars[23].quote_volume *= ratio * ratio;
            vadr::measure(&bars, end)
        };
        for (ratio, tier, settings, passed, reason) in [
            (1.62, &TIERS[0], &hot, FAIL, "vadr_low: 1.62 < 1.85 (tier_min)"),
            (1.62, &TIERS[1], &hot, FAIL, "vadr_low: 1.62 < 1.80 (entry_floor)"),
            (1.77, &TIERS[2], &hot, FAIL, "vadr_low: 1.77 < 1.80 (entry_floor)"),
            (1.77, &TIERS[2], &Settings::warm(), PASS, "passed"),
            (1.86, &TIERS[0], &hot, PASS, "passed"),
        ] {
            let gate = super::vadr(&measure(ratio), settings, tier);
            assert_eq!(told(&gate), (passed, reason), "{ratio}");
        }
    }

    #[test]
    fn spread_and_depth_say_by_how_much() {
        for (bps, invalid, passed, reason) in [
            (Some(50.0), None, PASS, "passed"),
            (Some(61.0), None, FAIL, "spread_wide: 61.0 > 50.0 bps"),
            (Some(50.01), None, FAIL, "spread_wide: 50.01 > 50.00 bps"),
            (None, None, FAIL, "spread_wide: - > 50.0 bps"),
            (None, Some("invalid_book"), FAIL, "invalid_book"),
            (Some(f64::NAN), None, FAIL, "spread_wide: - > 50.0 bps"),
        ] {
            assert_eq!(told(&spread(bps, Bps(50.0), invalid)), (passed, reason), "{bps:?}");
        }
        for (usd, invalid, passed, reason) in [
            (Some(100_000.0), None, PASS, "passed"),
            (Some(84_000.0), None, FAIL, "depth_thin: 84000 < 100000 usd"),
            (Some(99_999.9), None, FAIL, "depth_thin: 99999.9 < 100000.0 usd"),
            (None, Some("invalid_book"), FAIL, "invalid_book"),
            (None, None, FAIL, "depth_thin: - < 100000 usd"),
        ] {
            assert_eq!(told(&depth(usd, 100_000.0, invalid)), (passed, reason), "{usd:?}");
        }
    }

    /// Section 2.7.
    #[test]
    fn freshness_wants_new_bars_and_a_price_that_stayed() {
        let cache = |age, ttl| Some((Millis::from_secs(age), Millis::from_secs(ttl)));
        for (bars, moved, cache, passed, reason) in [
            (Some(0), Some(0.0), None, PASS, "fresh"),
            (Some(2), Some(1.2), None, PASS, "fresh"),
            (Some(3), Some(0.0), None, FAIL, "stale_bars: 3 > 2"),
            (Some(-1), Some(0.0), None, FAIL, "stale_bars: -1 < 0"),
            (None, Some(0.0), None, FAIL, "stale_bars: - > 2"),
            (Some(0), Some(1.31), None, FAIL, "excessive_move: 1.31 > 1.20 atr"),
            (Some(0), Some(1.200_01), None, FAIL, "excessive_move: 1.20001 > 1.20000 atr"),
            (Some(0), None, None, FAIL, "excessive_move: - > 1.20 atr"),
            (Some(0), Some(f64::NAN), None, FAIL, "excessive_move: - > 1.20 atr"),
            (Some(0), Some(0.0), cache(1_800, 1_800), PASS, "fresh"),
            (Some(0), Some(0.0), cache(1_801, 1_800), FAIL, "stale_cache: 1801s > 1800s"),
        ] {
            let gate = freshness(Freshness { bars, moved, cache });
            assert_eq!(told(&gate), (passed, reason), "{bars:?} {moved:?}");
        }
        assert_eq!((moved(5.0, 5.0, 0.0), moved(6.0, 5.0, 2.0)), (0.0, 0.5));
        assert!(moved(6.0, 5.0, 0.0).is_infinite() && moved(f64::NAN, 5.0, 1.0).is_nan());
    }

    /// Section 2.7.
    #[test]
    fn fatigue_blocks_a_spent_rise_unless_it_accelerates() {
        let block = "fatigue_block: 24h 13.2% rsi 74.0";
        for (r, rsi, accel, passed, reason) in [
            (Some(13.2), Some(74.0), Some(1.9), FAIL, block),
            (Some(13.2), Some(74.0), None, FAIL, block),
            (Some(13.2), Some(74.0), Some(2.0), PASS, "fatigue_pass"),
            (Some(12.0), Some(99.0), None, PASS, "fatigue_pass"),
            (Some(50.0), Some(70.0), None, PASS, "fatigue_pass"),
            (Some(12.001), Some(70.001), None, FAIL, "fatigue_block: 24h 12.001% rsi 70.001"),
            (None, None, None, FAIL, "fatigue_block: 24h -% rsi -"),
            (Some(f64::NAN), Some(f64::NAN), Some(f64::NAN), FAIL, "fatigue_block: 24h -% rsi -"),
            (None, Some(50.0), None, PASS, "fatigue_pass"),
        ] {
            assert_eq!(told(&fatigue(r, rsi, accel)), (passed, reason), "{r:?} {rsi:?} {accel:?}");
        }
    }

    /// Section 2.7.
    #[test]
    fn a_decision_is_late_after_thirty_seconds() {
        for (ms, passed, reason) in [
            (Some(0), PASS, "timely_fill"),
            (Some(30_000), PASS, "timely_fill"),
            (Some(41_000), FAIL, "late_fill: 41s > 30s"),
            (Some(30_001), FAIL, "late_fill: 30.001s > 30.000s"),
            (Some(-2_000), FAIL, "late_fill: -2s < 0s"),
            (None, FAIL, "late_fill: -s > 30s"),
        ] {
            let gate = late_fill(ms.map(Millis), Millis::from_secs(30));
            assert_eq!(told(&gate), (passed, reason), "{ms:?}");
        }
        let skipped = no_late_fill("not_evaluated");
        assert_eq!((told(&skipped), skipped.enforced), ((None, "not_evaluated"), false));
    }

    /// Sections 5.1 and 6.2.
    #[test]
    fn funding_is_told_and_blocks_only_where_it_is_required() {
        let of = |z, deviation| Funding { z, deviation, sources: vec![] };
        for (rates, passed, reason) in [
            (None, FAIL, "funding_absent"),
            (Some(of(1.2, 1.0)), FAIL, "funding_flat: abs_z 1.2 < 2.0"),
            (Some(of(f64::NAN, 1.0)), FAIL, "funding_flat: abs_z - < 2.0"),
            (Some(of(-2.0, 0.00005)), PASS, "diverging"),
            (Some(of(2.0, 0.00004)), FAIL, "funding_flat: deviation 0.00004 < 0.00005"),
            (Some(of(2.0, f64::NAN)), FAIL, "funding_flat: deviation - < 0.00005"),
        ] {
            for enforced in [false, true] {
                let gate = funding(rates.as_ref(), enforced);
                assert_eq!(told(&gate), (passed, reason));
                assert_eq!(gate.blocks(), enforced && passed == FAIL);
            }
        }
    }

    #[test]
    fn the_first_failure_that_blocks_names_the_rejection() {
        let gates = [
            data(None),
            score(Some(71.3), 75.0),
            spread(Some(61.0), Bps(50.0), None),
            guard(fatigue(None, None, None), false),
        ];
        let failures = "score_below_threshold: 71.3 < 75.0; spread_wide: 61.0 > 50.0 bps";
        assert_eq!(line(&gates), ("score_below_threshold".into(), failures.into()));
        let passed = ("all_gates_passed".to_owned(), "all_gates_passed".to_owned());
        assert_eq!(line(&gates[..1]), passed);
        assert_eq!(kind("data_missing:book: few_levels: 3 < 5"), "data_missing:book");
    }
}
