//! Who goes first, once everything of one moment is known: whose turn it is in a lane, by the order
//! of [`core::lane`](watchbell_core::lane), and whether an opportunistic worker may start at all.

use std::collections::BTreeSet;

use watchbell_core::gate::Gate;
use watchbell_core::lane::{self, Last};
use watchbell_core::lifecycle::State;
use watchbell_core::pressure::Pressure;
use watchbell_core::schedule::Fate;
use watchbell_core::{Time, Trigger};

use super::Supervisor;
use crate::slot::Slot;

/// Lanes, and whoever waits for a turn.
#[derive(Debug, Default)]
pub(super) struct Turns {
    lanes: Vec<Lane>,
    /// Lanes in which somebody asked for a turn, or that were left.
    open: BTreeSet<usize>,
    /// Opportunistic workers that want to start.
    waiting: BTreeSet<usize>,
    /// The slots that those give way to.
    first: Vec<usize>,
}

#[derive(Debug, Default)]
struct Lane {
    /// In start order.
    members: Vec<usize>,
    holder: Option<usize>,
    /// What had it last.
    last: Last,
    /// Who had it last.
    previous: Option<usize>,
}

impl Turns {
    /// The lanes of these slots, which are told where they belong.
    pub(super) fn of(slots: &mut [Slot], order: &[usize]) -> Self {
        let specs = slots.iter().filter_map(|s| match &s.unit.def.trigger {
            Trigger::Window(spec) => Some(spec),
            _ => None,
        });
        let depths = lane::depths(specs);
        let mut turns = Self::default();
        let mut names: Vec<String> = Vec::new();
        for &i in order {
            let slot = &mut slots[i];
            let def = &slot.unit.def;
            if let Trigger::Window(spec) = &def.trigger {
                slot.depth = depths.get(&spec.series).copied().unwrap_or(0);
            }
            let windows = matches!(def.trigger, Trigger::Window(_));
            let endless = matches!(def.trigger, Trigger::Stream);
            if (windows || def.lane.is_some()) && !endless && !def.opportunistic {
                turns.first.push(i);
            }
            let Some(name) = &def.lane else { continue };
            let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
                names.push(name.clone());
                turns.lanes.push(Lane::default());
                names.len() - 1
            });
            turns.lanes[at].members.push(i);
            slot.lane = Some(at);
        }
        turns
    }

    /// Who runs a cycle in a lane.
    pub(super) fn holder(&self, lane: usize) -> Option<usize> {
        self.lanes[lane].holder
    }

    /// Asks for a turn on behalf of a slot. Returns whether it must wait for one.
    pub(super) fn ask(&mut self, i: usize, slot: &Slot) -> bool {
        if slot.unit.def.opportunistic {
            self.waiting.insert(i);
        } else if let Some(lane) = slot.lane {
            self.open.insert(lane);
        }
        slot.unit.def.opportunistic || slot.lane.is_some()
    }

    /// A cycle of this slot begins.
    pub(super) fn enter(&mut self, i: usize, slot: &Slot) {
        if let Some(lane) = slot.lane {
            let lane = &mut self.lanes[lane];
            lane.holder = Some(i);
            lane.previous = Some(i);
            lane.last = Last::from(slot.turn());
        }
    }

    /// No cycle of this slot runs any more.
    pub(super) fn leave(&mut self, i: usize, slot: &Slot) {
        if let Some(at) = slot.lane
            && self.lanes[at].holder == Some(i)
        {
            self.lanes[at].holder = None;
            self.open.insert(at);
        }
    }
}

impl Supervisor {
    /// Lets whoever is next start: in each lane one, and then the opportunistic ones, where nobody
    /// is left that they give way to.
    pub(super) fn give_turns(&mut self) {
        let now = self.clock.now();
        while let Some(lane) = self.turns.open.pop_first() {
            self.give_lane(lane, now);
        }
        for i in std::mem::take(&mut self.turns.waiting) {
            if !self.slots[i].wants() || self.slots[i].held_until.is_some_and(|at| at > now) {
                continue; // it asks again
            }
            if self.gives_way(i, now) {
                self.turns.waiting.insert(i);
            } else if let Some(lane) = self.slots[i].lane {
                self.give_lane(lane, now);
            } else {
                self.take_turn(i, now);
            }
        }
    }

    fn give_lane(&mut self, lane: usize, now: Time) {
        let mut best = None;
        for at in 0..self.turns.lanes[lane].members.len() {
            let i = self.turns.lanes[lane].members[at];
            let slot = &self.slots[i];
            if !slot.wants() || slot.held_until.is_some_and(|at| at > now) {
                continue;
            }
            if let Some(gate) = self.gate(i) {
                self.slots[i].drain();
                self.set_gate(i, Some(gate), now);
                continue;
            }
            if !self.slots[i].is_free() || self.gives_way(i, now) {
                continue;
            }
            let Lane { last, previous, .. } = self.turns.lanes[lane];
            let place = self.slots[i].turn().place(last, previous == Some(i));
            if best.is_none_or(|(known, _)| place < known) {
                best = Some((place, i));
            }
        }
        if let Some((_, i)) = best {
            self.take_turn(i, now);
        }
    }

    fn take_turn(&mut self, i: usize, now: Time) {
        if self.gate(i).is_none()
            && self.slots[i].is_free()
            && let Some(intent) = self.slots[i].next_intent()
        {
            self.launch(i, intent, None, now);
        }
    }

    /// Whether an opportunistic worker must wait. One that does is sent to look again when its
    /// patience ends.
    fn gives_way(&mut self, i: usize, now: Time) -> bool {
        let Some(patience) = self.slots[i].unit.def.patience() else { return false };
        let fate = match self.obstacle(i, now) {
            None => return false,
            Some(Obstacle::Pressure) => Fate::Throttled,
            Some(Obstacle::Worker(_)) => Fate::GaveWay,
        };
        let slot = &mut self.slots[i];
        let since = slot.gives_way.map_or(now, |(since, _)| since);
        slot.gives_way = Some((since, fate));
        let until = since + patience;
        if until > now {
            self.wake_at(i, until);
        }
        until > now
    }

    /// What an opportunistic worker gives way to: a slow store, or a worker that runs or is ready.
    fn obstacle(&self, i: usize, now: Time) -> Option<Obstacle> {
        if self.pressure.is_on() {
            return Some(Obstacle::Pressure);
        }
        let busy = self.turns.first.iter().copied().filter(|j| *j != i).find(|&j| {
            let slot = &self.slots[j];
            let ready = slot.wants()
                && slot.state == State::Running
                && slot.held_until.is_none_or(|at| at <= now)
                && matches!(self.gate(j), None | Some(Gate::Lane { .. }));
            !slot.running.is_empty() || ready
        });
        busy.map(Obstacle::Worker)
    }

    /// The gate of an opportunistic worker that waits.
    pub(super) fn way(&self, i: usize, now: Time) -> Option<Gate> {
        let (since, _) = self.slots[i].gives_way?;
        let until = since + self.slots[i].unit.def.patience()?;
        Some(match self.obstacle(i, now)? {
            Obstacle::Pressure => {
                let Pressure { factor, p95, exhausted, .. } = self.pressure;
                Gate::Throttled { factor, p95, exhausted, until }
            }
            Obstacle::Worker(first) => {
                Gate::GivesWay { to: self.slots[first].unit.def.name.clone(), since, until }
            }
        })
    }
}

/// What an opportunistic worker gives way to.
enum Obstacle {
    Pressure,
    Worker(usize),
}
