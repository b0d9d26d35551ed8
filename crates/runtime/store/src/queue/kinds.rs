//! Kinds of jobs, and whether a new job is one that its kind allows.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use jsonschema::Validator;
use watchbell_core::job::{Kind, MAX_PAYLOAD, OLDEST_RUN_AT};
use watchbell_core::port::{KindRecord, Result, StoreError};
use watchbell_core::{Millis, NewJob, Statement, Time, Value, WorkerName, values};
use watchbell_db::Database;

use crate::record::{all, failed, json};

/// For so long a definition is used before it is read again: another node may have registered a
/// newer one.
const FRESH_FOR: Millis = Millis::from_secs(5);

/// Longest key, in bytes: it is part of an index.
const MAX_KEY: usize = 1 << 10;

/// A job that may be added, with everything that its kind says filled in.
#[derive(Debug, Clone)]
pub(crate) struct Admitted {
    pub(crate) kind: Arc<str>,
    /// JSON text.
    pub(crate) payload: Arc<str>,
    pub(crate) unique_key: Option<Arc<str>>,
    pub(crate) unique_in: u8,
    pub(crate) limit_key: Option<Arc<str>>,
    pub(crate) run_at: Option<Time>,
    pub(crate) priority: i32,
    pub(crate) max_attempts: u32,
}

/// A kind as this process knows it.
#[derive(Debug)]
pub(super) struct KnownKind {
    name: Arc<str>,
    pub(super) kind: Kind,
    /// `None` where every payload is right.
    schema: Option<Validator>,
    /// Text of the definition that `schema` was made of.
    definition: Arc<str>,
}

#[derive(Debug, Default)]
struct Book {
    kinds: HashMap<Arc<str>, Arc<KnownKind>>,
    read_at: Option<Time>,
}

/// The kinds that are stored, as last read.
#[derive(Debug, Default)]
pub(super) struct Kinds(RwLock<Book>);

impl Kinds {
    fn find(&self, name: &str, now: Time) -> Option<Arc<KnownKind>> {
        let book = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let age = now - book.read_at?;
        let fresh = age >= Millis::ZERO && age < FRESH_FOR;
        book.kinds.get(name).filter(|_| fresh).cloned()
    }

    /// The kind of that name; read from the store when it is not known or was read long ago.
    pub(super) async fn get(
        &self,
        db: &Database,
        name: &str,
        now: Time,
    ) -> Result<Option<Arc<KnownKind>>> {
        if let Some(known) = self.find(name, now) {
            return Ok(Some(known));
        }
        self.refresh(db, now).await?;
        let book = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Ok(book.kinds.get(name).cloned())
    }

    async fn refresh(&self, db: &Database, now: Time) -> Result<()> {
        let sql = "select kind, definition from ops.job_kinds";
        let rows = db.query(sql, vec![]).await.map_err(failed)?;
        let read = all("ops.job_kinds", &rows, |r| {
            let kind: Kind = r.doc(1, "kind of job")?;
            Ok((r.row.shared_text(0)?, r.row.shared_text(1)?, kind))
        })?;
        let mut book = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut kinds = HashMap::with_capacity(read.len());
        for (name, definition, kind) in read {
            let known = match book.kinds.remove(&name) {
                Some(known) if known.definition == definition => known,
                _ => {
                    // A schema that is none was refused at registration; one that another version
                    // of this program took is taken as none.
                    let schema = kind.schema.as_ref().and_then(|s| compile(s).ok());
                    Arc::new(KnownKind { name: Arc::clone(&name), kind, schema, definition })
                }
            };
            kinds.insert(name, known);
        }
        *book = Book { kinds, read_at: Some(now) };
        Ok(())
    }

    pub(super) async fn admit(
        &self,
        db: &Database,
        jobs: Vec<NewJob>,
        now: Time,
    ) -> Result<Vec<Admitted>> {
        let mut admitted = Vec::with_capacity(jobs.len());
        let mut last: Option<Arc<KnownKind>> = None;
        for (n, job) in jobs.into_iter().enumerate() {
            let known = match last.take().filter(|k| *k.name == *job.kind) {
                Some(known) => known,
                None => self.get(db, &job.kind, now).await?.ok_or_else(|| {
                    let problem = format!(
                        "there is no kind of job `{}`: no worker that consumes it was ever \
                         registered",
                        job.kind
                    );
                    invalid(n, "kind", problem)
                })?,
            };
            admitted.push(known.judge(n, job)?);
            last = Some(known);
        }
        Ok(admitted)
    }
}

fn compile(schema: &serde_json::Value) -> std::result::Result<Validator, String> {
    jsonschema::validator_for(schema).map_err(|e| e.to_string())
}

fn invalid(n: usize, field: &str, problem: impl Into<String>) -> StoreError {
    StoreError::Invalid { place: format!("jobs[{n}].{field}"), problem: problem.into() }
}

