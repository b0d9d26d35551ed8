//! What every simulated venue stands on: market, clock, faults and journal; the socket; and the way of
//! a request from its faults to its line in the journal.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Method, Response, StatusCode, Uri, header};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use watchbell_clock::Clock;
use watchbell_core::{Millis, Time};

use super::SimError;
use super::fault::{FaultKind, FaultRule, FaultScript, Faults};
use super::journal::{Journal, JournalEntry};
use super::market::{Market, lock};
use super::net::{Door, Peer};

pub(super) const HTML: &str = "text/html";

/// What a proxy in front of a venue says.
const PROXY_PAGE: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
     <center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";

/// What all connections of a simulated venue share.
#[derive(Debug)]
pub(super) struct Floor {
    pub(super) market: Arc<Market>,
    pub(super) clock: Clock,
    pub(super) faults: Mutex<Faults>,
    pub(super) journal: Journal,
    stopping: watch::Receiver<bool>,
}

impl Floor {
    pub(super) fn new(
        market: Arc<Market>,
        clock: Clock,
        script: FaultScript,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let faults = Mutex::new(Faults::new(script));
        Self { market, clock, faults, journal: Journal::default(), stopping }
    }

    pub(super) fn is_down(&self) -> bool {
        lock(&self.faults).is_down(self.clock.now())
    }

    /// Resolves when the simulator stops.
    pub(super) async fn stopped(&self) {
        let mut stopping = self.stopping.clone();
        // An error means that the simulator is gone, which is a stop as well.
        if stopping.wait_for(|stop| *stop).await.is_err() {
            tracing::debug!("the venue simulator was dropped");
        }
    }

    /// The faults that a request meets. Those that delay it have been sat out; one that meets
    /// [`FaultKind::Timeout`] is to be noted and kept until the simulator [stops](Self::stopped).
    pub(super) async fn meet(&self, target: &str, symbol: Option<&str>, at: Time) -> Met {
        let met = Met(lock(&self.faults).strike(target, symbol, at, |_| true));
        for fault in &met.0 {
            if let FaultKind::Latency(span) = fault.kind {
                tokio::select! {
                    () = self.clock.sleep(span) => {}
                    () = self.stopped() => {}
                }
            }
        }
        met
    }

    /// Writes a request and its answer, if it got one, into the journal.
    pub(super) fn note(
        &self,
        (method, uri): (&Method, &Uri),
        used_weight: u32,
        faults: &Met,
        answer: Option<&Answer>,
    ) {
        self.journal.note(JournalEntry {
            seq: 0,
            at: self.clock.now(),
            method: if *method == Method::GET { "GET" } else { "other" },
            target: uri.path_and_query().map_or_else(String::new, |target| {
                // The signature of a request says nothing that its other parameters do not say.
                let target = target.as_str();
                target.split("&signature=").next().unwrap_or(target).to_owned()
            }),
            status: answer.map_or(0, |a| a.status),
            rows: answer.map_or(0, |a| a.rows),
            bytes: answer.map_or(0, |a| a.body.len()),
            used_weight,
            faults: faults.0.iter().map(ToString::to_string).collect(),
        });
    }

    /// Gives an answer the headers that all venues send.
    pub(super) fn respond(&self, answer: Answer) -> Response<Body> {
        let mut response = Response::new(Body::from(answer.body));
        // A connection that is cut before the answer never shows this status.
        *response.status_mut() =
            StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.kind));
        if let Some(Ok(date)) = http_date(self.clock.now()).map(HeaderValue::try_from) {
            headers.insert(header::DATE, date);
        }
        if let Some(after) = answer.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after));
        }
        response
    }
}

/// `Tue, 15 Nov 1994 08:12:31 GMT`; nothing for an instant outside the calendar.
fn http_date(t: Time) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(t.0).ok()?;
    Some(at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
}

/// The faults that a request met.
#[derive(Debug, Default)]
pub(super) struct Met(pub(super) Vec<FaultRule>);

impl Met {
    pub(super) fn hit(&self, kind: FaultKind) -> bool {
        self.0.iter().any(|f| f.kind == kind)
    }

    /// How old the answer is.
    pub(super) fn stale(&self) -> i64 {
        let by = |f: &FaultRule| if let FaultKind::Stale(by) = f.kind { by.0 } else { 0 };
        self.0.iter().map(by).sum()
    }

    /// How far the venue's own clock is ahead.
    pub(super) fn skew(&self) -> i64 {
        let by = |f: &FaultRule| if let FaultKind::Skew(by) = f.kind { by.0 } else { 0 };
        self.0.iter().map(by).sum()
    }

