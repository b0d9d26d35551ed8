//! The client: a request passes the gate, is sent, and its answer is judged and read; what failed for a
//! moment is tried again. An answer is handed on whole or not at all.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Url;
use watchbell_clock::Clock;
use watchbell_core::retry::Backoff;
use watchbell_core::{Millis, Time};

use super::config::{NativeConfig, NativeConfigError};
use super::error::{Lasting, NativeCall, NativeError, Reason, Refusal};
use super::gate::{Bucket, Gate, Held, LONGEST_WAIT, Outcome, Pause, Spent, VenueHealth};
use super::json::{PayloadError, Read};
use super::table::bars_in;
use super::venue::Venue;
use super::wire::{BarPage, Request, Tickers, Walk, Wire, head};
use super::{Bar, Interval, Listing, NativeBook, Ticker};
use crate::http::{Answer, Connections};

/// The most bars that can be asked for.
const MOST_BARS: usize = 1_440;
/// The largest answer that is read.
const MAX_BODY: usize = 64 << 20;
/// The shortest ban that is believed (section 10.2).
const SHORTEST_BAN: Millis = Millis::from_secs(120);
/// The longest pause that an exchange may ask for.
const LONGEST_PAUSE: Millis = Millis::from_days(3);
/// How far the clock of an exchange may be behind ours. Beyond, one of them is wrong, and nobody can say
/// which bars are closed.
const LARGEST_LAG: Millis = Millis::from_mins(10);
/// Some exchanges refuse who does not introduce itself.
const USER_AGENT: &str = concat!("watchbell/", env!("CARGO_PKG_VERSION"));

/// What an exchange answered, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered<T> {
    /// The answer.
    pub value: T,
    /// When it was asked, by our clock: when the request was sent, the first one where there were
    /// several.
    pub asked_at: Time,
    /// From sending to the last byte, by our clock, summed over the requests that it took. Waits
    /// before sending do not count.
    pub latency: Millis,
}

impl<T> Answered<T> {
    fn map<U>(self, f: impl FnOnce(T) -> U) -> Answered<U> {
        Answered { value: f(self.value), asked_at: self.asked_at, latency: self.latency }
    }
}

/// The client of one exchange. Clones are cheap and share connections, token bucket, circuit breaker,
/// budget and health: build one per exchange and clone it, for the exchange counts by address.
#[derive(Clone)]
pub struct NativeClient {
    shared: Arc<Shared>,
    /// In front of the exchange's bucket, for work that has time.
    slow: Option<Arc<Mutex<Bucket>>>,
}

struct Shared {
    venue: Venue,
    wire: &'static Wire,
    config: NativeConfig,
    base: Url,
    clock: Clock,
    http: Connections,
    gate: Gate,
    /// Symbols by the names that tickers use, once the listings have told them.
    aliases: Mutex<Option<Arc<BTreeMap<String, String>>>>,
}

impl fmt::Debug for NativeClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeClient")
            .field("venue", &self.shared.venue)
            .field("base_url", &self.shared.config.base_url)
            .field("slow", &self.slow.is_some())
            .finish_non_exhaustive()
    }
}

/// The instants that belong to an answer.
#[derive(Clone, Copy)]
struct Moment {
    /// When the request was sent, by our clock.
    sent: Time,
    /// When the answer was made, by the exchange's clock, where it tells.
    made_at: Option<Time>,
}

impl Moment {
    /// The exchange's time when it was asked, at its lower bound: what closed before was complete in
    /// the answer.
    fn venue_now(self) -> Read<Time> {
        let Some(made_at) = self.made_at else { return Ok(self.sent) };
        if self.sent - made_at > LARGEST_LAG {
            return Err(PayloadError::new(format!(
                "the clock of the exchange shows {made_at}, ours {}: one of them is wrong",
                self.sent
            )));
        }
        Ok(made_at.min(self.sent))
    }
}

impl NativeClient {
    /// A client of `venue` by `config`. Nothing is sent yet.
    ///
    /// # Errors
    /// A configuration that cannot work, or that asks somebody else than the exchange.
    pub fn new(
        venue: Venue,
        config: NativeConfig,
        clock: Clock,
    ) -> Result<Self, NativeConfigError> {
        let base = config.checked(venue)?;
        let shared = Shared {
            venue,
            wire: Wire::of(venue),
            base,
            http: Connections::new(USER_AGENT, config.timeout),
            gate: Gate::new(venue, &config, clock.clone()),
            aliases: Mutex::new(None),
            config,
            clock,
        };
        Ok(Self { shared: Arc::new(shared), slow: None })
    }

    /// Whose client it is.
    #[must_use]
    pub fn venue(&self) -> Venue {
        self.shared.venue
    }

