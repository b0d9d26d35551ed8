//! How the HTTP client is built, in one place.

use std::sync::{Once, OnceLock};
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderMap;
use watchbell_core::{Millis, Time};

use crate::binance::chain;

static PROVIDER: Once = Once::new();

/// Installs the TLS implementation of this process, once. Without it the first `https` or `wss`
/// connection would panic, for the HTTP library is built without one of its own.
pub fn install_tls() {
    PROVIDER.call_once(|| {
        // An error means that another part of the process installed one first: just as good.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
}

/// A client with the limits that every venue gets: 5 s to connect, no redirects (a venue does not
/// redirect; a portal that asks for a password does), and `backstop` on a whole exchange.
///
/// The time limit that a caller sees is the clock's; `backstop` only frees a connection that hangs
/// while the clock of a test stands still.
///
/// # Errors
/// When the user agent is no valid header value, or the system's certificates cannot be read.
pub fn client(user_agent: &str, backstop: Duration) -> Result<reqwest::Client, reqwest::Error> {
    install_tls();
    reqwest::Client::builder()
        .user_agent(user_agent)
        .connect_timeout(Duration::from_secs(5))
        .timeout(backstop)
        .pool_idle_timeout(Duration::from_secs(30))
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

/// One answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads an answer of at most `most` bytes to its end; `words` says what an error of the HTTP
    /// library tells, which may quote an address that nobody else should see.
    ///
    /// # Errors
    /// What happened, in one line.
    pub(crate) async fn read(
        mut response: reqwest::Response,
        most: usize,
        words: impl Fn(reqwest::Error) -> String,
    ) -> Result<Self, String> {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Vec::new();
        loop {
            let chunk = response.chunk().await.map_err(|e| {
                format!("the answer broke off after {} bytes: {}", body.len(), words(e))
            })?;
            let Some(chunk) = chunk else { return Ok(Self { status, headers, body }) };
            if body.len() + chunk.len() > most {
                return Err(format!("the answer is longer than {most} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
    }

    fn text(&self, header: &str) -> Option<&str> {
        self.headers.get(header)?.to_str().ok().map(str::trim)
    }

    /// A header that is a whole number.
    pub(crate) fn number(&self, header: &str) -> Option<i64> {
        self.text(header)?.parse().ok()
    }

    /// How long to wait before the next request, as the answer says; `now` is our time.
    pub(crate) fn retry_after(&self, now: Time) -> Option<Millis> {
        let seconds = self.number("retry-after").map(|s| Millis::from_secs(s.min(1 << 31)));
        let date = || self.text("retry-after").and_then(http_date).map(|at| at - now);
        seconds.or_else(date).filter(|wait| wait.0 > 0)
    }

    /// The server's clock when it made the answer, which may have lain in a cache since.
    pub(crate) fn made_at(&self) -> Option<Time> {
        let age = self.number("age").unwrap_or(0).clamp(0, 86_400);
        Some(http_date(self.text("date")?)? - Millis::from_secs(age))
    }
}

/// `Tue, 15 Nov 1994 08:12:31 GMT`.
fn http_date(text: &str) -> Option<Time> {
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(Time(date.timestamp().as_millisecond()))
}

/// Connections to a host. Built at the first request: reading the system's certificates takes a while,
/// and many commands never ask anybody anything.
#[derive(Debug)]
pub(crate) struct Connections {
    user_agent: &'static str,
    backstop: Duration,
    client: OnceLock<reqwest::Client>,
}

impl Connections {
    /// `limit` is the time limit that callers see by the clock; twice as long, a connection is freed.
    pub(crate) fn new(user_agent: &'static str, limit: Millis) -> Self {
        let backstop = limit.to_std().max(Duration::from_secs(1)) * 2;
        Self { user_agent, backstop, client: OnceLock::new() }
    }

    /// One GET, of at most `most` bytes.
    ///
    /// # Errors
    /// What happened, in one line.
    pub(crate) async fn get(&self, url: Url, most: usize) -> Result<Answer, String> {
        let client = match self.client.get() {
            Some(client) => client,
            None => {
                let new = client(self.user_agent, self.backstop)
                    .map_err(|e| format!("cannot build the HTTP client: {}", chain(&e)))?;
                self.client.get_or_init(|| new)
            }
        };
        let response = client.get(url).send().await.map_err(|e| chain(&e))?;
        Answer::read(response, most, |e| chain(&e)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(headers: &[(&'static str, &'static str)]) -> Answer {
        let pairs = headers.iter().map(|(name, value)| {
            (name.parse::<reqwest::header::HeaderName>().unwrap(), value.parse().unwrap())
        });
        Answer { status: 200, headers: pairs.collect(), body: Vec::new() }
    }

    #[test]
    fn a_wait_is_seconds_or_a_date() {
        let now = Time::parse("1994-11-15T08:12:00Z").unwrap();
        let date = "Tue, 15 Nov 1994 08:12:31 GMT";
        for (value, want) in [
            ("7", Some(7)),
            (" 120 ", Some(120)),
            (date, Some(31)),
            ("0", None),
            ("-3", None),
            ("soon", None),
            ("Tue, 15 Nov 1994 08:11:31 GMT", None),
        ] {
            let wait = answer(&[("retry-after", value)]).retry_after(now);
            assert_eq!(wait, want.map(Millis::from_secs), "{value}");
        }
        assert_eq!(answer(&[]).retry_after(now), None);
        let made = answer(&[("date", date), ("age", "31")]).made_at();
        assert_eq!((made, answer(&[("age", "3")]).made_at()), (Some(now), None));
    }
}
