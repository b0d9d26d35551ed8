//! Medians and quantiles: by selection where the order itself is not needed.
//!
//! All take a buffer to reorder, so the caller's series stays in time order and nothing is
//! allocated once the buffers have grown.

use super::Parity;

/// One value with its weight and its place in time; the place breaks ties.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weighted {
    pub value: f64,
    pub weight: f64,
    pub place: u32,
}

impl Weighted {
    /// Sorts by value, then by place in time.
    pub(crate) fn sort(items: &mut [Self]) {
        items.sort_unstable_by(|a, b| {
            a.value.total_cmp(&b.value).then_with(|| a.place.cmp(&b.place))
        });
    }
}

/// The median of `values`, which are reordered; 0 when there are none. An even number gives the
/// mean of the two in the middle.
pub(crate) fn median_in_place(values: &mut [f64]) -> f64 {
    let n = values.len();
    if n == 0 {
        return 0.0;
    }
    let (below, &mut upper, _) = values.select_nth_unstable_by(n / 2, f64::total_cmp);
    if n % 2 == 1 {
        return upper;
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (lower + upper) / 2.0
}

/// The median of `values`.
pub(crate) fn median(values: &[f64], buffer: &mut Vec<f64>) -> f64 {
    buffer.clear();
    buffer.extend_from_slice(values);
    median_in_place(buffer)
}

/// The median absolute deviation of `values` about `centre`, their median.
pub(crate) fn mad_about(values: &[f64], centre: f64, buffer: &mut Vec<f64>) -> f64 {
    buffer.clear();
    buffer.extend(values.iter().map(|v| (v - centre).abs()));
    median_in_place(buffer)
}

/// The median absolute deviation of the first differences: how rough a series is, whatever its
/// slope (sections 4.7 and 4.8 call it D). 0 for fewer than two values.
pub(crate) fn roughness(series: &[f64], buffers: &mut [Vec<f64>; 2]) -> f64 {
    let [differences, work] = buffers;
    differences.clear();
    differences.extend(series.windows(2).map(|w| w[1] - w[0]));
    let centre = median(differences, work);
    mad_about(differences, centre, work)
}

/// The linear-interpolated quantile `q` in 0..=1 of ascending `sorted`; 0 when there are none.
pub(crate) fn quantile_of_sorted(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let rank = last as f64 * q;
    let low = (rank.floor() as usize).min(last);
    let high = (low + 1).min(last);
    sorted[low] + (sorted[high] - sorted[low]) * (rank - low as f64)
}

/// The weighted median of items in ascending order: the first value whose cumulative weight
/// reaches half of the total; where it *is* half, the midpoint to the next value (product form).
pub(crate) fn weighted_median(sorted: &[Weighted], parity: Parity) -> f64 {
    let half = sorted.iter().fold(0.0, |sum, item| sum + item.weight) / 2.0;
    let mut cumulative = 0.0;
    for (i, item) in sorted.iter().enumerate() {
        cumulative += item.weight;
        if cumulative >= half {
            return match (parity, sorted.get(i + 1)) {
                (Parity::Product, Some(next)) if cumulative == half => {
                    (item.value + next.value) / 2.0
                }
                _ => item.value,
            };
        }
    }
    sorted.last().map_or(0.0, |item| item.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quantiles_of_small_sets() {
        let mut b = Vec::new();
        assert_eq!(median(&[], &mut b), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0], &mut b), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0], &mut b), 2.5);
        assert_eq!(mad_about(&[1.0, 2.0, 9.0], 2.0, &mut b), 1.0);
        assert_eq!(roughness(&[0.0, 1.0, 3.0, 6.0], &mut [Vec::new(), Vec::new()]), 1.0);
        assert_eq!(quantile_of_sorted(&[], 0.5), 0.0);
        assert_eq!(quantile_of_sorted(&[1.0, 2.0, 3.0, 4.0], 0.25), 1.75);
        assert_eq!(quantile_of_sorted(&[1.0, 2.0], 1.0), 2.0);
    }

    #[test]
    fn a_weight_of_exactly_half_takes_the_midpoint() {
        let items = |w: &[(f64, f64)]| -> Vec<Weighted> {
            w.iter().map(|&(value, weight)| Weighted { value, weight, place: 0 }).collect()
        };
        let even = items(&[(1.0, 1.0), (3.0, 1.0)]);
        assert_eq!(weighted_median(&even, Parity::Product), 2.0);
        assert_eq!(weighted_median(&even, Parity::Origin), 1.0);
        let heavy = items(&[(1.0, 1.0), (3.0, 1.5)]);
        assert_eq!(weighted_median(&heavy, Parity::Product), 3.0);
    }
}
