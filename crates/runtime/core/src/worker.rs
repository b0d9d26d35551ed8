//! What a workload implements: a worker's definition, and one method that runs a cycle.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::commit::Commit;
use crate::port::StoreError;
use crate::trigger::{Cause, Missed, Trigger};
use crate::units::{CycleId, Millis, Time, Token, WorkerName};

/// A boxed future: what an object-safe asynchronous method returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Any error, boxed, with its chain of causes.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A named unit of background work.
pub trait Worker: Send + Sync + 'static {
    /// Who it is and when it runs. Asked once, at registration.
    fn define(&self) -> Definition;

    /// Runs one cycle: reads and computes, and returns what to publish. It must not write; the
    /// engine publishes the returned commit in one fenced transaction. A cycle may be run again
    /// after a crash, so everything that it does outside its commit must be repeatable.
    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>>;

    /// For a window worker: the keys that the window must cover (its scope), fixed when the window
    /// is first claimed. Others return nothing.
    fn scope<'a>(&'a self, _start: Time) -> BoxFuture<'a, Result<Vec<String>, BoxError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// For a window worker: the start of its first window at or after `from` (an aligned instant).
    /// A series may begin late and may have stretches without windows, such as the months in which
    /// nothing that it covers was listed. `None` means that there is none yet.
    fn first_window<'a>(&'a self, _from: Time) -> BoxFuture<'a, Result<Option<Time>, BoxError>> {
        Box::pin(async { Ok(None) })
    }
}

/// A worker's identity and policy. Everything here is data, printed by `worker show`.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Name: lower case, digits and hyphens.
    pub name: WorkerName,
    /// One paragraph: what it does.
    pub description: String,
    /// What starts a cycle.
    pub trigger: Trigger,
    /// What happens to missed due instants.
    pub missed: Missed,
    /// Spread of due instants, deterministic by worker and instant.
    pub jitter: Millis,
    /// Workers that must run before this one starts.
    pub needs: Vec<Dependency>,
    /// After this long the cycle is asked to stop.
    pub soft_timeout: Millis,
    /// After this long it is aborted and its token burnt.
    pub hard_timeout: Millis,
    /// Without a success for this long, the worker is stale. `None` derives it from the trigger.
    pub stale_after: Option<Millis>,
    /// Whether each occurrence and cycle is a row.
    pub ledger: Ledger,
    /// Conditions that must be met before a cycle starts.
    pub requires: Vec<String>,
    /// Workers with the same lane never run cycles at the same time.
    pub lane: Option<String>,
    /// It gives way: its ticks start only while no window and no cycle of a lane is running or
    /// ready on the node, and at the latest after its [patience](Self::patience).
    pub opportunistic: bool,
    /// Why it cannot run on this node, if it cannot.
    pub unavailable: Option<String>,
}

/// A worker that another one needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// The needed worker.
    pub worker: WorkerName,
    /// A soft dependency orders the start but does not prevent it.
    pub soft: bool,
}

/// How much of a worker's life is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Ledger {
    /// Every due instant and every cycle is a row, claimed one by one.
    #[default]
    Full,
    /// Only cycles that publish or fail are rows, under one standing lease; heartbeats are
    /// flushed together. For work that ticks each second or so.
    Quiet,
}

/// Periods for which an opportunistic worker gives way at most.
const PATIENCE: i64 = 10;

