//! How scans run: the jobs of `config/scheduler.yaml`, and what all of them share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use watchbell_core::schedule::Cron;
use watchbell_core::{Definition, Millis, Trigger, WorkerName};
use watchbell_venues::native::{NativeConfig, Venue};

/// Everything that scans are told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The jobs, in the order of their file.
    pub jobs: Vec<Job>,
    /// How each exchange is asked. An exchange that is not named here is asked by its defaults.
    pub venues: BTreeMap<Venue, NativeConfig>,
    /// How long artifacts and verdicts are kept.
    pub keep: Millis,
    /// Symbols that no scan considers, as `DOGE/USD`.
    pub do_not_trade: BTreeSet<String>,
    /// Whether stale bars, a spent move and late books exclude a symbol, or are reported only.
    pub enforce_guards: bool,
    /// Whether only books that are quoted in USD count.
    pub strict_usd: bool,
}

impl Config {
    /// The jobs, with everything else at its default.
    #[must_use]
    pub fn new(jobs: Vec<Job>) -> Self {
        Self {
            jobs,
            venues: BTreeMap::new(),
            keep: Millis::from_days(14),
            do_not_trade: BTreeSet::new(),
            enforce_guards: true,
            strict_usd: false,
        }
    }

    /// How an exchange is asked.
    #[must_use]
    pub fn venue(&self, venue: Venue) -> NativeConfig {
        self.venues.get(&venue).cloned().unwrap_or_else(|| NativeConfig::of(venue))
    }

    /// Every exchange that a job names, the primary ones included.
    #[must_use]
    pub fn venues_in_use(&self) -> BTreeSet<Venue> {
        self.jobs.iter().flat_map(|j| j.venues.iter().copied()).collect()
    }

    /// How many symbols by rank the hot jobs look at: `remaining` is what comes after them.
    #[must_use]
    pub fn hot_ranks(&self) -> u32 {
        let hot = self.jobs.iter().filter(|j| j.kind == Kind::Hot);
        let ranks = hot.filter_map(|j| match j.universe {
            Ranks::Top(n) => Some(n),
            Ranks::Remaining | Ranks::All => None,
        });
        ranks.max().unwrap_or(Ranks::HOT)
    }
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The most traded symbols, with fresh books of every exchange.
    Hot,
    /// The rest, more slowly and from what is cached.
    Warm,
    /// The regime of the market.
    Regime,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hot, Self::Warm, Self::Regime];

    /// As `type` names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hot => "scan.hot",
            Self::Warm => "scan.warm",
            Self::Regime => "regime.refresh",
        }
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|k| k.as_str() == text).ok_or(())
    }
}

/// Which symbols by their rank in value traded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ranks {
    /// The first so many: `top30`.
    Top(u32),
    /// Those after the hot job's.
    Remaining,
    /// Every one.
    All,
}

impl Ranks {
    /// The ranks of a hot job that says nothing else.
    pub const HOT: u32 = 30;
}

impl FromStr for Ranks {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "remaining" => Ok(Self::Remaining),
            "all" => Ok(Self::All),
            _ => match text.strip_prefix("top").map(str::parse) {
                Some(Ok(n)) if n > 0 => Ok(Self::Top(n)),
                _ => Err(()),
            },
        }
    }
}

impl fmt::Display for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top(n) => write!(f, "top{n}"),
            Self::Remaining => f.write_str("remaining"),
            Self::All => f.write_str("all"),
        }
    }
}

/// One job.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its name, and that of its worker.
    pub name: WorkerName,
    /// What it does.
    pub kind: Kind,
    /// When.
    pub schedule: Cron,
    /// Whether its due instants lead to runs.
    pub enabled: bool,
    /// What it is for.
    pub description: String,
    /// Which symbols.
    pub universe: Ranks,
    /// Which exchanges; the first is the primary one, whose bars everything but VADR rests on.
    pub venues: Vec<Venue>,
    /// Symbols at most.
    pub max_sample: usize,
    /// How long what was fetched may be used again.
    pub ttl: Millis,
    /// Rows at most.
    pub top_n: usize,
    /// Whether it analyses what may move next.
    pub premove: bool,
    /// Whether the regime weighs its scores; otherwise the normal weights do.
    pub regime_aware: bool,
    /// The name of its artifacts: the directory below the artifact root.
    pub artifacts: String,
}

