//! How much of each coin goes into each other one (section 6.2): pure arithmetic.

use serde::Serialize;
use watchbell_core::Frac;

use crate::matrices::cells::Grid;
use crate::matrices::tiers::{Flags, Frozen, Tier};

/// The weight at which a coin's tier is best.
const GREATEST_WEIGHT: f64 = Tier::Gamma.weight();
/// Where the ranks of a coin end, from the lowest up; beyond the last it is an S.
const RANKS: [(f64, Rank); 3] = [(-0.75, Rank::E), (-0.5, Rank::D), (-0.25, Rank::C)];

/// A coin's rank: how large its movements are on the whole, on the scale of their weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Rank {
    /// Up to an eighth of the greatest weight.
    E,
    /// Up to a quarter.
    D,
    /// Up to three eighths.
    C,
    /// Below five eighths.
    B,
    /// Below three quarters.
    A,
    /// Three quarters or more.
    S,
}

impl Rank {
    /// The rank of a mean weight `w`, by `x = 2 * w / 1.15 - 1`.
    #[must_use]
    pub fn of(mean_weight: f64) -> Self {
        let x = 2.0 * mean_weight / GREATEST_WEIGHT - 1.0;
        if let Some((_, rank)) = RANKS.into_iter().find(|(cut, _)| x <= *cut) {
            return rank;
        }
        match x {
            x if x < 0.25 => Self::B,
            x if x < 0.5 => Self::A,
            _ => Self::S,
        }
    }

    /// As the store and the pages write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::E => "E",
            Self::D => "D",
            Self::C => "C",
            Self::B => "B",
            Self::A => "A",
            Self::S => "S",
        }
    }
}

/// One cell: `balance / k * weight * mood`; 0 where that is no number.
#[must_use]
pub fn cell(balance: f64, k: f64, weight: f64, mood: f64) -> f64 {
    let value = balance * (1.0 / k) * weight * mood;
    if value.is_finite() { value + 0.0 } else { 0.0 }
}

/// What one coin is allotted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Allotment {
    /// Its cells against each coin, in units of the coin: null on the diagonal and where there is no
    /// route between the two.
    pub cells: Vec<Option<f64>>,
    /// Their sum.
    pub value: f64,
    /// Mean weight over the coins that it has a route to.
    pub mean_weight: f64,
    /// Its rank.
    pub rank: Rank,
    /// How many cells are in each tier, from `none` up; frozen ones and those without a movement
    /// count as `none`.
    pub tiers: [usize; 6],
}

