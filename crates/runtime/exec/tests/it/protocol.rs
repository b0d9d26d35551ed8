//! What a program is told, and what becomes of what it says.

use std::os::unix::fs::PermissionsExt;

use watchbell_core::job::Kind;
use watchbell_core::port::StoreError;
use watchbell_core::{
    Cause, CycleInput, Definition, EventRecord, Fault, Millis, QueueSpec, Time, Token, Trigger,
    WindowSpec, Worker,
};
use watchbell_exec::{LogPolicy, Spec};

use crate::fixture::{World, is_running, run};

#[tokio::test]
async fn everything_that_is_said_is_published_at_once() {
    let w = World::new();
    let done = w
        .once(
            r#"echo '{"progress":{"percent":50,"message":"half"}}'
               echo '{"event":{"kind":"file.seen","key":"a","payload":{"n":1}}}'
               echo plain words
               echo '{"job":{"kind":"fetch","payload":{"symbol":"BTC"}}}'
               echo '{"cover":{"source":"s","key":"k","from":0,"to":60000}}'
               echo '{"condition":{"name":"disk","met":true,"detail":"fine"}}'
               echo '{"log":{"level":"warn","message":"careful"}}'
               echo complaint >&2
               echo '{"summary":{"rows":3}}'"#,
        )
        .await
        .unwrap();
    assert_eq!(done.summary, serde_json::json!({ "rows": 3 }));
    assert_eq!(
        done.commit.describe(),
        [
            "cover s k: 1970-01-01T00:00:00Z to 1970-01-01T00:01:00Z",
            "event file.seen a",
            "job fetch",
            "condition disk: met (fine)",
        ]
    );
    let mut log = w.log();
    assert!(log.remove(0).starts_with("cycle 12 run started: process "), "{log:?}");
    for line in ["cycle 12 out plain words", "cycle 12 warn careful", "cycle 12 err complaint"] {
        assert!(log.contains(&line.to_owned()), "{line}: {log:?}");
    }
    assert!(log.last().unwrap().starts_with("cycle 12 run exited with 0 after"), "{log:?}");
    assert!(w.runs().is_empty());
}

#[tokio::test]
async fn nothing_is_published_when_it_fails() {
    let w = World::new();
    let cases = [
        ("exit 1", "transient", "exited with 1"),
        ("echo no such file >&2; exit 74", "transient", "its last words: no such file"),
        ("exit 65", "permanent", "EX_DATAERR"),
        ("exit 75", "transient", "exited with 75 (not now)"),
        ("kill -SEGV $$", "transient", "killed by SIGSEGV"),
        (
            "echo '{\"event\":{\"kind\":\"a\"}}'; echo '{\"evnt\":1}'",
            "transient",
            "line 2 of its output is wrong: unknown variant `evnt`",
        ),
        (
            "echo '{\"event\":'; exit 0",
            "transient",
            "line 1 of its output is wrong: EOF while parsing",
        ),
        // It died in the middle of a line: that is why, not the half line.
        ("printf '{\"event\":'; kill -KILL $$", "transient", "killed by SIGKILL"),
        ("echo '{\"artifact\":{\"name\":\"m\"}}'", "transient", "configure `stage: true`"),
    ];
    for (line, kind, says) in cases {
        let fault = w.once(line).await.unwrap_err();
        assert_eq!(fault.kind(), kind, "{line}: {fault}");
        assert!(fault.to_string().contains(says), "{line}: {fault}");
        assert!(w.runs().is_empty());
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let w = World::new();
    let cycle = w.cycle(Cause::Manual, CycleInput::None, &w.desk());
    let fails = async |spec: Spec| {
        let worker = w.with(Definition::new("w", Trigger::Manual), spec);
        run(&worker, &cycle).await.unwrap_err().to_string()
    };
    let words = |word: &str| vec![word.to_owned()];
    let missing = fails(Spec::new(words("no-such-program"))).await;
    assert!(missing.starts_with("there is no program `no-such-program` in PATH ("), "{missing}");
    let missing = fails(Spec::new(words("/no/such/program"))).await;
    assert_eq!(missing, "`/no/such/program` does not exist");
    let dir = fails(Spec { dir: Some("/no/such/dir".into()), ..Spec::shell("true") }).await;
    assert_eq!(dir, "its working directory /no/such/dir does not exist");
    let text = w.path().join("text");
    std::fs::write(&text, "not a program").unwrap();
    std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o755)).unwrap();
    let odd = fails(Spec::new(words(&text.display().to_string()))).await;
    assert!(odd.starts_with("cannot start `"), "{odd}");
    assert!(w.runs().is_empty());
}