/// One job of a lane at a time: they share the exchanges' limits.
const LANE: &str = "scan";

impl Job {
    /// A job with the defaults of its type (section 9.1).
    #[must_use]
    pub fn new(name: impl Into<WorkerName>, kind: Kind, schedule: Cron) -> Self {
        let all = vec![Venue::Kraken, Venue::Okx, Venue::Coinbase];
        let secs = Millis::from_secs;
        let (description, universe, venues, max_sample, ttl, top_n) = match kind {
            Kind::Hot => {
                let description = "Hot momentum + premove scan for top-30 ADV universe";
                (description, Ranks::Top(Ranks::HOT), all, 30, secs(300), 20)
            }
            Kind::Warm => {
                let description = "Warm scan for remaining universe with cached sources";
                (description, Ranks::Remaining, vec![Venue::Kraken], 100, secs(1_800), 50)
            }
            Kind::Regime => {
                ("Refresh market regime detection", Ranks::All, all, 200, secs(3_600), 100)
            }
        };
        Self {
            name: name.into(),
            kind,
            schedule,
            enabled: true,
            description: description.to_owned(),
            universe,
            venues,
            max_sample,
            ttl,
            top_n,
            premove: kind == Kind::Hot,
            regime_aware: true,
            artifacts: "signals".to_owned(),
        }
    }

    /// Its worker. In one minute regimes come before hot scans, and those before warm ones.
    #[must_use]
    pub fn definition(&self, jobs: &[Self]) -> Definition {
        let minutes = Millis::from_mins;
        // What no clock starts can still be run by hand.
        let trigger =
            if self.enabled { Trigger::Cron(self.schedule.clone()) } else { Trigger::Manual };
        let mut definition = Definition::new(self.name.clone(), trigger)
            .describe(&*self.description)
            .timeouts(minutes(10), minutes(11))
            .lane(LANE);
        let before = jobs.iter().filter(|other| other.kind.place() < self.kind.place());
        for other in before {
            definition = definition.after(other.name.clone());
        }
        definition
    }
}

impl Kind {
    const fn place(self) -> u8 {
        match self {
            Self::Regime => 0,
            Self::Hot => 1,
            Self::Warm => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use watchbell_core::graph::order;

    use super::*;

    #[test]
    fn in_one_minute_regimes_come_first_and_warm_scans_last() {
        // Named and listed the other way round.
        let kinds = [("a", Kind::Warm), ("b", Kind::Hot), ("c", Kind::Regime), ("d", Kind::Hot)];
        let hourly = Cron::parse("0 * * * *", "UTC").unwrap();
        let jobs = kinds.map(|(name, kind)| Job {
            enabled: name != "d",
            ..Job::new(name, kind, hourly.clone())
        });
        let definitions: Vec<Definition> = jobs.iter().map(|job| job.definition(&jobs)).collect();
        assert!(definitions.iter().all(|d| d.lane.as_deref() == Some(LANE)));
        assert_eq!(definitions[3].trigger, Trigger::Manual, "no clock starts it");
        let all = jobs.iter().map(|job| job.name.clone()).collect();
        let names: Vec<String> =
            order(&definitions, &all).unwrap().start.iter().map(ToString::to_string).collect();
        let place = |name: &str| names.iter().position(|n| n == name).unwrap();
        assert!(place("c") < place("b") && place("b") < place("a"), "{names:?}");
    }

    #[test]
    fn universes_are_read_as_they_are_written() {
        for (text, ranks) in [
            ("top30", Some(Ranks::Top(30))),
            ("top1", Some(Ranks::Top(1))),
            ("remaining", Some(Ranks::Remaining)),
            ("all", Some(Ranks::All)),
            ("top0", None),
            ("top", None),
            ("top-1", None),
            ("Top30", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Ranks>().ok(), ranks, "{text}");
            assert_eq!(ranks.map(|r| r.to_string()), ranks.map(|_| text.to_owned()));
        }
    }
}
