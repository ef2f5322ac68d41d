//! Tags whose value changes by itself, worked out when somebody looks.
//!
//! A tag ticks on a grid: the manager's resolution divides time into rounds, and a tag is visited in the first round that
//! begins at or after each multiple of its interval. How often it was visited by any moment is arithmetic, so no
//! timer runs and no tag is touched between two reads, however many there are.

use super::time::{Stamp, nanos};
use crate::decay::{Bump, Decay, DecayKind};
use smol_str::SmolStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Most visits that are worked out one by one in one read. What lies beyond is one power for linear decay, and left
/// out for a closure: somebody who looks once a year must not pay for the year.
pub(crate) const MAX_STEPS: u64 = 4_096;

/// A registered tag.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) name: SmolStr,
    /// At least `resolution`.
    interval: u64,
    resolution: u64,
    /// On the grid.
    start: Stamp,
    pub(crate) decay: Decay,
    pub(crate) bump: Bump,
    pub(crate) closed: AtomicBool,
}

impl Definition {
    /// An interval below the resolution is raised to it.
    pub(crate) fn new(
        name: &str,
        interval: Duration,
        resolution: Duration,
        decay: Decay,
        bump: Bump,
        now: Stamp,
    ) -> Self {
        let resolution = nanos(resolution).max(1);
        Self {
            name: SmolStr::new(name),
            interval: nanos(interval).max(resolution),
            resolution,
            start: Stamp(now.0 / resolution * resolution),
            decay,
            bump,
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval)
    }

    /// How often it was visited by `now`.
    pub(crate) fn visits(&self, now: Stamp) -> u64 {
        let round = now.0 / self.resolution * self.resolution;
        round.saturating_sub(self.start.0) / self.interval
    }

