use watchbell_core::{Expect, Statement, Value, values};
use watchbell_db::{ConstraintKind, DbError, Engine};
use watchbell_testkit::TempDb;

use crate::{ids, insert};

pub(crate) async fn a_list_happens_whole_or_not_at_all(temp: &TempDb) {
    let db = &temp.db;
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
    assert_eq!(ids(db).await, [1, 2]);
}

pub(crate) async fn an_expectation_that_fails_refuses_the_whole_list(temp: &TempDb) {
    let db = &temp.db;
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
    assert_eq!(ids(db).await, [1]);
    let applied = db.apply(vec![rename(1), insert(2, "b")]).await.unwrap();
    assert_eq!(applied.changed, [1, 1]);
}

pub(crate) async fn returned_rows_are_counted_and_given_back(temp: &TempDb) {
    let db = &temp.db;
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

pub(crate) async fn a_list_that_does_not_wait_for_the_disk_is_whole_and_in_order(temp: &TempDb) {
    let db = &temp.db;
    db.apply_unsynced(vec![insert(1, "a"), insert(2, "b")]).await.unwrap();
    let refused = db.apply_unsynced(vec![insert(3, "c"), insert(4, "a")]).await.unwrap_err();
    assert!(refused.is_unique_violation(), "{refused}");
    assert_eq!(ids(db).await, [1, 2]);
    // Beside lists that do wait, sharing their commits or not.
    let mut callers = tokio::task::JoinSet::new();
    for id in 3..60 {
        let db = db.clone();
        callers.spawn(async move {
            let list = vec![insert(id, &id.to_string())];
            if id % 3 == 0 { db.apply(list).await } else { db.apply_unsynced(list).await }
        });
    }
    while let Some(applied) = callers.join_next().await {
        assert_eq!(applied.unwrap().unwrap().changed, [1]);
    }
    assert_eq!(ids(db).await, (1..60).collect::<Vec<_>>());
}

pub(crate) async fn many_callers_share_commits_and_only_the_guilty_are_refused(temp: &TempDb) {
    let db = &temp.db;
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
    assert_eq!((stored, ids(db).await.len()), (300, 300));
    let metrics = db.metrics();
    assert_eq!((metrics.jobs, metrics.refused, metrics.queued), (401, 100, 0));
    assert!(metrics.max_batch > 1, "{metrics:?}");
    assert!(metrics.commits < 401, "{metrics:?}");
}

pub(crate) async fn an_error_at_commit_reaches_only_its_cause(temp: &TempDb) {
    let db = &temp.db;
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
    assert_eq!(ids(db).await.len(), 19);
}

pub(crate) async fn wrong_statements_are_named(temp: &TempDb) {
    let db = &temp.db;
    for (statement, says) in [
        (Statement::new("insert into ops.itms values (1)", vec![]), "itms"),
        (
            Statement::new("insert into ops.items (id) values ($1)", values![1, 2]),
            "it has 1 parameters, and 2 were given",
        ),
        (
            Statement::new("insert into ops.items (id) values ($1)", values![1]),
            "refused the change",
        ),
        (Statement::new("this is not SQL", vec![]), "syntax error"),
    ] {
        let error = db.apply(vec![statement]).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    assert!(db.apply(vec![]).await.unwrap().changed.is_empty());
}

pub(crate) async fn statements_for_the_other_engine_are_skipped(temp: &TempDb) {
    let db = &temp.db;
    let none = Statement::new("/*pg*/ select 1 /*end*/", vec![]);
    let other = Statement::new("/*sqlite*/ select 1 /*end*/ -- for one\n", vec![]);
    let expect = Expect::Exactly(1);
    let list = vec![none.expect(expect), insert(1, "a"), other.expect(expect)];
    let applied = db.apply(list).await.unwrap();
    let theirs = if db.engine() == Engine::Postgres { [1, 1, 0] } else { [0, 1, 1] };
    assert_eq!(applied.changed, theirs);
}

pub(crate) async fn a_bulk_statement_may_meet_a_row_twice(temp: &TempDb) {
    let db = &temp.db;
    let upsert = Statement::bulk(
        "insert into ops.items (id, name) values ($1, $2)
         on conflict (id) do update set name = excluded.name returning name",
        2,
        values![1, "a", 2, "b", 1, "c"],
    );
    let applied = db.apply(vec![upsert.expect(Expect::Exactly(3))]).await.unwrap();
    let names: Vec<&str> = applied.rows[0].iter().map(|r| r.text(0).unwrap()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let row = db.query_one("select name from ops.items where id = 1", vec![]).await.unwrap();
    assert_eq!(row.text(0).unwrap(), "c");
}

pub(crate) async fn a_bulk_statement_has_nulls_and_expressions(temp: &TempDb) {
    let db = &temp.db;
    let none = Value::Null;
    let mut params = Vec::new();
    for n in 0..12_000_i64 {
        let (price, doc) = if n % 3 == 0 {
            (none.clone(), none.clone())
        } else {
            (Value::from(0.5), "[1]".into())
        };
        params.extend([Value::from(n), Value::from("n"), price, doc]);
    }
    let sql = "insert into ops.items (id, name, price, doc) values ($1, $2 || $1,
        case when $3 is null then -1 else $3 end, $4)";
    let bulk = Statement::bulk(sql, 4, params).expect(Expect::Exactly(12_000));
    let empty = Statement::bulk("delete from ops.items where id = $1", 1, vec![]);
    let applied = db.apply(vec![bulk, empty]).await.unwrap();
    assert_eq!(applied.changed, [12_000, 0]);
    let sql = "select count(*), sum(id), sum(price), count(doc), max(name) from ops.items";
    let row = db.query_one(sql, vec![]).await.unwrap();
    assert_eq!((row.i64(0).unwrap(), row.i64(1).unwrap()), (12_000, 5_999 * 12_000 + 6_000));
    assert_eq!((row.f64(2).unwrap(), row.i64(3).unwrap()), (0.0, 8_000));
    assert_eq!(row.text(4).unwrap(), "n9999");
    // Other bulk statements run row by row.
    let rename = "update ops.items set name = $2 where id = $1";
    let rename = Statement::bulk(rename, 2, values![3, "three", 4, "four", -1, "none"]);
    assert_eq!(db.apply(vec![rename]).await.unwrap().changed, [2]);
}

pub(crate) async fn rows_are_joined_where_the_engine_can(temp: &TempDb) {
    let db = &temp.db;
    let params = (0..100_i64).flat_map(|n| values![n, format!("{n}")]).collect();
    let fill = Statement::bulk("insert into ops.items (id, name) values ($1, $2)", 2, params);
    let sql = "update ops.items set price = $2, doc = $3 /*pg*/ from {rows:i64,f64,json} /*end*/
        where id = $1 returning id";
    let params = vec![
        Value::from(7),
        Value::from(1.5),
        Value::from("{\"b\": 1,  \"a\": 2}"),
        Value::from(9),
        Value::Null,
        Value::Null,
        Value::from(777),
        Value::from(2.5),
        Value::Null,
    ];
    let join = Statement::bulk(sql, 3, params).expect(Expect::Exactly(2));
    let applied = db.apply(vec![fill, join]).await.unwrap();
    let mut ids: Vec<i64> = applied.rows[1].iter().map(|r| r.i64(0).unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [7, 9]);
    let row = db.query_one("select price, doc from ops.items where id = 7", vec![]).await.unwrap();
    assert_eq!(row.f64(0).unwrap(), 1.5);
    assert_eq!(row.text(1).unwrap(), "{\"b\": 1,  \"a\": 2}", "to the letter");
    let none = Statement::bulk(sql, 3, vec![]);
    assert_eq!(db.apply(vec![none]).await.unwrap().changed, [0]);
}

pub(crate) async fn a_value_finds_its_type(temp: &TempDb) {
    let db = &temp.db;
    db.apply(vec![insert(1, "a")]).await.unwrap();
    let big = 1_i64 << 40;
    let one = |sql: &'static str, params: Vec<Value>| async move {
        db.query_one(sql, params).await.unwrap().values().to_vec()
    };
    assert_eq!(one("select count(*) from ops.items where $1 = 1", values![1]).await, values![1]);
    assert_eq!(one("select count(*) from ops.items where $1 = 1", values![big]).await, values![0]);
    assert_eq!(one("select $1", values![big]).await, values![big]);
    assert_eq!(one("select $1", values!["text"]).await, values!["text"]);
    assert_eq!(one("select coalesce($1, 5), coalesce($1, 0) + 1", values![big]).await.len(), 2);
    let either = "select count(*) from ops.items where $1 is null or id = $1";
    assert_eq!(one(either, values![None::<i64>]).await, values![1]);
    assert_eq!(one(either, values![2]).await, values![0]);
    assert_eq!(one("select exists (select 1 from ops.items)", vec![]).await, values![1]);
    assert_eq!(one("select sum(id), sum(price) from ops.items", vec![]).await[0], Value::Int(1));
    let set = "update ops.items set name = case when $2 is null then name else $2 end,
        price = coalesce($3, price) where id = $1";
    for (name, price) in [(None, None), (Some("b"), Some(1.5)), (None, Some(2.0))] {
        let set = Statement::new(set, values![1, name, price]).expect(Expect::Exactly(1));
        db.apply(vec![set]).await.unwrap();
    }
    let row = one("select name, price from ops.items", vec![]).await;
    assert_eq!(row, vec![Value::from("b"), Value::from(2.0)]);
}

pub(crate) async fn constraints_have_kinds(temp: &TempDb) {
    let db = &temp.db;
    let table =
        "create table ops.parts (id {i64} primary key, item {i64} references ops.items (id),
        size {i64} check (size > 0), doc {json}) /*sqlite*/ strict /*end*/";
    let keep = "/*sqlite*/ create trigger ops_parts_kept before delete on ops.parts
        begin select raise(abort, 'parts are kept'); end /*end*/";
    let raise = "/*pg*/ create function ops.keep() returns trigger language plpgsql as $$
        begin raise exception 'parts are kept' using errcode = 'WB001'; end $$ /*end*/";
    let fire = "/*pg*/ create trigger kept before delete on ops.parts
        for each row execute function ops.keep() /*end*/";
    let list = [table, keep, raise, fire].map(|sql| Statement::new(sql, vec![]));
    db.apply(list.to_vec()).await.unwrap();
    let part = |id: i64, item: Option<i64>, size: i64| {
        let sql = "insert into ops.parts (id, item, size) values ($1, $2, $3)";
        Statement::new(sql, values![id, item, size])
    };
    db.apply(vec![part(1, None, 1)]).await.unwrap();
    for (statement, wanted) in [
        (part(1, None, 1), ConstraintKind::Unique),
        (part(2, Some(9), 1), ConstraintKind::ForeignKey),
        (part(2, None, 0), ConstraintKind::Check),
        (Statement::new("insert into ops.items (id) values (1)", vec![]), ConstraintKind::NotNull),
        (Statement::new("delete from ops.parts", vec![]), ConstraintKind::Trigger),
    ] {
        match db.apply(vec![insert(5, "five"), statement]).await {
            Err(DbError::Constraint { index: 1, kind, detail, .. }) => {
                assert_eq!(kind, wanted, "{detail}");
            }
            other => panic!("{wanted:?}: {other:?}"),
        }
    }
    assert!(ids(db).await.is_empty());
}
