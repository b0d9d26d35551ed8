//! Many workers due each second on one node, on the real clock: how late they start, and what that
//! costs.
//!
//! Each worker is `every 1s` and does nothing; lateness is read on the first line of its run. It is
//! measured with heartbeats only (a quiet worker) and with the full ledger on an SQLite file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use watchbell_bench::candles::session;
use watchbell_bench::{Table, Usage, grouped, machine, progress};
use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::{
    BoxFuture, Cause, Cycle, Definition, Done, Fault, Ledger, Millis, Time, Trigger, Worker,
};
use watchbell_db::{Database, Options as DbOptions};
use watchbell_engine::{Node, Options};
use watchbell_store::SqlStore;

/// Lateness in milliseconds is counted up to here, one bucket each.
const BUCKETS: usize = 60_000;

/// Measures lateness and cost of many workers that are due each second.
#[derive(Debug, Parser)]
struct Args {
    /// Seconds to measure, after the warm-up
    #[arg(long, default_value_t = 15)]
    secs: i64,
    /// Seconds to warm up
    #[arg(long, default_value_t = 3)]
    warm_up: i64,
    /// Numbers of workers
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000])]
    workers: Vec<usize>,
    /// Only `quiet` or only `full`
    #[arg(long)]
    ledger: Option<String>,
    /// Measure for 5 seconds only
    #[arg(long)]
    quick: bool,
}

/// Lateness of everything due in one span, counted without a lock.
#[derive(Debug)]
struct Counts {
    from: AtomicI64,
    to: AtomicI64,
    late: Vec<AtomicU64>,
    open: AtomicBool,
}

impl Counts {
    fn new() -> Self {
        Self {
            from: AtomicI64::new(i64::MAX),
            to: AtomicI64::new(i64::MAX),
            late: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            open: AtomicBool::new(true),
        }
    }

