//! How much the other end may send on one stream before we have read it. Pure: the time comes in.

use std::time::Duration;
use web_time::Instant;

/// What every stream starts with, both ways (specification, "Flow Control").
pub(crate) const INITIAL: u32 = 256 * 1024;

/// What one end grants the other on one stream.
#[derive(Debug)]
pub(crate) struct Window {
    /// The most that may be under way or wait here.
    max: u32,
    /// What the other end may still send.
    left: u32,
    /// What has come and not been read.
    waiting: u32,
    updated: Instant,
}

/// What all windows of a connection may have beyond [`INITIAL`] each.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// Of one stream, [`INITIAL`] included.
    pub(crate) each: u32,
    /// Of all streams, [`INITIAL`] not included.
    pub(crate) rest: u32,
}

impl Window {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            max: INITIAL,
            left: INITIAL,
            waiting: 0,
            updated: now,
        }
    }

    /// `n` bytes are announced. False when that is more than was granted.
    #[must_use]
    pub(crate) fn take(&mut self, n: u32) -> bool {
        let Some(left) = self.left.checked_sub(n) else {
            return false;
        };
        self.left = left;
        self.waiting += n;
        true
    }

    /// `n` of the bytes that came have been read.
    pub(crate) fn read(&mut self, n: u32) {
        self.waiting = self.waiting.saturating_sub(n);
    }

    /// What to grant now: nothing until half the window is free, as each grant costs a frame.
    ///
    /// A sender that used up half a window within two round trips would be faster with a larger one: the window doubles,
    /// as far as the allowance goes. It is never made smaller. QUIC implementations do the same.
    pub(crate) fn grant(
        &mut self,
        now: Instant,
        round_trip: Option<Duration>,
        allowance: &mut Allowance,
    ) -> Option<u32> {
        let granted = self.left + self.waiting;
        if self.max - granted < self.max / 2 {
            return None;
        }
        let since = now.saturating_duration_since(self.updated);
        if round_trip.is_some_and(|round_trip| since < round_trip * 2) {
            let more = self
                .max
                .min(allowance.each.saturating_sub(self.max))
                .min(allowance.rest);
            allowance.rest -= more;
            self.max += more;
        }
        let credit = self.max - granted;
        self.left += credit;
        self.updated = now;
        Some(credit)
    }

    /// Whether half the window is free.
    pub(crate) fn is_due(&self) -> bool {
        self.max - (self.left + self.waiting) >= self.max / 2
    }

    /// Whether the other end has sent all that it may.
    pub(crate) fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// Gives back what the window took from the allowance.
    pub(crate) fn end(&mut self, allowance: &mut Allowance) {
        allowance.rest += self.max - INITIAL;
        self.max = INITIAL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(50);

    fn allowance(each: u32, rest: u32) -> Allowance {
        Allowance { each, rest }
    }

    #[test]
    fn a_grant_waits_until_half_the_window_is_free() {
        let start = Instant::now();
        let mut window = Window::new(start);
        let mut none = allowance(INITIAL, 0);
        assert!(window.take(INITIAL / 2));
        assert_eq!(window.grant(start, None, &mut none), None, "nothing has been read");
        window.read(INITIAL / 2 - 1);
        assert!(!window.is_due());
        assert_eq!(window.grant(start, None, &mut none), None);
        window.read(1);
        assert!(window.is_due());
        assert_eq!(window.grant(start, None, &mut none), Some(INITIAL / 2));
        assert!(window.take(INITIAL), "and all of it may come again");
        assert!(!window.take(1));
    }

    #[test]
    fn a_window_doubles_for_a_sender_that_is_held_up_by_it_and_for_no_other() {
        let start = Instant::now();
        let mut window = Window::new(start);
        let mut plenty = allowance(u32::MAX, 1 << 30);
        let mut fill = |window: &mut Window, n: u32, at: Duration, round_trip| {
            assert!(window.take(n));
            window.read(n);
            window.grant(start + at, round_trip, &mut plenty)
        };
        // In one round trip: twice the window, and what was used of the old one.
        let grant = fill(&mut window, INITIAL, ROUND_TRIP, Some(ROUND_TRIP));
        assert_eq!(grant, Some(2 * INITIAL));
        // In two: none.
        let grant = fill(&mut window, 2 * INITIAL, ROUND_TRIP * 3, Some(ROUND_TRIP));
        assert_eq!(grant, Some(2 * INITIAL));
        // As long as nobody knows how long a round trip is: none.
        let grant = fill(&mut window, 2 * INITIAL, ROUND_TRIP * 3, None);
        assert_eq!(grant, Some(2 * INITIAL));
        window.end(&mut plenty);
        assert_eq!(plenty.rest, 1 << 30, "what the window took comes back");
    }

    #[test]
    fn no_window_exceeds_what_one_stream_or_all_of_them_may_have() {
        let start = Instant::now();
        let fill = |window: &mut Window, allowance: &mut Allowance| {
            let n = window.left;
            assert!(window.take(n));
            window.read(n);
            window.grant(start, Some(ROUND_TRIP), allowance)
        };
        let mut each = allowance(INITIAL + 5, 1 << 30);
        let mut window = Window::new(start);
        assert_eq!(fill(&mut window, &mut each), Some(INITIAL + 5));
        assert_eq!(fill(&mut window, &mut each), Some(INITIAL + 5));

        let mut all = allowance(u32::MAX, 7);
        let (mut first, mut second) = (Window::new(start), Window::new(start));
        assert_eq!(fill(&mut first, &mut all), Some(INITIAL + 7));
        assert_eq!(fill(&mut second, &mut all), Some(INITIAL));
        first.end(&mut all);
        assert_eq!(fill(&mut second, &mut all), Some(INITIAL + 7));
    }
}
