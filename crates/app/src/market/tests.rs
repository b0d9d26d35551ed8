//! What the market's commands print of a store that the tests fill, on both engines, compared with
//! files under `golden`. `UPDATE_GOLDEN=1` writes them.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use clap::{CommandFactory, Parser};
use serde_json::{Value, json};
use watchbell_cli::print::style::Style;
use watchbell_cli::{CliWith, Exit, TaskWith};
use watchbell_core::{BoxFuture, Statement, values};
use watchbell_db::Engine;
use watchbell_market::mood::{Mood, Params, Signals};
use watchbell_market::ops::{Boot, Item, Level, Outside, Pack};
use watchbell_testkit::{NOW, TempDb, postgres_is_wanted, session};

use super::*;
use crate::installation::LINES;

const MINUTE: Millis = Millis::from_mins(1);

/// A stream that a test can read.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lengths() -> [Millis; 3] {
    [Millis::from_mins(30), Millis::from_hours(1), Millis::from_hours(3)]
}

fn config() -> watchbell_market::Config {
    watchbell_market::Config::default()
}

fn parse(line: &str) -> (Global, Own) {
    let words = std::iter::once("watchbell").chain(line.split_whitespace());
    let cli = CliWith::<Own>::try_parse_from(words).unwrap_or_else(|e| panic!("{line}: {e}"));
    let TaskWith::More(own) = TaskWith::from(cli.command) else { panic!("{line} is not ours") };
    (cli.global, own)
}

/// What a command that only reads prints.
async fn shown(db: &Database, line: &str) -> std::result::Result<String, ControlError> {
    let (global, own) = parse(line);
    let paper = Paper::default();
    let mut out = Out::to(Box::new(paper.clone()), Box::new(Paper::default()), &global);
    let Own::Market(command) = own else { panic!("{line} is not of the market") };
    if matches!(command, MarketCommand::Status) {
        let status = view::status(db, &lengths(), NOW).await.unwrap();
        out.data(&status, print::status)?;
    } else {
        show(&command, db, NOW, &lengths(), &mut out).await?;
    }
    let text = paper.0.lock().unwrap().clone();
    Ok(String::from_utf8(text).unwrap())
}

fn golden(name: &str, text: &str) {
    for line in text.lines() {
        assert_eq!(line.trim_end(), line, "a line of {name} ends in space");
        assert!(line.chars().count() <= 132, "too wide for a terminal: {line}");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/market/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|v| v == "1") {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == text,
        "{name} differs (UPDATE_GOLDEN=1 accepts):\n--- golden\n{golden}\n--- now\n{text}"
    );
}

/// The engines that the tests run on.
fn engines() -> Vec<Engine> {
    if postgres_is_wanted() { vec![Engine::Sqlite, Engine::Postgres] } else { vec![Engine::Sqlite] }
}

async fn empty(engine: Engine) -> TempDb {
    match engine {
        Engine::Sqlite => TempDb::sqlite(&LINES).await,
        Engine::Postgres => TempDb::postgres(&LINES).await,
    }
}

async fn apply(db: &Database, sql: &'static str, params: Vec<watchbell_core::Value>) {
    db.apply(vec![Statement::new(sql, params)]).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
}

/// A market of three symbols: two that are fresh, one that was disabled by hand.
async fn filled(engine: Engine) -> TempDb {
    let temp = empty(engine).await;
    let db = &temp.db;
    let symbols = ["BTCUSDT", "ETHUSDT", "DOGEUSDT"].map(str::to_owned);
    let from = NOW - Millis::from_hours(6);
    watchbell_market::seed(db, &symbols, &lengths(), from, NOW - MINUTE).await.unwrap();
    apply(
        db,
        "update settings.coin_universe set enabled = 0, metadata = $1 where symbol = 'DOGEUSDT'",
        values![json!({ "source": "config", "disabled_by": "user" }).to_string()],
    )
    .await;
    apply(
        db,
        "update ingest.klines_cursor set covered_from = $1, covered_until = $2
         where symbol <> 'DOGEUSDT'",
        values![from, NOW - MINUTE],
    )
    .await;
    for (symbol, status) in [("BTCUSDT", "TRADING"), ("ETHUSDT", "TRADING"), ("DOGEUSDT", "BREAK")]
    {
        apply(
            db,
            "insert into market.symbols (symbol, base_asset, quote_asset, status, updated_at)
             values ($1, 'X', 'USDT', $2, $3)
             on conflict (symbol) do update set status = excluded.status",
            values![symbol, status, NOW],
        )
        .await;
    }
    apply(
        db,
        "insert into ingest.kline_gaps values ('ETHUSDT', '1m', $1, $2, 'pending', 1, $3, $3)",
        values![NOW - MINUTE * 90, NOW - MINUTE * 60, NOW - MINUTE],
    )
    .await;
    apply(
        db,
        "insert into ops.market_sync_log
           (ts, symbol, endpoint, rows, weight_used, status, http_code, latency_ms, message)
         values ($1, 'BTCUSDT', '/api/v3/klines', 1, 422, 'ok', 200, 35, null)",
        values![NOW - Millis::from_secs(12)],
    )
    .await;
    points(db).await;
    windows(db).await;
    matrices(db).await;
    own_mood(db).await;
    ledger(db).await;
    queue(db).await;
    temp
}

