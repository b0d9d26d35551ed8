//! Due instants: what expressions mean, what they refuse, and the daylight saving rules.

use proptest::prelude::*;
use watchbell_core::schedule::{
    Cron, CronError, Fate, Passed, Plan, collapse, jittered, next_due, plan, upcoming,
};
use watchbell_core::{Millis, Missed, Time, Trigger};

fn cron(expression: &str, zone: &str) -> Cron {
    Cron::parse(expression, zone).unwrap()
}

fn at(text: &str) -> Time {
    Time::parse(text).unwrap()
}

fn next(expression: &str, zone: &str, after: &str, n: usize) -> String {
    let trigger = Trigger::Cron(cron(expression, zone));
    let due: Vec<_> = upcoming(&trigger, at(after)).take(n).map(|t| t.to_string()).collect();
    due.join(" ").replace(":00Z", "Z")
}

#[test]
fn expressions_mean_what_they_say() {
    for (expression, after, expected) in [
        ("* * * * *", "2026-11-22T03:16:59Z", "2026-11-22T03:17Z 2026-11-22T03:18Z"),
        ("*/20 * * * * *", "2026-11-22T03:16:59Z", "2026-11-22T03:17Z 2026-11-22T03:17:20Z"),
        ("30 2 * * *", "2026-11-22T02:30:00Z", "2026-11-23T02:30Z 2026-11-24T02:30Z"),
        ("0 9-17/4 * * MON-FRI", "2026-11-20T13:00:00Z", "2026-11-20T17:00Z 2026-11-23T09:00Z"),
        ("0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29T00:00Z 2108-02-29T00:00Z"),
        ("0 0 L * *", "2026-01-31T00:00:00Z", "2026-02-28T00:00Z 2026-03-31T00:00Z"),
        ("0 0 LW * *", "2026-01-31T00:00:00Z", "2026-02-27T00:00Z 2026-03-31T00:00Z"),
        ("0 0 15W * *", "2026-02-01T00:00:00Z", "2026-02-16T00:00Z 2026-03-16T00:00Z"),
        ("0 0 * * 5L", "2026-11-01T00:00:00Z", "2026-11-27T00:00Z 2026-12-25T00:00Z"),
        ("0 0 ? * TUE#2", "2026-11-01T00:00:00Z", "2026-11-10T00:00Z 2026-12-08T00:00Z"),
        ("0 0 * * 6-7", "2026-11-20T00:00:00Z", "2026-11-21T00:00Z 2026-11-22T00:00Z"),
        ("0 0 * * SAT-SUN", "2026-11-20T00:00:00Z", "2026-11-21T00:00Z 2026-11-22T00:00Z"),
        // Both day fields: either matches.
        ("0 0 13 * FRI", "2026-11-11T00:00:00Z", "2026-11-13T00:00Z 2026-11-20T00:00Z"),
        ("0 0 1 jan,Jul *", "2026-11-11T00:00:00Z", "2027-01-01T00:00Z 2027-07-01T00:00Z"),
        ("@daily", "2026-11-11T00:00:00Z", "2026-11-12T00:00Z 2026-11-13T00:00Z"),
        ("@weekly", "2026-11-11T00:00:00Z", "2026-11-15T00:00Z 2026-11-22T00:00Z"),
    ] {
        assert_eq!(next(expression, "UTC", after, 2), expected, "{expression}");
    }
}

