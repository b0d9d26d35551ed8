//! What only a database that several nodes share can show: its own clock, and words between nodes.

use watchbell_clock::Clock;
use watchbell_core::port::{Claim, Hearing, NodeBeat, Queue, Store, StoreError, Target};
use watchbell_core::{Effects, Millis, NewJob, Time};
use watchbell_store::SqlStore;
use watchbell_testkit::{postgres_is_wanted, until};

use crate::{NOW, Rig, TTL, at, done, postgres_by_its_clock};

const HOURS: Millis = Millis::from_hours(9);

#[tokio::test]
async fn no_callers_clock_takes_anothers_lease() {
    if !postgres_is_wanted() {
        return;
    }
    let rig = postgres_by_its_clock().await;
    let grant = rig.grant("bell", Target::Manual, NOW).await;
    for now in [NOW - HOURS, NOW, NOW + HOURS] {
        match rig.ask("two", "bell", Target::Manual, now).await.unwrap() {
            Claim::Held { owner, until } => {
                assert_eq!(owner, "one".into());
                assert!(now < until && until <= now + TTL, "{until} is not within 30 s of {now}");
            }
            other => panic!("the lease is not over: {other:?}"),
        }
        let kept = rig.store.renew(&"one".into(), TTL, now).await.unwrap();
        assert_eq!(kept, ["bell".into()]);
        let taken = rig.store.recover(&"two".into(), false, now).await.unwrap();
        assert_eq!(taken, watchbell_core::port::Recovered::default());
    }
    rig.store.publish(done("bell", &grant, NOW + HOURS)).await.unwrap();
}

#[tokio::test]
async fn an_expired_lease_is_anybodys() {
    if !postgres_is_wanted() {
        return;
    }
    let rig = postgres_by_its_clock().await;
    let short = watchbell_core::port::ClaimRequest {
        worker: "bell".into(),
        session: "one".into(),
        now: NOW + HOURS,
        ttl: Millis(150),
        target: Target::Manual,
        passed: vec![],
    };
    let Claim::Granted(lost) = rig.store.claim(short).await.unwrap() else {
        panic!("the worker is free")
    };
    let ask = || async { rig.ask("two", "bell", Target::Manual, NOW - HOURS).await.unwrap() };
    until("the lease to end", ask, |claim| matches!(claim, Claim::Granted(_))).await;
    let late = rig.store.publish(done("bell", &lost, NOW + HOURS)).await.unwrap_err();
    assert!(matches!(late, StoreError::Fenced { .. }), "{late}");
    assert_eq!(rig.store.renew(&"one".into(), TTL, NOW - HOURS).await.unwrap(), []);
}

#[tokio::test]
async fn the_server_tells_its_time() {
    if !postgres_is_wanted() {
        return;
    }
    let rig = postgres_by_its_clock().await;
    let clock = Clock::system();
    let beat = NodeBeat {
        session: "one".into(),
        ttl: TTL,
        skew: None,
        round_trip: None,
        api: None,
        profile: "default".to_owned(),
    };
    let before = clock.now();
    let answer = rig.store.beat_node(beat, NOW).await.unwrap();
    // The server runs on this machine; its milliseconds are rounded down.
    assert!(before - Millis(1) <= answer.store_now && answer.store_now <= clock.now());
    let nodes = rig.store.nodes(Time::FAR_FUTURE).await.unwrap();
    assert_eq!(nodes[0].seen_at, Some(answer.store_now));
    assert!(!nodes[0].overdue);
}

/// A node that listens, after it heard that it may have missed something.
async fn node(rig: &Rig) -> SqlStore {
    let node = SqlStore::listening(rig.db.clone(), &Clock::system());
    assert_eq!(node.hears(), Hearing::Deaf);
    assert_eq!(node.told().await, Effects::everything());
    assert_eq!(node.hears(), Hearing::Listening);
    node
}

#[tokio::test]
async fn nodes_hear_each_other_and_not_themselves() {
    if !postgres_is_wanted() {
        return;
    }
    let rig = postgres_by_its_clock().await;
    let (a, b) = (node(&rig).await, node(&rig).await);
    let said = |kind: &str| Effects { jobs: [kind.to_owned()].into(), ..Effects::default() };
    a.tell(&said("from a"));
    assert_eq!(b.told().await, said("from a"));
    b.tell(&said("from b"));
    assert_eq!(a.told().await, said("from b"), "and nothing of its own");
    // What is told together arrives as one.
    let many: Vec<_> = (0..5).map(|n| said(&n.to_string())).collect();
    let mut all = Effects::default();
    for one in many {
        a.tell(&one);
        all.merge(one);
    }
    assert_eq!(b.told().await, all);
    let long = Effects {
        events: (0..1_000).map(|n| format!("an.event.of.some.length.{n}")).collect(),
        ..Effects::default()
    };
    a.tell(&long);
    assert_eq!(b.told().await, Effects::everything());
    // A node that stops says at once what it has not said yet.
    a.tell(&said("last words"));
    a.close_session(&"one".into(), "clean stop", at(1)).await.unwrap();
    let mut heard = Effects::default();
    while !heard.leases {
        heard.merge(b.told().await);
    }
    assert_eq!(heard, Effects { leases: true, ..said("last words") });
}

#[tokio::test]
async fn what_an_operator_does_is_told() {
    if !postgres_is_wanted() {
        return;
    }
    let rig = postgres_by_its_clock().await;
    let node = node(&rig).await;
    let operator = SqlStore::new(rig.db.clone());
    assert_eq!(operator.hears(), Hearing::Deaf);
    operator.enqueue(vec![NewJob::new("count", 1.into())], NOW).await.unwrap();
    assert_eq!(node.told().await.jobs, ["count".to_owned()].into());
    let desired = watchbell_core::lifecycle::Desired::Paused;
    operator.set_desired(&"bell".into(), desired, "ann", NOW).await.unwrap();
    assert!(node.told().await.desired);
    operator
        .request_backfill(&"window-sampler-30m".into(), NOW, at(1800), "ann", NOW)
        .await
        .unwrap();
    assert_eq!(node.told().await.series, ["window-sampler-30m".into()].into());
}

#[tokio::test]
async fn a_node_that_lost_its_listener_looks_at_everything() {
    if !postgres_is_wanted() {
        return;
    }
    let rig = postgres_by_its_clock().await;
    let (a, b) = (node(&rig).await, node(&rig).await);
    let kill = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and query ilike 'listen%'";
    rig.db.query(kill, vec![]).await.unwrap();
    assert_eq!(b.told().await, Effects::everything());
    assert_eq!(a.told().await, Effects::everything());
    a.tell(&Effects { leases: true, ..Effects::default() });
    assert!(b.told().await.leases);
}
