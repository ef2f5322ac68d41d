//! Which of many ranges an address is in, all of them, the narrowest first.
//!
//! Ranges that begin with the same 16 bits (32 in IPv6) stand together in one sorted list, each with a link to the
//! narrowest range around it; ranges wider than that stand in a list of their own. Whatever is around an address is then
//! the nearest entry before it and what is linked from there, so that a question costs one look into a hash table and a
//! binary search in a list that is short, and a change costs a copy of that list.

use super::cidr::{Cidr, mask_32, mask_128};
use super::sharded::Sharded;
use std::net::IpAddr;
use std::sync::Arc;

/// The bits of an address.
trait Bits: Copy + Ord + std::ops::BitAnd<Output = Self> {
    /// How many of them say in which list a range stands.
    const HEAD: u8;

    fn mask(length: u8) -> Self;

    fn head(self) -> u32;
}

impl Bits for u32 {
    const HEAD: u8 = 16;

    fn mask(length: u8) -> Self {
        mask_32(length)
    }

    fn head(self) -> u32 {
        self >> 16
    }
}

impl Bits for u128 {
    const HEAD: u8 = 32;

    fn mask(length: u8) -> Self {
        mask_128(length)
    }

    fn head(self) -> u32 {
        (self >> 96) as u32
    }
}

/// No range around this one in its list.
const NONE: u32 = u32::MAX;

#[derive(Clone)]
struct Node<K, V> {
    bits: K,
    value: V,
    around: u32,
    length: u8,
}

impl<K: Bits, V> Node<K, V> {
    fn contains(&self, ip: K) -> bool {
        ip & K::mask(self.length) == self.bits
    }
}

/// Sorted by first address, the wider first.
type List<K, V> = Arc<[Node<K, V>]>;

struct Family<K, V> {
    lists: Sharded<u32, List<K, V>>,
    wide: List<K, V>,
    len: usize,
}

impl<K, V> Clone for Family<K, V> {
    fn clone(&self) -> Self {
        Self {
            lists: self.lists.clone(),
            wide: Arc::clone(&self.wide),
            len: self.len,
        }
    }
}

impl<K, V> Default for Family<K, V> {
    fn default() -> Self {
        Self {
            lists: Sharded::default(),
            wide: Arc::new([]),
            len: 0,
        }
    }
}

#[inline]
fn search<'a, K: Bits, V>(list: &'a [Node<K, V>], ip: K, found: &mut impl FnMut(K, u8, &'a V)) {
    let mut at = list.partition_point(|node| node.bits <= ip) as u32;
    at = at.wrapping_sub(1);
    while let Some(node) = list.get(at as usize) {
        if node.contains(ip) {
            found(node.bits, node.length, &node.value);
        }
        at = node.around;
    }
}

impl<K: Bits, V: Clone> Family<K, V> {
    #[inline]
    fn around<'a>(&'a self, ip: K, mut found: impl FnMut(K, u8, &'a V)) {
        if self.len == 0 {
            return;
        }
        if let Some(list) = self.lists.get(&ip.head()) {
            search(list, ip, &mut found);
        }
        if !self.wide.is_empty() {
            search(&self.wide, ip, &mut found);
        }
    }

