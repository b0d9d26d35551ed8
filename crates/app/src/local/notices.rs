//! What an operator should know, in sentences, most severe first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use watchbell_api::{Level, Notice, QueueLine, Result, VenueLine, WorkerLine};
use watchbell_core::port::{Hearing, NodeRecord, SeriesSummary, WindowQuery};
use watchbell_core::pressure::Pressure;
use watchbell_core::{Millis, SeriesName, Time, job, window};
use watchbell_market::{Hole, UNLISTED_AFTER};

use super::queue::NO_NODE;
use super::{LocalControl, Picture};
use crate::installation::trouble;

/// Dead letters that are counted; beyond it the count is only said to be larger.
const COUNTED: u32 = 1_000;
/// Length of a candle.
const MINUTE: Millis = Millis::from_mins(1);

/// A difference between two clocks that somebody should mend.
const SKEWED: Millis = Millis::from_secs(1);

/// What is judged.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) workers: &'a [WorkerLine],
    pub(super) series: &'a BTreeMap<SeriesName, SeriesSummary>,
    pub(super) queue: &'a [QueueLine],
}

impl LocalControl {
    pub(super) async fn notices(
        &self,
        picture: &Picture,
        facts: Facts<'_>,
        venue: Option<&VenueLine>,
    ) -> Result<Vec<Notice>> {
        let Facts { workers, series, queue } = facts;
        let (letters, backfills, holes) = tokio::join!(
            self.store.dead_letters(COUNTED),
            self.store.backfills(true),
            watchbell_market::holes(&self.db),
        );
        let mut all = Vec::new();
        let mut say = |level, text: String| all.push(Notice { level, text });
        for line in workers.iter().filter(|w| w.needs_attention()) {
            let record = &line.record;
            let error = record.last_error.as_ref().filter(|_| record.consecutive_errors > 0);
            let why = match (error, &line.freshness) {
                (Some(error), _) => match record.consecutive_errors {
                    1 => format!("failed: {error}"),
                    n => format!("failed {n} times in a row: {error}"),
                },
                (None, fresh) if line.is_stale() => fresh.to_string(),
                (None, _) => {
                    record.state_reason.clone().unwrap_or_else(|| format!("it is {}", record.state))
                }
            };
            // Without a node nothing runs, and that is one notice, not one for each worker.
            if self.engine.is_some() || error.is_some() {
                say(Level::Error, format!("{}: {why}", record.name));
            }
        }
        if self.engine.is_none() {
            let (level, text) = if self.elsewhere {
                let text = "a node runs here without its API: what is shown is what it has stored";
                (Level::Warning, text)
            } else if picture.any_node {
                (Level::Info, "no node runs here: what is shown is what the others have stored")
            } else {
                (Level::Warning, "no node runs here: what is shown is as the last one left it")
            };
            say(level, text.to_owned());
        }
        if self.engine.as_ref().is_some_and(|e| e.node().hearing == Hearing::Deaf) {
            let text = "this node does not hear the others, and looks for their work by itself: \
                        what they cause begins up to a second later";
            say(Level::Info, text.to_owned());
        }
        all.extend(self.engine.as_ref().and_then(|e| of_pressure(e.store().pressure, picture.now)));
        all.extend(of_nodes(&picture.nodes, picture.now));
        all.extend(of_queue(queue));
        let mut say = |level, text: String| all.push(Notice { level, text });
        if let Some(v) = venue.filter(|v| v.state != "ok") {
            let severe = matches!(v.state.as_str(), "banned" | "down");
            let since = v.since.map_or_else(String::new, |t| format!(" since {t}"));
            let why = v.reason.as_ref().map_or_else(String::new, |r| format!(": {r}"));
            say(
                if severe { Level::Error } else { Level::Warning },
                format!("the venue {} is {}{since}{why}", v.name, v.state),
            );
        }
        for (name, summary) in series {
            let count = summary.counts.get(&window::State::Abandoned).copied().unwrap_or(0);
            if count == 0 {
                continue;
            }
            let query = WindowQuery {
                series: Some(name.clone()),
                state: Some(window::State::Abandoned),
                limit: 1,
                ..WindowQuery::default()
            };
            let newest = self.store.windows(query).await?.pop();
            let newest = newest.map_or_else(String::new, |w| {
                let why = w.reason.map_or_else(String::new, |r| format!(": {r}"));
                format!(", the newest {}{why}", w.start)
            });
            let what = plural(count, "abandoned window");
            say(Level::Error, format!("{name}: {what}{newest}"));
        }
        let letters = letters?;
        let open = letters.iter().filter(|l| l.redriven_at.is_none()).count();
        if open > 0 {
            let more = if letters.len() as u64 >= u64::from(COUNTED) { "at least " } else { "" };
            let what = plural(open as i64, "event");
            say(Level::Warning, format!("{more}{what} in the dead letters, not redriven"));
        }
        for b in backfills? {
            let total = b.to.since(b.from).0.max(1) as f64;
            let done = (b.cursor.since(b.from).0 as f64 / total * 100.0).clamp(0.0, 100.0);
            let text = format!(
                "{}: backfill {} from {} to {} is {done:.0}% done",
                b.series, b.id, b.from, b.to
            );
            say(Level::Info, text);
        }
        for (worker, need) in &self.softened {
            let text = format!("{worker} runs without {need}, which the profile leaves out");
            say(Level::Info, text);
        }
        all.extend(of_holes(&holes.map_err(|e| trouble(&e))?));
        // Stable: notices of one level stay in the order above.
        all.sort_by_key(|n| Reverse(n.level));
        Ok(all)
    }
}

