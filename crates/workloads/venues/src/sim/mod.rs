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
mod candle;
mod control;
mod dice;
pub mod fault;
mod floor;
mod interval;
mod journal;
mod limiter;
mod market;
mod memory;
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
mod universe;
mod venue;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::{any, get};
use watchbell_clock::Clock;
use watchbell_core::{Millis, Time};

pub use account::{Account, TEST_KEY, TEST_SECRET, Trades};
pub use fault::{FaultKind, FaultParseError, FaultRule, FaultScript};
pub use journal::{Journal, JournalEntry};
pub use limiter::{LimiterState, Limits};
pub use market::{Candle, Hole, Market, SymbolSpec, Trade};
pub use recorded::RecordedError;
pub use synthetic::DEFAULT_UNIVERSE;
pub use venue::{VenueLimits, VenueSim, VenueSimConfig};

use fault::Faults;
use floor::{Bound, Floor, Server};
use limiter::Limiter;
use market::lock;

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
    venue: Arc<Venue>,
    server: Server,
}

/// Binance: its floor, and what it keeps of its clients.
#[derive(Debug)]
pub(crate) struct Venue {
    floor: Arc<Floor>,
    limits: Limits,
    limiter: Mutex<Limiter>,
    account: Mutex<Account>,
    spent: Mutex<account::Spent>,
}

impl Simulator {
    /// Binds the address and serves from now on.
    ///
    /// # Errors
    /// [`SimError::Bind`] when the address cannot be bound.
    pub async fn start(config: SimConfig) -> Result<Self, SimError> {
        let bound = Bound::to(config.bind).await?;
        let opened = config.clock.now().floor(Millis::from_mins(1));
        let floor = Floor::new(config.market, config.clock, config.faults, bound.stopping());
        let venue = Arc::new(Venue {
            floor: Arc::new(floor),
            account: Mutex::new(Account::standard(opened)),
            spent: Mutex::default(),
            limits: config.limits,
            limiter: Mutex::new(Limiter::new(config.limits)),
        });
        let router = Router::new()
            .route("/api/v3/{*path}", any(rest::answer))
            .route("/sapi/v1/{*path}", any(rest::answer))
            .route("/ws", any(stream::raw))
            .route("/ws/{*streams}", any(stream::raw))
            .route("/stream", any(stream::combined))
            .route("/sim/journal", get(rest::journal))
            .fallback(rest::unknown_path)
            .with_state(Arc::clone(&venue))
            .merge(control::routes(&venue.floor));
        let server = bound.serve(router, &venue.floor);
        Ok(Self { venue, server })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.server.address()
    }

    /// The base URL for REST, such as `http://127.0.0.1:40123`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// The base URL for streams, such as `ws://127.0.0.1:40123`.
    #[must_use]
    pub fn ws_url(&self) -> String {
        format!("ws://{}", self.server.address())
    }

    /// The journal of this simulator.
    #[must_use]
    pub fn journal(&self) -> Journal {
        self.venue.floor.journal.clone()
    }

    /// Replaces the fault script; all counters start anew.
    pub fn set_faults(&self, script: FaultScript) {
        *lock(&self.venue.floor.faults) = Faults::new(script);
    }

    /// Replaces the account that signed requests speak for. Without it there is
    /// [`Account::standard`], from the simulator's start on.
    pub fn set_account(&self, account: Account) {
        *lock(&self.venue.account) = account;
    }

    /// The request budget of an address now.
    #[must_use]
    pub fn limiter_state(&self, address: IpAddr) -> LimiterState {
        *lock(&self.venue.limiter).state(address, self.venue.floor.clock.now())
    }

    /// The simulated present.
    #[must_use]
    pub fn now(&self) -> Time {
        self.venue.floor.clock.now()
    }

    fn floor(&self) -> &Floor {
        &self.venue.floor
    }

    /// The market being served.
    #[must_use]
    pub fn market(&self) -> &Market {
        &self.venue.floor.market
    }

    /// Tells every stream, lets requests in progress finish, and stops.
    pub async fn shutdown(self) {
        self.server.shutdown().await;
    }
}
