//! Whether two sets of times come from one listener: Kolmogorov and Smirnov's test, Holm's correction for asking
//! often, and how large the difference is.

use serde::{Deserialize, Serialize};

/// What a two-sample test found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ks {
    /// The largest distance between the two empirical distributions.
    pub d: f64,
    /// How probable a distance at least as large is between samples of one distribution.
    pub p: f64,
}

/// The two-sample test of Kolmogorov and Smirnov. Ties are fine. `None` when a sample is empty or has a value that is
/// no number.
pub fn ks_two_sample(a: &[f64], b: &[f64]) -> Option<Ks> {
    Some(ks_of_sorted(&sorted(a)?, &sorted(b)?))
}

fn ks_of_sorted(a: &[f64], b: &[f64]) -> Ks {
    let (n, m) = (a.len() as f64, b.len() as f64);
    let (mut i, mut j, mut d) = (0, 0, 0.0_f64);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        let at = x.min(*y);
        while a.get(i).is_some_and(|value| *value <= at) {
            i += 1;
        }
        while b.get(j).is_some_and(|value| *value <= at) {
            j += 1;
        }
        d = d.max((i as f64 / n - j as f64 / m).abs());
    }
    Ks { d, p: ks_p(d, n, m) }
}

/// The asymptotic p-value, with Stephens' correction for small samples.
fn ks_p(d: f64, n: f64, m: f64) -> f64 {
    let root = (n * m / (n + m)).sqrt();
    let lambda = (root + 0.12 + 0.11 / root) * d;
    // The series alternates too slowly below this, where p is 1 for all purposes.
    if lambda < 0.2 {
        return 1.0;
    }
    let term = |k: i32| {
        let k = f64::from(k);
        (-2.0 * k * k * lambda * lambda).exp()
    };
    let sum: f64 = (1..=100).map(|k| if k % 2 == 1 { term(k) } else { -term(k) }).sum();
    (2.0 * sum).clamp(0.0, 1.0)
}

fn sorted(values: &[f64]) -> Option<Vec<f64>> {
    if values.is_empty() || values.iter().any(|value| value.is_nan()) {
        return None;
    }
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    Some(values)
}

/// Holm's adjusted p-values, in the order of `p`: those below α are significant at α however many tests there were.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_unstable_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut adjusted = vec![1.0; p.len()];
    let mut highest = 0.0_f64;
    for (rank, index) in order.into_iter().enumerate() {
        highest = highest.max((p[index] * (p.len() - rank) as f64).min(1.0));
        adjusted[index] = highest;
    }
    adjusted
}

/// The value at `q` of the way through the sorted values, between neighbours in proportion. `None` without values.
pub fn quantile(values: &[f64], q: f64) -> Option<f64> {
    Some(quantile_of_sorted(&sorted(values)?, q))
}

/// Of at least one value.
fn quantile_of_sorted(values: &[f64], q: f64) -> f64 {
    let place = q.clamp(0.0, 1.0) * (values.len() - 1) as f64;
    let below = place.floor();
    // Within the bounds of a slice.
    let index = below as usize;
    let low = values[index];
    let high = values.get(index + 1).copied().unwrap_or(low);
    low + (high - low) * (place - below)
}

/// The middle value.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// When a cell counts as told apart: a difference that an observer could use, and that chance does not explain.
#[derive(Debug, Clone, Copy)]
pub struct Threshold {
    /// The least difference of medians, in milliseconds.
    pub effect_ms: f64,
    /// The level, after Holm's correction.
    pub alpha: f64,
}

impl Default for Threshold {
    fn default() -> Self {
        Self {
            effect_ms: 10.0,
            alpha: 0.01,
        }
    }
}

/// How one cell compares with all the others together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Its samples.
    pub samples: usize,
    /// The largest distance of the distributions.
    pub d: f64,
    /// Adjusted for the number of cells.
    pub p: f64,
    /// Median of the cell less median of the rest.
    pub effect_ms: f64,
    /// Significant, and large enough to be used.
    pub distinguishable: bool,
}

