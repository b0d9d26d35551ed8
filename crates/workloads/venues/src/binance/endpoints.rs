//! The endpoints: what each asks, what it costs, and what its answer must be like.

use std::collections::HashSet;
use std::sync::PoisonError;

use serde::de::DeserializeOwned;
use watchbell_core::{Millis, Time};

use super::client::{BinanceClient, Request, Skew};
use super::error::VenueError;
use super::klines::{Asked, parse_klines};
use super::wire::{
    AggTrade, BookTicker, Depth, ExchangeInfo, Interval, Kline, ServerTime, Ticker24h, cut,
};

/// Most rows of a page of candles or trades.
const MAX_PAGE: usize = 1_000;

/// A page of candles, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// All rows; the last one may still be open.
    pub rows: Vec<Kline>,
    /// How many of them, from the front, can no longer change.
    pub closed: usize,
    /// The venue's time when the request was sent, at its lower bound: what closed before was
    /// complete in the answer.
    pub server_time: Time,
}

impl Page {
    /// The rows that can no longer change: what a caller stores.
    #[must_use]
    pub fn closed(&self) -> &[Kline] {
        &self.rows[..self.closed]
    }

    /// The candle in the making, if the page reaches it.
    #[must_use]
    pub fn open(&self) -> Option<&Kline> {
        self.rows.get(self.closed)
    }

    /// Where the next page starts: after the last closed row. `None` for a page without one.
    #[must_use]
    pub fn next_start(&self, interval: Interval) -> Option<Time> {
        self.closed().last().map(|row| interval.next_open(row.open_time))
    }
}

/// Which trades are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AggFrom {
    /// The newest.
    Latest,
    /// From this row number on, inclusive.
    Id(i64),
    /// Traded at or after `start`, and at or before `end` if there is one.
    Time {
        /// First instant.
        start: Time,
        /// Last instant.
        end: Option<Time>,
    },
}

impl BinanceClient {
    /// Asks the venue's time and measures the skew with it (weight 1).
    ///
    /// # Errors
    /// See [`VenueError`].
    pub async fn server_time(&self) -> Result<Time, VenueError> {
        let request = Request::new("/api/v3/time", None, 1);
        let clock = &self.shared.clock;
        let (time, skew) = self
            .get(&request, |body, sent| {
                let time: ServerTime = json(body)?;
                let received = clock.now();
                let half = Millis((received - sent).0 / 2);
                let offset = time.server_time - (sent + half);
                let skew = Skew { offset, uncertainty: half, measured: received };
                Ok((1, (time.server_time, skew)))
            })
            .await?;
        *self.shared.skew.lock().unwrap_or_else(PoisonError::into_inner) = Some(skew);
        self.shared.limiter.set_skew(skew.offset);
        Ok(time)
    }

    /// Measures the skew where it is unknown or old.
    pub(super) async fn fresh_skew(&self) -> Result<Skew, VenueError> {
        let max_age = self.shared.config.skew_max_age;
        let fresh = || {
            let now = self.shared.clock.now();
            self.skew().filter(|s| now - s.measured <= max_age)
        };
        if let Some(skew) = fresh() {
            return Ok(skew);
        }
        let _one_at_a_time = self.shared.measuring.lock().await;
        if let Some(skew) = fresh() {
            return Ok(skew);
        }
        self.server_time().await?;
        Ok(self.skew().unwrap_or(Skew {
            offset: Millis::ZERO,
            uncertainty: Millis::ZERO,
            measured: self.shared.clock.now(),
        }))
    }

    /// Markets and limits (weight 20). The limiter takes the venue's limit over.
    ///
    /// # Errors
    /// See [`VenueError`].
    pub async fn exchange_info(&self) -> Result<ExchangeInfo, VenueError> {
        let request = Request::new("/api/v3/exchangeInfo", None, 20);
        let info = self
            .get(&request, |body, _| {
                let info: ExchangeInfo = json(body)?;
                if info.symbols.is_empty() {
                    return Err("no symbols".into());
                }
                Ok((info.symbols.len(), info))
            })
            .await?;
        if let Some(limit) = info.weight_per_minute().filter(|l| *l > 0) {
            self.shared.limiter.set_limit(limit);
        }
        Ok(info)
    }

