//! The ledger, from the account's trades at the simulated venue to a closed session: on both engines,
//! through faults, and always each trade once.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rust_decimal::Decimal;
use serde_json::{Value as Json, json};
use watchbell_clock::Clock;
use watchbell_core::port::StoreError;
use watchbell_core::{
    BoxFuture, Cause, Commit, Cycle, CycleId, CycleInput, Done, Fault, Host, Millis, Statement,
    Time, Token, Trigger, Value, Worker, values,
};
use watchbell_db::{Database, DbError, Engine};
use watchbell_market::account::{CsvError, TRADE_FEED, import_csv, wallet};
use watchbell_market::cin::{
    self, Band, CIN_DESK, CIN_IMPORT_MOVES, LEDGER_IMPORT, SESSION_CLOSE, SESSION_MARK,
    SESSION_MOVE, SESSION_OPEN, SESSION_RETRY, SessionFilter, WALLET_REFRESH,
};
use watchbell_market::{CallLog, Config, LINE, MARKET_SYNC};
use watchbell_testkit::{NOW, TempDb};
use watchbell_venues::binance::{self, AccountTrade, BinanceClient, ConvertTrade, Credentials};
use watchbell_venues::sim::{
    Account, FaultScript, Limits, Market, SimConfig, Simulator, TEST_KEY, TEST_SECRET, Trades,
};

use crate::mortal::{Dice, Mortal};
use crate::world::engines;

const MINUTE: Millis = Millis::from_mins(1);
/// When files are read: their trades have come by then.
const IMPORTED: Time = Time(NOW.0 + 60 * 60_000);
const HOUR: Millis = Millis::from_hours(1);
/// No timer that a test lets pass is armed for longer; the limits of requests are.
const LONGEST_WAIT: Millis = Millis::from_days(100);

/// The engine as a worker sees it: statements go to the database at once.
struct TestHost {
    db: Database,
    clock: Clock,
    committing: Arc<AtomicBool>,
}

impl Host for TestHost {
    fn now(&self) -> Time {
        self.clock.now()
    }
    fn cancelled(&self) -> bool {
        false
    }
    fn until_cancelled(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
    fn progress(&self, _: f64, _: &str) {}
    fn step(&self, commit: Commit) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.committing.store(true, Ordering::Relaxed);
            let applied = self.db.apply(commit.statements).await;
            self.committing.store(false, Ordering::Relaxed);
            applied.map_err(|e| StoreError::Database(Box::new(e)))?;
            Ok(())
        })
    }
    fn stage(&self) -> Result<PathBuf, std::io::Error> {
        Err(std::io::Error::other("the ledger publishes no files"))
    }
}

/// A database, a simulated venue, and the workers of the market.
struct Site {
    clock: Clock,
    sim: Simulator,
    db: Database,
    workers: BTreeMap<String, Arc<dyn Worker>>,
    committing: Arc<AtomicBool>,
    _files: TempDb,
}

const SYMBOLS: [&str; 4] = ["BTCUSDT", "ETHUSDT", "BNBUSDT", "ETHBTC"];

impl Site {
    async fn on(engine: Engine) -> Self {
        Self::with(engine, Credentials::new(TEST_KEY, TEST_SECRET).ok()).await
    }

    async fn with(engine: Engine, credentials: Option<Credentials>) -> Self {
        let clock = Clock::manual(NOW + Millis::from_secs(2));
        let config = SimConfig {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            market: Arc::new(Market::synthetic(7, &SYMBOLS)),
            clock: clock.clone(),
            faults: FaultScript::default(),
            limits: Limits::default(),
        };
        let sim = Simulator::start(config).await.unwrap();
        let settings = binance::Config {
            request_timeout: LONGEST_WAIT * 9,
            ..binance::Config::at(sim.base_url(), sim.ws_url())
        };
        let mut client = BinanceClient::new(settings, clock.clone(), None).unwrap();
        if let Some(credentials) = credentials {
            client = client.with_credentials(credentials);
        }
        let files = match engine {
            Engine::Sqlite => TempDb::sqlite(&[watchbell_store::LINE, LINE]).await,
            Engine::Postgres => TempDb::postgres(&[watchbell_store::LINE, LINE]).await,
        };
        let db = files.db.clone();
        let config = Config { sampling: false, ..Config::default() };
        let symbols = SYMBOLS.map(str::to_owned);
        watchbell_market::seed(&db, &symbols, &config.windows, NOW - HOUR * 6, NOW).await.unwrap();
        let all = watchbell_market::workers(&config, &db, &client, CallLog::default());
        let workers = all.into_iter().map(|w| (w.define().name.to_string(), w)).collect();
        Self { clock, sim, db, workers, committing: Arc::default(), _files: files }
    }

    async fn run(&self, name: &str, input: CycleInput) -> Result<Done, Fault> {
        let worker = &self.workers[name];
        let host: Arc<dyn Host> = Arc::new(TestHost {
            db: self.db.clone(),
            clock: self.clock.clone(),
            committing: Arc::clone(&self.committing),
        });
        let cycle = Cycle {
            id: CycleId(1),
            worker: worker.define().name,
            cause: Cause::Manual,
            token: Token(1),
            attempt: 1,
            started_at: self.clock.now(),
            input,
            host: Arc::clone(&host),
        };
        let done = drive(&self.clock, worker.run(&cycle)).await?;
        host.step(done.commit.clone()).await?;
        Ok(done)
    }

    async fn tick(&self, name: &str) -> Result<Done, Fault> {
        self.run(name, CycleInput::None).await
    }

    /// One cycle in a process that is killed after so many steps. Whether it came to its end.
    async fn tick_until_killed(&self, name: &str, steps: u64) -> bool {
        Mortal::new(self.tick(name), steps, &self.committing).await.is_some()
    }

