//! The REST endpoints: weigh, judge, break, answer, note down.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use watchbell_core::{Millis, Time};

use super::Venue;
use super::account::Signed;
use super::book::book;
use super::fault::{FaultKind, FaultRule, FaultScript, Faults};
use super::interval::Grid;
use super::journal::JournalEntry;
use super::limiter::{LimiterState, Verdict};
use super::market::{Candle, Page, TradesFrom, lock};
use super::net::Peer;
use super::params::{Params, Refusal};
use super::render;

const JSON: &str = "application/json;charset=UTF-8";
const HTML: &str = "text/html";

/// What a proxy in front of the venue says.
const PROXY_PAGE: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
     <center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";

const TOO_MUCH: &str = "Please use WebSocket Streams for live updates to avoid";

/// An answer before its headers.
pub(super) struct Answer {
    status: u16,
    kind: &'static str,
    body: Vec<u8>,
    rows: usize,
    retry_after: Option<i64>,
}

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
    let arrived = venue.clock.now();
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
        Vec::new()
    } else {
        lock(&venue.faults).strike(endpoint, params.raw("symbol"), arrived, |_| true)
    };
    for fault in &faults {
        if let FaultKind::Latency(span) = fault.kind {
            tokio::select! {
                () = venue.clock.sleep(span) => {}
                () = venue.stopped() => {}
            }
        }
    }
    if faults.iter().any(|f| f.kind == FaultKind::Timeout) {
        note(&venue, &method, &uri, used, &faults, None);
        venue.stopped().await;
    }
    let mut answer = match refusal {
        Some(answer) => answer,
        None if method != Method::GET => {
            Answer { status: 405, kind: HTML, body: Vec::new(), rows: 0, retry_after: None }
        }
        None => {
            let key = headers.get("x-mbx-apikey").and_then(|k| k.to_str().ok());
            let signed = Signed { query: uri.query().unwrap_or_default(), key };
            let view = View { venue: &venue, endpoint, params: &params, faults: &faults, signed };
            view.answer().unwrap_or_else(Answer::from)
        }
    };
    faults.retain(|fault| apply(&venue, &peer, fault, &mut answer));
    note(&venue, &method, &uri, used, &faults, Some(&answer));
    respond(&venue, answer, used)
}

fn banned(until: Time, retry_after: i64) -> Answer {
    let message =
        format!("Way too much request weight used; IP banned until {}. {TOO_MUCH} bans.", until.0);
    Answer { retry_after: Some(retry_after), ..Answer::error(418, -1003, &message) }
}

/// Lets a fault work on a finished answer; says whether it had anything to do with it.
fn apply(venue: &Venue, peer: &Peer, fault: &FaultRule, answer: &mut Answer) -> bool {
    match fault.kind {
        FaultKind::Status { status, retry_after } => {
            let (code, message) = match status {
                429 => (-1003, "Too many requests queued."),
                418 => (-1003, "Way too much request weight used; IP banned."),
                408 | 504 => (
                    -1007,
                    "Timeout waiting for response from backend server. Send status unknown; \
                     execution status unknown.",
                ),
                503 => (
                    -1008,
                    "Server is currently overloaded with other requests. Please try again in a \
                     few minutes.",
                ),
                _ => (-1000, "An unknown error occurred while processing the request."),
            };
            *answer = Answer { retry_after, ..Answer::error(status, code, message) };
            if status == 403 {
                answer.kind = HTML;
                answer.body =
                    b"<html><head><title>403 Forbidden</title></head><body></body></html>".to_vec();
            }
        }
        FaultKind::Ban(span) => {
            let until = lock(&venue.limiter).ban(peer.address.ip(), span, venue.clock.now());
            *answer = banned(until, super::limiter::seconds(span));
        }
        FaultKind::Reset | FaultKind::Down => {
            peer.cut.after(0, true);
            answer.status = 0;
        }
        // About 400 bytes of headers go first.
        FaultKind::ResetBody => peer.cut.after(400 + answer.body.len() / 2, true),
        FaultKind::Truncated => peer.cut.after(400 + answer.body.len() / 2, false),
        FaultKind::Html(status) => {
            *answer =
                Answer { status, kind: HTML, body: PROXY_PAGE.into(), rows: 0, retry_after: None };
        }
        FaultKind::Empty => answer.body.clear(),
        FaultKind::Null => answer.body = b"null".to_vec(),
        FaultKind::ErrorObject => {
            *answer = Answer::error(200, -1001, "Internal error; unable to process your request.");
        }
        FaultKind::Malformed => answer.body.truncate(answer.body.len().saturating_sub(2)),
        // These have been at work while the answer was made.
        FaultKind::Latency(_)
        | FaultKind::Timeout
        | FaultKind::Stale(_)
        | FaultKind::Skew(_)
        | FaultKind::Duplicate
        | FaultKind::Unordered
        | FaultKind::WrongWidth
        | FaultKind::Number
        | FaultKind::Outside => {}
        FaultKind::Missing(_)
        | FaultKind::Revised(_)
        | FaultKind::Halt
        | FaultKind::Drop
        | FaultKind::Silence
        | FaultKind::SkipFrame
        | FaultKind::DuplicateFrame
        | FaultKind::BrokenFrame
        | FaultKind::Boundary => return false,
    }
    true
}

