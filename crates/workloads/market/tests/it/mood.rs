//! Moods of windows that the real workers computed, and of windows that have none.

use serde_json::json;
use watchbell_core::{EventRecord, Millis, Statement, Time, Value, values};
use watchbell_db::Engine;
use watchbell_market::mood::{self, MOOD_REFRESH, MoodConfig};
use watchbell_market::{Config, UNIVERSE_CHANGED, UNIVERSE_DESK};
use watchbell_testkit::{NOW, postgres_is_wanted};

use crate::world::{MINUTE, SYMBOLS, World, engines};

const HALF: Millis = Millis::from_mins(30);
const MOOD: &str = "mood-30m";

fn config() -> Config {
    Config { windows: vec![HALF], sampling: false, ..Config::default() }
}

/// Two hours of windows, the last of which ends at `NOW`.
async fn world(engine: Engine) -> World {
    let w = World::on(engine, &config(), Millis::from_hours(2), "").await;
    w.sync().await.unwrap();
    assert_eq!(w.windows(NOW).await.len(), 4);
    w
}

/// A window whose rows say exactly this of each symbol: change of the floating mode in per cent, and
/// the scores of tendency and swap.
async fn store(w: &World, start: Time, of: &[(&str, f64, &str, &str)]) {
    for &(symbol, g, t, v) in of {
        let key = || values![symbol, "30m", start, 1];
        let mut stats = key();
        stats.extend(values![g]);
        let vec =
            format!(r#"{{"schema_version":1,"tendency":{{"score":{t}}},"swap":{{"score":{v}}}}}"#);
        let mut vectors = key();
        vectors.extend(values![vec]);
        w.db.apply(vec![
            Statement::new(
                "insert into str_aux.windows
                   (symbol, window_label, window_start, version, source, samples, cycles_count)
                 values ($1, $2, $3, $4, 'klines', 30, 0)",
                key(),
            ),
            Statement::new(
                "insert into str_aux.window_stats
                   (symbol, window_label, window_start, version, opening, last_price, price_min,
                    price_max, gfm, delta_gfm_pct, bfm, disruption_systemic, stats)
                 values ($1, $2, $3, $4, 1, 1, 1, 1, 1, $5, 0, 0, '{}')",
                stats,
            ),
            Statement::new(
                "insert into str_aux.window_vectors values ($1, $2, $3, $4, $5)",
                vectors,
            ),
        ])
        .await
        .unwrap();
    }
}

/// The mood of the window at `start`: coefficient, class, tier and state, and why it is a fallback.
async fn mood_of(w: &World, start: Time) -> (f64, String, String, String) {
    let done = w.version(MOOD, start, 1).await.unwrap();
    let m = &done.summary["mood"];
    let state = done.window.unwrap().source;
    let reason = done.summary["reason"].as_str().unwrap_or_default();
    let why = reason.split(':').next().unwrap_or_default();
    (
        m["coeff"].as_f64().unwrap(),
        m["id"].as_str().unwrap().to_owned(),
        m["tier"].as_str().unwrap().to_owned(),
        format!("{state} {why}").trim().to_owned(),
    )
}

#[tokio::test]
async fn the_goldens_come_out_of_stored_rows() {
    for engine in engines() {
        let w = World::on(engine, &config(), Millis::from_hours(3), "").await;
        let from = NOW - Millis::from_hours(3);
        // Section 12, as per cent and scores.
        for (i, (g, t, v, coeff, id)) in [
            (0.0, "0", "0.0", 0.8, "Ea0"),
            (1.0, "1.0", "2.0", 0.978_989_639_559_128_9, "Fb3"),
            (-0.5, "-2.0", "-5.0", 0.2, "Cj5"),
            (0.2, "0.5", "-1.0", 0.790_942_098_572_956_4, "Eg0"),
            (0.25, "2.0", "5.0", 1.460_431_619_050_786_7, "Fd1"),
        ]
        .into_iter()
        .enumerate()
        {
            let start = from + HALF * i as i64;
            store(&w, start, &SYMBOLS.map(|s| (s, g, t, v))).await;
            let (have, class, _, state) = mood_of(&w, start).await;
            assert!((have - coeff).abs() <= 1e-9 * coeff, "{id}: {have}");
            assert_eq!((class.as_str(), state.as_str()), (id, "stable"));
        }
        let table = mood::symbol_moods(&w.db, "30m").await.unwrap();
        assert_eq!(table["USDT"].keys().collect::<Vec<_>>(), ["BTC", "ETH", "SOL"]);
        assert_eq!(table["USDT"]["SOL"].mood_id, "Fd1");
        let classes = "select count(*) from mea_dynamics.mood_registry where formula = 'v1'";
        assert_eq!(w.count(classes).await, 5);
        let seen = "select count(*) from mea_dynamics.mea_mood_observations
            where app_session_id = 'mood-30m'";
        assert_eq!(w.count(seen).await, 5);
    }
}

/// Section 11.5 (e): whatever goes wrong with the input, the last stable mood is published again.
#[tokio::test]
async fn without_a_readable_input_the_last_stable_mood_is_published_again() {
    for engine in engines() {
        let w = World::on(engine, &config(), Millis::from_hours(6), "").await;
        w.sync().await.unwrap();
        let start = |i: i64| NOW - Millis::from_hours(6) + HALF * i;
        let sane = |s| (s, 0.25, "2.0", "5.0");
        // Before there was any, the mood is neutral.
        assert_eq!(
            mood_of(&w, start(0)).await,
            (0.8, "Ea0".into(), "E".into(), "neutral WINDOW_ABANDONED".into())
        );
        store(&w, start(1), &SYMBOLS.map(sane)).await;
        let stable = mood_of(&w, start(1)).await;
        assert_eq!(
            (stable.1.as_str(), stable.2.as_str(), stable.3.as_str()),
            ("Fd1", "D", "stable")
        );
        // A NaN is null in JSON; one such number in one symbol is enough.
        store(&w, start(2), &[sane("BTCUSDT"), sane("ETHUSDT"), ("SOLUSDT", 0.1, "null", "1.0")])
            .await;
        // Two of three symbols are missing.
        store(&w, start(3), &[sane("BTCUSDT")]).await;
        // 4 has nothing at all; in 5 the number is none that fits.
        store(&w, start(5), &SYMBOLS.map(|s| (s, 0.1, "1e999", "1.0"))).await;
        for (i, state) in [
            (2, "fallback NOT_FINITE"),
            (3, "fallback TOO_FEW_SYMBOLS"),
            (4, "stale WINDOW_ABANDONED"),
            (5, "stale NOT_FINITE"),
        ] {
            let again = mood_of(&w, start(i)).await;
            assert_eq!((again.0, &again.1, &again.2), (stable.0, &stable.1, &stable.2), "{i}");
            assert_eq!(again.3, state);
        }
        let state = mood::moods(&w.db).await.unwrap();
        let newest = &state.labels[0];
        assert!(newest.is_fallback && newest.is_stale);
        assert_eq!(newest.stable_ts, Some(start(2)), "the end of the stable window");
        assert_eq!(newest.payload["ageMs"], (HALF * 4).0);
        assert_eq!(newest.payload["source"], "str-aux:fallback");
        // Half of them is enough, and it is over.
        store(&w, start(6), &[sane("BTCUSDT"), ("SOLUSDT", 0.0, "0", "0")]).await;
        assert_eq!(mood_of(&w, start(6)).await.3, "stable");
        let stable = "select count(*) from mea_dynamics.moods where is_fallback = 0";
        assert_eq!(w.count(stable).await, 2);
        for change in
            ["update mea_dynamics.moods set coeff = 1", "delete from mea_dynamics.symbol_moods"]
        {
            let refused = w.db.apply(vec![Statement::new(change, vec![])]).await.unwrap_err();
            assert!(refused.to_string().contains("a published mood is immutable"), "{refused}");
        }
    }
}

#[tokio::test]
async fn usdt_pairs_come_first_and_no_more_than_the_limit() {
    let config =
        Config { mood: MoodConfig { symbol_limit: 2, ..MoodConfig::default() }, ..config() };
    let w = World::with(&config, Millis::from_hours(1), "").await;
    let symbols = ["ETHBTC", "ETHUSDT", "BTCUSDT", "SOLUSDT"];
    watchbell_market::seed(&w.db, &symbols.map(str::to_owned), &[HALF], NOW, NOW).await.unwrap();
    let start = NOW + HALF;
    store(&w, start, &symbols.map(|s| (s, 0.0, "0", "0"))).await;
    w.version(MOOD, start, 1).await.unwrap();
    let newest = mood::moods(&w.db).await.unwrap().labels.remove(0);
    assert_eq!(newest.payload["symbols"], json!(["ETHUSDT", "BTCUSDT"]));
    assert_eq!(newest.payload["perSymbol"]["USDT"]["ETH"]["id"], "Ea0");
    assert_eq!(newest.payload["refs"]["sigmaT"], 0.02);
}

#[tokio::test]
async fn the_matrices_have_their_say_and_do_not_alter_the_coefficient() {
    let w = World::with(&config(), Millis::from_hours(1), "").await;
    let start = NOW - HALF;
    store(&w, start, &SYMBOLS.map(|s| (s, 0.0, "0", "0"))).await;
    let mut commit = vec![Statement::new(
        "insert into matrices.slices
           (series, ts_ms, version, coins, opening_ts, summary, result_hash)
         values ('30m', $1, 1, '[\"USDT\",\"SOL\",\"BTC\"]', 0, '{}', '')",
        values![NOW],
    )];
    for (base, cells) in
        [("BTC", "[0.02,null,null]"), ("SOL", "[0.04,null,0.02]"), ("USDT", "[null,-0.04,-0.02]")]
    {
        commit.push(Statement::new(
            "insert into matrices.rows values ('30m', $1, 1, 'id_pct', $2, $3, null)",
            values![NOW, base, cells],
        ));
    }
    w.db.apply(commit).await.unwrap();
    w.version(MOOD, start, 1).await.unwrap();
    let newest = mood::moods(&w.db).await.unwrap().labels.remove(0);
    let matrix = &newest.payload["matrix"];
    let labels: Vec<_> =
        matrix["rows"].as_array().unwrap().iter().map(|r| (&r["base"], &r["label"])).collect();
    assert_eq!(json!(labels), json!([["USDT", "PANIC"], ["SOL", "BULL"], ["BTC", "BULL"]]));
    assert_eq!(matrix["label"], "NEUTRAL");
    assert_eq!(newest.coeff, 0.8);
}

/// Everything that moods leave behind.
const TABLES: [&str; 4] = [
    "select * from mea_dynamics.moods order by window_label, window_start, version",
    "select * from mea_dynamics.symbol_moods order by window_label, window_start, version, quote, base",
    "select * from mea_dynamics.mood_registry order by mood_id",
    "select * from mea_dynamics.mea_mood_observations order by app_session_id, ts_ms, version",
];

#[tokio::test]
async fn both_engines_make_the_same_moods_and_a_second_look_finds_them_again() {
    let mut all = Vec::new();
    for engine in engines() {
        let w = world(engine).await;
        let (mut hashes, mut starts) = (Vec::new(), Vec::new());
        for i in 0..4 {
            let start = NOW - Millis::from_hours(2) + HALF * i;
            let done = w.version(MOOD, start, 1).await.unwrap();
            assert_eq!(done.summary["contributing"], 3);
            hashes.push(done.window.unwrap());
            starts.push(start);
        }
        // Each once more, now that later ones are there: the same, and refused as it is published.
        for (start, hash) in starts.iter().zip(&hashes) {
            let again = w.rehearse(MOOD, HALF, *start).await;
            assert_eq!(again.window.as_ref(), Some(hash));
        }
        let mut tables = Vec::new();
        for sql in TABLES {
            let rows = w.db.query(sql, vec![]).await.unwrap();
            let rows: Vec<Vec<Value>> = rows.iter().map(|r| r.values().to_vec()).collect();
            assert!(!rows.is_empty(), "{sql}");
            tables.push(rows);
        }
        all.push((hashes, tables));
    }
    assert_eq!(all.len(), 1 + usize::from(postgres_is_wanted()));
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "the engines differ");
}

