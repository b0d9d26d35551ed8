//! Where an exchange is, and how much of it we use.

use watchbell_core::Millis;

use super::venue::Venue;

/// Configuration of the client of one exchange. [`NativeConfig::of`] has its defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct NativeConfig {
    /// Scheme and host, such as `https://api.kraken.com`, without a path.
    pub base_url: String,
    /// Time for a whole exchange, from sending to the last byte.
    pub timeout: Millis,
    /// Requests a second, on average.
    pub rate_per_second: f64,
    /// Requests that may go at once after a rest.
    pub burst: u32,
    /// Further tries of a request that failed.
    pub retries: u32,
    /// Wait before the first of them; doubles with each further one, a quarter more or less.
    pub backoff: Millis,
    /// Share of failures, 0 to 1, that opens the circuit breaker.
    pub failure_ratio: f64,
    /// Newest requests that the share is taken over.
    pub window: usize,
    /// Failures in a row that open it.
    pub consecutive: u32,
    /// First wait before an open breaker tries again.
    pub probe: Millis,
    /// Requests in a UTC day.
    pub daily_budget: u64,
    /// Requests in a UTC month.
    pub monthly_budget: u64,
}

impl NativeConfig {
    /// The exchange itself, with the figures of sections 10.2 to 10.4.
    ///
    /// Kraken gets 10,000 requests a day where the table has 5,000, and 300,000 a month: the three
    /// jobs need about 6,300 a day, and the exchange allows 86,400. Coinbase gets bursts of 15 where the
    /// table has 25: it lets no more through at once.
    #[must_use]
    pub fn of(venue: Venue) -> Self {
        struct Row {
            base_url: &'static str,
            rate: f64,
            burst: u32,
            retries: u32,
            backoff: i64,
            ratio: f64,
            window: usize,
            consecutive: u32,
            probe: i64,
            daily: u64,
            monthly: u64,
        }
        let row = match venue {
            Venue::Kraken => Row {
                base_url: "https://api.kraken.com",
                rate: 1.0,
                burst: 15,
                retries: 4,
                backoff: 1_500,
                ratio: 0.7,
                window: 8,
                consecutive: 3,
                probe: 45,
                daily: 10_000,
                monthly: 300_000,
            },
            Venue::Okx => Row {
                base_url: "https://www.okx.com",
                rate: 5.0,
                burst: 30,
                retries: 3,
                backoff: 300,
                ratio: 0.4,
                window: 15,
                consecutive: 5,
                probe: 20,
                daily: 40_000,
                monthly: 1_000_000,
            },
            Venue::Coinbase => Row {
                base_url: "https://api.exchange.coinbase.com",
                rate: 3.0,
                burst: 15,
                retries: 3,
                backoff: 500,
                ratio: 0.4,
                window: 12,
                consecutive: 5,
                probe: 25,
                daily: 40_000,
                monthly: 1_000_000,
            },
            Venue::Binance => Row {
                base_url: "https://api.binance.com",
                rate: 10.0,
                burst: 50,
                retries: 2,
                backoff: 200,
                ratio: 0.3,
                window: 20,
                consecutive: 5,
                probe: 15,
                daily: 150_000,
                monthly: 4_000_000,
            },
        };
        Self {
            base_url: row.base_url.into(),
            timeout: Millis::from_secs(10),
            rate_per_second: row.rate,
            burst: row.burst,
            retries: row.retries,
            backoff: Millis(row.backoff),
            failure_ratio: row.ratio,
            window: row.window,
            consecutive: row.consecutive,
            probe: Millis::from_secs(row.probe),
            daily_budget: row.daily,
            monthly_budget: row.monthly,
        }
    }

    /// Whether this configuration can work, and asks the exchange itself.
    ///
    /// # Errors
    /// The first value that cannot be.
    pub fn check(&self, venue: Venue) -> Result<(), NativeConfigError> {
        self.checked(venue).map(drop)
    }

    /// The address, if this configuration can work.
    pub(super) fn checked(&self, venue: Venue) -> Result<reqwest::Url, NativeConfigError> {
        let bad = |field, value: String, must| {
            Err(NativeConfigError::Value { venue, field, value, must })
        };
        let url = reqwest::Url::parse(&self.base_url).ok();
        let Some(url) = url.filter(|u| {
            matches!(u.scheme(), "http" | "https") && u.path() == "/" && u.query().is_none()
        }) else {
            let must = "an http:// or https:// address without a path";
            return bad("base_url", self.base_url.clone(), must);
        };
        if !is_host_of(venue, &url) {
            let base_url = self.base_url.clone();
            return Err(NativeConfigError::Foreign { venue, base_url, domains: domains(venue) });
        }
        if !(self.rate_per_second > 0.0 && self.rate_per_second.is_finite()) {
            return bad("rate_per_second", self.rate_per_second.to_string(), "a positive number");
        }
        if !(self.failure_ratio > 0.0 && self.failure_ratio <= 1.0) {
            return bad("failure_ratio", self.failure_ratio.to_string(), "above 0 and at most 1");
        }
        for (field, count) in [
            ("burst", u64::from(self.burst)),
            ("window", self.window as u64),
            ("consecutive", u64::from(self.consecutive)),
        ] {
            if count == 0 {
                return bad(field, "0".into(), "at least 1");
            }
        }
        for (field, span) in
            [("timeout", self.timeout), ("backoff", self.backoff), ("probe", self.probe)]
        {
            if span.0 <= 0 {
                return bad(field, span.to_string(), "a positive duration");
            }
        }
        Ok(url)
    }
}

