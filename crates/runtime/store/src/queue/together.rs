//! Ends of jobs that add rows, many in one transaction.
//!
//! Each such end has the promise of a transaction of its own: its rows are there exactly when the
//! job has ended. Hundreds of them at a time would spend most of their time on the way to the
//! database, though. So whoever comes while others are being published waits for the next turn, and
//! then all that have gathered go together: their ends as one statement, and their rows as one for
//! each table. Adding rows reads nothing, so it makes no difference who of them comes first. Should
//! anything be wrong with one of them, none has happened, and each is published by itself.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, oneshot};
use watchbell_core::port::{FollowUp, JobEnd, Publication, Result};
use watchbell_core::{Expect, Statement};
use watchbell_db::Database;

use super::Known;
use super::finish::ending;
use crate::publish::{self, job_end};
use crate::sql::is_shared;

/// Most publications of one transaction.
const MOST: usize = 256;
/// Transactions under way at a time: one is being written while the next gathers.
const TURNS: usize = 2;

/// Where publications wait for their turn.
#[derive(Debug)]
pub(crate) struct Together {
    waiting: Mutex<VecDeque<Waiting>>,
    turns: Semaphore,
}

#[derive(Debug)]
struct Waiting {
    publication: Publication,
    end: JobEnd,
    /// Whether it happened; if not, it is to be published by itself.
    answer: oneshot::Sender<bool>,
}

impl Default for Together {
    fn default() -> Self {
        Self { waiting: Mutex::default(), turns: Semaphore::new(TURNS) }
    }
}

impl Together {
    pub(crate) async fn publish(&self, db: &Database, known: &Known, p: Publication) -> Result<()> {
        let Some(end) = job_end(&p).filter(|end| only_adds_rows(&p, end)) else {
            return publish::publish(db, known, p).await;
        };
        let (answer, mut answered) = oneshot::channel();
        let publication = p.clone();
        self.queue().push_back(Waiting { publication, end, answer });
        let happened = loop {
            tokio::select! {
                biased;
                happened = &mut answered => break happened.unwrap_or(false),
                turn = self.turns.acquire() => {
                    self.serve(db).await;
                    drop(turn);
                }
            }
        };
        // Asked for by itself, an end that did happen is known by its record.
        if happened { Ok(()) } else { publish::publish(db, known, p).await }
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes those that wait, of one session and one shape.
    async fn serve(&self, db: &Database) {
        let mut batch: Vec<Waiting> = Vec::new();
        {
            let mut queue = self.queue();
            while batch.len() < MOST {
                let Some(next) = queue.pop_front() else { break };
                match batch.first() {
                    Some(first) if !alike(&first.publication, &next.publication) => {
                        queue.push_front(next);
                        break;
                    }
                    // Who went away meanwhile wants nothing done.
                    _ if next.answer.is_closed() => {}
                    _ => batch.push(next),
                }
            }
        }
        let happened = match joined(is_shared(db), &batch) {
            Some(list) => match db.apply(list).await {
                Ok(_) => true,
                Err(error) => {
                    tracing::debug!(%error, "{} ends go one by one", batch.len());
                    false
                }
            },
            None => false,
        };
        for waiting in batch {
            // Whoever asked may have gone away.
            waiting.answer.send(happened).ok();
        }
    }
}

/// Whether a publication ends a job with success and does nothing else than to add rows.
fn only_adds_rows(p: &Publication, end: &JobEnd) -> bool {
    let plain = |s: &Statement| {
        let sql = s.sql.trim_start();
        let adds = sql.get(..12).is_some_and(|verb| verb.eq_ignore_ascii_case("insert into "));
        let lower = sql.to_ascii_lowercase();
        let reads = ["select", "on conflict", "returning", "{rows"];
        adds && s.width == 0
            && !s.params.is_empty()
            && lower.contains("values")
            && !reads.iter().any(|word| lower.contains(word))
    };
    let commit = &p.commit;
    let artifacts = p.end.as_ref().is_some_and(|end| !end.artifacts.is_empty());
    end.follow_up == FollowUp::Finish
        && !artifacts
        && commit.covers.is_empty()
        && commit.events.is_empty()
        && commit.jobs.is_empty()
        && commit.conditions.is_empty()
        && commit.statements.iter().all(plain)
}

/// Whether two publications can share statements.
fn alike(a: &Publication, b: &Publication) -> bool {
    let (x, y) = (&a.commit.statements, &b.commit.statements);
    a.session == b.session
        && x.len() == y.len()
        && x.iter().zip(y).all(|(x, y)| x.sql == y.sql && x.params.len() == y.params.len())
}

/// The list that publishes all of them. `None` where it would be one for each all the same.
fn joined(shared: bool, batch: &[Waiting]) -> Option<Vec<Statement>> {
    let [first, _, ..] = batch else { return None };
    let now = batch.iter().map(|w| w.publication.now).max()?;
    let ends: Vec<JobEnd> = batch.iter().map(|w| w.end.clone()).collect();
    let mut ending = ending(shared, &first.publication.session, &ends, now, false);
    let [tell] = ending.tell[..] else { return None };
    ending.list[tell].expect = Expect::Exactly(batch.len() as u64);
    let mut list = ending.list;
    for (at, shape) in first.publication.commit.statements.iter().enumerate() {
        let of_each = batch.iter().map(|w| &w.publication.commit.statements[at]);
        let rows = of_each.clone().flat_map(|s| s.params.iter().cloned()).collect();
        let mut all = Statement::bulk(shape.sql.clone(), shape.params.len(), rows);
        // Each adds one row, or fails: what any of them expects otherwise is its own matter.
        let as_one = of_each.clone().all(|s| s.expect.holds(1));
        if !as_one {
            return None;
        }
        all.expect = Expect::Exactly(batch.len() as u64);
        list.push(all);
    }
    Some(list)
}
