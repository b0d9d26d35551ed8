//! The health scan (section 9.3): how old everything is, what is missing, what waits.
//!
//! Reading and judging are apart: each check reads a few rows, and what they mean is decided by
//! [`aged`] and by comparisons that the tests go through.

use serde_json::json;
use watchbell_clock::Stopwatch;
use watchbell_core::{Millis, Time, values};
use watchbell_db::{Database, DbError};

use super::{Item, Level};
use crate::Config;
use crate::due::{self, DAY, PATIENCE};
use crate::sampler::MARKET_SAMPLER;
use crate::universe::MINUTE;
use crate::view::{self, Fresh};

/// A queued job that is due for so long is overdue.
const OVERDUE: Millis = Millis::from_mins(5);
/// A read that takes so long means that the store is slow.
const SLOW: Millis = Millis(500);
/// How many names a message lists.
const NAMED: usize = 5;

/// Everything that the scan finds: the fixed keys first, then check by check.
pub(super) async fn scan(db: &Database, config: &Config, now: Time) -> Result<Vec<Item>, DbError> {
    let watch = Stopwatch::start();
    let fresh = view::freshness(db).await?;
    let latency = watch.millis();
    let mut items = fixed(db, config, &fresh, now).await?;
    items.extend(recency(config, &fresh, now));
    for length in config.ascending() {
        items.push(windows(db, length, now).await?);
    }
    items.extend(queue(db, now).await?);
    items.push(matrices(db, config, now).await?);
    items.extend(moods(db, config, now).await?);
    items.push(open_sessions(db, now).await?);
    items.push(flags(db, now).await?);
    items.push(store(db, latency, now).await?);
    Ok(items)
}

/// The level of an age; what was never seen is as bad as can be.
pub(super) fn aged(age: Option<Millis>, warn: Millis, err: Millis) -> Level {
    match age {
        Some(age) if age <= warn => Level::Ok,
        Some(age) if age <= err => Level::Warn,
        _ => Level::Err,
    }
}

/// A slice of the present, and a ticker, may be this old: one refresh has failed then, and two have
/// not.
fn lag(config: &Config) -> Millis {
    config.matrices.refresh * 2
}

fn seconds(age: Option<Millis>) -> serde_json::Value {
    age.map_or(serde_json::Value::Null, |age| (age.0 / 1_000).into())
}

/// An age in a sentence: whole seconds.
fn span(age: Millis) -> String {
    match age.0 {
        ..1_000 => "less than 1s".to_owned(),
        ms => Millis(ms - ms % 1_000).to_string(),
    }
}

/// The keys that every pack has (section 9.5), whatever else is in it.
async fn fixed(
    db: &Database,
    config: &Config,
    fresh: &[Fresh],
    now: Time,
) -> Result<Vec<Item>, DbError> {
    let feed = view::feed(db).await?;
    let level = match feed.state.as_str() {
        "ok" => Level::Ok,
        "unknown" => Level::Warn,
        _ => Level::Err,
    };
    let said = feed.detail.clone().unwrap_or_else(|| match feed.answered_at {
        Some(at) => format!("the venue answered {} ago", span(now.since(at))),
        None => "it is well, and its answers are no longer in the log".to_owned(),
    });
    let mut items = vec![
        Item::new(now, "feed:binance", "venue", level, feed.state.as_str(), said)
            .meta(json!({ "answered_at": feed.answered_at, "weight_used": feed.weight_used })),
    ];
    items.push(partial(db, &feed, now).await?);
    let tickers = db
        .query_one(
            "select count(*) from market.ticker_latest t
             join settings.coin_universe u on u.symbol = t.symbol
             where u.enabled = 1 and t.ts >= $1",
            values![now - lag(config)],
        )
        .await?
        .i64(0)?;
    let wanted = fresh.len() as i64;
    let (level, said) = match tickers {
        _ if wanted == 0 => (Level::Err, "no symbol is enabled".to_owned()),
        0 => (Level::Ok, "no rows yet".to_owned()),
        n if n < wanted => (Level::Warn, format!("{n} of {wanted} symbols have a fresh ticker")),
        n => (Level::Ok, format!("all {n} symbols have a fresh ticker")),
    };
    items.push(Item::new(now, "tickset:size", "tickers", level, tickers, said));
    items.push(poller(db, config, now).await?);
    let newest = |of: fn(&Fresh) -> Option<Time>| fresh.iter().filter_map(of).max();
    let priced = |f: &Fresh| f.sample.filter(|_| !f.sample_is_empty);
    let latest = newest(priced).max(newest(|f| f.kline));
    let age = latest.map(|t| now.since(t));
    let said = match age {
        Some(age) => format!("the newest data is {} old", span(age)),
        None => "no rows yet".to_owned(),
    };
    let level = if latest.is_none() { Level::Warn } else { aged(age, MINUTE * 3, MINUTE * 5) };
    let value = latest.map_or(serde_json::Value::Null, |t| json!(t));
    items.push(Item::new(now, "latest:ts", "newest data", level, value, said));
    Ok(items)
}

