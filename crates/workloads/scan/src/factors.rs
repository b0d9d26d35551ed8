//! The factors beside momentum, and what is left of each when those before it are taken out across
//! the symbols (sections 2.5 and 2.6).

use watchbell_core::math;
use watchbell_venues::native::Bar;

use crate::bars;
use crate::indicators;
use crate::settings::Tier;
use crate::vadr::Vadr;

/// The fewest symbols that residuals are taken over: with fewer they vanish.
pub const RESIDUAL_MIN: usize = 8;
/// A column whose square sum is below this explains nothing.
const EMPTY: f64 = 1e-12;

/// Points for strength, trend, persistence and range of the 4-hour bars, as a share of the points of
/// what is available; none when nothing is.
#[must_use]
pub fn technical(fours: &[Bar]) -> Option<f64> {
    let rsi = indicators::rsi(fours).map(|v| {
        let within = |low: f64, high: f64| (low..=high).contains(&v);
        let points = match () {
            () if within(40.0, 60.0) => 30.0,
            () if within(30.0, 70.0) => 25.0,
            () if within(20.0, 80.0) => 15.0,
            () => 5.0,
        };
        (points, 30.0)
    });
    let steps = |v: f64, steps: [(f64, f64); 3], max: f64| {
        (steps.into_iter().find(|(least, _)| v >= *least).map_or(5.0, |(_, points)| points), max)
    };
    let adx =
        indicators::adx(fours).map(|v| steps(v, [(25.0, 25.0), (20.0, 20.0), (15.0, 15.0)], 25.0));
    let hurst = indicators::hurst(fours)
        .map(|v| steps(v, [(0.60, 25.0), (0.55, 20.0), (0.50, 10.0)], 25.0));
    let range = indicators::atr(fours).zip(fours.last()).map(|(atr, last)| {
        steps(100.0 * atr / last.close, [(3.0, 20.0), (2.0, 15.0), (1.0, 10.0)], 20.0)
    });
    let known = [rsi, adx, hurst, range].into_iter().flatten();
    let (points, of) = known.fold((0.0, 0.0), |(p, m), (points, max)| (p + points, m + max));
    (of > 0.0).then(|| 100.0 * points / of)
}

/// The last hour's value traded beside the usual.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Volume {
    /// Times the mean of the 7 days before; none where that is no number.
    pub ratio: Option<f64>,
    /// 0 to 100; 50 for the usual.
    pub score: f64,
}

/// Hours of the mean, and the fewest of them that are one.
const VOLUME_HOURS: i64 = 168;
const VOLUME_MIN: usize = 24;

/// None when there are too few hours to compare with.
#[must_use]
pub fn volume(hours: &[Bar]) -> Option<Volume> {
    let (last, before) = hours.split_last()?;
    let first = last.open_time - watchbell_core::Millis::from_hours(VOLUME_HOURS);
    let before = &before[before.partition_point(|b| b.open_time < first)..];
    if before.len() < VOLUME_MIN {
        return None;
    }
    let mean = before.iter().map(|b| b.quote_volume).sum::<f64>() / before.len() as f64;
    Some(volume_score(last.quote_volume / mean))
}

/// 50 for the usual, 25 more for each factor of ten; 0 when nothing is traded.
#[must_use]
pub fn volume_score(ratio: f64) -> Volume {
    if ratio.is_finite() && ratio > 0.0 {
        let score = (50.0 + 25.0 * math::log10(ratio)).clamp(0.0, 100.0);
        Volume { ratio: Some(ratio), score }
    } else {
        Volume { ratio: None, score: 0.0 }
    }
}

/// Depth, activity and spread beside what the tier asks, 0 to 100. The market's capitalisation, which
/// no exchange tells, is left out and its weight shared among the others.
#[must_use]
pub fn quality(depth: f64, spread_bps: f64, vadr: Option<&Vadr>, tier: &Tier) -> f64 {
    let share = |value: f64, least: f64| 100.0 * (value / (2.0 * least)).min(1.0);
    let spread = 100.0 * (1.0 - spread_bps / (2.0 * tier.spread_max.0)).max(0.0);
    let activity = match vadr {
        Some(Vadr::Live(live)) => share(live.value(), tier.vadr_min),
        Some(Vadr::Frozen(_)) | None => 0.0,
    };
    (0.35 * share(depth, tier.depth_min) + 0.30 * activity + 0.25 * spread) / 0.90
}

/// One symbol's factors: momentum, technical, volume, quality.
pub type Row = [f64; 4];

