//! Lists: what the operator's commands print, one function for each question of section 9.6.

use serde::Serialize;
use watchbell_core::{Millis, Time, values};
use watchbell_db::{Database, DbError, Row};

use crate::cin::money;
use crate::due;
use crate::window::series_name;

/// One symbol of the universe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UniverseLine {
    /// Symbol.
    pub symbol: String,
    /// Whether it is observed.
    pub enabled: bool,
    /// Its place in processing.
    pub sort_order: Option<i64>,
    /// Base asset.
    pub base: String,
    /// Quote asset.
    pub quote: String,
    /// Who brought it to this: `config`, `user`, `auto`, `binance`.
    pub by: String,
    /// Why, where a validation did it.
    pub reason: Option<String>,
    /// Good validations in a row.
    pub ok_streak: Option<i64>,
    /// Bad validations in a row.
    pub bad_streak: Option<i64>,
    /// What the venue says of it.
    pub venue_status: Option<String>,
    /// When that changed last.
    pub updated_at: Time,
}

/// The newest point of one symbol.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SampleLine {
    /// Symbol.
    pub symbol: String,
    /// End of its bucket.
    pub ts: Time,
    /// Mean mid price; none of an empty bucket.
    pub mid: Option<f64>,
    /// Last ask less last bid.
    pub spread: Option<f64>,
    /// Snapshots.
    pub bucket_count: i64,
    /// What is to be said of its quality.
    pub quality_flags: Vec<String>,
    /// Inner vector of the half hour that ends with it.
    pub v_inner: Option<f64>,
    /// Outer vector.
    pub v_outer: Option<f64>,
    /// Tendency score.
    pub v_tendency: Option<f64>,
    /// Swap score.
    pub v_swap: Option<f64>,
}

/// The newest vectors of one symbol and label.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VectorLine {
    /// Symbol.
    pub symbol: String,
    /// Label of the window.
    pub label: String,
    /// Its start.
    pub start: Time,
    /// Inner vector.
    pub inner: Option<f64>,
    /// Outer vector.
    pub outer: Option<f64>,
    /// Tendency score.
    pub tendency: Option<f64>,
    /// Swap score.
    pub swap: Option<f64>,
}

/// The queue.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Jobs {
    /// By kind and status.
    pub counts: Vec<JobsOf>,
    /// Due time of the oldest that is queued.
    pub oldest_queued: Option<Time>,
    /// The newest that failed for good.
    pub failed: Vec<JobsFailed>,
}

/// Jobs of one kind and status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobsOf {
    /// Kind.
    pub kind: String,
    /// `queued`, `running`, `succeeded`, `failed` or `cancelled`.
    pub status: String,
    /// How many.
    pub count: i64,
}

/// A job that failed for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobsFailed {
    /// Number.
    pub id: i64,
    /// Kind.
    pub kind: String,
    /// Attempts.
    pub attempts: i64,
    /// When.
    pub finished_at: Time,
    /// Why.
    pub error: String,
}

/// A run of a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunLine {
    /// Label.
    pub label: String,
    /// Start.
    pub start: Time,
    /// `pending`, `computing`, `complete`, `failed` or `abandoned`; `missing` where nobody has begun it.
    pub state: String,
    /// Attempts.
    pub attempts: i64,
    /// What it was computed from, once it was.
    pub source: Option<String>,
    /// Why it failed or was abandoned; of a missing one, what tells why.
    pub reason: Option<String>,
}

/// The newest pack of one scope.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PackLine {
    /// Number.
    pub id: i64,
    /// Scope.
    pub scope: String,
    /// When.
    pub ts: Time,
    /// Its worst level.
    pub level: String,
    /// Its items, as they are stored.
    pub items: serde_json::Value,
}

/// One schema and the boot that has it open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlagLine {
    /// Schema.
    pub schema: String,
    /// Whether it is open.
    pub open: bool,
    /// Since when.
    pub opened_at: Option<Time>,
    /// By which boot.
    pub opened_by: Option<String>,
    /// When that boot ended.
    pub closed_at: Option<Time>,
    /// What that boot says of itself.
    pub note: Option<String>,
}

