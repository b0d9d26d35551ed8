use std::collections::BTreeMap;

use watchbell_core::gate::Gate;
use watchbell_core::port::{
    Claim, EventQuery, FollowUp, Grant, Outcome, Publication, StoreError, Target, WindowChange,
    WindowQuery, WindowRecord,
};
use watchbell_core::window::{Change, InputFacts, InputWindow, State, readiness};
use watchbell_core::{
    Commit, Cover, CycleInput, Millis, SeriesName, Statement, Time, WindowHashes, WindowInput,
    WindowSpec,
};

use crate::{NOW, Rig, at, done, ended, step};

const LENGTH: Millis = Millis::from_mins(30);

fn series() -> SeriesName {
    SeriesName::from("window-sampler-30m")
}

pub(crate) fn target(n: i64, version: i64) -> Target {
    let start = NOW + LENGTH * n;
    let scope = vec!["BTCUSDT".to_owned(), format!("KEY{n}")];
    Target::Window { series: series(), start, end: start + LENGTH, version, scope }
}

pub(crate) fn completed(grant: &Grant, now: Time) -> Publication {
    let mut p = done("bell", grant, now);
    p.end.as_mut().expect("an end").window = Some(WindowHashes {
        inputs: "in".to_owned(),
        result: "out".to_owned(),
        source: "klines".to_owned(),
    });
    p
}

async fn complete(rig: &Rig, n: i64, version: i64, now: Time) {
    let grant = rig.grant("bell", target(n, version), now).await;
    rig.store.publish(completed(&grant, now)).await.expect("the window completes");
}

pub(crate) async fn a_complete_window_is_immutable(rig: Rig) {
    let grant = rig.grant("bell", target(0, 1), NOW).await;
    let without = rig.store.publish(done("bell", &grant, at(1))).await.unwrap_err();
    assert!(without.to_string().contains("without its hashes"), "{without}");
    rig.store.publish(completed(&grant, at(1))).await.unwrap();
    let window = rig.store.window(&series(), NOW).await.unwrap().remove(0);
    assert_eq!((window.state, window.finished_at), (State::Complete, Some(at(1))));
    assert_eq!(window.hashes.unwrap().source, "klines");
    assert_eq!(rig.ask("one", "bell", target(0, 1), at(2)).await.unwrap(), Claim::Taken);
    let replace = if rig.is_shared() {
        "truncate ops.windows"
    } else {
        "insert or replace into ops.windows select * from ops.windows"
    };
    for sql in [
        "update ops.windows set result_hash = 'other'",
        "update ops.windows set state = 'open'",
        "delete from ops.windows",
        "insert into ops.windows select * from ops.windows where true
            on conflict (series, start_at, version) do update set state = 'open'",
        replace,
    ] {
        let refused = rig.db.apply(vec![Statement::new(sql, vec![])]).await.unwrap_err();
        assert!(refused.to_string().contains("a complete window"), "{sql}: {refused}");
    }
    assert_eq!(rig.store.window(&series(), NOW).await.unwrap()[0].state, State::Complete);
}

pub(crate) async fn retries_back_off_and_end(rig: Rig) {
    let state = async || rig.store.window(&series(), NOW).await.unwrap().remove(0);
    let first = rig.grant("bell", target(0, 1), NOW).await;
    assert_eq!(first.attempt, 1);
    let CycleInput::Scope(scope) = &first.input else { panic!("{:?}", first.input) };
    assert_eq!(scope, &["BTCUSDT", "KEY0"]);
    let retry = FollowUp::Retry { at: at(10) };
    rig.store.publish(ended("bell", &first, at(1), Outcome::Failed, retry)).await.unwrap();
    let window = state().await;
    assert_eq!((window.state, window.next_attempt_at), (State::Failed, Some(at(10))));
    assert_eq!(window.reason.as_deref(), Some("the test failed it"));
    let other_scope = match target(0, 1) {
        Target::Window { series, start, end, version, .. } => {
            Target::Window { series, start, end, version, scope: vec![] }
        }
        other => other,
    };
    let second = rig.grant("bell", other_scope, at(10)).await;
    assert_eq!((second.attempt, second.input.clone()), (2, first.input.clone()));
    let again = FollowUp::Again { at: at(20) };
    rig.store.publish(ended("bell", &second, at(11), Outcome::Snoozed, again)).await.unwrap();
    assert_eq!((state().await.state, state().await.attempts), (State::Ready, 1));
    let third = rig.grant("bell", target(0, 1), at(20)).await;
    assert_eq!(third.attempt, 2);
    let end = FollowUp::GiveUp { reason: "enough".to_owned() };
    rig.store.publish(ended("bell", &third, at(21), Outcome::Failed, end)).await.unwrap();
    let window = state().await;
    assert_eq!((window.state, window.reason.as_deref()), (State::Abandoned, Some("enough")));
    assert_eq!(rig.ask("one", "bell", target(0, 1), at(22)).await.unwrap(), Claim::Taken);
}

