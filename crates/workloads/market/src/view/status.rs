//! The market on one screen: how fresh each symbol is, what its newest window says, and how the
//! venue is doing.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use watchbell_core::{Frac, Millis, Time, values};
use watchbell_db::{Database, DbError};

use super::{Hole, MoodLine, SliceLine, VectorLine, holes, moods, slices, vectors};
use crate::due::{self, DAY};
use crate::matrices::tiers::Tier;
use crate::mood::symbol_moods;
use crate::sync::VENUE;
use crate::universe::BASE;
use crate::window::series_name;

/// The market at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MarketStatus {
    /// That moment.
    pub now: Time,
    /// Whether a node runs that keeps all of this up to date; none while nobody has looked for one.
    pub node_runs: Option<bool>,
    /// How the venue is doing.
    pub feed: Feed,
    /// Labels of the windows, shortest first.
    pub labels: Vec<String>,
    /// Enabled symbols, in processing order.
    pub symbols: Vec<SymbolLine>,
    /// The newest mood of each label that has one.
    pub moods: Vec<MoodLine>,
    /// The newest slice of each series that has one.
    pub slices: Vec<SliceLine>,
    /// Candles that are being asked for again.
    pub gaps: Vec<Hole>,
    /// Whether some of what should be known is not, for the venue is away or candles are missing:
    /// what follows from it waits (section 11.4).
    pub partial_data: bool,
    /// Windows of the last day that are due and not there, by label.
    pub missing: Vec<MissingWindows>,
}

/// Windows of one label that are due and not there; those that were given up do not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingWindows {
    /// Label.
    pub label: String,
    /// The series, for `explain`.
    pub series: String,
    /// How many.
    pub count: usize,
    /// Start of the oldest.
    pub oldest: Time,
}

/// How the venue is doing, as far as the store knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Feed {
    /// `ok`, `down`, or `unknown` while it was never asked; a running node knows more words for it.
    pub state: String,
    /// Why it is not ok.
    pub detail: Option<String>,
    /// The newest request that was answered.
    pub answered_at: Option<Time>,
    /// Request weight of the running minute, as of the newest answer that told it.
    pub weight_used: Option<i64>,
    /// What may be used of it in a minute.
    pub weight_limit: Option<i64>,
}

impl Feed {
    /// Whether nothing comes in, so that no window begins.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self.state.as_str(), "down" | "banned")
    }
}

/// One symbol.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SymbolLine {
    /// Symbol.
    pub symbol: String,
    /// How far its candles are known.
    pub kline: Option<Time>,
    /// Its newest five-second point.
    pub sample: Option<Time>,
    /// Whether that one has no price: the book could not be had, and its flags say why.
    pub sample_is_empty: bool,
    /// End of its newest cycle.
    pub cycle: Option<Time>,
    /// Start of its newest window of each label, in the order of the labels.
    pub windows: Vec<Option<Time>>,
    /// The vectors of the newest of them.
    pub vectors: Option<VectorLine>,
    /// The weight tier of its newest move against its quote asset (section 6.1); none below `alpha`.
    pub tier: Option<String>,
    /// Its own mood in the newest mood that names it.
    pub mood: Option<String>,
}

/// How far one enabled symbol is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fresh {
    pub(crate) symbol: Arc<str>,
    pub(crate) base: String,
    pub(crate) quote: String,
    pub(crate) kline: Option<Time>,
    pub(crate) sample: Option<Time>,
    pub(crate) sample_is_empty: bool,
    pub(crate) cycle: Option<Time>,
}

/// Of each enabled symbol, in processing order. One seek into each table for each symbol.
pub(crate) async fn freshness(db: &Database) -> Result<Vec<Fresh>, DbError> {
    let rows = db
        .query(
            "select u.symbol, u.base_asset, u.quote_asset, c.covered_until,
               (select max(s.ts) from str_aux.samples_5s s where s.symbol = u.symbol),
               (select max(y.cycle_start) from str_aux.cycles_40s y where y.symbol = u.symbol),
               (select case when s.mid is null then 1 else 0 end from str_aux.samples_5s s
                  where s.symbol = u.symbol order by s.ts desc limit 1)
             from settings.coin_universe u
             left join ingest.klines_cursor c on c.symbol = u.symbol and c.window_label = $1
             where u.enabled = 1
             order by u.sort_order is null, u.sort_order, u.symbol /*pg*/ collate \"C\" /*end*/",
            values![BASE],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Fresh {
                symbol: row.shared_text(0)?,
                base: row.opt_text(1)?.unwrap_or_default().to_owned(),
                quote: row.opt_text(2)?.unwrap_or_default().to_owned(),
                kline: row.opt_time(3)?,
                sample: row.opt_time(4)?,
                cycle: row.opt_time(5)?.map(|start| start + crate::BASE_CYCLE),
                sample_is_empty: row.opt_i64(6)? == Some(1),
            })
        })
        .collect()
}

