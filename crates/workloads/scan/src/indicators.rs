//! Indicators over bars, after Wilder, Hurst and Bollinger (section 2.4). None where there are too few
//! bars.

use watchbell_core::math;
use watchbell_venues::native::Bar;

/// The length of Wilder's averages, and the weight of each new value in them.
const N: usize = 14;
const WEIGHT: f64 = 1.0 / N as f64;

/// Relative strength of the last 14 changes, 0 to 100; 100 without a loss, 50 without a change.
#[must_use]
pub fn rsi(bars: &[Bar]) -> Option<f64> {
    let change = |w: &[Bar]| w[1].close - w[0].close;
    let changes = || bars.windows(2).map(change);
    let gain = wilder(changes().map(|c| c.max(0.0)))?;
    let loss = wilder(changes().map(|c| (-c).max(0.0)))?;
    Some(if loss > 0.0 {
        100.0 - 100.0 / (1.0 + gain / loss)
    } else if gain > 0.0 {
        100.0
    } else {
        50.0
    })
}

/// The average true range, in units of price.
#[must_use]
pub fn atr(bars: &[Bar]) -> Option<f64> {
    wilder(bars.windows(2).map(true_range))
}

/// The average directional index, 0 to 100: both smoothings done.
#[must_use]
pub fn adx(bars: &[Bar]) -> Option<f64> {
    let mut sums = [0.0; 3];
    let mut adx = Average::default();
    for (i, w) in bars.windows(2).enumerate() {
        let (up, down) = (w[1].high - w[0].high, w[0].low - w[1].low);
        let plus = if up > down && up > 0.0 { up } else { 0.0 };
        let minus = if down > up && down > 0.0 { down } else { 0.0 };
        for (sum, new) in sums.iter_mut().zip([plus, minus, true_range(w)]) {
            // The sums of the first 14; from then on each loses a fourteenth of itself.
            *sum = if i < N { *sum + new } else { *sum - *sum * WEIGHT + new };
        }
        if i + 1 >= N {
            let [plus, minus, range] = sums;
            let (plus, minus) =
                if range > 0.0 { (plus / range, minus / range) } else { (0.0, 0.0) };
            let both = plus + minus;
            adx.add(if both > 0.0 { 100.0 * (plus - minus).abs() / both } else { 0.0 });
        }
    }
    adx.value()
}

fn true_range(w: &[Bar]) -> f64 {
    let (before, bar) = (w[0].close, w[1]);
    (bar.high - bar.low).max((bar.high - before).abs()).max((bar.low - before).abs())
}

/// Wilder's average: the mean of the first 14, then a fourteenth of each new one.
#[derive(Debug, Default)]
struct Average {
    value: f64,
    count: usize,
}

impl Average {
    fn add(&mut self, new: f64) {
        self.count += 1;
        if self.count > N {
            // (13 of the old and 1 of the new) / 14, without a division to wait for.
            self.value += (new - self.value) * WEIGHT;
        } else {
            self.value += new;
            if self.count == N {
                self.value /= N as f64;
            }
        }
    }

    fn value(&self) -> Option<f64> {
        (self.count >= N).then_some(self.value)
    }
}

fn wilder(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut average = Average::default();
    values.for_each(|v| average.add(v));
    average.value()
}

/// Closes that the exponent of Hurst looks at.
const HURST: usize = 50;

/// Hurst's exponent by the rescaled range of the log returns of the last 50 closes, 0 to 1: above a
/// half the price tends to go on, below to turn. None for a price that did not move.
#[must_use]
pub fn hurst(bars: &[Bar]) -> Option<f64> {
    let last = &bars[bars.len().checked_sub(HURST)?..];
    let returns: Vec<f64> = last.windows(2).map(|w| math::ln(w[1].close / w[0].close)).collect();
    let n = returns.len() as f64;
    let mean = returns.iter().sum::<f64>() / n;
    let (mut sum, mut squares, mut low, mut high) =
        (0.0_f64, 0.0, f64::INFINITY, f64::NEG_INFINITY);
    for r in returns {
        let d = r - mean;
        sum += d;
        squares += d * d;
        (low, high) = (low.min(sum), high.max(sum));
    }
    let deviation = (squares / n).sqrt();
    let h = math::ln((high - low) / deviation) / math::ln(n);
    (deviation > 0.0 && h.is_finite()).then(|| h.clamp(0.0, 1.0))
}

