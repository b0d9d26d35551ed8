//! What the workers of a node share: the runs directory, who is watched by whom, and the end of
//! those whom nobody watches.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::process::Signal;
use watchbell_clock::Clock;
use watchbell_core::{Millis, Time, WorkerName};

use crate::proc::{self, Identity};
use crate::program::report;
use crate::reaper::{End, Reaped};
use crate::record::{Record, Runs};
use crate::watcher::Watcher;

/// How long an orphan may take to end after TERM, and after KILL.
const GRACE: Millis = Millis::from_secs(5);

/// A stream's program that may be taken over and is not within this time is ended: its worker may
/// be stopped, or may run on another node by now.
const ADOPT_WITHIN: Millis = Millis::from_secs(60);

/// The programs of a node.
#[derive(Debug)]
pub struct Programs {
    data_dir: PathBuf,
    pub(crate) clock: Clock,
    pub(crate) runs: Runs,
    pub(crate) watcher: Arc<Watcher>,
    me: OnceLock<Option<(Identity, String)>>,
    counter: AtomicU64,
    /// Runs that this process watches, or is about to start.
    live: Mutex<BTreeSet<String>>,
    /// Streams that take their programs over.
    adopters: Mutex<BTreeSet<WorkerName>>,
    /// Orphans that wait to be taken over, and since when.
    waiting: Mutex<BTreeMap<String, Time>>,
    /// Ends that the reaper has not told yet.
    reaped: Mutex<Vec<Reaped>>,
}

/// A run that this process watches; until it is dropped, no reaper touches it. Then its files go.
#[derive(Debug)]
pub(crate) struct Watched {
    programs: Arc<Programs>,
    pub(crate) run: String,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.programs.runs.remove(&self.run);
        lock(&self.programs.live).remove(&self.run);
    }
}