#[test]
fn daylight_saving_time() {
    for (expression, zone, after, expected) in [
        // Berlin, 29 March 2026: 02:00 becomes 03:00. Fixed times in the gap: once, after it.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            "2026-03-29T01:00Z 2026-03-30T00:30Z 2026-03-31T00:30Z",
        ),
        (
            "0,20,40 2 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            "2026-03-29T01:00Z 2026-03-30T00:00Z 2026-03-30T00:20Z",
        ),
        // A time of its own at the end of the gap is the same instant.
        (
            "30 2,3 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            "2026-03-29T01:00Z 2026-03-29T01:30Z 2026-03-30T00:30Z",
        ),
        (
            "0 2,3 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            "2026-03-29T01:00Z 2026-03-30T00:00Z 2026-03-30T01:00Z",
        ),
        // Interval-like: each real instant that matches.
        (
            "*/30 * * * *",
            "Europe/Berlin",
            "2026-03-29T00:29:00Z",
            "2026-03-29T00:30Z 2026-03-29T01:00Z 2026-03-29T01:30Z",
        ),
        // Berlin, 25 October 2026: 03:00 becomes 02:00. Fixed times: the first of the two.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T12:00:00Z",
            "2026-10-25T00:30Z 2026-10-26T01:30Z 2026-10-27T01:30Z",
        ),
        (
            "*/30 * * * *",
            "Europe/Berlin",
            "2026-10-24T23:59:00Z",
            "2026-10-25T00:00Z 2026-10-25T00:30Z 2026-10-25T01:00Z",
        ),
        (
            "30 * * * *",
            "Europe/Berlin",
            "2026-10-24T23:59:00Z",
            "2026-10-25T00:30Z 2026-10-25T01:30Z 2026-10-25T02:30Z",
        ),
        // Lord Howe moves by half an hour: 02:00 becomes 02:30, and back at 02:00.
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T00:00:00Z",
            "2026-10-03T15:30Z 2026-10-04T15:15Z 2026-10-05T15:15Z",
        ),
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-04T00:00:00Z",
            "2026-04-04T14:45Z 2026-04-05T15:15Z 2026-04-06T15:15Z",
        ),
        // Santiago skips midnight itself.
        (
            "0 0 * * *",
            "America/Santiago",
            "2026-09-05T12:00:00Z",
            "2026-09-06T04:00Z 2026-09-07T03:00Z 2026-09-08T03:00Z",
        ),
        // Apia skipped the whole of 30 December 2011.
        (
            "0 12 * * *",
            "Pacific/Apia",
            "2011-12-29T00:00:00Z",
            "2011-12-29T22:00Z 2011-12-30T10:00Z 2011-12-30T22:00Z",
        ),
        // Far beyond the table of past changes, the zone's rule goes on.
        (
            "30 2 * * *",
            "America/New_York",
            "2090-03-11T12:00:00Z",
            "2090-03-12T07:00Z 2090-03-13T06:30Z 2090-03-14T06:30Z",
        ),
    ] {
        assert_eq!(next(expression, zone, after, 3), expected, "{expression} {zone}");
    }
    assert!(cron("0,30 9-17 * * 1-5", "UTC").is_fixed_time());
    assert!(!cron("0 */2 * * *", "UTC").is_fixed_time());
}

#[test]
fn the_longest_pause_is_that_of_the_whole_year() {
    let start = at("2026-01-01T00:00:00Z");
    let end = start + Millis::from_days(366);
    for (expression, zone) in [
        ("*/20 * * * *", "UTC"),
        ("7,9 * * * *", "Asia/Kolkata"),
        ("*/5 9-16 * * 1-5", "America/New_York"),
        ("30 2 * * *", "Europe/Berlin"),
        ("30 2 * * *", "America/New_York"),
        // Fixed times are due once in the hour that happens twice, so there are 80 minutes then.
        ("0,20,40 0-23 * * *", "America/New_York"),
        ("0 */6 * * *", "Australia/Lord_Howe"),
        ("0 12 1,15 * *", "Europe/Berlin"),
        ("0 * * 6 *", "UTC"),
        ("15 4 L * *", "Europe/London"),
        ("0 0 29 2 *", "UTC"),
        ("0 0 1-30 * *", "UTC"),
    ] {
        let cron = cron(expression, zone);
        let (mut before, mut longest) = (cron.last_until(start).unwrap(), Millis::ZERO);
        while before < end {
            let next = cron.next_after(before).unwrap();
            longest = longest.max(next.since(before));
            before = next;
        }
        assert_eq!(cron.longest_pause(), Some(longest), "{cron}");
        assert_eq!(cron.clone().longest_pause(), Some(longest), "{cron}");
    }
}

