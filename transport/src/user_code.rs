//! The user's code that runs on a task of ours. A panic in it is caught, counted, and logged once
//! for each hook.
//!
//! The caller turns a caught panic into a denial, or into the default that its documentation names.
//! No lock of ours is held while the user's code runs, but for the one round the inner transport.

use crate::config::Denial;
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A closure or a trait object of the user's, by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Admission,
    Secured,
    Clock,
    KeyLog,
    Sign,
    Agree,
    /// The inner transport's upgrade of an accepted socket, and that socket while it is read here.
    Inner,
}

impl Hook {
    pub(crate) const ALL: [Self; 7] = [
        Self::Admission,
        Self::Secured,
        Self::Clock,
        Self::KeyLog,
        Self::Sign,
        Self::Agree,
        Self::Inner,
    ];

    /// As metrics, logs and errors name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Secured => "secured",
            Self::Clock => "clock",
            Self::KeyLog => "key_log",
            Self::Sign => "sign",
            Self::Agree => "agree",
            Self::Inner => "inner",
        }
    }
}

/// A hook of the user's panicked. It counts as a denial; the panic itself went no further.
///
/// It is the source of [`Error::Denied`](crate::Error::Denied) and
/// [`Error::Sign`](crate::Error::Sign) when the hook, or the identity, is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {hook} hook panicked")]
pub struct HookPanicked {
    hook: &'static str,
}

impl HookPanicked {
    /// Which hook, by its name in the metric `hook_panics`.
    pub fn hook(&self) -> &'static str {
        self.hook
    }
}

/// Runs the user's code for one configuration and all its clones, and counts how often it panicked.
#[derive(Clone, Default)]
pub(crate) struct UserCode(Arc<[AtomicU64; Hook::ALL.len()]>);

impl UserCode {
    /// What `code` returns.
    ///
    /// # Errors
    ///
    /// [`HookPanicked`] if it panicked.
    pub(crate) fn run<T>(&self, hook: Hook, code: impl FnOnce() -> T) -> Result<T, HookPanicked> {
        catch_unwind(AssertUnwindSafe(code)).map_err(|panic| self.caught(hook, panic))
    }

    /// What `policy` says. A panic is a denial.
    pub(crate) fn ask(&self, hook: Hook, policy: impl FnOnce() -> Result<(), Denial>) -> Result<(), Denial> {
        self.run(hook, policy).unwrap_or_else(|panicked| Err(panicked.into()))
    }

    /// Counts a panic that was caught elsewhere.
    pub(crate) fn caught(&self, hook: Hook, panic: Box<dyn Any + Send>) -> HookPanicked {
        let said = said(&*panic);
        let (hook, first) = (hook.name(), self.0[hook as usize].fetch_add(1, Ordering::Relaxed) == 0);
        if first {
            tracing::error!(hook, panic = said, "a hook panicked: that counts as a denial");
        } else {
            tracing::debug!(hook, panic = said, "a hook panicked again");
        }
        discard(panic);
        HookPanicked { hook }
    }

    /// How often this hook panicked.
    #[cfg(any(test, feature = "metrics"))]
    pub(crate) fn panics(&self, hook: Hook) -> u64 {
        self.0[hook as usize].load(Ordering::Relaxed)
    }
}

impl fmt::Debug for UserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserCode")
    }
}

/// Drops what a panic carried. That is the user's too, and may panic in turn.
pub(crate) fn discard(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    if let Some(said) = panic.downcast_ref::<&str>() {
        said
    } else {
        panic.downcast_ref::<String>().map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::panic_any;

    /// As unpleasant as a panic can be.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    #[test]
    fn a_panic_is_caught_and_counted_for_its_hook_whatever_it_carries() {
        let user_code = UserCode::default();
        assert_eq!(user_code.run(Hook::Clock, || 7), Ok(7));
        let panics: [fn(); 3] = [|| panic!("a text"), || panic!("a number: {}", 7), || panic_any(Bomb)];
        for (n, panics) in panics.into_iter().enumerate() {
            let panicked = user_code.run(Hook::Clock, panics).expect_err("panicked");
            assert_eq!(
                (panicked.hook(), panicked.to_string().as_str()),
                ("clock", "the clock hook panicked")
            );
            assert_eq!(user_code.clone().panics(Hook::Clock), n as u64 + 1);
        }
        let denial = user_code.ask(Hook::Admission, || panic!("a text")).expect_err("denied");
        assert!(denial.downcast_ref::<HookPanicked>().is_some());
        assert_eq!(user_code.panics(Hook::Admission), 1);
    }

    #[test]
    fn every_hook_has_a_counter_and_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = Hook::ALL.iter().map(|hook| hook.name()).collect();
        assert_eq!(names.len(), Hook::ALL.len());
        assert!(Hook::ALL.iter().enumerate().all(|(n, hook)| *hook as usize == n));
    }
}
