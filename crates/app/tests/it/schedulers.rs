//! Scenario (f) of section 11.5: two schedulers, and one leads. On virtual time, with the workers of
//! the market and one store: each window is computed by one node; the other says whom it waits for,
//! and takes over when the lease of a node that is gone has ended.
//!
//! A node has a runtime of its own here, as it has a process: when that is dropped, the node says no
//! goodbye.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::runtime::Runtime;
use watchbell_clock::Clock;
use watchbell_core::gate::Gate;
use watchbell_core::{
    BoxError, BoxFuture, Cause, Cycle, Definition, Done, Fault, Millis, SessionId, Time, Worker,
    WorkerName,
};
use watchbell_db::{Database, Line};
use watchbell_engine::{Handle, Node, Options};
use watchbell_market::{CallLog, Config, MARKET_SYNC};
use watchbell_store::SqlStore;
use watchbell_testkit::{NOW, TempDb, postgres_is_wanted, session, until};
use watchbell_venues::binance::{self, BinanceClient};
use watchbell_venues::sim::{FaultScript, Limits, Market, SimConfig, Simulator};

const LINES: [Line; 2] = [watchbell_store::LINE, watchbell_market::LINE];
const SYMBOLS: [&str; 3] = ["BTCUSDT", "ETHUSDT", "SOLUSDT"];
const HALF: Millis = Millis::from_mins(30);
const HOUR: Millis = Millis::from_hours(1);
/// No timer is armed for longer, but the limits of requests: real ones take no virtual time.
const LONGEST_WAIT: Millis = Millis::from_days(100);
/// A lease is given up long before a worker is asked to stop, and ...
const LEASE: Millis = Millis::from_mins(2);
const RENEW: Millis = Millis::from_secs(40);
/// ... time passes in many steps to a lease: none ends while its holder only waits for the server.
const STEP: Millis = Millis::from_secs(3);
/// How many sessions of the server do something for a node, or begin to.
const ASKED: &str = "select count(*) from pg_stat_activity where datname = current_database()
    and state is distinct from 'idle' and pid <> pg_backend_pid()";
/// The live window that its first node does not survive.
const HELD: &str = "window-sampler-30m";

fn config() -> Config {
    Config { windows: vec![HALF, HOUR], sampling: false, ..Config::default() }
}

/// The synchronisation, and every series of windows.
fn profile() -> BTreeSet<WorkerName> {
    let chains = [HALF, HOUR].into_iter().flat_map(watchbell_market::chain);
    chains.map(WorkerName::from).chain([WorkerName::from(MARKET_SYNC)]).collect()
}

/// A window: its series and its start.
type Window = (String, Time);

/// What all nodes write down.
#[derive(Debug, Default)]
struct Journal {
    /// Who computed which window.
    computed: Mutex<Vec<(&'static str, Window)>>,
    /// A window that is computed once and never handed over.
    hold: Mutex<Option<Window>>,
    /// Who has computed it.
    holds: Mutex<Option<&'static str>>,
}

/// A worker of the market that is watched.
struct Watched {
    inner: Arc<dyn Worker>,
    node: &'static str,
    journal: Arc<Journal>,
}

impl Worker for Watched {
    fn define(&self) -> Definition {
        self.inner.define()
    }
    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(async move {
            let done = self.inner.run(cycle).await?;
            if let Cause::Window { series, start, .. } = &cycle.cause {
                let window = (series.to_string(), *start);
                self.journal.computed.lock().unwrap().push((self.node, window.clone()));
                let held = self.journal.hold.lock().unwrap().take_if(|held| *held == window);
                if held.is_some() {
                    *self.journal.holds.lock().unwrap() = Some(self.node);
                    return std::future::pending().await;
                }
            }
            Ok(done)
        })
    }
    fn scope<'a>(&'a self, start: Time) -> BoxFuture<'a, Result<Vec<String>, BoxError>> {
        self.inner.scope(start)
    }
    fn first_window<'a>(&'a self, from: Time) -> BoxFuture<'a, Result<Option<Time>, BoxError>> {
        self.inner.first_window(from)
    }
}

/// A node on a runtime of its own.
struct Scheduler {
    name: &'static str,
    handle: Handle,
    node: Option<Node>,
    runtime: Option<Runtime>,
}

impl Scheduler {
    fn turns(&self) -> u64 {
        self.runtime.as_ref().unwrap().metrics().worker_park_unpark_count(0)
    }
}

