//! Properties of the market: everything is one path, seen through different windows.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use proptest::prelude::*;
use watchbell_core::Time;

use super::book::book;
use super::interval::Grid;
use super::market::{Candle, DAY, MINUTE, Market, Page, TradesFrom};
use super::{DEFAULT_UNIVERSE, render};

/// 2026-11-20T00:00:00Z, within the life of the synthetic market.
const NOON: i64 = 1_795_132_800_000 + DAY / 2;
const MIDNIGHT: i64 = NOON - DAY / 2;

fn market() -> Market {
    Market::synthetic(42, &DEFAULT_UNIVERSE)
}

fn page(market: &Market, symbol: usize, interval: &str, page: Page, now: i64) -> Vec<Candle> {
    market.klines(symbol, Grid::parse(interval).unwrap(), page, now, |_| true)
}

fn range(start: i64, end: i64, limit: usize) -> Page {
    Page { start: Some(start), end: Some(end), limit }
}

fn fold(rows: &[Candle]) -> Candle {
    let mut sum = rows[0];
    for r in &rows[1..] {
        sum.high = sum.high.max(r.high);
        sum.low = sum.low.min(r.low);
        sum.close = r.close;
        sum.close_time = r.close_time;
        sum.volume += r.volume;
        sum.quote += r.quote;
        sum.taker_base += r.taker_base;
        sum.taker_quote += r.taker_quote;
        sum.trades += r.trades;
        sum.last_trade = r.last_trade;
    }
    sum
}

#[test]
fn trades_give_each_minute_back() {
    let market = market();
    for symbol in 0..market.symbols().len() {
        let rows = page(&market, symbol, "1m", range(MIDNIGHT, NOON, 720), NOON + DAY);
        assert_eq!(rows.len(), 720);
        for row in rows {
            let trades = market.split(symbol, row.open_time);
            let price = |t: &super::Trade| t.price;
            assert_eq!(trades.len() as i64, row.trades);
            assert_eq!(trades.first().map(price), Some(row.open));
            assert_eq!(trades.last().map(price), Some(row.close));
            assert_eq!(trades.iter().map(price).max(), Some(row.high));
            assert_eq!(trades.iter().map(price).min(), Some(row.low));
            assert_eq!(trades.iter().map(|t| i128::from(t.size)).sum::<i128>(), row.volume);
            assert_eq!(trades.iter().map(super::Trade::value).sum::<i128>(), row.quote);
            assert_eq!(trades.first().map(|t| t.id), Some(row.first_trade));
            assert_eq!(trades.last().map(|t| t.id), Some(row.last_trade));
            let taken = trades.iter().filter(|t| !t.buyer_maker);
            assert_eq!(taken.map(|t| i128::from(t.size)).sum::<i128>(), row.taker_base);
        }
    }
}

#[test]
fn larger_intervals_are_sums_of_minutes() {
    let market = market();
    let now = NOON + 17 * MINUTE + 23_456;
    for interval in ["3m", "5m", "15m", "1h", "4h", "12h", "1d", "3d", "1w"] {
        let newest = Page { start: None, end: None, limit: 2 };
        for row in page(&market, 1, interval, newest, now) {
            let mut minutes = Vec::new();
            let mut from = row.open_time;
            while from <= row.close_time.min(now) {
                minutes.extend(page(&market, 1, "1m", range(from, row.close_time, 1_000), now));
                from = minutes.last().unwrap().open_time + MINUTE;
            }
            let mut sum = fold(&minutes);
            sum.close_time = row.close_time;
            assert_eq!(sum, row, "{interval}");
        }
    }
}

