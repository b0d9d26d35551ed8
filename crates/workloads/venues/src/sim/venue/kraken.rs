//! Kraken spot. Spec: venues, section 6.

use super::super::market::{Candle, DAY, TradesFrom};
use super::super::params::Params;
use super::gate::Refused;
use super::text::{Fixed, decimals, list};
use super::view::{Bars, Listed, Listings, Standing, json};
use super::{Answer, Ask, FAR, Outcome, Route, bounded};

/// Closed candles of an answer, whatever is asked.
const ROWS: i64 = 720;
/// Sizes of a book have three decimals.
const LOT: i64 = 100_000;

/// Assets under Kraken's codes: its own, and the shorter one of `altname`. A prefix, `X` for coins and
/// `Z` for currencies, marks the oldest ones.
const CODES: [(&str, &str, &str); 14] = [
    ("BTC", "XXBT", "XBT"),
    ("ETH", "XETH", "ETH"),
    ("DOGE", "XXDG", "XDG"),
    ("XRP", "XXRP", "XRP"),
    ("LTC", "XLTC", "LTC"),
    ("XLM", "XXLM", "XLM"),
    ("ETC", "XETC", "ETC"),
    ("XMR", "XXMR", "XMR"),
    ("ZEC", "XZEC", "ZEC"),
    ("REP", "XREP", "REP"),
    ("MLN", "XMLN", "MLN"),
    ("USD", "ZUSD", "USD"),
    ("EUR", "ZEUR", "EUR"),
    ("GBP", "ZGBP", "GBP"),
];

/// The code of an asset and its short form.
fn codes(asset: &str) -> (&str, &str) {
    let known = CODES.iter().find(|(name, ..)| *name == asset);
    known.map_or((asset, asset), |(_, code, short)| (code, short))
}

/// What answers call a pair, and its `altname`.
pub(super) fn names(base: &str, quote: &str, dark: bool) -> (String, String) {
    let ((code, short), (quote_code, quote_short)) = (codes(base), codes(quote));
    let name = format!("{short}{quote_short}");
    // The oldest pairs keep both prefixes, but for this one.
    let old = (code != short || base == "USDT") && base != "DOGE";
    let key = if old { format!("{code}{quote_code}") } else { name.clone() };
    if dark { (format!("{key}.d"), format!("{name}.d")) } else { (key, name) }
}

/// The `wsname` of a pair.
pub(super) fn slashed(listed: &Listed) -> String {
    format!("{}/{}", codes(&listed.base).1, codes(&listed.quote).1)
}

pub(super) fn route(listings: &Listings, path: &str, params: &Params) -> Option<Route> {
    let (endpoint, target) = match path.strip_prefix("/0/public/")? {
        "Time" => ("Time", "time"),
        "SystemStatus" => ("SystemStatus", "ping"),
        "AssetPairs" => ("AssetPairs", "exchangeInfo"),
        "Ticker" => ("Ticker", "ticker"),
        "OHLC" => ("OHLC", "klines"),
        "Depth" => ("Depth", "depth"),
        "Trades" => ("Trades", "trades"),
        _ => return None,
    };
    let asked = params.raw("pair").filter(|p| !p.is_empty());
    let symbol = asked.map(|p| listings.find(p).map_or_else(|| p.to_owned(), |l| l.name.clone()));
    Some(Route { endpoint, target, symbol })
}

pub(super) fn answer(ask: &Ask<'_>, endpoint: &str) -> Outcome {
    match endpoint {
        "Time" => Ok(time(ask)),
        "SystemStatus" => Ok(status(ask)),
        "AssetPairs" => pairs(ask),
        "Ticker" => tickers(ask),
        "OHLC" => candles(ask),
        "Depth" => depth(ask),
        _ => trades(ask),
    }
}

