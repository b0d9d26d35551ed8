//! Tables of the market.

use watchbell_cli::print::style::{Style, Tone};
use watchbell_cli::print::table::{Cell, Table, facts};
use watchbell_cli::print::time::{relative, short};
use watchbell_cli::print::{count, cut, inline};
use watchbell_core::Time;
use watchbell_core::port::JobRecord;
use watchbell_market::view::{
    BalanceLine, CloseLine, FlagLine, Grid, Jobs, MoodLine, RunLine, SampleLine, SessionLine,
    UniverseLine, VectorLine,
};

use super::{number, price};

/// The symbols.
pub(crate) fn universe(lines: &[UniverseLine], now: Time, style: Style) -> String {
    if lines.is_empty() {
        return "the universe is empty\n".to_owned();
    }
    let mut table = Table::new(&[
        "SYMBOL", "BASE", "QUOTE", "ENABLED", "BY", "STREAK", "VENUE", "CHANGED", "WHY",
    ]);
    for u in lines {
        let enabled =
            if u.enabled { Cell::new("yes", Tone::Good) } else { Cell::new("no", Tone::Warn) };
        let streak = match (u.ok_streak, u.bad_streak) {
            (_, Some(bad @ 1..)) => Cell::new(format!("{bad} bad"), Tone::Bad),
            (Some(ok @ 1..), _) => Cell::from(format!("{ok} ok")),
            _ => Cell::none(),
        };
        let venue = match u.venue_status.as_deref() {
            Some("TRADING") => Cell::from("TRADING"),
            Some(other) => Cell::new(other, Tone::Warn),
            None => Cell::none(),
        };
        table.row(vec![
            u.symbol.as_str().into(),
            u.base.as_str().into(),
            u.quote.as_str().into(),
            enabled,
            u.by.as_str().into(),
            streak,
            venue,
            relative(u.updated_at, now).into(),
            u.reason.as_deref().unwrap_or_default().into(),
        ]);
    }
    let on = lines.iter().filter(|u| u.enabled).count();
    let all = count(lines.len() as i64, "symbol", "symbols");
    table.print(style) + &format!("\n{all}, {on} enabled\n")
}

/// The newest points.
pub(crate) fn samples(lines: &[SampleLine], now: Time, style: Style) -> String {
    if lines.is_empty() {
        return "no points yet\n".to_owned();
    }
    let mut table = Table::new(&[
        "SYMBOL",
        "AT",
        ">MID",
        ">SPREAD",
        ">SNAPSHOTS",
        ">INNER",
        ">OUTER",
        ">TEND",
        ">SWAP",
        "FLAGS",
    ]);
    for s in lines {
        let tone = if s.quality_flags.is_empty() { Tone::Plain } else { Tone::Warn };
        table.row(vec![
            s.symbol.as_str().into(),
            relative(s.ts, now).into(),
            Cell::or_none(s.mid.map(price)),
            Cell::or_none(s.spread.map(price)),
            Cell::number(s.bucket_count, Tone::Plain),
            number(s.v_inner, 2),
            number(s.v_outer, 2),
            number(s.v_tendency, 2),
            number(s.v_swap, 2),
            Cell::new(s.quality_flags.join(" "), tone),
        ]);
    }
    table.print(style)
}

/// The newest vectors.
pub(crate) fn vectors(lines: &[VectorLine], style: Style) -> String {
    if lines.is_empty() {
        return "no windows yet\n".to_owned();
    }
    let mut table = Table::new(&["SYMBOL", "LABEL", "START", ">INNER", ">OUTER", ">TEND", ">SWAP"]);
    for v in lines {
        table.row(vec![
            v.symbol.as_str().into(),
            v.label.as_str().into(),
            short(v.start).into(),
            number(v.inner, 3),
            number(v.outer, 3),
            number(v.tendency, 3),
            number(v.swap, 3),
        ]);
    }
    table.print(style)
}

/// The queue.
pub(crate) fn jobs(jobs: &Jobs, now: Time, style: Style) -> String {
    if jobs.counts.is_empty() {
        return "no jobs\n".to_owned();
    }
    let mut table = Table::new(&["KIND", "STATUS", ">JOBS"]);
    for line in &jobs.counts {
        let tone = match line.status.as_str() {
            "failed" => Tone::Bad,
            "running" => Tone::Good,
            _ => Tone::Plain,
        };
        table.row(vec![
            line.kind.as_str().into(),
            Cell::new(line.status.as_str(), tone),
            Cell::number(line.count, Tone::Plain),
        ]);
    }
    let mut text = table.print(style);
    let oldest = jobs.oldest_queued.map(|t| relative(t, now));
    let oldest = oldest.unwrap_or_else(|| "none is queued".to_owned());
    text.push_str(&format!("\noldest queued: {oldest}\n"));
    if !jobs.failed.is_empty() {
        let mut table = Table::new(&[">FAILED", "KIND", ">ATTEMPTS", "WHEN", "ERROR"]);
        for job in &jobs.failed {
            table.row(vec![
                job.id.to_string().into(),
                job.kind.as_str().into(),
                job.attempts.to_string().into(),
                relative(job.finished_at, now).into(),
                cut(&job.error, 100).into(),
            ]);
        }
        text.push('\n');
        text.push_str(&table.print(style));
    }
    text
}

