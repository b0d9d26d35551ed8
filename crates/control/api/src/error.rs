//! What can go wrong, once for every way in: the exit code of the command line, the HTTP status and
//! the problem document (RFC 9457) all derive from [`ControlError`], and a problem document read
//! back gives the same error.

use std::fmt;

use serde::{Deserialize, Serialize};
use watchbell_core::port::StoreError;

/// A request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No such worker, window, job, ...
    #[error("there is no {what} `{name}`")]
    NotFound {
        /// `worker`, `window`, ...
        what: String,
        /// The name that was asked for.
        name: String,
        /// The nearest name that exists.
        suggestion: Option<String>,
    },
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(Reason),
    /// One part of what was sent is wrong; nothing was done.
    #[error("{place}: {problem}")]
    BadInput {
        /// Which part, such as `jobs[3].payload.symbol`.
        place: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// The present state forbids it.
    #[error("{0}")]
    Conflict(Reason),
    /// The store, or a node that is needed, cannot be reached.
    #[error("{0}")]
    Unavailable(Reason),
    /// It should have worked.
    #[error("{0}")]
    Internal(Reason),
}

/// An error's sentence with what lies behind it and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reason {
    /// What failed: lower case, no full stop.
    pub text: String,
    /// The chain of causes, outermost first.
    pub causes: Vec<String>,
    /// What the operator can do.
    pub help: Option<String>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::default() }
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}

impl ControlError {
    /// No `what` of that name; the nearest of the `known` names is suggested.
    pub fn not_found<'a>(
        what: impl Into<String>,
        name: impl Into<String>,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let name = name.into();
        let suggestion = nearest(&name, known);
        Self::NotFound { what: what.into(), name, suggestion }
    }
    /// The request makes no sense.
    pub fn invalid(text: impl Into<Reason>) -> Self {
        Self::Invalid(text.into())
    }
    /// The present state forbids it.
    pub fn conflict(text: impl Into<Reason>) -> Self {
        Self::Conflict(text.into())
    }
    /// Something that is needed cannot be reached.
    pub fn unavailable(text: impl Into<Reason>) -> Self {
        Self::Unavailable(text.into())
    }
    /// It should have worked.
    pub fn internal(text: impl Into<Reason>) -> Self {
        Self::Internal(text.into())
    }

    /// Adds the error behind it, with its own causes.
    #[must_use]
    pub fn because(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        if let Some(reason) = self.reason_mut() {
            let mut next = Some(error);
            while let Some(e) = next {
                reason.causes.push(e.to_string());
                next = e.source();
            }
        }
        self
    }
    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        if let Some(reason) = self.reason_mut() {
            reason.help = Some(text.into());
        }
        self
    }

    /// Says first within what it happened; its kind, its causes and its help stay.
    #[must_use]
    pub fn within(mut self, what: &str) -> Self {
        if let Some(reason) = self.reason_mut() {
            reason.text = format!("{what}: {}", reason.text);
        }
        self
    }

    /// The sentence, its causes and its help.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotFound { suggestion, .. } => Reason {
                text: self.to_string(),
                causes: Vec::new(),
                help: suggestion.as_ref().map(|s| format!("did you mean `{s}`?")),
            },
            Self::BadInput { .. } => self.to_string().into(),
            Self::Invalid(r) | Self::Conflict(r) | Self::Unavailable(r) | Self::Internal(r) => {
                r.clone()
            }
        }
    }

    fn reason_mut(&mut self) -> Option<&mut Reason> {
        match self {
            Self::NotFound { .. } | Self::BadInput { .. } => None,
            Self::Invalid(r) | Self::Conflict(r) | Self::Unavailable(r) | Self::Internal(r) => {
                Some(r)
            }
        }
    }

    /// The exit code of a command that ends with this error: 1 failed, 2 usage or bad input, 3 not
    /// found, 4 refused, 5 unavailable.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Internal(_) => 1,
            Self::Invalid(_) | Self::BadInput { .. } => 2,
            Self::NotFound { .. } => 3,
            Self::Conflict(_) => 4,
            Self::Unavailable(_) => 5,
        }
    }

    /// The HTTP status of a response that carries this error.
    #[must_use]
    pub const fn http_status(&self) -> u16 {
        match self {
            Self::Invalid(_) => 400,
            Self::NotFound { .. } => 404,
            Self::Conflict(_) => 409,
            Self::BadInput { .. } => 422,
            Self::Internal(_) => 500,
            Self::Unavailable(_) => 503,
        }
    }

    const fn kind(&self) -> (&'static str, &'static str) {
        match self {
            Self::NotFound { .. } => ("not-found", "Not found"),
            Self::Invalid(_) => ("invalid", "The request makes no sense"),
            Self::BadInput { .. } => ("bad-input", "A part of the request is wrong"),
            Self::Conflict(_) => ("conflict", "The present state forbids it"),
            Self::Unavailable(_) => ("unavailable", "Not available"),
            Self::Internal(_) => ("internal", "Failed"),
        }
    }
}

impl From<StoreError> for ControlError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { what, name } => Self::not_found(what, name, []),
            StoreError::Conflict(text) => Self::conflict(text),
            StoreError::Invalid { place, problem } => Self::BadInput { place, problem },
            StoreError::Fenced { .. } => Self::conflict(error.to_string()),
            StoreError::Unmet { .. } => Self::internal(error.to_string()),
            StoreError::Database(source) => {
                Self::unavailable("the store failed").because(source.as_ref())
            }
        }
    }
}

