//! Chained windows through a node: series that wait for each other's windows, with workers that do
//! nothing, so that what is measured is what a window costs beside its work.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use watchbell_bench::candles::{YEAR_START, database, session};
use watchbell_bench::{Table, Usage, grouped, machine, progress};
use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::{
    BoxError, BoxFuture, Cause, Commit, Cycle, Definition, Done, Fault, Millis, Statement, Time,
    Trigger, WindowHashes, WindowInput, WindowSpec, Worker, values,
};
use watchbell_db::{Database, Synchronous};
use watchbell_engine::{Node, Options};
use watchbell_store::SqlStore;

/// Measures how many chained windows a node completes.
#[derive(Debug, Parser)]
struct Args {
    /// Windows of each series
    #[arg(long, default_value_t = 3_000)]
    windows: i64,
    /// Series, each made of the one before
    #[arg(long, default_value_t = 4)]
    series: usize,
    /// Keys in the first series' scope, each with covers of its own
    #[arg(long, default_value_t = 50)]
    keys: usize,
    /// How durable a commit is
    #[arg(long, value_enum, default_value_t = Sync::Full)]
    synchronous: Sync,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Sync {
    Full,
    Normal,
}

const LENGTH: Millis = Millis::from_mins(30);
const SOURCE: &str = "bench";

/// A series whose windows are empty.
struct Empty {
    at: usize,
    keys: usize,
    laned: bool,
    to: Time,
}

fn name(at: usize) -> String {
    format!("layer-{at}")
}

impl Worker for Empty {
    fn define(&self) -> Definition {
        let input = match self.at {
            0 => WindowInput::Cover { source: SOURCE.into(), lookback: Millis::ZERO },
            at => WindowInput::Settled { series: name(at - 1).as_str().into() },
        };
        let spec = WindowSpec {
            series: name(self.at).as_str().into(),
            length: LENGTH,
            settle: Millis(1_500),
            inputs: vec![input],
            max_attempts: 3,
        };
        let def = Definition::new(name(self.at).as_str(), Trigger::Window(spec));
        if self.laned { def.lane("windows") } else { def }
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(async move {
            let mut done = Done::new(serde_json::json!({ "keys": self.keys }), Commit::new());
            if let Cause::Window { start, .. } = &cycle.cause {
                done.window = Some(WindowHashes {
                    inputs: format!("{:064x}", start.0),
                    result: format!("{:064x}", start.0),
                    source: SOURCE.into(),
                });
            }
            Ok(done)
        })
    }

    fn scope<'a>(&'a self, _start: Time) -> BoxFuture<'a, Result<Vec<String>, BoxError>> {
        let keys = if self.at == 0 { self.keys } else { 0 };
        Box::pin(async move { Ok((0..keys).map(|k| format!("KEY{k}")).collect()) })
    }

    fn first_window<'a>(&'a self, from: Time) -> BoxFuture<'a, Result<Option<Time>, BoxError>> {
        let first = YEAR_START.max(from);
        Box::pin(async move { Ok((first < self.to).then_some(first)) })
    }
}

struct Ran {
    took: Duration,
    commits: u64,
    cpu: Duration,
}

async fn fresh(path: &std::path::Path, args: &Args) -> anyhow::Result<Database> {
    let synchronous = match args.synchronous {
        Sync::Full => Synchronous::Full,
        Sync::Normal => Synchronous::Normal,
    };
    database(path, synchronous, Clock::system().now()).await
}

/// Commits of one row each, one after another: the floor.
async fn floor(dir: &std::path::Path, args: &Args) -> anyhow::Result<Ran> {
    let db = fresh(&dir.join("floor.db"), args).await?;
    let (watch, before, commits) = (Stopwatch::start(), Usage::own()?, db.metrics().commits);
    for n in 0..args.windows {
        let sql = "insert into ops.settings (key, value, updated_at) values ($1, '1', 0)";
        db.apply(vec![Statement::new(sql, values![n.to_string()])]).await?;
    }
    let took = watch.elapsed();
    let (commits, cpu) = (db.metrics().commits - commits, Usage::own()?.cpu - before.cpu);
    db.close().await?;
    Ok(Ran { took, commits, cpu })
}

async fn chain(dir: &std::path::Path, args: &Args, laned: bool) -> anyhow::Result<Ran> {
    let clock = Clock::system();
    let db = fresh(&dir.join(format!("chain-{laned}.db")), args).await?;
    let to = YEAR_START + LENGTH * args.windows;
    let covers = (0..args.keys).map(|k| {
        Statement::new(
            "insert into ops.covers (source, key, from_at, to_at) values ($1, $2, $3, $4)",
            values![SOURCE, format!("KEY{k}"), YEAR_START, to],
        )
    });
    db.apply(covers.collect()).await?;
    let workers = (0..args.series)
        .map(|at| Arc::new(Empty { at, keys: args.keys, laned, to }) as Arc<dyn Worker>)
        .map(|w| (w.define(), w))
        .collect();
    let store = Arc::new(SqlStore::new(db.clone()));
    let (watch, before, commits) = (Stopwatch::start(), Usage::own()?, db.metrics().commits);
    let options = Options::new(dir);
    let node = Node::start(store, clock.clone(), session(clock.now()), workers, options).await?;
    let sql = "select count(*) from ops.windows where state = 'complete' and series = $1";
    let last = name(args.series - 1);
    let (mut done, mut still) = (0, 0);
    while done < args.windows {
        clock.sleep(Millis(50)).await;
        let now = db.query_one(sql, values![last.as_str()]).await?.i64(0)?;
        still = if now == done { still + 1 } else { 0 };
        done = now;
        if still > 200 {
            for view in node.handle().view().await {
                progress(&format!("{}: {} {:?}", view.worker, view.state, view.gate));
            }
            anyhow::bail!("the node stands still at {done} of {} windows", args.windows);
        }
    }
    let took = watch.elapsed();
    let (commits, cpu) = (db.metrics().commits - commits, Usage::own()?.cpu - before.cpu);
    node.shutdown("measured").await?;
    db.close().await?;
    Ok(Ran { took, commits, cpu })
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    anyhow::ensure!(args.series > 0 && args.windows > 0, "nothing to measure");
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let mut table = Table::new(
        format!(
            "chain: {} series, {} empty windows of each, synchronous {:?}",
            args.series,
            grouped(args.windows as f64),
            args.synchronous
        ),
        &["what", "windows", "seconds", "windows/s", "ms a window", "commits", "CPU ms a window"],
    );
    let all = args.windows * i64::try_from(args.series)?;
    for (what, laned, windows) in [
        ("floor: one commit after another", None, args.windows),
        ("one lane", Some(true), all),
        ("no lane", Some(false), all),
    ] {
        progress(&format!("{what} ..."));
        let ran = match laned {
            None => runtime.block_on(floor(dir.path(), &args))?,
            Some(laned) => runtime.block_on(chain(dir.path(), &args, laned))?,
        };
        let (windows, seconds) = (windows as f64, ran.took.as_secs_f64());
        table.row([
            &what,
            &grouped(windows),
            &format!("{seconds:.2}"),
            &grouped(windows / seconds),
            &format!("{:.3}", seconds * 1e3 / windows),
            &grouped(ran.commits as f64),
            &format!("{:.3}", ran.cpu.as_secs_f64() * 1e3 / windows),
        ]);
    }
    table.note(machine());
    Ok(table.print()?)
}
