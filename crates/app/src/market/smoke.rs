//! `smoke run`.

use watchbell_api::ControlError;
use watchbell_cli::{Exit, Out};
use watchbell_core::chain;
use watchbell_market::ops::{self, Level, Pack, SMOKES};

use super::args::SmokeArgs;
use super::place::Place;
use super::{Result, print};
use crate::installation::trouble;

/// Scope of a pack with all smokes.
const ALL: &str = "smoke";

pub(super) async fn run(args: &SmokeArgs, place: &Place, out: &mut Out) -> Result<Exit> {
    let names = wanted(&args.names)?;
    let scope =
        if args.names.is_empty() { ALL.to_owned() } else { format!("{ALL}:{}", names.join("+")) };
    let mut items = Vec::new();
    for name in names {
        let found =
            ops::smoke(name, place.db(), place.market(), place, place.now(), args.dry_run).await;
        items.extend(found.map_err(|e| trouble(&e))?.unwrap_or_default());
    }
    let pack = Pack::new(scope, place.now(), items);
    if !args.dry_run {
        ops::store_pack(place.db(), &pack)
            .await
            .map_err(|e| ControlError::unavailable(chain(&e)))?;
    }
    out.data(&pack, print::evidence)?;
    Ok(if pack.summary.level == Level::Err { Exit::Failed } else { Exit::Ok })
}

/// The smokes of these names, each once and in the order of the list; all where none is named.
fn wanted(names: &[String]) -> Result<Vec<&'static str>> {
    let known = SMOKES.iter().map(|s| s.name);
    for name in names {
        // The ledger's six have one name together.
        if name != "cin" && !known.clone().any(|k| k == name) {
            return Err(ControlError::not_found("smoke", name.clone(), known));
        }
    }
    let is_wanted = |smoke: &str| {
        names.is_empty()
            || names.iter().any(|n| n == smoke || (n == "cin" && smoke.starts_with("cin-")))
    };
    Ok(known.filter(|k| is_wanted(k)).collect())
}
