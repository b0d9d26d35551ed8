//! Trades of the account from a CSV file: all rows or none.

use std::collections::BTreeMap;
use std::fmt;

use rust_decimal::Decimal;
use watchbell_core::{Millis, Statement, Time, values};
use watchbell_db::{Database, DbError};

use super::{Source, Trade, store};
use crate::cin::money;
use crate::universe;

/// The columns that a file may have, and whether it must. The first line names them, in any order.
///
/// | column | holds |
/// |---|---|
/// | `symbol` | the market, such as `BTCUSDT` |
/// | `trade_id` | the venue's number of the trade |
/// | `time` | epoch milliseconds, or RFC 3339; not before 2009, and not to come |
/// | `side` | `BUY` or `SELL` |
/// | `price`, `qty` | decimals; amounts of the base asset |
/// | `quote_qty` | price times amount, unless given |
/// | `commission`, `commission_asset` | the fee; nothing unless given |
/// | `order_id`, `is_maker` | as the venue says; `true` or `false` |
/// | `base_asset`, `quote_asset` | both, where the symbol does not tell |
/// | `account` | whose it is, unless the import says so |
pub const COLUMNS: [(&str, bool); 14] = [
    ("symbol", true),
    ("trade_id", true),
    ("time", true),
    ("side", true),
    ("price", true),
    ("qty", true),
    ("quote_qty", false),
    ("commission", false),
    ("commission_asset", false),
    ("order_id", false),
    ("is_maker", false),
    ("base_asset", false),
    ("quote_asset", false),
    ("account", false),
];

/// 2009-01-01, when there was nothing to trade yet: what is earlier is no time of a trade.
const FIRST: Time = Time(1_230_768_000_000);
/// How far the clock of whoever wrote the file may be ahead of ours.
const AHEAD: Millis = Millis::from_mins(5);
/// Bad rows that a message lists.
const SHOWN: usize = 20;

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Imported {
    /// Rows of the file.
    pub rows: u64,
    /// Those that were not known.
    pub added: u64,
}

/// A row that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Its line in the file, from 1.
    pub line: u64,
    /// What is wrong with it, with the column.
    pub problem: String,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

