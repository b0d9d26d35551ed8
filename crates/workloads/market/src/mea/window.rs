//! `mea-30m` and its sisters: the allotments of each window, right after its matrices.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use watchbell_core::{
    BoxError, BoxFuture, Cause, Commit, Cycle, Definition, Done, Expect, Fault, Millis, Statement,
    Time, Trigger, WindowHashes, WindowInput, WindowSpec, Worker, values,
};
use watchbell_db::{Database, DbError};

use super::balances::{self, Balances, Origin};
use super::grid::{Allotment, Rank, allot};
use super::snapshot::{self, Known, Measures, Snapshot};
use super::{Config, series_name};
use crate::analytics::hash::{InputsHasher, ResultHasher};
use crate::matrices;
use crate::matrices::cells::{MatrixType, USDT};
use crate::matrices::stored::{self, Stored, leg_names};
use crate::matrices::window::{follow, input_abandoned, members};
use crate::mood;
use crate::window::{LANE, MAX_ATTEMPTS};

/// The mood while there is none.
const NEUTRAL: (f64, &str) = (0.8, "Ea0");
/// Slices that the histogram of `pct_drv` looks back on.
const HISTORY: i64 = 64;

/// The worker of one label.
pub(crate) struct MeaWorker {
    db: Database,
    length: Millis,
    settle: Millis,
    config: Config,
}

/// The mood that counts for a window.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Mood {
    coeff: f64,
    id: String,
    /// The window that it is of; none for the neutral one.
    window: Option<Time>,
}

/// What a run did: the worker's summary.
#[derive(Debug, Serialize)]
struct Report {
    window: Arc<str>,
    start: Time,
    coins: usize,
    balances: Origin,
    k: f64,
    mood: Mood,
    /// What all allotments together are worth in USDT.
    allotted_usdt: f64,
    /// Coins of each rank that some have.
    ranks: BTreeMap<Rank, usize>,
    pair: Option<[Arc<str>; 2]>,
}

/// One cycle, computed.
struct Computed {
    label: Arc<str>,
    id: Arc<str>,
    start: Time,
    end: Time,
    version: i64,
    number: i64,
    slice: Stored,
    names: BTreeMap<Arc<str>, Arc<str>>,
    balances: Balances,
    /// In USDT.
    prices: Vec<Option<f64>>,
    k: f64,
    mood: Mood,
    allotments: Vec<Allotment>,
    /// What the other sessions of the label are suggested.
    others: Vec<(Balances, Vec<Allotment>)>,
    snapshot: Option<Snapshot>,
}

impl MeaWorker {
    pub(crate) const fn new(db: Database, length: Millis, settle: Millis, config: Config) -> Self {
        Self { db, length, settle, config }
    }

