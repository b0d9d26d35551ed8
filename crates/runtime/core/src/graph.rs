//! Start order of workers.
//!
//! A worker starts after those that it needs and stops before them. Among workers that do not need
//! each other, the order of declaration decides, so the same definitions always give the same order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use crate::units::WorkerName;
use crate::worker::Definition;

/// In which order the included workers start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Order {
    /// Each included worker once, after all that it needs.
    pub start: Vec<WorkerName>,
    /// Hard dependencies `(worker, needed)` that became soft because `needed` is not included.
    pub softened: Vec<(WorkerName, WorkerName)>,
}

impl Order {
    /// The reverse of the start order.
    pub fn stop(&self) -> impl Iterator<Item = &WorkerName> {
        self.start.iter().rev()
    }
}

/// Why there is no order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two definitions have one name.
    #[error("worker `{0}` is defined twice: rename one of the two")]
    Duplicate(WorkerName),
    /// A dependency names no worker.
    #[error("worker `{worker}` needs `{needed}`, which does not exist{hint}")]
    Unknown {
        /// The worker.
        worker: WorkerName,
        /// What it names.
        needed: WorkerName,
        /// `; did you mean X?`, or nothing.
        hint: String,
    },
    /// The profile names no such worker.
    #[error("worker `{name}` does not exist{hint}")]
    NotDefined {
        /// The name.
        name: WorkerName,
        /// `; did you mean X?`, or nothing.
        hint: String,
    },
    /// Workers need each other in a circle.
    #[error("workers need each other in a circle: {}; make one of these dependencies soft or remove it", path(.0))]
    Circle(
        /// The circle; the first name is repeated at the end.
        Vec<WorkerName>,
    ),
}

fn path(names: &[WorkerName]) -> String {
    names.iter().map(WorkerName::as_str).collect::<Vec<_>>().join(" -> ")
}

/// Orders the `included` workers.
///
/// Soft dependencies order the start like hard ones; a circle that only closes through a soft one
/// is opened there. All definitions are checked for names, whether included or not.
///
/// # Errors
/// [`GraphError`]: a name that is defined twice or not at all, or a circle of hard dependencies.
pub fn order(
    definitions: &[Definition],
    included: &BTreeSet<WorkerName>,
) -> Result<Order, GraphError> {
    let mut position = BTreeMap::new();
    for (i, d) in definitions.iter().enumerate() {
        if position.insert(&d.name, i).is_some() {
            return Err(GraphError::Duplicate(d.name.clone()));
        }
    }
    let hint = |name: &WorkerName| {
        nearest(name.as_str(), definitions.iter().map(|d| d.name.as_str()))
            .map_or_else(String::new, |n| format!("; did you mean `{n}`?"))
    };
    for d in definitions {
        for needed in d.needs.iter().map(|n| &n.worker) {
            if !position.contains_key(needed) {
                return Err(GraphError::Unknown {
                    worker: d.name.clone(),
                    needed: needed.clone(),
                    hint: hint(needed),
                });
            }
        }
    }
    if let Some(name) = included.iter().find(|n| !position.contains_key(n)) {
        return Err(GraphError::NotDefined { name: name.clone(), hint: hint(name) });
    }

    let chosen: Vec<&Definition> =
        definitions.iter().filter(|d| included.contains(&d.name)).collect();
    let softened = chosen
        .iter()
        .flat_map(|d| d.needs.iter().map(move |n| (d, n)))
        .filter(|(_, n)| !n.soft && !included.contains(&n.worker))
        .map(|(d, n)| (d.name.clone(), n.worker.clone()))
        .collect();
    Ok(Order { start: Walk::new(&chosen).run()?, softened })
}

