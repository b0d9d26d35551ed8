//! Coinbase Exchange. Spec: venues, section 8.1.

use watchbell_core::Time;

use super::super::dice::mix;
use super::super::market::{Candle, DAY, Trade, TradesFrom};
use super::gate::Refused;
use super::text::{Plain, list};
use super::view::{Bars, Listed, json};
use super::{Answer, Ask, Outcome, Route, bounded};

/// Candles of an answer.
const ROWS: i64 = 300;
const TOO_MANY: &str = "granularity too small for the requested time range. Count of aggregations \
                        requested exceeds 300";

pub(super) fn route(path: &str) -> Option<Route> {
    let rest = path.strip_prefix('/')?;
    let (endpoint, target, id) = match rest.split('/').collect::<Vec<_>>().as_slice() {
        ["time"] => ("time", "time", None),
        ["products"] => ("products", "exchangeInfo", None),
        ["products", id] => ("product", "exchangeInfo", Some(*id)),
        ["products", id, "candles"] => ("candles", "klines", Some(*id)),
        ["products", id, "ticker"] => ("ticker", "ticker", Some(*id)),
        ["products", id, "stats"] => ("stats", "ticker", Some(*id)),
        ["products", id, "book"] => ("book", "depth", Some(*id)),
        ["products", id, "trades"] => ("trades", "trades", Some(*id)),
        _ => return None,
    };
    Some(Route { endpoint, target, symbol: id.map(str::to_owned) })
}

/// `named` says whether the client told who it is.
pub(super) fn answer(ask: &Ask<'_>, endpoint: &str, named: bool) -> Outcome {
    if !named {
        return Err(error(400, "User-Agent header is required"));
    }
    match endpoint {
        "time" => Ok(time(ask)),
        "products" => Ok(products(ask)),
        "product" => Ok(of(product(ask, listed(ask)?), 1)),
        "candles" => candles(ask),
        "ticker" => ticker(ask),
        "stats" => stats(ask),
        "book" => book(ask),
        _ => trades(ask),
    }
}

fn of(body: String, rows: usize) -> Answer {
    Answer { kind: "application/json; charset=utf-8", ..json(body, rows) }
}