#[tokio::test]
async fn a_change_of_the_universe_is_a_new_look_at_the_newest_window() {
    for engine in engines() {
        let w = world(engine).await;
        for i in 0..4 {
            w.version(MOOD, NOW - Millis::from_hours(2) + HALF * i, 1).await.unwrap();
        }
        let moods = "select count(*) from mea_dynamics.moods";
        assert_eq!(w.count(moods).await, 4);
        w.pass(MINUTE * 5);
        let sol = json!({"symbols": ["SOLUSDT"]});
        w.job(UNIVERSE_DESK, "universe.disable", sol).await.unwrap();
        let changed = w.seen().events.pop().unwrap();
        let event = |id, payload| EventRecord {
            id,
            at: w.clock.now(),
            kind: UNIVERSE_CHANGED.into(),
            key: "universe".into(),
            payload,
            cycle: None,
        };
        let observed = "select count(*) from mea_dynamics.mea_mood_observations
            where app_session_id = 'mood-refresh-30m'";
        // Delivered twice, observed once.
        for _ in 0..2 {
            let done = w.event(MOOD_REFRESH, event(7, changed.payload.clone())).await.unwrap();
            assert_eq!(done.summary[0]["window_start"], json!(NOW - HALF));
            assert!(done.summary[0]["mood"]["coeff"].is_number(), "{}", done.summary);
            assert_eq!(w.count(observed).await, 1);
        }
        let row =
            w.db.query_one(
                "select payload from mea_dynamics.mea_mood_observations
                 where app_session_id = 'mood-refresh-30m'",
                vec![],
            )
            .await
            .unwrap();
        assert_eq!(row.json(0).unwrap()["symbols"], json!(["BTCUSDT", "ETHUSDT"]));
        assert_eq!(w.count(moods).await, 4, "the window's own mood stays");
        // A change that touches no symbol of the mood is none of its business.
        let other = json!({"by": "user", "enabled": [], "disabled": ["LTCUSDT"]});
        let done = w.event(MOOD_REFRESH, event(8, other)).await.unwrap();
        assert!(done.summary[0]["mood"].is_null());
        assert_eq!(w.count(observed).await, 1);
    }
}