    /// Edits in the order in which they come, each list copied once.
    fn apply<E>(&mut self, mut edits: Vec<(K, u8, E)>, edit: &mut impl FnMut(Option<V>, E) -> Option<V>) {
        // Stable: what is said about one range later comes later.
        let list_of = |(bits, length, _): &(K, u8, E)| (*length >= K::HEAD).then(|| bits.head());
        edits.sort_by_key(|one| (list_of(one), one.0, one.1));
        let mut edits = edits.into_iter().peekable();
        while let Some(first) = edits.peek() {
            let head = list_of(first);
            let old = match head {
                Some(head) => self.lists.get(&head).cloned().unwrap_or_else(|| Arc::new([])),
                None => Arc::clone(&self.wide),
            };
            let these = std::iter::from_fn(|| edits.next_if(|one| list_of(one) == head));
            let list = merged(&old, these, edit);
            self.len = self.len - old.len() + list.len();
            match head {
                Some(head) if list.is_empty() => _ = self.lists.remove(&head),
                Some(head) => _ = self.lists.insert(head, list),
                None => self.wide = list,
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = (K, u8, &V)> {
        let lists = self.lists.iter().flat_map(|(_, list)| list.iter());
        let nodes = self.wide.iter().chain(lists);
        nodes.map(|node| (node.bits, node.length, &node.value))
    }
}

/// `old` with `edits`, which are sorted as it is.
fn merged<K: Bits, V: Clone, E>(
    old: &[Node<K, V>],
    edits: impl Iterator<Item = (K, u8, E)>,
    edit: &mut impl FnMut(Option<V>, E) -> Option<V>,
) -> List<K, V> {
    let mut edits = edits.peekable();
    let mut nodes: Vec<Node<K, V>> = Vec::with_capacity(old.len() + edits.size_hint().0);
    let mut old = old.iter().peekable();
    while let Some(&(bits, length, _)) = edits.peek() {
        nodes.extend(std::iter::from_fn(|| {
            old.next_if(|node| (node.bits, node.length) < (bits, length)).cloned()
        }));
        let mut value = old
            .next_if(|node| (node.bits, node.length) == (bits, length))
            .map(|node| node.value.clone());
        while let Some((.., one)) = edits.next_if(|one| (one.0, one.1) == (bits, length)) {
            value = edit(value, one);
        }
        nodes.extend(value.map(|value| Node {
            bits,
            value,
            around: NONE,
            length,
        }));
    }
    nodes.extend(old.cloned());
    link(&mut nodes);
    nodes.into()
}

/// Has each entry point to the narrowest range around it.
fn link<K: Bits, V>(nodes: &mut [Node<K, V>]) {
    let mut open: Vec<u32> = Vec::new();
    for at in 0..nodes.len() {
        let bits = nodes[at].bits;
        while open
            .last()
            .is_some_and(|around| !nodes[*around as usize].contains(bits))
        {
            open.pop();
        }
        nodes[at].around = open.last().copied().unwrap_or(NONE);
        open.push(u32::try_from(at).expect("fewer ranges than IPv4 has addresses"));
    }
}

/// Ranges of both families, each with a `V`.
pub(crate) struct Networks<V> {
    v4: Family<u32, V>,
    v6: Family<u128, V>,
}

impl<V> Clone for Networks<V> {
    fn clone(&self) -> Self {
        Self {
            v4: self.v4.clone(),
            v6: self.v6.clone(),
        }
    }
}

impl<V> Default for Networks<V> {
    fn default() -> Self {
        Self {
            v4: Family::default(),
            v6: Family::default(),
        }
    }
}

impl<V: Clone> Networks<V> {
    pub(crate) const fn len(&self) -> usize {
        self.v4.len + self.v6.len
    }

    /// Calls `found` with every range that `ip` is in, the narrowest first. `ip` is canonical.
    #[inline]
    pub(crate) fn around<'a>(&'a self, ip: IpAddr, mut found: impl FnMut(Cidr, &'a V)) {
        match ip {
            IpAddr::V4(ip) => self.v4.around(ip.to_bits(), |bits, length, value| {
                found(Cidr::of_v4(bits, length), value)
            }),
            IpAddr::V6(ip) => self.v6.around(ip.to_bits(), |bits, length, value| {
                found(Cidr::of_v6(bits, length), value)
            }),
        }
    }

    /// Has `edit` make of what stands at each range what shall stand there, in the order of `edits`.
    pub(crate) fn apply<E>(&mut self, edits: Vec<(Cidr, E)>, mut edit: impl FnMut(Option<V>, E) -> Option<V>) {
        let (mut four, mut six) = (Vec::new(), Vec::new());
        for (range, one) in edits {
            match range.first() {
                IpAddr::V4(first) => four.push((first.to_bits(), range.prefix_len(), one)),
                IpAddr::V6(first) => six.push((first.to_bits(), range.prefix_len(), one)),
            }
        }
        self.v4.apply(four, &mut edit);
        self.v6.apply(six, &mut edit);
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Cidr, &V)> {
        let four = self
            .v4
            .iter()
            .map(|(bits, length, value)| (Cidr::of_v4(bits, length), value));
        four.chain(
            self.v6
                .iter()
                .map(|(bits, length, value)| (Cidr::of_v6(bits, length), value)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Few bits that differ, so that ranges nest and meet, on both sides of where the lists are cut.
    fn ip() -> impl Strategy<Value = IpAddr> {
        let byte = || prop_oneof![Just(0_u8), Just(1), Just(0x80), Just(0xff)];
        let four = [byte(), byte(), byte(), byte()].prop_map(IpAddr::from);
        let six = prop::collection::vec(byte(), 6).prop_map(|b| {
            let mut octets = [0; 16];
            octets[..5].copy_from_slice(&b[..5]);
            octets[15] = b[5];
            IpAddr::from(octets).to_canonical()
        });
        prop_oneof![four, six]
    }

    fn range() -> impl Strategy<Value = Cidr> {
        (ip(), 0..=128_u8).prop_map(|(ip, length)| {
            let bits = if ip.is_ipv4() { 32 } else { 128 };
            // More often near the cut and the ends than in between.
            Cidr::around(ip, length % (bits + 1)).expect("in range")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn finds_what_a_naive_matcher_finds_in_the_order_of_narrowness(
            rounds in prop::collection::vec(prop::collection::vec((range(), prop::option::weighted(0.8, 0..100_u32)), 0..24), 1..5),
            asked in prop::collection::vec(ip(), 1..40),
        ) {
            let mut naive: BTreeMap<Cidr, u32> = BTreeMap::new();
            let mut networks: Networks<u32> = Networks::default();
            for edits in rounds {
                let before = networks.clone();
                let was = naive.clone();
                for (range, value) in &edits {
                    match value {
                        Some(value) => naive.insert(*range, *value),
                        None => naive.remove(range),
                    };
                }
                networks.apply(edits, |_, value| value);
                for (networks, naive) in [(&before, &was), (&networks, &naive)] {
                    prop_assert_eq!(networks.len(), naive.len());
                    let all: BTreeMap<Cidr, u32> = networks.iter().map(|(range, value)| (range, *value)).collect();
                    prop_assert_eq!(&all, naive);
                    for ip in &asked {
                        let mut found = Vec::new();
                        networks.around(*ip, |range, value| found.push((range, *value)));
                        let mut expected: Vec<(Cidr, u32)> =
                            naive.iter().filter(|(range, _)| range.contains(*ip)).map(|(r, v)| (*r, *v)).collect();
                        expected.sort_by_key(|(range, _)| std::cmp::Reverse(range.prefix_len()));
                        prop_assert_eq!(found, expected);
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_said_last_about_a_range_holds() {
        let mut networks: Networks<u32> = Networks::default();
        let range: Cidr = "192.0.2.0/24".parse().expect("a range");
        networks.apply(vec![(range, Some(1)), (range, None), (range, Some(2))], |_, value| {
            value
        });
        let mut found = Vec::new();
        networks.around("192.0.2.1".parse().expect("an IP"), |range, value| {
            found.push((range, *value))
        });
        assert_eq!(found, [(range, 2)]);
    }
}
