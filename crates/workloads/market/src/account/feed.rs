//! `trade-feed`: reads the account's trades, conversions and balances by signed requests.
//!
//! Each cycle reads the symbols that were read longest ago, two of them, from the number after the
//! newest known trade on; conversions every five minutes and balances every forty seconds. A cycle
//! that finds nothing writes nothing. Where the venue does not accept us, or wants fewer requests,
//! the feed says so once and rests for a minute.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use watchbell_core::{
    BoxFuture, Commit, Cycle, Definition, Done, Fault, Ledger, Millis, Missed, Statement, Time,
    Trigger, Worker, chain, values,
};
use watchbell_db::Database;
use watchbell_venues::binance::{
    BinanceClient, Class, LONGEST_CONVERT_SPAN, TradesSince, VenueError,
};

use super::{Settings, Trade, log_cycle, store, store_wallet, wallet};

/// Name of the worker.
pub const TRADE_FEED: &str = "trade-feed";

const WALLET_EVERY: Millis = Millis::from_secs(40);
const CONVERT_EVERY: Millis = Millis::from_mins(5);
/// Conversions take a while to be done: what was in the making is looked at again for this long.
const CONVERT_OVERLAP: Millis = Millis::from_days(1);
/// How long the feed rests after the venue has refused it.
const REST: Millis = Millis::from_secs(60);
/// Full pages that one cycle reads of one symbol.
const MAX_PAGES_PER_SYMBOL: usize = 5;

/// The worker.
pub(crate) struct TradeFeed {
    db: Database,
    client: BinanceClient,
    settings: Settings,
    state: Mutex<State>,
}

/// What was read when: in memory, for a new process may read everything at once.
#[derive(Debug, Default)]
struct State {
    /// By symbol, the turn in which it was read last.
    symbols: BTreeMap<String, u64>,
    turn: u64,
    convert: Option<Time>,
    wallet: Option<Time>,
    resting: Option<Resting>,
}

#[derive(Debug, Clone)]
struct Resting {
    until: Time,
    why: String,
}

/// What a cycle did.
#[derive(Debug, Default, Serialize)]
struct Report {
    symbols: Vec<String>,
    trades: usize,
    conversions: usize,
    balances: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
    /// Why nothing was asked, and until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    resting: Option<String>,
}

/// A symbol of the universe, and the next trade to ask for.
struct Followed {
    symbol: String,
    base: String,
    quote: String,
    next: Option<i64>,
}

pub(crate) fn definition(settings: &Settings) -> Definition {
    let trigger = Trigger::Every { period: settings.poll, offset: Millis::ZERO };
    let mut definition = Definition::new(TRADE_FEED, trigger)
        .describe(
            "Reads the account's trades, conversions and balances from the venue by signed \
             requests, two symbols a cycle.",
        )
        .missed(Missed::Latest)
        .ledger(Ledger::Quiet)
        .timeouts(Millis::from_secs(60), Millis::from_mins(2));
    definition.stale_after = Some(Millis::from_mins(5));
    definition.unavailable.clone_from(&settings.unavailable);
    definition
}

