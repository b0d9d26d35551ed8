//! Trades, and windows that are repaired from them.

use watchbell_core::{Fault, Millis, Time, Value};
use watchbell_market::{Config, TRADE_SYNC, TradesConfig};
use watchbell_testkit::NOW;

use crate::world::{MINUTE, SYMBOLS, World, engines};

const WINDOW: Millis = Millis::from_mins(10);
const SECOND: Millis = Millis::from_secs(1);

fn config() -> Config {
    let trades = TradesConfig { enabled: true, lookback: MINUTE * 5, ..TradesConfig::default() };
    Config { windows: vec![WINDOW], trades, ..Config::default() }
}

async fn ids(w: &World, symbol: &str) -> Vec<i64> {
    let sql = "select agg_id from ingest.agg_trade_raw where symbol = $1 order by agg_id";
    let rows = w.db.query(sql, vec![Value::from(symbol)]).await.unwrap();
    rows.iter().map(|r| r.i64(0).unwrap()).collect()
}

#[tokio::test]
async fn trades_are_followed_by_their_numbers() {
    for engine in engines() {
        let w = World::on(engine, &config(), MINUTE * 10, "").await;
        for _ in 0..6 {
            w.tick(TRADE_SYNC).await.unwrap();
            w.pass(Millis::from_secs(20));
        }
        for symbol in SYMBOLS {
            let ids = ids(&w, symbol).await;
            let (first, last) = (ids[0], ids[ids.len() - 1]);
            assert!(ids.len() > 50, "{symbol}: {} trades", ids.len());
            assert_eq!(last - first + 1, ids.len() as i64, "{symbol}: none is passed over");
        }
        let known = "select count(*) from ingest.trades_cursor
            where known_until - known_from >= 380000 and last_agg_id is not null";
        assert_eq!(w.count(known).await, 3, "five minutes back and a hundred seconds on");
        assert_eq!(w.count("select count(*) from ingest.trade_gaps").await, 0);
    }
}

#[tokio::test]
async fn a_job_reaches_back_and_says_nothing_twice() {
    let w = World::with(&config(), MINUTE * 10, "").await;
    w.tick(TRADE_SYNC).await.unwrap();
    let before = ids(&w, "BTCUSDT").await;
    let span = serde_json::json!({ "symbol": "BTCUSDT", "from": NOW - MINUTE * 20, "to": NOW });
    let done = w.ingest_job("backfill_trades", span.clone()).await.unwrap();
    let after = ids(&w, "BTCUSDT").await;
    assert!(after.len() > before.len() && done.summary["rows"].as_u64() > Some(0), "{done:?}");
    assert_eq!(after[after.len() - 1] - after[0] + 1, after.len() as i64);
    let from = "select known_from from ingest.trades_cursor where symbol = 'BTCUSDT'";
    assert_eq!(w.count(from).await, (NOW - MINUTE * 20).0);
    w.ingest_job("backfill_trades", span).await.unwrap();
    assert_eq!(ids(&w, "BTCUSDT").await, after);
}

/// Watches a window in which the books fail for `outage`, with trades followed all the while.
async fn watched(outage: Millis) -> World {
    let w = World::with(&config(), MINUTE * 10, "").await;
    w.sync().await.unwrap();
    let from = NOW + MINUTE * 4;
    let end = NOW + WINDOW + SECOND * 6;
    while w.clock.now() < end {
        let failing = from <= w.clock.now() && w.clock.now() < from + outage;
        w.set_faults(if failing { "depth:503" } else { "" });
        // A poll that fails is not the end of the sampler.
        drop(w.sample().await);
        if w.clock.now().floor(SECOND * 10) == w.clock.now().floor(SECOND) {
            w.tick(TRADE_SYNC).await.unwrap();
        }
        w.pass(SECOND);
    }
    w
}

#[tokio::test]
async fn empty_buckets_take_the_price_of_their_last_trade() {
    let w = watched(SECOND * 50).await;
    // What was traded until the end may still be on its way.
    let early = w.window(WINDOW, NOW).await.unwrap_err();
    assert!(matches!(early, Fault::Snooze { .. }), "{early}");
    w.pass(SECOND * 10);
    w.tick(TRADE_SYNC).await.unwrap();
    w.sync().await.unwrap();

    let done = w.window(WINDOW, NOW).await.unwrap();
    let hashes = done.window.unwrap();
    assert_eq!(hashes.source, "points");
    let filled = done.summary["trade_fill"].as_i64().unwrap();
    assert!(filled >= 3 * 4, "{filled} buckets");
    let stored = "select cast(sum(trade_fill) as bigint) from str_aux.window_stats";
    assert_eq!(w.count(stored).await, filled);
    // The points themselves stay as they were: empty.
    let empty = "select count(*) from str_aux.samples_5s where mid is null";
    assert!(w.count(empty).await >= filled);
    // A price of a trade is one that was paid in that bucket, the last.
    let row =
        w.db.query_one(
            "select price from ingest.agg_trade_raw where symbol = 'BTCUSDT' and ts_ms < $1
             order by agg_id desc limit 1",
            vec![(NOW + MINUTE * 4 + SECOND * 20).into()],
        )
        .await
        .unwrap();
    assert!(row.f64(0).unwrap() > 0.0);

    // Replayed from what is stored: the same to the bit.
    w.forget_windows().await;
    assert_eq!(w.window(WINDOW, NOW).await.unwrap().window.unwrap(), hashes);
    // Late trades of another time change nothing.
    let earlier = Time(NOW.0 - 60_000 * 30);
    let span = serde_json::json!({ "symbol": "BTCUSDT", "from": earlier, "to": NOW });
    w.ingest_job("backfill_trades", span).await.unwrap();
    w.forget_windows().await;
    assert_eq!(w.window(WINDOW, NOW).await.unwrap().window.unwrap(), hashes);
}

#[tokio::test]
async fn a_window_without_known_trades_is_computed_from_candles() {
    let w =
        World::with(&Config { windows: vec![WINDOW], ..Config::default() }, MINUTE * 10, "").await;
    w.sync().await.unwrap();
    w.sample_for(MINUTE * 4).await;
    w.set_faults("depth:503");
    for _ in 0..50 {
        drop(w.sample().await);
        w.pass(SECOND);
    }
    w.set_faults("");
    w.sample_for(NOW + WINDOW + SECOND * 5 - w.clock.now()).await;
    w.sync().await.unwrap();
    let done = w.window(WINDOW, NOW).await.unwrap();
    assert_eq!(done.window.unwrap().source, "klines");
    assert_eq!(done.summary["trade_fill"], 0);
}
