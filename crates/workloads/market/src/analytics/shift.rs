//! The state machine of shifts and swaps (section 4.9), one per session and symbol.
//!
//! A **shift** happens when the floating mode stays away from its reference, on one side and by at
//! least epsilon, for a streak of cycles; the reference then moves to where the mode is. A **swap**
//! happens when the benchmark crosses from one side of its dead band to the other. The machine is a
//! value: it is stored between cycles, and replaying the same readings gives the same state.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use watchbell_core::{Millis, Pct, Time};

use super::point::Rollup;

/// Stamps that are kept.
const STAMPS: usize = 64;
/// How long after a shift its state counts as fresh.
pub const FRESH_FOR: Millis = Millis::from_mins(3);

/// Thresholds of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ShiftConfig {
    /// Least change of GFM that feeds a streak, in percent points (0.35).
    pub epsilon_pct: f64,
    /// Cycles in a row that make a shift (5).
    pub streak: u32,
    /// Whether falls count as well as rises (true).
    pub both_ways: bool,
    /// Half-width of the dead band of the benchmark, in percent points (0.05).
    pub swap_eta_pct: f64,
}

impl Default for ShiftConfig {
    fn default() -> Self {
        Self { epsilon_pct: 0.35, streak: 5, both_ways: true, swap_eta_pct: 0.05 }
    }
}

/// What one cycle shows the machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// End of the cycle.
    pub at: Time,
    /// Last price of the cycle, positive.
    pub price: f64,
    /// GFM over the window that ends with the cycle; none where it could not be computed.
    pub gfm: Option<f64>,
    /// Change over 24 hours, where known.
    pub pct24h: Option<Pct>,
    /// Vectors and metrics of the cycle.
    pub metrics: Metrics,
}

/// Vectors and metrics that a stream row shows, on their scale of plus or minus 100.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Metrics {
    /// Inner vector.
    pub v_inner: f64,
    /// Outer vector.
    pub v_outer: f64,
    /// Swap score.
    pub v_swap: f64,
    /// Tendency score.
    pub v_tendency: f64,
    /// Instant disruption.
    pub disruption: f64,
    /// Amplitude.
    pub amp: f64,
    /// Volatility.
    pub volt: f64,
    /// Total inertia.
    pub inertia: f64,
}

impl From<&Rollup> for Metrics {
    /// Of a cycle's signals: the vectors at its close, the means of the metrics; 0 where the cycle
    /// carries none.
    fn from(r: &Rollup) -> Self {
        Self {
            v_inner: r.v_inner.close.unwrap_or_default(),
            v_outer: r.v_outer.close.unwrap_or_default(),
            v_swap: r.v_swap_close.unwrap_or_default(),
            v_tendency: r.v_tend_close.unwrap_or_default(),
            disruption: r.disruption_avg.unwrap_or_default(),
            amp: r.amp_avg.unwrap_or_default(),
            volt: r.volt_avg.unwrap_or_default(),
            inertia: r.inertia_avg.unwrap_or_default(),
        }
    }
}

/// One column of the stream table: the values of one cycle, or of extremes over cycles.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Price.
    pub price: f64,
    /// Change over 24 hours.
    pub pct24h: Option<Pct>,
    /// Change from the cycle before.
    pub pct_drv: Option<Pct>,
    /// Vectors and metrics.
    pub metrics: Metrics,
}

/// A shift that happened.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stamp {
    /// End of the cycle.
    pub at: Time,
    /// Price of the cycle.
    pub price: f64,
    /// GFM of the cycle, the new reference.
    pub gfm: f64,
    /// Change from the reference before.
    pub delta_pct: Pct,
}

/// What a step of the machine made known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Event {
    /// The first valid floating mode.
    Opening {
        /// End of the cycle.
        at: Time,
        /// Opening price.
        price: f64,
        /// Opening GFM, the first reference.
        gfm: f64,
    },
    /// The benchmark changed sides.
    Swap {
        /// End of the cycle.
        at: Time,
        /// Benchmark now.
        bench_pct: Pct,
    },
    /// The reference moved.
    Shift(Stamp),
}

/// State of one symbol in one session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShiftMachine {
    config: ShiftConfig,
    state: Option<State>,
}

