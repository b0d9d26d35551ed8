use std::sync::Arc;

use watchbell_core::port::{Enqueued, JobClaim, JobQuery, Queue, Registration, Store, Target};
use watchbell_core::{Cause, Millis, NewJob, Statement, job};
use watchbell_db::{Database, Line};
use watchbell_store::{LINE, SqlStore};
use watchbell_testkit::{registration, session};

use crate::{DOMAIN, NOW, Rig, at, done};

async fn read_all_views(db: &Database) {
    for view in [
        "sessions",
        "workers",
        "transitions",
        "cycles",
        "occurrences",
        "windows",
        "covers",
        "backfills",
        "jobs",
        "events",
        "dead_letters",
        "conditions",
        "artifacts",
        "nodes",
        "job_kinds",
        "job_attempts",
    ] {
        db.query(format!("select * from ops.v_{view}"), vec![]).await.unwrap();
    }
}

pub(crate) async fn every_earlier_version_migrates(rig: Rig) {
    for known in 0..=LINE.migrations.len() {
        let earlier = Line { migrations: &LINE.migrations[..known], ..LINE };
        let temp = (rig.fresh)(vec![earlier]).await;
        let applied = temp.db.migrate(&[LINE, DOMAIN], at(1)).await.unwrap();
        assert_eq!(applied.len(), LINE.migrations.len() - known + 1);
        read_all_views(&temp.db).await;
        let store: Arc<dyn Store> = Arc::new(SqlStore::new(temp.db.clone()));
        store.open_session(session("one", NOW)).await.unwrap();
        store.register(&[registration("bell")], NOW).await.unwrap();
        let rig = Rig { store, db: temp.db.clone(), temp, fresh: rig.fresh };
        let grant = rig.grant("bell", Target::Tick { due: NOW }, NOW).await;
        rig.store.publish(done("bell", &grant, at(1))).await.unwrap();
    }
}

/// What a store of the first version can hold, one statement each.
const FIRST_ROWS: [&str; 8] = [
    "insert into ops.session_log
        (session_id, app_name, app_version, host, pid, opened_at, closed_at, note)
     values ('old', 'watchbell', '0.1.0', 'h', 1, 1795316400000, null, 'start')",
    "insert into ops.workers (name, description, trigger_text, state, lease_owner, lease_token,
        lease_expires_at, registered_at)
     values ('bell', 'd', 'manual', 'RUNNING', 'old', 7, 1795316430000, 1795316400000)",
    "insert into ops.cycles (worker, cause, detail, token, session, attempt, started_at, outcome)
     values ('bell', 'manual', '{\"kind\":\"manual\"}', 7, 'old', 1, 1795316400000, 'running')",
    "insert into ops.windows (series, start_at, version, end_at, state, inputs_hash, result_hash,
        source, finished_at)
     values ('window-sampler-30m', 0, 1, 1800000, 'complete', 'in', 'out', 'klines', 1795316400000)",
    "insert into ops.events (at, kind, key, payload) values (1, 'a', 'k', '[1,  2]')",
    "insert into ops.jobs (kind, payload, state, priority, unique_key, max_attempts, run_at,
        created_at)
     values ('count', '{\"n\": 1}', 'queued', 5, 'u', 3, 1795316400000, 1795316400000)",
    "insert into ops.jobs (kind, payload, state, priority, attempts, max_attempts, run_at,
        created_at, started_at, worker, cycle, lease_owner, lease_token, lease_expires_at)
     values ('count', '2', 'running', 0, 1, 3, 1795316400000, 1795316400000, 1795316400000, 'bell',
        1, 'old', 7, 1795316430000)",
    "insert into ops.jobs (kind, payload, state, priority, attempts, max_attempts, run_at,
        created_at, finished_at, error)
     values ('count', '3', 'failed', 0, 3, 3, 1795316400000, 1795316400000, 1795316401000, 'no')",
];

pub(crate) async fn a_store_of_the_first_version_keeps_its_rows(rig: Rig) {
    let first = Line { migrations: &LINE.migrations[..1], ..LINE };
    let temp = (rig.fresh)(vec![first]).await;
    let rows = FIRST_ROWS.map(|sql| Statement::new(sql, vec![]));
    temp.db.apply(rows.to_vec()).await.unwrap();
    for known in 2..=LINE.migrations.len() {
        let next = Line { migrations: &LINE.migrations[..known], ..LINE };
        assert_eq!(temp.db.migrate(&[next], at(1)).await.unwrap().len(), 1);
    }
    read_all_views(&temp.db).await;
    let store = SqlStore::new(temp.db.clone());
    let jobs = store.jobs(JobQuery { limit: 9, ..JobQuery::default() }).await.unwrap();
    let seen: Vec<_> = jobs.iter().map(|j| (j.id, j.state, j.payload.to_string())).collect();
    assert_eq!(
        seen,
        [
            (3, job::State::Failed, "3".to_owned()),
            (2, job::State::Running, "2".to_owned()),
            (1, job::State::Queued, "{\"n\":1}".to_owned()),
        ]
    );
    assert_eq!((jobs[0].error.as_deref(), jobs[0].attempts), (Some("no"), 3));
    assert_eq!((jobs[2].unique_key.as_deref(), jobs[2].priority), (Some("u"), 5));
    let nodes = store.nodes(at(2)).await.unwrap();
    assert_eq!(nodes[0].session.id, "old".into());
    assert_eq!((nodes[0].holds.len(), nodes[0].jobs), (1, 1));
    // Its node is dead: what it held is taken back, and goes on.
    store.open_session(session("one", at(40))).await.unwrap();
    let kinds = vec![job::Kind::new("count")];
    let bell = Registration { kinds, ..registration("bell") };
    store.register(std::slice::from_ref(&bell), at(40)).await.unwrap();
    let recovered = store.recover(&"one".into(), true, at(40)).await.unwrap();
    assert_eq!((recovered.sessions, recovered.cycles, recovered.jobs), (1, 1, 1));
    let claim = JobClaim {
        worker: "bell".into(),
        session: "one".into(),
        kinds: vec!["count".to_owned()],
        most: 9,
        now: at(41),
        ttl: Millis::from_secs(30),
    };
    let batch = store.claim_jobs(claim).await.unwrap();
    let causes: Vec<_> = batch.grants.iter().map(|g| g.cause.clone()).collect();
    assert_eq!(causes, [Cause::Job { id: 1 }, Cause::Job { id: 2 }]);
    let added = store.enqueue(vec![NewJob::new("count", 4.into())], at(42)).await.unwrap();
    assert_eq!(added, [Enqueued::Added(4)], "no number is given twice");
    let change = Statement::new("update ops.windows set result_hash = 'x'", vec![]);
    let refused = temp.db.apply(vec![change]).await.unwrap_err();
    assert!(refused.to_string().contains("a complete window never changes"), "{refused}");
}

pub(crate) async fn views_are_readable(rig: Rig) {
    let grant = rig.grant("bell", Target::Tick { due: NOW }, NOW).await;
    rig.store.publish(done("bell", &grant, at(1))).await.unwrap();
    let second = rig.temp.second().await;
    read_all_views(&second).await;
    let row = second.query_one("select started, took_ms from ops.v_cycles", vec![]).await.unwrap();
    assert_eq!(row.text(0).unwrap(), "2026-11-22T03:00:00.000Z");
    assert_eq!(row.i64(1).unwrap(), 1_000);
    assert!(second.check().await.unwrap().problems.is_empty());
}
