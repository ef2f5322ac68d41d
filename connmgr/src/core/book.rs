//! Everything known of every peer, for as many threads as like.
//!
//! 256 parts, each behind its own lock, which is held for one change of one record, and by a trim for one part.
//! No closure of the user's ever runs under a lock: what it computes is put in if nothing has changed meanwhile, and
//! computed again otherwise.

mod connections;
mod protection;
mod tags;

use super::decaying::Definition;
use super::hash::Hasher;
use super::record::{Record, State, TagOutcome};
use super::shard::{Common, Shard};
use super::time::{Clock, Stamp};
use crate::config::Config;
use libp2p_identity::PeerId;
use smol_str::SmolStr;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// As many as go-libp2p's: more than there are threads to meet in one.
pub(crate) const SHARDS: usize = 256;

#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) clock: Clock,
    shards: Box<[Padded]>,
    hasher: Hasher,
    pub(crate) common: Common,
    max_tags: usize,
    max_early: usize,
    max_gone: usize,
    keep_tags: bool,
    resolution: Duration,
    /// Connections that no trim is closing, and those that one is.
    open: AtomicUsize,
    closing: AtomicUsize,
    /// Tags that were not set because the peer has as many as it may.
    refused_tags: AtomicU64,
    definitions: Mutex<HashMap<SmolStr, Arc<Definition>>>,
    /// Peers whose connections are to be kept alive from now on, or no longer.
    changed: Mutex<Vec<PeerId>>,
}

/// A cache line, and the one that the processor fetches with it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(Mutex<Shard>);

impl Book {
    pub(crate) const SHARDS: usize = SHARDS;

    pub(crate) fn new(config: &Config) -> Self {
        let retention = config.retention;
        Self {
            clock: config.clock.clone(),
            shards: std::iter::repeat_with(Padded::default).take(SHARDS).collect(),
            hasher: Hasher::new(),
            common: Common {
                grace: config.grace,
                early_for: config.early_for,
                gone_for: retention.map_or(config.grace, |(ttl, _)| ttl.max(config.grace)),
                swept: AtomicU64::new(0),
                early: AtomicUsize::new(0),
                gone: AtomicUsize::new(0),
                connected: AtomicUsize::new(0),
            },
            max_tags: config.max_tags,
            max_early: config.max_early,
            max_gone: retention.map_or(config.max_early, |(_, peers)| peers),
            keep_tags: retention.is_some(),
            resolution: config.decay_resolution,
            open: AtomicUsize::new(0),
            closing: AtomicUsize::new(0),
            refused_tags: AtomicU64::new(0),
            definitions: Mutex::default(),
            changed: Mutex::default(),
        }
    }

    pub(crate) fn hash(&self, peer: &PeerId) -> u64 {
        self.hasher.hash(peer)
    }

    /// The hash table takes the highest bits and the lowest ones; these lie between.
    pub(crate) fn shard_of(hash: u64) -> usize {
        (hash >> 40) as usize % SHARDS
    }