/// Kahn's algorithm over the chosen workers, each known by its position among them.
struct Walk<'a> {
    chosen: &'a [&'a Definition],
    at: BTreeMap<&'a WorkerName, usize>,
    started: Vec<bool>,
    /// Of each worker, how many of its dependencies have not started.
    open: Vec<Open>,
    /// Of each worker, who depends on it, once for each time that it is named.
    needed_by: Vec<Vec<Edge>>,
    /// Workers without an open dependency. Those that have started meanwhile are passed over.
    ready: Earliest,
    /// Workers without an open hard dependency, likewise.
    startable: Earliest,
}

/// Dependencies of one worker that have not started.
#[derive(Clone, Copy, Default)]
struct Open {
    hard: usize,
    soft: usize,
}

/// A dependency, seen from the worker that is needed.
#[derive(Clone, Copy)]
struct Edge {
    by: usize,
    soft: bool,
}

/// Positions of which the lowest comes first.
type Earliest = BinaryHeap<Reverse<usize>>;

impl<'a> Walk<'a> {
    fn new(chosen: &'a [&'a Definition]) -> Self {
        let n = chosen.len();
        let at: BTreeMap<_, _> = chosen.iter().enumerate().map(|(i, d)| (&d.name, i)).collect();
        let (mut open, mut needed_by) = (vec![Open::default(); n], vec![Vec::new(); n]);
        for (by, d) in chosen.iter().enumerate() {
            for need in &d.needs {
                let Some(needed) = at.get(&need.worker) else { continue };
                needed_by[*needed].push(Edge { by, soft: need.soft });
                let count = if need.soft { &mut open[by].soft } else { &mut open[by].hard };
                *count += 1;
            }
        }
        let where_open = |test: fn(&Open) -> bool| {
            open.iter().enumerate().filter(|(_, o)| test(o)).map(|(i, _)| Reverse(i)).collect()
        };
        let ready = where_open(|o| o.hard + o.soft == 0);
        let startable = where_open(|o| o.hard == 0);
        Self { chosen, at, started: vec![false; n], open, needed_by, ready, startable }
    }

    fn run(mut self) -> Result<Vec<WorkerName>, GraphError> {
        let mut start = Vec::with_capacity(self.chosen.len());
        while let Some(i) = self.next() {
            self.started[i] = true;
            start.push(self.chosen[i].name.clone());
            for Edge { by, soft } in std::mem::take(&mut self.needed_by[i]) {
                let open = &mut self.open[by];
                *(if soft { &mut open.soft } else { &mut open.hard }) -= 1;
                if open.hard + open.soft == 0 {
                    self.ready.push(Reverse(by));
                } else if open.hard == 0 && !soft {
                    self.startable.push(Reverse(by));
                }
            }
        }
        match self.started.iter().position(|started| !started) {
            None => Ok(start),
            Some(first) => Err(GraphError::Circle(self.circle(first))),
        }
    }

    /// The first declared worker whose needs are started; failing that, the first whose hard needs
    /// are, which opens a circle through a soft dependency.
    fn next(&mut self) -> Option<usize> {
        let Self { ready, startable, started, .. } = self;
        let earliest = |heap: &mut Earliest| loop {
            match heap.pop() {
                Some(Reverse(i)) if started[i] => {}
                other => return other.map(|Reverse(i)| i),
            }
        };
        earliest(ready).or_else(|| earliest(startable))
    }

    /// The circle that is met from `worker`, one of those that could not start. Each of them has a
    /// hard need that could not start either, so the path never ends before it meets itself.
    fn circle(&self, worker: usize) -> Vec<WorkerName> {
        let stuck = |i: usize| {
            let hard = self.chosen[i].needs.iter().filter(|n| !n.soft);
            hard.filter_map(|n| self.at.get(&n.worker).copied()).find(|n| !self.started[*n])
        };
        let mut place = vec![None; self.chosen.len()];
        let mut path = Vec::new();
        let mut next = Some(worker);
        while let Some(i) = next {
            path.push(self.chosen[i].name.clone());
            if let Some(from) = place[i].replace(path.len() - 1) {
                return path.split_off(from);
            }
            next = stuck(i);
        }
        path
    }
}

