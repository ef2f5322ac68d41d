//! One of the parts that the peers are spread over, each behind a lock of its own.

use super::record::{Record, State};
use super::time::{Stamp, nanos};
use hashbrown::HashTable;
use libp2p_identity::PeerId;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Records lie one beside the other, so that a trim reads memory from front to back; an index finds them.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    index: HashTable<u32>,
    pub(crate) records: Vec<Record>,
    /// Who was tagged before it was connected, in that order, and who has gone. Entries outlive their records.
    early: Queue,
    gone: Queue,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<(u64, Stamp)>,
    /// How many of the entries have a record.
    live: usize,
}

/// What the whole book shares, and a shard keeps up to date.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) grace: Duration,
    pub(crate) early_for: Duration,
    pub(crate) gone_for: Duration,
    /// Early records from before this moment are void: a trim has swept them away.
    pub(crate) swept: AtomicU64,
    pub(crate) early: AtomicUsize,
    pub(crate) gone: AtomicUsize,
    /// Peers with a connection.
    pub(crate) connected: AtomicUsize,
}

impl Common {
    /// Since when a record that becomes an early one now is one: later than what a trim has swept
    /// away in this very instant.
    pub(crate) fn early_since(&self, now: Stamp) -> Stamp {
        now.max(Stamp(self.swept.load(Ordering::Relaxed)))
    }

    /// Makes early records void that are past grace.
    pub(crate) fn sweep_early(&self, now: Stamp) {
        let Some(until) = now.0.checked_sub(nanos(self.grace)) else {
            return;
        };
        if self.grace.is_zero() {
            // Each time anew, also while a coarse clock stands still.
            let next = |swept: u64| Some(until.max(swept).saturating_add(1));
            let _ = self.swept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        } else {
            self.swept.fetch_max(until.saturating_add(1), Ordering::Relaxed);
        }
    }

    /// Whether the grace of a peer that left then is remembered.
    pub(crate) fn remembers(&self, left: Stamp, now: Stamp) -> bool {
        now < left.after(self.gone_for)
    }

    fn is_void(&self, state: State, now: Stamp) -> bool {
        match state {
            State::Early { since } => {
                let swept = self.swept.load(Ordering::Relaxed);
                // 0 is no sweep at all.
                (swept > 0 && since.0 < swept) || now >= since.after(self.early_for)
            }
            State::Gone { since } => !self.remembers(since, now),
            State::Connected | State::Pinned => false,
        }
    }
}

impl Shard {
    pub(crate) fn find(&self, hash: u64, peer: &PeerId) -> Option<usize> {
        self.index
            .find(hash, |&slot| self.records[slot as usize].is(peer))
            .map(|&slot| slot as usize)
    }

    pub(crate) fn find_where(&self, hash: u64, is_it: impl Fn(&Record) -> bool) -> Option<usize> {
        self.index
            .find(hash, |&slot| is_it(&self.records[slot as usize]))
            .map(|&slot| slot as usize)
    }

    /// The record, unless it has expired: then it goes.
    pub(crate) fn find_live(
        &mut self,
        hash: u64,
        peer: &PeerId,
        common: &Common,
        now: impl FnOnce() -> Stamp,
    ) -> Option<usize> {
        let slot = self.find(hash, peer)?;
        let state = self.records[slot].state();
        if matches!(state, State::Early { .. } | State::Gone { .. }) && common.is_void(state, now()) {
            self.remove(slot, common);
            return None;
        }
        Some(slot)
    }

