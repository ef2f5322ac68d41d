//! Connections in the book: called by the behaviour only.

use super::super::record::{Conn, Record, State};
use super::super::time::Stamp;
use super::{Book, SHARDS};
use crate::count::Activity;
use libp2p_core::{ConnectedPoint, multiaddr::Protocol};
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What closing a connection left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    /// The trim that closed it, 0 if none.
    pub(crate) closing: u32,
    pub(crate) open_for: Duration,
}

impl Book {
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
            return None;
        }
        if record.conns.is_empty() {
            // A peer that was away for longer has a new grace, whatever its record was kept for.
            let remembered = record.left().is_some_and(|left| self.common.remembers(left, now));
            if !remembered {
                record.first_seen = now;
            }
            record.set_left(None);
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
            record.announced = false;
            record.conns.shrink_to_fit();
            if !self.keep_tags {
                record.clear_tags();
            }
            record.tidy();
            if record.is_kept() {
                record.set_left(Some(now));
                shard.set_state(slot, State::Pinned, &self.common);
            } else {
                gone = self.set_gone(&mut shard, slot, now);
                shard.sweep(&self.common, now);
            }
        }
        drop(shard);
        if gone {
            self.bound_gone(hash, now);
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

    /// Marks all connections of a record that are not marked yet; which, and how many, goes to
    /// `found`.
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

    /// Marks one connection; whether it was there and not marked yet.
    pub(crate) fn mark_one(&self, peer: &PeerId, id: ConnectionId, trim: u32) -> bool {
        let hash = self.hash(peer);
        let mut shard = self.lock(Self::shard_of(hash));
        let Some(slot) = shard.find(hash, peer) else {
            return false;
        };
        let mut conns = shard.records[slot].conns.iter_mut();
        let Some(conn) = conns.find(|conn| conn.id == id && conn.closing == 0) else {
            return false;
        };
        conn.closing = trim;
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.closing.fetch_add(1, Ordering::Relaxed);
        true
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
}
