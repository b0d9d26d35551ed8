//! Both database engines hold the same market, and compute the same of it.

use watchbell_core::{Millis, Statement, Value};
use watchbell_db::{Engine, Line};
use watchbell_market::{Config, LINE};
use watchbell_testkit::{NOW, TempDb, postgres_is_wanted};

use crate::world::{Computed, World, engines};

const HOUR: Millis = Millis::from_hours(1);
const WATCHED: Millis = Millis::from_mins(10);

/// Everything that is published of windows, and the points that they come from.
const TABLES: [&str; 5] = [
    "select * from str_aux.windows order by symbol, window_label, window_start, version",
    "select * from str_aux.window_stats order by symbol, window_label, window_start, version",
    "select * from str_aux.window_vectors order by symbol, window_label, window_start, version",
    "select * from str_aux.samples_5s order by symbol, ts",
    "select * from str_aux.cycles_40s order by symbol, cycle_start",
];

/// Six hours of candles with faults and repairs, and one window that is watched.
async fn computed(engine: Engine) -> (World, Vec<Computed>) {
    let config = Config { windows: vec![WATCHED, HOUR], ..Config::default() };
    let hole =
        format!("klines:missing:symbol=ETHUSDT,from={},to={}", NOW - HOUR * 4, NOW - HOUR * 3);
    let faults = format!("{hole},heal=1;klines:503:p=0.4,n=5,seed=3");
    let w = World::on(engine, &config, HOUR * 6, &faults).await;
    w.settle().await;
    let mut all: Vec<_> = w.windows(NOW).await.into_iter().map(|(c, _)| c).collect();
    let start = w.clock.now().ceil(WATCHED);
    w.pass(start - w.clock.now());
    w.sample_for(WATCHED + Millis::from_secs(5)).await;
    w.sync().await.unwrap();
    let watched = w.window(WATCHED, start).await.unwrap();
    all.push(("watched".to_owned(), start, watched.window.unwrap()));
    (w, all)
}

async fn rows(w: &World, sql: &'static str) -> Vec<Vec<Value>> {
    w.db.query(sql, vec![]).await.unwrap().iter().map(|r| r.values().to_vec()).collect()
}

#[tokio::test]
async fn both_engines_compute_the_same() {
    if !postgres_is_wanted() {
        return;
    }
    let (lite, want) = computed(Engine::Sqlite).await;
    let (server, have) = computed(Engine::Postgres).await;
    // 36 of ten minutes, 6 of an hour, and the one that was watched.
    assert_eq!(want.len(), 36 + 6 + 1);
    assert_eq!(want.last().unwrap().2.source, "points");
    assert_eq!(want, have);
    for sql in TABLES {
        let (want, have) = (rows(&lite, sql).await, rows(&server, sql).await);
        assert!(!want.is_empty(), "{sql}");
        assert!(want == have, "{sql}: the rows differ");
    }
}

/// What a store of the seventh version holds of windows and moods.
const OF_THE_SEVENTH: [&str; 3] = [
    "insert into str_aux.window_stats (symbol, window_label, window_start, version, opening,
        last_price, price_min, price_max, gfm, delta_gfm_pct, bfm, disruption_systemic, stats,
        trade_fill)
     values ('ETHUSDT', '1h', 0, 2, 1.5, 2.5, 1, 3, 2, 0.1, 0.5, 0, '{\"a\":  1}', 3),
        ('BTCUSDT', '1h', 0, 1, 0.1, 0.2, 0.1, 0.2, 0.3, 0.1, 0.5, 0, '{}', 0)",
    "insert into str_aux.window_vectors values ('BTCUSDT', '1h', 3600000, 1, '{\"inner\": 0.5}')",
    "insert into mea_dynamics.moods values
        ('1h', 0, 1, 3600000, 0.8, 'Ea0', 'A', 0, 0, null, '{}'),
        ('1h', 3600000, 1, 7200000, 0.9, 'Ea0', 'B', 0, 0, null, '{}'),
        ('1h', 3600000, 2, 7200000, 1.0, 'Ea0', 'C', 0, 0, null, '{}'),
        ('30m', 0, 1, 1800000, 1.1, 'Ea0', 'D', 0, 0, null, '{}')",
];

#[tokio::test]
async fn a_store_of_the_seventh_version_keeps_its_rows() {
    for engine in engines() {
        let earlier = Line { migrations: &LINE.migrations[..7], ..LINE };
        let lines = [watchbell_store::LINE, earlier];
        let temp = match engine {
            Engine::Sqlite => TempDb::sqlite(&lines).await,
            Engine::Postgres => TempDb::postgres(&lines).await,
        };
        let held = OF_THE_SEVENTH.map(|sql| Statement::new(sql, vec![])).to_vec();
        temp.db.apply(held).await.unwrap();
        let read = async |sql: &'static str| -> Vec<Vec<Value>> {
            let rows = temp.db.query(sql, vec![]).await.unwrap();
            rows.iter().map(|row| row.values().to_vec()).collect()
        };
        let before = (read(TABLES[1]).await, read(TABLES[2]).await);
        temp.db.migrate(&[watchbell_store::LINE, LINE], NOW).await.unwrap();
        assert_eq!((read(TABLES[1]).await, read(TABLES[2]).await), before);
        for table in ["window_stats", "window_vectors"] {
            for change in ["update str_aux.{} set version = 2", "delete from str_aux.{}"] {
                let change = Statement::new(change.replace("{}", table), vec![]);
                assert!(temp.db.apply(vec![change]).await.is_err(), "{table} changed");
            }
        }
        read("select * from str_aux.v_stats_coverage").await;
        read("select * from str_aux.v_latest_vectors").await;
        let newest = "select window_label, tier from mea_dynamics.v_latest_moods order by tier";
        assert_eq!(
            read(newest).await,
            [["1h", "C"], ["30m", "D"]].map(|row| row.map(Value::from).to_vec())
        );
    }
}

#[tokio::test]
async fn a_published_window_is_immutable() {
    for engine in engines() {
        let config = Config { windows: vec![HOUR], ..Config::default() };
        let w = World::on(engine, &config, HOUR * 2, "").await;
        w.sync().await.unwrap();
        assert_eq!(w.windows(NOW).await.len(), 2);
        for table in ["windows", "window_stats", "window_vectors"] {
            for change in ["update str_aux.{} set version = 2", "delete from str_aux.{}"] {
                let sql = change.replace("{}", table);
                let refused = w.db.apply(vec![Statement::new(sql, vec![])]).await.unwrap_err();
                let says = "a published window is immutable: correct it with a new version";
                assert!(refused.to_string().contains(says), "{table}: {refused}");
            }
        }
    }
}
