//! A year of candles of many symbols, from stored rows to windows, matrices, allocation and mood, all
//! through a node with fenced commits.
//!
//! Beside it the same half-hours in numpy, and by our own functions alone: both read the candles from
//! the store, compute windows, mood and matrices on one core, and write nothing. What the functions
//! alone compute is compared with what the node stored.
//!
//! Several sizes show what the cost grows with: windows with symbols, matrices with the square of the
//! coins.

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
const DAY_MINUTES: usize = 1440;
/// Symbols that a mood is made of.
const MOOD_SYMBOLS: usize = 12;

/// What the functions alone came to, to be compared with what is stored.
struct Half {
    start: Time,
    coeff: f64,
    gfm: Vec<f64>,
}

/// The 1-minute candles of one symbol: closes and weights, NaN where there is none.
struct Candles {
    closes: Vec<f64>,
    weights: Vec<f64>,
}

/// Our functions, and the stretch of candles that they are given.
struct Alone {
    names: Vec<Arc<str>>,
    market: Market,
    /// The open time of the first candle.
    since: Time,
    candles: Vec<Candles>,
    scratch: Scratch,
    before: Option<Slice>,
}

impl Alone {
    /// Reads the candles from `since` to `until` of all symbols at once.
    async fn read(db: &Database, symbols: usize, since: Time, until: Time) -> anyhow::Result<Self> {
        let names: Vec<Arc<str>> = (0..symbols).map(|i| Arc::from(name(i))).collect();
        let market = Market::new(names.iter().map(|symbol| {
            let base = symbol.strip_suffix(USDT).unwrap_or(symbol);
            (Arc::clone(symbol), Arc::from(base), Arc::from(USDT))
        }));
        let minutes = usize::try_from((until - since) / MINUTE)?;
        let none = || Candles { closes: vec![f64::NAN; minutes], weights: vec![f64::NAN; minutes] };
        let candles = db.scan(
            "select s.key, k.open_time, k.close, k.volume
             from json_each($1) s cross join ingest.kline_raw k
             where k.symbol = s.value and k.interval_label = '1m'
               and k.open_time >= $2 and k.open_time < $3",
            values![serde_json::to_string(&names)?, since, until],
            names.iter().map(|_| none()).collect(),
            move |all: &mut Vec<Candles>, row| {
                let candles = &mut all[row.i64(0)? as usize];
                let (at, volume) = (((row.time(1)? - since) / MINUTE) as usize, row.f64(3)?);
                candles.closes[at] = row.f64(2)?;
                candles.weights[at] = if volume > 0.0 { volume } else { 1.0 };
                Ok(ControlFlow::Continue(()))
            },
        );
        let candles = candles.await?;
        Ok(Self { names, market, since, candles, scratch: Scratch::default(), before: None })
    }

    /// The place of the candle that opens at `open`.
    fn at(&self, open: Time) -> usize {
        ((open - self.since) / MINUTE) as usize
    }

    /// One half-hour: windows, mood, matrices.
    fn half(&mut self, start: Time) -> anyhow::Result<Half> {
        let (from, to) = (self.at(start), self.at(start + HALF));
        let (day_before, midnight) = (to - 1 - DAY_MINUTES, self.at(start.floor(DAY)));
        let times: Vec<Time> = (1..=HALF / MINUTE).map(|k| start + MINUTE * k).collect();
        let known = |price: f64| Some(price).filter(|price| !price.is_nan());
        let n = self.names.len();
        let (mut shares, mut gfm) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for (symbol, candles) in self.names.iter().zip(&self.candles) {
            let input =
                WindowInput::new(&candles.closes[from..to], &times, &candles.weights[from..to])?;
            let computed = compute_window(&input, &mut self.scratch);
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

        let closes = || self.candles.iter().map(|c| &c.closes);
        let prices: Vec<_> = closes().map(|c| known(c[to - 1])).collect();
        let changes: Vec<_> =
            closes().map(|c| known(c[to - 1] / c[day_before] - 1.0).map(Frac)).collect();
        let openings: Vec<_> =
            closes().map(|c| c[midnight..to].iter().copied().find(|p| !p.is_nan())).collect();
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
    async fn compare(&self, db: &Database, halves: &[Half]) -> anyhow::Result<()> {
        for half in halves {
            let mood = "select coeff from mea_dynamics.moods
                where window_label = '30m' and window_start = $1 and is_fallback = 0";
            let row = db.query_one(mood, values![half.start]).await?;
            anyhow::ensure!(row.f64(0)? == half.coeff, "another mood at {}", half.start);
            for (symbol, gfm) in self.names.iter().zip(&half.gfm) {
                let stats = "select gfm from str_aux.window_stats
                    where symbol = $1 and window_label = '30m' and window_start = $2";
                let row = db.query_one(stats, values![Arc::clone(symbol), half.start]).await?;
                anyhow::ensure!(row.f64(0)? == *gfm, "another mode of {symbol} at {}", half.start);
            }
        }
        let (Some(slice), Some(half)) = (&self.before, halves.last()) else { return Ok(()) };
        let cells = "select matrix_type, base, cells from matrices.rows
            where series = '30m' and ts_ms = $1";
        for row in db.query(cells, values![half.start + HALF]).await? {
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
    let db = Database::open(&FileOptions { read_only: true, ..FileOptions::new(path) })?;
    let newest = "select window_start from str_aux.windows
        where symbol = $1 and window_label = '30m' order by window_start desc limit $2";
    let rows = db.query(newest, values![name(0), halves as i64]).await?;
    let starts: Vec<Time> = rows.iter().rev().map(|row| row.time(0)).collect::<Result<_, _>>()?;
    let (Some(first), Some(last)) = (starts.first(), starts.last()) else {
        anyhow::bail!("the node computed no half-hour");
    };
    let watch = Stopwatch::start();
    // The changes over 24 hours look back on the day before.
    let mut ours = Alone::read(&db, symbols, first.floor(DAY) - DAY, *last + HALF).await?;
    let computed: Vec<Half> = starts.iter().map(|at| ours.half(*at)).collect::<Result<_, _>>()?;
    let took = watch.elapsed();
    ours.compare(&db, &computed).await?;
    db.close().await?;
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
