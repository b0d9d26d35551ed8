//! The market's commands on a real store, beside a node and without one; and the gate of `run-all`.

use std::io::Read;

use watchbell_clock::Stopwatch;
use watchbell_core::Millis;
use watchbell_db::{Database, Options};

use crate::harness::{CONFIG, Ended, Home, finish, server};

const BANNER: &str = "jobs: starting (set RUN_JOBS=1 to enable background workers)\n";

/// A day of a simulated market, caught up, on each engine.
fn caught_up() -> Vec<Home> {
    let mut homes = vec![Home::configured("{}\n")];
    homes.extend(server().map(|server| {
        let url = server.url(&server.create_database());
        Home::configured(&format!("store: {{ url: \"{url}\" }}\n"))
    }));
    for home in &homes {
        home.run([CONFIG, "demo", "--once", "--days", "1", "--no-http"]).ok();
    }
    homes
}

/// Evidence by key, as `LEVEL MESSAGE`.
#[track_caller]
fn evidence(ended: &Ended, key: &str) -> String {
    let items = ended.json()["items"].as_array().cloned().unwrap_or_default();
    let item = items.iter().find(|i| i["key"] == key);
    let item = item.unwrap_or_else(|| panic!("no {key} in {ended:#?}"));
    let word = |k: &str| item[k].as_str().unwrap_or_default().to_owned();
    format!("{} {}", word("level"), word("message"))
}

#[test]
fn the_market_is_shown_and_checked_beside_a_node_and_without_one() {
    for home in caught_up() {
        let look = |where_: &str| {
            let status = home.run(["market", "status", "--json"]).ok().json();
            let node = where_ == "beside a node";
            assert_eq!(status["node_runs"], node, "{where_}");
            let screen = home.run(["market", "status"]).ok().out;
            assert_eq!(screen.contains("none runs: all of this is as the last"), !node, "{screen}");
            let symbols = status["symbols"].as_array().unwrap();
            assert_eq!(symbols.len(), 7, "{where_}");
            for symbol in symbols {
                assert!(symbol["kline"].is_string(), "{where_}: {symbol}");
                assert!(symbol["windows"].as_array().unwrap().iter().all(|w| w.is_string()));
                assert!(symbol["vectors"]["inner"].is_number(), "{where_}: {symbol}");
            }
            for command in
                ["universe", "samples", "vectors", "jobs", "windows", "packs", "matrix", "mood"]
            {
                home.run(["market", command]).ok();
            }
            let window = home.run(["market", "window", "ETHUSDT", "3h"]).ok();
            assert!(window.out.contains("ln(price / opening)"), "{window:#?}");
            assert!(!window.out.contains('\x1b'), "no colours but on a terminal");
            let smoke = home.run(["smoke", "run", "--json"]);
            assert_eq!(smoke.code(), 0, "{where_}: {smoke:#?}");
            for (key, said) in [
                ("db:objects", "ok all"),
                ("universe:enabled", "ok 7 of 7"),
                ("straux-gaps:30m", "ok "),
                ("persist:30m", "ok "),
                ("persist:1h", "ok "),
                ("persist:3h", "ok "),
                ("window:1h", "ok "),
                ("idhr:histogram", "ok "),
                ("heartbeat:ledger", "ok "),
            ] {
                let found = evidence(&smoke, key);
                assert!(found.starts_with(said), "{where_}: {key}: {found}");
            }
            let packs = home.run(["market", "packs"]).ok().out;
            assert!(packs.contains("\nsmoke "), "{where_}: {packs}");
        };
        // Each change is a job, whoever carries it out; afterwards all is as it was.
        let steer = |id: &str| {
            let said = home.run(["market", "universe", "disable", "DOGEUSDT"]).ok().out;
            assert!(said.starts_with("universe.disable done as job "), "{said}");
            let listed = home.run(["market", "universe"]).ok().out;
            assert!(listed.contains("7 symbols, 6 enabled"), "{listed}");
            home.run(["market", "universe", "enable", "DOGEUSDT"]).ok();
            let rebuilt = home.run(["market", "rebuild"]).ok().out;
            assert!(rebuilt.starts_with("market.rebuild done as job "), "{rebuilt}");
            let rebuilt = home.run(["market", "rebuild"]).ok().out;
            assert!(rebuilt.contains("symbols 0  tickers 0"), "{rebuilt}");
            let unknown = home.run(["market", "universe", "disable", "NOSUCHUSDT"]);
            assert_eq!(unknown.code(), 3, "{unknown:#?}");
            assert!(unknown.err.contains("no symbol `NOSUCHUSDT`"), "{unknown:#?}");
            let open = ["market", "sessions", "open", "--owner", "ada", "--balance", "USDT=1000"];
            home.run(open).ok();
            let again = home.run(open);
            assert_eq!(again.code(), 4, "{again:#?}");
            assert!(again.err.contains("is open: close it first"), "{again:#?}");
            let shown = home.run(["market", "sessions", "show", id]).ok().out;
            assert!(shown.contains("OPEN") && shown.contains("1000"), "{shown}");
            home.run(["market", "sessions", "close", id]).ok();
            let again = home.run(["market", "sessions", "close", id, "--json"]);
            assert_eq!(again.code(), 4, "{again:#?}");
            assert!(again.err.contains("problem:conflict"), "{again:#?}");
            let absent = home.run(["market", "sessions", "close", "99"]);
            assert_eq!(absent.code(), 3, "{absent:#?}");
            assert!(absent.err.contains("there is no session `99`"), "{absent:#?}");
            let shown = home.run(["market", "sessions", "show", id]).ok().out;
            assert!(shown.contains("CLOSED"), "{shown}");
            let core = home.run(["smoke", "run", "cin-core", "--json"]);
            assert!(evidence(&core, "cin-core:balances").starts_with("ok "), "{core:#?}");
        };
        look("without a node");
        steer("1");
        let before = home.run(["smoke", "run", "universe", "--dry-run", "--json"]).ok().json();
        assert_eq!(before["scope"], "smoke:universe");
        let packs = home.run(["market", "packs", "--json"]).ok().json();
        let scopes: Vec<_> = packs.as_array().unwrap().iter().map(|p| p["scope"].clone()).collect();
        assert!(!scopes.contains(&before["scope"]), "a dry run stores nothing: {scopes:?}");

        let mut node = home.spawn([CONFIG, "demo", "--days", "1", "--http-port", "0"]);
        node.wait_for("the API answers at");
        look("beside a node");
        steer("2");
        let flags = home.run(["market", "flags", "list"]).ok().out;
        assert!(flags.contains("wallet") && flags.contains("yes"), "{flags}");
        assert!(node.terminate().success());
        let flags = home.run(["market", "flags", "list"]).ok().out;
        assert!(!flags.contains("yes"), "a clean stop closes them: {flags}");
    }
}

