//! Numbers that are worked out: from an installation's seed, from the machine's descriptors.

use std::time::Duration;
use web_time::Instant;

/// `now + wait`, or as good as never: a wait of `Duration::MAX` is how one says so.
pub(crate) fn later(now: Instant, wait: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);
    now.checked_add(wait).unwrap_or_else(|| now + NEVER)
}

/// The most sockets a pool holds by default, however many descriptors there are: about 33 MB in the kernel when full.
pub(crate) const MAX_POOL: usize = 8192;
/// The fewest, however few descriptors there are. What they do not suffice for is evicted when the system says so.
pub(crate) const MIN_POOL: usize = 64;
/// Descriptors that are nobody's connection: files, listeners, databases.
const OTHER_DESCRIPTORS: usize = 256;

/// The shortest time after which a listener closes a socket.
pub(crate) const SHORTEST_CLOSE_TIME: Duration = Duration::from_secs(120);

/// How long after accepting a socket the listener closes it: 120 s to 600 s in steps of 30 s.
///
/// `seed` is 32 random bytes that stay with the installation, so that a restart does not change the answer and so that
/// nobody can work it out from what is public. The first 64 bits are taken modulo 17: no step is more likely than
/// another by more than 17 in 2^64.
pub(crate) fn close_time(seed: &[u8; 32]) -> Duration {
    const STEPS: u64 = 17;
    let [a, b, c, d, e, f, g, h, ..] = *seed;
    let k = u64::from_le_bytes([a, b, c, d, e, f, g, h]) % STEPS;
    SHORTEST_CLOSE_TIME + Duration::from_secs(30 * k)
}

/// How many sockets the pool holds, by default, where the process may open `descriptors` and wants `authenticated`
/// connections: half of what neither those nor the rest of the program needs.
pub(crate) fn pool_capacity(descriptors: usize, authenticated: usize) -> usize {
    let spare = descriptors
        .saturating_sub(authenticated)
        .saturating_sub(OTHER_DESCRIPTORS);
    (spare / 2).clamp(MIN_POOL, MAX_POOL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn close_times_are_seventeen_and_equally_likely() {
        let mut seen = BTreeMap::<_, u32>::new();
        for n in 0..17_000u64 {
            let mut seed = [7; 32];
            seed[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
            *seen.entry(close_time(&seed)).or_default() += 1;
        }
        assert_eq!(seen.len(), 17);
        assert_eq!(seen.keys().next(), Some(&Duration::from_secs(120)));
        assert_eq!(seen.keys().last(), Some(&Duration::from_secs(600)));
        assert!(seen.keys().all(|t| t.as_secs() % 30 == 0));
        assert!(seen.values().all(|n| (800..1200).contains(n)), "{seen:?}");
    }

    #[test]
    fn one_installation_has_one_close_time() {
        assert_eq!(close_time(&[9; 32]), close_time(&[9; 32]));
    }

    #[test]
    fn the_pool_takes_half_of_what_is_spare_within_its_bounds() {
        assert_eq!(pool_capacity(4096, 192), 1824);
        assert_eq!(pool_capacity(1 << 20, 192), MAX_POOL);
        assert_eq!(pool_capacity(1024, 4096), MIN_POOL);
        assert_eq!(pool_capacity(64, 0), MIN_POOL);
        assert_eq!(pool_capacity(usize::MAX, 0), MAX_POOL);
    }
}
