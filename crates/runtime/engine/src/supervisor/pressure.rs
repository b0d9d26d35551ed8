//! What the node does about a slow store: looks at how its calls go, slows down whoever runs at an
//! interval, and says so once for each change.

use watchbell_core::gate::Gate;
use watchbell_core::pressure::{Pressure, keeps};
use watchbell_core::{Ledger, NewEvent, Time, Trigger, schedule};

use super::{Supervisor, Timer};
use crate::recorder::Record;
use crate::slot::Slot;

/// Whether a slow store makes this worker run less often. One that keeps no ledger costs the store
/// next to nothing and takes samples that nobody could take later; one that is opportunistic waits.
fn is_stretched(slot: &Slot) -> bool {
    let def = &slot.unit.def;
    let interval = matches!(def.trigger, Trigger::Every { .. });
    interval && def.ledger == Ledger::Full && !def.opportunistic
}

impl Supervisor {
    /// Sets the timer of the next look, if there is none: an idle node looks at nothing.
    pub(super) fn arm_look(&mut self, now: Time) {
        if !self.look_armed {
            self.look_armed = true;
            self.arm(now + self.options.look_every, Timer::Look);
        }
    }

    pub(super) fn look(&mut self, now: Time) {
        self.look_armed = false;
        let gauge = &self.runner.gauge;
        let before = self.pressure;
        self.pressure = before.after(gauge.look(), now);
        gauge.set(self.pressure);
        if self.pressure.is_on() || !gauge.is_still() {
            self.arm_look(now);
        }
        if self.pressure.factor != before.factor {
            self.pressure_changed(before, now);
        }
    }

    fn pressure_changed(&mut self, before: Pressure, now: Time) {
        let Pressure { factor, p95, exhausted, .. } = self.pressure;
        for slot in self.slots.iter_mut().filter(|s| is_stretched(s)) {
            slot.stretch = factor;
        }
        let rises = factor > before.factor;
        if rises {
            tracing::warn!(
                "the store is slow ({}): workers that run at an interval do so {factor} times less \
                 often, and opportunistic ones not at all",
                self.pressure
            );
        } else if factor == 1 {
            tracing::info!("the store is fast again: workers run as often as they are due");
        } else {
            tracing::info!("the store recovers: workers run {factor} times less often than due");
        }
        let kind = if rises { "store.throttled" } else { "store.recovered" };
        let session = &self.runner.session;
        let event = NewEvent {
            kind: kind.into(),
            key: session.to_string(),
            dedupe: Some(format!("{kind}/{session}/{}", now.0)),
            payload: serde_json::json!({
                "factor": factor, "before": before.factor, "p95_ms": p95, "exhausted": exhausted,
            }),
        };
        self.recorder.put(Record::Event(event, now));
    }

    /// The due instant that a worker runs at next: at present, it may pass over some.
    pub(super) fn next_kept(&self, i: usize) -> Option<Time> {
        let slot = &self.slots[i];
        let (trigger, due) = (&slot.unit.def.trigger, slot.upcoming?.0);
        let kept = |t: &Time| keeps(trigger, *t, slot.stretch);
        std::iter::once(due).chain(schedule::upcoming(trigger, due)).find(kept)
    }

    /// The gate of a worker that passes over due instants.
    pub(super) fn throttled(&self, i: usize) -> Option<Gate> {
        if self.slots[i].stretch == 1 || !self.slots[i].running.is_empty() {
            return None;
        }
        let Pressure { factor, p95, exhausted, .. } = self.pressure;
        Some(Gate::Throttled { factor, p95, exhausted, until: self.next_kept(i)? })
    }
}
