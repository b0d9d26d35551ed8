//! Recorded and mutilated answers against the readers. The recordings are used where they exist; the
//! small copies below always.

use std::io::Read;
use std::path::{Path, PathBuf};

use watchbell_core::Time;
use watchbell_venues::binance::wire::{
    AggTrade, BookTicker, Depth, ErrorBody, ExchangeInfo, Interval, Kline, ServerTime, Ticker24h,
};
use watchbell_venues::binance::{Asked, Frame, StreamEvent, parse_frame, parse_klines};

/// Two minutes of BTCUSDT.
const TWO: &str = r#"[[1588740120000,"9033.34000000","9039.99000000","9032.75000000","9033.15000000","31.19296800",1588740179999,"281893.08800082",282,"6.35810300","57447.26912415","0"],[1588740180000,"9033.15000000","9035.00000000","9012.00000000","9012.00000000","135.21584100",1588740239999,"1220631.05800100",864,"31.88240800","287831.95256737","0"]]"#;

/// The folder of recordings, where it exists.
pub(crate) fn recordings() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/data");
    dir.is_dir().then_some(dir)
}

pub(crate) fn read(path: &Path) -> Vec<u8> {
    let raw = std::fs::read(path).unwrap();
    if path.extension().is_some_and(|e| e == "gz") {
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(&raw[..]).read_to_end(&mut out).unwrap();
        return out;
    }
    raw
}

fn asked(interval: Interval) -> Asked {
    Asked { interval, start: None, end: None, limit: 1_000 }
}

fn minute(body: &str) -> Result<Vec<Kline>, String> {
    parse_klines(body.as_bytes(), &asked(Interval::M1))
}

#[test]
fn a_page_is_read_exactly() {
    let rows = minute(TWO).unwrap();
    assert_eq!(
        rows[0],
        Kline {
            open_time: Time(1_588_740_120_000),
            open: 9_033.34,
            high: 9_039.99,
            low: 9_032.75,
            close: 9_033.15,
            volume: 31.192_968,
            close_time: Time(1_588_740_179_999),
            quote_volume: 281_893.088_000_82,
            trades: 282,
            taker_buy_base: 6.358_103,
            taker_buy_quote: 57_447.269_124_15,
        }
    );
    assert_eq!(rows.len(), 2);
    assert_eq!(minute("[]"), Ok(vec![]));
    assert_eq!(minute(" [ ] "), Ok(vec![]));
}

