//! The durable queue on PostgreSQL and on SQLite: enqueue, drain, pick-up, jobs due at once, jobs
//! that write a row in their commit, and the size of the tables; ours through the real engine,
//! beside a hand-written floor and peers, in one run on the same server.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use watchbell_bench::queue::floor_pg::{Drain, Finished};
use watchbell_bench::queue::ours::{Consumer, Engine, Site, Work};
use watchbell_bench::queue::peers::{PEERS, Peers};
use watchbell_bench::queue::server::Server;
use watchbell_bench::queue::{
    FLOOR_BATCH, Figures, Measure, PER_CALL, Reading, Sizes, Stamps, best, floor_lite, floor_pg,
    size,
};
use watchbell_bench::{Table, Usage, grouped, machine, median, progress};
use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::Millis;
use watchbell_db::Synchronous;

/// Measures the queue beside its floors and its peers.
#[derive(Debug, Parser)]
struct Args {
    /// A PostgreSQL server whose role may make databases; without it one is started and ended
    #[arg(long)]
    url: Option<String>,
    /// Folder with the peers' programs; without it they are left out
    #[arg(long, env = "PEERS")]
    peers: Option<PathBuf>,
    /// Only these tables
    #[arg(long, value_delimiter = ',', default_values_t = [Part::Postgres, Part::Sqlite, Part::Effects, Part::Size])]
    only: Vec<Part>,
    /// How often each measurement is taken, in turn; the tables show the middle one
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Jobs of a drain
    #[arg(long, default_value_t = 20_000)]
    drain: usize,
    /// Jobs of the long backlog; 0 leaves it out
    #[arg(long, default_value_t = 1_000_000)]
    backlog: usize,
    /// Jobs that pass through while the tables are watched
    #[arg(long, default_value_t = 1_000_000)]
    jobs: usize,
    /// Seconds that an idle node is watched; 0 leaves it out
    #[arg(long, default_value_t = 20)]
    idle: i64,
    /// Jobs that our worker runs at once
    #[arg(long, default_value_t = 64)]
    concurrency: u32,
    /// Jobs that it leases beyond those
    #[arg(long, default_value_t = 2_000)]
    prefetch: u32,
    /// Jobs with an effect that our worker runs at once
    #[arg(long, default_value_t = 256)]
    effect_concurrency: u32,
    /// Small numbers, once
    #[arg(long)]
    quick: bool,
}

/// A part of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The queue on PostgreSQL
    Postgres,
    /// The queue on SQLite
    Sqlite,
    /// Jobs that write a row in their commit
    Effects,
    /// The size of the tables
    Size,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
            Self::Effects => "effects",
            Self::Size => "size",
        })
    }
}

/// The run.
struct Bench {
    args: Args,
    sizes: Sizes,
    consumer: Consumer,
    clock: Clock,
    stamps: Stamps,
}

const COLUMNS: [&str; 9] = [
    "what",
    "bulk/s",
    "one by one/s",
    "64 callers/s",
    "drain/s",
    "drain of backlog/s",
    "pick-up p50/p99 ms",
    "due at once p50/p99 ms",
    "idle tx/s",
];

/// Our row is named so in every table.
const OURS: &str = "Watchbell";

fn show(table: &mut Table, figures: &Figures) {
    let cell = |measure| figures.cell(measure);
    let [a, b, c, d, e, f, g, h] = Measure::ALL.map(cell);
    table.row([&figures.name, &a, &b, &c, &d, &e, &f, &g, &h]);
}

fn show_ratio(table: &mut Table, name: &str, ours: &Figures, other: &Figures) {
    let [a, b, c, d, e, f, g, _] = Measure::ALL.map(|measure| ours.ratio(other, measure));
    table.row([&name, &a, &b, &c, &d, &e, &f, &g, &""]);
}

impl Bench {
    /// The sizes of a round: an idle node does the same in each, so it is watched in the first.
    fn sizes(&self, round: usize) -> Sizes {
        let idle = if round == 1 { self.sizes.idle } else { Millis::ZERO };
        Sizes { idle, ..self.sizes }
    }

