//! The consumer of a queue: order, limits, ends, leases, and what it does when the store fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::job::Kind;
use watchbell_core::lifecycle::State;
use watchbell_core::port::{JobAction, JobChange, JobClaim, JobFilter, Outcome, Queue as _};
use watchbell_core::{
    BoxFuture, Commit, Condition, Cycle, Definition, Done, Effects, Fault, Millis, NewJob,
    QueueSpec, Trigger, Worker,
};
use watchbell_engine::{Action, Node, Report};

use crate::fixture::{Act, Boot, T0, World, at, every, job, queue, session};
use crate::watched::At;

/// Another node leases jobs, and is not heard of again.
async fn claim_elsewhere(w: &World, most: u32) -> Vec<i64> {
    let claim = JobClaim {
        worker: "a".into(),
        session: session("elsewhere", w.clock.now()).id,
        kinds: vec!["k".into()],
        most,
        now: w.clock.now(),
        ttl: Millis::from_secs(30),
    };
    let batch = w.store.claim_jobs(claim).await.expect("an answer");
    batch
        .grants
        .iter()
        .map(|g| match g.cause {
            watchbell_core::Cause::Job { id } => id,
            _ => panic!("{:?}", g.cause),
        })
        .collect()
}

async fn cancel(w: &World, boot: &Boot, id: i64) {
    let change = JobChange {
        filter: JobFilter { ids: vec![id], ..JobFilter::default() },
        action: JobAction::Cancel,
        limit: 10,
        preview: false,
        by: "ann".into(),
    };
    let changed = w.store.change_jobs(change, w.clock.now()).await.expect("changed");
    assert_eq!(changed.changed, 1);
    let cancelled = ["k".to_owned()].into();
    boot.handle.wake(Effects { cancelled, ..Effects::default() });
    w.settle().await;
}

#[tokio::test]
async fn jobs_run_by_priority_and_at_most_so_many_at_once() {
    let w = World::new().await;
    let a = w.worker("a", queue(2, 0));
    a.always(Act::held());
    let boot = w.boot(&[&a]).await;
    w.act(&boot, &a, Action::Pause).await;
    for (n, priority) in [(1, 0), (2, 5), (3, 0), (4, 9)] {
        w.enqueue(&boot, NewJob { priority: Some(priority), ..job(n) }).await;
    }
    w.enqueue(&boot, NewJob { run_at: Some(at(50)), ..job(5) }).await;
    w.act(&boot, &a, Action::Resume).await;
    assert_eq!(w.journal(), "a+4 a+2");
    a.release();
    w.settle().await;
    a.release();
    w.settle().await;
    assert_eq!(w.journal(), "a- a+1 a- a+3");
    for _ in 0..3 {
        a.release();
    }
    w.settle().await;
    assert_eq!(w.journal(), "a- a-");
    w.run_to(49).await;
    assert_eq!(w.journal(), "");
    w.run_to(50).await;
    assert_eq!(w.journal(), "a+5 a-", "a job waits for its time");
    assert_eq!(w.notes().await.len(), 5);
    w.down(boot).await;
    let record = w.record(&a).await;
    assert_eq!((record.total_runs, record.total_errors), (5, 0));
    assert_eq!(record.last_success_at, Some(at(50)));
}

#[tokio::test]
async fn jobs_that_write_nothing_are_ended_together() {
    let w = World::new().await;
    let a = w.worker("a", queue(50, 450));
    a.always(Act::Nothing);
    let boot = w.boot(&[&a]).await;
    let ids = w.enqueue_all(&boot, 0..2_000).await;
    w.run_for(1).await;
    for id in [ids[0], ids[999], ids[1_999]] {
        assert_eq!(w.state(id).await, "succeeded 1");
    }
    let counts = w.flight.counts();
    assert!(counts["claim_jobs"] <= 12, "{counts:?}");
    assert!(counts["finish_jobs"] <= 40, "{counts:?}");
    assert_eq!(counts.get("publish"), None);
    let begun: Vec<i64> =
        w.journal().split(' ').filter_map(|l| l.strip_prefix("a+")?.parse().ok()).collect();
    assert_eq!(begun, (0..2_000).collect::<Vec<_>>(), "in their order");
    w.down(boot).await;
    assert_eq!(w.record(&a).await.total_runs, 2_000);
}

