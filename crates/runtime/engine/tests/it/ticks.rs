//! Due instants: each is in the ledger exactly once, whatever happens.

use watchbell_core::lifecycle::State;
use watchbell_core::schedule::Cron;
use watchbell_core::{Cause, Definition, Millis, Missed, NewJob, Trigger};
use watchbell_engine::{Action, Report};

use crate::fixture::{Act, T0, World, every, queue};
use crate::watched::At;

#[tokio::test]
async fn each_due_instant_is_fired_once() {
    let w = World::new().await;
    let a = w.worker("a", every(10));
    let boot = w.boot(&[&a]).await;
    w.run_to(35).await;
    assert_eq!(w.ledger(&a).await, ["0 fired", "10 fired", "20 fired", "30 fired"]);
    assert_eq!(w.notes().await, ["a tick@0", "a tick@10", "a tick@20", "a tick@30"]);
    let record = w.record(&a).await;
    assert_eq!(record.total_runs, 4);
    assert_eq!(record.next_due, Some(T0 + Millis::from_secs(40)));
    w.down(boot).await;
}

#[tokio::test]
async fn cycles_never_overlap_and_the_ticks_that_wait_become_one() {
    let w = World::new().await;
    let a = w.worker("a", every(10));
    a.script([Act::held()]);
    let boot = w.boot(&[&a]).await;
    w.run_to(45).await;
    assert_eq!(w.journal(), "a+");
    assert_eq!(w.ledger(&a).await, ["0 fired"]);
    a.release();
    w.settle().await;
    assert_eq!(w.journal(), "a- a+ a-");
    assert_eq!(w.ledger(&a).await, ["0 fired", "10..30 merged 3", "40 fired"]);
    w.down(boot).await;
}

/// The ledger after a node was down from 25 s to `hours`, with this policy.
async fn after_downtime(missed: Missed, back_at: i64) -> Vec<String> {
    let w = World::new().await;
    let a = w.define(Definition::new("a", every(600)).missed(missed));
    let boot = w.boot(&[&a]).await;
    w.run_to(700).await;
    w.down(boot).await;
    w.jump_to(back_at).await;
    let boot = w.boot(&[&a]).await;
    w.run_to(back_at + 400).await;
    w.down(boot).await;
    let fired = w.ledger(&a).await.iter().filter(|l| l.ends_with("fired")).count();
    assert_eq!(w.notes().await.len(), fired, "one cycle for each");
    w.ledger(&a).await
}

#[tokio::test]
async fn a_downtime_is_answered_by_the_policy() {
    // Down for three hours: 1200 to 11400 were missed, 12000 comes as usual.
    let common = ["0 fired", "600 fired"];
    for (missed, then) in [
        (Missed::Skip, vec!["1200..11400 skipped 18", "12000 fired"]),
        (Missed::Latest, vec!["1200..10800 merged 17", "11400 fired", "12000 fired"]),
        (
            Missed::All { cap: 3 },
            vec![
                "1200..9600 skipped 15",
                "10200 fired",
                "10800 fired",
                "11400 fired",
                "12000 fired",
            ],
        ),
    ] {
        let expected: Vec<_> = common.into_iter().chain(then).collect();
        assert_eq!(after_downtime(missed, 11_700).await, expected, "{missed:?}");
    }
    // A boot just after a due instant is on time for it.
    let on_time = after_downtime(Missed::Skip, 1_203).await;
    assert_eq!(on_time, ["0 fired", "600 fired", "1200 fired"]);
}

#[tokio::test]
async fn a_machine_that_slept_takes_up_what_it_missed() {
    for (missed, expected) in [
        (Missed::Skip, vec!["0 fired", "10..90 skipped 9", "100 fired"]),
        (Missed::Latest, vec!["0 fired", "10..80 merged 8", "90 fired", "100 fired"]),
        (
            Missed::All { cap: 2 },
            vec!["0 fired", "10..70 skipped 7", "80 fired", "90 fired", "100 fired"],
        ),
    ] {
        let w = World::new().await;
        let a = w.define(Definition::new("a", every(10)).missed(missed));
        let boot = w.boot(&[&a]).await;
        w.jump_to(99).await;
        w.run_to(105).await;
        assert_eq!(w.ledger(&a).await, expected, "{missed:?}");
        w.down(boot).await;
    }
}

