//! What the wire looks like: statuses, bodies, guards.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use watchbell_api::{Control, Problem, RunOptions, RunRequest, discovery::NodeFile};
use watchbell_clock::Clock;
use watchbell_core::Time;
use watchbell_server::{Options, ServeError, serve};

use crate::fixture::Fake;
use crate::{ANY_PORT, Server};

async fn ask(server: &Server, method: Method, path: &str, body: Option<&str>) -> (u16, Value) {
    // The client installs the TLS provider that reqwest wants to see even for plain HTTP.
    drop(server.client());
    let url = format!("{}{path}", server.bound.url());
    let mut request = reqwest::Client::new().request(method, url);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_owned());
    }
    let response = request.send().await.unwrap();
    let status = response.status();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let text = response.text().await.unwrap();
    if status.is_client_error() || kind.starts_with("application/problem") {
        assert_eq!(kind, "application/problem+json", "{path}");
        let problem: Problem = serde_json::from_str(&text).unwrap();
        assert_eq!(problem.status, status.as_u16(), "{path}");
        assert!(!problem.detail.is_empty() && !problem.title.is_empty(), "{path}");
    }
    (status.as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

#[tokio::test]
async fn every_route_answers_and_every_mistake_is_a_problem_document() {
    let server = Server::of(Fake::default()).await;
    let start = "1795314600000";
    let backfill = r#"{"series":null,"from":1,"to":2,"by":"ada"}"#;
    for (method, path, body, status) in [
        (Method::GET, "/healthz", None, 200),
        (Method::HEAD, "/healthz", None, 200),
        (Method::GET, "/readyz", None, 200),
        (Method::GET, "/metrics", None, 200),
        (Method::GET, "/daemon/status", None, 200),
        (Method::GET, "/daemon/market-sync/health", None, 200),
        (Method::GET, "/daemon/window-sampler-3h/health", None, 503),
        (Method::GET, "/daemon/nobody/health", None, 404),
        (Method::GET, "/api/v1/internal/health/workers", None, 200),
        (Method::GET, "/api/v1/internal/health/workers?strict=1", None, 503),
        (Method::GET, "/api/v1/internal/health/workers?strict=yes", None, 400),
        (Method::GET, "/api/v1/node", None, 200),
        (Method::GET, "/api/v1/status", None, 200),
        (Method::GET, "/api/v1/workers", None, 200),
        (Method::GET, "/api/v1/workers/market-sync", None, 200),
        (Method::GET, "/api/v1/workers/market-sync/health", None, 200),
        (Method::POST, "/api/v1/workers/market-sync/pause", Some("{}"), 200),
        (Method::POST, "/api/v1/workers/market-sync/pause", Some(""), 200),
        (Method::POST, "/api/v1/workers/market-sync/resume", Some(r#"{"by":"ada"}"#), 409),
        (Method::POST, "/api/v1/workers/market-sync/explode", Some("{}"), 404),
        (Method::POST, "/api/v1/workers/market-sync/pause", Some(r#"{"who":"ada"}"#), 400),
        (Method::POST, "/api/v1/workers/market-sync/pause", Some("{"), 400),
        (Method::POST, "/api/v1/workers/market-sync/pause", None, 415),
        (Method::POST, "/api/v1/workers/market-sync/run", Some(r#"{"dry_run":true}"#), 200),
        (Method::POST, "/api/v1/workers/market-sync/run", Some(r#"{"dryrun":true}"#), 400),
        (Method::GET, "/api/v1/schedules", None, 200),
        (Method::GET, "/api/v1/windows?series=window-sampler-30m&state=complete", None, 200),
        (Method::GET, "/api/v1/windows?from=2026-11-22T00:00:00Z&limit=5", None, 200),
        (Method::GET, "/api/v1/windows?state=done", None, 400),
        (Method::GET, "/api/v1/windows?limit=0", None, 400),
        (Method::GET, "/api/v1/windows?sereis=window-sampler-30m", None, 400),
        (Method::GET, "/api/v1/windows?limit=1&limit=2", None, 400),
        (Method::GET, &format!("/api/v1/windows/window-sampler-30m/{start}"), None, 200),
        (Method::GET, "/api/v1/windows/window-sampler-30m/2026-11-22T02:30:00Z", None, 200),
        (Method::GET, "/api/v1/windows/window-sampler-30m/noon", None, 400),
        (Method::GET, "/api/v1/windows/window-sampler-30m/0", None, 404),
        (Method::GET, &format!("/api/v1/windows/window-sampler-30m/{start}/verify"), None, 200),
        (Method::POST, "/api/v1/windows/window-sampler-3h/2026-11-22/retry", Some("{}"), 200),
        (
            Method::POST,
            "/api/v1/windows/window-sampler-3h/2026-11-22/abandon",
            Some(r#"{"reason":"no candles","preview":true,"by":"ada"}"#),
            200,
        ),
        (
            Method::POST,
            &format!("/api/v1/windows/window-sampler-30m/{start}/retry"),
            Some("{}"),
            409,
        ),
        (
            Method::POST,
            &format!("/api/v1/windows/window-sampler-30m/{start}/retry"),
            Some(r#"{"why":"x"}"#),
            400,
        ),
        (Method::POST, "/api/v1/windows/window-sampler-30m/noon/retry", Some("{}"), 400),
        (Method::POST, "/api/v1/windows/window-sampler-30m/0/explode", Some("{}"), 404),
        (Method::POST, "/api/v1/verify", Some(r#"{"kind":"range"}"#), 200),
        (Method::POST, "/api/v1/backfills", Some(backfill), 200),
        (Method::GET, "/api/v1/backfills", None, 200),
        (Method::GET, "/api/v1/events", None, 200),
        (Method::GET, "/api/v1/events?after=3&kind=window.*&kind=worker.*", None, 200),
        (Method::GET, "/api/v1/events?after=soon", None, 400),
        (Method::POST, "/api/v1/events", Some(r#"{"kind":"a.b"}"#), 201),
        (Method::POST, "/api/v1/events", Some("[]"), 400),
        (Method::GET, "/api/v1/dead-letters", None, 200),
        (Method::GET, "/api/v1/events?after=3&wait=10s", None, 200),
        (Method::GET, "/api/v1/events?after=3&wait=soon", None, 400),
        (Method::GET, "/api/v1/events?wait=10s", None, 400),
        (Method::GET, "/api/v1/events/stream?after=soon", None, 400),
        (Method::POST, "/api/v1/jobs", Some(r#"{"kind":"export"}"#), 201),
        (Method::POST, "/api/v1/jobs", Some(r#"[{"kind":"export"},{"kind":"mail"}]"#), 201),
        (
            Method::POST,
            "/api/v1/jobs",
            Some(r#"{"kind":"export","unique_key":"export:window-sampler-30m"}"#),
            200,
        ),
        (Method::POST, "/api/v1/jobs", Some(r#"{"kind":"expotr"}"#), 422),
        (Method::POST, "/api/v1/jobs", Some(r#"[{"kind":"mail"},{"kid":"mail"}]"#), 422),
        (Method::POST, "/api/v1/jobs", Some(r#"{"kind":"mail","priority":"high"}"#), 422),
        (Method::POST, "/api/v1/jobs", Some(r#"{"kind":"mail",}"#), 400),
        (Method::POST, "/api/v1/jobs", None, 415),
        (Method::GET, "/api/v1/jobs?kind=export&error=full&before=9&id=8&id=7", None, 200),
        (Method::GET, "/api/v1/jobs?id=seven", None, 400),
        (Method::GET, "/api/v1/jobs?created_before=2026-11-22T00:00:00Z", None, 200),
        (Method::POST, "/api/v1/jobs/cancel", Some(r#"{"filter":{"ids":[7]}}"#), 200),
        (Method::POST, "/api/v1/jobs/purge", Some(r#"{"all":true,"preview":true}"#), 200),
        (Method::POST, "/api/v1/jobs/purge", Some("{}"), 400),
        (Method::POST, "/api/v1/jobs/purge", Some(r#"{"filter":{"kid":"mail"}}"#), 400),
        (Method::POST, "/api/v1/jobs/explode", Some(r#"{"all":true}"#), 404),
        (Method::GET, "/api/v1/kinds", None, 200),
        (Method::GET, "/api/v1/queue", None, 200),
        (Method::GET, "/api/v1/nodes", None, 200),
        (Method::GET, "/api/v1/jobs?state=queued", None, 200),
        (Method::GET, "/api/v1/jobs/7", None, 200),
        (Method::GET, "/api/v1/jobs/seven", None, 404),
        (Method::GET, "/api/v1/jobs/77", None, 404),
        (Method::GET, "/api/v1/explain/window-sampler-30m/2026-11-22T03:00:00Z", None, 200),
        (Method::GET, "/api/v1/explain/nothing", None, 404),
        (Method::GET, "/", None, 404),
        (Method::GET, "/api/v2/status", None, 404),
        (Method::DELETE, "/api/v1/status", None, 405),
        (Method::POST, "/healthz", Some("{}"), 405),
    ] {
        let (got, answer) = ask(&server, method.clone(), path, body).await;
        assert_eq!(got, status, "{method} {path} {body:?}: {answer}");
    }
    let (_, text) = ask(&server, Method::GET, "/healthz", None).await;
    assert_eq!(text, json!("ok"));
}

#[tokio::test]
async fn mistakes_are_named_and_corrected() {
    let server = Server::of(Fake::default()).await;
    let (_, p) = ask(&server, Method::GET, "/api/v1/windows?sereis=x", None).await;
    assert_eq!(p["detail"], "there is no parameter `sereis` here");
    assert_eq!(p["help"], "did you mean `series`?");
    let (_, p) = ask(&server, Method::GET, "/api/v1/workers/market-sink", None).await;
    assert_eq!(p["type"], "urn:watchbell:problem:not-found");
    assert_eq!(p["suggestion"], "market-sync");
    let body = r#"{"dryrun":true}"#;
    let (_, p) = ask(&server, Method::POST, "/api/v1/workers/a/run", Some(body)).await;
    assert!(p["detail"].as_str().unwrap().contains("unknown field `dryrun`"), "{p}");
}

#[tokio::test]
async fn the_founding_routes_have_their_fields() {
    let server = Server::of(Fake::default()).await;
    let (_, status) = ask(&server, Method::GET, "/daemon/status", None).await;
    assert_eq!(status["running"], true);
    assert_eq!(
        status["summary"],
        json!({ "total": 5, "running": 3, "paused": 1, "failed": 0, "stopped": 1 })
    );
    let sync = &status["daemons"]["market-sync"];
    assert_eq!((&sync["state"], &sync["uptime_seconds"]), (&json!("RUNNING"), &json!(8_040)));
    let (_, health) = ask(&server, Method::GET, "/api/v1/internal/health/workers", None).await;
    assert_eq!(health["ok"], false);
    let worker = &health["workers"][1];
    for field in [
        "last_started_at",
        "last_completed_at",
        "last_success_at",
        "last_error_at",
        "last_error",
        "status",
        "summary",
        "latency",
        "consecutive_errors",
        "total_runs",
        "total_errors",
        "stale",
    ] {
        assert!(!worker[field].is_null(), "{field} of {worker}");
    }
    assert_eq!((&worker["name"], &worker["stale"]), (&json!("window-sampler-3h"), &json!(true)));
}

#[tokio::test]
async fn readiness_says_what_is_missing() {
    let server = Server::of(Fake { offline: true, ..Fake::default() }).await;
    let (status, body) = ask(&server, Method::GET, "/readyz", None).await;
    assert_eq!((status, &body["ready"]), (503, &json!(false)));
    assert_eq!(body["checks"][1]["detail"], "not started");
    let server = Server::of(Fake { broken: true, ..Fake::default() }).await;
    let (status, body) = ask(&server, Method::GET, "/readyz", None).await;
    assert_eq!((status, &body["checks"][0]["detail"]), (503, &json!("the store failed")));
    // The process is alive all the same.
    assert_eq!(ask(&server, Method::GET, "/healthz", None).await.0, 200);
}

#[tokio::test]
async fn another_host_is_refused_on_every_route() {
    let server = Server::of(Fake::default()).await;
    drop(server.client());
    for path in ["/healthz", "/api/v1/status", "/nowhere"] {
        for (host, status) in [
            ("attacker.example", StatusCode::FORBIDDEN),
            ("attacker.example:8770", StatusCode::FORBIDDEN),
            ("192.168.0.7", StatusCode::FORBIDDEN),
            ("localhost:1", StatusCode::OK),
        ] {
            let url = format!("{}{path}", server.bound.url());
            let response =
                reqwest::Client::new().get(url).header("host", host).send().await.unwrap();
            let refused = response.status() == StatusCode::FORBIDDEN;
            assert_eq!(refused, status == StatusCode::FORBIDDEN, "{host} {path}");
        }
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let options = Options { max_body_bytes: 100, ..Options::default() };
    let server = Server::with(Fake::default(), options).await;
    let body = format!(r#"{{"kind":"a.b","key":"{}"}}"#, "x".repeat(200));
    let (status, _) = ask(&server, Method::POST, "/api/v1/events", Some(&body)).await;
    assert_eq!(status, 413);
    assert!(server.fake.asked().is_empty());
}

#[tokio::test]
async fn jobs_have_a_limit_of_their_own_and_say_where_they_are_wrong() {
    let options = Options { max_body_bytes: 100, max_bulk_bytes: 1_000, ..Options::default() };
    let server = Server::with(Fake::default(), options).await;
    let job = |size| format!(r#"{{"kind":"mail","payload":"{}"}}"#, "x".repeat(size));
    let (status, answer) = ask(&server, Method::POST, "/api/v1/jobs", Some(&job(500))).await;
    assert_eq!((status, answer), (201, json!([{ "added": 10 }])));
    let (status, _) = ask(&server, Method::POST, "/api/v1/jobs", Some(&job(2_000))).await;
    assert_eq!(status, 413);
    let body = r#"[{"kind":"mail"},{"kind":"export","payload":{"series":7}}]"#;
    let (_, p) = ask(&server, Method::POST, "/api/v1/jobs", Some(body)).await;
    assert_eq!(p["type"], "urn:watchbell:problem:bad-input");
    assert_eq!((&p["status"], &p["place"]), (&json!(422), &json!("jobs[1].payload.series")));
    assert_eq!(p["detail"], "jobs[1].payload.series: 7 is not of type \"string\"");
    let (_, p) = ask(&server, Method::POST, "/api/v1/jobs/purge", Some("{}")).await;
    assert_eq!(p["help"], "name some jobs, or say `\"all\": true`");
}

/// Reads a stream until it holds `text`.
async fn read_until(response: &mut reqwest::Response, text: &str) -> String {
    let mut all = String::new();
    while !all.contains(text) {
        let piece = response.chunk().await.unwrap().expect("the stream goes on");
        all.push_str(std::str::from_utf8(&piece).unwrap());
    }
    all
}

#[tokio::test]
async fn events_are_streamed_from_where_the_client_left() {
    let clock = Clock::manual(Time(0));
    let options = Options { clock: clock.clone(), max_followers: 2, ..Options::default() };
    let server = Server::with(Fake::default(), options).await;
    drop(server.client());
    let url = format!("{}/api/v1/events/stream", server.bound.url());
    let http = reqwest::Client::new();
    let mut first = http.get(format!("{url}?after=7")).send().await.unwrap();
    assert_eq!(first.headers()["content-type"], "text/event-stream");
    let text = read_until(&mut first, "id: 9\n").await;
    assert!(text.starts_with(": events after 7\n\nid: 8\ndata: {\"id\":8,"), "{text}");
    assert!(text.ends_with("}\n\n"), "{text}");
    // The number that a browser sends when it comes back wins over the one in its address.
    let again = http.get(format!("{url}?after=7&kind=worker.*")).header("last-event-id", "8");
    let mut second = again.send().await.unwrap();
    let text = read_until(&mut second, "id: ").await;
    assert!(text.contains("id: 9\n") && !text.contains("id: 8\n"), "{text}");
    // There is a limit to how many follow, and a place is free again when one leaves.
    let (status, problem) = ask(&server, Method::GET, "/api/v1/events/stream", None).await;
    assert_eq!(status, 503);
    assert_eq!(problem["detail"], "2 clients follow the events already");
    let (status, _) = ask(&server, Method::GET, "/api/v1/events?after=3&wait=1s", None).await;
    assert_eq!(status, 503);
    // Nobody who follows holds up a node that stops: the clock stands still.
    server.stop.send(()).unwrap();
    server.bound.stopped().await.unwrap();
    let mut rest = String::new();
    while let Some(piece) = first.chunk().await.unwrap() {
        rest.push_str(std::str::from_utf8(&piece).unwrap());
    }
    assert!(!rest.contains("id:"), "{rest}");
}

#[tokio::test]
async fn a_stream_without_a_place_begins_with_what_comes() {
    let server = Server::of(Fake::default()).await;
    drop(server.client());
    let url = format!("{}/api/v1/events/stream?kind=window.*", server.bound.url());
    let mut stream = reqwest::Client::new().get(url).send().await.unwrap();
    let text = read_until(&mut stream, "\n\n").await;
    assert!(text.starts_with(": events after 8\n\n"), "{text}");
}

#[tokio::test]
async fn a_store_that_fails_ends_a_stream_with_the_problem() {
    let server = Server::of(Fake { broken: true, ..Fake::default() }).await;
    drop(server.client());
    let url = format!("{}/api/v1/events/stream?after=1", server.bound.url());
    let text = reqwest::Client::new().get(url).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("event: problem\ndata: {\"type\":\"urn:watchbell:problem:una"), "{text}");
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_given_up() {
    let clock = Clock::manual(Time(0));
    let options = Options { clock: clock.clone(), ..Options::default() };
    let limit = Time(0) + options.timeout;
    let server = Server::with(Fake { stuck: true, ..Fake::default() }, options).await;
    let (answer, ()) = tokio::join!(ask(&server, Method::GET, "/api/v1/status", None), async {
        clock.next_timer(limit).await;
        clock.advance(limit);
    });
    assert_eq!(answer.0, 503);
    assert_eq!(answer.1["detail"], "the node gave no answer: no answer within 25s");
}

#[tokio::test]
async fn a_request_that_outlives_the_stop_is_not_waited_for() {
    let clock = Clock::manual(Time(0));
    let options = Options { clock: clock.clone(), ..Options::default() };
    let grace = Time(0) + options.grace;
    let server = Server::with(Fake { stuck: true, ..Fake::default() }, options).await;
    let client = server.client();
    let run = RunRequest { worker: "market-sync".into(), options: RunOptions::default() };
    let hanging = tokio::spawn(async move { client.run(run).await });
    server.fake.reached.notified().await;
    server.stop.send(()).unwrap();
    clock.next_timer(grace).await;
    clock.advance(grace);
    server.bound.stopped().await.unwrap();
    hanging.abort();
}

#[tokio::test]
async fn only_loopback_is_served() {
    for bind in ["0.0.0.0:0", "192.168.0.7:8770", "[::]:8770"] {
        let bind: SocketAddr = bind.parse().unwrap();
        let never = std::future::pending();
        let error =
            serve(bind, Arc::new(Fake::default()), Options::default(), never).await.unwrap_err();
        assert!(matches!(error, ServeError::NotLoopback(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains("access control comes later"), "{text}");
        assert!(text.contains("bind to 127.0.0.1"), "{text}");
    }
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_holder() {
    let first = Server::of(Fake::default()).await;
    let bind = first.bound.addr();
    let dir = tempfile::tempdir().unwrap();
    let options = Options { data_dir: Some(dir.path().to_owned()), ..Options::default() };
    let try_again = || async {
        let never = std::future::pending();
        let fake = Arc::new(Fake::default());
        serve(bind, fake, options.clone(), never).await.unwrap_err().to_string()
    };
    let port = bind.port();
    assert_eq!(
        try_again().await,
        format!(
            "port {port} of {} is in use: choose another one with `--http-port`, or stop the \
             process that has it",
            Ipv4Addr::LOCALHOST
        )
    );
    let file = NodeFile {
        pid: 4_711,
        url: first.bound.url(),
        session: "s".into(),
        version: "0.1.0".into(),
        started_at: Time(0),
    };
    file.write(dir.path()).unwrap();
    assert!(try_again().await.contains("by the watchbell node with process id 4711"));
    assert_eq!(ANY_PORT.port(), 0);
}
