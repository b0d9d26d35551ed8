//! The universe: which symbols are observed, in which order, and when each was listed.

use std::collections::BTreeMap;
use std::sync::Arc;

use watchbell_core::{Commit, Millis, Statement, Time, values};
use watchbell_db::{Database, DbError};

/// The one interval of candles that everything else is derived from.
pub(crate) const BASE: &str = "1m";
/// Its length.
pub(crate) const MINUTE: Millis = Millis::from_mins(1);
/// Missing candles for this long mean that the symbol was not traded then: windows leave it out.
/// A shorter silence is an outage, and its windows are incomplete.
pub const UNLISTED_AFTER: Millis = Millis::from_hours(24);

/// Quote assets by which a symbol is split, longest first, so that `BTCFDUSD` is not cut at `USD`.
const QUOTES: [&str; 12] =
    ["FDUSD", "USDT", "USDC", "BUSD", "TUSD", "DAI", "USD", "EUR", "BRL", "BTC", "ETH", "BNB"];

/// A symbol of which neither half is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot split the symbol `{0}` into base and quote asset: it must be upper case and end in one \
     of USDT, USDC, FDUSD, BUSD, TUSD, DAI, USD, EUR, BRL, BTC, ETH, BNB"
)]
pub struct UnknownSymbol(pub String);

/// Splits `SOLUSDT` into `SOL` and `USDT`.
///
/// # Errors
/// When the symbol does not end in a known quote asset.
pub fn split(symbol: &str) -> Result<(&str, &str), UnknownSymbol> {
    let unknown = || UnknownSymbol(symbol.to_owned());
    if !symbol.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()) {
        return Err(unknown());
    }
    let quote = QUOTES.iter().find(|q| symbol.len() > q.len() && symbol.ends_with(**q));
    let quote = quote.ok_or_else(unknown)?;
    Ok(symbol.split_at(symbol.len() - quote.len()))
}

/// Brings the universe to what the configuration lists: its symbols are enabled in its order,
/// symbols that an earlier configuration listed and this one does not are disabled. What a person
/// disabled stays disabled.
///
/// # Errors
/// When a symbol cannot be split or the database fails; nothing is changed then.
pub async fn seed(
    db: &Database,
    symbols: &[String],
    windows: &[Millis],
    history_from: Time,
    now: Time,
) -> Result<(), SeedError> {
    let mut commit = Commit::new().with(Statement::new(
        "update settings.coin_universe set enabled = 0, updated_at = $1
         where enabled = 1 and cast(metadata as {text}) = '{\"source\":\"config\"}'",
        values![now],
    ));
    for (i, symbol) in symbols.iter().enumerate() {
        let (base, quote) = split(symbol)?;
        commit.push(Statement::new(
            "insert into settings.coin_universe
               (symbol, enabled, sort_order, base_asset, quote_asset, metadata, updated_at)
             values ($1, 1, $2, $3, $4, '{\"source\":\"config\"}', $5)
             on conflict (symbol) do update set
               sort_order = excluded.sort_order, updated_at = excluded.updated_at,
               enabled = case when cast(settings.coin_universe.metadata as {text})
                                = cast(excluded.metadata as {text})
                              then 1 else settings.coin_universe.enabled end",
            values![symbol.as_str(), (i as i64 + 1) * 10, base, quote, now],
        ));
        commit.push(Statement::new(
            "insert into ingest.klines_cursor (symbol, window_label, wanted_from, updated_at)
             values ($1, $2, $3, $4)
             on conflict (symbol, window_label) do nothing",
            values![symbol.as_str(), BASE, history_from, now],
        ));
    }
    for (i, length) in windows.iter().enumerate() {
        commit.push(Statement::new(
            "insert into settings.windows (window_label, duration_ms, bins_default, display_order)
             values ($1, $2, 128, $3) on conflict (window_label) do nothing",
            values![length.exact(), *length, i as i64 + 1],
        ));
    }
    db.apply(commit.statements).await?;
    Ok(())
}

