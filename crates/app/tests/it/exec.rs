//! Programs as workers of the real binary, and what becomes of them when it is killed.

use std::path::Path;

use crate::harness::Home;

fn configured(workers: &str) -> Home {
    let home = Home::new();
    let names: Vec<&str> = workers
        .lines()
        .filter_map(|l| l.strip_prefix("  ")?.strip_suffix(':').filter(|n| !n.starts_with(' ')))
        .collect();
    let profile =
        format!("profile: mine\nprofiles:\n  mine: [{}, exec-reaper]\n", names.join(", "));
    let text = format!("{profile}workers:\n{workers}");
    std::fs::write(home.path().join("watchbell.yaml"), text).expect("a configuration");
    home
}

/// `..., process 4711`: the number.
fn process(line: &str) -> i32 {
    let number = line.rsplit("process ").next().unwrap_or_default();
    let number: String = number.chars().take_while(char::is_ascii_digit).collect();
    number.parse().unwrap_or_else(|_| panic!("no process in `{line}`"))
}

fn runs(pid: i32) -> bool {
    std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

const UP: [&str; 3] = ["up", "--http-port", "0"];

#[test]
fn a_cycle_publishes_what_its_program_says() {
    let home = configured(
        r#"  disk-watch:
    type: exec
    trigger: manual
    shell: |
      echo "looking at $WATCHBELL_DATA_DIR"
      echo '{"summary": {"used_percent": 93}}'
      echo '{"event": {"kind": "disk.filling", "payload": {"used_percent": 93}}}'
  broken:
    type: exec
    trigger: manual
    command: [sh, -c, 'echo "{\"event\": {\"kind\": \"never.seen\"}}"; echo no disk >&2; exit 66']
"#,
    );
    home.run(["config", "check"]).ok();
    home.run(["db", "migrate"]).ok();
    let ran = home.run(["run", "disk-watch", "--once", "--json"]).ok().json();
    assert_eq!(ran["summary"]["used_percent"], 93, "{ran}");
    let failed = home.run(["run", "broken", "--once"]);
    assert_ne!(failed.code(), 0);
    assert!(failed.out.contains("EX_NOINPUT"), "{failed:?}");
    assert!(failed.out.contains("its last words: no disk"), "{failed:?}");
    let events = home.run(["event", "list", "--json"]).ok().out;
    assert!(events.contains("disk.filling"), "{events}");
    assert!(!events.contains("never.seen"), "{events}");
    let log = std::fs::read_to_string(home.data().join("logs/workers/disk-watch.log"));
    assert!(log.expect("a log").contains(" out looking at /"));
}

#[test]
fn a_streams_program_outlives_its_node_and_is_taken_over() {
    let home = configured(
        r#"  counter:
    type: exec
    trigger: stream
    on_orphan: adopt
    shell: |
      n=0; while :; do n=$((n+1)); echo "{\"event\": {\"kind\": \"count\", \"key\": \"$n\"}}"; sleep 0.05; done
"#,
    );
    let mut node = home.spawn(UP);
    let pid = process(&node.wait_for("started its program"));
    node.kill();
    assert!(runs(pid), "it lives on");
    let mut node = home.spawn(UP);
    assert_eq!(process(&node.wait_for("took over its running program")), pid);
    assert!(runs(pid));
    assert!(node.terminate().success());
    assert!(!runs(pid), "a node that stops in order stops its programs");
    // Each line was published once, over both nodes.
    let list = ["event", "list", "--kind", "count", "--limit", "1000", "--json"];
    let events = home.run(list).ok().json();
    let number = |event: &serde_json::Value| event["key"].as_str()?.parse::<usize>().ok();
    let mut shown: Vec<usize> =
        events.as_array().expect("a list").iter().filter_map(number).collect();
    shown.sort_unstable();
    assert!(!shown.is_empty(), "{events}");
    assert_eq!(shown, (1..=shown.len()).collect::<Vec<_>>());
}

#[test]
fn a_program_whose_node_was_killed_is_ended_and_reported() {
    let home = configured(
        r#"  sleeper:
    type: exec
    trigger: stream
    command: [sleep, "1000"]
"#,
    );
    let mut node = home.spawn(UP);
    let pid = process(&node.wait_for("started its program"));
    node.kill();
    assert!(runs(pid));
    // Its worker, or the reaper, whoever looks first.
    let mut node = home.spawn(UP);
    node.wait_for("ended a program of sleeper that nobody watched");
    assert!(!runs(pid));
    assert!(node.terminate().success());
    // With the worker gone from the configuration, too.
    let mut node = home.spawn(UP);
    let pid = process(&node.wait_for("started its program"));
    node.kill();
    std::fs::write(
        home.path().join("watchbell.yaml"),
        "profile: mine\nprofiles: {mine: [housekeeping]}\n",
    )
    .expect("a configuration");
    let mut node = home.spawn(UP);
    node.wait_for("ended a program of sleeper that nobody watched");
    assert!(!runs(pid));
    assert!(node.terminate().success());
}