/// Closes of Bollinger's average, and how many widths the latest is ranked among.
const BOLLINGER: usize = 20;
const WIDTHS: usize = 100;

/// How narrow the bands of Bollinger are beside the last 100: 1 for the narrowest, 0 for the widest
/// (section 5.2).
#[must_use]
pub fn compression(bars: &[Bar]) -> Option<f64> {
    let last = &bars[bars.len().checked_sub(BOLLINGER + WIDTHS - 1)?..];
    let width = |w: &[Bar]| {
        let n = BOLLINGER as f64;
        let mean = w.iter().map(|b| b.close).sum::<f64>() / n;
        let squares: f64 = w.iter().map(|b| (b.close - mean) * (b.close - mean)).sum();
        4.0 * (squares / n).sqrt() / mean
    };
    let widths: Vec<f64> = last.windows(BOLLINGER).map(width).collect();
    let (now, others) = widths.split_last()?;
    let narrower = others.iter().filter(|w| *w < now).count();
    Some(1.0 - narrower as f64 / others.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bars::tests::hourly;

    fn wave(n: usize) -> Vec<Bar> {
        let close = |i: usize| 100.0 + 0.05 * i as f64 + ((i * i * 7 + 3 * i) % 23) as f64 / 10.0;
        hourly(0, &(0..n).map(close).collect::<Vec<f64>>())
    }

    /// Section 2.4.
    #[test]
    fn too_few_bars_tell_nothing() {
        let bars = wave(200);
        for (name, indicator, least) in [
            ("rsi", rsi as fn(&[Bar]) -> Option<f64>, 15),
            ("atr", atr, 15),
            ("adx", adx, 28),
            ("hurst", hurst, 50),
            ("compression", compression, 119),
        ] {
            assert_eq!(indicator(&bars[..least - 1]), None, "{name}");
            assert!(indicator(&bars[..least]).is_some(), "{name}");
            assert_eq!(indicator(&[]), None, "{name}");
        }
    }

    #[test]
    fn a_flat_price_has_no_strength_and_a_steady_one_all_of_it() {
        let flat = hourly(0, &[5.0; 60]);
        assert_eq!((rsi(&flat), hurst(&flat), adx(&flat)), (Some(50.0), None, Some(0.0)));
        let rising = hourly(0, &(0..60).map(|i| 100.0 + f64::from(i)).collect::<Vec<_>>());
        assert_eq!((rsi(&rising), adx(&rising)), (Some(100.0), Some(100.0)));
        let falling = hourly(0, &(0..60).map(|i| 100.0 - f64::from(i)).collect::<Vec<_>>());
        assert_eq!((rsi(&falling), adx(&falling)), (Some(0.0), Some(100.0)));
    }

    /// Values of a plain Python of its own, by section 2.4.
    #[test]
    fn values_are_those_of_another_implementation() {
        let bars = wave(150);
        for (name, ours, theirs) in [
            ("rsi", rsi(&bars), RSI),
            ("atr", atr(&bars), ATR),
            ("adx", adx(&bars), ADX),
            ("hurst", hurst(&bars), HURST_EXPONENT),
            ("compression", compression(&bars), COMPRESSION),
        ] {
            assert!((ours.unwrap() - theirs).abs() < 1e-9, "{name}: {ours:?} {theirs}");
        }
    }
    const RSI: f64 = 50.834_251_593_913_26;
    const ATR: f64 = 1.368_809_864_848_756_8;
    const ADX: f64 = 8.608_871_643_649_53;
    const HURST_EXPONENT: f64 = 0.271_019_890_146_438_07;
    const COMPRESSION: f64 = 0.181_818_181_818_181_8;
}
