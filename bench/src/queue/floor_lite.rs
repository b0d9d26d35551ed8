//! The floor on SQLite: a hand-written queue of one table and one partial index in a file of its
//! own, driven by threads in this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use rusqlite::Connection;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use watchbell_clock::{Clock, Stopwatch};
use watchbell_db::Synchronous;

use super::{
    AHEAD, CALLERS, FLOOR_BATCH, PER_CALL, Reading, Stamps, Starts, WARM_UP, pause, payload,
};
use crate::candles::bare;

const TABLE: &str = "create table jobs (id integer primary key, due integer not null,
        state integer not null default 0, taken_at integer, payload text not null);
    create index jobs_ready on jobs (due, id) where state = 0;
    create table effects (job integer primary key);";

const CLAIM: &str = "update jobs set state = 1, taken_at = ?1 where id in
    (select id from jobs where state = 0 and due <= ?1 order by due, id limit ?2)
    returning id, payload->>'i', payload->>'t'";

/// The floor in one fresh file.
#[derive(Debug)]
pub struct Floor {
    path: PathBuf,
    synchronous: Synchronous,
    stamps: Stamps,
    clock: Clock,
}

/// Number, place and stamp of a claimed job.
type Claimed = (i64, i64, i64);

fn claim(connection: &Connection, batch: usize, stamps: &Stamps) -> rusqlite::Result<Vec<Claimed>> {
    let mut claim = connection.prepare_cached(CLAIM)?;
    let row = |r: &rusqlite::Row<'_>| Ok((r.get(0)?, r.get(1)?, r.get(2)?));
    claim.query_map((stamps.micros(), batch as i64), row)?.collect()
}

fn insert(connection: &Connection, i: usize, stamp: i64) -> rusqlite::Result<()> {
    let mut insert =
        connection.prepare_cached("insert into jobs (due, payload) values (?1, ?2)")?;
    insert.execute((stamp, payload(i, stamp))).map(drop)
}

/// Claims a batch and ends it as `end` says for each job, each in a commit.
fn pass(
    connection: &mut Connection,
    starts: &Starts,
    stamps: &Stamps,
    end: &str,
) -> anyhow::Result<usize> {
    let jobs = claim(connection, FLOOR_BATCH, stamps)?;
    jobs.iter().for_each(|job| starts.started(job.2, stamps));
    let transaction = connection.transaction()?;
    for job in &jobs {
        transaction.prepare_cached(end)?.execute([job.0])?;
    }
    transaction.commit()?;
    Ok(jobs.len())
}

impl Floor {
    /// Makes its table in a new file in `dir`.
    ///
    /// # Errors
    /// When SQLite fails; so all below.
    pub fn new(
        dir: &Path,
        synchronous: Synchronous,
        stamps: Stamps,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let path = dir.join("floor.db");
        bare(&path, synchronous)?.execute_batch(TABLE)?;
        Ok(Self { path, synchronous, stamps, clock: clock.clone() })
    }

    fn connection(&self) -> anyhow::Result<Connection> {
        let connection = bare(&self.path, self.synchronous)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        Ok(connection)
    }

    fn expect(&self, sql: &str, expected: usize) -> anyhow::Result<()> {
        let rows: i64 = self.connection()?.query_row(sql, [], |r| r.get(0))?;
        anyhow::ensure!(rows == expected as i64, "{sql}: {rows}, expected {expected}");
        Ok(())
    }

    /// Enqueues `jobs`, [`PER_CALL`] a transaction, and returns how many a second.
    ///
    /// # Errors
    /// Also when a row is missing.
    pub fn bulk(&self, jobs: usize) -> anyhow::Result<f64> {
        let mut connection = self.connection()?;
        let watch = Stopwatch::start();
        for first in (0..jobs).step_by(PER_CALL) {
            let transaction = connection.transaction()?;
            for i in first..(first + PER_CALL).min(jobs) {
                insert(&transaction, i, self.stamps.micros())?;
            }
            transaction.commit()?;
        }
        let rate = jobs as f64 / watch.elapsed().as_secs_f64();
        self.expect("select count(*) from jobs", jobs)?;
        Ok(rate)
    }

    /// Enqueues `jobs`, one a transaction.
    ///
    /// # Errors
    /// Also when a row is missing.
    pub fn one_by_one(&self, jobs: usize) -> anyhow::Result<f64> {
        let connection = self.connection()?;
        let watch = Stopwatch::start();
        for i in 0..jobs {
            insert(&connection, i, self.stamps.micros())?;
        }
        let rate = jobs as f64 / watch.elapsed().as_secs_f64();
        self.expect("select count(*) from jobs", jobs)?;
        Ok(rate)
    }

