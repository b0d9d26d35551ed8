//! What others are shown of the jobs that have ended: heartbeats, the log, and what they changed.

use watchbell_core::port::{Beat, Outcome};
use watchbell_core::schedule;

use super::Consumer;
use crate::cycle::Ran;

impl Consumer {
    pub(super) fn beat_of(&self, ran: &Ran) -> Beat {
        let failed = matches!(ran.outcome, Outcome::Failed | Outcome::TimedOut);
        let succeeded = ran.outcome == Outcome::Succeeded;
        let error = || (ran.finished_at, ran.error.clone().unwrap_or_default());
        Beat {
            worker: self.unit.def.name.clone(),
            runs: 1,
            errors: failed.into(),
            failing: failed.into(),
            last_success_at: succeeded.then_some(ran.finished_at),
            last_error: failed.then(error),
            last_started_at: ran.started_at,
            last_completed_at: ran.finished_at,
            latency: ran.latency,
            summary: if succeeded { ran.summary.clone() } else { serde_json::Value::Null },
            next_due: schedule::next_due(&self.unit.def.trigger, ran.finished_at),
        }
    }

    /// Of a spell of failures the first is told, then the second, the fourth and so on, and its
    /// end: what fails a thousand times must not bury the log.
    pub(super) fn log_end(&mut self, id: i64, ran: &Ran) {
        let name = &self.unit.def.name;
        let why = ran.error.as_deref().unwrap_or("no reason given");
        match ran.outcome {
            Outcome::Succeeded => {
                let failed = std::mem::take(&mut self.failures);
                if failed > 1 {
                    tracing::info!(
                        worker.name = %name, job.id = id,
                        "{name}: a job succeeded again after {failed} failures"
                    );
                }
            }
            Outcome::Snoozed | Outcome::Cancelled => tracing::debug!(
                worker.name = %name, job.id = id, "{name}: job {id} {}: {why}", ran.outcome
            ),
            outcome => {
                self.failures = self.failures.saturating_add(1);
                let n = self.failures;
                let times = if n > 1 { format!(" ({n} in a row)") } else { String::new() };
                if n.is_power_of_two() {
                    tracing::warn!(
                        worker.name = %name, job.id = id,
                        "{name}: job {id} {outcome}{times}: {why}"
                    );
                } else {
                    tracing::debug!(
                        worker.name = %name, job.id = id,
                        "{name}: job {id} {outcome}{times}: {why}"
                    );
                }
            }
        }
    }

    /// Tells the supervisor what has ended since the last time, and what that changed.
    pub(super) fn report(&mut self) {
        if let Some(beat) = self.beat.take() {
            self.control.beats(beat);
        }
        if !self.effects.is_empty() {
            self.runner.tell(std::mem::take(&mut self.effects));
        }
    }
}
