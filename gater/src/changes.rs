//! How a policy says that it has been tightened.

use crate::user_code::{Hook, HookPanics};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

type Listener = dyn Fn() + Send + Sync;

/// A bell that a policy rings when it has been tightened. Clones are the same bell.
///
/// A gate that hears it judges every live connection and every pending attempt again, soon, on the tasks that own them.
/// Ring after the change can be seen, and outside of locks that the policy's answers take.
#[derive(Clone, Default)]
pub struct Changes(Arc<Shared>);

#[derive(Default)]
struct Shared {
    rung: AtomicU64,
    panics: HookPanics,
    listeners: Mutex<Vec<Weak<Listener>>>,
    /// Those who look when to call the policy next.
    clocks: Mutex<Vec<Weak<Listener>>>,
}

impl Changes {
    /// One that nobody listens to yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rings: something that was allowed may be so no more. Calls every listener, on this thread; a
    /// listener that panics is logged, and the others are called.
    pub fn tightened(&self) {
        self.0.rung.fetch_add(1, Ordering::AcqRel);
        self.call(&self.0.listeners);
    }

    /// Says that the policy wants to be called at another time than
    /// [`ConnectionGater::tick`](crate::ConnectionGater::tick) last answered: each gate that
    /// listens calls it, soon, on the task of its Swarm.
    pub fn rescheduled(&self) {
        self.call(&self.0.clocks);
    }

    /// No lock is held meanwhile.
    fn call(&self, listeners: &Mutex<Vec<Weak<Listener>>>) {
        let mut listeners = listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.strong_count() > 0);
        let called: Vec<_> = listeners.iter().filter_map(Weak::upgrade).collect();
        drop(listeners);
        for listener in called {
            self.0.panics.call(Hook::Listener, || listener());
        }
    }

    /// How often it has rung.
    pub fn count(&self) -> u64 {
        self.0.rung.load(Ordering::Acquire)
    }

    /// Has `listener` called at each ring from now on, for as long as it is held anywhere. On the
    /// thread that rings.
    pub fn listen(&self, listener: &Arc<Listener>) {
        let mut listeners = self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.push(Arc::downgrade(listener));
    }

    /// The same at each [`Self::rescheduled`].
    pub(crate) fn listen_to_schedule(&self, listener: &Arc<Listener>) {
        let mut clocks = self.0.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.push(Arc::downgrade(listener));
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes")
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}
