//! What can go wrong between us and the venue, and what to do about it.

use std::fmt;

use watchbell_core::{Millis, Time};

use super::wire::{ErrorBody, cut};

/// One request, as errors and logs name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The endpoint's last word: `klines`, `depth`, `stream`.
    pub endpoint: &'static str,
    /// The market, where the request has exactly one.
    pub symbol: Option<String>,
}

impl Call {
    pub(crate) fn new(endpoint: &'static str, symbol: Option<&str>) -> Self {
        Self { endpoint, symbol: symbol.map(str::to_owned) }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "binance {}", self.endpoint)?;
        self.symbol.as_ref().map_or(Ok(()), |s| write!(f, " {s}"))
    }
}

/// What a caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Come back after this time; the work itself is fine.
    Rate {
        /// How long to wait, at the time of the error.
        retry_after: Millis,
    },
    /// Try again later with backoff: the venue or the network had a bad moment.
    Transient,
    /// The same request will fail again: change it.
    Permanent,
    /// The venue refuses us as such (firewall, region): stop asking and tell an operator.
    Blocked,
}

/// An error of a venue. [`class`](Self::class) says what to do about it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum VenueError {
    /// 429: too many requests. No request is sent before `until`.
    #[error("{call}: too many requests, no more before {until} (in {retry_after}): {detail}")]
    RateLimited {
        /// The request.
        call: Call,
        /// When requests are allowed again, by our clock.
        until: Time,
        /// The wait from the moment of the error.
        retry_after: Millis,
        /// The venue's words, or that the request was held back here.
        detail: String,
    },
    /// 418: the venue has banned this address. No request is sent before `until`.
    #[error(
        "{call}: this address is banned until {until} (in {retry_after}): {detail}; requests stay \
         stopped until then, for going on makes the ban longer"
    )]
    Banned {
        /// The request.
        call: Call,
        /// When the ban ends, by our clock.
        until: Time,
        /// The wait from the moment of the error.
        retry_after: Millis,
        /// The venue's words, or that the request was held back here.
        detail: String,
    },
    /// The venue answered with an error of its own.
    #[error("{call}: refused with status {status}, {}: {msg}", code_text(*.code))]
    Refused {
        /// The request.
        call: Call,
        /// The HTTP status; 0 on a stream.
        status: u16,
        /// The venue's code, where it gave one.
        code: Option<i64>,
        /// The venue's words, cut.
        msg: String,
        /// What to do.
        class: Class,
    },
    /// The venue does not accept who asks: key, signature, rights, or a clock that is wrong.
    #[error("{call}: the venue does not accept us, code {code}: {msg}; {todo}")]
    Unauthorized {
        /// The request.
        call: Call,
        /// The venue's code.
        code: i64,
        /// The venue's words, cut.
        msg: String,
        /// What an operator does about it.
        todo: &'static str,
    },
    /// The answer cannot be used: not JSON, cut short, or rows that contradict the request.
    #[error("{call}: unusable answer with status {status}: {problem}; it begins `{head}`")]
    Payload {
        /// The request.
        call: Call,
        /// The HTTP status; 0 on a stream.
        status: u16,
        /// What is wrong, with the row's number.
        problem: String,
        /// The first characters of the answer, at most 120.
        head: String,
    },
    /// The answer is whole, but not for all markets that were asked: these are not in it.
    #[error("{call}: {} not in the answer", were_asked(missing))]
    Incomplete {
        /// The request.
        call: Call,
        /// The markets that are not in the answer; at least one.
        missing: Vec<String>,
    },
    /// No answer: no connection, a reset, or too late.
    #[error("{call}: no answer from {host}: {problem}")]
    Transport {
        /// The request.
        call: Call,
        /// The host that was asked.
        host: String,
        /// What happened.
        problem: String,
    },
    /// The request would never be accepted, so it was not sent.
    #[error("{call}: not sent: {problem}")]
    Invalid {
        /// The request.
        call: Call,
        /// What is wrong with it.
        problem: String,
    },
}

/// Who was asked for and is not there: the first by its name.
fn were_asked(names: &[String]) -> String {
    match names {
        [] => "nothing was asked and is".into(),
        [one] => format!("{one} was asked and is"),
        [first, more @ ..] => format!("{first} and {} more were asked and are", more.len()),
    }
}

fn code_text(code: Option<i64>) -> String {
    code.map_or_else(|| "no code".into(), |c| format!("code {c}"))
}

