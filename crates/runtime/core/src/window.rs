//! The life of a window, and when it is ready.
//!
//! A window is computed once, from complete inputs, in order within its series. [`readiness`] is
//! the one place that decides "complete": it names what is missing as gates, and a window with any
//! gate is not claimed. A complete window does not change; a correction is a new version, which
//! begins its own life.

mod steer;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::steer::{Change, Refused, Standing, Wish, steer};
use crate::commit::Cover;
use crate::gate::Gate;
use crate::port::FollowUp;
use crate::retry;
use crate::trigger::{WindowInput, WindowSpec};
use crate::units::{Millis, SeriesName, Time};

/// Where a version of a window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not over yet, or waits for its inputs.
    Open,
    /// Over, settled, and every input is complete.
    Ready,
    /// A cycle computes it.
    Running,
    /// Published, for good.
    Complete,
    /// An attempt failed; another follows.
    Failed,
    /// No attempt is left, or none can help. The series goes on without it.
    Abandoned,
}

/// What happens to a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The last of its gates cleared.
    Clear,
    /// A cycle takes it.
    Claim,
    /// The cycle published all of it.
    Complete,
    /// The cycle failed, and another attempt is left.
    Fail,
    /// The cycle gave it back (a snooze, a stop, a dead node): the attempt does not count.
    Release,
    /// The backoff after a failure is over.
    Retry,
    /// No attempt is left, none can help, or a person gives it up.
    Abandon,
}

impl State {
    /// All states.
    pub const ALL: [Self; 6] =
        [Self::Open, Self::Ready, Self::Running, Self::Complete, Self::Failed, Self::Abandoned];

    /// As the store holds it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }

    /// The state of a stored word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == word)
    }

    /// Whether this version will not change any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Complete | Self::Abandoned)
    }
}

impl Event {
    /// All events.
    pub const ALL: [Self; 7] = [
        Self::Clear,
        Self::Claim,
        Self::Complete,
        Self::Fail,
        Self::Release,
        Self::Retry,
        Self::Abandon,
    ];

    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Claim => "claim",
            Self::Complete => "complete",
            Self::Fail => "fail",
            Self::Release => "release",
            Self::Retry => "retry",
            Self::Abandon => "abandon",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An event that a state does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a window that is {state} does not take `{event}`")]
pub struct Forbidden {
    /// The state.
    pub state: State,
    /// The event.
    pub event: Event,
}

/// The state after `event`: the whole life of one version of a window.
///
/// A claim may carry several steps in one transaction: that of a new window is `clear` and `claim`,
/// that of a failed one `retry` and `claim`. A window is abandoned outside a cycle only by a person:
/// see [`steer`].
///
/// # Errors
/// [`Forbidden`] when the event has no meaning in the state; nothing changes then.
pub const fn next(state: State, event: Event) -> Result<State, Forbidden> {
    use {Event as E, State as S};
    Ok(match (state, event) {
        (S::Open, E::Clear) | (S::Failed, E::Retry) | (S::Running, E::Release) => S::Ready,
        (S::Ready, E::Claim) => S::Running,
        (S::Running, E::Complete) => S::Complete,
        (S::Running, E::Fail) => S::Failed,
        (S::Open | S::Ready | S::Running | S::Failed, E::Abandon) => S::Abandoned,
        _ => return Err(Forbidden { state, event }),
    })
}

/// After attempt number `attempts` at the window failed with `error`.
#[must_use]
pub fn after_failure(
    spec: &WindowSpec,
    start: Time,
    attempts: u32,
    error: &str,
    now: Time,
) -> FollowUp {
    let allowed = spec.max_attempts.max(1);
    if attempts >= allowed {
        return FollowUp::GiveUp {
            reason: format!("failed {attempts} of {allowed} attempts, the last with: {error}"),
        };
    }
    let seed = format!("{} {}", spec.series, start.0);
    FollowUp::Retry { at: now + retry::WINDOW.delay(attempts, &seed) }
}

/// Everything that readiness depends on besides the window and the time. Only what is listed here
/// counts as present.
#[derive(Debug, Clone, Copy)]
pub struct InputFacts<'a> {
    /// The keys that the window must cover.
    pub scope: &'a [String],
    /// Covers by source, then by key; in any order, overlapping or not.
    pub covers: &'a BTreeMap<String, BTreeMap<String, Vec<Cover>>>,
    /// Windows of the input series: the newest version of each.
    pub windows: &'a BTreeMap<SeriesName, Vec<InputWindow>>,
    /// The oldest window of this series before this one that is not final, if there is one.
    pub earlier: Option<(Time, State)>,
    /// The start of the newest window of this series before this one; none for the first. Only a
    /// series that [looks back](WindowSpec::looks_back) asks for it.
    pub previous: Option<Time>,
}

