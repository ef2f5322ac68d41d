//! What time it is, by the clocks that matter for knocks.

use crate::silence::replay::Moment;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use web_time::{Instant, SystemTime, UNIX_EPOCH};

/// The wall clock, which may be wrong and may be set, and how long this process has run, which cannot.
#[derive(Clone)]
pub(crate) struct Clock(Arc<dyn Fn() -> Moment + Send + Sync>);

impl Clock {
    pub(crate) fn system() -> Self {
        Self::of(SystemTime::now)
    }

    pub(crate) fn of(wall: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        // The process begins now at the latest.
        let _ = age();
        Self(Arc::new(move || {
            Moment::new(milliseconds(wall()), age(), Instant::now())
        }))
    }

    /// Nothing of it is the system's: `time` says what the wall clock shows and how long this process has run.
    #[cfg(feature = "internals")]
    pub(crate) fn of_both(time: impl Fn() -> (SystemTime, Duration) + Send + Sync + 'static) -> Self {
        let start = Instant::now();
        Self(Arc::new(move || {
            let (wall, age) = time();
            Moment::new(milliseconds(wall), age, start + age)
        }))
    }

    pub(crate) fn now(&self) -> Moment {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// The wall clock shows no time that a knock could be made at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the clock shows no time: it panicked, or it shows one before 1970")]
pub(crate) struct NoTime;

fn milliseconds(wall: SystemTime) -> u64 {
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How long ago this process first asked, time asleep included where the system can tell. Where it cannot, the answer
/// may be too small after a sleep: what was recorded before the sleep is then refused too.
fn age() -> Duration {
    static START: OnceLock<Duration> = OnceLock::new();
    let now = since_some_start();
    now.saturating_sub(*START.get_or_init(|| now))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn since_some_start() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn since_some_start() -> Duration {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_the_process_follows_the_wall_clock_when_that_is_set() {
        let clock = Clock::system();
        let now = clock.now();
        assert!(now.boot <= now.wall && now.wall - now.boot < 3_600_000, "{now:?}");
        let ahead = Clock::of(|| SystemTime::now() + Duration::from_secs(3600)).now();
        assert!(ahead.boot >= now.boot + 3_600_000, "{ahead:?}");
    }

    #[test]
    fn a_clock_before_1970_is_no_reason_to_panic() {
        assert_eq!(Clock::of(|| UNIX_EPOCH - Duration::from_secs(1)).now().wall, 0);
    }
}
