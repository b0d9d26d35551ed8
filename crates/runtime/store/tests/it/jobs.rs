use std::collections::BTreeMap;

use serde_json::json;
use watchbell_core::job::{
    ATTEMPTS_KEPT, Kind, MAX_PAYLOAD, MAX_RECLAIMS, MAX_RESULT, Mask, State,
};
use watchbell_core::port::{
    Enqueued, EventQuery, FollowUp, Grant, HeldJob, JobAction, JobBatch, JobChange, JobClaim,
    JobEnd, JobFilter, JobProgress, JobQuery, JobRecord, Outcome, Registration, Retention,
    StoreError,
};
use watchbell_core::{Cause, Commit, CycleInput, Millis, NewJob, Time, Token};
use watchbell_testkit::registration;

use crate::{NOW, Rig, TTL, at, done, ended, row, step};

pub(crate) fn job(kind: &str) -> NewJob {
    NewJob::new(kind, json!({"of": kind}))
}

pub(crate) fn id(grant: &Grant) -> i64 {
    match grant.cause {
        Cause::Job { id } => id,
        ref other => panic!("{other:?} is not a job"),
    }
}

fn ids(grants: &[Grant]) -> Vec<i64> {
    grants.iter().map(id).collect()
}

/// The end of a granted job that succeeded.
pub(crate) fn success(grant: &Grant) -> JobEnd {
    JobEnd {
        id: id(grant),
        token: grant.token,
        outcome: Outcome::Succeeded,
        follow_up: FollowUp::Finish,
        result: json!({"ok": true}),
        error: None,
        started_at: NOW,
    }
}

/// The end of a granted job whose attempt failed.
pub(crate) fn failure(grant: &Grant, follow_up: FollowUp) -> JobEnd {
    let error = Some("it broke".to_owned());
    JobEnd { outcome: Outcome::Failed, follow_up, error, result: json!(null), ..success(grant) }
}

impl Rig {
    async fn get(&self, id: i64) -> JobRecord {
        self.store.job(id).await.expect("a query").expect("a job")
    }

    async fn add(&self, jobs: Vec<NewJob>, now: Time) -> Vec<i64> {
        let added = self.store.enqueue(jobs, now).await.expect("jobs are added");
        added.into_iter().map(|a| a.id().expect("a new job")).collect()
    }

    async fn batch(&self, by: &str, kinds: &[&str], most: u32, now: Time) -> JobBatch {
        let kinds = kinds.iter().map(|k| (*k).to_owned()).collect();
        let claim =
            JobClaim { worker: "watch".into(), session: by.into(), kinds, most, now, ttl: TTL };
        self.store.claim_jobs(claim).await.expect("a claim of jobs")
    }

    async fn finish(&self, by: &str, ends: Vec<JobEnd>, now: Time) -> Vec<bool> {
        self.store.finish_jobs(&"watch".into(), &by.into(), ends, now).await.expect("an answer")
    }

    async fn kind(&self, kind: Kind, now: Time) {
        let worker = Registration { kinds: vec![kind], ..registration("watch") };
        self.store.register(&[worker], now).await.expect("a kind");
    }

    async fn change(&self, action: JobAction, filter: JobFilter, now: Time) -> (u64, u64, u64) {
        let change = JobChange { filter, action, limit: 9_999, preview: false, by: "ann".into() };
        let done = self.store.change_jobs(change, now).await.expect("a change");
        (done.matched, done.changed, done.asked)
    }

    async fn refusals(&self) -> usize {
        let kinds = vec!["commit.refused".to_owned()];
        let query = EventQuery { after: Some(0), kinds, limit: 99 };
        self.store.events(query).await.expect("events").len()
    }
}

pub(crate) async fn jobs_run_by_priority_and_time(rig: Rig) {
    let jobs = vec![
        NewJob { run_at: Some(at(50)), priority: Some(9), ..job("sum") },
        NewJob { run_at: Some(at(-5)), ..job("count") },
        NewJob { run_at: Some(at(-9)), ..job("sum") },
        NewJob { priority: Some(3), ..job("count") },
        job("x"),
    ];
    let added = rig.add(jobs, NOW).await;
    let grants = rig.jobs(&["count", "sum"], 9, at(1)).await;
    assert_eq!(ids(&grants), [added[3], added[2], added[1]], "across kinds as within one");
    let first = &grants[0];
    assert_eq!((first.attempt, first.max_attempts, first.token), (1, 5, Token(1)));
    assert_eq!((first.cycle.0, first.expires_at), (0, at(1) + TTL));
    let CycleInput::Job { kind, payload } = &first.input else { panic!("{:?}", first.input) };
    assert_eq!((kind.as_str(), payload), ("count", &json!({"of": "count"})));
    let running = rig.get(added[3]).await;
    assert_eq!((running.state, running.attempts), (State::Running, 1));
    assert_eq!((running.holder, running.worker), (Some("one".into()), Some("watch".into())));
    assert_eq!(running.lease_expires_at, Some(at(1) + TTL));
    let ends = grants.iter().map(success).collect();
    assert_eq!(rig.finish("one", ends, at(2)).await, [true; 3]);
    let over = rig.get(added[3]).await;
    assert_eq!((over.state, over.result), (State::Succeeded, Some(json!({"ok": true}))));
    assert_eq!((over.started_at, over.finished_at), (Some(NOW), Some(at(2))));
    assert_eq!((over.holder, over.lease_expires_at), (None, None));
    assert_eq!(rig.get(added[4]).await.state, State::Queued);
}

