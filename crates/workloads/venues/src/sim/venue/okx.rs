//! OKX. Spec: venues, section 7.

use super::super::dice::{Dice, hash_text, mix};
use super::super::market::{Candle, DAY, MINUTE, TradesFrom};
use super::super::params::Params;
use super::gate::Refused;
use super::text::{Plain, list};
use super::view::{Bars, Listed, json};
use super::{Answer, Ask, FAR, Outcome, Route, bounded};

/// `candles` knows that many of the latest; older ones are in `history-candles`.
const LATEST: i64 = 1_440;
const HOUR: i64 = 60 * MINUTE;
/// Funding is paid this often.
const FUNDING: i64 = 8 * HOUR;
/// Funding rates are kept this long: three months.
const KEPT: i64 = 93 * DAY;

pub(super) fn route(path: &str, params: &Params) -> Option<Route> {
    let (endpoint, target) = match path.strip_prefix("/api/v5/")? {
        "public/time" => ("time", "time"),
        "public/instruments" => ("instruments", "exchangeInfo"),
        "market/tickers" => ("tickers", "ticker"),
        "market/candles" => ("candles", "klines"),
        "market/history-candles" => ("history-candles", "klines"),
        "market/books" => ("books", "depth"),
        "market/trades" => ("trades", "trades"),
        "public/funding-rate" => ("funding-rate", "funding"),
        "public/funding-rate-history" => ("funding-rate-history", "funding"),
        "public/open-interest" => ("open-interest", "openInterest"),
        _ => return None,
    };
    let symbol = params.raw("instId").filter(|i| !i.is_empty()).map(str::to_owned);
    Some(Route { endpoint, target, symbol })
}

