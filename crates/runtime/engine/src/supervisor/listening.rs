//! What other nodes say, and what is done where they cannot be heard: a worker that waits for
//! windows or events is then sent to look from time to time. Consumers of the queue see to
//! themselves.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use watchbell_core::lifecycle::State;
use watchbell_core::port::{Hearing, Store};
use watchbell_core::{Millis, Time, Trigger, schedule};

use super::{Message, Supervisor, Timer};

/// While other nodes are not heard: the first and the longest pause between the looks of two
/// workers. They take turns, so that an idle node asks about once a second in all.
pub(super) const POLL: (Millis, Millis) = (Millis(100), Millis::from_secs(1));
/// While they are heard, everyone looks this often all the same.
const FLOOR: Millis = Millis::from_secs(15);

/// Passes on what other nodes tell, until it is dropped.
pub(super) fn listen(store: Arc<dyn Store>, outbox: mpsc::UnboundedSender<Message>) -> JoinSet<()> {
    let mut ears = JoinSet::new();
    ears.spawn(async move {
        loop {
            let effects = store.told().await;
            if outbox.send(Message::Told(effects)).is_err() {
                return;
            }
        }
    });
    ears
}

impl Supervisor {
    /// Sets the timer of the next look; none where there can be no other node.
    pub(super) fn arm_poll(&mut self, now: Time) {
        let pause = match self.runner.store.hears() {
            Hearing::Alone => return,
            Hearing::Listening => FLOOR,
            Hearing::Deaf => self.poll,
        };
        let seed = self.runner.session.as_str();
        let at = schedule::jittered(seed, now + pause, Millis(pause.0 / 5));
        self.poll_at = Some(at);
        self.arm(at, Timer::Poll);
    }

    pub(super) fn poll(&mut self, now: Time) {
        let deaf = self.runner.store.hears() == Hearing::Deaf;
        for _ in 0..self.slots.len() {
            let i = self.poll_next % self.slots.len();
            self.poll_next = i + 1;
            let slot = &self.slots[i];
            let reacts = matches!(slot.unit.def.trigger, Trigger::Window(_) | Trigger::On { .. });
            if reacts && slot.state == State::Running && slot.running.is_empty() {
                self.poke(i, now);
                if deaf {
                    break;
                }
            }
        }
        self.poll = (self.poll * 2).min(POLL.1);
        self.arm_poll(now);
    }

    /// There was something to do, and so there may be more soon.
    pub(super) fn found_something(&mut self, i: usize, now: Time) {
        let reacts =
            matches!(self.slots[i].unit.def.trigger, Trigger::Window(_) | Trigger::On { .. });
        if reacts && self.poll > POLL.0 {
            self.poll = POLL.0;
            if self.runner.store.hears() == Hearing::Deaf {
                self.arm_poll(now);
            }
        }
    }
}
