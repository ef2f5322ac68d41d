//! A map of which a changed copy costs little: what did not change is shared with the one it was copied from.
//!
//! The rules are read without a lock from a snapshot, so every change makes a new one. With a million entries in one table
//! that would be a hundred megabytes to copy; here it is the table of one shard, and a list of pointers.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::{BuildHasher as _, Hash};
use std::sync::Arc;

/// A million entries are a thousand in each, some 100 KB to copy for a change.
const SHARDS: usize = 1024;

type Shard<K, V> = HashTable<(K, V)>;

pub(crate) struct Sharded<K, V> {
    shards: Arc<[Arc<Shard<K, V>>]>,
    hasher: RandomState,
    len: usize,
}

// Not derived: that would ask the same of `K` and `V`.
impl<K, V> Clone for Sharded<K, V> {
    fn clone(&self) -> Self {
        Self {
            shards: Arc::clone(&self.shards),
            hasher: self.hasher.clone(),
            len: self.len,
        }
    }
}

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        let empty = Arc::new(Shard::new());
        Self {
            shards: std::iter::repeat_n(empty, SHARDS).collect(),
            hasher: RandomState::default(),
            len: 0,
        }
    }
}

/// Which shard. The table takes its slot from the lowest bits of the hash and its tag from the highest.
const fn shard(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

impl<K: Eq + Hash, V> Sharded<K, V> {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let hash = self.hasher.hash_one(key);
        let entry = self.shards[shard(hash)].find(hash, |(other, _)| other == key);
        entry.map(|(_, value)| value)
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards
            .iter()
            .flat_map(|shard| shard.iter())
            .map(|(key, value)| (key, value))
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Sharded<K, V> {
    /// What was there before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let hash = self.hasher.hash_one(&key);
        let table = Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[shard(hash)]);
        if let Some((_, old)) = table.find_mut(hash, |(other, _)| *other == key) {
            return Some(std::mem::replace(old, value));
        }
        let hasher = &self.hasher;
        table.insert_unique(hash, (key, value), |(key, _)| hasher.hash_one(key));
        self.len += 1;
        None
    }

    /// What was there before. Copies nothing if that is nothing.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        if !self.contains(key) {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let table = Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[shard(hash)]);
        let entry = table.find_entry(hash, |(other, _)| other == key).ok()?;
        let ((_, value), _) = entry.remove();
        self.len -= 1;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_does_not_see_what_happens_to_the_other() {
        let mut one = Sharded::default();
        for key in 0..5000_u32 {
            assert_eq!(one.insert(key, key), None);
        }
        let copy = one.clone();
        assert_eq!(one.insert(7, 70), Some(7));
        assert_eq!(one.remove(&8), Some(8));
        assert_eq!(one.remove(&8), None);
        assert_eq!(one.insert(9999, 1), None);
        assert_eq!((one.get(&7), one.get(&8), one.get(&9999)), (Some(&70), None, Some(&1)));
        assert_eq!(
            (copy.get(&7), copy.get(&8), copy.get(&9999)),
            (Some(&7), Some(&8), None)
        );
        assert_eq!((one.len(), copy.len()), (5000, 5000));
        let mut all: Vec<u32> = copy.iter().map(|(key, _)| *key).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..5000));
    }

    #[test]
    fn a_change_shares_every_shard_but_one() {
        let mut one = Sharded::default();
        for key in 0..5000_u32 {
            one.insert(key, ());
        }
        let copy = one.clone();
        one.insert(5000, ());
        let changed = one.shards.iter().zip(copy.shards.iter());
        assert_eq!(changed.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 1);
    }
}
