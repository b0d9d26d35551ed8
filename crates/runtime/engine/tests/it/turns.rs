//! Who goes first: lanes, and workers that give way.

use std::sync::Arc;

use watchbell_core::gate::Gate;
use watchbell_core::{Definition, Ledger, Millis, Missed, Trigger, WindowInput, WindowSpec};

use crate::fixture::{Act, Boot, Scripted, World, at, every, series};

/// Windows of a minute over the covers, in which the first held cycle runs at 65 s.
async fn with_a_held_window(w: &World, modest: &Arc<Scripted>) -> (Boot, Arc<Scripted>) {
    let minute = w.worker("minute", Trigger::Window(series("minute")));
    minute.script([Act::held()]);
    let boot = w.boot(&[&minute, modest]).await;
    w.cover(&boot, 0, 1_000_000).await;
    w.run_to(66).await;
    assert_eq!(w.journal(), "modest+ modest- modest+ modest- minute+", "at 0 s and 60 s");
    (boot, minute)
}

fn modest(w: &World, period: i64) -> Arc<Scripted> {
    w.define(Definition::new("modest", every(period)).opportunistic())
}

#[tokio::test]
async fn an_opportunistic_worker_waits_until_no_window_runs() {
    let w = World::new().await;
    let modest = modest(&w, 60);
    let (boot, minute) = with_a_held_window(&w, &modest).await;
    w.run_to(121).await;
    assert_eq!(w.journal(), "");
    let gate = w.view(&boot, &modest).await.gate;
    let expected =
        Gate::GivesWay { to: minute.name().clone(), since: at(120), until: at(120 + 600) };
    assert_eq!(gate, Some(expected));
    // An operator's word is not a due tick.
    let name = modest.name().clone();
    assert!(matches!(boot.handle.run(&name, None, false).await, watchbell_engine::Report::Ran(_)));
    assert_eq!(w.journal(), "modest+ modest-");
    minute.release();
    w.settle().await;
    assert_eq!(w.journal(), "minute- modest+ modest-");
    assert_eq!(w.view(&boot, &modest).await.gate, None);
    assert_eq!(w.ledger(&modest).await, ["0 fired", "60 fired", "120 fired"]);
    w.down(boot).await;
}

#[tokio::test]
async fn what_it_could_not_run_in_time_is_skipped_and_it_never_starves() {
    for missed in [Missed::Latest, Missed::All { cap: 100 }] {
        let w = World::new().await;
        let modest = w.define(Definition::new("modest", every(60)).opportunistic().missed(missed));
        let (boot, minute) = with_a_held_window(&w, &modest).await;
        // The held window stays below its soft timeout of five minutes; then the next one is held.
        minute.script([Act::held(), Act::held(), Act::held()]);
        for until in [300, 500, 700] {
            w.run_to(until).await;
            minute.release();
            w.settle().await;
        }
        assert!(!w.journal().contains("modest"));
        w.run_to(719).await;
        assert!(matches!(w.view(&boot, &modest).await.gate, Some(Gate::GivesWay { .. })));
        w.run_to(721).await;
        assert!(w.journal().contains("modest+"), "ten periods after 120 s");
        let expected = ["0 fired", "60 fired", "120..660 skipped 10: gave way", "720 fired"];
        assert_eq!(w.ledger(&modest).await, expected);
        // Its patience begins anew.
        w.run_to(781).await;
        assert_eq!(w.journal(), "");
        minute.release();
        w.settle().await;
        assert_eq!(w.ledger(&modest).await.last().unwrap(), "780 fired");
        w.down(boot).await;
    }
}

#[tokio::test]
async fn a_staleness_limit_is_the_bound_of_giving_way() {
    let w = World::new().await;
    let mut def = Definition::new("modest", every(60)).opportunistic();
    def.stale_after = Some(Millis::from_secs(90));
    let modest = w.define(def);
    let (boot, minute) = with_a_held_window(&w, &modest).await;
    w.run_to(209).await;
    assert_eq!(w.journal(), "");
    w.run_to(211).await;
    assert_eq!(w.journal(), "modest+ modest-");
    assert_eq!(w.ledger(&modest).await[2..], ["120 skipped: gave way", "180 fired"]);
    minute.release();
    w.down(boot).await;
}

