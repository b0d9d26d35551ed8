//! A year of candles of many symbols, from stored rows to windows, matrices, allocation and mood, all
//! through a node with fenced commits; and the same work in numpy.
//!
//! Several sizes show what the cost grows with: windows with symbols, matrices with the square of the
//! coins.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use watchbell_bench::candles::{Loader, MINUTE, PAGE, Walk, YEAR_START, page_commit, session};
use watchbell_bench::{Table, Usage, grouped, machine, progress};
use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::{Millis, Trigger, WorkerName};
use watchbell_db::{Database, Options as FileOptions, Synchronous};
use watchbell_engine::{Node, Options};
use watchbell_market::CallLog;
use watchbell_store::SqlStore;
use watchbell_venues::binance::{BinanceClient, Config as VenueConfig};

/// Series that are computed: all windows, and what follows the half-hours.
const SERIES: [&str; 6] = [
    "window-sampler-30m",
    "window-sampler-1h",
    "window-sampler-3h",
    "matrices-30m",
    "mea-30m",
    "mood-30m",
];

/// Measures how long a year of the market takes.
#[derive(Debug, Parser)]
struct Args {
    /// Symbols, for each size
    #[arg(long, value_delimiter = ',', default_values_t = [10, 25, 50])]
    symbols: Vec<usize>,
    /// Days of each size
    #[arg(long, default_value_t = 30)]
    days: usize,
    /// Days of the last size alone: the year
    #[arg(long, default_value_t = 365)]
    year: usize,
    /// Half-hours that numpy computes, at each size
    #[arg(long, default_value_t = 48)]
    python: usize,
    /// The market's seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where Python 3 with numpy is
    #[arg(long, default_value = "python3")]
    interpreter: PathBuf,
    /// Leave numpy out
    #[arg(long)]
    no_python: bool,
    /// Small numbers
    #[arg(long)]
    quick: bool,
}

/// What a size took.
struct Ran {
    windows: u64,
    load: Duration,
    took: Duration,
    commits: u64,
    bytes: u64,
    peak_kib: u64,
}

fn name(i: usize) -> String {
    format!("C{i:03}USDT")
}

async fn run(path: &Path, symbols: usize, days: usize, seed: u64) -> anyhow::Result<Ran> {
    let clock = Clock::system();
    let synchronous = Synchronous::Full;
    let db = Database::open(&FileOptions { synchronous, ..FileOptions::new(path) })?;
    db.migrate(&[watchbell_store::LINE, watchbell_market::LINE], clock.now()).await?;
    let names: Vec<String> = (0..symbols).map(name).collect();
    let config =
        watchbell_market::Config { sampling: false, ..watchbell_market::Config::default() };
    watchbell_market::seed(&db, &names, &config.windows, YEAR_START, YEAR_START).await?;
    let watch = Stopwatch::start();
    let loader = Loader::start(&db, clock.now()).await?;
    for symbol in &names {
        let shared: Arc<str> = Arc::from(symbol.as_str());
        let rows: Vec<_> = Walk::new(symbol, seed, YEAR_START).take(days * 1440).collect();
        for page in rows.chunks(PAGE) {
            loader.step(page_commit(&shared, page, clock.now()), clock.now()).await?;
        }
    }
    loader.finish(clock.now()).await?;
    let load = watch.elapsed();

    let nowhere = VenueConfig::at("http://127.0.0.1:9", "ws://127.0.0.1:9");
    let client = BinanceClient::new(nowhere, clock.clone(), None)?;
    let workers: Vec<_> = watchbell_market::workers(&config, &db, &client, CallLog::default())
        .into_iter()
        .map(|w| (w.define(), w))
        .collect();
    let mut expected = 0;
    for series in SERIES {
        let (definition, _) = workers
            .iter()
            .find(|(definition, _)| definition.name.as_str() == series)
            .with_context(|| format!("there is no worker {series}"))?;
        let Trigger::Window(spec) = &definition.trigger else {
            anyhow::bail!("{series} computes no windows");
        };
        expected += (days * 1440) as u64 / (spec.length / MINUTE) as u64;
    }
    let dir = path.parent().context("the file has no folder")?;
    let mut options = Options::new(dir);
    options.profile = Some(SERIES.into_iter().map(WorkerName::from).collect());
    let store = Arc::new(SqlStore::new(db.clone()));
    let commits = db.metrics().commits;
    let watch = Stopwatch::start();
    let node = Node::start(store, clock.clone(), session(clock.now()), workers, options).await?;
    let (mut windows, mut idle) = (0, 0);
    while windows < expected {
        clock.sleep(Millis(100)).await;
        let sql = "select count(*), sum(state = 'abandoned') from ops.windows
            where state in ('complete', 'abandoned')";
        let row = db.query_one(sql, Vec::new()).await?;
        anyhow::ensure!(row.opt_i64(1)?.unwrap_or(0) == 0, "a window was given up");
        let now = row.i64(0)?.unsigned_abs();
        idle = if now == windows { idle + 1 } else { 0 };
        windows = now;
        if idle > 600 {
            for view in node.handle().view().await {
                progress(&format!("{}: {} {:?}", view.worker, view.state, view.gate));
            }
            anyhow::bail!("the node stands still at {windows} of {expected} windows");
        }
    }
    let took = watch.elapsed();
    let commits = db.metrics().commits - commits;
    node.shutdown("measured").await?;
    let bytes = db.describe().await?.bytes;
    db.close().await?;
    Ok(Ran { windows, load, took, commits, bytes, peak_kib: Usage::own()?.peak_kib })
}

