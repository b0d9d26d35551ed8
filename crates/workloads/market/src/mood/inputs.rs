//! What a window's mood is made of: stored rows of that window, the matrices of its end, and the
//! moods before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use watchbell_core::{Time, values};
use watchbell_db::{Database, DbError};

use super::formula::{MoodId, Params, Share};
use super::matrix::{MatrixMood, matrix_mood};
use super::state::{Past, Stable, TIER_SPAN, Tier};
use crate::analytics::hash::InputsHasher;
use crate::samples;
use crate::universe::{Requests, split};

/// One symbol that a mood is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    pub(super) symbol: Arc<str>,
    pub(super) base: String,
    pub(super) quote: String,
    /// What the window has of it.
    pub(super) share: Option<Share>,
}

/// The tendency and the swap of a window's vectors, as far as they can be read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Vectors {
    tendency: Score,
    swap: Score,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Score {
    score: Option<f64>,
}

impl Score {
    /// As a fraction. A number that could not be written as JSON is null there: it is no number here,
    /// and does not pass as one that was never measured.
    fn frac(&self) -> f64 {
        self.score.map_or(f64::NAN, |s| s / 100.0)
    }
}

/// The symbols that the mood of a window is made of: those of `scope` that clients ask for at its
/// start, USDT pairs first, at most `limit`.
pub(super) async fn select(
    db: &Database,
    scope: impl Iterator<Item = Arc<str>>,
    start: Time,
    limit: usize,
) -> Result<Vec<Member>, DbError> {
    let requests = Requests::load(db).await?;
    let rows = db
        .query("select symbol, base_asset, quote_asset from settings.coin_universe", Vec::new())
        .await?;
    let mut halves: BTreeMap<Arc<str>, (String, String)> = BTreeMap::new();
    for row in &rows {
        halves.insert(row.shared_text(0)?, (row.text(1)?.to_owned(), row.text(2)?.to_owned()));
    }
    let mut members: Vec<Member> = scope
        .filter(|symbol| requests.include(symbol, start))
        .filter_map(|symbol| {
            let known = halves.get(&symbol).cloned();
            let named = || split(&symbol).map(|(b, q)| (b.to_owned(), q.to_owned())).ok();
            let (base, quote) = known.or_else(named)?;
            Some(Member { symbol, base, quote, share: None })
        })
        .collect();
    // Stable: the universe's order holds within both halves.
    members.sort_by_key(|m| m.quote != "USDT");
    members.truncate(limit);
    Ok(members)
}

/// Reads what the window of `label` that begins at `start` has of each member: of its newest version,
/// for versions are not mixed.
pub(super) async fn read_shares(
    db: &Database,
    label: &str,
    start: Time,
    members: &mut [Member],
) -> Result<(), DbError> {
    let mut versions = vec![0; members.len()];
    let symbols: Vec<Arc<str>> = members.iter().map(|m| Arc::clone(&m.symbol)).collect();
    let rows = db
        .query(
            "select /*sqlite*/ m.key /*end*/ /*pg*/ m.key - 1 /*end*/,
               w.version, w.samples, s.delta_gfm_pct, v.vec
             from /*sqlite*/ json_each($1) m cross join /*end*/
             /*pg*/ json_array_elements_text(cast($1 as json)) with ordinality as m(value, key)
             join /*end*/
             str_aux.windows w on w.symbol = m.value
             left join str_aux.window_stats s
               on s.symbol = w.symbol and s.window_label = w.window_label
                  and s.window_start = w.window_start and s.version = w.version
             left join str_aux.window_vectors v
               on v.symbol = w.symbol and v.window_label = w.window_label
                  and v.window_start = w.window_start and v.version = w.version
             where w.window_label = $2 and w.window_start = $3
             order by m.key, w.version",
            values![samples::names(&symbols), label, start],
        )
        .await?;
    for row in &rows {
        let place = row.i64(0)? as usize;
        let (member, version) = (&mut members[place], &mut versions[place]);
        *version = row.i64(1)?;
        // Vectors that cannot be read at all are as bad as numbers that are none.
        let vectors =
            row.opt_text(4)?.map(|vec| serde_json::from_str::<Vectors>(vec).unwrap_or_default());
        member.share = Some(Share {
            g: row.opt_f64(3)?.map(|pct| pct / 100.0),
            t: vectors.as_ref().map(|v| v.tendency.frac()),
            v: vectors.as_ref().map(|v| v.swap.frac()),
            weight: (row.i64(2)? as f64).max(1.0),
        })
        .filter(|share| share.signals().is_some());
    }
    let newest = versions.iter().copied().max().unwrap_or(0);
    for (member, version) in members.iter_mut().zip(versions) {
        if version != newest {
            member.share = None;
        }
    }
    Ok(())
}

