//! The simulator over real sockets, seen by plain clients.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use watchbell_clock::Clock;
use watchbell_core::{Millis, Time};
use watchbell_venues::sim::{Limits, Market, SimConfig, Simulator};

/// 2026-11-20T12:00:30Z.
const NOW: i64 = 1_795_176_030_000;
const MINUTE: i64 = 60_000;
/// The start of the open minute.
const OPEN: i64 = NOW - 30_000;

struct Site {
    sim: Simulator,
    clock: Clock,
    http: reqwest::Client,
}

struct Got {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
    fn opens(&self) -> Vec<i64> {
        let rows = self.json();
        rows.as_array().unwrap().iter().map(|r| r[0].as_i64().unwrap()).collect()
    }
}

impl Site {
    async fn start(faults: &str, limits: Limits) -> Self {
        let market = Market::synthetic(7, &["BTCUSDT", "ETHUSDT", "DOGEUSDT"]);
        Self::of(market, faults, limits).await
    }

    async fn of(market: Market, faults: &str, limits: Limits) -> Self {
        let clock = Clock::manual(Time(NOW));
        let config = SimConfig {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            market: Arc::new(market),
            clock: clock.clone(),
            faults: faults.parse().unwrap(),
            limits,
        };
        let sim = Simulator::start(config).await.unwrap();
        watchbell_venues::http::install_tls();
        Self { sim, clock, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    async fn with(faults: &str) -> Self {
        Self::start(faults, Limits::default()).await
    }

    async fn try_get(&self, path: &str) -> Result<Got, reqwest::Error> {
        let response = self.http.get(format!("{}{path}", self.sim.base_url())).send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Got { status, headers, body: response.text().await? })
    }

    async fn get(&self, path: &str) -> Got {
        self.try_get(path).await.unwrap()
    }
}

const KLINES: &str = "/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=10";

#[tokio::test]
async fn endpoints_have_the_venues_shapes() {
    let site = Site::with("").await;
    let time = site.get("/api/v3/time").await;
    assert_eq!(time.body, format!(r#"{{"serverTime":{NOW}}}"#));
    assert_eq!(time.header("content-type"), "application/json;charset=UTF-8");
    assert_eq!(time.header("x-mbx-used-weight-1m"), "1");
    assert_eq!(time.header("date"), "Fri, 20 Nov 2026 12:00:30 GMT");
    assert_eq!(site.get("/api/v3/ping").await.body, "{}");

    let info = site.get("/api/v3/exchangeInfo?symbol=BTCUSDT").await.json();
    assert_eq!(info["rateLimits"][0]["limit"], 6_000);
    assert_eq!(info["symbols"][0]["filters"][0]["tickSize"], "0.01000000");
    assert_eq!(info["symbols"][0]["filters"][1]["stepSize"], "0.00001000");
    assert_eq!(info["symbols"][0]["status"], "TRADING");
    assert_eq!(
        site.get("/api/v3/exchangeInfo").await.json()["symbols"].as_array().unwrap().len(),
        3
    );

    let klines = site.get(KLINES).await;
    let rows = klines.json();
    let last = &rows[9];
    assert_eq!(klines.opens()[9], OPEN);
    assert_eq!(last.as_array().unwrap().len(), 12);
    assert_eq!(last[6].as_i64(), Some(OPEN + MINUTE - 1));
    assert_eq!(last[11], "0");

    let depth = site.get("/api/v3/depth?symbol=DOGEUSDT&limit=7").await.json();
    assert_eq!(depth["bids"].as_array().unwrap().len(), 7);
    let top = site.get("/api/v3/ticker/bookTicker?symbol=DOGEUSDT").await.json();
    assert_eq!([&top["bidPrice"], &top["askQty"]], [&depth["bids"][0][0], &depth["asks"][0][1]]);

    let day = site.get("/api/v3/ticker/24hr?symbol=BTCUSDT").await;
    let order = [
        "symbol",
        "priceChange",
        "weightedAvgPrice",
        "prevClosePrice",
        "lastPrice",
        "bidPrice",
        "askQty",
        "openPrice",
        "lowPrice",
        "volume",
        "openTime",
        "count",
    ];
    let places: Vec<usize> =
        order.iter().map(|k| day.body.find(&format!("\"{k}\"")).unwrap()).collect();
    assert!(places.is_sorted(), "{}", day.body);
    let price = site.get("/api/v3/ticker/price?symbol=BTCUSDT").await.json();
    assert_eq!(price["price"], day.json()["lastPrice"]);
    assert_eq!(price["price"], last[4]);
    let many = site.get("/api/v3/ticker/price?symbols=%5B%22BTCUSDT%22,%22ETHUSDT%22%5D").await;
    assert_eq!(many.json().as_array().unwrap().len(), 2);
    assert_eq!(site.get("/api/v3/ticker/24hr?type=MINI").await.json().as_array().unwrap().len(), 3);
    assert_eq!(site.get("/api/v3/avgPrice?symbol=BTCUSDT").await.json()["mins"], 5);

    let trades = site.get("/api/v3/aggTrades?symbol=BTCUSDT&limit=3").await.json();
    let id = trades[0]["a"].as_i64().unwrap();
    let again = site.get(&format!("/api/v3/aggTrades?symbol=BTCUSDT&limit=3&fromId={id}")).await;
    assert_eq!(again.json(), trades);
    assert_eq!(trades[2]["p"], price["price"]);
    assert_eq!(site.get("/api/v3/trades?symbol=BTCUSDT&limit=2").await.json()[1]["id"], id + 2);
    assert_eq!(site.get("/api/v4/time").await.status, 404);

    let market = site.get("/sim/market").await.json();
    assert_eq!(
        (&market["kind"], market["symbols"].as_array().unwrap().len()),
        (&json!("synthetic"), 3)
    );
    let journal = site.get("/sim/journal?after=2").await.json();
    assert_eq!(journal["entries"][0]["seq"], 3);
    assert_eq!(journal["entries"][0]["target"], "/api/v3/exchangeInfo?symbol=BTCUSDT");
    site.sim.shutdown().await;
}

#[tokio::test]
async fn bad_parameters_are_refused_in_the_venues_words() {
    let site = Site::with("").await;
    let missing = "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.";
    for (path, code, text) in [
        ("klines?interval=1m", -1102, missing),
        ("klines?symbol=BTCUSDT", -1102, "Mandatory parameter 'interval'"),
        ("klines?symbol=btcusdt&interval=1m", -1100, "legal range is '^[A-Z0-9-_.]{1,20}$'."),
        ("klines?symbol=NOSUCH&interval=1m", -1121, "Invalid symbol."),
        ("klines?symbol=BTCUSDT&interval=1H", -1120, "Invalid interval."),
        ("klines?symbol=BTCUSDT&interval=1m&limit=0", -1130, "parameter 'limit' is not valid."),
        ("klines?symbol=BTCUSDT&interval=1m&limit=", -1105, "Parameter 'limit' was empty."),
        ("klines?symbol=BTCUSDT&interval=1m&startTime=x", -1100, "'startTime'"),
        ("klines?symbol=BTCUSDT&interval=1m&timeZone=15", -1130, "'timeZone'"),
        (
            "klines?symbol=BTCUSDT&interval=1m&page=2",
            -1104,
            "read '2' parameter(s) but was sent '3'",
        ),
        ("ping?x=1", -1101, "Too many parameters; expected '0' and received '1'."),
        ("ticker/price?symbol=BTCUSDT&symbols=%5B%22ETHUSDT%22%5D", -1128, "Combination"),
        ("aggTrades?symbol=BTCUSDT&fromId=1&startTime=2", -1128, "Combination"),
    ] {
        let got = site.get(&format!("/api/v3/{path}")).await;
        let body = got.json();
        assert_eq!((got.status, body["code"].as_i64()), (400, Some(code)), "{path}: {}", got.body);
        assert!(body["msg"].as_str().unwrap().contains(text), "{path}: {}", got.body);
    }
    // More than the most is cut to it, not refused.
    assert_eq!(
        site.get("/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=5000").await.opens().len(),
        1_000
    );
}

#[tokio::test]
async fn the_budget_refuses_then_bans_in_simulated_time() {
    let limits = Limits { weight_per_minute: 50, refused_before_ban: 2, ..Limits::default() };
    let site = Site::start("", limits).await;
    for used in (2..=50).step_by(2) {
        let got = site.get(KLINES).await;
        assert_eq!(
            (got.status, got.header("x-mbx-used-weight-1m")),
            (200, used.to_string().as_str())
        );
    }
    for _ in 0..2 {
        let got = site.get(KLINES).await;
        assert_eq!((got.status, got.header("retry-after")), (429, "30"));
        assert!(got.body.contains("current limit is 50 request weight per 1 MINUTE"));
    }
    let got = site.get(KLINES).await;
    assert_eq!((got.status, got.header("retry-after")), (418, "120"));
    assert!(got.body.contains(&format!("IP banned until {}", NOW + 120_000)), "{}", got.body);
    site.clock.advance(Time(NOW + 119_000));
    assert_eq!(site.get(KLINES).await.status, 418);
    site.clock.advance(Time(NOW + 120_000));
    assert_eq!(site.get(KLINES).await.status, 200);
    let state = site.sim.limiter_state(IpAddr::from([127, 0, 0, 1]));
    assert_eq!((state.used, state.bans, state.banned_until), (4, 1, None));
}

#[tokio::test]
async fn each_fault_does_what_it_says() {
    let site = Site::with("").await;
    let clean = site.get(KLINES).await.body;
    let set = |rule: &str| site.sim.set_faults(rule.parse().unwrap());
    for (rule, status, part) in [
        ("klines:429:retry=7", 429, "\"code\":-1003"),
        ("klines:503", 503, "\"code\":-1008"),
        ("klines:403", 403, "<html>"),
        ("klines:html", 502, "<html>"),
        ("klines:html:status=200", 200, "<html>"),
        ("klines:empty", 200, ""),
        ("klines:null", 200, "null"),
        ("klines:error-object", 200, "\"code\":-1001"),
    ] {
        set(rule);
        let got = site.get(KLINES).await;
        assert_eq!(got.status, status, "{rule}");
        assert!(got.body.contains(part), "{rule}: {}", got.body);
        assert_eq!(got.body.is_empty(), rule.ends_with("empty"));
        assert_eq!(site.get("/api/v3/ping").await.status, 200, "{rule} hits its endpoint alone");
    }
    for rule in ["klines:reset", "klines:reset-body", "klines:truncated", "*:down"] {
        set(rule);
        assert!(site.try_get(KLINES).await.is_err(), "{rule}");
    }
    set("klines:malformed");
    assert!(serde_json::from_str::<Value>(&site.get(KLINES).await.body).is_err());
    set("klines:duplicate");
    let opens = site.get(KLINES).await.opens();
    assert_eq!((opens.len(), opens[5]), (11, opens[6]));
    set("klines:unordered");
    assert!(!site.get(KLINES).await.opens().is_sorted());
    set("klines:outside");
    let from = format!("{KLINES}&startTime={}", OPEN - 5 * MINUTE);
    assert_eq!(site.get(&from).await.opens()[0], OPEN - 6 * MINUTE);
    set("klines:wrong-width");
    assert_eq!(site.get(KLINES).await.json()[9].as_array().unwrap().len(), 11);
    set("klines:number");
    assert!(site.get(KLINES).await.json()[0][1].is_number());
    set("klines:stale:ms=60000");
    assert_eq!(*site.get(KLINES).await.opens().last().unwrap(), OPEN - MINUTE);
    set("time:skew:ms=-7000");
    assert_eq!(site.get("/api/v3/time").await.json()["serverTime"], NOW - 7_000);
    set("*:halt:symbol=ETHUSDT");
    let info = site.get("/api/v3/exchangeInfo").await.json();
    assert_eq!([&info["symbols"][0]["status"], &info["symbols"][1]["status"]], ["TRADING", "HALT"]);
    let hole = format!("klines:missing:from={},to={}", OPEN - 4 * MINUTE, OPEN - 2 * MINUTE);
    set(&hole);
    let opens = site.get(KLINES).await.opens();
    // The venue passes over its hole: the page is still full.
    assert_eq!(opens.len(), 10);
    assert!(!opens.contains(&(OPEN - 4 * MINUTE)) && !opens.contains(&(OPEN - 3 * MINUTE)));
    set(&format!("{hole},heal=1"));
    assert!(!site.get(KLINES).await.opens().contains(&(OPEN - 3 * MINUTE)));
    assert_eq!(site.get(KLINES).await.body, clean);
    set("klines:revised");
    assert_ne!(site.get(KLINES).await.json()[8], serde_json::from_str::<Value>(&clean).unwrap()[8]);
    assert_eq!(site.get(KLINES).await.json()[2], serde_json::from_str::<Value>(&clean).unwrap()[2]);
    set("klines:500:n=1");
    assert_eq!(site.get(KLINES).await.status, 500);
    assert_eq!(site.get(KLINES).await.body, clean);
    let posted = site.http.post(format!("{}/sim/faults", site.sim.base_url()));
    let bad = posted.try_clone().unwrap().body("klines:nonsense").send().await.unwrap();
    assert_eq!(bad.status(), 400);
    assert!(bad.text().await.unwrap().contains("is not a kind; one of"));
    assert_eq!(posted.body("klines:ban:secs=60").send().await.unwrap().status(), 200);
    assert_eq!(site.get("/sim/faults").await.body, r#"["klines:ban:secs=60"]"#);
    assert_eq!(site.get(KLINES).await.header("retry-after"), "60");
    assert_eq!(site.get("/api/v3/ping").await.status, 418);
    let noted = site.sim.journal().after(0).into_iter().rev().find(|e| !e.faults.is_empty());
    assert_eq!(noted.unwrap().faults, ["klines:ban:secs=60"]);
}

/// A recording of three symbols: one to the end, one that stopped a day and an hour ago, one that
/// stopped an hour ago.
fn delistings() -> Market {
    let folder = tempfile::tempdir().unwrap();
    for (symbol, hours_ago) in [("AAAUSDT", 0), ("BBBUSDT", 25), ("CCCUSDT", 1)] {
        let mut csv = String::from("open_time_ms,open,high,low,close,volume\n");
        for i in 0..180 {
            let at = OPEN - hours_ago * 60 * MINUTE - (179 - i) * MINUTE;
            csv += &format!("{at},20,21,19,{}.5,3\n", 19 + i % 2);
        }
        std::fs::write(folder.path().join(format!("{symbol}-1m.csv")), csv).unwrap();
    }
    Market::recorded(folder.path()).unwrap()
}

#[tokio::test]
async fn a_symbol_that_stopped_trading_is_still_listed_and_answered() {
    let site = Site::of(delistings(), "", Limits::default()).await;
    let info = site.get("/api/v3/exchangeInfo").await.json();
    let status = |info: &Value| -> Vec<String> {
        let of = |s: &Value| format!("{} {}", s["symbol"], s["status"]).replace('"', "");
        info["symbols"].as_array().unwrap().iter().map(of).collect()
    };
    assert_eq!(status(&info), ["AAAUSDT TRADING", "BBBUSDT BREAK", "CCCUSDT TRADING"]);
    let info = site.get("/api/v3/exchangeInfo?symbolStatus=BREAK").await.json();
    assert_eq!(status(&info), ["BBBUSDT BREAK"]);

    // The list is whole; what stopped has zeros, and the price that it had.
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|t| t["symbol"].as_str().unwrap().to_owned()).collect()
    };
    let asked = "symbols=%5B%22BBBUSDT%22,%22AAAUSDT%22,%22CCCUSDT%22%5D";
    for path in ["24hr", "24hr?type=MINI", "price", "bookTicker"] {
        let join = if path.contains('?') { '&' } else { '?' };
        let some = site.get(&format!("/api/v3/ticker/{path}{join}{asked}")).await.json();
        assert_eq!(names(&some), ["BBBUSDT", "AAAUSDT", "CCCUSDT"], "{path}");
        let all = site.get(&format!("/api/v3/ticker/{path}")).await.json();
        assert_eq!(names(&all), ["AAAUSDT", "BBBUSDT", "CCCUSDT"], "{path}");
    }
    let day = site.get("/api/v3/ticker/24hr?symbol=BBBUSDT").await.json();
    assert_eq!(
        day,
        json!({
            "symbol": "BBBUSDT", "priceChange": "0.00000000", "priceChangePercent": "0.000",
            "weightedAvgPrice": "0.00000000", "prevClosePrice": "20.50000000",
            "lastPrice": "0.00000000", "lastQty": "0.00000000",
            "bidPrice": "0.00000000", "bidQty": "0.00000000",
            "askPrice": "0.00000000", "askQty": "0.00000000",
            "openPrice": "0.00000000", "highPrice": "0.00000000", "lowPrice": "0.00000000",
            "volume": "0.00000000", "quoteVolume": "0.00000000",
            "openTime": NOW - 1_440 * MINUTE, "closeTime": NOW,
            "firstId": -1, "lastId": -1, "count": 0,
        })
    );
    let recent = site.get("/api/v3/ticker/24hr?symbol=CCCUSDT").await.json();
    assert_eq!(
        (&recent["lastPrice"], recent["count"].as_i64() > Some(0)),
        (&json!("20.50000000"), true)
    );
    let price = site.get("/api/v3/ticker/price?symbol=BBBUSDT").await.json();
    assert_eq!(price["price"], "20.50000000", "the last one, however old");
    let book = site.get("/api/v3/depth?symbol=BBBUSDT").await.json();
    assert_eq!([&book["bids"], &book["asks"]], [&json!([]), &json!([])]);

    // A symbol that the venue does not know refuses the whole request.
    let refused = site.get("/api/v3/ticker/24hr?symbols=%5B%22AAAUSDT%22,%22NOPE%22%5D").await;
    assert_eq!(refused.body, r#"{"code":-1121,"msg":"Invalid symbol."}"#);
    assert_eq!(refused.status, 400);
    site.clock.advance(Time(NOW + 26 * 60 * MINUTE));
    let later = site.get("/api/v3/exchangeInfo").await.json();
    assert_eq!(status(&later), ["AAAUSDT BREAK", "BBBUSDT BREAK", "CCCUSDT BREAK"]);
}

#[tokio::test]
async fn a_list_of_tickers_may_be_short_by_the_script() {
    let site = Site::with("ticker/price:missing:symbol=ETHUSDT,heal=1").await;
    let asked = "/api/v3/ticker/price?symbols=%5B%22BTCUSDT%22,%22ETHUSDT%22%5D";
    assert_eq!(site.get("/api/v3/ticker/price?symbol=ETHUSDT").await.json()["symbol"], "ETHUSDT");
    let lengths = [site.get(asked).await, site.get(asked).await];
    assert_eq!(lengths.map(|got| got.json().as_array().unwrap().len()), [1, 2]);
    let day = site.get("/api/v3/ticker/24hr").await.json();
    assert_eq!(day.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn slow_and_missing_answers_pass_in_simulated_time() {
    let site = Site::with("klines:latency:ms=5000").await;
    let ask = site.try_get(KLINES);
    let advance = async {
        let due = site.clock.next_timer(Time(NOW + 1)).await;
        assert_eq!(due, Time(NOW + 5_000));
        site.clock.advance(due);
    };
    assert_eq!(tokio::join!(ask, advance).0.unwrap().status, 200);
    site.sim.set_faults("klines:timeout".parse().unwrap());
    let limit = site.clock.timeout(Millis::from_secs(60), site.try_get(KLINES));
    let advance = async {
        while site.sim.journal().last() < 2 {
            tokio::task::yield_now().await;
        }
        site.clock.advance(Time(NOW + 120_000));
    };
    assert!(tokio::join!(limit, advance).0.is_err());
}

type Socket =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn open(site: &Site, path: &str) -> Socket {
    let url = format!("{}{path}", site.sim.ws_url());
    tokio_tungstenite::connect_async(url).await.unwrap().0
}

async fn text(socket: &mut Socket) -> Option<Value> {
    loop {
        match socket.next().await? {
            Ok(Message::Text(t)) => return Some(serde_json::from_str(&t).unwrap()),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

async fn say(socket: &mut Socket, value: Value) -> Value {
    socket.send(Message::Text(value.to_string().into())).await.unwrap();
    text(socket).await.unwrap()
}

#[tokio::test]
async fn a_stream_dialogue() {
    let site = Site::with("").await;
    let mut ws = open(&site, "/stream").await;
    let params = json!(["btcusdt@kline_1m", "ethusdt@trade"]);
    let reply = say(&mut ws, json!({"method": "SUBSCRIBE", "params": params, "id": 1})).await;
    assert_eq!(reply, json!({"result": null, "id": 1}));
    let reply = say(&mut ws, json!({"method": "LIST_SUBSCRIPTIONS", "id": "a"})).await;
    assert_eq!(reply, json!({"result": params, "id": "a"}));
    let reply = say(&mut ws, json!({"method": "DANCE", "id": 2})).await;
    assert_eq!(reply["error"]["code"], 2);
    site.clock.advance(Time(NOW + 32_000));
    let (mut closed, mut trades) = (None, Vec::new());
    while closed.is_none() {
        let frame = text(&mut ws).await.unwrap();
        let data = &frame["data"];
        if frame["stream"] == "ethusdt@trade" {
            trades.push(data["t"].as_i64().unwrap());
        } else if data["k"]["x"] == true {
            closed = Some(data.clone());
        }
    }
    assert!(!trades.is_empty() && trades.windows(2).all(|w| w[0] + 1 == w[1]));
    let closed = closed.unwrap();
    let path = format!("/api/v3/klines?symbol=BTCUSDT&interval=1m&startTime={OPEN}&limit=1");
    let row = &site.get(&path).await.json()[0];
    let k = &closed["k"];
    let streamed = [
        &k["t"], &k["o"], &k["h"], &k["l"], &k["c"], &k["v"], &k["T"], &k["q"], &k["n"], &k["V"],
        &k["Q"],
    ];
    assert_eq!(streamed.to_vec(), row.as_array().unwrap()[..11].iter().collect::<Vec<_>>());
    assert!((5..200).contains(&(closed["E"].as_i64().unwrap() - OPEN - MINUTE)));
    site.sim.shutdown().await;
    let mut last = Value::Null;
    while let Some(frame) = text(&mut ws).await {
        last = frame;
    }
    assert_eq!(
        (&last["stream"], &last["data"]["e"]),
        (&json!("!serverShutdown"), &json!("serverShutdown"))
    );
}

#[tokio::test]
async fn raw_streams_and_their_faults() {
    let site = Site::with("stream:boundary").await;
    let mut ws = open(&site, "/ws/btcusdt@kline_1m").await;
    let mut book = open(&site, "/ws/dogeusdt@bookTicker").await;
    site.clock.next_timer(Time(NOW + 1_000)).await;
    site.clock.advance(Time(NOW + 40_000));
    while let Some(frame) = text(&mut ws).await {
        assert_eq!((&frame["e"], &frame["k"]["x"]), (&json!("kline"), &json!(false)));
    }
    let frame = text(&mut book).await.unwrap();
    let keys: Vec<&String> = frame.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 6);
    let events = site.sim.journal().after(0);
    assert!(events.iter().any(|e| e.target.contains("stream:boundary")));
    // More than five messages in a second end the connection.
    let mut rude = open(&site, "/ws").await;
    for id in 0..6 {
        let ask = json!({"method": "LIST_SUBSCRIPTIONS", "id": id}).to_string();
        rude.send(Message::Text(ask.into())).await.unwrap();
    }
    let mut answers = 0;
    while text(&mut rude).await.is_some() {
        answers += 1;
    }
    assert_eq!(answers, 5);
}
