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
