//! Who may wait for a knock, and until when. Pure: the caller says what time it is and drops what it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::time::Duration;
use web_time::Instant;

/// `now + wait`, or as good as never: a wait of `Duration::MAX` is how one says so.
pub(crate) fn later(now: Instant, wait: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);
    now.checked_add(wait).unwrap_or_else(|| now + NEVER)
}

/// One place in the set. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(u64);

/// A bounded set of sockets that have not knocked yet, each until one and the same time after it was accepted.
///
/// When it is full the one that has waited longest goes: under a flood an honest peer may have to dial twice, and no
/// established connection is affected.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    capacity: NonZeroUsize,
    timeout: Duration,
    entries: BTreeMap<Slot, T>,
    /// In order of acceptance, which is the order of deadlines too. Slots that left early stay behind until their
    /// turn comes; `tidy` keeps those from piling up.
    deadlines: VecDeque<(Instant, Slot)>,
    next: u64,
}

impl<T> Waiting<T> {
    pub(crate) fn new(capacity: NonZeroUsize, timeout: Duration) -> Self {
        Self {
            capacity,
            timeout,
            entries: BTreeMap::new(),
            deadlines: VecDeque::new(),
            next: 0,
        }
    }

    /// Takes a new one in. Returns its place and, when the set was full, the one that had to go for it.
    pub(crate) fn on_accept(&mut self, now: Instant, entry: T) -> (Slot, Option<T>) {
        let evicted = if self.entries.len() >= self.capacity.get() {
            self.entries.pop_first().map(|(_, entry)| entry)
        } else {
            None
        };
        let slot = Slot(self.next);
        self.next += 1;
        self.entries.insert(slot, entry);
        self.deadlines.push_back((later(now, self.timeout), slot));
        self.tidy();
        (slot, evicted)
    }

    /// Takes one out that is done waiting.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<T> {
        let entry = self.entries.remove(&slot);
        self.tidy();
        entry
    }

    /// Takes out all that `gone` picks.
    pub(crate) fn remove_where(&mut self, mut gone: impl FnMut(&T) -> bool) -> usize {
        let before = self.entries.len();
        self.entries.retain(|_, entry| !gone(entry));
        self.tidy();
        before - self.entries.len()
    }

    /// Takes out the next one whose time is over.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<T> {
        while let Some((deadline, slot)) = self.deadlines.front().copied()
            && deadline <= now
        {
            self.deadlines.pop_front();
            if let Some(entry) = self.entries.remove(&slot) {
                return Some(entry);
            }
        }
        None
    }

    /// When `pop_expired` wants to be called next.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.entries.get_mut(&slot)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Keeps the first deadline that of somebody who still waits, and the queue within twice the capacity.
    fn tidy(&mut self) {
        while let Some((_, slot)) = self.deadlines.front()
            && !self.entries.contains_key(slot)
        {
            self.deadlines.pop_front();
        }
        if self.deadlines.len() > self.capacity.get().saturating_mul(2) {
            self.deadlines.retain(|(_, slot)| self.entries.contains_key(slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn waiting(capacity: usize) -> Waiting<&'static str> {
        Waiting::new(NonZeroUsize::new(capacity).expect("not zero"), TIMEOUT)
    }

    #[test]
    fn each_waits_until_its_own_deadline() {
        let start = Instant::now();
        let mut set = waiting(8);
        set.on_accept(start, "first");
        set.on_accept(start + Duration::from_secs(1), "second");
        assert_eq!(set.next_timeout(), Some(start + TIMEOUT));
        assert_eq!(set.pop_expired(start + TIMEOUT - Duration::from_nanos(1)), None);
        assert_eq!(set.pop_expired(start + TIMEOUT), Some("first"));
        assert_eq!(set.pop_expired(start + TIMEOUT), None);
        assert_eq!(set.next_timeout(), Some(start + Duration::from_secs(6)));
        assert_eq!(set.pop_expired(start + Duration::from_secs(6)), Some("second"));
        assert_eq!(set.next_timeout(), None);
    }

    #[test]
    fn no_timeout_and_no_limit_are_nothing_special() {
        let start = Instant::now();
        let mut set = Waiting::new(NonZeroUsize::MAX, Duration::MAX);
        set.on_accept(start, "patient");
        assert_eq!(set.pop_expired(start + TIMEOUT), None);
        assert!(set.next_timeout().is_some_and(|at| at > start + TIMEOUT));
    }

    #[test]
    fn a_full_set_lets_the_longest_waiter_go_and_never_grows() {
        let start = Instant::now();
        let mut set = waiting(2);
        assert_eq!(set.on_accept(start, "a").1, None);
        assert_eq!(set.on_accept(start, "b").1, None);
        assert_eq!(set.on_accept(start, "c").1, Some("a"));
        assert_eq!(set.on_accept(start, "d").1, Some("b"));
        assert_eq!(set.len(), 2);
    }

    #[test]
    fn who_knocked_leaves_no_deadline_behind() {
        let start = Instant::now();
        let mut set = waiting(2);
        let (slot, _) = set.on_accept(start, "a");
        assert_eq!(set.remove(slot), Some("a"));
        assert_eq!(set.remove(slot), None);
        assert_eq!(set.next_timeout(), None);
    }

    #[test]
    fn a_stream_of_quick_knocks_behind_one_slow_socket_does_not_pile_up_deadlines() {
        let start = Instant::now();
        let mut set = waiting(4);
        set.on_accept(start, "slow");
        for _ in 0..10_000 {
            let (slot, _) = set.on_accept(start, "quick");
            set.remove(slot);
        }
        assert_eq!(set.len(), 1);
        assert!(set.deadlines.len() <= 8, "{}", set.deadlines.len());
    }

    #[test]
    fn a_listener_takes_its_waiters_along() {
        let start = Instant::now();
        let mut set = waiting(4);
        set.on_accept(start, "one");
        set.on_accept(start, "two");
        assert_eq!(set.remove_where(|entry| *entry == "one"), 1);
        assert_eq!(set.pop_expired(start + TIMEOUT), Some("two"));
    }
}
