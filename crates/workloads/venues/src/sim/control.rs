//! The paths for operators and tests, the same at every simulated venue.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use watchbell_core::{Millis, Time};

use super::fault::{FaultParseError, FaultScript, Faults};
use super::floor::Floor;
use super::journal::JournalEntry;
use super::limiter::LimiterState;
use super::market::lock;

/// All of them but the journal, which tells of the venue's limiter.
pub(super) fn routes(floor: &Arc<Floor>) -> Router {
    Router::new()
        .route("/sim/faults", get(faults).post(set_faults))
        .route("/sim/market", get(market))
        .with_state(Arc::clone(floor))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json;charset=UTF-8")], body)
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The query of `GET /sim/journal`.
#[derive(Debug, Deserialize)]
pub(super) struct After {
    #[serde(default)]
    after: u64,
}

#[derive(Serialize)]
struct JournalPage {
    now: Time,
    last: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    limiter: Option<LimiterState>,
    entries: Vec<JournalEntry>,
}

/// `GET /sim/journal?after=N`, with the state of a limiter that has one to show.
pub(super) fn journal(
    floor: &Floor,
    Query(After { after }): &Query<After>,
    limiter: Option<LimiterState>,
) -> Response<Body> {
    let entries = floor.journal.after(*after);
    let page = JournalPage { now: floor.clock.now(), last: floor.journal.last(), limiter, entries };
    json(StatusCode::OK, &page)
}

/// `GET /sim/faults`: the rules, as a list of text.
async fn faults(State(floor): State<Arc<Floor>>) -> Response<Body> {
    let script = lock(&floor.faults).script();
    json(StatusCode::OK, &script)
}

/// `POST /sim/faults`: replaces the rules by a JSON list of text, or by plain text.
async fn set_faults(State(floor): State<Arc<Floor>>, body: String) -> Response<Body> {
    let parsed: Result<FaultScript, String> = if body.trim_start().starts_with('[') {
        serde_json::from_str(&body).map_err(|e| e.to_string())
    } else {
        body.parse().map_err(|e: FaultParseError| e.to_string())
    };
    match parsed {
        Ok(script) => {
            let reply = json(StatusCode::OK, &script);
            *lock(&floor.faults) = Faults::new(script);
            reply
        }
        Err(problem) => json(StatusCode::BAD_REQUEST, &serde_json::json!({ "error": problem })),
    }
}

/// `GET /sim/market`: what is served.
async fn market(State(floor): State<Arc<Floor>>) -> Response<Body> {
    let symbols: Vec<_> = floor
        .market
        .symbols()
        .iter()
        .enumerate()
        .map(|(i, spec)| {
            let (from, to) = floor.market.span(i);
            let holes: Vec<_> = floor
                .market
                .holes(i)
                .iter()
                .map(|h| {
                    let minutes = (h.to - h.from) / Millis::from_mins(1);
                    serde_json::json!({
                        "from": h.from.rfc3339(), "to": h.to.rfc3339(), "minutes": minutes,
                    })
                })
                .collect();
            serde_json::json!({
                "symbol": spec.name, "from": from.rfc3339(), "to": to.rfc3339(), "holes": holes,
            })
        })
        .collect();
    let value = serde_json::json!({
        "kind": floor.market.kind(),
        "now": floor.clock.now().rfc3339(),
        "symbols": symbols,
    });
    json(StatusCode::OK, &value)
}
