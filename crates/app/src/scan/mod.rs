//! The commands of the scans: `scan`, and the jobs of `schedule`.
//!
//! What they show is read from the store, which a node that runs does not mind. What they run is a
//! worker as any other: the node runs it, or this process without one.

mod args;
mod print;
pub(crate) mod schedule;

use watchbell_api::ControlError;
use watchbell_cli::{Exit, Out};
use watchbell_db::Database;
use watchbell_scan::view;
use watchbell_venues::native::Venue;

use self::args::ExplainArgs;
pub(crate) use self::args::ScanCommand;
use crate::config::Config;
use crate::installation::trouble;
use crate::market::Place;

type Result<T> = std::result::Result<T, ControlError>;

/// Carries out a command of the scans.
pub(crate) async fn run(command: &ScanCommand, config: Config, out: &mut Out) -> Result<Exit> {
    let primary = primary(&config);
    let place = Place::find(config, false).await?;
    let shown = show(command, &place, primary, out).await;
    place.leave().await?;
    shown.map(|()| Exit::Ok)
}

/// The exchange whose universe the first job scans.
fn primary(config: &Config) -> Venue {
    let first = config.scan.config.jobs.iter().find_map(|job| job.venues.first());
    first.copied().unwrap_or(Venue::Kraken)
}

async fn show(command: &ScanCommand, place: &Place, primary: Venue, out: &mut Out) -> Result<()> {
    let (db, now) = (place.db(), place.now());
    match command {
        ScanCommand::Explain(args) => explain(args, db, primary, out).await,
        ScanCommand::Runs { job, limit } => {
            let runs = view::runs(db, job.as_deref(), *limit).await.map_err(|e| trouble(&e))?;
            out.data(&runs, |runs, style| print::runs(runs, now, style))
        }
        ScanCommand::Regime => {
            let regime = view::newest_regime(db).await.map_err(|e| trouble(&e))?;
            let regime = regime.ok_or_else(|| {
                ControlError::unavailable("no regime is known yet")
                    .help("`watchbell schedule run regime.refresh` finds one")
            })?;
            out.data(&regime, |regime, style| print::regime(regime, now, style))
        }
        ScanCommand::Universe { excluded } => {
            let universe = view::universe(db, primary).await.map_err(|e| trouble(&e))?;
            let (taken_at, universe) = universe.ok_or_else(|| {
                ControlError::unavailable(format!("no universe of {primary} is known yet"))
                    .help("`watchbell schedule run scan.hot` takes one")
            })?;
            let all = serde_json::json!({ "taken_at": taken_at, "universe": universe });
            out.data(&all, |_, style| print::universe(&universe, taken_at, now, *excluded, style))
        }
    }
}

/// Why a symbol is in or out.
async fn explain(args: &ExplainArgs, db: &Database, primary: Venue, out: &mut Out) -> Result<()> {
    let symbol = full_name(&args.symbol);
    let job = args.job.as_deref();
    let found = view::explain(db, &symbol, job).await.map_err(|e| trouble(&e))?;
    if let Some(explained) = found {
        return out.data(&explained, print::explained);
    }
    // Left out before anything was scanned, never heard of, or nothing was scanned at all.
    let universe = view::universe(db, primary).await.map_err(|e| trouble(&e))?;
    let left_out = universe.as_ref().and_then(|(_, u)| {
        let base = symbol.trim_end_matches("/USD");
        let named = |name: &str| name == symbol || name.trim_end_matches("USD") == base;
        u.excluded.iter().find(|(name, _)| named(name))
    });
    if let Some((name, why)) = left_out {
        let text = format!("{symbol} is not in the universe: {name} is left out, {why}\n");
        let left_out = serde_json::json!({ "symbol": symbol, "left_out": why });
        return out.data(&left_out, |_, _| text.clone());
    }
    let known = view::symbols(db).await.map_err(|e| trouble(&e))?;
    if known.is_empty() {
        return Err(ControlError::unavailable("nothing was scanned yet")
            .help("`watchbell schedule run scan.hot` scans the most traded symbols"));
    }
    Err(ControlError::not_found("scanned symbol", symbol, known.iter().map(String::as_str)))
}

/// `btc` is `BTC/USD`.
fn full_name(symbol: &str) -> String {
    let symbol = symbol.to_ascii_uppercase();
    if symbol.contains('/') { symbol } else { format!("{symbol}/USD") }
}
