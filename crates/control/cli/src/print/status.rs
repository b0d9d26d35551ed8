//! The status: the face of Watchbell. One screen, densest facts first, trouble in colour.

use watchbell_api::{Level, NodeInfo, Status, VenueLine};
use watchbell_core::lifecycle::State as Lifecycle;
use watchbell_core::window::State;

use crate::print::style::{Style, Tone};
use crate::print::table::{Cell, Table};
use crate::print::time::{short, span};
use crate::print::{add, bytes, count, cut, node as nodes, queue, worker};

/// The whole picture.
#[must_use]
pub fn status(status: &Status, style: Style) -> String {
    let mut text = head(status, style);
    if !status.series.is_empty() {
        text.push('\n');
        text.push_str(&series(status, style));
    }
    if !status.workers.is_empty() {
        text.push('\n');
        text.push_str(&worker::list(&status.workers, status.now, style));
    }
    if !status.queue.is_empty() {
        text.push('\n');
        text.push_str(&queue::live(&status.queue, status.now, style));
    }
    // One that is alone is described in the first line.
    let alone = status.nodes.iter().all(|n| Some(&n.session.id) == status.node.session.as_ref());
    if !alone {
        text.push('\n');
        text.push_str(&nodes::list(&status.nodes, status.now, style));
    }
    if !status.notices.is_empty() {
        text.push('\n');
    }
    for notice in &status.notices {
        let word = match notice.level {
            Level::Error => style.bad("error:  "),
            Level::Warning => style.paint("warning:", Tone::Warn),
            Level::Info => style.faint("note:   "),
        };
        add(&mut text, format_args!("{word} {}\n", notice.text));
    }
    text
}

fn head(status: &Status, style: Style) -> String {
    let mut lines = vec![("node", node(&status.node, style))];
    let store = &status.store;
    lines.push((
        "store",
        format!(
            "{} {}  {}  synchronous {}  schema {}",
            store.engine,
            store.path,
            bytes(store.size_bytes),
            store.synchronous,
            store.schema
        ),
    ));
    if let Some(v) = &status.venue {
        lines.push(("venue", venue(v, status, style)));
    }
    if !status.workers.is_empty() {
        lines.push(("work", work(status, style)));
    }
    let mut now = format!("{} UTC", short(status.now));
    if (status.node.clock_speed - 1.0).abs() > f64::EPSILON {
        now.push_str(&format!("  {}x the wall clock", status.node.clock_speed));
    }
    lines.push(("now", now));
    let mut text = String::new();
    for (name, line) in lines {
        add(&mut text, format_args!("{}  {line}\n", style.faint(&format!("{name:5}"))));
    }
    text
}

/// How many workers are in which state, and which of them somebody should look at.
fn work(status: &Status, style: Style) -> String {
    let order = [
        Lifecycle::Running,
        Lifecycle::Initializing,
        Lifecycle::Restarting,
        Lifecycle::Failed,
        Lifecycle::Paused,
        Lifecycle::ShuttingDown,
        Lifecycle::Stopped,
        Lifecycle::Unavailable,
    ];
    let states = order.into_iter().filter_map(|state| {
        let n = status.workers.iter().filter(|w| w.record.state == state).count();
        (n > 0).then(|| format!("{n} {}", worker::state(state)))
    });
    let all = count(status.workers.len() as i64, "worker", "workers");
    let mut text = format!("{all}: {}", states.collect::<Vec<_>>().join(", "));
    let bad: Vec<&str> = status
        .workers
        .iter()
        .filter(|w| w.needs_attention())
        .map(|w| w.record.name.as_str())
        .collect();
    if !bad.is_empty() {
        let bad = style.bad(&format!("look at {}", bad.join(", ")));
        text.push_str(&format!("  {bad}"));
    }
    text
}

fn node(node: &NodeInfo, style: Style) -> String {
    let product = style.strong(&format!("watchbell {}", node.version));
    if !node.running {
        return format!(
            "{product} on {}  {}  data in {}",
            node.host,
            style.paint("not running", Tone::Warn),
            node.data_dir
        );
    }
    let mut text = format!("{product} on {}  {}", node.host, style.good("running"));
    if let Some(uptime) = node.uptime {
        text.push_str(&format!(" for {}", span(uptime)));
    }
    if let Some(pid) = node.pid {
        text.push_str(&format!("  pid {pid}"));
    }
    if let Some(profile) = &node.profile {
        text.push_str(&format!("  profile {profile}"));
    }
    if let Some(url) = &node.url {
        text.push_str(&format!("  {url}"));
    }
    text
}

fn venue(venue: &VenueLine, status: &Status, style: Style) -> String {
    let tone = match venue.state.as_str() {
        "ok" => Tone::Good,
        "throttled" | "degraded" => Tone::Warn,
        _ => Tone::Bad,
    };
    let mut text = format!("{} {}", venue.name, style.paint(&venue.state, tone));
    if let Some(since) = venue.since {
        text.push_str(&format!(" for {}", span(status.now.since(since))));
    }
    if let (Some(used), Some(limit)) = (venue.used_weight, venue.limit) {
        text.push_str(&format!("  weight {used}/{limit}"));
    }
    text.push_str(&format!("  {}", venue.base_url));
    if let Some(reason) = &venue.reason {
        text.push_str(&format!("  ({})", cut(reason, 80)));
    }
    text
}

/// One line per series: how many windows are in which state, and how far it is.
fn series(status: &Status, style: Style) -> String {
    let mut table = Table::new(&[
        "SERIES",
        ">COMPLETE",
        ">READY",
        ">OPEN",
        ">RUNNING",
        ">FAILED",
        ">ABANDONED",
        "FROM",
        "NEWEST COMPLETE",
    ]);
    for (name, summary) in &status.series {
        let number =
            |state, tone| Cell::number(summary.counts.get(&state).copied().unwrap_or(0), tone);
        let newest = summary.newest_complete;
        table.row(vec![
            name.as_str().into(),
            number(State::Complete, Tone::Good),
            number(State::Ready, Tone::Plain),
            number(State::Open, Tone::Plain),
            number(State::Running, Tone::Plain),
            number(State::Failed, Tone::Bad),
            number(State::Abandoned, Tone::Warn),
            Cell::or_none(summary.first.map(short)),
            Cell::or_none(newest.map(short)),
        ]);
    }
    table.print(style)
}