#[test]
fn prices_are_plausible_and_joined() {
    let market = market();
    for symbol in 0..market.symbols().len() {
        let days = page(&market, symbol, "1d", range(0, NOON, 60), NOON);
        assert_eq!(days.len(), 60);
        assert_eq!(days[0].open_time, 1_704_067_200_000);
        let (low, high) =
            days.iter().fold((i64::MAX, 0), |(l, h), d| (l.min(d.low), h.max(d.high)));
        assert!(low > 0 && high / low < 60, "{low} {high}");
        let rows = page(&market, symbol, "1m", range(MIDNIGHT - 300 * MINUTE, NOON, 1_000), NOON);
        let tick = market.symbols()[symbol].tick;
        for pair in rows.windows(2) {
            assert!((pair[1].open - pair[0].close).abs() <= tick);
        }
    }
    // One factor drives them: the daily returns of the two largest move together.
    let returns = |s| -> Vec<f64> {
        let days = page(&market, s, "1d", range(0, NOON, 100), NOON);
        days.iter().map(|d| d.close as f64 / d.open as f64 - 1.0).collect()
    };
    let (a, b) = (returns(0), returns(1));
    let dot = |x: &[f64], y: &[f64]| -> f64 { x.iter().zip(y).map(|(p, q)| p * q).sum() };
    let correlation = dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt();
    assert!((0.5..0.99).contains(&correlation), "{correlation}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_questions_does_not_matter(
        seed: u64, mut asks in prop::collection::vec((0_usize..3, 0_i64..40_000), 1..8),
    ) {
        let names = ["BTCUSDT", "DOGEUSDT", "PEPEUSDT"];
        let ask = |market: &Market, (symbol, minute): (usize, i64)| {
            let now = MIDNIGHT + minute * MINUTE + 31_000;
            let newest = Page { start: None, end: None, limit: 3 };
            let rows = page(market, symbol, "5m", newest, now);
            (rows, book(market, symbol, now, 5), market.last_trade(symbol, Time(now)))
        };
        let one = Market::synthetic(seed, &names);
        let forward: Vec<_> = asks.iter().map(|a| ask(&one, *a)).collect();
        asks.reverse();
        let other = Market::synthetic(seed, &names);
        let mut backward: Vec<_> = asks.iter().map(|a| ask(&other, *a)).collect();
        backward.reverse();
        prop_assert_eq!(forward, backward);
    }

    #[test]
    fn a_candle_only_grows(symbol in 0_usize..7, minute in 0_i64..1_440, cuts in prop::collection::vec(0_i64..60_000, 2..6)) {
        let market = market();
        let open = MIDNIGHT + minute * MINUTE;
        let at = |now| market.candle(symbol, open, open + MINUTE, now).unwrap();
        let done = at(open + MINUTE);
        let mut cuts = cuts;
        cuts.sort_unstable();
        let mut before = at(open);
        for cut in cuts {
            let c = at(open + cut);
            prop_assert!(c.volume >= before.volume && c.trades >= before.trades);
            prop_assert!(c.volume <= done.volume);
            if c.trades > 0 {
                prop_assert!(c.high <= done.high && c.low >= done.low && c.open == done.open);
                let last = market.last_trade(symbol, Time(open + cut)).unwrap();
                prop_assert_eq!((last.price, last.id), (c.close, c.last_trade));
            }
            before = c;
        }
    }
}

#[test]
fn pages_obey_the_range_rules() {
    let market = market();
    let now = NOON + 30_000;
    let opens = |start, end, limit| -> Vec<i64> {
        let rows = page(&market, 0, "1m", Page { start, end, limit }, now);
        rows.iter().map(|r| (r.open_time - NOON) / MINUTE).collect()
    };
    let t = |minutes: i64| Some(NOON + minutes * MINUTE);
    // No bound: the newest, the open one last.
    assert_eq!(opens(None, None, 3), [-2, -1, 0]);
    // A start alone: the oldest from there.
    assert_eq!(opens(t(-10), None, 3), [-10, -9, -8]);
    // An end alone: the newest up to there.
    assert_eq!(opens(None, t(-10), 3), [-12, -11, -10]);
    // Both: the oldest, not beyond the end.
    assert_eq!(opens(t(-10), t(-8), 500), [-10, -9, -8]);
    assert_eq!(opens(t(-10), t(-2), 2), [-10, -9]);
    // Both ends are inclusive and refer to the open time.
    assert_eq!(opens(t(-5), t(-5), 500), [-5]);
    assert_eq!(opens(t(-5), t(-4).map(|e| e - 1), 500), [-5]);
    // A start that is not on the grid: the next whole candle.
    assert_eq!(opens(t(-5).map(|s| s + 1), t(-3), 500), [-4, -3]);
    // The future, and a range upside down.
    assert!(opens(t(5), t(9), 500).is_empty());
    assert!(opens(t(-3), t(-5), 500).is_empty());
    // Before the listing.
    let first = page(&market, 0, "1h", range(0, NOON, 2), now);
    assert_eq!(first[0].open_time, 1_704_067_200_000);
    // A year of days with the end on an open time, and one millisecond less.
    let (jan, next) = (1_735_689_600_000, 1_767_225_600_000);
    assert_eq!(page(&market, 0, "1d", range(jan, next, 1_000), now).len(), 366);
    assert_eq!(page(&market, 0, "1d", range(jan, next - 1, 1_000), now).len(), 365);
}

