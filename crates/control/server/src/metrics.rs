//! Prometheus' text format, version 0.0.4: written from facts at the moment of the question, so
//! there is no registry to keep in step with the store.
//!
//! ```
//! use watchbell_server::metrics::{Kind, Metrics};
//!
//! let mut text = Metrics::new();
//! text.family("watchbell_worker_runs_total", Kind::Counter, "Cycles finished.")
//!     .sample(&[("worker", "market-sync")], 42.0);
//! let text = text.finish();
//! assert!(text.ends_with("watchbell_worker_runs_total{worker=\"market-sync\"} 42\n"));
//! ```

use std::collections::BTreeSet;
use std::fmt::Write as _;

use watchbell_api::{QueueLine, Status};
use watchbell_core::lifecycle::State;
use watchbell_core::port::NodeRecord;
use watchbell_core::{Millis, Time, job};

/// What a number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, but for a restart.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A text in the making.
#[derive(Debug, Default)]
pub struct Metrics {
    text: String,
    families: BTreeSet<String>,
}

/// One metric, to which samples are added.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl Metrics {
    /// An empty text.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a metric.
    ///
    /// # Panics
    /// When the name is not a metric name, or was used before: scrapers refuse the whole text then.
    pub fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &str) -> Family<'a> {
        assert!(is_name(name, true), "`{name}` is not a metric name");
        assert!(self.families.insert(name.to_owned()), "metric `{name}` is written twice");
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        append(&mut self.text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { text: &mut self.text, name }
    }

    /// The text.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// Adds a sample.
    ///
    /// # Panics
    /// When a label's name is not one.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.text.push_str(self.name);
        for (i, (name, text)) in labels.iter().enumerate() {
            assert!(is_name(name, false), "`{name}` is not a label name");
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let open = if i == 0 { '{' } else { ',' };
            append(self.text, format_args!("{open}{name}=\"{text}\""));
        }
        self.text.push_str(if labels.is_empty() { " " } else { "} " });
        if value.is_nan() {
            self.text.push_str("NaN");
        } else if value.is_infinite() {
            self.text.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
        } else {
            append(self.text, format_args!("{value}"));
        }
        self.text.push('\n');
        self
    }

    /// Adds a sample where there is a value.
    pub fn sample_if(&mut self, labels: &[(&str, &str)], value: Option<f64>) -> &mut Self {
        if let Some(value) = value {
            self.sample(labels, value);
        }
        self
    }
}

fn append(text: &mut String, args: std::fmt::Arguments<'_>) {
    text.write_fmt(args).expect("a string takes all text");
}

fn is_name(name: &str, colon: bool) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || (colon && c == ':');
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

fn seconds(span: Millis) -> f64 {
    span.as_secs_f64()
}

/// The metrics of the runtime, from the same picture that `status` prints. Counts come from the
/// store, so they survive a restart of the node.
pub fn runtime(metrics: &mut Metrics, status: &Status) {
    node(metrics, status);
    workers(metrics, status);
    queue(metrics, status);
    nodes(metrics, status);

    let mut windows =
        metrics.family("watchbell_windows", Kind::Gauge, "Windows of a series by state.");
    for (series, summary) in &status.series {
        for (state, count) in &summary.counts {
            let labels = [("series", series.as_str()), ("state", state.as_str())];
            windows.sample(&labels, *count as f64);
        }
    }
    let mut newest = metrics.family(
        "watchbell_window_newest_complete_timestamp_seconds",
        Kind::Gauge,
        "Start of the newest complete window of a series.",
    );
    for (series, summary) in &status.series {
        let value = summary.newest_complete.map(|t| t.0 as f64 / 1e3);
        newest.sample_if(&[("series", series.as_str())], value);
    }
    if let Some(venue) = &status.venue {
        let labels = [("venue", venue.name.as_str()), ("state", venue.state.as_str())];
        metrics
            .family("watchbell_venue_state", Kind::Gauge, "1 for the state that a venue is in.")
            .sample(&labels, 1.0);
        metrics
            .family(
                "watchbell_venue_used_weight",
                Kind::Gauge,
                "Request weight spent in the current minute, as the venue counts.",
            )
            .sample_if(&labels[..1], venue.used_weight.map(|w| w as f64));
        metrics
            .family(
                "watchbell_venue_weight_limit",
                Kind::Gauge,
                "Request weight allowed per minute.",
            )
            .sample_if(&labels[..1], venue.limit.map(|w| w as f64));
    }
}