impl Definition {
    /// A worker with the default policy.
    pub fn new(name: impl Into<WorkerName>, trigger: Trigger) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            trigger,
            missed: Missed::default(),
            jitter: Millis::ZERO,
            needs: Vec::new(),
            soft_timeout: Millis::from_mins(5),
            hard_timeout: Millis::from_mins(10),
            stale_after: None,
            ledger: Ledger::default(),
            requires: Vec::new(),
            lane: None,
            opportunistic: false,
            unavailable: None,
        }
    }

    /// Sets the description.
    #[must_use]
    pub fn describe(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }
    /// Adds a hard dependency.
    #[must_use]
    pub fn needs(mut self, worker: impl Into<WorkerName>) -> Self {
        self.needs.push(Dependency { worker: worker.into(), soft: false });
        self
    }
    /// Adds a soft dependency.
    #[must_use]
    pub fn after(mut self, worker: impl Into<WorkerName>) -> Self {
        self.needs.push(Dependency { worker: worker.into(), soft: true });
        self
    }
    /// Sets the missed-run policy.
    #[must_use]
    pub const fn missed(mut self, missed: Missed) -> Self {
        self.missed = missed;
        self
    }
    /// Sets both time limits.
    #[must_use]
    pub const fn timeouts(mut self, soft: Millis, hard: Millis) -> Self {
        self.soft_timeout = soft;
        self.hard_timeout = hard;
        self
    }
    /// Sets what is recorded.
    #[must_use]
    pub const fn ledger(mut self, ledger: Ledger) -> Self {
        self.ledger = ledger;
        self
    }
    /// Adds a condition that must be met.
    #[must_use]
    pub fn requires(mut self, condition: impl Into<String>) -> Self {
        self.requires.push(condition.into());
        self
    }
    /// Puts the worker into a lane.
    #[must_use]
    pub fn lane(mut self, lane: impl Into<String>) -> Self {
        self.lane = Some(lane.into());
        self
    }
    /// Lets it give way to windows and lanes.
    #[must_use]
    pub const fn opportunistic(mut self) -> Self {
        self.opportunistic = true;
        self
    }

    /// How long an opportunistic worker gives way at most before it runs all the same: what it says
    /// of its staleness, or else ten of its periods (of cron: ten of the longest pauses). `None` for
    /// one that gives no way.
    #[must_use]
    pub fn patience(&self) -> Option<Millis> {
        if !self.opportunistic {
            return None;
        }
        self.stale_after.or_else(|| Some(self.trigger.longest_pause()? * PATIENCE))
    }
}

/// What a cycle can ask of the engine while it runs.
pub trait Host: Send + Sync {
    /// The present instant, by the node's clock.
    fn now(&self) -> Time;
    /// Whether the cycle was asked to stop.
    fn cancelled(&self) -> bool;
    /// Waits until the cycle is asked to stop.
    fn until_cancelled(&self) -> BoxFuture<'_, ()>;
    /// Shows progress: percent done and a few words.
    fn progress(&self, percent: f64, message: &str);
    /// Publishes one step of a long cycle in its own fenced transaction.
    fn step(&self, commit: Commit) -> BoxFuture<'_, Result<(), StoreError>>;
    /// A fresh directory on the artifact file system, for files that [`Done::artifact`] publishes.
    fn stage(&self) -> Result<PathBuf, std::io::Error>;
    /// Whether nothing of this cycle will be published: a dry run. A worker whose input costs others
    /// something, such as requests to a venue, says what it would do instead of asking for it.
    fn rehearsal(&self) -> bool {
        false
    }
}

/// One execution of a worker, as the worker sees it.
#[derive(Clone)]
pub struct Cycle {
    /// Its number in the store; 0 in a dry run and for a quiet worker.
    pub id: CycleId,
    /// The worker.
    pub worker: WorkerName,
    /// Why it runs.
    pub cause: Cause,
    /// The right to publish.
    pub token: Token,
    /// 1 for the first attempt at this window, job or event.
    pub attempt: u32,
    /// When it started.
    pub started_at: Time,
    /// Input: the event's or job's payload, or the window's scope.
    pub input: CycleInput,
    /// The engine.
    pub host: Arc<dyn Host>,
}

/// What came with the trigger.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum CycleInput {
    /// Nothing.
    #[default]
    None,
    /// A window's scope, fixed when it was first claimed.
    Scope(Vec<String>),
    /// An event.
    Event(EventRecord),
    /// A job's kind and payload.
    Job {
        /// Kind.
        kind: String,
        /// Payload.
        payload: serde_json::Value,
    },
}

