//! A PostgreSQL server that fails while work goes on: nothing that was answered is lost, what is
//! refused is refused in so many words, and everything goes on with the same handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use watchbell_clock::{Clock, Stopwatch};
use watchbell_core::{Expect, Millis, Statement, Time, values};
use watchbell_db::{Database, DbError, Notification, ServerOptions};
use watchbell_testkit::{Cluster, postgres_is_wanted, until};

/// A private server with one table on it.
async fn rig(set: impl FnOnce(&mut ServerOptions)) -> Option<(Arc<Cluster>, Database, String)> {
    if !postgres_is_wanted() {
        return None;
    }
    let made = tokio::task::spawn_blocking(|| {
        let cluster = Cluster::start();
        let name = cluster.create_database();
        (Arc::new(cluster), name)
    });
    let (cluster, name) = made.await.unwrap();
    let mut options = ServerOptions::new(cluster.url(&name));
    set(&mut options);
    let db = Database::connect(&options).await.unwrap();
    db.migrate(&[], Time(0)).await.unwrap();
    let table = "create table ops.t (id {i64} primary key, v {i64} not null)";
    db.apply(vec![Statement::new(table, vec![])]).await.unwrap();
    Some((cluster, db, name))
}

async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Callers that insert one row after another until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicI64>,
    callers: Vec<tokio::task::JoinHandle<Vec<DbError>>>,
}

impl Load {
    fn start(db: &Database, callers: i64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicI64::new(0));
        let callers = (0..callers).map(|caller| {
            let (db, stop, answered) = (db.clone(), Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut errors = Vec::new();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // Twice, so that a row whose answer was lost shows itself.
                    let id = caller * 1_000_000 + n;
                    let insert = Statement::new(
                        "insert into ops.t (id, v) values ($1, $2) on conflict (id) do nothing",
                        values![id, caller],
                    );
                    loop {
                        let list = vec![insert.clone().expect(Expect::Any)];
                        match db.apply(list).await {
                            Ok(_) => break,
                            Err(error) => {
                                assert!(error.is_transient(), "{error}");
                                errors.push(error);
                                Clock::system().sleep(Millis(20)).await;
                            }
                        }
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                errors
            })
        });
        let callers = callers.collect();
        Self { stop, answered, callers }
    }

    async fn more(&self, rows: i64) {
        let goal = self.answered.load(Ordering::Relaxed) + rows;
        let seen = || async { self.answered.load(Ordering::Relaxed) };
        until("answers", seen, |n| *n >= goal).await;
    }

    /// Ends it; how many rows were answered, and what was refused on the way.
    async fn end(self) -> (i64, Vec<DbError>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut errors = Vec::new();
        for caller in self.callers {
            errors.extend(caller.await.unwrap());
        }
        (self.answered.load(Ordering::Relaxed), errors)
    }
}

