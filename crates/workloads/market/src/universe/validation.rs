//! Whether each symbol can be carried, and what follows (section 1.3). Pure: facts and streaks in,
//! streaks, actions and drift out.
//!
//! Three rules are above all others: a person's choice is never overridden; a symbol is judged by
//! what the venue says of it, not by how far our own synchronisation is; and when every symbol is bad
//! at once, it is the ingest that is down, and nothing is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use watchbell_core::{Millis, Time};

use super::venue::Listing;

/// A candle that closed longer ago does not show that a symbol trades.
pub(super) const FRESH_KLINE: Millis = Millis::from_secs(180);
/// A point that is older does not either.
pub(super) const FRESH_SAMPLE: Millis = Millis::from_secs(20);
/// So many bad runs in a row disable a symbol, and so many good ones enable it again.
pub(super) const RUNS: u32 = 3;
/// A symbol that has just been enabled is not judged.
pub(super) const GRACE: Millis = Millis::from_mins(5);

/// Where settings and reality part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The venue does not list the symbol.
    NotListed,
    /// The venue lists it but does not trade it, or not spot.
    Halted,
    /// No candle of it was ever stored.
    NoKlines,
    /// Its newest candle closed more than three minutes ago.
    StaleKlines,
    /// Its newest point is older than 20 seconds.
    StaleSamples,
    /// Nothing says how far its candles are known.
    CursorMissing,
    /// `market.symbols` says something else than the universe.
    MarketMirrorMismatch,
    /// A client asks for it, and the universe does not have it.
    CsrSsrMismatch,
}

impl Code {
    /// All codes.
    pub const ALL: [Self; 8] = [
        Self::NotListed,
        Self::Halted,
        Self::NoKlines,
        Self::StaleKlines,
        Self::StaleSamples,
        Self::CursorMissing,
        Self::MarketMirrorMismatch,
        Self::CsrSsrMismatch,
    ];

    /// As it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotListed => "NOT_LISTED",
            Self::Halted => "HALTED",
            Self::NoKlines => "NO_KLINES",
            Self::StaleKlines => "STALE_KLINES",
            Self::StaleSamples => "STALE_SAMPLES",
            Self::CursorMissing => "CURSOR_MISSING",
            Self::MarketMirrorMismatch => "MARKET_MIRROR_MISMATCH",
            Self::CsrSsrMismatch => "CSR_SSR_MISMATCH",
        }
    }

    /// Whether it can be the reason why a symbol cannot be carried.
    const fn is_of_venue(self) -> bool {
        matches!(self, Self::NotListed | Self::Halted | Self::NoKlines | Self::StaleKlines)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How bad a drift is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It is over, or was mended.
    Info,
    /// Worth a look.
    Warn,
    /// The symbol cannot be carried.
    Err,
}

impl Severity {
    /// As it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Err => "err",
        }
    }
}

/// What one call of the venue for a symbol's newest candle said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    /// There was no call, or no answer.
    Unknown,
    /// When the newest closed candle closed; none where there is none.
    Answered(Option<Time>),
}

/// What is known of one symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) symbol: Arc<str>,
    pub(super) enabled: bool,
    /// Disabled by this validation, not by a person.
    pub(super) auto_disabled: bool,
    /// Since when it is enabled or disabled.
    pub(super) since: Time,
    /// What the venue says, if it was ever asked.
    pub(super) listing: Option<Listing>,
    /// When the newest stored candle closed.
    pub(super) kline: Option<Time>,
    /// When the newest point with a price ended, if it is of the last minute.
    pub(super) sample: Option<Time>,
    pub(super) probe: Probe,
    pub(super) has_cursor: bool,
    /// Whether `market.symbols` agrees.
    pub(super) mirrored: bool,
}

impl Facts {
    /// Whether the stored data alone shows that the symbol is carried.
    pub(super) fn is_fresh(&self, now: Time) -> bool {
        self.kline.is_some_and(|at| now - at < FRESH_KLINE)
            || self.sample.is_some_and(|at| now - at < FRESH_SAMPLE)
    }

    /// Whether it can be ingested; `None` where that cannot be said.
    fn capable(&self, now: Time) -> Option<bool> {
        if self.listing.as_ref().is_some_and(|l| !l.trades()) {
            return Some(false);
        }
        // What brings news is traded, also where the venue's list could not be had.
        if self.is_fresh(now) {
            return Some(true);
        }
        match self.probe {
            // Our own candles are old: that may be ours to catch up with.
            Probe::Unknown => None,
            Probe::Answered(at) => Some(at.is_some_and(|at| now - at < FRESH_KLINE)),
        }
    }