#[test]
fn mistakes_have_a_column_and_an_answer() {
    let minute = "0-59, *, a-b, */n, lists";
    let day = "1-31, *, a-b, */n, L, LW, nW, lists";
    let weekday = "0-7 (0 and 7 are Sunday), SUN-SAT, *, a-b, */n, nL, n#k, lists";
    for (expression, column, field, rest, allowed) in [
        ("60 * * * *", 1, "minute", "`60` is out of range 0-59", minute),
        ("0,5,x * * * *", 5, "minute", "`x` is not a minute", minute),
        ("0  25 * * *", 4, "hour", "`25` is out of range 0-23", "0-23, *, a-b, */n, lists"),
        ("0 0 32 * *", 5, "day of month", "`32` is out of range 1-31", day),
        ("0 0 1-0 * *", 7, "day of month", "`0` is out of range 1-31", day),
        (
            "0 0 9-3 * *",
            5,
            "day of month",
            "`9-3` is a range that ends before it begins: write two parts with a comma",
            day,
        ),
        ("5/10 * * * *", 1, "minute", "`5/10` has a step but no range: write 5-59/10", minute),
        ("*/0 * * * *", 3, "minute", "`0` is not a step from 1 to 59", minute),
        ("*/x * * * *", 3, "minute", "`x` is not a step: write a number", minute),
        (
            "0, * * * *",
            3,
            "minute",
            "`` is empty: a list has a value on each side of a comma",
            minute,
        ),
        ("0 0 * * FRO", 9, "day of week", "`FRO` is not a day of week", weekday),
        ("0 0 * * 5#6", 11, "day of week", "`6` is not a week of the month from 1 to 5", weekday),
        ("0 0 * * +1", 9, "day of week", "`+1` is not a day of week", weekday),
        ("ß * * * *", 1, "minute", "`ß` is not a minute", minute),
        ("0 ? * * *", 3, "hour", "`?` is not a hour", "0-23, *, a-b, */n, lists"),
    ] {
        assert_eq!(
            Cron::parse(expression, "UTC").unwrap_err().to_string(),
            format!(
                "cron expression `{expression}`, column {column} ({field}): {rest}; allowed: {allowed}"
            )
        );
    }
    for (expression, zone, message) in [
        (
            "* * * *",
            "UTC",
            "cron expression `* * * *` has 4 fields: write 5 (minute hour day-of-month month \
             day-of-week) or 6 (with the second first)",
        ),
        (
            "0 0 31 2 *",
            "UTC",
            "cron expression `0 0 31 2 *` never fires: no month that it names has the day that it \
             names",
        ),
        (
            "* * * * *",
            "Europe/Berln",
            "time zone `Europe/Berln` is unknown: use an IANA name such as Europe/Berlin or UTC; \
             did you mean Europe/Berlin?",
        ),
        (
            "* * * * *",
            "berlin",
            "time zone `berlin` is unknown: use an IANA name such as Europe/Berlin or UTC; did you \
             mean Europe/Berlin?",
        ),
        ("* * * * *", "", "time zone `` is unknown: use an IANA name such as Europe/Berlin or UTC"),
    ] {
        assert_eq!(Cron::parse(expression, zone).unwrap_err().to_string(), message);
    }
    assert!(matches!(Cron::parse("", "UTC"), Err(CronError::Count { count: 0, .. })));
}

fn every(period: i64, offset: i64) -> Trigger {
    Trigger::Every { period: Millis(period), offset: Millis(offset) }
}

