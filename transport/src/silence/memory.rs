//! Digests in as little memory as they need: found by themselves, forgotten in the order of their times. No policy.
//!
//! Parallel arrays hold digest, time and a link; an index with half as many cells again finds a digest (linear
//! probing from where its own first bits put it, which a key makes as good as random); a list for each second
//! finds the oldest. All of it is allocated at once, so nothing is ever moved while somebody waits, and pages that
//! were never used cost nothing.

use std::collections::BTreeMap;

pub(super) type Digest = [u8; 16];

const NOBODY: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Memory {
    capacity: usize,
    digests: Vec<Digest>,
    times: Vec<u64>,
    /// The next of the same second, or the next free one.
    next: Vec<u32>,
    free: u32,
    len: usize,
    /// One more than a position in the arrays; 0 where there is nothing.
    index: Vec<u32>,
    /// The first of each second's list.
    seconds: BTreeMap<u64, u32>,
}

impl Memory {
    pub(super) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, NOBODY as usize / 2);
        Self {
            capacity,
            digests: Vec::new(),
            times: Vec::new(),
            next: Vec::new(),
            free: NOBODY,
            len: 0,
            index: Vec::new(),
            seconds: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_full(&self) -> bool {
        self.len >= self.capacity
    }

    pub(super) fn contains(&self, digest: &Digest) -> bool {
        !self.index.is_empty() && self.find(digest).is_ok()
    }

    /// Takes one in. Says no if it is there already or there is no room.
    pub(super) fn insert(&mut self, digest: Digest, time: u64) -> bool {
        if self.index.is_empty() {
            self.digests.reserve_exact(self.capacity);
            self.times.reserve_exact(self.capacity);
            self.next.reserve_exact(self.capacity);
            self.index = vec![0; self.capacity + self.capacity / 2 + 1];
        }
        let Err(cell) = self.find(&digest) else {
            return false;
        };
        if self.is_full() {
            return false;
        }
        let at = self.free;
        let at = if at == NOBODY {
            self.digests.push(digest);
            self.times.push(time);
            self.next.push(NOBODY);
            // `capacity` is less than `NOBODY`.
            (self.digests.len() - 1) as u32
        } else {
            self.free = self.next[at as usize];
            self.digests[at as usize] = digest;
            self.times[at as usize] = time;
            at
        };
        let first = self.seconds.entry(time / 1000).or_insert(NOBODY);
        self.next[at as usize] = std::mem::replace(first, at);
        self.index[cell] = at + 1;
        self.len += 1;
        true
    }

    /// Forgets one whose whole second lies before `limit`, of the oldest second there is, and returns its time.
    pub(super) fn forget_before(&mut self, limit: u64) -> Option<u64> {
        let mut first = self.seconds.first_entry()?;
        if first.key().checked_add(1)?.checked_mul(1000)? > limit {
            return None;
        }
        let at = *first.get();
        match self.next[at as usize] {
            NOBODY => _ = first.remove(),
            next => _ = first.insert(next),
        }
        if let Ok(cell) = self.find(&self.digests[at as usize]) {
            self.close_gap(cell);
        }
        self.next[at as usize] = std::mem::replace(&mut self.free, at);
        self.len -= 1;
        Some(self.times[at as usize])
    }

    /// The cell of this digest, or the one it would have.
    fn find(&self, digest: &Digest) -> Result<usize, usize> {
        let mut cell = self.home(digest);
        // A third of the cells is empty.
        loop {
            match self.index[cell] {
                0 => return Err(cell),
                at if self.digests[at as usize - 1] == *digest => return Ok(cell),
                _ => cell = self.after(cell),
            }
        }
    }

    /// Empties a cell and moves up those behind it that were put there only because it was taken.
    fn close_gap(&mut self, mut gap: usize) {
        let mut cell = self.after(gap);
        while let Some(at) = self.index[cell].checked_sub(1) {
            let home = self.home(&self.digests[at as usize]);
            let stays = if gap <= cell {
                gap < home && home <= cell
            } else {
                gap < home || home <= cell
            };
            if !stays {
                self.index[gap] = self.index[cell];
                gap = cell;
            }
            cell = self.after(cell);
        }
        self.index[gap] = 0;
    }

    fn home(&self, digest: &Digest) -> usize {
        let [a, b, c, d, e, f, g, h, ..] = *digest;
        let first = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        // The upper half of the product is below the length.
        ((u128::from(first) * self.index.len() as u128) >> 64) as usize
    }

    fn after(&self, cell: usize) -> usize {
        if cell + 1 == self.index.len() { 0 } else { cell + 1 }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.digests.capacity() * size_of::<Digest>()
            + self.times.capacity() * size_of::<u64>()
            + (self.next.capacity() + self.index.capacity()) * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(home: u8, n: u8) -> Digest {
        let mut digest = [0; 16];
        digest[0] = home;
        digest[15] = n;
        digest
    }

    #[test]
    fn it_forgets_whole_seconds_and_the_oldest_first() {
        let mut memory = Memory::new(8);
        for (n, time) in [(1, 5999), (2, 4000), (3, 5000), (4, 6000)] {
            assert!(memory.insert(digest(9, n), time));
        }
        assert_eq!(memory.forget_before(4999), None);
        assert_eq!(memory.forget_before(5000), Some(4000));
        assert_eq!(memory.forget_before(5999), None);
        let mut times = [memory.forget_before(6000), memory.forget_before(6000)];
        times.sort();
        assert_eq!(times, [Some(5000), Some(5999)]);
        assert_eq!(memory.forget_before(6000), None);
        assert!(memory.contains(&digest(9, 4)));
    }

    #[test]
    fn a_full_one_takes_no_more_and_one_that_has_forgotten_does() {
        let mut memory = Memory::new(3);
        assert!((0..3).all(|n| memory.insert(digest(n, n), 1000)));
        assert!(!memory.insert(digest(7, 7), 9000));
        assert!(memory.forget_before(2000).is_some());
        assert!(memory.insert(digest(7, 7), 9000));
        assert!(!memory.insert(digest(7, 7), 9000));
    }

    #[test]
    fn times_at_the_end_of_time_are_nothing_special() {
        let mut memory = Memory::new(2);
        memory.insert(digest(1, 1), u64::MAX);
        assert_eq!(memory.forget_before(u64::MAX), None);
    }

    proptest! {
        /// Few homes, so that clusters run into each other and round the end.
        #[test]
        fn it_is_a_set_whatever_the_order(ops in prop::collection::vec((0..4u8, 0..12u8, 0..20_000u64), 1..200)) {
            let mut memory = Memory::new(24);
            let mut model = BTreeMap::<Digest, u64>::new();
            for (home, n, time) in ops {
                let digest = digest(home * 85, n);
                if n == 11 {
                    while let Some(time) = memory.forget_before(time) {
                        let found = model.iter().find(|(_, t)| **t == time).map(|(d, _)| *d);
                        // Any with this time will do, as long as it is the one that is gone.
                        let gone = model.iter().find(|(d, t)| **t == time && !memory.contains(d)).map(|(d, _)| *d);
                        prop_assert!(found.is_some() && gone.is_some());
                        model.remove(&gone.expect("checked"));
                    }
                    prop_assert!(model.values().all(|t| t / 1000 >= time / 1000));
                } else {
                    let new = model.len() < 24 && !model.contains_key(&digest);
                    prop_assert_eq!(memory.insert(digest, time), new);
                    if new {
                        model.insert(digest, time);
                    }
                }
                prop_assert_eq!(memory.len(), model.len());
                prop_assert!(model.keys().all(|digest| memory.contains(digest)));
            }
        }
    }
}