pub(crate) async fn a_job_for_later_comes_when_it_is_due(rig: Rig) {
    let later = NewJob { run_at: Some(at(50)), ..job("count") };
    let soon = NewJob { run_at: Some(at(1)), ..job("count") };
    let added = rig.add(vec![later, soon], NOW).await;
    let none = rig.batch("one", &["count"], 5, NOW).await;
    assert_eq!((none.grants.len(), none.next), (0, Some(at(1))));
    let one = rig.batch("one", &["count"], 5, at(1)).await;
    assert_eq!((ids(&one.grants), one.next), (vec![added[1]], Some(at(49))));
    let ahead = rig.batch("two", &["count"], 5, at(9)).await;
    assert_eq!((ahead.grants.len(), ahead.next), (0, Some(at(31))), "a lease ends before");
    assert_eq!(rig.finish("one", vec![success(&one.grants[0])], at(9)).await, [true]);
    let ahead = rig.batch("two", &["count"], 5, at(49)).await;
    assert_eq!((ahead.grants.len(), ahead.next), (0, Some(at(50))));
    assert_eq!(ids(&rig.jobs(&["count"], 5, at(50)).await), [added[0]]);
    let many = (0..5_000).map(|_| NewJob { run_at: Some(at(90)), ..job("sum") }).collect();
    rig.add(many, at(50)).await;
    assert_eq!(rig.jobs(&["sum"], 9_000, at(90)).await.len(), 5_000, "also without a word before");
}

pub(crate) async fn a_failed_job_is_retried_and_ends(rig: Rig) {
    let job_id = rig.add(vec![job("count")], NOW).await[0];
    let first = rig.jobs(&["count"], 1, at(1)).await.remove(0);
    let retry = failure(&first, FollowUp::Retry { at: at(10) });
    assert_eq!(rig.finish("one", vec![retry], at(2)).await, [true]);
    let stored = rig.get(job_id).await;
    assert_eq!((stored.state, stored.attempts, stored.run_at), (State::Queued, 1, at(10)));
    assert_eq!((stored.error.as_deref(), stored.holder), (Some("it broke"), None));
    assert!(rig.jobs(&["count"], 1, at(9)).await.is_empty());
    let second = rig.jobs(&["count"], 1, at(10)).await.remove(0);
    assert_eq!((second.attempt, second.token), (2, Token(2)));
    let snooze = JobEnd {
        outcome: Outcome::Snoozed,
        error: None,
        ..failure(&second, FollowUp::Again { at: at(20) })
    };
    assert_eq!(rig.finish("one", vec![snooze], at(11)).await, [true]);
    let third = rig.jobs(&["count"], 1, at(20)).await.remove(0);
    assert_eq!(third.attempt, 2, "a snooze spends no attempt");
    let bury = failure(&third, FollowUp::GiveUp { reason: "enough".to_owned() });
    assert_eq!(rig.finish("one", vec![bury], at(21)).await, [true]);
    let stored = rig.get(job_id).await;
    assert_eq!((stored.state, stored.error.as_deref()), (State::Failed, Some("enough")));
    assert_eq!((stored.finished_at, stored.attempts), (Some(at(21)), 2));
    let attempts = rig.store.attempts(job_id).await.unwrap();
    let told: Vec<_> = attempts.iter().map(|a| (a.attempt, a.outcome, a.finished_at)).collect();
    assert_eq!(
        told,
        [(1, Outcome::Failed, at(2)), (2, Outcome::Snoozed, at(11)), (2, Outcome::Failed, at(21)),]
    );
    assert_eq!(attempts[0].error.as_deref(), Some("it broke"));
    assert_eq!(
        (attempts[0].started_at, attempts[0].session.clone()),
        (Some(NOW), Some("one".into()))
    );
    let empty = rig.batch("one", &["count"], 1, at(99)).await;
    assert_eq!(empty, JobBatch::default());
}