    /// The same client for work that has time: at half the rate, two requests at once at most. It still
    /// shares everything else, the exchange's own bucket included.
    #[must_use]
    pub fn slowly(&self) -> Self {
        let bucket = Bucket::new(self.shared.config.rate_per_second / 2.0, 2);
        Self { shared: Arc::clone(&self.shared), slow: Some(Arc::new(Mutex::new(bucket))) }
    }

    /// How the exchange has done over the last 15 minutes, and what it may still be asked.
    #[must_use]
    pub fn health(&self) -> VenueHealth {
        self.shared.gate.health()
    }

    /// What has been used of the budget. Store it: neither a budget nor a ban ends with the process.
    #[must_use]
    pub fn spent(&self) -> Spent {
        self.shared.gate.spent()
    }

    /// Takes a stored budget and ban back into force. Counts of windows that are over are ignored, and
    /// to restore the same twice changes nothing.
    pub fn restore(&self, spent: Spent) {
        self.shared.gate.restore(spent);
    }

    /// All markets of the exchange, in its own order.
    ///
    /// # Errors
    /// See [`NativeError`].
    pub async fn listings(&self) -> Result<Answered<Vec<Listing>>, NativeError> {
        let wire = self.shared.wire;
        let call = self.call("listings", None);
        let answer = self
            .exchange(&call, |_| (wire.listings)(), |body, _| (wire.read_listings)(body))
            .await?;
        *self.aliases() = Some(Arc::new(answer.value.aliases.clone()));
        Ok(answer.map(|markets| markets.listings))
    }

    /// The last 24 hours of all markets.
    ///
    /// # Errors
    /// See [`NativeError`]; `unsupported` at Coinbase, which has no such call.
    pub async fn tickers(&self) -> Result<Answered<Vec<Ticker>>, NativeError> {
        let call = self.call("tickers", None);
        let Some(Tickers { request, read }) = self.shared.wire.tickers else {
            let problem = "the exchange has no call for the tickers of all markets".into();
            return Err(NativeError::Unsupported { call, problem });
        };
        let known = self.aliases().clone();
        let aliases = match known {
            Some(aliases) => aliases,
            // Only Kraken's tickers go by other names than its requests.
            None if self.shared.venue == Venue::Kraken => {
                self.listings().await?;
                self.aliases().clone().unwrap_or_default()
            }
            None => Arc::default(),
        };
        let mut answer = self.exchange(&call, |_| request(), |body, _| read(body)).await?;
        for ticker in &mut answer.value {
            if let Some(symbol) = aliases.get(&ticker.symbol) {
                ticker.symbol.clone_from(symbol);
            }
        }
        Ok(answer)
    }

    /// The closed bars among the newest `count` (1 to 1,440) spans, oldest first: fewer where the market
    /// is younger, where the exchange keeps fewer (720 at Kraken), and at Coinbase, which has no bars for
    /// spans without trades.
    ///
    /// # Errors
    /// See [`NativeError`]; a page with anything wrong in it is refused whole.
    pub async fn bars(
        &self,
        symbol: &str,
        interval: Interval,
        count: usize,
    ) -> Result<Answered<Vec<Bar>>, NativeError> {
        let wire = self.shared.wire;
        let call = self.market("bars", symbol)?;
        if !(1..=MOST_BARS).contains(&count) {
            let problem = format!("{count} bars are not in 1 ..= {MOST_BARS}");
            return Err(NativeError::Unsupported { call, problem });
        }
        let rows = count.min(wire.page);
        let page = |now| BarPage { before: None, rows, now };
        let mut all = self.page(&call, symbol, interval, page).await?;
        let end = all.asked_at.floor(interval.length());
        let first = end - Millis(interval.length().0 * count as i64);
        let mut before = match wire.walk {
            Walk::Once => first,
            Walk::ByRows => all.value.first().map_or(first, |bar| bar.open_time),
            Walk::BySpans => end - Millis(interval.length().0 * rows as i64),
        };
        while before > first {
            let rows = bars_in(before - first, interval).min(wire.page);
            let page = |now| BarPage { before: Some(before), rows, now };
            let older = self.page(&call, symbol, interval, page).await?;
            all.latency = Millis(all.latency.0 + older.latency.0);
            before = match (wire.walk, older.value.first()) {
                (Walk::BySpans, _) => before - Millis(interval.length().0 * rows as i64),
                (Walk::ByRows, Some(oldest)) => oldest.open_time,
                (Walk::ByRows | Walk::Once, _) => first,
            };
            let newer = std::mem::replace(&mut all.value, older.value);
            all.value.extend(newer);
        }
        // Rows of before the span are no error, but nobody asked for them.
        all.value.retain(|bar| bar.open_time >= first);
        Ok(all)
    }