async fn points(db: &Database) {
    for (symbol, age, mid, flags) in [
        ("BTCUSDT", 4, Some(84_250.125), json!({ "empty_bucket": false, "low_samples": true })),
        ("ETHUSDT", 34, None, json!({ "empty_bucket": true, "low_samples": true })),
    ] {
        apply(
            db,
            "insert into str_aux.samples_5s (symbol, ts, mid, spread, bid_volume, ask_volume,
               bucket_count, quality_flags, v_inner, v_outer, v_swap, v_tendency)
             values ($1, $2, $3, $4, 1, 1, $5, $6, $7, $7, $8, $9)",
            values![
                symbol,
                NOW - Millis::from_secs(age),
                mid,
                mid.map(|_| 0.01),
                mid.map_or(0, |_| 1_i64),
                flags.to_string(),
                mid.map(|_| 12.345),
                mid.map(|_| -50.0),
                mid.map(|_| 0.001)
            ],
        )
        .await;
        apply(
            db,
            "insert into str_aux.cycles_40s (symbol, cycle_start, points) values ($1, $2, 8)",
            values![symbol, (NOW - Millis::from_secs(80 + age * 3)).floor(Millis::from_secs(40))],
        )
        .await;
    }
}

async fn windows(db: &Database) {
    for (label, length) in [("30m", lengths()[0]), ("1h", lengths()[1])] {
        for (symbol, factor) in [("BTCUSDT", 1.0), ("ETHUSDT", 0.05)] {
            let start = NOW - length;
            let key = values![symbol, label, start];
            apply(
                db,
                "insert into str_aux.windows (symbol, window_label, window_start, version, source,
                   samples, cycles_count) values ($1, $2, $3, 1, 'klines', 30, 0)",
                key.clone(),
            )
            .await;
            let counts: Vec<u64> = (0..128).map(|i: u64| i.pow(2) % 23 * (i % 7)).collect();
            let stats = json!({
                "stats": { "bench_pct_min": -0.512, "bench_pct_max": 1.75 },
                "intrinsic": {
                    "inertia": { "total": 57.94 }, "disruption": 12.5, "amp": 0.25, "volt": 0.5,
                    "efficiency": -0.32,
                },
                "histogram": { "lo": -0.005_133, "hi": 0.017_348, "counts": counts },
                "shifts": { "shifts": 1, "swaps": 2 },
            });
            let mut all = key.clone();
            all.extend(values![84_000.0 * factor, 84_250.0 * factor, stats.to_string()]);
            apply(
                db,
                "insert into str_aux.window_stats (symbol, window_label, window_start, version,
                   opening, last_price, price_min, price_max, gfm, delta_gfm_pct, bfm,
                   disruption_systemic, stats)
                 values ($1, $2, $3, 1, $4, $5, $4, $5, $5, 0.297, 0.4034, 50, $6)",
                all,
            )
            .await;
            let vec = json!({
                "schema_version": 1, "inner": 48.737 * factor, "outer": 45.21 * factor,
                "spread": -3.5, "tendency": { "score": -3.06, "strength": 0.145 },
                "swap": { "score": 50.263 },
            });
            let mut all = key;
            all.push(vec.to_string().into());
            apply(db, "insert into str_aux.window_vectors values ($1, $2, $3, 1, $4)", all).await;
        }
        let series = watchbell_market::series_name(length);
        apply(
            db,
            "insert into ops.windows (series, start_at, version, end_at, state, attempts, scope,
               inputs_hash, result_hash, source, finished_at)
             values ($1, $2, 1, $3, 'complete', 1, '[\"BTCUSDT\",\"ETHUSDT\"]', 'in', 'out',
               'klines', $3)",
            values![series, NOW - length, NOW],
        )
        .await;
    }
    let series = watchbell_market::series_name(lengths()[0]);
    apply(
        db,
        "insert into ops.windows (series, start_at, version, end_at, state, attempts, error)
         values ($1, $2, 1, $3, 'abandoned', 1, 'INCOMPLETE: ETHUSDT has 12 of 30 candles')",
        values![series, NOW - MINUTE * 60, NOW - MINUTE * 30],
    )
    .await;
}

