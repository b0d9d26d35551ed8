//! The streams against a WebSocket server that plays a script per connection.

use std::sync::{Arc, Mutex};

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{OriginalUri, State};
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc;
use watchbell_clock::Clock;
use watchbell_core::{Millis, Time};
use watchbell_venues::binance::wire::Interval;
use watchbell_venues::binance::{Class, Config, Stream, StreamEvent, Streams, VenueError};

const NOW: Time = Time(1_588_740_240_500);
const TRADE: &str = r#"{"stream":"bnbbtc@trade","data":{"e":"trade","E":1554076800945,"s":"BNBBTC","t":40756030,"p":"0.00426990","q":"33.82000000","T":1554076800940,"m":false,"M":true}}"#;

enum Step {
    Send(&'static str),
    Bytes,
    /// Sends a ping and waits for the pong with the same payload.
    Ping,
    /// Waits for this many text messages of the client.
    Receive(usize),
    Close,
    Hang,
}

struct Server {
    /// One script per connection; `None` refuses it with this status.
    scripts: Mutex<std::collections::VecDeque<Result<Vec<Step>, u16>>>,
    told: mpsc::UnboundedSender<String>,
}

async fn start(scripts: Vec<Result<Vec<Step>, u16>>) -> (Config, mpsc::UnboundedReceiver<String>) {
    let (told, heard) = mpsc::unbounded_channel();
    let server = Arc::new(Server { scripts: Mutex::new(scripts.into()), told });
    let app = axum::Router::new().fallback(accept).with_state(server);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let limit = Millis::from_days(900);
    (Config { request_timeout: limit, ..Config::at("http://127.0.0.1:1", url) }, heard)
}

async fn accept(
    State(server): State<Arc<Server>>,
    OriginalUri(uri): OriginalUri,
    upgrade: WebSocketUpgrade,
) -> Response {
    let script = server.scripts.lock().unwrap().pop_front().expect("a script per connection");
    server.told.send(uri.to_string()).unwrap();
    match script {
        Ok(steps) => upgrade.on_upgrade(move |socket| play(socket, steps, server)).into_response(),
        Err(status) => {
            (axum::http::StatusCode::from_u16(status).unwrap(), "refused").into_response()
        }
    }
}

async fn play(mut socket: WebSocket, steps: Vec<Step>, server: Arc<Server>) {
    for step in steps {
        match step {
            Step::Send(text) => socket.send(Message::text(text)).await.unwrap(),
            Step::Bytes => socket.send(Message::binary(vec![1, 2, 3])).await.unwrap(),
            Step::Ping => {
                socket.send(Message::Ping("20".into())).await.unwrap();
                let pong = socket.recv().await.unwrap().unwrap();
                assert_eq!(pong, Message::Pong("20".into()));
                server.told.send("pong".into()).unwrap();
            }
            Step::Receive(count) => {
                for _ in 0..count {
                    let Some(Ok(Message::Text(text))) = socket.recv().await else { return };
                    server.told.send(text.to_string()).unwrap();
                }
            }
            Step::Close => return,
            Step::Hang => std::future::pending().await,
        }
    }
}

fn trades() -> Vec<Stream> {
    vec![Stream::Trade("BNBBTC".into())]
}

fn reason(event: StreamEvent) -> String {
    match event {
        StreamEvent::Reconnected { reason, .. } | StreamEvent::Skipped { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

/// Takes the next event while the clock's nearest timer passes, but not silence or time limit.
async fn next(streams: &mut Streams, clock: &Clock) -> Result<StreamEvent, VenueError> {
    let mut work = std::pin::pin!(streams.next());
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            at = clock.next_timer(clock.now()) => {
                if at - clock.now() < Millis::from_secs(50) {
                    clock.advance(at);
                } else {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

#[tokio::test]
async fn data_pings_and_broken_frames() {
    let script = vec![
        Step::Send(TRADE),
        Step::Ping,
        Step::Send("{broken"),
        Step::Bytes,
        Step::Send("[1]"),
        Step::Send(r#"{"code":2,"msg":"Invalid request: no such stream"}"#),
        Step::Send(r#"{"error":{"code":3,"msg":"Invalid JSON"},"id":1}"#),
        Step::Send(TRADE),
        Step::Hang,
    ];
    let clock = Clock::manual(NOW);
    let (config, mut heard) = start(vec![Ok(script)]).await;
    let all = vec![
        Stream::Trade("BNBBTC".into()),
        Stream::Kline("BTCUSDT".into(), Interval::Month),
        Stream::BookTicker("BTCUSDT".into()),
        Stream::AggTrade("BTCUSDT".into()),
    ];
    let mut s = Streams::connect(config, clock.clone(), all).await.unwrap();
    assert_eq!(
        heard.recv().await.unwrap(),
        "/stream?streams=bnbbtc@trade/btcusdt@kline_1M/btcusdt@bookTicker/btcusdt@aggTrade"
    );
    assert!(matches!(s.next().await.unwrap(), StreamEvent::Trade(t) if t.id == 40_756_030));
    assert!(reason(s.next().await.unwrap()).contains("begins `{broken`"));
    assert_eq!(heard.recv().await.unwrap(), "pong");
    assert_eq!(reason(s.next().await.unwrap()), "a binary frame of 3 bytes");
    assert!(matches!(s.next().await.unwrap(), StreamEvent::Skipped { total: 3, .. }));
    for code in [2, 3] {
        let e = s.next().await.unwrap_err();
        assert!(matches!(&e, VenueError::Refused { code: Some(c), .. } if *c == code), "{e}");
        assert_eq!(e.class(), Class::Permanent);
    }
    assert!(matches!(s.next().await.unwrap(), StreamEvent::Trade(_)));
    assert_eq!(s.skipped(), 3);
}

#[tokio::test]
async fn a_lost_connection_comes_back_and_says_so() {
    let shutdown = r#"{"e":"serverShutdown","E":1}"#;
    let clock = Clock::manual(NOW);
    let scripts = vec![
        Ok(vec![Step::Send(TRADE), Step::Close]),
        Err(503),
        Err(502),
        Ok(vec![Step::Send(shutdown), Step::Hang]),
        Ok(vec![Step::Hang]),
        Ok(vec![Step::Send(TRADE), Step::Hang]),
    ];
    let (config, _heard) = start(scripts).await;
    let mut s = Streams::connect(config, clock.clone(), trades()).await.unwrap();
    assert!(matches!(s.next().await.unwrap(), StreamEvent::Trade(_)));
    let event = next(&mut s, &clock).await.unwrap();
    let StreamEvent::Reconnected { reason: why, attempts, silent_for } = event else { panic!() };
    assert!(why.contains("connection"), "{why}");
    // Half a second, then half a second and a second between the failed attempts.
    assert_eq!((attempts, silent_for), (3, clock.now() - NOW));
    assert!(silent_for.0 >= 1_500 && silent_for.0 <= 2_500, "{silent_for}");
    let why = reason(next(&mut s, &clock).await.unwrap());
    assert_eq!(why, "the venue announced its shutdown");

    // Silence: sixty seconds without any frame.
    let quiet_since = clock.now();
    let c = clock.clone();
    let task = tokio::spawn(async move {
        let event = next(&mut s, &c).await;
        (s, event)
    });
    let silence = quiet_since + Millis::from_secs(60);
    clock.next_timer(silence).await;
    clock.advance(silence);
    let (mut s, event) = task.await.unwrap();
    assert_eq!(reason(event.unwrap()), "silence for 1m");
    assert!(matches!(next(&mut s, &clock).await.unwrap(), StreamEvent::Trade(_)));
}

#[tokio::test]
async fn a_connection_is_renewed_before_the_venue_cuts_it() {
    let clock = Clock::manual(NOW);
    let (config, _heard) = start(vec![Ok(vec![Step::Hang]), Ok(vec![Step::Hang])]).await;
    let age = config.stream_max_age;
    let config = Config { stream_silence: Millis::from_days(9), ..config };
    let mut s = Streams::connect(config, clock.clone(), trades()).await.unwrap();
    let task = tokio::spawn(async move { s.next().await });
    assert_eq!(clock.next_timer(NOW).await, NOW + age);
    clock.advance(NOW + age);
    assert_eq!(reason(task.await.unwrap().unwrap()), "renewed after 23h50m");
}

#[tokio::test]
async fn a_venue_that_stays_away_is_reported_and_tried_on() {
    let clock = Clock::manual(NOW);
    let mut scripts = vec![Ok(vec![Step::Close])];
    scripts.extend((0..5).map(|_| Err(503)));
    scripts.extend([Err(403), Err(429), Ok(vec![Step::Hang])]);
    let (config, _heard) = start(scripts).await;
    let config = Config { stream_backoff_cap: Millis::from_secs(10), ..config };
    let mut s = Streams::connect(config, clock.clone(), trades()).await.unwrap();
    let e = next(&mut s, &clock).await.unwrap_err();
    assert_eq!(e.class(), Class::Transient);
    assert!(e.to_string().contains("status 503"), "{e}");
    assert_eq!(next(&mut s, &clock).await.unwrap_err().class(), Class::Blocked);
    let e = next(&mut s, &clock).await.unwrap_err();
    assert_eq!(e.class(), Class::Rate { retry_after: Millis::from_secs(60) });
    let limited = clock.now();
    let task = tokio::spawn(async move { s.next().await });
    let until = limited + Millis::from_secs(60);
    assert_eq!(clock.next_timer(limited).await, until);
    clock.advance(until);
    assert!(matches!(task.await.unwrap().unwrap(), StreamEvent::Reconnected { attempts: 8, .. }));
}

#[tokio::test]
async fn the_first_connection_and_the_number_of_streams_are_checked() {
    let clock = Clock::manual(NOW);
    let (config, _heard) = start(vec![Err(451)]).await;
    let e = Streams::connect(config.clone(), clock.clone(), trades()).await.unwrap_err();
    assert_eq!(e.class(), Class::Blocked);
    for count in [0, 1_025] {
        let many = (0..count).map(|i| Stream::Trade(format!("S{i}"))).collect();
        let e = Streams::connect(config.clone(), clock.clone(), many).await.unwrap_err();
        assert!(e.to_string().contains(&format!("{count} subscriptions")), "{e}");
    }
}

#[tokio::test]
async fn control_messages_keep_to_the_pace_of_the_venue() {
    let clock = Clock::manual(NOW);
    let (config, mut heard) =
        start(vec![Ok(vec![Step::Receive(7), Step::Send(TRADE), Step::Hang])]).await;
    let many: Vec<_> = (0..1_000).map(|i| Stream::Trade(format!("S{i}"))).collect();
    let mut s = Streams::connect(config, clock.clone(), many).await.unwrap();
    s.subscribe(&[Stream::Trade("BNBBTC".into()), Stream::Trade("S5".into())]).unwrap();
    s.unsubscribe(&[Stream::Trade("S7".into())]);
    assert_eq!(s.subscriptions().len(), 1_000);
    let address = heard.recv().await.unwrap();
    assert!(address.ends_with("/s99@trade") && address.starts_with("/stream?streams=s0@trade/"));
    let task = tokio::spawn(async move { s.next().await });
    let mut messages = vec![];
    for _ in 0..4 {
        messages.push(heard.recv().await.unwrap());
    }
    assert_eq!(clock.next_timer(NOW).await, NOW + Millis::from_secs(1));
    heard.try_recv().unwrap_err();
    clock.advance(NOW + Millis::from_secs(1));
    for _ in 0..3 {
        messages.push(heard.recv().await.unwrap());
    }
    assert!(matches!(task.await.unwrap().unwrap(), StreamEvent::Trade(_)));
    let first: serde_json::Value = serde_json::from_str(&messages[0]).unwrap();
    assert_eq!((&first["method"], &first["id"]), (&"SUBSCRIBE".into(), &1.into()));
    assert_eq!(first["params"].as_array().unwrap().len(), 200);
    let sixth: serde_json::Value = serde_json::from_str(&messages[5]).unwrap();
    assert_eq!(sixth["params"], serde_json::json!(["bnbbtc@trade"]));
    let last: serde_json::Value = serde_json::from_str(&messages[6]).unwrap();
    assert_eq!((&last["method"], &last["id"]), (&"UNSUBSCRIBE".into(), &7.into()));
}
