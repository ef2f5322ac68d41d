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
use super::time::{Clock, Moment, Stamp};
use crate::config::Config;
use crate::user_code::HookPanics;
use libp2p_identity::PeerId;
use smol_str::SmolStr;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// As many as go-libp2p's: more than there are threads to meet in one.
pub(crate) const SHARDS: usize = 256;

/// How often a closure is asked for a new value while others, or the closure itself, change the old
/// one: then its last answer stands.
const MAX_TRIES: usize = 1_024;

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
    definitions: Mutex<Definitions>,
    pub(crate) panics: Arc<HookPanics>,
    /// Peers whose connections are to be kept alive from now on, or no longer.
    changed: Mutex<Vec<PeerId>>,
}

/// Decaying tags.
#[derive(Debug, Default)]
struct Definitions {
    by_name: HashMap<SmolStr, Arc<Definition>>,
    /// Closed ones of which records may still have values. The last reference must not go under a
    /// lock, as it drops closures of the user's: see [`Book::drop_ended`].
    ended: Vec<Arc<Definition>>,
}

/// A cache line, and the one that the processor fetches with it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(Mutex<Shard>);

impl Book {
    pub(crate) const SHARDS: usize = SHARDS;

    pub(crate) fn new(config: &Config) -> Self {
        let retention = config.retention;
        let panics = Arc::default();
        Self {
            clock: config.clock.clone().counting(&panics),
            panics,
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
        let (hash, moment) = (self.hash(peer), self.clock.moment());
        let mut shard = self.lock(Self::shard_of(hash));
        let (slot, made) = self.find_or_make(&mut shard, hash, peer, moment);
        let outcome = shard.records[slot].set_tag(tag, value, self.max_tags);
        drop(shard);
        self.tagged(hash, peer, outcome, made, moment);
    }

    pub(crate) fn untag(&self, peer: &PeerId, tag: &str) {
        let (hash, moment) = (self.hash(peer), self.clock.moment());
        let mut shard = self.lock(Self::shard_of(hash));
        if let Some(slot) = shard.find_live(hash, peer, &self.common, || moment.now()) {
            shard.records[slot].remove_tag(tag);
        }
    }

    /// A closure whose tag is changed by others, or by itself, is asked again, but not for ever.
    pub(crate) fn upsert(&self, peer: &PeerId, tag: &str, upsert: &mut dyn FnMut(i64) -> i64) {
        let hash = self.hash(peer);
        let read = |shard: &mut Shard, moment: Moment<'_>| {
            shard
                .find_live(hash, peer, &self.common, || moment.now())
                .and_then(|slot| shard.records[slot].tag(tag))
                .unwrap_or(0)
        };
        let mut moment = self.clock.moment();
        let mut old = read(&mut self.lock(Self::shard_of(hash)), moment);
        let mut asked = 0;
        loop {
            asked += 1;
            let new = upsert(old);
            moment = self.clock.moment();
            let mut shard = self.lock(Self::shard_of(hash));
            let found = read(&mut shard, moment);
            if found != old && asked < MAX_TRIES {
                old = found;
                continue;
            }
            let (slot, made) = self.find_or_make(&mut shard, hash, peer, moment);
            let outcome = shard.records[slot].set_tag(tag, new, self.max_tags);
            drop(shard);
            return self.tagged(hash, peer, outcome, made, moment);
        }
    }

    /// What is left to be done after a tag was set, under no lock.
    fn tagged(&self, hash: u64, peer: &PeerId, outcome: TagOutcome, made: bool, moment: Moment<'_>) {
        if outcome == TagOutcome::Full && self.refused_tags.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(%peer, max = self.max_tags, "a peer has as many tags as it may; others are ignored");
        }
        if made {
            self.bound_early(hash, moment.now());
        }
    }

    /// The record of a peer that is about to be tagged; whether it is a new early one.
    fn find_or_make(&self, shard: &mut Shard, hash: u64, peer: &PeerId, moment: Moment<'_>) -> (usize, bool) {
        match shard.find_live(hash, peer, &self.common, || moment.now()) {
            Some(slot) => {
                // Without retention only the grace of a gone peer is remembered. A tag makes it an early one.
                let record = &mut shard.records[slot];
                let early = !self.keep_tags && matches!(record.state(), State::Gone { .. });
                if early {
                    record.set_left(record.left());
                    let since = self.common.early_since(moment.now());
                    shard.set_state(slot, State::Early { since }, &self.common);
                }
                (slot, early)
            }
            None => {
                let now = moment.now();
                shard.sweep(&self.common, now);
                let since = self.common.early_since(now);
                let record = Record::new(*peer, hash, State::Early { since }, now);
                (shard.insert(record, &self.common), true)
            }
        }
    }

    fn bound_early(&self, hash: u64, now: Stamp) {
        let (count, newest) = (&self.common.early, Self::shard_of(hash));
        self.bound(Shard::evict_early, count, self.max_early, newest, now);
    }

    fn bound_gone(&self, hash: u64, now: Stamp) {
        let (count, newest) = (&self.common.gone, Self::shard_of(hash));
        self.bound(Shard::evict_gone, count, self.max_gone, newest, now);
    }

    /// Removes old records until there are no more than there may be: those that have expired, then the oldest of the next part,
    /// and of this part, where the newest is, last of all.
    fn bound(
        &self,
        evict: fn(&mut Shard, &Common) -> bool,
        count: &AtomicUsize,
        max: usize,
        newest: usize,
        now: Stamp,
    ) {
        if count.load(Ordering::Relaxed) <= max {
            return;
        }
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
        let (hash, moment) = (self.hash(peer), self.clock.moment());
        let mut shard = self.lock(Self::shard_of(hash));
        let slot = shard.find_live(hash, peer, &self.common, || moment.now())?;
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
