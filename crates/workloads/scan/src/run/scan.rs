//! A hot or a warm scan, from the universe to its artifacts.
//!
//! Books come last (section 4.3): the first pass over all symbols decides who may enter, and the books
//! of those are read once more, right before the verdict.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};
use watchbell_core::{Cycle, Done, Fault, Millis, Time};
use watchbell_venues::native::{Interval, Venue, VenueHealth, Verdict};

use super::feed::{Feed, Wanted, primary_names};
use super::stages::{Stage, Stages};
use super::tables::{self, RunRow, VerdictRow};
use super::{ScanWorker, pretty, sha256};
use crate::config::{Job, Kind, Ranks};
use crate::csv;
use crate::explain::{Decision, Explanation, Meta};
use crate::input::{Bars, BookAnswer, Member, SymbolData, Universe};
use crate::pipeline::{self, Outcome};
use crate::premove::Evidence;
use crate::regime::RegimeInUse;
use crate::settings::Settings;
use crate::universe::{self, Choice};

/// Hourly bars that a scan asks for: thirty days, all that one answer of Kraken holds.
const HOURS: usize = 720;

impl ScanWorker {
    /// What the computation is told.
    fn settings(&self) -> Settings {
        let base = if self.job.kind == Kind::Hot { Settings::hot() } else { Settings::warm() };
        Settings {
            venues: self.job.venues.clone(),
            ttl: self.job.ttl,
            top_n: self.job.top_n,
            premove: self.job.premove,
            guards_enforce: self.shared.config.enforce_guards,
            strict_usd: self.shared.config.strict_usd,
            ..base
        }
    }

    /// One run.
    pub(super) async fn scan(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let (shared, job) = (&*self.shared, &self.job);
        let started = cycle.started_at.floor(Millis::from_secs(1));
        let settings = self.settings();
        let primary = self.primary()?;
        let mut feed = Feed::new(&shared.db, &shared.clock, self.clients(), job.ttl);
        let mut stages = Stages::new(cycle);

        stages.begin(Stage::Init, "waiting for the last bars to be final");
        feed.settle(cycle).await?;
        let regime = shared.regime(job, shared.clock.now()).await?;
        stages.found(format!("regime {}", regime.headline(shared.clock.now())));

        let (universe, members) = self.members(&mut feed, &mut stages, primary).await?;
        stages.begin(Stage::Fetch, format!("{} symbols", members.len()));
        let mut symbols = self.first_pass(cycle, &mut feed, &members, primary).await?;
        self.add_bars(cycle, &mut feed, &mut symbols, &settings).await?;
        feed.save(cycle).await?;
        stages.found(format!("{} fetched, {} cached", feed.counts().fetched, feed.counts().cached));

        stages.begin(Stage::Analyze, "scores");
        let universe_hash = universe::hash(&members);
        let scored = pipeline::score(symbols, &settings, &regime, shared.clock.now());
        stages.begin(Stage::Orthogonalize, "residuals");
        let again = scored.wants_final_book();
        stages.found(format!("{} may enter", again.len()));

        stages.begin(Stage::Filter, format!("{} final books", again.len()));
        let mut scored = scored;
        let finals = self.final_books(cycle, &mut feed, &again, primary).await?;
        for (member, venue) in scored.wants_bars(&finals, shared.clock.now()) {
            if let Some(bars) = self.bars_at(cycle, &mut feed, &member, venue).await? {
                scored.add_bars(&member.symbol, bars);
            }
        }
        let mut outcome = pipeline::judge(scored, finals, shared.clock.now());
        outcome.timestamp = started;
        stages.found(format!("{} of {} pass", outcome.summary.passed, outcome.summary.scanned));

        stages.begin(Stage::Write, self.files().join(", "));
        let health = self.health();
        let sources = outcome
            .explanations
            .iter()
            .flat_map(|e| e.sources.iter().map(String::as_str))
            .collect();
        let header = self.header(&feed, &sources, &regime.headline(outcome.decided_at));
        let meta = Meta {
            config_hash: sha256(&serde_json::to_string(&settings)?),
            universe_hash,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            regime_source: regime.source,
            stale_universe: universe.stale,
        };
        let files = self.render(&outcome, meta, &health)?;
        let mut commit = feed.commit();
        self.record(&mut commit, cycle, &outcome, &regime, &header);
        let summary = Summary {
            job: job.name.as_str(),
            kind: job.kind.as_str(),
            timestamp: started,
            scanned: outcome.summary.scanned,
            passed: outcome.summary.passed,
            rejections: &outcome.summary.rejections,
            counts: feed.counts(),
            header: &header,
            top: top(&outcome, job),
            files: self.files(),
            stages: stages.finish(),
        };
        let done = Done::new(&summary, commit);
        self.publish(cycle, done, &files).await
    }