    async fn compute(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let Cause::Window { start, end, version, .. } = cycle.cause else {
            return Err(Fault::permanent("a window worker runs only for a window"));
        };
        let label: Arc<str> = self.length.exact().into();
        let types = [MatrixType::Benchmark, MatrixType::IdPct];
        let Some(slice) = Stored::exactly(&self.db, &label, end, &types).await? else {
            return Err(input_abandoned(&matrices::series_name(self.length), start));
        };
        let usdt = slice.find(USDT);
        let prices: Vec<Option<f64>> = (0..slice.coins.len())
            .map(|c| match usdt {
                Some(usdt) if usdt == c => Some(1.0),
                usdt => slice.grid(MatrixType::Benchmark).get(c, usdt?),
            })
            .collect();
        let symbols = members(&self.db, &label, start).await?;
        let names = leg_names(&stored::market(&self.db, &symbols).await?);
        let measures = self.measures(&label, start, &names).await?;
        let mood = self.mood(&label, start).await?;
        let (balances, further) =
            balances::at(&self.db, &label, end, &slice.coins, &prices).await?;
        let others = slice.coins.len().saturating_sub(1).max(1);
        let k = self.config.k.map_or(others as f64, f64::from);
        let pair = snapshot::select(&slice, self.config.pair.as_ref());
        let drv = match pair {
            Some((b, q)) => self.drv(&label, end, &slice.coins[b], &slice.coins[q]).await?,
            None => Vec::new(),
        };

        let mut inputs = InputsHasher::new(&format!("mea {label}"), start);
        inputs.symbol(&format!("matrices {} {} {}", end.0, slice.key.version, slice.hash));
        inputs.symbol(&format!("mood {}", mood.id));
        inputs.point(mood.window.unwrap_or(start), mood.coeff, &[k]);
        inputs.symbol(&format!("balances {}", balances.origin.as_str()));
        for (coin, balance) in slice.coins.iter().zip(&balances.units) {
            inputs.symbol(coin);
            inputs.point(end, *balance, &[]);
        }
        for (coin, m) in &measures {
            inputs.symbol(coin);
            inputs.point(start, m.inner, &[m.outer, m.tendency, m.swap]);
        }
        for value in &drv {
            inputs.point(end, *value, &[]);
        }

        let allot = |balances: &Balances| {
            let (prices, moves) =
                (slice.grid(MatrixType::Benchmark), slice.grid(MatrixType::IdPct));
            allot(prices, moves, &slice.flags, &balances.units, k, mood.coeff)
        };
        let allotments = allot(&balances);
        let others = further
            .into_iter()
            .map(|balances| {
                let allotments = allot(&balances);
                (balances, allotments)
            })
            .collect();
        let known = Known { measures: &measures, names: &names, prices: &prices };
        let snapshot = pair.map(|pair| snapshot::take(&slice, pair, &known, &drv));
        let number = start.since(Time::EPOCH) / self.length;
        let computed = Computed {
            id: format!("{label}:{number}:{version}").into(),
            label,
            start,
            end,
            version,
            number,
            slice,
            names,
            balances,
            prices,
            k,
            mood,
            allotments,
            others,
            snapshot,
        };
        let mut result = ResultHasher::new(&format!("mea {}", computed.label), start);
        for (coin, allotment) in computed.slice.coins.iter().zip(&computed.allotments) {
            result.part(coin, allotment);
        }
        result.part("snapshot", &computed.snapshot);
        let mut done = Done::new(computed.report(), computed.commit()?);
        let (inputs, result) = (inputs.finish(), result.finish());
        let source = computed.balances.origin.as_str();
        done.window = Some(WindowHashes { inputs, result, source: source.into() });
        Ok(done)
    }

    /// What the window's vectors say, by coin.
    async fn measures(
        &self,
        label: &Arc<str>,
        start: Time,
        names: &BTreeMap<Arc<str>, Arc<str>>,
    ) -> Result<BTreeMap<Arc<str>, Measures>, DbError> {
        let rows = self
            .db
            .query(
                "select u.symbol, v.vec
                 from settings.coin_universe u cross join str_aux.window_vectors v
                 where v.symbol = u.symbol and v.window_label = $1 and v.window_start = $2
                 order by v.version",
                values![Arc::clone(label), start],
            )
            .await?;
        let mut by_symbol = BTreeMap::new();
        for row in &rows {
            let vec = row.json(1)?;
            let number = |value: &serde_json::Value| value.as_f64();
            let measures = (|| {
                Some(Measures {
                    inner: number(&vec["inner"])?,
                    outer: number(&vec["outer"])?,
                    tendency: number(&vec["tendency"]["score"])?,
                    swap: number(&vec["swap"]["score"])?,
                })
            })();
            if let Some(measures) = measures {
                by_symbol.insert(row.shared_text(0)?, measures);
            }
        }
        let of = |symbol: &Arc<str>| by_symbol.get(symbol).copied();
        Ok(names.iter().filter_map(|(coin, s)| Some((Arc::clone(coin), of(s)?))).collect())
    }

    async fn mood(&self, label: &Arc<str>, start: Time) -> Result<Mood, DbError> {
        let row = self
            .db
            .query_opt(
                "select coeff, mood_id, window_start from mea_dynamics.moods
                 where window_label = $1 and window_start < $2
                 order by window_start desc, version desc limit 1",
                values![Arc::clone(label), start],
            )
            .await?;
        Ok(match row {
            Some(row) => {
                Mood { coeff: row.f64(0)?, id: row.text(1)?.to_owned(), window: Some(row.time(2)?) }
            }
            None => Mood { coeff: NEUTRAL.0, id: NEUTRAL.1.to_owned(), window: None },
        })
    }