/// State since the opening.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Price at the opening.
    pub opening_price: f64,
    /// GFM at the opening.
    pub opening_gfm: f64,
    /// GFM that changes are measured from.
    pub ref_gfm: f64,
    /// Change of the last valid GFM from the reference.
    pub delta_pct: Pct,
    /// Cycles in a row beyond epsilon; negative while below the reference.
    pub streak: i64,
    /// Shifts so far.
    pub shifts: u64,
    /// Grows with each shift: what a display was drawn for.
    pub ui_epoch: u64,
    /// Swaps so far.
    pub swaps: u64,
    /// Side of the benchmark that was seen last: 1, -1, or 0 before any.
    pub side: i8,
    /// The last 64 shifts, oldest first.
    pub stamps: VecDeque<Stamp>,
    /// Least price.
    pub price_min: f64,
    /// Greatest price.
    pub price_max: f64,
    /// Least benchmark.
    pub bench_pct_min: Pct,
    /// Greatest benchmark.
    pub bench_pct_max: Pct,
    /// Last cycle.
    pub now: Snapshot,
    /// Cycle of the last shift (the opening before any).
    pub cur: Snapshot,
    /// Cycle of the shift before that, where there is one.
    pub prev: Option<Snapshot>,
    /// For the price its maximum, for all else the value of greatest magnitude, sign kept.
    pub greatest: Snapshot,
}

impl ShiftMachine {
    /// A machine that has seen nothing.
    #[must_use]
    pub fn new(config: ShiftConfig) -> Self {
        Self { config, state: None }
    }

    /// The state since the opening; none before the first valid GFM.
    #[must_use]
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// Whether the last shift is at most three minutes old.
    #[must_use]
    pub fn is_fresh(&self, now: Time) -> bool {
        self.state
            .as_ref()
            .and_then(|s| s.stamps.back())
            .is_some_and(|stamp| (0..=FRESH_FOR.0).contains(&now.since(stamp.at).0))
    }

    /// Advances by one cycle: at most an opening, or a swap and a shift.
    ///
    /// A reading without a positive price changes nothing. One without a valid GFM moves prices
    /// and swaps on, and leaves the streak as it is.
    pub fn step(&mut self, reading: &Reading) -> Vec<Event> {
        let valid = |x: f64| x.is_finite() && x > 0.0;
        if !valid(reading.price) {
            return Vec::new();
        }
        let gfm = reading.gfm.filter(|g| valid(*g));
        let Some(state) = &mut self.state else {
            let Some(gfm) = gfm else { return Vec::new() };
            self.state = Some(State::open(reading, gfm));
            return vec![Event::Opening { at: reading.at, price: reading.price, gfm }];
        };
        let mut events = Vec::new();
        events.extend(state.observe(reading, self.config.swap_eta_pct));
        if let Some(gfm) = gfm {
            events.extend(state.advance(reading, gfm, &self.config).map(Event::Shift));
        }
        events
    }
}

impl State {
    fn open(reading: &Reading, gfm: f64) -> Self {
        let now = Snapshot {
            price: reading.price,
            pct24h: reading.pct24h,
            pct_drv: None,
            metrics: reading.metrics,
        };
        Self {
            opening_price: reading.price,
            opening_gfm: gfm,
            ref_gfm: gfm,
            delta_pct: Pct(0.0),
            streak: 0,
            shifts: 0,
            ui_epoch: 0,
            swaps: 0,
            side: 0,
            stamps: VecDeque::new(),
            price_min: reading.price,
            price_max: reading.price,
            bench_pct_min: Pct(0.0),
            bench_pct_max: Pct(0.0),
            now,
            cur: now,
            prev: None,
            greatest: now,
        }
    }