    /// The universe, and those of it that the job looks at.
    pub(super) async fn members(
        &self,
        feed: &mut Feed<'_>,
        stages: &mut Stages<'_>,
        primary: Venue,
    ) -> Result<(Universe, Vec<Member>), Fault> {
        let (config, job) = (&self.shared.config, &self.job);
        stages.begin(Stage::Universe, format!("what {primary} trades"));
        let universe = feed.universe(primary, &config.do_not_trade).await?;
        let choice = match job.universe {
            Ranks::Top(n) => Choice::Top(n),
            Ranks::Remaining => Choice::Remaining(config.hot_ranks()),
            Ranks::All => Choice::All,
        };
        let members = universe::choose(&universe, choice, job.max_sample);
        if members.is_empty() {
            return Err(Fault::transient(format!(
                "no symbol of {primary} is in the universe `{}`: {} are left out",
                job.universe,
                universe.excluded.len()
            )));
        }
        stages.found(format!("{} of {}", members.len(), universe.members.len()));
        Ok((universe, members))
    }

    /// Bars of the primary exchange and a book of each.
    async fn first_pass(
        &self,
        cycle: &Cycle,
        feed: &mut Feed<'_>,
        members: &[Member],
        primary: Venue,
    ) -> Result<Vec<SymbolData>, Fault> {
        let books = members.len() * self.job.venues.len();
        let of = members.len() + books;
        let told = |done| Stages::at(cycle, Stage::Fetch, done, of, "answers");
        let names = primary_names(members);
        let mut hours = feed.bars(cycle, primary, Interval::Hour, HOURS, &names, told).await?;
        let wanted = self.wanted(feed, members, primary).await?;
        let told = |done| Stages::at(cycle, Stage::Fetch, members.len() + done, of, "answers");
        let mut books = feed.books(cycle, &self.job.venues, wanted, told).await?;
        let mut symbols = Vec::new();
        for member in members {
            let (mut bars, mut trouble) = (Vec::new(), Vec::new());
            match hours.remove(&member.venue_symbol) {
                Some(Ok(found)) => bars.push(found),
                Some(Err(why)) => trouble.push(format!("candles: {why}")),
                None => trouble.push("candles: not_listed".to_owned()),
            }
            symbols.push(SymbolData {
                books: books.remove(&member.symbol).unwrap_or_default(),
                member: member.clone(),
                hours: bars,
                trouble,
                evidence: Evidence::default(),
            });
        }
        Ok(symbols)
    }

    /// Bars of those exchanges whose books were chosen, where they are not the primary's: VADR rests
    /// on the volume of the exchange itself.
    async fn add_bars(
        &self,
        cycle: &Cycle,
        feed: &mut Feed<'_>,
        symbols: &mut [SymbolData],
        settings: &Settings,
    ) -> Result<(), Fault> {
        for (member, venue) in pipeline::wants_bars(symbols, settings, self.shared.clock.now()) {
            let bars = self.bars_at(cycle, feed, &member, venue).await?;
            if let Some(symbol) = symbols.iter_mut().find(|s| s.member.symbol == member.symbol) {
                symbol.hours.extend(bars);
            }
        }
        Ok(())
    }

    /// Bars of an exchange that is not the primary one. Without them VADR has none there: it is frozen,
    /// and passes nobody.
    async fn bars_at(
        &self,
        cycle: &Cycle,
        feed: &mut Feed<'_>,
        member: &Member,
        venue: Venue,
    ) -> Result<Option<Bars>, Fault> {
        let bars = match feed.name_at(venue, venue.quote(), &member.base).await? {
            Ok(name) => {
                let names = [name];
                let all = feed.bars(cycle, venue, Interval::Hour, HOURS, &names, |_| ()).await?;
                all.into_values().next().unwrap_or_else(|| Err("not_listed".to_owned()))
            }
            Err(why) => Err(why),
        };
        Ok(bars
            .inspect_err(|why| tracing::warn!("no candles of {} at {venue}: {why}", member.symbol))
            .ok())
    }

    async fn wanted(
        &self,
        feed: &mut Feed<'_>,
        members: &[Member],
        primary: Venue,
    ) -> Result<Vec<Wanted>, Fault> {
        let mut wanted = Vec::new();
        for member in members {
            for &venue in &self.job.venues {
                let name = if venue == primary {
                    Some(member.venue_symbol.clone())
                } else {
                    feed.name_at(venue, venue.quote(), &member.base).await?.ok()
                };
                wanted.push(Wanted { symbol: member.symbol.clone(), venue, venue_symbol: name });
            }
        }
        Ok(wanted)
    }

    async fn final_books(
        &self,
        cycle: &Cycle,
        feed: &mut Feed<'_>,
        members: &[Member],
        primary: Venue,
    ) -> Result<BTreeMap<String, Vec<BookAnswer>>, Fault> {
        let wanted = self.wanted(feed, members, primary).await?;
        let of = wanted.len();
        let told = |done| Stages::at(cycle, Stage::Filter, done, of, "final books");
        feed.books(cycle, &self.job.venues, wanted, told).await
    }

    fn health(&self) -> BTreeMap<Venue, VenueHealth> {
        let of = |v: &Venue| Some((*v, self.shared.clients.get(v)?.health()));
        self.job.venues.iter().filter_map(of).collect()
    }