    pub(crate) fn insert(&mut self, record: Record, common: &Common) -> usize {
        let slot = self.records.len();
        if slot == self.records.capacity() {
            // An eighth more, not twice as much: of a million records that is memory worth having.
            self.records.reserve_exact(slot / 8 + 4);
        }
        let records = &self.records;
        let hash_of = |&slot: &u32| records[slot as usize].hash;
        #[allow(
            clippy::cast_possible_truncation,
            reason = "four thousand million peers do not fit into memory"
        )]
        self.index.insert_unique(record.hash, slot as u32, hash_of);
        let state = record.state();
        self.records.push(record);
        self.enter(slot, state, common);
        slot
    }

    pub(crate) fn remove(&mut self, slot: usize, common: &Common) {
        self.leave(slot, common);
        let hash = self.records[slot].hash;
        if let Ok(entry) = self.index.find_entry(hash, |&at| at as usize == slot) {
            entry.remove();
        }
        self.records.swap_remove(slot);
        let last = self.records.len();
        if let Some(moved) = self.records.get(slot)
            && let Some(at) = self.index.find_mut(moved.hash, |&at| at as usize == last)
        {
            #[allow(clippy::cast_possible_truncation, reason = "smaller than one that fitted")]
            {
                *at = slot as u32;
            }
        }
        if self.records.capacity() > 64 && self.records.len() < self.records.capacity() / 4 {
            self.records.shrink_to(self.records.len() * 2);
            let records = &self.records;
            self.index
                .shrink_to(records.len() * 2, |&slot| records[slot as usize].hash);
        }
    }

    /// Moves a record into another state, and the counters with it.
    pub(crate) fn set_state(&mut self, slot: usize, state: State, common: &Common) {
        if self.records[slot].state() != state {
            self.leave(slot, common);
            self.enter(slot, state, common);
        }
    }

    /// Moves a record without connections into a state in which it stays, and keeps in mind when
    /// its peer left.
    pub(crate) fn pin(&mut self, slot: usize, common: &Common) {
        let left = self.records[slot].left();
        self.records[slot].set_left(left);
        self.set_state(slot, State::Pinned, common);
    }

    fn enter(&mut self, slot: usize, state: State, common: &Common) {
        let record = &mut self.records[slot];
        record.set_state(state);
        let hash = record.hash;
        let (counter, queue, since) = match state {
            State::Connected => {
                common.connected.fetch_add(1, Ordering::Relaxed);
                return;
            }
            State::Pinned => return,
            State::Early { since } => (&common.early, &mut self.early, since),
            State::Gone { since } => (&common.gone, &mut self.gone, since),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        queue.live += 1;
        queue.entries.push_back((hash, since));
        // Entries whose record has moved on are dropped when they are the most.
        if queue.entries.len() > 2 * queue.live + 32 {
            let (index, records) = (&self.index, &self.records);
            queue
                .entries
                .retain(|entry| holder(index, records, *entry, state).is_some());
        }
    }

    fn leave(&mut self, slot: usize, common: &Common) {
        match self.records[slot].state() {
            State::Connected => {
                common.connected.fetch_sub(1, Ordering::Relaxed);
            }
            State::Pinned => {}
            State::Early { .. } => {
                common.early.fetch_sub(1, Ordering::Relaxed);
                self.early.live -= 1;
            }
            State::Gone { .. } => {
                common.gone.fetch_sub(1, Ordering::Relaxed);
                self.gone.live -= 1;
            }
        }
    }

    /// Removes the records that have expired, oldest first. What it costs was paid when they were made.
    pub(crate) fn sweep(&mut self, common: &Common, now: Stamp) {
        while let Some(&(_, since)) = self.early.entries.front() {
            if !common.is_void(State::Early { since }, now) {
                break;
            }
            self.pop_early(common);
        }
        while let Some(&(_, since)) = self.gone.entries.front() {
            if !common.is_void(State::Gone { since }, now) {
                break;
            }
            self.pop_gone(common);
        }
    }

    /// Removes the oldest early record; false if there is none.
    pub(crate) fn evict_early(&mut self, common: &Common) -> bool {
        while !self.early.entries.is_empty() {
            if self.pop_early(common) {
                return true;
            }
        }
        false
    }

    /// Removes the one that has been gone for longest; false if there is none.
    pub(crate) fn evict_gone(&mut self, common: &Common) -> bool {
        while !self.gone.entries.is_empty() {
            if self.pop_gone(common) {
                return true;
            }
        }
        false
    }

    fn pop_early(&mut self, common: &Common) -> bool {
        let Some((hash, since)) = self.early.entries.pop_front() else {
            return false;
        };
        self.remove_holder((hash, since), State::Early { since }, common)
    }

    fn pop_gone(&mut self, common: &Common) -> bool {
        let Some((hash, since)) = self.gone.entries.pop_front() else {
            return false;
        };
        self.remove_holder((hash, since), State::Gone { since }, common)
    }

    fn remove_holder(&mut self, entry: (u64, Stamp), state: State, common: &Common) -> bool {
        let Some(slot) = holder(&self.index, &self.records, entry, state) else {
            return false;
        };
        self.remove(slot, common);
        true
    }
}

/// The record that an entry stands for, in a queue of records of the kind of `like`.
fn holder(index: &HashTable<u32>, records: &[Record], (hash, since): (u64, Stamp), like: State) -> Option<usize> {
    let state = match like {
        State::Early { .. } => State::Early { since },
        _ => State::Gone { since },
    };
    index
        .find(hash, |&slot| {
            let record = &records[slot as usize];
            record.hash == hash && record.state() == state
        })
        .map(|&slot| slot as usize)
}