#[tokio::test]
async fn a_window_that_cannot_run_holds_up_nobody() {
    let w = World::new().await;
    let (minute, modest) = (w.worker("minute", Trigger::Window(series("minute"))), modest(&w, 60));
    let boot = w.boot(&[&minute, &modest]).await;
    // Nothing is covered, and then what there is fails and waits for its next attempt.
    w.run_to(130).await;
    minute.script([Act::Fail]);
    w.cover(&boot, 0, 60).await;
    w.run_to(181).await;
    let expected = ["0 fired", "60 fired", "120 fired", "180 fired"];
    assert_eq!(w.ledger(&modest).await, expected);
    w.down(boot).await;
}

#[tokio::test]
async fn a_quiet_worker_of_a_lane_goes_first_too_and_a_stream_does_not() {
    let w = World::new().await;
    let modest = modest(&w, 30);
    let stream = w.define(Definition::new("stream", Trigger::Stream).lane("s"));
    stream.always(Act::UntilCancelled);
    let laned = w.define(Definition::new("laned", every(20)).lane("l").ledger(Ledger::Quiet));
    let boot = w.boot(&[&modest, &stream, &laned]).await;
    laned.script([Act::held()]);
    w.run_to(31).await;
    assert_eq!(w.ledger(&modest).await, ["0 fired"], "the tick of 20 s is held");
    laned.release();
    w.settle().await;
    assert_eq!(w.ledger(&modest).await, ["0 fired", "30 fired"]);
    w.down(boot).await;
}

/// Windows of `secs` made of those of another series.
fn made_of(name: &str, secs: i64, input: &str) -> WindowSpec {
    WindowSpec {
        length: Millis::from_secs(secs),
        inputs: vec![WindowInput::Settled { series: input.into() }],
        ..series(name)
    }
}

#[tokio::test]
async fn the_layers_of_a_backlog_follow_each_other_window_by_window() {
    let w = World::new().await;
    let lane = |spec: WindowSpec| {
        let name = spec.series.to_string();
        w.define(Definition::new(name.as_str(), Trigger::Window(spec)).lane("windows"))
    };
    // In the order of their names, the last would be first.
    let sampler = lane(series("s-sampler"));
    let double = lane(WindowSpec { length: Millis::from_secs(120), ..series("s-sampler-double") });
    let matrices = lane(made_of("c-matrices", 60, "s-sampler"));
    let mood = lane(made_of("b-mood", 60, "c-matrices"));
    let all = [&sampler, &double, &matrices, &mood];
    w.jump_to(10_000).await;
    let boot = w.boot(&all).await;
    w.cover(&boot, 0, 240).await;
    let ended: Vec<String> =
        w.journal().split(' ').filter_map(|l| l.strip_suffix('+').map(str::to_owned)).collect();
    let expected = [
        "s-sampler",
        "c-matrices",
        "b-mood", // 60
        "s-sampler",
        "s-sampler-double",
        "c-matrices",
        "b-mood", // 120
        "s-sampler",
        "c-matrices",
        "b-mood", // 180
        "s-sampler",
        "s-sampler-double",
        "c-matrices",
        "b-mood", // 240
    ];
    assert_eq!(ended, expected);
    w.down(boot).await;

    // Live windows that end together go the same way.
    let w = World::new().await;
    let lane = |spec: WindowSpec| {
        let name = spec.series.to_string();
        w.define(Definition::new(name.as_str(), Trigger::Window(spec)).lane("windows"))
    };
    let double = lane(WindowSpec { length: Millis::from_secs(120), ..series("a-double") });
    let sampler = lane(series("b-sampler"));
    let boot = w.boot(&[&double, &sampler]).await;
    w.cover(&boot, 0, 1_000_000).await;
    w.run_to(240 + 6).await;
    let s = "b-sampler+ b-sampler-";
    assert_eq!(w.journal(), format!("{s} {s} a-double+ a-double- {s} {s} a-double+ a-double-"));
    w.down(boot).await;
}

#[tokio::test]
async fn only_what_runs_by_time_can_give_way() {
    let w = World::new().await;
    let def = Definition::new("modest", Trigger::Manual).opportunistic();
    let modest = w.define(def.clone());
    let session = crate::fixture::session("node-1", w.clock.now());
    let workers = vec![(def, modest as Arc<dyn watchbell_core::Worker>)];
    let options = w.options.borrow().clone();
    let started = watchbell_engine::Node::start(
        Arc::clone(&w.store) as _,
        w.clock.clone(),
        session,
        workers,
        options,
    );
    let error = started.await.unwrap_err().to_string();
    assert!(error.starts_with("worker `modest`: it cannot give way"), "{error}");
}
