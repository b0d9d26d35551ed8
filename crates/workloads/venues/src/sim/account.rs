//! The account behind the signed endpoints: its key, its balances, its trades. Spec: venues, section
//! 4.6.

use rust_decimal::Decimal;
use watchbell_core::{Millis, Time};

use super::dice::{hash_text, mix};
use super::floor::Answer;
use super::market::{E8, Market, lock};
use super::params::{Params, Refusal};
use super::rest::View;
use crate::binance::{AccountBalance, AccountTrade, ConvertTrade, Credentials};

/// The key of the simulator's own account.
pub const TEST_KEY: &str = "simulated-key";
/// Its secret.
pub const TEST_SECRET: &str = "simulated-secret";

/// How far ahead of the venue's clock a request may be.
const AHEAD: i64 = 1_000;
const LONGEST_WINDOW: i64 = 60_000;
/// Weight that the venue grants an account in a minute, and what a page of conversions costs.
const WEIGHT_LIMIT: i64 = 180_000;
const CONVERT_WEIGHT: i64 = 3_000;
const DAY: i64 = 86_400_000;

/// Where the account's trades come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Trades {
    /// One in each symbol every so often, from an instant on: bought and sold again by turns, at the
    /// market's price, with the commission in BNB or in the quote asset.
    Seeded {
        /// Chooses sizes, instants and commissions.
        seed: u64,
        /// When the account begins to trade.
        from: Time,
        /// Time between two trades in a symbol.
        every: Millis,
    },
    /// These and no others; each is visible from its time on.
    Listed(Vec<AccountTrade>),
}

/// The account that signed requests speak for.
#[derive(Debug, Clone)]
pub struct Account {
    /// Who may ask.
    pub credentials: Credentials,
    /// What it held before its first trade.
    pub opening: Vec<AccountBalance>,
    /// Its trades.
    pub trades: Trades,
    /// Its conversions, done or not, in any order.
    pub converts: Vec<ConvertTrade>,
}

impl Account {
    /// The account of a simulator that was told of none: 10,000 USDT, 10 BNB and 1 BTC, and a trade in
    /// each symbol every ten minutes from `from` on.
    #[must_use]
    pub fn standard(from: Time) -> Self {
        let held = |asset: &str, free: i64| AccountBalance {
            asset: asset.to_owned(),
            free: free.into(),
            locked: Decimal::ZERO,
        };
        Self {
            credentials: Credentials::new(TEST_KEY, TEST_SECRET)
                .expect("the simulator's own key is printable"),
            opening: vec![held("BNB", 10), held("BTC", 1), held("USDT", 10_000)],
            trades: Trades::Seeded { seed: 7, from, every: Millis::from_mins(10) },
            converts: Vec::new(),
        }
    }

    /// The trades of a symbol up to `now`, oldest first, from the one that `from` picks on.
    fn trades(
        &self,
        market: &Market,
        symbol: usize,
        now: i64,
        wanted: impl Fn(&AccountTrade) -> bool,
        limit: usize,
    ) -> Vec<AccountTrade> {
        match &self.trades {
            Trades::Listed(all) => {
                let name = &market.symbols()[symbol].name;
                let mine = |t: &&AccountTrade| t.symbol == *name && t.time.0 <= now && wanted(t);
                let mut rows: Vec<_> = all.iter().filter(mine).cloned().collect();
                rows.sort_unstable_by_key(|t| t.id);
                rows.truncate(limit);
                rows
            }
            Trades::Seeded { seed, from, every } => {
                let name = &market.symbols()[symbol].name;
                let phase = mix(*seed, hash_text(name)) % every.0.max(1).unsigned_abs();
                let first = from.0 + phase as i64;
                let count = if now < first { 0 } else { (now - first) / every.0.max(1) + 1 };
                (0..count)
                    .filter_map(|k| seeded(market, symbol, *seed, k, (first, every.0)))
                    .filter(wanted)
                    .take(limit)
                    .collect()
            }
        }
    }

