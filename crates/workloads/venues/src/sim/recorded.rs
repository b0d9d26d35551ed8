//! A market from recorded one-minute klines: the CSV files of a folder.
//!
//! Gaps in the files stay gaps. Columns that a file lacks are filled in: the quote volume is
//! `v * (o + h + l + c) / 4`, the number of trades and the takers' share come from a seed (spec:
//! venues, section 12.2).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use watchbell_core::Time;

use super::dice::{Dice, hash_text, mix};
use super::interval::Grid;
use super::market::{DAY, E8, Hole, MINUTE, Minute, SymbolSpec};
use super::split::Shape;

/// A folder of recorded klines cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum RecordedError {
    /// The folder or a file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// There is nothing to serve.
    #[error(
        "{folder} holds no one-minute klines: expected files such as \
         BTCUSDT-1m-20250301-20250401.csv.gz, found {found}"
    )]
    Nothing {
        /// Where was searched, with all folders below.
        folder: PathBuf,
        /// The kline files of other intervals, or a word for none.
        found: String,
    },
    /// A file is not CSV.
    #[error("cannot parse {path}")]
    Csv {
        /// The file.
        path: PathBuf,
        /// Where it breaks.
        #[source]
        source: csv::Error,
    },
    /// A row is not a candle.
    #[error("{path} line {line}: {problem}")]
    Row {
        /// The file.
        path: PathBuf,
        /// Line number, the header being 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
}

/// The series of all symbols found.
#[derive(Debug)]
pub(super) struct Recorded {
    symbols: Vec<Series>,
}

#[derive(Debug)]
struct Series {
    seed: u64,
    tick: i64,
    step: i64,
    days: BTreeMap<i64, Arc<[Minute]>>,
    /// The first trade of each day, for the search by number.
    first_trades: Vec<(i64, i64)>,
    holes: Vec<Hole>,
}

/// One CSV row; what the file does not say is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    prices: [i64; 4],
    volume: i64,
    quote: Option<i64>,
    trades: Option<u32>,
    taker_base: Option<i64>,
    taker_quote: Option<i64>,
}

impl Recorded {
    /// Reads every one-minute file of `folder` and below, or of its `binance-spot` folder when it
    /// has one, so that a collection of several venues serves the spot market alone.
    pub(super) fn load(
        folder: &Path,
        shift: i64,
    ) -> Result<(Self, Vec<SymbolSpec>), RecordedError> {
        let spot = folder.join("binance-spot");
        let root = if spot.is_dir() { spot } else { folder.to_owned() };
        let mut files = Vec::new();
        let mut others = Vec::new();
        collect(&root, &mut files, &mut others)?;
        files.sort();
        if files.is_empty() {
            others.sort();
            others.truncate(3);
            let found =
                if others.is_empty() { "no kline file".to_owned() } else { others.join(", ") };
            return Err(RecordedError::Nothing { folder: root, found });
        }
        let mut rows: BTreeMap<String, BTreeMap<i64, Row>> = BTreeMap::new();
        for (symbol, path) in &files {
            read(path, shift, rows.entry(symbol.clone()).or_default())?;
        }
        let (series, specs) =
            rows.iter().filter(|(_, r)| !r.is_empty()).map(|(name, r)| series(name, r)).unzip();
        Ok((Self { symbols: series }, specs))
    }

    pub(super) fn span(&self, symbol: usize) -> (i64, i64) {
        let days = &self.symbols[symbol].days;
        let first = days.values().next().and_then(|d| d.first()).map_or(0, |m| m.time);
        let last = days.values().next_back().and_then(|d| d.last()).map_or(0, |m| m.time);
        (first, last + MINUTE)
    }

    pub(super) fn holes(&self, symbol: usize) -> Vec<Hole> {
        self.symbols[symbol].holes.clone()
    }

    pub(super) fn day(&self, symbol: usize, day: i64) -> Option<Arc<[Minute]>> {
        self.symbols[symbol].days.get(&day).cloned()
    }

    pub(super) fn minute_from(&self, symbol: usize, t: i64) -> Option<i64> {
        let t = Grid::MINUTE.ceil(t);
        let later = self.symbols[symbol].days.range(t.div_euclid(DAY)..);
        later
            .into_iter()
            .find_map(|(_, d)| d.get(d.partition_point(|m| m.time < t)))
            .map(|m| m.time)
    }

