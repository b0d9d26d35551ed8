//! Small answers of each exchange against its readers: read exactly, or refused by the place that is
//! wrong.

use watchbell_core::{Millis, Time};
use watchbell_venues::native::{
    Bar, Interval, Level, NativeBook, PayloadError, Ticker, Venue, binance, coinbase, kraken, okx,
};

/// 2023-07-06 22:00, the start of the third bar of each page below.
const OPEN: Time = Time(1_688_680_800_000);
const HOUR: Millis = Millis::from_hours(1);

const KRAKEN_BARS: &str = r#"{"error":[],"result":{"XXBTZUSD":[
    [1688673600,"30306.1","30310.2","30305.7","30305.9","30306.0","2.5",23],
    [1688677200,"30305.9","30305.9","30305.9","30305.9","0.0","0.00000000",0],
    [1688680800,"30300.3","30300.4","30291.4","30291.4","30294.7","2.13024789",25]],"last":1688677200}}"#;
const KRAKEN_BOOK: &str = r#"{"error":[],"result":{"XXBTZUSD":{
    "asks":[["30384.10000","2.059",1688671659],["30387.90000","0.000",1688671380],["30393.70000","9.871",1688671261]],
    "bids":[["30297.00000","1.115",1688671636],["30296.70000","2.002",1688671674]]}}}"#;
const KRAKEN_PAIRS: &str = r#"{"error":["WGeneral:a warning is no error"],"result":{
    "XXBTZUSD":{"altname":"XBTUSD","wsname":"XBT/USD","aclass_base":"currency","base":"XXBT","quote":"ZUSD","status":"online"},
    "XDGUSD":{"altname":"XDGUSD","wsname":"XDG/USD","aclass_base":"currency","base":"XXDG","quote":"ZUSD","status":"cancel_only","new":{"a":1}},
    "XETHZEUR.d":{"altname":"ETHEUR.d","aclass_base":"currency","base":"XETH","quote":"ZEUR"},
    "ZETAUSD":{"altname":"ZETAUSD","wsname":"ZETA/USD","aclass_base":"currency","base":"ZETA","quote":"ZUSD","status":"online"}}}"#;
const KRAKEN_TICKER: &str = r#"{"error":[],"result":{
    "XXBTZUSD":{"a":["30300.1","1","1.0"],"b":["30300.0","1","1.0"],"c":["30303.2","0.00067643"],"v":["4083.67","4412.736"],"p":["30706.7","30689.13205"],"t":[1,2],"l":["1","1"],"h":["1","1"],"o":"1"},
    "AI16ZUSD":{"a":["0.02","1","1"],"b":["0.01","1","1"],"c":["0.00000000","0.00000"],"v":["0.0","0.0"],"p":["0.0","0.0"]}}}"#;

const OKX_BARS: &str = r#"{"code":"0","msg":"","data":[
    ["1688680800000","30300.3","30300.4","30291.4","30291.4","2.13","64500","64501.5","0"],
    ["1688677200000","30305.9","30305.9","30305.9","30305.9","0","0","0","1"],
    ["1688673600000","30306.1","30310.2","30305.7","30305.9","2.5","75760","75765.25","1"]]}"#;
const OKX_BOOK: &str = r#"{"code":"0","msg":"","data":[{
    "asks":[["41006.8","0.60038921","0","1"],["41006.9","0.3","0","2"]],
    "bids":[["41006.7","0.487921","0","1"],["41006.6","0","0","1"],["41006.5","0.24","0","1"]],"ts":"1704067200000"}]}"#;
const OKX_INSTRUMENTS: &str = r#"{"code":"0","msg":"","data":[
    {"instType":"SPOT","instId":"BTC-USDT","baseCcy":"BTC","quoteCcy":"USDT","state":"live","listTime":"1"},
    {"instType":"SPOT","instId":"NEW-USDT","baseCcy":"NEW","quoteCcy":"USDT","state":"preopen"}]}"#;
const OKX_TICKERS: &str = r#"{"code":"0","msg":"","data":[
    {"instType":"SPOT","instId":"BTC-USDT","last":"30300","vol24h":"10","volCcy24h":"305000","ts":"1"},
    {"instType":"SPOT","instId":"NEW-USDT","last":"","vol24h":"","volCcy24h":"","ts":"1"},
    {"instType":"SPOT","instId":"OLD-USDT","last":"2.5","vol24h":"0","volCcy24h":"0","ts":"1"}]}"#;

const COINBASE_BARS: &str = "[[1688680800,30291.4,30300.4,30300.3,30291.4,2.13],
    [1688673600,30305.7,30310.2,30306.1,30305.9,2.5]]";
