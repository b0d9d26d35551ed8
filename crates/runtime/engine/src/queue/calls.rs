//! What the consumer asks of the store, and what it makes of the answers. Each call is a task of
//! its own, so that claims, ends and computations overlap; of each sort one is under way at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::task::JoinError;
use watchbell_core::port::{
    FollowUp, HeldJob, JobBatch, JobClaim, JobEnd, JobFilter, JobProgress, JobQuery, Outcome,
    Result,
};
use watchbell_core::{Effects, Time, chain, job as core_job};

use super::job::{Ended, Held};
use super::{BATCH, CLAIM, Consumer, FIRST, GATHER, PROGRESS, Span, Waiting, soonest};
use crate::cycle::{Runner, STORE};
use crate::host::Asked;

/// What the consumer is told by its tasks.
pub(super) enum Told {
    Ended(Ended),
    /// The engine's own code panicked over this job.
    Broke(Held, String),
    Claimed {
        asked: Time,
        most: usize,
        result: Result<JobBatch>,
    },
    Finished {
        ends: Vec<JobEnd>,
        result: Result<Vec<bool>>,
    },
    Released {
        jobs: Vec<Held>,
        result: Result<()>,
    },
    Renewed {
        asked: Time,
        turn: u64,
        result: Result<Vec<HeldJob>>,
    },
    Recalled(Result<usize>),
    Progressed(Result<()>),
}

/// After so many tries in a row, one end that is alone in its batch goes without its words.
const STUBBORN: u32 = 12;

/// Sorts of calls, for the troubles that they meet.
#[derive(Clone, Copy)]
enum Call {
    Claim,
    Finish,
    Release,
    Renew,
}

impl Call {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "claim jobs",
            Self::Finish => "end jobs",
            Self::Release => "give jobs back",
            Self::Renew => "renew the leases of jobs",
        }
    }
}

impl Consumer {
    pub(super) fn hear(&mut self, told: std::result::Result<Told, JoinError>) {
        self.turn += 1;
        let now = self.runner.clock.now();
        match told {
            Ok(Told::Ended(ended)) => self.ended(ended),
            Ok(Told::Broke(held, panic)) => self.broke(held, &panic, now),
            Ok(Told::Claimed { asked, most, result }) => self.claimed(asked, most, result, now),
            Ok(Told::Finished { ends, result }) => self.finished(ends, result, now),
            Ok(Told::Released { jobs, result }) => self.released(jobs, result, now),
            Ok(Told::Renewed { asked, turn, result }) => self.renewed(asked, turn, result, now),
            Ok(Told::Recalled(result)) => self.recalled(result, now),
            Ok(Told::Progressed(Ok(()))) => {}
            Ok(Told::Progressed(Err(e))) => {
                // Worth nothing a second later: the next one says more.
                tracing::debug!("cannot store the progress of jobs: {}", chain(&e));
            }
            // A job that was aborted.
            Err(e) if e.is_cancelled() => {}
            Err(e) => tracing::error!("a call of the queue's consumer ended badly: {e}"),
        }
    }

    /// A call was not answered: when to try again.
    fn trouble(&mut self, call: Call, error: &watchbell_core::port::StoreError, now: Time) -> Time {
        let n = &mut self.troubles[call as usize];
        *n = n.saturating_add(1);
        let name = &self.unit.def.name;
        let seed = format!("{}/{name}/{}", self.runner.session, call.as_str());
        let pause = STORE.delay(*n, &seed);
        if n.is_power_of_two() {
            tracing::warn!(
                worker.name = %name,
                "{name} cannot {}, again in {pause}: {}", call.as_str(), chain(error)
            );
        }
        now + pause
    }

    fn answered(&mut self, call: Call) {
        self.troubles[call as usize] = 0;
    }

    // ---- claims ---------------------------------------------------------------------------

