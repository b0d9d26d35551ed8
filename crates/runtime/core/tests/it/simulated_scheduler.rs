//! 10,000 seeded runs of simulated nodes over one ledger: crashes between any two steps, downtimes,
//! changes of clocks, two nodes at once. At the end the ledger is audited against the schedule, which
//! is computed here by other means: each due instant is in it exactly once, in order.
//!
//! `SIMULATION_SEED=n` runs one seed.

use std::collections::{BTreeMap, VecDeque};

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use watchbell_core::schedule::{Cron, Fate, Passed, collapse, next_due, plan};
use watchbell_core::{Millis, Missed, Time, Trigger};

const RUNS: u64 = 10_000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// Splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: i64) -> i64 {
        (self.roll() % n.max(1).unsigned_abs()).cast_signed()
    }
    fn chance(&mut self, percent: i64) -> bool {
        self.below(100) < percent
    }
    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as i64) as usize]
    }
}

/// A cron expression, and the same in Rust: whether a wall clock matches, and whether the expression
/// names fixed times.
type Case = (&'static str, bool, fn(DateTime) -> bool);

const CASES: [Case; 9] = [
    ("30 2 * * *", true, |t| (t.hour(), t.minute()) == (2, 30)),
    ("*/30 * * * *", false, |t| t.minute() % 30 == 0),
    ("15 1,2,3 * * *", true, |t| (1..=3).contains(&t.hour()) && t.minute() == 15),
    ("0,20,40 2 * * *", true, |t| t.hour() == 2 && t.minute() % 20 == 0),
    ("0 */6 * * *", false, |t| t.hour() % 6 == 0 && t.minute() == 0),
    ("0 0 * * 1-5", true, |t| {
        (t.hour(), t.minute()) == (0, 0) && (1..=5).contains(&t.weekday().to_monday_one_offset())
    }),
    ("5 * * * *", false, |t| t.minute() == 5),
    ("0-59 1-2 * * SUN", true, |t| {
        (1..=2).contains(&t.hour()) && t.weekday().to_monday_one_offset() == 7
    }),
    ("*/7 1-2 L * *", false, |t| {
        (1..=2).contains(&t.hour()) && t.minute() % 7 == 0 && t.day() == t.date().days_in_month()
    }),
];

const ZONES: [&str; 5] =
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago"];

/// Spans of 2026 that hold each change of clocks of these zones: instants of a start and an end.
const SEASONS: [(&str, &str); 2] = [("2026-03-01", "2026-04-12"), ("2026-08-30", "2026-11-08")];

/// Every due instant of a case in a zone within a season, minute by minute.
fn by_the_minute((_, fixed, matches): Case, zone: &TimeZone, from: Time, to: Time) -> Vec<Time> {
    let mut due = Vec::new();
    for minute in (from.0 - 48 * HOUR..to.0 + 48 * HOUR).step_by(MINUTE as usize) {
        let instant = jiff::Timestamp::from_millisecond(minute).unwrap();
        if !fixed {
            due.extend(matches(zone.to_datetime(instant)).then_some(Time(minute)));
            continue;
        }
        // Fixed times: over the minutes of the calendar instead, gaps and repetitions included.
        let wall = TimeZone::UTC.to_datetime(instant);
        if !matches(wall) {
            continue;
        }
        let ambiguous = zone.to_ambiguous_timestamp(wall);
        due.push(Time(match ambiguous.offset() {
            AmbiguousOffset::Gap { before, .. } => {
                let just_before = before.to_timestamp(wall).unwrap() - jiff::Span::new().hours(26);
                let mut changes = zone.following(just_before);
                changes.next().unwrap().timestamp().as_millisecond()
            }
            AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => {
                ambiguous.earlier().unwrap().as_millisecond()
            }
        }));
    }
    due.sort_unstable();
    due.dedup();
    due.retain(|t| from <= *t && *t <= to);
    due
}

/// The schedule of a worker, twice: as the core sees it, and as the audit does.
struct Schedule {
    trigger: Trigger,
    season: (Time, Time),
    audit: Audit,
}

enum Audit {
    Grid(i64, i64),
    List(Vec<Time>),
}

impl Audit {
    /// The first due instant after `t`, and a way to count up to `last`.
    fn range(&self, after: Time, count: u64) -> (Time, Time) {
        match self {
            Self::Grid(period, offset) => {
                let mut first = (after.0 - offset) / period * period + offset;
                while first <= after.0 {
                    first += period;
                }
                (Time(first), Time(first + (count as i64 - 1) * period))
            }
            Self::List(due) => {
                let i = due.partition_point(|t| *t <= after);
                let far = Time::FAR_FUTURE;
                (
                    due.get(i).copied().unwrap_or(far),
                    due.get(i + count as usize - 1).copied().unwrap_or(far),
                )
            }
        }
    }
}

fn calendar() -> Vec<Schedule> {
    let mut all = Vec::new();
    for (from, to) in SEASONS {
        let season = (Time::parse(from).unwrap(), Time::parse(to).unwrap());
        for name in ZONES {
            let zone = TimeZone::get(name).unwrap();
            for case in CASES {
                let due = by_the_minute(case, &zone, season.0, season.1);
                let trigger = Trigger::Cron(Cron::parse(case.0, name).unwrap());
                all.push(Schedule { trigger, season, audit: Audit::List(due) });
            }
        }
    }
    all
}

/// The store: one row per due instant or range, unique, appended in order.
#[derive(Default)]
struct Ledger {
    rows: BTreeMap<Time, Row>,
    registered: Option<Time>,
}

struct Row {
    through: Time,
    count: u64,
    fate: Option<Fate>,
    published: u32,
}

impl Ledger {
    fn newest(&self) -> Option<Time> {
        self.rows.values().next_back().map(|r| r.through).or(self.registered)
    }

    /// One transaction: all of it, or none where something newer or the same is there already.
    fn append(&mut self, passed: &[Passed], fire: Option<Time>) -> bool {
        let mut newest = self.newest();
        let fired = fire.map(|t| (t, t, 1, None));
        let rows: Vec<_> =
            passed.iter().map(|p| (p.first, p.last, p.count, Some(p.fate))).chain(fired).collect();
        for (first, last, ..) in &rows {
            if newest.is_some_and(|n| *first <= n) || last < first {
                return false;
            }
            newest = Some(*last);
        }
        for (first, through, count, fate) in rows {
            let row = Row { through, count, fate, published: 0 };
            assert!(self.rows.insert(first, row).is_none());
        }
        true
    }
}

/// A crash: everything that the node has in memory is gone.
struct Crash;

/// One node's memory of the worker.
#[derive(Default)]
struct Memory {
    backlog: VecDeque<(Vec<Passed>, Time)>,
    pending: Vec<Time>,
    running: Option<(Time, Time)>,
    next: Option<Time>,
}

struct World<'a> {
    dice: Dice,
    schedule: &'a Schedule,
    missed: Missed,
    ledger: Ledger,
    crash_percent: i64,
    longest_cycle: i64,
}

