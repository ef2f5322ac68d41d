//! The ranges of IPv4: pages of those with the same first 8 bits, few enough to have a place for each.
//!
//! A page has a bit for each of its 4,096 blocks of 20 bits, 128 KiB for all of IPv4: an address in a block that no range
//! touches is told by that one bit. For the others it has an index by the next 8 bits, so that the search is among a few ranges.

use super::super::cidr::mask_32;
use super::{Bits as _, NONE, Node, Pages, Value, number};
use std::sync::Arc;

/// Places in the index of a page.
const PLACES: usize = 256;

/// A range of 8 bits or more; which 8 those are, its page says.
#[derive(Clone, Copy)]
struct Range {
    /// The other 24 bits, then the length: in this order, ranges are sorted.
    bits: u32,
    /// Where the narrowest range around it stands, and perhaps [`MARK`].
    around: u32,
}

/// A value of its own stands beside the page's ranges.
const MARK: u32 = 1 << 31;
/// No range around it. A page has at most 2^25.
const ALONE: u32 = MARK - 1;

impl Range {
    #[inline]
    const fn length(self) -> u8 {
        self.bits.to_le_bytes()[0]
    }

    const fn first(self, head: u32) -> u32 {
        head << 24 | self.bits >> 8
    }

    /// Whether `ip` is in it, which is on the same page.
    #[inline]
    fn contains(self, ip: u32) -> bool {
        // The first 8 bits are not in it, and zero of both.
        ip << 8 & mask_32(self.length() - 8) == self.bits & !0xff
    }

    const fn around(self) -> u32 {
        self.around & !MARK
    }

    const fn is_marked(self) -> bool {
        self.around & MARK != 0
    }
}

struct Page<V> {
    /// A bit for each block of 20 bits: whether a range has a part in it.
    touched: [u64; 64],
    /// Where the ranges of each place begin, which have the same first 16 bits, and where the last ends.
    begins: [u32; PLACES + 1],
    /// Sorted by first address, the wider first.
    ranges: Box<[Range]>,
    /// Of those that are marked, by where they stand.
    values: Box<[(u32, V)]>,
}

impl<V: Value> Page<V> {
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
        let begins = std::array::from_fn(|place| number(begins(place)));
        let usual = V::usual();
        let mut values = Vec::new();
        let ranges = (0..).zip(nodes).map(|(at, node)| {
            let around = if node.around == NONE { ALONE } else { node.around };
            let mark = if node.value == usual { 0 } else { MARK };
            if mark == MARK {
                values.push((at, node.value));
            }
            Range {
                bits: node.bits << 8 | u32::from(node.length),
                around: around | mark,
            }
        });
        Self {
            touched,
            begins,
            ranges: ranges.collect(),
            values: values.into(),
        }
    }

    #[inline]
    fn search<'a>(&'a self, ip: u32, found: &mut impl FnMut(u32, u8, Option<&'a V>)) {
        let block = block(ip);
        if self.touched[block / 64] >> (block % 64) & 1 == 0 {
            return;
        }
        let place = place(ip);
        let (from, to) = (self.begins[place] as usize, self.begins[place + 1] as usize);
        // No range of this first address is narrower.
        let last = ip << 8 | 0xff;
        // Before those that begin in the same place stands what is around all of them, if anything is.
        let before = from + self.ranges[from..to].partition_point(|range| range.bits <= last);
        let mut at = before.wrapping_sub(1);
        while let Some(range) = self.ranges.get(at) {
            if range.contains(ip) {
                found(range.first(ip.head()), range.length(), self.value(at));
            }
            at = range.around() as usize;
        }
    }

    /// `None` for the usual one.
    #[inline]
    fn value(&self, at: usize) -> Option<&V> {
        if !self.ranges[at].is_marked() {
            return None;
        }
        let place = self.values.binary_search_by_key(&number(at), |(at, _)| *at);
        place.ok().map(|place| &self.values[place].1)
    }

    fn iter(&self, head: u32) -> impl Iterator<Item = (u32, u8, Option<&V>)> {
        let ranges = self.ranges.iter().enumerate();
        ranges.map(move |(at, range)| (range.first(head), range.length(), self.value(at)))
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

#[derive(Clone)]
pub(super) struct Direct<V>(Arc<[Option<Arc<Page<V>>>]>);

impl<V> Default for Direct<V> {
    fn default() -> Self {
        Self((0..256).map(|_| None).collect())
    }
}

impl<V: Value> Pages<u32, V> for Direct<V> {
    fn nodes(&self, head: u32) -> Vec<Node<u32, V>> {
        let ranges = self.0[head as usize].iter().flat_map(|page| page.iter(head));
        ranges.map(Node::of).collect()
    }

    #[inline]
    fn search<'a>(&'a self, ip: u32, found: &mut impl FnMut(u32, u8, Option<&'a V>)) {
        if let Some(page) = &self.0[ip.head() as usize] {
            page.search(ip, found);
        }
    }

    fn put(&mut self, head: u32, nodes: Vec<Node<u32, V>>) {
        let page = (!nodes.is_empty()).then(|| Arc::new(Page::of(nodes)));
        Arc::make_mut(&mut self.0)[head as usize] = page;
    }

    fn iter(&self) -> impl Iterator<Item = (u32, u8, Option<&V>)> {
        let pages = (0..).zip(self.0.iter());
        pages.flat_map(|(head, page)| page.iter().flat_map(move |page| page.iter(head)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_contains_what_begins_with_its_bits() {
        for (first, length, inside, outside) in [
            ([0, 0, 0, 0], 8, [0, 255, 255, 255], None),
            ([0, 128, 0, 0], 9, [0, 255, 255, 255], Some([0, 127, 255, 255])),
            ([0, 1, 2, 0], 24, [0, 1, 2, 255], Some([0, 1, 3, 0])),
            ([0, 1, 2, 3], 32, [0, 1, 2, 3], Some([0, 1, 2, 2])),
        ] {
            let range = Range {
                bits: u32::from_be_bytes(first) << 8 | length,
                around: ALONE | MARK,
            };
            // The head is that of the page, whatever it is.
            assert!(
                range.contains(u32::from_be_bytes(inside) | 7 << 24),
                "{first:?}/{length}"
            );
            if let Some(outside) = outside {
                assert!(!range.contains(u32::from_be_bytes(outside)), "{first:?}/{length}");
            }
            assert_eq!(range.first(9), u32::from_be_bytes(first) | 9 << 24);
            assert_eq!((u32::from(range.length()), range.around()), (length, ALONE));
        }
    }
}
