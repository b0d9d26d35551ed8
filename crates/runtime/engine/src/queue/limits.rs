//! What ends a job from outside: its time limits, a lease that cannot be trusted any more, and the
//! stop of its worker.

use watchbell_core::job::Kind;
use watchbell_core::{Millis, Time};

use super::calls::Told;
use super::job::{Assignment, Held};
use super::{Consumer, soonest};
use crate::host::Asked;

impl Consumer {
    /// Looks at the time limits of what runs, and at the age of its leases.
    pub(super) fn check(&mut self, now: Time) {
        let def = &self.unit.def;
        let mut next = None;
        let mut overdue = Vec::new();
        for (held, running) in &self.running {
            let Assignment { kind, signals, .. } = &running.assignment;
            let trust = self.runner.trust(running.leased_at);
            if trust > now {
                soonest(&mut next, trust);
            } else if signals.asked() != Some(Asked::Lost) {
                tracing::warn!(
                    worker.name = %def.name,
                    "{}: the lease of job {} could not be renewed in time: asked to stop",
                    def.name, held.0
                );
                signals.ask(Asked::Lost);
            }
            // What it came to is being published: that has the lease to end it.
            if signals.is_ending() {
                continue;
            }
            let (soft, hard) = of(kind, def.soft_timeout, def.hard_timeout);
            let age = now - running.since;
            if age >= hard {
                if signals.asked().is_none() {
                    signals.ask(Asked::TimeUp);
                }
                overdue.push((*held, format!("ran longer than its hard time limit of {hard}")));
                continue;
            }
            if age >= soft && signals.asked().is_none() {
                tracing::warn!(
                    worker.name = %def.name,
                    "{}: job {} has run for {age}, past its soft time limit of {soft}: asked to \
                     stop", def.name, held.0
                );
                signals.ask(Asked::TimeUp);
            }
            soonest(&mut next, running.since + if age >= soft { hard } else { soft });
        }
        self.check_at = next;
        for (held, why) in overdue {
            self.abort(held, why, now);
        }
    }

    /// Ends a running job from outside. Its end is judged and told like any other; its task can
    /// publish nothing more, for the token ends with that.
    fn abort(&mut self, held: Held, why: String, now: Time) {
        let Some(running) = self.running.get_mut(&held) else { return };
        running.task.abort();
        let gone_by = now + self.runner.options.abort_grace;
        self.gone_by.push((gone_by, held.0, running.task.clone()));
        // From here on it only waits for the store.
        running.assignment.signals.end();
        let (assignment, since) = (running.assignment.clone(), running.since);
        running.task = self.tasks.spawn(async move {
            match assignment.aborted(since, why).await {
                Some(ended) => Told::Ended(ended),
                None => Told::Broke(held, "it ran without a grant".to_owned()),
            }
        });
    }

    /// Asks everything that runs to end, and sets a deadline.
    pub(super) fn stop(&mut self) {
        for running in self.running.values() {
            running.assignment.signals.cancel();
        }
        self.stopping = Some(self.runner.clock.now() + self.runner.options.stop_grace);
    }

    /// The grace is over: aborts what still runs. What the store cannot be told within another
    /// grace is left to be reclaimed.
    pub(super) fn abandon(&mut self, now: Time) {
        let deaf: Vec<_> = self
            .running
            .iter()
            .filter(|(_, r)| !r.assignment.signals.is_ending())
            .map(|(held, _)| *held)
            .collect();
        if !deaf.is_empty() {
            let name = &self.unit.def.name;
            tracing::warn!(
                worker.name = %name,
                "{} jobs of {name} did not stop within {}: aborted",
                deaf.len(), self.runner.options.stop_grace
            );
        }
        for held in deaf {
            // Which it was asked before: this is no overrun of its time.
            self.abort(held, "aborted: it did not stop when asked".to_owned(), now);
        }
        self.leave_at = Some(now + self.runner.options.abort_grace);
    }
}

/// The soft and the hard time limit of a kind, or those of its worker.
pub(super) fn of(kind: &Kind, soft: Millis, hard: Millis) -> (Millis, Millis) {
    kind.timeout.map_or((soft, hard.max(soft)), |limit| (limit, limit * 2))
}
