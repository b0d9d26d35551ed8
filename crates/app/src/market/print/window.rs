//! `market window`: one window, with its histogram in block characters.

use serde_json::Value;
use watchbell_cli::print::style::Style;
use watchbell_cli::print::table::facts;
use watchbell_cli::print::time::short;
use watchbell_cli::print::{add, count};
use watchbell_core::Millis;
use watchbell_market::view::WindowView;

use super::{clock, price};

/// Columns and rows of the histogram.
const COLUMNS: usize = 64;
const ROWS: usize = 4;
/// A cell that is so many eighths full.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One window of one symbol.
pub(crate) fn window(w: &WindowView, style: Style) -> String {
    let end = Millis::parse(&w.label).map_or_else(
        |_| String::new(),
        |length| format!(" to {}", clock(w.start + length, w.start)),
    );
    let mut text = format!(
        "{}  {}{end} UTC  version {}, from {} {}\n\n",
        style.strong(&format!("{} {}", w.symbol, w.label)),
        short(w.start),
        w.version,
        count(w.samples, "sample", "samples"),
        style.faint(&format!("({})", w.source)),
    );
    let v = |path: &str| number(&w.vectors, path, 3);
    let s = |path: &str, digits| number(&w.stats, path, digits);
    let change = 100.0 * (w.last / w.opening - 1.0);
    let shifts = w.stats.get("shifts").filter(|s| !s.is_null()).map(|shifts| {
        let n = |key: &str| shifts.get(key).and_then(Value::as_i64).unwrap_or_default();
        format!("{}, {}", count(n("shifts"), "shift", "shifts"), count(n("swaps"), "swap", "swaps"))
    });
    text.push_str(&facts(
        style,
        &[
            (
                "prices",
                Some(format!(
                    "opening {}  last {} ({change:+.3} %)  min {}  max {}",
                    price(w.opening),
                    price(w.last),
                    price(w.price_min),
                    price(w.price_max)
                )),
            ),
            (
                "bench",
                Some(format!(
                    "min {} %  max {} %",
                    s("/stats/bench_pct_min", 3),
                    s("/stats/bench_pct_max", 3)
                )),
            ),
            ("GFM", Some(format!("{} ({:+.3} %)", price(w.gfm), w.delta_gfm_pct))),
            ("BFM", Some(format!("{:.4}", w.bfm))),
            (
                "vectors",
                Some(format!(
                    "inner {}  outer {}  spread {}  tendency {} (strength {})  swap {}",
                    v("/inner"),
                    v("/outer"),
                    v("/spread"),
                    v("/tendency/score"),
                    v("/tendency/strength"),
                    v("/swap/score")
                )),
            ),
            (
                "metrics",
                Some(format!(
                    "inertia {}  disruption {}  amp {}  volt {}  efficiency {}",
                    s("/intrinsic/inertia/total", 3),
                    s("/intrinsic/disruption", 3),
                    s("/intrinsic/amp", 3),
                    s("/intrinsic/volt", 3),
                    s("/intrinsic/efficiency", 3)
                )),
            ),
            ("systemic", Some(format!("{:.1} % of the symbols disrupted", w.disruption_systemic))),
            ("shifts", shifts),
        ],
    ));
    text.push_str(&histogram(&w.stats, style));
    text
}

fn number(of: &Value, path: &str, digits: usize) -> String {
    match of.pointer(path).and_then(Value::as_f64) {
        Some(n) => format!("{:.digits$}", if n.abs() < 5e-13 { 0.0 } else { n }),
        None => "-".to_owned(),
    }
}

fn histogram(stats: &Value, style: Style) -> String {
    let of = |path: &str| stats.pointer(path);
    let counts: Vec<u64> = of("/histogram/counts")
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_u64).collect())
        .unwrap_or_default();
    let edge = |path| of(path).and_then(Value::as_f64).unwrap_or_default();
    if counts.is_empty() {
        return String::new();
    }
    let (lo, hi) = (edge("/histogram/lo"), edge("/histogram/hi"));
    let mut text =
        format!("\n{}\n", style.faint(&format!("ln(price / opening), {} bins", counts.len())));
    for row in blocks(&counts, COLUMNS, ROWS) {
        add(&mut text, format_args!("  {}\n", row.trim_end()));
    }
    let (left, right) = (format!("{lo:.6}"), format!("{hi:.6}"));
    let gap = COLUMNS.saturating_sub(left.len() + right.len()).max(1);
    add(&mut text, format_args!("  {left}{}{right}\n", " ".repeat(gap)));
    text
}

/// Counts as bars, at most `columns` wide: neighbouring bins are added up. The fullest column is
/// `rows` high, and one that is not empty shows.
fn blocks(counts: &[u64], columns: usize, rows: usize) -> Vec<String> {
    let columns = columns.min(counts.len());
    let sums: Vec<u64> = (0..columns)
        .map(|c| {
            let (from, to) = (c * counts.len() / columns, (c + 1) * counts.len() / columns);
            counts[from..to].iter().sum()
        })
        .collect();
    let most = sums.iter().copied().max().unwrap_or(0).max(1);
    let full = (rows * 8) as u64;
    let heights: Vec<u64> = sums.iter().map(|n| (n * full / most).max(u64::from(*n > 0))).collect();
    (0..rows)
        .rev()
        .map(|row| {
            let below = (row * 8) as u64;
            heights.iter().map(|h| BLOCKS[h.saturating_sub(below).min(8) as usize]).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fill_their_rows_and_nothing_that_is_there_vanishes() {
        assert_eq!(blocks(&[0, 1, 2, 4], 4, 1), [" ▂▄█"]);
        assert_eq!(blocks(&[1, 0, 16], 3, 2), ["  █", "▁ █"]);
        assert_eq!(blocks(&[1_000, 1, 0], 3, 1), ["█▁ "]);
        // Eight bins in three columns: 2, 3 and 3 of them.
        assert_eq!(blocks(&[1; 8], 3, 1), ["▅██"]);
        assert_eq!(blocks(&[0, 0], 64, 1), ["  "]);
    }
}
