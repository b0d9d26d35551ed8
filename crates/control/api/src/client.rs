//! Asking a running node over HTTP.

use std::error::Error as _;
use std::time::Duration;

use reqwest::{Method, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use watchbell_core::gate::Explanation;
use watchbell_core::port::{
    BackfillRecord, DeadLetter, Enqueued, EventQuery, JobChange, JobChanged, JobQuery, JobRecord,
    KindRecord, NodeRecord, WindowQuery, WindowRecord, WorkerRecord,
};
use watchbell_core::{BoxFuture, EventRecord, Millis, NewJob, SeriesName, Time, WorkerName};

use crate::control::{Control, Result};
use crate::error::{ControlError, Problem};
use crate::request::{
    ActBody, ActRequest, BackfillReport, BackfillRequest, EmitRequest, Emitted, JobChangeBody,
    MAX_BULK, RunReport, RunRequest, VerifyReport, VerifyRequest, WindowChanged, WindowRequest,
    job_action_word,
};
use crate::status::{
    JobDetail, NodeInfo, QueueLine, Readiness, ScheduleLine, Status, WorkerDetail, WorkerHealth,
    WorkerLine, WorkersHealth,
};

/// A node, asked over HTTP.
#[derive(Debug, Clone)]
pub struct HttpControl {
    client: reqwest::Client,
    base: Url,
    timeout: Duration,
}

/// How long a node may take over an answer, unless the caller says otherwise.
pub const DEFAULT_TIMEOUT: Millis = Millis::from_secs(30);

impl HttpControl {
    /// A client of the node at `url`, such as `http://127.0.0.1:8770`.
    ///
    /// Requests that compute or change many rows (`run`, `verify`, `backfill`, jobs) wait as long as
    /// they take; all others fail after `timeout`.
    ///
    /// # Errors
    /// [`ControlError::Invalid`] when `url` is not an `http` address, [`ControlError::Internal`]
    /// when the client cannot be built.
    pub fn new(url: &str, timeout: Millis) -> Result<Self> {
        let bad = || {
            ControlError::invalid(format!("`{url}` is not the address of a node"))
                .help("use a form like http://127.0.0.1:8770")
        };
        let base: Url = url.parse().map_err(|_| bad())?;
        if base.scheme() != "http" {
            return Err(bad());
        }
        // Another part of the process may have installed a provider first: any will do.
        let installed = rustls::crypto::CryptoProvider::get_default().is_some()
            || rustls::crypto::ring::default_provider().install_default().is_ok()
            || rustls::crypto::CryptoProvider::get_default().is_some();
        if !installed {
            return Err(ControlError::internal("no TLS provider could be installed"));
        }
        let client = reqwest::Client::builder()
            .user_agent(concat!("watchbell/", env!("CARGO_PKG_VERSION")))
            // The node is on this machine; a proxy of the environment must not get in between.
            .no_proxy()
            // It speaks plain HTTP: there is no need to read the system's certificates.
            .tls_certs_only([])
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| ControlError::internal("cannot build an HTTP client").because(&e))?;
        Ok(Self { client, base, timeout: timeout.to_std() })
    }

    /// The same node, with another patience.
    #[must_use]
    pub fn with_timeout(self, timeout: Millis) -> Self {
        Self { timeout: timeout.to_std(), ..self }
    }

    /// The address of the node.
    #[must_use]
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<Vec<u8>>,
        patient: bool,
    ) -> Result<reqwest::Response> {
        let mut url = self.base.clone();
        url.set_path(&path.iter().map(|s| encode(s)).collect::<Vec<_>>().join("/"));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.client.request(method, url);
        if !patient {
            request = request.timeout(self.timeout);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.text().await.map_err(|e| self.unreachable(&e))?;
        match serde_json::from_str::<Problem>(&text) {
            Ok(problem) => Err(problem.into()),
            Err(_) => Err(ControlError::unavailable(format!(
                "{} answered {status}, which is not what a watchbell node answers",
                self.url()
            ))
            .help("check with `watchbell status` which address the node has")),
        }
    }

    async fn json<T: DeserializeOwned>(&self, response: reqwest::Response) -> Result<T> {
        let bytes = response.bytes().await.map_err(|e| self.unreachable(&e))?;
        serde_json::from_slice(&bytes).map_err(|e| {
            ControlError::unavailable(format!("the answer of {} cannot be read", self.url()))
                .because(&e)
                .help("the node may be of another version than this command: restart it")
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> ControlError {
        let what = if error.is_timeout() {
            format!("the node at {} gave no answer in time", self.url())
        } else {
            format!("the node at {} cannot be reached", self.url())
        };
        let mut out = ControlError::unavailable(what);
        // The outermost text repeats the address; the causes say what happened.
        if let Some(cause) = error.source() {
            out = out.because(cause);
        }
        out.help("see `watchbell status`, or start one with `watchbell up`")
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> Result<T> {
        let response = self.send(Method::GET, path, query, None, false).await?;
        self.json(response).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
        patient: bool,
    ) -> Result<T> {
        self.post_bytes(path, to_json(body)?, patient).await
    }

    async fn post_bytes<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: Vec<u8>,
        patient: bool,
    ) -> Result<T> {
        let response = self.send(Method::POST, path, &[], Some(body), patient).await?;
        self.json(response).await
    }
}

/// A name as one segment of a path. Addresses cannot carry the empty name and the two dot names
/// (they mean the folder itself and its parent), and nothing is called so.
fn segment<'a>(what: &str, name: &'a str) -> Result<&'a str> {
    if matches!(name, "" | "." | "..") {
        return Err(ControlError::not_found(what, name, []));
    }
    Ok(name)
}

/// Text as one segment of a path. The address type would drop line feeds and tabs.
fn encode(segment: &str) -> String {
    let mut text = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                text.push(byte.into());
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn to_json(body: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(body)
        .map_err(|e| ControlError::internal("cannot write the request").because(&e))
}

/// The parameters of a question for events.
fn event_pairs(q: EventQuery, wait: Option<Millis>) -> Vec<(&'static str, String)> {
    let mut query = pairs(&[
        ("after", q.after.map(|n| n.to_string())),
        ("limit", Some(q.limit.to_string())),
        ("wait", wait.map(Millis::exact)),
    ]);
    query.extend(q.kinds.into_iter().map(|k| ("kind", k)));
    query
}

/// Query parameters that are present.
fn pairs(all: &[(&'static str, Option<String>)]) -> Vec<(&'static str, String)> {
    all.iter().filter_map(|(k, v)| v.clone().map(|v| (*k, v))).collect()
}

/// A value's JSON text without quotes: the word of a unit variant.
fn word(value: &impl Serialize) -> Option<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(s)) => Some(s),
        _ => None,
    }
}

const V1: &str = "v1";

impl Control for HttpControl {
    fn node(&self) -> BoxFuture<'_, Result<NodeInfo>> {
        Box::pin(self.get(&["api", V1, "node"], &[]))
    }

    fn ready(&self) -> BoxFuture<'_, Result<Readiness>> {
        Box::pin(async {
            // 503 is an answer here, with the same body.
            let mut url = self.base.clone();
            url.set_path("readyz");
            let request = self.client.get(url).timeout(self.timeout);
            let response = request.send().await.map_err(|e| self.unreachable(&e))?;
            self.json(response).await
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<Status>> {
        Box::pin(self.get(&["api", V1, "status"], &[]))
    }

    fn workers(&self) -> BoxFuture<'_, Result<Vec<WorkerLine>>> {
        Box::pin(self.get(&["api", V1, "workers"], &[]))
    }

    fn worker(&self, name: WorkerName) -> BoxFuture<'_, Result<WorkerDetail>> {
        Box::pin(async move {
            let name = segment("worker", name.as_str())?;
            self.get(&["api", V1, "workers", name], &[]).await
        })
    }

    fn act(&self, request: ActRequest) -> BoxFuture<'_, Result<WorkerRecord>> {
        Box::pin(async move {
            let name = segment("worker", request.worker.as_str())?;
            let path = ["api", V1, "workers", name, request.action.as_str()];
            self.post(&path, &ActBody { by: request.by }, false).await
        })
    }

    fn run(&self, request: RunRequest) -> BoxFuture<'_, Result<RunReport>> {
        Box::pin(async move {
            let name = segment("worker", request.worker.as_str())?;
            self.post(&["api", V1, "workers", name, "run"], &request.options, true).await
        })
    }

    fn schedules(&self) -> BoxFuture<'_, Result<Vec<ScheduleLine>>> {
        Box::pin(self.get(&["api", V1, "schedules"], &[]))
    }

    fn windows(&self, q: WindowQuery) -> BoxFuture<'_, Result<Vec<WindowRecord>>> {
        Box::pin(async move {
            let query = pairs(&[
                ("series", q.series.map(|s| s.to_string())),
                ("state", q.state.as_ref().and_then(word)),
                ("from", q.from.map(|t| t.0.to_string())),
                ("to", q.to.map(|t| t.0.to_string())),
                ("all_versions", q.all_versions.then(|| "true".to_owned())),
                ("limit", Some(q.limit.to_string())),
            ]);
            self.get(&["api", V1, "windows"], &query).await
        })
    }

    fn window(&self, series: SeriesName, start: Time) -> BoxFuture<'_, Result<Vec<WindowRecord>>> {
        Box::pin(async move {
            let series = segment("series", series.as_str())?;
            self.get(&["api", V1, "windows", series, &start.0.to_string()], &[]).await
        })
    }

    fn verify(&self, request: VerifyRequest) -> BoxFuture<'_, Result<Vec<VerifyReport>>> {
        Box::pin(async move { self.post(&["api", V1, "verify"], &request, true).await })
    }

    fn backfill(&self, request: BackfillRequest) -> BoxFuture<'_, Result<BackfillReport>> {
        Box::pin(async move { self.post(&["api", V1, "backfills"], &request, true).await })
    }

    fn change_window(&self, r: WindowRequest) -> BoxFuture<'_, Result<WindowChanged>> {
        Box::pin(async move {
            let series = segment("series", r.series.as_str())?;
            let start = r.start.0.to_string();
            let path = ["api", V1, "windows", series, &start, r.wish.as_str()];
            self.post(&path, &r.options, true).await
        })
    }

    fn backfills(&self) -> BoxFuture<'_, Result<Vec<BackfillRecord>>> {
        Box::pin(self.get(&["api", V1, "backfills"], &[]))
    }

    fn events(&self, q: EventQuery) -> BoxFuture<'_, Result<Vec<EventRecord>>> {
        Box::pin(async move { self.get(&["api", V1, "events"], &event_pairs(q, None)).await })
    }

    fn next_events(&self, q: EventQuery, wait: Millis) -> BoxFuture<'_, Result<Vec<EventRecord>>> {
        Box::pin(async move {
            // Half of the patience is left for the answer itself; who follows asks again anyway.
            let longest = Millis(i64::try_from(self.timeout.as_millis() / 2).unwrap_or(i64::MAX));
            let query = event_pairs(q, Some(wait.min(longest)));
            self.get(&["api", V1, "events"], &query).await
        })
    }

    fn emit(&self, request: EmitRequest) -> BoxFuture<'_, Result<Emitted>> {
        Box::pin(async move { self.post(&["api", V1, "events"], &request, false).await })
    }

    fn dead_letters(&self, limit: u32) -> BoxFuture<'_, Result<Vec<DeadLetter>>> {
        Box::pin(async move {
            self.get(&["api", V1, "dead-letters"], &[("limit", limit.to_string())]).await
        })
    }

    fn jobs(&self, q: JobQuery) -> BoxFuture<'_, Result<Vec<JobRecord>>> {
        Box::pin(async move {
            let f = q.filter;
            let mut query = pairs(&[
                ("kind", f.kind),
                ("state", f.state.as_ref().and_then(word)),
                ("unique_key", f.unique_key),
                ("limit_key", f.limit_key),
                ("error", f.error),
                ("created_before", f.created_before.map(|t| t.0.to_string())),
                ("finished_before", f.finished_before.map(|t| t.0.to_string())),
                ("before", q.before.map(|n| n.to_string())),
                ("limit", Some(q.limit.to_string())),
            ]);
            query.extend(f.ids.into_iter().map(|id| ("id", id.to_string())));
            self.get(&["api", V1, "jobs"], &query).await
        })
    }

    fn job(&self, id: i64) -> BoxFuture<'_, Result<JobDetail>> {
        Box::pin(async move { self.get(&["api", V1, "jobs", &id.to_string()], &[]).await })
    }

    fn enqueue(&self, jobs: Vec<NewJob>) -> BoxFuture<'_, Result<Vec<Enqueued>>> {
        Box::pin(async move {
            let body = to_json(&jobs)?;
            drop(jobs);
            // The node would close the connection over a longer one, which tells nobody why.
            if body.len() > MAX_BULK {
                return Err(ControlError::invalid(format!(
                    "the jobs are {} bytes of JSON, and one request takes {MAX_BULK}",
                    body.len()
                ))
                .help("enqueue them in several parts; each is added whole or not at all"));
            }
            self.post_bytes(&["api", V1, "jobs"], body, true).await
        })
    }

    fn change_jobs(&self, change: JobChange) -> BoxFuture<'_, Result<JobChanged>> {
        Box::pin(async move {
            let path = ["api", V1, "jobs", job_action_word(change.action)];
            self.post(&path, &JobChangeBody::from(change), true).await
        })
    }

    fn kinds(&self) -> BoxFuture<'_, Result<Vec<KindRecord>>> {
        Box::pin(self.get(&["api", V1, "kinds"], &[]))
    }

    fn queue(&self) -> BoxFuture<'_, Result<Vec<QueueLine>>> {
        Box::pin(self.get(&["api", V1, "queue"], &[]))
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<NodeRecord>>> {
        Box::pin(self.get(&["api", V1, "nodes"], &[]))
    }

    fn explain(&self, thing: String) -> BoxFuture<'_, Result<Explanation>> {
        Box::pin(async move {
            let thing = segment("thing", &thing)?;
            self.get(&["api", V1, "explain", thing], &[]).await
        })
    }

    fn metrics(&self) -> BoxFuture<'_, Result<String>> {
        Box::pin(async {
            let response = self.send(Method::GET, &["metrics"], &[], None, false).await?;
            response.text().await.map_err(|e| self.unreachable(&e))
        })
    }

    fn health(&self, name: WorkerName) -> BoxFuture<'_, Result<WorkerHealth>> {
        Box::pin(async move {
            let name = segment("worker", name.as_str())?;
            self.get(&["api", V1, "workers", name, "health"], &[]).await
        })
    }

    fn workers_health(&self) -> BoxFuture<'_, Result<WorkersHealth>> {
        Box::pin(self.get(&["api", V1, "internal", "health", "workers"], &[]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_of_a_node_is_taken() {
        for good in ["http://127.0.0.1:8770", "http://[::1]:8770/", "http://localhost:1"] {
            let client = HttpControl::new(good, DEFAULT_TIMEOUT).unwrap();
            assert_eq!(client.url(), good.trim_end_matches('/'));
        }
        for bad in ["", "127.0.0.1:8770", "https://127.0.0.1", "unix:/run/x", "http://"] {
            let error = HttpControl::new(bad, DEFAULT_TIMEOUT).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad}");
            assert!(error.reason().help.unwrap().contains("http://127.0.0.1:8770"));
        }
    }

    #[test]
    fn every_byte_of_a_name_fits_into_a_path() {
        assert_eq!(encode("window-sampler-30m_a.b~c"), "window-sampler-30m_a.b~c");
        assert_eq!(encode("a/b ü%\t"), "a%2Fb%20%C3%BC%25%09");
    }
}
