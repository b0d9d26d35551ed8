//! Several nodes on one store: each worker runs on one of them at a time, they share the queue, and
//! hand over to each other.

use watchbell_core::lifecycle::State;
use watchbell_core::port::{Hearing, Queue as _};
use watchbell_core::{Definition, Effects, Ledger, Millis, Trigger};
use watchbell_engine::Action;

use crate::fixture::{Act, World, at, every, job, queue};
use crate::watched::At;

/// A store that nodes share, and how they hear each other.
async fn shared(hearing: Hearing) -> World {
    let w = World::new().await;
    w.options.borrow_mut().exclusive = false;
    w.hearing.set(hearing);
    w
}

#[tokio::test]
async fn a_worker_runs_on_one_node_at_a_time() {
    let w = shared(Hearing::Listening).await;
    let (ticks, stream) = (w.worker("ticks", every(10)), w.worker("stream", Trigger::Stream));
    ticks.always(Act::held());
    stream.always(Act::UntilCancelled);
    let one = w.boot(&[&ticks, &stream]).await;
    let two = w.boot(&[&ticks, &stream]).await;
    for _ in 0..20 {
        ticks.release();
        w.run_for(5).await;
    }
    let ledger = w.ledger(&ticks).await;
    assert_eq!(ledger.len(), 11, "{ledger:?}");
    let journal = w.journal();
    assert_eq!(journal.matches("stream+").count(), 1, "{journal}");
    assert_eq!(journal.matches("ticks+").count(), 11, "{journal}");
    let (first, second) = (w.view(&one, &stream).await, w.view(&two, &stream).await);
    assert_eq!(first.running.len() + second.running.len(), 1);
    w.down(one).await;
    w.down(two).await;
}

#[tokio::test]
async fn a_node_that_stops_hands_over_at_once() {
    let w = shared(Hearing::Listening).await;
    let stream = w.worker("stream", Trigger::Stream);
    let quiet = w.define(Definition::new("quiet", every(1)).ledger(Ledger::Quiet));
    let jobs = w.worker("jobs", queue(1, 5));
    stream.always(Act::UntilCancelled);
    quiet.always(Act::Nothing);
    jobs.always(Act::UntilCancelled);
    let one = w.boot(&[&stream, &quiet, &jobs]).await;
    w.enqueue_all(&one, 1..4).await;
    let two = w.boot(&[&stream, &quiet, &jobs]).await;
    w.run_to(3).await;
    assert_eq!(w.view(&one, &stream).await.running.len(), 1);
    assert_eq!(w.view(&two, &stream).await.running, []);
    w.journal();
    w.down(one).await;
    let stopped_at = w.clock.now();
    w.run_for(1).await;
    let journal = w.journal();
    assert!(journal.contains("stream- "), "{journal}");
    assert!(journal.contains("stream+"), "{journal}");
    assert!(journal.contains("jobs+2") || journal.contains("jobs+1"), "{journal}");
    assert_eq!(w.view(&two, &stream).await.running.len(), 1);
    assert!(w.record(&quiet).await.lease_expires_at.unwrap() > stopped_at + Millis::from_secs(25));
    assert_eq!(w.view(&two, &jobs).await.running.len(), 1);
    w.down(two).await;
}

#[tokio::test]
async fn the_work_of_a_node_that_dies_is_taken_over_when_its_leases_end() {
    for hearing in [Hearing::Listening, Hearing::Deaf] {
        let w = shared(hearing).await;
        let stream = w.worker("stream", Trigger::Stream);
        let jobs = w.worker("jobs", queue(2, 2));
        stream.always(Act::UntilCancelled);
        jobs.script(vec![Act::Deaf; 2]);
        let one = w.boot(&[&stream, &jobs]).await;
        let ids = w.enqueue_all(&one, 1..7).await;
        let two = w.boot(&[&stream, &jobs]).await;
        w.run_to(5).await;
        let journal = w.journal();
        assert!(journal.starts_with("stream+ jobs+1 jobs+2"), "{journal}");
        assert!(journal.contains("jobs+5 jobs- jobs+6 jobs-"), "both share the queue: {journal}");
        one.store.sever();
        w.run_to(45).await;
        for id in &ids {
            assert_eq!(w.job(*id).await.state.as_str(), "succeeded");
        }
        assert_eq!(w.view(&two, &stream).await.running.len(), 1);
        assert_eq!((w.job(ids[0]).await.reclaims, w.job(ids[2]).await.reclaims), (1, 1));
        assert_eq!(w.notes().await.len(), 6);
        // It comes back, and learns what it has lost.
        one.store.heal();
        w.run_to(200).await;
        assert_eq!(w.notes().await.len(), 6);
        w.down(two).await;
        w.down(one).await;
    }
}