/// The allotment of each coin of a slice, in its order, from its prices and movements (`benchmark` and
/// `id_pct`). `balances` are in units of the coins. The weight of a cell is that of its movement;
/// frozen cells and those without a movement weigh nothing.
///
/// # Panics
/// When there is not one balance for each coin.
#[must_use]
pub fn allot(
    prices: &Grid,
    moves: &Grid,
    flags: &Flags,
    balances: &[f64],
    k: f64,
    mood: f64,
) -> Vec<Allotment> {
    assert_eq!(balances.len(), prices.size(), "one balance for each coin");
    balances
        .iter()
        .enumerate()
        .map(|(b, balance)| {
            let mut allotment = Allotment {
                cells: vec![None; balances.len()],
                value: 0.0,
                mean_weight: 0.0,
                rank: Rank::E,
                tiers: [0; 6],
            };
            let (mut routes, mut weights) = (0_u32, 0.0);
            for q in 0..balances.len() {
                if prices.get(b, q).is_none() {
                    continue;
                }
                let tier = match moves.get(b, q) {
                    Some(id) if flags.frozen(b, q) == Frozen::No => Tier::of(Frac(id)),
                    _ => Tier::None,
                };
                let value = cell(*balance, k, tier.weight(), mood);
                allotment.cells[q] = Some(value);
                allotment.value += value;
                allotment.tiers[tier as usize] += 1;
                routes += 1;
                weights += tier.weight();
            }
            if routes > 0 {
                allotment.mean_weight = weights / f64::from(routes);
            }
            allotment.rank = Rank::of(allotment.mean_weight);
            allotment
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::matrices::cells::tests::market;
    use crate::matrices::cells::{Inputs, MatrixType, Previous, Rates, Slice};

    /// Section 12, "MEA".
    #[test]
    fn the_golden_cell() {
        assert!((cell(2.0, 2.0, 1.15, 0.8) - 0.92).abs() < 1e-12);
        for bad in [cell(f64::NAN, 2.0, 1.0, 1.0), cell(1.0, 0.0, 1.0, 1.0)] {
            assert_eq!(bad.to_bits(), 0);
        }
    }

    #[test]
    fn ranks_are_cut_where_the_spec_says() {
        let weight = |x: f64| (x + 1.0) / 2.0 * GREATEST_WEIGHT;
        for (x, rank) in [
            (-1.0, Rank::E),
            (-0.76, Rank::E),
            (-0.74, Rank::D),
            (-0.51, Rank::D),
            (-0.49, Rank::C),
            (-0.26, Rank::C),
            (-0.24, Rank::B),
            (0.24, Rank::B),
            (0.26, Rank::A),
            (0.49, Rank::A),
            (0.51, Rank::S),
            (1.0, Rank::S),
        ] {
            assert_eq!(Rank::of(weight(x)), rank, "{x}");
        }
    }

    fn spread(now: [f64; 2], before: [f64; 2], balances: [f64; 3], mood: f64) -> Vec<Allotment> {
        let market = market(&["BTCUSDT", "ETHUSDT"]);
        let before = Previous {
            benchmark: Rates::derive(&market, &before.map(Some)).grid,
            id_pct: Grid::empty(3, None),
        };
        let slice = Slice::compute(&Inputs {
            market: &market,
            prices: &now.map(Some),
            changes: &[None; 2],
            openings: &[None; 2],
            previous: Some(&before),
        });
        let moves = slice.grid(MatrixType::IdPct);
        let flags = Flags::advance(&market, moves, None);
        allot(slice.grid(MatrixType::Benchmark), moves, &flags, &balances, 2.0, mood)
    }

    #[test]
    fn a_balance_is_spread_by_weight() {
        // BTC moved by half a permille (gamma), ETH not at all.
        let all = spread([100.05, 10.0], [100.0, 10.0], [1000.0, 2.0, 5.0], 0.8);
        let (usdt, btc, eth) = (&all[0], &all[1], &all[2]);
        let golden = cell(2.0, 2.0, 1.15, 0.8);
        assert_eq!(btc.cells, [Some(golden), None, Some(golden)]);
        assert_eq!((btc.rank, btc.tiers), (Rank::S, [0, 0, 0, 2, 0, 0]));
        assert!((btc.value - 1.84).abs() < 1e-12);
        assert_eq!((usdt.tiers, usdt.rank), ([1, 0, 0, 1, 0, 0], Rank::B));
        assert_eq!(eth.cells[0], Some(0.0), "what has not moved weighs nothing");
        assert_eq!(eth.cells[2], None);
    }

    proptest! {
        /// Never negative, never above balance times the greatest weight times mood, and the sum of
        /// its cells.
        #[test]
        fn an_allotment_stays_within_its_balance(
            now in prop::array::uniform2(1e-3..1e5_f64),
            before in prop::array::uniform2(1e-3..1e5_f64),
            balances in prop::array::uniform3(0.0..1e6_f64),
            mood in 0.2..2.0_f64,
        ) {
            for (a, balance) in spread(now, before, balances, mood).iter().zip(balances) {
                let most = balance * GREATEST_WEIGHT * mood * (1.0 + 1e-12);
                prop_assert!((0.0..=most).contains(&a.value));
                let sum: f64 = a.cells.iter().flatten().sum();
                prop_assert!((sum - a.value).abs() <= 1e-12 * a.value);
                prop_assert_eq!(a.tiers.iter().sum::<usize>(), 2);
            }
        }
    }
}
