use watchbell_core::port::{Claim, ClaimRequest, Outcome, StoreError, Target};
use watchbell_core::schedule::{Fate, Passed};
use watchbell_core::{Cause, CycleId, Token, WorkerName};

use crate::{NOW, Rig, TTL, at, done, row, step};

pub(crate) async fn one_of_sixteen_gets_a_tick(rig: Rig) {
    let mut tasks = Vec::new();
    for n in 0..16 {
        let store = std::sync::Arc::clone(&rig.store);
        tasks.push(tokio::spawn(async move {
            let request = ClaimRequest {
                worker: "bell".into(),
                session: if n % 2 == 0 { "one" } else { "two" }.into(),
                now: NOW,
                ttl: TTL,
                target: Target::Tick { due: NOW },
                passed: vec![],
            };
            store.claim(request).await.unwrap()
        }));
    }
    let mut granted = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Claim::Granted(grant) => granted.push(grant),
            Claim::Held { until, .. } => assert_eq!(until, NOW + TTL),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(granted.len(), 1);
    assert_eq!((granted[0].token, granted[0].attempt), (Token(1), 1));
    assert_eq!(granted[0].cause, Cause::Tick { due: NOW });
    assert_eq!(rig.store.cycles(None, 10).await.unwrap().len(), 1);
    assert_eq!(rig.store.occurrences(&"bell".into(), 10).await.unwrap().len(), 1);
}

pub(crate) async fn a_held_lease_is_named(rig: Rig) {
    rig.grant("bell", Target::Manual, NOW).await;
    let held = Claim::Held { owner: "one".into(), until: NOW + TTL };
    assert_eq!(rig.ask("two", "bell", Target::Manual, at(29)).await.unwrap(), held);
    assert_eq!(rig.ask("one", "bell", Target::Stream, at(29)).await.unwrap(), held);
    rig.grant("watch", Target::Manual, NOW).await;
}

pub(crate) async fn an_expired_lease_is_taken_over(rig: Rig) {
    let lost = rig.grant("bell", Target::Manual, NOW).await;
    let Claim::Granted(taken) = rig.ask("two", "bell", Target::Manual, at(30)).await.unwrap()
    else {
        panic!("the lease has expired")
    };
    assert_eq!(taken.token, Token(2));
    let cycles = rig.store.cycles(Some(&"bell".into()), 10).await.unwrap();
    assert_eq!((cycles[0].outcome, cycles[1].outcome), (Outcome::Running, Outcome::Lost));
    assert_eq!((cycles[1].id, cycles[1].finished_at), (lost.cycle, Some(at(30))));
}

pub(crate) async fn an_occurrence_happens_once(rig: Rig) {
    let grant = rig.grant("bell", Target::Tick { due: NOW }, at(1)).await;
    rig.store.publish(done("bell", &grant, at(2))).await.unwrap();
    let again = rig.ask("two", "bell", Target::Tick { due: NOW }, at(3)).await.unwrap();
    assert_eq!(again, Claim::Taken);
    let next = rig.grant("bell", Target::Tick { due: at(60) }, at(60)).await;
    assert_eq!(next.token, Token(2), "a refused claim spends no token");
    let ledger = rig.store.occurrences(&"bell".into(), 10).await.unwrap();
    let seen: Vec<_> = ledger.iter().map(|o| (o.due, o.fate.as_str(), o.cycle)).collect();
    let (first, second) = (grant.cycle, next.cycle);
    assert_eq!(seen, [(at(60), "fired", Some(second)), (NOW, "fired", Some(first))]);
    let workers = rig.store.workers().await.unwrap();
    assert_eq!((workers[0].last_due, workers[1].last_due), (Some(at(60)), None));
}

