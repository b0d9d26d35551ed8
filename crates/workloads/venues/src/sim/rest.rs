//! The REST endpoints: weigh, judge, break, answer, note down.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use axum::response::IntoResponse;
use watchbell_core::{Millis, Time};

use super::Venue;
use super::account::Signed;
use super::book::book;
use super::control::{self, After};
use super::fault::{FaultKind, Faults};
use super::floor::{Answer, HTML, Met, Trouble};
use super::interval::Grid;
use super::limiter::Verdict;
use super::market::{Candle, Page, TradesFrom, lock};
use super::net::Peer;
use super::params::{Params, Refusal};
use super::render;

const JSON: &str = "application/json;charset=UTF-8";

const TOO_MUCH: &str = "Please use WebSocket Streams for live updates to avoid";

impl Answer {
    pub(super) fn ok(body: Vec<u8>, rows: usize) -> Self {
        Self { status: 200, kind: JSON, body, rows, retry_after: None }
    }

    fn error(status: u16, code: i32, message: &str) -> Self {
        Self { status, ..Self::ok(render::error(code, message), 0) }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self { status: refusal.status, ..Self::ok(refusal.body(), 0) }
    }
}

/// Handles everything below `/api/v3/` and `/sapi/v1/`.
pub(super) async fn answer(
    State(venue): State<Arc<Venue>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let path = uri.path();
    let endpoint = match path.strip_prefix("/sapi/v1/") {
        Some(own @ "convert/tradeFlow") => own,
        Some(_) => "",
        None => path.strip_prefix("/api/v3/").filter(|e| !e.contains("convert")).unwrap_or(""),
    };
    let params = Params::parse(uri.query().unwrap_or_default());
    let arrived = venue.floor.clock.now();
    let Some(weight) = weight(endpoint, &params) else {
        return unknown_path().await;
    };
    let verdict = lock(&venue.limiter).charge(peer.address.ip(), weight, arrived);
    let (used, refusal) = match verdict {
        Verdict::Pass(used) => (used, None),
        Verdict::Refused { used, retry_after } => {
            let limit = venue.limits.weight_per_minute;
            let message = format!(
                "Too much request weight used; current limit is {limit} request weight per 1 \
                 MINUTE. {TOO_MUCH} polling the API."
            );
            let answer = Answer::error(429, -1003, &message);
            (used, Some(Answer { retry_after: Some(retry_after), ..answer }))
        }
        Verdict::Banned { used, until, retry_after } => (used, Some(banned(until, retry_after))),
    };
    // A refused request is not worked on, so no fault but a dead connection can reach it.
    let mut faults = if refusal.is_some() {
        Met::default()
    } else {
        venue.floor.meet(endpoint, params.raw("symbol"), arrived).await
    };
    if faults.hit(FaultKind::Timeout) {
        venue.floor.note((&method, &uri), used, &faults, None);
        venue.floor.stopped().await;
    }
    let mut answer = match refusal {
        Some(answer) => answer,
        None if method != Method::GET => Answer::page(405, Vec::new()),
        None => {
            let key = headers.get("x-mbx-apikey").and_then(|k| k.to_str().ok());
            let signed = Signed { query: uri.query().unwrap_or_default(), key };
            let view = View { venue: &venue, endpoint, params: &params, faults: &faults, signed };
            view.answer().unwrap_or_else(Answer::from)
        }
    };
    faults.apply(&*venue, &peer, &mut answer);
    venue.floor.note((&method, &uri), used, &faults, Some(&answer));
    respond(&venue, answer, used)
}

fn banned(until: Time, retry_after: i64) -> Answer {
    let message =
        format!("Way too much request weight used; IP banned until {}. {TOO_MUCH} bans.", until.0);
    Answer { retry_after: Some(retry_after), ..Answer::error(418, -1003, &message) }
}