    /// When it was visited for the `n`th time.
    pub(crate) fn visited_at(&self, n: u64) -> Stamp {
        let due = u128::from(self.start.0) + u128::from(n) * u128::from(self.interval);
        let round = due.div_ceil(u128::from(self.resolution)) * u128::from(self.resolution);
        Stamp(u64::try_from(round).unwrap_or(u64::MAX))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// One peer's value under one tag.
#[derive(Debug, Clone)]
pub(crate) struct Decaying {
    pub(crate) tag: Arc<Definition>,
    pub(crate) value: i64,
    /// How many visits of the tag are in `value`.
    pub(crate) visits: u64,
    pub(crate) added: Stamp,
    pub(crate) bumped: Stamp,
}

impl Decaying {
    pub(crate) fn new(tag: Arc<Definition>, now: Stamp) -> Self {
        let visits = tag.visits(now);
        Self {
            tag,
            value: 0,
            visits,
            added: now,
            bumped: now,
        }
    }

    /// Brings the value up to `now`; false if nothing is left of it. A closure is not called here, under the book's lock:
    /// see [`Self::is_due`].
    pub(crate) fn advance(&mut self, now: Stamp) -> bool {
        if self.tag.is_closed() {
            return false;
        }
        let visits = self.tag.visits(now);
        let missed = visits.saturating_sub(self.visits);
        if missed == 0 || matches!(self.tag.decay.0, DecayKind::Custom(_)) {
            return true;
        }
        self.visits = visits;
        let left = match &self.tag.decay.0 {
            DecayKind::None | DecayKind::Custom(_) => Some(self.value),
            DecayKind::Fixed(by) => fixed(self.value, *by, missed),
            DecayKind::Linear(by) => linear(self.value, *by, missed),
            DecayKind::ExpireWhenInactive(after) => {
                (self.tag.visited_at(visits).since(self.bumped) < *after).then_some(self.value)
            }
        };
        self.value = left.unwrap_or(0);
        left.is_some()
    }

    /// Whether a closure has to be asked before the value is that of `now`.
    pub(crate) fn is_due(&self, now: Stamp) -> bool {
        matches!(self.tag.decay.0, DecayKind::Custom(_)) && !self.tag.is_closed() && self.tag.visits(now) > self.visits
    }

    /// Whether this is still what `other` was copied from.
    pub(crate) fn is_unchanged(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tag, &other.tag)
            && (self.value, self.visits, self.bumped) == (other.value, other.visits, other.bumped)
    }
}

/// `missed` times minus `by`; gone once a visit leaves nothing above zero.
fn fixed(value: i64, by: i64, missed: u64) -> Option<i64> {
    let last = i128::from(value) - i128::from(by) * i128::from(missed);
    // It only falls, so the last visit decides.
    i64::try_from(last).ok().filter(|last| *last > 0)
}

/// `missed` times rounded down after multiplying by `by`; gone once a visit leaves nothing above zero.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // A float saturates when it becomes an i64.
fn linear(mut value: i64, by: f64, missed: u64) -> Option<i64> {
    for _ in 0..missed.min(MAX_STEPS) {
        let next = (value as f64 * by).floor() as i64;
        if next <= 0 {
            return None;
        }
        if next == value {
            return Some(value);
        }
        value = next;
    }
    let rest = i32::try_from(missed.saturating_sub(MAX_STEPS)).unwrap_or(i32::MAX);
    let value = if rest == 0 {
        value
    } else {
        (value as f64 * by.powi(rest)).floor() as i64
    };
    (value > 0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step_by_step(value: i64, missed: u64, step: impl Fn(i64) -> i64) -> Option<i64> {
        let mut value = value;
        for _ in 0..missed {
            value = step(value);
            if value <= 0 {
                return None;
            }
        }
        Some(value)
    }

    #[test]
    fn fixed_decay_at_once_is_fixed_decay_step_by_step() {
        for value in [-5, 0, 1, 9, 10, 11, 100, i64::MAX] {
            for by in [0, 1, 7, 10, i64::MAX] {
                for missed in 1..40 {
                    let expected = step_by_step(value, missed, |v| v.saturating_sub(by));
                    assert_eq!(fixed(value, by, missed), expected, "{value} - {by} * {missed}");
                }
            }
        }
    }

    #[test]
    fn linear_decay_at_once_is_linear_decay_step_by_step() {
        for value in [-5, 0, 1, 2, 999, 1_000_000, i64::MAX] {
            for by in [0.0, 0.1, 0.5, 0.99, 1.0] {
                for missed in 1..40 {
                    let expected = step_by_step(value, missed, |v| (v as f64 * by).floor() as i64);
                    assert_eq!(linear(value, by, missed), expected, "{value} * {by}^{missed}");
                }
            }
        }
    }

    #[test]
    fn centuries_of_missed_visits_cost_no_more_than_a_bounded_number() {
        assert_eq!(linear(i64::MAX, 0.999_999, u64::MAX), None);
        assert_eq!(linear(i64::MAX, 1.0, u64::MAX), Some(i64::MAX));
        assert_eq!(fixed(i64::MAX, 1, u64::MAX), None);
        assert_eq!(fixed(1, 0, u64::MAX), Some(1));
    }

    #[test]
    fn visits_fall_on_the_grid() {
        let at = |ms: u64| Stamp(ms * 1_000_000);
        let tag = Definition::new(
            "tag",
            Duration::from_millis(70),
            Duration::from_millis(50),
            Decay::none(),
            Bump::overwrite(),
            at(20),
        );
        // 1.4 rounds: visited in rounds 2, 3, 5, 6 and 7.
        let visits: Vec<_> = (0..=7).map(|round| tag.visits(at(round * 50))).collect();
        assert_eq!(visits, [0, 0, 1, 2, 2, 3, 4, 5]);
        assert_eq!(
            [1, 2, 3, 4, 5].map(|n| tag.visited_at(n)),
            [100, 150, 250, 300, 350].map(at)
        );
        assert_eq!(tag.visits(at(99)), 0);
    }
}