    async fn ours(&self, engine: &Engine, server: Option<&Server>) -> anyhow::Result<Site> {
        let engine = match (engine, server) {
            (Engine::Server(_), Some(server)) => Engine::Server(server.fresh().await?),
            (engine, _) => engine.clone(),
        };
        let site = Site::open(&engine, self.stamps, &self.clock).await?;
        site.know_kind(Work::Nothing, self.consumer).await?;
        Ok(site)
    }

    /// Everything of ours once, each in a fresh store.
    async fn measure_ours(
        &self,
        engine: &Engine,
        server: Option<&Server>,
        sizes: &Sizes,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let consumer = self.consumer;
        let site = self.ours(engine, server).await?;
        let rate = site.one_by_one(sizes.one, 1).await?;
        figures.add(Measure::One, Reading::rate(rate));
        site.close().await?;

        let site = self.ours(engine, server).await?;
        figures.add(Measure::Callers, Reading::rate(site.callers(sizes.jobs).await?));
        site.close().await?;

        for (jobs, measure) in [(sizes.jobs, Measure::Drain), (sizes.backlog, Measure::Backlog)] {
            if jobs == 0 {
                continue;
            }
            let site = self.ours(engine, server).await?;
            let bulk = site.bulk(jobs).await?;
            if measure == Measure::Drain {
                figures.add(Measure::Bulk, Reading::rate(bulk));
            }
            if let Some(server) = server {
                server.settle().await?;
            }
            let rate = site.drain(jobs, Work::Nothing, consumer).await?;
            figures.add(measure, Reading::rate(rate));
            site.close().await?;
        }

        let site = self.ours(engine, server).await?;
        figures.add(Measure::PickUp, site.pick_up(sizes.pick_up, consumer).await?);
        if sizes.idle > Millis::ZERO {
            let rate = site
                .beside_idle(consumer, async || match server {
                    Some(server) => self.transactions(server).await,
                    None => {
                        let (before, watch) = (site.database().metrics().jobs, Stopwatch::start());
                        self.clock.sleep(sizes.idle).await;
                        let writes = site.database().metrics().jobs - before;
                        Ok(writes as f64 / watch.elapsed().as_secs_f64())
                    }
                })
                .await?;
            figures.add(Measure::Idle, Reading::rate(rate));
        }
        site.close().await?;

        let site = self.ours(engine, server).await?;
        figures.add(Measure::Due, site.due_at_once(sizes.due, consumer).await?);
        site.close().await
    }

    /// Transactions a second of the measured database while it is idle.
    async fn transactions(&self, server: &Server) -> anyhow::Result<f64> {
        let (before, watch) = (server.transactions().await?, Stopwatch::start());
        self.clock.sleep(self.sizes.idle).await;
        let after = server.transactions().await?;
        Ok((after - before) as f64 / watch.elapsed().as_secs_f64())
    }

    async fn floor_pg(&self, server: &Server) -> anyhow::Result<floor_pg::Floor> {
        floor_pg::Floor::new(&server.fresh().await?, self.stamps, &self.clock).await
    }

    /// Everything of the floor once: rows deleted, rows kept, and one at a time.
    async fn measure_floor_pg(
        &self,
        server: &Server,
        [deleted, kept, singly]: &mut [Figures; 3],
    ) -> anyhow::Result<()> {
        let sizes = &self.sizes;
        let floor = self.floor_pg(server).await?;
        deleted.add(Measure::One, Reading::rate(floor.one_by_one(sizes.one, 1).await?));
        let floor = self.floor_pg(server).await?;
        deleted.add(Measure::Callers, Reading::rate(floor.callers(sizes.jobs).await?));
        let ways = [
            (&mut *deleted, Drain::batches(Finished::Deleted)),
            (kept, Drain::batches(Finished::Kept)),
            (singly, Drain::singly()),
        ];
        for (n, (figures, drain)) in ways.into_iter().enumerate() {
            let lengths = [(sizes.jobs, Measure::Drain), (sizes.backlog, Measure::Backlog)];
            for (jobs, measure) in lengths {
                // A long backlog one at a time would take minutes and tell nothing new.
                if jobs == 0 || (measure == Measure::Backlog && n == 2) {
                    continue;
                }
                let floor = self.floor_pg(server).await?;
                let bulk = floor.bulk(jobs).await?;
                if measure == Measure::Drain && n == 0 {
                    figures.add(Measure::Bulk, Reading::rate(bulk));
                }
                server.settle().await?;
                figures.add(measure, Reading::rate(floor.drain(jobs, drain).await?));
            }
        }
        let floor = self.floor_pg(server).await?;
        deleted.add(Measure::PickUp, floor.pick_up(sizes.pick_up).await?);
        let floor = self.floor_pg(server).await?;
        deleted.add(Measure::Due, floor.due_at_once(sizes.due).await?);
        // What does not depend on the end of a row is the same for both.
        for measure in
            [Measure::Bulk, Measure::One, Measure::Callers, Measure::PickUp, Measure::Due]
        {
            kept.copy(measure, deleted);
        }
        Ok(())
    }