    /// The last values of a pair's `pct_drv`, the newest first.
    async fn drv(
        &self,
        label: &Arc<str>,
        until: Time,
        base: &str,
        quote: &str,
    ) -> Result<Vec<f64>, stored::ReadError> {
        let of = Some(MatrixType::PctDrv);
        let points = stored::history(&self.db, label, base, quote, until, HISTORY, of).await?;
        Ok(points.into_iter().filter_map(|p| p.values.into_values().next().flatten()).collect())
    }
}

impl Computed {
    fn report(&self) -> Report {
        let worth = self.allotments.iter().zip(&self.prices);
        let mut ranks = BTreeMap::new();
        for a in &self.allotments {
            *ranks.entry(a.rank).or_default() += 1;
        }
        let coin = |c: usize| Arc::clone(&self.slice.coins[c]);
        Report {
            window: Arc::clone(&self.label),
            start: self.start,
            coins: self.slice.coins.len(),
            balances: self.balances.origin,
            k: self.k,
            mood: self.mood.clone(),
            allotted_usdt: worth.filter_map(|(a, p)| Some(a.value * (*p)?)).sum(),
            ranks,
            pair: self.snapshot.as_ref().map(|s| [coin(s.base), coin(s.quote)]),
        }
    }

    /// Start, allotments, cool, snapshot.
    fn commit(&self) -> Result<Commit, serde_json::Error> {
        let coins = &self.slice.coins;
        let selected =
            |of: fn(&Snapshot) -> usize| self.snapshot.as_ref().map(|s| Arc::clone(&coins[of(s)]));
        let mut commit = Commit::new().with(Statement::new(
            "insert into mea_dynamics.cycles
               (cycle_id, window_label, window_start, version, engine_cycle, ts_started, cooled,
                selected_base, selected_quote, coins, balance_source, k, mood_coeff, mood_id)
             values ($1, $2, $3, $4, $5, $6, 0, $7, $8, $9, $10, $11, $12, $13)",
            values![
                Arc::clone(&self.id),
                Arc::clone(&self.label),
                self.start,
                self.version,
                self.number,
                self.start,
                selected(|s| s.base),
                selected(|s| s.quote),
                serde_json::to_string(coins)?,
                self.balances.origin.as_str(),
                self.k,
                self.mood.coeff,
                self.mood.id.as_str(),
            ],
        ));
        let mut by_name: Vec<usize> = (0..coins.len()).collect();
        by_name.sort_by(|a, b| coins[*a].cmp(&coins[*b]));
        let mut rows = Vec::with_capacity(coins.len() * 13);
        for &b in &by_name {
            let (a, balance) = (&self.allotments[b], self.balances.units[b]);
            rows.extend(values![
                Arc::clone(&self.id),
                Arc::clone(self.names.get(&coins[b]).unwrap_or(&coins[b])),
                Arc::clone(&coins[b]),
                Arc::clone(&self.label),
                self.end,
                self.number,
                self.prices[b].map(|p| balance * p),
                a.value,
                a.rank.as_str(),
                self.mood.id.as_str(),
                self.mood.id.as_str(),
                self.components(&self.balances, a, b).to_string(),
                serde_json::to_string(&a.cells)?,
            ]);
        }
        commit.push(Statement::bulk(
            "insert into mea_dynamics.mea_symbol
               (cycle_id, symbol, coin, window_label, ts, engine_cycle, wallet_value, mea_value,
                tier, mood_id, mood_name, components, cells)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
            13,
            rows,
        ));
        let mut suggested = Vec::new();
        let all = self.others.iter().map(|(balances, allotments)| (balances, allotments));
        for (balances, allotments) in all.chain([(&self.balances, &self.allotments)]) {
            let Some(session) = balances.session else { continue };
            for &b in &by_name {
                let Some(price) = self.prices[b] else { continue };
                suggested.extend(values![
                    session,
                    Arc::clone(self.names.get(&coins[b]).unwrap_or(&coins[b])),
                    self.end,
                    allotments[b].value * price,
                    self.components(balances, &allotments[b], b).to_string(),
                ]);
            }
        }
        if !suggested.is_empty() {
            // What a session that is still open is compared with: worth in USDT, of the newest window.
            commit.push(Statement::bulk(
                "insert into cin_aux.mea_result (session_id, symbol, ts_ms, value, components)
                 select session_id, $2, $3, $4, $5 from cin_aux.rt_session
                 where session_id = $1 and status = 'OPEN'
                 on conflict (session_id, symbol) do update set
                   ts_ms = excluded.ts_ms, value = excluded.value, components = excluded.components
                 where excluded.ts_ms >= cin_aux.mea_result.ts_ms",
                5,
                suggested,
            ));
        }
        commit.push(
            Statement::new(
                "update mea_dynamics.cycles set cooled = 1, ts_cooled = $2
                 where cycle_id = $1 and cooled = 0",
                values![Arc::clone(&self.id), self.end],
            )
            .expect(Expect::Exactly(1)),
        );
        if let Some(s) = &self.snapshot {
            commit.push(self.snapshot_row(s)?);
        }
        Ok(commit)
    }