    fn codes(&self, now: Time, sampling: bool) -> BTreeSet<Code> {
        let mut codes = BTreeSet::new();
        let mut note = |code, holds: bool| {
            if holds {
                codes.insert(code);
            }
        };
        note(Code::MarketMirrorMismatch, !self.mirrored);
        if self.enabled || self.auto_disabled {
            let listing = self.listing.as_ref();
            note(Code::NotListed, listing.is_some_and(|l| !l.is_listed()));
            note(Code::Halted, listing.is_some_and(|l| l.is_listed() && !l.trades()));
        }
        if self.enabled {
            let old = |at: Time| now - at >= FRESH_KLINE;
            note(Code::NoKlines, self.kline.is_none());
            note(Code::StaleKlines, self.kline.is_some_and(old));
            let sampled = self.sample.is_some_and(|at| now - at < FRESH_SAMPLE);
            note(Code::StaleSamples, sampling && !sampled);
            note(Code::CursorMissing, !self.has_cursor);
        }
        codes
    }
}

/// How a symbol was seen, run after run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Streak {
    pub(super) ok: u32,
    pub(super) bad: u32,
    pub(super) capable: Option<bool>,
    pub(super) codes: BTreeSet<Code>,
}

/// What holds for all symbols.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Context {
    pub(super) now: Time,
    /// Whether points are sampled at all.
    pub(super) sampling: bool,
    /// Symbols that a client asks for and the universe does not have.
    pub(super) mismatched: Vec<Arc<str>>,
}

/// One line for the drift log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Drift {
    pub(super) symbol: Arc<str>,
    pub(super) code: Code,
    pub(super) severity: Severity,
    pub(super) action: &'static str,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Verdict {
    pub(super) streaks: BTreeMap<Arc<str>, Streak>,
    pub(super) enable: Vec<Arc<str>>,
    pub(super) disable: Vec<(Arc<str>, Code)>,
    /// Symbols that get a cursor.
    pub(super) cursors: Vec<Arc<str>>,
    /// Whether the market's mirror is written anew.
    pub(super) mirror: bool,
    pub(super) drift: Vec<Drift>,
    /// No enabled symbol can be carried: the ingest is down.
    pub(super) outage: bool,
}

/// One run.
pub(super) fn judge(
    all: &[Facts],
    before: &BTreeMap<Arc<str>, Streak>,
    context: &Context,
) -> Verdict {
    let now = context.now;
    let in_grace = |f: &Facts| f.enabled && now - f.since < GRACE;
    let mut verdict = Verdict::default();
    let judged: Vec<Option<bool>> =
        all.iter().filter(|f| f.enabled && !in_grace(f)).map(|f| f.capable(now)).collect();
    verdict.outage = !judged.is_empty() && !judged.contains(&Some(true));
    for f in all {
        let old = before.get(&f.symbol).cloned().unwrap_or_default();
        let (capable, codes) = (f.capable(now), f.codes(now, context.sampling));
        let mut new = Streak { codes, capable, ..old.clone() };
        let judged = (f.enabled || f.auto_disabled) && !verdict.outage;
        match capable {
            Some(true) if judged => (new.ok, new.bad) = (old.ok.saturating_add(1), 0),
            Some(false) if judged => {
                let bad = if in_grace(f) { 0 } else { old.bad.saturating_add(1) };
                (new.ok, new.bad) = (0, bad);
            }
            // A run that could not tell neither adds to a streak nor ends it.
            _ if f.enabled || f.auto_disabled => {}
            _ => (new.ok, new.bad) = (0, 0),
        }
        let mut actions: BTreeMap<Code, &'static str> = BTreeMap::new();
        if f.enabled && judged && new.bad >= RUNS {
            let reason = new.codes.iter().copied().find(|c| c.is_of_venue());
            let reason = reason.unwrap_or(Code::StaleKlines);
            verdict.disable.push((Arc::clone(&f.symbol), reason));
            actions.insert(reason, "disabled");
            new.codes.insert(reason);
            (new.ok, new.bad) = (0, 0);
        } else if f.auto_disabled && judged && new.ok >= RUNS {
            verdict.enable.push(Arc::clone(&f.symbol));
            (new.ok, new.bad) = (0, 0);
        }
        if new.codes.contains(&Code::CursorMissing) {
            verdict.cursors.push(Arc::clone(&f.symbol));
            actions.insert(Code::CursorMissing, "cursor_created");
        }
        if new.codes.contains(&Code::MarketMirrorMismatch) {
            verdict.mirror = true;
            actions.insert(Code::MarketMirrorMismatch, "mirrored");
        }
        let bad = capable == Some(false);
        note(&mut verdict.drift, &f.symbol, (&old.codes, &new.codes), bad, &actions);
        verdict.streaks.insert(Arc::clone(&f.symbol), new);
    }
    mismatches(&mut verdict, before, context);
    verdict
}

