//! Combined streams over one WebSocket connection, which is renewed as often as needed.

use std::collections::VecDeque;
use std::fmt;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error as WsError, Message, protocol::WebSocketConfig};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use watchbell_clock::Clock;
use watchbell_core::{Millis, Time};

use super::client::chain;
use super::config::{Config, backoff};
use super::error::{Call, Class, VenueError, Verdict, judge};
use super::stream_wire::{Frame, Stream, StreamEvent, parse_frame};
use super::wire::cut;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The venue allows 5 messages per second and counts pongs: one place is left for them.
const CONTROLS_PER_SECOND: usize = 4;
/// Streams named in the address; the others are subscribed by message, for an address has limits.
const IN_ADDRESS: usize = 100;
/// Streams in one control message.
const PER_MESSAGE: usize = 200;
/// The venue's limit per connection.
const MAX_STREAMS: usize = 1_024;
/// Failed attempts to connect after which [`Streams::next`] reports, before it goes on trying.
const REPORT_AFTER: u32 = 5;
const BACKOFF_BASE: Millis = Millis(500);
/// A connection that lived shorter is not followed by another at once: the venue allows 300 attempts
/// in 5 minutes, and a loop of accept and close would use them up.
const SETTLED: Millis = Millis::from_secs(30);

/// Subscriptions of the venue as one sequence of events.
///
/// The connection is answered (pings), watched (silence), renewed before the venue's limit of 24 h,
/// and built again with backoff when it breaks; each time a [`StreamEvent::Reconnected`] says that
/// something may have been missed.
pub struct Streams {
    config: Config,
    clock: Clock,
    streams: Vec<Stream>,
    socket: Option<Socket>,
    connected_at: Time,
    last_frame: Time,
    /// Why there is no socket, and since how many attempts.
    reason: String,
    attempts: u32,
    next_attempt: Time,
    /// Connections in a row that broke before they were settled.
    unsettled: u32,
    controls: VecDeque<String>,
    controls_sent: VecDeque<Time>,
    next_id: i64,
    skipped: u64,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams")
            .field("host", &self.config.ws_base_url)
            .field("streams", &self.streams.len())
            .field("connected", &self.socket.is_some())
            .finish_non_exhaustive()
    }
}

impl Streams {
    /// Connects once.
    ///
    /// # Errors
    /// No subscription or more than 1024 of them, or the venue cannot be reached.
    pub async fn connect(
        config: Config,
        clock: Clock,
        subscriptions: Vec<Stream>,
    ) -> Result<Self, VenueError> {
        check_count(subscriptions.len())?;
        let now = clock.now();
        let mut streams = Self {
            config,
            clock,
            streams: subscriptions,
            socket: None,
            connected_at: now,
            last_frame: now,
            reason: "first connection".into(),
            attempts: 0,
            next_attempt: now,
            unsettled: 0,
            controls: VecDeque::new(),
            controls_sent: VecDeque::new(),
            next_id: 1,
            skipped: 0,
        };
        streams.open().await?;
        Ok(streams)
    }

    /// The present subscriptions.
    #[must_use]
    pub fn subscriptions(&self) -> &[Stream] {
        &self.streams
    }

    /// Frames that could not be used, since the start.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Adds subscriptions. They are sent by [`next`](Self::next), at the pace that the venue allows.
    ///
    /// # Errors
    /// More than 1024 in all.
    pub fn subscribe(&mut self, streams: &[Stream]) -> Result<(), VenueError> {
        let new: Vec<Stream> =
            streams.iter().filter(|s| !self.streams.contains(s)).cloned().collect();
        check_count(self.streams.len() + new.len())?;
        self.control("SUBSCRIBE", &new);
        self.streams.extend(new);
        Ok(())
    }

    /// Ends subscriptions. Frames under way may still arrive.
    pub fn unsubscribe(&mut self, streams: &[Stream]) {
        let (gone, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.streams).into_iter().partition(|s| streams.contains(s));
        self.streams = kept;
        self.control("UNSUBSCRIBE", &gone);
    }

    fn control(&mut self, method: &str, streams: &[Stream]) {
        for chunk in streams.chunks(PER_MESSAGE) {
            let params: Vec<String> = chunk.iter().map(ToString::to_string).collect();
            let message =
                serde_json::json!({"method": method, "params": params, "id": self.next_id});
            self.next_id += 1;
            self.controls.push_back(message.to_string());
        }
    }

