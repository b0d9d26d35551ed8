//! The routes.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Extension, Path, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json as Answer, Router};
use tokio::sync::watch;
use watchbell_api::{
    ActBody, ActRequest, Action, BackfillRequest, Control, ControlError, DaemonStatus, EmitRequest,
    Readiness, ReadyCheck, RunOptions, RunRequest, VerifyRequest, WindowOptions, WindowRequest,
};
use watchbell_core::port::WindowQuery;
use watchbell_core::window::Wish;
use watchbell_core::{WorkerName, window};

use crate::Options;
use crate::follow::{self, Follow};
use crate::guard::{self, Json};
use crate::jobs;
use crate::params::{self, Params};
use crate::problem::Failure;

type Ctl = State<Arc<dyn Control>>;
type Reply<T> = Result<Answer<T>, Failure>;

/// All routes over `control`, with their guards.
pub fn router(control: Arc<dyn Control>, options: Options) -> Router {
    // Without a sender nothing is ever told to stop.
    let (_, never) = watch::channel(false);
    stoppable(control, options, never)
}

/// The same; those who follow events are sent away when `stopping` turns true.
pub(crate) fn stoppable(
    control: Arc<dyn Control>,
    options: Options,
    stopping: watch::Receiver<bool>,
) -> Router {
    let following = Follow::new(&options, stopping);
    let bulk_limit = DefaultBodyLimit::max(options.max_bulk_bytes);
    let body_limit = DefaultBodyLimit::max(options.max_body_bytes);
    let quick = Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/daemon/status", get(daemon_status))
        .route("/daemon/{name}/health", get(daemon_health))
        .route("/api/v1/internal/health/workers", get(workers_health))
        .route("/api/v1/node", get(async |State(c): Ctl| answer(c.node().await)))
        .route("/api/v1/status", get(async |State(c): Ctl| answer(c.status().await)))
        .route("/api/v1/workers", get(async |State(c): Ctl| answer(c.workers().await)))
        .route("/api/v1/workers/{name}", get(worker))
        .route("/api/v1/workers/{name}/health", get(worker_health))
        .route("/api/v1/workers/{name}/{action}", post(act))
        .route("/api/v1/schedules", get(async |State(c): Ctl| answer(c.schedules().await)))
        .route("/api/v1/windows", get(windows))
        .route("/api/v1/windows/{series}/{start}", get(window_versions))
        .route("/api/v1/events", get(follow::events).post(emit))
        .route("/api/v1/dead-letters", get(dead_letters))
        .route("/api/v1/jobs", get(jobs::list))
        .route("/api/v1/jobs/{id}", get(jobs::one))
        .route("/api/v1/kinds", get(async |State(c): Ctl| answer(c.kinds().await)))
        .route("/api/v1/queue", get(async |State(c): Ctl| answer(c.queue().await)))
        .route("/api/v1/nodes", get(async |State(c): Ctl| answer(c.nodes().await)))
        .route("/api/v1/explain/{*thing}", get(explain))
        .route_layer(from_fn_with_state(options, guard::time_limit));
    // These compute or change much, and take the time that it takes.
    let patient = Router::new()
        .route("/api/v1/jobs/{id}", post(jobs::change))
        .route("/api/v1/events/stream", get(follow::stream_events))
        .route("/api/v1/workers/{name}/run", post(run))
        .route("/api/v1/verify", post(verify))
        .route("/api/v1/windows/{series}/{start}/verify", get(verify_one))
        .route("/api/v1/windows/{series}/{start}/{wish}", post(change_window))
        .route(
            "/api/v1/backfills",
            get(async |State(c): Ctl| answer(c.backfills().await)).post(backfill),
        );
    let bulk = Router::new().route("/api/v1/jobs", post(jobs::enqueue)).layer(bulk_limit);
    quick
        .merge(patient)
        .merge(bulk)
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(body_limit)
        .layer(Extension(following))
        .layer(from_fn(guard::local_host))
        .with_state(control)
}

fn answer<T>(result: watchbell_api::Result<T>) -> Reply<T> {
    Ok(Answer(result?))
}

async fn unknown(uri: Uri) -> Failure {
    ControlError::not_found("route", uri.path(), []).into()
}

async fn wrong_method(method: Method, uri: Uri) -> Failure {
    Failure::http(
        StatusCode::METHOD_NOT_ALLOWED,
        ControlError::invalid(format!("{} does not take {method}", uri.path())),
    )
}

async fn ready(State(c): Ctl) -> Response {
    let readiness = c.ready().await.unwrap_or_else(|e| {
        Readiness::of(vec![ReadyCheck { name: "store".into(), ok: false, detail: e.to_string() }])
    });
    (ok_or_503(readiness.ready), Answer(readiness)).into_response()
}

