//! The rules of this moment, for whoever decides, on any thread.
//!
//! A decision that says that it is reading, and then that it is done, has written to memory twice, and what one has written
//! the next one waits for before it reads anything from far away. So a thread keeps the snapshot that it asked last, and a
//! decision does no more than look whether there is a newer one.
//!
//! The price: a thread that asks no more keeps what it asked last, until it asks other rules or ends. That shares all that
//! did not change with the newer ones; when nobody has the rules any more it is the last one that has them.

use super::snapshot::Snapshot;
use arc_swap::{ArcSwap, Guard};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The next version of any rules. No two have the same, so a version says whose it is.
static NEXT: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// What this thread asked last.
    static LAST: Cell<Option<(u64, Arc<Snapshot>)>> = const { Cell::new(None) };
}

pub(super) struct Current {
    /// Of what is in `snapshot`, or of what was there before. Never of what is not there yet.
    version: AtomicU64,
    snapshot: ArcSwap<Snapshot>,
}

impl Default for Current {
    fn default() -> Self {
        Self {
            version: AtomicU64::new(NEXT.fetch_add(1, Ordering::Relaxed)),
            snapshot: ArcSwap::default(),
        }
    }
}

impl Current {
    /// For everything but decisions.
    pub(super) fn load(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Every decision that begins after this sees it. One caller at a time.
    pub(super) fn store(&self, next: Snapshot) {
        self.snapshot.store(Arc::new(next));
        self.version
            .store(NEXT.fetch_add(1, Ordering::Relaxed), Ordering::Release);
    }

    /// Decides by the rules of this moment. `decide` may ask again.
    #[inline]
    pub(super) fn with<T>(&self, decide: impl FnOnce(&Snapshot) -> T) -> T {
        // Read before the snapshot is: one that is newer than its version is taken again, and none is older.
        let version = self.version.load(Ordering::Acquire);
        let last = LAST.try_with(Cell::take).ok().flatten();
        let now = match last {
            Some((of, snapshot)) if of == version => snapshot,
            _ => self.snapshot.load_full(),
        };
        let decided = decide(&now);
        // A thread that ends keeps nothing.
        let _ = LAST.try_with(|last| last.set(Some((version, now))));
        decided
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn names(refused: bool) -> Snapshot {
        Snapshot {
            refuse_names: refused,
            ..Snapshot::default()
        }
    }

    fn refuses(current: &Current) -> bool {
        current.with(|now| now.refuse_names)
    }

    #[test]
    fn a_decision_sees_the_last_change_and_not_that_of_other_rules() {
        let (one, other) = (Current::default(), Current::default());
        for refused in [true, false, true, true, false] {
            one.store(names(refused));
            for _ in 0..3 {
                assert_eq!((refuses(&one), refuses(&other)), (refused, false));
            }
        }
    }

    #[test]
    fn a_decision_may_ask_for_another_and_change_what_the_next_one_sees() {
        let current = Current::default();
        let (outer, inner) = current.with(|now| {
            current.store(names(true));
            (now.refuse_names, refuses(&current))
        });
        assert_eq!((outer, inner, refuses(&current)), (false, true, true));
    }

    #[test]
    fn what_one_thread_changes_is_seen_by_others_that_know_of_it() {
        const CHANGES: u64 = 1_000;
        let (current, missed) = (Current::default(), AtomicBool::new(false));
        // Twice the number of the change; one less while it is made.
        let turn = AtomicU64::new(0);
        let at = || turn.load(Ordering::Acquire);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while at() < 2 * CHANGES {
                        let before = at();
                        let refused = refuses(&current);
                        let settled = before % 2 == 0 && at() == before;
                        if settled && refused != (before / 2 % 2 == 1) {
                            missed.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
            for next in 1..=CHANGES {
                turn.store(2 * next - 1, Ordering::Release);
                current.store(names(next % 2 == 1));
                turn.store(2 * next, Ordering::Release);
            }
        });
        assert!(!missed.into_inner());
    }

    #[test]
    fn rules_that_nobody_has_go_when_their_thread_asks_others() {
        let (one, other) = (Current::default(), Current::default());
        let kept = Arc::downgrade(&one.snapshot.load_full());
        refuses(&one);
        drop(one);
        assert!(kept.upgrade().is_some());
        refuses(&other);
        assert!(kept.upgrade().is_none());
    }
}
