//! What is counted for one connection. Pure: whoever counts brings the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use web_time::Instant;

/// The streams and the last activity of one connection. Cheap to clone; outlives the connection, and then shows no stream.
///
/// Reading takes three relaxed loads and never waits. The three are not one moment's: a stream that opens meanwhile may
/// be in one of them and not in another.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    /// Where the clock of `last` begins.
    origin: Instant,
    inbound: AtomicU32,
    outbound: AtomicU32,
    /// Whole seconds since `origin`.
    last: AtomicU32,
}

/// Who opened a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opener {
    Remote,
    Local,
}

impl Activity {
    /// A connection without a stream, active `now`. Times count from `origin`, which is to be the same for all of them.
    pub(crate) fn new(origin: Instant, now: Instant) -> Self {
        let this = Self(Arc::new(Counters {
            origin,
            inbound: AtomicU32::new(0),
            outbound: AtomicU32::new(0),
            last: AtomicU32::new(0),
        }));
        this.touch(now);
        this
    }

    /// Open streams that the other end opened.
    pub fn inbound(&self) -> u32 {
        self.0.inbound.load(Ordering::Relaxed)
    }

    /// Open streams that we opened.
    pub fn outbound(&self) -> u32 {
        self.0.outbound.load(Ordering::Relaxed)
    }

    /// All open streams.
    pub fn streams(&self) -> u32 {
        self.inbound().saturating_add(self.outbound())
    }

    /// When a stream last carried a byte either way, or was closed; to the second, rounded down. At
    /// first, when the connection was made. Streams that only keep the connection alive do not
    /// count.
    pub fn last(&self) -> Instant {
        let since = Duration::from_secs(self.0.last.load(Ordering::Relaxed).into());
        self.0.origin.checked_add(since).unwrap_or(self.0.origin)
    }

    /// One more stream, which has carried nothing yet.
    pub(crate) fn count(&self, by: Opener) {
        self.counter(by).fetch_add(1, Ordering::Relaxed);
    }

    /// One less, or one that turned out not to count.
    pub(crate) fn discount(&self, by: Opener) {
        self.counter(by).fetch_sub(1, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn opened(&self, by: Opener, now: Instant) {
        self.count(by);
        self.touch(now);
    }

    #[cfg(test)]
    pub(crate) fn closed(&self, by: Opener, now: Instant) {
        self.discount(by);
        self.touch(now);
    }

    /// Writes at most once a second, so that busy streams on several threads do not pass the cache line around.
    pub(crate) fn touch(&self, now: Instant) {
        let since = now.saturating_duration_since(self.0.origin).as_secs();
        let since = u32::try_from(since).unwrap_or(u32::MAX);
        if self.0.last.load(Ordering::Relaxed) < since {
            self.0.last.fetch_max(since, Ordering::Relaxed);
        }
    }

    fn counter(&self, by: Opener) -> &AtomicU32 {
        match by {
            Opener::Remote => &self.0.inbound,
            Opener::Local => &self.0.outbound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_counted_by_who_opened_them() {
        let start = Instant::now();
        let activity = Activity::new(start, start);
        activity.opened(Opener::Remote, start);
        activity.opened(Opener::Remote, start);
        activity.opened(Opener::Local, start);
        assert_eq!((activity.inbound(), activity.outbound(), activity.streams()), (2, 1, 3));
        activity.closed(Opener::Remote, start);
        activity.closed(Opener::Local, start);
        assert_eq!((activity.inbound(), activity.outbound(), activity.streams()), (1, 0, 1));
    }

    #[test]
    fn the_last_activity_is_known_to_the_second_and_never_goes_back() {
        let start = Instant::now();
        let activity = Activity::new(start, start);
        assert_eq!(activity.last(), start);
        activity.touch(start + Duration::from_millis(2_900));
        assert_eq!(activity.last(), start + Duration::from_secs(2));
        activity.touch(start + Duration::from_secs(1));
        assert_eq!(activity.last(), start + Duration::from_secs(2));
        activity.opened(Opener::Local, start + Duration::from_secs(5));
        assert_eq!(activity.last(), start + Duration::from_secs(5));
        activity.closed(Opener::Local, start + Duration::from_secs(9));
        assert_eq!(activity.last(), start + Duration::from_secs(9));
    }

    #[test]
    fn a_connection_begins_with_its_own_time_not_with_the_first_ones() {
        let start = Instant::now();
        let later = start + Duration::from_secs(3_600);
        assert_eq!(Activity::new(start, later).last(), later);
    }
}
