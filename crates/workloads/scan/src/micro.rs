//! What a book says about an entry, and which exchange's book is judged (section 4).
//!
//! Only the book of one exchange is measured, as that exchange answered. Nothing else can be handed in:
//!
//! ```compile_fail
//! // An average over several exchanges has levels, but it is nobody's book.
//! struct Composite {
//!     bids: Vec<watchbell_venues::native::Level>,
//!     asks: Vec<watchbell_venues::native::Level>,
//! }
//! fn blended(book: &Composite) {
//!     watchbell_scan::micro::measure(book).unwrap();
//! }
//! ```
//!
//! ```compile_fail
//! // Nor can a book be put together out of levels from elsewhere.
//! fn forged(levels: Vec<watchbell_venues::native::Level>) {
//!     let book = watchbell_venues::native::OrderBook::<watchbell_venues::native::Kraken> {
//!         bids: levels.clone(),
//!         asks: levels,
//!     };
//! }
//! ```
//!
//! ```
//! fn native(book: &watchbell_venues::native::NativeBook) -> bool {
//!     watchbell_scan::micro::measure(book).is_ok()
//! }
//! ```

use watchbell_core::{Bps, Time};
use watchbell_venues::native::{Level, NativeBook, Venue};

use crate::decimal::apart;
use crate::explain::VenueChecked;
use crate::input::BookAnswer;
use crate::settings::{Settings, Tier};

/// Levels that a book has on each side at least.
const LEVELS_MIN: usize = 5;
/// A spread beyond this is no market.
const SUSPICIOUS: Bps = Bps(1_000.0);
/// How far from the middle depth reaches.
const REACH: f64 = 0.02;
/// And the nearer depth that it is compared with.
const NEAR: f64 = 0.005;

/// A book that has no spread: empty on a side, a price that is none, or crossed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid_book")]
pub struct InvalidBook;

/// What a book says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measures {
    /// The middle of best bid and best ask.
    pub mid: f64,
    /// Their distance, by the middle.
    pub spread: Bps,
    /// Value of the bids within 2 % of the middle, in units of quote.
    pub bid_depth: f64,
    /// That of the asks.
    pub ask_depth: f64,
    /// Whether the levels end before 2 % on a side, so that depth is a lower bound.
    pub truncated: bool,
    /// The share of that depth which lies within 0.5 %.
    pub gradient: f64,
}

impl Measures {
    /// Both sides together.
    #[must_use]
    pub fn depth(&self) -> f64 {
        self.bid_depth + self.ask_depth
    }
}

/// Measures the book of an exchange.
///
/// # Errors
/// When it has no spread.
pub fn measure(book: &NativeBook) -> Result<Measures, InvalidBook> {
    sides(book.bids(), book.asks())
}

fn sides(bids: &[Level], asks: &[Level]) -> Result<Measures, InvalidBook> {
    let (Some(bid), Some(ask)) = (bids.first(), asks.first()) else { return Err(InvalidBook) };
    let finite = bids.iter().chain(asks).all(|l| l.price.is_finite() && l.size.is_finite());
    if !(finite && bid.price > 0.0 && ask.price > bid.price) {
        return Err(InvalidBook);
    }
    let mid = (bid.price + ask.price) / 2.0;
    // Best levels come first, so whatever follows the first that is too far is too.
    let depth = |reach: f64| {
        let (low, high) = ((1.0 - reach) * mid, (1.0 + reach) * mid);
        (value(bids, |p| p >= low), value(asks, |p| p <= high))
    };
    let (bid_depth, ask_depth) = depth(REACH);
    let (near_bids, near_asks) = depth(NEAR);
    let truncated = bids.last().is_none_or(|l| l.price > (1.0 - REACH) * mid)
        || asks.last().is_none_or(|l| l.price < (1.0 + REACH) * mid);
    Ok(Measures {
        mid,
        spread: Bps((ask.price - bid.price) / mid * 1e4),
        bid_depth,
        ask_depth,
        truncated,
        gradient: (near_bids + near_asks) / (bid_depth + ask_depth),
    })
}

fn value(levels: &[Level], within: impl Fn(f64) -> bool) -> f64 {
    levels.iter().take_while(|l| within(l.price)).map(|l| l.price * l.size).sum()
}

/// The book that is judged.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chosen {
    pub(crate) venue: Venue,
    pub(crate) taken_at: Time,
    pub(crate) measures: Result<Measures, InvalidBook>,
    /// What speaks against the book itself, whatever it says; the first of it.
    pub(crate) unfit: Option<String>,
}

