//! The native clients against an exchange that answers as the test says, on a clock that the test moves.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use watchbell_clock::Clock;
use watchbell_core::{Millis, Time};
use watchbell_venues::native::{
    BreakerState, BudgetStatus, Interval, NativeClient, NativeConfig, NativeError, Venue, Verdict,
};

/// 2026-11-22 13:20:30.
const NOW: Time = Time(1_795_353_630_000);
const HOUR: i64 = 3_600_000;
const BOOK: &str =
    r#"{"error":[],"result":{"XXBTZUSD":{"bids":[["100.0","1.0",1]],"asks":[["101.0","2.0",1]]}}}"#;

/// Status, headers, body. The body `hang` never comes, and `cut` breaks off.
#[derive(Debug, Clone)]
struct Answer(u16, Vec<(&'static str, String)>, String);

fn ok(body: impl Into<String>) -> Answer {
    Answer(200, vec![], body.into())
}
fn status(status: u16, body: &str) -> Answer {
    Answer(status, vec![], body.into())
}
fn with(Answer(status, mut headers, body): Answer, name: &'static str, value: &str) -> Answer {
    headers.push((name, value.to_owned()));
    Answer(status, headers, body)
}

/// What an exchange answers to its n-th request, by path and query.
type Script = Box<dyn Fn(usize, &str, &BTreeMap<String, String>) -> Answer + Send + Sync>;

struct Exchange {
    script: Script,
    seen: Mutex<Vec<String>>,
    clock: Clock,
}

impl Exchange {
    async fn start(
        clock: &Clock,
        script: impl Fn(usize, &str, &BTreeMap<String, String>) -> Answer + Send + Sync + 'static,
    ) -> (Arc<Self>, String) {
        let seen = Mutex::default();
        let exchange = Arc::new(Self { script: Box::new(script), seen, clock: clock.clone() });
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&exchange));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (exchange, url)
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn http_date(at: Time) -> String {
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap();
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

async fn answer(State(exchange): State<Arc<Exchange>>, request: Request) -> Response<Body> {
    let url = reqwest::Url::parse(&format!("http://x{}", request.uri())).unwrap();
    let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    let n = {
        let mut seen = exchange.seen.lock().unwrap();
        seen.push(request.uri().to_string());
        seen.len() - 1
    };
    assert!(request.headers()["user-agent"].to_str().unwrap().starts_with("watchbell/"));
    let Answer(status, headers, body) = (exchange.script)(n, url.path(), &query);
    let mut response = Response::builder().status(status);
    if !headers.iter().any(|(name, _)| *name == "date") {
        response = response.header("date", http_date(exchange.clock.now()));
    }
    for (name, value) in headers {
        response = response.header(name, value);
    }
    match body.as_str() {
        "hang" => std::future::pending().await,
        "cut" => response.header("content-length", "1000").body(Body::from("{")).unwrap(),
        _ => response.body(Body::from(body)).unwrap(),
    }
}

/// A client whose time limit is beyond every timer that [`drive`] lets pass.
fn client(venue: Venue, url: &str, clock: &Clock) -> NativeClient {
    let config = NativeConfig {
        base_url: url.into(),
        timeout: Millis::from_days(900),
        ..NativeConfig::of(venue)
    };
    NativeClient::new(venue, config, clock.clone()).unwrap()
}

/// Runs `work`, which must not wait for anything.
pub(crate) async fn at_once<T>(clock: &Clock, work: impl Future<Output = T>) -> T {
    let now = clock.now();
    let done = drive(clock, work).await;
    assert_eq!(clock.now() - now, Millis::ZERO, "it waited");
    done
}

/// Runs `work` and lets each timer pass as soon as it is armed, but not the time limits.
pub(crate) async fn drive<T>(clock: &Clock, work: impl Future<Output = T>) -> T {
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

#[tokio::test]
async fn each_exchange_is_asked_in_its_own_way() {
    let bars_and_book: [(Venue, &str, [&str; 4]); 4] = [
        (
            Venue::Kraken,
            "XBTUSD",
            [
                "/0/public/AssetPairs",
                "/0/public/Ticker",
                "/0/public/OHLC?pair=XBTUSD&interval=60",
                "/0/public/Depth?pair=XBTUSD&count=500",
            ],
        ),
        (
            Venue::Okx,
            "BTC-USDT",
            [
                "/api/v5/public/instruments?instType=SPOT",
                "/api/v5/market/tickers?instType=SPOT",
                "/api/v5/market/candles?instId=BTC-USDT&bar=1H&limit=25",
                "/api/v5/market/books?instId=BTC-USDT&sz=400",
            ],
        ),
        (
            Venue::Coinbase,
            "BTC-USD",
            [
                "/products",
                "",
                // Exactly the last 24 closed hours; both ends are inclusive.
                "/products/BTC-USD/candles?granularity=3600&start=2026-11-21T13%3A00%3A00Z&end=2026-11-22T12%3A00%3A00Z",
                "/products/BTC-USD/book?level=2",
            ],
        ),
        (
            Venue::Binance,
            "BTCUSDT",
            [
                "/api/v3/exchangeInfo",
                "/api/v3/ticker/24hr",
                "/api/v3/klines?symbol=BTCUSDT&interval=1h&limit=25",
                "/api/v3/depth?symbol=BTCUSDT&limit=1000",
            ],
        ),
    ];
    for (venue, symbol, want) in bars_and_book {
        let clock = Clock::manual(NOW);
        let (exchange, url) = Exchange::start(&clock, move |_, path, query| {
            ok(match path.rsplit('/').next().unwrap() {
                "AssetPairs" => r#"{"error":[],"result":{}}"#.to_owned(),
                "Ticker" => r#"{"error":[],"result":{}}"#.to_owned(),
                "OHLC" => r#"{"error":[],"result":{"XXBTZUSD":[],"last":0}}"#.into(),
                "Depth" => BOOK.into(),
                "instruments" | "tickers" => r#"{"code":"0","msg":"","data":[]}"#.into(),
                "candles" if path.starts_with("/api/v5") => {
                    let length = if query["bar"] == "1H" { HOUR } else { 24 * HOUR };
                    let open = NOW.floor(Millis(length)).0;
                    format!(r#"{{"code":"0","data":[["{open}","1","1","1","1","1","1","1","0"]]}}"#)
                }
                "books" => {
                    r#"{"code":"0","data":[{"bids":[],"asks":[],"ts":"1795353630000"}]}"#.into()
                }
                "book" => r#"{"bids":[],"asks":[]}"#.into(),
                "depth" => r#"{"lastUpdateId":1,"bids":[],"asks":[]}"#.into(),
                "exchangeInfo" => r#"{"symbols":[]}"#.into(),
                "products" | "24hr" | "klines" | "candles" => "[]".into(),
                other => panic!("{other}"),
            })
        })
        .await;
        let c = client(venue, &url, &clock);
        assert_eq!(c.venue(), venue);
        assert_eq!(at_once(&clock, c.listings()).await.unwrap().value, []);
        match at_once(&clock, c.tickers()).await {
            Ok(tickers) => assert_eq!(tickers.value, []),
            Err(e) => assert_eq!((venue, e.kind()), (Venue::Coinbase, "unsupported")),
        }
        let bars = at_once(&clock, c.bars(symbol, Interval::Hour, 24)).await.unwrap();
        assert_eq!((bars.value.len(), bars.asked_at, bars.latency), (0, NOW, Millis::ZERO));
        let book = at_once(&clock, c.book(symbol)).await.unwrap();
        assert_eq!((book.value.venue(), book.value.symbol()), (venue, symbol));
        assert_eq!(book.value.taken_at(), NOW);
        let want: Vec<&str> = want.into_iter().filter(|w| !w.is_empty()).collect();
        assert_eq!(exchange.seen(), want);
        let days = at_once(&clock, c.bars(symbol, Interval::Day, 5)).await.unwrap();
        assert_eq!(days.value, []);
        let last = exchange.seen().pop().unwrap();
        let day = ["interval=1440", "bar=1Dutc", "granularity=86400", "interval=1d"];
        assert!(last.contains(day[Venue::ALL.iter().position(|v| *v == venue).unwrap()]), "{last}");
    }
}

/// Rows of a market that has existed for `age` hours, without those of `gaps`, by start in hours.
fn hours(now: Time, age: i64, gaps: std::ops::Range<i64>) -> Vec<i64> {
    let open = now.0 / HOUR;
    (open - age..=open).filter(|h| !gaps.contains(&(open - h))).collect()
}

/// Coinbase's and OKX's ways of handing out pages.
fn page(venue: Venue, all: &[i64], query: &BTreeMap<String, String>) -> Answer {
    let newest_first = all.iter().rev();
    if venue == Venue::Coinbase {
        let at = |key: &str| Time::parse(&query[key]).unwrap().0 / HOUR;
        let (start, end) = (at("start"), at("end"));
        if end - start >= 300 {
            return status(400, r#"{"message":"Count of aggregations requested exceeds 300"}"#);
        }
        // Two rows of before the start, as it sometimes does.
        let rows = newest_first.filter(|h| (start - 2..=end).contains(h));
        let rows: Vec<String> =
            rows.map(|h| format!("[{},1,3,2,{},10]", h * 3_600, 1 + h % 3)).collect();
        return ok(format!("[{}]", rows.join(",")));
    }
    let limit: usize = query["limit"].parse().unwrap();
    assert!(limit <= 300);
    let after = query.get("after").map_or(i64::MAX, |ts| ts.parse().unwrap());
    let open = *all.last().unwrap();
    let rows = newest_first.filter(|h| **h * HOUR < after).take(limit);
    let rows: Vec<String> = rows
        .map(|h| {
            let (ts, close, confirm) = (h * HOUR, 1 + h % 3, i32::from(*h != open));
            format!(r#"["{ts}","2","3","1","{close}","10","20","20","{confirm}"]"#)
        })
        .collect();
    ok(format!(r#"{{"code":"0","msg":"","data":[{}]}}"#, rows.join(",")))
}

#[tokio::test]
async fn seven_hundred_and_twenty_hours_are_several_pages() {
    let open = NOW.0 / HOUR;
    for venue in [Venue::Coinbase, Venue::Okx] {
        for (age, gaps, count, have, pages) in [
            (5_000, 0..0, 720, 720, 3),
            (5_000, 0..0, 300, 300, if venue == Venue::Okx { 2 } else { 1 }),
            (5_000, 0..0, 24, 24, 1),
            (5_000, 0..0, 1_440, 1_440, 5),
            // A market of 400 hours.
            (400, 0..0, 720, 400, 3),
            // Without trades for a fortnight: an empty page is no end at Coinbase.
            (5_000, 200..800, 1_440, 840, if venue == Venue::Okx { 3 } else { 5 }),
        ] {
            let clock = Clock::manual(NOW);
            let all = hours(NOW, age, gaps.clone());
            let answers = all.clone();
            let (exchange, url) =
                Exchange::start(&clock, move |_, _, query| page(venue, &answers, query)).await;
            let c = client(venue, &url, &clock);
            let symbol = if venue == Venue::Okx { "BTC-USDT" } else { "BTC-USD" };
            let bars = at_once(&clock, c.bars(symbol, Interval::Hour, count)).await.unwrap().value;
            let got: Vec<i64> = bars.iter().map(|b| b.open_time.0 / HOUR).collect();
            let first = open - i64::try_from(count).unwrap();
            let want: Vec<i64> = all.into_iter().filter(|h| (first..open).contains(h)).collect();
            assert_eq!(got, want, "{venue} {count} of {age} without {gaps:?}");
            assert_eq!((got.len(), exchange.count()), (have, pages), "{venue} {count} of {age}");
            assert!(bars.iter().all(|b| b.close == (1 + b.open_time.0 / HOUR % 3) as f64));
        }
    }
}

#[tokio::test]
async fn a_page_that_goes_round_in_circles_is_refused() {
    let clock = Clock::manual(NOW);
    let all = hours(NOW, 5_000, 0..0);
    // The newest rows, whatever is asked.
    let (exchange, url) = Exchange::start(&clock, move |_, _, query| {
        let mut query = query.clone();
        query.remove("after");
        page(Venue::Okx, &all, &query)
    })
    .await;
    let c = client(Venue::Okx, &url, &clock);
    let error = drive(&clock, c.bars("BTC-USDT", Interval::Hour, 720)).await.unwrap_err();
    assert_eq!(error.kind(), "payload");
    assert!(error.to_string().contains("where older than"), "{error}");
    assert_eq!(exchange.count(), 5, "one page, and four tries of the second");
}

#[tokio::test]
async fn closed_is_what_was_closed_by_both_clocks() {
    let rows = |n: i64| {
        let open = NOW.0 / HOUR;
        let rows: Vec<String> =
            (0..n).map(|i| format!("[{},1,3,2,2,10]", (open - i) * 3_600)).collect();
        format!("[{}]", rows.join(","))
    };
    // Our clock, the Date of the answer and its age against 13:00:00, all at 13:00:00.
    let sharp = Time(NOW.0 / HOUR * HOUR);
    for (name, ours, date, age, newest) in [
        ("both there", 0, 0, "0", -1),
        ("ours a second late", -1_000, 0, "0", -2),
        ("ours a second early", 1_000, -1_000, "0", -2),
        ("from a cache of a minute ago", 30_000, 30_000, "60", -2),
        ("from a cache of a minute ago, after the hour", 90_000, 90_000, "60", -1),
    ] {
        let clock = Clock::manual(sharp + Millis(ours));
        let made = http_date(sharp + Millis(date));
        let (_exchange, url) = Exchange::start(&clock, move |_, _, _| {
            with(with(ok(rows(5)), "date", &made), "age", age)
        })
        .await;
        let c = client(Venue::Coinbase, &url, &clock);
        let bars = at_once(&clock, c.bars("BTC-USD", Interval::Hour, 4)).await.unwrap();
        let last = bars.value.last().unwrap().open_time;
        assert_eq!((last - sharp).0 / HOUR, newest, "{name}");
    }
    // A clock that is far behind ours: nobody knows which of them is right.
    let clock = Clock::manual(NOW);
    let old = http_date(NOW - Millis::from_mins(11));
    let (_exchange, url) =
        Exchange::start(&clock, move |_, _, _| with(ok(rows(5)), "date", &old)).await;
    let c = client(Venue::Coinbase, &url, &clock);
    let error = drive(&clock, c.bars("BTC-USD", Interval::Hour, 4)).await.unwrap_err();
    assert!(
        error.to_string().contains("the clock of the exchange shows 2026-11-22T13:09:30Z, ours")
    );
}

#[tokio::test]
async fn krakens_tickers_go_by_the_names_of_its_requests() {
    let clock = Clock::manual(NOW);
    let (exchange, url) = Exchange::start(&clock, |_, path, _| {
        ok(if path.ends_with("AssetPairs") {
            r#"{"error":[],"result":{"XXBTZUSD":{"altname":"XBTUSD","wsname":"XBT/USD","aclass_base":"currency","base":"XXBT","quote":"ZUSD","status":"online"}}}"#
        } else {
            r#"{"error":[],"result":{"XXBTZUSD":{"c":["5","1"],"v":["1","2"],"p":["4","4.5"]},"NEWUSD":{"c":["5","1"],"v":["1","2"],"p":["4","4.5"]}}}"#
        })
    })
    .await;
    let c = client(Venue::Kraken, &url, &clock);
    for _ in 0..2 {
        let tickers = at_once(&clock, c.tickers()).await.unwrap().value;
        let symbols: Vec<&str> = tickers.iter().map(|t| t.symbol.as_str()).collect();
        assert_eq!(symbols, ["XBTUSD", "NEWUSD"]);
    }
    let ticker = "/0/public/Ticker";
    assert_eq!(exchange.seen(), ["/0/public/AssetPairs", ticker, ticker], "learned once");
}

#[tokio::test]
async fn bad_moments_are_tried_again() {
    for bad in [
        status(503, "<html>unavailable</html>"),
        status(520, ""),
        ok(""),
        ok("<html>maintenance</html>"),
        ok("null"),
        ok(&BOOK[..40]),
        ok(r#"{"error":["EService:Busy"]}"#),
        ok(r#"{"error":["EGeneral:Internal error"]}"#),
        ok("cut"),
    ] {
        let clock = Clock::manual(NOW);
        let first = bad.clone();
        let (exchange, url) =
            Exchange::start(&clock, move |n, _, _| if n < 2 { first.clone() } else { ok(BOOK) })
                .await;
        let c = client(Venue::Kraken, &url, &clock);
        let book = drive(&clock, c.book("XBTUSD")).await.unwrap();
        assert_eq!((book.value.bids().len(), exchange.count()), (1, 3), "{bad:?}");
        // 1.5 s and 3 s, a quarter more or less each; the latency is that of the last try alone.
        let waited = clock.now() - NOW;
        assert!(waited >= Millis(3_375) && waited <= Millis(5_625), "{waited}");
        assert_eq!((book.asked_at, book.latency), (clock.now(), Millis::ZERO));
        let health = c.health();
        assert_eq!((health.requests, health.budget.used_today), (3, 3));
        // The waits are the same in every run.
        let again = Clock::manual(NOW);
        let first = bad.clone();
        let (_exchange, url) =
            Exchange::start(&again, move |n, _, _| if n < 2 { first.clone() } else { ok(BOOK) })
                .await;
        let c = client(Venue::Kraken, &url, &again);
        drive(&again, c.book("XBTUSD")).await.unwrap();
        assert_eq!(again.now() - NOW, waited);
    }
}

#[tokio::test]
async fn tries_are_counted() {
    let clock = Clock::manual(NOW);
    let (exchange, url) = Exchange::start(&clock, |_, _, _| status(502, "<html>")).await;
    let config = NativeConfig { consecutive: 100, ..config(Venue::Kraken, &url) };
    let c = NativeClient::new(Venue::Kraken, config, clock.clone()).unwrap();
    let error = drive(&clock, c.book("XBTUSD")).await.unwrap_err();
    assert_eq!((error.kind(), exchange.count()), ("refused", 5));
    assert_eq!(error.to_string(), "kraken book XBTUSD: refused with status 502: <html>");
    let waited = clock.now() - NOW;
    // 1.5, 3, 6 and 12 s.
    assert!(waited >= Millis(16_875) && waited <= Millis(28_125), "{waited}");
}

fn config(venue: Venue, url: &str) -> NativeConfig {
    let timeout = Millis::from_days(900);
    NativeConfig { base_url: url.into(), timeout, ..NativeConfig::of(venue) }
}

#[tokio::test]
async fn some_errors_stay() {
    for (venue, answer, kind, words) in [
        (
            Venue::Kraken,
            ok(r#"{"error":["EQuery:Unknown asset pair"]}"#),
            "not_listed",
            "asset pair",
        ),
        (Venue::Kraken, ok(r#"{"error":["EGeneral:Invalid arguments"]}"#), "refused", "arguments"),
        (Venue::Kraken, status(414, "<html>414"), "refused", "status 414"),
        (Venue::Kraken, status(403, "<html>denied"), "refused", "denied"),
        (
            Venue::Okx,
            ok(r#"{"code":"51001","msg":"Instrument ID doesn't exist.","data":[]}"#),
            "not_listed",
            "51001 Instrument",
        ),
        (
            Venue::Okx,
            status(400, r#"{"code":"51000","msg":"Parameter bar error","data":[]}"#),
            "refused",
            "51000",
        ),
        (Venue::Okx, status(403, "<html>"), "refused", "status 403"),
        (Venue::Coinbase, status(404, r#"{"message":"NotFound"}"#), "not_listed", "NotFound"),
        (
            Venue::Coinbase,
            status(400, r#"{"message":"Unsupported granularity"}"#),
            "refused",
            "granularity",
        ),
        (
            Venue::Binance,
            status(400, r#"{"code":-1121,"msg":"Invalid symbol."}"#),
            "not_listed",
            "-1121 Invalid symbol.",
        ),
        (
            Venue::Binance,
            status(400, r#"{"code":-1100,"msg":"Illegal characters"}"#),
            "refused",
            "-1100",
        ),
        (Venue::Binance, status(451, ""), "refused", "empty body"),
    ] {
        let clock = Clock::manual(NOW);
        let (exchange, url) = Exchange::start(&clock, move |_, _, _| answer.clone()).await;
        let c = client(venue, &url, &clock);
        let error = at_once(&clock, c.book("X")).await.unwrap_err();
        assert_eq!((error.kind(), exchange.count()), (kind, 1), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.call().to_string(), format!("{venue} book X"));
        assert_eq!(c.health().breaker, BreakerState::Closed);
    }
    // What no exchange can have is not even asked.
    let clock = Clock::manual(NOW);
    let (exchange, url) = Exchange::start(&clock, |_, _, _| ok("{}")).await;
    let c = client(Venue::Coinbase, &url, &clock);
    for symbol in ["", "..", "../x", "A/B", "BTC USD", "BTC?x", &"A".repeat(51)] {
        assert_eq!(c.book(symbol).await.unwrap_err().kind(), "not_listed", "{symbol}");
    }
    for count in [0, 1_441] {
        let error = at_once(&clock, c.bars("BTC-USD", Interval::Hour, count)).await.unwrap_err();
        assert_eq!(error.kind(), "unsupported");
    }
    assert_eq!(exchange.count(), 0);
}

#[tokio::test]
async fn too_many_requests_pause_everybody() {
    let rate = r#"{"code":"50011","msg":"Too Many Requests","data":[]}"#;
    let throttled = format!(r#"{{"error":["EService:Throttled: {}"]}}"#, NOW.0 / 1_000 + 9);
    for (venue, answer, at_least, at_most) in [
        (Venue::Kraken, ok(r#"{"error":["EGeneral:Too many requests"]}"#), 5_000, 5_000),
        (Venue::Kraken, ok(r#"{"error":["EAPI:Rate limit exceeded"]}"#), 5_000, 5_000),
        (Venue::Kraken, ok(throttled), 9_000, 9_000),
        (Venue::Kraken, with(status(429, "slow down"), "retry-after", "7"), 7_000, 7_000),
        (Venue::Okx, ok(rate), 2_000, 2_000),
        (Venue::Okx, status(429, rate), 2_000, 2_000),
        (Venue::Coinbase, status(429, r#"{"message":"Public rate limit exceeded"}"#), 1_000, 1_000),
        (
            Venue::Binance,
            with(status(429, r#"{"code":-1003,"msg":"x"}"#), "retry-after", "3"),
            3_000,
            3_000,
        ),
        // Neither of these is about the rate, and neither stays.
        (Venue::Coinbase, status(401, "Unauthorized"), 375, 625),
        (
            Venue::Okx,
            status(429, r#"{"code":"50013","msg":"Systems are busy","data":[]}"#),
            225,
            375,
        ),
    ] {
        let clock = Clock::manual(NOW);
        let bad = answer.clone();
        let good = match venue {
            Venue::Kraken => BOOK,
            Venue::Okx => r#"{"code":"0","data":[{"bids":[],"asks":[],"ts":"1795353630000"}]}"#,
            Venue::Coinbase => r#"{"bids":[],"asks":[]}"#,
            Venue::Binance => r#"{"lastUpdateId":1,"bids":[],"asks":[]}"#,
        };
        let (exchange, url) =
            Exchange::start(&clock, move |n, _, _| if n == 0 { bad.clone() } else { ok(good) })
                .await;
        let c = client(venue, &url, &clock);
        let symbol = if venue == Venue::Kraken { "XBTUSD" } else { "BTC-USD" };
        drive(&clock, c.book(symbol)).await.unwrap_or_else(|e| panic!("{answer:?}: {e}"));
        let waited = (clock.now() - NOW).0;
        assert!(waited >= at_least && waited <= at_most, "{answer:?}: {waited}");
        assert_eq!((exchange.count(), c.health().breaker), (2, BreakerState::Closed));
    }

    // A long pause is the caller's to wait for, and holds for all clones.
    let clock = Clock::manual(NOW);
    let (exchange, url) =
        Exchange::start(&clock, |_, _, _| with(status(429, ""), "retry-after", "90")).await;
    let c = client(Venue::Okx, &url, &clock);
    let until = NOW + Millis::from_secs(90);
    for (client, words) in [(&c, "empty body"), (&c.slowly(), "not sent")] {
        match at_once(&clock, client.book("BTC-USDT")).await.unwrap_err() {
            NativeError::RateLimited { until: at, retry_after, detail, .. } => {
                assert_eq!(
                    (at, retry_after, detail.as_str()),
                    (until, Millis::from_secs(90), words)
                );
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(exchange.count(), 1);
    assert_eq!(c.health().verdict, Verdict::Healthy, "one request says nothing");
}

#[tokio::test]
async fn a_ban_stops_everything_for_two_minutes_at_least() {
    for (header, seconds) in [(None, 120), (Some("30"), 120), (Some("600"), 600)] {
        let clock = Clock::manual(NOW);
        let (exchange, url) = Exchange::start(&clock, move |n, _, _| match header {
            _ if n > 0 => ok(r#"{"lastUpdateId":1,"bids":[],"asks":[]}"#),
            Some(value) => {
                with(status(418, r#"{"code":-1003,"msg":"banned"}"#), "retry-after", value)
            }
            None => status(418, ""),
        })
        .await;
        let c = client(Venue::Binance, &url, &clock);
        assert_eq!(c.book("BTCUSDT").await.unwrap_err().kind(), "banned");
        let until = NOW + Millis::from_secs(seconds);
        clock.advance(until - Millis(1));
        assert_eq!(c.book("BTCUSDT").await.unwrap_err().kind(), "banned");
        assert_eq!(c.health().verdict, Verdict::Unhealthy);
        // Nor does a restart help.
        let restarted = client(Venue::Binance, &url, &clock);
        restarted.restore(c.spent());
        assert_eq!(restarted.book("BTCUSDT").await.unwrap_err().kind(), "banned");
        assert_eq!(exchange.count(), 1);
        clock.advance(until);
        at_once(&clock, c.book("BTCUSDT")).await.unwrap();
        assert_eq!(exchange.count(), 2);
    }
}

#[tokio::test]
async fn an_open_breaker_sends_nothing_and_tries_one_at_a_time() {
    let clock = Clock::manual(NOW);
    let healed = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let well = Arc::clone(&healed);
    let (exchange, url) = Exchange::start(&clock, move |_, _, _| {
        if well.load(std::sync::atomic::Ordering::SeqCst) { ok(BOOK) } else { status(503, "") }
    })
    .await;
    let c = client(Venue::Kraken, &url, &clock);
    // Three failures in a row open it: two tries of this request are left, and are not sent.
    let error = drive(&clock, c.book("XBTUSD")).await.unwrap_err();
    assert_eq!((error.kind(), exchange.count()), ("refused", 3));
    assert_eq!(c.health().breaker, BreakerState::Open);
    for client in [&c, &c.clone(), &c.slowly()] {
        let before = clock.now();
        let error = at_once(&clock, client.book("XBTUSD")).await.unwrap_err();
        assert_eq!((error.kind(), clock.now()), ("circuit_open", before), "{error}");
        assert!(error.to_string().contains("the next try is at 2026-11-22T13:2"), "{error}");
    }
    assert_eq!(exchange.count(), 3);

    let until = |error: NativeError| match error {
        NativeError::CircuitOpen { until, .. } => until.unwrap(),
        other => panic!("{other}"),
    };
    clock.advance(until(at_once(&clock, c.book("XBTUSD")).await.unwrap_err()));
    let tried = clock.now();
    let error = drive(&clock, c.book("XBTUSD")).await.unwrap_err();
    assert_eq!((error.kind(), exchange.count()), ("refused", 4), "one try, and no second");
    let next = until(at_once(&clock, c.book("XBTUSD")).await.unwrap_err());
    assert_eq!(next - tried, Millis::from_secs(90), "twice as long");
    clock.advance(next - Millis(1));
    assert_eq!(until(at_once(&clock, c.book("XBTUSD")).await.unwrap_err()), next);
    clock.advance(next);
    healed.store(true, std::sync::atomic::Ordering::SeqCst);
    for state in [BreakerState::HalfOpen, BreakerState::HalfOpen, BreakerState::Closed] {
        at_once(&clock, c.book("XBTUSD")).await.unwrap();
        assert_eq!(c.health().breaker, state);
    }
    assert_eq!(exchange.count(), 7);
}

#[tokio::test]
async fn no_answer_and_no_connection_are_told_apart() {
    let clock = Clock::manual(NOW);
    let (exchange, url) = Exchange::start(&clock, |_, _, _| ok("hang")).await;
    let short =
        NativeConfig { timeout: Millis::from_secs(2), retries: 0, ..config(Venue::Okx, &url) };
    let c = NativeClient::new(Venue::Okx, short, clock.clone()).unwrap();
    let work = c.book("BTC-USDT");
    let error = {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => break done.unwrap_err(),
                at = clock.next_timer(clock.now()) => {
                    // The limit runs from sending, so the request must have come first.
                    if exchange.count() == 1 { clock.advance(at) } else { tokio::task::yield_now().await }
                }
            }
        }
    };
    assert_eq!(error.kind(), "timeout");
    assert_eq!(error.to_string(), format!("okx book BTC-USDT: no answer from {url} within 2s"));
    assert_eq!(c.health().p99_ms, Some(Millis::from_secs(2)));

    let nobody = NativeConfig { retries: 0, ..config(Venue::Okx, "http://127.0.0.1:1") };
    let c = NativeClient::new(Venue::Okx, nobody, clock.clone()).unwrap();
    let error = at_once(&clock, c.book("BTC-USDT")).await.unwrap_err();
    assert_eq!(error.kind(), "transport");
    assert!(error.to_string().contains("http://127.0.0.1:1: "), "{error}");
    assert_eq!((c.health().p99_ms, c.health().error_ratio), (None, Some(1.0)));
}

#[tokio::test]
async fn the_budget_ends_at_midnight() {
    let clock = Clock::manual(NOW);
    let (exchange, url) = Exchange::start(&clock, |_, _, _| ok(BOOK)).await;
    let small = NativeConfig { daily_budget: 5, ..config(Venue::Kraken, &url) };
    let c = NativeClient::new(Venue::Kraken, small, clock.clone()).unwrap();
    let mut status = Vec::new();
    for _ in 0..5 {
        at_once(&clock, c.book("XBTUSD")).await.unwrap();
        status.push(c.health().budget.status);
    }
    use BudgetStatus::{Active, LimitReached, Warning};
    assert_eq!(status, [Active, Active, Active, Warning, LimitReached]);
    let error = at_once(&clock, c.book("XBTUSD")).await.unwrap_err();
    assert_eq!(error.kind(), "budget_spent");
    assert!(
        error
            .to_string()
            .contains("daily budget of 5 requests is used up until 2026-11-23T00:00:00Z")
    );
    assert_eq!(c.health().verdict, Verdict::Unhealthy);
    clock.advance(Time::parse("2026-11-23").unwrap());
    at_once(&clock, c.book("XBTUSD")).await.unwrap();
    assert_eq!((exchange.count(), c.spent().this_month), (6, 6));
}

#[tokio::test]
async fn warm_work_goes_at_half_the_rate() {
    let clock = Clock::manual(NOW);
    let at: Arc<Mutex<Vec<i64>>> = Arc::default();
    let (times, seen_at) = (clock.clone(), Arc::clone(&at));
    let (_exchange, url) = Exchange::start(&clock, move |_, _, _| {
        seen_at.lock().unwrap().push((times.now() - NOW).0);
        ok(BOOK)
    })
    .await;
    let c = client(Venue::Kraken, &url, &clock);
    let slow = c.slowly();
    for _ in 0..6 {
        drive(&clock, slow.book("XBTUSD")).await.unwrap();
    }
    assert_eq!(*at.lock().unwrap(), [0, 0, 2_000, 4_000, 6_000, 8_000]);
    at.lock().unwrap().clear();
    // Of the exchange's own bucket, only the last of these is missing: fourteen go at once, then one a
    // second.
    let begin = (clock.now() - NOW).0;
    for _ in 0..16 {
        drive(&clock, c.book("XBTUSD")).await.unwrap();
    }
    let at: Vec<i64> = at.lock().unwrap().iter().map(|t| t - begin).collect();
    assert_eq!((at[13], at[14], at[15]), (0, 1_000, 2_000));
}