    /// What it holds at `now`: the opening, with each trade and conversion done since.
    fn balances(&self, market: &Market, now: i64) -> Vec<AccountBalance> {
        let mut all = self.opening.clone();
        let mut add = |asset: &str, amount: Decimal| match all.iter_mut().find(|b| b.asset == asset)
        {
            Some(held) => held.free += amount,
            None => all.push(AccountBalance {
                asset: asset.to_owned(),
                free: amount,
                locked: Decimal::ZERO,
            }),
        };
        for (symbol, spec) in market.symbols().iter().enumerate() {
            for t in self.trades(market, symbol, now, |_| true, usize::MAX) {
                let sign = if t.is_buyer { Decimal::ONE } else { Decimal::NEGATIVE_ONE };
                add(&spec.base, sign * t.qty);
                add(&spec.quote, -sign * t.quote_qty);
                add(&t.commission_asset, -t.commission);
            }
        }
        let done = |c: &&ConvertTrade| c.order_status == "SUCCESS" && c.create_time.0 <= now;
        for c in self.converts.iter().filter(done) {
            add(&c.from_asset, -c.from_amount);
            add(&c.to_asset, c.to_amount);
        }
        // What was spent beyond the opening is not held; a venue shows no debt.
        for b in &mut all {
            b.free = b.free.max(Decimal::ZERO);
        }
        all.sort_unstable_by(|a, b| a.asset.cmp(&b.asset));
        all
    }
}

/// Trade number `k` of a symbol, of a row of them; none before the symbol was listed. A sale gives
/// back what the purchase before it brought.
fn seeded(
    market: &Market,
    symbol: usize,
    seed: u64,
    k: i64,
    (first, every): (i64, i64),
) -> Option<AccountTrade> {
    let spec = &market.symbols()[symbol];
    let time = first + k * every;
    let price = market.last_trade(symbol, Time(time))?.price;
    let bits = mix(mix(seed, hash_text(&spec.name)), (k / 2).unsigned_abs());
    // About 20 to 120 USDT at the purchase; the sale has its size.
    let bought = Time(time - k % 2 * every);
    let bought_at = market.last_trade(symbol, bought)?.price.max(1);
    let in_usdt = market.find(&format!("{}USDT", spec.quote));
    let quote_at =
        in_usdt.and_then(|s| market.last_trade(s, bought)).map_or(E8, |t| t.price.max(1));
    let worth =
        i128::from(20 + bits % 100) * i128::from(E8) * i128::from(E8) / i128::from(quote_at);
    let step = i128::from(spec.step.max(1));
    let size = (worth * i128::from(E8) / i128::from(bought_at) / step).max(1) * step;
    let (qty, price) = (decimal(size), decimal(price.into()));
    let quote_qty = (qty * price).round_dp(8);
    let bnb = market.find("BNBUSDT").filter(|_| spec.quote == "USDT" && bits & (1 << 40) == 0);
    let (commission, commission_asset) =
        match bnb.and_then(|bnb| market.last_trade(bnb, Time(time))) {
            Some(bnb) => {
                let rate = Decimal::new(75, 5);
                ((quote_qty * rate / decimal(bnb.price.into())).round_dp(8), "BNB".to_owned())
            }
            None => ((quote_qty * Decimal::new(1, 3)).round_dp(8), spec.quote.clone()),
        };
    Some(AccountTrade {
        symbol: spec.name.clone(),
        id: k + 1,
        order_id: 1_000_000 + k,
        price,
        qty,
        quote_qty,
        commission,
        commission_asset,
        time: Time(time),
        is_buyer: k % 2 == 0,
        is_maker: bits & 1 == 0,
        is_best_match: true,
    })
}

fn decimal(e8: i128) -> Decimal {
    Decimal::from_i128_with_scale(e8, 8)
}

/// What the account has used of its own budget in the present minute.
#[derive(Debug, Default)]
pub(super) struct Spent {
    minute: i64,
    weight: i64,
}