    /// The next event. Cancel-safe: dropped before it is ready, nothing is lost but the progress of
    /// an attempt to connect.
    ///
    /// # Errors
    /// The venue refused a subscription, blocks us, or could not be reached five times in a row. The
    /// value stays usable: the next call goes on.
    pub async fn next(&mut self) -> Result<StreamEvent, VenueError> {
        loop {
            if self.socket.is_none() {
                return self.reconnect().await;
            }
            let deadline = self.send_controls().await;
            let Some(socket) = &mut self.socket else { continue };
            let message = tokio::select! {
                biased;
                message = socket.next() => message,
                () = self.clock.sleep_until(deadline) => {
                    self.check_age();
                    continue;
                }
            };
            match message {
                Some(Ok(message)) => {
                    self.last_frame = self.clock.now();
                    if let Some(event) = self.take(message)? {
                        return Ok(event);
                    }
                }
                Some(Err(e)) => self.lose(format!("the connection broke: {}", chain(&e))),
                None => self.lose("the connection ended".into()),
            }
        }
    }

    /// The instant at which the connection needs attention even without a frame.
    fn deadline(&self) -> Time {
        (self.last_frame + self.config.stream_silence)
            .min(self.connected_at + self.config.stream_max_age)
    }

    fn check_age(&mut self) {
        let now = self.clock.now();
        if now >= self.last_frame + self.config.stream_silence {
            self.lose(format!("silence for {}", self.config.stream_silence));
        } else if now >= self.connected_at + self.config.stream_max_age {
            self.lose(format!("renewed after {}", self.config.stream_max_age));
        }
    }

    /// Sends what the pace allows; answers when to come back at the latest.
    async fn send_controls(&mut self) -> Time {
        let deadline = self.deadline();
        while let Some(message) = self.controls.front() {
            let now = self.clock.now();
            while self.controls_sent.front().is_some_and(|t| now - *t >= Millis::from_secs(1)) {
                self.controls_sent.pop_front();
            }
            if self.controls_sent.len() >= CONTROLS_PER_SECOND {
                let free = self.controls_sent.front().map_or(now, |t| *t + Millis::from_secs(1));
                return deadline.min(free);
            }
            let Some(socket) = &mut self.socket else { return deadline };
            if let Err(e) = socket.send(Message::text(message.as_str())).await {
                self.lose(format!("the connection broke: {}", chain(&e)));
                return deadline;
            }
            self.controls.pop_front();
            self.controls_sent.push_back(now);
        }
        deadline
    }

