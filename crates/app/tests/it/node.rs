//! A running node: discovery, the same answers with and without it, orderly ends.

use serde_json::Value;

use crate::harness::{Home, finish};

#[test]
fn run_jobs_decides_before_anything_is_touched() {
    let said = "jobs: starting (set RUN_JOBS=1 to enable background workers)\n";
    let home = Home::new();
    let mut up = home.command(["up"]);
    up.env("RUN_JOBS", "0");
    assert_eq!(finish(up).ok().out, said);
    assert_eq!(home.run(["run-all"]).ok().out, said);
    assert!(!home.data().exists(), "nothing was touched");
}

#[test]
fn a_command_gets_the_same_answer_from_the_node_and_from_the_store() {
    let home = Home::new();
    home.run(["demo", "--once", "--days", "1", "--no-http"]).ok();
    let offline = |args: &[&str]| home.run(args).ok().json();
    let window =
        offline(&["window", "list", "--series", "window-sampler-3h", "--limit", "1", "--json"]);
    let start = window[0]["start"].as_str().unwrap().to_owned();
    let show = ["window", "show", "window-sampler-3h", &start, "--json"];
    let explain = format!("window-sampler-3h/{start}");
    let explain = ["explain", &explain, "--json"];
    let (shown, explained) = (offline(&show), offline(&explain));

    let mut node = home.spawn(["demo", "--days", "1", "--http-port", "0"]);
    node.wait_for("the API answers at");
    assert_eq!(home.run(show).ok().json(), shown);
    assert_eq!(home.run(explain).ok().json(), explained);
    let status = home.run(["status", "--json"]).ok().json();
    assert_eq!(status["node"]["running"], true);
    assert_eq!(status["node"]["pid"], node.pid());

    // Steering goes through the node, and survives it.
    let paused = home.run(["worker", "pause", "market-sampler", "--json"]).ok();
    assert!(paused.out.contains("PAUSED"), "{paused:?}");
    let why = home.run(["explain", "market-sampler"]).ok();
    assert!(why.out.to_lowercase().contains("paused"), "{why:?}");
    let second = home.run(["demo", "--days", "1", "--no-http"]);
    assert_eq!(second.code(), 4, "{second:?}");
    assert!(second.err.contains("in use by"), "{second:?}");
    assert!(node.terminate().success());

    let record = home.run(["worker", "show", "market-sampler", "--json"]).ok().json();
    assert_eq!(record["line"]["record"]["desired"], "PAUSED");
    let sessions = home.run(["status", "--json"]).ok().json();
    assert_eq!(sessions["node"]["running"], false);
}

#[test]
fn a_node_without_its_api_is_known_and_is_not_steered_in_vain() {
    let home = Home::new();
    let mut node = home.spawn(["demo", "--days", "1", "--no-http"]);
    node.wait_for("live.");
    let status = home.run(["status", "--json"]).ok().json();
    assert_eq!(status["node"]["running"], true);
    let refused = home.run(["worker", "pause", "market-sampler"]);
    assert_eq!(refused.code(), 4, "{refused:?}");
    assert!(refused.err.contains("without its API"), "{refused:?}");
    assert!(node.terminate().success());
    let mut list = home.command(["worker", "pause", "market-sampler"]);
    list.env("WATCHBELL_LOG", "garbage==");
    let paused = finish(list).ok();
    assert!(paused.err.contains("WATCHBELL_LOG is not a filter"), "{paused:?}");
}

#[test]
fn a_dry_run_writes_nothing() {
    let home = Home::new();
    home.run(["demo", "--once", "--days", "1", "--no-http"]).ok();
    let window =
        home.run(["window", "list", "--series", "window-sampler-1h", "--limit", "1", "--json"]);
    let start = window.ok().json()[0]["start"].as_str().unwrap().to_owned();
    let cycles = || {
        let shown = home.run(["worker", "show", "window-sampler-1h", "--json"]).ok().json();
        shown["cycles"].as_array().map(Vec::len)
    };
    let before = cycles();
    let name = format!("window-sampler-1h/{start}");
    let dry = home
        .run(["run", "window-sampler-1h", "--dry-run", "--window", &name, "--json"])
        .ok()
        .json();
    let lines = dry["dry_run"].as_array().expect("lines");
    assert!(lines.iter().any(|l| l.as_str().unwrap().contains("str_aux.windows")), "{dry}");
    assert_eq!(cycles(), before);
}

#[test]
fn the_demonstration_and_real_work_do_not_share_a_store() {
    let home = Home::new();
    home.run(["demo", "--once", "--days", "1", "--no-http"]).ok();
    let up = home.run(["up"]);
    assert_eq!(up.code(), 4);
    assert!(up.err.contains("belongs to a demonstration"), "{up:?}");
    let other = home.run(["demo", "--once", "--seed", "99", "--no-http"]);
    assert_eq!(other.code(), 4);
    assert!(other.err.contains("another market"), "{other:?}");
}

#[test]
fn a_backup_restores_what_was_there() {
    let home = Home::new();
    home.run(["demo", "--once", "--days", "1", "--no-http"]).ok();
    let list = ["window", "list", "--limit", "1000", "--json"];
    let windows = home.run(list).ok().json();
    let copy = home.path().join("copy.db");
    let copy = copy.to_str().unwrap();
    home.run(["db", "backup", copy]).ok();
    assert_eq!(home.run(["db", "backup", copy]).code(), 4, "an existing file is not overwritten");
    assert_eq!(home.run(["db", "restore", copy]).code(), 4, "nor is a store, unless forced");
    std::fs::remove_file(home.data().join("watchbell.db")).unwrap();
    home.run(["db", "restore", copy]).ok();
    assert_eq!(home.run(list).ok().json(), windows);
    home.run(["db", "restore", "--force", copy]).ok();
    // A copy elsewhere is still the demonstration's: it goes on as one, and as nothing else.
    let other = Home::new();
    other.run(["db", "restore", copy]).ok();
    assert_eq!(other.run(["up", "--no-http"]).code(), 4);
    assert_eq!(other.run(["demo", "--once", "--seed", "99", "--no-http"]).code(), 4);
    other.run(["demo", "--once", "--days", "1", "--no-http"]).ok();
    let check = home.run(["db", "check", "--json"]).ok().json();
    assert_eq!(check["problems"], Value::Array(Vec::new()));
}