#[tokio::test]
async fn a_burst_of_wake_ups_costs_one_claim() {
    let w = World::new().await;
    let a = w.worker("a", queue(2, 0));
    let boot = w.boot(&[&a]).await;
    let before = w.flight.counts()["claim_jobs"];
    for _ in 0..100 {
        boot.handle.wake(Effects { jobs: ["k".to_owned()].into(), ..Effects::default() });
    }
    w.settle().await;
    assert_eq!(w.flight.counts()["claim_jobs"], before + 1);
    boot.handle.wake(Effects { jobs: ["other".to_owned()].into(), ..Effects::default() });
    w.settle().await;
    assert_eq!(w.flight.counts()["claim_jobs"], before + 1);
    w.down(boot).await;
}

#[tokio::test]
async fn a_job_in_a_commit_is_picked_up_at_once() {
    let w = World::new().await;
    let a = w.worker("a", queue(1, 0));
    let source = w.worker("source", every(60));
    let mut commit = Commit::new();
    commit.enqueue(job(7));
    source.always(Act::Publish(commit));
    let boot = w.boot(&[&a, &source]).await;
    assert_eq!(w.journal(), "source+ source- a+7 a-");
    assert_eq!(w.clock.now(), T0);
    w.down(boot).await;
}

#[tokio::test]
async fn a_failing_job_is_retried_and_given_up() {
    let w = World::new().await;
    let a = w.worker("a", queue(1, 0));
    let boot = w.boot(&[&a]).await;
    a.script([Act::Fail, Act::Snooze(30), Act::Fail]);
    let id = w.enqueue(&boot, NewJob { max_attempts: Some(2), ..job(1) }).await;
    assert_eq!(w.state(id).await, "queued 1");
    w.run_to(100).await;
    assert_eq!(w.state(id).await, "failed 2", "a snooze spends none");
    assert_eq!(w.attempts(id).await, "failed snoozed failed");
    assert_eq!(w.events("job.dead").await, [id.to_string()]);
    let error = w.job(id).await.error.unwrap();
    assert!(error.contains("failed 2 of 2 attempts"), "{error}");
    a.script([Act::Forbid]);
    let hopeless = w.enqueue(&boot, job(2)).await;
    assert_eq!(w.state(hopeless).await, "failed 1");
    w.down(boot).await;
    let record = w.record(&a).await;
    assert_eq!((record.total_runs, record.total_errors, record.consecutive_errors), (4, 3, 3));
    assert_eq!(record.last_error.as_deref(), Some("the symbol does not exist"));
}

#[tokio::test]
async fn a_job_that_panics_fails_alone() {
    let w = World::new().await;
    let a = w.worker("a", queue(2, 0));
    a.script([Act::held(), Act::Panic]);
    let boot = w.boot(&[&a]).await;
    let first = w.enqueue(&boot, job(1)).await;
    let second = w.enqueue(&boot, job(2)).await;
    assert_eq!(
        (w.state(first).await, w.state(second).await),
        ("running 1".into(), "queued 1".into())
    );
    a.release();
    w.run_to(60).await;
    assert_eq!(w.notes().await, ["a job", "a job"]);
    assert_eq!(w.attempts(second).await, "failed");
    assert_eq!(w.life(&a).await, "INITIALIZING RUNNING");
    w.down(boot).await;
}