pub(super) fn answer(ask: &Ask<'_>, endpoint: &str) -> Outcome {
    match endpoint {
        "time" => Ok(data(&format!(r#"{{"ts":"{}"}}"#, ask.server_time()), 1)),
        "instruments" => instruments(ask),
        "tickers" => tickers(ask),
        "candles" => candles(ask, false),
        "history-candles" => candles(ask, true),
        "books" => book(ask),
        "trades" => trades(ask),
        "funding-rate" => funding(ask),
        "funding-rate-history" => funding_history(ask),
        _ => open_interest(ask),
    }
}

fn data(rows: &str, count: usize) -> Answer {
    json(format!(r#"{{"code":"0","msg":"","data":[{rows}]}}"#), count)
}

fn error(status: u16, code: u32, message: &str) -> Answer {
    let body = format!(r#"{{"code":"{code}","msg":"{message}","data":[]}}"#);
    Answer { status, ..json(body, 0) }
}

fn missing(name: &str) -> Answer {
    error(400, 50014, &format!("Parameter {name} can not be empty."))
}

fn wrong(name: &str) -> Answer {
    error(400, 51000, &format!("Parameter {name} error"))
}

fn nobody() -> Answer {
    error(200, 51001, "Instrument ID, Instrument ID code or Spread ID doesn't exist.")
}

pub(super) fn unknown() -> Answer {
    error(404, 50404, "Not Found")
}

pub(super) fn refuse(refused: &Refused) -> Answer {
    match refused.banned_until {
        Some(_) => Answer::forbidden(),
        // Every fourth refusal comes in the other form.
        None if refused.count.is_multiple_of(4) => error(
            200,
            50011,
            "Rate limit reached. Please refer to API documentation and throttle requests \
             accordingly.",
        ),
        None => error(429, 50011, "Too Many Requests"),
    }
}

pub(super) fn trouble(status: u16) -> Answer {
    let (code, message) = match status {
        429 => (50011, "Too Many Requests"),
        503 => (50001, "Service temporarily unavailable. Please try again later."),
        408 | 504 => (50004, "API endpoint request timeout."),
        400..500 => (51000, "Parameter error"),
        _ => (50026, "System error. Try again later"),
    };
    error(status, code, message)
}

fn instrument<'a>(ask: &Ask<'a>) -> Result<&'a Listed, Answer> {
    let name = ask.symbol.ok_or_else(|| missing("instId"))?;
    ask.house.listings.find(name).ok_or_else(nobody)
}

/// The perpetual swap of that name. There is one of each asset that trades against USDT.
fn swap<'a>(ask: &Ask<'a>) -> Result<&'a Listed, Answer> {
    let name = ask.symbol.ok_or_else(|| missing("instId"))?;
    let spot = name.strip_suffix("-SWAP").and_then(|spot| ask.house.listings.find(spot));
    spot.filter(|l| has_swap(ask, l)).ok_or_else(nobody)
}

fn has_swap(ask: &Ask<'_>, listed: &Listed) -> bool {
    listed.quote == "USDT" && ask.house.floor.market.symbols()[listed.symbol].base == listed.base
}

/// The page size: the default where none is asked, the most where more is.
fn limit(ask: &Ask<'_>, name: &str, default: usize, most: usize) -> Result<usize, Answer> {
    match ask.whole(name) {
        None => Ok(default),
        Some(Ok(n)) if n > 0 => Ok(usize::try_from(n).unwrap_or(most).min(most)),
        Some(_) => Err(wrong(name)),
    }
}

/// The open interval of time that a page is of.
fn window(ask: &Ask<'_>) -> Result<(i64, i64), Answer> {
    let bound = |name, none| match ask.whole(name) {
        None => Ok(none),
        Some(t) => t.map(bounded).map_err(|()| wrong(name)),
    };
    Ok((bound("before", -FAR)?, bound("after", FAR)?))
}

fn instruments(ask: &Ask<'_>) -> Outcome {
    let kind = ask.params.raw("instType").filter(|t| !t.is_empty());
    let all = &ask.house.listings.all;
    let asked = |id: &str| ask.symbol.is_none_or(|s| s == id);
    let rows: Vec<String> = match kind.ok_or_else(|| missing("instType"))? {
        "SPOT" => all.iter().filter(|l| asked(&l.key)).map(|l| spot_instrument(ask, l)).collect(),
        "SWAP" => all
            .iter()
            .filter(|l| has_swap(ask, l) && asked(&format!("{}-SWAP", l.key)))
            .map(|l| swap_instrument(ask, l))
            .collect(),
        "MARGIN" | "FUTURES" | "OPTION" => Vec::new(),
        _ => return Err(wrong("instType")),
    };
    if rows.is_empty() && ask.symbol.is_some() {
        return Err(nobody());
    }
    Ok(data(&rows.join(","), rows.len()))
}

fn spot_instrument(ask: &Ask<'_>, listed: &Listed) -> String {
    format!(
        concat!(
            r#"{{"alias":"","auctionEndTime":"","baseCcy":"{}","category":"1","ctMult":"","#,
            r#""ctType":"","ctVal":"","ctValCcy":"","expTime":"","instFamily":"","instId":"{}","#,
            r#""instType":"SPOT","lever":"","listTime":"1704067200000","lotSz":"{}","#,
            r#""maxIcebergSz":"9999999999.0000000000000000","maxLmtAmt":"20000000","#,
            r#""maxLmtSz":"9999999999","maxMktAmt":"1000000","maxMktSz":"1000000","#,
            r#""maxStopSz":"1000000","maxTriggerSz":"9999999999.0000000000000000","#,
            r#""maxTwapSz":"9999999999.0000000000000000","minSz":"{}","optType":"","#,
            r#""quoteCcy":"{}","ruleType":"normal","settleCcy":"","state":"{}","stk":"","#,
            r#""tickSz":"{}","uly":""}}"#
        ),
        listed.base,
        listed.key,
        Plain(i128::from(listed.step)),
        Plain(i128::from(listed.step)),
        listed.quote,
        state(ask, listed),
        Plain(i128::from(listed.lens.tick)),
    )
}

fn swap_instrument(ask: &Ask<'_>, listed: &Listed) -> String {
    format!(
        concat!(
            r#"{{"alias":"","auctionEndTime":"","baseCcy":"","category":"1","ctMult":"1","#,
            r#""ctType":"linear","ctVal":"{}","ctValCcy":"{}","expTime":"","#,
            r#""instFamily":"{}","instId":"{}-SWAP","instType":"SWAP","lever":"50","#,
            r#""listTime":"1704067200000","lotSz":"1","#,
            r#""maxIcebergSz":"100000000.0000000000000000","maxLmtAmt":"20000000","#,
            r#""maxLmtSz":"100000000","maxMktAmt":"","maxMktSz":"30000","maxStopSz":"30000","#,
            r#""maxTriggerSz":"100000000.0000000000000000","#,
            r#""maxTwapSz":"100000000.0000000000000000","minSz":"1","optType":"","#,
            r#""quoteCcy":"","ruleType":"normal","settleCcy":"USDT","state":"{}","stk":"","#,
            r#""tickSz":"{}","uly":"{}"}}"#
        ),
        Plain(contract(listed)),
        listed.base,
        listed.key,
        listed.key,
        state(ask, listed),
        Plain(i128::from(listed.lens.tick)),
        listed.key,
    )
}

fn state(ask: &Ask<'_>, listed: &Listed) -> &'static str {
    if ask.is_closed(listed) { "suspend" } else { "live" }
}

/// What a contract of a swap is worth in the asset: a hundred thousand steps.
fn contract(listed: &Listed) -> i128 {
    i128::from(listed.step) * 100_000
}

fn tickers(ask: &Ask<'_>) -> Outcome {
    match ask.params.raw("instType").filter(|t| !t.is_empty()) {
        None => return Err(missing("instType")),
        Some("SPOT") => {}
        Some("SWAP" | "FUTURES" | "OPTION" | "MARGIN") => return Ok(data("", 0)),
        Some(_) => return Err(wrong("instType")),
    }
    let all = ask.house.listings.all.iter().filter(|l| !ask.is_closed(l));
    let rows: Vec<String> = all.filter_map(|l| ticker(ask, l)).collect();
    let count = rows.len();
    Ok(data(&ask.rows(&rows, String::clone), count))
}

fn ticker(ask: &Ask<'_>, listed: &Listed) -> Option<String> {
    let now = ask.now();
    let day = ask.day(listed)?;
    let last = ask.last_trade(listed)?;
    let book = ask.book(listed, 1, listed.step);
    let touch = |l: Option<&super::depth::Level>| {
        let (price, size) = l.map_or((0, 0), |l| (l.price, l.size));
        (Plain(i128::from(price)), Plain(i128::from(size)))
    };
    let (ask_price, ask_size) = touch(book.asks.first());
    let (bid_price, bid_size) = touch(book.bids.first());
    let open = |zone: i64| {
        let midnight = (now + zone).div_euclid(DAY) * DAY - zone;
        let minute = ask.candle(listed, (midnight, midnight + MINUTE), now);
        Plain(minute.map_or(0, |c| i128::from(c.open)))
    };
    Some(format!(
        concat!(
            r#"{{"instType":"SPOT","instId":"{}","last":"{}","lastSz":"{}","askPx":"{}","#,
            r#""askSz":"{}","bidPx":"{}","bidSz":"{}","open24h":"{}","high24h":"{}","#,
            r#""low24h":"{}","volCcy24h":"{}","vol24h":"{}","sodUtc0":"{}","sodUtc8":"{}","#,
            r#""ts":"{}"}}"#
        ),
        listed.key,
        Plain(i128::from(last.price)),
        Plain(i128::from(last.size)),
        ask_price,
        ask_size,
        bid_price,
        bid_size,
        Plain(i128::from(day.open)),
        Plain(i128::from(day.high)),
        Plain(i128::from(day.low)),
        Plain(day.quote),
        Plain(day.volume),
        open(0),
        open(8 * HOUR),
        now,
    ))
}

/// The bars of that name; those without `utc` open with a day of China. Case matters.
fn bars(name: &str) -> Option<Bars> {
    let (name, utc) = name.strip_suffix("utc").map_or((name, false), |n| (n, true));
    let (digits, unit) = name.split_at_checked(name.len().checked_sub(1)?)?;
    let n: i64 = digits.parse().ok()?;
    let minutes = match unit {
        "m" => n,
        "H" => n * 60,
        "D" => n * 1_440,
        "W" => n * 10_080,
        _ => return None,
    };
    let bars = Bars::of_minutes(minutes).filter(|b| b.name != "15d")?;
    let long = minutes >= 360;
    if utc && !long {
        return None;
    }
    // Weeks start on Monday; the epoch was a Thursday.
    let monday = if unit == "W" { 4 * DAY } else { 0 };
    let phase = if long && !utc { monday - 8 * HOUR } else { monday };
    Some(Bars { phase, ..bars })
}

fn candles(ask: &Ask<'_>, history: bool) -> Outcome {
    let listed = instrument(ask)?;
    let bars = bars(ask.params.raw("bar").unwrap_or("1m")).ok_or_else(|| wrong("bar"))?;
    let limit = limit(ask, "limit", 100, if history { 100 } else { 300 })? as i64;
    let (before, after) = window(ask)?;
    let newest = bars.floor(ask.now());
    // History has closed candles only, and the live list the latest ones.
    let (oldest, newest) = if history {
        (-FAR, newest - bars.length)
    } else {
        (newest - (LATEST - 1) * bars.length, newest)
    };
    let to = newest.min(bars.floor((after - 1).min(newest)));
    let from = oldest.max(to - (limit - 1) * bars.length).max(before + 1);
    let mut rows = ask.bars(listed, bars, (from, to), true);
    rows.reverse();
    let open = bars.floor(ask.now());
    let row = |c: &Candle| {
        let price = |v: i64| Plain(i128::from(v));
        format!(
            r#"["{}","{}","{}","{}","{}","{}","{}","{}","{}"]"#,
            c.open_time,
            price(c.open),
            price(c.high),
            price(c.low),
            price(c.close),
            Plain(c.volume),
            Plain(c.quote),
            Plain(c.quote),
            u8::from(c.open_time < open)
        )
    };
    Ok(data(&ask.rows(&rows, row), rows.len()))
}

fn book(ask: &Ask<'_>) -> Outcome {
    let listed = instrument(ask)?;
    let levels = match ask.whole("sz") {
        None => 1,
        Some(Ok(n @ 1..=400)) => n as usize,
        Some(_) => return Err(wrong("sz")),
    };
    let book = ask.book(listed, levels, listed.step);
    let side = |levels: &[super::depth::Level]| {
        ask.rows(levels, |l| {
            let (price, size) = (Plain(i128::from(l.price)), Plain(i128::from(l.size)));
            format!(r#"["{price}","{size}","0","{}"]"#, l.orders)
        })
    };
    let row = format!(
        r#"{{"asks":[{}],"bids":[{}],"ts":"{}"}}"#,
        side(&book.asks),
        side(&book.bids),
        ask.now()
    );
    Ok(data(&row, book.asks.len() + book.bids.len()))
}

fn trades(ask: &Ask<'_>) -> Outcome {
    let listed = instrument(ask)?;
    let limit = limit(ask, "limit", 100, 500)?;
    let mut rows = ask.trades(listed, TradesFrom::Newest(ask.now()), limit);
    rows.reverse();
    let row = |t: &super::super::market::Trade| {
        format!(
            r#"{{"instId":"{}","side":"{}","sz":"{}","px":"{}","tradeId":"{}","ts":"{}"}}"#,
            listed.key,
            if t.buyer_maker { "sell" } else { "buy" },
            Plain(i128::from(t.size)),
            Plain(i128::from(t.price)),
            t.id,
            t.time
        )
    };
    Ok(data(&ask.rows(&rows, row), rows.len()))
}

/// What a swap pays at an instant of payment, in 1e-10: usually a hundredth of a per cent, more after
/// the price has risen.
fn rate(ask: &Ask<'_>, listed: &Listed, at: i64) -> i64 {
    let mut dice = Dice::new(mix(hash_text("funding"), mix(listed.lens.seed(), at as u64)));
    let before = ask.candle(listed, (at - FUNDING, at), at);
    let moved = before.map_or(0.0, |c| (c.close - c.open) as f64 / c.open.max(1) as f64);
    let rate = 0.000_06 + 0.000_06 * dice.normal() + 0.006 * moved;
    (rate.clamp(-0.003_75, 0.003_75) * 1e10) as i64
}

/// A rate of 1e-10 as text with all its digits.
fn rate_text(rate: i64) -> String {
    let sign = if rate < 0 { "-" } else { "" };
    let rate = rate.unsigned_abs();
    let text = format!("{sign}{}.{:010}", rate / 10_000_000_000, rate % 10_000_000_000);
    let short = text.trim_end_matches('0');
    short.strip_suffix('.').unwrap_or(short).to_owned()
}

fn funding(ask: &Ask<'_>) -> Outcome {
    let listed = swap(ask)?;
    let now = ask.now();
    let due = (now.div_euclid(FUNDING) + 1) * FUNDING;
    let (next, settled) = (rate(ask, listed, due - FUNDING), rate(ask, listed, due - 2 * FUNDING));
    // The coming rate is known as far as the present goes.
    let coming = (next + settled) / 2;
    let row = format!(
        concat!(
            r#"{{"fundingRate":"{}","fundingTime":"{}","instId":"{}-SWAP","instType":"SWAP","#,
            r#""method":"current_period","maxFundingRate":"0.00375","#,
            r#""minFundingRate":"-0.00375","nextFundingRate":"","nextFundingTime":"{}","#,
            r#""premium":"{}","settFundingRate":"{}","settState":"settled","ts":"{}"}}"#
        ),
        rate_text(coming),
        due,
        listed.key,
        due + FUNDING,
        rate_text(coming + coming / 3),
        rate_text(next),
        now
    );
    Ok(data(&row, 1))
}

fn funding_history(ask: &Ask<'_>) -> Outcome {
    let listed = swap(ask)?;
    let limit = limit(ask, "limit", 100, 400)?;
    let (before, after) = window(ask)?;
    let now = ask.now();
    let newest = now.div_euclid(FUNDING) * FUNDING;
    let oldest = (now - KEPT).max(before + 1);
    let times: Vec<i64> = (0..)
        .map(|i| newest - i * FUNDING)
        .take_while(|t| *t >= oldest)
        .filter(|t| *t < after)
        .take(limit)
        .collect();
    let rows = list(&times, |at| {
        let rate = rate_text(rate(ask, listed, *at));
        format!(
            concat!(
                r#"{{"instType":"SWAP","instId":"{}-SWAP","fundingRate":"{}","#,
                r#""realizedRate":"{}","fundingTime":"{}"}}"#
            ),
            listed.key, rate, rate, at
        )
    });
    Ok(data(&rows, times.len()))
}

fn open_interest(ask: &Ask<'_>) -> Outcome {
    match ask.params.raw("instType").filter(|t| !t.is_empty()) {
        None => return Err(missing("instType")),
        Some("SWAP") => {}
        Some("FUTURES" | "OPTION") => return Ok(data("", 0)),
        Some(_) => return Err(wrong("instType")),
    }
    let chosen: Vec<&Listed> = match ask.symbol {
        Some(_) => vec![swap(ask)?],
        None => ask.house.listings.all.iter().filter(|l| has_swap(ask, l)).collect(),
    };
    let now = ask.now();
    let rows = list(&chosen, |listed| {
        // About as much as is traded in two days, by an hour that leads to the next.
        let hour = now.div_euclid(HOUR);
        let part = now.rem_euclid(HOUR) as f64 / HOUR as f64;
        let level = |h: i64| Dice::new(mix(listed.lens.seed(), h as u64)).unit();
        let swing = level(hour) * (1.0 - part) + level(hour + 1) * part;
        let day = now.div_euclid(DAY);
        let yesterday = ask.candle(listed, ((day - 1) * DAY, day * DAY), now);
        let traded = yesterday.map_or(0, |c| c.volume) as f64;
        let contracts = (traded * (1.9 + 0.2 * swing)) as i128 / contract(listed);
        format!(
            r#"{{"instType":"SWAP","instId":"{}-SWAP","oi":"{}","oiCcy":"{}","ts":"{}"}}"#,
            listed.key,
            contracts,
            Plain(contracts * contract(listed)),
            now
        )
    });
    Ok(data(&rows, chosen.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_open_where_the_venue_opens_them() {
        // 2026-11-22T13:00:00Z, a Sunday.
        let t = 1_795_352_400_000;
        for (name, open) in [
            ("1m", t),
            ("4H", 1_795_348_800_000),
            ("1Dutc", 1_795_305_600_000),
            ("1D", 1_795_276_800_000),
            ("1Wutc", 1_794_787_200_000),
        ] {
            assert_eq!(bars(name).unwrap().floor(t), open, "{name}");
        }
        for name in ["1h", "1Hutc", "1M", "7m", "", "D", "é"] {
            assert!(bars(name).is_none(), "{name}");
        }
        assert_eq!(rate_text(792_386_885), "0.0792386885");
        assert_eq!(rate_text(-236_017), "-0.0000236017");
        assert_eq!(rate_text(0), "0");
    }
}