impl World<'_> {
    /// A place where the node may die.
    fn survive(&mut self) -> Result<(), Crash> {
        if self.dice.chance(self.crash_percent) { Err(Crash) } else { Ok(()) }
    }

    fn boot(&mut self, now: Time) -> Result<Memory, Crash> {
        self.ledger.registered.get_or_insert(now);
        self.survive()?;
        let plan = plan(&self.schedule.trigger, self.missed, self.ledger.newest(), now);
        let mut memory = Memory { next: plan.next, ..Memory::default() };
        let mut passed = plan.passed;
        for due in plan.fire {
            memory.backlog.push_back((std::mem::take(&mut passed), due));
        }
        if !passed.is_empty() {
            self.survive()?;
            self.ledger.append(&passed, None);
            self.survive()?;
        }
        Ok(memory)
    }

    fn poll(&mut self, memory: &mut Memory, now: Time) -> Result<(), Crash> {
        if let Some((due, _)) = memory.running.filter(|(_, end)| *end <= now) {
            self.survive()?;
            self.ledger.rows.get_mut(&due).unwrap().published += 1;
            self.survive()?;
            memory.running = None;
        }
        while let Some(due) = memory.next.filter(|t| *t <= now) {
            memory.pending.push(due);
            memory.next = next_due(&self.schedule.trigger, due);
        }
        if memory.running.is_some() {
            return Ok(());
        }
        if memory.backlog.is_empty() && !memory.pending.is_empty() {
            let merged = collapse(&mut memory.pending);
            let newest = memory.pending.pop().unwrap();
            memory.backlog.push_back((merged.into_iter().collect(), newest));
        }
        let Some((passed, due)) = memory.backlog.pop_front() else { return Ok(()) };
        self.survive()?;
        if self.ledger.append(&passed, Some(due)) {
            self.survive()?;
            memory.running = Some((due, now + Millis(self.dice.below(self.longest_cycle))));
        } else {
            // The other node was first: look at the ledger again.
            *memory = self.boot(now)?;
        }
        Ok(())
    }
}

