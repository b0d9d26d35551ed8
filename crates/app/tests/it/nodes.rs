//! Several nodes on one server: each worker runs on one of them, and on another when that one stops,
//! dies or hangs.

use std::io::{BufRead, BufReader};

use serde_json::Value;
use watchbell_clock::Stopwatch;
use watchbell_core::Millis;
use watchbell_testkit::Cluster;

use crate::harness::{Home, Running, server};

/// A worker that holds its lease from one cycle to the next.
const STANDING: &str = "market-sampler";
/// One that holds its lease during a cycle.
const SYNC: &str = "market-sync";
/// Nothing takes longer, on whatever machine.
const PATIENCE: Millis = Millis::from_secs(90);

/// Nodes that share a database and a simulated venue.
struct Team {
    yaml: String,
    /// Asks, and runs no node.
    observer: Home,
    _venue: Running,
}

impl Team {
    fn new(server: &Cluster, lease: &str) -> Self {
        let venue = Home::new();
        let mut venue = venue.spawn([
            "venue-sim",
            "--bind",
            "127.0.0.1:0",
            "--json",
            // So that a synchronisation is under way for most of the time.
            "--fault",
            "klines:latency:ms=700",
        ]);
        let mut said = String::new();
        let out = venue.0.stdout.take().expect("its output is ours");
        for line in BufReader::new(out).lines() {
            let line = line.expect("it prints text");
            said.push_str(&line);
            if line == "}" {
                break;
            }
        }
        let at: Value = serde_json::from_str(&said).expect("where the venue is");
        let url = server.url(&server.create_database());
        let yaml = format!(
            "store: {{ url: \"{url}\" }}\nvenue: {{ base_url: {}, ws_url: {}, alternates: [] }}\n\
             node: {{ {lease} health_scan: 2s }}\nmarket: {{ symbols: [BTCUSDT], windows: [30m], \
             history: 1h, sync_interval: 1s }}\n",
            at["url"], at["streams"]
        );
        Self { observer: Home::configured(&yaml), yaml, _venue: venue }
    }

    fn start(&self) -> Node {
        let home = Home::configured(&self.yaml);
        let mut process = home.spawn(["up", "--http-port", "0"]);
        process.wait_for("watchbell is up");
        Node { process, _home: home }
    }

    fn status(&self) -> Value {
        self.observer.run(["status", "--json"]).ok().json()
    }

    /// The process that holds the lease of a worker at the moment. None is ever held twice.
    fn holder(&self, worker: &str) -> Option<u64> {
        let status = self.status();
        let mut held: Vec<(String, u64)> = Vec::new();
        for node in status["nodes"].as_array().expect("a list of nodes") {
            let pid = node["session"]["pid"].as_u64().expect("a process");
            for lease in node["holds"].as_array().expect("a list of leases") {
                held.push((lease[0].as_str().expect("a worker").to_owned(), pid));
            }
        }
        for (worker, _) in &held {
            let times = held.iter().filter(|(other, _)| other == worker).count();
            assert_eq!(times, 1, "{worker} is held {times} times: {status}");
        }
        held.into_iter().find(|(held, _)| held == worker).map(|(_, pid)| pid)
    }

    /// Waits until that process holds it; how long that took.
    fn until_held_by(&self, node: &Node) -> Millis {
        until("the lease changes hands", || self.holder(STANDING) == Some(node.pid()))
    }

    fn runs(&self, worker: &str) -> i64 {
        let status = self.status();
        let workers = status["workers"].as_array().expect("a list of workers");
        let line = workers.iter().find(|w| w["record"]["name"] == worker).expect("the worker");
        line["record"]["total_runs"].as_i64().expect("a count")
    }
}

struct Node {
    process: Running,
    _home: Home,
}

impl Node {
    fn pid(&self) -> u64 {
        self.process.pid().into()
    }
}

/// Asks again and again until it is so; how long that took.
fn until(what: &str, mut holds: impl FnMut() -> bool) -> Millis {
    let watch = Stopwatch::start();
    while !holds() {
        assert!(watch.millis() < PATIENCE, "waited {PATIENCE} until {what}");
    }
    watch.millis()
}

/// The two nodes, the one with the standing lease first.
fn pair(team: &Team) -> (Node, Node) {
    let (a, b) = (team.start(), team.start());
    until("somebody holds the lease", || team.holder(STANDING).is_some());
    if team.holder(STANDING) == Some(a.pid()) { (a, b) } else { (b, a) }
}