impl Drop for Scheduler {
    /// Everything of the node is gone in the midst of whatever it did.
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// A store, a venue, a clock, and the nodes that share them.
struct World {
    clock: Clock,
    sim: Simulator,
    temp: TempDb,
    journal: Arc<Journal>,
    nodes: Vec<Scheduler>,
}

impl World {
    async fn new() -> Self {
        let temp = TempDb::postgres(&LINES).await;
        // A candle is final two seconds after its end.
        let clock = Clock::manual(NOW + Millis::from_secs(2));
        let sim = SimConfig {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            market: Arc::new(Market::synthetic(7, &SYMBOLS)),
            clock: clock.clone(),
            faults: FaultScript::default(),
            limits: Limits::default(),
        };
        let sim = Simulator::start(sim).await.unwrap();
        let symbols = SYMBOLS.map(str::to_owned);
        let from = NOW - HOUR * 2;
        watchbell_market::seed(&temp.db, &symbols, &config().windows, from, NOW).await.unwrap();
        Self { clock, sim, temp, journal: Arc::default(), nodes: Vec::new() }
    }

    /// Starts a node.
    async fn boot(&mut self, name: &'static str) {
        let (clock, journal) = (self.clock.clone(), Arc::clone(&self.journal));
        let venue = binance::Config {
            request_timeout: LONGEST_WAIT,
            ..binance::Config::at(self.sim.base_url(), self.sim.ws_url())
        };
        let mut options = Options::new(&self.temp.dir().join(name));
        options.profile = Some(profile());
        options.exclusive = false;
        options.lease_ttl = LEASE;
        options.lease_renew = RENEW;
        let server = self.temp.server().unwrap().clone();
        let start = async move {
            let db = Database::connect(&server).await.unwrap();
            let client = BinanceClient::new(venue, clock.clone(), None).unwrap();
            let workers = watchbell_market::workers(&config(), &db, &client, CallLog::default());
            let watched = workers.into_iter().map(|inner| {
                let journal = Arc::clone(&journal);
                let worker: Arc<dyn Worker> = Arc::new(Watched { inner, node: name, journal });
                (worker.define(), worker)
            });
            let store = Arc::new(SqlStore::listening(db, &clock));
            let boot = session(name, clock.now());
            Node::start(store, clock, boot, watched.collect(), options).await.unwrap()
        };
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let node = runtime.spawn(start).await.unwrap();
        let handle = node.handle();
        let (node, runtime) = (Some(node), Some(runtime));
        self.nodes.push(Scheduler { name, handle, node, runtime });
    }

    /// Waits until only the clock can make something happen.
    async fn quiet(&self) {
        until("the nodes wait for the clock", async || self.stirring().await, Vec::is_empty).await;
    }

    /// What is under way: cycles but the one that is held, calls of the store and other questions to
    /// the server, nodes that have something to do.
    async fn stirring(&self) -> Vec<String> {
        let mut found = Vec::new();
        for node in &self.nodes {
            let holds = *self.journal.holds.lock().unwrap() == Some(node.name);
            let views = node.handle.view().await.into_iter();
            let ours = views.filter(|v| !holds || v.worker.as_ref() != HELD);
            let runs = ours.filter(|v| !v.running.is_empty());
            found.extend(runs.map(|v| format!("{} runs {}", node.name, v.worker)));
        }
        // Whoever is told something between the two looks wakes.
        let asks = self.count(ASKED).await;
        let first: Vec<u64> = self.nodes.iter().map(Scheduler::turns).collect();
        if asks + self.count(ASKED).await > 0 {
            found.push("the server is asked".to_owned());
        }
        for (node, first) in self.nodes.iter().zip(first) {
            // It goes up when the thread falls asleep, and when it wakes: odd while it sleeps.
            let calls = node.handle.store().under_way;
            if calls > 0 || first % 2 == 0 || node.turns() != first {
                found.push(format!("{} is awake, {calls} calls under way", node.name));
            }
        }
        found
    }

    /// Lets time pass until the fact holds.
    async fn pass_until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let started = self.clock.now();
        self.quiet().await;
        while !holds().await {
            assert!(self.clock.now() < started + HOUR * 2, "two hours passed, and not: {what}");
            self.clock.advance(self.clock.now() + STEP);
            self.quiet().await;
        }
    }

    /// Lets time pass until both lengths are complete to `end`, to the last of what follows from them.
    async fn pass_to(&self, end: Time) {
        self.pass_until("all windows are complete", async || {
            let complete = self.complete().await;
            [HALF, HOUR].into_iter().all(|length| {
                let series = watchbell_market::chain(length);
                series
                    .iter()
                    .all(|s| complete.contains_key(&(s.clone(), end.floor(length) - length)))
            })
        })
        .await;
    }

