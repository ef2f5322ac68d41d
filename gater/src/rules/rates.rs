//! Token buckets on a clock that is given, in bounded memory.

use super::limits::{Prefixes, Rate};
use lru::LruCache;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

/// Some 5 MiB when full. Whoever has more blocks of addresses than this is not held back by a limit for each block.
pub(super) const BUCKETS: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// A block of addresses as a number, and of which size it is: `None` for all that have no IP.
pub(super) type Block = Option<(bool, u8, u128)>;

pub(super) fn block(ip: Option<IpAddr>, prefixes: Prefixes) -> Block {
    Some(match ip? {
        IpAddr::V4(ip) => {
            let bits = ip.to_bits() & super::cidr::mask_32(prefixes.v4);
            (false, prefixes.v4, u128::from(bits))
        }
        IpAddr::V6(ip) => (true, prefixes.v6, ip.to_bits() & super::cidr::mask_128(prefixes.v6)),
    })
}

/// For each rate and block the time at which its bucket is full again, in nanoseconds.
pub(super) struct Buckets(LruCache<(u8, Block), u64>);

impl Buckets {
    pub(super) fn new() -> Self {
        Self(LruCache::new(BUCKETS))
    }

    /// Takes a token for `ip` from the bucket of each of `rates`, which come with their numbers, or from none of them and
    /// says which one has none and when it will.
    pub(super) fn take<'r>(
        &mut self,
        rates: impl Iterator<Item = (u8, &'r Rate)> + Clone,
        ip: Option<IpAddr>,
        now: Duration,
    ) -> Result<(), (u8, Duration)> {
        self.look(rates.clone(), ip, now)?;
        for (at, rate) in rates {
            let now = nanoseconds(now);
            let full = self.0.get_or_insert_mut((at, block(ip, rate.prefixes)), || now);
            *full = (*full).max(now).saturating_add(nanoseconds(rate.interval));
        }
        Ok(())
    }

    /// The same, and takes none.
    pub(super) fn look<'r>(
        &self,
        rates: impl Iterator<Item = (u8, &'r Rate)>,
        ip: Option<IpAddr>,
        now: Duration,
    ) -> Result<(), (u8, Duration)> {
        for (at, rate) in rates {
            let Some(full) = self.0.peek(&(at, block(ip, rate.prefixes))) else {
                continue;
            };
            // A token is there while the bucket is less than `burst` intervals from full.
            let slack = nanoseconds(rate.interval).saturating_mul(u64::from(rate.burst.get()) - 1);
            let wait = full.saturating_sub(nanoseconds(now)).saturating_sub(slack);
            if wait > 0 {
                return Err((at, Duration::from_nanos(wait)));
            }
        }
        Ok(())
    }

    /// What the numbers meant is no more.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn rate(seconds: u64, burst: u32, v4: u8) -> Rate {
        Rate::accepts(Duration::from_secs(seconds), NonZeroU32::new(burst).expect("not zero"))
            .per_prefix(Prefixes::new(v4, 48))
    }

    fn ip(last: [u8; 4]) -> Option<IpAddr> {
        Some(last.into())
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_burst_passes_and_then_one_each_interval() {
        let (mut buckets, rate) = (Buckets::new(), rate(5, 3, 32));
        let mut take = |now| buckets.take([(0, &rate)].into_iter(), ip([192, 0, 2, 7]), now);
        for _ in 0..3 {
            take(at(100)).expect("in the burst");
        }
        assert_eq!(take(at(100)), Err((0, at(5))));
        assert_eq!(take(at(104)), Err((0, at(1))));
        take(at(105)).expect("one more");
        assert_eq!(take(at(105)), Err((0, at(5))));
        // Full again, and no fuller.
        for _ in 0..3 {
            take(at(10_000)).expect("in the burst");
        }
        take(at(10_000)).expect_err("no fourth");
    }

    #[test]
    fn a_neighbour_in_the_block_pays_and_one_beyond_it_does_not() {
        let (mut buckets, rate) = (Buckets::new(), rate(5, 1, 24));
        let mut take = |ip| buckets.take([(0, &rate)].into_iter(), ip, at(1));
        take(ip([192, 0, 2, 7])).expect("the first");
        take(ip([192, 0, 2, 8])).expect_err("the same block");
        take(ip([192, 0, 3, 7])).expect("another block");
        take(None).expect("those without an IP have their own");
        take(None).expect_err("and share it");
    }

    #[test]
    fn who_is_held_back_by_a_narrow_bucket_drains_no_wide_one() {
        let (narrow, wide) = (rate(5, 1, 32), rate(5, 3, 0));
        let mut buckets = Buckets::new();
        let both = [(0, &narrow), (1, &wide)].into_iter();
        for _ in 0..50 {
            let _ = buckets.take(both.clone(), ip([192, 0, 2, 7]), at(1));
        }
        for other in 1..3 {
            buckets
                .take(both.clone(), ip([192, 0, other + 2, 7]), at(1))
                .expect("two are left");
        }
        assert_eq!(buckets.take(both, ip([10, 0, 0, 1]), at(1)), Err((1, at(5))));
    }

    #[test]
    fn memory_is_bounded_whoever_comes() {
        let (mut buckets, rate) = (Buckets::new(), rate(5, 1, 32));
        for n in 0..100_000_u32 {
            let _ = buckets.take([(0, &rate)].into_iter(), Some(IpAddr::from(n.to_be_bytes())), at(1));
        }
        assert_eq!(buckets.0.len(), BUCKETS.get());
    }

    #[test]
    fn a_clock_that_steps_back_harms_nobody_for_longer_than_the_step() {
        let (mut buckets, rate) = (Buckets::new(), rate(5, 2, 32));
        let mut take = |now| buckets.take([(0, &rate)].into_iter(), ip([192, 0, 2, 7]), now);
        take(at(100)).expect("the first");
        assert!(matches!(take(at(50)), Err((0, wait)) if wait <= at(55)));
        take(at(105)).expect("full again");
    }
}
