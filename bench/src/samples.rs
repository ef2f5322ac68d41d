//! What was measured: for each stack and each metric one value a round.

use crate::stacks::Kind;
use anyhow::{Result, ensure};
use std::collections::HashMap;

#[derive(Default)]
pub(crate) struct Samples(HashMap<(Kind, &'static str), Vec<f64>>);

impl Samples {
    pub(crate) fn push(&mut self, kind: Kind, metric: &'static str, value: f64) {
        self.0.entry((kind, metric)).or_default().push(value);
    }

    pub(crate) fn of(&self, kind: Kind, metric: &'static str) -> Option<&[f64]> {
        self.0.get(&(kind, metric)).map(Vec::as_slice)
    }

    /// The metrics of `kind`, in alphabetical order.
    pub(crate) fn metrics(&self, kind: Kind) -> Vec<&'static str> {
        let mut metrics: Vec<_> = self.0.keys().filter(|(k, _)| *k == kind).map(|(_, m)| *m).collect();
        metrics.sort_unstable();
        metrics
    }

    /// The median of the ratios of each round, so that what slows a whole round down cancels out.
    pub(crate) fn ratio(&self, ours: Kind, theirs: Kind, metric: &'static str) -> Option<f64> {
        let (ours, theirs) = (self.of(ours, metric)?, self.of(theirs, metric)?);
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        Some(median(&ratios))
    }

    /// No stack may go missing silently. A value is only ever pushed after an echo came back.
    pub(crate) fn check(&self, kinds: &[Kind], metrics: &[&'static str]) -> Result<()> {
        for kind in kinds {
            for metric in metrics {
                ensure!(self.of(*kind, metric).is_some(), "{kind} has no {metric}");
            }
        }
        Ok(())
    }
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

pub(crate) fn min_max(values: &[f64]) -> (f64, f64) {
    let fold = |start, pick: fn(f64, f64) -> f64| values.iter().copied().fold(start, pick);
    (fold(f64::INFINITY, f64::min), fold(f64::NEG_INFINITY, f64::max))
}
