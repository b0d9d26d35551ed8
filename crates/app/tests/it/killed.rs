//! "It cannot publish half a window": the binary is killed at random instants while it works, and
//! the store is audited after each of them.

use std::hash::{BuildHasher, Hasher};
use std::path::Path;

use serde_json::Value;
use watchbell_clock::Stopwatch;
use watchbell_core::values;
use watchbell_db::{Database, Options};

use crate::harness::Home;

const KILLS: u32 = 30;
const ARGS: [&str; 8] = ["demo", "--days", "2", "--seed", "7", "--no-http", "--speed", "600"];

/// Small, seeded, and the same everywhere.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

pub(crate) fn seed() -> u64 {
    let given = std::env::var("WATCHBELL_KILL_SEED").ok();
    let given = given.map(|s| s.parse().expect("WATCHBELL_KILL_SEED is a number"));
    given.unwrap_or_else(|| {
        std::collections::hash_map::RandomState::new().build_hasher().finish() | 1
    })
}

fn log_size(data: &Path) -> u64 {
    let size = |name: &str| std::fs::metadata(data.join(name)).map_or(0, |m| m.len());
    size("watchbell.db") + size("watchbell.db-wal")
}

#[test]
fn a_kill_at_any_moment_loses_nothing_and_leaves_nothing_half_done() {
    let seed = seed();
    eprintln!("WATCHBELL_KILL_SEED={seed}");
    let mut dice = Dice::new(seed);
    let home = Home::new();
    let mut opened = false;
    for kill in 1..=KILLS {
        // From then on, each trade of the account becomes a move.
        if kill > KILLS / 3 && !opened {
            home.run(["market", "sessions", "open", "--owner", "ada", "--balance", "USDT=100000"])
                .ok();
            opened = true;
        }
        let child = home.spawn(ARGS);
        // In the middle of its writing: after so many bytes, or so long if it has none to write.
        let (bytes, millis) = (dice.below(1_500_000), 100 + dice.below(1_200) as i64);
        let (begin, watch) = (log_size(&home.data()), Stopwatch::start());
        while log_size(&home.data()).saturating_sub(begin) < bytes && watch.millis().0 < millis {
            std::thread::yield_now();
        }
        child.kill();
        if home.data().join("watchbell.db").exists() {
            let checked = home.run(["db", "check", "--json"]);
            // Killed before its first migration was committed, a store has no tables yet.
            let pending = &checked.json()["pending_migrations"];
            let fresh = pending.as_array().is_some_and(|p| !p.is_empty());
            assert!(
                checked.json()["problems"] == Value::Array(Vec::new())
                    && (fresh || checked.code() == 0),
                "seed {seed}, kill {kill}: {checked:#?}"
            );
        }
    }
    let mut last = ARGS.to_vec();
    last.push("--once");
    home.run(last).ok();
    home.run(["db", "check"]).ok();
    home.run(["run", "cin-import-moves", "--once"]).ok();
    audit(&home.data(), seed);
    let again = home.run(["run", "cin-import-moves", "--once", "--json"]).ok().json();
    assert_eq!(again["summary"]["imported"], 0, "seed {seed}: {again}");
    let verified = home.run(["window", "verify", "--json"]).json();
    let verified = verified.as_array().expect("a list");
    assert!(verified.len() > 100, "seed {seed}: only {} windows", verified.len());
    for window in verified {
        // A trade that was imported after a window had ended changes the balances at its end, and
        // whoever verifies it is told so.
        let late = window["series"].as_str().is_some_and(|s| s.starts_with("mea-"))
            && window["verdict"] == "inputs_changed";
        assert!(late || window["verdict"] == "same", "seed {seed}: {window}");
    }
}

/// What `db check` does not ask: the ledger has every due instant exactly once, and candles have no
/// gap at all on this market.
fn audit(data: &Path, seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let db = Database::open(&Options::new(data.join("watchbell.db"))).unwrap();
        let rows = db
            .query(
                "select due, through, count from ops.occurrences where worker = 'market-sync'
                 order by due",
                values![],
            )
            .await
            .unwrap();
        assert!(rows.len() > 10, "seed {seed}: only {} ledger rows", rows.len());
        let period = 30_000;
        let mut next = rows[0].i64(0).unwrap();
        for row in &rows {
            let (due, through, count) =
                (row.i64(0).unwrap(), row.i64(1).unwrap(), row.i64(2).unwrap());
            assert_eq!(due, next, "seed {seed}: a due instant is missing or doubled");
            assert_eq!((through - due) / period + 1, count, "seed {seed}: {due} to {through}");
            next = through + period;
        }
        let broken = db
            .query(
                "select symbol from ingest.kline_raw group by symbol
                 having count(*) <> (max(open_time) - min(open_time)) / 60000 + 1",
                values![],
            )
            .await
            .unwrap();
        assert!(broken.is_empty(), "seed {seed}: candles are missing: {broken:?}");
        // The account trades every ten minutes, whether or not somebody looks.
        let gaps = db
            .query(
                "select symbol from market.account_trades group by symbol
                 having count(*) <> max(trade_id)
                    or (max(trade_time) - min(trade_time)) / 600000 + 1 <> count(*)",
                values![],
            )
            .await
            .unwrap();
        assert!(gaps.is_empty(), "seed {seed}: trades of the account are missing: {gaps:?}");
        let trades = db
            .query_one(
                "select (select count(*) from cin_aux.rt_move),
                   (select count(*) from (select distinct src_symbol, src_trade_id
                      from cin_aux.rt_move) m),
                   (select count(*) from market.account_trades t, cin_aux.rt_session s
                      where t.trade_time >= s.started_at),
                   (select count(*) from cin_aux.rt_move_error)",
                values![],
            )
            .await
            .unwrap();
        let [moves, distinct, due, errors] = [0, 1, 2, 3].map(|i| trades.i64(i).unwrap());
        assert!(moves > 0, "seed {seed}: nothing was traded");
        assert_eq!(moves, distinct, "seed {seed}: a trade was moved twice");
        assert_eq!(moves + errors, due, "seed {seed}: a trade of the account was lost");
        let half = db
            .query("select id from ops.cycles where outcome = 'running'", values![])
            .await
            .unwrap();
        assert!(half.is_empty(), "seed {seed}: cycles still run: {half:?}");
    });
}