const COINBASE_BOOK: &str = r#"{"sequence":13051505638,"auction_mode":false,"time":"2021-02-12T01:09:23.334723Z",
    "bids":[["100.00","6.3",2],["99.5","1",1],["90.00","2",1],["89.99","500",3]],
    "asks":[["100.50","2",1],["110.55","1",1],["110.56","7",1]]}"#;
const COINBASE_PRODUCTS: &str = r#"[
    {"id":"BTC-USD","base_currency":"BTC","quote_currency":"USD","status":"online","trading_disabled":false,"cancel_only":false},
    {"id":"OLD-USD","base_currency":"OLD","quote_currency":"USD","status":"online","trading_disabled":true,"post_only":true},
    {"id":"LIM-USD","base_currency":"LIM","quote_currency":"USD","status":"online","cancel_only":true},
    {"id":"OFF-USD","base_currency":"OFF","quote_currency":"USD","status":"delisted","trading_disabled":true}]"#;

const BINANCE_BARS: &str = r#"[
    [1688673600000,"30306.1","30310.2","30305.7","30305.9","2.5",1688677199999,"75765.25",23,"1","1","0"],
    [1688677200000,"30305.9","30305.9","30305.9","30305.9","0",1688680799999,"0",0,"0","0","0"],
    [1688680800000,"30300.3","30300.4","30291.4","30291.4","2.13",1688684399999,"64501.5",25,"1","1","0"]]"#;
const BINANCE_BOOK: &str = r#"{"lastUpdateId":1027024,
    "bids":[["4.00000000","431.00000000"],["3.90000000","9.00000000"]],"asks":[["4.00000200","12.00000000"]]}"#;
const BINANCE_INFO: &str = r#"{"timezone":"UTC","symbols":[
    {"symbol":"BTCUSDT","status":"TRADING","baseAsset":"BTC","quoteAsset":"USDT","isSpotTradingAllowed":true},
    {"symbol":"OLDUSDT","status":"BREAK","baseAsset":"OLD","quoteAsset":"USDT","isSpotTradingAllowed":true}]}"#;
const BINANCE_TICKERS: &str = r#"[{"symbol":"BTCUSDT","lastPrice":"30300.1","weightedAvgPrice":"30250.5","volume":"123.5"},
    {"symbol":"NEWUSDT","lastPrice":"0.0","weightedAvgPrice":"0.0","volume":"0.0"}]"#;

/// The bars of a page that was asked at `now`.
fn bars(venue: Venue, body: &str, now: Time) -> Result<Vec<Bar>, PayloadError> {
    let body = body.as_bytes();
    match venue {
        Venue::Kraken => kraken::bars(body, "XBTUSD", Interval::Hour, now),
        Venue::Okx => okx::bars(body, Interval::Hour, now),
        Venue::Coinbase => coinbase::bars(body, Interval::Hour, now),
        Venue::Binance => binance::bars(body, Interval::Hour, now),
    }
}

fn book(venue: Venue, body: &str) -> Result<NativeBook, PayloadError> {
    let body = body.as_bytes();
    Ok(match venue {
        Venue::Kraken => NativeBook::Kraken(kraken::book(body, "XBTUSD", OPEN)?),
        Venue::Okx => NativeBook::Okx(okx::book(body, "BTC-USDT", OPEN)?),
        Venue::Coinbase => NativeBook::Coinbase(coinbase::book(body, "BTC-USD", OPEN)?),
        Venue::Binance => NativeBook::Binance(binance::book(body, "BTCUSDT", OPEN)?),
    })
}

const BARS: [(Venue, &str); 4] = [
    (Venue::Kraken, KRAKEN_BARS),
    (Venue::Okx, OKX_BARS),
    (Venue::Coinbase, COINBASE_BARS),
    (Venue::Binance, BINANCE_BARS),
];
const BOOKS: [(Venue, &str); 4] = [
    (Venue::Kraken, KRAKEN_BOOK),
    (Venue::Okx, OKX_BOOK),
    (Venue::Coinbase, COINBASE_BOOK),
    (Venue::Binance, BINANCE_BOOK),
];

