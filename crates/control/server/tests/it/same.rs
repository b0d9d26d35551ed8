//! Over HTTP, every method of the contract gives the answer that the control itself gives.

use proptest::prelude::*;
use watchbell_api::{
    ActRequest, Action, BackfillRequest, Control, EmitRequest, HttpControl, JOB_ACTIONS, MAX_BULK,
    RunOptions, RunRequest, VerifyRequest, WindowOptions, WindowRef, WindowRequest, discovery,
};
use watchbell_core::port::{EventQuery, JobChange, JobFilter, JobQuery, WindowQuery};
use watchbell_core::window::Wish;
use watchbell_core::{Millis, NewJob, Time, job, window};

use crate::Server;
use crate::fixture::{self, Fake, at};

fn window_queries() -> Vec<WindowQuery> {
    let all = WindowQuery { limit: 100, ..WindowQuery::default() };
    vec![
        all.clone(),
        WindowQuery { limit: 1, all_versions: true, ..all.clone() },
        WindowQuery { series: Some("window-sampler-3h".into()), ..all.clone() },
        WindowQuery { state: Some(window::State::Complete), ..all.clone() },
        WindowQuery {
            from: Some(at("2026-11-22T02:30:00.001Z")),
            to: Some(Time(i64::MAX)),
            ..all.clone()
        },
        WindowQuery { from: Some(Time(-1)), to: Some(Time(20_000_101)), ..all },
    ]
}

fn new_jobs() -> Vec<Vec<NewJob>> {
    let job =
        |kind: &str| NewJob::new(kind, serde_json::json!({ "series": "m", "x": [0.1, null] }));
    let all = NewJob {
        unique_key: Some("export:window-sampler-30m".into()),
        unique_in: job::Mask::EVER,
        limit_key: Some("ü/?#".into()),
        run_at: Some(at("2026-11-22T02:30:00.001Z")),
        priority: Some(7),
        max_attempts: Some(1),
        ..job("export")
    };
    let wrong = NewJob { payload: serde_json::json!({ "series": 7 }), ..job("mail") };
    vec![vec![], vec![job("mail")], vec![job("export"), all], vec![job("mail"), wrong]]
}

fn filters() -> Vec<JobFilter> {
    let any = JobFilter::default();
    vec![
        any.clone(),
        JobFilter { ids: vec![7, 9, -1], ..any.clone() },
        JobFilter { kind: Some("export".into()), state: Some(job::State::Failed), ..any.clone() },
        JobFilter { kind: Some("a&b=c".into()), ..any.clone() },
        JobFilter { unique_key: Some("export:window-sampler-30m".into()), ..any.clone() },
        JobFilter { limit_key: Some("window-sampler-30m".into()), ..any.clone() },
        JobFilter { error: Some("target is".into()), ..any.clone() },
        JobFilter {
            created_before: Some(Time(i64::MAX)),
            finished_before: Some(fixture::NOW),
            ..any
        },
    ]
}

fn backfill(from: &str, to: &str, preview: bool) -> BackfillRequest {
    BackfillRequest {
        series: Some("window-sampler-30m".into()),
        from: at(from),
        to: at(to),
        preview,
        recompute: Some("the venue corrected its history".into()),
        by: "ada".into(),
    }
}

/// Asks both for the same and compares.
macro_rules! same {
    ($direct:expr, $http:expr, $($call:tt)+) => {{
        let direct = $direct.$($call)+.await;
        assert_eq!($http.$($call)+.await, direct, "{}", stringify!($($call)+));
        direct
    }};
}