async fn metrics(State(c): Ctl) -> Result<Response, Failure> {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, c.metrics().await?).into_response())
}

async fn daemon_status(State(c): Ctl) -> Reply<DaemonStatus> {
    Ok(Answer(DaemonStatus::from(&c.status().await?)))
}

async fn daemon_health(State(c): Ctl, Path(name): Path<String>) -> Result<Response, Failure> {
    let health = c.health(name.into()).await?;
    Ok((ok_or_503(!health.needs_attention), Answer(health)).into_response())
}

async fn workers_health(State(c): Ctl, mut params: Params) -> Result<Response, Failure> {
    let strict = params.parsed("strict", "1 or 0", flag)?.unwrap_or(false);
    params.finish()?;
    let health = c.workers_health().await?;
    Ok((ok_or_503(health.ok || !strict), Answer(health)).into_response())
}

fn ok_or_503(ok: bool) -> StatusCode {
    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

async fn worker(State(c): Ctl, Path(name): Path<String>) -> Reply<watchbell_api::WorkerDetail> {
    answer(c.worker(name.into()).await)
}

async fn worker_health(
    State(c): Ctl,
    Path(name): Path<String>,
) -> Reply<watchbell_api::WorkerHealth> {
    answer(c.health(name.into()).await)
}

async fn act(
    State(c): Ctl,
    Path((name, action)): Path<(String, String)>,
    Json(body): Json<ActBody>,
) -> Reply<watchbell_core::port::WorkerRecord> {
    let action = Action::parse(&action).ok_or_else(|| {
        ControlError::not_found("action", action, Action::ALL.map(Action::as_str))
    })?;
    answer(c.act(ActRequest { worker: name.into(), action, by: body.by }).await)
}

async fn run(
    State(c): Ctl,
    Path(name): Path<String>,
    Json(options): Json<RunOptions>,
) -> Reply<watchbell_api::RunReport> {
    answer(c.run(RunRequest { worker: WorkerName::from(name), options }).await)
}

async fn windows(
    State(c): Ctl,
    mut params: Params,
) -> Reply<Vec<watchbell_core::port::WindowRecord>> {
    let states = "open, ready, running, complete, failed or abandoned";
    let query = WindowQuery {
        series: params.one("series")?.map(Into::into),
        state: params.parsed("state", states, window::State::parse)?,
        from: params.time("from")?,
        to: params.time("to")?,
        all_versions: params.parsed("all_versions", "true or false", flag)?.unwrap_or(false),
        limit: params.limit(100)?,
    };
    params.finish()?;
    answer(c.windows(query).await)
}

async fn window_versions(
    State(c): Ctl,
    Path((series, start)): Path<(String, String)>,
) -> Reply<Vec<watchbell_core::port::WindowRecord>> {
    let start = params::time(&start)?;
    answer(c.window(series.into(), start).await)
}

async fn change_window(
    State(c): Ctl,
    Path((series, start, wish)): Path<(String, String, String)>,
    Json(options): Json<WindowOptions>,
) -> Reply<watchbell_api::WindowChanged> {
    let wish = Wish::parse(&wish)
        .ok_or_else(|| ControlError::not_found("action", wish, Wish::ALL.map(Wish::as_str)))?;
    let start = params::time(&start)?;
    answer(c.change_window(WindowRequest { series: series.into(), start, wish, options }).await)
}

async fn verify_one(
    State(c): Ctl,
    Path((series, start)): Path<(String, String)>,
) -> Reply<Vec<watchbell_api::VerifyReport>> {
    let start = params::time(&start)?;
    answer(c.verify(VerifyRequest::One { series: series.into(), start }).await)
}

async fn verify(
    State(c): Ctl,
    Json(request): Json<VerifyRequest>,
) -> Reply<Vec<watchbell_api::VerifyReport>> {
    answer(c.verify(request).await)
}

async fn backfill(
    State(c): Ctl,
    Json(request): Json<BackfillRequest>,
) -> Reply<watchbell_api::BackfillReport> {
    answer(c.backfill(request).await)
}

async fn emit(State(c): Ctl, Json(request): Json<EmitRequest>) -> Result<Response, Failure> {
    Ok((StatusCode::CREATED, Answer(c.emit(request).await?)).into_response())
}

async fn dead_letters(
    State(c): Ctl,
    mut params: Params,
) -> Reply<Vec<watchbell_core::port::DeadLetter>> {
    let limit = params.limit(100)?;
    params.finish()?;
    answer(c.dead_letters(limit).await)
}

async fn explain(
    State(c): Ctl,
    Path(thing): Path<String>,
) -> Reply<watchbell_core::gate::Explanation> {
    answer(c.explain(thing).await)
}
