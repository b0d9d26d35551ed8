//! Artifacts, and publications under a failing store.

use std::sync::Arc;

use tokio::task::JoinHandle;
use watchbell_core::Worker;
use watchbell_core::port::{Claim, ClaimRequest, Store, StoreError, Target};
use watchbell_core::{Definition, Millis, Trigger};
use watchbell_engine::{Report, Unit, run_once};

use crate::fixture::{Act, Scripted, World, every, session};
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
    let unit = Arc::new(Unit::new(a.define(), a.clone() as _));
    let store: Arc<dyn Store> = Arc::clone(&w.store) as _;
    let options = w.options.borrow().clone();
    let session = session("cli", w.clock.now());
    let signals = Arc::default();
    let report = run_once(store, w.clock.clone(), session, &unit, None, signals, &options);
    let Report::Ran(ran) = report.await.unwrap() else { panic!("it runs") };
    assert_eq!(ran.error, None);
    assert_eq!(w.cycles(&a).await, ["manual succeeded"]);
    assert_eq!(w.notes().await, ["a manual"]);
    assert_eq!(w.last_session().await.0, "run once");
}

/// Begins a cycle without a node, and returns once it runs.
async fn begun(w: &World, a: &Arc<Scripted>) -> JoinHandle<Result<Report, StoreError>> {
    let unit = Arc::new(Unit::new(a.define(), Arc::clone(a) as _));
    let store: Arc<dyn Store> = Arc::clone(&w.store) as _;
    let (options, clock) = (w.options.borrow().clone(), w.clock.clone());
    let session = session(a.name().as_str(), w.clock.now());
    let running = tokio::spawn(async move {
        run_once(store, clock, session, &unit, None, Arc::default(), &options).await
    });
    while w.cycles(a).await != ["manual running"] {
        tokio::task::yield_now().await;
    }
    running
}

#[tokio::test]
async fn a_long_cycle_without_a_node_keeps_its_lease() {
    let w = World::new().await;
    let a = w.worker("a", every(3_600));
    a.script([Act::held()]);
    let running = begun(&w, &a).await;
    // Three times as long as a lease lasts.
    w.run_to(100).await;
    a.release();
    let Report::Ran(ran) = running.await.unwrap().unwrap() else { panic!("it runs") };
    assert_eq!(ran.error, None);
    assert_eq!(w.notes().await, ["a manual"]);
}

#[tokio::test]
async fn a_cycle_without_a_node_that_loses_its_lease_is_asked_to_stop() {
    let w = World::new().await;
    let a = w.worker("a", every(3_600));
    a.script([Act::UntilCancelled]);
    let running = begun(&w, &a).await;
    // The machine sleeps, and the lease is over when it wakes up.
    w.jump_to(40).await;
    let Report::Ran(ran) = running.await.unwrap().unwrap() else { panic!("it runs") };
    assert!(ran.error.is_some());
    assert_eq!(w.cycles(&a).await, ["manual fenced"]);
}

#[tokio::test]
async fn a_cycle_without_a_node_has_its_time_limits() {
    let w = World::new().await;
    let (soft, hard) = (Millis::from_secs(120), Millis::from_secs(300));
    let limited = |name: &str| Definition::new(name, Trigger::Manual).timeouts(soft, hard);
    // One obeys.
    let obeys = w.define(limited("obeys"));
    obeys.script([Act::UntilCancelled]);
    let running = begun(&w, &obeys).await;
    w.run_for(125).await;
    let Report::Ran(ran) = running.await.unwrap().unwrap() else { panic!("it runs") };
    assert_eq!(ran.error.as_deref(), Some("stopped on request"));
    // One does not hear: what it brings before its hard timeout counts, and later nothing does.
    for (name, secs, cycles) in [("late", 290, "manual succeeded"), ("deaf", 345, "manual fenced")]
    {
        let a = w.define(limited(name));
        a.script([Act::held()]);
        let running = begun(&w, &a).await;
        w.run_for(secs).await;
        a.release();
        let Report::Ran(_) = running.await.unwrap().unwrap() else { panic!("it runs") };
        assert_eq!(w.cycles(&a).await, [cycles], "{name}");
    }
    assert_eq!(w.notes().await, ["late manual"]);
}