    /// Enqueues `jobs` by [`CALLERS`] tasks, one a call: a thread takes what waits, commits it
    /// together and answers each caller.
    ///
    /// # Errors
    /// Also when a row is missing.
    pub async fn callers(&self, jobs: usize) -> anyhow::Result<f64> {
        let mut connection = self.connection()?;
        let (sender, calls) = mpsc::channel::<(usize, i64, oneshot::Sender<()>)>();
        let writer = std::thread::spawn(move || -> anyhow::Result<()> {
            while let Ok(first) = calls.recv() {
                let mut answers = Vec::with_capacity(CALLERS);
                let transaction = connection.transaction()?;
                for (i, stamp, answer) in std::iter::once(first).chain(calls.try_iter()) {
                    insert(&transaction, i, stamp)?;
                    answers.push(answer);
                }
                transaction.commit()?;
                for answer in answers {
                    answer.send(()).map_err(|()| anyhow::anyhow!("a caller did not wait"))?;
                }
            }
            Ok(())
        });
        let (next, stamps) = (Arc::new(AtomicUsize::new(0)), self.stamps);
        let watch = Stopwatch::start();
        let mut tasks = JoinSet::new();
        for _ in 0..CALLERS {
            let (next, sender) = (Arc::clone(&next), sender.clone());
            tasks.spawn(async move {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= jobs {
                        return Ok::<_, anyhow::Error>(());
                    }
                    let (answer, answered) = oneshot::channel();
                    sender.send((i, stamps.micros(), answer)).context("the writer has ended")?;
                    answered.await.context("the writer did not answer")?;
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.context("a caller ended badly")??;
        }
        let rate = jobs as f64 / watch.elapsed().as_secs_f64();
        drop(sender);
        writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        self.expect("select count(*) from jobs", jobs)?;
        Ok(rate)
    }

    /// Runs all that is queued, in batches of [`FLOOR_BATCH`]: a commit claims one, another ends
    /// it. Finished rows are kept or deleted.
    ///
    /// # Errors
    /// Also when a job was not run or a row is not as it should be.
    pub fn drain(&self, jobs: usize, keep: bool) -> anyhow::Result<f64> {
        let mut connection = self.connection()?;
        let starts = Starts::counting(jobs);
        let end = if keep {
            "update jobs set state = 2 where id = ?1"
        } else {
            "delete from jobs where id = ?1"
        };
        let watch = Stopwatch::start();
        while pass(&mut connection, &starts, &self.stamps, end)? > 0 {}
        let rate = jobs as f64 / watch.elapsed().as_secs_f64();
        anyhow::ensure!(starts.count() == jobs as u64, "{} of {jobs} jobs ran", starts.count());
        let left = if keep { jobs } else { 0 };
        self.expect("select count(*) from jobs where state in (0, 1, 2)", left)?;
        self.expect("select count(*) from jobs where state < 2", 0)?;
        Ok(rate)
    }

    /// A thread that waits for a word and for due times until `words` ends.
    fn worker(
        &self,
        starts: Arc<Starts>,
        words: mpsc::Receiver<()>,
    ) -> anyhow::Result<std::thread::JoinHandle<anyhow::Result<()>>> {
        let mut connection = self.connection()?;
        let stamps = self.stamps;
        Ok(std::thread::spawn(move || {
            loop {
                let end = "delete from jobs where id = ?1";
                if pass(&mut connection, &starts, &stamps, end)? > 0 {
                    continue;
                }
                let next: Option<i64> = connection
                    .prepare_cached("select min(due) from jobs where state = 0")?
                    .query_row([], |r| r.get(0))?;
                let wait = next.map_or(60_000_000, |due| (due - stamps.micros()).max(0));
                match words.recv_timeout(Duration::from_micros(wait.unsigned_abs())) {
                    Ok(()) | Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
                }
            }
        }))
    }

    /// Enqueues jobs some milliseconds apart and tells how soon an idle thread began each.
    ///
    /// # Errors
    /// Also when a job did not begin.
    pub async fn pick_up(&self, jobs: usize) -> anyhow::Result<Reading> {
        let starts = Starts::timing(jobs + WARM_UP);
        let (bell, words) = mpsc::channel();
        let worker = self.worker(Arc::clone(&starts), words)?;
        let connection = self.connection()?;
        for i in 0..jobs + WARM_UP {
            insert(&connection, i, self.stamps.micros())?;
            bell.send(()).context("the worker has ended")?;
            starts.reach(i + 1, &self.clock).await?;
            self.clock.sleep(pause(i)).await;
        }
        drop(bell);
        worker.join().map_err(|_| anyhow::anyhow!("the worker panicked"))??;
        Ok(Reading::times(&starts.late(WARM_UP)))
    }

    /// Tells how late jobs begin that are due at one instant.
    ///
    /// # Errors
    /// Also when a job did not begin.
    pub async fn due_at_once(&self, jobs: usize) -> anyhow::Result<Reading> {
        let starts = Starts::timing(jobs);
        let (bell, words) = mpsc::channel();
        let worker = self.worker(Arc::clone(&starts), words)?;
        let due = (self.clock.now() + AHEAD).0 * 1_000;
        let mut connection = self.connection()?;
        let transaction = connection.transaction()?;
        for i in 0..jobs {
            insert(&transaction, i, due)?;
        }
        transaction.commit()?;
        bell.send(()).context("the worker has ended")?;
        starts.reach(jobs, &self.clock).await?;
        drop(bell);
        worker.join().map_err(|_| anyhow::anyhow!("the worker panicked"))??;
        Ok(Reading::times(&starts.late(0)))
    }

    /// Runs all that is queued, each job with one row of its own in the transaction that ends it:
    /// `batch` jobs a transaction.
    ///
    /// # Errors
    /// Also when an effect is missing.
    pub fn effects(&self, jobs: usize, batch: usize) -> anyhow::Result<f64> {
        let mut connection = self.connection()?;
        let watch = Stopwatch::start();
        loop {
            let transaction = connection.transaction()?;
            let claimed = claim(&transaction, batch, &self.stamps)?;
            for job in &claimed {
                transaction.prepare_cached("insert into effects values (?1)")?.execute([job.1])?;
                transaction.prepare_cached("delete from jobs where id = ?1")?.execute([job.0])?;
            }
            transaction.commit()?;
            if claimed.is_empty() {
                break;
            }
        }
        let rate = jobs as f64 / watch.elapsed().as_secs_f64();
        self.expect("select count(*) from effects", jobs)?;
        self.expect("select count(*) from jobs", 0)?;
        Ok(rate)
    }
}
