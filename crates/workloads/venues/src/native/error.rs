//! What can go wrong between us and an exchange, in the words that artifacts print.

use std::fmt;

use watchbell_core::{Millis, Time};

use super::json::PayloadError;
use super::venue::Venue;

/// One request, as errors and logs name it: `kraken book XBTUSD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeCall {
    /// Who was asked.
    pub venue: Venue,
    /// For what: `listings`, `tickers`, `bars`, `book`.
    pub what: &'static str,
    /// The market, where the request has one.
    pub symbol: Option<String>,
}

impl fmt::Display for NativeCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.venue, self.what)?;
        self.symbol.as_ref().map_or(Ok(()), |s| write!(f, " {s}"))
    }
}

/// Why there is no answer. [`kind`](Self::kind) is the short word for it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NativeError {
    /// Not sent: too many requests have failed.
    #[error("{call}: circuit_open: not sent, too much has failed; {}", again(*.until))]
    CircuitOpen {
        /// The request.
        call: NativeCall,
        /// When one request may try; `None` while one does.
        until: Option<Time>,
    },
    /// Not sent: the budget is used up.
    #[error(
        "{call}: not sent, the {window} budget of {limit} requests is used up until {until}; raise it \
         in the configuration if the exchange allows more"
    )]
    BudgetSpent {
        /// The request.
        call: NativeCall,
        /// `daily` or `monthly`.
        window: &'static str,
        /// How many there are in it.
        limit: u64,
        /// When the next one begins.
        until: Time,
    },
    /// The exchange wants fewer requests.
    #[error("{call}: too many requests, no more before {until} (in {retry_after}): {detail}")]
    RateLimited {
        /// The request.
        call: NativeCall,
        /// When requests are allowed again, by our clock.
        until: Time,
        /// The wait from the moment of the error.
        retry_after: Millis,
        /// The exchange's words, or that the request was held back here.
        detail: String,
    },
    /// The exchange has banned this address.
    #[error(
        "{call}: this address is banned until {until} (in {retry_after}): {detail}; requests stay \
         stopped until then, for going on makes the ban longer"
    )]
    Banned {
        /// The request.
        call: NativeCall,
        /// When the ban ends, by our clock.
        until: Time,
        /// The wait from the moment of the error.
        retry_after: Millis,
        /// The exchange's words, or that the request was held back here.
        detail: String,
    },
    /// No whole answer in time.
    #[error("{call}: no answer from {host} within {limit}")]
    Timeout {
        /// The request.
        call: NativeCall,
        /// Who was asked.
        host: String,
        /// The time limit.
        limit: Millis,
    },
    /// No connection, or it broke.
    #[error("{call}: no answer from {host}: {problem}")]
    Transport {
        /// The request.
        call: NativeCall,
        /// Who was asked.
        host: String,
        /// What happened.
        problem: String,
    },
    /// The answer cannot be used.
    #[error("{call}: unusable answer: {problem}; it begins `{head}`")]
    Payload {
        /// The request.
        call: NativeCall,
        /// What is wrong, and where.
        #[source]
        problem: PayloadError,
        /// The first characters of the answer, at most 120.
        head: String,
    },
    /// The exchange answered with an error.
    #[error("{call}: refused with status {status}: {message}")]
    Refused {
        /// The request.
        call: NativeCall,
        /// The HTTP status.
        status: u16,
        /// The exchange's words, with its code, cut.
        message: String,
        /// Whether the same request would be refused again.
        lasting: Lasting,
    },
    /// The exchange has no such market.
    #[error("{call}: the exchange lists no such market: {message}")]
    NotListed {
        /// The request.
        call: NativeCall,
        /// The exchange's words, cut.
        message: String,
    },
    /// The exchange offers no such call, or not this much of it.
    #[error("{call}: not sent: {problem}")]
    Unsupported {
        /// The request.
        call: NativeCall,
        /// What there is not.
        problem: String,
    },
}

/// How long a refusal lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// The exchange had a bad moment.
    No,
    /// The request itself is wrong.
    Yes,
    /// The exchange refuses us as such, for the region or by a firewall: an operator must act.
    Blocked,
}

fn again(until: Option<Time>) -> String {
    until.map_or_else(
        || "one request is trying whether it answers again".into(),
        |until| format!("the next try is at {until}"),
    )
}

impl NativeError {
    /// The short word that artifacts print.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::CircuitOpen { .. } => "circuit_open",
            Self::BudgetSpent { .. } => "budget_spent",
            Self::RateLimited { .. } => "rate_limited",
            Self::Banned { .. } => "banned",
            Self::Timeout { .. } => "timeout",
            Self::Transport { .. } => "transport",
            Self::Payload { .. } => "payload",
            Self::Refused { .. } => "refused",
            Self::NotListed { .. } => "not_listed",
            Self::Unsupported { .. } => "unsupported",
        }
    }

    /// The request.
    #[must_use]
    pub const fn call(&self) -> &NativeCall {
        match self {
            Self::CircuitOpen { call, .. }
            | Self::BudgetSpent { call, .. }
            | Self::RateLimited { call, .. }
            | Self::Banned { call, .. }
            | Self::Timeout { call, .. }
            | Self::Transport { call, .. }
            | Self::Payload { call, .. }
            | Self::Refused { call, .. }
            | Self::NotListed { call, .. }
            | Self::Unsupported { call, .. } => call,
        }
    }

    /// Whether the same request may succeed a little later.
    pub(super) const fn is_transient(&self) -> bool {
        match self {
            Self::RateLimited { .. }
            | Self::Timeout { .. }
            | Self::Transport { .. }
            | Self::Payload { .. } => true,
            Self::Refused { lasting, .. } => matches!(lasting, Lasting::No),
            Self::CircuitOpen { .. }
            | Self::BudgetSpent { .. }
            | Self::Banned { .. }
            | Self::NotListed { .. }
            | Self::Unsupported { .. } => false,
        }
    }
}

/// An answer that is an error of the exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: Reason,
    /// The exchange's words, with its code.
    pub(super) message: String,
}

/// What an error of the exchange means for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Fewer requests, please; the instant from which on, where the exchange tells it in words.
    Rate { until: Option<Time> },
    /// The address is banned.
    Banned,
    /// A bad moment.
    Transient,
    /// The request itself: it will fail again.
    Permanent,
    /// The exchange refuses us as such, for the region or by a firewall.
    Blocked,
    /// No such market.
    NotListed,
}

/// What a status means without the exchange's own words; `None` for 200.
pub(super) const fn by_status(status: u16) -> Option<Reason> {
    match status {
        200 => None,
        418 => Some(Reason::Banned),
        429 => Some(Reason::Rate { until: None }),
        403 | 451 => Some(Reason::Blocked),
        408 | 425 | 500.. => Some(Reason::Transient),
        _ => Some(Reason::Permanent),
    }
}