    async fn postgres(&self, server: &Server) -> anyhow::Result<Table> {
        let mut floors = [
            Figures::new(format!("floor: batches of {FLOOR_BATCH}, rows deleted")),
            Figures::new(format!("floor: batches of {FLOOR_BATCH}, rows kept")),
            Figures::new("floor: one at a time, 16 connections"),
        ];
        let mut ours = Figures::new(OURS);
        let mut theirs = PEERS.map(|peer| (peer, Figures::new(peer.name)));
        let mut notes = Vec::new();
        let log = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
        let dir = self.args.peers.clone().unwrap_or_default();
        let log_path = log.path().to_owned();
        let peers = Peers { dir, server, clock: self.clock.clone(), log: log_path };
        let engine = Engine::Server(String::new());
        let mut failed = Vec::new();
        for round in 1..=self.args.repeat {
            let say = |what: &str| progress(&format!("{round}/{} {what} ...", self.args.repeat));
            say("PostgreSQL: floor");
            self.measure_floor_pg(server, &mut floors).await?;
            say("PostgreSQL: ours");
            self.measure_ours(&engine, Some(server), &self.sizes(round), &mut ours).await?;
            for (peer, figures) in &mut theirs {
                if self.args.peers.is_none() || !peers.has(peer) || failed.contains(&peer.name) {
                    continue;
                }
                say(&format!("PostgreSQL: {}", peer.name));
                if let Err(error) = peers.measure(peer, &self.sizes(round), figures).await {
                    notes.push(format!("failed: {error:#}"));
                    failed.push(peer.name);
                }
            }
        }
        let mut table = Table::new(
            format!(
                "queue on {}: drains of {} jobs, backlog of {}",
                server.describe().await?,
                grouped(self.sizes.jobs as f64),
                grouped(self.sizes.backlog as f64)
            ),
            &COLUMNS,
        );
        floors.iter().for_each(|figures| show(&mut table, figures));
        show(&mut table, &ours);
        for (peer, figures) in &theirs {
            if self.args.peers.is_none() || !peers.has(peer) {
                table.row([&peer.name, &"not installed"]);
            } else {
                show(&mut table, figures);
            }
        }
        show_ratio(&mut table, "ours, times the floor with rows kept", &ours, &floors[1]);
        let best = best(theirs.iter().map(|(_, figures)| figures), "best peer");
        show_ratio(&mut table, "ours, times the best peer", &ours, &best);
        notes.into_iter().for_each(|note| table.note(note));
        self.common_notes(&mut table);
        Ok(table)
    }

    fn common_notes(&self, table: &mut Table) {
        table.note(format!(
            "ours: {} at once, {} leased ahead; finished jobs kept in the history; bulk: {} a call",
            self.consumer.concurrency,
            grouped(self.consumer.prefetch.into()),
            grouped(PER_CALL as f64)
        ));
        table.note(format!(
            "the middle of {}; ratios above 1 are in our favour, of times too; {}",
            self.args.repeat,
            machine()
        ));
    }