    /// What coin `b` was allotted from.
    fn components(&self, balances: &Balances, a: &Allotment, b: usize) -> serde_json::Value {
        serde_json::json!({
            "k": self.k, "mood": self.mood.coeff, "balance": balances.units[b],
            "balance_source": balances.origin, "mean_weight": a.mean_weight, "tiers": a.tiers,
        })
    }

    fn snapshot_row(&self, s: &Snapshot) -> Result<Statement, serde_json::Error> {
        let coins = &self.slice.coins;
        Ok(Statement::new(
            "insert into mea_dynamics.dynamics_snapshot
               (cycle_id, window_label, ts, engine_cycle, base, quote, coins, candidates,
                asset_identity, arbitrage_rows, str_available, str_measures, histogram,
                mea_value, mea_tier, mood_id, mood_name, stamps)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                     $18)",
            values![
                Arc::clone(&self.id),
                Arc::clone(&self.label),
                self.end,
                self.number,
                Arc::clone(&coins[s.base]),
                Arc::clone(&coins[s.quote]),
                serde_json::to_string(coins)?,
                serde_json::to_string(&s.candidates)?,
                serde_json::to_string(&s.identity)?,
                serde_json::to_string(&s.rows)?,
                s.str_available,
                serde_json::to_string(&s.measures)?,
                serde_json::to_string(&s.histogram)?,
                self.allotments[s.base].cells[s.quote],
                self.allotments[s.base].rank.as_str(),
                self.mood.id.as_str(),
                self.mood.id.as_str(),
                serde_json::json!({ "opening_ts": self.slice.opening }).to_string(),
            ],
        ))
    }
}

/// The worker of the allotments of windows of `length`.
pub(crate) fn definition(length: Millis, settle: Millis) -> Definition {
    let (name, input) = (series_name(length), matrices::series_name(length));
    let mood = mood::series_name(length);
    Definition::new(
        name.as_str(),
        Trigger::Window(WindowSpec {
            series: name.as_str().into(),
            length,
            settle,
            inputs: vec![
                WindowInput::Settled { series: input.as_str().into() },
                // Its factor is the mood of the window before, which is made after the allotment of
                // that window.
                WindowInput::Previous { series: mood.as_str().into() },
            ],
            max_attempts: MAX_ATTEMPTS,
        }),
    )
    .describe(format!(
        "Allots the balance of each coin over the others by the movements of each {length} window's \
         matrices and the mood of the window before, and takes a snapshot of one pair."
    ))
    .after(input)
    .lane(LANE)
    .timeouts(Millis::from_mins(2), Millis::from_mins(4))
}

impl Worker for MeaWorker {
    fn define(&self) -> Definition {
        definition(self.length, self.settle)
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.compute(cycle))
    }

    fn first_window<'a>(&'a self, from: Time) -> BoxFuture<'a, Result<Option<Time>, BoxError>> {
        Box::pin(async move {
            follow(&self.db, &matrices::series_name(self.length), self.length, from).await
        })
    }
}
