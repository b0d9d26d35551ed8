//! The client against a venue that answers by script, on a clock that the test moves.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use watchbell_clock::Clock;
use watchbell_core::{Millis, Time};
use watchbell_venues::binance::wire::Interval;
use watchbell_venues::binance::{
    self, AggFrom, BinanceClient, CallRecord, CallStatus, Class, Config, VenueError,
};

/// 2020-05-06 04:44:00.5, half a second into the third minute of the page below.
const NOW: Time = Time(1_588_740_240_500);
/// Two closed minutes and the open one.
const PAGE: &str = r#"[[1588740120000,"9033.34","9039.99","9032.75","9033.15","31.1",1588740179999,"281893.0",282,"6.3","57447.2","0"],[1588740180000,"9033.15","9035.00","9012.00","9012.00","135.2",1588740239999,"1220631.0",864,"31.8","287831.9","0"],[1588740240000,"9012.00","9021.93","9006.84","9012.03","43.6",1588740299999,"393923.2",661,"17.4","157152.0","0"]]"#;

/// One scripted answer: status, headers, body. The body `hang` never comes.
type Answer = (u16, Vec<(&'static str, String)>, String);

fn ok(body: &str) -> Answer {
    (200, vec![], body.to_owned())
}
fn status(status: u16, body: &str) -> Answer {
    (status, vec![], body.to_owned())
}
fn with(answer: Answer, name: &'static str, value: &(impl ToString + ?Sized)) -> Answer {
    let (status, mut headers, body) = answer;
    headers.push((name, value.to_string()));
    (status, headers, body)
}

struct Venue {
    script: Mutex<VecDeque<Answer>>,
    seen: Mutex<Vec<String>>,
    clock: Clock,
    ahead: Millis,
}

impl Venue {
    /// Starts a venue whose clock is `ahead` of ours. The script is used up in order; the time
    /// endpoint answers beside it.
    async fn start(clock: &Clock, ahead: Millis, script: Vec<Answer>) -> (Arc<Self>, String) {
        let venue = Arc::new(Self {
            script: Mutex::new(script.into()),
            seen: Mutex::default(),
            clock: clock.clone(),
            ahead,
        });
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&venue));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (venue, url)
    }

    /// The requests so far, without those for the time.
    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn answer(State(venue): State<Arc<Venue>>, request: Request) -> Response<Body> {
    let uri = request.uri().to_string();
    if uri == "/api/v3/time" {
        let now = venue.clock.now() + venue.ahead;
        return Response::new(Body::from(format!("{{\"serverTime\":{}}}", now.0)));
    }
    venue.seen.lock().unwrap().push(uri.clone());
    let next = venue.script.lock().unwrap().pop_front();
    let (status, headers, body) = next.unwrap_or_else(|| panic!("no answer scripted for {uri}"));
    if body == "hang" {
        std::future::pending::<()>().await;
    }
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(Body::from(body)).unwrap()
}

/// The time limit is beyond every timer that a test lets pass.
fn config(url: &str) -> Config {
    Config { request_timeout: Millis::from_days(900), ..Config::at(url, "ws://127.0.0.1:1") }
}

fn client(url: &str, clock: &Clock) -> BinanceClient {
    BinanceClient::new(config(url), clock.clone(), None).unwrap()
}

/// Runs `work` and lets each timer pass as soon as it is armed, but not the time limits.
async fn drive<T>(clock: &Clock, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            at = clock.next_timer(clock.now()) => {
                if at - clock.now() < Millis::from_days(100) {
                    clock.advance(at);
                } else {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

async fn page(c: &BinanceClient) -> Result<binance::Page, VenueError> {
    c.klines("BTCUSDT", Interval::M1, None, None, 1_000).await
}

#[tokio::test]
async fn a_page_knows_what_is_closed_by_the_venues_clock() {
    // Our clock is ten seconds late: by it, the second minute is not over.
    let clock = Clock::manual(NOW - Millis::from_secs(10));
    let (venue, url) = Venue::start(&clock, Millis::from_secs(10), vec![ok(PAGE)]).await;
    let c = client(&url, &clock);
    let (start, end) = (Time(1_588_740_120_000), Time(1_588_743_720_000));
    let p = c.klines("BTCUSDT", Interval::M1, Some(start), Some(end), 500).await.unwrap();
    assert_eq!((p.rows.len(), p.closed().len(), p.server_time), (3, 2, NOW));
    assert_eq!(p.next_start(Interval::M1), Some(Time(1_588_740_240_000)));
    assert_eq!(p.open().unwrap().close, 9_012.03);
    assert_eq!(
        venue.seen(),
        [
            "/api/v3/klines?symbol=BTCUSDT&interval=1m&startTime=1588740120000&endTime=1588743720000&limit=500"
        ]
    );
    assert_eq!(c.skew().unwrap().offset, Millis::from_secs(10));
    assert_eq!(c.venue_now(), NOW);
}

#[tokio::test]
async fn transient_faults_are_retried_on_the_next_host() {
    let clock = Clock::manual(NOW);
    let html = with(status(502, "<html>Bad Gateway</html>"), "content-type", "text/html");
    let (first, url1) = Venue::start(&clock, Millis(0), vec![html, ok(PAGE), ok(PAGE)]).await;
    let (second, url2) = Venue::start(&clock, Millis(0), vec![ok(&PAGE[..200])]).await;
    let log: Arc<Mutex<Vec<CallRecord>>> = Arc::default();
    let sink = Arc::clone(&log);
    let config = Config { alternates: vec![url2.clone()], ..config(&url1) };
    let observer: binance::Observer = Arc::new(move |r| sink.lock().unwrap().push(r.clone()));
    let c = BinanceClient::new(config, clock.clone(), Some(observer)).unwrap();
    let p = drive(&clock, page(&c)).await.unwrap();
    assert_eq!(p.rows.len(), 3);
    assert_eq!((first.seen().len(), second.seen().len()), (2, 1));
    let waited = clock.now() - NOW;
    assert!(waited.0 >= 562 && waited.0 <= 938, "{waited}");
    // The host that answered stays the first choice.
    drive(&clock, page(&c)).await.unwrap();
    let log = log.lock().unwrap();
    let klines: Vec<_> = log.iter().filter(|r| r.call.endpoint == "klines").collect();
    let view: Vec<_> = klines
        .iter()
        .map(|r| (r.attempt, r.host == url1, r.status, r.http_status, r.rows))
        .collect();
    assert_eq!(
        view,
        [
            (1, true, CallStatus::Transient, Some(502), 0),
            (2, false, CallStatus::Transient, Some(200), 0),
            (3, true, CallStatus::Ok, Some(200), 3),
            (1, true, CallStatus::Ok, Some(200), 3),
        ]
    );
    assert!(klines[1].error.as_ref().unwrap().contains("EOF while parsing"));
}

#[tokio::test]
async fn answers_that_are_none_are_transient_and_say_why() {
    for (answer, want) in [
        (ok(""), "the body is empty"),
        (ok("<html>maintenance</html>"), "HTML where JSON was expected"),
        (ok("null"), "expected an array of candles"),
        (ok("{\"a\":1}"), "expected an array of candles"),
        (ok("[[1]]"), "row 0: 1 values where a candle has 12"),
        (ok(&PAGE.replacen("1588740120000", "1588740120", 1)), "is not on the 1m grid"),
        (ok(r#"{"code":-1000,"msg":"An unknown error"}"#), "code -1000: An unknown error"),
        (ok(r#"{"code":-9999,"msg":"?"}"#), "code -9999"),
        (status(503, r#"{"code":-1008,"msg":"Server is currently overloaded"}"#), "overloaded"),
        (status(500, ""), "status 500, no code: empty body"),
    ] {
        let clock = Clock::manual(NOW);
        let script = vec![answer.clone(), answer.clone(), answer];
        let (venue, url) = Venue::start(&clock, Millis(0), script).await;
        let c = client(&url, &clock);
        let e = drive(&clock, page(&c)).await.unwrap_err();
        let text = e.to_string();
        assert!(text.starts_with("binance klines BTCUSDT: ") && text.contains(want), "{text}");
        assert!(text.len() < 400, "{text}");
        assert_eq!(e.class(), Class::Transient);
        assert_eq!(venue.seen().len(), 3);
        assert_eq!(c.health(clock.now()).state, binance::State::Degraded);
    }
}

#[tokio::test]
async fn permanent_and_blocked_answers_are_not_retried() {
    let invalid = r#"{"code":-1121,"msg":"Invalid symbol."}"#;
    for (answer, class, state) in [
        (status(400, invalid), Class::Permanent, binance::State::Ok),
        (ok(invalid), Class::Permanent, binance::State::Ok),
        (status(404, ""), Class::Permanent, binance::State::Ok),
        (status(403, "<html>403 Forbidden</html>"), Class::Blocked, binance::State::Down),
        (status(451, ""), Class::Blocked, binance::State::Down),
    ] {
        let clock = Clock::manual(NOW);
        let (venue, url) = Venue::start(&clock, Millis(0), vec![answer]).await;
        let c = client(&url, &clock);
        let e = drive(&clock, page(&c)).await.unwrap_err();
        assert_eq!((e.class(), venue.seen().len()), (class, 1), "{e}");
        assert_eq!(c.health(clock.now()).state, state);
    }
}

#[tokio::test]
async fn after_429_nothing_is_sent_until_it_is_allowed() {
    let body = r#"{"code":-1003,"msg":"Too much request weight used"}"#;
    for (header, wait) in [(Some(23), 23), (None, 60)] {
        let clock = Clock::manual(NOW);
        let mut first = status(429, body);
        if let Some(seconds) = header {
            first = with(first, "retry-after", &seconds);
        }
        let (venue, url) = Venue::start(&clock, Millis(0), vec![first, ok(PAGE), ok(PAGE)]).await;
        let c = client(&url, &clock);
        let e = page(&c).await.unwrap_err();
        assert_eq!(e.class(), Class::Rate { retry_after: Millis::from_secs(wait) });
        clock.advance(NOW + Millis::from_secs(wait - 1));
        let held = page(&c.backfill()).await.unwrap_err();
        assert_eq!(held.class(), Class::Rate { retry_after: Millis::from_secs(1) });
        assert_eq!(venue.seen().len(), 1);
        assert_eq!(c.health(clock.now()).state, binance::State::Throttled);
        clock.advance(NOW + Millis::from_secs(wait));
        page(&c).await.unwrap();
        page(&c).await.unwrap();
        assert_eq!(c.health(clock.now()).state, binance::State::Ok);
        assert_eq!((venue.seen().len(), c.ban_state()), (3, None));
    }
}

#[tokio::test]
async fn a_ban_stops_every_clone_and_outlives_a_restart() {
    let clock = Clock::manual(NOW);
    let text = format!("Way too much; IP banned until {}. Please", (NOW + Millis(300_000)).0);
    let body = format!("{{\"code\":-1003,\"msg\":\"{text}\"}}");
    let by_header = with(status(418, &body), "retry-after", &120);
    for (answer, wait) in [(by_header, 120), (status(418, &body), 300), (status(418, ""), 120)] {
        let clock = Clock::manual(NOW);
        let (venue, url) = Venue::start(&clock, Millis(0), vec![answer, ok(PAGE)]).await;
        let c = client(&url, &clock);
        let e = page(&c).await.unwrap_err();
        let until = NOW + Millis::from_secs(wait);
        assert!(matches!(&e, VenueError::Banned { until: u, .. } if *u == until), "{e}");
        assert_eq!(c.ban_state(), Some(until));
        assert_eq!(c.health(clock.now()).state, binance::State::Banned);

        // The next process knows only what was stored.
        let restarted = client(&url, &clock);
        restarted.restore_ban(until);
        clock.advance(until - Millis(1));
        for c in [c.clone(), c.backfill(), restarted.clone()] {
            assert!(matches!(page(&c).await, Err(VenueError::Banned { .. })));
            assert_eq!(c.health(clock.now()).state, binance::State::Banned);
        }
        assert_eq!(venue.seen().len(), 1);
        clock.advance(until);
        page(&restarted).await.unwrap();
        assert_eq!(restarted.ban_state(), None);
    }
    let c = client("http://127.0.0.1:1", &clock);
    c.restore_ban(NOW);
    assert_eq!((c.ban_state(), c.health(NOW).state), (None, binance::State::Ok));
}

#[tokio::test]
async fn the_venues_count_fills_the_budget_and_the_next_minute_empties_it() {
    let clock = Clock::manual(NOW);
    let info = r#"{"timezone":"UTC","serverTime":1,"rateLimits":[{"rateLimitType":"REQUEST_WEIGHT","interval":"MINUTE","intervalNum":1,"limit":100}],"symbols":[{"symbol":"BTCUSDT","status":"NEW_WORD","baseAsset":"BTC","quoteAsset":"USDT","isSpotTradingAllowed":true,"filters":[{"filterType":"NOTIONAL","minNotional":"5.0"},{"filterType":"?","x":[]}]}]}"#;
    let used = |n: i64| with(ok(PAGE), "x-mbx-used-weight-1m", &n);
    let script =
        vec![with(ok(info), "X-MBX-USED-WEIGHT-1M", &58), used(60), used(79), used(3), used(5)];
    let (venue, url) = Venue::start(&clock, Millis(0), script).await;
    let c = client(&url, &clock);
    c.server_time().await.unwrap();
    let info = c.exchange_info().await.unwrap();
    assert!(!info.symbols[0].is_trading() && info.symbols[0].min_notional() == Some("5.0"));
    assert_eq!(c.limiter().used(), (58, 100));
    page(&c.backfill()).await.unwrap();
    // Backfill has its 60; live goes on to 80.
    let backfill = c.backfill();
    let waiting = tokio::spawn(async move { page(&backfill).await });
    clock.next_timer(clock.now()).await;
    page(&c).await.unwrap();
    assert_eq!(venue.seen().len(), 3);
    let c2 = c.clone();
    let live = tokio::spawn(async move { page(&c2).await });
    let minute = Time(1_588_740_300_000);
    assert_eq!(clock.next_timer(clock.now()).await, minute);
    tokio::task::yield_now().await;
    assert_eq!((venue.seen().len(), clock.now()), (3, NOW));
    clock.advance(minute);
    waiting.await.unwrap().unwrap();
    live.await.unwrap().unwrap();
    assert_eq!((venue.seen().len(), c.limiter().used()), (5, (5, 100)));
}

#[tokio::test]
async fn a_venue_that_does_not_answer_is_left_after_the_time_limit() {
    let clock = Clock::manual(NOW);
    let (_venue, url) = Venue::start(&clock, Millis(0), vec![ok("hang")]).await;
    let config = Config { tries: 1, request_timeout: Millis::from_secs(15), ..config(&url) };
    let c = BinanceClient::new(config, clock.clone(), None).unwrap();
    let task = tokio::spawn(async move { c.depth("BTCUSDT", 5).await });
    let limit = NOW + Millis::from_secs(15);
    assert_eq!(clock.next_timer(NOW).await, limit);
    clock.advance(limit);
    let e = task.await.unwrap().unwrap_err();
    assert_eq!(
        e.to_string(),
        format!("binance depth BTCUSDT: no answer from {url}: no answer within 15s")
    );
    assert_eq!(e.class(), Class::Transient);

    let c = client("http://127.0.0.1:1", &clock);
    let e = drive(&clock, c.server_time()).await.unwrap_err();
    assert!(e.to_string().contains("no answer from http://127.0.0.1:1: "), "{e}");
}

#[tokio::test]
async fn the_other_endpoints() {
    let clock = Clock::manual(NOW);
    let book =
        r#"{"symbol":"BTCUSDT","bidPrice":"1.5","bidQty":"1","askPrice":"2.5","askQty":"1"}"#;
    let trade = r#"{"a":7,"p":"1.5","q":"2","f":1,"l":2,"T":50,"m":true,"M":true}"#;
    let depth = r#"{"lastUpdateId":9,"bids":[["1.5","2"],["1.4","3"]],"asks":[["1.6","1"]]}"#;
    let script = vec![
        ok(book),
        ok(&format!("[{book},{}]", book.replace("BTC", "ETH"))),
        ok(&format!("[{trade}]")),
        ok(depth),
        ok("[]"),
    ];
    let (venue, url) = Venue::start(&clock, Millis(0), script).await;
    let c = client(&url, &clock);
    assert_eq!(c.book_ticker(&["BTCUSDT"]).await.unwrap()[0].mid(), Some(2.0));
    assert_eq!(c.book_ticker(&["BTCUSDT", "ETHUSDT"]).await.unwrap().len(), 2);
    let from = AggFrom::Time { start: Time(40), end: Some(Time(50)) };
    assert_eq!(c.agg_trades("BTCUSDT", from, 10).await.unwrap()[0].id, 7);
    assert_eq!(c.depth("BTCUSDT", 100).await.unwrap().bids, [(1.5, 2.0), (1.4, 3.0)]);
    assert_eq!(c.ticker_24h(&[]).await.unwrap(), []);
    assert_eq!(
        venue.seen(),
        [
            "/api/v3/ticker/bookTicker?symbol=BTCUSDT",
            "/api/v3/ticker/bookTicker?symbols=%5B%22BTCUSDT%22%2C%22ETHUSDT%22%5D",
            "/api/v3/aggTrades?symbol=BTCUSDT&startTime=40&endTime=50&limit=10",
            "/api/v3/depth?symbol=BTCUSDT&limit=100",
            "/api/v3/ticker/24hr",
        ]
    );
    assert_eq!(c.limiter().used().0, 2 + 4 + 4 + 5 + 80);
    for e in [
        c.depth("BTCUSDT", 0).await.unwrap_err(),
        c.klines("BTC\"USDT", Interval::M1, None, None, 5).await.unwrap_err(),
        c.klines("BTCUSDT", Interval::M1, None, None, 1_001).await.unwrap_err(),
        c.agg_trades("", AggFrom::Latest, 5).await.unwrap_err(),
    ] {
        assert_eq!(e.class(), Class::Permanent, "{e}");
        assert!(e.to_string().contains("not sent: "), "{e}");
    }
}

#[tokio::test]
async fn wrong_rows_of_the_other_endpoints_are_refused() {
    let trade = r#"{"a":7,"p":"1.5","q":"2","f":1,"l":2,"T":50,"m":true}"#;
    let clock = Clock::manual(NOW);
    let two = format!("[{trade},{trade}]");
    let early = format!("[{trade}]");
    let crossed = r#"{"lastUpdateId":9,"bids":[["1.6","2"]],"asks":[["1.6","1"]]}"#;
    let unordered = r#"{"lastUpdateId":9,"bids":[["1.4","2"],["1.5","2"]],"asks":[]}"#;
    let script = [&two[..], &early, crossed, unordered].map(ok).to_vec();
    let (_venue, url) = Venue::start(&clock, Millis(0), script).await;
    let c = BinanceClient::new(Config { tries: 1, ..config(&url) }, clock.clone(), None).unwrap();
    for (error, want) in [
        (c.agg_trades("A", AggFrom::Id(7), 10).await.unwrap_err(), "row 1: id 7 comes after 7"),
        (c.agg_trades("A", AggFrom::Id(8), 10).await.unwrap_err(), "is outside the asked range"),
        (c.depth("A", 5).await.unwrap_err(), "best bid 1.6 is not below best ask 1.6"),
        (c.depth("A", 5).await.unwrap_err(), "bid 1: 1.5 is out of order"),
    ] {
        assert!(error.to_string().contains(want), "{error}");
        assert_eq!(error.class(), Class::Transient);
    }
}

#[tokio::test]
async fn a_list_without_all_that_was_asked_is_refused_whole_and_says_who_is_missing() {
    let clock = Clock::manual(NOW);
    let book = |symbol: &str| {
        format!(
            r#"{{"symbol":"{symbol}","bidPrice":"1.5","bidQty":"1","askPrice":"2.5","askQty":"1"}}"#
        )
    };
    let cut = format!("[{},{}", book("A"), book("B"));
    let script =
        [format!("[{}]", book("B")), "[]".into(), book("B"), cut].map(|body| ok(&body)).to_vec();
    let (venue, url) = Venue::start(&clock, Millis(0), script).await;
    let c = BinanceClient::new(Config { tries: 3, ..config(&url) }, clock.clone(), None).unwrap();
    for (asked, missing, says) in [
        (
            &["A", "B", "C"][..],
            &["A", "C"][..],
            "A and 1 more were asked and are not in the answer",
        ),
        (&["A", "B"], &["A", "B"], "A and 1 more were asked"),
        (&["A"], &["A"], "binance bookTicker A: A was asked and is not in the answer"),
    ] {
        let error = c.book_ticker(asked).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(error.class(), Class::Transient);
        let VenueError::Incomplete { missing: named, .. } = error else { panic!("{error}") };
        assert_eq!(named, missing);
    }
    // The venue answered: it is not asked again, and is no worse for it.
    assert_eq!(venue.seen().len(), 3);
    assert_eq!(c.health(NOW).state, binance::State::Ok);
    // A list that breaks off names nobody.
    let c = BinanceClient::new(Config { tries: 1, ..config(&url) }, clock.clone(), None).unwrap();
    let error = c.book_ticker(&["A", "B", "C"]).await.unwrap_err();
    assert!(matches!(error, VenueError::Payload { .. }), "{error}");
}
