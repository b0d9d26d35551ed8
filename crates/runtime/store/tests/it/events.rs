use watchbell_core::port::{
    Claim, EventQuery, FollowUp, Grant, Outcome, Registration, StoreError, Target,
};
use watchbell_core::{CycleInput, EventRecord, NewEvent, Statement};
use watchbell_testkit::registration;

use crate::{NOW, Rig, at, done, ended};

fn event(kind: &str, key: &str) -> NewEvent {
    let payload = serde_json::json!({"key": key});
    NewEvent { kind: kind.to_owned(), key: key.to_owned(), dedupe: None, payload }
}

async fn subscribe(rig: &Rig, kinds: &[&str]) {
    let subscribes = kinds.iter().map(|k| (*k).to_owned()).collect();
    let worker = Registration { subscribes, ..registration("bell") };
    rig.store.register(&[worker], NOW).await.expect("a subscription");
}

fn input(grant: &Grant) -> EventRecord {
    match &grant.input {
        CycleInput::Event(event) => event.clone(),
        other => panic!("{other:?} is not an event"),
    }
}

async fn cursor(rig: &Rig) -> i64 {
    rig.store.subscribers().await.expect("subscribers")[0].cursor
}

pub(crate) async fn events_keep_their_order_and_drop_duplicates(rig: Rig) {
    let once = NewEvent { dedupe: Some("d".to_owned()), ..event("a.x", "1") };
    let ids = rig
        .store
        .emit(vec![once.clone(), event("b", "2"), once.clone(), once], at(1))
        .await
        .unwrap();
    assert_eq!((ids[0], ids[0]), (ids[2], ids[3]));
    assert!(ids[0] < ids[1]);
    let find = async |after, kinds: &[&str], limit| {
        let kinds = kinds.iter().map(|k| (*k).to_owned()).collect();
        let found = rig.store.events(EventQuery { after, kinds, limit }).await.unwrap();
        found.into_iter().map(|e| e.key).collect::<Vec<_>>()
    };
    rig.store.emit(vec![event("a.y", "3")], at(2)).await.unwrap();
    assert_eq!(find(Some(0), &[], 9).await, ["1", "2", "3"]);
    assert_eq!(find(Some(ids[0]), &[], 1).await, ["2"]);
    assert_eq!(find(None, &[], 2).await, ["2", "3"]);
    assert_eq!(find(Some(0), &["a.*"], 9).await, ["1", "3"]);
    assert_eq!(find(Some(0), &["b", "a.y"], 9).await, ["2", "3"]);
}

pub(crate) async fn a_subscriber_gets_each_event_in_order(rig: Rig) {
    subscribe(&rig, &["a.*"]).await;
    let events = (0..5).map(|n| event(if n == 2 { "b" } else { "a.x" }, &n.to_string()));
    rig.store.emit(events.collect(), at(1)).await.unwrap();
    let mut seen = Vec::new();
    while let Claim::Granted(grant) = rig.ask("one", "bell", Target::Event, at(2)).await.unwrap() {
        let busy = rig.ask("two", "bell", Target::Event, at(2)).await.unwrap();
        assert!(matches!(busy, Claim::Held { .. }), "{busy:?}");
        seen.push(input(&grant).key);
        rig.store.publish(done("bell", &grant, at(2))).await.unwrap();
    }
    assert_eq!(seen, ["0", "1", "3", "4"]);
    let nothing = rig.ask("one", "bell", Target::Event, at(2)).await.unwrap();
    assert_eq!(nothing, Claim::Nothing { next: None });
}

pub(crate) async fn a_cursor_moves_with_the_commit(rig: Rig) {
    subscribe(&rig, &["a"]).await;
    let ids = rig.store.emit(vec![event("a", "1"), event("a", "2")], at(1)).await.unwrap();
    let first = rig.grant("bell", Target::Event, at(2)).await;
    assert_eq!(cursor(&rig).await, 0);
    let mut p = done("bell", &first, at(3));
    let bad = Statement::new("insert into market.rows (id) values (1)", vec![]);
    p.commit.push(bad);
    assert!(rig.store.publish(p).await.is_err());
    assert_eq!(cursor(&rig).await, 0);
    let retry = FollowUp::Retry { at: at(20) };
    rig.store.publish(ended("bell", &first, at(4), Outcome::Failed, retry)).await.unwrap();
    let early = rig.ask("one", "bell", Target::Event, at(5)).await.unwrap();
    assert_eq!(early, Claim::Nothing { next: Some(at(20)) });
    let second = rig.grant("bell", Target::Event, at(20)).await;
    assert_eq!((second.attempt, input(&second).id), (2, ids[0]));
    rig.store.publish(done("bell", &second, at(21))).await.unwrap();
    assert_eq!(cursor(&rig).await, ids[0]);
    let third = rig.grant("bell", Target::Event, at(21)).await;
    assert_eq!((third.attempt, input(&third).id), (1, ids[1]));
}

