//! Limits of concurrency, of concurrency per key, and of the rate.

use watchbell_core::job::{Kind, Rate};
use watchbell_core::port::{JobBatch, JobClaim, Registration};
use watchbell_core::{Millis, NewJob, Time};
use watchbell_testkit::registration;

use crate::jobs::{id, job, success};
use crate::{NOW, Rig, TTL, at};

impl Rig {
    async fn limit(&self, kinds: Vec<Kind>) {
        let worker = Registration { kinds, ..registration("watch") };
        self.store.register(&[worker], NOW).await.expect("kinds");
    }

    async fn ask_jobs(&self, by: &str, kinds: &[&str], most: u32, now: Time) -> JobBatch {
        let kinds = kinds.iter().map(|k| (*k).to_owned()).collect();
        let claim =
            JobClaim { worker: "watch".into(), session: by.into(), kinds, most, now, ttl: TTL };
        self.store.claim_jobs(claim).await.expect("a claim")
    }

    async fn finish_all(&self, by: &str, batch: &JobBatch, now: Time) {
        let ends: Vec<_> = batch.grants.iter().map(success).collect();
        let told = self.store.finish_jobs(&"watch".into(), &by.into(), ends, now).await;
        assert!(told.expect("ends").into_iter().all(|held| held));
    }
}

fn of(key: &str) -> NewJob {
    NewJob { limit_key: Some(key.to_owned()), ..job("limited") }
}

pub(crate) async fn a_kind_runs_so_many_at_once(rig: Rig) {
    rig.limit(vec![Kind { concurrency: Some(3), ..Kind::new("limited") }]).await;
    rig.store.enqueue((0..5).map(|_| job("limited")).collect(), NOW).await.unwrap();
    let first = rig.ask_jobs("one", &["limited"], 2, NOW).await;
    let second = rig.ask_jobs("two", &["limited"], 9, NOW).await;
    assert_eq!((first.grants.len(), second.grants.len()), (2, 1));
    assert_eq!(second.next, Some(NOW + TTL), "when the other's lease is over");
    let third = rig.ask_jobs("one", &["limited"], 9, NOW).await;
    assert!(third.grants.is_empty());
    rig.finish_all("one", &first, at(1)).await;
    assert_eq!(rig.ask_jobs("two", &["limited"], 9, at(1)).await.grants.len(), 2);
    let last = rig.ask_jobs("two", &["limited"], 9, at(40)).await;
    assert_eq!((last.grants.len(), last.reclaimed), (3, 3));
}

pub(crate) async fn a_key_runs_so_many_at_once(rig: Rig) {
    rig.limit(vec![Kind { per_key: Some(2), ..Kind::new("limited") }]).await;
    let mut jobs: Vec<NewJob> = (0..1_500).map(|_| of("ann")).collect();
    jobs.extend([of("bob"), job("limited"), of("bob"), job("limited"), of("bob")]);
    let added = rig.store.enqueue(jobs, NOW).await.unwrap();
    let added: Vec<i64> = added.into_iter().filter_map(|a| a.id()).collect();
    let batch = rig.ask_jobs("one", &["limited"], 5, NOW).await;
    let taken: Vec<i64> = batch.grants.iter().map(id).collect();
    let expected = [&added[..2], &added[1_500..1_503]].concat();
    assert_eq!(taken, expected, "a long queue of one key keeps no other waiting");
    let rest = rig.ask_jobs("two", &["limited"], 9, NOW).await;
    assert_eq!(rest.grants.iter().map(id).collect::<Vec<_>>(), [added[1_503]]);
    rig.finish_all("one", &batch, at(1)).await;
    let next = rig.ask_jobs("one", &["limited"], 9, at(1)).await;
    let taken: Vec<i64> = next.grants.iter().map(id).collect();
    assert_eq!(taken, [added[2], added[3], added[1_504]]);
}

pub(crate) async fn a_kind_starts_so_many_in_a_time(rig: Rig) {
    let rate = Rate { count: 4, per: Millis::from_secs(2) };
    rig.limit(vec![Kind { rate: Some(rate), ..Kind::new("limited") }]).await;
    rig.store.enqueue((0..20).map(|_| job("limited")).collect(), NOW).await.unwrap();
    let burst = rig.ask_jobs("one", &["limited"], 9, NOW).await;
    assert_eq!((burst.grants.len(), burst.next), (4, Some(NOW + Millis(500))));
    let early = rig.ask_jobs("two", &["limited"], 9, NOW + Millis(499)).await;
    assert_eq!((early.grants.len(), early.next), (0, Some(NOW + Millis(500))));
    let one = rig.ask_jobs("two", &["limited"], 9, NOW + Millis(500)).await;
    assert_eq!((one.grants.len(), one.next), (1, Some(at(1))));
    rig.finish_all("one", &burst, NOW + Millis(600)).await;
    assert_eq!(rig.ask_jobs("one", &["limited"], 9, NOW + Millis(600)).await.grants.len(), 0);
    assert_eq!(rig.ask_jobs("one", &["limited"], 2, at(9)).await.grants.len(), 2);
    assert_eq!(rig.ask_jobs("one", &["limited"], 9, at(9)).await.grants.len(), 2);
    let third = Rate { count: 3, per: Millis::from_secs(1) };
    rig.limit(vec![Kind { rate: Some(third), ..Kind::new("limited") }]).await;
    assert_eq!(rig.ask_jobs("one", &["limited"], 9, at(20)).await.grants.len(), 3);
    let soon = rig.ask_jobs("one", &["limited"], 9, at(20) + Millis(333)).await;
    assert_eq!((soon.grants.len(), soon.next), (0, Some(at(20) + Millis(334))));
}

/// Kinds with and without limits of one worker: whoever is first goes on up to the other's turn.
pub(crate) async fn kinds_with_limits_keep_the_order(rig: Rig) {
    rig.limit(vec![Kind { concurrency: Some(2), ..Kind::new("limited") }, Kind::new("free")]).await;
    let mut jobs = Vec::new();
    for n in 0..6 {
        let at = Some(at(n - 20));
        jobs.push(NewJob { run_at: at, ..job("limited") });
        jobs.push(NewJob { run_at: at, ..job("free") });
    }
    jobs.push(NewJob { priority: Some(4), ..job("free") });
    let added = rig.store.enqueue(jobs, NOW).await.unwrap();
    let added: Vec<i64> = added.into_iter().filter_map(|a| a.id()).collect();
    let batch = rig.ask_jobs("one", &["limited", "free"], 6, NOW).await;
    let taken: Vec<i64> = batch.grants.iter().map(id).collect();
    assert_eq!(taken, [added[12], added[0], added[1], added[2], added[3], added[5]]);
    let rest = rig.ask_jobs("one", &["limited", "free"], 99, NOW).await;
    assert_eq!(rest.grants.len(), 3, "what is free of limits");
}
