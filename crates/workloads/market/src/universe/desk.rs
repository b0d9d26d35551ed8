//! `universe-desk`: carries out what operators ask of the universe, the settings and the market's tables,
//! one job at a time (sections 1.1, 1.2, 1.5 and 3).

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Mutex;
use watchbell_core::job::Kind;
use watchbell_core::{
    BoxFuture, Commit, Cycle, CycleInput, Definition, Done, Expect, Fault, Millis, QueueSpec,
    Refusal, Statement, Time, Trigger, Worker, values,
};
use watchbell_db::Database;
use watchbell_venues::binance::BinanceClient;
use watchbell_venues::binance::wire::ExchangeInfo;

use super::UNIVERSE_CHANGED;
use super::change::{By, Pair, Requests, Universe, Wish, WishError};
use super::venue::{Selection, select, stage};
use crate::rebuild::rebuild;
use crate::settings::settings;

/// Name of the worker.
pub const UNIVERSE_DESK: &str = "universe-desk";

/// How old the venue's list may be for a preview, and for a change.
const PREVIEW_AGE: Millis = Millis::from_mins(15);
const TRADABLE_AGE: Millis = Millis::from_secs(60);
/// Rows of the inbox that one run carries out at most.
const MAX_BATCHES_PER_RUN: i64 = 20;

