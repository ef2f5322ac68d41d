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
    capacity: u64,
    level: u64,
    updated: Instant,
}

impl TokenBucket {
    /// Empty.
    pub(crate) fn new(rate: u64, capacity: u32, now: Instant) -> Self {
        Self {
            rate,
            capacity: capacity.into(),
            level: 0,
            updated: now,
        }
    }

    pub(crate) fn full(rate: u64, capacity: u32, now: Instant) -> Self {
        let mut bucket = Self::new(rate, capacity, now);
        bucket.add(capacity.into());
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
        let most = self.capacity.saturating_mul(NANO);
        self.level = self.level.saturating_add(more).min(most);
    }

    /// Not held to the capacity before the next refill.
    pub(crate) fn add(&mut self, tokens: u64) {
        self.level = self.level.saturating_add(tokens.saturating_mul(NANO));
    }

    /// Takes `tokens`, or everything that is there and says no.
    pub(crate) fn remove(&mut self, tokens: u32, now: Instant) -> bool {
        self.refill(now);
        let wanted = u64::from(tokens) * NANO;
        let enough = self.level >= wanted;
        self.level = if enough { self.level - wanted } else { 0 };
        enough
    }

    /// Takes `tokens`, or all whole ones that are there. Those that are missing.
    fn remove_some(&mut self, tokens: u64, now: Instant) -> u64 {
        self.refill(now);
        let taken = tokens.min(self.level / NANO);
        self.level -= taken * NANO;
        tokens - taken
    }

