//! A server that goes away under load: nothing is lost, nothing happens twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use watchbell_core::port::{
    Claim, EventQuery, Grant, JobClaim, Outcome, Result, Store, StoreError, Target,
};
use watchbell_core::{BoxFuture, Commit, CycleInput, Time};
use watchbell_db::{Database, ServerOptions};
use watchbell_store::LINE;
use watchbell_testkit::{Cluster, postgres_is_wanted, registration, until};

use crate::windows::{completed, target};
use crate::{DOMAIN, NOW, TTL, done, row};

const WORKERS: i64 = 4;
const CYCLES: i64 = 20;
const RESTARTS: u64 = 3;

/// Asks until the store answers, whatever happens to its server.
async fn insist<'a, T>(mut ask: impl FnMut() -> BoxFuture<'a, Result<T>>) -> Result<T> {
    loop {
        match ask().await {
            Err(StoreError::Database(_)) => {}
            answer => return answer,
        }
    }
}

/// A claim that is granted in the end. Where the answer to one was lost, its cycle is found among
/// the cycles, as the engine finds it.
async fn claim(store: &Arc<dyn Store>, worker: &str, now: Time) -> Grant {
    let request = || watchbell_core::port::ClaimRequest {
        worker: worker.into(),
        session: "one".into(),
        now,
        ttl: TTL,
        target: Target::Manual,
        passed: vec![],
    };
    match insist(|| store.claim(request())).await.unwrap() {
        Claim::Granted(grant) => grant,
        Claim::Held { owner, .. } => {
            assert_eq!(owner, "one".into());
            let name = worker.into();
            let newest = insist(|| store.cycles(Some(&name), 1)).await.unwrap().remove(0);
            assert_eq!(newest.outcome, Outcome::Running);
            Grant {
                token: newest.token,
                cycle: newest.id,
                cause: newest.cause,
                attempt: 1,
                max_attempts: 0,
                input: CycleInput::None,
                expires_at: now + TTL,
            }
        }
        other => panic!("{other:?}"),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

/// A lease does not wait for the disk, so a crash may undo it. Then the job is leased again, under
/// the same token, and only the session that holds it now can end it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_a_crash_undid_ends_no_job_of_another() {
    if !postgres_is_wanted() {
        return;
    }
    let cluster = Arc::new(blocking(Cluster::start).await);
    let url = cluster.url(&cluster.create_database());
    let db = Database::connect(&ServerOptions::new(url)).await.unwrap();
    db.migrate(&[LINE, DOMAIN], NOW).await.unwrap();
    let store = crate::store(&db).await;
    store.register(&[registration("watch")], NOW).await.unwrap();
    let mut undone = 0;
    for round in 0..4 {
        let job = insist(|| store.enqueue(vec![crate::jobs::job("count")], NOW)).await.unwrap();
        let id = job[0].id().unwrap();
        let claim = |session: &str| JobClaim {
            worker: "watch".into(),
            session: session.into(),
            kinds: vec!["count".into()],
            most: 1,
            now: NOW,
            ttl: TTL,
        };
        let mine = store.claim_jobs(claim("one")).await.unwrap().grants.remove(0);
        let server = Arc::clone(&cluster);
        blocking(move || {
            server.stop_immediate();
            server.start_again();
        })
        .await;
        let theirs = insist(|| store.claim_jobs(claim("two"))).await.unwrap().grants.pop();
        let (worker, one, two) = ("watch".into(), "one".into(), "two".into());
        let end = |grant: &Grant| vec![crate::jobs::success(grant)];
        if let Some(theirs) = theirs {
            undone += 1;
            assert_eq!(crate::jobs::id(&theirs), id, "round {round}");
            assert_eq!(theirs.token, mine.token);
            let refused = store.finish_jobs(&worker, &one, end(&mine), NOW).await.unwrap();
            assert_eq!(refused, [false]);
            let taken = store.finish_jobs(&worker, &two, end(&theirs), NOW).await.unwrap();
            assert_eq!(taken, [true]);
        } else {
            let taken = store.finish_jobs(&worker, &one, end(&mine), NOW).await.unwrap();
            assert_eq!(taken, [true]);
        }
        let left = db.query_one("select count(*) from ops.jobs", vec![]).await.unwrap();
        assert_eq!(left.i64(0).unwrap(), 0);
    }
    assert!(undone > 0, "no crash undid a lease: they wait for the disk after all");
}

/// A window's claim waits for the disk of a server, which may crash while the node lives on: what
/// was claimed is still claimed after it, by the same cycle and under the same token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_was_claimed_stays_so_when_the_server_crashes() {
    if !postgres_is_wanted() {
        return;
    }
    let cluster = Arc::new(blocking(Cluster::start).await);
    let url = cluster.url(&cluster.create_database());
    let db = Database::connect(&ServerOptions::new(url)).await.unwrap();
    db.migrate(&[LINE, DOMAIN], NOW).await.unwrap();
    let store = crate::store(&db).await;
    store.register(&[registration("bell")], NOW).await.unwrap();
    for n in 0..4 {
        let ask = |session: &str| watchbell_core::port::ClaimRequest {
            worker: "bell".into(),
            session: session.into(),
            now: NOW,
            ttl: TTL,
            target: target(n, 1),
            passed: vec![],
        };
        let Claim::Granted(mine) = insist(|| store.claim(ask("one"))).await.unwrap() else {
            panic!("window {n} is free");
        };
        let server = Arc::clone(&cluster);
        blocking(move || {
            server.stop_immediate();
            server.start_again();
        })
        .await;
        let asked = insist(|| store.claim(ask("two"))).await.unwrap();
        assert!(
            matches!(&asked, Claim::Held { owner, .. } if owner.as_str() == "one"),
            "window {n}: {asked:?}"
        );
        let mut publication = completed(&mine, NOW);
        publication.commit = Commit::new().with(row(n, "one"));
        store.publish(publication).await.unwrap();
        let rows = db.query_one("select count(*) from market.rows", vec![]).await.unwrap();
        assert_eq!(rows.i64(0).unwrap(), n + 1);
    }
}

