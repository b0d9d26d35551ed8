//! Windows: never before their inputs, in order, once.

use std::sync::Arc;

use watchbell_core::gate::Gate;
use watchbell_core::port::Store;
use watchbell_core::window::State;
use watchbell_core::{Commit, Definition, Millis, Time, Trigger, WindowInput, WindowSpec};
use watchbell_engine::{Action, Effects, Report};

use crate::fixture::{Act, Scripted, World, at, every, klines, series};

fn minute(w: &World) -> Arc<Scripted> {
    w.worker("minute", Trigger::Window(series("minute")))
}

fn changed(series: &str) -> Effects {
    Effects { series: [series.into()].into(), ..Effects::default() }
}

#[tokio::test]
async fn a_window_waits_for_its_end_its_settle_time_and_its_inputs() {
    let w = World::new().await;
    let m = minute(&w);
    let boot = w.boot(&[&m]).await;
    w.cover(&boot, 0, 60).await;
    w.run_to(64).await;
    assert_eq!(w.journal(), "");
    w.run_to(65).await;
    assert_eq!(w.windows("minute").await, ["0v1 complete"]);
    w.run_to(130).await;
    let gate = w.view(&boot, &m).await.gate;
    assert!(matches!(gate, Some(Gate::CoverMissing { .. })), "{gate:?}");
    w.cover(&boot, 0, 119).await;
    assert_eq!(w.windows("minute").await.len(), 1, "a second is missing");
    w.cover(&boot, 0, 120).await;
    assert_eq!(w.windows("minute").await, ["0v1 complete", "60v1 complete"]);
    assert_eq!(w.record(&m).await.blocked, None);
    let events = w.events("window.completed").await;
    assert_eq!(events.len(), 2);
    w.down(boot).await;
}

#[tokio::test]
async fn a_scope_is_read_once_for_each_look_and_kept_from_the_first_claim_on() {
    let w = World::new().await;
    let m = minute(&w);
    let boot = w.boot(&[&m]).await;
    // While a key has no cover, the window waits.
    m.scopes(&[&["BTC", "GONE"], &["BTC"], &["BTC", "LATER"]]);
    w.run_to(65).await;
    assert!(w.windows("minute").await.is_empty());
    // It turned out not to exist: the look that this cover brings no longer sees it.
    w.cover(&boot, 0, 60).await;
    assert_eq!(w.windows("minute").await, ["0v1 complete"]);
    let window = w.store.window(&"minute".into(), at(0)).await.unwrap().pop().unwrap();
    assert_eq!(window.scope, ["BTC"]);
    w.down(boot).await;
}

#[tokio::test]
async fn windows_that_became_ready_together_are_computed_in_order() {
    let w = World::new().await;
    let m = minute(&w);
    let boot = w.boot(&[&m]).await;
    w.run_to(400).await;
    w.cover(&boot, 0, 300).await;
    let notes: Vec<_> = (0..5).map(|n| format!("minute window@{}v1", n * 60)).collect();
    assert_eq!(w.notes().await, notes);
    w.down(boot).await;
}

#[tokio::test]
async fn windows_missed_while_the_node_was_down_are_computed_in_order() {
    let w = World::new().await;
    let m = minute(&w);
    let boot = w.boot(&[&m]).await;
    w.cover(&boot, 0, 100_000).await;
    w.run_to(130).await;
    w.down(boot).await;
    w.jump_to(600).await;
    let boot = w.boot(&[&m]).await;
    let notes: Vec<_> = (0..9).map(|n| format!("minute window@{}v1", n * 60)).collect();
    assert_eq!(w.notes().await, notes);
    w.down(boot).await;
}

#[tokio::test]
async fn a_series_follows_the_windows_of_another() {
    let w = World::new().await;
    let m = minute(&w);
    let mut three = series("three");
    three.length = Millis::from_secs(180);
    three.inputs = vec![WindowInput::Window { series: "minute".into() }];
    let t = w.worker("three", Trigger::Window(three));
    let sync = w.worker("sync", Trigger::Manual);
    let boot = w.boot(&[&t, &m, &sync]).await;
    w.run_to(200).await;
    // Covers that arrive with a commit wake the first series, and its windows the second.
    sync.script([
        Act::Publish(Commit { covers: vec![klines(0, 120)], ..Commit::new() }),
        Act::Publish(Commit { covers: vec![klines(120, 180)], ..Commit::new() }),
    ]);
    boot.handle.run(sync.name(), None, false).await;
    w.settle().await;
    assert_eq!(w.windows("minute").await, ["0v1 complete", "60v1 complete"]);
    assert!(w.windows("three").await.is_empty());
    boot.handle.run(sync.name(), None, false).await;
    w.settle().await;
    assert_eq!(w.windows("minute").await.len(), 3);
    assert_eq!(w.windows("three").await, ["0v1 complete"]);
    w.down(boot).await;
}