/// A session of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionLine {
    /// Number.
    pub id: i64,
    /// Whose.
    pub owner: String,
    /// Label.
    pub label: String,
    /// `OPEN`, `CLOSED` or `ERROR`.
    pub status: String,
    /// `ledger` or `parity`.
    pub mode: String,
    /// Since when.
    pub started_at: Time,
    /// Until when.
    pub ended_at: Option<Time>,
    /// Assets with a balance.
    pub assets: i64,
    /// A remark.
    pub note: Option<String>,
}

/// What a session holds of one asset. Money is decimal text, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BalanceLine {
    /// Asset.
    pub asset: String,
    /// Units.
    pub units: String,
    /// Principal at the opening, in USDT.
    pub opening_principal: String,
    /// Profit at the opening.
    pub opening_profit: String,
    /// Principal now.
    pub principal: String,
    /// Profit now.
    pub profit: String,
    /// Principal at the close.
    pub closing_principal: Option<String>,
    /// Profit at the close.
    pub closing_profit: Option<String>,
    /// Whether more was booked out of it than it held: its units or its value are below 0.
    pub overdrawn: bool,
}

/// What the close of a session came to. Money is decimal text in USDT, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CloseLine {
    /// What the session made.
    pub generated_profit: String,
    /// What its moves realized.
    pub realized_pnl: String,
    /// Fees of its moves.
    pub fees: String,
    /// Slippage of its moves.
    pub slippage: String,
    /// Principal that goes over into the next session.
    pub luggage_principal: String,
    /// Profit that goes over into the next session.
    pub luggage_profit: String,
    /// Moves.
    pub moves: i64,
    /// Trades that were left out.
    pub unbooked: i64,
}

/// The newest slice of a series of matrices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SliceLine {
    /// Series: `cycle`, or the label of its windows.
    pub series: String,
    /// Its instant.
    pub ts: Time,
    /// Its version.
    pub version: i64,
    /// Its coins, in order.
    pub coins: Vec<String>,
}

/// One matrix of one slice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Grid {
    /// Series.
    pub series: String,
    /// Which of the seven.
    pub matrix_type: String,
    /// Its instant.
    pub ts: Time,
    /// Its coins, in order.
    pub coins: Vec<String>,
    /// Rows of cells, by base and quote; none on the diagonal and where there is a reason.
    pub cells: Vec<Vec<Option<f64>>>,
}

/// The mood of one window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MoodLine {
    /// Label.
    pub label: String,
    /// Start of the window.
    pub start: Time,
    /// Coefficient, in [0.2, 2].
    pub coeff: f64,
    /// Its three characters.
    pub mood: String,
    /// Stability, `S` to `E`.
    pub tier: String,
    /// The last stable one, published again.
    pub is_fallback: bool,
    /// It has been so for too long.
    pub is_stale: bool,
    /// How old the mood was at the end of the window, where it is of an earlier one.
    pub age_ms: Option<Millis>,
    /// What it was made of.
    pub payload: serde_json::Value,
}

/// The whole universe, in processing order.
///
/// # Errors
/// When the database fails.
pub async fn universe(db: &Database) -> Result<Vec<UniverseLine>, DbError> {
    let rows = db
        .query(
            "select u.symbol, coalesce(u.enabled, 1), u.sort_order, u.base_asset, u.quote_asset,
                    u.metadata, s.status, u.updated_at, v.ok_streak, v.bad_streak
             from settings.coin_universe u left join market.symbols s on s.symbol = u.symbol
             left join settings.universe_validation v on v.symbol = u.symbol
             order by u.sort_order is null, u.sort_order, u.symbol /*pg*/ collate \"C\" /*end*/",
            Vec::new(),
        )
        .await?;
    rows.iter()
        .map(|row| {
            let metadata = row.opt_json(5)?.unwrap_or_default();
            let word = |key: &str| metadata.get(key).and_then(|v| v.as_str()).map(str::to_owned);
            Ok(UniverseLine {
                symbol: row.text(0)?.to_owned(),
                enabled: row.bool(1)?,
                sort_order: row.opt_i64(2)?,
                base: row.opt_text(3)?.unwrap_or_default().to_owned(),
                quote: row.opt_text(4)?.unwrap_or_default().to_owned(),
                by: word("disabled_by")
                    .or_else(|| word("source"))
                    .unwrap_or_else(|| "user".to_owned()),
                reason: word("reason"),
                ok_streak: row.opt_i64(8)?,
                bad_streak: row.opt_i64(9)?,
                venue_status: row.opt_text(6)?.map(str::to_owned),
                updated_at: row.time(7)?,
            })
        })
        .collect()
}

