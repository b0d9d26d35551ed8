//! The streams: one task a connection, paced by the simulated clock. Spec: venues, section 4.5.
//!
//! An event is rendered as of the instant at which it was due, not as of the moment at which the
//! task got to it, so its content depends on the market alone. A late task leaves out intermediate
//! updates, as a venue under load does, but never a trade or a closed candle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::{Response, Uri};
use serde_json::{Value, json};
use watchbell_core::{Millis, Time};

use super::Venue;
use super::book::{Book, book};
use super::dice::{hash_text, mix};
use super::fault::FaultKind;
use super::interval::Grid;
use super::market::{MINUTE, lock};
use super::params::Params;
use super::{render, rest};

/// Streams per connection.
const MOST_STREAMS: usize = 1_024;
/// Client messages per second, pings and pongs included.
const MESSAGES_PER_SECOND: usize = 5;
const PING_EVERY: i64 = 20_000;
const PONG_WITHIN: i64 = 60_000;
const LIFE: i64 = 24 * 60 * MINUTE;
/// Klines are updated this often.
const KLINE_PACE: i64 = 2_000;
/// Later than this, an intermediate update is left out.
const STALE: i64 = 2_000;

/// `/ws` and `/ws/<stream>[/<stream>]`: bare payloads.
pub(super) async fn raw(
    State(venue): State<Arc<Venue>>,
    uri: Uri,
    upgrade: WebSocketUpgrade,
) -> Response<Body> {
    let names = uri.path().strip_prefix("/ws").unwrap_or_default().to_owned();
    open(venue, &names, false, upgrade)
}

/// `/stream?streams=<stream>/<stream>`: payloads wrapped with the name of their stream.
pub(super) async fn combined(
    State(venue): State<Arc<Venue>>,
    uri: Uri,
    upgrade: WebSocketUpgrade,
) -> Response<Body> {
    let params = Params::parse(uri.query().unwrap_or_default());
    let names = params.raw("streams").unwrap_or_default().to_owned();
    open(venue, &names, true, upgrade)
}

fn open(
    venue: Arc<Venue>,
    names: &str,
    combined: bool,
    upgrade: WebSocketUpgrade,
) -> Response<Body> {
    let names: Vec<String> =
        names.split('/').filter(|n| !n.is_empty()).map(str::to_owned).collect();
    upgrade.on_upgrade(move |socket| async move {
        let mut line = Line::new(Arc::clone(&venue), socket, combined);
        let clock = venue.floor.clock.clone();
        venue.floor.journal.note_stream(clock.now(), format!("open {}", names.join("/")));
        line.subscribe(&names);
        let end = line.run().await;
        let what = format!("close after {} frames: {end}", line.frames);
        venue.floor.journal.note_stream(clock.now(), what);
    })
}

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feed {
    /// With the open time of the candle that is being told.
    Kline(Grid, i64),
    Trade,
    AggTrade,
    BookTicker,
    Ticker,
    MiniTicker,
    AllMiniTickers,
    /// The best levels, at this pace.
    PartialDepth(usize, i64),
    /// A name that the venue accepts and never sends anything for.
    Nothing,
}

#[derive(Debug)]
struct Subscription {
    name: String,
    symbol: usize,
    feed: Feed,
    /// Trades up to here were sent.
    told: i64,
    /// What the last book or kline frame was about, to send changes only.
    last: (i64, i64, i64),
}

/// A frame with what a fault needs to know about it.
struct Frame {
    body: Vec<u8>,
    closes_candle: bool,
}

impl From<Vec<u8>> for Frame {
    fn from(body: Vec<u8>) -> Self {
        Self { body, closes_candle: false }
    }
}

/// One connection.
struct Line {
    venue: Arc<Venue>,
    socket: WebSocket,
    combined: bool,
    subscriptions: BTreeMap<u64, Subscription>,
    /// When each is due next.
    due: BTreeSet<(i64, u64)>,
    next_id: u64,
    frames: u64,
    silent: bool,
    received: VecDeque<i64>,
    ping_due: i64,
    pong_due: Option<i64>,
    life_ends: i64,
}

/// How a connection ended; `Ok` goes on.
type Step = Result<(), String>;