    /// A page of candles (weight 2), oldest first: those that open within `start ..= end`, at most
    /// `limit` (1 to 1000). Without `start` the newest, up to `end` if given.
    ///
    /// # Errors
    /// See [`VenueError`]; a page with anything wrong in it is refused whole.
    pub async fn klines(
        &self,
        symbol: &str,
        interval: Interval,
        start: Option<Time>,
        end: Option<Time>,
        limit: usize,
    ) -> Result<Page, VenueError> {
        let request = Request::new("/api/v3/klines", Some(symbol), 2)
            .with("symbol", symbol)
            .with("interval", &interval)
            .with_time("startTime", start)
            .with_time("endTime", end)
            .with("limit", &limit);
        check_symbol(&request, symbol)?;
        check_page(&request, limit)?;
        let skew = self.fresh_skew().await?;
        let asked = Asked { interval, start, end, limit };
        self.get(&request, |body, sent| {
            let rows = parse_klines(body, &asked)?;
            // What had closed when we asked was complete in the answer; what closed while the
            // answer was on its way may not have been.
            let server_time = sent + skew.offset - skew.uncertainty;
            let closed = rows.partition_point(|row| row.is_final(interval, server_time));
            Ok((rows.len(), Page { rows, closed, server_time }))
        })
        .await
    }

    /// Statistics of the trailing 24 hours; all markets for an empty list. Weight 2 for 1 to 20
    /// markets, 40 for 21 to 100, 80 for more and for all.
    ///
    /// A market that has stopped trading is answered with zeros
    /// ([`was_traded`](Ticker24h::was_traded)); one that the venue does not know refuses them all.
    ///
    /// # Errors
    /// See [`VenueError`]; [`VenueError::Incomplete`] names the markets that are not in the answer.
    pub async fn ticker_24h(&self, symbols: &[&str]) -> Result<Vec<Ticker24h>, VenueError> {
        let weight = match symbols.len() {
            1..=20 => 2,
            21..=100 => 40,
            _ => 80,
        };
        self.many("/api/v3/ticker/24hr", symbols, weight, |t: &Ticker24h| &t.symbol).await
    }

    /// Best bid and ask; all markets for an empty list. Weight 2 for one market, 4 for more.
    ///
    /// # Errors
    /// See [`VenueError`]; [`VenueError::Incomplete`] names the markets that are not in the answer.
    pub async fn book_ticker(&self, symbols: &[&str]) -> Result<Vec<BookTicker>, VenueError> {
        let weight = if symbols.len() == 1 { 2 } else { 4 };
        self.many("/api/v3/ticker/bookTicker", symbols, weight, |t: &BookTicker| &t.symbol).await
    }

    /// One object for one market, an array for more. Every market that was asked must be answered: of an
    /// answer that leaves one out nothing is taken. The venue did answer, so that is no failure of the
    /// venue, and the same question is not put to it again: who asked decides.
    async fn many<T: DeserializeOwned>(
        &self,
        path: &'static str,
        symbols: &[&str],
        weight: i64,
        name: fn(&T) -> &String,
    ) -> Result<Vec<T>, VenueError> {
        let single = (symbols.len() == 1).then(|| symbols[0]);
        let mut request = Request::new(path, single, weight);
        for symbol in symbols {
            check_symbol(&request, symbol)?;
        }
        request = match symbols {
            [] => request,
            [one] => request.with("symbol", one),
            all => request.with("symbols", &format!("[\"{}\"]", all.join("\",\""))),
        };
        let rows: Vec<T> = self
            .get(&request, |body, _| {
                let rows = if single.is_some() { vec![json(body)?] } else { json(body)? };
                Ok((rows.len(), rows))
            })
            .await?;
        let answered: HashSet<&str> = rows.iter().map(|row| name(row).as_str()).collect();
        let missing: Vec<String> =
            symbols.iter().filter(|s| !answered.contains(**s)).map(|s| (*s).to_owned()).collect();
        if missing.is_empty() {
            return Ok(rows);
        }
        Err(VenueError::Incomplete { call: request.call().clone(), missing })
    }

