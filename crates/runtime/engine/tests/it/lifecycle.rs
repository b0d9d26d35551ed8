//! Starting, stopping, pausing, failing and restarting.

use watchbell_core::gate::Gate;
use watchbell_core::lifecycle::State;
use watchbell_core::{Definition, Millis, Trigger};
use watchbell_engine::{Action, Report};

use crate::fixture::{Act, World, at, every, secs};

#[tokio::test]
async fn workers_start_in_order_and_stop_in_reverse() {
    let w = World::new().await;
    let c = w.define(Definition::new("c", every(60)).needs("b"));
    let b = w.define(Definition::new("b", every(60)).needs("a"));
    let a = w.define(Definition::new("a", every(60)));
    for worker in [&a, &b, &c] {
        worker.always(Act::UntilCancelled);
    }
    let boot = w.boot(&[&c, &b, &a]).await;
    assert_eq!(w.journal(), "a+ b+ c+");
    w.down(boot).await;
    assert_eq!(w.journal(), "c- b- a-");
    for worker in [&a, &b, &c] {
        assert_eq!(w.life(worker).await, "INITIALIZING RUNNING SHUTTING_DOWN STOPPED");
        assert_eq!(w.cycles(worker).await, ["tick@0 cancelled"]);
    }
}

#[tokio::test]
async fn a_worker_waits_for_what_it_needs() {
    let w = World::new().await;
    let a = w.define(Definition::new("a", every(60)));
    let hard = w.define(Definition::new("hard", every(60)).needs("a"));
    let soft = w.define(Definition::new("soft", every(60)).after("a"));
    let boot = w.boot(&[&a, &hard, &soft]).await;
    w.down(boot).await;
    // As an operator leaves it: stopped, and remembered so over boots.
    w.want_stopped(&a).await;
    w.journal();
    w.run_to(30).await;
    let boot = w.boot(&[&a, &hard, &soft]).await;
    assert_eq!(w.view(&boot, &a).await.state, State::Stopped);
    assert_eq!(w.view(&boot, &soft).await.state, State::Running);
    let waiting = w.view(&boot, &hard).await;
    assert_eq!(waiting.state, State::Initializing);
    assert!(
        matches!(&waiting.gate, Some(Gate::Dependency { worker, .. }) if worker == a.name()),
        "{:?}",
        waiting.gate
    );
    assert_eq!(w.record(&hard).await.blocked, waiting.gate);
    w.run_to(60).await;
    assert_eq!(w.journal(), "soft+ soft-");

    w.act(&boot, &a, Action::Start).await;
    assert_eq!(w.view(&boot, &hard).await.state, State::Running);
    assert_eq!(w.record(&hard).await.blocked, None, "a cleared gate is not shown");
    let begun = w.journal();
    assert!(begun.contains("a+") && begun.contains("hard+"), "{begun}");
    w.down(boot).await;
}

#[tokio::test]
async fn a_pause_lets_the_cycle_finish_and_a_resume_makes_the_missed_ticks_one() {
    let w = World::new().await;
    let a = w.worker("a", every(60));
    a.script([Act::held()]);
    let boot = w.boot(&[&a]).await;
    w.act(&boot, &a, Action::Pause).await;
    assert_eq!(w.view(&boot, &a).await.state, State::Paused);
    assert_eq!(w.journal(), "a+");
    a.release();
    w.settle().await;
    assert_eq!(w.cycles(&a).await, ["tick@0 succeeded"], "the cycle was allowed to finish");
    w.run_to(250).await;
    assert_eq!(w.ledger(&a).await, ["0 fired"], "nothing starts while it is paused");
    w.act(&boot, &a, Action::Resume).await;
    assert_eq!(w.ledger(&a).await, ["0 fired", "60..180 merged 3", "240 fired"]);
    w.run_to(300).await;
    assert_eq!(w.ledger(&a).await.last().unwrap(), "300 fired");
    assert_eq!(w.life(&a).await, "INITIALIZING RUNNING PAUSED RUNNING");
    w.down(boot).await;
}

#[tokio::test]
async fn a_paused_worker_stays_paused_over_boots() {
    let w = World::new().await;
    let a = w.worker("a", every(60));
    let s = w.worker("s", Trigger::Stream);
    s.always(Act::UntilCancelled);
    let boot = w.boot(&[&a, &s]).await;
    w.act(&boot, &a, Action::Pause).await;
    w.act(&boot, &s, Action::Pause).await;
    w.down(boot).await;
    w.run_to(600).await;
    w.journal();
    let boot = w.boot(&[&a, &s]).await;
    assert_eq!(w.view(&boot, &a).await.state, State::Paused);
    w.run_to(700).await;
    assert_eq!(w.journal(), "", "a paused worker starts no cycle on its way to its pause");
    w.act(&boot, &a, Action::Resume).await;
    assert_eq!(w.ledger(&a).await, ["0 fired", "60..600 merged 10", "660 fired"]);
    w.down(boot).await;
}