pub(crate) async fn a_dead_holders_job_is_reclaimed_and_counted(rig: Rig) {
    let job_id = rig.add(vec![job("count")], NOW).await[0];
    let mut now = at(1);
    let mut last = rig.batch("one", &["count"], 1, now).await;
    for reclaims in 1..MAX_RECLAIMS {
        let waits = rig.batch("two", &["count"], 1, now).await;
        assert_eq!((waits.grants.len(), waits.next), (0, Some(now + TTL)));
        now += TTL;
        let late = rig.finish("one", vec![success(&last.grants[0])], now).await;
        assert_eq!(late, [false], "an expired lease ends nothing");
        last = rig.batch("one", &["count"], 1, now).await;
        assert_eq!((last.reclaimed, last.buried, last.grants.len()), (1, 0, 1));
        let stored = rig.get(job_id).await;
        assert_eq!((stored.reclaims, stored.attempts), (reclaims, 1));
        assert_eq!(last.grants[0].token, Token(i64::from(reclaims) + 1));
    }
    now += TTL;
    let over = rig.batch("two", &["count"], 1, now).await;
    assert_eq!((over.grants.len(), over.next, over.buried), (0, None, 1));
    let stored = rig.get(job_id).await;
    assert_eq!((stored.state, stored.reclaims, stored.attempts), (State::Failed, MAX_RECLAIMS, 0));
    assert_eq!(stored.error.as_deref(), Some("5 holders died while they worked on it"));
    let attempts = rig.store.attempts(job_id).await.unwrap();
    assert_eq!(attempts.len(), MAX_RECLAIMS as usize);
    assert!(attempts.iter().all(|a| a.outcome == Outcome::Lost && a.attempt == 1), "{attempts:?}");
    assert_eq!(rig.refusals().await, MAX_RECLAIMS as usize - 1);
    let zombie = failure(&last.grants[0], FollowUp::GiveUp { reason: "late".to_owned() });
    assert_eq!(
        rig.finish("one", vec![zombie], now).await,
        [false],
        "it was not the one who ended it"
    );
}

/// Leases that are over are seen also while there is always more to do.
pub(crate) async fn a_busy_claim_reclaims_too(rig: Rig) {
    let first = rig.add(vec![job("count")], NOW).await[0];
    rig.jobs(&["count"], 1, NOW).await;
    rig.add((0..9).map(|_| job("count")).collect(), NOW).await;
    let busy = rig.batch("two", &["count"], 2, NOW + TTL).await;
    assert_eq!((busy.grants.len(), busy.reclaimed, busy.next), (2, 1, None));
    let next = rig.batch("two", &["count"], 1, NOW + TTL).await;
    assert_eq!(ids(&next.grants), [first], "and it is the first again");
}

pub(crate) async fn a_job_is_fenced(rig: Rig) {
    rig.add(vec![job("count"), job("count"), job("count")], NOW).await;
    let grants = rig.jobs(&["count"], 3, at(1)).await;
    let [first, second, third] = grants.as_slice() else { panic!("{grants:?}") };
    assert_eq!(rig.store.renew_jobs(&"one".into(), TTL, at(20)).await.unwrap().len(), 3);
    rig.store.publish(done("watch", first, at(40))).await.unwrap();
    let burn = ended("watch", second, at(41), Outcome::TimedOut, FollowUp::Retry { at: at(60) });
    rig.store.burn(burn).await.unwrap();
    for late in [
        done("watch", second, at(42)),
        ended("watch", second, at(42), Outcome::TimedOut, FollowUp::Retry { at: at(60) }),
        step("watch", second, at(42), Commit::new()),
    ] {
        let refused = rig.store.publish(late).await.unwrap_err();
        assert!(matches!(refused, StoreError::Fenced { .. }), "{refused}");
    }
    let stored = rig.get(id(second)).await;
    assert_eq!(
        (stored.state, stored.error.as_deref()),
        (State::Queued, Some("the test failed it"))
    );
    let mut stranger = success(third);
    assert_eq!(rig.finish("two", vec![stranger.clone()], at(45)).await, [false]);
    stranger.token = Token(7);
    assert_eq!(rig.finish("one", vec![stranger], at(45)).await, [false]);
    let late = rig.store.publish(done("watch", third, at(90))).await.unwrap_err();
    assert!(matches!(late, StoreError::Fenced { .. }), "{late}");
    assert_eq!(rig.get(id(third)).await.state, State::Running);
    assert_eq!(rig.refusals().await, 6);
    assert!(rig.store.cycles(None, 9).await.unwrap().is_empty(), "a job is its own cycle");
}

pub(crate) async fn an_end_may_be_told_again(rig: Rig) {
    rig.add((0..4).map(|_| job("count")).collect(), NOW).await;
    let grants = rig.jobs(&["count"], 4, NOW).await;
    let ends = vec![
        success(&grants[0]),
        failure(&grants[1], FollowUp::Retry { at: at(9) }),
        failure(&grants[2], FollowUp::GiveUp { reason: "no".to_owned() }),
        JobEnd { token: Token(9), ..success(&grants[3]) },
    ];
    assert_eq!(rig.finish("one", ends.clone(), at(1)).await, [true, true, true, false]);
    assert_eq!(rig.finish("one", ends, at(2)).await, [true, true, true, false]);
    assert_eq!(rig.refusals().await, 2);
    let other = failure(&grants[0], FollowUp::Retry { at: at(9) });
    assert_eq!(rig.finish("one", vec![other], at(2)).await, [false], "it ended otherwise");
    assert_eq!(rig.store.attempts(id(&grants[1])).await.unwrap().len(), 1);
    assert_eq!(rig.get(id(&grants[0])).await.finished_at, Some(at(1)));
    let both = vec![success(&grants[3]), success(&grants[3])];
    assert_eq!(rig.finish("one", both, at(3)).await, [true, true]);
    assert_eq!(rig.finish("one", vec![], at(3)).await, [true; 0]);
}

