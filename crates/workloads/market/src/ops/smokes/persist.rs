//! `persist`: the newest complete window of each label, computed again by the worker that computed
//! it, and compared with what was published. Nothing is written.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use watchbell_core::port::StoreError;
use watchbell_core::{
    BoxFuture, Cause, Commit, Cycle, CycleId, CycleInput, Fault, Host, Millis, Time, Token, Worker,
};
use watchbell_db::DbError;

use super::super::{Item, Level};
use super::Ground;
use super::samples::{Complete, newest_complete};
use crate::window::{WindowWorker, series_name};

/// A host of a cycle that publishes nothing.
struct Rehearsal(Time);

impl Host for Rehearsal {
    fn now(&self) -> Time {
        self.0
    }
    fn cancelled(&self) -> bool {
        false
    }
    fn until_cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
    fn progress(&self, _percent: f64, _message: &str) {}
    fn step(&self, _commit: Commit) -> BoxFuture<'_, Result<(), StoreError>> {
        let refused = "a window that is computed again publishes nothing";
        Box::pin(async { Err(StoreError::Conflict(refused.to_owned())) })
    }
    fn stage(&self) -> Result<PathBuf, std::io::Error> {
        Err(std::io::Error::other("a window that is computed again publishes no files"))
    }
}

pub(super) async fn persist(g: &Ground<'_>) -> Result<Vec<Item>, DbError> {
    let mut items = Vec::new();
    for length in g.config.ascending() {
        let label = length.exact();
        let (key, name) = (format!("persist:{label}"), format!("{label} recomputed"));
        let Some(stored) = newest_complete(g, length).await? else {
            items.push(g.item(key, name, Level::Warn, Value::Null, "no complete window yet"));
            continue;
        };
        let start = stored.start;
        let (level, value, said) = match again(g, length, &stored).await {
            Err(fault) => (Level::Err, "failed", format!("the window of {start}: {fault}")),
            Ok(None) => (Level::Err, "failed", format!("the window of {start} gave no hashes")),
            Ok(Some((inputs, result))) if inputs == stored.inputs && result == stored.result => {
                (Level::Ok, "same", format!("the window of {start} gives the same result"))
            }
            // The worker may find other inputs than then, such as points that are gone by now.
            Ok(Some((inputs, _))) if inputs != stored.inputs => (
                Level::Warn,
                "inputs changed",
                format!("the inputs of {start} are not what they were"),
            ),
            Ok(Some(_)) => {
                (Level::Err, "different", format!("the window of {start} gives another result"))
            }
        };
        items.push(g.item(key, name, level, value, said).meta(json!({
            "start": start, "version": stored.version, "symbols": stored.scope.len(),
            "result_hash": stored.result,
        })));
    }
    Ok(items)
}

/// The hashes of inputs and result.
async fn again(
    g: &Ground<'_>,
    length: Millis,
    stored: &Complete,
) -> Result<Option<(String, String)>, Fault> {
    let worker = WindowWorker::new(g.db.clone(), length, g.config.settle);
    let name = series_name(length);
    let cycle = Cycle {
        id: CycleId(0),
        worker: name.as_str().into(),
        cause: Cause::Window {
            series: name.as_str().into(),
            start: stored.start,
            end: stored.start + length,
            version: stored.version,
        },
        token: Token(0),
        attempt: 1,
        started_at: g.now,
        input: CycleInput::Scope(stored.scope.clone()),
        host: Arc::new(Rehearsal(g.now)),
    };
    let done = worker.run(&cycle).await?;
    Ok(done.window.map(|w| (w.inputs, w.result)))
}
