//! Seeded candles: as rows, as pages in the venue's own JSON, and in a store.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rusqlite::Connection;
use watchbell_core::port::{
    Claim, ClaimRequest, Grant, Publication, Registration, SessionRecord, Store as _, Target,
};
use watchbell_core::{
    Commit, Condition, Cover, Millis, SessionId, Statement, Time, WorkerName, values,
};
use watchbell_db::{Database, Options, Synchronous};
use watchbell_market::{DEFAULT_SYMBOLS, KLINES, VENUE};
use watchbell_store::SqlStore;
use watchbell_venues::binance::wire::Kline;

/// Length of a candle.
pub const MINUTE: Millis = Millis::from_mins(1);
/// Rows of a full page of the venue.
pub const PAGE: usize = 1000;
/// 2025-01-01T00:00:00Z: where generated years begin.
pub const YEAR_START: Time = Time(1_735_689_600_000);

/// The insert of the floor, with the table's name as SQLite knows it.
const INSERT: &str = "insert into ingest_kline_raw
    (symbol, interval_label, open_time, close_time, open, high, low, close, volume, quote_volume,
     trades, taker_buy_base, taker_buy_quote)
    values (?1, '1m', ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
    on conflict (symbol, interval_label, open_time) do nothing";

/// A random walk of one symbol, minute by minute: the same seed gives the same candles.
#[derive(Debug, Clone)]
pub struct Walk {
    state: u64,
    price: f64,
    scale: f64,
    next: Time,
}

impl Walk {
    /// The walk of `symbol`, from `start` on.
    #[must_use]
    pub fn new(symbol: &str, seed: u64, start: Time) -> Self {
        let state = symbol.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
        });
        // Prices from cents to tens of thousands, each with the decimals that suit it.
        let (price, scale) = match symbol {
            "BTCUSDT" => (67_000.0, 1e2),
            "ETHUSDT" => (3_400.0, 1e2),
            "BNBUSDT" => (600.0, 1e2),
            "SOLUSDT" => (150.0, 1e2),
            _ => (0.6, 1e5),
        };
        Self { state, price, scale, next: start }
    }

    /// A number in `[0, 1)`: splitmix64.
    fn draw(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn step(&mut self) -> f64 {
        let bell: f64 = (0..4).map(|_| self.draw()).sum::<f64>() - 2.0;
        // Now and then a jump, so that the tails are fat.
        if self.draw() < 0.01 { bell * 0.004 } else { bell * 0.0006 }
    }
}

impl Iterator for Walk {
    type Item = Kline;

    fn next(&mut self) -> Option<Kline> {
        let tick = |v: f64, scale: f64| (v * scale).round().max(1.0) / scale;
        let open = tick(self.price, self.scale);
        let close = tick(open * (1.0 + self.step()), self.scale);
        let reach = self.draw() * 0.0004;
        let high = tick(open.max(close) * (1.0 + reach), self.scale).max(open.max(close));
        let low = tick(open.min(close) * (1.0 - reach), self.scale).min(open.min(close));
        let volume = tick(1.0 + self.draw() * self.draw() * 500.0, 1e5);
        let taken = tick(volume * (0.3 + 0.4 * self.draw()), 1e5).min(volume);
        let row = Kline {
            open_time: self.next,
            open,
            high,
            low,
            close,
            volume,
            close_time: self.next + MINUTE - Millis(1),
            quote_volume: tick(volume * close, 1e6),
            trades: 20 + (self.draw() * 2_000.0) as i64,
            taker_buy_base: taken,
            taker_buy_quote: tick(taken * close, 1e6),
        };
        // The walk is pulled back a little, so that a year of it stays within the symbol's range.
        self.price = close * (1.0 + self.step() * 0.2);
        self.next += MINUTE;
        Some(row)
    }
}

