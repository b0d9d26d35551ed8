//! The native readers against every recorded answer that belongs to their calls. The recordings are used
//! where they exist; small copies are in the other tests.

use std::path::Path;

use serde_json::Value;
use watchbell_core::{Millis, Time};
use watchbell_venues::native::{Interval, Level, NativeBook, binance, coinbase, kraken, okx};

use crate::binance_payloads::{read, recordings};

fn json(path: &Path) -> Value {
    serde_json::from_slice(&read(path)).unwrap()
}

/// The bodies of a file of samples, by the name of the call.
fn sample(file: &Value, name: &str) -> Vec<u8> {
    let samples = file.as_array().unwrap();
    samples.iter().find(|s| s["name"] == name).unwrap()["body"].to_string().into_bytes()
}

const LATER: Time = Time(4_000_000_000_000);

/// The same rows as bars of an hour: the recordings are of minutes. `unit` is how many milliseconds a
/// number in the time's column is.
fn hourly(rows: &mut Value, unit: i64) -> Time {
    let rows = rows.as_array_mut().unwrap();
    let number = |v: &Value| v.as_i64().unwrap_or_else(|| v.as_str().unwrap().parse().unwrap());
    let first = rows.iter().map(|row| number(&row[0])).min().unwrap() * unit;
    let base = Time(first).floor(Millis::from_hours(1));
    for row in rows {
        let at = (base.0 + (number(&row[0]) * unit - first) * 60) / unit;
        row[0] = if row[0].is_string() { at.to_string().into() } else { at.into() };
    }
    base
}

#[test]
fn kraken_bars() {
    let Some(data) = recordings() else { return };
    let mut page = json(&data.join("kraken/fixtures/http_ohlc.json.gz"));
    let minutes = page.to_string();
    let error = kraken::bars(minutes.as_bytes(), "XBTUSDT", Interval::Hour, LATER).unwrap_err();
    assert!(
        error.path().starts_with("result.XBTUSDT[") && error.path().ends_with(".time"),
        "{error}"
    );

    let rows = &mut page["result"]["XBTUSDT"];
    let base = hourly(rows, 1_000);
    let rows = rows.clone();
    let count = rows.as_array().unwrap().len();
    assert_eq!(count, 721);
    page["result"]["last"] = rows[count - 2][0].clone();
    let bars = kraken::bars(page.to_string().as_bytes(), "XBTUSDT", Interval::Hour, LATER).unwrap();
    assert_eq!((bars.len(), bars[0].open_time), (720, base));
    for (bar, row) in bars.iter().zip(rows.as_array().unwrap()) {
        let cell = |i: usize| row[i].as_str().unwrap();
        assert_eq!(bar.open_time.0, row[0].as_i64().unwrap() * 1_000);
        assert_eq!(format!("{:.1}", bar.open), cell(1));
        assert_eq!(format!("{:.1}", bar.close), cell(4));
        assert_eq!(format!("{:.8}", bar.volume), cell(6));
        if cell(5) == "0.0" {
            assert_eq!((bar.volume, bar.quote_volume), (0.0, 0.0));
        } else {
            assert_eq!(bar.quote_volume, bar.volume * cell(5).parse::<f64>().unwrap());
        }
    }

    // A documented sample whose `last` lies beyond its rows: the last row is left out all the same.
    let samples = json(&data.join("kraken/rest/samples-spot.json"));
    let mut page: Value = serde_json::from_slice(&sample(&samples, "GetKlines")).unwrap();
    let base = hourly(&mut page["result"]["XXBTZUSD"], 1_000);
    page["result"]["last"] = (base.0 / 1_000 + 36_000).into();
    let bars = kraken::bars(page.to_string().as_bytes(), "XBTUSD", Interval::Hour, LATER).unwrap();
    assert_eq!((bars.len(), bars[2].high), (3, 30_300.4));
}

#[test]
fn kraken_books() {
    let Some(data) = recordings() else { return };
    let at = Time(1_762_820_300_000);
    let book = |body: &[u8], symbol| kraken::book(body, symbol, at).unwrap();
    let fixture = read(&data.join("kraken/fixtures/http_order_book.json"));
    let book_of_five = NativeBook::Kraken(book(&fixture, "XBTUSDT"));
    assert_eq!((book_of_five.bids().len(), book_of_five.asks().len()), (5, 5));
    assert_eq!(book_of_five.bids()[0], Level { price: 105_944.2, size: 0.002 });
    assert_eq!(book_of_five.taken_at(), at);
    let http = json(&data.join("kraken/http/depth-2019.json"));
    let body = http["response"]["body"].as_str().unwrap();
    let hundred = NativeBook::Kraken(book(body.as_bytes(), "BCHEUR"));
    assert_eq!((hundred.bids().len(), hundred.asks().len()), (100, 100));
    assert_eq!(hundred.asks()[0], Level { price: 241.7, size: 1.5 });
    assert!(kraken::book(body.as_bytes(), "XBTUSD", at).is_err(), "another market");
    let samples = json(&data.join("kraken/rest/samples-spot.json"));
    book(&sample(&samples, "GetOrderBook"), "XBTUSD");
}

