//! Windows: what is stored of them, the proof that they can be computed again, and requests for
//! those of the past.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use watchbell_api::{
    BackfillLine, BackfillReport, BackfillRequest, ControlError, Result, Verdict, VerifyReport,
    VerifyRequest,
};
use watchbell_core::port::{StoreError, WindowQuery, WindowRecord};
use watchbell_core::window::{self, State};
use watchbell_core::{Fault, SeriesName, Time, WindowSpec};
use watchbell_engine::{Effects, Unit};
use watchbell_market::InputsRemoved;

use super::LocalControl;
use super::run::{Bench, stopped};
use crate::installation::trouble;

/// Windows that one request may be about.
const MOST: u32 = 200_000;
/// Windows that are computed again at the same time.
const AT_ONCE: usize = 2;

impl LocalControl {
    pub(super) async fn list_windows(&self, query: WindowQuery) -> Result<Vec<WindowRecord>> {
        if let Some(series) = &query.series {
            self.known_series(series).await?;
        }
        Ok(self.store.windows(query).await?)
    }

    /// Refuses a series that neither a worker computes nor the store holds.
    async fn known_series(&self, series: &SeriesName) -> Result<()> {
        if self.series_unit(series).is_ok() {
            return Ok(());
        }
        let stored = self.store.series().await?;
        if stored.contains_key(series) {
            return Ok(());
        }
        let known = self.window_units().map(|(_, spec)| spec.series.as_str());
        let known = known.chain(stored.keys().map(SeriesName::as_str));
        Err(super::not_found("series", series.as_str(), known))
    }

    pub(super) async fn versions(
        &self,
        series: SeriesName,
        start: Time,
    ) -> Result<Vec<WindowRecord>> {
        self.known_series(&series).await?;
        if let Ok((_, spec)) = self.series_unit(&series) {
            aligned(spec, start)?;
        }
        let versions = self.store.window(&series, start).await?;
        if versions.is_empty() {
            return Err(ControlError::not_found("window", format!("{series} {start}"), []));
        }
        Ok(versions)
    }

    pub(super) async fn verify_windows(&self, request: VerifyRequest) -> Result<Vec<VerifyReport>> {
        let mut complete = BTreeMap::new();
        match request {
            VerifyRequest::One { series, start } => {
                let versions = self.versions(series.clone(), start).await?;
                let newest = versions.into_iter().rfind(|w| w.state == State::Complete);
                let Some(newest) = newest else {
                    return Ok(vec![VerifyReport {
                        series,
                        start,
                        version: None,
                        stored: None,
                        recomputed: None,
                        verdict: Verdict::Missing,
                        detail: Some("it is not complete".to_owned()),
                    }]);
                };
                complete.insert((series, start), newest);
            }
            VerifyRequest::Range { series, from, to } => {
                // A window under correction is still answered by its newest complete version.
                let query = WindowQuery {
                    series,
                    state: Some(State::Complete),
                    from,
                    to,
                    all_versions: true,
                    limit: MOST + 1,
                };
                let found = self.list_windows(query).await?;
                if found.len() > MOST as usize {
                    return Err(too_many());
                }
                for window in found {
                    let at = (window.series.clone(), window.start);
                    let known = complete.entry(at).or_insert_with(|| window.clone());
                    if known.version < window.version {
                        *known = window;
                    }
                }
            }
        }
        let mut waiting = complete.into_values();
        let mut tasks = JoinSet::new();
        let mut reports = Vec::new();
        loop {
            while tasks.len() < AT_ONCE
                && let Some(stored) = waiting.next()
            {
                let unit = self.series_unit(&stored.series).ok().map(|(u, _)| Arc::clone(u));
                tasks.spawn(compare(self.bench(), unit, stored));
            }
            match tasks.join_next().await {
                None => break,
                Some(Ok(report)) => reports.push(report),
                Some(Err(e)) => {
                    return Err(ControlError::internal("a verification ended badly").because(&e));
                }
            }
        }
        reports.sort_by(|a, b| (&a.series, a.start).cmp(&(&b.series, b.start)));
        Ok(reports)
    }