pub(crate) async fn a_job_publishes_with_its_commit(rig: Rig) {
    rig.add(vec![job("count")], NOW).await;
    let grant = rig.jobs(&["count"], 1, NOW).await.remove(0);
    let part = Commit::new().with(row(1, "watch"));
    rig.store.publish(step("watch", &grant, at(1), part)).await.unwrap();
    let mut end = done("watch", &grant, at(2));
    end.commit = Commit::new().with(row(2, "watch"));
    end.commit.enqueue(job("sum")).emit("counted", "x", json!(1));
    rig.store.publish(end.clone()).await.unwrap();
    rig.store.publish(end).await.unwrap();
    assert_eq!(rig.rows().await, 2, "the second time nothing happens");
    let stored = rig.get(id(&grant)).await;
    assert_eq!((stored.state, stored.result), (State::Succeeded, Some(json!({"at": at(2)}))));
    assert_eq!(rig.jobs(&["sum"], 9, at(3)).await.len(), 1);
    assert!(rig.store.cycles(None, 9).await.unwrap().is_empty());
    rig.add(vec![job("count")], at(4)).await;
    let grant = rig.jobs(&["count"], 1, at(4)).await.remove(0);
    let reason = "ann: no longer wanted".to_owned();
    let cancel = FollowUp::Cancel { reason: reason.clone() };
    rig.store.publish(ended("watch", &grant, at(5), Outcome::Cancelled, cancel)).await.unwrap();
    let stored = rig.get(id(&grant)).await;
    assert_eq!((stored.state, stored.error), (State::Cancelled, Some(reason)));
    assert_eq!(rig.store.attempts(stored.id).await.unwrap()[0].outcome, Outcome::Cancelled);
}

pub(crate) async fn given_back_jobs_spend_no_attempt(rig: Rig) {
    let added = rig.add(vec![job("count"), job("count")], NOW).await;
    let grants = rig.jobs(&["count"], 2, NOW).await;
    let lost = (id(&grants[1]), Token(8));
    let back = vec![lost, (id(&grants[0]), grants[0].token)];
    rig.store.release_jobs(&"one".into(), back, at(1)).await.unwrap();
    let stored = rig.get(added[0]).await;
    assert_eq!((stored.state, stored.attempts, stored.reclaims), (State::Queued, 0, 0));
    assert_eq!(rig.get(added[1]).await.state, State::Running);
    assert!(rig.store.attempts(added[0]).await.unwrap().is_empty());
    let again = rig.jobs(&["count"], 2, at(1)).await;
    assert_eq!((again.len(), again[0].token, again[0].attempt), (1, Token(2), 1));
}

pub(crate) async fn a_holder_hears_what_it_holds(rig: Rig) {
    rig.add((0..3).map(|_| job("count")).collect(), NOW).await;
    let grants = rig.jobs(&["count"], 3, NOW).await;
    rig.finish("one", vec![success(&grants[0])], at(1)).await;
    let filter = JobFilter { ids: vec![id(&grants[1])], ..JobFilter::default() };
    assert_eq!(rig.change(JobAction::Cancel, filter, at(2)).await, (1, 1, 1));
    let held = |grant: &Grant, cancel| HeldJob { id: id(grant), token: grant.token, cancel };
    let renewed = rig.store.renew_jobs(&"one".into(), TTL, at(20)).await.unwrap();
    assert_eq!(renewed, [held(&grants[1], true), held(&grants[2], false)]);
    assert!(rig.get(id(&grants[1])).await.cancel_requested);
    assert_eq!(rig.store.renew_jobs(&"two".into(), TTL, at(20)).await.unwrap(), []);
    assert_eq!(rig.store.renew_jobs(&"one".into(), TTL, at(50)).await.unwrap(), []);
}

pub(crate) async fn progress_is_shown_while_it_runs(rig: Rig) {
    rig.add(vec![job("count"), job("count")], NOW).await;
    let grants = rig.jobs(&["count"], 2, NOW).await;
    let progress = |grant: &Grant, token, percent| JobProgress {
        id: id(grant),
        token,
        percent,
        message: format!("{percent} of all"),
    };
    let told =
        vec![progress(&grants[1], Token(9), 70.0), progress(&grants[0], grants[0].token, 40.5)];
    rig.store.progress_jobs(told, at(1)).await.unwrap();
    rig.store.progress_jobs(vec![], at(1)).await.unwrap();
    let shown = rig.get(id(&grants[0])).await.progress;
    assert_eq!(shown, Some((40.5, "40.5 of all".to_owned())));
    assert_eq!(rig.get(id(&grants[1])).await.progress, None);
    rig.finish("one", vec![failure(&grants[0], FollowUp::Retry { at: at(2) })], at(2)).await;
    rig.jobs(&["count"], 1, at(2)).await;
    assert_eq!(rig.get(id(&grants[0])).await.progress, None, "another attempt begins anew");
}

