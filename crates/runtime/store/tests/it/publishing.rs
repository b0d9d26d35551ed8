use watchbell_core::port::{
    ArtifactRecord, EventQuery, FollowUp, JobQuery, Outcome, StoreError, Target,
};
use watchbell_core::{Commit, CycleId, Expect, NewJob, Statement, Token, values};

use crate::{NOW, Rig, at, done, ended, row, step};

async fn kinds(rig: &Rig) -> Vec<String> {
    let query = EventQuery { after: Some(0), kinds: vec![], limit: 100 };
    rig.store.events(query).await.unwrap().into_iter().map(|e| e.kind).collect()
}

pub(crate) async fn a_stale_token_is_refused_and_recorded(rig: Rig) {
    let stale = rig.grant("bell", Target::Manual, NOW).await;
    rig.ask("two", "bell", Target::Manual, at(40)).await.unwrap();
    let mut late = done("bell", &stale, at(41));
    late.commit = Commit::new().with(row(1, "bell"));
    late.commit.emit("rows.stored", "bell", serde_json::Value::Null);
    let refused = rig.store.publish(late).await.unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { token: Token(1), .. }), "{refused}");
    assert_eq!(rig.rows().await, 0);
    assert_eq!(kinds(&rig).await, ["commit.refused"]);
    let cycles = rig.store.cycles(None, 10).await.unwrap();
    assert_eq!((cycles[0].outcome, cycles[1].outcome), (Outcome::Running, Outcome::Fenced));
    assert_eq!(rig.store.workers().await.unwrap()[0].total_runs, 0);
}

pub(crate) async fn an_expired_lease_cannot_publish(rig: Rig) {
    let grant = rig.grant("bell", Target::Manual, NOW).await;
    let refused = rig.store.publish(step("bell", &grant, at(30), Commit::new())).await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
    let grant = rig.grant("bell", Target::Manual, at(30)).await;
    let mut late = done("bell", &grant, at(60));
    late.commit = Commit::new().with(row(1, "bell"));
    let refused = rig.store.publish(late).await.unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { .. }), "{refused}");
    assert_eq!(rig.rows().await, 0);
    let outcomes: Vec<_> =
        rig.store.cycles(None, 5).await.unwrap().iter().map(|c| c.outcome).collect();
    assert_eq!(outcomes, [Outcome::Fenced, Outcome::Fenced]);
    let wrong_boot = rig.grant("watch", Target::Manual, NOW).await;
    let mut p = done("watch", &wrong_boot, at(1));
    p.session = "two".into();
    let refused = rig.store.publish(p).await.unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { .. }), "{refused}");
    assert_eq!(kinds(&rig).await, ["commit.refused"; 3]);
}

pub(crate) async fn a_failing_statement_leaves_nothing(rig: Rig) {
    let grant = rig.grant("bell", Target::Manual, NOW).await;
    let none = Statement::new("update market.rows set worker = '' where id = $1", values![9]);
    for (bad, says) in [
        (none.expect(Expect::Exactly(1)), "statement 1 (market.rows) changed 0 rows, expected"),
        (row(1, "again"), "the commit was refused: "),
    ] {
        let mut p = done("bell", &grant, at(1));
        p.commit = Commit::new().with(row(1, "bell")).with(bad);
        p.commit.emit("rows.stored", "bell", serde_json::Value::Null);
        p.commit.enqueue(NewJob::new("count", serde_json::Value::Null));
        let refused = rig.store.publish(p).await.unwrap_err();
        assert!(refused.to_string().contains(says), "{refused}");
        assert_eq!(rig.rows().await, 0);
        assert_eq!(rig.store.cycles(None, 1).await.unwrap()[0].outcome, Outcome::Running);
    }
    assert!(kinds(&rig).await.is_empty());
    assert!(rig.store.jobs(JobQuery { limit: 9, ..JobQuery::default() }).await.unwrap().is_empty());
    // The claim itself is unharmed.
    rig.store.publish(done("bell", &grant, at(2))).await.unwrap();
}

