//! Slices of matrices over many coins: reading the slice before, computing, hashing, writing the rows
//! as text, and committing them, on SQLite and on PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use watchbell_bench::queue::server::Server;
use watchbell_bench::{Table, grouped, machine, median, progress};
use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::{Frac, Millis, Time};
use watchbell_db::{Database, Options, ServerOptions, Synchronous};
use watchbell_market::matrices::cells::{Market, MatrixType};
use watchbell_market::matrices::previous;
use watchbell_market::matrices::slice::{Key, Source};

/// 2025-01-01T00:00:00Z: where the slices begin.
const BEGIN: Time = Time(1_735_689_600_000);
/// Between two slices.
const STEP: Millis = Millis::from_mins(30);

/// Measures how fast the matrices of all coins are published.
#[derive(Debug, Parser)]
struct Args {
    /// Numbers of coins, USDT among them
    #[arg(long, value_delimiter = ',', default_values_t = [50, 100, 150])]
    coins: Vec<usize>,
    /// Slices of each number of coins; the first has none before it and is left out
    #[arg(long, default_value_t = 15)]
    slices: usize,
    /// Leave PostgreSQL out
    #[arg(long)]
    no_postgres: bool,
    /// A server to measure on instead of one of our own
    #[arg(long)]
    url: Option<String>,
}

/// Prices that walk, the same on each run.
struct Walk {
    state: u64,
    prices: Vec<f64>,
}

impl Walk {
    fn new(pairs: usize) -> Self {
        let mut walk = Self { state: 7, prices: Vec::with_capacity(pairs) };
        for _ in 0..pairs {
            // From a thousandth of a cent to a hundred thousand dollars.
            let price = 10.0_f64.powf(walk.draw() * 10.0 - 5.0);
            walk.prices.push(price);
        }
        walk
    }

