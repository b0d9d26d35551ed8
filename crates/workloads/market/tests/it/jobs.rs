//! One-off work: candles of other intervals, tickers, books, windows, and the seed of all of them.

use std::collections::BTreeSet;

use serde_json::json;
use watchbell_core::{Fault, Millis};
use watchbell_market::{Config, JOB_SEED, UNIVERSE_DESK, want_history};
use watchbell_testkit::NOW;

use crate::world::{MINUTE, SYMBOLS, World, engines};

const HOUR: Millis = Millis::from_hours(1);

async fn candles(w: &World, window: &str) -> (i64, i64, i64) {
    let row =
        w.db.query_one(
            "select count(*), coalesce(min(open_time), 0), coalesce(max(open_time), 0)
             from market.klines where symbol = 'BTCUSDT' and window_label = $1",
            vec![window.into()],
        )
        .await
        .unwrap();
    (row.i64(0).unwrap(), row.i64(1).unwrap(), row.i64(2).unwrap())
}

#[tokio::test]
async fn candles_of_other_intervals_are_fetched_and_kept_apart() {
    for engine in engines() {
        let w = World::on(engine, &Config::default(), HOUR, "").await;
        w.sync().await.unwrap();
        for (window, minutes) in [("5m", 5), ("15m", 15), ("30m", 30), ("1h", 60)] {
            let payload = json!({ "symbol": "BTCUSDT", "window": window });
            let done = w.ingest_job("fetch_klines", payload.clone()).await.unwrap();
            let count = 360 / minutes;
            let step = MINUTE * minutes;
            assert_eq!(done.summary["rows"], count, "six hours of {window}");
            let want = (count, (NOW - HOUR * 6).0, (NOW - step).0);
            assert_eq!(candles(&w, window).await, want);
            // Again: nothing. An interval later: one more.
            assert_eq!(w.ingest_job("fetch_klines", payload).await.unwrap().summary["rows"], 0);
        }
        w.pass(MINUTE * 5);
        let payload = json!({ "symbol": "BTCUSDT", "window": "5m" });
        assert_eq!(w.ingest_job("fetch_klines", payload).await.unwrap().summary["rows"], 1);
        assert_eq!(candles(&w, "1m").await.0, 60);
        let cursors = "select count(*) from ingest.klines_cursor where symbol = 'BTCUSDT'";
        assert_eq!(w.count(cursors).await, 5);
        assert!(w.seen().covers.iter().any(|c| c.source == "klines:5m"));
    }
}

#[tokio::test]
async fn a_backfill_reaches_back_and_asks_again_for_holes() {
    let (from, to) = (NOW - HOUR * 3, NOW - HOUR * 2);
    let missing = format!("klines:missing:symbol=BTCUSDT,from={from},to={}", from + MINUTE * 10);
    let w = World::new(HOUR * 4, &missing).await;
    w.settle().await;
    assert_eq!(w.gaps("hole").await, 1);
    w.set_faults("");
    let elsewhere = json!({ "symbol": "BTCUSDT", "window": "1m", "from": to, "to": NOW });
    w.ingest_job("backfill_klines", elsewhere).await.unwrap();
    assert_eq!(w.gaps("hole").await, 1, "a hole outside of the span is left alone");
    let span = json!({ "symbol": "BTCUSDT", "window": "1m", "from": NOW - HOUR * 8, "to": to });
    let done = w.ingest_job("backfill_klines", span.clone()).await.unwrap();
    assert_eq!((&done.summary["repaired"], w.gaps("hole").await), (&1.into(), 0));
    assert_eq!(candles(&w, "1m").await.1, (NOW - HOUR * 8).0);
    assert_eq!(w.ingest_job("backfill_klines", span).await.unwrap().summary["rows"], 0);
}

