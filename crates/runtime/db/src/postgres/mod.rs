//! PostgreSQL: pools of connections, and a few writers that commit in groups.
#![expect(clippy::ptr_arg, reason = "a constant text is known by its address, a made one is not")]

mod fault;
mod listen;
mod options;
mod session;
mod text;
pub(crate) mod upkeep;
pub(crate) mod value;
mod writer;

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use deadpool_postgres::{Object, Pool};
use tokio::sync::{Mutex, oneshot, watch};
use watchbell_clock::Clock;
use watchbell_core::{Millis, Statement, Value};

use crate::database::{Applied, Durability, WriterMetrics};
use crate::error::DbError;
use crate::row::{Row, RowRef};
use fault::{Failure, Server};
use listen::Listener;
pub use listen::{Notification, Notifications};
pub use options::ServerOptions;
use options::{Address, Purpose};
use session::{Session, Shared};
use text::{Text, Texts};
use writer::{Job, PATIENT, Tasks, WRITER_LOCK_MS, Writers};

/// The oldest version that we know, as the server writes it.
const OLDEST: i64 = 130_000;
/// Tries of a read whose connection was lost.
const TRIES: u32 = 4;
/// Pause after the first try; it doubles.
const PAUSE: Millis = Millis(25);

/// An open server.
pub(crate) struct Postgres {
    shared: Arc<Shared>,
    options: ServerOptions,
    address: Address,
    queries: Pool,
    /// For scans and snapshots, which may be long: they do not hold up the queries.
    reads: Pool,
    writes: Pool,
    writers: std::sync::Mutex<Option<Writers>>,
    tasks: Mutex<Tasks>,
    metrics_at_close: std::sync::Mutex<WriterMetrics>,
    closed: AtomicBool,
    /// Dropped at the end, which listeners notice.
    open: std::sync::Mutex<Option<watch::Sender<()>>>,
}

/// `pause`, doubled for each try after the first, and jittered by half.
fn backoff(pause: Millis, tries: u32) -> Millis {
    let full = pause.0 << tries.saturating_sub(1).min(8);
    // Each `RandomState` has its own keys.
    let random = std::hash::RandomState::new().build_hasher().finish();
    Millis(full / 2 + (random % (full as u64).max(1)) as i64)
}

impl Postgres {
    pub(crate) async fn connect(options: &ServerOptions) -> Result<Self, DbError> {
        if options.pooler && options.caller_clock {
            return Err(DbError::BadUrl {
                detail: "a pooler keeps no settings of a session, and the caller's clock is one: \
                         connect to the server itself"
                    .to_owned(),
            });
        }
        let address = Address::parse(&options.url)?;
        let shared = Arc::new(Shared {
            texts: Texts::default(),
            server: Server {
                location: address.location(),
                pool_timeout_ms: options.pool_timeout_ms,
                statement_timeout_ms: options.statement_timeout_ms,
                lock_timeout_ms: options.lock_timeout_ms,
            },
            pooler: options.pooler,
        });
        let queries = address.pool(options, Purpose::Query, options.pool_size)?;
        let reads = address.pool(options, Purpose::Read, options.pool_size.div_ceil(2))?;
        let purpose = Purpose::Write { lock_ms: WRITER_LOCK_MS.min(options.lock_timeout_ms) };
        let writes = address.pool(options, purpose, options.writers.max(1) + 1 + PATIENT)?;
        let (writers, tasks) = Writers::start(&writes, &shared, options);
        let opened = Self {
            shared,
            options: options.clone(),
            address,
            queries,
            reads,
            writes,
            writers: std::sync::Mutex::new(Some(writers)),
            tasks: Mutex::new(tasks),
            metrics_at_close: std::sync::Mutex::default(),
            closed: AtomicBool::new(false),
            open: std::sync::Mutex::new(Some(watch::Sender::new(()))),
        };
        opened.greet().await?;
        Ok(opened)
    }

    /// Sees that the server is one that we can work with.
    async fn greet(&self) -> Result<(), DbError> {
        let sql = "select current_setting('server_version_num')::bigint,
            current_setting('server_version'), current_setting('server_encoding')";
        let rows = self.query(&Cow::Borrowed(sql), &[]).await?;
        let Some(row) = rows.first() else { return Ok(()) };
        let server = self.shared.server.location.clone();
        if row.i64(0)? < OLDEST {
            return Err(DbError::ServerTooOld { server, version: row.text(1)?.to_owned() });
        }
        if row.text(2)? != "UTF8" {
            let detail =
                format!("its encoding is {}: create the database with encoding UTF8", row.text(2)?);
            return Err(DbError::Denied { server, detail });
        }
        Ok(())
    }