/// Why a file was not imported. Nothing of it was stored.
#[derive(Debug, thiserror::Error)]
pub enum CsvError {
    /// The first line does not name what is needed.
    #[error("line 1: {0}")]
    Header(String),
    /// Rows cannot be read.
    #[error("nothing was imported, for {} of the rows cannot be read: {}", .0.len(), list(.0))]
    Rows(Vec<BadRow>),
    /// Rows say something else of trades that are known.
    #[error("nothing was imported, for {} of the rows differ from what is known: {}", .0.len(), list(.0))]
    Differ(Vec<BadRow>),
    /// The database failed.
    #[error("nothing was imported")]
    Database(#[from] DbError),
}

fn list(rows: &[BadRow]) -> String {
    let mut text = rows.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if rows.len() > SHOWN {
        text.push_str(&format!("; and {} more", rows.len() - SHOWN));
    }
    text
}

/// Imports a file ([`COLUMNS`]): all rows, or none where one cannot be read or says something else of a
/// trade that is known. Importing a file again adds nothing. `account` is whose trades they are,
/// where a row does not say.
///
/// # Errors
/// See [`CsvError`].
pub async fn import_csv(
    db: &Database,
    file: &[u8],
    account: Option<&str>,
    now: Time,
) -> Result<Imported, CsvError> {
    let (imported, statements) = read_csv(db, file, account, now).await?;
    db.apply(statements).await?;
    Ok(imported)
}

/// What importing a file comes to, and the statements that do it.
pub(crate) async fn read_csv(
    db: &Database,
    file: &[u8],
    account: Option<&str>,
    now: Time,
) -> Result<(Imported, Vec<Statement>), CsvError> {
    let mut read = parse(file, account, now)?;
    let rows = read.len() as u64;
    let mut spans: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for Read { trade: t, .. } in &read {
        let span = spans.entry(&t.symbol).or_insert((t.id, t.id));
        *span = (span.0.min(t.id), span.1.max(t.id));
    }
    let mut known = BTreeMap::new();
    for (symbol, (from, to)) in spans {
        let rows = db
            .query(
                "select trade_id, trade_time, is_buyer, price, qty, quote_qty, commission,
                        commission_asset
                 from market.account_trades
                 where symbol = $1 and trade_id between $2 and $3",
                values![symbol, from, to],
            )
            .await?;
        for row in &rows {
            let side = if row.bool(2)? { "BUY" } else { "SELL" };
            let values = [
                row.time(1)?.to_string(),
                side.to_owned(),
                row.text(3)?.to_owned(),
                row.text(4)?.to_owned(),
                row.text(5)?.to_owned(),
                row.text(6)?.to_owned(),
                row.text(7)?.to_owned(),
            ];
            known.insert((symbol.to_owned(), row.i64(0)?), values);
        }
    }
    let mut differ = Vec::new();
    read.retain(|r| {
        let Some(known) = known.get(&(r.trade.symbol.clone(), r.trade.id)) else { return true };
        differ.extend(r.differs_from(known));
        false
    });
    if !differ.is_empty() {
        return Err(CsvError::Differ(differ));
    }
    let trades: Vec<Trade> = read.into_iter().map(|r| r.trade).collect();
    let added = trades.len() as u64;
    let statements = if trades.is_empty() { Vec::new() } else { store(trades, now) };
    Ok((Imported { rows, added }, statements))
}

/// A trade of a file.
#[derive(Debug)]
struct Read {
    line: u64,
    trade: Trade,
    /// Whether the row says these, or they are assumed.
    says_quote_qty: bool,
    says_commission: bool,
}

impl Read {
    /// What the row says otherwise than what is `known`: time, side, price, amount, amount of the
    /// quote asset, commission and its asset.
    fn differs_from(&self, known: &[String; 7]) -> Option<BadRow> {
        let t = &self.trade;
        let text = |amount: Decimal| amount.normalize().to_string();
        let same = |a: Decimal, b: &str| money::parse(b) == Ok(a);
        let [time, side, price, qty, quote_qty, commission, asset] = known;
        let own_side = if t.is_buyer { "BUY" } else { "SELL" };
        let differs = [
            ("time", t.time.to_string(), time, t.time.to_string() != *time),
            ("side", own_side.to_owned(), side, own_side != side),
            ("price", text(t.price), price, !same(t.price, price)),
            ("qty", text(t.qty), qty, !same(t.qty, qty)),
            (
                "quote_qty",
                text(t.quote_qty),
                quote_qty,
                self.says_quote_qty && !same(t.quote_qty, quote_qty),
            ),
            (
                "commission",
                text(t.commission),
                commission,
                self.says_commission && !same(t.commission, commission),
            ),
            (
                "commission_asset",
                t.commission_asset.clone(),
                asset,
                self.says_commission && !t.commission.is_zero() && t.commission_asset != *asset,
            ),
        ];
        let (name, own, known, _) = differs.into_iter().find(|(.., differs)| *differs)?;
        let problem =
            format!("trade {} of {} has {name} {own}, but {known} is known", t.id, t.symbol);
        Some(BadRow { line: self.line, problem })
    }
}

fn parse(file: &[u8], account: Option<&str>, now: Time) -> Result<Vec<Read>, CsvError> {
    // Spreadsheets put a mark of their encoding before the first name.
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
    let header = reader.headers().map_err(|e| CsvError::Header(e.to_string()))?.clone();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, name) in header.iter().enumerate() {
        let known = COLUMNS.iter().map(|(name, _)| *name).find(|known| *known == name);
        let Some(known) = known else {
            let all: Vec<_> = COLUMNS.iter().map(|(name, _)| *name).collect();
            let problem = format!("`{name}` is not a column; there are {}", all.join(", "));
            return Err(CsvError::Header(problem));
        };
        if places.insert(known, i).is_some() {
            return Err(CsvError::Header(format!("`{known}` is there twice")));
        }
    }
    let missing = COLUMNS.iter().find(|(name, must)| *must && !places.contains_key(name));
    if let Some((name, _)) = missing {
        return Err(CsvError::Header(format!("the column `{name}` is missing")));
    }
    let (mut read, mut bad) = (Vec::new(), Vec::new());
    let mut seen: BTreeMap<(String, i64), u64> = BTreeMap::new();
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(e) => {
                let line = e.position().map_or(0, csv::Position::line);
                let problem = match e.kind() {
                    csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                        format!("{len} values where the first line names {expected_len}")
                    }
                    _ => e.to_string(),
                };
                bad.push(BadRow { line, problem });
                continue;
            }
        };
        let line = record.position().map_or(0, csv::Position::line);
        let row = Fields { record: &record, places: &places };
        match row.trade(account, now) {
            Ok(trade) => match seen.insert((trade.symbol.clone(), trade.id), line) {
                None => read.push(Read {
                    line,
                    says_quote_qty: row.opt("quote_qty").is_some(),
                    says_commission: row.opt("commission").is_some(),
                    trade,
                }),
                Some(first) => {
                    let problem = format!("it repeats trade {} of line {first}", trade.id);
                    bad.push(BadRow { line, problem });
                }
            },
            Err(problem) => bad.push(BadRow { line, problem }),
        }
    }
    if bad.is_empty() { Ok(read) } else { Err(CsvError::Rows(bad)) }
}