impl KnownKind {
    fn judge(&self, n: usize, job: NewJob) -> Result<Admitted> {
        let payload = job.payload.to_string();
        if payload.len() > MAX_PAYLOAD {
            let problem = format!(
                "it has {} bytes of JSON, and at most {MAX_PAYLOAD} are taken: store the data \
                 elsewhere and pass where it is",
                payload.len()
            );
            return Err(invalid(n, "payload", problem));
        }
        if let Some(Err(error)) = self.schema.as_ref().map(|s| s.validate(&job.payload)) {
            let path = dotted(error.instance_path().as_str());
            return Err(invalid(n, &format!("payload{path}"), error.to_string()));
        }
        let priority = job.priority.unwrap_or(self.kind.priority);
        if priority < 0 {
            let problem = format!("{priority} is negative: it is 0 or more, higher runs first");
            return Err(invalid(n, "priority", problem));
        }
        let max_attempts = job.max_attempts.unwrap_or(self.kind.max_attempts.max(1));
        if max_attempts == 0 {
            return Err(invalid(n, "max_attempts", "0 attempts run nothing: give 1 or more"));
        }
        for (field, key) in [("unique_key", &job.unique_key), ("limit_key", &job.limit_key)] {
            match key.as_deref() {
                Some("") => return Err(invalid(n, field, "it is empty: leave it out instead")),
                Some(key) if key.len() > MAX_KEY => {
                    let problem = format!("it has {} bytes, and {MAX_KEY} are taken", key.len());
                    return Err(invalid(n, field, problem));
                }
                _ => {}
            }
        }
        if let Some(at) = job.run_at.filter(|at| *at < OLDEST_RUN_AT) {
            let problem = format!(
                "{at} is before {OLDEST_RUN_AT}: was it given in seconds, where milliseconds are \
                 meant?"
            );
            return Err(invalid(n, "run_at", problem));
        }
        Ok(Admitted {
            kind: Arc::clone(&self.name),
            payload: Arc::from(payload),
            unique_key: job.unique_key.map(Arc::from),
            unique_in: job.unique_in.bits(),
            limit_key: job.limit_key.map(Arc::from),
            run_at: job.run_at,
            priority,
            max_attempts,
        })
    }
}

/// A JSON pointer in the way that a program would write it: `/legs/0/symbol` is `.legs[0].symbol`.
fn dotted(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            path.push_str(&format!("[{part}]"));
        } else {
            path.push('.');
            path.push_str(&part);
        }
    }
    path
}

/// Stores the kinds that a worker consumes.
///
/// # Errors
/// A schema is none, or a limit of 0 would let nothing run.
pub(crate) fn register_kinds(
    kinds: &[Kind],
    worker: &WorkerName,
    now: Time,
) -> Result<Vec<Statement>> {
    let mut rows = Vec::with_capacity(kinds.len() * 8);
    for kind in kinds {
        let refuse = |field: &str, problem: String| {
            let place = format!("kind `{}` of worker `{worker}`, {field}", kind.name);
            Err(StoreError::Invalid { place, problem })
        };
        if let Some(Err(problem)) = kind.schema.as_ref().map(compile) {
            return refuse("schema", problem);
        }
        let rate = kind.rate.map(|r| (r.count, r.per.0));
        for (field, limit) in [
            ("concurrency", kind.concurrency.map(i64::from)),
            ("per_key", kind.per_key.map(i64::from)),
            ("rate.count", rate.map(|(count, _)| i64::from(count))),
            ("rate.per", rate.map(|(_, per)| per)),
        ] {
            if limit.is_some_and(|limit| limit < 1) {
                return refuse(field, "it is 0 or less, and nothing would ever run".to_owned());
            }
        }
        // Rounded up, so that the rate is never exceeded.
        let step = kind.rate.map(|r| {
            let micros = r.per.0.saturating_mul(1_000);
            micros / i64::from(r.count) + i64::from(micros % i64::from(r.count) != 0)
        });
        rows.extend(values![
            kind.name.as_str(),
            json(kind),
            worker,
            now,
            kind.concurrency,
            kind.per_key,
            kind.rate.map(|r| r.count),
            step
        ]);
    }
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![Statement::bulk(
        "insert into ops.job_kinds (kind, definition, worker, registered_at, concurrency, per_key,
            rate_count, rate_step)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (kind) do update set definition = excluded.definition,
            worker = excluded.worker, registered_at = excluded.registered_at,
            concurrency = excluded.concurrency, per_key = excluded.per_key,
            rate_count = excluded.rate_count, rate_step = excluded.rate_step",
        8,
        rows,
    )])
}

pub(super) async fn list(db: &Database) -> Result<Vec<KindRecord>> {
    let sql = "select definition, worker, registered_at from ops.job_kinds order by kind";
    let rows = db.query(sql, vec![]).await.map_err(failed)?;
    all("ops.job_kinds", &rows, |r| {
        Ok(KindRecord {
            kind: r.doc(0, "kind of job")?,
            worker: WorkerName::from(r.row.text(1)?),
            registered_at: r.row.time(2)?,
        })
    })
}

impl From<&Admitted> for [Value; 8] {
    fn from(job: &Admitted) -> Self {
        [
            Value::Text(Arc::clone(&job.kind)),
            Value::Text(Arc::clone(&job.payload)),
            job.priority.into(),
            job.max_attempts.into(),
            job.run_at.into(),
            job.unique_key.clone().into(),
            job.unique_key.as_ref().map(|_| i64::from(job.unique_in)).into(),
            job.limit_key.clone().into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_reads_as_a_path() {
        for (pointer, path) in [
            ("", ""),
            ("/symbol", ".symbol"),
            ("/legs/0/symbol", ".legs[0].symbol"),
            ("/a~1b/~0", ".a/b.~"),
        ] {
            assert_eq!(dotted(pointer), path);
        }
    }
}
