//! The venue simulator: an HTTP and WebSocket server that speaks Binance spot's protocol.
//!
//! It serves a [`Market`], synthetic from a seed or recorded from files, at the time of its clock;
//! keeps the venue's rules of ranges, weights, limits and errors; and breaks by a [`FaultScript`].
//! What a client sees depends on the market, the clock and the order of its requests, and on
//! nothing else.
//!
//! Beside the venue's paths there are three for operators and tests: `GET /sim/journal?after=N`,
//! `GET` and `POST /sim/faults`, `GET /sim/market`.

mod account;
mod book;
mod dice;
pub mod fault;
mod interval;
mod journal;
mod limiter;
mod market;
mod net;
mod params;
mod recorded;
mod render;
mod rest;
mod split;
mod stream;
mod synthetic;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::{any, get};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use watchbell_clock::Clock;
use watchbell_core::{Millis, Time};

pub use account::{Account, TEST_KEY, TEST_SECRET, Trades};
pub use fault::{FaultKind, FaultParseError, FaultRule, FaultScript};
pub use journal::{Journal, JournalEntry};
pub use limiter::{LimiterState, Limits};
pub use market::{Candle, Hole, Market, SymbolSpec, Trade};
pub use recorded::RecordedError;
pub use synthetic::DEFAULT_UNIVERSE;

use fault::Faults;
use limiter::Limiter;
use market::lock;
use net::{Door, Peer};

/// How a simulator runs.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// Where it listens; port 0 takes a free one.
    pub bind: SocketAddr,
    /// What it serves.
    pub market: Arc<Market>,
    /// Its present. On an accelerated clock the streams come faster and minutes of the request
    /// budget pass sooner.
    pub clock: Clock,
    /// What goes wrong.
    pub faults: FaultScript,
    /// What a client may ask.
    pub limits: Limits,
}

/// A simulator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The address is taken or not ours.
    #[error(
        "the venue simulator cannot listen on {address}; choose another port, or 0 for a free one"
    )]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// A running simulator. Dropping it stops it at once; [`shutdown`](Self::shutdown) lets requests
/// finish.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    venue: Arc<Venue>,
    stop: watch::Sender<bool>,
    server: Option<JoinHandle<io::Result<()>>>,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Venue {
    market: Arc<Market>,
    clock: Clock,
    faults: Mutex<Faults>,
    limits: Limits,
    limiter: Mutex<Limiter>,
    account: Mutex<Account>,
    spent: Mutex<account::Spent>,
    journal: Journal,
    stopping: watch::Receiver<bool>,
}

impl Venue {
    fn is_down(&self) -> bool {
        lock(&self.faults).is_down(self.clock.now())
    }

    /// Resolves when the simulator stops.
    async fn stopped(&self) {
        let mut stopping = self.stopping.clone();
        // An error means that the simulator is gone, which is a stop as well.
        if stopping.wait_for(|stop| *stop).await.is_err() {
            tracing::debug!("the venue simulator was dropped");
        }
    }
}

impl Simulator {
    /// Binds the address and serves from now on.
    ///
    /// # Errors
    /// [`SimError::Bind`] when the address cannot be bound.
    pub async fn start(config: SimConfig) -> Result<Self, SimError> {
        let bind = config.bind;
        let fail = |source| SimError::Bind { address: bind, source };
        let tcp = TcpListener::bind(bind).await.map_err(fail)?;
        let address = tcp.local_addr().map_err(fail)?;
        let (stop, stopping) = watch::channel(false);
        let opened = config.clock.now().floor(Millis::from_mins(1));
        let venue = Arc::new(Venue {
            account: Mutex::new(Account::standard(opened)),
            spent: Mutex::default(),
            market: config.market,
            clock: config.clock,
            faults: Mutex::new(Faults::new(config.faults)),
            limits: config.limits,
            limiter: Mutex::new(Limiter::new(config.limits)),
            journal: Journal::default(),
            stopping,
        });
        let router = Router::new()
            .route("/api/v3/{*path}", any(rest::answer))
            .route("/sapi/v1/{*path}", any(rest::answer))
            .route("/ws", any(stream::raw))
            .route("/ws/{*streams}", any(stream::raw))
            .route("/stream", any(stream::combined))
            .route("/sim/journal", get(rest::journal))
            .route("/sim/faults", get(rest::faults).post(rest::set_faults))
            .route("/sim/market", get(rest::market))
            .fallback(rest::unknown_path)
            .with_state(Arc::clone(&venue));
        let door = Door { tcp, venue: Arc::downgrade(&venue) };
        let service = router.into_make_service_with_connect_info::<Peer>();
        let watched = Arc::clone(&venue);
        let server = tokio::spawn(async move {
            axum::serve(door, service)
                .with_graceful_shutdown(async move { watched.stopped().await })
                .await
        });
        tracing::debug!(%address, "the venue simulator listens");
        Ok(Self { address, venue, stop, server: Some(server) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The base URL for REST, such as `http://127.0.0.1:40123`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The base URL for streams, such as `ws://127.0.0.1:40123`.
    #[must_use]
    pub fn ws_url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// The journal of this simulator.
    #[must_use]
    pub fn journal(&self) -> Journal {
        self.venue.journal.clone()
    }

    /// Replaces the fault script; all counters start anew.
    pub fn set_faults(&self, script: FaultScript) {
        *lock(&self.venue.faults) = Faults::new(script);
    }

    /// Replaces the account that signed requests speak for. Without it there is
    /// [`Account::standard`], from the simulator's start on.
    pub fn set_account(&self, account: Account) {
        *lock(&self.venue.account) = account;
    }

    /// The request budget of an address now.
    #[must_use]
    pub fn limiter_state(&self, address: IpAddr) -> LimiterState {
        *lock(&self.venue.limiter).state(address, self.venue.clock.now())
    }

    /// The simulated present.
    #[must_use]
    pub fn now(&self) -> Time {
        self.venue.clock.now()
    }

    /// The market being served.
    #[must_use]
    pub fn market(&self) -> &Market {
        &self.venue.market
    }

    /// Tells every stream, lets requests in progress finish, and stops.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if let Some(server) = self.server.take() {
            match server.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the venue simulator ended badly"),
                Err(error) => tracing::warn!(%error, "the venue simulator panicked"),
            }
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}
