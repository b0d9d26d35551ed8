//! "Nothing lost, nothing published twice": node processes share a store and work through a queue
//! whose jobs each append one row in their commit, while nodes are killed and frozen and the server
//! is restarted. At the end every row is there once, and every reclaim and refusal is on record.
//!
//! A node process is this very program, started with one hidden test.
//!
//! `WATCHBELL_CHAOS_SEED` repeats the story of a failure as far as a story of processes can be
//! repeated; `WATCHBELL_CHAOS_JOBS` makes it longer or shorter.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use watchbell_clock::Clock;
use watchbell_core::job::{Kind, Mask};
use watchbell_core::port::{Queue as _, Store};
use watchbell_core::{
    BoxFuture, Commit, Cycle, CycleInput, Definition, Done, Expect, Fault, Millis, NewJob,
    QueueSpec, Statement, Trigger, Worker, values,
};
use watchbell_db::{Database, Line, Migration, Options as File, ServerOptions};
use watchbell_engine::{Node, Options};
use watchbell_store::SqlStore;
use watchbell_testkit as testkit;

const KIND: &str = "append";
const LINE: Line = Line {
    name: "chaos",
    migrations: &[Migration {
        number: 1,
        name: "rows",
        // No key: a row that is written twice must be seen.
        sql: "create table ops.appended (n {i64} not null) /*sqlite*/ strict /*end*/;",
    }],
};
const TTL: Millis = Millis::from_secs(3);
const RENEW: Millis = Millis::from_secs(1);

/// Appends the number of its payload.
struct Append;

impl Worker for Append {
    fn define(&self) -> Definition {
        let kinds = vec![Kind::new(KIND)];
        let queue = QueueSpec { kinds, concurrency: 64, prefetch: 192 };
        Definition::new("append", Trigger::Queue(queue))
    }

    fn run<'a>(&'a self, cycle: &'a Cycle) -> BoxFuture<'a, Result<Done, Fault>> {
        Box::pin(async move {
            let CycleInput::Job { payload, .. } = &cycle.input else {
                return Err(Fault::permanent("no job"));
            };
            let n = payload["n"].as_i64().ok_or_else(|| Fault::permanent("no number"))?;
            let row = Statement::new("insert into ops.appended (n) values ($1)", values![n]);
            Ok(Done::new((), Commit::new().with(row.expect(Expect::Exactly(1)))))
        })
    }
}

async fn open(place: &str, clock: &Clock) -> Result<(Database, SqlStore), watchbell_db::DbError> {
    if place.starts_with("postgres:") {
        let db = Database::connect(&ServerOptions::new(place)).await?;
        Ok((db.clone(), SqlStore::listening(db, clock)))
    } else {
        let db = Database::open(&File::new(place))?;
        Ok((db.clone(), SqlStore::new(db)))
    }
}

/// A node process of the tests below, not a test: runs until its standard input ends.
#[test]
#[ignore = "a node process of the chaos tests"]
fn node() {
    let place = std::env::var("WATCHBELL_CHAOS_STORE").expect("started by a chaos test");
    let dir = std::env::var("WATCHBELL_CHAOS_DIR").expect("started by a chaos test");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let clock = Clock::system();
        let (_, store) = loop {
            match open(&place, &clock).await {
                Ok(opened) => break opened,
                // The server is being restarted.
                Err(e) if e.is_transient() => clock.sleep(Millis(100)).await,
                Err(e) => panic!("{e}"),
            }
        };
        let store: Arc<dyn Store> = Arc::new(store);
        let mut options = Options::new(Path::new(&dir));
        options.lease_ttl = TTL;
        options.lease_renew = RENEW;
        options.exclusive = !place.starts_with("postgres:");
        let boot = testkit::session(&format!("node-{}", std::process::id()), clock.now());
        let node = loop {
            let append: Arc<dyn Worker> = Arc::new(Append);
            let workers = vec![(append.define(), append)];
            let start = Node::start(
                Arc::clone(&store),
                clock.clone(),
                boot.clone(),
                workers,
                options.clone(),
            );
            match start.await {
                Ok(node) => break node,
                Err(e) => {
                    eprintln!("not yet: {e}");
                    clock.sleep(Millis(200)).await;
                }
            }
        };
        let end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        end.await.unwrap().unwrap();
        if let Err(e) = node.shutdown("clean stop").await {
            eprintln!("stopped without a word to the store: {e}");
        }
    });
}

fn spawn(place: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["node", "--exact", "--ignored", "--nocapture"])
        .env("WATCHBELL_CHAOS_STORE", place)
        .env("WATCHBELL_CHAOS_DIR", dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success(), "kill {name} {}", child.id());
}

struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let given = std::env::var("WATCHBELL_CHAOS_SEED").ok();
        let given = given.map(|s| s.parse().expect("WATCHBELL_CHAOS_SEED is a number"));
        let seed = given.unwrap_or_else(|| {
            std::collections::hash_map::RandomState::new().build_hasher().finish() | 1
        });
        eprintln!("WATCHBELL_CHAOS_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn jobs(default: i64) -> i64 {
    let given = std::env::var("WATCHBELL_CHAOS_JOBS").ok();
    given.map_or(default, |n| n.parse().expect("WATCHBELL_CHAOS_JOBS is a number"))
}

/// Adds the jobs of a range. An answer that was lost is asked for again: the keys see to it that
/// none is added twice.
async fn enqueue(store: &SqlStore, clock: &Clock, range: std::ops::Range<i64>) {
    let some: Vec<NewJob> = range
        .map(|n| NewJob {
            unique_key: Some(n.to_string()),
            unique_in: Mask::EVER,
            ..NewJob::new(KIND, serde_json::json!({ "n": n }))
        })
        .collect();
    while let Err(e) = store.enqueue(some.clone(), clock.now()).await {
        eprintln!("enqueue again: {e}");
        clock.sleep(Millis(200)).await;
    }
}

