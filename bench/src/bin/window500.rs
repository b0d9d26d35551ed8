//! One window of many symbols that were watched: reading its points, computing, and the fenced
//! commit, each with its share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use watchbell_bench::candles::{Loader, YEAR_START, database};
use watchbell_bench::{Table, Usage, machine, median, progress};
use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::port::StoreError;
use watchbell_core::{
    BoxFuture, Cause, Commit, Cycle, CycleId, CycleInput, Host, Millis, Statement, Time, Token,
    Worker, values,
};
use watchbell_db::{Database, Synchronous};
use watchbell_market::{CallLog, series_name};
use watchbell_venues::binance::{BinanceClient, Config as VenueConfig};

/// Measures one window from points: read, compute, commit.
#[derive(Debug, Parser)]
struct Args {
    /// Numbers of symbols, each measured in turn
    #[arg(long, value_delimiter = ',', default_values_t = [125, 250, 500])]
    symbols: Vec<usize>,
    /// Length of the window in minutes: 30, 60 or 180
    #[arg(long, default_value_t = 30)]
    minutes: i64,
    /// How often each is measured; the middle is shown
    #[arg(long, default_value_t = 9)]
    repeat: i64,
}

/// A cycle's host that only tells the time.
struct Bare(Clock);

impl Host for Bare {
    fn now(&self) -> Time {
        self.0.now()
    }
    fn cancelled(&self) -> bool {
        false
    }
    fn until_cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
    fn progress(&self, _: f64, _: &str) {}
    fn step(&self, _: Commit) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Err(StoreError::Conflict("a window has no steps".into())) })
    }
    fn stage(&self) -> Result<PathBuf, std::io::Error> {
        Err(std::io::Error::other("a window publishes no files"))
    }
}

/// A number in `[0, 1)` of a seed: splitmix64.
fn draw(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Points of the window that begins at `start` and of the one before, for each symbol, with all
/// columns filled.
async fn fill(
    db: &Database,
    symbols: &[String],
    start: Time,
    length: Millis,
) -> anyhow::Result<()> {
    let buckets = 2 * (length / Millis::from_secs(5));
    for (i, symbol) in symbols.iter().enumerate() {
        let mut state = i as u64;
        let mut price = 1.0 + 60_000.0 * draw(&mut state);
        let symbol: Arc<str> = Arc::from(symbol.as_str());
        let mut rows = Vec::new();
        for k in 1..=buckets {
            price *= 1.0 + (draw(&mut state) - 0.5) * 0.0006;
            let [a, b, c] = [0, 1, 2].map(|_| 100.0 * (draw(&mut state) - 0.5));
            let (bid, ask) = (10.0 * draw(&mut state), 10.0 * draw(&mut state));
            rows.extend(values![
                Arc::clone(&symbol),
                start - length + Millis(5_000 * k),
                price,
                price * 0.9999,
                price * 1.0001,
                price * 0.9998,
                price * 1.0002,
                price * 0.0004,
                price * 0.0003,
                price * 0.0005,
                price * 0.0004,
                bid,
                ask,
                5,
                1_000,
                1_003,
                1_001,
                (bid - ask) / (bid + ask),
                "{}",
                a,
                a * 0.99,
                b,
                c,
                a.abs(),
                b.abs(),
                c.abs(),
                b.abs(),
                128,
                50,
            ]);
        }
        let places: Vec<String> = (1..=29).map(|n| format!("${n}")).collect();
        let sql = format!("insert into str_aux.samples_5s values ({})", places.join(", "));
        db.apply(vec![Statement::bulk(sql, 29, rows)]).await?;
    }
    Ok(())
}

/// Milliseconds of one part, repeat after repeat.
type Parts = BTreeMap<&'static str, Vec<f64>>;

async fn measure(args: &Args, count: usize) -> anyhow::Result<Parts> {
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let clock = Clock::system();
    let db = database(&dir.path().join("watchbell.db"), Synchronous::Full, clock.now()).await?;
    let length = Millis::from_mins(args.minutes);
    let start = (YEAR_START + length).floor(length);
    let names: Vec<String> = (0..count).map(|i| format!("S{i:03}USDT")).collect();
    let windows = watchbell_market::Config::default().windows;
    watchbell_market::seed(&db, &names, &windows, YEAR_START, clock.now()).await?;
    fill(&db, &names, start, length).await?;
    let client = BinanceClient::new(
        VenueConfig::at("http://127.0.0.1:9", "ws://127.0.0.1:9"),
        clock.clone(),
        None,
    )?;
    let config = watchbell_market::Config::default();
    let series = series_name(length);
    let workers = watchbell_market::workers(&config, &db, &client, CallLog::default());
    let worker: Arc<dyn Worker> = workers
        .into_iter()
        .find(|w| w.define().name.as_ref() == series)
        .with_context(|| format!("there is no window of {length}"))?;
    let loader = Loader::start(&db, clock.now()).await?;
    let mut parts = Parts::new();
    for version in 1..=args.repeat {
        let cycle = Cycle {
            id: CycleId(1),
            worker: worker.define().name,
            cause: Cause::Window {
                series: series.as_str().into(),
                start,
                end: start + length,
                version,
            },
            token: Token(1),
            attempt: 1,
            started_at: clock.now(),
            input: CycleInput::Scope(names.clone()),
            host: Arc::new(Bare(clock.clone())),
        };
        let (before, watch) = (Usage::own()?, Stopwatch::start());
        let done = worker.run(&cycle).await.map_err(|e| anyhow::anyhow!("{e}"))?;
        let computed = watch.elapsed().as_secs_f64() * 1e3;
        anyhow::ensure!(
            done.window.as_ref().is_some_and(|w| w.source == "points"),
            "the window was not computed from points"
        );
        loader.step(done.commit, clock.now()).await?;
        let all = watch.elapsed();
        let used = Usage::own()?;
        let told = |key: &str| done.summary[key].as_f64().unwrap_or(f64::NAN);
        for (part, ms) in [
            ("read", told("read_ms")),
            ("compute", told("compute_ms")),
            ("the rest", computed - told("read_ms") - told("compute_ms")),
            ("commit", all.as_secs_f64() * 1e3 - computed),
            ("all", all.as_secs_f64() * 1e3),
            ("cores", used.cores_since(&before, all)),
        ] {
            parts.entry(part).or_default().push(ms);
        }
    }
    db.close().await?;
    Ok(parts)
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    let points = Millis::from_mins(args.minutes) / Millis::from_secs(5);
    let mut table = Table::new(
        format!(
            "one window of {} min from {points} points a symbol, SQLite, synchronous full: ms",
            args.minutes
        ),
        &["symbols", "read", "compute", "the rest", "commit", "all", "cores"],
    );
    for count in &args.symbols {
        progress(&format!("{count} symbols ..."));
        let parts = runtime.block_on(measure(&args, *count))?;
        let cell = |part: &str| format!("{:.1}", median(&parts[part]));
        table.row([
            count,
            &cell("read"),
            &cell("compute"),
            &cell("the rest"),
            &cell("commit"),
            &cell("all"),
            &cell("cores"),
        ]);
    }
    table.note("read: points of the window and, for the floating mode, of the one before");
    table.note("compute: statistics, shifts and both hashes; the rest: rows, small queries");
    table.note("commit: as a fenced step; the middle of each is shown, cores are those in use");
    table.note(machine());
    Ok(table.print()?)
}