    /// Nothing panics between the halves of a change, so a poisoned lock is none.
    pub(crate) fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard].0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that no trim is closing.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn closing(&self) -> usize {
        self.closing.load(Ordering::Relaxed)
    }

    pub(crate) fn refused_tags(&self) -> u64 {
        self.refused_tags.load(Ordering::Relaxed)
    }

    /// Whether the peer has had its time to prove itself.
    pub(crate) fn is_past_grace(&self, record: &Record, now: Stamp) -> bool {
        now.since(record.first_seen) >= self.common.grace
    }

    // ---- tags ----

    pub(crate) fn tag(&self, peer: &PeerId, tag: &str, value: i64) {
        let hash = self.hash(peer);
        let mut shard = self.lock(Self::shard_of(hash));
        let (slot, made) = self.find_or_make(&mut shard, hash, peer);
        if shard.records[slot].set_tag(tag, value, self.max_tags) == TagOutcome::Full {
            self.refuse_tag(peer);
        }
        drop(shard);
        if made {
            self.bound_early(hash);
        }
    }

    pub(crate) fn untag(&self, peer: &PeerId, tag: &str) {
        let hash = self.hash(peer);
        let mut shard = self.lock(Self::shard_of(hash));
        if let Some(slot) = shard.find_live(hash, peer, &self.common, || self.clock.now()) {
            shard.records[slot].remove_tag(tag);
        }
    }

    pub(crate) fn upsert(&self, peer: &PeerId, tag: &str, upsert: &mut dyn FnMut(i64) -> i64) {
        let hash = self.hash(peer);
        let read = |shard: &mut Shard| {
            shard
                .find_live(hash, peer, &self.common, || self.clock.now())
                .and_then(|slot| shard.records[slot].tag(tag))
                .unwrap_or(0)
        };
        let mut old = read(&mut self.lock(Self::shard_of(hash)));
        loop {
            let new = upsert(old);
            let mut shard = self.lock(Self::shard_of(hash));
            let found = read(&mut shard);
            if found != old {
                old = found;
                continue;
            }
            let (slot, made) = self.find_or_make(&mut shard, hash, peer);
            if shard.records[slot].set_tag(tag, new, self.max_tags) == TagOutcome::Full {
                self.refuse_tag(peer);
            }
            drop(shard);
            if made {
                self.bound_early(hash);
            }
            return;
        }
    }

    fn refuse_tag(&self, peer: &PeerId) {
        if self.refused_tags.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(%peer, max = self.max_tags, "a peer has as many tags as it may; others are ignored");
        }
    }

    /// The record of a peer that is about to be tagged; whether it is a new early one.
    fn find_or_make(&self, shard: &mut Shard, hash: u64, peer: &PeerId) -> (usize, bool) {
        match shard.find_live(hash, peer, &self.common, || self.clock.now()) {
            Some(slot) => {
                // Without retention only the grace of a gone peer is remembered. A tag makes it an early one.
                let record = &mut shard.records[slot];
                let early = !self.keep_tags && matches!(record.state(), State::Gone { .. });
                if early {
                    record.set_left(record.left());
                    let since = self.common.early_since(self.clock.now());
                    shard.set_state(slot, State::Early { since }, &self.common);
                }
                (slot, early)
            }
            None => {
                let now = self.clock.now();
                shard.sweep(&self.common, now);
                let since = self.common.early_since(now);
                let record = Record::new(*peer, hash, State::Early { since }, now);
                (shard.insert(record, &self.common), true)
            }
        }
    }

    fn bound_early(&self, hash: u64) {
        self.bound(
            Shard::evict_early,
            &self.common.early,
            self.max_early,
            Self::shard_of(hash),
        );
    }

    /// Removes old records until there are no more than there may be: those that have expired, then the oldest of the next part,
    /// and of this part, where the newest is, last of all.
    fn bound(&self, evict: fn(&mut Shard, &Common) -> bool, count: &AtomicUsize, max: usize, newest: usize) {
        if count.load(Ordering::Relaxed) <= max {
            return;
        }
        let now = self.clock.now();
        for offset in 1..=SHARDS {
            let mut shard = self.lock((newest + offset) % SHARDS);
            shard.sweep(&self.common, now);
            while count.load(Ordering::Relaxed) > max {
                if !evict(&mut shard, &self.common) {
                    break;
                }
            }
            if count.load(Ordering::Relaxed) <= max {
                return;
            }
        }
    }

    /// Remembers a peer without connections, if that is wanted; whether it did.
    fn set_gone(&self, shard: &mut Shard, slot: usize, now: Stamp) -> bool {
        let remember = !self.common.gone_for.is_zero() && self.max_gone > 0;
        if remember {
            shard.set_state(slot, State::Gone { since: now }, &self.common);
        } else {
            shard.remove(slot, &self.common);
        }
        remember
    }

    // ---- reading ----

    /// Reads a record, without making one, expired or not asking any closure.
    fn look<R>(&self, peer: &PeerId, read: impl FnOnce(&mut Record) -> R) -> Option<R> {
        let hash = self.hash(peer);
        let mut shard = self.lock(Self::shard_of(hash));
        let slot = shard.find_live(hash, peer, &self.common, || self.clock.now())?;
        Some(read(&mut shard.records[slot]))
    }

    /// Reads a record with its value up to date.
    pub(crate) fn read<R>(&self, peer: &PeerId, now: Stamp, read: impl FnOnce(&mut Record, i64) -> R) -> Option<R> {
        self.settle(peer, now);
        let hash = self.hash(peer);
        let mut shard = self.lock(Self::shard_of(hash));
        let slot = shard.find_live(hash, peer, &self.common, || now)?;
        let record = &mut shard.records[slot];
        let value = record.value(now);
        Some(read(record, value))
    }
}
