//! Token buckets, with the arithmetic of the original to the last nano-token: whoever compares what both ends drop finds
//! no difference.

use super::frame::HEADER;
use crate::limits::{Limits, MAX_STREAM_NAME_LENGTH, MAX_STREAMS_PER_PEER, Rate};
use std::time::Instant;

const NANO: u64 = 1_000_000_000;

/// Level in nano-tokens, rate in milli-tokens per second: a microsecond is worth `rate` nano-tokens.
#[derive(Debug, Clone)]
pub(crate) struct TokenBucket {
    rate: u64,
    capacity: u32,
    level: u64,
    updated: Instant,
}

impl TokenBucket {
    /// Empty.
    pub(crate) fn new(rate: u64, capacity: u32, now: Instant) -> Self {
        Self {
            rate,
            capacity,
            level: 0,
            updated: now,
        }
    }

    pub(crate) fn full(rate: u64, capacity: u32, now: Instant) -> Self {
        let mut bucket = Self::new(rate, capacity, now);
        bucket.add(capacity);
        bucket
    }

    pub(crate) fn of(rate: Rate, now: Instant) -> Self {
        Self::full(millis(rate.per_second), rate.capacity, now)
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated);
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        // The rest of less than a microsecond counts next time.
        self.updated += std::time::Duration::from_micros(micros);
        let more = micros.saturating_mul(self.rate);
        let most = u64::from(self.capacity) * NANO;
        self.level = self.level.saturating_add(more).min(most);
    }

    /// Not held to the capacity before the next refill.
    pub(crate) fn add(&mut self, tokens: u32) {
        self.level = self.level.saturating_add(u64::from(tokens) * NANO);
    }

    /// Takes `tokens`, or everything that is there and says no.
    pub(crate) fn remove(&mut self, tokens: u32, now: Instant) -> bool {
        self.refill(now);
        let wanted = u64::from(tokens) * NANO;
        let enough = self.level >= wanted;
        self.level = if enough { self.level - wanted } else { 0 };
        enough
    }

    /// From now on; the time until now counts at the old rate. The level stays, within the new capacity.
    pub(crate) fn set(&mut self, rate: u64, capacity: u32, now: Instant) {
        self.refill(now);
        self.rate = rate;
        self.capacity = capacity;
    }
}

/// Whole thousandths of a token per second, rounded up.
pub(crate) fn millis(per_second: f64) -> u64 {
    // Saturates, and what is no rate was refused before.
    (per_second * 1000.0).ceil() as u64
}

/// What frames cost in TLS, at most.
const TLS_FACTOR: f64 = 1.5;

/// Opens and closes that a connection begins with, all streams with the longest name.
const NEW_CONNECTION: u32 = 586_000;

/// What comes over the wire of a peer's connections altogether, TLS included: the sum of what its streams allow, and
/// something for opens and closes. Belongs to the peer, not to a connection.
///
/// The original grants nothing for a new stream, so that one that uses its whole burst at once can cost the connection
/// (W4); here it brings its burst with it.
#[derive(Debug)]
pub(crate) struct WireBucket {
    bucket: TokenBucket,
    /// A sum was too large to compute with, once and for all.
    unlimited: bool,
}

impl WireBucket {
    pub(crate) fn new(now: Instant) -> Self {
        let mut this = Self {
            bucket: TokenBucket::new(0, 0, now),
            unlimited: false,
        };
        let streams = MAX_STREAMS_PER_PEER as f64;
        let control = Rate {
            per_second: streams / 600.0 * (HEADER + MAX_STREAM_NAME_LENGTH) as f64,
            capacity: NEW_CONNECTION,
        };
        let none = Rate {
            per_second: 0.0,
            capacity: 0,
        };
        this.change(delta(none, control), true, now);
        this
    }

    pub(crate) fn add_stream(&mut self, limits: &Limits, now: Instant) {
        let delta = delta(limits.messages, limits.bytes);
        self.change(delta, true, now);
        if let Some((_, capacity)) = delta {
            self.bucket.add(capacity);
        }
    }

    pub(crate) fn remove_stream(&mut self, limits: &Limits, now: Instant) {
        self.change(delta(limits.messages, limits.bytes), false, now);
    }

