use watchbell_core::lifecycle::State;
use watchbell_core::port::{NODE_LOST_AFTER, NodeBeat, NodeRecord, Target, Transition};
use watchbell_core::{Millis, Time, Token};

use crate::{NOW, Rig, at, done};

fn beat(session: &str, n: i64) -> NodeBeat {
    NodeBeat {
        session: session.into(),
        ttl: Millis::from_secs(30),
        skew: Some(Millis(-4)),
        // Something new each time: where there is one node, only what is new is written.
        round_trip: Some(Millis(n)),
        api: Some("http://127.0.0.1:8787".to_owned()),
        profile: "default".to_owned(),
    }
}

async fn nodes(rig: &Rig, now: Time) -> Vec<NodeRecord> {
    rig.store.nodes(now).await.expect("nodes")
}

pub(crate) async fn nodes_show_what_they_hold(rig: Rig) {
    let shared = rig.is_shared();
    rig.grant("watch", Target::Stream, NOW).await;
    rig.grant("bell", Target::Standing, NOW).await;
    let answer = rig.store.beat_node(beat("one", 3), at(5)).await.unwrap();
    assert_eq!((answer.store_now, answer.lost), (at(5), 0));
    let seen = nodes(&rig, at(6)).await;
    let ids: Vec<_> = seen.iter().map(|n| n.session.id.to_string()).collect();
    assert_eq!(ids, ["one", "two"]);
    assert_eq!(seen[0].seen_at, shared.then(|| at(5)));
    assert_eq!((seen[0].skew, seen[0].round_trip), (Some(Millis(-4)), Some(Millis(3))));
    assert_eq!(seen[0].api.as_deref(), Some("http://127.0.0.1:8787"));
    assert_eq!((seen[0].profile.as_str(), seen[0].overdue), ("default", false));
    assert_eq!(seen[0].holds, [("bell".into(), Token(1)), ("watch".into(), Token(1))]);
    assert_eq!((seen[1].holds.len(), seen[1].jobs, seen[1].round_trip), (0, 0, None));
    let late = nodes(&rig, at(36)).await;
    assert_eq!((late[0].overdue, late[0].holds.len()), (shared, 0), "the leases are over");
    rig.store.close_session(&"one".into(), "clean stop", at(40)).await.unwrap();
    assert_eq!(nodes(&rig, at(40)).await.len(), 1);
    let unknown = rig.store.beat_node(beat("three", 1), at(41)).await.unwrap_err();
    assert!(unknown.to_string().contains("no session `three`"), "{unknown}");
}

pub(crate) async fn a_silent_node_is_lost_and_may_come_back(rig: Rig) {
    rig.store.beat_node(beat("one", 1), NOW).await.unwrap();
    let lost = rig.grant("bell", Target::Manual, NOW).await;
    let silent = NOW + NODE_LOST_AFTER;
    assert_eq!(rig.store.beat_node(beat("two", 1), silent).await.unwrap().lost, 0);
    // A lease that is not over is not taken, whoever holds it.
    rig.grant("watch", Target::Stream, silent - Millis(1)).await;
    let answer = rig.store.beat_node(beat("two", 2), silent + Millis(1)).await.unwrap();
    assert_eq!(answer.lost, 1);
    let left = nodes(&rig, silent).await;
    assert_eq!((left.len(), left[0].session.id.to_string().as_str()), (1, "two"));
    let sessions = rig.store.sessions(9).await.unwrap();
    let gone = sessions.iter().find(|s| s.id == "one".into()).unwrap();
    assert_eq!(gone.note, "lost: not heard of since 2026-11-22T03:00:00.000Z");
    let workers = rig.store.workers().await.unwrap();
    assert_eq!(workers[0].lease_owner, None, "an expired lease is taken back");
    assert_eq!(workers[1].lease_owner, Some("one".into()));
    assert!(rig.store.publish(done("bell", &lost, silent)).await.is_err());
    let again = rig.store.beat_node(beat("one", 2), at(90)).await.unwrap();
    assert_eq!((again.store_now, again.lost), (at(90), 0));
    assert_eq!(nodes(&rig, at(90)).await.len(), 2);
    let sessions = rig.store.sessions(9).await.unwrap();
    let back = sessions.iter().find(|s| s.id == "one".into()).unwrap();
    assert_eq!(back.closed_at, None);
    assert!(back.note.starts_with("heard of again after lost:"), "{}", back.note);
}

pub(crate) async fn a_node_that_leaves_says_nothing_of_what_others_run(rig: Rig) {
    let change = |session: &str, from, to, secs| Transition {
        worker: "bell".into(),
        from,
        to,
        reason: "of a test".to_owned(),
        at: at(secs),
        session: session.into(),
    };
    let state = async || rig.store.workers().await.unwrap()[0].state;
    for (n, node) in [(1, "one"), (2, "two")] {
        rig.store.beat_node(beat(node, n), at(n)).await.unwrap();
        let begun = change(node, State::Initializing, State::Running, n);
        rig.store.transition(vec![begun]).await.unwrap();
    }
    let leaves = |node, secs| vec![change(node, State::Running, State::Stopped, secs)];
    rig.store.transition(leaves("one", 3)).await.unwrap();
    let expected = if rig.is_shared() { State::Running } else { State::Stopped };
    assert_eq!(state().await, expected, "the other node goes on");
    rig.store.close_session(&"one".into(), "clean stop", at(4)).await.unwrap();
    rig.store.transition(leaves("two", 5)).await.unwrap();
    assert_eq!(state().await, State::Stopped, "nobody is left");
    assert_eq!(rig.store.transitions(&"bell".into(), 9).await.unwrap().len(), 4);
}

pub(crate) async fn a_schema_is_in_use_while_any_node_is(rig: Rig) {
    let flags = async || {
        let sql = "select is_open, opened_by from ops.session_flags where schema_name = 'ops'";
        let row = rig.db.query_one(sql, vec![]).await.unwrap();
        (row.i64(0).unwrap(), row.text(1).unwrap().to_owned())
    };
    assert_eq!(flags().await, (1, "two".to_owned()));
    rig.store.close_session(&"two".into(), "clean stop", at(1)).await.unwrap();
    assert_eq!(flags().await, (1, "one".to_owned()));
    rig.store.close_session(&"one".into(), "clean stop", at(2)).await.unwrap();
    assert_eq!(flags().await.0, 0);
}
