//! Asked to stop, out of time, and what is left of a group.

use watchbell_core::{Cause, CycleInput, Definition, Fault, Millis, Trigger, Worker};
use watchbell_exec::Spec;

use crate::fixture::{World, gone, is_running, run, wait_for};

fn pid(text: &str) -> i32 {
    text.trim().parse().unwrap()
}

/// A leader that ends on TERM, and a member of its group that ignores it.
const DEAF_MEMBER: &str = r#"cd "$WATCHBELL_DATA_DIR"
    sh -c 'trap "" TERM; echo $$ > member; while :; do sleep 1; done' &
    trap 'exit 0' TERM; echo $$ > leader; while :; do sleep 0.05; done"#;

/// A leader that ignores TERM.
const DEAF: &str = r#"cd "$WATCHBELL_DATA_DIR"
    trap '' TERM; sh -c 'echo $$ > member; while :; do sleep 1; done' &
    echo $$ > leader; while :; do sleep 1; done"#;

#[tokio::test]
async fn nothing_of_the_group_outlives_its_leader() {
    let w = World::new();
    for (line, ok) in [
        (r#"cd "$WATCHBELL_DATA_DIR"; sleep 600 & echo $! > member; exit 0"#, true),
        (r#"cd "$WATCHBELL_DATA_DIR"; sleep 600 & echo $! > member; exit 1"#, false),
    ] {
        assert_eq!(w.once(line).await.is_ok(), ok);
        gone(pid(&w.text_of("member").await)).await;
    }
}

#[tokio::test]
async fn asked_to_stop_it_may_finish_and_publish() {
    let w = World::new();
    let desk = w.desk();
    let worker = w.worker(Trigger::Manual, DEAF_MEMBER);
    let cycle = w.cycle(Cause::Manual, CycleInput::None, &desk);
    let stopping = async {
        let pids = (pid(&w.text_of("leader").await), pid(&w.text_of("member").await));
        desk.cancel();
        pids
    };
    let (done, (leader, member)) = tokio::join!(run(&worker, &cycle), stopping);
    done.unwrap();
    gone(leader).await;
    gone(member).await;
    assert!(
        w.log().iter().any(|l| l.contains("asked to stop: TERM (on request)")),
        "{:?}",
        w.log()
    );
}

#[tokio::test]
async fn stopped_by_request_is_not_a_failure() {
    let w = World::new();
    let desk = w.desk();
    let worker = w.worker(Trigger::Stream, "exec sleep 600");
    let cycle = w.cycle(Cause::Stream, CycleInput::None, &desk);
    let stopping = async {
        wait_for(|| w.log().iter().any(|l| l.contains("started")).then_some(())).await;
        desk.cancel();
    };
    let (done, ()) = tokio::join!(run(&worker, &cycle), stopping);
    assert!(matches!(done, Err(Fault::Cancelled)), "{done:?}");
}

#[tokio::test]
async fn past_its_soft_timeout_it_hears_term_and_past_its_hard_timeout_kill() {
    // An hour of the cycle's time passes in two seconds.
    let w = World::at_speed(1_800.0);
    let limits = (Millis::from_mins(10), Millis::from_mins(30));
    let definition = Definition::new("w", Trigger::Manual).timeouts(limits.0, limits.1);
    let worker = w.with(definition, Spec::shell(DEAF));
    let desk = w.desk();
    let cycle = w.cycle(Cause::Manual, CycleInput::None, &desk);
    let limiting = async {
        let pids = (pid(&w.text_of("leader").await), pid(&w.text_of("member").await));
        w.clock.sleep_until(cycle.started_at + limits.0).await;
        desk.cancel();
        pids
    };
    let (fault, (leader, member)) = tokio::join!(run(&worker, &cycle), limiting);
    let fault = fault.unwrap_err();
    assert_eq!(fault.kind(), "transient");
    assert_eq!(
        fault.to_string(),
        "ran longer than its soft timeout of 10m, and was asked to stop: killed by SIGKILL"
    );
    assert!(w.clock.now() - cycle.started_at >= limits.1);
    gone(leader).await;
    gone(member).await;
    assert!(w.log().iter().any(|l| l.ends_with("does not end: KILL")), "{:?}", w.log());
}

#[tokio::test]
async fn a_cycle_that_is_aborted_leaves_no_process_and_no_file() {
    let w = World::new();
    let worker = w.worker(Trigger::Manual, DEAF);
    let cycle = w.cycle(Cause::Manual, CycleInput::None, &w.desk());
    let (leader, member) = {
        let running = worker.run(&cycle);
        let pids = async { (pid(&w.text_of("leader").await), pid(&w.text_of("member").await)) };
        tokio::select! {
            biased;
            pids = pids => pids,
            done = running => panic!("{done:?}"),
        }
    };
    gone(leader).await;
    gone(member).await;
    assert!(w.runs().is_empty());
    // Collected too: nothing of it is left in the process table.
    wait_for(|| (!std::path::Path::new(&format!("/proc/{leader}")).exists()).then_some(())).await;
}

#[tokio::test]
async fn a_wrong_line_ends_the_program() {
    let w = World::new();
    let fault = w
        .once(r#"cd "$WATCHBELL_DATA_DIR"; echo $$ > leader; echo '{"nonsense":1}'; sleep 600"#)
        .await
        .unwrap_err();
    assert!(fault.to_string().starts_with("line 1 of its output is wrong"), "{fault}");
    assert!(!is_running(pid(&w.text_of("leader").await)));
}
