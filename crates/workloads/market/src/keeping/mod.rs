//! `market-housekeeping`: removes observations that are older than their age and that nothing needs any
//! more.
//!
//! What is computed stays: windows, the slices, allotments and moods that follow from them, the ledger,
//! the history of the universe; and so do candles, from which every window can be computed again. What
//! goes are the observations that grow with each second: points, cycles, trades, tickers, books, and the
//! events and calls that tell of them. Nothing goes that a window, a backfill or the streams have still
//! to read ([`need`]), however old it is; the summary says who holds it.
//!
//! A batch is one fenced commit of rows, oldest first, together with the knowledge that they are gone:
//! [`points_removed_until`] for points, the beginning of the known stretch for trades. So a crash between
//! two batches leaves fewer rows and nothing else, and a part of a window's points is never taken for all
//! of them.

mod need;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use watchbell_core::{
    BoxFuture, Commit, Cycle, Definition, Done, Fault, Millis, Statement, Time, Trigger, Value,
    Worker, values,
};
use watchbell_db::{Database, DbError};

use self::need::{Need, needs};
use crate::Config;
use crate::samples::names;

/// Name of the worker.
pub const MARKET_HOUSEKEEPING: &str = "market-housekeeping";

/// How often it runs, and when: away from the ends of windows.
const EVERY: Millis = Millis::from_hours(1);
const OFFSET: Millis = Millis::from_mins(17);
/// Rows of one commit, and of one run; the next run goes on.
const BATCH: i64 = 5_000;
const MAX_ROWS_PER_RUN: i64 = 5_000_000;

/// How long observations are kept; `None` is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Five-second points (14 days).
    pub points: Option<Millis>,
    /// Forty-second cycles (30 days).
    pub cycles: Option<Millis>,
    /// Trades of the market (3 days).
    pub trades: Option<Millis>,
    /// Tickers, but the newest of each symbol (14 days).
    pub tickers: Option<Millis>,
    /// Order books that jobs stored, but the newest of each symbol (14 days).
    pub books: Option<Millis>,
    /// Openings, shifts and swaps of the streams (90 days).
    pub stream_events: Option<Millis>,
    /// Requests to the venue (7 days).
    pub sync_log: Option<Millis>,
    /// What the runs of the ledger and of the account's feed did, but the newest of each owner (30 days).
    pub account_log: Option<Millis>,
    /// The account's balances as the venue gave them, but the newest (90 days).
    pub balances: Option<Millis>,
}

impl Default for Retention {
    fn default() -> Self {
        let days = |n| Some(Millis::from_days(n));
        Self {
            points: days(14),
            cycles: days(30),
            trades: days(3),
            tickers: days(14),
            books: days(14),
            stream_events: days(90),
            sync_log: days(7),
            account_log: days(30),
            balances: days(90),
        }
    }
}

/// What is removed, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Points,
    Cycles,
    Trades,
    Tickers,
    Books,
    StreamEvents,
    SyncLog,
    AccountLog,
    Balances,
}

/// One symbol of a kind, or all of a kind that has no symbols: values of [`What::key`].
type Key = Vec<Value>;

/// The symbols that a table has rows of, found from one to the next in the order of its key.
macro_rules! symbols_of {
    ($table:literal) => {
        concat!(
            "with recursive s (symbol) as (
               select min(symbol) from ",
            $table,
            " union all
               select (select min(n.symbol) from ",
            $table,
            " n where n.symbol > s.symbol)
               from s where s.symbol is not null
             )
             select symbol from s where symbol is not null"
        )
    };
}

impl What {
    const ALL: [Self; 9] = [
        Self::Points,
        Self::Cycles,
        Self::Trades,
        Self::Tickers,
        Self::Books,
        Self::StreamEvents,
        Self::SyncLog,
        Self::AccountLog,
        Self::Balances,
    ];

    const fn age(self, keep: &Retention) -> Option<Millis> {
        match self {
            Self::Points => keep.points,
            Self::Cycles => keep.cycles,
            Self::Trades => keep.trades,
            Self::Tickers => keep.tickers,
            Self::Books => keep.books,
            Self::StreamEvents => keep.stream_events,
            Self::SyncLog => keep.sync_log,
            Self::AccountLog => keep.account_log,
            Self::Balances => keep.balances,
        }
    }

