//! One cycle of a worker on command, with its progress while it runs.

use std::io::Write as _;

use serde_json::json;
use watchbell_api::{Control, Result, RunOptions, RunReport, RunRequest, WindowRef};
use watchbell_clock::Clock;
use watchbell_core::Millis;
use watchbell_core::port::Outcome;

use crate::args::{ProgressMode, RunArgs};
use crate::exit::Exit;
use crate::out::Out;
use crate::progress::{Progress, Stage};

/// How often a cycle is asked how far it is.
const LOOK: Millis = Millis(150);

/// Runs one cycle of a worker and waits for its end; meanwhile its progress is shown on the error
/// stream.
///
/// # Errors
/// As [`Control::run`].
pub async fn run_worker(args: &RunArgs, control: &dyn Control, out: &mut Out) -> Result<RunReport> {
    let window = args.window.clone().map(|(series, start)| WindowRef { series, start });
    let request = RunRequest {
        worker: args.name.clone(),
        options: RunOptions { dry_run: args.dry_run, force: args.force, window },
    };
    let mut shown = Shown::new(args, out);
    let running = control.run(request);
    tokio::pin!(running);
    let report = loop {
        tokio::select! {
            report = &mut running => break report,
            () = out.clock.sleep(LOOK) => {}
        }
        // Who cannot say how far it is runs all the same, and its end is waited for.
        if let Ok(detail) = control.worker(args.name.clone()).await
            && let Some(progress) = detail.line.progress
        {
            shown.told(progress.percent, &progress.message);
        }
    };
    shown.ended(&report);
    report
}

/// The exit code that a report leads to.
#[must_use]
pub const fn exit_of(report: &RunReport) -> Exit {
    match report.outcome {
        Outcome::Succeeded | Outcome::Snoozed | Outcome::Running => Exit::Ok,
        Outcome::Fenced | Outcome::Cancelled => Exit::Refused,
        Outcome::Failed | Outcome::TimedOut | Outcome::Lost => Exit::Failed,
    }
}

/// Where progress goes.
enum Shown {
    People(Option<Stage>),
    Programs { worker: String, newest: String, clock: Clock },
}

impl Shown {
    fn new(args: &RunArgs, out: &Out) -> Self {
        let worker = args.name.as_str();
        let progress = match args.progress {
            ProgressMode::Json => {
                let shown = Self::Programs {
                    worker: worker.to_owned(),
                    newest: String::new(),
                    clock: out.clock.clone(),
                };
                shown.event("start", &json!({}));
                return shown;
            }
            ProgressMode::Auto => Progress::fitting(out.quiet),
            ProgressMode::Plain => {
                // Progress that cannot be shown must not stop the work.
                Progress::lines(|line| drop(writeln!(std::io::stderr(), "{line}")))
            }
        };
        Self::People(Some(progress.cycle(worker)))
    }

    fn told(&mut self, percent: f64, message: &str) {
        match self {
            Self::People(stage) => {
                if let Some(stage) = stage {
                    stage.told(percent, message);
                }
            }
            Self::Programs { newest, .. } => {
                if newest != message {
                    message.clone_into(newest);
                    let (phase, words) = message.split_once(": ").unwrap_or(("", message));
                    self.event(
                        "progress",
                        &json!({ "phase": phase, "percent": percent, "message": words }),
                    );
                }
            }
        }
    }

    fn ended(&mut self, report: &Result<RunReport>) {
        match self {
            Self::People(stage) => {
                if let Some(stage) = stage.take() {
                    stage.finish();
                }
            }
            Self::Programs { .. } => match report {
                Ok(report) if exit_of(report) == Exit::Ok => self.event("success", &json!({})),
                Ok(report) => {
                    let error = report.cycle.as_ref().and_then(|c| c.error.clone());
                    self.event("error", &json!({ "error": error }));
                }
                Err(e) => self.event("error", &json!({ "error": e.to_string() })),
            },
        }
    }

    /// A line of JSON on the error stream.
    fn event(&self, status: &str, more: &serde_json::Value) {
        let Self::Programs { worker, clock, .. } = self else { return };
        let mut event = json!({ "ts": clock.now(), "job": worker, "status": status });
        if let (Some(event), Some(more)) = (event.as_object_mut(), more.as_object()) {
            event.extend(more.clone());
        }
        drop(writeln!(std::io::stderr(), "{event}"));
    }
}