    /// The order book with `limit` (1 to 5000) levels per side. Weight 5 up to 100 levels, 25 up to
    /// 500, 50 up to 1000, 250 above.
    ///
    /// # Errors
    /// See [`VenueError`].
    pub async fn depth(&self, symbol: &str, limit: usize) -> Result<Depth, VenueError> {
        let weight = match limit {
            0..=100 => 5,
            101..=500 => 25,
            501..=1_000 => 50,
            _ => 250,
        };
        let request = Request::new("/api/v3/depth", Some(symbol), weight)
            .with("symbol", symbol)
            .with("limit", &limit);
        check_symbol(&request, symbol)?;
        if !(1..=5_000).contains(&limit) {
            return Err(request.invalid(format!("limit {limit} is not in 1 ..= 5000")));
        }
        self.get(&request, |body, _| {
            let depth: Depth = json(body)?;
            depth.check()?;
            if depth.bids.len().max(depth.asks.len()) > limit {
                return Err(format!("more than the {limit} levels that were asked"));
            }
            Ok((depth.bids.len() + depth.asks.len(), depth))
        })
        .await
    }

    /// Trades (weight 4), oldest first, at most `limit` (1 to 1000).
    ///
    /// # Errors
    /// See [`VenueError`].
    pub async fn agg_trades(
        &self,
        symbol: &str,
        from: AggFrom,
        limit: usize,
    ) -> Result<Vec<AggTrade>, VenueError> {
        let mut request = Request::new("/api/v3/aggTrades", Some(symbol), 4).with("symbol", symbol);
        request = match from {
            AggFrom::Latest => request,
            AggFrom::Id(id) => request.with("fromId", &id),
            AggFrom::Time { start, end } => {
                request.with("startTime", &start.0).with_time("endTime", end)
            }
        };
        request = request.with("limit", &limit);
        check_symbol(&request, symbol)?;
        check_page(&request, limit)?;
        self.get(&request, |body, _| {
            let rows: Vec<AggTrade> = json(body)?;
            check_trades(&rows, from, limit)?;
            Ok((rows.len(), rows))
        })
        .await
    }
}

pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|e| cut(&e.to_string(), 200))
}

pub(super) fn check_page(request: &Request, limit: usize) -> Result<(), VenueError> {
    if (1..=MAX_PAGE).contains(&limit) {
        return Ok(());
    }
    Err(request.invalid(format!("limit {limit} is not in 1 ..= {MAX_PAGE}")))
}

/// A symbol goes into a URL and into a JSON array, so its characters are checked first. The venue's
/// own rule also allows letters of other scripts, which are percent-encoded.
pub(super) fn check_symbol(request: &Request, symbol: &str) -> Result<(), VenueError> {
    let fine = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !symbol.is_empty() && symbol.chars().count() <= 50 && symbol.chars().all(fine) {
        return Ok(());
    }
    Err(request.invalid(format!("`{}` is not a symbol", cut(symbol, 60))))
}

fn check_trades(rows: &[AggTrade], from: AggFrom, limit: usize) -> Result<(), String> {
    if rows.len() > limit {
        return Err(format!("{} rows where at most {limit} were asked", rows.len()));
    }
    for (i, row) in rows.iter().enumerate() {
        if !(row.price > 0.0 && row.qty > 0.0) {
            return Err(format!("row {i}: {} at {} is not a trade", row.qty, row.price));
        }
        if i > 0 && row.id <= rows[i - 1].id {
            return Err(format!("row {i}: id {} comes after {}", row.id, rows[i - 1].id));
        }
        let inside = match from {
            AggFrom::Latest => true,
            AggFrom::Id(id) => row.id >= id,
            AggFrom::Time { start, end } => {
                row.time >= start && end.is_none_or(|end| row.time <= end)
            }
        };
        if !inside {
            return Err(format!(
                "row {i}: trade {} of {} is outside the asked range",
                row.id, row.time
            ));
        }
    }
    Ok(())
}
