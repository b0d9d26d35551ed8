//! A year of candles of many symbols, from stored rows to windows, matrices, allocation and mood, all
//! through a node with fenced commits.
//!
//! Beside it the same half-hours in numpy, and by our own functions alone: both read the candles from
//! the store, compute windows, mood and matrices on one core, and write nothing. What the functions
//! alone compute is compared with what the node stored.
//!
//! Several sizes show what the cost grows with: windows with symbols, matrices with the square of the
//! coins.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use watchbell_bench::candles::{Loader, MINUTE, PAGE, Walk, YEAR_START, page_commit, session};
use watchbell_bench::{Table, Usage, grouped, machine, progress};
use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::{Frac, Millis, Time, Trigger, WorkerName, values};
use watchbell_db::{Database, Options as FileOptions, Synchronous};
use watchbell_engine::{Node, Options};
use watchbell_market::CallLog;
use watchbell_market::analytics::{Scratch, WindowInput, compute_window};
use watchbell_market::matrices::cells::{Inputs, Market, MatrixType, Previous, Slice, USDT};
use watchbell_market::mood::state::judge;
use watchbell_market::mood::{Params, Share};
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
    /// Half-hours that numpy and our functions alone compute, at each size
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
        clock.sleep(Millis(250)).await;
        let sql = "select count(*), sum(state = 'abandoned') from ops.windows
            where state in ('complete', 'abandoned')";
        let row = db.query_one(sql, Vec::new()).await?;
        anyhow::ensure!(row.opt_i64(1)?.unwrap_or(0) == 0, "a window was given up");
        let now = row.i64(0)?.unsigned_abs();
        idle = if now == windows { idle + 1 } else { 0 };
        windows = now;
        if idle > 240 {
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

/// The half-hour, and the day.
const HALF: Millis = Millis::from_mins(30);
const DAY: Millis = Millis::from_days(1);
/// Symbols that a mood is made of.
const MOOD_SYMBOLS: usize = 12;

/// One symbol's candles within a window: times and prices of their closes, and weights.
type Candles = (Vec<Time>, Vec<f64>, Vec<f64>);

/// What the functions alone came to, to be compared with what is stored.
struct Half {
    start: Time,
    coeff: f64,
    gfm: Vec<f64>,
}

/// Our functions and what they read from.
struct Alone {
    db: Database,
    names: Vec<Arc<str>>,
    /// The same as the JSON that a query takes.
    list: String,
    market: Market,
    scratch: Scratch,
    before: Option<Slice>,
}

impl Alone {
    fn open(path: &Path, symbols: usize) -> anyhow::Result<Self> {
        let db = Database::open(&FileOptions { read_only: true, ..FileOptions::new(path) })?;
        let names: Vec<Arc<str>> = (0..symbols).map(|i| Arc::from(name(i))).collect();
        let market = Market::new(names.iter().map(|symbol| {
            let base = symbol.strip_suffix(USDT).unwrap_or(symbol);
            (Arc::clone(symbol), Arc::from(base), Arc::from(USDT))
        }));
        let list = serde_json::to_string(&names)?;
        Ok(Self { db, names, list, market, scratch: Scratch::default(), before: None })
    }

    /// The closes of all symbols that `condition` selects, by the place of the symbol.
    async fn closes(
        &self,
        sql: &'static str,
        (a, b): (Time, Time),
    ) -> anyhow::Result<BTreeMap<(usize, Time), f64>> {
        let found = self.db.scan(
            sql,
            values![self.list.as_str(), a, b],
            BTreeMap::new(),
            |found: &mut BTreeMap<_, _>, row| {
                found.insert((row.i64(0)? as usize, row.time(1)?), row.f64(2)?);
                Ok(ControlFlow::Continue(()))
            },
        );
        Ok(found.await?)
    }

    /// One half-hour: windows, mood, matrices.
    async fn half(&mut self, start: Time) -> anyhow::Result<Half> {
        let (end, n) = (start + HALF, self.names.len());
        let all: Vec<Candles> = vec![Candles::default(); n];
        let candles = self.db.scan(
            "select s.key, k.open_time, k.close, k.volume
             from json_each($1) s cross join ingest.kline_raw k
             where k.symbol = s.value and k.interval_label = '1m'
               and k.open_time >= $2 and k.open_time < $3",
            values![self.list.as_str(), start, end],
            all,
            |all, row| {
                let (times, prices, weights) = &mut all[row.i64(0)? as usize];
                let volume = row.f64(3)?;
                times.push(row.time(1)? + MINUTE);
                prices.push(row.f64(2)?);
                weights.push(if volume > 0.0 { volume } else { 1.0 });
                Ok(ControlFlow::Continue(()))
            },
        );
        let candles = candles.await?;
        let (mut shares, mut prices, mut gfm) = (Vec::new(), Vec::new(), Vec::new());
        for (symbol, (times, closes, weights)) in self.names.iter().zip(&candles) {
            let input = WindowInput::new(closes, times, weights)?;
            let computed = compute_window(&input, &mut self.scratch);
            prices.push(closes.last().copied());
            gfm.push(computed.stats.gfm);
            let share = Share {
                g: Some(computed.stats.delta_gfm_pct.0 / 100.0),
                t: Some(computed.vectors.tendency.score / 100.0),
                v: Some(computed.vectors.swap.score / 100.0),
                weight: computed.samples.max(1) as f64,
            };
            shares.push((Arc::clone(symbol), Some(share)));
        }
        shares.truncate(MOOD_SYMBOLS);
        let mood = judge(&shares, &Params::default());
        let (_, mood) = mood.map_err(|why| anyhow::anyhow!("a window has no mood: {why:?}"))?;

        let (last, first) = (end - MINUTE, end - MINUTE - DAY);
        let day = self.closes(
            "select s.key, k.open_time, k.close from json_each($1) s cross join ingest.kline_raw k
             where k.symbol = s.value and k.interval_label = '1m' and k.open_time in ($2, $3)",
            (last, first),
        );
        let day = day.await?;
        let opening = self.closes(
            "select s.key, min(k.open_time), k.close
             from json_each($1) s cross join ingest.kline_raw k
             where k.symbol = s.value and k.interval_label = '1m' and k.open_time = (
               select min(m.open_time) from ingest.kline_raw m
               where m.symbol = s.value and m.interval_label = '1m'
                 and m.open_time >= $2 and m.open_time < $3)
             group by s.key",
            (start.floor(DAY), last + Millis(1)),
        );
        let opening = opening.await?;
        let mut openings = vec![None; n];
        for ((place, _), close) in opening {
            openings[place] = Some(close);
        }
        let change = |i| Some(Frac(day.get(&(i, last))? / day.get(&(i, first))? - 1.0));
        let changes: Vec<_> = (0..n).map(change).collect();
        let previous = self.before.take().map(|slice| Previous {
            benchmark: slice.grid(MatrixType::Benchmark).clone(),
            id_pct: slice.grid(MatrixType::IdPct).clone(),
        });
        self.before = Some(Slice::compute(&Inputs {
            market: &self.market,
            prices: &prices,
            changes: &changes,
            openings: &openings,
            previous: previous.as_ref(),
        }));
        Ok(Half { start, coeff: mood.coeff, gfm })
    }

    /// Whether the node came to the same.
    async fn compare(&self, halves: &[Half]) -> anyhow::Result<()> {
        for half in halves {
            let mood = "select coeff from mea_dynamics.moods
                where window_label = '30m' and window_start = $1 and is_fallback = 0";
            let row = self.db.query_one(mood, values![half.start]).await?;
            anyhow::ensure!(row.f64(0)? == half.coeff, "another mood at {}", half.start);
            for (symbol, gfm) in self.names.iter().zip(&half.gfm) {
                let stats = "select gfm from str_aux.window_stats
                    where symbol = $1 and window_label = '30m' and window_start = $2";
                let row = self.db.query_one(stats, values![Arc::clone(symbol), half.start]).await?;
                anyhow::ensure!(row.f64(0)? == *gfm, "another mode of {symbol} at {}", half.start);
            }
        }
        let (Some(slice), Some(half)) = (&self.before, halves.last()) else { return Ok(()) };
        let cells = "select matrix_type, base, cells from matrices.rows
            where series = '30m' and ts_ms = $1";
        for row in self.db.query(cells, values![half.start + HALF]).await? {
            let of = MatrixType::parse(row.text(0)?).context("a matrix of an unknown type")?;
            let base = self.market.find(row.text(1)?).context("a coin that is not ours")?;
            let stored: Vec<Option<f64>> = serde_json::from_str(row.text(2)?)?;
            let ours = (0..stored.len()).map(|q| slice.grid(of).get(base, q));
            anyhow::ensure!(ours.eq(stored.iter().copied()), "another row of {}", of.as_str());
        }
        Ok(())
    }
}

/// Seconds for a half-hour of all symbols by our functions alone.
async fn alone(path: &Path, symbols: usize, halves: usize) -> anyhow::Result<f64> {
    let mut ours = Alone::open(path, symbols)?;
    let newest = "select window_start from str_aux.windows
        where symbol = $1 and window_label = '30m' order by window_start desc limit $2";
    let rows = ours.db.query(newest, values![name(0), halves as i64]).await?;
    let starts: Vec<Time> = rows.iter().rev().map(|row| row.time(0)).collect::<Result<_, _>>()?;
    let watch = Stopwatch::start();
    let mut computed = Vec::with_capacity(starts.len());
    for start in &starts {
        computed.push(ours.half(*start).await?);
    }
    let took = watch.elapsed();
    ours.compare(&computed).await?;
    ours.db.close().await?;
    Ok(took.as_secs_f64() / starts.len() as f64)
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
            "symbols", "days", "load s", "compute s", "windows/s", "cells/s", "node ms", "alone ms",
            "numpy ms", "alone", "node", "GB",
        ],
    );
    for (symbols, days) in sizes {
        progress(&format!("{symbols} symbols, {days} days ..."));
        let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
        let path = dir.path().join("watchbell.db");
        let ran = runtime.block_on(run(&path, symbols, days, args.seed))?;
        let halves = (days * 48) as f64;
        let each = ran.took.as_secs_f64() / halves;
        let alone = runtime.block_on(alone(&path, symbols, args.python))?;
        let numpy = if args.no_python { None } else { Some(numpy(&path, &args)?) };
        let cells = halves * 7.0 * ((symbols + 1) * symbols) as f64;
        table.row([
            &symbols,
            &days,
            &format!("{:.1}", ran.load.as_secs_f64()),
            &format!("{:.1}", ran.took.as_secs_f64()),
            &grouped(ran.windows as f64 / ran.took.as_secs_f64()),
            &grouped(cells / ran.took.as_secs_f64()),
            &format!("{:.2}", 1e3 * each),
            &format!("{:.2}", 1e3 * alone),
            &numpy.map_or_else(String::new, |s| format!("{:.1}", 1e3 * s)),
            &numpy.map_or_else(String::new, |s| format!("{:.1} x", s / alone)),
            &numpy.map_or_else(String::new, |s| format!("{:.1} x", s / each)),
            &format!("{:.2}", ran.bytes as f64 / 1e9),
        ]);
        progress(&format!(
            "{} windows in {} commits; most resident memory {} MB",
            grouped(ran.windows as f64),
            grouped(ran.commits as f64),
            ran.peak_kib / 1024
        ));
    }
    table.note("ms: of a half-hour; the last columns are those of numpy by ours");
    table.note(
        "node: 6 series with claims, reads, statistics, hashes, fenced commits, synchronous full",
    );
    table.note(
        "alone: our functions on one core; they read and compute the half-hours (windows, matrices, \
         mood), write nothing, and came to what the node stored",
    );
    table.note("numpy: the same on one core, and writes nothing either");
    table.note(machine());
    Ok(table.print()?)
}