    async fn measure_floor_lite(
        &self,
        synchronous: Synchronous,
        [deleted, kept]: &mut [Figures; 2],
    ) -> anyhow::Result<()> {
        let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
        let mut made = 0;
        let mut floor = || {
            made += 1;
            let dir = dir.path().join(made.to_string());
            std::fs::create_dir(&dir)?;
            floor_lite::Floor::new(&dir, synchronous, self.stamps, &self.clock)
        };
        let sizes = &self.sizes;
        deleted.add(Measure::One, Reading::rate(floor()?.one_by_one(sizes.one)?));
        deleted.add(Measure::Callers, Reading::rate(floor()?.callers(sizes.jobs).await?));
        for (figures, keep) in [(&mut *deleted, false), (&mut *kept, true)] {
            let lengths = [(sizes.jobs, Measure::Drain), (sizes.backlog, Measure::Backlog)];
            for (jobs, measure) in lengths {
                if jobs == 0 {
                    continue;
                }
                let floor = floor()?;
                let bulk = floor.bulk(jobs)?;
                if measure == Measure::Drain && !keep {
                    figures.add(Measure::Bulk, Reading::rate(bulk));
                }
                figures.add(measure, Reading::rate(floor.drain(jobs, keep)?));
            }
        }
        deleted.add(Measure::PickUp, floor()?.pick_up(sizes.pick_up).await?);
        deleted.add(Measure::Due, floor()?.due_at_once(sizes.due).await?);
        for measure in
            [Measure::Bulk, Measure::One, Measure::Callers, Measure::PickUp, Measure::Due]
        {
            kept.copy(measure, deleted);
        }
        Ok(())
    }

    async fn sqlite(&self) -> anyhow::Result<Table> {
        let levels = [Synchronous::Full, Synchronous::Normal];
        let mut rows = levels.map(|level| {
            let named = |what: &str| Figures::new(format!("{what}, {}", level.as_str()));
            let deleted = format!("floor: batches of {FLOOR_BATCH}, rows deleted");
            let kept = format!("floor: batches of {FLOOR_BATCH}, rows kept");
            (level, [named(&deleted), named(&kept)], named(OURS))
        });
        for round in 1..=self.args.repeat {
            for (level, floors, ours) in &mut rows {
                let (all, level) = (self.args.repeat, *level);
                let name = level.as_str();
                progress(&format!("{round}/{all} SQLite, synchronous {name}: floor ..."));
                self.measure_floor_lite(level, floors).await?;
                progress(&format!("{round}/{all} SQLite, synchronous {name}: ours ..."));
                self.measure_ours(&Engine::File(level), None, &self.sizes(round), ours).await?;
            }
        }
        let mut table = Table::new(
            format!(
                "queue on SQLite {}, in one process: drains of {} jobs, backlog of {}",
                rusqlite::version(),
                grouped(self.sizes.jobs as f64),
                grouped(self.sizes.backlog as f64)
            ),
            &COLUMNS,
        );
        for (_, floors, ours) in &rows {
            floors.iter().for_each(|figures| show(&mut table, figures));
            show(&mut table, ours);
            show_ratio(&mut table, "ours, times the floor with rows kept", ours, &floors[1]);
        }
        table.note("idle tx/s: what the writer was asked to do; `idle` counts reads as well");
        self.common_notes(&mut table);
        Ok(table)
    }

