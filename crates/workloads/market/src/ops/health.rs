//! `market-health`: looks at everything once a minute, and publishes what it found in one commit:
//! a pack, the risk flags, the vitals.

use serde::Serialize;
use serde_json::json;
use watchbell_core::{
    BoxFuture, Commit, Cycle, Definition, Done, Fault, Millis, Statement, Time, Trigger, Worker,
    values,
};
use watchbell_db::Database;

use super::{Item, Level, Pack, scan, vitals};
use crate::Config;

/// Name of the worker.
pub const MARKET_HEALTH: &str = "market-health";
/// How long packs of the scan, vitals and flags that no longer hold are kept.
const KEPT: Millis = Millis::from_days(7);
/// How often it looks.
const EVERY: Millis = Millis::from_secs(60);
/// After the whole minute, when others have published.
const OFFSET: Millis = Millis::from_secs(25);

/// The worker.
pub(crate) struct HealthWorker {
    db: Database,
    config: Config,
}

/// What a scan found: the worker's summary.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Report {
    level: Level,
    ok: usize,
    warn: usize,
    err: usize,
    /// The first thing to look at.
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
}

/// What a bad item means and what to do about it: by the beginning of its key.
struct Risk {
    key: &'static str,
    category: &'static str,
    kind: &'static str,
    action: &'static str,
}

const RISKS: [Risk; 17] = [
    risk("feed:", "data", "FEED_DOWN", "watchbell explain market-sync"),
    risk("ingest:partial_data", "data", "PARTIAL_DATA", "watchbell market status"),
    risk("tickset:", "data", "TICKERS_MISSING", "watchbell market universe"),
    risk("poller:", "data", "POLLER_DOWN", "watchbell explain market-sampler"),
    risk("latest:", "data", "STALE_DATA", "watchbell market status"),
    risk("sampling:prices", "data", "EMPTY_SAMPLES", "watchbell market samples"),
    risk("sampling:", "data", "STALE_SAMPLES", "watchbell explain market-sampler"),
    risk("cycles:", "data", "STALE_CYCLES", "watchbell explain market-sampler"),
    risk("klines:", "data", "STALE_KLINES", "watchbell explain market-sync"),
    risk("windows:", "structural", "WINDOW_GAP", "watchbell market windows --incomplete"),
    risk("queue:overdue", "structural", "JOBS_OVERDUE", "watchbell job stats"),
    risk("queue:failed", "structural", "JOBS_FAILED", "watchbell job list --state failed"),
    risk("queue:silent", "structural", "JOBS_SILENT", "watchbell node list"),
    risk("matrices:", "structural", "STALE_MATRICES", "watchbell explain matrices"),
    risk("mood:", "structural", "MOOD_FALLBACK", "watchbell market mood"),
    risk("sessions:", "ledger", "SESSION_OPEN_TOO_LONG", "watchbell market sessions list"),
    risk("flags:", "session", "FLAGS_INCONSISTENT", "watchbell market flags list"),
];

/// What a slow store is.
const STORE: Risk = risk("store:", "structural", "STORE_SLOW", "watchbell db check");

const fn risk(
    key: &'static str,
    category: &'static str,
    kind: &'static str,
    action: &'static str,
) -> Risk {
    Risk { key, category, kind, action }
}

impl HealthWorker {
    pub(crate) fn new(db: Database, config: Config) -> Self {
        Self { db, config }
    }

    async fn look(&self, now: Time) -> Result<Done, Fault> {
        let items = scan::scan(&self.db, &self.config, now).await?;
        let vitals = vitals(&self.db, now).await?;
        let pack = Pack::new("health", now, items);
        let of = |level: Level| pack.items.iter().filter(|i| i.level == level).count();
        let worst = pack.items.iter().find(|i| i.level == pack.summary.level);
        let report = Report {
            level: pack.summary.level,
            ok: of(Level::Ok),
            warn: of(Level::Warn),
            err: of(Level::Err),
            first: worst
                .filter(|i| i.level != Level::Ok)
                .map(|i| format!("{}: {}", i.label, i.message)),
        };
        let mut commit = Commit::new().with(pack.statement()?);
        commit.statements.extend(flags(&pack.items, now));
        commit.push(Statement::new(
            "insert into audit.vitals_log (snapshot_ts, payload) values ($1, $2)
             on conflict (snapshot_ts) do nothing",
            values![now, vitals.to_string()],
        ));
        commit.push(beat(report.level, now));
        for sql in [
            "delete from ops.smoke_pack where scope = 'health' and ts < $1",
            "delete from audit.vitals_log where snapshot_ts < $1",
            "delete from ops.risk_flags where cleared_at < $1",
            "delete from ops.app_ledger where topic = 'heartbeat' and ts_epoch_ms < $1",
        ] {
            commit.push(Statement::new(sql, values![now - KEPT]));
        }
        Ok(Done::new(report, commit))
    }
}

