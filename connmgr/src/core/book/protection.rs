//! Protection in the book: what keeps peers, and whose keeping has changed.

use super::super::record::{Record, State};
use super::Book;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use std::sync::PoisonError;

impl Book {
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
        let (hash, moment) = (self.hash(peer), self.clock.moment());
        let mut shard = self.lock(Self::shard_of(hash));
        let slot = match shard.find_live(hash, peer, &self.common, || moment.now()) {
            Some(slot) => slot,
            None => {
                let record = Record::new(*peer, hash, State::Pinned, moment.now());
                shard.insert(record, &self.common)
            }
        };
        let before = shard.records[slot].is_kept();
        change(&mut shard.records[slot]);
        if shard.records[slot].conns.is_empty() {
            shard.pin(slot, &self.common);
        }
        !before && self.announce(&mut shard.records[slot])
    }

    fn release(&self, peer: &PeerId, change: impl FnOnce(&mut Record)) -> (bool, bool) {
        let (hash, now) = (self.hash(peer), self.clock.now());
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
        // What has decayed to nothing is no tag.
        record.value(now);
        let (tagged, left) = (record.tag_count() > 0, record.left());
        let remembered = left.filter(|left| self.common.remembers(*left, now));
        let mut bound = None;
        if tagged && left.is_some() && self.keep_tags {
            bound = self.set_gone(&mut shard, slot, now).then_some(false);
        } else if tagged {
            let since = self.common.early_since(now);
            shard.set_state(slot, State::Early { since }, &self.common);
            bound = Some(true);
        } else if let Some(left) = remembered {
            record.set_left(None);
            bound = self.set_gone(&mut shard, slot, left).then_some(false);
        } else {
            shard.remove(slot, &self.common);
        }
        drop(shard);
        match bound {
            Some(true) => self.bound_early(hash, now),
            Some(false) => self.bound_gone(hash, now),
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

    /// Peers whose protection has begun or ended since the last call, with whether they are kept
    /// now.
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
}
