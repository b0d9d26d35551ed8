//! The floor on PostgreSQL: a hand-written queue of one table and one partial index that claims and
//! completes, and nothing else: no retries, no priorities, no fencing, no history beyond the row.
//!
//! The limit is written into the claim's text and the rows come by `any(array(..))`: so the
//! statement is planned once, as an index scan, whatever the statistics say.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};
use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::Millis;

use super::server::connect;
use super::{
    AHEAD, CALLERS, FLOOR_BATCH, PER_CALL, Reading, Stamps, Starts, WARM_UP, pause, payload,
};

const TABLE: &str = "create table jobs (
        id bigint generated always as identity primary key,
        due timestamptz not null default now(),
        state smallint not null default 0,
        taken_at timestamptz,
        payload json not null);
    create index jobs_ready on jobs (due, id) where state = 0;
    create table effects (job bigint primary key)";

const INSERT: &str = "insert into jobs (due, payload)
    select to_timestamp($2::float8 / 1e6), p::json from unnest($1::text[]) p";

const INSERT_ONE: &str = "insert into jobs (payload) values ($1::text::json)";

const FIELDS: &str = "id, (payload->>'i')::bigint, (payload->>'t')::bigint";

/// What becomes of a finished row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// Deleted.
    Deleted,
    /// Updated, and kept where it is.
    Kept,
}

impl Finished {
    const fn sql(self) -> &'static str {
        match self {
            Self::Deleted => "delete from jobs where id = any($1)",
            Self::Kept => "update jobs set state = 2 where id = any($1)",
        }
    }
}

/// One way to drain.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// Connections.
    pub connections: usize,
    /// Jobs of a batch: one commit claims them, one ends them.
    pub batch: usize,
    /// What becomes of them.
    pub finished: Finished,
}

impl Drain {
    /// In batches on two connections.
    #[must_use]
    pub const fn batches(finished: Finished) -> Self {
        Self { connections: 2, batch: FLOOR_BATCH, finished }
    }

    /// One job at a time on sixteen connections.
    #[must_use]
    pub const fn singly() -> Self {
        Self { connections: 16, batch: 1, finished: Finished::Deleted }
    }
}

fn claim(limit: usize) -> String {
    format!(
        "update jobs set state = 1, taken_at = now()
         where id = any(array(select id from jobs where state = 0 and due <= now()
            order by due, id limit {limit} for update skip locked))
         returning {FIELDS}"
    )
}

/// The floor in one fresh database.
#[derive(Debug)]
pub struct Floor {
    url: String,
    stamps: Stamps,
    clock: Clock,
}

impl Floor {
    /// Makes its table in the database at `url`.
    ///
    /// # Errors
    /// When the server refuses; so all below.
    pub async fn new(url: &str, stamps: Stamps, clock: &Clock) -> anyhow::Result<Self> {
        connect(url).await?.batch_execute(TABLE).await?;
        Ok(Self { url: url.to_owned(), stamps, clock: clock.clone() })
    }

    async fn client(&self) -> anyhow::Result<Client> {
        connect(&self.url).await
    }

    async fn expect(&self, sql: &str, expected: usize) -> anyhow::Result<()> {
        let rows: i64 = self.client().await?.query_one(sql, &[]).await?.get(0);
        anyhow::ensure!(rows == expected as i64, "{sql}: {rows}, expected {expected}");
        Ok(())
    }

    /// Enqueues `jobs`, [`PER_CALL`] a call, and returns how many a second.
    ///
    /// # Errors
    /// Also when a row is missing.
    pub async fn bulk(&self, jobs: usize) -> anyhow::Result<f64> {
        let client = self.client().await?;
        let watch = Stopwatch::start();
        self.insert(&client, jobs, None).await?;
        let rate = jobs as f64 / watch.elapsed().as_secs_f64();
        self.expect("select count(*) from jobs", jobs).await?;
        Ok(rate)
    }

    async fn insert(&self, client: &Client, jobs: usize, due: Option<i64>) -> anyhow::Result<()> {
        let insert = client.prepare(INSERT).await?;
        for first in (0..jobs).step_by(PER_CALL) {
            let due = due.unwrap_or_else(|| self.stamps.micros());
            let rows: Vec<String> =
                (first..(first + PER_CALL).min(jobs)).map(|i| payload(i, due)).collect();
            client.execute(&insert, &[&rows, &(due as f64)]).await?;
        }
        Ok(())
    }

