//! The simulators of Kraken, OKX and Coinbase over real sockets, seen by plain clients.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::{Millis, Time};
use watchbell_venues::native::Venue;
use watchbell_venues::sim::{Market, VenueLimits, VenueSim, VenueSimConfig};

/// 2026-11-20T12:00:30Z.
const NOW: i64 = 1_795_176_030_000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// The start of the open hour.
const OPEN: i64 = NOW - 30_000;
const THREE: [Venue; 3] = [Venue::Kraken, Venue::Okx, Venue::Coinbase];

/// Open time, and open, high, low, close and volume.
type Row = (i64, [f64; 5]);

struct Site {
    sim: VenueSim,
    clock: Clock,
    http: reqwest::Client,
}

struct Got {
    status: u16,
    kind: String,
    body: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

impl Site {
    async fn start(venue: Venue, market: &Arc<Market>, faults: &str, limits: VenueLimits) -> Self {
        let clock = Clock::manual(Time(NOW));
        let config = VenueSimConfig {
            venue,
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            market: Arc::clone(market),
            clock: clock.clone(),
            faults: faults.parse().unwrap(),
            limits,
        };
        let sim = VenueSim::start(config).await.unwrap();
        watchbell_venues::http::install_tls();
        let http = reqwest::Client::builder().no_proxy().user_agent("a test").build().unwrap();
        Self { sim, clock, http }
    }

    async fn of(venue: Venue, market: &Arc<Market>) -> Self {
        Self::start(venue, market, "", VenueLimits::none()).await
    }

    async fn try_get(&self, path: &str) -> Result<Got, reqwest::Error> {
        let response = self.http.get(format!("{}{path}", self.sim.base_url())).send().await?;
        let status = response.status().as_u16();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        Ok(Got { status, kind, body: response.text().await? })
    }

    async fn get(&self, path: &str) -> Got {
        self.try_get(path).await.unwrap()
    }

    fn faults(&self, script: &str) {
        self.sim.set_faults(script.parse().unwrap());
    }

    /// Candles of an asset, oldest first; the last one may be open.
    async fn candles(&self, base: &str, length: i64) -> Vec<Row> {
        let got = self.get(&candles_path(self.sim.venue(), base, length)).await.json();
        let mut rows = rows_of(self.sim.venue(), &got);
        if self.sim.venue() != Venue::Kraken {
            rows.reverse();
        }
        let order = match self.sim.venue() {
            Venue::Coinbase => [3, 2, 1, 4, 5],
            Venue::Kraken => [1, 2, 3, 4, 6],
            Venue::Okx | Venue::Binance => [1, 2, 3, 4, 5],
        };
        let unit = if self.sim.venue() == Venue::Okx { 1 } else { 1_000 };
        rows.iter().map(|r| (number(&r[0]) as i64 * unit, order.map(|i| number(&r[i])))).collect()
    }
}

fn candles_path(venue: Venue, base: &str, length: i64) -> String {
    match venue {
        Venue::Kraken => format!("/0/public/OHLC?pair={base}/USD&interval={}", length / MINUTE),
        Venue::Okx => {
            let bar = match length {
                MINUTE => "1m",
                HOUR => "1H",
                DAY => "1Dutc",
                _ => "4H",
            };
            format!("/api/v5/market/candles?instId={base}-USDT&bar={bar}&limit=300")
        }
        Venue::Coinbase | Venue::Binance => {
            format!("/products/{base}-USD/candles?granularity={}", length / 1_000)
        }
    }
}

fn book_path(venue: Venue, base: &str) -> String {
    match venue {
        Venue::Kraken => format!("/0/public/Depth?pair={base}/USD&count=500"),
        Venue::Okx => format!("/api/v5/market/books?instId={base}-USDT&sz=400"),
        Venue::Coinbase | Venue::Binance => format!("/products/{base}-USD/book?level=2"),
    }
}

/// The list in an answer of candles.
fn rows_of(venue: Venue, answer: &Value) -> Vec<Value> {
    let rows = match venue {
        Venue::Kraken => {
            let result = answer["result"].as_object().unwrap();
            result.iter().find(|(key, _)| *key != "last").unwrap().1
        }
        Venue::Okx => &answer["data"],
        Venue::Coinbase | Venue::Binance => answer,
    };
    rows.as_array().unwrap().clone()
}

/// Bids and asks as price and size.
fn book_of(venue: Venue, answer: &Value) -> [Vec<(f64, f64)>; 2] {
    let book = match venue {
        Venue::Kraken => answer["result"].as_object().unwrap().values().next().unwrap(),
        Venue::Okx => &answer["data"][0],
        Venue::Coinbase | Venue::Binance => answer,
    };
    ["bids", "asks"].map(|side| {
        let levels = book[side].as_array().unwrap();
        levels.iter().map(|l| (number(&l[0]), number(&l[1]))).collect()
    })
}

fn universe(count: usize) -> Arc<Market> {
    Arc::new(Market::synthetic_universe(7, count))
}

fn number(v: &Value) -> f64 {
    v.as_f64().unwrap_or_else(|| v.as_str().unwrap().parse().unwrap())
}

/// The folder of recordings, where it exists.
fn recordings() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/data");
    dir.is_dir().then_some(dir)
}

fn recording(dir: &Path, name: &str) -> String {
    let raw = std::fs::read(dir.join(name)).unwrap();
    if Path::new(name).extension().is_some_and(|e| e == "gz") {
        let mut out = String::new();
        flate2::read::GzDecoder::new(&raw[..]).read_to_string(&mut out).unwrap();
        return out;
    }
    String::from_utf8(raw).unwrap()
}

