//! A supervisor that died: its programs are taken over, or ended and reported.

use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use watchbell_core::{Cause, CycleInput, Definition, Fault, Millis, Trigger, Worker};
use watchbell_exec::{ExecWorker, OnOrphan, Programs, Reaper, Spec};

use crate::fixture::{Own, World, gone, is_running, run, wait_for};

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned()
}

/// A run of this test alone: others look for theirs among the same processes.
fn mark(w: &World) -> String {
    format!("w.{}", w.path().file_name().unwrap().display())
}

/// A program in a group of its own with the mark of [`mark`], as a supervisor would start it.
fn program(w: &World, line: &str) -> Own {
    let dir = w.path().join("run");
    std::fs::create_dir_all(&dir).unwrap();
    let open = |kind: &str| {
        let path = dir.join(format!("{}.{kind}", mark(w)));
        std::fs::File::options().create(true).append(true).open(path).unwrap()
    };
    let child = Command::new("/bin/sh")
        .args(["-c", line])
        .env("WATCHBELL_RUN", mark(w))
        .env("WATCHBELL_DATA_DIR", w.path())
        .stdin(Stdio::null())
        .stdout(open("out"))
        .stderr(open("err"))
        .process_group(0)
        .spawn()
        .unwrap();
    Own(child)
}

/// The record that a supervisor leaves which died.
fn record(w: &World, own: &Own, changes: &Value) {
    let mut record = json!({
        "worker": "w", "run": mark(w),
        "leader": { "pid": own.pid(), "started": own.started() },
        "boot": boot(),
        // No process has this number.
        "supervisor": { "pid": i32::MAX, "started": 1 },
        "at": "2026-11-22T00:00:00Z", "command": "sh -c ...", "fingerprint": "other",
        "adopt": false, "out": 0, "lines": 0, "err": 0,
    });
    for (name, value) in changes.as_object().unwrap().iter().filter(|(_, v)| !v.is_null()) {
        record[name] = value.clone();
    }
    let mut file = std::fs::File::create(w.path().join(format!("run/{}.json", mark(w)))).unwrap();
    writeln!(file, "{record}").unwrap();
}

/// The record as it is now.
fn recorded(w: &World) -> Option<Value> {
    let run = w.runs().into_iter().find(|p| p.extension().is_some_and(|e| e == "json"))?;
    serde_json::from_str(&std::fs::read_to_string(run).ok()?).ok()
}

fn adopter(programs: &Arc<Programs>, line: &str) -> ExecWorker {
    let spec = Spec { on_orphan: OnOrphan::Adopt, ..Spec::shell(line) };
    ExecWorker::new(Definition::new("w", Trigger::Stream), spec, Arc::clone(programs))
}

const ENDLESS: &str = "trap 'exit 3' TERM; while :; do sleep 0.05; done";

#[tokio::test]
async fn an_orphan_is_ended_and_reported_with_all_its_group() {
    let w = World::new();
    let own = program(
        &w,
        r#"sh -c 'trap "" TERM; echo $$ > "$WATCHBELL_DATA_DIR/member"; while :; do sleep 1; done' &
           while :; do sleep 1; done"#,
    );
    record(&w, &own, &json!({}));
    let member: i32 = w.text_of("member").await.trim().parse().unwrap();
    // One second of its patience takes ten milliseconds.
    let quick = World::at_speed(100.0);
    let programs = Programs::new(w.path(), quick.clock.clone());
    let reaper = Reaper::new(Arc::clone(&programs));
    let cycle = w.cycle(Cause::Manual, CycleInput::None, &w.desk());
    let done = reaper.run(&cycle).await.unwrap();
    assert_eq!(done.commit.describe(), ["event exec.reaped w"]);
    let told = &done.commit.events[0].payload;
    assert_eq!((&told["end"], &told["why"]), (&json!("killed"), &json!("its supervisor died")));
    assert!(told["processes"].as_array().unwrap().contains(&json!(member)), "{told}");
    gone(own.pid()).await;
    gone(member).await;
    assert!(w.runs().is_empty());
    let again = reaper.run(&cycle).await.unwrap();
    assert!(again.commit.is_empty());
}

