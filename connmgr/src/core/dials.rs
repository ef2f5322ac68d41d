//! Who is being dialled.

use libp2p_identity::PeerId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Peers that are being dialled. Closing all connections of one would abort the dial; closing the relayed one would end a
/// hole punch, which is a dial while a relayed connection lasts.
#[derive(Debug, Default)]
pub(crate) struct Dials {
    peers: Mutex<HashMap<PeerId, usize>>,
    any: AtomicUsize,
}

impl Dials {
    pub(crate) fn begin(&self, peer: PeerId) {
        let mut peers = self.lock();
        *peers.entry(peer).or_default() += 1;
        self.any.store(peers.len(), Ordering::Relaxed);
    }

    pub(crate) fn end(&self, peer: &PeerId) {
        let mut peers = self.lock();
        if let Some(dials) = peers.get_mut(peer) {
            *dials -= 1;
            if *dials == 0 {
                peers.remove(peer);
            }
        }
        self.any.store(peers.len(), Ordering::Relaxed);
    }

    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn contains(&self, peer: &PeerId) -> bool {
        self.any() && self.lock().contains_key(peer)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, usize>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
