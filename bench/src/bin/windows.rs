//! All windows of a year: reading the rows, computing their statistics, the same in numpy, and the
//! whole way through a node.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use watchbell_bench::candles::{
    Loader, MINUTE, PAGE, Walk, YEAR_START, bare, database, insert_bare, page_commit, session,
};
use watchbell_bench::{Table, grouped, machine, progress};
use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::{Millis, Time, WorkerName, values};
use watchbell_db::{Database, Synchronous};
use watchbell_engine::{Node, Options};
use watchbell_market::analytics::hash::{InputsHasher, ResultHasher};
use watchbell_market::analytics::{Scratch, WindowInput, WindowStats, compute_window};
use watchbell_market::{CallLog, DEFAULT_SYMBOLS, series_name};
use watchbell_store::SqlStore;
use watchbell_venues::binance::wire::Kline;
use watchbell_venues::binance::{BinanceClient, Config as VenueConfig};

/// Measures how fast windows are computed.
#[derive(Debug, Parser)]
struct Args {
    /// Days of 1-minute candles for each of seven symbols
    #[arg(long, default_value_t = 365)]
    days: usize,
    /// Days of one symbol for numpy
    #[arg(long, default_value_t = 30)]
    python_days: usize,
    /// Days of all symbols for the node
    #[arg(long, default_value_t = 30)]
    node_days: usize,
    /// The market's seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave numpy out
    #[arg(long)]
    no_python: bool,
    /// Leave the node out
    #[arg(long)]
    no_node: bool,
    /// 30 days, 5 for numpy and 2 for the node
    #[arg(long)]
    quick: bool,
}

/// One symbol's candles, as the market's window worker reads them.
#[derive(Debug, Default)]
struct Series {
    times: Vec<Time>,
    prices: Vec<f64>,
    weights: Vec<f64>,
    volumes: Vec<f64>,
}

async fn read(db: &Database, symbol: &str) -> anyhow::Result<Series> {
    let series = db
        .scan(
            "select open_time, close, volume from ingest.kline_raw
             where symbol = $1 and interval_label = '1m' order by open_time",
            values![symbol],
            Series::default(),
            |s, row| {
                let volume = row.f64(2)?;
                s.times.push(Time(row.i64(0)?) + MINUTE);
                s.prices.push(row.f64(1)?);
                s.weights.push(if volume > 0.0 { volume } else { 1.0 });
                s.volumes.push(volume);
                Ok(ControlFlow::Continue(()))
            },
        )
        .await?;
    Ok(series)
}

/// The windows of one length, with their index.
fn windows<'a>(
    series: &'a Series,
    length: Millis,
    scratch: &'a mut Scratch,
) -> impl Iterator<Item = anyhow::Result<(usize, WindowStats)>> + 'a {
    let candles = (length / MINUTE) as usize;
    (0..series.prices.len() / candles).map(move |index| {
        let part = index * candles..(index + 1) * candles;
        let input = WindowInput::new(
            &series.prices[part.clone()],
            &series.times[part.clone()],
            &series.weights[part],
        )?;
        Ok((index, compute_window(&input, scratch)))
    })
}

/// Computes and hashes every window of one symbol. Returns how many there are, and one hash over
/// their hashes, so that nothing is computed for nobody.
fn compute(symbol: &str, series: &Series, hashed: bool) -> anyhow::Result<(u64, String)> {
    let mut scratch = Scratch::default();
    let mut count = 0;
    let mut all = ResultHasher::new("all", YEAR_START);
    for length in lengths() {
        let label = length.exact();
        let candles = (length / MINUTE) as usize;
        for window in windows(series, length, &mut scratch) {
            let (index, stats) = window?;
            count += 1;
            if !hashed {
                std::hint::black_box(&stats);
                continue;
            }
            let start = YEAR_START + length * index as i64;
            let mut inputs = InputsHasher::new(&label, start);
            inputs.symbol(symbol);
            for i in index * candles..(index + 1) * candles {
                inputs.point(series.times[i], series.prices[i], &series.volumes[i..=i]);
            }
            let mut result = ResultHasher::new(&label, start);
            result.part(symbol, &stats);
            all.part(&inputs.finish(), &result.finish());
        }
    }
    Ok((count, all.finish()))
}

