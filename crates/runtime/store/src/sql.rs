//! Lists of statements in pieces, and the parts of SQL that depend on how many things are asked for.

use watchbell_core::port::Result;
use watchbell_core::{Statement, Value};
use watchbell_db::{Applied, Database, Engine};

use crate::record::failed;

/// Runs a list whose refusal has no meaning of its own.
pub(crate) async fn apply(db: &Database, list: Vec<Statement>) -> Result<Applied> {
    db.apply(list).await.map_err(failed)
}

/// Whether other processes may use the database beside us.
pub(crate) const fn is_shared(db: &Database) -> bool {
    matches!(db.engine(), Engine::Postgres)
}

/// `$3, $4, $5` for three parameters from the third.
pub(crate) fn places(first: usize, count: usize) -> String {
    (first..first + count).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ")
}

/// A condition on `kind` for patterns that may end in `*`; adds its parameters.
pub(crate) fn kinds(patterns: &[String], params: &mut Vec<Value>) -> String {
    if patterns.is_empty() {
        return "1 = 1".to_owned();
    }
    let mut any = Vec::with_capacity(patterns.len());
    for pattern in patterns {
        let place = params.len() + 1;
        if let Some(prefix) = pattern.strip_suffix('*') {
            any.push(format!("substr(kind, 1, {}) = ${place}", prefix.chars().count()));
            params.push(Value::from(prefix));
        } else {
            any.push(format!("kind = ${place}"));
            params.push(Value::from(pattern.as_str()));
        }
    }
    format!("({})", any.join(" or "))
}
