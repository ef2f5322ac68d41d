//! The places of the pool: who is in it, in what order they leave, and who came from where. No policy.
//!
//! One slab, and three ways to find a place in it, each in constant time or in the logarithm of the number of prefixes:
//! by its slot, as the next to expire, and as the n-th of its prefix or of its class (known or stranger).

use super::prefix::Prefix;
use std::collections::BTreeMap;
use web_time::Instant;

const NOBODY: u32 = u32::MAX;

/// One place. Never used twice: a slot whose owner has left finds nobody, whoever sits there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    index: u32,
    serial: u64,
}

#[derive(Debug)]
struct Place<T> {
    serial: u64,
    deadline: Instant,
    /// The one accepted before, and the one after. Itself, when it does not expire.
    before: u32,
    after: u32,
    /// Where it stands among those of its prefix, and among those of its class.
    in_prefix: u32,
    in_class: u32,
    prefix: Prefix,
    known: bool,
    entry: T,
}

#[derive(Debug)]
enum Cell<T> {
    /// And the next free one.
    Free(u32),
    Taken(Place<T>),
}

#[derive(Debug)]
pub(super) struct Places<T> {
    cells: Vec<Cell<T>>,
    free: u32,
    first: u32,
    last: u32,
    serial: u64,
    /// Exact, and no larger than the pool, as a prefix without a place has no entry. Counters in a table of hashes
    /// would be smaller, and would let one prefix be held to account for what another holds. An ordered map, because
    /// no choice of addresses makes it slow.
    prefixes: BTreeMap<Prefix, Vec<u32>>,
    strangers: Vec<u32>,
    known: Vec<u32>,
}