async fn every_method(a: &Fake, b: &HttpControl, names: &[&str]) {
    drop(same!(a, b, node()));
    drop(same!(a, b, status()));
    drop(same!(a, b, workers()));
    for name in names.iter().copied() {
        drop(same!(a, b, worker(name.into())));
        drop(same!(a, b, health(name.into())));
        for action in Action::ALL {
            let worker = || name.into();
            drop(same!(a, b, act(ActRequest { worker: worker(), action, by: "ada".into() })));
        }
        let start = at("2026-11-22T03:00:00Z");
        for options in [
            RunOptions::default(),
            RunOptions { dry_run: true, force: true, window: None },
            RunOptions {
                window: Some(WindowRef { series: "window-sampler-30m".into(), start }),
                ..RunOptions::default()
            },
        ] {
            drop(same!(a, b, run(RunRequest { worker: name.into(), options: options.clone() })));
        }
    }
    drop(same!(a, b, schedules()));
    for query in window_queries() {
        drop(same!(a, b, windows(query.clone())));
    }
    for (series, start) in
        [("window-sampler-30m", 1_795_314_600_000), ("none", 0), ("window-sampler-30m", -5)]
    {
        drop(same!(a, b, window(series.into(), Time(start))));
    }
    for request in [
        VerifyRequest::One { series: "window-sampler-30m".into(), start: Time(7) },
        VerifyRequest::Range { series: None, from: None, to: Some(Time(9)) },
    ] {
        drop(same!(a, b, verify(request.clone())));
    }
    for (series, start, wish) in [
        ("window-sampler-3h", "2026-11-22T00:00:00Z", Wish::Retry),
        ("window-sampler-3h", "2026-11-22T00:00:00Z", Wish::Abandon),
        ("window-sampler-30m", "2026-11-22T02:30:00Z", Wish::Abandon),
        ("none", "2026-11-22", Wish::Retry),
    ] {
        for options in [
            WindowOptions::default(),
            WindowOptions { reason: Some("no candles".into()), preview: true, by: "ada".into() },
        ] {
            let (series, start) = (series.into(), at(start));
            let request = WindowRequest { series, start, wish, options };
            drop(same!(a, b, change_window(request.clone())));
        }
    }
    for request in [
        backfill("2026-11-01", "2026-11-08", false),
        backfill("2026-11-01", "2026-11-08", true),
        backfill("2026-11-08", "2026-11-01", true),
    ] {
        drop(same!(a, b, backfill(request.clone())));
    }
    drop(same!(a, b, backfills()));
    for (after, kinds, limit) in [
        (None, vec![], 3),
        (Some(4), vec![], 100),
        (Some(0), vec!["window.*".to_owned(), "a&b=c".to_owned()], 2),
    ] {
        drop(same!(a, b, events(EventQuery { after, kinds: kinds.clone(), limit })));
    }
    let emit = EmitRequest {
        kind: "deploy.finished".into(),
        key: "api".into(),
        payload: serde_json::json!({ "version": [1, 2.5, null] }),
    };
    drop(same!(a, b, emit(emit.clone())));
    drop(same!(a, b, dead_letters(5)));
    for wait in [Millis::ZERO, Millis::from_secs(60)] {
        let query = EventQuery { after: Some(4), kinds: vec!["window.*".into()], limit: 7 };
        drop(same!(a, b, next_events(query.clone(), wait)));
    }
    for jobs in new_jobs() {
        drop(same!(a, b, enqueue(jobs.clone())));
    }
    for filter in filters() {
        for (before, limit) in [(None, 10), (Some(8), 1)] {
            drop(same!(a, b, jobs(JobQuery { filter: filter.clone(), before, limit })));
        }
        for (_, action) in JOB_ACTIONS {
            for preview in [true, false] {
                let by = "ada".to_owned();
                let change = JobChange { filter: filter.clone(), action, limit: 2, preview, by };
                drop(same!(a, b, change_jobs(change.clone())));
            }
        }
    }
    for id in [7, 8, 9, 10, -1] {
        drop(same!(a, b, job(id)));
    }
    drop(same!(a, b, kinds()));
    drop(same!(a, b, queue()));
    drop(same!(a, b, nodes()));
    for thing in ["window-sampler-30m/2026-11-22T03:00:00Z", "a b/ü?#%", "nothing"] {
        drop(same!(a, b, explain(thing.to_owned())));
    }
    drop(same!(a, b, metrics()));
    drop(same!(a, b, workers_health()));
}