    /// A number in `[0, 1)`: splitmix64.
    fn draw(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn step(&mut self) {
        for i in 0..self.prices.len() {
            // As the venue writes prices: seven digits at most.
            let moved = self.prices[i] * (1.0 + (self.draw() - 0.5) * 0.004);
            let scale = 10.0_f64.powf(6.0 - moved.log10().floor());
            self.prices[i] = (moved * scale).round() / scale;
        }
    }
}

/// How long each part of one slice took.
#[derive(Debug, Default)]
struct Parts {
    read: Vec<f64>,
    compute: Vec<f64>,
    hash: Vec<f64>,
    write: Vec<f64>,
    commit: Vec<f64>,
    whole: Vec<f64>,
}

fn ms(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

fn market(coins: usize) -> Market {
    let usdt: Arc<str> = "USDT".into();
    Market::new((1..coins).map(|i| {
        let coin = format!("C{i:03}");
        (Arc::from(format!("{coin}USDT")), Arc::from(coin), Arc::clone(&usdt))
    }))
}

/// Publishes the slices of one series, each from the stored one before it.
async fn publish(db: &Database, coins: usize, slices: usize) -> anyhow::Result<Parts> {
    let market = market(coins);
    anyhow::ensure!(market.coins().len() == coins, "{} coins", market.coins().len());
    let series: Arc<str> = format!("{coins} coins").into();
    let mut walk = Walk::new(coins - 1);
    let openings: Vec<Option<f64>> = walk.prices.iter().copied().map(Some).collect();
    let mut parts = Parts::default();
    for i in 0..slices {
        walk.step();
        let ts = BEGIN + STEP * i as i64;
        let whole = Stopwatch::start();
        let watch = Stopwatch::start();
        let earlier = previous(db, &series, ts, &market).await?;
        let read = ms(watch.elapsed());
        let source = Source {
            key: Key { series: Arc::clone(&series), ts, version: 1 },
            market: market.clone(),
            prices: walk.prices.iter().copied().map(Some).collect(),
            changes: walk.prices.iter().map(|p| Some(Frac(p.fract() / 100.0))).collect(),
            opening: BEGIN,
            openings: openings.clone(),
            previous: earlier,
        };
        let watch = Stopwatch::start();
        let inputs = source.hash();
        let hashed = ms(watch.elapsed());
        let watch = Stopwatch::start();
        let computed = source.compute();
        let compute = ms(watch.elapsed());
        let watch = Stopwatch::start();
        let hash = computed.hash();
        let hashed = hashed + ms(watch.elapsed());
        let watch = Stopwatch::start();
        let statements = computed.statements(&hash)?;
        let write = ms(watch.elapsed());
        let watch = Stopwatch::start();
        db.apply(statements).await?;
        let commit = ms(watch.elapsed());
        std::hint::black_box(inputs);
        if i == 0 {
            continue;
        }
        let filled = computed.slice.grid(MatrixType::Delta).nulls();
        anyhow::ensure!(filled == 0, "{filled} empty cells in the slice of {ts}");
        parts.read.push(read);
        parts.compute.push(compute);
        parts.hash.push(hashed);
        parts.write.push(write);
        parts.commit.push(commit);
        parts.whole.push(ms(whole.elapsed()));
    }
    let stored = "select count(*) from matrices.rows where series = $1";
    let rows = db.query_one(stored, watchbell_core::values![series]).await?.i64(0)?;
    let want = (slices * coins * MatrixType::ALL.len()) as i64;
    anyhow::ensure!(rows == want, "{rows} of {want} rows are there");
    Ok(parts)
}

/// Bytes of the tables and of what belongs to them.
async fn size(db: &Database, server: bool) -> anyhow::Result<f64> {
    let sql = if server {
        "select cast(pg_database_size(current_database()) as bigint)"
    } else {
        "select page_count * page_size from pragma_page_count(), pragma_page_size()"
    };
    Ok(db.query_one(sql, Vec::new()).await?.i64(0)? as f64)
}

async fn measure(db: &Database, name: &str, args: &Args, table: &mut Table) -> anyhow::Result<()> {
    let server = db.path().is_none();
    for &coins in &args.coins {
        progress(&format!("{name}, {coins} coins ..."));
        let before = size(db, server).await?;
        let p = publish(db, coins, args.slices).await?;
        let grown = (size(db, server).await? - before) / args.slices as f64 / 1e6;
        let cells = (coins * (coins - 1) * MatrixType::ALL.len()) as f64;
        let whole = median(&p.whole);
        let shown = |part: &[f64]| format!("{:.1}", median(part));
        let slowest = p.whole.iter().copied().fold(0.0, f64::max);
        table.row([
            &name,
            &coins,
            &grouped(cells),
            &shown(&p.read),
            &shown(&p.compute),
            &shown(&p.hash),
            &shown(&p.write),
            &shown(&p.commit),
            &format!("{whole:.1}"),
            &format!("{slowest:.1}"),
            &grouped(cells / whole * 1e3),
            &format!("{grown:.2}"),
        ]);
    }
    Ok(())
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let clock = Clock::system();
    let lines = [watchbell_store::LINE, watchbell_market::LINE];
    let mut table = Table::new(
        format!("matrices: {} slices of each, milliseconds of the middle one", args.slices - 1),
        &[
            "store", "coins", "cells", "read", "compute", "hash", "write", "commit", "whole",
            "slowest", "cells/s", "MB each",
        ],
    );
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let options =
        Options { synchronous: Synchronous::Full, ..Options::new(dir.path().join("watchbell.db")) };
    let db = Database::open(&options)?;
    db.migrate(&lines, clock.now()).await?;
    measure(&db, "SQLite, full", args, &mut table).await?;
    db.close().await?;
    if !args.no_postgres {
        let server = match &args.url {
            Some(url) => Server::at(url),
            None => Server::start(&clock).await?,
        };
        let db = Database::connect(&ServerOptions::new(server.fresh().await?)).await?;
        db.migrate(&lines, clock.now()).await?;
        measure(&db, "PostgreSQL", args, &mut table).await?;
        db.close().await?;
        table.note(server.describe().await?);
        server.clean().await?;
    }
    table.note("read: the slice before; write: the rows as text; commit: until it is durable");
    table
        .note("a slice has seven matrices; the live refresh makes 2,160 a day, a series of 30m 48");
    table.note(machine());
    Ok(table.print()?)
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    anyhow::ensure!(args.slices > 1, "two slices or more");
    anyhow::ensure!(args.coins.iter().all(|n| (2..=999).contains(n)), "2 to 999 coins");
    tokio::runtime::Runtime::new()?.block_on(run(&args))
}
