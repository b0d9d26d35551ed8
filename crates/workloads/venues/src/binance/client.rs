//! The REST client.
//!
//! A request goes: wait for the budget, send, judge the answer, tell limiter, health and observer, and
//! for a transient fault try the next host. The answer is returned whole or not at all.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::{Millis, Time};

use super::backpressure::{Backpressure, Health, Outcome};
use super::config::{Config, ConfigError, backoff};
use super::error::{Call, Class, VenueError, Verdict, banned_until, judge};
use super::limiter::{Limiter, Priority, Shares, Stop};
use super::signed::{self, Credentials};
use super::wire::{ErrorBody, cut};
use crate::http::Answer;

/// Waits where the venue does not say how long.
const DEFAULT_RETRY_AFTER: Millis = Millis::from_secs(60);
const DEFAULT_BAN: Millis = Millis::from_secs(120);
/// No backoff between two tries is longer.
const RETRY_CAP: Millis = Millis::from_secs(10);

/// How one request went, for the synchronisation log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRecord {
    /// When it was sent, by our clock.
    pub at: Time,
    /// What was asked.
    pub call: Call,
    /// The interval of candles that was asked for, such as `1m`.
    pub interval: Option<String>,
    /// From which instant on, where the request says so.
    pub from: Option<Time>,
    /// Up to which instant.
    pub to: Option<Time>,
    /// Who was asked.
    pub host: String,
    /// 1 for the first try.
    pub attempt: u32,
    /// The weight that the request costs.
    pub weight: i64,
    /// What the venue has counted in this minute, as its answer says.
    pub used_weight: Option<i64>,
    /// How it ended.
    pub status: CallStatus,
    /// The HTTP status, where there was an answer.
    pub http_status: Option<u16>,
    /// From sending to the last byte, in real time.
    pub latency: Millis,
    /// Usable rows in the answer.
    pub rows: usize,
    /// The error's text.
    pub error: Option<String>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallStatus {
    /// With a usable answer.
    Ok,
    /// The venue refused it for the rate.
    RateLimited,
    /// The venue has banned us.
    Banned,
    /// It failed, and may succeed later.
    Transient,
    /// It failed, and will fail again.
    Permanent,
    /// The venue blocks us.
    Blocked,
}

impl CallStatus {
    fn of(error: &VenueError) -> Self {
        match (error, error.class()) {
            (VenueError::Banned { .. }, _) => Self::Banned,
            (_, Class::Rate { .. }) => Self::RateLimited,
            (_, Class::Transient) => Self::Transient,
            (_, Class::Permanent) => Self::Permanent,
            (_, Class::Blocked) => Self::Blocked,
        }
    }
}

/// Sees each request that was sent. Called in line: keep it short.
pub type Observer = Arc<dyn Fn(&CallRecord) + Send + Sync>;

/// The venue's clock against ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skew {
    /// Venue time minus our time, measured at the middle of a request.
    pub offset: Millis,
    /// The offset is right within this: half of the request's duration.
    pub uncertainty: Millis,
    /// When it was measured, by our clock.
    pub measured: Time,
}

/// The client of Binance spot. Clones are cheap and share connections, budget and health: build one
/// per address of this machine and clone it, for the venue counts by address.
#[derive(Clone)]
pub struct BinanceClient {
    pub(super) shared: Arc<Shared>,
    pub(super) priority: Priority,
    /// Who signs; kept beside what clones share, so that only some of them may speak for the account.
    pub(super) credentials: Option<Arc<Credentials>>,
}

pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) clock: Clock,
    /// Built at the first request: reading the system's certificates takes a while, and many
    /// commands never ask the venue anything.
    http: OnceLock<reqwest::Client>,
    hosts: Vec<String>,
    /// The host that answered last; a failure moves it on.
    preferred: AtomicUsize,
    pub(super) limiter: Limiter,
    /// The budget that the venue counts by account instead of by address.
    pub(super) account_limiter: Limiter,
    health: Mutex<Backpressure>,
    pub(super) skew: Mutex<Option<Skew>>,
    /// Held while the skew is measured, so that many callers measure once.
    pub(super) measuring: tokio::sync::Mutex<()>,
    observer: Option<Observer>,
}

impl Shared {
    fn http(&self) -> Result<&reqwest::Client, String> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        // The limit that callers see runs on the clock; this one only frees the connection.
        let limit = self.config.request_timeout.to_std();
        let backstop = limit.max(Duration::from_secs(1)) * 2;
        let http = crate::http::client(&self.config.user_agent, backstop)
            .map_err(|e| format!("cannot build the HTTP client: {}", chain(&e)))?;
        Ok(self.http.get_or_init(|| http))
    }
}