#[tokio::test]
async fn a_series_follows_the_longer_windows_of_another() {
    let w = World::new().await;
    let long = WindowSpec { length: Millis::from_secs(180), ..series("long") };
    let l = w.worker("long", Trigger::Window(long));
    let inputs = vec![WindowInput::Window { series: "long".into() }];
    let s = w.worker("short", Trigger::Window(WindowSpec { inputs, ..series("short") }));
    let boot = w.boot(&[&s, &l]).await;
    w.run_to(400).await;
    w.cover(&boot, 0, 180).await;
    assert_eq!(w.windows("long").await, ["0v1 complete"]);
    let three = ["0v1 complete", "60v1 complete", "120v1 complete"];
    assert_eq!(w.windows("short").await, three);
    // The next one waits for the next long window, by its name.
    let gate = w.view(&boot, &s).await.gate;
    assert_eq!(
        gate,
        Some(Gate::InputWindow { series: "long".into(), start: at(180), state: None })
    );
    w.down(boot).await;
}

#[tokio::test]
async fn what_feeds_back_goes_on_when_the_window_before_is_settled() {
    let w = World::new().await;
    let m = minute(&w);
    let settled = |of: &str| WindowInput::Settled { series: of.into() };
    let voice = WindowSpec {
        inputs: vec![settled("minute"), WindowInput::Previous { series: "echo".into() }],
        ..series("voice")
    };
    let echo = WindowSpec { inputs: vec![settled("voice")], ..series("echo") };
    let v = w.worker("voice", Trigger::Window(voice));
    let e = w.worker("echo", Trigger::Window(echo));
    e.script([Act::Fail, Act::Fail, Act::Fail, Act::Write, Act::Fail]);
    let boot = w.boot(&[&v, &e, &m]).await;
    w.run_to(200).await;
    w.cover(&boot, 0, 180).await;
    // The first window waits for nobody, the second for the echo of the first.
    assert_eq!(w.windows("minute").await.len(), 3);
    assert_eq!(w.windows("voice").await, ["0v1 complete"]);
    assert_eq!(w.windows("echo").await, ["0v1 failed"]);
    let gate = w.view(&boot, &v).await.gate;
    let echo_of = |secs, state| Gate::InputWindow { series: "echo".into(), start: at(secs), state };
    assert_eq!(gate, Some(echo_of(0, Some(State::Failed))));
    w.run_to(240).await;
    // Given up counts: then there is nothing more to wait for.
    assert_eq!(w.windows("echo").await, ["0v1 abandoned", "60v1 complete", "120v1 complete"]);
    assert_eq!(w.windows("voice").await.len(), 3);
    w.down(boot).await;
}

#[tokio::test]
async fn a_failing_window_is_retried_then_abandoned_and_the_next_goes_on() {
    let w = World::new().await;
    let m = minute(&w);
    m.script([Act::Fail, Act::Fail, Act::Fail]);
    let boot = w.boot(&[&m]).await;
    w.cover(&boot, 0, 120).await;
    w.run_to(66).await;
    assert_eq!(w.windows("minute").await, ["0v1 failed"]);
    assert!(matches!(w.view(&boot, &m).await.gate, Some(Gate::Backoff { attempts: 1, .. })));
    w.run_to(72).await;
    assert_eq!(w.cycles(&m).await.len(), 2, "after about five seconds");
    w.run_to(90).await;
    assert_eq!(w.windows("minute").await, ["0v1 abandoned"], "after about ten more");
    assert_eq!(w.events("window.abandoned").await.len(), 1);
    w.run_to(125).await;
    assert_eq!(w.windows("minute").await, ["0v1 abandoned", "60v1 complete"]);
    w.down(boot).await;
}

#[tokio::test]
async fn later_windows_wait_for_the_retries_of_an_earlier_one() {
    let w = World::new().await;
    let m = minute(&w);
    m.script([Act::Fail, Act::Snooze(20)]);
    let boot = w.boot(&[&m]).await;
    w.run_to(200).await;
    w.cover(&boot, 0, 180).await;
    assert_eq!(w.windows("minute").await, ["0v1 failed"]);
    w.run_to(210).await;
    assert_eq!(w.windows("minute").await, ["0v1 ready"], "put off, and counted as no attempt");
    w.run_to(230).await;
    assert_eq!(w.notes().await.len(), 3);
    assert_eq!(w.store.window(&"minute".into(), at(0)).await.unwrap()[0].attempts, 2);
    w.down(boot).await;
}

#[tokio::test]
async fn a_permanent_fault_abandons_at_once() {
    let w = World::new().await;
    let m = minute(&w);
    m.script([Act::Forbid]);
    let boot = w.boot(&[&m]).await;
    w.run_to(130).await;
    w.cover(&boot, 0, 120).await;
    assert_eq!(w.windows("minute").await, ["0v1 abandoned", "60v1 complete"]);
    let abandoned = w.store.window(&"minute".into(), at(0)).await.unwrap().remove(0);
    assert_eq!(abandoned.reason.as_deref(), Some("the symbol does not exist"));
    w.down(boot).await;
}

