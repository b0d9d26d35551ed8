//! What a cell's movement means: weight tiers, frozen cells and flips (sections 5.3 and 6.1).
//!
//! Tiers depend on one number and are not stored; the view `matrices.tiers` computes them from
//! `id_pct` with the same bands. Frozen streaks and flips depend on the slices before, so they are
//! stored with each slice (`matrices.flags`).

use watchbell_core::Frac;

use super::cells::{Grid, Market};
use crate::analytics::Parity;

/// Below this a cell did not move.
const STILL: f64 = 1e-8;
/// Slices without movement after which a cell is frozen for long.
const LONG: u32 = 6;
/// Slices without movement up to which that is recent.
const RECENT: u32 = 2;
/// A change of sign counts only beyond this, ...
const FLIP_FLOOR: f64 = 1e-9;
/// ... and beyond this share of the larger of the two movements.
const FLIP_SHARE: f64 = 1e-3;

/// The band that a movement falls into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Too small to act on.
    None,
    /// From 0.016 %.
    Alpha,
    /// From 0.033 %.
    Beta,
    /// From 0.046 %.
    Gamma,
    /// From 0.077 %.
    Delta,
    /// From 0.121 %.
    Epsilon,
}

impl Tier {
    /// All tiers, from the smallest movement up.
    pub const ALL: [Self; 6] =
        [Self::None, Self::Alpha, Self::Beta, Self::Gamma, Self::Delta, Self::Epsilon];

    /// The tier of a movement, whatever its direction. Bands are half-open: each begins where the
    /// one before it ends.
    #[must_use]
    pub fn of(id_pct: Frac) -> Self {
        Self::by(id_pct, Parity::Product)
    }

    /// The origin's bands end before the next one begins; what falls between two has no tier.
    fn by(id_pct: Frac, parity: Parity) -> Self {
        let moved = id_pct.0.abs();
        let reached = |tier: &Self| moved >= tier.from().0;
        let tier = Self::ALL.into_iter().rev().find(reached).unwrap_or(Self::None);
        match parity {
            Parity::Product => tier,
            Parity::Origin if moved <= tier.origin_to().0 => tier,
            Parity::Origin => Self::None,
        }
    }

    /// Where its band begins.
    #[must_use]
    pub const fn from(self) -> Frac {
        Frac(match self {
            Self::None => 0.0,
            Self::Alpha => 0.000_16,
            Self::Beta => 0.000_33,
            Self::Gamma => 0.000_46,
            Self::Delta => 0.000_77,
            Self::Epsilon => 0.001_21,
        })
    }

    /// The last movement of the origin's band.
    const fn origin_to(self) -> Frac {
        Frac(match self {
            Self::Alpha => 0.000_32,
            Self::Beta => 0.000_45,
            Self::Gamma => 0.000_76,
            Self::Delta => 0.001_20,
            Self::None | Self::Epsilon => f64::INFINITY,
        })
    }

    /// Its weight, without a sign.
    #[must_use]
    pub const fn weight(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Alpha => 0.15,
            Self::Beta => 0.55,
            Self::Gamma => 1.15,
            Self::Delta => 0.65,
            Self::Epsilon => 0.5,
        }
    }

    /// As the store and the pages write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Alpha => "alpha",
            Self::Beta => "beta",
            Self::Gamma => "gamma",
            Self::Delta => "delta",
            Self::Epsilon => "epsilon",
        }
    }
}

/// `-sign(id_pct)`: 1 for what fell, -1 for what rose, 0 for neither.
#[must_use]
pub fn direction(id_pct: Frac) -> i8 {
    if id_pct.0 > 0.0 {
        -1
    } else if id_pct.0 < 0.0 {
        1
    } else {
        0
    }
}

/// Whether a movement goes the other way than the one before, both beyond the dead band
/// `max(1e-9, 1e-3 * max(|now|, |before|))`.
#[must_use]
pub fn flips(now: Frac, before: Frac) -> bool {
    let (now, before) = (now.0, before.0);
    let band = FLIP_FLOOR.max(FLIP_SHARE * now.abs().max(before.abs()));
    now.abs() > band && before.abs() > band && (now > 0.0) != (before > 0.0)
}

/// For how long a cell has not moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Frozen {
    /// It moves.
    No,
    /// One or two slices.
    Recent,
    /// Three to six.
    Mid,
    /// More, or a coin's market against USDT has not moved for more.
    Long,
}

impl Frozen {
    /// The level of a streak of slices without movement.
    #[must_use]
    pub const fn of(streak: u32) -> Self {
        match streak {
            0 => Self::No,
            1..=RECENT => Self::Recent,
            3..=LONG => Self::Mid,
            _ => Self::Long,
        }
    }