#[test]
fn kraken_listings_and_tickers() {
    let Some(data) = recordings() else { return };
    let all = kraken::listings(&read(&data.join("kraken/rest/AssetPairs.json.gz"))).unwrap();
    assert_eq!(all.len(), 304);
    let of = |symbol: &str| all.iter().find(|l| l.symbol == symbol).unwrap();
    for (symbol, base, quote) in [
        ("XBTUSD", "BTC", "USD"),
        ("ETHXBT", "ETH", "BTC"),
        ("XDGUSDT", "DOGE", "USDT"),
        ("XTZGBP", "XTZ", "GBP"),
        ("XLMUSD", "XLM", "USD"),
        ("USDTUSD", "USDT", "USD"),
        ("EURUSD", "EUR", "USD"),
        ("XBTUSD.d", "BTC", "USD"),
        ("ETHCAD.d", "ETH", "CAD"),
    ] {
        assert_eq!((of(symbol).base.as_str(), of(symbol).quote.as_str()), (base, quote));
    }
    // In 2021 it told no status.
    assert!(all.iter().all(|l| !l.online && l.status == "unknown" && l.class == "currency"));
    for (file, symbol, base, class) in [
        ("http_asset_pairs.json", "XBTUSDT", "BTC", "currency"),
        ("http_asset_pairs_tokenized.json", "AAPLxUSD", "AAPLx", "tokenized_asset"),
    ] {
        let one = kraken::listings(&read(&data.join("kraken/fixtures").join(file))).unwrap();
        let l = &one[0];
        assert_eq!((l.symbol.as_str(), l.base.as_str(), l.class.as_str()), (symbol, base, class));
        assert!(l.online);
    }
    let samples = json(&data.join("kraken/rest/samples-spot.json"));
    assert!(kraken::listings(&sample(&samples, "GetSymbols")).unwrap().iter().all(|l| l.online));

    let http = json(&data.join("kraken/http/ticker-all-pairs-assetVersion1-2026.json.gz"));
    let body = http["response"]["body"].as_str().unwrap();
    let tickers = kraken::tickers(body.as_bytes()).unwrap();
    let plain: Value = serde_json::from_str(body).unwrap();
    assert_eq!(tickers.len(), 1_530);
    for t in &tickers {
        let row = &plain["result"][&t.symbol];
        assert_eq!(t.last.to_string().parse::<f64>(), row["c"][0].as_str().unwrap().parse());
        assert_eq!(t.vwap_24h.is_none(), t.volume_24h == 0.0, "{}", t.symbol);
    }
    assert_eq!(tickers.iter().filter(|t| t.vwap_24h.is_none()).count(), 108);
    for (body, symbol, last, volume) in [
        (
            read(&data.join("kraken/fixtures/http_ticker.json")),
            "XBTUSDT",
            105_899.4,
            163.289_080_96,
        ),
        (sample(&samples, "GetTicker"), "XXBTZUSD", 30_303.2, 4_412.736_017_99),
        (
            json(&data.join("kraken/http/ticker-2017.json"))["response"]["body"]
                .as_str()
                .unwrap()
                .into(),
            "BCHEUR",
            355.4,
            4_433.772_888_26,
        ),
    ] {
        let t = &kraken::tickers(&body).unwrap()[0];
        assert_eq!((t.symbol.as_str(), t.last, t.volume_24h), (symbol, last, volume));
    }
}