#[tokio::test]
async fn a_snooze_is_a_snooze() {
    let w = World::new();
    for code in [0, 75] {
        let line =
            format!(r#"echo '{{"snooze":{{"after":"5m","why":"no data yet"}}}}'; exit {code}"#);
        match w.once(&line).await {
            Err(Fault::Snooze { after, why }) => {
                assert_eq!((after, why.as_str()), (Millis::from_mins(5), "no data yet"));
            }
            other => panic!("{other:?}"),
        }
    }
    let failed = w.once(r#"echo '{"snooze":{"after":"5m","why":"x"}}'; exit 2"#).await.unwrap_err();
    assert_eq!(failed.kind(), "transient");
}

/// What a script printed as `NAME=VALUE`, from the log.
fn variables(w: &World) -> Vec<String> {
    let mut all: Vec<String> = w
        .log()
        .into_iter()
        .filter_map(|l| l.split_once(" out ").map(|(_, text)| text.to_owned()))
        .filter(|l| l.contains('='))
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn the_environment_is_what_is_configured_and_what_the_cycle_is_about() {
    let w = World::new();
    let spec = Spec {
        env: [("COLOUR".to_owned(), "red".to_owned())].into(),
        env_allow: vec!["CARGO_PKG_NAME".to_owned()],
        ..Spec::shell("env")
    };
    let worker = w.with(Definition::new("w", Trigger::Manual), spec);
    let due = Time(1_795_316_400_000);
    run(&worker, &w.cycle(Cause::Tick { due }, CycleInput::None, &w.desk())).await.unwrap();
    let all = variables(&w);
    let has = |entry: &str| all.iter().any(|l| l == entry);
    for entry in [
        "COLOUR=red",
        "CARGO_PKG_NAME=watchbell-exec",
        "WATCHBELL_WORKER=w",
        "WATCHBELL_CYCLE_ID=12",
        "WATCHBELL_TOKEN=3",
        "WATCHBELL_ATTEMPT=1",
        "WATCHBELL_CAUSE=tick",
        &format!("WATCHBELL_DUE={due}"),
        &format!("WATCHBELL_DATA_DIR={}", w.path().display()),
    ] {
        assert!(has(entry), "{entry} in {all:#?}");
    }
    let known =
        ["PATH", "HOME", "LANG", "TZ", "COLOUR", "CARGO_PKG_NAME", "PWD", "SHLVL", "_", "OLDPWD"];
    for entry in &all {
        let name = entry.split('=').next().unwrap();
        assert!(name.starts_with("WATCHBELL_") || known.contains(&name), "{entry}");
    }
    assert!(!all.iter().any(|l| l.starts_with("WATCHBELL_DRY_RUN")));
    let mut rehearsed = w.cycle(Cause::Manual, CycleInput::None, &w.desk());
    rehearsed.token = Token(0);
    run(&worker, &rehearsed).await.unwrap();
    assert!(variables(&w).contains(&"WATCHBELL_DRY_RUN=1".to_owned()));
}

#[tokio::test]
async fn a_job_brings_its_payload_and_an_event_itself() {
    let w = World::new();
    let script = r#"printf '{"summary":{"kind":"%s","stdin":%s,"file":%s}}\n' "$WATCHBELL_JOB_KIND$WATCHBELL_EVENT_KIND" "$(cat)" "$(cat "$WATCHBELL_INPUT")""#;
    let queue = Trigger::Queue(QueueSpec::one(Kind::new("fetch")));
    let worker = w.worker(queue, script);
    let payload = serde_json::json!({ "symbol": "BTC", "text": "with 'quotes' and\nlines" });
    let input = CycleInput::Job { kind: "fetch".into(), payload: payload.clone() };
    let done = run(&worker, &w.cycle(Cause::Job { id: 5 }, input, &w.desk())).await.unwrap();
    assert_eq!(
        done.summary,
        serde_json::json!({ "kind": "fetch", "stdin": payload, "file": payload })
    );
    assert!(w.log()[0].starts_with("job 5 run started"), "{:?}", w.log());

    let worker = w.worker(Trigger::On { kinds: vec!["a.*".into()] }, script);
    let event = EventRecord {
        id: 9,
        at: Time(0),
        kind: "a.b".into(),
        key: "k".into(),
        payload: serde_json::json!([1, 2]),
        cycle: None,
    };
    let input = CycleInput::Event(event.clone());
    let done = run(&worker, &w.cycle(Cause::Event { id: 9 }, input, &w.desk())).await.unwrap();
    assert_eq!(done.summary["stdin"], serde_json::json!(event));
    assert_eq!(done.summary["kind"], "a.b");
    assert!(w.runs().is_empty());
}

#[tokio::test]
async fn a_long_payload_is_only_in_the_file() {
    let w = World::new();
    let script = r#"printf '{"summary":{"variable":%d,"stdin":%d}}\n' "${#WATCHBELL_JOB_PAYLOAD}" "$(wc -c)""#;
    let worker = w.worker(Trigger::Queue(QueueSpec::one(Kind::new("k"))), script);
    for (length, variable) in [(100, 102), (900_000, 0)] {
        let payload = serde_json::json!("x".repeat(length));
        let input = CycleInput::Job { kind: "k".into(), payload };
        let done = run(&worker, &w.cycle(Cause::Job { id: 1 }, input, &w.desk())).await.unwrap();
        assert_eq!(done.summary, serde_json::json!({ "variable": variable, "stdin": length + 2 }));
    }
}

#[tokio::test]
async fn a_window_tells_its_hashes() {
    let w = World::new();
    let trigger = Trigger::Window(WindowSpec {
        series: "w".into(),
        length: Millis::from_mins(10),
        settle: Millis::ZERO,
        inputs: Vec::new(),
        max_attempts: 3,
    });
    let script = r#"h=$(printf "$WATCHBELL_WINDOW_START" | sha256sum | cut -d' ' -f1)
        echo "{\"window\":{\"inputs\":\"$h\",\"result\":\"$h\",\"source\":\"test\"}}"
        echo "{\"summary\":{\"scope\":$(cat)}}""#;
    let spec = Spec {
        scope: vec!["BTC".into(), "ETH".into()],
        first_window: Some(Time(1)),
        ..Spec::shell(script)
    };
    let worker = w.with(Definition::new("w", trigger.clone()), spec);
    let ten = Time(600_000);
    assert_eq!(worker.first_window(Time(0)).await.unwrap(), Some(ten));
    assert_eq!(worker.first_window(ten + Millis(1)).await.unwrap(), Some(Time(1_200_000)));
    let scope = worker.scope(ten).await.unwrap();
    assert_eq!(scope, ["BTC", "ETH"]);
    let cause = Cause::Window { series: "w".into(), start: Time(0), end: ten, version: 1 };
    let cycle = w.cycle(cause, CycleInput::Scope(scope.clone()), &w.desk());
    let done = run(&worker, &cycle).await.unwrap();
    let hashes = done.window.unwrap();
    // SHA-256 of the start of the window, 1970-01-01T00:00:00Z.
    assert!(hashes.inputs.starts_with("d239cae45de9eb86"), "{}", hashes.inputs);
    assert_eq!((hashes.inputs, hashes.source.as_str()), (hashes.result, "test"));
    assert_eq!(done.summary, serde_json::json!({ "scope": scope }));
    let silent = run(&w.worker(trigger, "true"), &cycle).await.unwrap_err();
    assert!(silent.to_string().contains("no `window` line"), "{silent}");
}

#[tokio::test]
async fn files_of_the_stage_are_published_and_the_rest_is_removed() {
    let w = World::new();
    let spec = |line: &str| Spec { stage: true, ..Spec::shell(line) };
    let worker = w.with(
        Definition::new("w", Trigger::Manual),
        spec(
            r#"cd "$WATCHBELL_STAGE"; mkdir -p out/a b; echo 1 > out/a/one; echo 2 > b/two; echo 3 > rest
               echo '{"artifact":{"name":"model","path":"out/a"}}'
               echo '{"artifact":{"name":"data","path":"b"}}'"#,
        ),
    );
    let cycle = w.cycle(Cause::Manual, CycleInput::None, &w.desk());
    let done = run(&worker, &cycle).await.unwrap();
    let names: Vec<_> = done.artifacts.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names, ["model", "data"]);
    assert_eq!(std::fs::read_to_string(done.artifacts[0].staged.join("one")).unwrap(), "1\n");
    assert_eq!(std::fs::read_to_string(done.artifacts[1].staged.join("two")).unwrap(), "2\n");
    let stages = || {
        std::fs::read_dir(w.path())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_str().unwrap().starts_with("stage-"))
    };
    assert_eq!(stages().count(), 2);
    for line in [
        "exit 1",
        r#"echo '{"artifact":{"name":"m","path":"none"}}'"#,
        r#"mkdir "$WATCHBELL_STAGE/a"; echo '{"artifact":{"name":"a","path":"a"}}'; echo '{"artifact":{"name":"b","path":"b"}}'"#,
        "true",
    ] {
        let worker = w.with(Definition::new("w", Trigger::Manual), spec(line));
        // A stage for itself and nothing else: the two that were published are not in its way.
        let desk = w.desk_in("others");
        let result = run(&worker, &w.cycle(Cause::Manual, CycleInput::None, &desk)).await;
        assert_eq!(result.map_or(0, |done| done.artifacts.len()), 0);
        assert_eq!(std::fs::read_dir(w.path().join("others")).unwrap().count(), 0, "{line}");
    }
}

#[tokio::test]
async fn a_stream_publishes_as_it_goes_and_waits_for_the_store() {
    let w = World::at_speed(50.0);
    let worker = w.worker(
        Trigger::Stream,
        r#"echo '{"event":{"kind":"a","key":"1"}}'; sleep 0.05; echo '{"event":{"kind":"a","key":"2"}}'; exec sleep 600"#,
    );
    let desk = w.desk();
    let gone = || StoreError::Database("the server restarts".into());
    desk.fail_steps.lock().unwrap().extend([gone(), gone()]);
    let cycle = w.cycle(Cause::Stream, CycleInput::None, &desk);
    let stepping = async {
        let steps = desk.steps(2).await;
        desk.cancel();
        steps
    };
    let (fault, steps) = tokio::join!(run(&worker, &cycle), stepping);
    assert!(matches!(fault, Err(Fault::Cancelled)), "{fault:?}");
    let keys: Vec<_> = steps.iter().flat_map(|s| &s.events).map(|e| e.key.as_str()).collect();
    assert_eq!(keys, ["1", "2"]);
    let dedupe = steps[0].events[0].dedupe.clone().unwrap();
    assert!(dedupe.starts_with("exec/w.") && dedupe.ends_with("/0"), "{dedupe}");
}

#[tokio::test]
async fn a_stream_whose_claim_is_lost_ends_its_program() {
    let w = World::new();
    let worker = w.worker(
        Trigger::Stream,
        r#"echo $$ > "$WATCHBELL_DATA_DIR/pid"; echo '{"event":{"kind":"a"}}'; exec sleep 600"#,
    );
    let desk = w.desk();
    let fenced = StoreError::Fenced { worker: "w".into(), token: Token(3) };
    desk.fail_steps.lock().unwrap().push(fenced);
    let cycle = w.cycle(Cause::Stream, CycleInput::None, &desk);
    let fault = run(&worker, &cycle).await.unwrap_err();
    assert!(matches!(fault, Fault::Store(StoreError::Fenced { .. })), "{fault}");
    assert!(!is_running(w.text_of("pid").await.trim().parse().unwrap()));
    assert!(w.runs().is_empty());
}

#[tokio::test]
async fn much_output_is_taken_in_and_the_log_stays_small() {
    let w = World::new();
    let spec = Spec {
        log: LogPolicy { max_bytes: 200_000, keep: 2 },
        ..Spec::shell(
            r#"i=0; while [ $i -lt 3000 ]; do echo "a line of words that is some eighty bytes long, number $i of three thousand"; echo '{"event":{"kind":"a"}}'; i=$((i+1)); done"#,
        )
    };
    let worker = w.with(Definition::new("w", Trigger::Manual), spec);
    let done = run(&worker, &w.cycle(Cause::Manual, CycleInput::None, &w.desk())).await.unwrap();
    assert_eq!(done.commit.events.len(), 3_000);
    assert_eq!(done.summary, serde_json::json!({ "lines": 6_000 }));
    let logs: Vec<_> = std::fs::read_dir(w.path().join("logs/workers")).unwrap().collect();
    assert_eq!(logs.len(), 2);
    assert!(w.log().iter().any(|l| l.contains("number 2999 of")));
}