impl Trouble for Venue {
    fn status(&self, status: u16) -> Answer {
        let (code, message) = match status {
            403 => return Answer::forbidden(),
            429 => (-1003, "Too many requests queued."),
            418 => (-1003, "Way too much request weight used; IP banned."),
            408 | 504 => (
                -1007,
                "Timeout waiting for response from backend server. Send status unknown; \
                 execution status unknown.",
            ),
            503 => (
                -1008,
                "Server is currently overloaded with other requests. Please try again in a few \
                 minutes.",
            ),
            _ => (-1000, "An unknown error occurred while processing the request."),
        };
        Answer::error(status, code, message)
    }

    fn ban(&self, peer: &Peer, span: Millis) -> Answer {
        let until = lock(&self.limiter).ban(peer.address.ip(), span, self.floor.clock.now());
        banned(until, super::limiter::seconds(span))
    }

    fn object(&self) -> Answer {
        Answer::error(200, -1001, "Internal error; unable to process your request.")
    }
}

fn respond(venue: &Venue, answer: Answer, used: u32) -> Response<Body> {
    let mut response = venue.floor.respond(answer);
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static("nginx"));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    headers.insert("x-mbx-used-weight", HeaderValue::from(used));
    headers.insert("x-mbx-used-weight-1m", HeaderValue::from(used));
    response
}

/// The weight of a request; `None` for a path that does not exist. Spec: venues, section 4.2.
fn weight(endpoint: &str, params: &Params) -> Option<u32> {
    let many = || {
        let symbols = params.raw("symbols").map(|s| s.matches(',').count() + 1);
        if params.raw("symbol").is_some() { Some(1) } else { symbols }
    };
    Some(match endpoint {
        "ping" | "time" => 1,
        "exchangeInfo" => 20,
        "klines" | "uiKlines" | "avgPrice" => 2,
        "depth" => match params.raw("limit").and_then(|l| l.parse::<u32>().ok()).unwrap_or(100) {
            0..=100 => 5,
            101..=500 => 25,
            501..=1_000 => 50,
            _ => 250,
        },
        "trades" | "historicalTrades" => 25,
        "aggTrades" => 4,
        "account" => 20,
        "myTrades" if params.raw("orderId").is_some() => 5,
        "myTrades" => 20,
        "convert/tradeFlow" => 1,
        "ticker/24hr" => match many() {
            Some(0..=20) => 2,
            Some(21..=100) => 40,
            Some(_) | None => 80,
        },
        "ticker/price" | "ticker/bookTicker" => {
            if params.raw("symbol").is_some() {
                2
            } else {
                4
            }
        }
        _ => return None,
    })
}

/// One request as its endpoint sees it.
pub(super) struct View<'a> {
    pub(super) venue: &'a Venue,
    pub(super) endpoint: &'a str,
    pub(super) params: &'a Params,
    faults: &'a Met,
    pub(super) signed: Signed<'a>,
}