fn note(
    venue: &Venue,
    method: &Method,
    uri: &Uri,
    used_weight: u32,
    faults: &[FaultRule],
    answer: Option<&Answer>,
) {
    venue.journal.note(JournalEntry {
        seq: 0,
        at: venue.clock.now(),
        method: if *method == Method::GET { "GET" } else { "other" },
        target: uri.path_and_query().map_or_else(String::new, |target| {
            // The signature of a request says nothing that its other parameters do not say.
            let target = target.as_str();
            target.split("&signature=").next().unwrap_or(target).to_owned()
        }),
        status: answer.map_or(0, |a| a.status),
        rows: answer.map_or(0, |a| a.rows),
        bytes: answer.map_or(0, |a| a.body.len()),
        used_weight,
        faults: faults.iter().map(ToString::to_string).collect(),
    });
}

fn respond(venue: &Venue, answer: Answer, used: u32) -> Response<Body> {
    let mut response = Response::new(Body::from(answer.body));
    // A connection that is cut before the answer never shows this status.
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.kind));
    headers.insert(header::SERVER, HeaderValue::from_static("nginx"));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    let date = http_date(venue.clock.now()).map(HeaderValue::try_from);
    if let Some(Ok(date)) = date {
        headers.insert(header::DATE, date);
    }
    headers.insert("x-mbx-used-weight", HeaderValue::from(used));
    headers.insert("x-mbx-used-weight-1m", HeaderValue::from(used));
    if let Some(after) = answer.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after));
    }
    response
}

/// `Tue, 15 Nov 1994 08:12:31 GMT`; nothing for an instant outside the calendar.
fn http_date(t: Time) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(t.0).ok()?;
    Some(at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
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
    faults: &'a [FaultRule],
    pub(super) signed: Signed<'a>,
}

