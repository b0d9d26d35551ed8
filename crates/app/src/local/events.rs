//! Events: emitting one as an operator, and waiting for the next ones.

use watchbell_api::{ControlError, EmitRequest, Emitted, Result};
use watchbell_core::port::EventQuery;
use watchbell_core::{Effects, EventRecord, Millis, NewEvent};

use super::LocalControl;

/// Longest kind of an event, in bytes.
const KIND_BYTES: usize = 128;
/// The first and the longest pause between two looks for an event, in real time. Nobody looks
/// while nobody waits.
const LOOK: (Millis, Millis) = (Millis(50), Millis(400));

impl LocalControl {
    pub(super) async fn emit_event(&self, request: EmitRequest) -> Result<Emitted> {
        let EmitRequest { kind, key, payload } = request;
        if !is_kind(&kind) {
            return Err(ControlError::invalid(format!("`{kind}` is not the kind of an event"))
                .help("use lower-case words with dots between them, such as `deploy.finished`"));
        }
        let event = NewEvent { kind: kind.clone(), key, dedupe: None, payload };
        let ids = self.store.emit(vec![event], self.clock.now()).await?;
        if let Some(engine) = &self.engine {
            engine.wake(Effects { events: [kind].into(), ..Effects::default() });
        }
        let id = ids.first().copied();
        id.map(|id| Emitted { id })
            .ok_or_else(|| ControlError::internal("the store gave the event no number"))
    }

    /// The events that a query finds, or, once there are some, those that it finds within `wait`.
    pub(super) async fn await_events(
        &self,
        query: EventQuery,
        wait: Millis,
    ) -> Result<Vec<EventRecord>> {
        // The clock of a demonstration runs faster than the one who waits.
        let real = |span: Millis| Millis((span.0 as f64 * self.clock.speed()) as i64);
        let until = self.clock.now() + real(wait);
        let mut pause = LOOK.0;
        loop {
            let events = self.store.events(query.clone()).await?;
            let left = until.since(self.clock.now());
            if !events.is_empty() || left <= Millis::ZERO {
                return Ok(events);
            }
            self.clock.sleep(real(pause).min(left)).await;
            pause = Millis(pause.0 * 2).min(LOOK.1);
        }
    }
}

fn is_kind(text: &str) -> bool {
    let word = |w: &str| {
        w.starts_with(|c: char| c.is_ascii_lowercase())
            && w.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c))
    };
    text.len() <= KIND_BYTES && text.split('.').all(word)
}
