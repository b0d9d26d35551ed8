//! What a commit changed that something else may be waiting for: the in-process wake-up. It gives
//! latency; cursors, frontiers and due times in the store give correctness, so a lost wake-up costs
//! time and nothing else.

use std::collections::BTreeSet;

use watchbell_core::{Commit, Condition, SeriesName, Trigger, WindowInput};

/// Kinds of things that a commit touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
        }
    }

    /// Whether nobody can be waiting for this.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
            && self.covers.is_empty()
            && self.jobs.is_empty()
            && self.series.is_empty()
            && self.conditions.is_empty()
    }

    /// Whether a worker of this trigger should look again.
    #[must_use]
    pub fn wakes(&self, trigger: &Trigger) -> bool {
        match trigger {
            Trigger::Window(spec) => {
                self.series.contains(&spec.series)
                    || spec.inputs.iter().any(|input| match input {
                        WindowInput::Cover { source, .. } => self.covers.contains(source),
                        WindowInput::Window { series } => self.series.contains(series),
                    })
            }
            Trigger::On { kinds } => {
                kinds.iter().any(|pattern| self.events.iter().any(|kind| matches(pattern, kind)))
            }
            Trigger::Queue { kinds, .. } => kinds.iter().any(|kind| self.jobs.contains(kind)),
            Trigger::Every { .. } | Trigger::Cron(_) | Trigger::Stream | Trigger::Manual => false,
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
