//! Which of many ranges an address is in, all of them, the narrowest first.
//!
//! Ranges that begin with the same 8 bits (32 in IPv6) stand together on one sorted page, each with a link to the narrowest
//! range around it; ranges wider than that stand in a list of their own. Whatever is around an address is then the nearest
//! entry before it and what is linked from there. A change costs a copy of one page.
//!
//! What a look-up costs is reads from memory that wait for each other. A page of IPv4 has a bit for each of its 4,096 blocks
//! of 20 bits, 128 KiB for all of IPv4, which stay near: an address in a block that no range touches is told by that one bit.
//! For the others it has an index by the next 8 bits, so that the search is among a few entries. In IPv6 most pages
//! have one entry, as providers have a /32 or more; it stands in the table of pages itself.

use super::cidr::{Cidr, mask_32, mask_128};
use super::sharded::Sharded;
use std::net::IpAddr;
use std::sync::Arc;

/// The bits of an address.
trait Bits: Copy + Ord + std::ops::BitAnd<Output = Self> + 'static {
    /// How many of them say on which page a range stands.
    const HEAD: u8;
    /// All pages. Ranges wider than one stand elsewhere.
    type Pages<V: Clone + 'static>: Pages<Self, V>;

    fn mask(length: u8) -> Self;

    fn head(self) -> u32;
}

impl Bits for u32 {
    const HEAD: u8 = 8;
    type Pages<V: Clone + 'static> = Direct<V>;

    fn mask(length: u8) -> Self {
        mask_32(length)
    }

    #[inline]
    fn head(self) -> u32 {
        self >> 24
    }
}

impl Bits for u128 {
    const HEAD: u8 = 32;
    type Pages<V: Clone + 'static> = Sharded<u32, Short<V>>;

    fn mask(length: u8) -> Self {
        mask_128(length)
    }

    #[inline]
    fn head(self) -> u32 {
        (self >> 96) as u32
    }
}

/// Pages by the first bits of what is on them.
trait Pages<K: Bits, V: Clone + 'static>: Default + Clone {
    /// The ranges there, in their order.
    fn nodes(&self, head: u32) -> &[Node<K, V>];

    fn search<'a>(&'a self, ip: K, found: &mut impl FnMut(K, u8, &'a V));

    /// What stands there from now on; linked.
    fn put(&mut self, head: u32, nodes: Vec<Node<K, V>>);

    fn iter(&self) -> impl Iterator<Item = &Node<K, V>>;
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

/// What is around `ip`, of nodes of which so many begin at it or before.
#[inline]
fn walk<'a, K: Bits, V>(nodes: &'a [Node<K, V>], before: usize, ip: K, found: &mut impl FnMut(K, u8, &'a V)) {
    let mut at = before.wrapping_sub(1);
    while let Some(node) = nodes.get(at) {
        if node.contains(ip) {
            found(node.bits, node.length, &node.value);
        }
        at = node.around as usize;
    }
}

/// The same where there is no index.
#[inline]
fn search<'a, K: Bits, V>(nodes: &'a [Node<K, V>], ip: K, found: &mut impl FnMut(K, u8, &'a V)) {
    walk(nodes, nodes.partition_point(|node| node.bits <= ip), ip, found);
}

fn number(at: usize) -> u32 {
    u32::try_from(at).expect("fewer ranges than IPv4 has addresses")
}

/// Places in the index of a page of IPv4.
const PLACES: usize = 256;

/// The ranges of IPv4 with the same first 8 bits.
struct Indexed<V> {
    /// A bit for each block of 20 bits: whether a range has a part in it.
    touched: [u64; 64],
    /// Where the nodes of each place begin, which have the same first 16 bits, and where the last ends.
    begins: [u32; PLACES + 1],
    /// Sorted by first address, the wider first.
    nodes: Box<[Node<u32, V>]>,
}

impl<V> Indexed<V> {
    fn of(nodes: Vec<Node<u32, V>>) -> Self {
        let mut touched = [0; 64];
        for node in &nodes {
            let first = block(node.bits);
            let last = block(node.bits | !mask_32(node.length));
            for block in first..=last {
                touched[block / 64] |= 1 << (block % 64);
            }
        }
        let begins = |place: usize| nodes.partition_point(|node| self::place(node.bits) < place);
        Self {
            touched,
            begins: std::array::from_fn(|place| number(begins(place))),
            nodes: nodes.into(),
        }
    }

    #[inline]
    fn search<'a>(&'a self, ip: u32, found: &mut impl FnMut(u32, u8, &'a V)) {
        let block = block(ip);
        if self.touched[block / 64] >> (block % 64) & 1 == 0 {
            return;
        }
        let place = place(ip);
        let (from, to) = (self.begins[place] as usize, self.begins[place + 1] as usize);
        // Before those that begin in the same place stands what is around all of them, if anything is.
        let before = from + self.nodes[from..to].partition_point(|node| node.bits <= ip);
        walk(&self.nodes, before, ip, found);
    }
}

/// Which of its page's 4,096 blocks of 20 bits an address is in.
const fn block(ip: u32) -> usize {
    (ip >> 12 & 0xfff) as usize
}

/// Where in the index of its page it is.
const fn place(ip: u32) -> usize {
    (ip >> 16 & 0xff) as usize
}

/// Few enough pages to have a place for each.
#[derive(Clone)]
struct Direct<V>(Arc<[Option<Arc<Indexed<V>>>]>);

impl<V> Default for Direct<V> {
    fn default() -> Self {
        Self((0..256).map(|_| None).collect())
    }
}

impl<V: Clone + 'static> Pages<u32, V> for Direct<V> {
    fn nodes(&self, head: u32) -> &[Node<u32, V>] {
        self.0[head as usize].as_ref().map_or(&[], |page| &page.nodes)
    }

    #[inline]
    fn search<'a>(&'a self, ip: u32, found: &mut impl FnMut(u32, u8, &'a V)) {
        if let Some(page) = &self.0[ip.head() as usize] {
            page.search(ip, found);
        }
    }

    fn put(&mut self, head: u32, nodes: Vec<Node<u32, V>>) {
        let page = (!nodes.is_empty()).then(|| Arc::new(Indexed::of(nodes)));
        Arc::make_mut(&mut self.0)[head as usize] = page;
    }

    fn iter(&self) -> impl Iterator<Item = &Node<u32, V>> {
        self.0.iter().flatten().flat_map(|page| &page.nodes)
    }
}