#[tokio::test]
async fn a_cron_worker_runs_at_its_wall_clock_times_and_catches_up() {
    let w = World::new().await;
    let cron = Trigger::Cron(Cron::parse("0 */6 * * *", "UTC").unwrap());
    let a = w.worker("a", cron);
    let boot = w.boot(&[&a]).await;
    assert_eq!(w.journal(), "", "a cron worker waits for its time");
    w.run_to(6 * 3_600).await;
    assert_eq!(w.ledger(&a).await, ["21600 fired"]);
    w.down(boot).await;
    w.jump_to(3 * 86_400 + 60).await;
    let boot = w.boot(&[&a]).await;
    let expected = ["21600 fired", "43200..237600 merged 10", "259200 fired"];
    assert_eq!(w.ledger(&a).await, expected);
    w.down(boot).await;
}

#[tokio::test]
async fn a_node_that_was_down_over_the_first_due_instant_owes_it() {
    let six_hourly = || Trigger::Cron(Cron::parse("0 */6 * * *", "UTC").unwrap());
    for (missed, back_at, expected) in [
        (Missed::Latest, 7, vec!["21600 fired"]),
        (Missed::Latest, 31, vec!["21600..86400 merged 4", "108000 fired"]),
        (Missed::Skip, 31, vec!["21600..108000 skipped 5"]),
        (Missed::All { cap: 2 }, 13, vec!["21600 fired", "43200 fired"]),
    ] {
        let w = World::new().await;
        let a = w.define(Definition::new("a", six_hourly()).missed(missed));
        // An hour after it became known for the first time, the node goes down.
        let boot = w.boot(&[&a]).await;
        w.run_to(3_600).await;
        w.down(boot).await;
        assert_eq!(w.ledger(&a).await, Vec::<String>::new());
        w.jump_to(back_at * 3_600).await;
        let boot = w.boot(&[&a]).await;
        w.settle().await;
        assert_eq!(w.ledger(&a).await, expected, "{missed:?} after {back_at} h");
        w.down(boot).await;
        // Once it is in the ledger, it is not owed again.
        let boot = w.boot(&[&a]).await;
        w.settle().await;
        assert_eq!(w.ledger(&a).await, expected, "{missed:?} after {back_at} h, again");
        w.down(boot).await;
    }
}

#[tokio::test]
async fn a_tick_that_could_not_be_claimed_is_not_lost() {
    let w = World::new().await;
    let a = w.worker("a", every(60));
    let boot = w.boot(&[&a]).await;
    w.flight.fail("claim", 3, At::Before);
    w.run_to(119).await;
    assert_eq!(w.ledger(&a).await, ["0 fired", "60 fired"]);
    w.down(boot).await;
}

#[tokio::test]
async fn a_claim_or_publication_whose_answer_was_lost_does_not_block_the_worker() {
    for method in ["claim", "publish"] {
        let w = World::new().await;
        let a = w.worker("a", every(60));
        // Keeps the node renewing its leases throughout.
        let busy = w.worker("busy", Trigger::Stream);
        busy.always(Act::UntilCancelled);
        let boot = w.boot(&[&a, &busy]).await;
        // A publication is tried several times while its lease is renewed.
        let times = if method == "claim" { 1 } else { 5 };
        let when = if method == "claim" { At::After } else { At::Before };
        w.flight.fail(method, times, when);
        w.run_to(310).await;
        let ledger = w.ledger(&a).await;
        let expected = ["0 fired", "60 fired", "120 fired", "180 fired", "240 fired", "300 fired"];
        assert_eq!(ledger, expected, "{method}");
        let fate = if method == "claim" { "tick@60 lost" } else { "tick@60 succeeded" };
        assert_eq!(w.cycles(&a).await[1], fate, "{method}");
        w.down(boot).await;
    }
}