/// Whether what is shown and computed lacks something that is still to come (section 11.4).
async fn partial(db: &Database, feed: &view::Feed, now: Time) -> Result<Item, DbError> {
    let gaps = db
        .query_one("select count(*) from ingest.kline_gaps where state = 'pending'", Vec::new())
        .await?
        .i64(0)?;
    let mut why = Vec::new();
    if feed.is_away() {
        why.push("the venue is away: no window begins, and points are stored empty".to_owned());
    }
    if gaps > 0 {
        why.push(format!("candles of {gaps} gaps are asked for again, and windows wait for them"));
    }
    let is_partial = !why.is_empty();
    let said = if is_partial { why.join("; ") } else { "nothing is missing".to_owned() };
    let level = Level::Warn.unless(!is_partial);
    Ok(Item::new(now, "ingest:partial_data", "partial data", level, is_partial, said))
}

async fn poller(db: &Database, config: &Config, now: Time) -> Result<Item, DbError> {
    let item = |level, value: &str, said: String| {
        Item::new(now, "poller:state", "order-book poller", level, value, said)
    };
    if !config.sampling {
        return Ok(item(Level::Ok, "OFF", "sampling is switched off".to_owned()));
    }
    let row = db
        .query_opt(
            "select state, last_success_at, last_error, consecutive_errors from ops.workers
             where name = $1",
            values![MARKET_SAMPLER],
        )
        .await?;
    let Some(row) = row else {
        return Ok(item(Level::Warn, "UNKNOWN", "it never ran here".to_owned()));
    };
    let (state, errors) = (row.text(0)?, row.i64(3)?);
    let level = match state {
        "RUNNING" if errors == 0 => Level::Ok,
        "FAILED" => Level::Err,
        _ => Level::Warn,
    };
    let said = match (errors, row.opt_text(2)?) {
        (1.., Some(error)) => format!("{errors} polls failed in a row: {error}"),
        _ => row.opt_time(1)?.map_or_else(
            || "it has not polled yet".to_owned(),
            |at| format!("it polled {} ago", span(now.since(at))),
        ),
    };
    Ok(item(level, state, said))
}

/// Ages of points, cycles and candles, by their oldest symbol.
fn recency(config: &Config, fresh: &[Fresh], now: Time) -> Vec<Item> {
    let mut items = Vec::new();
    let mut check = |key, label, warn, err, of: fn(&Fresh) -> Option<Time>| {
        let ages: Vec<(&str, Option<Millis>)> =
            fresh.iter().map(|f| (&*f.symbol, of(f).map(|t| now.since(t)))).collect();
        items.push(oldest(now, key, label, warn, err, &ages));
    };
    if config.sampling {
        let (warn, err) = (Millis::from_secs(20), Millis::from_secs(60));
        check("sampling:recency", "points", warn, err, |f| f.sample);
        let (warn, err) = (Millis::from_secs(80), Millis::from_secs(160));
        check("cycles:recency", "cycles", warn, err, |f| f.cycle);
    }
    check("klines:lag", "candles", MINUTE * 2, MINUTE * 5, |f| f.kline);
    if config.sampling && fresh.iter().any(|f| f.sample.is_some()) {
        items.insert(1, priced(fresh, now));
    }
    items
}