    /// What stands above a run: only what was measured.
    pub(super) fn header(&self, feed: &Feed<'_>, sources: &BTreeSet<&str>, regime: &str) -> Value {
        let (latencies, health) = (feed.latencies(), self.health());
        let all: Vec<Millis> = latencies.values().flatten().copied().collect();
        let mean =
            (!all.is_empty()).then(|| all.iter().map(|l| l.0).sum::<i64>() / all.len() as i64);
        // Who was not asked is not judged.
        let asked =
            self.job.venues.iter().filter(|v| health.get(v).is_some_and(|h| h.requests > 0));
        let venues: Vec<Value> = asked
            .map(|v| {
                let middle = latencies.get(v).and_then(|l| l.get(l.len() / 2));
                let word = health.get(v).map(|h| health_of(h).as_str());
                json!({ "venue": v, "health": word, "latency_ms": middle.map(|m| m.0) })
            })
            .collect();
        json!({
            "regime": regime,
            "venues": venues,
            "latency_ms": mean,
            "sources": sources,
            "at": self.shared.clock.now(),
        })
    }

    /// The files of a run.
    fn render(
        &self,
        outcome: &Outcome,
        meta: Meta,
        health: &BTreeMap<Venue, VenueHealth>,
    ) -> Result<Vec<(&'static str, String)>, Fault> {
        let explain = outcome.explain(meta, health);
        let words: BTreeMap<Venue, csv::Health> =
            health.iter().map(|(v, h)| (*v, health_of(h))).collect();
        let text = |file: &str| {
            Ok::<_, Fault>(match file {
                "signals.csv" => csv::signals(outcome),
                "warm_signals.csv" => csv::warm_signals(outcome),
                "premove.csv" => csv::premove(outcome, &words),
                _ => pretty(&explain)?,
            })
        };
        self.files().into_iter().map(|file| Ok((file, text(file)?))).collect()
    }

    /// The run and its verdicts, for the commit.
    fn record(
        &self,
        commit: &mut watchbell_core::Commit,
        cycle: &Cycle,
        outcome: &Outcome,
        regime: &RegimeInUse,
        header: &Value,
    ) {
        let job = self.job.name.as_str();
        let run = RunRow {
            job,
            kind: self.job.kind.as_str(),
            started_at: cycle.started_at,
            finished_at: outcome.decided_at,
            regime: outcome.regime.name.as_str(),
            regime_source: regime.source.as_str(),
            scanned: outcome.summary.scanned,
            passed: outcome.summary.passed,
            cycle: cycle.id.0,
            header,
        };
        tables::put_run(commit, &run);
        let row = |e: &Explanation| VerdictRow {
            symbol: e.symbol.clone(),
            rank: e.rank,
            decision: match e.decision {
                Decision::Included => "included",
                Decision::Excluded => "excluded",
            },
            score: e.score,
            primary_reason: e.primary_reason.clone(),
            explanation: tables::json(e),
        };
        let rows: Vec<VerdictRow> = outcome.explanations.iter().map(row).collect();
        tables::put_verdicts(commit, job, cycle.started_at, &rows);
        tables::forget(commit, cycle.started_at - self.shared.config.keep);
        commit.emit(
            "scan.completed",
            job,
            json!({
                "started_at": cycle.started_at, "scanned": outcome.summary.scanned,
                "passed": outcome.summary.passed,
                "symbols": outcome.passers.iter().map(|s| &s.symbol).collect::<Vec<_>>(),
            }),
        );
    }
}

/// The word that tables have for the health of an exchange.
const fn health_of(health: &VenueHealth) -> csv::Health {
    match health.verdict {
        Verdict::Healthy => csv::Health::Healthy,
        Verdict::Degraded => csv::Health::Degraded,
        Verdict::Unhealthy => csv::Health::Unhealthy,
    }
}

/// What a run tells of itself.
#[derive(Serialize)]
struct Summary<'a> {
    job: &'a str,
    kind: &'a str,
    timestamp: Time,
    scanned: usize,
    passed: usize,
    rejections: &'a BTreeMap<String, usize>,
    counts: super::feed::Counts,
    header: &'a Value,
    top: Vec<Row<'a>>,
    files: Vec<&'static str>,
    stages: Vec<super::stages::Took>,
}

/// A row of the console's table (section 9.6).
#[derive(Serialize)]
struct Row<'a> {
    symbol: &'a str,
    score: Option<f64>,
    momentum_core: Option<f64>,
    vadr: Option<f64>,
    fresh: bool,
    deep: bool,
    venue: Option<Venue>,
    sources: usize,
    passed: bool,
    reason: &'a str,
}

/// Those that passed, then those that came closest.
fn top<'a>(outcome: &'a Outcome, job: &Job) -> Vec<Row<'a>> {
    let passed = outcome.explanations.iter().filter(|e| e.all_gates_pass);
    let all = passed.chain(outcome.near_misses()).take(job.top_n);
    all.map(|e| Row {
        symbol: &e.symbol,
        score: e.score,
        momentum_core: e.momentum_core,
        vadr: e.vadr.value,
        fresh: e.fresh,
        deep: e.deep(),
        venue: e.microstructure.venue,
        sources: e.sources.len(),
        passed: e.all_gates_pass,
        reason: &e.reason,
    })
    .collect()
}