#[tokio::test]
async fn a_job_has_the_time_limit_of_its_kind() {
    let w = World::new().await;
    let kind = Kind::new("k").timeout(Millis::from_secs(10));
    let spec = QueueSpec { concurrency: 2, ..QueueSpec::one(kind) };
    let a = w.worker("a", Trigger::Queue(spec));
    a.script([Act::UntilCancelled, Act::Deaf]);
    let boot = w.boot(&[&a]).await;
    let polite = w.enqueue(&boot, NewJob { max_attempts: Some(1), ..job(1) }).await;
    let deaf = w.enqueue(&boot, NewJob { max_attempts: Some(2), ..job(2) }).await;
    w.run_to(9).await;
    assert_eq!(
        (w.state(polite).await, w.state(deaf).await),
        ("running 1".into(), "running 1".into())
    );
    w.run_to(10).await;
    assert_eq!(w.state(polite).await, "failed 1", "it obeyed, and its attempt counts");
    w.run_to(19).await;
    assert_eq!(w.state(deaf).await, "running 1");
    w.run_to(20).await;
    assert_eq!(w.state(deaf).await, "queued 1");
    w.run_to(60).await;
    assert_eq!(w.state(deaf).await, "succeeded 2");
    assert_eq!(w.attempts(polite).await + &w.attempts(deaf).await, "timed_outtimed_out");
    assert_eq!(w.events("job.dead").await, [polite.to_string()]);
    w.down(boot).await;
}

#[tokio::test]
async fn a_job_without_a_limit_of_its_own_has_its_workers() {
    let w = World::new().await;
    let (soft, hard) = (Millis::from_secs(10), Millis::from_secs(40));
    let a = w.define(Definition::new("a", queue(2, 0)).timeouts(soft, hard));
    a.always(Act::Deaf);
    let boot = w.boot(&[&a]).await;
    let id = w.enqueue(&boot, NewJob { max_attempts: Some(2), ..job(1) }).await;
    w.run_to(39).await;
    assert_eq!(w.state(id).await, "running 1");
    w.run_to(600).await;
    assert_eq!(w.state(id).await, "failed 2");
    assert_eq!(w.attempts(id).await, "timed_out timed_out");
    w.down(boot).await;
}

#[tokio::test]
async fn what_is_leased_ahead_is_given_back_at_a_stop() {
    for action in [Action::Stop, Action::Pause] {
        let w = World::new().await;
        let a = w.worker("a", queue(1, 3));
        a.always(Act::held());
        let boot = w.boot(&[&a]).await;
        let ids = w.enqueue_all(&boot, 1..6).await;
        let mut states = Vec::new();
        for id in &ids {
            states.push(w.state(*id).await);
        }
        assert_eq!(states, ["running 1", "running 1", "running 1", "running 1", "queued 0"]);
        w.act(&boot, &a, action).await;
        for id in &ids[1..] {
            assert_eq!(w.state(*id).await, "queued 0", "{action:?}");
        }
        a.release();
        w.settle().await;
        assert_eq!(w.state(ids[0]).await, "succeeded 1", "what runs may finish");
        w.run_for(60).await;
        assert_eq!(w.journal(), "a+1 a-");
        w.act(&boot, &a, Action::Start).await;
        assert_eq!(w.journal(), "a+2");
        w.act(&boot, &a, Action::Pause).await;
        w.act(&boot, &a, Action::Resume).await;
        for _ in 0..4 {
            a.release();
        }
        w.settle().await;
        assert_eq!(w.journal(), "a- a+3 a- a+4 a- a+5 a-", "a pause that is taken back");
        w.down(boot).await;
    }
}