/// Windows.
pub(crate) fn runs(lines: &[RunLine], incomplete: bool, style: Style) -> String {
    if lines.is_empty() {
        let none = if incomplete { "every window is complete\n" } else { "no windows\n" };
        return none.to_owned();
    }
    let mut table = Table::new(&["LABEL", "START", "STATE", ">ATTEMPTS", "FROM", "WHY"]);
    for run in lines {
        let tone = match run.state.as_str() {
            "complete" => Tone::Good,
            "failed" => Tone::Bad,
            "abandoned" => Tone::Warn,
            _ => Tone::Plain,
        };
        table.row(vec![
            run.label.as_str().into(),
            short(run.start).into(),
            Cell::new(run.state.as_str(), tone),
            Cell::number(run.attempts, Tone::Plain),
            Cell::or_none(run.source.clone()),
            cut(run.reason.as_deref().unwrap_or_default(), 100).into(),
        ]);
    }
    table.print(style)
}

/// Schemas.
pub(crate) fn flags(lines: &[FlagLine], now: Time, style: Style) -> String {
    if lines.is_empty() {
        return "no schema was ever opened\n".to_owned();
    }
    let mut table = Table::new(&["SCHEMA", "OPEN", "SINCE", "BY", "THAT BOOT"]);
    for f in lines {
        let orphan = f.open && f.closed_at.is_some();
        let open = match (f.open, orphan) {
            (true, false) => Cell::new("yes", Tone::Good),
            (true, true) => Cell::new("yes", Tone::Warn),
            (false, _) => Cell::from("no"),
        };
        let boot = match (f.closed_at, &f.note) {
            (Some(at), note) => {
                format!("ended {}: {}", relative(at, now), note.as_deref().unwrap_or_default())
            }
            (None, Some(note)) => note.clone(),
            (None, None) => String::new(),
        };
        table.row(vec![
            f.schema.as_str().into(),
            open,
            Cell::or_none(f.opened_at.map(|t| relative(t, now))),
            Cell::or_none(f.opened_by.clone()),
            boot.into(),
        ]);
    }
    table.print(style)
}

/// Sessions of the ledger.
pub(crate) fn sessions(lines: &[SessionLine], now: Time, style: Style) -> String {
    if lines.is_empty() {
        return "no sessions\n".to_owned();
    }
    let mut table = Table::new(&[
        ">ID", "OWNER", "LABEL", "STATUS", "MODE", "STARTED", "ENDED", ">ASSETS", "NOTE",
    ]);
    for s in lines {
        table.row(vec![
            s.id.to_string().into(),
            s.owner.as_str().into(),
            s.label.as_str().into(),
            Cell::new(s.status.as_str(), tone(&s.status)),
            s.mode.as_str().into(),
            relative(s.started_at, now).into(),
            Cell::or_none(s.ended_at.map(|t| relative(t, now))),
            Cell::number(s.assets, Tone::Plain),
            s.note.as_deref().unwrap_or_default().into(),
        ]);
    }
    table.print(style)
}

/// One session of the ledger.
pub(crate) fn session(
    s: &SessionLine,
    balances: &[BalanceLine],
    closing: Option<&CloseLine>,
    now: Time,
    style: Style,
) -> String {
    let mut text = facts(
        style,
        &[
            ("session", Some(format!("{} of {}", s.id, s.owner))),
            ("status", Some(style.paint(&s.status, tone(&s.status)))),
            ("windows", Some(s.label.clone())),
            ("mode", Some(s.mode.clone())),
            (
                "started",
                Some(format!("{} UTC, {}", short(s.started_at), relative(s.started_at, now))),
            ),
            ("ended", s.ended_at.map(|t| format!("{} UTC, {}", short(t), relative(t, now)))),
            ("note", s.note.clone()),
        ],
    );
    if let Some(c) = closing {
        let usdt = |amount: &str| Some(format!("{amount} USDT"));
        let unbooked = format!("{} trades were left out", c.unbooked);
        text.push('\n');
        text.push_str(&facts(
            style,
            &[
                ("generated profit", usdt(&c.generated_profit)),
                ("realized", usdt(&c.realized_pnl)),
                ("fees", usdt(&c.fees)),
                ("slippage", usdt(&c.slippage)),
                (
                    "luggage",
                    Some(format!(
                        "{} USDT principal, {} USDT profit",
                        c.luggage_principal, c.luggage_profit
                    )),
                ),
                ("moves", Some(c.moves.to_string())),
                ("unbooked", (c.unbooked > 0).then(|| style.paint(&unbooked, Tone::Warn))),
            ],
        ));
    }
    if balances.is_empty() {
        return text;
    }
    text.push_str("\nAmounts in USDT but for the units.\n");
    let mut table = Table::new(&[
        "ASSET",
        ">UNITS",
        ">OPENING",
        ">PRINCIPAL",
        ">PROFIT",
        ">CLOSING",
        ">CLOSING PROFIT",
        "",
    ]);
    for b in balances {
        let mark = if b.overdrawn { "overdrawn" } else { "" };
        table.row(vec![
            b.asset.as_str().into(),
            b.units.as_str().into(),
            b.opening_principal.as_str().into(),
            b.principal.as_str().into(),
            b.profit.as_str().into(),
            Cell::or_none(b.closing_principal.clone()),
            Cell::or_none(b.closing_profit.clone()),
            Cell::new(mark, Tone::Bad),
        ]);
    }
    text.push_str(&table.print(style));
    text
}