    fn note(&self, due: Time, now: Time) {
        let within = due.0 >= self.from.load(Ordering::Relaxed)
            && due.0 < self.to.load(Ordering::Relaxed)
            && self.open.load(Ordering::Relaxed);
        if within {
            let late = usize::try_from((now - due).0).unwrap_or(0).min(BUCKETS - 1);
            self.late[late].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn started(&self) -> u64 {
        self.late.iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }

    /// The lateness that `share` of the starts do not exceed.
    fn percentile(&self, share: f64) -> usize {
        let rank = ((self.started() as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        self.late
            .iter()
            .position(|n| {
                seen += n.load(Ordering::Relaxed);
                seen >= rank
            })
            .unwrap_or(0)
    }
}

/// A worker that does nothing each second.
struct Nothing {
    counts: Arc<Counts>,
    clock: Clock,
}

impl Worker for Nothing {
    fn define(&self) -> Definition {
        Definition::new(
            "nothing",
            Trigger::Every { period: Millis::from_secs(1), offset: Millis::ZERO },
        )
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(async move {
            let now = self.clock.now();
            if let Cause::Tick { due } = cycle.cause {
                self.counts.note(due, now);
            }
            Ok(Done::nothing())
        })
    }
}

/// One row of the table.
struct Sample {
    workers: usize,
    expected: u64,
    started: u64,
    p50: usize,
    p99: usize,
    max: usize,
    cores: f64,
    rss_mb: f64,
    ready: Duration,
    stopped: Duration,
    commits: u64,
}

async fn measure(workers: usize, ledger: Ledger, args: &Args) -> anyhow::Result<Sample> {
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let clock = Clock::system();
    let db = Database::open(&DbOptions::new(dir.path().join("watchbell.db")))?;
    db.migrate(&[watchbell_store::LINE], clock.now()).await?;
    let counts = Arc::new(Counts::new());
    let nothing: Arc<dyn Worker> =
        Arc::new(Nothing { counts: Arc::clone(&counts), clock: clock.clone() });
    let definitions = (0..workers)
        .map(|i| {
            let mut def = nothing.define().ledger(ledger);
            def.name = format!("nothing-{i:05}").into();
            (def, Arc::clone(&nothing))
        })
        .collect();
    let watch = Stopwatch::start();
    let node = Node::start(
        Arc::new(SqlStore::new(db.clone())),
        clock.clone(),
        session(clock.now()),
        definitions,
        Options::new(dir.path()),
    )
    .await?;
    let ready = watch.elapsed();
    // Half a second off the grid, so that no due instant lies on the edge of the span.
    let from =
        clock.now().ceil(Millis::from_secs(1)) + Millis::from_secs(args.warm_up) + Millis(500);
    let to = from + Millis::from_secs(args.secs);
    counts.from.store(from.0, Ordering::Relaxed);
    counts.to.store(to.0, Ordering::Relaxed);
    clock.sleep_until(from).await;
    let (before, commits, wall) = (Usage::own()?, db.metrics().commits, Stopwatch::start());
    clock.sleep_until(to).await;
    let (after, wall) = (Usage::own()?, wall.elapsed());
    let commits = db.metrics().commits - commits;
    counts.open.store(false, Ordering::Relaxed);
    let sample = Sample {
        workers,
        expected: workers as u64 * args.secs.unsigned_abs(),
        started: counts.started(),
        p50: counts.percentile(0.5),
        p99: counts.percentile(0.99),
        max: counts.percentile(1.0),
        cores: after.cores_since(&before, wall),
        rss_mb: after.rss_mb(),
        ready,
        stopped: Duration::ZERO,
        commits,
    };
    let watch = Stopwatch::start();
    node.shutdown("measured").await?;
    db.close().await?;
    Ok(Sample { stopped: watch.elapsed(), ..sample })
}

fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    if args.quick {
        args.secs = 5;
    }
    let wanted = match args.ledger.as_deref() {
        None => vec![Ledger::Quiet, Ledger::Full],
        Some("quiet") => vec![Ledger::Quiet],
        Some("full") => vec![Ledger::Full],
        Some(other) => anyhow::bail!("`{other}` is no ledger: use quiet or full"),
    };
    let mut table = Table::new(
        format!("workers due each second, {} s after {} s of warm-up", args.secs, args.warm_up),
        &[
            "what",
            "workers",
            "started",
            "of expected",
            "p50 ms",
            "p99 ms",
            "max ms",
            "cores",
            "RSS MB",
            "commits/s",
            "start ms",
            "stop ms",
        ],
    );
    for ledger in wanted {
        for &workers in &args.workers {
            let name =
                if ledger == Ledger::Quiet { "without the ledger" } else { "with the ledger" };
            progress(&format!("{workers} workers, {name} ..."));
            // Each sample has a runtime of its own, so that none pays for what another left.
            let runtime = tokio::runtime::Runtime::new()?;
            let s = runtime.block_on(measure(workers, ledger, &args))?;
            table.row([
                &format!("Watchbell, {name}"),
                &grouped(s.workers as f64),
                &grouped(s.started as f64),
                &format!("{:.1} %", 100.0 * s.started as f64 / s.expected as f64),
                &s.p50,
                &s.p99,
                &s.max,
                &format!("{:.3}", s.cores),
                &format!("{:.1}", s.rss_mb),
                &grouped(s.commits as f64 / args.secs as f64),
                &s.ready.as_millis(),
                &s.stopped.as_millis(),
            ]);
        }
    }
    for (peer, workers, share, p50, p99, max, cores, rss) in PEERS {
        table.row([
            &peer,
            &grouped(workers),
            &"",
            &format!("{share:.1} %"),
            &format!("{p50:.1}"),
            &format!("{p99:.1}"),
            &grouped(max),
            &format!("{cores:.2}"),
            &format!("{rss:.1}"),
        ]);
    }
    table.note(
        "peers, measured 2026-11-22 on 2 cores, 6 s each; their `of expected` is within 17 %.",
    );
    table.note(
        "APScheduler's includes runs that it then dropped as late: 20 to 40 % ran at 10,000.",
    );
    table.note(machine());
    Ok(table.print()?)
}

/// Name, jobs, percent fired, p50, p99 and max lateness in milliseconds, cores, resident MB.
type Peer = (&'static str, f64, f64, f64, f64, f64, f64, f64);

/// Peers, measured 2026-11-22 on 2 cores.
const PEERS: [Peer; 8] = [
    ("croner (npm)", 1_000.0, 100.0, 4.8, 12.0, 15.0, 0.01, 169.6),
    ("croner (npm)", 10_000.0, 100.0, 55.3, 110.6, 117.0, 0.13, 978.7),
    ("node-cron", 1_000.0, 100.0, 43.7, 92.1, 111.0, 0.10, 115.1),
    ("node-cron", 10_000.0, 100.0, 410.3, 813.9, 864.0, 0.87, 296.9),
    ("tokio-cron-scheduler", 1_000.0, 85.6, 86.8, 99.0, 161.0, 0.03, 7.6),
    ("tokio-cron-scheduler", 10_000.0, 72.9, 413.3, 507.8, 512.0, 0.28, 40.2),
    ("APScheduler 3", 1_000.0, 112.5, 16.8, 117.4, 129.0, 0.13, 27.5),
    ("APScheduler 3", 10_000.0, 76.9, 1_108.9, 2_277.9, 2_349.0, 1.47, 38.2),
];