/// The candidate that is most like `name`, if one is like it at all: for "did you mean".
///
/// Likeness is the number of edits, without regard to case, at most a third of the name's length.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let limit = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|c| (edits(&name, &c.to_lowercase()), c))
        .filter(|(n, _)| *n <= limit)
        .min_by_key(|(n, _)| *n)
        .map(|(_, c)| c)
}

/// How many characters must be inserted, removed, replaced or swapped with their neighbour to turn
/// one text into the other.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let (mut before, mut above): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=b.len()).collect());
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let mut best = (above[j] + usize::from(ca != cb)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *ca == b[j - 1] && a[i - 1] == *cb {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        (before, above) = (above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trigger::Trigger;

    /// `a: b c, b, c: ?b`: a needs b and c, c softly needs b.
    fn definitions(text: &str) -> Vec<Definition> {
        text.split(", ")
            .map(|d| {
                let (name, needs) = d.split_once(':').unwrap_or((d, ""));
                needs.split_whitespace().fold(
                    Definition::new(name, Trigger::Manual),
                    |d, n| match n.strip_prefix('?') {
                        Some(soft) => d.after(soft),
                        None => d.needs(n),
                    },
                )
            })
            .collect()
    }

    fn ordered(text: &str, included: &str) -> Result<Order, GraphError> {
        let included = included.split_whitespace().map(WorkerName::from).collect();
        order(&definitions(text), &included)
    }

    #[test]
    fn orders() {
        for (text, included, start) in [
            ("a, b, c", "a b c", "a b c"),
            ("c, b, a", "a b c", "c b a"),
            ("a: b, b: c, c", "a b c", "c b a"),
            ("a: c, b, c", "a b c", "b c a"),
            ("a: ?c, b, c", "a b c", "b c a"),
            ("a: ?b, b: ?a", "a b", "a b"),
            ("a: b, b: ?a", "a b", "b a"),
            ("a: b, b: c, c", "a c", "a c"),
        ] {
            let order = ordered(text, included).unwrap();
            assert_eq!(path(&order.start).replace(" -> ", " "), start, "{text}");
            assert!(order.stop().eq(order.start.iter().rev()));
        }
    }

    #[test]
    fn a_dependency_outside_the_profile_is_soft_and_named() {
        let order = ordered("a: b ?c, b, c", "a").unwrap();
        assert_eq!(order.softened, [("a".into(), "b".into())]);
    }

    #[test]
    fn refusals_say_what_to_do() {
        for (text, included, message) in [
            (
                "a: b, b: a",
                "a b",
                "workers need each other in a circle: a -> b -> a; make one of these dependencies \
                 soft or remove it",
            ),
            (
                "a, x: b, b: c, c: b",
                "a x b c",
                "workers need each other in a circle: b -> c -> b; make one of these dependencies \
                 soft or remove it",
            ),
            (
                "a: a",
                "a",
                "workers need each other in a circle: a -> a; make one of these dependencies soft \
                 or remove it",
            ),
            ("a, b, a", "a", "worker `a` is defined twice: rename one of the two"),
            (
                "market-sync, mood: market-snyc",
                "mood",
                "worker `mood` needs `market-snyc`, which does not exist; did you mean \
                 `market-sync`?",
            ),
            ("a", "a zebra", "worker `zebra` does not exist"),
        ] {
            assert_eq!(ordered(text, included).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_swap_is_one_edit() {
        assert_eq!(edits("snyc", "sync"), 1);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(nearest("Eurpe/Berlin", ["UTC", "Europe/Berlin"]), Some("Europe/Berlin"));
        assert_eq!(nearest("x", ["UTC"]), None);
    }

    /// The same order by the rule itself: looks at every worker for each that starts, and for
    /// circles from each worker before.
    fn plain_order(definitions: &[Definition]) -> Result<Vec<WorkerName>, GraphError> {
        let get = |name: &WorkerName| definitions.iter().find(|d| d.name == *name);
        let mut cleared = BTreeSet::new();
        for root in definitions {
            // The path from the root, each with the number of its needs that were followed.
            let mut trail = vec![(root, 0)];
            while let Some((d, followed)) = trail.last_mut() {
                let Some(need) = d.needs.get(*followed) else {
                    cleared.insert(&d.name);
                    trail.pop();
                    continue;
                };
                *followed += 1;
                let Some(needed) = get(&need.worker).filter(|_| !need.soft) else { continue };
                if let Some(i) = trail.iter().position(|(d, _)| d.name == needed.name) {
                    let names = trail[i..].iter().map(|(d, _)| d.name.clone());
                    return Err(GraphError::Circle(names.chain([needed.name.clone()]).collect()));
                }
                if !cleared.contains(&needed.name) {
                    trail.push((needed, 0));
                }
            }
        }
        let mut start: Vec<WorkerName> = Vec::new();
        loop {
            let waits = |d: &Definition, soft: bool| {
                d.needs.iter().any(|n| {
                    (soft || !n.soft) && get(&n.worker).is_some() && !start.contains(&n.worker)
                })
            };
            let open = || definitions.iter().filter(|d| !start.contains(&d.name));
            match open().find(|d| !waits(d, true)).or_else(|| open().find(|d| !waits(d, false))) {
                Some(next) => start.push(next.name.clone()),
                None => return Ok(start),
            }
        }
    }

    proptest! {
        /// Any graph at all: circles, needs of oneself, the same need twice, workers left out.
        #[test]
        fn the_order_is_that_of_the_rule(
            needs in prop::collection::vec(
                prop::collection::vec((0_usize..10, prop::bool::weighted(0.6)), 0..3), 1..10),
            included in prop::collection::vec(prop::bool::weighted(0.8), 10),
        ) {
            let n = needs.len();
            let name = |i: usize| WorkerName::from(format!("w{i}"));
            let definitions: Vec<_> = needs.iter().enumerate().map(|(i, needs)| {
                needs.iter().filter(|(need, _)| *need < n).fold(
                    Definition::new(name(i), Trigger::Manual),
                    |d, (need, soft)| {
                        if *soft { d.after(name(*need)) } else { d.needs(name(*need)) }
                    },
                )
            }).collect();
            let chosen: Vec<Definition> = definitions
                .iter()
                .zip(&included)
                .filter(|(_, included)| **included)
                .map(|(d, _)| d.clone())
                .collect();
            let included = chosen.iter().map(|d| d.name.clone()).collect();
            let found = order(&definitions, &included).map(|order| order.start);
            prop_assert_eq!(found, plain_order(&chosen));
        }

        /// Needs point only to workers of a lower number, so there is always an order.
        #[test]
        fn each_worker_starts_once_and_after_its_needs(
            needs in prop::collection::vec(prop::collection::vec((0_usize..12, any::<bool>()), 0..4), 1..12),
            shuffle in any::<prop::sample::Index>(),
        ) {
            let name = |i: usize| WorkerName::from(format!("w{i}"));
            let mut definitions: Vec<_> = needs.iter().enumerate().map(|(i, needs)| {
                needs.iter().filter(|(n, _)| *n < i).fold(
                    Definition::new(name(i), Trigger::Manual),
                    |d, (n, soft)| if *soft { d.after(name(*n)) } else { d.needs(name(*n)) },
                )
            }).collect();
            let n = definitions.len();
            definitions.rotate_left(shuffle.index(n));
            let included: BTreeSet<_> = definitions.iter().map(|d| d.name.clone()).collect();
            let order = order(&definitions, &included).unwrap();
            prop_assert_eq!(order.start.iter().cloned().collect::<BTreeSet<_>>(), included);
            prop_assert_eq!(order.start.len(), n);
            let at = |w: &WorkerName| order.start.iter().position(|s| s == w).unwrap();
            for d in &definitions {
                for need in &d.needs {
                    prop_assert!(at(&need.worker) < at(&d.name));
                }
            }
        }
    }
}