fn node(metrics: &mut Metrics, status: &Status) {
    metrics
        .family("watchbell_build_info", Kind::Gauge, "1, with the version as a label.")
        .sample(&[("version", &status.node.version)], 1.0);
    metrics
        .family("watchbell_node_running", Kind::Gauge, "1 while a node runs.")
        .sample(&[], f64::from(u8::from(status.node.running)));
    metrics
        .family("watchbell_node_start_timestamp_seconds", Kind::Gauge, "When the node started.")
        .sample_if(&[], status.node.started_at.map(|t| t.0 as f64 / 1e3));
    metrics
        .family(
            "watchbell_node_clock_seconds",
            Kind::Gauge,
            "The present instant, by the node's clock.",
        )
        .sample(&[], status.now.0 as f64 / 1e3);
    metrics
        .family("watchbell_store_size_bytes", Kind::Gauge, "Bytes of the store on disk.")
        .sample(&[("engine", &status.store.engine)], status.store.size_bytes as f64);
    let answers = status.store.answers;
    metrics
        .family(
            "watchbell_store_pressure_factor",
            Kind::Gauge,
            "By how much the node slows down for a slow store; 1 is not at all.",
        )
        .sample_if(&[], answers.map(|a| f64::from(a.pressure.factor)));
    metrics
        .family(
            "watchbell_store_latency_seconds",
            Kind::Gauge,
            "How long the newest claims, publications and heartbeats of the node took.",
        )
        .sample_if(
            &[("quantile", "0.95")],
            answers.and_then(|a| a.p95_us).map(|us| us as f64 / 1e6),
        );
}

fn workers(metrics: &mut Metrics, status: &Status) {
    let lines = &status.workers;
    let mut states =
        metrics.family("watchbell_worker_state", Kind::Gauge, "1 for the state a worker is in.");
    for w in lines {
        for state in State::ALL {
            let is = f64::from(u8::from(w.record.state == state));
            states.sample(&[("worker", w.record.name.as_str()), ("state", state.as_str())], is);
        }
    }
    type Value = fn(&watchbell_api::WorkerLine) -> Option<f64>;
    let columns: [(&str, Kind, &str, Value); 9] = [
        (
            "watchbell_worker_needs_attention",
            Kind::Gauge,
            "1 when the worker does not get its work done and nobody stopped it.",
            |w| Some(f64::from(u8::from(w.needs_attention()))),
        ),
        ("watchbell_worker_stale", Kind::Gauge, "1 when the newest success is too old.", |w| {
            Some(f64::from(u8::from(w.is_stale())))
        }),
        ("watchbell_worker_runs_total", Kind::Counter, "Cycles finished.", |w| {
            Some(w.record.total_runs as f64)
        }),
        ("watchbell_worker_errors_total", Kind::Counter, "Cycles failed.", |w| {
            Some(w.record.total_errors as f64)
        }),
        (
            "watchbell_worker_consecutive_errors",
            Kind::Gauge,
            "Failures since the newest success.",
            |w| Some(w.record.consecutive_errors as f64),
        ),
        (
            "watchbell_worker_last_success_timestamp_seconds",
            Kind::Gauge,
            "End of the newest successful cycle.",
            |w| w.record.last_success_at.map(|t| t.0 as f64 / 1e3),
        ),
        (
            "watchbell_worker_last_duration_seconds",
            Kind::Gauge,
            "How long the newest finished cycle took.",
            |w| w.record.latency.map(seconds),
        ),
        (
            "watchbell_worker_next_due_timestamp_seconds",
            Kind::Gauge,
            "The next due instant.",
            |w| w.record.next_due.map(|t| t.0 as f64 / 1e3),
        ),
        ("watchbell_worker_blocked", Kind::Gauge, "1 while a gate is closed.", |w| {
            Some(f64::from(u8::from(w.record.blocked.is_some())))
        }),
    ];
    for (name, kind, help, value) in columns {
        let mut family = metrics.family(name, kind, help);
        for w in lines {
            family.sample_if(&[("worker", w.record.name.as_str())], value(w));
        }
    }
}

