//! What a commit changed that something else may be waiting for: the wake-up, within a process and
//! between nodes. It gives latency; cursors, frontiers and due times in the store give correctness,
//! so a lost wake-up costs time and nothing else.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::commit::{Commit, Condition};
use crate::trigger::{Trigger, WindowInput};
use crate::units::SeriesName;

/// Kinds of things that a commit touched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Effects {
    /// Event kinds emitted.
    pub events: BTreeSet<String>,
    /// Cover sources extended.
    pub covers: BTreeSet<String>,
    /// Job kinds enqueued.
    pub jobs: BTreeSet<String>,
    /// Series in which a window finished.
    pub series: BTreeSet<SeriesName>,
    /// Conditions set.
    pub conditions: Vec<Condition>,
    /// Kinds of which an operator cancelled a running job.
    pub cancelled: BTreeSet<String>,
    /// A node gave leases back: whoever waits for one may try again.
    pub leases: bool,
    /// Desired states were changed by an operator on another node.
    pub desired: bool,
    /// Words may have been lost: everyone looks again.
    pub everything: bool,
}

impl Effects {
    /// What `commit` touches.
    #[must_use]
    pub fn of(commit: &Commit) -> Self {
        Self {
            events: commit.events.iter().map(|e| e.kind.clone()).collect(),
            covers: commit.covers.iter().map(|c| c.source.clone()).collect(),
            jobs: commit.jobs.iter().map(|j| j.kind.clone()).collect(),
            series: BTreeSet::new(),
            conditions: commit.conditions.clone(),
            ..Self::default()
        }
    }

    /// Words may have been lost.
    #[must_use]
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Adds what `other` changed; of one condition the later word counts.
    pub fn merge(&mut self, other: Self) {
        self.events.extend(other.events);
        self.covers.extend(other.covers);
        self.jobs.extend(other.jobs);
        self.series.extend(other.series);
        self.cancelled.extend(other.cancelled);
        for condition in other.conditions {
            self.conditions.retain(|c| c.name != condition.name);
            self.conditions.push(condition);
        }
        self.leases |= other.leases;
        self.desired |= other.desired;
        self.everything |= other.everything;
    }

    /// Whether nobody can be waiting for this.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a worker of this trigger should look again.
    #[must_use]
    pub fn wakes(&self, trigger: &Trigger) -> bool {
        match trigger {
            Trigger::Every { .. } | Trigger::Cron(_) | Trigger::Manual => false,
            _ if self.everything => true,
            Trigger::Window(spec) => {
                self.series.contains(&spec.series)
                    || spec.inputs.iter().any(|input| match input {
                        WindowInput::Cover { source, .. } => self.covers.contains(source),
                        WindowInput::Window { series }
                        | WindowInput::Settled { series }
                        | WindowInput::Previous { series } => self.series.contains(series),
                    })
            }
            Trigger::On { kinds } => {
                kinds.iter().any(|pattern| self.events.iter().any(|kind| matches(pattern, kind)))
            }
            Trigger::Queue(spec) => spec
                .kinds
                .iter()
                .any(|k| self.jobs.contains(&k.name) || self.cancelled.contains(&k.name)),
            Trigger::Stream => false,
        }
    }
}

/// Whether an event kind matches a subscription pattern, which may end in `*`.
#[must_use]
pub fn matches(pattern: &str, kind: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == kind, |prefix| kind.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_kinds_or_prefixes() {
        for (pattern, kind, yes) in [
            ("window.completed", "window.completed", true),
            ("window.completed", "window.completed.late", false),
            ("window.*", "window.completed", true),
            ("window.*", "windows", false),
            ("*", "anything", true),
        ] {
            assert_eq!(matches(pattern, kind), yes, "{pattern} {kind}");
        }
    }
}