pub(crate) async fn a_unique_key_counts_in_its_states(rig: Rig) {
    let once = |mask: &[State]| NewJob { unique_in: Mask::of(mask), ..job("count").unique("k") };
    let add = async |job: &NewJob, now| rig.store.enqueue(vec![job.clone()], now).await.unwrap()[0];
    for (n, mask) in [
        vec![],
        vec![State::Running],
        vec![State::Succeeded],
        vec![State::Running, State::Failed],
        State::ALL.to_vec(),
    ]
    .iter()
    .enumerate()
    {
        let key = once(mask);
        let now = at(100 * i64::try_from(n).unwrap());
        let twice = rig.store.enqueue(vec![key.clone(), job("count"), key.clone()], now).await;
        let twice = twice.unwrap();
        let (first, plain) = (twice[0].id().unwrap(), twice[1].id().unwrap());
        assert!(first < plain);
        assert_eq!(twice[2], Enqueued::Duplicate(Some(first)));
        assert_eq!(add(&key, now).await, Enqueued::Duplicate(Some(first)));
        let other = NewJob { kind: "sum".to_owned(), ..key.clone() };
        assert!(add(&other, now).await.id().is_some(), "a key is its kind's own");
        let grant = rig.jobs(&["count"], 1, now).await.remove(0);
        assert_eq!(id(&grant), first);
        let during = add(&key, now).await;
        assert_eq!(during.id().is_none(), Mask::of(mask).has(State::Running), "{mask:?}");
        let live = JobFilter { state: Some(State::Queued), ..JobFilter::default() };
        rig.change(JobAction::Cancel, live.clone(), now).await;
        rig.finish("one", vec![success(&grant)], now).await;
        let after = add(&key, now).await;
        assert_eq!(after.id().is_none(), Mask::of(mask).has(State::Succeeded), "{mask:?}");
        rig.change(JobAction::Cancel, live, now).await;
        rig.change(JobAction::Purge, JobFilter::default(), now).await;
        let keys = rig.db.query("select * from ops.job_keys", vec![]).await.unwrap();
        assert!(keys.is_empty(), "{mask:?}: {keys:?}");
    }
}

pub(crate) async fn a_key_that_was_taken_meanwhile_stays_taken(rig: Rig) {
    let key = NewJob { unique_in: Mask::QUEUED, ..job("count").unique("k") };
    let first = rig.add(vec![key.clone()], NOW).await[0];
    let grant = rig.jobs(&["count"], 1, NOW).await.remove(0);
    let second = rig.add(vec![key.clone()], NOW).await[0];
    rig.finish("one", vec![failure(&grant, FollowUp::Retry { at: NOW })], NOW).await;
    assert_eq!(rig.get(first).await.state, State::Queued, "it goes on without its key");
    let third = rig.store.enqueue(vec![key.clone()], NOW).await.unwrap();
    assert_eq!(third, [Enqueued::Duplicate(Some(second))]);
    let grants = rig.jobs(&["count"], 2, NOW).await;
    assert_eq!(ids(&grants), [first, second]);
    rig.store.release_jobs(&"one".into(), vec![(first, grants[0].token)], NOW).await.unwrap();
    let third = rig.store.enqueue(vec![key], NOW).await.unwrap();
    assert_eq!(third, [Enqueued::Duplicate(Some(first))], "it was free, and is its own again");
}

pub(crate) async fn bad_jobs_are_refused_by_place(rig: Rig) {
    let schema = json!({
        "type": "object", "required": ["legs"], "additionalProperties": false,
        "properties": {"legs": {"type": "array", "items": {
            "type": "object", "properties": {"symbol": {"type": "string"}},
        }}},
    });
    rig.kind(Kind::new("typed").schema(schema), NOW).await;
    let good = NewJob::new("typed", json!({"legs": [{"symbol": "A"}]}));
    let with = |payload| NewJob { payload, ..good.clone() };
    for (bad, place, said) in [
        (job("unknown"), "jobs[1].kind", "there is no kind of job `unknown`"),
        (
            with(json!({"legs": [{"symbol": "A"}, {"symbol": 7}]})),
            "jobs[1].payload.legs[1].symbol",
            "7 is not of type \"string\"",
        ),
        (with(json!({})), "jobs[1].payload", "\"legs\" is a required property"),
        (with(json!({"legs": [], "x": 1})), "jobs[1].payload", "'x' was unexpected"),
        (
            NewJob::new("count", json!("x".repeat(MAX_PAYLOAD))),
            "jobs[1].payload",
            "1048578 bytes of JSON, and at most 1048576",
        ),
        (NewJob { priority: Some(-1), ..good.clone() }, "jobs[1].priority", "-1 is negative"),
        (NewJob { max_attempts: Some(0), ..good.clone() }, "jobs[1].max_attempts", "1 or more"),
        (good.clone().unique(""), "jobs[1].unique_key", "empty"),
        (NewJob { limit_key: Some(String::new()), ..good.clone() }, "jobs[1].limit_key", "empty"),
        (
            NewJob { run_at: Some(Time(1_795_316_400)), ..good.clone() },
            "jobs[1].run_at",
            "1970-01-21T18:41:56.4Z is before 2000-01-01",
        ),
    ] {
        let refused = rig.store.enqueue(vec![good.clone(), bad], NOW).await.unwrap_err();
        let StoreError::Invalid { place: at, problem } = refused else { panic!("{refused}") };
        assert_eq!(at, place, "{problem}");
        assert!(problem.contains(said), "{place}: {problem}");
    }
    let limit = NewJob::new("count", json!("x".repeat(MAX_PAYLOAD - 2)));
    let oldest = NewJob { run_at: Some(watchbell_core::job::OLDEST_RUN_AT), ..good.clone() };
    rig.add(vec![limit, oldest], NOW).await;
    let grants = rig.jobs(&["count"], 1, NOW).await;
    let mut p = done("watch", &grants[0], NOW);
    p.commit = Commit::new().with(row(1, "watch"));
    p.commit.enqueue(good).enqueue(job("unknown"));
    let refused = rig.store.publish(p).await.unwrap_err();
    assert!(refused.to_string().starts_with("jobs[1].kind: there is no kind"), "{refused}");
    assert_eq!(rig.rows().await, 0, "the whole publication is refused");
    let none = Kind::new("none").schema(json!({"type": "nonsense"}));
    let worker = Registration { kinds: vec![none], ..registration("watch") };
    let refused = rig.store.register(&[worker], NOW).await.unwrap_err();
    assert!(refused.to_string().starts_with("kind `none` of worker `watch`, schema"), "{refused}");
}