#[tokio::test]
async fn a_refused_statement_fails_the_cycle_and_frees_the_worker() {
    let w = World::new().await;
    let a = w.worker("a", every(60));
    let wrong = watchbell_core::Statement::new("update scan.notes set cause = 'x'", vec![])
        .expect(watchbell_core::Expect::Exactly(7));
    a.script([Act::Publish(watchbell_core::Commit::new().with(wrong))]);
    let boot = w.boot(&[&a]).await;
    assert_eq!(w.cycles(&a).await, ["tick@0 failed"]);
    let error = w.record(&a).await.last_error.unwrap();
    assert!(error.contains("changed 0 rows, expected exactly 7"), "{error}");
    w.run_to(60).await;
    assert_eq!(w.notes().await, ["a tick@60"]);
    w.down(boot).await;
}

#[tokio::test]
async fn a_manual_run_obeys_the_gates_unless_forced() {
    let w = World::new().await;
    let a = w.worker("a", every(3_600));
    let boot = w.boot(&[&a]).await;
    w.act(&boot, &a, Action::Pause).await;
    let report = boot.handle.run(a.name(), None, false).await;
    assert!(matches!(report, Report::Blocked { .. }), "{report:?}");
    let Report::Ran(ran) = boot.handle.run(a.name(), None, true).await else { panic!("ran") };
    assert_eq!(ran.cause, Cause::Manual);
    w.settle().await;
    assert_eq!(w.cycles(&a).await, ["tick@0 succeeded", "manual succeeded"]);
    assert_eq!(w.view(&boot, &a).await.state, State::Paused, "it stays as it was");
    w.act(&boot, &a, Action::Resume).await;
    a.script([Act::held()]);
    w.run_to(3_600).await;
    let report = boot.handle.run(a.name(), None, true).await;
    assert!(matches!(report, Report::Blocked { .. }), "no force makes cycles overlap: {report:?}");
    a.release();
    w.settle().await;
    w.down(boot).await;
}

#[tokio::test]
async fn a_dry_run_shows_what_it_would_write_and_writes_nothing() {
    let w = World::new().await;
    let a = w.worker("a", every(3_600));
    let jobs = w.worker("jobs", queue(1, 0));
    let on = w.worker("on", Trigger::On { kinds: vec!["k.*".into()] });
    let boot = w.boot(&[&a, &jobs, &on]).await;
    w.act(&boot, &jobs, Action::Pause).await;
    w.act(&boot, &on, Action::Pause).await;
    w.enqueue(&boot, NewJob::new("k", serde_json::json!(1))).await;
    w.emit(&boot, "k.x").await;
    let before = w.dump().await;
    for worker in [&a, &jobs, &on] {
        worker.script([Act::Steps(1, Box::new(Act::Artifact("model")))]);
        let shown = boot.handle.rehearse(worker.name(), None).await.unwrap().unwrap();
        let expected = ["insert scan.notes: 1 row", "insert scan.notes: 1 row", "artifact model"];
        assert_eq!(shown.lines, expected, "{}", worker.name());
        worker.script([Act::Panic]);
        let fault = boot.handle.rehearse(worker.name(), None).await.unwrap_err();
        assert!(fault.to_string().contains("panicked"), "{fault}");
    }
    w.settle().await;
    assert_eq!(w.dump().await, before);
    assert!(!w.dir.path().join("artifacts").exists());
    w.down(boot).await;
}

#[tokio::test]
async fn an_idle_node_asks_nothing_of_the_store() {
    let w = World::new().await;
    let daily = w.worker("daily", Trigger::Cron(Cron::parse("0 3 * * *", "UTC").unwrap()));
    let jobs = w.worker("jobs", queue(2, 0));
    let on = w.worker("on", Trigger::On { kinds: vec!["k.*".into()] });
    let manual = w.worker("manual", Trigger::Manual);
    let boot = w.boot(&[&daily, &jobs, &on, &manual]).await;
    w.run_to(60).await;
    let before = (w.flight.counts(), w.db.metrics());
    w.run_to(3 * 3_600 - 1).await;
    assert_eq!((w.flight.counts(), w.db.metrics()), before);
    w.down(boot).await;
}