    pub(crate) fn location(&self) -> &str {
        &self.shared.server.location
    }

    fn session<'a>(&'a self, client: &'a Object) -> Session<'a> {
        Session { client, shared: &self.shared, inside: false }
    }

    async fn client(&self, pool: &Pool) -> Result<Object, DbError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(DbError::Closed);
        }
        pool.get().await.map_err(|e| self.shared.server.no_connection(e))
    }

    fn refusal(&self, text: &Text, failure: Failure) -> DbError {
        self.shared.server.refusal(text.place(0), failure)
    }

    pub(crate) async fn apply(
        &self,
        statements: Vec<Statement>,
        durability: Durability,
    ) -> Result<Applied, DbError> {
        let (answer, answered) = oneshot::channel();
        let job = Job { statements, durability, answer };
        held(&self.writers).as_ref().ok_or(DbError::Closed)?.send(job)?;
        answered.await.map_err(|_| DbError::Closed)?
    }

    /// All rows of a query. A read that lost its connection is tried again.
    pub(crate) async fn query(
        &self,
        sql: &Cow<'static, str>,
        params: &[Value],
    ) -> Result<Vec<Row>, DbError> {
        let text = self.shared.texts.get(sql);
        let mut tries = 0;
        loop {
            let outcome = match self.client(&self.queries).await {
                Ok(client) => {
                    let rows = self.session(&client).query(&text, params).await;
                    match rows {
                        Err(failure) if failure.is_stale() && tries < TRIES => {
                            tries += 1;
                            continue;
                        }
                        other => other.map_err(|failure| self.refusal(&text, failure)),
                    }
                }
                Err(error) => Err(error),
            };
            tries += 1;
            match outcome {
                Err(DbError::Unreachable { .. }) if tries < TRIES => {
                    Clock::system().sleep(backoff(PAUSE, tries)).await;
                }
                other => return other,
            }
        }
    }

    /// Runs a scan on a thread for blocking work, as its rows may cost more than the reading.
    pub(crate) async fn scan<T, F>(
        self: &Arc<Self>,
        sql: Cow<'static, str>,
        params: Vec<Value>,
        state: T,
        each: F,
    ) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnMut(&mut T, &RowRef<'_>) -> Result<ControlFlow<()>, DbError> + Send + 'static,
    {
        let client = self.client(&self.reads).await?;
        let scanner = Scanner { server: Arc::clone(self), client: Some(client), inside: false };
        let (_, outcome) = scanner.run(sql, params, state, each).await?;
        outcome
    }

    pub(crate) async fn snapshot(self: &Arc<Self>) -> Result<Snapshot, DbError> {
        let client = self.client(&self.reads).await?;
        // The first read is what fixes the instant.
        let begun = client
            .batch_execute("begin isolation level repeatable read, read only; select 1")
            .await;
        if let Err(e) = begun {
            return Err(self.shared.server.engine(&e));
        }
        let scanner = Scanner { server: Arc::clone(self), client: Some(client), inside: true };
        Ok(Snapshot(Mutex::new(Some(scanner))))
    }

    /// `None` behind a pooler, which has no sessions to listen on, and once it is closed.
    pub(crate) fn listen(&self, channel: &str) -> Option<Notifications> {
        let open = held(&self.open).as_ref()?.subscribe();
        if self.shared.pooler {
            return None;
        }
        let listener = Listener {
            config: self.address.config(&self.options, Purpose::Listen),
            tls: self.address.tls(),
            server: self.location().to_owned(),
            patience: Millis(self.options.connect_timeout_ms as i64),
            open,
        };
        Some(listener.start(channel))
    }

    pub(crate) async fn notify(&self, channel: &str, payload: &str) -> Result<(), DbError> {
        // A word is nothing that must outlive the server: it need not wait for the disk.
        const SQL: &str = "select pg_notify($1, $2), set_config('synchronous_commit', 'off', true)";
        let params = [Value::from(channel), Value::from(payload)];
        self.query(&Cow::Borrowed(SQL), &params).await.map(drop)
    }

    pub(crate) fn metrics(&self) -> WriterMetrics {
        match &*held(&self.writers) {
            Some(writers) => writers.metrics(),
            None => *held(&self.metrics_at_close),
        }
    }

    /// Finishes the writes that wait, and closes.
    pub(crate) async fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.queries.close();
        drop(held(&self.open).take());
        let last = held(&self.writers).take();
        // No list comes any more; those that wait are finished.
        let counted = last.map(Writers::finish);
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
        if let Some(counted) = counted {
            *held(&self.metrics_at_close) = counted.read();
        }
        self.writes.close();
        self.reads.close();
    }
}