#[test]
fn a_plan_divides_what_was_missed() {
    let minute = every(60_000, 0);
    let t = |minutes: i64| Time(minutes * 60_000);
    let passed =
        |first, last, count, fate| vec![Passed { first: t(first), last: t(last), count, fate }];
    // Five minutes were missed, and it is half past.
    let (last, now) = (Some(t(10)), t(15) + Millis(30_000));
    let next = Some(t(16));
    for (missed, fire, rest) in [
        (Missed::Skip, vec![], passed(11, 15, 5, Fate::Skipped)),
        (Missed::Latest, vec![t(15)], passed(11, 14, 4, Fate::Merged)),
        (Missed::All { cap: 2 }, vec![t(14), t(15)], passed(11, 13, 3, Fate::Skipped)),
        (Missed::All { cap: 9 }, (11..=15).map(t).collect(), vec![]),
        (Missed::All { cap: 0 }, vec![], passed(11, 15, 5, Fate::Skipped)),
    ] {
        assert_eq!(plan(&minute, missed, last, now), Plan { fire, passed: rest, next });
    }
    // On time, each policy runs it.
    for missed in [Missed::Skip, Missed::Latest, Missed::All { cap: 3 }] {
        let plan = plan(&minute, missed, last, t(11) + Millis(20));
        assert_eq!((plan.fire, plan.passed, plan.next), (vec![t(11)], vec![], Some(t(12))));
    }
    // A first start has missed nothing; so has one that ran a moment ago.
    for last in [None, Some(t(15)), Some(t(99))] {
        assert_eq!(plan(&minute, Missed::Latest, last, now), Plan { next, ..Plan::default() });
    }
    // A year of seconds is one value.
    let year = Millis::from_days(365);
    for trigger in [every(1_000, 0), Trigger::Cron(cron("* * * * * *", "Europe/Berlin"))] {
        let plan = plan(&trigger, Missed::Latest, Some(Time(0)), Time(0) + year);
        assert_eq!(plan.passed[0].count, 365 * 86_400 - 1);
        assert_eq!(plan.passed[0].last, Time(0) + year - Millis(1_000));
    }
    assert_eq!(plan(&Trigger::Manual, Missed::Latest, last, now), Plan::default());
    assert_eq!(plan(&every(0, 0), Missed::Latest, last, now), Plan::default());
}

#[test]
fn ticks_during_a_cycle_collapse() {
    let mut none = vec![];
    assert_eq!(collapse(&mut none), None);
    let mut one = vec![Time(1)];
    assert_eq!(collapse(&mut one), None);
    assert_eq!(one, [Time(1)]);
    let mut many = vec![Time(2), Time(3), Time(1), Time(3)];
    let merged = Passed { first: Time(1), last: Time(2), count: 2, fate: Fate::Merged };
    assert_eq!(collapse(&mut many), Some(merged));
    assert_eq!(many, [Time(3)]);
}

/// Any expression of the grammar, mostly.
fn expression() -> impl Strategy<Value = String> {
    let field = |min: u32, max: u32| {
        prop_oneof![
            3 => Just("*".to_owned()),
            3 => (min..=max).prop_map(|v| v.to_string()),
            2 => (min..=max, min..=max).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            2 => (1..=max).prop_map(|n| format!("*/{n}")),
            1 => (min..=max, min..=max, 1..=max)
                .prop_map(|(a, b, n)| format!("{}-{}/{n}", a.min(b), a.max(b))),
            1 => (min..=max, min..=max).prop_map(|(a, b)| format!("{a},{b}")),
        ]
    };
    let day = prop_oneof![4 => field(1, 31), 1 => Just("L".into()), 1 => Just("15W".into())];
    let weekday = prop_oneof![6 => field(0, 7), 1 => Just("5L".into()), 1 => Just("2#3".into())];
    let second = prop_oneof![3 => Just(None), 2 => field(0, 59).prop_map(Some)];
    (second, field(0, 59), field(0, 23), day, field(1, 12), weekday).prop_map(
        |(second, minute, hour, day, month, weekday)| {
            let five = format!("{minute} {hour} {day} {month} {weekday}");
            second.map_or(five.clone(), |s| format!("{s} {five}"))
        },
    )
}

const ZONES: [&str; 7] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Asia/Kathmandu",
    "Pacific/Apia",
];

fn trigger() -> impl Strategy<Value = Trigger> {
    prop_oneof![
        (1_i64..100_000_000, any::<prop::sample::Index>())
            .prop_map(|(period, offset)| every(period, offset.index(period as usize) as i64)),
        (expression(), 0_usize..ZONES.len()).prop_filter_map("never fires", |(e, z)| {
            Cron::parse(&e, ZONES[z]).ok().map(Trigger::Cron)
        }),
    ]
}

