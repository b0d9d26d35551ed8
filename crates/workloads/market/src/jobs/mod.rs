//! `ingest-jobs`: one-off work of the market, asked for as jobs; and `job-seed`, which asks for one of
//! each.
//!
//! A kind is what may be asked ([`KINDS`]: name, schema, policy) and a [`Runner`], which does it. A
//! kind runs the code that the worker of the same work runs, so there is one way to do each thing.
//! A kind without a runner is not part of the worker: nobody can enqueue it.

mod fetch;
mod seed;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use watchbell_core::job::Kind;
use watchbell_core::{
    BoxFuture, Cause, Cycle, CycleInput, Definition, Done, Fault, Millis, QueueSpec, Trigger,
    Worker,
};

pub(crate) use self::fetch::{Fetch, compute_newest, compute_window, import_moves, ticker_rows};
pub(crate) use self::seed::{JobSeed, definition as seed_definition};
use crate::sync::VENUE;

pub use self::seed::JOB_SEED;

/// Name of the worker.
pub const INGEST_JOBS: &str = "ingest-jobs";
/// Jobs that run at once on a node.
const CONCURRENCY: u32 = 4;

/// Does one job: the cycle's input is its payload, given once more.
pub(crate) type Runner =
    Arc<dyn for<'a> Fn(&'a Cycle, &'a Value) -> BoxFuture<'a, Result<Done, Fault>> + Send + Sync>;

/// A closure as a runner.
pub(crate) fn runner<F>(run: F) -> Runner
where
    F: for<'a> Fn(&'a Cycle, &'a Value) -> BoxFuture<'a, Result<Done, Fault>>
        + Send
        + Sync
        + 'static,
{
    Arc::new(run)
}

/// What a kind is for whoever enqueues it.
struct Spec {
    name: &'static str,
    description: &'static str,
    /// Properties of the payload and their schemas.
    properties: fn() -> Value,
    /// Those that it must have.
    required: &'static [&'static str],
    /// Jobs of one limit key, a symbol, run one at a time.
    per_symbol: bool,
    timeout: Millis,
    /// Whether `job-seed` asks for one without a payload.
    seeded: bool,
}

/// All kinds of the market's work. Those with a runner are on offer.
const KINDS: [Spec; 14] = [
    Spec {
        name: "fetch_klines",
        description: "Fetches the closed candles of one symbol and interval up to the present.",
        properties: || json!({ "symbol": symbol(), "window": interval() }),
        required: &["symbol", "window"],
        per_symbol: true,
        timeout: Millis::from_mins(30),
        seeded: false,
    },
    Spec {
        name: "backfill_klines",
        description: "Fetches the candles of one symbol and interval back to `from`, and asks again \
                      for holes of the venue between `from` and `to`.",
        properties: || json!({ "symbol": symbol(), "window": interval(), "from": time(), "to": time() }),
        required: &["symbol", "window", "from", "to"],
        per_symbol: true,
        timeout: Millis::from_hours(2),
        seeded: false,
    },
    Spec {
        name: "fetch_ticker",
        description: "Stores the venue's 24-hour statistics of some symbols, or of the universe.",
        properties: || json!({ "symbols": { "type": "array", "items": symbol(), "minItems": 1 } }),
        required: &[],
        per_symbol: false,
        timeout: Millis::from_mins(5),
        seeded: true,
    },
    Spec {
        name: "fetch_orderbook",
        description: "Stores the order book of one symbol, or of each symbol of the universe.",
        properties: || json!({ "symbol": symbol() }),
        required: &[],
        per_symbol: true,
        timeout: Millis::from_mins(5),
        seeded: true,
    },
    Spec {
        name: "fetch_trades",
        description: "Follows the trades of one symbol, or of each symbol of the universe, up to the \
                      present.",
        properties: || json!({ "symbol": symbol() }),
        required: &[],
        per_symbol: true,
        timeout: Millis::from_hours(2),
        seeded: false,
    },
    Spec {
        name: "backfill_trades",
        description: "Fetches the trades of one symbol from `from` to `to`, and whatever lies \
                      between that and what is known.",
        properties: || json!({ "symbol": symbol(), "from": time(), "to": time() }),
        required: &["symbol", "from", "to"],
        per_symbol: true,
        timeout: Millis::from_hours(6),
        seeded: false,
    },
    Spec {
        name: "compute_str_vectors",
        description: "Advances the streams of the universe over the cycles that have closed.",
        properties: || json!({}),
        required: &[],
        per_symbol: false,
        timeout: Millis::from_mins(5),
        seeded: true,
    },
    Spec {
        name: "compute_matrices",
        description: "Computes the matrices of the present instant.",
        properties: || json!({}),
        required: &[],
        per_symbol: false,
        timeout: Millis::from_mins(5),
        seeded: true,
    },
    Spec {
        name: "compute_mea",
        description: "Asks for the allocation of the newest window; one that is there stays as it is.",
        properties: || json!({}),
        required: &[],
        per_symbol: false,
        timeout: Millis::from_mins(5),
        seeded: true,
    },
    Spec {
        name: "compute_mood",
        description: "Asks for the mood of the newest window; one that is there stays as it is.",
        properties: || json!({}),
        required: &[],
        per_symbol: false,
        timeout: Millis::from_mins(5),
        seeded: true,
    },
    Spec {
        name: "compute_window",
        description: "Asks the window worker of a label for one window; a complete one stays as it \
                      is.",
        properties: || json!({ "label": { "type": "string", "minLength": 2 }, "window_start": time() }),
        required: &["label", "window_start"],
        per_symbol: false,
        timeout: Millis::from_mins(1),
        seeded: false,
    },
    Spec {
        name: "validate_universe",
        description: "Judges each symbol of the universe now.",
        properties: || json!({}),
        required: &[],
        per_symbol: false,
        timeout: Millis::from_mins(5),
        seeded: true,
    },
    Spec {
        name: "health_scan",
        description: "Looks at the market's health now.",
        properties: || json!({}),
        required: &[],
        per_symbol: false,
        timeout: Millis::from_mins(5),
        seeded: true,
    },
    Spec {
        name: "import_moves",
        description: "Imports the account's trades into one open session, or into all.",
        properties: || json!({ "session_id": { "type": "integer", "minimum": 1 } }),
        required: &[],
        per_symbol: false,
        timeout: Millis::from_mins(5),
        seeded: true,
    },
];