#[tokio::test]
async fn a_panic_is_caught_and_answered_by_a_restart_after_a_backoff() {
    let w = World::new().await;
    let a = w.worker("a", every(60));
    let other = w.worker("other", every(60));
    a.script([Act::Panic]);
    let boot = w.boot(&[&a, &other]).await;
    let view = w.view(&boot, &a).await;
    assert_eq!(view.state, State::Restarting);
    let Some(Gate::RestartBackoff { until }) = view.gate else { panic!("{:?}", view.gate) };
    assert!((4..=6).contains(&secs(until)), "{until}");
    assert_eq!(w.cycles(&a).await, ["tick@0 failed"]);
    let record = w.record(&a).await;
    assert!(record.last_error.unwrap().contains("panicked: scripted"));
    assert_eq!(w.cycles(&other).await, ["tick@0 succeeded"]);
    w.run_to(60).await;
    assert_eq!(w.life(&a).await, "INITIALIZING RUNNING FAILED RESTARTING INITIALIZING RUNNING");
    assert_eq!(w.ledger(&a).await, ["0 fired", "60 fired"]);
    w.down(boot).await;
}

#[tokio::test]
async fn a_stream_that_returns_unasked_has_failed() {
    let w = World::new().await;
    let s = w.worker("s", Trigger::Stream);
    s.script([Act::Nothing, Act::Fail]).always(Act::UntilCancelledThenOk);
    let boot = w.boot(&[&s]).await;
    assert_eq!(w.view(&boot, &s).await.state, State::Restarting);
    w.run_to(3_600).await;
    assert_eq!(w.view(&boot, &s).await.running.len(), 1, "the third run goes on");
    assert_eq!(w.cycles(&s).await, ["stream failed", "stream failed", "stream running"]);
    w.down(boot).await;
    assert_eq!(w.cycles(&s).await.last().unwrap(), "stream succeeded");
}

#[tokio::test]
async fn a_spent_budget_leaves_the_worker_failed_until_an_operator_acts() {
    let w = World::new().await;
    let a = w.worker("a", Trigger::Stream);
    a.always(Act::Panic);
    let boot = w.boot(&[&a]).await;
    w.run_to(1_800).await;
    assert_eq!(w.view(&boot, &a).await.state, State::Failed);
    assert_eq!(w.cycles(&a).await.len(), 6, "five restarts, and the failure after the last");
    assert!(matches!(w.view(&boot, &a).await.gate, Some(Gate::GaveUp { .. })));
    w.act(&boot, &a, Action::Resume).await;
    w.run_to(10_000).await;
    assert_eq!(w.view(&boot, &a).await.state, State::Failed, "only a start or restart resets it");
    w.down(boot).await;

    let boot = w.boot(&[&a]).await;
    assert_eq!(w.view(&boot, &a).await.state, State::Failed, "a new boot does not forget");
    assert!(matches!(w.record(&a).await.blocked, Some(Gate::GaveUp { .. })));
    a.always(Act::UntilCancelled);
    w.act(&boot, &a, Action::Restart).await;
    let view = w.view(&boot, &a).await;
    assert_eq!((view.state, view.running.len()), (State::Running, 1));
    w.down(boot).await;
}

#[tokio::test]
async fn a_storm_of_failures_holds_restarts_back() {
    let w = World::new().await;
    let workers: Vec<_> = (0..25).map(|n| w.worker(&format!("w{n:02}"), Trigger::Stream)).collect();
    for worker in &workers {
        worker.script([Act::Fail]).always(Act::UntilCancelled);
    }
    let boot = w.boot(&workers.iter().collect::<Vec<_>>()).await;
    w.run_to(10).await;
    let views = boot.handle.view().await;
    let waiting: Vec<_> = views.iter().filter(|v| v.state == State::Restarting).collect();
    assert_eq!(waiting.len(), 5, "twenty restarts in a minute, and no more");
    assert!(waiting.iter().all(|v| matches!(v.gate, Some(Gate::Storm { .. }))), "{waiting:?}");
    w.run_to(300).await;
    let views = boot.handle.view().await;
    assert!(views.iter().all(|v| v.state == State::Running), "it calmed down: {views:?}");
    w.down(boot).await;
}