/// Why the universe could not be seeded.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// A symbol cannot be split.
    #[error(transparent)]
    Symbol(#[from] UnknownSymbol),
    /// The database failed.
    #[error("cannot store the universe")]
    Database(#[from] DbError),
}

/// The enabled symbols, in processing order.
pub(crate) async fn enabled(db: &Database) -> Result<Vec<Arc<str>>, DbError> {
    let rows = db
        .query(
            "select symbol from settings.coin_universe where enabled = 1
             order by sort_order is null, sort_order, symbol /*pg*/ collate \"C\" /*end*/",
            Vec::new(),
        )
        .await?;
    rows.iter().map(|row| row.shared_text(0)).collect()
}

/// A stretch of time, `[from, to)`.
type Span = (Time, Time);

/// When each enabled symbol was listed, as far as its candles tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Listings {
    /// In processing order, each ascending; the last one is open-ended (`Time::FAR_FUTURE`) while
    /// the symbol trades.
    spans: Vec<(Arc<str>, Vec<Span>)>,
}

impl Listings {
    pub(crate) async fn load(db: &Database) -> Result<Self, DbError> {
        let symbols = enabled(db).await?;
        let snapshot = db.snapshot().await?;
        let cursors = snapshot
            .query(
                "select symbol, wanted_from, covered_from, covered_until from ingest.klines_cursor
                 where window_label = $1",
                values![BASE],
            )
            .await?;
        let holes = snapshot
            .query(
                "select g.symbol, g.from_at, g.to_at
                 from ingest.kline_gaps g
                 join ingest.klines_cursor c
                   on c.symbol = g.symbol and c.window_label = g.interval_label
                 where g.interval_label = $1 and g.state = 'hole'
                   and (g.to_at - g.from_at >= $2 or g.from_at = c.covered_from)
                 order by g.symbol, g.from_at",
                values![BASE, UNLISTED_AFTER],
            )
            .await?;
        let mut absent: BTreeMap<Arc<str>, Vec<Span>> = BTreeMap::new();
        for row in &holes {
            let hole = (Time(row.i64(1)?), Time(row.i64(2)?));
            absent.entry(row.shared_text(0)?).or_default().push(hole);
        }
        let mut known = BTreeMap::new();
        for row in &cursors {
            let wanted = Time(row.i64(1)?);
            let from = row.opt_i64(2)?.map_or(wanted, |from| wanted.min(Time(from)));
            known.insert(row.shared_text(0)?, (from, row.opt_i64(3)?.map(Time)));
        }
        let spans = symbols
            .into_iter()
            .filter_map(|symbol| {
                let (from, until) = *known.get(&symbol)?;
                let absent = absent.get(&symbol).map_or(&[][..], Vec::as_slice);
                Some((symbol, listed(from, until, absent)))
            })
            .collect();
        Ok(Self { spans })
    }

    /// The symbols that were listed during all of `[start, end)`.
    pub(crate) fn during(&self, start: Time, end: Time) -> impl Iterator<Item = &Arc<str>> {
        self.spans
            .iter()
            .filter(move |(_, spans)| spans.iter().any(|&(from, to)| from <= start && end <= to))
            .map(|(symbol, _)| symbol)
    }

    /// How many windows of `length` end at or before `until`.
    fn count(&self, length: Millis, until: Time) -> u64 {
        let mut ranges: Vec<(i64, i64)> = self
            .spans
            .iter()
            .flat_map(|(_, spans)| spans)
            .map(|&(from, to)| (from.ceil(length), to.min(until).floor(length)))
            .filter(|(from, to)| from < to)
            .map(|(from, to)| (from.0 / length.0, to.0 / length.0))
            .collect();
        ranges.sort_unstable();
        let (mut count, mut reached) = (0, i64::MIN);
        for (from, to) in ranges {
            count += (to - from.max(reached)).max(0);
            reached = reached.max(to);
        }
        count.unsigned_abs()
    }

