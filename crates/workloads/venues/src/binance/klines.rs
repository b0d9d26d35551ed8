//! Pages of candles: from the venue's bytes to rows that can be trusted.
//!
//! A page is taken whole or not at all. Rows that repeat exactly are dropped (a cache of the venue
//! does that); everything else that is odd rejects the page, and the caller asks again.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, SeqAccess, Visitor};
use watchbell_core::Time;

use super::wire::{Interval, Kline, cut, parse_amount, parse_price};

/// Values in a row of the venue.
const WIDTH: usize = 12;

/// What was asked for, and so what may be in the answer.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The candle's length.
    pub interval: Interval,
    /// Earliest open time, inclusive.
    pub start: Option<Time>,
    /// Latest open time, inclusive.
    pub end: Option<Time>,
    /// Most rows.
    pub limit: usize,
}

/// Reads a page of candles and proves it: each row in itself ([`Kline::check`]), open times rising
/// and within what was asked (a page in seconds or microseconds fails here), not more rows than
/// asked. Exact repetitions are dropped.
///
/// # Errors
/// A phrase that names the row, counted from 0, and what is wrong with it.
pub fn parse_klines(body: &[u8], asked: &Asked) -> Result<Vec<Kline>, String> {
    let rows = read_rows(body, asked.limit)?;
    let mut kept: Vec<Kline> = Vec::with_capacity(rows.len());
    for (i, row) in rows.into_iter().enumerate() {
        let wrong = |what: String| format!("row {i}: {what}");
        row.check(asked.interval).map_err(wrong)?;
        if asked.start.is_some_and(|s| row.open_time < s)
            || asked.end.is_some_and(|e| row.open_time > e)
        {
            let bound = |t: Option<Time>| t.map_or_else(|| "any".to_owned(), |t| t.to_string());
            return Err(wrong(format!(
                "open time {} is outside the asked range {} .. {}",
                row.open_time,
                bound(asked.start),
                bound(asked.end)
            )));
        }
        if let Some(last) = kept.last()
            && row.open_time <= last.open_time
        {
            if row == *last || kept.contains(&row) {
                continue;
            }
            let how = if row.open_time == last.open_time { "contradicts" } else { "comes after" };
            return Err(wrong(format!(
                "open time {} {how} the row of {}",
                row.open_time, last.open_time
            )));
        }
        kept.push(row);
    }
    if kept.len() > asked.limit {
        return Err(format!("{} rows where at most {} were asked", kept.len(), asked.limit));
    }
    Ok(kept)
}

fn read_rows(body: &[u8], expected: usize) -> Result<Vec<Kline>, String> {
    let text = std::str::from_utf8(body).map_err(|e| format!("not UTF-8: {e}"))?;
    let mut json = serde_json::Deserializer::from_str(text);
    let page = Page { expected: expected.min(5_000) };
    let rows = serde::Deserializer::deserialize_seq(&mut json, page)
        .and_then(|rows| json.end().map(|()| rows));
    rows.map_err(|e| cut(&e.to_string(), 200))
}

struct Page {
    expected: usize,
}

impl<'de> Visitor<'de> for Page {
    type Value = Vec<Kline>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of candles")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Kline>, A::Error> {
        let mut rows = Vec::with_capacity(self.expected);
        loop {
            match seq.next_element::<Row>() {
                Ok(Some(row)) => rows.push(row.0),
                Ok(None) => return Ok(rows),
                Err(e) => return Err(A::Error::custom(format_args!("row {}: {e}", rows.len()))),
            }
        }
    }
}

struct Row(Kline);

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_seq(RowVisitor).map(Row)
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = Kline;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a candle: an array of 12 values")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Kline, A::Error> {
        let open_time = Time(integer(&mut seq, 0)?);
        let open = decimal(&mut seq, 1, "open", parse_price)?;
        let high = decimal(&mut seq, 2, "high", parse_price)?;
        let low = decimal(&mut seq, 3, "low", parse_price)?;
        let close = decimal(&mut seq, 4, "close", parse_price)?;
        let volume = decimal(&mut seq, 5, "volume", parse_amount)?;
        let close_time = Time(integer(&mut seq, 6)?);
        let quote_volume = decimal(&mut seq, 7, "quote volume", parse_amount)?;
        let trades = integer(&mut seq, 8)?;
        let taker_buy_base = decimal(&mut seq, 9, "taker buy volume", parse_amount)?;
        let taker_buy_quote = decimal(&mut seq, 10, "taker buy quote volume", parse_amount)?;
        if seq.next_element::<IgnoredAny>()?.is_none() {
            return Err(width(11));
        }
        let mut extra = 0;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            extra += 1;
        }
        if extra > 0 {
            return Err(width(WIDTH + extra));
        }
        Ok(Kline {
            open_time,
            open,
            high,
            low,
            close,
            volume,
            close_time,
            quote_volume,
            trades,
            taker_buy_base,
            taker_buy_quote,
        })
    }
}

fn width<E: serde::de::Error>(got: usize) -> E {
    E::custom(format_args!("{got} values where a candle has {WIDTH}"))
}

fn integer<'de, A: SeqAccess<'de>>(seq: &mut A, at: usize) -> Result<i64, A::Error> {
    seq.next_element()?.ok_or_else(|| width(at))
}

fn decimal<'de, A: SeqAccess<'de>>(
    seq: &mut A,
    at: usize,
    name: &'static str,
    read: fn(&str) -> Result<f64, String>,
) -> Result<f64, A::Error> {
    seq.next_element_seed(Field { name, read })?.ok_or_else(|| width(at))
}

struct Field {
    name: &'static str,
    read: fn(&str) -> Result<f64, String>,
}

impl<'de> DeserializeSeed<'de> for Field {
    type Value = f64;
    fn deserialize<D: serde::Deserializer<'de>>(self, d: D) -> Result<f64, D::Error> {
        d.deserialize_str(self)
    }
}

impl Visitor<'_> for Field {
    type Value = f64;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as decimal text", self.name)
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<f64, E> {
        (self.read)(text).map_err(|e| E::custom(format_args!("{} {e}", self.name)))
    }
}