/// What a slow store changes.
fn of_pressure(pressure: Pressure, now: Time) -> Option<Notice> {
    let since = pressure.since.filter(|_| pressure.is_on())?;
    let text = format!(
        "the store is slow ({pressure}): for {} workers that run at an interval have done so {} \
         times less often, and opportunistic ones wait; windows and jobs go on",
        now.since(since),
        pressure.factor
    );
    Some(Notice { level: Level::Warning, text })
}

/// Nodes that are silent, and clocks that go wrong.
fn of_nodes(nodes: &[NodeRecord], now: Time) -> Vec<Notice> {
    let mut notices = Vec::new();
    for node in nodes {
        let who = format!("node {} (pid {})", node.session.host, node.session.pid);
        if let Some(seen) = node.seen_at.filter(|_| node.overdue) {
            let silent = now.since(seen);
            let text = format!(
                "{who} has not been heard of for {silent}: what it holds is taken over when its \
                 leases end"
            );
            notices.push(Notice { level: Level::Warning, text });
        }
        if let Some(skew) = node.skew.filter(|s| s.0.abs() >= SKEWED.0) {
            let (by, how) = (Millis(skew.0.abs()), if skew.0 > 0 { "behind" } else { "ahead of" });
            let text = format!(
                "the clock of {who} is {by} {how} the store's: what it starts by the clock is off \
                 by as much"
            );
            notices.push(Notice { level: Level::Warning, text });
        }
    }
    notices
}

/// Jobs that nobody takes, and those that were given up.
fn of_queue(queue: &[QueueLine]) -> Vec<Notice> {
    let mut notices = Vec::new();
    for line in queue {
        let kind = &line.kind;
        // Without a node nothing runs, and that is one notice, not one for each kind.
        let why = line.unconsumed.as_ref().filter(|why| *why != NO_NODE);
        if let Some(why) = why.filter(|_| line.count(job::State::Queued) > 0) {
            let waiting = plural(line.count(job::State::Queued), "job");
            let text = format!("{kind}: {waiting} queued, and nobody consumes them: {why}");
            notices.push(Notice { level: Level::Warning, text });
        }
        let failed = line.count(job::State::Failed);
        if failed > 0 {
            let text = format!(
                "{kind}: {} failed: `watchbell job list --state failed --kind {kind}`",
                plural(failed, "job")
            );
            notices.push(Notice { level: Level::Warning, text });
        }
    }
    notices
}

/// One notice for each symbol and kind of silence.
fn of_holes(holes: &[Hole]) -> Vec<Notice> {
    let mut by_symbol = BTreeMap::<&str, Vec<&Hole>>::new();
    for hole in holes {
        by_symbol.entry(&hole.symbol).or_default().push(hole);
    }
    let mut notices = Vec::new();
    for (symbol, holes) in by_symbol {
        let (pending, known): (Vec<&Hole>, Vec<&Hole>) =
            holes.into_iter().partition(|h| h.state == "pending");
        let (unlisted, short): (Vec<&Hole>, Vec<&Hole>) =
            known.into_iter().partition(|h| h.to.since(h.from) >= UNLISTED_AFTER);
        if !pending.is_empty() {
            let text = format!("{symbol}: {}, asked again", silence(&pending, "pending gap"));
            notices.push(Notice { level: Level::Warning, text });
        }
        if !short.is_empty() {
            let text = format!("{symbol}: {}", silence(&short, "hole"));
            notices.push(Notice { level: Level::Info, text });
        }
        if !unlisted.is_empty() {
            let spans: Vec<String> = unlisted
                .iter()
                .map(|h| format!("from {} to {}", minute(h.from), minute(h.to)))
                .collect();
            let text = format!("{symbol}: not listed {}", spans.join(", "));
            notices.push(Notice { level: Level::Info, text });
        }
    }
    notices
}

