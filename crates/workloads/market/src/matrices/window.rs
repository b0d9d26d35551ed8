//! `matrices-30m` and its sisters: the slice of each window, right after the window itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use watchbell_core::{
    BoxError, BoxFuture, Cause, Commit, Cycle, CycleInput, Definition, Done, Fault, Millis, Time,
    Trigger, WindowHashes, WindowInput, WindowSpec, Worker, values,
};
use watchbell_db::{Database, DbError};

use super::slice::{Key, Source};
use super::stored;
use crate::universe::Listings;
use crate::window::{self, LANE, MAX_ATTEMPTS};

/// The worker of one label.
pub(crate) struct MatricesWorker {
    db: Database,
    length: Millis,
    settle: Millis,
}

/// The name of the worker and of the series of a label, such as `matrices-30m`. The rows themselves
/// go by the label alone.
#[must_use]
pub fn series_name(length: Millis) -> String {
    format!("matrices-{}", length.exact())
}

impl MatricesWorker {
    pub(crate) fn new(db: Database, length: Millis, settle: Millis) -> Self {
        Self { db, length, settle }
    }

    async fn compute(&self, cycle: &Cycle) -> Result<Done, Fault> {
        let Cause::Window { start, end, version, .. } = cycle.cause else {
            return Err(Fault::permanent("a window worker runs only for a window"));
        };
        let CycleInput::Scope(scope) = &cycle.input else {
            return Err(Fault::permanent("the window has no scope"));
        };
        let series: Arc<str> = self.length.exact().into();
        let symbols: Vec<Arc<str>> = scope.iter().map(|s| Arc::from(s.as_str())).collect();
        let prices = last_prices(&self.db, &series, start).await?;
        let prices: BTreeMap<_, _> = prices.into_iter().collect();
        if symbols.is_empty() || prices.is_empty() {
            return Err(input_abandoned(&window::series_name(self.length), start));
        }
        let market = stored::market(&self.db, &symbols).await?;
        let opening =
            stored::opening(&self.db, &market, &series, Some(&series), end, start).await?;
        let source = Source {
            key: Key { series: Arc::clone(&series), ts: end, version },
            prices: stored::of_pairs(&market, |symbol| prices.get(symbol).copied()),
            changes: stored::changes_24h(&self.db, &market, end).await?,
            opening: opening.ts,
            openings: opening.prices.clone(),
            previous: stored::earlier(&self.db, &series, end, &market).await?,
            market,
        };
        // Thousands of cells do not belong on a thread that serves sockets.
        let (inputs, result, summary, statements) = tokio::task::spawn_blocking(move || {
            let inputs = source.hash();
            let computed = source.compute();
            let result = computed.hash();
            computed.statements(&result).map(|s| (inputs, result, computed.summary(), s))
        })
        .await??;
        let mut commit = Commit::new();
        commit.statements.extend(opening.statement());
        commit.statements.extend(statements);
        let mut done = Done::new(summary, commit);
        done.window = Some(WindowHashes { inputs, result, source: "window_stats".into() });
        Ok(done)
    }
}

/// The last price of each symbol of the newest version of a window, in universe order; nothing when
/// the window was given up.
pub(crate) async fn last_prices(
    db: &Database,
    label: &str,
    start: Time,
) -> Result<Vec<(Arc<str>, f64)>, DbError> {
    let rows = db
        .query(
            "select u.symbol, w.last_price, w.version
             from settings.coin_universe u cross join str_aux.window_stats w
             where w.symbol = u.symbol and w.window_label = $1 and w.window_start = $2
             order by u.sort_order is null, u.sort_order, u.symbol /*pg*/ collate \"C\" /*end*/",
            values![label, start],
        )
        .await?;
    let mut newest = 0;
    let mut all = Vec::with_capacity(rows.len());
    for row in &rows {
        let version = row.i64(2)?;
        newest = newest.max(version);
        all.push((row.shared_text(0)?, row.f64(1)?, version));
    }
    all.retain(|(.., version)| *version == newest);
    Ok(all.into_iter().map(|(symbol, price, _)| (symbol, price)).collect())
}