#[tokio::test]
async fn tickers_and_books_are_raw_rows_with_a_newest_one() {
    for engine in engines() {
        let w = World::on(engine, &Config::default(), HOUR, "").await;
        w.ingest_job("fetch_ticker", json!({})).await.unwrap();
        w.pass(MINUTE);
        w.ingest_job("fetch_ticker", json!({ "symbols": ["BTCUSDT"] })).await.unwrap();
        assert_eq!(w.count("select count(*) from market.ticker_ticks").await, 4);
        let newest = "select count(*) from market.ticker_latest l join ingest.ticker_raw r
            on r.symbol = l.symbol and r.ts = l.ts and r.price = l.price
            where r.change_24h between -1 and 1";
        assert_eq!(w.count(newest).await, 3);
        // The market is a function of what was ingested.
        let market = "select symbol, ts, price, change_24h, 'x' from market.ticker_latest
            union all select symbol, updated_at, 0, 0, status from market.symbols order by 1, 5";
        let rebuild = async || {
            let done = w.job(UNIVERSE_DESK, "market.rebuild", json!({})).await.unwrap();
            (done.summary["tickers"].as_i64().unwrap(), done.summary["symbols"].as_i64().unwrap())
        };
        assert_eq!(rebuild().await, (0, 0));
        let before = w.rows(market).await;
        for (spoil, wrong) in [
            ("delete from market.ticker_latest", (3, 0)),
            ("update market.ticker_latest set price = price + 1 where symbol = 'BTCUSDT'", (1, 0)),
            ("update market.ticker_latest set ts = ts + 1 where symbol = 'ETHUSDT'", (1, 0)),
            ("insert into market.ticker_latest values ('OLDUSDT', 1, 2.0, 0.0)", (1, 0)),
            ("update market.symbols set status = 'OFF' where symbol = 'SOLUSDT'", (0, 1)),
        ] {
            w.apply(spoil, vec![]).await;
            assert_ne!(w.rows(market).await, before, "{spoil}");
            assert_eq!(rebuild().await, wrong, "{spoil}");
            w.apply("update market.symbols set updated_at = $1", vec![NOW.into()]).await;
            assert_eq!(w.rows(market).await, before, "{spoil}");
            assert_eq!(rebuild().await, (0, 0), "a second time: nothing");
        }

        let coins = w.rows("select asset_code from market.assets order by 1").await;
        assert_eq!(coins, ["BTC", "ETH", "SOL", "USDT"].map(|coin| vec![coin.into()]));
        let known = "select count(*) from market.v_symbols_universe where status = 'TRADING'";
        assert_eq!(w.count(known).await, 3);
        w.ingest_job("fetch_orderbook", json!({})).await.unwrap();
        w.pass(MINUTE);
        w.ingest_job("fetch_orderbook", json!({ "symbol": "ETHUSDT" })).await.unwrap();
        assert_eq!(w.count("select count(*) from ingest.orderbook_raw").await, 4);
        assert_eq!(w.count("select count(*) from market.orderbook_latest").await, 3);
        let crossed = "select count(*) from market.orderbook_levels b
            join market.orderbook_levels a on a.symbol = b.symbol and a.ts = b.ts
            where b.side = 'bid' and a.side = 'ask' and b.price >= a.price";
        assert_eq!(w.count(crossed).await, 0);
        assert!(w.count("select count(*) from market.orderbook_levels").await >= 4 * 20);
    }
}

#[tokio::test]
async fn a_payload_that_makes_no_sense_is_refused_for_good() {
    let w = World::new(HOUR, "").await;
    let day = json!({ "label": "30m", "window_start": NOW + MINUTE });
    for (kind, payload, says) in [
        ("fetch_klines", json!({ "symbol": "BTCUSDT", "window": "3h" }), "no candles of `3h`"),
        ("fetch_klines", json!({ "symbol": "btc", "window": "5m" }), "cannot split"),
        (
            "backfill_klines",
            json!({ "symbol": "BTCUSDT", "window": "5m", "from": NOW, "to": NOW }),
            "is empty",
        ),
        ("fetch_ticker", json!({ "symbol": "BTCUSDT" }), "unknown field"),
        ("compute_window", json!({ "label": "7m", "window_start": NOW }), "30m, 1h, 3h"),
        ("compute_window", day, "the one before begins at 2026-11-22T03:00:00Z"),
    ] {
        let fault = w.ingest_job(kind, payload).await.unwrap_err();
        assert!(matches!(fault, Fault::Permanent(_)), "{fault}");
        assert!(fault.to_string().contains(says), "{kind}: {fault}");
    }
}

#[tokio::test]
async fn a_rate_limit_puts_a_job_off_and_spends_no_attempt() {
    let w = World::new(HOUR, "klines:429:n=1,retry=30").await;
    let payload = json!({ "symbol": "BTCUSDT", "window": "5m" });
    let fault = w.ingest_job("fetch_klines", payload.clone()).await.unwrap_err();
    assert!(matches!(&fault, Fault::Snooze { after, .. } if after.0 == 30_000), "{fault}");
    w.pass(Millis::from_secs(31));
    w.ingest_job("fetch_klines", payload).await.unwrap();
}

