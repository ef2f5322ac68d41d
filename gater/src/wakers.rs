//! Who is woken when the policy has been tightened.

use crate::gate::lock;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

/// The tasks to wake, by whoever waits on them.
#[derive(Default)]
pub(crate) struct Wakers {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Waker>>,
}

impl Wakers {
    /// A key for somebody who will wait.
    pub(crate) fn key(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Has `key` woken through `waker` from now on.
    pub(crate) fn wait(&self, key: u64, waker: &Waker) {
        let mut waiting = lock(&self.waiting);
        match waiting.get_mut(&key) {
            Some(known) => known.clone_from(waker),
            None => {
                waiting.insert(key, waker.clone());
            }
        }
    }

    /// It waits no more.
    pub(crate) fn leave(&self, key: u64) {
        lock(&self.waiting).remove(&key);
    }

    /// Wakes all. No lock is held meanwhile.
    pub(crate) fn wake(&self) {
        let waiting: Vec<Waker> = lock(&self.waiting).values().cloned().collect();
        for waker in waiting {
            waker.wake();
        }
    }
}