impl View<'_> {
    /// The instant that the answer shows: the present, or earlier where a cache is stale.
    pub(super) fn now(&self) -> i64 {
        self.venue.floor.clock.now().0 - self.faults.stale()
    }

    /// What the venue's own clock shows.
    pub(super) fn server_time(&self) -> i64 {
        self.now() + self.faults.skew()
    }

    fn answer(&self) -> Result<Answer, Refusal> {
        match self.endpoint {
            "ping" => {
                self.params.only(&[])?;
                Ok(Answer::ok(b"{}".to_vec(), 0))
            }
            "time" => {
                self.params.only(&[])?;
                let body = format!(r#"{{"serverTime":{}}}"#, self.server_time());
                Ok(Answer::ok(body.into_bytes(), 0))
            }
            "exchangeInfo" => self.exchange_info(),
            "klines" | "uiKlines" => self.klines(),
            "depth" => self.depth(),
            "trades" | "historicalTrades" => self.trades(),
            "aggTrades" => self.agg_trades(),
            "ticker/24hr" => self.day_ticker(),
            "ticker/price" => self.price_ticker(),
            "ticker/bookTicker" => self.book_ticker(),
            "account" | "myTrades" | "convert/tradeFlow" => self.account(),
            _ => self.average_price(),
        }
    }

    pub(super) fn lookup(&self, name: &str) -> Result<usize, Refusal> {
        let found = self.venue.floor.market.find(name);
        found.ok_or_else(|| Refusal::bad(-1121, "Invalid symbol."))
    }

    fn name(&self, symbol: usize) -> &str {
        &self.venue.floor.market.symbols()[symbol].name
    }

    /// The symbols that `symbol` or `symbols` name, or all; and whether it was the single one.
    fn chosen(&self) -> Result<(Vec<usize>, bool), Refusal> {
        let one = self.params.optional_symbol()?;
        let many = self.params.symbols()?;
        match (one, many) {
            (Some(_), Some(_)) => {
                Err(Refusal::bad(-1128, "Combination of optional parameters invalid."))
            }
            (Some(name), None) => Ok((vec![self.lookup(name)?], true)),
            (None, Some(names)) => {
                Ok((names.iter().map(|n| self.lookup(n)).collect::<Result<_, _>>()?, false))
            }
            (None, None) => Ok(((0..self.venue.floor.market.symbols().len()).collect(), false)),
        }
    }

    fn exchange_info(&self) -> Result<Answer, Refusal> {
        self.params.only(&[
            "symbol",
            "symbols",
            "permissions",
            "symbolStatus",
            "showPermissionSets",
        ])?;
        let (chosen, _) = self.chosen()?;
        let now = self.now();
        let faults = lock(&self.venue.floor.faults);
        let wanted = self.params.raw("symbolStatus");
        let market = &self.venue.floor.market;
        let symbols: Vec<_> = chosen
            .into_iter()
            .map(|symbol| {
                let spec = &market.symbols()[symbol];
                let status = if faults.is_halted(&spec.name, Time(now)) {
                    "HALT"
                } else if market.is_stopped(symbol, now) {
                    "BREAK"
                } else {
                    "TRADING"
                };
                (spec, status)
            })
            .filter(|(_, status)| wanted.is_none_or(|w| w == *status))
            .collect();
        let body = render::exchange_info(self.server_time(), &self.venue.limits, &symbols);
        Ok(Answer::ok(body, symbols.len()))
    }

    fn klines(&self) -> Result<Answer, Refusal> {
        let p = self.params;
        p.only(&["symbol", "interval", "startTime", "endTime", "timeZone", "limit"])?;
        let name = p.symbol()?;
        let interval = p.required("interval")?;
        let grid = Grid::parse(interval).ok_or_else(|| Refusal::bad(-1120, "Invalid interval."))?;
        let page = Page {
            start: p.instant("startTime")?,
            end: p.instant("endTime")?,
            limit: p.limit(500, 1_000)?,
        };
        let grid = grid.in_zone(p.zone()?);
        let symbol = self.lookup(name)?;
        let now = self.now();
        let market = &self.venue.floor.market;
        let mut faults = lock(&self.venue.floor.faults);
        let mut rows = if faults.touches_candles() {
            let rows = market.klines(symbol, grid, page, now, |open| {
                !faults.hides(self.endpoint, name, interval, open)
            });
            self.revised(&faults, (symbol, interval), rows, now)
        } else {
            drop(faults);
            market.klines(symbol, grid, page, now, |_| true)
        };
        self.disorder(symbol, grid, &mut rows, now);
        let mut body = render::array(&rows, 190, render::kline);
        if self.faults.hit(FaultKind::WrongWidth) && body.ends_with(b",\"0\"]]") {
            body.truncate(body.len() - 6);
            body.extend_from_slice(b"]]");
        }
        if self.faults.hit(FaultKind::Number) {
            unquote_first(&mut body);
        }
        Ok(Answer::ok(body, rows.len()))
    }

    fn revised(
        &self,
        faults: &Faults,
        (symbol, interval): (usize, &str),
        mut rows: Vec<Candle>,
        now: i64,
    ) -> Vec<Candle> {
        let name = self.name(symbol);
        let step = i128::from(self.venue.floor.market.symbols()[symbol].step);
        for row in &mut rows {
            let times = (row.open_time, row.close_time);
            if faults.revises(self.endpoint, name, interval, times, now) {
                // A provisional candle: its last trade is not in yet.
                row.close = row.open;
                row.volume = (row.volume - step).max(0);
            }
        }
        rows
    }

    /// The faults that work on whole rows.
    fn disorder(&self, symbol: usize, grid: Grid, rows: &mut Vec<Candle>, now: i64) {
        self.faults.disorder(rows);
        if self.faults.hit(FaultKind::Outside)
            && let Some(first) = rows.first()
        {
            let open = grid.floor(first.open_time - 1);
            if let Some(row) = self.venue.floor.market.candle(symbol, open, first.open_time, now) {
                rows.insert(0, row);
            }
        }
    }

    fn depth(&self) -> Result<Answer, Refusal> {
        self.params.only(&["symbol", "limit", "symbolStatus"])?;
        let name = self.params.symbol()?;
        let limit = self.params.limit(100, 5_000)?;
        let symbol = self.lookup(name)?;
        let found = book(&self.venue.floor.market, symbol, self.now(), limit);
        let mut book = found.unwrap_or_default();
        if self.faults.hit(FaultKind::Crossed) {
            super::book::cross(&mut book.bids, &book.asks);
        }
        Ok(Answer::ok(render::depth(&book), book.bids.len() + book.asks.len()))
    }

    fn trades(&self) -> Result<Answer, Refusal> {
        let historical = self.endpoint == "historicalTrades";
        self.params.only(if historical {
            &["symbol", "limit", "fromId"]
        } else {
            &["symbol", "limit"]
        })?;
        let name = self.params.symbol()?;
        let limit = self.params.limit(500, 1_000)?;
        let from = self.params.id("fromId")?;
        let symbol = self.lookup(name)?;
        let now = self.now();
        let from = from.map_or(TradesFrom::Newest(now), TradesFrom::Id);
        let trades = self.venue.floor.market.trades(symbol, from, limit, now);
        Ok(Answer::ok(render::array(&trades, 150, render::trade), trades.len()))
    }

    fn agg_trades(&self) -> Result<Answer, Refusal> {
        self.params.only(&["symbol", "fromId", "startTime", "endTime", "limit"])?;
        let name = self.params.symbol()?;
        let limit = self.params.limit(500, 1_000)?;
        let id = self.params.id("fromId")?;
        let start = self.params.instant("startTime")?;
        let end = self.params.instant("endTime")?;
        if id.is_some() && (start.is_some() || end.is_some()) {
            return Err(Refusal::bad(-1128, "Combination of optional parameters invalid."));
        }
        let symbol = self.lookup(name)?;
        let now = self.now();
        let from = match (id, start, end) {
            (Some(id), ..) => TradesFrom::Id(id),
            (None, Some(start), end) => TradesFrom::Times(start, end.unwrap_or(now)),
            (None, None, end) => TradesFrom::Newest(end.unwrap_or(now)),
        };
        let trades = self.venue.floor.market.trades(symbol, from, limit, now);
        Ok(Answer::ok(render::array(&trades, 140, render::agg_trade), trades.len()))
    }

    /// Renders one object for a single symbol, else a list: every symbol that was asked is in it, also
    /// one that has stopped trading.
    fn each(&self, write: impl Fn(usize, &mut Vec<u8>)) -> Result<Answer, Refusal> {
        let (mut chosen, single) = self.chosen()?;
        if let (true, [only]) = (single, &chosen[..]) {
            let mut body = Vec::with_capacity(600);
            write(*only, &mut body);
            return Ok(Answer::ok(body, 1));
        }
        let now = Time(self.now());
        let mut faults = lock(&self.venue.floor.faults);
        chosen.retain(|symbol| !faults.omits(self.endpoint, self.name(*symbol), now));
        drop(faults);
        let body = render::array(&chosen, 600, |out, symbol| write(*symbol, out));
        Ok(Answer::ok(body, chosen.len()))
    }

    fn day_ticker(&self) -> Result<Answer, Refusal> {
        self.params.only(&["symbol", "symbols", "type", "symbolStatus"])?;
        let mini = match self.params.raw("type") {
            None | Some("FULL") => false,
            Some("MINI") => true,
            Some(_) => return Err(Refusal::invalid("type")),
        };
        let (now, market) = (self.now(), &self.venue.floor.market);
        self.each(|symbol, out| {
            let day = day(self.venue, symbol, now).unwrap_or_else(|| {
                let before = market.last_trade(symbol, Time(now)).map_or(0, |t| t.price);
                render::Day::quiet(self.name(symbol), now, before, book(market, symbol, now, 1))
            });
            if mini {
                day.mini(out);
            } else {
                day.full(out);
            }
        })
    }

    fn price_ticker(&self) -> Result<Answer, Refusal> {
        self.params.only(&["symbol", "symbols", "symbolStatus"])?;
        let now = Time(self.now());
        self.each(|symbol, out| {
            let last = self.venue.floor.market.last_trade(symbol, now);
            render::price_ticker(out, self.name(symbol), last.map_or(0, |t| t.price));
        })
    }

    fn book_ticker(&self) -> Result<Answer, Refusal> {
        self.params.only(&["symbol", "symbols", "symbolStatus"])?;
        let now = self.now();
        self.each(|symbol, out| {
            let found = book(&self.venue.floor.market, symbol, now, 1);
            render::book_ticker(out, self.name(symbol), &found.unwrap_or_default());
        })
    }

    fn average_price(&self) -> Result<Answer, Refusal> {
        self.params.only(&["symbol"])?;
        let symbol = self.lookup(self.params.symbol()?)?;
        let now = self.now();
        let last = self.venue.floor.market.last_trade(symbol, Time(now));
        let from = Grid::MINUTE.floor(now) - 4 * super::market::MINUTE;
        let recent = self.venue.floor.market.candle(symbol, from, now + 1, now);
        let price = match recent {
            Some(c) if c.volume > 0 => c.quote * i128::from(super::market::E8) / c.volume,
            _ => last.map_or(0, |t| i128::from(t.price)),
        };
        let mut body = b"{\"mins\":5,\"price\":\"".to_vec();
        render::decimal(&mut body, price);
        render::print(&mut body, format_args!("\",\"closeTime\":{}}}", last.map_or(0, |t| t.time)));
        Ok(Answer::ok(body, 1))
    }
}

