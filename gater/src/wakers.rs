//! The tasks that wait for a gate: to be woken when the policy has been tightened, or when there is
//! something to do.

use crate::gate::lock;
use crate::user_code::{Hook, HookPanics};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

/// Tasks that are woken together.
#[derive(Default)]
pub(crate) struct Wakers {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Waker>>,
    #[cfg(test)]
    pub(crate) locked: AtomicU64,
}

/// A task's place among them. It has to be given back.
pub(crate) struct Seat {
    key: u64,
    /// What is woken: kept, so that nothing is locked while that stays the same.
    waker: Option<Waker>,
}

impl Wakers {
    /// A place for a task that will wait.
    pub(crate) fn seat(&self) -> Seat {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        Seat { key, waker: None }
    }

    /// Has the task woken through `waker` from now on.
    #[inline]
    pub(crate) fn wait(&self, seat: &mut Seat, waker: &Waker) {
        if !seat.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.change(seat, waker);
        }
    }

    fn change(&self, seat: &mut Seat, waker: &Waker) {
        #[cfg(test)]
        self.locked.fetch_add(1, Ordering::Relaxed);
        // A waker is its executor's code. It is made before the lock is taken, and the old one is
        // dropped after.
        let (own, kept) = (waker.clone(), waker.clone());
        let old = lock(&self.waiting).insert(seat.key, own);
        seat.waker = Some(kept);
        drop(old);
    }

    /// It waits no more.
    pub(crate) fn leave(&self, seat: &mut Seat) {
        if seat.waker.take().is_none() {
            return;
        }
        let own = lock(&self.waiting).remove(&seat.key);
        drop(own);
    }

    /// Wakes all. No lock is held meanwhile.
    pub(crate) fn wake(&self, panics: &HookPanics) {
        let waiting: Vec<Waker> = lock(&self.waiting).values().cloned().collect();
        for waker in waiting {
            panics.call(Hook::Waker, || waker.wake());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Belongs to an executor whose wakers panic.
    struct Broken;

    impl Wake for Broken {
        fn wake(self: Arc<Self>) {
            panic!("woken");
        }
    }

    fn count(woken: &Arc<Woken>) -> usize {
        woken.0.load(Ordering::SeqCst)
    }

    #[test]
    fn a_waker_that_is_the_same_locks_nothing() {
        let (wakers, woken) = (Wakers::default(), Arc::new(Woken::default()));
        let mut seat = wakers.seat();
        let waker = Waker::from(woken.clone());
        for _ in 0..100 {
            wakers.wait(&mut seat, &waker.clone());
        }
        assert_eq!(wakers.locked.load(Ordering::Relaxed), 1);
        wakers.wake(&HookPanics::default());
        assert_eq!(count(&woken), 1);
        let other = Arc::new(Woken::default());
        wakers.wait(&mut seat, &Waker::from(other.clone()));
        wakers.wake(&HookPanics::default());
        assert_eq!((count(&woken), count(&other)), (1, 1), "the newest alone");
        wakers.leave(&mut seat);
        wakers.wake(&HookPanics::default());
        assert_eq!((count(&woken), count(&other)), (1, 1));
        assert!(lock(&wakers.waiting).is_empty());
    }

    #[test]
    fn a_waker_that_panics_keeps_no_other_task_asleep() {
        let (wakers, panics) = (Wakers::default(), HookPanics::default());
        let woken: Vec<_> = (0..8).map(|_| Arc::new(Woken::default())).collect();
        let mut seats = Vec::new();
        for woken in &woken {
            for waker in [Waker::from(woken.clone()), Waker::from(Arc::new(Broken))] {
                let mut seat = wakers.seat();
                wakers.wait(&mut seat, &waker);
                seats.push(seat);
            }
        }
        wakers.wake(&panics);
        assert!(woken.iter().all(|woken| count(woken) == 1));
        assert_eq!(panics.get(Hook::Waker), 8);
    }

    /// Some executors drop a task with its last waker, and the task's place here with it.
    #[test]
    fn a_waker_that_owns_what_waits_may_go_while_another_comes() {
        struct Task(Arc<Wakers>, Mutex<Option<Seat>>);
        impl Wake for Task {
            fn wake(self: Arc<Self>) {}
        }
        impl Drop for Task {
            fn drop(&mut self) {
                if let Some(seat) = lock(&self.1).as_mut() {
                    self.0.leave(seat);
                }
            }
        }
        let wakers = Arc::new(Wakers::default());
        let mut inner = wakers.seat();
        wakers.wait(&mut inner, Waker::noop());
        let mut outer = wakers.seat();
        let task = Arc::new(Task(wakers.clone(), Mutex::new(Some(inner))));
        wakers.wait(&mut outer, &Waker::from(task));
        wakers.wait(&mut outer, Waker::noop());
        wakers.leave(&mut outer);
        assert!(lock(&wakers.waiting).is_empty());
    }
}