pub(crate) async fn a_kind_says_what_a_job_leaves_out(rig: Rig) {
    let mut kind = Kind::new("count");
    (kind.priority, kind.max_attempts) = (7, 2);
    rig.kind(kind.clone(), at(10)).await;
    let own = NewJob { priority: Some(0), max_attempts: Some(9), ..job("count") };
    let added = rig.add(vec![job("count"), own], at(10)).await;
    let stored = rig.get(added[0]).await;
    assert_eq!((stored.priority, stored.max_attempts, stored.run_at), (7, 2, at(10)));
    let stored = rig.get(added[1]).await;
    assert_eq!((stored.priority, stored.max_attempts), (0, 9));
    let kinds = rig.store.kinds().await.unwrap();
    let names: Vec<_> = kinds.iter().map(|k| k.kind.name.as_str()).collect();
    assert_eq!(names, ["count", "sum", "x", "y"]);
    assert_eq!((&kinds[0].kind, kinds[0].registered_at), (&kind, at(10)));
    assert_eq!(kinds[0].worker, "watch".into());
}

pub(crate) async fn what_is_kept_of_a_job_is_bounded(rig: Rig) {
    let most = NewJob { max_attempts: Some(99), ..job("count") };
    let job_id = rig.add(vec![most], NOW).await[0];
    for n in 0..i64::from(ATTEMPTS_KEPT) + 3 {
        let grant = rig.jobs(&["count"], 1, at(n)).await.remove(0);
        rig.finish("one", vec![failure(&grant, FollowUp::Retry { at: at(n) })], at(n)).await;
    }
    let attempts = rig.store.attempts(job_id).await.unwrap();
    assert_eq!((attempts.len(), attempts[0].attempt), (ATTEMPTS_KEPT as usize, 4));
    let grant = rig.jobs(&["count"], 1, at(99)).await.remove(0);
    let long = JobEnd { result: json!("x".repeat(MAX_RESULT)), ..success(&grant) };
    rig.finish("one", vec![long], at(99)).await;
    let result = rig.get(job_id).await.result.unwrap();
    assert!(result["left_out"].as_str().unwrap().contains("65538 bytes"), "{result}");
}

pub(crate) async fn an_operator_changes_jobs_by_filter(rig: Rig) {
    let mut jobs: Vec<NewJob> = (0..1_200).map(|_| job("count")).collect();
    jobs.extend((0..3).map(|_| NewJob { run_at: Some(at(900)), ..job("sum") }));
    let added = rig.add(jobs, NOW).await;
    let running = rig.jobs(&["count"], 2, at(1)).await;
    let of = |kind: &str| JobFilter { kind: Some(kind.to_owned()), ..JobFilter::default() };
    let preview = JobChange {
        filter: of("count"),
        action: JobAction::Cancel,
        limit: 9_999,
        preview: true,
        by: "ann".to_owned(),
    };
    let told = rig.store.change_jobs(preview.clone(), at(1)).await.unwrap();
    assert_eq!((told.matched, told.changed, told.asked, told.sample.len()), (1_200, 0, 0, 10));
    assert_eq!((told.sample[0].id, told.sample[0].state), (added[0], State::Running));
    let bounded = JobChange { preview: false, limit: 600, ..preview };
    let told = rig.store.change_jobs(bounded, at(1)).await.unwrap();
    assert_eq!((told.matched, told.changed, told.asked), (1_200, 600, 2));
    assert_eq!(rig.change(JobAction::Cancel, of("count"), at(1)).await, (600, 600, 0));
    let stored = rig.get(added[9]).await;
    assert_eq!((stored.state, stored.finished_at), (State::Cancelled, Some(at(1))));
    assert_eq!(stored.error.as_deref(), Some("cancelled by ann"));

    assert_eq!(rig.change(JobAction::RunNow, JobFilter::default(), at(2)).await, (3, 3, 0));
    assert_eq!(rig.jobs(&["sum"], 9, at(2)).await.len(), 3);
    assert_eq!(rig.change(JobAction::RunNow, JobFilter::default(), at(2)).await, (0, 0, 0));

    // What runs and was cancelled ends when its holder lets it go, however it does.
    rig.store
        .release_jobs(&"one".into(), vec![(id(&running[0]), running[0].token)], at(3))
        .await
        .unwrap();
    let again = failure(&running[1], FollowUp::Retry { at: at(4) });
    assert_eq!(rig.finish("one", vec![again], at(3)).await, [true]);
    for grant in &running {
        let stored = rig.get(id(grant)).await;
        assert_eq!(stored.state, State::Cancelled);
        assert_eq!(stored.error.as_deref(), Some("cancelled by ann"));
    }
    let some = JobFilter { ids: added[..700].to_vec(), ..of("count") };
    assert_eq!(rig.change(JobAction::Redrive, some, at(4)).await, (700, 700, 0));
    let stored = rig.get(id(&running[1])).await;
    assert_eq!((stored.state, stored.attempts, stored.run_at), (State::Queued, 0, at(4)));
    let grant = rig.jobs(&["count"], 2, at(4)).await.remove(1);
    assert_eq!((id(&grant), grant.token, grant.attempt), (id(&running[1]), Token(2), 1));
    let ended = JobFilter { state: Some(State::Cancelled), ..JobFilter::default() };
    assert_eq!(rig.change(JobAction::Purge, ended.clone(), at(5)).await, (500, 500, 0));
    assert_eq!(rig.change(JobAction::Purge, ended, at(5)).await, (0, 0, 0));
    let live = JobFilter { state: Some(State::Running), ..JobFilter::default() };
    assert_eq!(rig.change(JobAction::Purge, live, at(5)).await, (0, 0, 0), "never what lives");
    assert_eq!(rig.store.job(added[1_199]).await.unwrap(), None);
}