#[test]
fn trades_are_numbered_without_gaps() {
    let market = market();
    let now = MIDNIGHT + 3 * MINUTE;
    let newest = market.trades(4, TradesFrom::Newest(now), 1_000, now);
    assert_eq!(newest.len(), 1_000);
    assert!(newest.iter().any(|t| t.time < MIDNIGHT));
    assert!(newest.windows(2).all(|w| w[0].id + 1 == w[1].id && w[0].time <= w[1].time));
    let from = newest[0].id;
    assert_eq!(market.trades(4, TradesFrom::Id(from), 1_000, now), newest);
    let middle = newest[500].time;
    let later = market.trades(4, TradesFrom::Times(middle, now), 1_000, now);
    let expected: Vec<_> = newest.iter().filter(|t| t.time >= middle).copied().collect();
    assert_eq!(later, expected);
}

#[test]
fn books_stand_around_the_last_trade() {
    let market = market();
    for symbol in 0..market.symbols().len() {
        for second in 0..20 {
            let now = NOON + second * 1_000 + 400;
            let b = book(&market, symbol, now, 5_000).unwrap();
            let last = market.last_trade(symbol, Time(now)).unwrap();
            let (bid, ask) = (b.bids[0].0, b.asks[0].0);
            assert!(bid < ask && (last.price == bid || last.price == ask));
            assert!(b.bids.windows(2).all(|w| w[0].0 > w[1].0));
            assert!(b.asks.windows(2).all(|w| w[0].0 < w[1].0));
            assert!(b.bids.iter().chain(&b.asks).all(|l| l.0 > 0 && l.1 > 0));
            assert_eq!(b.asks.len(), 5_000);
            assert_eq!(book(&market, symbol, now, 1).unwrap().bids[0], b.bids[0]);
        }
    }
}

#[test]
fn a_kline_is_printed_as_recorded() {
    let recorded = r#"[1588636800000,"8871.92000000","8888.00000000","8871.92000000","8887.62000000","47.66737000",1588636859999,"423305.63773405",617,"25.94719700","230410.46415390","0"]"#;
    let candle = Candle {
        open_time: 1_588_636_800_000,
        close_time: 1_588_636_859_999,
        open: 887_192_000_000,
        high: 888_800_000_000,
        low: 887_192_000_000,
        close: 888_762_000_000,
        volume: 4_766_737_000,
        quote: 42_330_563_773_405,
        taker_base: 2_594_719_700,
        taker_quote: 23_041_046_415_390,
        trades: 617,
        first_trade: 0,
        last_trade: 616,
    };
    let mut out = Vec::new();
    render::kline(&mut out, &candle);
    assert_eq!(String::from_utf8(out).unwrap(), recorded);
}

fn write(folder: &Path, name: &str, rows: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(name), rows).unwrap();
}

#[test]
fn recorded_files_are_joined_and_their_gaps_stay() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "ABCUSDT-1m-20250101-20250101.csv",
        "open_time_ms,open,high,low,close,volume\n\
         1735689600000,10.5,11,10.25,10.75,100.5\n1735689660000,10.75,10.75,10.75,10.75,0\n",
    );
    let packed = fs::File::create(dir.path().join("ABCUSDT-1m-20250102-20250102.csv.gz")).unwrap();
    let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
    packed
        .write_all(
            b"open_time_ms,open,high,low,close,volume,quote_volume,trades\n\
              1735689840000,10.75,10.80,10.70,10.72,3.25,34.9,7\n",
        )
        .unwrap();
    packed.finish().unwrap();
    write(dir.path(), "ABCUSDT-1h-20250101-20250101.csv", "not,read\n");
    let market = Market::recorded(dir.path()).unwrap();
    assert_eq!(market.symbols().len(), 1);
    let spec = &market.symbols()[0];
    assert_eq!((spec.tick, spec.step), (1_000_000, 1_000_000));
    let t0 = 1_735_689_600_000;
    assert_eq!(market.span(0), (Time(t0), Time(t0 + 5 * MINUTE)));
    let holes = market.holes(0);
    assert_eq!(holes.len(), 1);
    assert_eq!((holes[0].from, holes[0].to), (Time(t0 + 2 * MINUTE), Time(t0 + 4 * MINUTE)));
    let rows = page(&market, 0, "1m", range(t0, t0 + DAY, 1_000), t0 + DAY);
    let at: Vec<i64> = rows.iter().map(|r| (r.open_time - t0) / MINUTE).collect();
    assert_eq!(at, [0, 1, 4]);
    // Derived: v * (o + h + l + c) / 4.
    assert_eq!(rows[0].quote, 10_050_000_000 * 1_062_500_000 / 100_000_000);
    assert_eq!((rows[1].trades, rows[1].first_trade), (0, -1));
    assert_eq!((rows[2].trades, rows[2].quote), (7, 3_490_000_000));
    for row in &rows {
        let trades = market.split(0, row.open_time);
        assert_eq!(trades.iter().map(|t| i128::from(t.size)).sum::<i128>(), row.volume);
        assert_eq!(trades.iter().map(|t| t.price).max().unwrap_or(row.high), row.high);
    }
    let five = page(&market, 0, "5m", range(t0, t0, 10), t0 + DAY);
    assert_eq!(five[0].volume, rows.iter().map(|r| r.volume).sum::<i128>());
    let shifted =
        Market::recorded_shifted(dir.path(), watchbell_core::Millis::from_days(2)).unwrap();
    assert_eq!(shifted.span(0).0, Time(t0 + 2 * DAY));
}