#[test]
fn okx_answers() {
    let Some(data) = recordings() else { return };
    let fixtures = data.join("okx/fixtures");
    let samples = json(&data.join("okx/rest/samples-v5-public.json"));

    let mut page = json(&fixtures.join("http_get_candlesticks_full.json"));
    let minutes = page.to_string();
    let error = okx::bars(minutes.as_bytes(), Interval::Hour, LATER).unwrap_err();
    assert_eq!(error.path(), "data[0].time");
    let base = hourly(&mut page["data"], 1);
    let bars = okx::bars(page.to_string().as_bytes(), Interval::Hour, LATER).unwrap();
    assert_eq!((bars.len(), bars[0].open_time), (2, base));
    assert_eq!((bars[1].open, bars[1].high, bars[1].volume), (102_806.1, 102_820.4, 1_040.37));
    assert_eq!(bars[0].quote_volume, 7_364_701.579_52);
    // Made by hand: oldest first, which no answer of this exchange is.
    let mut page = json(&fixtures.join("http_get_candlesticks.json"));
    hourly(&mut page["data"], 1);
    let error = okx::bars(page.to_string().as_bytes(), Interval::Hour, LATER).unwrap_err();
    assert_eq!(error.path(), "data[1].time");
    assert!(error.problem().contains("out of order"), "{error}");
    // Two rows of the same instant, off every grid.
    for name in ["GetKlines", "GetKlineHistory"] {
        let error = okx::bars(&sample(&samples, name), Interval::Hour, LATER).unwrap_err();
        assert_eq!(error.path(), "data[0].time", "{name}");
    }

    for (body, bid, ask, ts) in [
        (read(&fixtures.join("http_get_order_book.json")), 41_006.7, 41_006.8, 1_704_067_200_000),
        (sample(&samples, "GetOrderBook"), 41_006.3, 41_006.8, 1_629_966_436_396),
    ] {
        let book = okx::book(&body, "BTC-USDT", LATER).unwrap();
        let book = NativeBook::Okx(book);
        assert_eq!((book.bids()[0].price, book.asks()[0].price), (bid, ask));
        assert_eq!(book.taken_at(), Time(ts));
    }

    let all = okx::listings(&read(&data.join("okx/rest/instruments-SPOT.json.gz"))).unwrap();
    assert!(all.len() == 513 && all.iter().all(|l| l.online));
    assert_eq!((all[0].symbol.as_str(), all[0].base.as_str()), ("BTC-USDT", "BTC"));
    let five = okx::listings(&read(&fixtures.join("http_get_instruments_spot.json"))).unwrap();
    assert_eq!((five.len(), five[4].quote.as_str()), (5, "USD"));
    assert_eq!(okx::listings(&sample(&samples, "GetSymbols")).unwrap().len(), 1);
    // Other kinds of instruments are none of ours.
    for file in [
        "fixtures/http_get_instruments_swap.json",
        "fixtures/http_get_instruments_futures.json",
        "fixtures/http_get_instruments_option.json",
        "fixtures/http_get_instruments_margin.json",
        "rest/instruments-SWAP.json",
        "rest/instruments-FUTURES.json",
    ] {
        let error = okx::listings(&read(&data.join("okx").join(file))).unwrap_err();
        assert_eq!(error.path(), "data[0].instType", "{file}");
    }
    for name in ["GetTicker", "GetTickers"] {
        let mut page: Value = serde_json::from_slice(&sample(&samples, name)).unwrap();
        let error = okx::tickers(page.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.path(), "data[0].instType", "{name}");
        for row in page["data"].as_array_mut().unwrap() {
            row["instType"] = "SPOT".into();
        }
        let tickers = okx::tickers(page.to_string().as_bytes()).unwrap();
        assert_eq!((tickers[0].last, tickers[0].vwap_24h), (9_999.99, Some(1.0)));
    }
}

