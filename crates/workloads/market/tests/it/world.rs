//! A small installation: a database, a simulated venue on the loopback, and the market's workers, run
//! one cycle at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use watchbell_clock::Clock;
use watchbell_core::gate::{Gate, WindowFacts, WorkerFacts, window_gates, worker_gates};
use watchbell_core::lifecycle::{self, Desired};
use watchbell_core::port::StoreError;
use watchbell_core::window::{self, InputFacts, InputWindow};
use watchbell_core::{
    BoxFuture, Cause, Commit, Condition, Cover, Cycle, CycleId, CycleInput, Done, EventRecord,
    Fault, Host, Millis, NewEvent, SeriesName, Statement, Time, Token, Trigger, Value,
    WindowHashes, WindowInput, WindowSpec, Worker, values,
};
use watchbell_db::{Database, Engine, Line};
use watchbell_market::{CallLog, Config, LINE, MARKET_SAMPLER, MARKET_SYNC, VENUE};
use watchbell_testkit::{NOW, TempDb, postgres_is_wanted};
use watchbell_venues::binance::wire::{Interval, Kline};
use watchbell_venues::binance::{self, BinanceClient, Observer};
use watchbell_venues::sim::{FaultScript, Limits, Market, SimConfig, Simulator};

use crate::mortal::Mortal;

pub(crate) const SYMBOLS: [&str; 3] = ["BTCUSDT", "ETHUSDT", "SOLUSDT"];
pub(crate) const MINUTE: Millis = Millis::from_mins(1);
/// The engines of the cases that run on each.
pub(crate) fn engines() -> impl Iterator<Item = Engine> {
    [Engine::Sqlite, Engine::Postgres]
        .into_iter()
        .filter(|engine| *engine == Engine::Sqlite || postgres_is_wanted())
}

/// The tables of the runtime, which views of the market read, and those of the market.
const LINES: [Line; 2] = [watchbell_store::LINE, LINE];
/// Until when a candle may still be revised: it is not fetched before.
const FINALITY: Millis = Millis::from_secs(2);
/// No timer that a test lets pass is armed for longer; the limits of requests are.
const LONGEST_WAIT: Millis = Millis::from_days(100);

/// What was published, and the engine as a worker sees it. Statements go to the database at once.
struct TestHost {
    db: Database,
    clock: Clock,
    seen: Mutex<Seen>,
    /// Steps that are taken before the process dies, where a test says so.
    steps_left: Mutex<Option<usize>>,
    committing: Arc<AtomicBool>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) covers: Vec<Cover>,
    pub(crate) events: Vec<NewEvent>,
    /// By name: the newest.
    pub(crate) conditions: BTreeMap<String, Condition>,
}

impl Seen {
    /// How many events of that kind there were about `key`.
    pub(crate) fn count(&self, kind: &str, key: &str) -> usize {
        self.events.iter().filter(|e| e.kind == kind && e.key == key).count()
    }

    /// Whether the covers of `key` together reach over all of `[from, to)`.
    pub(crate) fn covered(&self, key: &str, from: Time, to: Time) -> bool {
        let mut pieces: Vec<_> =
            self.covers.iter().filter(|c| c.key == key).map(|c| (c.from, c.to)).collect();
        pieces.sort_unstable();
        let reached =
            pieces.into_iter().fold(from, |at, (a, b)| if a <= at { at.max(b) } else { at });
        reached >= to
    }
}

impl Host for TestHost {
    fn now(&self) -> Time {
        self.clock.now()
    }
    fn cancelled(&self) -> bool {
        false
    }
    fn until_cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
    fn progress(&self, percent: f64, message: &str) {
        assert!((0.0..=100.0).contains(&percent), "{percent} %: {message}");
    }
    fn step(&self, commit: Commit) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            if let Some(left) = &mut *self.steps_left.lock().unwrap() {
                *left = left.checked_sub(1).ok_or_else(|| StoreError::Database("dead".into()))?;
            }
            self.committing.store(true, Ordering::Relaxed);
            let applied = self.db.apply(commit.statements).await;
            self.committing.store(false, Ordering::Relaxed);
            applied.map_err(|e| StoreError::Database(Box::new(e)))?;
            let mut seen = self.seen.lock().unwrap();
            seen.covers.extend(commit.covers);
            seen.events.extend(commit.events);
            let named = commit.conditions.into_iter().map(|c| (c.name.clone(), c));
            seen.conditions.extend(named);
            Ok(())
        })
    }
    fn stage(&self) -> Result<PathBuf, std::io::Error> {
        Err(std::io::Error::other("the market publishes no files"))
    }
}

pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) sim: Simulator,
    pub(crate) db: Database,
    host: Arc<TestHost>,
    workers: Vec<Arc<dyn Worker>>,
    /// Asks the same market without faults.
    truth: Simulator,
    _files: TempDb,
}

/// What a window came out as: its worker, its start, its fingerprints.
pub(crate) type Computed = (String, Time, WindowHashes);

impl World {
    /// An empty store that wants `history` before [`NOW`]; the newest closed minute ends at `NOW`.
    pub(crate) async fn new(history: Millis, faults: &str) -> Self {
        Self::with(&Config::default(), history, faults).await
    }

    pub(crate) async fn with(config: &Config, history: Millis, faults: &str) -> Self {
        Self::on(Engine::Sqlite, config, history, faults).await
    }

    pub(crate) async fn on(engine: Engine, config: &Config, history: Millis, faults: &str) -> Self {
        Self::of(Market::synthetic(7, &SYMBOLS), engine, config, history, faults).await
    }

    /// With a venue of another market of the same symbols.
    pub(crate) async fn of(
        market: Market,
        engine: Engine,
        config: &Config,
        history: Millis,
        faults: &str,
    ) -> Self {
        let clock = Clock::manual(NOW + FINALITY);
        let market = Arc::new(market);
        let sim = simulator(&clock, &market, faults).await;
        let truth = simulator(&clock, &market, "").await;
        let log = CallLog::default();
        let sink = log.clone();
        let client = client(&sim, &clock, Some(Arc::new(move |record| sink.note(record))));
        let files = match engine {
            Engine::Sqlite => TempDb::sqlite(&LINES).await,
            Engine::Postgres => TempDb::postgres(&LINES).await,
        };
        let db = files.db.clone();
        let symbols = SYMBOLS.map(str::to_owned);
        let from = NOW - history;
        watchbell_market::seed(&db, &symbols, &config.windows, from, NOW).await.unwrap();
        let host = Arc::new(TestHost {
            db: db.clone(),
            clock: clock.clone(),
            seen: Mutex::default(),
            steps_left: Mutex::default(),
            committing: Arc::default(),
        });
        let workers = watchbell_market::workers(config, &db, &client, log);
        Self { clock, sim, db, host, workers, truth, _files: files }
    }

    /// Another process on the same store: whatever the workers remembered is gone.
    pub(crate) fn restart(&mut self, config: &Config) {
        let log = CallLog::default();
        let sink = log.clone();
        let client =
            client(&self.sim, &self.clock, Some(Arc::new(move |record| sink.note(record))));
        self.workers = watchbell_market::workers(config, &self.db, &client, log);
    }

    /// Another process on the same store, whose venue lists these symbols.
    pub(crate) async fn restart_with_venue_of(&mut self, config: &Config, symbols: &[&str]) {
        let market = Arc::new(Market::synthetic(7, symbols));
        self.sim = simulator(&self.clock, &market, "").await;
        self.restart(config);
    }

    pub(crate) fn seen(&self) -> Seen {
        self.host.seen.lock().unwrap().clone()
    }

    /// The process dies when it takes one step more than these; `None` brings it back.
    pub(crate) fn dies_after(&self, steps: Option<usize>) {
        *self.host.steps_left.lock().unwrap() = steps;
    }

    pub(crate) fn venue(&self) -> Condition {
        self.seen().conditions[VENUE].clone()
    }

    pub(crate) fn set_faults(&self, script: &str) {
        self.sim.set_faults(script.parse::<FaultScript>().unwrap());
    }

    pub(crate) fn pass(&self, span: Millis) {
        self.clock.advance(self.clock.now() + span);
    }

    /// One cycle of the synchronisation.
    pub(crate) async fn sync(&self) -> Result<Done, Fault> {
        self.tick(MARKET_SYNC).await
    }

    /// One poll of the order books.
    pub(crate) async fn sample(&self) -> Result<Done, Fault> {
        self.tick(MARKET_SAMPLER).await
    }

    /// One job of `ingest-jobs`.
    pub(crate) async fn ingest_job(
        &self,
        kind: &str,
        payload: serde_json::Value,
    ) -> Result<Done, Fault> {
        self.job(watchbell_market::INGEST_JOBS, kind, payload).await
    }

