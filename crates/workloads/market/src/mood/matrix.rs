//! The mood as the matrices show it: the mean change of each coin against all others (section 7.4).
//! It stands beside the coefficient and does not alter it.

use std::sync::Arc;

use serde::Serialize;

/// A mean nearer to zero than this has no direction.
const DEAD_BAND: f64 = 5e-4;

/// The mean change of one coin against the others, as a fraction.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The coin.
    pub base: Arc<str>,
    /// Mean of the cells that have a value.
    pub mean: f64,
    /// In one word.
    pub label: &'static str,
}

/// What the `id_pct` matrix of a window's end says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MatrixMood {
    /// Each coin with a value, in the matrix's order.
    pub rows: Vec<Row>,
    /// Mean of the rows.
    pub mean: f64,
    /// In one word.
    pub label: &'static str,
    /// Rising coins less falling ones, of all: -1..=1.
    pub dominance: f64,
    /// Between the strongest and the weakest coin.
    pub amplitude: f64,
}

/// One word for a mean change, a fraction.
#[must_use]
pub fn label(mean: f64) -> &'static str {
    if mean.abs() < DEAD_BAND {
        return "NEUTRAL";
    }
    match mean {
        m if m <= -0.03 => "PANIC",
        m if m <= -0.01 => "BEAR",
        m if m <= 0.01 => "NEUTRAL",
        m if m <= 0.03 => "BULL",
        _ => "EUPHORIA",
    }
}

/// What rows of cells say; a cell without a value counts for nothing. `None` when no cell has one.
#[must_use]
pub fn matrix_mood<'a>(
    rows: impl Iterator<Item = (&'a Arc<str>, &'a [Option<f64>])>,
) -> Option<MatrixMood> {
    let rows: Vec<Row> = rows
        .filter_map(|(base, cells)| {
            let known = || cells.iter().flatten().filter(|x| x.is_finite());
            let n = known().count();
            let mean = known().sum::<f64>() / n as f64;
            let base = Arc::clone(base);
            (n > 0).then(|| Row { base, mean, label: label(mean) })
        })
        .collect();
    let n = rows.len() as f64;
    let mean = rows.iter().map(|r| r.mean).sum::<f64>() / n;
    let count = |side: fn(f64) -> bool| rows.iter().filter(|r| side(r.mean)).count() as f64;
    let (rising, falling) = (count(|m| m >= DEAD_BAND), count(|m| m <= -DEAD_BAND));
    let most = rows.iter().map(|r| r.mean).reduce(f64::max)?;
    let least = rows.iter().map(|r| r.mean).reduce(f64::min)?;
    Some(MatrixMood {
        mean,
        label: label(mean),
        dominance: (rising - falling) / n,
        amplitude: most - least,
        rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_change_has_a_name() {
        for (mean, name) in [
            (-0.5, "PANIC"),
            (-0.03, "PANIC"),
            (-0.029, "BEAR"),
            (-0.01, "BEAR"),
            (-0.009, "NEUTRAL"),
            (0.000_4, "NEUTRAL"),
            (0.0, "NEUTRAL"),
            (0.01, "NEUTRAL"),
            (0.011, "BULL"),
            (0.03, "BULL"),
            (0.031, "EUPHORIA"),
        ] {
            assert_eq!(label(mean), name, "{mean}");
        }
    }

    #[test]
    fn rows_without_values_do_not_count() {
        let coins: Vec<Arc<str>> = ["USDT", "BTC", "ETH", "SOL"].map(Arc::from).to_vec();
        let cells: [&[Option<f64>]; 4] = [
            &[None, Some(-0.02), Some(-0.04), None],
            &[Some(0.02), None, Some(0.0), None],
            &[Some(0.000_1), Some(-0.000_1), None, None],
            &[None; 4],
        ];
        let mood = matrix_mood(coins.iter().zip(cells)).unwrap();
        assert_eq!(mood.rows.len(), 3);
        assert_eq!((mood.rows[0].mean, mood.rows[0].label), (-0.03, "PANIC"));
        assert_eq!((mood.rows[1].mean, mood.rows[1].label), (0.01, "NEUTRAL"));
        assert_eq!(mood.dominance, 0.0);
        assert_eq!(mood.amplitude, 0.04);
        assert_eq!(matrix_mood(coins.iter().zip([&[None; 4][..]; 4])), None);
    }
}