/// What clients ask for and do not get.
fn mismatches(verdict: &mut Verdict, before: &BTreeMap<Arc<str>, Streak>, context: &Context) {
    let code = Code::CsrSsrMismatch;
    let had = |symbol: &Arc<str>| before.get(symbol).is_some_and(|s| s.codes.contains(&code));
    for symbol in &context.mismatched {
        let streak = verdict.streaks.entry(Arc::clone(symbol)).or_default();
        streak.codes.insert(code);
        if !had(symbol) {
            let symbol = Arc::clone(symbol);
            verdict.drift.push(Drift { symbol, code, severity: Severity::Warn, action: "flagged" });
        }
    }
    for (symbol, streak) in before {
        let is = context.mismatched.contains(symbol);
        if streak.codes.contains(&code) && !is && !verdict.streaks.contains_key(symbol) {
            let symbol = Arc::clone(symbol);
            verdict.drift.push(Drift { symbol, code, severity: Severity::Info, action: "cleared" });
        }
    }
}

/// One line for each code that begins, ends, or is acted upon; one that lasts is not repeated.
fn note(
    drift: &mut Vec<Drift>,
    symbol: &Arc<str>,
    (old, new): (&BTreeSet<Code>, &BTreeSet<Code>),
    bad: bool,
    actions: &BTreeMap<Code, &'static str>,
) {
    for &code in new.union(old) {
        let (severity, action) = match (actions.get(&code), old.contains(&code)) {
            (Some(action), _) if code.is_of_venue() => (Severity::Err, *action),
            (Some(action), _) => (Severity::Info, *action),
            (None, true) if new.contains(&code) => continue,
            (None, true) => (Severity::Info, "cleared"),
            (None, false) if bad && code.is_of_venue() => (Severity::Err, "noticed"),
            (None, false) => (Severity::Warn, "noticed"),
        };
        drift.push(Drift { symbol: Arc::clone(symbol), code, severity, action });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T: Time = Time(1_000_000_000);

    fn listing(status: &str) -> Option<Listing> {
        Some(Listing { status: status.into(), is_spot: true, fetched_at: T })
    }

    /// An enabled symbol of which all is well.
    fn good(symbol: &str) -> Facts {
        Facts {
            symbol: symbol.into(),
            enabled: true,
            auto_disabled: false,
            since: Time::EPOCH,
            listing: listing("TRADING"),
            kline: Some(T - Millis(30_000)),
            sample: Some(T - Millis(5_000)),
            probe: Probe::Unknown,
            has_cursor: true,
            mirrored: true,
        }
    }

    /// Nothing of it is new, and the venue has nothing newer.
    fn silent(symbol: &str) -> Facts {
        let old = Some(T - Millis(180_000));
        Facts { kline: old, sample: None, probe: Probe::Answered(old), ..good(symbol) }
    }

    fn context() -> Context {
        Context { now: T, sampling: true, mismatched: Vec::new() }
    }

    /// The same facts in run after run.
    fn runs(facts: &[Facts], n: usize) -> Vec<Verdict> {
        let (mut streaks, mut all) = (BTreeMap::new(), Vec::new());
        for _ in 0..n {
            let verdict = judge(facts, &streaks, &context());
            streaks.clone_from(&verdict.streaks);
            all.push(verdict);
        }
        all
    }

    /// Each code alone, with what makes it, its severity, and what is done.
    #[test]
    fn every_drift_has_its_code() {
        let far = T - Millis::from_hours(1);
        type Expected = &'static [(Code, Severity, &'static str)];
        let table: [(Facts, Expected); 9] = [
            (good("A"), &[]),
            (
                Facts { listing: listing("NOT_LISTED"), ..good("A") },
                &[(Code::NotListed, Severity::Err, "noticed")],
            ),
            (
                Facts { listing: listing("HALT"), ..good("A") },
                &[(Code::Halted, Severity::Err, "noticed")],
            ),
            (
                Facts { kline: None, probe: Probe::Answered(None), sample: None, ..good("A") },
                &[
                    (Code::NoKlines, Severity::Err, "noticed"),
                    (Code::StaleSamples, Severity::Warn, "noticed"),
                ],
            ),
            (
                silent("A"),
                &[
                    (Code::StaleKlines, Severity::Err, "noticed"),
                    (Code::StaleSamples, Severity::Warn, "noticed"),
                ],
            ),
            // The venue has newer candles than we: we are late, the symbol is not at fault.
            (
                Facts { kline: Some(far), probe: Probe::Answered(Some(T)), ..good("A") },
                &[(Code::StaleKlines, Severity::Warn, "noticed")],
            ),
            (
                Facts { sample: None, ..good("A") },
                &[(Code::StaleSamples, Severity::Warn, "noticed")],
            ),
            (
                Facts { has_cursor: false, ..good("A") },
                &[(Code::CursorMissing, Severity::Info, "cursor_created")],
            ),
            (
                Facts { mirrored: false, ..good("A") },
                &[(Code::MarketMirrorMismatch, Severity::Info, "mirrored")],
            ),
        ];
        for (facts, expected) in table {
            let verdict = judge(&[facts.clone(), good("B")], &BTreeMap::new(), &context());
            let drift: Vec<_> =
                verdict.drift.iter().map(|d| (d.code, d.severity, d.action)).collect();
            assert_eq!(drift, expected, "{facts:?}");
            assert_eq!(verdict.cursors.len(), usize::from(!facts.has_cursor));
            assert_eq!(verdict.mirror, !facts.mirrored);
        }
        let asked = Context { mismatched: vec!["Z".into()], ..context() };
        let verdict = judge(&[good("A")], &BTreeMap::new(), &asked);
        assert_eq!(
            (verdict.drift[0].code, verdict.drift[0].action),
            (Code::CsrSsrMismatch, "flagged")
        );
        let over = judge(&[good("A")], &verdict.streaks, &context());
        assert_eq!((&*over.drift[0].symbol, over.drift[0].action), ("Z", "cleared"));
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn three_bad_runs_disable_and_three_good_ones_enable_again() {
        let all = runs(&[silent("A"), good("B")], 3);
        assert!(all[..2].iter().all(|v| v.disable.is_empty()));
        assert_eq!(all[2].disable, [("A".into(), Code::StaleKlines)]);
        let drift = &all[2].drift[0];
        assert_eq!((drift.code, drift.action), (Code::StaleKlines, "disabled"));
        assert!(all[1].drift.is_empty(), "what lasts is not repeated");

        // From here on only a probe tells.
        let off = |probe| Facts { enabled: false, auto_disabled: true, probe, ..silent("A") };
        let all = runs(&[off(Probe::Answered(Some(T - Millis(60_000)))), good("B")], 3);
        assert!(all[..2].iter().all(|v| v.enable.is_empty()));
        assert_eq!(all[2].enable, ["A".into()]);
        for probe in [Probe::Unknown, Probe::Answered(None), Probe::Answered(Some(T - FRESH_KLINE))]
        {
            assert!(runs(&[off(probe), good("B")], 5).iter().all(|v| v.enable.is_empty()));
        }
        // One bad run begins the count anew.
        let mut streaks = all[1].streaks.clone();
        streaks = judge(&[off(Probe::Answered(None)), good("B")], &streaks, &context()).streaks;
        assert_eq!(streaks["A"].ok, 0);
        // A person's choice is not judged at all.
        let by_person = Facts { enabled: false, ..good("A") };
        assert!(runs(&[by_person, good("B")], 9).iter().all(|v| v.enable.is_empty()));
    }

    #[test]
    fn a_new_symbol_has_five_minutes() {
        let since = |ms| Facts { since: T - Millis(ms), ..silent("A") };
        assert!(runs(&[since(299_999), good("B")], 9).iter().all(|v| v.disable.is_empty()));
        assert_eq!(runs(&[since(300_000), good("B")], 3)[2].disable.len(), 1);
    }

    #[test]
    fn when_all_are_bad_it_is_the_ingest() {
        let halted = Facts { listing: listing("BREAK"), ..good("B") };
        let off = Facts {
            enabled: false,
            auto_disabled: true,
            probe: Probe::Answered(Some(T)),
            ..silent("C")
        };
        for facts in [
            vec![silent("A"), halted, off.clone()],
            vec![Facts { probe: Probe::Unknown, ..silent("A") }, off.clone()],
            vec![Facts { listing: None, probe: Probe::Unknown, ..silent("A") }],
        ] {
            for verdict in runs(&facts, 9) {
                assert!(verdict.outage);
                assert!(verdict.disable.is_empty() && verdict.enable.is_empty());
                assert!(verdict.streaks.values().all(|s| (s.ok, s.bad) == (0, 0)));
            }
        }
        assert!(!judge(&[silent("A"), good("B")], &BTreeMap::new(), &context()).outage);
        assert!(!judge(&[off], &BTreeMap::new(), &context()).outage, "nobody is enabled");
        let new = Facts { since: T, ..silent("A") };
        assert!(!judge(&[new], &BTreeMap::new(), &context()).outage, "it has its grace");
    }

    fn any_facts(symbol: &'static str) -> impl Strategy<Value = Facts> {
        let time = || prop::option::of((0_i64..400_000).prop_map(|ago| T - Millis(ago)));
        let status = prop::option::of(prop::sample::select(vec!["TRADING", "HALT", "NOT_LISTED"]));
        let probe = prop_oneof![Just(Probe::Unknown), time().prop_map(Probe::Answered)];
        (time(), time(), status, probe, any::<(bool, bool)>(), 0_i64..600_000).prop_map(
            move |(kline, sample, status, probe, (has_cursor, mirrored), age)| Facts {
                kline,
                sample,
                listing: status.and_then(listing),
                probe,
                has_cursor,
                mirrored,
                since: T - Millis(age),
                ..good(symbol)
            },
        )
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Choice {
        Enabled,
        Disabled,
    }

    proptest! {
        /// Whatever the venue does and whenever a person decides: a symbol that a person disabled stays
        /// disabled until a person enables it, the last symbol is never disabled, and no symbol is
        /// touched before its third run.
        #[test]
        fn a_persons_choice_is_never_overridden(
            script in prop::collection::vec(
                (any_facts("A"), any_facts("B"), prop::option::weighted(0.2, any::<(bool, bool)>())),
                1..40,
            ),
        ) {
            let names = ["A", "B"];
            let (mut streaks, mut state) = (BTreeMap::new(), [(true, false); 2]);
            let mut choice = [Choice::Enabled; 2];
            let mut quiet = [0_u32; 2];
            for (a, b, decision) in script {
                if let Some((which, enable)) = decision {
                    let i = usize::from(which);
                    state[i] = (enable, false);
                    choice[i] = if enable { Choice::Enabled } else { Choice::Disabled };
                    streaks.remove(names[i]);
                    quiet[i] = 0;
                }
                let facts: Vec<Facts> = [a, b]
                    .into_iter()
                    .zip(state)
                    .map(|(f, (enabled, auto_disabled))| Facts { enabled, auto_disabled, ..f })
                    .collect();
                let verdict = judge(&facts, &streaks, &context());
                streaks.clone_from(&verdict.streaks);
                quiet.iter_mut().for_each(|n| *n += 1);
                for symbol in &verdict.enable {
                    let i = usize::from(&**symbol == "B");
                    prop_assert_eq!(state[i], (false, true));
                    prop_assert_eq!(choice[i], Choice::Enabled);
                    prop_assert!(quiet[i] >= RUNS);
                    (state[i], quiet[i]) = ((true, false), 0);
                }
                for (symbol, _) in &verdict.disable {
                    let i = usize::from(&**symbol == "B");
                    prop_assert_eq!(state[i], (true, false));
                    prop_assert!(T - facts[i].since >= GRACE);
                    prop_assert!(quiet[i] >= RUNS);
                    (state[i], quiet[i]) = ((false, true), 0);
                }
                if !verdict.disable.is_empty() {
                    prop_assert!(state.iter().any(|s| s.0), "somebody is left");
                }
                for i in 0..2 {
                    if choice[i] == Choice::Disabled {
                        prop_assert_eq!(state[i], (false, false));
                    }
                }
            }
        }
    }
}