impl TradeFeed {
    pub(crate) fn new(db: Database, client: BinanceClient, mut settings: Settings) -> Self {
        if client.is_signed() {
            settings.unavailable = None;
        } else if settings.unavailable.is_none() {
            settings.unavailable = Settings::default().unavailable;
        }
        Self { db, client, settings, state: Mutex::default() }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn feed(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let now = cycle.now();
        let resting = self.state().resting.clone().filter(|r| r.until > now);
        if let Some(Resting { until, why }) = resting {
            let resting = Some(format!("until {until}: {why}"));
            return Ok(Done::new(Report { resting, ..Report::default() }, Commit::new()));
        }
        let mut report = Report::default();
        let mut commit = Commit::new();
        let failed = self.read_all(now, &mut report, &mut commit).await?;
        let scope = &self.settings.scope;
        if report.trades + report.conversions > 0 {
            let payload = serde_json::json!({ "scope": scope, "trades": report.trades,
                "conversions": report.conversions });
            commit.emit("account.traded", scope.as_str(), payload);
        }
        let status = match (&failed, report.trades + report.conversions) {
            (Some(_), _) => Some("error"),
            (None, _) if !report.problems.is_empty() => Some("warn"),
            (None, 1..) => Some("ok"),
            (None, 0) => None,
        };
        if let Some(status) = status {
            let summary = match &failed {
                Some(e) => chain(e),
                None => format!(
                    "{} trades and {} conversions read of {}",
                    report.trades,
                    report.conversions,
                    report.symbols.join(", ")
                ),
            };
            let payload = serde_json::to_value(&report)?;
            commit.push(log_cycle(scope, now, None, status, &summary, &payload));
        }
        let Some(error) = failed else { return Ok(Done::new(report, commit)) };
        let rest = match error.class() {
            Class::Rate { retry_after } => Some(retry_after.max(REST)),
            Class::Permanent | Class::Blocked => Some(REST),
            Class::Transient => None,
        };
        if let Some(rest) = rest {
            self.state().resting = Some(Resting { until: now + rest, why: error.to_string() });
        }
        cycle.step(commit).await?;
        Err(Fault::Transient(Box::new(error)))
    }

    /// Reads what is due. A refusal that concerns everything ends it; what was read before stays in
    /// the commit.
    async fn read_all(
        &self,
        now: Time,
        report: &mut Report,
        commit: &mut Commit,
    ) -> Result<Option<VenueError>, Fault> {
        for followed in self.due().await? {
            report.symbols.push(followed.symbol.clone());
            {
                let mut state = self.state();
                state.turn += 1;
                let turn = state.turn;
                state.symbols.insert(followed.symbol.clone(), turn);
            }
            match self.trades(&followed, now, commit).await {
                Ok(rows) => report.trades += rows,
                Err(e) if concerns_one_symbol(&e) => report.problems.push(chain(&e)),
                Err(e) => return Ok(Some(e)),
            }
        }
        let due = |at: Option<Time>, every| at.is_none_or(|at| now - at >= every);
        let (convert, balances) = {
            let state = self.state();
            (due(state.convert, CONVERT_EVERY), due(state.wallet, WALLET_EVERY))
        };
        if self.settings.convert && convert {
            match self.conversions(now, report, commit).await? {
                None => self.state().convert = Some(now),
                Some(e) => return Ok(Some(e)),
            }
        }
        if balances {
            match self.client.account_balances().await {
                Ok(said) => {
                    report.balances = Some(said.len());
                    let known = wallet(&self.db).await?;
                    let rows = store_wallet(&self.settings.scope, &known, &said, now)?;
                    commit.statements.extend(rows);
                    self.state().wallet = Some(now);
                }
                Err(e) => return Ok(Some(e)),
            }
        }
        Ok(None)
    }

    /// The symbols of this cycle: those read longest ago, in processing order.
    async fn due(&self) -> Result<Vec<Followed>, Fault> {
        let rows = self
            .db
            .query(
                "select u.symbol, u.base_asset, u.quote_asset, f.position
                 from settings.coin_universe u
                 left join market.account_feed f on f.feed = 'trades:' || u.symbol
                 where u.enabled = 1
                 order by u.sort_order is null, u.sort_order,
                          u.symbol /*pg*/ collate \"C\" /*end*/",
                Vec::new(),
            )
            .await?;
        let mut all = Vec::with_capacity(rows.len());
        for row in &rows {
            all.push(Followed {
                symbol: row.text(0)?.to_owned(),
                base: row.text(1)?.to_owned(),
                quote: row.text(2)?.to_owned(),
                next: row.opt_i64(3)?,
            });
        }
        let state = self.state();
        all.sort_by_key(|f| state.symbols.get(&f.symbol).copied());
        all.truncate(self.settings.symbols_per_tick.max(1));
        Ok(all)
    }

    async fn trades(
        &self,
        followed: &Followed,
        now: Time,
        commit: &mut Commit,
    ) -> Result<usize, VenueError> {
        let Settings { lookback, page, scope, .. } = &self.settings;
        let since = || TradesSince::Time(now - *lookback);
        let mut from = followed.next.map_or_else(since, TradesSince::Id);
        let mut count = 0;
        for _ in 0..MAX_PAGES_PER_SYMBOL {
            let rows = self.client.account_trades(&followed.symbol, from, *page).await?;
            let Some(last) = rows.last() else { break };
            let (next, full) = (last.id + 1, rows.len() == *page);
            count += rows.len();
            let of_venue = |t| Trade::of_venue(t, &followed.base, &followed.quote, scope);
            commit.statements.extend(store(rows.into_iter().map(of_venue).collect(), now));
            commit.push(position(&format!("trades:{}", followed.symbol), next, now));
            from = TradesSince::Id(next);
            if !full {
                break;
            }
        }
        Ok(count)
    }

    async fn conversions(
        &self,
        now: Time,
        report: &mut Report,
        commit: &mut Commit,
    ) -> Result<Option<VenueError>, Fault> {
        let known = "select position from market.account_feed where feed = 'convert'";
        let rows = self.db.query(known, Vec::new()).await?;
        let known = rows.first().map(|r| r.time(0)).transpose()?;
        let start = known.map_or(now - self.settings.lookback, |at| at - CONVERT_OVERLAP);
        let end = (start + LONGEST_CONVERT_SPAN).min(now);
        if end <= start {
            return Ok(None);
        }
        let rows = match self.client.convert_trades(start, end).await {
            Ok(rows) => rows,
            Err(e) => return Ok(Some(e)),
        };
        let mut trades = Vec::new();
        for row in rows {
            trades.push(Trade::of_convert(row, &self.settings.scope)?);
        }
        // What the overlap brings again is not news.
        let mut news = Vec::new();
        for trade in trades {
            let known = self
                .db
                .query(
                    "select 1 from market.account_trades where symbol = $1 and trade_id = $2",
                    values![trade.symbol.as_str(), trade.id],
                )
                .await?;
            if known.is_empty() {
                news.push(trade);
            }
        }
        report.conversions = news.len();
        let behind = known.is_none_or(|at| end - at >= CONVERT_OVERLAP);
        if !news.is_empty() {
            commit.statements.extend(store(news, now));
        }
        if report.conversions > 0 || behind {
            commit.push(position("convert", end.0, now));
        }
        Ok(None)
    }
}

fn position(feed: &str, position: i64, now: Time) -> Statement {
    Statement::new(
        "insert into market.account_feed (feed, position, checked_at) values ($1, $2, $3)
         on conflict (feed) do update set
           position = excluded.position, checked_at = excluded.checked_at",
        values![feed, position, now],
    )
}

/// Whether the other symbols may still be read: the venue refused this request as such.
fn concerns_one_symbol(e: &VenueError) -> bool {
    e.class() == Class::Permanent && !matches!(e, VenueError::Unauthorized { .. })
}

impl Worker for TradeFeed {
    fn define(&self) -> Definition {
        definition(&self.settings)
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.feed(cycle))
    }
}
