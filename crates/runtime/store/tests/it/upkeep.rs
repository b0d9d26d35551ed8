use serde_json::json;
use watchbell_core::commit::Condition;
use watchbell_core::gate::Gate;
use watchbell_core::lifecycle::{Desired, State};
use watchbell_core::port::{
    ArtifactRecord, Beat, EventQuery, FollowUp, Outcome, Recovered, Registration, Retention,
    Target, Transition,
};
use watchbell_core::schedule::{Fate, Passed};
use watchbell_core::{Commit, Millis, NewEvent, NewJob, WorkerName, job, window};
use watchbell_testkit::registration;

use crate::{NOW, Rig, at, done, ended, step};

pub(crate) async fn sessions_and_flags_follow_the_boots(rig: Rig) {
    let open = async || {
        let sql = "select count(*) from ops.session_flags where is_open = 1";
        rig.db.query_one(sql, vec![]).await.unwrap().i64(0).unwrap()
    };
    assert!(open().await > 0);
    rig.grant("bell", Target::Stream, NOW).await;
    rig.store.close_session(&"one".into(), "clean stop", at(5)).await.unwrap();
    rig.store.close_session(&"two".into(), "clean stop", at(6)).await.unwrap();
    assert_eq!(open().await, 0);
    let sessions = rig.store.sessions(9).await.unwrap();
    assert_eq!(sessions[0].note, "clean stop");
    assert_eq!((sessions[0].closed_at, sessions[1].closed_at), (Some(at(6)), Some(at(5))));
    assert_eq!(rig.store.workers().await.unwrap()[0].lease_owner, None);
    assert_eq!(rig.store.cycles(None, 1).await.unwrap()[0].outcome, Outcome::Lost);
    let unknown = rig.store.close_session(&"three".into(), "", at(7)).await.unwrap_err();
    assert!(unknown.to_string().contains("no session `three`"), "{unknown}");
}

pub(crate) async fn recovery_takes_back_what_the_dead_held(rig: Rig) {
    let window = Target::Window {
        series: "window-sampler-30m".into(),
        start: NOW,
        end: at(1800),
        version: 1,
        scope: vec![],
    };
    rig.grant("bell", window, NOW).await;
    rig.store.enqueue(vec![NewJob::new("count", json!(1))], NOW).await.unwrap();
    assert_eq!(rig.jobs(&["count"], 1, NOW).await.len(), 1);
    let shared = rig.store.recover(&"two".into(), false, at(29)).await.unwrap();
    assert_eq!(shared, Recovered::default(), "the leases hold until 30 s");
    let alone = rig.store.recover(&"two".into(), true, at(29)).await.unwrap();
    assert_eq!(alone, Recovered { sessions: 1, cycles: 1, windows: 1, jobs: 1 });
    let windows = rig.store.window(&"window-sampler-30m".into(), NOW).await.unwrap();
    assert_eq!(windows[0].state, window::State::Ready);
    let stored = rig.store.job(1).await.unwrap().unwrap();
    assert_eq!((stored.state, stored.reclaims, stored.attempts), (job::State::Queued, 1, 0));
    assert_eq!(rig.store.workers().await.unwrap()[0].lease_owner, None);
    let again = rig.store.recover(&"two".into(), true, at(30)).await.unwrap();
    assert_eq!(again, Recovered::default());
}

pub(crate) async fn registration_keeps_history(rig: Rig) {
    let grant = rig.grant("bell", Target::Manual, NOW).await;
    rig.store.publish(done("bell", &grant, at(1))).await.unwrap();
    rig.store.set_desired(&"bell".into(), Desired::Paused, "ann", at(2)).await.unwrap();
    rig.store.save_restarts(&"bell".into(), json!({"failures": [1]})).await.unwrap();
    let new = Registration {
        description: "better".to_owned(),
        stale_after: Some(Millis(9)),
        ..registration("bell")
    };
    let gone = Registration { unavailable: Some("no GPU".to_owned()), ..registration("watch") };
    let stored = rig.store.register(&[gone, new], at(3)).await.unwrap();
    assert_eq!(stored[1].name, WorkerName::from("bell"));
    assert_eq!((stored[1].description.as_str(), stored[1].total_runs), ("better", 1));
    assert_eq!((stored[1].desired, stored[1].desired_at), (Desired::Paused, Some(at(2))));
    assert_eq!(
        (stored[1].desired_by.as_deref(), stored[1].stale_after),
        (Some("ann"), Some(Millis(9)))
    );
    assert_eq!(stored[1].restarts, json!({"failures": [1]}));
    assert_eq!(stored[0].state, State::Unavailable);
    assert_eq!(stored[0].state_reason.as_deref(), Some("no GPU"));
    let back = rig.store.register(&[registration("watch")], at(4)).await.unwrap();
    assert_eq!((back[0].state, back[0].state_reason.clone()), (State::Stopped, None));
}

