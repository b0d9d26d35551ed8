//! The queue against a model of it: any sequence of commands leaves the store and the model with
//! the same jobs and the same keys.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use serde_json::json;
use watchbell_core::job::{Kind, MAX_RECLAIMS, Mask, Rate, State};
use watchbell_core::port::{
    Enqueued, FollowUp, JobAction, JobChange, JobClaim, JobEnd, JobFilter, JobQuery, Outcome,
    Queue, Registration,
};
use watchbell_core::{Cause, Millis, NewJob, SessionId, Statement, Time, Token, values};
use watchbell_store::SqlStore;
use watchbell_testkit::registration;

use crate::{NOW, Rig};

const KINDS: [&str; 5] = ["plain", "other", "capped", "keyed", "rated"];
const BOOTS: [&str; 2] = ["one", "two"];
const LEASE: Millis = Millis::from_secs(10);
const CAP: usize = 3;
const RATE: Rate = Rate { count: 2, per: Millis::from_secs(3) };
const STEP: i64 = 1_500_000;
const CASES: u32 = 24;

/// What is done to the queue. Jobs are named by their place among those that are there.
#[derive(Debug, Clone)]
enum Command {
    Enqueue { kind: usize, priority: i32, delay: i64, key: Option<(u8, usize)>, limit: Option<u8> },
    Claim { kinds: usize, boot: usize, most: u32 },
    End { nth: usize, how: usize, delay: i64 },
    EndStale { nth: usize },
    Release { nth: usize },
    Renew { boot: usize },
    Change { action: usize, only: Option<usize> },
    Pass { millis: i64 },
}

fn command() -> impl Strategy<Value = Command> {
    use Command as C;
    let key = prop::option::weighted(0.4, (0..3_u8, 0..5_usize));
    let limit = prop::option::weighted(0.7, 0..3_u8);
    prop_oneof![
        6 => (0..5_usize, 0..3_i32, -2..7_i64, key, limit).prop_map(
            |(kind, priority, delay, key, limit)| C::Enqueue { kind, priority, delay, key, limit }
        ),
        6 => (0..6_usize, 0..2_usize, 1..5_u32)
            .prop_map(|(kinds, boot, most)| C::Claim { kinds, boot, most }),
        5 => (any::<usize>(), 0..5_usize, 0..9_i64)
            .prop_map(|(nth, how, delay)| C::End { nth, how, delay }),
        1 => any::<usize>().prop_map(|nth| C::EndStale { nth }),
        1 => any::<usize>().prop_map(|nth| C::Release { nth }),
        1 => (0..2_usize).prop_map(|boot| C::Renew { boot }),
        2 => (0..4_usize, prop::option::of(any::<usize>()))
            .prop_map(|(action, only)| C::Change { action, only }),
        3 => (1..16_000_i64).prop_map(|millis| C::Pass { millis }),
    ]
}

fn masks(n: usize) -> Mask {
    [
        Mask::QUEUED,
        Mask::LIVE,
        Mask::EVER,
        Mask::of(&[State::Succeeded]),
        Mask::of(&[State::Running, State::Failed]),
    ][n]
}

#[derive(Debug, Clone, PartialEq)]
struct Job {
    id: i64,
    kind: usize,
    state: State,
    priority: i32,
    run_at: Time,
    key: Option<(u8, Mask)>,
    limit: Option<u8>,
    attempts: u32,
    reclaims: u32,
    token: i64,
    boot: usize,
    until: Time,
    cancelled: bool,
}

#[derive(Debug, Default)]
struct Model {
    now: Time,
    jobs: BTreeMap<i64, Job>,
    keys: BTreeMap<(usize, u8), i64>,
    /// Instant in microseconds up to which the rate is used up.
    used: i64,
}

impl Model {
    /// A job comes to a state: its key follows.
    fn becomes(&mut self, id: i64, state: State) {
        let job = self.jobs.get_mut(&id).expect("a job of the model");
        job.state = state;
        if let Some((key, mask)) = job.key {
            let place = (job.kind, key);
            if mask.has(state) {
                self.keys.entry(place).or_insert(id);
            } else if self.keys.get(&place) == Some(&id) {
                self.keys.remove(&place);
            }
        }
    }