/// One matrix.
pub(crate) fn matrix(grid: &Grid, style: Style) -> String {
    let mut text = format!(
        "{}  series {}  {} UTC\n\n",
        style.strong(&grid.matrix_type),
        grid.series,
        short(grid.ts)
    );
    let mut titles = vec!["BASE".to_owned()];
    titles.extend(grid.coins.iter().map(|coin| format!(">{coin}")));
    let mut table = Table::new(&titles);
    for (base, cells) in grid.coins.iter().zip(&grid.cells) {
        let mut row = vec![Cell::from(base.as_str())];
        row.extend((0..grid.coins.len()).map(|i| match cells.get(i).copied().flatten() {
            Some(v) => Cell::from(significant(v)),
            None => Cell::none(),
        }));
        table.row(row);
    }
    text.push_str(&table.print(style));
    text
}

/// Six significant digits, without zeros at the end.
fn significant(v: f64) -> String {
    if v == 0.0 {
        return "0".to_owned();
    }
    let magnitude = v.abs().log10().floor();
    if !(-6.0..9.0).contains(&magnitude) {
        return format!("{v:.5e}");
    }
    let digits = (5.0 - magnitude).max(0.0) as usize;
    let text = format!("{v:.digits$}");
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Moods.
pub(crate) fn moods(lines: &[MoodLine], style: Style) -> String {
    if lines.is_empty() {
        return "no moods yet\n".to_owned();
    }
    let mut table = Table::new(&["LABEL", "START", ">COEFF", "MOOD", "TIER", "STATE"]);
    for m in lines {
        let state = match (m.is_stale, m.is_fallback, m.age_ms) {
            (true, _, Some(age)) => Cell::new(format!("stale, {age} old"), Tone::Bad),
            (_, true, Some(age)) => Cell::new(format!("fallback, {age} old"), Tone::Warn),
            (true, _, None) => Cell::new("neutral, stale", Tone::Bad),
            (_, true, None) => Cell::new("neutral", Tone::Warn),
            _ => Cell::new("stable", Tone::Good),
        };
        table.row(vec![
            m.label.as_str().into(),
            short(m.start).into(),
            format!("{:.6}", m.coeff).into(),
            m.mood.as_str().into(),
            m.tier.as_str().into(),
            state,
        ]);
    }
    table.print(style)
}

/// What a change came to.
pub(crate) fn changed(job: &JobRecord, style: Style) -> String {
    let result = job.result.as_ref().map(inline).unwrap_or_default();
    let done = style.good(&format!("{} done", job.kind));
    let gap = if result.is_empty() { "" } else { "  " };
    format!("{done} as job {}{gap}{result}\n", job.id)
}

fn tone(status: &str) -> Tone {
    match status {
        "OPEN" => Tone::Good,
        "ERROR" => Tone::Bad,
        _ => Tone::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock;
    use super::*;

    #[test]
    fn cells_have_six_significant_digits() {
        for (v, text) in [
            (0.0, "0"),
            (20.0, "20"),
            (49_000.0, "49000"),
            (0.004_008_016_032_064_145, "0.00400802"),
            (-0.199_600_798_403, "-0.199601"),
            (1_234_567.0, "1234567"),
            (1e-9, "1.00000e-9"),
        ] {
            assert_eq!(significant(v), text);
        }
    }

    #[test]
    fn an_instant_of_another_day_has_its_date() {
        let now = Time(1_795_318_200_000);
        assert_eq!(clock(now, now), "03:30");
        assert_eq!(clock(Time(now.0 - 86_400_000), now), "11-21 03:30");
    }
}