fn symbol() -> Value {
    json!({ "type": "string", "minLength": 2, "maxLength": 50 })
}

/// Intervals on the grid of the epoch, which is where gaps are looked for.
fn interval() -> Value {
    json!({ "enum": ["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d"] })
}

fn time() -> Value {
    json!({
        "type": ["string", "integer"],
        "description": "RFC 3339, or milliseconds since 1970",
    })
}

impl Spec {
    fn kind(&self) -> Kind {
        let schema = json!({
            "type": "object",
            "properties": (self.properties)(),
            "required": self.required,
            "additionalProperties": false,
        });
        let kind = Kind::new(self.name).describe(self.description).schema(schema);
        Kind { per_key: self.per_symbol.then_some(1), ..kind }.timeout(self.timeout)
    }
}

/// The specification of a kind.
///
/// # Panics
/// For a name that is none: names are written in the program.
fn spec(name: &str) -> &'static Spec {
    let found = KINDS.iter().find(|s| s.name == name);
    found.unwrap_or_else(|| panic!("`{name}` is no kind of the market's jobs"))
}

/// The worker that takes jobs of these kinds.
pub(crate) fn definition(kinds: &[&str]) -> Definition {
    let queue = QueueSpec {
        kinds: kinds.iter().map(|name| spec(name).kind()).collect(),
        concurrency: CONCURRENCY,
        prefetch: 0,
    };
    Definition::new(INGEST_JOBS, Trigger::Queue(queue))
        .describe(
            "Does what is asked for once: candles of other intervals, tickers, books, trades, \
             windows. Each kind of job runs the code of the worker that does the same by itself.",
        )
        .after(crate::sync::MARKET_SYNC)
        .requires(VENUE)
        .timeouts(Millis::from_mins(30), Millis::from_mins(60))
}

/// The worker.
pub(crate) struct IngestJobs {
    /// In the order of [`KINDS`] as they were given.
    kinds: Vec<&'static str>,
    runners: BTreeMap<&'static str, Runner>,
}

impl IngestJobs {
    pub(crate) fn new(runners: Vec<(&'static str, Runner)>) -> Self {
        let kinds = runners.iter().map(|(name, _)| spec(name).name).collect();
        Self { kinds, runners: runners.into_iter().collect() }
    }
}

impl Worker for IngestJobs {
    fn define(&self) -> Definition {
        definition(&self.kinds)
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        let CycleInput::Job { kind, payload } = &cycle.input else {
            return Box::pin(async { Err(Fault::permanent("ingest-jobs runs only for a job")) });
        };
        match self.runners.get(kind.as_str()) {
            Some(runner) => runner(cycle, payload),
            None => Box::pin(async move {
                Err(Fault::permanent(format!("ingest-jobs does not know the kind `{kind}`")))
            }),
        }
    }
}

/// A runner that runs one cycle of a worker, as if an operator had asked for it.
pub(crate) fn as_job(worker: Arc<dyn Worker>) -> Runner {
    runner(move |cycle, _| {
        let worker = Arc::clone(&worker);
        let own = Cycle {
            worker: worker.define().name,
            cause: Cause::Manual,
            input: CycleInput::None,
            ..cycle.clone()
        };
        Box::pin(async move { worker.run(&own).await })
    })
}

/// The payload as the type that its schema describes.
fn read<T: DeserializeOwned>(payload: &Value) -> Result<T, Fault> {
    serde_json::from_value(payload.clone())
        .map_err(|e| Fault::invalid(format!("the payload cannot be read: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_schema_that_refuses_what_it_does_not_know() {
        for s in &KINDS {
            let kind = s.kind();
            let schema = kind.schema.unwrap();
            assert_eq!(schema["additionalProperties"], false, "{}", s.name);
            for name in s.required {
                assert!(schema["properties"].get(name).is_some(), "{}: {name}", s.name);
            }
            assert!(!s.seeded || s.required.is_empty(), "{}: a seed has no payload", s.name);
        }
    }
}