pub(crate) async fn a_dead_letter_is_given_back(rig: Rig) {
    subscribe(&rig, &["a"]).await;
    rig.store
        .register(
            &[Registration { subscribes: vec!["a".to_owned()], ..registration("watch") }],
            NOW,
        )
        .await
        .unwrap();
    rig.store.emit(vec![event("a", "1")], at(1)).await.unwrap();
    let grant = rig.grant("bell", Target::Event, at(2)).await;
    let end = FollowUp::GiveUp { reason: "cannot parse".to_owned() };
    rig.store.publish(ended("bell", &grant, at(3), Outcome::Failed, end)).await.unwrap();
    let letter = rig.store.dead_letters(9).await.unwrap().remove(0);
    assert_eq!((letter.reason.as_str(), letter.redriven_at), ("cannot parse", None));
    assert_eq!(letter.event, input(&grant));
    let nothing = rig.ask("one", "bell", Target::Event, at(4)).await.unwrap();
    assert_eq!(nothing, Claim::Nothing { next: None });
    rig.store.redrive(letter.id, at(5)).await.unwrap();
    let again = rig.grant("bell", Target::Event, at(6)).await;
    assert_eq!((again.attempt, input(&again).payload), (1, letter.event.payload));
    let watch = rig.grant("watch", Target::Event, at(6)).await;
    assert_eq!(input(&watch).id, letter.event.id);
    rig.store.publish(done("watch", &watch, at(7))).await.unwrap();
    let nothing = rig.ask("one", "watch", Target::Event, at(7)).await.unwrap();
    assert_eq!(nothing, Claim::Nothing { next: None }, "it is for the other alone");
    let twice = rig.store.redrive(letter.id, at(8)).await.unwrap_err();
    assert!(matches!(twice, StoreError::Conflict(_)), "{twice}");
    let missing = rig.store.redrive(99, at(8)).await.unwrap_err();
    assert!(matches!(missing, StoreError::NotFound { .. }), "{missing}");
}

pub(crate) async fn a_subscription_starts_at_the_newest_event(rig: Rig) {
    let ids = rig.store.emit(vec![event("a", "1")], at(1)).await.unwrap();
    subscribe(&rig, &["a"]).await;
    assert_eq!(cursor(&rig).await, ids[0]);
    rig.store.emit(vec![event("a", "2")], at(1)).await.unwrap();
    subscribe(&rig, &["a", "b"]).await;
    assert_eq!(cursor(&rig).await, ids[0], "a known subscriber keeps its place");
    assert_eq!(rig.store.subscribers().await.unwrap()[0].kinds, ["a", "b"]);
    subscribe(&rig, &[]).await;
    assert!(rig.store.subscribers().await.unwrap().is_empty());
}

pub(crate) async fn kinds_match_by_prefix(rig: Rig) {
    subscribe(&rig, &["wind*", "job.done"]).await;
    let kinds = ["window.completed", "win", "job.done.x", "job.done", "xwind", "wind"];
    rig.store.emit(kinds.iter().map(|k| event(k, k)).collect(), at(1)).await.unwrap();
    let mut seen = Vec::new();
    while let Claim::Granted(grant) = rig.ask("one", "bell", Target::Event, at(2)).await.unwrap() {
        seen.push(input(&grant).key);
        rig.store.publish(done("bell", &grant, at(2))).await.unwrap();
    }
    assert_eq!(seen, ["window.completed", "job.done", "wind"]);
}

pub(crate) async fn an_idle_subscriber_is_moved_on(rig: Rig) {
    subscribe(&rig, &["rare"]).await;
    let many = (0..300).map(|n| event("common", &n.to_string())).collect();
    let newest = *rig.store.emit(many, at(1)).await.unwrap().last().unwrap();
    let nothing = rig.ask("one", "bell", Target::Event, at(2)).await.unwrap();
    assert_eq!(nothing, Claim::Nothing { next: None });
    assert_eq!(cursor(&rig).await, newest);
    rig.store.emit(vec![event("rare", "1")], at(3)).await.unwrap();
    assert_eq!(input(&rig.grant("bell", Target::Event, at(4)).await).kind, "rare");
}