/// The names of a JSON text in the order in which they stand.
fn names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut parts = text.split('"');
    parts.next();
    while let (Some(word), Some(after)) = (parts.next(), parts.next()) {
        if after.trim_start().starts_with(':') {
            names.push(word.to_owned());
        }
    }
    names
}

/// What a value is made of: a text that is a number with its count of decimals, a list by its first.
fn shape(v: &Value) -> Value {
    match v {
        Value::Array(list) => list.first().map_or(json!([]), |first| match first {
            Value::Array(_) | Value::Object(_) => json!([shape(first)]),
            _ => list.iter().map(shape).collect(),
        }),
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), shape(v))).collect(),
        Value::String(text) => match text.split_once('.') {
            Some((_, part)) if text.parse::<f64>().is_ok() => {
                json!(format!("text .{}", part.len()))
            }
            _ => json!("text"),
        },
        Value::Number(_) => json!("number"),
        Value::Bool(_) | Value::Null => json!("word"),
    }
}

#[tokio::test]
async fn kraken_prints_as_recorded() {
    let site = Site::of(Venue::Kraken, &universe(20)).await;
    let info = site.get("/0/public/AssetPairs?pair=XBTUSD,XDGUSD,SOLUSD,ETH/USD").await.json();
    let pairs = info["result"].as_object().unwrap();
    let keys: Vec<&String> = pairs.keys().collect();
    assert_eq!(keys, ["SOLUSD", "XDGUSD", "XETHZUSD", "XXBTZUSD"]);
    let bitcoin = &pairs["XXBTZUSD"];
    for (field, value) in [
        ("altname", json!("XBTUSD")),
        ("wsname", json!("XBT/USD")),
        ("base", json!("XXBT")),
        ("quote", json!("ZUSD")),
        ("pair_decimals", json!(1)),
        ("tick_size", json!("0.1")),
        ("status", json!("online")),
    ] {
        assert_eq!(bitcoin[field], value);
    }
    assert_eq!(pairs["XDGUSD"]["base"], "XXDG");
    let time = site.get("/0/public/Time").await;
    assert_eq!(
        time.body,
        r#"{"error":[],"result":{"unixtime":1795176030,"rfc1123":"Fri, 20 Nov 26 12:00:30 +0000"}}"#
    );
    assert_eq!(time.kind, "application/json");
    let Some(dir) = recordings() else { return };
    // The recordings are of one pair against a dollar coin, whose name is theirs.
    for (path, name) in [
        ("Time", "http_server_time.json"),
        ("SystemStatus", "http_system_status.json"),
        ("Ticker?pair=XBTUSD", "http_ticker.json"),
        ("OHLC?pair=XBTUSD", "http_ohlc.json.gz"),
        ("Depth?pair=XBTUSD", "http_order_book.json"),
        ("Trades?pair=XBTUSD", "http_trades.json.gz"),
    ] {
        let ours = site.get(&format!("/0/public/{path}")).await.body;
        let theirs =
            recording(&dir, &format!("kraken/fixtures/{name}")).replace("XBTUSDT", "XXBTZUSD");
        assert_eq!(names(&ours), names(&theirs), "{path}");
        let parse = |text: &str| shape(&serde_json::from_str(text).unwrap());
        let mut recorded = parse(&theirs);
        if path.starts_with("OHLC") {
            // The first recorded minute had no trade, and so no mean price.
            recorded["result"]["XXBTZUSD"][0][5] = json!("text .1");
        }
        assert_eq!(parse(&ours), recorded, "{path}");
    }
    let ours = names(&site.get("/0/public/AssetPairs?pair=SOLUSD").await.body);
    let newer = names(&recording(&dir, "kraken/fixtures/http_asset_pairs.json"));
    let mut left = newer.iter();
    for name in ours.iter().filter(|n| *n != "SOLUSD") {
        assert!(left.any(|n| n == name), "{name} is not where it was recorded");
    }
    let quiet = r#"[1,"2","2","2","2","0.0","0.00000000",0]"#;
    let small = site.sim.market().symbols().last().unwrap().base.clone();
    let body = site.get(&format!("/0/public/OHLC?pair={small}/USD")).await.body;
    assert!(body.contains(&quiet[quiet.len() - 23..]), "no minute without trades");
}

