//! How data looks. Each function takes a wire type and gives text that ends in a line feed; the
//! present is part of the data or a parameter, so the same value always looks the same.

pub mod explain;
pub mod history;
pub mod job;
pub mod node;
pub mod plan;
pub mod queue;
pub mod status;
pub mod style;
pub mod table;
pub mod time;
pub mod window;
pub mod worker;

use std::fmt::Write as _;

/// Appends formatted text.
///
/// # Panics
/// Never: a string takes all text.
pub fn add(text: &mut String, args: std::fmt::Arguments<'_>) {
    text.write_fmt(args).expect("a string takes all text");
}

/// `1 row`, `2 rows`.
#[must_use]
pub fn count(n: i64, one: &str, many: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{} {many}", thousands(n)) }
}

/// `1,204`.
#[must_use]
pub fn thousands(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    if n < 0 { format!("-{text}") } else { text }
}

/// `48.2 MiB`.
#[must_use]
pub fn bytes(n: i64) -> String {
    let mut value = n as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            let whole = unit == "B";
            return if whole { format!("{n} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// The beginning of a hash: enough to compare by eye.
pub(crate) fn hash(full: &str) -> &str {
    full.get(..12).unwrap_or(full)
}

/// A JSON value on one line: `symbols 7  candles 7` for a flat object, plain JSON otherwise.
#[must_use]
pub fn inline(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        Value::Object(map) if map.values().all(|v| !v.is_object() && !v.is_array()) => {
            let pairs: Vec<String> =
                map.iter().map(|(k, v)| format!("{k} {}", inline(v))).collect();
            pairs.join("  ")
        }
        other => other.to_string(),
    }
}

/// Text cut to so many letters, with an ellipsis where something is missing; on one line.
#[must_use]
pub fn cut(text: &str, letters: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= letters {
        return line;
    }
    let kept: String = line.chars().take(letters.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (n, text) in [(0, "0"), (999, "999"), (1_204, "1,204"), (-1_000_000, "-1,000,000")] {
            assert_eq!(thousands(n), text);
        }
        for (n, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_536, "1.5 KiB"),
            (50_541_568, "48.2 MiB"),
            (3 << 40, "3.0 TiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
        assert_eq!(count(1, "row", "rows"), "1 row");
    }

    #[test]
    fn text_is_cut_by_letters_and_stays_on_one_line() {
        assert_eq!(cut("übermäßig", 9), "übermäßig");
        assert_eq!(cut("übermäßig", 5), "über…");
        assert_eq!(cut("two\nlines\x1b[31m", 80), "two lines [31m");
    }

    #[test]
    fn flat_summaries_are_read_without_braces() {
        let flat = serde_json::json!({ "symbols": 7, "why": "gap" });
        assert_eq!(inline(&flat), "symbols 7  why gap");
        let deep = serde_json::json!({ "a": { "b": 1 } });
        assert_eq!(inline(&deep), "{\"a\":{\"b\":1}}");
    }
}