async fn count(db: &Database) -> i64 {
    db.query_one("select count(*) from ops.t", vec![]).await.unwrap().i64(0).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_under_load_loses_nothing() {
    let Some((cluster, db, _)) = rig(|_| ()).await else { return };
    let mut heard = db.listen("t").unwrap();
    assert_eq!(heard.next().await, Some(Notification::Reconnected));
    let load = Load::start(&db, 16);
    for crash in [true, false, true] {
        load.more(200).await;
        let cluster = Arc::clone(&cluster);
        on_thread(move || {
            if crash {
                cluster.stop_immediate();
            } else {
                cluster.stop_fast();
            }
            cluster.start_again();
        })
        .await;
        assert_eq!(heard.next().await, Some(Notification::Lost));
        assert_eq!(heard.next().await, Some(Notification::Reconnected));
    }
    load.more(200).await;
    let (answered, errors) = load.end().await;
    assert_eq!(count(&db).await, answered);
    assert!(
        errors
            .iter()
            .all(|e| matches!(e, DbError::Unreachable { .. } | DbError::AnswerLost { .. })),
        "{errors:?}"
    );
    db.notify("t", "hello").await.unwrap();
    assert_eq!(heard.next().await, Some(Notification::Message("hello".to_owned())));
    db.close().await.unwrap();
    assert_eq!(heard.next().await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_ended_under_load_lose_nothing() {
    let Some((cluster, db, name)) = rig(|_| ()).await else { return };
    let load = Load::start(&db, 16);
    for _ in 0..10 {
        load.more(100).await;
        let (cluster, name) = (Arc::clone(&cluster), name.clone());
        let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity
            where pid <> pg_backend_pid() and datname = current_database() and pid % 2 = 0";
        on_thread(move || cluster.sql(&name, kill)).await;
        // Reads do not notice.
        count(&db).await;
    }
    let (answered, errors) = load.end().await;
    assert_eq!(count(&db).await, answered);
    assert!(errors.iter().all(|e| matches!(e, DbError::AnswerLost { .. })), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_exhausted_says_so_and_recovers() {
    let small = |o: &mut ServerOptions| (o.pool_size, o.pool_timeout_ms) = (2, 50);
    let Some((_cluster, db, _)) = rig(small).await else { return };
    let held = db.snapshot().await.unwrap();
    let error = db.snapshot().await.unwrap_err();
    assert!(matches!(error, DbError::NoConnection { waited_ms: 50, .. }), "{error}");
    assert!(error.is_transient());
    // Neither queries nor commits are held up.
    let row = Statement::new("insert into ops.t values (1, 1)", vec![]);
    db.apply(vec![row]).await.unwrap();
    assert_eq!(count(&db).await, 1);
    drop(held);
    db.snapshot().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_an_idle_session_holds_holds_up_only_those_who_want_it() {
    let Some((cluster, db, name)) = rig(|o| o.lock_timeout_ms = 1_500).await else { return };
    let rows = (0..100_i64).flat_map(|n| values![n, 0]).collect();
    let fill = Statement::bulk("insert into ops.t (id, v) values ($1, $2)", 2, rows);
    db.apply(vec![fill]).await.unwrap();
    let idle = Database::connect(&ServerOptions::new(cluster.url(&name))).await.unwrap();
    let bump = |id: i64| {
        let sql = "update ops.t set v = v + 1 where id = $1";
        vec![Statement::new(sql, values![id]).expect(Expect::Exactly(1))]
    };
    // A session of psql that sits in its transaction.
    let (holder, url) = (Arc::clone(&cluster), cluster.url(&name));
    let hold = std::process::Command::new(holder.programs().join("psql"))
        .args(["-X", "-q", &url, "-c"])
        .arg("begin; update ops.t set v = v where id = 7; select pg_sleep(30); commit")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let held = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    let seen = || async { idle.query_one(held, vec![]).await.unwrap().i64(0).unwrap() };
    until("the row to be held", seen, |n| *n == 1).await;
    let watch = Stopwatch::start();
    let mut callers = Vec::new();
    for n in 0..100_i64 {
        let (db, list) = (db.clone(), bump(n));
        callers.push(tokio::spawn(async move { (n, db.apply(list).await) }));
    }
    let mut others = 0;
    for caller in callers {
        match caller.await.unwrap() {
            (7, refused) => {
                assert!(matches!(refused, Err(DbError::Locked { .. })), "{refused:?}");
                assert!(watch.millis() >= Millis(1_500));
            }
            (_, done) => {
                done.unwrap();
                others += 1;
            }
        }
    }
    assert_eq!((others, db.metrics().busy), (99, 1));
    let stop =
        "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'";
    let name = name.clone();
    on_thread(move || cluster.sql(&name, stop)).await;
    on_thread(move || hold.wait_with_output()).await.unwrap();
    db.apply(bump(7)).await.unwrap();
    let sum = db.query_one("select sum(v) from ops.t", vec![]).await.unwrap();
    assert_eq!(sum.i64(0).unwrap(), 100);
}
