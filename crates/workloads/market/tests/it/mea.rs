//! Allotments are a function of what was known at their window's end: neither the order in which a
//! backlog is worked off nor what happened since changes them.

use serde_json::json;
use watchbell_core::{Millis, Time, Value, values};
use watchbell_market::account::import_csv;
use watchbell_market::cin::{CIN_DESK, CIN_IMPORT_MOVES, SESSION_MOVE, SESSION_OPEN};
use watchbell_market::{Config, mea};
use watchbell_testkit::NOW;

use crate::world::{Computed, World, engines};

const HOUR: Millis = Millis::from_hours(1);
const HALF: Millis = Millis::from_mins(30);

fn config(windows: &[Millis]) -> Config {
    Config { windows: windows.to_vec(), sampling: false, ..Config::default() }
}

/// Everything that allotments and moods leave behind.
const TABLES: [&str; 4] = [
    "select * from mea_dynamics.cycles order by cycle_id",
    "select * from mea_dynamics.mea_symbol order by cycle_id, coin",
    "select * from mea_dynamics.dynamics_snapshot order by cycle_id",
    "select * from mea_dynamics.moods order by window_label, window_start",
];

/// An order of its own for each seed.
fn shuffled(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed;
    move |n| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    }
}

#[tokio::test]
async fn a_backlog_comes_to_the_same_allotments_as_live_windows_in_whatever_order() {
    for engine in engines() {
        let config = config(&[HALF, HOUR]);
        let world = || async {
            let w = World::on(engine, &config, HOUR * 6, "").await;
            w.settle().await;
            w
        };
        // Live: every layer of one end, then the next end.
        let live = world().await;
        let mut want: Vec<Computed> = live.chain(NOW).await.into_iter().map(|(c, _)| c).collect();
        want.sort_by_key(|(series, start, _)| (series.clone(), *start));
        assert_eq!(want.len(), (12 + 6) * 4);
        let moods = "select count(distinct mood_coeff) from mea_dynamics.cycles";
        assert!(live.count(moods).await > 3, "the moods differ, so their order matters");

        // A backlog: whole series ahead of what is made of them, or all mixed up.
        let orders: [Box<dyn FnMut(usize) -> usize>; 4] =
            [Box::new(|_| 0), Box::new(|n| n - 1), Box::new(shuffled(1)), Box::new(shuffled(2))];
        for (i, pick) in orders.into_iter().enumerate() {
            let backlog = world().await;
            let mut have = backlog.in_any_order(NOW, pick).await;
            have.sort_by_key(|(series, start, _)| (series.clone(), *start));
            assert_eq!(have, want, "order {i}");
            for sql in TABLES {
                assert_eq!(backlog.rows(sql).await, live.rows(sql).await, "order {i}: {sql}");
            }
        }
    }
}

/// A file of trades of BTC against USDT: (number, instant, side, price, amount).
fn file(rows: &[(i64, Time, &str, &str, &str)]) -> String {
    let mut text = "symbol,trade_id,time,side,price,qty\n".to_owned();
    for (id, at, side, price, qty) in rows {
        text.push_str(&format!("BTCUSDT,{id},{},{side},{price},{qty}\n", at.0));
    }
    text
}