#[tokio::test]
async fn okx_prints_as_recorded() {
    let site = Site::of(Venue::Okx, &universe(20)).await;
    let time = site.get("/api/v5/public/time").await.body;
    assert_eq!(time, r#"{"code":"0","msg":"","data":[{"ts":"1795176030000"}]}"#);
    let candles = site.get(&candles_path(Venue::Okx, "BTC", HOUR)).await.json();
    assert_eq!(candles["data"][0][8], "0");
    assert_eq!(candles["data"][1][8], "1");
    let interest = "/api/v5/public/open-interest?instType=SWAP&instId=ETH-USDT-SWAP";
    assert!(number(&site.get(interest).await.json()["data"][0]["oiCcy"]) > 0.0);
    let Some(dir) = recordings() else { return };
    for (path, name) in [
        ("market/candles?instId=BTC-USDT&limit=2", "http_get_candlesticks_full.json"),
        ("market/books?instId=BTC-USDT&sz=3", "http_get_order_book.json"),
        ("market/trades?instId=BTC-USDT&limit=2", "http_get_trades.json"),
        (
            "public/funding-rate-history?instId=BTC-USDT-SWAP&limit=2",
            "http_get_funding_rate_history.json",
        ),
    ] {
        let ours = site.get(&format!("/api/v5/{path}")).await.body;
        let theirs = recording(&dir, &format!("okx/fixtures/{name}"));
        assert_eq!(names(&ours), names(&theirs), "{path}");
        let width = |text: &str| {
            let row = serde_json::from_str::<Value>(text).unwrap()["data"][0].take();
            (row.as_array().map(Vec::len), row["asks"][0].as_array().map(Vec::len))
        };
        assert_eq!(width(&ours), width(&theirs), "{path}");
    }
    let ours = site.get("/api/v5/public/instruments?instType=SPOT&instId=ETH-USDT").await.body;
    let theirs = recording(&dir, "okx/fixtures/http_get_instruments_spot.json");
    assert_eq!(names(&ours), names(&theirs)[..names(&ours).len()]);
    let samples: Vec<Value> =
        serde_json::from_str(&recording(&dir, "okx/rest/samples-v5-public.json")).unwrap();
    for path in
        ["market/tickers?instType=SPOT", "public/funding-rate?instId=BTC-USDT-SWAP", &interest[8..]]
    {
        let called = format!("/api/v5/{}", path.split('?').next().unwrap());
        let sample = samples.iter().find(|s| s["path"] == called.as_str()).unwrap();
        let ours = site.get(&format!("/api/v5/{path}")).await.json();
        for (field, value) in sample["body"]["data"][0].as_object().unwrap() {
            assert_eq!(value.is_string(), ours["data"][0][field].is_string(), "{path} {field}");
        }
    }
}

#[tokio::test]
async fn coinbase_prints_as_recorded() {
    let site = Site::of(Venue::Coinbase, &universe(20)).await;
    let time = site.get("/time").await;
    assert_eq!(time.body, r#"{"iso":"2026-11-20T12:00:30.000Z","epoch":1795176030.000}"#);
    let ticker = site.get("/products/BTC-USD/ticker").await.body;
    assert_eq!(names(&ticker), ["ask", "bid", "volume", "trade_id", "price", "size", "time"]);
    let stats = site.get("/products/BTC-USD/stats").await.body;
    assert_eq!(names(&stats), ["open", "high", "low", "last", "volume", "volume_30day"]);
    let book = site.get("/products/BTC-USD/book").await.json();
    assert_eq!(shape(&book["bids"]), json!([["text .2", "text .6", "number"]]));
    let trades = site.get("/products/BTC-USD/trades?limit=3").await.json();
    assert_eq!(trades.as_array().unwrap().len(), 3);
    assert!(trades[0]["trade_id"].as_i64() > trades[1]["trade_id"].as_i64());
    let nameless = reqwest::Client::builder().no_proxy().build().unwrap();
    let got = nameless.get(format!("{}/time", site.sim.base_url())).send().await.unwrap();
    assert_eq!(got.status().as_u16(), 400);
    let Some(dir) = recordings() else { return };
    let theirs = recording(&dir, "coinbase/rest/exchange-products.json");
    let ours = site.get("/products").await.body;
    let one = names(&ours);
    assert_eq!(one[..17], names(&theirs)[..17]);
    let theirs: Vec<[f64; 6]> = serde_json::from_str(&recording(
        &dir,
        "coinbase/rest/exchange-candles-BTC-USD-1d-2026.json",
    ))
    .unwrap();
    let ours: Vec<[f64; 6]> =
        serde_json::from_str(&site.get(&candles_path(Venue::Coinbase, "BTC", DAY)).await.body)
            .unwrap();
    for rows in [&theirs, &ours] {
        assert!(rows.windows(2).all(|w| w[0][0] - w[1][0] == 86_400.0));
        assert!(rows.iter().all(|r| r[1] <= r[3].min(r[4]) && r[2] >= r[3].max(r[4])));
    }
}

#[tokio::test]
async fn an_asset_is_the_same_at_all_venues_but_for_a_few_basis_points() {
    let market = universe(30);
    let mut seen: BTreeMap<String, Vec<(Venue, Vec<Row>)>> = BTreeMap::new();
    for venue in THREE {
        let site = Site::of(venue, &market).await;
        for spec in market.symbols() {
            if site.get(&book_path(venue, &spec.base)).await.body.contains("asks") {
                let mut rows = site.candles(&spec.base, HOUR).await;
                rows.retain(|r| (OPEN - 48 * HOUR..OPEN).contains(&r.0));
                seen.entry(spec.base.clone()).or_default().push((venue, rows));
            }
        }
    }
    assert_eq!(seen["BTC"].len(), 3);
    let listed = |venue| seen.values().filter(|v| v.iter().any(|(at, _)| *at == venue)).count();
    assert_eq!(listed(Venue::Kraken), 30);
    for venue in [Venue::Okx, Venue::Coinbase] {
        assert!((12..28).contains(&listed(venue)), "{venue}: {}", listed(venue));
    }
    let (mut above, mut pairs) = (0, 0);
    for (base, venues) in &seen {
        let (_, kraken) = &venues[0];
        for (venue, rows) in &venues[1..] {
            assert_eq!(rows.len(), 48, "{base} at {venue}");
            for ((t, ours), (also, theirs)) in kraken.iter().zip(rows) {
                assert_eq!(t, also);
                // 2.5 basis points each, a premium of 4, and a step of the price.
                let bound = 9.0e-4 * ours[3] + 3e-8;
                assert!((ours[3] - theirs[3]).abs() <= bound, "{base} at {venue}");
                if *venue == Venue::Okx {
                    (above, pairs) = (above + u32::from(theirs[3] > ours[3]), pairs + 1);
                    assert!(theirs[4] > 1.9 * ours[4], "{base}: {ours:?} {theirs:?}");
                }
            }
        }
    }
    assert!(above * 2 > pairs, "a dollar coin costs a little more than a dollar");
}

#[tokio::test]
async fn larger_candles_are_made_of_smaller_ones() {
    let market = universe(30);
    for venue in THREE {
        let site = Site::of(venue, &market).await;
        let steps = [(MINUTE, HOUR), (HOUR, if venue == Venue::Coinbase { DAY } else { 4 * HOUR })];
        for (small, large) in steps {
            for base in ["BTC", "DOGE"] {
                let parts = site.candles(base, small).await;
                let wholes = site.candles(base, large).await;
                let mut checked = 0;
                for (open, whole) in wholes {
                    let of = |(t, _): &&Row| (open..open + large).contains(t);
                    let parts: Vec<_> = parts.iter().filter(of).map(|(_, c)| c).collect();
                    if parts.len() as i64 != large / small || open + large > OPEN {
                        continue;
                    }
                    let high = parts.iter().map(|c| c[1]).fold(0.0, f64::max);
                    let low = parts.iter().map(|c| c[2]).fold(f64::MAX, f64::min);
                    let volume: f64 = parts.iter().map(|c| c[4]).sum();
                    assert_eq!((parts[0][0], high, low), (whole[0], whole[1], whole[2]));
                    assert_eq!(parts[parts.len() - 1][3], whole[3]);
                    assert!((volume / whole[4] - 1.0).abs() < 1e-9);
                    checked += 1;
                }
                assert!(checked > 2, "{venue} {base} {large}: {checked}");
            }
        }
    }
}

#[tokio::test]
async fn kraken_pages_have_720_closed_candles_at_most() {
    let site = Site::of(Venue::Kraken, &universe(12)).await;
    let got = site.get("/0/public/OHLC?pair=XBTUSD&interval=60").await.json();
    let rows = rows_of(Venue::Kraken, &got);
    assert_eq!(rows.len(), 721);
    assert_eq!(rows[720][0], OPEN / 1_000);
    assert_eq!(got["result"]["last"], (OPEN - HOUR) / 1_000);
    assert!(
        rows.windows(2).all(|w| w[1][0].as_i64().unwrap() - w[0][0].as_i64().unwrap() == 3_600)
    );
    // Asking for more does not help, and asking for news gives nothing else.
    let ages =
        format!("/0/public/OHLC?pair=XBTUSD&interval=60&since={}", (OPEN - 99 * DAY) / 1_000);
    assert_eq!(rows_of(Venue::Kraken, &site.get(&ages).await.json()).len(), 721);
    let news = format!("/0/public/OHLC?pair=XBTUSD&interval=60&since={}", (OPEN - HOUR) / 1_000);
    assert_eq!(rows_of(Venue::Kraken, &site.get(&news).await.json()).len(), 1);
    for (ask, error) in [
        ("OHLC?pair=NOPE", "EQuery:Unknown asset pair"),
        ("OHLC?pair=XBTUSD.d", "EQuery:Unknown asset pair"),
        ("OHLC", "EGeneral:Invalid arguments"),
        ("OHLC?pair=XBTUSD&interval=7", "EGeneral:Invalid arguments"),
        ("Depth?pair=XBTUSD&count=501", "EGeneral:Invalid arguments"),
        ("Everything", "EGeneral:Unknown method"),
    ] {
        let got = site.get(&format!("/0/public/{ask}")).await;
        assert_eq!((got.status, got.json()), (200, json!({ "error": [error] })), "{ask}");
    }
    // Trades by the cursor, without gap or repetition.
    let (mut since, mut ids) = (((OPEN - 10 * MINUTE) * 1_000_000).to_string(), Vec::new());
    loop {
        let path = format!("/0/public/Trades?pair=XBTUSD&count=100&since={since}");
        let got = site.get(&path).await.json();
        let rows = rows_of(Venue::Kraken, &got);
        ids.extend(rows.iter().map(|r| r[6].as_i64().unwrap()));
        since = got["result"]["last"].as_str().unwrap().to_owned();
        if rows.len() < 100 {
            break;
        }
    }
    assert!(ids.len() > 100 && ids.windows(2).all(|w| w[0] + 1 == w[1]), "{}", ids.len());
    // All tickers at once are those that a scan may rank: no dark pool, nothing that is closed.
    let all = site.get("/0/public/Ticker").await.json();
    let keys: Vec<&String> = all["result"].as_object().unwrap().keys().collect();
    for (key, there) in [
        ("XXBTZUSD", true),
        ("USDTZUSD", true),
        ("ZEURZUSD", true),
        ("XXBTZEUR", true),
        ("XXBTZUSD.d", false),
        ("XREPZUSD", false),
    ] {
        assert_eq!(keys.iter().any(|k| *k == key), there, "{key}");
    }
    let pairs = site.get("/0/public/AssetPairs").await.json();
    assert_eq!(pairs["result"]["XREPZUSD"]["status"], "cancel_only");
    assert_eq!(pairs["result"]["XXBTZUSD.d"]["altname"], "XBTUSD.d");
    assert_eq!(pairs["result"]["XXBTZUSD.d"].get("wsname"), None);
}

#[tokio::test]
async fn okx_pages_are_open_at_both_ends() {
    let site = Site::of(Venue::Okx, &universe(12)).await;
    let ask = async |path: &str, more: &str| {
        let path = format!("/api/v5/market/{path}?instId=BTC-USDT&bar=1H{more}");
        let rows = rows_of(Venue::Okx, &site.get(&path).await.json());
        rows.iter().map(|r| (OPEN - number(&r[0]) as i64) / HOUR).collect::<Vec<i64>>()
    };
    let hours = |from: i64, to: i64| (from..=to).collect::<Vec<i64>>();
    assert_eq!(ask("candles", "").await, hours(0, 99));
    assert_eq!(ask("candles", "&limit=999").await, hours(0, 299));
    let after = |h: i64| format!("&after={}", OPEN - h * HOUR);
    let before = |h: i64| format!("&before={}", OPEN - h * HOUR);
    assert_eq!(ask("candles", &after(10)).await, hours(11, 110));
    assert_eq!(ask("candles", &before(3)).await, hours(0, 2));
    assert_eq!(ask("candles", &before(300)).await, hours(0, 99));
    assert_eq!(ask("candles", &(before(20) + &after(10))).await, hours(11, 19));
    // Only the latest 1,440 are here, and only closed ones are history.
    assert_eq!(ask("candles", &(after(1_435))).await, hours(1_436, 1_439));
    assert_eq!(ask("history-candles", "&limit=300").await, hours(1, 100));
    assert_eq!(ask("history-candles", &after(1_500)).await, hours(1_501, 1_600));
    for (path, status, code) in [
        ("market/candles", 400, "50014"),
        ("market/candles?instId=BTC-USDT&bar=1h", 400, "51000"),
        ("market/candles?instId=NOPE-USDT", 200, "51001"),
        ("market/candles?instId=BTC-USDT&after=noon", 400, "51000"),
        ("market/books?instId=BTC-USDT&sz=401", 400, "51000"),
        ("public/instruments", 400, "50014"),
        ("public/funding-rate?instId=BTC-USDT", 200, "51001"),
    ] {
        let got = site.get(&format!("/api/v5/{path}")).await;
        assert_eq!((got.status, &got.json()["code"]), (status, &json!(code)), "{path}");
    }
    let book = |levels| site.get(levels);
    let one = book("/api/v5/market/books?instId=BTC-USDT").await.json();
    assert_eq!(book_of(Venue::Okx, &one).map(|side| side.len()), [1, 1]);
    let path = "/api/v5/public/funding-rate-history?instId=BTC-USDT-SWAP";
    let rates = rows_of(Venue::Okx, &site.get(path).await.json());
    assert_eq!(rates.len(), 100);
    let newest = number(&rates[0]["fundingTime"]) as i64;
    assert_eq!(newest, NOW.div_euclid(8 * HOUR) * 8 * HOUR);
    let rate = |r: &Value| number(&r["fundingRate"]);
    assert!(rates.iter().all(|r| rate(r).abs() <= 0.00375));
    assert!(rates.iter().any(|r| rate(r) != rate(&rates[0])));
    let older = site.get(&format!("{path}&after={newest}&limit=1")).await.json();
    assert_eq!(number(&older["data"][0]["fundingTime"]) as i64, newest - 8 * HOUR);
}

#[tokio::test]
async fn coinbase_pages_are_ranges_of_300_at_most() {
    let market = universe(60);
    let site = Site::of(Venue::Coinbase, &market).await;
    let ask = async |more: &str| {
        site.get(&format!("/products/BTC-USD/candles?granularity=3600{more}")).await
    };
    let opens = |got: &Got| -> Vec<i64> {
        let rows = rows_of(Venue::Coinbase, &got.json());
        rows.iter().map(|r| (OPEN / 1_000 - r[0].as_i64().unwrap()) / 3_600).collect()
    };
    let range = |from: i64, to: i64| {
        let at = |h: i64| Time(OPEN - h * HOUR).rfc3339();
        format!("&start={}&end={}", at(from), at(to))
    };
    assert_eq!(opens(&ask("").await), (0..300).collect::<Vec<_>>());
    assert_eq!(opens(&ask(&range(20, 10)).await), (10..=20).collect::<Vec<_>>());
    let seconds = format!("&start={}&end={}", (OPEN - 2 * HOUR) / 1_000, OPEN / 1_000);
    assert_eq!(opens(&ask(&seconds).await), [0, 1, 2]);
    // One end alone says nothing.
    assert_eq!(opens(&ask(&format!("&start={}", Time(OPEN).rfc3339())).await).len(), 300);
    assert_eq!(ask(&range(400, 100)).await.status, 200);
    let wide = ask(&range(401, 100)).await;
    assert_eq!(wide.status, 400);
    assert_eq!(
        wide.body,
        "{\"message\":\"granularity too small for the requested time range. Count of aggregations \
         requested exceeds 300\"}"
    );
    assert_eq!(wide.body.len(), 109);
    for (path, status, message) in [
        ("/products/NOPE-USD/candles", 404, "NotFound"),
        ("/products/BTC-USD/candles?granularity=7200", 400, "Unsupported granularity"),
        ("/nowhere", 404, "NotFound"),
    ] {
        let got = site.get(path).await;
        assert_eq!((got.status, got.json()), (status, json!({ "message": message })), "{path}");
    }
    // What is hardly traded has minutes without a candle.
    let small = market.symbols().iter().rev().map(|s| s.base.as_str());
    let mut found = 0;
    for base in small.take(12) {
        let got = site.get(&candles_path(Venue::Coinbase, base, MINUTE)).await;
        if got.status == 200 {
            let rows = rows_of(Venue::Coinbase, &got.json());
            assert!(rows.iter().all(|r| number(&r[5]) > 0.0));
            found = 300 - rows.len();
            break;
        }
    }
    assert!((20..300).contains(&found), "{found}");
    let page = site.get("/products/BTC-USD/trades?limit=5").await.json();
    let oldest = page[4]["trade_id"].as_i64().unwrap();
    let older = site.get(&format!("/products/BTC-USD/trades?limit=5&after={oldest}")).await.json();
    assert_eq!(older[0]["trade_id"], oldest - 1);
    assert_eq!(older.as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn books_are_as_deep_as_their_market_is_large() {
    let market = universe(300);
    for venue in THREE {
        let site = Site::of(venue, &market).await;
        let measure = async |base: &str| {
            let got = site.get(&book_path(venue, base)).await;
            let [bids, asks] = book_of(venue, &got.json());
            assert!(bids.windows(2).all(|w| w[0].0 > w[1].0), "{base}");
            assert!(asks.windows(2).all(|w| w[0].0 < w[1].0), "{base}");
            assert!(bids.iter().chain(&asks).all(|l| l.1 > 0.0), "{base}");
            let mid = (bids[0].0 + asks[0].0) / 2.0;
            let near = |l: &&(f64, f64)| (l.0 / mid - 1.0).abs() <= 0.02;
            let depth: f64 = bids.iter().chain(&asks).filter(near).map(|l| l.0 * l.1).sum();
            let beyond = bids[bids.len() - 1].0 < 0.98 * mid && asks[asks.len() - 1].0 > 1.02 * mid;
            ((asks[0].0 - bids[0].0) / mid * 1e4, depth, beyond)
        };
        for base in ["BTC", "ETH", "SOL", "XRP", "ADA"] {
            let (spread, depth, beyond) = measure(base).await;
            assert!((0.0..10.0).contains(&spread), "{venue} {base}: {spread} bps");
            assert!(depth > 400_000.0 && beyond, "{venue} {base}: {depth}");
        }
        if venue == Venue::Kraken {
            for spec in &market.symbols()[220..] {
                let (spread, depth, beyond) = measure(&spec.base).await;
                assert!((8.0..200.0).contains(&spread), "{}: {spread} bps", spec.base);
                assert!((3_000.0..150_000.0).contains(&depth) && beyond, "{}: {depth}", spec.base);
            }
        }
        // The same for all who look in the same second, another in the next.
        let first = site.get(&book_path(venue, "BTC")).await.json();
        site.clock.advance(Time(NOW + 999));
        let same = site.get(&book_path(venue, "BTC")).await.json();
        assert_eq!(book_of(venue, &first), book_of(venue, &same));
        site.clock.advance(Time(NOW + 1_000));
        let next = site.get(&book_path(venue, "BTC")).await.json();
        assert_ne!(book_of(venue, &first), book_of(venue, &next));
    }
}

#[tokio::test]
async fn limits_are_those_of_the_venue() {
    let market = universe(12);
    for (venue, path, allowed, wait, status, said) in [
        (Venue::Kraken, "/0/public/Time", 15, 1_000, 200, "EGeneral:Too many requests"),
        (Venue::Okx, "/api/v5/public/time", 10, 2_000, 429, "50011"),
        (Venue::Coinbase, "/time", 15, 100, 429, "Public rate limit exceeded"),
    ] {
        let site = Site::start(venue, &market, "", VenueLimits::default()).await;
        for i in 0..allowed {
            let got = site.get(path).await;
            assert!(got.status == 200 && !got.body.contains(said), "{venue} {i}");
        }
        let refused = site.get(path).await;
        assert_eq!(refused.status, status);
        assert!(refused.body.contains(said), "{venue}: {}", refused.body);
        let (noted, used) = (site.sim.journal().last(), site.sim.journal().after(allowed));
        assert_eq!((noted, used[0].used_weight >= allowed as u32), (allowed + 1, true));
        site.clock.advance(Time(NOW + wait));
        assert!(!site.get(path).await.body.contains(said), "{venue}");
    }
    // Candles of one pair count for themselves too.
    let site = Site::start(Venue::Kraken, &market, "", VenueLimits::default()).await;
    for _ in 0..5 {
        assert_eq!(site.get("/0/public/OHLC?pair=XBTUSD").await.json()["error"], json!([]));
    }
    let refused = site.get("/0/public/OHLC?pair=XXBTZUSD").await.json();
    assert_eq!(refused["error"][0], "EGeneral:Too many requests");
    assert_eq!(site.get("/0/public/OHLC?pair=SOLUSD").await.json()["error"], json!([]));
    // Both forms of OKX's refusal come up.
    let site = Site::start(Venue::Okx, &market, "", VenueLimits::default()).await;
    let mut refused = BTreeMap::new();
    for _ in 0..20 {
        let got = site.get("/api/v5/public/time").await;
        if got.json()["code"] == "50011" {
            *refused.entry(got.status).or_insert(0) += 1;
        }
    }
    assert_eq!(refused, BTreeMap::from([(200, 2), (429, 8)]));
}

#[tokio::test]
async fn each_fault_does_what_it_says() {
    let market = universe(12);
    for venue in THREE {
        let site = Site::of(venue, &market).await;
        let candles = candles_path(venue, "BTC", HOUR);
        let book = book_path(venue, "BTC");
        let whole = site.candles("BTC", HOUR).await;
        let opens = |rows: &[Row]| rows.iter().map(|r| r.0).collect::<Vec<_>>();

        site.faults("klines:503:n=1");
        assert_eq!(site.get(&candles).await.status, 503);
        assert_eq!(site.get(&candles).await.status, 200);
        site.faults("klines:429:retry=7");
        assert_eq!(site.get(&candles).await.status, 429);
        assert_eq!(site.get(&book).await.status, 200, "only candles were meant");
        site.faults("*:html:status=520");
        let page = site.get(&book).await;
        assert_eq!((page.status, page.kind.as_str()), (520, "text/html"));
        site.faults("depth:error-object");
        let got = site.get(&book).await;
        let word = match venue {
            Venue::Kraken => "EService:Unavailable",
            Venue::Okx => "50001",
            Venue::Coinbase | Venue::Binance => "Service Unavailable",
        };
        assert!(got.status == 200 && got.body.contains(word), "{}", got.body);
        for (kind, body) in [("empty", ""), ("null", "null")] {
            site.faults(&format!("depth:{kind}"));
            assert_eq!(site.get(&book).await.body, body);
        }
        site.faults("depth:malformed");
        assert!(serde_json::from_str::<Value>(&site.get(&book).await.body).is_err());
        for kind in ["reset", "reset-body", "truncated", "down"] {
            site.faults(&format!("depth:{kind}"));
            assert!(site.try_get(&book).await.is_err(), "{kind}");
        }
        site.faults("depth:crossed");
        let [bids, asks] = book_of(venue, &site.get(&book).await.json());
        assert!(bids[0].0 > asks[0].0);
        site.faults("depth:unordered");
        let [bids, _] = book_of(venue, &site.get(&book).await.json());
        assert!(bids.windows(2).any(|w| w[0].0 < w[1].0));

        site.faults("klines:duplicate");
        let rows = site.candles("BTC", HOUR).await;
        assert_eq!(rows.len(), whole.len() + 1);
        assert!(rows.windows(2).any(|w| w[0] == w[1]));
        site.faults("klines:unordered");
        let rows = site.candles("BTC", HOUR).await;
        assert!(rows.windows(2).any(|w| w[0].0 > w[1].0));
        site.faults("klines:outside");
        assert_eq!(site.candles("BTC", HOUR).await[0].0, whole[0].0 - HOUR);
        site.faults(&format!("klines:missing:from={},to={}", OPEN - 3 * HOUR, OPEN - HOUR));
        let rows = opens(&site.candles("BTC", HOUR).await);
        assert_eq!(rows[rows.len() - 3..], [OPEN - 4 * HOUR, OPEN - HOUR, OPEN]);
        site.faults("klines:revised:ms=3600000");
        let rows = site.candles("BTC", HOUR).await;
        let (last, closed) = (rows.len() - 2, &whole[whole.len() - 2]);
        assert_eq!(rows[last].1[3], closed.1[0], "the close is the open still");
        site.faults("klines:stale:ms=7200000");
        assert_eq!(site.candles("BTC", HOUR).await.last().unwrap().0, OPEN - 2 * HOUR);
        site.faults("klines:wrong-width");
        let got = rows_of(venue, &site.get(&candles).await.json());
        let widths: Vec<usize> = got.iter().map(|r| r.as_array().unwrap().len()).collect();
        assert_eq!(widths[widths.len() - 1] + 1, widths[0]);
        site.faults("klines:number");
        let got = rows_of(venue, &site.get(&candles).await.json());
        assert_ne!(got[0][1].is_string(), got[1][1].is_string());

        site.faults(
            "klines:503:symbol=XBTUSD ; klines:503:symbol=BTC-USDT ; klines:503:symbol=BTC-USD",
        );
        assert_eq!(site.get(&candles).await.status, 503);
        assert_eq!(site.get(&candles_path(venue, "ETH", HOUR)).await.status, 200);
        site.faults("time:skew:ms=-7000");
        let time = match venue {
            Venue::Kraken => "/0/public/Time",
            Venue::Okx => "/api/v5/public/time",
            Venue::Coinbase | Venue::Binance => "/time",
        };
        assert!(site.get(time).await.body.contains("1795176023"));
        site.faults("*:halt:symbol=XBTUSD ; *:halt:symbol=BTC-USDT ; *:halt:symbol=BTC-USD");
        let (listing, word) = match venue {
            Venue::Kraken => ("/0/public/AssetPairs?pair=XBTUSD", "cancel_only"),
            Venue::Okx => ("/api/v5/public/instruments?instType=SPOT&instId=BTC-USDT", "suspend"),
            Venue::Coinbase | Venue::Binance => ("/products/BTC-USD", "delisted"),
        };
        assert!(site.get(listing).await.body.contains(word));

        site.faults("klines:ban:secs=60,n=1");
        let banned = site.get(&candles).await;
        assert_eq!(site.get(&book).await.body, banned.body, "a ban is for every path");
        site.clock.advance(Time(NOW + 60_000));
        assert_eq!(site.get(&book).await.status, 200);

        site.faults("depth:latency:ms=5000");
        let sent = site.clock.now();
        let advance = async {
            let due = site.clock.next_timer(sent + Millis(1)).await;
            assert_eq!(due, sent + Millis(5_000));
            site.clock.advance(due);
        };
        assert_eq!(tokio::join!(site.get(&book), advance).0.status, 200);
        site.faults("depth:timeout");
        let before = site.sim.journal().last();
        let limit = site.clock.timeout(Millis::from_secs(60), site.try_get(&book));
        let advance = async {
            while site.sim.journal().last() == before {
                tokio::task::yield_now().await;
            }
            site.clock.advance(site.clock.now() + Millis::from_mins(2));
        };
        assert!(tokio::join!(limit, advance).0.is_err());
        let noted = site.sim.journal().after(before);
        assert_eq!((noted[0].status, &noted[0].faults[..]), (0, &["depth:timeout".to_owned()][..]));
        let control = site.get("/sim/faults").await.json();
        assert_eq!(control, json!(["depth:timeout"]));
        assert_eq!(site.get("/sim/market").await.json()["kind"], "synthetic");
    }
}

#[tokio::test]
async fn the_same_questions_get_the_same_bytes() {
    let paths: [(Venue, &[&str]); 3] = [
        (
            Venue::Kraken,
            &[
                "/0/public/Ticker",
                "/0/public/AssetPairs",
                "/0/public/OHLC?pair=XDGUSD&interval=5",
                "/0/public/OHLC?pair=USDTZUSD&interval=60",
                "/0/public/Depth?pair=ADAUSD",
                "/0/public/Trades?pair=XXBTZEUR",
            ],
        ),
        (
            Venue::Okx,
            &[
                "/api/v5/market/tickers?instType=SPOT",
                "/api/v5/public/instruments?instType=SWAP",
                "/api/v5/market/candles?instId=SOL-USDT&bar=4H",
                "/api/v5/market/books?instId=BTC-USDC&sz=400",
                "/api/v5/public/open-interest?instType=SWAP",
                "/api/v5/public/funding-rate-history?instId=ETH-USDT-SWAP",
            ],
        ),
        (
            Venue::Coinbase,
            &[
                "/products",
                "/products/XRP-USD/candles?granularity=21600",
                "/products/BTC-EUR/ticker",
                "/products/ETH-USD/stats",
                "/products/ETH-USD/book?level=2",
                "/products/ETH-USD/trades",
            ],
        ),
    ];
    for (venue, paths) in paths {
        let one = Site::of(venue, &universe(25)).await;
        let other = Site::of(venue, &universe(25)).await;
        let mut answers = Vec::new();
        for path in paths {
            let got = one.get(path).await;
            assert_eq!(got.status, 200, "{path}: {}", got.body);
            answers.push(got.body);
        }
        // Whatever was asked before.
        for (path, answer) in paths.iter().zip(&answers).rev() {
            assert_eq!(&other.get(path).await.body, answer, "{path}");
        }
        one.sim.shutdown().await;
    }
}

/// Whatever a client sends, it gets an answer.
#[tokio::test]
async fn strange_parameters_get_an_answer() {
    let market = universe(12);
    for venue in THREE {
        let site = Site::of(venue, &market).await;
        for n in
            ["0", "-1", "1", "9223372036854775807", "-9223372036854775808", "", "x", "1e9", "%F0"]
        {
            let paths = match venue {
                Venue::Kraken => vec![
                    format!("/0/public/OHLC?pair=XBTUSD&interval={n}"),
                    format!("/0/public/OHLC?pair=XBTUSD&since={n}"),
                    format!("/0/public/Trades?pair=XBTUSD&count=2&since={n}"),
                    format!("/0/public/Depth?pair=XBTUSD&count={n}"),
                    format!("/0/public/Ticker?pair={n}"),
                ],
                Venue::Okx => vec![
                    format!("/api/v5/market/candles?instId=BTC-USDT&after={n}"),
                    format!("/api/v5/market/history-candles?instId=BTC-USDT&before={n}&after={n}"),
                    format!("/api/v5/market/candles?instId=BTC-USDT&bar={n}m&limit={n}"),
                    format!("/api/v5/market/books?instId=BTC-USDT&sz={n}"),
                    format!("/api/v5/public/funding-rate-history?instId=BTC-USDT-SWAP&after={n}"),
                ],
                Venue::Coinbase | Venue::Binance => vec![
                    format!("/products/BTC-USD/candles?granularity={n}"),
                    format!("/products/BTC-USD/candles?start={n}&end={n}"),
                    format!("/products/BTC-USD/candles?start=-9223372036854775808&end={n}"),
                    format!("/products/BTC-USD/trades?limit=2&after={n}&before={n}"),
                    format!("/products/{n}/book?level={n}"),
                ],
            };
            for path in paths {
                let got = site.try_get(&path).await.unwrap_or_else(|e| panic!("{path}: {e}"));
                assert!([200, 400, 404].contains(&got.status), "{path}: {}", got.status);
            }
        }
    }
}

/// The market that Binance's simulator serves by default is shown by the others too, and the universe
/// by Binance.
#[tokio::test]
async fn every_venue_serves_every_market() {
    let seven = Arc::new(Market::synthetic(7, &["BTCUSDT", "ETHUSDT", "DOGEUSDT", "ETHBTC"]));
    for venue in THREE {
        let site = Site::of(venue, &seven).await;
        assert!(!site.candles("BTC", HOUR).await.is_empty());
        let [bids, asks] = book_of(venue, &site.get(&book_path(venue, "DOGE")).await.json());
        assert!(bids[0].0 < asks[0].0);
    }
    let binance = Site::of(Venue::Binance, &universe(12)).await;
    let path = "/api/v3/klines?symbol=SOLUSDT&interval=1h&limit=1000";
    let rows: Vec<Vec<Value>> = serde_json::from_str(&binance.get(path).await.body).unwrap();
    assert_eq!((rows.len(), rows[999][0].as_i64()), (1_000, Some(OPEN)));
    assert_eq!(binance.sim.venue(), Venue::Binance);
    binance.faults("depth:crossed");
    let got = binance.get("/api/v3/depth?symbol=SOLUSDT").await.json();
    assert!(number(&got["bids"][0][0]) > number(&got["asks"][0][0]));
}

#[tokio::test]
async fn a_scan_of_the_universe_is_served_in_seconds() {
    let site = Site::of(Venue::Kraken, &universe(300)).await;
    let watch = Stopwatch::start();
    let tickers = site.get("/0/public/Ticker").await.json();
    eprintln!("all tickers: {:?}", watch.elapsed());
    let keys: Vec<&String> = tickers["result"].as_object().unwrap().keys().collect();
    for (interval, rows) in [(60, 720), (1_440, 60)] {
        let watch = Stopwatch::start();
        let open = NOW - NOW % (interval * MINUTE);
        let since = (open - rows * interval * MINUTE) / 1_000 - 1;
        for key in &keys {
            let path = format!("/0/public/OHLC?pair={key}&interval={interval}&since={since}");
            assert_eq!(
                rows_of(Venue::Kraken, &site.get(&path).await.json()).len() as i64,
                rows + 1
            );
        }
        eprintln!("{} pairs, {rows} bars of {interval} minutes: {:?}", keys.len(), watch.elapsed());
    }
}
