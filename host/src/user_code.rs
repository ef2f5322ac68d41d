//! Code of the application's that tasks and polls of ours call. A panic in it ends here: it is
//! caught, counted and logged.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

/// Where a host calls code of its application's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hook {
    /// [`HostConfig::with_admission`](crate::HostConfig::with_admission). A panic denies. Panics in
    /// hooks of the knock's configuration are counted by the transport.
    Admission,
    /// [`Discoverer::find_peer`](crate::discovery::Discoverer::find_peer). A panic finds no
    /// address.
    FindPeer,
    /// [`Discoverer::close`](crate::discovery::Discoverer::close), and the drop of its future and
    /// of the discoverer. A panic counts as the end of the close.
    CloseDiscoverer,
    /// A [`Database`](crate::discovery::ragedisco::Database). A panic counts as an error of the
    /// call.
    Database,
    /// [`Identity::sign`](libp2p_knock::Identity::sign), for an announcement. A panic counts as an
    /// error of the call.
    Sign,
    /// Code of the knock's configuration, in a dial or in an inbound handshake, whose panic the
    /// transport has not caught itself. It fails the connection at hand. Also what an error of such
    /// code says of itself, for the log.
    Handshake,
    /// The [`Waker`](std::task::Waker) of a task that waits for a message, or of the Swarm. The
    /// task is not woken.
    Waker,
    /// The owner of a message's bytes ([`Bytes::from_owner`](bytes::Bytes::from_owner)), when they
    /// are dropped.
    Payload,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Admission,
        Self::FindPeer,
        Self::CloseDiscoverer,
        Self::Database,
        Self::Sign,
        Self::Handshake,
        Self::Waker,
        Self::Payload,
    ];

    /// The label of the metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::FindPeer => "find_peer",
            Self::CloseDiscoverer => "close_discoverer",
            Self::Database => "database",
            Self::Sign => "sign",
            Self::Handshake => "handshake",
            Self::Waker => "waker",
            Self::Payload => "payload",
        }
    }
}

/// How often code of the application's has panicked, by [`Hook`].
#[derive(Debug, Default)]
pub struct HookPanics([AtomicU64; Hook::ALL.len()]);

impl HookPanics {
    /// The panics at `hook` so far.
    pub fn get(&self, hook: Hook) -> u64 {
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

    fn caught(&self, hook: Hook, cause: Box<dyn Any + Send>) {
        let before = self.0[hook as usize].fetch_add(1, Ordering::Relaxed);
        let (name, reason) = (hook.name(), reason(&*cause));
        if before == 0 {
            tracing::error!(
                hook = name,
                reason,
                "code of the application's panicked; further panics here are logged at debug"
            );
        } else {
            tracing::debug!(hook = name, reason, "code of the application's panicked");
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

/// A future of the application's: nothing if it panics, whether it is polled or dropped.
pub(crate) struct Caught<'a, F> {
    panics: &'a HookPanics,
    hook: Hook,
    future: Option<Pin<Box<F>>>,
}

impl HookPanics {
    /// What `future` comes to; nothing if it panics.
    pub(crate) fn poll<F: Future>(&self, hook: Hook, future: F) -> Caught<'_, F> {
        let (panics, future) = (self, Some(Box::pin(future)));
        Caught { panics, hook, future }
    }
}

impl<F: Future> Future for Caught<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(future) = &mut this.future else {
            return Poll::Ready(None);
        };
        match this.panics.call(this.hook, || future.as_mut().poll(cx)) {
            Some(polled) => polled.map(Some),
            None => Poll::Ready(None),
        }
    }
}

impl<F> Drop for Caught<'_, F> {
    fn drop(&mut self) {
        let future = self.future.take();
        self.panics.call(self.hook, || drop(future));
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
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
        assert_eq!(panics.call(Hook::FindPeer, || 7), Some(7));
        assert_eq!(panics.call(Hook::FindPeer, || panic!("text")), None::<()>);
        assert_eq!(panics.call(Hook::FindPeer, || panic!("with {}", 1)), None::<()>);
        assert_eq!(
            panics.call(Hook::FindPeer, || std::panic::panic_any(Bomb(3))),
            None::<()>
        );
        let counted = Hook::ALL.map(|hook| (hook, panics.get(hook)));
        for (hook, count) in counted {
            assert_eq!(count, if hook == Hook::FindPeer { 3 } else { 0 }, "{hook}");
        }
    }

    #[test]
    fn every_hook_has_a_name_and_a_place_of_its_own() {
        for (at, hook) in Hook::ALL.into_iter().enumerate() {
            assert_eq!(hook as usize, at);
            assert!(Hook::ALL[..at].iter().all(|other| other.name() != hook.name()));
        }
    }

    #[tokio::test]
    async fn a_future_may_panic_when_it_is_polled_and_when_it_is_dropped() {
        let panics = HookPanics::default();
        assert_eq!(panics.poll(Hook::CloseDiscoverer, async { 7 }).await, Some(7));
        let first = panics.poll(Hook::CloseDiscoverer, async { panic!("polled") });
        assert_eq!(first.await, None::<()>);
        assert_eq!(panics.get(Hook::CloseDiscoverer), 1);
        let bomb = Bomb(1);
        drop(panics.poll(Hook::CloseDiscoverer, async move { drop(bomb) }));
        assert_eq!(panics.get(Hook::CloseDiscoverer), 2);
    }
}