/// Whether the newest points have a price: they go on while the venue is away, empty.
fn priced(fresh: &[Fresh], now: Time) -> Item {
    let empty: Vec<&str> = fresh.iter().filter(|f| f.sample_is_empty).map(|f| &*f.symbol).collect();
    let (n, all) = (empty.len(), fresh.len());
    let (level, said) = match n {
        0 => (Level::Ok, format!("the newest points of all {all} symbols have a price")),
        n if n < all => {
            (Level::Warn, format!("{n} of {all} newest points have no price: {}", named(&empty)))
        }
        _ => (Level::Err, "no newest point has a price: no order book comes in".to_owned()),
    };
    Item::new(now, "sampling:prices", "prices of points", level, n, said)
        .meta(json!({ "empty": empty }))
}

/// Some of the names, and how many more there are.
fn named(names: &[&str]) -> String {
    match names.len().saturating_sub(NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..NAMED].join(", ")),
    }
}

/// The item of a set of ages: as bad as the oldest, and naming those that are too old.
fn oldest(
    now: Time,
    key: &str,
    label: &str,
    warn: Millis,
    err: Millis,
    ages: &[(&str, Option<Millis>)],
) -> Item {
    if ages.iter().all(|(_, age)| age.is_none()) {
        return Item::new(now, key, label, Level::Warn, serde_json::Value::Null, "no rows yet");
    }
    let level = ages.iter().map(|(_, age)| aged(*age, warn, err)).max().unwrap_or(Level::Ok);
    let late: Vec<&str> =
        ages.iter().filter(|(_, a)| aged(*a, warn, err) != Level::Ok).map(|(s, _)| *s).collect();
    let most = ages.iter().filter_map(|(_, age)| *age).max();
    let said = if late.is_empty() {
        let most = most.map_or_else(String::new, span);
        format!("all {} symbols are at most {most} old", ages.len())
    } else {
        let named = named(&late);
        format!("{} of {} symbols are older than {warn}: {named}", late.len(), ages.len())
    };
    let meta = json!({ "late": late, "warn_s": warn.0 / 1_000, "err_s": err.0 / 1_000 });
    Item::new(now, key, label, level, seconds(most), said).meta(meta)
}

/// What became of each window that ended in the last day.
pub(super) async fn windows(db: &Database, length: Millis, now: Time) -> Result<Item, DbError> {
    let label = length.exact();
    let due = due::windows(db, length, now - DAY, now).await?;
    let (expected, missing, abandoned) = (due.expected, due.missing(), due.abandoned());
    let level = match (missing.len(), abandoned.len()) {
        (0, 0) => Level::Ok,
        (0 | 1, _) => Level::Warn,
        _ => Level::Err,
    };
    let complete = expected - missing.len() - abandoned.len();
    let said = match level {
        Level::Ok if expected == 0 => "no window was due in the last day".to_owned(),
        Level::Ok => format!("all {expected} windows of the last day are complete"),
        _ => format!(
            "{} of {expected} windows of the last day are not there ({} missing, {} abandoned), the \
             first of {}",
            missing.len() + abandoned.len(),
            missing.len(),
            abandoned.len(),
            missing.iter().chain(&abandoned).min().map_or_else(String::new, |t| t.rfc3339())
        ),
    };
    Ok(Item::new(
        now,
        format!("windows:{label}"),
        format!("{label} windows"),
        level,
        complete,
        said,
    )
    .meta(json!({ "expected": expected, "missing": missing, "abandoned": abandoned })))
}