pub(crate) async fn a_cycle_publishes_everything_at_once(rig: Rig) {
    let grant = rig.grant("bell", Target::Tick { due: NOW }, NOW).await;
    let mut p = done("bell", &grant, at(3));
    p.commit = Commit::new().with(row(1, "bell"));
    p.commit.emit("rows.stored", "bell", serde_json::json!({"rows": 1}));
    p.commit.enqueue(NewJob::new("count", serde_json::json!([1])));
    let end = p.end.as_mut().unwrap();
    end.next_due = Some(at(60));
    end.artifacts = vec![ArtifactRecord {
        name: "model".to_owned(),
        path: "model/1".to_owned(),
        manifest_sha256: "00".to_owned(),
        bytes: 10,
        files: 2,
        published_at: at(3),
        expires_at: Some(at(10)),
    }];
    let artifacts = end.artifacts.clone();
    rig.store.publish(p.clone()).await.unwrap();
    let worker = rig.store.workers().await.unwrap().remove(0);
    assert_eq!((worker.last_success_at, worker.next_due), (Some(at(3)), Some(at(60))));
    assert_eq!((worker.total_runs, worker.consecutive_errors), (1, 0));
    assert_eq!((worker.lease_owner, worker.lease_token), (None, Token(1)));
    assert_eq!(worker.summary, serde_json::json!({"at": at(3)}));
    let cycle = rig.store.cycles(None, 1).await.unwrap().remove(0);
    assert_eq!((cycle.outcome, cycle.finished_at), (Outcome::Succeeded, Some(at(3))));
    assert_eq!(cycle.cause, grant.cause);
    let query = EventQuery { after: None, kinds: vec!["rows.*".to_owned()], limit: 5 };
    assert_eq!(rig.store.events(query).await.unwrap()[0].cycle, Some(grant.cycle));
    let jobs = rig.store.jobs(JobQuery { limit: 9, ..JobQuery::default() }).await.unwrap();
    assert_eq!((jobs.len(), jobs[0].run_at), (1, at(3)));
    assert_eq!(rig.store.artifacts(5).await.unwrap(), artifacts);
    assert_eq!(rig.rows().await, 1);
}

pub(crate) async fn an_end_is_published_once_however_often_it_is_asked_for(rig: Rig) {
    let grant = rig.grant("bell", Target::Tick { due: NOW }, NOW).await;
    let mut p = done("bell", &grant, at(3));
    p.commit = Commit::new().with(row(1, "bell"));
    p.commit.emit("rows.stored", "bell", serde_json::Value::Null);
    for _ in 0..3 {
        rig.store.publish(p.clone()).await.unwrap();
    }
    let other = ended("bell", &grant, at(3), Outcome::Failed, FollowUp::Finish);
    let refused = rig.store.publish(other).await.unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { .. }), "another end: {refused}");
    // Also when somebody else holds the lease meanwhile.
    rig.ask("two", "bell", Target::Manual, at(4)).await.unwrap();
    rig.store.publish(p.clone()).await.unwrap();
    let mut stranger = p;
    stranger.session = "two".into();
    let refused = rig.store.publish(stranger).await.unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { .. }), "another boot: {refused}");
    assert_eq!(rig.rows().await, 1);
    assert_eq!(kinds(&rig).await, ["rows.stored", "commit.refused", "commit.refused"]);
    assert_eq!(rig.store.workers().await.unwrap()[0].total_runs, 1);
    let outcomes: Vec<_> =
        rig.store.cycles(None, 5).await.unwrap().iter().map(|c| c.outcome).collect();
    assert_eq!(outcomes, [Outcome::Running, Outcome::Succeeded]);
}

pub(crate) async fn a_quiet_end_is_published_once(rig: Rig) {
    let grant = rig.grant("bell", Target::Standing, NOW).await;
    let quiet = |n: i64, keep| {
        let mut p = done("bell", &grant, at(5));
        p.cause = watchbell_core::Cause::Tick { due: at(n) };
        p.commit = Commit::new().with(row(n, "bell"));
        p.end.as_mut().unwrap().keep_lease = keep;
        p
    };
    for (n, keep) in [(1, true), (1, true), (2, true), (2, true), (3, false), (3, false)] {
        rig.store.publish(quiet(n, keep)).await.unwrap();
    }
    assert_eq!(rig.rows().await, 3);
    assert_eq!(rig.store.cycles(None, 9).await.unwrap().len(), 3);
    let worker = rig.store.workers().await.unwrap().remove(0);
    assert_eq!((worker.total_runs, worker.lease_owner), (3, None));
    let late = rig.store.publish(quiet(4, true)).await.unwrap_err();
    assert!(matches!(late, StoreError::Fenced { .. }), "{late}");
}

