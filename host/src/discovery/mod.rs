//! Where peers are: a host asks its [`Discoverer`] before it dials.
//!
//! | discoverer | finds |
//! | --- | --- |
//! | [`StaticList`] | what it was told |
//! | [`Ragedisco`](ragedisco::Ragedisco) | the members of groups, by announcements that they sign and pass on; understands the Go original |
//! | [`SwarmAddresses`](swarm::SwarmAddresses) | what the behaviours of a Swarm find: kad, mDNS, identify, rendezvous |

use crate::Handle;
use futures::future::BoxFuture;
use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use std::sync::Arc;

pub mod ragedisco;
mod static_list;
pub mod swarm;

pub use static_list::StaticList;

/// Finds the addresses of peers. One of them serves one host, from the host's start to its close.
///
/// Every method should return at once, and may call the host. A panic ends nothing but the call, is
/// counted ([`Hook`](crate::Hook)) and is logged once.
///
/// | method | called | while it does not return | a panic |
/// | --- | --- | --- | --- |
/// | `start` | in [`Host::start`](crate::Host::start), which the application calls | the host does not start | reaches the application; nothing is left running |
/// | `find_peer` | by a host on a thread for blocking work, for one peer at a time | that peer is not dialled; others are, 256 calls at once | finds no address |
/// | `find_peer` | by a [`Behaviour`](crate::Behaviour) in the Swarm's poll | the whole Swarm waits | finds no address |
/// | `close` | on the host's task, when it closes | the host does not close; its future has five seconds | counts as closed |
pub trait Discoverer: Send + Sync + 'static {
    /// Called once, before the first dial.
    ///
    /// # Errors
    ///
    /// Whatever keeps the discoverer from working. The host does not start then.
    fn start(&self, host: &Handle) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

    /// Called once when the host closes, while its streams still work. The host goes on closing after five seconds,
    /// whether the future is done or not.
    fn close(&self) -> BoxFuture<'_, ()>;

    /// What is known now, best address first. A discoverer that has to search starts the search
    /// here and has the answer for a later call: the host asks again before every round of dials. A
    /// round tries 16 of the addresses, one after the other, beginning with the one that worked
    /// last; the next round goes on behind them. An address that worked and is not known any more
    /// is tried last, unless nothing is known at all: then nothing is dialled.
    fn find_peer(&self, peer: &PeerId) -> Vec<Multiaddr>;
}

impl<D: Discoverer + ?Sized> Discoverer for Arc<D> {
    fn start(&self, host: &Handle) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        (**self).start(host)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        (**self).close()
    }

    fn find_peer(&self, peer: &PeerId) -> Vec<Multiaddr> {
        (**self).find_peer(peer)
    }
}