/// The newest point of each symbol that has one, in processing order.
///
/// # Errors
/// When the database fails.
pub async fn samples(db: &Database) -> Result<Vec<SampleLine>, DbError> {
    let rows = db
        .query(
            "select n.symbol, n.ts, n.mid, n.spread, n.bucket_count, n.quality_flags, n.v_inner,
                    n.v_outer, n.v_tendency, n.v_swap
             from str_aux.v_newest_samples n
             left join settings.coin_universe u on u.symbol = n.symbol
             order by u.sort_order is null, u.sort_order, n.symbol /*pg*/ collate \"C\" /*end*/",
            Vec::new(),
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(SampleLine {
                symbol: row.text(0)?.to_owned(),
                ts: row.time(1)?,
                mid: row.opt_f64(2)?,
                spread: row.opt_f64(3)?,
                bucket_count: row.i64(4)?,
                quality_flags: words(row, 5)?,
                v_inner: row.opt_f64(6)?,
                v_outer: row.opt_f64(7)?,
                v_tendency: row.opt_f64(8)?,
                v_swap: row.opt_f64(9)?,
            })
        })
        .collect()
}

/// The newest vectors of each symbol and label: in processing order, then by length.
///
/// # Errors
/// When the database fails.
pub async fn vectors(db: &Database) -> Result<Vec<VectorLine>, DbError> {
    let rows = db
        .query(
            "select v.symbol, v.window_label, v.window_start, v.vec
             from str_aux.v_latest_vectors v
             join settings.windows w on w.window_label = v.window_label
             left join settings.coin_universe u on u.symbol = v.symbol
             order by u.sort_order is null, u.sort_order, v.symbol /*pg*/ collate \"C\" /*end*/,
               w.duration_ms",
            Vec::new(),
        )
        .await?;
    rows.iter()
        .map(|row| {
            let vec = row.json(3)?;
            let number = |path: &str| vec.pointer(path).and_then(serde_json::Value::as_f64);
            Ok(VectorLine {
                symbol: row.text(0)?.to_owned(),
                label: row.text(1)?.to_owned(),
                start: row.time(2)?,
                inner: number("/inner"),
                outer: number("/outer"),
                tendency: number("/tendency/score"),
                swap: number("/swap/score"),
            })
        })
        .collect()
}

/// The queue: counts, the oldest that is queued, and the newest `limit` failures.
///
/// # Errors
/// When the database fails.
pub async fn jobs(db: &Database, limit: u32) -> Result<Jobs, DbError> {
    let rows = db
        .query(
            "select kind, status, count(*) from ingest.jobs group by kind, status
             order by kind, status",
            Vec::new(),
        )
        .await?;
    let counts = rows.iter().map(|row| {
        Ok(JobsOf {
            kind: row.text(0)?.to_owned(),
            status: row.text(1)?.to_owned(),
            count: row.i64(2)?,
        })
    });
    let counts = counts.collect::<Result<_, DbError>>()?;
    let oldest =
        db.query_one("select min(run_at) from ops.jobs where state = 'queued'", Vec::new()).await?;
    let rows = db
        .query(
            "select id, kind, attempts, finished_at, error from ops.job_history
             where state = 'failed' order by finished_at desc, id desc limit $1",
            values![limit],
        )
        .await?;
    let failed = rows.iter().map(|row| {
        Ok(JobsFailed {
            id: row.i64(0)?,
            kind: row.text(1)?.to_owned(),
            attempts: row.i64(2)?,
            finished_at: row.time(3)?,
            error: row.opt_text(4)?.unwrap_or_default().to_owned(),
        })
    });
    let failed = failed.collect::<Result<_, DbError>>()?;
    Ok(Jobs { counts, oldest_queued: oldest.opt_time(0)?, failed })
}

