//! `market status`: one screen.

use watchbell_cli::print::style::{Style, Tone};
use watchbell_cli::print::table::{Cell, Table};
use watchbell_cli::print::time::{relative, short};
use watchbell_cli::print::{add, count, cut, thousands};
use watchbell_core::{Millis, Time};
use watchbell_market::view::{Feed, MarketStatus, MoodLine};

use super::{age, clock, number};

/// A reason is as long as it fits on a line.
const WIDE: usize = 120;
/// Gaps that are named.
const GAPS: usize = 3;
/// A window may take this long after its end before it is late.
const PATIENCE: Millis = Millis::from_mins(5);

/// The market at one moment.
pub(crate) fn status(status: &MarketStatus, style: Style) -> String {
    let mut text = String::new();
    let mut fact = |name: &str, value: &str| {
        add(&mut text, format_args!("{}  {value}\n", style.faint(&format!("{name:7}"))));
    };
    if status.node_runs == Some(false) {
        let none = style.paint("none runs", Tone::Warn);
        fact("node", &format!("{none}: all of this is as the last one left it"));
    }
    fact("venue", &feed(&status.feed, status, style));
    if let Some(why) = &status.feed.detail {
        fact("why", &cut(why, WIDE));
    }
    if !status.moods.is_empty() {
        let moods: Vec<String> = status.moods.iter().map(|m| mood(m, style)).collect();
        fact("mood", &moods.join("   "));
    }
    if let Some(first) = status.slices.first() {
        let coins = first.coins.len();
        let alike = status.slices.iter().all(|s| s.coins.len() == coins);
        let slices = status.slices.iter().map(|s| {
            let when = format!("{} {}", s.series, relative(s.ts, status.now));
            if alike { when } else { format!("{when} ({} coins)", s.coins.len()) }
        });
        let slices = slices.collect::<Vec<_>>().join("   ");
        let of = if alike { format!("{coins} coins: ") } else { String::new() };
        fact("slices", &format!("{of}{slices}"));
    }
    if status.partial_data || status.feed.is_away() {
        let partial = style.paint("partial", Tone::Warn);
        let waits = "what is missing is fetched first, and windows wait for it";
        fact("data", &format!("{partial}: {waits}"));
    }
    if !status.gaps.is_empty() {
        let gaps = status.gaps.len();
        let named = status.gaps.iter().take(GAPS);
        let named: Vec<String> = named
            .map(|g| format!("{} {} to {}", g.symbol, short(g.from), clock(g.to, g.from)))
            .collect();
        let more = if gaps > GAPS { ", .." } else { "" };
        let all = style.paint(&count(gaps as i64, "gap", "gaps"), Tone::Warn);
        fact("repair", &format!("{all} being repaired: {}{more}", named.join(", ")));
    }
    for m in &status.missing {
        let all = format!("{} of {}", count(m.count as i64, "window", "windows"), m.label);
        let all = style.paint(&all, Tone::Warn);
        fact(
            "missing",
            &format!("{all}, the oldest {}; why: watchbell explain {}", short(m.oldest), m.series),
        );
    }
    fact("now", &format!("{} UTC", short(status.now)));
    text.push('\n');
    if status.symbols.is_empty() {
        text.push_str("no symbol is enabled\n");
        return text;
    }
    text.push_str(&symbols(status).print(style));
    text
}

fn symbols(status: &MarketStatus) -> Table {
    let mut titles: Vec<String> =
        ["SYMBOL", ">KLINE", ">SAMPLE", ">CYCLE"].map(str::to_owned).into();
    titles.extend(status.labels.iter().map(|label| format!(">{label}")));
    titles.extend(["OF", ">INNER", ">OUTER", ">TEND", ">SWAP", "TIER", "MOOD"].map(str::to_owned));
    let mut table = Table::new(&titles);
    let (secs, now) = (Millis::from_secs, status.now);
    for s in &status.symbols {
        let mut row = vec![
            s.symbol.as_str().into(),
            age(s.kline, now, secs(120), secs(300)),
            match s.sample_is_empty {
                true => Cell::new("empty", Tone::Bad),
                false => age(s.sample, now, secs(20), secs(60)),
            },
            age(s.cycle, now, secs(80), secs(160)),
        ];
        row.extend(
            s.windows.iter().zip(&status.labels).map(|(start, label)| newest(*start, label, now)),
        );
        let v = s.vectors.as_ref();
        row.extend([
            Cell::or_none(v.map(|v| v.label.as_str())),
            number(v.and_then(|v| v.inner), 2),
            number(v.and_then(|v| v.outer), 2),
            number(v.and_then(|v| v.tendency), 2),
            number(v.and_then(|v| v.swap), 2),
            Cell::or_none(s.tier.clone()),
            Cell::or_none(s.mood.clone()),
        ]);
        table.row(row);
    }
    table
}

/// The start of the newest window of a label: late when another one could be there, bad when two.
fn newest(start: Option<Time>, label: &str, now: Time) -> Cell {
    let Some(start) = start else { return Cell::none() };
    let tone = match Millis::parse(label) {
        Ok(length) if now >= start + length * 3 + PATIENCE => Tone::Bad,
        Ok(length) if now >= start + length * 2 + PATIENCE => Tone::Warn,
        Ok(_) | Err(_) => Tone::Plain,
    };
    Cell::new(clock(start, now), tone)
}

fn feed(feed: &Feed, status: &MarketStatus, style: Style) -> String {
    let tone = match feed.state.as_str() {
        "ok" => Tone::Good,
        "throttled" | "degraded" | "unknown" => Tone::Warn,
        _ => Tone::Bad,
    };
    let mut text = style.paint(&feed.state, tone);
    if let Some(at) = feed.answered_at {
        text.push_str(&format!("  answered {}", relative(at, status.now)));
    }
    match (feed.weight_used, feed.weight_limit) {
        (Some(used), Some(limit)) => {
            text.push_str(&format!(
                "  weight {} of {} a minute",
                thousands(used),
                thousands(limit)
            ));
        }
        (Some(used), None) => {
            text.push_str(&format!("  weight {} in the minute of that answer", thousands(used)));
        }
        (None, _) => {}
    }
    text
}

fn mood(m: &MoodLine, style: Style) -> String {
    let state = match (m.is_stale, m.is_fallback) {
        (true, _) => style.bad(" stale"),
        (_, true) => style.paint(" fallback", Tone::Warn),
        _ => String::new(),
    };
    format!("{} {:.4} {} tier {}{state}", m.label, m.coeff, m.mood, m.tier)
}