fn lengths() -> Vec<Millis> {
    watchbell_market::Config::default().windows
}

/// Reads and computes all symbols on this many threads.
fn read_and_compute(
    runtime: &tokio::runtime::Runtime,
    db: &Database,
    threads: usize,
    hashed: bool,
) -> anyhow::Result<(Duration, u64, BTreeMap<&'static str, String>)> {
    let watch = Stopwatch::start();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let parts = std::thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let Some(symbol) = DEFAULT_SYMBOLS.get(at).copied() else { return Ok(done) };
                let series = runtime.block_on(read(db, symbol))?;
                done.push((symbol, compute(symbol, &series, hashed)?));
            }
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| anyhow::bail!("a computing thread panicked")))
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    let took = watch.elapsed();
    let (mut count, mut hashes) = (0, BTreeMap::new());
    for (symbol, (windows, hash)) in parts.into_iter().flatten() {
        count += windows;
        hashes.insert(symbol, hash);
    }
    Ok((took, count, hashes))
}

fn fill(path: &Path, args: &Args) -> anyhow::Result<()> {
    let mut connection = bare(path, Synchronous::Off)?;
    for symbol in DEFAULT_SYMBOLS {
        let rows: Vec<Kline> =
            Walk::new(symbol, args.seed, YEAR_START).take(args.days * 1440).collect();
        insert_bare(&mut connection, symbol, &rows)?;
    }
    connection.execute_batch("pragma wal_checkpoint(truncate)")?;
    Ok(())
}

/// What numpy reached, and whether its numbers are ours.
struct Numpy {
    version: String,
    windows: u64,
    rate: f64,
    ours: f64,
    compared: u64,
    differing: u64,
}

fn numpy(dir: &Path, args: &Args) -> anyhow::Result<Numpy> {
    let rows: Vec<Kline> = Walk::new(DEFAULT_SYMBOLS[0], args.seed, YEAR_START)
        .take(args.python_days * 1440)
        .collect();
    let csv = dir.join("candles.csv");
    let mut out = BufWriter::new(fs::File::create(&csv)?);
    writeln!(out, "close,volume")?;
    for r in &rows {
        writeln!(out, "{},{}", r.close, r.volume)?;
    }
    out.flush()?;
    let series = Series {
        times: rows.iter().map(|r| r.open_time + MINUTE).collect(),
        prices: rows.iter().map(|r| r.close).collect(),
        weights: rows.iter().map(|r| if r.volume > 0.0 { r.volume } else { 1.0 }).collect(),
        volumes: rows.iter().map(|r| r.volume).collect(),
    };
    // Ours over the same sample, computed only, as numpy's figure is; the second pass is warm.
    compute(DEFAULT_SYMBOLS[0], &series, false)?;
    let watch = Stopwatch::start();
    let (count, _) = compute(DEFAULT_SYMBOLS[0], &series, false)?;
    let ours = count as f64 / watch.elapsed().as_secs_f64();
    let dump = dir.join("ours.jsonl");
    let mut out = BufWriter::new(fs::File::create(&dump)?);
    let mut scratch = Scratch::default();
    for length in lengths() {
        for window in windows(&series, length, &mut scratch) {
            let (index, stats) = window?;
            let minutes = length / MINUTE;
            let line = serde_json::json!({ "length": minutes, "index": index, "stats": stats });
            writeln!(out, "{line}")?;
        }
    }
    out.flush()?;

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("window_stats.py");
    let python = python(dir)?;
    progress("numpy ...");
    let run = |more: &[&str]| -> anyhow::Result<serde_json::Value> {
        let output = Command::new(&python).arg(&script).arg(&csv).args(more).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let report = text.lines().last().and_then(|l| serde_json::from_str(l).ok());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // Its first complaints: the counts are in the report.
        said.lines().take(5).for_each(progress);
        report
            .with_context(|| format!("{} said nothing that can be read: {said}", script.display()))
    };
    let timed = run(&[])?;
    let compared = run(&["--compare", &dump.to_string_lossy()])?;
    let number = |v: &serde_json::Value, key: &str| v[key].as_u64().unwrap_or(0);
    Ok(Numpy {
        version: timed["numpy"].as_str().unwrap_or("?").to_owned(),
        windows: count,
        rate: timed["windows_per_second"].as_f64().unwrap_or(0.0),
        ours,
        compared: number(&compared, "compared"),
        differing: number(&compared, "differing"),
    })
}