/// The ranges of IPv6 with the same first 32 bits, mostly one.
#[derive(Clone)]
enum Short<V> {
    One([Node<u128, V>; 1]),
    Many(Arc<[Node<u128, V>]>),
}

impl<V> Short<V> {
    #[inline]
    fn nodes(&self) -> &[Node<u128, V>] {
        match self {
            Self::One(node) => node,
            Self::Many(nodes) => nodes,
        }
    }
}

impl<V: Clone + 'static> Pages<u128, V> for Sharded<u32, Short<V>> {
    fn nodes(&self, head: u32) -> &[Node<u128, V>] {
        self.get(&head).map_or(&[], Short::nodes)
    }

    #[inline]
    fn search<'a>(&'a self, ip: u128, found: &mut impl FnMut(u128, u8, &'a V)) {
        if let Some(page) = self.get(&ip.head()) {
            search(page.nodes(), ip, found);
        }
    }

    fn put(&mut self, head: u32, nodes: Vec<Node<u128, V>>) {
        if nodes.is_empty() {
            self.remove(&head);
            return;
        }
        let page = match <[_; 1]>::try_from(nodes) {
            Ok(one) => Short::One(one),
            Err(many) => Short::Many(many.into()),
        };
        self.insert(head, page);
    }

    fn iter(&self) -> impl Iterator<Item = &Node<u128, V>> {
        Self::iter(self).flat_map(|(_, page)| page.nodes())
    }
}

struct Family<K: Bits, V: Clone + 'static> {
    pages: K::Pages<V>,
    /// The ranges that begin on several pages.
    wide: Arc<[Node<K, V>]>,
    len: usize,
}

impl<K: Bits, V: Clone + 'static> Clone for Family<K, V> {
    fn clone(&self) -> Self {
        Self {
            pages: self.pages.clone(),
            wide: self.wide.clone(),
            len: self.len,
        }
    }
}

impl<K: Bits, V: Clone + 'static> Default for Family<K, V> {
    fn default() -> Self {
        Self {
            pages: K::Pages::default(),
            wide: Arc::default(),
            len: 0,
        }
    }
}

impl<K: Bits, V: Clone + 'static> Family<K, V> {
    #[inline]
    fn around<'a>(&'a self, ip: K, mut found: impl FnMut(K, u8, &'a V)) {
        if self.len == 0 {
            return;
        }
        self.pages.search(ip, &mut found);
        if !self.wide.is_empty() {
            search(&self.wide, ip, &mut found);
        }
    }

    /// Edits in the order in which they come, each page copied once.
    fn apply<E>(&mut self, mut edits: Vec<(K, u8, E)>, edit: &mut impl FnMut(Option<V>, E) -> Option<V>) {
        // Stable: what is said about one range later comes later.
        let page_of = |(bits, length, _): &(K, u8, E)| (*length >= K::HEAD).then(|| bits.head());
        edits.sort_by_key(|one| (page_of(one), one.0, one.1));
        let mut edits = edits.into_iter().peekable();
        while let Some(first) = edits.peek() {
            let head = page_of(first);
            let these = std::iter::from_fn(|| edits.next_if(|one| page_of(one) == head));
            let old = head.map_or(&*self.wide, |head| self.pages.nodes(head));
            let had = old.len();
            let mut nodes = merged(old, these, edit);
            link(&mut nodes);
            self.len = self.len - had + nodes.len();
            match head {
                Some(head) => self.pages.put(head, nodes),
                None => self.wide = nodes.into(),
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = (K, u8, &V)> {
        let nodes = self.wide.iter().chain(self.pages.iter());
        nodes.map(|node| (node.bits, node.length, &node.value))
    }
}

/// `old` with `edits`, which are sorted as it is.
fn merged<K: Bits, V: Clone + 'static, E>(
    old: &[Node<K, V>],
    edits: impl Iterator<Item = (K, u8, E)>,
    edit: &mut impl FnMut(Option<V>, E) -> Option<V>,
) -> Vec<Node<K, V>> {
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
    nodes
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
        open.push(number(at));
    }
}

/// Ranges of both families, each with a `V`.
pub(crate) struct Networks<V: Clone + 'static> {
    v4: Family<u32, V>,
    v6: Family<u128, V>,
}

impl<V: Clone + 'static> Clone for Networks<V> {
    fn clone(&self) -> Self {
        Self {
            v4: self.v4.clone(),
            v6: self.v6.clone(),
        }
    }
}

impl<V: Clone + 'static> Default for Networks<V> {
    fn default() -> Self {
        Self {
            v4: Family::default(),
            v6: Family::default(),
        }
    }
}

impl<V: Clone + 'static> Networks<V> {
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
