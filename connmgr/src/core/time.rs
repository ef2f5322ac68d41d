//! Time as the book counts it: nanoseconds since the manager was made, from a clock that tests may own.

use std::fmt;
use std::sync::Arc;
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
    now: Option<Now>,
}

impl Clock {
    pub(crate) fn new(now: Option<Now>) -> Self {
        let epoch = now.as_ref().map_or_else(Instant::now, |now| now());
        Self { epoch, now }
    }

    pub(crate) fn now(&self) -> Stamp {
        self.stamp(self.now.as_ref().map_or_else(Instant::now, |now| now()))
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
            .field("own", &self.now.is_some())
            .finish_non_exhaustive()
    }
}
