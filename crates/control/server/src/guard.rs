//! What every request must pass before a route sees it.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use watchbell_api::ControlError;

use crate::Options;
use crate::problem::Failure;

/// Refuses requests for another host than this machine. A page that a browser loaded from
/// elsewhere can let its own name point here (DNS rebinding); its requests then carry that name.
pub(crate) async fn local_host(request: Request, next: Next) -> Response {
    let host = host_of(request.headers(), request.uri());
    if host.as_deref().is_some_and(is_local) {
        return next.run(request).await;
    }
    let error = match host {
        Some(host) => ControlError::invalid(format!("this API does not answer for host `{host}`")),
        None => ControlError::invalid("the request names no host"),
    };
    let error = error.help("use the address http://127.0.0.1 or http://localhost");
    Failure::http(StatusCode::FORBIDDEN, error).into_response()
}

fn host_of(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let from_header = headers.get(header::HOST).and_then(|v| v.to_str().ok());
    from_header.or_else(|| uri.authority().map(|a| a.as_str())).map(str::to_owned)
}

/// Whether a host, with or without a port, is this machine under a name that nobody else can own.
fn is_local(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((v6, "")) => (v6, None),
        Some((v6, rest)) => match rest.strip_prefix(':') {
            Some(port) => (v6, Some(port)),
            None => return false,
        },
        None => match host.rsplit_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let port_ok = port.is_none_or(|p| p.parse::<u16>().is_ok());
    let loopback = name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    port_ok && (name.eq_ignore_ascii_case("localhost") || loopback)
}

/// Ends a request that takes too long.
pub(crate) async fn time_limit(
    State(options): State<Options>,
    request: Request,
    next: Next,
) -> Response {
    match options.clock.timeout(options.timeout, next.run(request)).await {
        Ok(response) => response,
        Err(elapsed) => Failure::from(
            ControlError::unavailable(format!("the node gave no answer: {elapsed}"))
                .help("the store may be busy: try again, and see `watchbell status`"),
        )
        .into_response(),
    }
}

/// The bytes of a body that is said to be JSON.
#[derive(Debug)]
pub(crate) struct JsonBytes(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBytes {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let essence = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(Failure::http(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                ControlError::invalid("the body must be JSON")
                    .help("send it with `content-type: application/json`"),
            ));
        }
        Bytes::from_request(request, state).await.map(Self).map_err(|rejection| {
            Failure::http(
                rejection.status(),
                ControlError::invalid(format!("cannot read the body: {}", rejection.body_text())),
            )
        })
    }
}

/// A JSON body, said to be one.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let JsonBytes(bytes) = JsonBytes::from_request(request, state).await?;
        // No body means no options.
        let bytes = if bytes.is_empty() { &b"{}"[..] } else { &bytes[..] };
        serde_json::from_slice(bytes).map(Self).map_err(|e| {
            ControlError::invalid(format!("the body does not fit this request: {e}")).into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn only_this_machine_is_local() {
        for host in [
            "localhost",
            "LOCALHOST:8770",
            "127.0.0.1",
            "127.0.0.1:8770",
            "127.8.9.1:1",
            "[::1]",
            "[::1]:8770",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "example.org",
            "localhost.example.org",
            "127.0.0.1.example.org:8770",
            "192.168.0.7:8770",
            "0.0.0.0:8770",
            "[::1",
            "[::1]x",
            "[::]",
            "localhost:http",
            "localhost:8770:1",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