/// The worker.
pub(crate) struct Desk {
    db: Database,
    client: BinanceClient,
    /// What the venue listed last, and when.
    listed: Mutex<Option<(Time, Arc<ExchangeInfo>)>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Symbols {
    symbols: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exact {
    symbols: Vec<String>,
    #[serde(default = "yes")]
    auto_disable: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfVenue {
    coins: Vec<String>,
    #[serde(default = "usdt")]
    quote: String,
    #[serde(default = "yes")]
    spot_only: bool,
    #[serde(default = "yes")]
    disable_missing: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    symbols: Option<Vec<String>>,
}

const fn yes() -> bool {
    true
}

fn usdt() -> String {
    "USDT".to_owned()
}

/// What came of a job.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Outcome {
    enabled: Vec<Arc<str>>,
    disabled: Vec<Arc<str>>,
    inserted: usize,
    updated: usize,
    /// Pairs of the venue, for a synchronisation and its preview.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pairs: Vec<Pair>,
    /// Coins that were left out: leveraged tokens.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    leveraged: Vec<String>,
    /// Pairs that the venue does not trade now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resting: Vec<String>,
    /// Requested symbols that the universe does not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mismatched: Vec<String>,
    /// Symbols that are computed, for a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    effective: Option<Vec<Arc<str>>>,
    /// Whether the universe was only looked at.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    preview: bool,
}

impl Desk {
    pub(crate) fn new(db: Database, client: BinanceClient) -> Self {
        Self { db, client, listed: Mutex::new(None) }
    }

    async fn serve(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let CycleInput::Job { kind, payload } = &cycle.input else {
            return Err(Fault::permanent("the universe's desk runs only for a job"));
        };
        let payload = payload.clone();
        match kind.as_str() {
            "universe.enable" => {
                let Symbols { symbols } = read(payload)?;
                self.change(cycle, Wish::Enable(symbols), By::User).await
            }
            "universe.disable" => {
                let Symbols { symbols } = read(payload)?;
                self.change(cycle, Wish::Disable(symbols), By::User).await
            }
            "universe.set" => {
                let Exact { symbols, auto_disable } = read(payload)?;
                self.change(cycle, Wish::Set { symbols, auto_disable }, By::User).await
            }
            "universe.sync" => self.of_venue(cycle, read(payload)?, true).await,
            "universe.preview" => self.of_venue(cycle, read(payload)?, false).await,
            "universe.request" => self.request(cycle, read(payload)?).await,
            "market.rebuild" => {
                let mut commit = Commit::new();
                let rebuilt = rebuild(&self.db, cycle.now(), &mut commit).await?;
                Ok(Done::new(rebuilt, commit))
            }
            "settings.update" => {
                let now = settings(&self.db).await?.with(&payload);
                let now = now.map_err(|e| Fault::invalid(format!("no such setting: {e}")))?;
                Ok(Done::new(now, now.store(cycle.now())?))
            }
            other => Err(Fault::permanent(format!("the universe's desk knows no job `{other}`"))),
        }
    }

    async fn change(&self, cycle: &Cycle, wish: Wish, by: By) -> Result<Done, Fault> {
        let mut commit = Commit::new();
        let outcome = apply(&self.db, &wish, by, cycle.now(), &mut commit).await?;
        note_batch(&wish, &outcome, cycle.now(), &mut commit)?;
        Ok(Done::new(outcome, commit))
    }

    /// The venue's list, at most `age` old.
    async fn exchange_info(
        &self,
        now: Time,
        age: Millis,
    ) -> Result<(Time, Arc<ExchangeInfo>), Fault> {
        let mut listed = self.listed.lock().await;
        if let Some((at, info)) = listed.as_ref().filter(|(at, _)| now - *at < age) {
            return Ok((*at, Arc::clone(info)));
        }
        let info = Arc::new(self.client.exchange_info().await?);
        *listed = Some((now, Arc::clone(&info)));
        Ok((now, info))
    }

    /// A synchronisation with the venue, or the look at what it would change: that fills the staging
    /// table and nothing else.
    async fn of_venue(&self, cycle: &Cycle, asked: OfVenue, apply: bool) -> Result<Done, Fault> {
        let now = cycle.now();
        let age = if apply { TRADABLE_AGE } else { PREVIEW_AGE };
        let (at, info) = self.exchange_info(now, age).await?;
        let OfVenue { coins, quote, spot_only, disable_missing } = asked;
        let selection = Selection { coins, quote, spot_only };
        let selected = select(&info, &selection).map_err(Fault::invalid)?;
        let wish = Wish::Venue { pairs: selected.pairs.clone(), disable_missing, at };
        let mut commit = Commit::new();
        commit.statements.extend(stage(&info, &selected, at)?);
        let mut outcome = if apply {
            let outcome = self::apply(&self.db, &wish, By::Binance, now, &mut commit).await?;
            note_batch(&wish, &outcome, now, &mut commit)?;
            outcome
        } else {
            let mut rehearsed = Commit::new();
            self::apply(&self.db, &wish, By::Binance, now, &mut rehearsed).await?
        };
        outcome.pairs = selected.pairs;
        outcome.leveraged = selected.leveraged;
        outcome.resting = selected.resting;
        outcome.preview = !apply;
        Ok(Done::new(outcome, commit))
    }

    async fn request(&self, cycle: &Cycle, asked: Request) -> Result<Done, Fault> {
        let now = cycle.now();
        let universe = Universe::load(&self.db).await?;
        let before = Requests::load(&self.db).await?;
        let wanted: Option<BTreeSet<String>> =
            asked.symbols.map(|symbols| symbols.into_iter().collect());
        let has = |s: &&String| universe.enabled().any(|e| *e.symbol == ***s);
        let takes = |s: &Arc<str>| wanted.as_ref().is_none_or(|w| w.contains(&**s));
        let enabled = || universe.enabled().map(|e| Arc::clone(&e.symbol));
        let (joined, left): (Vec<_>, Vec<_>) =
            enabled().filter(|s| takes(s) != before.include(s, now)).partition(|s| takes(s));
        let outcome = Outcome {
            mismatched: wanted.iter().flatten().filter(|s| !has(s)).cloned().collect(),
            effective: Some(enabled().filter(|s| takes(s)).collect()),
            ..Outcome::default()
        };
        let text = wanted.as_ref().map(serde_json::to_string).transpose()?;
        let mut commit = Commit::new().with(Statement::new(
            "insert into settings.universe_requests (at, symbols, by_whom) values ($1, $2, $3)",
            values![now, text, By::User.as_str()],
        ));
        if !joined.is_empty() || !left.is_empty() {
            commit.emit(
                UNIVERSE_CHANGED,
                "universe",
                json!({
                    "by": By::User, "at": now, "enabled": [], "disabled": [],
                    "requested": joined, "unrequested": left,
                }),
            );
        }
        Ok(Done::new(outcome, commit))
    }
}

/// Adds to `commit` what a wish comes down to. What a person decides begins the streaks of its symbols
/// anew.
async fn apply(
    db: &Database,
    wish: &Wish,
    by: By,
    now: Time,
    commit: &mut Commit,
) -> Result<Outcome, Fault> {
    let universe = Universe::load(db).await?;
    let plan = universe.plan(wish).map_err(refused)?;
    plan.write(&universe, by, now, commit)?;
    for symbol in plan.enabled.iter().chain(&plan.disabled) {
        commit.push(Statement::new(
            "delete from settings.universe_validation where symbol = $1",
            values![Arc::clone(symbol)],
        ));
    }
    Ok(Outcome {
        enabled: plan.enabled,
        disabled: plan.disabled,
        inserted: plan.inserted,
        updated: plan.updated,
        ..Outcome::default()
    })
}

/// Notes a change of many symbols among the batches.
fn note_batch(
    wish: &Wish,
    outcome: &Outcome,
    now: Time,
    commit: &mut Commit,
) -> Result<(), serde_json::Error> {
    let (symbols, auto_disable): (Vec<&str>, bool) = match wish {
        Wish::Set { symbols, auto_disable } => {
            (symbols.iter().map(String::as_str).collect(), *auto_disable)
        }
        Wish::Venue { pairs, disable_missing, .. } => {
            (pairs.iter().map(|p| p.symbol.as_str()).collect(), *disable_missing)
        }
        _ => return Ok(()),
    };
    commit.push(Statement::new(
        "insert into settings.universe_batch_ops
           (at, symbols, auto_disable, by_whom, state, done_at, enabled, disabled)
         values ($1, $2, $3, $4, 'done', $1, $5, $6)",
        values![
            now,
            serde_json::to_string(&symbols)?,
            auto_disable,
            By::User.as_str(),
            outcome.enabled.len() as i64,
            outcome.disabled.len() as i64,
        ],
    ));
    Ok(())
}

/// Carries out what somebody wrote into the inbox, oldest first, each in a step of its own. One that
/// cannot be is refused with the reason, so that it does not stop the others.
pub(super) async fn carry_out_batches(db: &Database, cycle: &Cycle) -> Result<usize, Fault> {
    let pending = db
        .query(
            "select id, symbols, auto_disable from settings.universe_batch_ops
             where state = 'pending' order by id limit $1",
            values![MAX_BATCHES_PER_RUN],
        )
        .await?;
    for row in &pending {
        let (id, now) = (row.i64(0)?, cycle.now());
        let mut commit = Commit::new();
        let done = match serde_json::from_str::<Vec<String>>(row.text(1)?) {
            Ok(symbols) => {
                let wish = Wish::Set { symbols, auto_disable: row.bool(2)? };
                apply(db, &wish, By::User, now, &mut commit).await
            }
            Err(e) => Err(Fault::permanent(format!("symbols are not a list of texts: {e}"))),
        };
        let (state, enabled, disabled, error) = match done {
            Ok(o) => ("done", Some(o.enabled.len() as i64), Some(o.disabled.len() as i64), None),
            Err(fault @ Fault::Permanent(_)) => {
                commit = Commit::new();
                ("refused", None, None, Some(fault.to_string()))
            }
            Err(fault) => return Err(fault),
        };
        commit.push(
            Statement::new(
                "update settings.universe_batch_ops
                 set state = $2, done_at = $3, enabled = $4, disabled = $5, error = $6
                 where id = $1 and state = 'pending'",
                values![id, state, now, enabled, disabled, error],
            )
            .expect(Expect::Exactly(1)),
        );
        cycle.step(commit).await?;
    }
    Ok(pending.len())
}

fn refused(error: WishError) -> Fault {
    let refusal = match &error {
        WishError::Symbol(_) => Refusal::Invalid,
        WishError::Absent(symbol) => {
            Refusal::NotFound { what: "symbol".to_owned(), name: symbol.clone() }
        }
    };
    Fault::refused(refusal, error)
}

fn read<T: serde::de::DeserializeOwned>(payload: serde_json::Value) -> Result<T, Fault> {
    serde_json::from_value(payload)
        .map_err(|e| Fault::invalid(format!("the job's payload does not fit: {e}")))
}

/// The kinds of jobs, with their schemas.
fn kinds() -> Vec<Kind> {
    let symbol = json!({"type": "string", "pattern": "^[A-Z0-9]{3,30}$"});
    let symbols = json!({"type": "array", "items": symbol, "minItems": 1, "maxItems": 1000});
    let coin = json!({"type": "string", "pattern": "^[A-Z0-9]{2,10}$"});
    let object = |properties: serde_json::Value, required: &[&str]| {
        json!({
            "type": "object", "additionalProperties": false,
            "properties": properties, "required": required,
        })
    };
    let of_venue = || {
        let coins = json!({"type": "array", "items": coin, "minItems": 1, "maxItems": 100});
        object(
            json!({
                "coins": coins, "quote": coin,
                "spot_only": {"type": "boolean"}, "disable_missing": {"type": "boolean"},
            }),
            &["coins"],
        )
    };
    let named = object(json!({ "symbols": symbols }), &["symbols"]);
    let kind = |name: &str, text: &str, schema: serde_json::Value| Kind {
        concurrency: Some(1),
        ..Kind::new(name).describe(text).schema(schema)
    };
    vec![
        kind("universe.enable", "Adds symbols to the universe, or enables them.", named.clone()),
        kind("universe.disable", "Disables symbols: nothing enables them but a person.", named),
        kind(
            "universe.set",
            "Enables exactly these symbols; with auto_disable all others are disabled.",
            object(
                json!({ "symbols": symbols, "auto_disable": {"type": "boolean"} }),
                &["symbols"],
            ),
        ),
        kind(
            "universe.sync",
            "Enables every pair of these coins that the venue trades, and disables the rest.",
            of_venue(),
        ),
        kind("universe.preview", "Says what universe.sync would change.", of_venue()),
        kind(
            "settings.update",
            "Changes settings of pages and of the metronome; what is left out stays.",
            json!({"type": "object"}),
        ),
        kind(
            "market.rebuild",
            "Brings the newest tickers and the symbols of the market to what was ingested.",
            object(json!({}), &[]),
        ),
        kind(
            "universe.request",
            "Narrows what is computed to these symbols; null lifts it.",
            object(json!({ "symbols": {"anyOf": [{"type": "null"}, symbols]} }), &["symbols"]),
        ),
    ]
}

/// The worker.
pub(crate) fn definition() -> Definition {
    let spec = QueueSpec { kinds: kinds(), concurrency: 1, prefetch: 0 };
    Definition::new(UNIVERSE_DESK, Trigger::Queue(spec))
        .describe(
            "Carries out what operators ask of the universe: enable, disable, set, synchronise with \
             the venue, preview, request; changes settings; rebuilds the market from what was ingested.",
        )
        .timeouts(Millis::from_mins(1), Millis::from_mins(2))
}

impl Worker for Desk {
    fn define(&self) -> Definition {
        definition()
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.serve(cycle))
    }
}