/// The heartbeat that the smoke of that name looks for.
fn beat(level: Level, now: Time) -> Statement {
    Statement::new(
        "insert into ops.app_ledger
           (topic, event, payload, session_id, idempotency_key, ts_epoch_ms)
         values ('heartbeat', 'health', $1, null, $2, $3) on conflict (idempotency_key) do nothing",
        values![
            json!({ "level": level }).to_string(),
            format!("heartbeat:{MARKET_HEALTH}:{}", now.0),
            now
        ],
    )
}

/// Raises what holds now, and clears what does not hold any more. A flag that goes on keeps the
/// instant at which it was raised.
fn flags(items: &[Item], now: Time) -> Vec<Statement> {
    let bad: Vec<&Item> = items.iter().filter(|i| i.level != Level::Ok).collect();
    let mut rows = Vec::new();

    for item in bad {
        let risk = RISKS.iter().chain([&STORE]).find(|r| item.key.starts_with(r.key));
        let Some(risk) = risk else { continue };

        rows.extend(values![
            item.key.as_str(),
            risk.category,
            risk.kind,
            item.level.as_str(),
            item.message.as_str(),
            risk.action,
            now,
        ]);
    }
    let mut list = Vec::new();
    if !rows.is_empty() {
        list.push(Statement::bulk(
            "insert into ops.risk_flags
               (flag_key, category, type, severity, cause, action, raised_at, seen_at)
             values ($1, $2, $3, $4, $5, $6, $7, $7)
             on conflict (flag_key) do update set severity = excluded.severity,
               cause = excluded.cause, action = excluded.action, seen_at = excluded.seen_at,
               raised_at = case when ops.risk_flags.cleared_at is null
                 then ops.risk_flags.raised_at else excluded.raised_at end,
               cleared_at = null",
            7,
            rows,
        ));
    }
    // What was raised just now was seen at this instant.
    list.push(Statement::new(
        "update ops.risk_flags set cleared_at = $1 where cleared_at is null and seen_at < $1",
        values![now],
    ));
    list
}

/// The worker.
pub(crate) fn definition() -> Definition {
    Definition::new(MARKET_HEALTH, Trigger::Every { period: EVERY, offset: OFFSET })
        .describe(
            "Looks at the age of points, cycles, candles, matrices and moods, at missing windows, \
             waiting jobs and open sessions; publishes a pack, risk flags and vitals. Reads, and \
             writes nothing but those.",
        )
        .opportunistic()
        .timeouts(Millis::from_mins(5), Millis::from_mins(10))
}

impl Worker for HealthWorker {
    fn define(&self) -> Definition {
        definition()
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.look(cycle.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_item_of_the_scan_has_a_flag_with_an_action() {
        let keys = [
            "feed:binance",
            "ingest:partial_data",
            "tickset:size",
            "poller:state",
            "latest:ts",
            "sampling:recency",
            "sampling:prices",
            "cycles:recency",
            "klines:lag",
            "windows:30m",
            "queue:overdue",
            "queue:failed",
            "queue:silent",
            "matrices:lag",
            "mood:3h",
            "sessions:open",
            "flags:schemas",
            "store:latency",
        ];
        let items: Vec<Item> =
            keys.iter().map(|k| Item::new(Time(1), *k, "l", Level::Err, 1, "m")).collect();
        let list = flags(&items, Time(1));
        assert_eq!(list[0].runs(), keys.len());
        assert_eq!(flags(&[], Time(1)).len(), 1, "nothing to raise, still to clear");
    }
}