    /// Enqueues `jobs` one a call, by `callers` with a connection each.
    ///
    /// # Errors
    /// Also when a row is missing.
    pub async fn one_by_one(&self, jobs: usize, callers: usize) -> anyhow::Result<f64> {
        let mut clients = Vec::with_capacity(callers);
        for _ in 0..callers {
            let client = self.client().await?;
            let insert = client.prepare(INSERT_ONE).await?;
            clients.push((client, insert));
        }
        let (next, stamps) = (Arc::new(AtomicUsize::new(0)), self.stamps);
        let watch = Stopwatch::start();
        let mut tasks = JoinSet::new();
        for (client, insert) in clients {
            let next = Arc::clone(&next);
            tasks.spawn(async move {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= jobs {
                        return Ok::<_, anyhow::Error>(());
                    }
                    client.execute(&insert, &[&payload(i, stamps.micros())]).await?;
                }
            });
        }
        finish(tasks).await?;
        let rate = jobs as f64 / watch.elapsed().as_secs_f64();
        self.expect("select count(*) from jobs", jobs).await?;
        Ok(rate)
    }

    /// As [`one_by_one`](Self::one_by_one) with [`CALLERS`] callers.
    ///
    /// # Errors
    /// The same.
    pub async fn callers(&self, jobs: usize) -> anyhow::Result<f64> {
        self.one_by_one(jobs, CALLERS).await
    }

    /// Runs all that is queued.
    ///
    /// # Errors
    /// Also when a job was not run or a row is not as it should be.
    pub async fn drain(&self, jobs: usize, drain: Drain) -> anyhow::Result<f64> {
        let starts = Starts::counting(jobs);
        let mut workers = Vec::new();
        for _ in 0..drain.connections {
            let client = self.client().await?;
            let take = client.prepare(&claim(drain.batch)).await?;
            let end = client.prepare(drain.finished.sql()).await?;
            workers.push((client, take, end));
        }
        let stamps = self.stamps;
        let watch = Stopwatch::start();
        let mut tasks = JoinSet::new();
        for (client, take, end) in workers {
            let starts = Arc::clone(&starts);
            tasks.spawn(async move {
                loop {
                    let rows = client.query(&take, &[]).await?;
                    if rows.is_empty() {
                        return Ok::<_, anyhow::Error>(());
                    }
                    let ids: Vec<i64> = rows.iter().map(|r| r.get(0)).collect();
                    rows.iter().for_each(|r| starts.started(r.get(2), &stamps));
                    client.execute(&end, &[&ids]).await?;
                }
            });
        }
        finish(tasks).await?;
        let rate = jobs as f64 / watch.elapsed().as_secs_f64();
        anyhow::ensure!(starts.count() == jobs as u64, "{} of {jobs} jobs ran", starts.count());
        match drain.finished {
            Finished::Deleted => self.expect("select count(*) from jobs", 0).await?,
            Finished::Kept => {
                self.expect("select count(*) from jobs where state = 2", jobs).await?;
            }
        }
        Ok(rate)
    }

    /// A worker that waits for a word and for due times, as long as it is kept.
    async fn worker(&self, starts: Arc<Starts>) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
        let config: Config = self.url.parse().context("the server's address is not one")?;
        let (listener, mut connection) = config.connect(NoTls).await?;
        let bell = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        let rung = Arc::clone(&bell);
        tasks.spawn(async move {
            while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
                if matches!(message?, AsyncMessage::Notification(_)) {
                    rung.notify_one();
                }
            }
            Ok(())
        });
        listener.batch_execute("listen jobs").await?;
        let client = self.client().await?;
        let take = client.prepare(&claim(FLOOR_BATCH)).await?;
        let end = client.prepare(Finished::Deleted.sql()).await?;
        let next = client
            .prepare(
                "select (extract(epoch from min(due) - clock_timestamp()) * 1000)::float8
                 from jobs where state = 0",
            )
            .await?;
        let (stamps, clock) = (self.stamps, self.clock.clone());
        tasks.spawn(async move {
            let _listener = listener;
            loop {
                let rows = client.query(&take, &[]).await?;
                if rows.is_empty() {
                    let wait: Option<f64> = client.query_one(&next, &[]).await?.get(0);
                    let wait = Millis(wait.unwrap_or(60_000.0).clamp(0.0, 60_000.0).ceil() as i64);
                    // A word that does not come is no matter: the due time does.
                    tokio::select! {
                        () = clock.sleep(wait) => {}
                        () = bell.notified() => {}
                    }
                    continue;
                }
                let ids: Vec<i64> = rows.iter().map(|r| r.get(0)).collect();
                rows.iter().for_each(|r| starts.started(r.get(2), &stamps));
                client.execute(&end, &[&ids]).await?;
            }
        });
        Ok(tasks)
    }

    /// Enqueues jobs some milliseconds apart and tells how soon an idle worker began each.
    ///
    /// # Errors
    /// Also when a job did not begin.
    pub async fn pick_up(&self, jobs: usize) -> anyhow::Result<Reading> {
        let starts = Starts::timing(jobs + WARM_UP);
        let _worker = self.worker(Arc::clone(&starts)).await?;
        let client = self.client().await?;
        let sql = "with job as (insert into jobs (payload) values ($1::text::json))
            select pg_notify('jobs', '')";
        let insert = client.prepare(sql).await?;
        for i in 0..jobs + WARM_UP {
            client.execute(&insert, &[&payload(i, self.stamps.micros())]).await?;
            starts.reach(i + 1, &self.clock).await?;
            self.clock.sleep(pause(i)).await;
        }
        Ok(Reading::times(&starts.late(WARM_UP)))
    }

    /// Tells how late jobs begin that are due at one instant.
    ///
    /// # Errors
    /// Also when a job did not begin.
    pub async fn due_at_once(&self, jobs: usize) -> anyhow::Result<Reading> {
        let starts = Starts::timing(jobs);
        let _worker = self.worker(Arc::clone(&starts)).await?;
        let due = (self.clock.now() + AHEAD).0 * 1_000;
        let client = self.client().await?;
        self.insert(&client, jobs, Some(due)).await?;
        client.batch_execute("notify jobs").await?;
        starts.reach(jobs, &self.clock).await?;
        Ok(Reading::times(&starts.late(0)))
    }

    /// Runs all that is queued, each job with one row of its own in the transaction that ends it:
    /// `batch` jobs a transaction.
    ///
    /// # Errors
    /// Also when an effect is missing.
    pub async fn effects(
        &self,
        jobs: usize,
        connections: usize,
        batch: usize,
    ) -> anyhow::Result<f64> {
        let take = format!(
            "delete from jobs
             where id = any(array(select id from jobs where state = 0 and due <= now()
                order by due, id limit {batch} for update skip locked))
             returning {FIELDS}"
        );
        let mut workers = Vec::new();
        for _ in 0..connections {
            let client = self.client().await?;
            let take = client.prepare(&take).await?;
            let write = client.prepare("insert into effects select unnest($1::bigint[])").await?;
            workers.push((client, take, write));
        }
        let watch = Stopwatch::start();
        let mut tasks = JoinSet::new();
        for (mut client, take, write) in workers {
            tasks.spawn(async move {
                loop {
                    let transaction = client.transaction().await?;
                    let rows = transaction.query(&take, &[]).await?;
                    let jobs: Vec<i64> = rows.iter().map(|r| r.get(1)).collect();
                    if jobs.is_empty() {
                        return Ok::<_, anyhow::Error>(());
                    }
                    transaction.execute(&write, &[&jobs]).await?;
                    transaction.commit().await?;
                }
            });
        }
        finish(tasks).await?;
        let rate = jobs as f64 / watch.elapsed().as_secs_f64();
        self.expect("select count(*) from effects", jobs).await?;
        self.expect("select count(*) from jobs", 0).await?;
        Ok(rate)
    }
}

async fn finish(mut tasks: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(done) = tasks.join_next().await {
        done.context("a task of the floor ended badly")??;
    }
    Ok(())
}
