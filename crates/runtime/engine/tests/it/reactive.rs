//! Events and conditions.

use watchbell_core::port::Store;
use watchbell_core::{Commit, Condition, Definition, Trigger};
use watchbell_engine::Action;

use crate::fixture::{Act, World, at, every};

fn on(kinds: &[&str]) -> Trigger {
    Trigger::On { kinds: kinds.iter().map(|k| (*k).to_owned()).collect() }
}

#[tokio::test]
async fn events_are_handled_in_order_and_a_failure_holds_the_later_ones() {
    let w = World::new().await;
    let a = w.worker("a", on(&["x.*"]));
    let boot = w.boot(&[&a]).await;
    a.script([Act::Write, Act::Fail, Act::Fail]);
    for kind in ["x.1", "y", "x.2", "x.3"] {
        w.emit(&boot, kind).await;
    }
    assert_eq!(w.journal(), "a+x.1 a- a+x.2 a-");
    let cursor = w.store.subscribers().await.unwrap().remove(0);
    assert_eq!(cursor.attempts, 1);
    w.run_to(30).await;
    assert_eq!(w.journal(), "a+x.2 a- a+x.2 a- a+x.3 a-");
    assert_eq!(w.store.dead_letters(10).await.unwrap(), []);
    w.down(boot).await;
}

#[tokio::test]
async fn the_cursor_moves_with_the_commit() {
    let w = World::new().await;
    let a = w.worker("a", on(&["x"]));
    let boot = w.boot(&[&a]).await;
    let before = w.store.subscribers().await.unwrap().remove(0).cursor;
    a.script([Act::held()]);
    let id = w.emit(&boot, "x").await;
    assert_eq!(w.store.subscribers().await.unwrap()[0].cursor, before);
    a.release();
    w.settle().await;
    assert_eq!(w.store.subscribers().await.unwrap()[0].cursor, id);
    assert_eq!(w.notes().await, ["a event"]);
    w.down(boot).await;
}

#[tokio::test]
async fn an_event_nobody_can_handle_becomes_a_dead_letter_and_can_be_given_back() {
    let w = World::new().await;
    let a = w.worker("a", on(&["x"]));
    let boot = w.boot(&[&a]).await;
    a.script([Act::Forbid]);
    a.script(vec![Act::Fail; 8]);
    w.emit(&boot, "x").await;
    let dead = w.store.dead_letters(10).await.unwrap();
    assert_eq!((dead.len(), dead[0].reason.as_str()), (1, "the symbol does not exist"));
    w.emit(&boot, "x").await;
    w.run_to(600).await;
    let dead = w.store.dead_letters(10).await.unwrap();
    assert_eq!(dead.len(), 2, "eight attempts, and no more");
    assert_eq!(w.cycles(&a).await.len(), 9);
    assert_eq!(w.events("event.dead").await.len(), 2);
    w.journal();
    w.store.redrive(dead[0].id, at(600)).await.unwrap();
    boot.handle
        .wake(watchbell_engine::Effects { events: ["x".to_owned()].into(), ..Default::default() });
    w.settle().await;
    assert_eq!(w.journal(), "a+x a-");
    assert_eq!(w.notes().await.len(), 1);
    w.down(boot).await;
}

#[tokio::test]
async fn an_event_in_a_commit_wakes_its_subscriber_and_waits_while_it_is_down() {
    let w = World::new().await;
    let a = w.worker("a", on(&["x"]));
    let source = w.worker("source", every(60));
    let mut commit = Commit::new();
    commit.emit("x", "k", serde_json::Value::Null);
    source.always(Act::Publish(commit));
    let boot = w.boot(&[&a, &source]).await;
    assert_eq!(w.journal(), "source+ source- a+x a-");
    w.act(&boot, &a, Action::Stop).await;
    w.run_to(120).await;
    assert_eq!(w.journal(), "source+ source- source+ source-");
    w.act(&boot, &a, Action::Start).await;
    assert_eq!(w.journal(), "a+x a- a+x a-");
    w.down(boot).await;
}

#[tokio::test]
async fn a_condition_gates_a_worker_until_it_is_met() {
    let w = World::new().await;
    let a = w.define(Definition::new("a", every(10)).requires("venue"));
    let probe = w.worker("probe", Trigger::Manual);
    let report = |met, detail: &str| {
        let condition = Condition { name: "venue".into(), met, detail: detail.into(), until: None };
        Act::Publish(Commit { conditions: vec![condition], ..Commit::new() })
    };
    probe.script([report(true, "ok"), report(false, "banned"), report(true, "ok")]);
    let boot = w.boot(&[&a, &probe]).await;
    let gate = w.record(&a).await.blocked.unwrap().to_string();
    assert!(gate.contains("venue"), "{gate}");
    w.run_to(25).await;
    assert_eq!(w.journal(), "");
    boot.handle.run(probe.name(), None, false).await;
    w.settle().await;
    assert_eq!(w.journal(), "probe+ probe- a+ a-");
    assert_eq!(w.ledger(&a).await, ["0..10 merged 2", "20 fired"]);
    assert_eq!(w.record(&a).await.blocked, None);

    boot.handle.run(probe.name(), None, false).await;
    w.run_to(55).await;
    assert_eq!(w.journal(), "probe+ probe-");
    let gate = w.record(&a).await.blocked.unwrap().to_string();
    assert!(gate.contains("banned"), "{gate}");
    // A condition outlives the node that knows it.
    w.down(boot).await;
    let boot = w.boot(&[&a, &probe]).await;
    w.run_to(65).await;
    assert_eq!(w.journal(), "");
    boot.handle.run(probe.name(), None, false).await;
    w.settle().await;
    assert_eq!(w.ledger(&a).await, ["0..10 merged 2", "20 fired", "30..50 merged 3", "60 fired"]);
    w.down(boot).await;
}