/// The rolling day of a symbol; `None` where nothing was traded in it.
pub(super) fn day(venue: &Venue, symbol: usize, now: i64) -> Option<render::Day<'_>> {
    let (candle, before) =
        venue.floor.market.rolling_day(symbol, now).filter(|(candle, _)| candle.trades > 0)?;
    Some(render::Day {
        symbol: &venue.floor.market.symbols()[symbol].name,
        candle,
        before,
        last: venue.floor.market.last_trade(symbol, Time(now))?,
        book: book(&venue.floor.market, symbol, now, 1)?,
    })
}

/// Takes the quotes off the first text of a body.
fn unquote_first(body: &mut Vec<u8>) {
    for _ in 0..2 {
        if let Some(at) = body.iter().position(|b| *b == b'"') {
            body.remove(at);
        }
    }
}

/// The venue's page for a path that does not exist.
pub(super) async fn unknown_path() -> Response<Body> {
    let page = "<html><head><title>404 Not Found</title></head><body></body></html>";
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, HTML)], page).into_response()
}

/// `GET /sim/journal?after=N`.
pub(super) async fn journal(
    State(venue): State<Arc<Venue>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    query: Query<After>,
) -> Response<Body> {
    let limiter = *lock(&venue.limiter).state(peer.address.ip(), venue.floor.clock.now());
    control::journal(&venue.floor, &query, Some(limiter))
}
