//! The writer: one thread that owns the writing connection and commits the lists of many callers
//! together.
//!
//! Each list has its own savepoint, so a refused one leaves the others alone; all are answered
//! after the one COMMIT that makes them durable. Should the whole transaction be lost (a full disk,
//! a reference that is checked only at COMMIT), every list runs again by itself, so that the error
//! reaches the one who caused it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};

use tokio::sync::oneshot;
use watchbell_core::Statement;

use super::connection::{Connection, Opener};
use crate::database::{Applied, Durability, WriterMetrics};
use crate::error::DbError;

/// Most lists in one commit.
const BATCH: usize = 512;

pub(crate) struct Job {
    pub(crate) statements: Vec<Statement>,
    pub(crate) durability: Durability,
    pub(crate) answer: oneshot::Sender<Result<Applied, DbError>>,
}

type Work = Box<dyn for<'c> FnOnce(&mut Connection<'c>) + Send>;

pub(crate) enum Order {
    Apply(Job),
    Run(Work),
    Close(oneshot::Sender<Result<(), DbError>>),
}

#[derive(Default)]
struct Counters {
    jobs: AtomicU64,
    refused: AtomicU64,
    commits: AtomicU64,
    max_batch: AtomicU64,
    busy: AtomicU64,
    queued: AtomicU64,
}

/// The way to the thread. When it is dropped, the thread finishes what waits and ends.
pub(crate) struct Writer {
    orders: Sender<Order>,
    counters: Arc<Counters>,
}

impl Writer {
    pub(crate) fn start(raw: rusqlite::Connection, opener: &Arc<Opener>) -> Result<Self, DbError> {
        let (orders, inbox) = mpsc::channel();
        let counters = Arc::new(Counters::default());
        let (shared, path) = (Arc::clone(opener), Arc::clone(&counters));
        std::thread::Builder::new()
            .name("db-writer".to_owned())
            .spawn(move || {
                let desk = Desk { inbox, counters: path, durability: Durability::Synced };
                desk.serve(raw, &shared);
            })
            .map_err(|source| DbError::Io {
                action: "start the writer of",
                path: opener.path.clone(),
                source,
            })?;
        Ok(Self { orders, counters })
    }

    pub(crate) fn send(&self, order: Order) -> Result<(), DbError> {
        let is_job = u64::from(matches!(order, Order::Apply(_)));
        self.counters.queued.fetch_add(is_job, Ordering::Relaxed);
        self.orders.send(order).map_err(|_| DbError::Closed)
    }

    pub(crate) fn metrics(&self) -> WriterMetrics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WriterMetrics {
            jobs: read(&self.counters.jobs),
            refused: read(&self.counters.refused),
            commits: read(&self.counters.commits),
            max_batch: read(&self.counters.max_batch),
            busy: read(&self.counters.busy),
            queued: read(&self.counters.queued),
        }
    }
}

/// The thread's side.
struct Desk {
    inbox: Receiver<Order>,
    counters: Arc<Counters>,
    /// What the connection does at present.
    durability: Durability,
}

impl Desk {
    fn serve(mut self, raw: rusqlite::Connection, opener: &Opener) {
        let closing = {
            let mut connection = Connection::new(&raw, opener);
            self.work(&mut connection)
        };
        // Folds the log in also when nobody asked to close and this is the last connection.
        let closed = raw
            .execute_batch("pragma optimize; pragma wal_checkpoint(truncate);")
            .map_err(|e| opener.engine(&e))
            .and_then(|()| raw.close().map_err(|(_, e)| opener.engine(&e)));
        match (closing, closed) {
            (Some(answer), closed) => drop(answer.send(closed)),
            (None, Ok(())) => {}
            (None, Err(error)) => tracing::debug!(%error, "the log stays for the next start"),
        }
    }

