//! Instants and spans, short enough for a table and still unmistakable.

use watchbell_core::{Millis, Time};

/// `2026-11-22 03:30`, in UTC, with seconds where they are not zero.
#[must_use]
pub fn short(t: Time) -> String {
    let full = Time(t.0 - t.0.rem_euclid(1_000)).rfc3339();
    match (full.get(..10), full.get(11..19)) {
        (Some(date), Some(time)) => {
            format!("{date} {}", time.strip_suffix(":00").unwrap_or(time))
        }
        // An instant beyond the calendar.
        _ => full,
    }
}

/// A span, without more than it is worth: whole seconds from one second on.
#[must_use]
pub fn span(d: Millis) -> String {
    if d.0.abs() < 1_000 { d.to_string() } else { Millis(d.0 - d.0 % 1_000).to_string() }
}

/// How long ago, or in how long: `3s ago`, `now`, `in 55s`.
#[must_use]
pub fn relative(t: Time, now: Time) -> String {
    let d = now.since(t);
    match d.0 {
        -999..=999 => "now".to_owned(),
        1_000.. => format!("{} ago", span(d)),
        _ => format!("in {}", span(Millis(-d.0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_short_and_spans_are_whole() {
        for (ms, text) in [
            (1_795_318_200_000, "2026-11-22 03:30"),
            (1_795_318_205_999, "2026-11-22 03:30:05"),
            (0, "1970-01-01 00:00"),
            (-1, "1969-12-31 23:59:59"),
        ] {
            assert_eq!(short(Time(ms)), text);
        }
        let now = Time(1_000_000);
        for (at, text) in [
            (1_000_000, "now"),
            (999_001, "now"),
            (996_500, "3s ago"),
            (1_055_250, "in 55s"),
            (-8_000_000, "2h30m ago"),
        ] {
            assert_eq!(relative(Time(at), now), text, "{at}");
        }
        assert_eq!(span(Millis(840)), "840ms");
    }
}