    /// Asks for jobs while there is room for them, and there may be some.
    pub(super) fn claim(&mut self, now: Time) {
        let over = self.claimed && self.span != Span::Endless;
        let held_back = self.claim_at.is_some_and(|at| at > now);
        if self.claiming || !self.hungry || over || held_back || self.is_draining() {
            return;
        }
        let whole = self.concurrency + self.prefetch;
        let room = whole.saturating_sub(self.running.len() + self.waiting.len());
        // While the store does not take ends, no more are made.
        let unsaid = self.ends.len() + self.finishing;
        let room = room.min((2 * whole + BATCH).saturating_sub(unsaid));
        if room == 0 || (!self.waiting.is_empty() && 2 * room < whole) {
            return;
        }
        // Half at a time, where some are leased ahead: one half runs while the other is claimed.
        let most = if self.prefetch == 0 { room } else { room.min(whole.div_ceil(2)) };
        self.stride = if self.held() == 0 { FIRST } else { (self.stride * 2).min(CLAIM) };
        let most = most.min(self.stride);
        self.claim_at = None;
        self.claiming = true;
        let runner = Arc::clone(&self.runner);
        if self.control.is_suspicious() {
            let worker = self.unit.def.name.clone();
            let known: BTreeSet<i64> = self.known().collect();
            self.tasks.spawn(async move {
                Told::Recalled(recall(&runner, worker.as_str(), &known, now).await)
            });
            return;
        }
        self.hungry = false;
        let claim = JobClaim {
            worker: self.unit.def.name.clone(),
            session: self.runner.session.clone(),
            kinds: self.names.clone(),
            most: u32::try_from(most).unwrap_or(u32::MAX),
            now,
            ttl: self.runner.options.lease_ttl,
        };
        self.tasks.spawn(async move {
            let said = runner.gauge.time(runner.store.claim_jobs(claim));
            Told::Claimed { asked: now, most, result: said.await }
        });
    }

    /// The numbers of all jobs that it knows to be held.
    fn known(&self) -> impl Iterator<Item = i64> {
        let waiting = self.waiting.iter().filter_map(|w| super::held(&w.grant));
        let running = self.running.keys().copied();
        let ends = self.ends.iter().map(|e| (e.id, e.token));
        let given = self.give_back.iter().copied();
        waiting.chain(running).chain(ends).chain(given).map(|(id, _)| id)
    }

    fn claimed(&mut self, asked: Time, most: usize, result: Result<JobBatch>, now: Time) {
        self.claiming = false;
        let batch = match result {
            Ok(batch) => batch,
            Err(error) => {
                // It may have been granted all the same, and the answer got lost.
                self.control.suspect();
                self.claim_at = Some(self.trouble(Call::Claim, &error, now));
                self.hungry = true;
                if self.span != Span::Endless {
                    self.claimed = true;
                    self.broken = Some(error);
                }
                return;
            }
        };
        self.answered(Call::Claim);
        self.claimed = true;
        let name = &self.unit.def.name;
        if batch.reclaimed > 0 {
            tracing::warn!(
                worker.name = %name,
                "{name} takes back {} jobs whose holders were not heard of any more",
                batch.reclaimed
            );
        }
        if batch.buried > 0 {
            tracing::error!(
                worker.name = %name,
                "{name}: {} jobs are given up, for their holders died over them too often: see \
                 `watchbell job list --state failed`", batch.buried
            );
        }
        let found = batch.grants.len();
        let known = self.turn;
        let leased_at = asked;
        for grant in batch.grants {
            let again = super::held(&grant).and_then(|held| self.running.get_mut(&held));
            match again {
                // The server lost the lease in a crash, and this is the same once more.
                Some(running) => running.leased_at = leased_at,
                None => self.waiting.push_back(Waiting { grant, leased_at, known }),
            }
        }
        if found > 0 {
            soonest(&mut self.renew_at, asked + self.runner.options.lease_renew);
        }
        if found >= most {
            self.hungry = true;
        } else {
            let floor = self.floor(found > 0, now);
            // The store's clock is not this one's, and a time that has passed by both is no
            // reason to ask at once again where nothing was found.
            let next = batch.next.map(|at| at - self.runner.skew());
            let next = next.map(|at| if at > now || found > 0 { at } else { now + self.poll });
            self.wake_at = [self.wake_at, floor, next].into_iter().flatten().min();
        }
    }

    fn recalled(&mut self, result: Result<usize>, now: Time) {
        self.claiming = false;
        match result {
            Ok(found) => {
                self.control.trust();
                if found > 0 {
                    tracing::warn!(
                        worker.name = %self.unit.def.name,
                        "{} gave {found} jobs back whose grant it had never heard of",
                        self.unit.def.name
                    );
                }
            }
            Err(error) => self.claim_at = Some(self.trouble(Call::Claim, &error, now)),
        }
    }

    // ---- ends -----------------------------------------------------------------------------

