//! Everything known of every peer, for as many threads as like.
//!
//! 256 parts, each behind its own lock, which is held for one change of one record, and by a trim for one part.
//! No closure of the user's ever runs under a lock: what it computes is put in if nothing has changed meanwhile, and
//! computed again otherwise.

mod tags;

use super::decaying::Definition;
use super::hash::Hasher;
use super::record::{Conn, Record, State, TagOutcome};
use super::shard::{Common, Shard};
use super::time::{Clock, Stamp};
use crate::config::Config;
use crate::count::Activity;
use libp2p_core::{ConnectedPoint, multiaddr::Protocol};
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
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

/// What closing a connection left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    /// The trim that closed it, 0 if none.
    pub(crate) closing: u32,
    pub(crate) open_for: Duration,
}

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

    // ---- connections: called by the behaviour only ----

    /// When the peer's grace ends or has ended; nothing if the connection is known already.
    pub(crate) fn established(
        &self,
        peer: PeerId,
        id: ConnectionId,
        endpoint: &ConnectedPoint,
        activity: Option<Activity>,
        now: Stamp,
    ) -> Option<Stamp> {
        let hash = self.hash(&peer);
        let mut shard = self.lock(Self::shard_of(hash));
        let slot = match shard.find_live(hash, &peer, &self.common, || now) {
            Some(slot) => slot,
            None => shard.insert(Record::new(peer, hash, State::Connected, now), &self.common),
        };
        let record = &mut shard.records[slot];
        if record.conns.iter().any(|conn| conn.id == id) {
            tracing::debug!(%peer, connection = %id, "established twice");
            return None;
        }
        if record.conns.is_empty() && !record.returning {
            record.first_seen = now;
        }
        let address = endpoint.get_remote_address().clone();
        record.conns.push(Conn {
            id,
            opened: now,
            relayed: address.iter().any(|part| part == Protocol::P2pCircuit),
            address: Box::new(address),
            activity,
            closing: 0,
            outbound: endpoint.is_dialer(),
        });
        self.open.fetch_add(1, Ordering::Relaxed);
        let grace_ends = record.first_seen.after(self.common.grace);
        shard.set_state(slot, State::Connected, &self.common);
        Some(grace_ends)
    }

    /// Nothing if the connection is not known.
    pub(crate) fn closed(&self, peer: &PeerId, id: ConnectionId, now: Stamp) -> Option<Closed> {
        let hash = self.hash(peer);
        let mut shard = self.lock(Self::shard_of(hash));
        let slot = shard.find(hash, peer)?;
        let record = &mut shard.records[slot];
        let at = record.conns.iter().position(|conn| conn.id == id)?;
        let conn = record.conns.remove(at);
        let counter = if conn.closing == 0 { &self.open } else { &self.closing };
        counter.fetch_sub(1, Ordering::Relaxed);
        let mut gone = false;
        if record.conns.is_empty() {
            record.returning = true;
            record.announced = false;
            record.conns.shrink_to_fit();
            if !self.keep_tags {
                record.clear_tags();
            }
            record.tidy();
            if record.is_kept() {
                shard.set_state(slot, State::Pinned, &self.common);
            } else {
                gone = self.set_gone(&mut shard, slot, now);
                shard.sweep(&self.common, now);
            }
        }
        drop(shard);
        if gone {
            self.bound(
                Shard::evict_gone,
                &self.common.gone,
                self.max_gone,
                Self::shard_of(hash),
            );
        }
        Some(Closed {
            closing: conn.closing,
            open_for: now.since(conn.opened),
        })
    }

    pub(crate) fn address_changed(&self, peer: &PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let hash = self.hash(peer);
        let mut shard = self.lock(Self::shard_of(hash));
        if let Some(slot) = shard.find(hash, peer)
            && let Some(conn) = shard.records[slot].conns.iter_mut().find(|conn| conn.id == id)
        {
            *conn.address = endpoint.get_remote_address().clone();
        }
    }

    /// Marks all connections of a record that are not marked yet; which, and how many, goes to `found`.
    pub(crate) fn mark_closing(&self, record: &mut Record, trim: u32, mut found: impl FnMut(ConnectionId)) -> usize {
        let mut marked = 0;
        for conn in record.conns.iter_mut().filter(|conn| conn.closing == 0) {
            conn.closing = trim;
            marked += 1;
            found(conn.id);
        }
        self.open.fetch_sub(marked, Ordering::Relaxed);
        self.closing.fetch_add(marked, Ordering::Relaxed);
        marked
    }

    /// A peer's connections that are marked.
    pub(crate) fn closing_of(&self, peer: &PeerId) -> Vec<ConnectionId> {
        let hash = self.hash(peer);
        let shard = self.lock(Self::shard_of(hash));
        let Some(slot) = shard.find(hash, peer) else {
            return Vec::new();
        };
        let conns = shard.records[slot].conns.iter();
        conns.filter(|conn| conn.closing != 0).map(|conn| conn.id).collect()
    }

    /// The Swarm is gone, and every connection with it.
    pub(crate) fn disconnect_all(&self, now: Stamp) {
        for shard in 0..SHARDS {
            let connections: Vec<_> = self
                .lock(shard)
                .records
                .iter()
                .flat_map(|record| record.conns.iter().map(|conn| (record.peer(), conn.id)))
                .collect();
            for (peer, id) in connections {
                self.closed(&peer, id, now);
            }
        }
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
                let early = !self.keep_tags && matches!(shard.records[slot].state(), State::Gone { .. });
                if early {
                    let since = self.clock.now();
                    shard.set_state(slot, State::Early { since }, &self.common);
                }
                (slot, early)
            }
            None => {
                let now = self.clock.now();
                shard.sweep(&self.common, now);
                let record = Record::new(*peer, hash, State::Early { since: now }, now);
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

    // ---- protection ----

    /// Whether the behaviour has to be told.
    pub(crate) fn protect(&self, peer: &PeerId, tag: &str) -> bool {
        self.keep(peer, |record| record.protect(tag))
    }

    /// Whether the peer is still protected, and whether the behaviour has to be told.
    pub(crate) fn unprotect(&self, peer: &PeerId, tag: &str) -> (bool, bool) {
        self.release(peer, |record| record.unprotect(tag))
    }

    pub(crate) fn guard(&self, peer: &PeerId) -> bool {
        self.keep(peer, |record| record.guard(|count| count.saturating_add(1)))
    }

    pub(crate) fn unguard(&self, peer: &PeerId) -> bool {
        self.release(peer, |record| record.guard(|count| count.saturating_sub(1)))
            .1
    }

    fn keep(&self, peer: &PeerId, change: impl FnOnce(&mut Record)) -> bool {
        let hash = self.hash(peer);
        let mut shard = self.lock(Self::shard_of(hash));
        let slot = match shard.find_live(hash, peer, &self.common, || self.clock.now()) {
            Some(slot) => slot,
            None => {
                let record = Record::new(*peer, hash, State::Pinned, self.clock.now());
                shard.insert(record, &self.common)
            }
        };
        let before = shard.records[slot].is_kept();
        change(&mut shard.records[slot]);
        if shard.records[slot].conns.is_empty() {
            shard.set_state(slot, State::Pinned, &self.common);
        }
        !before && self.announce(&mut shard.records[slot])
    }

    fn release(&self, peer: &PeerId, change: impl FnOnce(&mut Record)) -> (bool, bool) {
        let hash = self.hash(peer);
        let mut shard = self.lock(Self::shard_of(hash));
        let Some(slot) = shard.find(hash, peer) else {
            return (false, false);
        };
        let record = &mut shard.records[slot];
        let before = record.is_kept();
        change(record);
        record.tidy();
        let (protected, kept) = (!record.protections().is_empty(), record.is_kept());
        if !before || kept {
            return (protected, false);
        }
        if record.state() != State::Pinned {
            return (protected, self.announce(record));
        }
        let (tagged, returning) = (record.tag_count() > 0, record.returning);
        let since = self.clock.now();
        let mut bound = None;
        if tagged && !(returning && self.keep_tags) {
            shard.set_state(slot, State::Early { since }, &self.common);
            bound = Some(true);
        } else if returning {
            bound = self.set_gone(&mut shard, slot, since).then_some(false);
        } else {
            shard.remove(slot, &self.common);
        }
        drop(shard);
        match bound {
            Some(true) => self.bound_early(hash),
            Some(false) => self.bound(
                Shard::evict_gone,
                &self.common.gone,
                self.max_gone,
                Self::shard_of(hash),
            ),
            None => {}
        }
        (protected, false)
    }

    /// Puts a connected peer on the list for the behaviour, once.
    fn announce(&self, record: &mut Record) -> bool {
        if record.conns.is_empty() || record.announced {
            return false;
        }
        record.announced = true;
        self.changed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(record.peer());
        true
    }

    /// Peers whose protection has begun or ended since the last call, with whether they are kept now.
    pub(crate) fn take_changed(&self) -> Vec<PeerId> {
        std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// For a peer from [`Self::take_changed`]: whether it is kept now, and its connections.
    pub(crate) fn acknowledge(&self, peer: &PeerId) -> Option<(bool, Vec<ConnectionId>)> {
        let hash = self.hash(peer);
        let mut shard = self.lock(Self::shard_of(hash));
        let slot = shard.find(hash, peer)?;
        let record = &mut shard.records[slot];
        record.announced = false;
        Some((record.is_kept(), record.conns.iter().map(|conn| conn.id).collect()))
    }

    /// Under a tag, or under any for the empty one.
    pub(crate) fn is_protected(&self, peer: &PeerId, tag: &str) -> bool {
        self.look(peer, |record| {
            let protections = record.protections();
            if tag.is_empty() {
                !protections.is_empty()
            } else {
                protections.iter().any(|known| known == tag)
            }
        })
        .unwrap_or(false)
    }

    /// Protected or in use.
    pub(crate) fn is_kept(&self, peer: &PeerId) -> bool {
        self.look(peer, |record| record.is_kept()).unwrap_or(false)
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