/// Tests each cell, times in milliseconds, against the rest. Cells without a sample, and a cell without a rest, are
/// never told apart.
pub fn compare(cells: &[Vec<f64>], threshold: Threshold) -> Vec<Verdict> {
    // Sorted once: the rest of each cell is then in order too.
    let mut all: Vec<(f64, usize)> = cells
        .iter()
        .enumerate()
        .flat_map(|(index, cell)| cell.iter().map(move |value| (*value, index)))
        .filter(|(value, _)| !value.is_nan())
        .collect();
    all.sort_unstable_by(|(a, _), (b, _)| a.total_cmp(b));
    let tests: Vec<(Ks, f64)> = (0..cells.len())
        .map(|own| {
            let (cell, rest): (Vec<_>, Vec<_>) = all.iter().partition(|(_, index)| *index == own);
            let values = |pairs: Vec<(f64, usize)>| pairs.into_iter().map(|(value, _)| value).collect::<Vec<_>>();
            let (cell, rest) = (values(cell), values(rest));
            if cell.is_empty() || rest.is_empty() {
                return (Ks { d: 0.0, p: 1.0 }, 0.0);
            }
            let effect = quantile_of_sorted(&cell, 0.5) - quantile_of_sorted(&rest, 0.5);
            (ks_of_sorted(&cell, &rest), effect)
        })
        .collect();
    let adjusted = holm(&tests.iter().map(|(ks, _)| ks.p).collect::<Vec<_>>());
    tests
        .into_iter()
        .zip(adjusted)
        .zip(cells)
        .map(|(((ks, effect_ms), p), cell)| Verdict {
            samples: cell.len(),
            d: ks.d,
            p,
            effect_ms,
            distinguishable: p < threshold.alpha && effect_ms.abs() >= threshold.effect_ms,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn close(a: f64, b: f64, tolerance: f64) -> bool {
        (a - b).abs() <= tolerance
    }

    #[test]
    fn the_distance_of_known_samples_is_known() {
        let range = |from: u32, to: u32| (from..=to).map(f64::from).collect::<Vec<_>>();
        let d = |a: &[f64], b: &[f64]| ks_two_sample(a, b).unwrap().d;
        assert!(close(d(&range(1, 10), &range(6, 15)), 0.5, 1e-12));
        assert!(close(d(&range(1, 10), &range(1, 10)), 0.0, 1e-12));
        assert!(close(d(&range(1, 10), &range(11, 20)), 1.0, 1e-12));
        // Ties: a steps from 0 to 1 at 1, b is at 1/3 there.
        assert!(close(d(&[1.0; 4], &[1.0, 2.0, 2.0]), 2.0 / 3.0, 1e-12));
        assert_eq!(ks_two_sample(&[], &[1.0]), None);
        assert_eq!(ks_two_sample(&[f64::NAN], &[1.0]), None);
    }

    #[test]
    fn the_limit_distribution_has_its_tabulated_values() {
        // Critical values of Kolmogorov's distribution: 1.2238 at 10 %, 1.3581 at 5 %, 1.6276 at 1 %, 1.9495 at 0.1 %.
        let n = 2e12;
        for (lambda, p) in [(1.2238, 0.1), (1.3581, 0.05), (1.6276, 0.01), (1.9495, 0.001)] {
            let found = ks_p(lambda / 1e6, n, n);
            assert!(close(found, p, p * 0.002), "{lambda}: {found}");
        }
        assert_eq!(ks_p(0.0, 100.0, 100.0), 1.0);
    }

    #[test]
    fn holm_steps_down_and_never_decreases() {
        // The worked example of many textbooks: 0.01, 0.04, 0.03, 0.005.
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (found, expected) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!(close(*found, expected, 1e-12), "{adjusted:?}");
        }
        assert_eq!(holm(&[]), Vec::<f64>::new());
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(quantile(&[1.0, 2.0], 1.0), Some(2.0));
        assert_eq!(median(&[]), None);
    }

    /// Cells of 200 close times around 2 s; `late` of them `by` milliseconds later.
    fn synthetic(cells: usize, late: usize, by: f64, rng: &mut Rng) -> Vec<Vec<f64>> {
        let mut sample = |shift: f64| 2000.0 + shift + rng.below(20_000) as f64 / 1000.0;
        (0..cells)
            .map(|cell| (0..200).map(|_| sample(if cell < late { by } else { 0.0 })).collect())
            .collect()
    }

    #[test]
    fn cells_that_close_late_are_told_apart_and_the_others_are_not() {
        let verdicts = compare(&synthetic(50, 3, 15.0, &mut Rng::new(11)), Threshold::default());
        let told: Vec<usize> = (0..50).filter(|cell| verdicts[*cell].distinguishable).collect();
        assert_eq!(told, [0, 1, 2]);
        assert!(close(verdicts[0].effect_ms, 15.0, 3.0), "{:?}", verdicts[0]);
    }

    #[test]
    fn cells_of_one_distribution_are_not_told_apart_in_a_hundred_runs() {
        for seed in 0..100 {
            let verdicts = compare(&synthetic(20, 0, 0.0, &mut Rng::new(seed)), Threshold::default());
            assert!(verdicts.iter().all(|verdict| !verdict.distinguishable), "seed {seed}");
        }
    }

    #[test]
    fn a_difference_too_small_to_be_used_is_significant_and_yet_no_finding() {
        let verdicts = compare(&synthetic(20, 1, 6.0, &mut Rng::new(2)), Threshold::default());
        assert!(
            verdicts[0].p < 0.01 && !verdicts[0].distinguishable,
            "{:?}",
            verdicts[0]
        );
    }
}
