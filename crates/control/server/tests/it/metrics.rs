//! The runtime's metrics are text that a scraper takes.

use std::collections::{BTreeMap, BTreeSet};

use watchbell_server::metrics::{Metrics, runtime};

use crate::fixture;

type Sample = (String, BTreeMap<String, String>);

/// Reads the text format, and fails where a scraper would.
fn parse(text: &str) -> BTreeMap<Sample, f64> {
    let mut samples = BTreeMap::new();
    let mut typed = BTreeSet::new();
    let mut open: Option<String> = None;
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(matches!(kind, "counter" | "gauge"), "{line}");
            assert!(typed.insert(name.to_owned()), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            open = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!typed.contains(name) && !help.is_empty(), "{line}");
        } else {
            let (head, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = head.split_once('{').unwrap_or((head, "}"));
            assert_eq!(Some(name), open.as_deref(), "{line}");
            let mut rest = labels.strip_suffix('}').unwrap();
            let mut set = BTreeMap::new();
            while !rest.is_empty() {
                let (key, after) = rest.split_once("=\"").unwrap();
                let mut text = String::new();
                let mut chars = after.char_indices();
                let end = loop {
                    match chars.next().expect("a label ends") {
                        (i, '"') => break i,
                        (_, '\\') => match chars.next().expect("an escape has a letter").1 {
                            'n' => text.push('\n'),
                            c => {
                                assert!(matches!(c, '\\' | '"'), "{line}");
                                text.push(c);
                            }
                        },
                        (_, c) => text.push(c),
                    }
                };
                assert!(set.insert(key.to_owned(), text).is_none(), "{line}");
                rest = &after[end + 1..];
                rest = rest.strip_prefix(',').unwrap_or(rest);
            }
            let value = value.parse().expect("a number");
            assert!(samples.insert((name.to_owned(), set), value).is_none(), "{line}");
        }
    }
    samples
}

#[test]
fn the_runtimes_metrics_are_read_back_as_they_are() {
    let mut status = fixture::status(true);
    // A hostile name must not break the text.
    status.node.version = "0.1.0\"} 1\n# TYPE x\\".into();
    let mut metrics = Metrics::new();
    runtime(&mut metrics, &status);
    let text = metrics.finish();
    let samples = parse(&text);
    let get = |name: &str, labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        samples.get(&(name.to_owned(), labels)).copied()
    };
    assert_eq!(get("watchbell_build_info", &[("version", &status.node.version)]), Some(1.0));
    let sync = [("worker", "market-sync")];
    assert_eq!(get("watchbell_worker_runs_total", &sync), Some(1_204.0));
    assert_eq!(get("watchbell_worker_last_duration_seconds", &sync), Some(0.84));
    assert_eq!(
        get("watchbell_worker_last_success_timestamp_seconds", &sync),
        Some(1_795_318_202.0)
    );
    assert_eq!(
        get("watchbell_worker_needs_attention", &[("worker", "window-sampler-3h")]),
        Some(1.0)
    );
    assert_eq!(get("watchbell_worker_last_duration_seconds", &[("worker", "export")]), None);
    let running = [("worker", "market-sync"), ("state", "RUNNING")];
    assert_eq!(get("watchbell_worker_state", &running), Some(1.0));
    let complete = [("series", "window-sampler-30m"), ("state", "complete")];
    assert_eq!(get("watchbell_windows", &complete), Some(342.0));
    let failed = [("kind", "export"), ("state", "failed")];
    assert_eq!(get("watchbell_jobs", &failed), Some(1.0));
    assert_eq!(get("watchbell_jobs", &[("kind", "mail"), ("state", "succeeded")]), Some(0.0));
    assert_eq!(get("watchbell_jobs_due", &[("kind", "export")]), Some(1_203.0));
    assert_eq!(get("watchbell_jobs_oldest_due_age_seconds", &[("kind", "export")]), Some(95.0));
    assert_eq!(get("watchbell_jobs_consumed", &[("kind", "mail")]), Some(0.0));
    assert_eq!(get("watchbell_nodes", &[]), Some(2.0));
    let silent = [("host", "helm"), ("session", "s-11c0")];
    assert_eq!(get("watchbell_node_overdue", &silent), Some(1.0));
    assert_eq!(get("watchbell_node_clock_skew_seconds", &silent), Some(-2.5));
    assert_eq!(get("watchbell_node_silence_seconds", &silent), Some(41.0));
}