/// An error, which Kraken sends with status 200.
fn error(text: &str) -> Answer {
    json(format!(r#"{{"error":["{text}"]}}"#), 0)
}

fn invalid() -> Answer {
    error("EGeneral:Invalid arguments")
}

pub(super) fn unknown() -> Answer {
    error("EGeneral:Unknown method")
}

pub(super) fn refuse(refused: &Refused) -> Answer {
    match refused.banned_until {
        Some(until) => error(&format!("EService:Throttled: {}", until.0.div_euclid(1_000))),
        None => error("EGeneral:Too many requests"),
    }
}

pub(super) fn trouble(status: u16) -> Answer {
    let text = match status {
        429 => "EAPI:Rate limit exceeded",
        503 => "EService:Unavailable",
        500 => "EGeneral:Internal error",
        400..500 => "EGeneral:Invalid arguments",
        _ => {
            let page = format!(
                "<!DOCTYPE html><html><head><title>api.kraken.com | {status}: Web server is \
                 returning an unknown error</title></head></html>"
            );
            return Answer { kind: "text/html; charset=UTF-8", ..Answer::page(status, page) };
        }
    };
    Answer { status, ..error(text) }
}

fn result(body: &str, rows: usize) -> Answer {
    json(format!(r#"{{"error":[],"result":{body}}}"#), rows)
}

/// The pair that must be named.
fn pair<'a>(ask: &Ask<'a>) -> Result<&'a Listed, Answer> {
    let name = ask.symbol.ok_or_else(invalid)?;
    let found = ask.house.listings.find(name).filter(|l| l.standing != Standing::Dark);
    found.ok_or_else(|| error("EQuery:Unknown asset pair"))
}

/// The pairs of a list, or all; and whether they were named.
fn chosen<'a>(ask: &Ask<'a>) -> Result<(Vec<&'a Listed>, bool), Answer> {
    let Some(names) = ask.params.raw("pair").filter(|p| !p.is_empty()) else {
        return Ok((ask.house.listings.all.iter().collect(), false));
    };
    let find = |name| ask.house.listings.find(name);
    let found: Option<Vec<&Listed>> = names.split(',').map(find).collect();
    found.map(|f| (f, true)).ok_or_else(|| error("EQuery:Unknown asset pair"))
}

fn time(ask: &Ask<'_>) -> Answer {
    let seconds = ask.server_time().div_euclid(1_000);
    let text = jiff::Timestamp::from_second(seconds)
        .map(|t| t.strftime("%a, %d %b %y %H:%M:%S +0000").to_string())
        .unwrap_or_default();
    result(&format!(r#"{{"unixtime":{seconds},"rfc1123":"{text}"}}"#), 0)
}

fn status(ask: &Ask<'_>) -> Answer {
    let at = watchbell_core::Time(ask.server_time().div_euclid(1_000) * 1_000);
    result(&format!(r#"{{"status":"online","timestamp":"{}"}}"#, at.rfc3339()), 0)
}

const FEES: &str = concat!(
    r#""fees":[[0,0.4],[10000,0.35],[50000,0.24],[100000,0.22],[250000,0.2],[500000,0.18],"#,
    r#"[1000000,0.16],[2500000,0.14],[5000000,0.12],[10000000,0.1]],"#,
    r#""fees_maker":[[0,0.25],[10000,0.2],[50000,0.14],[100000,0.12],[250000,0.1],"#,
    r#"[500000,0.08],[1000000,0.06],[2500000,0.04],[5000000,0.02],[10000000,0.0]],"#,
    r#""fee_volume_currency":"ZUSD","margin_call":80,"margin_stop":40"#
);

fn pairs(ask: &Ask<'_>) -> Outcome {
    if ask.params.raw("aclass_base").is_some_and(|class| class != "currency") {
        return Ok(result("{}", 0));
    }
    let (chosen, _) = chosen(ask)?;
    let body = list(&chosen, |listed| {
        let Listed { key, name, .. } = listed;
        let dark = listed.standing == Standing::Dark;
        let wsname =
            if dark { String::new() } else { format!(r#""wsname":"{}","#, slashed(listed)) };
        let (base, quote) = (codes(&listed.base).0, codes(&listed.quote).0);
        let tick = listed.lens.tick;
        let status = if ask.is_closed(listed) { "cancel_only" } else { "online" };
        // No order below about fifty cents.
        format!(
            concat!(
                r#""{}":{{"altname":"{}",{}"aclass_base":"currency","base":"{}","#,
                r#""aclass_quote":"currency","quote":"{}","lot":"unit","cost_decimals":5,"#,
                r#""pair_decimals":{},"lot_decimals":8,"lot_multiplier":1,"leverage_buy":[],"#,
                r#""leverage_sell":[],{},"ordermin":"{}","costmin":"0.5","tick_size":"{}","#,
                r#""status":"{}"}}"#
            ),
            key,
            name,
            wsname,
            base,
            quote,
            decimals(tick),
            FEES,
            super::text::Plain(i128::from(listed.step)),
            super::text::Plain(i128::from(tick)),
            status,
        )
    });
    Ok(result(&format!("{{{body}}}"), chosen.len()))
}

/// Prices outside of candles have five decimals at least.
fn price(listed: &Listed, v: i64) -> Fixed {
    Fixed(i128::from(v), decimals(listed.lens.tick).max(5))
}

fn tickers(ask: &Ask<'_>) -> Outcome {
    let (chosen, named) = chosen(ask)?;
    let plain_names = ask.params.raw("assetVersion") == Some("1");
    let shown: Vec<String> = chosen
        .iter()
        .filter(|l| named || (l.standing != Standing::Dark && !ask.is_closed(l)))
        .filter_map(|l| ticker(ask, l, plain_names))
        .collect();
    let rows = shown.len();
    Ok(result(&format!("{{{}}}", ask.rows(&shown, String::clone)), rows))
}

fn ticker(ask: &Ask<'_>, listed: &Listed, plain_names: bool) -> Option<String> {
    let now = ask.now();
    let day = ask.day(listed)?;
    let midnight = now.div_euclid(DAY) * DAY;
    let today = ask.candle(listed, (midnight, now + 1), now)?;
    let last = ask.last_trade(listed)?;
    let book = ask.book(listed, 1, LOT);
    let price = |v| price(listed, v);
    let touch = |level: Option<&super::depth::Level>| {
        let (at, size) = level.map_or((0, 0), |l| (l.price, i128::from(l.size)));
        format!(r#"["{}","{}","{}"]"#, price(at), Fixed(size, 0), Fixed(size, 3))
    };
    let mean = |c: &Candle| {
        let mean = if c.volume > 0 { c.quote * 100_000_000 / c.volume } else { 0 };
        Fixed(mean, decimals(listed.lens.tick).max(5))
    };
    let key =
        if plain_names { format!("{}/{}", listed.base, listed.quote) } else { listed.key.clone() };
    Some(format!(
        concat!(
            r#""{}":{{"a":{},"b":{},"c":["{}","{}"],"v":["{}","{}"],"p":["{}","{}"],"#,
            r#""t":[{},{}],"l":["{}","{}"],"h":["{}","{}"],"o":"{}"}}"#
        ),
        key,
        touch(book.asks.first()),
        touch(book.bids.first()),
        price(last.price),
        Fixed(i128::from(last.size), 8),
        Fixed(today.volume, 8),
        Fixed(day.volume, 8),
        mean(&today),
        mean(&day),
        today.trades,
        day.trades,
        price(today.low),
        price(day.low),
        price(today.high),
        price(day.high),
        price(today.open),
    ))
}

fn candles(ask: &Ask<'_>) -> Outcome {
    let listed = pair(ask)?;
    let minutes = ask.whole("interval").unwrap_or(Ok(1)).map_err(|()| invalid())?;
    let bars = Bars::of_minutes(minutes)
        .filter(|b| !matches!(b.name, "3m" | "2h" | "6h" | "12h"))
        .ok_or_else(invalid)?;
    let since = ask.whole("since").transpose().map_err(|()| invalid())?;
    let open = bars.floor(ask.now());
    // Never more than the newest ones, whatever a client has seen; the open one always.
    let after = since.map_or(-FAR, |s| bounded(s.saturating_mul(1_000)));
    let first = (after + 1).max(open - ROWS * bars.length).min(open);
    let shown = ask.bars(listed, bars, (first, open), true);
    let last = open - bars.length;
    let places = decimals(listed.lens.tick);
    let price = |v: i64| Fixed(i128::from(v), places);
    let row = |c: &Candle| {
        let mean = match c.volume {
            0 => "0.0".to_owned(),
            volume => Fixed(c.quote * 100_000_000 / volume, places).to_string(),
        };
        format!(
            r#"[{},"{}","{}","{}","{}","{}","{}",{}]"#,
            c.open_time.div_euclid(1_000),
            price(c.open),
            price(c.high),
            price(c.low),
            price(c.close),
            mean,
            Fixed(c.volume, 8),
            c.trades
        )
    };
    let body = format!(
        r#"{{"{}":[{}],"last":{}}}"#,
        listed.key,
        ask.rows(&shown, row),
        last.div_euclid(1_000)
    );
    Ok(result(&body, shown.len()))
}

fn depth(ask: &Ask<'_>) -> Outcome {
    let listed = pair(ask)?;
    let count = ask.whole("count").unwrap_or(Ok(100)).map_err(|()| invalid())?;
    let count = usize::try_from(count).ok().filter(|n| (1..=500).contains(n));
    let book = ask.book(listed, count.ok_or_else(invalid)?, LOT);
    let side = |levels: &[super::depth::Level]| {
        ask.rows(levels, |l| {
            format!(
                r#"["{}","{}",{}]"#,
                price(listed, l.price),
                Fixed(i128::from(l.size), 3),
                l.since
            )
        })
    };
    let body = format!(
        r#"{{"{}":{{"asks":[{}],"bids":[{}]}}}}"#,
        listed.key,
        side(&book.asks),
        side(&book.bids)
    );
    Ok(result(&body, book.asks.len() + book.bids.len()))
}

fn trades(ask: &Ask<'_>) -> Outcome {
    let listed = pair(ask)?;
    let count = ask.whole("count").unwrap_or(Ok(1_000)).map_err(|()| invalid())?;
    let count = usize::try_from(count).ok().filter(|n| (1..=1_000).contains(n));
    let count = count.ok_or_else(invalid)?;
    let since = ask.whole("since").transpose().map_err(|()| invalid())?;
    // A time in nanoseconds; the trade's number tells those of one millisecond apart.
    let nanos = |t: &super::super::market::Trade| t.time * 1_000_000 + t.id % 1_000 * 1_000 + 754;
    let (from, more) = match since {
        None => (TradesFrom::Newest(ask.now()), 0),
        // Those of its millisecond that came before it are read too, and left out.
        Some(ns) => (TradesFrom::Times(ns.div_euclid(1_000_000), ask.now()), 64),
    };
    let mut rows = ask.trades(listed, from, count + more);
    rows.retain(|t| since.is_none_or(|ns| nanos(t) > ns));
    rows.truncate(count);
    let last = rows.iter().map(nanos).max().or(since).unwrap_or(ask.now() * 1_000_000);
    let body = ask.rows(&rows, |t| {
        let ns = nanos(t);
        format!(
            r#"["{}","{}",{}.{:07},"{}","{}","",{}]"#,
            price(listed, t.price),
            Fixed(i128::from(t.size), 8),
            ns / 1_000_000_000,
            ns % 1_000_000_000 / 100,
            if t.buyer_maker { 's' } else { 'b' },
            if t.id % 3 == 0 { 'm' } else { 'l' },
            t.id
        )
    });
    let body = format!(r#"{{"{}":[{body}],"last":"{last}"}}"#, listed.key);
    Ok(result(&body, rows.len()))
}
