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
}

impl Changes {
    /// One that nobody listens to yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rings: something that was allowed may be so no more. Calls every listener, on this thread; a listener that panics is
    /// logged, and the others are called.
    pub fn tightened(&self) {
        self.0.rung.fetch_add(1, Ordering::AcqRel);
        let mut listeners = self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Has `listener` called at each ring from now on, for as long as somebody holds it.
    pub fn listen(&self, listener: &Arc<Listener>) {
        let mut listeners = self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.push(Arc::downgrade(listener));
    }
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes")
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}