/// What a signed request carries beside its parameters.
pub(super) struct Signed<'a> {
    pub(super) query: &'a str,
    pub(super) key: Option<&'a str>,
}

impl View<'_> {
    /// Answers a signed endpoint.
    pub(super) fn account(&self) -> Result<Answer, Refusal> {
        let account = lock(&self.venue.account).clone();
        self.admit(&account.credentials)?;
        match self.endpoint {
            "account" => self.holdings(&account),
            "myTrades" => self.my_trades(&account),
            _ => self.conversions(&account),
        }
    }

    /// Key, signature, clock: in this order.
    fn admit(&self, credentials: &Credentials) -> Result<(), Refusal> {
        let key = self.signed.key.filter(|k| !k.is_empty());
        let Some(key) = key else {
            return Err(Refusal::bad(-2014, "API-key format invalid."));
        };
        if !credentials.is_key(key) {
            let message = "Invalid API-key, IP, or permissions for action.";
            return Err(Refusal { status: 401, ..Refusal::bad(-2015, message) });
        }
        let signature = self.params.required("signature")?;
        let text = self.signed.query.split("&signature=").next().unwrap_or_default();
        if signature != credentials.signature(text) {
            return Err(Refusal::bad(-1022, "Signature for this request is not valid."));
        }
        self.params.required("timestamp")?;
        let sent = self.params.instant("timestamp")?.unwrap_or_default();
        let window = self.params.id("recvWindow")?.unwrap_or(5_000);
        if window > LONGEST_WINDOW {
            return Err(Refusal::bad(-1131, "'recvWindow' must be less than 60000."));
        }
        let now = self.server_time();
        if sent >= now + AHEAD {
            let message = "Timestamp for this request was 1000ms ahead of the server's time.";
            return Err(Refusal::bad(-1021, message));
        }
        if now - sent > window {
            let message = "Timestamp for this request is outside of the recvWindow.";
            return Err(Refusal::bad(-1021, message));
        }
        Ok(())
    }

    fn only_signed(&self, own: &[&str]) -> Result<(), Refusal> {
        let mut known = vec!["recvWindow", "timestamp", "signature"];
        known.extend(own);
        self.params.only(&known)
    }

    fn holdings(&self, account: &Account) -> Result<Answer, Refusal> {
        self.only_signed(&["omitZeroBalances"])?;
        let mut balances = account.balances(&self.venue.floor.market, self.now());
        if self.params.raw("omitZeroBalances") == Some("true") {
            balances.retain(|b| !(b.free.is_zero() && b.locked.is_zero()));
        }
        let balances: Vec<_> = balances
            .iter()
            .map(|b| {
                let free = format!("{:.8}", b.free);
                serde_json::json!({ "asset": b.asset, "free": free, "locked": format!("{:.8}", b.locked) })
            })
            .collect();
        let rows = balances.len();
        let body = serde_json::json!({
            "makerCommission": 10, "takerCommission": 10, "canTrade": true, "accountType": "SPOT",
            "updateTime": self.now(), "balances": balances,
        });
        Ok(Answer::ok(body.to_string().into_bytes(), rows))
    }

    fn my_trades(&self, account: &Account) -> Result<Answer, Refusal> {
        self.only_signed(&["symbol", "orderId", "startTime", "endTime", "fromId", "limit"])?;
        let p: &Params = self.params;
        let symbol = self.lookup(p.symbol()?)?;
        let limit = p.limit(500, 1_000)?;
        let (start, end) = (p.instant("startTime")?, p.instant("endTime")?);
        let (order, from) = (p.id("orderId")?, p.id("fromId")?);
        let both = start.zip(end);
        if from.is_some() && (start.is_some() || end.is_some())
            || both.is_some_and(|(start, end)| end < start || end - start > DAY)
        {
            return Err(Refusal::bad(-1128, "Combination of optional parameters invalid."));
        }
        let wanted = |t: &AccountTrade| {
            from.is_none_or(|id| t.id >= id)
                && start.is_none_or(|at| t.time.0 >= at)
                && end.is_none_or(|at| t.time.0 <= at)
                && order.is_none_or(|id| t.order_id == id)
        };
        let market = &self.venue.floor.market;
        let bounded = from.is_some() || start.is_some() || order.is_some();
        let most = if bounded { limit } else { usize::MAX };
        let mut rows = account.trades(market, symbol, self.now(), wanted, most);
        rows.drain(..rows.len().saturating_sub(limit));
        let rows: Vec<_> = rows.iter().map(trade).collect();
        Ok(Answer::ok(serde_json::Value::from(rows.clone()).to_string().into_bytes(), rows.len()))
    }

    fn conversions(&self, account: &Account) -> Result<Answer, Refusal> {
        self.only_signed(&["startTime", "endTime", "limit"])?;
        self.params.required("startTime")?;
        self.params.required("endTime")?;
        let start = self.params.instant("startTime")?.unwrap_or_default();
        let end = self.params.instant("endTime")?.unwrap_or_default();
        let limit = self.params.limit(100, 1_000)?;
        if end < start || end - start > 30 * DAY {
            return Err(Refusal::bad(-1127, "More than 30 days between startTime and endTime."));
        }
        let now = self.now();
        {
            let mut spent = lock(&self.venue.spent);
            let minute = now.div_euclid(60_000);
            if spent.minute != minute {
                *spent = Spent { minute, weight: 0 };
            }
            spent.weight += CONVERT_WEIGHT;
            if spent.weight > WEIGHT_LIMIT {
                let message = format!(
                    "Too much request weight used; current limit is {WEIGHT_LIMIT} request weight \
                     per 1 MINUTE by UID."
                );
                return Err(Refusal { status: 429, ..Refusal::bad(-1003, message) });
            }
        }
        let seen = |c: &&ConvertTrade| (start..=end.min(now)).contains(&c.create_time.0);
        let mut rows: Vec<_> = account.converts.iter().filter(seen).collect();
        rows.sort_unstable_by_key(|c| (c.create_time, c.order_id));
        let more = rows.len() > limit;
        rows.truncate(limit);
        let list: Vec<_> = rows.iter().map(|c| conversion(c)).collect();
        let count = list.len();
        let body = serde_json::json!({
            "list": list, "startTime": start, "endTime": end, "limit": limit, "moreData": more,
        });
        Ok(Answer::ok(body.to_string().into_bytes(), count))
    }
}