    /// The level that the store has.
    #[must_use]
    pub const fn stored(level: u32) -> Self {
        match level {
            0 => Self::No,
            1 => Self::Recent,
            2 => Self::Mid,
            _ => Self::Long,
        }
    }

    /// As the store writes it: 0 to 3.
    #[must_use]
    pub const fn level(self) -> u8 {
        self as u8
    }
}

/// What the cells of `id_pct` have been doing, slice after slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flags {
    n: usize,
    pub(crate) streaks: Vec<u32>,
    pub(crate) frozen: Vec<Frozen>,
    pub(crate) flips: Vec<u32>,
    pub(crate) flipped: Vec<bool>,
}

/// What the slice before left, laid out over the coins of this one.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    /// Its `id_pct`.
    pub id_pct: &'a Grid,
    /// Its streaks and flips.
    pub flags: &'a Flags,
    /// Whether it had the same opening: flips are counted from there.
    pub same_opening: bool,
}

impl Flags {
    /// Nothing has happened yet.
    #[must_use]
    pub fn none(n: usize) -> Self {
        let cells = n * n;
        Self {
            n,
            streaks: vec![0; cells],
            frozen: vec![Frozen::No; cells],
            flips: vec![0; cells],
            flipped: vec![false; cells],
        }
    }

    /// One slice further.
    ///
    /// # Panics
    /// When the grids do not have the size of the market.
    #[must_use]
    pub fn advance(market: &Market, id_pct: &Grid, before: Option<&Before<'_>>) -> Self {
        let n = market.coins().len();
        let mut flags = Self::none(n);
        for b in 0..n {
            for q in 0..n {
                let at = b * n + q;
                let Some(now) = id_pct.get(b, q).map(Frac) else { continue };
                if now.0.abs() <= STILL {
                    flags.streaks[at] = 1 + before.map_or(0, |p| p.flags.streaks[at]);
                }
                if let Some(p) = before {
                    flags.flipped[at] =
                        p.id_pct.get(b, q).is_some_and(|earlier| flips(now, Frac(earlier)));
                }
            }
        }
        // A pair that is not in this slice's movements keeps what was counted.
        for at in 0..n * n {
            let counted = before.filter(|p| p.same_opening).map_or(0, |p| p.flags.flips[at]);
            flags.flips[at] = counted + u32::from(flags.flipped[at]);
            flags.frozen[at] = Frozen::of(flags.streaks[at]);
        }
        for (coin, leg) in market.legs().into_iter().enumerate() {
            let still = leg.is_some_and(|leg| flags.streaks[leg.base * n + leg.quote] > LONG);
            if still {
                for other in (0..n).filter(|other| *other != coin) {
                    flags.frozen[coin * n + other] = Frozen::Long;
                    flags.frozen[other * n + coin] = Frozen::Long;
                }
            }
        }
        flags
    }

    /// Slices in a row in which the cell has not moved.
    ///
    /// # Panics
    /// When there is no such coin.
    #[must_use]
    pub fn streak(&self, b: usize, q: usize) -> u32 {
        self.streaks[b * self.n + q]
    }

    /// How frozen the cell is.
    ///
    /// # Panics
    /// When there is no such coin.
    #[must_use]
    pub fn frozen(&self, b: usize, q: usize) -> Frozen {
        self.frozen[b * self.n + q]
    }

    /// How often the cell has changed its direction since the opening.
    ///
    /// # Panics
    /// When there is no such coin.
    #[must_use]
    pub fn flips(&self, b: usize, q: usize) -> u32 {
        self.flips[b * self.n + q]
    }

