//! The right to run: kept by renewal, lost with time, and refused at the commit when lost.

use watchbell_core::port::{Claim, ClaimRequest, Grant, Store, Target};
use watchbell_core::{Definition, Ledger, Millis, Trigger};
use watchbell_engine::Action;

use crate::fixture::{Act, Scripted, World, every, session};
use crate::watched::At;

const TTL: Millis = Millis::from_secs(30);

/// Claims a worker on behalf of another node.
async fn claim_elsewhere(w: &World, worker: &Scripted, target: Target) -> Claim {
    let request = ClaimRequest {
        worker: worker.name().clone(),
        session: session("elsewhere", w.clock.now()).id,
        now: w.clock.now(),
        ttl: TTL,
        target,
        passed: Vec::new(),
    };
    w.store.claim(request).await.expect("an answer")
}

fn granted(claim: Claim) -> Grant {
    match claim {
        Claim::Granted(grant) => grant,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_running_cycle_keeps_its_lease() {
    let w = World::new().await;
    let a = w.worker("a", every(3_600));
    a.script([Act::held()]);
    let boot = w.boot(&[&a]).await;
    w.run_to(200).await;
    assert!(matches!(claim_elsewhere(&w, &a, Target::Manual).await, Claim::Held { .. }));
    a.release();
    w.settle().await;
    assert_eq!(w.cycles(&a).await, ["tick@0 succeeded"]);
    w.down(boot).await;
}

#[tokio::test]
async fn a_cycle_paused_past_its_lease_publishes_nothing() {
    let w = World::new().await;
    let a = w.worker("a", every(3_600));
    a.script([Act::held()]);
    let boot = w.boot(&[&a]).await;
    w.flight.fail("renew", 100, At::Before);
    // The machine sleeps for a minute; another node takes over.
    w.jump_to(60).await;
    let other = granted(claim_elsewhere(&w, &a, Target::Manual).await);
    a.release();
    w.settle().await;
    assert_eq!(w.cycles(&a).await, ["tick@0 fenced", "manual running"]);
    assert_eq!(w.notes().await, Vec::<String>::new(), "nothing that it wrote is visible");
    assert_eq!(w.events("commit.refused").await, ["a"]);
    assert_eq!(w.record(&a).await.lease_token, other.token);
    w.down(boot).await;
}

#[tokio::test]
async fn a_lease_that_ran_out_is_lost_even_when_nobody_took_it() {
    let w = World::new().await;
    let a = w.worker("a", every(3_600));
    a.script([Act::held()]);
    let boot = w.boot(&[&a]).await;
    w.flight.fail("renew", 100, At::Before);
    w.jump_to(30).await;
    a.release();
    w.settle().await;
    assert_eq!(w.cycles(&a).await, ["tick@0 fenced"]);
    assert_eq!(w.notes().await, Vec::<String>::new());
    w.run_to(3_600).await;
    assert_eq!(w.notes().await, ["a tick@3600"], "the worker goes on");
    w.down(boot).await;
}

#[tokio::test]
async fn a_step_after_the_lease_was_lost_is_refused() {
    let w = World::new().await;
    let a = w.worker("a", every(3_600));
    a.script([Act::Steps(1, Box::new(Act::Held(Box::new(Act::Steps(1, Box::new(Act::Write))))))]);
    let boot = w.boot(&[&a]).await;
    assert_eq!(w.notes().await.len(), 1);
    w.flight.fail("renew", 100, At::Before);
    w.jump_to(60).await;
    granted(claim_elsewhere(&w, &a, Target::Manual).await);
    a.release();
    w.settle().await;
    assert_eq!(w.notes().await.len(), 1, "only the step that was published under the lease");
    assert_eq!(w.cycles(&a).await[0], "tick@0 fenced");
    w.down(boot).await;
}

#[tokio::test]
async fn a_lost_lease_ends_the_cycle_and_the_worker_goes_on() {
    let w = World::new().await;
    let polite = w.worker("polite", every(3_600));
    let stream = w.worker("stream", Trigger::Stream);
    polite.script([Act::UntilCancelled]);
    stream.always(Act::UntilCancelledThenOk);
    let boot = w.boot(&[&polite, &stream]).await;
    w.flight.fail("renew", 2, At::Before);
    w.run_to(19).await;
    assert_eq!(w.journal(), "polite+ stream+");
    w.run_to(45).await;
    // Two renewals failed: too close to the end of the lease to trust it.
    assert!(w.journal().contains("polite- stream- stream+"));
    let view = w.view(&boot, &stream).await;
    assert_eq!(view.running.len(), 1, "a stream begins again: {view:?}");
    w.down(boot).await;
}

#[tokio::test]
async fn a_worker_waits_while_another_node_has_it() {
    let w = World::new().await;
    let a = w.worker("a", every(20));
    let boot = w.boot(&[&a]).await;
    granted(claim_elsewhere(&w, &a, Target::Manual).await);
    w.run_to(29).await;
    assert_eq!(w.ledger(&a).await, ["0 fired"]);
    let gate = w.record(&a).await.blocked.unwrap().to_string();
    assert!(gate.contains("elsewhere"), "{gate}");
    w.run_to(59).await;
    assert_eq!(w.ledger(&a).await, ["0 fired", "20 fired", "40 fired"]);
    assert_eq!(w.record(&a).await.blocked, None);
    w.down(boot).await;
}

#[tokio::test]
async fn the_work_of_a_dead_node_is_taken_back_and_its_late_commit_refused() {
    let w = World::new().await;
    let a = w.worker("a", every(60));
    a.script([Act::held()]);
    let zombie = w.boot(&[&a]).await;
    // The node is taken for dead: another boot owns the store now.
    let fresh = w.boot(&[&a]).await;
    assert_eq!((fresh.node.recovered.sessions, fresh.node.recovered.cycles), (1, 1));
    assert_eq!(w.cycles(&a).await, ["tick@0 lost"]);
    a.release();
    w.settle().await;
    assert_eq!(w.cycles(&a).await, ["tick@0 fenced"]);
    assert_eq!(w.notes().await, Vec::<String>::new());
    w.run_to(60).await;
    assert_eq!(w.ledger(&a).await, ["0 fired", "60 fired"], "two nodes, one row, one cycle");
    assert_eq!(w.notes().await, ["a tick@60"]);
    w.down(zombie).await;
    w.down(fresh).await;
}

fn quiet(w: &World, name: &str) -> std::sync::Arc<Scripted> {
    let a = w.define(Definition::new(name, every(1)).ledger(Ledger::Quiet));
    a.always(Act::Nothing);
    a
}

#[tokio::test]
async fn a_quiet_worker_leaves_heartbeats_and_no_rows() {
    let w = World::new().await;
    let a = quiet(&w, "a");
    let boot = w.boot(&[&a]).await;
    w.run_to(60).await;
    let record = w.record(&a).await;
    assert!((55..=61).contains(&record.total_runs), "{}", record.total_runs);
    assert_eq!(w.flight.counts()["claim"], 1, "one standing lease");
    assert_eq!(w.flight.counts().get("publish"), None);
    assert!(w.flight.counts()["beat"] <= 13);
    assert_eq!((w.ledger(&a).await.len(), w.cycles(&a).await.len()), (0, 0));
    // What it publishes, and how it fails, is recorded.
    a.script([Act::Write, Act::Fail]);
    w.run_to(62).await;
    assert_eq!(w.cycles(&a).await, ["tick@61 succeeded", "tick@62 failed"]);
    assert_eq!(w.notes().await, ["a tick@61"]);
    w.down(boot).await;
    assert_eq!(w.record(&a).await.total_runs, 63, "the last beats are flushed at the end");
}

#[tokio::test]
async fn a_quiet_worker_is_fenced_when_another_node_took_its_lease() {
    let w = World::new().await;
    let a = quiet(&w, "a");
    let boot = w.boot(&[&a]).await;
    a.script([Act::held()]);
    w.run_to(1).await;
    w.flight.fail("renew", 100, At::Before);
    w.jump_to(40).await;
    granted(claim_elsewhere(&w, &a, Target::Standing).await);
    a.release();
    w.settle().await;
    assert_eq!(w.notes().await, Vec::<String>::new());
    assert_eq!(w.events("commit.refused").await, ["a"]);
    w.run_to(45).await;
    let gate = w.record(&a).await.blocked.unwrap().to_string();
    assert!(gate.contains("elsewhere"), "{gate}");
    w.journal();
    w.run_to(69).await;
    assert_eq!(w.journal(), "");
    w.run_to(75).await;
    assert!(w.journal().starts_with("a+ a-"), "the other's lease ran out");
    w.down(boot).await;
}

#[tokio::test]
async fn a_quiet_worker_runs_again_after_a_restart_a_panic_and_a_refused_commit() {
    let w = World::new().await;
    let a = quiet(&w, "a");
    let other = quiet(&w, "other");
    let boot = w.boot(&[&a, &other]).await;
    let wrong = watchbell_core::Statement::new("update scan.notes set cause = 'x'", vec![])
        .expect(watchbell_core::Expect::Exactly(7));
    let refused = Act::Publish(watchbell_core::Commit::new().with(wrong));
    w.run_to(10).await;
    w.act(&boot, &a, Action::Restart).await;
    a.script([Act::Write]);
    w.run_to(12).await;
    assert_eq!(w.notes().await, ["a tick@11"], "restarted");
    a.script([refused, Act::Write]);
    w.run_to(14).await;
    assert_eq!(w.notes().await.last().unwrap(), "a tick@14", "refused");
    a.script([Act::Panic, Act::Write]);
    w.run_to(30).await;
    assert_eq!(w.notes().await.len(), 3, "panicked");
    w.down(boot).await;
}
