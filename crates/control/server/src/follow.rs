//! Events as they come: a question that waits for its answer (long polling), and a stream of
//! server-sent events (the HTML standard's `text/event-stream`).
//!
//! Both read by number from the store, so what a client has seen decides what it gets next, and
//! nothing is lost when a connection breaks. A stream asks for the next events only when the client
//! has taken the last ones, so a slow client costs one batch of memory, and there is a limit to how
//! many clients follow at once.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::{Json as Answer, body::Bytes};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use watchbell_api::{Control, ControlError, Problem};
use watchbell_clock::Clock;
use watchbell_core::port::EventQuery;
use watchbell_core::{EventRecord, Millis};

use crate::Options;
use crate::params::Params;
use crate::problem::Failure;

/// Events that one piece of a stream holds.
const BATCH: u32 = 200;
/// Between two questions of which the first had no answer.
const PAUSE: Millis = Millis(250);

/// What everybody who follows shares.
#[derive(Debug, Clone)]
pub(crate) struct Follow {
    clients: Arc<Semaphore>,
    most: usize,
    stopping: watch::Receiver<bool>,
    clock: Clock,
    /// How long one question may wait.
    wait: Millis,
}

impl Follow {
    pub(crate) fn new(options: &Options, stopping: watch::Receiver<bool>) -> Self {
        Self {
            clients: Arc::new(Semaphore::new(options.max_followers)),
            most: options.max_followers,
            stopping,
            clock: options.clock.clone(),
            // Well within the time that a request may take.
            wait: Millis(options.timeout.0 / 2),
        }
    }

    fn enter(&self) -> Result<OwnedSemaphorePermit, ControlError> {
        Arc::clone(&self.clients).try_acquire_owned().map_err(|_| {
            ControlError::unavailable(format!("{} clients follow the events already", self.most))
                .help("end one of them, or ask `GET /api/v1/events?after=ID` from time to time")
        })
    }

    /// The next events; none once the API stops, so that nobody who follows holds up the node.
    async fn next(
        &self,
        control: &dyn Control,
        query: EventQuery,
        wait: Millis,
    ) -> Result<Vec<EventRecord>, ControlError> {
        tokio::select! {
            () = self.stopped() => Ok(Vec::new()),
            events = control.next_events(query, wait.min(self.wait)) => events,
        }
    }

    async fn stopped(&self) {
        let mut stopping = self.stopping.clone();
        if stopping.wait_for(|stop| *stop).await.is_err() {
            // Nobody is there who could stop it.
            std::future::pending::<()>().await;
        }
    }

    fn is_stopped(&self) -> bool {
        *self.stopping.borrow()
    }
}

/// `GET events`: a list at once, or with `wait` as soon as there is something in it.
pub(crate) async fn events(
    State(c): State<Arc<dyn Control>>,
    Extension(follow): Extension<Follow>,
    mut params: Params,
) -> Result<Answer<Vec<EventRecord>>, Failure> {
    let query = EventQuery {
        after: params.number("after", "an event")?,
        kinds: params.all("kind"),
        limit: params.limit(100)?,
    };
    let wait = params.span("wait")?;
    params.finish()?;
    let Some(wait) = wait else { return Ok(Answer(c.events(query).await?)) };
    if query.after.is_none() {
        return Err(ControlError::invalid("`wait` needs `after`: the event to wait behind").into());
    }
    let client = follow.enter()?;
    let events = follow.next(&*c, query, wait).await?;
    drop(client);
    Ok(Answer(events))
}

/// `GET events/stream`: begins after `Last-Event-ID` or `after`, and else with what comes next.
pub(crate) async fn stream_events(
    State(control): State<Arc<dyn Control>>,
    Extension(follow): Extension<Follow>,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Failure> {
    let after = params.number("after", "an event")?;
    let kinds = params.all("kind");
    params.finish()?;
    let seen = headers.get("last-event-id").map(|v| {
        let number = v.to_str().ok().and_then(|text| text.trim().parse::<i64>().ok());
        number.ok_or_else(|| ControlError::invalid("`Last-Event-ID` is not the number of an event"))
    });
    let client = follow.enter()?;
    let after = match seen.transpose()?.or(after) {
        Some(after) => after,
        None => {
            let newest = EventQuery { after: None, kinds: kinds.clone(), limit: 1 };
            control.events(newest).await?.last().map_or(0, |e| e.id)
        }
    };
    let hello = Bytes::from(format!(": events after {after}\n\n"));
    let reader = Reader { control, follow, kinds, after, hello: Some(hello), over: false, client };
    let pieces = stream::unfold(reader, async |mut reader| {
        let piece = reader.next().await?;
        Some((Ok::<_, Infallible>(piece), reader))
    });
    let head = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((head, Body::from_stream(pieces)).into_response())
}

/// One client's place in the events.
struct Reader {
    control: Arc<dyn Control>,
    follow: Follow,
    kinds: Vec<String>,
    after: i64,
    /// What is said first, so that the client knows that it is connected.
    hello: Option<Bytes>,
    over: bool,
    /// Its place among those who follow, given back when the connection ends.
    #[expect(dead_code, reason = "held, not read")]
    client: OwnedSemaphorePermit,
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(hello) = self.hello.take() {
            return Some(hello);
        }
        if self.over || self.follow.is_stopped() {
            return None;
        }
        let query = EventQuery { after: Some(self.after), kinds: self.kinds.clone(), limit: BATCH };
        match self.follow.next(&*self.control, query, self.follow.wait).await {
            Ok(events) if events.is_empty() => {
                tokio::select! {
                    () = self.follow.clock.sleep(PAUSE) => {}
                    () = self.follow.stopped() => {}
                }
                // A comment keeps the connection from being taken for dead.
                Some(Bytes::from_static(b": nothing new\n\n"))
            }
            Ok(events) => {
                self.after = events.last().map_or(self.after, |e| e.id);
                Some(events.iter().map(piece).collect::<String>().into())
            }
            Err(error) => {
                // The client comes back after its last number by itself.
                self.over = true;
                let problem = serde_json::to_string(&Problem::from(&error)).unwrap_or_default();
                Some(format!("event: problem\ndata: {problem}\n\n").into())
            }
        }
    }
}

/// One event of the stream. JSON text has no line feed outside of its strings, and none in them.
fn piece(event: &EventRecord) -> String {
    let data = serde_json::to_string(event).unwrap_or_default();
    format!("id: {}\ndata: {data}\n\n", event.id)
}