#[tokio::test]
async fn a_number_that_belongs_to_another_process_is_not_touched() {
    let w = World::new();
    let own = program(&w, ENDLESS);
    for changes in [
        // Another start: the number was used again, by a program of another run.
        json!({ "leader": { "pid": own.pid(), "started": own.started() - 1 }, "run": "w.2" }),
        // Another boot.
        json!({ "boot": "another" }),
    ] {
        record(&w, &own, &changes);
        let reaped = w.restarted().sweep(w.clock.now()).await.unwrap();
        assert!(reaped.is_empty(), "{reaped:?}");
        // Not even by the stream that would take it over if it were its own. What its run had said
        // is read, for there is a file of it.
        let run_name = changes["run"].as_str().map_or_else(|| mark(&w), str::to_owned);
        for kind in ["out", "err"] {
            let path = w.path().join(format!("run/{run_name}.{kind}"));
            std::fs::File::options().create(true).append(true).open(path).unwrap();
        }
        let changes = json!({
            "adopt": true, "leader": changes["leader"], "run": changes["run"], "boot": changes["boot"],
        });
        let worker = adopter(&w.restarted(), "exit 7");
        record(&w, &own, &changes);
        let cycle = w.cycle(Cause::Stream, CycleInput::None, &w.desk());
        let started = run(&worker, &cycle).await.unwrap_err().to_string();
        assert_eq!(started, "exited with 7");
        assert!(is_running(own.pid()));
    }
}

#[tokio::test]
async fn a_program_whose_supervisor_lives_is_its_own() {
    let w = World::new();
    let own = program(&w, ENDLESS);
    let watcher = program(&w, ENDLESS);
    let supervisor = json!({ "pid": watcher.pid(), "started": watcher.started() });
    record(&w, &own, &json!({ "supervisor": supervisor }));
    assert!(w.restarted().sweep(w.clock.now()).await.unwrap().is_empty());
    assert!(is_running(own.pid()));
    drop(watcher);
    let reaped = w.restarted().sweep(w.clock.now()).await.unwrap();
    assert_eq!(reaped.len(), 1);
    gone(own.pid()).await;
}

#[tokio::test]
async fn a_worker_ends_what_an_earlier_supervisor_left_before_it_starts() {
    let w = World::new();
    let own = program(&w, ENDLESS);
    record(&w, &own, &json!({}));
    w.once("true").await.unwrap();
    gone(own.pid()).await;
    let told = w.programs.sweep(w.clock.now()).await.unwrap();
    assert_eq!(told.len(), 1, "the reaper tells it");
}

#[tokio::test]
async fn a_program_found_only_by_its_mark_is_ended() {
    let w = World::new();
    let own = program(&w, ENDLESS);
    // A process that has only just begun shows no environment yet.
    let environment = format!("/proc/{}/environ", own.pid());
    wait_for(|| std::fs::read(&environment).ok().filter(|e| !e.is_empty())).await;
    // The supervisor died between writing the record and starting the program.
    record(&w, &own, &json!({ "leader": { "pid": 0, "started": 0 } }));
    let reaped = w.restarted().sweep(w.clock.now()).await.unwrap();
    assert!(reaped[0].processes.contains(&own.pid()));
    gone(own.pid()).await;
}

/// Starts a stream's program, and forgets its supervisor the way a KILL would.
async fn orphaned(w: &World, line: &str) -> (i32, Value) {
    let worker = adopter(&w.programs, line);
    let desk = w.desk();
    let cycle = w.cycle(Cause::Stream, CycleInput::None, &desk);
    let running = async move { worker.run(&cycle).await };
    let mut running = Box::pin(running);
    let started =
        async { wait_for(|| recorded(w).filter(|r| r["lines"].as_u64() > Some(0))).await };
    let mut record = tokio::select! {
        biased;
        record = started => record,
        done = &mut running => panic!("{done:?}"),
    };
    // Nothing of it is dropped: its guards would end the program.
    std::mem::forget(running);
    let pid = record["leader"]["pid"].as_i64().unwrap() as i32;
    record["supervisor"] = json!({ "pid": i32::MAX, "started": 1 });
    let run = record["run"].as_str().unwrap().to_owned();
    let text = format!("{record}\n");
    std::fs::write(w.path().join(format!("run/{run}.json")), text).unwrap();
    (pid, record)
}

const COUNTING: &str = r#"n=0
    trap 'echo "{\"event\":{\"kind\":\"n\",\"key\":\"last\"}}"; exit 0' TERM
    while :; do n=$((n+1)); echo "{\"event\":{\"kind\":\"n\",\"key\":\"$n\"}}"; sleep 0.02; done"#;

