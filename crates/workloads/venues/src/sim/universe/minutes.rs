//! The minutes of an hour that is known: drawn such that they make it up exactly.

use super::super::dice::Dice;
use super::super::market::{Candle, MINUTE, Minute};
use super::FEWEST;

/// The 60 minutes that make up an hour of an asset with these steps of price and size.
pub(super) fn of(hour: &Candle, tick: i64, step: i64, dice: &mut Dice) -> Vec<Minute> {
    let (weights, counts) = spread(dice, hour.trades);
    let active: Vec<usize> = (0..60).filter(|k| counts[*k] > 0).collect();
    let price = |p: i64| p / tick;
    let whole = [hour.open, hour.high, hour.low, hour.close].map(price);
    let closes = walk(dice, whole, active.len(), counts[active[0]]);
    let [open, high, low, _] = whole;
    let mut rows = [[open; 4]; 60];
    let (mut before, mut at) = (open, 0);
    for (row, n) in rows.iter_mut().zip(counts) {
        if n == 0 {
            *row = [before; 4];
            continue;
        }
        let close = closes[at];
        at += 1;
        let open = if n == 1 { close } else { before };
        let reach = (high - low) as f64 / 9.0;
        let mut wick = || (reach * dice.unit() * dice.unit()) as i64;
        let up = (open.max(close) + wick()).min(high);
        let down = (open.min(close) - wick()).max(low);
        *row = match n {
            1 | 2 => [open, open.max(close), open.min(close), close],
            3 => [open, up, open.min(close), close],
            _ => [open, up, down, close],
        };
        before = close;
    }
    let sizes = sizes(&rows, &weights, &counts, whole.iter().sum());
    fill(hour, (tick, step), &rows, &counts, &sizes)
}

/// Shares an hour's sums among its minutes, so that they add up exactly.
fn fill(
    hour: &Candle,
    (tick, step): (i64, i64),
    rows: &[[i64; 4]; 60],
    counts: &[i64; 60],
    sizes: &[f64; 60],
) -> Vec<Minute> {
    let unit = i128::from(step);
    let spare = (hour.volume / unit) as i64 - hour.trades;
    let total: f64 = sizes.iter().sum();
    let last = counts.iter().rposition(|n| *n > 0).unwrap_or(59);
    let mut steps = [0_i64; 60];
    let (mut running, mut given) = (0.0, 0_i64);
    for k in 0..=last {
        running += sizes[k];
        let upto = if k == last { spare } else { (running / total * spare as f64) as i64 };
        steps[k] = counts[k] + upto - given;
        given = upto;
    }
    let worth = |k: usize| i128::from(steps[k]) * i128::from(rows[k].iter().sum::<i64>());
    let all: i128 = (0..60).map(worth).sum();
    let (mut paid, mut size) = (0_i128, 0_i128);
    let mut seen = [0_i128; 3];
    let mut id = hour.first_trade;
    let mut minutes = Vec::with_capacity(60);
    for k in 0..60 {
        paid += worth(k);
        size += i128::from(steps[k]) * unit;
        // Rounding the running totals instead of each part makes the parts sum exactly.
        let upto = [
            hour.quote * paid / all.max(1),
            hour.taker_base / unit * (size / unit) / (hour.volume / unit) * unit,
            hour.taker_quote * paid / all.max(1),
        ];
        let [quote, taker_base, taker_quote] = std::array::from_fn(|i| (upto[i] - seen[i]) as i64);
        seen = upto;
        let [open, high, low, close] = rows[k].map(|p| p * tick);
        minutes.push(Minute {
            time: hour.open_time + k as i64 * MINUTE,
            open,
            high,
            low,
            close,
            volume: steps[k] * step,
            quote,
            taker_base,
            taker_quote,
            first_trade: id,
            trades: counts[k] as u32,
        });
        id += counts[k];
    }
    minutes
}

/// How busy each minute is, and how many of the hour's trades it has: one in each quarter at least.
fn spread(dice: &mut Dice, trades: i64) -> ([f64; 60], [i64; 60]) {
    let mut weights = [0.0; 60];
    for w in &mut weights {
        let z = dice.normal();
        *w = 0.2 + 0.8 * z * z;
    }
    let mut counts = [0_i64; 60];
    for quarter in 0..FEWEST as usize {
        counts[15 * quarter + dice.below(15) as usize] += 1;
    }
    let (spare, total) = (trades - FEWEST, weights.iter().sum::<f64>());
    let (mut running, mut given) = (0.0, 0);
    for (k, (count, weight)) in counts.iter_mut().zip(weights).enumerate() {
        running += weight;
        let upto = if k == 59 { spare } else { (running / total * spare as f64) as i64 };
        *count += upto - given;
        given = upto;
    }
    (weights, counts)
}

/// The closes of the minutes with trades, in ticks: from the open through both extremes to the close.
/// `first` trades are in the first of them; a single one stands at the open.
fn walk(dice: &mut Dice, [open, high, low, close]: [i64; 4], n: usize, first: i64) -> Vec<i64> {
    // Four quarters have a trade each, so both extremes find a minute between the ends.
    let a = 1 + dice.below(n as u64 - 3) as usize;
    let b = a + 1 + dice.below((n - 2 - a) as u64) as usize;
    let low_first = close > open || (close == open && dice.below(2) == 0);
    let (one, other) = if low_first { (low, high) } else { (high, low) };
    let knots = [(0, open), (a, one), (b, other), (n - 1, close)];
    let noise = (high - low) as f64 / 10.0;
    let mut knot = 0;
    (0..n)
        .map(|i| {
            while i > knots[knot + 1].0 {
                knot += 1;
            }
            let ((i0, p0), (i1, p1)) = (knots[knot], knots[knot + 1]);
            let pinned = i == i1 || (i == 0 && first == 1);
            let straight = p0 + (p1 - p0) * (i - i0) as i64 / (i1 - i0) as i64;
            let z = dice.normal();
            if pinned { straight } else { (straight + (z * noise) as i64).clamp(low, high) }
        })
        .collect()
}

/// How the hour's volume is shared among its minutes, such that their mean price, weighted by it, is
/// the hour's: dear and cheap minutes balance around it. Four times the prices, as sums of rows.
fn sizes(rows: &[[i64; 4]; 60], weights: &[f64; 60], counts: &[i64; 60], mean: i64) -> [f64; 60] {
    let mut sizes: [f64; 60] = std::array::from_fn(|k| {
        if counts[k] == 0 { 0.0 } else { weights[k] * (1.0 + counts[k] as f64) }
    });
    let off = |k: usize| (rows[k].iter().sum::<i64>() - mean) as f64;
    let (mut dear, mut cheap) = (0.0, 0.0);
    for (k, size) in sizes.iter().enumerate() {
        if off(k) > 0.0 {
            dear += size * off(k);
        } else {
            cheap -= size * off(k);
        }
    }
    if dear > 0.0 && cheap > 0.0 {
        for (k, size) in sizes.iter_mut().enumerate() {
            *size *= if off(k) > 0.0 { cheap } else { dear };
        }
    }
    sizes
}