/// Jobs that wait for too long, that failed, and whose holders are silent.
pub(super) async fn queue(db: &Database, now: Time) -> Result<Vec<Item>, DbError> {
    let overdue = db
        .query_one(
            "select count(*), min(run_at) from ops.jobs where state = 'queued' and run_at < $1",
            values![now - OVERDUE],
        )
        .await?;
    let failed = db
        .query_one(
            "select count(*) from ops.job_history where state = 'failed' and finished_at >= $1",
            values![now - DAY],
        )
        .await?;
    let silent = db
        .query_one(
            "select count(*) from ops.jobs where state = 'running' and lease_expires_at < $1",
            values![now],
        )
        .await?;
    let late = overdue.i64(0)?;
    let oldest = overdue.opt_time(1)?.map(|t| now.since(t));
    let said = match oldest {
        Some(age) => format!("{late} overdue, the oldest for {}", span(age)),
        None => "no job waits for longer than it must".to_owned(),
    };
    let count = |key, label, n: i64, some: &str, none: &str| {
        let said = if n == 0 { none.to_owned() } else { format!("{n} {some}") };
        Item::new(now, key, label, Level::Warn.unless(n == 0), n, said)
    };
    Ok(vec![
        Item::new(now, "queue:overdue", "overdue jobs", Level::Warn.unless(late == 0), late, said)
            .meta(json!({ "oldest_s": seconds(oldest) })),
        count(
            "queue:failed",
            "failed jobs",
            failed.i64(0)?,
            "failed for good in the last day",
            "no job failed for good in the last day",
        ),
        count(
            "queue:silent",
            "silent holders",
            silent.i64(0)?,
            "running under a holder that is silent",
            "every running job has a holder that is heard of",
        ),
    ])
}

async fn matrices(db: &Database, config: &Config, now: Time) -> Result<Item, DbError> {
    let newest = view::slices(db, &[]).await?.into_iter().map(|s| s.ts).max();
    let Some(newest) = newest else {
        let none = serde_json::Value::Null;
        return Ok(Item::new(now, "matrices:lag", "matrices", Level::Ok, none, "no rows yet"));
    };
    let age = now.since(newest);
    let level = aged(Some(age), lag(config), config.matrices.refresh * 5);
    let said = format!("the newest slice is {} old", span(age));
    Ok(Item::new(now, "matrices:lag", "matrices", level, seconds(Some(age)), said))
}

/// The newest mood of each label: stable, a fallback, or stale.
async fn moods(db: &Database, config: &Config, now: Time) -> Result<Vec<Item>, DbError> {
    let mut items = Vec::new();
    for length in config.ascending() {
        let label = length.exact();
        let (key, name) = (format!("mood:{label}"), format!("{label} mood"));
        let mood = view::moods(db, std::slice::from_ref(&label), 1).await?.pop();
        let Some(mood) = mood else {
            let none = serde_json::Value::Null;
            items.push(Item::new(now, key, name, Level::Ok, none, "no rows yet"));
            continue;
        };
        let age = now.since(mood.start + length);
        let since = span(age);
        let (level, said) = match (mood.is_stale, mood.is_fallback) {
            (true, _) => (Level::Err, format!("stale: the last stable one again, {since} ago")),
            (_, true) => (Level::Warn, format!("the last stable one again, {since} ago")),
            // Two windows may pass before one is missed.
            _ if age > length * 2 + PATIENCE => (Level::Warn, format!("it is {since} old")),
            _ => (Level::Ok, format!("stable, tier {}, {since} old", mood.tier)),
        };
        items.push(Item::new(now, key, name, level, mood.coeff, said).meta(
            json!({ "mood_id": mood.mood, "tier": mood.tier, "is_fallback": mood.is_fallback }),
        ));
    }
    Ok(items)
}