    /// Why `explain` would say that a worker does not start now: the first of its gates.
    pub(crate) fn gate(&self, name: &str) -> Option<Gate> {
        let definition = self.worker(name).define();
        let conditions: Vec<Condition> = self.seen().conditions.into_values().collect();
        let facts = WorkerFacts {
            definition: &definition,
            node: true,
            state: lifecycle::State::Running,
            desired: Desired::Running,
            desired_by: None,
            desired_at: None,
            state_since: None,
            error: None,
            restart_at: None,
            storm_until: None,
            needs: Vec::new(),
            conditions: &conditions,
            running: None,
            lease: None,
            lane_holder: None,
            held_back: None,
            next: Vec::new(),
        };
        worker_gates(&facts, self.clock.now()).into_iter().next()
    }

    /// Why `explain` would say that a window is not computed now: the first of its gates.
    pub(crate) async fn window_gate(&self, length: Millis, start: Time) -> Option<Gate> {
        let worker = self.worker(&watchbell_market::series_name(length));
        let Trigger::Window(spec) = worker.define().trigger else { panic!("a window worker") };
        let scope = worker.scope(start).await.unwrap();
        let mut covers: BTreeMap<String, BTreeMap<String, Vec<Cover>>> = BTreeMap::new();
        for cover in self.seen().covers {
            let keys = covers.entry(cover.source.clone()).or_default();
            keys.entry(cover.key.clone()).or_default().push(cover);
        }
        let inputs = InputFacts {
            scope: &scope,
            covers: &covers,
            windows: &BTreeMap::new(),
            earlier: None,
            previous: None,
        };
        let facts = WindowFacts {
            spec: &spec,
            start,
            state: window::State::Open,
            attempts: 0,
            error: None,
            next_attempt_at: None,
            running: None,
            inputs,
        };
        window_gates(&facts, self.clock.now()).into_iter().next()
    }

    /// Polls once a second for `span`.
    pub(crate) async fn sample_for(&self, span: Millis) {
        let until = self.clock.now() + span;
        while self.clock.now() < until {
            self.sample().await.unwrap();
            self.pass(Millis::from_secs(1));
        }
    }

    /// Cycles half a minute apart until one succeeds and leaves nothing pending, with the promise
    /// checked after each: everything that the cursor has passed is stored or known to be missing.
    pub(crate) async fn settle(&self) -> u32 {
        for run in 1..=40 {
            let done = self.sync().await;
            self.assert_nothing_skipped().await;
            if done.is_ok() && self.gaps("pending").await == 0 {
                return run;
            }
            self.pass(Millis::from_secs(30));
        }
        panic!("40 runs did not settle; {:?}", self.venue());
    }

    async fn run(
        &self,
        worker: &Arc<dyn Worker>,
        cause: Cause,
        input: CycleInput,
    ) -> Result<Done, Fault> {
        let cycle = self.cycle(worker, cause, input);
        let done = drive(&self.clock, worker.run(&cycle)).await?;
        self.host.step(done.commit.clone()).await?;
        Ok(done)
    }

    /// The same, but the process is killed after so many steps. Whether it came to its end.
    async fn run_until_killed(
        &self,
        worker: &Arc<dyn Worker>,
        cause: Cause,
        input: CycleInput,
        steps: u64,
    ) -> bool {
        let run = Mortal::new(self.run(worker, cause, input), steps, &self.host.committing);
        run.await.is_some()
    }

    /// One cycle of a worker that ticks, in a process that is killed after so many steps.
    pub(crate) async fn tick_until_killed(&self, name: &str, steps: u64) -> bool {
        let cause = Cause::Tick { due: self.clock.now() };
        self.run_until_killed(self.worker(name), cause, CycleInput::None, steps).await
    }

    /// The one window of a series at `start`, in a process that is killed after so many steps.
    pub(crate) async fn window_until_killed(&self, series: &str, start: Time, steps: u64) -> bool {
        let worker = self.worker(series);
        let Trigger::Window(WindowSpec { length, .. }) = worker.define().trigger else {
            panic!("{series} has no windows");
        };
        let input = CycleInput::Scope(worker.scope(start).await.unwrap());
        let cause = Cause::Window { series: series.into(), start, end: start + length, version: 1 };
        self.run_until_killed(worker, cause, input, steps).await
    }

    fn cycle(&self, worker: &Arc<dyn Worker>, cause: Cause, input: CycleInput) -> Cycle {
        let host: Arc<dyn Host> = Arc::<TestHost>::clone(&self.host);
        Cycle {
            id: CycleId(1),
            worker: worker.define().name,
            cause,
            token: Token(1),
            attempt: 1,
            started_at: self.clock.now(),
            input,
            host,
        }
    }