    /// A job comes back from a holder.
    fn comes_back(&mut self, id: i64) {
        self.becomes(id, State::Queued);
        if self.jobs[&id].cancelled {
            self.becomes(id, State::Cancelled);
        }
    }

    fn job(&mut self, id: i64) -> &mut Job {
        self.jobs.get_mut(&id).expect("a job of the model")
    }

    fn ids(&self, wanted: impl Fn(&Job) -> bool) -> Vec<i64> {
        self.jobs.values().filter(|j| wanted(j)).map(|j| j.id).collect()
    }

    fn reclaim(&mut self, kinds: &[usize]) -> (u32, u32) {
        let now = self.now;
        let over =
            self.ids(|j| kinds.contains(&j.kind) && j.state == State::Running && j.until <= now);
        let (mut queued, mut buried) = (0, 0);
        for id in over {
            let job = self.job(id);
            job.reclaims += 1;
            job.attempts -= 1;
            if job.reclaims >= MAX_RECLAIMS && !job.cancelled {
                buried += 1;
                self.becomes(id, State::Failed);
            } else {
                queued += 1;
                self.comes_back(id);
            }
        }
        (queued, buried)
    }

    fn may_start(&self, job: &Job) -> bool {
        let running = |other: &&Job| other.state == State::Running && other.kind == job.kind;
        match KINDS[job.kind] {
            "capped" => self.jobs.values().filter(running).count() < CAP,
            "keyed" => {
                job.limit.is_none()
                    || !self.jobs.values().filter(running).any(|other| other.limit == job.limit)
            }
            "rated" => {
                let now = self.now.0 * 1_000;
                now + i64::from(RATE.count) * STEP - self.used.max(now) >= STEP
            }
            _ => true,
        }
    }

    fn take(&mut self, kinds: &[usize], boot: usize, most: usize) -> Vec<i64> {
        let now = self.now;
        let mut due =
            self.ids(|j| kinds.contains(&j.kind) && j.state == State::Queued && j.run_at <= now);
        due.sort_by_key(|id| {
            let job = &self.jobs[id];
            (std::cmp::Reverse(job.priority), job.run_at, *id)
        });
        let mut taken = Vec::new();
        for id in due {
            if taken.len() < most && self.may_start(&self.jobs[&id]) {
                let job = self.job(id);
                (job.attempts, job.token) = (job.attempts + 1, job.token + 1);
                (job.boot, job.until) = (boot, now + LEASE);
                if KINDS[job.kind] == "rated" {
                    self.used = self.used.max(now.0 * 1_000) + STEP;
                }
                self.becomes(id, State::Running);
                taken.push(id);
            }
        }
        taken
    }
}

/// What a command did that the model does not expect.
type Verdict = Result<(), TestCaseError>;

struct Bench<'a> {
    rig: &'a Rig,
    /// One of its own: what it remembers of one sequence, at later times, is wrong in the next.
    store: SqlStore,
    model: Model,
}