#[tokio::test]
async fn an_outage_puts_a_job_off_and_spends_no_attempt() {
    let w = World::new(HOUR, "*:down").await;
    for (kind, payload) in [
        ("fetch_klines", json!({ "symbol": "BTCUSDT", "window": "5m" })),
        ("fetch_ticker", json!({})),
        ("fetch_orderbook", json!({})),
        ("fetch_trades", json!({ "symbol": "BTCUSDT" })),
    ] {
        let fault = w.ingest_job(kind, payload).await.unwrap_err();
        let Fault::Snooze { after, why } = &fault else { panic!("{kind}: {fault}") };
        assert_eq!(after.0, 30_000);
        assert!(why.starts_with("the venue is d"), "{why}");
        w.pass(MINUTE);
    }
    w.set_faults("");
    w.ingest_job("fetch_ticker", json!({})).await.unwrap();
}

#[tokio::test]
async fn a_series_that_was_asked_for_is_followed() {
    for engine in engines() {
        let w = World::on(engine, &Config::default(), HOUR, "").await;
        w.sync().await.unwrap();
        let payload = json!({ "symbol": "BTCUSDT", "window": "5m" });
        w.ingest_job("fetch_klines", payload).await.unwrap();
        for (pass, rows) in [(MINUTE * 4, 4 * 3), (MINUTE, 3 + 1), (MINUTE * 10, 10 * 3 + 2)] {
            w.pass(pass);
            let done = w.sync().await.unwrap();
            assert_eq!(
                (&done.summary["rows"], &done.summary["symbols"]),
                (&rows.into(), &3.into())
            );
        }
        assert_eq!(candles(&w, "5m").await.2, (NOW + MINUTE * 10).0);
        // What the venue was asked is on record, with what was asked for.
        let asked = "select count(*) from ops.market_sync_log where window_label = '5m'
            and symbol = 'BTCUSDT' and from_ms is not null and status = 'ok'";
        assert!(w.count(asked).await >= 3);
        // The past of windows is wanted in minutes, whatever else is followed.
        want_history(&w.db, NOW - HOUR * 12, NOW).await.unwrap();
        let reaching = "select count(*) from ingest.klines_cursor where wanted_from < $1
            and window_label <> '1m'";
        let reaching = reaching.replace("$1", &(NOW - HOUR * 7).0.to_string());
        let row = w.db.query_one(reaching, vec![]).await.unwrap();
        assert_eq!(row.i64(0).unwrap(), 0);
    }
}

#[tokio::test]
async fn a_window_that_is_asked_for_is_the_window_workers_to_compute() {
    for engine in engines() {
        let w = World::on(engine, &Config::default(), HOUR, "").await;
        let payload = json!({ "label": "30m", "window_start": NOW - HOUR });
        for _ in 0..2 {
            w.ingest_job("compute_window", payload.clone()).await.unwrap();
        }
        let asked = "select count(*) from ops.backfills where series = 'window-sampler-30m'
            and requested_by = 'job 1' and to_at - from_at = 1800000";
        assert_eq!(w.count(asked).await, 1);
    }
}

#[tokio::test]
async fn the_seed_asks_for_each_thing_once() {
    let w = World::new(HOUR, "").await;
    let done = w.tick(JOB_SEED).await.unwrap();
    let jobs = &done.commit.jobs;
    let keys: BTreeSet<_> = jobs.iter().map(|j| j.unique_key.clone().unwrap()).collect();
    assert_eq!(keys.len(), jobs.len());
    let klines: Vec<_> = jobs.iter().filter(|j| j.kind == "fetch_klines").collect();
    assert_eq!(klines.len(), SYMBOLS.len() * 5, "1m, 5m, 15m, 30m, 1h");
    assert!(klines.iter().all(|j| j.limit_key.as_deref() == j.payload["symbol"].as_str()));
    assert_eq!(done.summary["skipped"], json!(["3h"]), "the venue has no such candles");
    assert!(keys.contains(r#"fetch_klines {"symbol":"BTCUSDT","window":"5m"}"#), "{keys:?}");
    let others: Vec<_> =
        jobs.iter().filter(|j| j.kind != "fetch_klines").map(|j| j.kind.as_str()).collect();
    let want = [
        "fetch_ticker",
        "fetch_orderbook",
        "compute_str_vectors",
        "compute_matrices",
        "compute_mea",
        "compute_mood",
        "validate_universe",
        "health_scan",
        "import_moves",
    ];
    assert_eq!(others, want);
    // What it asks for is what the worker takes.
    for job in jobs {
        w.ingest_job(&job.kind, job.payload.clone()).await.unwrap();
    }
    assert_eq!(w.tick(JOB_SEED).await.unwrap().commit.jobs, *jobs);
}
