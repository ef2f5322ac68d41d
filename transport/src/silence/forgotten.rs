//! Times of knocks that were answered and are not remembered any more: none of such a time is answered again.
//!
//! Kept as ranges that hold them all, not as one floor below which nothing is taken: where a clock was ahead for a while, knocks
//! of that time are forgotten too, and a floor would keep everybody out until the world has caught up with it.

use super::replay::WINDOW;

/// Ranges that are kept, at most.
const MOST: usize = 16;
/// Times that are no further apart are of one range. While a clock is left alone there is one that ends where the window
/// begins.
const APART: u64 = 2 * WINDOW;

/// See the module. Sorted, and none touches another.
#[derive(Debug, Default)]
pub(super) struct Forgotten(Vec<Range>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
}

impl Forgotten {
    /// One of this time is not remembered any more.
    pub(super) fn insert(&mut self, time: u64) {
        let at = self.0.partition_point(|range| range.last.saturating_add(APART) < time);
        match self.0.get_mut(at) {
            Some(range) if range.first <= time.saturating_add(APART) => {
                range.first = range.first.min(time);
                range.last = range.last.max(time);
            }
            _ => self.0.insert(
                at,
                Range {
                    first: time,
                    last: time,
                },
            ),
        }
        // What it was extended to may reach the next one.
        while let Some([this, next]) = self.0.get(at..at + 2)
            && next.first <= this.last.saturating_add(APART)
        {
            self.join(at);
        }
        if self.0.len() > MOST {
            // It refuses too much then, and too little never.
            let gaps = self.0.windows(2).map(|pair| pair[1].first - pair[0].last);
            if let Some((at, _)) = gaps.enumerate().min_by_key(|(_, gap)| *gap) {
                self.join(at);
            }
        }
    }

    pub(super) fn contains(&self, time: u64) -> bool {
        let at = self.0.partition_point(|range| range.last < time);
        self.0.get(at).is_some_and(|range| range.first <= time)
    }

    /// A range with the one behind it.
    fn join(&mut self, at: usize) {
        let next = self.0.remove(at + 1);
        self.0[at].last = self.0[at].last.max(next.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: u64 = 3_600_000;

    #[test]
    fn times_of_a_clock_that_is_left_alone_are_one_range() {
        let mut forgotten = Forgotten::default();
        for minute in 1..1000 {
            forgotten.insert(minute * 60_000);
        }
        assert_eq!(
            forgotten.0,
            [Range {
                first: 60_000,
                last: 999 * 60_000
            }]
        );
    }

    #[test]
    fn between_two_times_far_from_each_other_nothing_is_forgotten() {
        let mut forgotten = Forgotten::default();
        for time in [HOUR, 9 * HOUR, 5 * HOUR, 9 * HOUR + APART] {
            forgotten.insert(time);
        }
        for (time, known) in [
            (HOUR - 1, false),
            (HOUR, true),
            (HOUR + 1, false),
            (5 * HOUR, true),
            (9 * HOUR - 1, false),
            (9 * HOUR + 1, true),
            (9 * HOUR + APART, true),
            (9 * HOUR + APART + 1, false),
        ] {
            assert_eq!(forgotten.contains(time), known, "{time}");
        }
    }

    #[test]
    fn what_closes_a_gap_makes_one_range_of_two() {
        let mut forgotten = Forgotten::default();
        for time in [HOUR, HOUR + 2 * APART, HOUR + APART] {
            forgotten.insert(time);
        }
        assert_eq!(
            forgotten.0,
            [Range {
                first: HOUR,
                last: HOUR + 2 * APART
            }]
        );
    }

    #[test]
    fn where_there_are_too_many_the_nearest_become_one() {
        let mut forgotten = Forgotten::default();
        for n in 0..MOST as u64 {
            forgotten.insert(n * HOUR);
        }
        forgotten.insert(100 * HOUR);
        assert_eq!(forgotten.0.len(), MOST);
        assert!(!forgotten.contains(50 * HOUR));
        assert!((0..MOST as u64).all(|n| forgotten.contains(n * HOUR)));
    }

    proptest! {
        #[test]
        fn none_is_ever_lost_and_the_ranges_stay_apart(times in prop::collection::vec(0..100 * HOUR, 1..200)) {
            let mut forgotten = Forgotten::default();
            for (n, time) in times.iter().enumerate() {
                forgotten.insert(*time);
                prop_assert!(times[..=n].iter().all(|time| forgotten.contains(*time)));
                prop_assert!(forgotten.0.len() <= MOST);
                prop_assert!(forgotten.0.windows(2).all(|pair| pair[1].first > pair[0].last.saturating_add(APART)));
            }
        }
    }
}
