//! Times that a configuration may put beyond what a clock can show.

use std::time::{Duration, Instant};

/// As good as never: thirty years.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// `by` after `at`, or thirty years after it where no clock shows that.
pub(crate) fn later(at: Instant, by: Duration) -> Instant {
    let sum = at.checked_add(by).or_else(|| at.checked_add(FOR_EVER));
    sum.unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_clock_shows_is_as_good_as_never() {
        let now = Instant::now();
        assert_eq!(later(now, Duration::from_secs(7)), now + Duration::from_secs(7));
        assert_eq!(later(now, Duration::MAX), now + FOR_EVER);
        let mut at = now;
        for _ in 0..1000 {
            at = later(at, Duration::MAX);
        }
        assert!(at > now + FOR_EVER);
    }
}