/// The newest version of each window that began at `since` or later, newest first, at most `limit`;
/// only those that are not complete where that is asked for. Among these are windows of `lengths` that
/// are due and that nobody has begun (`missing`): by the rule of the health scan.
///
/// # Errors
/// When the database fails.
pub async fn runs(
    db: &Database,
    lengths: &[Millis],
    (since, now): (Time, Time),
    incomplete: bool,
    limit: u32,
) -> Result<Vec<RunLine>, DbError> {
    let rows = db
        .query(
            "select substr(r.series, 16), r.start_at,
               case r.state when 'open' then 'pending' when 'ready' then 'pending'
                 when 'running' then 'computing' else r.state end, r.attempts, r.error, r.source
             from ops.windows r
             where r.series like 'window-sampler-%' and r.start_at >= $1
               and (r.state <> 'complete' or $2 = 0)
               and r.version = (select max(n.version) from ops.windows n
                 where n.series = r.series and n.start_at = r.start_at)
             order by r.start_at desc, r.series limit $3",
            values![since, incomplete, limit],
        )
        .await?;
    let mut lines: Vec<RunLine> = rows
        .iter()
        .map(|row| {
            Ok(RunLine {
                label: row.text(0)?.to_owned(),
                start: row.time(1)?,
                state: row.text(2)?.to_owned(),
                attempts: row.i64(3)?,
                source: row.opt_text(5)?.map(str::to_owned),
                reason: row.opt_text(4)?.map(str::to_owned),
            })
        })
        .collect::<Result<_, DbError>>()?;
    if !incomplete {
        return Ok(lines);
    }
    for length in lengths {
        let due = due::windows(db, *length, since, now).await?;
        lines.extend(due.lacking.into_iter().filter(|l| !l.is_begun).map(|l| RunLine {
            label: length.exact(),
            start: l.start,
            state: "missing".to_owned(),
            attempts: 0,
            source: None,
            reason: Some(format!("not begun; why: watchbell explain {}", series_name(*length))),
        }));
    }
    lines.sort_by(|a, b| b.start.cmp(&a.start).then_with(|| a.label.cmp(&b.label)));
    lines.truncate(limit as usize);
    Ok(lines)
}

/// The newest pack of each scope.
///
/// # Errors
/// When the database fails.
pub async fn packs(db: &Database) -> Result<Vec<PackLine>, DbError> {
    let rows = db
        .query(
            "select pack_id, scope, ts, level, items from ops.v_smoke_packs order by scope",
            Vec::new(),
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(PackLine {
                id: row.i64(0)?,
                scope: row.text(1)?.to_owned(),
                ts: row.time(2)?,
                level: row.text(3)?.to_owned(),
                items: row.json(4)?,
            })
        })
        .collect()
}

/// The schemas, and which boot has each open.
///
/// # Errors
/// When the database fails.
pub async fn flags(db: &Database) -> Result<Vec<FlagLine>, DbError> {
    let rows = db
        .query(
            "select f.schema_name, f.is_open, f.opened_at, f.opened_by, s.closed_at, s.note
             from ops.session_flags f left join ops.session_log s on s.session_id = f.opened_by
             order by f.schema_name",
            Vec::new(),
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(FlagLine {
                schema: row.text(0)?.to_owned(),
                open: row.bool(1)?,
                opened_at: row.opt_time(2)?,
                opened_by: row.opt_text(3)?.map(str::to_owned),
                closed_at: row.opt_time(4)?,
                note: row.opt_text(5)?.map(str::to_owned),
            })
        })
        .collect()
}