    /// What each complete window came out as.
    async fn complete(&self) -> BTreeMap<Window, [String; 2]> {
        let sql = "select series, start_at, inputs_hash, result_hash from ops.windows
                   where state = 'complete'";
        let rows = self.temp.db.query(sql, Vec::new()).await.unwrap();
        let read = |i: usize| {
            let row = &rows[i];
            let text = |column| row.text(column).unwrap().to_owned();
            ((text(0), row.time(1).unwrap()), [text(2), text(3)])
        };
        (0..rows.len()).map(read).collect()
    }

    async fn count(&self, sql: &'static str) -> i64 {
        self.temp.db.query_one(sql, Vec::new()).await.unwrap().i64(0).unwrap()
    }

    fn computed(&self) -> Vec<(&'static str, Window)> {
        self.journal.computed.lock().unwrap().clone()
    }

    /// Whom that node waits for with the worker of the held window.
    async fn waits_for(&self, name: &str) -> Option<Gate> {
        let node = self.nodes.iter().find(|n| n.name == name).unwrap();
        let views = node.handle.view().await;
        views.into_iter().find(|v| v.worker.as_ref() == HELD).unwrap().gate
    }

    async fn end(mut self) {
        for mut scheduler in self.nodes.drain(..) {
            let (node, runtime) = (scheduler.node.take().unwrap(), &scheduler.runtime);
            let ending =
                runtime.as_ref().unwrap().spawn(async move { node.shutdown("over").await });
            ending.await.unwrap().unwrap();
        }
    }
}

/// What one node makes of it.
async fn alone() -> BTreeMap<Window, [String; 2]> {
    let mut w = World::new().await;
    w.boot("alone").await;
    w.pass_to(NOW + HOUR).await;
    let windows = w.complete().await;
    w.end().await;
    windows
}

#[tokio::test]
async fn of_two_schedulers_one_leads_and_the_other_takes_over() {
    if !postgres_is_wanted() {
        return;
    }
    let want = alone().await;
    // Six half hours and three hours, and three series that follow from each.
    assert_eq!(want.len(), (6 + 3) * 4, "{:?}", want.keys());
    let mut w = World::new().await;
    w.boot("anna").await;
    w.boot("ben").await;
    w.pass_to(NOW).await;
    assert_eq!(w.computed().len(), (4 + 2) * 4, "what was missed, once: {:?}", w.computed());

    // The live window. One node computes it, and the other says whom it waits for, for as long as
    // the first one lives: longer than its lease.
    let held = (HELD.to_owned(), NOW);
    *w.journal.hold.lock().unwrap() = Some(held.clone());
    let holder = async || w.journal.holds.lock().unwrap().is_some();
    w.pass_until("the live window is computed", holder).await;
    let leader = w.journal.holds.lock().unwrap().unwrap();
    let other = if leader == "anna" { "ben" } else { "anna" };
    let since = w.clock.now();
    let still = async || match w.waits_for(other).await {
        Some(Gate::LeaseHeld { owner, .. }) => {
            assert_eq!(owner, SessionId::from(leader));
            w.clock.now() >= since + LEASE + RENEW
        }
        _ => false,
    };
    w.pass_until("the other one waits, also when the first lease is over", still).await;
    let times = |w: &World| w.computed().iter().filter(|(_, window)| *window == held).count();
    assert_eq!(times(&w), 1);

    // Without a goodbye, its lease keeps the window from the other one for as long as it lasts.
    let killed_at = w.clock.now();
    w.nodes.retain(|node| node.name != leader);
    w.pass_until("the other one takes over", async || times(&w) == 2).await;
    let took = w.clock.now() - killed_at;
    assert!(took > RENEW && took < LEASE + RENEW, "it took {took}");
    assert!(w.complete().await.contains_key(&held));
    w.pass_to(NOW + HOUR).await;

    // No window is lost, none is there twice, and all are those of one node that had nobody.
    assert_eq!(w.complete().await, want);
    let all = want.len() as i64;
    assert_eq!(w.count("select count(*) from ops.windows").await, all);
    let published = "select count(*) from ops.events where kind = 'window.completed'";
    assert_eq!(w.count(published).await, all);
    let mut computed = BTreeMap::new();
    for (node, window) in w.computed() {
        computed.entry(window).or_insert_with(Vec::new).push(node);
    }
    assert_eq!(computed.remove(&held), Some(vec![leader, other]));
    assert!(computed.values().all(|nodes| nodes.len() == 1), "{computed:?}");
    assert_eq!(computed.len() as i64, all - 1);
    w.end().await;
}