#[test]
fn coinbase_answers() {
    let Some(data) = recordings() else { return };
    let rest = data.join("coinbase/rest");
    let page = read(&rest.join("exchange-candles-BTC-USD-1d-2026.json"));
    let at = |text: &str| Time::parse(text).unwrap();
    let bars = coinbase::bars(&page, Interval::Day, at("2026-08-11")).unwrap();
    assert_eq!((bars.len(), bars[9].open_time), (10, at("2026-08-10")));
    let (first, last) = (bars[0], bars[9]);
    assert_eq!(
        (first.open, first.high, first.low, first.close),
        (62_826.69, 63_093.0, 62_209.81, 62_764.2)
    );
    assert_eq!(
        (last.open, last.high, last.low, last.close),
        (64_848.68, 65_341.83, 63_733.03, 63_911.88)
    );
    assert_eq!(last.volume, 6_197.029_445_27);
    // A millisecond earlier the newest day is not over.
    let bars = coinbase::bars(&page, Interval::Day, at("2026-08-11") - Millis(1)).unwrap();
    assert_eq!(bars.len(), 9);

    let all = coinbase::listings(&read(&rest.join("exchange-products.json"))).unwrap();
    assert!(all.len() == 162 && all.iter().all(|l| l.online));
    assert_eq!((all[0].base.as_str(), all[0].quote.as_str()), ("SKL", "EUR"));
    let samples = json(&rest.join("samples-advanced.json"));
    let book =
        coinbase::book(&sample(&samples, "GetAggregatedOrderBook"), "ETH-USDT", LATER).unwrap();
    let book = NativeBook::Coinbase(book);
    assert_eq!(book.bids(), [Level { price: 6_247.58, size: 6.357_814_6 }]);
    assert_eq!(book.taken_at(), at("2021-02-12T01:09:23.334Z"));

    // Whole books, from the snapshots of the stream: the same levels, without the number of orders.
    let feed = read(&data.join("coinbase/ws/exchange-feed-20210417.jsonl.gz"));
    let mut books = 0;
    for line in feed.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let line: Value = serde_json::from_slice(line).unwrap();
        let msg = &line["msg"];
        if msg["type"] != "snapshot" {
            continue;
        }
        let mut msg = msg.clone();
        for side in ["bids", "asks"] {
            for level in msg[side].as_array_mut().unwrap() {
                level.as_array_mut().unwrap().push(1.into());
            }
        }
        let book = coinbase::book(msg.to_string().as_bytes(), "X", LATER).unwrap();
        let book = NativeBook::Coinbase(book);
        let within = |level: &Value, best: f64| {
            let price: f64 = level[0].as_str().unwrap().parse().unwrap();
            (price / best - 1.0).abs() <= 0.1 + 1e-12
        };
        for (levels, side) in [(book.bids(), "bids"), (book.asks(), "asks")] {
            let want = msg[side].as_array().unwrap().iter();
            assert_eq!(levels.len(), want.filter(|l| within(l, levels[0].price)).count());
        }
        books += 1;
    }
    assert_eq!(books, 10);

    // The other interface of this exchange has other shapes, and is not mistaken for this one.
    let fixtures = data.join("coinbase/fixtures");
    assert!(
        coinbase::bars(&read(&fixtures.join("http_candles.json")), Interval::Day, LATER).is_err()
    );
    let error =
        coinbase::book(&read(&fixtures.join("http_product_book.json")), "X", LATER).unwrap_err();
    assert_eq!(error.path(), "bids");
    assert!(coinbase::listings(&read(&fixtures.join("http_products.json"))).is_err());
}

#[test]
fn binance_answers() {
    let Some(data) = recordings() else { return };
    let rest = data.join("binance/rest");
    let (mut pages, mut books) = (0, 0);
    for entry in std::fs::read_dir(&rest).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let body = read(&path);
        let interval = match name.split('-').nth(3) {
            Some("1h") => Interval::Hour,
            Some("1d") => Interval::Day,
            _ => Interval::Hour,
        };
        if name.starts_with("spot-depth-") {
            let book = binance::book(&body, "X", LATER).unwrap_or_else(|e| panic!("{name}: {e}"));
            let book = NativeBook::Binance(book);
            assert!(!book.bids().is_empty() && book.bids()[0].price < book.asks()[0].price);
            books += 1;
        } else if name.contains("-klines-")
            && ["1h", "1d"].contains(&name.split('-').nth(3).unwrap_or(""))
        {
            let plain: Vec<Value> = serde_json::from_slice(&body).unwrap();
            match binance::bars(&body, interval, LATER) {
                Ok(bars) => assert_eq!(bars.len(), plain.len(), "{name}"),
                Err(e) => assert!(plain.len() > 1_000, "{name}: {e}"),
            }
            pages += 1;
        }
    }
    assert!(pages >= 5 && books >= 5, "{pages} {books}");
    let all = binance::listings(&read(&rest.join("spot-exchangeInfo.json.gz"))).unwrap();
    assert_eq!(all.len(), 1_695);
    let eth = all.iter().find(|l| l.symbol == "ETHBTC").unwrap();
    assert!(eth.online && eth.base == "ETH" && eth.quote == "BTC");
    let tickers = binance::tickers(&read(&rest.join("spot-ticker24hr-all-trimmed.json"))).unwrap();
    assert!(!tickers.is_empty());
}

/// Each documented error of each exchange, as an answer to a book: refused by every reader too, should it
/// ever reach one.
#[test]
fn documented_errors_are_no_books() {
    let Some(data) = recordings() else { return };
    for venue in ["kraken", "okx", "coinbase"] {
        let cases = json(&data.join(venue).join("errors/documented-errors.json"));
        for case in cases.as_array().unwrap() {
            let body = match &case["body"] {
                Value::String(text) => text.clone().into_bytes(),
                other => other.to_string().into_bytes(),
            };
            let error = match venue {
                "kraken" => kraken::book(&body, "XBTUSD", LATER).err(),
                "okx" => okx::book(&body, "BTC-USDT", LATER).err(),
                _ => coinbase::book(&body, "BTC-USD", LATER).err(),
            };
            let error = error.unwrap_or_else(|| panic!("{venue}: {case}"));
            let whole = body.starts_with(b"<") || body == b"Unauthorized";
            assert_eq!(error.path().is_empty(), whole, "{venue}: {error}");
        }
    }
}
