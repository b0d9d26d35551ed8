//! What is particular to a PostgreSQL server.

use std::ops::ControlFlow;

use watchbell_core::{Expect, Statement, Time, values};
use watchbell_db::{Database, DbError, Engine, ServerOptions};
use watchbell_testkit::{NOW, TempDb, postgres_is_wanted};

use crate::{ids, insert};

async fn behind_pooler() -> TempDb {
    let temp = TempDb::postgres_with(&[], |o| o.pooler = true).await;
    crate::with_table(temp).await
}

#[tokio::test]
async fn it_describes_itself_and_is_sound() {
    if !postgres_is_wanted() {
        return;
    }
    let temp = crate::postgres().await;
    let about = temp.db.describe().await.unwrap();
    assert_eq!((about.engine, about.synchronous.as_str()), ("postgres", "on"));
    assert_eq!(about.location, temp.db.location());
    assert!(about.bytes > 0 && about.pages > 0);
    assert_eq!(temp.db.engine(), Engine::Postgres);
    assert_eq!(temp.db.path(), None);
    let loose = "alter table ops.items add constraint cheap check (price < 10) not valid";
    temp.db.apply(vec![Statement::new(loose, vec![])]).await.unwrap();
    let problems = temp.db.check().await.unwrap().problems;
    assert!(matches!(&problems[..], [one] if one.contains("ops.items cheap")), "{problems:?}");
}

