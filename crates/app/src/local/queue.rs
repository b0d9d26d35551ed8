//! The queue: adding, changing and counting jobs, who consumes them, and why one waits.

use std::collections::BTreeSet;

use watchbell_api::{ControlError, JobDetail, QueueLine, Result};
use watchbell_core::gate::{Explanation, Gate, JobFacts, Verdict};
use watchbell_core::job::{self, State};
use watchbell_core::lifecycle::{Desired, State as Lifecycle};
use watchbell_core::port::{
    Enqueued, JobAction, JobChange, JobChanged, JobFilter, JobQuery, JobRecord, KindRecord,
    KindStats,
};
use watchbell_core::{Effects, Millis, NewJob, Time, Trigger, WorkerName};
use watchbell_engine::registration;

use super::{LocalControl, Picture, not_found};

/// Jobs that are counted for a limit; one that allows more is not looked into.
const COUNTED: u32 = 1_000;

/// Why nobody consumes anything.
pub(super) const NO_NODE: &str = "no node runs";

/// Who consumes a kind.
enum Consumer {
    /// This worker does, or would if it ran.
    Worker(WorkerName),
    /// Nobody does; who did last, and when that worker was registered.
    Nobody { last: Option<(WorkerName, Time)> },
}

/// Why nobody consumes a kind.
fn no_consumer(kind: &str, last: Option<(WorkerName, Time)>) -> Gate {
    Gate::NoConsumer { job_kind: kind.to_owned(), last }
}