/// What the store knows of the venue.
pub(crate) async fn feed(db: &Database) -> Result<Feed, DbError> {
    let stored = db
        .query_opt("select met, detail from ops.conditions where name = $1", values![VENUE])
        .await?;
    let answered = db
        .query_opt(
            "select ts from ops.market_sync_log where status in ('ok', 'empty')
             order by ts desc limit 1",
            Vec::new(),
        )
        .await?;
    let weight = db
        .query_opt(
            "select weight_used from ops.market_sync_log where weight_used is not null
             order by ts desc limit 1",
            Vec::new(),
        )
        .await?;
    let (state, detail) = match &stored {
        Some(row) if row.i64(0)? == 0 => ("down", Some(row.text(1)?.to_owned())),
        None if answered.is_none() => ("unknown", Some("it was not asked yet".to_owned())),
        _ => ("ok", None),
    };
    Ok(Feed {
        state: state.to_owned(),
        detail,
        answered_at: answered.map(|row| row.time(0)).transpose()?,
        weight_used: weight.map(|row| row.i64(0)).transpose()?,
        weight_limit: None,
    })
}

/// The market at `now`, with windows of these lengths.
///
/// # Errors
/// When the database fails.
pub async fn status(db: &Database, lengths: &[Millis], now: Time) -> Result<MarketStatus, DbError> {
    let mut lengths = lengths.to_vec();
    lengths.sort_unstable();
    let labels: Vec<String> = lengths.iter().map(|l| l.exact()).collect();
    let fresh = freshness(db).await?;
    let mut newest: BTreeMap<String, Vec<Option<Time>>> = BTreeMap::new();
    for label in &labels {
        for (symbol, start) in newest_windows(db, label).await? {
            newest.entry(symbol).or_default().push(start);
        }
    }
    let mut best: BTreeMap<String, VectorLine> = BTreeMap::new();
    for line in vectors(db).await? {
        let Some(length) = labels.iter().position(|l| *l == line.label).map(|i| lengths[i]) else {
            continue;
        };
        let end = |l: &VectorLine, length: Millis| l.start + length;
        let known = best
            .get(&line.symbol)
            .and_then(|b| labels.iter().position(|l| *l == b.label).map(|i| end(b, lengths[i])));
        // Of windows that end together, the shortest comes first and stays.
        if known.is_none_or(|known| end(&line, length) > known) {
            best.insert(line.symbol.clone(), line);
        }
    }
    let moods = moods(db, &labels, 1).await?;
    let tiers = tiers(db, &labels).await?;
    // A label that shows the last stable mood again has none of its symbols: a longer one may.
    let mut of_symbols = BTreeMap::new();
    for label in &labels {
        for (quote, of_quote) in symbol_moods(db, label).await? {
            for (base, mood) in of_quote {
                of_symbols.entry((base, quote.clone())).or_insert(mood.mood_id);
            }
        }
    }
    let symbols = fresh
        .into_iter()
        .map(|f| SymbolLine {
            kline: f.kline,
            sample: f.sample,
            sample_is_empty: f.sample_is_empty,
            cycle: f.cycle,
            windows: newest.remove(&*f.symbol).unwrap_or_else(|| vec![None; labels.len()]),
            vectors: best.remove(&*f.symbol),
            tier: tiers.get(&(f.base.clone(), f.quote.clone())).cloned(),
            mood: of_symbols.remove(&(f.base.clone(), f.quote.clone())),
            symbol: f.symbol.to_string(),
        })
        .collect();
    let gaps: Vec<Hole> = holes(db).await?.into_iter().filter(|h| h.state == "pending").collect();
    let feed = feed(db).await?;
    let mut missing = Vec::new();
    for length in &lengths {
        let starts = due::windows(db, *length, now - DAY, now).await?.missing();
        missing.extend(starts.first().map(|oldest| MissingWindows {
            label: length.exact(),
            series: series_name(*length),
            count: starts.len(),
            oldest: *oldest,
        }));
    }
    Ok(MarketStatus {
        now,
        missing,
        node_runs: None,
        partial_data: feed.is_away() || !gaps.is_empty(),
        feed,
        slices: slices(db, &labels).await?,
        labels,
        symbols,
        moods,
        gaps,
    })
}

async fn newest_windows(
    db: &Database,
    label: &str,
) -> Result<Vec<(String, Option<Time>)>, DbError> {
    let rows = db
        .query(
            "select u.symbol, (select max(w.window_start) from str_aux.windows w
               where w.symbol = u.symbol and w.window_label = $1)
             from settings.coin_universe u where u.enabled = 1",
            values![label],
        )
        .await?;
    rows.iter().map(|row| Ok((row.text(0)?.to_owned(), row.opt_time(1)?))).collect()
}

/// The weight tier of each pair's newest move, by base and quote.
async fn tiers(
    db: &Database,
    labels: &[String],
) -> Result<BTreeMap<(String, String), String>, DbError> {
    let newest = slices(db, labels).await?.into_iter().max_by_key(|s| s.ts);
    let mut tiers = BTreeMap::new();
    let Some(newest) = newest else { return Ok(tiers) };
    let Some(grid) = super::matrix(db, Some(&newest.series), "id_pct").await? else {
        return Ok(tiers);
    };
    for (base, cells) in grid.coins.iter().zip(&grid.cells) {
        for (quote, cell) in grid.coins.iter().zip(cells) {
            let tier = cell.map_or(Tier::None, |moved| Tier::of(Frac(moved)));
            if tier != Tier::None {
                tiers.insert((base.clone(), quote.clone()), tier.as_str().to_owned());
            }
        }
    }
    Ok(tiers)
}
