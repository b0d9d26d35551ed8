//! `market status`: one screen.

use watchbell_cli::print::style::{Style, Tone};
use watchbell_cli::print::table::{Cell, Table};
use watchbell_cli::print::time::{relative, short};
use watchbell_cli::print::{add, count, thousands};
use watchbell_core::Millis;
use watchbell_market::view::{Feed, MarketStatus, MoodLine};

use super::{age, clock, number};

/// Gaps that are named.
const GAPS: usize = 3;

/// The market at one moment.
pub(crate) fn status(status: &MarketStatus, style: Style) -> String {
    let mut text = String::new();
    let mut fact = |name: &str, value: &str| {
        add(&mut text, format_args!("{}  {value}\n", style.faint(&format!("{name:7}"))));
    };
    fact("venue", &feed(&status.feed, status, style));
    if !status.moods.is_empty() {
        let moods: Vec<String> = status.moods.iter().map(|m| mood(m, style)).collect();
        fact("mood", &moods.join("   "));
    }
    if !status.slices.is_empty() {
        let slices = status.slices.iter();
        let slices: Vec<String> = slices
            .map(|s| {
                format!("{} {} ({} coins)", s.series, relative(s.ts, status.now), s.coins.len())
            })
            .collect();
        fact("slices", &slices.join("   "));
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
    titles.extend([">INNER", ">OUTER", ">TEND", ">SWAP", "TIER", "MOOD"].map(str::to_owned));
    let mut table = Table::new(&titles);
    let secs = Millis::from_secs;
    for s in &status.symbols {
        let mut row = vec![
            s.symbol.as_str().into(),
            age(s.kline, status.now, secs(120), secs(300)),
            age(s.sample, status.now, secs(20), secs(60)),
            age(s.cycle, status.now, secs(80), secs(160)),
        ];
        row.extend(s.windows.iter().map(|w| Cell::or_none(w.map(|w| clock(w, status.now)))));
        let v = s.vectors.as_ref();
        row.extend([
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

fn feed(feed: &Feed, status: &MarketStatus, style: Style) -> String {
    let tone = match feed.state.as_str() {
        "ok" => Tone::Good,
        "throttled" | "degraded" => Tone::Warn,
        _ => Tone::Bad,
    };
    let mut text = style.paint(&feed.state, tone);
    if let Some(why) = &feed.detail {
        text.push_str(&format!(": {why}"));
    }
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
        (Some(used), None) => text.push_str(&format!("  weight {} at last", thousands(used))),
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
