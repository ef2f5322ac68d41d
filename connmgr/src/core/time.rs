//! Time as the book counts it: nanoseconds since the manager was made, from a clock that tests may own.

use crate::user_code::{Hook, HookPanics, once};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use web_time::Instant;

/// A moment, in nanoseconds since the manager was made. Earlier ones are 0; after 584 years it stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Stamp(pub(crate) u64);

impl Stamp {
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

/// Saturates: whoever configures a thousand years gets 584.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

type Now = Arc<dyn Fn() -> Instant + Send + Sync>;

/// Where the time comes from.
#[derive(Clone)]
pub(crate) struct Clock {
    epoch: Instant,
    own: Option<Own>,
}

/// A clock of the user's.
#[derive(Clone)]
struct Own {
    now: Now,
    /// The latest time that it told, which it does not go behind.
    latest: Arc<AtomicU64>,
    panics: Arc<HookPanics>,
}

/// The time of one call to the book. A clock of the user's is asked before the call locks anything,
/// the platform's only when the call needs it.
#[derive(Clone, Copy)]
pub(crate) struct Moment<'a> {
    clock: &'a Clock,
    asked: Option<Stamp>,
}

impl Moment<'_> {
    pub(crate) fn now(self) -> Stamp {
        self.asked.unwrap_or_else(|| self.clock.stamp(Instant::now()))
    }
}

impl Clock {
    pub(crate) fn new(now: Option<Now>) -> Self {
        let epoch = now.as_ref().map_or_else(Instant::now, |now| now());
        let own = now.map(|now| Own {
            now,
            latest: Arc::default(),
            panics: Arc::default(),
        });
        Self { epoch, own }
    }

    /// The same clock, which counts its panics there.
    pub(crate) fn counting(mut self, panics: &Arc<HookPanics>) -> Self {
        if let Some(own) = &mut self.own {
            own.panics = panics.clone();
        }
        self
    }

    /// Not to be called under a lock: see [`Self::moment`].
    pub(crate) fn now(&self) -> Stamp {
        self.moment().now()
    }

    pub(crate) fn moment(&self) -> Moment<'_> {
        Moment {
            clock: self,
            asked: self.own.as_ref().map(|own| self.ask(own)),
        }
    }

    /// A clock that panics, goes back, or asks the manager for the time stands still.
    fn ask(&self, own: &Own) -> Stamp {
        let call = (Arc::as_ptr(&own.now).addr(), 0);
        let told = once(call, || own.panics.call(Hook::Clock, || (own.now)()));
        let told = told.flatten().map_or(0, |told| self.stamp(told).0);
        Stamp(own.latest.fetch_max(told, Ordering::Relaxed).max(told))
    }

    pub(crate) fn stamp(&self, instant: Instant) -> Stamp {
        Stamp(nanos(instant.saturating_duration_since(self.epoch)))
    }

    /// The moment as the platform counts it; one that the platform cannot express becomes the manager's first.
    pub(crate) fn instant(&self, stamp: Stamp) -> Instant {
        self.epoch
            .checked_add(Duration::from_nanos(stamp.0))
            .unwrap_or(self.epoch)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock")
            .field("own", &self.own.is_some())
            .finish_non_exhaustive()
    }
}
