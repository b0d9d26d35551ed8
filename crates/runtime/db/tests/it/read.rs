use std::ops::ControlFlow;
use std::sync::Arc;

use watchbell_core::{Statement, Time, Value, values};
use watchbell_db::{Cell, DbError};
use watchbell_testkit::TempDb;

use crate::{ids, insert};

pub(crate) async fn cells_have_types_and_errors_name_the_column(temp: &TempDb) {
    let db = &temp.db;
    let raw: Arc<[u8]> = Arc::from(&[1_u8, 2][..]);
    let params = vec![
        Value::Int(1_700_000_000_000),
        Value::from("grün"),
        Value::Float(0.5),
        Value::Bytes(raw),
        Value::from("{\"a\":[1]}"),
    ];
    db.apply(vec![Statement::new("insert into ops.items values ($1, $2, $3, $4, $5)", params)])
        .await
        .unwrap();
    let row = db
        .query_one("select id, name, price, raw, doc, null as gap from ops.items", vec![])
        .await
        .unwrap();
    assert_eq!(row.time(0).unwrap(), Time(1_700_000_000_000));
    assert_eq!(row.f64(0).unwrap(), 1.7e12);
    assert!(row.bool(0).unwrap());
    assert_eq!((row.text(1).unwrap(), &*row.shared_text(1).unwrap()), ("grün", "grün"));
    assert_eq!(row.opt_f64(2).unwrap(), Some(0.5));
    assert_eq!(row.bytes(3).unwrap(), [1, 2]);
    assert_eq!(row.json(4).unwrap()["a"][0], 1);
    assert_eq!(row.cell(5).unwrap(), Cell::Null);
    assert_eq!((row.opt_text(5).unwrap(), row.opt_json(5).unwrap()), (None, None));
    assert_eq!(row.names().len(), 6);
    for (error, says) in [
        (row.i64(1).unwrap_err(), "ops.items: column `name` is text, not an integer"),
        (row.text(5).unwrap_err(), "ops.items: column `gap` is null, not text"),
        (row.json(1).unwrap_err(), "column `name` is text that does not parse, not JSON"),
        (row.i64(6).unwrap_err(), "column #6 is missing, not a column of the result"),
    ] {
        assert!(error.to_string().contains(says), "{error}");
    }
}

pub(crate) async fn one_row_means_one_row(temp: &TempDb) {
    let db = &temp.db;
    db.apply(vec![insert(1, "a"), insert(2, "b"), insert(3, "c")]).await.unwrap();
    let by_id = "select name from ops.items where id >= $1";
    assert!(db.query_opt(by_id, values![9]).await.unwrap().is_none());
    assert_eq!(db.query_one(by_id, values![3]).await.unwrap().text(0).unwrap(), "c");
    let error = db.query_opt(by_id, values![1]).await.unwrap_err();
    assert!(matches!(error, DbError::NotOneRow { got: 2, .. }), "{error}");
    let error = db.query_one(by_id, values![9]).await.unwrap_err();
    assert_eq!(error.to_string(), "query on ops.items must return one row, but returned 0");
}

pub(crate) async fn a_scan_streams_breaks_and_passes_errors_on(temp: &TempDb) {
    let db = &temp.db;
    let params = (0..10_000_i64).flat_map(|n| values![n, format!("{n}")]).collect();
    db.apply(vec![Statement::bulk("insert into ops.items (id, name) values ($1, $2)", 2, params)])
        .await
        .unwrap();
    let sql = "select id, name from ops.items order by id";
    let (sum, seen) = db
        .scan(sql, vec![], (0, 0), |(sum, seen), row| {
            *sum += row.i64(0)?;
            *seen += 1;
            Ok(if *seen == 5_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
        .await
        .unwrap();
    assert_eq!((sum, seen), (4_999 * 5_000 / 2, 5_000));
    let error = db
        .scan(sql, vec![], (), |(), row| row.i64(1).map(|_| ControlFlow::Continue(())))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("column `name` is text"), "{error}");
    let lost = db.scan(sql, vec![], (), |(), _| panic!("of the test")).await.unwrap_err();
    assert!(matches!(lost, DbError::ReaderLost), "{lost}");
    assert_eq!(ids(db).await.len(), 10_000);
}

pub(crate) async fn a_snapshot_stands_still(temp: &TempDb) {
    let db = &temp.db;
    db.apply(vec![insert(1, "a")]).await.unwrap();
    let count = "select count(*) from ops.items";
    let snapshot = db.snapshot().await.unwrap();
    db.apply(vec![insert(2, "b")]).await.unwrap();
    assert_eq!(snapshot.query_one(count, vec![]).await.unwrap().i64(0).unwrap(), 1);
    assert_eq!(db.query_one(count, vec![]).await.unwrap().i64(0).unwrap(), 2);
    drop(snapshot);
    let again = db.snapshot().await.unwrap();
    assert_eq!(again.query_one(count, vec![]).await.unwrap().i64(0).unwrap(), 2);
    // More of them than threads: they wait for their turn.
    let mut tasks = Vec::new();
    for _ in 0..40 {
        let db = db.clone();
        tasks.push(tokio::spawn(async move {
            let s = db.snapshot().await?;
            s.query_one(count, vec![]).await?.i64(0)
        }));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap(), 2);
    }
}

pub(crate) async fn a_query_cannot_write(temp: &TempDb) {
    let db = &temp.db;
    let error = db.query("delete from ops.items returning id", vec![]).await.unwrap_err();
    assert!(matches!(error, DbError::ReadOnly { .. }), "{error}");
}

pub(crate) async fn texts_made_at_run_time_do_not_pile_up(temp: &TempDb) {
    let db = &temp.db;
    for n in 0..600 {
        let row = db.query_one(format!("select {n}"), vec![]).await.unwrap();
        assert_eq!(row.i64(0).unwrap(), n);
    }
}

pub(crate) async fn a_closed_database_says_so(temp: &TempDb) {
    let db = temp.second().await;
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
    assert!(matches!(db.snapshot().await, Err(DbError::Closed)));
    assert_eq!(db.metrics().jobs, 50);
    assert_eq!(ids(&temp.db).await.len(), 50);
}
