//! Who goes first in a lane, where one cycle runs at a time.
//!
//! 1. Whoever has just had the lane lets the others in between, unless it computes windows.
//! 2. Ticks go before everything else: they are short, and come at their times only.
//! 3. Windows go in the order of their ends; at one end, in the order in which series are made of
//!    each other (the windows of a sampler, then what is computed from them, and so on); at one depth
//!    of that, the shorter first. So every layer of a long backfill follows closely upon the one that
//!    it is made of.
//! 4. Windows take turns with what is left: events, jobs, operators' commands.
//! 5. Of those that are equal by all this, the first in start order goes first.

use std::collections::BTreeMap;

use crate::trigger::{Trigger, WindowInput, WindowSpec};
use crate::units::{Millis, SeriesName, Time};

/// What a member of a lane would do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A cycle for a due instant.
    Tick,
    /// A window.
    Window {
        /// The end of the next one, as far as it is known. One that is not known yet goes first, to
        /// find out.
        end: Option<Time>,
        /// How deep its series lies: see [`depths`].
        depth: u32,
        /// How long its windows are.
        length: Millis,
    },
    /// An event, jobs, a command.
    Other,
}

/// Who had the lane last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Last {
    /// Nobody yet, or a tick.
    #[default]
    Tick,
    /// A window.
    Window,
    /// An event, jobs, a command.
    Other,
}

impl From<Turn> for Last {
    fn from(turn: Turn) -> Self {
        match turn {
            Turn::Tick => Self::Tick,
            Turn::Window { .. } => Self::Window,
            Turn::Other => Self::Other,
        }
    }
}

impl Turn {
    /// What a trigger's next cycle would be, for one that computes no windows.
    #[must_use]
    pub const fn of(trigger: &Trigger) -> Self {
        match trigger {
            Trigger::Every { .. } | Trigger::Cron(_) => Self::Tick,
            Trigger::Window(spec) => Self::Window { end: None, depth: 0, length: spec.length },
            Trigger::On { .. } | Trigger::Queue(_) | Trigger::Stream | Trigger::Manual => {
                Self::Other
            }
        }
    }

    /// Its place: the lowest goes first. `again` is set for the member that had the lane last.
    #[must_use]
    pub fn place(self, last: Last, again: bool) -> impl Ord + Copy + use<> {
        let (end, depth, length) = match self {
            Self::Tick | Self::Other => (None, 0, Millis::ZERO),
            Self::Window { end, depth, length } => (end, depth, length),
        };
        let class = match (self, last) {
            (Self::Tick, _) => 0,
            (Self::Window { .. }, Last::Tick | Last::Other) | (Self::Other, Last::Window) => 1,
            (Self::Window { .. }, Last::Window) | (Self::Other, Last::Tick | Last::Other) => 2,
        };
        let lets_in = again && !matches!(self, Self::Window { .. });
        (lets_in, class, end, depth, length)
    }
}