    fn worker(&self, name: &str) -> &Arc<dyn Worker> {
        let found = self.workers.iter().find(|w| w.define().name.as_ref() == name);
        found.unwrap_or_else(|| panic!("no worker {name}"))
    }

    /// One cycle of a worker that ticks.
    pub(crate) async fn tick(&self, name: &str) -> Result<Done, Fault> {
        let cause = Cause::Tick { due: self.clock.now() };
        self.run(self.worker(name), cause, CycleInput::None).await
    }

    /// The same, but time passes only where the test lets it.
    pub(crate) async fn tick_by_the_clock(&self, name: &str) -> Result<Done, Fault> {
        let cause = Cause::Tick { due: self.clock.now() };
        let cycle = self.cycle(self.worker(name), cause, CycleInput::None);
        let done = self.worker(name).run(&cycle).await?;
        self.host.step(done.commit.clone()).await?;
        Ok(done)
    }

    /// One job of the worker `name`.
    pub(crate) async fn job(
        &self,
        name: &str,
        kind: &str,
        payload: serde_json::Value,
    ) -> Result<Done, Fault> {
        let input = CycleInput::Job { kind: kind.to_owned(), payload };
        self.run(self.worker(name), Cause::Job { id: 1 }, input).await
    }

    /// One event for the worker `name`.
    pub(crate) async fn event(&self, name: &str, event: EventRecord) -> Result<Done, Fault> {
        let cause = Cause::Event { id: event.id };
        self.run(self.worker(name), cause, CycleInput::Event(event)).await
    }

    /// The scope that a window of the series `name` has, asked for now.
    pub(crate) async fn scope(&self, name: &str, start: Time) -> Vec<String> {
        self.worker(name).scope(start).await.unwrap()
    }

    /// A window of the series `name`, computed and not published.
    pub(crate) async fn rehearse(&self, name: &str, length: Millis, start: Time) -> Done {
        let worker = self.worker(name);
        let cause = Cause::Window { series: name.into(), start, end: start + length, version: 1 };
        let cycle = self.cycle(worker, cause, CycleInput::Scope(self.scope(name, start).await));
        drive(&self.clock, worker.run(&cycle)).await.unwrap()
    }

    /// Runs each window of the sampler that ends by `until` and whose inputs are covered, in the
    /// order of their ends, the shorter first.
    pub(crate) async fn windows(&self, until: Time) -> Vec<(Computed, Done)> {
        self.series(until, |name| name.starts_with("window-sampler-")).await
    }

    /// The same for all series: at one end, each after those that it follows.
    pub(crate) async fn chain(&self, until: Time) -> Vec<(Computed, Done)> {
        self.series(until, |_| true).await
    }

    async fn series(&self, until: Time, which: impl Fn(&str) -> bool) -> Vec<(Computed, Done)> {
        let mut all = Vec::new();
        let mut next = Vec::new();
        for worker in &self.workers {
            let Trigger::Window(WindowSpec { series, length, .. }) = worker.define().trigger else {
                continue;
            };
            if which(series.as_str()) {
                let start = worker.first_window(Time(0)).await.unwrap();
                next.push((worker, series, length, start));
            }
        }
        loop {
            let ends = |start: Option<Time>, length| start.map_or(Time::FAR_FUTURE, |s| s + length);
            let first = next.iter_mut().min_by_key(|(_, _, length, start)| ends(*start, *length));
            let Some((worker, series, length, at)) = first else { break };
            let Some(start) = at.filter(|start| *start + *length <= until) else { break };
            let end = start + *length;
            let scope = worker.scope(start).await.unwrap();
            let seen = self.seen();
            if !scope.iter().all(|key| seen.covered(key, start, end)) {
                *at = None;
                continue;
            }
            let cause = Cause::Window { series: series.clone(), start, end, version: 1 };
            let done = self.run(worker, cause, CycleInput::Scope(scope)).await;
            let done = done.unwrap_or_else(|e| panic!("{series} at {start}: {e}"));
            let hashes = done.window.clone().expect("a window has hashes");
            all.push(((series.to_string(), start, hashes), done));
            *at = worker.first_window(end).await.unwrap();
        }
        all
    }