/// What became of the books of a symbol.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Books {
    /// The one that is judged; none when no exchange gave one.
    pub(crate) chosen: Option<Chosen>,
    /// Each configured exchange, in order.
    pub(crate) checked: Vec<VenueChecked>,
    /// Who gave a book that can be measured.
    pub(crate) valid: Vec<Venue>,
    /// When the newest was taken.
    pub(crate) newest: Option<Time>,
    /// Kraken answered, and its book had no level at all.
    pub(crate) empty: bool,
}

/// Judges every book and chooses: the first, in the configured order, that passes every check; if none
/// does the one with the fewest failures (section 4.3). Without an instant the age is not judged.
pub(crate) fn choose(
    answers: &[BookAnswer],
    settings: &Settings,
    tier: &Tier,
    at: Option<Time>,
) -> Books {
    let mut books = Books::default();
    let mut best = usize::MAX;
    for venue in &settings.venues {
        let answer = answers.iter().find(|a| a.venue == *venue);
        let refused = || settings.strict_usd && venue.quote() != "USD";
        let book = match answer.map(|a| (a, &a.book)) {
            None => Err("not_asked"),
            Some(_) if refused() => Err("strict_usd"),
            Some((_, Err(why))) => Err(why.as_str()),
            Some((_, Ok(book))) if book.venue() != *venue => Err("not_its_own_book"),
            Some((answer, Ok(book))) => Ok((answer, book)),
        };
        let (answer, book) = match book {
            Ok(found) => found,
            Err(why) => {
                books.checked.push(VenueChecked { venue: *venue, ok: false, reason: why.into() });
                continue;
            }
        };
        let measures = measure(book);
        let unfit = unfit(answer, book, measures, settings, at);
        let mut failures = unfit.clone();
        if let Ok(m) = measures {
            failures.extend(spread(Some(m.spread.0), settings.spread_max(tier)).err());
            failures.extend(depth(Some(m.depth()), settings.depth_min(tier)).err());
            books.valid.push(*venue);
        }
        books.empty |= *venue == Venue::Kraken && book.bids().is_empty() && book.asks().is_empty();
        books.newest = books.newest.max(Some(book.taken_at()));
        let ok = failures.is_empty();
        let reason = failures.first().cloned().unwrap_or_else(|| "ok".into());
        books.checked.push(VenueChecked { venue: *venue, ok, reason });
        // A book without a spread lacks everything that is judged after it.
        let count = failures.len() + if measures.is_err() { 100 } else { 0 };
        if count < best {
            best = count;
            books.chosen = Some(Chosen {
                venue: *venue,
                taken_at: book.taken_at(),
                measures,
                unfit: unfit.into_iter().next(),
            });
        }
    }
    books
}

/// Section 4.1, sanity: what makes a book no evidence.
fn unfit(
    answer: &BookAnswer,
    book: &NativeBook,
    measures: Result<Measures, InvalidBook>,
    settings: &Settings,
    at: Option<Time>,
) -> Vec<String> {
    let mut against = Vec::new();
    if measures.is_err() {
        against.push(InvalidBook.to_string());
    }
    let levels = book.bids().len().min(book.asks().len());
    if levels < LEVELS_MIN {
        against.push(format!("few_levels: {levels} < {LEVELS_MIN}"));
    }
    if let Some(latency) = answer.latency.filter(|l| *l > settings.latency_max) {
        against.push(format!("slow_answer: {}ms > {}ms", latency.0, settings.latency_max.0));
    }
    if let Some(age) = at.map(|at| at.since(book.taken_at())).filter(|a| *a > settings.book_age_max)
    {
        let (age, limit) = apart(Some(age.as_secs_f64()), settings.book_age_max.as_secs_f64(), 0);
        against.push(format!("stale_book: {age}s > {limit}s"));
    }
    if let Ok(m) = measures
        && m.spread.0 > SUSPICIOUS.0
    {
        let (value, limit) = apart(Some(m.spread.0), SUSPICIOUS.0, 1);
        against.push(format!("suspicious_spread: {value} > {limit} bps"));
    }
    against
}

/// Whether the spread is narrow enough; exactly enough is.
pub(crate) fn spread(bps: Option<f64>, max: Bps) -> Result<(), String> {
    if bps.is_some_and(|v| v <= max.0) {
        return Ok(());
    }
    let (value, limit) = apart(bps, max.0, 1);
    Err(format!("spread_wide: {value} > {limit} bps"))
}

