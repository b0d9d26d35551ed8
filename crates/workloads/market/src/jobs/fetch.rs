//! The kinds that ask the venue, and the one that asks for a window.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use watchbell_core::{Cause, Commit, Cycle, Done, Fault, Millis, Pct, Statement, Time, values};
use watchbell_db::Database;
use watchbell_venues::binance::wire::{Interval, Ticker24h};
use watchbell_venues::binance::{BinanceClient, State as VenueState, VenueError};

use super::{Runner, read, runner};
use crate::cin::ImportMoves;
use crate::sync::{Stop, Sync};
use crate::trades::{self, Trades};
use crate::universe;
use crate::window::series_name;

/// How long a job waits while the venue is not well.
const AWAY: Millis = Millis::from_secs(30);
/// Levels of a side of a stored book.
const DEPTH: usize = 50;

/// What the fetching kinds work with.
#[derive(Clone)]
pub(crate) struct Fetch {
    pub(crate) db: Database,
    pub(crate) client: BinanceClient,
    pub(crate) sync: Arc<Sync>,
    pub(crate) trades: Trades,
    /// How far back trades begin that nobody has asked for.
    pub(crate) lookback: Millis,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Klines {
    symbol: String,
    window: String,
    from: Option<Time>,
    to: Option<Time>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Symbols {
    symbols: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Symbol {
    symbol: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Span {
    symbol: String,
    from: Time,
    to: Time,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    label: String,
    window_start: Time,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Import {
    session_id: Option<i64>,
}

impl Fetch {
    /// The runners of the kinds that ask the venue.
    pub(crate) fn runners(&self) -> Vec<(&'static str, Runner)> {
        macro_rules! method {
            ($method:ident) => {{
                let own = self.clone();
                runner(move |cycle, payload| {
                    let own = own.clone();
                    Box::pin(async move {
                        let done = own.$method(cycle, payload).await;
                        done.map_err(|fault| own.put_off(fault, cycle.now()))
                    })
                })
            }};
        }
        vec![
            ("fetch_klines", method!(klines)),
            ("backfill_klines", method!(klines)),
            ("fetch_ticker", method!(ticker)),
            ("fetch_orderbook", method!(orderbook)),
            ("fetch_trades", method!(follow_trades)),
            ("backfill_trades", method!(backfill_trades)),
        ]
    }

    /// Work that cannot be done because the venue is not well waits for it, and spends no attempt: an
    /// outage may be longer than all attempts together.
    fn put_off(&self, fault: Fault, now: Time) -> Fault {
        let Fault::Transient(error) = &fault else { return fault };
        let health = self.client.health(now);
        let away = matches!(health.state, VenueState::Degraded | VenueState::Down);
        if !away || !error.is::<VenueError>() {
            return fault;
        }
        let why = format!("the venue is {}: {error}", health.state);
        Fault::Snooze { after: AWAY, why }
    }

    async fn klines(&self, cycle: &Cycle, payload: &Value) -> Result<Done, Fault> {
        let Klines { symbol, window, from, to } = read(payload)?;
        universe::split(&symbol).map_err(Fault::invalid)?;
        let interval = Interval::ALL.into_iter().find(|i| i.as_str() == window);
        let day = Millis::from_days(1);
        let known = interval.and_then(|i| Some((i, i.millis().filter(|step| *step <= day)?)));
        let known = known.ok_or_else(|| {
            Fault::invalid(format!("the venue has no candles of `{window}` on a fixed grid"))
        })?;
        let span = from.zip(to);
        if let Some((from, to)) = span.filter(|(from, to)| from >= to) {
            return Err(Fault::invalid(format!("the span from {from} to {to} is empty")));
        }
        let report = self.sync.fetch(cycle, &symbol, known, span).await?;
        Ok(Done::new(report, Commit::new()))
    }

    async fn ticker(&self, cycle: &Cycle, payload: &Value) -> Result<Done, Fault> {
        let Symbols { symbols } = read(payload)?;
        let symbols = match symbols {
            Some(symbols) => symbols,
            None => {
                let enabled = universe::enabled(&self.db).await?;
                enabled.iter().map(ToString::to_string).collect()
            }
        };
        if symbols.is_empty() {
            return Ok(Done::nothing());
        }
        let names: Vec<&str> = symbols.iter().map(String::as_str).collect();
        let tickers = self.client.ticker_24h(&names).await.map_err(Stop::from)?;
        let mut wanted: Vec<Ticker24h> =
            tickers.into_iter().filter(|t| symbols.contains(&t.symbol)).collect();
        wanted.sort_by(|a, b| a.symbol.cmp(&b.symbol));
        let (wanted, quiet): (Vec<_>, Vec<_>) = wanted.into_iter().partition(Ticker24h::was_traded);
        let missing: Vec<String> = quiet.into_iter().map(|t| t.symbol).collect();
        let mut commit = Commit::new();
        commit.statements.extend(ticker_rows(wanted.iter()));
        let report = json!({ "symbols": wanted.len(), "missing": missing, "at": cycle.now() });
        Ok(Done::new(report, commit))
    }

    async fn orderbook(&self, _: &Cycle, payload: &Value) -> Result<Done, Fault> {
        let Symbol { symbol } = read(payload)?;
        let symbols = self.symbols(symbol).await?;
        let mut rows = Vec::new();
        for symbol in &symbols {
            let depth = self.client.depth(symbol, DEPTH).await.map_err(Stop::from)?;
            rows.extend(values![
                Arc::clone(symbol),
                self.client.venue_now(),
                depth.last_update_id,
                serde_json::to_string(&depth.bids)?,
                serde_json::to_string(&depth.asks)?,
            ]);
        }
        let commit = Commit::new().with(Statement::bulk(
            "insert into ingest.orderbook_raw (symbol, ts, last_update_id, bids, asks)
             values ($1, $2, $3, $4, $5) on conflict (symbol, ts) do nothing",
            5,
            rows,
        ));
        Ok(Done::new(json!({ "symbols": symbols.len() }), commit))
    }

    async fn follow_trades(&self, cycle: &Cycle, payload: &Value) -> Result<Done, Fault> {
        let Symbol { symbol } = read(payload)?;
        let mut report = trades::Report::default();
        for symbol in self.symbols(symbol).await? {
            report.symbols += 1;
            let span = (self.client.venue_now() - self.lookback, Time::FAR_FUTURE);
            self.trades.follow(cycle, &symbol, span, u32::MAX, &mut report).await?;
        }
        Ok(Done::new(report, Commit::new()))
    }

    async fn backfill_trades(&self, cycle: &Cycle, payload: &Value) -> Result<Done, Fault> {
        let Span { symbol, from, to } = read(payload)?;
        if from >= to {
            return Err(Fault::invalid(format!("the span from {from} to {to} is empty")));
        }
        let symbol: Arc<str> = Arc::from(symbol);
        let mut report = trades::Report { symbols: 1, ..trades::Report::default() };
        self.trades.reach_back(cycle, &symbol, from, &mut report).await?;
        self.trades.follow(cycle, &symbol, (from, to), u32::MAX, &mut report).await?;
        Ok(Done::new(report, Commit::new()))
    }

    async fn symbols(&self, one: Option<String>) -> Result<Vec<Arc<str>>, Fault> {
        match one {
            Some(symbol) => Ok(vec![Arc::from(symbol)]),
            None => Ok(universe::enabled(&self.db).await?),
        }
    }
}

/// What the venue said of the last 24 hours of symbols that were traded: a raw row each, and the newest
/// of each symbol. Of two answers about one instant the first counts, in both.
pub(crate) fn ticker_rows<'a>(tickers: impl Iterator<Item = &'a Ticker24h>) -> [Statement; 2] {
    let (mut rows, mut newest) = (Vec::new(), Vec::new());
    for t in tickers {
        let change = Pct(t.price_change_percent).to_frac();
        newest.extend(values![t.symbol.as_str(), t.close_time, t.last_price, change.0]);
        rows.extend(values![
            t.symbol.as_str(),
            t.close_time,
            t.last_price,
            change.0,
            t.open_price,
            t.high_price,
            t.low_price,
            t.volume,
            t.quote_volume,
            t.count,
        ]);
    }
    let raw = Statement::bulk(
        "insert into ingest.ticker_raw
           (symbol, ts, price, change_24h, open, high, low, volume, quote_volume, trades)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) on conflict (symbol, ts) do nothing",
        10,
        rows,
    );
    let newest = Statement::bulk(
        "insert into market.ticker_latest (symbol, ts, price, change_24h)
         values ($1, $2, $3, $4)
         on conflict (symbol) do update set
           ts = excluded.ts, price = excluded.price, change_24h = excluded.change_24h
         where excluded.ts > market.ticker_latest.ts",
        4,
        newest,
    );
    [raw, newest]
}

/// The runner of `compute_window`: a request to the window worker itself, which is the only one that
/// may publish windows.
pub(crate) fn compute_window(windows: Vec<Millis>) -> Runner {
    runner(move |cycle, payload| {
        let asked = ask_for_window(&windows, cycle, payload);
        Box::pin(async move { asked })
    })
}

/// The runner of `compute_mea` and `compute_mood`: asks the worker of a series for its newest window.
pub(crate) fn compute_newest(series: String, length: Millis, settle: Millis) -> Runner {
    runner(move |cycle, _| {
        let start = (cycle.now() - settle).floor(length) - length;
        let asked = ask(&series, start, start + length, cycle);
        Box::pin(async move { Ok(asked) })
    })
}

/// The runner of `import_moves`.
pub(crate) fn import_moves(import: Arc<ImportMoves>) -> Runner {
    runner(move |cycle, payload| {
        let (import, payload) = (Arc::clone(&import), read::<Import>(payload));
        Box::pin(async move { import.import(cycle, payload?.session_id).await })
    })
}

fn ask_for_window(windows: &[Millis], cycle: &Cycle, payload: &Value) -> Result<Done, Fault> {
    let Window { label, window_start: start } = read(payload)?;
    let length = windows.iter().copied().find(|w| w.exact() == label).ok_or_else(|| {
        let known: Vec<String> = windows.iter().map(|w| w.exact()).collect();
        Fault::invalid(format!("no window is called `{label}`: there are {}", known.join(", ")))
    })?;
    if start.floor(length) != start {
        let before = start.floor(length);
        return Err(Fault::invalid(format!(
            "no {label} window begins at {start}: the one before begins at {before}"
        )));
    }
    Ok(ask(&series_name(length), start, start + length, cycle))
}

fn ask(series: &str, start: Time, end: Time, cycle: &Cycle) -> Done {
    let by = match cycle.cause {
        Cause::Job { id } => format!("job {id}"),
        _ => cycle.worker.to_string(),
    };
    let commit = Commit::new().with(Statement::new(
        "insert into ops.backfills (series, from_at, to_at, cursor_at, requested_by, requested_at)
         select $1, $2, $3, $2, $4, $5
         where not exists (select 1 from ops.backfills where series = $1
           and finished_at is null and from_at <= $2 and to_at >= $3)",
        values![series, start, end, by, cycle.now()],
    ));
    Done::new(json!({ "asked": series, "window": start }), commit)
}