impl View<'_> {
    fn hit(&self, kind: FaultKind) -> bool {
        self.faults.iter().any(|f| f.kind == kind)
    }

    /// The instant that the answer shows: the present, or earlier where a cache is stale.
    pub(super) fn now(&self) -> i64 {
        let stale = self.faults.iter().filter_map(|f| match f.kind {
            FaultKind::Stale(by) => Some(by.0),
            _ => None,
        });
        self.venue.clock.now().0 - stale.sum::<i64>()
    }

    /// What the venue's own clock shows.
    pub(super) fn server_time(&self) -> i64 {
        let skew = self.faults.iter().filter_map(|f| match f.kind {
            FaultKind::Skew(by) => Some(by.0),
            _ => None,
        });
        self.now() + skew.sum::<i64>()
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
        let found = self.venue.market.find(name);
        found.ok_or_else(|| Refusal::bad(-1121, "Invalid symbol."))
    }

    fn name(&self, symbol: usize) -> &str {
        &self.venue.market.symbols()[symbol].name
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
            (None, None) => Ok(((0..self.venue.market.symbols().len()).collect(), false)),
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
        let faults = lock(&self.venue.faults);
        let wanted = self.params.raw("symbolStatus");
        let symbols: Vec<_> = chosen
            .into_iter()
            .map(|s| &self.venue.market.symbols()[s])
            .map(|spec| {
                let halted = faults.is_halted(&spec.name, Time(now));
                (spec, if halted { "HALT" } else { "TRADING" })
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
        let market = &self.venue.market;
        let mut faults = lock(&self.venue.faults);
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
        if self.hit(FaultKind::WrongWidth) && body.ends_with(b",\"0\"]]") {
            body.truncate(body.len() - 6);
            body.extend_from_slice(b"]]");
        }
        if self.hit(FaultKind::Number) {
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
        let step = i128::from(self.venue.market.symbols()[symbol].step);
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
        if self.hit(FaultKind::Duplicate)
            && let Some(row) = rows.get(rows.len() / 2).copied()
        {
            rows.insert(rows.len() / 2, row);
        }
        if self.hit(FaultKind::Unordered) && rows.len() > 1 {
            let at = rows.len() / 2;
            rows.swap(at - 1, at);
        }
        if self.hit(FaultKind::Outside)
            && let Some(first) = rows.first()
        {
            let open = grid.floor(first.open_time - 1);
            if let Some(row) = self.venue.market.candle(symbol, open, first.open_time, now) {
                rows.insert(0, row);
            }
        }
    }

    fn depth(&self) -> Result<Answer, Refusal> {
        self.params.only(&["symbol", "limit", "symbolStatus"])?;
        let name = self.params.symbol()?;
        let limit = self.params.limit(100, 5_000)?;
        let symbol = self.lookup(name)?;
        let empty = || super::book::Book { update: 0, bids: Vec::new(), asks: Vec::new() };
        let book = book(&self.venue.market, symbol, self.now(), limit).unwrap_or_else(empty);
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
        let trades = self.venue.market.trades(symbol, from, limit, now);
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
        let trades = self.venue.market.trades(symbol, from, limit, now);
        Ok(Answer::ok(render::array(&trades, 140, render::agg_trade), trades.len()))
    }

    /// Renders one object for a single symbol, else a list of what exists.
    fn each(&self, write: impl Fn(usize, &mut Vec<u8>) -> bool) -> Result<Answer, Refusal> {
        let (chosen, single) = self.chosen()?;
        let mut parts: Vec<Vec<u8>> = Vec::with_capacity(chosen.len());
        for symbol in chosen {
            let mut part = Vec::with_capacity(600);
            if write(symbol, &mut part) {
                parts.push(part);
            }
        }
        let rows = parts.len();
        match parts.pop() {
            Some(only) if single => Ok(Answer::ok(only, 1)),
            last => {
                parts.extend(last);
                let join = |out: &mut Vec<u8>, part: &Vec<u8>| out.extend_from_slice(part);
                Ok(Answer::ok(render::array(&parts, 600, join), rows))
            }
        }
    }

    fn day_ticker(&self) -> Result<Answer, Refusal> {
        self.params.only(&["symbol", "symbols", "type", "symbolStatus"])?;
        let mini = match self.params.raw("type") {
            None | Some("FULL") => false,
            Some("MINI") => true,
            Some(_) => return Err(Refusal::invalid("type")),
        };
        let now = self.now();
        self.each(|symbol, out| {
            let Some(day) = day(self.venue, symbol, now) else { return false };
            if mini {
                day.mini(out);
            } else {
                day.full(out);
            }
            true
        })
    }

    fn price_ticker(&self) -> Result<Answer, Refusal> {
        self.params.only(&["symbol", "symbols", "symbolStatus"])?;
        let now = Time(self.now());
        self.each(|symbol, out| {
            let last = self.venue.market.last_trade(symbol, now);
            last.is_some_and(|t| {
                render::price_ticker(out, self.name(symbol), t.price);
                true
            })
        })
    }

    fn book_ticker(&self) -> Result<Answer, Refusal> {
        self.params.only(&["symbol", "symbols", "symbolStatus"])?;
        let now = self.now();
        self.each(|symbol, out| {
            book(&self.venue.market, symbol, now, 1).is_some_and(|b| {
                render::book_ticker(out, self.name(symbol), &b);
                true
            })
        })
    }

    fn average_price(&self) -> Result<Answer, Refusal> {
        self.params.only(&["symbol"])?;
        let symbol = self.lookup(self.params.symbol()?)?;
        let now = self.now();
        let last = self.venue.market.last_trade(symbol, Time(now));
        let from = Grid::MINUTE.floor(now) - 4 * super::market::MINUTE;
        let recent = self.venue.market.candle(symbol, from, now + 1, now);
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

/// The rolling day of a symbol; `None` before its first trade.
pub(super) fn day(venue: &Venue, symbol: usize, now: i64) -> Option<render::Day<'_>> {
    let (candle, before) = venue.market.rolling_day(symbol, now)?;
    Some(render::Day {
        symbol: &venue.market.symbols()[symbol].name,
        candle,
        before,
        last: venue.market.last_trade(symbol, Time(now))?,
        book: book(&venue.market, symbol, now, 1)?,
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

fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(header::CONTENT_TYPE, JSON)], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The query of `GET /sim/journal`.
#[derive(Debug, Deserialize)]
pub(super) struct After {
    #[serde(default)]
    after: u64,
}

#[derive(Serialize)]
struct JournalPage {
    now: Time,
    last: u64,
    limiter: LimiterState,
    entries: Vec<JournalEntry>,
}

/// `GET /sim/journal?after=N`.
pub(super) async fn journal(
    State(venue): State<Arc<Venue>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Query(After { after }): Query<After>,
) -> Response<Body> {
    let now = venue.clock.now();
    let limiter = *lock(&venue.limiter).state(peer.address.ip(), now);
    let entries = venue.journal.after(after);
    json(StatusCode::OK, &JournalPage { now, last: venue.journal.last(), limiter, entries })
}

/// `GET /sim/faults`: the rules, as a list of text.
pub(super) async fn faults(State(venue): State<Arc<Venue>>) -> Response<Body> {
    let script = lock(&venue.faults).script();
    json(StatusCode::OK, &script)
}

/// `POST /sim/faults`: replaces the rules by a JSON list of text, or by plain text.
pub(super) async fn set_faults(State(venue): State<Arc<Venue>>, body: String) -> Response<Body> {
    let parsed: Result<FaultScript, String> = if body.trim_start().starts_with('[') {
        serde_json::from_str(&body).map_err(|e| e.to_string())
    } else {
        body.parse().map_err(|e: super::FaultParseError| e.to_string())
    };
    match parsed {
        Ok(script) => {
            let reply = json(StatusCode::OK, &script);
            *lock(&venue.faults) = Faults::new(script);
            reply
        }
        Err(problem) => json(StatusCode::BAD_REQUEST, &serde_json::json!({ "error": problem })),
    }
}

/// `GET /sim/market`: what is served.
pub(super) async fn market(State(venue): State<Arc<Venue>>) -> Response<Body> {
    let symbols: Vec<_> = venue
        .market
        .symbols()
        .iter()
        .enumerate()
        .map(|(i, spec)| {
            let (from, to) = venue.market.span(i);
            let holes: Vec<_> = venue
                .market
                .holes(i)
                .iter()
                .map(|h| {
                    let minutes = (h.to - h.from) / Millis::from_mins(1);
                    serde_json::json!({
                        "from": h.from.rfc3339(), "to": h.to.rfc3339(), "minutes": minutes,
                    })
                })
                .collect();
            serde_json::json!({
                "symbol": spec.name, "from": from.rfc3339(), "to": to.rfc3339(), "holes": holes,
            })
        })
        .collect();
    let value = serde_json::json!({
        "kind": venue.market.kind(),
        "now": venue.clock.now().rfc3339(),
        "symbols": symbols,
    });
    json(StatusCode::OK, &value)
}
