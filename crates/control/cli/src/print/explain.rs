//! Explanations, as a tree: the thing, its closed gates with what clears each, and behind the first
//! one what it waits for in turn.

use std::borrow::Cow;

use watchbell_core::Time;
use watchbell_core::gate::{Clears, Explanation, Gate, Verdict};

use crate::print::add;
use crate::print::style::{Style, Tone};
use crate::print::time::{relative, short};

/// Keys of one source that are named.
const NAMED: usize = 4;

/// The tree.
#[must_use]
pub fn explanation(e: &Explanation, now: Time, style: Style) -> String {
    let mut text = String::new();
    node(e, now, style, "", "", &mut text);
    text
}

/// Writes one thing: its first line after `lead`, everything below it after `indent`.
fn node(e: &Explanation, now: Time, style: Style, lead: &str, indent: &str, text: &mut String) {
    let verdict = style.paint(&e.verdict.to_string(), tone(e.verdict));
    add(text, format_args!("{}{} {verdict}", style.faint(lead), style.strong(&e.subject)));
    if let Some(since) = e.since {
        add(text, format_args!(" since {} ({})", short(since), relative(since, now)));
    }
    text.push('\n');
    let gates = together(&e.gates);
    let branches = gates.len() + e.chain.len();
    for (i, gate) in gates.iter().enumerate() {
        let gate: &Gate = gate;
        let (fork, below) = fork(indent, i + 1 == branches);
        let word = if i == 0 { "because" } else { "and" };
        add(text, format_args!("{}{word} {gate}\n", style.faint(&fork)));
        let clears = match e.clears(gate) {
            clears @ Clears::Operator { .. } => style.paint(&clears.to_string(), Tone::Warn),
            clears @ Clears::At { time } => {
                style.faint(&format!("{clears} ({})", relative(time, now)))
            }
            clears @ Clears::When { .. } => style.faint(&clears.to_string()),
        };
        add(text, format_args!("{}   {clears}\n", style.faint(&below)));
    }
    for (i, behind) in e.chain.iter().enumerate() {
        let (fork, below) = fork(indent, gates.len() + i + 1 == branches);
        node(behind, now, style, &fork, &below, text);
    }
}

/// Gates for a reader: keys of a source that are complete to the same instant are one, for a window
/// of sixty symbols waits for all of them alike.
fn together(gates: &[Gate]) -> Vec<Cow<'_, Gate>> {
    let alike = |a: &Gate, b: &Gate| match (a, b) {
        (
            Gate::CoverMissing { source, key: _, from, covered_until, needed_until },
            Gate::CoverMissing { source: s, key: _, from: f, covered_until: c, needed_until: n },
        ) => (source, from, covered_until, needed_until) == (s, f, c, n),
        _ => false,
    };
    let groups = gates.chunk_by(alike).map(|group| {
        let (first, keys) = (&group[0], group.iter().filter_map(key).collect::<Vec<_>>());
        match first {
            Gate::CoverMissing { source, from, covered_until, needed_until, .. }
                if group.len() > 1 =>
            {
                let more = match keys.len().saturating_sub(NAMED) {
                    0 => String::new(),
                    n => format!(" and {n} more"),
                };
                let key = keys[..keys.len().min(NAMED)].join(", ") + &more;
                let (source, from) = (source.clone(), *from);
                let (covered_until, needed_until) = (*covered_until, *needed_until);
                Cow::Owned(Gate::CoverMissing { source, key, from, covered_until, needed_until })
            }
            _ => Cow::Borrowed(first),
        }
    });
    groups.collect()
}

fn key(gate: &Gate) -> Option<&str> {
    match gate {
        Gate::CoverMissing { key, .. } => Some(key),
        _ => None,
    }
}

fn fork(indent: &str, last: bool) -> (String, String) {
    if last {
        (format!("{indent}└─ "), format!("{indent}   "))
    } else {
        (format!("{indent}├─ "), format!("{indent}│  "))
    }
}

fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Runnable | Verdict::Done => Tone::Good,
        Verdict::Running => Tone::Strong,
        Verdict::Waiting => Tone::Warn,
        Verdict::Failed => Tone::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_wait_alike_are_one_reason() {
        let cover = |key: &str, until: i64| Gate::CoverMissing {
            source: "klines:1m".into(),
            key: key.into(),
            from: Time(0),
            covered_until: Some(Time(until)),
            needed_until: Time(60_000),
        };
        let gates = [
            cover("A", 0),
            cover("B", 0),
            cover("C", 0),
            cover("D", 0),
            cover("E", 0),
            cover("F", 0),
            cover("G", 30_000),
            Gate::OnCommand,
            Gate::OnCommand,
        ];
        let texts: Vec<String> = together(&gates).iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 4, "{texts:?}");
        assert!(
            texts[0].starts_with("klines:1m of A, B, C, D and 2 more is complete to"),
            "{texts:?}"
        );
        assert!(texts[1].starts_with("klines:1m of G is complete to"), "{texts:?}");
    }
}
