//! The writers: a few tasks that commit the lists of many callers together.
//!
//! A writer that finds several lists waiting runs them in one transaction, in the hope that all go
//! well. When one does not, nothing of the transaction is stored: the guilty list runs by itself,
//! so that its error reaches only its caller, and the others run together once more. A list alone
//! runs at once.
//!
//! A list that waits for a row which another session holds must not hold up the others: writers
//! wait only briefly, and hand such a list to a connection of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use deadpool_postgres::Pool;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use watchbell_clock::Clock;
use watchbell_core::{Millis, Statement};

use super::options::ServerOptions;
use super::session::{Again, How, Refusal, Session, Shared};
use crate::database::{Applied, Durability, WriterMetrics};
use crate::error::DbError;

/// Most lists in one commit.
const BATCH: usize = 64;
/// Most statements in one commit of several lists.
const STATEMENTS: usize = 1_024;
/// Most parameters in one commit of several lists.
const PARAMETERS: usize = 32_768;
/// How long a writer waits for a lock before it hands the list on.
pub(super) const WRITER_LOCK_MS: u64 = 250;
/// Lists that wait for locks on connections of their own at a time.
pub(super) const PATIENT: usize = 4;
/// Tries of one list, where nothing happened in the tries before.
const TRIES: u32 = 5;
/// Pause after the first try; it doubles.
const PAUSE: Millis = Millis(20);

/// One list and who waits for it.
pub(super) struct Job {
    pub(super) statements: Vec<Statement>,
    pub(super) durability: Durability,
    pub(super) answer: oneshot::Sender<Result<Applied, DbError>>,
}

/// What the writers have done.
#[derive(Default)]
pub(super) struct Counters {
    jobs: AtomicU64,
    refused: AtomicU64,
    commits: AtomicU64,
    max_batch: AtomicU64,
    busy: AtomicU64,
    queued: AtomicU64,
}

/// The way to the tasks. When it is dropped, they finish what waits and end.
pub(super) struct Writers {
    /// Lists that take an advisory lock first: through one writer, which commits them together
    /// instead of letting several connections wait for each other.
    ordered: mpsc::UnboundedSender<Job>,
    others: mpsc::UnboundedSender<Job>,
    counters: Arc<Counters>,
}

/// The tasks, to wait for.
pub(super) type Tasks = JoinSet<()>;

impl Writers {
    pub(super) fn start(
        pool: &Pool,
        shared: &Arc<Shared>,
        options: &ServerOptions,
    ) -> (Self, Tasks) {
        let counters = Arc::new(Counters::default());
        let patient = Arc::new(Semaphore::new(PATIENT));
        let mut tasks = Tasks::new();
        let desk = || Desk {
            pool: pool.clone(),
            shared: Arc::clone(shared),
            counters: Arc::clone(&counters),
            patient: Arc::clone(&patient),
            clock: Clock::system(),
            lock_ms: options.lock_timeout_ms,
        };
        let mut open = |count: usize| {
            let (sender, inbox) = mpsc::unbounded_channel();
            let inbox = Arc::new(Mutex::new(inbox));
            for _ in 0..count {
                tasks.spawn(desk().serve(Arc::clone(&inbox)));
            }
            sender
        };
        let (ordered, others) = (open(1), open(options.writers.max(1)));
        (Self { ordered, others, counters }, tasks)
    }

    pub(super) fn send(&self, job: Job) -> Result<(), DbError> {
        let locks = job.statements.iter().any(|s| s.sql.contains("pg_advisory_xact_lock"));
        let way = if locks { &self.ordered } else { &self.others };
        self.counters.queued.fetch_add(1, Ordering::Relaxed);
        way.send(job).map_err(|_| DbError::Closed)
    }

    pub(super) fn metrics(&self) -> WriterMetrics {
        self.counters.read()
    }

    /// Takes no more lists.
    pub(super) fn finish(self) -> Arc<Counters> {
        self.counters
    }
}

impl Counters {
    pub(super) fn read(&self) -> WriterMetrics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WriterMetrics {
            jobs: read(&self.jobs),
            refused: read(&self.refused),
            commits: read(&self.commits),
            max_batch: read(&self.max_batch),
            busy: read(&self.busy),
            queued: read(&self.queued),
        }
    }
}

/// A task's side.
#[derive(Clone)]
struct Desk {
    pool: Pool,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    patient: Arc<Semaphore>,
    clock: Clock,
    lock_ms: u64,
}

impl Desk {
    async fn serve(self, inbox: Arc<Mutex<mpsc::UnboundedReceiver<Job>>>) {
        let mut handed_on = JoinSet::new();
        loop {
            let mut batch = Vec::new();
            {
                let mut inbox = inbox.lock().await;
                let Some(first) = inbox.recv().await else { break };
                let (mut statements, mut parameters) = (weight(&first).0, weight(&first).1);
                batch.push(first);
                while batch.len() < BATCH && statements < STATEMENTS && parameters < PARAMETERS {
                    let Ok(next) = inbox.try_recv() else { break };
                    statements += weight(&next).0;
                    parameters += weight(&next).1;
                    batch.push(next);
                }
            }
            self.counters.queued.fetch_sub(batch.len() as u64, Ordering::Relaxed);
            // Who went away before the turn wants nothing done.
            batch.retain(|job| !job.answer.is_closed());
            if !batch.is_empty() {
                self.counters.max_batch.fetch_max(batch.len() as u64, Ordering::Relaxed);
                self.commit(batch, &mut handed_on).await;
            }
            while handed_on.try_join_next().is_some() {}
        }
        while handed_on.join_next().await.is_some() {}
    }

