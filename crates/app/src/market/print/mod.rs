//! How the market looks: functions from a view to text, as those of the other commands.

mod lists;
mod smokes;
mod status;
mod window;

pub(super) use lists::{
    changed, flags, jobs, matrix, moods, runs, samples, session, sessions, universe, vectors,
};
pub(super) use smokes::{evidence, pack, packs, smokes};
pub(super) use status::status;
pub(super) use window::window;

use watchbell_cli::print::style::Tone;
use watchbell_cli::print::table::Cell;
use watchbell_cli::print::time::span;
use watchbell_core::{Millis, Time};

/// A number with so many digits after the point, or what is not there.
fn number(value: Option<f64>, digits: usize) -> Cell {
    match value {
        // Minus zero is zero.
        Some(v) => Cell::from(format!("{:.digits$}", if v.abs() < 5e-13 { 0.0 } else { v })),
        None => Cell::none(),
    }
}

/// A price: as many digits as it needs, at most eight after the point.
fn price(value: f64) -> String {
    let text = format!("{value:.8}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

/// An age, by its limits.
fn age(at: Option<Time>, now: Time, warn: Millis, bad: Millis) -> Cell {
    let Some(at) = at else { return Cell::none() };
    let age = now.since(at).max(Millis::ZERO);
    let tone = match age {
        a if a > bad => Tone::Bad,
        a if a > warn => Tone::Warn,
        _ => Tone::Plain,
    };
    // Less than a second is no age.
    let text = if age < Millis::from_secs(1) { "0s".to_owned() } else { span(age) };
    Cell::new(text, tone)
}

/// `03:30` of today, `11-21 03:30` of another day.
fn clock(at: Time, now: Time) -> String {
    let (text, today) = (at.rfc3339(), now.rfc3339());
    match (text.get(..10), today.get(..10)) {
        (Some(day), Some(this)) if day == this => text[11..16].to_owned(),
        (Some(_), Some(_)) => text[5..16].replace('T', " "),
        _ => text,
    }
}
