//! Tests of the database handle. Everything but `file.rs` says nothing about the engine.

mod apply;
mod file;
mod migrations;
mod read;

use tempfile::TempDir;
use watchbell_core::{Statement, values};
use watchbell_db::{Database, Options};

/// A throw-away database with one table.
async fn database() -> (Database, TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Database::open(&Options::new(dir.path().join("t.db"))).expect("a new database");
    let table = "create table ops.items (id {i64} primary key, name {text} not null unique,
        price {f64}, raw {bytes}, doc {json})";
    db.apply(vec![Statement::new(table, vec![])]).await.expect("a table");
    (db, dir)
}

fn insert(id: i64, name: &str) -> Statement {
    Statement::new("insert into ops.items (id, name) values ($1, $2)", values![id, name])
}

async fn ids(db: &Database) -> Vec<i64> {
    let rows = db.query("select id from ops.items order by id", vec![]).await.expect("ids");
    rows.iter().map(|r| r.i64(0).expect("an id")).collect()
}
