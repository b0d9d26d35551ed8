//! Who has still to read observations, and from when on.

use std::collections::BTreeMap;

use serde::Serialize;
use watchbell_core::{Millis, Time, values};
use watchbell_db::{Database, DbError};

use super::What;
use crate::Config;
use crate::analytics::point::CYCLE;
use crate::streams::STR_AUX_RUNNER;
use crate::universe::Listings;
use crate::window::series_name;

/// Somebody has still to read what is at or after `from`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Need {
    pub(super) from: Time,
    /// A worker; `worker stop` says that it will not come back, and ends its need.
    pub(super) by: String,
}

/// The earliest need of each kind.
pub(super) type Needs = BTreeMap<What, Need>;

/// What has still to be read. A worker that an operator stopped, or that does not run in this
/// configuration, needs nothing.
pub(super) async fn needs(db: &Database, config: &Config) -> Result<Needs, DbError> {
    let mut needs = Needs::new();
    let mut note = |what, from: Time, by: &str| {
        let need = needs.entry(what).or_insert_with(|| Need { from, by: by.to_owned() });
        if from < need.from {
            *need = Need { from, by: by.to_owned() };
        }
    };
    let listings = Listings::load(db).await?;
    for length in config.ascending() {
        let series = series_name(length);
        if !is_wanted(db, &series).await? {
            continue;
        }
        if let Some(start) = next_window(db, &series, length, &listings).await? {
            // A cycle's floating mode looks back over the window's length. A point stands at the end
            // of its bucket, so that at the very beginning is not part of it.
            note(What::Points, start - length + Millis(1), &series);
            note(What::Trades, start, &series);
        }
    }
    if config.sampling
        && is_wanted(db, STR_AUX_RUNNER).await?
        && let Some(cycle) = next_cycle(db, &config.streams.session).await?
    {
        note(What::Cycles, cycle, STR_AUX_RUNNER);
        note(What::Points, cycle + CYCLE - config.streams.window + Millis(1), STR_AUX_RUNNER);
    }
    Ok(needs)
}

async fn is_wanted(db: &Database, worker: &str) -> Result<bool, DbError> {
    let row = db
        .query_opt(
            "select 1 from ops.workers
             where name = $1 and desired <> 'STOPPED' and state <> 'UNAVAILABLE'",
            values![worker],
        )
        .await?;
    Ok(row.is_some())
}

/// The start of the earliest window that is still to be computed: one that is not final, one that a
/// backfill asks for, or the one after the newest.
async fn next_window(
    db: &Database,
    series: &str,
    length: Millis,
    listings: &Listings,
) -> Result<Option<Time>, DbError> {
    let row = db
        .query_one(
            "select
               (select min(start_at) from ops.windows /*sqlite*/ indexed by windows_unfinished /*end*/
                where series = $1 and state in ('open', 'ready', 'running', 'failed')),
               (select max(start_at) from ops.windows where series = $1),
               (select min(cursor_at) from ops.backfills where series = $1 and finished_at is null)",
            values![series],
        )
        .await?;
    let (unfinished, newest, asked) = (row.opt_time(0)?, row.opt_time(1)?, row.opt_time(2)?);
    let after = match newest {
        Some(newest) => Some(newest + length),
        None => listings.first_window(Time::EPOCH, length),
    };
    let asked = asked.map(|at| at.floor(length));
    Ok([unfinished, after, asked].into_iter().flatten().min())
}

/// The start of the earliest cycle that the streams of an enabled symbol have not seen.
async fn next_cycle(db: &Database, session: &str) -> Result<Option<Time>, DbError> {
    let row = db
        .query_one(
            "select min(n.at) from (
               select (select min(c.cycle_start) from str_aux.cycles_40s c
                       where c.symbol = u.symbol
                         and c.cycle_start >= coalesce(t.cycle_end, s.started_at)) as at
               from settings.coin_universe u
               join str_aux.sessions s on s.session_id = $1
               left join str_aux.stream_state t
                 on t.session_id = s.session_id and t.symbol = u.symbol
               where u.enabled = 1
             ) n",
            values![session],
        )
        .await?;
    row.opt_time(0)
}