#[tokio::test]
async fn a_streams_program_is_taken_over_with_all_that_it_said_meanwhile() {
    let w = World::new();
    let (pid, left) = orphaned(&w, COUNTING).await;
    let said = left["lines"].as_u64().unwrap();
    let out = w.path().join(format!("run/{}.out", left["run"].as_str().unwrap()));
    // It goes on without anybody listening.
    wait_for(|| {
        (std::fs::read_to_string(&out).unwrap().lines().count() as u64 > said + 5).then_some(())
    })
    .await;
    assert!(is_running(pid));

    let worker = adopter(&w.restarted(), COUNTING);
    let desk = w.desk();
    let cycle = w.cycle(Cause::Stream, CycleInput::None, &desk);
    let stopping = async {
        let seen = desk.steps(8).await;
        desk.cancel();
        seen
    };
    let (done, _) = tokio::join!(run(&worker, &cycle), stopping);
    // Its exit code is told to whoever started it: asked to stop, it stopped.
    assert!(matches!(done, Err(Fault::Cancelled)), "{done:?}");
    let events: Vec<_> = desk.steps.lock().unwrap().iter().flat_map(|s| s.events.clone()).collect();
    assert_eq!(
        (events[0].kind.as_str(), &events[0].payload["process"]),
        ("exec.adopted", &json!(pid))
    );
    // Nothing between the two supervisors is missing, and nothing after the second was asked to stop.
    let keys: Vec<_> = events[1..].iter().map(|e| e.key.as_str()).collect();
    let first: u64 = keys[0].parse().unwrap();
    assert!(first <= said + 1, "{first} after {said}");
    for (n, key) in keys[..keys.len() - 1].iter().enumerate() {
        assert_eq!(*key, (first + n as u64).to_string());
    }
    assert_eq!(*keys.last().unwrap(), "last");
    gone(pid).await;
    assert!(w.runs().is_empty());
}

#[tokio::test]
async fn a_changed_command_is_not_taken_over() {
    let w = World::new();
    let (pid, _) = orphaned(&w, COUNTING).await;
    let programs = w.restarted();
    let worker = adopter(&programs, "echo new; exec sleep 600");
    let desk = w.desk();
    let cycle = w.cycle(Cause::Stream, CycleInput::None, &desk);
    let stopping = async {
        wait_for(|| w.log().iter().any(|l| l.ends_with("out new")).then_some(())).await;
        desk.cancel();
    };
    let (done, ()) = tokio::join!(run(&worker, &cycle), stopping);
    assert!(matches!(done, Err(Fault::Cancelled)), "{done:?}");
    gone(pid).await;
    let steps = desk.steps.lock().unwrap().clone();
    let told = &steps[0].events[0];
    assert_eq!(
        (told.kind.as_str(), &told.payload["ends"]),
        ("exec.adopted", &json!("its command was changed"))
    );
    // What the old one had said is published all the same, to its last word.
    assert_eq!(steps.last().unwrap().events.last().unwrap().key, "last");
}

#[tokio::test]
async fn what_a_program_said_before_it_ended_unwatched_is_published() {
    let w = World::new();
    let line = r#"echo '{"event":{"kind":"n","key":"1"}}'; sleep 0.3; echo '{"event":{"kind":"n","key":"2"}}'"#;
    let (pid, _) = orphaned(&w, line).await;
    gone(pid).await;
    let worker = adopter(&w.restarted(), line);
    let desk = w.desk();
    let cycle = w.cycle(Cause::Stream, CycleInput::None, &desk);
    run(&worker, &cycle).await.unwrap();
    let steps = desk.steps.lock().unwrap().clone();
    let events: Vec<_> = steps.iter().flat_map(|s| &s.events).collect();
    let keys: Vec<_> = events[1..].iter().map(|e| e.key.as_str()).collect();
    // The rest of the first run, and then the second.
    assert_eq!(keys, ["2", "1", "2"]);
    assert_eq!(events[0].payload["ends"], "it ended while nobody watched");
    assert!(w.runs().is_empty());
}

#[tokio::test]
async fn an_orphan_waits_a_minute_to_be_taken_over() {
    let w = World::new();
    let (pid, _) = orphaned(&w, COUNTING).await;
    let programs = w.restarted();
    let now = w.clock.now();
    // No worker would take it over: it is ended at the first look of a node without that worker.
    let _worker = adopter(&programs, COUNTING);
    assert!(programs.sweep(now).await.unwrap().is_empty());
    assert!(programs.sweep(now + Millis::from_secs(59)).await.unwrap().is_empty());
    assert!(is_running(pid));
    let told = programs.sweep(now + Millis::from_secs(60)).await.unwrap();
    assert_eq!(told[0].why, "its supervisor died, and its worker did not take it over");
    gone(pid).await;
}

#[tokio::test]
async fn output_that_was_taken_in_does_not_fill_the_disk() {
    use std::os::unix::fs::MetadataExt;
    let w = World::new();
    let worker = adopter(
        &w.programs,
        "i=0; while [ $i -lt 40 ]; do head -c 100000 /dev/zero | tr '\\0' x; echo; i=$((i+1)); done; echo done; exec sleep 600",
    );
    let desk = w.desk();
    let cycle = w.cycle(Cause::Stream, CycleInput::None, &desk);
    let looking = async {
        let record = wait_for(|| recorded(&w).filter(|r| r["lines"] == 41)).await;
        let out = w.path().join(format!("run/{}.out", record["run"].as_str().unwrap()));
        let file = std::fs::metadata(out).unwrap();
        desk.cancel();
        (file.len(), file.blocks() * 512)
    };
    let (_, (length, held)) = tokio::join!(run(&worker, &cycle), looking);
    assert!(length > 4_000_000 && held < 2_200_000, "{held} of {length} bytes");
}