/// Sessions of the ledger, newest first, at most `limit`; only `id` where one is named.
///
/// # Errors
/// When the database fails.
pub async fn sessions(
    db: &Database,
    id: Option<i64>,
    limit: u32,
) -> Result<Vec<SessionLine>, DbError> {
    let rows = db
        .query(
            "select s.session_id, s.owner, s.window_label, s.status, s.mode, s.started_at,
                    s.ended_at, s.note, (select count(*) from cin_aux.rt_balance b
                      where b.session_id = s.session_id)
             from cin_aux.rt_session s
             where s.session_id = coalesce($1, s.session_id)
             order by s.session_id desc limit $2",
            values![id, limit],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(SessionLine {
                id: row.i64(0)?,
                owner: row.text(1)?.to_owned(),
                label: row.text(2)?.to_owned(),
                status: row.text(3)?.to_owned(),
                mode: row.text(4)?.to_owned(),
                started_at: row.time(5)?,
                ended_at: row.opt_time(6)?,
                note: row.opt_text(7)?.map(str::to_owned),
                assets: row.i64(8)?,
            })
        })
        .collect()
}

/// The balances of a session, by asset.
///
/// # Errors
/// When the database fails.
pub async fn balances(db: &Database, session: i64) -> Result<Vec<BalanceLine>, DbError> {
    let rows = db
        .query(
            "select asset, units, opening_principal, opening_profit, principal_usdt, profit_usdt,
                    closing_principal, closing_profit
             from cin_aux.rt_balance where session_id = $1
             order by asset /*pg*/ collate \"C\" /*end*/",
            values![session],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(BalanceLine {
                asset: row.text(0)?.to_owned(),
                units: row.text(1)?.to_owned(),
                opening_principal: row.text(2)?.to_owned(),
                opening_profit: row.text(3)?.to_owned(),
                principal: row.text(4)?.to_owned(),
                profit: row.text(5)?.to_owned(),
                closing_principal: row.opt_text(6)?.map(str::to_owned),
                closing_profit: row.opt_text(7)?.map(str::to_owned),
                overdrawn: overdrawn(row.text(1)?, row.text(4)?, row.text(5)?),
            })
        })
        .collect()
}

fn overdrawn(units: &str, principal: &str, profit: &str) -> bool {
    let value = money::parse(principal).and_then(|p| money::add(p, money::parse(profit)?));
    // What is no amount is shown as it is stored; `smoke run cin-core` finds it.
    [money::parse(units), value].into_iter().flatten().any(|amount| amount.is_sign_negative())
}

/// What the close of a session came to; nothing of one that is not closed.
///
/// # Errors
/// When the database fails.
pub async fn closing(db: &Database, session: i64) -> Result<Option<CloseLine>, DbError> {
    let row = db
        .query_opt(
            "select generated_profit, realized_pnl, fee_sum, slippage_sum, luggage_principal,
                    luggage_profit, moves, unbooked
             from cin_aux.rt_imprint_luggage where session_id = $1",
            values![session],
        )
        .await?;
    row.map(|row| {
        Ok(CloseLine {
            generated_profit: row.text(0)?.to_owned(),
            realized_pnl: row.text(1)?.to_owned(),
            fees: row.text(2)?.to_owned(),
            slippage: row.text(3)?.to_owned(),
            luggage_principal: row.text(4)?.to_owned(),
            luggage_profit: row.text(5)?.to_owned(),
            moves: row.i64(6)?,
            unbooked: row.i64(7)?,
        })
    })
    .transpose()
}

/// The newest slice of the live refresh and of each label, where there is one.
///
/// # Errors
/// When the database fails.
pub async fn slices(db: &Database, labels: &[String]) -> Result<Vec<SliceLine>, DbError> {
    let mut slices = Vec::new();
    for series in std::iter::once("cycle").chain(labels.iter().map(String::as_str)) {
        let row = db
            .query_opt(
                "select ts_ms, version, coins from matrices.slices where series = $1
                 order by ts_ms desc, version desc limit 1",
                values![series],
            )
            .await?;
        if let Some(row) = row {
            slices.push(SliceLine {
                series: series.to_owned(),
                ts: row.time(0)?,
                version: row.i64(1)?,
                coins: words(&row, 2)?,
            });
        }
    }
    Ok(slices)
}

