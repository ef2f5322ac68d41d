//! The memory that received messages may take, for all peers together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A budget in bytes, shared by all peers of a host. A peer may hold as much as is left for everybody else, and no more: one
/// that takes all it can leaves half, two leave a third, and somebody new always finds something.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    total: usize,
    used: Arc<AtomicUsize>,
}

impl Budget {
    pub(crate) fn new(total: usize) -> Self {
        Self {
            total,
            used: Arc::default(),
        }
    }

    /// Takes `more` for a peer that holds `held`.
    pub(crate) fn take(&self, held: usize, more: usize) -> bool {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let after = used.checked_add(more)?;
            let left = self.total.checked_sub(after)?;
            (held.checked_add(more)? <= left).then_some(after)
        });
        taken.is_ok()
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes what it can, in pieces of 1.
    fn greedy(budget: &Budget) -> usize {
        let mut held = 0;
        while budget.take(held, 1) {
            held += 1;
        }
        held
    }

    #[test]
    fn somebody_who_takes_all_he_can_leaves_half() {
        let budget = Budget::new(1000);
        assert_eq!(greedy(&budget), 500);
        assert_eq!(greedy(&budget), 250);
        assert!(budget.take(0, 100), "and there is something for the third");
    }

    #[test]
    fn the_total_is_never_exceeded() {
        let budget = Budget::new(1000);
        assert!(!budget.take(0, 501));
        assert!(!budget.take(0, usize::MAX));
        assert!(!budget.take(usize::MAX, 1));
        for _ in 0..50 {
            greedy(&budget);
        }
        assert!(budget.used() <= 1000);
        budget.give_back(budget.used());
        assert!(budget.take(0, 500));
    }
}
