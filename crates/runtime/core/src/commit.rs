//! A commit is a value: the ordered statements that one transaction will run, with what each must
//! change. The store applies it whole or not at all; `--dry-run` prints it; tests read it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::job::Mask;
use crate::units::{Millis, SeriesName, Time, WorkerName};

/// One parameter or one cell: the types that both database engines share.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// SQL `NULL`.
    Null,
    /// A 64-bit integer; instants, durations and booleans are stored so.
    Int(i64),
    /// A double.
    Float(f64),
    /// Text, shared so that a thousand rows of one symbol hold one string.
    Text(Arc<str>),
    /// Bytes.
    Bytes(Arc<[u8]>),
}

impl From<i64> for Value {
    fn from(v: i64) -> Self {
        Self::Int(v)
    }
}
impl From<i32> for Value {
    fn from(v: i32) -> Self {
        Self::Int(v.into())
    }
}
impl From<u32> for Value {
    fn from(v: u32) -> Self {
        Self::Int(v.into())
    }
}
impl From<bool> for Value {
    fn from(v: bool) -> Self {
        Self::Int(v.into())
    }
}
impl From<f64> for Value {
    /// A value that is not finite has no form that both engines share, and is stored as `NULL`.
    fn from(v: f64) -> Self {
        if v.is_finite() { Self::Float(v) } else { Self::Null }
    }
}
impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Self::Text(Arc::from(v))
    }
}
impl From<String> for Value {
    fn from(v: String) -> Self {
        Self::Text(Arc::from(v))
    }
}
impl From<Arc<str>> for Value {
    fn from(v: Arc<str>) -> Self {
        Self::Text(v)
    }
}
impl From<&WorkerName> for Value {
    fn from(v: &WorkerName) -> Self {
        Self::Text(v.shared())
    }
}
impl From<&SeriesName> for Value {
    fn from(v: &SeriesName) -> Self {
        Self::Text(v.shared())
    }
}
impl From<Time> for Value {
    fn from(v: Time) -> Self {
        Self::Int(v.0)
    }
}
impl From<Millis> for Value {
    fn from(v: Millis) -> Self {
        Self::Int(v.0)
    }
}
impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(v: Option<T>) -> Self {
        v.map_or(Self::Null, Into::into)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Int(v) => write!(f, "{v}"),
            Self::Float(v) => write!(f, "{v}"),
            Self::Text(v) => write!(f, "'{v}'"),
            Self::Bytes(v) => write!(f, "<{} bytes>", v.len()),
        }
    }
}

/// Makes a parameter list: `values![name, 3, None::<i64>]`.
#[macro_export]
macro_rules! values {
    ($($v:expr),* $(,)?) => { vec![$($crate::Value::from($v)),*] };
}

/// How many rows a statement must change (or return, where it has a `returning` clause).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Any number.
    Any,
    /// Exactly this many; anything else refuses the whole commit.
    Exactly(u64),
    /// At least this many.
    AtLeast(u64),
}

impl Expect {
    /// Whether `rows` meets the expectation.
    #[must_use]
    pub const fn holds(self, rows: u64) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(n) => rows == n,
            Self::AtLeast(n) => rows >= n,
        }
    }
}

/// One statement of a commit, or one prepared statement run for many rows.
///
/// SQL is the common form of both engines: parameters `$1`, `$2`, ...; tables `schema.table`.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// The text.
    pub sql: Cow<'static, str>,
    /// The parameters; for a bulk statement, row after row.
    pub params: Vec<Value>,
    /// Parameters of one row; 0 when the statement runs once with all of `params`.
    pub width: usize,
    /// Rows that must change. For a bulk statement: over all its rows together.
    pub expect: Expect,
}

impl Statement {
    /// A statement that runs once.
    pub fn new(sql: impl Into<Cow<'static, str>>, params: Vec<Value>) -> Self {
        Self { sql: sql.into(), params, width: 0, expect: Expect::Any }
    }

    /// One prepared statement for many rows of `width` parameters each, given flat. Sort the rows
    /// by their key first: it is a third faster.
    ///
    /// # Panics
    /// When the parameters do not divide into rows.
    pub fn bulk(sql: impl Into<Cow<'static, str>>, width: usize, params: Vec<Value>) -> Self {
        assert!(
            width > 0 && params.len().is_multiple_of(width),
            "{} parameters are not rows of {width}",
            params.len()
        );
        Self { sql: sql.into(), params, width, expect: Expect::Any }
    }

    /// Sets the expectation.
    #[must_use]
    pub fn expect(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }

    /// How many times the statement runs.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.params.len().checked_div(self.width).unwrap_or(1)
    }

    /// The table that the statement writes, as far as its first words tell: for printing.
    #[must_use]
    pub fn target(&self) -> &str {
        let mut words = self.sql.split_whitespace();
        while let Some(w) = words.next() {
            let w = w.to_ascii_lowercase();
            if matches!(w.as_str(), "into" | "update" | "from") {
                return words.next().map_or("?", |t| t.split('(').next().unwrap_or(t));
            }
        }
        "?"
    }
}

/// A durable, typed notification, written in the commit that causes it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// Dotted type, such as `window.completed`.
    pub kind: String,
    /// What it is about: a worker, a window, a symbol. Ordering and de-duplication use it.
    pub key: String,
    /// A second event with the same `dedupe` value is dropped.
    pub dedupe: Option<String>,
    /// Details.
    pub payload: serde_json::Value,
}