#[test]
fn every_exchange_gives_the_same_closed_bars() {
    let first = Bar {
        open_time: OPEN - HOUR - HOUR,
        open: 30_306.1,
        high: 30_310.2,
        low: 30_305.7,
        close: 30_305.9,
        volume: 2.5,
        quote_volume: 75_765.25,
    };
    let quiet = Bar {
        open_time: OPEN - HOUR,
        open: 30_305.9,
        high: 30_305.9,
        low: 30_305.9,
        close: 30_305.9,
        volume: 0.0,
        quote_volume: 0.0,
    };
    for (venue, body) in BARS {
        // Kraken gives a mean price instead of a quote volume, and Coinbase gives neither.
        let quote_volume = match venue {
            Venue::Kraken => 2.5 * 30_306.0,
            Venue::Coinbase => 2.5 * 30_305.9,
            Venue::Okx | Venue::Binance => first.quote_volume,
        };
        let mut want = vec![Bar { quote_volume, ..first }];
        // A span without trades has no bar at Coinbase.
        want.extend((venue != Venue::Coinbase).then_some(quiet));
        assert_eq!(bars(venue, body, OPEN), Ok(want.clone()), "{venue}");
        assert_eq!(bars(venue, body, OPEN + HOUR - Millis(1)), Ok(want), "{venue}");
    }
}

