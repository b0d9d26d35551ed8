//! `mood-30m` and its sisters: the mood of each window, after its matrices and its allocation.
//!
//! A window always has a mood. Where it has none of its own (it was given up, too few of its symbols
//! have vectors, a number is none), the last stable one is published again and says so: a row of its
//! own, so the stable one stays as it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use watchbell_core::{
    BoxError, BoxFuture, Cause, Commit, Cycle, CycleInput, Definition, Done, Fault, Millis,
    Statement, Time, Trigger, WindowHashes, WindowInput, WindowSpec, Worker, values,
};
use watchbell_db::{Database, DbError};

use super::formula::{Mood, MoodId, Params, Signals};
use super::inputs::{self, Member};
use super::matrix::MatrixMood;
use super::state::{Incoherent, Published, Reason, Tier, incoherences, judge, publish};
use super::{MoodConfig, series_name};
use crate::analytics::hash::ResultHasher;
use crate::matrices::window::follow;
use crate::universe::Listings;

/// The lane of all window workers of the market.
const LANE: &str = "market-windows";
const MAX_ATTEMPTS: u32 = 5;
const FORMULA: &str = "v1";
/// What a mood was computed from.
const WINDOW: &str = "str-aux:window";
const FALLBACK: &str = "str-aux:fallback";

/// The worker of one label.
pub(crate) struct MoodWorker {
    db: Database,
    length: Millis,
    settle: Millis,
    input: String,
    config: MoodConfig,
}

/// What an observation says in full: the payload of a mood and of an observation.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Observation {
    source: &'static str,
    /// `stable`, `fallback`, `stale` or `neutral`.
    state: &'static str,
    /// Why the window has no mood of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// The symbols that the mood is made of, whether or not the window has anything of them.
    pub(super) symbols: Vec<Arc<str>>,
    contributing: usize,
    /// The weighted means.
    #[serde(skip_serializing_if = "Option::is_none")]
    signals: Option<Signals>,
    /// The mood that they make.
    #[serde(skip_serializing_if = "Option::is_none")]
    mood: Option<Mood>,
    /// What each symbol brought.
    inputs: BTreeMap<Arc<str>, super::Share>,
    refs: Params,
    /// Each symbol's own mood, by quote and base asset.
    per_symbol: BTreeMap<String, BTreeMap<String, Mood>>,
    /// What the matrices say.
    matrix: Option<MatrixMood>,
    /// How old the mood is.
    age_ms: Millis,
}

/// A mood, ready to be stored.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Made {
    pub(super) published: Published,
    pub(super) observation: Observation,
    members: Vec<Member>,
    inputs: String,
}

/// What the worker says of a run.
#[derive(Debug, Serialize)]
struct Report {
    window: String,
    start: Time,
    mood: Published,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    symbols: usize,
    contributing: usize,
    /// Labels whose tiers contradict each other at this moment.
    incoherent: Vec<Incoherent>,
}

/// Makes the mood of the window of `label` in `[start, end)` from stored rows.
pub(super) async fn make(
    db: &Database,
    label: &str,
    (start, end): (Time, Time),
    mut members: Vec<Member>,
    params: &Params,
) -> Result<Made, DbError> {
    inputs::read_shares(db, label, start, &mut members).await?;
    let past = inputs::past(db, label, start).await?;
    let cells = inputs::id_pct(db, label, end).await?;
    let shares: Vec<_> = members.iter().map(|m| (Arc::clone(&m.symbol), m.share)).collect();
    let own = judge(&shares, params);
    let published = publish(own.as_ref().ok().map(|(_, mood)| mood), &past, end);
    let mut per_symbol: BTreeMap<String, BTreeMap<String, Mood>> = BTreeMap::new();
    for (member, signals) in readable(&members) {
        let of_quote = per_symbol.entry(member.quote.clone()).or_default();
        of_quote.insert(member.base.clone(), Mood::of(&signals, params));
    }
    let observation = Observation {
        source: if own.is_ok() { WINDOW } else { FALLBACK },
        state: published.state(),
        symbols: members.iter().map(|m| Arc::clone(&m.symbol)).collect(),
        contributing: members.iter().filter(|m| m.share.is_some()).count(),
        signals: own.as_ref().ok().map(|(signals, _)| *signals),
        mood: own.as_ref().ok().map(|(_, mood)| *mood),
        inputs: members
            .iter()
            .filter_map(|m| m.share.map(|share| (Arc::clone(&m.symbol), share)))
            .collect(),
        refs: *params,
        per_symbol,
        matrix: inputs::matrix_side(&cells),
        age_ms: published.age,
        reason: own.err(),
    };
    let inputs = inputs::hash(label, start, params, &members, &past, &cells);
    Ok(Made { published, observation, members, inputs })
}

/// The members whose signals are numbers.
fn readable(members: &[Member]) -> impl Iterator<Item = (&Member, Signals)> {
    members.iter().filter_map(|m| {
        let signals = m.share?.signals()?;
        signals.are_finite().then_some((m, signals))
    })
}

/// The row of an observation.
pub(super) fn observe(
    observer: &str,
    at: Time,
    version: i64,
    made: &Made,
) -> Result<Statement, serde_json::Error> {
    Ok(Statement::new(
        "insert into mea_dynamics.mea_mood_observations
           (app_session_id, ts_ms, version, mn_label, weight, payload)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (app_session_id, ts_ms, version) do nothing",
        values![
            observer,
            at,
            version,
            made.published.id.to_string(),
            made.published.coeff,
            serde_json::to_string(&made.observation)?,
        ],
    ))
}

