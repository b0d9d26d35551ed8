//! The regime, from the benchmark's hours and everybody's days.

use std::collections::BTreeSet;

use serde_json::json;
use watchbell_core::{Cycle, Done, Fault, Millis};
use watchbell_venues::native::Interval;

use super::feed::{Feed, primary_names};
use super::stages::{Stage, Stages};
use super::tables::{self, RunRow};
use super::{ScanWorker, pretty};
use crate::regime::{self, RegimeInUse, VALIDITY};

/// The asset by which volatility is measured (section 8.1).
const BENCHMARK: &str = "BTC";
/// Hours of it: a week of returns, and some for hours without a trade.
const HOURS: usize = 240;
/// Days of each symbol: twenty for the mean, and a thrust that has forgotten how it began.
const DAYS: usize = 60;

impl ScanWorker {
    /// One refresh. Without any indicator it fails, and the regime that is known stays.
    pub(super) async fn refresh(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let (shared, job) = (&*self.shared, &self.job);
        let started = cycle.started_at.floor(Millis::from_secs(1));
        let primary = self.primary()?;
        let mut feed = Feed::new(&shared.db, &shared.clock, self.clients(), job.ttl);
        let mut stages = Stages::new(cycle);
        stages.begin(Stage::Init, "waiting for the last bars to be final");
        feed.settle(cycle).await?;

        let (universe, members) = self.members(&mut feed, &mut stages, primary).await?;
        stages.begin(Stage::Fetch, format!("{} symbols", members.len()));
        let of = members.len() + 1;
        let benchmark = universe.members.iter().find(|m| m.base == BENCHMARK);
        let hours = match benchmark {
            None => None,
            Some(member) => {
                let names = [member.venue_symbol.clone()];
                let mut bars =
                    feed.bars(cycle, primary, Interval::Hour, HOURS, &names, |_| ()).await?;
                bars.remove(&names[0]).and_then(Result::ok)
            }
        };
        let names = primary_names(&members);
        let told = |done| Stages::at(cycle, Stage::Fetch, 1 + done, of, "answers");
        let mut days = feed.bars(cycle, primary, Interval::Day, DAYS, &names, told).await?;
        feed.save(cycle).await?;
        stages.found(format!("{} fetched, {} cached", feed.counts().fetched, feed.counts().cached));

        stages.begin(Stage::Analyze, "three indicators");
        let days: Vec<_> = members
            .iter()
            .filter_map(|m| {
                let bars = days.remove(&m.venue_symbol)?.ok()?;
                Some((m.symbol.clone(), bars.bars))
            })
            .collect();
        let hours = hours.as_ref().map(|h| h.bars.as_slice());
        let mut regime = regime::detect(hours, &days, started).map_err(Fault::transient)?;
        regime.next_refresh = job.schedule.next_after(started).unwrap_or(started + VALIDITY);
        stages.found(format!("{} ({})", regime.regime, regime.confidence));

        stages.begin(Stage::Write, "regime.json");
        let document = pretty(&regime)?;
        let mut commit = feed.commit();
        let valid_until = started + VALIDITY;
        tables::put_regime(
            &mut commit,
            started,
            valid_until,
            regime.regime.as_str(),
            regime.confidence,
            &document,
        );
        let now = shared.clock.now();
        let in_use = RegimeInUse::at(Some(&(&regime).into()), now);
        let source = format!("{primary}-spot");
        let header = self.header(&feed, &BTreeSet::from([source.as_str()]), &in_use.headline(now));
        tables::put_run(
            &mut commit,
            &RunRow {
                job: job.name.as_str(),
                kind: job.kind.as_str(),
                started_at: cycle.started_at,
                finished_at: now,
                regime: regime.regime.as_str(),
                regime_source: in_use.source.as_str(),
                scanned: members.len(),
                passed: 0,
                cycle: cycle.id.0,
                header: &header,
            },
        );
        tables::forget(&mut commit, cycle.started_at - shared.config.keep);
        commit.emit("regime.refreshed", regime.regime.as_str(), json!(regime));
        let summary = json!({
            "job": job.name,
            "kind": job.kind.as_str(),
            "timestamp": started,
            "regime": regime,
            "counts": feed.counts(),
            "header": header,
            "files": self.files(),
            "stages": stages.finish(),
        });
        self.publish(cycle, Done::new(summary, commit), &[("regime.json", document)]).await
    }
}