/// The domains of an exchange, with all that is below them.
const fn domains(venue: Venue) -> &'static str {
    match venue {
        Venue::Kraken => "kraken.com",
        Venue::Okx => "okx.com",
        Venue::Coinbase => "coinbase.com",
        Venue::Binance => "binance.com, binance.vision",
    }
}

/// Whether it is the exchange's own, or this machine, where a simulator may stand for it.
fn is_host_of(venue: Venue, url: &reqwest::Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost"
        || address.is_ok_and(|a| a.is_loopback())
        || domains(venue).split(", ").any(|domain| {
            host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
}

/// A configuration that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NativeConfigError {
    /// A value out of its range.
    #[error("{venue}: {field} is {value}, but must be {must}")]
    Value {
        /// Whose configuration.
        venue: Venue,
        /// Its name.
        field: &'static str,
        /// What it is.
        value: String,
        /// What it must be.
        must: &'static str,
    },
    /// The books of an exchange come from that exchange, and from nobody who speaks for it.
    #[error(
        "{venue}: base_url {base_url} is not a host of {venue}: books are read from the exchange \
         itself only (below {domains}), or from a simulator on this machine"
    )]
    Foreign {
        /// Whose configuration.
        venue: Venue,
        /// The address.
        base_url: String,
        /// Where its hosts are.
        domains: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_table_and_work() {
        for venue in Venue::ALL {
            assert_eq!(NativeConfig::of(venue).check(venue), Ok(()));
        }
        let kraken = NativeConfig::of(Venue::Kraken);
        assert_eq!((kraken.rate_per_second, kraken.burst, kraken.retries), (1.0, 15, 4));
        assert_eq!((kraken.backoff, kraken.probe), (Millis(1_500), Millis::from_secs(45)));
        assert_eq!((kraken.failure_ratio, kraken.window, kraken.consecutive), (0.7, 8, 3));
        assert_eq!((kraken.daily_budget, kraken.monthly_budget), (10_000, 300_000));
    }

    #[test]
    fn only_the_exchange_itself_is_asked() {
        let at = |venue, url: &str| {
            let config = NativeConfig { base_url: url.into(), ..NativeConfig::of(venue) };
            config.check(venue)
        };
        for (venue, url) in [
            (Venue::Okx, "https://eea.okx.com"),
            (Venue::Binance, "https://data-api.binance.vision/"),
            (Venue::Kraken, "http://127.0.0.1:8001"),
            (Venue::Coinbase, "http://[::1]:8001"),
            (Venue::Coinbase, "http://localhost:8001/"),
        ] {
            assert_eq!(at(venue, url), Ok(()), "{url}");
        }
        for (venue, url) in [
            (Venue::Kraken, "https://api.coingecko.com"),
            (Venue::Kraken, "https://www.okx.com"),
            (Venue::Kraken, "https://notkraken.com"),
            (Venue::Kraken, "https://api.kraken.com.example.org"),
            (Venue::Kraken, "http://10.0.0.1"),
        ] {
            let error = at(venue, url).unwrap_err();
            assert!(matches!(error, NativeConfigError::Foreign { .. }), "{url}: {error}");
            assert!(error.to_string().starts_with(&format!("kraken: base_url {url} is not")));
        }
        for url in ["", "api.kraken.com", "ftp://api.kraken.com", "https://api.kraken.com/index/"] {
            let error = at(Venue::Kraken, url).unwrap_err();
            assert!(matches!(error, NativeConfigError::Value { .. }), "{url}: {error}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let venue = Venue::Okx;
        let good = NativeConfig::of(venue);
        for (config, want) in [
            (
                NativeConfig { rate_per_second: 0.0, ..good.clone() },
                "okx: rate_per_second is 0, but must be a positive number",
            ),
            (
                NativeConfig { failure_ratio: 40.0, ..good.clone() },
                "okx: failure_ratio is 40, but must be above 0 and at most 1",
            ),
            (NativeConfig { burst: 0, ..good.clone() }, "okx: burst is 0, but must be at least 1"),
            (
                NativeConfig { probe: Millis::ZERO, ..good },
                "okx: probe is 0ms, but must be a positive duration",
            ),
        ] {
            assert_eq!(config.check(venue).unwrap_err().to_string(), want);
        }
    }
}