pub(crate) async fn corrections_are_new_versions(rig: Rig) {
    let missing = rig.store.correct_window(&series(), NOW, "x", at(1)).await.unwrap_err();
    assert!(matches!(missing, StoreError::NotFound { what: "window", .. }), "{missing}");
    complete(&rig, 0, 1, at(1)).await;
    let opened = rig.store.correct_window(&series(), NOW, "late trades", at(2)).await.unwrap();
    assert_eq!((opened.version, opened.state), (2, State::Open));
    assert_eq!(opened.reason.as_deref(), Some("late trades"));
    let early = rig.store.correct_window(&series(), NOW, "x", at(3)).await.unwrap_err();
    assert!(early.to_string().contains("is open: only a complete"), "{early}");
    let frontier = rig.store.frontier(&series(), NOW, at(1)).await.unwrap();
    assert_eq!(frontier.unfinished.map(|w| w.version), Some(2));
    complete(&rig, 0, 2, at(4)).await;
    let versions = rig.store.window(&series(), NOW).await.unwrap();
    assert_eq!(versions.iter().map(|w| w.version).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(versions[1].reason.as_deref(), Some("late trades"));
    let mut query = WindowQuery { limit: 9, ..WindowQuery::default() };
    assert_eq!(rig.store.windows(query.clone()).await.unwrap(), versions[1..]);
    query.all_versions = true;
    assert_eq!(rig.store.windows(query).await.unwrap().len(), 2);
}

pub(crate) async fn a_person_retries_and_abandons(rig: Rig) {
    let start = |n: i64| NOW + LENGTH * n;
    let order = |n: i64, seen: Option<&WindowRecord>, change| WindowChange {
        series: series(),
        start: start(n),
        end: start(n + 1),
        seen: seen.cloned(),
        change,
        by: "ada".to_owned(),
        reason: Some("the venue has a hole".to_owned()),
    };
    let newest = async |n: i64| rig.store.window(&series(), start(n)).await.unwrap().pop().unwrap();
    let change = async |order: WindowChange, s| rig.store.change_window(order, at(s)).await;
    let refused = async |order: WindowChange| {
        let before = rig.store.window(&series(), order.start).await.unwrap();
        let error = rig.store.change_window(order.clone(), at(500)).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_)), "{error}");
        assert!(error.to_string().contains("changed meanwhile"), "{error}");
        assert_eq!(rig.store.window(&series(), order.start).await.unwrap(), before);
    };
    let events = async || {
        let query = EventQuery { after: Some(0), kinds: vec!["window.*".to_owned()], limit: 99 };
        let all = rig.store.events(query).await.unwrap();
        all.into_iter().map(|e| (e.kind, e.key, e.payload)).collect::<Vec<_>>()
    };

    // A failed one is tried again at once; the attempt made counts.
    let first = rig.grant("bell", target(0, 1), at(0)).await;
    let running = newest(0).await;
    for what in [Change::Hasten, Change::Renew, Change::GiveUp] {
        refused(order(0, Some(&running), what)).await;
    }
    let retry = FollowUp::Retry { at: at(300) };
    rig.store.publish(ended("bell", &first, at(1), Outcome::Failed, retry)).await.unwrap();
    let failed = newest(0).await;
    refused(order(0, Some(&running), Change::GiveUp)).await;
    refused(order(0, Some(&failed), Change::Renew)).await;
    let hastened = change(order(0, Some(&failed), Change::Hasten), 2).await.unwrap();
    assert_eq!((hastened.state, hastened.attempts), (State::Ready, 1));
    assert_eq!((hastened.next_attempt_at, hastened.scope), (None, failed.scope.clone()));
    // What was seen is no more.
    refused(order(0, Some(&failed), Change::GiveUp)).await;
    let second = rig.grant("bell", target(0, 1), at(3)).await;
    assert_eq!(second.attempt, 2);
    let ready = WindowRecord { state: State::Ready, ..newest(0).await };
    refused(order(0, Some(&ready), Change::GiveUp)).await;
    let retry = FollowUp::Retry { at: at(300) };
    rig.store.publish(ended("bell", &second, at(4), Outcome::Failed, retry)).await.unwrap();

    // Given up, the series goes on without it.
    let failed = newest(0).await;
    let given_up = change(order(0, Some(&failed), Change::GiveUp), 5).await.unwrap();
    assert_eq!((given_up.state, given_up.finished_at), (State::Abandoned, Some(at(5))));
    let why = "abandoned by ada: the venue has a hole";
    assert_eq!(given_up.reason.as_deref(), Some(why));
    assert_eq!(rig.ask("one", "bell", target(0, 1), at(6)).await.unwrap(), Claim::Taken);
    refused(order(0, Some(&given_up), Change::GiveUp)).await;
    refused(order(0, Some(&given_up), Change::Hasten)).await;
    // So does one that nothing was known of, once.
    refused(order(1, Some(&failed), Change::GiveUp)).await;
    let unknown = change(order(1, None, Change::GiveUp), 7).await.unwrap();
    assert_eq!((unknown.state, unknown.attempts, unknown.version), (State::Abandoned, 0, 1));
    assert_eq!((unknown.end, unknown.scope.len()), (start(2), 0));
    refused(order(1, None, Change::GiveUp)).await;
    let frontier = rig.store.frontier(&series(), NOW, start(9)).await.unwrap();
    assert_eq!((frontier.unfinished, frontier.last), (None, Some(start(1))));

    // Tried again, it is a new version with attempts of its own, and the old one stays.
    let renewed = change(order(0, Some(&given_up), Change::Renew), 8).await.unwrap();
    assert_eq!((renewed.state, renewed.version, renewed.attempts), (State::Open, 2, 0));
    assert_eq!(renewed.reason.as_deref(), Some("retried by ada: the venue has a hole"));
    refused(order(0, Some(&given_up), Change::Renew)).await;
    assert_eq!(rig.store.window(&series(), NOW).await.unwrap()[0], given_up);
    complete(&rig, 0, 2, at(9)).await;

    // A complete one is never touched.
    let done = newest(0).await;
    for what in [Change::Hasten, Change::Renew, Change::GiveUp] {
        refused(order(0, Some(&done), what)).await;
        let pretended = WindowRecord { state: State::Failed, ..done.clone() };
        refused(order(0, Some(&pretended), what)).await;
    }
    let told = events().await;
    let kinds: Vec<&str> = told.iter().map(|(kind, _, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["window.retried", "window.abandoned", "window.abandoned", "window.retried"]);
    assert_eq!(told[1].1, format!("{}/{}", series(), NOW));
    assert_eq!(
        (told[1].2["by"].as_str(), told[1].2["was"].as_str(), told[1].2["reason"].as_str()),
        (Some("ada"), Some("failed"), Some(why))
    );
}