#[tokio::test]
async fn a_node_gives_the_same_answers_and_is_asked_for_the_same() {
    let direct = Fake::default();
    let server = Server::of(Fake::default()).await;
    let names = ["market-sync", "window-sampler-30m", "market-sink", "a/b", "ü ?#%2F"];
    every_method(&direct, &server.client(), &names).await;
    assert_eq!(server.fake.asked(), direct.asked());
    assert_eq!(server.client().ready().await, direct.ready().await);
}

/// They are answered without asking.
#[tokio::test]
async fn names_that_no_address_can_carry_are_not_found() {
    let direct = Fake::default();
    let server = Server::of(Fake::default()).await;
    every_method(&direct, &server.client(), &["", ".", ".."]).await;
    assert!(!server.fake.asked().iter().any(|a| a.starts_with("run") || a.starts_with("stop")));
}

#[tokio::test]
async fn a_node_whose_store_fails_gives_the_same_errors() {
    let direct = Fake { broken: true, ..Fake::default() };
    let server = Server::of(Fake { broken: true, ..Fake::default() }).await;
    let http = server.client();
    assert_eq!(http.status().await, direct.status().await);
    assert_eq!(http.schedules().await, direct.schedules().await);
    assert_eq!(http.metrics().await, direct.metrics().await);
    let error = http.jobs(JobQuery { limit: 1, ..JobQuery::default() }).await.unwrap_err();
    assert_eq!(error.exit_code(), 5);
    assert_eq!(error.reason().causes, ["database disk image is malformed"]);
    assert_eq!(error.reason().help.as_deref(), Some("run `watchbell db check`"));
    // Readiness is the question whether it fails.
    assert!(!http.ready().await.unwrap().ready);
}

/// They would be cut off on their way, which tells nobody why.
#[tokio::test]
async fn more_jobs_than_a_request_takes_are_not_sent() {
    let server = Server::of(Fake::default()).await;
    let job = NewJob::new("mail", serde_json::Value::String("x".repeat(MAX_BULK)));
    let error = server.client().enqueue(vec![job]).await.unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.reason().help.unwrap().contains("several parts"));
    assert_eq!(server.fake.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_node_that_is_not_there_is_unavailable() {
    let server = Server::of(Fake::default()).await;
    let client = server.client();
    server.stop.send(()).unwrap();
    server.bound.stopped().await.unwrap();
    let error = client.status().await.unwrap_err();
    assert_eq!(error.exit_code(), 5);
    assert!(error.to_string().ends_with("cannot be reached"), "{error}");
    assert!(error.reason().help.unwrap().contains("watchbell up"));
}

#[tokio::test]
async fn a_node_is_found_by_its_file_if_it_is_the_same_boot() {
    let server = Server::of(Fake::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let patience = Millis::from_secs(10);
    let mut file = discovery::NodeFile {
        pid: 4_711,
        url: server.bound.url(),
        session: "s-7f3a".into(),
        version: "0.1.0".into(),
        started_at: fixture::NOW,
    };
    file.write(dir.path()).unwrap();
    let found = discovery::connect(dir.path(), patience).await.unwrap();
    assert_eq!(found.status().await.unwrap(), fixture::status(true));
    file.session = "s-0000".into();
    file.write(dir.path()).unwrap();
    assert!(discovery::connect(dir.path(), patience).await.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever somebody types arrives as typed.
    #[test]
    fn any_name_survives_the_way(name in "(?s)[a-z/%.?#&+= \\\\ü-]{0,12}|.{0,8}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let direct = Fake::default();
            let server = Server::of(Fake::default()).await;
            let http = server.client();
            drop(same!(direct, http, explain(name.clone())));
            drop(same!(direct, http, worker(name.as_str().into())));
            let query = EventQuery { after: None, kinds: vec![name.clone()], limit: 5 };
            drop(same!(direct, http, events(query.clone())));
        });
    }
}