    pub(super) async fn fill(&self, request: BackfillRequest) -> Result<BackfillReport> {
        let BackfillRequest { series, from, to, preview, recompute, by } = request;
        if from >= to {
            return Err(ControlError::invalid(format!("there is no time from {from} to {to}"))
                .help("`from` must lie before `to`"));
        }
        if recompute.as_ref().is_some_and(|reason| reason.trim().is_empty()) {
            return Err(ControlError::invalid("a correction needs a reason")
                .help("say in a few words why the windows are computed again"));
        }
        let specs: Vec<WindowSpec> = match series {
            Some(series) => vec![self.series_unit(&series)?.1.clone()],
            None => self.window_units().map(|(_, spec)| spec.clone()).collect(),
        };
        let now = self.clock.now();
        let mut lines = Vec::with_capacity(specs.len());
        let mut corrections = Vec::new();
        for spec in &specs {
            let span = span(spec, from, to, now)?;
            let known = self.newest_of(spec, span.0, span.1).await?;
            let of_state = |state| known.iter().filter(|w| w.state == state).count() as i64;
            let windows = (span.1.since(span.0) / spec.length).max(0);
            let complete = of_state(State::Complete);
            let to_compute = if recompute.is_some() {
                corrections.extend(known.into_iter().filter(|w| w.state.is_final()));
                windows
            } else {
                windows - complete - of_state(State::Abandoned)
            };
            lines.push(BackfillLine {
                series: spec.series.clone(),
                from: span.0,
                to: span.1,
                windows,
                complete,
                to_compute,
            });
        }
        let mut report = BackfillReport { preview, series: lines, records: Vec::new() };
        let wanted: Vec<&BackfillLine> =
            report.series.iter().filter(|l| l.to_compute > 0).collect();
        let Some(oldest) = wanted.iter().map(|l| l.from).min().filter(|_| !preview) else {
            return Ok(report);
        };
        for window in &corrections {
            let reason = recompute.as_deref().unwrap_or_default();
            match self.store.correct_window(&window.series, window.start, reason, now).await {
                // A conflict means that somebody opened the same correction just now.
                Ok(_) | Err(StoreError::Conflict(_)) => {}
                Err(e) => return Err(e.into()),
            }
        }
        watchbell_market::want_history(&self.db, oldest, now).await.map_err(|e| trouble(&e))?;
        let mut records = Vec::with_capacity(wanted.len());
        for line in wanted {
            let (from, to) = (line.from, line.to);
            records.push(self.store.request_backfill(&line.series, from, to, &by, now).await?);
        }
        if let Some(engine) = &self.engine {
            let series = records.iter().map(|r| r.series.clone()).collect();
            engine.wake(Effects { series, ..Effects::default() });
        }
        report.records = records;
        Ok(report)
    }

    async fn newest_of(
        &self,
        spec: &WindowSpec,
        from: Time,
        to: Time,
    ) -> Result<Vec<WindowRecord>> {
        let query = WindowQuery {
            series: Some(spec.series.clone()),
            from: Some(from),
            to: Some(to),
            limit: MOST,
            ..WindowQuery::default()
        };
        Ok(self.store.windows(query).await?)
    }
}

/// The aligned span of a request, without windows that are not over.
fn span(spec: &WindowSpec, from: Time, to: Time, now: Time) -> Result<(Time, Time)> {
    let from = from.floor(spec.length);
    let to = to.ceil(spec.length).min(window::last_closed(spec, now) + spec.length).max(from);
    if to.since(from) / spec.length > i64::from(MOST) {
        return Err(too_many());
    }
    Ok((from, to))
}

fn too_many() -> ControlError {
    ControlError::invalid(format!("the span holds more than {MOST} windows"))
        .help("ask for a shorter one, or for one series at a time")
}

/// The start of a window, if `start` is one.
pub(super) fn aligned(spec: &WindowSpec, start: Time) -> Result<Time> {
    let floor = start.floor(spec.length);
    if floor == start {
        return Ok(start);
    }
    Err(ControlError::invalid(format!("no window of {} starts at {start}", spec.series))
        .help(format!("the one that holds it starts at {floor}")))
}

/// Computes a window again without writing, and compares.
async fn compare(bench: Bench, unit: Option<Arc<Unit>>, stored: WindowRecord) -> VerifyReport {
    let kept = stored.hashes;
    let mut report = VerifyReport {
        series: stored.series,
        start: stored.start,
        version: Some(stored.version),
        stored: kept.as_ref().map(|h| h.result.clone()),
        recomputed: None,
        verdict: Verdict::Failed,
        detail: None,
    };
    let (Some(unit), Some(kept)) = (unit, kept) else {
        report.detail = Some("no worker of this configuration computes it".to_owned());
        return report;
    };
    match bench.rehearse(&unit, Some(report.start)).await {
        Err(fault) => {
            report.detail = Some(fault.to_string());
            if matches!(&fault, Fault::Permanent(e) if e.is::<InputsRemoved>()) {
                report.verdict = Verdict::InputsRemoved;
            }
        }
        Ok(Err(refusal)) => report.detail = Some(stopped(&refusal)),
        Ok(Ok(rehearsal)) => match rehearsal.window {
            None => report.detail = Some("the worker returned no hashes".to_owned()),
            Some(now) => {
                report.verdict = if now.inputs != kept.inputs {
                    report.detail = Some(if now.source == kept.source {
                        format!("what it was computed from ({}) changed since", kept.source)
                    } else {
                        format!("it was computed from {}, and now from {}", kept.source, now.source)
                    });
                    Verdict::InputsChanged
                } else if now.result == kept.result {
                    Verdict::Same
                } else {
                    Verdict::Different
                };
                report.recomputed = Some(now.result);
            }
        },
    }
    report
}