pub(crate) async fn a_redriven_job_needs_its_key(rig: Rig) {
    let bury = async |n| {
        let first = rig.add(vec![job("count").unique("k")], at(n)).await[0];
        let grant = rig.jobs(&["count"], 1, at(n)).await.remove(0);
        let end = failure(&grant, FollowUp::GiveUp { reason: "no".to_owned() });
        rig.finish("one", vec![end], at(n)).await;
        first
    };
    let (first, second) = (bury(0).await, bury(1).await);
    let third = rig.add(vec![job("count").unique("k")], at(2)).await[0];
    assert_eq!(rig.change(JobAction::Redrive, JobFilter::default(), at(3)).await, (2, 0, 0));
    let only = JobFilter { ids: vec![third], ..JobFilter::default() };
    rig.change(JobAction::Cancel, only.clone(), at(4)).await;
    rig.change(JobAction::Purge, only, at(4)).await;
    assert_eq!(rig.change(JobAction::Redrive, JobFilter::default(), at(5)).await, (2, 1, 0));
    assert_eq!(rig.get(first).await.state, State::Queued);
    assert_eq!(rig.get(second).await.state, State::Failed);
    let again = rig.store.enqueue(vec![job("count").unique("k")], at(6)).await.unwrap();
    assert_eq!(again, [Enqueued::Duplicate(Some(first))]);
}

/// What an operator cancelled is not run again when its holder died.
pub(crate) async fn a_cancelled_job_of_a_dead_holder_ends(rig: Rig) {
    let job_id = rig.add(vec![job("count")], NOW).await[0];
    rig.jobs(&["count"], 1, NOW).await;
    assert_eq!(rig.change(JobAction::Cancel, JobFilter::default(), at(1)).await, (1, 1, 1));
    let later = rig.batch("two", &["count"], 1, NOW + TTL).await;
    assert_eq!((later.grants.len(), later.reclaimed, later.buried), (0, 1, 0));
    let stored = rig.get(job_id).await;
    assert_eq!((stored.state, stored.reclaims), (State::Cancelled, 1));
    assert_eq!(rig.store.attempts(job_id).await.unwrap()[0].outcome, Outcome::Lost);
}

pub(crate) async fn jobs_are_found_by_filter_and_page(rig: Rig) {
    let mut jobs: Vec<NewJob> = (0..6).map(|_| job("count")).collect();
    jobs.push(NewJob { limit_key: Some("ann".to_owned()), ..job("sum").unique("k") });
    let added = rig.add(jobs, NOW).await;
    let grants = rig.jobs(&["count"], 3, at(1)).await;
    let ends = vec![
        success(&grants[0]),
        failure(&grants[1], FollowUp::GiveUp { reason: "50% of it broke".to_owned() }),
    ];
    rig.finish("one", ends, at(2)).await;
    let find = async |filter: JobFilter, before, limit| {
        let query = JobQuery { filter, before, limit };
        let found = rig.store.jobs(query).await.unwrap();
        found.iter().map(|j| j.id).collect::<Vec<_>>()
    };
    let all = JobFilter::default;
    let newest: Vec<i64> = added.iter().rev().copied().collect();
    assert_eq!(find(all(), None, 4).await, newest[..4]);
    assert_eq!(find(all(), Some(newest[3]), 9).await, newest[4..]);
    for (filter, found) in [
        (JobFilter { kind: Some("sum".to_owned()), ..all() }, vec![added[6]]),
        (JobFilter { state: Some(State::Running), ..all() }, vec![added[2]]),
        (JobFilter { state: Some(State::Failed), ..all() }, vec![added[1]]),
        (JobFilter { unique_key: Some("k".to_owned()), ..all() }, vec![added[6]]),
        (JobFilter { limit_key: Some("ann".to_owned()), ..all() }, vec![added[6]]),
        (JobFilter { error: Some("0% of".to_owned()), ..all() }, vec![added[1]]),
        (JobFilter { error: Some("%".to_owned()), ..all() }, vec![added[1]]),
        (JobFilter { created_before: Some(NOW), ..all() }, vec![]),
        (JobFilter { finished_before: Some(at(3)), ..all() }, vec![added[1], added[0]]),
        (JobFilter { finished_before: Some(at(2)), ..all() }, vec![]),
        (JobFilter { ids: vec![added[4], added[0], -1], ..all() }, vec![added[4], added[0]]),
    ] {
        assert_eq!(find(filter.clone(), None, 9).await, found, "{filter:?}");
    }
    assert_eq!(rig.store.job(-1).await.unwrap(), None);
    let named = rig.get(added[6]).await;
    assert_eq!((named.unique_key.as_deref(), named.unique_in), (Some("k"), Mask::LIVE));
}

