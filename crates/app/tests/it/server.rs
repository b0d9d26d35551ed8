//! The same commands on a PostgreSQL server: one configuration key, and everything else as before.

use std::net::TcpListener;

use serde_json::Value;

use crate::harness::{CONFIG, Home, finish, server};

/// A home whose store is a database of its own on the server of these tests.
fn home() -> Option<(Home, String)> {
    let server = server()?;
    let url = server.url(&server.create_database());
    Some((Home::configured(&format!("store:\n  url: {url}\n")), url))
}

fn demo(home: &Home) {
    home.run(["demo", "--once", "--days", "1", "--seed", "7", "--no-http", CONFIG]).ok();
}

/// Windows with their results, of candles only: points depend on the instants of the polls.
fn results(home: &Home) -> Vec<(String, String)> {
    let windows = home.run(["window", "list", "--limit", "10000", "--json"]).ok().json();
    let windows = windows.as_array().expect("a list").iter();
    let mut results: Vec<_> = windows
        .filter(|w| w["state"] == "complete" && w["hashes"]["source"] == "klines")
        .map(|w| {
            let text = |v: &Value| v.as_str().expect("a text").to_owned();
            (format!("{} {}", w["series"], w["start"]), text(&w["hashes"]["result"]))
        })
        .collect();
    results.sort();
    results
}

#[test]
fn the_demonstration_has_the_same_results_on_a_server() {
    let Some((home, url)) = home() else { return };
    demo(&home);
    let status = home.run(["status", "--json"]).ok().json();
    assert_eq!(status["store"]["engine"], "PostgreSQL");
    let text = home.run(["status"]).ok();
    assert!(text.out.contains("window-sampler-30m") && text.out.contains("PostgreSQL"), "{text:?}");
    for command in ["worker list", "schedule status", "event list", "window verify", "job list"] {
        home.run(command.split(' ')).ok();
    }
    home.run(["explain", "window-sampler-30m"]).ok();
    let checked = home.run(["db", "check", "--json"]);
    assert_eq!(checked.json()["problems"], Value::Array(Vec::new()), "{checked:?}");
    checked.ok();

    let file = Home::new();
    file.run(["demo", "--once", "--days", "1", "--seed", "7", "--no-http"]).ok();
    let (there, here) = (results(&home), results(&file));
    let common: Vec<_> = here.iter().filter(|(k, _)| there.iter().any(|(t, _)| t == k)).collect();
    assert!(common.len() >= 60, "only {} windows in common", common.len());
    for result in common {
        assert!(there.contains(result), "{result:?} differs");
    }

    // It goes on as this demonstration, and as nothing else, from wherever it is started.
    demo(&home);
    let elsewhere = Home::configured(&format!("store:\n  url: {url}\n"));
    let up = elsewhere.run(["up", "--no-http"]);
    assert_eq!(up.code(), 4, "{up:?}");
    assert!(up.err.contains("belongs to a demonstration"), "{up:?}");
    let other = elsewhere.run(["demo", "--once", "--seed", "99", "--no-http", CONFIG]);
    assert_eq!(other.code(), 4, "{other:?}");
}

#[test]
fn a_backup_of_a_server_is_a_file_that_restores_anywhere() {
    let Some((home, _)) = home() else { return };
    demo(&home);
    let windows = results(&home);
    let copy = home.path().join("copy.db");
    let copy = copy.to_str().unwrap();
    home.run(["db", "backup", copy]).ok();
    assert_eq!(home.run(["db", "backup", copy]).code(), 4, "an existing file is not overwritten");
    let beside = std::fs::read_dir(home.path()).unwrap().count();
    assert_eq!(beside, 3, "the copy, the configuration and the data directory");

    // Into a file, into an empty server, and over what is there.
    let file = Home::new();
    file.run(["db", "restore", copy]).ok();
    file.run(["db", "check"]).ok();
    assert_eq!(results(&file), windows);
    let Some((second, _)) = self::home() else { return };
    second.run(["db", "restore", copy]).ok();
    second.run(["db", "check"]).ok();
    assert_eq!(results(&second), windows);
    let refused = second.run(["db", "restore", copy]);
    assert_eq!(refused.code(), 4, "{refused:?}");
    let forced = second.run(["db", "restore", "--force", copy, "--json"]).ok().json();
    assert_eq!(results(&second), windows);
    let kept = forced["kept"].as_str().expect("the file that keeps what was there");
    let third = Home::new();
    third.run(["db", "restore", kept]).ok();
    assert_eq!(results(&third), windows);
    // A copy elsewhere is still the demonstration's.
    assert_eq!(second.run(["up", "--no-http"]).code(), 4);
    demo(&second);
}

