//! Code of the user's that the manager and wanted peers call: none of it ends a task, poisons a
//! lock, or is called under one.
//!
//! A panic in what was given beforehand (a configuration's closures, a tag's
//! functions) is caught, counted and logged here. A closure that is given to one call, as an
//! upsert's, panics into that call.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where code of the user's is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    /// `Bump::custom`: a panic leaves the value as it was and is `BumpError::Panicked`.
    Bump,
    /// `Config::with_clock`: a panic counts as the latest time that the clock told.
    Clock,
    /// `Config::with_closer`: a panic makes the manager close.
    Closer,
    /// `Decay::custom`: a panic leaves the value as it was.
    Decay,
    /// `pressure::Source`: a panic is a reading that failed.
    MemorySource,
    /// `Config::with_order`: a panic ranks the peer `(0, 0)`.
    Order,
    /// The waker of a task that waits for a trim. The task is not woken.
    Waker,
    /// `persistent::Config::with_denied_for`: a panic says nothing of the denial.
    DeniedFor,
}

impl Hook {
    /// The manager's: the others are no labels of its metric.
    #[cfg(any(test, feature = "metrics"))]
    pub(crate) const ALL: [Self; 7] = [
        Self::Bump,
        Self::Clock,
        Self::Closer,
        Self::Decay,
        Self::MemorySource,
        Self::Order,
        Self::Waker,
    ];

    /// The label of the metric.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bump => "bump",
            Self::Clock => "clock",
            Self::Closer => "closer",
            Self::Decay => "decay",
            Self::MemorySource => "memory_source",
            Self::Order => "order",
            Self::Waker => "waker",
            Self::DeniedFor => "denied_for",
        }
    }
}

/// How often code of the user's has panicked, by [`Hook`].
#[derive(Debug, Default)]
pub(crate) struct HookPanics([AtomicU64; 8]);

impl HookPanics {
    #[cfg(any(test, feature = "metrics"))]
    pub(crate) fn get(&self, hook: Hook) -> u64 {
        self.0[hook as usize].load(Ordering::Relaxed)
    }

    /// What `work` returns; nothing if it panics.
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
}

fn reason(cause: &(dyn Any + Send)) -> &str {
    cause
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| cause.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

/// A closure, by its address, and whatever else tells one call of it from another.
pub(crate) type Call = (usize, u64);

thread_local! {
    /// What this thread stands in.
    static RUNNING: RefCell<Vec<Call>> = const { RefCell::new(Vec::new()) };
}

/// Whether this thread is in such a call: then it has called the manager back, which must not begin
/// it again.
pub(crate) fn is_running(call: Call) -> bool {
    RUNNING
        .try_with(|running| running.borrow().contains(&call))
        .unwrap_or(false)
}

/// What `work` returns; nothing, and it does not run, if this thread is in such a call already.
pub(crate) fn once<T>(call: Call, work: impl FnOnce() -> T) -> Option<T> {
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            let _ = RUNNING.try_with(|running| running.borrow_mut().pop());
        }
    }
    if is_running(call) {
        return None;
    }
    let _ends = RUNNING
        .try_with(|running| running.borrow_mut().push(call))
        .ok()
        .map(|()| Ends);
    Some(work())
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
        let panics = HookPanics::default();
        assert_eq!(panics.call(Hook::Decay, || 7), Some(7));
        assert_eq!(panics.call(Hook::Decay, || panic!("text")), None::<()>);
        assert_eq!(panics.call(Hook::Decay, || panic!("with {}", 1)), None::<()>);
        assert_eq!(panics.call(Hook::Decay, || std::panic::panic_any(Bomb(3))), None::<()>);
        for hook in Hook::ALL {
            assert_eq!(panics.get(hook), if hook == Hook::Decay { 3 } else { 0 }, "{hook:?}");
        }
    }

    #[test]
    fn every_hook_has_a_name_and_a_place_of_its_own() {
        for (at, hook) in Hook::ALL.into_iter().enumerate() {
            assert_eq!(hook as usize, at);
            assert!(Hook::ALL[..at].iter().all(|other| other.name() != hook.name()));
        }
    }

    #[test]
    fn a_call_runs_once_at_a_time_on_a_thread_and_again_after_a_panic() {
        let (one, other) = ((1, 0), (1, 1));
        let within = once(one, || {
            assert_eq!(once(one, || ()), None);
            once(other, || std::thread::spawn(move || once(one, || 3)).join().unwrap())
        });
        assert_eq!(within, Some(Some(Some(3))));
        assert!(catch_unwind(|| once(one, || panic!("text"))).is_err());
        assert_eq!(once(one, || 4), Some(4));
    }
}