    /// Whether it did so in this slice.
    ///
    /// # Panics
    /// When there is no such coin.
    #[must_use]
    pub fn flipped(&self, b: usize, q: usize) -> bool {
        self.flipped[b * self.n + q]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::cells::tests::market;
    use super::*;

    /// Section 12, "Tiers", as the origin and the product have them; and the borders of section 6.1.
    #[test]
    fn the_golden_tiers() {
        for (id_pct, origin, product) in [
            (0.0001, 0.0, 0.0),
            (0.0002, 0.15, 0.15),
            (0.000_325, 0.0, 0.15),
            (0.0004, 0.55, 0.55),
            (0.0005, 1.15, 1.15),
            (0.001, 0.65, 0.65),
            (0.002, 0.5, 0.5),
            // Where bands begin, and where those of the origin end; between the two is a hole.
            (0.0, 0.0, 0.0),
            (0.000_16, 0.15, 0.15),
            (0.000_32, 0.15, 0.15),
            (0.000_33, 0.55, 0.55),
            (0.000_45, 0.55, 0.55),
            (0.000_455, 0.0, 0.55),
            (0.000_46, 1.15, 1.15),
            (0.000_76, 1.15, 1.15),
            (0.000_765, 0.0, 1.15),
            (0.000_77, 0.65, 0.65),
            (0.001_20, 0.65, 0.65),
            (0.001_205, 0.0, 0.65),
            (0.001_21, 0.5, 0.5),
        ] {
            for id in [id_pct, -id_pct] {
                let weight = |parity| Tier::by(Frac(id), parity).weight();
                assert_eq!(weight(Parity::Origin), origin, "{id} of the origin");
                assert_eq!(weight(Parity::Product), product, "{id}");
                assert_eq!(Tier::of(Frac(id)).weight(), product, "{id}");
            }
        }
        assert_eq!([0.1, -0.1, 0.0].map(|id| direction(Frac(id))), [-1, 1, 0]);
    }

    #[test]
    fn a_streak_has_a_level() {
        let levels: Vec<u8> = (0..9).map(|streak| Frozen::of(streak).level()).collect();
        assert_eq!(levels, [0, 1, 1, 2, 2, 2, 2, 3, 3]);
    }

    fn grid(n: usize, value: impl Fn(usize, usize) -> Option<f64>) -> Grid {
        let mut grid = Grid::empty(n, None);
        for b in 0..n {
            for q in (0..n).filter(|q| *q != b) {
                if let Some(v) = value(b, q) {
                    grid.set(b, q, v);
                }
            }
        }
        grid
    }

    #[test]
    fn a_frozen_symbol_freezes_all_cells_of_its_coin() {
        let market = market(&["BTCUSDT", "ETHUSDT", "SOLUSDT"]);
        let (usdt, btc, eth, sol) = (0, 1, 2, 3);
        // BTCUSDT stands still; everything else moves.
        let id = grid(4, |b, q| Some(if (b.min(q), b.max(q)) == (usdt, btc) { 0.0 } else { 0.01 }));
        let mut flags = Flags::advance(&market, &id, None);
        for streak in 2..=7 {
            assert_eq!(flags.frozen(btc, eth), Frozen::No);
            let before = Before { id_pct: &id, flags: &flags, same_opening: true };
            flags = Flags::advance(&market, &id, Some(&before));
            assert_eq!(flags.streak(btc, usdt), streak);
        }
        for (b, q, level) in [
            (btc, usdt, Frozen::Long),
            (btc, eth, Frozen::Long),
            (sol, btc, Frozen::Long),
            (eth, sol, Frozen::No),
            (eth, usdt, Frozen::No),
        ] {
            assert_eq!(flags.frozen(b, q), level, "{b} {q}");
        }
        // One movement and it is over.
        let moved = grid(4, |_, _| Some(0.01));
        let before = Before { id_pct: &id, flags: &flags, same_opening: true };
        let flags = Flags::advance(&market, &moved, Some(&before));
        assert_eq!((flags.frozen(btc, eth), flags.streak(btc, usdt)), (Frozen::No, 0));
    }

    #[test]
    fn flips_are_counted_from_the_opening() {
        let market = market(&["BTCUSDT"]);
        let mut before = (grid(2, |_, _| Some(0.001)), Flags::none(2));
        for (now, same_opening, flipped, flips) in [
            (Some(-0.001), true, true, 1),
            (Some(-0.002), true, false, 1),
            (Some(1e-10), true, false, 1),
            (Some(0.001), true, false, 1),
            (Some(-1e-7), true, false, 1),
            (Some(0.001), true, false, 1),
            (Some(-0.001), true, true, 2),
            (None, true, false, 2),
            (Some(0.001), false, false, 0),
            (Some(-0.5), false, true, 1),
        ] {
            let now = grid(2, |_, _| now);
            let earlier = Before { id_pct: &before.0, flags: &before.1, same_opening };
            let flags = Flags::advance(&market, &now, Some(&earlier));
            assert_eq!((flags.flipped(1, 0), flags.flips(1, 0)), (flipped, flips), "{now:?}");
            before = (now, flags);
        }
    }

    proptest! {
        #[test]
        fn bands_have_no_holes_and_flips_are_symmetric(a in -0.01..0.01_f64, b in -0.01..0.01_f64) {
            let tier = Tier::of(Frac(a));
            prop_assert!(a.abs() >= tier.from().0);
            let above = Tier::ALL.into_iter().find(|t| *t > tier);
            prop_assert!(above.is_none_or(|t| a.abs() < t.from().0));
            prop_assert_eq!(flips(Frac(a), Frac(b)), flips(Frac(b), Frac(a)));
            prop_assert!(!flips(Frac(a), Frac(a)));
        }
    }
}