    /// From now on; the time until now counts at the old rate. The level stays, within the new capacity.
    pub(crate) fn set(&mut self, rate: u64, capacity: u64, now: Instant) {
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

/// The largest capacity that a bucket can compute with: 18 GB.
const MOST: u64 = u64::MAX / NANO;

/// What comes over the wire of a peer's connections altogether, TLS included: the sum of what its streams allow, and
/// something for opens and closes. Belongs to the peer, not to a connection.
///
/// The original grants nothing for a new stream, so that one that uses its whole burst at once can
/// cost the connection (W4); here it brings its burst with it. And it gives up the limit for good
/// when a sum does not fit, from the 1,361st stream with our default limits on; here the sums are
/// exact, the bucket has what it can have of them, and a stream that closes takes back what it
/// brought.
#[derive(Debug)]
pub(crate) struct WireBucket {
    bucket: TokenBucket,
    /// The sums: milli-tokens per second, and tokens.
    rate: u128,
    capacity: u128,
}

impl WireBucket {
    pub(crate) fn new(now: Instant) -> Self {
        let mut this = Self {
            bucket: TokenBucket::new(0, 0, now),
            rate: 0,
            capacity: 0,
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
        this.grow(delta(none, control), now);
        this
    }

    pub(crate) fn add_stream(&mut self, limits: &Limits, now: Instant) {
        let delta = delta(limits.messages, limits.bytes);
        self.grow(delta, now);
        self.bucket.add(delta.1);
    }

    /// Takes back what [`WireBucket::add_stream`] gave for the same limits.
    pub(crate) fn remove_stream(&mut self, limits: &Limits, now: Instant) {
        let (rate, capacity) = delta(limits.messages, limits.bytes);
        self.rate = self.rate.saturating_sub(rate.into());
        self.capacity = self.capacity.saturating_sub(capacity.into());
        self.set(now);
    }

    /// Before anything is read from it.
    pub(crate) fn new_connection(&mut self, now: Instant) {
        self.bucket.refill(now);
        self.bucket.add(NEW_CONNECTION.into());
    }

    /// Whether so many bytes may be read from the wire. Those that no stream's limits allow for are
    /// taken from `allowance`, which is for responses that were asked for.
    pub(crate) fn take(&mut self, bytes: usize, now: Instant, allowance: &mut u128) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let missing = self.bucket.remove_some(bytes, now);
        let left = allowance.checked_sub(missing.into());
        *allowance = left.unwrap_or(0);
        left.is_some()
    }

    /// Returns what was taken for something else. The capacity is the most there can be.
    pub(crate) fn give_back(&mut self, bytes: u128) {
        self.bucket.add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Tokens per second, and capacity.
    pub(crate) fn limit(&self) -> (f64, f64) {
        (self.bucket.rate as f64 / 1000.0, self.bucket.capacity as f64)
    }

    fn grow(&mut self, (rate, capacity): (u64, u64), now: Instant) {
        self.rate += u128::from(rate);
        self.capacity += u128::from(capacity);
        self.set(now);
    }

    /// What there can be of the sums.
    fn set(&mut self, now: Instant) {
        let rate = u64::try_from(self.rate).unwrap_or(u64::MAX);
        let capacity = u64::try_from(self.capacity).unwrap_or(u64::MAX).min(MOST);
        self.bucket.set(rate, capacity, now);
    }
}

/// What a response of so many bytes may take on the wire, TLS included.
pub(crate) fn on_the_wire(bytes: usize) -> u128 {
    // A half more, as TLS_FACTOR says.
    (bytes as u128 + 2 * HEADER as u128) * 3 / 2
}

/// What a stream adds to the bucket over the whole connection: milli-tokens per second, and
/// capacity.
fn delta(messages: Rate, bytes: Rate) -> (u64, u64) {
    let rate = ((messages.per_second * HEADER as f64 + bytes.per_second) * TLS_FACTOR * 1000.0).ceil();
    let capacity = ((f64::from(messages.capacity) * HEADER as f64 + f64::from(bytes.capacity)) * TLS_FACTOR).ceil();
    // Both saturate.
    (rate as u64, capacity as u64)
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
            bucket.add(u64::MAX);
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
        assert_eq!(ping(size, period), (27_901, 390));
        assert_eq!(ping(204_800.0, 120.0), (5_121_826, 614_730));
        assert_eq!(
            delta(rate(2.0, 4), rate(220_000.0, 440_000)),
            (330_111_000, 660_222),
            "ragedisco, once a second"
        );
    }

    #[test]
    fn a_sum_that_does_not_fit_stays_a_limit_and_is_taken_back_to_the_last_token() {
        let zero = start();
        let mut wire = WireBucket::new(zero);
        let alone = wire.limit();
        let defaults = Limits::default();
        // The original gives up at the 1,361st.
        for n in 1..=2000 {
            wire.add_stream(&defaults, zero);
            let (rate, capacity) = wire.limit();
            let each = (
                1.5 * (100.0 * 37.0 + f64::from(1 << 20)),
                1.5 * (200.0 * 37.0 + f64::from(2 << 20)),
            );
            assert_eq!(
                (rate - alone.0, capacity - alone.1),
                (each.0 * f64::from(n), each.1 * f64::from(n))
            );
        }
        let all = wire.limit();
        // Numbers that no bucket can compute with.
        let huge = defaults
            .with_bytes(f64::MAX, u32::MAX)
            .with_messages(f64::MAX, u32::MAX);
        for _ in 0..2000 {
            wire.add_stream(&huge, zero);
        }
        let (rate, capacity) = wire.limit();
        assert!(rate.is_finite() && capacity == MOST as f64, "{rate} {capacity}");
        assert!(!wire.take(usize::MAX, zero, &mut 0), "it is a limit");
        for _ in 0..2000 {
            wire.remove_stream(&huge, zero);
        }
        assert_eq!(wire.limit(), all);
        for _ in 0..2000 {
            wire.remove_stream(&defaults, zero);
        }
        assert_eq!(wire.limit(), alone);
        let mut taken = 0;
        while wire.take(1 << 10, zero, &mut 0) {
            taken += 1 << 10;
        }
        assert!(taken as f64 <= alone.1, "no more than what is left: {taken}");
    }

    #[test]
    fn what_streams_do_not_allow_for_is_taken_from_what_was_asked_for() {
        let zero = start();
        let mut wire = WireBucket::new(zero);
        wire.new_connection(zero);
        let mut allowance = on_the_wire(1 << 30);
        for _ in 0..1 << 10 {
            assert!(wire.take(1 << 20, zero, &mut allowance));
        }
        assert!(allowance < on_the_wire(1 << 30) / 2);
        assert!(!wire.take(1 << 30, zero, &mut allowance));
        assert_eq!(allowance, 0);
        assert!(!wire.take(1, zero, &mut allowance));
        assert!(
            wire.take(1000, zero + Duration::from_secs(1), &mut allowance),
            "the bucket fills again"
        );
        assert!(on_the_wire(usize::MAX) > u128::from(u64::MAX));
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
        assert!(wire.take((50 << 20) + (1 << 20), zero, &mut 0));
    }

    #[test]
    fn whoever_sends_more_than_everything_allows_is_found_out() {
        let zero = start();
        let mut wire = WireBucket::new(zero);
        wire.new_connection(zero);
        wire.add_stream(&Limits::default(), zero);
        assert!(!wire.take(5 << 20, zero, &mut 0));
    }
}
