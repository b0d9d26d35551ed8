//! The queue's routes.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;
use watchbell_api::{
    Control, ControlError, JOB_ACTIONS, JobChangeBody, JobDetail, job_action_word,
};
use watchbell_core::port::{Enqueued, JobChange, JobChanged, JobFilter, JobQuery, JobRecord};
use watchbell_core::{NewJob, job};

use crate::guard::{Json, JsonBytes};
use crate::params::Params;
use crate::problem::Failure;

type Ctl = State<Arc<dyn Control>>;

/// `POST jobs`: one job, or a list of them that is added whole or not at all. Answers with a list
/// either way.
pub(crate) async fn enqueue(
    State(c): Ctl,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Failure> {
    let answer = c.enqueue(read(&body)?).await?;
    let added = answer.iter().any(|e| matches!(e, Enqueued::Added(_)));
    let status = if added { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Answer(answer)).into_response())
}

/// The jobs of a body. Text that is not JSON is refused with its line and column, a job that is
/// none with its place in the list.
fn read(body: &[u8]) -> Result<Vec<NewJob>, ControlError> {
    let not_json = |e: serde_json::Error| {
        ControlError::invalid(format!("the body is not JSON: {e}"))
            .help("send a job such as {\"kind\": \"export\", \"payload\": {}}, or a list of jobs")
    };
    let list = body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    let raw: Vec<&RawValue> = if list {
        serde_json::from_slice(body).map_err(not_json)?
    } else {
        vec![serde_json::from_slice(body).map_err(not_json)?]
    };
    let jobs = raw.into_iter().enumerate().map(|(i, raw)| {
        serde_json::from_str(raw.get()).map_err(|e| ControlError::BadInput {
            place: format!("jobs[{i}]"),
            problem: e.to_string(),
        })
    });
    jobs.collect()
}

/// `GET jobs`.
pub(crate) async fn list(
    State(c): Ctl,
    mut params: Params,
) -> Result<Answer<Vec<JobRecord>>, Failure> {
    let states = "queued, running, succeeded, failed or cancelled";
    let ids = params.all("id").into_iter().map(|text| {
        let wrong = || ControlError::invalid(format!("`id={text}` is not the number of a job"));
        text.parse().map_err(|_| wrong())
    });
    let query = JobQuery {
        filter: JobFilter {
            ids: ids.collect::<Result<_, _>>()?,
            kind: params.one("kind")?,
            state: params.parsed("state", states, job::State::parse)?,
            unique_key: params.one("unique_key")?,
            limit_key: params.one("limit_key")?,
            error: params.one("error")?,
            created_before: params.time("created_before")?,
            finished_before: params.time("finished_before")?,
        },
        before: params.number("before", "a job")?,
        limit: params.limit(100)?,
    };
    params.finish()?;
    Ok(Answer(c.jobs(query).await?))
}

/// `GET jobs/{id}`.
pub(crate) async fn one(
    State(c): Ctl,
    Path(id): Path<String>,
) -> Result<Answer<JobDetail>, Failure> {
    let number = id.parse().map_err(|_| ControlError::not_found("job", id, []))?;
    Ok(Answer(c.job(number).await?))
}

/// `POST jobs/{action}`.
pub(crate) async fn change(
    State(c): Ctl,
    Path(word): Path<String>,
    Json(body): Json<JobChangeBody>,
) -> Result<Answer<JobChanged>, Failure> {
    let action = JOB_ACTIONS.into_iter().find(|(known, _)| *known == word).map(|(_, a)| a);
    let action = action.ok_or_else(|| {
        ControlError::not_found("action", word, JOB_ACTIONS.map(|(known, _)| known))
    })?;
    let JobChangeBody { filter, all, limit, preview, by } = body;
    if filter.is_everything() && !all {
        let word = job_action_word(action);
        return Err(ControlError::invalid(format!(
            "the filter names nothing, so every job: {word}"
        ))
        .help("name some jobs, or say `\"all\": true`")
        .into());
    }
    Ok(Answer(c.change_jobs(JobChange { filter, action, limit, preview, by }).await?))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn a_body_is_one_job_or_a_list() {
        let one = read(br#" {"kind": "a", "payload": {"x": 1}} "#).unwrap();
        assert_eq!((one.len(), one[0].kind.as_str()), (1, "a"));
        assert_eq!(read(b"[]").unwrap(), []);
        assert_eq!(read(br#"[{"kind": "a"}, {"kind": "b"}]"#).unwrap().len(), 2);
        for (body, status, said) in [
            ("", 400, "line 1 column 0"),
            ("[{\"kind\": \"a\"},\n {\"kind\" 1}]", 400, "line 2 column"),
            ("[{\"kind\": \"a\"}, {\"kid\": \"a\"}]", 422, "jobs[1]: unknown field `kid`"),
            ("{\"payload\": 1}", 422, "jobs[0]: missing field `kind`"),
            ("7", 422, "jobs[0]: invalid type"),
        ] {
            let error = read(body.as_bytes()).unwrap_err();
            assert_eq!(error.http_status(), status, "{body}: {error}");
            assert!(error.to_string().contains(said), "{body}: {error}");
        }
    }
}