    /// Prices, extremes and the side of the benchmark.
    fn observe(&mut self, reading: &Reading, eta: f64) -> Option<Event> {
        let bench = 100.0 * (reading.price / self.opening_price - 1.0);
        self.now = Snapshot {
            price: reading.price,
            pct24h: reading.pct24h,
            pct_drv: Some(Pct(100.0 * (reading.price / self.now.price - 1.0))),
            metrics: reading.metrics,
        };
        self.price_min = self.price_min.min(reading.price);
        self.price_max = self.price_max.max(reading.price);
        self.bench_pct_min = Pct(self.bench_pct_min.0.min(bench));
        self.bench_pct_max = Pct(self.bench_pct_max.0.max(bench));
        self.greatest = self.greatest.or_greater(&self.now);

        let side = if bench > eta {
            1
        } else if bench < -eta {
            -1
        } else {
            0
        };
        let swapped = side != 0 && self.side != 0 && side != self.side;
        if side != 0 {
            self.side = side;
        }
        swapped.then(|| {
            self.swaps += 1;
            Event::Swap { at: reading.at, bench_pct: Pct(bench) }
        })
    }

    /// The streak, and the shift that it may complete.
    fn advance(&mut self, reading: &Reading, gfm: f64, config: &ShiftConfig) -> Option<Stamp> {
        let delta = 100.0 * (gfm / self.ref_gfm - 1.0);
        self.delta_pct = Pct(delta);
        self.streak = if delta >= config.epsilon_pct {
            self.streak.max(0) + 1
        } else if config.both_ways && delta <= -config.epsilon_pct {
            self.streak.min(0) - 1
        } else {
            0
        };
        if self.streak.unsigned_abs() < u64::from(config.streak.max(1)) {
            return None;
        }
        let stamp = Stamp { at: reading.at, price: reading.price, gfm, delta_pct: Pct(delta) };
        self.shifts += 1;
        self.ui_epoch += 1;
        self.streak = 0;
        self.ref_gfm = gfm;
        self.prev = Some(self.cur);
        self.cur = self.now;
        if self.stamps.len() == STAMPS {
            self.stamps.pop_front();
        }
        self.stamps.push_back(stamp);
        Some(stamp)
    }
}