/// `3 holes, 1,234 candles, the longest 2023-03-24T12:40Z to 14:00Z (80m)`.
fn silence(holes: &[&Hole], what: &str) -> String {
    let candles: i64 = holes.iter().map(|h| h.to.since(h.from) / MINUTE).sum();
    // Of equal ones the oldest.
    let longest = holes.iter().max_by_key(|h| (h.to.since(h.from), Reverse(h.from)));
    let longest = longest.map_or_else(String::new, |h| {
        let which = if holes.len() == 1 { "" } else { "the longest " };
        let (from, to) = (minute(h.from), minute(h.to));
        let to = match (from.split_once('T'), to.split_once('T')) {
            (Some((a, _)), Some((b, time))) if a == b => time,
            _ => &to,
        };
        format!(", {which}{from} to {to} ({})", length(h.to.since(h.from)))
    });
    format!("{}, {}{longest}", plural(holes.len() as i64, what), plural(candles, "candle"))
}

/// An instant without its seconds where they are zero.
fn minute(at: Time) -> String {
    let text = at.rfc3339();
    text.strip_suffix(":00Z").map_or_else(|| text.clone(), |t| format!("{t}Z"))
}

/// Minutes as long as one can think in them.
fn length(span: Millis) -> String {
    if span < Millis::from_hours(3) && (span % MINUTE).0 == 0 {
        format!("{}m", span / MINUTE)
    } else {
        span.exact()
    }
}

/// `1 hole`, `1,234 candles`.
pub(super) fn plural(count: i64, what: &str) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{text} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use watchbell_core::pressure::{ENOUGH, Sample};

    use super::*;

    fn hole(from: &str, to: &str, state: &str) -> Hole {
        Hole {
            symbol: "BTCUSDT".into(),
            from: Time::parse(from).unwrap(),
            to: Time::parse(to).unwrap(),
            state: state.into(),
        }
    }

    #[test]
    fn silences_of_a_symbol_become_few_sentences() {
        let notices = of_holes(&[
            hole("2018-02-08T00:28:00Z", "2018-02-09T09:59:00Z", "hole"),
            hole("2023-03-24T12:40:00Z", "2023-03-24T14:00:00Z", "hole"),
            hole("2023-05-01T23:50:00Z", "2023-05-02T00:10:00Z", "hole"),
            hole("2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z", "pending"),
        ]);
        let texts: Vec<&str> = notices.iter().map(|n| n.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "BTCUSDT: 1 pending gap, 1 candle, 2026-01-01T00:00Z to 00:01Z (1m), asked again",
                "BTCUSDT: 2 holes, 100 candles, the longest 2023-03-24T12:40Z to 14:00Z (80m)",
                "BTCUSDT: not listed from 2018-02-08T00:28Z to 2018-02-09T09:59Z",
            ]
        );
    }

    #[test]
    fn a_slow_store_is_one_sentence() {
        assert_eq!(of_pressure(Pressure::default(), Time(0)), None);
        let slow = Sample { calls: ENOUGH, p95: Millis(812), exhausted: false };
        let pressure = Pressure::default().after(slow, Time(0));
        let notice = of_pressure(pressure, Time(90_000)).unwrap();
        assert_eq!(
            notice.text,
            "the store is slow (95 of 100 calls of the store took up to 812ms): for 1m30s workers \
             that run at an interval have done so 2 times less often, and opportunistic ones wait; \
             windows and jobs go on"
        );
    }

    #[test]
    fn numbers_are_grouped() {
        for (count, expected) in [
            (0, "0 candles"),
            (1, "1 candle"),
            (999, "999 candles"),
            (1_234, "1,234 candles"),
            (1_234_567, "1,234,567 candles"),
            (-1_000, "-1,000 candles"),
            (-100, "-100 candles"),
        ] {
            assert_eq!(plural(count, "candle"), expected);
        }
    }
}