#[tokio::test]
async fn a_soft_timeout_asks_and_a_hard_one_aborts() {
    let w = World::new().await;
    let (soft, hard) = (Millis::from_secs(10), Millis::from_secs(20));
    let polite = w.define(Definition::new("polite", every(3_600)).timeouts(soft, hard));
    let deaf = w.define(Definition::new("deaf", every(3_600)).timeouts(soft, hard));
    polite.script([Act::UntilCancelled]);
    deaf.script([Act::Steps(1, Box::new(Act::Deaf))]);
    let boot = w.boot(&[&polite, &deaf]).await;
    w.run_to(9).await;
    assert_eq!(w.journal(), "polite+ deaf+");
    w.run_to(10).await;
    assert_eq!(w.journal(), "polite-");
    w.run_to(19).await;
    assert_eq!(w.journal(), "");
    let token = w.record(&deaf).await.lease_token;
    w.run_to(20).await;
    assert_eq!(w.journal(), "deaf-");
    assert_eq!(w.cycles(&polite).await, ["tick@0 cancelled"]);
    assert_eq!(w.cycles(&deaf).await, ["tick@0 timed_out"]);
    assert_eq!(w.view(&boot, &deaf).await.state, State::Restarting);
    assert_eq!(w.view(&boot, &polite).await.state, State::Running);
    let record = w.record(&deaf).await;
    assert_eq!((record.lease_owner, record.lease_token), (None, token));
    assert_eq!(w.notes().await, ["deaf tick@0"], "a published step stays");
    w.down(boot).await;
}

#[tokio::test]
async fn a_shutdown_asks_then_waits_and_then_aborts() {
    let w = World::new().await;
    let polite = w.worker("polite", every(60));
    let slow = w.worker("slow", every(60));
    let deaf = w.worker("deaf", every(60));
    polite.always(Act::UntilCancelled);
    slow.always(Act::held());
    deaf.always(Act::Deaf);
    let boot = w.boot(&[&polite, &slow, &deaf]).await;
    w.run_to(5).await;
    let ending = tokio::spawn(boot.node.shutdown("asked"));
    w.settle().await;
    assert_eq!(w.view_states(&boot.handle).await, ["STOPPED", "SHUTTING_DOWN", "SHUTTING_DOWN"]);
    slow.release();
    w.run_to(14).await;
    assert!(!ending.is_finished(), "its grace is ten seconds");
    w.run_to(15).await;
    ending.await.unwrap().unwrap();
    assert_eq!(w.cycles(&polite).await, ["tick@0 cancelled"]);
    assert_eq!(w.cycles(&slow).await, ["tick@0 succeeded"], "work that ends in time is kept");
    assert_eq!(w.cycles(&deaf).await, ["tick@0 cancelled"]);
    let record = w.record(&deaf).await;
    assert_eq!((record.state, record.lease_owner), (State::Stopped, None));
    assert_eq!(w.last_session().await, ("asked".to_owned(), Some(at(15))));
}

#[tokio::test]
async fn a_forced_cycle_of_a_stopped_worker_is_ended_with_the_node() {
    let w = World::new().await;
    let a = w.worker("a", every(60));
    let boot = w.boot(&[&a]).await;
    w.act(&boot, &a, Action::Stop).await;
    a.script([Act::UntilCancelled]);
    let (handle, name) = (boot.handle.clone(), a.name().clone());
    let running = tokio::spawn(async move { handle.run(&name, None, true).await });
    w.settle().await;
    assert_eq!(w.cycles(&a).await, ["tick@0 succeeded", "manual running"]);
    w.down(boot).await;
    assert!(matches!(running.await.unwrap(), Report::Ran(_)));
    assert_eq!(w.cycles(&a).await, ["tick@0 succeeded", "manual cancelled"]);
}

#[tokio::test]
async fn a_restart_ends_the_cycle_and_begins_anew() {
    let w = World::new().await;
    let a = w.worker("a", Trigger::Stream);
    a.always(Act::UntilCancelled);
    let boot = w.boot(&[&a]).await;
    w.act(&boot, &a, Action::Restart).await;
    assert_eq!(w.journal(), "a+ a- a+");
    assert_eq!(w.life(&a).await, "INITIALIZING RUNNING SHUTTING_DOWN STOPPED INITIALIZING RUNNING");
    let unknown = boot.handle.act(&"nobody".into(), Action::Start, "ann").await;
    assert_eq!(unknown, Err("there is no worker `nobody`".into()));
    w.down(boot).await;
}

#[tokio::test]
async fn an_unavailable_worker_says_why_and_cannot_be_started() {
    let w = World::new().await;
    let mut def = Definition::new("gpu", every(60));
    def.unavailable = Some("no CUDA device".into());
    let a = w.define(def);
    let boot = w.boot(&[&a]).await;
    assert_eq!(w.view(&boot, &a).await.state, State::Unavailable);
    let refused = boot.handle.act(a.name(), Action::Start, "ann").await;
    assert_eq!(refused, Err("`gpu` is unavailable: no CUDA device".into()));
    let forced = boot.handle.run(a.name(), None, true).await;
    assert!(matches!(forced, Report::Blocked { .. }), "{forced:?}");
    w.down(boot).await;
    assert_eq!(w.journal(), "");
}
