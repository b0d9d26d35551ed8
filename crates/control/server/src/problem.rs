//! Errors as problem documents (RFC 9457).

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use watchbell_api::{ControlError, Problem};

/// An error on its way to the client.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Boxed, for every route's result carries one.
    problem: Box<Problem>,
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        if let ControlError::Internal(reason) = &error {
            tracing::error!(error = %reason, causes = ?reason.causes, "a request failed");
        }
        Self { problem: Box::new(Problem::from(&error)) }
    }
}

impl Failure {
    /// A refusal that HTTP has its own status for.
    pub(crate) fn http(status: StatusCode, error: ControlError) -> Self {
        let mut failure = Self::from(error);
        failure.problem.status = status.as_u16();
        failure.problem.title = status.canonical_reason().unwrap_or("Refused").to_owned();
        failure
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self.problem)).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/problem+json"),
        );
        response
    }
}