    /// Before anything is read from it.
    pub(crate) fn new_connection(&mut self, now: Instant) {
        self.bucket.refill(now);
        self.bucket.add(NEW_CONNECTION);
    }

    /// For a response of so many bytes, which no stream's limits allow for.
    pub(crate) fn expect_response(&mut self, bytes: usize) {
        let tokens = (bytes + 2 * HEADER) as f64 * TLS_FACTOR;
        self.bucket.add(tokens as u32);
    }

    /// Whether so many bytes may be read from the wire.
    pub(crate) fn take(&mut self, bytes: usize, now: Instant) -> bool {
        self.unlimited || u32::try_from(bytes).is_ok_and(|bytes| self.bucket.remove(bytes, now))
    }

    /// Tokens per second and capacity; infinite without a limit.
    pub(crate) fn limit(&self) -> (f64, f64) {
        if self.unlimited {
            return (f64::INFINITY, f64::INFINITY);
        }
        (self.bucket.rate as f64 / 1000.0, self.bucket.capacity.into())
    }

    fn change(&mut self, delta: Option<(u64, u32)>, add: bool, now: Instant) {
        let TokenBucket { rate, capacity, .. } = self.bucket;
        let changed = delta.and_then(|(more_rate, more_capacity)| {
            Some(if add {
                (rate.checked_add(more_rate)?, capacity.checked_add(more_capacity)?)
            } else {
                (rate.checked_sub(more_rate)?, capacity.checked_sub(more_capacity)?)
            })
        });
        match changed {
            Some((rate, capacity)) if !self.unlimited => self.bucket.set(rate, capacity, now),
            _ => self.unlimited = true,
        }
    }
}