/// A path that means the same in every working directory.
pub(crate) fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Programs {
    /// Of the node that keeps its files in `data_dir`. Touches nothing yet.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, clock: Clock) -> Arc<Self> {
        let data_dir = absolute(data_dir.into());
        Arc::new(Self {
            runs: Runs::new(&data_dir),
            data_dir,
            clock,
            watcher: Arc::default(),
            me: OnceLock::new(),
            counter: AtomicU64::new(0),
            live: Mutex::default(),
            adopters: Mutex::default(),
            waiting: Mutex::default(),
            reaped: Mutex::default(),
        })
    }

    /// Why programs cannot be taken over on this system, nor found after the supervisor's death.
    #[must_use]
    pub fn unavailable(&self) -> Option<String> {
        self.me().is_none().then(|| {
            "unavailable: /proc does not tell the boot and the start time of processes here, so \
             programs whose supervisor died can be neither taken over nor ended"
                .to_owned()
        })
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Where the workers' logs are.
    pub(crate) fn logs(&self) -> PathBuf {
        self.data_dir.join("logs").join("workers")
    }

    /// This process, and the boot it runs in.
    pub(crate) fn me(&self) -> Option<&(Identity, String)> {
        let look = || {
            let pid = i32::try_from(std::process::id()).ok()?;
            Some((Identity::of(pid)?, proc::boot()?))
        };
        self.me.get_or_init(look).as_ref()
    }

    /// Notes that `worker` takes its programs over.
    pub(crate) fn adopts(&self, worker: &WorkerName) {
        lock(&self.adopters).insert(worker.clone());
    }

    /// Begins a new run of `worker`.
    pub(crate) fn begin(self: &Arc<Self>, worker: &WorkerName, now: Time) -> Watched {
        let n = self.counter.fetch_add(1, Ordering::Relaxed);
        // Unique over restarts and reboots, and sorted by worker, then time.
        let run = format!("{worker}.{:012x}.{}.{n}", now.0, std::process::id());
        self.watch(run)
    }

    /// Watches a run that exists.
    pub(crate) fn watch(self: &Arc<Self>, run: String) -> Watched {
        lock(&self.live).insert(run.clone());
        lock(&self.waiting).remove(&run);
        Watched { programs: Arc::clone(self), run }
    }

    /// Runs that nobody watches: their supervisor is gone.
    pub(crate) fn orphans(&self) -> io::Result<Vec<Record>> {
        let Some((me, boot)) = self.me() else { return Ok(Vec::new()) };
        let mut records = self.runs.all()?;
        records.retain(|r| {
            if lock(&self.live).contains(&r.run) {
                return false;
            }
            r.boot != *boot || r.supervisor == *me || !r.supervisor.is_alive()
        });
        Ok(records)
    }

    /// Ends what is left of an orphan, with TERM and then KILL, and removes its files. Whatever has
    /// its number by now and is another process is left alone.
    pub(crate) async fn end(&self, record: &Record, why: &str) {
        let this_boot = self.me().is_some_and(|(_, boot)| *boot == record.boot);
        let mut how = End::Gone;
        let mut processes = BTreeSet::new();
        if this_boot {
            for (signal, end) in [(Signal::TERM, End::Terminated), (Signal::KILL, End::Killed)] {
                let left = proc::members(record.leader, &record.run);
                if left.is_empty() {
                    break;
                }
                how = end;
                for (pid, handle) in &left {
                    processes.insert(*pid);
                    report(handle.signal(signal), &record.run);
                    report(handle.signal(Signal::CONT), &record.run);
                }
                let gone = async {
                    for (_, handle) in left {
                        if let Err(e) = handle.ended().await {
                            tracing::warn!("cannot wait for a process of {}: {e}", record.run);
                        }
                    }
                };
                if self.clock.timeout(GRACE, gone).await.is_err() && end == End::Killed {
                    how = End::Stuck;
                }
            }
        }
        if how == End::Stuck {
            tracing::error!(
                worker.name = %record.worker,
                "processes {processes:?} of {} ({}) do not end on KILL: they hang in the kernel, \
                 and the next look tries again",
                record.worker,
                record.command
            );
            return;
        }
        lock(&self.waiting).remove(&record.run);
        self.runs.remove(&record.run);
        if how == End::Gone {
            tracing::debug!("the program of run {} had ended by itself", record.run);
            return;
        }
        let reaped = Reaped {
            worker: record.worker.clone(),
            run: record.run.clone(),
            command: record.command.clone(),
            processes: processes.into_iter().collect(),
            started_at: record.at,
            end: how,
            why: why.to_owned(),
        };
        tracing::warn!(
            worker.name = %record.worker,
            "ended a program of {} that nobody watched ({}, processes {:?}, started {}) by {}: {why}",
            record.worker, reaped.command, reaped.processes, reaped.started_at, reaped.end.signal()
        );
        lock(&self.reaped).push(reaped);
    }

    /// Ends the orphans of a worker, before it starts a program itself.
    pub(crate) async fn end_orphans_of(&self, worker: &WorkerName) -> io::Result<()> {
        for record in self.orphans()?.into_iter().filter(|r| r.worker == *worker) {
            self.end(&record, "its supervisor died, and its worker runs again").await;
        }
        Ok(())
    }

    /// Finds and ends every orphan, but those that wait to be taken over, and tells what was ended
    /// since the last call.
    ///
    /// # Errors
    /// When the runs directory cannot be read.
    pub async fn sweep(&self, now: Time) -> io::Result<Vec<Reaped>> {
        for record in self.orphans()? {
            if self.may_be_taken_over(&record, now) {
                continue;
            }
            let why = if record.adopt {
                "its supervisor died, and its worker did not take it over"
            } else {
                "its supervisor died"
            };
            self.end(&record, why).await;
        }
        Ok(std::mem::take(&mut *lock(&self.reaped)))
    }

    /// Whether its worker may still come for it, or for what it said before it ended.
    fn may_be_taken_over(&self, record: &Record, now: Time) -> bool {
        if !record.adopt || !lock(&self.adopters).contains(&record.worker) {
            return false;
        }
        let since = *lock(&self.waiting).entry(record.run.clone()).or_insert(now);
        now - since < ADOPT_WITHIN
    }
}