impl fmt::Debug for BinanceClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BinanceClient")
            .field("hosts", &self.shared.hosts)
            .field("priority", &self.priority)
            .finish_non_exhaustive()
    }
}

/// One request, ready to be sent.
pub(super) struct Request {
    call: Call,
    path: &'static str,
    query: Vec<(&'static str, String)>,
    weight: i64,
    /// Weight that is counted by account, beside that by address.
    account_weight: i64,
    signed: bool,
}

impl Request {
    pub(super) fn new(path: &'static str, symbol: Option<&str>, weight: i64) -> Self {
        let endpoint = path.rsplit('/').next().unwrap_or(path);
        Self {
            call: Call::new(endpoint, symbol),
            path,
            query: Vec::new(),
            weight,
            account_weight: 0,
            signed: false,
        }
    }
    pub(super) fn with(mut self, key: &'static str, value: &(impl ToString + ?Sized)) -> Self {
        self.query.push((key, value.to_string()));
        self
    }
    pub(super) fn with_time(self, key: &'static str, at: Option<Time>) -> Self {
        match at {
            Some(at) => self.with(key, &at.0),
            None => self,
        }
    }
    /// A request in the name of an account; `account_weight` is counted by account.
    pub(super) fn signed(mut self, account_weight: i64) -> Self {
        self.signed = true;
        self.account_weight = account_weight;
        self
    }
    pub(super) const fn call(&self) -> &Call {
        &self.call
    }
    /// What the request says for a key of its query.
    fn asked(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(k, _)| *k == key).map(|(_, value)| value.as_str())
    }
    fn asked_time(&self, key: &str) -> Option<Time> {
        self.asked(key)?.parse().ok().map(Time)
    }
    pub(super) fn invalid(&self, problem: impl Into<String>) -> VenueError {
        VenueError::Invalid { call: self.call.clone(), problem: problem.into() }
    }
}

/// The weight that the venue has counted in this minute, as its answer says.
fn used_weight(answer: &Answer) -> Option<i64> {
    answer.number("x-mbx-used-weight-1m").or_else(|| answer.number("x-mbx-used-weight"))
}

impl BinanceClient {
    /// A client by `config`. Nothing is sent yet.
    ///
    /// # Errors
    /// A configuration that cannot work.
    pub fn new(
        config: Config,
        clock: Clock,
        observer: Option<Observer>,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let shares =
            Shares { live: config.weight_limit_fraction, backfill: config.backfill_limit_fraction };
        let shared = Shared {
            limiter: Limiter::new(clock.clone(), config.weight_limit, shares),
            account_limiter: Limiter::new(clock.clone(), signed::ACCOUNT_WEIGHT_LIMIT, shares),
            health: Mutex::new(Backpressure::new(clock.now())),
            hosts: config.hosts(),
            preferred: AtomicUsize::new(0),
            skew: Mutex::new(None),
            measuring: tokio::sync::Mutex::new(()),
            http: OnceLock::new(),
            config,
            clock,
            observer,
        };
        Ok(Self { shared: Arc::new(shared), priority: Priority::Live, credentials: None })
    }

    /// The same client for history: uses only what live work leaves of the budget.
    #[must_use]
    pub fn backfill(&self) -> Self {
        self.with_priority(Priority::Backfill)
    }

    /// The same client with this priority.
    #[must_use]
    pub fn with_priority(&self, priority: Priority) -> Self {
        Self { priority, ..self.clone() }
    }

    /// How the venue is doing.
    #[must_use]
    pub fn health(&self, now: Time) -> Health {
        self.shared.health.lock().unwrap_or_else(PoisonError::into_inner).health(now)
    }

    /// The budget, for status pages.
    #[must_use]
    pub fn limiter(&self) -> &Limiter {
        &self.shared.limiter
    }

    /// The clock that it goes by: ours.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Until when this address is banned, by our clock. Store it: a ban outlives the process.
    #[must_use]
    pub fn ban_state(&self) -> Option<Time> {
        match self.shared.limiter.stopped() {
            Some(Stop::Banned { until }) => Some(until),
            Some(Stop::RateLimited { .. }) | None => None,
        }
    }

    /// Takes a stored ban back into force. One that has ended does nothing.
    pub fn restore_ban(&self, until: Time) {
        if until > self.shared.clock.now() {
            self.shared.limiter.stop(Stop::Banned { until });
            self.note(Outcome::Banned(&format!("banned until {until}, from before the restart")));
        }
    }