/// The symbols of the newest version of a window, in universe order; none when the window was given up.
pub(crate) async fn members(
    db: &Database,
    label: &str,
    start: Time,
) -> Result<Vec<Arc<str>>, DbError> {
    // From the table with the shortest rows: each symbol's are in another place.
    let rows = db
        .query(
            "select u.symbol, w.version
             from settings.coin_universe u cross join str_aux.windows w
             where w.symbol = u.symbol and w.window_label = $1 and w.window_start = $2
             order by u.sort_order is null, u.sort_order, u.symbol /*pg*/ collate \"C\" /*end*/",
            values![label, start],
        )
        .await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in &rows {
        all.push((row.shared_text(0)?, row.i64(1)?));
    }
    let newest = all.iter().map(|(_, version)| *version).max();
    all.retain(|(_, version)| Some(*version) == newest);
    Ok(all.into_iter().map(|(symbol, _)| symbol).collect())
}

/// The fault of a window whose input was given up.
pub(crate) fn input_abandoned(series: &str, start: Time) -> Fault {
    Fault::permanent(format!(
        "INPUT_ABANDONED: {series} {start} was given up (`watchbell explain {series}/{start}` says \
         why), so there is nothing to compute from: that one has to be tried again first"
    ))
}

/// The worker of the slices of windows of `length`.
pub(crate) fn definition(length: Millis, settle: Millis) -> Definition {
    let (name, input) = (series_name(length), window::series_name(length));
    Definition::new(
        name.as_str(),
        Trigger::Window(WindowSpec {
            series: name.as_str().into(),
            length,
            settle,
            inputs: vec![WindowInput::Settled { series: input.as_str().into() }],
            max_attempts: MAX_ATTEMPTS,
        }),
    )
    .describe(format!(
        "Computes the seven matrices over all coins at the end of each {length} window, with tiers \
         and flags: all cells in one commit, an empty one with its reason."
    ))
    .after(input)
    .lane(LANE)
    .timeouts(Millis::from_mins(2), Millis::from_mins(4))
}

impl Worker for MatricesWorker {
    fn define(&self) -> Definition {
        definition(self.length, self.settle)
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(self.compute(cycle))
    }

    /// The symbols of the window that it follows, in universe order; none when that was given up.
    fn scope<'a>(&'a self, start: Time) -> BoxFuture<'a, Result<Vec<String>, BoxError>> {
        Box::pin(async move {
            let members = members(&self.db, &self.length.exact(), start).await?;
            Ok(members.iter().map(ToString::to_string).collect())
        })
    }

    fn first_window<'a>(&'a self, from: Time) -> BoxFuture<'a, Result<Option<Time>, BoxError>> {
        Box::pin(async move {
            follow(&self.db, &window::series_name(self.length), self.length, from).await
        })
    }
}

/// The first window at or after `from` of a series that follows `input`, of windows of `length`. A new
/// series begins where that one did, or with the first window that was ever computed; windows of the
/// time before, which nobody will compute, are not waited for.
pub(crate) async fn follow(
    db: &Database,
    input: &str,
    length: Millis,
    from: Time,
) -> Result<Option<Time>, BoxError> {
    let mut from = from;
    if from == Time::EPOCH {
        let begun = db
            .query_one(
                "select coalesce(
                   (select min(i.start_at) from ops.windows i where i.series = $2),
                   (select min((select min(w.window_start) from str_aux.window_stats w
                                where w.symbol = u.symbol and w.window_label = $1))
                    from settings.coin_universe u))",
                values![length.exact(), input],
            )
            .await?;
        from = begun.opt_time(0)?.map_or(from, |begun| begun.max(from));
    }
    Ok(Listings::load(db).await?.first_window(from, length))
}
