//! The durable queue: `port::Queue` on the tables of migration 2.
//!
//! | file | what it does |
//! |---|---|
//! | `kinds` | what kinds there are, and whether a new job is one that its kind allows |
//! | `enqueue` | adds jobs |
//! | `claim` | leases due jobs; `limits` those of kinds that have limits |
//! | `finish` | ends, gives back and extends leases, and stores progress |
//! | `reclaim` | takes back what dead holders had |
//! | `change` | what an operator does to many jobs, and how old ones go |
//! | `read` | queries |
//!
//! A job is queued or running in `ops.jobs`, or has ended and is in `ops.job_history`. Its lease is
//! three columns of its row: holder, token, end. Whatever changes a running job proves that it
//! holds it, by `id`, `token`, session and an end of the lease that has not come.

mod change;
mod claim;
mod enqueue;
mod finish;
mod kinds;
mod limits;
mod read;
mod reclaim;
mod together;

use std::collections::BTreeMap;

use watchbell_core::port::{
    AttemptRecord, Enqueued, HeldJob, JobAction, JobBatch, JobChange, JobChanged, JobClaim, JobEnd,
    JobProgress, JobQuery, JobRecord, KindRecord, KindStats, Queue, Result,
};
use watchbell_core::{BoxFuture, Effects, Millis, NewJob, SessionId, Time, Token, WorkerName};
use watchbell_db::Database;

pub(crate) use self::change::prune;
pub(crate) use self::enqueue::insert;
pub(crate) use self::finish::{already, ending, prove};
pub(crate) use self::kinds::{Admitted, register_kinds};
pub(crate) use self::reclaim::{MARKED, take_back};
pub(crate) use self::together::Together;
use crate::SqlStore;

/// What one process knows about the queue, shared by the clones of its store: nothing that it could
/// not ask for again.
#[derive(Debug, Default)]
pub(crate) struct Known {
    kinds: kinds::Kinds,
    upkeep: claim::Upkeep,
    done: claim::Done,
}

/// A condition on a column: it is one of the numbers in the JSON list `$n`.
macro_rules! among {
    ($column:literal, $n:literal) => {
        concat!(
            $column,
            " in (/*sqlite*/ select value from json_each($",
            $n,
            ") /*end*/ /*pg*/ select cast(json_array_elements_text(cast($",
            $n,
            " as json)) as bigint) /*end*/)"
        )
    };
}
use among;

impl Known {
    /// Jobs were added: some may have come to stand before others.
    pub(crate) fn added(&self, jobs: &[Admitted]) {
        if jobs.iter().any(|job| job.priority > 0 || job.run_at.is_some()) {
            self.done.forget();
        }
    }

    /// Judges jobs before anything of them is written: all of them, or none.
    pub(crate) async fn admit(
        &self,
        db: &Database,
        jobs: Vec<NewJob>,
        now: Time,
    ) -> Result<Vec<Admitted>> {
        self.kinds.admit(db, jobs, now).await
    }
}

impl Queue for SqlStore {
    fn enqueue(&self, jobs: Vec<NewJob>, now: Time) -> BoxFuture<'_, Result<Vec<Enqueued>>> {
        Box::pin(async move {
            let mut effects = Effects::default();
            let admitted = self.known.admit(&self.db, jobs, now).await?;
            for job in &admitted {
                if !effects.jobs.contains(&*job.kind) {
                    effects.jobs.insert(job.kind.to_string());
                }
            }
            let answers = enqueue::enqueue(&self.db, &admitted, now).await?;
            self.known.added(&admitted);
            self.telling(effects, async { Ok(answers) }).await
        })
    }

    fn claim_jobs(&self, claim: JobClaim) -> BoxFuture<'_, Result<JobBatch>> {
        Box::pin(claim::claim(&self.db, &self.known, claim))
    }

    fn finish_jobs<'a>(
        &'a self,
        worker: &'a WorkerName,
        session: &'a SessionId,
        ends: Vec<JobEnd>,
        now: Time,
    ) -> BoxFuture<'a, Result<Vec<bool>>> {
        Box::pin(finish::finish(&self.db, worker, session, ends, now))
    }

    fn release_jobs<'a>(
        &'a self,
        session: &'a SessionId,
        jobs: Vec<(i64, Token)>,
        now: Time,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            finish::release(&self.db, session, jobs, now).await?;
            self.known.done.forget();
            Ok(())
        })
    }

    fn renew_jobs<'a>(
        &'a self,
        session: &'a SessionId,
        ttl: Millis,
        now: Time,
    ) -> BoxFuture<'a, Result<Vec<HeldJob>>> {
        Box::pin(finish::renew(&self.db, session, ttl, now))
    }

    fn progress_jobs(&self, progress: Vec<JobProgress>, now: Time) -> BoxFuture<'_, Result<()>> {
        Box::pin(finish::progress(&self.db, progress, now))
    }

    fn jobs(&self, query: JobQuery) -> BoxFuture<'_, Result<Vec<JobRecord>>> {
        Box::pin(read::jobs(&self.db, query))
    }

    fn job(&self, id: i64) -> BoxFuture<'_, Result<Option<JobRecord>>> {
        Box::pin(read::job(&self.db, id))
    }

    fn attempts(&self, id: i64) -> BoxFuture<'_, Result<Vec<AttemptRecord>>> {
        Box::pin(read::attempts(&self.db, id))
    }

    fn change_jobs(&self, change: JobChange, now: Time) -> BoxFuture<'_, Result<JobChanged>> {
        Box::pin(async move {
            let action = change.action;
            let (changed, kinds) = change::change(&self.db, change, now).await?;
            self.known.done.forget();
            let mut effects = Effects::default();
            match action {
                JobAction::Cancel => effects.cancelled = kinds,
                JobAction::RunNow | JobAction::Redrive => effects.jobs = kinds,
                JobAction::Purge => {}
            }
            self.telling(effects, async { Ok(changed) }).await
        })
    }

    fn kinds(&self) -> BoxFuture<'_, Result<Vec<KindRecord>>> {
        Box::pin(kinds::list(&self.db))
    }

    fn queue_stats(&self, now: Time) -> BoxFuture<'_, Result<BTreeMap<String, KindStats>>> {
        Box::pin(read::stats(&self.db, now))
    }
}