#[test]
fn a_command_without_a_store_says_how_to_get_one() {
    let Some((home, _)) = home() else { return };
    let status = home.run(["status"]);
    assert_eq!(status.code(), 5, "{status:?}");
    assert!(status.err.contains("there is no store at 127.0.0.1:"), "{status:?}");
    home.run(["db", "migrate"]).ok();
    home.run(["status"]).ok();
    let again = home.run(["db", "migrate"]).ok();
    assert!(again.out.contains("is up to date"), "{again:?}");
}

#[test]
fn what_cannot_be_reached_is_named_and_no_password_is() {
    let Some(server) = server() else { return };
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let at = |port: u16, name: &str| {
        format!("postgres://watchbell:hunter2@127.0.0.1:{port}/{name}?sslmode=disable")
    };
    for (url, code, words) in [
        (at(free, "wb"), 5, ["127.0.0.1", "wb"]),
        (at(server.port(), "no_such"), 5, ["no_such", "does not exist"]),
        ("postgres://wb:hunter2@h:port/x".to_owned(), 2, ["store.url", "postgres://wb:***@h"]),
        ("mysql://wb:hunter2@h/x".to_owned(), 2, ["store.url", "mysql://wb:***@h/x"]),
    ] {
        for args in [&["status"][..], &["status", "-vv"], &["status", "--json"], &["db", "check"]] {
            let home = Home::new();
            let mut command = home.command(args);
            command.env("DATABASE_URL", &url);
            let ended = finish(command);
            assert_eq!(ended.code(), code, "{ended:?}");
            let said = format!("{}{}", ended.out, ended.err);
            for word in words {
                assert!(said.contains(word), "`{word}` is missing in {said}");
            }
            assert!(!said.contains("hunter2") && !said.contains("panicked"), "{said}");
        }
    }
    let home = Home::new();
    let mut show = home.command(["config", "show"]);
    show.env("DATABASE_URL", at(free, "wb"));
    let shown = finish(show).ok();
    assert!(shown.out.contains("watchbell:***@127.0.0.1"), "{shown:?}");
}

#[test]
fn a_wrong_password_is_refused_at_once_and_not_repeated() {
    if !watchbell_testkit::postgres_is_wanted() {
        return;
    }
    let server = watchbell_testkit::Cluster::start();
    let name = server.create_database();
    server.sql(&name, "create role asked login password 'right'");
    let rules = server.sql(&name, "show hba_file");
    let rest = std::fs::read_to_string(&rules).unwrap();
    std::fs::write(&rules, format!("host all asked 127.0.0.1/32 scram-sha-256\n{rest}")).unwrap();
    server.sql(&name, "select pg_reload_conf()");
    let port = server.port();
    for command in [&["up", "--no-http"][..], &["status"]] {
        let home = Home::new();
        let mut up = home.command(command);
        up.env("DATABASE_URL", format!("postgres://asked:hunter2@127.0.0.1:{port}/{name}"));
        let ended = finish(up);
        assert_eq!(ended.code(), 5, "{ended:?}");
        assert!(ended.err.contains("password authentication failed"), "{ended:?}");
        assert!(!ended.err.contains("hunter2"), "{ended:?}");
    }
}