/// As the venue prints it: eight decimals, times as numbers.
fn trade(t: &AccountTrade) -> serde_json::Value {
    let e8 = |d: Decimal| format!("{d:.8}");
    serde_json::json!({
        "symbol": t.symbol, "id": t.id, "orderId": t.order_id, "orderListId": -1,
        "price": e8(t.price), "qty": e8(t.qty), "quoteQty": e8(t.quote_qty),
        "commission": e8(t.commission), "commissionAsset": t.commission_asset, "time": t.time.0,
        "isBuyer": t.is_buyer, "isMaker": t.is_maker, "isBestMatch": t.is_best_match,
    })
}

fn conversion(c: &ConvertTrade) -> serde_json::Value {
    let ratio = c.to_amount.checked_div(c.from_amount).unwrap_or_default().round_dp(8);
    let inverse = c.from_amount.checked_div(c.to_amount).unwrap_or_default().round_dp(8);
    serde_json::json!({
        "quoteId": format!("q{}", c.order_id), "orderId": c.order_id,
        "orderStatus": c.order_status, "fromAsset": c.from_asset,
        "fromAmount": c.from_amount.to_string(), "toAsset": c.to_asset,
        "toAmount": c.to_amount.to_string(), "ratio": ratio.to_string(),
        "inverseRatio": inverse.to_string(), "createTime": c.create_time.0,
    })
}