pub(crate) async fn a_window_is_ready_when_its_covers_are(rig: Rig) {
    let spec = WindowSpec {
        series: series(),
        length: LENGTH,
        settle: Millis::ZERO,
        inputs: vec![WindowInput::Cover { source: "klines:1m".to_owned(), lookback: LENGTH }],
        max_attempts: 3,
    };
    let scope = ["BTCUSDT".to_owned()];
    let ready = async || {
        let covers = rig.store.covers("klines:1m").await.unwrap();
        let covers = BTreeMap::from([("klines:1m".to_owned(), covers)]);
        let windows = BTreeMap::new();
        let facts = InputFacts {
            scope: &scope,
            covers: &covers,
            windows: &windows,
            earlier: None,
            previous: None,
        };
        readiness(&spec, NOW, &facts, NOW + LENGTH)
    };
    assert!(matches!(&ready().await.unwrap_err()[..], [Gate::CoverMissing { .. }]));
    let grant = rig.grant("watch", Target::Manual, NOW).await;
    let cover = |from: Time, to: Time| Cover {
        source: "klines:1m".to_owned(),
        key: "BTCUSDT".to_owned(),
        from,
        to,
    };
    for (from, to) in [(NOW - LENGTH, NOW), (NOW + Millis(1), NOW + LENGTH)] {
        let commit = Commit { covers: vec![cover(from, to)], ..Commit::new() };
        rig.store.publish(step("watch", &grant, at(1), commit)).await.unwrap();
        assert!(ready().await.is_err());
    }
    let commit = Commit { covers: vec![cover(NOW, NOW + Millis(1))], ..Commit::new() };
    rig.store.publish(step("watch", &grant, at(1), commit)).await.unwrap();
    ready().await.unwrap();
}