/// A stored event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Its number: events are delivered in this order.
    pub id: i64,
    /// When it was committed.
    pub at: Time,
    /// Dotted type.
    pub kind: String,
    /// What it is about.
    pub key: String,
    /// Details.
    pub payload: serde_json::Value,
    /// The cycle that emitted it, if one did.
    pub cycle: Option<CycleId>,
}

impl Cycle {
    /// The present instant.
    #[must_use]
    pub fn now(&self) -> Time {
        self.host.now()
    }
    /// Whether the cycle was asked to stop.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.host.cancelled()
    }
    /// Shows progress.
    pub fn progress(&self, percent: f64, message: &str) {
        self.host.progress(percent, message);
    }
    /// Publishes a step.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the cycle lost its claim: return at once.
    pub async fn step(&self, commit: Commit) -> Result<(), StoreError> {
        self.host.step(commit).await
    }
}

impl fmt::Debug for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cycle")
            .field("id", &self.id)
            .field("worker", &self.worker)
            .field("cause", &self.cause)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// What a finished cycle publishes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Done {
    /// For people and status pages.
    pub summary: serde_json::Value,
    /// Everything to write.
    pub commit: Commit,
    /// For a window: hashes of what went in and what came out.
    pub window: Option<WindowHashes>,
    /// Files to publish.
    pub artifacts: Vec<NewArtifact>,
}

/// A window's fingerprints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowHashes {
    /// SHA-256 (hex) over the inputs in order.
    pub inputs: String,
    /// SHA-256 (hex) over the result in canonical form.
    pub result: String,
    /// Which kind of input was used, such as `points` or `klines`.
    pub source: String,
}

/// A set of staged files to publish under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewArtifact {
    /// Name; `latest` of this name will point here.
    pub name: String,
    /// The directory below the name; where it is taken, `_2`, `_3` and so on follow. Without one
    /// the instant and the cycle name it.
    pub directory: Option<String>,
    /// How long it is kept, unless it is the newest of its name; forever without.
    pub keep: Option<Millis>,
    /// The staged directory, from [`Host::stage`].
    pub staged: PathBuf,
}

impl NewArtifact {
    /// A set that is kept, in a directory named after its cycle.
    pub fn new(name: impl Into<String>, staged: PathBuf) -> Self {
        Self { name: name.into(), directory: None, keep: None, staged }
    }

    /// Names the directory.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<String>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Lets it go after a while.
    #[must_use]
    pub const fn keep(mut self, keep: Millis) -> Self {
        self.keep = Some(keep);
        self
    }
}

impl Done {
    /// A cycle that found nothing to do.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }
    /// A cycle with a summary and a commit.
    pub fn new(summary: impl Serialize, commit: Commit) -> Self {
        // Summaries are plain structs of numbers and texts; one that does not serialise is shown
        // as the error itself rather than lost.
        let summary = serde_json::to_value(summary)
            .unwrap_or_else(|e| serde_json::Value::String(format!("unprintable summary: {e}")));
        Self { summary, commit, window: None, artifacts: Vec::new() }
    }
    /// Adds a staged artifact.
    #[must_use]
    pub fn artifact(mut self, artifact: NewArtifact) -> Self {
        self.artifacts.push(artifact);
        self
    }
}

/// What kind of refusal ends a job: the job keeps it as its result, so that whoever waits for the job
/// ends as a request that is refused at once does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "refusal", rename_all = "snake_case")]
pub enum Refusal {
    /// The request makes no sense.
    Invalid,
    /// What it names does not exist.
    NotFound {
        /// `session`, `symbol`, ...
        what: String,
        /// The name that was asked for.
        name: String,
    },
    /// The present state forbids it.
    Conflict,
}