/// What the label published before the window that begins at `start`.
pub(super) async fn past(db: &Database, label: &str, start: Time) -> Result<Past, DbError> {
    let rows = db
        .query(
            "select ts_ms, coeff, mood_id, tier, window_start from mea_dynamics.v_moods
             where window_label = $1 and window_start < $2 and is_fallback = 0
             order by window_start desc limit $3",
            values![label, start, TIER_SPAN as i64],
        )
        .await?;
    let mut past = Past::default();
    let mut newest = None;
    for row in &rows {
        newest = newest.or(Some(row.time(4)?));
        past.stable.push(Stable {
            ts: row.time(0)?,
            coeff: row.f64(1)?,
            id: MoodId::parse(row.text(2)?).unwrap_or(MoodId::NEUTRAL),
            tier: Tier::parse(row.text(3)?).unwrap_or(Tier::E),
        });
    }
    let fallbacks = db
        .query_one(
            "select count(*) from mea_dynamics.v_moods
             where window_label = $1 and window_start < $2 and is_fallback = 1
               and window_start > $3",
            values![label, start, newest.unwrap_or(Time(i64::MIN))],
        )
        .await?;
    past.fallbacks = u32::try_from(fallbacks.i64(0)?).unwrap_or(u32::MAX);
    Ok(past)
}

/// The rows of the `id_pct` matrix of a label at an instant: each coin with its cells.
pub(super) type Cells = Vec<(Arc<str>, Vec<Option<f64>>)>;

/// Reads the newest slice; empty where there is none.
pub(super) async fn id_pct(db: &Database, label: &str, at: Time) -> Result<Cells, DbError> {
    let slice = db
        .query_opt(
            "select version, coins from matrices.slices where series = $1 and ts_ms = $2
             order by version desc limit 1",
            values![label, at],
        )
        .await?;
    let Some(slice) = slice else { return Ok(Cells::new()) };
    let order: Vec<String> = serde_json::from_str(slice.text(1)?).unwrap_or_default();
    let rows = db
        .query(
            "select base, cells from matrices.rows
             where series = $1 and ts_ms = $2 and version = $3 and matrix_type = 'id_pct'",
            values![label, at, slice.i64(0)?],
        )
        .await?;
    let mut cells = Cells::new();
    for row in &rows {
        cells.push((row.shared_text(0)?, serde_json::from_str(row.text(1)?).unwrap_or_default()));
    }
    let place = |base: &str| order.iter().position(|c| c == base).unwrap_or(usize::MAX);
    cells.sort_by(|(a, _), (b, _)| place(a).cmp(&place(b)).then_with(|| a.cmp(b)));
    Ok(cells)
}

/// The matrices' side of the mood.
pub(super) fn matrix_side(cells: &Cells) -> Option<MatrixMood> {
    matrix_mood(cells.iter().map(|(base, row)| (base, row.as_slice())))
}

/// The hash over everything that a mood is computed from.
pub(super) fn hash(
    label: &str,
    start: Time,
    params: &Params,
    members: &[Member],
    past: &Past,
    cells: &Cells,
) -> String {
    let mut inputs = InputsHasher::new(label, start);
    inputs.symbol("params");
    inputs.point(start, params.mu_t, &[params.sigma_t, params.mu_s, params.sigma_s]);
    for m in members {
        inputs.symbol(&m.symbol);
        if let Some(s) = &m.share {
            let signal = |x: Option<f64>| x.unwrap_or(f64::NAN);
            inputs.point(start, signal(s.g), &[signal(s.t), signal(s.v), s.weight]);
        }
    }
    inputs.symbol("past");
    for s in &past.stable {
        inputs.point(s.ts, s.coeff, &[f64::from(s.tier as u8)]);
    }
    inputs.point(start, f64::from(past.fallbacks), &[]);
    inputs.symbol("id_pct");
    for (base, row) in cells {
        inputs.symbol(base);
        let known: Vec<f64> = row.iter().map(|x| x.unwrap_or(f64::NAN)).collect();
        inputs.point(start, known.len() as f64, &known);
    }
    inputs.finish()
}
