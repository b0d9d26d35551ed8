//! Signed requests against the simulator, which checks key, signature and clock.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rust_decimal::Decimal;
use watchbell_clock::Clock;
use watchbell_core::{Millis, Time};
use watchbell_venues::binance::{
    self, AccountTrade, BinanceClient, CallRecord, Class, ConvertTrade, Credentials, TradesSince,
    VenueError,
};
use watchbell_venues::sim::{
    Account, Limits, Market, SimConfig, Simulator, TEST_KEY, TEST_SECRET, Trades,
};

/// 2026-11-20T12:00:30Z.
const NOW: Time = Time(1_795_176_030_000);
const LONGEST_WAIT: Millis = Millis::from_days(100);

struct Site {
    sim: Simulator,
    clock: Clock,
    client: BinanceClient,
    log: Arc<Mutex<Vec<CallRecord>>>,
}

impl Site {
    async fn start(key: &str, secret: &str) -> Self {
        let clock = Clock::manual(NOW);
        let config = SimConfig {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            market: Arc::new(Market::synthetic(7, &["BTCUSDT", "BNBUSDT"])),
            clock: clock.clone(),
            faults: "".parse().unwrap(),
            limits: Limits::default(),
        };
        let sim = Simulator::start(config).await.unwrap();
        let config = binance::Config {
            request_timeout: LONGEST_WAIT * 9,
            ..binance::Config::at(sim.base_url(), sim.ws_url())
        };
        let log: Arc<Mutex<Vec<CallRecord>>> = Arc::default();
        let sink = Arc::clone(&log);
        let observer: binance::Observer = Arc::new(move |r| sink.lock().unwrap().push(r.clone()));
        let client = BinanceClient::new(config, clock.clone(), Some(observer)).unwrap();
        let client = client.with_credentials(Credentials::new(key, secret).unwrap());
        Self { sim, clock, client, log }
    }

    async fn good() -> Self {
        Self::start(TEST_KEY, TEST_SECRET).await
    }

    fn faults(&self, script: &str) {
        self.sim.set_faults(script.parse().unwrap());
    }

    fn asked(&self) -> Vec<String> {
        self.sim.journal().after(0).into_iter().map(|e| e.target).collect()
    }

