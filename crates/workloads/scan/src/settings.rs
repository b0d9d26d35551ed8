//! What a scan is told: thresholds, tiers and switches.

use serde::{Deserialize, Serialize};
use watchbell_core::{Bps, Millis};
use watchbell_venues::native::Venue;

/// Which of the two scans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Job {
    /// The most traded symbols, every quarter of an hour.
    #[serde(rename = "scan.hot")]
    Hot,
    /// The others, every two hours, with cached data and relaxed thresholds.
    #[serde(rename = "scan.warm")]
    Warm,
}

impl Job {
    /// Its name, as configurations and artifacts write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hot => "scan.hot",
            Self::Warm => "scan.warm",
        }
    }
}

/// What is asked of a symbol's market, by the value that it trades (section 3.5).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tier {
    /// `tier1`, the most liquid, to `tier3`.
    pub name: &'static str,
    /// The least value traded in 24 hours, in USD; inclusive.
    pub adv_min: u64,
    /// The least depth within 2 % of the middle, both sides together, in USD; inclusive.
    pub depth_min: f64,
    /// The widest spread; inclusive.
    pub spread_max: Bps,
    /// The least ratio of a bar's activity to the usual; inclusive.
    pub vadr_min: f64,
}

/// The tiers, the most liquid first (section 3.5).
pub const TIERS: [Tier; 3] = [
    Tier {
        name: "tier1",
        adv_min: 5_000_000,
        depth_min: 150_000.0,
        spread_max: Bps(25.0),
        vadr_min: 1.85,
    },
    Tier {
        name: "tier2",
        adv_min: 1_000_000,
        depth_min: 75_000.0,
        spread_max: Bps(50.0),
        vadr_min: 1.80,
    },
    Tier {
        name: "tier3",
        adv_min: 100_000,
        depth_min: 25_000.0,
        spread_max: Bps(80.0),
        vadr_min: 1.75,
    },
];

/// What a scan is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    /// Which scan.
    pub job: Job,
    /// The exchanges in order of preference. Momentum is taken from the first, the primary.
    pub venues: Vec<Venue>,
    /// The least composite score that enters; inclusive.
    pub score_min: f64,
    /// The least VADR whatever the tier; the hot scan's.
    pub vadr_floor: Option<f64>,
    /// Whether VADR must also reach the 80th percentile of the usual; in the hot scan.
    pub vadr_p80: bool,
    /// The widest spread whatever the tier; the hot scan's.
    pub spread_cap: Option<Bps>,
    /// The least depth in USD whatever the tier; the hot scan's.
    pub depth_floor: Option<f64>,
    /// The most liquid first.
    pub tiers: [Tier; 3],
    /// How old cached data may be.
    pub ttl: Millis,
    /// How old a book may be when it is judged.
    pub book_age_max: Millis,
    /// How long a book's request may have taken.
    pub latency_max: Millis,
    /// The longest way from a book to the decision; none where nothing is entered at once.
    pub late_fill_max: Option<Millis>,
    /// Rows in the table of signals.
    pub top_n: usize,
    /// Whether signs of a move to come are looked at.
    pub premove: bool,
    /// Whether freshness, fatigue and late fill block an entry, or are told only.
    pub guards_enforce: bool,
    /// Whether books quoted in USDT are refused as evidence.
    pub strict_usd: bool,
    /// Whether a divergence of funding rates is needed for an entry, or told only.
    pub require_funding: bool,
    /// Whether residual columns are widened towards the dispersion that they had (section 2.6).
    pub restore_dispersion: bool,
}

impl Settings {
    /// Those of the hot scan.
    #[must_use]
    pub fn hot() -> Self {
        Self {
            job: Job::Hot,
            venues: vec![Venue::Kraken, Venue::Okx, Venue::Coinbase],
            score_min: 75.0,
            vadr_floor: Some(1.8),
            vadr_p80: true,
            spread_cap: Some(Bps(50.0)),
            depth_floor: Some(100_000.0),
            tiers: TIERS,
            ttl: Millis::from_secs(300),
            book_age_max: Millis::from_secs(30),
            latency_max: Millis(2_000),
            late_fill_max: Some(Millis::from_secs(30)),
            top_n: 20,
            premove: true,
            guards_enforce: true,
            strict_usd: false,
            require_funding: false,
            restore_dispersion: false,
        }
    }

    /// Those of the warm scan: a lower score, the tiers' own limits, books as old as the cache keeps
    /// them, and no entry at once.
    #[must_use]
    pub fn warm() -> Self {
        Self {
            job: Job::Warm,
            venues: vec![Venue::Kraken],
            score_min: 65.0,
            vadr_floor: None,
            vadr_p80: false,
            spread_cap: None,
            depth_floor: None,
            ttl: Millis::from_secs(1_800),
            book_age_max: Millis::from_secs(1_800),
            late_fill_max: None,
            top_n: 50,
            premove: false,
            ..Self::hot()
        }
    }

    /// The tier of a symbol that trades this much; the last for anything less.
    #[must_use]
    pub fn tier(&self, adv_usd: u64) -> &Tier {
        self.tiers.iter().find(|t| adv_usd >= t.adv_min).unwrap_or(&self.tiers[2])
    }

    /// The widest spread that enters (section 4.2).
    #[must_use]
    pub fn spread_max(&self, tier: &Tier) -> Bps {
        Bps(self.spread_cap.map_or(tier.spread_max.0, |cap| cap.0.min(tier.spread_max.0)))
    }

    /// The least depth in USD that enters (section 4.2).
    #[must_use]
    pub fn depth_min(&self, tier: &Tier) -> f64 {
        self.depth_floor.map_or(tier.depth_min, |floor| floor.max(tier.depth_min))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sections 3.5 and 4.2.
    #[test]
    fn limits_follow_the_tier_and_the_hot_scan_adds_its_own() {
        let (hot, warm) = (Settings::hot(), Settings::warm());
        for (adv, tier, hot_spread, hot_depth, warm_spread, warm_depth) in [
            (u64::MAX, "tier1", 25.0, 150_000.0, 25.0, 150_000.0),
            (5_000_000, "tier1", 25.0, 150_000.0, 25.0, 150_000.0),
            (4_999_999, "tier2", 50.0, 100_000.0, 50.0, 75_000.0),
            (1_000_000, "tier2", 50.0, 100_000.0, 50.0, 75_000.0),
            (999_999, "tier3", 50.0, 100_000.0, 80.0, 25_000.0),
            (100_000, "tier3", 50.0, 100_000.0, 80.0, 25_000.0),
            (0, "tier3", 50.0, 100_000.0, 80.0, 25_000.0),
        ] {
            let t = hot.tier(adv);
            assert_eq!(t.name, tier, "{adv}");
            assert_eq!((hot.spread_max(t).0, hot.depth_min(t)), (hot_spread, hot_depth), "{adv}");
            assert_eq!((warm.spread_max(t).0, warm.depth_min(t)), (warm_spread, warm_depth));
        }
    }
}