impl VenueError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Banned { retry_after, .. } => {
                Class::Rate { retry_after: *retry_after }
            }
            Self::Refused { class, .. } => *class,
            Self::Payload { .. } | Self::Incomplete { .. } | Self::Transport { .. } => {
                Class::Transient
            }
            Self::Invalid { .. } | Self::Unauthorized { .. } => Class::Permanent,
        }
    }

    /// The request that failed.
    #[must_use]
    pub fn call(&self) -> &Call {
        match self {
            Self::RateLimited { call, .. }
            | Self::Banned { call, .. }
            | Self::Refused { call, .. }
            | Self::Unauthorized { call, .. }
            | Self::Payload { call, .. }
            | Self::Incomplete { call, .. }
            | Self::Transport { call, .. }
            | Self::Invalid { call, .. } => call,
        }
    }

    pub(crate) fn payload(
        call: &Call,
        status: u16,
        problem: impl Into<String>,
        body: &[u8],
    ) -> Self {
        let head = cut(&String::from_utf8_lossy(&body[..body.len().min(480)]), 120);
        Self::Payload { call: call.clone(), status, problem: problem.into(), head }
    }
}

/// What a refusal means, apart from the two that the limiter keeps (429 and 418).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The venue counts too many requests.
    TooMany,
    /// Banned.
    Banned,
    /// Everything else.
    Other(Class),
}

/// Judges an answer by its status and, where there is one, the venue's code. The status decides
/// alone where it can: a proxy may answer in the venue's place, without a code.
pub(crate) fn judge(status: u16, body: Option<&ErrorBody>) -> Verdict {
    let code = body.map(|b| b.code);
    match (status, code) {
        (418, _) => Verdict::Banned,
        (429, _) => Verdict::TooMany,
        (403 | 451, _) => Verdict::Other(Class::Blocked),
        (_, Some(-1003)) if body.is_some_and(|b| b.msg.contains("banned until")) => Verdict::Banned,
        (_, Some(-1003 | -1015)) => Verdict::TooMany,
        (408 | 425 | 500.., _) => Verdict::Other(Class::Transient),
        (_, Some(-1000 | -1001 | -1006 | -1007 | -1008 | -1016)) => {
            Verdict::Other(Class::Transient)
        }
        // All in this range name a fault of the request.
        (_, Some(-1299..=-1100)) => Verdict::Other(Class::Permanent),
        (300..=499, _) => Verdict::Other(Class::Permanent),
        // An unknown code behind a status of success: nothing says that it stays.
        _ => Verdict::Other(Class::Transient),
    }
}

/// The instant in `… IP banned until 1767225600000. …`, in the venue's milliseconds.
pub(crate) fn banned_until(msg: &str) -> Option<Time> {
    let digits = msg.split("banned until ").nth(1)?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok().map(Time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_code_decide() {
        let permanent = Verdict::Other(Class::Permanent);
        let transient = Verdict::Other(Class::Transient);
        let blocked = Verdict::Other(Class::Blocked);
        for (status, code, verdict) in [
            (429, None, Verdict::TooMany),
            (429, Some(-1003), Verdict::TooMany),
            (200, Some(-1003), Verdict::TooMany),
            (400, Some(-1015), Verdict::TooMany),
            (418, None, Verdict::Banned),
            (403, None, blocked),
            (451, Some(0), blocked),
            (400, Some(-1121), permanent),
            (200, Some(-1121), permanent),
            (400, Some(-1100), permanent),
            (400, Some(-1220), permanent),
            (400, None, permanent),
            (404, None, permanent),
            (422, Some(7), permanent),
            (302, None, permanent),
            (408, None, transient),
            (500, Some(-1000), transient),
            (503, Some(-1008), transient),
            (504, Some(-1007), transient),
            (520, None, transient),
            (400, Some(-1001), transient),
            (200, Some(-9999), transient),
        ] {
            let body = code.map(|code| ErrorBody { code, msg: "m".into() });
            assert_eq!(judge(status, body.as_ref()), verdict, "{status} {code:?}");
        }
        let ban = ErrorBody { code: -1003, msg: "x; IP banned until 1767225600000. y".into() };
        assert_eq!(judge(200, Some(&ban)), Verdict::Banned);
        assert_eq!(banned_until(&ban.msg), Some(Time(1_767_225_600_000)));
        assert_eq!(banned_until("no number"), None);
    }

    #[test]
    fn messages_name_everything_and_stay_short() {
        let call = Call::new("klines", Some("BTCUSDT"));
        let body = vec![b'x'; 10_000];
        let e = VenueError::payload(&call, 200, "row 3: high -1 is not a positive price", &body);
        let text = e.to_string();
        assert!(text.starts_with("binance klines BTCUSDT: unusable answer with status 200: row 3"));
        assert!(text.len() < 300 && e.class() == Class::Transient);
    }
}
