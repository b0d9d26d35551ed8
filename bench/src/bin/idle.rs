//! The real binary with nothing to do: memory, processor time, database use, start to ready, and
//! how fast the status answers.
//!
//! The store holds some days of candles with their windows. Both market workers that a clock starts
//! are due on the first of January only, so that nothing comes due while it is watched. The venue is
//! a simulator, started here; every process that is started here is ended here.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use rusqlite::{Connection, OpenFlags};
use watchbell_bench::candles::{Loader, PAGE, Walk, database, page_commit};
use watchbell_bench::process::{PATIENCE, Process};
use watchbell_bench::{Table, Usage, machine, percentile, progress};
use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::{Millis, Time};
use watchbell_db::Synchronous;
use watchbell_market::DEFAULT_SYMBOLS;
use watchbell_venues::binance::wire::Kline;

/// Measures the real binary while nothing is due.
#[derive(Debug, Parser)]
struct Args {
    /// The binary
    #[arg(long, default_value = "target/release/watchbell")]
    bin: PathBuf,
    /// Seconds to watch it
    #[arg(long, default_value_t = 10)]
    secs: i64,
    /// Days of candles and windows in the store
    #[arg(long, default_value_t = 7)]
    days: usize,
    /// Starts, and calls of each kind
    #[arg(long, default_value_t = 20)]
    repeat: usize,
    /// One day, 5 seconds, 5 calls
    #[arg(long)]
    quick: bool,
}

/// The installation under measurement.
struct Subject {
    bin: PathBuf,
    dir: PathBuf,
    address: SocketAddr,
    clock: Clock,
}

impl Subject {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.bin);
        command
            .args(arguments)
            .arg("--data-dir")
            .arg(self.dir.join("data"))
            .arg("--config")
            .arg(self.dir.join("watchbell.yaml"))
            .current_dir(&self.dir)
            .env("RUN_JOBS", "1");
        command
    }

    /// Starts the node and waits until it says that it is ready.
    async fn up(&self) -> anyhow::Result<(Process, Duration)> {
        let log = self.dir.join("node.log");
        let port = self.address.port().to_string();
        let mut command = self.command(&["up", "--http-port", &port]);
        let watch = Stopwatch::start();
        let mut node = Process::start(&mut command, &log)?;
        loop {
            if self.get("/readyz").is_ok_and(|answer| answer.0 == 200) {
                return Ok((node, watch.elapsed()));
            }
            let ended = node.ended()?;
            if ended.is_some() || watch.millis() > PATIENCE {
                let said = fs::read_to_string(&log).unwrap_or_default();
                anyhow::bail!("the node is not ready ({ended:?}); it said:\n{said}");
            }
            self.clock.sleep(Millis(1)).await;
        }
    }

    /// One request on a connection of its own: the status code and the body.
    fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let host = self.address;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let code = answer.split(' ').nth(1).and_then(|c| c.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
        Ok((code.context("the answer is not HTTP")?, body))
    }

    /// Milliseconds of `count` calls.
    fn times(
        count: usize,
        mut call: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<f64>> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let watch = Stopwatch::start();
            call()?;
            times.push(watch.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        Ok(times)
    }

    fn database(&self) -> PathBuf {
        self.dir.join("data/watchbell.db")
    }

    /// Waits until the node has written nothing for two seconds: its windows are computed.
    async fn settle(&self) -> anyhow::Result<()> {
        let store = Connection::open_with_flags(self.database(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut seen = (version(&store)?, self.clock.now());
        let give_up = self.clock.now() + PATIENCE;
        while self.clock.now() - seen.1 < Millis::from_secs(2) {
            anyhow::ensure!(self.clock.now() < give_up, "the node never becomes idle");
            self.clock.sleep(Millis(100)).await;
            let now = version(&store)?;
            if now != seen.0 {
                seen = (now, self.clock.now());
            }
        }
        Ok(())
    }
}

/// Changes with each commit of another connection.
fn version(store: &Connection) -> anyhow::Result<i64> {
    Ok(store.query_row("pragma data_version", [], |r| r.get(0))?)
}

/// A port that nobody listens on at this moment.
fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// System calls that read or write, and times that a thread of the process was woken.
#[derive(Debug, Clone, Copy)]
struct Activity {
    reads: u64,
    writes: u64,
    wakes: u64,
}

impl Activity {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(name));
            line.and_then(|l| l.trim_start_matches(':').trim().parse().ok()).unwrap_or(0_u64)
        };
        let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
        let mut wakes = 0;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
            wakes += field(&status, "voluntary_ctxt_switches");
        }
        Ok(Self { reads: field(&io, "syscr"), writes: field(&io, "syscw"), wakes })
    }
}

/// Some days of candles up to the last full window, so that no window ends while we watch.
async fn fill(path: &Path, days: usize, clock: &Clock) -> anyhow::Result<()> {
    let db = database(path, Synchronous::Normal, clock.now()).await?;
    let loader = Loader::start(&db, clock.now()).await?;
    let until = clock.now().floor(Millis::from_hours(3));
    let start: Time = until - Millis::from_days(days as i64);
    for symbol in DEFAULT_SYMBOLS {
        let name: Arc<str> = Arc::from(symbol);
        let rows: Vec<Kline> = Walk::new(symbol, 1, start).take(days * 1440).collect();
        for page in rows.chunks(PAGE) {
            loader.step(page_commit(&name, page, clock.now()), clock.now()).await?;
        }
    }
    loader.finish(clock.now()).await?;
    Ok(db.close().await?)
}