/// How deep each series lies: 0 for one that is made of no other series here, otherwise one more than
/// the deepest of those that it is made of.
#[must_use]
pub fn depths<'a>(specs: impl Iterator<Item = &'a WindowSpec>) -> BTreeMap<SeriesName, u32> {
    let inputs: BTreeMap<&SeriesName, Vec<&SeriesName>> = specs
        .map(|s| (&s.series, s.inputs.iter().filter_map(WindowInput::series).collect()))
        .collect();
    let mut depths: BTreeMap<SeriesName, u32> =
        inputs.keys().map(|name| ((*name).clone(), 0)).collect();
    // Each pass settles one more layer. Series that wait for each other in a circle, which never
    // run, stop growing with the last.
    for _ in 0..inputs.len() {
        let mut changed = false;
        for (name, made_of) in &inputs {
            let below = made_of.iter().filter_map(|i| depths.get(*i)).max();
            let depth = below.map_or(0, |d| d + 1);
            changed |= depths.insert((*name).clone(), depth) != Some(depth);
        }
        if !changed {
            break;
        }
    }
    depths
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Millis = Millis::from_mins(30);

    fn window(end: i64, depth: u32, length: Millis) -> Turn {
        Turn::Window { end: Some(Time::EPOCH + HALF * end), depth, length }
    }

    /// The names of the turns in the order in which they get the lane.
    fn order(last: Last, turns: &[(&'static str, Turn)]) -> Vec<&'static str> {
        let mut turns = turns.to_vec();
        turns.sort_by_key(|(_, turn)| turn.place(last, false));
        turns.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn layers_follow_each_other_end_by_end() {
        let turns = [
            ("mood@2", window(2, 3, HALF)),
            ("sampler-3h@6", window(6, 0, HALF * 6)),
            ("mea@2", window(2, 2, HALF)),
            ("sampler@3", window(3, 0, HALF)),
            ("sampler-1h@2", window(2, 0, HALF * 2)),
            ("matrices@2", window(2, 1, HALF)),
            ("sampler@2", window(2, 0, HALF)),
            ("matrices-1h@2", window(2, 1, HALF * 2)),
            ("unknown", Turn::Window { end: None, depth: 3, length: HALF }),
        ];
        let expected = [
            "unknown",
            "sampler@2",
            "sampler-1h@2",
            "matrices@2",
            "matrices-1h@2",
            "mea@2",
            "mood@2",
            "sampler@3",
            "sampler-3h@6",
        ];
        assert_eq!(order(Last::Tick, &turns), expected);
    }

    #[test]
    fn ticks_go_first_and_the_others_take_turns() {
        let turns = [("window", window(1, 0, HALF)), ("event", Turn::Other), ("tick", Turn::Tick)];
        assert_eq!(order(Last::Tick, &turns), ["tick", "window", "event"]);
        assert_eq!(order(Last::Window, &turns), ["tick", "event", "window"]);
        assert_eq!(order(Last::Other, &turns), ["tick", "window", "event"]);
        // A worker that always has something to do holds up nobody.
        let busy = Turn::Tick.place(Last::Tick, true);
        assert!(Turn::Other.place(Last::Tick, false) < busy);
        assert!(window(9, 9, HALF).place(Last::Tick, false) < busy);
        // A series goes on as long as its windows are the oldest.
        assert!(
            window(1, 0, HALF).place(Last::Window, true) < Turn::Tick.place(Last::Window, true)
        );
        assert!(
            window(1, 0, HALF).place(Last::Window, true)
                < window(2, 0, HALF).place(Last::Window, false)
        );
    }

    #[test]
    fn depths_follow_the_inputs() {
        let spec = |series: &str, inputs: &[&str]| WindowSpec {
            series: series.into(),
            length: HALF,
            settle: Millis::ZERO,
            inputs: inputs
                .iter()
                .map(|i| WindowInput::Settled { series: (*i).into() })
                .chain([WindowInput::Cover { source: "k".into(), lookback: Millis::ZERO }])
                .collect(),
            max_attempts: 1,
        };
        let specs = [
            spec("mood", &["mea", "sampler"]),
            spec("mea", &["matrices"]),
            spec("matrices", &["sampler", "elsewhere"]),
            spec("sampler", &[]),
            spec("circle-a", &["circle-b"]),
            spec("circle-b", &["circle-a"]),
            // It looks back on what is made of it, which is no circle.
            WindowSpec {
                inputs: vec![
                    WindowInput::Settled { series: "sampler".into() },
                    WindowInput::Previous { series: "echo".into() },
                ],
                ..spec("voice", &[])
            },
            spec("echo", &["voice"]),
        ];
        let depths = depths(specs.iter());
        let of = |name: &str| depths[&SeriesName::from(name)];
        assert_eq!([of("sampler"), of("matrices"), of("mea"), of("mood")], [0, 1, 2, 3]);
        assert!(of("circle-a") > 0, "it ends");
        assert_eq!([of("voice"), of("echo")], [1, 2]);
    }
}
