use std::collections::BTreeSet;
use std::sync::Arc;

use watchbell_core::job::{MAX_RECLAIMS, State};
use watchbell_core::port::{
    Claim, ClaimRequest, FollowUp, Grant, JobQuery, JobRecord, Outcome, StoreError, Target,
};
use watchbell_core::{Cause, CycleInput, NewJob, Time};

use crate::{NOW, Rig, TTL, at, done, ended};

fn queue() -> Target {
    Target::Job { kinds: vec!["count".to_owned(), "sum".to_owned()] }
}

fn job(kind: &str) -> NewJob {
    NewJob::new(kind, serde_json::json!({"of": kind}))
}

fn id(grant: &Grant) -> i64 {
    match grant.cause {
        Cause::Job { id } => id,
        ref other => panic!("{other:?} is not a job"),
    }
}

async fn get(rig: &Rig, id: i64) -> JobRecord {
    rig.store.job(id).await.expect("a query").expect("a job")
}

pub(crate) async fn jobs_run_by_priority_and_time(rig: Rig) {
    let jobs = vec![
        NewJob { run_at: Some(at(50)), priority: 9, ..job("sum") },
        NewJob { run_at: Some(at(-5)), ..job("count") },
        NewJob { run_at: Some(at(-9)), ..job("sum") },
        NewJob { priority: 3, ..job("count") },
        job("other"),
    ];
    let ids: Vec<i64> = rig.store.enqueue(jobs, NOW).await.unwrap().into_iter().flatten().collect();
    let mut order = Vec::new();
    while let Claim::Granted(grant) = rig.ask("one", "bell", queue(), at(1)).await.unwrap() {
        order.push(id(&grant));
        rig.store.publish(done("bell", &grant, at(1))).await.unwrap();
    }
    assert_eq!(order, [ids[3], ids[2], ids[1]]);
    let waits = rig.ask("one", "bell", queue(), at(1)).await.unwrap();
    assert_eq!(waits, Claim::Nothing { next: Some(at(50)) });
    let grant = rig.grant("bell", queue(), at(50)).await;
    assert_eq!((id(&grant), grant.attempt, grant.max_attempts), (ids[0], 1, 5));
    let CycleInput::Job { kind, payload } = &grant.input else { panic!("{:?}", grant.input) };
    assert_eq!((kind.as_str(), payload), ("sum", &serde_json::json!({"of": "sum"})));
    assert_eq!(rig.store.cycles(None, 1).await.unwrap()[0].cause, grant.cause);
    assert_eq!(get(&rig, ids[0]).await.cycle, Some(grant.cycle));
    let query =
        JobQuery { kind: Some("count".to_owned()), state: Some(State::Succeeded), limit: 9 };
    assert_eq!(rig.store.jobs(query).await.unwrap().len(), 2);
}

pub(crate) async fn a_unique_key_is_taken_while_its_job_lives(rig: Rig) {
    let once = NewJob { unique_key: Some("k".to_owned()), ..job("count") };
    let ids = rig.store.enqueue(vec![once.clone(), once.clone(), job("count")], NOW).await.unwrap();
    assert!(ids[0].is_some() && ids[1].is_none() && ids[2].is_some());
    let grant = rig.grant("bell", queue(), at(1)).await;
    assert_eq!(rig.store.enqueue(vec![once.clone()], at(1)).await.unwrap(), [None]);
    rig.store.publish(done("bell", &grant, at(2))).await.unwrap();
    assert!(rig.store.enqueue(vec![once], at(3)).await.unwrap()[0].is_some());
}

