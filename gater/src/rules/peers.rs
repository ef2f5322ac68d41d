//! A set of a million peers that is asked about every connection.
//!
//! What such a look-up costs is reads from main memory, each with a walk through the page tables before it. So a peer stands in the
//! table as a fingerprint of 64 bits, eight of them on a cache line, and each line has a word of eight tags, a byte of each
//! fingerprint. The tags of a million peers are two megabytes, which stay near: whoever is not in the set is told from them alone
//! but for one in sixty or so. Who is costs the line besides, and where that lies does not depend on the tags: the
//! processor reads both at once. The peers themselves stand in lists beside it, which are read when rules are changed or
//! listed.
//!
//! **A fingerprint stands for its peer.** Fingerprint and line are 64 bits each of strongly universal hashes under keys that are secret
//! and drawn for each set (Lemire and Kaser, *Strongly universal string hashing is fast*): whatever two peers somebody chooses who
//! does not know the keys, they have the same fingerprint with a chance of 2^-64. A stranger is compared with the few peers of his
//! line, so of 2^60 strangers not one need be expected to be taken for a peer of the set, however many are in it. At a thousand a
//! second those take thirty million years.

use super::key::{PeerKey, WORDS, Words};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

/// What a change copies is one of them; as many as of the other tables.
const SHARDS: usize = 1024;
/// Fingerprints on a line.
const ON_LINE: usize = 8;

/// The tag of a place where nobody stands or stood.
const FREE: u8 = 0;
/// Of one where somebody stood while the line was full: others may have gone on to the next.
const GONE: u8 = 1;

/// A byte of each place.
type Tags = [u8; ON_LINE];

/// A cache line.
#[derive(Clone, Copy, PartialEq)]
#[repr(align(64))]
struct Line([u64; ON_LINE]);

/// Where a peer stands, and as what.
#[derive(Clone, Copy)]
struct Print {
    place: u64,
    print: u64,
}

impl Print {
    /// Neither of the two that mean something else.
    #[inline]
    const fn tag(self) -> u8 {
        let tag = self.print.to_le_bytes()[0];
        if tag <= GONE { tag + 2 } else { tag }
    }

    const fn shard(self) -> usize {
        (self.place >> 54) as usize % SHARDS
    }

    /// On which lines of a shard it may be, in the order in which they are filled.
    #[inline]
    fn lines(self, lines: usize) -> impl Iterator<Item = usize> {
        let home = (self.place & u64::from(u32::MAX)) as usize;
        (0..lines).map(move |step| home.wrapping_add(step) & (lines - 1))
    }
}

/// Keys of two strongly universal hashes of 64 bits.
#[derive(Clone, Copy)]
struct Keys {
    start: [u128; 2],
    words: [[u128; WORDS]; 2],
}

impl Keys {
    fn new() -> Self {
        // Seeded by the system, and `SipHash`.
        let random = RandomState::new();
        let key = |half: usize, at: usize| {
            let part = |part: u8| u128::from(random.hash_one((half, at, part)));
            part(0) << 64 | part(1)
        };
        Self {
            start: std::array::from_fn(|half| key(half, WORDS)),
            words: std::array::from_fn(|half| std::array::from_fn(|at| key(half, at))),
        }
    }

    #[inline]
    fn print(&self, Words(words): Words) -> Print {
        // The upper half of a sum, modulo 2^128, of words times keys.
        let half = |half: usize| {
            let products = words.iter().zip(&self.words[half]);
            let sum = products.fold(self.start[half], |sum, (word, key)| {
                sum.wrapping_add(key.wrapping_mul(u128::from(*word)))
            });
            (sum >> 64) as u64
        };
        Print {
            place: half(0),
            // Places where nobody stands are 0.
            print: half(1).max(1),
        }
    }
}

/// The tags and the lines of a shard, as many of both: a power of two, or none.
struct Table<'a> {
    tags: &'a mut [Tags],
    lines: &'a mut [Line],
}

/// Whether one of eight bytes is `byte`; all eight at once. Nothing but this is looked at for most strangers.
#[inline]
const fn has(tags: Tags, byte: u8) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let differ = u64::from_le_bytes(tags) ^ (ONES * byte as u64);
    differ.wrapping_sub(ONES) & !differ & (ONES << 7) != 0
}

#[inline]
fn contains(tags: &[Tags], lines: &[Line], print: Print) -> bool {
    for at in print.lines(tags.len()) {
        let here = tags[at];
        // All eight, without a branch for each.
        let found = |Line(on): &Line| on.iter().fold(false, |found, other| found | (*other == print.print));
        if has(here, print.tag()) && found(&lines[at]) {
            return true;
        }
        if has(here, FREE) {
            return false;
        }
    }
    false
}

