//! The first so many of a long list, in slices.
//!
//! Sorting a million candidates would hold the Swarm up for a fifth of a second. This is quickselect by weight, one pass of
//! which can be left anywhere and taken up again: it moves entries until the first of them have as many connections
//! as are to go. Which those are does not depend on the pivots, as no two keys are equal.

use super::order::{Entry, Key};

/// Fewer than this are sorted at once.
const SMALL: usize = 1_024;
/// Entries from which a pivot is chosen.
const SAMPLE: usize = 64;

/// A selection under way.
#[derive(Debug)]
pub(crate) struct Selection {
    /// Below `low` everything is selected, from `high` on nothing.
    low: usize,
    high: usize,
    /// Connections that are to be found between them, and those that are there.
    need: usize,
    weight: usize,
    pass: Option<Pass>,
    taken: usize,
    below: Option<Key>,
}

/// One partition under way: before `store` lies what is smaller than the pivot, up to `at` what is not.
#[derive(Debug)]
struct Pass {
    pivot: Key,
    store: usize,
    at: usize,
    weight: usize,
}

impl Selection {
    /// To select as many entries as have at least `need` of all `weight` connections.
    pub(crate) fn new(entries: &[Entry], need: usize, weight: usize) -> Self {
        Self {
            low: 0,
            high: entries.len(),
            need,
            weight,
            pass: None,
            taken: 0,
            below: None,
        }
    }

    /// Connections of what is selected.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// What is selected is smaller; nothing if that is all there was.
    pub(crate) fn below(&self) -> Option<Key> {
        self.below
    }

    /// Looks at `budget` entries, or some more; how many at the front are selected, once that is known.
    pub(crate) fn step(&mut self, entries: &mut [Entry], mut budget: usize) -> Option<usize> {
        loop {
            if self.need == 0 || self.low == self.high {
                return Some(self.low);
            }
            if self.high - self.low <= SMALL {
                let rest = &mut entries[self.low..self.high];
                rest.sort_unstable_by_key(|entry| entry.key);
                for entry in rest {
                    if self.need == 0 {
                        self.below = Some(entry.key);
                        break;
                    }
                    self.take(entry.connections as usize);
                    self.low += 1;
                }
                return Some(self.low);
            }
            if budget == 0 {
                return None;
            }
            let (low, high) = (self.low, self.high);
            let (need, weight) = (self.need, self.weight);
            let pass = self.pass.get_or_insert_with(|| Pass {
                pivot: pivot(&entries[low..high], need, weight),
                store: low,
                at: low,
                weight: 0,
            });
            let until = high.min(pass.at + budget);
            budget -= until - pass.at;
            while pass.at < until {
                if entries[pass.at].key < pass.pivot {
                    pass.weight += entries[pass.at].connections as usize;
                    entries.swap(pass.at, pass.store);
                    pass.store += 1;
                }
                pass.at += 1;
            }
            if pass.at == high {
                self.close_pass(entries);
            }
        }
    }

    fn close_pass(&mut self, entries: &mut [Entry]) {
        let Some(mut pass) = self.pass.take() else { return };
        if pass.store == self.low {
            // The pivot was the smallest of all: take it, so that the next pass has less to do.
            if let Some(at) = (self.low..self.high).find(|&at| entries[at].key == pass.pivot) {
                pass.weight = entries[at].connections as usize;
                entries.swap(at, self.low);
                pass.store += 1;
            }
            self.take(pass.weight);
            self.weight -= pass.weight;
            self.low = pass.store;
        } else if pass.weight >= self.need {
            self.high = pass.store;
            self.weight = pass.weight;
            self.below = Some(pass.pivot);
        } else {
            self.take(pass.weight);
            self.weight -= pass.weight;
            self.low = pass.store;
        }
    }

    fn take(&mut self, connections: usize) {
        self.need = self.need.saturating_sub(connections);
        self.taken += connections;
    }
}

/// An entry a little beyond the one that is looked for, on the side that leaves most behind: what is still needed is then near one
/// end of what is left, and the next pivot cuts there.
fn pivot(entries: &[Entry], need: usize, weight: usize) -> Key {
    // Places by chance, as regular ones can meet a pattern; always the same chance, so that a trim can be repeated.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut sample = [entries[0].key; SAMPLE];
    for key in &mut sample {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *key = entries[(state % entries.len() as u64) as usize].key;
    }
    sample.sort_unstable();
    let share = need.saturating_mul(SAMPLE) / weight.max(1);
    let at = if share <= SAMPLE / 2 { share + 1 } else { share - 2 };
    sample[at.min(SAMPLE - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(value: i64, serial: usize, connections: u32) -> Entry {
        Entry {
            key: Key::for_test(value, serial),
            hash: 0,
            slot: 0,
            connections,
        }
    }

    fn selected(entries: &[Entry], need: usize, budget: usize) -> Vec<Key> {
        let mut entries = entries.to_vec();
        let weight = entries.iter().map(|entry| entry.connections as usize).sum();
        let mut selection = Selection::new(&entries, need, weight);
        let count = loop {
            if let Some(count) = selection.step(&mut entries, budget) {
                break count;
            }
        };
        let mut keys: Vec<Key> = entries[..count].iter().map(|entry| entry.key).collect();
        keys.sort_unstable();
        keys
    }

    fn naive(entries: &[Entry], need: usize) -> Vec<Key> {
        let mut entries = entries.to_vec();
        entries.sort_by_key(|entry| entry.key);
        let mut left = need;
        let chosen = entries.iter().take_while(|entry| {
            let take = left > 0;
            left = left.saturating_sub(entry.connections as usize);
            take
        });
        chosen.map(|entry| entry.key).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]
        #[test]
        fn slices_select_what_sorting_would(
            raw in proptest::collection::vec((-5_i64..5, 1_u32..4), 0..6_000),
            per_mille in 0_usize..1_200,
            budget in 1_usize..5_000,
        ) {
            let entries: Vec<Entry> = raw
                .iter()
                .enumerate()
                .map(|(serial, &(value, connections))| entry(value, serial, connections))
                .collect();
            let weight: usize = raw.iter().map(|&(_, connections)| connections as usize).sum();
            let need = weight * per_mille / 1_000;
            prop_assert_eq!(selected(&entries, need, budget), naive(&entries, need));
        }
    }

    #[test]
    fn rising_and_falling_lists_are_no_harder_than_others() {
        let rising: Vec<Entry> = (0..50_000).map(|at| entry(i64::from(at), at as usize, 1)).collect();
        let falling: Vec<Entry> = rising.iter().rev().copied().collect();
        for list in [rising, falling] {
            let mut entries = list.clone();
            let mut selection = Selection::new(&entries, 25_000, 50_000);
            let mut looked_at = 0;
            let count = loop {
                looked_at += 1_000;
                if let Some(count) = selection.step(&mut entries, 1_000) {
                    break count;
                }
            };
            assert_eq!(count, 25_000);
            assert!(looked_at <= 200_000, "{looked_at} looks at 50,000 entries");
        }
    }
}
