//! What a client may ask of Kraken, OKX and Coinbase. Spec: venues, section 12.4.

use std::collections::HashMap;
use std::net::IpAddr;

use watchbell_core::Time;

use crate::native::Venue;

/// What a client may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VenueLimits {
    /// What the venue itself allows. Kraken: a call a second, 15 at once, and for candles and trades of
    /// one pair a call a second, 5 at once. OKX: a fixed number by path in every two seconds.
    /// Coinbase: ten calls a second, 15 at once. Binance: the weights of its own simulator.
    #[default]
    OfVenue,
    /// Anything.
    None,
}

impl VenueLimits {
    /// No limit at all.
    #[must_use]
    pub const fn none() -> Self {
        Self::None
    }
}

/// A request that was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    /// What the address has used of its budget.
    pub(super) used: u32,
    /// How many were refused so far; venues that have two ways of saying so take turns.
    pub(super) count: u32,
    /// End of the ban, when there is one.
    pub(super) banned_until: Option<Time>,
}

/// A token bucket, in thousandths of a token.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: i64,
    filled: i64,
}

/// Tokens per second, and how many fit in.
#[derive(Debug, Clone, Copy)]
struct Size {
    rate: i64,
    burst: i64,
}

const KRAKEN: Size = Size { rate: 1, burst: 15 };
const KRAKEN_PAIR: Size = Size { rate: 1, burst: 5 };
const COINBASE: Size = Size { rate: 10, burst: 15 };
/// The network brings two requests closer together than they were sent: so much of a token may be
/// missing.
const GRACE: i64 = 100;
const WINDOW: i64 = 2_000;

impl Bucket {
    const fn full(size: Size, now: i64) -> Self {
        Self { left: size.burst * 1_000, filled: now }
    }

    fn fill(&mut self, size: Size, now: i64) {
        // A token is a thousand parts and a second a thousand milliseconds, so the rate is per both.
        self.left = (self.left + (now - self.filled).max(0) * size.rate).min(size.burst * 1_000);
        self.filled = self.filled.max(now);
    }

    const fn has_one(&self) -> bool {
        self.left >= 1_000 - GRACE
    }

    fn used(&self, size: Size) -> u32 {
        u32::try_from((size.burst * 1_000 - self.left + 999) / 1_000).unwrap_or(0)
    }
}

/// OKX's requests per window of two seconds and address. Spec: venues, section 7.1.
fn per_window(endpoint: &str) -> u32 {
    match endpoint {
        "time" | "funding-rate" | "funding-rate-history" => 10,
        "candles" | "books" => 40,
        "trades" => 100,
        _ => 20,
    }
}

/// The limiter of a venue.
#[derive(Debug)]
pub(super) struct Gate {
    venue: Option<Venue>,
    buckets: HashMap<(IpAddr, String), Bucket>,
    windows: HashMap<(IpAddr, String), (i64, u32)>,
    bans: HashMap<IpAddr, Time>,
    refused: u32,
}

impl Gate {
    pub(super) fn of(venue: Venue, limits: VenueLimits) -> Self {
        Self {
            venue: (limits == VenueLimits::OfVenue).then_some(venue),
            buckets: HashMap::new(),
            windows: HashMap::new(),
            bans: HashMap::new(),
            refused: 0,
        }
    }

    /// Counts a request and lets it in, or not. The answer is what the address has used.
    pub(super) fn charge(
        &mut self,
        from: IpAddr,
        endpoint: &str,
        symbol: Option<&str>,
        now: Time,
    ) -> Result<u32, Refused> {
        if let Some(until) = self.bans.get(&from).copied() {
            if now < until {
                self.refused += 1;
                return Err(self.refusal(0, Some(until)));
            }
            self.bans.remove(&from);
        }
        let judged = match self.venue {
            None => Ok(0),
            Some(Venue::Okx) => self.window(from, endpoint, now.0),
            Some(Venue::Kraken) => {
                let own = symbol.filter(|_| matches!(endpoint, "OHLC" | "Trades"));
                let own = own.map(|s| (format!("{endpoint} {s}"), KRAKEN_PAIR));
                self.take(from, KRAKEN, own, now.0)
            }
            Some(Venue::Coinbase | Venue::Binance) => self.take(from, COINBASE, None, now.0),
        };
        judged.map_err(|used| {
            self.refused += 1;
            self.refusal(used, None)
        })
    }

