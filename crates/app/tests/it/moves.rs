//! `db move`: everything there, the same there, and never half of it.

use serde_json::Value;
use watchbell_core::{Statement, values};
use watchbell_db::transfer::{self, Own, TransferError};
use watchbell_db::{Database, Line};
use watchbell_testkit::TempDb;

use crate::harness::{Home, server};

const LINES: [Line; 2] = [watchbell_store::LINE, watchbell_market::LINE];
const OWN: [Own; 1] = [Own { table: "ops.settings", rows: "key = 'mine'" }];

/// Tables with rows and digest, as `db move --json` prints them.
fn tables(moved: &Value) -> Vec<Value> {
    moved["tables"].as_array().expect("a list").clone()
}

#[test]
fn a_store_moves_to_a_server_and_back_and_is_the_same_everywhere() {
    let Some(server) = server() else { return };
    let name = server.create_database();
    let url = server.url(&name);
    let file = Home::new();
    file.run(["demo", "--once", "--days", "1", "--no-http"]).ok();
    let list = ["window", "list", "--limit", "1000", "--json"];
    let windows = file.run(list).ok().json();
    let moved = file.run(["db", "move", "--to", &url, "--json"]).ok().json();
    let rows = |table: &str| {
        let all = tables(&moved);
        let found = all.iter().find(|t| t["table"] == table).cloned();
        found.unwrap_or_else(|| panic!("{table} is missing"))["rows"].as_u64().unwrap()
    };
    assert!(rows("ingest.kline_raw") > 10_000 && rows("ops.windows") > 60, "{moved}");

    // What was left behind says where everything went, and may still be looked at.
    let up = file.run(["up", "--no-http"]);
    assert_eq!(up.code(), 4, "{up:?}");
    let demo = file.run(["demo", "--once", "--days", "1", "--no-http"]);
    assert_eq!(demo.code(), 4, "{demo:?}");
    assert!(demo.err.contains(&format!("was moved to 127.0.0.1:{}/{name}", server.port())));
    assert_eq!(file.run(list).ok().json(), windows);
    file.run(["db", "check"]).ok();

    let there = Home::configured(&format!("store:\n  url: {url}\n"));
    assert_eq!(there.run(list).ok().json(), windows);
    there.run(["db", "check"]).ok();
    there.run(["window", "verify"]).ok();

    // Not over what is there, and not onto itself.
    let again = file.run(["db", "move", "--to", &url]);
    assert_eq!(again.code(), 4, "{again:?}");
    assert!(again.err.contains("is not empty"), "{again:?}");
    let itself = there.run(["db", "move", "--to", &url]);
    assert_eq!(itself.code(), 4, "{itself:?}");
    assert!(itself.err.contains("is the store that is to be moved"), "{itself:?}");
    let itself = file.run(["db", "move", "--to", "sqlite:./watchbell.db"]);
    assert_eq!(itself.code(), 4, "{itself:?}");

    let back = there.run(["db", "move", "--to", "sqlite:back.db", "--json"]).ok().json();
    assert_eq!(tables(&back), tables(&moved), "there and back");
    let home = Home::configured("store:\n  url: sqlite:back.db\n");
    std::fs::create_dir(home.data()).unwrap();
    std::fs::rename(there.data().join("back.db"), home.data().join("back.db")).unwrap();
    assert_eq!(home.run(list).ok().json(), windows);
    home.run(["db", "check"]).ok();
    // It goes on where it was: no number is given twice, no window computed again.
    home.run(["demo", "--once", "--days", "1", "--no-http", crate::harness::CONFIG]).ok();
    home.run(["db", "check"]).ok();
}

#[test]
fn a_move_that_was_interrupted_is_refused_until_it_is_repeated() {
    let Some(server) = server() else { return };
    let name = server.create_database();
    let url = server.url(&name);
    let file = Home::new();
    file.run(["demo", "--once", "--days", "2", "--no-http"]).ok();
    let there = Home::configured(&format!("store:\n  url: {url}\n"));
    let mut mover = file.spawn(["db", "move", "--to", &url]);
    mover.wait_for("rows copied and compared");
    mover.kill();
    let status = there.run(["status"]);
    assert_eq!(status.code(), 4, "{status:?}");
    for command in ["up --no-http", "status"] {
        let refused = there.run(command.split(' '));
        assert_eq!(refused.code(), 4, "{refused:?}");
        assert!(refused.err.contains("is half a copy of"), "{refused:?}");
    }
    assert_eq!(there.run(["up", "--no-http", "--force"]).code(), 4, "force does not help");
    let checked = there.run(["db", "check"]);
    assert_eq!(checked.code(), 1, "{checked:?}");
    // The source is as it was: it may go on, or be moved again.
    file.run(["demo", "--once", "--days", "2", "--no-http"]).ok();
    file.run(["db", "move", "--to", &url]).ok();
    there.run(["status"]).ok();
    there.run(["db", "check"]).ok();
}

#[test]
fn a_move_under_a_running_node_is_refused() {
    let Some(server) = server() else { return };
    let url = server.url(&server.create_database());
    let file = Home::new();
    let mut node = file.spawn(["demo", "--days", "1", "--no-http"]);
    node.wait_for("live.");
    let refused = file.run(["db", "move", "--to", &url]);
    assert_eq!(refused.code(), 4, "{refused:?}");
    assert!(refused.err.contains("in use by"), "{refused:?}");
    assert!(node.terminate().success());
    let wrong = file.run(["db", "move", "--to", "postgres://u:hunter2@h:port/x"]);
    assert_eq!(wrong.code(), 2, "{wrong:?}");
    assert!(wrong.err.contains("--to") && !wrong.err.contains("hunter2"), "{wrong:?}");
}