/// Instants from 2008 to 2040, as often as not within a day of a change of clocks.
fn instant() -> impl Strategy<Value = Time> {
    let changes = [
        "2026-03-29T01:00:00Z",
        "2026-10-25T01:00:00Z",
        "2026-03-08T07:00:00Z",
        "2026-11-01T06:00:00Z",
        "2026-04-04T15:00:00Z",
        "2026-10-03T15:30:00Z",
        "2011-12-30T10:00:00Z",
    ];
    prop_oneof![
        1_200_000_000_000_i64..2_200_000_000_000,
        (0..changes.len(), -100_000_000_i64..100_000_000)
            .prop_map(move |(i, shift)| at(changes[i]).0 + shift),
    ]
    .prop_map(Time)
}

proptest! {
    #[test]
    fn next_due_is_monotone(trigger in trigger(), a in instant(), step in 0_i64..1_000_000_000) {
        let b = a + Millis(step);
        let (na, nb) = (next_due(&trigger, a).unwrap(), next_due(&trigger, b).unwrap());
        prop_assert!(na > a && nb > b && na <= nb);
        // Nothing lies between an instant and its next: they agree up to there.
        prop_assert!(na <= b || nb == na);
        prop_assert_eq!(next_due(&trigger, na - Millis(1)), Some(na));
    }

    #[test]
    fn no_due_instant_is_lost_or_doubled(
        trigger in trigger(),
        start in instant(),
        pauses in prop::collection::vec(0_i64..400_000_000, 1..8),
        policy in 0_u32..6,
    ) {
        let missed = match policy {
            0 => Missed::Skip,
            1 => Missed::Latest,
            n => Missed::All { cap: n - 2 },
        };
        // What a walk by single steps finds, up to a bound for dense schedules.
        let end = start + Millis(pauses.iter().sum());
        let walked: Vec<_> =
            upcoming(&trigger, start).take_while(|t| *t <= end).take(3_000).collect();
        let (mut last, mut now, mut seen) = (start, start, 0);
        for pause in pauses {
            now += Millis(pause);
            let plan = plan(&trigger, missed, Some(last), now);
            prop_assert!(plan.next.unwrap() > now);
            prop_assert_eq!(plan.next, next_due(&trigger, now));
            let ranges = plan.passed.iter().map(|p| (p.first, p.last, p.count as usize));
            for (first, through, count) in ranges.chain(plan.fire.iter().map(|t| (*t, *t, 1))) {
                prop_assert_eq!(next_due(&trigger, last), Some(first));
                if let Some(expected) = walked.get(seen) {
                    prop_assert_eq!(*expected, first);
                }
                if let Some(expected) = walked.get(seen + count - 1) {
                    prop_assert_eq!(*expected, through);
                }
                (last, seen) = (through, seen + count);
            }
            prop_assert!(next_due(&trigger, last).unwrap() > now);
        }
        prop_assert!(seen >= walked.len());
        prop_assert!(walked.len() == 3_000 || seen == walked.len());
    }

    /// Where the offset does not change, a widely used implementation agrees.
    #[test]
    fn expressions_mean_what_others_take_them_to_mean(expression in expression(), after in instant()) {
        if let Ok(ours) = Cron::parse(&expression, "UTC") {
            let theirs: croner::Cron = expression.parse().unwrap();
            let zoned = jiff::Timestamp::from_millisecond(after.0).unwrap()
                .to_zoned(jiff::tz::TimeZone::UTC);
            let next = theirs.find_next_occurrence(&zoned, false).unwrap();
            let whole = next.timestamp().as_millisecond().div_euclid(1_000) * 1_000;
            prop_assert_eq!(ours.next_after(after), Some(Time(whole)));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(expression in "\\PC{0,24}", zone in "\\PC{0,8}") {
        let refused = Cron::parse(&expression, "UTC").err().map(|e| e.to_string());
        prop_assert!(refused.is_none_or(|m| m.starts_with("cron expression")));
        let refused = Cron::parse("* * * * *", &zone).err().map(|e| e.to_string());
        prop_assert!(refused.is_none_or(|m| m.starts_with("time zone")));
    }

    #[test]
    fn jitter_stays_within_its_spread(name in "[a-z-]{1,12}", due: i32, spread in -10_i64..100_000) {
        let (due, spread) = (Time(due.into()), Millis(spread));
        let start = jittered(&name, due, spread);
        prop_assert_eq!(start, jittered(&name, due, spread));
        prop_assert!(start == due || (due < start && start < due + spread));
    }
}
