//! A steady rate.

use std::time::{Duration, Instant};

/// Says when the next thing is due. One that falls behind catches up, but by no more than a few milliseconds' worth: a
/// thread that was kept waiting must not turn a flood into a burst.
#[derive(Debug)]
pub struct Pace {
    step: Duration,
    next: Instant,
}

const SLACK: Duration = Duration::from_millis(5);

impl Pace {
    /// So many a second; as fast as can be when that is not a positive number.
    pub fn new(per_second: f64) -> Self {
        let step = if per_second > 0.0 { 1.0 / per_second } else { 0.0 };
        Self {
            step: Duration::try_from_secs_f64(step).unwrap_or(Duration::MAX / 4),
            next: Instant::now(),
        }
    }

    /// How long to wait for the next thing, which is counted as done then.
    fn take(&mut self, now: Instant) -> Duration {
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let due = self.next.max(earliest);
        self.next = due.checked_add(self.step).unwrap_or(due);
        due.saturating_duration_since(now)
    }

    /// Waits on a thread.
    pub fn wait_blocking(&mut self) {
        let wait = self.take(Instant::now());
        // The kernel's timer is no finer, and a sleep for each of 20,000 a second would be the load.
        if wait > Duration::from_micros(500) {
            std::thread::sleep(wait);
        }
    }

    /// Waits on a task.
    pub async fn wait(&mut self) {
        let wait = self.take(Instant::now());
        if wait > Duration::from_millis(1) {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_due_at_the_rate_and_a_pause_is_not_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace::new(250.0);
        pace.next = start;
        let waits: Vec<_> = (0..3).map(|_| pace.take(start).as_millis()).collect();
        assert_eq!(waits, [0, 4, 8]);
        let later = start + Duration::from_secs(60);
        let at_once = (0..10).filter(|_| pace.take(later).is_zero()).count();
        assert_eq!(at_once, 2);
    }
}