pub(crate) async fn covers_join(rig: Rig) {
    let grant = rig.grant("bell", Target::Manual, NOW).await;
    for (add, expected) in [
        (vec![(10, 20), (40, 50)], vec![(10, 20), (40, 50)]),
        (vec![(20, 30)], vec![(10, 30), (40, 50)]),
        (vec![(12, 15), (7, 7)], vec![(10, 30), (40, 50)]),
        (vec![(60, 70), (80, 90), (50, 60), (69, 80)], vec![(10, 30), (40, 90)]),
        (vec![(5, 45)], vec![(5, 90)]),
        (vec![(0, 3), (3, 5)], vec![(0, 90)]),
    ] {
        let cover = |(from, to)| Cover {
            source: "klines:1m".to_owned(),
            key: "BTCUSDT".to_owned(),
            from: Time(from),
            to: Time(to),
        };
        let other = Cover { key: "ETHUSDT".to_owned(), ..cover((0, 100)) };
        let covers = add.iter().copied().map(cover).chain([other.clone()]).collect();
        let commit = Commit { covers, ..Commit::new() };
        rig.store.publish(step("bell", &grant, at(1), commit)).await.unwrap();
        let stored = rig.store.covers("klines:1m").await.unwrap();
        let seen: Vec<_> = stored["BTCUSDT"].iter().map(|c| (c.from.0, c.to.0)).collect();
        assert_eq!(seen, expected, "after {add:?}");
        assert_eq!(stored["ETHUSDT"], [other]);
    }
    assert!(rig.store.covers("trades").await.unwrap().is_empty());
}

pub(crate) async fn the_frontier_is_the_lowest_unfinished(rig: Rig) {
    let all = |n: i64| NOW + LENGTH * n;
    let frontier = async || rig.store.frontier(&series(), all(0), all(9)).await.unwrap();
    assert_eq!(frontier().await, watchbell_core::port::Frontier::default());
    complete(&rig, 0, 1, at(1)).await;
    complete(&rig, 3, 1, at(2)).await;
    assert_eq!((frontier().await.unfinished, frontier().await.last), (None, Some(all(3))));
    let grant = rig.grant("bell", target(2, 1), at(3)).await;
    let retry = FollowUp::Retry { at: at(9) };
    rig.store.publish(ended("bell", &grant, at(3), Outcome::Failed, retry)).await.unwrap();
    assert_eq!(frontier().await.unfinished.map(|w| w.start), Some(all(2)));
    let beyond = rig.store.frontier(&series(), all(3), all(9)).await.unwrap();
    assert_eq!((beyond.unfinished, beyond.last), (None, Some(all(3))));
}

pub(crate) async fn a_lost_window_is_claimed_again(rig: Rig) {
    let lost = rig.grant("bell", target(0, 1), NOW).await;
    assert_eq!(rig.ask("two", "watch", target(0, 1), at(1)).await.unwrap(), Claim::Taken);
    let Claim::Granted(next) = rig.ask("two", "bell", target(0, 1), at(31)).await.unwrap() else {
        panic!("the lease has expired")
    };
    assert_eq!(next.attempt, 2);
    let refused = rig.store.publish(completed(&lost, at(32))).await.unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { .. }), "{refused}");
    let window = rig.store.window(&series(), NOW).await.unwrap().remove(0);
    assert_eq!((window.state, window.cycle), (State::Running, Some(next.cycle)));
    let mut p = completed(&next, at(33));
    p.session = "two".into();
    rig.store.publish(p).await.unwrap();
    assert_eq!(rig.store.window(&series(), NOW).await.unwrap()[0].state, State::Complete);
    // A holder that comes too late, while nobody else came, leaves its window to be claimed too.
    let late = rig.grant("bell", target(1, 1), at(40)).await;
    assert!(rig.store.publish(completed(&late, at(70))).await.is_err());
    assert_eq!(rig.grant("bell", target(1, 1), at(71)).await.attempt, 2);
}

