//! Callers that are being answered: in their TLS handshake, and so many at once at most.
//!
//! Whoever has knocked rightly is answered, always. In an open network anybody can knock rightly and then leave TLS
//! where it is, so a plain limit would let a few hundred such knocks keep everybody else out. When there are too many, one
//! of those that are in goes: an honest caller is through after one round trip, and who has been at it for longest
//! probably will not be.

use super::places::Slot;
use super::prefix::Prefix;
use std::collections::{HashMap, VecDeque};

/// How many there may be at once, at least. Each has some 10 kB for its handshake.
const MAX_HANDSHAKES: usize = 256;
/// What part of a large pool they may be.
const SHARE: usize = 16;

/// See the module. `T` is how a caller is told to go.
#[derive(Debug)]
pub(crate) struct Answering<T> {
    most: usize,
    /// The longest so first.
    callers: VecDeque<Answered<T>>,
}

#[derive(Debug)]
struct Answered<T> {
    slot: Slot,
    prefix: Prefix,
    known: bool,
    caller: T,
}

impl<T> Answering<T> {
    /// Beside a pool of so many.
    pub(crate) fn new(pool: usize) -> Self {
        Self {
            most: (pool / SHARE).max(MAX_HANDSHAKES),
            callers: VecDeque::new(),
        }
    }

    /// Takes one more in, and returns the one that goes for it.
    pub(crate) fn start(&mut self, slot: Slot, prefix: Prefix, known: bool, caller: T) -> Option<(Slot, T)> {
        let displaced = if self.callers.len() >= self.most {
            self.victim().and_then(|n| self.callers.remove(n))
        } else {
            None
        };
        self.callers.push_back(Answered {
            slot,
            prefix,
            known,
            caller,
        });
        displaced.map(|answered| (answered.slot, answered.caller))
    }

    /// It is through, or has failed, or has to go. `None` if that was said before.
    pub(crate) fn end(&mut self, slot: Slot) -> Option<T> {
        let at = self.callers.iter().position(|answered| answered.slot == slot)?;
        self.callers.remove(at).map(|answered| answered.caller)
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&T> {
        let answered = self.callers.iter().find(|answered| answered.slot == slot)?;
        Some(&answered.caller)
    }

    /// How many there may be.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Who goes: a stranger if there is one, of the prefix that has the most, the longest here.
    fn victim(&self) -> Option<usize> {
        let strangers = self.callers.iter().any(|answered| !answered.known);
        let mut held = HashMap::<Prefix, usize>::new();
        for answered in &self.callers {
            *held.entry(answered.prefix).or_default() += 1;
        }
        let candidates = self.callers.iter().enumerate();
        candidates
            .filter(|(_, answered)| !(strangers && answered.known))
            // The last of equals is what `max_by_key` takes.
            .rev()
            .max_by_key(|(_, answered)| held.get(&answered.prefix))
            .map(|(n, _)| n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::silence::places::Places;
    use web_time::Instant;

    fn net(n: u16) -> Prefix {
        let [a, b] = n.to_be_bytes();
        Prefix::V4([10, a, b])
    }

    /// As many slots as one asks for, all different.
    fn slots(n: usize) -> Vec<Slot> {
        let mut places = Places::new();
        let now = Instant::now();
        (0..n).map(|_| places.insert(now, net(0), false, ())).collect()
    }

    #[test]
    fn there_is_room_until_there_are_too_many_and_whoever_ends_makes_room() {
        let (slots, mut answering) = (slots(MAX_HANDSHAKES + 2), Answering::new(0));
        for (n, slot) in slots.iter().enumerate().take(MAX_HANDSHAKES) {
            assert_eq!(answering.start(*slot, net(1), false, n), None);
        }
        assert_eq!(answering.get(slots[7]), Some(&7));
        assert_eq!(answering.end(slots[7]), Some(7));
        assert_eq!((answering.end(slots[7]), answering.get(slots[7])), (None, None));
        assert_eq!(answering.start(slots[MAX_HANDSHAKES], net(1), false, 1000), None);
        // The longest here.
        assert_eq!(
            answering.start(slots[MAX_HANDSHAKES + 1], net(1), false, 1001),
            Some((slots[0], 0))
        );
        assert_eq!(answering.callers.len(), MAX_HANDSHAKES);
    }

    #[test]
    fn a_large_pool_has_more_of_them() {
        assert_eq!(Answering::<()>::new(64).most, 256);
        assert_eq!(Answering::<()>::new(8192).most, 512);
    }

    #[test]
    fn who_goes_is_of_the_prefix_that_has_the_most() {
        let (slots, mut answering) = (slots(3 * MAX_HANDSHAKES), Answering::new(0));
        // One from each of a few prefixes, long before the many from one.
        for (n, slot) in slots.iter().enumerate().take(MAX_HANDSHAKES) {
            let prefix = if n < 10 { net(n as u16) } else { net(99) };
            assert_eq!(answering.start(*slot, prefix, false, n), None);
        }
        for (n, slot) in slots.iter().enumerate().skip(MAX_HANDSHAKES) {
            let gone = answering.start(*slot, net(99), false, n).map(|(_, n)| n);
            assert_eq!(gone, Some(n - MAX_HANDSHAKES + 10), "the oldest of the busiest");
        }
    }

    #[test]
    fn a_stranger_goes_before_whoever_is_known_however_many_those_are() {
        let (slots, mut answering) = (slots(MAX_HANDSHAKES + 3), Answering::new(0));
        for (n, slot) in slots.iter().enumerate().take(MAX_HANDSHAKES) {
            let stranger = n == 100 || n == 200;
            let prefix = if stranger { net(n as u16) } else { net(1) };
            assert_eq!(answering.start(*slot, prefix, !stranger, n), None);
        }
        let mut known = |n: usize| {
            let gone = answering.start(slots[MAX_HANDSHAKES + n], net(1), true, 1000);
            gone.map(|(_, n)| n)
        };
        assert_eq!(known(0), Some(100));
        assert_eq!(known(1), Some(200));
        assert_eq!(known(2), Some(0));
    }
}