    /// Swaps, repeats and such, for rows in order of time or levels from the best.
    pub(super) fn disorder<T: Clone>(&self, rows: &mut Vec<T>) {
        if self.hit(FaultKind::Duplicate)
            && let Some(row) = rows.get(rows.len() / 2).cloned()
        {
            rows.insert(rows.len() / 2, row);
        }
        if self.hit(FaultKind::Unordered) && rows.len() > 1 {
            let at = rows.len() / 2;
            rows.swap(at - 1, at);
        }
    }
}

/// An answer before its headers.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    pub(super) body: Vec<u8>,
    pub(super) rows: usize,
    pub(super) retry_after: Option<i64>,
}

impl Answer {
    /// A page with this status and nothing to count.
    pub(super) fn page(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, kind: HTML, body: body.into(), rows: 0, retry_after: None }
    }

    /// What the venue's edge says to those whom it keeps out.
    pub(super) fn forbidden() -> Self {
        Self::page(403, "<html><head><title>403 Forbidden</title></head><body></body></html>")
    }
}

/// How a venue says that something is wrong; the rest of a fault is the same at all of them.
pub(super) trait Trouble {
    /// An error answer of that status.
    fn status(&self, status: u16) -> Answer;
    /// Bans an address, and what that says.
    fn ban(&self, peer: &Peer, span: Millis) -> Answer;
    /// An error where the status says that all is well.
    fn object(&self) -> Answer;
}

impl Met {
    /// Lets the faults work on a finished answer, and forgets those that had nothing to do with it.
    pub(super) fn apply(&mut self, venue: &impl Trouble, peer: &Peer, answer: &mut Answer) {
        self.0.retain(|fault| apply(venue, peer, fault.kind, answer));
    }
}

fn apply(venue: &impl Trouble, peer: &Peer, fault: FaultKind, answer: &mut Answer) -> bool {
    match fault {
        FaultKind::Status { status, retry_after } => {
            *answer = Answer { retry_after, ..venue.status(status) };
        }
        FaultKind::Ban(span) => *answer = venue.ban(peer, span),
        FaultKind::Reset | FaultKind::Down => {
            peer.cut.after(0, true);
            answer.status = 0;
        }
        // About 400 bytes of headers go first.
        FaultKind::ResetBody => peer.cut.after(400 + answer.body.len() / 2, true),
        FaultKind::Truncated => peer.cut.after(400 + answer.body.len() / 2, false),
        FaultKind::Html(status) => *answer = Answer::page(status, PROXY_PAGE),
        FaultKind::Empty => answer.body.clear(),
        FaultKind::Null => answer.body = b"null".to_vec(),
        FaultKind::ErrorObject => *answer = venue.object(),
        FaultKind::Malformed => answer.body.truncate(answer.body.len().saturating_sub(2)),
        // These have been at work while the answer was made.
        FaultKind::Latency(_)
        | FaultKind::Timeout
        | FaultKind::Stale(_)
        | FaultKind::Skew(_)
        | FaultKind::Duplicate
        | FaultKind::Unordered
        | FaultKind::Crossed
        | FaultKind::WrongWidth
        | FaultKind::Number
        | FaultKind::Outside => {}
        FaultKind::Missing(_)
        | FaultKind::Revised(_)
        | FaultKind::Halt
        | FaultKind::Drop
        | FaultKind::Silence
        | FaultKind::SkipFrame
        | FaultKind::DuplicateFrame
        | FaultKind::BrokenFrame
        | FaultKind::Boundary => return false,
    }
    true
}

/// A server that runs until it is told to stop, or dropped.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<io::Result<()>>>,
}

/// An address that is ours, before anything is served on it.
#[derive(Debug)]
pub(super) struct Bound {
    tcp: TcpListener,
    address: SocketAddr,
    stop: watch::Sender<bool>,
}

impl Bound {
    pub(super) async fn to(bind: SocketAddr) -> Result<Self, SimError> {
        let fail = |source| SimError::Bind { address: bind, source };
        let tcp = TcpListener::bind(bind).await.map_err(fail)?;
        let address = tcp.local_addr().map_err(fail)?;
        Ok(Self { tcp, address, stop: watch::channel(false).0 })
    }

    /// For the [`Floor`]: tells when the server stops.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    pub(super) fn serve(self, router: Router, floor: &Arc<Floor>) -> Server {
        let Self { tcp, address, stop } = self;
        let door = Door { tcp, floor: Arc::downgrade(floor) };
        let service = router.into_make_service_with_connect_info::<Peer>();
        let watched = Arc::clone(floor);
        let task = tokio::spawn(async move {
            axum::serve(door, service)
                .with_graceful_shutdown(async move { watched.stopped().await })
                .await
        });
        tracing::debug!(%address, "the venue simulator listens");
        Server { address, stop, task: Some(task) }
    }
}

impl Server {
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets requests in progress finish, and stops.
    pub(super) async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task.take() {
            match task.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the venue simulator ended badly"),
                Err(error) => tracing::warn!(%error, "the venue simulator panicked"),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
