//! A month of live running: the real binary on its simulated market, hundreds of times faster than the
//! wall, and what it holds in memory day by day.
//!
//! `watchbell demo` polls order books, follows trades, closes cycles and windows, computes matrices,
//! allocation and mood, validates its universe and scans its health, as a node does that lives. Memory
//! is read from `/proc`, the market's time and the windows from the store, by a connection that is
//! closed again. The simulated venue runs in the same process and is part of what is measured.
//!
//! The node counts in the market's time, and this machine does its work in the wall's. So its limits are
//! configured to last as long on the wall as they do on a node that runs at its pace: three minutes are
//! otherwise 200 ms at 900 times that, and a machine that is busy for so long ends healthy work.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use clap::Parser;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use serde_json::{Value, json};
use watchbell_bench::process::{PATIENCE, Process};
use watchbell_bench::{Table, Usage, grouped, machine, progress};
use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::{Millis, Time};
use watchbell_engine::Options;
use watchbell_engine::health::{HealthScan, Housekeeping};
use watchbell_market::DEFAULT_SYMBOLS;
use watchbell_venues::binance;

/// Measures memory over a month of live running.
#[derive(Debug, Parser)]
struct Args {
    /// The binary
    #[arg(long, default_value = "target/release/watchbell")]
    bin: PathBuf,
    /// Days of the market to run live
    #[arg(long, default_value_t = 30)]
    days: i64,
    /// How many times faster than the wall
    #[arg(long, default_value_t = 600)]
    speed: u32,
    /// Milliseconds of the market between two polls of an order book: more make it cheaper to run
    #[arg(long, default_value_t = 1000)]
    poll: u32,
    /// Hours of the market between two rows
    #[arg(long, default_value_t = 48)]
    every: i64,
    /// Days before memory counts as settled: rings are full, caches warm
    #[arg(long, default_value_t = 3)]
    settled: i64,
    /// Half a day, a row each two hours
    #[arg(long)]
    quick: bool,
}

/// What the store says.
struct Stored {
    /// The newest point of the first symbol.
    newest: Time,
    points: i64,
    windows: i64,
    given_up: i64,
}

/// One look.
struct Look {
    /// Of the market, since the first point.
    days: f64,
    usage: Usage,
    threads: u64,
    files: usize,
    store: u64,
    stored: Stored,
}

fn stored(path: &Path) -> anyhow::Result<Option<Stored>> {
    let store = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    store.busy_timeout(PATIENCE.to_std())?;
    let newest: Option<i64> = store
        .query_row(
            "select max(ts) from str_aux_samples_5s where symbol = $1",
            [DEFAULT_SYMBOLS[0]],
            |r| r.get(0),
        )
        .optional()?
        .flatten();
    let Some(newest) = newest else { return Ok(None) };
    let count = |sql| store.query_row(sql, [], |r| r.get::<_, i64>(0));
    Ok(Some(Stored {
        newest: Time(newest),
        points: count("select count(*) from str_aux_samples_5s")?,
        windows: count("select count(*) from str_aux_windows where source = 'points'")?,
        given_up: count("select count(*) from ops_windows where state = 'abandoned'")?,
    }))
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|l| l.trim().parse().ok()).unwrap_or(0)
}

fn look(pid: u32, dir: &Path, since: &mut Option<Time>) -> anyhow::Result<Option<Look>> {
    let path = dir.join("watchbell.db");
    if !path.exists() {
        return Ok(None);
    }
    let Some(stored) = stored(&path)? else { return Ok(None) };
    let first = *since.get_or_insert(stored.newest);
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(Some(Look {
        days: (stored.newest - first).as_secs_f64() / 86_400.0,
        usage: Usage::of(pid)?,
        threads: field(&status, "Threads:"),
        files: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
        store: fs::metadata(&path)?.len(),
        stored,
    }))
}

/// The least-squares slope of memory that belongs to no file, in KiB a day.
fn slope(looks: &[&Look]) -> f64 {
    let n = looks.len() as f64;
    let mean = |of: &dyn Fn(&Look) -> f64| looks.iter().map(|l| of(l)).sum::<f64>() / n;
    let (days, kib) = (mean(&|l| l.days), mean(&|l| l.usage.anon_kib as f64));
    let along = |l: &&Look| (l.days - days) * (l.usage.anon_kib as f64 - kib);
    let covariance: f64 = looks.iter().map(along).sum();
    let variance: f64 = looks.iter().map(|l| (l.days - days).powi(2)).sum();
    covariance / variance
}