pub(crate) async fn sixteen_claimers_share_the_jobs(rig: Rig) {
    let jobs = (0..200).map(|_| job("count")).collect();
    let all = rig.store.enqueue(jobs, NOW).await.unwrap();
    let mut tasks = Vec::new();
    for n in 0..16 {
        let store = Arc::clone(&rig.store);
        tasks.push(tokio::spawn(async move {
            let session: watchbell_core::SessionId = if n % 2 == 0 { "one" } else { "two" }.into();
            let mut mine = Vec::new();
            loop {
                let request = ClaimRequest {
                    worker: "bell".into(),
                    session: session.clone(),
                    now: at(1),
                    ttl: TTL,
                    target: queue(),
                    passed: vec![],
                };
                match store.claim(request).await {
                    Ok(Claim::Granted(grant)) => {
                        mine.push(id(&grant));
                        let mut p = done("bell", &grant, at(1));
                        p.session = session.clone();
                        store.publish(p).await.unwrap();
                    }
                    Ok(Claim::Nothing { .. }) => return mine,
                    Err(StoreError::Conflict(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
        }));
    }
    let mut done = Vec::new();
    for task in tasks {
        done.extend(task.await.unwrap());
    }
    assert_eq!(done.len(), 200);
    let all: BTreeSet<i64> = all.into_iter().flatten().collect();
    assert_eq!(done.into_iter().collect::<BTreeSet<_>>(), all);
    assert_eq!(rig.store.workers().await.unwrap()[0].total_runs, 200);
}

pub(crate) async fn a_failed_job_is_retried_and_ends(rig: Rig) {
    rig.store.enqueue(vec![job("count")], NOW).await.unwrap();
    let first = rig.grant("bell", queue(), at(1)).await;
    let retry = FollowUp::Retry { at: at(10) };
    rig.store.publish(ended("bell", &first, at(2), Outcome::Failed, retry)).await.unwrap();
    let stored = get(&rig, id(&first)).await;
    assert_eq!((stored.state, stored.attempts, stored.run_at), (State::Queued, 1, at(10)));
    assert_eq!(stored.error.as_deref(), Some("the test failed it"));
    let second = rig.grant("bell", queue(), at(10)).await;
    assert_eq!(second.attempt, 2);
    let again = FollowUp::Again { at: at(20) };
    rig.store.publish(ended("bell", &second, at(11), Outcome::Snoozed, again)).await.unwrap();
    let third = rig.grant("bell", queue(), at(20)).await;
    assert_eq!(third.attempt, 2);
    let end = FollowUp::GiveUp { reason: "enough".to_owned() };
    rig.store.publish(ended("bell", &third, at(21), Outcome::Failed, end)).await.unwrap();
    let stored = get(&rig, id(&first)).await;
    assert_eq!((stored.state, stored.error.as_deref()), (State::Failed, Some("enough")));
    assert_eq!(stored.finished_at, Some(at(21)));
    assert_eq!(
        rig.ask("one", "bell", queue(), at(99)).await.unwrap(),
        Claim::Nothing { next: None }
    );
}

pub(crate) async fn a_dead_holders_job_is_reclaimed_and_counted(rig: Rig) {
    rig.store.enqueue(vec![job("count")], NOW).await.unwrap();
    let mut now = at(1);
    let later = |now: Time| now + TTL;
    let mut last = rig.grant("bell", queue(), now).await;
    for reclaims in 1..MAX_RECLAIMS {
        let waits = rig.ask("two", "bell", queue(), now).await.unwrap();
        assert_eq!(waits, Claim::Nothing { next: Some(later(now)) });
        now = later(now);
        last = rig.grant("bell", queue(), now).await;
        let stored = get(&rig, id(&last)).await;
        assert_eq!((stored.reclaims, stored.attempts), (reclaims, 1));
    }
    now = later(now);
    let ended = rig.ask("one", "bell", queue(), now).await.unwrap();
    assert_eq!(ended, Claim::Nothing { next: None });
    let stored = get(&rig, id(&last)).await;
    assert_eq!(stored.state, State::Failed);
    assert_eq!(stored.error.as_deref(), Some("5 holders died while they worked on it"));
    let cycles = rig.store.cycles(None, 9).await.unwrap();
    assert!(cycles.iter().all(|c| c.outcome == Outcome::Lost), "{cycles:?}");
}

pub(crate) async fn a_job_is_fenced(rig: Rig) {
    rig.store.enqueue(vec![job("count"), job("count")], NOW).await.unwrap();
    let first = rig.grant("bell", queue(), at(1)).await;
    let second = rig.grant("bell", queue(), at(1)).await;
    assert_ne!(first.token, second.token, "two jobs of one worker run side by side");
    assert_eq!(rig.store.renew(&"one".into(), TTL, at(20)).await.unwrap().len(), 1);
    rig.store.publish(done("bell", &first, at(40))).await.unwrap();
    let burn = ended("bell", &second, at(41), Outcome::TimedOut, FollowUp::Retry { at: at(60) });
    rig.store.burn(burn).await.unwrap();
    let refused = rig.store.publish(done("bell", &second, at(42))).await.unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { .. }), "{refused}");
    assert_eq!(get(&rig, id(&second)).await.state, State::Queued);
    let third = rig.grant("bell", queue(), at(60)).await;
    let late = rig.store.publish(done("bell", &third, at(90))).await.unwrap_err();
    assert!(matches!(late, StoreError::Fenced { .. }), "{late}");
}
