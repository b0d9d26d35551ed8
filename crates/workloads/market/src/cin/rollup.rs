//! What a session comes to: the measures of a move, the valuation at a close, reconciliation and the
//! comparison with the suggested allocation. Spec: section 8.6. Pure.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::fifo::{Balance, Move};
use super::money::{Overflow, add, div, mul, sub, sum};

/// How a session keeps its moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Trades since its start, fees converted, lots first in, first out.
    Ledger,
    /// Every trade of the account as one row, without lots, fees or results.
    Parity,
}

impl Mode {
    /// As it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ledger => "ledger",
            Self::Parity => "parity",
        }
    }
}

/// What a move contributes to its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Measures {
    pub(crate) imprint: Decimal,
    pub(crate) luggage: Decimal,
    pub(crate) tau: Decimal,
    /// The real result: trace, less fee and slippage, and with what the fee's own units had gained.
    pub(crate) realized: Decimal,
}

impl Measures {
    /// Of one move.
    pub(crate) fn of(m: &Move) -> Result<Self, Overflow> {
        let fee = m.order.fee.as_ref().map_or(Decimal::ZERO, |f| f.value);
        let costs = add(fee, m.order.slippage)?;
        let imprint = sub(m.comp_profit, m.profit_consumed)?;
        let luggage = sum([costs, m.trace, m.principal_hit])?;
        Ok(Self {
            imprint,
            luggage,
            tau: sub(imprint, luggage)?,
            realized: sub(add(m.trace, m.fee_trace)?, costs)?,
        })
    }
}

/// The sums over a session's moves that its close needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sums {
    pub(crate) comp_principal: Decimal,
    pub(crate) comp_profit: Decimal,
    pub(crate) fee: Decimal,
    pub(crate) slippage: Decimal,
    pub(crate) trace: Decimal,
    pub(crate) dev_ref: Decimal,
    pub(crate) imprint: Decimal,
    pub(crate) luggage: Decimal,
    pub(crate) tau: Decimal,
    pub(crate) realized: Decimal,
    pub(crate) moves: i64,
}

impl Sums {
    /// The sums in the order in which a move's amounts are stored.
    pub(crate) fn columns(&mut self) -> [&mut Decimal; 10] {
        [
            &mut self.comp_principal,
            &mut self.comp_profit,
            &mut self.fee,
            &mut self.slippage,
            &mut self.trace,
            &mut self.dev_ref,
            &mut self.imprint,
            &mut self.luggage,
            &mut self.tau,
            &mut self.realized,
        ]
    }

    /// Counts one more move.
    pub(crate) fn add(&mut self, m: &Move) -> Result<(), Overflow> {
        let of = Measures::of(m)?;
        let fee = m.order.fee.as_ref().map_or(Decimal::ZERO, |f| f.value);
        let amounts = [
            m.comp_principal,
            m.comp_profit,
            fee,
            m.order.slippage,
            m.trace,
            m.dev_ref,
            of.imprint,
            of.luggage,
            of.tau,
            of.realized,
        ];
        for (sum, amount) in self.columns().into_iter().zip(amounts) {
            *sum = add(*sum, amount)?;
        }
        self.moves += 1;
        Ok(())
    }
}

/// One asset at a close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Closing {
    pub(crate) asset: String,
    pub(crate) principal: Decimal,
    pub(crate) profit: Decimal,
}

/// A session's close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rollup {
    pub(crate) closings: Vec<Closing>,
    pub(crate) generated_profit: Decimal,
    pub(crate) luggage_principal: Decimal,
    pub(crate) luggage_profit: Decimal,
}

/// Values each balance at its mark, or at its own principal and profit where it has none. In ledger
/// mode fees were taken from the balances as they arose; in parity mode they are taken here.
pub(crate) fn close(
    mode: Mode,
    balances: &BTreeMap<String, Balance>,
    bulk: &BTreeMap<String, Decimal>,
    sums: &Sums,
) -> Result<Rollup, Overflow> {
    let mut closings = Vec::new();
    let mut generated = Decimal::ZERO;
    for (asset, b) in balances {
        let value = match bulk.get(asset) {
            Some(bulk) => *bulk,
            None => b.value()?,
        };
        let profit = sub(value, b.principal)?;
        generated = add(generated, sub(profit, b.opening_profit)?)?;
        closings.push(Closing { asset: asset.clone(), principal: b.principal, profit });
    }
    if mode == Mode::Parity {
        generated = sub(generated, add(sums.fee, sums.slippage)?)?;
    }
    Ok(Rollup {
        generated_profit: generated,
        luggage_principal: sum(closings.iter().map(|c| c.principal))?,
        luggage_profit: sum(closings.iter().map(|c| c.profit))?,
        closings,
    })
}

/// How far what is held is from what was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Band {
    /// Below 0.5 %.
    Balanced,
    /// From 0.5 %.
    Drifted,
    /// From 2 %.
    Broken,
}

/// All that is held against all that was meant, in USDT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciliation {
    /// What is held: the newest marks.
    pub mtm: Decimal,
    /// What was meant: the references.
    pub reference: Decimal,
    /// The first less the second.
    pub delta: Decimal,
    /// `delta / reference`; none without a reference.
    pub ratio: Option<Decimal>,
    /// What that means.
    pub band: Option<Band>,
}

/// Compares what is held with what was meant.
///
/// # Errors
/// When an amount has no place in the ledger.
pub(crate) fn reconcile(mtm: Decimal, reference: Decimal) -> Result<Reconciliation, Overflow> {
    let delta = sub(mtm, reference)?;
    let ratio = if reference.is_zero() { None } else { Some(div(delta, reference)?) };
    let band = ratio.map(|r| match r.abs() {
        r if r >= Decimal::new(2, 2) => Band::Broken,
        r if r >= Decimal::new(5, 3) => Band::Drifted,
        _ => Band::Balanced,
    });
    Ok(Reconciliation { mtm, reference, delta, ratio, band })
}