#[tokio::test]
async fn the_instant_is_the_servers_unless_asked_otherwise() {
    if !postgres_is_wanted() {
        return;
    }
    let now = "select {now:$1}";
    let temp = TempDb::postgres(&[]).await;
    let callers = temp.db.query_one(now, values![NOW]).await.unwrap();
    assert_eq!(callers.time(0).unwrap(), NOW);
    let options = ServerOptions { caller_clock: false, ..temp.server().unwrap().clone() };
    let db = Database::connect(&options).await.unwrap();
    let servers = db.query_one(now, values![Time(5)]).await.unwrap();
    assert!(servers.time(0).unwrap() > Time(1_700_000_000_000));
    let list = vec![Statement::new("select {now:$1}", values![Time(5)])];
    assert!(db.apply(list).await.unwrap().rows[0][0].i64(0).unwrap() > 5);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let url = "postgres://u:secret@127.0.0.1:1/w?sslmode=disable";
    let error = Database::connect(&ServerOptions::new(url)).await.unwrap_err();
    assert!(matches!(error, DbError::Unreachable { .. }), "{error}");
    assert!(error.is_transient());
    let text = error.to_string();
    assert!(text.contains("127.0.0.1:1/w") && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_wrong_database_is_refused() {
    if !postgres_is_wanted() {
        return;
    }
    let temp = TempDb::postgres(&[]).await;
    let url = temp.server().unwrap().url.replace("/test_", "/none_");
    let error = Database::connect(&ServerOptions::new(url)).await.unwrap_err();
    assert!(matches!(error, DbError::Denied { .. }), "{error}");
    assert!(!error.is_transient());
    let both = ServerOptions { pooler: true, ..temp.server().unwrap().clone() };
    let error = Database::connect(&both).await.unwrap_err();
    assert!(matches!(error, DbError::BadUrl { .. }), "{error}");
}

#[tokio::test]
async fn without_prepared_statements_all_is_the_same() {
    if !postgres_is_wanted() {
        return;
    }
    let temp = behind_pooler().await;
    crate::apply::a_list_happens_whole_or_not_at_all(&temp).await;
    let temp = behind_pooler().await;
    crate::apply::a_bulk_statement_may_meet_a_row_twice(&temp).await;
    let temp = behind_pooler().await;
    crate::apply::rows_are_joined_where_the_engine_can(&temp).await;
    let temp = behind_pooler().await;
    crate::apply::a_value_finds_its_type(&temp).await;
    let temp = behind_pooler().await;
    crate::apply::many_callers_share_commits_and_only_the_guilty_are_refused(&temp).await;
    let temp = behind_pooler().await;
    crate::read::a_snapshot_stands_still(&temp).await;
    let temp = behind_pooler().await;
    crate::read::a_scan_streams_breaks_and_passes_errors_on(&temp).await;
    let left = "select count(*) from pg_prepared_statements";
    let row = temp.db.query_one(left, vec![]).await.unwrap();
    assert_eq!(row.i64(0).unwrap(), 0);
    assert!(temp.db.listen("t").is_none());
}

#[tokio::test]
async fn a_list_may_use_what_it_makes() {
    if !postgres_is_wanted() {
        return;
    }
    let temp = crate::postgres().await;
    let list = |n: i64| {
        vec![
            insert(n, &format!("{n}")),
            Statement::new("create table ops.late (x {i64})", vec![]),
            Statement::new("insert into ops.late values ($1)", values![n])
                .expect(Expect::Exactly(1)),
        ]
    };
    temp.db.apply(list(1)).await.unwrap();
    let error = temp.db.apply(list(2)).await.unwrap_err();
    assert!(error.to_string().contains("already exists"), "{error}");
    assert_eq!(ids(&temp.db).await, [1]);
}

#[tokio::test]
async fn a_changed_table_is_noticed() {
    if !postgres_is_wanted() {
        return;
    }
    let temp = crate::postgres().await;
    let all = "select * from ops.items order by id";
    temp.db.apply(vec![insert(1, "a")]).await.unwrap();
    assert_eq!(temp.db.query_one(all, vec![]).await.unwrap().names().len(), 5);
    let more = "alter table ops.items add column more {i64} default 3";
    temp.db.apply(vec![Statement::new(more, vec![])]).await.unwrap();
    assert_eq!(temp.db.query_one(all, vec![]).await.unwrap().i64(5).unwrap(), 3);
    let returning = "update ops.items set price = 1 returning *";
    temp.db.apply(vec![Statement::new(returning, vec![])]).await.unwrap();
    let less = "alter table ops.items drop column more";
    temp.db.apply(vec![Statement::new(less, vec![])]).await.unwrap();
    let applied = temp.db.apply(vec![Statement::new(returning, vec![])]).await.unwrap();
    assert_eq!(applied.rows[0][0].names().len(), 5);
}

#[tokio::test]
async fn a_snapshot_outlives_a_scan_that_is_left_early() {
    if !postgres_is_wanted() {
        return;
    }
    let temp = crate::postgres().await;
    let params = (0..10_000_i64).flat_map(|n| values![n, format!("{n}")]).collect();
    let fill = Statement::bulk("insert into ops.items (id, name) values ($1, $2)", 2, params);
    temp.db.apply(vec![fill]).await.unwrap();
    let snapshot = temp.db.snapshot().await.unwrap();
    temp.db.apply(vec![insert(-1, "later")]).await.unwrap();
    let sql = "select id from ops.items order by id";
    let first = snapshot
        .scan(sql, vec![], None, |first, row| {
            *first = Some(row.i64(0)?);
            Ok(ControlFlow::Break(()))
        })
        .await
        .unwrap();
    assert_eq!(first, Some(0));
    let row = snapshot.query_one("select count(*) from ops.items", vec![]).await.unwrap();
    assert_eq!(row.i64(0).unwrap(), 10_000);
}

#[tokio::test]
async fn lists_that_wait_for_one_lock_are_committed_together() {
    if !postgres_is_wanted() {
        return;
    }
    let temp = crate::postgres().await;
    let lock = Statement::new("/*pg*/ select pg_advisory_xact_lock(77) /*end*/", vec![]);
    let tasks: Vec<_> = (0..200_i64)
        .map(|n| {
            let (db, list) = (temp.db.clone(), vec![lock.clone(), insert(n, &format!("{n}"))]);
            tokio::spawn(async move { db.apply(list).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().changed, [1, 1]);
    }
    let metrics = temp.db.metrics();
    assert!(metrics.commits < 30, "{metrics:?}");
}