impl Table<'_> {
    /// Whether a free place was taken, and not that of one that has gone. There is one.
    fn put(&mut self, print: Print) -> bool {
        for at in print.lines(self.tags.len()) {
            if let Some(place) = self.tags[at].iter().position(|tag| *tag <= GONE) {
                self.lines[at].0[place] = print.print;
                return std::mem::replace(&mut self.tags[at][place], print.tag()) == FREE;
            }
        }
        unreachable!("a quarter of the places are free")
    }

    /// Whether its place is free again.
    fn take(&mut self, print: Print) -> bool {
        for at in print.lines(self.tags.len()) {
            // Nobody has gone on from a line that was never full.
            let left = if has(self.tags[at], FREE) { FREE } else { GONE };
            let places = self.tags[at].iter_mut().zip(&mut self.lines[at].0);
            for (tag, own) in places {
                if *tag == print.tag() && *own == print.print {
                    (*tag, *own) = (left, 0);
                    return left == FREE;
                }
            }
        }
        false
    }
}

/// Lines for so many: at most 5/8 full, so that few lines are.
fn lines_for(peers: usize) -> usize {
    match peers {
        0 => 0,
        peers => peers.div_ceil(5).next_power_of_two(),
    }
}

/// Whether so many places in use are too many.
const fn is_crowded(used: usize, lines: usize) -> bool {
    used * 4 > lines * ON_LINE * 3
}

#[derive(Clone)]
struct Shard {
    peers: Arc<Vec<PeerKey>>,
    /// Places that are not free.
    used: usize,
}

/// A set of peers of which a changed copy costs little, as of a [`Sharded`](super::sharded::Sharded) map.
#[derive(Clone)]
pub(crate) struct Peers {
    tags: Arc<[Arc<[Tags]>]>,
    lines: Arc<[Arc<[Line]>]>,
    shards: Arc<[Shard]>,
    keys: Keys,
    len: usize,
}

impl Default for Peers {
    fn default() -> Self {
        let empty = Shard {
            peers: Arc::default(),
            used: 0,
        };
        Self {
            tags: std::iter::repeat_n(Arc::default(), SHARDS).collect(),
            lines: std::iter::repeat_n(Arc::default(), SHARDS).collect(),
            shards: std::iter::repeat_n(empty, SHARDS).collect(),
            keys: Keys::new(),
            len: 0,
        }
    }
}

impl Peers {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(crate) fn contains(&self, words: Words) -> bool {
        self.has(self.keys.print(words))
    }

    #[inline]
    fn has(&self, print: Print) -> bool {
        let at = print.shard();
        contains(&self.tags[at], &self.lines[at], print)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PeerKey> {
        self.shards.iter().flat_map(|shard| shard.peers.iter())
    }

    /// Whether it was not there.
    pub(crate) fn insert(&mut self, key: PeerKey) -> bool {
        let print = self.keys.print(key.words());
        if self.has(print) {
            return false;
        }
        let at = print.shard();
        let shard = &mut Arc::make_mut(&mut self.shards)[at];
        Arc::make_mut(&mut shard.peers).push(key);
        self.len += 1;
        if is_crowded(shard.used + 1, self.tags[at].len()) {
            self.build(at);
        } else {
            let took = self.table(at).put(print);
            Arc::make_mut(&mut self.shards)[at].used += usize::from(took);
        }
        true
    }

    /// Whether it was there. Copies nothing if it was not.
    pub(crate) fn remove(&mut self, key: &PeerKey) -> bool {
        let print = self.keys.print(key.words());
        if !self.has(print) {
            return false;
        }
        let at = print.shard();
        let shard = &mut Arc::make_mut(&mut self.shards)[at];
        let Some(place) = shard.peers.iter().position(|other| other == key) else {
            return false;
        };
        let peers = Arc::make_mut(&mut shard.peers);
        peers.swap_remove(place);
        self.len -= 1;
        if lines_for(peers.len()) * 4 <= self.tags[at].len() {
            peers.shrink_to_fit();
            self.build(at);
        } else if self.table(at).take(print) {
            Arc::make_mut(&mut self.shards)[at].used -= 1;
        }
        true
    }

    fn table(&mut self, at: usize) -> Table<'_> {
        Table {
            tags: Arc::make_mut(&mut Arc::make_mut(&mut self.tags)[at]),
            lines: Arc::make_mut(&mut Arc::make_mut(&mut self.lines)[at]),
        }
    }