    async fn drive<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                at = self.clock.next_timer(self.clock.now()) => {
                    if at - self.clock.now() < LONGEST_WAIT {
                        self.clock.advance(at);
                    } else {
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn trades_and_balances_of_the_standard_account_agree() {
    let s = Site::good().await;
    s.clock.advance(NOW + Millis::from_mins(95));
    let mut held: Vec<(String, Decimal)> =
        vec![("BNB".into(), 10.into()), ("BTC".into(), 1.into()), ("USDT".into(), 10_000.into())];
    let mut add = |asset: &str, amount: Decimal| match held.iter_mut().find(|h| h.0 == asset) {
        Some(h) => h.1 += amount,
        None => held.push((asset.to_owned(), amount)),
    };
    for (symbol, base) in [("BTCUSDT", "BTC"), ("BNBUSDT", "BNB")] {
        let all = s.client.account_trades(symbol, TradesSince::Time(NOW), 1_000).await.unwrap();
        assert!(all.len() >= 9, "{symbol}: {}", all.len());
        let again = s.client.account_trades(symbol, TradesSince::Id(3), 4).await.unwrap();
        assert_eq!(again, all[2..6], "{symbol}: by number");
        for t in all {
            let sign = if t.is_buyer { Decimal::ONE } else { Decimal::NEGATIVE_ONE };
            add(base, sign * t.qty);
            add("USDT", -sign * t.quote_qty);
            add(&t.commission_asset, -t.commission);
            assert!(["BNB", "USDT"].contains(&t.commission_asset.as_str()));
            assert_eq!(t.quote_qty, (t.qty * t.price).round_dp(8), "{t:?}");
        }
    }
    let mut said: Vec<_> = s.client.account_balances().await.unwrap();
    said.retain(|b| !b.free.is_zero());
    held.retain(|h| !h.1.is_zero());
    held.sort();
    let said: Vec<_> = said.into_iter().map(|b| (b.asset, b.free)).collect();
    assert_eq!(said, held);
}

#[tokio::test]
async fn a_wrong_clock_is_measured_and_the_request_sent_once_more() {
    let s = Site::good().await;
    s.client.account_balances().await.unwrap();
    s.faults("account:skew:ms=9000,n=1");
    s.client.account_balances().await.unwrap();
    let tail: Vec<_> = s.asked().into_iter().rev().take(3).collect();
    assert!(tail[0].starts_with("/api/v3/account") && tail[2].starts_with("/api/v3/account"));
    assert_eq!(tail[1], "/api/v3/time");
    // A clock that stays wrong is an error that says so, and no third try.
    for (skew, words) in [(9_000, "outside of the recvWindow"), (-9_000, "1000ms ahead")] {
        s.faults(&format!("account:skew:ms={skew}"));
        let before = s.asked().len();
        let e = s.client.account_balances().await.unwrap_err();
        assert!(matches!(e, VenueError::Unauthorized { code: -1021, .. }), "{e}");
        assert!(e.to_string().contains(words) && e.to_string().contains("check this machine's"));
        assert_eq!(s.asked().len() - before, 3);
    }
}

#[tokio::test]
async fn who_is_not_accepted_learns_why_and_nothing_is_retried() {
    for (key, secret, code, todo) in [
        (TEST_KEY, "wrong", -1022, "the API secret does not belong to the API key"),
        ("someone", TEST_SECRET, -2015, "check its rights and its list of addresses"),
    ] {
        let s = Site::start(key, secret).await;
        let e = s.client.account_balances().await.unwrap_err();
        let VenueError::Unauthorized { code: found, .. } = &e else { panic!("{e}") };
        assert_eq!((*found, e.class()), (code, Class::Permanent));
        let text = e.to_string();
        assert!(text.contains(todo), "{text}");
        for secret in [secret, "signature", "timestamp"] {
            assert!(!text.contains(secret), "{text}");
        }
        assert_eq!(s.asked().len(), 2, "the time, and one try");
    }
    let s = Site::good().await;
    let unsigned = BinanceClient::new(
        binance::Config::at(s.sim.base_url(), s.sim.ws_url()),
        s.clock.clone(),
        None,
    );
    let unsigned = unsigned.unwrap();
    assert!(!unsigned.is_signed());
    let e = unsigned.account_balances().await.unwrap_err();
    assert_eq!(e.to_string(), "binance account: not sent: it needs the credentials of an account");
    assert!(!format!("{:?} {:?}", s.client, s.log.lock().unwrap()).contains(TEST_SECRET));
}

#[tokio::test]
async fn faults_are_retried_with_a_new_signature_and_never_show_the_query() {
    let s = Site::good().await;
    s.faults("account:reset:n=1");
    s.drive(s.client.account_balances()).await.unwrap();
    s.faults("account:503");
    let e = s.drive(s.client.account_balances()).await.unwrap_err();
    assert_eq!(e.class(), Class::Transient);
    s.faults("account:reset;account:reset-body");
    let e = s.drive(s.client.account_balances()).await.unwrap_err();
    assert!(matches!(e, VenueError::Transport { .. }), "{e}");
    s.faults("account:429:retry=9");
    let e = s.drive(s.client.account_balances()).await.unwrap_err();
    assert!(matches!(e, VenueError::RateLimited { .. }), "{e}");
    let log = s.log.lock().unwrap();
    let records: Vec<_> = log.iter().filter(|r| r.call.endpoint == "account").collect();
    assert!(records.len() >= 9 && records.iter().all(|r| r.weight == 20));
    for r in records {
        let text = format!("{r:?}");
        assert!(!text.contains("signature") && !text.contains("recvWindow"), "{text}");
    }
}

#[tokio::test]
async fn conversions_come_in_halves_where_one_answer_is_too_short() {
    let s = Site::good().await;
    let convert = |id: i64, at: Time| ConvertTrade {
        order_id: id,
        order_status: if id % 10 == 0 { "FAIL".into() } else { "SUCCESS".into() },
        from_asset: "USDT".into(),
        from_amount: 5.into(),
        to_asset: "BNB".into(),
        to_amount: Decimal::new(8, 3),
        create_time: at,
    };
    let start = NOW - Millis::from_days(20);
    let all: Vec<_> = (1..=2_500).map(|id| convert(id, start + Millis(id * 60_000))).collect();
    s.sim.set_account(Account { converts: all, ..Account::standard(NOW) });
    let found = s.client.convert_trades(start, NOW).await.unwrap();
    assert_eq!(found.len(), 2_250, "those that are done");
    assert!(found.is_sorted_by_key(|c| c.create_time));
    assert_eq!((found[0].order_id, found[2_249].order_id), (1, 2_499));
    let far = s.client.convert_trades(NOW - Millis::from_days(31), NOW).await.unwrap_err();
    assert!(far.to_string().contains("is not a stretch of at most 30 days"), "{far}");
    // 3000 a request of 180,000 a minute, of which we use four fifths: 48, then the next minute.
    let s = Site::good().await;
    for _ in 0..48 {
        s.client.convert_trades(start, NOW).await.unwrap();
    }
    let before = s.clock.now();
    s.drive(s.client.convert_trades(start, NOW)).await.unwrap();
    assert_eq!(s.clock.now() - before, Millis::from_secs(30));
}

#[tokio::test]
async fn a_page_with_anything_wrong_in_it_is_refused_whole() {
    let s = Site::good().await;
    let good = AccountTrade {
        symbol: "BTCUSDT".into(),
        id: 5,
        order_id: 1,
        price: 2.into(),
        qty: 3.into(),
        quote_qty: 6.into(),
        commission: Decimal::ZERO,
        commission_asset: "BNB".into(),
        time: NOW - Millis(5),
        is_buyer: true,
        is_maker: true,
        is_best_match: true,
    };
    let zero = AccountTrade { id: 6, qty: Decimal::ZERO, ..good.clone() };
    let negative = AccountTrade { id: 6, commission: Decimal::NEGATIVE_ONE, ..good.clone() };
    for (bad, says) in [(zero, "row 1: 0"), (negative, "row 1: commission -1")] {
        let trades = Trades::Listed(vec![good.clone(), bad]);
        s.sim.set_account(Account { trades, ..Account::standard(NOW) });
        let e = s.drive(s.client.account_trades("BTCUSDT", TradesSince::Id(1), 10)).await;
        let e = e.unwrap_err();
        assert!(matches!(e, VenueError::Payload { .. }) && e.to_string().contains(says), "{e}");
    }
    for (symbol, limit) in [("btc/usdt", 10), ("BTCUSDT", 0), ("BTCUSDT", 1_001)] {
        let e = s.client.account_trades(symbol, TradesSince::Id(1), limit).await.unwrap_err();
        assert!(matches!(e, VenueError::Invalid { .. }), "{e}");
    }
}