/// A row by the names of its columns.
struct Fields<'a> {
    record: &'a csv::StringRecord,
    places: &'a BTreeMap<&'static str, usize>,
}

impl Fields<'_> {
    fn opt(&self, name: &str) -> Option<&str> {
        self.places.get(name).and_then(|i| self.record.get(*i)).filter(|v| !v.is_empty())
    }

    fn text(&self, name: &str) -> Result<&str, String> {
        self.opt(name).ok_or_else(|| format!("{name} is empty"))
    }

    fn amount(&self, name: &str, text: &str) -> Result<Decimal, String> {
        money::parse(text).map_err(|_| {
            format!("{name} `{text}` is not a decimal with at most 18 digits after the point")
        })
    }

    fn positive(&self, name: &str) -> Result<Decimal, String> {
        let value = self.amount(name, self.text(name)?)?;
        if value > Decimal::ZERO {
            Ok(value)
        } else {
            Err(format!("{name} {value} is not above 0"))
        }
    }

    fn number(&self, name: &str, text: &str) -> Result<i64, String> {
        let number = text.parse().ok().filter(|n: &i64| *n >= 0);
        number.ok_or_else(|| format!("{name} `{text}` is not a whole number"))
    }

    fn time(&self, now: Time) -> Result<Time, String> {
        let text = self.text("time")?;
        let time = Time::parse(text)
            .map_err(|_| format!("time `{text}` is neither milliseconds nor RFC 3339"))?;
        let told = "write milliseconds since 1970, or RFC 3339";
        if time < FIRST {
            return Err(format!("time `{text}` is {time}, before any trade: {told}"));
        }
        if time > now + AHEAD {
            return Err(format!("time `{text}` is {time}, which has not come yet: {told}"));
        }
        Ok(time)
    }

    fn trade(&self, account: Option<&str>, now: Time) -> Result<Trade, String> {
        let symbol = self.text("symbol")?.to_owned();
        let (base, quote) = match (self.opt("base_asset"), self.opt("quote_asset")) {
            (Some(base), Some(quote)) => (base.to_owned(), quote.to_owned()),
            (None, None) => {
                let (base, quote) = universe::split(&symbol).map_err(|e| e.to_string())?;
                (base.to_owned(), quote.to_owned())
            }
            _ => return Err("base_asset and quote_asset go together".to_owned()),
        };
        let (price, qty) = (self.positive("price")?, self.positive("qty")?);
        let quote_qty = match self.opt("quote_qty") {
            Some(_) => self.positive("quote_qty")?,
            None => money::mul(price, qty).map_err(|e| e.to_string())?,
        };
        let commission = match self.opt("commission") {
            Some(text) => self.amount("commission", text)?,
            None => Decimal::ZERO,
        };
        if commission < Decimal::ZERO {
            return Err(format!("commission {commission} is below 0"));
        }
        let commission_asset = match self.opt("commission_asset") {
            Some(asset) => asset.to_owned(),
            None if commission.is_zero() => quote.clone(),
            None => return Err("commission_asset is empty, and there is a commission".to_owned()),
        };
        let is_buyer = match self.text("side")?.to_ascii_uppercase().as_str() {
            "BUY" => true,
            "SELL" => false,
            other => return Err(format!("side `{other}` is neither BUY nor SELL")),
        };
        let is_maker = match self.opt("is_maker").map(str::to_ascii_lowercase).as_deref() {
            None | Some("false" | "0") => false,
            Some("true" | "1") => true,
            Some(other) => return Err(format!("is_maker `{other}` is neither true nor false")),
        };
        Ok(Trade {
            id: self.number("trade_id", self.text("trade_id")?)?,
            order_id: self.opt("order_id").map(|t| self.number("order_id", t)).transpose()?,
            time: self.time(now)?,
            account: self.opt("account").or(account).map(str::to_owned),
            symbol,
            base,
            quote,
            price,
            qty,
            quote_qty,
            commission,
            commission_asset,
            is_buyer,
            is_maker,
            is_best_match: true,
            source: Source::File,
            raw: serde_json::json!({}),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_795_320_000_000);

    const GOOD: &str = "\u{feff}symbol,trade_id,time,side,price,qty,commission,commission_asset\n\
        BTCUSDT,1,2026-11-22T03:00:00Z,BUY,50000.5,0.01,0.00001,BTC\n\
        ETHBTC,7,1795316400000,sell,0.05,2,,\n";

    #[test]
    fn a_file_is_read_by_the_names_of_its_columns() {
        let all = parse(GOOD.as_bytes(), Some("me@x"), NOW).unwrap();
        assert_eq!(all.len(), 2);
        let (a, b) = (&all[0].trade, &all[1].trade);
        assert_eq!((a.base.as_str(), a.quote.as_str(), a.is_buyer), ("BTC", "USDT", true));
        assert_eq!(a.quote_qty.to_string(), "500.005");
        assert_eq!((a.time, b.time), (Time(1_795_316_400_000), Time(1_795_316_400_000)));
        assert_eq!((b.quote.as_str(), b.commission_asset.as_str()), ("BTC", "BTC"));
        assert_eq!(b.account.as_deref(), Some("me@x"));
    }

    #[test]
    fn every_bad_row_has_its_line() {
        let file = "symbol,trade_id,time,side,price,qty,commission\n\
            BTCUSDT,1,1795316400000,BUY,1,1,0\n\
            BTCUSDT,x,1795316400000,BUY,1,1,0\n\
            BTCUSDT,2,1795316400000,HOLD,1,1,0\n\
            BTCUSDT,3,1795316400000,BUY,1e5,1,0\n\
            BTCUSDT,4,1795316400000,BUY,1,0,0\n\
            ABC,5,1795316400000,BUY,1,1,0\n\
            BTCUSDT,6,noon,BUY,1,1,0\n\
            BTCUSDT,7,1795316400000,BUY,1\n\
            BTCUSDT,1,1795316400000,BUY,1,1,0\n\
            BTCUSDT,8,1795316400000,BUY,1,1,0.1\n\
            BTCUSDT,9,1795316400000,BUY,0.0000000000000000001,1,0\n";
        let Err(CsvError::Rows(bad)) = parse(file.as_bytes(), None, NOW) else {
            panic!("bad rows")
        };
        let lines: Vec<_> = bad.iter().map(|b| b.line).collect();
        assert_eq!(lines, [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let text = CsvError::Rows(bad).to_string();
        for says in [
            "for 10 of the rows cannot be read: line 3: trade_id `x` is not a whole number",
            "line 4: side `HOLD`",
            "line 6: qty 0 is not above 0",
            "line 7: cannot split the symbol `ABC`",
            "line 9: 5 values where the first line names 7",
            "line 10: it repeats trade 1 of line 2",
        ] {
            assert!(text.contains(says), "{says}: {text}");
        }
        for (time, says) in [
            (
                "1795400000",
                "line 2: time `1795400000` is 1970-01-21T18:43:20Z, before any trade: write milliseconds",
            ),
            (
                "2126-11-22T03:00:00Z",
                "line 2: time `2126-11-22T03:00:00Z` is 2126-11-22T03:00:00Z, which has not",
            ),
        ] {
            let file = format!("symbol,trade_id,time,side,price,qty\nBTCUSDT,1,{time},BUY,1,1\n");
            let refused = parse(file.as_bytes(), None, NOW).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
        for (header, says) in [
            ("symbol,trade_id", "the column `time` is missing"),
            ("symbol,symbol", "`symbol` is there twice"),
            ("symbol,fee", "`fee` is not a column; there are symbol, trade_id"),
        ] {
            let refused = parse(header.as_bytes(), None, NOW).unwrap_err().to_string();
            assert!(refused.starts_with("line 1: ") && refused.contains(says), "{refused}");
        }
    }
}
