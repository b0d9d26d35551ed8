//! Where the venue is and how much of it we use.

use watchbell_core::Millis;

/// Configuration of the client. The default is the real venue.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// REST host, such as `https://api.binance.com`, without a path.
    pub base_url: String,
    /// Hosts that give the same answers, tried in turn when one fails.
    pub alternates: Vec<String>,
    /// Host of the streams, such as `wss://stream.binance.com:9443`.
    pub ws_base_url: String,
    /// Time for a whole exchange, from sending to the last byte.
    pub request_timeout: Millis,
    /// How the venue sees us.
    pub user_agent: String,
    /// Weight per minute until the venue states its own limit.
    pub weight_limit: i64,
    /// Share of that limit that all requests together may use.
    pub weight_limit_fraction: f64,
    /// Share up to which backfill may use it.
    pub backfill_limit_fraction: f64,
    /// Tries per request, the first one included.
    pub tries: u32,
    /// Wait before the second try; doubles with each further one, with a jitter of a quarter.
    pub retry_base: Millis,
    /// Age after which the difference between the venue's clock and ours is measured again.
    pub skew_max_age: Millis,
    /// Largest answer that is read, in bytes.
    pub max_body: usize,
    /// Time without any frame after which a stream is given up.
    pub stream_silence: Millis,
    /// Age at which a stream is renewed; the venue cuts it at 24 h.
    pub stream_max_age: Millis,
    /// Longest wait between two attempts to connect a stream.
    pub stream_backoff_cap: Millis,
}

impl Default for Config {
    fn default() -> Self {
        let alternate = |n: u8| format!("https://api{n}.binance.com");
        Self {
            base_url: "https://api.binance.com".into(),
            alternates: (1..=4).map(alternate).collect(),
            ws_base_url: "wss://stream.binance.com:9443".into(),
            request_timeout: Millis::from_secs(15),
            user_agent: concat!("watchbell/", env!("CARGO_PKG_VERSION")).into(),
            weight_limit: 6_000,
            weight_limit_fraction: 0.8,
            backfill_limit_fraction: 0.6,
            tries: 3,
            retry_base: Millis(250),
            skew_max_age: Millis::from_mins(10),
            max_body: 64 << 20,
            stream_silence: Millis::from_secs(60),
            stream_max_age: Millis::from_mins(23 * 60 + 50),
            stream_backoff_cap: Millis::from_secs(30),
        }
    }
}

/// A configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value out of its range.
    #[error("binance configuration: {field} is {value}, but must be {must}")]
    Value {
        /// Its name.
        field: &'static str,
        /// What it is.
        value: String,
        /// What it must be.
        must: &'static str,
    },
    /// The HTTP client could not be built.
    #[error("binance configuration: cannot build the HTTP client: {0}")]
    Http(String),
}

impl Config {
    /// One REST host without alternates, and one stream host: a simulator, or a proxy.
    #[must_use]
    pub fn at(base_url: impl Into<String>, ws_base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            alternates: Vec::new(),
            ws_base_url: ws_base_url.into(),
            ..Self::default()
        }
    }

    /// All REST hosts, the first choice first, without a slash at the end.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let all = std::iter::once(&self.base_url).chain(&self.alternates);
        all.map(|h| h.trim_end_matches('/').to_owned()).collect()
    }

    /// Whether this configuration can work.
    ///
    /// # Errors
    /// The first value that is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |field, value: String, must| Err(ConfigError::Value { field, value, must });
        for host in std::iter::once(&self.base_url).chain(&self.alternates) {
            if !(host.starts_with("https://") || host.starts_with("http://")) {
                return bad("base_url", host.clone(), "an http:// or https:// address");
            }
        }
        if !(self.ws_base_url.starts_with("wss://") || self.ws_base_url.starts_with("ws://")) {
            return bad("ws_base_url", self.ws_base_url.clone(), "a ws:// or wss:// address");
        }
        for (field, share) in [
            ("weight_limit_fraction", self.weight_limit_fraction),
            ("backfill_limit_fraction", self.backfill_limit_fraction),
        ] {
            if !(share > 0.0 && share <= 1.0) {
                return bad(field, share.to_string(), "above 0 and at most 1");
            }
        }
        if self.tries == 0 {
            return bad("tries", "0".into(), "at least 1");
        }
        for (field, span) in [
            ("request_timeout", self.request_timeout),
            ("retry_base", self.retry_base),
            ("stream_silence", self.stream_silence),
            ("stream_max_age", self.stream_max_age),
            ("stream_backoff_cap", self.stream_backoff_cap),
        ] {
            if span.0 <= 0 {
                return bad(field, span.to_string(), "a positive duration");
            }
        }
        Ok(())
    }
}

/// `base` doubled `step` times, at most `cap`, a quarter more or less. The jitter keeps many clients
/// from coming back at the same instant; nothing computed depends on it.
pub(crate) fn backoff(base: Millis, step: u32, cap: Millis) -> Millis {
    use std::hash::{BuildHasher, Hasher};
    let span = base.0.saturating_mul(1_i64 << step.min(20)).min(cap.0);
    let random = std::hash::RandomState::new().build_hasher().finish() % 1_001;
    Millis(span * 3 / 4 + span * random as i64 / 2_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_venue_and_works() {
        let c = Config::default();
        assert_eq!(c.check(), Ok(()));
        assert_eq!(c.hosts()[0], "https://api.binance.com");
        assert_eq!(c.hosts().len(), 5);
        assert_eq!(Config::at("http://127.0.0.1:1/", "ws://x").hosts(), ["http://127.0.0.1:1"]);
    }

    #[test]
    fn mistakes_are_named() {
        let share = Config { weight_limit_fraction: 80.0, ..Config::default() };
        assert_eq!(
            share.check().unwrap_err().to_string(),
            "binance configuration: weight_limit_fraction is 80, but must be above 0 and at most 1"
        );
        assert!(Config::at("api.binance.com", "wss://x").check().is_err());
        assert!(Config::at("http://x", "http://x").check().is_err());
    }

    #[test]
    fn backoff_doubles_up_to_its_cap_with_a_quarter_of_jitter() {
        for (step, span) in [(0, 250), (1, 500), (2, 1_000), (9, 30_000), (40, 30_000)] {
            let b = backoff(Millis(250), step, Millis::from_secs(30)).0;
            assert!(b >= span * 3 / 4 && b <= span * 5 / 4, "{step}: {b}");
        }
    }
}
