//! Rebuilding the market from what was ingested (section 3): for `market.rebuild`, a job.
//!
//! Candles, ticks and books of the market are views of `ingest`, and so are what was ingested by
//! construction. Two tables are kept beside them: the newest ticker of each symbol, and the mirror of the
//! universe. Rebuilding makes both what they would be if everything were replayed; doing so twice changes
//! nothing the second time.

use serde::Serialize;
use watchbell_core::{Commit, Statement, Time};
use watchbell_db::{Database, DbError};

use crate::universe::{mirror, unmirrored};

/// What was not as it must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Rebuilt {
    /// Newest tickers that were wrong, absent, or of nothing that was ingested.
    tickers: i64,
    /// Symbols whose status was not that of the universe.
    symbols: i64,
}

/// The newest raw ticker of each symbol, from one symbol to the next in the order of the key.
macro_rules! newest {
    ($rest:literal) => {
        concat!(
            "with recursive s (symbol) as (
               select min(symbol) from ingest.ticker_raw
               union all
               select (select min(n.symbol) from ingest.ticker_raw n where n.symbol > s.symbol)
               from s where s.symbol is not null
             ), newest as (
               select r.symbol, r.ts, r.price, r.change_24h
               from s join ingest.ticker_raw r on r.symbol = s.symbol
               where r.ts = (select max(n.ts) from ingest.ticker_raw n where n.symbol = s.symbol)
             ) ",
            $rest
        )
    };
}

const WRONG: &str = newest!(
    "select count(*) from newest r left join market.ticker_latest l on l.symbol = r.symbol
     where l.symbol is null or l.ts <> r.ts or l.price <> r.price
       or l.change_24h is null or l.change_24h <> r.change_24h"
);
const SURPLUS: &str = "select count(*) from market.ticker_latest
     where symbol not in (select r.symbol from ingest.ticker_raw r)";
const RIGHT: &str = newest!(
    "insert into market.ticker_latest (symbol, ts, price, change_24h)
     select symbol, ts, price, change_24h from newest where true
     on conflict (symbol) do update set
       ts = excluded.ts, price = excluded.price, change_24h = excluded.change_24h"
);
const DROP: &str = "delete from market.ticker_latest
     where symbol not in (select r.symbol from ingest.ticker_raw r)";

/// Looks at what is not as it must be, and adds what mends it to `commit`.
pub(crate) async fn rebuild(
    db: &Database,
    now: Time,
    commit: &mut Commit,
) -> Result<Rebuilt, DbError> {
    let wrong = db.query_one(WRONG, Vec::new()).await?.i64(0)?;
    let surplus = db.query_one(SURPLUS, Vec::new()).await?.i64(0)?;
    if surplus > 0 {
        commit.push(Statement::new(DROP, Vec::new()));
    }
    if wrong > 0 {
        commit.push(Statement::new(RIGHT, Vec::new()));
    }
    let symbols = unmirrored(db).await?;
    if symbols > 0 {
        commit.statements.extend(mirror(now));
    }
    Ok(Rebuilt { tickers: wrong + surplus, symbols })
}