#[tokio::test]
async fn a_stop_asks_waits_and_aborts_and_spends_no_attempt() {
    let w = World::new().await;
    let a = w.worker("a", queue(3, 0));
    a.script([Act::UntilCancelled, Act::Deaf, Act::Nothing]);
    let boot = w.boot(&[&a]).await;
    let ids = w.enqueue_all(&boot, 1..4).await;
    w.act(&boot, &a, Action::Stop).await;
    assert_eq!(w.state(ids[0]).await, "queued 0");
    assert_eq!(w.state(ids[1]).await, "running 1");
    assert_eq!(w.state(ids[2]).await, "succeeded 1");
    w.run_for(9).await;
    assert_eq!(w.view(&boot, &a).await.state, State::ShuttingDown);
    w.run_for(1).await;
    assert_eq!(w.state(ids[1]).await, "queued 0");
    assert_eq!(w.view(&boot, &a).await.state, State::Stopped);
    w.act(&boot, &a, Action::Start).await;
    assert_eq!(w.notes().await.len(), 2);
    w.down(boot).await;
}

#[tokio::test]
async fn a_shutdown_ends_what_has_run_before_the_session_closes() {
    let w = World::new().await;
    let a = w.worker("a", queue(2, 2));
    a.script([Act::Deaf, Act::UntilCancelled]);
    let boot = w.boot(&[&a]).await;
    let ids = w.enqueue_all(&boot, 1..6).await;
    w.down(boot).await;
    for id in ids {
        let job = w.job(id).await;
        assert_eq!((job.state.as_str(), job.attempts, job.reclaims), ("queued", 0, 0));
    }
    assert_eq!(w.last_session().await.0, "test over");
}

#[tokio::test]
async fn an_operator_cancels_jobs() {
    let w = World::new().await;
    let kind = Kind::new("k").timeout(Millis::from_secs(100));
    let spec = QueueSpec { concurrency: 3, ..QueueSpec::one(kind) };
    let a = w.worker("a", Trigger::Queue(spec));
    a.script([Act::UntilCancelled, Act::UntilCancelledThenOk, Act::Deaf]);
    let boot = w.boot(&[&a]).await;
    let ids = w.enqueue_all(&boot, 1..5).await;
    cancel(&w, &boot, ids[3]).await;
    assert_eq!(w.state(ids[3]).await, "cancelled 0", "it had not begun");
    cancel(&w, &boot, ids[0]).await;
    assert_eq!(w.state(ids[0]).await, "cancelled 1", "without waiting for the next renewal");
    assert_eq!(w.attempts(ids[0]).await, "cancelled");
    cancel(&w, &boot, ids[1]).await;
    w.run_for(1).await;
    assert_eq!(w.state(ids[1]).await, "cancelled 1", "whatever it came to");
    cancel(&w, &boot, ids[2]).await;
    w.run_to(199).await;
    assert_eq!(w.state(ids[2]).await, "running 1");
    w.run_to(200).await;
    assert_eq!(w.state(ids[2]).await, "cancelled 1");
    assert_eq!(w.notes().await, Vec::<String>::new());
    w.down(boot).await;
}

#[tokio::test]
async fn the_job_of_a_dead_holder_is_reclaimed() {
    let w = World::new().await;
    let a = w.worker("a", queue(1, 0));
    let boot = w.boot(&[&a]).await;
    w.act(&boot, &a, Action::Pause).await;
    let id = w.enqueue(&boot, job(1)).await;
    assert_eq!(claim_elsewhere(&w, 1).await, [id]);
    w.act(&boot, &a, Action::Resume).await;
    w.run_to(29).await;
    assert_eq!(w.journal(), "");
    w.run_to(30).await;
    assert_eq!(w.journal(), "a+1 a-");
    let stored = w.job(id).await;
    assert_eq!((stored.state.as_str(), stored.reclaims), ("succeeded", 1));
    assert_eq!(w.attempts(id).await, "lost");
    w.down(boot).await;
}