/// A window of an input series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputWindow {
    /// Its start.
    pub start: Time,
    /// Its end, exclusive.
    pub end: Time,
    /// Its state.
    pub state: State,
}

/// Whether the window of `spec` that begins at `start` may be computed at `now`.
///
/// # Errors
/// What is missing: all of it, the first reason first.
pub fn readiness(
    spec: &WindowSpec,
    start: Time,
    facts: &InputFacts<'_>,
    now: Time,
) -> Result<(), Vec<Gate>> {
    let end = start + spec.length;
    if now < end {
        return Err(vec![Gate::WindowOpen { until: end, settled: end + spec.settle }]);
    }
    if now < end + spec.settle {
        return Err(vec![Gate::Settling { until: end + spec.settle }]);
    }
    let mut gates = Vec::new();
    if let Some((start, state)) = facts.earlier {
        gates.push(Gate::EarlierWindow { series: spec.series.clone(), start, state });
    }
    for input in &spec.inputs {
        match input {
            WindowInput::Cover { source, lookback } => {
                missing_covers(source, start - *lookback, end, facts, &mut gates);
            }
            WindowInput::Window { .. }
            | WindowInput::Settled { .. }
            | WindowInput::Previous { .. } => {
                let enough: &[State] = match input {
                    WindowInput::Window { .. } => &[State::Complete],
                    _ => &[State::Complete, State::Abandoned],
                };
                let stretch = input.stretch(start, spec.length, facts.previous);
                gates.extend(stretch.and_then(|(series, from, to)| {
                    missing_window(series, from, to, facts, enough)
                }));
            }
        }
    }
    if gates.is_empty() { Ok(()) } else { Err(gates) }
}

fn missing_covers(
    source: &str,
    from: Time,
    to: Time,
    facts: &InputFacts<'_>,
    gates: &mut Vec<Gate>,
) {
    if facts.scope.is_empty() {
        // Covering nothing would be ready at once, and publish an empty window for good.
        gates.push(Gate::ScopeEmpty { source: source.to_owned() });
    }
    let by_key = facts.covers.get(source);
    for key in facts.scope {
        let covers = by_key.and_then(|keys| keys.get(key)).map_or(&[][..], Vec::as_slice);
        let reached = covered_until(covers, from);
        if reached.is_none_or(|t| t < to) {
            gates.push(Gate::CoverMissing {
                source: source.to_owned(),
                key: key.clone(),
                from,
                covered_until: reached,
                needed_until: to,
            });
        }
    }
}

/// How far the covers reach without a gap from `from`; `None` when none holds `from` itself.
#[must_use]
pub fn covered_until(covers: &[Cover], from: Time) -> Option<Time> {
    let mut reached = from;
    while let Some(further) =
        covers.iter().filter(|c| c.from <= reached && reached < c.to).map(|c| c.to).max()
    {
        reached = further;
    }
    (reached > from).then_some(reached)
}

/// The first stretch of `[start, end)` over which `series` has no window in one of these states.
fn missing_window(
    series: &SeriesName,
    start: Time,
    end: Time,
    facts: &InputFacts<'_>,
    enough: &[State],
) -> Option<Gate> {
    let windows = facts.windows.get(series).map_or(&[][..], Vec::as_slice);
    let mut reached = start;
    while reached < end {
        let holding = |w: &&InputWindow| w.start <= reached && reached < w.end;
        let Some(window) = windows.iter().filter(holding).find(|w| enough.contains(&w.state))
        else {
            let there = windows.iter().find(holding);
            return Some(Gate::InputWindow {
                series: series.clone(),
                start: there.map_or(reached, |w| w.start),
                state: there.map(|w| w.state),
            });
        };
        reached = window.end;
    }
    None
}

/// Starts of the windows that lie wholly in `[from, until)`, oldest first.
pub fn windows_between(
    spec: &WindowSpec,
    from: Time,
    until: Time,
) -> impl Iterator<Item = Time> + use<> {
    let length = spec.length;
    let first = from.ceil(length);
    let count = until.since(first).0.max(0) / length.0;
    (0..count).map(move |i| first + length * i)
}

/// The start of the newest window whose end and settle time have passed.
#[must_use]
pub fn last_closed(spec: &WindowSpec, now: Time) -> Time {
    (now - spec.settle).floor(spec.length) - spec.length
}