/// A page as the venue sends it: arrays of twelve values, prices and amounts as decimal text.
#[must_use]
pub fn page_json(rows: &[Kline]) -> String {
    let mut text = String::with_capacity(rows.len() * 190 + 2);
    text.push('[');
    for (i, r) in rows.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(
            text,
            "{comma}[{},\"{:.8}\",\"{:.8}\",\"{:.8}\",\"{:.8}\",\"{:.8}\",{},\"{:.8}\",{},\"{:.8}\",\
             \"{:.8}\",\"0\"]",
            r.open_time.0,
            r.open,
            r.high,
            r.low,
            r.close,
            r.volume,
            r.close_time.0,
            r.quote_volume,
            r.trades,
            r.taker_buy_base,
            r.taker_buy_quote
        )
        .expect("writing to a string does not fail");
    }
    text.push(']');
    text
}

/// A new database with the tables of the runtime and of the market.
///
/// # Errors
/// When it cannot be made.
pub async fn database(
    path: &Path,
    synchronous: Synchronous,
    now: Time,
) -> anyhow::Result<Database> {
    let db = Database::open(&Options { synchronous, ..Options::new(path) })?;
    db.migrate(&[watchbell_store::LINE, watchbell_market::LINE], now).await?;
    let symbols: Vec<String> = DEFAULT_SYMBOLS.iter().map(ToString::to_string).collect();
    let windows = watchbell_market::Config::default().windows;
    watchbell_market::seed(&db, &symbols, &windows, YEAR_START, now).await?;
    Ok(db)
}

/// A bare connection to a database file that exists, with the settings that Watchbell's writer has.
///
/// # Errors
/// When it cannot be opened.
pub fn bare(path: &Path, synchronous: Synchronous) -> anyhow::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch(&format!(
        "pragma journal_mode = wal; pragma synchronous = {}; pragma cache_size = -8192;
         pragma temp_store = memory;",
        synchronous.as_str()
    ))?;
    Ok(connection)
}

/// Inserts rows through a bare connection, in one transaction.
///
/// # Errors
/// When the database fails.
pub fn insert_bare(
    connection: &mut Connection,
    symbol: &str,
    rows: &[Kline],
) -> anyhow::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare_cached(INSERT)?;
        for r in rows {
            insert.execute((
                symbol,
                r.open_time.0,
                r.close_time.0,
                r.open,
                r.high,
                r.low,
                r.close,
                r.volume,
                r.quote_volume,
                r.trades,
                r.taker_buy_base,
                r.taker_buy_quote,
            ))?;
        }
    }
    Ok(transaction.commit()?)
}

/// The statements that a page of candles is committed with: rows, gaps among them, cursor; and the
/// cover of what lies between the gaps. The shape of the synchronisation's own page.
#[must_use]
pub fn page_commit(symbol: &Arc<str>, rows: &[Kline], now: Time) -> Commit {
    let mut commit = Commit::new().with(watchbell_market::insert_klines(symbol, rows));
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return commit };
    let cover = |from, to| Cover { source: KLINES.into(), key: symbol.to_string(), from, to };
    let mut from = first.open_time;
    let mut next = from;
    for row in rows {
        if row.open_time > next {
            commit.covers.push(cover(from, next));
            commit.push(Statement::new(
                "insert into ingest.kline_gaps
                   (symbol, interval_label, from_at, to_at, state, answers, found_at, tried_at)
                 values ($1, '1m', $2, $3, 'pending', 1, $4, $4)
                 on conflict (symbol, interval_label, from_at) do update set
                   to_at = excluded.to_at",
                values![Arc::clone(symbol), next, row.open_time, now],
            ));
            from = row.open_time;
        }
        next = row.open_time + MINUTE;
    }
    commit.covers.push(cover(from, next));
    commit.push(Statement::new(
        "update ingest.klines_cursor set
           covered_from = coalesce(covered_from, $2), covered_until = $3, last_open_time = $4,
           updated_at = $5
         where symbol = $1 and window_label = '1m'",
        values![Arc::clone(symbol), first.open_time, next, last.open_time, now],
    ));
    commit
}

/// A claim on a store, through which steps are published as a running cycle publishes them.
#[derive(Debug)]
pub struct Loader {
    store: SqlStore,
    worker: WorkerName,
    session: SessionId,
    grant: Grant,
}