    async fn commit(&self, mut batch: Vec<Job>, handed_on: &mut JoinSet<()>) {
        // A second time together when one list was found guilty; then each by itself.
        for _ in 0..2 {
            if batch.len() < 2 {
                break;
            }
            let how = How::of(Durability::of_all(batch.iter().map(|job| job.durability)));
            let lists: Vec<&[Statement]> = batch.iter().map(|job| &job.statements[..]).collect();
            let refusal = match self.attempt(&lists, how).await {
                Ok(applied) => {
                    for (job, applied) in batch.into_iter().zip(applied) {
                        self.answer(job, Ok(applied));
                    }
                    return;
                }
                Err(refusal) => refusal,
            };
            if matches!(refusal.error, DbError::AnswerLost { .. }) {
                for job in batch {
                    let server = self.shared.server.location.clone();
                    self.answer(job, Err(DbError::AnswerLost { server }));
                }
                return;
            }
            match refusal.list {
                Some(guilty) if refusal.again != Again::Same => {
                    let job = batch.remove(guilty);
                    self.alone(job, handed_on).await;
                }
                _ => {}
            }
        }
        for job in batch {
            self.alone(job, handed_on).await;
        }
    }

    /// One list in its own transaction.
    async fn alone(&self, job: Job, handed_on: &mut JoinSet<()>) {
        let outcome = self.insist(&job.statements, How::of(job.durability)).await;
        if !matches!(outcome, Err(DbError::Locked { .. })) {
            return self.answer(job, outcome);
        }
        let desk = self.clone();
        handed_on.spawn(async move {
            let outcome = match desk.patient.acquire().await {
                Ok(_permit) => {
                    let how = How { lock_ms: Some(desk.lock_ms), ..How::of(job.durability) };
                    desk.insist(&job.statements, how).await
                }
                Err(_) => Err(DbError::Closed),
            };
            desk.answer(job, outcome);
        });
    }

    /// Tries again where another try can help and nothing has happened yet.
    async fn insist(&self, list: &[Statement], mut how: How) -> Result<Applied, DbError> {
        let mut step_by_step = false;
        let mut tries = 0;
        loop {
            let refusal = if step_by_step {
                match self.stepwise(list, how).await {
                    Ok(applied) => return Ok(applied),
                    Err(refusal) => refusal,
                }
            } else {
                match self.attempt(&[list], how).await {
                    Ok(mut applied) => return Ok(applied.pop().unwrap_or_default()),
                    Err(refusal) => refusal,
                }
            };
            tries += 1;
            let pause = match (refusal.again, &refusal.error) {
                (Again::RowByRow, _) if !how.row_by_row => {
                    how.row_by_row = true;
                    false
                }
                (Again::StepByStep, _) if !step_by_step => {
                    step_by_step = true;
                    false
                }
                (Again::Same, _) => false,
                (_, DbError::Contended { .. } | DbError::Unreachable { .. }) => true,
                _ => return Err(refusal.error),
            };
            if tries >= TRIES {
                return Err(refusal.error);
            }
            if pause {
                self.clock.sleep(super::backoff(PAUSE, tries)).await;
            }
        }
    }

    async fn attempt(&self, lists: &[&[Statement]], how: How) -> Result<Vec<Applied>, Refusal> {
        let client = self.client().await?;
        let session = Session { client: &client, shared: &self.shared, inside: false };
        let applied = session.transact(lists, how).await?;
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        Ok(applied)
    }

    async fn stepwise(&self, list: &[Statement], how: How) -> Result<Applied, Refusal> {
        let client = self.client().await?;
        let session = Session { client: &client, shared: &self.shared, inside: false };
        let applied = session.step_by_step(list, how).await?;
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        Ok(applied)
    }

    async fn client(&self) -> Result<deadpool_postgres::Object, Refusal> {
        self.pool.get().await.map_err(|e| Refusal {
            list: None,
            error: self.shared.server.no_connection(e),
            again: Again::No,
        })
    }

    fn answer(&self, job: Job, outcome: Result<Applied, DbError>) {
        self.counters.jobs.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = &outcome {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            let busy = u64::from(matches!(error, DbError::Locked { .. }));
            self.counters.busy.fetch_add(busy, Ordering::Relaxed);
        }
        // The caller may have gone away meanwhile.
        drop(job.answer.send(outcome));
    }
}

/// Statements and parameters of a list.
fn weight(job: &Job) -> (usize, usize) {
    let parameters = job.statements.iter().map(|s| s.params.len()).sum();
    (job.statements.len(), parameters)
}