impl LocalControl {
    pub(super) async fn add_jobs(&self, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>> {
        self.can_be_told()?;
        let kinds: BTreeSet<String> = jobs.iter().map(|j| j.kind.clone()).collect();
        if self.engine.is_none() {
            self.register_consumers(&kinds).await?;
        }
        let answers = self.store.enqueue(jobs, self.clock.now()).await?;
        if let Some(engine) = self.engine.as_ref().filter(|_| answers.iter().any(is_new)) {
            engine.wake(Effects { jobs: kinds, ..Effects::default() });
        }
        Ok(answers)
    }

    /// An installation whose node never ran, or ran an earlier version, does not know all kinds.
    async fn register_consumers(&self, kinds: &BTreeSet<String>) -> Result<()> {
        let takes = |trigger: &Trigger| match trigger {
            Trigger::Queue(spec) => kinds.iter().any(|k| spec.kind(k).is_some()),
            _ => false,
        };
        let known: BTreeSet<String> =
            self.store.kinds().await?.into_iter().map(|k| k.kind.name).collect();
        if kinds.is_subset(&known) {
            return Ok(());
        }
        let consumers = self.units.values().filter(|u| takes(&u.def.trigger));
        let consumers: Vec<_> = consumers.map(|u| registration(&u.def)).collect();
        self.store.register(&consumers, self.clock.now()).await?;
        Ok(())
    }

    pub(super) async fn change(&self, change: JobChange) -> Result<JobChanged> {
        if !change.preview {
            self.can_be_told()?;
        }
        let (action, kind) = (change.action, change.filter.kind.clone());
        let changed = self.store.change_jobs(change, self.clock.now()).await?;
        if let Some(engine) = self.engine.as_ref().filter(|_| changed.changed > 0) {
            let kinds = match kind {
                Some(kind) => [kind].into(),
                None => self.store.kinds().await?.into_iter().map(|k| k.kind.name).collect(),
            };
            engine.wake(match action {
                JobAction::Cancel => Effects { cancelled: kinds, ..Effects::default() },
                JobAction::RunNow | JobAction::Redrive => {
                    Effects { jobs: kinds, ..Effects::default() }
                }
                JobAction::Purge => Effects::default(),
            });
        }
        Ok(changed)
    }

    /// One line for each kind that is registered or has jobs.
    pub(super) async fn queue_lines(&self, picture: &Picture) -> Result<Vec<QueueLine>> {
        let (kinds, stats) = tokio::join!(self.store.kinds(), self.store.queue_stats(picture.now));
        let (kinds, mut stats) = (kinds?, stats?);
        for known in &kinds {
            stats.entry(known.kind.name.clone()).or_default();
        }
        let line = |(kind, stats): (String, KindStats)| {
            let known = kinds.iter().find(|k| k.kind.name == kind);
            let consumer = self.consumer(picture, &kind, known);
            let unconsumed = match &consumer {
                Consumer::Nobody { last } => Some(no_consumer(&kind, last.clone()).to_string()),
                Consumer::Worker(worker) => idle(picture, worker),
            };
            let worker = match consumer {
                Consumer::Worker(worker) => Some(worker),
                Consumer::Nobody { .. } => known.map(|k| k.worker.clone()),
            };
            QueueLine { kind, stats, worker, unconsumed }
        };
        Ok(stats.into_iter().map(line).collect())
    }

    /// Who consumes a kind: a worker of this configuration, or one that another node has
    /// registered since it started.
    fn consumer(&self, picture: &Picture, kind: &str, known: Option<&KindRecord>) -> Consumer {
        let takes = |trigger: &Trigger| match trigger {
            Trigger::Queue(spec) => spec.kind(kind).is_some(),
            _ => false,
        };
        let others = || {
            let is_other =
                |n: &&watchbell_core::port::NodeRecord| !n.overdue && !self.is_own(&n.session.id);
            picture.nodes.iter().filter(is_other)
        };
        let elsewhere = known.filter(|k| others().any(|n| n.session.opened_at <= k.registered_at));
        if let Some(unit) = self.units.values().find(|u| takes(&u.def.trigger)) {
            let name = &unit.def.name;
            // Where the profile of this node leaves it out, another node may have it.
            let idle = picture.views.get(name).is_some_and(|v| !v.active);
            return Consumer::Worker(match elsewhere.filter(|_| idle) {
                Some(known) => known.worker.clone(),
                None => name.clone(),
            });
        }
        match elsewhere {
            Some(known) => Consumer::Worker(known.worker.clone()),
            None => Consumer::Nobody { last: known.map(|k| (k.worker.clone(), k.registered_at)) },
        }
    }

    pub(super) async fn job_detail(&self, id: i64) -> Result<JobDetail> {
        let picture = self.picture().await?;
        let (record, attempts) = tokio::join!(self.store.job(id), self.store.attempts(id));
        let record = record?.ok_or_else(|| ControlError::not_found("job", id.to_string(), []))?;
        let explanation = self.explain_job(&picture, id).await?;
        let holds =
            |n: &&watchbell_core::port::NodeRecord| record.holder.as_ref() == Some(&n.session.id);
        Ok(JobDetail {
            holder: picture.nodes.iter().find(holds).cloned(),
            record,
            attempts: attempts?,
            explanation,
        })
    }

    /// Why a job does or does not run.
    pub(super) async fn of_job(&self, picture: &Picture, id: i64) -> Result<Explanation> {
        let job = self.store.job(id).await?;
        let job = job.ok_or_else(|| ControlError::not_found("job", id.to_string(), []))?;
        let known = self.store.kinds().await?.into_iter().find(|k| k.kind.name == job.kind);
        let consumer = self.consumer(picture, &job.kind, known.as_ref());
        let (worker, last_worker) = match consumer {
            Consumer::Worker(worker) => {
                let state = state(picture, &worker);
                (Some((worker, state)), None)
            }
            Consumer::Nobody { last } => (None, last),
        };
        let consumed = worker.is_some();
        let facts = JobFacts {
            id,
            kind: job.kind.clone(),
            state: job.state,
            attempts: job.attempts,
            error: job.error.clone(),
            run_at: job.run_at,
            running: None,
            worker,
            last_worker,
        };
        let since = match job.state {
            State::Running => job.started_at,
            State::Queued => Some(job.created_at),
            State::Succeeded | State::Failed | State::Cancelled => job.finished_at,
        };
        let mut explanation = Explanation::of_job(&facts, since, picture.now);
        let gates = &mut explanation.gates;
        match job.state {
            State::Queued if consumed && job.run_at <= picture.now => {
                if let Some(known) = &known {
                    let key = job.limit_key.as_deref();
                    gates.extend(self.limits(&known.kind, key, picture.now).await?);
                }
            }
            State::Running => gates.extend(held(&job)),
            State::Queued | State::Succeeded | State::Failed | State::Cancelled => {}
        }
        if explanation.verdict == Verdict::Runnable && !explanation.gates.is_empty() {
            explanation.verdict = Verdict::Waiting;
        }
        Ok(explanation)
    }

    /// Why jobs of a kind do or do not run. `None` for a kind that there is not.
    pub(super) async fn of_kind(
        &self,
        picture: &Picture,
        kind: &str,
    ) -> Result<Option<Explanation>> {
        let (kinds, stats) = tokio::join!(self.store.kinds(), self.store.queue_stats(picture.now));
        let known = kinds?.into_iter().find(|k| k.kind.name == kind);
        let stats = stats?.remove(kind);
        if known.is_none() && stats.is_none() {
            return Ok(None);
        }
        let stats = stats.unwrap_or_default();
        let count = |state| stats.counts.get(&state).copied().unwrap_or(0);
        let mut gates = Vec::new();
        match self.consumer(picture, kind, known.as_ref()) {
            Consumer::Nobody { last } => gates.push(no_consumer(kind, last)),
            Consumer::Worker(worker) => match state(picture, &worker) {
                Lifecycle::Running => {}
                state => gates.push(Gate::Dependency { worker, state }),
            },
        }
        if stats.due > 0 {
            if let Some(known) = &known {
                gates.extend(self.limits(&known.kind, None, picture.now).await?);
            }
        } else if let Some(until) = stats.next_due {
            gates.push(Gate::NotDue { until });
        } else if count(State::Queued) == 0 {
            gates.push(Gate::NothingQueued { kinds: vec![kind.to_owned()] });
        }
        let verdict = match (gates.is_empty(), count(State::Running)) {
            (_, 1..) => Verdict::Running,
            (true, _) => Verdict::Runnable,
            (false, _) => Verdict::Waiting,
        };
        let subject = format!("kind {kind}");
        Ok(Some(Explanation {
            subject,
            verdict,
            since: stats.oldest_due,
            gates,
            chain: Vec::new(),
            worker: None,
        }))
    }

    /// The name of a kind that an operator wrote.
    pub(super) async fn known_kind(&self, name: &str) -> Result<String> {
        let (kinds, stats) =
            tokio::join!(self.store.kinds(), self.store.queue_stats(self.clock.now()));
        let mut known: BTreeSet<String> = kinds?.into_iter().map(|k| k.kind.name).collect();
        known.extend(stats?.into_keys());
        if known.contains(name) {
            return Ok(name.to_owned());
        }
        Err(not_found("kind", name, known.iter().map(String::as_str)))
    }

    /// The limits of a kind that are reached.
    pub(super) async fn limits(
        &self,
        kind: &job::Kind,
        key: Option<&str>,
        now: Time,
    ) -> Result<Vec<Gate>> {
        let mut gates = Vec::new();
        let of = |state, limit_key: Option<&str>, limit| JobQuery {
            filter: JobFilter {
                kind: Some(kind.name.clone()),
                state: Some(state),
                limit_key: limit_key.map(str::to_owned),
                ..JobFilter::default()
            },
            before: None,
            limit,
        };
        let reached = |key: Option<&str>, most, per, until| Gate::Limit {
            job_kind: kind.name.clone(),
            key: key.map(str::to_owned),
            most,
            per,
            until,
        };
        if let Some(most) = kind.concurrency.filter(|n| *n <= COUNTED) {
            let running = self.store.jobs(of(State::Running, None, most)).await?;
            if running.len() as u64 >= u64::from(most) {
                gates.push(reached(None, most, None, None));
            }
        }
        if let Some((most, key)) = kind.per_key.filter(|n| *n <= COUNTED).zip(key) {
            let running = self.store.jobs(of(State::Running, Some(key), most)).await?;
            if running.len() as u64 >= u64::from(most) {
                gates.push(reached(Some(key), most, None, None));
            }
        }
        if let Some(rate) = kind.rate.filter(|r| (1..=COUNTED).contains(&r.count)) {
            // The newest that have begun, wherever they are now.
            let mut begun = Vec::new();
            for state in State::ALL {
                let jobs = self.store.jobs(of(state, None, rate.count)).await?;
                begun.extend(jobs.into_iter().filter_map(|j| j.started_at));
            }
            begun.sort_unstable();
            let nth = begun.len().checked_sub(rate.count as usize).map(|i| begun[i]);
            if nth.is_some_and(|first| now.since(first) < rate.per) {
                let step = Millis(rate.per.0 / i64::from(rate.count));
                let next = begun.last().map(|newest| *newest + step);
                let next = next.filter(|t| *t > now);
                gates.push(reached(None, rate.count, Some(rate.per), next));
            }
        }
        Ok(gates)
    }
}

const fn is_new(answer: &Enqueued) -> bool {
    matches!(answer, Enqueued::Added(_))
}

/// The state of a worker. One that this node does not know runs on another.
fn state(picture: &Picture, worker: &WorkerName) -> Lifecycle {
    picture.state(worker).unwrap_or(Lifecycle::Running)
}

/// Why a worker consumes nothing at present, if it does not.
fn idle(picture: &Picture, worker: &WorkerName) -> Option<String> {
    let record = picture.records.get(worker);
    if let Some(record) = record.filter(|r| r.desired != Desired::Running) {
        let word = if record.desired == Desired::Paused { "paused" } else { "stopped" };
        let by = record.desired_by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
        return Some(format!("its worker {worker} was {word}{by}"));
    }
    if !picture.any_node {
        return Some(NO_NODE.to_owned());
    }
    match state(picture, worker) {
        Lifecycle::Running => None,
        other => Some(format!("its worker {worker} is {other}")),
    }
}

/// Who works on a running job.
fn held(job: &JobRecord) -> Option<Gate> {
    let owner = job.holder.clone()?;
    Some(Gate::LeaseHeld { owner, until: job.lease_expires_at? })
}