impl Bench<'_> {
    async fn empty(&self) {
        let list = ["ops.jobs", "ops.job_history", "ops.job_attempts", "ops.job_keys"]
            .map(|table| Statement::new(format!("delete from {table}"), values![]));
        let rates = Statement::new("update ops.job_kinds set rate_used = 0", values![]);
        self.rig
            .db
            .apply(list.into_iter().chain([rates]).collect())
            .await
            .expect("nothing is left");
    }

    async fn run(&mut self, command: Command) -> Verdict {
        match command {
            Command::Enqueue { kind, priority, delay, key, limit } => {
                self.enqueue(kind, priority, delay, key, limit).await
            }
            Command::Claim { kinds, boot, most } => self.claim(kinds, boot, most).await,
            Command::End { nth, how, delay } => self.end(nth, how, delay).await,
            Command::EndStale { nth } => self.end_stale(nth).await,
            Command::Release { nth } => {
                let Some(job) = self.running(nth) else { return Ok(()) };
                let (boot, one) = (SessionId::from(BOOTS[job.boot]), (job.id, Token(job.token)));
                self.store.release_jobs(&boot, vec![one], self.model.now).await.unwrap();
                self.model.job(job.id).attempts -= 1;
                self.model.comes_back(job.id);
                Ok(())
            }
            Command::Renew { boot } => {
                let now = self.model.now;
                let held = self.store.renew_jobs(&BOOTS[boot].into(), LEASE, now).await.unwrap();
                let mine = self
                    .model
                    .ids(|j| j.state == State::Running && j.boot == boot && j.until > now);
                prop_assert_eq!(held.iter().map(|h| h.id).collect::<Vec<_>>(), &mine[..]);
                for (held, id) in held.iter().zip(mine) {
                    let job = self.model.job(id);
                    prop_assert_eq!((held.token.0, held.cancel), (job.token, job.cancelled));
                    job.until = now + LEASE;
                }
                Ok(())
            }
            Command::Change { action, only } => self.change(action, only).await,
            Command::Pass { millis } => {
                self.model.now += Millis(millis);
                Ok(())
            }
        }
    }

    async fn enqueue(
        &mut self,
        kind: usize,
        priority: i32,
        delay: i64,
        key: Option<(u8, usize)>,
        limit: Option<u8>,
    ) -> Verdict {
        let now = self.model.now;
        let key = key.map(|(key, mask)| (key, masks(mask)));
        let run_at = now + Millis::from_secs(delay);
        let new = NewJob {
            unique_key: key.map(|(key, _)| format!("key {key}")),
            unique_in: key.map_or_else(Mask::default, |(_, mask)| mask),
            limit_key: limit.map(|limit| format!("limit {limit}")),
            run_at: Some(run_at),
            priority: Some(priority),
            ..NewJob::new(KINDS[kind], json!(null))
        };
        let answer = self.store.enqueue(vec![new], now).await.unwrap()[0];
        let holder = key.and_then(|(key, _)| self.model.keys.get(&(kind, key)).copied());
        let id = match (answer, holder) {
            (Enqueued::Added(id), None) => id,
            (Enqueued::Duplicate(found), Some(_)) => {
                prop_assert_eq!(found, holder);
                return Ok(());
            }
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        let job = Job {
            id,
            kind,
            state: State::Queued,
            priority,
            run_at,
            key,
            limit,
            attempts: 0,
            reclaims: 0,
            token: 0,
            boot: 0,
            until: NOW,
            cancelled: false,
        };
        self.model.jobs.insert(id, job);
        self.model.becomes(id, State::Queued);
        Ok(())
    }

    /// Of one kind, or of the two without limits.
    async fn claim(&mut self, kinds: usize, boot: usize, most: u32) -> Verdict {
        let kinds = if kinds == KINDS.len() { vec![0, 1] } else { vec![kinds] };
        let claim = JobClaim {
            worker: "watch".into(),
            session: BOOTS[boot].into(),
            kinds: kinds.iter().map(|k| KINDS[*k].to_owned()).collect(),
            most,
            now: self.model.now,
            ttl: LEASE,
        };
        let batch = self.store.claim_jobs(claim).await.unwrap();
        let most = most as usize;
        let mut taken = self.model.take(&kinds, boot, most);
        let back = (batch.reclaimed, batch.buried);
        if taken.len() < most {
            prop_assert_eq!(back, self.model.reclaim(&kinds));
            taken.extend(self.model.take(&kinds, boot, most - taken.len()));
        } else if back != (0, 0) {
            prop_assert_eq!(back, self.model.reclaim(&kinds));
        }
        let model = &self.model;
        taken.sort_by_key(|id| {
            (std::cmp::Reverse(model.jobs[id].priority), model.jobs[id].run_at, *id)
        });
        let granted = batch.grants.iter().map(|grant| match grant.cause {
            Cause::Job { id } => (id, grant.token.0, grant.attempt),
            ref other => panic!("{other:?}"),
        });
        let expected = taken.iter().map(|id| {
            let job = &model.jobs[id];
            (*id, job.token, job.attempts)
        });
        prop_assert_eq!(granted.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        let waiting = model.jobs.values().filter(|j| {
            kinds.contains(&j.kind) && j.state == State::Queued && j.run_at > model.now
        });
        // Where nothing else holds jobs up, the next one that comes due is not missed.
        let free = kinds[0] < 2 && taken.len() < most;
        if let Some(next) = waiting.map(|j| j.run_at).min().filter(|_| free) {
            prop_assert!(batch.next.is_some_and(|at| at <= next), "{:?} {next}", batch.next);
        }
        Ok(())
    }

    fn running(&self, nth: usize) -> Option<Job> {
        let running = self.model.ids(|j| j.state == State::Running);
        let id = running.get(nth.checked_rem(running.len())?)?;
        self.model.jobs.get(id).cloned()
    }

    async fn end(&mut self, nth: usize, how: usize, delay: i64) -> Verdict {
        let Some(job) = self.running(nth) else { return Ok(()) };
        let now = self.model.now;
        let at = now + Millis::from_secs(delay);
        let reason = "the test".to_owned();
        let (outcome, follow_up) = match how {
            0 => (Outcome::Succeeded, FollowUp::Finish),
            1 => (Outcome::Failed, FollowUp::Retry { at }),
            2 => (Outcome::Snoozed, FollowUp::Again { at }),
            3 => (Outcome::Failed, FollowUp::GiveUp { reason }),
            _ => (Outcome::Cancelled, FollowUp::Cancel { reason }),
        };
        let end = JobEnd {
            id: job.id,
            token: Token(job.token),
            outcome,
            follow_up,
            result: json!(null),
            error: None,
            started_at: now,
        };
        let worker = "watch".into();
        for boot in [1 - job.boot, job.boot, job.boot] {
            let ends = vec![end.clone()];
            let held = self.store.finish_jobs(&worker, &BOOTS[boot].into(), ends, now).await;
            let expected = boot == job.boot && job.until > now;
            prop_assert_eq!(held.unwrap(), [expected], "by boot {}", boot);
        }
        if job.until <= now {
            return Ok(());
        }
        match how {
            0 => self.model.becomes(job.id, State::Succeeded),
            1 | 2 => {
                let stored = self.model.job(job.id);
                stored.run_at = at;
                stored.attempts -= u32::from(how == 2);
                self.model.comes_back(job.id);
            }
            3 => self.model.becomes(job.id, State::Failed),
            _ => self.model.becomes(job.id, State::Cancelled),
        }
        Ok(())
    }

    /// A grant before the present one ends nothing.
    async fn end_stale(&mut self, nth: usize) -> Verdict {
        let Some(job) = self.running(nth) else { return Ok(()) };
        let end = JobEnd {
            id: job.id,
            token: Token(job.token - 1),
            outcome: Outcome::Succeeded,
            follow_up: FollowUp::Finish,
            result: json!(null),
            error: None,
            started_at: self.model.now,
        };
        let boot = BOOTS[job.boot].into();
        let ends = vec![end];
        let held = self.store.finish_jobs(&"watch".into(), &boot, ends, self.model.now).await;
        prop_assert_eq!(held.unwrap(), [false]);
        Ok(())
    }

    async fn change(&mut self, action: usize, only: Option<usize>) -> Verdict {
        let now = self.model.now;
        let action =
            [JobAction::Cancel, JobAction::RunNow, JobAction::Redrive, JobAction::Purge][action];
        let all: Vec<i64> = self.model.jobs.keys().copied().collect();
        let only = only.and_then(|nth| Some(all[nth.checked_rem(all.len())?]));
        let change = JobChange {
            filter: JobFilter { ids: only.into_iter().collect(), ..JobFilter::default() },
            action,
            limit: 9_999,
            preview: false,
            by: "ann".to_owned(),
        };
        let told = self.store.change_jobs(change, now).await.unwrap();
        let applies = self.model.ids(|j| {
            only.is_none_or(|id| id == j.id)
                && action.applies_to().contains(&j.state)
                && (action != JobAction::Cancel || !j.cancelled)
                && (action != JobAction::RunNow || j.run_at > now)
        });
        prop_assert_eq!(told.matched, applies.len() as u64);
        let mut changed = 0;
        for id in applies {
            changed += 1;
            match action {
                JobAction::Cancel if self.model.jobs[&id].state == State::Running => {
                    self.model.job(id).cancelled = true;
                }
                JobAction::Cancel => self.model.becomes(id, State::Cancelled),
                JobAction::RunNow => self.model.job(id).run_at = now,
                JobAction::Redrive => {
                    let job = &self.model.jobs[&id];
                    let place = job.key.map(|(key, _)| (job.kind, key));
                    let holder = place.and_then(|place| self.model.keys.get(&place));
                    if holder.is_some_and(|holder| *holder != id) {
                        changed -= 1;
                        continue;
                    }
                    let job = self.model.job(id);
                    (job.attempts, job.reclaims, job.run_at) = (0, 0, now);
                    job.cancelled = false;
                    self.model.becomes(id, State::Queued);
                }
                JobAction::Purge => {
                    self.model.jobs.remove(&id);
                    self.model.keys.retain(|_, holder| *holder != id);
                }
            }
        }
        prop_assert_eq!(told.changed, changed);
        Ok(())
    }

    /// Both hold the same.
    async fn compare(&self) -> Verdict {
        let query = JobQuery { limit: 9_999, ..JobQuery::default() };
        let mut stored = self.store.jobs(query).await.unwrap();
        stored.reverse();
        let told = |state: State| (state == State::Running).then_some(());
        let stored: Vec<_> = stored
            .into_iter()
            .map(|j| {
                let until = j.lease_expires_at.zip(told(j.state)).map(|(at, ())| at);
                let counts = (j.attempts, j.reclaims);
                (j.id, j.state, counts, j.run_at, j.holder, until, j.cancel_requested)
            })
            .collect();
        let expected: Vec<_> = self
            .model
            .jobs
            .values()
            .map(|j| {
                let runs = told(j.state);
                let holder = runs.map(|()| SessionId::from(BOOTS[j.boot]));
                let until = runs.map(|()| j.until);
                let cancelled = j.cancelled && !j.state.is_final();
                (j.id, j.state, (j.attempts, j.reclaims), j.run_at, holder, until, cancelled)
            })
            .collect();
        prop_assert_eq!(stored, expected);
        let rows = self.rig.db.query("select kind, key, job from ops.job_keys", vec![]).await;
        let mut keys: Vec<_> = rows
            .unwrap()
            .iter()
            .map(|r| {
                (r.text(0).unwrap().to_owned(), r.text(1).unwrap().to_owned(), r.i64(2).unwrap())
            })
            .collect();
        keys.sort();
        let mut expected: Vec<_> = self
            .model
            .keys
            .iter()
            .map(|((kind, key), job)| (KINDS[*kind].to_owned(), format!("key {key}"), *job))
            .collect();
        expected.sort();
        prop_assert_eq!(keys, expected);
        Ok(())
    }
}

pub(crate) async fn any_sequence_does_what_the_model_does(rig: Rig) {
    let kinds = vec![
        Kind::new("plain"),
        Kind::new("other"),
        Kind { concurrency: Some(u32::try_from(CAP).expect("small")), ..Kind::new("capped") },
        Kind { per_key: Some(1), ..Kind::new("keyed") },
        Kind { rate: Some(RATE), ..Kind::new("rated") },
    ];
    let worker = Registration { kinds, ..registration("watch") };
    rig.store.register(&[worker], NOW).await.unwrap();
    let seed: u64 = match std::env::var("WATCHBELL_SEED") {
        Ok(seed) => seed.parse().expect("WATCHBELL_SEED is a number"),
        Err(_) => {
            use std::hash::{BuildHasher, RandomState};
            RandomState::new().hash_one(0)
        }
    };
    eprintln!("WATCHBELL_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let outcome = tokio::task::block_in_place(|| {
        runner.run(&prop::collection::vec(command(), 1..60), |commands| {
            tokio::runtime::Handle::current().block_on(async {
                let model = Model { now: NOW, ..Model::default() };
                let store = SqlStore::new(rig.db.clone());
                let mut bench = Bench { rig: &rig, store, model };
                bench.empty().await;
                for command in commands {
                    bench.run(command).await?;
                    bench.compare().await?;
                }
                Ok(())
            })
        })
    });
    if let Err(e) = outcome {
        panic!("WATCHBELL_SEED={seed}: {e}");
    }
}