    /// The measured skew, if any request for it has succeeded.
    #[must_use]
    pub fn skew(&self) -> Option<Skew> {
        *self.shared.skew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The venue's time now, as well as it is known; our own before the first measurement.
    #[must_use]
    pub fn venue_now(&self) -> Time {
        self.shared.clock.now() + self.skew().map_or(Millis::ZERO, |s| s.offset)
    }

    /// Sends `request` until it succeeds, fails for good, or the tries are used up. `read` turns the
    /// body and the instant of sending into the number of rows and the value.
    pub(super) async fn get<T>(
        &self,
        request: &Request,
        read: impl Fn(&[u8], Time) -> Result<(usize, T), String>,
    ) -> Result<T, VenueError> {
        let s = &*self.shared;
        let mut attempt = 1;
        loop {
            let permit = match s.limiter.acquire(request.weight, self.priority).await {
                Ok(permit) => permit,
                Err(stop) => return Err(self.held_back(&request.call, stop)),
            };
            // Dropped without a header, it counts as sent.
            let _account_permit = match request.account_weight {
                0 => None,
                weight => match s.account_limiter.acquire(weight, self.priority).await {
                    Ok(permit) => Some(permit),
                    Err(stop) => return Err(self.held_back(&request.call, stop)),
                },
            };
            let at = s.preferred.load(Ordering::Relaxed) % s.hosts.len();
            let host = &s.hosts[at];
            let (sent, watch) = (s.clock.now(), Stopwatch::start());
            let exchange = s.clock.timeout(s.config.request_timeout, self.exchange(host, request));
            let answer = match exchange.await {
                Ok(answer) => answer,
                Err(elapsed) => Err(elapsed.to_string()),
            };
            let latency = watch.millis();
            let used_weight = answer.as_ref().ok().and_then(used_weight);
            permit.settle(used_weight);

            let http_status = answer.as_ref().ok().map(|a| a.status);
            let result = match answer {
                Ok(answer) => self.evaluate(request, &answer, sent, &read),
                Err(problem) => Err(VenueError::Transport {
                    call: request.call.clone(),
                    host: host.clone(),
                    problem,
                }),
            };
            self.note_result(result.as_ref().err(), used_weight);
            if let Some(observer) = &s.observer {
                observer(&CallRecord {
                    at: sent,
                    call: request.call.clone(),
                    interval: request.asked("interval").map(str::to_owned),
                    from: request.asked_time("startTime"),
                    to: request.asked_time("endTime"),
                    host: host.clone(),
                    attempt,
                    weight: request.weight,
                    used_weight,
                    status: result.as_ref().map_or_else(CallStatus::of, |_| CallStatus::Ok),
                    http_status,
                    latency,
                    rows: result.as_ref().map_or(0, |(rows, _)| *rows),
                    error: result.as_ref().err().map(ToString::to_string),
                });
            }
            let error = match result {
                Ok((_, value)) => return Ok(value),
                Err(error) => error,
            };
            if error.class() != Class::Transient {
                return Err(error);
            }
            // Another caller may have moved on already: then this is not our failure to act on.
            let next = (at + 1) % s.hosts.len();
            let moved =
                s.preferred.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
            if moved.is_ok() && next != at {
                tracing::debug!(from = %host, to = %s.hosts[next], %error, "venue host changed");
            }
            if attempt >= s.config.tries {
                return Err(error);
            }
            let pause = backoff(s.config.retry_base, attempt - 1, RETRY_CAP);
            tracing::debug!(%error, attempt, %pause, "venue request failed, trying again");
            s.clock.sleep(pause).await;
            attempt += 1;
        }
    }

    /// One exchange: status, headers and the whole body.
    async fn exchange(&self, host: &str, request: &Request) -> Result<Answer, String> {
        let s = &*self.shared;
        let mut url = reqwest::Url::parse(&format!("{host}{}", request.path))
            .map_err(|e| format!("{host} is not an address: {e}"))?;
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        // An error of the HTTP library quotes the address, and with it a signed query.
        let text = |e: reqwest::Error| chain(&if request.signed { e.without_url() } else { e });
        let response = match self.credentials.as_deref().filter(|_| request.signed) {
            Some(credentials) => {
                credentials.sign(&mut url, &request.query, self.venue_now());
                let key = credentials.header()?;
                s.http()?.get(url).header(signed::KEY_HEADER, key).send().await.map_err(text)?
            }
            None => s.http()?.get(url).send().await.map_err(text)?,
        };
        Answer::read(response, s.config.max_body, text).await
    }

    /// Turns an answer into rows, or into the error that it is.
    fn evaluate<T>(
        &self,
        request: &Request,
        answer: &Answer,
        sent: Time,
        read: &impl Fn(&[u8], Time) -> Result<(usize, T), String>,
    ) -> Result<(usize, T), VenueError> {
        let call = &request.call;
        let status = answer.status;
        let body = answer.body.trim_ascii();
        let payload = |problem: String| VenueError::payload(call, status, problem, body);
        let refusal: Option<ErrorBody> =
            if body.first() == Some(&b'{') { serde_json::from_slice(body).ok() } else { None };
        if status == 200 && refusal.is_none() {
            if body.is_empty() {
                return Err(payload("the body is empty".into()));
            }
            if body[0] == b'<' {
                return Err(payload("HTML where JSON was expected".into()));
            }
            return read(body, sent).map_err(payload);
        }
        Err(self.refused(call, answer, refusal.as_ref(), body))
    }

    fn refused(
        &self,
        call: &Call,
        answer: &Answer,
        refusal: Option<&ErrorBody>,
        body: &[u8],
    ) -> VenueError {
        let s = &*self.shared;
        let now = s.clock.now();
        let status = answer.status;
        let msg = match refusal {
            Some(r) if !r.msg.is_empty() => cut(&r.msg, 200),
            _ if body.is_empty() => "empty body".into(),
            _ => cut(&String::from_utf8_lossy(&body[..body.len().min(480)]), 120),
        };
        let seconds = answer.number("retry-after").filter(|n| *n > 0).map(Millis::from_secs);
        let call = call.clone();
        if let Some((code, todo)) = refusal.and_then(|r| Some((r.code, signed::remedy(r.code)?))) {
            return VenueError::Unauthorized { call, code, msg, todo };
        }
        match judge(status, refusal) {
            Verdict::TooMany => {
                let retry_after = seconds.unwrap_or(DEFAULT_RETRY_AFTER);
                let until = now + retry_after;
                s.limiter.stop(Stop::RateLimited { until });
                tracing::warn!(%call, %until, msg, "the venue refuses requests for their rate");
                VenueError::RateLimited { call, until, retry_after, detail: msg }
            }
            Verdict::Banned => {
                let by_text = || banned_until(&msg).map(|at| at - self.venue_now());
                let retry_after =
                    seconds.or_else(by_text).filter(|w| w.0 > 0).unwrap_or(DEFAULT_BAN);
                let until = now + retry_after;
                s.limiter.stop(Stop::Banned { until });
                tracing::error!(%call, %until, msg, "the venue has banned this address");
                VenueError::Banned { call, until, retry_after, detail: msg }
            }
            Verdict::Other(class) => {
                VenueError::Refused { call, status, code: refusal.map(|r| r.code), msg, class }
            }
        }
    }

    /// The error of a request that was not sent.
    fn held_back(&self, call: &Call, stop: Stop) -> VenueError {
        let (call, until) = (call.clone(), stop.until());
        let retry_after = Millis((until - self.shared.clock.now()).0.max(1));
        let detail = "not sent".to_owned();
        match stop {
            Stop::RateLimited { .. } => {
                VenueError::RateLimited { call, until, retry_after, detail }
            }
            Stop::Banned { .. } => VenueError::Banned { call, until, retry_after, detail },
        }
    }

    fn note_result(&self, error: Option<&VenueError>, used_weight: Option<i64>) {
        let Some(error) = error else {
            let (_, limit) = self.shared.limiter.used();
            let used = used_weight.map(|used| used as f64 / limit.max(1) as f64);
            self.note(Outcome::Success { used });
            return;
        };
        let text = error.to_string();
        match (error, error.class()) {
            (VenueError::Banned { .. }, _) => self.note(Outcome::Banned(&text)),
            (_, Class::Rate { .. }) => self.note(Outcome::RateLimited(&text)),
            (_, Class::Transient) => self.note(Outcome::Failure(&text)),
            (_, Class::Blocked) => self.note(Outcome::Blocked(&text)),
            // A fault of the request says nothing about the venue.
            (_, Class::Permanent) => {}
        }
    }

    fn note(&self, outcome: Outcome<'_>) {
        let now = self.shared.clock.now();
        self.shared.health.lock().unwrap_or_else(PoisonError::into_inner).on(now, outcome);
    }
}

/// An error with its causes, in one line. The outer layers of the HTTP client only repeat the
/// address that the error of the call names already: where there is a cause, they are left out.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let layers = std::iter::successors(Some(error), |e| e.source());
    let mut parts: Vec<String> = layers.map(ToString::to_string).collect();
    let hollow = |part: &String| {
        part.starts_with("error sending request") || part.starts_with("client error (")
    };
    if parts.iter().any(|part| !hollow(part)) {
        parts.retain(|part| !hollow(part));
    }
    let mut text = String::new();
    for part in parts {
        if text.is_empty() {
            text = part;
        } else if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
    }
    cut(&text, 300)
}
