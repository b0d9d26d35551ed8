//! Missing candles: found in a page, asked for again, and at last known to be holes of the venue.

use std::sync::Arc;

use watchbell_core::{Commit, Cover, Cycle, Millis, Statement, Time, values};
use watchbell_db::DbError;
use watchbell_venues::binance::wire::Kline;

use super::{PAGE, Report, Stop, Sync, Track, database, insert_as};
use crate::universe::UNLISTED_AFTER;

/// A hole younger than this is asked for again once a day.
const RECHECK_WITHIN: Millis = Millis::from_days(30);
const RECHECK_EVERY: Millis = Millis::from_days(1);

#[derive(Debug, Clone, Copy)]
struct Gap {
    from: Time,
    to: Time,
    /// How far the newest answer speaks.
    until: Time,
    was_hole: bool,
    answers: i64,
}

impl Sync {
    /// Asks again for what was missing, for young holes once a day, and for every hole in `again`.
    pub(super) async fn repair(
        &self,
        cycle: &Cycle,
        track: &Track,
        again: Option<(Time, Time)>,
        report: &mut Report,
    ) -> Result<(), Stop> {
        let (now, step) = (cycle.now(), track.step);
        // An empty span lies within no hole.
        let (again_from, again_to) = again.unwrap_or((Time(0), Time(0)));
        let gaps = self
            .db
            .query(
                "select from_at, to_at, state, answers from ingest.kline_gaps
                 where symbol = $1 and interval_label = $2 and (
                   state = 'pending'
                   or (state = 'hole' and to_at > $3 and tried_at < $4 and to_at - from_at < $5)
                   or (state = 'hole' and from_at < $8 and to_at > $7)
                 )
                 order by from_at limit $6",
                values![
                    Arc::clone(&track.symbol),
                    Arc::clone(&track.label),
                    now - RECHECK_WITHIN,
                    now - RECHECK_EVERY,
                    UNLISTED_AFTER,
                    self.max_gaps_per_run,
                    again_from,
                    again_to
                ],
            )
            .await
            .map_err(database)?;
        for row in gaps {
            let gap = || -> Result<_, DbError> {
                Ok((Time(row.i64(0)?), Time(row.i64(1)?), row.text(2)? == "hole", row.i64(3)?))
            };
            let (from, to, was_hole, answers) = gap().map_err(database)?;
            let end = Some(to - step);
            let client = self.client.backfill();
            let page = client.klines(&track.symbol, track.interval, Some(from), end, PAGE).await?;
            report.pages += 1;
            let full = page.rows.len() == PAGE;
            let until = if full { page.rows.last().map_or(to, |r| r.open_time + step) } else { to };
            let commit = self.settle_gap(
                track,
                Gap { from, to, until, was_hole, answers: answers + 1 },
                &page.rows,
                now,
                report,
            );
            self.step(cycle, commit).await?;
            if cycle.cancelled() {
                break;
            }
        }
        Ok(())
    }

    fn settle_gap(
        &self,
        Track { symbol, label, step, .. }: &Track,
        gap: Gap,
        rows: &[Kline],
        now: Time,
        report: &mut Report,
    ) -> Commit {
        let mut commit = Commit::new();
        commit.push(Statement::new(
            "delete from ingest.kline_gaps
             where symbol = $1 and interval_label = $2 and from_at = $3",
            values![Arc::clone(symbol), Arc::clone(label), gap.from],
        ));
        if !rows.is_empty() {
            commit.push(insert_as(symbol, label, rows));
            report.rows += rows.len() as u64;
            report.repaired += 1;
            commit.emit(
                if gap.was_hole { "klines.late" } else { "klines.repaired" },
                &**symbol,
                serde_json::json!({
                    "symbol": &**symbol, "interval": &**label, "from": gap.from, "to": gap.until,
                    "rows": rows.len(),
                }),
            );
        }
        let still = missing((gap.from, gap.until), *step, rows.iter().map(|r| r.open_time));
        for &(from, to) in &still {
            let hole = gap.answers >= self.hole_after;
            commit.push(gap_row((symbol, label), (from, to), hole, gap.answers, now));
            if hole && !gap.was_hole {
                report.holes += 1;
                commit.emit(
                    "klines.hole",
                    &**symbol,
                    serde_json::json!({
                        "symbol": &**symbol, "interval": &**label, "from": from, "to": to,
                    }),
                );
            }
        }
        if gap.until < gap.to {
            commit.push(gap_row((symbol, label), (gap.until, gap.to), gap.was_hole, 1, now));
        }
        let waits = if gap.answers >= self.hole_after { &[][..] } else { &still[..] };
        for (a, b) in between(gap.from, gap.until, waits) {
            commit.covers.push(cover(symbol, label, a, b));
        }
        commit
    }
}

