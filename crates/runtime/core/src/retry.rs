//! How long to wait before another attempt: exponential, bounded, with a jitter that is the same
//! each time it is asked for.

use crate::units::Millis;

/// An exponential backoff: `base * factor^(attempt - 1)`, at most `cap`, then spread by `jitter`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Backoff {
    /// Delay after the first attempt.
    pub base: Millis,
    /// Growth per attempt, at least 1.
    pub factor: u32,
    /// Longest delay before jitter.
    pub cap: Millis,
    /// Spread to both sides as a fraction: 0.1 gives 90 % to 110 % of the delay. From 0 to 1.
    pub jitter: f64,
}

/// A failed window: 5 s, 10 s, 20 s, ... 300 s.
pub const WINDOW: Backoff = Backoff::doubling(5, 300);
/// A failed job.
pub const JOB: Backoff = Backoff::doubling(5, 300);
/// An event handler that failed: sooner, for later events wait behind it.
pub const EVENT: Backoff = Backoff::doubling(1, 300);
/// A worker that failed.
pub const RESTART: Backoff = Backoff::doubling(5, 300);

impl Backoff {
    /// Doubles from `base` to `cap` seconds, spread by 10 %.
    #[must_use]
    pub const fn doubling(base_secs: i64, cap_secs: i64) -> Self {
        Self {
            base: Millis::from_secs(base_secs),
            factor: 2,
            cap: Millis::from_secs(cap_secs),
            jitter: 0.1,
        }
    }

    /// The delay after failed attempt number `attempt` (1 is the first; 0 counts as 1).
    ///
    /// `seed` names the thing that is retried. The result depends on nothing else, and lies within
    /// `jitter` of the unspread delay.
    #[must_use]
    pub fn delay(&self, attempt: u32, seed: &str) -> Millis {
        let steady = self.steady(attempt);
        let spread = (steady.0 as f64 * self.jitter.clamp(0.0, 1.0)) as i64;
        if spread == 0 {
            return steady;
        }
        let width = (2 * spread + 1).unsigned_abs();
        let shift = hash(seed.as_bytes(), attempt.into()) % width;
        Millis(steady.0 - spread + shift.cast_signed())
    }

    /// The delay without jitter.
    #[must_use]
    pub fn steady(&self, attempt: u32) -> Millis {
        let growth = i64::from(self.factor.max(1)).checked_pow(attempt.saturating_sub(1));
        let delay = growth.and_then(|g| self.base.0.checked_mul(g)).unwrap_or(i64::MAX);
        Millis(delay.min(self.cap.0).max(0))
    }

    /// The longest delay that [`delay`](Self::delay) can return.
    #[must_use]
    pub fn longest(&self) -> Millis {
        self.cap + Millis((self.cap.0 as f64 * self.jitter.clamp(0.0, 1.0)) as i64)
    }
}

/// FNV-1a over `name` and `n`, then the finish of splitmix64, so that neighbours differ in all bits.
/// Part of the behaviour: a change moves every jittered instant.
pub(crate) fn hash(name: &[u8], n: u64) -> u64 {
    let bytes = name.iter().copied().chain(n.to_le_bytes());
    let fnv = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let z = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn delays_double_to_the_cap() {
        let seconds: Vec<_> = (1..=9).map(|n| WINDOW.steady(n).0 / 1_000).collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn the_same_thing_waits_the_same_time() {
        assert_eq!(JOB.delay(3, "job 7"), JOB.delay(3, "job 7"));
        assert_ne!(JOB.delay(3, "job 7"), JOB.delay(3, "job 8"));
    }

    #[test]
    fn the_hash_does_not_change_between_versions() {
        assert_eq!(hash(b"market-sync", 0), 5_942_280_818_460_676_169);
    }

    proptest! {
        #[test]
        fn backoff_is_bounded(
            attempt: u32, seed in ".{0,12}", base in 0_i64..1_000_000, factor in 0_u32..10,
            cap in 0_i64..10_000_000, jitter in -1.0..2.0,
        ) {
            let backoff = Backoff { base: Millis(base), factor, cap: Millis(cap), jitter };
            let delay = backoff.delay(attempt, &seed);
            prop_assert!(Millis::ZERO <= delay && delay <= backoff.longest());
            prop_assert!(delay.0.abs_diff(backoff.steady(attempt).0) as f64
                <= backoff.steady(attempt).0 as f64 * jitter.clamp(0.0, 1.0));
            prop_assert!(backoff.steady(attempt) <= backoff.steady(attempt.saturating_add(1)));
        }
    }
}
