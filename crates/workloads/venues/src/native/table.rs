//! Bars and levels as every exchange has them: what must hold for them, whatever order and columns
//! they came in.

use watchbell_core::{Millis, Time};

use super::json::{Node, PayloadError, Read};
use super::{Bar, Interval, Level};

/// The order in which an exchange sends its bars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    OldestFirst,
    NewestFirst,
}

/// A bar as it came.
pub(super) struct RawBar {
    pub(super) bar: Bar,
    /// Whether the exchange says that it is closed; `true` where it does not tell.
    pub(super) confirmed: bool,
}

/// 2009-01-01: no bar of a coin is older, so a smaller number is not in the unit that we think.
const FIRST_PLAUSIBLE: Time = Time(1_230_768_000_000);
/// 2100-01-01.
const LAST_PLAUSIBLE: Time = Time(4_102_444_800_000);

/// Proves a page of bars, and turns it into closed bars, oldest first.
///
/// A bar is closed when the exchange confirms it and its end is not after `venue_now`, the exchange's
/// time when it was asked. A page with anything wrong in it is refused whole.
pub(super) fn closed(
    mut rows: Vec<RawBar>,
    order: Order,
    interval: Interval,
    venue_now: Time,
) -> Read<Vec<Bar>> {
    let mut previous: Option<Time> = None;
    for (i, RawBar { bar, .. }) in rows.iter().enumerate() {
        check(bar, interval, venue_now).map_err(|e| e.row(i))?;
        if let Some(last) = previous {
            let wrong = |how: &str| {
                let problem = format!("{} {how} the row before, {last}", bar.open_time);
                Err(PayloadError::new(problem).within("time").row(i))
            };
            if bar.open_time == last {
                return wrong("repeats");
            }
            if (bar.open_time > last) != (order == Order::OldestFirst) {
                return wrong("is out of order after");
            }
        }
        previous = Some(bar.open_time);
    }
    if order == Order::NewestFirst {
        rows.reverse();
    }
    let is_closed =
        |row: &RawBar| row.confirmed && row.bar.open_time + interval.length() <= venue_now;
    let closed = rows.iter().take_while(|row| is_closed(row)).count();
    // The newest bars may be open. One in the midst of closed ones is a contradiction.
    if rows[closed..].iter().any(is_closed) {
        let at = if order == Order::OldestFirst { closed } else { rows.len() - 1 - closed };
        let problem = "the bar is said to be open, and a newer one to be closed";
        return Err(PayloadError::new(problem).within("confirm").row(at));
    }
    Ok(rows[..closed].iter().map(|row| row.bar).collect())
}

fn check(bar: &Bar, interval: Interval, venue_now: Time) -> Read<()> {
    let at = bar.open_time;
    let time = |problem: String| Err(PayloadError::new(problem).within("time"));
    if at < FIRST_PLAUSIBLE {
        return time(format!("{at} is before 2009: the unit is not the expected one"));
    }
    if at.floor(interval.length()) != at {
        return time(format!("{at} is not on the grid of {}", interval.as_str()));
    }
    // Our clock may be a little late; a whole bar it is not.
    if at > venue_now + interval.length() {
        return time(format!("{at} is in the future of {venue_now}"));
    }
    if bar.low > bar.high {
        let problem = format!("{} is above the high {}", bar.low, bar.high);
        return Err(PayloadError::new(problem).within("low"));
    }
    if !bar.quote_volume.is_finite() {
        let problem = format!("{} at {} is more than there is money", bar.volume, bar.close);
        return Err(PayloadError::new(problem).within("volume"));
    }
    for (name, price) in [("open", bar.open), ("close", bar.close)] {
        if !(bar.low <= price && price <= bar.high) {
            let problem = format!("{price} is outside low {} .. high {}", bar.low, bar.high);
            return Err(PayloadError::new(problem).within(name));
        }
    }
    Ok(())
}

/// Seconds since the epoch as an instant.
pub(super) fn seconds(s: i64) -> Read<Time> {
    let ms = s.checked_mul(1_000).map(Time);
    ms.ok_or_else(|| PayloadError::new(format!("{s} is not a time in seconds")))
}

/// Milliseconds since the epoch as an instant of this century.
pub(super) fn milliseconds(ms: i64) -> Read<Time> {
    if (FIRST_PLAUSIBLE..LAST_PLAUSIBLE).contains(&Time(ms)) {
        return Ok(Time(ms));
    }
    Err(PayloadError::new(format!("{ms} is not a time in milliseconds")))
}

/// How many bars long `span` is.
pub(super) fn bars_in(span: Millis, interval: Interval) -> usize {
    usize::try_from(span.0 / interval.length().0).unwrap_or(0)
}

/// A side of a book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Prices fall.
    Bids,
    /// Prices rise.
    Asks,
}

/// Reads a side: best first, strictly monotone, prices positive, sizes not negative, both as text and
/// the first cells of rows of `width`. Levels without size are dropped. Beyond `reach`, a share of the
/// best price, levels are left out.
pub(super) fn levels(node: Node<'_>, side: Side, width: usize, reach: f64) -> Read<Vec<Level>> {
    let mut kept = Vec::new();
    let mut best: Option<f64> = None;
    let mut last: Option<f64> = None;
    node.each(|_, level| {
        let row = level.row(width)?;
        let price = row.get(0, "price", Node::price)?;
        let size = row.get(1, "size", Node::amount)?;
        if let Some(last) = last {
            let wrong =
                |how: &str| Err(PayloadError::new(format!("{price} {how} {last}")).within("price"));
            if price == last {
                return wrong("repeats the level before,");
            }
            if (price > last) != (side == Side::Asks) {
                return wrong("is out of order after");
            }
        }
        last = Some(price);
        let best = *best.get_or_insert(price);
        let within = match side {
            Side::Bids => price >= best * (1.0 - reach),
            Side::Asks => price <= best * (1.0 + reach),
        };
        if size > 0.0 && within {
            kept.push(Level { price, size });
        }
        Ok(())
    })?;
    Ok(kept)
}