impl<T> Places<T> {
    pub(super) fn new() -> Self {
        Self {
            cells: Vec::new(),
            free: NOBODY,
            first: NOBODY,
            last: NOBODY,
            serial: 0,
            prefixes: BTreeMap::new(),
            strangers: Vec::new(),
            known: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.strangers.len() + self.known.len()
    }

    /// Takes one in. No `deadline` is earlier than the one before it: they leave in the order in which they came.
    pub(super) fn insert(&mut self, deadline: Instant, prefix: Prefix, known: bool, entry: T) -> Slot {
        self.serial += 1;
        let index = match self.cells.get(self.free as usize) {
            Some(&Cell::Free(next)) => std::mem::replace(&mut self.free, next),
            _ => u32::try_from(self.cells.len()).expect("the pool's capacity fits in 32 bits"),
        };
        let class = if known { &mut self.known } else { &mut self.strangers };
        let in_class = push(class, index);
        let place = Place {
            serial: self.serial,
            deadline,
            before: self.last,
            after: NOBODY,
            in_prefix: push(self.prefixes.entry(prefix).or_default(), index),
            in_class,
            prefix,
            known,
            entry,
        };
        match self.cells.get_mut(index as usize) {
            Some(cell) => *cell = Cell::Taken(place),
            None => self.cells.push(Cell::Taken(place)),
        }
        self.set_after(self.last, index);
        self.last = index;
        Slot {
            index,
            serial: self.serial,
        }
    }

    /// Leaves it its place until it is removed, and says whether it was there.
    pub(super) fn keep(&mut self, slot: Slot) -> bool {
        if self.get_mut(slot).is_none() {
            return false;
        }
        if let Some(place) = self.taken_mut(slot.index)
            && place.before != slot.index
        {
            let before = std::mem::replace(&mut place.before, slot.index);
            let after = std::mem::replace(&mut place.after, slot.index);
            self.set_after(before, after);
            self.set_before(after, before);
        }
        true
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Option<T> {
        if !self.keep(slot) {
            return None;
        }
        let cell = std::mem::replace(&mut self.cells[slot.index as usize], Cell::Free(self.free));
        let Cell::Taken(place) = cell else {
            unreachable!("it is there");
        };
        self.free = slot.index;
        self.leave_class(place.known, place.in_class);
        self.leave_prefix(place.prefix, place.in_prefix);
        Some(place.entry)
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        match self.cells.get_mut(slot.index as usize) {
            Some(Cell::Taken(place)) if place.serial == slot.serial => Some(&mut place.entry),
            _ => None,
        }
    }

    /// The next to expire, and when.
    pub(super) fn first(&self) -> Option<(Slot, Instant)> {
        self.taken(self.first)
            .map(|place| (self.slot(self.first), place.deadline))
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.strangers.iter().chain(&self.known).map(|index| self.slot(*index))
    }

    /// How many come from this prefix.
    pub(super) fn held_by(&self, prefix: Prefix) -> usize {
        self.prefixes.get(&prefix).map_or(0, Vec::len)
    }

    /// One of this prefix: the n-th, in an order that means nothing.
    pub(super) fn of_prefix(&self, prefix: Prefix, n: usize) -> Option<Slot> {
        Some(self.slot(*self.prefixes.get(&prefix)?.get(n)?))
    }

    pub(super) fn strangers(&self) -> usize {
        self.strangers.len()
    }

    /// The n-th of a class, in an order that means nothing, and how much its prefix holds.
    pub(super) fn of_class(&self, known: bool, n: usize) -> Option<(usize, Slot)> {
        let index = *if known { &self.known } else { &self.strangers }.get(n)?;
        let place = self.taken(index)?;
        Some((self.held_by(place.prefix), self.slot(index)))
    }

    /// Makes everybody of this prefix known.
    pub(super) fn promote(&mut self, prefix: Prefix) {
        for n in 0..self.held_by(prefix) {
            let index = self.prefixes[&prefix][n];
            if let Some(&Place {
                known: false, in_class, ..
            }) = self.taken(index)
            {
                self.leave_class(false, in_class);
                let in_class = push(&mut self.known, index);
                if let Some(place) = self.taken_mut(index) {
                    place.known = true;
                    place.in_class = in_class;
                }
            }
        }
    }

    fn slot(&self, index: u32) -> Slot {
        let serial = self.taken(index).map_or(0, |place| place.serial);
        Slot { index, serial }
    }

    fn taken(&self, index: u32) -> Option<&Place<T>> {
        match self.cells.get(index as usize) {
            Some(Cell::Taken(place)) => Some(place),
            _ => None,
        }
    }

    fn taken_mut(&mut self, index: u32) -> Option<&mut Place<T>> {
        match self.cells.get_mut(index as usize) {
            Some(Cell::Taken(place)) => Some(place),
            _ => None,
        }
    }

    fn set_after(&mut self, index: u32, after: u32) {
        match self.taken_mut(index) {
            Some(place) => place.after = after,
            None => self.first = after,
        }
    }

    fn set_before(&mut self, index: u32, before: u32) {
        match self.taken_mut(index) {
            Some(place) => place.before = before,
            None => self.last = before,
        }
    }

    fn leave_class(&mut self, known: bool, at: u32) {
        let class = if known { &mut self.known } else { &mut self.strangers };
        class.swap_remove(at as usize);
        if let Some(&moved) = class.get(at as usize)
            && let Some(place) = self.taken_mut(moved)
        {
            place.in_class = at;
        }
    }

    fn leave_prefix(&mut self, prefix: Prefix, at: u32) {
        let Some(members) = self.prefixes.get_mut(&prefix) else {
            return;
        };
        members.swap_remove(at as usize);
        // What a prefix once held does not stay allocated: prefixes could take turns at it.
        if members.capacity() > 4 * members.len().max(4) {
            members.shrink_to(2 * members.len());
        }
        let moved = members.get(at as usize).copied();
        if members.is_empty() {
            self.prefixes.remove(&prefix);
        }
        if let Some(place) = moved.and_then(|moved| self.taken_mut(moved)) {
            place.in_prefix = at;
        }
    }
}

/// Appends, and says where.
fn push(list: &mut Vec<u32>, index: u32) -> u32 {
    list.push(index);
    u32::try_from(list.len() - 1).expect("the pool's capacity fits in 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// What a socket over TCP needs, generously: its state, its handle, both addresses, a few words for the knock.
    type Entry = (u8, [u64; 32]);

    #[test]
    fn a_place_takes_at_most_512_bytes_its_entry_included() {
        let cell = size_of::<Cell<Entry>>();
        assert_eq!(cell - size_of::<Entry>(), 48, "what a cell adds to its entry");
        // Every one from a prefix of its own, in tree nodes that are filled as little as they may be: 5 of 11.
        let key_and_list = size_of::<Prefix>() + size_of::<Vec<u32>>() + size_of::<usize>();
        let (node, list, class) = (
            key_and_list * 11 / 5 + 16,
            4 * size_of::<u32>() + 16,
            2 * size_of::<u32>(),
        );
        let total = cell + node + list + class;
        assert_eq!(total - size_of::<Entry>(), 189, "what the pool adds at worst");
        assert!(total <= 512, "{total}");
    }

    #[test]
    fn a_slot_finds_its_owner_only() {
        let now = Instant::now();
        let mut places = Places::new();
        let a = places.insert(now, Prefix::Unknown, false, "a");
        assert_eq!(places.remove(a), Some("a"));
        let b = places.insert(now, Prefix::Unknown, false, "b");
        assert_eq!(b.index, a.index);
        assert_eq!(places.remove(a), None);
        assert_eq!(places.get_mut(b), Some(&mut "b"));
    }

    #[test]
    fn they_leave_in_the_order_in_which_they_came_whoever_left_before() {
        let now = Instant::now();
        let at = |n| now + Duration::from_secs(n);
        let mut places = Places::new();
        let slots: Vec<_> = (0..5)
            .map(|n| places.insert(at(n), Prefix::Unknown, false, n))
            .collect();
        places.remove(slots[0]);
        places.remove(slots[2]);
        places.remove(slots[4]);
        places.insert(at(5), Prefix::Unknown, true, 5);
        let mut order = Vec::new();
        while let Some((slot, deadline)) = places.first() {
            order.push((deadline, places.remove(slot).expect("is there")));
        }
        assert_eq!(order, [(at(1), 1), (at(3), 3), (at(5), 5)]);
        assert_eq!(places.len(), 0);
        assert!(places.prefixes.is_empty());
    }

    #[test]
    fn one_that_is_kept_has_its_place_until_it_is_removed_and_does_not_expire() {
        let now = Instant::now();
        for kept in [vec![0], vec![1], vec![2], vec![0, 1], vec![0, 1, 2], vec![2, 2, 0]] {
            let mut places = Places::new();
            let slots: Vec<_> = (0..3).map(|n| places.insert(now, Prefix::Unknown, false, n)).collect();
            for n in &kept {
                assert!(places.keep(slots[*n]));
            }
            places.insert(now, Prefix::Unknown, false, 3);
            assert_eq!((places.len(), places.held_by(Prefix::Unknown)), (4, 4));
            let mut order = Vec::new();
            while let Some((slot, _)) = places.first() {
                order.push(places.remove(slot).expect("is there"));
            }
            let expire: Vec<_> = (0..4).filter(|n| !kept.contains(n)).collect();
            assert_eq!(order, expire, "{kept:?}");
            for n in (0..3).filter(|n| kept.contains(n)) {
                assert_eq!(places.remove(slots[n]), Some(n));
                assert!(!places.keep(slots[n]));
            }
            let last = places.insert(now, Prefix::Unknown, false, 4);
            assert_eq!(places.first().map(|(slot, _)| slot), Some(last));
        }
    }

    #[test]
    fn what_a_prefix_once_held_does_not_stay_allocated() {
        let now = Instant::now();
        let mut places = Places::new();
        let slots: Vec<_> = (0..512)
            .map(|n| places.insert(now, Prefix::Unknown, false, n))
            .collect();
        for slot in &slots[1..] {
            places.remove(*slot);
        }
        assert!(places.prefixes[&Prefix::Unknown].capacity() <= 16);
    }

    #[test]
    fn who_is_promoted_is_found_in_the_other_class() {
        let now = Instant::now();
        let (good, other) = (Prefix::V4([1; 3]), Prefix::V4([2; 3]));
        let mut places = Places::new();
        for n in 0..6 {
            places.insert(now, if n % 2 == 0 { good } else { other }, false, n);
        }
        places.promote(good);
        assert_eq!((places.strangers(), places.len()), (3, 6));
        for n in 0..3 {
            let (held, slot) = places.of_class(true, n).expect("is there");
            assert_eq!(held, 3);
            assert_eq!(places.get_mut(slot).map(|entry| *entry % 2), Some(0));
        }
    }
}