fn error(status: u16, message: &str) -> Answer {
    Answer { status, ..of(format!(r#"{{"message":"{message}"}}"#), 0) }
}

pub(super) fn unknown() -> Answer {
    error(404, "NotFound")
}

pub(super) fn refuse(refused: &Refused) -> Answer {
    match refused.banned_until {
        Some(_) => error(403, "Forbidden"),
        None => error(429, "Public rate limit exceeded"),
    }
}

pub(super) fn trouble(status: u16) -> Answer {
    let message = match status {
        429 => "Public rate limit exceeded",
        404 => "NotFound",
        400..500 => "Bad Request",
        503 => "Service Unavailable",
        _ => "Internal server error",
    };
    error(status, message)
}

fn listed<'a>(ask: &Ask<'a>) -> Result<&'a Listed, Answer> {
    let found = ask.symbol.and_then(|id| ask.house.listings.find(id));
    found.ok_or_else(unknown)
}

/// `2021-04-17T16:43:37.089723Z`: the last three digits say nothing.
fn instant(t: i64, digits: u64) -> String {
    let text = Time(t - t.rem_euclid(1_000)).rfc3339();
    let whole = text.split(['.', 'Z']).next().unwrap_or_default();
    format!("{whole}.{:03}{:03}Z", t.rem_euclid(1_000), digits % 1_000)
}

fn time(ask: &Ask<'_>) -> Answer {
    let now = ask.server_time();
    let iso = instant(now, 0);
    let (seconds, part) = (now.div_euclid(1_000), now.rem_euclid(1_000));
    of(format!(r#"{{"iso":"{}Z","epoch":{seconds}.{part:03}}}"#, &iso[..23]), 1)
}

fn products(ask: &Ask<'_>) -> Answer {
    let all = &ask.house.listings.all;
    of(format!("[{}]", list(all, |l| product(ask, l))), all.len())
}

fn product(ask: &Ask<'_>, l: &Listed) -> String {
    let closed = ask.is_closed(l);
    format!(
        concat!(
            r#"{{"id":"{}","base_currency":"{}","quote_currency":"{}","base_min_size":"{}","#,
            r#""base_max_size":"1000000","quote_increment":"{}","base_increment":"{}","#,
            r#""display_name":"{}/{}","min_market_funds":"1","max_market_funds":"1000000","#,
            r#""margin_enabled":false,"post_only":false,"limit_only":false,"cancel_only":{},"#,
            r#""trading_disabled":{},"status":"{}","status_message":""}}"#
        ),
        l.key,
        l.base,
        l.quote,
        Plain(i128::from(l.step)),
        Plain(i128::from(l.lens.tick)),
        Plain(i128::from(l.step)),
        l.base,
        l.quote,
        closed,
        closed,
        if closed { "delisted" } else { "online" },
    )
}

/// An instant as text: ISO 8601, or seconds since the epoch.
fn parse(text: &str) -> Result<i64, Answer> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(bounded(seconds.saturating_mul(1_000)));
    }
    // A plus sign in a query is a blank when it arrives.
    let text = text.replace(' ', "+");
    let zoned = Time::parse(&text).or_else(|_| Time::parse(&format!("{text}Z")));
    zoned.map(|t| bounded(t.0)).map_err(|_| error(400, "Invalid start or end"))
}

fn candles(ask: &Ask<'_>) -> Outcome {
    let listed = listed(ask)?;
    let seconds = ask.whole("granularity").unwrap_or(Ok(60)).unwrap_or(0);
    let bars = Bars::of_minutes(if seconds % 60 == 0 { seconds / 60 } else { 0 })
        .filter(|b| matches!(b.name, "1m" | "5m" | "15m" | "1h" | "6h" | "1d"))
        .ok_or_else(|| error(400, "Unsupported granularity"))?;
    let asked = |name| ask.params.raw(name).filter(|v| !v.is_empty()).map(parse).transpose();
    // One of them alone is ignored.
    let span = match (asked("start")?, asked("end")?) {
        (Some(start), Some(end)) if (end - start) / bars.length > ROWS => {
            return Err(error(400, TOO_MANY));
        }
        (Some(start), Some(end)) => (start, end),
        _ => {
            let open = bars.floor(ask.now());
            (open - (ROWS - 1) * bars.length, open)
        }
    };
    let mut rows = ask.bars(listed, bars, span, false);
    rows.retain(|c| c.volume > 0);
    rows.reverse();
    let row = |c: &Candle| {
        let price = |v: i64| Plain(i128::from(v));
        format!(
            "[{},{},{},{},{},{}]",
            c.open_time.div_euclid(1_000),
            price(c.low),
            price(c.high),
            price(c.open),
            price(c.close),
            Plain(c.volume)
        )
    };
    Ok(of(format!("[{}]", ask.rows(&rows, row)), rows.len()))
}

fn ticker(ask: &Ask<'_>) -> Outcome {
    let listed = listed(ask)?;
    let (Some(day), Some(last)) = (ask.day(listed), ask.last_trade(listed)) else {
        return Err(unknown());
    };
    let book = ask.book(listed, 1, listed.step);
    let best = |l: Option<&super::depth::Level>| Plain(l.map_or(0, |l| i128::from(l.price)));
    let body = format!(
        concat!(
            r#"{{"ask":"{}","bid":"{}","volume":"{}","trade_id":{},"price":"{}","size":"{}","#,
            r#""time":"{}"}}"#
        ),
        best(book.asks.first()),
        best(book.bids.first()),
        Plain(day.volume),
        last.id,
        Plain(i128::from(last.price)),
        Plain(i128::from(last.size)),
        instant(last.time, mix(last.id as u64, 1)),
    );
    Ok(of(body, 1))
}

fn stats(ask: &Ask<'_>) -> Outcome {
    let listed = listed(ask)?;
    let now = ask.now();
    let today = now.div_euclid(DAY) * DAY;
    let month = ask.candle(listed, (today - 29 * DAY, now + 1), now);
    let (Some(day), Some(month)) = (ask.day(listed), month) else { return Err(unknown()) };
    let price = |v: i64| Plain(i128::from(v));
    let body = format!(
        r#"{{"open":"{}","high":"{}","low":"{}","last":"{}","volume":"{}","volume_30day":"{}"}}"#,
        price(day.open),
        price(day.high),
        price(day.low),
        price(day.close),
        Plain(day.volume),
        Plain(month.volume),
    );
    Ok(of(body, 1))
}

fn book(ask: &Ask<'_>) -> Outcome {
    let listed = listed(ask)?;
    let levels = match ask.params.raw("level").unwrap_or("1") {
        "1" => 1,
        "2" => usize::MAX,
        "3" => return Err(error(400, "Level 3 is not served here")),
        _ => return Err(error(400, "Invalid level")),
    };
    let book = ask.book(listed, levels, listed.step);
    let side = |levels: &[super::depth::Level]| {
        ask.rows(levels, |l| {
            let (price, size) = (Plain(i128::from(l.price)), Plain(i128::from(l.size)));
            format!(r#"["{price}","{size}",{}]"#, l.orders)
        })
    };
    let now = ask.now();
    let body = format!(
        concat!(
            r#"{{"bids":[{}],"asks":[{}],"sequence":{},"auction_mode":false,"auction":null,"#,
            r#""time":"{}"}}"#
        ),
        side(&book.bids),
        side(&book.asks),
        now.div_euclid(100),
        instant(now, 0),
    );
    Ok(of(body, book.bids.len() + book.asks.len()))
}

fn trades(ask: &Ask<'_>) -> Outcome {
    let listed = listed(ask)?;
    let bad = |()| error(400, "Invalid pagination");
    let limit = ask.whole("limit").unwrap_or(Ok(1_000)).map_err(bad)?;
    let limit = usize::try_from(limit).ok().filter(|n| (1..=1_000).contains(n));
    let limit = limit.ok_or_else(|| bad(()))?;
    let after = ask.whole("after").transpose().map_err(bad)?;
    let before = ask.whole("before").transpose().map_err(bad)?;
    // Trades have consecutive numbers: `after` is older than a number, `before` newer.
    let mut rows = match after {
        Some(id) => {
            let first = id.saturating_sub(limit as i64).max(0);
            let mut rows = ask.trades(listed, TradesFrom::Id(first), limit);
            rows.retain(|t| t.id < id);
            rows
        }
        None => ask.trades(listed, TradesFrom::Newest(ask.now()), limit),
    };
    rows.retain(|t| before.is_none_or(|id| t.id > id));
    rows.reverse();
    let row = |t: &Trade| {
        // The side is that of the order that was resting.
        format!(
            r#"{{"time":"{}","trade_id":{},"price":"{}","size":"{}","side":"{}"}}"#,
            instant(t.time, mix(t.id as u64, 1)),
            t.id,
            Plain(i128::from(t.price)),
            Plain(i128::from(t.size)),
            if t.buyer_maker { "buy" } else { "sell" }
        )
    };
    Ok(of(format!("[{}]", ask.rows(&rows, row)), rows.len()))
}