/// Rows that engines are tempted to change.
async fn fill(db: &Database) {
    let mut statements = Vec::new();
    let texts = ["", " ", "null", "\u{1}\t\n\r", "größe 🛎", "'\"\\$1{id}", "a\u{301}"];
    let floats = [0.0, -0.0, 0.1, -1.0 / 3.0, 5e-324, f64::MAX, f64::MIN_POSITIVE, 1e22, 7.0];
    for (i, text) in texts.iter().enumerate() {
        statements.push(Statement::new(
            "insert into ops.settings (key, value, updated_at) values ($1, $2, $3)",
            values![
                *text,
                format!("{{ \"b\":1.0,\"a\" : [1e2, \"\\u00e9\"],\"b\": {i} }}"),
                i64::MAX
            ],
        ));
    }
    for (i, float) in floats.iter().enumerate() {
        statements.push(Statement::new(
            "insert into ingest.kline_revisions
             (symbol, interval_label, open_time, open, high, low, close, volume, replaced_at)
             values ('B', '1m', $1, $2, $2, $2, $2, $2, $3)",
            values![i64::MIN + i as i64, *float, -1],
        ));
    }
    // A lease that is held, a complete window, numbers that were given and taken back, and a job
    // that has lost its unique key to another one.
    for sql in [
        "insert into ops.workers (name, description, trigger_text, state, registered_at, lease_owner,
             lease_token, lease_expires_at) values ('w', '', '', 'RUNNING', 1, 'somebody', 41, 9)",
        "insert into ops.windows (series, start_at, version, end_at, state, inputs_hash, result_hash,
             source, finished_at) values ('s', 0, 1, 5, 'complete', 'a', 'b', 'c', 6)",
        "delete from ingest.kline_revisions where open = 7.0",
        "insert into ops.jobs (kind, state, ready, priority, run_at, max_attempts, created_at,
             unique_in, unique_key, payload) values ('k', 'queued', 1, 0, 0, 1, 0, 3, 'u', '{}')",
        "insert into ops.jobs (kind, state, ready, priority, run_at, max_attempts, created_at,
             unique_in, unique_key, payload) values ('k', 'queued', 1, 0, 0, 1, 0, 3, 'u', '[]')",
        "insert into ops.jobs (kind, state, ready, priority, run_at, max_attempts, created_at,
             unique_in, unique_key, payload) values ('k', 'queued', 1, 0, 0, 1, 0, 3, 'v', '[]')",
        "delete from ops.job_keys where key = 'v'",
        "insert into ops.settings (key, value, updated_at) values ('mine', '1', 0)",
    ] {
        statements.push(Statement::new(sql, values![]));
    }
    db.apply(statements).await.unwrap();
}

/// The number that the next revision of a candle gets.
async fn next_number(db: &Database) -> i64 {
    let insert = "insert into ingest.kline_revisions
        (symbol, interval_label, open_time, open, high, low, close, volume, replaced_at)
        values ('N', '1m', 0, 1, 1, 1, 1, 1, 1) returning id";
    let done = db.apply(vec![Statement::new(insert, values![])]).await.unwrap();
    done.rows[0][0].i64(0).unwrap()
}

#[tokio::test]
async fn every_value_arrives_as_it_was_on_either_engine() {
    if server().is_none() {
        return;
    }
    let file = TempDb::sqlite(&LINES).await;
    fill(&file.db).await;
    let there = TempDb::postgres(&LINES).await;
    let back = TempDb::sqlite(&LINES).await;
    let report = |_| {};
    let first = transfer::transfer(&file.db, &there.db, &OWN, report).await.unwrap();
    let second = transfer::transfer(&there.db, &back.db, &OWN, report).await.unwrap();
    assert_eq!(first, second);
    for db in [&file.db, &there.db, &back.db] {
        assert_eq!(transfer::digest(db, &OWN).await.unwrap(), first);
    }
    let again = transfer::transfer(&file.db, &there.db, &OWN, report).await.unwrap_err();
    assert!(matches!(again, TransferError::NotEmpty(_)), "{again}");
    // Half a copy is cleared, complete windows included, and what guards them is awake afterwards.
    transfer::empty(&there.db, &OWN).await.unwrap();
    assert_eq!(transfer::occupied(&there.db, &OWN).await.unwrap(), None);
    let third = transfer::transfer(&file.db, &there.db, &OWN, report).await.unwrap();
    assert_eq!(third, first);
    for db in [&there.db, &back.db] {
        let change = Statement::new("update ops.windows set state = 'open'", values![]);
        let refused = db.apply(vec![change]).await.unwrap_err().to_string();
        assert!(refused.contains("a complete window never changes"), "{refused}");
    }
    // No number is given twice, though the row of the highest one is gone.
    let next = next_number(&file.db).await;
    assert_eq!((next_number(&there.db).await, next_number(&back.db).await), (next, next));
    let own = "select value from ops.settings where key = 'mine'";
    assert_eq!(there.db.query(own, values![]).await.unwrap().len(), 0, "a mark is not copied");
}