#[test]
fn one_fault_rejects_the_page_and_is_named() {
    let cases = [
        ("price", r#""9039.99000000""#, r#""9032.99000000""#, "row 0: open 9033.34 is outside"),
        ("low", r#""9012.00000000","9012"#, r#""9099.00000000","9012"#, "row 1: open 9033.15 is"),
        ("negative", r#""9032.75000000""#, r#""-1""#, "row 0: low -1 is not a positive price"),
        ("zero", r#""9032.75000000""#, r#""0.00000000""#, "row 0: low 0 is not a positive price"),
        ("nan", r#""9032.75000000""#, r#""NaN""#, "row 0: low `NaN` is not a decimal number"),
        ("text", r#""9033.34000000""#, r#""abc""#, "row 0: open `abc` is not a decimal number"),
        ("number", r#""9033.34000000""#, "9033.34", "expected open as decimal text"),
        ("null", r#""9033.34000000""#, "null", "expected open as decimal text"),
        ("digits", r#""9033.34000000""#, r#""9033.3400000012345""#, "more than 15 significant"),
        ("volume", r#""31.19296800""#, r#""-31.1""#, "row 0: volume -31.1 is not an amount"),
        ("trades", ",282,", ",-282,", "row 0: -282 trades"),
        ("trades as text", ",282,", ",\"282\",", "row 0: invalid type: string"),
        ("close time", "1588740179999", "1588740180000", "row 0: close time 1588740180000 does"),
        ("close before", "1588740179999", "1588740119999", "row 0: close time 1588740119999 does"),
        ("grid", "[1588740120000", "[1588740120001", "row 0: open time 1588740120001 is not on"),
        ("narrow", r#","57447.26912415","0"]"#, r#","57447.26912415"]"#, "row 0: 11 values where"),
        ("narrower", r#","6.35810300","57447.26912415","0"]"#, "]", "row 0: 9 values where"),
        ("wide", r#"57447.26912415","0"]"#, r#"57447.26912415","0",1,2]"#, "row 0: 14 values"),
        ("conflict", "[1588740180000", "[1588740120000", "row 1: close time 1588740239999"),
        ("object", "[[1588740120000", "[{},[1588740120000", "row 0: invalid type: map"),
        ("cut", r#","0"]]"#, "", "EOF while parsing"),
        ("tail", r#","0"]]"#, r#","0"]] x"#, "trailing characters"),
    ];
    for (name, from, to, want) in cases {
        assert!(TWO.contains(from), "{name}");
        let error = minute(&TWO.replacen(from, to, 1)).unwrap_err();
        assert!(error.contains(want), "{name}: {error}");
    }
    for (body, want) in [
        ("null", "expected an array of candles"),
        ("{}", "expected an array of candles"),
        ("", "EOF"),
        ("<html>", "expected value"),
        ("\u{1f}\u{8b}", "expected value"),
    ] {
        assert!(minute(body).unwrap_err().contains(want), "{body}");
    }
    assert!(parse_klines(b"[\xff]", &asked(Interval::M1)).unwrap_err().contains("UTF-8"));
}

#[test]
fn rows_repeat_but_neither_contradict_nor_go_back() {
    let rows: Vec<&str> = TWO[1..TWO.len() - 1].splitn(2, "],").collect();
    let (a, b) = (format!("{}]", rows[0]), rows[1].to_owned());
    let page = |rows: &[&str]| minute(&format!("[{}]", rows.join(",")));
    assert_eq!(page(&[&a, &a, &b]).unwrap().len(), 2);
    assert_eq!(page(&[&a, &b, &a]).unwrap().len(), 2);
    let error = page(&[&b, &a]).unwrap_err();
    assert!(error.starts_with("row 1: open time 2020-05-06T04:42:00Z comes after"), "{error}");
    let other = a.replace("31.19296800", "31.19296801");
    let error = page(&[&a, &other]).unwrap_err();
    assert!(error.contains("row 1: open time 2020-05-06T04:42:00Z contradicts"), "{error}");
}

#[test]
fn wrong_units_and_rows_outside_the_range_are_caught() {
    let seconds = TWO.replace("0000,\"9", ",\"9").replace("9999,\"", ",\"");
    let micros = TWO.replace("0000,\"9", "0000000,\"9").replace("9999,\"", "9999999,\"");
    for body in [seconds, micros] {
        minute(&body).unwrap_err();
    }
    // Seconds that happen to lie on the grid, as they do every 1000 minutes.
    let on_grid = r#"[[1588740000,"1","1","1","1","1",1588740059,"1",1,"1","1","0"]]"#;
    assert!(minute(on_grid).unwrap_err().contains("not in milliseconds"));

    let (first, second) = (Time(1_588_740_120_000), Time(1_588_740_180_000));
    let within = |start, end| {
        let asked = Asked { interval: Interval::M1, start, end, limit: 1_000 };
        parse_klines(TWO.as_bytes(), &asked)
    };
    assert_eq!(within(Some(first), Some(second)).unwrap().len(), 2);
    assert!(within(Some(second), None).unwrap_err().starts_with("row 0: open time"));
    assert!(within(None, Some(first)).unwrap_err().starts_with("row 1: open time"));
    let one = Asked { limit: 1, ..asked(Interval::M1) };
    assert!(parse_klines(TWO.as_bytes(), &one).unwrap_err().contains("at most 1"));
}

#[test]
fn a_candle_that_an_outage_cut_short_is_taken() {
    // 2023-03-24 12:00, as the venue serves it to this day: no trades, and it ends after 40 minutes.
    let body = r#"[[1679659200000,"27820.65000000","27820.65000000","27820.65000000","27820.65000000","0.00000000",1679661583061,"0.00000000",0,"0.00000000","0.00000000","0"]]"#;
    let rows = parse_klines(body.as_bytes(), &asked(Interval::H1)).unwrap();
    assert!(!rows[0].is_final(Interval::H1, Time(1_679_662_799_999)));
    assert!(rows[0].is_final(Interval::H1, Time(1_679_662_800_000)));
}

#[test]
fn recorded_pages_are_accepted_whole() {
    let Some(data) = recordings() else { return };
    let mut pages = 0;
    for entry in std::fs::read_dir(data.join("binance/rest")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.contains("-klines-") {
            continue;
        }
        let interval: Interval =
            name.split('-').nth(3).unwrap().split('.').next().unwrap().parse().unwrap();
        let body = read(&path);
        let plain: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
        let rows = parse_klines(&body, &asked(interval)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(rows.len(), plain.len(), "{name}");
        for (row, plain) in rows.iter().zip(&plain) {
            let text = |i: usize| plain[i].as_str().unwrap();
            let decimals = text(4).split('.').nth(1).map_or(0, str::len);
            assert_eq!(format!("{:.decimals$}", row.close), text(4), "{name}");
            assert_eq!(row.open_time.0, plain[0].as_i64().unwrap());
        }
        pages += 1;
    }
    assert!(pages >= 10, "{pages}");
}

#[test]
fn the_edge_cases_do_what_is_expected_of_them() {
    let Some(data) = recordings() else { return };
    let edge = data.join("edge");
    let cases: Vec<serde_json::Value> =
        serde_json::from_slice(&read(&edge.join("expectations.json"))).unwrap();
    let mut seen = 0;
    for case in cases {
        let file = case["file"].as_str().unwrap();
        let Some(name) = file.strip_prefix("derived/binance-klines-") else { continue };
        let result = parse_klines(&read(&edge.join(file)), &asked(Interval::M1));
        match name {
            "truncated.json" => assert!(result.unwrap_err().contains("EOF")),
            "duplicate-row.json" => assert_eq!(result.unwrap().len(), 60),
            "empty.json" => assert_eq!(result, Ok(vec![])),
            "error-object-status-200.json" => {
                assert!(result.unwrap_err().contains("expected an array of candles"));
            }
            "gap.json" => {
                let rows = result.unwrap();
                let at = rows
                    .windows(2)
                    .position(|w| Interval::M1.next_open(w[0].open_time) != w[1].open_time)
                    .unwrap();
                assert_eq!(rows.len(), 57);
                assert_eq!(rows[at].open_time.0 + 60_000, 1_588_741_920_000);
                assert_eq!(
                    rows[at + 1].open_time - rows[at].open_time,
                    watchbell_core::Millis(240_000)
                );
            }
            other => panic!("no expectation is written for {other}"),
        }
        seen += 1;
    }
    assert_eq!(seen, 5);
}

#[test]
fn other_recorded_answers_are_read() {
    let Some(data) = recordings() else { return };
    let rest = data.join("binance/rest");
    for entry in std::fs::read_dir(&rest).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("spot-depth-") {
            let depth: Depth = serde_json::from_slice(&read(&path)).unwrap();
            depth.check().unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(!depth.bids.is_empty());
        }
    }
    let info: ExchangeInfo =
        serde_json::from_slice(&read(&rest.join("spot-exchangeInfo.json.gz"))).unwrap();
    assert_eq!((info.symbols.len(), info.weight_per_minute()), (1_695, Some(1_200)));
    let eth = info.symbols.iter().find(|s| s.symbol == "ETHBTC").unwrap();
    assert!(eth.is_trading());
    assert_eq!((eth.tick_size(), eth.step_size()), (Some("0.00000100"), Some("0.00010000")));
    assert_eq!(eth.min_notional(), Some("0.00010000"));
    let trades: Vec<AggTrade> =
        serde_json::from_slice(&read(&rest.join("spot-aggTrades-BTCUSDT-fromId.json"))).unwrap();
    assert_eq!((trades.len(), trades[0].id), (1_000, 202_790_190));
    let book: BookTicker =
        serde_json::from_slice(&read(&rest.join("spot-bookTicker-BTCUSDT.json"))).unwrap();
    assert!((book.mid().unwrap() - 6_621.825).abs() < 1e-9);
    let day: Ticker24h =
        serde_json::from_slice(&read(&rest.join("spot-ticker24hr-BTCUSDT.json"))).unwrap();
    assert_eq!((day.price_change_percent, day.count), (-2.427, 554_428));
    let all: Vec<Ticker24h> =
        serde_json::from_slice(&read(&rest.join("spot-ticker24hr-all-trimmed.json"))).unwrap();
    assert!(!all.is_empty());
    let time: ServerTime = serde_json::from_slice(&read(&rest.join("usdm-time.json"))).unwrap();
    assert!(time.server_time > Time(1_500_000_000_000));
    let error: ErrorBody =
        serde_json::from_slice(&read(&rest.join("usdm-error-invalid-symbol.json"))).unwrap();
    assert_eq!(error, ErrorBody { code: -1121, msg: "Invalid symbol.".into() });
}

#[test]
fn recorded_stream_frames_are_read() {
    let Some(data) = recordings() else { return };
    let recording = read(&data.join("binance/ws/spot-combined-stream-20211012.jsonl.gz"));
    let (mut books, mut klines, mut trades, mut unknown) = (0, 0, 0, 0);
    for line in recording.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let line: serde_json::Value = serde_json::from_slice(line).unwrap();
        let Some(msg) = line.get("msg") else { continue };
        match parse_frame(&msg.to_string()) {
            Ok(Frame::Event(StreamEvent::BookTicker(..))) => books += 1,
            Ok(Frame::Event(StreamEvent::Kline(k))) => {
                assert_eq!((k.interval, k.closed), (Interval::M1, false));
                klines += 1;
            }
            Ok(Frame::Event(StreamEvent::AggTrade(..))) => trades += 1,
            Ok(other) => panic!("{other:?}"),
            Err(e) => {
                assert!(e.contains("@depth@100ms"), "{e}");
                unknown += 1;
            }
        }
    }
    assert_eq!((books, klines, trades, unknown), (84, 2, 2, 177));
    let messages = read(&data.join("binance/ws/messages-spot-usdm.jsonl"));
    let mut events = 0;
    for line in messages.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let line: serde_json::Value = serde_json::from_slice(line).unwrap();
        if line["set"] == "binance" && parse_frame(&line["msg"].to_string()).is_ok() {
            events += 1;
        }
    }
    assert!(events >= 3, "{events}");
}

#[test]
fn small_frames_are_read() {
    let closing = r#"{"stream":"lrcbtc@kline_1m","data":{"e":"kline","E":1633998540005,"s":"LRCBTC","k":{"t":1633998480000,"T":1633998539999,"s":"LRCBTC","i":"1m","f":-1,"L":-1,"o":"0.00000638","c":"0.00000638","h":"0.00000638","l":"0.00000638","v":"0.00000000","n":0,"x":true,"q":"0.00000000","V":"0.00000000","Q":"0.00000000","B":"0"}}}"#;
    let Ok(Frame::Event(StreamEvent::Kline(k))) = parse_frame(closing) else { panic!() };
    assert!(k.closed && k.symbol == "LRCBTC" && k.kline.close == 0.000_006_38);
    let trade = r#"{"stream":"bnbbtc@trade","data":{"e":"trade","E":1554076800945,"s":"BNBBTC","t":40756030,"p":"0.00426990","q":"33.82000000","b":133829535,"a":133829504,"T":1554076800940,"m":false,"M":true}}"#;
    let Ok(Frame::Event(StreamEvent::Trade(t))) = parse_frame(trade) else { panic!() };
    assert_eq!((t.id, t.price, t.qty), (40_756_030, 0.004_269_9, 33.82));
    let agg = r#"{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1,"s":"BTCUSDT","a":5,"p":"1.5","q":"2","f":1,"l":2,"T":9,"m":true,"M":true}}"#;
    let Ok(Frame::Event(StreamEvent::AggTrade(s, t))) = parse_frame(agg) else { panic!() };
    assert_eq!((s.as_str(), t.id, t.time), ("BTCUSDT", 5, Time(9)));

    let refused = |code| Frame::Refused(ErrorBody { code, msg: "m".into() });
    for (text, frame) in [
        (r#"{"result":null,"id":1}"#, Frame::Accepted),
        (r#"{"result":["a@trade"],"id":"x"}"#, Frame::Accepted),
        (r#"{"code":2,"msg":"m"}"#, refused(2)),
        (r#"{"error":{"code":3,"msg":"m"},"id":1}"#, refused(3)),
        (r#"{"e":"serverShutdown","E":1}"#, Frame::Shutdown),
        (r#"{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}"#, Frame::Shutdown),
    ] {
        assert_eq!(parse_frame(text), Ok(frame), "{text}");
    }
    for (text, want) in [
        ("{", "EOF"),
        ("[1,2]", "invalid type"),
        ("{}", "neither data nor an answer"),
        (&trade.replace("bnbbtc@", "ethbtc@"), "data of BNBBTC on the stream ethbtc@trade"),
        (&trade.replace("33.82000000", "0"), "is not a trade"),
        (&closing.replace("kline_1m", "kline_5m"), "a candle of 1m on the stream"),
        (&closing.replace(r#""h":"0.00000638""#, r#""h":"0.00000600""#), "is outside low"),
        (r#"{"stream":"btcusdt@depth","data":{}}"#, "nothing here reads the stream"),
    ] {
        let error = parse_frame(text).unwrap_err();
        assert!(error.contains(want) && error.len() < 300, "{error}");
    }
}
