use std::sync::Arc;

use watchbell_core::port::{Store, Target};
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

pub(crate) async fn views_are_readable(rig: Rig) {
    let grant = rig.grant("bell", Target::Tick { due: NOW }, NOW).await;
    rig.store.publish(done("bell", &grant, at(1))).await.unwrap();
    let second = rig.temp.second();
    read_all_views(&second).await;
    let row = second.query_one("select started, took_ms from ops.v_cycles", vec![]).await.unwrap();
    assert_eq!(row.text(0).unwrap(), "2026-11-22T03:00:00.000Z");
    assert_eq!(row.i64(1).unwrap(), 1_000);
    assert!(second.check().await.unwrap().problems.is_empty());
}