    /// Reads one message: an event, or `None` when there is nothing to hand on.
    fn take(&mut self, message: Message) -> Result<Option<StreamEvent>, VenueError> {
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(bytes) => {
                return Ok(Some(self.skip(format!("a binary frame of {} bytes", bytes.len()))));
            }
            Message::Close(frame) => {
                let why =
                    frame.map_or_else(String::new, |f| format!(" ({}: {})", f.code, f.reason));
                self.lose(format!("the venue closed the connection{}", cut(&why, 120)));
                return Ok(None);
            }
            // The library has queued the pong with the same payload; the next read sends it.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(None),
        };
        match parse_frame(&text) {
            Ok(Frame::Event(event)) => Ok(Some(event)),
            Ok(Frame::Accepted) => Ok(None),
            Ok(Frame::Shutdown) => {
                self.lose("the venue announced its shutdown".into());
                Ok(None)
            }
            Ok(Frame::Refused(error)) => Err(VenueError::Refused {
                call: Call::new("stream", None),
                status: 0,
                code: Some(error.code),
                msg: cut(&error.msg, 200),
                class: Class::Permanent,
            }),
            Err(reason) => Ok(Some(self.skip(reason))),
        }
    }

    fn skip(&mut self, reason: String) -> StreamEvent {
        self.skipped += 1;
        StreamEvent::Skipped { reason, total: self.skipped }
    }

    fn lose(&mut self, reason: String) {
        tracing::info!(
            host = self.config.ws_base_url,
            reason,
            "venue stream lost, connecting again"
        );
        self.socket = None;
        self.reason = reason;
        self.attempts = 0;
        let now = self.clock.now();
        if now - self.connected_at < SETTLED {
            let cap = self.config.stream_backoff_cap;
            self.next_attempt = now + backoff(BACKOFF_BASE, self.unsettled, cap);
            self.unsettled = self.unsettled.saturating_add(1);
        } else {
            self.next_attempt = now;
            self.unsettled = 0;
        }
    }

    async fn reconnect(&mut self) -> Result<StreamEvent, VenueError> {
        loop {
            self.clock.sleep_until(self.next_attempt).await;
            let last_frame = self.last_frame;
            let Err(error) = self.open().await else {
                return Ok(StreamEvent::Reconnected {
                    reason: self.reason.clone(),
                    attempts: self.attempts,
                    silent_for: self.connected_at - last_frame,
                });
            };
            let now = self.clock.now();
            let pause = match error.class() {
                Class::Rate { retry_after } => retry_after,
                Class::Blocked | Class::Permanent => self.config.stream_backoff_cap,
                Class::Transient => {
                    backoff(BACKOFF_BASE, self.attempts - 1, self.config.stream_backoff_cap)
                }
            };
            self.next_attempt = now + pause;
            if error.class() != Class::Transient || self.attempts.is_multiple_of(REPORT_AFTER) {
                return Err(error);
            }
            tracing::debug!(%error, %pause, "venue stream not connected, trying again");
        }
    }

    /// One attempt to connect, with all present subscriptions.
    async fn open(&mut self) -> Result<(), VenueError> {
        crate::http::install_tls();
        self.attempts += 1;
        let named: Vec<String> =
            self.streams.iter().take(IN_ADDRESS).map(ToString::to_string).collect();
        let host = self.config.ws_base_url.trim_end_matches('/').to_owned();
        let url = format!("{host}/stream?streams={}", named.join("/"));
        let limits = WebSocketConfig::default()
            .max_message_size(Some(4 << 20))
            .max_frame_size(Some(4 << 20));
        let dial = tokio_tungstenite::connect_async_with_config(url, Some(limits), true);
        // The future is large, and this one waits on the heap.
        let dial = self.clock.timeout(self.config.request_timeout, Box::pin(dial)).await;
        let call = Call::new("stream", None);
        let socket = match dial {
            Ok(Ok((socket, _))) => socket,
            Ok(Err(WsError::Http(response))) => return Err(handshake_refused(call, &response)),
            Ok(Err(e)) => {
                return Err(VenueError::Transport { call, host, problem: chain(&e) });
            }
            Err(elapsed) => {
                return Err(VenueError::Transport { call, host, problem: elapsed.to_string() });
            }
        };
        let now = self.clock.now();
        self.socket = Some(socket);
        self.connected_at = now;
        self.last_frame = now;
        self.controls.clear();
        self.controls_sent.clear();
        let rest: Vec<Stream> = self.streams.iter().skip(IN_ADDRESS).cloned().collect();
        self.control("SUBSCRIBE", &rest);
        Ok(())
    }
}

fn handshake_refused(
    call: Call,
    response: &tokio_tungstenite::tungstenite::http::Response<Option<Vec<u8>>>,
) -> VenueError {
    let status = response.status().as_u16();
    let body = response.body().as_deref().unwrap_or_default();
    let class = match judge(status, None) {
        Verdict::TooMany | Verdict::Banned => {
            let seconds = response.headers().get("retry-after");
            let seconds = seconds.and_then(|v| v.to_str().ok()?.trim().parse().ok());
            Class::Rate { retry_after: Millis::from_secs(seconds.unwrap_or(60).max(1)) }
        }
        Verdict::Other(class) => class,
    };
    let msg = match String::from_utf8_lossy(&body[..body.len().min(480)]) {
        text if text.is_empty() => "the connection was not upgraded".into(),
        text => cut(&text, 120),
    };
    VenueError::Refused { call, status, code: None, msg, class }
}

fn check_count(count: usize) -> Result<(), VenueError> {
    if (1..=MAX_STREAMS).contains(&count) {
        return Ok(());
    }
    let problem = format!("{count} subscriptions, where a connection takes 1 to {MAX_STREAMS}");
    Err(VenueError::Invalid { call: Call::new("stream", None), problem })
}