    /// Serves until someone asks to close, or until everyone is gone.
    fn work(&mut self, c: &mut Connection<'_>) -> Option<oneshot::Sender<Result<(), DbError>>> {
        let mut batch = Vec::with_capacity(BATCH);
        let mut ahead = None;
        loop {
            let order = match ahead.take() {
                Some(order) => order,
                None => self.inbox.recv().ok()?,
            };
            match order {
                Order::Run(work) => work(c),
                Order::Close(answer) => return Some(answer),
                Order::Apply(job) => {
                    batch.push(job);
                    while batch.len() < BATCH {
                        match self.inbox.try_recv() {
                            Ok(Order::Apply(job)) => batch.push(job),
                            Ok(other) => {
                                ahead = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.counters.queued.fetch_sub(batch.len() as u64, Ordering::Relaxed);
                    // Who went away before the turn wants nothing done.
                    batch.retain(|job| !job.answer.is_closed());
                    self.commit(c, &mut batch);
                }
            }
        }
    }

    fn commit(&mut self, c: &mut Connection<'_>, batch: &mut Vec<Job>) {
        let size = batch.len();
        if size == 0 {
            return;
        }
        self.counters.max_batch.fetch_max(size as u64, Ordering::Relaxed);
        if size > 1
            && let Ok(outcomes) = self.together(c, batch)
        {
            for (job, outcome) in batch.drain(..).zip(outcomes) {
                self.answer(job, outcome);
            }
            return;
        }
        for job in batch.drain(..) {
            let outcome = self.alone(c, &job);
            self.answer(job, outcome);
        }
    }

    /// The next commit waits for the disk, or does not.
    fn turn_to(&mut self, c: &mut Connection<'_>, durability: Durability) -> Result<(), DbError> {
        if self.durability != durability {
            c.synchronise(durability)?;
            self.durability = durability;
        }
        Ok(())
    }

    fn answer(&self, job: Job, outcome: Result<Applied, DbError>) {
        self.counters.jobs.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = &outcome {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            let busy = u64::from(matches!(error, DbError::Busy { .. }));
            self.counters.busy.fetch_add(busy, Ordering::Relaxed);
        }
        // The caller may have gone away meanwhile.
        drop(job.answer.send(outcome));
    }

    /// One list in its own transaction.
    fn alone(&mut self, c: &mut Connection<'_>, job: &Job) -> Result<Applied, DbError> {
        self.turn_to(c, job.durability)?;
        c.control("begin immediate")?;
        let outcome = run(c, &job.statements).and_then(|applied| {
            c.control("commit")?;
            self.counters.commits.fetch_add(1, Ordering::Relaxed);
            Ok(applied)
        });
        if outcome.is_err() {
            c.rollback()?;
        }
        outcome
    }

    /// Many lists in one transaction. An error means that the transaction is lost, and that none
    /// of them happened.
    fn together(
        &mut self,
        c: &mut Connection<'_>,
        batch: &[Job],
    ) -> Result<Vec<Result<Applied, DbError>>, DbError> {
        self.turn_to(c, Durability::of_all(batch.iter().map(|job| job.durability)))?;
        c.control("begin immediate")?;
        let outcomes = batch.iter().map(|job| within(c, &job.statements)).collect();
        let committed: Result<Vec<_>, DbError> = match outcomes {
            Ok(outcomes) => c.control("commit").map(|()| outcomes),
            Err(lost) => Err(lost),
        };
        match committed {
            Ok(outcomes) => {
                self.counters.commits.fetch_add(1, Ordering::Relaxed);
                Ok(outcomes)
            }
            Err(lost) => {
                c.rollback()?;
                Err(lost)
            }
        }
    }
}

/// One list within the transaction. The outer error means that the transaction is lost.
fn within(c: &mut Connection<'_>, list: &[Statement]) -> Result<Result<Applied, DbError>, DbError> {
    c.control("savepoint list")?;
    let outcome = run(c, list);
    if outcome.is_err() {
        if c.raw.is_autocommit() {
            return Err(DbError::Closed);
        }
        c.control("rollback to list")?;
    }
    c.control("release list")?;
    Ok(outcome)
}

fn run(c: &mut Connection<'_>, list: &[Statement]) -> Result<Applied, DbError> {
    let mut applied =
        Applied { changed: Vec::with_capacity(list.len()), rows: Vec::with_capacity(list.len()) };
    for (index, statement) in list.iter().enumerate() {
        let Some((changed, rows)) = c.execute(index, statement)? else {
            applied.changed.push(0);
            applied.rows.push(Vec::new());
            continue;
        };
        if !statement.expect.holds(changed) {
            return Err(DbError::Unmet {
                index,
                target: statement.target().to_owned(),
                expected: statement.expect,
                got: changed,
            });
        }
        applied.changed.push(changed);
        applied.rows.push(rows);
    }
    Ok(applied)
}