async fn matrices(db: &Database) {
    let coins = json!(["USDT", "BTC", "ETH"]);
    let none: Option<f64> = None;
    apply(
        db,
        "insert into matrices.slices
           (series, ts_ms, version, coins, opening_ts, summary, result_hash)
         values ('cycle', $1, 1, $2, $3, '{}', 'out')",
        values![NOW - Millis::from_secs(20), coins.to_string(), NOW.floor(Millis::from_days(1))],
    )
    .await;
    for (kind, cells) in [
        (
            "benchmark",
            [
                [none, Some(2e-5), Some(4e-4)],
                [Some(5e4), none, Some(20.0)],
                [Some(2.5e3), Some(0.05), none],
            ],
        ),
        (
            "id_pct",
            [
                [none, Some(-0.002), Some(0.0001)],
                [Some(0.002_004), none, none],
                [Some(-0.0001), none, none],
            ],
        ),
    ] {
        for (base, cells) in ["USDT", "BTC", "ETH"].iter().zip(cells) {
            let reasons: Vec<Option<&str>> = cells
                .iter()
                .map(|c| if c.is_none() { Some("no previous") } else { None })
                .collect();
            apply(
                db,
                "insert into matrices.rows (series, ts_ms, version, matrix_type, base, cells, reasons)
                 values ('cycle', $1, 1, $2, $3, $4, $5)",
                values![
                    NOW - Millis::from_secs(20),
                    kind,
                    *base,
                    json!(cells).to_string(),
                    json!(reasons).to_string()
                ],
            )
            .await;
        }
    }
    let signals = Signals { g: 0.01, t: 0.01, v: 0.02 };
    let stable = Mood::of(&signals, &Params::default()).coeff;
    for (label, length, coeff, id, fallback) in
        [("30m", lengths()[0], stable, "Fb3", 0_i64), ("1h", lengths()[1], 0.8, "Ea0", 1)]
    {
        apply(
            db,
            "insert into mea_dynamics.moods (window_label, window_start, version, ts_ms, coeff,
               mood_id, tier, is_fallback, is_stale, payload, stable_ts_ms)
             values ($1, $2, 1, $3, $4, $5, 'B', $6, 0, $7, $8)",
            values![
                label,
                NOW - length,
                NOW,
                coeff,
                id,
                fallback,
                json!({ "signals": signals }).to_string(),
                NOW - Millis::from_mins(90) * fallback
            ],
        )
        .await;
    }
}

async fn own_mood(db: &Database) {
    apply(
        db,
        "insert into mea_dynamics.symbol_moods values
           ('30m', $1, 1, 'USDT', 'BTC', 'BTCUSDT', 0, 0, 0, 30, 0.4, 0.9, -0.3, 0.2, 'Cj5')",
        values![NOW - lengths()[0]],
    )
    .await;
}

