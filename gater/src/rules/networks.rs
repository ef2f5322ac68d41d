//! Which of many ranges an address is in, all of them, the narrowest first.
//!
//! Ranges that begin with the same 8 bits (32 in IPv6) stand together on one sorted page, each with a link to the narrowest
//! range around it; ranges wider than that stand in a list of their own. Whatever is around an address is then the nearest
//! entry before it and what is linked from there. A change costs a copy of one page.
//!
//! What a look-up costs is reads from memory that wait for each other, and those of a processor's own cache are ten times
//! faster than any other. So what is read is small: a range takes 8 bytes, or 32 to 80 in IPv6, as long as nothing stands at it
//! but what stands at most ranges of a long list, "blocked". A hundred thousand of them take some two megabytes.

mod four;
mod six;

use super::cidr::{Cidr, mask_32, mask_128};
use std::net::IpAddr;
use std::sync::Arc;

/// What stands at a range.
pub(crate) trait Value: Clone + PartialEq + 'static {
    /// What stands at most of them, and is not stored.
    fn usual() -> Self;
}

/// The bits of an address.
trait Bits: Copy + Ord + std::ops::BitAnd<Output = Self> + 'static {
    /// How many of them say on which page a range stands.
    const HEAD: u8;
    /// All pages. Ranges wider than one stand elsewhere.
    type Pages<V: Value>: Pages<Self, V>;

    fn mask(length: u8) -> Self;

    fn head(self) -> u32;
}

impl Bits for u32 {
    const HEAD: u8 = 8;
    type Pages<V: Value> = four::Direct<V>;

    #[inline]
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
    type Pages<V: Value> = six::Heads<V>;

    #[inline]
    fn mask(length: u8) -> Self {
        mask_128(length)
    }

    #[inline]
    fn head(self) -> u32 {
        (self >> 96) as u32
    }
}

/// Pages by the first bits of what is on them. A value that is not there is the usual one.
trait Pages<K: Bits, V: Value>: Default + Clone {
    /// The ranges there, in their order, not linked.
    fn nodes(&self, head: u32) -> Vec<Node<K, V>>;

