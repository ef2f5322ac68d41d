//! Whether the close time depends on what was sent: many samples for each cell, length × content, in a mixed order, so
//! that whatever else happens on the machine happens to all of them.

use crate::classes::{CloseKind, Record};
use crate::content::{Content, Pantry};
use crate::grid::{Delivery, Ending, Probe};
use crate::rng::Rng;
use crate::stats::{Threshold, Verdict, compare};
use crate::sweep::{Sweep, Swept};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which cells, and how often each.
#[derive(Debug, Clone)]
pub struct Cells {
    /// The lengths. Contents with a length of their own make one cell each.
    pub lengths: Vec<usize>,
    /// The contents.
    pub contents: Vec<Content>,
    /// The one ending.
    pub ending: Ending,
    /// Samples of each cell.
    pub samples: usize,
    /// What makes a finding.
    pub threshold: Threshold,
}

/// One cell, and how it compares with the rest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CellVerdict {
    /// Its length; 0 for a content with its own.
    pub length: usize,
    /// Its content.
    pub content: Content,
    /// The test.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl Cells {
    fn all(&self) -> Vec<(usize, Content)> {
        let mut cells = Vec::new();
        for content in &self.contents {
            if content.has_own_length() {
                cells.push((0, *content));
            } else {
                cells.extend(self.lengths.iter().map(|length| (*length, *content)));
            }
        }
        cells
    }

    /// Collects the samples and tests each cell.
    pub async fn run(
        &self,
        sweep: &Sweep,
        pantry: Arc<Pantry>,
        seed: u64,
        each: impl FnMut(&Record),
    ) -> (Vec<CellVerdict>, Swept) {
        let cells = self.all();
        let mut order: Vec<usize> = (0..cells.len() * self.samples).collect();
        let mut rng = Rng::new(seed);
        for last in (1..order.len()).rev() {
            order.swap(last, rng.below(last + 1));
        }
        let plan = order.iter().map(|place| {
            let (length, content) = cells[place % cells.len()];
            let probe = Probe {
                index: *place as u64,
                length,
                content,
                delivery: Delivery::Whole,
                ending: self.ending,
            };
            (probe, Rng::for_index(seed, probe.index))
        });
        let swept = sweep.run(pantry, plan, each).await;

        let mut times: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for Record { probe, outcome } in &swept.records {
            // One that was never closed is as late as the limit, in every cell alike.
            let time = match outcome.close {
                CloseKind::None => sweep.limits.hold,
                CloseKind::Fin | CloseKind::Rst => outcome.time(probe.ending),
            };
            let cell = usize::try_from(probe.index).unwrap_or(0) % cells.len();
            times.entry(cell).or_default().push(time.as_secs_f64() * 1e3);
        }
        let samples: Vec<Vec<f64>> = (0..cells.len())
            .map(|cell| times.remove(&cell).unwrap_or_default())
            .collect();
        let verdicts = compare(&samples, self.threshold)
            .into_iter()
            .zip(cells)
            .map(|(verdict, (length, content))| CellVerdict {
                length,
                content,
                verdict,
            })
            .collect();
        (verdicts, swept)
    }
}