pub(crate) async fn passed_ranges_never_overlap(rig: Rig) {
    let worker = WorkerName::from("bell");
    let range = |first, last, fate| Passed { first: at(first), last: at(last), count: 3, fate };
    let skipped = [range(0, 20, Fate::Skipped), range(30, 50, Fate::Merged)];
    for _ in 0..2 {
        // The second time, as if the answer had been lost.
        rig.store.record_passed(&worker, &skipped, at(60)).await.unwrap();
    }
    for (first, last) in [(0, 0), (10, 12), (20, 25), (-10, 0), (40, 80), (-10, 90), (21, 30)] {
        let again = [range(first, last, Fate::Skipped)];
        let refused = rig.store.record_passed(&worker, &again, at(60)).await.unwrap_err();
        assert!(matches!(refused, StoreError::Conflict(_)), "{first}-{last}: {refused}");
        assert_eq!(
            rig.ask("one", "bell", Target::Tick { due: at(first.clamp(0, 20)) }, at(60))
                .await
                .unwrap(),
            Claim::Taken
        );
    }
    let request = ClaimRequest {
        worker: worker.clone(),
        session: "one".into(),
        now: at(60),
        ttl: TTL,
        target: Target::Tick { due: at(60) },
        passed: vec![range(51, 59, Fate::Merged)],
    };
    let refused = ClaimRequest { passed: vec![range(50, 59, Fate::Merged)], ..request.clone() };
    let refused = rig.store.claim(refused).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict(_)), "{refused}");
    let granted = rig.store.claim(request).await.unwrap();
    assert!(matches!(granted, Claim::Granted(_)), "{granted:?}");
    let ledger = rig.store.occurrences(&worker, 10).await.unwrap();
    let seen: Vec<_> = ledger.iter().map(|o| (o.fate.as_str(), o.count)).collect();
    assert_eq!(seen, [("fired", 1), ("merged", 3), ("merged", 3), ("skipped", 3)]);
}

pub(crate) async fn renewal_keeps_only_live_leases(rig: Rig) {
    rig.grant("bell", Target::Stream, NOW).await;
    rig.grant("watch", Target::Stream, at(20)).await;
    let kept = rig.store.renew(&"one".into(), TTL, at(29)).await.unwrap();
    assert_eq!(kept, [WorkerName::from("bell"), WorkerName::from("watch")]);
    assert_eq!(rig.store.renew(&"two".into(), TTL, at(29)).await.unwrap(), []);
    let workers = rig.store.workers().await.unwrap();
    assert_eq!(workers[0].lease_expires_at, Some(at(59)));
    assert_eq!(rig.store.renew(&"one".into(), TTL, at(59)).await.unwrap(), []);
}

pub(crate) async fn a_standing_lease_has_no_cycle(rig: Rig) {
    let grant = rig.grant("bell", Target::Standing, NOW).await;
    assert_eq!((grant.cycle, grant.token), (CycleId(0), Token(1)));
    assert!(rig.store.cycles(None, 10).await.unwrap().is_empty());
    assert_eq!(rig.store.workers().await.unwrap()[0].last_started_at, None);
    let commit = watchbell_core::Commit::new().with(row(1, "bell"));
    rig.store.publish(step("bell", &grant, at(1), commit)).await.unwrap();
    assert_eq!(rig.rows().await, 1);
}

pub(crate) async fn a_standing_lease_is_given_back(rig: Rig) {
    let grant = rig.grant("bell", Target::Standing, NOW).await;
    let release = async |by: &str, token, now| {
        rig.store.release(&"bell".into(), &by.into(), token, now).await.unwrap();
        rig.store.workers().await.unwrap()[0].lease_owner.is_some()
    };
    assert!(release("two", grant.token, at(1)).await, "not the holder");
    assert!(release("one", Token(9), at(1)).await, "not the token");
    assert!(!release("one", grant.token, at(1)).await);
    assert!(!release("one", grant.token, at(1)).await, "it is gone already");
    let next = rig.grant("bell", Target::Manual, at(2)).await;
    assert_eq!(next.token, Token(2));
    assert!(release("one", next.token, at(2)).await, "a cycle runs under it");
    rig.store.publish(done("bell", &next, at(3))).await.unwrap();
}

pub(crate) async fn an_unknown_worker_is_named(rig: Rig) {
    for target in [Target::Manual, Target::Tick { due: NOW }, Target::Event, Target::Standing] {
        let refused = rig.ask("one", "nobody", target, NOW).await.unwrap_err();
        assert!(refused.to_string().contains("`nobody`"), "{refused}");
    }
}