/// Seconds for a half-hour of all symbols in numpy.
fn numpy(store: &Path, args: &Args) -> anyhow::Result<f64> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("market_check.py");
    let windows = args.python.to_string();
    let output = Command::new(&args.interpreter)
        .arg(&script)
        .arg(store)
        .args(["--time", "--labels", "30m", "--windows", &windows])
        .output()
        .with_context(|| format!("cannot run {}", args.interpreter.display()))?;
    let told = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "market_check.py failed: {told}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let number = |key: &str| report[key].as_f64().with_context(|| format!("no {key} in {report}"));
    Ok(number("seconds")? / number("windows")?)
}

fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    if args.quick {
        (args.symbols, args.days, args.year, args.python) = (vec![5, 10], 2, 4, 8);
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let largest = args.symbols.iter().copied().max().context("no size was given")?;
    let mut sizes: Vec<_> = args.symbols.iter().map(|n| (*n, args.days)).collect();
    sizes.push((largest, args.year));
    let mut table = Table::new(
        "a market of 1-minute candles through a node: 30m, 1h and 3h windows; matrices, allocation and \
         mood of each half-hour"
            .to_owned(),
        &[
            "symbols", "days", "load s", "compute s", "windows/s", "ms a half-hour", "cells/s",
            "numpy ms", "of numpy", "GB",
        ],
    );
    for (symbols, days) in sizes {
        progress(&format!("{symbols} symbols, {days} days ..."));
        let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
        let path = dir.path().join("watchbell.db");
        let ran = runtime.block_on(run(&path, symbols, days, args.seed))?;
        let halves = (days * 48) as f64;
        let each = ran.took.as_secs_f64() / halves;
        let numpy = if args.no_python { None } else { Some(numpy(&path, &args)?) };
        let cells = halves * 7.0 * ((symbols + 1) * symbols) as f64;
        table.row([
            &symbols,
            &days,
            &format!("{:.1}", ran.load.as_secs_f64()),
            &format!("{:.1}", ran.took.as_secs_f64()),
            &grouped(ran.windows as f64 / ran.took.as_secs_f64()),
            &format!("{:.2}", 1e3 * each),
            &grouped(cells / ran.took.as_secs_f64()),
            &numpy.map_or_else(String::new, |s| format!("{:.1}", 1e3 * s)),
            &numpy.map_or_else(String::new, |s| format!("{:.0} x", s / each)),
            &format!("{:.2}", ran.bytes as f64 / 1e9),
        ]);
        progress(&format!(
            "{} windows in {} commits; most resident memory {} MB",
            grouped(ran.windows as f64),
            grouped(ran.commits as f64),
            ran.peak_kib / 1024
        ));
    }
    table.note(
        "ours: claims, reads, statistics, hashes, fenced commits, synchronous full; 6 series",
    );
    table.note(
        "numpy: one core, reads and computes the half-hours alone (windows, matrices, mood), and \
                writes nothing",
    );
    table.note(machine());
    Ok(table.print()?)
}
