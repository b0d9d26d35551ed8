//! Bad input gets one clear message with what to do, an exit code, and nothing half done.

use std::net::TcpListener;

use watchbell_core::values;
use watchbell_db::{Database, Options};

use crate::harness::{Ended, Home};

#[track_caller]
fn refused(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code(), code, "{ended:#?}");
    for word in words {
        assert!(ended.err.contains(word), "`{word}` is missing in: {}", ended.err);
    }
    assert!(!ended.err.contains("panicked"), "{}", ended.err);
}

fn with_config(yaml: &str) -> Ended {
    let home = Home::new();
    std::fs::write(home.path().join("watchbell.yaml"), yaml).unwrap();
    let ended = home.run(["up"]);
    assert!(!home.data().exists(), "nothing was touched");
    ended
}

#[test]
fn a_bad_configuration_names_file_line_key_and_what_is_allowed() {
    for (yaml, words) in [
        ("market:\n  windows: [30m\n", &["watchbell.yaml:"][..]),
        ("market:\n  simbols: [BTCUSDT]\n", &["watchbell.yaml:2", "simbols", "symbols"]),
        ("market:\n  windows: [25m]\n", &["watchbell.yaml:2", "40"]),
        ("workers:\n  housekeeping:\n    cron: \"61 * * * *\"\n", &["watchbell.yaml:3", "61"]),
        (
            "workers:\n  housekeeping:\n    cron: \"0 3 * * *\"\n    time_zone: Europe/Berln\n",
            &["watchbell.yaml:4", "Europe/Berlin"],
        ),
        (
            "workers:\n  market-sync:\n    needs: [window-sampler-30m]\n  window-sampler-30m:\n    needs: [market-sync]\n",
            &["market-sync -> window-sampler-30m -> market-sync"],
        ),
        ("http:\n  bind: 0.0.0.0:8770\n", &["watchbell.yaml:2", "127.0.0.1"]),
    ] {
        refused(&with_config(yaml), 2, words);
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let home = Home::new();
    std::fs::write(home.data(), "a file is in the way").unwrap();
    let data = home.data().display().to_string();
    refused(&home.run(["up", "--no-http"]), 5, &[&data, "--data-dir"]);
}

#[test]
fn a_file_that_is_not_ours_is_left_alone() {
    let home = Home::new();
    std::fs::create_dir(home.data()).unwrap();
    let file = home.data().join("watchbell.db");
    std::fs::write(&file, "these are not the bytes of a database, by far").unwrap();
    refused(&home.run(["up", "--no-http"]), 5, &["watchbell.db"]);
    let after = std::fs::read_to_string(&file).unwrap();
    assert_eq!(after, "these are not the bytes of a database, by far");
}

#[test]
fn a_newer_schema_is_refused() {
    let home = Home::new();
    home.run(["db", "migrate"]).ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let db = Database::open(&Options::new(home.data().join("watchbell.db"))).unwrap();
        db.apply(vec![watchbell_core::Statement::new(
            "insert into ops.migrations (line, number, name, checksum, applied_at)
             values ('runtime', 999, 'from the future', 'x', 0)",
            values![],
        )])
        .await
        .unwrap();
        db.close().await.unwrap();
    });
    refused(&home.run(["up", "--no-http"]), 5, &["runtime/999", "newer"]);
}

#[test]
fn a_taken_port_is_named() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let ended = home.run(["demo", "--once", "--days", "1", "--http-port", &port]);
    refused(&ended, 5, &[&port, "--http-port"]);
}

#[test]
fn unknown_names_get_a_suggestion() {
    let home = Home::new();
    home.run(["demo", "--once", "--days", "1", "--no-http"]).ok();
    refused(&home.run(["worker", "show", "market-sink"]), 3, &["market-sink", "market-sync"]);
    refused(&home.run(["explain", "window-sampler-31m"]), 3, &["window-sampler-30m"]);
    refused(&home.run(["demo", "--fault", "klines:explode"]), 2, &["explode"]);
    refused(&home.run(["job", "show", "7"]), 3, &["7"]);
}

#[test]
fn a_command_without_a_store_says_how_to_get_one() {
    let home = Home::new();
    refused(&home.run(["status"]), 5, &["there is no store at", "watchbell up"]);
    assert!(!home.data().exists(), "nothing was made");
}

#[test]
fn a_full_disk_is_said_and_leaves_a_sound_store() {
    let home = Home::new();
    // A limit on file size is a full disk that needs no mount: the write fails in the same way.
    let mut limited = std::process::Command::new("bash");
    limited
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -f 4000; exec \"$0\" \"$@\"")
        .arg(env!("CARGO_BIN_EXE_watchbell"))
        .args(["demo", "--once", "--days", "30", "--no-http", "--data-dir"])
        .arg(home.data())
        .current_dir(home.path());
    limited.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut child = crate::harness::Running(limited.spawn().unwrap());
    child.wait_for("disk");
    child.kill();
    home.run(["db", "check"]).ok();
}