fn queue(metrics: &mut Metrics, status: &Status) {
    let mut jobs = metrics.family(
        "watchbell_jobs",
        Kind::Gauge,
        "Jobs of a kind by state; finished ones are those that retention has left.",
    );
    for line in &status.queue {
        for state in job::State::ALL {
            let labels = [("kind", line.kind.as_str()), ("state", state.as_str())];
            jobs.sample(&labels, line.count(state) as f64);
        }
    }
    type Value = fn(&QueueLine, Time) -> Option<f64>;
    let columns: [(&str, &str, Value); 4] = [
        ("watchbell_jobs_due", "Jobs of a kind that are queued and due.", |l, _| {
            Some(l.stats.due as f64)
        }),
        (
            "watchbell_jobs_oldest_due_age_seconds",
            "For how long the oldest job that is due has waited; 0 when none is.",
            |l, now| Some(l.oldest_age(now).map_or(0.0, seconds)),
        ),
        (
            "watchbell_jobs_next_due_timestamp_seconds",
            "Due time of the next job that is not due.",
            |l, _| l.stats.next_due.map(|t| t.0 as f64 / 1e3),
        ),
        ("watchbell_jobs_consumed", "1 while a worker consumes the kind.", |l, _| {
            Some(f64::from(u8::from(l.unconsumed.is_none())))
        }),
    ];
    for (name, help, value) in columns {
        let mut family = metrics.family(name, Kind::Gauge, help);
        for line in &status.queue {
            family.sample_if(&[("kind", line.kind.as_str())], value(line, status.now));
        }
    }
}

fn nodes(metrics: &mut Metrics, status: &Status) {
    metrics
        .family("watchbell_nodes", Kind::Gauge, "Nodes on the store whose session is open.")
        .sample(&[], status.nodes.len() as f64);
    type Value = fn(&NodeRecord, Time) -> Option<f64>;
    let columns: [(&str, &str, Value); 5] = [
        ("watchbell_node_overdue", "1 while a node is silent for too long.", |n, _| {
            Some(f64::from(u8::from(n.overdue)))
        }),
        (
            "watchbell_node_silence_seconds",
            "Time since a node's newest sign of life, by the store's clock.",
            |n, now| n.seen_at.map(|t| seconds(now.since(t).max(Millis::ZERO))),
        ),
        (
            "watchbell_node_clock_skew_seconds",
            "By how much the store's clock is ahead of the node's.",
            |n, _| n.skew.map(seconds),
        ),
        ("watchbell_node_leases", "Workers whose lease a node holds.", |n, _| {
            Some(n.holds.len() as f64)
        }),
        ("watchbell_node_jobs", "Jobs that a node holds.", |n, _| Some(n.jobs as f64)),
    ];
    for (name, help, value) in columns {
        let mut family = metrics.family(name, Kind::Gauge, help);
        for node in &status.nodes {
            let session = &node.session;
            let labels = [("host", session.host.as_str()), ("session", session.id.as_str())];
            family.sample_if(&labels, value(node, status.now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_labels_are_written_as_the_format_wants() {
        let mut text = Metrics::new();
        text.family("a_total", Kind::Counter, "One\\two\nthree.")
            .sample(&[], 3.0)
            .sample(&[("x", "q\"\\\n"), ("y", "")], 0.25)
            .sample_if(&[("x", "none")], None)
            .sample(&[("x", "inf")], f64::INFINITY)
            .sample(&[("x", "nan")], f64::NAN)
            .sample(&[("x", "big")], 1_795_316_400.125);
        assert_eq!(
            text.finish(),
            "# HELP a_total One\\\\two\\nthree.\n# TYPE a_total counter\na_total 3\n\
             a_total{x=\"q\\\"\\\\\\n\",y=\"\"} 0.25\na_total{x=\"inf\"} +Inf\n\
             a_total{x=\"nan\"} NaN\na_total{x=\"big\"} 1795316400.125\n"
        );
    }

    #[test]
    #[should_panic(expected = "written twice")]
    fn a_metric_is_written_once() {
        let mut text = Metrics::new();
        text.family("a", Kind::Gauge, "A.");
        text.family("a", Kind::Gauge, "A.");
    }

    #[test]
    #[should_panic(expected = "is not a metric name")]
    fn a_bad_name_is_refused() {
        Metrics::new().family("a-b", Kind::Gauge, "A.");
    }
}