    /// Its table, the column of its instants, and those before it in the index that leads there.
    const fn table(self) -> (&'static str, &'static str, &'static [&'static str]) {
        const SYMBOL: &[&str] = &["symbol"];
        match self {
            Self::Points => ("str_aux.samples_5s", "ts", SYMBOL),
            Self::Cycles => ("str_aux.cycles_40s", "cycle_start", SYMBOL),
            Self::Trades => ("ingest.agg_trade_raw", "ts_ms", SYMBOL),
            Self::Tickers => ("ingest.ticker_raw", "ts", SYMBOL),
            Self::Books => ("ingest.orderbook_raw", "ts", SYMBOL),
            Self::StreamEvents => ("str_aux.stream_events", "ts", &["session_id", "symbol"]),
            Self::SyncLog => ("ops.market_sync_log", "ts", &[]),
            Self::AccountLog => ("audit.user_cycle_log", "ts", &["owner_user_id"]),
            Self::Balances => ("ingest.account_balance_raw", "ts", &["account_scope"]),
        }
    }

    /// The query for its keys. Jobs may ask for tickers and books of symbols that are not in the
    /// universe.
    const fn keys(self) -> Option<&'static str> {
        match self {
            Self::Points | Self::Cycles => Some("select symbol from settings.coin_universe"),
            Self::Trades => Some("select symbol from ingest.trades_cursor"),
            Self::Tickers => Some(symbols_of!("ingest.ticker_raw")),
            Self::Books => Some(symbols_of!("ingest.orderbook_raw")),
            Self::StreamEvents => Some("select session_id, symbol from str_aux.stream_state"),
            Self::SyncLog => None,
            Self::AccountLog => Some("select distinct owner_user_id from audit.user_cycle_log"),
            Self::Balances => Some("select distinct account_scope from ingest.account_balance_raw"),
        }
    }

    /// Whether the newest row of a key stays, however old: it is what was last seen, or what the next
    /// one is numbered by.
    const fn spares_newest(self) -> bool {
        matches!(self, Self::Tickers | Self::Books | Self::AccountLog | Self::Balances)
    }

    /// What removes everything of `key` up to `last`, and says that it is gone.
    fn remove(self, key: &Key, last: Time, now: Time, commit: &mut Commit) {
        let (table, at, columns) = self.table();
        let with = |more: Vec<Value>| [key.clone(), more].concat();
        let of_key = of_key(columns);
        commit.push(Statement::new(
            format!("delete from {table} where {of_key}{at} <= ${}", columns.len() + 1),
            with(values![last]),
        ));
        if self == Self::Points {
            commit.push(Statement::new(
                "insert into str_aux.removed_points (symbol, until_at, removed_at)
                 values ($1, $2, $3)
                 on conflict (symbol) do update set
                   until_at = excluded.until_at, removed_at = excluded.removed_at
                 where excluded.until_at > str_aux.removed_points.until_at",
                with(values![last, now]),
            ));
        }
        if self == Self::Trades {
            commit.push(Statement::new(
                "update ingest.trades_cursor set updated_at = $3,
                   known_from = case when known_until < $2 then known_until else $2 end
                 where symbol = $1 and known_from < $2",
                with(values![last + Millis(1), now]),
            ));
            commit.push(Statement::new(
                "delete from ingest.trade_gaps where symbol = $1 and to_at <= $2",
                with(values![last]),
            ));
        }
    }
}

/// `symbol = $1 and `
fn of_key(columns: &[&str]) -> String {
    columns.iter().zip(1..).map(|(column, n)| format!("{column} = ${n} and ")).collect()
}

/// The worker.
pub(crate) struct Keeper {
    db: Database,
    config: Config,
}

/// What a run did: the worker's summary.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Report {
    /// Rows, by what they are.
    removed: BTreeMap<What, i64>,
    /// Who still needs what is old enough to go.
    held_back: BTreeMap<What, Need>,
    /// Whether more is old enough than one run removes.
    more: bool,
}

impl Keeper {
    pub(crate) const fn new(db: Database, config: Config) -> Self {
        Self { db, config }
    }

