//! What is particular to a SQLite file.

use std::path::Path;
use std::sync::Arc;

use watchbell_core::{Statement, values};
use watchbell_db::{Database, DbError, Options, Synchronous};

use crate::{ids, insert};

fn foreign(path: &Path, sql: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn what_is_not_ours_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    foreign(&path("other.db"), "create table t (x)");
    foreign(&path("app.db"), "pragma application_id = 77; create table t (x)");
    std::fs::write(
        path("text.db"),
        "this is a plain text file, and a fairly long one. ".repeat(40),
    )
    .unwrap();
    std::fs::write(path("file"), "x").unwrap();
    std::fs::create_dir(path("folder")).unwrap();
    for (name, says) in [
        ("other.db", "is not a Watchbell database (application id 0x0)"),
        ("app.db", "is not a Watchbell database (application id 0x4d)"),
        ("text.db", "is not a database: choose another data directory"),
        ("file/w.db", "check that its directory exists and that this user may write there"),
        ("folder", "cannot open the database"),
    ] {
        let before = std::fs::read(path(name)).ok();
        let error = Database::open(&Options::new(path(name))).unwrap_err().to_string();
        assert!(error.contains(says), "{name}: {error}");
        assert_eq!(std::fs::read(path(name)).ok(), before, "{name}");
    }
    let missing = Options { create: false, ..Options::new(path("none.db")) };
    let error = Database::open(&missing).unwrap_err();
    assert!(matches!(error, DbError::Missing { .. }), "{error}");
    assert!(!path("none.db").exists());
}

#[tokio::test]
async fn it_describes_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/folder/w.db");
    let options = Options { synchronous: Synchronous::Normal, ..Options::new(&path) };
    let db = Database::open(&options).unwrap();
    let d = db.describe().await.unwrap();
    let words = (d.engine, d.journal_mode.as_str(), d.synchronous.as_str());
    assert_eq!(words, ("sqlite", "wal", "normal"));
    assert_eq!(d.location, path.display().to_string());
    assert!(d.pages > 0 && d.page_size > 0 && d.bytes > 0);
    let row = db.apply(vec![Statement::new("pragma synchronous", vec![])]).await.unwrap();
    assert_eq!(row.rows[0][0].i64(0).unwrap(), 1);
}

#[tokio::test]
async fn a_reader_beside_the_writer_sees_commits_and_cannot_write() {
    let temp = crate::sqlite().await;
    let (db, dir) = (&temp.db, temp.dir());
    db.apply(vec![insert(1, "a")]).await.unwrap();
    let options = Options { read_only: true, ..Options::new(dir.join("watchbell.db")) };
    let other = Database::open(&options).unwrap();
    assert_eq!(ids(&other).await, [1]);
    let error = other.apply(vec![insert(2, "b")]).await.unwrap_err();
    assert!(matches!(error, DbError::ReadOnly { .. }), "{error}");
    other.close().await.unwrap();
}

#[tokio::test]
async fn two_processes_wait_for_each_other() {
    let temp = crate::sqlite().await;
    let (db, dir) = (&temp.db, temp.dir());
    let other = Database::open(&Options::new(dir.join("watchbell.db"))).unwrap();
    let mut tasks = Vec::new();
    for n in 0..100_i64 {
        let db = if n % 2 == 0 { db.clone() } else { other.clone() };
        tasks.push(tokio::spawn(async move { db.apply(vec![insert(n, &format!("{n}"))]).await }));
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(ids(&other).await.len(), 100);
}

#[tokio::test]
async fn a_lock_that_is_held_too_long_is_named() {
    let temp = crate::sqlite().await;
    let (db, dir) = (&temp.db, temp.dir());
    let path = dir.join("watchbell.db");
    let options = Options { busy_timeout_ms: 1, ..Options::new(&path) };
    let hasty = Database::open(&options).unwrap();
    let holder = rusqlite::Connection::open(&path).unwrap();
    holder.execute_batch("begin immediate").unwrap();
    let error = hasty.apply(vec![insert(1, "a")]).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains("locked by another process"), "{error}");
    assert_eq!(hasty.metrics().busy, 1);
    holder.execute_batch("rollback").unwrap();
    hasty.apply(vec![insert(1, "a")]).await.unwrap();
    assert_eq!(ids(db).await, [1]);
}

