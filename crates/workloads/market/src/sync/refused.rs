//! A symbol that the venue does not know. It answers with a refusal where it would answer with silence
//! for one that it knows, and both mean the same: there are no candles.
//!
//! One refusal is not enough. The venue's list must lack the symbol too, and what is missing is a hole
//! only after as many such answers as silence needs. Then the symbol rests: it is asked for again
//! each [`ASK_AGAIN`], and the hole grows with each answer, so that windows either go on without the
//! symbol or are given up, and do not wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use watchbell_core::{Commit, Cycle, Millis, Statement, Time, values};
use watchbell_venues::binance::VenueError;
use watchbell_venues::binance::wire::ExchangeInfo;

use super::gaps::{cover, gap_row};
use super::{Report, Stop, Sync, Track, database};
use crate::universe;

/// How often a symbol is asked for that the venue does not know.
const ASK_AGAIN: Millis = Millis::from_mins(10);
/// The venue's codes for a symbol that it does not know, and for one with illegal characters.
const UNKNOWN: [i64; 2] = [-1121, -1100];

/// A symbol and an interval.
type Series = (Arc<str>, Arc<str>);

/// Series that rest, and why. After a start each is asked for once more.
#[derive(Debug, Default)]
pub(super) struct Resting(Mutex<BTreeMap<Series, (Time, String)>>);

impl Resting {
    /// Why a series is not asked for at `now`, if it is not.
    pub(super) fn why(&self, track: &Track, now: Time) -> Option<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, why) = all.get(&key(track))?;
        (now - *at < ASK_AGAIN).then(|| why.clone())
    }

    fn begin(&self, track: &Track, now: Time, why: String) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(key(track), (now, why));
    }
}

fn key(track: &Track) -> Series {
    (Arc::clone(&track.symbol), Arc::clone(&track.label))
}

/// A stretch without candles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Absence {
    from: Time,
    to: Time,
    answers: i64,
    was_hole: bool,
}

impl Sync {
    /// Takes a refusal of a series as the answer that the venue has nothing of it, if its list (asked
    /// for once a run, into `list`) lacks the symbol too. Whether it was taken so.
    pub(super) async fn refused(
        &self,
        cycle: &Cycle,
        track: &Track,
        refusal: &VenueError,
        list: &mut Option<ExchangeInfo>,
        report: &mut Report,
    ) -> Result<bool, Stop> {
        let unknown = match refusal {
            VenueError::Refused { code: Some(code), .. } => UNKNOWN.contains(code),
            VenueError::Invalid { .. } => true,
            _ => false,
        };
        if !unknown {
            return Ok(false);
        }
        let list = match list {
            Some(list) => list,
            None => match self.client.exchange_info().await {
                Ok(info) => list.insert(info),
                // Nothing bears the refusal out. The other symbols are synchronised all the same.
                Err(e) => {
                    report.problems.push(format!("what the venue lists: {e}"));
                    return Ok(false);
                }
            },
        };
        // A list of nothing says nothing about one symbol.
        if list.symbols.is_empty() || list.symbols.iter().any(|s| *s.symbol == *track.symbol) {
            return Ok(false);
        }
        let now = cycle.now();
        let mut commit = self.absent(track, now, report).await?;
        commit.push(universe::note_listing(&self.db, list, now).await.map_err(database)?);
        let hole = commit.events.iter().any(|e| e.kind == "klines.hole");
        self.step(cycle, commit).await?;
        let why =
            format!("the venue does not list it, and is asked again each {ASK_AGAIN}: {refusal}");
        if hole {
            tracing::warn!("{} has no {} candles: {why}", track.symbol, track.label);
        }
        if self.gaps_of(track).await?.iter().all(|a| a.was_hole) {
            self.resting.begin(track, now, why.clone());
        }
        report.unlisted.insert(Arc::clone(&track.symbol), why);
        Ok(true)
    }

    /// What follows from the answer that there are no candles of a series: its gaps are confirmed once
    /// more, and what was not asked for yet joins them, up to the newest closed candle.
    async fn absent(&self, track: &Track, now: Time, report: &mut Report) -> Result<Commit, Stop> {
        let (symbol, label) = (&track.symbol, &track.label);
        // The run may have stored pages before it was refused.
        let row = self
            .db
            .query_one(
                "select symbol, window_label, wanted_from, covered_from, covered_until,
                   last_open_time
                 from ingest.klines_cursor where symbol = $1 and window_label = $2",
                values![Arc::clone(symbol), Arc::clone(label)],
            )
            .await
            .map_err(database)?;
        let stored = Track::read(&row).map_err(database)?;
        let track = stored.map_or_else(|| track.clone(), |t| Track { ends: track.ends, ..t });
        let begin = track.covered_until.unwrap_or(track.wanted_from);
        let end = track.limit(self.edge(track.step)).max(begin);
        let known_from = track.covered_from.unwrap_or(end);
        let mut asked = vec![(begin, end)];
        if track.wanted_from < known_from && track.covered_from.is_some() {
            asked.push((track.wanted_from, known_from));
        }
        let mut commit = Commit::new();
        let mut all = self.gaps_of(&track).await?;
        for absence in &mut all {
            absence.answers += i64::from(!absence.was_hole);
        }
        for (from, to) in asked.into_iter().filter(|(from, to)| from < to) {
            let before = all.iter_mut().find(|a| a.to == from);
            match before {
                Some(before) => {
                    before.to = to;
                    if before.was_hole {
                        commit.covers.push(cover(symbol, label, from, to));
                    }
                }
                None => {
                    report.gaps += 1;
                    all.push(Absence { from, to, answers: 1, was_hole: false });
                }
            }
        }
        for a in &all {
            let hole = a.was_hole || a.answers >= self.hole_after;
            commit.push(gap_row((symbol, label), (a.from, a.to), hole, a.answers, now));
            if a.was_hole {
                continue;
            }
            if hole {
                report.holes += 1;
                commit.covers.push(cover(symbol, label, a.from, a.to));
            }
            if hole || a.answers == 1 {
                commit.emit(
                    if hole { "klines.hole" } else { "klines.gap" },
                    &**symbol,
                    serde_json::json!({
                        "symbol": &**symbol, "interval": &**label, "from": a.from, "to": a.to,
                    }),
                );
            }
        }
        commit.push(Statement::new(
            "update ingest.klines_cursor set covered_from = $3, covered_until = $4, updated_at = $5
             where symbol = $1 and window_label = $2",
            values![
                Arc::clone(symbol),
                Arc::clone(label),
                track.wanted_from.min(known_from),
                end,
                now
            ],
        ));
        Ok(commit)
    }

    /// The gaps of a series, and the hole that its cover ends with.
    async fn gaps_of(&self, track: &Track) -> Result<Vec<Absence>, Stop> {
        let rows = self
            .db
            .query(
                "select g.from_at, g.to_at, g.answers, g.state from ingest.kline_gaps g
                 join ingest.klines_cursor c
                   on c.symbol = g.symbol and c.window_label = g.interval_label
                 where g.symbol = $1 and g.interval_label = $2 and (g.state = 'pending'
                   or (g.state = 'hole' and g.to_at = c.covered_until))
                 order by g.from_at",
                values![Arc::clone(&track.symbol), Arc::clone(&track.label)],
            )
            .await
            .map_err(database)?;
        rows.iter()
            .map(|row| {
                Ok(Absence {
                    from: row.time(0)?,
                    to: row.time(1)?,
                    answers: row.i64(2)?,
                    was_hole: row.text(3)? == "hole",
                })
            })
            .collect::<Result<_, _>>()
            .map_err(database)
    }
}
