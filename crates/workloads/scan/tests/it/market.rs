//! A small market, put together by hand: bars that rise at a pace, and books as exchanges answer them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use watchbell_core::{Millis, Time};
use watchbell_scan::input::{Bars, BookAnswer, Member, SymbolData};
use watchbell_scan::pipeline::{self, Outcome, Scored};
use watchbell_scan::premove::Evidence;
use watchbell_scan::regime::RegimeInUse;
use watchbell_scan::settings::Settings;
use watchbell_venues::native::{Bar, NativeBook, Venue, coinbase, kraken, okx};

pub(crate) const HOUR: Millis = Millis::from_hours(1);

/// When scans start: a quarter past, 13 seconds into it.
pub(crate) fn now() -> Time {
    Time::parse("2025-09-07T11:15:13Z").unwrap()
}

/// A third of a minute later, the decision.
pub(crate) fn decided() -> Time {
    now() + Millis::from_secs(20)
}

/// Closed hourly bars up to the last full hour, which rise by this share an hour and swing a little; the
/// last hour trades fifty times the usual.
pub(crate) fn bars(count: i64, pace: f64, seed: u64) -> Vec<Bar> {
    let end = now().floor(HOUR);
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut noise = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
    };
    let mut close = 100.0;
    (0..count)
        .map(|i| {
            let open = close;
            close = open * (1.0 + pace + 0.002 * noise());
            let (low, high) = (open.min(close) * 0.999, open.max(close) * 1.001);
            let quote_volume = if i + 1 == count { 50_000.0 } else { 1_000.0 + 200.0 * noise() };
            Bar {
                open_time: end - HOUR * (count - i),
                open,
                high,
                low,
                close,
                volume: quote_volume / close,
                quote_volume,
            }
        })
        .collect()
}

/// A book around this price: 60 levels a side, 0.05 % apart, each worth this much.
pub(crate) fn book(
    venue: Venue,
    mid: f64,
    spread_bps: f64,
    each_usd: f64,
    taken_at: Time,
) -> NativeBook {
    let side = |sign: f64| -> Vec<(f64, f64)> {
        let best = mid * (1.0 + sign * spread_bps / 2e4);
        (0..60)
            .map(|i| best * (1.0 + sign * 0.0005 * f64::from(i)))
            .map(|p| (p, each_usd / p))
            .collect()
    };
    parsed(venue, &side(-1.0), &side(1.0), taken_at)
}

/// A book with these levels, through the answer in which the exchange would send it.
pub(crate) fn parsed(
    venue: Venue,
    bids: &[(f64, f64)],
    asks: &[(f64, f64)],
    taken_at: Time,
) -> NativeBook {
    let rows = |levels: &[(f64, f64)], rest: &str| {
        let mut text = String::new();
        for (i, (price, size)) in levels.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(text, "{comma}[\"{price:.9}\",\"{size:.9}\",{rest}]").unwrap();
        }
        text
    };
    let at = taken_at;
    match venue {
        Venue::Kraken => {
            let (bids, asks) = (rows(bids, "1757243700"), rows(asks, "1757243700"));
            let body = format!(
                r#"{{"error":[],"result":{{"XXBTZUSD":{{"asks":[{asks}],"bids":[{bids}]}}}}}}"#
            );
            NativeBook::Kraken(kraken::book(body.as_bytes(), "XBTUSD", at).unwrap())
        }
        Venue::Okx => {
            let (bids, asks) = (rows(bids, "\"0\",\"1\""), rows(asks, "\"0\",\"1\""));
            let body = format!(
                r#"{{"code":"0","msg":"","data":[{{"asks":[{asks}],"bids":[{bids}],"ts":"{}"}}]}}"#,
                at.0
            );
            NativeBook::Okx(okx::book(body.as_bytes(), "BTC-USDT", at).unwrap())
        }
        Venue::Coinbase => {
            let (bids, asks) = (rows(bids, "1"), rows(asks, "1"));
            let body = format!(r#"{{"bids":[{bids}],"asks":[{asks}],"sequence":1}}"#);
            NativeBook::Coinbase(coinbase::book(body.as_bytes(), "BTC-USD", at).unwrap())
        }
        Venue::Binance => panic!("no scan of these tests reads it"),
    }
}

pub(crate) fn answer(book: NativeBook) -> BookAnswer {
    let venue = book.venue();
    BookAnswer { venue, book: Ok(book), latency: Some(Millis(120)), cached: false }
}

pub(crate) fn no_answer(venue: Venue, why: &str) -> BookAnswer {
    BookAnswer { venue, book: Err(why.into()), latency: None, cached: false }
}

/// The last close of what was read of a symbol.
pub(crate) fn last(data: &SymbolData) -> f64 {
    data.hours[0].bars.last().unwrap().close
}

/// Good books of three exchanges around the last close.
pub(crate) fn books(data: &SymbolData, taken_at: Time) -> Vec<BookAnswer> {
    let mid = last(data);
    [(Venue::Kraken, 4.0), (Venue::Okx, 3.0), (Venue::Coinbase, 5.0)]
        .map(|(venue, bps)| answer(book(venue, mid, bps, 20_000.0, taken_at)))
        .into()
}

/// A symbol whose price rises at this pace, with everything in order.
pub(crate) fn symbol(name: &str, rank: u32, pace: f64) -> SymbolData {
    let bars = Bars {
        venue: Venue::Kraken,
        bars: bars(720, pace, u64::from(rank)),
        fetched_at: now(),
        cached: false,
    };
    let mut data = SymbolData {
        member: Member {
            symbol: format!("{name}/USD"),
            base: name.into(),
            venue_symbol: format!("{name}USD"),
            adv_usd: 20_000_000,
            rank,
        },
        hours: vec![bars],
        books: vec![],
        trouble: vec![],
        evidence: Evidence::default(),
    };
    data.books = books(&data, now());
    data
}

/// Twelve symbols: `A` rises the most, `L` falls.
pub(crate) fn market() -> Vec<SymbolData> {
    ('A'..='L')
        .zip(1..)
        .map(|(name, rank)| symbol(&name.to_string(), rank, 0.0022 - 0.0003 * f64::from(rank)))
        .collect()
}

pub(crate) fn normal() -> RegimeInUse {
    RegimeInUse::at(None, now())
}

/// The books read again two seconds before the decision, for those that want them.
pub(crate) fn finals(scored: &Scored, market: &[SymbolData]) -> BTreeMap<String, Vec<BookAnswer>> {
    let wanted = scored.wants_final_book();
    let find = |symbol: &str| market.iter().find(|d| d.member.symbol == symbol).unwrap();
    let taken = decided() - Millis::from_secs(2);
    wanted.into_iter().map(|m| (m.symbol.clone(), books(find(&m.symbol), taken))).collect()
}

/// The whole scan, with finals as they should be.
pub(crate) fn scan(market: &[SymbolData], settings: &Settings) -> Outcome {
    let scored = pipeline::score(market.to_vec(), settings, &normal(), now());
    let finals = finals(&scored, market);
    pipeline::judge(scored, finals, decided())
}
