//! How an exchange has done over the last quarter of an hour.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use watchbell_core::{Millis, Time};

/// How far back it looks.
const WINDOW: Millis = Millis::from_mins(15);
/// Requests without which nothing is said about an exchange.
const FEWEST: usize = 10;
/// Requests that are kept; at the configured rates a window has fewer.
const MOST: usize = 20_000;
/// Share of errors, share of errors and refusals, and latency above which something is wrong
/// (section 4.3).
const ERRORS: f64 = 0.03;
const REJECTS: f64 = 0.05;
const SLOW: Millis = Millis::from_secs(2);

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer that could be used, or one that says that there is no such market.
    Answered,
    /// The exchange wanted no such request.
    Refused,
    /// It wanted fewer requests: our fault, for which there is the pause.
    Limited,
    /// No answer, one that cannot be used, or an error of the exchange itself.
    Failed,
}

/// What a scan should do about an exchange (section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Go on.
    Healthy,
    /// One thing is wrong: halve sizes.
    Degraded,
    /// Two things are wrong, or it is not asked at all: avoid it.
    Unhealthy,
}

impl Verdict {
    /// As artifacts print it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Time,
    outcome: Outcome,
    /// From sending to the last byte, where there was an answer or a time limit ended the wait.
    latency: Option<Millis>,
}

/// The requests of the last quarter of an hour.
#[derive(Debug, Default)]
pub(crate) struct Window {
    samples: VecDeque<Sample>,
}

/// What they add up to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) requests: usize,
    pub(crate) error_ratio: Option<f64>,
    pub(crate) p50: Option<Millis>,
    pub(crate) p99: Option<Millis>,
    pub(crate) verdict: Verdict,
}

impl Window {
    pub(crate) fn note(&mut self, at: Time, outcome: Outcome, latency: Option<Millis>) {
        self.expire(at);
        if self.samples.len() == MOST {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { at, outcome, latency });
    }

    pub(crate) fn summary(&mut self, now: Time) -> Summary {
        self.expire(now);
        let requests = self.samples.len();
        let share = |wanted: fn(Outcome) -> bool| {
            let found = self.samples.iter().filter(|s| wanted(s.outcome)).count();
            (requests > 0).then(|| found as f64 / requests as f64)
        };
        let error_ratio = share(|o| o == Outcome::Failed);
        let reject_ratio = share(|o| o != Outcome::Answered);
        let mut latencies: Vec<Millis> = self.samples.iter().filter_map(|s| s.latency).collect();
        latencies.sort_unstable();
        let (p50, p99) = (percentile(&latencies, 50), percentile(&latencies, 99));
        let wrong = [
            error_ratio.is_some_and(|r| r > ERRORS),
            reject_ratio.is_some_and(|r| r > REJECTS),
            p99.is_some_and(|p| p > SLOW),
        ];
        let verdict = match wrong.into_iter().filter(|w| *w).count() {
            1 if requests >= FEWEST => Verdict::Degraded,
            2.. if requests >= FEWEST => Verdict::Unhealthy,
            _ => Verdict::Healthy,
        };
        Summary { requests, error_ratio, p50, p99, verdict }
    }

    fn expire(&mut self, now: Time) {
        while self.samples.front().is_some_and(|s| now - s.at > WINDOW) {
            self.samples.pop_front();
        }
    }
}

/// The smallest value that `percent` of the sorted values do not exceed.
fn percentile(sorted: &[Millis], percent: usize) -> Option<Millis> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let hundred: Vec<Millis> = (1..=100).map(Millis).collect();
        assert_eq!(
            (percentile(&hundred, 50), percentile(&hundred, 99)),
            (Some(Millis(50)), Some(Millis(99)))
        );
        assert_eq!(percentile(&hundred[..1], 99), Some(Millis(1)));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn the_verdicts_of_section_4_3() {
        use Outcome::{Answered, Failed, Limited};
        for (name, answered, rejected, failed, latency, want) in [
            ("nothing", 0, 0, 0, 0, Verdict::Healthy),
            ("nine failures say nothing", 0, 0, 9, 10, Verdict::Healthy),
            ("all well", 100, 0, 0, 2_000, Verdict::Healthy),
            ("3 % errors", 97, 0, 3, 10, Verdict::Healthy),
            ("4 % errors", 96, 0, 4, 10, Verdict::Degraded),
            ("5 % refusals", 95, 5, 0, 10, Verdict::Healthy),
            ("6 % refusals", 94, 6, 0, 10, Verdict::Degraded),
            ("2 % errors and 4 % refusals", 94, 4, 2, 10, Verdict::Degraded),
            ("6 % errors are both", 94, 0, 6, 10, Verdict::Unhealthy),
            ("slow", 100, 0, 0, 2_001, Verdict::Degraded),
            ("slow, with 4 % errors", 96, 0, 4, 2_001, Verdict::Unhealthy),
        ] {
            let mut w = Window::default();
            for (n, outcome) in [(answered, Answered), (rejected, Limited), (failed, Failed)] {
                for _ in 0..n {
                    w.note(Time(0), outcome, Some(Millis(latency)));
                }
            }
            assert_eq!(w.summary(Time(0)).verdict, want, "{name}");
        }
    }

    #[test]
    fn a_quarter_of_an_hour_later_all_is_forgotten() {
        let mut w = Window::default();
        for _ in 0..12 {
            w.note(Time(0), Outcome::Failed, None);
        }
        let s = w.summary(Time(900_000));
        assert_eq!(
            (s.requests, s.error_ratio, s.p99, s.verdict),
            (12, Some(1.0), None, Verdict::Unhealthy)
        );
        let s = w.summary(Time(900_001));
        assert_eq!(
            (s.requests, s.error_ratio, s.p50, s.verdict),
            (0, None, None, Verdict::Healthy)
        );
    }
}
