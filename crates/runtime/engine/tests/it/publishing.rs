//! Artifacts, and publications under a failing store.

use watchbell_core::Worker;
use watchbell_core::port::{Claim, ClaimRequest, Store, Target};
use watchbell_core::{Millis, Trigger};
use watchbell_engine::{Report, Unit, run_once};

use crate::fixture::{Act, World, every, session};
use crate::watched::At;

#[tokio::test]
async fn an_artifact_is_published_with_its_commit() {
    let w = World::new().await;
    let a = w.worker("a", every(60));
    a.always(Act::Artifact("model"));
    let boot = w.boot(&[&a]).await;
    w.run_to(60).await;
    let rows = w.store.artifacts(10).await.unwrap();
    assert_eq!(rows.len(), 2);
    let home = w.dir.path().join("artifacts");
    assert!(home.join(&rows[0].path).join("manifest.json").is_file());
    let newest = std::fs::canonicalize(home.join("model/latest")).unwrap();
    assert_eq!(newest, std::fs::canonicalize(home.join(&rows[0].path)).unwrap());
    assert_eq!(w.events("artifact.published").await, ["model", "model"]);
    w.down(boot).await;
}

#[tokio::test]
async fn the_files_of_a_refused_commit_are_withdrawn() {
    let w = World::new().await;
    let a = w.worker("a", every(3_600));
    a.script([Act::Held(Box::new(Act::Artifact("model")))]);
    let boot = w.boot(&[&a]).await;
    w.flight.fail("renew", 100, At::Before);
    w.jump_to(60).await;
    let request = ClaimRequest {
        worker: a.name().clone(),
        session: session("elsewhere", w.clock.now()).id,
        now: w.clock.now(),
        ttl: Millis::from_secs(30),
        target: Target::Manual,
        passed: Vec::new(),
    };
    assert!(matches!(w.store.claim(request).await.unwrap(), Claim::Granted(_)));
    a.release();
    w.settle().await;
    assert_eq!(w.cycles(&a).await[0], "tick@0 fenced");
    assert_eq!(w.store.artifacts(10).await.unwrap(), []);
    let left = std::fs::read_dir(w.dir.path().join("artifacts/model")).unwrap().count();
    assert_eq!(left, 0);
    w.down(boot).await;
}

#[tokio::test]
async fn a_boot_removes_files_that_no_row_names() {
    let w = World::new().await;
    let a = w.worker("a", every(60));
    a.script([Act::Artifact("model")]);
    let boot = w.boot(&[&a]).await;
    w.down(boot).await;
    let orphan = w.dir.path().join("artifacts/model/orphan");
    std::fs::create_dir(&orphan).unwrap();
    let boot = w.boot(&[&a]).await;
    assert_eq!(boot.node.reconciled.removed, [orphan]);
    assert!(boot.node.reconciled.missing.is_empty());
    w.down(boot).await;
}

#[tokio::test]
async fn a_publication_is_tried_again_while_the_store_fails() {
    let w = World::new().await;
    let a = w.worker("a", every(60));
    let boot = w.boot(&[&a]).await;
    w.flight.fail("publish", 3, At::Before);
    w.run_to(75).await;
    assert_eq!(w.notes().await, ["a tick@0", "a tick@60"]);
    assert_eq!(w.cycles(&a).await, ["tick@0 succeeded", "tick@60 succeeded"]);
    w.down(boot).await;
}

#[tokio::test]
async fn records_of_the_supervisor_outlast_a_failing_store() {
    let w = World::new().await;
    let a = w.worker("a", Trigger::Manual);
    w.flight.fail("transition", 4, At::Before);
    let boot = w.boot(&[&a]).await;
    w.run_to(60).await;
    assert_eq!(w.life(&a).await, "INITIALIZING RUNNING");
    w.down(boot).await;
}

#[tokio::test]
async fn run_once_takes_the_same_path_without_a_node() {
    let w = World::new().await;
    let a = w.worker("a", every(60));
    let unit = std::sync::Arc::new(Unit::new(a.define(), a.clone() as _));
    let store: std::sync::Arc<dyn Store> = std::sync::Arc::clone(&w.store) as _;
    let options = w.options.borrow().clone();
    let session = session("cli", w.clock.now());
    let signals = std::sync::Arc::default();
    let report = run_once(store, w.clock.clone(), session, &unit, None, signals, &options);
    let Report::Ran(ran) = report.await.unwrap() else { panic!("it runs") };
    assert_eq!(ran.error, None);
    assert_eq!(w.cycles(&a).await, ["manual succeeded"]);
    assert_eq!(w.notes().await, ["a manual"]);
    assert_eq!(w.last_session().await.0, "run once");
}

#[tokio::test]
async fn a_long_cycle_without_a_node_keeps_its_lease() {
    let w = World::new().await;
    let a = w.worker("a", every(3_600));
    a.script([Act::held()]);
    let unit = std::sync::Arc::new(Unit::new(a.define(), a.clone() as _));
    let store: std::sync::Arc<dyn Store> = std::sync::Arc::clone(&w.store) as _;
    let options = w.options.borrow().clone();
    let session = session("cli", w.clock.now());
    let clock = w.clock.clone();
    let running = tokio::spawn(async move {
        run_once(store, clock, session, &unit, None, std::sync::Arc::default(), &options).await
    });
    // Three times as long as a lease lasts.
    w.run_to(100).await;
    a.release();
    let Report::Ran(ran) = running.await.unwrap().unwrap() else { panic!("it runs") };
    assert_eq!(ran.error, None);
    assert_eq!(w.notes().await, ["a manual"]);
}