async fn ledger(db: &Database) {
    apply(
        db,
        "insert into cin_aux.rt_session
           (owner, window_label, status, mode, started_at, opening_stamp, note)
         values ('ada', '1h', 'OPEN', 'ledger', $1, 1, 'first')",
        values![NOW - Millis::from_hours(30)],
    )
    .await;
    for (asset, units, usdt) in [("BTC", "0.5", "42000"), ("USDT", "1000", "1000")] {
        apply(
            db,
            "insert into cin_aux.rt_balance (session_id, asset, opening_principal, opening_profit,
               principal_usdt, profit_usdt, units) values (1, $1, $3, '0', $3, '12.5', $2)",
            values![asset, units, usdt],
        )
        .await;
    }
    apply(
        db,
        "insert into cin_aux.rt_session
           (owner, window_label, status, mode, started_at, opening_stamp)
         values ('bob', '1h', 'OPEN', 'ledger', $1, 1)",
        values![NOW - Millis::from_hours(20)],
    )
    .await;
    apply(
        db,
        "insert into cin_aux.rt_balance (session_id, asset, opening_principal, opening_profit,
           principal_usdt, profit_usdt, units, closing_principal, closing_profit)
         values (2, 'ETH', '3000', '0', '2900', '40', '1', '2900', '45.5'),
           (2, 'USDT', '100', '0', '-20', '0', '-20', '-20', '0')",
        vec![],
    )
    .await;
    apply(
        db,
        "insert into cin_aux.rt_imprint_luggage values
           (2, '120', '40', '65.5', '1', '2', '2880', '45.5', '0.12', '0.03', '4', '5', '6', '20',
            3, 1, $1)",
        values![NOW - Millis::from_hours(2)],
    )
    .await;
    apply(
        db,
        "update cin_aux.rt_session set status = 'CLOSED', ended_at = $1 where owner = 'bob'",
        values![NOW - Millis::from_hours(2)],
    )
    .await;
}

async fn queue(db: &Database) {
    apply(
        db,
        "insert into ops.jobs (kind, state, ready, priority, run_at, max_attempts, created_at, payload)
         values ('fetch_klines', 'queued', 1, 0, $1, 5, $1, '{}')",
        values![NOW - MINUTE * 7],
    )
    .await;
    apply(
        db,
        "insert into ops.job_history (id, kind, state, priority, run_at, attempts, max_attempts,
           reclaims, token, by_holder, created_at, finished_at, error, payload)
         values (90, 'fetch_klines', 'failed', 0, $1, 5, 5, 0, 1, 1, $1, $1,
           'the venue answered 400: bad symbol', '{}'),
          (91, 'universe.enable', 'succeeded', 0, $1, 1, 5, 0, 1, 1, $1, $1, null, '{}')",
        values![NOW - MINUTE * 3],
    )
    .await;
}

/// Commands, and the golden file of each.
const COMMANDS: [(&str, &str); 17] = [
    ("market status", "status"),
    ("market window BTCUSDT 30m", "window"),
    ("market window ethusdt 1h 2026-11-22T02:00:00Z", "window_hour"),
    ("market universe", "universe"),
    ("market samples", "samples"),
    ("market vectors", "vectors"),
    ("market jobs", "jobs"),
    ("market windows", "windows"),
    ("market windows --incomplete", "windows_incomplete"),
    ("market packs", "packs"),
    ("market flags list", "flags"),
    ("market sessions list", "sessions"),
    ("market sessions show 1", "session"),
    ("market sessions show 2", "session_closed"),
    ("market matrix", "matrix"),
    ("market matrix cycle benchmark", "matrix_benchmark"),
    ("market mood", "mood"),
];

#[tokio::test]
async fn every_table_is_as_reviewed_on_both_engines() {
    for engine in engines() {
        let temp = filled(engine).await;
        for (command, name) in COMMANDS {
            let text = shown(&temp.db, command).await.unwrap_or_else(|e| panic!("{command}: {e}"));
            golden(&format!("{name}.txt"), &text);
            let data = shown(&temp.db, &format!("{command} --json")).await.unwrap();
            serde_json::from_str::<Value>(&data).unwrap_or_else(|e| panic!("{command}: {e}"));
        }
    }
}

#[tokio::test]
async fn an_empty_store_says_so() {
    for engine in engines() {
        let temp = empty(engine).await;
        let mut text = String::new();
        for (command, _) in COMMANDS {
            if command.contains("window ") || command.contains(" show ") {
                continue;
            }
            text.push_str(&format!("$ watchbell {command}\n"));
            text.push_str(&shown(&temp.db, command).await.unwrap());
        }
        golden("empty.txt", &text);
    }
}

#[tokio::test]
async fn what_is_not_there_is_named_with_what_is() {
    let temp = filled(Engine::Sqlite).await;
    for (command, said) in [
        ("market window BTCUSD 30m", "did you mean `BTCUSDT 30m`"),
        ("market window BTCUSDT 30m 2026-11-22T02:16:00Z", "BTCUSDT 30m 2026-11-22T02:30:00"),
        ("market window BTCUSDT 30m 2026-11-22T02:01:00Z", "BTCUSDT 30m 2026-11-22T02:00:00"),
        ("market sessions show 7", "7"),
        ("market matrix cycles", "cycle"),
        ("market packs helth", "helth"),
    ] {
        let error = shown(&temp.db, command).await.unwrap_err();
        assert_eq!(Exit::from(&error), Exit::NotFound, "{command}");
        let text = watchbell_cli::out::failure(&error.reason(), Style::Plain);
        assert!(text.contains(said), "{command}: {text}");
    }
}