#[test]
fn bad_folders_and_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let problem = |name: &str, text: &str| {
        let sub = dir.path().join(name);
        write(&sub, name, text);
        let error = Market::recorded(&sub).unwrap_err();
        fs::remove_dir_all(&sub).unwrap();
        error.to_string()
    };
    let header = "open_time_ms,open,high,low,close,volume\n";
    let row = |r: &str| format!("{header}{r}\n");
    let good = "X-1m-1.csv";
    assert!(problem("X-5m-1.csv", "").contains("holds no one-minute klines"));
    assert!(problem(good, "a,b\n1,2\n").contains("no column `open_time_ms`"));
    assert!(problem(good, &row("60000,1,2,1,x,1")).contains("line 2: `x` is not a decimal"));
    assert!(problem(good, &row("60001,1,2,1,1,1")).contains("whole minute"));
    assert!(problem(good, &row("60000,1,2,3,1,1")).contains("not the prices of a candle"));
    assert!(
        Market::recorded(&dir.path().join("nowhere"))
            .unwrap_err()
            .to_string()
            .contains("cannot read")
    );
}

/// The recorded files of the project's data collection, where it is present.
#[test]
fn the_collection_is_served_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/data/klines");
    if !folder.is_dir() {
        return;
    }
    let market = Market::recorded(&folder).unwrap();
    let btc = market.find("BTCUSDT").unwrap();
    assert_eq!(market.holes(btc).len(), 2);
    // The independent hourly series, bar for bar.
    let hourly = folder.join("binance-spot/BTCUSDT-1h-20220101-20251231.csv.gz");
    let file = flate2::read::MultiGzDecoder::new(fs::File::open(hourly).unwrap());
    let (from, to) = (1_740_798_000_000, 1_743_476_400_000);
    let mut checked = 0;
    for record in csv::Reader::from_reader(file).records() {
        let record = record.unwrap();
        let open: i64 = record[0].parse().unwrap();
        if !(from..to).contains(&open) {
            continue;
        }
        let rows = page(&market, btc, "1h", range(open, open, 1), to + DAY);
        let text = |v: i128| {
            let mut out = Vec::new();
            render::decimal(&mut out, v);
            String::from_utf8(out).unwrap()
        };
        let ours = [rows[0].open, rows[0].high, rows[0].low, rows[0].close].map(i128::from);
        for (i, v) in ours.into_iter().chain([rows[0].volume]).enumerate() {
            assert_eq!(text(v), &record[i + 1], "{open} column {i}");
        }
        checked += 1;
    }
    assert!(checked > 700, "{checked}");
}

