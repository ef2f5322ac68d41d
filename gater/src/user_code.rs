//! Code of a user's that tasks and polls of ours call. A panic in it ends here: it is caught,
//! counted and logged.
//!
//! What calls it turns a panic into a denial, or into the default that the documentation of the
//! call names. No lock of this crate is held meanwhile.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// After how long a policy whose `tick` panicked is called again.
pub(crate) const AFTER_PANIC: Duration = Duration::from_secs(60);

/// Where a gate calls code of its user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Six questions of a policy. A panic is a denial.
    PeerDial,
    AddrDial,
    Accept,
    Knock,
    Secured,
    Upgraded,
    /// The same of what is there already.
    JudgeLive,
    JudgePending,
    /// `ConnectionGater::observe`. The other policies of a composition are told.
    Observe,
    /// `ConnectionGater::tick`. It is called again in a minute.
    Tick,
    /// `Gate::with_timer`, and its futures. The crate's own timer takes over.
    Timer,
    /// The waker of a task that waits here. The other tasks are woken.
    Waker,
    /// A listener of a bell. The other listeners are called. A bell can be heard by several gates,
    /// so none counts this.
    Listener,
}

impl Hook {
    pub(crate) const ALL: [Self; 13] = [
        Self::PeerDial,
        Self::AddrDial,
        Self::Accept,
        Self::Knock,
        Self::Secured,
        Self::Upgraded,
        Self::JudgeLive,
        Self::JudgePending,
        Self::Observe,
        Self::Tick,
        Self::Timer,
        Self::Waker,
        Self::Listener,
    ];

    /// The label of the metric.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::PeerDial => "peer_dial",
            Self::AddrDial => "addr_dial",
            Self::Accept => "accept",
            Self::Knock => "knock",
            Self::Secured => "secured",
            Self::Upgraded => "upgraded",
            Self::JudgeLive => "judge_live",
            Self::JudgePending => "judge_pending",
            Self::Observe => "observe",
            Self::Tick => "tick",
            Self::Timer => "timer",
            Self::Waker => "waker",
            Self::Listener => "listener",
        }
    }
}

thread_local! {
    /// Panics that were caught on this thread. A gate looks before and after a call, to count them:
    /// a composition inside its policy catches them first.
    static CAUGHT: Cell<u64> = const { Cell::new(0) };
}

/// How many panics were caught on this thread.
#[inline]
pub(crate) fn caught() -> u64 {
    CAUGHT.get()
}

/// How often code of a user's has panicked, by [`Hook`].
#[derive(Debug, Default)]
pub(crate) struct HookPanics([AtomicU64; Hook::ALL.len()]);

impl HookPanics {
    /// What `work` returns; nothing if it panics.
    #[inline]
    pub(crate) fn call<T>(&self, hook: Hook, work: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(value) => Some(value),
            Err(cause) => {
                self.caught(hook, cause);
                None
            }
        }
    }

    #[cold]
    fn caught(&self, hook: Hook, cause: Box<dyn Any + Send>) {
        CAUGHT.set(CAUGHT.get().wrapping_add(1));
        let before = self.0[hook as usize].fetch_add(1, Ordering::Relaxed);
        let (name, reason) = (hook.name(), reason(&*cause));
        if before == 0 {
            tracing::error!(
                hook = name,
                reason,
                "user code panicked; further panics of this hook are logged at debug"
            );
        } else {
            tracing::debug!(hook = name, reason, "user code panicked");
        }
        // What it panicked with may panic when it is dropped, and what that panics with again.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(cause))) {
            std::mem::forget(again);
        }
    }

    #[cfg(test)]
    pub(crate) fn get(&self, hook: Hook) -> u64 {
        self.0[hook as usize].load(Ordering::Relaxed)
    }
}

fn reason(cause: &(dyn Any + Send)) -> &str {
    cause
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| cause.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics when it is dropped, with another one.
    struct Bomb(u8);

    impl Drop for Bomb {
        fn drop(&mut self) {
            if let Some(left) = self.0.checked_sub(1) {
                std::panic::panic_any(Self(left));
            }
        }
    }

    #[test]
    fn a_panic_is_counted_where_it_was_whatever_it_panics_with() {
        let (panics, before) = (HookPanics::default(), caught());
        assert_eq!(panics.call(Hook::Accept, || 7), Some(7));
        assert_eq!(panics.call(Hook::Accept, || panic!("text")), None::<()>);
        assert_eq!(panics.call(Hook::Accept, || panic!("with {}", 1)), None::<()>);
        assert_eq!(panics.call(Hook::Accept, || std::panic::panic_any(Bomb(3))), None::<()>);
        for hook in Hook::ALL {
            assert_eq!(panics.get(hook), if hook == Hook::Accept { 3 } else { 0 }, "{hook:?}");
        }
        assert_eq!(caught() - before, 3);
    }

    #[test]
    fn every_hook_has_a_name_and_a_place_of_its_own() {
        for (at, hook) in Hook::ALL.into_iter().enumerate() {
            assert_eq!(hook as usize, at);
            assert!(Hook::ALL[..at].iter().all(|other| other.name() != hook.name()));
        }
    }
}