/// What the node is told: how often it polls, and limits that are longer by the speed.
fn config(args: &Args) -> anyhow::Result<Value> {
    let longer = |limit: Millis| (limit * i64::from(args.speed)).exact();
    let Options { lease_ttl, lease_renew, stop_grace, abort_grace, .. } =
        Options::new(Path::new(""));
    let own = [HealthScan::definition(Millis::from_mins(1)), Housekeeping::definition()?];
    let workers = watchbell_market::definitions(&watchbell_market::Config::default());
    let workers: serde_json::Map<String, Value> = workers
        .iter()
        .chain(&own)
        .map(|of| {
            let soft = longer(of.soft_timeout);
            let hard = longer(of.hard_timeout.max(of.soft_timeout));
            (of.name.to_string(), json!({ "soft_timeout": soft, "hard_timeout": hard }))
        })
        .collect();
    Ok(json!({
        "node": {
            "lease_ttl": longer(lease_ttl),
            "lease_renew": longer(lease_renew),
            "stop_grace": longer(stop_grace),
            "abort_grace": longer(abort_grace),
        },
        "venue": { "request_timeout": longer(binance::Config::default().request_timeout) },
        "market": { "sampling": { "poll": format!("{}ms", args.poll) } },
        "workers": workers,
    }))
}

async fn watch(args: &Args) -> anyhow::Result<Vec<Look>> {
    let bin = args.bin.canonicalize().with_context(|| {
        format!("there is no {}: build it with `cargo build --release`", args.bin.display())
    })?;
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let (data, log) = (dir.path().join("data"), dir.path().join("node.log"));
    let file = dir.path().join("watchbell.yaml");
    // JSON is YAML.
    fs::write(&file, config(args)?.to_string())?;
    let clock = Clock::system();
    let mut command = Command::new(bin);
    command
        .args(["demo", "--days", "1", "--no-http", "--quiet", "--speed", &args.speed.to_string()])
        .arg("--data-dir")
        .arg(&data)
        .arg("--config")
        .arg(&file)
        .current_dir(dir.path());
    let mut node = Process::start(&mut command, &log)?;
    let (mut looks, mut since): (Vec<Look>, _) = (Vec::new(), None);
    let mut watch = Stopwatch::start();
    loop {
        clock.sleep(Millis::from_secs(1)).await;
        if let Some(how) = node.ended()? {
            let said = fs::read_to_string(&log).unwrap_or_default();
            anyhow::bail!("the demonstration ended ({how}); it said:\n{said}");
        }
        let due = looks.len() as f64 * args.every as f64 / 24.0;
        let Some(now) = look(node.id(), &data, &mut since)? else {
            anyhow::ensure!(watch.millis() < PATIENCE, "no point is stored after {PATIENCE}");
            continue;
        };
        if now.days < due {
            let still = looks.last().is_some_and(|l| l.stored.newest == now.stored.newest);
            anyhow::ensure!(!still || watch.millis() < PATIENCE, "the market stands still");
            // Counting rows takes a while: the next look is not due at once.
            let ahead = (due - now.days) * 86_400.0 / f64::from(args.speed);
            clock.sleep(Millis::from_secs((ahead / 2.0) as i64)).await;
            continue;
        }
        progress(&format!("day {:.1}: {} KiB", now.days, grouped(now.usage.anon_kib as f64)));
        watch = Stopwatch::start();
        let enough = now.days >= args.days as f64;
        looks.push(now);
        if enough {
            node.stop(&clock).await?;
            return Ok(looks);
        }
    }
}

fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    if args.quick {
        (args.days, args.every, args.settled) = (1, 4, 0);
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let looks = runtime.block_on(watch(&args))?;
    let mut table = Table::new(
        format!(
            "`watchbell demo` live, {} times as fast as the wall, {} symbols",
            args.speed,
            DEFAULT_SYMBOLS.len()
        ),
        &[
            "day",
            "anonymous KiB",
            "resident KiB",
            "most KiB",
            "threads",
            "files",
            "points",
            "windows",
            "given up",
            "store MB",
        ],
    );
    for look in &looks {
        table.row([
            &format!("{:.1}", look.days),
            &grouped(look.usage.anon_kib as f64),
            &grouped(look.usage.rss_kib as f64),
            &grouped(look.usage.peak_kib as f64),
            &look.threads,
            &look.files,
            &grouped(look.stored.points as f64),
            &grouped(look.stored.windows as f64),
            &look.stored.given_up,
            &format!("{:.0}", look.store as f64 / 1e6),
        ]);
    }
    let settled: Vec<&Look> = looks.iter().filter(|l| l.days >= args.settled as f64).collect();
    if settled.len() > 2 {
        table.note(format!(
            "from day {} on, anonymous memory changes by {:+.1} KiB a day",
            args.settled,
            slope(&settled)
        ));
    }
    table
        .note("windows: of one symbol each, computed from points; the simulated venue is included");
    table.note(machine());
    Ok(table.print()?)
}