    /// The lines of a shard anew, without what has gone.
    fn build(&mut self, at: usize) {
        let shard = &mut Arc::make_mut(&mut self.shards)[at];
        shard.used = shard.peers.len();
        let peers = Arc::clone(&shard.peers);
        let count = lines_for(peers.len());
        let mut tags = vec![[FREE; ON_LINE]; count];
        let mut lines = vec![Line([0; ON_LINE]); count];
        let mut table = Table {
            tags: &mut tags,
            lines: &mut lines,
        };
        for peer in peers.iter() {
            table.put(self.keys.print(peer.words()));
        }
        Arc::make_mut(&mut self.tags)[at] = tags.into();
        Arc::make_mut(&mut self.lines)[at] = lines.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p_identity::PeerId;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn key(n: u32) -> PeerKey {
        let mut bytes = vec![0x12, 32];
        bytes.extend(n.to_be_bytes().repeat(8));
        PeerKey::of(&PeerId::from_bytes(&bytes).expect("an id")).expect("a key")
    }

    fn check(peers: &Peers, naive: &BTreeSet<PeerKey>, up_to: u32) {
        let all: BTreeSet<PeerKey> = peers.iter().copied().collect();
        assert_eq!(
            (&all, peers.len(), peers.is_empty()),
            (naive, naive.len(), naive.is_empty())
        );
        for n in 0..up_to {
            assert_eq!(peers.contains(key(n).words()), naive.contains(&key(n)), "{n}");
        }
        for (at, shard) in peers.shards.iter().enumerate() {
            let (tags, lines) = (&peers.tags[at], &peers.lines[at]);
            assert_eq!(tags.len(), lines.len());
            let tags = || tags.iter().flatten();
            assert_eq!(tags().filter(|tag| **tag != FREE).count(), shard.used);
            assert_eq!(tags().filter(|tag| **tag > GONE).count(), shard.peers.len());
            assert!(!is_crowded(shard.used, lines.len()));
        }
    }

    #[test]
    fn a_copy_does_not_see_what_happens_to_the_other() {
        let (mut one, mut naive) = (Peers::default(), BTreeSet::new());
        for n in 0..5_000 {
            assert!(one.insert(key(n)) && naive.insert(key(n)));
        }
        let (copy, was) = (one.clone(), naive.clone());
        for n in 3_000..9_000 {
            assert_eq!(one.insert(key(n)), naive.insert(key(n)));
        }
        for n in 0..2_000 {
            assert_eq!(one.remove(&key(n * 3)), naive.remove(&key(n * 3)));
        }
        check(&one, &naive, 10_000);
        check(&copy, &was, 10_000);
        for n in 0..9_000 {
            assert_eq!(one.remove(&key(n)), naive.remove(&key(n)));
        }
        check(&one, &BTreeSet::new(), 10);
        assert!(
            one.lines.iter().all(|lines| lines.is_empty()),
            "nothing is kept for nobody"
        );
    }

    #[test]
    fn a_change_shares_every_shard_but_one() {
        let mut one = Peers::default();
        for n in 0..5_000 {
            one.insert(key(n));
        }
        let copy = one.clone();
        one.insert(key(5_000));
        let lines = one.lines.iter().zip(copy.lines.iter());
        assert_eq!(lines.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 1);
        let shards = one.shards.iter().zip(copy.shards.iter());
        assert_eq!(shards.filter(|(a, b)| !Arc::ptr_eq(&a.peers, &b.peers)).count(), 1);
    }

    #[test]
    fn whoever_differs_in_one_bit_has_another_fingerprint() {
        let keys = Keys::new();
        let ed25519 = [&[0, 36, 8, 1, 18, 32][..], &[7; 32]].concat();
        let own = PeerKey::of(&PeerId::from_bytes(&ed25519).expect("an id")).expect("a key");
        for bit in 0..32 * 8 {
            let mut other = ed25519.clone();
            other[6 + bit / 8] ^= 1 << (bit % 8);
            let other = PeerKey::of(&PeerId::from_bytes(&other).expect("an id")).expect("a key");
            assert_ne!(keys.print(own.words()).print, keys.print(other.words()).print);
            assert_ne!(keys.print(own.words()).place, keys.print(other.words()).place);
        }
        let (here, there) = (keys.print(own.words()), Keys::new().print(own.words()));
        assert!(
            here.print != there.print && here.place != there.place,
            "another set, other keys"
        );
    }

    #[test]
    fn a_byte_among_eight_is_found_wherever_it_is() {
        for byte in 0..=255 {
            for place in 0..ON_LINE {
                let mut tags: Tags = std::array::from_fn(|at| if at < place { byte ^ 0x80 } else { byte ^ 1 });
                assert!(!has(tags, byte), "{tags:?}");
                tags[place] = byte;
                assert!(has(tags, byte), "{tags:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Few homes and many that come and go, so that lines are full and what has gone is gone past.
        #[test]
        fn a_fingerprint_is_found_for_as_long_as_it_is_there(
            edits in prop::collection::vec((0_u64..40, any::<bool>()), 1..400),
        ) {
            // Tags that several share, those that mean something else among them.
            let print = |n: u64| Print { place: n % 3, print: ((n + 1) << 8) | (n % 5) };
            let (mut tags, mut lines) = (vec![[FREE; ON_LINE]; 8], vec![Line([0; ON_LINE]); 8]);
            let mut naive = BTreeSet::new();
            for (n, insert) in edits {
                let mut table = Table { tags: &mut tags, lines: &mut lines };
                if insert {
                    if naive.insert(n) {
                        table.put(print(n));
                    }
                } else if naive.remove(&n) {
                    table.take(print(n));
                }
                for n in 0..40 {
                    prop_assert_eq!(contains(&tags, &lines, print(n)), naive.contains(&n));
                }
            }
        }
    }
}