    fn search<'a>(&'a self, ip: K, found: &mut impl FnMut(K, u8, Option<&'a V>));

    /// What stands there from now on; linked.
    fn put(&mut self, head: u32, nodes: Vec<Node<K, V>>);

    fn iter(&self) -> impl Iterator<Item = (K, u8, Option<&V>)>;
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

impl<K, V: Value> Node<K, V> {
    /// Of what a page says of it; not linked.
    fn of((bits, length, value): (K, u8, Option<&V>)) -> Self {
        Self {
            bits,
            value: value.cloned().unwrap_or_else(V::usual),
            around: NONE,
            length,
        }
    }
}

/// What is around `ip`, of sorted nodes.
#[inline]
fn search<'a, K: Bits, V>(nodes: &'a [Node<K, V>], ip: K, found: &mut impl FnMut(K, u8, Option<&'a V>)) {
    let before = nodes.partition_point(|node| node.bits <= ip);
    let mut at = before.wrapping_sub(1);
    while let Some(node) = nodes.get(at) {
        if node.contains(ip) {
            found(node.bits, node.length, Some(&node.value));
        }
        at = node.around as usize;
    }
}

fn number(at: usize) -> u32 {
    u32::try_from(at).expect("fewer ranges than IPv4 has addresses")
}

struct Family<K: Bits, V: Value> {
    pages: K::Pages<V>,
    /// The ranges that begin on several pages.
    wide: Arc<[Node<K, V>]>,
    len: usize,
}

impl<K: Bits, V: Value> Clone for Family<K, V> {
    fn clone(&self) -> Self {
        Self {
            pages: self.pages.clone(),
            wide: self.wide.clone(),
            len: self.len,
        }
    }
}

impl<K: Bits, V: Value> Default for Family<K, V> {
    fn default() -> Self {
        Self {
            pages: K::Pages::default(),
            wide: Arc::default(),
            len: 0,
        }
    }
}

impl<K: Bits, V: Value> Family<K, V> {
    #[inline]
    fn around<'a>(&'a self, ip: K, mut found: impl FnMut(K, u8, Option<&'a V>)) {
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
            let old = head.map_or_else(|| self.wide.to_vec(), |head| self.pages.nodes(head));
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

    fn iter(&self) -> impl Iterator<Item = (K, u8, Option<&V>)> {
        let wide = self.wide.iter();
        wide.map(|node| (node.bits, node.length, Some(&node.value)))
            .chain(self.pages.iter())
    }
}

/// `old` with `edits`, which are sorted as it is.
fn merged<K: Bits, V: Value, E>(
    old: Vec<Node<K, V>>,
    edits: impl Iterator<Item = (K, u8, E)>,
    edit: &mut impl FnMut(Option<V>, E) -> Option<V>,
) -> Vec<Node<K, V>> {
    let mut edits = edits.peekable();
    let mut nodes: Vec<Node<K, V>> = Vec::with_capacity(old.len() + edits.size_hint().0);
    let mut old = old.into_iter().peekable();
    while let Some(&(bits, length, _)) = edits.peek() {
        nodes.extend(std::iter::from_fn(|| {
            old.next_if(|node| (node.bits, node.length) < (bits, length))
        }));
        let mut value = old
            .next_if(|node| (node.bits, node.length) == (bits, length))
            .map(|node| node.value);
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
    nodes.extend(old);
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

/// Ranges of both families in the order in which they came, each with an `E`. With `()` one takes 8
/// bytes, in IPv6 32.
pub(crate) struct ByFamily<E> {
    four: Vec<(u32, u8, E)>,
    six: Vec<(u128, u8, E)>,
}

impl<E> Default for ByFamily<E> {
    fn default() -> Self {
        Self {
            four: Vec::new(),
            six: Vec::new(),
        }
    }
}

impl<E> ByFamily<E> {
    pub(crate) fn push(&mut self, range: Cidr, one: E) {
        match range.first() {
            IpAddr::V4(first) => self.four.push((first.to_bits(), range.prefix_len(), one)),
            IpAddr::V6(first) => self.six.push((first.to_bits(), range.prefix_len(), one)),
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.four.len() + self.six.len()
    }
}

impl<E> FromIterator<(Cidr, E)> for ByFamily<E> {
    fn from_iter<I: IntoIterator<Item = (Cidr, E)>>(ranges: I) -> Self {
        let mut all = Self::default();
        for (range, one) in ranges {
            all.push(range, one);
        }
        all
    }
}

/// Ranges of both families, each with a `V`.
#[derive(Clone)]
pub(crate) struct Networks<V: Value> {
    v4: Family<u32, V>,
    v6: Family<u128, V>,
    usual: V,
}

impl<V: Value> Default for Networks<V> {
    fn default() -> Self {
        Self {
            v4: Family::default(),
            v6: Family::default(),
            usual: V::usual(),
        }
    }
}

impl<V: Value> Networks<V> {
    pub(crate) const fn len(&self) -> usize {
        self.v4.len + self.v6.len
    }

    /// Calls `found` with every range that `ip` is in, the narrowest first. `ip` is canonical.
    #[inline]
    pub(crate) fn around<'a>(&'a self, ip: IpAddr, mut found: impl FnMut(Cidr, &'a V)) {
        match ip {
            IpAddr::V4(ip) => self.v4.around(ip.to_bits(), |bits, length, value| {
                found(Cidr::of_v4(bits, length), value.unwrap_or(&self.usual));
            }),
            IpAddr::V6(ip) => self.v6.around(ip.to_bits(), |bits, length, value| {
                found(Cidr::of_v6(bits, length), value.unwrap_or(&self.usual));
            }),
        }
    }

    /// Has `edit` make of what stands at each range what shall stand there, in the order of `edits`.
    pub(crate) fn apply<E>(&mut self, edits: ByFamily<E>, mut edit: impl FnMut(Option<V>, E) -> Option<V>) {
        self.v4.apply(edits.four, &mut edit);
        self.v6.apply(edits.six, &mut edit);
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Cidr, &V)> {
        let four = self.v4.iter();
        let four = four.map(|(bits, length, value)| (Cidr::of_v4(bits, length), value));
        let six = self.v6.iter();
        let six = six.map(|(bits, length, value)| (Cidr::of_v6(bits, length), value));
        four.chain(six)
            .map(|(range, value)| (range, value.unwrap_or(&self.usual)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    impl Value for u32 {
        fn usual() -> Self {
            1
        }
    }

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
            rounds in prop::collection::vec(prop::collection::vec((range(), prop::option::weighted(0.8, 0..4_u32)), 0..24), 1..5),
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
                networks.apply(ByFamily::from_iter(edits), |_, value| value);
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
        let edits = [(range, Some(1)), (range, None), (range, Some(2))];
        networks.apply(ByFamily::from_iter(edits), |_, value| value);
        let mut found = Vec::new();
        networks.around("192.0.2.1".parse().expect("an IP"), |range, value| {
            found.push((range, *value))
        });
        assert_eq!(found, [(range, 2)]);
    }
}
