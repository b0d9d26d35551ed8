//! The queue with many at it at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use watchbell_core::job::{Kind, Mask, Rate};
use watchbell_core::port::{FollowUp, JobBatch, JobClaim, JobEnd, Registration, Store, StoreError};
use watchbell_core::{Commit, Expect, Millis, NewJob, SessionId, Time};
use watchbell_testkit::registration;

use crate::jobs::{failure, id, job, success};
use crate::{NOW, Rig, TTL, at, done, row};

async fn claim(store: &dyn Store, boot: &str, kind: &str, most: u32, now: Time) -> JobBatch {
    let claim = JobClaim {
        worker: "watch".into(),
        session: boot.into(),
        kinds: vec![kind.to_owned()],
        most,
        now,
        ttl: TTL,
    };
    store.claim_jobs(claim).await.expect("a claim")
}

async fn finish(store: &dyn Store, boot: &str, ends: Vec<JobEnd>, now: Time) -> Vec<bool> {
    store.finish_jobs(&"watch".into(), &SessionId::from(boot), ends, now).await.expect("ends")
}

async fn count(rig: &Rig, table: &str) -> i64 {
    let sql = format!("select count(*) from {table}");
    rig.db.query_one(sql, vec![]).await.expect("a count").i64(0).expect("a number")
}