pub(crate) async fn series_are_counted(rig: Rig) {
    for n in 0..3 {
        complete(&rig, n, 1, at(1)).await;
    }
    rig.store.correct_window(&series(), NOW, "again", at(2)).await.unwrap();
    rig.grant("bell", target(3, 1), at(3)).await;
    let summary = rig.store.series().await.unwrap().remove(&series()).unwrap();
    let counts = [(State::Open, 1), (State::Running, 1), (State::Complete, 2)];
    assert_eq!(summary.counts, BTreeMap::from(counts));
    assert_eq!(summary.first, Some(NOW));
    assert_eq!(summary.newest_complete, Some(NOW + LENGTH * 2));
    let query = WindowQuery {
        state: Some(State::Complete),
        from: Some(NOW),
        to: Some(NOW + LENGTH * 2),
        series: Some(series()),
        limit: 5,
        ..WindowQuery::default()
    };
    let found = rig.store.windows(query).await.unwrap();
    assert_eq!(found.iter().map(|w| w.start).collect::<Vec<_>>(), [NOW + LENGTH]);
}

pub(crate) async fn windows_over_a_stretch_are_found_however_long_they_are(rig: Rig) {
    for n in 0..3 {
        complete(&rig, n, 1, at(1)).await;
    }
    rig.store.correct_window(&series(), NOW, "again", at(2)).await.unwrap();
    let window =
        |n: i64, state| InputWindow { start: NOW + LENGTH * n, end: NOW + LENGTH * (n + 1), state };
    let (open, middle, last) =
        (window(0, State::Open), window(1, State::Complete), window(2, State::Complete));
    let mins = |n| NOW + Millis::from_mins(n);
    for (from, to, found) in [
        (mins(10), mins(11), vec![open]),
        (mins(29), mins(31), vec![open, middle]),
        (mins(30), mins(90), vec![middle, last]),
        (mins(-60), mins(30), vec![open]),
        (mins(-60), mins(0), vec![]),
        (mins(90), mins(120), vec![]),
        (mins(-60), mins(600), vec![open, middle, last]),
    ] {
        let there = rig.store.windows_over(&series(), from, to).await.unwrap();
        assert_eq!(there, found, "{from} to {to}");
    }
}

pub(crate) async fn backfills_widen_and_finish(rig: Rig) {
    let ask = async |from, to| {
        rig.store.request_backfill(&series(), at(from), at(to), "ann", at(1)).await
    };
    assert!(matches!(ask(5, 5).await, Err(StoreError::Conflict(_))));
    let first = ask(100, 200).await.unwrap();
    assert_eq!((first.cursor, first.finished_at), (at(100), None));
    rig.store.advance_backfill(first.id, at(150), at(2)).await.unwrap();
    let wider = ask(120, 300).await.unwrap();
    assert_eq!(
        (wider.id, wider.from, wider.to, wider.cursor),
        (first.id, at(100), at(300), at(150))
    );
    let earlier = ask(50, 110).await.unwrap();
    assert_eq!((earlier.id, earlier.from, earlier.to), (first.id, at(50), at(300)));
    assert_eq!(earlier.cursor, at(50));
    let apart = ask(900, 950).await.unwrap();
    assert_ne!(apart.id, first.id);
    rig.store.advance_backfill(first.id, at(300), at(3)).await.unwrap();
    let open = rig.store.backfills(true).await.unwrap();
    assert_eq!(open, [apart]);
    assert_eq!(rig.store.backfills(false).await.unwrap()[1].finished_at, Some(at(3)));
    let missing = rig.store.advance_backfill(99, at(1), at(3)).await.unwrap_err();
    assert!(matches!(missing, StoreError::NotFound { what: "backfill", .. }), "{missing}");
}
