//! A host that remembers what it was asked, and cycles of scripts.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::sync::Notify;
use watchbell_clock::Clock;
use watchbell_core::port::StoreError;
use watchbell_core::{
    BoxFuture, Cause, Commit, Cycle, CycleId, CycleInput, Definition, Done, Fault, Host, Millis,
    Time, Token, Trigger, Worker,
};
use watchbell_exec::{ExecWorker, Programs, Spec};

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Millis = Millis::from_secs(20);

/// The engine's side of a cycle.
pub(crate) struct Desk {
    clock: Clock,
    dir: PathBuf,
    cancelled: AtomicBool,
    wake: Notify,
    pub(crate) progress: Mutex<Vec<(f64, String)>>,
    pub(crate) steps: Mutex<Vec<Commit>>,
    pub(crate) stepped: Notify,
    pub(crate) fail_steps: Mutex<Vec<StoreError>>,
    stages: Mutex<u32>,
}

impl Desk {
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.wake.notify_waiters();
    }

    /// Waits until `n` steps were published.
    pub(crate) async fn steps(&self, n: usize) -> Vec<Commit> {
        let published = async {
            loop {
                let stepped = self.stepped.notified();
                let steps = self.steps.lock().unwrap().clone();
                if steps.len() >= n {
                    return steps;
                }
                stepped.await;
            }
        };
        Clock::system().timeout(PATIENCE, published).await.expect("steps are published")
    }
}

impl Host for Desk {
    fn now(&self) -> Time {
        self.clock.now()
    }
    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }
    fn until_cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            loop {
                let wake = self.wake.notified();
                tokio::pin!(wake);
                wake.as_mut().enable();
                if self.cancelled() {
                    return;
                }
                wake.await;
            }
        })
    }
    fn progress(&self, percent: f64, message: &str) {
        self.progress.lock().unwrap().push((percent, message.to_owned()));
    }
    fn step(&self, commit: Commit) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            if let Some(error) = self.fail_steps.lock().unwrap().pop() {
                return Err(error);
            }
            self.steps.lock().unwrap().push(commit);
            self.stepped.notify_one();
            Ok(())
        })
    }
    fn stage(&self) -> Result<PathBuf, std::io::Error> {
        let mut stages = self.stages.lock().unwrap();
        *stages += 1;
        let dir = self.dir.join(format!("stage-{stages}"));
        std::fs::create_dir(&dir)?;
        Ok(dir)
    }
}

/// A data directory and a clock.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) clock: Clock,
    pub(crate) programs: Arc<Programs>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::at_speed(1.0)
    }

    /// With a clock that runs `speed` times as fast as the wall.
    pub(crate) fn at_speed(speed: f64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::scaled(Time(1_795_316_400_000), speed);
        let programs = Programs::new(dir.path(), clock.clone());
        Self { dir, clock, programs }
    }

    /// As the next supervisor sees the same files.
    pub(crate) fn restarted(&self) -> Arc<Programs> {
        Programs::new(self.dir.path(), self.clock.clone())
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn desk(&self) -> Arc<Desk> {
        self.desk_in(".")
    }

    /// With its stages in this directory.
    pub(crate) fn desk_in(&self, stages: &str) -> Arc<Desk> {
        let dir = self.dir.path().join(stages);
        std::fs::create_dir_all(&dir).unwrap();
        Arc::new(Desk {
            clock: self.clock.clone(),
            dir,
            cancelled: AtomicBool::new(false),
            wake: Notify::new(),
            progress: Mutex::default(),
            steps: Mutex::default(),
            stepped: Notify::new(),
            fail_steps: Mutex::default(),
            stages: Mutex::default(),
        })
    }

    /// A worker `w` that runs a shell line.
    pub(crate) fn worker(&self, trigger: Trigger, line: &str) -> ExecWorker {
        self.with(Definition::new("w", trigger), Spec::shell(line))
    }

    pub(crate) fn with(&self, definition: Definition, spec: Spec) -> ExecWorker {
        ExecWorker::new(definition, spec, Arc::clone(&self.programs))
    }

    pub(crate) fn cycle(&self, cause: Cause, input: CycleInput, desk: &Arc<Desk>) -> Cycle {
        Cycle {
            id: CycleId(12),
            worker: "w".into(),
            cause,
            token: Token(3),
            attempt: 1,
            started_at: self.clock.now(),
            input,
            host: Arc::clone(desk) as Arc<dyn Host>,
        }
    }

    /// Runs one cycle of a shell line, started by hand.
    pub(crate) async fn once(&self, line: &str) -> Result<Done, Fault> {
        let cycle = self.cycle(Cause::Manual, CycleInput::None, &self.desk());
        run(&self.worker(Trigger::Manual, line), &cycle).await
    }

    /// The worker's log without times.
    pub(crate) fn log(&self) -> Vec<String> {
        let path = self.dir.path().join("logs/workers/w.log");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|l| l.split_once(' ').map_or("", |(_, rest)| rest).to_owned()).collect()
    }

    /// Files of runs that are left.
    pub(crate) fn runs(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.dir.path().join("run")) else { return Vec::new() };
        entries.map(|e| e.unwrap().path()).collect()
    }

    /// Waits until a file has some text, and returns it.
    pub(crate) async fn text_of(&self, name: &str) -> String {
        let path = self.dir.path().join(name);
        wait_for(|| std::fs::read_to_string(&path).ok().filter(|t| t.ends_with('\n'))).await
    }
}

pub(crate) async fn run(worker: &ExecWorker, cycle: &Cycle) -> Result<Done, Fault> {
    let done = Clock::system().timeout(PATIENCE, worker.run(cycle)).await;
    done.expect("the program ends")
}

/// Asks until there is an answer. The bound is the wall's, for processes live by it.
pub(crate) async fn wait_for<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let answer = async {
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            Clock::system().sleep(Millis(2)).await;
        }
    };
    Clock::system().timeout(PATIENCE, answer).await.expect("it becomes true")
}

/// Whether a process runs (one that has ended and was not collected does not).
pub(crate) fn is_running(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|s| !s.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z')))
}

pub(crate) async fn gone(pid: i32) {
    wait_for(|| (!is_running(pid)).then_some(())).await;
}

/// A program of this test's own, killed at its end.
pub(crate) struct Own(pub(crate) std::process::Child);

impl Own {
    pub(crate) fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// Start, in ticks since boot.
    pub(crate) fn started(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
