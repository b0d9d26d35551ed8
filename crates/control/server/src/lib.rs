//! The HTTP API: every route is one call of a [`Control`], and every answer is what it returned.
//!
//! [`serve`] binds to loopback and answers until it is told to stop. There is no access control
//! yet, so it refuses any other address, answers only requests that name this machine as their host
//! (a page in a browser cannot reach it through a name of its own), and takes changes only as JSON
//! (a form on a foreign page cannot send them).
//!
//! Events are followed by a question that waits (`events?after=7&wait=10s`) or as server-sent events
//! (`events/stream`).
//!
//! [`metrics`] writes Prometheus' text format.

pub mod metrics;

mod follow;
mod guard;
mod jobs;
mod params;
mod problem;
mod routes;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use watchbell_api::discovery::NodeFile;
use watchbell_api::{Control, MAX_BULK};
use watchbell_clock::Clock;
use watchbell_core::Millis;

pub use routes::router;

/// How to serve.
#[derive(Debug, Clone)]
pub struct Options {
    /// Measures the limits below: the wall clock also where the node runs on a faster one.
    pub clock: Clock,
    /// How long one request may take; those that compute or change much (`run`, `verify`,
    /// `backfills`, jobs) may take longer.
    pub timeout: Millis,
    /// How long requests may go on after the stop.
    pub grace: Millis,
    /// Bytes that a request's body may have.
    pub max_body_bytes: usize,
    /// Bytes that a request with jobs may have.
    pub max_bulk_bytes: usize,
    /// Clients that may follow the events at once.
    pub max_followers: usize,
    /// The data directory, to name the node that holds the port when it is taken.
    pub data_dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: Clock::system(),
            timeout: Millis::from_secs(25),
            grace: Millis::from_secs(5),
            max_body_bytes: 1 << 20,
            max_bulk_bytes: MAX_BULK,
            max_followers: 64,
            data_dir: None,
        }
    }
}

/// The API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Others could reach that address.
    #[error(
        "cannot serve on {0}: access control comes later, so until then bind to 127.0.0.1 (this \
         machine only)"
    )]
    NotLoopback(SocketAddr),
    /// Somebody else has the port.
    #[error(
        "port {} of {} is in use{holder}: choose another one with `--http-port`, or stop the \
         process that has it",
        bind.port(),
        bind.ip()
    )]
    PortInUse {
        /// The address.
        bind: SocketAddr,
        /// By whom, as far as known.
        holder: Holder,
    },
    /// The address cannot be used.
    #[error("cannot serve on {bind}")]
    Bind {
        /// The address.
        bind: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It stopped by itself.
    #[error("the HTTP API stopped")]
    Stopped(#[source] io::Error),
}

/// Who has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A node, by the file in its data directory.
    Node {
        /// Its process.
        pid: u32,
    },
    /// Nobody that left a trace here.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { pid } => write!(f, " by the watchbell node with process id {pid}"),
            Self::Unknown => Ok(()),
        }
    }
}

/// An API that answers.
#[derive(Debug)]
pub struct Bound {
    addr: SocketAddr,
    task: JoinHandle<io::Result<()>>,
}

impl Bound {
    /// Where it answers; the real port when port 0 was asked for.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address as a client writes it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Waits until it has stopped.
    ///
    /// # Errors
    /// [`ServeError::Stopped`] when it failed rather than being told to stop.
    pub async fn stopped(self) -> Result<(), ServeError> {
        match self.task.await {
            Ok(result) => result.map_err(ServeError::Stopped),
            Err(e) => Err(ServeError::Stopped(io::Error::other(e))),
        }
    }
}

/// Serves `control` on `bind` until `shutdown` ends; then finishes the requests under way, for as
/// long as the grace time allows.
///
/// # Errors
/// [`ServeError`] when the address is not on loopback, is taken, or cannot be used.
pub async fn serve(
    bind: SocketAddr,
    control: Arc<dyn Control>,
    options: Options,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Bound, ServeError> {
    if !bind.ip().is_loopback() {
        return Err(ServeError::NotLoopback(bind));
    }
    let listener = TcpListener::bind(bind).await.map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            ServeError::PortInUse { bind, holder: holder(bind, &options) }
        } else {
            ServeError::Bind { bind, source }
        }
    })?;
    let addr = listener.local_addr().map_err(|source| ServeError::Bind { bind, source })?;
    let (clock, grace) = (options.clock.clone(), options.grace);
    let (leave, stopping_now) = watch::channel(false);
    let router = routes::stoppable(control, options, stopping_now);
    let task = tokio::spawn(async move {
        let stop = Arc::new(Notify::new());
        let stopping = Arc::clone(&stop);
        let server = axum::serve(listener, router)
            .with_graceful_shutdown(async move { stopping.notified().await });
        tokio::select! {
            result = server.into_future() => result,
            () = async {
                shutdown.await;
                // Whoever follows events would hold the others up.
                leave.send_replace(true);
                stop.notify_one();
                clock.sleep(grace).await;
                tracing::warn!(grace_ms = grace.0, "requests still open after the stop were cut");
            } => Ok(()),
        }
    });
    tracing::info!(http.addr = %addr, "the HTTP API answers on http://{addr}");
    Ok(Bound { addr, task })
}

fn holder(bind: SocketAddr, options: &Options) -> Holder {
    let file = options.data_dir.as_deref().and_then(|d| NodeFile::read(d).ok().flatten());
    match file {
        Some(f) if f.url.trim_end_matches('/').ends_with(&format!(":{}", bind.port())) => {
            Holder::Node { pid: f.pid }
        }
        _ => Holder::Unknown,
    }
}