/// What has ended leaves the hot table, and beside a transaction that stays open, which keeps every
/// dead row, the queue goes on all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hot_table_keeps_nothing_of_what_has_ended() {
    const JOBS: usize = 10_000;
    const BATCH: usize = 500;
    if !postgres_is_wanted() {
        return;
    }
    let cluster = Arc::new(blocking(Cluster::start).await);
    let name = cluster.create_database();
    let db = Database::connect(&ServerOptions::new(cluster.url(&name))).await.unwrap();
    db.migrate(&[LINE, DOMAIN], NOW).await.unwrap();
    let store = crate::store(&db).await;
    store.register(&[registration("watch")], NOW).await.unwrap();
    let pass_through = || async {
        for _ in 0..JOBS / BATCH {
            let jobs = (0..BATCH).map(|_| crate::jobs::job("count")).collect();
            store.enqueue(jobs, NOW).await.unwrap();
            let claim = JobClaim {
                worker: "watch".into(),
                session: "one".into(),
                kinds: vec!["count".into()],
                most: BATCH as u32,
                now: NOW,
                ttl: TTL,
            };
            let grants = store.claim_jobs(claim).await.unwrap().grants;
            assert_eq!(grants.len(), BATCH);
            let ends = grants.iter().map(crate::jobs::success).collect();
            let taken = store.finish_jobs(&"watch".into(), &"one".into(), ends, NOW).await;
            assert!(taken.unwrap().into_iter().all(|taken| taken));
        }
    };
    let kept = || async {
        let (server, name) = (Arc::clone(&cluster), name.clone());
        let vacuum = move || server.sql(&name, "vacuum ops.jobs");
        blocking(vacuum).await;
        let sizes = "select count(*), pg_stat_get_dead_tuples('ops.jobs'::regclass),
            pg_total_relation_size('ops.jobs') from ops.jobs";
        let row = db.query_one(sizes, vec![]).await.unwrap();
        (row.i64(0).unwrap(), row.i64(1).unwrap(), row.i64(2).unwrap())
    };
    pass_through().await;
    let (live, dead, first) = kept().await;
    assert_eq!((live, dead), (0, 0));
    for _ in 0..3 {
        pass_through().await;
        let (live, dead, size) = kept().await;
        assert_eq!((live, dead), (0, 0));
        assert!(size <= 2 * first, "{first} bytes became {size}");
    }
    let held = db.snapshot().await.unwrap();
    pass_through().await;
    let (live, dead, _) = kept().await;
    assert_eq!(live, 0);
    assert!(dead >= JOBS as i64, "the open transaction was to keep them: {dead}");
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_loses_and_doubles_nothing() {
    if !postgres_is_wanted() {
        return;
    }
    let cluster = Arc::new(blocking(Cluster::start).await);
    let url = cluster.url(&cluster.create_database());
    let db = Database::connect(&ServerOptions::new(url)).await.unwrap();
    db.migrate(&[LINE, DOMAIN], NOW).await.unwrap();
    let store = crate::store(&db).await;
    let names: Vec<String> = (0..WORKERS).map(|n| format!("worker-{n}")).collect();
    let workers: Vec<_> = names.iter().map(|name| registration(name)).collect();
    store.register(&workers, NOW).await.unwrap();
    let published = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for (n, name) in (0..).zip(names) {
        let (store, published) = (Arc::clone(&store), Arc::clone(&published));
        tasks.push(tokio::spawn(async move {
            for k in 0..CYCLES {
                let grant = claim(&store, &name, NOW).await;
                let mut p = done(&name, &grant, NOW);
                p.commit = Commit::new().with(row(n * CYCLES + k, &name));
                p.commit.emit("rows.stored", &*name, k.into());
                insist(|| store.publish(p.clone())).await.unwrap();
                published.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let total = (WORKERS * CYCLES) as u64;
    for n in 1..=RESTARTS {
        let probe = || async { published.load(Ordering::Relaxed) };
        until("some cycles", probe, |seen| *seen >= total * n / (RESTARTS + 1)).await;
        let server = Arc::clone(&cluster);
        blocking(move || server.restart()).await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    let rows = db.query_one("select count(*) from market.rows", vec![]).await.unwrap();
    assert_eq!(rows.i64(0).unwrap(), WORKERS * CYCLES);
    let cycles = store.cycles(None, 1_000).await.unwrap();
    assert_eq!(cycles.len() as i64, WORKERS * CYCLES);
    assert!(cycles.iter().all(|c| c.outcome == Outcome::Succeeded));
    let query = EventQuery { after: Some(0), kinds: vec![], limit: 10_000 };
    let events = store.events(query).await.unwrap();
    assert_eq!(events.len() as i64, WORKERS * CYCLES, "one each, and none of a refusal");
}
