//! The ranges of IPv6: pages of those with the same first 32 bits, mostly one, as providers have a /32 or more.
//!
//! They stand in open hash tables of a few dozen each, so that a change copies one of those, and a page of one range stands in
//! the table itself.

use super::{Bits as _, Node, Pages, Value, search};
use foldhash::fast::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;

/// What a change copies is one of them.
const SHARDS: usize = 1024;

#[derive(Clone)]
enum Slot<V> {
    Free,
    /// One range, at which the usual stands.
    One {
        head: u32,
        /// What follows the head, the first 32 bits first.
        rest: [u32; 3],
        length: u8,
    },
    Many {
        head: u32,
        nodes: Arc<[Node<u128, V>]>,
    },
}

impl<V: Value> Slot<V> {
    /// Of at least one node.
    fn of(head: u32, nodes: Vec<Node<u128, V>>) -> Self {
        match &nodes[..] {
            [one] if one.value == V::usual() => Self::One {
                head,
                rest: [64, 32, 0].map(|shift| (one.bits >> shift) as u32),
                length: one.length,
            },
            _ => Self::Many {
                head,
                nodes: nodes.into(),
            },
        }
    }

    #[inline]
    const fn head(&self) -> Option<u32> {
        match self {
            Self::Free => None,
            Self::One { head, .. } | Self::Many { head, .. } => Some(*head),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (u128, u8, Option<&V>)> {
        let (one, many): (_, &[_]) = match self {
            Self::Free => (None, &[]),
            Self::One { head, rest, length } => (Some((joined(*head, *rest), *length, None)), &[]),
            Self::Many { nodes, .. } => (None, nodes),
        };
        let many = many.iter().map(|node| (node.bits, node.length, Some(&node.value)));
        one.into_iter().chain(many)
    }
}

#[inline]
const fn joined(head: u32, [a, b, c]: [u32; 3]) -> u128 {
    (head as u128) << 96 | (a as u128) << 64 | (b as u128) << 32 | c as u128
}

/// Empty, or a power of two of which at most 5/8 are taken. Who is not where he hashes to stands in the next that was free.
type Table<V> = Arc<[Slot<V>]>;

#[inline]
fn find<V: Value>(table: &[Slot<V>], hash: u64, head: u32) -> Option<&Slot<V>> {
    slots(table.len(), hash)
        .map(|at| &table[at])
        .take_while(|slot| slot.head().is_some())
        .find(|slot| slot.head() == Some(head))
}

/// In the order in which they are looked at.
#[inline]
fn slots(len: usize, hash: u64) -> impl Iterator<Item = usize> {
    let home = (hash & u64::from(u32::MAX)) as usize;
    (0..len).map(move |step| home.wrapping_add(step) & (len - 1))
}

/// Slots for so many pages.
const fn slots_for(pages: usize) -> usize {
    match pages {
        0 => 0,
        pages => (pages * 8).div_ceil(5).next_power_of_two(),
    }
}

#[derive(Clone)]
pub(super) struct Heads<V> {
    tables: Arc<[Table<V>]>,
    /// How many slots of each are taken.
    taken: Arc<[usize]>,
    hasher: RandomState,
}

impl<V> Default for Heads<V> {
    fn default() -> Self {
        Self {
            tables: std::iter::repeat_n(Arc::from([]), SHARDS).collect(),
            taken: Arc::from([0; SHARDS]),
            hasher: RandomState::default(),
        }
    }
}

/// The slot is found with the lowest bits.
const fn shard(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

impl<V: Value> Heads<V> {
    #[inline]
    fn get(&self, head: u32) -> Option<&Slot<V>> {
        let hash = self.hasher.hash_one(head);
        find(&self.tables[shard(hash)], hash, head)
    }
}

impl<V: Value> Pages<u128, V> for Heads<V> {
    fn nodes(&self, head: u32) -> Vec<Node<u128, V>> {
        self.get(head).into_iter().flat_map(Slot::iter).map(Node::of).collect()
    }

    #[inline]
    fn search<'a>(&'a self, ip: u128, found: &mut impl FnMut(u128, u8, Option<&'a V>)) {
        match self.get(ip.head()) {
            None | Some(Slot::Free) => {}
            Some(Slot::One { head, rest, length }) => {
                let bits = joined(*head, *rest);
                if ip & u128::mask(*length) == bits {
                    found(bits, *length, None);
                }
            }
            Some(Slot::Many { nodes, .. }) => search(nodes, ip, found),
        }
    }

    fn put(&mut self, head: u32, nodes: Vec<Node<u128, V>>) {
        let hash = self.hasher.hash_one(head);
        let table = &mut Arc::make_mut(&mut self.tables)[shard(hash)];
        let taken = &mut Arc::make_mut(&mut self.taken)[shard(hash)];
        let slot = (!nodes.is_empty()).then(|| Slot::of(head, nodes));
        match (slot, find(table, hash, head).is_some()) {
            (None, false) => {}
            (Some(slot), true) => *place(Arc::make_mut(table), hash, head) = slot,
            (Some(slot), false) if slots_for(*taken + 1) <= table.len() => {
                *place(Arc::make_mut(table), hash, head) = slot;
                *taken += 1;
            }
            // Anew: larger, or without one that others may have gone past.
            (slot, _) => {
                let others = table
                    .iter()
                    .filter(|slot| slot.head().is_some_and(|other| other != head));
                let all: Vec<_> = others.cloned().chain(slot).collect();
                *taken = all.len();
                let mut slots = vec![Slot::Free; slots_for(*taken)];
                for slot in all {
                    if let Some(head) = slot.head() {
                        *place(&mut slots, self.hasher.hash_one(head), head) = slot;
                    }
                }
                *table = slots.into();
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = (u128, u8, Option<&V>)> {
        self.tables.iter().flat_map(|table| table.iter()).flat_map(Slot::iter)
    }
}

/// Where the page of this head stands or is to stand.
fn place<V: Value>(table: &mut [Slot<V>], hash: u64, head: u32) -> &mut Slot<V> {
    let at = slots(table.len(), hash).find(|at| table[*at].head().is_none_or(|other| other == head));
    &mut table[at.expect("three of eight slots are free")]
}

#[cfg(test)]
mod tests {
    use super::super::NONE;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn page(head: u32, length: u8) -> Vec<Node<u128, u32>> {
        vec![Node {
            bits: u128::from(head) << 96,
            value: u32::from(length) % 3,
            around: NONE,
            length,
        }]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Enough for tables to grow, to shrink and to have pages that stand behind others.
        #[test]
        fn a_page_is_found_for_as_long_as_it_is_there(
            edits in prop::collection::vec((0_u32..3_000, prop::option::weighted(0.6, 32_u8..=128)), 1..6_000),
        ) {
            let (mut heads, mut naive) = (Heads::<u32>::default(), BTreeMap::new());
            let (copied, edits) = (edits.len() / 2, edits);
            let mut copy = None;
            for (n, (head, length)) in edits.into_iter().enumerate() {
                if n == copied {
                    copy = Some((heads.clone(), naive.clone()));
                }
                match length {
                    Some(length) => {
                        heads.put(head, page(head, length));
                        naive.insert(head, length);
                    }
                    None => {
                        heads.put(head, Vec::new());
                        naive.remove(&head);
                    }
                }
            }
            for (heads, naive) in copy.iter().chain([&(heads, naive)]) {
                for head in 0..3_000 {
                    let mut found = Vec::new();
                    heads.search(u128::from(head) << 96, &mut |bits, length, value| {
                        found.push((bits, length, value.copied().unwrap_or_else(u32::usual)));
                    });
                    let expected = naive.get(&head).map(|length| (u128::from(head) << 96, *length, u32::from(*length) % 3));
                    prop_assert_eq!(found, Vec::from_iter(expected));
                }
                prop_assert_eq!(heads.iter().count(), naive.len());
                for (table, counted) in heads.tables.iter().zip(heads.taken.iter()) {
                    let taken = table.iter().filter(|slot| slot.head().is_some()).count();
                    prop_assert_eq!(taken, *counted);
                    prop_assert!(taken * 8 <= table.len() * 5 && table.len() <= slots_for(taken).max(1) * 2);
                }
            }
        }
    }
}