#[test]
fn a_bar_is_closed_when_its_end_has_come_and_the_exchange_says_so() {
    let count = |venue, now| {
        let body = BARS.iter().find(|(v, _)| *v == venue).unwrap().1;
        bars(venue, body, now).unwrap().len()
    };
    let later = OPEN + HOUR;
    // Kraken's last row is open whatever the clock shows, and OKX says that its newest is.
    for (venue, at_the_end) in
        [(Venue::Kraken, 2), (Venue::Okx, 2), (Venue::Coinbase, 2), (Venue::Binance, 3)]
    {
        assert_eq!(count(venue, later), at_the_end, "{venue}");
        let before = count(venue, OPEN - Millis(1));
        assert_eq!(before, 1, "{venue}: a millisecond before the end of the second bar");
    }
    // What Kraken does not count as closed is not, wherever it stands.
    let behind = KRAKEN_BARS.replace("\"last\":1688677200", "\"last\":1688673600");
    assert_eq!(bars(Venue::Kraken, &behind, later).unwrap().len(), 1);
    // A bar that is confirmed before its end is not taken.
    let early = OKX_BARS.replace("\"64501.5\",\"0\"]", "\"64501.5\",\"1\"]");
    assert_eq!(bars(Venue::Okx, &early, OPEN).unwrap().len(), 2);
    assert_eq!(bars(Venue::Okx, &early, later).unwrap().len(), 3);
    for (venue, body) in [
        (Venue::Okx, r#"{"code":"0","msg":"","data":[]}"#),
        (Venue::Coinbase, "[]"),
        (Venue::Binance, "[]"),
    ] {
        assert_eq!(bars(venue, body, OPEN), Ok(vec![]), "{venue}");
    }
    let none = r#"{"error":[],"result":{"XXBTZUSD":[],"last":0}}"#;
    assert_eq!(bars(Venue::Kraken, none, OPEN), Ok(vec![]));
}

#[test]
fn columns_that_are_swapped_are_noticed() {
    // Coinbase's order of columns read as everybody else's, and the reverse.
    let others = "[[1688673600,30306.1,30310.2,30305.7,30305.9,2.5]]";
    let error = bars(Venue::Coinbase, others, OPEN).unwrap_err();
    assert_eq!(error.path(), "[0].open");
    let coinbase = KRAKEN_BARS.replace(
        r#""30306.1","30310.2","30305.7","30305.9""#,
        r#""30305.7","30310.2","30306.1","30305.9""#,
    );
    let error = bars(Venue::Kraken, &coinbase, OPEN).unwrap_err();
    assert_eq!(error.path(), "result.XXBTZUSD[0].open");
}

#[test]
fn pages_of_bars_are_refused_by_the_place_that_is_wrong() {
    type Case = (Venue, &'static str, &'static str, &'static str);
    let cases: &[Case] = &[
        // Missing, of the wrong type, or no number.
        (Venue::Kraken, "\"last\":1688677200", "\"end\":[]", "result.last"),
        (Venue::Kraken, "\"last\":1688677200", "\"last\":\"1688677200\"", "result.last"),
        (Venue::Kraken, "1688673600,", "\"1688673600\",", "result.XXBTZUSD[0].time"),
        (Venue::Kraken, "1688673600,", "1688673600.5,", "result.XXBTZUSD[0].time"),
        (Venue::Kraken, "\"30310.2\"", "30310.2", "result.XXBTZUSD[0].high"),
        (Venue::Kraken, "\"30310.2\"", "\"NaN\"", "result.XXBTZUSD[0].high"),
        (Venue::Kraken, "\"30310.2\"", "null", "result.XXBTZUSD[0].high"),
        (Venue::Kraken, "\"30310.2\"", "\"-30310.2\"", "result.XXBTZUSD[0].high"),
        (Venue::Kraken, "\"2.5\",23]", "\"-2.5\",23]", "result.XXBTZUSD[0].volume"),
        (Venue::Kraken, "\"2.5\",23]", "\"2.5\"]", "result.XXBTZUSD[0]"),
        (Venue::Kraken, "\"2.5\",23]", "\"2.5\",23,0]", "result.XXBTZUSD[0]"),
        (Venue::Kraken, "\"result\"", "\"results\"", "result"),
        (Venue::Kraken, "\"XXBTZUSD\"", "\"XETHZUSD\"", "result.XETHZUSD"),
        (Venue::Kraken, "\"error\":[]", "\"error\":{}", "error"),
        (Venue::Okx, "\"1688673600000\"", "1688673600000", "data[2].time"),
        (Venue::Okx, "\"30310.2\"", "\"\"", "data[2].high"),
        (Venue::Okx, "\"75765.25\"", "\"inf\"", "data[2].quote volume"),
        (Venue::Okx, "\"75765.25\",\"1\"", "\"75765.25\"", "data[2]"),
        (Venue::Okx, "\"75765.25\",\"1\"", "\"75765.25\",\"2\"", "data[2].confirm"),
        (Venue::Okx, "\"75765.25\",\"1\"", "\"75765.25\",1", "data[2].confirm"),
        (Venue::Okx, "\"75765.25\",\"1\"", "\"75765.25\",\"0\"", "data[2].confirm"),
        (Venue::Okx, "\"data\"", "\"dat\"", "data"),
        (Venue::Okx, "\"code\":\"0\"", "\"code\":0", "code"),
        (Venue::Okx, "\"code\":\"0\"", "\"code\":\"50001\"", "code"),
        (Venue::Coinbase, "30310.2", "\"30310.2\"", "[1].high"),
        (Venue::Coinbase, "30310.2", "null", "[1].high"),
        (Venue::Coinbase, "30310.2", "-30310.2", "[1].high"),
        (Venue::Coinbase, "30310.2", "1e999", "[1].high"),
        (Venue::Coinbase, ",2.5]", "]", "[1]"),
        (Venue::Coinbase, ",2.5]", ",-2.5]", "[1].volume"),
        (Venue::Coinbase, "[1688673600", "[\"1688673600\"", "[1].time"),
        // What contradicts itself.
        (
            Venue::Kraken,
            "\"30310.2\",\"30305.7\"",
            "\"30305.7\",\"30310.2\"",
            "result.XXBTZUSD[0].low",
        ),
        (
            Venue::Kraken,
            "\"30305.9\",\"30306.0\"",
            "\"30311\",\"30306.0\"",
            "result.XXBTZUSD[0].close",
        ),
        (Venue::Okx, "\"30306.1\"", "\"30310.3\"", "data[2].open"),
        // Times: off the grid, in another unit, in the future, twice, out of order.
        (Venue::Kraken, "1688673600,", "1688673601,", "result.XXBTZUSD[0].time"),
        (Venue::Kraken, "1688673600,", "1688673600000,", "result.XXBTZUSD[0].time"),
        (Venue::Kraken, "1688673600,", "1688677200,", "result.XXBTZUSD[1].time"),
        (Venue::Kraken, "1688673600,", "1688684400,", "result.XXBTZUSD[1].time"),
        (Venue::Okx, "\"1688673600000\"", "\"1688673600\"", "data[2].time"),
        (Venue::Okx, "\"1688673600000\"", "\"1688677200000\"", "data[2].time"),
        (Venue::Okx, "\"1688673600000\"", "\"1688680800000\"", "data[2].time"),
        (Venue::Okx, "\"1688680800000\"", "\"1688688000000\"", "data[0].time"),
        (Venue::Coinbase, "[1688673600", "[1688680800", "[1].time"),
        (Venue::Coinbase, "[1688673600", "[1688684400", "[1].time"),
        (Venue::Coinbase, "[1688673600", "[1688673599", "[1].time"),
        (Venue::Coinbase, "[1688673600", "[-9223372036854775808", "[1].time"),
    ];
    for (venue, from, to, path) in cases {
        let good = BARS.iter().find(|(v, _)| v == venue).unwrap().1;
        assert!(good.contains(from), "{venue}: {from}");
        let error = bars(*venue, &good.replacen(from, to, 1), OPEN + Millis(1)).unwrap_err();
        assert_eq!(error.path(), *path, "{venue}: {from} -> {to}: {error}");
        assert!(error.to_string().len() < 200 && error.to_string().starts_with(path), "{error}");
    }
    // The reader of the market's candles names row and field in its own words.
    for (from, to, want) in [
        ("\"30310.2\"", "30310.2", "row 0"),
        ("\"30310.2\"", "\"NaN\"", "high `NaN` is not a decimal number"),
        ("\"30310.2\"", "\"30305.8\"", "row 0"),
        ("1688673600000", "1688673600", "row 0"),
        ("\"75765.25\",23", "\"-1\",23", "row 0"),
    ] {
        let error = bars(Venue::Binance, &BINANCE_BARS.replacen(from, to, 1), OPEN).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn books_are_read_best_first() {
    let level = |price, size| Level { price, size };
    let of = |venue| {
        let body = BOOKS.iter().find(|(v, _)| *v == venue).unwrap().1;
        let book = book(venue, body).unwrap();
        assert_eq!(book.venue(), venue);
        book
    };
    let kraken = of(Venue::Kraken);
    assert_eq!(kraken.symbol(), "XBTUSD");
    assert_eq!(kraken.asks(), [level(30_384.1, 2.059), level(30_393.7, 9.871)]);
    assert_eq!(kraken.bids(), [level(30_297.0, 1.115), level(30_296.7, 2.002)]);
    assert_eq!(kraken.taken_at(), OPEN, "it tells no time of its own");
    let okx = of(Venue::Okx);
    assert_eq!(okx.bids(), [level(41_006.7, 0.487_921), level(41_006.5, 0.24)]);
    assert_eq!(okx.taken_at(), Time(1_704_067_200_000));
    let coinbase = of(Venue::Coinbase);
    // Up to a tenth away from the best, inclusive.
    assert_eq!(coinbase.bids(), [level(100.0, 6.3), level(99.5, 1.0), level(90.0, 2.0)]);
    assert_eq!(coinbase.asks(), [level(100.5, 2.0), level(110.55, 1.0)]);
    assert_eq!(coinbase.taken_at(), Time(1_613_092_163_334));
    let binance = of(Venue::Binance);
    assert_eq!((binance.bids().len(), binance.asks()), (2, &[level(4.000_002, 12.0)][..]));
}

#[test]
fn empty_and_crossed_books_are_for_the_reader_to_judge() {
    for (venue, body) in BOOKS {
        let mut json: serde_json::Value = serde_json::from_str(body).unwrap();
        let inner = match venue {
            Venue::Kraken => &mut json["result"]["XXBTZUSD"],
            Venue::Okx => &mut json["data"][0],
            Venue::Coinbase | Venue::Binance => &mut json,
        };
        let bids = inner["bids"].take();
        inner["bids"] = inner["asks"].as_array().unwrap()[..1].into();
        let crossed = book(venue, &json.to_string()).unwrap();
        assert_eq!(crossed.bids()[0].price, crossed.asks()[0].price, "{venue}");
        let inner = match venue {
            Venue::Kraken => &mut json["result"]["XXBTZUSD"],
            Venue::Okx => &mut json["data"][0],
            Venue::Coinbase | Venue::Binance => &mut json,
        };
        inner["bids"] = bids;
        inner["asks"] = serde_json::json!([]);
        let one_sided = book(venue, &json.to_string()).unwrap();
        assert!(one_sided.asks().is_empty() && one_sided.bids().len() >= 2, "{venue}");
    }
}

#[test]
fn books_are_refused_by_the_place_that_is_wrong() {
    type Case = (Venue, &'static str, &'static str, &'static str);
    let cases: &[Case] = &[
        (Venue::Kraken, "\"bids\"", "\"bid\"", "result.XXBTZUSD.bids"),
        (Venue::Kraken, "\"9.871\",1688671261", "\"9.871\"", "result.XXBTZUSD.asks[2]"),
        (Venue::Kraken, "\"9.871\"", "9.871", "result.XXBTZUSD.asks[2].size"),
        (Venue::Kraken, "\"9.871\"", "\"-9.871\"", "result.XXBTZUSD.asks[2].size"),
        (Venue::Kraken, "\"30387.90000\"", "\"30383\"", "result.XXBTZUSD.asks[1].price"),
        (Venue::Kraken, "\"30387.90000\"", "\"30384.1\"", "result.XXBTZUSD.asks[1].price"),
        (Venue::Kraken, "\"30296.70000\"", "\"30297.1\"", "result.XXBTZUSD.bids[1].price"),
        (Venue::Kraken, "\"30297.00000\"", "\"0.00000\"", "result.XXBTZUSD.bids[0].price"),
        (Venue::Kraken, "\"XXBTZUSD\":{", "\"A\":{},\"B\":{", "result"),
        (Venue::Kraken, "[[\"30384.10000\"", "[null,[\"30384.10000\"", "result.XXBTZUSD.asks[0]"),
        (Venue::Okx, "\"ts\":\"1704067200000\"", "\"t\":0", "data[0].ts"),
        (Venue::Okx, "\"ts\":\"1704067200000\"", "\"ts\":1704067200000", "data[0].ts"),
        (Venue::Okx, "\"ts\":\"1704067200000\"", "\"ts\":\"soon\"", "data[0].ts"),
        (Venue::Okx, "\"1704067200000\"", "\"1704067200000000\"", "data[0].ts"),
        (Venue::Okx, "\"1704067200000\"", "\"1704067200\"", "data[0].ts"),
        (Venue::Okx, "\"0.3\",\"0\",\"2\"", "\"0.3\"", "data[0].asks[1]"),
        (Venue::Okx, "\"41006.9\"", "\"NaN\"", "data[0].asks[1].price"),
        (Venue::Okx, "\"41006.6\"", "\"41006.7\"", "data[0].bids[1].price"),
        (Venue::Okx, "\"asks\":[[", "\"asks\":{},\"x\":[[", "data[0].asks"),
        (
            Venue::Okx,
            "\"data\":[{",
            "\"data\":[{\"bids\":[],\"asks\":[],\"ts\":\"1704067200000\"},{",
            "data",
        ),
        (Venue::Coinbase, "\"99.5\"", "99.5", "bids[1].price"),
        (Venue::Coinbase, "\"99.5\"", "\"100.01\"", "bids[1].price"),
        (Venue::Coinbase, "\"500\",3", "\"500\"", "bids[3]"),
        // Even where nobody looks: a level that is out of order says that something is wrong.
        (Venue::Coinbase, "\"110.56\"", "\"110.50\"", "asks[2].price"),
        (Venue::Coinbase, "\"2021-02-12T01:09:23.334723Z\"", "\"yesterday\"", "time"),
        (Venue::Coinbase, "\"asks\"", "\"offers\"", "asks"),
        (Venue::Binance, "\"lastUpdateId\":1027024", "\"lastUpdateId\":\"1\"", "lastUpdateId"),
        (Venue::Binance, "\"12.00000000\"", "\"1e3\"", "asks[0].size"),
        (Venue::Binance, "\"3.90000000\"", "\"4.10000000\"", "bids[1].price"),
        (Venue::Binance, ",\"12.00000000\"", "", "asks[0]"),
    ];
    for (venue, from, to, path) in cases {
        let good = BOOKS.iter().find(|(v, _)| v == venue).unwrap().1;
        assert!(good.contains(from), "{venue}: {from}");
        let error = book(*venue, &good.replacen(from, to, 1)).unwrap_err();
        assert_eq!(error.path(), *path, "{venue}: {from} -> {to}: {error}");
    }
    let two = r#"{"code":"0","msg":"","data":[]}"#;
    assert_eq!(book(Venue::Okx, two).unwrap_err().to_string(), "data: there is no book in it");
}

#[test]
fn what_is_no_answer_is_refused_everywhere() {
    type Reader = fn(&[u8]) -> Option<PayloadError>;
    let readers: [(&str, &str, Reader); 15] = [
        ("kraken bars", KRAKEN_BARS, |b| kraken::bars(b, "XBTUSD", Interval::Hour, OPEN).err()),
        ("kraken book", KRAKEN_BOOK, |b| kraken::book(b, "XBTUSD", OPEN).err()),
        ("kraken listings", KRAKEN_PAIRS, |b| kraken::listings(b).err()),
        ("kraken tickers", KRAKEN_TICKER, |b| kraken::tickers(b).err()),
        ("okx bars", OKX_BARS, |b| okx::bars(b, Interval::Hour, OPEN).err()),
        ("okx book", OKX_BOOK, |b| okx::book(b, "BTC-USDT", OPEN).err()),
        ("okx listings", OKX_INSTRUMENTS, |b| okx::listings(b).err()),
        ("okx tickers", OKX_TICKERS, |b| okx::tickers(b).err()),
        ("coinbase bars", COINBASE_BARS, |b| coinbase::bars(b, Interval::Hour, OPEN).err()),
        ("coinbase book", COINBASE_BOOK, |b| coinbase::book(b, "BTC-USD", OPEN).err()),
        ("coinbase listings", COINBASE_PRODUCTS, |b| coinbase::listings(b).err()),
        ("binance bars", BINANCE_BARS, |b| binance::bars(b, Interval::Hour, OPEN).err()),
        ("binance book", BINANCE_BOOK, |b| binance::book(b, "BTCUSDT", OPEN).err()),
        ("binance listings", BINANCE_INFO, |b| binance::listings(b).err()),
        ("binance tickers", BINANCE_TICKERS, |b| binance::tickers(b).err()),
    ];
    for (name, good, read) in readers {
        assert_eq!(read(good.as_bytes()), None, "{name}");
        for (body, want) in [
            ("", "the body is empty"),
            ("<html>502</html>", "HTML where JSON was expected"),
            ("null", "null where"),
            ("5", "a number where"),
            ("\"ok\"", "text where"),
            ("true", "a boolean where"),
        ] {
            let error = read(body.as_bytes()).unwrap_or_else(|| panic!("{name} took {body}"));
            let text = error.to_string();
            // The reader of the market's candles has words of its own for a wrong type.
            assert!(text.starts_with(want) || text.contains("expected an array"), "{name}: {text}");
        }
        // Cut anywhere, it is no answer.
        for end in 0..good.len() {
            assert!(read(&good.as_bytes()[..end]).is_some(), "{name} took {end} bytes");
        }
        let other = if good.trim_start().starts_with('[') { "{}" } else { "[]" };
        assert!(read(other.as_bytes()).is_some(), "{name}");
    }
}

#[test]
fn listings_have_usual_names() {
    let view =
        |listings: Result<Vec<watchbell_venues::native::Listing>, PayloadError>| -> Vec<String> {
            let line = |l: watchbell_venues::native::Listing| {
                format!(
                    "{} {} {}/{} {} {} {}",
                    l.symbol, l.name, l.base, l.quote, l.online, l.status, l.class
                )
            };
            listings.unwrap().into_iter().map(line).collect()
        };
    assert_eq!(
        view(kraken::listings(KRAKEN_PAIRS.as_bytes())),
        [
            "XBTUSD XBTUSD BTC/USD true online currency",
            "XDGUSD XDGUSD DOGE/USD false cancel_only currency",
            "ETHEUR.d ETHEUR.d ETH/EUR false unknown currency",
            "ZETAUSD ZETAUSD ZETA/USD true online currency",
        ]
    );
    assert_eq!(
        view(okx::listings(OKX_INSTRUMENTS.as_bytes())),
        [
            "BTC-USDT BTC-USDT BTC/USDT true live currency",
            "NEW-USDT NEW-USDT NEW/USDT false preopen currency"
        ]
    );
    assert_eq!(
        view(coinbase::listings(COINBASE_PRODUCTS.as_bytes())),
        [
            "BTC-USD BTC-USD BTC/USD true online currency",
            "OLD-USD OLD-USD OLD/USD false trading_disabled currency",
            "LIM-USD LIM-USD LIM/USD false cancel_only currency",
            "OFF-USD OFF-USD OFF/USD false delisted currency",
        ]
    );
    assert_eq!(
        view(binance::listings(BINANCE_INFO.as_bytes())),
        [
            "BTCUSDT BTCUSDT BTC/USDT true TRADING currency",
            "OLDUSDT OLDUSDT OLD/USDT false BREAK currency"
        ]
    );
    for (error, path) in [
        (
            kraken::listings(KRAKEN_PAIRS.replacen("XBT/USD", "XBTUSD", 1).as_bytes()),
            "result.XXBTZUSD.wsname",
        ),
        (
            kraken::listings(KRAKEN_PAIRS.replacen("\"altname\":\"XDGUSD\",", "", 1).as_bytes()),
            "result.XDGUSD.altname",
        ),
        (
            kraken::listings(KRAKEN_PAIRS.replacen("\"currency\"", "7", 1).as_bytes()),
            "result.XXBTZUSD.aclass_base",
        ),
        (okx::listings(OKX_INSTRUMENTS.replacen("SPOT", "SWAP", 1).as_bytes()), "data[0].instType"),
        (
            okx::listings(OKX_INSTRUMENTS.replacen("\"live\"", "null", 1).as_bytes()),
            "data[0].state",
        ),
        (
            coinbase::listings(COINBASE_PRODUCTS.replacen("\"id\":\"OLD-USD\",", "", 1).as_bytes()),
            "[1].id",
        ),
        (
            coinbase::listings(COINBASE_PRODUCTS.replacen("false", "\"no\"", 1).as_bytes()),
            "[0].trading_disabled",
        ),
        (
            binance::listings(BINANCE_INFO.replacen("\"BREAK\"", "0", 1).as_bytes()),
            "symbols[1].status",
        ),
    ] {
        assert_eq!(error.unwrap_err().path(), path);
    }
}

#[test]
fn tickers_tell_volume_and_mean() {
    let ticker = |symbol: &str, last, vwap_24h, volume_24h| Ticker {
        symbol: symbol.into(),
        last,
        vwap_24h,
        volume_24h,
    };
    assert_eq!(
        kraken::tickers(KRAKEN_TICKER.as_bytes()).unwrap(),
        [
            ticker("XXBTZUSD", 30_303.2, Some(30_689.132_05), 4_412.736),
            ticker("AI16ZUSD", 0.0, None, 0.0),
        ]
    );
    // A market that has never traded has no ticker; one without trades of today has no mean.
    assert_eq!(
        okx::tickers(OKX_TICKERS.as_bytes()).unwrap(),
        [ticker("BTC-USDT", 30_300.0, Some(30_500.0), 10.0), ticker("OLD-USDT", 2.5, None, 0.0)]
    );
    assert_eq!(
        binance::tickers(BINANCE_TICKERS.as_bytes()).unwrap(),
        [ticker("BTCUSDT", 30_300.1, Some(30_250.5), 123.5), ticker("NEWUSDT", 0.0, None, 0.0),]
    );
    for (error, path) in [
        (
            kraken::tickers(KRAKEN_TICKER.replacen("\"4412.736\"", "4412.736", 1).as_bytes()),
            "result.XXBTZUSD.v.24h",
        ),
        (
            kraken::tickers(KRAKEN_TICKER.replacen(",\"4412.736\"", "", 1).as_bytes()),
            "result.XXBTZUSD.v",
        ),
        (
            kraken::tickers(KRAKEN_TICKER.replacen("\"c\"", "\"d\"", 1).as_bytes()),
            "result.XXBTZUSD.c",
        ),
        (
            okx::tickers(OKX_TICKERS.replacen("\"305000\"", "\"-1\"", 1).as_bytes()),
            "data[0].volCcy24h",
        ),
        (okx::tickers(OKX_TICKERS.replacen("\"last\"", "\"first\"", 1).as_bytes()), "data[0].last"),
        (okx::tickers(OKX_TICKERS.replacen("SPOT", "SWAP", 1).as_bytes()), "data[0].instType"),
        (
            binance::tickers(BINANCE_TICKERS.replacen("\"123.5\"", "\"nan\"", 1).as_bytes()),
            "[0].volume",
        ),
    ] {
        assert_eq!(error.unwrap_err().path(), path);
    }
}

proptest::proptest! {
    /// Whatever becomes of an answer on its way: nothing panics, and what is taken holds what is
    /// promised of it.
    #[test]
    fn damaged_answers_are_refused_or_hold_what_is_promised(
        venue in 0_usize..4,
        damage in proptest::collection::vec((0_usize..600, 0_u8..3, proptest::num::u8::ANY), 1..4),
        now in -3_i64..3,
    ) {
        let now = OPEN + Millis(now * HOUR.0);
        let hurt = |good: &str| {
            let mut body = good.as_bytes().to_vec();
            for (at, how, byte) in &damage {
                let at = at % body.len();
                match how {
                    0 => body[at] = *byte,
                    1 => drop(body.remove(at)),
                    _ => body.insert(at, b"0123456789.,-\"[]{}e"[usize::from(*byte) % 19]),
                }
            }
            String::from_utf8_lossy(&body).into_owned()
        };
        let (venue, good) = BARS[venue];
        if let Ok(bars) = bars(venue, &hurt(good), now) {
            for bar in &bars {
                proptest::prop_assert!(bar.open_time + HOUR <= now);
                proptest::prop_assert_eq!(bar.open_time.floor(HOUR), bar.open_time);
                proptest::prop_assert!(0.0 < bar.low && bar.low <= bar.open && bar.open <= bar.high);
                proptest::prop_assert!(bar.low <= bar.close && bar.close <= bar.high);
                proptest::prop_assert!(bar.high.is_finite() && bar.volume.is_finite());
                proptest::prop_assert!(bar.volume >= 0.0 && bar.quote_volume >= 0.0);
            }
            proptest::prop_assert!(bars.windows(2).all(|w| w[0].open_time < w[1].open_time));
        }
        let good = BOOKS.iter().find(|(v, _)| *v == venue).unwrap().1;
        if let Ok(book) = book(venue, &hurt(good)) {
            let sound = |l: &Level| l.price > 0.0 && l.size > 0.0 && (l.price + l.size).is_finite();
            proptest::prop_assert!(book.bids().iter().chain(book.asks()).all(sound));
            proptest::prop_assert!(book.bids().windows(2).all(|w| w[0].price > w[1].price));
            proptest::prop_assert!(book.asks().windows(2).all(|w| w[0].price < w[1].price));
        }
    }
}