#[tokio::test]
async fn an_abandoned_window_says_so_with_the_reason_and_what_to_do() {
    for engine in engines() {
        let temp = filled(engine).await;
        let command = "market window BTCUSDT 30m 2026-11-22T02:00:00Z";
        let error = shown(&temp.db, command).await.unwrap_err();
        assert_eq!(Exit::from(&error), Exit::Refused);
        let text = watchbell_cli::out::failure(&error.reason(), Style::Plain);
        for said in [
            "the window BTCUSDT 30m 2026-11-22T02:00:00Z was abandoned: INCOMPLETE: ETHUSDT has 12",
            "watchbell explain window-sampler-30m/2026-11-22T02:00:00Z",
            "watchbell window retry window-sampler-30m 2026-11-22T02:00:00Z",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
    }
}

/// The help of our commands, in the order of the tree.
#[test]
fn help_is_as_reviewed() {
    fn walk(command: &mut clap::Command, path: &str, text: &mut String) {
        text.push_str(&format!("$ {path} --help\n"));
        let help = command.render_long_help().to_string();
        // What holds for every command is in the help of every command.
        let help = help.split("\nGlobal options:").next().unwrap_or_default();
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        text.push_str(lines.join("\n").trim_end());
        text.push_str("\n\n");
        let names: Vec<String> =
            command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
        for name in names {
            let sub = command.find_subcommand_mut(&name).unwrap();
            walk(sub, &format!("{path} {name}"), text);
        }
    }
    let mut tree = CliWith::<Own>::command();
    tree.build();
    tree.clone().debug_assert();
    let mut text = String::new();
    for name in ["smoke", "market"] {
        walk(tree.find_subcommand_mut(name).unwrap(), &format!("watchbell {name}"), &mut text);
    }
    golden("help.txt", &format!("{}\n", text.trim_end()));
}

/// Nobody outside.
struct Nobody;

impl Outside for Nobody {
    fn api(&self) -> BoxFuture<'_, std::result::Result<String, String>> {
        Box::pin(async { Err("no node serves its API here".to_owned()) })
    }
    fn has_venue(&self) -> bool {
        true
    }
    fn rehearse<'a>(
        &'a self,
        _worker: &'a str,
    ) -> BoxFuture<'a, Option<std::result::Result<Value, String>>> {
        Box::pin(async { None })
    }
}

async fn found(db: &Database, name: &str) -> Vec<Item> {
    ops::smoke(name, db, &config(), &Nobody, NOW, false).await.unwrap().expect("a smoke")
}

fn levels(items: &[Item]) -> Vec<(&str, Level)> {
    items.iter().map(|i| (i.key.as_str(), i.level)).collect()
}

#[tokio::test]
async fn smokes_find_what_is_wrong_and_only_that() {
    use Level::{Err, Ok, Warn};
    for engine in engines() {
        let temp = filled(engine).await;
        let db = &temp.db;
        for (name, want) in [
            ("db-generic", &[("db:connection", Ok), ("db:objects", Ok)][..]),
            (
                "universe",
                &[("universe:enabled", Ok), ("universe:assets", Ok), ("universe:mirror", Ok)],
            ),
            ("sampling", &[("sampling:BTCUSDT", Ok), ("sampling:ETHUSDT", Err)]),
            ("cin-core", &[("cin-core:balances", Ok)]),
            ("cin-client", &[("cin-client:http", Warn)]),
            ("cin-job", &[("cin-job:tick", Ok)]),
            ("heartbeat", &[("heartbeat:ledger", Ok)]),
            ("jobs", &[("queue:overdue", Warn), ("queue:failed", Warn), ("queue:silent", Ok)]),
            ("idhr", &[("idhr:histogram", Warn)]),
            // The slice has two of its seven types.
            ("matrices", &[("matrices:cycle:cells", Err), ("matrices:cycle:inverse", Ok)]),
            (
                "mood",
                &[
                    ("mood:30m:coeff", Ok),
                    ("mood:30m:id", Ok),
                    ("mood:1h:coeff", Ok),
                    ("mood:1h:id", Ok),
                ],
            ),
        ] {
            let items = found(db, name).await;
            assert_eq!(levels(&items), want, "{name}: {items:#?}");
        }
        // Of the newest complete windows no candle is stored, but their rows are.
        let items = found(db, "straux-gaps").await;
        let codes = &items[0].meta["codes"];
        assert_eq!(*codes, json!({ "NO_KLINES_FOR_WINDOW": ["BTCUSDT", "ETHUSDT"] }));
        assert_eq!(items[0].level, Warn);
        assert_eq!(items[2].message, "no complete window yet");
    }
}

