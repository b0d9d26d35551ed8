//! Kraken, OKX and Coinbase Exchange, simulated: the same market as Binance's simulator shows, as each
//! of these venues lists, prices and prints it.
//!
//! One way leads every request through [`handle`]: limiter, faults, answer, journal. What differs by
//! venue is its dialect, a file each: which paths there are, how an answer is written, how it says no.

mod coinbase;
mod depth;
mod gate;
mod kraken;
mod okx;
mod text;
mod view;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, Method, Response, Uri, header};
use axum::routing::get;
use watchbell_clock::Clock;
use watchbell_core::{Millis, Time};

use super::control::{self, After};
use super::fault::{FaultKind, FaultScript, Faults};
use super::floor::{Answer, Bound, Floor, Met, Server, Trouble};
use super::journal::Journal;
use super::market::{Market, lock};
use super::net::Peer;
use super::params::Params;
use super::{Limits, SimConfig, SimError, Simulator};
use crate::native::Venue;
use gate::Gate;
use view::Listings;

pub use gate::VenueLimits;

/// How a simulator of one venue runs.
#[derive(Debug, Clone)]
pub struct VenueSimConfig {
    /// Whose protocol it speaks.
    pub venue: Venue,
    /// Where it listens; port 0 takes a free one.
    pub bind: SocketAddr,
    /// What it serves. Simulators of several venues that share it agree on every asset, but for the
    /// few basis points by which venues differ.
    pub market: Arc<Market>,
    /// Its present.
    pub clock: Clock,
    /// What goes wrong.
    pub faults: FaultScript,
    /// What a client may ask.
    pub limits: VenueLimits,
}

/// A running simulator of one venue. Dropping it stops it at once; [`shutdown`](Self::shutdown) lets
/// requests finish.
#[derive(Debug)]
pub struct VenueSim {
    venue: Venue,
    sim: Sim,
}

#[derive(Debug)]
enum Sim {
    /// Binance has a simulator of its own, with streams and an account.
    Binance(Box<Simulator>),
    Other {
        floor: Arc<Floor>,
        server: Server,
    },
}

/// A venue at work.
#[derive(Debug)]
struct House {
    venue: Venue,
    floor: Arc<Floor>,
    listings: Listings,
    gate: Mutex<Gate>,
}

impl VenueSim {
    /// Binds the address and serves from now on.
    ///
    /// # Errors
    /// [`SimError::Bind`] when the address cannot be bound.
    pub async fn start(config: VenueSimConfig) -> Result<Self, SimError> {
        let VenueSimConfig { venue, bind, market, clock, faults, limits } = config;
        let sim = if venue == Venue::Binance {
            let limits = match limits {
                VenueLimits::OfVenue => Limits::default(),
                VenueLimits::None => Limits { weight_per_minute: u32::MAX, ..Limits::default() },
            };
            let config = SimConfig { bind, market, clock, faults, limits };
            Sim::Binance(Box::new(Simulator::start(config).await?))
        } else {
            let bound = Bound::to(bind).await?;
            let floor = Arc::new(Floor::new(market, clock, faults, bound.stopping()));
            let house = Arc::new(House {
                venue,
                listings: Listings::of(venue, &floor.market),
                floor: Arc::clone(&floor),
                gate: Mutex::new(Gate::of(venue, limits)),
            });
            let router = Router::new()
                .route("/sim/journal", get(journal))
                .fallback(handle)
                .with_state(house)
                .merge(control::routes(&floor));
            let server = bound.serve(router, &floor);
            Sim::Other { floor, server }
        };
        Ok(Self { venue, sim })
    }

    /// Whose protocol it speaks.
    #[must_use]
    pub const fn venue(&self) -> Venue {
        self.venue
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        match &self.sim {
            Sim::Binance(sim) => sim.addr(),
            Sim::Other { server, .. } => server.address(),
        }
    }

    /// The base URL, such as `http://127.0.0.1:40123`: it stands for `https://api.kraken.com`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// The base URL for streams, where it has any: at Binance.
    #[must_use]
    pub fn ws_url(&self) -> Option<String> {
        match &self.sim {
            Sim::Binance(sim) => Some(sim.ws_url()),
            Sim::Other { .. } => None,
        }
    }

    /// The journal of this simulator.
    #[must_use]
    pub fn journal(&self) -> Journal {
        self.floor().journal.clone()
    }

    /// Replaces the fault script; all counters start anew.
    pub fn set_faults(&self, script: FaultScript) {
        *lock(&self.floor().faults) = Faults::new(script);
    }

    /// The simulated present.
    #[must_use]
    pub fn now(&self) -> Time {
        self.floor().clock.now()
    }

    /// The market being served.
    #[must_use]
    pub fn market(&self) -> &Market {
        &self.floor().market
    }

    /// Lets requests in progress finish, and stops.
    pub async fn shutdown(self) {
        match self.sim {
            Sim::Binance(sim) => sim.shutdown().await,
            Sim::Other { server, .. } => server.shutdown().await,
        }
    }

    fn floor(&self) -> &Floor {
        match &self.sim {
            Sim::Binance(sim) => sim.floor(),
            Sim::Other { floor, .. } => floor,
        }
    }
}