async fn open_sessions(db: &Database, now: Time) -> Result<Item, DbError> {
    let row = db
        .query_one(
            "select count(*), min(session_id) from cin_aux.rt_session
             where status = 'OPEN' and started_at < $1",
            values![now - DAY],
        )
        .await?;
    let old = row.i64(0)?;
    let said = match row.opt_i64(1)? {
        Some(first) => format!("{old} sessions are open for more than a day, the first is {first}"),
        None => "no session is open for more than a day".to_owned(),
    };
    Ok(Item::new(now, "sessions:open", "open sessions", Level::Warn.unless(old == 0), old, said))
}

/// A schema is open by a boot that is open, or closed.
async fn flags(db: &Database, now: Time) -> Result<Item, DbError> {
    let flags = view::flags(db).await?;
    let (key, label) = ("flags:schemas", "schema flags");
    if flags.is_empty() {
        return Ok(Item::new(now, key, label, Level::Ok, 0, "no rows yet"));
    }
    let any_boot = db
        .query_opt(
            "select session_id from ops.session_log where closed_at is null limit 1",
            Vec::new(),
        )
        .await?
        .is_some();
    let wrong: Vec<&str> = flags
        .iter()
        .filter(|f| {
            let orphan = f.open && f.closed_at.is_some();
            let shut = !f.open && any_boot && super::SCHEMAS.contains(&f.schema.as_str());
            orphan || shut
        })
        .map(|f| f.schema.as_str())
        .collect();
    let open = flags.iter().filter(|f| f.open).count();
    let said = if wrong.is_empty() {
        format!("{open} of {} schemas are open", flags.len())
    } else {
        format!("no running boot agrees with the flags of {}", wrong.join(", "))
    };
    Ok(Item::new(now, key, label, Level::Warn.unless(wrong.is_empty()), open, said)
        .meta(json!({ "inconsistent": wrong })))
}

async fn store(db: &Database, latency: Millis, now: Time) -> Result<Item, DbError> {
    let about = db.describe().await?;
    let level = aged(Some(latency), SLOW, SLOW * 4);
    let mebibytes = (about.bytes + about.log_bytes) / (1 << 20);
    let took = if latency.0 == 0 { "less than 1ms".to_owned() } else { latency.to_string() };
    let said = format!("a read took {took}; the store has {mebibytes} MiB");
    Ok(Item::new(now, "store:latency", "store", level, latency.0, said).meta(
        json!({ "engine": about.engine, "bytes": about.bytes, "log_bytes": about.log_bytes }),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Millis = Millis::from_secs(1);

    #[test]
    fn an_age_is_judged_by_its_limits() {
        for (age, level) in [
            (Some(20), Level::Ok),
            (Some(21), Level::Warn),
            (Some(60), Level::Warn),
            (Some(61), Level::Err),
            (None, Level::Err),
        ] {
            assert_eq!(aged(age.map(|n| S * n), S * 20, S * 60), level, "{age:?}");
        }
    }

    #[test]
    fn the_oldest_symbol_decides_and_is_named() {
        let ages = |list: &[(&'static str, Option<i64>)]| -> Vec<(&str, Option<Millis>)> {
            list.iter().map(|(s, age)| (*s, age.map(|n| S * n))).collect()
        };
        let item = |list: &[(&'static str, Option<i64>)]| {
            oldest(Time(0), "k", "l", S * 20, S * 60, &ages(list))
        };
        let good = item(&[("A", Some(3)), ("B", Some(7))]);
        assert_eq!((good.level, good.value), (Level::Ok, 7.into()));
        assert_eq!(good.message, "all 2 symbols are at most 7s old");
        let late = item(&[("A", Some(3)), ("B", Some(30)), ("C", None)]);
        assert_eq!(late.level, Level::Err, "one was never seen");
        assert_eq!(late.message, "2 of 3 symbols are older than 20s: B, C");
        let names = ["A", "B", "C", "D", "E", "F", "G"];
        let many = item(&names.map(|n| (n, Some(100))));
        assert!(many.message.ends_with("A, B, C, D, E and 2 more"), "{}", many.message);
        assert_eq!(item(&[("A", None)]).message, "no rows yet");
    }
}