#[tokio::test]
async fn a_window_whose_rows_are_gone_is_found() {
    let temp = filled(Engine::Sqlite).await;
    let db = &temp.db;
    // A scope with a symbol that has candles and no rows.
    let start = NOW - lengths()[2];
    apply(
        db,
        "insert into ops.windows (series, start_at, version, end_at, state, attempts, scope,
           inputs_hash, result_hash, source, finished_at)
         values ('window-sampler-3h', $1, 1, $2, 'complete', 1, '[\"BTCUSDT\"]', 'in', 'out',
           'klines', $2)",
        values![start, NOW],
    )
    .await;
    apply(
        db,
        "insert into ingest.kline_raw values ('BTCUSDT', '1m', $1, $1, 1, 1, 1, 1, 1, 1, 1, 1, 1)",
        values![start],
    )
    .await;
    let items = found(db, "straux-gaps").await;
    assert_eq!(items[2].level, Level::Err);
    assert_eq!(items[2].value, json!({ "MISSING_STATS": 1 }));
    let items = found(db, "persist").await;
    assert_eq!(items[2].level, Level::Err, "179 candles are missing: {items:#?}");
}

#[tokio::test]
async fn a_pack_is_stored_whole_and_shown() {
    for engine in engines() {
        let temp = filled(engine).await;
        let mut items = found(&temp.db, "universe").await;
        items.extend(found(&temp.db, "jobs").await);
        let pack = Pack::new("smoke", NOW, items);
        ops::store_pack(&temp.db, &pack).await.unwrap();
        golden("evidence.txt", &print::evidence(&pack, Style::Plain));
        let text = shown(&temp.db, "market packs smoke").await.unwrap();
        golden("pack.txt", &text);
        let packs = view::packs(&temp.db).await.unwrap();
        assert_eq!(
            serde_json::from_value::<Vec<Item>>(packs[0].items.clone()).unwrap(),
            pack.items
        );
    }
}

#[tokio::test]
async fn a_boot_leaves_notes_that_outlive_it() {
    for engine in engines() {
        let temp = empty(engine).await;
        let store = watchbell_store::SqlStore::new(temp.db.clone());
        let store: &dyn watchbell_core::port::Store = &store;
        let record = session("night-1", NOW);
        store.open_session(record.clone()).await.unwrap();
        let boot = Boot {
            session: &record.id,
            version: "1",
            recovered: Some("1 cycles, 0 windows and 2 jobs".to_owned()),
            profile: "default",
        };
        for _ in 0..2 {
            assert_eq!(ops::booted(&temp.db, &boot, NOW).await.unwrap(), ops::SCHEMAS.len());
        }
        let flags = view::flags(&temp.db).await.unwrap();
        for schema in ops::SCHEMAS {
            let flag = flags.iter().find(|f| f.schema == schema).unwrap();
            assert!(flag.open && flag.opened_by.as_deref() == Some("night-1"), "{schema}");
            let note = flag.note.as_deref().unwrap();
            assert!(note.starts_with("started, crash-recovered: 1 cycles"), "{note}");
        }
        ops::stopping(&temp.db, &record.id, "clean stop", NOW + MINUTE).await.unwrap();
        store.close_session(&record.id, "clean stop", NOW + MINUTE).await.unwrap();
        let flags = view::flags(&temp.db).await.unwrap();
        assert!(flags.iter().all(|f| !f.open), "{flags:?}");
        let rows = temp
            .db
            .query("select event from ops.app_ledger where topic = 'session' order by id", vec![])
            .await
            .unwrap();
        let events: Vec<&str> = rows.iter().map(|r| r.text(0).unwrap()).collect();
        assert_eq!(events, ["boot", "crash-recovered", "clean-stop"]);
        assert!(ops::open_flag(&temp.db, "nowhere", NOW).await.is_err());
    }
}