    /// Sends ends to the store, many in one transaction: as soon as there is nothing else to do,
    /// or there are many, or they have gathered for a moment.
    pub(super) fn finish(&mut self, now: Time) {
        let idle = self.running.is_empty() && self.waiting.is_empty();
        let troubled = self.troubles[Call::Finish as usize] > 0;
        let due = self.finish_at.is_none_or(|at| at <= now);
        let many = self.ends.len() >= self.batch || idle || self.is_draining();
        if self.finishing > 0 || self.ends.is_empty() || !(due || (many && !troubled)) {
            return;
        }
        let ends: Vec<_> = self.ends.drain(..self.batch.min(self.ends.len())).collect();
        self.finishing = ends.len();
        self.finish_at = Some(now + GATHER);
        let (runner, worker) = (Arc::clone(&self.runner), self.unit.def.name.clone());
        self.tasks.spawn(async move {
            let said = runner.store.finish_jobs(&worker, &runner.session, ends.clone(), now);
            let result = runner.gauge.time(said).await;
            Told::Finished { ends, result }
        });
    }

    fn finished(&mut self, ends: Vec<JobEnd>, result: Result<Vec<bool>>, now: Time) {
        self.finishing = 0;
        match result {
            Ok(taken) => {
                self.answered(Call::Finish);
                self.batch = (self.batch * 2).min(BATCH);
                let mut limited = false;
                for (end, taken) in ends.iter().zip(taken) {
                    if !taken {
                        let name = &self.unit.def.name;
                        tracing::warn!(
                            worker.name = %name, job.id = end.id,
                            "{name}: the end of job {} ({}) came too late and was refused: its \
                             lease was lost", end.id, end.outcome
                        );
                    }
                    limited |= matches!(end.follow_up, FollowUp::Again { at } if at <= now);
                }
                // What was given back, or kept away by a limit, may be there to claim.
                self.hungry |= limited || self.is_limited;
            }
            Err(error) => {
                self.finish_at = Some(self.trouble(Call::Finish, &error, now));
                // One that the store cannot take must not keep the others: fewer at a time, and in
                // another order.
                self.batch = (ends.len() / 2).max(1);
                let alone = ends.len() == 1 && self.troubles[Call::Finish as usize] >= STUBBORN;
                self.ends.extend(ends);
                if let Some(end) = self.ends.back_mut().filter(|_| alone) {
                    // Perhaps it is something in its words.
                    tracing::error!(
                        worker.name = %self.unit.def.name, job.id = end.id,
                        "the end of job {} cannot be stored; its result and error are left out: {}",
                        end.id, chain(&error)
                    );
                    end.result = serde_json::Value::Null;
                    end.error = end.error.as_ref().map(|_| "it could not be stored".to_owned());
                }
            }
        }
    }

    /// Gives leases back that are not needed.
    pub(super) fn release(&mut self, now: Time) {
        let held_back = self.release_at.is_some_and(|at| at > now);
        if self.releasing || self.give_back.is_empty() || held_back {
            return;
        }
        self.release_at = None;
        self.releasing = true;
        let jobs = std::mem::take(&mut self.give_back);
        let runner = Arc::clone(&self.runner);
        self.tasks.spawn(async move {
            let result = runner.store.release_jobs(&runner.session, jobs.clone(), now).await;
            Told::Released { jobs, result }
        });
    }

    fn released(&mut self, jobs: Vec<Held>, result: Result<()>, now: Time) {
        self.releasing = false;
        match result {
            Ok(()) => {
                self.answered(Call::Release);
                tracing::debug!(
                    worker.name = %self.unit.def.name,
                    "{} gave {} jobs back that it had not begun", self.unit.def.name, jobs.len()
                );
                self.effects.merge(Effects {
                    jobs: self.names.iter().cloned().collect(),
                    ..Effects::default()
                });
            }
            Err(error) => {
                self.release_at = Some(self.trouble(Call::Release, &error, now));
                self.give_back.extend(jobs);
            }
        }
    }

    // ---- leases ---------------------------------------------------------------------------

    pub(super) fn renew(&mut self, now: Time) {
        if self.renewing || self.renew_at.is_none_or(|at| at > now) {
            return;
        }
        self.renew_at = None;
        if self.held() == 0 {
            return; // nothing to keep: an idle consumer asks nothing
        }
        self.renewing = true;
        let (runner, turn) = (Arc::clone(&self.runner), self.turn);
        self.tasks.spawn(async move {
            let ttl = runner.options.lease_ttl;
            let said = runner.store.renew_jobs(&runner.session, ttl, now);
            let result = runner.gauge.time(said).await;
            Told::Renewed { asked: now, turn, result }
        });
    }