/// The next instant, after `now`, at which another window's end and settle time will have passed.
#[must_use]
pub fn next_wake(spec: &WindowSpec, now: Time) -> Time {
    last_closed(spec, now) + spec.length * 2 + spec.settle
}

/// Why a window's definition is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No length.
    #[error("window `{series}` has the length {length}: it must be longer than zero")]
    Length {
        /// Series.
        series: SeriesName,
        /// Length.
        length: Millis,
    },
    /// Not whole base cycles.
    #[error(
        "window `{series}` is {length} long, which is not a whole number of the {base} cycles that \
         it is made of: use a multiple such as {nearest}"
    )]
    Indivisible {
        /// Series.
        series: SeriesName,
        /// Length.
        length: Millis,
        /// The base cycle.
        base: Millis,
        /// The nearest length that would do.
        nearest: Millis,
    },
    /// A negative time.
    #[error("window `{series}` has a {what} of {value}: it must not be negative")]
    Negative {
        /// Series.
        series: SeriesName,
        /// `settle time` or `lookback`.
        what: &'static str,
        /// Value.
        value: Millis,
    },
    /// It waits for itself.
    #[error("window `{series}` names itself as an input: it would wait for itself forever")]
    Itself {
        /// Series.
        series: SeriesName,
    },
    /// No attempts.
    #[error("window `{series}` allows no attempts: set max_attempts to 1 or more")]
    NoAttempts {
        /// Series.
        series: SeriesName,
    },
}

