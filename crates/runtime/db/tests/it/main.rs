//! Tests of the database handle. What says nothing about the engine runs on both.

mod apply;
mod faults;
mod file;
mod migrations;
mod read;
mod server;

use watchbell_core::{Statement, values};
use watchbell_db::Database;
use watchbell_testkit::TempDb;

/// Runs tests on a file, and again on a server.
macro_rules! on_both {
    ($($module:ident: $($test:ident)+;)+) => {
        mod on_sqlite {$(
            mod $module {$(
                #[tokio::test]
                async fn $test() {
                    crate::$module::$test(&crate::sqlite().await).await;
                }
            )+}
        )+}
        mod on_postgres {$(
            mod $module {$(
                #[tokio::test]
                async fn $test() {
                    if watchbell_testkit::postgres_is_wanted() {
                        crate::$module::$test(&crate::postgres().await).await;
                    }
                }
            )+}
        )+}
    };
}

on_both! {
    apply:
        a_list_happens_whole_or_not_at_all
        an_expectation_that_fails_refuses_the_whole_list
        returned_rows_are_counted_and_given_back
        a_list_that_does_not_wait_for_the_disk_is_whole_and_in_order
        many_callers_share_commits_and_only_the_guilty_are_refused
        an_error_at_commit_reaches_only_its_cause
        wrong_statements_are_named
        statements_for_the_other_engine_are_skipped
        a_bulk_statement_may_meet_a_row_twice
        a_bulk_statement_has_nulls_and_expressions
        rows_are_joined_where_the_engine_can
        a_value_finds_its_type
        constraints_have_kinds;
    read:
        cells_have_types_and_errors_name_the_column
        one_row_means_one_row
        a_scan_streams_breaks_and_passes_errors_on
        a_snapshot_stands_still
        a_query_cannot_write
        texts_made_at_run_time_do_not_pile_up
        a_closed_database_says_so;
    migrations:
        lines_are_applied_in_order_and_once
        a_newer_schema_is_refused
        a_changed_migration_is_refused
        a_failed_migration_leaves_nothing_and_keeps_the_earlier_ones
        two_processes_may_migrate_at_once;
}

/// A throw-away file with one table.
async fn sqlite() -> TempDb {
    with_table(TempDb::sqlite(&[]).await).await
}

/// A throw-away database on a server with the same table.
async fn postgres() -> TempDb {
    with_table(TempDb::postgres(&[]).await).await
}

async fn with_table(temp: TempDb) -> TempDb {
    let table = "create table ops.items (id {i64} primary key, name {text} not null unique,
        price {f64}, raw {bytes}, doc {json})";
    temp.db.apply(vec![Statement::new(table, vec![])]).await.expect("a table");
    temp
}

fn insert(id: i64, name: &str) -> Statement {
    Statement::new("insert into ops.items (id, name) values ($1, $2)", values![id, name])
}

async fn ids(db: &Database) -> Vec<i64> {
    let rows = db.query("select id from ops.items order by id", vec![]).await.expect("ids");
    rows.iter().map(|r| r.i64(0).expect("an id")).collect()
}