pub(crate) async fn a_queue_is_counted(rig: Rig) {
    rig.add((0..4).map(|_| job("count")).collect(), NOW).await;
    rig.add(vec![NewJob { run_at: Some(at(70)), ..job("count") }], NOW).await;
    let grants = rig.jobs(&["count"], 2, at(1)).await;
    rig.finish("one", vec![success(&grants[0])], at(1)).await;
    let stats = rig.store.queue_stats(at(2)).await.unwrap();
    assert_eq!(stats.keys().map(String::as_str).collect::<Vec<_>>(), ["count", "sum", "x", "y"]);
    let count = &stats["count"];
    let counts = BTreeMap::from([(State::Queued, 3), (State::Running, 1), (State::Succeeded, 1)]);
    assert_eq!(count.counts, counts);
    assert_eq!((count.due, count.oldest_due, count.next_due), (2, Some(NOW), Some(at(70))));
    assert_eq!(stats["x"], watchbell_core::port::KindStats::default());
    let sql = "select kind, status, attempts, scheduled_for, finished_at from ingest.jobs
        where status = 'succeeded'";
    let row = rig.db.query_one(sql, vec![]).await.unwrap();
    assert_eq!((row.text(0).unwrap(), row.i64(2).unwrap()), ("count", 1));
    assert_eq!(row.text(3).unwrap(), "2026-11-22T03:00:00.000Z");
    assert_eq!(row.text(4).unwrap(), "2026-11-22T03:00:01.000Z");
}

pub(crate) async fn old_jobs_go_with_all_that_was_theirs(rig: Rig) {
    let ever = NewJob { unique_in: Mask::EVER, ..job("count").unique("k") };
    rig.add(vec![ever.clone(), job("count"), job("count")], NOW).await;
    let grants = rig.jobs(&["count"], 2, NOW).await;
    let bury = |grant| failure(grant, FollowUp::GiveUp { reason: "no".to_owned() });
    rig.finish("one", vec![bury(&grants[0])], at(1)).await;
    rig.finish("one", vec![bury(&grants[1])], at(9)).await;
    assert!(rig.store.enqueue(vec![ever.clone()], at(9)).await.unwrap()[0].id().is_none());
    let long = Millis::from_secs(9_999);
    let keep = Retention { cycles: long, occurrences: long, events: long, jobs: Millis(4_000) };
    assert_eq!(rig.store.prune(keep, 100, at(5)).await.unwrap().jobs, 0);
    assert_eq!(rig.store.prune(keep, 100, at(6)).await.unwrap().jobs, 1);
    assert_eq!(rig.store.job(id(&grants[0])).await.unwrap(), None);
    assert!(rig.store.attempts(id(&grants[0])).await.unwrap().is_empty());
    assert_eq!(rig.store.attempts(id(&grants[1])).await.unwrap().len(), 1);
    assert!(rig.store.enqueue(vec![ever], at(9)).await.unwrap()[0].id().is_some());
    assert_eq!(rig.store.prune(keep, 100, at(999)).await.unwrap().jobs, 1);
}

pub(crate) async fn a_node_that_ends_gives_its_jobs_back(rig: Rig) {
    let added = rig.add((0..3).map(|_| job("count")).collect(), NOW).await;
    rig.batch("one", &["count"], 2, NOW).await;
    rig.batch("two", &["count"], 1, NOW).await;
    rig.store.close_session(&"one".into(), "clean stop", at(1)).await.unwrap();
    let states: Vec<_> = [rig.get(added[0]).await, rig.get(added[2]).await]
        .iter()
        .map(|j| (j.state, j.reclaims, j.attempts))
        .collect();
    assert_eq!(states, [(State::Queued, 1, 0), (State::Running, 0, 1)]);
    let attempts = rig.store.attempts(added[0]).await.unwrap();
    assert_eq!(attempts[0].error.as_deref(), Some("its node stopped"));
    assert_eq!(rig.store.recover(&"three".into(), false, at(2)).await.unwrap().jobs, 0);
    assert_eq!(rig.store.recover(&"three".into(), true, at(2)).await.unwrap().jobs, 1);
    assert_eq!(ids(&rig.jobs(&["count"], 9, at(3)).await), added);
}