/// A job to enqueue.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewJob {
    /// Which kind of work.
    pub kind: String,
    /// Input, as the kind's schema defines it.
    #[serde(default = "empty")]
    pub payload: serde_json::Value,
    /// While a job of this kind with the same key is in a state of `unique_in`, no other is added.
    #[serde(default)]
    pub unique_key: Option<String>,
    /// The states that `unique_key` counts in.
    #[serde(default)]
    pub unique_in: Mask,
    /// What the kind's limit per key counts by: a user, a symbol.
    #[serde(default)]
    pub limit_key: Option<String>,
    /// Not before this instant; `None` is at once.
    #[serde(default)]
    pub run_at: Option<Time>,
    /// Higher runs first, 0 or more; `None` is the kind's.
    #[serde(default)]
    pub priority: Option<i32>,
    /// Attempts before the job is dead, 1 or more; `None` is the kind's.
    #[serde(default)]
    pub max_attempts: Option<u32>,
}

fn empty() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

impl NewJob {
    /// A job of `kind` with the kind's own policy, at once.
    pub fn new(kind: impl Into<String>, payload: serde_json::Value) -> Self {
        Self {
            kind: kind.into(),
            payload,
            unique_key: None,
            unique_in: Mask::default(),
            limit_key: None,
            run_at: None,
            priority: None,
            max_attempts: None,
        }
    }

    /// At most one with this key at a time, queued or running.
    #[must_use]
    pub fn unique(mut self, key: impl Into<String>) -> Self {
        self.unique_key = Some(key.into());
        self
    }

    /// Not before that instant.
    #[must_use]
    pub const fn at(mut self, run_at: Time) -> Self {
        self.run_at = Some(run_at);
        self
    }
}

/// Says that everything that `source` will ever say about `key` in `[from, to)` is stored: data, or
/// the knowledge that upstream has none. Window gates read these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cover {
    /// What was covered, such as `klines:1m`.
    pub source: String,
    /// For which key, such as `BTCUSDT`.
    pub key: String,
    /// Start of the covered interval.
    pub from: Time,
    /// End, exclusive.
    pub to: Time,
}

/// A named fact that workers may require, such as `venue:binance`: while it is not met, a worker
/// that requires it is gated, and `explain` shows the detail.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Condition {
    /// Name.
    pub name: String,
    /// Whether it holds.
    pub met: bool,
    /// Why it does not hold (or does), in an operator's words.
    pub detail: String,
    /// When it is expected to change by itself, if known.
    pub until: Option<Time>,
}

/// Everything that a cycle publishes besides its own records: applied in one transaction whose
/// first statement checks the fencing token.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Commit {
    /// Domain statements, in order.
    pub statements: Vec<Statement>,
    /// Input covers that this commit completes.
    pub covers: Vec<Cover>,
    /// Events to emit.
    pub events: Vec<NewEvent>,
    /// Jobs to enqueue.
    pub jobs: Vec<NewJob>,
    /// Conditions to set.
    pub conditions: Vec<Condition>,
}

impl Commit {
    /// A commit that writes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds a statement.
    pub fn push(&mut self, statement: Statement) -> &mut Self {
        self.statements.push(statement);
        self
    }
    /// Adds a statement, by value.
    #[must_use]
    pub fn with(mut self, statement: Statement) -> Self {
        self.statements.push(statement);
        self
    }
    /// Adds an event.
    pub fn emit(
        &mut self,
        kind: impl Into<String>,
        key: impl Into<String>,
        payload: serde_json::Value,
    ) -> &mut Self {
        self.events.push(NewEvent { kind: kind.into(), key: key.into(), dedupe: None, payload });
        self
    }
    /// Adds a job.
    pub fn enqueue(&mut self, job: NewJob) -> &mut Self {
        self.jobs.push(job);
        self
    }
    /// Whether nothing would be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
            && self.covers.is_empty()
            && self.events.is_empty()
            && self.jobs.is_empty()
            && self.conditions.is_empty()
    }

    /// One line per table and kind: what `--dry-run` prints.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for s in &self.statements {
            let verb = s.sql.split_whitespace().next().unwrap_or("?").to_ascii_lowercase();
            let rows = s.runs();
            let rows = if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") };
            lines.push(format!("{verb} {}: {rows}", s.target()));
        }
        for c in &self.covers {
            lines.push(format!("cover {} {}: {} to {}", c.source, c.key, c.from, c.to));
        }
        for e in &self.events {
            lines.push(format!("event {} {}", e.kind, e.key));
        }
        for j in &self.jobs {
            lines.push(format!("job {}", j.kind));
        }
        for c in &self.conditions {
            let state = if c.met { "met" } else { "not met" };
            lines.push(format!("condition {}: {state} ({})", c.name, c.detail));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_describes_itself_by_table() {
        let mut c = Commit::new().with(Statement::bulk(
            "insert into market.klines(symbol, t) values ($1, $2)",
            2,
            values!["A", 1, "A", 2],
        ));
        c.emit("klines.stored", "A", serde_json::Value::Null);
        assert_eq!(c.describe(), ["insert market.klines: 2 rows", "event klines.stored A"]);
    }

    #[test]
    fn infinity_and_nan_are_null() {
        assert_eq!(Value::from(f64::NAN), Value::Null);
        assert_eq!(Value::from(f64::INFINITY), Value::Null);
        assert_eq!(Value::from(1.5), Value::Float(1.5));
    }
}