/// The error of a refusal. It reads as the error within.
#[derive(Debug)]
struct Refused {
    refusal: Refusal,
    error: BoxError,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Why a cycle did not finish; decides what happens next.
#[derive(Debug)]
pub enum Fault {
    /// May work on another attempt.
    Transient(BoxError),
    /// Another attempt cannot help: a window is abandoned, a job or event is a dead letter.
    Permanent(BoxError),
    /// Not ready; asks to run again later and spends no attempt.
    Snooze {
        /// How much later.
        after: Millis,
        /// Why.
        why: String,
    },
    /// The commit of a step was refused, or the store failed.
    Store(StoreError),
    /// Asked to stop, and stopped.
    Cancelled,
}

impl Fault {
    /// A transient fault from a sentence.
    pub fn transient(e: impl Into<BoxError>) -> Self {
        Self::Transient(e.into())
    }
    /// A permanent fault from a sentence.
    pub fn permanent(e: impl Into<BoxError>) -> Self {
        Self::Permanent(e.into())
    }
    /// A request that makes no sense, now and later.
    pub fn invalid(e: impl Into<BoxError>) -> Self {
        Self::refused(Refusal::Invalid, e)
    }
    /// A request that the present state forbids.
    pub fn conflict(e: impl Into<BoxError>) -> Self {
        Self::refused(Refusal::Conflict, e)
    }
    /// A request that names what does not exist: `there is no session 7`.
    pub fn not_found(what: &str, name: impl fmt::Display) -> Self {
        let refusal = Refusal::NotFound { what: what.to_owned(), name: name.to_string() };
        Self::refused(refusal, format!("there is no {what} {name}"))
    }
    /// A permanent fault that is a refusal of what was asked.
    pub fn refused(refusal: Refusal, e: impl Into<BoxError>) -> Self {
        Self::Permanent(Box::new(Refused { refusal, error: e.into() }))
    }
    /// What kind of refusal it is, if it is one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        let Self::Permanent(error) = self else { return None };
        error.downcast_ref::<Refused>().map(|refused| &refused.refusal)
    }
    /// One word for the ledger.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Transient(_) => "transient",
            Self::Permanent(_) => "permanent",
            Self::Snooze { .. } => "snooze",
            Self::Store(_) => "store",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transient(e) | Self::Permanent(e) => f.write_str(&chain(e.as_ref())),
            Self::Snooze { after, why } => write!(f, "not ready, again in {after}: {why}"),
            Self::Store(e) => f.write_str(&chain(e)),
            Self::Cancelled => f.write_str("stopped on request"),
        }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Fault {
    fn from(e: E) -> Self {
        let boxed: BoxError = Box::new(e);
        match boxed.downcast::<StoreError>() {
            Ok(store) => Self::Store(*store),
            Err(other) => Self::Transient(other),
        }
    }
}

/// An error and its causes in one line: `cannot sync BTCUSDT: no answer within 10s`. Characters that
/// would break the line, such as those of a value that is quoted, are escaped.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(c) = cause {
        let c_text = c.to_string();
        if !text.contains(&c_text) {
            text.push_str(": ");
            text.push_str(&c_text);
        }
        cause = c.source();
    }
    if text.contains(char::is_control) { escaped(&text) } else { text }
}

fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// Workers by profile name: `default` is what `up` runs.
pub type Profiles = BTreeMap<String, Vec<WorkerName>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_it_quotes() {
        let fault = Fault::permanent("side `B\nU\tY\u{1b}[2J` is neither, nor is `kühl`");
        let line = "side `B\\nU\\tY\\u{1b}[2J` is neither, nor is `kühl`";
        assert_eq!(fault.to_string(), line);
    }

    #[test]
    fn a_refusal_reads_as_its_error_and_comes_back_from_a_result() {
        for (fault, text, json) in [
            (Fault::invalid("no"), "no", r#"{"refusal":"invalid"}"#),
            (Fault::conflict("not now"), "not now", r#"{"refusal":"conflict"}"#),
            (
                Fault::not_found("session", 7),
                "there is no session 7",
                r#"{"refusal":"not_found","what":"session","name":"7"}"#,
            ),
        ] {
            assert_eq!(fault.to_string(), text);
            let refusal = fault.refusal().unwrap();
            assert_eq!(serde_json::to_string(refusal).unwrap(), json);
            assert_eq!(serde_json::from_str::<Refusal>(json).unwrap(), *refusal);
        }
        assert_eq!(Fault::permanent("broken").refusal(), None);
        assert_eq!(Fault::transient("broken").refusal(), None);
    }
}