#[test]
fn what_makes_no_sense_of_the_market_is_refused() {
    let homes = caught_up();
    let home = &homes[0];
    let bad = home.path().join("bad.csv");
    std::fs::write(&bad, "date,amount\n").unwrap();
    let bad = bad.to_str().unwrap();
    for (args, code, said) in [
        (&["market", "window", "ETHUSD", "3h"][..], 3, "ETHUSDT 3h"),
        (&["market", "matrix", "cycles"], 3, "cycle"),
        (&["market", "backfill", "ETHUSD", "2026-11-01", "2026-11-02"], 3, "ETHUSDT"),
        (&["market", "backfill", "ETHUSDT", "2026-11-02", "2026-11-01"], 2, "there is no time"),
        (&["market", "flags", "open", "marked"], 3, "market"),
        (&["market", "universe", "enable", "BTC-USD"], 2, "BTC-USD"),
        (&["market", "universe", "enable", "FOO"], 2, "FOO"),
        (&["market", "ledger", "import", "none.csv"], 2, "none.csv"),
        (&["market", "ledger", "import", bad], 2, "bad.csv"),
        (&["market", "sessions", "open", "--label", "7m"], 2, "`7m` is no window"),
        (&["market", "mood", "45m"], 3, "there is no label `45m`"),
        (&["db", "backup", bad], 4, "exists"),
        (&["smoke", "run", "universes"], 3, "universe"),
    ] {
        let ended = home.run(args);
        assert_eq!(ended.code(), code, "{args:?}: {ended:#?}");
        assert!(ended.err.contains(said), "{args:?}: {}", ended.err);
    }
    let status = home.run(["market", "status", "--json"]).ok().json();
    let day = status["now"].as_str().unwrap()[..10].to_owned();
    let preview = ["market", "backfill", "ETHUSDT", &day, &format!("{day}T23:59:59Z"), "--preview"];
    let said = home.run(preview).ok().out;
    assert!(said.starts_with("cycles=") && said.contains(", windows="), "{said}");
}

#[test]
fn a_boot_after_a_crash_says_so_for_good() {
    let home = Home::new();
    let mut node = home.spawn(["demo", "--days", "1", "--no-http"]);
    node.wait_for("live.");
    node.kill();
    home.run(["demo", "--once", "--days", "1", "--no-http"]).ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let db = Database::open(&Options::new(home.data().join("watchbell.db"))).unwrap();
        let rows = db
            .query("select event from ops.app_ledger where topic = 'session' order by id", vec![])
            .await
            .unwrap();
        let events: Vec<&str> = rows.iter().map(|r| r.text(0).unwrap()).collect();
        assert_eq!(events, ["boot", "boot", "crash-recovered", "clean-stop"]);
        db.close().await.unwrap();
    });
}

/// Acceptance scenario (g).
#[test]
fn run_all_without_run_jobs_ends_at_once_and_touches_nothing() {
    for value in [None, Some("0"), Some(""), Some("yes")] {
        let home = Home::new();
        let mut command = home.command(["run-all"]);
        // A server that is not there would be waited for, if anything were opened.
        command.env("DATABASE_URL", "postgres://nobody@127.0.0.1:9/nothing");
        if let Some(value) = value {
            command.env("RUN_JOBS", value);
        }
        let watch = Stopwatch::start();
        let ended = finish(command).ok();
        let took = watch.millis();
        assert_eq!((ended.out.as_str(), ended.err.as_str()), (BANNER, ""), "{value:?}");
        assert!(took < Millis::from_secs(1), "{value:?} took {took}");
        assert!(!home.data().exists(), "nothing was made");
        let left = std::fs::read_dir(home.path()).unwrap().count();
        assert_eq!(left, 0, "{value:?}: nothing was written");
    }
}

#[test]
fn run_all_with_run_jobs_says_how_large_the_universe_is() {
    let home = Home::configured(
        "venue: { base_url: \"http://127.0.0.1:9\", ws_url: \"ws://127.0.0.1:9\", alternates: [] }\n\
         market: { symbols: [BTCUSDT, ETHUSDT, SOLUSDT] }\n",
    );
    let mut command = home.command(["run-all", "--http-port", "0"]);
    command
        .env("RUN_JOBS", "1")
        .env("STR_AUX_RUNNER_INTERVAL_MS", "soon")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut node = crate::harness::Running(command.spawn().unwrap());
    node.wait_for_all(&["the default holds", "watchbell is up"]);
    let mut out = node.0.stdout.take().unwrap();
    assert!(node.terminate().success());
    let mut said = String::new();
    out.read_to_string(&mut said).unwrap();
    assert!(said.contains("universe: 3 symbols"), "{said}");
}