/// The rows of classes that are seen for the first time.
pub(super) fn register(made: &Made, params: &Params) -> Result<Statement, serde_json::Error> {
    let own = readable(&made.members).map(|(_, signals)| Mood::of(&signals, params).id);
    let mut ids: Vec<MoodId> = own.chain([made.published.id]).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut rows = Vec::with_capacity(ids.len() * 4);
    for id in ids {
        let name = id.to_string();
        rows.extend(values![
            name.as_str(),
            name.as_str(),
            FORMULA,
            serde_json::to_string(&id.buckets())?,
        ]);
    }
    Ok(Statement::bulk(
        "insert into mea_dynamics.mood_registry (mood_id, mood_name, formula, buckets)
         values ($1, $2, $3, $4) on conflict (mood_id) do nothing",
        4,
        rows,
    ))
}

impl MoodWorker {
    /// Moods of the windows of `length`, each once the window of the series `input` is settled.
    pub(crate) const fn new(
        db: Database,
        length: Millis,
        settle: Millis,
        input: String,
        config: MoodConfig,
    ) -> Self {
        Self { db, length, settle, input, config }
    }

    async fn compute(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let Cause::Window { start, end, version, .. } = cycle.cause else {
            return Err(Fault::permanent("a mood worker runs only for a window"));
        };
        let CycleInput::Scope(scope) = &cycle.input else {
            return Err(Fault::permanent("the window has no scope"));
        };
        let label = self.length.exact();
        let scope = scope.iter().map(|s| Arc::from(s.as_str()));
        let members = inputs::select(&self.db, scope, start, self.config.symbol_limit).await?;
        let params = &self.config.params;
        let made = make(&self.db, &label, (start, end), members, params).await?;
        let mut result = ResultHasher::new(&label, start);
        result.part("mood", &made.published);
        result.part("observation", &made.observation);
        let commit = self.commit(&label, (start, end), version, &made)?;
        let report = Report {
            start,
            mood: made.published,
            reason: made.observation.reason.clone(),
            symbols: made.observation.symbols.len(),
            contributing: made.observation.contributing,
            incoherent: self.incoherent(&label, made.published.tier).await?,
            window: label,
        };
        let mut done = Done::new(report, commit);
        done.window = Some(WindowHashes {
            inputs: made.inputs,
            result: result.finish(),
            source: made.published.state().into(),
        });
        Ok(done)
    }

    /// How this tier stands to the newest of the other labels. It depends on which of them was first,
    /// so it is said and not stored.
    async fn incoherent(&self, label: &str, tier: Tier) -> Result<Vec<Incoherent>, DbError> {
        let mut tiers = super::view::tiers(&self.db).await?;
        tiers.retain(|(other, _)| other != label);
        tiers.push((label.to_owned(), tier));
        Ok(incoherences(&tiers))
    }

    fn commit(
        &self,
        label: &str,
        (start, end): (Time, Time),
        version: i64,
        made: &Made,
    ) -> Result<Commit, serde_json::Error> {
        let p = &made.published;
        let mut commit = Commit::new().with(register(made, &self.config.params)?);
        commit.push(Statement::new(
            "insert into mea_dynamics.moods
               (window_label, window_start, version, ts_ms, coeff, mood_id, tier, is_fallback,
                is_stale, stable_ts_ms, payload)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            values![
                label,
                start,
                version,
                end,
                p.coeff,
                p.id.to_string(),
                p.tier.as_str(),
                p.is_fallback,
                p.is_stale,
                p.stable_ts,
                serde_json::to_string(&made.observation)?,
            ],
        ));
        let mut rows = Vec::new();
        for (member, s) in readable(&made.members) {
            let mood = Mood::of(&s, &self.config.params);
            let weight = member.share.map(|share| share.weight);
            rows.extend(values![
                label,
                start,
                version,
                member.quote.as_str(),
                member.base.as_str(),
                Arc::clone(&member.symbol),
                s.g,
                s.t,
                s.v,
                weight,
                mood.v_t,
                mood.gfm,
                mood.v_s,
                mood.coeff,
                mood.id.to_string(),
            ]);
        }
        commit.push(Statement::bulk(
            "insert into mea_dynamics.symbol_moods
               (window_label, window_start, version, quote, base, symbol, g, t, v, weight, v_t, gfm,
                v_s, coeff, mood_id)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
            15,
            rows,
        ));
        commit.push(observe(&series_name(self.length), end, version, made)?);
        Ok(commit)
    }
}

/// The worker of the moods of `length`, fed by the series `input`.
pub(crate) fn definition(length: Millis, settle: Millis, input: &str) -> Definition {
    let name = series_name(length);
    Definition::new(
        name.as_str(),
        Trigger::Window(WindowSpec {
            series: name.as_str().into(),
            length,
            settle,
            inputs: vec![WindowInput::Settled { series: input.into() }],
            max_attempts: MAX_ATTEMPTS,
        }),
    )
    .describe(format!(
        "Publishes the mood of the {length} windows: one coefficient and its class, of each symbol and \
         of all; the last stable one again where a window has none of its own."
    ))
    .after(crate::window::series_name(length))
    .lane(LANE)
    .timeouts(Millis::from_mins(1), Millis::from_mins(2))
}

impl Worker for MoodWorker {
    fn define(&self) -> Definition {
        definition(self.length, self.settle, &self.input)
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.compute(cycle))
    }

    fn scope<'a>(&'a self, start: Time) -> BoxFuture<'a, Result<Vec<String>, BoxError>> {
        Box::pin(async move {
            let listings = Listings::load(&self.db).await?;
            Ok(listings.during(start, start + self.length).map(ToString::to_string).collect())
        })
    }

    fn first_window<'a>(&'a self, from: Time) -> BoxFuture<'a, Result<Option<Time>, BoxError>> {
        Box::pin(follow(&self.db, &self.input, self.length, from))
    }
}
