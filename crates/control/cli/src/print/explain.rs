//! Explanations, as a tree: the thing, its closed gates with what clears each, and behind the first
//! one what it waits for in turn.

use watchbell_core::Time;
use watchbell_core::gate::{Clears, Explanation, Verdict};

use crate::print::add;
use crate::print::style::{Style, Tone};
use crate::print::time::{relative, short};

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
    let branches = e.gates.len() + e.chain.len();
    for (i, gate) in e.gates.iter().enumerate() {
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
        let (fork, below) = fork(indent, e.gates.len() + i + 1 == branches);
        node(behind, now, style, &fork, &below, text);
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