    pub(super) fn minute_upto(&self, symbol: usize, t: i64) -> Option<i64> {
        let earlier = self.symbols[symbol].days.range(..=t.div_euclid(DAY));
        let found = earlier.into_iter().rev().find_map(|(_, d)| {
            d.partition_point(|m| m.time <= t).checked_sub(1).and_then(|i| d.get(i))
        });
        found.map(|m| m.time)
    }

    pub(super) fn day_of_trade(&self, symbol: usize, id: i64) -> i64 {
        let firsts = &self.symbols[symbol].first_trades;
        let after = firsts.partition_point(|(first, _)| *first <= id);
        firsts.get(after.saturating_sub(1)).map_or(0, |(_, day)| *day)
    }

    /// The shape of a minute, with the tick and step it is counted in.
    pub(super) fn shape(&self, symbol: usize, m: &Minute) -> (Shape, i64, i64) {
        let s = &self.symbols[symbol];
        // A minute of many trades and little volume is counted finer than the symbol's step.
        let step = if m.volume / s.step >= i64::from(m.trades) { s.step } else { 1 };
        let shape = Shape {
            open: m.open / s.tick,
            high: m.high / s.tick,
            low: m.low / s.tick,
            close: m.close / s.tick,
            volume: m.volume / step,
            trades: m.trades,
            seed: mix(s.seed, m.time as u64),
        };
        (shape, s.tick, step)
    }
}

/// Finds `SYMBOL-1m-FROM-TO.csv` and `.csv.gz` files, and the names of other kline files.
fn collect(
    folder: &Path,
    files: &mut Vec<(String, PathBuf)>,
    others: &mut Vec<String>,
) -> Result<(), RecordedError> {
    let fail = |source| RecordedError::Read { path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.is_dir() {
            collect(&path, files, others)?;
            continue;
        }
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        let Some(stem) = name.strip_suffix(".csv.gz").or_else(|| name.strip_suffix(".csv")) else {
            continue;
        };
        if let Some((symbol, _)) =
            stem.split_once("-1m-").or_else(|| stem.strip_suffix("-1m").map(|symbol| (symbol, "")))
        {
            files.push((symbol.to_owned(), path));
        } else if stem.contains('-') {
            others.push(name.to_owned());
        }
    }
    Ok(())
}

fn read(path: &Path, shift: i64, rows: &mut BTreeMap<i64, Row>) -> Result<(), RecordedError> {
    let file =
        File::open(path).map_err(|source| RecordedError::Read { path: path.to_owned(), source })?;
    let packed = path.extension().is_some_and(|e| e == "gz");
    let input: Box<dyn Read> =
        if packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let broken = |source| RecordedError::Csv { path: path.to_owned(), source };
    let mut table = csv::Reader::from_reader(input);
    let header = table.headers().map_err(broken)?.clone();
    let column = |name: &str| header.iter().position(|h| h == name);
    let required = ["open_time_ms", "open", "high", "low", "close", "volume"];
    let mut base = [0; 6];
    for (slot, name) in base.iter_mut().zip(required) {
        *slot = column(name).ok_or_else(|| RecordedError::Row {
            path: path.to_owned(),
            line: 1,
            problem: format!("no column `{name}`; a kline file has {}", required.join(", ")),
        })?;
    }
    let extra = ["quote_volume", "trades", "taker_buy_base", "taker_buy_quote"].map(column);
    let mut record = csv::StringRecord::new();
    while table.read_record(&mut record).map_err(broken)? {
        let line = record.position().map_or(0, csv::Position::line);
        let (time, row) = parse(&record, base, extra).map_err(|problem| RecordedError::Row {
            path: path.to_owned(),
            line,
            problem,
        })?;
        let earlier = rows.insert(time + shift, row);
        if earlier.is_some_and(|e| (e.prices, e.volume) != (row.prices, row.volume)) {
            return Err(RecordedError::Row {
                path: path.to_owned(),
                line,
                problem: format!(
                    "another file has a different candle at {}; remove one of the two files",
                    Time(time)
                ),
            });
        }
    }
    Ok(())
}

