//! Tables of the most recent.

use lru::LruCache;
use std::hash::Hash;
use std::num::NonZeroUsize;

/// Holds `bound` entries at most, and memory for those that there are: `LruCache::new` takes it for all of them at once,
/// which a node that only dials would never use.
pub(crate) fn recent<K: Hash + Eq, V>(bound: NonZeroUsize) -> LruCache<K, V> {
    let mut table = LruCache::unbounded();
    table.resize(bound);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_forgets_the_oldest_at_its_bound() {
        let mut table = recent(NonZeroUsize::new(2).expect("not zero"));
        assert_eq!(table.cap().get(), 2);
        for n in 0..3 {
            table.put(n, ());
        }
        assert_eq!(table.iter().map(|(n, ())| *n).collect::<Vec<_>>(), [2, 1]);
    }
}