const TYPE_PREFIX: &str = "urn:watchbell:problem:";

/// The body of an error response: RFC 9457, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:watchbell:problem:` and the kind.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// This case in words.
    pub detail: String,
    /// For `bad-input`: which part of the request; `detail` begins with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// What lies behind it, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// For `not-found`: what kind of thing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// For `not-found`: the name that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For `not-found`: the nearest name that exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

impl From<&ControlError> for Problem {
    fn from(error: &ControlError) -> Self {
        let (kind, title) = error.kind();
        let reason = error.reason();
        let (what, name, suggestion) = match error {
            ControlError::NotFound { what, name, suggestion } => {
                (Some(what.clone()), Some(name.clone()), suggestion.clone())
            }
            _ => (None, None, None),
        };
        let place = match error {
            ControlError::BadInput { place, .. } => Some(place.clone()),
            _ => None,
        };
        Self {
            kind: format!("{TYPE_PREFIX}{kind}"),
            title: title.to_owned(),
            status: error.http_status(),
            detail: reason.text,
            place,
            causes: reason.causes,
            help: reason.help,
            what,
            name,
            suggestion,
        }
    }
}

impl From<Problem> for ControlError {
    fn from(p: Problem) -> Self {
        let kind = p.kind.strip_prefix(TYPE_PREFIX).unwrap_or_default().to_owned();
        if let ("bad-input", Some(place)) = (kind.as_str(), &p.place) {
            let problem = p.detail.strip_prefix(place.as_str());
            let problem = problem.and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&p.detail);
            return Self::BadInput { place: place.clone(), problem: problem.to_owned() };
        }
        let reason = Reason { text: p.detail, causes: p.causes, help: p.help };
        match (kind.as_str(), p.what, p.name) {
            ("not-found", Some(what), Some(name)) => {
                Self::NotFound { what, name, suggestion: p.suggestion }
            }
            ("invalid", ..) => Self::Invalid(reason),
            ("conflict", ..) => Self::Conflict(reason),
            ("unavailable", ..) => Self::Unavailable(reason),
            _ => Self::Internal(reason),
        }
    }
}

/// The known name that differs least from `name`, if it is close enough to be meant: at most a
/// third of its letters are other ones, or one is the beginning of the other.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let limit = (name.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|k| {
            let prefix = name.len() >= 3 && (k.starts_with(name) || name.starts_with(k));
            (if prefix { 1 } else { distance(name, k) }, k)
        })
        .filter(|(d, _)| *d <= limit)
        .min()
        .map(|(_, k)| k.to_owned())
}

/// Levenshtein distance in letters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_kind() -> Vec<ControlError> {
        let io = std::io::Error::other("disk full");
        vec![
            ControlError::not_found("worker", "market-sink", ["market-sync", "sampler"]),
            ControlError::not_found("job", "7", []),
            ControlError::invalid("`x` is not an instant").help("use RFC 3339"),
            ControlError::BadInput {
                place: "jobs[3].payload: symbol".into(),
                problem: "7 is not of type \"string\"".into(),
            },
            ControlError::conflict("the worker is stopped"),
            ControlError::unavailable("the store failed").because(&io),
            ControlError::internal("no summary").because(&io).help("report it"),
        ]
    }

    #[test]
    fn a_problem_document_gives_the_same_error_back() {
        for error in every_kind() {
            let text = serde_json::to_string(&Problem::from(&error)).unwrap();
            let read: Problem = serde_json::from_str(&text).unwrap();
            assert_eq!(read.status, error.http_status());
            assert_eq!(ControlError::from(read), error, "{text}");
        }
    }

    #[test]
    fn each_kind_has_its_own_exit_code_and_status() {
        let codes: Vec<(u8, u16)> =
            every_kind().iter().map(|e| (e.exit_code(), e.http_status())).collect();
        assert_eq!(codes, [(3, 404), (3, 404), (2, 400), (2, 422), (4, 409), (5, 503), (1, 500)]);
    }

    #[test]
    fn the_nearest_name_is_suggested_only_when_it_is_near() {
        let known = ["market-sync", "window-sampler-30m", "sampler"];
        for (asked, near) in [
            ("market-sink", Some("market-sync")),
            ("samplr", Some("sampler")),
            ("market", Some("market-sync")),
            ("xyz", None),
            ("", None),
        ] {
            assert_eq!(nearest(asked, known).as_deref(), near, "{asked}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn store_errors_keep_their_meaning() {
        let not_found = StoreError::NotFound { what: "window", name: "m/1".into() };
        assert_eq!(ControlError::from(not_found).exit_code(), 3);
        let bad = StoreError::Invalid { place: "jobs[0].kind".into(), problem: "unknown".into() };
        let error = ControlError::from(bad);
        assert_eq!(
            (error.http_status(), error.to_string().as_str()),
            (422, "jobs[0].kind: unknown")
        );
        let full = StoreError::Database(Box::new(std::io::Error::other("database is full")));
        let error = ControlError::from(full);
        assert_eq!(error.exit_code(), 5);
        assert_eq!(error.reason().causes, ["database is full"]);
    }
}