    /// Jobs that write one row in their commit.
    async fn effects(&self, server: Option<&Server>) -> anyhow::Result<Table> {
        let jobs = self.sizes.jobs;
        let singly = jobs.min(5_000);
        let consumer = Consumer { concurrency: self.args.effect_concurrency, ..self.consumer };
        let mut table = Table::new(
            format!(
                "jobs that write one row in the commit that ends them, {} of them",
                grouped(jobs as f64)
            ),
            &["store", "what", "jobs/s"],
        );
        if let Some(server) = server {
            let mut rates = [const { Vec::new() }; 3];
            for round in 1..=self.args.repeat {
                progress(&format!("{round}/{} effects on PostgreSQL ...", self.args.repeat));
                for (n, connections, batch) in [(0, 16, 1), (1, 2, 64)] {
                    let floor = self.floor_pg(server).await?;
                    floor.bulk(jobs).await?;
                    server.settle().await?;
                    rates[n].push(floor.effects(jobs, connections, batch).await?);
                }
                let engine = Engine::Server(String::new());
                rates[2].push(self.our_effects(&engine, Some(server), jobs, consumer).await?);
            }
            self.effect_rows(&mut table, "PostgreSQL", "16 connections", &rates);
        }
        for synchronous in [Synchronous::Full, Synchronous::Normal] {
            let mut rates = [const { Vec::new() }; 3];
            let store = format!("SQLite, {}", synchronous.as_str());
            for round in 1..=self.args.repeat {
                progress(&format!("{round}/{} effects on {store} ...", self.args.repeat));
                for (n, jobs, batch) in [(0, singly, 1), (1, jobs, 64)] {
                    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
                    let floor =
                        floor_lite::Floor::new(dir.path(), synchronous, self.stamps, &self.clock)?;
                    floor.bulk(jobs)?;
                    rates[n].push(floor.effects(jobs, batch)?);
                }
                let engine = Engine::File(synchronous);
                rates[2].push(self.our_effects(&engine, None, jobs, consumer).await?);
            }
            self.effect_rows(&mut table, &store, "one connection", &rates);
        }
        table.note(format!(
            "ours: {} at once, one fenced transaction each, committed in groups; the middle of {}; {}",
            consumer.concurrency,
            self.args.repeat,
            machine()
        ));
        Ok(table)
    }

    fn effect_rows(&self, table: &mut Table, store: &str, by: &str, rates: &[Vec<f64>; 3]) {
        let [one, grouped_floor, ours] = rates.each_ref().map(|rates| median(rates));
        table.row([&store, &format!("floor: a commit each, {by}"), &grouped(one)]);
        table.row([&store, &"floor: 64 jobs a commit", &grouped(grouped_floor)]);
        table.row([&store, &OURS, &grouped(ours)]);
        let times = |floor: f64| format!("{:.2}", ours / floor);
        table.row([&store, &"ours, times a commit each", &times(one)]);
        table.row([&store, &"ours, times 64 a commit", &times(grouped_floor)]);
    }

    async fn our_effects(
        &self,
        engine: &Engine,
        server: Option<&Server>,
        jobs: usize,
        consumer: Consumer,
    ) -> anyhow::Result<f64> {
        let site = self.ours(engine, server).await?;
        site.bulk(jobs).await?;
        if let Some(server) = server {
            server.settle().await?;
        }
        let rate = site.drain(jobs, Work::OneRow, consumer).await?;
        site.close().await?;
        Ok(rate)
    }

    async fn run(&self) -> anyhow::Result<()> {
        let wants = |part: Part| self.args.only.contains(&part);
        let needs_server = wants(Part::Postgres) || wants(Part::Effects) || wants(Part::Size);
        let server = match (&self.args.url, needs_server) {
            (_, false) => None,
            (Some(url), true) => Some(Server::at(url)),
            (None, true) => Some(Server::start(&self.clock).await?),
        };
        if let (true, Some(server)) = (wants(Part::Postgres), &server) {
            self.postgres(server).await?.print()?;
        }
        if wants(Part::Sqlite) {
            self.sqlite().await?.print()?;
        }
        if wants(Part::Effects) {
            self.effects(server.as_ref()).await?.print()?;
        }
        if let (true, Some(server)) = (wants(Part::Size), &server) {
            size::table(server, self.args.jobs, self.consumer, self.stamps, &self.clock)
                .await?
                .print()?;
        }
        if let Some(server) = &server {
            server.clean().await?;
        }
        let usage = Usage::own()?;
        progress(&format!("most resident memory of this process: {} KiB", usage.peak_kib));
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    if args.quick {
        (args.repeat, args.backlog, args.jobs, args.idle) = (1, 50_000, 50_000, 5);
    }
    let clock = Clock::system();
    let bench = Bench {
        sizes: Sizes {
            jobs: args.drain,
            one: if args.quick { 1_000 } else { 5_000 },
            backlog: args.backlog,
            pick_up: if args.quick { 50 } else { 200 },
            due: 1_000,
            idle: Millis::from_secs(args.idle),
        },
        consumer: Consumer { concurrency: args.concurrency, prefetch: args.prefetch },
        stamps: Stamps::start(&clock),
        clock,
        args,
    };
    tokio::runtime::Runtime::new()?.block_on(bench.run())
}