/// Checks a definition. `base` is the cycle that the series' input is sampled in, where it has one
/// (40 s for the market's): a window must hold a whole number of them. Windows are aligned to the
/// epoch, so a length need not divide the day.
///
/// # Errors
/// The first mistake.
pub fn validate(spec: &WindowSpec, base: Option<Millis>) -> Result<(), SpecError> {
    let (series, length) = (spec.series.clone(), spec.length);
    if length <= Millis::ZERO {
        return Err(SpecError::Length { series, length });
    }
    if let Some(base) = base.filter(|b| length % *b != Millis::ZERO) {
        let nearest = base * ((length.0 + base.0 / 2) / base.0).max(1);
        return Err(SpecError::Indivisible { series, length, base, nearest });
    }
    if spec.settle < Millis::ZERO {
        return Err(SpecError::Negative { series, what: "settle time", value: spec.settle });
    }
    if spec.max_attempts == 0 {
        return Err(SpecError::NoAttempts { series });
    }
    for input in &spec.inputs {
        match input {
            WindowInput::Cover { lookback, .. } if *lookback < Millis::ZERO => {
                return Err(SpecError::Negative { series, what: "lookback", value: *lookback });
            }
            input if input.series() == Some(&series) => return Err(SpecError::Itself { series }),
            WindowInput::Cover { .. }
            | WindowInput::Window { .. }
            | WindowInput::Settled { .. }
            | WindowInput::Previous { .. } => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_whole_table() {
        let expected = "
            open      ready .       .        .      .     .     abandoned
            ready     .     running .        .      .     .     abandoned
            running   .     .       complete failed ready .     abandoned
            complete  .     .       .        .      .     .     .
            failed    .     .       .        .      .     ready abandoned
            abandoned .     .       .        .      .     .     .";
        for (state, row) in State::ALL.into_iter().zip(expected.trim().lines()) {
            let actual: Vec<_> = [state.as_str()]
                .into_iter()
                .chain(Event::ALL.into_iter().map(|e| next(state, e).map_or(".", State::as_str)))
                .collect();
            assert_eq!(actual, row.split_whitespace().collect::<Vec<_>>());
            assert_eq!(State::parse(state.as_str()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
            assert_eq!(state.is_final(), Event::ALL.into_iter().all(|e| next(state, e).is_err()));
        }
    }

    fn spec() -> WindowSpec {
        WindowSpec {
            series: "w".into(),
            length: Millis(100),
            settle: Millis(5),
            inputs: vec![
                WindowInput::Cover { source: "klines".into(), lookback: Millis(10) },
                WindowInput::Window { series: "base".into() },
            ],
            max_attempts: 2,
        }
    }

    fn cover(from: i64, to: i64) -> Cover {
        Cover { source: "klines".into(), key: "A".into(), from: Time(from), to: Time(to) }
    }

    #[test]
    fn a_window_says_what_it_waits_for() {
        let complete =
            |start, end| InputWindow { start: Time(start), end: Time(end), state: State::Complete };
        let running = InputWindow { state: State::Running, ..complete(150, 200) };
        let all = [cover(90, 130), cover(130, 250)];
        let halves = [complete(100, 150), complete(150, 200)];
        for (now, covers, windows, earlier, expected) in [
            (199, &all[..], &halves[..], None, "window_open"),
            (200, &all, &halves, None, "settling"),
            (204, &all, &halves, None, "settling"),
            (205, &all, &halves, None, ""),
            (205, &all, &halves, Some((Time(0), State::Failed)), "earlier_window"),
            (205, &all[..1], &halves, None, "cover_missing"),
            (205, &all[1..], &halves, None, "cover_missing"),
            (205, &[], &halves, None, "cover_missing"),
            (205, &all, &halves[..1], None, "input_window"),
            (205, &all, &halves[1..], None, "input_window"),
            (205, &all, &[halves[0], running], None, "input_window"),
            (
                205,
                &[],
                &[],
                Some((Time(0), State::Open)),
                "earlier_window cover_missing input_window",
            ),
        ] {
            let covers = [("klines".to_owned(), [("A".to_owned(), covers.to_vec())].into())].into();
            let windows = [("base".into(), windows.to_vec())].into();
            let scope = ["A".to_owned()];
            let facts = InputFacts {
                scope: &scope,
                covers: &covers,
                windows: &windows,
                earlier,
                previous: None,
            };
            let gates = readiness(&spec(), Time(100), &facts, Time(now)).err().unwrap_or_default();
            let kinds: Vec<_> = gates.iter().map(Gate::kind).collect();
            assert_eq!(kinds.join(" "), expected);
            let nobody = InputFacts { scope: &[], earlier: None, ..facts };
            let gates = readiness(&spec(), Time(100), &nobody, Time(300)).unwrap_err();
            assert_eq!(gates[0].kind(), "scope_empty");
        }
    }

    /// What feeds back waits for the window before, and the first one for nothing.
    #[test]
    fn a_window_that_looks_back_waits_for_the_one_before() {
        let looking = WindowSpec {
            inputs: vec![
                WindowInput::Settled { series: "base".into() },
                WindowInput::Previous { series: "back".into() },
            ],
            ..spec()
        };
        assert!(looking.looks_back() && !spec().looks_back());
        assert_eq!(validate(&looking, None), Ok(()));
        let covers = BTreeMap::new();
        let window =
            |start, state| InputWindow { start: Time(start), end: Time(start + 100), state };
        let base = vec![window(300, State::Complete)];
        for (back, previous, waits_for) in [
            // The first of its series, whatever there is of the other.
            (vec![], None, None),
            (vec![window(200, State::Failed)], None, None),
            (vec![window(200, State::Complete)], Some(200), None),
            (vec![window(200, State::Abandoned)], Some(200), None),
            (vec![window(200, State::Running)], Some(200), Some((200, Some(State::Running)))),
            (vec![window(100, State::Complete)], Some(200), Some((200, None))),
            // Nobody was there in between: the window before is an older one.
            (vec![window(0, State::Complete)], Some(0), None),
            (vec![], Some(0), Some((0, None))),
        ] {
            let windows = [("base".into(), base.clone()), ("back".into(), back)].into();
            let facts = InputFacts {
                scope: &[],
                covers: &covers,
                windows: &windows,
                earlier: None,
                previous: previous.map(Time),
            };
            let gates = readiness(&looking, Time(300), &facts, Time(900)).err().unwrap_or_default();
            let expected = waits_for.map(|(start, state)| Gate::InputWindow {
                series: "back".into(),
                start: Time(start),
                state,
            });
            assert_eq!(gates, expected.into_iter().collect::<Vec<_>>(), "{previous:?}");
        }
    }

    #[test]
    fn windows_are_found_by_the_clock() {
        let spec = spec();
        let between =
            |a, b| windows_between(&spec, Time(a), Time(b)).map(|t| t.0).collect::<Vec<_>>();
        assert_eq!(between(0, 300), [0, 100, 200]);
        assert_eq!(between(1, 300), [100, 200]);
        assert_eq!(between(-100, 99), [-100]);
        assert_eq!(between(300, 0), [0; 0]);
        assert_eq!(last_closed(&spec, Time(304)), Time(100));
        assert_eq!(last_closed(&spec, Time(305)), Time(200));
        assert_eq!(next_wake(&spec, Time(304)), Time(305));
        assert_eq!(next_wake(&spec, Time(305)), Time(405));
    }

    #[test]
    fn bad_definitions_say_what_to_do() {
        let base = Some(Millis::from_secs(40));
        let with = |change: fn(&mut WindowSpec)| {
            let mut spec = WindowSpec { length: Millis::from_mins(30), ..spec() };
            change(&mut spec);
            validate(&spec, base).map_err(|e| e.to_string())
        };
        assert_eq!(with(|_| ()), Ok(()));
        for (change, message) in [
            (
                (|s| s.length = Millis::from_mins(31)) as fn(&mut WindowSpec),
                "window `w` is 31m long, which is not a whole number of the 40s cycles that it is \
                 made of: use a multiple such as 31m20s",
            ),
            (
                |s| s.length = Millis(0),
                "window `w` has the length 0ms: it must be longer than zero",
            ),
            (
                |s| s.settle = Millis(-1),
                "window `w` has a settle time of -1ms: it must not be negative",
            ),
            (
                |s| s.max_attempts = 0,
                "window `w` allows no attempts: set max_attempts to 1 or more",
            ),
            (
                |s| s.inputs = vec![WindowInput::Window { series: "w".into() }],
                "window `w` names itself as an input: it would wait for itself forever",
            ),
        ] {
            assert_eq!(with(change).unwrap_err(), message);
        }
    }

    #[test]
    fn the_last_attempt_abandons() {
        let retry = after_failure(&spec(), Time(0), 1, "x", Time(0));
        assert!(matches!(retry, FollowUp::Retry { at: Time(4_500..=5_500) }), "{retry:?}");
        assert_eq!(
            after_failure(&spec(), Time(0), 2, "no answer", Time(0)),
            FollowUp::GiveUp { reason: "failed 2 of 2 attempts, the last with: no answer".into() }
        );
    }

    proptest! {
        /// Whatever the facts, in any order, overlapping or contradictory: a window that is ready
        /// has each instant of its inputs covered, and is over.
        #[test]
        fn a_window_is_never_ready_before_its_inputs(
            start in -3_i64..3,
            now in -400_i64..800,
            covers in prop::collection::vec((0_usize..3, -400_i64..500, 0_i64..500), 0..12),
            windows in prop::collection::vec((-4_i64..8, 1_i64..4, 0_usize..6), 0..12),
            keys in 0_usize..3,
            earlier in any::<bool>(),
            given_up_counts in any::<bool>(),
        ) {
            let mut spec = spec();
            if given_up_counts {
                spec.inputs[1] = WindowInput::Settled { series: "base".into() };
            }
            let enough = |state| {
                state == State::Complete || (given_up_counts && state == State::Abandoned)
            };
            let names = ["A".to_owned(), "B".to_owned(), "C".to_owned()];
            let mut by_key: BTreeMap<String, Vec<Cover>> = BTreeMap::new();
            for (key, from, length) in &covers {
                by_key.entry(names[*key].clone()).or_default().push(cover(*from, from + length));
            }
            let windows: Vec<_> = windows.iter().map(|(at, length, state)| InputWindow {
                start: Time(at * 50),
                end: Time((at + length) * 50),
                state: State::ALL[*state],
            }).collect();
            let start = Time(start * 100);
            let covers = [("klines".to_owned(), by_key.clone())].into();
            let inputs = [("base".into(), windows.clone())].into();
            let facts = InputFacts {
                scope: &names[..keys],
                covers: &covers,
                windows: &inputs,
                earlier: earlier.then_some((start - Millis(100), State::Open)),
                previous: None,
            };
            let ready = readiness(&spec, start, &facts, Time(now)).is_ok();
            // By brute force, instant by instant.
            let covered = |key: &String, t: i64| by_key
                .get(key)
                .is_some_and(|c| c.iter().any(|c| c.from.0 <= t && t < c.to.0));
            let expected = now >= start.0 + 105
                && !earlier
                && keys > 0
                && names[..keys].iter().all(|k| (start.0 - 10..start.0 + 100).all(|t| covered(k, t)))
                && (start.0..start.0 + 100).all(|t| windows.iter().any(|w| {
                    enough(w.state) && w.start.0 <= t && t < w.end.0
                }));
            prop_assert_eq!(ready, expected);
        }

        #[test]
        fn the_clock_finds_each_window_once(now in -100_000_i64..100_000, step in 1_i64..1_000) {
            let spec = spec();
            let (before, after) = (last_closed(&spec, Time(now)), last_closed(&spec, Time(now + step)));
            prop_assert!(before + spec.length + spec.settle <= Time(now));
            let wake = next_wake(&spec, Time(now));
            prop_assert!(wake > Time(now));
            prop_assert_eq!(last_closed(&spec, wake - Millis(1)), before);
            prop_assert_eq!(last_closed(&spec, wake), before + spec.length);
            let closed: Vec<_> =
                windows_between(&spec, before + spec.length, after + spec.length).collect();
            prop_assert_eq!(closed.len() as i64, after.since(before) / spec.length);
        }
    }
}