/// What a stream adds to the bucket over the whole connection: milli-tokens per second, and capacity. None when it
/// does not fit.
fn delta(messages: Rate, bytes: Rate) -> Option<(u64, u32)> {
    let rate = ((messages.per_second * HEADER as f64 + bytes.per_second) * TLS_FACTOR * 1000.0).ceil();
    let capacity = ((f64::from(messages.capacity) * HEADER as f64 + f64::from(bytes.capacity)) * TLS_FACTOR).ceil();
    let (whole_rate, whole_capacity) = (rate as u64, capacity as u32);
    // A conversion that is not exact does not fit. 2^64 itself saturates to 2^64 - 1, which compares equal as a float.
    let fits = whole_rate as f64 == rate && whole_rate < u64::MAX && f64::from(whole_capacity) == capacity;
    fits.then_some((whole_rate, whole_capacity))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_bucket_that_is_not_full_refills_by_whole_microseconds_and_keeps_the_rest() {
        let zero = start();
        let mut bucket = TokenBucket::new(1_000, 10, zero); // a token a second
        assert!(bucket.remove(0, zero));
        assert!(!bucket.remove(1, zero));
        let mut at = zero;
        for _ in 0..999 {
            at += Duration::from_nanos(1_000_500);
            bucket.refill(at);
        }
        // 999.4995 ms, of which 999.499 were counted.
        assert_eq!(bucket.level, 999_499_000);
        assert_eq!(at - bucket.updated, Duration::from_nanos(500));
        assert!(bucket.remove(1, zero + Duration::from_secs(1)));
        assert_eq!(bucket.level, 0);
    }

    #[test]
    fn asking_for_more_than_there_is_empties_the_bucket() {
        let zero = start();
        let mut bucket = TokenBucket::full(0, 10, zero);
        assert!(!bucket.remove(11, zero));
        assert!(!bucket.remove(1, zero));
        assert!(bucket.remove(0, zero));
    }

    #[test]
    fn time_that_goes_backwards_adds_nothing_and_takes_nothing() {
        let zero = start() + Duration::from_secs(5);
        let mut bucket = TokenBucket::full(1_000, 10, zero);
        assert!(bucket.remove(10, zero));
        assert!(!bucket.remove(1, zero - Duration::from_secs(3)));
        assert!(bucket.remove(1, zero + Duration::from_secs(1)));
    }

    #[test]
    fn what_is_added_over_the_capacity_is_lost_at_the_next_refill() {
        let zero = start();
        let mut bucket = TokenBucket::full(0, 10, zero);
        bucket.add(5);
        assert_eq!(bucket.level, 15 * NANO);
        assert!(!bucket.remove(11, zero));
    }

    #[test]
    fn nothing_overflows() {
        let zero = start();
        let mut bucket = TokenBucket::full(u64::MAX, u32::MAX, zero);
        for _ in 0..10 {
            bucket.add(u32::MAX);
        }
        assert_eq!(bucket.level, u64::MAX);
        bucket.refill(zero + Duration::from_secs(1 << 40));
        assert_eq!(bucket.level, u64::from(u32::MAX) * NANO);
        assert!(bucket.remove(u32::MAX, zero));
    }

    #[test]
    fn a_new_rate_counts_from_now_and_the_level_stays() {
        let zero = start();
        let mut bucket = TokenBucket::full(1_000, 10, zero);
        assert!(bucket.remove(10, zero));
        bucket.set(2_000, 3, zero + Duration::from_secs(2));
        assert_eq!(bucket.level, 2 * NANO);
        bucket.refill(zero + Duration::from_secs(9));
        assert_eq!(bucket.level, 3 * NANO);
    }

    #[test]
    fn rates_are_rounded_up_to_thousandths() {
        assert_eq!(
            [0.0, 0.0001, 0.001, 1.0, 976.666_666].map(millis),
            [0, 1, 1, 1_000, 976_667]
        );
        assert_eq!(millis(f64::MAX), u64::MAX);
    }

    fn rate(per_second: f64, capacity: u32) -> Rate {
        Rate { per_second, capacity }
    }

    #[test]
    fn streams_contribute_to_the_connection_what_they_do_in_the_original() {
        let control = WireBucket::new(start());
        assert_eq!((control.bucket.rate, control.bucket.capacity), (1_465_000, 879_000));
        let (size, period) = (20.0, 10.0);
        let ping = |size: f64, period: f64| {
            let burst = 2 * (size as u32 + 36);
            delta(rate(2.0 / period, 4), rate(f64::from(burst) / period, burst))
        };
        assert_eq!(ping(size, period), Some((27_901, 390)));
        assert_eq!(ping(204_800.0, 120.0), Some((5_121_826, 614_730)));
        assert_eq!(
            delta(rate(2.0, 4), rate(220_000.0, 440_000)),
            Some((330_111_000, 660_222)),
            "ragedisco, once a second"
        );
    }

    #[test]
    fn a_sum_that_does_not_fit_is_no_limit_for_good() {
        let zero = start();
        let mut wire = WireBucket::new(zero);
        let limits = Limits::default().with_bytes(1.0, u32::MAX);
        wire.add_stream(&limits, zero);
        assert!(wire.take(usize::MAX, zero));
        wire.remove_stream(&limits, zero);
        assert!(wire.take(usize::MAX, zero));
        assert_eq!(wire.limit(), (f64::INFINITY, f64::INFINITY));
    }

    #[test]
    fn adding_and_removing_a_stream_leaves_what_was_there() {
        let zero = start();
        let mut wire = WireBucket::new(zero);
        let before = wire.limit();
        wire.add_stream(&Limits::default(), zero);
        assert_ne!(wire.limit(), before);
        wire.remove_stream(&Limits::default(), zero);
        assert_eq!(wire.limit(), before);
    }

    #[test]
    fn a_stream_may_use_its_whole_burst_at_once_on_a_new_connection() {
        // W4: the original backs a burst with 586 000 bytes, whatever the stream allows.
        let zero = start();
        let mut wire = WireBucket::new(zero);
        wire.new_connection(zero);
        wire.add_stream(&Limits::default().with_bytes(1.0, 50 << 20), zero);
        assert!(wire.take((50 << 20) + (1 << 20), zero));
    }

    #[test]
    fn whoever_sends_more_than_everything_allows_is_found_out() {
        let zero = start();
        let mut wire = WireBucket::new(zero);
        wire.new_connection(zero);
        wire.add_stream(&Limits::default(), zero);
        assert!(!wire.take(5 << 20, zero));
    }
}