/// What is left of each column when the columns before it are taken out, by modified Gram-Schmidt
/// over the centred columns. The first column, momentum, comes back as it went in. The order of the
/// rows is that of the sums, so it must be that of the symbols.
#[must_use]
pub fn residuals(rows: &[Row], restore_dispersion: bool) -> Vec<Row> {
    let n = rows.len() as f64;
    let column = |k: usize| rows.iter().map(move |row| row[k]);
    let means: Row = std::array::from_fn(|k| column(k).sum::<f64>() / n);
    let mut centred: [Vec<f64>; 4] =
        std::array::from_fn(|k| column(k).map(|v| v - means[k]).collect());
    let mut out = rows.to_vec();
    for k in 1..4 {
        let (before, rest) = centred.split_at_mut(k);
        let c = &mut rest[0];
        let spread = dot(c, c);
        // Twice: what rounding leaves of the first pass, the second takes.
        for _ in 0..2 {
            for u in before.iter() {
                let length = dot(u, u);
                if length < EMPTY {
                    continue;
                }
                let along = dot(c, u) / length;
                c.iter_mut().zip(u).for_each(|(c, u)| *c -= along * u);
            }
        }
        let left = dot(c, c);
        let factor =
            if restore_dispersion && left >= EMPTY { (spread / left).sqrt().min(2.0) } else { 1.0 };
        for (row, c) in out.iter_mut().zip(c.iter()) {
            row[k] = (means[k] + factor * c).clamp(0.0, 100.0);
        }
    }
    out
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The mean price of the last 24 hours, weighted by volume.
pub(crate) fn vwap_24h(hours: &[Bar]) -> Option<f64> {
    let end = bars::end(hours)?;
    let first = end - watchbell_core::Millis::from_days(1);
    let day = &hours[hours.partition_point(|b| b.open_time < first)..];
    let (value, volume) =
        day.iter().fold((0.0, 0.0), |(v, q), b| (v + b.quote_volume, q + b.volume));
    (volume > 0.0).then(|| value / volume)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bars::tests::hourly;
    use crate::settings::TIERS;
    use crate::vadr;

    /// Section 2.6, the vector.
    #[test]
    fn the_vector_of_residuals_holds() {
        const M: [f64; 6] = [90.0, 75.0, 60.0, 50.0, 40.0, 30.0];
        const T: [f64; 6] = [70.0, 80.0, 55.0, 60.0, 35.0, 45.0];
        const V: [f64; 6] = [65.0, 40.0, 75.0, 50.0, 60.0, 30.0];
        const Q: [f64; 6] = [50.0, 70.0, 65.0, 80.0, 55.0, 60.0];
        const RESIDUAL: [[f64; 6]; 3] = [
            [50.2387, 69.3593, 53.4799, 64.5603, 45.6407, 61.7211],
            [45.9726, 49.7956, 69.1371, 61.2342, 50.2044, 43.6560],
            [63.5106, 62.9937, 59.2443, 68.3524, 66.0273, 59.8717],
        ];
        const COMPOSITE: [f64; 6] = [65.0794, 65.4878, 60.5409, 59.2015, 47.8654, 45.8250];
        let rows: Vec<Row> = (0..6).map(|i| [M[i], T[i], V[i], Q[i]]).collect();
        let out = residuals(&rows, false);
        for (i, row) in out.iter().enumerate() {
            assert_eq!(row[0], M[i]);
            for k in 0..3 {
                assert!((row[k + 1] - RESIDUAL[k][i]).abs() < 5e-5, "{i} {k}: {}", row[k + 1]);
            }
            let score: f64 = row.iter().zip([0.35, 0.25, 0.25, 0.15]).map(|(v, w)| v * w).sum();
            assert!((score - COMPOSITE[i]).abs() < 5e-5, "{i}: {score}");
        }
    }

    /// Section 2.5, volume.
    #[test]
    fn volume_counts_powers_of_ten() {
        for (ratio, score) in
            [(1.0, 50.0), (10.0, 75.0), (100.0, 100.0), (1e6, 100.0), (0.1, 25.0), (1e-9, 0.0)]
        {
            assert!((volume_score(ratio).score - score).abs() < 1e-9, "{ratio}");
        }
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(volume_score(bad), Volume { ratio: None, score: 0.0 });
        }
        let mut hours = hourly(0, &[1.0; 170]);
        hours[0].quote_volume = 1e12;
        hours[169].quote_volume = 10_000.0;
        assert!((volume(&hours).unwrap().score - 75.0).abs() < 1e-9, "older than 7 days");
        assert_eq!(volume(&hours[..24]), None);
        assert!(volume(&hours[1..26]).is_some());
    }

    /// Section 2.5, quality: twice what the tier asks is the most; frozen activity is none.
    #[test]
    fn quality_is_measured_by_the_tier() {
        let tier = &TIERS[1];
        let hours = hourly(0, &[1.0; 24]);
        let live = vadr::measure(&hours, bars::end(&hours).unwrap());
        assert!(matches!(live, Vadr::Live(l) if (l.value() - 1.0).abs() < 1e-12));
        let frozen = vadr::measure(&hours[..5], bars::end(&hours[..5]).unwrap());
        let activity = 100.0 / 3.6 * 0.30 / 0.90;
        for (depth, spread, vadr, quality) in [
            (150_000.0, 0.0, None, (35.0 + 25.0) / 0.9),
            (75_000.0, 50.0, None, (17.5 + 12.5) / 0.9),
            (75_000.0, 50.0, Some(&frozen), (17.5 + 12.5) / 0.9),
            (75_000.0, 50.0, Some(&live), (17.5 + 12.5) / 0.9 + activity),
            (1e9, 1e9, None, 35.0 / 0.9),
        ] {
            let ours = super::quality(depth, spread, vadr, tier);
            assert!((ours - quality).abs() < 1e-9, "{depth} {spread}: {ours} {quality}");
        }
    }

    /// Section 2.5, technical: points of what is available, of the points that it could have.
    #[test]
    fn technical_is_a_share_of_what_is_available() {
        assert_eq!(technical(&[]), None);
        assert_eq!(technical(&hourly(0, &[1.0; 14])), None);
        // 15 flat bars: strength 50 (30 of 30) and a range beyond 1 % (10 of 20).
        let wide = |closes: &[f64]| {
            let mut bars = hourly(0, closes);
            bars.iter_mut().for_each(|b| b.high = b.close * 1.01);
            bars
        };
        let flat = technical(&wide(&[1.0; 15])).unwrap();
        assert!((flat - 80.0).abs() < 1e-9, "{flat}");
        // Steady rise: strength 100 (5 of 30), trend 100 (25 of 25), range beyond 1 % (10 of 20).
        let rising: Vec<f64> = (0..40).map(|i| 1_000.0 + f64::from(i)).collect();
        let rising = technical(&wide(&rising)).unwrap();
        assert!((rising - 100.0 * 40.0 / 75.0).abs() < 1e-9, "{rising}");
    }

    fn correlation(a: &[f64], b: &[f64]) -> f64 {
        let n = a.len() as f64;
        let (ma, mb) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
        let centre = |v: &[f64], m: f64| v.iter().map(|x| x - m).collect::<Vec<f64>>();
        let (a, b) = (centre(a, ma), centre(b, mb));
        let (aa, bb) = (dot(&a, &a), dot(&b, &b));
        // A column that vanished but for rounding points nowhere.
        if aa < 1e-6 || bb < 1e-6 { 0.0 } else { dot(&a, &b) / (aa * bb).sqrt() }
    }

    proptest! {
        /// Section 2.6: residuals share nothing with momentum nor with each other, and momentum is
        /// what it was, to the bit.
        #[test]
        fn residuals_are_orthogonal_and_momentum_is_untouched(
            rows in prop::collection::vec(prop::array::uniform4(30.0_f64..70.0), 8..60),
            restore in any::<bool>(),
        ) {
            let out = residuals(&rows, restore);
            let column = |k: usize| out.iter().map(|r| r[k]).collect::<Vec<f64>>();
            for (row, before) in out.iter().zip(&rows) {
                prop_assert_eq!(row[0].to_bits(), before[0].to_bits());
                prop_assert!(row.iter().all(|v| (0.0..=100.0).contains(v)));
            }
            let clamped = out.iter().any(|r| r[1..].iter().any(|v| *v <= 0.0 || *v >= 100.0));
            if !clamped {
                for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
                    let rho = correlation(&column(a), &column(b));
                    prop_assert!(rho.abs() < 1e-9, "{a} {b}: {rho}");
                }
            }
        }

        /// A column that is another one's copy, or does not vary, leaves its mean.
        #[test]
        fn what_is_explained_leaves_the_mean(m in prop::collection::vec(30.0_f64..70.0, 8..40)) {
            let rows: Vec<Row> = m.iter().map(|v| [*v, *v, 42.0, 100.0 - *v]).collect();
            let mean = m.iter().sum::<f64>() / m.len() as f64;
            for row in residuals(&rows, false) {
                prop_assert!((row[1] - mean).abs() < 1e-9);
                prop_assert!((row[2] - 42.0).abs() < 1e-9);
                prop_assert!((row[3] - (100.0 - mean)).abs() < 1e-9);
            }
        }
    }
}