#[tokio::test]
async fn a_running_job_keeps_its_lease() {
    let w = World::new().await;
    let a = w.worker("a", queue(1, 1));
    a.always(Act::held());
    let boot = w.boot(&[&a]).await;
    let ids = w.enqueue_all(&boot, 1..3).await;
    w.run_to(200).await;
    assert_eq!(claim_elsewhere(&w, 9).await, Vec::<i64>::new());
    a.release();
    a.release();
    w.settle().await;
    assert_eq!(
        (w.state(ids[0]).await, w.state(ids[1]).await),
        ("succeeded 1".into(), "succeeded 1".into())
    );
    w.run_to(230).await;
    let before = w.flight.counts();
    w.run_to(400).await;
    assert_eq!(w.flight.counts(), before, "nothing to keep, nothing to ask");
    w.down(boot).await;
}

#[tokio::test]
async fn the_late_end_of_a_lost_job_is_refused() {
    let w = World::new().await;
    let a = w.worker("a", queue(2, 0));
    a.script([Act::held(), Act::Held(Box::new(Act::Nothing))]);
    let boot = w.boot(&[&a]).await;
    let ids = w.enqueue_all(&boot, 1..3).await;
    w.flight.fail("renew_jobs", 100, At::Before);
    // The machine sleeps for a minute; another node takes over.
    w.jump_to(60).await;
    assert_eq!(claim_elsewhere(&w, 9).await, ids);
    a.release();
    a.release();
    w.settle().await;
    w.run_for(5).await;
    assert_eq!(w.notes().await, Vec::<String>::new(), "nothing that it wrote is visible");
    assert_eq!(w.events("commit.refused").await.len(), 2);
    for id in ids {
        let stored = w.job(id).await;
        assert_eq!((stored.state.as_str(), stored.reclaims), ("running", 1));
        assert_eq!(stored.holder.unwrap().as_str(), "elsewhere");
    }
    w.down(boot).await;
}

#[tokio::test]
async fn a_job_whose_lease_cannot_be_renewed_is_asked_to_stop_before_it_ends() {
    let w = World::new().await;
    let a = w.worker("a", queue(1, 1));
    a.script([Act::UntilCancelled]);
    let boot = w.boot(&[&a]).await;
    let ids = w.enqueue_all(&boot, 1..3).await;
    w.flight.fail("renew_jobs", 1_000, At::Before);
    w.run_to(19).await;
    assert_eq!(w.journal(), "a+1");
    w.run_to(20).await;
    // Its end says that it was given back, and so does the store.
    assert!(w.journal().starts_with("a-"));
    w.run_to(60).await;
    assert_eq!(
        (w.state(ids[0]).await, w.state(ids[1]).await),
        ("succeeded 1".into(), "succeeded 1".into())
    );
    assert_eq!(w.job(ids[0]).await.reclaims, 0);
    assert_eq!(w.notes().await.len(), 2);
    w.down(boot).await;
}

#[tokio::test]
async fn a_store_that_fails_loses_no_job_and_runs_none_twice() {
    for when in [At::Before, At::After] {
        for method in ["claim_jobs", "finish_jobs", "publish", "release_jobs", "renew_jobs"] {
            let w = World::new().await;
            let a = w.worker("a", queue(3, 3));
            a.script([Act::Nothing, Act::Write, Act::Fail, Act::Nothing]);
            let boot = w.boot(&[&a]).await;
            w.flight.fail(method, 3, when);
            let ids = w.enqueue_all(&boot, 1..21).await;
            w.act(&boot, &a, Action::Pause).await;
            w.run_for(5).await;
            w.act(&boot, &a, Action::Resume).await;
            w.run_for(60).await;
            let place = format!("{method} {when:?}");
            for id in &ids {
                let job = w.job(*id).await;
                assert_eq!(
                    (job.state.as_str(), job.reclaims),
                    ("succeeded", 0),
                    "{place}: {job:?}"
                );
            }
            let journal = w.journal();
            let runs = journal.split(' ').filter(|l| l.contains('+')).count();
            assert_eq!(runs, 21, "one of them failed once ({place}): {journal}");
            assert_eq!(w.notes().await.len(), 18, "{place}");
            assert_eq!(w.life(&a).await, "INITIALIZING RUNNING PAUSED RUNNING", "{place}");
            w.down(boot).await;
        }
    }
}