    /// A job of the desk: its result, or why it failed.
    async fn job(&self, kind: &str, payload: Json) -> Result<Json, String> {
        let input = CycleInput::Job { kind: kind.to_owned(), payload };
        self.run(CIN_DESK, input).await.map(|done| done.summary).map_err(|e| e.to_string())
    }

    async fn import(&self) -> Json {
        self.tick(CIN_IMPORT_MOVES).await.unwrap().summary
    }

    fn pass(&self, span: Millis) {
        self.clock.advance(self.clock.now() + span);
    }

    fn faults(&self, script: &str) {
        self.sim.set_faults(script.parse().unwrap());
    }

    /// Reads everything that the account has: four symbols, two a cycle.
    async fn feed_all(&self) -> u64 {
        let mut trades = 0;
        for _ in 0..2 {
            let done = self.tick(TRADE_FEED).await.unwrap();
            trades += done.summary["trades"].as_u64().unwrap();
            self.pass(Millis::from_secs(5));
        }
        trades
    }

    async fn rows(&self, sql: &'static str) -> Vec<Vec<Value>> {
        let rows = self.db.query(sql, vec![]).await.unwrap();
        rows.iter().map(|r| r.values().to_vec()).collect()
    }

    async fn count(&self, sql: &'static str) -> i64 {
        self.db.query_one(sql, vec![]).await.unwrap().i64(0).unwrap()
    }

    async fn ledger(&self) -> Vec<Vec<Vec<Value>>> {
        let mut all = Vec::new();
        for sql in [
            "select * from cin_aux.rt_move order by session_id, move_id",
            "select * from cin_aux.rt_lot order by session_id, lot_id",
            "select * from cin_aux.rt_move_lotlink order by session_id, move_id, use, lot_id",
            "select session_id, asset, opening_principal, opening_profit, opening_units,
                    principal_usdt, profit_usdt, units
             from cin_aux.rt_balance order by session_id, asset",
        ] {
            all.push(self.rows(sql).await);
        }
        all
    }
}