fn held<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A connection for long reads.
struct Scanner {
    server: Arc<Postgres>,
    /// `None` once it is given back.
    client: Option<Object>,
    /// A transaction is open on it.
    inside: bool,
}

impl Scanner {
    fn session(&self) -> Option<Session<'_>> {
        let client = self.client.as_ref()?;
        Some(Session { client, shared: &self.server.shared, inside: self.inside })
    }

    async fn query(&self, sql: &Cow<'static, str>, params: &[Value]) -> Result<Vec<Row>, DbError> {
        let text = self.server.shared.texts.get(sql);
        let session = self.session().ok_or(DbError::Closed)?;
        session.query(&text, params).await.map_err(|failure| self.server.refusal(&text, failure))
    }

    /// The scan, and the scanner when its connection is still good.
    async fn run<T, F>(
        self,
        sql: Cow<'static, str>,
        params: Vec<Value>,
        state: T,
        each: F,
    ) -> Result<(Option<Self>, Result<T, DbError>), DbError>
    where
        T: Send + 'static,
        F: FnMut(&mut T, &RowRef<'_>) -> Result<ControlFlow<()>, DbError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            let outcome =
                runtime.block_on(self.work(&sql, &params, state, each, &|| answer.is_closed()));
            // The caller may have gone away.
            drop(answer.send(outcome));
        });
        answered.await.map_err(|_| DbError::ReaderLost)
    }

    async fn work<T, F>(
        mut self,
        sql: &Cow<'static, str>,
        params: &[Value],
        state: T,
        each: F,
        gone: &(dyn Fn() -> bool + Sync),
    ) -> (Option<Self>, Result<T, DbError>)
    where
        F: FnMut(&mut T, &RowRef<'_>) -> Result<ControlFlow<()>, DbError>,
    {
        let text = self.server.shared.texts.get(sql);
        let Some(session) = self.session() else { return (None, Err(DbError::Closed)) };
        let (outcome, left) = session.scan(&text, params, state, each, gone).await;
        let outcome = outcome.map_err(|failure| self.server.refusal(&text, failure));
        // Within a snapshot the rest is read and dropped: to stop the server would end the snapshot.
        let Some(token) = left.filter(|_| !self.inside) else { return (Some(self), outcome) };
        // The word to stop could also hit the next statement, so there is none on this connection.
        let stopped = token.cancel_query(self.server.address.tls()).await;
        if let Err(error) = stopped {
            tracing::debug!(%error, "a scan that was left early runs to its end");
        }
        if let Some(client) = self.client.take() {
            drop(Object::take(client));
        }
        (None, outcome)
    }
}

impl Drop for Scanner {
    fn drop(&mut self) {
        if let (Some(client), true) = (&self.client, self.inside) {
            session::rollback(client);
        }
    }
}

/// Several reads of one instant.
pub(crate) struct Snapshot(Mutex<Option<Scanner>>);

impl Snapshot {
    pub(crate) async fn query(
        &self,
        sql: &Cow<'static, str>,
        params: &[Value],
    ) -> Result<Vec<Row>, DbError> {
        let scanner = self.0.lock().await;
        scanner.as_ref().ok_or(DbError::ReaderLost)?.query(sql, params).await
    }

    pub(crate) async fn scan<T, F>(
        &self,
        sql: Cow<'static, str>,
        params: Vec<Value>,
        state: T,
        each: F,
    ) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnMut(&mut T, &RowRef<'_>) -> Result<ControlFlow<()>, DbError> + Send + 'static,
    {
        let mut place = self.0.lock().await;
        let scanner = place.take().ok_or(DbError::ReaderLost)?;
        let (scanner, outcome) = scanner.run(sql, params, state, each).await?;
        *place = scanner;
        outcome
    }
}
