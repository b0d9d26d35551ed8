//! Kline ingest: from the venue's bytes to durable rows, beside a bare loop that only inserts.
//!
//! The floor binds rows that are in memory already. Ours starts from JSON text, proves each row,
//! and commits a page with its gaps and its cursor; as a step of a cycle it also checks the fencing
//! token and merges the cover.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use rusqlite::Connection;
use watchbell_bench::candles::{
    Loader, MINUTE, PAGE, Walk, YEAR_START, bare, database, insert_bare, page_commit, page_json,
};
use watchbell_bench::{Table, grouped, machine, median, progress};
use watchbell_clock::{Clock, Stopwatch};
use watchbell_db::Synchronous;
use watchbell_market::DEFAULT_SYMBOLS;
use watchbell_venues::binance::wire::{Interval, Kline};
use watchbell_venues::binance::{Asked, parse_klines};

/// Measures how fast candles are parsed, checked and stored.
#[derive(Debug, Parser)]
struct Args {
    /// Pages of 1,000 candles for each of seven symbols
    #[arg(long, default_value_t = 60)]
    pages: usize,
    /// How often each way is measured; the table shows the middle one
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// The market's seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Few pages, once
    #[arg(long)]
    quick: bool,
}

/// One page, in both forms.
struct Page {
    symbol: Arc<str>,
    asked: Asked,
    body: String,
    rows: Vec<Kline>,
}

/// A way from a page to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Bare,
    Apply,
    Step,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Bare => "floor: bare rusqlite, insert only",
            Self::Apply => "parse, check, insert, cursor, gaps",
            Self::Step => "the same as a fenced step, with cover",
        }
    }
}

fn pages(args: &Args) -> Vec<Page> {
    let mut all = Vec::with_capacity(args.pages * DEFAULT_SYMBOLS.len());
    for symbol in DEFAULT_SYMBOLS {
        let name: Arc<str> = Arc::from(symbol);
        let mut walk = Walk::new(symbol, args.seed, YEAR_START);
        for _ in 0..args.pages {
            let rows: Vec<Kline> = walk.by_ref().take(PAGE).collect();
            let start = rows.first().map(|r| r.open_time);
            let asked = Asked { interval: Interval::M1, start, end: None, limit: PAGE };
            let body = page_json(&rows);
            all.push(Page { symbol: Arc::clone(&name), asked, body, rows });
        }
    }
    all
}

fn parse(page: &Page) -> anyhow::Result<Vec<Kline>> {
    parse_klines(page.body.as_bytes(), &page.asked).map_err(anyhow::Error::msg)
}

async fn store(way: Way, synchronous: Synchronous, pages: &[Page]) -> anyhow::Result<Duration> {
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let path = dir.path().join("watchbell.db");
    let clock = Clock::system();
    let db = database(&path, synchronous, clock.now()).await?;
    let took = match way {
        Way::Bare => {
            db.close().await?;
            let mut connection = bare(&path, synchronous)?;
            let watch = Stopwatch::start();
            for page in pages {
                insert_bare(&mut connection, &page.symbol, &page.rows)?;
            }
            watch.elapsed()
        }
        Way::Apply => {
            let watch = Stopwatch::start();
            for page in pages {
                let rows = parse(page)?;
                let commit = page_commit(&page.symbol, &rows, clock.now());
                db.apply(commit.statements).await?;
            }
            let took = watch.elapsed();
            db.close().await?;
            took
        }
        Way::Step => {
            let loader = Loader::start(&db, clock.now()).await?;
            let watch = Stopwatch::start();
            for page in pages {
                let rows = parse(page)?;
                loader.step(page_commit(&page.symbol, &rows, clock.now()), clock.now()).await?;
            }
            let took = watch.elapsed();
            loader.finish(clock.now()).await?;
            db.close().await?;
            took
        }
    };
    check(&path, pages)?;
    Ok(took)
}

/// A speed counts only for rows that are there.
fn check(path: &Path, pages: &[Page]) -> anyhow::Result<()> {
    let connection = Connection::open(path)?;
    let (rows, last): (i64, i64) =
        connection.query_row("select count(*), max(open_time) from ingest_kline_raw", [], |r| {
            Ok((r.get(0)?, r.get(1)?))
        })?;
    let expected: usize = pages.iter().map(|p| p.rows.len()).sum();
    let newest = pages.iter().filter_map(|p| p.rows.last()).map(|r| r.open_time.0).max();
    anyhow::ensure!(
        rows == expected as i64 && Some(last) == newest,
        "stored {rows} rows up to {last}, expected {expected} up to {newest:?}"
    );
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    if args.quick {
        (args.pages, args.repeat) = (10, 1);
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let pages = pages(&args);
    let rows: usize = pages.iter().map(|p| p.rows.len()).sum();
    let bytes: usize = pages.iter().map(|p| p.body.len()).sum();
    let rate = |took: Duration| rows as f64 / took.as_secs_f64();

    let mut parsed = Vec::new();
    for _ in 0..args.repeat {
        let watch = Stopwatch::start();
        for page in &pages {
            anyhow::ensure!(parse(page)? == page.rows, "a page did not read back as it was");
        }
        parsed.push(rate(watch.elapsed()));
    }
    let mut table = Table::new(
        format!(
            "kline ingest: {} rows of {} symbols, pages of {PAGE}, one transaction a page",
            grouped(rows as f64),
            DEFAULT_SYMBOLS.len()
        ),
        &["what", "synchronous", "rows/s", "us/page", "of the floor"],
    );
    let cells = |rate: f64| (grouped(rate), grouped(1e6 * PAGE as f64 / rate));
    for synchronous in [Synchronous::Full, Synchronous::Normal] {
        let ways = [Way::Bare, Way::Apply, Way::Step];
        let mut rates = [const { Vec::new() }; 3];
        // In turn, so that a busy moment of the machine does not fall on one of them alone.
        for round in 0..args.repeat {
            for (rates, way) in rates.iter_mut().zip(ways) {
                let (number, all) = (round + 1, args.repeat);
                progress(&format!(
                    "{number}/{all} synchronous {}: {} ...",
                    synchronous.as_str(),
                    way.name()
                ));
                rates.push(rate(runtime.block_on(store(way, synchronous, &pages))?));
            }
        }
        let floor = median(&rates[0]);
        for (rates, way) in rates.iter().zip(ways) {
            let (rate, page) = cells(median(rates));
            let share = format!("{:.0} %", 100.0 * median(rates) / floor);
            table.row([&way.name(), &synchronous.as_str(), &rate, &page, &share]);
        }
    }
    let (rate, page) = cells(median(&parsed));
    table.row([&"parse and check alone", &"", &rate, &page, &""]);
    table.note(format!(
        "each the middle of {}; a candle is {MINUTE}, a page {} KB of JSON",
        args.repeat,
        bytes / pages.len() / 1000
    ));
    table.note(machine());
    Ok(table.print()?)
}