/// Each job is granted to one at a time, and all end, however they do at first.
pub(crate) async fn eight_claimers_share_the_jobs(rig: Rig) {
    const JOBS: usize = 2_000;
    let added = rig.store.enqueue((0..JOBS).map(|_| job("count")).collect(), NOW).await.unwrap();
    let held = Arc::new(Mutex::new(BTreeSet::new()));
    let ended = Arc::new(AtomicI64::new(0));
    let mut tasks = Vec::new();
    for n in 0..8_u32 {
        let (store, held, ended) = (Arc::clone(&rig.store), Arc::clone(&held), Arc::clone(&ended));
        let boot = if n % 2 == 0 { "one" } else { "two" };
        tasks.push(tokio::spawn(async move {
            while ended.load(Ordering::SeqCst) < JOBS as i64 {
                let batch = claim(&*store, boot, "count", 7 + n * 11, at(1)).await;
                if batch.grants.is_empty() {
                    tokio::task::yield_now().await;
                    continue;
                }
                let mut ends = Vec::new();
                for grant in &batch.grants {
                    assert!(held.lock().unwrap().insert(id(grant)), "{grant:?} is held by another");
                    let again = grant.token.0 == 1 && id(grant) % 5 == 0;
                    ends.push(if again {
                        failure(grant, FollowUp::Retry { at: NOW })
                    } else {
                        success(grant)
                    });
                }
                let over = ends.iter().filter(|end| end.error.is_none()).count();
                for grant in &batch.grants {
                    held.lock().unwrap().remove(&id(grant));
                }
                let told = finish(&*store, boot, ends, at(2)).await;
                assert!(told.into_iter().all(|held| held));
                ended.fetch_add(i64::try_from(over).unwrap(), Ordering::SeqCst);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!((count(&rig, "ops.jobs").await, count(&rig, "ops.job_history").await), (0, 2_000));
    let retried = added.iter().filter(|a| a.id().unwrap() % 5 == 0).count();
    assert_eq!(count(&rig, "ops.job_attempts").await, i64::try_from(retried).unwrap());
    assert_eq!(count(&rig, "ops.events").await, 0, "nothing was refused");
}

/// Of all who add a job with one key at the same time, one adds it, and the others hear which.
pub(crate) async fn one_of_many_takes_the_key(rig: Rig) {
    let mut tasks = Vec::new();
    for n in 0..32 {
        let store = Arc::clone(&rig.store);
        tasks.push(tokio::spawn(async move {
            // Several keys, in another order each time.
            let mut jobs: Vec<NewJob> =
                (0..6).map(|k| job("count").unique(format!("key {}", (k + n) % 6))).collect();
            jobs.push(job("sum"));
            store.enqueue(jobs, NOW).await.unwrap()
        }));
    }
    let mut added = BTreeSet::new();
    for task in tasks {
        for answer in &task.await.unwrap()[..6] {
            added.extend(answer.id());
        }
    }
    assert_eq!(added.len(), 6);
    assert_eq!((count(&rig, "ops.jobs").await, count(&rig, "ops.job_keys").await), (6 + 32, 6));
}

/// While its job changes hands and comes back, a key is never held twice.
pub(crate) async fn a_key_is_never_held_twice(rig: Rig) {
    let key = || NewJob { unique_in: Mask::QUEUED, ..job("count").unique("k") };
    let mut tasks = Vec::new();
    for n in 0..8 {
        let store = Arc::clone(&rig.store);
        tasks.push(tokio::spawn(async move {
            for _ in 0..40 {
                if n < 4 {
                    store.enqueue(vec![key()], NOW).await.unwrap();
                } else {
                    let batch = claim(&*store, "one", "count", 2, NOW).await;
                    let ends = batch.grants.iter().map(|grant| {
                        if id(grant) % 3 == 0 && grant.attempt < 3 {
                            failure(grant, FollowUp::Retry { at: NOW })
                        } else {
                            success(grant)
                        }
                    });
                    finish(&*store, "one", ends.collect(), NOW).await;
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    loop {
        let batch = claim(&*rig.store, "one", "count", 99, NOW).await;
        if batch.grants.is_empty() {
            break;
        }
        finish(&*rig.store, "one", batch.grants.iter().map(success).collect(), NOW).await;
    }
    assert_eq!((count(&rig, "ops.jobs").await, count(&rig, "ops.job_keys").await), (0, 0));
}

/// However many claim, no more run at any instant than a kind and a key allow.
pub(crate) async fn limits_hold_at_every_instant(rig: Rig) {
    const JOBS: i64 = 400;
    let kind = Kind { concurrency: Some(5), per_key: Some(2), ..Kind::new("limited") };
    let worker = Registration { kinds: vec![kind], ..registration("watch") };
    rig.store.register(&[worker], NOW).await.unwrap();
    let jobs = (0..JOBS).map(|n| NewJob {
        limit_key: Some(format!("{}", n % 4)),
        payload: serde_json::json!(n % 4),
        ..job("limited")
    });
    rig.store.enqueue(jobs.collect(), NOW).await.unwrap();
    let running: Arc<Mutex<BTreeMap<i64, i64>>> = Arc::default();
    let ended = Arc::new(AtomicI64::new(0));
    let mut tasks = Vec::new();
    for n in 0..6 {
        let (store, running, ended) =
            (Arc::clone(&rig.store), Arc::clone(&running), Arc::clone(&ended));
        let boot = if n % 2 == 0 { "one" } else { "two" };
        tasks.push(tokio::spawn(async move {
            while ended.load(Ordering::SeqCst) < JOBS {
                let batch = claim(&*store, boot, "limited", 1 + n, at(1)).await;
                let key = |grant: &watchbell_core::port::Grant| match &grant.input {
                    watchbell_core::CycleInput::Job { payload, .. } => payload.as_i64().unwrap(),
                    other => panic!("{other:?}"),
                };
                {
                    let mut running = running.lock().unwrap();
                    for grant in &batch.grants {
                        *running.entry(key(grant)).or_default() += 1;
                    }
                    assert!(running.values().all(|n| *n <= 2), "{running:?}");
                    assert!(running.values().sum::<i64>() <= 5, "{running:?}");
                }
                tokio::task::yield_now().await;
                for grant in &batch.grants {
                    *running.lock().unwrap().entry(key(grant)).or_default() -= 1;
                }
                finish(&*store, boot, batch.grants.iter().map(success).collect(), at(1)).await;
                ended.fetch_add(i64::try_from(batch.grants.len()).unwrap(), Ordering::SeqCst);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!((count(&rig, "ops.jobs").await, count(&rig, "ops.job_history").await), (0, JOBS));
}

/// However many claim, no more start in a time than the rate allows, and not fewer.
pub(crate) async fn a_rate_holds_for_all_together(rig: Rig) {
    let rate = Rate { count: 10, per: Millis::from_secs(1) };
    let kind = Kind { rate: Some(rate), ..Kind::new("limited") };
    let worker = Registration { kinds: vec![kind], ..registration("watch") };
    rig.store.register(&[worker], NOW).await.unwrap();
    rig.store.enqueue((0..200).map(|_| job("limited")).collect(), NOW).await.unwrap();
    for (now, allowed) in [(at(1), 10), (at(1) + Millis(250), 2), (at(2), 8), (at(9), 10)] {
        let mut tasks = Vec::new();
        for n in 0..6 {
            let store = Arc::clone(&rig.store);
            tasks.push(tokio::spawn(async move {
                let mut started = 0;
                for most in 1..5 {
                    started += claim(&*store, "one", "limited", most + n, now).await.grants.len();
                }
                started
            }));
        }
        let mut started = 0;
        for task in tasks {
            started += task.await.unwrap();
        }
        assert_eq!(started, allowed, "at {now}");
    }
}

/// Whatever was there before a claim comes in the order of priorities.
pub(crate) async fn priorities_hold_while_others_add(rig: Rig) {
    let known: Arc<Mutex<BTreeMap<i64, i32>>> = Arc::default();
    let mut adders = Vec::new();
    for n in 0..4 {
        let (store, known) = (Arc::clone(&rig.store), Arc::clone(&known));
        adders.push(tokio::spawn(async move {
            for k in 0..25 {
                let priority = (k * 7 + n * 3) % 5;
                let new = NewJob { priority: Some(priority), ..job("count") };
                let added = store.enqueue(vec![new.clone(), new], NOW).await.unwrap();
                known.lock().unwrap().extend(added.iter().map(|a| (a.id().unwrap(), priority)));
            }
        }));
    }
    let mut taken = BTreeSet::new();
    while taken.len() < 200 {
        let before = known.lock().unwrap().clone();
        let batch = claim(&*rig.store, "one", "count", 3, at(1)).await;
        let Some(last) = batch.grants.last() else {
            tokio::task::yield_now().await;
            continue;
        };
        taken.extend(batch.grants.iter().map(id));
        let last = rig.store.job(id(last)).await.unwrap().unwrap();
        for (other, priority) in before.iter().filter(|(other, _)| !taken.contains(other)) {
            assert!(*priority <= last.priority, "job {other} waits behind {last:?}");
        }
        finish(&*rig.store, "one", batch.grants.iter().map(success).collect(), at(1)).await;
    }
    for adder in adders {
        adder.await.unwrap();
    }
    assert_eq!(count(&rig, "ops.jobs").await, 0);
}

/// However many jobs went through, the live table holds those that live.
pub(crate) async fn what_is_done_leaves_the_live_table(rig: Rig) {
    const JOBS: i64 = 20_000;
    for _ in 0..JOBS / 500 {
        rig.store.enqueue((0..500).map(|_| job("count")).collect(), NOW).await.unwrap();
    }
    let mut tasks = Vec::new();
    for _ in 0..2 {
        let store = Arc::clone(&rig.store);
        tasks.push(tokio::spawn(async move {
            loop {
                let batch = claim(&*store, "one", "count", 500, at(1)).await;
                if batch.grants.is_empty() {
                    return;
                }
                let ends = batch.grants.iter().map(success).collect();
                assert!(finish(&*store, "one", ends, at(1)).await.into_iter().all(|held| held));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!((count(&rig, "ops.jobs").await, count(&rig, "ops.job_history").await), (0, JOBS));
}

/// In the middle of a long stretch, what comes to stand before the others is still the first: at
/// once where it was added here, within a moment where another node added it.
pub(crate) async fn a_long_stretch_hears_of_what_comes_first(rig: Rig) {
    for _ in 0..16 {
        rig.store.enqueue((0..500).map(|_| job("count")).collect(), NOW).await.unwrap();
    }
    let mut last = 0;
    for _ in 0..12 {
        let batch = claim(&*rig.store, "one", "count", 500, at(1)).await;
        assert!(batch.grants.iter().map(id).is_sorted_by(|a, b| a < b));
        assert!(id(&batch.grants[0]) > last);
        last = id(&batch.grants[499]);
        finish(&*rig.store, "one", batch.grants.iter().map(success).collect(), at(1)).await;
    }
    let urgent = NewJob { priority: Some(5), ..job("count") };
    let here = rig.store.enqueue(vec![urgent.clone()], at(1)).await.unwrap()[0].id();
    let batch = claim(&*rig.store, "one", "count", 9, at(1)).await;
    assert_eq!(Some(id(&batch.grants[0])), here);
    for _ in 0..2 {
        claim(&*rig.store, "one", "count", 400, at(1)).await;
    }
    let node: Arc<dyn Store> = Arc::new(watchbell_store::SqlStore::new(rig.db.clone()));
    let there = node.enqueue(vec![urgent], at(1)).await.unwrap()[0].id();
    let batch = claim(&*rig.store, "one", "count", 9, at(1) + Millis(250)).await;
    assert_eq!(Some(id(&batch.grants[0])), there);
    let rest = claim(&*rig.store, "one", "count", 9_999, at(1) + Millis(250)).await;
    assert_eq!(rest.grants.len(), 8_000 + 2 - 6_000 - 9 - 800 - 9, "nothing is left behind");
}

/// Ends that add rows share transactions; what is wrong with one is its own affair.
pub(crate) async fn many_ends_with_rows_are_each_their_own(rig: Rig) {
    const JOBS: i64 = 300;
    rig.store.enqueue((0..JOBS).map(|_| job("count")).collect(), NOW).await.unwrap();
    let batch = claim(&*rig.store, "one", "count", JOBS as u32, at(1)).await;
    assert_eq!(batch.grants.len(), JOBS as usize);
    let mut tasks = Vec::new();
    for (n, mut grant) in batch.grants.into_iter().enumerate() {
        let store = Arc::clone(&rig.store);
        // One has lost its job; one adds a row that another adds as well.
        grant.token.0 += i64::from(n == 17);
        let number = if n == 200 { 201 } else { n as i64 };
        let mut p = done("watch", &grant, at(2));
        p.commit = Commit::new().with(row(number, "watch").expect(Expect::Exactly(1)));
        tasks.push(tokio::spawn(async move { (n, store.publish(p).await) }));
    }
    let mut refused = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            (_, Ok(())) => {}
            (17, Err(e)) => {
                assert!(matches!(e, StoreError::Fenced { .. }), "{e}");
                refused.push(17);
            }
            (n, Err(e)) => {
                assert!(matches!(e, StoreError::Conflict(_)), "{n}: {e}");
                assert!(n == 200 || n == 201, "{n}: {e}");
                refused.push(n);
            }
        }
    }
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert_eq!(rig.rows().await, JOBS - 2);
    assert_eq!(
        (count(&rig, "ops.jobs").await, count(&rig, "ops.job_history").await),
        (2, JOBS - 2)
    );
}
