//! Outcome classes: into how many kinds of behaviour a listener's answers fall. A listener whose behaviour does not
//! depend on what it is sent has one for each ending.

use crate::grid::{Ending, Probe};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How a connection ended, seen from the prober.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloseKind {
    /// The listener closed in order.
    Fin,
    /// The listener reset the connection.
    Rst,
    /// The listener had not closed when the prober's limit, or its own ending, came.
    None,
}

/// What came of one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Payload bytes from the listener.
    pub answered: u64,
    /// How the listener closed.
    pub close: CloseKind,
    /// When, since the connection stood.
    pub since_connect_us: u64,
    /// When, since the probe's own FIN, and then more than 0. Equal to the former for other endings; 0 if the listener
    /// was first.
    pub since_end_us: u64,
}

impl Outcome {
    /// The time that is compared: what a listener may depend on is time since the accept, and the peer's FIN.
    pub fn time(&self, ending: Ending) -> Duration {
        Duration::from_micros(match ending {
            Ending::Fin => self.since_end_us,
            Ending::Hold | Ending::Rst | Ending::Close => self.since_connect_us,
        })
    }
}

/// A probe and what came of it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Record {
    /// What was sent.
    #[serde(flatten)]
    pub probe: Probe,
    /// What came back.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl Record {
    /// The ending that took place. A probe that the listener closed before its own ending came has held all the time.
    pub fn ending(&self) -> Ending {
        let Outcome {
            close, since_end_us, ..
        } = self.outcome;
        match self.probe.ending {
            Ending::Rst | Ending::Close if close != CloseKind::None => Ending::Hold,
            Ending::Fin if close != CloseKind::None && since_end_us == 0 => Ending::Hold,
            own => own,
        }
    }
}

/// Outcomes that nobody would tell apart, under one ending.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Class {
    /// The ending.
    pub ending: Ending,
    /// Whether any byte came back.
    pub answered: bool,
    /// How the listener closed.
    pub close: CloseKind,
    /// The first and the last close in it, in milliseconds; absent when the listener did not close.
    pub span_ms: Option<(f64, f64)>,
    /// How many probes.
    pub probes: usize,
    /// The lengths that led here, at most the eight shortest.
    pub lengths: Vec<usize>,
}

/// The classes of `records`. Close times more than `gap` apart, with none between them, are different times.
pub fn classes(records: &[Record], gap: Duration) -> Vec<Class> {
    let mut groups: BTreeMap<(Ending, bool, CloseKind), Vec<(Duration, usize)>> = BTreeMap::new();
    for record in records {
        let (Record { probe, outcome }, ending) = (record, record.ending());
        let key = (ending, outcome.answered > 0, outcome.close);
        let time = match outcome.close {
            CloseKind::None => Duration::ZERO,
            CloseKind::Fin | CloseKind::Rst => outcome.time(ending),
        };
        groups.entry(key).or_default().push((time, probe.length));
    }
    let mut classes = Vec::new();
    for ((ending, answered, close), mut times) in groups {
        times.sort_unstable();
        for cluster in times.chunk_by(|(a, _), (b, _)| *b - *a <= gap) {
            let mut lengths: Vec<usize> = cluster.iter().map(|(_, length)| *length).collect();
            lengths.sort_unstable();
            lengths.dedup();
            lengths.truncate(8);
            let span = cluster.first().zip(cluster.last());
            classes.push(Class {
                ending,
                answered,
                close,
                span_ms: span
                    .filter(|_| close != CloseKind::None)
                    .map(|((first, _), (last, _))| (first.as_secs_f64() * 1e3, last.as_secs_f64() * 1e3)),
                probes: cluster.len(),
                lengths,
            });
        }
    }
    classes
}

/// The number of classes under the ending that has most: 1 is a listener that cannot be told by these probes.
pub fn worst(classes: &[Class]) -> usize {
    let count = |ending| classes.iter().filter(|class| class.ending == ending).count();
    Ending::ALL.into_iter().map(count).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::grid::Delivery;

    fn record(ending: Ending, answered: u64, close: CloseKind, ms: u64) -> Record {
        let probe = Probe {
            index: 0,
            length: 97,
            content: Content::Random,
            delivery: Delivery::Whole,
            ending,
        };
        let outcome = Outcome {
            answered,
            close,
            since_connect_us: ms * 1000,
            since_end_us: ms * 1000,
        };
        Record { probe, outcome }
    }

    const GAP: Duration = Duration::from_millis(250);

    #[test]
    fn one_deadline_with_jitter_is_one_class_for_each_ending() {
        let mut records: Vec<_> = (0..100)
            .map(|i| record(Ending::Hold, 0, CloseKind::Fin, 2000 + i))
            .collect();
        records.extend((0..100).map(|i| record(Ending::Fin, 0, CloseKind::Fin, 1 + i % 3)));
        records.extend((0..100).map(|_| record(Ending::Rst, 0, CloseKind::None, 20)));
        let classes = classes(&records, GAP);
        assert_eq!((classes.len(), worst(&classes)), (3, 1));
        assert_eq!(classes[0].span_ms, Some((2000.0, 2099.0)));
        assert_eq!(classes[0].lengths, [97]);
    }

    #[test]
    fn a_probe_that_was_slower_than_the_deadline_has_held() {
        let mut slow_fin = record(Ending::Fin, 0, CloseKind::Fin, 2000);
        slow_fin.outcome.since_end_us = 0;
        let records = [
            record(Ending::Hold, 0, CloseKind::Fin, 2001),
            record(Ending::Rst, 0, CloseKind::Fin, 2002),
            record(Ending::Close, 0, CloseKind::Fin, 2003),
            slow_fin,
        ];
        let found = classes(&records, GAP);
        assert_eq!((found.len(), found[0].probes), (1, 4), "{found:?}");
        // Early is another kind, whatever the probe was about to do.
        let early = [records[0], record(Ending::Rst, 0, CloseKind::Fin, 3)];
        assert_eq!(worst(&classes(&early, GAP)), 2);
    }

    #[test]
    fn bytes_kinds_and_times_that_differ_are_classes_of_their_own() {
        let records = [
            record(Ending::Hold, 0, CloseKind::Fin, 5000),
            record(Ending::Hold, 0, CloseKind::Fin, 1),
            record(Ending::Hold, 0, CloseKind::Rst, 1),
            record(Ending::Hold, 9, CloseKind::Rst, 1),
            record(Ending::Hold, 0, CloseKind::None, 1),
            record(Ending::Hold, 0, CloseKind::None, 9000),
        ];
        assert_eq!(worst(&classes(&records, GAP)), 5);
    }
}