    /// Keeps an address out until an instant.
    pub(super) fn ban(&mut self, from: IpAddr, until: Time) -> Refused {
        self.bans.insert(from, until);
        self.refused += 1;
        self.refusal(0, Some(until))
    }

    const fn refusal(&self, used: u32, banned_until: Option<Time>) -> Refused {
        Refused { used, count: self.refused, banned_until }
    }

    /// A token of the address's bucket, and of another one too where there is one; of both or none.
    fn take(
        &mut self,
        from: IpAddr,
        size: Size,
        other: Option<(String, Size)>,
        now: i64,
    ) -> Result<u32, u32> {
        let mut wanted = vec![(String::new(), size)];
        wanted.extend(other);
        let mut all = true;
        for (name, size) in &wanted {
            let full = Bucket::full(*size, now);
            let bucket = self.buckets.entry((from, name.clone())).or_insert(full);
            bucket.fill(*size, now);
            all &= bucket.has_one();
        }
        let mut used = 0;
        for (name, size) in wanted {
            if let Some(bucket) = self.buckets.get_mut(&(from, name)) {
                bucket.left -= if all { 1_000 } else { 0 };
                used = used.max(bucket.used(size));
            }
        }
        if all { Ok(used) } else { Err(used) }
    }

    fn window(&mut self, from: IpAddr, endpoint: &str, now: i64) -> Result<u32, u32> {
        let window = now.div_euclid(WINDOW);
        let (at, used) = self.windows.entry((from, endpoint.to_owned())).or_insert((window, 0));
        if *at != window {
            (*at, *used) = (window, 0);
        }
        *used += 1;
        if *used <= per_window(endpoint) { Ok(*used) } else { Err(*used) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn admitted(gate: &mut Gate, endpoint: &str, symbol: Option<&str>, now: i64) -> usize {
        (0..200).take_while(|_| gate.charge(ME, endpoint, symbol, Time(now)).is_ok()).count()
    }

    #[test]
    fn a_bucket_fills_by_the_second() {
        let mut gate = Gate::of(Venue::Kraken, VenueLimits::OfVenue);
        assert_eq!(admitted(&mut gate, "Depth", Some("XBTUSD"), 0), 15);
        assert_eq!(admitted(&mut gate, "Depth", None, 3_000), 3);
        let mut gate = Gate::of(Venue::Kraken, VenueLimits::OfVenue);
        assert_eq!(admitted(&mut gate, "OHLC", Some("XBTUSD"), 0), 5);
        // A refusal for one pair takes nothing from the others.
        assert_eq!(admitted(&mut gate, "OHLC", Some("ETHUSD"), 0), 5);
        assert_eq!(admitted(&mut gate, "Depth", None, 0), 5);
        let mut gate = Gate::of(Venue::Coinbase, VenueLimits::OfVenue);
        assert_eq!(admitted(&mut gate, "book", None, 0), 15);
        assert_eq!(admitted(&mut gate, "book", None, 500), 5);
    }

    #[test]
    fn a_window_is_of_one_path_and_starts_anew() {
        let mut gate = Gate::of(Venue::Okx, VenueLimits::OfVenue);
        assert_eq!(admitted(&mut gate, "candles", None, 10_000), 40);
        assert_eq!(admitted(&mut gate, "tickers", None, 10_001), 20);
        assert_eq!(admitted(&mut gate, "candles", None, 11_999), 0);
        assert_eq!(admitted(&mut gate, "candles", None, 12_000), 40);
    }

    #[test]
    fn a_ban_ends_and_no_limit_is_none() {
        let mut gate = Gate::of(Venue::Okx, VenueLimits::none());
        assert_eq!(admitted(&mut gate, "time", None, 0), 200);
        gate.ban(ME, Time(5_000));
        let refused = gate.charge(ME, "time", None, Time(4_999)).unwrap_err();
        assert_eq!(refused.banned_until, Some(Time(5_000)));
        assert!(gate.charge(ME, "time", None, Time(5_000)).is_ok());
    }
}