async fn measure(args: &Args) -> anyhow::Result<Table> {
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let clock = Clock::system();
    let bin = args.bin.canonicalize().with_context(|| {
        format!("there is no {}: build it with `cargo build --release`", args.bin.display())
    })?;
    let subject =
        Subject { bin, dir: dir.path().to_owned(), address: free_port()?, clock: clock.clone() };
    let venue = free_port()?;
    fs::create_dir(dir.path().join("data"))?;
    fs::write(
        dir.path().join("watchbell.yaml"),
        format!(
            "venue:\n  base_url: http://{venue}\n  alternates: []\n  ws_url: ws://{venue}\n\
             workers:\n  market-sync:\n    cron: \"0 0 1 1 *\"\n  market-sampler:\n    \
             cron: \"0 0 1 1 *\"\n"
        ),
    )?;
    progress("filling the store ...");
    fill(&subject.database(), args.days, &clock).await?;
    let simulator = Process::start(
        Command::new(&subject.bin)
            .args(["venue-sim", "--bind", &venue.to_string()])
            .current_dir(dir.path()),
        &dir.path().join("venue.log"),
    )?;
    progress("computing its windows ...");
    let (node, _) = subject.up().await?;
    subject.settle().await?;
    node.stop(&clock).await?;

    progress("starting ...");
    let mut starts = Vec::new();
    for _ in 0..args.repeat.min(10) {
        let (node, took) = subject.up().await?;
        starts.push(took.as_secs_f64() * 1e3);
        node.stop(&clock).await?;
    }
    starts.sort_by(f64::total_cmp);

    let (node, _) = subject.up().await?;
    subject.settle().await?;
    let store = Connection::open_with_flags(subject.database(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    progress(&format!("watching it idle for {} s ...", args.secs));
    let written = version(&store)?;
    let (usage, activity) = (Usage::of(node.id())?, Activity::of(node.id())?);
    let watch = Stopwatch::start();
    clock.sleep(Millis::from_secs(args.secs)).await;
    let (later, active, wall) = (Usage::of(node.id())?, Activity::of(node.id())?, watch.elapsed());
    let committed = version(&store)? != written;

    progress("asking for its status ...");
    let http = Subject::times(args.repeat, || {
        let (code, _) = subject.get("/api/v1/status")?;
        anyhow::ensure!(code == 200, "the status answered {code}");
        Ok(())
    })?;
    let ask = || {
        let output = subject.command(&["status", "--json"]).output()?;
        anyhow::ensure!(
            output.status.success(),
            "`status` failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    };
    let online = Subject::times(args.repeat, ask)?;
    let asked = Usage::of(node.id())?;
    node.stop(&clock).await?;
    let offline = Subject::times(args.repeat, ask)?;
    drop(simulator);

    let mut table = Table::new(
        format!(
            "idle: `watchbell up`, {} days of candles and windows of {} symbols in the store",
            args.days,
            DEFAULT_SYMBOLS.len()
        ),
        &["what", "measured", "worst", "aim"],
    );
    let ms = |v: f64| format!("{v:.1} ms");
    let pair = |times: &[f64]| (ms(percentile(times, 0.5)), ms(percentile(times, 1.0)));
    let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    table.row([&"resident memory, idle", &mib(later.rss_kib), &mib(later.peak_kib), &"< 40 MiB"]);
    table.row([&"the same after status calls", &mib(asked.rss_kib), &mib(asked.peak_kib), &""]);
    let share = 100.0 * later.cores_since(&usage, wall);
    table.row([&"processor, of one core", &format!("{share:.2} %"), &"", &"< 1 %"]);
    let per_second = |n: u64| format!("{:.1} /s", n as f64 / wall.as_secs_f64());
    table.row([&"commits to the store", &if committed { "some" } else { "0" }, &"", &"0"]);
    table.row([&"read system calls", &per_second(active.reads - activity.reads), &"", &"0"]);
    table.row([&"write system calls", &per_second(active.writes - activity.writes), &"", &"0"]);
    table.row([
        &"threads woken",
        &per_second(active.wakes.saturating_sub(activity.wakes)),
        &"",
        &"",
    ]);
    let (half, worst) = pair(&starts);
    table.row([&"start to ready", &half, &worst, &"< 150 ms"]);
    let (half, worst) = pair(&http);
    table.row([&"GET /api/v1/status", &half, &worst, &"< 50 ms"]);
    let (half, worst) = pair(&online);
    table.row([&"`status --json`, node running", &half, &worst, &"< 50 ms"]);
    let (half, worst) = pair(&offline);
    table.row([&"`status --json`, no node", &half, &worst, &"< 50 ms"]);
    table.note(format!(
        "watched for {} s; times are the middle of {} starts and {} calls, each call a process",
        args.secs,
        starts.len(),
        args.repeat
    ));
    table.note(machine());
    Ok(table)
}

fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    if args.quick {
        (args.secs, args.days, args.repeat) = (5, 1, 5);
    }
    let runtime = tokio::runtime::Runtime::new()?;
    Ok(runtime.block_on(measure(&args))?.print()?)
}