impl Line {
    fn new(venue: Arc<Venue>, socket: WebSocket, combined: bool) -> Self {
        let now = venue.floor.clock.now().0;
        let mut line = Self {
            venue,
            socket,
            combined,
            subscriptions: BTreeMap::new(),
            due: BTreeSet::new(),
            next_id: 0,
            frames: 0,
            silent: false,
            received: VecDeque::new(),
            ping_due: 0,
            pong_due: None,
            life_ends: now + LIFE,
        };
        line.ping_due = now + line.wall(PING_EVERY);
        line
    }

    /// A span of real time in simulated milliseconds: whether a peer is alive is a matter of the
    /// network, which does not run faster on an accelerated clock.
    fn wall(&self, millis: i64) -> i64 {
        (millis as f64 * self.venue.floor.clock.speed().max(1.0)) as i64
    }

    async fn run(&mut self) -> String {
        let venue = Arc::clone(&self.venue);
        loop {
            let first = self.due.first().map_or(i64::MAX / 4, |(at, _)| *at);
            let pong = self.pong_due.unwrap_or(i64::MAX / 4);
            let wake = first.min(self.ping_due).min(pong).min(self.life_ends);
            let step = tokio::select! {
                biased;
                () = venue.floor.stopped() => self.announce_shutdown().await,
                message = self.socket.recv() => match message {
                    Some(Ok(message)) => self.receive(message).await,
                    Some(Err(error)) => Err(format!("broken by the client: {error}")),
                    None => Err("closed by the client".to_owned()),
                },
                () = venue.floor.clock.sleep_until(Time(wake)) => self.wake().await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn announce_shutdown(&mut self) -> Step {
        let at = self.venue.floor.clock.now().0;
        let event = format!(r#"{{"e":"serverShutdown","E":{at}}}"#);
        self.send_payload("!serverShutdown", event.into_bytes()).await?;
        Err(self.close(1001, "the server shuts down").await)
    }

    async fn close(&mut self, code: u16, reason: &str) -> String {
        let frame = CloseFrame { code, reason: reason.into() };
        match self.send(Message::Close(Some(frame))).await {
            Ok(()) => reason.to_owned(),
            Err(end) => end,
        }
    }

    /// Sends, unless the client has not read for so long that it must be gone.
    async fn send(&mut self, message: Message) -> Step {
        let limit = Millis(self.wall(PONG_WITHIN));
        match self.venue.floor.clock.timeout(limit, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("broken by the client: {error}")),
            Err(_) => Err("the client does not read".to_owned()),
        }
    }

    async fn send_payload(&mut self, stream: &str, payload: Vec<u8>) -> Step {
        let body = if self.combined {
            let mut wrapped = format!(r#"{{"stream":"{stream}","data":"#).into_bytes();
            wrapped.extend_from_slice(&payload);
            wrapped.push(b'}');
            wrapped
        } else {
            payload
        };
        self.send_bytes(body).await
    }

    async fn send_bytes(&mut self, body: Vec<u8>) -> Step {
        self.frames += 1;
        let text = String::from_utf8_lossy(&body).into_owned();
        self.send(Message::Text(text.into())).await
    }

    // ---- What the client says

    async fn receive(&mut self, message: Message) -> Step {
        let now = self.venue.floor.clock.now().0;
        let window = self.wall(1_000);
        self.received.push_back(now);
        while self.received.front().is_some_and(|t| *t <= now - window) {
            self.received.pop_front();
        }
        if self.received.len() > MESSAGES_PER_SECOND {
            return Err(self.close(1008, "Too many requests").await);
        }
        match message {
            Message::Text(text) => {
                let reply = self.request(&text);
                self.send_bytes(reply.to_string().into_bytes()).await
            }
            Message::Binary(_) => {
                let reply = json!({"error": {"code": 3, "msg": "Invalid JSON: binary frame"}});
                self.send_bytes(reply.to_string().into_bytes()).await
            }
            Message::Pong(_) => {
                self.pong_due = None;
                Ok(())
            }
            // The socket answers pings and close frames by itself.
            Message::Ping(_) => Ok(()),
            Message::Close(_) => Err("closed by the client".to_owned()),
        }
    }

    fn request(&mut self, text: &str) -> Value {
        let refuse = |code: i32, msg: String, id: Value| json!({"error": {"code": code, "msg": msg}, "id": id});
        let request: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(e) => return refuse(3, format!("Invalid JSON: {e}"), Value::Null),
        };
        let id = request.get("id").cloned().unwrap_or(Value::Null);
        let legal = match &id {
            Value::Null => true,
            Value::Number(n) => n.is_i64() || n.is_u64(),
            Value::String(s) => s.len() <= 36,
            _ => false,
        };
        if !legal {
            let msg = "Invalid request: request ID must be an unsigned integer, a text of at most \
                       36 characters, or null";
            return refuse(2, msg.to_owned(), Value::Null);
        }
        let names = || -> Option<Vec<String>> {
            let list = request.get("params")?.as_array()?;
            list.iter().map(|n| n.as_str().map(str::to_owned)).collect()
        };
        let no_names = "Invalid request: missing field `params`, a list of stream names";
        let method = request.get("method").and_then(Value::as_str).unwrap_or_default();
        match method {
            "SUBSCRIBE" => {
                let Some(names) = names() else { return refuse(2, no_names.to_owned(), id) };
                if self.subscriptions.len() + names.len() > MOST_STREAMS {
                    let msg = format!("Invalid request: at most {MOST_STREAMS} streams");
                    return refuse(2, msg, id);
                }
                self.subscribe(&names);
                self.note(format!("subscribe {}", names.join("/")));
                json!({"result": null, "id": id})
            }
            "UNSUBSCRIBE" => {
                let Some(names) = names() else { return refuse(2, no_names.to_owned(), id) };
                self.subscriptions.retain(|_, s| !names.contains(&s.name));
                let left = &self.subscriptions;
                self.due.retain(|(_, id)| left.contains_key(id));
                self.note(format!("unsubscribe {}", names.join("/")));
                json!({"result": null, "id": id})
            }
            "LIST_SUBSCRIPTIONS" => {
                let names: Vec<&str> =
                    self.subscriptions.values().map(|s| s.name.as_str()).collect();
                json!({"result": names, "id": id})
            }
            "SET_PROPERTY" => {
                let params = request.get("params").and_then(Value::as_array);
                match params.map(Vec::as_slice) {
                    Some([Value::String(name), Value::Bool(on)]) if name == "combined" => {
                        self.combined = *on;
                        json!({"result": null, "id": id})
                    }
                    _ => refuse(2, "Invalid request: unknown property".to_owned(), id),
                }
            }
            "GET_PROPERTY" => json!({"result": self.combined, "id": id}),
            other => {
                let msg = format!(
                    "Invalid request: unknown variant `{other}`, expected one of `SUBSCRIBE`, \
                     `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY`"
                );
                refuse(2, msg, id)
            }
        }
    }

    fn note(&self, what: String) {
        self.venue.floor.journal.note_stream(self.venue.floor.clock.now(), what);
    }

    fn subscribe(&mut self, names: &[String]) {
        let now = self.venue.floor.clock.now().0;
        for name in names {
            if self.subscriptions.values().any(|s| &s.name == name) {
                continue;
            }
            let mut sub = Subscription::new(&self.venue, name, now);
            let id = self.next_id;
            self.next_id += 1;
            if let Some(at) = sub.next(&self.venue, now) {
                self.due.insert((at, id));
            }
            self.subscriptions.insert(id, sub);
        }
    }

    // ---- What the venue says

    async fn wake(&mut self) -> Step {
        let now = self.venue.floor.clock.now().0;
        if now >= self.life_ends {
            return Err(self.close(1000, "24 hours have passed").await);
        }
        if self.pong_due.is_some_and(|due| now >= due) {
            return Err(self.close(1008, "Pong timeout").await);
        }
        if now >= self.ping_due {
            self.ping_due = now + self.wall(PING_EVERY);
            self.pong_due.get_or_insert(now + self.wall(PONG_WITHIN));
            self.send(Message::Ping(now.to_string().into_bytes().into())).await?;
        }
        let venue = Arc::clone(&self.venue);
        // A long leap of the clock is worked off in portions, so that pings get their turn.
        for _ in 0..4_096 {
            let Some((at, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) else {
                return Ok(());
            };
            self.due.pop_first();
            let Some(sub) = self.subscriptions.get_mut(&id) else { continue };
            let frames = sub.fire(&venue, at, now);
            let name = if frames.is_empty() { String::new() } else { sub.name.clone() };
            let symbol = sub.symbol;
            if let Some(next) = sub.next(&venue, at) {
                self.due.insert((next, id));
            }
            for frame in frames {
                self.deliver(&name, symbol, frame, at).await?;
            }
        }
        Ok(())
    }

    /// Sends a frame through the faults of the script.
    async fn deliver(&mut self, name: &str, symbol: usize, frame: Frame, at: i64) -> Step {
        if self.silent {
            return Ok(());
        }
        let venue = Arc::clone(&self.venue);
        let asset = venue.floor.market.symbols().get(symbol).map(|s| s.name.as_str());
        let concerns = |kind: FaultKind| match kind {
            FaultKind::Boundary => frame.closes_candle,
            FaultKind::Drop
            | FaultKind::Silence
            | FaultKind::SkipFrame
            | FaultKind::DuplicateFrame
            | FaultKind::BrokenFrame => true,
            FaultKind::Down => true,
            _ => false,
        };
        let faults = lock(&venue.floor.faults).strike("stream", asset, Time(at), concerns);
        let mut payload = frame.body;
        let mut copies = 1;
        for fault in faults {
            match fault.kind {
                FaultKind::Drop | FaultKind::Boundary | FaultKind::Down => {
                    return Err(format!("fault {fault} on {name}"));
                }
                FaultKind::Silence => {
                    self.silent = true;
                    self.note(format!("fault {fault} on {name}"));
                    return Ok(());
                }
                FaultKind::SkipFrame => copies = 0,
                FaultKind::DuplicateFrame => copies *= 2,
                FaultKind::BrokenFrame => payload.truncate(payload.len() / 2),
                _ => {}
            }
            self.note(format!("fault {fault} on {name}"));
        }
        for _ in 0..copies {
            self.send_payload(name, payload.clone()).await?;
        }
        Ok(())
    }
}

impl Subscription {
    fn new(venue: &Venue, name: &str, now: i64) -> Self {
        let (asset, feed) = name.split_once('@').unwrap_or(("", name));
        let symbol = venue.floor.market.find(&asset.to_ascii_uppercase());
        let feed = match (symbol, feed) {
            (None, "arr") if asset == "!miniTicker" => Feed::AllMiniTickers,
            (None, _) => Feed::Nothing,
            (Some(_), "trade") => Feed::Trade,
            (Some(_), "aggTrade") => Feed::AggTrade,
            (Some(_), "bookTicker") => Feed::BookTicker,
            (Some(_), "ticker") => Feed::Ticker,
            (Some(_), "miniTicker") => Feed::MiniTicker,
            (Some(s), other) => candles(venue, s, other, now)
                .or_else(|| partial_depth(other))
                .unwrap_or(Feed::Nothing),
        };
        Self {
            name: name.to_owned(),
            symbol: symbol.unwrap_or(usize::MAX),
            feed,
            told: now,
            last: (0, 0, 0),
        }
    }

    /// When a candle's end is told: a little after it, as recorded (5 ms to 200 ms here).
    fn close_due(&self, grid: Grid, open: i64) -> i64 {
        grid.next(open) + 5 + (mix(hash_text(&self.name), open as u64) % 195) as i64
    }

    /// The next instant after `after` at which this stream may have something to say.
    fn next(&mut self, venue: &Venue, after: i64) -> Option<i64> {
        let tick = |pace: i64| (after.div_euclid(pace) + 1) * pace;
        let trade = || {
            let next = venue.floor.market.next_trade(self.symbol, after);
            next.map_or(after + 60 * MINUTE, |t| t.time)
        };
        Some(match self.feed {
            Feed::Kline(grid, open) => {
                tick(KLINE_PACE).min(self.close_due(grid, open).max(after + 1))
            }
            Feed::Trade | Feed::AggTrade => trade(),
            Feed::BookTicker => tick(1_000).min(trade()),
            Feed::Ticker | Feed::MiniTicker | Feed::AllMiniTickers => tick(1_000),
            Feed::PartialDepth(_, pace) => tick(pace),
            Feed::Nothing => return None,
        })
    }

    /// What is due at `at`, told at `now`.
    fn fire(&mut self, venue: &Venue, at: i64, now: i64) -> Vec<Frame> {
        let late = now - at > STALE;
        match self.feed {
            Feed::Kline(grid, open) => {
                self.kline(venue, grid, open, at, late).into_iter().collect()
            }
            Feed::Trade | Feed::AggTrade => self.trades(venue, at),
            _ if late => Vec::new(),
            Feed::BookTicker => {
                let Some(b) = book(&venue.floor.market, self.symbol, at, 1) else {
                    return Vec::new();
                };
                let touch = |levels: &[(i64, i64)]| levels.first().map_or(0, |l| l.0 ^ (l.1 << 1));
                let seen = (b.update, touch(&b.bids), touch(&b.asks));
                if std::mem::replace(&mut self.last, seen) == seen {
                    return Vec::new();
                }
                vec![render::book_ticker_event(self.asset(venue), &b).into()]
            }
            Feed::PartialDepth(levels, _) => {
                let b: Option<Book> = book(&venue.floor.market, self.symbol, at, levels);
                b.map(|b| render::depth(&b).into()).into_iter().collect()
            }
            Feed::Ticker => {
                let day = rest::day(venue, self.symbol, at);
                day.map(|d| d.ticker_event(at).into()).into_iter().collect()
            }
            Feed::MiniTicker => {
                let day = rest::day(venue, self.symbol, at);
                day.map(|d| d.mini_event(at).into()).into_iter().collect()
            }
            Feed::AllMiniTickers => {
                let days: Vec<Vec<u8>> = (0..venue.floor.market.symbols().len())
                    .filter_map(|s| rest::day(venue, s, at))
                    .map(|d| d.mini_event(at))
                    .collect();
                let join = |out: &mut Vec<u8>, part: &Vec<u8>| out.extend_from_slice(part);
                vec![render::array(&days, 300, join).into()]
            }
            Feed::Nothing => Vec::new(),
        }
    }

    fn asset<'a>(&self, venue: &'a Venue) -> &'a str {
        &venue.floor.market.symbols()[self.symbol].name
    }

    fn kline(
        &mut self,
        venue: &Venue,
        grid: Grid,
        open: i64,
        at: i64,
        late: bool,
    ) -> Option<Frame> {
        let end = grid.next(open);
        let closes = at >= self.close_due(grid, open);
        if closes {
            self.feed = Feed::Kline(grid, end);
        } else if late {
            return None;
        }
        // Between the end and the closing frame nothing is told of either candle.
        if !closes && at >= end {
            return None;
        }
        let candle = venue.floor.market.candle(self.symbol, open, end, at)?;
        let asset = self.asset(venue);
        let seen = (candle.open_time, candle.last_trade, candle.trades);
        if !closes && seen == self.last {
            return None;
        }
        {
            let mut faults = lock(&venue.floor.faults);
            if faults.touches_candles() && faults.hides("stream", asset, grid.name(), open) {
                return None;
            }
        }
        let body = render::kline_event(at, asset, grid.name(), &candle, closes);
        self.last = seen;
        Some(Frame { body, closes_candle: closes })
    }

    fn trades(&mut self, venue: &Venue, at: i64) -> Vec<Frame> {
        let asset = self.asset(venue);
        let told = std::mem::replace(&mut self.told, at);
        let trades = venue.floor.market.split(self.symbol, Grid::MINUTE.floor(at));
        trades
            .iter()
            .filter(|t| t.time > told && t.time <= at)
            .map(|t| match self.feed {
                Feed::AggTrade => render::agg_trade_event(asset, t).into(),
                _ => render::trade_event(asset, t).into(),
            })
            .collect()
    }
}

/// `kline_<i>` and `kline_<i>@+08:00`.
fn candles(venue: &Venue, symbol: usize, name: &str, now: i64) -> Option<Feed> {
    let rest = name.strip_prefix("kline_")?;
    let (interval, zone) = match rest.split_once('@') {
        Some((interval, "+08:00")) => (interval, 8 * 60 * MINUTE),
        Some(_) => return None,
        None => (rest, 0),
    };
    let listed = venue.floor.market.span(symbol).0.0;
    let grid = Grid::parse(interval)?.for_listing(listed).in_zone(zone);
    Some(Feed::Kline(grid, grid.floor(now)))
}

/// `depth5`, `depth10` and `depth20`, each second or each 100 ms.
fn partial_depth(name: &str) -> Option<Feed> {
    let rest = name.strip_prefix("depth")?;
    let (levels, pace) = match rest.split_once('@') {
        Some((levels, "100ms")) => (levels, 100),
        Some(_) => return None,
        None => (rest, 1_000),
    };
    let levels = levels.parse().ok().filter(|n| [5, 10, 20].contains(n))?;
    Some(Feed::PartialDepth(levels, pace))
}