/// Runs `work` and lets each timer pass as soon as it is armed, but not the limits of requests.
async fn drive<T>(clock: &Clock, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            at = clock.next_timer(clock.now()) => {
                if at - clock.now() < LONGEST_WAIT {
                    clock.advance(at);
                } else {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

fn d(text: &str) -> Decimal {
    text.parse().unwrap()
}

/// Everything in stablecoins and round numbers: no candle is needed.
const OPEN: &str = r#"{"owner":"ann","balances":[{"asset":"USDT","units":"1000"}]}"#;

fn open() -> Json {
    serde_json::from_str(OPEN).unwrap()
}

/// A file of trades: (id, minutes from the start, side, price, amount).
fn file(rows: &[(i64, i64, &str, &str, &str)]) -> String {
    let mut text = "symbol,trade_id,time,side,price,qty,commission,commission_asset\n".to_owned();
    for (id, minutes, side, price, qty) in rows {
        let at = NOW + MINUTE * *minutes;
        text.push_str(&format!("BTCUSDT,{id},{},{side},{price},{qty},0.5,USDT\n", at.0));
    }
    text
}

#[tokio::test]
async fn from_the_feed_to_a_closed_session_with_each_trade_once() {
    for engine in engines() {
        let s = Site::on(engine).await;
        s.tick(MARKET_SYNC).await.unwrap();
        s.tick(TRADE_FEED).await.unwrap();
        let held = wallet(&s.db).await.unwrap();
        let held: Vec<_> = held.iter().map(|h| (h.asset.as_str(), h.total)).collect();
        assert_eq!(held, [("BNB", d("10")), ("BTC", d("1")), ("USDT", d("10000"))]);
        // The answer itself is kept, and what all of it is worth is a view.
        let said =
            s.rows("select account_scope, ts, payload from ingest.account_balance_raw").await;
        assert_eq!(said[0][..2], values!["__env__", s.clock.now()]);
        assert!(said[0][2].to_string().contains("BNB"), "{said:?}");
        let worth =
            s.rows("select asset, total, worth_usdt > total from market.v_wallet order by asset");
        let more = |asset: &str, total: f64, more: i64| values![asset, total, more];
        let want = [more("BNB", 10.0, 1), more("BTC", 1.0, 1), more("USDT", 10_000.0, 0)];
        assert_eq!(worth.await, want);
        let opened = s.job(SESSION_OPEN, json!({ "owner": "ann", "from_wallet": true })).await;
        assert_eq!(opened.unwrap()["session_id"], 1);

        // Faults all along: none loses or doubles a trade.
        let mut trades = 0;
        for (i, faults) in
            ["", "myTrades:503:n=1", "myTrades:429:n=1,retry=30", "myTrades:skew:ms=9000,n=1", ""]
                .into_iter()
                .enumerate()
        {
            s.pass(Millis::from_mins(12));
            s.faults(faults);
            for _ in 0..40 {
                if let Ok(done) = s.tick(TRADE_FEED).await {
                    trades += done.summary["trades"].as_i64().unwrap();
                }
                s.pass(Millis::from_secs(5));
            }
            s.faults("");
            s.tick(MARKET_SYNC).await.unwrap();
            let first = s.import().await;
            assert!(first["imported"].as_i64().unwrap() > 0, "{i}: {first}");
            let again = s.import().await;
            assert_eq!(again["imported"], 0, "{i}");
            assert_eq!(again["sessions"][0]["waiting"], 0, "{again}");
            assert_eq!(again["sessions"][0]["unbooked"], 0, "{again}");
        }
        assert!(trades >= 24, "{trades}");
        assert_eq!(s.count("select count(*) from cin_aux.rt_move").await, trades);
        assert_eq!(s.count("select count(*) from market.account_trades").await, trades);
        assert_eq!(s.rows("select * from cin_aux.rt_move_error").await.len(), 0);

        // The ledger's units are what the account holds.
        s.pass(MINUTE);
        s.tick(TRADE_FEED).await.unwrap();
        s.feed_all().await;
        s.tick(MARKET_SYNC).await.unwrap();
        s.import().await;
        let detail = cin::session(&s.db, 1).await.unwrap().unwrap();
        for held in wallet(&s.db).await.unwrap() {
            let booked = detail.balances.iter().find(|b| b.asset == held.asset);
            let units = booked.map_or(Decimal::ZERO, |b| b.units);
            assert_eq!(units, held.total.normalize(), "{}", held.asset);
        }
        assert_eq!(detail.pnl.overdrawn, 0);
        assert!(detail.pnl.fee > Decimal::ZERO);
        // Equity at cost is the opening and the realised result.
        let book: Decimal = detail.balances.iter().map(|b| b.principal + b.profit).sum();
        let opening: Decimal =
            detail.balances.iter().map(|b| b.opening_principal + b.opening_profit).sum();
        assert_eq!(book.normalize(), (opening + detail.pnl.realized).normalize());
        let mtm: Decimal = detail.balances.iter().map(|b| b.worth).sum();
        assert_eq!(detail.reconciliation.mtm, mtm.normalize());
        assert!(detail.reconciliation.band.is_some_and(|band| band != Band::Broken));

        let closed = s.job(SESSION_CLOSE, json!({ "session_id": 1 })).await.unwrap();
        assert_eq!((&closed["status"], &closed["unbooked"]), (&"CLOSED".into(), &0.into()));
        let detail = cin::session(&s.db, 1).await.unwrap().unwrap();
        let rollup = detail.rollup.unwrap();
        assert_eq!(rollup.realized_pnl, detail.pnl.realized);
        let at_close: Decimal = detail
            .balances
            .iter()
            .map(|b| b.closing_principal.unwrap() + b.closing_profit.unwrap())
            .sum();
        assert_eq!(at_close.normalize(), detail.reconciliation.mtm.normalize());
        assert_eq!(
            (rollup.luggage_principal + rollup.luggage_profit).normalize(),
            at_close.normalize()
        );
        let refused = s.job(SESSION_CLOSE, json!({ "session_id": 1 })).await.unwrap_err();
        assert_eq!(refused, "session 1 is CLOSED: a closed session stays as it is");
    }
}

#[tokio::test]
async fn a_file_is_imported_whole_or_not_at_all_and_once() {
    for engine in engines() {
        let s = Site::with(engine, None).await;
        let good = file(&[(1, 0, "BUY", "100", "2"), (2, 1, "SELL", "120", "1")]);
        let bad = good.replace("SELL", "HOLD");
        let refused = import_csv(&s.db, bad.as_bytes(), None, IMPORTED).await.unwrap_err();
        assert!(matches!(&refused, CsvError::Rows(rows) if rows[0].line == 3), "{refused}");
        assert_eq!(s.count("select count(*) from market.account_trades").await, 0);
        for added in [2, 0] {
            let done = import_csv(&s.db, good.as_bytes(), Some("Ann@x"), IMPORTED).await.unwrap();
            assert_eq!((done.rows, done.added), (2, added));
        }
        let job = |csv: &str| s.job(LEDGER_IMPORT, json!({ "file": "t.csv", "csv": csv }));
        let more = good.replace(",2,17", ",3,17");
        assert_eq!(job(&more).await.unwrap(), json!({ "file": "t.csv", "rows": 2, "added": 1 }));
        assert_eq!(job(&more).await.unwrap()["added"], 0);
        let refused = job(&bad).await.unwrap_err();
        assert!(refused.starts_with("t.csv: nothing was imported, for 1 of the rows"), "{refused}");
        let other = more.replace(",100,2", ",100.5,2").replace(",2,17", ",4,17");
        assert_eq!(
            job(&other).await.unwrap_err(),
            "t.csv: nothing was imported, for 1 of the rows differ from what is known: line 2: trade 1 \
             of BTCUSDT has price 100.5, but 100 is known"
        );
        assert_eq!(s.count("select count(*) from market.account_trades").await, 3);
        s.db.apply(vec![Statement::new(
            "delete from market.account_trades where trade_id = 3",
            vec![],
        )])
        .await
        .unwrap();
        let empty = good.lines().next().unwrap();
        assert_eq!(import_csv(&s.db, empty.as_bytes(), None, IMPORTED).await.unwrap().rows, 0);

        // Only an account's own trades are booked, whatever the case of its name.
        s.pass(HOUR);
        for (owner, account, moves) in [("ann", "aNN@X", 2), ("bob", "bob@x", 0)] {
            let mut wanted = open();
            wanted["owner"] = owner.into();
            wanted["account"] = account.into();
            wanted["started_at"] = json!(NOW);
            let id = s.job(SESSION_OPEN, wanted).await.unwrap()["session_id"].clone();
            s.import().await;
            let moved = cin::session(&s.db, id.as_i64().unwrap()).await.unwrap().unwrap();
            assert_eq!(moved.session.moves, moves, "{owner}");
        }
    }
}

/// Section 11.5 (h), and every number of a small ledger.
#[tokio::test]
async fn a_ledger_is_booked_first_in_first_out_and_a_second_import_adds_nothing() {
    for engine in engines() {
        let s = Site::with(engine, None).await;
        s.job(SESSION_OPEN, open()).await.unwrap();
        s.pass(HOUR);
        let trades = file(&[
            (1, 5, "BUY", "2", "10"),
            (2, 6, "BUY", "3", "10"),
            (3, 7, "SELL", "4", "15"),
            // Before the session began.
            (9, -5, "BUY", "3", "10"),
        ]);
        import_csv(&s.db, trades.as_bytes(), None, IMPORTED).await.unwrap();
        assert_eq!(s.import().await["imported"], 3);
        let before = s.ledger().await;
        assert_eq!(s.import().await["imported"], 0);
        assert_eq!(s.ledger().await, before);

        let moves = cin::moves(&s.db, 1, None, 10).await.unwrap();
        let sale = &moves[0];
        assert_eq!((sale.move_id, sale.from.as_str(), sale.to.as_str()), (3, "BTC", "USDT"));
        assert_eq!((sale.executed, sale.trace, sale.fee), (d("60"), d("25"), d("0.5")));
        assert_eq!((sale.realized, sale.source.as_ref().unwrap().1), (d("24.5"), 3));
        // imprint 10 - 25, luggage 0.5 + 25 + 0.
        assert_eq!((sale.imprint, sale.luggage, sale.tau), (d("-15"), d("25.5"), d("-40.5")));
        assert_eq!(moves[2].notes, "binance:BTCUSDT#1");
        let lots = cin::lots(&s.db, 1, true).await.unwrap();
        assert_eq!(lots.len(), 1);
        assert_eq!(
            (lots[0].units_free, lots[0].p_in, lots[0].cost_free),
            (d("5"), d("3"), d("15"))
        );
        let detail = cin::session(&s.db, 1).await.unwrap().unwrap();
        let units: Vec<_> = detail.balances.iter().map(|b| (b.asset.as_str(), b.units)).collect();
        // 1000 - 20 - 30 + 60 - three fees.
        assert_eq!(units, [("BTC", d("5")), ("USDT", d("1008.5"))]);
        assert_eq!(detail.pnl.realized, d("23.5"));
        assert_eq!(s.count("select count(*) from cin_aux.v_open_lots").await, 1);
        assert_eq!(s.count("select moves from cin_aux.v_sessions").await, 3);
        assert_eq!(
            s.rows("select to_asset, moves, realized_pnl from cin_aux.v_pnl order by to_asset")
                .await,
            [values!["BTC", 2, -1.0], values!["USDT", 1, 24.5]]
        );
        let lines = "select owner_user_id, cycle_seq, status, summary from audit.user_cycle_log";
        assert_eq!(s.rows(lines).await, [values!["ann", 1, "ok", "session 1: imported 3"]]);
    }
}

/// Section 11.5 (b) for the ledger: killed at any instant, between the feed and the import and within
/// both, each trade of the account is moved once.
#[tokio::test]
async fn kills_at_any_instant_move_each_trade_once() {
    for (engine, mut dice) in engines().zip([Dice(17), Dice(4_711)]) {
        let s = Site::on(engine).await;
        s.job(SESSION_OPEN, open()).await.unwrap();
        s.tick(MARKET_SYNC).await.unwrap();
        let (mut killed, mut ended) = (0, 0);
        for _ in 0..60 {
            s.pass(MINUTE);
            let name = [TRADE_FEED, CIN_IMPORT_MOVES, MARKET_SYNC][dice.below(3) as usize];
            match s.tick_until_killed(name, dice.below(40)).await {
                true => ended += 1,
                false => killed += 1,
            }
            let moves = s.count("select count(*) from cin_aux.rt_move").await;
            let trades = "select count(*) from (select distinct session_id, src_symbol,
                src_trade_id from cin_aux.rt_move) t";
            assert_eq!(s.count(trades).await, moves, "a trade was moved twice");
        }
        assert!(killed > 10 && ended > 10, "{killed} killed, {ended} ended");
        for _ in 0..3 {
            s.feed_all().await;
            s.tick(MARKET_SYNC).await.unwrap();
            s.import().await;
        }
        // Whatever the account has traded since the session began is a move, or says why not.
        let missing = "select count(*) from market.account_trades t, cin_aux.rt_session r
            where t.trade_time >= r.started_at
            and not exists (select 1 from cin_aux.rt_move m where m.session_id = r.session_id
                and m.src_symbol = t.symbol and m.src_trade_id = t.trade_id)
            and not exists (select 1 from cin_aux.rt_move_error e where e.session_id = r.session_id
                and e.src_symbol = t.symbol and e.src_trade_id = t.trade_id)";
        assert_eq!(s.count(missing).await, 0);
        let moves = s.count("select count(*) from cin_aux.rt_move").await;
        assert!(moves > 20, "only {moves} moves");
        let before = s.ledger().await;
        assert_eq!(s.import().await["imported"], 0);
        assert_eq!(s.ledger().await, before);
    }
}

/// Whatever order trades arrive in, one by one or several at once: the same moves, lots, links and
/// balances, to the last digit.
#[tokio::test]
async fn the_order_of_arrival_does_not_matter() {
    // Two at one instant, sales of more than there is, amounts whose quotients do not end.
    let rows = [
        (1, 5, "BUY", "2", "10"),
        (2, 6, "BUY", "3", "10"),
        (3, 7, "SELL", "4", "15"),
        (4, 7, "BUY", "5", "7"),
        (5, 9, "SELL", "1", "11"),
        (6, 11, "SELL", "7", "3"),
        (7, 12, "BUY", "3", "0.333333333"),
        (8, 13, "BUY", "11", "1.7"),
        (9, 14, "SELL", "13", "0.9"),
        (10, 15, "BUY", "0.07", "123.456"),
        (11, 16, "SELL", "0.09", "77.7"),
    ];
    let arrivals: [&[&[usize]]; 5] = [
        &[&[0], &[1], &[2], &[3], &[4], &[5], &[6], &[7], &[8], &[9], &[10]],
        &[&[10], &[9], &[8], &[7], &[6], &[5], &[4], &[3], &[2], &[1], &[0]],
        &[&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]],
        &[&[6, 2, 9], &[0, 10], &[4], &[8, 1, 7], &[5, 3]],
        &[&[3, 8, 5, 1], &[7, 0, 6, 10, 2], &[9, 4]],
    ];
    for engine in engines() {
        let mut seen: Vec<Vec<Vec<Vec<Value>>>> = Vec::new();
        for arrival in arrivals {
            let s = Site::with(engine, None).await;
            s.job(SESSION_OPEN, open()).await.unwrap();
            s.pass(HOUR);
            for batch in arrival {
                let some: Vec<_> = batch.iter().map(|i| rows[*i]).collect();
                import_csv(&s.db, file(&some).as_bytes(), None, IMPORTED).await.unwrap();
                assert_eq!(s.import().await["imported"], some.len());
            }
            assert_eq!(s.import().await["imported"], 0);
            seen.push(s.ledger().await);
        }
        assert_eq!(seen[0][0].len(), rows.len());
        for (other, arrival) in seen.iter().zip(arrivals).skip(1) {
            assert_eq!(*other, seen[0], "{arrival:?}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_valued_is_a_row_of_its_own_and_is_tried_again() {
    for engine in engines() {
        let s = Site::with(engine, None).await;
        s.tick(MARKET_SYNC).await.unwrap();
        s.job(SESSION_OPEN, open()).await.unwrap();
        // A fee in a coin that nobody follows; a quote asset whose candle is still to come.
        let text = format!(
            "symbol,trade_id,time,side,price,qty,commission,commission_asset\n\
             BTCUSDT,1,{at},BUY,100,1,2,XYZ\nETHBTC,2,{at},BUY,0.05,1,0,\nBTCUSDT,3,{later},BUY,50,1,0,\n",
            at = (NOW + MINUTE * 5).0,
            later = (NOW + MINUTE * 5).0 + 1
        );
        s.pass(MINUTE * 6);
        import_csv(&s.db, text.as_bytes(), None, IMPORTED).await.unwrap();
        let first = s.import().await;
        assert_eq!(first["imported"], 1);
        let one = &first["sessions"][0];
        assert_eq!((&one["waiting"], &one["unbooked"]), (&1.into(), &1.into()));
        // Once the candle is there, the trade takes its place among those that are booked.
        s.tick(MARKET_SYNC).await.unwrap();
        let second = s.import().await;
        assert_eq!(
            (&second["imported"], &second["sessions"][0]["replayed"]),
            (&1.into(), &true.into())
        );
        let detail = cin::session(&s.db, 1).await.unwrap().unwrap();
        assert_eq!(detail.unbooked.len(), 1);
        assert_eq!(detail.unbooked[0].reason, "NO_PRICE: no candles of XYZUSDT are followed");
        let moves = cin::moves(&s.db, 1, None, 9).await.unwrap();
        assert_eq!(moves[1].source.as_ref().unwrap().0, "ETHBTC");
        assert!(moves[1].overdrawn, "the session was not told of the BTC that paid");
        let close = s.rows(
            "select close from ingest.kline_raw where symbol = 'BTCUSDT' order by open_time desc",
        );
        let closes = close.await;
        let at_four = closes[closes.len() - (6 * 60 + 5)..][0].clone();
        let Value::Float(close) = at_four[0] else { panic!("{at_four:?}") };
        assert_eq!(moves[1].executed, (d(&close.to_string()) * d("0.05")).normalize());

        // A close refuses to leave it out, unless it is told to.
        s.pass(MINUTE * 20);
        s.tick(MARKET_SYNC).await.unwrap();
        let refused = s.job(SESSION_CLOSE, json!({ "session_id": 1 })).await.unwrap_err();
        assert!(
            refused.starts_with("1 trades are not booked, the first is trade 1 of BTCUSDT"),
            "{refused}"
        );
        let failed = cin::session(&s.db, 1).await.unwrap().unwrap().session;
        assert_eq!(
            (failed.status.as_str(), failed.error.as_deref()),
            ("ERROR", Some(refused.as_str()))
        );
        // What comes later is not its own any more.
        let late = file(&[(8, 40, "BUY", "1", "1")]);
        s.pass(HOUR);
        import_csv(&s.db, late.as_bytes(), None, IMPORTED).await.unwrap();
        assert_eq!(s.import().await["imported"], 0);
        let retry = json!({ "session_id": 1, "accept_unbooked": true });
        let closed = s.job(SESSION_RETRY, retry).await.unwrap();
        assert_eq!((&closed["moves"], &closed["unbooked"]), (&2.into(), &1.into()));
        let closed = cin::session(&s.db, 1).await.unwrap().unwrap();
        assert_eq!((closed.session.status.as_str(), closed.session.error), ("CLOSED", None));
        assert_eq!(closed.session.ended_at, failed.ended_at);
    }
}

#[tokio::test]
async fn a_closed_session_is_immutable() {
    for engine in engines() {
        let s = Site::with(engine, None).await;
        s.job(SESSION_OPEN, open()).await.unwrap();
        s.pass(HOUR);
        let trades = file(&[(1, 5, "BUY", "2", "10")]);
        import_csv(&s.db, trades.as_bytes(), None, IMPORTED).await.unwrap();
        s.job(SESSION_CLOSE, json!({ "session_id": 1 })).await.unwrap();
        assert_eq!(s.count("select count(*) from cin_aux.rt_move").await, 1, "a close imports");
        for sql in [
            "update cin_aux.rt_session set note = 'x'",
            "update cin_aux.rt_balance set units = '0'",
            "update cin_aux.rt_move set trace_usdt = '1'",
            "update cin_aux.rt_lot set units_free = '1'",
            "update cin_aux.rt_mark set bulk_usdt = '1'",
            "delete from cin_aux.rt_balance",
            "delete from cin_aux.rt_move",
            "delete from cin_aux.rt_imprint_luggage",
            "insert into cin_aux.rt_reference values (1, 'X', '1', 'test')",
            "insert into cin_aux.rt_mark values (1, 'BTC', 1, '1', '1')",
        ] {
            let refused = s.db.apply(vec![Statement::new(sql, vec![])]).await.unwrap_err();
            assert!(
                refused.to_string().contains("a closed session is immutable"),
                "{sql}: {refused}"
            );
        }
        let sql = "delete from cin_aux.rt_session";
        let refused = s.db.apply(vec![Statement::new(sql, vec![])]).await.unwrap_err();
        assert!(refused.to_string().contains("a session is never deleted"), "{refused}");
        // The next one may open, and begins with its own books.
        assert_eq!(s.job(SESSION_OPEN, open()).await.unwrap()["session_id"], 2);
        assert_eq!(s.import().await["imported"], 0);
    }
}

#[tokio::test]
async fn one_session_is_open_for_an_owner_and_a_window() {
    for engine in engines() {
        let s = Site::with(engine, None).await;
        s.job(SESSION_OPEN, open()).await.unwrap();
        let refused = s.job(SESSION_OPEN, open()).await.unwrap_err();
        assert_eq!(refused, "session 1 of ann over 1h is open: close it first");
        // Whoever asks past the desk meets the index.
        let sql = "insert into cin_aux.rt_session
                     (session_id, owner, window_label, status, mode, started_at, opening_stamp)
                   values (7, 'ann', '1h', 'OPEN', 'ledger', 0, 0)";
        let refused = s.db.apply(vec![Statement::new(sql, vec![])]).await.unwrap_err();
        assert!(matches!(refused, DbError::Constraint { .. }), "{refused}");
        let mut other = open();
        other["window_label"] = "3h".into();
        assert_eq!(s.job(SESSION_OPEN, other).await.unwrap()["session_id"], 2);
        for (change, says) in [
            (json!({ "window_label": "7m" }), "`7m` is no window; there are 30m, 1h, 3h"),
            (json!({ "from_wallet": true }), "give balances or from_wallet, not both"),
            (
                json!({ "balances": [{ "asset": "BTC", "units": "1" }] }),
                "no candle of BTCUSDT: give",
            ),
            (json!({ "started_at": NOW + HOUR }), "has not come yet"),
            (json!({ "balances": [], "from_wallet": true }), "the wallet is not known"),
            (
                json!({ "balances": [{ "asset": "USDT", "units": "99999999999999999999.123456789" }] }),
                "OVERFLOW",
            ),
        ] {
            let mut wanted = open();
            wanted["owner"] = "bob".into();
            for (key, value) in change.as_object().unwrap() {
                wanted[key] = value.clone();
            }
            let refused = s.job(SESSION_OPEN, wanted).await.unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
        let all = cin::sessions(&s.db, &SessionFilter::default()).await.unwrap();
        assert_eq!(all.iter().map(|s| s.session_id).collect::<Vec<_>>(), [2, 1]);
        let closed = SessionFilter { status: Some("CLOSED".into()), ..SessionFilter::default() };
        assert_eq!(cin::sessions(&s.db, &closed).await.unwrap(), []);
    }
}

#[tokio::test]
async fn planned_moves_must_have_what_they_give() {
    for engine in engines() {
        let s = Site::with(engine, None).await;
        s.job(SESSION_OPEN, open()).await.unwrap();
        let started = s.clock.now();
        s.pass(Millis::from_secs(1));
        let plan = |executed: &str| {
            json!({ "session_id": 1, "from": "USDT", "to": "BTC", "executed_usdt": executed,
                    "price_to_usdt": "50", "fee_usdt": "1", "target_usdt": "900" })
        };
        let refused = s.job(SESSION_MOVE, plan("1000")).await.unwrap_err();
        assert_eq!(
            refused,
            "INSUFFICIENT_BALANCE: USDT has 1000 USDT, and the move needs 1001: 1000 and a fee of 1"
        );
        let done = s.job(SESSION_MOVE, plan("500")).await.unwrap();
        assert_eq!((&done["move_id"], &done["residual_from_after"]), (&1.into(), &"499".into()));
        let back = json!({ "session_id": 1, "from": "BTC", "to": "USDT", "executed_usdt": "720",
                           "price_from_usdt": "60" });
        let refused = s.job(SESSION_MOVE, back.clone()).await.unwrap_err();
        assert_eq!(refused, "LOT_SHORTAGE: the lots of BTC hold 10 units, and the move needs 12");
        let mut back = back;
        back["executed_usdt"] = "600".into();
        s.pass(Millis::from_secs(1));
        assert_eq!(s.job(SESSION_MOVE, back).await.unwrap()["trace_usdt"], "100");
        let detail = cin::session(&s.db, 1).await.unwrap().unwrap();
        assert_eq!((detail.pnl.realized, detail.pnl.moves), (d("99"), 2));

        // A trade from before them arrives: they are done again, and so is their result.
        s.pass(HOUR);
        let text =
            format!("symbol,trade_id,time,side,price,qty\nBTCUSDT,1,{},BUY,20,10\n", started.0);
        import_csv(&s.db, text.as_bytes(), None, IMPORTED).await.unwrap();
        assert_eq!(s.import().await["sessions"][0]["replayed"], true);
        let detail = cin::session(&s.db, 1).await.unwrap().unwrap();
        // Its ten units at 20 are the older ones: the sale at 60 gives 400 for them.
        assert_eq!((detail.pnl.realized, detail.pnl.moves), (d("399"), 3));
        let refused = s.job(WALLET_REFRESH, json!({ "session_id": 1 })).await.unwrap_err();
        assert!(refused.contains("session 1 has 3 moves"), "{refused}");
    }
}

#[tokio::test]
async fn a_parity_session_mirrors_every_trade_and_no_more() {
    for engine in engines() {
        let s = Site::with(engine, None).await;
        let mut wanted = open();
        wanted["mode"] = "parity".into();
        s.job(SESSION_OPEN, wanted).await.unwrap();
        s.pass(HOUR);
        let mut text = file(&[(1, -500, "BUY", "2", "10"), (2, 5, "SELL", "3", "10")]);
        text.push_str(&format!("ETHBTC,3,{},BUY,0.05,2,0,BTC\n", NOW.0));
        import_csv(&s.db, text.as_bytes(), None, IMPORTED).await.unwrap();
        assert_eq!(s.import().await["imported"], 3);
        assert_eq!(s.import().await["imported"], 0);
        let moves = cin::moves(&s.db, 1, None, 9).await.unwrap();
        assert!(moves.iter().all(|m| m.fee.is_zero() && m.trace.is_zero()));
        let executed: Vec<_> = moves.iter().map(|m| m.executed).collect();
        assert_eq!(executed, [d("30"), d("0.1"), d("20")]);
        assert_eq!(cin::lots(&s.db, 1, false).await.unwrap(), []);
        let detail = cin::session(&s.db, 1).await.unwrap().unwrap();
        assert_eq!((detail.balances.len(), detail.balances[0].units), (1, d("1000")));
        let plan = json!({ "session_id": 1, "from": "USDT", "to": "BTC", "executed_usdt": "1" });
        let refused = s.job(SESSION_MOVE, plan).await.unwrap_err();
        assert!(refused.contains("parity session"), "{refused}");
    }
}

#[tokio::test]
async fn one_sessions_failure_does_not_stop_the_others_and_fails_the_cycle() {
    for engine in engines() {
        let s = Site::with(engine, None).await;
        for owner in ["ann", "bob"] {
            let mut wanted = open();
            wanted["owner"] = owner.into();
            s.job(SESSION_OPEN, wanted).await.unwrap();
        }
        s.pass(HOUR);
        let trades = file(&[(1, 5, "BUY", "2", "10")]);
        import_csv(&s.db, trades.as_bytes(), None, IMPORTED).await.unwrap();
        let broken = "update cin_aux.rt_balance set units = 'many' where session_id = 1";
        s.db.apply(vec![Statement::new(broken, vec![])]).await.unwrap();
        let fault = s.tick(CIN_IMPORT_MOVES).await.unwrap_err().to_string();
        assert!(fault.starts_with("1 of 2 sessions could not be booked"), "{fault}");
        let says = "session 1: cin_aux.rt_balance holds an amount of USDT of session 1 that is none: \
                    OVERFLOW: `many`";
        assert!(fault.contains(says), "{fault}");
        assert_eq!(
            s.rows("select session_id from cin_aux.rt_move").await,
            [values![2_i64]],
            "bob's session is booked"
        );
        let log = "select owner_user_id, status from audit.user_cycle_log order by owner_user_id";
        assert_eq!(s.rows(log).await, [values!["ann", "error"], values!["bob", "ok"]]);
    }
}

#[tokio::test]
async fn a_change_that_was_computed_from_an_older_state_is_refused() {
    for engine in engines() {
        let s = Site::with(engine, None).await;
        s.job(SESSION_OPEN, open()).await.unwrap();
        s.pass(HOUR);
        let trades = file(&[(1, 5, "BUY", "2", "10")]);
        import_csv(&s.db, trades.as_bytes(), None, IMPORTED).await.unwrap();
        // Computed, but not published: in the meantime the session is marked.
        let worker = &s.workers[CIN_DESK];
        let host: Arc<dyn Host> = Arc::new(TestHost {
            db: s.db.clone(),
            clock: s.clock.clone(),
            committing: Arc::clone(&s.committing),
        });
        let cycle = Cycle {
            id: CycleId(1),
            worker: worker.define().name,
            cause: Cause::Manual,
            token: Token(1),
            attempt: 1,
            started_at: s.clock.now(),
            input: CycleInput::Job {
                kind: SESSION_CLOSE.into(),
                payload: json!({ "session_id": 1 }),
            },
            host: Arc::clone(&host),
        };
        let done = worker.run(&cycle).await.unwrap();
        s.job(SESSION_MARK, json!({})).await.unwrap();
        let refused = host.step(done.commit).await.unwrap_err();
        assert!(matches!(refused, StoreError::Database(_)), "{refused}");
        let still = cin::session(&s.db, 1).await.unwrap().unwrap();
        assert_eq!((still.session.status.as_str(), still.session.moves), ("OPEN", 0));
        s.job(SESSION_CLOSE, json!({ "session_id": 1 })).await.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_key_rests_the_feed_and_says_what_to_do() {
    let wrong = Credentials::new(TEST_KEY, "another-secret").ok();
    let s = Site::with(Engine::Sqlite, wrong).await;
    let fault = s.tick(TRADE_FEED).await.unwrap_err().to_string();
    assert!(fault.contains("code -1022: Signature for this request is not valid."), "{fault}");
    assert!(fault.contains("the API secret does not belong to the API key: check both"), "{fault}");
    assert!(!fault.contains("another-secret") && !fault.contains("signature="), "{fault}");
    let asked = s.sim.journal().last();
    let done = s.tick(TRADE_FEED).await.unwrap();
    assert!(done.summary["resting"].as_str().unwrap().contains("code -1022"));
    assert_eq!(s.sim.journal().last(), asked, "it rests");
    s.pass(MINUTE);
    assert!(s.tick(TRADE_FEED).await.is_err());
    let log = "select owner_user_id, status from audit.user_cycle_log";
    assert_eq!(s.rows(log).await, vec![values!["__env__", "error"]; 2]);

    let none = Site::with(Engine::Sqlite, None).await;
    let why = none.workers[TRADE_FEED].define().unavailable.unwrap();
    assert!(why.contains("WATCHBELL_BINANCE_KEY"), "{why}");
    let signed = Site::on(Engine::Sqlite).await;
    assert_eq!(signed.workers[TRADE_FEED].define().unavailable, None);
}

#[tokio::test]
async fn conversions_are_trades_at_the_price_that_fits_their_amounts() {
    let s = Site::on(Engine::Sqlite).await;
    let convert = |id, status: &str, at| ConvertTrade {
        order_id: id,
        order_status: status.into(),
        from_asset: "USDT".into(),
        from_amount: d("100"),
        to_asset: "BTC".into(),
        to_amount: d("0.0016"),
        create_time: at,
    };
    let bought = AccountTrade {
        symbol: "BTCUSDT".into(),
        id: 41,
        order_id: 1,
        price: d("50000"),
        qty: d("0.001"),
        quote_qty: d("50"),
        commission: d("0"),
        commission_asset: "USDT".into(),
        time: NOW - HOUR,
        is_buyer: true,
        is_maker: false,
        is_best_match: true,
    };
    s.sim.set_account(Account {
        trades: Trades::Listed(vec![bought.clone()]),
        converts: vec![
            convert(933_256_278_426_274_426, "SUCCESS", NOW - HOUR * 2),
            convert(8, "FAIL", NOW - HOUR),
        ],
        ..Account::standard(NOW)
    });
    s.feed_all().await;
    assert_eq!(
        s.rows(
            "select symbol, price, qty, quote_qty, is_buyer, source, raw
             from market.account_trades where source = 'convert'"
        )
        .await,
        [values![
            "BTCUSDT",
            "62500",
            "0.0016",
            "100",
            1,
            "convert",
            r#"{"convert":true,"notionalUsdt":"100"}"#
        ]]
    );
    // Its large number is no reason to ask for trades after it.
    let next = "select position from market.account_feed where feed = 'trades:BTCUSDT'";
    assert_eq!(s.count(next).await, 42);
    // Those of the last day are looked at again, and are no news.
    s.pass(MINUTE * 6);
    let done = s.tick(TRADE_FEED).await.unwrap();
    assert_eq!((&done.summary["conversions"], &done.summary["trades"]), (&0.into(), &0.into()));
}

#[tokio::test]
async fn the_feed_asks_two_symbols_at_a_time_and_goes_on_where_it_stood() {
    let s = Site::on(Engine::Sqlite).await;
    let listed = |symbol: &str, id: i64| AccountTrade {
        symbol: symbol.into(),
        id,
        order_id: id,
        price: d("2"),
        qty: d("1"),
        quote_qty: d("2"),
        commission: d("0"),
        commission_asset: "USDT".into(),
        time: NOW - HOUR + Millis(id),
        is_buyer: true,
        is_maker: false,
        is_best_match: true,
    };
    let many: Vec<_> = (1..=450).map(|id| listed("BTCUSDT", id)).collect();
    s.sim.set_account(Account { trades: Trades::Listed(many.clone()), ..Account::standard(NOW) });
    let done = s.tick(TRADE_FEED).await.unwrap();
    assert_eq!(done.summary["symbols"], json!(["BTCUSDT", "ETHUSDT"]));
    assert_eq!(done.summary["trades"], 450, "three pages");
    let second = s.tick(TRADE_FEED).await.unwrap();
    assert_eq!(second.summary["symbols"], json!(["BNBUSDT", "ETHBTC"]));
    assert!(second.commit.is_empty(), "nothing found, nothing written");
    let more = many.into_iter().chain([listed("BTCUSDT", 460), listed("ETHBTC", 5)]).collect();
    s.sim.set_account(Account { trades: Trades::Listed(more), ..Account::standard(NOW) });
    let asked = s.sim.journal().last();
    let found = s.feed_all().await;
    let journal = s.sim.journal().after(asked);
    assert_eq!(found, 2, "{journal:#?}");
    let targets: Vec<_> = s.sim.journal().after(asked).into_iter().map(|e| e.target).collect();
    let of_btc = targets.iter().find(|t| t.contains("symbol=BTCUSDT")).unwrap();
    assert!(
        of_btc.starts_with("/api/v3/myTrades?fromId=451&limit=200&recvWindow=5000"),
        "{of_btc}"
    );
    assert!(targets.iter().all(|t| !t.contains("signature")), "the journal keeps no signature");
    assert_eq!(s.count("select count(*) from market.account_trades").await, 452);
}

#[test]
fn every_kind_of_the_desk_has_a_schema() {
    let all = watchbell_market::definitions(&Config::default());
    let desk = all.iter().find(|w| w.name.as_ref() == CIN_DESK).unwrap();
    let Trigger::Queue(spec) = &desk.trigger else { panic!("a queue") };
    assert_eq!(
        spec.names(),
        [
            SESSION_OPEN,
            SESSION_CLOSE,
            SESSION_RETRY,
            SESSION_MOVE,
            SESSION_MARK,
            WALLET_REFRESH,
            LEDGER_IMPORT
        ]
    );
    assert!(spec.kinds.iter().all(|k| k.schema.is_some() && !k.description.is_empty()));
}