/// A Python that has numpy: the system's, or one of our own in the temporary directory.
fn python(dir: &Path) -> anyhow::Result<PathBuf> {
    let has = |python: &Path| {
        let probe = Command::new(python).args(["-c", "import numpy"]).output();
        probe.is_ok_and(|o| o.status.success())
    };
    let system = PathBuf::from("python3");
    if has(&system) {
        return Ok(system);
    }
    progress("numpy is missing: installing it into a temporary environment ...");
    let venv = dir.join("venv");
    let own = venv.join("bin/python");
    for (program, arguments) in [
        (&system, vec!["-m", "venv", venv.to_str().context("the temporary path is not text")?]),
        (&own, vec!["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "numpy"]),
    ] {
        let output = Command::new(program)
            .args(&arguments)
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        anyhow::ensure!(
            output.status.success(),
            "cannot get numpy (leave it out with --no-python): {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(own)
}

/// What a node reached.
struct Ran {
    windows: u64,
    took: Duration,
    commits: u64,
}

/// The market's window workers on a node and a store: claims, reads, statistics, fenced commits.
async fn node(dir: &Path, args: &Args) -> anyhow::Result<Ran> {
    let clock = Clock::system();
    let db = database(&dir.join("node.db"), Synchronous::Full, clock.now()).await?;
    let loader = Loader::start(&db, clock.now()).await?;
    for symbol in DEFAULT_SYMBOLS {
        let name: Arc<str> = Arc::from(symbol);
        let rows: Vec<Kline> =
            Walk::new(symbol, args.seed, YEAR_START).take(args.node_days * 1440).collect();
        for page in rows.chunks(PAGE) {
            loader.step(page_commit(&name, page, clock.now()), clock.now()).await?;
        }
    }
    loader.finish(clock.now()).await?;
    let client = BinanceClient::new(
        VenueConfig::at("http://127.0.0.1:9", "ws://127.0.0.1:9"),
        clock.clone(),
        None,
    )?;
    let wanted: Vec<WorkerName> =
        lengths().into_iter().map(|l| WorkerName::from(series_name(l))).collect();
    let config = watchbell_market::Config::default();
    let workers = watchbell_market::workers(&config, &db, &client, CallLog::default())
        .into_iter()
        .map(|w| (w.define(), w))
        .collect();
    let mut options = Options::new(dir);
    options.profile = Some(wanted.into_iter().collect());
    let expected: u64 =
        lengths().iter().map(|l| (args.node_days * 1440) as u64 / (*l / MINUTE) as u64).sum();
    let store = Arc::new(SqlStore::new(db.clone()));
    let commits = db.metrics().commits;
    let watch = Stopwatch::start();
    let node = Node::start(store, clock.clone(), session(clock.now()), workers, options).await?;
    let mut windows = 0;
    let mut idle = 0;
    while windows < expected {
        clock.sleep(Millis(50)).await;
        let sql = "select count(*) from ops.windows where state = 'complete'";
        let now = db.query_one(sql, Vec::new()).await?.i64(0)?.unsigned_abs();
        idle = if now == windows { idle + 1 } else { 0 };
        windows = now;
        if idle > 400 {
            for view in node.handle().view().await {
                progress(&format!("{}: {} {:?}", view.worker, view.state, view.gate));
            }
            anyhow::bail!("the node stands still at {windows} of {expected} windows");
        }
    }
    let took = watch.elapsed();
    let commits = db.metrics().commits - commits;
    node.shutdown("measured").await?;
    db.close().await?;
    Ok(Ran { windows, took, commits })
}

fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    if args.quick {
        (args.days, args.python_days, args.node_days) = (30, 5, 2);
    }
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let path = dir.path().join("watchbell.db");
    let clock = Clock::system();
    progress("generating candles ...");
    let db = runtime.block_on(database(&path, Synchronous::Full, clock.now()))?;
    fill(&path, &args)?;

    progress("reading ...");
    let watch = Stopwatch::start();
    let mut rows = 0;
    for symbol in DEFAULT_SYMBOLS {
        rows += runtime.block_on(read(&db, symbol))?.prices.len();
    }
    let scan = watch.elapsed();
    let mut table = Table::new(
        format!(
            "windows: {} days of 1-minute candles of {} symbols, {} rows, all 30m, 1h and 3h windows",
            args.days,
            DEFAULT_SYMBOLS.len(),
            grouped(rows as f64)
        ),
        &["what", "windows", "seconds", "windows/s", "of reading", "of numpy"],
    );
    table.row([&"floor: reading the rows once", &"", &format!("{:.2}", scan.as_secs_f64())]);
    let mut measured = Vec::new();
    for (name, threads, hashed) in [
        ("read, compute: 1 thread", 1, false),
        ("read, compute, both hashes: 1 thread", 1, true),
        ("read, compute, both hashes: 2 threads", 2, true),
    ] {
        progress(&format!("{name} ..."));
        let (took, count, hashes) = read_and_compute(&runtime, &db, threads, hashed)?;
        measured.push((name, took, count, hashes));
    }
    anyhow::ensure!(measured[1].3 == measured[2].3, "two threads gave other results than one");
    runtime.block_on(db.close())?;

    let numpy = if args.no_python { None } else { Some(numpy(dir.path(), &args)?) };
    let times =
        |rate: f64| numpy.as_ref().map_or_else(String::new, |n| format!("{:.0} x", rate / n.rate));
    for (name, took, count, _) in &measured {
        let rate = *count as f64 / took.as_secs_f64();
        table.row([
            name,
            &grouped(*count as f64),
            &format!("{:.2}", took.as_secs_f64()),
            &grouped(rate),
            &format!("{:.1} x", took.as_secs_f64() / scan.as_secs_f64()),
            &times(rate),
        ]);
    }
    if let Some(n) = &numpy {
        let sample = format!("{} days of {}", args.python_days, DEFAULT_SYMBOLS[0]);
        table.row([
            &format!("compute alone: 1 thread, {sample}"),
            &grouped(n.windows as f64),
            &format!("{:.2}", n.windows as f64 / n.ours),
            &grouped(n.ours),
            &"",
            &times(n.ours),
        ]);
        table.row([
            &format!("numpy {}, compute alone, {sample}", n.version),
            &grouped(n.windows as f64),
            &format!("{:.2}", n.windows as f64 / n.rate),
            &grouped(n.rate),
            &"",
            &"1 x",
        ]);
        table.note(format!(
            "numpy's numbers beside ours: {} windows compared, {} differ by more than 1e-9",
            grouped(n.compared as f64),
            grouped(n.differing as f64)
        ));
    }
    if !args.no_node {
        progress("through a node ...");
        let ran = runtime.block_on(node(dir.path(), &args))?;
        let symbols = ran.windows * DEFAULT_SYMBOLS.len() as u64;
        let rate = symbols as f64 / ran.took.as_secs_f64();
        table.row([
            &format!("a node, {} days, synchronous full", args.node_days),
            &grouped(symbols as f64),
            &format!("{:.2}", ran.took.as_secs_f64()),
            &grouped(rate),
            &"",
            &times(rate),
        ]);
        table.note(format!(
            "the node completed {} windows of {} symbols each in {} commits: {:.2} ms a window",
            grouped(ran.windows as f64),
            DEFAULT_SYMBOLS.len(),
            grouped(ran.commits as f64),
            1e3 * ran.took.as_secs_f64() / ran.windows as f64
        ));
    }
    table.note("a window is one of one symbol; a thread holds one symbol's candles at a time");
    table.note(machine());
    Ok(table.print()?)
}