/// One matrix of the newest slice of `series`, or of the newest slice of all.
///
/// # Errors
/// When the database fails.
pub async fn matrix(
    db: &Database,
    series: Option<&str>,
    matrix_type: &str,
) -> Result<Option<Grid>, DbError> {
    let newest = match series {
        Some(series) => slices(db, &[series.to_owned()]).await?,
        None => {
            let rows = db
                .query("select window_label from settings.windows order by duration_ms", vec![])
                .await?;
            let labels = rows.iter().map(|r| Ok(r.text(0)?.to_owned()));
            slices(db, &labels.collect::<Result<Vec<_>, DbError>>()?).await?
        }
    };
    let newest = newest
        .into_iter()
        .filter(|s| series.is_none_or(|wanted| s.series == wanted))
        .max_by_key(|s| s.ts);
    let Some(slice) = newest else { return Ok(None) };
    let rows = db
        .query(
            "select base, cells from matrices.rows
             where series = $1 and ts_ms = $2 and version = $3 and matrix_type = $4",
            values![slice.series.as_str(), slice.ts, slice.version, matrix_type],
        )
        .await?;
    let mut cells = vec![Vec::new(); slice.coins.len()];
    for row in &rows {
        let base = row.text(0)?;
        if let Some(at) = slice.coins.iter().position(|c| c == base) {
            let listed = row.json(1)?;
            let listed = listed.as_array().map(Vec::as_slice).unwrap_or_default();
            cells[at] = listed.iter().map(serde_json::Value::as_f64).collect();
        }
    }
    Ok(Some(Grid {
        series: slice.series,
        matrix_type: matrix_type.to_owned(),
        ts: slice.ts,
        coins: slice.coins,
        cells,
    }))
}

/// The newest `limit` moods of each label, newest first; the newest version of each.
///
/// # Errors
/// When the database fails.
pub async fn moods(db: &Database, labels: &[String], limit: u32) -> Result<Vec<MoodLine>, DbError> {
    let mut moods = Vec::new();
    for label in labels {
        let rows = db
            .query(
                "select m.window_start, m.coeff, m.mood_id, m.tier, m.is_fallback, m.is_stale,
                        m.payload, m.ts_ms, m.stable_ts_ms
                 from mea_dynamics.moods m
                 where m.window_label = $1
                   and m.version = (select max(n.version) from mea_dynamics.moods n
                     where n.window_label = m.window_label and n.window_start = m.window_start)
                 order by m.window_start desc limit $2",
                values![label.as_str(), limit],
            )
            .await?;
        for row in &rows {
            let age = row.opt_time(8)?.map(|of| row.time(7).map(|ts| ts - of)).transpose()?;
            moods.push(MoodLine {
                age_ms: age.filter(|age| *age > Millis::ZERO),
                label: label.clone(),
                start: row.time(0)?,
                coeff: row.f64(1)?,
                mood: row.text(2)?.to_owned(),
                tier: row.text(3)?.to_owned(),
                is_fallback: row.bool(4)?,
                is_stale: row.bool(5)?,
                payload: row.json(6)?,
            });
        }
    }
    Ok(moods)
}

/// A stored list of words.
fn words(row: &Row, column: usize) -> Result<Vec<String>, DbError> {
    let value = row.json(column)?;
    // A set of flags may be stored as an object of truth values.
    Ok(match &value {
        serde_json::Value::Array(list) => {
            list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
        }
        serde_json::Value::Object(map) => {
            map.iter().filter(|(_, v)| v.as_bool() == Some(true)).map(|(k, _)| k.clone()).collect()
        }
        _ => Vec::new(),
    })
}