#[tokio::test]
async fn a_store_that_is_away_for_long_costs_time_and_nothing_else() {
    let w = World::new().await;
    let a = w.worker("a", queue(2, 2));
    a.script([Act::Held(Box::new(Act::Nothing)), Act::held()]);
    let boot = w.boot(&[&a]).await;
    let ids = w.enqueue_all(&boot, 1..9).await;
    for method in ["claim_jobs", "finish_jobs", "publish", "release_jobs", "renew_jobs", "beat"] {
        w.flight.fail(method, 50, At::Before);
    }
    a.release();
    a.release();
    w.run_to(1_200).await;
    for id in ids {
        assert_eq!(w.job(id).await.state.as_str(), "succeeded");
    }
    // Whose end was not taken in time ran again, and is published once all the same.
    let journal = w.journal();
    assert_eq!(w.notes().await.len(), 8, "{journal}");
    assert!(journal.matches("a+1 ").count() > 1, "{journal}");
    assert_eq!(w.life(&a).await, "INITIALIZING RUNNING");
    w.down(boot).await;
}

#[tokio::test]
async fn a_condition_keeps_jobs_waiting() {
    let w = World::new().await;
    let a = w.define(Definition::new("a", queue(1, 2)).requires("venue"));
    let boot = w.boot(&[&a]).await;
    let says = |met| Effects {
        conditions: vec![Condition { name: "venue".into(), met, detail: "x".into(), until: None }],
        ..Effects::default()
    };
    let ids = w.enqueue_all(&boot, 1..4).await;
    assert_eq!(w.journal(), "");
    a.script([Act::held()]);
    boot.handle.wake(says(true));
    w.settle().await;
    assert_eq!(w.journal(), "a+1");
    boot.handle.wake(says(false));
    w.settle().await;
    a.release();
    w.run_to(60).await;
    assert_eq!(w.journal(), "a-", "what runs may finish");
    assert_eq!(w.state(ids[1]).await, "queued 0");
    let gate = w.record(&a).await.blocked.unwrap().to_string();
    assert!(gate.contains("venue"), "{gate}");
    boot.handle.wake(says(true));
    w.settle().await;
    assert_eq!(w.journal(), "a+2 a- a+3 a-");
    w.down(boot).await;
}

#[tokio::test]
async fn workers_of_one_lane_take_turns() {
    let w = World::new().await;
    let a = w.define(Definition::new("a", queue(2, 5)).lane("l"));
    let tick = w.define(Definition::new("tick", every(10)).lane("l"));
    a.always(Act::held());
    let boot = w.boot(&[&a, &tick]).await;
    w.enqueue_all(&boot, 1..6).await;
    assert_eq!(w.journal(), "tick+ tick- a+1 a+2");
    w.run_to(10).await;
    assert_eq!(w.journal(), "");
    for _ in 0..5 {
        a.release();
    }
    w.run_to(11).await;
    let journal = w.journal();
    assert!(journal.contains("tick+ tick-"), "{journal}");
    assert_eq!(w.notes().await.len(), 7, "{journal}");
    w.down(boot).await;
}

#[tokio::test]
async fn progress_is_shown_at_once_and_stored_each_second() {
    let w = World::new().await;
    let a = w.worker("a", queue(1, 0));
    a.script([Act::Progress(40.0, Box::new(Act::held()))]);
    let boot = w.boot(&[&a]).await;
    let id = w.enqueue(&boot, job(1)).await;
    let shown = w.view(&boot, &a).await.running;
    assert_eq!(shown.len(), 1);
    assert_eq!((shown[0].job, shown[0].since), (Some(id), at(0)));
    assert_eq!(shown[0].progress, Some((40.0, "so far".to_owned())));
    assert_eq!(w.job(id).await.progress, None);
    w.run_to(30).await;
    assert_eq!(w.job(id).await.progress, Some((40.0, "so far".to_owned())));
    assert_eq!(w.flight.counts()["progress_jobs"], 1);
    a.release();
    w.settle().await;
    assert_eq!(w.view(&boot, &a).await.running, []);
    w.down(boot).await;
}