    /// A page of closed bars, all of them before the end that was asked.
    async fn page(
        &self,
        call: &NativeCall,
        symbol: &str,
        interval: Interval,
        page: impl Fn(Time) -> BarPage,
    ) -> Result<Answered<Vec<Bar>>, NativeError> {
        let wire = self.shared.wire;
        let request = |now| (wire.bars)(symbol, interval, &page(now));
        self.exchange(call, request, |body, moment| {
            let venue_now = moment.venue_now()?;
            let mut bars = (wire.read_bars)(body, symbol, interval, venue_now)?;
            let asked = page(moment.sent);
            if let Some(before) = asked.before
                && let Some(bar) = bars.iter().find(|bar| bar.open_time >= before)
            {
                let at = bar.open_time;
                let problem = format!("there is a bar of {at} where older than {before} was asked");
                return Err(PayloadError::new(problem));
            }
            if wire.walk == Walk::BySpans {
                // It may send rows of before the span, which the next page has too.
                bars.retain(|bar| bar.open_time >= asked.start(interval));
            }
            Ok(bars)
        })
        .await
    }

    /// The order book of a market: 500 levels a side at Kraken, 400 at OKX, 1,000 at Binance, and at
    /// Coinbase all up to a tenth of the best price away.
    ///
    /// # Errors
    /// See [`NativeError`]; a book with anything wrong in it is refused whole. A crossed book is none:
    /// to judge that is the reader's part.
    pub async fn book(&self, symbol: &str) -> Result<Answered<NativeBook>, NativeError> {
        let wire = self.shared.wire;
        let call = self.market("book", symbol)?;
        self.exchange(
            &call,
            |_| (wire.book)(symbol),
            |body, moment| (wire.read_book)(body, symbol, moment.sent),
        )
        .await
    }

    fn call(&self, what: &'static str, symbol: Option<&str>) -> NativeCall {
        NativeCall { venue: self.shared.venue, what, symbol: symbol.map(str::to_owned) }
    }

    /// A call about a market. Its name becomes part of an address, so its characters are checked.
    fn market(&self, what: &'static str, symbol: &str) -> Result<NativeCall, NativeError> {
        let call = self.call(what, Some(symbol));
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let dots = symbol.chars().all(|c| c == '.');
        if !dots && symbol.len() <= 50 && symbol.chars().all(fine) {
            return Ok(call);
        }
        Err(NativeError::NotListed { call, message: "no market has such a name".into() })
    }

