//! Addresses that somebody wrote down.

use super::Discoverer;
use crate::Handle;
use futures::future::BoxFuture;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Peers and their addresses, as configured. Clones share one list, which may change while the host runs.
///
/// An address begins with `/ip4`, `/ip6`, or a name, `/dns`, `/dns4` or `/dns6`, which the system's resolver is asked for anew in
/// each round of dials; the first eight addresses that it finds are tried. `/dnsaddr` is not looked up.
///
/// ```
/// use knock_host::discovery::StaticList;
///
/// let peer = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5".parse()?;
/// let list = StaticList::from_iter([(peer, "/ip4/192.0.2.7/tcp/4001/tls".parse()?)]);
/// assert_eq!(list.addresses(&peer).len(), 1);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct StaticList(Arc<RwLock<BTreeMap<PeerId, Vec<Multiaddr>>>>);

impl StaticList {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an address of `peer` behind those it has, once.
    pub fn add(&self, peer: PeerId, address: Multiaddr) {
        let mut list = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let addresses = list.entry(peer).or_default();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }

    /// Forgets every address of `peer`. A connection that there is stays.
    pub fn remove(&self, peer: &PeerId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    /// The addresses of `peer`, in the order in which they were added.
    pub fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let list = self.0.read().unwrap_or_else(PoisonError::into_inner);
        list.get(peer).cloned().unwrap_or_default()
    }
}

impl FromIterator<(PeerId, Multiaddr)> for StaticList {
    fn from_iter<I: IntoIterator<Item = (PeerId, Multiaddr)>>(addresses: I) -> Self {
        let this = Self::new();
        for (peer, address) in addresses {
            this.add(peer, address);
        }
        this
    }
}

impl Discoverer for StaticList {
    fn start(&self, _: &Handle) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn find_peer(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.addresses(peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_list_keeps_the_order_it_was_given_and_no_address_twice() {
        let peer = libp2p_identity::Keypair::ed25519_from_bytes([1; 32])
            .unwrap()
            .public()
            .to_peer_id();
        let at = |port: u16| -> Multiaddr { format!("/ip4/192.0.2.7/tcp/{port}/tls").parse().unwrap() };
        let list = StaticList::from_iter([(peer, at(3)), (peer, at(1)), (peer, at(3)), (peer, at(2))]);
        assert_eq!(list.find_peer(&peer), [at(3), at(1), at(2)]);
        list.clone().remove(&peer);
        assert!(list.find_peer(&peer).is_empty(), "clones share one list");
    }
}