pub(crate) async fn what_another_node_runs_is_available(rig: Rig) {
    rig.grant("bell", Target::Stream, NOW).await;
    let running = Transition {
        worker: "bell".into(),
        from: State::Stopped,
        to: State::Running,
        reason: "started".to_owned(),
        at: NOW,
        session: "one".into(),
    };
    rig.store.transition(vec![running]).await.unwrap();
    let lacks = Registration { unavailable: Some("no GPU".to_owned()), ..registration("bell") };
    let stored = rig.store.register(std::slice::from_ref(&lacks), at(1)).await.unwrap();
    assert_eq!(stored[0].state, State::Running, "boot `one` has what this node lacks");
    let stored = rig.store.register(&[lacks], at(60)).await.unwrap();
    assert_eq!(stored[0].state, State::Unavailable, "and now nobody runs it");
}

pub(crate) async fn the_first_registration_is_remembered(rig: Rig) {
    let first = rig.store.register(&[registration("late")], at(5)).await.unwrap();
    assert_eq!(first[0].registered_at, Some(at(5)));
    let workers = [registration("late"), registration("bell")];
    let again = rig.store.register(&workers, at(60)).await.unwrap();
    assert_eq!(again.iter().map(|w| w.registered_at).collect::<Vec<_>>(), [Some(at(5)), Some(NOW)]);
}

pub(crate) async fn states_desires_and_gates(rig: Rig) {
    let bell = WorkerName::from("bell");
    let change = |from, to, n| Transition {
        worker: "bell".into(),
        from,
        to,
        reason: format!("reason {n}"),
        at: at(n),
        session: "one".into(),
    };
    let both = vec![
        change(State::Stopped, State::Initializing, 1),
        change(State::Initializing, State::Running, 2),
    ];
    rig.store.transition(both.clone()).await.unwrap();
    let stored = rig.store.workers().await.unwrap().remove(0);
    assert_eq!((stored.state, stored.state_since), (State::Running, Some(at(2))));
    assert_eq!(stored.state_reason.as_deref(), Some("reason 2"));
    // Told again, since the answer was lost: written once.
    rig.store.transition(both.clone()).await.unwrap();
    rig.store.transition(both[..1].to_vec()).await.unwrap();
    assert_eq!(rig.store.workers().await.unwrap()[0].state, State::Running);
    assert_eq!(rig.store.transitions(&bell, 9).await.unwrap().len(), 2);
    let newest = rig.store.transitions(&bell, 1).await.unwrap();
    assert_eq!(newest, both[1..]);
    let query = EventQuery { after: Some(0), kinds: vec!["worker.state".to_owned()], limit: 9 };
    let events = rig.store.events(query).await.unwrap();
    assert_eq!((events.len(), events[1].payload["to"].as_str()), (2, Some("RUNNING")));

    let gate = |n| Some(Gate::NotDue { until: at(n) });
    let blocked = async || {
        let worker = rig.store.workers().await.unwrap().remove(0);
        (worker.blocked, worker.blocked_since)
    };
    rig.store.set_blocked(&bell, gate(50), at(3)).await.unwrap();
    rig.store.set_blocked(&bell, gate(60), at(4)).await.unwrap();
    assert_eq!(blocked().await, (gate(60), Some(at(3))));
    rig.store.set_blocked(&bell, Some(Gate::OnCommand), at(5)).await.unwrap();
    assert_eq!(blocked().await, (Some(Gate::OnCommand), Some(at(5))));
    rig.store.set_blocked(&bell, None, at(6)).await.unwrap();
    assert_eq!(blocked().await, (None, None));
    let unknown = rig.store.set_blocked(&"nobody".into(), None, at(6)).await.unwrap_err();
    assert!(unknown.to_string().contains("no worker `nobody`"), "{unknown}");
}

pub(crate) async fn beats_add_up(rig: Rig) {
    let beat = |worker: &str, runs, n| Beat {
        worker: worker.into(),
        runs,
        errors: 0,
        failing: 0,
        last_success_at: Some(at(n + 1)),
        last_error: None,
        last_started_at: at(n),
        last_completed_at: at(n + 1),
        latency: Millis(7),
        summary: json!({"n": n}),
        next_due: Some(at(n + 5)),
    };
    rig.store.beat(vec![beat("bell", 3, 1), beat("watch", 1, 1)]).await.unwrap();
    rig.store.beat(vec![beat("bell", 4, 5)]).await.unwrap();
    rig.store.beat(vec![]).await.unwrap();
    let workers = rig.store.workers().await.unwrap();
    assert_eq!((workers[0].total_runs, workers[1].total_runs), (7, 1));
    assert_eq!(workers[0].last_success_at, Some(at(6)));
    assert_eq!((workers[0].next_due, workers[0].latency), (Some(at(10)), Some(Millis(7))));
}

pub(crate) async fn settings_are_kept(rig: Rig) {
    assert_eq!(rig.store.setting("a").await.unwrap(), None);
    rig.store.set_setting("a", json!([1, "x"]), NOW).await.unwrap();
    rig.store.set_setting("a", json!(null), at(1)).await.unwrap();
    assert_eq!(rig.store.setting("a").await.unwrap(), Some(json!(null)));
}