    fn aliases(&self) -> std::sync::MutexGuard<'_, Option<Arc<BTreeMap<String, String>>>> {
        self.shared.aliases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request until it succeeds, fails for good, or the tries are used up. The request is made
    /// anew for each, by the instant at which it is sent.
    async fn exchange<T>(
        &self,
        call: &NativeCall,
        request: impl Fn(Time) -> Request,
        read: impl Fn(&[u8], Moment) -> Read<T>,
    ) -> Result<Answered<T>, NativeError> {
        let s = &*self.shared;
        let backoff =
            Backoff { base: s.config.backoff, factor: 2, cap: LONGEST_WAIT, jitter: 0.25 };
        let seed = call.to_string();
        let mut failed: Option<NativeError> = None;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let slow = self.slow.as_deref();
            let (permit, weight) = match s.gate.admit(slow, request(s.clock.now()).weight).await {
                Ok(admitted) => admitted,
                // What stopped the next try is the failure that came before it.
                Err(held) => return Err(failed.unwrap_or_else(|| self.held(call, held))),
            };
            let sent = s.clock.now();
            let answer = self.send(call, &request(sent)).await;
            let latency = s.clock.now() - sent;
            weight.settle(answer.as_ref().ok().and_then(|a| a.number("x-mbx-used-weight-1m")));
            let moment = Moment { sent, made_at: answer.as_ref().ok().and_then(Answer::made_at) };
            let error = match answer.and_then(|answer| self.judge(call, &answer, moment, &read)) {
                Ok(value) => {
                    permit.settle(Outcome::Answered, Some(latency));
                    return Ok(Answered { value, asked_at: sent, latency });
                }
                Err(error) => error,
            };
            let (outcome, answered) = outcome(&error);
            permit.settle(outcome, answered.then_some(latency));
            if !error.is_transient() || attempt > s.config.retries {
                return Err(error);
            }
            let mut wait = Millis(backoff.delay(attempt, &seed).0.min(LONGEST_WAIT.0));
            if let NativeError::RateLimited { until, .. } = &error {
                wait = wait.max(*until - s.clock.now());
                if wait > LONGEST_WAIT {
                    return Err(error);
                }
            }
            tracing::debug!(%error, attempt, %wait, "request failed, trying again");
            failed = Some(error);
            s.clock.sleep(wait).await;
        }
    }

    /// One exchange on the network, within the time limit.
    async fn send(&self, call: &NativeCall, request: &Request) -> Result<Answer, NativeError> {
        let s = &*self.shared;
        let host = || s.config.base_url.clone();
        let mut url = s.base.clone();
        url.set_path(&request.path);
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        match s.clock.timeout(s.config.timeout, s.http.get(url, MAX_BODY)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(problem)) => {
                Err(NativeError::Transport { call: call.clone(), host: host(), problem })
            }
            Err(_) => {
                let limit = s.config.timeout;
                Err(NativeError::Timeout { call: call.clone(), host: host(), limit })
            }
        }
    }

    /// Turns an answer into what was asked, or into the error that it is.
    fn judge<T>(
        &self,
        call: &NativeCall,
        answer: &Answer,
        moment: Moment,
        read: &impl Fn(&[u8], Moment) -> Read<T>,
    ) -> Result<T, NativeError> {
        match (self.shared.wire.refusal)(answer.status, &answer.body) {
            Some(refusal) => Err(self.refused(call.clone(), answer, refusal)),
            None => read(&answer.body, moment).map_err(|problem| NativeError::Payload {
                call: call.clone(),
                problem,
                head: head(&answer.body),
            }),
        }
    }

    fn refused(&self, call: NativeCall, answer: &Answer, refusal: Refusal) -> NativeError {
        let s = &*self.shared;
        let now = s.clock.now();
        let Refusal { reason, message: detail } = refusal;
        let asked = answer.retry_after(now).map(|wait| wait.min(LONGEST_PAUSE));
        let pause = |wait: Millis, banned| {
            s.gate.pause(Pause { until: now + wait, banned });
            (now + wait, wait)
        };
        let status = answer.status;
        match reason {
            Reason::Rate { until: told } => {
                let told = told.map(|at| (at - now).min(LONGEST_PAUSE)).filter(|w| w.0 > 0);
                let wait = asked.or(told).unwrap_or(s.wire.rate_pause);
                let (until, retry_after) = pause(wait, false);
                NativeError::RateLimited { call, until, retry_after, detail }
            }
            Reason::Banned => {
                let wait = asked.unwrap_or(SHORTEST_BAN).max(SHORTEST_BAN);
                let (until, retry_after) = pause(wait, true);
                NativeError::Banned { call, until, retry_after, detail }
            }
            Reason::NotListed if call.symbol.is_some() => {
                NativeError::NotListed { call, message: detail }
            }
            Reason::Transient => {
                NativeError::Refused { call, status, message: detail, lasting: Lasting::No }
            }
            Reason::Permanent | Reason::NotListed => {
                NativeError::Refused { call, status, message: detail, lasting: Lasting::Yes }
            }
            Reason::Blocked => {
                NativeError::Refused { call, status, message: detail, lasting: Lasting::Blocked }
            }
        }
    }

    /// The error of a request that was not sent.
    fn held(&self, call: &NativeCall, held: Held) -> NativeError {
        let call = call.clone();
        match held {
            Held::CircuitOpen { until } => NativeError::CircuitOpen { call, until },
            Held::BudgetSpent { window, limit, until } => {
                NativeError::BudgetSpent { call, window, limit, until }
            }
            Held::Paused(Pause { until, banned }) => {
                let retry_after = until - self.shared.clock.now();
                let detail = "not sent".to_owned();
                if banned {
                    NativeError::Banned { call, until, retry_after, detail }
                } else {
                    NativeError::RateLimited { call, until, retry_after, detail }
                }
            }
        }
    }
}

/// What an error says about the exchange, and whether its latency counts.
fn outcome(error: &NativeError) -> (Outcome, bool) {
    match error {
        NativeError::NotListed { .. } => (Outcome::Answered, true),
        NativeError::Timeout { .. }
        | NativeError::Payload { .. }
        | NativeError::Refused { lasting: Lasting::No | Lasting::Blocked, .. } => {
            (Outcome::Failed, true)
        }
        NativeError::Transport { .. } => (Outcome::Failed, false),
        NativeError::Refused { .. } => (Outcome::Refused, true),
        NativeError::RateLimited { .. }
        | NativeError::Banned { .. }
        | NativeError::CircuitOpen { .. }
        | NativeError::BudgetSpent { .. }
        | NativeError::Unsupported { .. } => (Outcome::Limited, true),
    }
}