    /// Runs each window of all series that ends by `until`, one at a time and each as soon as its
    /// gates let it. Of those that may run, `pick` says which comes next: as many nodes as there are
    /// orders.
    pub(crate) async fn in_any_order(
        &self,
        until: Time,
        mut pick: impl FnMut(usize) -> usize,
    ) -> Vec<Computed> {
        let mut all = Vec::new();
        let mut done: BTreeMap<SeriesName, Vec<InputWindow>> = BTreeMap::new();
        loop {
            let mut ready = Vec::new();
            for worker in &self.workers {
                let Trigger::Window(spec) = worker.define().trigger else { continue };
                let previous = done.get(&spec.series).and_then(|own| own.last()).copied();
                let from = previous.map_or(Time::EPOCH, |p| p.end);
                let Some(start) = worker.first_window(from).await.unwrap() else { continue };
                let end = start + spec.length;
                let scope = worker.scope(start).await.unwrap();
                let seen = self.seen();
                if end > until || !scope.iter().all(|key| seen.covered(key, start, end)) {
                    continue;
                }
                let facts = InputFacts {
                    scope: &scope,
                    covers: &BTreeMap::new(),
                    windows: &done,
                    earlier: None,
                    previous: previous.map(|p| p.start),
                };
                let made_of =
                    spec.inputs.iter().filter(|i| !matches!(i, WindowInput::Cover { .. }));
                let spec = WindowSpec { inputs: made_of.cloned().collect(), ..spec };
                if window::readiness(&spec, start, &facts, self.clock.now()).is_ok() {
                    ready.push((worker, spec.series, start, end, scope));
                }
            }
            if ready.is_empty() {
                return all;
            }
            let (worker, series, start, end, scope) = ready.swap_remove(pick(ready.len()));
            let cause = Cause::Window { series: series.clone(), start, end, version: 1 };
            let run = self.run(worker, cause, CycleInput::Scope(scope)).await;
            let run = run.unwrap_or_else(|e| panic!("{series} at {start}: {e}"));
            all.push((series.to_string(), start, run.window.expect("a window has hashes")));
            let state = window::State::Complete;
            done.entry(series).or_default().push(InputWindow { start, end, state });
        }
    }

    /// The one window of `length` at `start`.
    pub(crate) async fn window(&self, length: Millis, start: Time) -> Result<Done, Fault> {
        self.version(&watchbell_market::series_name(length), start, 1).await
    }

    /// One version of a window of a series, whatever its inputs.
    pub(crate) async fn version(
        &self,
        series: &str,
        start: Time,
        version: i64,
    ) -> Result<Done, Fault> {
        let worker = self.worker(series);
        let Trigger::Window(WindowSpec { length, .. }) = worker.define().trigger else {
            panic!("{series} has no windows");
        };
        let scope = worker.scope(start).await.unwrap();
        let end = start + length;
        let cause = Cause::Window { series: series.into(), start, end, version };
        self.run(worker, cause, CycleInput::Scope(scope)).await
    }

    /// The first window of a series at or after `from`.
    pub(crate) async fn first_window(&self, series: &str, from: Time) -> Option<Time> {
        let worker = self.workers.iter().find(|w| w.define().name.as_ref() == series).unwrap();
        worker.first_window(from).await.unwrap()
    }

    pub(crate) async fn rows(&self, sql: &'static str) -> Vec<Vec<Value>> {
        let rows = self.db.query(sql, vec![]).await.unwrap();
        rows.iter().map(|r| r.values().to_vec()).collect()
    }

    pub(crate) async fn apply(&self, sql: &'static str, params: Vec<Value>) {
        self.db.apply(vec![Statement::new(sql, params)]).await.unwrap();
    }

    /// Takes published windows away, as nothing but a test can, so that they are computed again.
    pub(crate) async fn forget_windows(&self) {
        let mut forget = Vec::new();
        for table in ["windows", "window_stats", "window_vectors"] {
            match self.db.engine() {
                Engine::Sqlite => forget.extend(
                    ["update", "delete"]
                        .map(|verb| format!("drop trigger if exists str_aux.{table}_no_{verb}")),
                ),
                Engine::Postgres => {
                    forget.push(format!("drop trigger if exists {table}_stay on str_aux.{table}"));
                }
            }
            forget.push(format!("delete from str_aux.{table}"));
        }
        let forget = forget.into_iter().map(|sql| Statement::new(sql, Vec::new()));
        self.db.apply(forget.collect()).await.unwrap();
    }