#[test]
fn minutes_of_a_universe_make_up_its_hours_and_days() {
    let market = Market::synthetic_universe(42, 120);
    for symbol in [0, 1, 13, 60, 119] {
        let hours =
            page(&market, symbol, "1h", range(MIDNIGHT, MIDNIGHT + DAY - 1, 24), NOON + DAY);
        let minutes =
            page(&market, symbol, "1m", range(MIDNIGHT, MIDNIGHT + DAY - 1, 1_440), NOON + DAY);
        let days = page(&market, symbol, "1d", range(MIDNIGHT, MIDNIGHT, 1), NOON + DAY);
        assert_eq!((hours.len(), minutes.len(), days.len()), (24, 1_440, 1));
        for (hour, minutes) in hours.iter().zip(minutes.chunks(60)) {
            let sum = fold(minutes);
            let trades: i64 = minutes.iter().map(|m| m.trades).sum();
            assert_eq!(
                (sum.open, sum.high, sum.low, sum.close, sum.volume, sum.quote),
                (hour.open, hour.high, hour.low, hour.close, hour.volume, hour.quote),
                "{symbol}"
            );
            assert_eq!((sum.taker_base, trades), (hour.taker_base, hour.trades));
            assert!(
                hour.low <= hour.open.min(hour.close) && hour.open.max(hour.close) <= hour.high
            );
            for m in minutes {
                assert!(m.low <= m.open.min(m.close) && m.open.max(m.close) <= m.high);
                assert_eq!(m.trades == 0, m.volume == 0);
                assert!(m.taker_base >= 0 && m.taker_base <= m.volume);
                // The mean price of a minute is one of its prices, but for what is rounded.
                let (low, high) = (i128::from(m.low), i128::from(m.high));
                let mean = if m.volume > 0 { m.quote * 100_000_000 / m.volume } else { low };
                let slack = high / 1_000 + 2;
                assert!(low - slack <= mean && mean <= high + slack, "{symbol}: {m:?}");
            }
        }
        assert!(hours.windows(2).all(|w| w[0].close == w[1].open));
        assert!(hours.windows(2).all(|w| w[0].last_trade + 1 == w[1].first_trade));
        let sum = fold(&hours);
        assert_eq!((sum.high, sum.low, sum.volume), (days[0].high, days[0].low, days[0].volume));
        assert_eq!((sum.trades, sum.quote), (days[0].trades, days[0].quote));
    }
}

#[test]
fn trades_give_each_minute_of_a_universe_back() {
    let market = Market::synthetic_universe(42, 60);
    for symbol in [0, 13, 59] {
        for row in page(&market, symbol, "1m", range(MIDNIGHT, NOON, 240), NOON + DAY) {
            let trades = market.split(symbol, row.open_time);
            assert_eq!(trades.len() as i64, row.trades);
            assert_eq!(trades.iter().map(|t| i128::from(t.size)).sum::<i128>(), row.volume);
            let price = |t: &super::Trade| t.price;
            if let [first, .., last] = &*trades {
                assert_eq!((first.price, last.price), (row.open, row.close));
                assert_eq!((first.id, last.id), (row.first_trade, row.last_trade));
                assert_eq!(trades.iter().map(price).max(), Some(row.high));
                assert_eq!(trades.iter().map(price).min(), Some(row.low));
                let found = market.trades(symbol, TradesFrom::Id(last.id), 1, NOON + DAY);
                assert_eq!(found, [*last]);
            }
        }
    }
}

/// The busiest minutes of the cheapest assets are where a size would not fit any more.
#[test]
fn sizes_of_a_universe_fit_their_numbers() {
    for count in [20, 100, 400] {
        let market = Market::synthetic_universe(5, count);
        for symbol in 0..count {
            let year = range(MIDNIGHT - 100 * DAY, MIDNIGHT, 101);
            let days = page(&market, symbol, "1d", year, NOON);
            let busiest = days.iter().max_by_key(|d| d.volume).unwrap();
            if busiest.volume > i128::from(i64::MAX) {
                let from = busiest.open_time;
                let minutes = page(&market, symbol, "1m", range(from, from + DAY - 1, 1_440), NOON);
                let most = minutes.iter().map(|m| m.volume).max().unwrap();
                assert!(most < i128::from(i64::MAX / 8), "{}", market.symbols()[symbol].name);
            }
        }
    }
}

#[test]
fn a_universe_reaches_from_the_largest_to_the_hardly_traded() {
    let market = Market::synthetic_universe(3, 300);
    let mut turnover = Vec::new();
    for symbol in 0..300 {
        let month = page(&market, symbol, "1d", range(MIDNIGHT - 30 * DAY, MIDNIGHT - 1, 30), NOON);
        assert_eq!(month.len(), 30);
        turnover.push(month.iter().map(|c| c.quote).sum::<i128>() as f64 / 30.0 / 1e8);
        assert!(month.iter().all(|c| c.close >= 100), "{}", market.symbols()[symbol].name);
    }
    assert!(turnover[0] > 2.0e8, "{}", turnover[0]);
    let tier = |from: usize, to: usize| turnover[from..to].iter().sum::<f64>() / (to - from) as f64;
    let (middle, end) = (tier(35, 55), tier(290, 300));
    assert!((2.0e6..2.0e7).contains(&middle), "{middle}");
    assert!(end < 2.0e5, "{end}");
    let names: std::collections::BTreeSet<_> = market.symbols().iter().map(|s| &s.base).collect();
    assert_eq!(names.len(), 300);
    assert!(names.iter().all(|n| (2..=6).contains(&n.len())));
}