pub(crate) async fn steps_publish_and_keep_the_claim(rig: Rig) {
    let grant = rig.grant("bell", Target::Manual, NOW).await;
    for n in 1..=3 {
        let commit = Commit::new().with(row(n, "bell"));
        rig.store.publish(step("bell", &grant, at(n), commit)).await.unwrap();
    }
    assert_eq!(rig.rows().await, 3);
    assert_eq!(rig.store.cycles(None, 1).await.unwrap()[0].outcome, Outcome::Running);
    rig.store.publish(done("bell", &grant, at(4))).await.unwrap();
    let refused = rig.store.publish(step("bell", &grant, at(5), Commit::new())).await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
}

pub(crate) async fn a_burnt_claim_cannot_publish(rig: Rig) {
    let grant = rig.grant("bell", Target::Manual, NOW).await;
    let burn = ended("bell", &grant, at(40), Outcome::TimedOut, FollowUp::Finish);
    rig.store.burn(burn.clone()).await.unwrap();
    let refused = rig.store.publish(done("bell", &grant, at(41))).await.unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { .. }), "{refused}");
    assert_eq!(rig.store.cycles(None, 1).await.unwrap()[0].outcome, Outcome::TimedOut);
    let worker = rig.store.workers().await.unwrap().remove(0);
    assert_eq!((worker.total_errors, worker.lease_owner), (1, None));
    assert!(matches!(rig.store.burn(burn).await, Err(StoreError::Fenced { .. })));
    rig.grant("bell", Target::Manual, at(42)).await;
}

pub(crate) async fn a_quiet_cycle_writes_its_row_with_its_publication(rig: Rig) {
    let grant = rig.grant("bell", Target::Standing, NOW).await;
    for n in 1..=2 {
        let mut p = done("bell", &grant, at(n));
        p.cause = watchbell_core::Cause::Tick { due: at(n) };
        p.commit = Commit::new().with(row(n, "bell"));
        p.commit.emit("rows.stored", "bell", serde_json::Value::Null);
        p.commit.enqueue(NewJob::new("count", serde_json::Value::Null));
        p.end.as_mut().unwrap().keep_lease = true;
        rig.store.publish(p).await.unwrap();
    }
    let cycles = rig.store.cycles(None, 5).await.unwrap();
    assert_eq!(cycles.len(), 2);
    assert!(cycles.iter().all(|c| c.token == grant.token && c.outcome == Outcome::Succeeded));
    let query = EventQuery { after: Some(0), kinds: vec![], limit: 5 };
    let from: Vec<_> = rig.store.events(query).await.unwrap().iter().map(|e| e.cycle).collect();
    assert_eq!(from, [Some(cycles[1].id), Some(cycles[0].id)]);
    assert_eq!(rig.store.workers().await.unwrap()[0].lease_expires_at, Some(at(30)));
    assert_ne!(cycles[0].id, CycleId(0));
}

pub(crate) async fn failures_are_counted(rig: Rig) {
    for n in 0..3 {
        let grant = rig.grant("bell", Target::Manual, at(n)).await;
        let failed = ended("bell", &grant, at(n), Outcome::Failed, FollowUp::Finish);
        rig.store.publish(failed).await.unwrap();
    }
    let worker = rig.store.workers().await.unwrap().remove(0);
    assert_eq!((worker.consecutive_errors, worker.total_errors, worker.total_runs), (3, 3, 3));
    assert_eq!(worker.last_error.as_deref(), Some("the test failed it"));
    assert_eq!(worker.last_success_at, None);
    let grant = rig.grant("bell", Target::Manual, at(5)).await;
    let snoozed = ended("bell", &grant, at(5), Outcome::Snoozed, FollowUp::Finish);
    rig.store.publish(snoozed).await.unwrap();
    assert_eq!(rig.store.workers().await.unwrap()[0].consecutive_errors, 3);
    let grant = rig.grant("bell", Target::Manual, at(6)).await;
    rig.store.publish(done("bell", &grant, at(6))).await.unwrap();
    let worker = rig.store.workers().await.unwrap().remove(0);
    assert_eq!((worker.consecutive_errors, worker.total_errors, worker.total_runs), (0, 3, 5));
}