#[test]
fn a_node_that_is_stopped_hands_over_at_once() {
    let Some(server) = server() else { return };
    let team = Team::new(server, "");
    let (holder, other) = pair(&team);
    let status = team.status();
    assert_eq!(status["nodes"].as_array().map(Vec::len), Some(2), "{status}");
    assert_eq!(status["node"]["running"], false, "the observer runs none");
    assert!(holder.process.terminate().success());
    let took = team.until_held_by(&other);
    // The lease itself would have run for 30 s. Asking takes most of the time here.
    assert!(took < Millis::from_secs(8), "it took {took}");
    eprintln!("handed over within {took}");
    assert_eq!(team.status()["nodes"].as_array().map(Vec::len), Some(1));
    assert!(other.process.terminate().success());
    team.observer.run(["db", "check"]).ok();
    let refused = team.observer.run(["event", "list", "--kind", "commit.refused", "--json"]);
    assert_eq!(refused.ok().json(), Value::Array(Vec::new()));
}

#[test]
fn a_node_that_dies_or_hangs_is_replaced_when_its_lease_ends_and_cannot_come_back() {
    let Some(server) = server() else { return };
    let team = Team::new(server, "lease_ttl: 3s, lease_renew: 1s,");
    let (killed, second) = pair(&team);
    killed.process.kill();
    let took = team.until_held_by(&second);
    assert!(took < Millis::from_secs(25), "it took {took}, and the lease lasts 3s");
    eprintln!("the killed node was replaced within {took}");

    // One that hangs for longer than its lease comes back to find that it holds nothing.
    let third = team.start();
    let zombie = second;
    zombie.process.signal("STOP");
    team.until_held_by(&third);
    zombie.process.signal("CONT");
    // Again and again, until it hangs in the middle of a cycle and then tries to commit it.
    let (nodes, mut wakings) = ([zombie, third], 1);
    let refused = || {
        let list = ["event", "list", "--kind", "commit.refused", "--json"];
        let events = team.observer.run(list).ok().json();
        !events.as_array().expect("a list").is_empty()
    };
    until("a commit is refused, and recorded", || {
        let working = team.holder(SYNC);
        let Some(node) = nodes.iter().find(|n| Some(n.pid()) == working) else {
            return refused();
        };
        node.process.signal("STOP");
        let before = team.runs(SYNC);
        until("somebody else does the work", || team.runs(SYNC) > before);
        node.process.signal("CONT");
        wakings += 1;
        until("the work goes on", || team.runs(SYNC) > before + 1);
        refused()
    });
    eprintln!("refused after {wakings} wakings");
    team.observer.run(["db", "check"]).ok();
    // They are nodes like any other again: one stops, and the other has everything.
    let [zombie, third] = nodes;
    assert!(third.process.terminate().success());
    team.until_held_by(&zombie);
    assert!(zombie.process.terminate().success());
    team.observer.run(["db", "check"]).ok();
}

#[test]
fn a_server_that_goes_away_is_waited_for() {
    if !watchbell_testkit::postgres_is_wanted() {
        return;
    }
    let server = Cluster::start();
    let team = Team::new(&server, "");
    server.stop_fast();
    let home = Home::configured(&team.yaml);
    let mut up = home.spawn(["up", "--http-port", "0"]);
    let (tell, told) = std::sync::mpsc::channel();
    let watcher = std::thread::spawn(move || {
        let texts = ["trying again in", "watchbell is up"];
        let said = up.wait_through(&texts, |place| tell.send(place).expect("somebody listens"));
        (up, said)
    });
    let asked = team.observer.run(["status"]);
    assert_eq!(asked.code(), 5, "a command does not wait: {asked:?}");
    // It has met the server that is away before that one comes back.
    assert_eq!(told.recv().expect("it tries"), 0);
    server.start_again();
    let (up, said) = watcher.join().expect("it comes up");
    assert!(said.contains(&format!("127.0.0.1:{}", server.port())), "{said}");

    let goes_on = |after: i64| {
        until("the work goes on", || team.runs(SYNC) > after + 1);
    };
    goes_on(0);
    for stop in [Cluster::stop_fast, Cluster::stop_immediate] {
        let before = team.runs(SYNC);
        stop(&server);
        server.start_again();
        goes_on(before);
    }
    let status = home.run(["status", "--json"]).ok().json();
    assert_eq!(status["node"]["pid"], up.pid(), "the same node, without a restart");
    assert!(up.terminate().success());
    team.observer.run(["db", "check"]).ok();
}