/// Whether the book is deep enough; exactly enough is.
pub(crate) fn depth(usd: Option<f64>, min: f64) -> Result<(), String> {
    if usd.is_some_and(|v| v.is_finite() && v >= min) {
        return Ok(());
    }
    let (value, limit) = apart(usd, min, 0);
    Err(format!("depth_thin: {value} < {limit} usd"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn levels(levels: &[(f64, f64)]) -> Vec<Level> {
        levels.iter().map(|(price, size)| Level { price: *price, size: *size }).collect()
    }

    /// Section 4.1, the vector.
    #[test]
    fn the_vector_holds() {
        let bids = levels(&[(99.95, 100.0), (99.0, 500.0), (98.0, 1_000.0), (97.9, 9_999.0)]);
        let asks = levels(&[(100.05, 200.0), (101.0, 300.0), (102.0, 400.0), (102.5, 9_999.0)]);
        let m = sides(&bids, &asks).unwrap();
        assert_eq!(m.mid, 100.0);
        assert!((m.spread.0 - 10.0).abs() < 1e-9);
        assert!((m.depth() - 248_605.0).abs() < 1e-6, "{}", m.depth());
        assert!(!m.truncated);
        assert!((m.gradient - (9_995.0 + 20_010.0) / 248_605.0).abs() < 1e-12);
        let near = sides(&bids[..2], &asks).unwrap();
        assert!(near.truncated && near.ask_depth == m.ask_depth);
        assert!(sides(&bids, &asks[..2]).unwrap().truncated);
    }

    /// Section 4.1: an invalid book is no number.
    #[test]
    fn a_book_without_a_spread_is_invalid() {
        let bid = [(99.0, 1.0)];
        let ask = [(101.0, 1.0)];
        for (bids, asks) in [
            (&[][..], &ask[..]),
            (&bid, &[]),
            (&[], &[]),
            (&[(101.0, 1.0)], &ask),
            (&[(102.0, 1.0)], &ask),
            (&[(0.0, 1.0)], &ask),
            (&[(-1.0, 1.0)], &ask),
            (&[(f64::NAN, 1.0)], &ask),
            (&bid, &[(f64::INFINITY, 1.0)]),
            (&bid, &[(101.0, f64::NAN)]),
        ] {
            assert_eq!(sides(&levels(bids), &levels(asks)), Err(InvalidBook), "{bids:?} {asks:?}");
        }
    }

    /// Section 4.2: exactly the limit passes.
    #[test]
    fn limits_are_inclusive() {
        for (bps, passed) in
            [(Some(50.0), true), (Some(50.000_001), false), (None, false), (Some(f64::NAN), false)]
        {
            assert_eq!(spread(bps, Bps(50.0)).is_ok(), passed, "{bps:?}");
        }
        for (usd, passed) in [
            (Some(100_000.0), true),
            (Some(99_999.999), false),
            (None, false),
            (Some(f64::NAN), false),
            (Some(f64::INFINITY), false),
        ] {
            assert_eq!(depth(usd, 100_000.0).is_ok(), passed, "{usd:?}");
        }
        assert_eq!(spread(Some(61.0), Bps(50.0)).unwrap_err(), "spread_wide: 61.0 > 50.0 bps");
        assert_eq!(depth(Some(84_000.2), 100_000.0).unwrap_err(), "depth_thin: 84000 < 100000 usd");
        // A book of exactly 50 hundredths of a percent.
        let m = sides(&levels(&[(99.75, 1.0)]), &levels(&[(100.25, 1.0)])).unwrap();
        assert!(spread(Some(m.spread.0), Bps(50.0)).is_ok(), "{}", m.spread.0);
    }

    proptest! {
        #[test]
        fn what_is_measured_is_a_number(
            bid in 1e-6_f64..1e6,
            gap in 1e-9_f64..0.1,
            sizes in prop::collection::vec(1e-6_f64..1e6, 1..40),
        ) {
            let side = |sign: f64| -> Vec<Level> {
                let best = if sign < 0.0 { bid } else { bid * (1.0 + gap) };
                let price = |i: usize| best * (1.0 + sign * 0.001 * i as f64);
                let level = |(i, size): (usize, &f64)| Level { price: price(i), size: *size };
                sizes.iter().enumerate().map(level).collect()
            };
            if let Ok(m) = sides(&side(-1.0), &side(1.0)) {
                prop_assert!(m.spread.0 > 0.0 && m.spread.0.is_finite());
                prop_assert!(m.depth().is_finite() && m.bid_depth >= 0.0 && m.ask_depth >= 0.0);
                prop_assert!(bid <= m.mid && m.mid <= bid * (1.0 + gap));
            }
        }
    }
}
