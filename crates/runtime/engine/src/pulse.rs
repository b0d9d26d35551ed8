//! A node's signs of life, where several nodes share a store, and what their answers tell: how far
//! its clock is from the store's, and how long an answer takes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;
use watchbell_core::port::{Hearing, NodeBeat};
use watchbell_core::{Millis, SessionId, Time, chain, schedule};

use crate::cycle::{Runner, STORE};

/// A clock that is further than this from the store's is worth a warning: due instants are by the
/// node's clock.
const SKEWED: Millis = Millis::from_secs(1);

/// What a node knows of itself and of its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its boot.
    pub session: SessionId,
    /// Whether it is the only node on its store.
    pub exclusive: bool,
    /// Whether it hears other nodes.
    pub hearing: Hearing,
    /// By how much the store's clock was ahead of its own at the last answer.
    pub skew: Option<Millis>,
    /// How long that answer took.
    pub round_trip: Option<Millis>,
    /// When it was given, by the node's clock.
    pub answered_at: Option<Time>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Measured {
    skew: Option<Millis>,
    round_trip: Option<Millis>,
    answered_at: Option<Time>,
}

/// Beats until its node ends.
#[derive(Debug, Clone)]
pub(crate) struct Pulse {
    runner: Arc<Runner>,
    measured: Arc<Mutex<Measured>>,
    task: Option<AbortHandle>,
}

impl Pulse {
    /// Gives the first sign of life, and goes on. A node that is alone gives none.
    pub(crate) async fn start(runner: Arc<Runner>) -> Self {
        let mut pulse = Self { runner, measured: Arc::default(), task: None };
        if !pulse.runner.options.exclusive {
            let next = pulse.beat(&mut 0).await;
            pulse.task = Some(tokio::spawn(pulse.clone().go_on(next)).abort_handle());
        }
        pulse
    }

    pub(crate) fn end(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }

    pub(crate) fn view(&self) -> NodeView {
        let Measured { skew, round_trip, answered_at } = *self.measured();
        NodeView {
            session: self.runner.session.clone(),
            exclusive: self.runner.options.exclusive,
            hearing: self.runner.store.hears(),
            skew,
            round_trip,
            answered_at,
        }
    }

    fn measured(&self) -> MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn go_on(self, first: Time) {
        let (mut next, mut missed) = (first, 0);
        loop {
            self.runner.clock.sleep_until(next).await;
            next = self.beat(&mut missed).await;
        }
    }

    /// One sign of life. Returns when the next one is due.
    async fn beat(&self, missed: &mut u32) -> Time {
        let Runner { store, clock, session, options, gauge, .. } = &*self.runner;
        let asked = clock.now();
        let known = *self.measured();
        let beat = NodeBeat {
            session: session.clone(),
            ttl: options.lease_ttl,
            skew: known.skew,
            round_trip: known.round_trip,
            api: options.api.clone(),
            profile: options.profile_name.clone(),
        };
        let answer = match gauge.time(store.beat_node(beat, asked)).await {
            Ok(answer) => answer,
            Err(error) => {
                *missed = missed.saturating_add(1);
                let pause = STORE.delay(*missed, session.as_str());
                if missed.is_power_of_two() {
                    tracing::warn!(
                        "cannot give the store a sign of life, again in {pause}: {}",
                        chain(&error)
                    );
                }
                return clock.now() + pause;
            }
        };
        *missed = 0;
        let now = clock.now();
        let round_trip = now - asked;
        let skew = answer.store_now - (asked + Millis(round_trip.0 / 2));
        let is_off = |skew: Millis| Millis(skew.0.abs()) > SKEWED + round_trip;
        if is_off(skew) && !known.skew.is_some_and(is_off) {
            let (by, side) =
                if skew.0 > 0 { (skew, "behind") } else { (Millis(-skew.0), "ahead of") };
            tracing::warn!(
                "the clock of this node is {by} {side} the store's: what is due at a time runs \
                 that much off; set the clocks of all nodes by NTP"
            );
        }
        if answer.lost > 0 {
            tracing::warn!(
                "closed the sessions of {} nodes that were not heard of any more",
                answer.lost
            );
        }
        self.runner.measured(skew);
        *self.measured() =
            Measured { skew: Some(skew), round_trip: Some(round_trip), answered_at: Some(now) };
        schedule::jittered(
            session.as_str(),
            asked + options.lease_renew,
            Millis(options.lease_renew.0 / 10),
        )
    }
}