#[tokio::test]
async fn an_operator_runs_one_job() {
    let w = World::new().await;
    let a = w.worker("a", queue(2, 2));
    let boot = w.boot(&[&a]).await;
    assert!(matches!(boot.handle.run(a.name(), None, false).await, Report::Idle { .. }));
    w.act(&boot, &a, Action::Pause).await;
    let ids = w.enqueue_all(&boot, 1..4).await;
    assert!(matches!(boot.handle.run(a.name(), None, false).await, Report::Blocked { .. }));
    a.script([Act::Fail, Act::Panic]);
    for outcome in [Outcome::Failed, Outcome::Failed, Outcome::Succeeded] {
        match boot.handle.run(a.name(), None, true).await {
            Report::Ran(ran) => assert_eq!(ran.outcome, outcome),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(w.journal(), "a+1 a- a+2 a- a+3 a-");
    assert_eq!(
        (w.state(ids[0]).await, w.state(ids[2]).await),
        ("queued 1".into(), "succeeded 1".into())
    );
    assert_eq!(w.life(&a).await, "INITIALIZING RUNNING PAUSED");
    w.down(boot).await;
    assert_eq!(w.record(&a).await.total_runs, 3);
}

/// A job that does nothing but count.
struct Noop(Arc<AtomicU64>);

impl Worker for Noop {
    fn define(&self) -> Definition {
        Definition::new("noop", queue(64, 936))
    }
    fn run<'a>(&'a self, _: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        self.0.fetch_add(1, Ordering::Release);
        Box::pin(async { Ok(Done::nothing()) })
    }
}

/// Not a test: what the engine itself costs per job, on a store that costs nothing.
#[test]
#[ignore = "a measurement: run it with --release --nocapture"]
fn overhead() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let w = World::new().await;
        let store = Arc::new(w.store.node(watchbell_core::port::Hearing::Alone));
        let options = w.options.borrow().clone();
        let clock = Clock::system();
        let begun = Arc::new(AtomicU64::new(0));
        let worker = Arc::new(Noop(Arc::clone(&begun)));
        let workers = vec![(worker.define(), worker as Arc<dyn Worker>)];
        let record = session("node", clock.now());
        let node = Node::start(Arc::clone(&store) as _, clock.clone(), record, workers, options);
        let node = node.await.unwrap();
        for _ in 0..5 {
            let jobs = 500_000;
            store.give_free(jobs);
            let watch = Stopwatch::start();
            let handle = node.handle();
            handle.wake(Effects { jobs: ["k".to_owned()].into(), ..Effects::default() });
            while store.free_left() > 0 {
                clock.sleep(Millis(1)).await;
            }
            let secs = watch.elapsed().as_secs_f64();
            eprintln!("{:.0} jobs/s, {:.2} us each", jobs as f64 / secs, secs * 1e6 / jobs as f64);
            clock.sleep(Millis(200)).await;
        }
        let mut late = Vec::new();
        for n in 0..2_000 {
            let watch = Stopwatch::start();
            w.store.inner.enqueue(vec![job(n)], clock.now()).await.unwrap();
            let stored = watch.elapsed();
            begun.store(0, Ordering::Release);
            let handle = node.handle();
            handle.wake(Effects { jobs: ["k".to_owned()].into(), ..Effects::default() });
            while begun.load(Ordering::Acquire) == 0 {
                tokio::task::yield_now().await;
            }
            late.push(watch.elapsed() - stored);
        }
        late.sort_unstable();
        eprintln!("pick-up on SQLite: p50 {:?}, p99 {:?}", late[1_000], late[1_980]);
        node.shutdown("measured").await.unwrap();
    });
}
