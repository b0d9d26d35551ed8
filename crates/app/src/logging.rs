//! Where log lines go: the error stream, as text or as JSON lines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::{Log, LogFormat};

/// Starts logging. `WATCHBELL_LOG`, where it is set, is a filter that says more than a level.
pub(crate) fn start(log: &Log, verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => log.level.as_str(),
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    // The libraries underneath speak only when they have something to warn of.
    let default = format!("warn,watchbell={level}");
    let asked = std::env::var("WATCHBELL_LOG").ok().filter(|f| !f.is_empty());
    let parsed = asked.as_deref().map(str::parse::<EnvFilter>);
    let (filter, unread) = match parsed {
        Some(Ok(filter)) => (filter, None),
        Some(Err(e)) => (EnvFilter::new(default), Some(e)),
        None => (EnvFilter::new(default), None),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_target(false)
        // A reader of the log that goes away must not take a worker with it.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => subscriber.compact().try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    // Only a second start can fail, and then the first one's lines are good enough.
    drop(started);
    if let Some(e) = unread {
        tracing::warn!(
            "WATCHBELL_LOG is not a filter ({e}) and is ignored: use one such as `watchbell=debug`"
        );
    }
}
