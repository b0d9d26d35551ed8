use std::sync::Arc;

use watchbell_core::{Expect, Statement, values};
use watchbell_db::{ConstraintKind, DbError};

use crate::{database, ids, insert};

#[tokio::test]
async fn a_list_happens_whole_or_not_at_all() {
    let (db, _dir) = database().await;
    db.apply(vec![insert(1, "a"), insert(2, "b")]).await.unwrap();
    let refused = db.apply(vec![insert(3, "c"), insert(4, "a")]).await.unwrap_err();
    assert!(refused.is_unique_violation());
    assert!(
        matches!(
            &refused,
            DbError::Constraint { index: 1, kind: ConstraintKind::Unique, target, .. }
                if target == "ops.items"
        ),
        "{refused}"
    );
    assert_eq!(ids(&db).await, [1, 2]);
}

#[tokio::test]
async fn an_expectation_that_fails_refuses_the_whole_list() {
    let (db, _dir) = database().await;
    db.apply(vec![insert(1, "a")]).await.unwrap();
    let rename = |id: i64| {
        Statement::new("update ops.items set name = $2 where id = $1", values![id, "new"])
            .expect(Expect::Exactly(1))
    };
    let refused = db.apply(vec![insert(2, "b"), rename(7)]).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "statement 1 on ops.items must change exactly 1 rows, but changed 0"
    );
    assert_eq!(ids(&db).await, [1]);
    let applied = db.apply(vec![rename(1), insert(2, "b")]).await.unwrap();
    assert_eq!(applied.changed, [1, 1]);
}

#[tokio::test]
async fn returned_rows_are_counted_and_given_back() {
    let (db, _dir) = database().await;
    let bulk = Statement::bulk(
        "insert into ops.items (id, name, price) values ($1, $2, $3)
         on conflict (id) do nothing returning id, price",
        3,
        values![1, "a", 1.5, 2, "b", 2.5, 1, "again", 3.5],
    );
    let all = "select count(*) from ops.items";
    let applied = db.apply(vec![bulk, Statement::new(all, vec![])]).await.unwrap();
    assert_eq!(applied.changed, [2, 1]);
    assert_eq!(applied.rows[0][1].f64(1).unwrap(), 2.5);
    assert_eq!(applied.rows[1][0].i64(0).unwrap(), 2);
    let update = Statement::new("update ops.items set price = 0", vec![]);
    let create = Statement::new("create table ops.other (x {i64})", vec![]);
    let applied = db.apply(vec![update, create]).await.unwrap();
    assert_eq!((applied.changed, applied.rows.concat().len()), (vec![2, 0], 0));
}

#[tokio::test]
async fn many_callers_share_commits_and_only_the_guilty_are_refused() {
    let (db, _dir) = database().await;
    let mut tasks = Vec::new();
    for n in 0..400_i64 {
        let db = db.clone();
        // Every fourth collides with its predecessor's name.
        let name = if n % 4 == 3 { format!("n{}", n - 1) } else { format!("n{n}") };
        tasks.push(tokio::spawn(async move { db.apply(vec![insert(n, &name)]).await.is_ok() }));
    }
    let mut stored = 0;
    for task in tasks {
        stored += usize::from(task.await.unwrap());
    }
    assert_eq!((stored, ids(&db).await.len()), (300, 300));
    let metrics = db.metrics();
    assert_eq!((metrics.jobs, metrics.refused, metrics.queued), (401, 100, 0));
    assert!(metrics.max_batch > 1, "{metrics:?}");
    assert!(metrics.commits < 401, "{metrics:?}");
}

#[tokio::test]
async fn an_error_at_commit_reaches_only_its_cause() {
    let (db, _dir) = database().await;
    let table = "create table ops.parts (id {i64} primary key,
        item {i64} references ops.items (id) deferrable initially deferred)";
    db.apply(vec![Statement::new(table, vec![])]).await.unwrap();
    let part = |id: i64, item: i64| {
        Statement::new("insert into ops.parts values ($1, $2)", values![id, item])
    };
    let lists: Vec<_> =
        (0..20_i64)
            .map(|n| {
                if n == 7 {
                    vec![part(n, 99)]
                } else {
                    vec![insert(n, &format!("{n}")), part(n, n)]
                }
            })
            .collect();
    let mut tasks = Vec::new();
    for list in lists {
        let db = db.clone();
        tasks.push(tokio::spawn(async move { db.apply(list).await }));
    }
    for (n, task) in tasks.into_iter().enumerate() {
        let outcome = task.await.unwrap();
        assert_eq!(outcome.is_err(), n == 7, "{n}: {outcome:?}");
    }
    assert_eq!(ids(&db).await.len(), 19);
}

#[tokio::test]
async fn wrong_statements_are_named() {
    let (db, _dir) = database().await;
    for (statement, says) in [
        (Statement::new("insert into ops.itms values (1)", vec![]), "no such table: ops_itms"),
        (
            Statement::new("insert into ops.items (id) values ($1)", values![1, 2]),
            "it has 1 parameters, and 2 were given",
        ),
        (Statement::new("insert into ops.items (id) values ($1)", values![1]), "NOT NULL"),
        (Statement::new("this is not SQL", vec![]), "syntax error"),
    ] {
        let error = db.apply(vec![statement]).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    assert!(db.apply(vec![]).await.unwrap().changed.is_empty());
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let (db, _dir) = database().await;
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
    assert_eq!(ids(&db).await, [2, 3]);
}