/// The state of a gap, as it is stored.
pub(super) const fn state_word(hole: bool) -> &'static str {
    if hole { "hole" } else { "pending" }
}

/// A gap as it is stored, in place of one that begins where it does.
pub(super) fn gap_row(
    (symbol, label): (&Arc<str>, &Arc<str>),
    (from, to): (Time, Time),
    hole: bool,
    answers: i64,
    now: Time,
) -> Statement {
    Statement::new(
        "insert into ingest.kline_gaps
           (symbol, interval_label, from_at, to_at, state, answers, found_at, tried_at)
         values ($1, $2, $3, $4, $5, $6, $7, $7)
         on conflict (symbol, interval_label, from_at) do update set
           to_at = excluded.to_at, state = excluded.state, answers = excluded.answers,
           tried_at = excluded.tried_at",
        values![Arc::clone(symbol), Arc::clone(label), from, to, state_word(hole), answers, now],
    )
}

/// The cover of candles: its source is `klines:1m` and so on.
pub(super) fn cover(symbol: &Arc<str>, label: &str, from: Time, to: Time) -> Cover {
    Cover { source: format!("klines:{label}"), key: symbol.to_string(), from, to }
}

/// The stretches of `[from, until)` without a candle.
pub(super) fn missing(
    (from, until): (Time, Time),
    step: Millis,
    opens: impl Iterator<Item = Time>,
) -> Vec<(Time, Time)> {
    let mut gaps = Vec::new();
    let mut next = from;
    for open in opens {
        if open > next {
            gaps.push((next, open));
        }
        next = next.max(open + step);
    }
    if next < until {
        gaps.push((next, until));
    }
    gaps
}

/// The stretches of `[from, until)` outside of `gaps`.
pub(super) fn between(from: Time, until: Time, gaps: &[(Time, Time)]) -> Vec<(Time, Time)> {
    let mut pieces = Vec::new();
    let mut next = from;
    for &(gap_from, gap_to) in gaps {
        if gap_from > next {
            pieces.push((next, gap_from));
        }
        next = gap_to;
    }
    if next < until {
        pieces.push((next, until));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::universe::MINUTE;

    fn m(n: i64) -> Time {
        Time(n * MINUTE.0)
    }

    #[test]
    fn what_is_missing_and_what_lies_between_fill_the_page() {
        let gaps = missing((m(0), m(10)), MINUTE, [m(1), m(2), m(5), m(8)].into_iter());
        assert_eq!(gaps, [(m(0), m(1)), (m(3), m(5)), (m(6), m(8)), (m(9), m(10))]);
        let rest = between(m(0), m(10), &gaps);
        assert_eq!(rest, [(m(1), m(3)), (m(5), m(6)), (m(8), m(9))]);
        assert_eq!(missing((m(0), m(3)), MINUTE, std::iter::empty()), [(m(0), m(3))]);
        assert_eq!(between(m(0), m(3), &[]), [(m(0), m(3))]);
        assert_eq!(missing((m(0), m(2)), MINUTE, [m(0), m(1)].into_iter()), []);
    }
}
