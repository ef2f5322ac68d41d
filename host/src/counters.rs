//! What a host counts: one atomic addition for each event, whether anybody reads it or not.
//!
//! The `metrics` feature renders these under ragep2p's names. Without it they can be read here.

use crate::user_code::HookPanics;
use libp2p_identity::PeerId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A number that only grows; it wraps after 2^64.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// What was counted so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }
}

/// A number that goes up and down. Zero until it is set.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// What it was set to last.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// How many of something there were in each range of size.
#[derive(Debug, Default)]
pub struct Sizes {
    /// One for each of [`Sizes::BOUNDS`], and one for what is larger than all of them. Not cumulative.
    buckets: [Counter; Self::BOUNDS.len() + 1],
    sum: Counter,
}

impl Sizes {
    /// The upper bounds of the ranges in bytes, each included: 2^8, 2^10 … 2^28.
    pub const BOUNDS: [u64; 11] = [
        1 << 8,
        1 << 10,
        1 << 12,
        1 << 14,
        1 << 16,
        1 << 18,
        1 << 20,
        1 << 22,
        1 << 24,
        1 << 26,
        1 << 28,
    ];

    /// How many there were in each range, not cumulative. The last number is for those above all bounds.
    pub fn buckets(&self) -> [u64; Self::BOUNDS.len() + 1] {
        std::array::from_fn(|at| self.buckets[at].get())
    }

    /// All sizes added up.
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }

    pub(crate) fn observe(&self, size: u64) {
        self.buckets[Self::BOUNDS.partition_point(|bound| *bound < size)].one();
        self.sum.add(size);
    }
}

/// What is counted for one peer. It exists while there is a stream to that peer, as in ragep2p: the first stream makes
/// it, with everything at zero, and the close of the last one ends it.
#[derive(Debug, Default)]
pub struct PeerCounters {
    /// Finished handshakes, both directions, after the limit on inbound ones.
    pub conn_established: Counter,
    /// The inbound part of [`PeerCounters::conn_established`].
    pub conn_established_inbound: Counter,
    /// Bytes of headers, names and payloads that were read for use.
    pub conn_read_processed_bytes: Counter,
    /// Bytes of payloads that were read and thrown away, because of a limit or because nobody has the stream.
    pub conn_read_skipped_bytes: Counter,
    /// Bytes of headers, names and payloads that were written.
    pub conn_written_bytes: Counter,
    /// Bytes read from the socket: knock, handshake and TLS overhead included. Ragep2p leaves out the knock, 97 bytes of
    /// version 2 once a connection.
    pub rawconn_read_bytes: Counter,
    /// Bytes written to the socket, as above.
    pub rawconn_written_bytes: Counter,
    /// What the bucket over the whole connection refills with, bytes per second: the sum over all
    /// streams, up to what a bucket can compute with.
    pub rawconn_rate_limit_rate: Gauge,
    /// The capacity of the bucket over the whole connection, bytes: the sum over all streams, 18 GB
    /// at most.
    pub rawconn_rate_limit_capacity: Gauge,
    /// The sum of all streams' message rates, messages per second.
    pub messages_rate_limit_rate: Gauge,
    /// The sum of all streams' message capacities.
    pub messages_rate_limit_capacity: Gauge,
    /// The sum of all streams' byte rates, bytes per second.
    pub bytes_rate_limit_rate: Gauge,
    /// The sum of all streams' byte capacities, bytes.
    pub bytes_rate_limit_capacity: Gauge,
    /// Payloads of the messages that were sent.
    pub message_bytes: Sizes,
    /// Messages that fell out of a full outgoing buffer, the oldest first. Not in the original.
    pub dropped_outgoing: Counter,
    /// Messages that fell out of a full incoming buffer, the oldest first. Not in the original.
    pub dropped_incoming: Counter,
    /// Received messages over a stream's rate limits. Not in the original.
    pub dropped_rate: Counter,
    /// Messages over a stream's maximum length, in either direction. Not in the original.
    pub dropped_oversize: Counter,
    /// Received messages for a stream that nobody has here. Not in the original.
    pub dropped_unknown: Counter,
    /// Received messages for which the memory budget had no room. Not in the original.
    pub dropped_memory: Counter,
}

/// What a host counts.
#[derive(Debug, Default)]
pub struct HostCounters {
    /// Everything that the listeners accepted, failures of accepting included.
    pub inbound_dials: Counter,
    /// Panics in code of the application's that the host called.
    pub hook_panics: HookPanics,
    peers: Mutex<BTreeMap<PeerId, Arc<PeerCounters>>>,
}

impl HostCounters {
    /// The counters of every peer that there is a stream to, in the order of their ids.
    pub fn peers(&self) -> Vec<(PeerId, Arc<PeerCounters>)> {
        let peers = self.lock();
        peers.iter().map(|(peer, counters)| (*peer, counters.clone())).collect()
    }

    /// The counters of `peer`, if there is a stream to it.
    pub fn peer(&self, peer: &PeerId) -> Option<Arc<PeerCounters>> {
        self.lock().get(peer).cloned()
    }

    /// The first stream to `peer`: new counters.
    pub(crate) fn join(&self, peer: PeerId) -> Arc<PeerCounters> {
        self.lock().entry(peer).or_default().clone()
    }

    /// The last stream to `peer` is closed.
    pub(crate) fn leave(&self, peer: &PeerId) {
        self.lock().remove(peer);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, Arc<PeerCounters>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_counted_in_the_first_range_that_includes_it() {
        let sizes = Sizes::default();
        for size in [0, 1, 256, 257, 1024, 1025, 1 << 28, (1 << 28) + 1, 1 << 30] {
            sizes.observe(size);
        }
        assert_eq!(sizes.buckets(), [3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(
            sizes.sum(),
            1 + 256 + 257 + 1024 + 1025 + (1 << 28) + (1 << 28) + 1 + (1 << 30)
        );
    }

    #[test]
    fn a_peer_that_left_starts_again_at_zero() {
        let host = HostCounters::default();
        let peer = libp2p_identity::Keypair::ed25519_from_bytes([1; 32])
            .unwrap()
            .public()
            .to_peer_id();
        let first = host.join(peer);
        first.conn_established.one();
        assert_eq!(
            host.join(peer).conn_established.get(),
            1,
            "one peer, one set of counters"
        );
        host.leave(&peer);
        assert!(host.peers().is_empty());
        assert_eq!(host.join(peer).conn_established.get(), 0);
    }
}
