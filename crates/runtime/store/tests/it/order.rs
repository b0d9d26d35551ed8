//! Events in the order of their commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use watchbell_core::port::{EventQuery, Store, Target};
use watchbell_core::{Commit, NewEvent};
use watchbell_testkit::registration;

use crate::{NOW, Rig, at, row, step};

const EMITTERS: i64 = 8;
const COMMITS: i64 = 25;

/// A reader that follows by cursor passes over no event: none becomes visible behind it.
pub(crate) async fn numbers_follow_commits(rig: Rig) {
    let names: Vec<String> = (0..EMITTERS).map(|n| format!("emitter-{n}")).collect();
    let workers: Vec<_> = names.iter().map(|name| registration(name)).collect();
    rig.store.register(&workers, NOW).await.unwrap();
    let mut emitters = Vec::new();
    for (n, name) in (0..).zip(names) {
        let grant = rig.grant(&name, Target::Standing, NOW).await;
        let store = Arc::clone(&rig.store);
        emitters.push(tokio::spawn(async move {
            for k in 0..COMMITS {
                let key = format!("{n} {k}");
                if k % 5 == 4 {
                    let kind = "order".to_owned();
                    let payload = serde_json::Value::Null;
                    let event = NewEvent { kind, key, dedupe: None, payload };
                    store.emit(vec![event], at(1)).await.unwrap();
                    continue;
                }
                // Between nothing and a hundred rows, before the events and after them.
                let mut commit = Commit::new();
                for r in 0..(n * 31 + k * 17) % 100 {
                    commit.push(row((n * COMMITS + k) * 1_000 + r, &name));
                }
                commit.emit("order", key, serde_json::Value::Null);
                store.publish(step(&name, &grant, at(1), commit)).await.unwrap();
            }
        }));
    }
    let finished = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn(follow(Arc::clone(&rig.store), Arc::clone(&finished)));
    for emitter in emitters {
        emitter.await.unwrap();
    }
    finished.store(true, Ordering::Release);
    let seen = reader.await.unwrap();
    let query = EventQuery { after: Some(0), kinds: vec![], limit: 10_000 };
    let all: Vec<_> = rig.store.events(query).await.unwrap().into_iter().map(|e| e.id).collect();
    assert_eq!(all.len() as i64, EMITTERS * COMMITS);
    assert_eq!(seen, all);
}

/// Reads on from the newest number that it has seen, until there is nothing more to come.
async fn follow(store: Arc<dyn Store>, finished: Arc<AtomicBool>) -> Vec<i64> {
    let mut seen = Vec::new();
    loop {
        let last = finished.load(Ordering::Acquire);
        let after = Some(seen.last().copied().unwrap_or(0));
        let query = EventQuery { after, kinds: vec!["order".to_owned()], limit: 7 };
        let page = store.events(query).await.unwrap();
        if page.is_empty() && last {
            return seen;
        }
        seen.extend(page.into_iter().map(|e| e.id));
    }
}