    async fn clean(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let now = cycle.now();
        let mut report = Report::default();
        let mut commit = Commit::new();
        let (mut rows, mut left) = (0, MAX_ROWS_PER_RUN);
        let needs = needs(&self.db, &self.config).await?;
        for what in What::ALL {
            let Some(age) = what.age(&self.config.retention) else { continue };
            let mut before = now - age;
            if let Some(need) = needs.get(&what).filter(|need| need.from < before) {
                before = need.from;
                report.held_back.insert(what, need.clone());
            }
            for key in self.keys(what).await? {
                let before = match self.newest(what, &key).await? {
                    Some(newest) => newest.min(before),
                    None => before,
                };
                loop {
                    if left <= 0 {
                        report.more = true;
                        return Ok(Done::new(report, commit));
                    }
                    let room = (BATCH - rows).min(left);
                    let Some((last, n)) = self.oldest(what, &key, before, room).await? else {
                        break;
                    };
                    what.remove(&key, last, now, &mut commit);
                    *report.removed.entry(what).or_default() += n;
                    rows += n;
                    left -= n;
                    if rows < BATCH && n < room {
                        break;
                    }
                    cycle.step(std::mem::take(&mut commit)).await?;
                    rows = 0;
                    if cycle.cancelled() {
                        return Err(Fault::Cancelled);
                    }
                }
            }
        }
        Ok(Done::new(report, commit))
    }

    async fn keys(&self, what: What) -> Result<Vec<Key>, DbError> {
        let Some(sql) = what.keys() else { return Ok(vec![Vec::new()]) };
        let rows = self.db.query(sql, Vec::new()).await?;
        Ok(rows.iter().map(|row| row.values().to_vec()).collect())
    }

    /// The instant of the newest row, where that one stays.
    async fn newest(&self, what: What, key: &Key) -> Result<Option<Time>, DbError> {
        if !what.spares_newest() {
            return Ok(None);
        }
        let (table, at, columns) = what.table();
        let sql = format!("select max({at}) from {table} where {}true", of_key(columns));
        self.db.query_one(sql, key.clone()).await?.opt_time(0)
    }

    /// The last instant of the oldest rows before `before`, about `limit` of them, and how many there
    /// are: rows of one instant go together.
    async fn oldest(
        &self,
        what: What,
        key: &Key,
        before: Time,
        limit: i64,
    ) -> Result<Option<(Time, i64)>, DbError> {
        let (table, at, columns) = what.table();
        let (of_key, next) = (of_key(columns), columns.len() + 1);
        let sql = format!(
            "select max(o.at) from (select {at} as at from {table}
               where {of_key}{at} < ${next} order by {at} limit ${}) o",
            next + 1
        );
        let params = [key.clone(), values![before, limit]].concat();
        let Some(last) = self.db.query_one(sql, params).await?.opt_time(0)? else {
            return Ok(None);
        };
        let sql = format!("select count(*) from {table} where {of_key}{at} <= ${next}");
        let params = [key.clone(), values![last]].concat();
        Ok(Some((last, self.db.query_one(sql, params).await?.i64(0)?)))
    }
}

/// Up to when points of any of `symbols` were removed for their age: what needs points of before cannot
/// be computed from points any more.
pub(crate) async fn points_removed_until(
    db: &Database,
    symbols: &[Arc<str>],
) -> Result<Option<Time>, DbError> {
    let row = db
        .query_one(
            "select max(r.until_at) from str_aux.removed_points r
             where r.symbol in (
               /*sqlite*/ select s.value from json_each($1) s /*end*/
               /*pg*/ select s.value from json_array_elements_text(cast($1 as json)) s /*end*/)",
            values![names(symbols)],
        )
        .await?;
    row.opt_time(0)
}

/// A window was computed from points that have been removed for their age since, so it cannot be
/// computed again as it was. It stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "it was computed from points, which have been removed up to {until} for their age: \
     market.retention.points says how long they are kept"
)]
pub struct InputsRemoved {
    /// Up to when.
    pub until: Time,
}

/// The worker.
pub(crate) fn definition() -> Definition {
    Definition::new(MARKET_HOUSEKEEPING, Trigger::Every { period: EVERY, offset: OFFSET })
        .describe(
            "Removes points, cycles, trades, tickers, books and the log of requests that are older \
             than market.retention says, in batches. What a window, a backfill or the streams have \
             still to read stays, and the summary says who holds it. Candles and windows are never \
             touched.",
        )
        .opportunistic()
        .timeouts(Millis::from_mins(15), Millis::from_mins(20))
}

impl Worker for Keeper {
    fn define(&self) -> Definition {
        definition()
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.clean(cycle))
    }
}