/// Says which seed it was when a run panics, wherever that is.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to run it alone: SIMULATION_SEED={}", self.0);
        }
    }
}

fn run(seed: u64, calendar: &[Schedule]) -> (u64, u64) {
    let _seed = Seed(seed);
    let mut dice = Dice(seed);
    let grid;
    let schedule = if dice.chance(40) {
        let period = *dice.pick(&[1_000, 7_000, 40_000, MINUTE, 17 * MINUTE, HOUR, 25 * HOUR]);
        let offset = dice.below(period);
        let trigger = Trigger::Every { period: Millis(period), offset: Millis(offset) };
        let season = calendar[0].season;
        grid = Schedule { trigger, season, audit: Audit::Grid(period, offset) };
        &grid
    } else {
        dice.pick(calendar)
    };
    // How long the schedule's instants lie apart, roughly: time moves in proportion.
    let (rhythm, cap) = match &schedule.audit {
        Audit::Grid(period, _) => (*period, Time::FAR_FUTURE),
        Audit::List(due) => {
            let span = schedule.season.1.since(schedule.season.0).0;
            (span / due.len().max(1) as i64, schedule.season.1 - Millis(1))
        }
    };
    let season = schedule.season.1.since(schedule.season.0).0;
    let mut now = schedule.season.0 + Millis(dice.below(season * 3 / 4));
    let missed = match dice.below(4) {
        0 => Missed::Skip,
        1 => Missed::Latest,
        _ => Missed::All { cap: dice.below(6) as u32 },
    };
    let (crash_percent, longest_cycle) = (dice.below(15), rhythm * dice.below(4));
    let nodes = 1 + usize::from(dice.chance(30));
    let mut world =
        World { dice, schedule, missed, ledger: Ledger::default(), crash_percent, longest_cycle };
    let mut memories: Vec<(Option<Memory>, Time)> = (0..nodes).map(|_| (None, now)).collect();
    for _ in 0..40 {
        now = (now + Millis(1 + world.dice.below(rhythm * 3 / 2))).min(cap);
        for (memory, down_until) in &mut memories {
            let result = match memory {
                None if now < *down_until => Ok(()),
                None => world.boot(now).map(|m| *memory = Some(m)),
                Some(memory) => world.poll(memory, now),
            };
            if result.is_err() {
                *memory = None;
                let scale = *world.dice.pick(&[1, rhythm, rhythm * 10, rhythm * 1_000]);
                *down_until = now + Millis(world.dice.below(scale).min(40 * 24 * HOUR));
                if world.dice.chance(50) && nodes == 1 {
                    now = (*down_until).min(cap);
                }
            }
        }
    }
    // Whatever happened, the next start brings the ledger up to date.
    world.crash_percent = 0;
    world.longest_cycle = 0;
    let Ok(mut memory) = world.boot(now) else { unreachable!("nothing crashes any more") };
    while !memory.backlog.is_empty() || !memory.pending.is_empty() || memory.running.is_some() {
        assert!(world.poll(&mut memory, now).is_ok());
    }
    audit(seed, &world, now)
}

/// Each due instant between registration and `now` is in the ledger exactly once.
fn audit(seed: u64, world: &World<'_>, now: Time) -> (u64, u64) {
    let mut reached = world.ledger.registered.unwrap();
    let (mut fired, mut passed) = (0, 0);
    let about = || format!("seed {seed}: {} {:?}", world.schedule.trigger, world.missed);
    for (first, row) in &world.ledger.rows {
        let expected = world.schedule.audit.range(reached, row.count);
        assert_eq!((*first, row.through), expected, "{} after {reached}", about());
        assert!(row.published <= 1, "{}: {first} was published twice", about());
        match row.fate {
            None => fired += row.count,
            Some(_) => {
                assert_eq!(row.published, 0, "{}", about());
                passed += row.count;
            }
        }
        reached = row.through;
    }
    let (next, _) = world.schedule.audit.range(reached, 1);
    assert!(next > now, "{}: {next} is lost at {now}", about());
    (fired, passed)
}

#[test]
fn no_tick_is_lost_or_doubled() {
    let calendar = calendar();
    let one = std::env::var("SIMULATION_SEED").ok().and_then(|s| s.parse::<u64>().ok());
    let seeds = one.map_or(0..RUNS, |s| s..s + 1);
    let (mut fired, mut passed) = (0, 0);
    for seed in seeds {
        let (f, p) = run(seed, &calendar);
        fired += f;
        passed += p;
    }
    assert!(one.is_some() || (fired > RUNS && passed > RUNS), "{fired} fired, {passed} passed");
}