    fn renewed(&mut self, asked: Time, turn: u64, result: Result<Vec<HeldJob>>, now: Time) {
        self.renewing = false;
        let held = match result {
            Ok(held) => held,
            Err(error) => {
                let again = self.trouble(Call::Renew, &error, now);
                soonest(&mut self.renew_at, again);
                return;
            }
        };
        self.answered(Call::Renew);
        soonest(&mut self.renew_at, asked + self.runner.options.lease_renew);
        let kept: BTreeMap<Held, bool> =
            held.into_iter().map(|h| ((h.id, h.token), h.cancel)).collect();
        let name = &self.unit.def.name;
        let trust = self.runner.trust(asked);
        for (held, running) in &mut self.running {
            let signals = &running.assignment.signals;
            match kept.get(held) {
                Some(cancel) => {
                    running.leased_at = asked;
                    signals.trust(trust);
                    if *cancel && signals.asked() < Some(Asked::Cancelled) {
                        tracing::info!(
                            worker.name = %name, job.id = held.0,
                            "{name}: an operator cancels job {}: asked to stop", held.0
                        );
                        signals.ask(Asked::Cancelled);
                    }
                }
                // Its end may just have been taken, or it was granted after the question.
                None if signals.is_ending() || running.known > turn => {}
                None => {
                    if signals.asked() != Some(Asked::Lost) {
                        tracing::warn!(
                            worker.name = %name, job.id = held.0,
                            "{name} lost the lease of job {}: asked to stop", held.0
                        );
                        signals.ask(Asked::Lost);
                    }
                }
            }
        }
        let mut cancelled = Vec::new();
        let before = self.waiting.len();
        self.waiting.retain_mut(|waiting| {
            let Some(held) = super::held(&waiting.grant) else { return true };
            match kept.get(&held) {
                Some(true) => {
                    cancelled.push(held);
                    false
                }
                Some(false) => {
                    waiting.leased_at = asked;
                    true
                }
                None => waiting.known > turn,
            }
        });
        let lost = before - self.waiting.len() - cancelled.len();
        if lost > 0 {
            tracing::warn!(
                worker.name = %name,
                "{name} lost the leases of {lost} jobs that it had not begun"
            );
        }
        self.ends.extend(cancelled.into_iter().map(|(id, token)| JobEnd {
            id,
            token,
            outcome: Outcome::Cancelled,
            follow_up: FollowUp::Cancel { reason: "an operator cancelled it".into() },
            result: serde_json::Value::Null,
            error: None,
            started_at: now,
        }));
    }

    pub(super) fn store_progress(&mut self, now: Time) {
        self.progress_at = None;
        if self.running.is_empty() {
            return;
        }
        self.progress_at = Some(now + PROGRESS);
        let news: Vec<_> = self
            .running
            .iter()
            .filter_map(|(&(id, token), running)| {
                let (percent, message) = running.assignment.signals.new_progress()?;
                Some(JobProgress { id, token, percent, message })
            })
            .collect();
        if news.is_empty() {
            return;
        }
        let runner = Arc::clone(&self.runner);
        self.tasks
            .spawn(async move { Told::Progressed(runner.store.progress_jobs(news, now).await) });
    }
}

/// Gives jobs back that this session holds for `worker` and that nobody here knows of: the answer
/// to their claim got lost. They would be renewed with the others for as long as the node lives.
async fn recall(runner: &Runner, worker: &str, known: &BTreeSet<i64>, now: Time) -> Result<usize> {
    let held = runner.store.renew_jobs(&runner.session, runner.options.lease_ttl, now).await?;
    let strange: BTreeMap<i64, _> =
        held.iter().filter(|h| !known.contains(&h.id)).map(|h| (h.id, h.token)).collect();
    if strange.is_empty() {
        return Ok(0);
    }
    let query = JobQuery {
        filter: JobFilter {
            ids: strange.keys().copied().collect(),
            state: Some(core_job::State::Running),
            ..JobFilter::default()
        },
        before: None,
        limit: u32::try_from(strange.len()).unwrap_or(u32::MAX),
    };
    // Others are of another worker of this node, which knows them.
    let own: Vec<_> = runner
        .store
        .jobs(query)
        .await?
        .into_iter()
        .filter(|j| j.worker.as_ref().is_some_and(|w| w.as_str() == worker))
        .filter_map(|j| Some((j.id, *strange.get(&j.id)?)))
        .collect();
    let found = own.len();
    if found > 0 {
        runner.store.release_jobs(&runner.session, own, now).await?;
    }
    Ok(found)
}
