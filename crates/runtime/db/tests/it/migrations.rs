use watchbell_core::Time;
use watchbell_db::{DbError, Line, Migration};
use watchbell_testkit::TempDb;

const ONE: Migration = Migration {
    number: 1,
    name: "windows",
    sql: "create table ops.windows (id {id}, start {i64} not null);
          create view ops.v_windows as select id, {utc:start} as start_utc from ops.windows;",
};
const TWO: Migration = Migration {
    number: 2,
    name: "kept",
    sql: "/*sqlite*/ create trigger ops_windows_kept before delete on ops.windows
          begin select raise(abort, 'windows are kept; really'); end; /*end*/
          /*pg*/ create function ops.keep() returns trigger language plpgsql as $$
          begin raise exception 'windows are kept; really'; end $$; /*end*/
          insert into ops.windows (start) values (1795316400123)",
};
const BROKEN: Migration =
    Migration { number: 3, name: "broken", sql: "create table ops.half (x {i64}); create oops" };

const fn line(migrations: &'static [Migration]) -> Line {
    Line { name: "runtime", migrations }
}
const UP_TO_ONE: Line = line(&[ONE]);
const UP_TO_TWO: Line = line(&[ONE, TWO]);
const WITH_BROKEN: Line = line(&[ONE, TWO, BROKEN]);
const OTHER: Line = Line {
    name: "market",
    migrations: &[Migration {
        number: 1,
        name: "m",
        sql: "/*pg*/ create schema if not exists market; /*end*/ create table market.m (x {i64})",
    }],
};

pub(crate) async fn lines_are_applied_in_order_and_once(temp: &TempDb) {
    let db = &temp.db;
    let lines = [UP_TO_TWO, OTHER];
    let pending = db.pending(&lines).await.unwrap();
    let shown: Vec<String> = pending.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["runtime/1 windows", "runtime/2 kept", "market/1 m"]);
    assert_eq!(db.migrate(&[UP_TO_ONE], Time(5)).await.unwrap().len(), 1);
    assert_eq!(db.migrate(&lines, Time(6)).await.unwrap(), pending[1..]);
    assert_eq!(db.migrate(&lines, Time(7)).await.unwrap(), []);
    assert_eq!(db.pending(&lines).await.unwrap(), []);
    let at = db.query("select applied_at from ops.migrations order by 1", vec![]).await.unwrap();
    assert_eq!(at.iter().map(|r| r.i64(0).unwrap()).collect::<Vec<_>>(), [5, 6, 6]);
    let shown = db.query_one("select start_utc from ops.v_windows", vec![]).await.unwrap();
    assert_eq!(shown.text(0).unwrap(), "2026-11-22T03:00:00.123Z");
}

pub(crate) async fn a_newer_schema_is_refused(temp: &TempDb) {
    let db = &temp.db;
    db.migrate(&[UP_TO_TWO], Time(0)).await.unwrap();
    let error = db.migrate(&[UP_TO_ONE], Time(0)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "database is at runtime/2, this binary knows up to runtime/1: use a newer watchbell"
    );
}

pub(crate) async fn a_changed_migration_is_refused(temp: &TempDb) {
    const CHANGED: Line = line(&[Migration { sql: "create table ops.windows (id {id})", ..ONE }]);
    let db = &temp.db;
    db.migrate(&[UP_TO_ONE], Time(0)).await.unwrap();
    let error = db.pending(&[CHANGED]).await.unwrap_err();
    assert!(matches!(error, DbError::MigrationChanged { number: 1, .. }), "{error}");
}

pub(crate) async fn a_failed_migration_leaves_nothing_and_keeps_the_earlier_ones(temp: &TempDb) {
    let db = &temp.db;
    let error = db.migrate(&[WITH_BROKEN], Time(0)).await.unwrap_err();
    assert!(error.to_string().starts_with("migration runtime/3 (broken) failed: "), "{error}");
    assert_eq!(db.pending(&[WITH_BROKEN]).await.unwrap().len(), 1);
    assert!(db.query("select * from ops.half", vec![]).await.is_err());
    assert_eq!(db.pending(&[UP_TO_TWO]).await.unwrap(), []);
}

pub(crate) async fn two_processes_may_migrate_at_once(temp: &TempDb) {
    let (a, b) = (&temp.db, temp.second().await);
    let (of_a, of_b) = tokio::join!(
        a.migrate(&[UP_TO_TWO, OTHER], Time(1)),
        b.migrate(&[UP_TO_TWO, OTHER], Time(2))
    );
    assert_eq!(of_a.unwrap().len() + of_b.unwrap().len(), 3);
}