#[tokio::test]
async fn closing_finishes_what_waits_and_leaves_one_file() {
    let temp = crate::sqlite().await;
    let (db, dir) = (&temp.db, temp.dir());
    let waiting: Vec<_> = (0..50_i64)
        .map(|n| {
            let db = db.clone();
            tokio::spawn(async move { db.apply(vec![insert(n, &format!("{n}"))]).await })
        })
        .collect();
    for task in waiting {
        task.await.unwrap().unwrap();
    }
    db.close().await.unwrap();
    db.close().await.unwrap();
    assert!(matches!(db.apply(vec![]).await, Err(DbError::Closed)));
    assert!(matches!(db.query("select 1", vec![]).await, Err(DbError::Closed)));
    let log = std::fs::metadata(dir.join("watchbell.db-wal")).map_or(0, |m| m.len());
    assert_eq!(log, 0);
    let again = Database::open(&Options::new(dir.join("watchbell.db"))).unwrap();
    assert_eq!(ids(&again).await.len(), 50);
}

#[tokio::test]
async fn a_backup_is_whole_and_opens() {
    let temp = crate::sqlite().await;
    let (db, dir) = (&temp.db, temp.dir());
    let params = (0..5_000_i64).flat_map(|n| values![n, format!("{n}")]).collect();
    db.apply(vec![Statement::bulk("insert into ops.items (id, name) values ($1, $2)", 2, params)])
        .await
        .unwrap();
    let to = dir.join("copy.db");
    let made = db.backup(&to, false).await.unwrap();
    assert_eq!(made.bytes, std::fs::metadata(&to).unwrap().len());
    let error = db.backup(&to, false).await.unwrap_err();
    assert!(matches!(error, DbError::Exists { .. }), "{error}");
    db.apply(vec![insert(5_000, "more")]).await.unwrap();
    db.backup(&to, true).await.unwrap();
    let copy = Database::open(&Options::new(&to)).unwrap();
    assert_eq!(ids(&copy).await.len(), 5_001);
    assert_eq!(copy.check().await.unwrap().problems, Vec::<String>::new());
    let error = db.backup(&dir.join("no/such/folder/x.db"), false).await.unwrap_err();
    assert!(error.to_string().contains("no/such/folder/x.db.partial"), "{error}");
    assert!(!dir.join("copy.db.partial").exists());
}

#[tokio::test]
async fn a_check_finds_damage_and_dangling_references() {
    let temp = crate::sqlite().await;
    let (db, dir) = (&temp.db, temp.dir());
    let table = "create table ops.parts (id {i64} primary key, item {i64} references ops.items)";
    let params = (0..5_000_i64).flat_map(|n| values![n, format!("{n}")]).collect();
    db.apply(vec![
        Statement::new(table, vec![]),
        Statement::bulk("insert into ops.items (id, name) values ($1, $2)", 2, params),
    ])
    .await
    .unwrap();
    db.close().await.unwrap();
    let path = dir.join("watchbell.db");
    foreign(&path, "pragma foreign_keys = off; insert into ops_parts values (3, 77777)");
    let db = Database::open(&Options::new(&path)).unwrap();
    let problems = db.check().await.unwrap().problems;
    assert_eq!(problems, ["row 3 of ops_parts refers to no row of ops_items"]);
    db.close().await.unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8_192].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let db = Database::open(&Options::new(&path)).unwrap();
    assert!(!db.check().await.unwrap().problems.is_empty());
}

#[tokio::test]
async fn starting_together_makes_one_database() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("watchbell.db");
    let opened: Vec<_> = std::thread::scope(|scope| {
        let starters: Vec<_> =
            (0..8).map(|_| scope.spawn(|| Database::open(&Options::new(&path)))).collect();
        starters.into_iter().map(|s| s.join().unwrap()).collect()
    });
    for db in opened {
        db.unwrap().describe().await.unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let temp = crate::sqlite().await;
    let db = &temp.db;
    let limit = |pages: i64| Statement::new(format!("pragma max_page_count = {pages}"), vec![]);
    let pages = db.describe().await.unwrap().pages;
    db.apply(vec![limit(pages as i64 + 2)]).await.unwrap();
    let big: Arc<str> = Arc::from("x".repeat(1 << 16));
    let (full, small) =
        tokio::join!(db.apply(vec![insert(1, &big)]), db.apply(vec![insert(2, "small")]));
    assert!(matches!(full, Err(DbError::DiskFull { .. })), "{full:?}");
    small.unwrap();
    db.apply(vec![limit(1 << 20)]).await.unwrap();
    db.apply(vec![insert(3, &big)]).await.unwrap();
    assert_eq!(ids(db).await, [2, 3]);
}