/// How well an asset's share fits the one that was suggested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Light {
    /// Within 1 % of the whole.
    Green,
    /// Within 5 %.
    Yellow,
    /// Beyond.
    Red,
}

/// One asset's share of the whole against the suggested one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alignment {
    /// The asset.
    pub asset: String,
    /// Its share of all suggestions, 0 to 1.
    pub suggested: Decimal,
    /// Its share of all that is held, 0 to 1.
    pub actual: Decimal,
    /// The second less the first.
    pub delta: Decimal,
    /// What that means.
    pub light: Light,
    /// 100 for no difference, down to 0.
    pub score: Decimal,
    /// Whether to act: the difference is above 3 %.
    pub rebalance: bool,
}

/// Compares what is held with what was suggested, asset by asset. Nothing where either is nothing in
/// all.
///
/// # Errors
/// When an amount has no place in the ledger.
pub(crate) fn align(
    suggested: &BTreeMap<String, Decimal>,
    held: &BTreeMap<String, Decimal>,
) -> Result<Vec<Alignment>, Overflow> {
    let (all_suggested, all_held) =
        (sum(suggested.values().copied())?, sum(held.values().copied())?);
    if all_suggested <= Decimal::ZERO || all_held <= Decimal::ZERO {
        return Ok(Vec::new());
    }
    let mut assets: Vec<&String> = suggested.keys().chain(held.keys()).collect();
    assets.sort_unstable();
    assets.dedup();
    assets
        .into_iter()
        .map(|asset| {
            let part = |of: &BTreeMap<String, Decimal>, all| {
                div(of.get(asset).copied().unwrap_or_default(), all)
            };
            let (suggested, actual) = (part(suggested, all_suggested)?, part(held, all_held)?);
            let delta = sub(actual, suggested)?;
            let off = delta.abs();
            let light = match off {
                off if off < Decimal::new(1, 2) => Light::Green,
                off if off < Decimal::new(5, 2) => Light::Yellow,
                _ => Light::Red,
            };
            let hundred = Decimal::ONE_HUNDRED;
            let score = sub(hundred, mul(Decimal::TWO * hundred, off)?)?;
            Ok(Alignment {
                asset: asset.clone(),
                suggested,
                actual,
                delta,
                light,
                score: score.clamp(Decimal::ZERO, hundred),
                rebalance: off > Decimal::new(3, 2),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::money::parse;
    use super::*;

    fn d(text: &str) -> Decimal {
        parse(text).unwrap()
    }

    #[test]
    fn bands_begin_at_half_a_percent_and_at_two() {
        for (mtm, ratio, band) in [
            ("1000", "0", Band::Balanced),
            ("1004.999", "0.004999", Band::Balanced),
            ("1005", "0.005", Band::Drifted),
            ("995", "-0.005", Band::Drifted),
            ("1019.99", "0.01999", Band::Drifted),
            ("980", "-0.02", Band::Broken),
        ] {
            let r = reconcile(d(mtm), d("1000")).unwrap();
            assert_eq!((r.ratio, r.band), (Some(d(ratio)), Some(band)), "{mtm}");
        }
        let none = reconcile(d("5"), d("0")).unwrap();
        assert_eq!((none.delta, none.ratio, none.band), (d("5"), None, None));
    }

    #[test]
    fn an_alignment_has_its_light_and_score() {
        let map = |all: &[(&str, &str)]| {
            all.iter().map(|(a, v)| ((*a).to_owned(), d(v))).collect::<BTreeMap<_, _>>()
        };
        let suggested = map(&[("BTC", "50"), ("ETH", "50")]);
        let held = map(&[("BTC", "52"), ("ETH", "42"), ("SOL", "6")]);
        let all = align(&suggested, &held).unwrap();
        let seen: Vec<_> = all
            .iter()
            .map(|a| (a.asset.as_str(), a.delta, a.light, a.score, a.rebalance))
            .collect();
        assert_eq!(
            seen,
            [
                ("BTC", d("0.02"), Light::Yellow, d("96"), false),
                ("ETH", d("-0.08"), Light::Red, d("84"), true),
                ("SOL", d("0.06"), Light::Red, d("88"), true),
            ]
        );
        assert_eq!(align(&BTreeMap::new(), &held).unwrap(), []);
        let far = align(&map(&[("A", "1")]), &map(&[("B", "1")])).unwrap();
        assert!(far.iter().all(|a| a.score.is_zero()));
    }

    #[test]
    fn a_close_values_at_marks_and_counts_parity_fees_once() {
        let mut balances = BTreeMap::new();
        balances.insert("USDT".to_owned(), Balance::opening(d("90"), d("5"), d("95")));
        balances.insert("BTC".to_owned(), Balance::opening(d("10"), d("0"), d("2")));
        let bulk = BTreeMap::from([("BTC".to_owned(), d("14"))]);
        let sums = Sums { fee: d("1"), slippage: d("0.5"), ..Sums::default() };
        let ledger = close(Mode::Ledger, &balances, &bulk, &sums).unwrap();
        assert_eq!(ledger.generated_profit, d("4"));
        assert_eq!((ledger.luggage_principal, ledger.luggage_profit), (d("100"), d("9")));
        let parity = close(Mode::Parity, &balances, &bulk, &sums).unwrap();
        assert_eq!(parity.generated_profit, d("2.5"));
        assert_eq!(parity.closings, ledger.closings);
    }
}