    /// The first window of `length` at or after `from` over which some symbol was listed.
    pub(crate) fn first_window(&self, from: Time, length: Millis) -> Option<Time> {
        let spans = self.spans.iter().flat_map(|(_, spans)| spans);
        spans
            .filter_map(|&(listed, to)| {
                let start = listed.max(from).ceil(length);
                (start + length <= to).then_some(start)
            })
            .min()
    }
}

/// How many windows of `length` there are before `until`, as far as listings are known.
///
/// # Errors
/// When the database fails.
pub async fn expected_windows(db: &Database, length: Millis, until: Time) -> Result<u64, DbError> {
    Ok(Listings::load(db).await?.count(length, until))
}

/// Everything from `from` on, less the silences that the venue has confirmed. What is not known yet
/// counts as listed: a window must wait for it, not leave it out. A silence that reaches the end of
/// what is covered means that the symbol is gone; otherwise its last stretch has no end yet.
fn listed(mut from: Time, covered_until: Option<Time>, absent: &[Span]) -> Vec<Span> {
    let mut spans = Vec::new();
    for &(hole_from, hole_to) in absent {
        if hole_from > from {
            spans.push((from, hole_from));
        }
        from = from.max(hole_to);
    }
    let gone = absent.last().is_some_and(|&(_, to)| covered_until.is_some_and(|until| to >= until));
    if !gone {
        spans.push((from, Time::FAR_FUTURE));
    }
    spans
}

/// Asks the synchronisation to reach back to `from`: before a backfill of windows.
///
/// # Errors
/// When the database fails.
pub async fn want_history(db: &Database, from: Time, now: Time) -> Result<(), DbError> {
    db.apply(vec![Statement::new(
        "update ingest.klines_cursor set wanted_from = $1, updated_at = $2 where wanted_from > $1",
        values![from.floor(Millis::from_hours(3)), now],
    )])
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_split_at_the_longest_quote() {
        for (symbol, base, quote) in [
            ("SOLUSDT", "SOL", "USDT"),
            ("BTCFDUSD", "BTC", "FDUSD"),
            ("ETHBTC", "ETH", "BTC"),
            ("1000PEPEUSDT", "1000PEPE", "USDT"),
        ] {
            assert_eq!(split(symbol), Ok((base, quote)));
        }
        for bad in ["USDT", "btcusdt", "BTC-USD", "ABCXYZ", ""] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_long_silence_ends_a_listing_and_a_short_one_does_not_appear() {
        let h = |n: i64| Time(n * 3_600_000);
        let known = |absent: &[Span]| listed(h(0), Some(h(100)), absent);
        assert_eq!(known(&[]), [(h(0), Time::FAR_FUTURE)]);
        assert_eq!(known(&[(h(10), h(50))]), [(h(0), h(10)), (h(50), Time::FAR_FUTURE)]);
        // Before the listing, and after the end.
        assert_eq!(known(&[(h(0), h(30)), (h(60), h(100))]), [(h(30), h(60))]);
        // Nothing is known yet: windows must wait, not go ahead without the symbol.
        assert_eq!(listed(h(5), None, &[]), [(h(5), Time::FAR_FUTURE)]);
    }

    #[test]
    fn the_first_window_skips_what_nobody_covers() {
        let h = |n: i64| Time(n * 3_600_000);
        let listings = Listings {
            spans: vec![
                ("A".into(), vec![(h(1), h(10))]),
                ("B".into(), vec![(h(5), h(8)), (h(40), Time::FAR_FUTURE)]),
            ],
        };
        let three = Millis::from_hours(3);
        assert_eq!(listings.first_window(h(0), three), Some(h(3)));
        assert_eq!(listings.first_window(h(7), three), Some(h(42)));
        assert_eq!(listings.during(h(6), h(8)).map(AsRef::as_ref).collect::<Vec<_>>(), ["A", "B"]);
        assert_eq!(listings.during(h(9), h(12)).count(), 0);
        // 3 to 6 and 6 to 9 of A; B's stretch of three hours holds no aligned window; 42 to 48.
        assert_eq!(listings.count(three, h(50)), 4);
    }
}
