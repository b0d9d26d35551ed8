//! Query parameters: taken by name, and nothing may be left over.

use axum::extract::{FromRequestParts, RawQuery};
use axum::http::request::Parts;
use watchbell_api::ControlError;
use watchbell_api::error::nearest;
use watchbell_core::{Millis, Time};

use crate::problem::Failure;

/// The parameters that a request came with.
#[derive(Debug)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let RawQuery(query) = match RawQuery::from_request_parts(parts, state).await {
            Ok(query) => query,
            Err(never) => match never {},
        };
        Self::parse(query.as_deref().unwrap_or_default())
    }
}

impl Params {
    fn parse(query: &str) -> Result<Self, Failure> {
        let uri = axum::http::Uri::builder().path_and_query(format!("/?{query}")).build();
        let uri = uri.map_err(|_| ControlError::invalid("the query cannot be read"))?;
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri)
            .map_err(|e| ControlError::invalid(format!("the query cannot be read: {e}")))?;
        Ok(Self { pairs: pairs.0, known: Vec::new() })
    }

    /// All values of a parameter.
    pub(crate) fn all(&mut self, key: &'static str) -> Vec<String> {
        self.known.push(key);
        let (taken, rest) = std::mem::take(&mut self.pairs).into_iter().partition(|p| p.0 == key);
        self.pairs = rest;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|p| p.1).collect()
    }

    /// The value of a parameter, which may be given once.
    pub(crate) fn one(&mut self, key: &'static str) -> Result<Option<String>, Failure> {
        let mut all = self.all(key);
        if all.len() > 1 {
            return Err(ControlError::invalid(format!("`{key}` may be given once")).into());
        }
        Ok(all.pop())
    }

    /// A value in its own type.
    pub(crate) fn parsed<T>(
        &mut self,
        key: &'static str,
        form: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let Some(text) = self.one(key)? else { return Ok(None) };
        let value = parse(&text)
            .ok_or_else(|| ControlError::invalid(format!("`{key}={text}` is not {form}")))?;
        Ok(Some(value))
    }

    /// The number of an event or a job.
    pub(crate) fn number(&mut self, key: &'static str, of: &str) -> Result<Option<i64>, Failure> {
        self.parsed(key, &format!("the number of {of}"), |s| s.parse().ok())
    }

    /// A span of time.
    pub(crate) fn span(&mut self, key: &'static str) -> Result<Option<Millis>, Failure> {
        let parse = |text: String| Millis::parse(&text).map_err(ControlError::invalid);
        Ok(self.one(key)?.map(parse).transpose()?)
    }

    /// An instant.
    pub(crate) fn time(&mut self, key: &'static str) -> Result<Option<Time>, Failure> {
        self.one(key)?.map(|text| time(&text)).transpose()
    }

    /// How many rows, from 1 to 10,000.
    pub(crate) fn limit(&mut self, default: u32) -> Result<u32, Failure> {
        let limit = self.parsed("limit", "a number from 1 to 10000", |s| {
            s.parse().ok().filter(|n| (1..=10_000).contains(n))
        })?;
        Ok(limit.unwrap_or(default))
    }

    /// Refuses what nobody asked for: a misspelt filter would otherwise show everything.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let Some((key, _)) = self.pairs.first() else { return Ok(()) };
        let error = ControlError::invalid(format!("there is no parameter `{key}` here"));
        let known = self.known.join(", ");
        Err(match nearest(key, self.known) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None if known.is_empty() => error.help("this route takes none"),
            None => error.help(format!("this route takes {known}")),
        }
        .into())
    }
}

/// An instant in a path or a query: epoch milliseconds first, as programs write them.
pub(crate) fn time(text: &str) -> Result<Time, Failure> {
    let parsed = text.parse().map(Time).or_else(|_| Time::parse(text));
    parsed.map_err(|e| ControlError::invalid(e).into())
}
