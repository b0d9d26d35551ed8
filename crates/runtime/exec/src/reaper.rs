//! The reaper: finds programs whose supervisor died, ends them, and says so.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use watchbell_core::{
    BoxFuture, Commit, Cycle, Definition, Done, Fault, Ledger, Millis, NewEvent, Time, Trigger,
    Worker, WorkerName,
};

use crate::programs::Programs;

/// The name of the reaper.
pub const EXEC_REAPER: &str = "exec-reaper";

/// Time between looks.
const EVERY: Millis = Millis::from_secs(30);

/// A program that was ended because nobody watched it: the payload of an event `exec.reaped`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaped {
    /// Whose program it was.
    pub worker: WorkerName,
    /// Its run.
    pub run: String,
    /// Its command, shortened.
    pub command: String,
    /// Process ids that were ended, ascending.
    pub processes: Vec<i32>,
    /// When it was started.
    pub started_at: Time,
    /// How it ended.
    pub end: End,
    /// Why nobody watched it.
    pub why: String,
}

/// How an orphan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// By itself, before anybody looked.
    Gone,
    /// On TERM.
    Terminated,
    /// On KILL.
    Killed,
    /// Not at all.
    Stuck,
}

impl End {
    /// What ended it.
    #[must_use]
    pub const fn signal(self) -> &'static str {
        match self {
            Self::Gone => "itself",
            Self::Terminated => "TERM",
            Self::Killed => "KILL",
            Self::Stuck => "nothing",
        }
    }
}

/// A worker that looks for orphans at its start and every 30 seconds.
#[derive(Debug)]
pub struct Reaper {
    programs: Arc<Programs>,
}

impl Reaper {
    /// The reaper of a node's programs.
    #[must_use]
    pub const fn new(programs: Arc<Programs>) -> Self {
        Self { programs }
    }

    /// Its definition.
    #[must_use]
    pub fn definition() -> Definition {
        Definition::new(EXEC_REAPER, Trigger::Every { period: EVERY, offset: Millis::ZERO })
            .describe(
                "Finds programs of `type: exec` workers whose supervisor died, ends their process \
                 groups with TERM and then KILL, and emits an event `exec.reaped` for each.",
            )
            .ledger(Ledger::Quiet)
            .timeouts(Millis::from_mins(2), Millis::from_mins(3))
    }
}

impl Worker for Reaper {
    fn define(&self) -> Definition {
        Definition { unavailable: self.programs.unavailable(), ..Self::definition() }
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(async move {
            let reaped = self.programs.sweep(cycle.now()).await?;
            let mut commit = Commit::new();
            for one in &reaped {
                commit.events.push(NewEvent {
                    kind: "exec.reaped".into(),
                    key: one.worker.to_string(),
                    dedupe: Some(format!("exec.reaped/{}", one.run)),
                    payload: serde_json::json!(one),
                });
            }
            Ok(Done::new(serde_json::json!({ "reaped": reaped.len() }), commit))
        })
    }
}