/// Further away than any market reaches, in milliseconds: instants of requests are kept within, so that
/// sums of them stay numbers.
const FAR: i64 = 4_000_000_000_000_000;

/// An instant that a client named, within [`FAR`].
fn bounded(t: i64) -> i64 {
    t.clamp(-FAR, FAR)
}

/// Where a request goes.
#[derive(Debug)]
struct Route {
    /// The venue's own word for it.
    endpoint: &'static str,
    /// The word of a fault script for it, the same at all venues.
    target: &'static str,
    /// The market that is asked for, under its listed name where there is one of that name.
    symbol: Option<String>,
}

/// One request as its endpoint sees it.
struct Ask<'a> {
    house: &'a House,
    params: &'a Params,
    faults: &'a Met,
    /// As in [`Route::symbol`].
    symbol: Option<&'a str>,
}

impl Ask<'_> {
    /// The instant that the answer shows: the present, or earlier where a cache is stale.
    fn now(&self) -> i64 {
        self.house.floor.clock.now().0 - self.faults.stale()
    }

    /// What the venue's own clock shows.
    fn server_time(&self) -> i64 {
        self.now() + self.faults.skew()
    }

    /// A parameter that is a whole number.
    fn whole(&self, name: &str) -> Option<Result<i64, ()>> {
        self.params.raw(name).filter(|v| !v.is_empty()).map(|v| v.parse().map_err(|_| ()))
    }
}

/// What a request leads to; the error is an answer as well.
type Outcome = Result<Answer, Answer>;

/// Handles every request but those for operators.
async fn handle(
    State(house): State<Arc<House>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let floor = &house.floor;
    let params = Params::parse(uri.query().unwrap_or_default());
    let arrived = floor.clock.now();
    let route = house.route(uri.path(), &params);
    let key = route.as_ref().map_or("", |r| r.endpoint);
    let symbol = route.as_ref().and_then(|r| r.symbol.as_deref());
    let verdict = lock(&house.gate).charge(peer.address.ip(), key, symbol, arrived);
    let (used, refusal) = match verdict {
        Ok(used) => (used, None),
        Err(refused) => (refused.used, Some(house.refuse(&refused))),
    };
    let mut faults = match &route {
        // A refused request is not worked on, so no fault but a dead connection can reach it.
        Some(route) if refusal.is_none() => floor.meet(route.target, symbol, arrived).await,
        _ => Met::default(),
    };
    if faults.hit(FaultKind::Timeout) {
        floor.note((&method, &uri), used, &faults, None);
        floor.stopped().await;
    }
    let mut answer = match (refusal, &route) {
        (Some(refusal), _) => refusal,
        (None, None) => house.unknown(),
        (None, Some(_)) if method != Method::GET => Answer::page(405, Vec::new()),
        (None, Some(route)) => {
            let ask = Ask { house: &house, params: &params, faults: &faults, symbol };
            let named = headers.contains_key(header::USER_AGENT);
            house.answer(&ask, route.endpoint, named).unwrap_or_else(|refusal| refusal)
        }
    };
    faults.apply(&*house, &peer, &mut answer);
    floor.note((&method, &uri), used, &faults, Some(&answer));
    floor.respond(answer)
}

/// `GET /sim/journal?after=N`.
async fn journal(State(house): State<Arc<House>>, query: Query<After>) -> Response<Body> {
    control::journal(&house.floor, &query, None)
}

/// The three dialects. Binance, the fourth, never gets here: see [`Sim`].
impl House {
    fn route(&self, path: &str, params: &Params) -> Option<Route> {
        match self.venue {
            Venue::Kraken => kraken::route(&self.listings, path, params),
            Venue::Okx => okx::route(path, params),
            Venue::Coinbase | Venue::Binance => coinbase::route(path),
        }
    }

    fn answer(&self, ask: &Ask<'_>, endpoint: &str, named: bool) -> Outcome {
        match self.venue {
            Venue::Kraken => kraken::answer(ask, endpoint),
            Venue::Okx => okx::answer(ask, endpoint),
            Venue::Coinbase | Venue::Binance => coinbase::answer(ask, endpoint, named),
        }
    }

    fn refuse(&self, refused: &gate::Refused) -> Answer {
        match self.venue {
            Venue::Kraken => kraken::refuse(refused),
            Venue::Okx => okx::refuse(refused),
            Venue::Coinbase | Venue::Binance => coinbase::refuse(refused),
        }
    }

    fn unknown(&self) -> Answer {
        match self.venue {
            Venue::Kraken => kraken::unknown(),
            Venue::Okx => okx::unknown(),
            Venue::Coinbase | Venue::Binance => coinbase::unknown(),
        }
    }
}

impl Trouble for House {
    fn status(&self, status: u16) -> Answer {
        match self.venue {
            _ if status == 403 => Answer::forbidden(),
            Venue::Kraken => kraken::trouble(status),
            Venue::Okx => okx::trouble(status),
            Venue::Coinbase | Venue::Binance => coinbase::trouble(status),
        }
    }

    fn ban(&self, peer: &Peer, span: Millis) -> Answer {
        let until = self.floor.clock.now() + span;
        let refused = lock(&self.gate).ban(peer.address.ip(), until);
        self.refuse(&refused)
    }

    fn object(&self) -> Answer {
        Answer { status: 200, ..self.status(503) }
    }
}