#[tokio::test]
async fn nodes_share_a_queue() {
    let w = shared(Hearing::Listening).await;
    let a = w.worker("a", queue(2, 2));
    a.always(Act::held());
    let one = w.boot(&[&a]).await;
    let two = w.boot(&[&a]).await;
    // Enqueued on one node, heard of by both.
    w.enqueue_all(&one, 1..11).await;
    for boot in [&one, &two] {
        assert_eq!(w.view(boot, &a).await.running.len(), 2);
    }
    for _ in 0..10 {
        a.release();
    }
    w.run_for(10).await;
    assert_eq!(w.notes().await.len(), 10);
    w.down(one).await;
    w.down(two).await;
    assert_eq!(w.record(&a).await.total_runs, 10);
}

#[tokio::test]
async fn what_an_operator_wants_holds_on_every_node() {
    let w = shared(Hearing::Listening).await;
    let a = w.worker("a", every(10));
    let one = w.boot(&[&a]).await;
    let two = w.boot(&[&a]).await;
    w.act(&one, &a, Action::Pause).await;
    assert_eq!(w.view(&two, &a).await.state, State::Paused);
    w.journal();
    w.run_for(30).await;
    assert_eq!(w.journal(), "");
    w.act(&two, &a, Action::Resume).await;
    assert_eq!(w.view(&one, &a).await.state, State::Running);
    w.run_for(10).await;
    assert!(w.journal().contains("a+ a-"));
    w.down(one).await;
    w.down(two).await;
}

#[tokio::test]
async fn words_that_may_be_lost_make_everyone_look_again() {
    let w = shared(Hearing::Listening).await;
    let on = w.worker("on", Trigger::On { kinds: vec!["x".into()] });
    let jobs = w.worker("jobs", queue(1, 0));
    let boot = w.boot(&[&on, &jobs]).await;
    // Another process says nothing of what it does.
    let event = watchbell_core::NewEvent {
        kind: "x".into(),
        key: "k".into(),
        dedupe: None,
        payload: serde_json::Value::Null,
    };
    use watchbell_core::port::Store as _;
    w.store.emit(vec![event.clone()], w.clock.now()).await.unwrap();
    w.store.enqueue(vec![job(1)], w.clock.now()).await.unwrap();
    w.settle().await;
    assert_eq!(w.journal(), "");
    w.store.tell(&Effects::everything());
    w.settle().await;
    let journal = w.journal();
    assert!(journal.contains("on+x") && journal.contains("jobs+1"), "{journal}");
    // And the floor finds what nobody tells.
    w.store.emit(vec![event], w.clock.now()).await.unwrap();
    w.store.enqueue(vec![job(2)], w.clock.now()).await.unwrap();
    w.run_for(20).await;
    let journal = w.journal();
    assert!(journal.contains("on+x") && journal.contains("jobs+2"), "{journal}");
    w.down(boot).await;
}

#[tokio::test]
async fn a_deaf_node_finds_work_by_looking_and_looks_seldom_while_idle() {
    let w = shared(Hearing::Deaf).await;
    let on = w.worker("on", Trigger::On { kinds: vec!["x".into()] });
    let jobs = w.worker("jobs", queue(1, 0));
    let boot = w.boot(&[&on, &jobs]).await;
    w.run_to(60).await;
    let before = w.flight.counts();
    w.run_to(160).await;
    let after = w.flight.counts();
    let asked = |method| after.get(method).copied().unwrap_or(0) - before[method];
    assert!((75..=101).contains(&asked("claim")), "{}", asked("claim"));
    assert!((75..=101).contains(&asked("claim_jobs")), "{}", asked("claim_jobs"));
    w.store.enqueue(vec![job(1)], w.clock.now()).await.unwrap();
    w.run_for(2).await;
    assert_eq!(w.journal(), "jobs+1 jobs-");
    w.down(boot).await;
}

#[tokio::test]
async fn a_node_shows_its_signs_of_life() {
    let w = shared(Hearing::Listening).await;
    let a = w.worker("a", Trigger::Manual);
    let boot = w.boot(&[&a]).await;
    let view = boot.handle.node();
    assert!(!view.exclusive);
    assert_eq!((view.skew, view.answered_at), (Some(Millis::ZERO), Some(at(0))));
    w.flight.fail("beat_node", 3, At::Before);
    w.run_to(100).await;
    let beats = w.flight.counts()["beat_node"];
    assert!((9..=14).contains(&beats), "{beats}");
    assert!(boot.handle.node().answered_at > Some(at(85)));
    use watchbell_core::port::Store as _;
    let nodes = w.store.nodes(w.clock.now()).await.unwrap();
    assert_eq!(nodes.len(), 1);
    assert!(!nodes[0].overdue);
    w.down(boot).await;
}