impl Snapshot {
    /// Field by field, the greater: for the price by value, for the rest by magnitude.
    fn or_greater(&self, other: &Self) -> Self {
        let by_size = |a: f64, b: f64| if b.abs() > a.abs() { b } else { a };
        let known = |a: Option<Pct>, b: Option<Pct>| match (a, b) {
            (Some(a), Some(b)) => Some(Pct(by_size(a.0, b.0))),
            (a, b) => a.or(b),
        };
        let (a, b) = (&self.metrics, &other.metrics);
        Self {
            price: self.price.max(other.price),
            pct24h: known(self.pct24h, other.pct24h),
            pct_drv: known(self.pct_drv, other.pct_drv),
            metrics: Metrics {
                v_inner: by_size(a.v_inner, b.v_inner),
                v_outer: by_size(a.v_outer, b.v_outer),
                v_swap: by_size(a.v_swap, b.v_swap),
                v_tendency: by_size(a.v_tendency, b.v_tendency),
                disruption: by_size(a.disruption, b.disruption),
                amp: by_size(a.amp, b.amp),
                volt: by_size(a.volt, b.volt),
                inertia: by_size(a.inertia, b.inertia),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(i: usize, price: f64, gfm: Option<f64>) -> Reading {
        Reading {
            at: Time(i as i64 * 40_000),
            price,
            gfm,
            pct24h: None,
            metrics: Metrics { v_inner: -(i as f64), ..Metrics::default() },
        }
    }

    /// Opens at GFM 1000 and feeds changes in percent points; gives streaks and steps that shift.
    fn run(config: ShiftConfig, deltas: &[f64]) -> (Vec<i64>, Vec<usize>) {
        let mut machine = ShiftMachine::new(config);
        machine.step(&reading(0, 1000.0, Some(1000.0)));
        let (mut streaks, mut shifts) = (Vec::new(), Vec::new());
        for (i, delta) in deltas.iter().enumerate() {
            let ref_gfm = machine.state().unwrap().ref_gfm;
            let gfm = ref_gfm * (1.0 + delta / 100.0);
            let events = machine.step(&reading(i + 1, 1000.0, Some(gfm)));
            if events.iter().any(|e| matches!(e, Event::Shift(_))) {
                shifts.push(i);
            }
            streaks.push(machine.state().unwrap().streak);
        }
        (streaks, shifts)
    }

    #[test]
    fn streaks_and_shifts() {
        let upward = ShiftConfig { both_ways: false, ..ShiftConfig::default() };
        let both = ShiftConfig::default();
        type Case<'a> = (&'a str, ShiftConfig, &'a [f64], &'a [i64], &'a [usize]);
        let table: [Case<'_>; 6] = [
            ("five up", both, &[0.4; 5], &[1, 2, 3, 4, 0], &[4]),
            ("five down", both, &[-0.4; 5], &[-1, -2, -3, -4, 0], &[4]),
            ("falls do not count upward only", upward, &[-0.4; 6], &[0; 6], &[]),
            ("a calm cycle resets", both, &[0.4, 0.4, 0.1, 0.4], &[1, 2, 0, 1], &[]),
            (
                "another sign starts at one",
                both,
                &[0.4, 0.4, -0.4, -0.4, 0.4],
                &[1, 2, -1, -2, 1],
                &[],
            ),
            (
                "the streak starts over after a shift",
                both,
                &[0.4; 10],
                &[1, 2, 3, 4, 0, 1, 2, 3, 4, 0],
                &[4, 9],
            ),
        ];
        for (name, config, deltas, streaks, shifts) in table {
            assert_eq!(run(config, deltas), (streaks.to_vec(), shifts.to_vec()), "{name}");
        }
    }

    #[test]
    fn swaps_ignore_the_dead_band() {
        let mut machine = ShiftMachine::new(ShiftConfig::default());
        machine.step(&reading(0, 1000.0, Some(1000.0)));
        // Benchmarks in percent points, and whether each is a swap.
        let steps = [
            (0.1, false),
            (0.01, false),
            (-0.04, false),
            (-0.06, true),
            (0.0, false),
            (-0.2, false),
            (0.3, true),
        ];
        for (i, (bench, swaps)) in steps.into_iter().enumerate() {
            let events = machine.step(&reading(i + 1, 1000.0 * (1.0 + bench / 100.0), None));
            assert_eq!(!events.is_empty(), swaps, "step {i}, benchmark {bench}");
        }
        assert_eq!(machine.state().unwrap().swaps, 2);
    }

    #[test]
    fn columns_move_only_on_a_shift() {
        let mut machine = ShiftMachine::new(ShiftConfig { streak: 2, ..ShiftConfig::default() });
        assert!(machine.step(&reading(0, 10.0, None)).is_empty(), "no mode, no opening");
        assert!(machine.step(&reading(0, f64::NAN, Some(10.0))).is_empty());
        assert!(matches!(machine.step(&reading(1, 10.0, Some(10.0)))[..], [Event::Opening { .. }]));
        machine.step(&reading(2, 12.0, Some(11.0)));
        let before = machine.state().unwrap();
        assert_eq!((before.cur.price, before.prev, before.now.price), (10.0, None, 12.0));
        let events = machine.step(&reading(3, 11.0, Some(11.0)));
        assert!(matches!(events[..], [Event::Shift(Stamp { gfm: 11.0, .. })]));
        let after = machine.state().unwrap();
        assert_eq!((after.cur.price, after.prev.unwrap().price), (11.0, 10.0));
        assert_eq!((after.greatest.price, after.greatest.metrics.v_inner), (12.0, -3.0));
        assert_eq!((after.ref_gfm, after.ui_epoch, after.price_max), (11.0, 1, 12.0));
        assert!(machine.is_fresh(Time(120_000 + 180_000)));
        assert!(!machine.is_fresh(Time(120_000 + 180_001)));
    }

    #[test]
    fn the_state_survives_storage_and_keeps_64_stamps() {
        let mut machine = ShiftMachine::new(ShiftConfig { streak: 1, ..ShiftConfig::default() });
        let mut gfm = 1.0;
        for i in 0..100 {
            machine.step(&reading(i, 1.0, Some(gfm)));
            gfm *= 1.01;
        }
        let state = machine.state().unwrap();
        assert_eq!((state.shifts, state.stamps.len()), (99, 64));
        let json = serde_json::to_string(&machine).unwrap();
        let mut back: ShiftMachine = serde_json::from_str(&json).unwrap();
        assert_eq!(back, machine);
        assert_eq!(
            back.step(&reading(100, 2.0, Some(gfm))),
            machine.step(&reading(100, 2.0, Some(gfm)))
        );
    }
}