#[tokio::test]
async fn a_window_that_always_runs_too_long_is_given_up() {
    let w = World::new().await;
    let (soft, hard) = (Millis::from_secs(10), Millis::from_secs(20));
    let def = Definition::new("minute", Trigger::Window(series("minute"))).timeouts(soft, hard);
    let m = w.define(def);
    m.script([Act::Deaf, Act::Deaf, Act::Deaf]);
    let boot = w.boot(&[&m]).await;
    w.cover(&boot, 0, 120).await;
    w.run_to(300).await;
    assert_eq!(w.windows("minute").await, ["0v1 abandoned", "60v1 complete"]);
    assert_eq!(w.events("window.abandoned").await.len(), 1);
    w.down(boot).await;
}

#[tokio::test]
async fn a_correction_is_a_new_version() {
    let w = World::new().await;
    let m = minute(&w);
    let boot = w.boot(&[&m]).await;
    w.run_to(130).await;
    w.cover(&boot, 0, 120).await;
    w.store.correct_window(&"minute".into(), at(0), "late trades", at(130)).await.unwrap();
    boot.handle.wake(changed("minute"));
    w.settle().await;
    assert_eq!(w.windows("minute").await, ["0v1 complete", "0v2 complete", "60v1 complete"]);
    assert_eq!(w.notes().await.last().unwrap(), "minute window@0v2");
    w.down(boot).await;
}

#[tokio::test]
async fn a_backfill_comes_after_the_live_windows() {
    let w = World::new().await;
    let m = minute(&w);
    m.begins_at(at(600));
    let boot = w.boot(&[&m]).await;
    w.cover(&boot, 0, 10_000).await;
    w.run_to(670).await;
    assert_eq!(w.windows("minute").await, ["600v1 complete"]);
    // Older input was found.
    m.begins_at(at(420));
    m.script([Act::held()]);
    w.store.request_backfill(&"minute".into(), at(0), at(600), "ann", at(670)).await.unwrap();
    boot.handle.wake(changed("minute"));
    w.settle().await;
    assert_eq!(w.windows("minute").await, ["420v1 running", "600v1 complete"]);
    w.run_to(730).await;
    m.release();
    w.settle().await;
    let order = ["600", "420", "660", "480", "540"].map(|s| format!("minute window@{s}v1"));
    assert_eq!(w.notes().await, order, "the live window that came meanwhile goes first");
    let backfill = w.store.backfills(false).await.unwrap().remove(0);
    assert!(backfill.finished_at.is_some(), "{backfill:?}");
    w.down(boot).await;
}

#[tokio::test]
async fn a_manual_run_computes_the_named_window_only_when_it_may() {
    let w = World::new().await;
    let m = minute(&w);
    let boot = w.boot(&[&m]).await;
    w.act(&boot, &m, Action::Pause).await;
    w.run_to(130).await;
    let run = |start: Time| boot.handle.run(m.name(), Some(start), true);
    assert!(matches!(run(at(60)).await, Report::Blocked { .. }), "its input is missing");
    w.cover(&boot, 0, 120).await;
    let Report::Blocked { gates, .. } = run(at(60)).await else { panic!("it is not the next") };
    assert!(matches!(gates[0], Gate::EarlierWindow { start, .. } if start == at(0)), "{gates:?}");
    assert!(matches!(run(at(0)).await, Report::Ran(_)));
    assert!(matches!(run(at(0)).await, Report::Taken), "it is complete");
    w.settle().await;
    assert_eq!(w.windows("minute").await, ["0v1 complete"]);
    let before = w.dump().await;
    let shown = boot.handle.rehearse(m.name(), Some(at(60))).await.unwrap().unwrap();
    assert_eq!(shown.lines, ["insert scan.notes: 1 row"]);
    assert!(shown.window.is_some());
    assert_eq!(w.dump().await, before);
    w.act(&boot, &m, Action::Resume).await;
    assert_eq!(w.windows("minute").await, ["0v1 complete", "60v1 complete"]);
    w.down(boot).await;
}

#[tokio::test]
async fn lanes_are_exclusive() {
    let w = World::new().await;
    let a = w.define(Definition::new("a", Trigger::Window(series("a"))).lane("compute"));
    let b = w.define(Definition::new("b", Trigger::Window(series("b"))).lane("compute"));
    let c = w.define(Definition::new("c", every(1_000)).lane("compute"));
    c.script([Act::held()]);
    let boot = w.boot(&[&c, &b, &a]).await;
    w.run_to(130).await;
    w.cover(&boot, 0, 120).await;
    assert_eq!(w.journal(), "c+", "the lane is taken");
    let gate = w.view(&boot, &b).await.gate;
    assert!(matches!(&gate, Some(Gate::Lane { worker, .. }) if worker == c.name()), "{gate:?}");
    c.release();
    w.settle().await;
    let journal = w.journal();
    let running: Vec<_> = journal.split(' ').collect();
    for pair in running[1..].chunks(2) {
        assert_eq!(pair[0].trim_end_matches('+'), pair[1].trim_end_matches('-'), "{journal}");
    }
    assert_eq!(w.notes().await.len(), 5);
    w.down(boot).await;
}