fn parse(
    record: &csv::StringRecord,
    base: [usize; 6],
    extra: [Option<usize>; 4],
) -> Result<(i64, Row), String> {
    let cell = |i: usize| record.get(i).unwrap_or_default();
    let time: i64 = cell(base[0])
        .parse()
        .map_err(|_| format!("`{}` is not a time in epoch milliseconds", cell(base[0])))?;
    if time % MINUTE != 0 {
        return Err(format!("the candle at {time} does not open on a whole minute"));
    }
    let mut prices = [0; 4];
    for (slot, i) in prices.iter_mut().zip(&base[1..5]) {
        *slot = decimal(cell(*i))?;
    }
    let [open, high, low, close] = prices;
    if low <= 0 || low > open.min(close) || high < open.max(close) {
        return Err(format!(
            "open {}, high {}, low {}, close {} are not the prices of a candle",
            cell(base[1]),
            cell(base[2]),
            cell(base[3]),
            cell(base[4])
        ));
    }
    let optional =
        |i: Option<usize>| i.map(cell).filter(|text| !text.is_empty()).map(decimal).transpose();
    let row = Row {
        prices,
        volume: decimal(cell(base[5]))?,
        quote: optional(extra[0])?,
        trades: optional(extra[1])?.map(|n| (n / E8) as u32),
        taker_base: optional(extra[2])?,
        taker_quote: optional(extra[3])?,
    };
    Ok((time, row))
}

/// Decimal text in units of 1e-8; digits beyond the eighth are cut.
fn decimal(text: &str) -> Result<i64, String> {
    let bad = || format!("`{text}` is not a decimal number that the venue could print");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !whole.bytes().chain(part.bytes()).all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let mut value: i64 = whole.parse().map_err(|_| bad())?;
    for i in 0..8 {
        let digit = part.as_bytes().get(i).map_or(0, |b| i64::from(b - b'0'));
        value = value.checked_mul(10).and_then(|v| v.checked_add(digit)).ok_or_else(bad)?;
    }
    Ok(value)
}

/// Joins the rows of a symbol into days, numbers their trades, and lists the holes.
fn series(name: &str, rows: &BTreeMap<i64, Row>) -> (Series, SymbolSpec) {
    let seed = hash_text(name);
    let tick = coarsest(rows.values().flat_map(|r| r.prices));
    let step = coarsest(rows.values().map(|r| r.volume));
    let mut days: BTreeMap<i64, Vec<Minute>> = BTreeMap::new();
    let mut holes = Vec::new();
    let mut next_trade = 0;
    let mut expected = None;
    for (&time, row) in rows {
        if let Some(from) = expected.filter(|e| *e < time) {
            holes.push(Hole { from: Time(from), to: Time(time) });
        }
        expected = Some(time + MINUTE);
        let minute = complete(time, row, seed, next_trade, tick);
        next_trade += i64::from(minute.trades);
        days.entry(time.div_euclid(DAY)).or_default().push(minute);
    }
    let first_trades = days.iter().map(|(d, m)| (m[0].first_trade, *d)).collect();
    let days = days.into_iter().map(|(d, m)| (d, m.into())).collect();
    let (base, quote) = SymbolSpec::split(name);
    let spec = SymbolSpec {
        name: name.to_owned(),
        base: base.to_owned(),
        quote: quote.to_owned(),
        tick,
        step,
    };
    (Series { seed, tick, step, days, first_trades, holes }, spec)
}

/// A row with everything that its file did not say.
fn complete(time: i64, row: &Row, seed: u64, first_trade: i64, tick: i64) -> Minute {
    let [open, high, low, close] = row.prices;
    let mut dice = Dice::new(mix(mix(seed, 9), time as u64));
    let mean = (i128::from(open) + i128::from(high) + i128::from(low) + i128::from(close)) / 4;
    let quote =
        row.quote.unwrap_or_else(|| (i128::from(row.volume) * mean / i128::from(E8)) as i64);
    let shape = Shape {
        open: open / tick,
        high: high / tick,
        low: low / tick,
        close: close / tick,
        volume: row.volume,
        trades: 0,
        seed: 0,
    };
    let drawn = 20 + dice.below(180) as u32;
    // A recorded count that could not even visit the four prices is raised to one that can.
    let trades = if row.volume == 0 { 0 } else { row.trades.unwrap_or(drawn).max(shape.needed()) };
    let share = 350 + i128::from(dice.below(300));
    let part = |whole: i64| (i128::from(whole) * share / 1_000) as i64;
    Minute {
        time,
        open,
        high,
        low,
        close,
        volume: row.volume,
        quote,
        taker_base: row.taker_base.unwrap_or_else(|| part(row.volume)),
        taker_quote: row.taker_quote.unwrap_or_else(|| part(quote)),
        first_trade,
        trades,
    }
}

/// The largest power of ten, up to one, that divides all values.
fn coarsest(values: impl Iterator<Item = i64>) -> i64 {
    let mut unit = E8;
    for v in values {
        while v % unit != 0 {
            unit /= 10;
        }
    }
    unit
}
