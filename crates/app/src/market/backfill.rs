//! `market backfill`: the past of a symbol, with a progress bar while a node computes it.

use serde_json::json;
use watchbell_api::{BackfillReport, BackfillRequest, ControlError};
use watchbell_cli::args::Global;
use watchbell_cli::{Exit, Out, Progress};
use watchbell_core::Millis;
use watchbell_market::{BASE_CYCLE, series_name, view};

use super::Result;
use super::args::BackfillArgs;
use super::place::Place;
use crate::installation::trouble;

/// How often the backfill is looked at.
const LOOK: Millis = Millis(500);

pub(super) async fn run(
    args: &BackfillArgs,
    place: &Place,
    global: &Global,
    out: &mut Out,
) -> Result<Exit> {
    let universe = view::universe(place.db()).await.map_err(|e| trouble(&e))?;
    match universe.iter().find(|u| u.symbol == args.symbol) {
        Some(line) if line.enabled => {}
        Some(_) => {
            let said = format!("{} is disabled: nothing is fetched or computed of it", args.symbol);
            let remedy = format!("`watchbell market universe enable {}`", args.symbol);
            return Err(ControlError::conflict(said).help(remedy));
        }
        None => {
            let known = universe.iter().map(|u| u.symbol.as_str());
            return Err(ControlError::not_found("symbol", args.symbol.clone(), known));
        }
    }
    let request = BackfillRequest {
        series: None,
        from: args.from,
        to: args.to,
        preview: args.preview,
        recompute: None,
        by: out.user.clone(),
    };
    let report = place.control().backfill(request).await?;
    let (cycles, windows) = counts(&report, place.lengths());
    let ids: Vec<i64> = report.records.iter().map(|r| r.id).collect();
    let waits = !args.preview && !args.no_wait && !ids.is_empty();
    if waits && place.node_runs().await? {
        wait(&report, place, global, out).await?;
    } else if waits {
        out.remark("no node runs: the windows are computed once one does (`watchbell up`)");
    }
    let answer = json!({
        "symbol": args.symbol, "from": args.from, "to": args.to, "preview": args.preview,
        "cycles": cycles, "windows": windows, "backfills": ids,
    });
    out.data(&answer, |_, _| format!("cycles={cycles}, windows={windows}\n"))?;
    Ok(Exit::Ok)
}

/// Cycles of 40 s that the windows of the span reach over, and windows of the labels to compute: what
/// follows from a window, such as its matrices, is a series of its own and not counted.
fn counts(report: &BackfillReport, lengths: &[Millis]) -> (i64, i64) {
    let labels: Vec<String> = lengths.iter().map(|l| series_name(*l)).collect();
    let from = report.series.iter().map(|l| l.from).min();
    let to = report.series.iter().map(|l| l.to).max();
    let of_label =
        report.series.iter().filter(|l| labels.iter().any(|of| *of == l.series.as_str()));
    let windows = of_label.map(|l| l.to_compute).sum();
    let span = from.zip(to).map_or(Millis::ZERO, |(from, to)| to.since(from));
    (span.0.max(0) / BASE_CYCLE.0, windows)
}

/// Shows how far the backfills are until all of them are done.
async fn wait(report: &BackfillReport, place: &Place, global: &Global, out: &Out) -> Result<()> {
    let progress = Progress::fitting(global.quiet || global.json);
    let mut steps = Vec::new();
    for record in &report.records {
        let line = report.series.iter().find(|l| l.series == record.series);
        let windows = line.map_or(0, |l| l.windows);
        let length = line
            .filter(|l| l.windows > 0)
            .map_or(Millis(1), |l| Millis(l.to.since(l.from).0 / l.windows));
        let step = progress.step(record.series.as_str(), windows.unsigned_abs(), "windows");
        steps.push((record.id, length, Some(step)));
    }
    while steps.iter().any(|(.., step)| step.is_some()) {
        let known = place.control().backfills().await?;
        for (id, length, step) in &mut steps {
            let Some(record) = known.iter().find(|r| r.id == *id) else {
                // Retention took it: it was done long ago.
                *step = None;
                continue;
            };
            let done = record.cursor.since(record.from).0.max(0) / length.0;
            if record.finished_at.is_some() {
                if let Some(step) = step.take() {
                    step.finish("done");
                }
            } else if let Some(step) = step {
                step.set(done.unsigned_abs());
            }
        }
        if steps.iter().any(|(.., step)| step.is_some()) {
            out.clock.sleep(LOOK).await;
        }
    }
    Ok(())
}