    /// The stored candles of `symbol`, all columns.
    pub(crate) async fn stored(&self, symbol: &str) -> Vec<Vec<Value>> {
        let sql = "select open_time, close_time, open, high, low, close, volume, quote_volume,
                trades, taker_buy_base, taker_buy_quote
             from ingest.kline_raw where symbol = $1 and interval_label = '1m' order by open_time";
        let rows = self.db.query(sql, values![symbol]).await.unwrap();
        rows.iter().map(|r| r.values().to_vec()).collect()
    }

    /// What the venue has in `[from, to)`, asked without any fault and without this workload.
    pub(crate) async fn truth(&self, symbol: &str, from: Time, to: Time) -> Vec<Vec<Value>> {
        let client = client(&self.truth, &self.clock, None);
        let mut rows = Vec::new();
        let mut next = from;
        while next < to {
            let end = Some(to - Millis(1));
            let page = client.klines(symbol, Interval::M1, Some(next), end, 1_000);
            let page = drive(&self.clock, page).await.unwrap();
            let Some(last) = page.rows.last() else { break };
            next = last.open_time + MINUTE;
            rows.extend(page.rows.iter().map(columns));
        }
        rows
    }

    /// Asserts that each symbol's store is what the venue has in `[from, to)`, row for row.
    pub(crate) async fn assert_whole(&self, from: Time, to: Time) {
        for symbol in SYMBOLS {
            let (have, want) = (self.stored(symbol).await, self.truth(symbol, from, to).await);
            assert_eq!(want.len() as i64, (to - from) / MINUTE, "{symbol}: the venue has no hole");
            assert_eq!(have.len(), want.len(), "{symbol}: rows");
            assert!(have == want, "{symbol}: the rows differ");
        }
    }

    /// Asserts that no cursor has moved over a candle that is neither stored nor a known gap, and
    /// that covers claim nothing else either.
    pub(crate) async fn assert_nothing_skipped(&self) {
        let seen = self.seen();
        let holes = watchbell_market::holes(&self.db).await.unwrap();
        for c in watchbell_market::coverage(&self.db).await.unwrap() {
            let (Some(mut at), Some(until)) = (c.from, c.until) else { continue };
            let stored = self.stored(&c.symbol).await;
            let stored: BTreeSet<i64> = stored
                .iter()
                .filter_map(|r| if let Value::Int(at) = r[0] { Some(at) } else { None })
                .collect();
            while at < until {
                let gap = holes.iter().find(|h| h.symbol == c.symbol && h.from <= at && at < h.to);
                let here = stored.contains(&at.0);
                assert!(here || gap.is_some(), "{} at {at}: passed over, unknown", c.symbol);
                let known = here || gap.is_some_and(|g| g.state == "hole");
                let covered = seen.covered(&c.symbol, at, at + MINUTE);
                assert_eq!(covered, known, "{} at {at}: the cover", c.symbol);
                at += MINUTE;
            }
        }
    }

    pub(crate) async fn gaps(&self, state: &str) -> usize {
        let all = watchbell_market::holes(&self.db).await.unwrap();
        all.iter().filter(|h| h.state == state).count()
    }

    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        self.db.query_one(sql, Vec::new()).await.unwrap().i64(0).unwrap()
    }
}

fn columns(k: &Kline) -> Vec<Value> {
    values![
        k.open_time,
        k.close_time,
        k.open,
        k.high,
        k.low,
        k.close,
        k.volume,
        k.quote_volume,
        k.trades,
        k.taker_buy_base,
        k.taker_buy_quote,
    ]
}

async fn simulator(clock: &Clock, market: &Arc<Market>, faults: &str) -> Simulator {
    let config = SimConfig {
        bind: SocketAddr::from(([127, 0, 0, 1], 0)),
        market: Arc::clone(market),
        clock: clock.clone(),
        faults: faults.parse().unwrap(),
        limits: Limits::default(),
    };
    Simulator::start(config).await.unwrap()
}

/// The time limit of a request is beyond every timer that a test lets pass.
fn client(sim: &Simulator, clock: &Clock, observer: Option<Observer>) -> BinanceClient {
    let config = binance::Config {
        request_timeout: LONGEST_WAIT * 9,
        ..binance::Config::at(sim.base_url(), sim.ws_url())
    };
    BinanceClient::new(config, clock.clone(), observer).unwrap()
}

/// Runs `work` and lets each timer pass as soon as it is armed, but not the limits of requests.
async fn drive<T>(clock: &Clock, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            at = clock.next_timer(clock.now()) => {
                if at - clock.now() < LONGEST_WAIT {
                    clock.advance(at);
                } else {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}