pub(crate) async fn conditions_know_since_when(rig: Rig) {
    let grant = rig.grant("bell", Target::Manual, NOW).await;
    let set = async |met, detail: &str, n| {
        let name = "venue:binance".to_owned();
        let condition = Condition { name, met, detail: detail.to_owned(), until: Some(at(90)) };
        let commit = Commit { conditions: vec![condition.clone()], ..Commit::new() };
        rig.store.publish(step("bell", &grant, at(n), commit)).await.unwrap();
        assert_eq!(rig.store.conditions().await.unwrap()[0].0, condition);
        rig.store.conditions().await.unwrap()[0].1
    };
    assert_eq!(set(false, "banned", 1).await, at(1));
    assert_eq!(set(false, "still banned", 2).await, at(1));
    assert_eq!(set(true, "ok", 3).await, at(3));
}

pub(crate) async fn pruning_spares_what_is_needed(rig: Rig) {
    let subscriber = Registration { subscribes: vec!["a".to_owned()], ..registration("watch") };
    rig.store.register(&[subscriber], NOW).await.unwrap();
    for n in 0..4 {
        let grant = rig.grant("bell", Target::Tick { due: at(n) }, at(n)).await;
        rig.store.publish(done("bell", &grant, at(n))).await.unwrap();
    }
    let passed = [Passed { first: at(4), last: at(8), count: 5, fate: Fate::Skipped }];
    rig.store.record_passed(&"bell".into(), &passed, at(8)).await.unwrap();
    let running = rig.grant("bell", Target::Manual, at(9)).await;
    let event = |key: &str| NewEvent {
        kind: "a".to_owned(),
        key: key.to_owned(),
        dedupe: None,
        payload: json!(null),
    };
    rig.store.emit(vec![event("1"), event("2")], at(1)).await.unwrap();
    let first = rig.grant("watch", Target::Event, at(2)).await;
    rig.store.publish(done("watch", &first, at(2))).await.unwrap();
    rig.store
        .enqueue(vec![NewJob::new("x", json!(1)), NewJob::new("y", json!(1))], NOW)
        .await
        .unwrap();
    let job = rig.jobs(&["x"], 1, at(3)).await.remove(0);
    let end = FollowUp::GiveUp { reason: "over".to_owned() };
    rig.store.publish(ended("watch", &job, at(4), Outcome::Failed, end)).await.unwrap();
    let keep = Retention {
        cycles: Millis::from_secs(10),
        occurrences: Millis::from_secs(10),
        events: Millis::from_secs(10),
        jobs: Millis::from_secs(10),
    };
    let nothing = rig.store.prune(keep, 100, at(9)).await.unwrap();
    assert_eq!(nothing, watchbell_core::port::Pruned::default());
    let bounded = rig.store.prune(keep, 2, at(1000)).await.unwrap();
    assert_eq!((bounded.cycles, bounded.occurrences), (2, 2));
    let rest = rig.store.prune(keep, 100, at(1000)).await.unwrap();
    assert_eq!((rest.cycles, rest.occurrences), (3, 2));
    assert_eq!((bounded.events + rest.events, bounded.jobs + rest.jobs), (1, 1));
    let left = rig.store.cycles(None, 9).await.unwrap();
    assert_eq!(left.iter().map(|c| c.id).collect::<Vec<_>>(), [running.cycle]);
    let ledger = rig.store.occurrences(&"bell".into(), 9).await.unwrap();
    assert_eq!((ledger.len(), ledger[0].due), (1, at(4)));
    rig.grant("watch", Target::Event, at(1001)).await;
}

pub(crate) async fn artifacts_go_when_their_time_is_over_but_the_newest_of_a_name(rig: Rig) {
    for (name, id, until) in
        [("a", 1, Some(at(8))), ("a", 2, Some(at(20))), ("a", 3, Some(at(8))), ("b", 4, None)]
    {
        let grant = rig.grant("bell", Target::Manual, at(id)).await;
        let mut p = done("bell", &grant, at(id));
        p.end.as_mut().unwrap().artifacts = vec![ArtifactRecord {
            name: name.to_owned(),
            path: format!("{name}/{id}"),
            manifest_sha256: String::new(),
            bytes: 0,
            files: 0,
            published_at: at(id),
            expires_at: until,
        }];
        rig.store.publish(p).await.unwrap();
    }
    let long = Millis::from_days(99);
    let keep = Retention { cycles: long, occurrences: long, events: long, jobs: long };
    let pruned = async |now| rig.store.prune(keep, 9, now).await.unwrap().artifacts;
    assert_eq!(pruned(at(7)).await, [""; 0]);
    assert_eq!(pruned(at(8)).await, ["a/1"]);
    assert_eq!(pruned(at(30)).await, ["a/2"]);
    let left = rig.store.artifacts(9).await.unwrap();
    assert_eq!(left.iter().map(|a| a.path.as_str()).collect::<Vec<_>>(), ["b/4", "a/3"]);
}
