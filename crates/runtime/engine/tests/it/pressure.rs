//! A store that is slow, and what the node does about it.

use std::sync::Arc;

use watchbell_core::gate::Gate;
use watchbell_core::job::Kind;
use watchbell_core::schedule::Cron;
use watchbell_core::{Definition, Ledger, Millis, Missed, NewJob, QueueSpec, Trigger};

use crate::fixture::{Boot, Scripted, World, at, every, series};
use crate::watched::At;

/// A worker that asks enough of the store that each look can be judged.
fn busy(w: &World) -> Arc<Scripted> {
    w.define(Definition::new("busy", every(1)).ledger(Ledger::Quiet))
}

/// The store has no connection free once in each of the next ten-second looks.
async fn exhaust(w: &World, looks: i64) {
    for _ in 0..looks {
        w.flight.fail("publish", 1, At::Exhausted);
        w.run_for(10).await;
    }
}

fn factor(boot: &Boot) -> u32 {
    boot.handle.store().pressure.factor
}

#[tokio::test]
async fn intervals_are_stretched_while_the_store_is_slow() {
    let w = World::new().await;
    let (busy, plain) = (busy(&w), w.worker("plain", every(10)));
    let cron = w.worker("cron", Trigger::Cron(Cron::parse("*/10 * * * * *", "UTC").unwrap()));
    let minute = w.worker("minute", Trigger::Window(series("minute")));
    let boot = w.boot(&[&busy, &plain, &cron, &minute]).await;
    w.cover(&boot, 0, 1_000_000).await;
    w.run_to(15).await;
    exhaust(&w, 1).await;
    assert_eq!(factor(&boot), 2, "since the look at 20 s");
    let gate = w.view(&boot, &plain).await.gate;
    assert!(
        matches!(gate, Some(Gate::Throttled { factor: 2, until, .. }) if until == at(40)),
        "{gate:?}"
    );
    assert_eq!(w.view(&boot, &plain).await.next_due, Some(at(40)));
    assert_eq!(w.view(&boot, &cron).await.gate, None);
    w.run_to(95).await;
    assert_eq!(factor(&boot), 1, "after three clean looks");
    let expected = [
        "0 fired",
        "10 fired",
        "20 fired",
        "30 skipped: the store was slow",
        "40 fired",
        "50 skipped: the store was slow",
        "60 fired",
        "70 fired",
        "80 fired",
        "90 fired",
    ];
    assert_eq!(w.ledger(&plain).await, expected);
    let all: Vec<_> = (1..10).map(|i| format!("{i}0 fired")).collect();
    assert_eq!(w.ledger(&cron).await, all, "cron is never stretched");
    assert_eq!(w.windows("minute").await, ["0v1 complete"]);
    let notes = w.notes().await.iter().filter(|n| n.starts_with("busy ")).count();
    assert_eq!(notes, 96, "neither is who keeps no ledger");
    assert_eq!(w.events("store.throttled").await, ["node-1"]);
    assert_eq!(w.events("store.recovered").await, ["node-1"]);
    w.down(boot).await;
}

#[tokio::test]
async fn slow_calls_count_and_so_do_those_that_have_not_come_back() {
    let w = World::new().await;
    let workers: Vec<_> = (0..6).map(|i| w.worker(&format!("w{i}"), every(100))).collect();
    let boot = w.boot(&workers.iter().collect::<Vec<_>>()).await;
    w.run_to(95).await;
    assert_eq!(factor(&boot), 1);
    // All calls hang from here on.
    boot.store.sever();
    w.run_to(111).await;
    assert_eq!(factor(&boot), 2, "the look at 110 s finds six calls under way for 10 s");
    w.run_to(131).await;
    assert_eq!(factor(&boot), 8);
    boot.store.heal();
    w.settle().await;
    w.run_to(141).await;
    assert_eq!(factor(&boot), 8, "calls that took half a minute");
    // Nothing is asked of the store any more, and nothing says that it is slow.
    w.run_to(400).await;
    assert_eq!(factor(&boot), 1);
    let changes =
        (w.events("store.throttled").await.len(), w.events("store.recovered").await.len());
    assert_eq!(changes, (3, 3));
    w.down(boot).await;
}

#[tokio::test]
async fn the_calls_of_a_queue_count_as_well() {
    let w = World::new().await;
    let spec = QueueSpec { kinds: vec![Kind::new("k")], concurrency: 1, prefetch: 0 };
    let (busy, jobs) = (busy(&w), w.worker("jobs", Trigger::Queue(spec)));
    let boot = w.boot(&[&busy, &jobs]).await;
    w.run_to(15).await;
    assert_eq!(factor(&boot), 1);
    w.flight.fail("claim_jobs", 1, At::Exhausted);
    w.enqueue(&boot, NewJob::new("k", serde_json::json!(1))).await;
    w.run_to(25).await;
    assert_eq!(factor(&boot), 2, "a claim of jobs found no connection free");
    w.down(boot).await;
}

#[tokio::test]
async fn opportunistic_workers_are_dropped_first_and_do_not_starve() {
    let w = World::new().await;
    let (busy, plain) = (busy(&w), w.worker("plain", every(10)));
    let mut def = Definition::new("modest", every(10)).opportunistic();
    def.stale_after = Some(Millis::from_secs(60));
    let modest = w.define(def);
    let boot = w.boot(&[&busy, &plain, &modest]).await;
    w.run_to(15).await;
    exhaust(&w, 12).await;
    assert_eq!(factor(&boot), 8);
    let slow = "the store was slow";
    let skipped = w.ledger(&modest).await;
    let expected = ["0 fired", "10 fired", &format!("20..70 skipped 6: {slow}"), "80 fired"];
    assert_eq!(skipped[..4], expected, "after 60 s of patience");
    let gate = w.view(&boot, &modest).await.gate;
    assert!(matches!(gate, Some(Gate::Throttled { factor: 8, .. })), "{gate:?}");
    let plain = w.ledger(&plain).await;
    assert_eq!(plain[plain.len() - 1], "80 fired", "the next is at 160 s: {plain:?}");
    assert!(plain.contains(&format!("50..70 skipped 3: {slow}")), "{plain:?}");
    w.down(boot).await;
}

#[tokio::test]
async fn what_a_policy_runs_later_is_stretched_too_and_stays_exact() {
    for missed in [Missed::Skip, Missed::Latest, Missed::All { cap: 5 }] {
        let w = World::new().await;
        let busy = busy(&w);
        let plain = w.define(Definition::new("plain", every(10)).missed(missed));
        let boot = w.boot(&[&busy, &plain]).await;
        w.run_to(15).await;
        exhaust(&w, 2).await;
        assert_eq!(factor(&boot), 4);
        // The machine sleeps, and the node goes down with instants that it passed over.
        w.jump_to(193).await;
        w.run_to(198).await;
        w.down(boot).await;
        w.jump_to(243).await;
        let boot = w.boot(&[&busy, &plain]).await;
        w.run_to(305).await;
        w.down(boot).await;
        let mut next = at(0);
        let mut rows =
            watchbell_core::port::Store::occurrences(&*w.store, plain.name(), 1_000).await.unwrap();
        rows.reverse();
        for row in rows {
            assert_eq!(row.due, next, "{missed:?}: {:?}", w.ledger(&plain).await);
            assert_eq!(row.through, row.due + Millis::from_secs(10) * (row.count - 1));
            next = row.through + Millis::from_secs(10);
        }
        assert_eq!(next, at(310), "{missed:?}");
    }
}