#[tokio::test]
async fn balances_are_those_of_the_windows_end_whatever_moves_later() {
    for engine in engines() {
        let w = World::on(engine, &config(&[HOUR]), HOUR * 6, "").await;
        w.settle().await;
        w.windows(NOW).await;
        let hour = |n: i64| NOW - HOUR * n;
        for n in [6, 5, 4, 3, 2, 1] {
            w.version("matrices-1h", hour(n), 1).await.unwrap();
        }
        let open = |owner: &str, btc: &str| {
            json!({ "owner": owner, "started_at": hour(5), "balances": [
                { "asset": "USDT", "units": "1000" },
                { "asset": "BTC", "units": btc, "price_usdt": "100" },
            ] })
        };
        w.job(CIN_DESK, SESSION_OPEN, open("ann", "2")).await.unwrap();
        let held = async |n: i64, version: i64| {
            let done = w.version("mea-1h", hour(n), version).await.unwrap();
            assert_eq!(done.summary["balances"], "session");
            let view = mea::latest(&w.db, "1h").await.unwrap().unwrap();
            assert_eq!(view.cycle.window_start, hour(n));
            let btc = view.symbols.into_iter().find(|s| s.symbol == "BTCUSDT").unwrap();
            (btc.components["balance"].as_f64().unwrap(), done.window.unwrap())
        };
        let before = held(3, 1).await;
        assert_eq!(before.0, 2.0);

        // Sold after the end of that window, at it, and before it.
        let end = hour(2);
        let trades = file(&[
            (3, end + Millis::from_mins(10), "SELL", "100", "0.25"),
            (2, end, "SELL", "100", "0.5"),
        ]);
        import_csv(&w.db, trades.as_bytes(), None, w.clock.now()).await.unwrap();
        let booked = w.tick(CIN_IMPORT_MOVES).await.unwrap();
        assert_eq!(booked.summary["imported"], 2);
        assert_eq!(held(3, 2).await, before, "what came later changes nothing");
        let next = held(2, 1).await;
        assert_eq!(next.0, 1.25, "and counts from the next window on");
        let plan = json!({ "session_id": 1, "from": "USDT", "to": "BTC", "executed_usdt": "300",
                           "price_to_usdt": "100" });
        w.job(CIN_DESK, SESSION_MOVE, plan).await.unwrap();
        assert_eq!(held(2, 2).await, next);
        // A trade of before the end that becomes known late is a correction.
        let late = file(&[(1, end - Millis(1), "BUY", "100", "1")]);
        import_csv(&w.db, late.as_bytes(), None, w.clock.now()).await.unwrap();
        w.tick(CIN_IMPORT_MOVES).await.unwrap();
        assert_eq!(held(2, 3).await.0, 2.25);
    }
}

#[tokio::test]
async fn each_session_is_suggested_what_its_own_balances_come_to() {
    for engine in engines() {
        let w = World::on(engine, &config(&[HALF, HOUR]), HOUR * 6, "").await;
        w.settle().await;
        w.windows(NOW).await;
        let hour = |n: i64| NOW - HOUR * n;
        for n in [3, 2, 1] {
            w.version("matrices-1h", hour(n), 1).await.unwrap();
        }
        for (owner, started, label, btc) in [
            ("ann", hour(3), "1h", "2"),
            ("bob", hour(4), "1h", "5"),
            ("cid", hour(4), "30m", "7"),
            // Opened after the window's end.
            ("dan", hour(0), "1h", "9"),
        ] {
            let wanted = json!({ "owner": owner, "started_at": started, "window_label": label,
                "balances": [{ "asset": "BTC", "units": btc, "price_usdt": "100" }] });
            w.job(CIN_DESK, SESSION_OPEN, wanted).await.unwrap();
        }
        let done = w.version("mea-1h", hour(2), 1).await.unwrap();
        assert_eq!(done.summary["balances"], "session");
        let own = w
            .rows(
                "select session_id, value from cin_aux.mea_result where symbol = 'BTCUSDT'
                 order by session_id",
            )
            .await;
        let [[Value::Int(1), Value::Float(ann)], [Value::Int(2), Value::Float(bob)]] =
            own.iter().map(Vec::as_slice).collect::<Vec<_>>()[..]
        else {
            panic!("ann's and bob's: {own:?}")
        };
        assert!(*ann > 0.0 && (bob / ann - 2.5).abs() < 1e-12, "{ann} {bob}");

        // What cannot be read of one session is no loss of the others.
        let broken = "update cin_aux.rt_balance set units = 'many' where session_id = 2";
        w.apply(broken, vec![]).await;
        w.version("mea-1h", hour(1), 1).await.unwrap();
        let told = "select count(*) from cin_aux.mea_result where session_id = $1 and ts_ms = $2";
        for (session, rows) in [(1_i64, 4), (2, 0)] {
            let row = w.db.query_one(told, values![session, hour(0)]).await.unwrap();
            assert_eq!(row.i64(0).unwrap(), rows, "session {session}");
        }
        let own = "update cin_aux.rt_balance set units = 'many' where session_id = 4";
        w.apply(own, vec![]).await;
        let fault = w.version("mea-1h", hour(1), 2).await.unwrap_err();
        assert!(fault.to_string().contains("`many`"), "dan's was opened last: {fault}");
    }
}