impl Loader {
    /// Registers a worker, opens a session, claims a cycle for an hour, and says that the venue is well.
    ///
    /// # Errors
    /// When the store fails or refuses.
    pub async fn start(db: &Database, now: Time) -> anyhow::Result<Self> {
        let store = SqlStore::new(db.clone());
        let worker = WorkerName::from("bench-loader");
        let session = session(now);
        let id = session.id.clone();
        store.open_session(session).await?;
        let registration = Registration {
            name: worker.clone(),
            description: "fills a store for a measurement".into(),
            trigger: "manual".into(),
            stale_after: None,
            subscribes: Vec::new(),
            kinds: Vec::new(),
            unavailable: None,
        };
        store.register(&[registration], now).await?;
        let request = ClaimRequest {
            worker: worker.clone(),
            session: id.clone(),
            now,
            ttl: Millis::from_hours(1),
            target: Target::Manual,
            passed: Vec::new(),
        };
        let loader = match store.claim(request).await? {
            Claim::Granted(grant) => Self { store, worker, session: id, grant },
            other => anyhow::bail!("the loader's claim was not granted: {other:?}"),
        };
        // No venue is asked in a measurement, and windows wait for none.
        let well = Condition {
            name: VENUE.into(),
            met: true,
            detail: "candles are generated".into(),
            until: None,
        };
        loader.step(Commit { conditions: vec![well], ..Commit::new() }, now).await?;
        Ok(loader)
    }

    /// Publishes one fenced step.
    ///
    /// # Errors
    /// When the store fails or refuses.
    pub async fn step(&self, commit: Commit, now: Time) -> anyhow::Result<()> {
        let publication = Publication {
            worker: self.worker.clone(),
            session: self.session.clone(),
            token: self.grant.token,
            cycle: self.grant.cycle,
            cause: self.grant.cause.clone(),
            now,
            commit,
            end: None,
        };
        self.store.publish(publication).await.context("a step of the loader was refused")
    }

    /// Closes the session, and gives the claim back.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn finish(self, now: Time) -> anyhow::Result<()> {
        Ok(self.store.close_session(&self.session, "loaded", now).await?)
    }
}

/// A session of this process.
#[must_use]
pub fn session(now: Time) -> SessionRecord {
    SessionRecord {
        id: SessionId::from(format!("bench-{}-{}", std::process::id(), now.0)),
        app_name: "watchbell-bench".into(),
        app_version: env!("CARGO_PKG_VERSION").into(),
        host: "localhost".into(),
        pid: i64::from(std::process::id()),
        opened_at: now,
        closed_at: None,
        note: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use watchbell_venues::binance::wire::Interval;
    use watchbell_venues::binance::{Asked, parse_klines};

    #[test]
    fn pages_pass_the_clients_own_check() {
        for symbol in DEFAULT_SYMBOLS {
            let rows: Vec<Kline> = Walk::new(symbol, 1, YEAR_START).take(PAGE).collect();
            let asked =
                Asked { interval: Interval::M1, start: Some(YEAR_START), end: None, limit: PAGE };
            assert_eq!(parse_klines(page_json(&rows).as_bytes(), &asked), Ok(rows));
        }
    }

    #[test]
    fn the_seed_decides() {
        let walk = |seed| Walk::new("BTCUSDT", seed, YEAR_START).take(50).collect::<Vec<_>>();
        assert_eq!(walk(1), walk(1));
        assert_ne!(walk(1), walk(2));
    }

    #[test]
    fn a_gap_divides_the_cover() {
        let mut rows: Vec<Kline> = Walk::new("BTCUSDT", 1, Time(0)).take(10).collect();
        rows.remove(4);
        let commit = page_commit(&"BTCUSDT".into(), &rows, Time(0));
        let spans: Vec<(i64, i64)> =
            commit.covers.iter().map(|c| (c.from.0 / 60_000, c.to.0 / 60_000)).collect();
        assert_eq!(spans, [(0, 4), (5, 10)]);
        assert_eq!(commit.statements.len(), 3);
    }
}