async fn number(db: &Database, clock: &Clock, sql: &'static str) -> i64 {
    let give_up = clock.now() + Millis::from_secs(60);
    loop {
        match db.query_one(sql, vec![]).await {
            Ok(row) => return row.i64(0).unwrap(),
            Err(e) if clock.now() < give_up => {
                eprintln!("asked again: {e}");
                clock.sleep(Millis(200)).await;
            }
            Err(e) => panic!("{sql}: {e}"),
        }
    }
}

/// What must be true when all is over.
async fn audit(db: &Database, clock: &Clock, total: i64) {
    let count = |sql| number(db, clock, sql);
    assert_eq!(count("select count(*) from ops.jobs").await, 0, "a job is left");
    assert_eq!(count("select count(*) from ops.appended").await, total, "rows");
    assert_eq!(count("select count(distinct n) from ops.appended").await, total, "distinct rows");
    let succeeded = "select count(*) from ops.job_history where state = 'succeeded'";
    assert_eq!(count(succeeded).await, total, "jobs that succeeded");
    assert_eq!(count("select count(*) from ops.job_history").await, total, "jobs that ended");
    let reclaims = count("select coalesce(sum(reclaims), 0) from ops.job_history").await;
    let lost = count("select count(*) from ops.job_attempts where outcome = 'lost'").await;
    assert_eq!(reclaims, lost, "each reclaim is an attempt on record");
    let refused = count("select count(*) from ops.events where kind = 'commit.refused'").await;
    eprintln!("{total} rows, {reclaims} reclaims, {refused} commits refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_on_a_restarting_server_publish_each_job_once() {
    if !testkit::postgres_is_wanted() {
        return;
    }
    let server = testkit::Cluster::start();
    let clock = Clock::system();
    let mut dice = Dice::new();
    let total = jobs(100_000);
    let place = server.url(&server.create_database());
    let (db, store) = open(&place, &clock).await.unwrap();
    db.migrate(&[watchbell_store::LINE, LINE], clock.now()).await.unwrap();
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut nodes: Vec<Child> = dirs.iter().map(|d| spawn(&place, d.path())).collect();
    let known = "select count(*) from ops.job_kinds";
    testkit::until("the kind is registered", || number(&db, &clock, known), |n| *n == 1).await;

    // Frozen nodes, and when each goes on.
    let mut frozen: Vec<(usize, watchbell_core::Time)> = Vec::new();
    let rounds = 40;
    for round in 0..rounds {
        enqueue(&store, &clock, total * round / rounds..total * (round + 1) / rounds).await;
        let now = clock.now();
        frozen.retain(|(i, until)| {
            if *until <= now {
                signal(&nodes[*i], "-CONT");
            }
            *until > now
        });
        let busy: BTreeSet<usize> = frozen.iter().map(|(i, _)| *i).collect();
        let i = dice.below(3) as usize;
        match dice.below(8) {
            0..=2 => {
                nodes[i].kill().unwrap();
                nodes[i].wait().unwrap();
                frozen.retain(|(other, _)| *other != i);
                nodes[i] = spawn(&place, dirs[i].path());
            }
            // One node at least goes on.
            3..=5 if busy.len() < 2 && !busy.contains(&i) => {
                signal(&nodes[i], "-STOP");
                frozen.push((i, now + Millis(500 + dice.below(6_000) as i64)));
            }
            6 if round % 3 == 0 => {
                if dice.below(2) == 0 {
                    server.stop_immediate();
                } else {
                    server.stop_fast();
                }
                server.start_again();
            }
            _ => {}
        }
        clock.sleep(Millis(dice.below(900) as i64)).await;
    }
    for (i, _) in frozen {
        signal(&nodes[i], "-CONT");
    }
    let give_up = clock.now() + Millis::from_mins(4);
    while number(&db, &clock, "select count(*) from ops.jobs").await > 0 {
        assert!(clock.now() < give_up, "jobs are left after four minutes");
        clock.sleep(Millis(200)).await;
    }
    for mut node in nodes {
        drop(node.stdin.take());
        assert!(node.wait().unwrap().success(), "a node ended badly");
    }
    audit(&db, &clock, total).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_on_a_file_publishes_each_job_once() {
    let clock = Clock::system();
    let mut dice = Dice::new();
    let total = jobs(20_000);
    let temp = testkit::TempDb::sqlite(&[watchbell_store::LINE, LINE]).await;
    let place = temp.dir().join("watchbell.db").display().to_string();
    // The jobs are there before the node, and afterwards only the node has the file.
    let store = SqlStore::new(temp.db.clone());
    let registration = watchbell_core::port::Registration {
        kinds: vec![Kind::new(KIND)],
        ..testkit::registration("append")
    };
    store.register(&[registration], clock.now()).await.unwrap();
    enqueue(&store, &clock, 0..total).await;
    for _ in 0..20 {
        let mut node = spawn(&place, temp.dir());
        clock.sleep(Millis(100 + dice.below(600) as i64)).await;
        node.kill().unwrap();
        node.wait().unwrap();
    }
    let mut node = spawn(&place, temp.dir());
    let give_up = clock.now() + Millis::from_mins(3);
    while number(&temp.db, &clock, "select count(*) from ops.jobs").await > 0 {
        assert!(clock.now() < give_up, "jobs are left after three minutes");
        clock.sleep(Millis(200)).await;
    }
    drop(node.stdin.take());
    assert!(node.wait().unwrap().success(), "the node ended badly");
    audit(&temp.db, &clock, total).await;
}
