//! In which form the addresses of a listener are announced: as it was asked to listen.

use crate::address;
use libp2p_core::Multiaddr;
use libp2p_core::transport::ListenerId;
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The listeners that were asked for circuits without the marker. Their addresses keep that form,
/// which is the one in which the relay's client announces them as well.
#[derive(Debug, Default)]
pub(crate) struct Unmarked(Mutex<HashSet<ListenerId>>);

impl Unmarked {
    /// A listener was asked for, with the marker or without.
    pub(crate) fn listens(&self, id: ListenerId, marked: bool) {
        if !marked {
            self.ids().insert(id);
        }
    }

    /// A listener is no more, or never came to be.
    pub(crate) fn closed(&self, id: ListenerId) {
        self.ids().remove(&id);
    }

    /// An address of a listener's, as it is announced.
    pub(crate) fn announced(&self, id: ListenerId, inner: Multiaddr) -> Multiaddr {
        if self.ids().contains(&id) {
            return inner;
        }
        address::mark(inner)
    }

    fn ids(&self) -> MutexGuard<'_, HashSet<ListenerId>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
